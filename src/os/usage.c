// SPDX-License-Identifier: BSD-3-Clause
// getrusage for one thread.
#include "os/usage.h"

#include <sys/resource.h>

static uint64_t to_ns(struct timeval time)
{
    return (uint64_t)time.tv_sec * UINT64_C(1000000000) + (uint64_t)time.tv_usec * 1000;
}

void sdc_usage_of_thread(struct sdc_usage *usage)
{
    struct rusage used = {0};
    getrusage(RUSAGE_THREAD, &used);
    *usage = (struct sdc_usage){
        .user_ns = to_ns(used.ru_utime),
        .system_ns = to_ns(used.ru_stime),
        .switches = (uint64_t)used.ru_nvcsw + (uint64_t)used.ru_nivcsw,
        .minor_faults = (uint64_t)used.ru_minflt,
        .major_faults = (uint64_t)used.ru_majflt,
    };
}
