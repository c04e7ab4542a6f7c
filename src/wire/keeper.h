// SPDX-License-Identifier: BSD-3-Clause
// What a device process and its keeper say to one another over a Unix socket that keeps messages apart (SOCK_SEQPACKET). The keeper holds
// copies of fds in numbered slots for whoever is the device process next. Every message has this form, little-endian.
#pragma once

#include <stdint.h>

struct sdc_keeper_message {
    uint32_t what;
    uint32_t slot;
};

enum {
    SDC_KEEPER_PUT = 1,   // either way, with one fd: it is in the slot. The keeper sends those that it has first of all
    SDC_KEEPER_DROP = 2,  // to the keeper: the slot is empty
    SDC_KEEPER_START = 3, // to the device process: those were all, go on with them
    SDC_KEEPER_READY = 4, // to the keeper: they are in use, clients are served
    SDC_KEEPER_STOP = 5,  // to the device process: end in order, so that another one can go on
    SDC_KEEPER_STOPPED = 6, // to the keeper: done; the process exits with status 0
};
