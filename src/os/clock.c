// SPDX-License-Identifier: BSD-3-Clause
// The monotonic clock.
#include "os/clock.h"

#include <time.h>

uint64_t sdc_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}
