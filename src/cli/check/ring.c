// SPDX-License-Identifier: BSD-3-Clause
// Numbers are in the specification's sections 2.7 (split) and 2.8 (packed) of virtio 1.2. Where the order of stores counts: entries
// before the index or the first entry's flags (release), the index or flags before the elements (acquire), and full barriers
// between showing and looking whether the other side wants to hear of it.
#include "cli/check/ring.h"

#include "base/bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    AVAIL_FLAGS = 0, // of a split ring's driver and device areas
    AVAIL_INDEX = 2,
    AVAIL_RING = 4,
    USED_RING = 4,
    USED_BYTES = 8,
    SUPPRESS_POSITION = 0, // of a packed ring's
    SUPPRESS_FLAGS = 2,
    SUPPRESS_BYTES = 4,
    EVENT_ENABLE = 0,
    EVENT_DISABLE = 1,
    EVENT_DESC = 2,
    EVENT_BITS = 3,
    DESC_FLAGS = 14, // of a packed ring's descriptor
    DESC_ID = 12,
    DESC_AVAIL = 1 << 7,
    DESC_USED = 1 << 15,
    WRAP = 1 << 15,
    LINE = 64,
    FAR_BEHIND = 0x4000,
};

// In a used element: nothing was written here.
#define NO_CHAIN UINT32_MAX

static void store16(uint8_t *to, uint16_t value)
{
    __atomic_store_n((uint16_t *)(void *)to, htole16(value), __ATOMIC_SEQ_CST);
}

static uint16_t load16(const uint8_t *from)
{
    return le16toh(__atomic_load_n((const uint16_t *)(const void *)from, __ATOMIC_SEQ_CST));
}

static uint8_t *used_element(const struct sdc_check_ring *ring, uint16_t position)
{
    return ring->device + USED_RING + (size_t)USED_BYTES * (position % ring->config.size);
}

static int wrong(struct sdc_check_ring *ring, const char *what)
{
    ring->wrong = what;
    return -EPROTO;
}

// --- making ---

static uint64_t driver_bytes(const struct sdc_check_ring_config *config)
{
    return config->packed ? SUPPRESS_BYTES : (uint64_t)AVAIL_RING + 2 * config->size + 2;
}

static uint64_t device_bytes(const struct sdc_check_ring_config *config)
{
    return config->packed ? SUPPRESS_BYTES : (uint64_t)USED_RING + (uint64_t)USED_BYTES * config->size + 2;
}

int sdc_check_ring_new(const struct sdc_check_ring_config *config, struct sdc_client_memory *memory, struct sdc_check_ring *ring)
{
    *ring = (struct sdc_check_ring){.config = *config};
    ring->desc = sdc_client_memory_take(memory, (uint64_t)SDC_CHECK_DESC_BYTES * config->size, LINE, &ring->desc_iova);
    ring->driver = sdc_client_memory_take(memory, driver_bytes(config), LINE, &ring->driver_iova);
    ring->device = sdc_client_memory_take(memory, device_bytes(config), LINE, &ring->device_iova);
    ring->counts = calloc(config->size, sizeof *ring->counts);
    ring->links = calloc(config->size, sizeof *ring->links);
    ring->order = calloc(config->size, sizeof *ring->order);
    ring->written = calloc(config->size, sizeof *ring->written);
    if (!ring->desc || !ring->driver || !ring->device || !ring->counts || !ring->links || !ring->order ||
        !ring->written) {
        sdc_check_ring_free(ring);
        return -ENOMEM;
    }
    sdc_check_ring_clear(ring, config->packed ? WRAP | (uint32_t)WRAP << 16 : 0);
    return 0;
}

void sdc_check_ring_free(struct sdc_check_ring *ring)
{
    free(ring->counts);
    free(ring->links);
    free(ring->order);
    free(ring->written);
    *ring = (struct sdc_check_ring){0};
}

// As two laps would have left it: in front of the position what this lap has used, behind it what the one before has.
static void fill_laps(struct sdc_check_ring *ring)
{
    for (unsigned i = 0; i < ring->config.size; i++)
        if ((i < ring->used) == ring->used_wrap)
            store16(ring->desc + (size_t)i * SDC_CHECK_DESC_BYTES + DESC_FLAGS, DESC_AVAIL | DESC_USED);
}

void sdc_check_ring_clear(struct sdc_check_ring *ring, uint32_t base)
{
    const struct sdc_check_ring_config *config = &ring->config;

    memset(ring->desc, 0, (size_t)SDC_CHECK_DESC_BYTES * config->size);
    memset(ring->driver, 0, driver_bytes(config));
    memset(ring->device, 0, device_bytes(config));
    memset(ring->counts, 0, config->size * sizeof *ring->counts);
    memset(ring->links, 0, config->size * sizeof *ring->links);
    ring->free = config->size;
    ring->next = ring->oldest = ring->newest = ring->hidden = 0;
    ring->wrong = NULL;
    if (config->packed) {
        ring->avail = (uint16_t)(base & ~(uint32_t)WRAP);
        ring->avail_wrap = base & WRAP;
        ring->used = (uint16_t)(base >> 16 & ~(uint32_t)WRAP);
        ring->used_wrap = base >> 16 & WRAP;
        fill_laps(ring);
    } else {
        ring->avail = ring->used = (uint16_t)base;
        store16(ring->driver + AVAIL_INDEX, ring->avail);
        store16(ring->device + AVAIL_INDEX, ring->used);
        for (unsigned i = 0; config->in_order && i < config->size; i++)
            sdc_put32(used_element(ring, (uint16_t)i), NO_CHAIN);
        store16(ring->device + USED_RING + (size_t)USED_BYTES * config->size, ring->avail); // as the device would have left it
    }
    ring->shown = ring->avail;
    ring->shown_wrap = ring->avail_wrap;
    sdc_check_ring_calls(ring, SDC_CHECK_CALLS_ALWAYS, 0);
}

uint16_t sdc_check_ring_position(const struct sdc_check_ring *ring)
{
    return (uint16_t)(ring->avail | (ring->config.packed && ring->avail_wrap ? WRAP : 0));
}

uint32_t sdc_check_ring_base(const struct sdc_check_ring *ring)
{
    if (!ring->config.packed)
        return ring->avail;
    return sdc_check_ring_position(ring) | (uint32_t)(ring->used | (ring->used_wrap ? WRAP : 0)) << 16;
}

uint32_t sdc_check_ring_used_base(const struct sdc_check_ring *ring)
{
    uint32_t used = ring->used | (ring->config.packed && ring->used_wrap ? WRAP : 0u);

    return ring->config.packed ? used | used << 16 : used;
}

static void pretend_packed(struct sdc_check_ring *ring, uint16_t id, uint16_t *at, bool *wrap)
{
    uint8_t *desc = ring->desc + (size_t)*at * SDC_CHECK_DESC_BYTES;
    uint32_t next = (uint32_t)*at + ring->counts[id];

    store16(desc + DESC_ID, id);
    store16(desc + DESC_FLAGS, *wrap ? DESC_AVAIL | DESC_USED : 0);
    *wrap = *wrap != (next >= ring->config.size);
    *at = (uint16_t)(next % ring->config.size);
}

void sdc_check_ring_pretend(struct sdc_check_ring *ring, const int *ids, unsigned count)
{
    uint16_t at = ring->used;
    bool wrap = ring->used_wrap;

    for (unsigned i = 0; i < count; i++) {
        if (ring->config.packed) {
            pretend_packed(ring, (uint16_t)ids[i], &at, &wrap);
            continue;
        }
        uint8_t *element = used_element(ring, at);
        sdc_put32(element, (uint32_t)ids[i]);
        sdc_put32(element + 4, 0);
        store16(ring->device + AVAIL_INDEX, ++at);
    }
}

unsigned sdc_check_ring_flying(const struct sdc_check_ring *ring)
{
    unsigned flying = 0;

    for (unsigned i = 0; i < ring->config.size; i++)
        flying += ring->counts[i] > 0;
    return flying;
}

// --- adding ---

static void put_split(uint8_t *table, unsigned index, const struct sdc_check_piece *piece)
{
    uint8_t *at = table + (size_t)index * SDC_CHECK_DESC_BYTES;

    sdc_put64(at, piece->iova);
    sdc_put32(at + 8, piece->size);
    sdc_put16(at + 12, piece->flags);
    sdc_put16(at + 14, piece->next);
}

static void fly(struct sdc_check_ring *ring, uint16_t id, unsigned count)
{
    ring->counts[id] = (uint16_t)count;
    ring->free = (uint16_t)(ring->free - count);
    ring->order[ring->newest] = id;
    ring->newest = (uint16_t)((ring->newest + 1) % ring->config.size);
}

void sdc_check_ring_add_head(struct sdc_check_ring *ring, uint16_t head)
{
    store16(ring->driver + AVAIL_RING + 2 * (ring->avail % ring->config.size), head);
    ring->avail++;
}

// The next free entry of the table from `from` on. There is one.
static uint16_t find_free(const struct sdc_check_ring *ring, uint16_t from)
{
    while (ring->links[from] != 0)
        from = (uint16_t)((from + 1) % ring->config.size);
    return from;
}

static int add_split(struct sdc_check_ring *ring, const struct sdc_check_piece *pieces, unsigned count)
{
    uint16_t head = find_free(ring, ring->next), at = head;

    for (unsigned i = 0; i < count; i++) {
        struct sdc_check_piece piece = pieces[i];
        ring->links[at] = 1; // taken, so that it is not found
        uint16_t following = i + 1 < count ? find_free(ring, at) : 0;
        ring->links[at] = (uint16_t)(following + 1);
        piece.flags = (uint16_t)((piece.flags & ~SDC_CHECK_DESC_NEXT) | (i + 1 < count ? SDC_CHECK_DESC_NEXT : 0));
        piece.next = following;
        put_split(ring->desc, at, &piece);
        ring->next = (uint16_t)((at + 1) % ring->config.size);
        at = following;
    }
    fly(ring, head, count);
    sdc_check_ring_add_head(ring, head);
    return head;
}

// Fills the next entry of a packed ring; the first of what is not shown yet gets its flags when it is.
static void put_packed(struct sdc_check_ring *ring, const struct sdc_check_piece *piece, uint16_t id, unsigned flags)
{
    uint8_t *at = ring->desc + (size_t)ring->avail * SDC_CHECK_DESC_BYTES;
    uint16_t shown = (uint16_t)(flags | (ring->avail_wrap ? DESC_AVAIL : DESC_USED));

    sdc_put64(at, piece->iova);
    sdc_put32(at + 8, piece->size);
    store16(at + DESC_ID, id);
    if (ring->hidden == 0) {
        ring->hidden_first = ring->avail;
        ring->hidden_flags = shown;
    } else {
        store16(at + DESC_FLAGS, shown);
    }
    ring->hidden++;
    ring->avail++;
    if (ring->avail == ring->config.size) {
        ring->avail = 0;
        ring->avail_wrap = !ring->avail_wrap;
    }
}

static uint16_t take_id(struct sdc_check_ring *ring)
{
    uint16_t id = ring->next;

    while (ring->counts[id] != 0)
        id = (uint16_t)((id + 1) % ring->config.size);
    ring->next = (uint16_t)((id + 1) % ring->config.size);
    return id;
}

static int add_packed(struct sdc_check_ring *ring, const struct sdc_check_piece *pieces, unsigned count, bool as_is)
{
    uint16_t id = take_id(ring);

    for (unsigned i = 0; i < count; i++) {
        unsigned flags = as_is ? pieces[i].flags
                               : (pieces[i].flags & ~(unsigned)SDC_CHECK_DESC_NEXT) | (i + 1 < count ? SDC_CHECK_DESC_NEXT : 0);
        put_packed(ring, &pieces[i], id, flags);
    }
    fly(ring, id, count);
    return id;
}

int sdc_check_ring_add(struct sdc_check_ring *ring, const struct sdc_check_piece *pieces, unsigned count)
{
    if (count == 0 || count > ring->free)
        return -ENOSPC;
    return ring->config.packed ? add_packed(ring, pieces, count, false) : add_split(ring, pieces, count);
}

int sdc_check_ring_add_as_is(struct sdc_check_ring *ring, const struct sdc_check_piece *pieces, unsigned count)
{
    if (count == 0 || count > ring->free)
        return -ENOSPC;
    if (ring->config.packed)
        return add_packed(ring, pieces, count, true);
    for (unsigned i = 0; i < count; i++) {
        put_split(ring->desc, i, &pieces[i]);
        ring->links[i] = (uint16_t)((i + 1) % ring->config.size + 1);
    }
    fly(ring, 0, count);
    sdc_check_ring_add_head(ring, 0);
    return 0;
}

void sdc_check_ring_table_entry(const struct sdc_check_ring *ring, uint8_t *to, unsigned index, const struct sdc_check_piece *piece)
{
    uint8_t *at = to + (size_t)index * SDC_CHECK_DESC_BYTES;

    put_split(to, index, piece);
    if (ring->config.packed) {
        sdc_put16(at + DESC_ID, 0);
        sdc_put16(at + DESC_FLAGS, piece->flags);
    }
}

void sdc_check_ring_table(const struct sdc_check_ring *ring, uint8_t *to, const struct sdc_check_piece *pieces, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct sdc_check_piece piece = pieces[i];
        bool linked = !ring->config.packed && i + 1 < count;
        piece.flags = (uint16_t)((piece.flags & ~SDC_CHECK_DESC_NEXT) | (linked ? SDC_CHECK_DESC_NEXT : 0));
        piece.next = (uint16_t)(linked ? i + 1 : 0);
        sdc_check_ring_table_entry(ring, to, i, &piece);
    }
}

// --- notifications ---

static uint16_t avail_event(const struct sdc_check_ring *ring)
{
    return load16(ring->device + USED_RING + (size_t)USED_BYTES * ring->config.size);
}

uint16_t sdc_check_ring_device_flags(const struct sdc_check_ring *ring)
{
    return load16(ring->device + (ring->config.packed ? SUPPRESS_FLAGS : AVAIL_FLAGS));
}

// 2.7.10: of an event that lies in what was shown since `before`.
static bool split_wants_kick(const struct sdc_check_ring *ring, uint16_t before)
{
    if (!ring->config.event_idx)
        return !(sdc_check_ring_device_flags(ring) & 1);
    return (uint16_t)(ring->shown - avail_event(ring) - 1) < (uint16_t)(ring->shown - before);
}

// 2.8.10. Positions are counted from the beginning of the lap that `before` is in.
static bool packed_wants_kick(const struct sdc_check_ring *ring, uint16_t before, bool before_wrap)
{
    uint16_t flags = sdc_check_ring_device_flags(ring) & EVENT_BITS;

    if (flags != EVENT_DESC || !ring->config.event_idx)
        return flags != EVENT_DISABLE;
    uint16_t event = load16(ring->device + SUPPRESS_POSITION);
    uint32_t size = ring->config.size, at = event & ~(uint32_t)WRAP, end = ring->shown;
    if (before_wrap != ring->avail_wrap)
        end += size;
    if (((event & WRAP) != 0) != before_wrap)
        at += size;
    return at >= before && at < end;
}

bool sdc_check_ring_show(struct sdc_check_ring *ring)
{
    uint16_t before = ring->shown;
    bool before_wrap = ring->shown_wrap;

    if (!ring->config.packed)
        store16(ring->driver + AVAIL_INDEX, ring->avail);
    else if (ring->hidden > 0)
        store16(ring->desc + (size_t)ring->hidden_first * SDC_CHECK_DESC_BYTES + DESC_FLAGS, ring->hidden_flags);
    ring->hidden = 0;
    ring->shown = ring->avail;
    ring->shown_wrap = ring->avail_wrap;
    return ring->config.packed ? packed_wants_kick(ring, before, before_wrap) : split_wants_kick(ring, before);
}

void sdc_check_ring_calls(struct sdc_check_ring *ring, enum sdc_check_calls calls, uint16_t ahead)
{
    uint16_t size = ring->config.size;

    if (ring->config.packed) {
        uint32_t at = (uint32_t)ring->used + ahead;
        bool wrap = ring->used_wrap != (at >= size);
        store16(ring->driver + SUPPRESS_POSITION, (uint16_t)(at % size | (wrap ? WRAP : 0)));
        store16(ring->driver + SUPPRESS_FLAGS,
                calls == SDC_CHECK_CALLS_ALWAYS ? EVENT_ENABLE : calls == SDC_CHECK_CALLS_NEVER ? EVENT_DISABLE : EVENT_DESC);
        return;
    }
    if (!ring->config.event_idx) {
        store16(ring->driver + AVAIL_FLAGS, calls == SDC_CHECK_CALLS_NEVER);
        return;
    }
    // "Always" is a promise that the waiter keeps: the event is put to the next one before each wait. "Never" is so
    // far behind that a device which has used a chain, and looks late at what is wanted, does not find it there either.
    uint16_t event = (uint16_t)(calls == SDC_CHECK_CALLS_NEVER ? ring->used - FAR_BEHIND : ring->used + ahead);
    store16(ring->driver + AVAIL_RING + 2 * (size_t)size, event);
}

// --- taking ---

static void land(struct sdc_check_ring *ring, uint16_t id, uint32_t written)
{
    uint16_t at = id;

    for (unsigned i = 0; !ring->config.packed && i < ring->counts[id]; i++) {
        uint16_t following = (uint16_t)(ring->links[at] - 1);
        ring->links[at] = 0;
        at = following;
    }
    ring->free = (uint16_t)(ring->free + ring->counts[id]);
    ring->counts[id] = 0;
    ring->written[id] = written;
}

// The flags of the entry that the device uses next; they may change at any moment, so that they are read once.
static uint16_t used_flags(const struct sdc_check_ring *ring)
{
    return load16(ring->desc + (size_t)ring->used * SDC_CHECK_DESC_BYTES + DESC_FLAGS);
}

static bool is_used(const struct sdc_check_ring *ring, uint16_t flags)
{
    return ((flags & DESC_AVAIL) != 0) == ring->used_wrap && ((flags & DESC_USED) != 0) == ring->used_wrap;
}

// Whether the device has used what lies where the ring is now: behind an element that stands for it, it has not.
static bool is_written(const struct sdc_check_ring *ring)
{
    return ring->config.packed ? is_used(ring, used_flags(ring)) : sdc_get32(used_element(ring, ring->used)) != NO_CHAIN;
}

// Which one comes back: in order, one that the device names stands for all that were added before it (2.7.9, 2.8.8).
static int check_order(struct sdc_check_ring *ring, uint16_t id)
{
    if (!ring->config.in_order)
        return 0;
    for (unsigned i = 0; i < ring->config.size; i++) {
        uint16_t oldest = ring->order[ring->oldest];
        ring->oldest = (uint16_t)((ring->oldest + 1) % ring->config.size);
        if (oldest == id)
            return 0;
        if (ring->counts[oldest] == 0)
            return wrong(ring, "chains come back in another order than they were made available in, though VIRTIO_F_IN_ORDER is on");
        if (ring->config.packed) {
            uint32_t used = (uint32_t)ring->used + ring->counts[oldest];
            ring->used_wrap = ring->used_wrap != (used >= ring->config.size);
            ring->used = (uint16_t)(used % ring->config.size);
        } else {
            ring->used++;
        }
        if (is_written(ring))
            return wrong(ring, "chains are used one by one in another order than they came in, though VIRTIO_F_IN_ORDER is on");
        land(ring, oldest, SDC_CHECK_WRITTEN_ALL);
    }
    return wrong(ring, "a chain that was not in flight came back");
}

static int take_split(struct sdc_check_ring *ring, struct sdc_check_used *used)
{
    uint16_t index = load16(ring->device + AVAIL_INDEX), behind = (uint16_t)(index - ring->used);

    if (behind == 0)
        return 0;
    if (behind > ring->config.size || behind > (uint16_t)(ring->shown - ring->used))
        return wrong(ring, "the used index is ahead of what was made available");
    uint8_t *element = used_element(ring, ring->used);
    uint32_t id = sdc_get32(element);
    if (id >= ring->config.size || ring->counts[id] == 0)
        return wrong(ring, "a used element names a chain that is not in flight");
    *used = (struct sdc_check_used){.id = (uint16_t)id, .written = sdc_get32(element + 4), .position = ring->used};
    if (ring->config.in_order)
        sdc_put32(element, NO_CHAIN);
    int ret = check_order(ring, (uint16_t)id);
    if (ret < 0)
        return ret;
    if (index == ring->used || (uint16_t)(index - ring->used) > behind)
        return wrong(ring, "the used index leaves out chains that came before one that is used, though VIRTIO_F_IN_ORDER is on");
    ring->used++;
    land(ring, (uint16_t)id, used->written);
    return 1;
}

static int take_packed(struct sdc_check_ring *ring, struct sdc_check_used *used)
{
    const uint8_t *at = ring->desc + (size_t)ring->used * SDC_CHECK_DESC_BYTES;
    uint16_t flags = used_flags(ring);

    if (!is_used(ring, flags))
        return 0;
    uint16_t id = load16(at + DESC_ID);
    if (id >= ring->config.size || ring->counts[id] == 0)
        return wrong(ring, "a used descriptor has a buffer id that is not in flight");
    // 2.8.5: without the flag the length means nothing, and nothing was written.
    *used = (struct sdc_check_used){
        .id = id, .written = flags & SDC_CHECK_DESC_WRITE ? sdc_get32(at + 8) : 0, .position = ring->used};
    uint16_t count = ring->counts[id];
    int ret = check_order(ring, id);
    if (ret < 0)
        return ret;
    uint32_t next = (uint32_t)ring->used + count;
    ring->used_wrap = ring->used_wrap != (next >= ring->config.size);
    ring->used = (uint16_t)(next % ring->config.size);
    land(ring, id, used->written);
    return 1;
}

int sdc_check_ring_take(struct sdc_check_ring *ring, struct sdc_check_used *used)
{
    if (ring->wrong)
        return -EPROTO;
    return ring->config.packed ? take_packed(ring, used) : take_split(ring, used);
}
