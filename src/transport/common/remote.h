// SPDX-License-Identifier: BSD-3-Clause
// Remote memory: guest memory that came without an fd, so that its bytes move in messages to the client. A session that can send them
// puts its struct sdc_remote into the maps that it publishes; a queue starts transfers on it from its own loop. Where the map is partial no
// bytes move: a transfer is a range that is asked for, to read or to write, and done when the map has it or never will.
#pragma once

#include "loop/loop.h"

#include <stdatomic.h>

struct sdc_transfer;

struct sdc_remote {
    struct sdc_loop *home;
    // Home loop: begins it. Transfers happen in the order in which they are begun. Ends in sdc_transfer_finish.
    void (*begin)(struct sdc_remote *remote, struct sdc_transfer *transfer);
};

// One stretch of bytes on its way. Belongs to who starts it, again from done on.
struct sdc_transfer {
    struct sdc_loop *loop; // the starter's
    uint64_t iova;
    uint32_t size; // bytes
    bool write;    // to the guest
    uint8_t *data;
    int result;    // 0 or a negative errno, when done
    void (*done)(struct sdc_transfer *transfer); // the starter's loop
    // The starter does not want it any more: set on its loop, before it says that it has obeyed. Nothing of the transfer is asked
    // from then on; it is done soon.
    atomic_bool dropped;
    struct sdc_post post;
    // The session's.
    struct sdc_remote *remote;
    struct sdc_transfer *next;
    uint32_t sent;        // bytes asked for
    uint32_t outstanding; // messages without a reply
};

// The starter's loop.
void sdc_transfer_start(struct sdc_remote *remote, struct sdc_transfer *transfer);
// Home loop.
void sdc_transfer_finish(struct sdc_transfer *transfer, int result);
