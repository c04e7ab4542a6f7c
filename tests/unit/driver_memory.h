// SPDX-License-Identifier: BSD-3-Clause
// A driver's memory as a device in the same process sees it: one region, for tests that put the two halves
// together.
#pragma once

#include "memory/map.h"

#include <sidecard/client.h>

#include <stdlib.h>

static inline void driver_region(struct sdc_region_table *table, const struct sdc_client_memory *memory)
{
    struct sdc_region region = {.iova = memory->iova, .size = memory->size, .host = memory->base,
                                .access = SDC_ACCESS_READ | SDC_ACCESS_WRITE};

    if (sdc_region_table_add(table, &region) < 0)
        abort();
}

static inline struct sdc_map *driver_map(const struct sdc_client_memory *memory)
{
    struct sdc_region_table table = {0};

    driver_region(&table, memory);
    struct sdc_map *map = sdc_region_table_publish(&table, sdc_map_free, NULL);
    sdc_region_table_clear(&table);
    return map;
}
