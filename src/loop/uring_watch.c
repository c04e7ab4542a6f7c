// SPDX-License-Identifier: BSD-3-Clause
// Watches on io_uring: a poll request that ends with the first event and is made again after the callback.
// One that is made while the event stands ends at once, which is what makes watches level-triggered. Changes
// are only noted; the end of the turn brings the kernel in line with them, so that a watch changed twice
// costs nothing.
#include "loop/uring.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

static void note_change(struct sdc_uring *uring, struct sdc_uring_poll *poll)
{
    if (poll->changed)
        return;
    poll->changed = true;
    poll->next_changed = uring->changed;
    uring->changed = poll;
}

int sdc_uring_watch(struct sdc_loop *loop, struct sdc_watch *watch)
{
    struct sdc_uring *uring = loop->engine;
    struct sdc_uring_poll *poll = calloc(1, sizeof *poll);
    if (!poll)
        return -ENOMEM;
    poll->watch = watch;
    poll->fd = watch->fd;
    poll->next = uring->polls;
    if (poll->next)
        poll->next->previous = poll;
    uring->polls = poll;
    watch->armed = poll;
    note_change(uring, poll);
    return 0;
}

void sdc_uring_rewatch(struct sdc_loop *loop, struct sdc_watch *watch)
{
    if (watch->armed)
        note_change(loop->engine, watch->armed);
}

void sdc_uring_unwatch(struct sdc_loop *loop, struct sdc_watch *watch)
{
    struct sdc_uring_poll *poll = watch->armed;
    watch->armed = NULL;
    poll->watch = NULL;
    note_change(loop->engine, poll);
}

static void free_poll(struct sdc_uring *uring, struct sdc_uring_poll *poll)
{
    if (poll->previous)
        poll->previous->next = poll->next;
    else
        uring->polls = poll->next;
    if (poll->next)
        poll->next->previous = poll->previous;
    free(poll);
}

void sdc_uring_free_watches(struct sdc_uring *uring)
{
    while (uring->polls)
        free_poll(uring, uring->polls);
}

// --- settling ---

static bool start_poll(struct sdc_uring *uring, struct sdc_uring_poll *poll)
{
    struct io_uring_sqe *sqe = sdc_uring_sqe(uring);
    if (!sqe)
        return false;
    poll->events = poll->watch->wanted;
    unsigned mask =
        (poll->events & SDC_READABLE ? POLLIN : 0u) | (poll->events & SDC_WRITABLE ? POLLOUT : 0u);
    io_uring_prep_poll_add(sqe, poll->fd, mask); // POLLHUP and POLLERR are always reported
    io_uring_sqe_set_data64(sqe, (uint64_t)(uintptr_t)poll | SDC_URING_WATCH);
    poll->in_flight = true;
    return true;
}

static bool cancel_poll(struct sdc_uring *uring, struct sdc_uring_poll *poll)
{
    struct io_uring_sqe *sqe = sdc_uring_sqe(uring);
    if (!sqe)
        return false;
    io_uring_prep_poll_remove(sqe, (uint64_t)(uintptr_t)poll | SDC_URING_WATCH);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data64(sqe, SDC_URING_CANCEL);
    poll->cancelling = true;
    return true;
}

static bool settle(struct sdc_uring *uring, struct sdc_uring_poll *poll)
{
    if (poll->in_flight) {
        // One that waits for more than is wanted may stay: what comes is filtered.
        bool fits = poll->watch && !(poll->watch->wanted & ~poll->events);
        return fits || poll->cancelling || cancel_poll(uring, poll);
    }
    return !poll->watch || poll->watch->wanted == 0 || start_poll(uring, poll);
}

bool sdc_uring_settle_watches(struct sdc_uring *uring)
{
    while (uring->changed) {
        struct sdc_uring_poll *poll = uring->changed;
        if (!settle(uring, poll))
            return false;
        uring->changed = poll->next_changed;
        poll->changed = false;
        if (!poll->watch && !poll->in_flight)
            free_poll(uring, poll);
    }
    return true;
}

// --- events ---

// The kernel's answer in our words. An error (the fd is not open, say) is a hang-up: nothing will come any
// more.
static uint32_t ready_events(int result)
{
    if (result < 0)
        return result == -ECANCELED ? 0 : SDC_HANGUP;
    unsigned mask = (unsigned)result;
    return (mask & POLLIN ? (uint32_t)SDC_READABLE : 0) | (mask & POLLOUT ? (uint32_t)SDC_WRITABLE : 0) |
           (mask & (POLLHUP | POLLERR | POLLNVAL) ? (uint32_t)SDC_HANGUP : 0);
}

void sdc_uring_watch_event(struct sdc_uring *uring, struct sdc_uring_poll *poll, int result)
{
    poll->in_flight = false;
    poll->cancelling = false;
    note_change(uring, poll); // to be made again, or freed
    struct sdc_watch *watch = poll->watch;
    if (!watch || watch->wanted == 0)
        return;
    uint32_t events = ready_events(result) & (watch->wanted | SDC_HANGUP);
    if (events)
        watch->ready(watch, events);
}
