// SPDX-License-Identifier: BSD-3-Clause
// A worker's turn: submission queues are looked at, a batch of commands is taken and run, what they ask of the backends goes down as one;
// what has ended is posted, and each completion queue interrupts once, at the end of the turn.
#include "base/check.h"
#include "base/line.h"
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
    struct nvme_command *slab = aligned_alloc(SDC_LINE, SLAB * sizeof *slab);
    if (!slab)
        return NULL;
    memset(slab, 0, SLAB * sizeof *slab);
    slabs[worker->slabs_count++] = slab;
    for (unsigned i = 0; i < SLAB; i++) {
        sdc_payload_init(&slab[i].data.payload);
        slab[i].remote.payload = &slab[i].data.payload;
        slab[i].next = worker->free;
        worker->free = &slab[i];
    }
    return worker->free;
}

void nvme_free_commands(struct nvme_worker *worker)
{
    for (struct nvme_command *command = worker->free; command; command = command->next)
        sdc_payload_destroy(&command->data.payload);
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
    if (sq->id != 0)
        nvme_count_begin(&sq->worker->counters, sdc_loop_now(sq->worker->loop));
}

void nvme_release(struct nvme_command *command)
{
    struct nvme_sq *sq = command->sq;

    give_memory_up(command);
    nvme_ns_put(command);
    sdc_payload_trim(&command->data.payload);
    if (sq->spans > SDC_LIMIT_QUEUE_SPANS)
        nvme_look(sq); // perhaps they are few enough now
    sq->spans -= command->spans;
    command->spans = 0;
    *(command->older ? &command->older->newer : &sq->oldest) = command->newer;
    *(command->newer ? &command->newer->older : &sq->newest) = command->older;
    sq->in_flight--;
    if (sq->id != 0)
        nvme_count_end(&sq->worker->counters, sdc_loop_now(sq->worker->loop));
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

    // Before the driver can see it: who checks the driver's doorbell, or asks for the level of INTx, goes by this. What a doorbell answers
    // was posted with a release store behind this one; for the level there is a barrier in nvme_worker_flush.
    atomic_store_explicit(&cq->shown, cq->ring.tail + 1 == cq->ring.size ? 0 : cq->ring.tail + 1, memory_order_relaxed);
    nvme_log_posting(cq, command);
    if (sdc_nvme_cq_post(&cq->ring, &completion) < 0)
        nvme_fatal(worker->nvme, "a completion queue cannot be written");
    nvme_log_posted(cq, command);
    cq->untold++;
    nvme_bit_set(worker->fresh, cq->id);
    nvme_release(command);
}

static bool look_for_room(struct nvme_cq *cq)
{
    int room = sdc_nvme_cq_look(&cq->ring);

    if (room < 0 && !cq->misled)
        nvme_misled(cq->worker);
    cq->misled = room < 0;
    return room > 0;
}

// How the driver is to tell of what it takes while there is room: not at all, but where the level of INTx depends on it.
void nvme_listen(struct nvme_cq *cq)
{
    struct nvme *nvme = cq->nvme;
    bool level = cq->interrupts && cq->ring.doorbell.shadowed && !nvme->msix_enabled;
    uint32_t head;

    atomic_store_explicit(&cq->starved, level, memory_order_seq_cst);
    if (!level) {
        sdc_nvme_cq_suppress(&cq->ring);
        return;
    }
    // The register shows what has been seen. At most until the driver has taken all that was posted.
    do {
        head = cq->ring.head;
        atomic_store_explicit(&nvme->doorbells[2 * cq->id + 1], head, memory_order_seq_cst);
        sdc_nvme_cq_rearm(&cq->ring);
        look_for_room(cq);
    } while (cq->ring.head != head);
}

bool nvme_has_room(struct nvme_cq *cq)
{
    if (sdc_nvme_cq_room(&cq->ring) > 0)
        return true;
    if (!look_for_room(cq)) {
        // Pair [starved] with the doorbell in pci.c: either we see what the driver has taken, or it sees that we wait for it.
        atomic_store_explicit(&cq->starved, true, memory_order_seq_cst);
        atomic_thread_fence(memory_order_seq_cst);
        sdc_nvme_cq_rearm(&cq->ring);
        if (!look_for_room(cq))
            return false;
    }
    nvme_listen(cq);
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

void nvme_finish(struct nvme_command *command)
{
    struct nvme_sq *sq = command->sq;
    struct nvme_cq *cq = sq->cq;

    if (command->then) {
        command->then(command);
        return;
    }
    // Before the driver sees the first of this turn's.
    if (nvme_bit_add(sq->worker->stirred, sq->id))
        sdc_poller_stir(&sq->poller);
    give_memory_up(command);
    if (!sq->worker->leaving)
        nvme_log_end(command);
    if (!command->ended) // by another process, which counted it
        nvme_account(command, command->status);
    nvme_ns_put(command);
    // A controller that was disabled posts nothing any more (base 3.1.3.5): what ends late is thrown away with what waits.
    if (sq->worker->stopping || cq->waiting || !cq->ring.awake || !nvme_has_room(cq))
        wait_for_room(cq, command);
    else
        post(cq, command);
    sdc_loop_defer(sq->worker->loop, &sq->worker->flush);
}

// It is at work again, or has ended.
static void rest_no_more(struct nvme_command *command)
{
    if (command->state == NVME_COMMAND_IDLE || command->state == NVME_COMMAND_FETCHING)
        command->sq->resting--;
    command->state = NVME_COMMAND_RUNNING;
}

void nvme_complete(struct nvme_command *command, uint16_t status, uint32_t dw0)
{
    rest_no_more(command);
    command->status = status;
    command->dw0 = dw0;
    if (command->remote.queue)
        nvme_unbounce(command);
    else
        nvme_finish(command);
}

void nvme_post_waiting(struct nvme_cq *cq)
{
    struct nvme_worker *worker = cq->worker;

    look_for_room(cq);
    nvme_listen(cq);
    while (cq->waiting && !worker->stopping && cq->ring.awake && nvme_has_room(cq)) {
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
            nvme_look(&worker->nvme->sqs[id]);
    }
}

// --- taking ---

void nvme_look(struct nvme_sq *sq)
{
    nvme_bit_set(sq->worker->look, sq->id);
    sdc_loop_defer(sq->worker->loop, &sq->worker->work);
}

static void rest(struct nvme_command *command, enum nvme_command_state state)
{
    give_memory_up(command);
    nvme_ns_put(command);
    command->state = state;
    command->sq->resting++;
}

// The handler misses something of remote memory. It runs again when that is here, or with another map of memory.
static int fetch(struct nvme_command *command)
{
    struct nvme_sq *sq = command->sq;
    int rc = nvme_fetch(sq, &sq->worker->memory);

    if (rc < 0)
        return SDC_NVME_SC_DATA_TRANSFER;
    rest(command, NVME_COMMAND_FETCHING);
    sq->fetching = command;
    return NVME_PENDING;
}

static void run(struct nvme_command *command)
{
    struct nvme_sq *sq = command->sq;
    struct nvme_worker *worker = sq->worker;

    command->use = worker->use;
    command->use->in_flight++;
    worker->memory.cache = sq->ring.memory.cache;
    int rc = sq->id == 0 ? nvme_admin_run(command) : nvme_io_run(command);
    if (rc == -EAGAIN)
        rc = fetch(command);
    else
        sdc_read_cache_clear(&sq->remote.cache);
    if (rc == NVME_HELD)
        rest(command, NVME_COMMAND_IDLE);
    else if (rc != NVME_PENDING)
        nvme_complete(command, rc < 0 ? SDC_NVME_SC_DATA_TRANSFER : (uint16_t)rc, command->dw0);
}

static struct nvme_command *begin(struct nvme_sq *sq, struct nvme_command *command)
{
    sq->worker->free = command->next;
    command->sq = sq;
    command->then = NULL;
    command->state = NVME_COMMAND_RUNNING;
    command->ns = NULL;
    command->remote.queue = NULL; // set by who bounces it
    link_command(sq, command);
    return command;
}

static struct nvme_command *free_command(struct nvme_worker *worker)
{
    return worker->free ? worker->free : grow(worker);
}

struct nvme_command *nvme_own_command(struct nvme_sq *sq, void (*then)(struct nvme_command *command))
{
    struct nvme_command *command = free_command(sq->worker);

    if (command) {
        begin(sq, command)->then = then;
        command->dw0 = 0;
        memset(command->sqe, 0, sizeof command->sqe);
    }
    return command;
}

// Takes the next entry. 1, 0 (there is none), or a negative errno.
static int take_one(struct nvme_sq *sq)
{
    struct nvme_command *command = free_command(sq->worker);
    if (!command)
        return -ENOMEM;
    command->dw0 = 0;
    command->ended = false;
    int rc = sdc_nvme_sq_take(&sq->ring, command->sqe);
    if (rc == -EAGAIN && (rc = nvme_fetch(sq, &sq->ring.memory)) == 0)
        return 0; // we are brought here again
    sdc_read_cache_clear(&sq->remote.cache);
    if (rc != 1)
        return rc;

    begin(sq, command);
    nvme_log_take(command);
    run(command);
    return 1;
}

// Goes on with what another process had taken. True: there is more, which has to wait.
static bool run_again(struct nvme_sq *sq)
{
    while (sq->again_next < sq->again_count) {
        struct nvme_command *command = nvme_may_run(sq) ? free_command(sq->worker) : NULL;
        if (!command)
            return true;
        if (!nvme_log_again(sq, command))
            continue;
        begin(sq, command);
        if (command->ended)
            nvme_finish(command);
        else
            run(command);
    }
    return false;
}

// What waited for messages goes on. True: nothing may be taken before more of them come.
static bool go_on(struct nvme_sq *sq)
{
    struct sdc_remote_request *remote;

    while ((remote = sdc_remote_arrived(&sq->remote)) != NULL)
        nvme_data_arrived(sdc_container(remote, struct nvme_command, remote));
    if (sq->fetching && !sq->remote.fetching) {
        struct nvme_command *command = sq->fetching;
        sq->fetching = NULL;
        rest_no_more(command);
        run(command);
    }
    return sq->remote.fetching || sq->remote.starved;
}

// Takes what there is, up to a turn's share. How many, with *more: come again.
static unsigned take_some(struct nvme_sq *sq, bool *more)
{
    unsigned taken = 0;

    while (nvme_may_take(sq) && taken < SDC_LIMIT_TURN) {
        int rc = take_one(sq);
        *more = rc == -ENOMEM;
        if (rc < 0 && rc != -ENOMEM)
            nvme_fatal(sq->nvme, "a submission queue cannot be read");
        if (rc != 1)
            return taken;
        taken++;
    }
    *more = taken == SDC_LIMIT_TURN;
    return taken;
}

static void work(struct nvme_sq *sq)
{
    bool more = false;

    // Admin commands are about queues that have begun.
    if (sq->id == 0 && sq->nvme->resuming > 0)
        return;
    if (!sq->ring.awake || go_on(sq) || !nvme_cq_settle(sq->cq) || run_again(sq) || !nvme_may_take(sq))
        return; // what ends that brings us here again
    if (nvme_available(sq) > 0 && take_some(sq, &more) > 0)
        sdc_poller_worked(&sq->poller);
    sdc_nvme_sq_suppress(&sq->ring);
    if (more)
        nvme_kick_sq(sq->worker, sq->id); // in the next turn, after others had theirs
    else if (nvme_may_take(sq))
        sdc_poller_rest(&sq->poller);
}

static void run_work(struct sdc_deferred *deferred)
{
    struct nvme_worker *worker = sdc_container(deferred, struct nvme_worker, work);

    if (worker->stopping || worker->remapping || nvme_failed(worker->nvme))
        return;
    for (int id = -1; (id = nvme_bit_next(worker->look, id + 1)) >= 0;) {
        nvme_bit_clear(worker->look, (unsigned)id);
        work(&worker->nvme->sqs[id]);
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
        nvme_post_waiting(&worker->nvme->cqs[id]);
    sdc_loop_defer(worker->loop, &worker->work);
}

// --- the end of a turn ---

void nvme_worker_flush(struct nvme_worker *worker)
{
    // Pair [level]: what was shown is stored before the driver's doorbells are looked at; the home loop stores a doorbell, then looks at
    // what was shown. One of the two sees the other, and with it the level of INTx.
    atomic_thread_fence(memory_order_seq_cst);
    for (int id = -1; (id = nvme_bit_next(worker->fresh, id + 1)) >= 0;) {
        nvme_bit_clear(worker->fresh, (unsigned)id);
        nvme_interrupt(&worker->nvme->cqs[id]);
    }
}

static void run_flush(struct sdc_deferred *deferred)
{
    struct nvme_worker *worker = sdc_container(deferred, struct nvme_worker, flush);

    memset(worker->stirred, 0, sizeof worker->stirred);
    nvme_worker_flush(worker);
    if (worker->draining > 0)
        nvme_look_at_drains(worker);
}

// --- life ---

int nvme_worker_open(struct nvme_worker *worker, struct nvme *nvme, struct sdc_loop *loop)
{
    worker->nvme = nvme;
    worker->loop = loop;
    worker->kick_post.run = run_kick;
    worker->work.run = run_work;
    worker->flush.run = run_flush;
    worker->known = calloc(NVME_NAMESPACES_MAX, sizeof(struct nvme_namespace *));
    worker->namespaces = calloc(NVME_NAMESPACES_MAX, sizeof(struct nvme_ns_queue *));
    if (worker->known && worker->namespaces)
        return 0;
    nvme_worker_close(worker);
    return -ENOMEM;
}

void nvme_worker_close(struct nvme_worker *worker)
{
    free(worker->known);
    free(worker->namespaces);
}
