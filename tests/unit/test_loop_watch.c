// SPDX-License-Identifier: BSD-3-Clause
// Loops: watched fds, and that a loop sleeps when none of them has anything to say.
#include "loop_fixture.h"

#include "os/fd.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct watched {
    struct sdc_watch watch;
    struct sdc_loop *loop;
    struct sdc_timer timer;
    struct watched *victim;
    unsigned calls;
    uint32_t events;
    int peer;
    bool over;
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

struct busy {
    struct sdc_post post;
    struct watched *watched;
};

static void post_again(struct sdc_post *post)
{
    struct busy *busy = sdc_container(post, struct busy, post);
    if (!busy->watched->over)
        sdc_loop_post(busy->watched->loop, post);
}

static void count_to_a_hundred(struct sdc_watch *watch, uint32_t events)
{
    struct watched *watched = sdc_container(watch, struct watched, watch);
    assert_int_equal(events, SDC_READABLE);
    if (++watched->calls < 100)
        return;
    watched->over = true;
    sdc_loop_stop(watched->loop);
}

// Whose turns never sleep, and so have no other reason to ask the kernel for anything.
static void a_busy_loop_serves_its_watches(void **state)
{
    (void)state;
    struct watched w = {
        .loop = new_loop(),
        .watch = {.fd = sdc_eventfd_new(), .wanted = SDC_READABLE, .ready = count_to_a_hundred}};
    struct busy busy = {.post.run = post_again, .watched = &w};
    assert_int_equal(sdc_loop_watch(w.loop, &w.watch), 0);
    sdc_eventfd_signal(w.watch.fd);
    sdc_loop_post(w.loop, &busy.post);
    run(w.loop);
    assert_int_equal(w.calls, 100);
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

// While the loop runs.
static void assert_hears_of_the_end(int fd, struct sdc_loop *loop, struct sdc_timer *timer)
{
    char byte;
    for (unsigned i = 0; i < 10000 && recv(fd, &byte, 1, MSG_DONTWAIT) < 0; i++) {
        sdc_loop_timer_set(loop, timer, 5 * MS);
        run(loop);
    }
    assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), 0);
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
    assert_hears_of_the_end(pair[1], w.loop, &w.timer);
    sdc_loop_free(w.loop);
    close(pair[1]);
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
    assert_hears_of_the_end(pair[1], loop, &w[0].timer);
    sdc_loop_free(loop);
    close(pair[1]);
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

static uint64_t cpu_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000 * MS + (uint64_t)time.tv_nsec;
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
    uint64_t cpu_before = cpu_ns();
    getrusage(RUSAGE_THREAD, &before);
    run(loop);
    getrusage(RUSAGE_THREAD, &after);
    assert_in_range(cpu_ns() - cpu_before, 0, 50 * MS); // of 200 ms
    pthread_join(thread, NULL);
    assert_int_equal(w.calls, 0);
    assert_in_range(after.ru_nvcsw - before.ru_nvcsw, 0, 50); // nor once a millisecond; a sanitizer waits by itself now and then
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
        cmocka_unit_test(watches_are_level_triggered),
        cmocka_unit_test(a_busy_loop_serves_its_watches),
        cmocka_unit_test(an_unwatched_fd_is_not_called_even_in_the_same_turn),
        cmocka_unit_test(a_hangup_is_told_to_a_watch_that_waits_for_something_else),
        cmocka_unit_test(a_paused_watch_is_not_called_until_resumed),
        cmocka_unit_test(a_watch_can_be_widened_while_it_waits),
        cmocka_unit_test(a_paused_watch_hears_of_no_hangup),
        cmocka_unit_test(a_closed_socket_is_let_go_of),
        cmocka_unit_test(a_file_is_always_ready_until_it_is_paused_or_unwatched),
        cmocka_unit_test(a_number_that_is_no_fd_hangs_up),
        cmocka_unit_test(one_fd_can_be_watched_twice),
        cmocka_unit_test(an_idle_loop_sleeps),
        cmocka_unit_test(a_loop_that_was_woken_sleeps_again_whatever_a_paused_watch_has_to_say),
    };
    RUN_WITH_EVERY_LOOP(tests);
}
