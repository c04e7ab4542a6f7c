// SPDX-License-Identifier: BSD-3-Clause
// Loops: posts, deferred functions, timers, watches, file I/O, and how they get along.
#include "base/check.h"
#include "loop/loop.h"
#include "loop_kinds.h"
#include "os/clock.h"
#include "os/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define MS UINT64_C(1000000)

static struct sdc_loop *new_loop(void)
{
    struct sdc_loop *loop;
    struct sdc_error err = {0};
    if (sdc_loop_new(loop_kind, &loop, &err) < 0)
        fail_msg("%s", err.text);
    return loop;
}

// Ends a run that would otherwise hang, and makes the test fail.
struct watchdog {
    struct sdc_timer timer;
    struct sdc_loop *loop;
    bool bit;
};

static void bite(struct sdc_timer *timer)
{
    struct watchdog *dog = sdc_container(timer, struct watchdog, timer);
    dog->bit = true;
    sdc_loop_stop(dog->loop);
}

static void run(struct sdc_loop *loop)
{
    struct watchdog dog = {.timer.expired = bite, .loop = loop};
    assert_int_equal(sdc_loop_timer_set(loop, &dog.timer, 20000 * MS), 0);
    sdc_loop_run(loop);
    assert_false(dog.bit);
    sdc_loop_timer_clear(loop, &dog.timer);
}

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

// --- watches ---

struct watched {
    struct sdc_watch watch;
    struct sdc_loop *loop;
    struct sdc_timer timer;
    struct watched *victim;
    unsigned calls;
    uint32_t events;
    int peer;
};

static void third_call_reads(struct sdc_watch *watch, uint32_t events)
{
    struct watched *watched = sdc_container(watch, struct watched, watch);
    assert_int_equal(events, SDC_READABLE);
    if (++watched->calls == 3) {
        assert_int_equal(sdc_eventfd_take(watch->fd), 1);
        sdc_loop_stop(watched->loop);
    }
}

static void watches_are_level_triggered(void **state)
{
    (void)state;
    struct watched w = {
        .loop = new_loop(),
        .watch = {.fd = sdc_eventfd_new(), .wanted = SDC_READABLE, .ready = third_call_reads}};
    assert_int_equal(sdc_loop_watch(w.loop, &w.watch), 0);
    sdc_eventfd_signal(w.watch.fd);
    run(w.loop);
    assert_int_equal(w.calls, 3);
    sdc_loop_unwatch(w.loop, &w.watch);
    sdc_loop_unwatch(w.loop, &w.watch);
    sdc_loop_free(w.loop);
    close(w.watch.fd);
}

static void unwatch_all(struct sdc_watch *watch, uint32_t events)
{
    (void)events;
    struct watched *watched = sdc_container(watch, struct watched, watch);
    watched->calls++;
    // Both fds are ready in this turn; the one that is called first ends both, and the numbers are free at
    // once.
    sdc_loop_unwatch(watched->loop, &watched->victim->watch);
    sdc_loop_unwatch(watched->loop, &watched->watch);
    sdc_fd_close(&watched->victim->watch.fd);
    sdc_fd_close(&watched->watch.fd);
}

static void stop_timer(struct sdc_timer *timer)
{
    sdc_loop_stop(sdc_container(timer, struct watched, timer)->loop);
}

static void an_unwatched_fd_is_not_called_even_in_the_same_turn(void **state)
{
    (void)state;
    struct watched w[2];
    struct sdc_loop *loop = new_loop();
    for (int i = 0; i < 2; i++) {
        w[i] = (struct watched){
            .loop = loop,
            .victim = &w[1 - i],
            .timer.expired = stop_timer,
            .watch = {.fd = sdc_eventfd_new(), .wanted = SDC_READABLE, .ready = unwatch_all}};
        assert_int_equal(sdc_loop_watch(loop, &w[i].watch), 0);
        sdc_eventfd_signal(w[i].watch.fd);
    }
    sdc_loop_timer_set(loop, &w[0].timer, 20 * MS);
    run(loop);
    assert_int_equal(w[0].calls + w[1].calls, 1);
    sdc_loop_free(loop);
}

static void note_hangup(struct sdc_watch *watch, uint32_t events)
{
    struct watched *watched = sdc_container(watch, struct watched, watch);
    watched->calls++;
    watched->events |= events;
    if (events & SDC_HANGUP)
        sdc_loop_stop(watched->loop);
    else
        sdc_fd_close(&watched->peer);
}

static void a_hangup_is_told_to_a_watch_that_waits_for_something_else(void **state)
{
    (void)state;
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    struct watched w = {.loop = new_loop(),
                        .peer = pair[1],
                        .watch = {.fd = pair[0], .wanted = SDC_WRITABLE, .ready = note_hangup}};
    assert_int_equal(sdc_loop_watch(w.loop, &w.watch), 0);
    run(w.loop);
    assert_int_equal(w.calls, 2);
    assert_int_equal(w.events, SDC_WRITABLE | SDC_HANGUP);
    sdc_loop_unwatch(w.loop, &w.watch);
    sdc_loop_free(w.loop);
    close(pair[0]);
}

static void pause_then_resume(struct sdc_timer *timer)
{
    struct watched *watched = sdc_container(timer, struct watched, timer);
    assert_int_equal(watched->calls, 1);
    sdc_loop_rewatch(watched->loop, &watched->watch, SDC_READABLE);
}

static void pause_at_first(struct sdc_watch *watch, uint32_t events)
{
    struct watched *watched = sdc_container(watch, struct watched, watch);
    assert_int_equal(events, SDC_READABLE);
    if (++watched->calls == 1) {
        sdc_loop_rewatch(watched->loop, watch, 0);
        sdc_loop_timer_set(watched->loop, &watched->timer, 20 * MS);
    } else {
        sdc_loop_stop(watched->loop);
    }
}

static void a_paused_watch_is_not_called_until_resumed(void **state)
{
    (void)state;
    struct watched w = {.loop = new_loop(),
                        .timer.expired = pause_then_resume,
                        .watch = {.fd = sdc_eventfd_new(), .wanted = SDC_READABLE, .ready = pause_at_first}};
    assert_int_equal(sdc_loop_watch(w.loop, &w.watch), 0);
    sdc_eventfd_signal(w.watch.fd);
    run(w.loop);
    assert_int_equal(w.calls, 2);
    sdc_loop_unwatch(w.loop, &w.watch);
    sdc_loop_free(w.loop);
    close(w.watch.fd);
}

static void widen(struct sdc_timer *timer)
{
    struct watched *watched = sdc_container(timer, struct watched, timer);
    sdc_loop_rewatch(watched->loop, &watched->watch, SDC_READABLE | SDC_WRITABLE);
}

static void note_and_stop(struct sdc_watch *watch, uint32_t events)
{
    struct watched *watched = sdc_container(watch, struct watched, watch);
    watched->calls++;
    watched->events = events;
    sdc_loop_stop(watched->loop);
}

static void a_watch_can_be_widened_while_it_waits(void **state)
{
    (void)state;
    struct watched w = {.loop = new_loop(),
                        .timer.expired = widen,
                        .watch = {.fd = sdc_eventfd_new(), .wanted = SDC_READABLE, .ready = note_and_stop}};
    assert_int_equal(sdc_loop_watch(w.loop, &w.watch), 0);
    sdc_loop_timer_set(w.loop, &w.timer, 10 * MS);
    run(w.loop);
    assert_int_equal(w.calls, 1);
    assert_int_equal(w.events, SDC_WRITABLE);
    sdc_loop_unwatch(w.loop, &w.watch);
    sdc_loop_free(w.loop);
    close(w.watch.fd);
}

static void pause_and_hang_up(struct sdc_timer *timer)
{
    struct watched *watched = sdc_container(timer, struct watched, timer);
    sdc_loop_rewatch(watched->loop, &watched->watch, 0);
    sdc_fd_close(&watched->peer);
    timer->expired = stop_timer;
    sdc_loop_timer_set(watched->loop, timer, 10 * MS);
}

static void a_paused_watch_hears_of_no_hangup(void **state)
{
    (void)state;
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    struct watched w = {.loop = new_loop(),
                        .peer = pair[1],
                        .timer.expired = pause_and_hang_up,
                        .watch = {.fd = pair[0], .wanted = SDC_READABLE, .ready = note_and_stop}};
    assert_int_equal(sdc_loop_watch(w.loop, &w.watch), 0);
    sdc_loop_timer_set(w.loop, &w.timer, 5 * MS); // a poll is in the kernel by then
    run(w.loop);
    assert_int_equal(w.calls, 0);
    sdc_loop_rewatch(w.loop, &w.watch, SDC_READABLE);
    run(w.loop);
    assert_int_equal(w.calls, 1);
    assert_int_equal(w.events, SDC_READABLE | SDC_HANGUP);
    sdc_loop_unwatch(w.loop, &w.watch);
    sdc_loop_free(w.loop);
    close(pair[0]);
}

static void a_closed_socket_is_let_go_of(void **state)
{
    (void)state;
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    struct watched w = {.loop = new_loop(),
                        .timer.expired = stop_timer,
                        .watch = {.fd = pair[0], .wanted = SDC_READABLE, .ready = note_and_stop}};
    assert_int_equal(sdc_loop_watch(w.loop, &w.watch), 0);
    sdc_loop_timer_set(w.loop, &w.timer, 5 * MS);
    run(w.loop);
    // The loop has a poll on it by now. Unwatch and close: the other end must see it once the loop runs
    // again.
    sdc_loop_unwatch(w.loop, &w.watch);
    close(pair[0]);
    sdc_loop_timer_set(w.loop, &w.timer, 5 * MS);
    run(w.loop);
    char byte;
    assert_int_equal(recv(pair[1], &byte, 1, MSG_DONTWAIT), 0);
    sdc_loop_free(w.loop);
    close(pair[1]);
}

static int temporary_file(void)
{
    int fd = open("/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        fd = memfd_create("file", MFD_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static void pause_after_three(struct sdc_watch *watch, uint32_t events)
{
    struct watched *watched = sdc_container(watch, struct watched, watch);
    assert_int_equal(events, SDC_READABLE);
    if (++watched->calls == 3) {
        sdc_loop_rewatch(watched->loop, watch, 0);
        sdc_loop_timer_set(watched->loop, &watched->timer, 10 * MS);
    }
}

static void a_file_is_always_ready_until_it_is_paused_or_unwatched(void **state)
{
    (void)state;
    struct watched w = {.loop = new_loop(),
                        .timer.expired = stop_timer,
                        .watch = {.fd = temporary_file(), .wanted = SDC_READABLE, .ready = pause_after_three}};
    assert_int_equal(sdc_loop_watch(w.loop, &w.watch), 0);
    run(w.loop);
    assert_int_equal(w.calls, 3);
    w.watch.ready = note_and_stop;
    sdc_loop_rewatch(w.loop, &w.watch, SDC_READABLE | SDC_WRITABLE);
    run(w.loop);
    assert_int_equal(w.calls, 4);
    assert_int_equal(w.events, SDC_READABLE | SDC_WRITABLE);
    sdc_loop_unwatch(w.loop, &w.watch);
    sdc_loop_timer_set(w.loop, &w.timer, 10 * MS);
    run(w.loop);
    assert_int_equal(w.calls, 4);
    sdc_loop_free(w.loop);
    close(w.watch.fd);
}

static void a_number_that_is_no_fd_hangs_up(void **state)
{
    (void)state;
    struct watched w = {.loop = new_loop(),
                        .watch = {.fd = dup(0), .wanted = SDC_READABLE, .ready = note_and_stop}};
    close(w.watch.fd);
    assert_int_equal(sdc_loop_watch(w.loop, &w.watch), 0);
    run(w.loop);
    assert_int_equal(w.events, SDC_HANGUP);
    sdc_loop_unwatch(w.loop, &w.watch);
    sdc_loop_free(w.loop);
}

static void pause_when_called(struct sdc_watch *watch, uint32_t events)
{
    struct watched *watched = sdc_container(watch, struct watched, watch);
    watched->calls++;
    watched->events = events;
    sdc_loop_rewatch(watched->loop, watch, 0);
    if (watched->victim->calls > 0)
        sdc_loop_stop(watched->loop);
}

static void one_fd_can_be_watched_twice(void **state)
{
    (void)state;
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(send(pair[1], "x", 1, 0), 1);
    struct watched w[2];
    struct sdc_loop *loop = new_loop();
    for (int i = 0; i < 2; i++)
        w[i] = (struct watched){.loop = loop,
                                .victim = &w[1 - i],
                                .timer.expired = stop_timer,
                                .watch = {.fd = pair[0], .ready = pause_when_called}};
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 2; i++) {
            w[i].calls = 0;
            w[i].watch.wanted = i == 0 ? SDC_READABLE : SDC_WRITABLE;
            assert_int_equal(sdc_loop_watch(loop, &w[i].watch), 0);
        }
        run(loop);
        assert_int_equal(w[0].events, SDC_READABLE);
        assert_int_equal(w[1].events, SDC_WRITABLE);
        for (int i = 0; i < 2; i++)
            sdc_loop_unwatch(loop, &w[i].watch);
    }
    char byte; // without the byte in the way, the other end sees that the last reference is gone
    assert_int_equal(recv(pair[0], &byte, 1, MSG_DONTWAIT), 1);
    close(pair[0]);
    sdc_loop_timer_set(loop, &w[0].timer, 5 * MS);
    run(loop);
    assert_int_equal(recv(pair[1], &byte, 1, MSG_DONTWAIT), 0);
    sdc_loop_free(loop);
    close(pair[1]);
}

// --- file I/O ---

enum { IOS = 10000, IO_BYTES = 512 };

struct transfer {
    struct sdc_io io;
    struct transfers *all;
    struct sdc_span span;
};

struct transfers {
    struct sdc_loop *loop;
    struct sdc_post post;
    struct transfer *list;
    unsigned char *memory;
    unsigned left;
    int file;
    enum sdc_io_op op;
};

static void transfer_done(struct sdc_io *io)
{
    struct transfer *transfer = sdc_container(io, struct transfer, io);
    assert_int_equal(io->result, IO_BYTES);
    if (--transfer->all->left == 0)
        sdc_loop_stop(transfer->all->loop);
}

static void start_transfers(struct sdc_post *post)
{
    struct transfers *all = sdc_container(post, struct transfers, post);
    all->left = IOS;
    for (unsigned i = 0; i < IOS; i++) {
        struct transfer *transfer = &all->list[i];
        *transfer = (struct transfer){.all = all, .span = {all->memory + (size_t)i * IO_BYTES, IO_BYTES}};
        transfer->io = (struct sdc_io){.op = all->op,
                                       .file = all->file,
                                       .offset = (uint64_t)i * IO_BYTES,
                                       .spans = &transfer->span,
                                       .spans_count = 1,
                                       .done = transfer_done};
        sdc_loop_io(all->loop, &transfer->io);
    }
    assert_int_equal(all->left, IOS); // none was done inside
}

static void transfer_all(bool before_run)
{
    struct transfers all = {.loop = new_loop(), .post.run = start_transfers, .op = SDC_IO_WRITE};
    int fd = temporary_file();
    all.list = calloc(IOS, sizeof *all.list);
    all.memory = malloc((size_t)IOS * IO_BYTES);
    for (size_t i = 0; i < (size_t)IOS * IO_BYTES; i++)
        all.memory[i] = (unsigned char)(i * 31 + i / IO_BYTES);
    all.file = sdc_loop_file_add(all.loop, fd);
    assert_true(all.file >= 0);
    for (int round = 0; round < 2; round++) {
        if (before_run && round == 0)
            start_transfers(&all.post);
        else
            sdc_loop_post(all.loop, &all.post);
        run(all.loop);
        if (round == 0)
            memset(all.memory, 0, (size_t)IOS * IO_BYTES);
        all.op = SDC_IO_READ;
    }
    for (size_t i = 0; i < (size_t)IOS * IO_BYTES; i++)
        assert_int_equal(all.memory[i], (unsigned char)(i * 31 + i / IO_BYTES));
    sdc_loop_file_remove(all.loop, all.file);
    sdc_loop_free(all.loop);
    close(fd);
    free(all.list);
    free(all.memory);
}

static void more_io_than_the_rings_hold_is_done(void **state)
{
    (void)state;
    transfer_all(false);
}

static void io_asked_for_before_the_run_is_done(void **state)
{
    (void)state;
    transfer_all(true);
}

struct steps {
    struct sdc_loop *loop;
    struct sdc_io io;
    struct sdc_span spans[3];
    char text[3][4];
    int64_t results[6];
    unsigned step;
};

static void next_step(struct sdc_io *io)
{
    struct steps *steps = sdc_container(io, struct steps, io);
    steps->results[steps->step++] = io->result;
    switch (steps->step) {
    case 1:
        io->op = SDC_IO_FDATASYNC;
        break;
    case 2:
        io->op = SDC_IO_FALLOCATE;
        io->mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        io->offset = 0;
        io->size = 2;
        break;
    case 3:
        io->op = SDC_IO_READ;
        memset(steps->text, 'x', sizeof steps->text);
        break;
    case 4:
        io->op = SDC_IO_READ; // past the end
        io->offset = 1 << 20;
        break;
    case 5:
        io->op = SDC_IO_FALLOCATE;
        io->mode = 0x4000; // there is no such mode
        break;
    default:
        sdc_loop_stop(steps->loop);
        return;
    }
    sdc_loop_io(steps->loop, io);
}

static void every_kind_of_io_works_and_errors_come_as_results(void **state)
{
    (void)state;
    struct steps s = {.loop = new_loop(), .text = {"abc", "def", "ghi"}};
    int fd = temporary_file();
    for (int i = 0; i < 3; i++)
        s.spans[i] = (struct sdc_span){s.text[i], 3};
    s.io = (struct sdc_io){.op = SDC_IO_WRITE,
                           .file = sdc_loop_file_add(s.loop, fd),
                           .dsync = true,
                           .spans = s.spans,
                           .spans_count = 3,
                           .done = next_step};
    assert_true(s.io.file >= 0);
    sdc_loop_io(s.loop, &s.io);
    run(s.loop);
    static const int64_t expected[] = {9, 0, 0, 9, 0, -EOPNOTSUPP};
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(s.results[i], expected[i]);
    assert_memory_equal(s.text[0], "\0\0cx", 4);
    assert_memory_equal(s.text[1], "defx", 4);
    assert_memory_equal(s.text[2], "ghix", 4);
    sdc_loop_file_remove(s.loop, s.io.file);
    sdc_loop_free(s.loop);
    close(fd);
}

static void files_are_numbered_until_there_are_no_more(void **state)
{
    (void)state;
    struct sdc_loop *loop = new_loop();
    int fds[300];
    int count = 0, file;
    fds[0] = temporary_file();
    while ((file = sdc_loop_file_add(loop, fds[count])) >= 0) {
        fds[count + 1] = dup(fds[0]);
        count++;
    }
    assert_int_equal(file, -EMFILE);
    assert_true(count >= 64);
    sdc_loop_file_remove(loop, 17);
    assert_int_equal(sdc_loop_file_add(loop, fds[count]), 17);
    sdc_loop_free(loop);
    for (int i = 0; i <= count; i++)
        close(fds[i]);
}

// A disk of a thousand queues adds its file a thousand times.
static void a_file_that_is_added_again_keeps_its_number(void **state)
{
    (void)state;
    struct sdc_loop *loop = new_loop();
    int fd = temporary_file();
    int file = sdc_loop_file_add(loop, fd);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(sdc_loop_file_add(loop, fd), file);
    for (int i = 0; i < 1000; i++)
        sdc_loop_file_remove(loop, file);
    int other = dup(fd);
    assert_int_not_equal(sdc_loop_file_add(loop, other), file);
    sdc_loop_file_remove(loop, file);
    sdc_loop_free(loop);
    close(other);
    close(fd);
}

// A process that may open few files cannot register many either.
static void io_works_without_registered_files(void **state)
{
    (void)state;
    struct rlimit old, low;
    getrlimit(RLIMIT_NOFILE, &old);
    low = (struct rlimit){64, old.rlim_max};
    setrlimit(RLIMIT_NOFILE, &low);
    transfer_all(false);
    setrlimit(RLIMIT_NOFILE, &old);
}

// --- idleness ---

static void stop_from_elsewhere(void *loop)
{
    nanosleep(&(struct timespec){0, 200 * 1000 * 1000}, NULL);
    sdc_loop_stop(loop);
}

static void *stop_thread(void *loop)
{
    stop_from_elsewhere(loop);
    return NULL;
}

static void an_idle_loop_sleeps(void **state)
{
    (void)state;
    struct sdc_loop *loop = new_loop();
    struct watched w = {.loop = loop,
                        .watch = {.fd = sdc_eventfd_new(), .wanted = SDC_READABLE, .ready = note_and_stop}};
    assert_int_equal(sdc_loop_watch(loop, &w.watch), 0);
    pthread_t thread;
    pthread_create(&thread, NULL, stop_thread, loop);
    struct rusage before, after;
    getrusage(RUSAGE_THREAD, &before);
    run(loop);
    getrusage(RUSAGE_THREAD, &after);
    pthread_join(thread, NULL);
    assert_int_equal(w.calls, 0);
    assert_in_range(after.ru_nvcsw - before.ru_nvcsw, 1, 5); // slept once, not once a millisecond
    sdc_loop_unwatch(loop, &w.watch);
    sdc_loop_free(loop);
    close(w.watch.fd);
}

static void do_nothing(struct sdc_post *post)
{
    (void)post;
}

struct waking {
    struct sdc_loop *loop;
    struct sdc_post post;
};

static void *wake_then_stop(void *context)
{
    struct waking *waking = context;
    nanosleep(&(struct timespec){0, 20 * 1000 * 1000}, NULL);
    sdc_loop_post(waking->loop, &waking->post);
    stop_from_elsewhere(waking->loop);
    return NULL;
}

static uint64_t cpu_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000 * MS + (uint64_t)time.tv_nsec;
}

static void a_loop_that_was_woken_sleeps_again_whatever_a_paused_watch_has_to_say(void **state)
{
    (void)state;
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    struct waking waking = {.loop = new_loop(), .post.run = do_nothing};
    struct watched w = {.loop = waking.loop,
                        .peer = pair[1],
                        .timer.expired = pause_and_hang_up,
                        .watch = {.fd = pair[0], .wanted = SDC_READABLE, .ready = note_and_stop}};
    assert_int_equal(sdc_loop_watch(w.loop, &w.watch), 0);
    sdc_loop_timer_set(w.loop, &w.timer, 5 * MS);
    run(w.loop); // it is paused now, and the other end is gone
    pthread_t thread;
    pthread_create(&thread, NULL, wake_then_stop, &waking);
    uint64_t before = cpu_ns();
    run(w.loop);
    assert_in_range(cpu_ns() - before, 0, 50 * MS); // of 200 ms
    pthread_join(thread, NULL);
    assert_int_equal(w.calls, 0);
    sdc_loop_unwatch(w.loop, &w.watch);
    sdc_loop_free(w.loop);
    close(pair[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(posts_of_each_thread_run_in_their_order),
        cmocka_unit_test(no_post_is_slept_over),
        cmocka_unit_test(posts_before_the_stop_run),
        cmocka_unit_test(deferred_functions_run_once_at_the_end_of_the_turn),
        cmocka_unit_test(timers_expire_in_the_order_of_their_deadlines),
        cmocka_unit_test(watches_are_level_triggered),
        cmocka_unit_test(an_unwatched_fd_is_not_called_even_in_the_same_turn),
        cmocka_unit_test(a_hangup_is_told_to_a_watch_that_waits_for_something_else),
        cmocka_unit_test(a_paused_watch_is_not_called_until_resumed),
        cmocka_unit_test(a_watch_can_be_widened_while_it_waits),
        cmocka_unit_test(a_paused_watch_hears_of_no_hangup),
        cmocka_unit_test(a_closed_socket_is_let_go_of),
        cmocka_unit_test(a_file_is_always_ready_until_it_is_paused_or_unwatched),
        cmocka_unit_test(a_number_that_is_no_fd_hangs_up),
        cmocka_unit_test(one_fd_can_be_watched_twice),
        cmocka_unit_test(more_io_than_the_rings_hold_is_done),
        cmocka_unit_test(io_asked_for_before_the_run_is_done),
        cmocka_unit_test(every_kind_of_io_works_and_errors_come_as_results),
        cmocka_unit_test(files_are_numbered_until_there_are_no_more),
        cmocka_unit_test(a_file_that_is_added_again_keeps_its_number),
        cmocka_unit_test(io_works_without_registered_files),
        cmocka_unit_test(an_idle_loop_sleeps),
        cmocka_unit_test(a_loop_that_was_woken_sleeps_again_whatever_a_paused_watch_has_to_say),
    };
    RUN_WITH_EVERY_LOOP(tests);
}
