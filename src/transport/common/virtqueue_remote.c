// SPDX-License-Identifier: BSD-3-Clause
// A queue and remote memory. What the ring's parser misses is fetched into the queue's cache and the parser runs again; a request of
// which any buffer is remote is bounced as a whole: its readable bytes are brought before the device sees it, its writable ones
// when it is given back. A completion goes data, used element, used index, each in a message of its own in that order, and the
// interrupt when they were answered.
#include "transport/common/request.h"

#include "base/limits.h"
#include "base/log.h"
#include "transport/common/remote.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum op_kind { OP_CACHE, OP_FETCH, OP_STORE, OP_RING };

// A transfer of this queue. It outlives the queue's interest in it.
struct remote_op {
    struct sdc_transfer transfer;
    struct sdc_virtqueue *queue; // NULL: abandoned
    struct request *request;     // FETCH, STORE
    enum op_kind kind;
    uint8_t *into;               // FETCH: where in the bounce
    struct remote_op *next;
    struct remote_op **link; // what points to it in queue->ops
    uint8_t data[];
};

static void drop_op(struct remote_op *op)
{
    *op->link = op->next;
    if (op->next)
        op->next->link = op->link;
}

static void op_done(struct sdc_transfer *transfer);

static int start_op(struct sdc_virtqueue *queue, enum op_kind kind, struct request *request, uint64_t iova, uint8_t *bytes,
                    uint32_t size)
{
    struct sdc_remote *remote = queue->ring.memory.map ? queue->ring.memory.map->remote : NULL;
    struct remote_op *op = remote ? malloc(sizeof *op + size) : NULL;
    if (!op)
        return remote ? -ENOMEM : -EFAULT;

    bool write = kind == OP_STORE || kind == OP_RING;
    *op = (struct remote_op){.queue = queue, .request = request, .kind = kind, .into = bytes, .next = queue->ops, .link = &queue->ops};
    op->transfer = (struct sdc_transfer){
        .loop = queue->loop, .iova = iova, .size = size, .write = write, .data = op->data, .done = op_done};
    if (write)
        memcpy(op->data, bytes, size);
    if (op->next)
        op->next->link = &op->next;
    queue->ops = op;
    if (request)
        request->transfers++;
    sdc_transfer_start(remote, &op->transfer);
    return 0;
}

// --- the ring ---

static int write_ring(struct sdc_memory *memory, uint64_t iova, const void *data, size_t size)
{
    struct sdc_virtqueue *queue = sdc_container(memory, struct sdc_virtqueue, ring.memory);
    int rc = start_op(queue, OP_RING, NULL, iova, (uint8_t *)(uintptr_t)data, (uint32_t)size);

    if (rc == 0)
        queue->ring_writes++;
    return rc;
}

struct sdc_memory sdc_virtqueue_view(struct sdc_virtqueue *queue, struct sdc_map *map)
{
    struct sdc_memory memory = {.map = map};

    if (map && map->remote) {
        memory.cache = &queue->cache;
        memory.write_remote = write_ring;
    }
    return memory;
}

// A descriptor is rarely alone: a few behind it are fetched with it. The parser misses an index (2 bytes) on its own, since what
// stands behind that may be older than it.
static uint32_t fetch_size(const struct sdc_memory *memory, uint64_t iova, size_t missing)
{
    const uint32_t more = 8 * SDC_DESC_SIZE;
    struct sdc_memory view = {.map = memory->map};

    if (missing == SDC_DESC_SIZE && sdc_memory_check(&view, iova, more, SDC_ACCESS_READ) == 1)
        return more;
    return (uint32_t)missing;
}

void sdc_virtqueue_fetch(struct sdc_virtqueue *queue)
{
    struct sdc_memory *memory = &queue->ring.memory;
    uint64_t iova = memory->missing_iova;

    if (start_op(queue, OP_CACHE, NULL, iova, NULL, fetch_size(memory, iova, memory->missing_size)) == 0)
        queue->fetching = true;
    else
        sdc_virtqueue_break(queue, "the ring's memory cannot be fetched");
}

static void cache_done(struct sdc_virtqueue *queue, struct remote_op *op)
{
    queue->fetching = false;
    if (op->transfer.result < 0 || sdc_read_cache_add(&queue->cache, op->transfer.iova, op->data, op->transfer.size) < 0)
        sdc_virtqueue_break(queue, "the ring's memory cannot be fetched");
    else
        sdc_virtqueue_schedule(queue);
}

static void ring_done(struct sdc_virtqueue *queue, struct remote_op *op)
{
    if (op->transfer.result < 0)
        sdc_virtqueue_break(queue, "the ring's memory cannot be written");
    if (--queue->ring_writes == 0 && queue->interrupt_due) {
        queue->interrupt_due = false;
        queue->interrupt(queue);
    }
}

// --- requests ---

struct request *sdc_virtqueue_arrived(struct sdc_virtqueue *queue)
{
    struct request *request = queue->arrived;

    if (!request)
        return NULL;
    queue->arrived = request->next;
    if (!queue->arrived)
        queue->arrived_end = &queue->arrived;
    return request;
}

static void arrive(struct sdc_virtqueue *queue, struct request *request)
{
    if (request->result < 0)
        request->shown.fault = -EFAULT;
    request->next = NULL;
    *queue->arrived_end = request;
    queue->arrived_end = &request->next;
    sdc_virtqueue_schedule(queue);
}

static uint64_t bounce_size(const struct request *request)
{
    return request->chain.readable_size + request->chain.writable_size;
}

// The bounce, or NULL if it was too big to make. (The chain's spans may be cut up by now.)
static uint8_t *bounce_of(const struct request *request)
{
    return bounce_size(request) <= SDC_LIMIT_BOUNCE ? request->chain.bounce : NULL;
}

bool sdc_virtqueue_bounce(struct sdc_virtqueue *queue, struct request *request)
{
    struct sdc_chain *chain = &request->chain;
    uint8_t *into = bounce_of(request);

    request->state = REQUEST_FETCHED;
    request->transfers = 0;
    request->result = 0;
    request->lost = false;
    queue->bounced += bounce_size(request);
    queue->starved = queue->bounced > SDC_LIMIT_QUEUE_BOUNCE;
    if (!into || chain->fault)
        return false;
    for (uint32_t i = 0; i < chain->segments_count; i++) {
        const struct sdc_segment *segment = &chain->segments[i];
        if (segment->writable)
            break;
        int rc = segment->remote ? start_op(queue, OP_FETCH, request, segment->iova, into, segment->size)
                                 : sdc_memory_read(&queue->ring.memory, segment->iova, into, segment->size);
        if (rc < 0)
            request->result = rc;
        into += segment->size;
    }
    if (request->transfers == 0 && request->result < 0)
        request->shown.fault = -EFAULT;
    return request->transfers > 0;
}

static void fetch_done(struct sdc_virtqueue *queue, struct remote_op *op)
{
    struct request *request = op->request;

    if (op->transfer.result < 0)
        request->result = op->transfer.result;
    else
        memcpy(op->into, op->data, op->transfer.size);
    if (--request->transfers == 0)
        arrive(queue, request);
}

// Goes over the segments of what was written: the remote ones by messages, or else the others by copy.
static void store(struct request *request, bool remote)
{
    struct sdc_virtqueue *queue = request->shown.queue;
    uint8_t *bounce = bounce_of(request);
    uint8_t *from = bounce ? bounce + request->chain.readable_size : NULL;
    uint32_t left = request->written;

    for (uint32_t i = 0; from && left > 0 && i < request->chain.segments_count; i++) {
        const struct sdc_segment *segment = &request->chain.segments[i];
        if (!segment->writable)
            continue;
        uint32_t size = (uint32_t)sdc_min(left, segment->size);
        int rc = 0;
        if (remote && segment->remote)
            rc = start_op(queue, OP_STORE, request, segment->iova, from, size);
        else if (!remote && !segment->remote)
            rc = sdc_memory_write(&queue->ring.memory, segment->iova, from, size);
        if (rc < 0)
            request->result = rc;
        from += size;
        left -= size;
    }
}

static void release(struct request *request)
{
    struct sdc_virtqueue *queue = request->shown.queue;

    queue->bounced -= bounce_size(request);
    if (queue->starved && queue->bounced <= SDC_LIMIT_QUEUE_BOUNCE) {
        queue->starved = false;
        sdc_virtqueue_schedule(queue);
    }
    sdc_virtqueue_finish(request, request->written);
}

// The messages were answered. If the driver could not be reached the device says so in the request, and that is tried once.
static void stored(struct request *request)
{
    struct sdc_virtqueue *queue = request->shown.queue;
    struct sdc_virtio_device *device = queue->device;

    if (request->result < 0 && !request->lost && device->ops->queue_lost) {
        request->lost = true;
        request->result = 0;
        request->written = device->ops->queue_lost(device, &request->shown);
        store(request, true);
        if (request->transfers > 0)
            return;
    }
    store(request, false);
    release(request);
}

void sdc_virtqueue_unbounce(struct request *request, uint32_t written)
{
    request->state = REQUEST_STORED;
    request->written = written;
    request->transfers = 0;
    request->result = 0;
    if (!request->shown.queue->stopping)
        store(request, true);
    if (request->transfers == 0)
        stored(request);
}

static void store_done(struct remote_op *op)
{
    if (op->transfer.result < 0)
        op->request->result = op->transfer.result;
    if (--op->request->transfers == 0)
        stored(op->request);
}

// --- the end of transfers ---

static void op_done(struct sdc_transfer *transfer)
{
    struct remote_op *op = sdc_container(transfer, struct remote_op, transfer);
    struct sdc_virtqueue *queue = op->queue;

    if (queue) {
        drop_op(op);
        switch (op->kind) {
        case OP_CACHE:
            cache_done(queue, op);
            break;
        case OP_RING:
            ring_done(queue, op);
            break;
        case OP_FETCH:
            fetch_done(queue, op);
            break;
        case OP_STORE:
            store_done(op);
            break;
        }
    }
    free(op);
}

void sdc_virtqueue_abandon(struct sdc_virtqueue *queue)
{
    struct request *request;

    if (queue->ops || queue->arrived)
        queue->ring.awake = false; // what is dropped is not put into the used ring
    while (queue->ops) {
        struct remote_op *op = queue->ops;
        drop_op(op);
        op->queue = NULL; // op_done frees it
        if (op->request && --op->request->transfers == 0) {
            op->request->written = 0;
            release(op->request);
        }
    }
    while ((request = sdc_virtqueue_arrived(queue)) != NULL) {
        request->written = 0;
        release(request);
    }
    sdc_read_cache_clear(&queue->cache);
    queue->fetching = queue->starved = queue->interrupt_due = false;
    queue->ring_writes = 0;
}
