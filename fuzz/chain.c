// SPDX-License-Identifier: BSD-3-Clause
// Split and packed rings and their descriptor chains, over memory that a hostile driver fills. A copy of the memory follows along:
// nothing but what the device writes in a ring and the writable bytes of a chain may ever change. Some regions may be remote: what is
// missing of them is fetched, never twice for one chain, and chains that touch them are bounced.
#include "base/check.h"
#include "base/limits.h"
#include "card.h"
#include "input.h"
#include "memory/read_cache.h"
#include "ring/ring.h"

#include <sidecard/virtio.h>

#include <errno.h>
#include <stdlib.h>

enum {
    SIZE_BITS_MAX = 8,
    CHAINS = 1 << SIZE_BITS_MAX,
    BYTES = FUZZ_PAGES * FUZZ_PAGE,
    PACKED_AVAIL = 1 << 7, // flags of a packed ring's descriptors
    PACKED_USED = 1 << 15,
};

struct course {
    struct fuzz_memory memory;
    uint8_t *expected; // what memory.bytes should be
    uint8_t remote; // a bit for each region, the lowest first
    struct sdc_read_cache cache;
    struct sdc_map *map;
    struct sdc_ring ring;
    struct sdc_chain *chains[CHAINS]; // taken and not given
    unsigned chains_count;
    uint16_t next_desc;  // where the driver puts its next descriptor
    uint16_t next_avail; // its available index; in a packed ring the id of its next buffer
    bool wrap;           // packed: the driver's wrap counter
    bool packed;
};

// --- what must hold ---

static bool within_area(const struct sdc_area *area, uint64_t iova)
{
    return iova - area->iova < area->size;
}

// Whether the device may write there: the used ring, or a packed ring's descriptors and the device's event structure.
static bool in_device_area(const struct course *course, const uint8_t *byte)
{
    // A host byte can be seen at several places: look from each.
    const struct sdc_regions *regions = &course->memory.table.regions;
    const struct sdc_region *region = sdc_regions_past(regions, 0);
    for (; region; region = sdc_regions_next(regions, region)) {
        if (byte < region->host || byte >= region->host + region->size)
            continue;
        uint64_t iova = region->iova + (uint64_t)(byte - region->host);
        if (within_area(&course->ring.device, iova) || (course->packed && within_area(&course->ring.desc, iova)))
            return true;
    }
    return false;
}

static bool in_writable(const struct sdc_chain *chain, const uint8_t *byte)
{
    for (uint32_t i = chain->payload.readable_spans; i < chain->payload.spans_count; i++) {
        const uint8_t *base = chain->payload.spans[i].base;
        if (base && byte >= base && byte < base + chain->payload.spans[i].size)
            return true;
    }
    return false;
}

// Compares memory with the copy. What the ring may write is its used ring, what a write to chain may are its writable bytes.
static void check_memory(struct course *course, const struct sdc_chain *chain)
{
    const uint8_t *bytes = course->memory.bytes;

    if (memcmp(bytes, course->expected, BYTES) == 0)
        return;
    for (size_t i = 0; i < BYTES; i++) {
        if (bytes[i] == course->expected[i])
            continue;
        fuzz_check(chain ? in_writable(chain, bytes + i) : in_device_area(course, bytes + i),
                   chain ? "a write to a chain went elsewhere" : "the ring wrote outside its used ring");
    }
    memcpy(course->expected, bytes, BYTES);
}

static void check_ring(const struct course *course)
{
    const struct sdc_ring *ring = &course->ring;

    fuzz_check(ring->in_flight == course->chains_count, "chains in flight are miscounted");
    fuzz_check(ring->in_flight <= ring->config.size, "more chains are in flight than the ring has entries");
    fuzz_check(ring->entries_in_flight <= ring->config.size, "more entries are in flight than the ring has");
    fuzz_check(!course->packed || (ring->avail_next < ring->config.size && ring->used_next < ring->config.size),
               "a packed ring's position lies outside it");
}

static bool in_bounce(const struct sdc_payload *payload, const struct sdc_span *span)
{
    size_t at = (size_t)((uint8_t *)span->base - payload->bounce);

    return payload->bounce && at <= payload->bounce_size && span->size <= payload->bounce_size - at;
}

static void check_segments(const struct sdc_payload *payload)
{
    uint64_t readable = 0, writable = 0;

    for (uint32_t i = 0; i < payload->segments_count; i++) {
        fuzz_check(writable == 0 || payload->segments[i].writable, "a readable segment behind a writable one");
        *(payload->segments[i].writable ? &writable : &readable) += payload->segments[i].size;
    }
    fuzz_check(readable == payload->readable_size && writable == payload->writable_size, "segments don't add up to the streams");
    fuzz_check(payload->bounce_size + payload->unbounced == readable + writable, "a bounce of another size than its streams");
    fuzz_check(payload->bounce_size <= SDC_LIMIT_BOUNCE, "a bounce that is too large");
}

static void check_chain(const struct course *course, const struct sdc_chain *chain)
{
    const struct sdc_payload *payload = &chain->payload;
    uint64_t readable = 0, writable = 0;

    fuzz_check(course->remote || !payload->bounce, "a chain in memory of ours was bounced");
    if (payload->bounce)
        check_segments(payload);

    fuzz_check(course->packed || chain->id < course->ring.config.size, "a chain's head lies outside the ring");
    fuzz_check(payload->readable_spans <= payload->spans_count && payload->spans_count <= payload->capacity, "spans are miscounted");
    for (uint32_t i = 0; i < payload->spans_count; i++) {
        const struct sdc_span *span = &payload->spans[i];
        *(i < payload->readable_spans ? &readable : &writable) += span->size;
        if (!span->base) {
            fuzz_check(payload->fault != 0, "a chain without fault has a part that is not in memory");
            continue;
        }
        if (in_bounce(payload, span))
            continue;
        size_t at = (size_t)((uint8_t *)span->base - course->memory.bytes);
        fuzz_check(at <= BYTES && span->size <= BYTES - at, "a span lies outside guest memory");
    }
    fuzz_check(readable == payload->readable_size && writable == payload->writable_size, "spans don't add up to the streams");
    fuzz_check(readable + writable <= UINT32_MAX, "a chain of more than 4 GiB");
}

// --- what the driver does ---

static void poke(struct course *course, uint64_t iova, const void *from, size_t size)
{
    fuzz_memory_poke(&course->memory, iova, from, size);
    for (size_t i = 0; i < size; i++) {
        const uint8_t *byte = fuzz_memory_at(&course->memory, iova + i);
        if (byte)
            course->expected[byte - course->memory.bytes] = *byte;
    }
}

static void put_desc(struct course *course, struct fuzz_input *input, uint64_t table, uint16_t index, uint16_t flags)
{
    uint8_t raw[16];

    sdc_put64(raw, fuzz_u32(input));
    sdc_put32(raw + 8, fuzz_u16(input));
    sdc_put16(raw + (course->packed ? 14 : 12), flags);
    sdc_put16(raw + (course->packed ? 12 : 14),
              course->packed ? course->next_avail : (uint16_t)((index + 1) % course->ring.config.size));
    poke(course, table + 16 * (uint64_t)index, raw, sizeof raw);
}

static void put_avail(struct course *course, uint16_t head)
{
    const struct sdc_ring_config *config = &course->ring.config;
    uint8_t raw[2];

    sdc_put16(raw, head);
    poke(course, config->driver + 4 + 2 * (uint64_t)(course->next_avail & (config->size - 1)), raw, sizeof raw);
    sdc_put16(raw, ++course->next_avail);
    poke(course, config->driver + 2, raw, sizeof raw);
}

// A chain as an honest driver would make one, but for its addresses and flags.
static void offer(struct course *course, struct fuzz_input *input)
{
    uint32_t size = course->ring.config.size;
    uint8_t how = fuzz_u8(input);
    uint8_t writable = fuzz_u8(input);
    unsigned count = how % 8 + 1;
    uint16_t head = course->next_desc;

    for (unsigned i = 0; i < count; i++) {
        uint16_t flags = (uint16_t)((i + 1 < count ? SDC_DESC_F_NEXT : 0) | (writable >> i & 1 ? SDC_DESC_F_WRITE : 0));
        if (i + 1 == count && how & 0x80)
            flags |= SDC_DESC_F_INDIRECT;
        if (course->packed)
            flags = (uint16_t)(flags | (course->wrap ? PACKED_AVAIL : PACKED_USED));
        put_desc(course, input, course->ring.config.desc, course->next_desc, flags);
        course->next_desc = (uint16_t)((course->next_desc + 1) % size);
        course->wrap ^= course->next_desc == 0;
    }
    if (course->packed)
        course->next_avail++;
    else
        put_avail(course, head);
}

static void poke_anything(struct course *course, struct fuzz_input *input)
{
    uint8_t bytes[64];
    uint32_t iova = fuzz_u32(input);
    uint8_t size = fuzz_u8(input) % sizeof bytes;

    fuzz_bytes(input, bytes, size);
    poke(course, iova, bytes, size);
}

// --- remote regions ---

static int write_remote(struct sdc_memory *memory, uint64_t iova, const void *data, size_t size)
{
    struct course *course = sdc_container(memory, struct course, ring.memory);

    fuzz_check(course->remote != 0, "a write to remote memory, of which there is none");
    fuzz_memory_poke(&course->memory, iova, data, size);
    return 0;
}

// A map of the regions but for those that `missing` names.
static struct sdc_map *make_map(struct course *course, uint8_t missing)
{
    struct sdc_region_table table = {0};
    const struct sdc_regions *regions = &course->memory.table.regions;
    const struct sdc_region *region = sdc_regions_past(regions, 0);

    for (uint8_t bit = 1; region; region = sdc_regions_next(regions, region), bit = (uint8_t)(bit << 1)) {
        struct sdc_region shown = *region;
        if (course->remote & bit)
            shown.host = NULL;
        if (!(missing & bit))
            sdc_region_table_add(&table, &shown);
    }
    struct sdc_map *map = sdc_region_table_publish(&table, sdc_map_free, NULL);
    fuzz_check(map != NULL, "no memory");
    sdc_region_table_clear(&table);
    return map;
}

static struct sdc_memory view_of(struct course *course, struct sdc_map *map)
{
    if (!course->remote)
        return (struct sdc_memory){.map = map};
    return (struct sdc_memory){.map = map, .cache = &course->cache, .write_remote = write_remote};
}

// What the ring says is missing.
static void fetch(struct course *course)
{
    const struct sdc_memory *memory = &course->ring.memory;
    uint8_t bytes[FUZZ_PAGE];
    uint64_t cached = 1;

    fuzz_check(memory->missing_size > 0 && memory->missing_size <= sizeof bytes, "nothing is missing, or more than any parser reads");
    fuzz_check(!sdc_read_cache_find(&course->cache, memory->missing_iova, &cached), "what is missing was fetched");
    for (size_t i = 0; i < memory->missing_size; i++) {
        const uint8_t *byte = fuzz_memory_at(&course->memory, memory->missing_iova + i);
        fuzz_check(byte != NULL, "what is missing is nowhere");
        bytes[i] = *byte;
    }
    fuzz_check(sdc_read_cache_add(&course->cache, memory->missing_iova, bytes, memory->missing_size) == 0, "no memory");
}

static int take_fetching(struct course *course, struct sdc_chain *chain)
{
    int rc;

    while ((rc = sdc_ring_take(&course->ring, chain)) == -EAGAIN)
        fetch(course);
    sdc_read_cache_clear(&course->cache);
    return rc;
}

// --- what the device does ---

static void take(struct course *course)
{
    if (course->chains_count == CHAINS)
        return;
    struct sdc_chain *chain = malloc(sizeof *chain);
    fuzz_check(chain != NULL, "no memory");
    sdc_chain_init(chain);
    int rc = take_fetching(course, chain);
    fuzz_check(rc == 1 || rc == 0 || rc == -EPROTO, "take says something that it never says");
    if (rc == 1) {
        course->chains[course->chains_count++] = chain;
        check_chain(course, chain);
        return;
    }
    fuzz_check(rc == 0 || course->ring.broken, "a ring broke without a reason");
    sdc_chain_destroy(chain);
    free(chain);
}

static void give(struct course *course, unsigned which, uint32_t written)
{
    struct sdc_chain *chain = course->chains[which];

    sdc_ring_give(&course->ring, chain, written);
    course->chains[which] = course->chains[--course->chains_count];
    sdc_chain_destroy(chain);
    free(chain);
}

static void use_spans(struct course *course, struct sdc_chain *chain, bool writable, uint64_t offset, uint64_t size)
{
    const struct sdc_span *spans;
    uint32_t count;
    uint64_t sum = 0;
    uint64_t limit = writable ? chain->payload.writable_size : chain->payload.readable_size;
    int rc = sdc_chain_spans(chain, writable, offset, size, &spans, &count);

    fuzz_check(rc == 0 || rc == -EINVAL || rc == -EFAULT, "spans says something that it never says");
    fuzz_check((rc == -EINVAL) == !sdc_within(offset, size, limit), "spans of a range outside the stream");
    check_chain(course, chain);
    for (uint32_t i = 0; rc == 0 && i < count; i++)
        sum += spans[i].size;
    fuzz_check(rc < 0 || sum == size, "spans of another size than was asked for");
}

static void use_chain(struct course *course, struct fuzz_input *input)
{
    uint8_t local[256];
    uint8_t how = fuzz_u8(input);
    uint32_t offset = fuzz_u16(input);
    uint32_t size = fuzz_u8(input);
    struct sdc_chain *chain = course->chains[how % course->chains_count];

    switch (how >> 6) {
    case 0:
        sdc_fetch_log_clear(&chain->fetched); // the recorder is not what is tested here
        fuzz_check(sdc_chain_read(chain, offset, local, size) != 0 || offset + size <= chain->payload.readable_size,
                   "bytes were read behind the end of the stream");
        break;
    case 1:
        memset(local, how, sizeof local);
        sdc_chain_write(chain, offset, local, size);
        check_memory(course, chain);
        break;
    default:
        use_spans(course, chain, how >> 6 & 1, offset, size);
    }
}

// Another map: the same regions but for those that `missing` names.
static void remap(struct course *course, uint8_t missing)
{
    struct sdc_map *map = make_map(course, missing);
    bool stays = sdc_ring_stays(&course->ring, map);
    if (course->chains_count == 0 || stays) {
        struct sdc_memory view = view_of(course, map);
        sdc_ring_remap(&course->ring, &view);
        fuzz_check(!stays || course->ring.awake, "a ring that stays falls asleep");
        sdc_map_unref(course->map);
        course->map = map;
    } else {
        sdc_map_unref(map);
    }
}

// --- the course ---

static void do_one(struct course *course, struct fuzz_input *input)
{
    switch (fuzz_u8(input) % 12) {
    case 0:
    case 1:
        offer(course, input);
        break;
    case 2: {
        uint8_t index = fuzz_u8(input);
        uint64_t table = fuzz_u32(input);
        put_desc(course, input, table, index, fuzz_u16(input));
        break;
    }
    case 3:
        poke_anything(course, input);
        break;
    case 4:
        course->next_avail = (uint16_t)(course->next_avail + (int8_t)fuzz_u8(input));
        put_avail(course, fuzz_u8(input));
        break;
    case 5:
    case 6:
        take(course);
        break;
    case 7:
        if (course->chains_count > 0)
            give(course, fuzz_u8(input) % course->chains_count, fuzz_u16(input));
        break;
    case 8:
        sdc_ring_publish(&course->ring);
        break;
    case 9:
        if (fuzz_u8(input) & 1)
            sdc_ring_suppress(&course->ring);
        else
            sdc_ring_rearm(&course->ring);
        break;
    case 10:
        if (course->chains_count > 0)
            use_chain(course, input);
        break;
    case 11:
        remap(course, fuzz_u8(input));
        break;
    }
    check_memory(course, NULL);
    check_ring(course);
}

static void add_regions(struct course *course, struct fuzz_input *input)
{
    unsigned count = fuzz_u8(input) % FUZZ_REGIONS + 1;

    for (unsigned i = 0; i < count; i++) {
        uint8_t iova = fuzz_u8(input);
        uint8_t host = fuzz_u8(input);
        uint8_t how = fuzz_u8(input);
        fuzz_memory_add(&course->memory, (uint64_t)iova * FUZZ_PAGE, host % FUZZ_PAGES, how % FUZZ_PAGES, how >> 6 & 3);
        // Which one of them that is depends on the others, and does not matter.
        if ((how & 0x30) == 0x30)
            course->remote |= (uint8_t)(1 << i);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    struct course course = {0};
    struct sdc_error err = {0};

    fuzz_memory_init(&course.memory);
    course.expected = calloc(1, BYTES);
    fuzz_check(course.expected != NULL, "no memory");
    add_regions(&course, &input);
    uint8_t how = fuzz_u8(&input);
    course.packed = (how & 0x20) != 0;
    course.wrap = true;
    struct sdc_ring_config config = {
        // A packed ring may be of any size.
        .size = (1U << (how & 15) % (SIZE_BITS_MAX + 1)) - (how & 0x10 && how & 15 ? 1 : 0),
        .features = (uint64_t)(how >> 6) << 28 | (course.packed ? SDC_VIRTIO_F_RING_PACKED : 0), // INDIRECT_DESC, EVENT_IDX
        .desc = fuzz_u32(&input),
        .driver = fuzz_u32(&input),
        .device = fuzz_u32(&input),
        .position = fuzz_u16(&input),
    };
    course.next_avail = config.position;
    course.map = make_map(&course, 0);
    struct sdc_memory view = view_of(&course, course.map);
    int rc = sdc_ring_start(&course.ring, &config, &view, &err);
    fuzz_check(rc == 0 || err.text[0] != '\0', "refused without a reason");
    for (unsigned i = 0; rc == 0 && i < 200 && fuzz_more(&input); i++)
        do_one(&course, &input);
    while (course.chains_count > 0)
        give(&course, 0, 0);
    if (rc == 0)
        check_ring(&course);
    sdc_ring_stop(&course.ring);
    sdc_map_unref(course.map);
    fuzz_memory_destroy(&course.memory);
    free(course.expected);
    return 0;
}
