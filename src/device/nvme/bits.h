// SPDX-License-Identifier: BSD-3-Clause
// Sets of queue ids: a bit for each, in NVME_KICK_WORDS words.
#pragma once

#include "device/nvme/queue.h"

static inline void nvme_bit_set(uint64_t *words, unsigned id)
{
    words[id / 64] |= UINT64_C(1) << (id % 64);
}

// Sets it. Whether it was not set before.
static inline bool nvme_bit_add(uint64_t *words, unsigned id)
{
    bool there = (words[id / 64] >> (id % 64) & 1) != 0;

    nvme_bit_set(words, id);
    return !there;
}

static inline void nvme_bit_clear(uint64_t *words, unsigned id)
{
    words[id / 64] &= ~(UINT64_C(1) << (id % 64));
}

// The first member that is not less than `from`; -1: none.
static inline int nvme_bit_next(const uint64_t *words, int from)
{
    for (unsigned i = (unsigned)from / 64; i < NVME_KICK_WORDS; i++) {
        uint64_t rest = i == (unsigned)from / 64 ? words[i] & (UINT64_MAX << (from % 64)) : words[i];
        if (rest)
            return (int)(64 * i) + __builtin_ctzll(rest);
    }
    return -1;
}
