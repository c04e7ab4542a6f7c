// SPDX-License-Identifier: BSD-3-Clause
// The loop's turn, posts and deferred functions.
#include "loop/engine.h"

#include "base/log.h"
#include "os/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local struct sdc_loop *current; // the loop that this thread runs
static _Thread_local char self;                // its address is the thread's own

int sdc_loop_new(enum sdc_loop_kind kind, struct sdc_loop **loop, struct sdc_error *err)
{
    int ret = sdc_loop_engine_new(kind == SDC_LOOP_EPOLL ? &sdc_loop_epoll : &sdc_loop_uring, loop, err);
    if (kind != SDC_LOOP_AUTO || !sdc_loop_is_refusal(ret))
        return ret;
    sdc_log(SDC_LOG_INFO, "io_uring is not permitted here (%s); using epoll, with threads for file I/O",
            strerror(-ret));
    return sdc_loop_engine_new(&sdc_loop_epoll, loop, err);
}

int sdc_loop_engine_new(const struct sdc_loop_engine *engine, struct sdc_loop **loop, struct sdc_error *err)
{
    struct sdc_loop *made = calloc(1, sizeof *made);
    if (!made)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "out of memory for a loop");
    made->ops = engine;
    made->deferred_end = &made->deferred;
    made->now_ns = sdc_clock_ns();
    int ret = engine->open(made, err);
    if (ret < 0) {
        free(made);
        return ret;
    }
    *loop = made;
    return 0;
}

void sdc_loop_free(struct sdc_loop *loop)
{
    if (!loop)
        return;
    sdc_loop_outside_free(loop);
    loop->ops->close(loop);
    free(loop->timers);
    free(loop->files);
    free(loop);
}

enum sdc_loop_kind sdc_loop_kind(const struct sdc_loop *loop)
{
    return loop->ops->kind;
}

bool sdc_loop_is_mine(const struct sdc_loop *loop)
{
    return current == loop || !atomic_load_explicit(&loop->running, memory_order_acquire);
}

bool sdc_loop_is_anothers(const struct sdc_loop *loop)
{
    return atomic_load_explicit(&loop->running, memory_order_acquire) &&
           atomic_load_explicit(&loop->owner, memory_order_relaxed) != &self;
}

bool sdc_loop_inside(void)
{
    return current != NULL;
}

uint64_t sdc_loop_now(const struct sdc_loop *loop)
{
    return loop->now_ns;
}

// --- posts ---

// Pair [wake]: the poster pushes, then looks at sleeping; the owner sets sleeping, then looks at the posts.
// Both are sequentially consistent, so that one of the two sees the other's write and no post is slept over.
static void wake_if_asleep(struct sdc_loop *loop)
{
    if (atomic_load(&loop->sleeping) && atomic_exchange(&loop->sleeping, false))
        loop->ops->wake(loop);
}

void sdc_loop_stir(struct sdc_loop *loop)
{
    if (loop->outside && current != loop)
        wake_if_asleep(loop);
}

void sdc_loop_post(struct sdc_loop *loop, struct sdc_post *post)
{
    struct sdc_post *newest = atomic_load_explicit(&loop->posts, memory_order_relaxed);
    do
        post->next = newest;
    while (!atomic_compare_exchange_weak(&loop->posts, &newest, post));
    // The owner may run and free the post from here on.
    wake_if_asleep(loop);
}

void sdc_loop_stop(struct sdc_loop *loop)
{
    atomic_store(&loop->stopping, true);
    wake_if_asleep(loop);
}

static void run_posts(struct sdc_loop *loop)
{
    if (!atomic_load_explicit(&loop->posts, memory_order_relaxed))
        return; // without writing to the line that posters write to
    struct sdc_post *newest = atomic_exchange(&loop->posts, NULL);
    struct sdc_post *oldest = NULL;
    while (newest) {
        struct sdc_post *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest) {
        struct sdc_post *post = oldest;
        oldest = post->next;
        post->run(post);
    }
}

// --- deferred ---

void sdc_loop_defer(struct sdc_loop *loop, struct sdc_deferred *deferred)
{
    if (deferred->queued)
        return;
    deferred->queued = true;
    deferred->next = NULL;
    *loop->deferred_end = deferred;
    loop->deferred_end = &deferred->next;
    sdc_loop_stir(loop);
}

void sdc_loop_undefer(struct sdc_loop *loop, struct sdc_deferred *deferred)
{
    if (!deferred->queued)
        return;
    struct sdc_deferred **link = &loop->deferred;
    while (*link != deferred)
        link = &(*link)->next;
    *link = deferred->next;
    if (loop->deferred_end == &deferred->next)
        loop->deferred_end = link;
    deferred->queued = false;
}

static void run_deferred(struct sdc_loop *loop)
{
    while (loop->deferred) {
        struct sdc_deferred *deferred = loop->deferred;
        sdc_loop_undefer(loop, deferred);
        deferred->run(deferred);
    }
}

// --- the turn ---

static bool must_not_sleep(struct sdc_loop *loop)
{
    return atomic_load(&loop->posts) || atomic_load(&loop->stopping);
}

static uint64_t time_to_sleep(struct sdc_loop *loop)
{
    uint64_t deadline = sdc_loop_next_deadline(loop);
    if (deadline == SDC_LOOP_FOREVER)
        return SDC_LOOP_FOREVER;
    uint64_t now = sdc_clock_ns();
    return deadline > now ? deadline - now : 0;
}

static void sleep_for_events(struct sdc_loop *loop)
{
    uint64_t timeout_ns = must_not_sleep(loop) ? 0 : time_to_sleep(loop);
    if (timeout_ns > 0) {
        atomic_store(&loop->sleeping, true); // pair [wake]
        if (must_not_sleep(loop))
            timeout_ns = 0;
    }
    loop->ops->wait(loop, timeout_ns);
    atomic_store(&loop->sleeping, false);
}

// A loop with an open poller does not sleep, so nobody wakes it: its posts are looked at in each turn. What the kernel has for it is
// the engine's affair, which sees that without entering the kernel, or enters it now and then.
static void wait_for_events(struct sdc_loop *loop)
{
    if (loop->pollers)
        loop->ops->wait(loop, 0);
    else
        sleep_for_events(loop);
    loop->now_ns = sdc_clock_ns();
}

// Between two looks that find nothing: leaves the core's units to its other thread.
static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

static void run_what_is_due(struct sdc_loop *loop)
{
    sdc_loop_run_timers(loop);
    run_posts(loop);
    if (loop->pollers && !sdc_loop_look_around(loop) && !loop->deferred)
        relax();
    run_deferred(loop);
}

void sdc_loop_turn(struct sdc_loop *loop)
{
    struct sdc_loop *outer = current;
    current = loop;
    loop->now_ns = sdc_clock_ns();
    loop->ops->dispatch(loop);
    run_what_is_due(loop);
    current = outer;
}

// One turn of the loop that this thread runs, without sleeping. True: it was the last.
static bool finish_turn(struct sdc_loop *loop)
{
    // Read first: what was posted before the stop is then among the posts that run.
    bool stopping = atomic_load(&loop->stopping);

    run_what_is_due(loop);
    return stopping;
}

void sdc_loop_enter(struct sdc_loop *loop)
{
    if (current)
        sdc_bug("a loop is run inside a loop");
    current = loop;
    if (!loop->started) {
        if (atomic_exchange(&loop->running, true))
            sdc_bug("a loop is run by two threads");
        atomic_store_explicit(&loop->owner, &self, memory_order_relaxed);
        loop->ops->start(loop);
        loop->started = true;
    }
    loop->now_ns = sdc_clock_ns();
}

void sdc_loop_leave(struct sdc_loop *loop)
{
    (void)loop;
    current = NULL;
}

void sdc_loop_leave_for_good(struct sdc_loop *loop)
{
    loop->ops->finish(loop);
    loop->started = false;
    atomic_store(&loop->stopping, false);
    current = NULL;
    atomic_store_explicit(&loop->running, false, memory_order_release);
}

bool sdc_loop_take_turn(struct sdc_loop *loop)
{
    loop->ops->wait(loop, 0);
    loop->now_ns = sdc_clock_ns();
    loop->ops->dispatch(loop);
    return finish_turn(loop);
}

void sdc_loop_run(struct sdc_loop *loop)
{
    sdc_loop_enter(loop);
    while (!finish_turn(loop)) {
        wait_for_events(loop);
        loop->ops->dispatch(loop);
    }
    sdc_loop_leave_for_good(loop);
}

// --- what the engine does ---

int sdc_loop_watch(struct sdc_loop *loop, struct sdc_watch *watch)
{
    if (sdc_loop_is_anothers(loop))
        sdc_bug("sdc_loop_watch in another thread than the loop's: hand it over with sdc_loop_post");
    sdc_loop_stir(loop);
    return loop->ops->watch(loop, watch);
}

void sdc_loop_rewatch(struct sdc_loop *loop, struct sdc_watch *watch, uint32_t wanted)
{
    if (watch->wanted == wanted)
        return;
    watch->wanted = wanted;
    loop->ops->rewatch(loop, watch);
    sdc_loop_stir(loop);
}

void sdc_loop_unwatch(struct sdc_loop *loop, struct sdc_watch *watch)
{
    if (watch->armed)
        loop->ops->unwatch(loop, watch);
}

bool sdc_loop_takes_buffers(const struct sdc_loop *loop)
{
    return loop->ops->buffer_add != NULL;
}

void sdc_loop_buffer_add(struct sdc_loop *loop, struct sdc_loop_buffer *buffer)
{
    loop->ops->buffer_add(loop, buffer);
}

void sdc_loop_buffer_remove(struct sdc_loop *loop, struct sdc_loop_buffer *buffer)
{
    loop->ops->buffer_remove(loop, buffer);
}

int sdc_loop_send(struct sdc_loop *loop, struct sdc_send *send, const void *bytes, size_t size)
{
    return loop->ops->send ? loop->ops->send(loop, send, bytes, size) : 0;
}

void sdc_loop_unsend(struct sdc_loop *loop, struct sdc_send *send)
{
    if (loop->ops->unsend)
        loop->ops->unsend(loop, send);
}
