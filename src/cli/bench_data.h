// SPDX-License-Identifier: BSD-3-Clause
// Data that tells where it belongs: a block that sidecard bench --verify writes begins with a header (seed,
// offset, generation, size) and goes on with bytes that follow from it, so that a block that is old, torn or
// from elsewhere is found out.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sdc_bench_stamp {
    uint64_t seed;
    uint64_t offset;     // bytes on the disk
    uint64_t generation; // how often the block was written in this run, from 1
};

// size is a multiple of 8, at least 512.
void sdc_bench_data_fill(void *block, size_t size, const struct sdc_bench_stamp *stamp);
// Whether block is as it was filled; generation 0 takes any. If not, `what` says in words what was expected
// and found.
bool sdc_bench_data_check(const void *block, size_t size, const struct sdc_bench_stamp *stamp,
                          char what[200]);
