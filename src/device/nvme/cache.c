// SPDX-License-Identifier: BSD-3-Clause
// Flushing by the controller itself. Where the write cache is turned off (base 5.27.1.4) writes are durable from then on, and Set Features
// ends when those that were complete before are so too.
#include "base/check.h"
#include "device/nvme/controller.h"

#include <errno.h>

int nvme_flush_all(struct nvme *nvme, void (*then)(struct nvme_command *command))
{
    struct nvme_command *command = nvme_own_command(&nvme->sqs[0], then);
    if (!command)
        return -ENOMEM;
    command->sqe[SDC_NVME_SQE_OPCODE] = SDC_NVME_IO_FLUSH;
    sdc_put32(command->sqe + SDC_NVME_SQE_NSID, SDC_NVME_NSID_ALL);
    int rc = nvme_io_run(command);
    nvme_submit_batch(&nvme->workers[0]);
    if (rc >= 0)
        nvme_complete(command, (uint16_t)rc, 0);
    return 0;
}

// Not from inside the backend, which it closes.
static void end_flush(struct sdc_deferred *deferred)
{
    struct nvme_cache *cache = sdc_container(deferred, struct nvme_cache, end);
    struct nvme_command *command = cache->command;

    cache->command = NULL;
    nvme_namespaces_close(command->sq->worker);
    nvme_complete(command, cache->status, 0);
}

static void flushed(struct nvme_command *flush)
{
    struct nvme *nvme = flush->sq->nvme;
    struct nvme_cache *cache = &nvme->admin.cache;

    cache->status = flush->status;
    nvme_release(flush);
    cache->end.run = end_flush;
    sdc_loop_defer(nvme->home, &cache->end);
}

int nvme_cache_flush(struct nvme_command *command)
{
    struct nvme *nvme = command->sq->nvme;
    struct nvme_worker *worker = command->sq->worker;
    struct nvme_cache *cache = &nvme->admin.cache;
    bool io = false;

    for (unsigned i = 1; i <= nvme->options.queues; i++)
        io |= nvme->sqs[i].state != NVME_QUEUE_NONE;
    if (!io || cache->command)
        return SDC_NVME_SC_SUCCESS; // nothing was written, or it is being flushed
    if (nvme_namespaces_open(worker) < 0)
        return SDC_NVME_SC_INTERNAL;
    cache->command = command;
    if (nvme_flush_all(nvme, flushed) == 0)
        return NVME_PENDING;
    cache->command = NULL;
    nvme_namespaces_close(worker);
    return SDC_NVME_SC_INTERNAL;
}
