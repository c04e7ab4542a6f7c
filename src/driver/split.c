// SPDX-License-Identifier: BSD-3-Clause
// The split ring, the driver's half (virtio 1.2, 2.7).
//
// Order, in named pairs with the device:
//  [A] available entries and descriptors are stored before the available index (release).
//  [B] the used index is loaded (acquire) before the used elements and what the device wrote.
//  [C] publish stores the available index, then loads avail_event or the flags; the device stores those, then
//  loads the index.
//      Both sides sequentially consistent: one of the two sees the other.
//  [D] arm stores used_event or the flags, then loads the used index; the device the other way round.
//  Likewise.
//
// These are barriers of the processor, not only of the compiler. Whoever reads the ring at the other end of a Unix socket
// is a process on this machine, for which they are strong enough, as VIRTIO_F_ORDER_PLATFORM asks (section 6).
//
// With VIRTIO_F_IN_ORDER descriptors are used in the order of the table (2.7.5), round and round, and come back in it, so
// that nothing is ever relinked: the free ones follow next_id, those in flight follow oldest. One used element may
// stand for a batch (2.7.9): it names the last chain of it, and all before that were used as a whole.
#include "driver/split.h"

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
    AVAIL_NO_INTERRUPT = 1,
    USED_NO_NOTIFY = 1,
};

struct desc {
    uint64_t address;
    uint32_t size;
    uint16_t flags;
    uint16_t next;
};

struct used_element {
    uint32_t id;
    uint32_t written;
};

// What we remember of a descriptor; of a chain, with its head. The ring's own memory is never read back.
struct slot {
    void *token;
    uint64_t writable; // bytes
    uint16_t next;     // free list, or the rest of the chain
    uint16_t count;    // descriptors of the chain in the ring; 0: not in flight
    uint16_t position; // available index of the chain
    uint16_t table;    // descriptors of the indirect table that the head's descriptor in the ring says it has; 0: it is something else
};

struct split {
    struct sdc_driver_queue queue;
    struct desc *desc;
    uint16_t *avail;     // flags, index, ring[size], used_event
    uint16_t *used;      // flags, index, elements[size] of 8 bytes, avail_event
    uint16_t mask;
    uint16_t free_count;  // descriptors; the first one is queue.next_id
    uint16_t avail_next;  // next entry to fill
    uint16_t avail_shown; // index that the device sees
    uint16_t used_next;   // next element to take
    bool event_idx;
    bool in_order;
    uint16_t oldest;        // in order: the head of the chain that comes back next
    uint16_t batch;         // chains that are left of the batch that is being taken
    uint32_t batch_written; // what its element says of the last one
    struct slot slots[];
};

static struct split *split_of(struct sdc_driver_queue *queue)
{
    return sdc_container(queue, struct split, queue);
}

static void store16(uint16_t *to, uint16_t value, int order)
{
    __atomic_store_n(to, htole16(value), order);
}

static uint16_t load16(const uint16_t *from, int order)
{
    return le16toh(__atomic_load_n(from, order));
}

static uint16_t *used_event(struct split *split)
{
    return &split->avail[2 + split->queue.config.size];
}

static uint16_t *avail_event(struct split *split)
{
    return &split->used[2 + 4 * split->queue.config.size];
}

// --- adding ---

static void fill(struct desc *desc, uint64_t address, uint32_t size, unsigned flags, uint16_t next)
{
    desc->address = htole64(address);
    desc->size = htole32(size);
    desc->flags = htole16((uint16_t)flags);
    desc->next = htole16(next);
}

// Fills the head's table with the segments, and the head with the table. Tables stay where they are: a head that says what it would
// have to say is left alone, so that its cache line stays where it is, too.
static void fill_indirect(struct split *split, uint16_t head, const struct sdc_driver_segment *segments,
                          unsigned readable, unsigned count)
{
    size_t at = (size_t)head * split->queue.slot_bytes + SDC_DRIVER_SIDE;
    struct desc *table = (struct desc *)(void *)(split->queue.slots + at);
    for (unsigned i = 0; i + 1 < count; i++)
        fill(&table[i], segments[i].iova, segments[i].size, DESC_NEXT | (i >= readable ? DESC_WRITE : 0), (uint16_t)(i + 1));
    fill(&table[count - 1], segments[count - 1].iova, segments[count - 1].size, count > readable ? DESC_WRITE : 0, 0);
    if (split->slots[head].table == count)
        return;
    split->slots[head].table = (uint16_t)count;
    fill(&split->desc[head], split->queue.slots_iova + at, (uint32_t)(count * sizeof(struct desc)), DESC_INDIRECT, 0);
}

// Takes `count` descriptors off the free list for the segments; the list already links them as the chain has
// to be.
static void fill_direct(struct split *split, uint16_t head, const struct sdc_driver_segment *segments,
                        unsigned readable, unsigned count)
{
    uint16_t at = head;
    for (unsigned i = 0; i < count; i++) {
        unsigned flags = (i + 1 < count ? DESC_NEXT : 0) | (i >= readable ? DESC_WRITE : 0);
        uint16_t next = split->slots[at].next;
        fill(&split->desc[at], segments[i].iova, segments[i].size, flags, i + 1 < count ? next : 0);
        split->slots[at].table = 0;
        at = next;
    }
    split->queue.next_id = at;
}

static int split_add(struct sdc_driver_queue *queue, const struct sdc_driver_segment *segments,
                     unsigned readable, unsigned writable, void *token)
{
    struct split *split = split_of(queue);
    unsigned count = readable + writable;
    bool indirect = count > 1 && count <= queue->config.indirect_max;
    unsigned taken = indirect ? 1 : count;
    if (count == 0 || taken > queue->config.size)
        return -EINVAL;
    if (taken > split->free_count)
        return -ENOSPC;
    uint16_t head = queue->next_id;
    struct slot *slot = &split->slots[head];
    if (indirect) {
        fill_indirect(split, head, segments, readable, count);
        queue->next_id = slot->next;
    } else {
        fill_direct(split, head, segments, readable, count);
    }
    split->free_count = (uint16_t)(split->free_count - taken);
    slot->token = token;
    slot->count = (uint16_t)taken;
    slot->position = split->avail_next;
    slot->writable = 0;
    for (unsigned i = readable; i < count; i++)
        slot->writable += segments[i].size;
    split->avail[2 + (split->avail_next & split->mask)] = htole16(head);
    split->avail_next++;
    queue->in_flight++;
    return 0;
}

static bool split_publish(struct sdc_driver_queue *queue)
{
    struct split *split = split_of(queue);
    uint16_t before = split->avail_shown, now = split->avail_next;
    if (before == now)
        return false;
    split->avail_shown = now;
    store16(&split->avail[1], now, __ATOMIC_SEQ_CST); // pairs [A] and [C]
    if (!split->event_idx)
        return !(load16(&split->used[0], __ATOMIC_SEQ_CST) & USED_NO_NOTIFY);
    // 2.7.10: has the index passed avail_event between before and now?
    uint16_t event = load16(avail_event(split), __ATOMIC_SEQ_CST);
    return (uint16_t)(now - event - 1) < (uint16_t)(now - before);
}

// --- taking ---

static int broken(struct split *split, const char *what)
{
    split->queue.broken = what;
    return -EPROTO;
}

// Puts a chain's descriptors back on the free list.
static void give_back(struct split *split, uint16_t head)
{
    struct slot *slot = &split->slots[head];
    if (split->in_order) {
        split->oldest = (uint16_t)((head + slot->count) & split->mask);
    } else {
        uint16_t last = head;
        for (unsigned i = 1; i < slot->count; i++)
            last = split->slots[last].next;
        split->slots[last].next = split->queue.next_id;
        split->queue.next_id = head;
    }
    split->free_count = (uint16_t)(split->free_count + slot->count);
    slot->count = 0;
    split->queue.in_flight--;
}

// Reads the used element at used_next, and checks it: what it names, and how much was written to that.
static int read_element(struct split *split, uint16_t *head, uint32_t *written)
{
    struct used_element *elements = (void *)&split->used[2];
    struct used_element element = elements[split->used_next & split->mask];
    uint32_t id = le32toh(element.id);
    *written = le32toh(element.written);
    if (id >= split->queue.config.size || split->slots[id].count == 0)
        return broken(split, "the device gave back a chain that was not in flight");
    if (*written > split->slots[id].writable)
        return broken(split, "the device says it wrote more than the chain has room for");
    *head = (uint16_t)id;
    return 0;
}

static void hand_out(struct split *split, uint16_t head, uint64_t written, struct sdc_driver_used *used)
{
    used->token = split->slots[head].token;
    used->written = (uint32_t)written;
    give_back(split, head);
    split->used_next++;
}

static int take_one(struct split *split, struct sdc_driver_used *used)
{
    uint32_t written;
    uint16_t head;
    int ret = read_element(split, &head, &written);
    if (ret == 0)
        hand_out(split, head, written, used);
    return ret;
}

// The next chain of a batch, of which the used index shows that it has `there` chains at most.
static int take_in_order(struct split *split, uint16_t there, struct sdc_driver_used *used)
{
    uint16_t last;
    if (split->batch == 0) {
        int ret = read_element(split, &last, &split->batch_written);
        if (ret < 0)
            return ret;
        split->batch = (uint16_t)(split->slots[last].position - split->used_next + 1);
        if (split->batch > there)
            return broken(split, "the device gave back a chain that is not due");
    }
    split->batch--;
    uint64_t written = split->batch == 0 ? split->batch_written : split->slots[split->oldest].writable;
    hand_out(split, split->oldest, written, used);
    return 0;
}

static int split_take(struct sdc_driver_queue *queue, struct sdc_driver_used *used, unsigned max)
{
    struct split *split = split_of(queue);
    if (queue->broken)
        return -EPROTO;
    uint16_t there = (uint16_t)(load16(&split->used[1], __ATOMIC_ACQUIRE) - split->used_next); // pair [B]
    if (there > queue->in_flight)
        return broken(split, "the device's used index is ahead of what is in flight");
    unsigned count = (unsigned)sdc_min(there, max);
    for (unsigned i = 0; i < count; i++) {
        int ret = split->in_order ? take_in_order(split, (uint16_t)(there - i), &used[i]) : take_one(split, &used[i]);
        if (ret < 0)
            return ret;
    }
    return (int)count;
}

// --- interrupts ---

static bool split_arm(struct sdc_driver_queue *queue)
{
    struct split *split = split_of(queue);
    if (split->event_idx)
        store16(used_event(split), split->used_next, __ATOMIC_SEQ_CST); // pair [D]
    else
        store16(&split->avail[0], 0, __ATOMIC_SEQ_CST);
    return load16(&split->used[1], __ATOMIC_SEQ_CST) == split->used_next;
}

static void split_disarm(struct sdc_driver_queue *queue)
{
    struct split *split = split_of(queue);
    if (!split->event_idx)
        store16(&split->avail[0], AVAIL_NO_INTERRUPT, __ATOMIC_RELAXED);
    else
        // The event that was passed last: it takes the index a whole round to get there again.
        store16(used_event(split), (uint16_t)(split->used_next - 1), __ATOMIC_RELAXED);
}

// --- making ---

// The parts that different sides write don't share a cache line.
static uint64_t part(uint64_t size)
{
    return (size + SDC_LINE - 1) & ~(uint64_t)(SDC_LINE - 1);
}

static uint64_t avail_size(uint16_t size)
{
    return 6 + 2 * (uint64_t)size;
}

static uint64_t used_size(uint16_t size)
{
    return 6 + sizeof(struct used_element) * (uint64_t)size;
}

uint64_t sdc_driver_split_memory(const struct sdc_driver_queue_config *config)
{
    return SDC_LINE + part(config->size * sizeof(struct desc)) + part(avail_size(config->size)) +
           part(used_size(config->size)) + sdc_driver_queue_slots_size(config);
}

// The available index, as it is: its lower 15 bits are the offset, the uppermost one the wrap counter.
static uint16_t split_position(struct sdc_driver_queue *queue)
{
    return split_of(queue)->avail_shown;
}

static void split_restart(struct sdc_driver_queue *queue)
{
    struct split *split = split_of(queue);
    uint16_t size = queue->config.size;
    memset(split->avail, 0, avail_size(size));
    memset(split->used, 0, used_size(size));
    split->avail_next = split->avail_shown = split->used_next = 0;
    queue->next_id = 0;
    split->free_count = size;
    for (uint16_t i = 0; i < size; i++)
        split->slots[i] = (struct slot){.next = (uint16_t)((i + 1) & split->mask)};
    split->oldest = split->batch = 0;
    queue->in_flight = 0;
    queue->broken = NULL;
    split_disarm(queue);
}

static void split_free(struct sdc_driver_queue *queue)
{
    free(split_of(queue));
}

static const struct sdc_driver_queue_ops split_ops = {
    .add = split_add,
    .publish = split_publish,
    .take = split_take,
    .arm = split_arm,
    .disarm = split_disarm,
    .position = split_position,
    .restart = split_restart,
    .free = split_free,
};

struct sdc_driver_queue *sdc_driver_split_new(const struct sdc_driver_queue_config *config,
                                              struct sdc_client_memory *memory)
{
    struct split *split = calloc(1, sizeof *split + config->size * sizeof split->slots[0]);
    if (!split)
        return NULL;
    struct sdc_driver_queue *queue = &split->queue;
    queue->ops = &split_ops;
    queue->config = *config;
    split->desc =
        sdc_client_memory_take(memory, part(config->size * sizeof(struct desc)), SDC_LINE, &queue->desc);
    split->avail = sdc_client_memory_take(memory, part(avail_size(config->size)), SDC_LINE, &queue->driver);
    split->used = sdc_client_memory_take(memory, part(used_size(config->size)), SDC_LINE, &queue->device);
    if (!split->desc || !split->avail || !split->used || !sdc_driver_queue_take_slots(queue, memory)) {
        free(split);
        return NULL;
    }
    split->mask = (uint16_t)(config->size - 1);
    split->event_idx = config->features & SDC_VIRTIO_F_EVENT_IDX;
    split->in_order = config->features & SDC_VIRTIO_F_IN_ORDER;
    split_restart(queue);
    return queue;
}
