// SPDX-License-Identifier: BSD-3-Clause
// The card of library_card.c in a process of its own, for clients that are not kind: linked with the shared library where there is one.
//
//   served-card SOCKET [epoll] [outside]
#include "library_card.h"

#include <stdio.h>
#include <string.h>

static void write_line(enum sdc_log_level level, const char *line)
{
    if (level == SDC_LOG_ERROR)
        fprintf(stderr, "%s\n", line);
}

int main(int argc, char **argv)
{
    struct sdc_server_options options = {.take_signals = true};
    struct sdc_server *server = NULL;
    struct sdc_error err = {0};
    atomic_bool destroyed = false;
    bool outside = false;

    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "epoll") == 0)
            options.loop = SDC_LOOP_EPOLL;
        outside |= strcmp(argv[i], "outside") == 0;
    }
    sdc_log_set(SDC_LOG_ERROR, write_line);
    int rc = argc < 2 ? -1 : sdc_server_new(&options, &server, &err);
    if (rc == 0)
        rc = sdc_server_add_pci(server, argv[1], card_new(&destroyed, true), NULL, &err);
    if (rc == 0) {
        puts("READY");
        fflush(stdout);
    }
    if (rc == 0 && outside)
        card_turn(server);
    else if (rc == 0)
        rc = sdc_server_run(server, &err);
    sdc_server_free(server);
    if (rc < 0)
        fprintf(stderr, "served-card: %s\n", err.text);
    return rc < 0 || !destroyed;
}
