// SPDX-License-Identifier: BSD-3-Clause
// poll and epoll behind os/wait.h.
#include "os/wait.h"

#include "os/clock.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/epoll.h>

#define MS_NS UINT64_C(1000000)

static unsigned seen(short events)
{
    unsigned result = 0;
    if (events & (POLLIN | POLLRDHUP | POLLHUP | POLLERR | POLLNVAL))
        result |= SDC_WAIT_INPUT;
    if (events & (POLLOUT | POLLERR | POLLNVAL))
        result |= SDC_WAIT_OUTPUT;
    if (events & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL))
        result |= SDC_WAIT_HANGUP;
    return result;
}

// Milliseconds that are left, rounded up so that a wait is not over too early.
static int time_left(uint64_t deadline_ns)
{
    uint64_t now = sdc_clock_ns();
    uint64_t left = now < deadline_ns ? (deadline_ns - now + MS_NS - 1) / MS_NS : 0;
    return left > INT_MAX ? INT_MAX : (int)left;
}

int sdc_wait_fds(struct sdc_wait_item *items, unsigned count, int timeout_ms)
{
    uint64_t deadline_ns = timeout_ms > 0 ? sdc_clock_ns() + (uint64_t)timeout_ms * MS_NS : 0;
    struct pollfd polled[SDC_WAIT_ITEMS_MAX];
    if (count > SDC_WAIT_ITEMS_MAX)
        return -EINVAL;
    for (unsigned i = 0; i < count; i++) {
        polled[i] = (struct pollfd){.fd = items[i].fd, .events = POLLRDHUP};
        if (items[i].wanted & SDC_WAIT_INPUT)
            polled[i].events |= POLLIN;
        if (items[i].wanted & SDC_WAIT_OUTPUT)
            polled[i].events |= POLLOUT;
    }
    int ready;
    while ((ready = poll(polled, count, timeout_ms)) < 0 && errno == EINTR)
        if (timeout_ms > 0)
            timeout_ms = time_left(deadline_ns);
    for (unsigned i = 0; i < count; i++)
        items[i].seen = ready > 0 ? seen(polled[i].revents) : 0;
    return ready < 0 ? -errno : ready;
}

int sdc_wait_fd(int fd, unsigned wanted, int timeout_ms)
{
    struct sdc_wait_item item = {.fd = fd, .wanted = wanted};
    int ret = sdc_wait_fds(&item, 1, timeout_ms);
    return ret > 0 ? (int)item.seen : ret;
}

int sdc_waiter_new(void)
{
    int fd = epoll_create1(EPOLL_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int sdc_waiter_add(int waiter, int fd, unsigned wanted, bool edges, unsigned tag)
{
    struct epoll_event event = {.events = EPOLLRDHUP, .data.u32 = tag & 31};
    if (wanted & SDC_WAIT_INPUT)
        event.events |= EPOLLIN;
    if (wanted & SDC_WAIT_OUTPUT)
        event.events |= EPOLLOUT;
    if (edges)
        event.events |= EPOLLET;
    return epoll_ctl(waiter, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

uint32_t sdc_waiter_wait(int waiter, int timeout_ms)
{
    struct epoll_event events[8];
    int count = epoll_wait(waiter, events, 8, timeout_ms);
    uint32_t result = 0;
    for (int i = 0; i < count; i++)
        result |= UINT32_C(1) << events[i].data.u32;
    return result;
}
