// SPDX-License-Identifier: BSD-3-Clause
// Loops that are turned from outside: whatever happens has the fd readable, nothing is slept over, and what has nothing to do is quiet.
#include "loop_fixture.h"

#include "loop/poller.h"
#include "os/clock.h"
#include "os/fd.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

static bool is_readable(struct sdc_loop *loop, int timeout_ms)
{
    struct pollfd waiting = {.fd = sdc_loop_fd(loop, NULL), .events = POLLIN};

    assert_true(waiting.fd >= 0);
    return poll(&waiting, 1, timeout_ms) == 1;
}

// Until there is nothing to do: nothing is, when it returns.
static void settle(struct sdc_loop *loop)
{
    is_readable(loop, 0);
    while (sdc_loop_process(loop) == SDC_LOOP_GOES_ON)
        ;
    assert_false(is_readable(loop, 20));
}

static struct sdc_loop *new_outside(void)
{
    struct sdc_loop *loop = new_loop();

    assert_true(is_readable(loop, 0)); // its first turn is due
    settle(loop);
    return loop;
}

static void end(struct sdc_loop *loop)
{
    sdc_loop_stop(loop);
    assert_true(is_readable(loop, 1000));
    assert_int_equal(sdc_loop_process(loop), SDC_LOOP_STOPPED);
    sdc_loop_free(loop);
}

// Processes until *done, waiting for the fd each time.
static void process_until(struct sdc_loop *loop, const atomic_uint *done, unsigned count)
{
    while (atomic_load(done) < count) {
        assert_true(is_readable(loop, 20000));
        assert_int_not_equal(sdc_loop_process(loop), SDC_LOOP_STOPPED);
    }
}

struct counted {
    struct sdc_post post;
    struct sdc_timer timer;
    struct sdc_watch watch;
    struct sdc_io io;
    struct sdc_poller poller;
    struct sdc_loop *loop;
    atomic_uint count;
    unsigned looks, rearmed;
};

static void post_ran(struct sdc_post *post)
{
    atomic_fetch_add(&sdc_container(post, struct counted, post)->count, 1);
}

static void timer_ran(struct sdc_timer *timer)
{
    atomic_fetch_add(&sdc_container(timer, struct counted, timer)->count, 1);
}

static void watch_ran(struct sdc_watch *watch, uint32_t events)
{
    assert_true(events & SDC_READABLE);
    sdc_eventfd_take(watch->fd);
    atomic_fetch_add(&sdc_container(watch, struct counted, watch)->count, 1);
}

static void io_ran(struct sdc_io *io)
{
    assert_int_equal(io->result, 4096);
    atomic_fetch_add(&sdc_container(io, struct counted, io)->count, 1);
}

enum { POSTS = 20000 };

static void *post_much(void *context)
{
    struct counted *counted = context;

    for (unsigned i = 0; i < POSTS; i++) {
        while (atomic_load(&counted->count) < i)
            sched_yield();
        sdc_loop_post(counted->loop, &counted->post);
    }
    return NULL;
}

// Each post is made when the one before has run, mostly while the loop falls asleep: a lost one would hang.
static void no_post_is_slept_over(void **state)
{
    struct counted counted = {.loop = new_outside(), .post.run = post_ran};
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, post_much, &counted), 0);
    process_until(counted.loop, &counted.count, POSTS);
    pthread_join(thread, NULL);
    end(counted.loop);
}

static void timers_have_it_readable(void **state)
{
    struct counted counted = {.loop = new_outside(), .timer.expired = timer_ran};

    (void)state;
    for (unsigned i = 1; i <= 3; i++) {
        uint64_t begun = sdc_clock_ns();
        assert_int_equal(sdc_loop_timer_set(counted.loop, &counted.timer, 3 * MS), 0);
        assert_int_equal(sdc_loop_process(counted.loop), SDC_LOOP_WAITS);
        process_until(counted.loop, &counted.count, i);
        assert_true(sdc_clock_ns() - begun >= 3 * MS);
        settle(counted.loop);
    }
    // One that is taken back does not have it readable.
    assert_int_equal(sdc_loop_timer_set(counted.loop, &counted.timer, 5 * MS), 0);
    sdc_loop_process(counted.loop);
    sdc_loop_timer_clear(counted.loop, &counted.timer);
    sdc_loop_process(counted.loop);
    assert_false(is_readable(counted.loop, 30));
    end(counted.loop);
}

static void fds_have_it_readable(void **state)
{
    struct counted counted = {.loop = new_outside()};

    (void)state;
    counted.watch = (struct sdc_watch){.fd = sdc_eventfd_new(), .wanted = SDC_READABLE, .ready = watch_ran};
    assert_int_equal(sdc_loop_watch(counted.loop, &counted.watch), 0);
    settle(counted.loop);
    for (unsigned i = 1; i <= 100; i++) {
        sdc_eventfd_signal(counted.watch.fd);
        process_until(counted.loop, &counted.count, i);
    }
    settle(counted.loop);
    sdc_loop_unwatch(counted.loop, &counted.watch);
    settle(counted.loop);
    sdc_eventfd_signal(counted.watch.fd);
    assert_false(is_readable(counted.loop, 20));
    sdc_fd_close(&counted.watch.fd);
    end(counted.loop);
}

// What the owner asks for between two calls, without a call of its own for that.
static void what_is_asked_for_between_calls_counts(void **state)
{
    struct counted counted = {.loop = new_outside(), .timer.expired = timer_ran};

    (void)state;
    assert_int_equal(sdc_loop_timer_set(counted.loop, &counted.timer, MS), 0);
    process_until(counted.loop, &counted.count, 1);
    settle(counted.loop);
    counted.watch = (struct sdc_watch){.fd = sdc_eventfd_new(), .wanted = 0, .ready = watch_ran};
    sdc_eventfd_signal(counted.watch.fd);
    assert_int_equal(sdc_loop_watch(counted.loop, &counted.watch), 0);
    settle(counted.loop);
    sdc_loop_rewatch(counted.loop, &counted.watch, SDC_READABLE);
    process_until(counted.loop, &counted.count, 2);
    sdc_loop_unwatch(counted.loop, &counted.watch);
    sdc_fd_close(&counted.watch.fd);
    end(counted.loop);
}

static void files_have_it_readable(void **state)
{
    struct counted counted = {.loop = new_outside()};
    static unsigned char bytes[4096];
    struct sdc_span span = {bytes, sizeof bytes};
    int fd = temporary_file();
    int file = sdc_loop_file_add(counted.loop, fd);

    (void)state;
    for (unsigned i = 1; i <= 20; i++) {
        counted.io = (struct sdc_io){
            .op = SDC_IO_WRITE, .file = file, .offset = i * 4096, .spans = &span, .spans_count = 1, .done = io_ran};
        sdc_loop_io(counted.loop, &counted.io);
        sdc_loop_process(counted.loop);
        process_until(counted.loop, &counted.count, i);
    }
    sdc_loop_file_remove(counted.loop, file);
    close(fd);
    end(counted.loop);
}

static bool look(struct sdc_poller *poller)
{
    sdc_container(poller, struct counted, poller)->looks++;
    return false;
}

static void suppress(struct sdc_poller *poller)
{
    (void)poller;
}

static void rearm(struct sdc_poller *poller)
{
    sdc_container(poller, struct counted, poller)->rearmed++;
}

static const struct sdc_poller_ops poller_ops = {look, suppress, rearm};

// One that polls always asks to be called again and again, each time for a bounded while, in which other things happen too.
static void what_polls_always_goes_on(void **state)
{
    struct counted counted = {.loop = new_outside(), .poller.ops = &poller_ops, .timer.expired = timer_ran};

    (void)state;
    sdc_poller_start(counted.loop, &counted.poller, SDC_POLL_ALWAYS, 50000);
    assert_int_equal(sdc_loop_timer_set(counted.loop, &counted.timer, 2 * MS), 0);
    for (unsigned i = 0; i < 200 || atomic_load(&counted.count) == 0; i++) {
        unsigned before = counted.looks;
        assert_int_equal(sdc_loop_process(counted.loop), SDC_LOOP_GOES_ON);
        assert_true(is_readable(counted.loop, 0));
        assert_true(counted.looks > before);
    }
    assert_int_equal(counted.rearmed, 0);
    sdc_poller_stop(&counted.poller);
    settle(counted.loop);
    end(counted.loop);
}

// A window is looked through to its end, then its driver is told to notify again and the loop is quiet.
static void a_window_ends_and_it_waits(void **state)
{
    struct counted counted = {.loop = new_outside(), .poller.ops = &poller_ops};

    (void)state;
    sdc_poller_start(counted.loop, &counted.poller, SDC_POLL_ADAPTIVE, 2 * MS);
    sdc_loop_process(counted.loop);
    sdc_poller_worked(&counted.poller);
    sdc_poller_rest(&counted.poller);
    assert_true(counted.poller.open);
    while (counted.poller.open) {
        assert_true(is_readable(counted.loop, 0) || counted.looks == 0);
        sdc_loop_process(counted.loop);
    }
    assert_true(counted.looks > 0);
    assert_int_equal(counted.rearmed, 1);
    settle(counted.loop);
    sdc_poller_stop(&counted.poller);
    end(counted.loop);
}

// A program that turned it may leave it to run by itself.
static void it_can_be_run_after_that(void **state)
{
    struct sdc_loop *loop = new_outside();

    (void)state;
    sdc_loop_stop(loop);
    sdc_loop_run(loop);
    sdc_loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_post_is_slept_over),
        cmocka_unit_test(timers_have_it_readable),
        cmocka_unit_test(fds_have_it_readable),
        cmocka_unit_test(what_is_asked_for_between_calls_counts),
        cmocka_unit_test(files_have_it_readable),
        cmocka_unit_test(what_polls_always_goes_on),
        cmocka_unit_test(a_window_ends_and_it_waits),
        cmocka_unit_test(it_can_be_run_after_that),
    };

    RUN_WITH_EVERY_LOOP(tests);
}
