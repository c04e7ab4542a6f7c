// SPDX-License-Identifier: BSD-3-Clause
// Numbers, sizes and words as people type them.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// A whole decimal number in [min, max]. 0, -EINVAL (not one), -ERANGE.
int sdc_parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *value);
// Bytes: a decimal number with an optional suffix k, m, g, t, p, of either case (powers of 1024; also KiB, MiB, ...; kB... are refused).
// 0, -EINVAL, -ERANGE (does not fit in 63 bits).
int sdc_parse_size(const char *text, uint64_t *bytes);
// Nanoseconds: a decimal number with a unit, ns, us, ms, s, m or h; 0 needs none. 0, -EINVAL, -ERANGE (does not fit in 63 bits).
int sdc_parse_time(const char *text, uint64_t *ns);
// on, off, true, false, yes, no, 1, 0. 0 or -EINVAL.
int sdc_parse_bool(const char *text, bool *value);
// The name nearest to text (few edits away), or NULL if none is near. names ends with NULL.
const char *sdc_nearest(const char *text, const char *const *names);
// "a, b or c", with " or " as `last`, as far as there is room. Returns buffer.
const char *sdc_list_names(const char *const *names, size_t count, const char *last, char *buffer, size_t room);
// "12.0 GiB", "512 B". Returns buffer.
const char *sdc_format_size(uint64_t bytes, char buffer[32]);
