// SPDX-License-Identifier: BSD-3-Clause
// Sends on io_uring. They are told not to wait, so that the kernel does each as it takes it from the submission queue, and to say nothing
// where it went well: a thread that goes to sleep in the same call sleeps on. What failed is heard of in the dispatch behind it,
// before anything else could be sent; after that dispatch those that are down have gone.
#include "loop/uring.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static void append(struct sdc_send *send, const void *bytes, size_t size)
{
    memcpy(send->bytes + send->size, bytes, size);
    send->size += (uint32_t)size;
}

static void take_out(struct sdc_send **list, struct sdc_send *send)
{
    while (*list && *list != send)
        list = &(*list)->next;
    if (*list)
        *list = send->next;
}

int sdc_uring_send(struct sdc_loop *loop, struct sdc_send *send, const void *bytes, size_t size)
{
    struct sdc_uring *uring = loop->engine;

    if (uring->cannot_send && send->size == 0)
        return 0;
    if (send->down || size > SDC_SEND_MOST - send->size)
        return send->size > 0 ? -EAGAIN : 0;
    if (send->size == 0) {
        send->next = uring->sends;
        uring->sends = send;
    }
    append(send, bytes, size);
    return 1;
}

static uint64_t tag_of(const struct sdc_send *send)
{
    return send->number * (SDC_URING_TAGS + 1) | SDC_URING_SEND;
}

bool sdc_uring_start_sends(struct sdc_uring *uring)
{
    while (uring->sends) {
        struct io_uring_sqe *sqe = sdc_uring_sqe(uring);
        if (!sqe)
            return false;
        struct sdc_send *send = uring->sends;
        uring->sends = send->next;
        io_uring_prep_send(sqe, send->fd, send->bytes, send->size, MSG_DONTWAIT | MSG_NOSIGNAL);
        sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
        send->number = ++uring->sends_count;
        io_uring_sqe_set_data64(sqe, tag_of(send));
        send->down = sqe;
        send->behind = uring->ring.sq.sqe_tail;
        send->next = uring->down;
        uring->down = send;
        uring->urgent = true;
    }
    return true;
}

static void end(struct sdc_send *send, int error)
{
    uint32_t size = send->size;

    send->size = 0;
    send->down = NULL;
    if (error < 0)
        send->failed(send, size);
}

void sdc_uring_send_failed(struct sdc_uring *uring, uint64_t number, int result)
{
    struct sdc_send *send = uring->down;

    while (send && send->number != number)
        send = send->next;
    if (!send)
        return; // nobody wants to know
    uring->cannot_send |= result == -EINVAL; // an older kernel
    take_out(&uring->down, send);
    end(send, result < 0 ? result : -EIO);
}

void sdc_uring_end_sends(struct sdc_uring *uring)
{
    unsigned flags = __atomic_load_n(uring->ring.sq.kflags, __ATOMIC_RELAXED);

    if (!uring->down || io_uring_sq_ready(&uring->ring) > 0 || flags & IORING_SQ_CQ_OVERFLOW)
        return;
    while (uring->down) {
        struct sdc_send *send = uring->down;
        uring->down = send->next;
        end(send, 0);
    }
}

// Whether the kernel has taken it from the submission queue. It may have taken that and not what is behind it.
static bool is_taken(const struct sdc_uring *uring, const struct sdc_send *send)
{
    return (int32_t)(io_uring_smp_load_acquire(uring->ring.sq.khead) - send->behind) >= 0;
}

// What became of one that was taken: the kernel tells of a failure only, and has by now.
static int result_of(struct sdc_uring *uring, const struct sdc_send *send)
{
    struct io_uring_cqe *cqe;
    unsigned head;

    io_uring_for_each_cqe(&uring->ring, head, cqe) {
        if (cqe->user_data == tag_of(send))
            return cqe->res;
    }
    return 0;
}

void sdc_uring_unsend(struct sdc_loop *loop, struct sdc_send *send)
{
    struct sdc_uring *uring = loop->engine;
    struct io_uring_sqe *sqe = send->down;

    if (send->size == 0)
        return;
    if (sqe && uring->enabled && !is_taken(uring, send))
        io_uring_submit(&uring->ring);
    bool taken = sqe && is_taken(uring, send);
    if (sqe && !taken) { // the kernel takes nothing just now, and must not find the fd of somebody else later
        io_uring_prep_nop(sqe);
        sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
        io_uring_sqe_set_data64(sqe, SDC_URING_CANCEL);
    }
    take_out(sqe ? &uring->down : &uring->sends, send);
    end(send, taken ? result_of(uring, send) : -ECANCELED);
}
