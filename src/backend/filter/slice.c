// SPDX-License-Identifier: BSD-3-Clause
// A part of a disk as a disk: what begins at an offset, and is of a size or reaches to the end. The image's lock is on that part alone
// (stack.c), so that several slices of one image may be written to at the same time, by one process or several.
#include "backend/filter/filter.h"
#include "base/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>

struct slice {
    struct sdc_filter filter;
    uint64_t offset;
    uint64_t size_most;    // UINT64_MAX: to the end
    _Atomic uint64_t size; // as of the last look: what of the slice the disk below has
    struct sdc_block_info shape; // all but the size
};

static struct slice *slice_of(struct sdc_block *block)
{
    return (struct slice *)(void *)block;
}

// What of the slice a disk of this many bytes has.
static uint64_t part_of(const struct slice *slice, uint64_t bytes)
{
    return bytes > slice->offset ? sdc_min(bytes - slice->offset, slice->size_most) : 0;
}

static void info(struct sdc_block *block, struct sdc_block_info *out)
{
    *out = slice_of(block)->shape;
    out->size = atomic_load_explicit(&slice_of(block)->size, memory_order_relaxed);
}

static int refresh(struct sdc_block *block)
{
    struct slice *slice = slice_of(block);
    struct sdc_block_info below;
    int rc = sdc_filter_refresh(block);

    if (rc < 0)
        return rc;
    sdc_filter_info(block, &below);
    uint64_t size = part_of(slice, below.size);
    return atomic_exchange(&slice->size, size) != size;
}

// --- requests ---

static bool keeps(struct sdc_filter_queue *queue, struct sdc_block_request *request)
{
    const struct slice *slice = slice_of(queue->base.block);

    if (request->op == SDC_BLOCK_FLUSH)
        return false;
    int result = request->op != SDC_BLOCK_READ && slice->shape.read_only ? -EROFS
                 : sdc_within(request->offset, request->size, atomic_load_explicit(&slice->size, memory_order_relaxed))
                     ? 0
                     : -EINVAL;
    if (result < 0)
        sdc_block_finish(&queue->finisher, request, result);
    else
        request->offset += slice->offset;
    return result < 0;
}

static void submit(struct sdc_block_queue *base, struct sdc_block_request **requests, unsigned count)
{
    sdc_filter_pass((struct sdc_filter_queue *)base, requests, count, keeps);
}

// The submitter finds its requests as it made them.
static void slice_done(void *context, struct sdc_block_request **requests, unsigned count)
{
    struct sdc_filter_queue *queue = context;
    uint64_t offset = slice_of(queue->base.block)->offset;

    for (unsigned i = 0; i < count; i++) {
        if (requests[i]->op != SDC_BLOCK_FLUSH)
            requests[i]->offset -= offset;
    }
    queue->base.done(queue->base.context, requests, count);
}

static int queue_open(struct sdc_block *block, struct sdc_loop *loop, sdc_block_done *done, void *context, struct sdc_block_queue **queue)
{
    static const struct sdc_block_queue_ops ops = {
        .submit = submit, .cancel = sdc_filter_queue_cancel, .close = sdc_filter_queue_close};
    const struct sdc_block_queue above = {.block = block, .loop = loop, .done = done, .context = context};

    return sdc_filter_queue_plain(&ops, &above, slice_done, queue);
}

static const struct sdc_block_ops block_ops = {
    .name = "slice", .info = info, .queue_open = queue_open, .refresh = refresh, .close = sdc_filter_close};

// --- opening ---

static int check_alignment(const char *option, uint64_t bytes, uint32_t block_size, struct sdc_error *err)
{
    if (bytes % block_size == 0)
        return 0;
    return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "slice,%s=%" PRIu64 ": not a multiple of the block size %" PRIu32 "; type for "
                         "example %s=%" PRIu64, option, bytes, block_size, option, bytes - bytes % block_size + block_size);
}

static int check_place(const struct sdc_slice_options *options, const struct sdc_block_info *below, struct sdc_error *err)
{
    int rc = check_alignment("offset", options->offset, below->block_size, err);

    if (rc == 0)
        rc = check_alignment("size", options->size, below->block_size, err);
    if (rc < 0)
        return rc;
    if (options->offset >= below->size)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "slice,offset=%" PRIu64 ": the disk ends before, after %" PRIu64 " bytes",
                             options->offset, below->size);
    if (!sdc_within(options->offset, options->size, below->size))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "slice,offset=%" PRIu64 ",size=%" PRIu64 ": the disk has %" PRIu64 " bytes from "
                             "there on; type for example size=%" PRIu64 ", or leave size out", options->offset, options->size,
                             below->size - options->offset, below->size - options->offset);
    return 0;
}

// The largest unit that this one and the slice's beginning are multiples of. Both are whole blocks.
static uint32_t common_unit(uint32_t unit, uint64_t offset)
{
    uint64_t a = unit, b = offset;

    while (b != 0) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return (uint32_t)a;
}

// What the disk below does best in units of its own, the slice does in units that begin where it begins.
static void describe(struct slice *slice)
{
    struct sdc_block_info *shape = &slice->shape;

    shape->physical_block_size = common_unit(shape->physical_block_size, slice->offset);
    shape->discard_granularity = common_unit(shape->discard_granularity, shape->discard_granularity ? slice->offset : 0);
    if (shape->optimal_io_size && slice->offset % shape->optimal_io_size != 0)
        shape->optimal_io_size = 0;
}

static int slice_check(const union sdc_filter_options *options, struct sdc_error *err)
{
    if (options->slice.offset > 0 || options->slice.size > 0)
        return 0;
    return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "slice: it is not said which part; type for example "
                         "slice,offset=1G,size=4G:disk.img");
}

static int slice_open(struct sdc_block *next, const union sdc_filter_options *options, struct sdc_block **block, struct sdc_error *err)
{
    struct sdc_block_info below;

    next->ops->info(next, &below);
    int rc = check_place(&options->slice, &below, err);
    if (rc < 0)
        return rc;
    struct slice *made = sdc_filter_new(sizeof *made, &block_ops, next, err);
    if (!made)
        return -ENOMEM;
    made->offset = options->slice.offset;
    made->size_most = options->slice.size ? options->slice.size : UINT64_MAX;
    made->shape = below;
    atomic_init(&made->size, part_of(made, below.size));
    describe(made);
    *block = &made->filter.base;
    return 0;
}

#define SLICE(member) SDC_OPTION_AT(union sdc_filter_options, slice.member)

static const struct sdc_option rows[] = {
    {"offset", SDC_OPTION_SIZE, SLICE(offset), 0, INT64_MAX, "1G", NULL},
    {"size", SDC_OPTION_SIZE, SLICE(size), 512, INT64_MAX, "4G", NULL},
};
static const struct sdc_options options = {rows, SDC_COUNT(rows)};

const struct sdc_filter_type sdc_filter_slice = {
    .name = "slice", .what = "a part of the disk", .options = &options, .check = slice_check, .open = slice_open};
