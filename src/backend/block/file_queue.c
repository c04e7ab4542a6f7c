// SPDX-License-Identifier: BSD-3-Clause
// A loop's queue on a file, and the requests that wait until the image is ours.
#include "backend/block/file.h"
#include "base/check.h"

#include <errno.h>
#include <stdlib.h>

#define RETRY_NS UINT64_C(50000000)

static void start(struct sdc_file_queue *queue, struct sdc_block_request *request)
{
    if (queue->refused)
        sdc_block_finish(&queue->finisher, request, -EBUSY);
    else
        sdc_file_start(queue, request);
}

static void submit(struct sdc_block_queue *base, struct sdc_block_request **requests, unsigned count)
{
    struct sdc_file_queue *queue = (struct sdc_file_queue *)base;
    bool ours = !queue->waiting && !queue->refused;
    for (unsigned i = 0; i < count;) {
        unsigned merged = ours ? sdc_file_merge(queue, &requests[i], count - i) : 0;
        if (merged > 0) {
            i += merged;
            continue;
        }
        if (queue->waiting)
            sdc_block_list_add(&queue->held, requests[i]);
        else
            start(queue, requests[i]);
        i++;
    }
}

// The lock is ours, or it was waited for long enough. In the second case it is still tried for: whoever has
// it may end, and then the disk works again.
static void try_lock(struct sdc_timer *timer)
{
    struct sdc_file_queue *queue = sdc_container(timer, struct sdc_file_queue, retry);
    int ret = sdc_file_lock_try(queue->file);
    queue->waiting = ret == -EAGAIN;
    queue->refused = ret == -EBUSY;
    if (ret < 0)
        sdc_loop_timer_set(queue->base.loop, timer, RETRY_NS); // its place was freed just now
    if (queue->waiting)
        return;
    struct sdc_block_request *request;
    while ((request = sdc_block_list_take(&queue->held)))
        start(queue, request);
}

static void cancel(struct sdc_block_queue *base)
{
    struct sdc_file_queue *queue = (struct sdc_file_queue *)base;
    struct sdc_block_request *request;
    while ((request = sdc_block_list_take(&queue->held)))
        sdc_block_finish(&queue->finisher, request, -ECANCELED);
}

static void close_queue(struct sdc_block_queue *base)
{
    struct sdc_file_queue *queue = (struct sdc_file_queue *)base;
    sdc_loop_timer_clear(base->loop, &queue->retry);
    sdc_block_finisher_close(&queue->finisher);
    sdc_loop_file_remove(base->loop, queue->number);
    sdc_file_lock_leave(queue->file);
    sdc_file_bounces_free(queue);
    sdc_file_groups_free(queue);
    free(queue);
}

static const struct sdc_block_queue_ops queue_ops = {
    .submit = submit, .cancel = cancel, .close = close_queue};

static int prepare(struct sdc_file_queue *queue)
{
    int ret = sdc_file_bounces_init(queue);
    if (ret < 0)
        return ret;
    queue->number = sdc_loop_file_add(queue->base.loop, queue->file->fd);
    if (queue->number < 0)
        return queue->number;
    ret = sdc_file_lock_enter(queue->file);
    if (ret == 0)
        return 0;
    queue->waiting = ret == -EAGAIN;
    queue->refused = ret == -EBUSY;
    ret = sdc_loop_timer_set(queue->base.loop, &queue->retry, RETRY_NS);
    if (ret < 0) {
        sdc_file_lock_leave(queue->file);
        sdc_loop_file_remove(queue->base.loop, queue->number);
    }
    return ret;
}

int sdc_file_queue_open(struct sdc_block *block, struct sdc_loop *loop, sdc_block_done *done, void *context,
                        struct sdc_block_queue **queue)
{
    struct sdc_file_queue *made = calloc(1, sizeof *made);
    if (!made)
        return -ENOMEM;
    made->base = (struct sdc_block_queue){&queue_ops, block, loop, done, context};
    made->file = (struct sdc_file *)block;
    made->retry.expired = try_lock;
    sdc_block_finisher_init(&made->finisher, &made->base);
    int ret = prepare(made);
    if (ret < 0) {
        sdc_file_bounces_free(made);
        free(made);
        return ret;
    }
    *queue = &made->base;
    return 0;
}
