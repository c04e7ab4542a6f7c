// SPDX-License-Identifier: BSD-3-Clause
// Sums over jobs, and results for people, in the spirit of fio's.
#include "cli/bench_report.h"

#include "base/parse.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

const double sdc_bench_percentiles[SDC_BENCH_PERCENTILES] = {
    1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 99.5, 99.9, 99.95, 99.99,
};

// --- sums ---

static void add_usage(struct sdc_usage *sum, const struct sdc_usage *usage)
{
    sum->user_ns += usage->user_ns;
    sum->system_ns += usage->system_ns;
    sum->switches += usage->switches;
    sum->minor_faults += usage->minor_faults;
    sum->major_faults += usage->major_faults;
}

static void add_job(struct sdc_bench_totals *totals, const struct sdc_bench_job *job)
{
    for (unsigned i = 0; i < SDC_BENCH_DIRECTIONS; i++) {
        totals->stats[i].ios += job->stats[i].ios;
        totals->stats[i].bytes += job->stats[i].bytes;
        if (job->stats[i].runtime_ns > totals->stats[i].runtime_ns)
            totals->stats[i].runtime_ns = job->stats[i].runtime_ns;
        sdc_histogram_merge(&totals->stats[i].latency, &job->stats[i].latency);
    }
    if (job->elapsed_ns > totals->elapsed_ns)
        totals->elapsed_ns = job->elapsed_ns;
    totals->jobs_ns += job->elapsed_ns;
    add_usage(&totals->usage, &job->usage);
    totals->kicks += job->kicks;
    totals->waits += job->waits;
    totals->verified += job->verified;
    if (!totals->error && job->error.code != 0)
        totals->error = &job->error;
}

void sdc_bench_sum(const struct sdc_bench_job *jobs, unsigned count, struct sdc_bench_totals *totals)
{
    memset(totals, 0, sizeof *totals);
    totals->jobs = count;
    for (unsigned i = 0; i < count; i++)
        add_job(totals, &jobs[i]);
}

// --- for people ---

const char *sdc_bench_short(double number, double unit, char buffer[24])
{
    static const char *const suffixes[] = {"", "k", "M", "G", "T", "P"};
    unsigned step = 0;
    // 999.95 would be shown as 1000.0.
    while (step + 1 < sizeof suffixes / sizeof suffixes[0] && number >= 999.5) {
        number /= unit;
        step++;
    }
    int digits = step == 0 || number >= 99.95 ? 0 : number >= 9.995 ? 1 : 2;
    snprintf(buffer, 24, "%.*f%s", digits, number, suffixes[step]);
    return buffer;
}

// The unit that a latency is shown in.
struct unit {
    const char *name;
    double ns;
};

static struct unit choose_unit(double ns)
{
    if (ns < 10e3)
        return (struct unit){"nsec", 1};
    return ns < 10e6 ? (struct unit){"usec", 1e3} : (struct unit){"msec", 1e6};
}

static void print_percentiles(FILE *to, const struct sdc_histogram *latency)
{
    struct unit unit = choose_unit((double)sdc_histogram_percentile(latency, 50));
    fprintf(to, "    clat percentiles (%s):\n", unit.name);
    for (unsigned i = 0; i < SDC_BENCH_PERCENTILES; i++) {
        double value = (double)sdc_histogram_percentile(latency, sdc_bench_percentiles[i]) / unit.ns;
        bool last = i + 1 == SDC_BENCH_PERCENTILES;
        fprintf(to, "%s%5.2fth=[%6.*f]%s", i % 4 == 0 ? "     | " : " ", sdc_bench_percentiles[i],
                unit.ns > 1 && value < 100 ? 1 : 0, value,
                last         ? "\n"
                : i % 4 == 3 ? ",\n"
                             : ",");
    }
}

static void print_direction(FILE *to, const char *name, const struct sdc_bench_stats *stats)
{
    char iops[24], binary[24], decimal[24], bytes[32];
    const struct sdc_histogram *latency = &stats->latency;
    double bandwidth = sdc_bench_per_second(stats->bytes, stats->runtime_ns);
    fprintf(to, "  %s: IOPS=%s, BW=%siB/s (%sB/s) (%s in %" PRIu64 " ms)\n", name,
            sdc_bench_short(sdc_bench_per_second(stats->ios, stats->runtime_ns), 1000, iops),
            sdc_bench_short(bandwidth, 1024, binary), sdc_bench_short(bandwidth, 1000, decimal),
            sdc_format_size(stats->bytes, bytes), stats->runtime_ns / 1000000);
    struct unit unit = choose_unit(sdc_histogram_mean(latency));
    fprintf(to, "    clat (%s): min=%.1f, max=%.1f, avg=%.2f, stdev=%.2f\n", unit.name,
            (double)latency->min / unit.ns, (double)latency->max / unit.ns,
            sdc_histogram_mean(latency) / unit.ns, sdc_histogram_deviation(latency) / unit.ns);
    print_percentiles(to, latency);
}

static void print_cpu(FILE *to, const struct sdc_driver_disk_info *info, const struct sdc_bench_totals *totals)
{
    uint64_t ios = totals->stats[SDC_BENCH_READ].ios + totals->stats[SDC_BENCH_WRITE].ios;
    double time = totals->jobs_ns > 0 ? (double)totals->jobs_ns : 1;
    fprintf(to, "  cpu: usr=%.2f%%, sys=%.2f%%, ctx=%" PRIu64 "\n",
            100 * (double)totals->usage.user_ns / time, 100 * (double)totals->usage.system_ns / time,
            totals->usage.switches);
    if (ios > 0)
        fprintf(to, "  queues: %.3f notifications%s%s and %.3f waits for each request\n",
                (double)totals->kicks / (double)ios, *info->notified_by ? " by " : "", info->notified_by,
                (double)totals->waits / (double)ios);
}

static const char *describe_rings(const struct sdc_driver_disk_info *info, char buffer[64])
{
    if (info->nvme.nsid != 0)
        snprintf(buffer, 64, "namespace %" PRIu32 "%s%s", info->nvme.nsid, info->nvme.sgl ? ", SGLs" : "",
                 info->nvme.shadows ? ", shadow doorbells" : "");
    else
        snprintf(buffer, 64, "%s rings%s", info->ring, info->virtio.in_order ? " in order" : "");
    return buffer;
}

void sdc_bench_print(FILE *to, const struct sdc_bench_options *options,
                     const struct sdc_driver_disk_info *info, const struct sdc_bench_totals *totals)
{
    static const char *const names[] = {"read", "write"};
    char size[32], rings[64];
    fprintf(to, "bench: rw=%s, bs=%s, iodepth=%" PRIu64 ", jobs=%u, %s, %s, %s, %s memory: err=%d\n", options->rw,
            sdc_format_size(options->block_size, size), options->iodepth, totals->jobs,
            options->poll ? "polling" : "by interrupt", info->device, describe_rings(info, rings),
            sdc_bench_memory_name(options->memory), totals->error ? -totals->error->code : 0);
    for (unsigned i = 0; i < SDC_BENCH_DIRECTIONS; i++)
        if (totals->stats[i].ios > 0)
            print_direction(to, names[i], &totals->stats[i]);
    print_cpu(to, info, totals);
    if (options->verify)
        fprintf(to, "  verify: %" PRIu64 " blocks checked%s\n", totals->verified,
                totals->error && totals->error->code == -EILSEQ ? "" : ", all as they were written");
}
