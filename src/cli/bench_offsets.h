// SPDX-License-Identifier: BSD-3-Clause
// Which block comes next: in order, or at random, each block once before any comes again (as with fio's
// random map, but computed instead of remembered).
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct sdc_bench_offsets {
    uint64_t blocks; // there are so many, at least 1
    uint64_t at;     // in this pass
    uint64_t pass;
    uint64_t seed;
    uint64_t key; // of this pass
    uint64_t low_mask, high_mask;
    unsigned low_bits; // the lower half of 2^bits >= blocks
    bool random;
};

void sdc_bench_offsets_init(struct sdc_bench_offsets *offsets, uint64_t blocks, bool random, uint64_t seed);
// The next block, 0 to blocks - 1. After the last one a new pass begins, in another order if it is random.
uint64_t sdc_bench_offsets_next(struct sdc_bench_offsets *offsets);
// Whether the block that comes next is the first of a pass.
static inline bool sdc_bench_offsets_at_start(const struct sdc_bench_offsets *offsets)
{
    return offsets->at == 0;
}

// A good 64-bit mix of its input.
uint64_t sdc_bench_mix(uint64_t value);
