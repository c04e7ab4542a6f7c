// SPDX-License-Identifier: BSD-3-Clause
// The driver's half of both rings (virtio 1.2, 2.7 and 2.8), written for this simulation alone: it shares nothing with src/ring or
// src/driver. It uses descriptors in any order, and can break the rules on purpose.
#include "sim.h"

#include <string.h>

enum {
    F_NEXT = 1,
    F_WRITE = 2,
    F_INDIRECT = 4,
    F_AVAIL = 1 << 7,
    F_USED = 1 << 15,
    WRAP = 1 << 15,
};

enum broken {
    WELL,
    NESTED,         // an indirect table in a table
    ODD_LENGTH,     // of an indirect table
    TABLE_AND_NEXT, // in one descriptor
    TABLE_NOWHERE,
    NOT_NEGOTIATED, // an indirect table all the same
    // split only
    HEAD_OUTSIDE,
    NEXT_OUTSIDE,
    CYCLE,
    INDEX_JUMPS,
};

// --- places ---

static uint64_t used_offset(const struct sim_ring *ring)
{
    return ring->device + 4;
}

bool sim_ring_open(struct sim_ring *ring)
{
    bool packed = ring->packed;
    uint32_t event = ring->event_idx ? 2 : 0;

    ring->desc_size = 16U * ring->size;
    ring->driver_size = packed ? 4 : 4 + 2U * ring->size + event;
    ring->device_size = packed ? 4 : 4 + 8U * ring->size + event;
    if (!sim_guest_take(ring->desc_size, 16, packed, &ring->desc))
        return false;
    if (!sim_guest_take(ring->driver_size, packed ? 4 : 2, false, &ring->driver)) {
        sim_guest_give(ring->desc, ring->desc_size);
        return false;
    }
    if (!sim_guest_take(ring->device_size, 4, true, &ring->device)) {
        sim_guest_give(ring->desc, ring->desc_size);
        sim_guest_give(ring->driver, ring->driver_size);
        return false;
    }
    uint8_t zero[1024] = {0};
    sim_guest_put(ring->desc, zero, ring->desc_size);
    sim_guest_put(ring->driver, zero, ring->driver_size);
    sim_guest_put(ring->device, zero, ring->device_size);
    sim_guest_allow(ring->device, ring->device_size, true);
    ring->free = ring->size;
    ring->wrap = ring->used_wrap = true;
    ring->irqs = true;
    return true;
}

static void allow_entry(struct sim_ring *ring, unsigned at, bool allowed)
{
    ring->busy[at] = allowed;
    sim_guest_allow(ring->desc + 16U * at + 8, 8, allowed);
}

void sim_ring_close(struct sim_ring *ring)
{
    for (unsigned i = 0; ring->packed && i < ring->size; i++) {
        if (ring->busy[i])
            allow_entry(ring, i, false);
    }
    sim_guest_allow(ring->device, ring->device_size, false);
    sim_guest_give(ring->desc, ring->desc_size);
    sim_guest_give(ring->driver, ring->driver_size);
    sim_guest_give(ring->device, ring->device_size);
}

// --- adding ---

unsigned sim_ring_slots(const struct sim_ring *ring, unsigned parts, bool indirect)
{
    (void)ring;
    return indirect ? 1 : parts;
}

static void put_desc(const struct sim_ring *ring, uint64_t at, uint64_t address, uint32_t length, uint16_t flags, uint16_t other)
{
    uint8_t raw[16];

    memcpy(raw, &address, 8);
    memcpy(raw + 8, &length, 4);
    memcpy(raw + (ring->packed ? 14 : 12), &flags, 2);
    memcpy(raw + (ring->packed ? 12 : 14), &other, 2);
    sim_guest_put(at, raw, sizeof raw);
}

static uint16_t part_flags(const struct sim_part *part)
{
    return part->writable ? F_WRITE : 0;
}

// The parts in an indirect table; in a split ring's the first is the first, the others stand in any order.
static void put_table(const struct sim_ring *ring, const struct sim_chain *chain)
{
    uint16_t at[SIM_PARTS];

    for (uint16_t i = 0; i < chain->count; i++)
        at[i] = i;
    for (unsigned i = 1; !ring->packed && i < chain->count; i++) {
        unsigned other = sim_pick(i, chain->count - 1);
        uint16_t kept = at[i];
        at[i] = at[other];
        at[other] = kept;
    }
    for (unsigned i = 0; i < chain->count; i++) {
        const struct sim_part *part = &chain->parts[i];
        bool last = i + 1 == chain->count;
        uint16_t flags = part_flags(part);
        if (chain->broken == NESTED && i == chain->count / 2)
            flags |= F_INDIRECT;
        if (!last && !(ring->packed && sim_chance(1, 2)))
            flags |= F_NEXT;
        put_desc(ring, chain->table + 16U * at[i], part->iova, part->size, flags,
                 !ring->packed && !last ? at[i + 1] : (uint16_t)sim_random());
    }
}

// How the descriptor in the ring that stands for a table looks.
static void table_desc(const struct sim_chain *chain, uint64_t *address, uint32_t *length, uint16_t *flags)
{
    *address = chain->broken == TABLE_NOWHERE ? sim_guest_hole() : chain->table;
    *length = 16U * chain->count + (chain->broken == ODD_LENGTH ? sim_pick(1, 15) : 0);
    *flags = F_INDIRECT | (chain->broken == TABLE_AND_NEXT ? F_NEXT : 0);
}

static uint16_t free_descriptor(struct sim_ring *ring)
{
    unsigned at = sim_below(ring->size);

    while (ring->busy[at])
        at = (at + 1) % ring->size;
    ring->busy[at] = true;
    return (uint16_t)at;
}

static void add_split(struct sim_ring *ring, struct sim_chain *chain)
{
    uint16_t at[SIM_RING_MAX];
    uint64_t address;
    uint32_t length;
    uint16_t flags;

    for (unsigned i = 0; i < chain->slots; i++)
        at[i] = free_descriptor(ring);
    for (unsigned i = 0; i < chain->slots; i++) {
        const struct sim_part *part = &chain->parts[i];
        bool last = i + 1 == chain->slots;
        uint16_t next = last ? (uint16_t)sim_random() : at[i + 1];
        address = part->iova;
        length = part->size;
        flags = part_flags(part);
        if (chain->indirect)
            table_desc(chain, &address, &length, &flags);
        if (chain->broken == NOT_NEGOTIATED && last)
            flags |= F_INDIRECT;
        if (!last || chain->broken == NEXT_OUTSIDE || chain->broken == CYCLE)
            flags |= F_NEXT;
        if (last && chain->broken == NEXT_OUTSIDE)
            next = (uint16_t)sim_pick(ring->size, UINT16_MAX);
        if (last && chain->broken == CYCLE)
            next = at[sim_below(chain->slots)];
        put_desc(ring, ring->desc + 16U * at[i], address, length, flags, next);
        ring->links[at[i]] = last ? UINT16_MAX : at[i + 1];
    }
    chain->id = at[0];
    uint16_t head = chain->broken == HEAD_OUTSIDE ? (uint16_t)sim_pick(ring->size, UINT16_MAX) : chain->id;
    sim_put16(ring->driver + 4 + 2U * (ring->avail % ring->size), head);
    ring->avail++;
    if (chain->broken == INDEX_JUMPS)
        ring->avail = (uint16_t)(ring->avail + ring->size + sim_below(1000));
}

static uint16_t free_id(const struct sim_ring *ring)
{
    unsigned id = sim_below(SIM_RING_MAX);

    while (ring->chains[id])
        id = (id + 1) % SIM_RING_MAX;
    return (uint16_t)id;
}

static void add_packed(struct sim_ring *ring, struct sim_chain *chain)
{
    uint16_t first_flags = 0;
    uint64_t address;
    uint32_t length;

    chain->id = free_id(ring);
    chain->first = ring->next;
    for (unsigned i = 0; i < chain->slots; i++) {
        const struct sim_part *part = &chain->parts[i];
        bool last = i + 1 == chain->slots;
        uint16_t flags = part_flags(part);
        address = part->iova;
        length = part->size;
        if (chain->indirect)
            table_desc(chain, &address, &length, &flags);
        if (chain->broken == NOT_NEGOTIATED && last)
            flags |= F_INDIRECT;
        flags |= (uint16_t)((last ? 0 : F_NEXT) | (ring->wrap ? F_AVAIL : F_USED));
        // The first one's flags come last: until then the chain is not there.
        uint16_t now = flags;
        if (i == 0) {
            first_flags = flags;
            now = (uint16_t)(flags ^ F_AVAIL ^ F_USED);
            now = ring->wrap ? now & (uint16_t)~(F_AVAIL | F_USED) : now | F_AVAIL | F_USED;
        }
        put_desc(ring, ring->desc + 16U * ring->next, address, length, now, last ? chain->id : (uint16_t)sim_random());
        allow_entry(ring, ring->next, true);
        if (++ring->next == ring->size) {
            ring->next = 0;
            ring->wrap = !ring->wrap;
        }
    }
    sim_put16(ring->desc + 16U * chain->first + 14, first_flags);
    ring->kicked = (uint16_t)(ring->kicked + chain->slots);
}

void sim_ring_add(struct sim_ring *ring, struct sim_chain *chain)
{
    chain->slots = (uint16_t)sim_ring_slots(ring, chain->count, chain->indirect);
    if (chain->indirect)
        put_table(ring, chain);
    if (ring->packed)
        add_packed(ring, chain);
    else
        add_split(ring, chain);
    ring->chains[chain->id] = chain;
    chain->number = ring->added++;
    ring->free = (uint16_t)(ring->free - chain->slots);
    ring->in_flight++;
}

void sim_ring_show(struct sim_ring *ring)
{
    if (ring->packed)
        return;
    ring->avail_shown = ring->avail;
    sim_put16(ring->driver + 2, ring->avail);
}

// --- kicks ---

static bool passed(uint16_t event, uint16_t now, uint16_t before)
{
    return (uint16_t)(now - event - 1) < (uint16_t)(now - before);
}

static bool packed_wants_kick(struct sim_ring *ring)
{
    uint16_t event = sim_get16(ring->device);
    uint16_t flags = sim_get16(ring->device + 2) & 3;
    int64_t before = (int64_t)ring->next - ring->kicked;
    int64_t at = event & ~WRAP;

    if (flags != 2)
        return flags == 0;
    if (!ring->event_idx)
        sim_fail("the device names a descriptor, though event indices were not negotiated");
    if (((event & WRAP) != 0) != ring->wrap)
        at -= ring->size;
    return at >= before && at < ring->next;
}

bool sim_ring_wants_kick(struct sim_ring *ring)
{
    bool wants;

    if (ring->packed) {
        wants = packed_wants_kick(ring);
        ring->kicked = 0;
        return wants;
    }
    if (ring->event_idx)
        wants = passed(sim_get16(used_offset(ring) + 8U * ring->size), ring->avail_shown, ring->kicked);
    else
        wants = !(sim_get16(ring->device) & 1);
    ring->kicked = ring->avail_shown;
    return wants;
}

// --- taking ---

static bool packed_has_used(struct sim_ring *ring)
{
    uint16_t flags = sim_get16(ring->desc + 16U * ring->next_used + 14);

    return ((flags & F_AVAIL) != 0) == ring->used_wrap && ((flags & F_USED) != 0) == ring->used_wrap;
}

bool sim_ring_has_used(struct sim_ring *ring)
{
    if (ring->packed)
        return packed_has_used(ring);
    uint16_t ahead = (uint16_t)(sim_get16(ring->device + 2) - ring->used);
    if (ahead > ring->in_flight)
        sim_fail("the used index is ahead by %u, of %u in flight", ahead, ring->in_flight);
    return ahead > 0;
}

static struct sim_chain *poll_packed(struct sim_ring *ring, uint32_t *written)
{
    uint64_t at = ring->desc + 16U * ring->next_used;
    uint16_t id = sim_get16(at + 12);
    bool has_written = sim_get16(at + 14) & F_WRITE;
    struct sim_chain *chain = id < SIM_RING_MAX ? ring->chains[id] : NULL;

    *written = sim_get32(at + 8);
    if (!chain)
        sim_fail("id %u is given back, which is not in flight", id);
    if (has_written != (*written > 0))
        sim_fail("a used descriptor of %u bytes has the wrong flag", *written);
    for (unsigned i = 0; i < chain->slots; i++) {
        allow_entry(ring, ring->next_used, false);
        if (++ring->next_used == ring->size) {
            ring->next_used = 0;
            ring->used_wrap = !ring->used_wrap;
        }
    }
    return chain;
}

static struct sim_chain *poll_split(struct sim_ring *ring, uint32_t *written)
{
    uint64_t at = used_offset(ring) + 8U * (ring->used % ring->size);
    uint32_t id = sim_get32(at);
    struct sim_chain *chain = id < ring->size ? ring->chains[id] : NULL;

    *written = sim_get32(at + 4);
    if (!chain)
        sim_fail("head %u is given back, which is not in flight", id);
    ring->used++;
    for (uint16_t i = chain->id; i != UINT16_MAX; i = ring->links[i])
        ring->busy[i] = false;
    return chain;
}

struct sim_chain *sim_ring_poll(struct sim_ring *ring, uint32_t *written)
{
    if (!sim_ring_has_used(ring))
        return NULL;
    struct sim_chain *chain = ring->packed ? poll_packed(ring, written) : poll_split(ring, written);
    if (chain->broken)
        sim_fail("a malformed chain is given back");
    if (ring->in_order && chain->number != ring->polled)
        sim_fail("chain %u is given back, and %u is due", chain->number, ring->polled);
    ring->polled++;
    ring->chains[chain->id] = NULL;
    ring->free = (uint16_t)(ring->free + chain->slots);
    ring->in_flight--;
    return chain;
}

// --- interrupts ---

static void packed_irqs(struct sim_ring *ring, bool on)
{
    uint32_t ahead = on && sim_chance(1, 4) && ring->free < ring->size ? sim_below(ring->size - ring->free) : 0;
    uint32_t at = ring->next_used + ahead;
    bool wrap = ring->used_wrap;

    if (at >= ring->size) {
        at -= ring->size;
        wrap = !wrap;
    }
    uint16_t flags = !on ? 1 : ring->event_idx && sim_chance(7, 8) ? 2 : 0;
    sim_put32(ring->driver, at | (wrap ? WRAP : 0) | (uint32_t)flags << 16);
}

void sim_ring_irqs(struct sim_ring *ring, bool on)
{
    if (ring->irqs && !on)
        ring->irqs_off_since = sim_turns();
    ring->irqs = on;
    if (ring->packed) {
        packed_irqs(ring, on);
    } else if (ring->event_idx) {
        uint32_t ahead = sim_chance(1, 4) && ring->in_flight > 0 ? sim_below(ring->in_flight) : 0;
        ring->event = (uint16_t)(ring->used + (on ? ahead : 0x8000));
        sim_put16(ring->driver + 4 + 2U * ring->size, ring->event);
    } else {
        sim_put16(ring->driver, on ? 0 : 1);
    }
}

void sim_ring_check_irq(struct sim_ring *ring)
{
    bool shared = sim_guest_shared(ring->desc, ring->desc_size) && sim_guest_shared(ring->driver, ring->driver_size) &&
                  sim_guest_shared(ring->device, ring->device_size);

    if (!shared)
        return; // what the driver wants cannot be seen in time
    if (!ring->irqs && sim_turn_begun() > ring->irqs_off_since)
        sim_fail("an interrupt that the driver does not want");
    if (ring->irqs && !ring->packed && ring->event_idx) {
        uint16_t now = sim_get16(ring->device + 2);
        if ((uint16_t)(now - ring->event - 1) >= 0x8000)
            sim_fail("an interrupt at used index %u, wanted behind %u", now, ring->event);
    }
}

unsigned sim_ring_break_kinds(const struct sim_ring *ring)
{
    return ring->packed ? NOT_NEGOTIATED : INDEX_JUMPS;
}
