// SPDX-License-Identifier: BSD-3-Clause
// I/O commands (nvm 3.2): block requests to the namespace's backend.
#include "device/nvme/controller.h"

static void submit_batch(struct nvme_ns_queue *queue)
{
    unsigned count = queue->batched;

    queue->batched = 0;
    if (count > 0)
        queue->backend->ops->submit(queue->backend, queue->batch, count);
}

void nvme_submit(struct nvme_command *command)
{
    struct nvme_ns_queue *queue = command->ns;

    if (queue->batched == NVME_BATCH)
        submit_batch(queue);
    command->block.owner = command;
    queue->batch[queue->batched++] = &command->block;
}

void nvme_submit_batch(struct nvme_worker *worker)
{
    if (worker->io_queues == 0)
        return;
    for (unsigned i = 0; i < NVME_NAMESPACES_MAX; i++) {
        if (worker->namespaces[i])
            submit_batch(worker->namespaces[i]);
    }
}

void nvme_io_done(void *context, struct sdc_block_request **requests, unsigned count)
{
    (void)context;
    for (unsigned i = 0; i < count; i++)
        nvme_complete(requests[i]->owner, requests[i]->result == 0 ? SDC_NVME_SC_SUCCESS : SDC_NVME_SC_INTERNAL, 0);
}

int nvme_io_run(struct nvme_command *command)
{
    uint32_t nsid = nvme_nsid(command);

    if (nsid == 0 || nsid > NVME_NAMESPACES_MAX || !command->sq->worker->namespaces[nsid - 1])
        return SDC_NVME_SC_INVALID_NS | SDC_NVME_SC_DNR;
    command->ns = command->sq->worker->namespaces[nsid - 1];
    if (nvme_opcode(command) != SDC_NVME_IO_FLUSH)
        return SDC_NVME_SC_INVALID_OPCODE | SDC_NVME_SC_DNR;
    command->block.op = SDC_BLOCK_FLUSH;
    command->block.flags = 0;
    command->block.offset = command->block.size = 0;
    command->block.spans_count = 0;
    nvme_submit(command);
    return NVME_PENDING;
}

void nvme_io_arrived(struct nvme_command *command)
{
    if (command->remote.fault)
        nvme_complete(command, SDC_NVME_SC_DATA_TRANSFER, 0);
    else
        nvme_submit(command);
}
