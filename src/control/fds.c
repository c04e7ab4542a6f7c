// SPDX-License-Identifier: BSD-3-Clause
#include "control/fds.h"

#include "base/log.h"
#include "os/fd.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum {
    OF_PROCESS = 16, // standard ones, signals, the reserve, those that were passed in
    OF_LOOP = 4,
    OF_SOCKET = 2, // with its lock
    OF_CLIENT = 3, // its connection, the configuration's interrupt, a second channel
    OF_QUEUE = 3,  // kicks, interrupts, errors
};

static bool has_fd(const struct sdc_card_backend *backend)
{
    const char *base = sdc_stack_base(backend->name);

    return strncmp(base, "null:", 5) != 0 && strncmp(base, "ram:", 4) != 0;
}

static uint64_t of_card(const struct sdc_serve_options *card)
{
    uint64_t fds = strstr(card->socket, "fd:") || card->connect ? 1 : OF_SOCKET;

    for (unsigned i = 0; i < card->card.backends_count; i++)
        fds += has_fd(&card->card.backends[i]);
    return fds;
}

int sdc_fds_make_room(const struct sdc_serve_options *cards, unsigned count, unsigned threads, struct sdc_error *err)
{
    uint64_t limit = sdc_fd_raise_limit();
    uint64_t idle = OF_PROCESS + (uint64_t)threads * OF_LOOP, served;

    for (unsigned i = 0; i < count; i++)
        idle += of_card(&cards[i]);
    if (idle > limit)
        return sdc_error_set(err, -EMFILE, SDC_FAULT_HOST, "%u cards need %" PRIu64 " open files before a client connects, and this "
                             "process may have %" PRIu64 "; raise its limit (ulimit -Hn, LimitNOFILE= of a service)", count, idle, limit);
    served = idle;
    for (unsigned i = 0; i < count; i++)
        served += OF_CLIENT + OF_QUEUE * (uint64_t)(cards[i].card.queues ? cards[i].card.queues : 1);
    if (served > limit)
        sdc_log(SDC_LOG_WARNING, "%u cards need up to %" PRIu64 " open files when all have a client, and this process may have "
                "%" PRIu64 "; the last clients will be turned away; raise its limit (ulimit -Hn, LimitNOFILE= of a service)", count,
                served, limit);
    return 0;
}
