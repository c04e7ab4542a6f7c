// SPDX-License-Identifier: BSD-3-Clause
// What block backends share.
#include "backend/block/common.h"

#include "base/check.h"

#include <errno.h>
#include <stddef.h>

enum { DONE_BATCH = 64 };

static bool spans_add_up(const struct sdc_block_request *request)
{
    if (request->spans_count == 1) // mostly
        return request->spans->size == request->size;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < request->spans_count; i++)
        if (!sdc_add(sum, request->spans[i].size, &sum))
            return false;
    return sum == request->size;
}

int sdc_block_check(const struct sdc_block_request *request, uint64_t size, uint32_t block_size,
                    bool read_only)
{
    if (request->op == SDC_BLOCK_FLUSH)
        return 0;
    if (request->op != SDC_BLOCK_READ && read_only)
        return -EROFS;
    if (((request->offset | request->size) & (block_size - 1)) ||
        !sdc_within(request->offset, request->size, size))
        return -EINVAL;
    bool transfer = request->op == SDC_BLOCK_READ || request->op == SDC_BLOCK_WRITE;
    return transfer && !spans_add_up(request) ? -EINVAL : 0;
}

void sdc_block_list_add(struct sdc_block_list *list, struct sdc_block_request *request)
{
    request->next = NULL;
    if (list->first)
        list->last->next = request;
    else
        list->first = request;
    list->last = request;
}

struct sdc_block_request *sdc_block_list_take(struct sdc_block_list *list)
{
    struct sdc_block_request *request = list->first;
    if (request)
        list->first = request->next;
    return request;
}

// --- finishing ---

static void post_finisher(struct sdc_block_finisher *finisher)
{
    finisher->posted = true;
    sdc_loop_post(finisher->queue->loop, &finisher->post);
}

static void tell(struct sdc_block_finisher *finisher)
{
    struct sdc_block_queue *queue = finisher->queue;
    struct sdc_block_list list = finisher->finished;
    bool gone = false;
    finisher->finished = (struct sdc_block_list){0};
    finisher->gone = &gone;
    while (list.first && !gone) {
        struct sdc_block_request *batch[DONE_BATCH];
        unsigned count = 0;
        while (count < DONE_BATCH && list.first)
            batch[count++] = sdc_block_list_take(&list);
        queue->done(queue->context, batch, count);
    }
    if (gone)
        return;
    finisher->gone = NULL;
    if (finisher->finished.first)
        post_finisher(finisher);
}

static void tell_deferred(struct sdc_deferred *deferred)
{
    tell(sdc_container(deferred, struct sdc_block_finisher, deferred));
}

static void tell_posted(struct sdc_post *post)
{
    struct sdc_block_finisher *finisher = sdc_container(post, struct sdc_block_finisher, post);
    finisher->posted = false;
    tell(finisher);
}

void sdc_block_finisher_init(struct sdc_block_finisher *finisher, struct sdc_block_queue *queue)
{
    *finisher =
        (struct sdc_block_finisher){.queue = queue, .deferred.run = tell_deferred, .post.run = tell_posted};
}

void sdc_block_finisher_close(struct sdc_block_finisher *finisher)
{
    sdc_loop_undefer(finisher->queue->loop, &finisher->deferred);
    if (finisher->gone)
        *finisher->gone = true;
}

void sdc_block_finish_all(struct sdc_block_finisher *finisher, struct sdc_block_request **requests, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        sdc_block_list_add(&finisher->finished, requests[i]);
    // One way of telling at a time: a post that found nothing to tell could outlive the queue.
    if (!finisher->gone && !finisher->posted)
        sdc_loop_defer(finisher->queue->loop, &finisher->deferred);
}

void sdc_block_finish(struct sdc_block_finisher *finisher, struct sdc_block_request *request, int result)
{
    request->result = result;
    sdc_block_finish_all(finisher, &request, 1);
}
