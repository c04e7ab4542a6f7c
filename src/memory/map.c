// SPDX-License-Identifier: BSD-3-Clause
#include "memory/map.h"

#include "base/check.h"
#include "base/limits.h"
#include "memory/read_cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct sdc_map *sdc_map_ref(struct sdc_map *map)
{
    if (map)
        atomic_fetch_add_explicit(&map->refs, 1, memory_order_relaxed);
    return map;
}

void sdc_map_unref(struct sdc_map *map)
{
    if (map && atomic_fetch_sub_explicit(&map->refs, 1, memory_order_acq_rel) == 1)
        map->released(map);
}

void sdc_map_free(struct sdc_map *map)
{
    sdc_regions_clear(&map->regions);
    free(map);
}

// --- the owner's table ---

int sdc_region_table_add(struct sdc_region_table *table, const struct sdc_region *region)
{
    if (table->regions.count >= SDC_LIMIT_DMA_REGIONS)
        return -ENOSPC;
    return sdc_regions_add(&table->regions, region);
}

int sdc_region_table_remove(struct sdc_region_table *table, uint64_t iova, uint64_t size)
{
    return sdc_regions_remove(&table->regions, iova, size);
}

void sdc_region_table_clear(struct sdc_region_table *table)
{
    sdc_regions_clear(&table->regions);
}

struct sdc_map *sdc_region_table_publish(struct sdc_region_table *table, void (*released)(struct sdc_map *map),
                                         void *context)
{
    struct sdc_map *map = malloc(sizeof *map);
    if (!map || sdc_regions_copy(&map->regions, &table->regions) < 0) {
        free(map);
        return NULL;
    }
    atomic_init(&map->refs, 1);
    map->released = released;
    map->context = context;
    map->remote = NULL;
    map->partial = false;
    map->generation = ++table->generation;
    return map;
}

// --- the door ---

// The region that holds iova, or NULL. Tries where the last one was found first.
static const struct sdc_region *find(struct sdc_memory *memory, uint64_t iova)
{
    const struct sdc_region *hit = memory->hit;

    if (hit && iova - hit->iova < hit->size)
        return hit;
    if (!memory->map)
        return NULL;
    hit = sdc_regions_find(&memory->map->regions, iova);
    if (hit)
        memory->hit = hit;
    return hit;
}

// Of what is looked up for the first time, the region that it lies in is at hand from now on.
static void keep_near(struct sdc_memory *memory, const struct sdc_region *region)
{
    for (unsigned i = 0; i < SDC_WINDOWS; i++) {
        if (memory->near[i].host && memory->near[i].iova == region->iova)
            return;
    }
    memory->near[memory->oldest] =
        (struct sdc_window){.iova = region->iova, .size = region->size, .host = region->host, .access = region->access};
    memory->oldest = (memory->oldest + 1) % SDC_WINDOWS;
}

void sdc_denials_add(struct sdc_denials *denials, uint64_t iova, uint64_t size)
{
    if (denials->count == SDC_DENIALS_MAX) {
        denials->all = true;
        return;
    }
    denials->ranges[denials->count].iova = iova;
    denials->ranges[denials->count].size = size;
    denials->count++;
}

static bool is_denied(const struct sdc_denials *denials, uint64_t iova)
{
    for (uint32_t i = 0; denials && i < denials->count; i++) {
        if (iova - denials->ranges[i].iova < denials->ranges[i].size)
            return true;
    }
    return denials && denials->all;
}

// What is to be said of size bytes at iova, where there is no region or, in this one, no access: of a partial map that they are missing,
// until it is known that they will not come.
static int absent(struct sdc_memory *memory, const struct sdc_region *region, uint64_t iova, uint64_t size, enum sdc_access access)
{
    if (!memory->map || !memory->map->partial || is_denied(memory->denied, iova))
        return region ? -EACCES : -EFAULT;
    memory->missing_iova = iova;
    memory->missing_size = size;
    memory->missing_access = access;
    return -EAGAIN;
}

// The stretch of host memory at iova, at most *size bytes; *size becomes its length. NULL with *rc set if there is none.
static uint8_t *stretch(struct sdc_memory *memory, uint64_t iova, uint64_t *size, enum sdc_access access, int *rc)
{
    const struct sdc_region *region = find(memory, iova);
    if (!region || !(region->access & (uint32_t)access)) {
        *rc = absent(memory, region, iova, *size, access);
        return NULL;
    }
    uint64_t offset = iova - region->iova;
    *size = sdc_min(*size, region->size - offset);
    if (region->host) {
        keep_near(memory, region);
        return region->host + offset;
    }
    memory->missing_iova = iova;
    memory->missing_size = *size;
    *rc = -EAGAIN;
    return NULL;
}

int sdc_memory_check(struct sdc_memory *memory, uint64_t iova, uint64_t size, enum sdc_access access)
{
    uint64_t end;
    int remote = 0;

    if (!sdc_add(iova, size, &end))
        return -EFAULT;
    while (iova < end) {
        const struct sdc_region *region = find(memory, iova);
        if (!region || !(region->access & (uint32_t)access))
            return absent(memory, region, iova, end - iova, access);
        remote |= !region->host;
        iova += sdc_min(end - iova, region->size - (iova - region->iova));
    }
    return remote;
}

void sdc_memory_clip(struct sdc_memory *memory, uint64_t iova, uint64_t *begin, uint64_t *end)
{
    const struct sdc_region *region = find(memory, iova);

    if (region) {
        *begin = sdc_max(*begin, region->iova);
        *end = sdc_min(*end, region->iova + region->size);
    }
}

// The bytes at iova, in memory or in the cache: at most *size, which becomes how many.
static const uint8_t *readable(struct sdc_memory *memory, uint64_t iova, uint64_t *size, int *rc)
{
    const uint8_t *host = stretch(memory, iova, size, SDC_ACCESS_READ, rc);

    if (!host && *rc == -EAGAIN && memory->cache) {
        host = sdc_read_cache_find(memory->cache, iova, size);
        memory->missing_size = *size;
    }
    return host;
}

// In pieces: looked at as a whole before any is copied.
static int read_pieces(struct sdc_memory *memory, uint64_t iova, uint8_t *local, uint64_t size)
{
    const uint8_t *host;
    int rc = 0;

    for (int copying = 0; copying <= 1; copying++) {
        for (uint64_t done = 0; done < size;) {
            uint64_t length = size - done, at;
            if (!sdc_add(iova, done, &at))
                return -EFAULT;
            host = readable(memory, at, &length, &rc);
            if (!host)
                return rc;
            if (copying)
                memcpy(local + done, host, length);
            done += length;
        }
    }
    return 0;
}

int sdc_memory_read(struct sdc_memory *memory, uint64_t iova, void *local, size_t size)
{
    uint64_t length = size;
    int rc = 0;

    if (size == 0)
        return 0;
    const uint8_t *host = stretch(memory, iova, &length, SDC_ACCESS_READ, &rc);
    if (!host || length < size)
        return read_pieces(memory, iova, local, size);
    memcpy(local, host, size);
    return 0;
}

static int write_pieces(struct sdc_memory *memory, uint64_t iova, const uint8_t *local, uint64_t size)
{
    int rc = sdc_memory_check(memory, iova, size, SDC_ACCESS_WRITE);
    if (rc < 0)
        return rc;
    if (rc == 1 && !memory->write_remote)
        return -EAGAIN;

    for (uint64_t done = 0; done < size;) {
        uint64_t length = size - done;
        uint8_t *host = stretch(memory, iova + done, &length, SDC_ACCESS_WRITE, &rc);
        if (host)
            memcpy(host, local + done, length);
        else if ((rc = memory->write_remote(memory, iova + done, local + done, length)) < 0)
            return rc;
        done += length;
    }
    return 0;
}

int sdc_memory_write(struct sdc_memory *memory, uint64_t iova, const void *local, size_t size)
{
    uint64_t length = size;
    int rc = 0;

    if (size == 0)
        return 0;
    uint8_t *host = stretch(memory, iova, &length, SDC_ACCESS_WRITE, &rc);
    if (!host || length < size)
        return write_pieces(memory, iova, local, size);
    memcpy(host, local, size);
    return 0;
}

int sdc_memory_spans(struct sdc_memory *memory, uint64_t iova, uint64_t size, enum sdc_access access,
                     struct sdc_span *out, unsigned max)
{
    unsigned count = 0;
    uint64_t end;

    if (!sdc_add(iova, size, &end))
        return -EFAULT;
    while (iova < end) {
        uint64_t length = end - iova;
        int rc = 0;
        uint8_t *host = stretch(memory, iova, &length, access, &rc);
        if (!host)
            return rc;
        if (count > 0 && (uint8_t *)out[count - 1].base + out[count - 1].size == host) {
            out[count - 1].size += length;
        } else {
            if (count == max)
                return -E2BIG;
            out[count++] = (struct sdc_span){host, length};
        }
        iova += length;
    }
    return (int)count;
}
