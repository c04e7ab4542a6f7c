// SPDX-License-Identifier: BSD-3-Clause
// What I/O between a backend and its loop can come to: another result, or less than was asked for. For tests that stand between the two
// with __wrap_sdc_loop_io (-Wl,--wrap=sdc_loop_io).
#pragma once

#include "block_fixture.h"

void __real_sdc_loop_io(struct sdc_loop *loop, struct sdc_io *io);
void __wrap_sdc_loop_io(struct sdc_loop *loop, struct sdc_io *io);

struct io_fault {
    struct sdc_post post;
    struct sdc_io *io;
    int64_t result;
};

static void io_end_now(struct sdc_post *post)
{
    struct io_fault *fault = sdc_container(post, struct io_fault, post);
    struct sdc_io *io = fault->io;
    io->result = fault->result;
    free(fault);
    io->done(io);
}

// Ends the I/O with this result, which nothing of it was done for, in a later turn.
static void io_end(struct sdc_loop *loop, struct sdc_io *io, int64_t result)
{
    struct io_fault *fault = malloc(sizeof *fault);
    *fault = (struct io_fault){.post.run = io_end_now, .io = io, .result = result};
    sdc_loop_post(loop, &fault->post);
}

static uint64_t io_size(const struct sdc_io *io)
{
    uint64_t size = 0;
    for (uint32_t i = 0; i < io->spans_count; i++)
        size += io->spans[i].size;
    return size;
}

// The spans of I/O that was cut belong to nobody until the test ends.
static struct sdc_span *io_cuts[100000];
static unsigned io_cuts_count;

// Leaves the first bytes of a transfer, as many as `left`. False: there is no room to remember more cuts.
static bool io_cut(struct sdc_io *io, uint64_t left)
{
    uint32_t count = 0;

    if (io_cuts_count == SDC_COUNT(io_cuts))
        return false;
    struct sdc_span *spans = calloc(io->spans_count, sizeof *spans);
    io_cuts[io_cuts_count++] = spans;
    for (; left > 0; count++) {
        spans[count] = io->spans[count];
        spans[count].size = (size_t)sdc_min(left, spans[count].size);
        left -= spans[count].size;
    }
    io->spans = spans;
    io->spans_count = count;
    return true;
}

static void io_forget_cuts(void)
{
    while (io_cuts_count > 0)
        free(io_cuts[--io_cuts_count]);
}
