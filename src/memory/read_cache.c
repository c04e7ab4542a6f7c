// SPDX-License-Identifier: BSD-3-Clause
#include "memory/read_cache.h"

#include "base/check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct sdc_cached {
    uint64_t iova;
    uint64_t size;
    uint8_t *data;
};

// Index of the first piece that ends behind iova. Parsers go from byte to byte: the last hit and the one after it are tried first.
static uint32_t first_past(struct sdc_read_cache *cache, uint64_t iova)
{
    uint32_t low = 0, high = cache->count;

    for (uint32_t i = cache->last; i < cache->count && i < cache->last + 2; i++) {
        if (iova - cache->pieces[i].iova < cache->pieces[i].size) {
            cache->last = i;
            return i;
        }
    }
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct sdc_cached *piece = &cache->pieces[middle];
        if (piece->iova <= iova && iova - piece->iova >= piece->size)
            low = middle + 1;
        else
            high = middle;
    }
    cache->last = low;
    return low;
}

static int insert(struct sdc_read_cache *cache, uint32_t at, uint64_t iova, const uint8_t *data, uint64_t size)
{
    if (cache->count == cache->capacity) {
        uint32_t capacity = cache->capacity ? cache->capacity * 2 : 8;
        struct sdc_cached *pieces = realloc(cache->pieces, capacity * sizeof *pieces);
        if (!pieces)
            return -ENOMEM;
        cache->pieces = pieces;
        cache->capacity = capacity;
    }
    uint8_t *copy = malloc(size);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, data, size);
    memmove(&cache->pieces[at + 1], &cache->pieces[at], (cache->count - at) * sizeof *cache->pieces);
    cache->pieces[at] = (struct sdc_cached){iova, size, copy};
    cache->count++;
    cache->bytes += size;
    return 0;
}

int sdc_read_cache_add(struct sdc_read_cache *cache, uint64_t iova, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    uint64_t end = iova + size;
    uint32_t at = first_past(cache, iova);

    for (; iova < end; at++) {
        uint64_t hole = at < cache->count ? cache->pieces[at].iova : end;
        if (hole > iova) {
            uint64_t length = sdc_min(hole, end) - iova;
            int rc = insert(cache, at, iova, bytes, length);
            if (rc < 0)
                return rc;
            bytes += length;
            iova += length;
        } else { // what is there stays
            uint64_t length = sdc_min(cache->pieces[at].size - (iova - hole), end - iova);
            bytes += length;
            iova += length;
        }
    }
    return 0;
}

void sdc_read_cache_drop(struct sdc_read_cache *cache)
{
    for (uint32_t i = 0; i < cache->count; i++)
        free(cache->pieces[i].data);
    free(cache->pieces);
    *cache = (struct sdc_read_cache){0};
}

uint8_t *sdc_read_cache_find(struct sdc_read_cache *cache, uint64_t iova, uint64_t *size)
{
    uint32_t at = first_past(cache, iova);

    if (at == cache->count)
        return NULL;
    if (iova < cache->pieces[at].iova) {
        *size = sdc_min(*size, cache->pieces[at].iova - iova);
        return NULL;
    }
    uint64_t offset = iova - cache->pieces[at].iova;
    *size = sdc_min(*size, cache->pieces[at].size - offset);
    return cache->pieces[at].data + offset;
}
