// SPDX-License-Identifier: BSD-3-Clause
// Loops that take turns when the simulation says: the product's loop.c over an engine without a kernel, with a clock of its own.
// In the middle of a turn, wherever the product hands something over or looks at shared memory, somebody else may run.
#include "loop/engine.h"
#include "sim.h"

#include "memory/map.h"
#include "ring/nvme_cq.h"
#include "ring/nvme_sq.h"
#include "ring/ring.h"

#include <stdlib.h>

enum { WATCHES = 4 };

struct place {
    struct sdc_loop *loop;
    struct sdc_watch *watches[WATCHES];
    bool in_turn;
};

static struct place places[SIM_LOOPS];
static unsigned opening; // the place whose engine is being opened
static unsigned stack[SIM_LOOPS + 1]; // who is in a turn, the innermost last
static uint64_t begun[SIM_LOOPS + 1];
static unsigned depth;
static uint64_t turns; // that have begun

static struct place *place_of(struct sdc_loop *loop)
{
    return loop->engine;
}

// --- the engine ---

static int engine_open(struct sdc_loop *loop, struct sdc_error *err)
{
    (void)err;
    loop->engine = &places[opening];
    return 0;
}

static void engine_nothing(struct sdc_loop *loop)
{
    (void)loop;
}

static void engine_wait(struct sdc_loop *loop, uint64_t timeout_ns)
{
    (void)loop, (void)timeout_ns;
    sim_fail("a loop sleeps");
}

static uint32_t ready(const struct sdc_watch *watch)
{
    return sim_socket_ready() & (watch->wanted | SDC_HANGUP);
}

static void engine_dispatch(struct sdc_loop *loop)
{
    struct place *place = place_of(loop);

    for (unsigned i = 0; i < WATCHES; i++) {
        struct sdc_watch *watch = place->watches[i];
        if (watch && ready(watch))
            watch->ready(watch, ready(watch));
    }
    sim_disk_dispatch(loop);
}

static int engine_watch(struct sdc_loop *loop, struct sdc_watch *watch)
{
    struct place *place = place_of(loop);

    for (unsigned i = 0; i < WATCHES; i++) {
        if (!place->watches[i]) {
            place->watches[i] = watch;
            watch->armed = &place->watches[i];
            return 0;
        }
    }
    sim_fail("too many watches");
}

static void engine_rewatch(struct sdc_loop *loop, struct sdc_watch *watch)
{
    (void)loop, (void)watch;
}

static void engine_unwatch(struct sdc_loop *loop, struct sdc_watch *watch)
{
    (void)loop;
    *(struct sdc_watch **)watch->armed = NULL;
    watch->armed = NULL;
}

static void engine_file_add(struct sdc_loop *loop, int file)
{
    (void)loop, (void)file;
    sim_fail("a file is added to a loop");
}

static void engine_file_remove(struct sdc_loop *loop, int file)
{
    (void)loop, (void)file;
}

static void engine_io(struct sdc_loop *loop, struct sdc_io *io)
{
    (void)loop, (void)io;
    sim_fail("file I/O on a loop");
}

static const struct sdc_loop_engine engine = {
    .kind = SDC_LOOP_EPOLL,
    .open = engine_open,
    .close = engine_nothing,
    .start = engine_nothing,
    .finish = engine_nothing,
    .wait = engine_wait,
    .dispatch = engine_dispatch,
    .wake = engine_nothing,
    .watch = engine_watch,
    .rewatch = engine_rewatch,
    .unwatch = engine_unwatch,
    .file_add = engine_file_add,
    .file_remove = engine_file_remove,
    .io = engine_io,
};

// --- turns ---

void sim_loops_open(void)
{
    depth = 0;
    turns = 0;
    for (opening = 0; opening < plan.loops; opening++) {
        places[opening] = (struct place){0};
        if (sdc_loop_engine_new(&engine, &places[opening].loop, NULL) < 0)
            abort();
    }
}

void sim_loops_close(void)
{
    for (unsigned i = 0; i < plan.loops; i++) {
        struct place *place = &places[i];
        if (atomic_load(&place->loop->posts) || place->loop->deferred || place->loop->timers_count > 0 || place->loop->pollers)
            sim_fail("loop %u has work, a timer or a poller left at the end", i);
        sdc_loop_free(place->loop);
        place->loop = NULL;
    }
}

struct sdc_loop *sim_loop(unsigned index)
{
    return places[index].loop;
}

bool sim_loop_in_turn(unsigned index)
{
    return places[index].in_turn;
}

bool sim_loop_can_run(unsigned index)
{
    struct place *place = &places[index];

    if (place->in_turn)
        return false;
    if (atomic_load(&place->loop->posts) || place->loop->deferred || sdc_loop_next_deadline(place->loop) <= sim_now() ||
        sim_disk_has_finished(place->loop))
        return true;
    for (unsigned i = 0; i < WATCHES; i++) {
        if (place->watches[i] && ready(place->watches[i]))
            return true;
    }
    return false;
}

bool sim_loop_polls(unsigned index)
{
    return !places[index].in_turn && places[index].loop->pollers;
}

static void enter(unsigned index)
{
    stack[depth] = index;
    begun[depth++] = ++turns;
    places[index].in_turn = true;
}

static void leave(void)
{
    places[stack[--depth]].in_turn = false;
}

void sim_loop_run(unsigned index)
{
    EVENT("turn of loop %llu", index);
    enter(index);
    sdc_loop_turn(places[index].loop);
    leave();
}

bool sim_loop_is_running(const struct sdc_loop *loop)
{
    return depth > 0 && places[stack[depth - 1]].loop == loop;
}

uint64_t sim_loops_deadline(void)
{
    uint64_t earliest = UINT64_MAX;

    for (unsigned i = 0; i < plan.loops; i++) {
        uint64_t deadline = sdc_loop_next_deadline(places[i].loop);
        earliest = deadline < earliest ? deadline : earliest;
    }
    return earliest;
}

uint64_t sim_turns(void)
{
    return turns;
}

uint64_t sim_turn_begun(void)
{
    return depth > 0 ? begun[depth - 1] : 0;
}

void sim_home_enter(void)
{
    if (places[0].in_turn)
        sim_fail("the home loop is busy");
    enter(0);
}

void sim_home_leave(void)
{
    leave();
}

// --- the clock, and places where somebody else may run ---

uint64_t __wrap_sdc_clock_ns(void);
uint64_t __wrap_sdc_clock_ns(void)
{
    return sim_now();
}

void __real_sdc_loop_post(struct sdc_loop *loop, struct sdc_post *post);
void __wrap_sdc_loop_post(struct sdc_loop *loop, struct sdc_post *post);
void __wrap_sdc_loop_post(struct sdc_loop *loop, struct sdc_post *post)
{
    sim_preempt();
    __real_sdc_loop_post(loop, post);
    sim_preempt();
}

// Which of the deferred functions runs first is nobody's business: now and then the first becomes the last.
void __real_sdc_loop_defer(struct sdc_loop *loop, struct sdc_deferred *deferred);
void __wrap_sdc_loop_defer(struct sdc_loop *loop, struct sdc_deferred *deferred);
void __wrap_sdc_loop_defer(struct sdc_loop *loop, struct sdc_deferred *deferred)
{
    __real_sdc_loop_defer(loop, deferred);
    struct sdc_deferred *first = loop->deferred;
    if (first && first->next && sim_chance(1, 4)) {
        sdc_loop_undefer(loop, first);
        __real_sdc_loop_defer(loop, first);
    }
}

int __real_sdc_memory_read(struct sdc_memory *memory, uint64_t iova, void *local, size_t size);
int __wrap_sdc_memory_read(struct sdc_memory *memory, uint64_t iova, void *local, size_t size);
int __wrap_sdc_memory_read(struct sdc_memory *memory, uint64_t iova, void *local, size_t size)
{
    sim_preempt();
    return __real_sdc_memory_read(memory, iova, local, size);
}

int __real_sdc_memory_write(struct sdc_memory *memory, uint64_t iova, const void *local, size_t size);
int __wrap_sdc_memory_write(struct sdc_memory *memory, uint64_t iova, const void *local, size_t size);
int __wrap_sdc_memory_write(struct sdc_memory *memory, uint64_t iova, const void *local, size_t size)
{
    int rc = __real_sdc_memory_write(memory, iova, local, size);
    sim_preempt();
    return rc;
}

int __real_sdc_ring_take(struct sdc_ring *ring, struct sdc_chain *chain);
int __wrap_sdc_ring_take(struct sdc_ring *ring, struct sdc_chain *chain);
int __wrap_sdc_ring_take(struct sdc_ring *ring, struct sdc_chain *chain)
{
    sim_preempt();
    return __real_sdc_ring_take(ring, chain);
}

bool __real_sdc_ring_publish(struct sdc_ring *ring);
bool __wrap_sdc_ring_publish(struct sdc_ring *ring);
bool __wrap_sdc_ring_publish(struct sdc_ring *ring)
{
    sim_preempt();
    return __real_sdc_ring_publish(ring);
}

bool __real_sdc_ring_look(struct sdc_ring *ring);
bool __wrap_sdc_ring_look(struct sdc_ring *ring);
bool __wrap_sdc_ring_look(struct sdc_ring *ring)
{
    bool there = __real_sdc_ring_look(ring);
    sim_preempt();
    return there;
}

void __real_sdc_ring_suppress(struct sdc_ring *ring);
void __wrap_sdc_ring_suppress(struct sdc_ring *ring);
void __wrap_sdc_ring_suppress(struct sdc_ring *ring)
{
    __real_sdc_ring_suppress(ring);
    sim_preempt();
}

bool __real_sdc_ring_rearm(struct sdc_ring *ring);
bool __wrap_sdc_ring_rearm(struct sdc_ring *ring);
bool __wrap_sdc_ring_rearm(struct sdc_ring *ring)
{
    sim_preempt();
    bool more = __real_sdc_ring_rearm(ring);
    sim_preempt();
    return more;
}

// --- the same of NVMe's queues ---

int __real_sdc_nvme_sq_look(struct sdc_nvme_sq *sq);
int __wrap_sdc_nvme_sq_look(struct sdc_nvme_sq *sq);
int __wrap_sdc_nvme_sq_look(struct sdc_nvme_sq *sq)
{
    int found = __real_sdc_nvme_sq_look(sq);
    sim_preempt();
    return found;
}

int __real_sdc_nvme_sq_take(struct sdc_nvme_sq *sq, uint8_t entry[SDC_NVME_SQE]);
int __wrap_sdc_nvme_sq_take(struct sdc_nvme_sq *sq, uint8_t entry[SDC_NVME_SQE]);
int __wrap_sdc_nvme_sq_take(struct sdc_nvme_sq *sq, uint8_t entry[SDC_NVME_SQE])
{
    sim_preempt();
    return __real_sdc_nvme_sq_take(sq, entry);
}

int __real_sdc_nvme_cq_look(struct sdc_nvme_cq *cq);
int __wrap_sdc_nvme_cq_look(struct sdc_nvme_cq *cq);
int __wrap_sdc_nvme_cq_look(struct sdc_nvme_cq *cq)
{
    int room = __real_sdc_nvme_cq_look(cq);
    sim_preempt();
    return room;
}

int __real_sdc_nvme_cq_post(struct sdc_nvme_cq *cq, const struct sdc_nvme_completion *completion);
int __wrap_sdc_nvme_cq_post(struct sdc_nvme_cq *cq, const struct sdc_nvme_completion *completion);
int __wrap_sdc_nvme_cq_post(struct sdc_nvme_cq *cq, const struct sdc_nvme_completion *completion)
{
    int rc = __real_sdc_nvme_cq_post(cq, completion);
    sim_preempt();
    return rc;
}
