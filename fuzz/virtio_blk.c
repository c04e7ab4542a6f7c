// SPDX-License-Identifier: BSD-3-Clause
// Requests to a disk, from the ring to the backend and back, by a driver that is honest until it is not. While it is honest every
// request must come back with a status; afterwards the card may break, but it has to end its work and let go of memory.
#include "base/check.h"
#include "card.h"
#include "input.h"
#include "ring/chain.h"
#include "transport/virtio_pci/card.h"

enum {
    QUEUE_SIZE = 32,
    // Where an honest driver has its things.
    DESC = 0,
    DRIVER = 0x400,
    DEVICE = 0x800,
    TABLE = 0xc00, // indirect
    HEADERS = 0x1000,
    HEADER_BYTES = 512, // for one request: header, ranges, status
    DATA = 0x8000,
    DATA_BYTES = 0x8000,
    PACKED_AVAIL = 1 << 7, // flags of a packed ring's descriptors
    PACKED_USED = 1 << 15,
    TURNS = 40, // that suffice to finish all that an honest driver offers at a time
};

struct course {
    struct fuzz_card card;
    struct fuzz_memory memory;
    uint64_t features;
    bool honest;
    uint16_t avail;      // the driver's index: how many requests it has made
    uint16_t desc;       // next descriptor
    bool wrap;           // packed: the driver's wrap counter
    // Packed: how far used descriptors were seen, and how many entries each buffer id occupies.
    uint16_t seen;
    uint16_t used_at;
    bool used_wrap;
    uint16_t entries[QUEUE_SIZE];
    uint16_t heads[QUEUE_SIZE]; // split: of each request
    uint16_t checked;           // requests whose order was looked at
    unsigned desc_in_use; // since the last time that everything had come back
    unsigned table_used; // entries of the indirect table, likewise
};

static void put(struct course *course, uint64_t iova, uint64_t value, size_t size)
{
    uint8_t raw[8];

    sdc_put64(raw, value);
    fuzz_memory_poke(&course->memory, iova, raw, size);
}

static bool is_packed(const struct course *course)
{
    return (course->features & SDC_VIRTIO_F_RING_PACKED) != 0;
}

static bool in_order(const struct course *course)
{
    return (course->features & SDC_VIRTIO_F_IN_ORDER) != 0;
}

// Follows the used descriptors of a packed ring.
static void look_packed(struct course *course)
{
    for (unsigned i = 0; i < QUEUE_SIZE; i++) {
        const uint8_t *desc = fuzz_memory_at(&course->memory, DESC + 16 * (uint64_t)course->used_at);
        uint16_t flags = sdc_get16(desc + 14);
        uint16_t id = sdc_get16(desc + 12);
        if (((flags & PACKED_AVAIL) != 0) != course->used_wrap || ((flags & PACKED_USED) != 0) != course->used_wrap)
            return;
        fuzz_check(id < QUEUE_SIZE && course->entries[id] > 0, "a buffer comes back that was not on its way");
        fuzz_check(!in_order(course) || id == course->seen % QUEUE_SIZE, "a buffer comes back before its turn");
        course->used_at = (uint16_t)(course->used_at + course->entries[id]);
        course->entries[id] = 0;
        if (course->used_at >= QUEUE_SIZE) {
            course->used_at = (uint16_t)(course->used_at - QUEUE_SIZE);
            course->used_wrap = !course->used_wrap;
        }
        course->seen++;
    }
}

// Looks at the order of the used elements of a split ring.
static void check_order(struct course *course)
{
    uint16_t used = sdc_get16(fuzz_memory_at(&course->memory, DEVICE + 2));

    for (; in_order(course) && course->checked != used; course->checked++) {
        unsigned at = course->checked % QUEUE_SIZE;
        uint32_t head = sdc_get32(fuzz_memory_at(&course->memory, DEVICE + 4 + 8 * (uint64_t)at));
        fuzz_check(head == course->heads[at], "a chain comes back before its turn");
    }
}

// How many requests have come back.
static uint16_t used_index(struct course *course)
{
    if (!is_packed(course))
        return sdc_get16(fuzz_memory_at(&course->memory, DEVICE + 2));
    look_packed(course);
    return course->seen;
}

// --- the driver ---

// Memory with some regions taken away, while requests may be on their way.
static void remap(struct course *course, uint8_t missing)
{
    struct fuzz_memory less = {.bytes = course->memory.bytes};

    fuzz_table_without(&course->memory.table, missing, &less.table);
    struct sdc_map *map = fuzz_memory_publish(&less);
    fuzz_card_set_map(&course->card, map);
    sdc_map_unref(map);
    sdc_region_table_clear(&less.table);
    course->honest = course->honest && missing == 0;
}

static void common(struct course *course, uint64_t offset, uint32_t size, uint64_t value)
{
    fuzz_card_write(&course->card, VIRTIO_PCI_BAR, offset, size, value);
}

static void start(struct course *course, struct fuzz_input *input)
{
    static const uint64_t areas[] = {DESC, DRIVER, DEVICE};
    uint8_t how = fuzz_u8(input);

    common(course, 0x14, 1, 0);
    remap(course, 0);
    for (unsigned i = 0; i < HEADERS / 8; i++)
        put(course, 8 * i, 0, 8);
    course->features = SDC_VIRTIO_F_VERSION_1 | (how & 1 ? SDC_VIRTIO_F_INDIRECT_DESC : 0) |
                       (how & 2 ? SDC_VIRTIO_F_EVENT_IDX : 0) | (how & 32 ? SDC_VIRTIO_F_RING_PACKED : 0) |
                       (how & 64 ? SDC_VIRTIO_F_IN_ORDER : 0) |
                       (how & 128 ? SDC_VIRTIO_F_NOTIFICATION_DATA | SDC_VIRTIO_F_ORDER_PLATFORM : 0) |
                       (how & 4 ? 0x200 : 0) | (how & 8 ? 0x6a00 : 0);
    common(course, 0x14, 1, SDC_VIRTIO_S_ACKNOWLEDGE | SDC_VIRTIO_S_DRIVER);
    for (unsigned i = 0; i < 2; i++) {
        common(course, 0x08, 4, i);
        common(course, 0x0c, 4, (uint32_t)(course->features >> (32 * i)));
    }
    common(course, 0x14, 1, SDC_VIRTIO_S_ACKNOWLEDGE | SDC_VIRTIO_S_DRIVER | SDC_VIRTIO_S_FEATURES_OK);
    common(course, 0x16, 2, 0);
    common(course, 0x18, 2, QUEUE_SIZE);
    common(course, 0x1a, 2, how & 16 ? 1 : VIRTIO_PCI_NO_VECTOR);
    for (unsigned i = 0; i < 3; i++) {
        common(course, 0x20 + 8 * i, 4, areas[i]);
        common(course, 0x24 + 8 * i, 4, 0);
    }
    common(course, 0x1c, 2, 1);
    common(course, 0x14, 1, 0xf);
    course->avail = course->desc = course->seen = course->used_at = course->checked = 0;
    course->wrap = course->used_wrap = true;
    memset(course->entries, 0, sizeof course->entries);
    course->desc_in_use = course->table_used = 0;
    course->honest = true;
}

static void kick(struct course *course)
{
    bool data = course->features & SDC_VIRTIO_F_NOTIFICATION_DATA;

    fuzz_card_write(&course->card, VIRTIO_PCI_BAR, VIRTIO_PCI_NOTIFY, data ? 4 : 2, data ? (uint64_t)course->avail << 16 : 0);
    fuzz_turns(TURNS, NULL, NULL);
    fuzz_card_settle(&course->card);
    if (!course->honest)
        return;
    fuzz_check(used_index(course) == course->avail, "an honest driver's requests don't come back");
    if (!is_packed(course))
        check_order(course);
    fuzz_check(!(fuzz_card_read(&course->card, VIRTIO_PCI_BAR, 0x14, 1) & SDC_VIRTIO_S_NEEDS_RESET),
               "the device broke under an honest driver");
    course->desc_in_use = course->table_used = 0;
}

// --- requests ---

struct piece {
    uint64_t iova;
    uint32_t size;
    bool writable;
};

struct layout {
    struct piece pieces[QUEUE_SIZE];
    unsigned count;
};

// Adds [iova, iova + size) in pieces of at most `step` bytes.
static void add(struct layout *layout, uint64_t iova, uint32_t size, bool writable, uint32_t step)
{
    while (size > 0 && layout->count < QUEUE_SIZE) {
        bool last = layout->count == QUEUE_SIZE - 1;
        uint32_t length = last ? size : (uint32_t)sdc_min(size, step);
        layout->pieces[layout->count++] = (struct piece){iova, length, writable};
        iova += length;
        size -= length;
    }
}

// Flags, and next or the buffer id, stand in one order in a split ring and in the other in a packed one.
static void put_desc(struct course *course, uint64_t at, const struct piece *piece, unsigned flags, unsigned next)
{
    bool packed = is_packed(course);

    put(course, at, piece->iova, 8);
    put(course, at + 8, piece->size, 4);
    put(course, at + (packed ? 14 : 12), flags | (piece->writable ? SDC_DESC_F_WRITE : 0), 2);
    put(course, at + (packed ? 12 : 14), next, 2);
}

// One descriptor of the ring itself. next is the following one's index; in a packed ring they follow one another anyway.
static void put_ring_desc(struct course *course, const struct piece *piece, unsigned flags)
{
    uint64_t at = DESC + 16 * (uint64_t)course->desc;

    course->desc_in_use++;
    if (is_packed(course))
        flags |= course->wrap ? PACKED_AVAIL : PACKED_USED;
    course->desc = (course->desc + 1) % QUEUE_SIZE;
    put_desc(course, at, piece, flags, is_packed(course) ? course->avail % QUEUE_SIZE : course->desc);
    course->wrap ^= course->desc == 0;
}

// Puts the chain into the ring, or into the indirect table and one descriptor into the ring.
static void submit(struct course *course, const struct layout *layout, bool indirect)
{
    unsigned slots = indirect ? 1 : layout->count;

    if (course->desc_in_use + slots > QUEUE_SIZE || course->table_used + layout->count > 2 * QUEUE_SIZE)
        kick(course);
    uint16_t head = course->desc;
    struct piece table = {TABLE + 16 * course->table_used, 16 * layout->count, false};
    for (unsigned i = 0; i < layout->count; i++) {
        unsigned flags = i + 1 < layout->count ? SDC_DESC_F_NEXT : 0;
        if (indirect)
            put_desc(course, TABLE + 16 * course->table_used++, &layout->pieces[i], flags, i + 1);
        else
            put_ring_desc(course, &layout->pieces[i], flags);
    }
    if (indirect)
        put_ring_desc(course, &table, SDC_DESC_F_INDIRECT);
    course->entries[course->avail % QUEUE_SIZE] = (uint16_t)slots;
    course->heads[course->avail % QUEUE_SIZE] = head;
    if (!is_packed(course)) {
        put(course, DRIVER + 4 + 2 * (uint64_t)(course->avail % QUEUE_SIZE), head, 2);
        put(course, DRIVER + 2, course->avail + 1U, 2);
    }
    course->avail++;
}

// Any type, any sector, any sizes: legal on the ring, not always for a disk.
static void request(struct course *course, struct fuzz_input *input)
{
    static const uint8_t types[] = {0, 1, 4, 8, 11, 13, 0, 1};
    static const uint32_t steps[] = {512, 16, 1, 4096};
    uint8_t how = fuzz_u8(input);
    uint8_t type = how & 8 ? fuzz_u8(input) : types[how & 7];
    bool reads = type == 0 || type == 8;
    bool ranges = type == 11 || type == 13;
    uint32_t step = steps[how >> 4 & 3];
    uint64_t sector = how & 0x80 ? fuzz_u64(input) : fuzz_u8(input);
    uint32_t size = fuzz_u8(input) * (ranges ? 4U : 128U);
    uint64_t header = HEADERS + (uint64_t)(course->avail % QUEUE_SIZE) * HEADER_BYTES;
    uint64_t data = ranges ? header + 16 : DATA + fuzz_u16(input) % DATA_BYTES;
    uint8_t raw[320];
    struct layout layout = {0};

    put(course, header, type, 4);
    put(course, header + 8, sector, 8);
    if (ranges) {
        size = (uint32_t)sdc_min(size, sizeof raw);
        fuzz_bytes(input, raw, size);
        fuzz_memory_poke(&course->memory, data, raw, size);
    }
    size = (uint32_t)sdc_min(size, ranges ? size : DATA + DATA_BYTES - data);
    add(&layout, header, 16, false, step);
    add(&layout, data, size, reads, (uint32_t)sdc_max(step, 64));
    add(&layout, header + HEADER_BYTES - 1, 1, true, 1);
    submit(course, &layout, how & 0x40 && course->features & SDC_VIRTIO_F_INDIRECT_DESC);
}

// --- what no honest driver does ---

static void poke_anything(struct course *course, struct fuzz_input *input)
{
    uint8_t bytes[64];
    uint16_t iova = fuzz_u16(input);
    uint8_t size = fuzz_u8(input) % sizeof bytes;

    fuzz_bytes(input, bytes, size);
    fuzz_memory_poke(&course->memory, iova, bytes, size);
    course->honest = false;
}

static void write_register(struct course *course, struct fuzz_input *input)
{
    uint32_t size = 1U << fuzz_u8(input) % 4;
    uint64_t offset = fuzz_u16(input) % (4 * VIRTIO_PCI_PAGE) & ~(uint64_t)(size - 1);

    fuzz_card_write(&course->card, VIRTIO_PCI_BAR, offset, size, fuzz_u64(input));
    course->honest = false;
}

// --- the course ---

static void do_one(struct course *course, struct fuzz_input *input)
{
    switch (fuzz_u8(input) % 11) {
    case 0:
    case 1:
    case 2:
    case 3:
        request(course, input);
        break;
    case 4:
    case 5:
        kick(course);
        break;
    case 6:
        poke_anything(course, input);
        break;
    case 7:
        remap(course, fuzz_u8(input) % 3 ? 0 : fuzz_u8(input));
        break;
    case 8:
        write_register(course, input);
        break;
    case 9:
        start(course, input);
        break;
    case 10: // the cache: legal at any time
        fuzz_card_write(&course->card, VIRTIO_PCI_BAR, VIRTIO_PCI_DEVICE + 32, 1, fuzz_u8(input));
        course->card.card->refresh(course->card.card);
        break;
    }
}

// All memory in one region, or its parts in a jumble, so that everything that is long crosses an edge.
static void add_regions(struct course *course, bool jumbled)
{
    uint32_t access = SDC_ACCESS_READ | SDC_ACCESS_WRITE;

    if (!jumbled)
        fuzz_memory_add(&course->memory, 0, 0, FUZZ_PAGES, access);
    for (unsigned i = 0; jumbled && i < FUZZ_REGIONS; i++)
        fuzz_memory_add(&course->memory, 2 * FUZZ_PAGE * (uint64_t)i, 2 * (i * 3 % FUZZ_REGIONS), 2, access);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    struct course course = {0};

    fuzz_memory_init(&course.memory);
    add_regions(&course, fuzz_u8(&input) & 1);
    fuzz_card_open(&course.card, 2, QUEUE_SIZE);
    start(&course, &input);
    for (unsigned i = 0; i < 64 && fuzz_more(&input); i++)
        do_one(&course, &input);
    if (course.honest)
        kick(&course);
    fuzz_card_close(&course.card);
    fuzz_memory_destroy(&course.memory);
    return 0;
}
