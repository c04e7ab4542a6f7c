// SPDX-License-Identifier: BSD-3-Clause
// Queues and remote memory: what remote_queue.c has to know of them. A submission queue fetches entries and what handlers miss, one at a
// time, and brings the data of bounced commands; a completion queue writes entries by messages, and interrupts when they were answered.
#include "base/check.h"
#include "device/nvme/controller.h"

#include <errno.h>

// --- submission queues ---

static struct nvme_sq *sq_of(struct sdc_remote_queue *remote)
{
    return sdc_container(remote, struct nvme_sq, remote);
}

static struct nvme_command *command_of(struct sdc_remote_request *remote)
{
    return sdc_container(remote, struct nvme_command, remote);
}

static void fetched(struct sdc_remote_queue *remote, int result)
{
    struct nvme_sq *sq = sq_of(remote);
    struct nvme_command *command = sq->fetching;

    if (result < 0 && command) {
        sq->fetching = NULL;
        nvme_complete(command, SDC_NVME_SC_DATA_TRANSFER, 0);
    } else if (result < 0) {
        nvme_fatal(sq->nvme, "a submission queue cannot be fetched");
    }
    nvme_look(sq);
}

static void go_on(struct sdc_remote_queue *remote)
{
    nvme_look(sq_of(remote));
}

static void sq_written(struct sdc_remote_queue *remote, int result)
{
    (void)remote, (void)result; // nothing is written to a submission queue
}

static uint32_t lost(struct sdc_remote_request *remote)
{
    command_of(remote)->status = SDC_NVME_SC_DATA_TRANSFER;
    return 0;
}

static void finish(struct sdc_remote_request *remote)
{
    struct nvme_command *command = command_of(remote);

    // What is not brought to the driver is not shown to it either.
    if (command->sq->worker->stopping)
        nvme_release(command);
    else
        nvme_finish(command);
    sdc_loop_defer(remote->queue->loop, &sq_of(remote->queue)->worker->flush);
}

void nvme_sq_init_remote(struct nvme_sq *sq)
{
    static const struct sdc_remote_queue_ops ops = {
        .fetched = fetched, .go_on = go_on, .written = sq_written, .lost = lost, .finish = finish};

    sq->remote = (struct sdc_remote_queue){.ops = &ops, .loop = sq->worker->loop, .memory = &sq->ring.memory};
    sdc_remote_queue_init(&sq->remote);
}

struct sdc_memory nvme_sq_view(struct nvme_sq *sq)
{
    struct sdc_map *map = sq->worker->use->map;

    return (struct sdc_memory){.map = map, .cache = map && map->remote ? &sq->remote.cache : NULL};
}

int nvme_fetch(struct nvme_sq *sq, struct sdc_memory *memory)
{
    return memory->cache ? sdc_remote_fetch(&sq->remote, memory) : -EFAULT;
}

void nvme_unbounce(struct nvme_command *command)
{
    struct nvme_sq *sq = command->sq;
    uint32_t written = command->status == SDC_NVME_SC_SUCCESS ? (uint32_t)command->data.payload.writable_size : 0;

    if (sq->worker->stopping)
        sdc_remote_drop(&command->remote);
    else if (sq->moving || !sq->ring.awake || !sq->cq->ring.awake)
        sdc_remote_unbounce_later(&command->remote, written);
    else
        sdc_remote_unbounce(&command->remote, written);
}

// --- completion queues ---

static struct nvme_cq *cq_of(struct sdc_remote_queue *remote)
{
    return sdc_container(remote, struct nvme_cq, remote);
}

static int write_ring(struct sdc_memory *memory, uint64_t iova, const void *data, size_t size)
{
    struct nvme_cq *cq = sdc_container(memory, struct nvme_cq, ring.memory);

    return sdc_remote_write_ring(&cq->remote, iova, data, size);
}

static void cq_written(struct sdc_remote_queue *remote, int result)
{
    struct nvme_cq *cq = cq_of(remote);

    if (result < 0)
        nvme_fatal(cq->nvme, "a completion queue cannot be written");
    if (remote->ring_writes > 0)
        return;
    if (cq->worker->draining > 0)
        sdc_loop_defer(remote->loop, &cq->worker->flush);
    if (cq->interrupt_due)
        nvme_interrupt_now(cq);
}

void nvme_cq_init_remote(struct nvme_cq *cq)
{
    static const struct sdc_remote_queue_ops ops = {.written = cq_written}; // it neither fetches nor bounces

    cq->remote = (struct sdc_remote_queue){.ops = &ops, .loop = cq->worker->loop, .memory = &cq->ring.memory};
    sdc_remote_queue_init(&cq->remote);
}

struct sdc_memory nvme_cq_view(struct nvme_cq *cq)
{
    struct sdc_map *map = cq->worker->use->map;
    struct sdc_memory memory = {.map = map};

    if (map && map->remote) {
        memory.cache = &cq->remote.cache;
        memory.write_remote = write_ring;
    }
    return memory;
}
