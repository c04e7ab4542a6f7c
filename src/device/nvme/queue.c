// SPDX-License-Identifier: BSD-3-Clause
// A worker's turn: submission queues are looked at, a batch of commands is taken and run, what they ask of the backends goes down as one;
// what has ended is posted, and each completion queue interrupts once, at the end of the turn.
#include "base/check.h"
#include "base/limits.h"
#include "device/nvme/bits.h"
#include "device/nvme/controller.h"

#include <errno.h>
#include <stdlib.h>

enum { SLAB = 16 }; // commands that are made at a time, as the driver comes to need them

// --- commands ---

static struct nvme_command *grow(struct nvme_worker *worker)
{
    void **slabs = realloc(worker->slabs, (worker->slabs_count + 1) * sizeof *slabs);
    if (!slabs)
        return NULL;
    worker->slabs = slabs;
    struct nvme_command *slab = calloc(SLAB, sizeof *slab);
    if (!slab)
        return NULL;
    slabs[worker->slabs_count++] = slab;
    for (unsigned i = 0; i < SLAB; i++) {
        slab[i].next = worker->free;
        worker->free = &slab[i];
    }
    return worker->free;
}

static void free_commands(struct nvme_worker *worker)
{
    for (uint32_t i = 0; i < worker->slabs_count; i++)
        free(worker->slabs[i]);
    free(worker->slabs);
    worker->slabs = NULL;
    worker->slabs_count = 0;
    worker->free = NULL;
}

static void give_memory_up(struct nvme_command *command)
{
    if (command->use)
        sdc_map_use_put(command->use, command->sq->worker->use);
    command->use = NULL;
}

static void link_command(struct nvme_sq *sq, struct nvme_command *command)
{
    command->older = sq->newest;
    command->newer = NULL;
    *(sq->newest ? &sq->newest->newer : &sq->oldest) = command;
    sq->newest = command;
    sq->in_flight++;
}

// It is nowhere any more.
static void release(struct nvme_command *command)
{
    struct nvme_sq *sq = command->sq;

    give_memory_up(command);
    *(command->older ? &command->older->newer : &sq->oldest) = command->newer;
    *(command->newer ? &command->newer->older : &sq->newest) = command->older;
    sq->in_flight--;
    command->state = NVME_COMMAND_FREE;
    command->next = sq->worker->free;
    sq->worker->free = command;
}

// --- completions ---

static void post(struct nvme_cq *cq, struct nvme_command *command)
{
    struct nvme_worker *worker = cq->worker;
    struct nvme_sq *sq = command->sq;
    struct sdc_nvme_completion completion = {
        .dw0 = command->dw0,
        .sq_head = (uint16_t)sq->ring.head,
        .sq = sq->id,
        .cid = nvme_cid(command),
        .status = command->status,
    };

    // Before the driver can see it: who checks the driver's doorbell, or asks for the level of INTx, goes by this.
    atomic_store_explicit(&cq->shown, (cq->ring.tail + 1) % cq->ring.size, memory_order_seq_cst);
    if (sdc_nvme_cq_post(&cq->ring, &completion) < 0)
        nvme_fatal(worker->nvme, "a completion queue cannot be written");
    nvme_bit_set(worker->fresh, cq->id);
    release(command);
}

static bool look_for_room(struct nvme_cq *cq)
{
    return sdc_nvme_cq_look(&cq->ring) > 0;
}

// Whether there is room in cq. If not, we are kicked when there is.
static bool has_room(struct nvme_cq *cq)
{
    if (sdc_nvme_cq_room(&cq->ring) > 0 || look_for_room(cq))
        return true;
    // Pair [starved] with the doorbell in pci.c: either we see what the driver has taken, or it sees that we wait for it.
    atomic_store_explicit(&cq->starved, true, memory_order_seq_cst);
    atomic_thread_fence(memory_order_seq_cst);
    if (!look_for_room(cq))
        return false;
    atomic_store_explicit(&cq->starved, false, memory_order_relaxed);
    return true;
}

static void wait_for_room(struct nvme_cq *cq, struct nvme_command *command)
{
    if (!cq->waiting)
        cq->waiting_end = &cq->waiting;
    command->state = NVME_COMMAND_WAITING;
    command->next = NULL;
    command->sq->resting++;
    *cq->waiting_end = command;
    cq->waiting_end = &command->next;
}

void nvme_complete(struct nvme_command *command, uint16_t status, uint32_t dw0)
{
    struct nvme_sq *sq = command->sq;
    struct nvme_cq *cq = sq->cq;

    command->status = status;
    command->dw0 = dw0;
    if (command->state == NVME_COMMAND_IDLE)
        sq->resting--;
    give_memory_up(command);
    if (cq->waiting || !cq->ring.awake || !has_room(cq))
        wait_for_room(cq, command);
    else
        post(cq, command);
    sdc_loop_defer(sq->worker->loop, &sq->worker->flush);
}

// The driver has taken something, or the queue's memory is back.
static void post_waiting(struct nvme_cq *cq)
{
    struct nvme_worker *worker = cq->worker;

    atomic_store_explicit(&cq->starved, false, memory_order_relaxed);
    while (cq->waiting && cq->ring.awake && has_room(cq)) {
        struct nvme_command *command = cq->waiting;
        cq->waiting = command->next;
        command->sq->resting--;
        post(cq, command);
    }
    sdc_loop_defer(worker->loop, &worker->flush);
    if (cq->waiting)
        return;
    for (int id = -1; (id = nvme_bit_next(worker->sqs, id + 1)) >= 0;) {
        if (worker->nvme->sqs[id].cq == cq)
            nvme_bit_set(worker->look, (unsigned)id);
    }
    sdc_loop_defer(worker->loop, &worker->work);
}

// --- taking ---

static void run(struct nvme_command *command)
{
    struct nvme_sq *sq = command->sq;
    int rc = sq->id == 0 ? nvme_admin_run(command) : nvme_io_run(command);

    if (rc == NVME_PENDING)
        return;
    if (rc == NVME_HELD) {
        give_memory_up(command);
        command->state = NVME_COMMAND_IDLE;
        sq->resting++;
        return;
    }
    if (rc < 0)
        rc = SDC_NVME_SC_DATA_TRANSFER;
    nvme_complete(command, (uint16_t)rc, command->dw0);
}

// Takes the next entry. 1, 0 (there is none), or a negative errno.
static int take_one(struct nvme_sq *sq)
{
    struct nvme_worker *worker = sq->worker;
    struct nvme_command *command = worker->free ? worker->free : grow(worker);
    if (!command)
        return -ENOMEM;
    int rc = sdc_nvme_sq_take(&sq->ring, command->sqe);
    if (rc != 1)
        return rc;

    worker->free = command->next;
    command->sq = sq;
    command->state = NVME_COMMAND_RUNNING;
    command->dw0 = 0;
    command->ns = NULL;
    command->data.spans_count = 0;
    command->use = worker->use;
    command->use->in_flight++;
    link_command(sq, command);
    run(command);
    return 1;
}

// Takes what there is, up to a turn's share. True: come again.
static bool take_some(struct nvme_sq *sq)
{
    int rc = 1;

    if (sq->stopping || !sq->ring.awake)
        return false;
    if (sdc_nvme_sq_look(&sq->ring) < 0)
        return false;
    for (unsigned budget = SDC_LIMIT_TURN; budget > 0; budget--) {
        if (sq->cq->waiting)
            return false; // post_waiting brings us here again
        rc = take_one(sq);
        if (rc == -ENOMEM)
            return true;
        if (rc < 0)
            nvme_fatal(sq->nvme, "a submission queue cannot be read");
        if (rc != 1)
            return false;
    }
    return true;
}

static void run_work(struct sdc_deferred *deferred)
{
    struct nvme_worker *worker = sdc_container(deferred, struct nvme_worker, work);

    if (worker->stopping || worker->remapping || nvme_failed(worker->nvme))
        return;
    for (int id = -1; (id = nvme_bit_next(worker->look, id + 1)) >= 0;) {
        nvme_bit_clear(worker->look, (unsigned)id);
        if (take_some(&worker->nvme->sqs[id]))
            nvme_kick_sq(worker, (uint16_t)id); // in the next turn, after others had theirs
    }
    nvme_submit_batch(worker);
}

// --- kicks ---

static void kick(struct nvme_worker *worker, _Atomic uint64_t *words, uint16_t id)
{
    atomic_fetch_or_explicit(&words[id / 64], UINT64_C(1) << (id % 64), memory_order_seq_cst);
    if (!atomic_exchange_explicit(&worker->kicked, true, memory_order_seq_cst))
        sdc_loop_post(worker->loop, &worker->kick_post);
}

void nvme_kick_sq(struct nvme_worker *worker, uint16_t id)
{
    kick(worker, worker->sq_kicks, id);
}

void nvme_kick_cq(struct nvme_worker *worker, uint16_t id)
{
    kick(worker, worker->cq_kicks, id);
}

static void run_kick(struct sdc_post *post)
{
    struct nvme_worker *worker = sdc_container(post, struct nvme_worker, kick_post);
    uint64_t emptied[NVME_KICK_WORDS];

    // Cleared before anything is looked at: a kick from now on posts again.
    atomic_store_explicit(&worker->kicked, false, memory_order_seq_cst);
    for (unsigned i = 0; i < NVME_KICK_WORDS; i++) {
        worker->look[i] |= atomic_exchange_explicit(&worker->sq_kicks[i], 0, memory_order_seq_cst) & worker->sqs[i];
        emptied[i] = atomic_exchange_explicit(&worker->cq_kicks[i], 0, memory_order_seq_cst) & worker->cqs[i];
    }
    for (int id = -1; (id = nvme_bit_next(emptied, id + 1)) >= 0;)
        post_waiting(&worker->nvme->cqs[id]);
    sdc_loop_defer(worker->loop, &worker->work);
}

// --- the life of queues ---

static void view(struct nvme_worker *worker, struct sdc_memory *memory)
{
    *memory = (struct sdc_memory){.map = worker->use->map};
}

int nvme_cq_start(struct nvme_cq *cq)
{
    struct nvme_worker *worker = cq->worker;
    struct sdc_memory memory;

    view(worker, &memory);
    int rc = sdc_nvme_cq_start(&cq->ring, cq->iova, cq->size, &worker->nvme->doorbells[2 * cq->id + 1], &memory);
    if (rc < 0)
        return rc;
    cq->waiting = NULL;
    cq->running = true;
    nvme_bit_set(worker->cqs, cq->id);
    return 0;
}

int nvme_sq_start(struct nvme_sq *sq)
{
    struct nvme_worker *worker = sq->worker;
    struct sdc_memory memory;

    view(worker, &memory);
    int rc = sdc_nvme_sq_start(&sq->ring, sq->iova, sq->size, &worker->nvme->doorbells[2 * sq->id], &memory);
    if (rc == 0 && sq->id != 0 && worker->io_queues == 0)
        rc = nvme_namespaces_open(worker);
    if (rc < 0)
        return rc;
    worker->io_queues += sq->id != 0;
    sq->oldest = sq->newest = NULL;
    sq->in_flight = sq->resting = 0;
    sq->stopping = false;
    sq->running = true;
    nvme_bit_set(worker->sqs, sq->id);
    return 0;
}

int nvme_worker_use(struct nvme_worker *worker, struct sdc_map *map)
{
    int rc = sdc_map_use_switch(&worker->use, map);

    if (rc == 0)
        view(worker, &worker->memory);
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

    cq->running = false;
    nvme_bit_clear(worker->cqs, cq->id);
    nvme_bit_clear(worker->fresh, cq->id);
    if (nvme_bit_next(worker->cqs, 0) < 0) {
        sdc_map_use_end(&worker->use);
        free_commands(worker);
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

    forget_waiting(sq->cq, sq);
    while (sq->oldest)
        release(sq->oldest);
    sq->running = sq->stopping = false;
    nvme_bit_clear(worker->sqs, sq->id);
    nvme_bit_clear(worker->look, sq->id);
    if (sq->id != 0 && --worker->io_queues == 0)
        nvme_namespaces_close(worker);
}

static bool sq_has_drained(const struct nvme_sq *sq)
{
    return sq->in_flight == sq->resting;
}

void nvme_run_delete_sq(struct nvme_order *order)
{
    struct nvme_sq *sq = sdc_container(order, struct nvme_sq, order);

    if (!sq_has_drained(sq)) {
        sq->stopping = true;
        sq->worker->draining++;
        return;
    }
    struct nvme_cq *cq = sq->cq;
    end_sq(sq);
    if (!cq->waiting)
        post_waiting(cq); // queues that stood still for this one's
    nvme_order_obeyed(order);
}

// --- orders to a worker as a whole ---

static bool worker_has_drained(struct nvme_worker *worker)
{
    bool drained = true;

    for (int id = -1; drained && (id = nvme_bit_next(worker->sqs, id + 1)) >= 0;)
        drained = sq_has_drained(&worker->nvme->sqs[id]);
    return drained;
}

static void stop(struct nvme_worker *worker)
{
    struct nvme *nvme = worker->nvme;

    worker->stopping = false;
    for (int id = -1; (id = nvme_bit_next(worker->sqs, id + 1)) >= 0;)
        end_sq(&nvme->sqs[id]);
    for (int id = -1; (id = nvme_bit_next(worker->cqs, id + 1)) >= 0;)
        nvme->cqs[id].running = false;
    memset(worker->cqs, 0, sizeof worker->cqs);
    memset(worker->fresh, 0, sizeof worker->fresh);
    sdc_loop_undefer(worker->loop, &worker->work);
    sdc_loop_undefer(worker->loop, &worker->flush);
    sdc_map_use_end(&worker->use);
    free_commands(worker);
    nvme_order_obeyed(&worker->stop_order);
}

static void flush(struct nvme_worker *worker);

void nvme_run_stop(struct nvme_order *order)
{
    struct nvme_worker *worker = order->worker;

    flush(worker);
    worker->stopping = true;
    worker->draining++;
    nvme_namespaces_cancel(worker);
    sdc_loop_defer(worker->loop, &worker->flush);
}

static bool all_stay(struct nvme_worker *worker, const struct sdc_map *map)
{
    bool stays = true;

    for (int id = -1; stays && (id = nvme_bit_next(worker->sqs, id + 1)) >= 0;)
        stays = sdc_nvme_sq_stays(&worker->nvme->sqs[id].ring, map);
    for (int id = -1; stays && (id = nvme_bit_next(worker->cqs, id + 1)) >= 0;)
        stays = sdc_nvme_cq_stays(&worker->nvme->cqs[id].ring, map);
    return stays;
}

static void remap(struct nvme_worker *worker)
{
    struct nvme *nvme = worker->nvme;
    struct sdc_memory memory;

    worker->remapping = false;
    if (!worker->use) {
        sdc_map_unref(worker->remap_order.map); // the last queue has gone meanwhile
    } else if (nvme_worker_use(worker, worker->remap_order.map) < 0) {
        nvme_fatal(nvme, "no memory");
    } else {
        view(worker, &memory);
        for (int id = -1; (id = nvme_bit_next(worker->sqs, id + 1)) >= 0;)
            sdc_nvme_sq_remap(&nvme->sqs[id].ring, &memory);
        for (int id = -1; (id = nvme_bit_next(worker->cqs, id + 1)) >= 0;) {
            sdc_nvme_cq_remap(&nvme->cqs[id].ring, &memory);
            post_waiting(&nvme->cqs[id]); // and looks at all that complete to it
        }
    }
    nvme_order_obeyed(&worker->remap_order);
}

void nvme_run_remap(struct nvme_order *order)
{
    struct nvme_worker *worker = order->worker;

    if (!worker->use || all_stay(worker, order->map) || worker_has_drained(worker)) {
        remap(worker);
    } else {
        // The memory of a queue goes away or moves: what is in flight ends in it as it is.
        worker->remapping = true;
        worker->draining++;
    }
}

// Obeys the orders that wait for something which has come true.
static void look_at_drains(struct nvme_worker *worker)
{
    for (int id = -1; (id = nvme_bit_next(worker->sqs, id + 1)) >= 0;) {
        struct nvme_sq *sq = &worker->nvme->sqs[id];
        if (!sq->stopping || !sq_has_drained(sq))
            continue;
        worker->draining--;
        nvme_run_delete_sq(&sq->order);
    }
    if (!worker_has_drained(worker))
        return;
    if (worker->remapping) {
        worker->draining--;
        remap(worker);
    }
    if (worker->stopping) {
        worker->draining--;
        stop(worker);
    }
}

static void flush(struct nvme_worker *worker)
{
    for (int id = -1; (id = nvme_bit_next(worker->fresh, id + 1)) >= 0;) {
        nvme_bit_clear(worker->fresh, (unsigned)id);
        nvme_interrupt(&worker->nvme->cqs[id]);
    }
}

static void run_flush(struct sdc_deferred *deferred)
{
    struct nvme_worker *worker = sdc_container(deferred, struct nvme_worker, flush);

    flush(worker);
    if (worker->draining > 0)
        look_at_drains(worker);
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

// --- life ---

int nvme_worker_open(struct nvme_worker *worker, struct nvme *nvme, struct sdc_loop *loop)
{
    worker->nvme = nvme;
    worker->loop = loop;
    worker->kick_post.run = run_kick;
    worker->work.run = run_work;
    worker->flush.run = run_flush;
    worker->namespaces = calloc(NVME_NAMESPACES_MAX, sizeof(struct nvme_ns_queue *));
    return worker->namespaces ? 0 : -ENOMEM;
}

void nvme_worker_close(struct nvme_worker *worker)
{
    free(worker->namespaces);
}
