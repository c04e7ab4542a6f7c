// SPDX-License-Identifier: BSD-3-Clause
// The split ring (virtio 1.2, 2.7).
//
// Barriers, in named pairs:
//  [A] available index: the driver's release store after it filled the entry - our acquire load before we read it (load16).
//  [B] used index: our release store after we filled the elements (store16) - the driver's acquire load.
//  [C] kicks: we store avail_event or clear NO_NOTIFY, full barrier, then load the available index (rearm) - the driver stores the
//      available index, full barrier, then loads avail_event or the flags. One of the two sees the other.
//      A queue that polls needs no more than these: while it is suppressed it looks at the available index in every turn ([A] is enough,
//      since a store is seen in the end), and it sleeps only after a rearm that saw nothing. What suppress stores needs no barrier: a
//      driver that does not see it yet notifies for nothing.
//  [D] interrupts: we store the used index, full barrier, then load used_event or the flags (publish) - the driver stores used_event,
//      full barrier, then loads the used index.
//
// All of them are instructions of the processor and hold between any two threads that share memory, the guest's processors among them.
// VIRTIO_F_ORDER_PLATFORM (virtio 1.2, section 6) has the driver use barriers that suit hardware devices, which are no weaker, so
// that each pair stands with the feature and without it; there is nothing more for this side to do.
#include "ring/ring.h"

#include <sidecard/virtio.h>

// Offsets inside the driver area and the device area.
enum {
    AVAIL_FLAGS = 0,
    AVAIL_INDEX = 2,
    AVAIL_RING = 4,
    AVAIL_F_NO_INTERRUPT = 1,
    USED_FLAGS = 0,
    USED_INDEX = 2,
    USED_RING = 4,
    USED_F_NO_NOTIFY = 1,
    USED_ELEMENT = 8,
};

static bool has_event_idx(const struct sdc_ring *ring)
{
    return sdc_ring_has(ring, SDC_VIRTIO_F_EVENT_IDX);
}

static uint64_t used_event_offset(const struct sdc_ring *ring)
{
    return AVAIL_RING + 2 * (uint64_t)ring->config.size;
}

static uint64_t avail_event_offset(const struct sdc_ring *ring)
{
    return USED_RING + USED_ELEMENT * (uint64_t)ring->config.size;
}

static int split_resolve(struct sdc_ring *ring, struct sdc_memory *memory)
{
    uint64_t event = has_event_idx(ring) ? 2 : 0;

    ring->desc = (struct sdc_area){.iova = ring->config.desc, .size = SDC_DESC_SIZE * (uint64_t)ring->config.size};
    ring->driver = (struct sdc_area){.iova = ring->config.driver, .size = used_event_offset(ring) + event};
    ring->device = (struct sdc_area){.iova = ring->config.device, .size = avail_event_offset(ring) + event};
    int rc = sdc_area_resolve(&ring->desc, memory, SDC_ACCESS_READ, 16);
    if (rc == 0)
        rc = sdc_area_resolve(&ring->driver, memory, SDC_ACCESS_READ, 2);
    if (rc == 0)
        rc = sdc_area_resolve(&ring->device, memory, SDC_ACCESS_WRITE, 4);
    return rc;
}

static void split_start(struct sdc_ring *ring)
{
    ring->avail_next = ring->split.avail_seen = ring->config.position;
    ring->used_next = ring->split.used_shown = ring->config.position;
}

// The used index is what the driver sees; in front of it are the chains in flight, each of one available and one used entry.
static int split_recover(struct sdc_ring *ring)
{
    uint16_t used;
    int rc = sdc_area_load16(&ring->device, &ring->memory, USED_INDEX, &used);

    if (rc == 0)
        rc = sdc_inflight_recover(ring->config.log, used);
    if (rc < 0)
        return rc;
    ring->used_next = ring->split.used_shown = used;
    ring->avail_next = ring->split.avail_seen = (uint16_t)(used + rc);
    return 0;
}

// Looks whether the driver has made more available. 0, -EPROTO or -EAGAIN.
static int look(struct sdc_ring *ring)
{
    uint16_t index;

    int rc = sdc_area_load16(&ring->driver, &ring->memory, AVAIL_INDEX, &index); // pair [A]
    if (rc < 0)
        return rc == -EAGAIN ? rc : sdc_ring_break(ring, "the available ring is not readable");
    if ((uint16_t)(index - ring->avail_next) > ring->config.size)
        return sdc_ring_break(ring, "the available index is ahead by more than the queue size");
    ring->split.avail_seen = index;
    return 0;
}

static int head_at(struct sdc_ring *ring, uint16_t position, uint16_t *head)
{
    uint64_t offset = AVAIL_RING + 2 * (uint64_t)(position & (ring->config.size - 1));
    uint8_t raw[2];
    int rc = sdc_area_read(&ring->driver, &ring->memory, offset, raw, sizeof raw);
    *head = sdc_get16(raw);
    return rc;
}

// The lines that the next chains stand on are at the driver's processor: all of them are sent for before the first is waited for. First
// those of their heads' descriptors, then what these point to: an indirect table, or a request's header.
static void hint(struct sdc_ring *ring)
{
    const uint8_t *avail = ring->driver.host, *desc = ring->desc.host;
    uint16_t count = (uint16_t)(ring->split.avail_seen - ring->avail_next);
    uint16_t heads[SDC_RING_HINTS];

    if (count > SDC_RING_HINTS)
        count = SDC_RING_HINTS;
    ring->hinted = count;
    if (!avail || !desc)
        return;
    for (uint16_t i = 0; i < count; i++) {
        heads[i] = sdc_get16(avail + AVAIL_RING + 2 * (size_t)((ring->avail_next + i) & (ring->config.size - 1)));
        heads[i] &= (uint16_t)(ring->config.size - 1);
        sdc_prefetch(desc + (size_t)heads[i] * SDC_DESC_SIZE);
    }
    for (uint16_t i = 0; i < count; i++)
        sdc_ring_hint(ring, sdc_get64(desc + (size_t)heads[i] * SDC_DESC_SIZE));
}

// The head of the next new chain: 1, 0, or an error.
static int next_head(struct sdc_ring *ring, uint16_t *head)
{
    if (ring->avail_next == ring->split.avail_seen) {
        int looked = look(ring);
        if (looked < 0)
            return looked;
        if (ring->avail_next == ring->split.avail_seen)
            return 0;
    }
    if (ring->hinted == 0)
        hint(ring);
    int rc = head_at(ring, ring->avail_next, head);
    if (rc < 0)
        return rc == -EAGAIN ? rc : sdc_ring_break(ring, "the available ring is not readable");
    if (*head >= ring->config.size)
        return sdc_ring_break(ring, "the head of a chain lies outside the queue");
    return 1;
}

static int split_take(struct sdc_ring *ring, struct sdc_chain *chain)
{
    struct sdc_inflight *log = ring->config.log;
    uint16_t head;
    bool again = log && sdc_inflight_again(log, &head);
    int rc = again ? 1 : next_head(ring, &head);

    if (rc <= 0)
        return rc;
    // What was given and not shown is still the driver's to wait for.
    if (log && ring->in_flight + log->given_count >= ring->config.size)
        return sdc_ring_break(ring, "more chains are in flight than the queue has entries");
    if (sdc_ring_is_taken(ring, head))
        return sdc_ring_break(ring, "a chain was made available that is in flight already");

    struct sdc_iterator it;
    sdc_iterator_begin(&it, &ring->memory, &ring->desc, ring->config.size, head);
    it.indirect_allowed = sdc_ring_has(ring, SDC_VIRTIO_F_INDIRECT_DESC);
    rc = sdc_chain_walk(chain, &it);
    if (rc < 0)
        return rc == -EPROTO ? sdc_ring_break(ring, it.broken) : rc;
    chain->id = head;
    sdc_ring_turn_taken(ring, head);
    ring->in_flight++;
    if (again) {
        sdc_inflight_took_again(log); // avail_next is past it
        return 1;
    }
    if (log)
        sdc_inflight_take(log, head);
    ring->avail_next++;
    ring->hinted--;
    return 1;
}

static void split_give(struct sdc_ring *ring, const struct sdc_chain *chain, uint32_t written)
{
    uint64_t offset = USED_RING + USED_ELEMENT * (uint64_t)(ring->used_next & (ring->config.size - 1));
    uint8_t element[USED_ELEMENT];

    sdc_put32(element, chain->id);
    sdc_put32(element + 4, written);
    sdc_ring_turn_taken(ring, chain->id);
    ring->used_next++;
    if (sdc_area_write(&ring->device, &ring->memory, offset, element, sizeof element) < 0)
        sdc_ring_break(ring, "the used ring is not writable");
    if (ring->config.log)
        sdc_inflight_give(ring->config.log, chain->id);
}

static bool split_publish(struct sdc_ring *ring)
{
    uint16_t before = ring->split.used_shown;
    uint16_t now = ring->used_next;
    uint16_t word;

    if (before == now)
        return false;
    ring->split.used_shown = now;
    if (sdc_area_store16(&ring->device, &ring->memory, USED_INDEX, now) < 0) { // pair [B]
        sdc_ring_break(ring, "the used ring is not writable");
        return false;
    }
    if (ring->config.log)
        sdc_inflight_shown(ring->config.log, now);
    if (ring->remote)
        return true; // it is not there yet, so what the driver wants now is not what it wants when it is
    __atomic_thread_fence(__ATOMIC_SEQ_CST); // pair [D]
    if (!has_event_idx(ring))
        return sdc_area_load16(&ring->driver, &ring->memory, AVAIL_FLAGS, &word) < 0 || !(word & AVAIL_F_NO_INTERRUPT);
    // virtio 1.2, 2.7.10: has the index passed used_event between before and now?
    if (sdc_area_load16(&ring->driver, &ring->memory, used_event_offset(ring), &word) < 0)
        return true;
    return (uint16_t)(now - word - 1) < (uint16_t)(now - before);
}

static bool split_look(struct sdc_ring *ring)
{
    return look(ring) == 0 && ring->avail_next != ring->split.avail_seen;
}

static void split_suppress(struct sdc_ring *ring)
{
    // With event indices the driver notifies when it passes avail_event: it is put behind where the driver stands, and then left there
    // (virtio 1.2, 2.7.10). Once in 65536 entries the driver comes by again, and notifies for nothing.
    if (has_event_idx(ring))
        sdc_area_store16(&ring->device, &ring->memory, avail_event_offset(ring), (uint16_t)(ring->avail_next - 1));
    else
        sdc_area_store16(&ring->device, &ring->memory, USED_FLAGS, USED_F_NO_NOTIFY);
}

static bool split_rearm(struct sdc_ring *ring)
{
    if (has_event_idx(ring))
        sdc_area_store16(&ring->device, &ring->memory, avail_event_offset(ring), ring->avail_next);
    else
        sdc_area_store16(&ring->device, &ring->memory, USED_FLAGS, 0);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); // pair [C]
    return sdc_ring_has_again(ring) || split_look(ring);
}

const struct sdc_ring_format sdc_ring_split = {
    .start = split_start,
    .recover = split_recover,
    .resolve = split_resolve,
    .take = split_take,
    .give = split_give,
    .publish = split_publish,
    .look = split_look,
    .suppress = split_suppress,
    .rearm = split_rearm,
};
