// SPDX-License-Identifier: BSD-3-Clause
// The vhost-user back end (docs/interop/vhost-user.rst in QEMU): shows a virtio device to a VMM, the front end, over a Unix socket. The
// card is the device with its vrings, and outlives sessions; a session is one connected front end. When it has gone its session is
// taken down - vrings stopped, device reset, memory unmapped - and the next one is let in.
#pragma once

#include <sidecard/virtio.h>

#include "transport/common/listener.h"

struct sdc_vhu_card;

// Takes over device, also when this fails. loops[0] is the home loop; queue i lives on loops[i % loops_count].
int sdc_vhu_card_new(struct sdc_virtio_device *device, struct sdc_loop *const *loops, unsigned loops_count,
                     struct sdc_vhu_card **card, struct sdc_error *err);
// No session is there, no loop runs. Frees the device too.
void sdc_vhu_card_free(struct sdc_vhu_card *card);

struct sdc_vhu_options {
    const char *name;       // for the log: the socket's path
    const char *path;       // to connect to; outlives the listener
    bool allow_file_memory; // guest memory may be a plain file, which can be truncated under us
    struct sdc_loop *const *fixed_loops; // that register guest memory with io_uring, where the card's queues are; they outlive the listener
    unsigned fixed_loops_count;          // 0: none does
};

// Serves card on fd, a listening non-blocking socket that stays the caller's, from the card's home loop. card outlives the listener.
// fd -1: connects to a front end that listens at path instead, and again when it has gone.
int sdc_vhu_listen(struct sdc_loop *loop, int fd, struct sdc_vhu_card *card, const struct sdc_vhu_options *options,
                   struct sdc_listener **listener, struct sdc_error *err);
