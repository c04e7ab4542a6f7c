// SPDX-License-Identifier: BSD-3-Clause
// The epoll engine, for hosts that don't permit io_uring: watches and the wake-up by epoll, file I/O by a
// pool of threads. A turn is one epoll_wait, and an epoll_ctl for each watch that has changed.
#include "loop/engine.h"

#include "base/log.h"
#include "loop/io_pool.h"
#include "os/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

enum { EVENTS = 256 }; // taken at once; what is left over is first the next time
enum { TURN_MS_WHEN_STUCK = 1 };
// A loop that polls asks the kernel for events no more often than this: 1 % of its time, and the most by which a message, or a
// notification of a ring that is not looked at, is late. File I/O that has ended comes as a post, which is seen at once.
enum { ASK_NS_WHEN_POLLING = 50000 };

// What stands behind a watch. It outlives the watch until the turn's end, because an event of this turn may
// still point to it: that finds watch == NULL.
struct poll {
    struct sdc_watch *watch;      // NULL: unwatched
    struct poll *next, *previous; // all of the loop's
    struct poll *next_changed;
    bool changed;     // on the list of those that settle() looks at
    bool asked;       // epoll has it,
    uint32_t events;  // and waits for these, enum sdc_ready
    uint32_t always;  // epoll cannot have it: these are taken to stand for ever
    int fd;           // the watch's, or `duplicate`
    int duplicate;    // -1: none
};

struct epoll {
    int fd;
    int wake_fd;
    struct poll *polls;
    struct poll *changed;
    unsigned always_count; // polls with `always`; zero: they need not be gone through
    int happened_count;
    uint64_t asked_ns; // of the turn that last asked for events
    struct epoll_event happened[EVENTS];
    struct sdc_io_pool *pool;
};

// --- watches ---

static void note_change(struct epoll *epoll, struct poll *poll)
{
    if (poll->changed)
        return;
    poll->changed = true;
    poll->next_changed = epoll->changed;
    epoll->changed = poll;
}

static int control(struct epoll *epoll, int op, struct poll *poll, uint32_t wanted)
{
    uint32_t mask = (wanted & SDC_READABLE ? (uint32_t)EPOLLIN : 0) |
                    (wanted & SDC_WRITABLE ? (uint32_t)EPOLLOUT : 0); // EPOLLHUP, EPOLLERR are always reported
    struct epoll_event event = {.events = mask, .data.ptr = poll};
    return epoll_ctl(epoll->fd, op, poll->fd, &event) < 0 ? -errno : 0;
}

// epoll has a file once; a second watch gets it under a second number.
static int add_duplicate(struct epoll *epoll, struct poll *poll, uint32_t wanted)
{
    poll->duplicate = fcntl(poll->watch->fd, F_DUPFD_CLOEXEC, 0);
    if (poll->duplicate < 0)
        return -errno;
    poll->fd = poll->duplicate;
    return control(epoll, EPOLL_CTL_ADD, poll, wanted);
}

static int add(struct epoll *epoll, struct poll *poll, uint32_t wanted)
{
    int ret = control(epoll, EPOLL_CTL_ADD, poll, wanted);
    if (ret == -EEXIST)
        ret = add_duplicate(epoll, poll, wanted);
    poll->asked = ret == 0;
    if (ret == 0 || ret == -ENOMEM || ret == -ENOSPC || ret == -EMFILE)
        return ret;
    // A regular file is always ready. Anything else (the fd is not open, say) is a hang-up: nothing will come
    // any more.
    poll->always = ret == -EPERM ? SDC_READABLE | SDC_WRITABLE : SDC_HANGUP;
    epoll->always_count++;
    return 0;
}

static void take_out(struct epoll *epoll, struct poll *poll)
{
    if (poll->asked && control(epoll, EPOLL_CTL_DEL, poll, 0) < 0)
        sdc_bug("an fd was closed before it was unwatched");
    poll->asked = false;
    poll->fd = poll->watch->fd;
    sdc_fd_close(&poll->duplicate);
}

// Brings epoll in line with the watch. It is taken out while it is paused: epoll would report hang-ups.
static int settle(struct epoll *epoll, struct poll *poll)
{
    uint32_t wanted = poll->watch->wanted;
    int ret = 0;
    if (poll->always || (poll->asked ? wanted == poll->events : wanted == 0))
        return 0;
    if (wanted == 0)
        take_out(epoll, poll);
    else if (poll->asked)
        ret = control(epoll, EPOLL_CTL_MOD, poll, wanted);
    else
        ret = add(epoll, poll, wanted);
    if (ret == 0)
        poll->events = wanted;
    return ret;
}

static void free_poll(struct epoll *epoll, struct poll *poll)
{
    if (poll->previous)
        poll->previous->next = poll->next;
    else
        epoll->polls = poll->next;
    if (poll->next)
        poll->next->previous = poll->previous;
    free(poll);
}

// False: the kernel has no room just now, some are left.
static bool settle_all(struct epoll *epoll)
{
    while (epoll->changed) {
        struct poll *poll = epoll->changed;
        if (poll->watch && settle(epoll, poll) < 0)
            return false;
        epoll->changed = poll->next_changed;
        poll->changed = false;
        if (!poll->watch)
            free_poll(epoll, poll);
    }
    return true;
}

static int watch_fd(struct sdc_loop *loop, struct sdc_watch *watch)
{
    struct epoll *epoll = loop->engine;
    struct poll *poll = calloc(1, sizeof *poll);
    if (!poll)
        return -ENOMEM;
    *poll = (struct poll){.watch = watch, .fd = watch->fd, .duplicate = -1, .next = epoll->polls};
    if (settle(epoll, poll) < 0) {
        sdc_fd_close(&poll->duplicate);
        free(poll);
        return -ENOMEM;
    }
    if (poll->next)
        poll->next->previous = poll;
    epoll->polls = poll;
    watch->armed = poll;
    return 0;
}

static void rewatch_fd(struct sdc_loop *loop, struct sdc_watch *watch)
{
    if (watch->armed)
        note_change(loop->engine, watch->armed);
}

// At once: the caller may close the fd next, and a number that is used again must not meet this poll.
static void unwatch_fd(struct sdc_loop *loop, struct sdc_watch *watch)
{
    struct epoll *epoll = loop->engine;
    struct poll *poll = watch->armed;
    take_out(epoll, poll);
    epoll->always_count -= poll->always != 0;
    poll->always = 0;
    watch->armed = NULL;
    poll->watch = NULL;
    note_change(epoll, poll); // to be freed
}

static void call(const struct poll *poll, uint32_t events)
{
    struct sdc_watch *watch = poll->watch;
    if (!watch || watch->wanted == 0)
        return;
    events &= watch->wanted | SDC_HANGUP;
    if (events)
        watch->ready(watch, events);
}

static bool something_is_always_ready(const struct epoll *epoll)
{
    if (epoll->always_count == 0)
        return false;
    for (const struct poll *poll = epoll->polls; poll; poll = poll->next)
        if (poll->watch && poll->watch->wanted && poll->always & (poll->watch->wanted | SDC_HANGUP))
            return true;
    return false;
}

// --- the turn ---

// Rounded up: a timer that is looked at too early would only make the loop turn again.
static int milliseconds(uint64_t timeout_ns)
{
    if (timeout_ns == SDC_LOOP_FOREVER)
        return -1;
    uint64_t ms = timeout_ns / 1000000 + (timeout_ns % 1000000 != 0);
    return ms < INT_MAX ? (int)ms : INT_MAX;
}

static bool need_not_ask(const struct sdc_loop *loop)
{
    const struct epoll *epoll = loop->engine;
    return loop->pollers && !epoll->changed && epoll->always_count == 0 && loop->now_ns - epoll->asked_ns < ASK_NS_WHEN_POLLING;
}

static void wait_epoll(struct sdc_loop *loop, uint64_t timeout_ns)
{
    struct epoll *epoll = loop->engine;
    sdc_io_pool_start(epoll->pool);
    if (need_not_ask(loop))
        return;
    epoll->asked_ns = loop->now_ns;
    int timeout = milliseconds(timeout_ns);
    if (!settle_all(epoll) && (timeout < 0 || timeout > TURN_MS_WHEN_STUCK))
        timeout = TURN_MS_WHEN_STUCK;
    if (something_is_always_ready(epoll))
        timeout = 0;
    epoll->happened_count = epoll_wait(epoll->fd, epoll->happened, EVENTS, timeout);
    if (epoll->happened_count >= 0 || errno == EINTR)
        return;
    sdc_log(SDC_LOG_ERROR, "epoll_wait: %s", strerror(errno));
    sdc_bug("the loop's epoll refuses to work");
}

static int fd_of_epoll(struct sdc_loop *loop)
{
    const struct epoll *epoll = loop->engine;

    return epoll->fd;
}

static bool settle_epoll(struct sdc_loop *loop)
{
    struct epoll *epoll = loop->engine;

    sdc_io_pool_start(epoll->pool);
    return settle_all(epoll) && !something_is_always_ready(epoll);
}

static uint32_t ready_events(uint32_t mask)
{
    return (mask & EPOLLIN ? (uint32_t)SDC_READABLE : 0) | (mask & EPOLLOUT ? (uint32_t)SDC_WRITABLE : 0) |
           (mask & (EPOLLHUP | EPOLLERR) ? (uint32_t)SDC_HANGUP : 0);
}

static void dispatch_epoll(struct sdc_loop *loop)
{
    struct epoll *epoll = loop->engine;
    for (int i = 0; i < epoll->happened_count; i++)
        if (epoll->happened[i].data.ptr) // NULL: woken
            call(epoll->happened[i].data.ptr, ready_events(epoll->happened[i].events));
    epoll->happened_count = 0;
    // None is freed on the way, and new ones go before the first.
    for (struct poll *poll = epoll->always_count > 0 ? epoll->polls : NULL; poll; poll = poll->next)
        call(poll, poll->always);
}

static void wake(struct sdc_loop *loop)
{
    struct epoll *epoll = loop->engine;
    sdc_eventfd_signal(epoll->wake_fd);
}

// --- files ---

static void add_file(struct sdc_loop *loop, int file)
{
    sdc_io_pool_file_add(&loop->files[file]);
}

static void remove_file(struct sdc_loop *loop, int file)
{
    (void)loop;
    (void)file;
}

static void start_io(struct sdc_loop *loop, struct sdc_io *io)
{
    struct epoll *epoll = loop->engine;
    sdc_io_pool_ask(epoll->pool, io);
}

// --- life ---

static void close_epoll(struct sdc_loop *loop)
{
    struct epoll *epoll = loop->engine;
    if (epoll->pool)
        sdc_io_pool_free(epoll->pool); // its threads wake the loop, so they end first
    while (epoll->polls) {
        sdc_fd_close(&epoll->polls->duplicate);
        free_poll(epoll, epoll->polls);
    }
    sdc_fd_close(&epoll->wake_fd);
    sdc_fd_close(&epoll->fd);
    free(epoll);
}

// Edge-triggered: every write is an event, and nobody has to read the count.
static int make_fds(struct epoll *epoll)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    epoll->fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll->fd < 0)
        return -errno;
    epoll->wake_fd = sdc_eventfd_new();
    if (epoll->wake_fd < 0)
        return epoll->wake_fd;
    return epoll_ctl(epoll->fd, EPOLL_CTL_ADD, epoll->wake_fd, &event) < 0 ? -errno : 0;
}

static int open_epoll(struct sdc_loop *loop, struct sdc_error *err)
{
    struct epoll *epoll = calloc(1, sizeof *epoll);
    if (!epoll)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "out of memory for a loop");
    epoll->fd = epoll->wake_fd = -1;
    loop->engine = epoll;
    int ret = make_fds(epoll);
    if (ret == 0)
        ret = sdc_io_pool_new(loop, &epoll->pool);
    if (ret < 0) {
        close_epoll(loop);
        return sdc_error_set(err, ret, SDC_FAULT_HOST, "cannot make a loop with epoll: %s", strerror(-ret));
    }
    return 0;
}

static void start_epoll(struct sdc_loop *loop)
{
    (void)loop;
}

static void finish_epoll(struct sdc_loop *loop)
{
    (void)loop;
}

const struct sdc_loop_engine sdc_loop_epoll = {
    .kind = SDC_LOOP_EPOLL,
    .open = open_epoll,
    .close = close_epoll,
    .start = start_epoll,
    .finish = finish_epoll,
    .wait = wait_epoll,
    .dispatch = dispatch_epoll,
    .fd = fd_of_epoll,
    .settle = settle_epoll,
    .wake = wake,
    .watch = watch_fd,
    .rewatch = rewatch_fd,
    .unwatch = unwatch_fd,
    .file_add = add_file,
    .file_remove = remove_file,
    .io = start_io,
};
