// SPDX-License-Identifier: BSD-3-Clause
// What a parser misses is fetched into the queue's cache and the parser runs again; a request of which any buffer is remote is bounced as a
// whole: its readable bytes are brought before the device sees it, its writable ones when it is given back.
#include "transport/common/remote_queue.h"

#include "base/check.h"
#include "base/limits.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    FETCH_LEAST = 128, // bytes around what is missing: eight descriptors, two commands
    FETCH_MOST = 64 * 1024,
    ASKS_MOST = 2 * SDC_LIMIT_QUEUE_SIZE, // for one request: each buffer is asked for once, and some were forgotten meanwhile
};

enum op_kind { OP_CACHE, OP_FETCH, OP_STORE, OP_RING, OP_ASK };

// A transfer of this queue. It outlives the queue's interest in it.
struct remote_op {
    struct sdc_transfer transfer;
    struct sdc_remote_queue *queue;     // NULL: abandoned
    struct sdc_remote_request *request; // FETCH, STORE
    enum op_kind kind;
    uint8_t *into;               // FETCH: where in the bounce
    struct remote_op *next;
    struct remote_op **link; // what points to it in queue->transfers
    uint8_t data[];
};

static void drop_op(struct remote_op *op)
{
    *op->link = op->next;
    if (op->next)
        op->next->link = op->link;
}

// Nobody waits for it any more. op_done frees it.
static void orphan(struct remote_op *op)
{
    drop_op(op);
    op->queue = NULL;
    atomic_store_explicit(&op->transfer.dropped, true, memory_order_relaxed); // the post that says "obeyed" brings it home
}

static void op_done(struct sdc_transfer *transfer);

static int start_op(struct sdc_remote_queue *queue, enum op_kind kind, struct sdc_remote_request *request, uint64_t iova, uint8_t *bytes,
                    uint32_t size)
{
    struct sdc_remote *remote = queue->memory->map ? queue->memory->map->remote : NULL;
    struct remote_op *op = remote ? malloc(sizeof *op + (kind == OP_ASK ? 0 : size)) : NULL;
    if (!op)
        return remote ? -ENOMEM : -EFAULT;

    bool write = kind == OP_STORE || kind == OP_RING;
    *op = (struct remote_op){
        .queue = queue, .request = request, .kind = kind, .into = bytes, .next = queue->transfers, .link = &queue->transfers};
    op->transfer = (struct sdc_transfer){
        .loop = queue->loop, .iova = iova, .size = size, .write = write, .data = op->data, .done = op_done};
    if (kind == OP_ASK)
        op->transfer.write = queue->memory->missing_access == SDC_ACCESS_WRITE;
    if (write)
        memcpy(op->data, bytes, size);
    if (op->next)
        op->next->link = &op->next;
    queue->transfers = op;
    if (request)
        request->transfers++;
    sdc_transfer_start(remote, &op->transfer);
    return 0;
}

// --- the ring ---

int sdc_remote_write_ring(struct sdc_remote_queue *queue, uint64_t iova, const void *data, size_t size)
{
    int rc = start_op(queue, OP_RING, NULL, iova, (uint8_t *)(uintptr_t)data, (uint32_t)size);

    if (rc == 0)
        queue->ring_writes++;
    return rc;
}

// What to fetch for what the parser misses. A descriptor is rarely alone: a block around it, of twice what was fetched for this parse
// before, so that the fetches stay few however a driver has laid a long chain out. An index (2 bytes) comes on its own, since what stands
// behind it may be older than it.
static uint64_t fetch_range(struct sdc_memory *memory, uint64_t iova, uint64_t size, uint64_t *begin)
{
    uint64_t block = FETCH_LEAST, end;

    *begin = iova;
    if (size <= sizeof(uint16_t))
        return size;
    while (block < memory->cache->bytes * 2 && block < FETCH_MOST)
        block *= 2;
    *begin = iova & ~(block - 1);
    if (!sdc_add(*begin, block, &end))
        end = UINT64_MAX;
    end = sdc_max(end, iova + size);
    sdc_memory_clip(memory, iova, begin, &end);
    return end - *begin;
}

int sdc_remote_fetch(struct sdc_remote_queue *queue, struct sdc_memory *memory)
{
    uint64_t begin;
    uint64_t size = fetch_range(memory, memory->missing_iova, memory->missing_size, &begin);

    int rc = start_op(queue, OP_CACHE, NULL, begin, NULL, (uint32_t)size);

    queue->fetching = rc == 0;
    return rc;
}

int sdc_remote_ask(struct sdc_remote_queue *queue, struct sdc_memory *memory)
{
    if (++queue->asks > ASKS_MOST)
        return -E2BIG;
    int rc = start_op(queue, OP_ASK, NULL, memory->missing_iova, NULL, (uint32_t)sdc_min(memory->missing_size, UINT32_MAX));

    queue->fetching = rc == 0;
    return rc;
}

static void ask_done(struct sdc_remote_queue *queue, struct remote_op *op)
{
    queue->fetching = false;
    queue->ops->asked(queue, &op->transfer);
}

void sdc_remote_forget_parse(struct sdc_remote_queue *queue)
{
    sdc_read_cache_clear(&queue->cache);
    queue->denials.count = queue->asks = 0;
    queue->denials.all = false;
}

static void cache_done(struct sdc_remote_queue *queue, struct remote_op *op)
{
    int rc = op->transfer.result;

    queue->fetching = false;
    if (rc == 0)
        rc = sdc_read_cache_add(&queue->cache, op->transfer.iova, op->data, op->transfer.size);
    queue->ops->fetched(queue, rc);
}

static void ring_done(struct sdc_remote_queue *queue, struct remote_op *op)
{
    queue->ring_writes--;
    queue->ops->written(queue, op->transfer.result);
}

// Whether it is: the session had no chance to send it before the client took the memory back.
static bool keep(struct sdc_remote_queue *queue, struct remote_op *op)
{
    if (op->kind != OP_RING || op->transfer.result != -EFAULT || !queue->ops->asleep || !queue->ops->asleep(queue))
        return false;
    op->next = NULL;
    *queue->kept_end = op;
    queue->kept_end = &op->next;
    return true;
}

static struct remote_op *take_kept(struct sdc_remote_queue *queue)
{
    struct remote_op *kept = queue->kept;

    queue->kept = NULL;
    queue->kept_end = &queue->kept;
    return kept;
}

// The memory is back, perhaps as memory that is shared. Before completions that are newer.
static void write_kept(struct sdc_remote_queue *queue)
{
    struct remote_op *op = take_kept(queue), *next;
    int result = 0;

    if (!op)
        return;
    for (; op; op = next) {
        const struct sdc_transfer *write = &op->transfer;
        bool remote = sdc_memory_check(queue->memory, write->iova, write->size, SDC_ACCESS_WRITE) == 1;
        int rc = remote ? sdc_remote_write_ring(queue, write->iova, op->data, write->size)
                        : sdc_memory_write(queue->memory, write->iova, op->data, write->size);
        atomic_thread_fence(memory_order_release); // an index comes behind what it is about
        if (rc < 0)
            result = rc;
        queue->ring_writes--;
        next = op->next;
        free(op);
    }
    queue->ops->written(queue, result);
}

// --- requests ---

// Puts it aside until the ring's memory is there again.
static void park(struct sdc_remote_queue *queue, struct sdc_remote_request *request)
{
    request->next = queue->parked;
    queue->parked = request;
}

struct sdc_remote_request *sdc_remote_arrived(struct sdc_remote_queue *queue)
{
    struct sdc_remote_request *request = queue->arrived;

    if (!request)
        return NULL;
    queue->arrived = request->next;
    if (!queue->arrived)
        queue->arrived_end = &queue->arrived;
    return request;
}

static void arrive(struct sdc_remote_queue *queue, struct sdc_remote_request *request)
{
    if (request->result < 0)
        request->fault = -EFAULT;
    request->next = NULL;
    *queue->arrived_end = request;
    queue->arrived_end = &request->next;
    queue->ops->go_on(queue);
}

// Brings the readable bytes of a bounced request: those in remote memory by messages. True if it has to wait for them.
static bool fetch(struct sdc_remote_queue *queue, struct sdc_remote_request *request)
{
    struct sdc_payload *payload = request->payload;
    uint8_t *into = payload->bounce;

    request->transfers = 0;
    request->result = 0;
    request->fault = payload->fault;
    if (payload->fault)
        return false;
    for (uint32_t i = 0; i < payload->segments_count && !payload->segments[i].writable; i++) {
        const struct sdc_segment *segment = &payload->segments[i];
        int rc = segment->remote ? start_op(queue, OP_FETCH, request, segment->iova, into, segment->size)
                                 : sdc_memory_read(queue->memory, segment->iova, into, segment->size);
        if (rc < 0)
            request->result = rc;
        into += segment->size;
    }
    if (request->transfers == 0 && request->result < 0)
        request->fault = -EFAULT;
    return request->transfers > 0;
}

bool sdc_remote_bounce(struct sdc_remote_request *request)
{
    struct sdc_remote_queue *queue = request->queue;

    request->storing = false;
    request->lost = false;
    queue->afloat++;
    queue->bounced += request->payload->bounce_size;
    queue->starved = queue->bounced > SDC_LIMIT_QUEUE_BOUNCE;
    return fetch(queue, request);
}

static void fetch_done(struct sdc_remote_queue *queue, struct remote_op *op)
{
    struct sdc_remote_request *request = op->request;

    if (op->transfer.result < 0)
        request->result = op->transfer.result;
    else
        memcpy(op->into, op->data, op->transfer.size);
    if (--request->transfers == 0)
        arrive(queue, request);
}

// Memory may have changed since the request was taken.
static void look_up_segments(struct sdc_remote_request *request)
{
    struct sdc_memory *memory = request->queue->memory;

    for (uint32_t i = 0; i < request->payload->segments_count; i++) {
        struct sdc_segment *segment = &request->payload->segments[i];
        if (segment->nowhere)
            continue;
        enum sdc_access access = segment->writable ? SDC_ACCESS_WRITE : SDC_ACCESS_READ;
        segment->remote = sdc_memory_check(memory, segment->iova, segment->size, access) == 1;
    }
}

// Bytes of the bounce to a segment, or to a part of it: by a message if it is remote, else by copy. Only the segments of one kind.
static void store_piece(struct sdc_remote_request *request, const struct sdc_segment *segment, uint64_t iova, uint8_t *from, uint64_t size,
                        bool remote)
{
    struct sdc_remote_queue *queue = request->queue;
    int rc = 0;

    if (remote && segment->remote)
        rc = start_op(queue, OP_STORE, request, iova, from, (uint32_t)size);
    else if (!remote && !segment->remote)
        rc = sdc_memory_write(queue->memory, iova, from, size);
    if (rc < 0)
        request->result = rc;
}

// Goes over the segments of what was written. Positions are those in the two streams, one after the other.
static void store(struct sdc_remote_request *request, bool remote)
{
    const struct sdc_payload *payload = request->payload;
    uint64_t at = payload->readable_size;
    uint64_t end = at + request->written;

    for (uint32_t i = 0; at < end && i < payload->segments_count; i++) {
        const struct sdc_segment *segment = &payload->segments[i];
        if (!segment->writable)
            continue;
        uint64_t from = sdc_max(at, payload->unbounced);
        uint64_t to = sdc_min(at + segment->size, end);
        if (from < to && !segment->nowhere)
            store_piece(request, segment, segment->iova + (from - at), payload->bounce + (from - payload->unbounced), to - from, remote);
        at += segment->size;
    }
}

static void release(struct sdc_remote_request *request)
{
    struct sdc_remote_queue *queue = request->queue;

    queue->afloat--;
    queue->bounced -= request->payload->bounce_size;
    if (queue->starved && queue->bounced <= SDC_LIMIT_QUEUE_BOUNCE) {
        queue->starved = false;
        queue->ops->go_on(queue);
    }
    queue->ops->finish(request);
}

static void store_all(struct sdc_remote_request *request)
{
    request->result = 0;
    look_up_segments(request);
    store(request, false);
    store(request, true);
}

// The messages were answered. If the driver could not be reached the device says so in the request, and that is tried once.
static void stored(struct sdc_remote_request *request)
{
    if (request->result < 0 && !request->lost) {
        request->lost = true;
        request->written = request->queue->ops->lost(request);
        store_all(request);
        if (request->transfers > 0)
            return;
    }
    release(request);
}

static void begin_storing(struct sdc_remote_request *request, uint32_t written)
{
    request->storing = true;
    request->written = written;
    request->transfers = 0;
    request->result = 0;
}

void sdc_remote_unbounce(struct sdc_remote_request *request, uint32_t written)
{
    begin_storing(request, written);
    store_all(request);
    if (request->transfers == 0)
        stored(request);
}

void sdc_remote_unbounce_later(struct sdc_remote_request *request, uint32_t written)
{
    begin_storing(request, written);
    park(request->queue, request);
}

void sdc_remote_drop(struct sdc_remote_request *request)
{
    request->written = 0;
    release(request);
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
    struct sdc_remote_queue *queue = op->queue;

    if (queue) {
        drop_op(op);
        if (keep(queue, op))
            return;
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
        case OP_ASK:
            ask_done(queue, op);
            break;
        }
    }
    free(op);
}

static void forget(struct sdc_remote_queue *queue)
{
    sdc_remote_parsed(queue);
    queue->fetching = false;
}

void sdc_remote_forget_cache(struct sdc_remote_queue *queue)
{
    bool asking = false;

    for (struct remote_op *op = queue->transfers, *next; op; op = next) {
        next = op->next;
        asking |= op->kind == OP_ASK; // what is not there yet is no older for that
        if (op->kind == OP_CACHE)
            orphan(op);
    }
    sdc_read_cache_clear(&queue->cache);
    queue->fetching = asking;
}

void sdc_remote_park(struct sdc_remote_queue *queue)
{
    struct sdc_remote_request *request;

    while ((request = sdc_remote_arrived(queue)) != NULL)
        park(queue, request);
    for (struct remote_op *op = queue->transfers, *next; op; op = next) {
        next = op->next;
        if (op->kind == OP_RING)
            continue; // sent before the client hears that the memory is given up, or not at all
        orphan(op);
        if (op->request && --op->request->transfers == 0)
            park(queue, op->request);
    }
    forget(queue);
}

static struct sdc_remote_request *take_parked(struct sdc_remote_queue *queue)
{
    struct sdc_remote_request *parked = queue->parked;

    queue->parked = NULL;
    return parked;
}

// Whether its buffers are there again; those that a client has taken away come back one after the other.
static bool is_back(struct sdc_remote_queue *queue, const struct sdc_payload *payload)
{
    bool back = true;

    for (uint32_t i = 0; back && !payload->fault && i < payload->segments_count; i++) {
        const struct sdc_segment *segment = &payload->segments[i];
        enum sdc_access access = segment->writable ? SDC_ACCESS_WRITE : SDC_ACCESS_READ;
        back = segment->nowhere || sdc_memory_check(queue->memory, segment->iova, segment->size, access) >= 0;
    }
    return back;
}

void sdc_remote_unpark(struct sdc_remote_queue *queue)
{
    write_kept(queue);
    for (struct sdc_remote_request *request = take_parked(queue), *next; request; request = next) {
        next = request->next;
        if (!is_back(queue, request->payload)) {
            park(queue, request);
            continue;
        }
        look_up_segments(request);
        if (request->storing)
            sdc_remote_unbounce(request, request->written);
        else if (!fetch(queue, request))
            arrive(queue, request);
    }
}

bool sdc_remote_is_busy(const struct sdc_remote_queue *queue)
{
    return queue->transfers || queue->arrived || queue->parked || queue->kept;
}

void sdc_remote_abandon(struct sdc_remote_queue *queue)
{
    sdc_remote_park(queue);
    while (queue->transfers)
        orphan(queue->transfers);
    for (struct remote_op *op = take_kept(queue), *next; op; op = next) {
        next = op->next;
        free(op);
    }
    for (struct sdc_remote_request *request = take_parked(queue), *next; request; request = next) {
        next = request->next;
        sdc_remote_drop(request);
    }
    queue->starved = false;
    queue->ring_writes = 0;
}

void sdc_remote_queue_init(struct sdc_remote_queue *queue)
{
    queue->arrived_end = &queue->arrived;
    queue->kept_end = &queue->kept;
}
