// SPDX-License-Identifier: BSD-3-Clause
// The live line: a few figures on stderr, twice a second, in place.
#include "cli/bench_live.h"

#include "cli/bench_report.h"
#include "os/clock.h"

#include <inttypes.h>
#include <unistd.h>

#define SECOND_NS UINT64_C(1000000000)

void sdc_bench_live_begin(struct sdc_bench_live *live, const struct sdc_bench_options *options)
{
    *live = (struct sdc_bench_live){.on = !options->quiet && isatty(STDERR_FILENO)};
    live->start_ns = live->last_ns = sdc_clock_ns();
}

// How much of it is done, 0 to 100; below 0 when nobody can tell.
static double percent_done(const struct sdc_bench_live *live, const struct sdc_bench_options *options,
                           const struct sdc_bench_job *jobs, unsigned count, uint64_t ios, uint64_t now_ns)
{
    double done;
    if (options->runtime_s > 0)
        done =
            (double)(now_ns - live->start_ns) / (double)((options->runtime_s + options->ramp_s) * SECOND_NS);
    else if (options->number_ios > 0)
        done = (double)ios / ((double)options->number_ios * count);
    else
        done = (double)ios / ((double)jobs[0].blocks * count);
    return done > 1 ? 100 : 100 * done;
}

static void print_eta(const struct sdc_bench_live *live, double percent, uint64_t now_ns)
{
    double elapsed = (double)(now_ns - live->start_ns) / 1e9;
    if (percent < 1)
        return;
    unsigned left = (unsigned)(elapsed * (100 - percent) / percent + 0.5);
    fprintf(stderr, "[eta %02um:%02us]", left / 60, left % 60);
}

void sdc_bench_live_update(struct sdc_bench_live *live, const struct sdc_bench_options *options,
                           struct sdc_bench_job *jobs, unsigned count)
{
    static const char letters[] = "rw";
    uint64_t now = sdc_clock_ns(), all = 0;
    if (!live->on || now - live->last_ns < SECOND_NS / 2)
        return;
    fprintf(stderr, "\rJobs: %u", atomic_load(&jobs[0].shared->running));
    for (unsigned i = 0; i < SDC_BENCH_DIRECTIONS; i++) {
        char bandwidth[24], iops[24];
        uint64_t ios = 0, bytes = 0;
        for (unsigned j = 0; j < count; j++) {
            ios += atomic_load_explicit(&jobs[j].live_ios[i], memory_order_relaxed);
            bytes += atomic_load_explicit(&jobs[j].live_bytes[i], memory_order_relaxed);
        }
        all += ios;
        if (ios == 0)
            continue;
        fprintf(stderr, " [%c=%siB/s, %s IOPS]", letters[i],
                sdc_bench_short(sdc_bench_per_second(bytes - live->last_bytes[i], now - live->last_ns), 1024,
                                bandwidth),
                sdc_bench_short(sdc_bench_per_second(ios - live->last_ios[i], now - live->last_ns), 1000,
                                iops));
        live->last_ios[i] = ios;
        live->last_bytes[i] = bytes;
    }
    if (atomic_load(&jobs[0].shared->reading_back)) {
        fputs(" [verifying]", stderr);
    } else if (!atomic_load(&jobs[0].shared->counting)) {
        fputs(" [ramping up]", stderr);
    } else {
        double percent = percent_done(live, options, jobs, count, all, now);
        fprintf(stderr, " [%.1f%%]", percent);
        print_eta(live, percent, now);
    }
    fputs("\033[K", stderr);
    fflush(stderr);
    live->last_ns = now;
    live->shown = true;
}

void sdc_bench_live_end(struct sdc_bench_live *live)
{
    if (live->shown)
        fputs("\r\033[K", stderr);
    live->shown = false;
}
