// SPDX-License-Identifier: BSD-3-Clause
#include "memory/read_cache.h"

#include "base/check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct sdc_cached {
    struct sdc_cached *next;
    uint64_t iova;
    uint64_t size;
    uint8_t data[];
};

int sdc_read_cache_add(struct sdc_read_cache *cache, uint64_t iova, const void *data, size_t size)
{
    struct sdc_cached *cached = malloc(sizeof *cached + size);
    if (!cached)
        return -ENOMEM;

    cached->next = cache->first;
    cached->iova = iova;
    cached->size = size;
    memcpy(cached->data, data, size);
    cache->first = cached;
    return 0;
}

void sdc_read_cache_clear(struct sdc_read_cache *cache)
{
    while (cache->first) {
        struct sdc_cached *cached = cache->first;
        cache->first = cached->next;
        free(cached);
    }
}

uint8_t *sdc_read_cache_find(struct sdc_read_cache *cache, uint64_t iova, uint64_t *size)
{
    for (struct sdc_cached *cached = cache->first; cached; cached = cached->next) {
        uint64_t offset = iova - cached->iova;
        if (iova >= cached->iova && offset < cached->size) {
            *size = sdc_min(*size, cached->size - offset);
            return cached->data + offset;
        }
    }
    return NULL;
}
