// SPDX-License-Identifier: BSD-3-Clause
// A virtqueue and remote memory: what remote_queue.c has to know of it. A completion goes data, used element, used index, each in a message
// of its own in that order, and the interrupt when they were answered. Of a partial map it asks for the ring's areas while the ring is
// asleep, then for what each request needs.
#include "transport/common/request.h"

#include "base/log.h"

#include <errno.h>

static struct sdc_virtqueue *queue_of(struct sdc_remote_queue *remote)
{
    return sdc_container(remote, struct sdc_virtqueue, remote);
}

static struct request *request_of(struct sdc_remote_request *remote)
{
    return sdc_container(remote, struct request, remote);
}

// --- the ring ---

static int write_ring(struct sdc_memory *memory, uint64_t iova, const void *data, size_t size)
{
    struct sdc_virtqueue *queue = sdc_container(memory, struct sdc_virtqueue, ring.memory);

    return sdc_remote_write_ring(&queue->remote, iova, data, size);
}

struct sdc_memory sdc_virtqueue_view(struct sdc_virtqueue *queue, struct sdc_map *map)
{
    struct sdc_memory memory = {.map = map};

    if (map && map->partial) {
        memory.denied = &queue->remote.denials;
    } else if (map && map->remote) {
        memory.cache = &queue->remote.cache;
        memory.write_remote = write_ring;
    }
    return memory;
}

static void fetched(struct sdc_remote_queue *remote, int result)
{
    struct sdc_virtqueue *queue = queue_of(remote);

    if (result < 0)
        sdc_virtqueue_break(queue, "the ring's memory cannot be fetched");
    else
        sdc_virtqueue_schedule(queue);
}

// A request that was denied a part of itself fails. A ring stays asleep: the next kick asks again, or a change of memory.
static void asked(struct sdc_remote_queue *remote, const struct sdc_transfer *transfer)
{
    struct sdc_virtqueue *queue = queue_of(remote);

    if (transfer->result < 0 && !queue->ring.awake) {
        remote->asks = 0;
        sdc_log_peer("%s queue %u: no access to the ring's memory at %#llx", queue->device->ops->name, queue->index,
                     (unsigned long long)transfer->iova);
        return;
    }
    if (transfer->result < 0)
        sdc_denials_add(&remote->denials, transfer->iova, transfer->size);
    sdc_virtqueue_schedule(queue);
}

static void ask(struct sdc_virtqueue *queue)
{
    int rc = sdc_remote_ask(&queue->remote, &queue->ring.memory);

    if (rc == -E2BIG) {
        queue->remote.denials.all = true;
        sdc_virtqueue_schedule(queue);
    } else if (rc < 0) {
        sdc_virtqueue_break(queue, "the ring's memory cannot be asked for");
    }
}

void sdc_virtqueue_fetch(struct sdc_virtqueue *queue)
{
    if (queue->ring.memory.map->partial) {
        ask(queue);
        return;
    }
    int rc = sdc_remote_fetch(&queue->remote, &queue->ring.memory);

    if (rc < 0)
        fetched(&queue->remote, rc);
}

static void written(struct sdc_remote_queue *remote, int result)
{
    struct sdc_virtqueue *queue = queue_of(remote);

    if (result < 0)
        sdc_virtqueue_break(queue, "the ring's memory cannot be written");
    if (remote->ring_writes > 0)
        return;
    if (queue->interrupt_due) {
        queue->interrupt_due = false;
        queue->interrupt(queue);
    }
    if (queue->look_when_written) {
        queue->look_when_written = false;
        sdc_virtqueue_schedule(queue);
    }
}

// A ring that is awake again has had newer writes.
static bool asleep(const struct sdc_remote_queue *remote)
{
    return !sdc_container(remote, struct sdc_virtqueue, remote)->ring.awake;
}

// --- requests ---

static void go_on(struct sdc_remote_queue *remote)
{
    sdc_virtqueue_schedule(queue_of(remote));
}

static uint32_t lost(struct sdc_remote_request *remote)
{
    struct request *request = request_of(remote);
    struct sdc_virtio_device *device = request->shown.queue->device;

    return device->ops->queue_lost ? device->ops->queue_lost(device, &request->shown) : 0;
}

static void finish(struct sdc_remote_request *remote)
{
    sdc_virtqueue_finish(request_of(remote), remote->written);
}

bool sdc_virtqueue_bounce(struct request *request)
{
    bool waits = sdc_remote_bounce(&request->remote);

    request->shown.fault = request->remote.fault;
    return waits;
}

struct request *sdc_virtqueue_arrived(struct sdc_virtqueue *queue)
{
    struct sdc_remote_request *remote = sdc_remote_arrived(&queue->remote);
    struct request *request = remote ? request_of(remote) : NULL;

    if (request)
        request->shown.fault = remote->fault;
    return request;
}

void sdc_virtqueue_unbounce(struct request *request, uint32_t written)
{
    struct sdc_virtqueue *queue = request->shown.queue;

    if (queue->stopping) {
        queue->ring.awake = false; // what is not brought to the driver is not shown to it either
        sdc_remote_drop(&request->remote);
    } else if (queue->remapping || !queue->ring.awake) {
        sdc_remote_unbounce_later(&request->remote, written);
    } else {
        sdc_remote_unbounce(&request->remote, written);
    }
}

void sdc_virtqueue_abandon(struct sdc_virtqueue *queue)
{
    if (sdc_remote_is_busy(&queue->remote))
        queue->ring.awake = false; // what is dropped is not put into the used ring
    sdc_remote_abandon(&queue->remote);
    queue->interrupt_due = queue->look_when_written = false;
}

void sdc_virtqueue_init_remote(struct sdc_virtqueue *queue)
{
    static const struct sdc_remote_queue_ops ops = {
        .fetched = fetched, .asked = asked, .go_on = go_on, .written = written, .asleep = asleep, .lost = lost, .finish = finish};

    queue->remote = (struct sdc_remote_queue){.ops = &ops, .loop = queue->loop, .memory = &queue->ring.memory};
    sdc_remote_queue_init(&queue->remote);
}
