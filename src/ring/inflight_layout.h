// SPDX-License-Identifier: BSD-3-Clause
// The regions' layout, offsets in bytes, and what the two files of the log share.
#pragma once

#include "ring/inflight.h"
#include "ring/step.h"

#include <endian.h>

enum {
    VERSION = 1, // zero: not written yet
    REGION_FEATURES = 0,
    REGION_VERSION = 8,
    REGION_DESC_NUM = 10,
    // QueueRegionSplit, DescStateSplit
    SPLIT_BATCH_HEAD = 12,
    SPLIT_USED = 14,
    SPLIT_ENTRIES = 16,
    SPLIT_INFLIGHT = 0,
    SPLIT_NEXT = 6,
    SPLIT_COUNTER = 8,
    SPLIT_ENTRY = 16,
    // QueueRegionPacked, DescStatePacked
    PACKED_FREE_HEAD = 12,
    PACKED_OLD_FREE_HEAD = 14,
    PACKED_USED = 16,
    PACKED_OLD_USED = 18,
    PACKED_WRAP = 20,
    PACKED_OLD_WRAP = 21,
    PACKED_ENTRIES = 32, // behind 7 bytes of padding and what aligns the entries
    PACKED_INFLIGHT = 0,
    PACKED_NEXT = 2,
    PACKED_LAST = 4,
    PACKED_NUM = 6,
    PACKED_COUNTER = 8,
    PACKED_ID = 16,
    PACKED_FLAGS = 18,
    PACKED_LENGTH = 20,
    PACKED_ADDRESS = 24,
    PACKED_ENTRY = 32,
};

static inline uint8_t *split_entry(const struct sdc_inflight *log, uint32_t index)
{
    return log->region + SPLIT_ENTRIES + (uint64_t)index * SPLIT_ENTRY;
}

static inline uint8_t *packed_entry(const struct sdc_inflight *log, uint32_t index)
{
    return log->region + PACKED_ENTRIES + (uint64_t)index * PACKED_ENTRY;
}

// One store or load each, in the order of the program: what follows a kill sees all before it and nothing behind it.
#define ACCESS(bits, convert, back)                                                              \
    static inline void put##bits(uint8_t *to, uint##bits##_t value)                              \
    {                                                                                            \
        SDC_STEP();                                                                              \
        __atomic_store_n((uint##bits##_t *)(void *)to, convert(value), __ATOMIC_RELEASE);        \
    }                                                                                            \
    static inline uint##bits##_t get##bits(const uint8_t *from)                                  \
    {                                                                                            \
        return back(__atomic_load_n((const uint##bits##_t *)(const void *)from, __ATOMIC_ACQUIRE)); \
    }
ACCESS(8, (uint8_t), (uint8_t))
ACCESS(16, htole16, le16toh)
ACCESS(32, htole32, le32toh)
ACCESS(64, htole64, le64toh)
#undef ACCESS

// A chain that is in flight, and when it was taken.
struct inflight_age {
    uint64_t counter;
    uint16_t entry;
};
// Fills log->again from ages, which it sorts. 0, -EPROTO, -ENOMEM.
int inflight_line_up(struct sdc_inflight *log, struct inflight_age *ages, uint32_t count);

void inflight_start_packed(struct sdc_inflight *log, uint16_t used, bool wrap);
