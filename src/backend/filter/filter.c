// SPDX-License-Identifier: BSD-3-Clause
#include "backend/filter/filter.h"

#include "base/hash.h"
#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { REST_S = 86400 };

void *sdc_filter_new(size_t size, const struct sdc_block_ops *ops, struct sdc_block *next, struct sdc_error *err)
{
    // Whole cache lines, for who has words in it that several loops write to.
    size_t lines = (size + 63) & ~(size_t)63;
    struct sdc_filter *filter = aligned_alloc(64, lines);

    if (!filter) {
        sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a filter");
        return NULL;
    }
    memset(filter, 0, lines);
    filter->base.ops = ops;
    filter->next = next;
    return filter;
}

void sdc_filter_info(struct sdc_block *block, struct sdc_block_info *info)
{
    struct sdc_block *next = ((struct sdc_filter *)block)->next;

    next->ops->info(next, info);
}

int sdc_filter_refresh(struct sdc_block *block)
{
    struct sdc_block *next = ((struct sdc_filter *)block)->next;

    return next->ops->refresh ? next->ops->refresh(next) : 0;
}

void sdc_filter_close(struct sdc_block *block)
{
    struct sdc_block *next = ((struct sdc_filter *)block)->next;

    free(block);
    next->ops->close(next);
}

// --- queues ---

int sdc_filter_queue_new(size_t size, const struct sdc_block_queue_ops *ops, const struct sdc_block_queue *above, sdc_block_done *done,
                         struct sdc_filter_queue **queue)
{
    struct sdc_block *next = ((struct sdc_filter *)above->block)->next;
    struct sdc_filter_queue *made = calloc(1, size);

    if (!made)
        return -ENOMEM;
    made->base = *above;
    made->base.ops = ops;
    sdc_block_finisher_init(&made->finisher, &made->base);
    int rc = next->ops->queue_open(next, above->loop, done ? done : above->done, done ? made : above->context, &made->next);
    if (rc < 0)
        free(made);
    else
        *queue = made;
    return rc;
}

int sdc_filter_queue_plain(const struct sdc_block_queue_ops *ops, const struct sdc_block_queue *above, sdc_block_done *done,
                           struct sdc_block_queue **queue)
{
    struct sdc_filter_queue *made;
    int rc = sdc_filter_queue_new(sizeof *made, ops, above, done, &made);

    if (rc == 0)
        *queue = &made->base;
    return rc;
}

void sdc_filter_queue_cancel(struct sdc_block_queue *base)
{
    struct sdc_block_queue *next = ((struct sdc_filter_queue *)base)->next;

    if (next->ops->cancel)
        next->ops->cancel(next);
}

void sdc_filter_queue_close(struct sdc_block_queue *base)
{
    struct sdc_filter_queue *queue = (struct sdc_filter_queue *)base;

    sdc_block_finisher_close(&queue->finisher);
    queue->next->ops->close(queue->next);
    free(queue);
}

uint64_t sdc_filter_random(uint64_t seed, uint64_t number)
{
    return sdc_hash_mix(sdc_hash_mix(seed + UINT64_C(0x9e3779b97f4a7c15)) + number * UINT64_C(0x9e3779b97f4a7c15));
}

// --- timers ---

int sdc_filter_timer_start(struct sdc_filter_queue *queue, struct sdc_timer *timer)
{
    return sdc_loop_timer_set(queue->base.loop, timer, REST_S * UINT64_C(1000000000));
}

void sdc_filter_timer_set(struct sdc_filter_queue *queue, struct sdc_timer *timer, uint64_t after_ns)
{
    // It has its place, or has given it up just now.
    if (sdc_loop_timer_set(queue->base.loop, timer, after_ns) < 0)
        sdc_bug("a timer that was set cannot be moved");
}

void sdc_filter_timer_rest(struct sdc_filter_queue *queue, struct sdc_timer *timer)
{
    sdc_filter_timer_set(queue, timer, REST_S * UINT64_C(1000000000));
}
