// SPDX-License-Identifier: BSD-3-Clause
// The packed ring (virtio 1.2, 2.8): available and used descriptors in one ring, told apart by two flags and a wrap counter
// on each side.
//
// Barriers, in named pairs:
//  [A] available: the driver's release store of a chain's first flags after it filled the rest - our acquire load of them (load16).
//  [B] used: our release store of a used descriptor's flags after we filled it (store16) - the driver's acquire load of them.
//  [C] kicks: we store our event suppression structure, full barrier, then load the next descriptor's flags (rearm) - the driver stores
//      those flags, full barrier, then loads the structure. One of the two sees the other.
//      As in the split ring (split.c), who polls looks with [A] alone while it is suppressed, and sleeps only after a rearm that saw
//      nothing.
//  [D] interrupts: we store used flags, full barrier, then load the driver's event suppression structure (publish) - the driver stores
//      it, full barrier, then loads the used flags.
//
// They are as strong as those of the split ring, with VIRTIO_F_ORDER_PLATFORM too (split.c).
#include "ring/ring.h"

#include <sidecard/virtio.h>

enum {
    DESC_LENGTH = 8, // offsets in a descriptor
    DESC_FLAGS = 14,
    FLAG_AVAIL = 1 << 7,
    FLAG_USED = 1 << 15,
    // The event suppression structures (virtio 1.2, 2.8.10).
    EVENT_OFFSET = 0,
    EVENT_FLAGS = 2,
    EVENT_SIZE = 4,
    EVENT_ENABLE = 0,
    EVENT_DISABLE = 1,
    EVENT_DESC = 2,
    EVENT_WRAP = 1 << 15,
};

static void packed_start(struct sdc_ring *ring)
{
    ring->avail_next = ring->used_next = ring->config.position;
    ring->packed.avail_wrap = ring->packed.used_wrap = !ring->config.wrapped;
}

static int packed_resolve(struct sdc_ring *ring, struct sdc_memory *memory)
{
    ring->desc = (struct sdc_area){.iova = ring->config.desc, .size = SDC_DESC_SIZE * (uint64_t)ring->config.size};
    ring->driver = (struct sdc_area){.iova = ring->config.driver, .size = EVENT_SIZE};
    ring->device = (struct sdc_area){.iova = ring->config.device, .size = EVENT_SIZE};
    int rc = sdc_area_resolve(&ring->desc, memory, SDC_ACCESS_READ, 16);
    if (rc == 0)
        rc = sdc_area_resolve(&ring->desc, memory, SDC_ACCESS_WRITE, 16);
    if (rc == 0)
        rc = sdc_area_resolve(&ring->driver, memory, SDC_ACCESS_READ, 4);
    if (rc == 0)
        rc = sdc_area_resolve(&ring->device, memory, SDC_ACCESS_WRITE, 4);
    return rc;
}

static uint16_t available_flags(bool wrap)
{
    return wrap ? FLAG_AVAIL : FLAG_USED;
}

// Moves position on by entries; the wrap counter turns at the ring's end.
static void move(const struct sdc_ring *ring, uint16_t *position, bool *wrap, uint32_t entries)
{
    uint32_t next = (uint32_t)*position + entries;

    if (next >= ring->config.size) {
        next -= ring->config.size;
        *wrap = !*wrap;
    }
    *position = (uint16_t)next;
}

// A batch that was not shown has used flags behind its first descriptor, which the driver would take for shown once that is.
static int unmark(struct sdc_ring *ring, const struct sdc_inflight_used *used)
{
    uint16_t position = used->old;
    bool wrap = used->old_wrap;
    int rc = 0;

    move(ring, &position, &wrap, 1);
    for (uint32_t i = 1; rc == 0 && i < ring->config.size && (position != used->now || wrap != used->now_wrap); i++) {
        rc = sdc_area_store16(&ring->desc, &ring->memory, (uint64_t)position * SDC_DESC_SIZE + DESC_FLAGS, available_flags(wrap));
        move(ring, &position, &wrap, 1);
    }
    return rc;
}

static int packed_recover(struct sdc_ring *ring)
{
    struct sdc_inflight *log = ring->config.log;
    struct sdc_inflight_used used;
    uint16_t flags = 0;

    int rc = sdc_inflight_used(log, &used);
    if (rc == 0)
        rc = sdc_area_load16(&ring->desc, &ring->memory, (uint64_t)used.old * SDC_DESC_SIZE + DESC_FLAGS, &flags);
    if (rc < 0)
        return rc;
    bool batch = used.now != used.old || used.now_wrap != used.old_wrap;
    bool shown = batch && (flags & (FLAG_AVAIL | FLAG_USED)) != available_flags(used.old_wrap);
    if (batch && !shown)
        rc = unmark(ring, &used);
    if (rc == 0)
        rc = sdc_inflight_recover_packed(log, &used, shown);
    if (rc < 0)
        return rc;
    ring->used_next = shown ? used.now : used.old;
    ring->packed.used_wrap = shown ? used.now_wrap : used.old_wrap;
    ring->avail_next = ring->used_next;
    ring->packed.avail_wrap = ring->packed.used_wrap;
    move(ring, &ring->avail_next, &ring->packed.avail_wrap, (uint32_t)rc);
    ring->entries_in_flight = (uint32_t)rc;
    return 0;
}

static bool is_available(uint16_t flags, bool wrap)
{
    bool avail = flags & FLAG_AVAIL, used = flags & FLAG_USED;

    return avail == wrap && used != wrap;
}

// Whether the next descriptor is available: 1, 0, -EPROTO or -EAGAIN.
static int look(struct sdc_ring *ring)
{
    uint16_t flags;
    uint64_t offset = (uint64_t)ring->avail_next * SDC_DESC_SIZE + DESC_FLAGS;

    int rc = sdc_area_load16(&ring->desc, &ring->memory, offset, &flags); // pair [A]
    if (rc < 0)
        return rc == -EAGAIN ? rc : sdc_ring_break(ring, "the descriptor ring is not readable");
    return is_available(flags, ring->packed.avail_wrap);
}

// As in the split ring. Of a chain of several entries only the first is told of: where the next chain begins is not known before it is
// walked.
static void hint(struct sdc_ring *ring)
{
    const uint8_t *desc = ring->desc.host;
    uint16_t at = ring->avail_next, flags = 0;
    bool wrap = ring->packed.avail_wrap;

    ring->hinted = 1; // the one that is taken now
    for (unsigned i = 0; desc && i < SDC_RING_HINTS && !(flags & SDC_DESC_F_NEXT); i++) {
        size_t offset = (size_t)at * SDC_DESC_SIZE;
        if (sdc_area_load16(&ring->desc, &ring->memory, offset + DESC_FLAGS, &flags) < 0 || !is_available(flags, wrap)) // pair [A]
            break;
        sdc_ring_hint(ring, sdc_get64(desc + offset));
        ring->hinted = (uint16_t)(i + 1);
        move(ring, &at, &wrap, 1);
    }
}

// Takes a chain that was in flight when the log was recovered; where it stood in the ring there may be something else by now.
static int take_again(struct sdc_ring *ring, struct sdc_chain *chain, uint16_t entry)
{
    uint32_t count;
    const uint8_t *table = sdc_inflight_table(ring->config.log, entry, &count);
    struct sdc_area area = {.size = (uint64_t)count * SDC_DESC_SIZE, .host = (uint8_t *)(uintptr_t)table};
    struct sdc_iterator it;
    sdc_iterator_begin(&it, &ring->memory, &area, count, 0);
    it.packed = true;
    it.indirect_allowed = sdc_ring_has(ring, SDC_VIRTIO_F_INDIRECT_DESC);
    int rc = sdc_chain_walk(chain, &it);
    if (rc < 0)
        return rc == -EPROTO ? sdc_ring_break(ring, it.broken) : rc;
    if (it.entries != count || sdc_ring_is_taken(ring, it.id))
        return sdc_ring_break(ring, "the log of what was in flight makes no sense");
    chain->id = it.id;
    chain->entries = it.entries;
    chain->logged = entry;
    sdc_ring_turn_taken(ring, it.id);
    ring->in_flight++; // the positions and entries_in_flight are past it
    sdc_inflight_took_again(ring->config.log);
    return 1;
}

static int packed_take(struct sdc_ring *ring, struct sdc_chain *chain)
{
    struct sdc_inflight *log = ring->config.log;
    uint16_t entry;

    if (log && sdc_inflight_again(log, &entry))
        return take_again(ring, chain, entry);
    int rc = 1;
    if (ring->hinted == 0) { // those that were told of are there
        rc = look(ring);
        if (rc <= 0)
            return rc;
        hint(ring);
    }

    struct sdc_iterator it;
    sdc_iterator_begin(&it, &ring->memory, &ring->desc, ring->config.size, ring->avail_next);
    it.log = log;
    it.packed = true;
    it.indirect_allowed = sdc_ring_has(ring, SDC_VIRTIO_F_INDIRECT_DESC);
    if (log)
        sdc_inflight_begin(log);
    rc = sdc_chain_walk(chain, &it);
    if (rc < 0)
        return rc == -EPROTO ? sdc_ring_break(ring, it.broken) : rc;
    if (sdc_ring_is_taken(ring, it.id))
        return sdc_ring_break(ring, "a buffer id was made available that is in flight already");
    // What was given and not shown is the driver's only when it has seen it, so the log's count is the stricter one.
    if (it.entries > ring->config.size - ring->entries_in_flight || (log && it.entries > log->free_count))
        return sdc_ring_break(ring, "more descriptors are in flight than the queue has");
    chain->id = it.id;
    chain->entries = it.entries;
    if (log)
        chain->logged = sdc_inflight_take_packed(log);
    sdc_ring_turn_taken(ring, it.id);
    ring->in_flight++;
    ring->entries_in_flight += it.entries;
    move(ring, &ring->avail_next, &ring->packed.avail_wrap, it.entries);
    ring->hinted--;
    return 1;
}

// The first one of a batch gets its flags when the batch is shown: the driver looks no further than to it.
static void packed_give(struct sdc_ring *ring, const struct sdc_chain *chain, uint32_t written)
{
    uint64_t offset = (uint64_t)ring->used_next * SDC_DESC_SIZE;
    uint16_t flags = (uint16_t)((ring->packed.used_wrap ? FLAG_AVAIL | FLAG_USED : 0) | (written ? SDC_DESC_F_WRITE : 0));
    uint8_t element[DESC_FLAGS - DESC_LENGTH];
    uint16_t next = ring->used_next;
    bool wrap = ring->packed.used_wrap;

    move(ring, &next, &wrap, chain->entries);
    if (ring->config.log)
        sdc_inflight_give_packed(ring->config.log, chain->logged, next, wrap);
    sdc_put32(element, written);
    sdc_put16(element + 4, chain->id);
    int rc = sdc_area_write(&ring->desc, &ring->memory, offset + DESC_LENGTH, element, sizeof element);
    if (ring->packed.hidden == 0) {
        ring->packed.first = ring->used_next;
        ring->packed.first_flags = flags;
    } else if (rc == 0) {
        rc = sdc_area_store16(&ring->desc, &ring->memory, offset + DESC_FLAGS, flags); // pair [B]
    }
    if (rc < 0)
        sdc_ring_break(ring, "the descriptor ring is not writable");
    sdc_ring_turn_taken(ring, chain->id);
    ring->entries_in_flight -= chain->entries;
    ring->packed.hidden += chain->entries;
    ring->used_next = next;
    ring->packed.used_wrap = wrap;
}

// Whether the driver wants an interrupt for the last `shown` entries (virtio 1.2, 2.8.10 and 2.8.21).
static bool interrupt_due(struct sdc_ring *ring, uint32_t shown)
{
    uint16_t flags, event;

    if (sdc_area_load16(&ring->driver, &ring->memory, EVENT_FLAGS, &flags) < 0 || flags == EVENT_ENABLE)
        return true;
    if (flags != EVENT_DESC || !sdc_ring_has(ring, SDC_VIRTIO_F_EVENT_IDX))
        return flags != EVENT_DISABLE;
    if (sdc_area_load16(&ring->driver, &ring->memory, EVENT_OFFSET, &event) < 0)
        return true;
    // Positions counted from the start of the lap that used_next is in; the event may lie in the lap before.
    int64_t at = event & ~EVENT_WRAP;
    if (((event & EVENT_WRAP) != 0) != ring->packed.used_wrap)
        at -= ring->config.size;
    return at < ring->used_next && at >= (int64_t)ring->used_next - shown;
}

static bool packed_publish(struct sdc_ring *ring)
{
    uint32_t shown = ring->packed.hidden;
    uint64_t offset = (uint64_t)ring->packed.first * SDC_DESC_SIZE + DESC_FLAGS;

    if (shown == 0)
        return false;
    ring->packed.hidden = 0;
    if (ring->config.log)
        sdc_inflight_show_packed(ring->config.log);
    if (sdc_area_store16(&ring->desc, &ring->memory, offset, ring->packed.first_flags) < 0) { // pair [B]
        sdc_ring_break(ring, "the descriptor ring is not writable");
        return false;
    }
    if (ring->config.log)
        sdc_inflight_shown_packed(ring->config.log, ring->used_next, ring->packed.used_wrap);
    if (ring->remote)
        return true; // it is not there yet, so what the driver wants now is not what it wants when it is
    __atomic_thread_fence(__ATOMIC_SEQ_CST); // pair [D]
    return interrupt_due(ring, shown);
}

static bool packed_look(struct sdc_ring *ring)
{
    return look(ring) == 1;
}

static void packed_suppress(struct sdc_ring *ring)
{
    sdc_area_store16(&ring->device, &ring->memory, EVENT_FLAGS, EVENT_DISABLE);
}

static bool packed_rearm(struct sdc_ring *ring)
{
    uint16_t event = (uint16_t)(ring->avail_next | (ring->packed.avail_wrap ? EVENT_WRAP : 0));
    // The index would have to be moved with every look, which a remote ring has no time for.
    bool by_index = sdc_ring_has(ring, SDC_VIRTIO_F_EVENT_IDX) && !ring->remote;

    if (by_index)
        sdc_area_store16(&ring->device, &ring->memory, EVENT_OFFSET, event);
    sdc_area_store16(&ring->device, &ring->memory, EVENT_FLAGS, by_index ? EVENT_DESC : EVENT_ENABLE);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); // pair [C]
    return sdc_ring_has_again(ring) || packed_look(ring);
}

const struct sdc_ring_format sdc_ring_packed = {
    .start = packed_start,
    .recover = packed_recover,
    .resolve = packed_resolve,
    .take = packed_take,
    .give = packed_give,
    .publish = packed_publish,
    .look = packed_look,
    .suppress = packed_suppress,
    .rearm = packed_rearm,
};
