// SPDX-License-Identifier: BSD-3-Clause
#include "ring/chain.h"

#include "base/check.h"
#include "base/limits.h"
#include "ring/inflight.h"

#include <errno.h>

void sdc_chain_init(struct sdc_chain *chain)
{
    sdc_payload_init(&chain->payload);
}

void sdc_chain_trim(struct sdc_chain *chain)
{
    sdc_payload_trim(&chain->payload);
}

void sdc_chain_destroy(struct sdc_chain *chain)
{
    sdc_payload_destroy(&chain->payload);
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
        return rc == -EAGAIN ? rc : broken(it, "an indirect table outside the guest's memory");
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

static int walk(struct sdc_chain *chain, struct sdc_iterator *it, bool bounce)
{
    struct sdc_desc desc;
    bool writable_seen = false;
    bool disordered = false;

    sdc_payload_begin(&chain->payload, bounce);
    sdc_fetch_log_clear(&chain->fetched);

    for (;;) {
        int rc = sdc_iterator_next(it, &desc, &chain->fetched);
        if (rc < 0)
            return rc;
        if (rc == 0)
            break;
        bool writable = desc.flags & SDC_DESC_F_WRITE;
        writable_seen |= writable;
        disordered |= writable_seen && !writable; // virtio 1.2, 2.7.4.2
        if (disordered)
            continue;
        rc = sdc_payload_add(&chain->payload, it->memory, desc.address, desc.length, writable ? SDC_ACCESS_WRITE : SDC_ACCESS_READ);
        if (rc != 0)
            return rc;
    }
    if (disordered) {
        sdc_payload_begin(&chain->payload, false);
        chain->payload.fault = -EPROTO;
        return 0;
    }
    return sdc_payload_end(&chain->payload);
}

int sdc_chain_walk(struct sdc_chain *chain, struct sdc_iterator *it)
{
    struct sdc_iterator start = *it;

    if (start.table == &it->indirect)
        start.table = &start.indirect;
    int rc = walk(chain, it, false);
    if (rc != SDC_PAYLOAD_BOUNCE)
        return rc;
    // From its start again, now for the bounce; nothing of the first walk is kept.
    *it = start;
    if (it->log)
        sdc_inflight_begin(it->log);
    return walk(chain, it, true);
}

int sdc_chain_read(struct sdc_chain *chain, uint64_t offset, void *local, size_t size)
{
    if (sdc_within(offset, size, chain->payload.readable_size))
        sdc_fetch_log_add(&chain->fetched, SDC_FETCH_STREAM, offset, size);
    return sdc_payload_read(&chain->payload, offset, local, size);
}

int sdc_chain_write(struct sdc_chain *chain, uint64_t offset, const void *local, size_t size)
{
    return sdc_payload_write(&chain->payload, offset, local, size);
}

int sdc_chain_spans(struct sdc_chain *chain, bool writable, uint64_t offset, uint64_t size, const struct sdc_span **spans,
                    uint32_t *count)
{
    return sdc_payload_spans(&chain->payload, writable, offset, size, spans, count);
}
