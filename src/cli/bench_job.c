// SPDX-License-Identifier: BSD-3-Clause
// The loop of one job: fill the queue up to the depth, notify once a batch if the device wants it, take back
// what is finished, and sleep or spin when nothing is.
#include "cli/bench_job.h"

#include "base/check.h"
#include "cli/bench_data.h"
#include "os/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define SECOND_NS UINT64_C(1000000000)

enum {
    SLICE_MS = 500, // how long a sleep may last before the job looks around
    SPINS = 4096,   // looks before a polling job gives the processor away once
    SPINS_ASKED = 64, // the same where the device asks for what it needs to go on
    TAKE_MAX = 64,
};

struct sdc_bench_io {
    struct sdc_driver_disk_request request;
    uint8_t *data;
    uint64_t started_ns;
    uint64_t block;      // in the job's region
    uint64_t generation; // that it writes, or has to find; 0: any
};

// What a job does first, and then.
enum phase { WORK, READ_BACK };

static int job_failed(struct sdc_bench_job *job, const struct sdc_error *why)
{
    if (job->error.code == 0)
        job->error = *why;
    atomic_store(&job->shared->stop, true);
    return why->code;
}

// --- life ---

int sdc_bench_job_init(struct sdc_bench_job *job, struct sdc_error *err)
{
    const struct sdc_bench_options *options = job->shared->options;
    unsigned depth = (unsigned)options->iodepth;
    job->ios = calloc(depth, sizeof *job->ios);
    job->idle = calloc(depth, sizeof *job->idle);
    job->batch = calloc(depth, sizeof *job->batch);
    if (options->verify)
        job->generations = calloc(job->blocks, sizeof *job->generations);
    if (!job->ios || !job->idle || !job->batch || (options->verify && !job->generations))
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a job with --iodepth=%u", depth);
    for (unsigned i = 0; i < depth; i++) {
        struct sdc_bench_io *io = &job->ios[i];
        io->data = job->data + i * options->block_size;
        io->request.data = job->data_iova + i * options->block_size;
        io->request.owner = io;
        job->idle[job->idle_count++] = io;
        // Something that no disk can shrink.
        struct sdc_bench_stamp stamp = {.seed = options->seed, .offset = i, .generation = job->index};
        if (options->writes)
            sdc_bench_data_fill(io->data, options->block_size, &stamp);
    }
    job->random = sdc_bench_mix(options->seed + job->index + 1);
    sdc_bench_offsets_init(&job->offsets, job->blocks, options->random, job->random);
    return 0;
}

void sdc_bench_job_free(struct sdc_bench_job *job)
{
    free(job->ios);
    free(job->idle);
    free(job->batch);
    free(job->generations);
}

// --- which request comes next ---

static bool next_is_read(struct sdc_bench_job *job)
{
    const struct sdc_bench_options *options = job->shared->options;
    if (!options->reads || !options->writes)
        return options->reads;
    job->random ^= job->random << 13;
    job->random ^= job->random >> 7;
    job->random ^= job->random << 17;
    return job->random % 100 < options->rwmixread;
}

// Whether the job is to make another request now. False for ever: *over.
static bool wants_another(struct sdc_bench_job *job, uint64_t now_ns, bool *over)
{
    const struct sdc_bench_options *options = job->shared->options;
    bool new_pass = job->issued > 0 && sdc_bench_offsets_at_start(&job->offsets);
    uint64_t limit_ns = (options->runtime_s + (job->counts ? 0 : options->ramp_s)) * SECOND_NS;
    *over = atomic_load_explicit(&job->shared->stop, memory_order_relaxed) ||
            (options->runtime_s > 0 && now_ns - job->phase_start_ns >= limit_ns) ||
            (options->number_ios > 0 && job->issued >= options->number_ios) ||
            (options->runtime_s == 0 && options->number_ios == 0 && new_pass);
    if (*over)
        return false;
    // Data to be verified: no block is in flight twice, and a pass has each block once.
    return !(options->verify && new_pass && job->in_flight > 0);
}

static void make_work(struct sdc_bench_job *job, struct sdc_bench_io *io)
{
    const struct sdc_bench_options *options = job->shared->options;
    io->block = sdc_bench_offsets_next(&job->offsets);
    io->request.op = next_is_read(job) ? SDC_DRIVER_DISK_READ : SDC_DRIVER_DISK_WRITE;
    io->generation = job->generations ? job->generations[io->block] : 0;
    if (job->generations && io->request.op == SDC_DRIVER_DISK_WRITE) {
        struct sdc_bench_stamp stamp = {
            .seed = options->seed,
            .offset = job->start + io->block * options->block_size,
            .generation = ++io->generation,
        };
        sdc_bench_data_fill(io->data, options->block_size, &stamp);
    }
}

// The next block that was written in this run. False: there is none.
static bool make_read_back(struct sdc_bench_job *job, struct sdc_bench_io *io)
{
    while (job->read_back < job->blocks && job->generations[job->read_back] == 0)
        job->read_back++;
    if (job->read_back == job->blocks)
        return false;
    io->block = job->read_back++;
    io->request.op = SDC_DRIVER_DISK_READ;
    io->generation = job->generations[io->block];
    return true;
}

// Data that a device leaves untouched must not pass for data that it read.
static void wipe(struct sdc_bench_job *job, struct sdc_bench_io *io)
{
    if (job->generations && io->request.op == SDC_DRIVER_DISK_READ)
        memset(io->data, 0xa5, job->shared->options->block_size);
}

static bool make_next(struct sdc_bench_job *job, enum phase phase, uint64_t now_ns, struct sdc_bench_io *io,
                      bool *over)
{
    if (phase == WORK) {
        if (!wants_another(job, now_ns, over))
            return false;
        make_work(job, io);
    } else {
        *over = atomic_load_explicit(&job->shared->stop, memory_order_relaxed) || !make_read_back(job, io);
        if (*over)
            return false;
    }
    wipe(job, io);
    job->issued++;
    return true;
}

// Submits as many requests as the depth allows, and notifies the device once if it wants that. 1: it did; 0:
// nothing new.
static int submit(struct sdc_bench_job *job, enum phase phase, bool *over)
{
    const struct sdc_bench_options *options = job->shared->options;
    struct sdc_error why = {0};
    unsigned count = 0;
    if (job->idle_count == 0)
        return 0;
    uint64_t now = sdc_clock_ns();
    while (job->idle_count > 0) {
        struct sdc_bench_io *io = job->idle[job->idle_count - 1];
        if (!make_next(job, phase, now, io, over))
            break;
        io->request.offset = job->start + io->block * options->block_size;
        io->request.size = options->block_size;
        job->idle_count--;
        job->in_flight++;
        job->batch[count++] = &io->request;
    }
    if (count == 0)
        return 0;
    if (job->generations)
        now = sdc_clock_ns(); // filling blocks has taken time
    for (unsigned i = 0; i < count; i++)
        ((struct sdc_bench_io *)job->batch[i]->owner)->started_ns = now;
    int ret = sdc_driver_disk_submit(job->queue, job->batch, count);
    if (ret != (int)count) {
        sdc_error_set(&why, ret < 0 ? ret : -EBUSY, SDC_FAULT_HOST, "queue %u took %d of %u requests",
                      job->index, ret, count);
        return job_failed(job, &why);
    }
    ret = sdc_driver_disk_kick(job->queue, &why);
    if (ret < 0)
        return job_failed(job, &why);
    job->kicks += (unsigned)ret;
    return 1;
}

// --- what has finished ---

static int check_result(struct sdc_bench_job *job, const struct sdc_bench_io *io)
{
    const struct sdc_driver_disk_request *request = &io->request;
    struct sdc_error why = {0};
    if (request->result == 0)
        return 0;
    sdc_error_set(&why, request->result, SDC_FAULT_PEER,
                  "%s of %" PRIu64 " bytes at offset %" PRIu64 " failed: %s",
                  request->op == SDC_DRIVER_DISK_READ ? "read" : "write", request->size, request->offset,
                  request->result == -EIO       ? "the device reports an I/O error"
                  : request->result == -ENOTSUP ? "the device does not support it"
                                                : "the device gave no valid status");
    return job_failed(job, &why);
}

static int check_data(struct sdc_bench_job *job, const struct sdc_bench_io *io)
{
    const struct sdc_bench_options *options = job->shared->options;
    struct sdc_bench_stamp stamp = {.seed = options->seed,
                                    .offset = io->request.offset,
                                    .generation = io->generation};
    struct sdc_error why = {0};
    char what[200];
    // What this run has not written may be anything, unless the run is there to check an earlier one's.
    if (io->generation == 0 && options->writes)
        return 0;
    job->verified++;
    if (sdc_bench_data_check(io->data, options->block_size, &stamp, what))
        return 0;
    sdc_error_set(&why, -EILSEQ, SDC_FAULT_PEER,
                  "verify: block of %" PRIu64 " bytes at offset %" PRIu64 ": %s", options->block_size,
                  stamp.offset, what);
    return job_failed(job, &why);
}

static void count_io(struct sdc_bench_job *job, const struct sdc_bench_io *io, uint64_t now_ns)
{
    enum sdc_bench_direction direction =
        io->request.op == SDC_DRIVER_DISK_READ ? SDC_BENCH_READ : SDC_BENCH_WRITE;
    struct sdc_bench_stats *stats = &job->stats[direction];
    stats->ios++;
    stats->bytes += io->request.size;
    sdc_histogram_add(&stats->latency, now_ns - io->started_ns);
}

// For the live line.
static void show_counts(struct sdc_bench_job *job)
{
    for (unsigned i = 0; i < SDC_BENCH_DIRECTIONS; i++) {
        atomic_store_explicit(&job->live_ios[i], job->stats[i].ios, memory_order_relaxed);
        atomic_store_explicit(&job->live_bytes[i], job->stats[i].bytes, memory_order_relaxed);
    }
}

static int finish_io(struct sdc_bench_job *job, struct sdc_bench_io *io, uint64_t now_ns)
{
    job->in_flight--;
    job->idle[job->idle_count++] = io;
    int ret = check_result(job, io);
    if (ret < 0)
        return ret;
    if (job->counts)
        count_io(job, io, now_ns);
    if (!job->generations)
        return 0;
    if (io->request.op == SDC_DRIVER_DISK_READ)
        return check_data(job, io);
    job->generations[io->block] = (uint32_t)io->generation;
    return 0;
}

// Takes back what is finished. How many requests, or an error.
static int reap(struct sdc_bench_job *job)
{
    struct sdc_driver_disk_request *done[TAKE_MAX];
    struct sdc_error why = {0};
    int count = sdc_driver_disk_take(job->queue, done, TAKE_MAX, &why);
    if (count < 0)
        return job_failed(job, &why);
    if (count == 0)
        return 0;
    uint64_t now = sdc_clock_ns();
    job->last_done_ns = now;
    for (int i = 0; i < count; i++) {
        int ret = finish_io(job, done[i]->owner, now);
        if (ret < 0)
            return ret;
    }
    show_counts(job);
    return count;
}

// --- waiting ---

// The device is not there any more: finds it again, if that is wanted, or the job has failed. What was in flight still is.
static int find_again(struct sdc_bench_job *job, const struct sdc_error *gone)
{
    uint64_t reconnect_ms = job->shared->options->reconnect_ms;
    struct sdc_error why = *gone;
    if (gone->code == -ECONNRESET && reconnect_ms > 0 &&
        sdc_driver_disk_recover(job->shared->disk, (uint32_t)reconnect_ms, &why) == 0) {
        job->last_done_ns = sdc_clock_ns();
        return 0;
    }
    return job_failed(job, &why);
}

// Nothing has finished for a while: is the device still there?
static int look_around(struct sdc_bench_job *job)
{
    uint64_t timeout_s = job->shared->options->timeout_s;
    struct sdc_error why = {0};
    int ret = sdc_driver_disk_check(job->shared->disk, &why);
    if (ret < 0)
        return find_again(job, &why);
    if (sdc_clock_ns() - job->last_done_ns < timeout_s * SECOND_NS)
        return 0;
    sdc_error_set(&why, -ETIMEDOUT, SDC_FAULT_PEER,
                  "the device has finished none of %u requests on queue %u for %" PRIu64 " s (--timeout)",
                  job->in_flight, job->index, timeout_s);
    return job_failed(job, &why);
}

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int spin(struct sdc_bench_job *job, unsigned *spins)
{
    bool asked = job->shared->options->iommu != SDC_DRIVER_IOMMU_OFF;
    relax();
    if (++*spins % (asked ? SPINS_ASKED : SPINS) != 0)
        return 0;
    // With fewer processors than polling threads the device needs this one.
    sched_yield();
    if (asked)
        return look_around(job);
    if (sdc_clock_ns() - job->last_done_ns < SLICE_MS * UINT64_C(1000000) || *spins % (SPINS * 1024) != 0)
        return 0;
    return look_around(job);
}

static int sleep_until_done(struct sdc_bench_job *job)
{
    struct sdc_error why = {0};
    int ret = sdc_driver_disk_wait(job->queue, SLICE_MS, &why);
    if (ret < 0)
        return find_again(job, &why);
    job->waits++;
    return ret == 0 ? look_around(job) : 0;
}

// --- the loop ---

// Starts counting when the ramp time is over.
static void count_from_now(struct sdc_bench_job *job, uint64_t now_ns)
{
    job->counts = true;
    job->phase_start_ns = now_ns;
    job->kicks = job->waits = 0;
    sdc_usage_of_thread(&job->usage_start);
    atomic_store(&job->shared->counting, true);
}

static int run_phase(struct sdc_bench_job *job, enum phase phase)
{
    const struct sdc_bench_options *options = job->shared->options;
    uint64_t ramp_ns = options->ramp_s * SECOND_NS;
    unsigned spins = 0;
    bool over = false;
    job->issued = 0;
    job->phase_start_ns = job->last_done_ns = sdc_clock_ns();
    if (!job->counts && ramp_ns == 0)
        count_from_now(job, job->phase_start_ns);
    for (;;) {
        int ret = over ? 0 : submit(job, phase, &over);
        if (ret < 0)
            return ret;
        if (job->in_flight == 0 && over)
            return 0;
        ret = reap(job);
        if (ret < 0)
            return ret;
        if (ret > 0)
            spins = 0;
        else
            ret = options->poll ? spin(job, &spins) : sleep_until_done(job);
        if (ret < 0)
            return ret;
        if (!job->counts && job->last_done_ns - job->phase_start_ns >= ramp_ns)
            count_from_now(job, job->last_done_ns);
    }
}

// Adds a phase's time to the directions that it had requests of.
static void end_phase(struct sdc_bench_job *job, enum phase phase)
{
    const struct sdc_bench_options *options = job->shared->options;
    uint64_t elapsed = job->last_done_ns > job->phase_start_ns ? job->last_done_ns - job->phase_start_ns : 0;
    if (!job->counts)
        return;
    job->elapsed_ns += elapsed;
    if (options->reads || phase == READ_BACK)
        job->stats[SDC_BENCH_READ].runtime_ns += elapsed;
    if (options->writes && phase == WORK)
        job->stats[SDC_BENCH_WRITE].runtime_ns += elapsed;
}

static void end_usage(struct sdc_bench_job *job)
{
    struct sdc_usage now;
    sdc_usage_of_thread(&now);
    if (!job->counts)
        return;
    job->usage = (struct sdc_usage){
        .user_ns = now.user_ns - job->usage_start.user_ns,
        .system_ns = now.system_ns - job->usage_start.system_ns,
        .switches = now.switches - job->usage_start.switches,
        .minor_faults = now.minor_faults - job->usage_start.minor_faults,
        .major_faults = now.major_faults - job->usage_start.major_faults,
    };
}

void *sdc_bench_job_run(void *context)
{
    struct sdc_bench_job *job = context;
    const struct sdc_bench_options *options = job->shared->options;
    int ret = run_phase(job, WORK);
    end_phase(job, WORK);
    if (ret == 0 && options->verify && options->writes && !atomic_load(&job->shared->stop)) {
        atomic_store(&job->shared->reading_back, true);
        run_phase(job, READ_BACK);
        end_phase(job, READ_BACK);
    }
    end_usage(job);
    atomic_fetch_sub(&job->shared->running, 1);
    return NULL;
}
