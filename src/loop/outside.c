// SPDX-License-Identifier: BSD-3-Clause
// A loop that is turned from outside: in the loop of a program that waits for an fd, and calls sdc_loop_process when it is readable. The fd
// is an epoll of three: the engine's, which is readable when something has happened; a timerfd, for the timer that expires first; and an
// eventfd that is readable while there is more to do than one call may.
//
// Between two calls the loop is asleep, as far as others are concerned: whoever posts wakes it (pair [wake] in loop.c).
#include "loop/engine.h"

#include "base/log.h"
#include "os/clock.h"
#include "os/fd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

enum { SECOND_NS = 1000000000 };
enum { CALL_NS = 100000 }; // that a call may take, when there is always something more to do

struct sdc_loop_outside {
    int fd; // of the epoll
    int timer_fd;
    int more_fd;
    bool more;            // more_fd is readable
    uint64_t deadline_ns; // that timer_fd is set to, or SDC_LOOP_FOREVER
};

static int add(struct sdc_loop_outside *outside, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};

    return epoll_ctl(outside->fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int make_fds(struct sdc_loop *loop, struct sdc_loop_outside *outside)
{
    outside->fd = epoll_create1(EPOLL_CLOEXEC);
    if (outside->fd < 0)
        return -errno;
    outside->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (outside->timer_fd < 0)
        return -errno;
    outside->more_fd = sdc_eventfd_new();
    if (outside->more_fd < 0)
        return outside->more_fd;
    int rc = add(outside, outside->timer_fd);
    if (rc == 0)
        rc = add(outside, outside->more_fd);
    int engine_fd = loop->ops->fd(loop);
    if (rc == 0)
        rc = engine_fd < 0 ? engine_fd : add(outside, engine_fd);
    return rc;
}

static void set_more(struct sdc_loop_outside *outside, bool more)
{
    if (more && !outside->more)
        sdc_eventfd_signal(outside->more_fd);
    if (!more && outside->more)
        sdc_eventfd_take(outside->more_fd);
    outside->more = more;
}

static void close_outside(struct sdc_loop_outside *outside)
{
    sdc_fd_close(&outside->more_fd);
    sdc_fd_close(&outside->timer_fd);
    sdc_fd_close(&outside->fd);
    free(outside);
}

void sdc_loop_outside_free(struct sdc_loop *loop)
{
    if (loop->outside)
        close_outside(loop->outside);
    loop->outside = NULL;
}

int sdc_loop_fd(struct sdc_loop *loop, struct sdc_error *err)
{
    if (loop->outside)
        return loop->outside->fd;
    struct sdc_loop_outside *outside = calloc(1, sizeof *outside);
    if (!outside)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "out of memory for a loop");
    *outside = (struct sdc_loop_outside){.fd = -1, .timer_fd = -1, .more_fd = -1, .deadline_ns = SDC_LOOP_FOREVER};
    int rc = make_fds(loop, outside);
    if (rc < 0) {
        close_outside(outside);
        return sdc_error_set(err, rc, SDC_FAULT_HOST, "cannot make the fd of a loop: %s", strerror(-rc));
    }
    set_more(outside, true); // it has not had its first turn
    loop->outside = outside;
    return outside->fd;
}

// To the nanosecond: whether it has come is looked at by the same clock.
static void set_timer(struct sdc_loop_outside *outside, uint64_t deadline_ns)
{
    struct itimerspec when = {0};

    if (deadline_ns == outside->deadline_ns)
        return;
    if (deadline_ns != SDC_LOOP_FOREVER)
        when.it_value = (struct timespec){.tv_sec = (time_t)(deadline_ns / SECOND_NS), .tv_nsec = (long)(deadline_ns % SECOND_NS)};
    if (timerfd_settime(outside->timer_fd, TFD_TIMER_ABSTIME, &when, NULL) < 0)
        sdc_bug("a timer cannot be set");
    outside->deadline_ns = deadline_ns;
}

// Has whatever happens from now on make the fd readable. False: something has happened already.
static bool fall_asleep(struct sdc_loop *loop)
{
    uint64_t deadline = sdc_loop_next_deadline(loop);

    atomic_store(&loop->sleeping, true); // pair [wake]
    if (loop->pollers || atomic_load(&loop->posts) || atomic_load(&loop->stopping) || !loop->ops->settle(loop))
        return false;
    if (deadline <= sdc_clock_ns())
        return false;
    set_timer(loop->outside, deadline);
    return true;
}

int sdc_loop_process(struct sdc_loop *loop)
{
    struct sdc_loop_outside *outside = loop->outside;
    uint64_t begun = sdc_clock_ns();
    bool more = true;

    sdc_loop_enter(loop);
    while (more) {
        atomic_store(&loop->sleeping, false);
        if (sdc_loop_take_turn(loop)) {
            sdc_loop_leave_for_good(loop);
            return SDC_LOOP_STOPPED;
        }
        more = !fall_asleep(loop);
        if (more && loop->now_ns - begun > CALL_NS)
            break;
    }
    atomic_store(&loop->sleeping, true); // or it would not be woken when it has more to do and is not called for that
    set_more(outside, more);
    sdc_loop_leave(loop);
    return more ? SDC_LOOP_GOES_ON : SDC_LOOP_WAITS;
}
