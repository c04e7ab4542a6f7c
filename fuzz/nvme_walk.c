// SPDX-License-Identifier: BSD-3-Clause
// PRP entries and SGLs in memory that a hostile driver fills. What a walk says is data lies in guest memory, is as long as the command, and
// lies where a second reading of the lists, entry by entry, says. Some regions may be remote: what is missing of them is fetched, never
// twice for one command, and data that touches them is bounced.
#include "base/check.h"
#include "base/limits.h"
#include "card.h"
#include "device/nvme/walk.h"
#include "input.h"
#include "memory/read_cache.h"

#include <errno.h>

enum { BYTES = FUZZ_PAGES * FUZZ_PAGE, TRIES = 10000 };

struct course {
    struct fuzz_memory memory;
    struct sdc_map *map;
    struct sdc_memory view;
    struct sdc_read_cache cache;
    uint8_t remote; // a bit for each region, the lowest first
    struct sdc_payload payload;
    struct sdc_fetch_log fetched;
    // The command.
    bool sgl;
    uint8_t pointer[16];
    uint32_t size;
    enum sdc_access access;
};

static int write_remote(struct sdc_memory *memory, uint64_t iova, const void *data, size_t size)
{
    (void)memory, (void)iova, (void)data, (void)size;
    fuzz_check(false, "a walk writes");
    return -EFAULT;
}

static void publish(struct course *course)
{
    struct sdc_region_table table = {0};
    const struct sdc_regions *regions = &course->memory.table.regions;
    const struct sdc_region *region = sdc_regions_past(regions, 0);

    for (uint8_t bit = 1; region; region = sdc_regions_next(regions, region), bit = (uint8_t)(bit << 1)) {
        struct sdc_region shown = *region;
        if (course->remote & bit)
            shown.host = NULL;
        sdc_region_table_add(&table, &shown);
    }
    course->map = sdc_region_table_publish(&table, sdc_map_free, NULL);
    fuzz_check(course->map != NULL, "no memory");
    sdc_region_table_clear(&table);
    course->view = (struct sdc_memory){.map = course->map};
    if (course->remote) {
        course->view.cache = &course->cache;
        course->view.write_remote = write_remote;
    }
}

// --- the second reading ---

static bool read64(const struct course *course, uint64_t iova, uint64_t *value)
{
    uint8_t raw[8];

    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *byte = fuzz_memory_at(&course->memory, iova + i);
        if (!byte)
            return false;
        raw[i] = *byte;
    }
    *value = sdc_get64(raw);
    return true;
}

// Where each page of the data is, one after the other.
struct pages {
    uint64_t prp1, list;
    uint32_t left; // bytes, with those of this page
    unsigned n;
};

static bool next_page(const struct course *course, struct pages *pages, uint64_t *iova)
{
    uint64_t second = sdc_get64(course->pointer + 8);

    if (pages->n++ == 0) {
        pages->prp1 = *iova = sdc_get64(course->pointer);
        pages->list = second;
        return true;
    }
    if (pages->n == 2 && pages->left <= NVME_PAGE) {
        *iova = second;
        return true;
    }
    if (pages->list % NVME_PAGE == NVME_PAGE - 8 && pages->left > NVME_PAGE && !read64(course, pages->list, &pages->list))
        return false;
    pages->list += 8;
    return read64(course, pages->list - 8, iova);
}

// The bytes at `at` of the payload's stream are those of the guest at iova.
static void check_place(struct course *course, uint32_t at, uint64_t iova, uint32_t size)
{
    const struct sdc_payload *payload = &course->payload;
    uint32_t first = course->access == SDC_ACCESS_WRITE ? payload->readable_spans : 0;

    if (payload->bouncing) {
        uint32_t i = 0;
        for (; at >= payload->segments[i].size; i++)
            at -= payload->segments[i].size;
        fuzz_check(payload->segments[i].iova + at == iova, "a segment lies elsewhere");
        return;
    }
    for (uint32_t done = 0; done < size; done += 1024) { // spans follow one another as pieces of host memory do
        uint32_t i = first, offset = at + done;
        for (; offset >= payload->spans[i].size; i++)
            offset -= (uint32_t)payload->spans[i].size;
        fuzz_check((uint8_t *)payload->spans[i].base + offset == fuzz_memory_at(&course->memory, iova + done), "a span lies elsewhere");
    }
}

static void check_pages(struct course *course)
{
    struct pages pages = {.left = course->size};
    uint64_t iova;

    while (pages.left > 0) {
        uint32_t at = course->size - pages.left;
        fuzz_check(next_page(course, &pages, &iova), "data came of a list that is not in memory");
        fuzz_check(at == 0 ? iova % 4 == 0 : iova % NVME_PAGE == 0, "a page with an offset");
        uint32_t size = (uint32_t)sdc_min(pages.left, NVME_PAGE - iova % NVME_PAGE);
        check_place(course, at, iova, size);
        pages.left -= size;
    }
}

// --- what must hold ---

static bool in_bytes(const uint8_t *bytes, uint64_t length, const struct sdc_span *span)
{
    size_t at = (size_t)((uint8_t *)span->base - bytes);

    return bytes && at <= length && span->size <= length - at;
}

static void check_payload(struct course *course)
{
    const struct sdc_payload *payload = &course->payload;
    bool writes = course->access == SDC_ACCESS_WRITE;
    uint64_t sum = 0;

    fuzz_check((writes ? payload->writable_size : payload->readable_size) == course->size, "data of another size than the command's");
    fuzz_check((writes ? payload->readable_size : payload->writable_size) == 0, "data in both directions");
    for (uint32_t i = 0; i < payload->spans_count; i++) {
        const struct sdc_span *span = &payload->spans[i];
        fuzz_check(in_bytes(course->memory.bytes, BYTES, span) || in_bytes(payload->bounce, payload->bounce_size, span),
                   "a span lies outside guest memory");
        sum += span->size;
    }
    fuzz_check(sum == course->size, "spans don't add up to the data");
    sum = 0;
    for (uint32_t i = 0; i < payload->segments_count; i++) {
        fuzz_check(payload->segments[i].writable == writes && (writes || !payload->segments[i].nowhere), "a segment of the wrong kind");
        sum += payload->segments[i].size;
    }
    fuzz_check(!payload->bouncing || sum == course->size, "segments don't add up to the data");
    if (!course->sgl)
        check_pages(course);
}

// --- walking ---

static int walk_once(struct course *course, bool bounce)
{
    struct nvme_walk walk = {.memory = &course->view, .payload = &course->payload, .fetched = &course->fetched,
                             .access = course->access, .left = course->size};

    sdc_fetch_log_clear(&course->fetched);
    sdc_payload_begin(&course->payload, bounce);
    return course->sgl ? nvme_sgl_walk(&walk, course->pointer)
                       : nvme_prp_walk(&walk, sdc_get64(course->pointer), sdc_get64(course->pointer + 8));
}

static void fetch(struct course *course)
{
    struct sdc_memory *view = &course->view;
    uint8_t bytes[FUZZ_PAGE];
    uint64_t cached = 1;

    fuzz_check(course->remote != 0, "something is missing where nothing is remote");
    fuzz_check(view->missing_size > 0 && view->missing_size <= sizeof bytes, "nothing is missing, or more than any list has");
    fuzz_check(!sdc_read_cache_find(&course->cache, view->missing_iova, &cached), "what is missing was fetched");
    for (size_t i = 0; i < view->missing_size; i++) {
        const uint8_t *byte = fuzz_memory_at(&course->memory, view->missing_iova + i);
        fuzz_check(byte != NULL, "what is missing is nowhere");
        bytes[i] = *byte;
    }
    fuzz_check(sdc_read_cache_add(&course->cache, view->missing_iova, bytes, view->missing_size) == 0, "no memory");
}

static void walk(struct course *course)
{
    bool bounce = false;
    int rc, tries = 0;

    do {
        rc = walk_once(course, bounce);
        fuzz_check(++tries < TRIES, "a walk without end");
        if (rc == -EAGAIN)
            fetch(course);
        fuzz_check(rc != NVME_WALK_BOUNCE || !bounce, "data that is bounced is to be bounced");
        bounce |= rc == NVME_WALK_BOUNCE;
    } while (rc == -EAGAIN || rc == NVME_WALK_BOUNCE);
    fuzz_check(rc >= 0, "a walk says something that it never says");
    fuzz_check(rc != SDC_NVME_SC_INTERNAL, "no memory");
    if (rc == 0)
        check_payload(course);
    sdc_payload_trim(&course->payload);
    sdc_read_cache_clear(&course->cache);
}

// --- what the driver does ---

// An address that is likely to be one: a page, and mostly no offset.
static uint64_t address(struct fuzz_input *input)
{
    uint8_t page = fuzz_u8(input);

    if (page == 0xff)
        return fuzz_u64(input);
    return (uint64_t)(page & 31) * FUZZ_PAGE + (page & 32 ? fuzz_u16(input) & 0xfff : 0) + (page & 64 ? FUZZ_PAGE - 16 : 0);
}

static void put_entries(struct course *course, struct fuzz_input *input)
{
    uint64_t at = address(input);
    uint8_t raw[8];

    for (unsigned count = fuzz_u8(input) % 32 + 1; count > 0; count--, at += 8) {
        sdc_put64(raw, address(input));
        fuzz_memory_poke(&course->memory, at, raw, sizeof raw);
    }
}

static void make_descriptor(struct fuzz_input *input, uint8_t raw[16])
{
    uint8_t kind = fuzz_u8(input);

    memset(raw, 0, 16);
    sdc_put64(raw, address(input));
    sdc_put32(raw + 8, kind & 8 ? fuzz_u32(input) : kind & 2 ? fuzz_u8(input) * 16U : fuzz_u16(input));
    raw[15] = (uint8_t)(kind & 4 ? fuzz_u8(input) : (kind & 3) << 4);
}

static void put_descriptors(struct course *course, struct fuzz_input *input)
{
    uint64_t at = address(input);
    uint8_t raw[16];

    for (unsigned count = fuzz_u8(input) % 16 + 1; count > 0; count--, at += 16) {
        make_descriptor(input, raw);
        fuzz_memory_poke(&course->memory, at, raw, sizeof raw);
    }
}

static void command(struct course *course, struct fuzz_input *input)
{
    uint8_t how = fuzz_u8(input);

    course->sgl = how & 1;
    course->access = how & 2 ? SDC_ACCESS_WRITE : SDC_ACCESS_READ;
    course->size = how & 4 ? fuzz_u32(input) % NVME_DATA_MAX + 1 : fuzz_u16(input) + 1U;
    if (course->sgl) {
        make_descriptor(input, course->pointer);
    } else {
        sdc_put64(course->pointer, address(input));
        sdc_put64(course->pointer + 8, address(input));
    }
    walk(course);
}

static void add_regions(struct course *course, struct fuzz_input *input)
{
    uint8_t how = fuzz_u8(input);
    uint32_t access = SDC_ACCESS_READ | SDC_ACCESS_WRITE;

    course->remote = how & 2 ? fuzz_u8(input) : 0;
    if (!(how & 1))
        fuzz_memory_add(&course->memory, 0, 0, FUZZ_PAGES, access);
    for (unsigned i = 0; how & 1 && i < FUZZ_REGIONS; i++)
        fuzz_memory_add(&course->memory, 2 * FUZZ_PAGE * (uint64_t)i, 2 * (i * 3 % FUZZ_REGIONS), 2,
                        how & 4 && i == 5 ? SDC_ACCESS_READ : access);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    struct course course = {0};

    fuzz_memory_init(&course.memory);
    sdc_payload_init(&course.payload);
    add_regions(&course, &input);
    publish(&course);
    for (unsigned i = 0; i < 64 && fuzz_more(&input); i++) {
        switch (fuzz_u8(&input) % 4) {
        case 0:
            put_entries(&course, &input);
            break;
        case 1:
            put_descriptors(&course, &input);
            break;
        default:
            command(&course, &input);
        }
    }
    sdc_payload_destroy(&course.payload);
    sdc_map_unref(course.map);
    fuzz_memory_destroy(&course.memory);
    return 0;
}
