// SPDX-License-Identifier: BSD-3-Clause
// Random order without memory: a keyed permutation of [0, 2^bits) made of Feistel rounds, walked until it
// lands inside [0, blocks).
#include "cli/bench_offsets.h"

enum { ROUNDS = 4 };

// The finalizer of splitmix64.
uint64_t sdc_bench_mix(uint64_t value)
{
    value += UINT64_C(0x9e3779b97f4a7c15);
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

// One half of the bits is changed by what the other is, in turns; each round can be undone, so all of them
// permute.
static uint64_t permute(const struct sdc_bench_offsets *offsets, uint64_t value)
{
    uint64_t low = value & offsets->low_mask, high = value >> offsets->low_bits;
    for (unsigned round = 0; round < ROUNDS; round++) {
        if (round % 2 == 0)
            high ^= sdc_bench_mix(low ^ (offsets->key + round)) & offsets->high_mask;
        else
            low ^= sdc_bench_mix(high ^ (offsets->key + round)) & offsets->low_mask;
    }
    return high << offsets->low_bits | low;
}

static void begin_pass(struct sdc_bench_offsets *offsets)
{
    offsets->at = 0;
    offsets->key = sdc_bench_mix(offsets->seed + sdc_bench_mix(offsets->pass));
}

void sdc_bench_offsets_init(struct sdc_bench_offsets *offsets, uint64_t blocks, bool random, uint64_t seed)
{
    unsigned bits = 0;
    *offsets = (struct sdc_bench_offsets){.blocks = blocks, .random = random, .seed = seed};
    while (bits < 63 && UINT64_C(1) << bits < blocks)
        bits++;
    offsets->low_bits = (bits + 1) / 2;
    offsets->low_mask = (UINT64_C(1) << offsets->low_bits) - 1;
    offsets->high_mask = (UINT64_C(1) << (bits - offsets->low_bits)) - 1;
    begin_pass(offsets);
}

uint64_t sdc_bench_offsets_next(struct sdc_bench_offsets *offsets)
{
    uint64_t value = offsets->at;
    if (offsets->random) {
        do
            value = permute(offsets, value);
        while (value >= offsets->blocks);
    }
    if (++offsets->at == offsets->blocks) {
        offsets->pass++;
        begin_pass(offsets);
    }
    return value;
}
