// SPDX-License-Identifier: BSD-3-Clause
// Inside memory: looking a read cache up.
#pragma once

#include "memory/map.h"

// The cached bytes at iova; *size becomes how many of the *size wanted there are. NULL: none, and *size how many are missing in a row.
uint8_t *sdc_read_cache_find(struct sdc_read_cache *cache, uint64_t iova, uint64_t *size);
