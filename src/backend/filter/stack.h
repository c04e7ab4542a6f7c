// SPDX-License-Identifier: BSD-3-Clause
// Opening backends by the names that people type, with filters in front: FILTER,OPTION=VALUE,...:BACKEND, where BACKEND may begin with a
// filter again. The first one is nearest to the device. sidecard-filters(7) describes them.
#pragma once

#include "backend/block/block.h"
#include "backend/filter/filter.h"

// Opens what spec names, as sdc_block_open does; options are about the backend at the bottom. 0 or a negative errno, with *err filled.
int sdc_stack_open(const char *spec, const struct sdc_block_open_options *options, struct sdc_block **block, struct sdc_error *err);

// The backend at the bottom of spec: what is left behind the filters.
const char *sdc_stack_base(const char *spec);

// The kinds of filters by number, NULL behind the last; or by name, NULL if there is none of that name.
const struct sdc_filter_type *sdc_filter_kind(size_t number);
const struct sdc_filter_type *sdc_filter_named(const char *name, size_t length);
// The kind whose name is nearest to text, or NULL if none is near.
const char *sdc_filter_nearest(const char *text);
