// SPDX-License-Identifier: BSD-3-Clause
// sidecard bench SOCKET: drives a served disk as a guest would, from user space, and measures or verifies it.
#include "base/check.h"
#include "base/parse.h"
#include "cli/bench_connect.h"
#include "cli/bench_live.h"
#include "cli/bench_report.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "os/clock.h"
#include "os/signals.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>

#define DATA_IOVA (UINT64_C(1) << 32)
#define DATA_MAX (UINT64_C(16) << 30)         // bytes of all requests' data
#define VERIFY_BLOCKS_MAX (UINT64_C(1) << 28) // whose generations are remembered

enum { VHOST_QUEUE_SIZE = 256 }; // over vhost-user a device does not say what it has

struct bench {
    struct sdc_bench_options options;
    struct sdc_bench_shared shared;
    struct sdc_driver_disk *disk;
    struct sdc_client_memory data;
    struct sdc_bench_job *jobs;
    unsigned jobs_ready; // initialised
};

static atomic_bool interrupted;

static void note_signal(int number)
{
    (void)number;
    atomic_store(&interrupted, true);
}

// The first one ends the run in good order; the next one has its usual effect.
static void catch_signals(void)
{
    sdc_signal_catch_once(SIGINT, note_signal);
    sdc_signal_catch_once(SIGTERM, note_signal);
}

// --- what was asked against what the disk is ---

static int check_region(struct sdc_bench_options *options, const struct sdc_driver_disk_info *info,
                        struct sdc_error *err)
{
    char want[32], have[32];
    if (options->offset >= info->size)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "--offset=%" PRIu64 ": the disk has %" PRIu64 " bytes (%s)", options->offset,
                             info->size, sdc_format_size(info->size, have));
    uint64_t left = info->size - options->offset;
    if (options->size > left)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "--size=%" PRIu64 " (%s): the disk has %" PRIu64
                             " bytes (%s) from --offset=%" PRIu64 " on",
                             options->size, sdc_format_size(options->size, want), left,
                             sdc_format_size(left, have), options->offset);
    if (options->size == 0)
        options->size = left;
    options->size -= options->size % options->block_size;
    if (options->size == 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "--bs=%" PRIu64 ": the disk has %" PRIu64 " bytes from --offset=%" PRIu64 " on",
                             options->block_size, left, options->offset);
    return 0;
}

static int check_disk(struct sdc_bench_options *options, const struct sdc_driver_disk_info *info,
                      struct sdc_error *err)
{
    if (sdc_bench_options_nvme(options) && info->nvme.nsid == 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--%s: that is for NVMe controllers, and the disk is %s",
                             sdc_bench_options_nvme(options), info->device);
    if (options->in_order && !info->virtio.in_order)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "--in-order=on: the disk does not offer that (VIRTIO_F_IN_ORDER); it has to be served with "
                             "--in-order=on");
    if (options->writes && info->read_only)
        return sdc_error_set(err, -EROFS, SDC_FAULT_USER,
                             "--rw=%s: the disk is read-only; type --rw=read or --rw=randread", options->rw);
    if (options->block_size % info->block_size != 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "--bs=%" PRIu64 ": must be a multiple of the disk's block size, %" PRIu32,
                             options->block_size, info->block_size);
    if (options->block_size > info->request_max)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "--bs=%" PRIu64 ": the disk takes requests of at most %" PRIu64 " bytes",
                             options->block_size, info->request_max);
    if (options->numjobs > info->queues)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "--numjobs=%" PRIu64 ": the disk has %u queue%s, one job each; type --numjobs=%u, or serve it with more "
                             "--queues",
                             options->numjobs, info->queues, info->queues == 1 ? "" : "s", info->queues);
    if (options->iodepth * options->numjobs * options->block_size > DATA_MAX)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "--iodepth=%" PRIu64 " x --numjobs=%" PRIu64 " x --bs=%" PRIu64
                             ": more than 16 GiB in flight",
                             options->iodepth, options->numjobs, options->block_size);
    int ret = check_region(options, info, err);
    if (ret == 0 && options->verify && options->size / options->block_size > VERIFY_BLOCKS_MAX)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "--verify: %" PRIu64 " blocks to remember, at most %" PRIu64
                             "; type a smaller --size or a larger --bs",
                             options->size / options->block_size, VERIFY_BLOCKS_MAX);
    if (ret == 0 && options->verify && options->size / options->block_size < options->numjobs)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "--verify gives each job blocks of its own: %" PRIu64
                             " blocks don't suffice for --numjobs=%" PRIu64,
                             options->size / options->block_size, options->numjobs);
    return ret;
}

// --- setting up ---

static int start_disk(struct bench *bench, struct sdc_error *err)
{
    const struct sdc_bench_options *options = &bench->options;
    struct sdc_driver_disk_options setup = {
        .queues = (uint16_t)options->numjobs,
        .queue_size = (uint16_t)(options->queue_size == 0 && options->vhost_user ? VHOST_QUEUE_SIZE : options->queue_size),
        .depth = (uint32_t)options->iodepth,
        .request_max = options->block_size,
        .poll = options->poll,
        .memory = options->memory,
    };
    struct sdc_error why = {0};
    int ret = sdc_driver_disk_start(bench->disk, &setup, &why);
    if (ret == -E2BIG)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--iodepth=%" PRIu64 " with --bs=%" PRIu64 ": %s",
                             options->iodepth, options->block_size, why.text);
    if (ret == -EINVAL && options->queue_size > 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--queue-size=%" PRIu64 ": %s",
                             options->queue_size, why.text);
    if (ret < 0 && err)
        *err = why;
    return ret;
}

// Gives each job its memory and its region: with --verify a part of its own, else all of it, as with fio.
static int make_jobs(struct bench *bench, struct sdc_error *err)
{
    const struct sdc_bench_options *options = &bench->options;
    uint64_t bytes = options->iodepth * options->block_size, blocks = options->size / options->block_size;
    unsigned count = (unsigned)options->numjobs;
    int ret = sdc_client_memory_new_kind(&bench->data, options->memory, DATA_IOVA, bytes * count, err);
    if (ret == 0)
        ret = sdc_driver_disk_map(bench->disk, &bench->data, err);
    if (ret < 0)
        return ret;
    bench->jobs = calloc(count, sizeof *bench->jobs);
    if (!bench->jobs)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for --numjobs=%u", count);
    for (unsigned i = 0; ret == 0 && i < count; i++) {
        struct sdc_bench_job *job = &bench->jobs[i];
        uint64_t first = options->verify ? blocks / count * i : 0;
        job->shared = &bench->shared;
        job->index = i;
        job->queue = sdc_driver_disk_queue(bench->disk, (uint16_t)i);
        job->data = bench->data.base + bytes * i;
        job->data_iova = DATA_IOVA + bytes * i;
        job->start = options->offset + first * options->block_size;
        job->blocks = !options->verify ? blocks : i + 1 < count ? blocks / count : blocks - first;
        bench->jobs_ready++;
        ret = sdc_bench_job_init(job, err);
    }
    return ret;
}

// --- running ---

#define MILLISECOND UINT64_C(1000000)

static void watch_jobs(struct bench *bench)
{
    struct sdc_bench_live live;
    sdc_bench_live_begin(&live, &bench->options);
    // The first looks are close together: short runs end at once.
    for (uint64_t ms = 1; atomic_load(&bench->shared.running) > 0; ms = ms < 50 ? ms * 2 : 50) {
        sdc_clock_pause(ms * MILLISECOND);
        if (atomic_load(&interrupted))
            atomic_store(&bench->shared.stop, true);
        sdc_bench_live_update(&live, &bench->options, bench->jobs, bench->jobs_ready);
    }
    sdc_bench_live_end(&live);
}

static int run_jobs(struct bench *bench, struct sdc_error *err)
{
    unsigned started = 0;
    int ret = 0;
    atomic_store(&bench->shared.running, bench->jobs_ready);
    while (ret == 0 && started < bench->jobs_ready) {
        struct sdc_bench_job *job = &bench->jobs[started];
        ret = -pthread_create(&job->thread, NULL, sdc_bench_job_run, job);
        if (ret == 0)
            started++;
    }
    if (ret < 0) {
        atomic_store(&bench->shared.stop, true);
        atomic_fetch_sub(&bench->shared.running, bench->jobs_ready - started);
    }
    watch_jobs(bench);
    for (unsigned i = 0; i < started; i++)
        pthread_join(bench->jobs[i].thread, NULL);
    return ret < 0 ? sdc_error_set(err, ret, SDC_FAULT_HOST, "cannot start a thread for job %u", started) : 0;
}

static int report(struct bench *bench, struct sdc_error *err)
{
    struct sdc_bench_totals *totals = malloc(sizeof *totals);
    if (!totals)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for the results");
    sdc_bench_sum(bench->jobs, bench->jobs_ready, totals);
    int ret = 0;
    if (bench->options.json)
        ret = sdc_bench_print_json(stdout, &bench->options, sdc_driver_disk_info(bench->disk), totals);
    else
        sdc_bench_print(stdout, &bench->options, sdc_driver_disk_info(bench->disk), totals);
    if (ret < 0 || fflush(stdout) != 0)
        ret = sdc_error_set(err, -EIO, SDC_FAULT_HOST, "cannot write the results");
    if (ret == 0 && totals->error) {
        *err = *totals->error;
        ret = err->code;
    } else if (ret == 0 && atomic_load(&interrupted)) {
        ret = sdc_error_set(err, -EINTR, SDC_FAULT_USER,
                            "bench was interrupted; the results are of what was done until then");
    }
    free(totals);
    return ret;
}

static int run(struct bench *bench, struct sdc_error *err)
{
    int ret = sdc_bench_connect(&bench->options, &bench->disk, err);
    if (ret == 0)
        ret = check_disk(&bench->options, sdc_driver_disk_info(bench->disk), err);
    if (ret == 0)
        ret = start_disk(bench, err);
    if (ret == 0) {
        bench->shared.options = &bench->options;
        bench->shared.disk = bench->disk;
        ret = make_jobs(bench, err);
    }
    if (ret == 0)
        ret = run_jobs(bench, err);
    return ret == 0 ? report(bench, err) : ret;
}

int sdc_command_bench(int argc, char **argv)
{
    struct bench bench = {.data = {.fd = -1}};
    struct sdc_error err = {0};
    int ret = sdc_bench_options_parse(argc, argv, &bench.options, &err);
    if (ret == 0 && bench.options.help) {
        fputs(sdc_bench_usage, stdout);
        return 0;
    }
    if (ret == 0) {
        catch_signals();
        ret = run(&bench, &err);
    }
    sdc_driver_disk_close(bench.disk);
    sdc_client_memory_free(&bench.data);
    for (unsigned i = 0; i < bench.jobs_ready; i++)
        sdc_bench_job_free(&bench.jobs[i]);
    free(bench.jobs);
    return ret == 0 ? 0 : sdc_command_failed(&err);
}
