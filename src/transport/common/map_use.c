// SPDX-License-Identifier: BSD-3-Clause
#include "transport/common/map_use.h"

#include <errno.h>
#include <stdlib.h>

static void drop(struct sdc_map_use *use)
{
    sdc_map_unref(use->map);
    free(use);
}

int sdc_map_use_switch(struct sdc_map_use **current, struct sdc_map *map)
{
    struct sdc_map_use *use = calloc(1, sizeof *use);
    if (!use) {
        sdc_map_unref(map);
        return -ENOMEM;
    }
    use->map = map;
    struct sdc_map_use *old = *current;
    *current = use;
    if (old && old->in_flight == 0)
        drop(old);
    return 0;
}

void sdc_map_use_end(struct sdc_map_use **current)
{
    if (*current)
        drop(*current);
    *current = NULL;
}

void sdc_map_use_put(struct sdc_map_use *use, const struct sdc_map_use *current)
{
    if (--use->in_flight == 0 && use != current)
        drop(use);
}
