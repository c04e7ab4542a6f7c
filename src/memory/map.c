// SPDX-License-Identifier: BSD-3-Clause
#include "memory/map.h"

#include "base/check.h"
#include "base/limits.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void sdc_mapping_ref(struct sdc_mapping *mapping)
{
    if (mapping)
        atomic_fetch_add_explicit(&mapping->refs, 1, memory_order_relaxed);
}

void sdc_mapping_unref(struct sdc_mapping *mapping)
{
    if (mapping && atomic_fetch_sub_explicit(&mapping->refs, 1, memory_order_acq_rel) == 1)
        mapping->release(mapping);
}

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
    for (uint32_t i = 0; i < map->count; i++)
        sdc_mapping_unref(map->regions[i].mapping);
    free(map);
}

// Index of the first region that ends after iova.
static uint32_t first_past(const struct sdc_region *regions, uint32_t count, uint64_t iova)
{
    uint32_t low = 0;

    while (count > 0) {
        uint32_t half = count / 2;
        const struct sdc_region *middle = &regions[low + half];
        if (iova - middle->iova >= middle->size && iova >= middle->iova) {
            low += half + 1;
            count -= half + 1;
        } else {
            count = half;
        }
    }
    return low;
}

// --- the owner's table ---

static int reserve(struct sdc_region_table *table)
{
    if (table->count < table->capacity)
        return 0;
    uint32_t capacity = table->capacity ? table->capacity * 2 : 16;
    struct sdc_region *regions = realloc(table->regions, capacity * sizeof *regions);
    if (!regions)
        return -ENOMEM;
    table->regions = regions;
    table->capacity = capacity;
    return 0;
}

int sdc_region_table_add(struct sdc_region_table *table, const struct sdc_region *region)
{
    uint64_t end;
    if (region->size == 0 || !sdc_add(region->iova, region->size, &end))
        return -EINVAL;
    if (table->count >= SDC_LIMIT_DMA_REGIONS)
        return -ENOSPC;

    uint32_t at = first_past(table->regions, table->count, region->iova);
    if (at < table->count && table->regions[at].iova < end)
        return -EEXIST;
    int rc = reserve(table);
    if (rc < 0)
        return rc;
    memmove(&table->regions[at + 1], &table->regions[at], (table->count - at) * sizeof *region);
    table->regions[at] = *region;
    table->count++;
    sdc_mapping_ref(region->mapping);
    return 0;
}

int sdc_region_table_remove(struct sdc_region_table *table, uint64_t iova, uint64_t size)
{
    uint32_t at = first_past(table->regions, table->count, iova);
    if (at == table->count || table->regions[at].iova != iova || table->regions[at].size != size)
        return -ENOENT;

    struct sdc_mapping *mapping = table->regions[at].mapping;
    table->count--;
    memmove(&table->regions[at], &table->regions[at + 1], (table->count - at) * sizeof *table->regions);
    sdc_mapping_unref(mapping);
    return 0;
}

void sdc_region_table_clear(struct sdc_region_table *table)
{
    for (uint32_t i = 0; i < table->count; i++)
        sdc_mapping_unref(table->regions[i].mapping);
    free(table->regions);
    table->regions = NULL;
    table->count = table->capacity = 0;
}

struct sdc_map *sdc_region_table_publish(struct sdc_region_table *table, void (*released)(struct sdc_map *map),
                                         void *context)
{
    struct sdc_map *map = malloc(sizeof *map + table->count * sizeof map->regions[0]);
    if (!map)
        return NULL;
    atomic_init(&map->refs, 1);
    map->released = released;
    map->context = context;
    map->generation = ++table->generation;
    map->count = table->count;
    for (uint32_t i = 0; i < table->count; i++) {
        map->regions[i] = table->regions[i];
        sdc_mapping_ref(map->regions[i].mapping);
    }
    return map;
}

// --- the door ---

// The region that holds iova, or NULL. Tries where the last one was found first.
static const struct sdc_region *find(struct sdc_memory *memory, uint64_t iova)
{
    const struct sdc_map *map = memory->map;
    if (!map)
        return NULL;
    if (memory->last < map->count) {
        const struct sdc_region *hit = &map->regions[memory->last];
        if (iova - hit->iova < hit->size)
            return hit;
    }
    uint32_t at = first_past(map->regions, map->count, iova);
    if (at == map->count || iova < map->regions[at].iova)
        return NULL;
    memory->last = at;
    return &map->regions[at];
}

// The stretch of host memory at iova, at most *size bytes; *size becomes its length. NULL with *rc set if there is none.
static uint8_t *stretch(struct sdc_memory *memory, uint64_t iova, uint64_t *size, enum sdc_access access, int *rc)
{
    const struct sdc_region *region = find(memory, iova);
    if (!region) {
        *rc = -EFAULT;
        return NULL;
    }
    if (!(region->access & (uint32_t)access)) {
        *rc = -EACCES;
        return NULL;
    }
    uint64_t offset = iova - region->iova;
    *size = sdc_min(*size, region->size - offset);
    if (!region->host) {
        memory->missing_iova = iova;
        memory->missing_size = *size;
        *rc = -EAGAIN;
        return NULL;
    }
    return region->host + offset;
}

// Whether all of [iova, iova + size) may be accessed, so that a copy is whole or not begun.
static int check_all(struct sdc_memory *memory, uint64_t iova, uint64_t size, enum sdc_access access)
{
    uint64_t end;
    if (!sdc_add(iova, size, &end))
        return -EFAULT;
    while (iova < end) {
        uint64_t length = end - iova;
        int rc = 0;
        if (!stretch(memory, iova, &length, access, &rc))
            return rc;
        iova += length;
    }
    return 0;
}

static int copy(struct sdc_memory *memory, uint64_t iova, uint8_t *local, uint64_t size, enum sdc_access access)
{
    uint64_t length = size;
    int rc;
    uint8_t *host = stretch(memory, iova, &length, access, &rc);
    if (!host)
        return rc;
    if (length < size) {
        rc = check_all(memory, iova, size, access);
        if (rc < 0)
            return rc;
    }
    for (;;) {
        if (access == SDC_ACCESS_READ)
            memcpy(local, host, length);
        else
            memcpy(host, local, length);
        local += length;
        iova += length;
        size -= length;
        if (size == 0)
            return 0;
        length = size;
        host = stretch(memory, iova, &length, access, &rc);
    }
}

int sdc_memory_read(struct sdc_memory *memory, uint64_t iova, void *local, size_t size)
{
    return size ? copy(memory, iova, local, size, SDC_ACCESS_READ) : 0;
}

int sdc_memory_write(struct sdc_memory *memory, uint64_t iova, const void *local, size_t size)
{
    return size ? copy(memory, iova, (uint8_t *)(uintptr_t)local, size, SDC_ACCESS_WRITE) : 0;
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
