// SPDX-License-Identifier: BSD-3-Clause
// Cache lines, the unit in which memory moves between processors: what different threads write lies on lines of its own, what is used
// together shares one.
#pragma once

enum { SDC_LINE = 64 }; // bytes

// That it will be read soon. Any address will do: nothing but time depends on it.
static inline void sdc_prefetch(const void *address)
{
    __builtin_prefetch(address, 0);
}
