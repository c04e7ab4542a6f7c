// SPDX-License-Identifier: BSD-3-Clause
#include "memory/payload.h"

#include "base/check.h"
#include "base/limits.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    PAYLOAD_MOST = SDC_LIMIT_QUEUE_SPANS, // room for so many is not doubled again for a buffer in pieces
    BOUNCE_END = 16,                      // bytes that are bounced of a writable stream that is too long
};

void sdc_payload_init(struct sdc_payload *payload)
{
    payload->spans = payload->few;
    payload->capacity = SDC_PAYLOAD_FEW;
    payload->bouncing = false;
    payload->bounce = NULL;
    payload->segments = NULL;
    payload->segments_count = payload->segments_capacity = 0;
}

void sdc_payload_drop_bounce(struct sdc_payload *payload)
{
    free(payload->bounce);
    free(payload->segments);
    payload->bounce = NULL;
    payload->segments = NULL;
    payload->segments_count = payload->segments_capacity = 0;
}

void sdc_payload_shrink(struct sdc_payload *payload)
{
    if (payload->bouncing)
        sdc_payload_drop_bounce(payload);
    if (payload->capacity > SDC_PAYLOAD_KEEP) {
        free(payload->spans);
        payload->spans = payload->few;
        payload->capacity = SDC_PAYLOAD_FEW;
    }
}

void sdc_payload_destroy(struct sdc_payload *payload)
{
    sdc_payload_drop_bounce(payload);
    if (payload->spans != payload->few)
        free(payload->spans);
}

// --- buffers ---

static int reserve(struct sdc_payload *payload, uint32_t more)
{
    if (payload->capacity - payload->spans_count >= more)
        return 0;
    uint32_t capacity = (payload->capacity + more) * 2;
    struct sdc_span *spans = malloc(capacity * sizeof *spans);
    if (!spans)
        return -ENOMEM;
    memcpy(spans, payload->spans, payload->spans_count * sizeof *spans);
    if (payload->spans != payload->few)
        free(payload->spans);
    payload->spans = spans;
    payload->capacity = capacity;
    return 0;
}

// Not even an empty buffer may have a foreign address: its first byte is looked up.
static uint64_t looked_up(uint32_t size)
{
    return size ? size : 1;
}

// Translates a buffer into spans at the end of the payload.
static int add_spans(struct sdc_payload *payload, struct sdc_memory *memory, uint64_t iova, uint32_t size, enum sdc_access access)
{
    struct sdc_span *out;
    int count, rc = reserve(payload, 1);

    // A buffer may lie in any number of pieces.
    for (;;) {
        if (rc < 0)
            return rc;
        uint32_t room = payload->capacity - payload->spans_count;
        out = &payload->spans[payload->spans_count];
        count = sdc_memory_spans(memory, iova, looked_up(size), access, out, room);
        if (count != -E2BIG || payload->capacity >= PAYLOAD_MOST)
            break;
        rc = reserve(payload, room + 1);
    }
    if (count == -EAGAIN && memory->cache)
        return SDC_PAYLOAD_BOUNCE;
    if (count == -EAGAIN && memory->map->partial)
        return count;
    if (count < 0) {
        payload->fault = count == -EACCES ? -EACCES : -EFAULT;
        *out = (struct sdc_span){NULL, size};
        count = 1;
    }
    if (size > 0)
        sdc_payload_count(payload, size, access, (uint32_t)count);
    return 0;
}

static int grow_segments(struct sdc_payload *payload)
{
    uint32_t capacity = payload->segments_capacity ? payload->segments_capacity * 2 : SDC_PAYLOAD_FEW;
    struct sdc_segment *segments = realloc(payload->segments, capacity * sizeof *segments);
    if (!segments)
        return -ENOMEM;

    payload->segments = segments;
    payload->segments_capacity = capacity;
    return 0;
}

static int note(struct sdc_payload *payload, const struct sdc_segment *segment)
{
    int rc = payload->segments_count == payload->segments_capacity ? grow_segments(payload) : 0;

    if (rc < 0 || segment->size == 0)
        return rc;
    payload->segments[payload->segments_count++] = *segment;
    sdc_payload_count(payload, segment->size, segment->writable ? SDC_ACCESS_WRITE : SDC_ACCESS_READ, 0);
    return 0;
}

// Notes a buffer of a payload that is bounced. One that cannot be reached is not copied.
static int add_segment(struct sdc_payload *payload, struct sdc_memory *memory, uint64_t iova, uint32_t size, enum sdc_access access)
{
    struct sdc_segment segment = {.iova = iova, .size = size, .writable = access == SDC_ACCESS_WRITE};
    int rc = sdc_memory_check(memory, iova, looked_up(size), access);

    if (rc < 0)
        payload->fault = rc;
    segment.remote = rc == 1;
    return note(payload, &segment);
}

int sdc_payload_add_any(struct sdc_payload *payload, struct sdc_memory *memory, uint64_t iova, uint32_t size, enum sdc_access access)
{
    if (payload->bouncing)
        return add_segment(payload, memory, iova, size, access);
    return add_spans(payload, memory, iova, size, access);
}

int sdc_payload_add_nowhere(struct sdc_payload *payload, uint32_t size)
{
    if (!payload->bouncing)
        return SDC_PAYLOAD_BOUNCE;
    return note(payload, &(struct sdc_segment){.size = size, .writable = true, .nowhere = true});
}

// Memory for the two streams of a bounced payload, zeroed: what the device leaves out is not somebody else's data. Of streams that are
// too long there is only the end, where devices say how a request went.
int sdc_payload_make_bounce(struct sdc_payload *payload)
{
    uint64_t size = payload->readable_size + payload->writable_size;
    bool fits = size <= SDC_LIMIT_BOUNCE;

    payload->bounce_size = fits ? size : sdc_min(payload->writable_size, BOUNCE_END);
    payload->unbounced = size - payload->bounce_size;
    payload->bounce = calloc(1, payload->bounce_size + 1);
    if (!payload->bounce)
        return -ENOMEM;
    if (!fits)
        payload->fault = -EFAULT;
    uint64_t end = fits ? payload->writable_size : payload->bounce_size;
    payload->spans[0] = (struct sdc_span){fits ? payload->bounce : NULL, payload->readable_size};
    payload->spans[1] = (struct sdc_span){NULL, payload->writable_size - end};
    payload->spans[2] = (struct sdc_span){payload->bounce + payload->bounce_size - end, end};
    payload->readable_spans = 1;
    payload->spans_count = 3;
    if (fits) {
        payload->spans[1] = payload->spans[2];
        payload->spans_count = 2;
    }
    return 0;
}

// --- the streams ---

// Moves size bytes between local and the stream that spans hold, from offset. A span that is not there is an error only if one
// of its bytes is asked for.
static int move(struct sdc_span *spans, uint32_t count, uint64_t offset, uint8_t *local, size_t size, bool to_guest)
{
    for (uint32_t i = 0; i < count && size > 0; i++) {
        if (offset >= spans[i].size) {
            offset -= spans[i].size;
            continue;
        }
        size_t length = (size_t)sdc_min(spans[i].size - offset, size);
        if (!spans[i].base)
            return -EFAULT;
        uint8_t *guest = (uint8_t *)spans[i].base + offset;
        if (to_guest)
            memcpy(guest, local, length);
        else
            memcpy(local, guest, length);
        local += length;
        size -= length;
        offset = 0;
    }
    return size == 0 ? 0 : -EINVAL;
}

int sdc_payload_read_any(const struct sdc_payload *payload, uint64_t offset, void *local, size_t size)
{
    if (!sdc_within(offset, size, payload->readable_size))
        return -EINVAL;
    return move(payload->spans, payload->readable_spans, offset, local, size, false);
}

int sdc_payload_write_any(const struct sdc_payload *payload, uint64_t offset, const void *local, size_t size)
{
    if (!sdc_within(offset, size, payload->writable_size))
        return -EINVAL;
    return move(payload->spans + payload->readable_spans, payload->spans_count - payload->readable_spans, offset,
                (uint8_t *)(uintptr_t)local, size, true);
}

// Cuts the span at i in two, the first of which has size bytes.
static int cut_one(struct sdc_payload *payload, uint32_t i, bool writable, size_t size)
{
    int rc = reserve(payload, 1);

    if (rc < 0)
        return rc;
    struct sdc_span *span = &payload->spans[i];
    memmove(span + 1, span, (payload->spans_count - i) * sizeof *span);
    span[0].size = size;
    span[1].size -= size;
    if (span[1].base)
        span[1].base = (uint8_t *)span[1].base + size;
    payload->spans_count++;
    payload->readable_spans += !writable;
    return 0;
}

// Makes a boundary between spans at offset bytes from the start of span *at, which becomes the one that begins there.
static int split(struct sdc_payload *payload, bool writable, uint64_t offset, uint32_t *at)
{
    uint32_t i = *at;

    for (; offset > 0 && offset >= payload->spans[i].size; i++)
        offset -= payload->spans[i].size;
    *at = i;
    if (offset == 0)
        return 0;
    ++*at;
    return cut_one(payload, i, writable, (size_t)offset);
}

int sdc_payload_cut(struct sdc_payload *payload, bool writable, uint64_t offset, uint64_t size, const struct sdc_span **spans,
                    uint32_t *count)
{
    uint32_t begin = writable ? payload->readable_spans : 0;

    if (!sdc_within(offset, size, writable ? payload->writable_size : payload->readable_size))
        return -EINVAL;
    int rc = split(payload, writable, offset, &begin);
    uint32_t end = begin;
    if (rc == 0)
        rc = split(payload, writable, size, &end);
    if (rc < 0)
        return rc;
    for (uint32_t i = begin; i < end; i++) {
        if (!payload->spans[i].base)
            return -EFAULT;
    }
    *spans = &payload->spans[begin];
    *count = end - begin;
    return 0;
}
