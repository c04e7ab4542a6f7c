// SPDX-License-Identifier: BSD-3-Clause
// A loop that polls: it goes on serving fds, posts of other threads and timers, and turns in which nothing happens cost no system call.
// Every way of a loop into the kernel is counted.
#include "loop_fixture.h"
#include "uring_calls.h"

#include "loop/poller.h"
#include "os/clock.h"
#include "os/fd.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

static unsigned entered; // the kernel

int __real_epoll_wait(int fd, struct epoll_event *events, int most, int timeout);
int __wrap_epoll_wait(int fd, struct epoll_event *events, int most, int timeout);

void uring_call(const struct io_uring *ring)
{
    (void)ring;
    entered++;
}

int __wrap_epoll_wait(int fd, struct epoll_event *events, int most, int timeout)
{
    entered++;
    return __real_epoll_wait(fd, events, most, timeout);
}

// --- something to look at ---

enum { LOOKS = 200000 };

struct looked {
    struct sdc_poller poller;
    struct sdc_loop *loop;
    unsigned looks;
    unsigned entered; // between the 1000th look, when all is armed, and the last
    uint64_t begun_ns;
};

static void nothing(struct sdc_poller *poller)
{
    (void)poller;
}

static bool count_looks(struct sdc_poller *poller)
{
    struct looked *looked = sdc_container(poller, struct looked, poller);
    if (++looked->looks == 1000) {
        looked->entered = entered;
        looked->begun_ns = sdc_clock_ns();
    }
    if (looked->looks == LOOKS) {
        looked->entered = entered - looked->entered;
        sdc_loop_stop(looked->loop);
    }
    return false;
}

static bool find_nothing(struct sdc_poller *poller)
{
    (void)poller;
    return false;
}

static const struct sdc_poller_ops counting = {count_looks, nothing, nothing};
static const struct sdc_poller_ops blind = {find_nothing, nothing, nothing};

static void start_polling(struct sdc_loop *loop, struct sdc_poller *poller, const struct sdc_poller_ops *ops)
{
    *poller = (struct sdc_poller){.ops = ops};
    sdc_poller_start(loop, poller, SDC_POLL_ALWAYS, 50000);
}

static void ignore(struct sdc_watch *watch, uint32_t events)
{
    (void)watch, (void)events;
}

// epoll has no other way than to ask, which it does every 50 us.
static void a_turn_without_work_makes_no_system_call(void **state)
{
    (void)state;
    struct looked looked = {.loop = new_loop()};
    struct sdc_watch watch = {.fd = sdc_eventfd_new(), .wanted = SDC_READABLE, .ready = ignore};
    sdc_loop_watch(looked.loop, &watch);
    start_polling(looked.loop, &looked.poller, &counting);
    run(looked.loop);
    uint64_t asks = loop_kind == SDC_LOOP_EPOLL ? (sdc_clock_ns() - looked.begun_ns) / 50000 + 1 : 0;
    assert_in_range(looked.entered, 0, asks);
    sdc_loop_unwatch(looked.loop, &watch);
    sdc_poller_stop(&looked.poller);
    sdc_fd_close(&watch.fd);
    sdc_loop_free(looked.loop);
}

// --- others' business ---

enum { ROUNDS = 300 };

struct busy {
    struct sdc_poller poller;
    struct sdc_loop *loop;
    struct sdc_watch watch;
    struct sdc_post post;
    struct sdc_timer timer;
    int answer_fd;
    atomic_uint posted;
    unsigned expired;
};

static void answer(struct sdc_watch *watch, uint32_t events)
{
    struct busy *busy = sdc_container(watch, struct busy, watch);
    (void)events;
    sdc_eventfd_take(watch->fd);
    sdc_eventfd_signal(busy->answer_fd);
}

static void count_post(struct sdc_post *post)
{
    atomic_fetch_add(&sdc_container(post, struct busy, post)->posted, 1);
}

static void expire(struct sdc_timer *timer)
{
    struct busy *busy = sdc_container(timer, struct busy, timer);
    busy->expired++;
    sdc_loop_timer_set(busy->loop, timer, MS);
}

static void *ask(void *context)
{
    struct busy *busy = context;
    uint64_t count;
    for (unsigned i = 0; i < ROUNDS; i++) {
        sdc_eventfd_signal(busy->watch.fd);
        assert_int_equal(read(busy->answer_fd, &count, sizeof count), sizeof count);
        sdc_loop_post(busy->loop, &busy->post);
        while (atomic_load(&busy->posted) != i + 1)
            sched_yield();
    }
    sdc_loop_stop(busy->loop);
    return NULL;
}

static void fds_posts_and_timers_are_served_meanwhile(void **state)
{
    (void)state;
    struct busy busy = {.loop = new_loop(), .post.run = count_post, .timer.expired = expire};
    pthread_t thread;
    busy.watch = (struct sdc_watch){.fd = sdc_eventfd_new(), .wanted = SDC_READABLE, .ready = answer};
    busy.answer_fd = eventfd(0, EFD_CLOEXEC);
    sdc_loop_watch(busy.loop, &busy.watch);
    sdc_loop_timer_set(busy.loop, &busy.timer, 0);
    start_polling(busy.loop, &busy.poller, &blind);
    pthread_create(&thread, NULL, ask, &busy);
    run(busy.loop);
    pthread_join(thread, NULL);
    assert_true(busy.expired > 0);
    sdc_loop_timer_clear(busy.loop, &busy.timer);
    sdc_loop_unwatch(busy.loop, &busy.watch);
    sdc_poller_stop(&busy.poller);
    sdc_fd_close(&busy.watch.fd);
    close(busy.answer_fd);
    sdc_loop_free(busy.loop);
}

// --- falling asleep ---

static bool look_once(struct sdc_poller *poller)
{
    struct looked *looked = sdc_container(poller, struct looked, poller);
    looked->looks++;
    return false;
}

static void late(struct sdc_timer *timer)
{
    struct busy *busy = sdc_container(timer, struct busy, timer);
    sdc_loop_stop(busy->loop);
}

static void a_loop_sleeps_when_the_window_is_over(void **state)
{
    static const struct sdc_poller_ops once = {look_once, nothing, nothing};
    (void)state;
    struct sdc_loop *loop = new_loop();
    struct busy busy = {.loop = loop, .timer.expired = late};
    struct looked looked = {.poller.ops = &once, .loop = loop};
    sdc_loop_timer_set(loop, &busy.timer, 200 * MS);
    sdc_poller_start(loop, &looked.poller, SDC_POLL_ADAPTIVE, 50000);
    sdc_poller_rest(&looked.poller); // open
    assert_true(looked.poller.open);
    entered = 0;
    run(loop);
    assert_false(looked.poller.open);
    assert_true(looked.looks > 0);
    assert_in_range(entered, 0, 12);
    sdc_poller_stop(&looked.poller);
    sdc_loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_turn_without_work_makes_no_system_call),
        cmocka_unit_test(fds_posts_and_timers_are_served_meanwhile),
        cmocka_unit_test(a_loop_sleeps_when_the_window_is_over),
    };
    RUN_WITH_EVERY_LOOP(tests);
}
