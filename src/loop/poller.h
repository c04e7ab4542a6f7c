// SPDX-License-Identifier: BSD-3-Clause
// Pollers: the three ways to wait for work that a driver puts into memory. A poller stands for one ring (or whatever else has an index
// that the driver moves). While it is open the ring's driver need not notify, and the loop looks at the ring in every turn and does not
// sleep; when it closes, the driver is asked to notify again and the ring is looked at once more. All on the loop's thread.
//
// Who owns a ring keeps one rule: the driver is told not to notify only while the ring's poller is open, or while something is under way
// that ends in sdc_poller_rest. So
//
//     work (a kick came, look found something, something is free again):
//         tell the driver not to notify; take what there is
//         if anything was there: sdc_poller_worked
//         if more is there than one turn may take: come again; else sdc_poller_rest
//     before what was finished is shown to the driver: sdc_poller_stir
#pragma once

#include "loop/loop.h"

enum sdc_poll_mode {
    SDC_POLL_NEVER,    // sleep until notified
    SDC_POLL_ADAPTIVE, // poll for as long as work may be expected soon, then sleep
    SDC_POLL_ALWAYS,   // never sleep
};

struct sdc_poller;

struct sdc_poller_ops {
    // Is there work? If so, sees to it in this turn (most likely with sdc_loop_defer) and returns true. Cheap, and no system call: this
    // is what a loop does in a turn in which nothing happens.
    bool (*look)(struct sdc_poller *poller);
    // The driver need not notify from now on.
    void (*suppress)(struct sdc_poller *poller);
    // The driver shall notify again. After that, and a full barrier, looks once more: if work has shown up meanwhile it is seen to,
    // without a notification, as in look.
    void (*rearm)(struct sdc_poller *poller);
};

struct sdc_poller {
    const struct sdc_poller_ops *ops; // the owner's, before the start
    // The rest is the loop's.
    struct sdc_loop *loop; // NULL: stopped
    struct sdc_poller *next, **link; // of those that are open
    enum sdc_poll_mode mode;
    bool open;
    bool fresh; // work has ended since the last look
    uint64_t max_ns;
    uint64_t gap_ns;    // adaptive: mean of the gaps of late
    uint64_t since_ns;  // adaptive: the end of the work before
    uint64_t closes_ns; // adaptive and open: when the window ends
    unsigned misses;    // adaptive: windows in a row that ended without work
    unsigned skip;      // adaptive: windows that are not opened
};

// The ring runs: max_ns bounds the window of ADAPTIVE. A poller that is zeroed but for ops is stopped. One that polls always is open from
// here on: whoever starts it sees to it that the ring is worked off once.
void sdc_poller_start(struct sdc_loop *loop, struct sdc_poller *poller, enum sdc_poll_mode mode, uint64_t max_ns);
// Not looked at any more. Calls nothing. Idempotent.
void sdc_poller_stop(struct sdc_poller *poller);
// Work was found, and taken.
void sdc_poller_worked(struct sdc_poller *poller);
// All is taken that was there: opens the window, or calls rearm. Does nothing when it is stopped.
void sdc_poller_rest(struct sdc_poller *poller);
// The driver is about to be shown something that it has waited for, so that more may come: opens the window, with suppress, or makes it
// longer.
void sdc_poller_stir(struct sdc_poller *poller);
