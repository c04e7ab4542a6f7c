// SPDX-License-Identifier: BSD-3-Clause
// Opening block backends. The interface that they implement is <sidecard/block.h>.
#pragma once

#include <sidecard/block.h>

struct sdc_block_open_options {
    bool read_only;
    bool direct;         // file: past the page cache
    bool raw;            // file: take it as raw even if it begins like another image format
    uint32_t block_size; // bytes, a power of two, 512 to 4096; 0: 512, or what a block device has
    uint32_t
        lock_wait_ms; // file: how long requests wait for another process's lock; 0: SDC_LIMIT_LOCK_SECONDS
    uint64_t lock_offset, lock_size; // file: the part that is locked, bytes; size 0: to the end, wherever that is
};

// Opens what spec names: null:SIZE, ram:SIZE, file:PATH, or PATH. Any thread. The caller closes *block with
// (*block)->ops->close when its queues are closed. 0 or a negative errno, with *err filled.
int sdc_block_open(const char *spec, const struct sdc_block_open_options *options, struct sdc_block **block,
                   struct sdc_error *err);

// A disk without anything behind it, to measure what stands in front. It touches no memory: a read leaves the
// buffer as it was, so what a guest reads is what it had there. Completions come at the end of the turn.
int sdc_block_open_null(uint64_t size, const struct sdc_block_open_options *options, struct sdc_block **block,
                        struct sdc_error *err);
// A disk in this process's memory, sparse, full of zeroes at first, gone when it is closed.
int sdc_block_open_ram(uint64_t size, const struct sdc_block_open_options *options, struct sdc_block **block,
                       struct sdc_error *err);
// A raw image: a regular file or a block device.
int sdc_block_open_file(const char *path, const struct sdc_block_open_options *options,
                        struct sdc_block **block, struct sdc_error *err);
