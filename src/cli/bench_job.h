// SPDX-License-Identifier: BSD-3-Clause
// One job of sidecard bench: a thread with a queue of its own, and what it has measured.
#pragma once

#include "base/histogram.h"
#include "cli/bench_offsets.h"
#include "cli/bench_options.h"
#include "driver/disk.h"
#include "os/usage.h"

#include <pthread.h>
#include <stdatomic.h>

enum sdc_bench_direction { SDC_BENCH_READ, SDC_BENCH_WRITE, SDC_BENCH_DIRECTIONS };

struct sdc_bench_stats {
    uint64_t ios;
    uint64_t bytes;
    uint64_t runtime_ns; // during which such requests were made
    struct sdc_histogram latency;
};

// What all jobs share.
struct sdc_bench_shared {
    const struct sdc_bench_options *options;
    struct sdc_driver_disk *disk;
    atomic_bool stop;     // end early: a signal came, or another job failed
    atomic_uint running;  // jobs that have not ended
    atomic_bool counting; // some job is past the ramp time
    atomic_bool reading_back;
};

struct sdc_bench_io;

struct sdc_bench_job {
    struct sdc_bench_shared *shared;
    unsigned index;
    struct sdc_driver_disk_queue *queue;
    uint8_t *data; // iodepth blocks
    uint64_t data_iova;
    uint64_t start;  // bytes on the disk: the job's region
    uint64_t blocks; // in it

    // The thread's.
    pthread_t thread;
    struct sdc_bench_io *ios;
    struct sdc_bench_io **idle; // a stack
    unsigned idle_count;
    unsigned in_flight;
    struct sdc_driver_disk_request **batch; // room for iodepth
    struct sdc_bench_offsets offsets;
    uint64_t random;
    uint64_t issued;       // requests of this phase
    uint64_t read_back;    // the block where the search for written ones goes on
    uint32_t *generations; // of each block, with --verify; 0: not written in this run
    bool counts;           // past the ramp time
    uint64_t phase_start_ns;
    uint64_t last_done_ns;
    struct sdc_usage usage_start;

    // Results, for who joins the thread.
    struct sdc_bench_stats stats[SDC_BENCH_DIRECTIONS];
    struct sdc_usage usage; // while it counted
    uint64_t elapsed_ns;
    uint64_t kicks;         // notifications sent
    uint64_t waits;         // sleeps
    uint64_t verified;      // blocks that were checked
    struct sdc_error error; // code 0: none

    // For the live line, any time.
    _Atomic uint64_t live_ios[SDC_BENCH_DIRECTIONS];
    _Atomic uint64_t live_bytes[SDC_BENCH_DIRECTIONS];
};

// Fills job, whose shared, index, queue, data, start and blocks are set. -ENOMEM.
int sdc_bench_job_init(struct sdc_bench_job *job, struct sdc_error *err);
void sdc_bench_job_free(struct sdc_bench_job *job);
// The thread: does the job and reads back what it wrote.
void *sdc_bench_job_run(void *job);
