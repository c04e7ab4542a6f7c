// SPDX-License-Identifier: BSD-3-Clause
// A loop's timers: a binary heap, the earliest deadline on top. Each timer knows its place in it.
#include "loop/engine.h"

#include "base/log.h"
#include "os/clock.h"

#include <errno.h>
#include <stdlib.h>

static void put(struct sdc_loop *loop, uint32_t at, struct sdc_timer *timer)
{
    loop->timers[at] = timer;
    timer->place = at + 1;
}

static uint32_t sift_up(struct sdc_loop *loop, uint32_t at)
{
    struct sdc_timer *timer = loop->timers[at];
    while (at > 0) {
        uint32_t parent = (at - 1) / 2;
        if (loop->timers[parent]->deadline_ns <= timer->deadline_ns)
            break;
        put(loop, at, loop->timers[parent]);
        at = parent;
    }
    put(loop, at, timer);
    return at;
}

static void sift_down(struct sdc_loop *loop, uint32_t at)
{
    struct sdc_timer *timer = loop->timers[at];
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= loop->timers_count)
            break;
        if (child + 1 < loop->timers_count &&
            loop->timers[child + 1]->deadline_ns < loop->timers[child]->deadline_ns)
            child++;
        if (timer->deadline_ns <= loop->timers[child]->deadline_ns)
            break;
        put(loop, at, loop->timers[child]);
        at = child;
    }
    put(loop, at, timer);
}

static int make_room(struct sdc_loop *loop)
{
    if (loop->timers_count < loop->timers_capacity)
        return 0;
    uint32_t capacity = loop->timers_capacity ? 2 * loop->timers_capacity : 16;
    struct sdc_timer **timers = realloc(loop->timers, capacity * sizeof *timers);
    if (!timers)
        return -ENOMEM;
    loop->timers = timers;
    loop->timers_capacity = capacity;
    return 0;
}

int sdc_loop_timer_set(struct sdc_loop *loop, struct sdc_timer *timer, uint64_t after_ns)
{
    if (timer->place == 0) {
        if (sdc_loop_is_anothers(loop))
            sdc_bug("sdc_loop_timer_set in another thread than the loop's: hand it over with sdc_loop_post");
        int ret = make_room(loop);
        if (ret < 0)
            return ret;
        put(loop, loop->timers_count++, timer);
    }
    // From this moment, not from the turn's start: a timer set late in a long turn must not be early.
    uint64_t now = sdc_clock_ns();
    timer->deadline_ns = after_ns < SDC_LOOP_FOREVER - 1 - now ? now + after_ns : SDC_LOOP_FOREVER - 1;
    sift_down(loop, sift_up(loop, timer->place - 1));
    sdc_loop_stir(loop);
    return 0;
}

void sdc_loop_timer_clear(struct sdc_loop *loop, struct sdc_timer *timer)
{
    if (timer->place == 0)
        return;
    uint32_t at = timer->place - 1;
    timer->place = 0;
    struct sdc_timer *last = loop->timers[--loop->timers_count];
    if (last == timer)
        return;
    put(loop, at, last);
    sift_down(loop, sift_up(loop, at));
}

uint64_t sdc_loop_next_deadline(const struct sdc_loop *loop)
{
    return loop->timers_count > 0 ? loop->timers[0]->deadline_ns : SDC_LOOP_FOREVER;
}

void sdc_loop_run_timers(struct sdc_loop *loop)
{
    while (loop->timers_count > 0 && loop->timers[0]->deadline_ns <= loop->now_ns) {
        struct sdc_timer *timer = loop->timers[0];
        sdc_loop_timer_clear(loop, timer);
        timer->expired(timer);
    }
}
