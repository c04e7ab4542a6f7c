// SPDX-License-Identifier: BSD-3-Clause
// Time. Monotonic only.
#pragma once

#include <stdint.h>

uint64_t sdc_clock_ns(void);
