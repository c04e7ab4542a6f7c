// SPDX-License-Identifier: BSD-3-Clause
// The data of one request as its device gets it: buffers of guest memory translated to spans, those that the device reads first, then
// those that it writes. Each kind is one stream, however the driver laid it out.
//
// A payload of which any buffer is in remote memory, or nowhere, is bounced as a whole: its two streams are two spans of memory of ours,
// and its segments say where they come from and go to. Who takes it fills and empties it.
#pragma once

#include "base/check.h"
#include "memory/map.h"

#include <string.h>

enum {
    SDC_PAYLOAD_FEW = 8,
    SDC_PAYLOAD_KEEP = 64,  // spans that a payload keeps room for from one request to the next
    SDC_PAYLOAD_BOUNCE = 1, // sdc_payload_add
};

// A buffer of a payload that is bounced.
struct sdc_segment {
    uint64_t iova;
    uint32_t size;
    bool writable;
    bool remote;  // a part of it is
    bool nowhere; // writable, and nobody wants it
};

// Reused from request to request.
struct sdc_payload {
    int fault; // 0; -EFAULT, -EACCES: a buffer is not in guest memory
    bool bouncing; // buffers become segments
    uint64_t readable_size;
    uint64_t writable_size;
    uint32_t readable_spans;
    uint32_t spans_count; // readable and writable ones
    uint32_t capacity;
    uint32_t segments_count;
    struct sdc_span *spans; // few, or allocated. A span with base NULL could not be translated
    uint8_t *bounce;        // NULL: not bounced
    struct sdc_span few[SDC_PAYLOAD_FEW];
    uint64_t bounce_size;
    uint64_t unbounced;   // bytes of the two streams before those in bounce: not zero when they are too long for it
    struct sdc_segment *segments;
    uint32_t segments_capacity;
};

void sdc_payload_init(struct sdc_payload *payload);
// Gives back what a large or a bounced request made it allocate.
void sdc_payload_shrink(struct sdc_payload *payload);
static inline void sdc_payload_trim(struct sdc_payload *payload)
{
    if (payload->bouncing || payload->capacity > SDC_PAYLOAD_KEEP)
        sdc_payload_shrink(payload);
}
void sdc_payload_destroy(struct sdc_payload *payload);

void sdc_payload_drop_bounce(struct sdc_payload *payload);
// Forgets the buffers of the request before. Those to come are translated; with bounce, they are noted for a bounce.
static inline void sdc_payload_begin(struct sdc_payload *payload, bool bounce)
{
    if (payload->bouncing)
        sdc_payload_drop_bounce(payload);
    payload->bouncing = bounce;
    payload->fault = 0;
    payload->readable_size = payload->writable_size = 0;
    payload->readable_spans = payload->spans_count = 0;
}

// sdc_payload_add, whatever the buffer.
int sdc_payload_add_any(struct sdc_payload *payload, struct sdc_memory *memory, uint64_t iova, uint32_t size, enum sdc_access access);

static inline void sdc_payload_count(struct sdc_payload *payload, uint32_t size, enum sdc_access access, uint32_t spans)
{
    payload->spans_count += spans;
    if (access == SDC_ACCESS_WRITE) {
        payload->writable_size += size;
    } else {
        payload->readable_size += size;
        payload->readable_spans += spans;
    }
}

// sdc_payload_add of memory that is at hand: one span. False: nothing was added, it has to be looked for.
static inline bool sdc_payload_add_at_hand(struct sdc_payload *payload, const struct sdc_memory *memory, uint64_t iova, uint32_t size,
                                           enum sdc_access access)
{
    uint32_t at = payload->spans_count;

    if (payload->bouncing || size == 0 || at >= payload->capacity)
        return false;
    uint8_t *host = sdc_memory_at_hand(memory, iova, size, access);
    if (!host)
        return false;
    payload->spans[at] = (struct sdc_span){host, size};
    sdc_payload_count(payload, size, access, 1);
    return true;
}

// Adds a buffer at the end of the stream that access names; none to read comes behind one to write. What cannot be reached keeps its
// place and length, and sets ->fault. 0, -ENOMEM, SDC_PAYLOAD_BOUNCE: begin again with a bounce (it is remote, and memory's owner
// can reach that), or of a partial map -EAGAIN: begin again when memory has what is missing, or denies it.
static inline int sdc_payload_add(struct sdc_payload *payload, struct sdc_memory *memory, uint64_t iova, uint32_t size,
                                  enum sdc_access access)
{
    // Each request comes here a few times.
    if (sdc_payload_add_at_hand(payload, memory, iova, size, access))
        return 0;
    return sdc_payload_add_any(payload, memory, iova, size, access);
}

// Adds writable bytes that nobody wants. They need a bounce. Likewise.
int sdc_payload_add_nowhere(struct sdc_payload *payload, uint32_t size);
int sdc_payload_make_bounce(struct sdc_payload *payload);
// That was the last one. 0, -ENOMEM.
static inline int sdc_payload_end(struct sdc_payload *payload)
{
    return payload->bouncing ? sdc_payload_make_bounce(payload) : 0;
}

int sdc_payload_read_any(const struct sdc_payload *payload, uint64_t offset, void *local, size_t size);
int sdc_payload_write_any(const struct sdc_payload *payload, uint64_t offset, const void *local, size_t size);

// The readable or writable stream's bytes [offset, offset + size). 0, -EINVAL (past the end), -EFAULT.
static inline int sdc_payload_read(const struct sdc_payload *payload, uint64_t offset, void *local, size_t size)
{
    const struct sdc_span *first = payload->spans;

    // A header begins the stream,
    if (payload->readable_spans == 0 || !sdc_within(offset, size, first->size) || !first->base)
        return sdc_payload_read_any(payload, offset, local, size);
    memcpy(local, (const uint8_t *)first->base + offset, size);
    return 0;
}

static inline int sdc_payload_write(const struct sdc_payload *payload, uint64_t offset, const void *local, size_t size)
{
    uint32_t count = payload->spans_count;
    const struct sdc_span *last = count > payload->readable_spans ? &payload->spans[count - 1] : NULL;

    // and a status ends the other.
    if (!last || !last->base || offset < payload->writable_size - last->size || !sdc_within(offset, size, payload->writable_size))
        return sdc_payload_write_any(payload, offset, local, size);
    memcpy((uint8_t *)last->base + (last->size - (payload->writable_size - offset)), local, size);
    return 0;
}

int sdc_payload_cut(struct sdc_payload *payload, bool writable, uint64_t offset, uint64_t size, const struct sdc_span **spans,
                    uint32_t *count);
// The spans of that range of one stream, cut so that they cover nothing else; the streams stay what they are. Good until the next
// call. 0, -EINVAL, -EFAULT, -ENOMEM.
static inline int sdc_payload_spans(struct sdc_payload *payload, bool writable, uint64_t offset, uint64_t size,
                                    const struct sdc_span **spans, uint32_t *count)
{
    const struct sdc_span *span = payload->spans + (writable ? payload->readable_spans : 0);
    const struct sdc_span *end = payload->spans + (writable ? payload->spans_count : payload->readable_spans);

    // Data mostly is one buffer, alone or behind a header, and the driver has cut it already.
    if (offset > 0 && span < end && offset == span->size)
        span++;
    else if (offset > 0)
        span = end;
    if (span == end || span->size != size || !span->base)
        return sdc_payload_cut(payload, writable, offset, size, spans, count);
    *spans = span;
    *count = 1;
    return 0;
}
