// SPDX-License-Identifier: BSD-3-Clause
// Results of sidecard bench, for people and as JSON.
#pragma once

#include "cli/bench_job.h"

#include <stdio.h>

enum { SDC_BENCH_PERCENTILES = 17 };
extern const double sdc_bench_percentiles[SDC_BENCH_PERCENTILES]; // fio's

// All jobs together: times are the longest of any job, the rest are sums.
struct sdc_bench_totals {
    unsigned jobs;
    uint64_t elapsed_ns;
    struct sdc_bench_stats stats[SDC_BENCH_DIRECTIONS];
    struct sdc_usage usage;
    uint64_t jobs_ns; // sum of the jobs' times, which usage is a part of
    uint64_t kicks;
    uint64_t waits;
    uint64_t verified;
    const struct sdc_error *error; // of the first job that has one, or NULL
};

void sdc_bench_sum(const struct sdc_bench_job *jobs, unsigned count, struct sdc_bench_totals *totals);

// For people.
void sdc_bench_print(FILE *to, const struct sdc_bench_options *options,
                     const struct sdc_driver_disk_info *info, const struct sdc_bench_totals *totals);
// In the form of fio's JSON, one job for all. 0 or -ENOMEM.
int sdc_bench_print_json(FILE *to, const struct sdc_bench_options *options,
                         const struct sdc_driver_disk_info *info, const struct sdc_bench_totals *totals);

static inline double sdc_bench_per_second(uint64_t amount, uint64_t ns)
{
    return ns == 0 ? 0 : (double)amount * 1e9 / (double)ns;
}

// A number in at most five characters or so: 912, 12.3k, 1.25M. Returns buffer.
const char *sdc_bench_short(double number, double unit, char buffer[24]);
