// SPDX-License-Identifier: BSD-3-Clause
#include "ring/chain.h"

#include "base/check.h"
#include "base/limits.h"
#include "ring/inflight.h"

#include <errno.h>
#include <stdlib.h>

enum {
    CHAIN_KEEP = 64,                    // spans that a request keeps for the next one
    CHAIN_MOST = SDC_LIMIT_QUEUE_SPANS, // room for so many is not doubled again for a buffer in pieces
    BOUNCE_END = 16,                    // bytes that are bounced of a writable stream that is too long
};

void sdc_chain_init(struct sdc_chain *chain)
{
    chain->spans = chain->few;
    chain->capacity = SDC_CHAIN_FEW;
    chain->bounce = NULL;
    chain->segments = NULL;
    chain->segments_count = chain->segments_capacity = 0;
}

static void drop_bounce(struct sdc_chain *chain)
{
    free(chain->bounce);
    free(chain->segments);
    chain->bounce = NULL;
    chain->segments = NULL;
    chain->segments_count = chain->segments_capacity = 0;
}

void sdc_chain_trim(struct sdc_chain *chain)
{
    if (chain->bounce)
        drop_bounce(chain);
    if (chain->capacity > CHAIN_KEEP) {
        free(chain->spans);
        chain->spans = chain->few;
        chain->capacity = SDC_CHAIN_FEW;
    }
}

void sdc_chain_destroy(struct sdc_chain *chain)
{
    drop_bounce(chain);
    if (chain->spans != chain->few)
        free(chain->spans);
}

// --- the walk ---

static int broken(struct sdc_iterator *it, const char *reason)
{
    it->broken = reason;
    return -EPROTO;
}

// Goes on in the table that desc points to (virtio 1.2, 2.7.5.3).
static int enter_indirect(struct sdc_iterator *it, const struct sdc_desc *desc)
{
    if (!it->indirect_allowed)
        return broken(it, "an indirect descriptor, but VIRTIO_F_INDIRECT_DESC was not negotiated");
    if (it->table == &it->indirect)
        return broken(it, "an indirect descriptor inside an indirect table");
    if (desc->flags & SDC_DESC_F_NEXT)
        return broken(it, "an indirect descriptor with NEXT set");
    if (desc->length == 0 || desc->length % SDC_DESC_SIZE != 0)
        return broken(it, "the length of an indirect table is not a multiple of 16, or zero");
    if (desc->length / SDC_DESC_SIZE > SDC_LIMIT_INDIRECT)
        return broken(it, "an indirect table of more than 32768 descriptors");

    it->indirect = (struct sdc_area){.iova = desc->address, .size = desc->length};
    int rc = sdc_area_resolve(&it->indirect, it->memory, SDC_ACCESS_READ, 1);
    if (rc < 0)
        return broken(it, "an indirect table outside the guest's memory");
    it->table = &it->indirect;
    it->table_size = desc->length / SDC_DESC_SIZE;
    it->index = 0;
    it->steps_left = it->table_size;
    return 0;
}

// Reads the descriptor at the iterator's index: once, as a whole.
static int load(struct sdc_iterator *it, struct sdc_desc *desc, struct sdc_fetch_log *log)
{
    uint8_t raw[SDC_DESC_SIZE];
    bool indirect = it->table == &it->indirect;

    if (it->index >= it->table_size)
        return broken(it, indirect ? "a descriptor's next lies outside its indirect table"
                                   : "a descriptor's next lies outside the queue");
    if (it->steps_left == 0)
        return broken(it, "a descriptor chain longer than its table: a cycle");
    sdc_fetch_log_add(log, (indirect ? SDC_LIMIT_QUEUE_SIZE : 0) + it->steps_left, 0, SDC_DESC_SIZE);
    int rc = sdc_area_read(it->table, it->memory, (uint64_t)it->index * SDC_DESC_SIZE, raw, sizeof raw);
    if (rc < 0)
        return rc == -EAGAIN ? rc : broken(it, "a descriptor outside the guest's memory");
    it->steps_left--;
    it->entries += !indirect;
    desc->address = sdc_get64(raw);
    desc->length = sdc_get32(raw + 8);
    desc->flags = sdc_get16(raw + (it->packed ? 14 : 12));
    desc->next = sdc_get16(raw + (it->packed ? 12 : 14));
    if (it->log && !indirect)
        sdc_inflight_note(it->log, desc);
    return 0;
}

// Where the descriptor after desc stands, if there is one. A packed ring's indirect table is used from end to end, and NEXT means
// nothing in it (virtio 1.2, 2.8.7).
static void advance(struct sdc_iterator *it, const struct sdc_desc *desc)
{
    if (!it->packed) {
        it->index = desc->next;
        it->ended = !(desc->flags & SDC_DESC_F_NEXT);
    } else if (it->table == &it->indirect) {
        it->ended = ++it->index == it->table_size;
    } else {
        it->index = it->index + 1 == it->table_size ? 0 : it->index + 1;
        it->ended = !(desc->flags & SDC_DESC_F_NEXT);
    }
}

int sdc_iterator_next(struct sdc_iterator *it, struct sdc_desc *desc, struct sdc_fetch_log *log)
{
    if (it->ended)
        return 0;
    int rc = load(it, desc, log);
    if (rc == 0 && desc->flags & SDC_DESC_F_INDIRECT) {
        it->id = desc->next;
        rc = enter_indirect(it, desc);
        if (rc == 0)
            rc = load(it, desc, log);
        if (rc == 0 && desc->flags & SDC_DESC_F_INDIRECT)
            rc = broken(it, "an indirect descriptor inside an indirect table");
    }
    if (rc < 0)
        return rc;

    if (it->table != &it->indirect)
        it->id = desc->next;
    it->bytes += desc->length;
    if (it->bytes > UINT32_MAX)
        return broken(it, "a descriptor chain of more than 4 GiB");
    advance(it, desc);
    return 1;
}

// --- the chain ---

static int reserve(struct sdc_chain *chain, uint32_t more)
{
    if (chain->capacity - chain->spans_count >= more)
        return 0;
    uint32_t capacity = (chain->capacity + more) * 2;
    struct sdc_span *spans = malloc(capacity * sizeof *spans);
    if (!spans)
        return -ENOMEM;
    memcpy(spans, chain->spans, chain->spans_count * sizeof *spans);
    if (chain->spans != chain->few)
        free(chain->spans);
    chain->spans = spans;
    chain->capacity = capacity;
    return 0;
}

enum { MUST_BOUNCE = 1 };

static void count_buffer(struct sdc_chain *chain, const struct sdc_desc *desc, uint32_t spans)
{
    chain->spans_count += spans;
    if (desc->flags & SDC_DESC_F_WRITE) {
        chain->writable_size += desc->length;
    } else {
        chain->readable_size += desc->length;
        chain->readable_spans += spans;
    }
}

static enum sdc_access access_of(const struct sdc_desc *desc)
{
    return desc->flags & SDC_DESC_F_WRITE ? SDC_ACCESS_WRITE : SDC_ACCESS_READ;
}

// Not even an empty buffer may have a foreign address: its first byte is looked up.
static uint64_t looked_up(const struct sdc_desc *desc)
{
    return desc->length ? desc->length : 1;
}

// Translates a buffer into spans at the end of the chain. One that cannot be reached keeps its place and length. MUST_BOUNCE when it is
// remote, and the reader can reach remote memory.
static int add_buffer(struct sdc_chain *chain, struct sdc_memory *memory, const struct sdc_desc *desc)
{
    struct sdc_span *out;
    int count, rc = reserve(chain, 1);

    // A buffer may lie in any number of pieces.
    for (;;) {
        if (rc < 0)
            return rc;
        uint32_t room = chain->capacity - chain->spans_count;
        out = &chain->spans[chain->spans_count];
        count = sdc_memory_spans(memory, desc->address, looked_up(desc), access_of(desc), out, room);
        if (count != -E2BIG || chain->capacity >= CHAIN_MOST)
            break;
        rc = reserve(chain, room + 1);
    }
    if (count == -EAGAIN && memory->cache)
        return MUST_BOUNCE;
    if (count < 0) {
        chain->fault = count == -EACCES ? -EACCES : -EFAULT;
        *out = (struct sdc_span){NULL, desc->length};
        count = 1;
    }
    if (desc->length > 0)
        count_buffer(chain, desc, (uint32_t)count);
    return 0;
}

// Notes a buffer of a chain that is bounced. One that cannot be reached is not copied.
static int add_segment(struct sdc_chain *chain, struct sdc_memory *memory, const struct sdc_desc *desc)
{
    if (chain->segments_count == chain->segments_capacity) {
        uint32_t capacity = chain->segments_capacity ? chain->segments_capacity * 2 : SDC_CHAIN_FEW;
        struct sdc_segment *segments = realloc(chain->segments, capacity * sizeof *segments);
        if (!segments)
            return -ENOMEM;
        chain->segments = segments;
        chain->segments_capacity = capacity;
    }
    int rc = sdc_memory_check(memory, desc->address, looked_up(desc), access_of(desc));
    if (rc < 0)
        chain->fault = rc;
    if (desc->length == 0)
        return 0;
    chain->segments[chain->segments_count++] = (struct sdc_segment){
        .iova = desc->address, .size = desc->length, .writable = desc->flags & SDC_DESC_F_WRITE, .remote = rc == 1};
    count_buffer(chain, desc, 0);
    return 0;
}

// Memory for the two streams of a bounced chain, zeroed: what the device leaves out is not somebody else's data. Of streams that are
// too long there is only the end, where devices say how a request went.
static int make_bounce(struct sdc_chain *chain)
{
    uint64_t size = chain->readable_size + chain->writable_size;
    bool fits = size <= SDC_LIMIT_BOUNCE;

    chain->bounce_size = fits ? size : sdc_min(chain->writable_size, BOUNCE_END);
    chain->unbounced = size - chain->bounce_size;
    chain->bounce = calloc(1, chain->bounce_size + 1);
    if (!chain->bounce)
        return -ENOMEM;
    if (!fits)
        chain->fault = -EFAULT;
    uint64_t end = fits ? chain->writable_size : chain->bounce_size;
    chain->spans[0] = (struct sdc_span){fits ? chain->bounce : NULL, chain->readable_size};
    chain->spans[1] = (struct sdc_span){NULL, chain->writable_size - end};
    chain->spans[2] = (struct sdc_span){chain->bounce + chain->bounce_size - end, end};
    chain->readable_spans = 1;
    chain->spans_count = 3;
    if (fits) {
        chain->spans[1] = chain->spans[2];
        chain->spans_count = 2;
    }
    return 0;
}

static int walk(struct sdc_chain *chain, struct sdc_iterator *it, bool bounce)
{
    struct sdc_desc desc;
    bool writable_seen = false;
    bool disordered = false;

    if (chain->segments)
        drop_bounce(chain);
    chain->fault = 0;
    chain->readable_size = chain->writable_size = 0;
    chain->readable_spans = chain->spans_count = 0;
    sdc_fetch_log_clear(&chain->fetched);

    for (;;) {
        int rc = sdc_iterator_next(it, &desc, &chain->fetched);
        if (rc < 0)
            return rc;
        if (rc == 0)
            break;
        if (desc.flags & SDC_DESC_F_WRITE)
            writable_seen = true;
        else if (writable_seen)
            disordered = true; // virtio 1.2, 2.7.4.2
        if (!disordered)
            rc = bounce ? add_segment(chain, it->memory, &desc) : add_buffer(chain, it->memory, &desc);
        if (!disordered && rc != 0)
            return rc;
    }
    if (disordered) {
        chain->fault = -EPROTO;
        chain->readable_size = chain->writable_size = 0;
        chain->readable_spans = chain->spans_count = 0;
        return 0;
    }
    return bounce ? make_bounce(chain) : 0;
}

int sdc_chain_walk(struct sdc_chain *chain, struct sdc_iterator *it)
{
    struct sdc_iterator start = *it;

    if (start.table == &it->indirect)
        start.table = &start.indirect;
    int rc = walk(chain, it, false);
    if (rc != MUST_BOUNCE)
        return rc;
    // From its start again, now for the bounce; nothing of the first walk is kept.
    *it = start;
    if (it->log)
        sdc_inflight_begin(it->log);
    return walk(chain, it, true);
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

int sdc_chain_read(struct sdc_chain *chain, uint64_t offset, void *local, size_t size)
{
    if (!sdc_within(offset, size, chain->readable_size))
        return -EINVAL;
    sdc_fetch_log_add(&chain->fetched, SDC_FETCH_STREAM, offset, size);
    return move(chain->spans, chain->readable_spans, offset, local, size, false);
}

int sdc_chain_write(struct sdc_chain *chain, uint64_t offset, const void *local, size_t size)
{
    if (!sdc_within(offset, size, chain->writable_size))
        return -EINVAL;
    return move(chain->spans + chain->readable_spans, chain->spans_count - chain->readable_spans, offset,
                (uint8_t *)(uintptr_t)local, size, true);
}

// Makes a boundary between spans at offset bytes from the start of the stream that begins at span `first`; *at is the span that
// begins there.
static int split(struct sdc_chain *chain, uint32_t first, bool writable, uint64_t offset, uint32_t *at)
{
    uint32_t i = first;

    for (; offset > 0 && offset >= chain->spans[i].size; i++)
        offset -= chain->spans[i].size;
    *at = i;
    if (offset == 0)
        return 0;

    int rc = reserve(chain, 1);
    if (rc < 0)
        return rc;
    struct sdc_span *span = &chain->spans[i];
    memmove(span + 1, span, (chain->spans_count - i) * sizeof *span);
    span[0].size = (size_t)offset;
    span[1].size -= (size_t)offset;
    if (span[1].base)
        span[1].base = (uint8_t *)span[1].base + offset;
    chain->spans_count++;
    chain->readable_spans += !writable;
    *at = i + 1;
    return 0;
}

int sdc_chain_spans(struct sdc_chain *chain, bool writable, uint64_t offset, uint64_t size, const struct sdc_span **spans,
                    uint32_t *count)
{
    uint32_t first = writable ? chain->readable_spans : 0;
    uint32_t begin, end;

    if (!sdc_within(offset, size, writable ? chain->writable_size : chain->readable_size))
        return -EINVAL;
    int rc = split(chain, first, writable, offset, &begin);
    if (rc == 0)
        rc = split(chain, begin, writable, size, &end);
    if (rc < 0)
        return rc;
    for (uint32_t i = begin; i < end; i++) {
        if (!chain->spans[i].base)
            return -EFAULT;
    }
    *spans = &chain->spans[begin];
    *count = end - begin;
    return 0;
}
