// SPDX-License-Identifier: BSD-3-Clause
// Clocks.
#include "os/clock.h"

#include <time.h>

#define SECOND_NS UINT64_C(1000000000)

static uint64_t read_clock(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

uint64_t sdc_clock_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t sdc_clock_wall_ns(void)
{
    return read_clock(CLOCK_REALTIME);
}

void sdc_clock_pause(uint64_t ns)
{
    struct timespec time = {.tv_sec = (time_t)(ns / SECOND_NS), .tv_nsec = (long)(ns % SECOND_NS)};
    nanosleep(&time, NULL);
}
