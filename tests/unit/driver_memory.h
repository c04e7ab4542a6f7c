// SPDX-License-Identifier: BSD-3-Clause
// A driver's memory as a device in the same process sees it: one region, for tests that put the two halves
// together.
#pragma once

#include "memory/map.h"

#include <sidecard/client.h>

#include <stdlib.h>

static inline struct sdc_map *driver_map(const struct sdc_client_memory *memory)
{
    struct sdc_map *map = calloc(1, sizeof *map + sizeof map->regions[0]);
    atomic_init(&map->refs, 1);
    map->released = sdc_map_free;
    map->count = 1;
    map->regions[0] = (struct sdc_region){.iova = memory->iova,
                                          .size = memory->size,
                                          .host = memory->base,
                                          .access = SDC_ACCESS_READ | SDC_ACCESS_WRITE};
    return map;
}
