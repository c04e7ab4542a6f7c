// SPDX-License-Identifier: BSD-3-Clause
// A structure in guest memory that a ring uses again and again: its place is looked up once for each map of memory. An
// area that is one stretch of host memory is reached directly, any other through the door.
#pragma once

#include "base/bytes.h"
#include "memory/map.h"
#include "ring/step.h"

struct sdc_area {
    uint64_t iova;
    uint64_t size; // bytes
    uint8_t *host; // NULL: through the door
    bool remote;   // a part of it is in remote memory
};

// Looks the whole area up. 0, -EFAULT, -EACCES, or -EINVAL when its address is not a multiple of align.
int sdc_area_resolve(struct sdc_area *area, struct sdc_memory *memory, enum sdc_access access, uint64_t align);

// Writes to an area of which any part is remote all go by message, so that the driver sees them in their order.
static inline int sdc_area_write_through(const struct sdc_area *area, struct sdc_memory *memory, uint64_t offset,
                                         const void *local, size_t size)
{
    if (area->remote)
        return memory->write_remote(memory, area->iova + offset, local, size);
    return sdc_memory_write(memory, area->iova + offset, local, size);
}

// Offsets below are inside the area: the ring computed them from its own size.
static inline int sdc_area_read(const struct sdc_area *area, struct sdc_memory *memory, uint64_t offset, void *local,
                                size_t size)
{
    if (!area->host)
        return sdc_memory_read(memory, area->iova + offset, local, size);
    memcpy(local, area->host + offset, size);
    return 0;
}

static inline int sdc_area_write(const struct sdc_area *area, struct sdc_memory *memory, uint64_t offset,
                                 const void *local, size_t size)
{
    SDC_STEP();
    if (!area->host)
        return sdc_area_write_through(area, memory, offset, local, size);
    memcpy(area->host + offset, local, size);
    return 0;
}

// A 16-bit index or flags word that the other side changes under us: one access, what follows it stays behind it (acquire), through
// the door too.
static inline int sdc_area_load16(const struct sdc_area *area, struct sdc_memory *memory, uint64_t offset,
                                  uint16_t *value)
{
    uint16_t raw = 0;
    int rc = 0;

    if (area->host) {
        raw = __atomic_load_n((uint16_t *)(void *)(area->host + offset), __ATOMIC_ACQUIRE);
    } else {
        rc = sdc_memory_read(memory, area->iova + offset, &raw, sizeof raw);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
    }
    *value = le16toh(raw);
    return rc;
}

// The same for a store: what was written before is visible before it (release).
static inline int sdc_area_store16(const struct sdc_area *area, struct sdc_memory *memory, uint64_t offset,
                                   uint16_t value)
{
    uint16_t raw = htole16(value);

    SDC_STEP();
    if (!area->host) {
        __atomic_thread_fence(__ATOMIC_RELEASE);
        return sdc_area_write_through(area, memory, offset, &raw, sizeof raw);
    }
    __atomic_store_n((uint16_t *)(void *)(area->host + offset), raw, __ATOMIC_RELEASE);
    return 0;
}
