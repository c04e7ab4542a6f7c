// SPDX-License-Identifier: BSD-3-Clause
// What several tests of the client share: a client of a fake server, and servers that do next to nothing.
#pragma once

#include "fake_server.h"

#include <dirent.h>

// Opens a client of server, which waits long for its replies.
#define OPEN(server, client)        \
    struct sdc_vfio_client *client; \
    struct sdc_error err = {0};     \
    assert_int_equal(fake_open(&server, &patient, &client, &err), 0)

static const struct sdc_vfio_client_options patient = {.timeout_ms = 60000};

static inline unsigned open_fds(void)
{
    unsigned count = 0;
    DIR *directory = opendir("/proc/self/fd");
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

static inline bool never_answer(struct fake_server *server, struct fake_message *message)
{
    (void)server, (void)message;
    return true;
}

static inline bool hang_up(struct fake_server *server, struct fake_message *message)
{
    (void)server, (void)message;
    return false;
}

static inline bool echo(struct fake_server *server, struct fake_message *message)
{
    fake_reply(server, message, message->payload, message->size, NULL, 0);
    return true;
}
