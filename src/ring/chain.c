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

// The table that desc points to becomes it->indirect (virtio 1.2, 2.7.5.3).
static int enter_indirect(struct sdc_iterator *it, bool inside, struct sdc_desc desc)
{
    if (inside)
        return broken(it, "an indirect descriptor inside an indirect table");
    if (!it->indirect_allowed)
        return broken(it, "an indirect descriptor, but VIRTIO_F_INDIRECT_DESC was not negotiated");
    if (desc.flags & SDC_DESC_F_NEXT)
        return broken(it, "an indirect descriptor with NEXT set");
    if (desc.length == 0 || desc.length % SDC_DESC_SIZE != 0)
        return broken(it, "the length of an indirect table is not a multiple of 16, or zero");
    if (desc.length / SDC_DESC_SIZE > SDC_LIMIT_INDIRECT)
        return broken(it, "an indirect table of more than 32768 descriptors");

    it->indirect = (struct sdc_area){.iova = desc.address,
                                     .size = desc.length,
                                     .host = sdc_memory_at_hand(it->memory, desc.address, desc.length, SDC_ACCESS_READ)};
    int rc = it->indirect.host ? 0 : sdc_area_resolve(&it->indirect, it->memory, SDC_ACCESS_READ, 1);
    if (rc < 0)
        return rc == -EAGAIN ? rc : broken(it, "an indirect table outside the guest's memory");
    return 0;
}

static int out_of_table(struct sdc_iterator *it, bool inside, uint32_t left)
{
    if (left == 0)
        return broken(it, "a descriptor chain longer than its table: a cycle");
    return broken(it, inside ? "a descriptor's next lies outside its indirect table" : "a descriptor's next lies outside the queue");
}

static struct sdc_desc desc_of(const uint8_t *raw, bool packed)
{
    uint64_t rest = sdc_get64(raw + 8);

    return (struct sdc_desc){.address = sdc_get64(raw),
                             .length = (uint32_t)rest,
                             .flags = (uint16_t)(rest >> (packed ? 48 : 32)),
                             .next = (uint16_t)(rest >> (packed ? 32 : 48))};
}

// A descriptor of a table that is not at hand.
static int load_by_door(struct sdc_iterator *it, const struct sdc_area *table, uint32_t index, struct sdc_desc *desc)
{
    uint8_t raw[SDC_DESC_SIZE];
    int rc = sdc_memory_read(it->memory, table->iova + (uint64_t)index * SDC_DESC_SIZE, raw, sizeof raw);

    if (rc < 0)
        return rc == -EAGAIN ? rc : broken(it, "a descriptor outside the guest's memory");
    *desc = desc_of(raw, it->packed);
    return 0;
}

static inline int load(struct sdc_iterator *it, const struct sdc_area *table, uint32_t index, bool packed, struct sdc_desc *desc)
{
    struct sdc_desc far = {0};

    if (table->host) {
        *desc = desc_of(table->host + (size_t)index * SDC_DESC_SIZE, packed);
        return 0;
    }
    int rc = load_by_door(it, table, index, &far);
    *desc = far;
    return rc;
}

static void note(struct sdc_inflight *log, struct sdc_desc desc)
{
    sdc_inflight_note(log, &desc);
}

static int end(struct sdc_payload *payload, bool disordered)
{
    if (!disordered)
        return sdc_payload_end(payload);
    sdc_payload_begin(payload, false);
    payload->fault = -EPROTO;
    return 0;
}

// Walks all of the chain, and reads each descriptor once, as a whole. What every request does: where it stands is in locals that no
// other function sees, so that they stay in registers.
static inline __attribute__((always_inline)) int walk(struct sdc_chain *chain, struct sdc_iterator *it, bool packed, bool bounce)
{
    struct sdc_inflight *log = packed ? it->log : NULL;
    struct sdc_memory *memory = it->memory;
    const struct sdc_area *table = it->table;
    uint32_t size = it->table_size, index = it->index, left = size;
    bool inside = false, ended = false, writable_seen = false, disordered = false;
    uint64_t bytes = 0;

    sdc_payload_begin(&chain->payload, bounce);
    sdc_fetch_log_clear(&chain->fetched);
    while (!ended) {
        struct sdc_desc desc;
        if (index >= size || left == 0)
            return out_of_table(it, inside, left);
        sdc_fetch_log_add(&chain->fetched, (inside ? SDC_LIMIT_QUEUE_SIZE : 0) + left, 0, SDC_DESC_SIZE);
        int rc = load(it, table, index, packed, &desc);
        if (rc < 0)
            return rc;
        left--;
        if (log && !inside)
            note(log, desc);
        ended = !(desc.flags & SDC_DESC_F_NEXT);
        if (!inside && ended) { // here ends what it has in the ring itself
            it->id = desc.next;
            it->entries = (uint16_t)(size - left);
        }
        if (desc.flags & SDC_DESC_F_INDIRECT) {
            if ((rc = enter_indirect(it, inside, desc)) < 0)
                return rc;
            table = &it->indirect;
            size = left = desc.length / SDC_DESC_SIZE;
            index = 0;
            inside = true;
            ended = false;
            continue;
        }
        bytes += desc.length;
        if (bytes > UINT32_MAX)
            return broken(it, "a descriptor chain of more than 4 GiB");
        index = packed ? index + 1 : desc.next;
        if (packed && inside)
            ended = index == size; // from end to end, and NEXT means nothing (virtio 1.2, 2.8.7)
        else if (packed && index == size)
            index = 0;

        bool writable = desc.flags & SDC_DESC_F_WRITE;
        disordered |= writable_seen && !writable; // virtio 1.2, 2.7.4.2
        writable_seen |= writable;
        if (disordered)
            continue;
        rc = sdc_payload_add(&chain->payload, memory, desc.address, desc.length, writable ? SDC_ACCESS_WRITE : SDC_ACCESS_READ);
        if (rc != 0)
            return rc;
    }
    return end(&chain->payload, disordered);
}

int sdc_chain_walk(struct sdc_chain *chain, struct sdc_iterator *it)
{
    int rc = it->packed ? walk(chain, it, true, false) : walk(chain, it, false, false);

    if (rc != SDC_PAYLOAD_BOUNCE)
        return rc;
    // From its start again, now for the bounce; nothing of the first walk is kept.
    if (it->log)
        sdc_inflight_begin(it->log);
    return it->packed ? walk(chain, it, true, true) : walk(chain, it, false, true);
}
