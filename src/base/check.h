// SPDX-License-Identifier: BSD-3-Clause
// Arithmetic on numbers that somebody else chose, and small helpers that are always right.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// *sum = a + b; false when that does not fit.
static inline bool sdc_add(uint64_t a, uint64_t b, uint64_t *sum)
{
    return !__builtin_add_overflow(a, b, sum);
}

// *product = a * b; false when that does not fit.
static inline bool sdc_mul(uint64_t a, uint64_t b, uint64_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}

// Whether [offset, offset + size) lies inside [0, limit).
static inline bool sdc_within(uint64_t offset, uint64_t size, uint64_t limit)
{
    return offset <= limit && size <= limit - offset;
}

static inline bool sdc_is_power_of_two(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

static inline uint64_t sdc_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t sdc_max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

// The structure that holds `member` at `pointer`.
#define sdc_container(pointer, type, member) ((type *)(void *)((char *)(pointer) - offsetof(type, member)))

#define SDC_COUNT(array) (sizeof(array) / sizeof((array)[0]))
