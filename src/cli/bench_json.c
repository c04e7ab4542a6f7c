// SPDX-License-Identifier: BSD-3-Clause
// Results in the form of fio's JSON (fio --output-format=json --group_reporting), so that what reads that
// reads this.
#include "cli/bench_report.h"
#include "os/clock.h"

#include <errno.h>
#include <jansson.h>

static json_t *integer(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static json_t *latency_object(const struct sdc_histogram *latency, bool percentiles)
{
    json_t *object = json_object();
    json_object_set_new(object, "min", integer(latency->min));
    json_object_set_new(object, "max", integer(latency->max));
    json_object_set_new(object, "mean", json_real(sdc_histogram_mean(latency)));
    json_object_set_new(object, "stddev", json_real(sdc_histogram_deviation(latency)));
    json_object_set_new(object, "N", integer(latency->count));
    if (!percentiles || latency->count == 0)
        return object;
    json_t *list = json_object();
    for (unsigned i = 0; i < SDC_BENCH_PERCENTILES; i++) {
        char name[24];
        snprintf(name, sizeof name, "%.6f", sdc_bench_percentiles[i]);
        json_object_set_new(list, name, integer(sdc_histogram_percentile(latency, sdc_bench_percentiles[i])));
    }
    json_object_set_new(object, "percentile", list);
    return object;
}

static json_t *direction_object(const struct sdc_bench_stats *stats)
{
    static const struct sdc_histogram none;
    double bandwidth = sdc_bench_per_second(stats->bytes, stats->runtime_ns);
    json_t *object = json_object();
    json_object_set_new(object, "io_bytes", integer(stats->bytes));
    json_object_set_new(object, "io_kbytes", integer(stats->bytes / 1024));
    json_object_set_new(object, "bw_bytes", integer((uint64_t)bandwidth));
    json_object_set_new(object, "bw", integer((uint64_t)(bandwidth / 1024)));
    json_object_set_new(object, "iops", json_real(sdc_bench_per_second(stats->ios, stats->runtime_ns)));
    json_object_set_new(object, "runtime", integer(stats->runtime_ns / 1000000));
    json_object_set_new(object, "total_ios", integer(stats->ios));
    json_object_set_new(object, "short_ios", integer(0));
    json_object_set_new(object, "drop_ios", integer(0));
    // Requests go down in batches: the time of one's own submission is part of clat.
    json_object_set_new(object, "slat_ns", latency_object(&none, false));
    json_object_set_new(object, "clat_ns", latency_object(&stats->latency, true));
    json_object_set_new(object, "lat_ns", latency_object(&stats->latency, false));
    return object;
}

static void set_number_text(json_t *object, const char *name, uint64_t value)
{
    json_object_set_new(object, name, json_sprintf("%llu", (unsigned long long)value));
}

// fio has options as text.
static json_t *options_object(const struct sdc_bench_options *options)
{
    json_t *object = json_object();
    json_object_set_new(object, "filename", json_string(options->socket));
    json_object_set_new(object, "rw", json_string(options->rw));
    set_number_text(object, "bs", options->block_size);
    set_number_text(object, "iodepth", options->iodepth);
    set_number_text(object, "numjobs", options->numjobs);
    set_number_text(object, "offset", options->offset);
    set_number_text(object, "size", options->size);
    if (options->reads && options->writes)
        set_number_text(object, "rwmixread", options->rwmixread);
    if (options->runtime_s > 0)
        set_number_text(object, "runtime", options->runtime_s);
    if (options->ramp_s > 0)
        set_number_text(object, "ramp_time", options->ramp_s);
    if (options->number_ios > 0)
        set_number_text(object, "number_ios", options->number_ios);
    set_number_text(object, "randseed", options->seed);
    json_object_set_new(object, "verify", json_string(options->verify ? "pattern" : "none"));
    json_object_set_new(object, "iommu", json_string(sdc_bench_iommu_name(options->iommu)));
    json_object_set_new(object, "memory", json_string(sdc_bench_memory_name(options->memory)));
    json_object_set_new(object, "wait", json_string(options->poll ? "poll" : "interrupt"));
    return object;
}

static void add_virtio(json_t *object, const struct sdc_driver_disk_info *info)
{
    json_object_set_new(object, "in_order", json_boolean(info->virtio.in_order));
    json_object_set_new(object, "features", json_sprintf("0x%llx", (unsigned long long)info->virtio.features));
}

static void add_nvme(json_t *object, const struct sdc_driver_disk_info *info)
{
    uint32_t version = info->nvme.version;
    json_object_set_new(object, "model", json_string(info->nvme.model));
    json_object_set_new(object, "serial", json_string(info->nvme.serial));
    json_object_set_new(object, "firmware", json_string(info->nvme.firmware));
    json_object_set_new(object, "version", json_sprintf("%u.%u.%u", version >> 16, version >> 8 & 0xff, version & 0xff));
    json_object_set_new(object, "namespace", integer(info->nvme.nsid));
    json_object_set_new(object, "data_by", json_string(info->nvme.sgl ? "sgl" : "prp"));
    json_object_set_new(object, "shadow_doorbells", json_boolean(info->nvme.shadows));
}

// What fio has no words for.
static json_t *device_object(const struct sdc_driver_disk_info *info, const struct sdc_bench_totals *totals)
{
    json_t *object = json_object();
    json_object_set_new(object, "device", json_string(info->device));
    json_object_set_new(object, "size", integer(info->size));
    json_object_set_new(object, "block_size", integer(info->block_size));
    json_object_set_new(object, "queues", integer(info->queues));
    json_object_set_new(object, "queue_size", integer(info->queue_size));
    json_object_set_new(object, "ring", json_string(info->ring));
    json_object_set_new(object, "notified_by", json_string(info->notified_by));
    if (info->nvme.nsid != 0)
        add_nvme(object, info);
    else
        add_virtio(object, info);
    json_object_set_new(object, "notifications", integer(totals->kicks));
    json_object_set_new(object, "waits", integer(totals->waits));
    json_object_set_new(object, "verified_blocks", integer(totals->verified));
    return object;
}

static json_t *job_object(const struct sdc_bench_options *options, const struct sdc_driver_disk_info *info,
                          const struct sdc_bench_totals *totals)
{
    double time = totals->jobs_ns > 0 ? (double)totals->jobs_ns : 1;
    json_t *object = json_object();
    json_object_set_new(object, "jobname", json_string("bench"));
    json_object_set_new(object, "groupid", integer(0));
    json_object_set_new(object, "error", integer(totals->error ? (uint64_t)-totals->error->code : 0));
    json_object_set_new(object, "eta", integer(0));
    json_object_set_new(object, "elapsed", integer((totals->elapsed_ns + 999999999) / 1000000000));
    json_object_set_new(object, "job options", options_object(options));
    json_object_set_new(object, "read", direction_object(&totals->stats[SDC_BENCH_READ]));
    json_object_set_new(object, "write", direction_object(&totals->stats[SDC_BENCH_WRITE]));
    json_object_set_new(object, "job_runtime", integer(totals->jobs_ns / 1000000));
    json_object_set_new(object, "usr_cpu", json_real(100 * (double)totals->usage.user_ns / time));
    json_object_set_new(object, "sys_cpu", json_real(100 * (double)totals->usage.system_ns / time));
    json_object_set_new(object, "ctx", integer(totals->usage.switches));
    json_object_set_new(object, "majf", integer(totals->usage.major_faults));
    json_object_set_new(object, "minf", integer(totals->usage.minor_faults));
    json_object_set_new(object, "device", device_object(info, totals));
    if (totals->error)
        json_object_set_new(object, "error_text", json_string(totals->error->text));
    return object;
}

int sdc_bench_print_json(FILE *to, const struct sdc_bench_options *options,
                         const struct sdc_driver_disk_info *info, const struct sdc_bench_totals *totals)
{
    uint64_t now_ms = sdc_clock_wall_ns() / 1000000;
    json_t *root = json_object(), *jobs = json_array();
    json_object_set_new(root, "sidecard version", json_string("sidecard-" SDC_VERSION));
    json_object_set_new(root, "timestamp", integer(now_ms / 1000));
    json_object_set_new(root, "timestamp_ms", integer(now_ms));
    json_array_append_new(jobs, job_object(options, info, totals));
    int ret = json_object_set_new(root, "jobs", jobs);
    if (ret == 0)
        ret = json_dumpf(root, to, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    json_decref(root);
    fputc('\n', to);
    return ret == 0 ? 0 : -ENOMEM;
}
