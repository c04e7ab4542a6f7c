// SPDX-License-Identifier: BSD-3-Clause
#include "transport/common/virtqueue.h"

#include "transport/common/request.h"

#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "os/fd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    SLAB = 16,       // requests that are made at a time, as the driver comes to need them
    LONE_KICKS = 64, // after so many signals that came one by one it is looked whether the eventfd ever empties:
    ENDLESS = 1024,  // this many more can be taken at once
};

// --- requests ---

static struct request *grow(struct sdc_virtqueue *queue)
{
    size_t size = (sizeof(struct request) + queue->device->ops->request_size + SDC_LINE - 1) & ~(size_t)(SDC_LINE - 1);
    void **slabs = realloc(queue->slabs, (queue->slabs_count + 1) * sizeof *slabs);
    if (!slabs)
        return NULL;
    queue->slabs = slabs;
    char *slab = aligned_alloc(SDC_LINE, SLAB * size);
    if (!slab)
        return NULL;
    memset(slab, 0, SLAB * size);
    slabs[queue->slabs_count++] = slab;
    for (unsigned i = 0; i < SLAB; i++) {
        struct request *request = (struct request *)(void *)(slab + i * size);
        request->shown.queue = queue;
        request->remote = (struct sdc_remote_request){.queue = &queue->remote, .payload = &request->chain.payload};
        sdc_chain_init(&request->chain);
        request->next = queue->free_requests;
        queue->free_requests = request;
    }
    return queue->free_requests;
}

static void free_requests(struct sdc_virtqueue *queue)
{
    for (struct request *request = queue->free_requests; request; request = request->next)
        sdc_chain_destroy(&request->chain);
    for (uint32_t i = 0; i < queue->slabs_count; i++)
        free(queue->slabs[i]);
    free(queue->slabs);
    queue->slabs = NULL;
    queue->slabs_count = 0;
    queue->free_requests = NULL;
}

// --- order ---

// With VIRTIO_F_IN_ORDER (virtio 1.2, 2.7.9 and 2.8.8) requests are given back in the order in which they were taken: what is finished
// early waits in line, for nothing but its turn. Each has its element in the used ring. A driver must take one for several as well,
// but that would say of those left out that all they had room for was written, which is not so where a request failed.

static bool in_order(const struct sdc_virtqueue *queue)
{
    return sdc_ring_has(&queue->ring, SDC_VIRTIO_F_IN_ORDER);
}

static void line_up(struct sdc_virtqueue *queue, struct request *request)
{
    if (!queue->oldest)
        queue->youngest = &queue->oldest;
    request->next = NULL;
    *queue->youngest = request;
    queue->youngest = &request->next;
}

// --- taking and giving ---

void sdc_virtqueue_schedule(struct sdc_virtqueue *queue)
{
    sdc_loop_defer(queue->loop, &queue->work);
}

// Takes the next chain from the ring. 1 with *out set, else as sdc_ring_take.
static int take_one(struct sdc_virtqueue *queue, struct request **out)
{
    struct request *request = queue->free_requests ? queue->free_requests : grow(queue);
    if (!request)
        return -ENOMEM;
    const struct sdc_payload *payload = &request->chain.payload;
    int rc = sdc_ring_take(&queue->ring, &request->chain);
    if (rc != -EAGAIN)
        sdc_remote_parsed(&queue->remote);
    if (rc != 1)
        return rc;

    queue->free_requests = request->next;
    if (in_order(queue))
        line_up(queue, request);
    request->use = payload->bounce ? NULL : queue->use;
    if (request->use)
        request->use->in_flight++;
    request->spans = payload->spans_count + payload->segments_count;
    queue->spans += request->spans;
    request->shown.readable_size = payload->readable_size;
    request->shown.writable_size = payload->writable_size;
    request->shown.fault = payload->fault;
    *out = request;
    return 1;
}

// What take_one says when it has no request: how it goes on.
static void took_none(struct sdc_virtqueue *queue, int rc)
{
    if (rc == -EPROTO)
        sdc_virtqueue_break(queue, queue->ring.broken);
    else if (rc == -EAGAIN)
        sdc_virtqueue_fetch(queue);
    else if (rc < 0)
        queue->again = true;
}

// Whether nothing may be taken now. One request may have any number of buffers, but not many such at a time.
static bool is_full(struct sdc_virtqueue *queue)
{
    queue->crowded = queue->spans > SDC_LIMIT_QUEUE_SPANS;
    return queue->remote.fetching || queue->remote.starved || queue->crowded;
}

unsigned sdc_virtqueue_take(struct sdc_virtqueue *queue, struct sdc_virtio_request **requests, unsigned max)
{
    unsigned count = 0;

    if (!queue->running || queue->stopping || queue->remapping)
        return 0;
    while (count < max && queue->budget > 0) {
        struct request *request = queue->remote.arrived ? sdc_virtqueue_arrived(queue) : NULL;
        if (!request) {
            if (is_full(queue))
                return count;
            int rc = take_one(queue, &request);
            if (rc <= 0) {
                took_none(queue, rc);
                return count;
            }
            if (request->chain.payload.bounce && sdc_virtqueue_bounce(request))
                continue; // its readable bytes are on their way
        }
        requests[count++] = &request->shown;
        queue->budget--;
    }
    if (queue->budget == 0)
        queue->again = true;
    return count;
}

static void finish_order(struct sdc_virtqueue *queue);

// Whether the order that waits, if one does, has nothing more to wait for.
static bool has_drained(const struct sdc_virtqueue *queue)
{
    return queue->ring.in_flight - queue->waiting == (queue->stopping ? 0 : queue->remote.afloat);
}

static void put_back(struct sdc_virtqueue *queue, struct request *request)
{
    bool behind = queue->left > 0 && in_order(queue); // nothing is given before what was taken before it

    if (queue->stopping && queue->config.log && (queue->leaves || request->left || behind)) {
        sdc_ring_leave(&queue->ring);
        queue->left++;
    } else {
        sdc_ring_give(&queue->ring, &request->chain, request->written);
    }
    request->done = request->left = false;
    request->next = queue->free_requests;
    queue->free_requests = request;
}

static void put_back_in_order(struct sdc_virtqueue *queue)
{
    struct request *request;

    while ((request = queue->oldest) != NULL && request->done) {
        queue->oldest = request->next;
        queue->waiting--;
        put_back(queue, request);
    }
}

void sdc_virtqueue_finish(struct request *request, uint32_t written)
{
    struct sdc_virtqueue *queue = request->shown.queue;
    struct sdc_map_use *use = request->use;

    // All that it holds is given up here, also where it has to wait for others: an unmap does not wait for those.
    if (use)
        sdc_map_use_put(use, queue->use);
    queue->spans -= request->spans;
    if (queue->crowded && queue->spans <= SDC_LIMIT_QUEUE_SPANS)
        sdc_virtqueue_schedule(queue);
    sdc_chain_trim(&request->chain);
    request->written = written;
    request->done = true;
    if (in_order(queue)) {
        queue->waiting++;
        put_back_in_order(queue);
    } else {
        put_back(queue, request);
    }
    sdc_loop_defer(queue->loop, &queue->flush);
}

void sdc_virtqueue_give(struct sdc_virtio_request *shown, uint32_t written)
{
    struct request *request = sdc_request_of(shown);

    if (request->chain.payload.bounce)
        sdc_virtqueue_unbounce(request, written);
    else
        sdc_virtqueue_finish(request, written);
}

bool sdc_virtqueue_leave(struct sdc_virtio_request *shown)
{
    struct request *request = sdc_request_of(shown);
    struct sdc_virtqueue *queue = shown->queue;

    if (!queue->stopping || !queue->spares || !queue->config.log)
        return false;
    request->left = true;
    sdc_virtqueue_give(shown, 0);
    return true;
}

// Shows the driver what was given. It is interrupted when it can see it: in remote memory, when that has arrived.
static void show(struct sdc_virtqueue *queue)
{
    if (!sdc_ring_publish(&queue->ring))
        return;
    if (queue->remote.ring_writes > 0)
        queue->interrupt_due = true;
    else
        queue->interrupt(queue);
}

static void run_flush(struct sdc_deferred *deferred)
{
    struct sdc_virtqueue *queue = sdc_container(deferred, struct sdc_virtqueue, flush);

    if (!queue->running)
        return;
    sdc_poller_stir(&queue->poller);
    show(queue);
    if ((queue->stopping || queue->remapping) && has_drained(queue))
        finish_order(queue);
}

static void kicked(struct sdc_virtqueue *queue)
{
    queue->look_again |= queue->remote.fetching || queue->remote.cache.count > 0;
    if (queue->running)
        sdc_virtqueue_schedule(queue);
}

static void run_kick(struct sdc_post *post)
{
    struct sdc_virtqueue *queue = sdc_container(post, struct sdc_virtqueue, kick_post);

    // Cleared before the ring is looked at: a kick from now on posts again.
    atomic_store_explicit(&queue->kicked, false, memory_order_seq_cst);
    kicked(queue);
}

void sdc_virtqueue_kick(struct sdc_virtqueue *queue)
{
    if (!atomic_exchange_explicit(&queue->kicked, true, memory_order_seq_cst))
        sdc_loop_post(queue->loop, &queue->kick_post);
}

// --- waiting for work ---

static bool may_work(const struct sdc_virtqueue *queue)
{
    return queue->running && !queue->stopping && !queue->remapping && !queue->ring.broken;
}

// False: what ends that brings work about, or the end of the queue. Until then the driver need not notify.
static bool may_take(const struct sdc_virtqueue *queue)
{
    return may_work(queue) && !queue->remote.fetching && !queue->remote.starved && !queue->crowded;
}

// Whether the driver has written to a register of its that is memory. Taken back before the ring is looked at: a write from now on is a
// new one (pair [C] of the ring, with the exchange as the barrier).
static bool has_rung(struct sdc_virtqueue *queue)
{
    return __atomic_load_n(queue->bell, __ATOMIC_RELAXED) != SDC_BELL_SILENT &&
           __atomic_exchange_n(queue->bell, SDC_BELL_SILENT, __ATOMIC_SEQ_CST) != SDC_BELL_SILENT;
}

static bool look(struct sdc_poller *poller)
{
    struct sdc_virtqueue *queue = sdc_container(poller, struct sdc_virtqueue, poller);

    if (queue->ring.remote && has_rung(queue)) {
        kicked(queue);
        return true;
    }
    if (!may_take(queue))
        return false;
    if (sdc_gather_rests(&queue->gather, sdc_loop_now(queue->loop)))
        return true;
    if (sdc_ring_look(&queue->ring)) {
        // Where the backend has something to do it is not kept waiting for more.
        if (queue->ring.in_flight > 0 || !sdc_gather_waits(&queue->gather, sdc_ring_there(&queue->ring), sdc_loop_now(queue->loop)))
            sdc_virtqueue_schedule(queue);
        return true;
    }
    if (queue->ring.broken)
        sdc_virtqueue_break(queue, queue->ring.broken);
    return false;
}

static void suppress(struct sdc_poller *poller)
{
    sdc_ring_suppress(&sdc_container(poller, struct sdc_virtqueue, poller)->ring);
}

static void rearm(struct sdc_poller *poller)
{
    struct sdc_virtqueue *queue = sdc_container(poller, struct sdc_virtqueue, poller);

    if (!may_take(queue))
        return;
    bool late = sdc_ring_rearm(&queue->ring);
    if (queue->ring.broken)
        sdc_virtqueue_break(queue, queue->ring.broken);
    else if (late && queue->remote.ring_writes > 0)
        queue->look_when_written = true; // the driver has not been told yet
    else if (late)
        sdc_virtqueue_kick(queue);
}

static const struct sdc_poller_ops poller_ops = {.look = look, .suppress = suppress, .rearm = rearm};

// As the ring's memory is now. A remote ring is not polled, but its driver's register is, where a write to it wakes nobody.
// Whether the queue waits in another way than before.
static bool start_poller(struct sdc_virtqueue *queue)
{
    bool blind = queue->ring.remote && !queue->bell;
    enum sdc_poll_mode mode = blind ? SDC_POLL_NEVER : queue->unkicked ? SDC_POLL_ALWAYS : queue->poll_mode;

    if (queue->poller.loop && queue->poller.mode == mode)
        return false;
    sdc_poller_stop(&queue->poller);
    if (!queue->ring.broken)
        sdc_poller_start(queue->loop, &queue->poller, mode, queue->poll_max_ns);
    return true;
}

// The driver is told to notify, for whoever goes on with the ring.
static void stop_poller(struct sdc_virtqueue *queue)
{
    sdc_poller_stop(&queue->poller);
    if (queue->ring.suppressed && !queue->ring.remote)
        sdc_ring_rearm(&queue->ring);
}

static void run_work(struct sdc_deferred *deferred)
{
    struct sdc_virtqueue *queue = sdc_container(deferred, struct sdc_virtqueue, work);

    if (!may_work(queue)) {
        queue->due = queue->remapping;
        return;
    }
    queue->dozing = false;
    if (queue->ring.lacking) {
        if (!queue->remote.fetching)
            sdc_virtqueue_fetch(queue);
        return; // the map in which it is brings us here again
    }
    sdc_ring_suppress(&queue->ring);
    queue->budget = SDC_LIMIT_TURN;
    queue->again = false;
    queue->device->ops->queue_work(queue->device, queue);
    if (queue->budget < SDC_LIMIT_TURN)
        sdc_poller_worked(&queue->poller);
    if (queue->ring.broken)
        sdc_virtqueue_break(queue, queue->ring.broken);
    if (!may_take(queue))
        return; // what arrives, or is given back, brings us here again
    bool more = queue->again || queue->look_again;
    queue->look_again = false;
    if (more)
        sdc_virtqueue_kick(queue); // in the next turn, after others had theirs
    else if (queue->ring.remote)
        rearm(&queue->poller); // whether its driver's register is looked at or not
    else
        sdc_poller_rest(&queue->poller);
}

void sdc_virtqueue_break(struct sdc_virtqueue *queue, const char *reason)
{
    queue->ring.broken = reason;
    if (queue->record)
        sdc_put64(queue->record + SDC_QUEUE_RECORD_BROKEN, 1);
    sdc_poller_stop(&queue->poller);
    queue->broke(queue, reason);
}

// --- kicks by eventfd ---

// A read takes all that was signalled, but of an eventfd that counts down (EFD_SEMAPHORE) it takes 1: with a large count that would keep
// the loop awake for ever. Drivers notify one by one, too, but not faster than we read.
static bool is_endless(struct sdc_virtqueue *queue, uint64_t taken)
{
    unsigned more = 0;

    queue->lone_kicks = taken == 1 ? queue->lone_kicks + 1 : 0;
    if (queue->lone_kicks < LONE_KICKS)
        return false;
    queue->lone_kicks = 0;
    while (more < ENDLESS && sdc_eventfd_take(queue->kick_watch.fd) == 1)
        more++;
    return more == ENDLESS;
}

// Once in a turn at most, however often it was signalled.
static void kick_fd_ready(struct sdc_watch *watch, uint32_t events)
{
    struct sdc_virtqueue *queue = sdc_container(watch, struct sdc_virtqueue, kick_watch);

    (void)events;
    // Taken before the ring is looked at: a signal from now on is a new one.
    if (is_endless(queue, sdc_eventfd_take(watch->fd))) {
        sdc_loop_unwatch(queue->loop, watch);
        sdc_virtqueue_break(queue, "an eventfd notifies without end");
        return;
    }
    kicked(queue);
}

// The queue runs. A signal that came before is found standing.
static void watch_kick_fd(struct sdc_virtqueue *queue)
{
    sdc_loop_unwatch(queue->loop, &queue->kick_watch);
    if (queue->kick_fd < 0)
        return;
    queue->kick_watch = (struct sdc_watch){.fd = queue->kick_fd, .wanted = SDC_READABLE, .ready = kick_fd_ready};
    if (sdc_loop_watch(queue->loop, &queue->kick_watch) < 0)
        sdc_virtqueue_break(queue, "no memory");
}

// --- orders ---

static void obeyed(struct sdc_virtqueue *queue)
{
    queue->obeyed(queue);
}

// Opens the log in the record, and says in config whether the ring goes on with it: somebody has run this very start before us.
static int open_log(struct sdc_virtqueue *queue)
{
    uint8_t *record = queue->record;
    bool packed = (queue->config.features & SDC_VIRTIO_F_RING_PACKED) != 0;

    if (!record)
        return 0;
    int rc = sdc_inflight_open(&queue->log, record + SDC_QUEUE_RECORD_LOG, queue->record_bytes - SDC_QUEUE_RECORD_LOG,
                               queue->config.size, packed);
    if (rc < 0)
        return rc;
    queue->config.log = &queue->log;
    queue->config.resume = sdc_get64(record + SDC_QUEUE_RECORD_START) == queue->start_number;
    if (!queue->config.resume) {
        // Of no start, until the ring has begun the log.
        __atomic_store_n((uint64_t *)(void *)(record + SDC_QUEUE_RECORD_START), 0, __ATOMIC_RELEASE);
        sdc_put64(record + SDC_QUEUE_RECORD_BROKEN, 0);
    }
    return 0;
}

static int start_ring(struct sdc_virtqueue *queue, struct sdc_error *err)
{
    struct sdc_memory memory = sdc_virtqueue_view(queue, queue->use->map);

    if (open_log(queue) < 0)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for the log of what is in flight");
    int rc = sdc_ring_start(&queue->ring, &queue->config, &memory, err);
    if (rc < 0 || !queue->record)
        return rc;
    if (queue->config.resume && sdc_get64(queue->record + SDC_QUEUE_RECORD_BROKEN) != 0 && !queue->ring.broken)
        queue->ring.broken = "it was broken before";
    __atomic_store_n((uint64_t *)(void *)(queue->record + SDC_QUEUE_RECORD_START), htole64(queue->start_number), __ATOMIC_RELEASE);
    return 0;
}

static void end_ring(struct sdc_virtqueue *queue)
{
    sdc_ring_stop(&queue->ring);
    sdc_inflight_close(&queue->log);
    queue->config.log = NULL;
    sdc_map_use_end(&queue->use);
}

static void start(struct sdc_virtqueue *queue)
{
    struct sdc_error err;

    queue->position = queue->config.position;
    queue->wrapped = queue->config.wrapped;
    queue->left = 0;
    int rc = sdc_map_use_switch(&queue->use, queue->map);
    if (rc < 0) {
        queue->broke(queue, "no memory");
        return;
    }
    rc = start_ring(queue, &err);
    if (rc < 0) {
        end_ring(queue);
        queue->broke(queue, err.text);
        return;
    }
    queue->running = true;
    queue->dozing = queue->due = false;
    rc = sdc_virtqueue_tell_start(queue);
    if (rc < 0) {
        end_ring(queue);
        queue->running = false;
        queue->broke(queue, "the device could not start the queue");
        return;
    }
    if (queue->ring.broken)
        sdc_virtqueue_break(queue, queue->ring.broken);
    start_poller(queue);
    watch_kick_fd(queue);
    sdc_virtqueue_schedule(queue); // kicks that came before were for nobody
}

static void stop(struct sdc_virtqueue *queue)
{
    queue->stopping = false;
    if (!queue->running)
        return;
    sdc_virtqueue_tell_stop(queue);
    queue->running = false;
    stop_poller(queue);
    sdc_loop_unwatch(queue->loop, &queue->kick_watch);
    sdc_loop_undefer(queue->loop, &queue->work);
    sdc_loop_undefer(queue->loop, &queue->flush);
    sdc_virtqueue_abandon(queue);
    queue->position = queue->ring.avail_next;
    queue->wrapped = sdc_ring_wrapped(&queue->ring);
    free_requests(queue);
    end_ring(queue);
}

static void remap(struct sdc_virtqueue *queue)
{
    struct sdc_map *map = queue->map;

    queue->remapping = false;
    if (sdc_map_use_switch(&queue->use, map) < 0) {
        sdc_virtqueue_break(queue, "no memory");
        return;
    }
    struct sdc_memory memory = sdc_virtqueue_view(queue, map);
    sdc_remote_forget_cache(&queue->remote);
    bool was_broken = queue->ring.broken;
    bool idle = !queue->due && (queue->dozing || (queue->ring.awake && !queue->ring.suppressed));
    sdc_ring_remap(&queue->ring, &memory);
    queue->dozing = queue->ring.lacking && idle;
    queue->due = false;
    if (queue->ring.broken && !was_broken)
        sdc_virtqueue_break(queue, queue->ring.broken);
    start_poller(queue);
    queue->look_when_written = queue->remote.ring_writes > 0;
    if (queue->ring.awake)
        sdc_remote_unpark(&queue->remote);
    if (!queue->dozing)
        sdc_virtqueue_schedule(queue);
}

// What a waiting order waited for has come true.
static void finish_order(struct sdc_virtqueue *queue)
{
    if (queue->stopping)
        stop(queue);
    else
        remap(queue);
    obeyed(queue);
}

// The client may hold the very lock that would let it answer us: no order waits for messages of our own.
static void run_order(struct sdc_post *post)
{
    struct sdc_virtqueue *queue = sdc_container(post, struct sdc_virtqueue, order_post);

    // What was given in this turn is not shown yet: after the order the ring may be gone, or its memory.
    if (queue->running)
        show(queue);
    switch (queue->order) {
    case SDC_VIRTQUEUE_START:
        start(queue);
        break;
    case SDC_VIRTQUEUE_STOP:
        if (queue->running)
            sdc_virtqueue_abandon(queue);
        queue->stopping = queue->running;
        if (!has_drained(queue)) {
            if (queue->device->ops->queue_cancel)
                queue->device->ops->queue_cancel(queue->device, queue);
            return;
        }
        stop(queue);
        break;
    case SDC_VIRTQUEUE_SAVE:
        queue->stopping = queue->running;
        if (!has_drained(queue)) {
            // What has not begun and may take long to stays in the log, for who goes on.
            queue->spares = queue->config.log != NULL;
            if (queue->spares && queue->device->ops->queue_cancel)
                queue->device->ops->queue_cancel(queue->device, queue);
            return;
        }
        stop(queue);
        break;
    case SDC_VIRTQUEUE_REMAP:
        if (!queue->running) {
            sdc_map_unref(queue->map);
        } else if (!sdc_ring_stays(&queue->ring, queue->map)) {
            // The ring's own memory goes away or moves: what the device has is still given back through it.
            sdc_remote_park(&queue->remote);
            queue->remapping = !has_drained(queue);
            if (queue->remapping)
                return;
            remap(queue);
        } else {
            remap(queue);
        }
        break;
    case SDC_VIRTQUEUE_WATCH:
        if (queue->running) {
            watch_kick_fd(queue);
            if (start_poller(queue))
                sdc_virtqueue_schedule(queue); // its end tells the driver whether to notify from now on
        }
        break;
    }
    obeyed(queue);
}

static void run_recall(struct sdc_post *post)
{
    struct sdc_virtqueue *queue = sdc_container(post, struct sdc_virtqueue, recall_post);
    bool waited = queue->remapping;

    if (queue->running)
        show(queue);
    if (waited)
        sdc_map_unref(queue->map);
    queue->map = queue->recall_map;
    if (queue->running)
        remap(queue);
    else
        sdc_map_unref(queue->map);
    if (waited)
        obeyed(queue);
    queue->recalled(queue);
}

void sdc_virtqueue_recall(struct sdc_virtqueue *queue)
{
    sdc_loop_post(queue->loop, &queue->recall_post);
}

void sdc_virtqueue_send(struct sdc_virtqueue *queue)
{
    sdc_loop_post(queue->loop, &queue->order_post);
}

uint64_t sdc_virtqueue_record_bytes(uint32_t size)
{
    return (SDC_QUEUE_RECORD_LOG + sdc_inflight_bytes(size, true) + 63) / 64 * 64;
}

void sdc_virtqueue_init(struct sdc_virtqueue *queue)
{
    queue->kick_fd = -1;
    queue->order_post.run = run_order;
    queue->recall_post.run = run_recall;
    queue->kick_post.run = run_kick;
    queue->work.run = run_work;
    queue->flush.run = run_flush;
    queue->poller.ops = &poller_ops;
    sdc_virtqueue_init_remote(queue);
}
