// SPDX-License-Identifier: BSD-3-Clause
// A virtio-blk request of the simulated driver: how it is made, and what may come of it.
#pragma once

#include "io.h"

enum expectation {
    EXPECT_OK,
    EXPECT_IOERR,
    EXPECT_UNSUPP,
    EXPECT_NOTHING, // no status byte can be written
};

struct request {
    struct sim_io io;
    struct sim_chain chain;
    uint32_t type; // virtio 1.2, 5.2.6
    enum expectation expected;
    uint32_t writable_size;
    unsigned foreign; // the part that is no memory of ours, plus one
};

// What the driver accepted and knows of the disk.
struct disk_view {
    bool discard, write_zeroes, read_only;
};

// Fills a free request for a ring with room for `slots` entries. False: no memory, or no room.
bool request_make(struct request *request, const struct sim_ring *ring, const struct disk_view *view, unsigned slots);
// It is about to be shown to the device.
void request_begin(struct request *request, uint64_t now);
// The device gave it back.
void request_end(struct request *request, uint32_t written, uint64_t now, uint64_t flushes);
// It was given up.
void request_drop(struct request *request, uint64_t now);
// Whether a part of it, or its table, lies there.
bool request_touches(const struct request *request, uint64_t iova, uint64_t size);
bool request_table_touches(const struct request *request, uint64_t iova, uint64_t size);
