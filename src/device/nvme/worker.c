// SPDX-License-Identifier: BSD-3-Clause
// What the home loop orders: queues start and end, memory changes. No order waits for messages to the client, which may hold the very lock
// that would let it answer.
#include "base/check.h"
#include "device/nvme/bits.h"
#include "device/nvme/controller.h"

#include <errno.h>

// --- the life of queues ---

int nvme_cq_start(struct nvme_cq *cq)
{
    nvme_cq_init_remote(cq);
    struct sdc_memory memory = nvme_cq_view(cq);
    int rc = sdc_nvme_cq_start(&cq->ring, cq->iova, cq->size, &cq->nvme->doorbells[2 * cq->id + 1], &memory);

    // The memory of a queue that goes on may be away just now.
    if (rc < 0 && !cq->resumes)
        return rc;
    nvme_cq_log_start(cq);
    cq->waiting = NULL;
    cq->misled = false;
    nvme_interrupt_start(cq);
    cq->ring.doorbell.shadowed = cq->resumes && cq->shadow.given; // the driver's word is newer than the register
    nvme_share_cq(cq);
    nvme_bit_set(cq->worker->cqs, cq->id);
    if (cq->resumes) { // nobody knows which interrupts were sent
        nvme_bit_set(cq->worker->fresh, cq->id);
        sdc_loop_defer(cq->worker->loop, &cq->worker->flush);
    }
    return 0;
}

int nvme_sq_start(struct nvme_sq *sq)
{
    struct nvme_worker *worker = sq->worker;

    nvme_sq_init_remote(sq);
    struct sdc_memory memory = nvme_sq_view(sq);
    int rc = sdc_nvme_sq_start(&sq->ring, sq->iova, sq->size, &sq->nvme->doorbells[2 * sq->id], &memory);
    if (rc < 0 && !sq->resumes)
        return rc;
    rc = nvme_sq_log_open(sq);
    if (rc == 0 && sq->id != 0)
        rc = nvme_namespaces_open(worker);
    if (rc < 0) {
        nvme_sq_log_close(sq);
        return rc;
    }
    sq->oldest = sq->newest = sq->fetching = NULL;
    sq->in_flight = sq->resting = 0;
    sq->stopping = sq->moving = sq->misled = false;
    sq->ring.doorbell.shadowed = sq->resumes && sq->shadow.given; // the driver's word is newer than the register
    nvme_share_sq(sq);
    nvme_start_poller(sq);
    nvme_bit_set(worker->sqs, sq->id);
    if (sq->resumes)
        nvme_look(sq);
    return 0;
}

int nvme_worker_use(struct nvme_worker *worker, struct sdc_map *map)
{
    int rc = sdc_map_use_switch(&worker->use, map);

    if (rc == 0)
        worker->memory = (struct sdc_memory){.map = map};
    return rc;
}

void nvme_run_create_cq(struct nvme_order *order)
{
    struct nvme_cq *cq = sdc_container(order, struct nvme_cq, order);
    struct nvme_worker *worker = order->worker;

    // A worker that has a map has this one: changes of memory are orders too.
    if (worker->use)
        sdc_map_unref(order->map);
    else
        order->result = nvme_worker_use(worker, order->map);
    if (order->result == 0)
        order->result = nvme_cq_start(cq);
    if (worker->use && nvme_bit_next(worker->cqs, 0) < 0)
        sdc_map_use_end(&worker->use);
    nvme_order_obeyed(order);
}

void nvme_run_create_sq(struct nvme_order *order)
{
    order->result = nvme_sq_start(sdc_container(order, struct nvme_sq, order));
    nvme_order_obeyed(order);
}

void nvme_run_delete_cq(struct nvme_order *order)
{
    struct nvme_cq *cq = sdc_container(order, struct nvme_cq, order);
    struct nvme_worker *worker = order->worker;

    sdc_remote_abandon(&cq->remote);
    nvme_interrupt_end(cq);
    nvme_bit_clear(worker->cqs, cq->id);
    nvme_bit_clear(worker->fresh, cq->id);
    if (nvme_bit_next(worker->cqs, 0) < 0) {
        sdc_map_use_end(&worker->use);
        nvme_free_commands(worker);
    }
    nvme_order_obeyed(order);
}

// Takes out of a completion queue what waits there for room and came by sq.
static void forget_waiting(struct nvme_cq *cq, const struct nvme_sq *sq)
{
    struct nvme_command **link = &cq->waiting;

    while (*link) {
        if ((*link)->sq == sq)
            *link = (*link)->next;
        else
            link = &(*link)->next;
    }
    cq->waiting_end = link;
}

// Nothing is at work for it any more. What rests is forgotten: the driver has taken its entries back.
static void end_sq(struct nvme_sq *sq)
{
    struct nvme_worker *worker = sq->worker;

    sdc_poller_stop(&sq->poller);
    forget_waiting(sq->cq, sq);
    sdc_remote_forget_cache(&sq->remote);
    sdc_read_cache_clear(&sq->remote.cache);
    while (sq->oldest)
        nvme_release(sq->oldest);
    sq->fetching = NULL;
    sq->stopping = sq->moving = false;
    nvme_bit_clear(worker->sqs, sq->id);
    nvme_bit_clear(worker->look, sq->id);
    nvme_sq_log_close(sq);
    if (sq->id != 0)
        nvme_namespaces_close(worker);
    else
        nvme_events_forget(&worker->nvme->admin.events); // while the controller goes on ending, events may still happen
}

static bool sq_has_drained(const struct nvme_sq *sq)
{
    return sq->in_flight == sq->resting;
}

// Nor is what it completed still on its way to remote memory: the driver may reuse its number at once, and must not find entries of the
// queue before. Where all ends nobody looks any more.
static bool sq_has_left(const struct nvme_sq *sq)
{
    return sq_has_drained(sq) && (sq->cq->remote.ring_writes == 0 || sq->worker->stopping);
}

void nvme_run_delete_sq(struct nvme_order *order)
{
    struct nvme_sq *sq = sdc_container(order, struct nvme_sq, order);

    if (!sq_has_left(sq)) {
        sq->stopping = true;
        sq->worker->draining++;
        return;
    }
    struct nvme_cq *cq = sq->cq;
    end_sq(sq);
    if (!cq->waiting)
        nvme_post_waiting(cq); // queues that stood still for this one's
    nvme_order_obeyed(order);
}

// --- orders to a worker as a whole ---

static bool all_drained(struct nvme_worker *worker)
{
    bool drained = true;

    for (int id = -1; drained && (id = nvme_bit_next(worker->sqs, id + 1)) >= 0;)
        drained = sq_has_drained(&worker->nvme->sqs[id]);
    return drained;
}

static void stop(struct nvme_worker *worker)
{
    struct nvme *nvme = worker->nvme;

    worker->stopping = worker->leaving = false;
    for (int id = -1; (id = nvme_bit_next(worker->sqs, id + 1)) >= 0;)
        end_sq(&nvme->sqs[id]);
    for (int id = -1; (id = nvme_bit_next(worker->cqs, id + 1)) >= 0;) {
        sdc_remote_abandon(&nvme->cqs[id].remote);
        nvme_interrupt_end(&nvme->cqs[id]);
    }
    memset(worker->cqs, 0, sizeof worker->cqs);
    memset(worker->fresh, 0, sizeof worker->fresh);
    sdc_loop_undefer(worker->loop, &worker->work);
    sdc_loop_undefer(worker->loop, &worker->flush);
    sdc_map_use_end(&worker->use);
    nvme_free_commands(worker);
    nvme_order_obeyed(&worker->stop_order);
}

static void begin_stop(struct nvme_worker *worker)
{
    nvme_worker_flush(worker);
    worker->stopping = true;
    worker->draining++;
    for (int id = -1; (id = nvme_bit_next(worker->sqs, id + 1)) >= 0;)
        sdc_remote_abandon(&worker->nvme->sqs[id].remote);
    sdc_loop_defer(worker->loop, &worker->flush);
}

void nvme_run_stop(struct nvme_order *order)
{
    begin_stop(order->worker);
    nvme_namespaces_cancel(order->worker);
}

void nvme_run_leave(struct nvme_order *order)
{
    order->worker->leaving = true;
    begin_stop(order->worker);
    nvme_namespaces_cancel(order->worker); // it stays in the log, as everything does that ends from here on
}

// Whether a queue's memory goes away or moves. What is in flight there ends as it is, but for what waits for messages.
static bool look_who_moves(struct nvme_worker *worker, const struct sdc_map *map)
{
    bool any = false;

    for (int id = -1; (id = nvme_bit_next(worker->sqs, id + 1)) >= 0;) {
        struct nvme_sq *sq = &worker->nvme->sqs[id];
        sq->moving = !sdc_nvme_sq_stays(&sq->ring, map) || !sdc_nvme_cq_stays(&sq->cq->ring, map);
        if (sq->moving)
            sdc_remote_park(&sq->remote);
        any |= sq->moving;
    }
    return any;
}

static bool moving_drained(struct nvme_worker *worker)
{
    bool drained = true;

    for (int id = -1; drained && (id = nvme_bit_next(worker->sqs, id + 1)) >= 0;) {
        const struct nvme_sq *sq = &worker->nvme->sqs[id];
        drained = !sq->moving || sq->in_flight - sq->resting == sq->remote.afloat;
    }
    return drained;
}

static void remap_sq(struct nvme_sq *sq)
{
    struct sdc_memory memory = nvme_sq_view(sq);

    sq->moving = false;
    sdc_remote_forget_cache(&sq->remote);
    sdc_nvme_sq_remap(&sq->ring, &memory);
    nvme_share_sq(sq);
    nvme_start_poller(sq);
    if (sq->ring.awake && sq->cq->ring.awake)
        sdc_remote_unpark(&sq->remote);
    nvme_look(sq);
}

static void take_map(struct nvme_worker *worker, struct sdc_map *map)
{
    struct nvme *nvme = worker->nvme;

    if (!worker->use) {
        sdc_map_unref(map); // no queue is here, or the last one has gone meanwhile
    } else if (nvme_worker_use(worker, map) < 0) {
        nvme_fatal(nvme, "no memory");
    } else {
        for (int id = -1; (id = nvme_bit_next(worker->cqs, id + 1)) >= 0;) {
            struct nvme_cq *cq = &nvme->cqs[id];
            struct sdc_memory memory = nvme_cq_view(cq);
            sdc_nvme_cq_remap(&cq->ring, &memory);
            nvme_share_cq(cq);
        }
        for (int id = -1; (id = nvme_bit_next(worker->sqs, id + 1)) >= 0;)
            remap_sq(&nvme->sqs[id]);
        for (int id = -1; (id = nvme_bit_next(worker->cqs, id + 1)) >= 0;)
            nvme_post_waiting(&nvme->cqs[id]);
    }
}

static void remap(struct nvme_worker *worker)
{
    worker->remapping = false;
    take_map(worker, worker->remap_order.map);
    nvme_order_obeyed(&worker->remap_order);
}

void nvme_run_remap(struct nvme_order *order)
{
    struct nvme_worker *worker = order->worker;

    nvme_worker_flush(worker); // what was posted in this turn is not shown yet, and its queue may be gone after it
    worker->remapping = look_who_moves(worker, order->map) && !moving_drained(worker);
    if (worker->remapping)
        worker->draining++;
    else
        remap(worker);
}

void nvme_run_recall(struct nvme_order *order)
{
    struct nvme_worker *worker = order->worker;
    bool waited = worker->remapping;

    nvme_worker_flush(worker);
    worker->remapping = false;
    take_map(worker, order->map);
    if (waited) {
        worker->draining--;
        sdc_map_unref(worker->remap_order.map);
        nvme_order_obeyed(&worker->remap_order);
    }
    nvme_order_obeyed(order);
}

void nvme_look_at_drains(struct nvme_worker *worker)
{
    for (int id = -1; (id = nvme_bit_next(worker->sqs, id + 1)) >= 0;) {
        struct nvme_sq *sq = &worker->nvme->sqs[id];
        if (!sq->stopping || !sq_has_left(sq))
            continue;
        worker->draining--;
        nvme_run_delete_sq(&sq->order);
    }
    if (worker->remapping && moving_drained(worker)) {
        worker->draining--;
        remap(worker);
    }
    if (worker->stopping && all_drained(worker)) {
        worker->draining--;
        stop(worker);
    }
}

// --- orders ---

static void run_order(struct sdc_post *post)
{
    struct nvme_order *order = sdc_container(post, struct nvme_order, post);

    order->run(order);
}

static void run_obeyed(struct sdc_post *post)
{
    struct nvme_order *order = sdc_container(post, struct nvme_order, post);

    order->obeyed(order);
}

void nvme_order_send(struct nvme_order *order, struct nvme_worker *worker)
{
    order->worker = worker;
    order->result = 0;
    order->post.run = run_order;
    sdc_loop_post(worker->loop, &order->post);
}

void nvme_order_obeyed(struct nvme_order *order)
{
    order->post.run = run_obeyed;
    sdc_loop_post(order->worker->nvme->home, &order->post);
}
