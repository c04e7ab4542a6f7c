// SPDX-License-Identifier: BSD-3-Clause
// Loops: posts, deferred functions, timers.
#include "loop_fixture.h"

#include "os/clock.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

// --- posts ---

enum { POSTERS = 4, POSTS = 5000 };

struct numbered {
    struct sdc_post post;
    struct poster *poster;
    unsigned number;
};

struct poster {
    pthread_t thread;
    struct counting *counting;
    unsigned expected;
    struct numbered posts[POSTS];
};

struct counting {
    struct sdc_loop *loop;
    unsigned left;
    struct poster posters[POSTERS];
};

static void count_post(struct sdc_post *post)
{
    struct numbered *numbered = sdc_container(post, struct numbered, post);
    struct counting *counting = numbered->poster->counting;
    assert_true(sdc_loop_is_mine(counting->loop));
    assert_int_equal(numbered->number, numbered->poster->expected++);
    if (--counting->left == 0)
        sdc_loop_stop(counting->loop);
}

static void *post_all(void *context)
{
    struct poster *poster = context;
    for (unsigned i = 0; i < POSTS; i++) {
        poster->posts[i] = (struct numbered){{NULL, count_post}, poster, i};
        sdc_loop_post(poster->counting->loop, &poster->posts[i].post);
        if (i % 64 == 0)
            nanosleep(&(struct timespec){0, 20000}, NULL); // lets the loop fall asleep now and then
    }
    return NULL;
}

static void posts_of_each_thread_run_in_their_order(void **state)
{
    (void)state;
    struct counting *counting = calloc(1, sizeof *counting);
    counting->loop = new_loop();
    counting->left = POSTERS * POSTS;
    for (unsigned i = 0; i < POSTERS; i++) {
        counting->posters[i].counting = counting;
        pthread_create(&counting->posters[i].thread, NULL, post_all, &counting->posters[i]);
    }
    run(counting->loop);
    for (unsigned i = 0; i < POSTERS; i++) {
        pthread_join(counting->posters[i].thread, NULL);
        assert_int_equal(counting->posters[i].expected, POSTS);
    }
    sdc_loop_free(counting->loop);
    free(counting);
}

struct ping {
    struct sdc_post post;
    struct sdc_loop *loop, *other;
    struct ping *partner;
    unsigned left;
};

static void pong(struct sdc_post *post)
{
    struct ping *ping = sdc_container(post, struct ping, post);
    if (ping->left == 0) {
        sdc_loop_stop(ping->other);
        sdc_loop_stop(ping->loop);
        return;
    }
    ping->partner->left = ping->left - 1;
    sdc_loop_post(ping->other, &ping->partner->post);
}

static void *run_thread(void *loop)
{
    sdc_loop_run(loop);
    return NULL;
}

static void no_post_is_slept_over(void **state)
{
    (void)state;
    struct ping a = {.post.run = pong, .loop = new_loop(), .left = 20000};
    struct ping b = {.post.run = pong, .loop = new_loop()};
    a.other = b.loop;
    b.other = a.loop;
    a.partner = &b;
    b.partner = &a;
    pthread_t thread;
    sdc_loop_post(a.loop, &a.post); // made here, run there
    pthread_create(&thread, NULL, run_thread, a.loop);
    run(b.loop);
    pthread_join(thread, NULL);
    sdc_loop_free(a.loop);
    sdc_loop_free(b.loop);
}

static void posts_before_the_stop_run(void **state)
{
    (void)state;
    struct counting *counting = calloc(1, sizeof *counting);
    struct poster *poster = &counting->posters[0];
    counting->loop = new_loop();
    counting->left = POSTS + 1; // never reached: the stop is ours
    poster->counting = counting;
    post_all(poster);
    sdc_loop_stop(counting->loop);
    run(counting->loop);
    assert_int_equal(poster->expected, POSTS);
    sdc_loop_free(counting->loop);
    free(counting);
}

// --- deferred ---

struct trace {
    struct sdc_loop *loop;
    struct sdc_post post;
    struct sdc_deferred first, second, third;
    char text[16];
    size_t length;
};

static void run_first(struct sdc_deferred *deferred)
{
    struct trace *trace = sdc_container(deferred, struct trace, first);
    trace->text[trace->length++] = '1';
    sdc_loop_defer(trace->loop, &trace->third);
}

static void run_second(struct sdc_deferred *deferred)
{
    struct trace *trace = sdc_container(deferred, struct trace, second);
    trace->text[trace->length++] = '2';
    sdc_loop_stop(trace->loop);
}

static void run_third(struct sdc_deferred *deferred)
{
    struct trace *trace = sdc_container(deferred, struct trace, third);
    trace->text[trace->length++] = '3';
}

static void defer_some(struct sdc_post *post)
{
    struct trace *trace = sdc_container(post, struct trace, post);
    sdc_loop_defer(trace->loop, &trace->third);
    sdc_loop_defer(trace->loop, &trace->first);
    sdc_loop_defer(trace->loop, &trace->first);
    sdc_loop_undefer(trace->loop, &trace->third);
    sdc_loop_undefer(trace->loop, &trace->third);
    sdc_loop_defer(trace->loop, &trace->second);
    trace->text[trace->length++] = 'p';
}

static void deferred_functions_run_once_at_the_end_of_the_turn(void **state)
{
    (void)state;
    struct trace trace = {.loop = new_loop(),
                          .post.run = defer_some,
                          .first.run = run_first,
                          .second.run = run_second,
                          .third.run = run_third};
    sdc_loop_post(trace.loop, &trace.post);
    run(trace.loop);
    assert_string_equal(trace.text, "p123");
    sdc_loop_free(trace.loop);
}

// --- timers ---

enum { TIMERS = 200 };

struct timed {
    struct sdc_timer timer;
    struct timing *timing;
    bool expired, cleared;
};

struct timing {
    struct sdc_loop *loop;
    uint64_t last_deadline;
    unsigned left;
    struct timed timers[TIMERS];
};

static void timer_expired(struct sdc_timer *timer)
{
    struct timed *timed = sdc_container(timer, struct timed, timer);
    struct timing *timing = timed->timing;
    assert_false(timed->expired);
    assert_false(timed->cleared);
    assert_int_equal(timer->place, 0);
    timed->expired = true;
    assert_true(timer->deadline_ns >= timing->last_deadline);
    assert_true(sdc_clock_ns() >= timer->deadline_ns);
    timing->last_deadline = timer->deadline_ns;
    if (--timing->left == 0)
        sdc_loop_stop(timing->loop);
}

static void set_and_clear_timers(struct timing *timing, unsigned *seed)
{
    for (unsigned i = 0; i < TIMERS; i++) {
        struct timed *timed = &timing->timers[i];
        *timed = (struct timed){.timing = timing, .timer.expired = timer_expired};
        assert_int_equal(sdc_loop_timer_set(timing->loop, &timed->timer, (uint64_t)rand_r(seed) % (4 * MS)),
                         0);
    }
    for (unsigned i = 0; i < TIMERS; i++) { // some are cleared, some are moved
        struct timed *timed = &timing->timers[i];
        unsigned dice = (unsigned)rand_r(seed) % 4;
        timed->cleared = dice == 0;
        if (dice == 0)
            sdc_loop_timer_clear(timing->loop, &timed->timer);
        else if (dice == 1)
            sdc_loop_timer_set(timing->loop, &timed->timer, (uint64_t)rand_r(seed) % (4 * MS));
        timing->left += !timed->cleared;
    }
}

static void timers_expire_in_the_order_of_their_deadlines(void **state)
{
    (void)state;
    struct timing *timing = calloc(1, sizeof *timing);
    unsigned seed = 7;
    timing->loop = new_loop();
    for (int round = 0; round < 40; round++) {
        set_and_clear_timers(timing, &seed);
        timing->last_deadline = 0;
        if (round % 2)
            usleep(5000); // all of them expire in one turn
        run(timing->loop);
        for (unsigned i = 0; i < TIMERS; i++)
            assert_int_equal(timing->timers[i].expired, !timing->timers[i].cleared);
    }
    sdc_loop_free(timing->loop);
    free(timing);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(posts_of_each_thread_run_in_their_order),
        cmocka_unit_test(no_post_is_slept_over),
        cmocka_unit_test(posts_before_the_stop_run),
        cmocka_unit_test(deferred_functions_run_once_at_the_end_of_the_turn),
        cmocka_unit_test(timers_expire_in_the_order_of_their_deadlines),
    };
    RUN_WITH_EVERY_LOOP(tests);
}
