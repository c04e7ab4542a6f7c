// SPDX-License-Identifier: BSD-3-Clause
// The null backend: a disk without anything behind it.
#include "backend/block/block.h"
#include "backend/block/common.h"

#include <errno.h>
#include <stdlib.h>

struct null_block {
    struct sdc_block base;
    struct sdc_block_info info;
};

struct null_queue {
    struct sdc_block_queue base;
    struct sdc_block_finisher finisher;
};

static void submit(struct sdc_block_queue *base, struct sdc_block_request **requests, unsigned count)
{
    struct null_queue *queue = (struct null_queue *)base;
    const struct sdc_block_info *info = &((struct null_block *)base->block)->info;
    for (unsigned i = 0; i < count; i++)
        sdc_block_finish(&queue->finisher, requests[i],
                         sdc_block_check(requests[i], info->size, info->block_size, info->read_only));
}

static void close_queue(struct sdc_block_queue *base)
{
    struct null_queue *queue = (struct null_queue *)base;
    sdc_block_finisher_close(&queue->finisher);
    free(queue);
}

static const struct sdc_block_queue_ops queue_ops = {.submit = submit, .close = close_queue};

static int open_queue(struct sdc_block *block, struct sdc_loop *loop, sdc_block_done *done, void *context,
                      struct sdc_block_queue **queue)
{
    struct null_queue *made = calloc(1, sizeof *made);
    if (!made)
        return -ENOMEM;
    made->base = (struct sdc_block_queue){&queue_ops, block, loop, done, context};
    sdc_block_finisher_init(&made->finisher, &made->base);
    *queue = &made->base;
    return 0;
}

static void info(struct sdc_block *block, struct sdc_block_info *out)
{
    *out = ((struct null_block *)block)->info;
}

static void close_block(struct sdc_block *block)
{
    free(block);
}

static const struct sdc_block_ops ops = {
    .name = "null", .info = info, .queue_open = open_queue, .close = close_block};

int sdc_block_open_null(uint64_t size, const struct sdc_block_open_options *options, struct sdc_block **block,
                        struct sdc_error *err)
{
    struct null_block *made = calloc(1, sizeof *made);
    if (!made)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "out of memory for a backend");
    uint32_t block_size = options->block_size ? options->block_size : 512;
    made->base.ops = &ops;
    made->info = (struct sdc_block_info){.size = size,
                                         .block_size = block_size,
                                         .physical_block_size = block_size,
                                         .discard_granularity = block_size,
                                         .read_only = options->read_only};
    *block = &made->base;
    return 0;
}
