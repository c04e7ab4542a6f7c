// SPDX-License-Identifier: BSD-3-Clause
// What a driver asks of the disk, whatever kind of device is between: the places, and what may come of it.
#pragma once

#include "sim.h"

enum { SIM_RANGES = 4, SIM_IO_NONE = 99 };

struct sim_range {
    uint64_t sector;
    uint32_t sectors;
    uint32_t flags;
};

struct sim_io {
    bool busy;
    unsigned queue;
    unsigned op;                         // enum sdc_block_op that the backend gets, or SIM_IO_NONE
    struct sim_range ranges[SIM_RANGES]; // of reads and writes too
    unsigned ranges_count;
    uint64_t stamp;
    unsigned writes[SIM_RANGES]; // the model's handles
    unsigned writes_count;
    bool may_fail;   // something happened to it meanwhile
    bool may_be_old; // its queue breaks, and the model forgets what only it could read
    uint64_t invoked;
    uint64_t flushes;
};

// One range of up to `most` sectors, in whole blocks.
void sim_io_choose_place(struct sim_io *io, uint32_t most);
// Its writes begin; they have ended.
void sim_io_write(struct sim_io *io, uint64_t now);
void sim_io_written(const struct sim_io *io, uint64_t now, bool sure);
void sim_io_check_read(const struct sim_io *io, const uint8_t *data, uint64_t now);
// It succeeded: no error of the backend's may have been its own.
void sim_io_check_swallowed(const struct sim_io *io);
// It failed, perhaps for another reason than the backend's: whose error that was cannot be told any more.
void sim_io_spread_doubt(const struct sim_io *io);
// It failed: whether the backend's error can have been its own, rather one that can be nobody else's.
bool sim_io_takes_error(const struct sim_io *io);
