// SPDX-License-Identifier: BSD-3-Clause
// The null backend: a disk without anything behind it.
#include "backend/block/block.h"
#include "backend/block/immediate.h"

#include <errno.h>
#include <stdlib.h>

static void close_block(struct sdc_block *block)
{
    free(block);
}

static const struct sdc_block_ops ops = {
    .name = "null", .info = sdc_immediate_info, .queue_open = sdc_immediate_queue_open, .close = close_block};

int sdc_block_open_null(uint64_t size, const struct sdc_block_open_options *options, struct sdc_block **block,
                        struct sdc_error *err)
{
    struct sdc_immediate *made = calloc(1, sizeof *made);
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
