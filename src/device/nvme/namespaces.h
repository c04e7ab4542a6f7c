// SPDX-License-Identifier: BSD-3-Clause
// Namespaces: a block backend each. The home loop owns them; each worker with I/O queues has a way into the backend of its own.
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
};

// The first I/O queue is about to run on the worker's loop; the last has ended. 0 or a negative errno.
int nvme_namespaces_open(struct nvme_worker *worker);
void nvme_namespaces_close(struct nvme_worker *worker);
// Home loop, before any worker runs: makes namespace nsid, which takes block over when it succeeds.
int nvme_namespace_new(struct nvme *nvme, uint32_t nsid, struct sdc_block *block, const char *backend, struct sdc_error *err);
void nvme_namespaces_free(struct nvme *nvme);
// Ends what has not begun and may take long.
void nvme_namespaces_cancel(struct nvme_worker *worker);

// Submits command->block to command->ns, with the others of the batch (io.c). It ends in nvme_io_done.
void nvme_submit(struct nvme_command *command);
// The batch is complete.
void nvme_submit_batch(struct nvme_worker *worker);
// The backend's (io.c): context is the worker.
void nvme_io_done(void *context, struct sdc_block_request **requests, unsigned count);
