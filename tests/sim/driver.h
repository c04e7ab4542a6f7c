// SPDX-License-Identifier: BSD-3-Clause
// What the two files of the virtio-blk driver share: driver.c brings the device up and down, driver_queue.c keeps its queues busy.
#pragma once

#include "request.h"

enum { NOTIFY = 0x3000 }; // in BAR 4, four bytes for each queue

struct driver_queue {
    struct sim_ring ring;
    struct request requests[SIM_RING_MAX];
    bool open; // it has memory
    bool live; // and may be used
    bool sleeping;
    bool irq;
    bool kick_due;
    bool malformed; // it has to break
    bool may_break;
    unsigned burst; // requests until it waits for all
    uint32_t vector;
};

struct driver {
    struct driver_queue queues[SIM_QUEUES];
    struct disk_view view;
    uint64_t now; // counts up with everything that a request does
    bool stopped; // no new requests
    bool silent;  // the device may not interrupt: it was reset
    bool config_irq;
    unsigned long ended; // requests
};
extern struct driver driver;

// Members of struct sim_driver.
enum { DRIVER_IOS = SIM_QUEUES * SIM_RING_MAX };
struct sim_io *driver_io(unsigned index);
bool driver_can_run(unsigned index);
void driver_run(unsigned index);
void driver_irq(uint32_t vector);
void driver_refused(void);
bool driver_rings_touch(uint64_t iova, uint64_t size);
void driver_moved(uint64_t iova, uint64_t size);
void driver_resized(uint64_t low);
