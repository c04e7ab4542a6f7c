// SPDX-License-Identifier: BSD-3-Clause
// A map of guest memory as one thread uses it. Requests hold the map that they were translated with; when guest memory changes, new ones
// use the new map, and the old one is given up with the last request that holds it.
#pragma once

#include "memory/map.h"

struct sdc_map_use {
    struct sdc_map *map; // holds a reference
    uint32_t in_flight;  // requests translated with it; zero, and not current: the reference is dropped
};

// From now on requests are translated with map, whose reference it takes over, also when it fails. *current may be NULL. -ENOMEM.
int sdc_map_use_switch(struct sdc_map_use **current, struct sdc_map *map);
// Nothing is translated any more, and nothing in flight holds *current. Which becomes NULL. Idempotent.
void sdc_map_use_end(struct sdc_map_use **current);
// A request has ended that held use.
void sdc_map_use_put(struct sdc_map_use *use, const struct sdc_map_use *current);
