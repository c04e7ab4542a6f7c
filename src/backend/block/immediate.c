// SPDX-License-Identifier: BSD-3-Clause
#include "backend/block/immediate.h"

#include <errno.h>
#include <stdlib.h>

struct immediate_queue {
    struct sdc_block_queue base;
    struct sdc_block_finisher finisher;
};

static void submit(struct sdc_block_queue *base, struct sdc_block_request **requests, unsigned count)
{
    struct immediate_queue *queue = (struct immediate_queue *)base;
    struct sdc_immediate *disk = (struct sdc_immediate *)base->block;
    const struct sdc_block_info *info = &disk->info;
    for (unsigned i = 0; i < count; i++) {
        if (disk->announce && i + 1 < count)
            disk->announce(disk, requests[i + 1]);
        requests[i]->result = sdc_block_check(requests[i], info->size, info->block_size, info->read_only);
        if (requests[i]->result == 0 && disk->execute)
            disk->execute(disk, requests[i]);
    }
    sdc_block_finish_all(&queue->finisher, requests, count);
}

static void close_queue(struct sdc_block_queue *base)
{
    struct immediate_queue *queue = (struct immediate_queue *)base;
    sdc_block_finisher_close(&queue->finisher);
    free(queue);
}

int sdc_immediate_queue_open(struct sdc_block *block, struct sdc_loop *loop, sdc_block_done *done, void *context,
                             struct sdc_block_queue **queue)
{
    static const struct sdc_block_queue_ops ops = {.submit = submit, .close = close_queue};
    struct immediate_queue *made = calloc(1, sizeof *made);
    if (!made)
        return -ENOMEM;
    made->base = (struct sdc_block_queue){&ops, block, loop, done, context};
    sdc_block_finisher_init(&made->finisher, &made->base);
    *queue = &made->base;
    return 0;
}

void sdc_immediate_info(struct sdc_block *block, struct sdc_block_info *out)
{
    *out = ((struct sdc_immediate *)block)->info;
}
