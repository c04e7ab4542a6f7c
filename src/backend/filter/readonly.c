// SPDX-License-Identifier: BSD-3-Clause
// Nothing is written. What stands below is opened for reading only (stack.c), so that this is said twice: here before any other filter sees
// the request.
#include "backend/filter/filter.h"

#include <errno.h>

static void info(struct sdc_block *block, struct sdc_block_info *out)
{
    sdc_filter_info(block, out);
    out->read_only = true;
}

static bool keeps(struct sdc_filter_queue *queue, struct sdc_block_request *request)
{
    if (request->op == SDC_BLOCK_READ || request->op == SDC_BLOCK_FLUSH)
        return false;
    sdc_block_finish(&queue->finisher, request, -EROFS);
    return true;
}

static void submit(struct sdc_block_queue *base, struct sdc_block_request **requests, unsigned count)
{
    sdc_filter_pass((struct sdc_filter_queue *)base, requests, count, keeps);
}

static int queue_open(struct sdc_block *block, struct sdc_loop *loop, sdc_block_done *done, void *context, struct sdc_block_queue **queue)
{
    static const struct sdc_block_queue_ops ops = {
        .submit = submit, .cancel = sdc_filter_queue_cancel, .close = sdc_filter_queue_close};
    const struct sdc_block_queue above = {.block = block, .loop = loop, .done = done, .context = context};

    return sdc_filter_queue_plain(&ops, &above, NULL, queue);
}

static const struct sdc_block_ops block_ops = {
    .name = "readonly", .info = info, .queue_open = queue_open, .refresh = sdc_filter_refresh, .close = sdc_filter_close};

static int readonly_open(struct sdc_block *next, const union sdc_filter_options *options, struct sdc_block **block, struct sdc_error *err)
{
    struct sdc_filter *made = sdc_filter_new(sizeof *made, &block_ops, next, err);

    (void)options;
    if (!made)
        return -ENOMEM;
    *block = &made->base;
    return 0;
}

static const struct sdc_options none = {NULL, 0};

const struct sdc_filter_type sdc_filter_readonly = {
    .name = "readonly", .what = "nothing is written", .options = &none, .open = readonly_open};
