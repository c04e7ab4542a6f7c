// SPDX-License-Identifier: BSD-3-Clause
// Moving a request's bytes. The spans are the submitter's and stay as they are; a cursor goes over them, and
// every step does what one I/O can (1024 spans, a bounce buffer, what the kernel felt like) until nothing is
// left.
#include "backend/block/file.h"
#include "base/check.h"

#include <errno.h>

enum { SPANS_MOST = 1024 };

static bool writes_zeroes(const struct sdc_block_request *request)
{
    return request->op == SDC_BLOCK_WRITE_ZEROES;
}

// Moves the cursor over size bytes.
static void advance(struct sdc_block_request *request, uint64_t size)
{
    struct sdc_file_request *state = sdc_file_state(request);
    state->done += size;
    if (writes_zeroes(request))
        return;
    size += state->span_done;
    for (; size > 0 && size >= request->spans[state->first_span].size; state->first_span++)
        size -= request->spans[state->first_span].size;
    state->span_done = size;
}

// One span of our own: a piece of the zeroes, the bounce buffer, or what is left of a span.
static void use_own_span(struct sdc_file_request *state, void *memory, uint64_t size)
{
    state->span = (struct sdc_span){memory, (size_t)size};
    state->io.spans = &state->span;
    state->io.spans_count = 1;
}

// False: no bounce buffer is free, the request waits for one.
static bool use_bounce(struct sdc_block_request *request)
{
    struct sdc_file_request *state = sdc_file_state(request);
    uint64_t size = sdc_min(request->size - state->done, SDC_FILE_BOUNCE);
    if (!state->bounce)
        state->bounce = sdc_file_bounce_take(request);
    if (!state->bounce)
        return false;
    if (request->op == SDC_BLOCK_WRITE)
        sdc_file_gather(request, state->bounce, size);
    use_own_span(state, state->bounce, size);
    state->bounced = true;
    return true;
}

// The spans that are left. An I/O that ended inside a span goes on with the rest of that alone.
static void use_rest(struct sdc_block_request *request)
{
    struct sdc_file_request *state = sdc_file_state(request);
    while (request->spans[state->first_span].size == 0)
        state->first_span++; // the spans add up to the size, so one that isn't empty follows
    const struct sdc_span *spans = &request->spans[state->first_span];
    if (state->span_done > 0) {
        use_own_span(state, (char *)spans->base + state->span_done, spans->size - state->span_done);
        return;
    }
    state->io.spans = spans;
    state->io.spans_count = (uint32_t)sdc_min(request->spans_count - state->first_span, SPANS_MOST);
}

static bool use_spans(struct sdc_block_request *request)
{
    struct sdc_file_request *state = sdc_file_state(request);
    state->bounced = false;
    use_rest(request);
    return !sdc_file_must_bounce(state->queue->file, state->io.spans, state->io.spans_count) ||
           use_bounce(request);
}

void sdc_file_transfer(struct sdc_block_request *request)
{
    struct sdc_file_request *state = sdc_file_state(request);
    uint64_t left = request->size - state->done;
    if (left == 0) {
        sdc_file_finish(request, 0);
        return;
    }
    if (writes_zeroes(request))
        use_own_span(state, state->queue->file->zeroes, sdc_min(left, SDC_FILE_ZEROES));
    else if (!use_spans(request))
        return;
    state->io.op = request->op == SDC_BLOCK_READ ? SDC_IO_READ : SDC_IO_WRITE;
    state->io.dsync = request->flags & SDC_BLOCK_FUA;
    state->io.offset = request->offset + state->done;
    sdc_loop_io(state->queue->base.loop, &state->io);
}

void sdc_file_transfer_done(struct sdc_block_request *request, int64_t result)
{
    struct sdc_file_request *state = sdc_file_state(request);
    if (result <= 0) {
        // Nothing at all: somebody has cut the file off under us.
        sdc_file_finish(request, result < 0 ? (int)result : -EIO);
        return;
    }
    if (state->bounced && request->op == SDC_BLOCK_READ)
        sdc_file_scatter(request, state->bounce, (uint64_t)result);
    advance(request, (uint64_t)result);
    sdc_file_transfer(request);
}
