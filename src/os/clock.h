// SPDX-License-Identifier: BSD-3-Clause
// Time.
#pragma once

#include <stdint.h>

// Monotonic: what everything is measured and waited for by.
uint64_t sdc_clock_ns(void);
// Nanoseconds since 1970 by the wall clock, which may jump: for reports only.
uint64_t sdc_clock_wall_ns(void);
// Sleeps, or until a signal comes. For threads that have no loop.
void sdc_clock_pause(uint64_t ns);
