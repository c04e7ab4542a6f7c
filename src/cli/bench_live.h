// SPDX-License-Identifier: BSD-3-Clause
// The line that tells how a bench goes while it runs.
#pragma once

#include "cli/bench_job.h"

struct sdc_bench_live {
    bool on;
    bool shown; // there is a line to wipe
    uint64_t start_ns;
    uint64_t counting_ns; // when counting began, 0: not yet
    uint64_t last_ns;
    uint64_t last_ios[SDC_BENCH_DIRECTIONS];
    uint64_t last_bytes[SDC_BENCH_DIRECTIONS];
};

// Only on a terminal, and not when options say so.
void sdc_bench_live_begin(struct sdc_bench_live *live, const struct sdc_bench_options *options);
// Writes the line anew if it is time.
void sdc_bench_live_update(struct sdc_bench_live *live, const struct sdc_bench_options *options,
                           struct sdc_bench_job *jobs, unsigned count);
void sdc_bench_live_end(struct sdc_bench_live *live);
