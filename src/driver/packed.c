// SPDX-License-Identifier: BSD-3-Clause
// The packed ring, the driver's half (virtio 1.2, 2.8): one ring of descriptors, in which two flags and a
// wrap counter on each side tell what is available and what is used.
//
// Chains that were added and not published are hidden by the first of their entries, which keeps its old
// flags until publish: the device looks no further than to an entry that is not available.
//
// Order, in named pairs with the device:
//  [A] all that was added is stored before the flags of its first entry (release).
//  [B] the flags of the next used descriptor are loaded (acquire) before the rest of it and what the device
//  wrote.
//  [C] publish stores those flags, then loads the device's event suppression structure; the device stores
//  that, then loads the flags of the entry that it waits for.
//      Both sides sequentially consistent: one of the two sees the other.
//  [D] arm stores our event suppression structure, then loads the flags of the next used descriptor; the
//  device the other way round. Likewise.
// They are as strong as those of the split ring, with VIRTIO_F_ORDER_PLATFORM too (split.c).
//
// With VIRTIO_F_IN_ORDER the ids are used in turn, round and round, and come back in turn: those in flight follow oldest.
// One used descriptor may stand for a batch (2.8.8): it has the id of the last chain of it, and all before that were
// used as a whole. The next used descriptor is behind all their entries.
#include "driver/packed.h"

#include "base/check.h"
#include "base/line.h"

#include <sidecard/virtio.h>

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    DESC_NEXT = 1,
    DESC_WRITE = 2,
    DESC_INDIRECT = 4,
    DESC_AVAIL = 1 << 7,
    DESC_USED = 1 << 15,
    EVENT_ENABLE = 0,
    EVENT_DISABLE = 1,
    EVENT_DESC = 2,
    EVENT_FLAGS = 3, // the bits that these are in; the others are reserved
    EVENT_WRAP = 1 << 15,
};

struct desc {
    uint64_t address;
    uint32_t size;
    uint16_t id;
    uint16_t flags;
};

// An event suppression structure (2.8.10).
struct event {
    uint16_t position; // with EVENT_DESC: of the entry that is to be told of, with the wrap counter
    uint16_t flags;
};

// A place in the ring.
struct position {
    uint16_t index;
    bool wrap;
};

// What we remember of a chain, by its buffer id. In the ring, we read only what the device wrote.
struct slot {
    void *token;
    uint64_t writable; // bytes
    uint16_t next;     // free ids
    uint16_t count;    // entries of the ring that it takes; 0: not in flight
};

struct packed {
    struct sdc_driver_queue queue;
    struct desc *desc;
    struct event *ours;   // what we want to be told of
    struct event *theirs; // what the device wants to be told of
    uint16_t free_count;   // entries of the ring; the first free id is queue.next_id
    struct position avail; // next entry to fill
    struct position used;  // where the next used descriptor will be
    uint16_t hidden_first; // the first entry that the device does not see yet,
    uint16_t hidden_flags; // and what it will read there
    uint32_t hidden;       // entries from there to avail
    bool event_idx;
    bool in_order;
    uint16_t oldest;        // in order: the id that comes back next
    uint16_t batch;         // chains that are left of the batch that is being taken
    uint32_t batch_written; // what its descriptor says of the last one
    struct slot slots[];
};

static struct packed *packed_of(struct sdc_driver_queue *queue)
{
    return sdc_container(queue, struct packed, queue);
}

static void store16(uint16_t *to, uint16_t value, int order)
{
    __atomic_store_n(to, htole16(value), order);
}

static uint16_t load16(const uint16_t *from, int order)
{
    return le16toh(__atomic_load_n(from, order));
}

// The wrap counter turns at the ring's end (2.8.1).
static void move(const struct packed *packed, struct position *position, uint16_t entries)
{
    uint32_t next = (uint32_t)position->index + entries;
    if (next >= packed->queue.config.size) {
        next -= packed->queue.config.size;
        position->wrap = !position->wrap;
    }
    position->index = (uint16_t)next;
}

static uint16_t event_position(const struct position *position)
{
    return (uint16_t)(position->index | (position->wrap ? EVENT_WRAP : 0));
}

// --- adding ---

static void fill(struct desc *desc, const struct sdc_driver_segment *segment, uint16_t id)
{
    desc->address = htole64(segment->iova);
    desc->size = htole32(segment->size);
    desc->id = htole16(id);
}

// Fills the next entry of the ring.
static void put(struct packed *packed, const struct sdc_driver_segment *segment, uint16_t id, unsigned flags)
{
    struct desc *desc = &packed->desc[packed->avail.index];
    uint16_t shown = (uint16_t)(flags | (packed->avail.wrap ? DESC_AVAIL : DESC_USED));
    fill(desc, segment, id);
    if (packed->hidden == 0) {
        packed->hidden_first = packed->avail.index;
        packed->hidden_flags = shown;
    } else {
        store16(&desc->flags, shown, __ATOMIC_RELAXED);
    }
    packed->hidden++;
    move(packed, &packed->avail, 1);
}

// Fills the id's table with the segments, and an entry with the table. The device takes a table from end to
// end: its descriptors have no NEXT (2.8.7).
static void put_indirect(struct packed *packed, const struct sdc_driver_segment *segments, unsigned readable,
                         unsigned count, uint16_t id)
{
    size_t at = (size_t)id * packed->queue.slot_bytes + SDC_DRIVER_SIDE;
    struct desc *table = (struct desc *)(void *)(packed->queue.slots + at);
    for (unsigned i = 0; i < count; i++) {
        fill(&table[i], &segments[i], 0);
        table[i].flags = htole16(i >= readable ? DESC_WRITE : 0);
    }
    struct sdc_driver_segment segment = {
        .iova = packed->queue.slots_iova + at,
        .size = (uint32_t)(count * sizeof(struct desc)),
    };
    put(packed, &segment, id, DESC_INDIRECT);
}

static void put_direct(struct packed *packed, const struct sdc_driver_segment *segments, unsigned readable,
                       unsigned count, uint16_t id)
{
    for (unsigned i = 0; i < count; i++)
        put(packed, &segments[i], id, (i + 1 < count ? DESC_NEXT : 0) | (i >= readable ? DESC_WRITE : 0));
}

static int packed_add(struct sdc_driver_queue *queue, const struct sdc_driver_segment *segments,
                      unsigned readable, unsigned writable, void *token)
{
    struct packed *packed = packed_of(queue);
    unsigned count = readable + writable;
    bool indirect = count > 1 && count <= queue->config.indirect_max;
    unsigned taken = indirect ? 1 : count;
    if (count == 0 || taken > queue->config.size)
        return -EINVAL;
    if (taken > packed->free_count)
        return -ENOSPC;
    // Each chain takes an entry at least, so that there are as many ids as entries.
    uint16_t id = queue->next_id;
    struct slot *slot = &packed->slots[id];
    queue->next_id = slot->next;
    packed->free_count = (uint16_t)(packed->free_count - taken);
    slot->token = token;
    slot->count = (uint16_t)taken;
    slot->writable = 0;
    for (unsigned i = readable; i < count; i++)
        slot->writable += segments[i].size;
    if (indirect)
        put_indirect(packed, segments, readable, count, id);
    else
        put_direct(packed, segments, readable, count, id);
    queue->in_flight++;
    return 0;
}

// Whether the device wants to be notified of the last `shown` entries (2.8.10, 2.8.21).
static bool notify_due(const struct packed *packed, uint32_t shown)
{
    uint16_t flags = load16(&packed->theirs->flags, __ATOMIC_SEQ_CST) & EVENT_FLAGS; // pair [C]
    if (flags != EVENT_DESC || !packed->event_idx)
        return flags != EVENT_DISABLE;
    uint16_t event = load16(&packed->theirs->position, __ATOMIC_SEQ_CST);
    // Positions counted from the start of the lap that avail is in; the event may lie in the lap before.
    int64_t at = event & ~EVENT_WRAP, end = packed->avail.index;
    if (((event & EVENT_WRAP) != 0) != packed->avail.wrap)
        at -= packed->queue.config.size;
    return at < end && at >= end - shown;
}

static bool packed_publish(struct sdc_driver_queue *queue)
{
    struct packed *packed = packed_of(queue);
    uint32_t shown = packed->hidden;
    if (shown == 0)
        return false;
    packed->hidden = 0;
    store16(&packed->desc[packed->hidden_first].flags, packed->hidden_flags, __ATOMIC_SEQ_CST); // [A], [C]
    return notify_due(packed, shown);
}

// --- taking ---

static int broken(struct packed *packed, const char *what)
{
    packed->queue.broken = what;
    return -EPROTO;
}

// Whether the next used descriptor is there, and its flags.
static bool find_used(const struct packed *packed, int order, uint16_t *flags)
{
    *flags = load16(&packed->desc[packed->used.index].flags, order);
    bool avail = *flags & DESC_AVAIL, used = *flags & DESC_USED;
    return avail == used && used == packed->used.wrap;
}

// Reads the used descriptor at the used position, and checks it: whose id it has, and how much was written to that chain.
static int read_used(struct packed *packed, uint16_t flags, uint16_t *found, uint32_t *written)
{
    const struct desc *desc = &packed->desc[packed->used.index];
    uint16_t id = load16(&desc->id, __ATOMIC_RELAXED);
    uint32_t size = le32toh(__atomic_load_n(&desc->size, __ATOMIC_RELAXED));
    *written = flags & DESC_WRITE ? size : 0; // 2.8.5: without the flag, the length means nothing
    if (id >= packed->queue.config.size || packed->slots[id].count == 0)
        return broken(packed, "the device gave back a chain that was not in flight");
    if (*written > packed->slots[id].writable)
        return broken(packed, "the device says it wrote more than the chain has room for");
    *found = id;
    return 0;
}

static void hand_out(struct packed *packed, uint16_t id, uint64_t written, struct sdc_driver_used *used)
{
    struct slot *slot = &packed->slots[id];
    used->token = slot->token;
    used->written = (uint32_t)written;
    // 2.8.8: the used descriptor stands for all entries of its chain.
    move(packed, &packed->used, slot->count);
    packed->free_count = (uint16_t)(packed->free_count + slot->count);
    slot->count = 0;
    if (packed->in_order) {
        packed->oldest = slot->next;
    } else {
        slot->next = packed->queue.next_id;
        packed->queue.next_id = id;
    }
    packed->queue.in_flight--;
}

static int take_one(struct packed *packed, uint16_t flags, struct sdc_driver_used *used)
{
    uint32_t written;
    uint16_t id;
    int ret = read_used(packed, flags, &id, &written);
    if (ret == 0)
        hand_out(packed, id, written, used);
    return ret;
}

// A batch begins: how many chains it has. The last one is in flight, and with it all between.
static int begin_batch(struct packed *packed, uint16_t flags)
{
    uint16_t last;
    int ret = read_used(packed, flags, &last, &packed->batch_written);
    if (ret < 0)
        return ret;
    unsigned ahead = last >= packed->oldest ? 0 : packed->queue.config.size;
    packed->batch = (uint16_t)(last + ahead - packed->oldest + 1);
    return 0;
}

static int take_in_order(struct packed *packed, uint16_t flags, struct sdc_driver_used *used)
{
    int ret = packed->batch == 0 ? begin_batch(packed, flags) : 0;
    if (ret < 0)
        return ret;
    packed->batch--;
    uint64_t written = packed->batch == 0 ? packed->batch_written : packed->slots[packed->oldest].writable;
    hand_out(packed, packed->oldest, written, used);
    return 0;
}

static int packed_take(struct sdc_driver_queue *queue, struct sdc_driver_used *used, unsigned max)
{
    struct packed *packed = packed_of(queue);
    unsigned count = 0;
    uint16_t flags = 0;
    if (queue->broken)
        return -EPROTO;
    while (count < max && (packed->batch > 0 || find_used(packed, __ATOMIC_ACQUIRE, &flags))) { // pair [B]
        int ret = packed->in_order ? take_in_order(packed, flags, &used[count]) : take_one(packed, flags, &used[count]);
        if (ret < 0)
            return ret;
        count++;
    }
    return (int)count;
}

// --- interrupts ---

static bool packed_arm(struct sdc_driver_queue *queue)
{
    struct packed *packed = packed_of(queue);
    uint16_t flags;
    if (packed->event_idx)
        store16(&packed->ours->position, event_position(&packed->used), __ATOMIC_SEQ_CST);
    // pair [D]
    store16(&packed->ours->flags, packed->event_idx ? EVENT_DESC : EVENT_ENABLE, __ATOMIC_SEQ_CST);
    return packed->batch == 0 && !find_used(packed, __ATOMIC_SEQ_CST, &flags);
}

static void packed_disarm(struct sdc_driver_queue *queue)
{
    store16(&packed_of(queue)->ours->flags, EVENT_DISABLE, __ATOMIC_RELAXED);
}

// --- making ---

// The parts that different sides write don't share a cache line.
static uint64_t part(uint64_t size)
{
    return (size + SDC_LINE - 1) & ~(uint64_t)(SDC_LINE - 1);
}

static uint64_t ring_size(const struct sdc_driver_queue_config *config)
{
    return config->size * sizeof(struct desc);
}

uint64_t sdc_driver_packed_memory(const struct sdc_driver_queue_config *config)
{
    return SDC_LINE + part(ring_size(config)) + 2 * part(sizeof(struct event)) + sdc_driver_queue_slots_size(config);
}

static uint16_t packed_position(struct sdc_driver_queue *queue)
{
    return event_position(&packed_of(queue)->avail);
}

static void packed_restart(struct sdc_driver_queue *queue)
{
    struct packed *packed = packed_of(queue);
    uint16_t size = queue->config.size;
    memset(packed->desc, 0, ring_size(&queue->config));
    *packed->ours = *packed->theirs = (struct event){0};
    packed->avail = packed->used = (struct position){.index = 0, .wrap = true};
    packed->hidden = 0;
    queue->next_id = 0;
    packed->free_count = size;
    for (uint16_t i = 0; i < size; i++)
        packed->slots[i] = (struct slot){.next = (uint16_t)(i + 1 < size ? i + 1 : 0)};
    packed->oldest = packed->batch = 0;
    queue->in_flight = 0;
    queue->broken = NULL;
    packed_disarm(queue);
}

static void packed_free(struct sdc_driver_queue *queue)
{
    free(packed_of(queue));
}

static const struct sdc_driver_queue_ops packed_ops = {
    .add = packed_add,
    .publish = packed_publish,
    .take = packed_take,
    .arm = packed_arm,
    .disarm = packed_disarm,
    .position = packed_position,
    .restart = packed_restart,
    .free = packed_free,
};

struct sdc_driver_queue *sdc_driver_packed_new(const struct sdc_driver_queue_config *config,
                                               struct sdc_client_memory *memory)
{
    struct packed *packed = calloc(1, sizeof *packed + config->size * sizeof packed->slots[0]);
    if (!packed)
        return NULL;
    struct sdc_driver_queue *queue = &packed->queue;
    queue->ops = &packed_ops;
    queue->config = *config;
    packed->desc = sdc_client_memory_take(memory, part(ring_size(config)), SDC_LINE, &queue->desc);
    packed->ours = sdc_client_memory_take(memory, part(sizeof(struct event)), SDC_LINE, &queue->driver);
    packed->theirs = sdc_client_memory_take(memory, part(sizeof(struct event)), SDC_LINE, &queue->device);
    if (!packed->desc || !packed->ours || !packed->theirs || !sdc_driver_queue_take_slots(queue, memory)) {
        free(packed);
        return NULL;
    }
    packed->event_idx = config->features & SDC_VIRTIO_F_EVENT_IDX;
    packed->in_order = config->features & SDC_VIRTIO_F_IN_ORDER;
    packed_restart(queue);
    return queue;
}
