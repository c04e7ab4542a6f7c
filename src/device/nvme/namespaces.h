// SPDX-License-Identifier: BSD-3-Clause
// Namespaces: a block backend each. The home loop owns them; each worker with I/O queues has a way into the backend of its own. They come
// and go while queues run: workers are told of it by orders, and a namespace that goes is closed when no command works on it any more.
#pragma once

#include "device/nvme/namespace.h"
#include "device/nvme/queue.h"

enum { NVME_BATCH = 64 };

// A namespace on a worker's loop.
struct nvme_ns_queue {
    struct nvme_namespace *ns;
    struct sdc_block_queue *backend;
    struct sdc_block_request *batch[NVME_BATCH]; // to be submitted
    unsigned batched;
    struct nvme_ns_queue *next; // of the worker's that have a batch
    uint32_t users;             // commands that work on it; zero: it may be closed
    struct nvme_order *leaving; // obeyed when it is closed: the namespace goes. NULL: it stays
    struct sdc_deferred leave;
    // Commands that need more memory than a command has are done one after the other (jobs.c): the first one is at work.
    struct nvme_command *first_job, *last_job;
    struct nvme_job *job; // NULL until there was one
};

// The command works on queue from now on, until it ends or rests. Its loop.
static inline void nvme_ns_put(struct nvme_command *command)
{
    struct nvme_ns_queue *queue = command->ns;

    command->ns = NULL;
    if (queue && --queue->users == 0 && queue->leaving)
        sdc_loop_defer(command->sq->worker->loop, &queue->leave);
}

static inline void nvme_ns_take(struct nvme_command *command, struct nvme_ns_queue *queue)
{
    nvme_ns_put(command);
    command->ns = queue;
    queue->users++;
}

// An I/O queue is about to run on the worker's loop; it has ended. 0 or a negative errno.
int nvme_namespaces_open(struct nvme_worker *worker);
void nvme_namespaces_close(struct nvme_worker *worker);
// Home loop, no loop runs any more.
void nvme_namespaces_free(struct nvme *nvme);
// Ends what has not begun and may take long.
void nvme_namespaces_cancel(struct nvme_worker *worker);

// --- io.c ---

// Submits a request to queue, with the others of the batch. It ends in nvme_io_done; its owner is the command.
void nvme_submit(struct nvme_ns_queue *queue, struct sdc_block_request *request);
// The batch is complete.
void nvme_submit_batch(struct nvme_worker *worker);
// The backend's: context is the worker.
void nvme_io_done(void *context, struct sdc_block_request **requests, unsigned count);
// Takes the bytes of the disk that a command names to its block request, and looks its data up, which has as many. As a handler returns.
int nvme_io_take_data(struct nvme_command *command, enum sdc_access access);
// What a request that the backend has ended with this result makes of its command.
uint16_t nvme_io_status(enum sdc_block_op op, int result);

// --- jobs.c ---

// Handlers of Compare and Dataset Management.
int nvme_compare_run(struct nvme_command *command);
int nvme_dsm_run(struct nvme_command *command);
// A request of a job has ended.
void nvme_job_done(struct nvme_command *command, struct sdc_block_request *request);
void nvme_jobs_close(struct nvme_ns_queue *queue);
