// SPDX-License-Identifier: BSD-3-Clause
// PRP entries and SGLs: which data they name, however it lies, and with which status those are refused that name none.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "device/nvme/walk.h"
#include "ring_fixture.h"

#include <errno.h>

enum {
    P = GUEST_PAGE,
    PIECES = 300,
    ENTRIES = 520,
    OFFSET = SDC_NVME_SC_PRP_OFFSET | SDC_NVME_SC_DNR,
    SEGMENT = SDC_NVME_SC_SGL_LAST_SEGMENT | SDC_NVME_SC_DNR,
    COUNT = SDC_NVME_SC_SGL_COUNT | SDC_NVME_SC_DNR,
    LENGTH = SDC_NVME_SC_SGL_LENGTH | SDC_NVME_SC_DNR,
    TYPE = SDC_NVME_SC_SGL_TYPE | SDC_NVME_SC_DNR,
    TRANSFER = SDC_NVME_SC_DATA_TRANSFER,
    // Where lists stand in the cases below: the guest's last pages.
    A = 12 * P,
    B = 13 * P,
    C = 14 * P,
};

#define FAR (UINT64_C(1) << 40)

struct piece {
    uint64_t iova;
    uint32_t size;
};

struct course {
    struct guest guest;
    struct sdc_payload payload;
    struct sdc_fetch_log fetched;
};

static void open_course(struct course *course, bool jumbled)
{
    guest_open(&course->guest, jumbled);
    for (unsigned i = 0; i < GUEST_BYTES; i += 4)
        guest_put(&course->guest, i, i * UINT32_C(2654435761), 4);
    sdc_payload_init(&course->payload);
}

static void close_course(struct course *course)
{
    sdc_payload_destroy(&course->payload);
    guest_close(&course->guest);
}

// A walk from its start over one or the other; by SGL if there is a descriptor.
static int walk_once(struct course *course, uint64_t prp1, uint64_t prp2, const uint8_t *sgl, uint64_t size, enum sdc_access access,
                     bool bounce)
{
    struct nvme_walk walk = {.memory = &course->guest.view, .payload = &course->payload, .fetched = &course->fetched, .access = access,
                             .left = size};

    sdc_fetch_log_clear(&course->fetched);
    sdc_payload_begin(&course->payload, bounce);
    return sgl ? nvme_sgl_walk(&walk, sgl) : nvme_prp_walk(&walk, prp1, prp2);
}

// The payload is these pieces of the guest's memory, up to the first of size 0.
static void check_pieces(struct course *course, const struct piece *pieces, bool writable)
{
    uint64_t at = 0;

    for (const struct piece *piece = pieces; piece->size > 0; piece++) {
        const struct sdc_span *spans;
        uint8_t expected[GUEST_BYTES];
        uint32_t count;
        assert_int_equal(sdc_memory_read(&course->guest.view, piece->iova, expected, piece->size), 0);
        assert_int_equal(sdc_payload_spans(&course->payload, writable, at, piece->size, &spans, &count), 0);
        for (uint32_t i = 0, done = 0; i < count; done += (uint32_t)spans[i].size, i++)
            assert_memory_equal(spans[i].base, expected + done, spans[i].size);
        at += piece->size;
    }
    assert_int_equal(writable ? course->payload.writable_size : course->payload.readable_size, at);
    assert_int_equal(writable ? course->payload.readable_size : course->payload.writable_size, 0);
}

// --- PRP ---

static const struct prp_case {
    const char *name;
    uint64_t prp1, prp2;
    uint32_t size;
    struct {
        uint64_t at;
        uint64_t entries[8];
    } lists[3];
    int rc;
    struct piece pieces[8];
} prp_cases[] = {
    {"a sector", 2 * P, 0, 512, {{0}}, 0, {{2 * P, 512}}},
    {"with an offset", 2 * P + 516, 0, 512, {{0}}, 0, {{2 * P + 516, 512}}},
    {"up to the page's end", 2 * P + 512, FAR, P - 512, {{0}}, 0, {{2 * P + 512, P - 512}}},
    {"an offset of two bytes", 2 * P + 2, 0, 512, {{0}}, OFFSET, {{0}}},
    {"an offset of one byte", 2 * P + 1, 0, 512, {{0}}, OFFSET, {{0}}},
    {"address 0 is one like any other", 0, P, 2 * P, {{0}}, 0, {{0, 2 * P}}},
    {"two pages", 5 * P, 3 * P, 2 * P, {{0}}, 0, {{5 * P, P}, {3 * P, P}}},
    {"two pages in a row", 4 * P, 5 * P, 2 * P, {{0}}, 0, {{4 * P, 2 * P}}},
    {"two halves", 5 * P + 2048, 3 * P, P, {{0}}, 0, {{5 * P + 2048, 2048}, {3 * P, 2048}}},
    {"a second page with an offset", 5 * P, 3 * P + 512, 2 * P, {{0}}, OFFSET, {{0}}},
    {"a second page with a small offset", 5 * P, 3 * P + 4, P + 512, {{0}}, OFFSET, {{0}}},
    {"a list of two", 5 * P, A, 3 * P, {{A, {3 * P, P}}}, 0, {{5 * P, P}, {3 * P, P}, {P, P}}},
    {"what is behind the last entry does not count", 5 * P, A, 2 * P + 512, {{A, {3 * P, P, FAR + 1}}}, 0,
     {{5 * P, P}, {3 * P, P}, {P, 512}}},
    {"a list with an offset", 5 * P, A + 64, 3 * P, {{A + 64, {3 * P, P}}}, 0, {{5 * P, P}, {3 * P, P}, {P, P}}},
    {"a list at the very end of its page", 5 * P, A + P - 16, 3 * P, {{A + P - 16, {3 * P, P}}}, 0, {{5 * P, P}, {3 * P, P}, {P, P}}},
    {"a list that goes on", 5 * P, A + P - 16, 4 * P, {{A + P - 16, {3 * P, B}}, {B, {P, 7 * P}}}, 0,
     {{5 * P, P}, {3 * P, P}, {P, P}, {7 * P, P}}},
    {"a list that only names the next", 5 * P, A + P - 8, 3 * P, {{A + P - 8, {C}}, {C, {P, 7 * P}}}, 0,
     {{5 * P, P}, {P, P}, {7 * P, P}}},
    {"a list that goes on inside a page", 5 * P, A + P - 16, 4 * P, {{A + P - 16, {3 * P, B + 8}}, {B + 8, {P, 7 * P}}}, OFFSET, {{0}}},
    {"a list that goes on in itself", 5 * P, A + P - 8, 3 * P, {{A + P - 8, {A}}, {A, {P, 7 * P}}}, 0,
     {{5 * P, P}, {P, P}, {7 * P, P}}},
    {"a list at an odd address", 5 * P, A + 4, 3 * P, {{A, {3 * P, P}}}, OFFSET, {{0}}},
    {"an entry with an offset", 5 * P, A, 3 * P, {{A, {3 * P, P + 4}}}, OFFSET, {{0}}},
    {"a list outside", 5 * P, FAR, 3 * P, {{0}}, TRANSFER, {{0}}},
    {"a list that goes on outside", 5 * P, A + P - 16, 4 * P, {{A + P - 16, {3 * P, FAR}}}, TRANSFER, {{0}}},
    {"a list at the end of all addresses", 5 * P, UINT64_MAX - 7, 3 * P, {{0}}, TRANSFER, {{0}}},
    {"the first page outside", FAR, 0, 512, {{0}}, TRANSFER, {{0}}},
    {"the second page outside", 5 * P, FAR, 2 * P, {{0}}, TRANSFER, {{0}}},
    {"an entry outside", 5 * P, A, 3 * P, {{A, {3 * P, FAR}}}, TRANSFER, {{0}}},
    {"the last page of all addresses", ~(uint64_t)(P - 1), 0, P, {{0}}, TRANSFER, {{0}}},
    {"around the end of all addresses", ~(uint64_t)(P - 1), 0, 2 * P, {{0}}, TRANSFER, {{0}}},
    {"the same page again and again", 5 * P, A, 4 * P, {{A, {5 * P, 5 * P, 5 * P}}}, 0, {{5 * P, P}, {5 * P, P}, {5 * P, P}, {5 * P, P}}},
};

static void put_lists(struct course *course, const struct prp_case *c)
{
    for (unsigned i = 0; i < 3 && c->lists[i].at; i++) {
        for (unsigned k = 0; k < 8 && c->lists[i].at + 8 * (k + 1) <= GUEST_BYTES; k++) {
            if (c->lists[i].entries[k])
                guest_put(&course->guest, c->lists[i].at + 8 * (uint64_t)k, c->lists[i].entries[k], 8);
        }
    }
}

static void prp_entries(void **state)
{
    (void)state;
    for (unsigned how = 0; how < 4; how++) {
        for (size_t i = 0; i < sizeof prp_cases / sizeof prp_cases[0]; i++) {
            const struct prp_case *c = &prp_cases[i];
            struct course course;
            open_course(&course, how & 1);
            put_lists(&course, c);
            int rc = walk_once(&course, c->prp1, c->prp2, NULL, c->size, how & 2 ? SDC_ACCESS_WRITE : SDC_ACCESS_READ, false);
            if (rc != c->rc)
                fail_msg("%s: %#x", c->name, (unsigned)rc);
            if (rc == 0)
                check_pieces(&course, c->pieces, how & 2);
            close_course(&course);
        }
    }
}

// As much data as a command may have, from lists that begin at every place of their page.
static void the_longest_lists(void **state)
{
    struct course course;

    (void)state;
    open_course(&course, false);
    for (uint64_t room = 1; room <= P / 8; room += room < 5 || room > 250 ? 1 : 49) {
        uint64_t at = A + P - 8 * room, pages = (NVME_DATA_MAX - 512 + P - 1) / P;
        struct piece pieces[PIECES] = {{P - 512, 512}};
        for (uint64_t i = 0; i < pages; i++) {
            uint64_t page = 2 * (i % 5), bytes = i + 1 < pages ? P : P - 512;
            if (room - (at - (A + P - 8 * room)) / 8 == 1 && pages - i > 1 && at < A + P) {
                guest_put(&course.guest, at, B, 8);
                at = B;
            }
            guest_put(&course.guest, at, page * P, 8);
            at += 8;
            pieces[i + 1] = (struct piece){page * P, (uint32_t)bytes};
        }
        assert_int_equal(walk_once(&course, P - 512, A + P - 8 * room, NULL, NVME_DATA_MAX, SDC_ACCESS_READ, false), 0);
        assert_int_equal(course.payload.spans_count, pages + 1);
        check_pieces(&course, pieces, false);
        sdc_payload_trim(&course.payload);
    }
    close_course(&course);
}

static void pages_in_a_row_are_one_span(void **state)
{
    struct course course;

    (void)state;
    open_course(&course, false);
    for (unsigned i = 0; i < 8; i++)
        guest_put(&course.guest, A + 8 * i, (2 + (uint64_t)i) * P, 8);
    assert_int_equal(walk_once(&course, P + 1024, A, NULL, 8 * P, SDC_ACCESS_WRITE, false), 0);
    assert_int_equal(course.payload.spans_count, 1);
    close_course(&course);
}

// --- SGL ---

#define D(address, length)  {address, length, SDC_NVME_SGL_DATA << 4}
#define T(length)           {0, length, SDC_NVME_SGL_BIT_BUCKET << 4}
#define S(address, count)   {address, 16 * (count), SDC_NVME_SGL_SEGMENT << 4}
#define L(address, count)   {address, 16 * (count), SDC_NVME_SGL_LAST_SEGMENT << 4}

struct sgl_desc {
    uint64_t address;
    uint32_t length;
    uint8_t kind;
};

static const struct sgl_case {
    const char *name;
    struct sgl_desc first;
    uint32_t size;
    struct {
        uint64_t at;
        struct sgl_desc descs[6];
    } segments[3];
    int rc;
    struct piece pieces[8];
} sgl_cases[] = {
    {"one block", D(5 * P + 3, 512), 512, {{0}}, 0, {{5 * P + 3, 512}}},
    {"one block over pages", D(5 * P + 3, 3 * P), 3 * P, {{0}}, 0, {{5 * P + 3, 3 * P}}},
    {"one that is too short", D(5 * P, 511), 512, {{0}}, LENGTH, {{0}}},
    {"one that is too long", D(5 * P, 513), 512, {{0}}, LENGTH, {{0}}},
    {"one that is empty", D(5 * P, 0), 512, {{0}}, LENGTH, {{0}}},
    {"one of another sub type", {5 * P, 512, 1}, 512, {{0}}, TYPE, {{0}}},
    {"one of a key", {5 * P, 512, 4 << 4}, 512, {{0}}, TYPE, {{0}}},
    {"one of a transport", {5 * P, 512, 5 << 4}, 512, {{0}}, TYPE, {{0}}},
    {"one of a vendor", {5 * P, 512, 15 << 4}, 512, {{0}}, TYPE, {{0}}},
    {"one outside", D(FAR, 512), 512, {{0}}, TRANSFER, {{0}}},
    {"one around the end", D(UINT64_MAX - 3, 512), 512, {{0}}, TRANSFER, {{0}}},
    {"a last segment", L(A, 2), 512, {{A, {D(5 * P, 500), D(3 * P + 1, 12)}}}, 0, {{5 * P, 500}, {3 * P + 1, 12}}},
    {"blocks in a row", L(A, 2), 512, {{A, {D(5 * P, 500), D(5 * P + 500, 12)}}}, 0, {{5 * P, 512}}},
    {"empty ones among them", L(A, 4), 512, {{A, {D(FAR, 0), D(5 * P, 500), D(0, 0), D(3 * P, 12)}}}, 0, {{5 * P, 500}, {3 * P, 12}}},
    {"a segment and a last one", S(A, 2), 512, {{A, {D(5 * P, 500), L(B, 1)}}, {B, {D(P, 12)}}}, 0, {{5 * P, 500}, {P, 12}}},
    {"three segments", S(A, 2), 512, {{A, {D(5 * P, 500), S(B, 1)}}, {B, {L(C, 1)}}, {C, {D(P, 12)}}}, 0, {{5 * P, 500}, {P, 12}}},
    {"too little", L(A, 2), 512, {{A, {D(5 * P, 500), D(3 * P, 11)}}}, LENGTH, {{0}}},
    {"too much", L(A, 2), 512, {{A, {D(5 * P, 500), D(3 * P, 13)}}}, LENGTH, {{0}}},
    {"too much, behind all", L(A, 3), 512, {{A, {D(5 * P, 500), D(3 * P, 12), D(P, 1)}}}, LENGTH, {{0}}},
    {"lengths that wrap", L(A, 3), 512, {{A, {D(5 * P, 0xffffffff), D(3 * P, 1), D(P, 512)}}}, LENGTH, {{0}}},
    {"a segment without end", S(A, 2), 512, {{A, {D(5 * P, 500), D(3 * P, 12)}}}, SEGMENT, {{0}}},
    {"a last segment that goes on", L(A, 2), 512, {{A, {D(5 * P, 500), L(B, 1)}}, {B, {D(P, 12)}}}, SEGMENT, {{0}}},
    {"a segment in the middle", S(A, 3), 512, {{A, {D(5 * P, 500), L(B, 1), L(B, 1)}}, {B, {D(P, 12)}}}, COUNT, {{0}}},
    {"a segment in the middle of the last", L(A, 3), 512, {{A, {D(5 * P, 500), S(B, 1), D(P, 12)}}}, COUNT, {{0}}},
    {"a segment of nothing", S(A, 0), 512, {{0}}, SEGMENT, {{0}}},
    {"a last segment of nothing", L(A, 0), 512, {{0}}, SEGMENT, {{0}}},
    {"a segment of half a descriptor", {A, 24, SDC_NVME_SGL_LAST_SEGMENT << 4}, 512, {{A, {D(5 * P, 512)}}}, SEGMENT, {{0}}},
    {"a next segment of half a descriptor", S(A, 1), 512, {{A, {{B, 8, SDC_NVME_SGL_LAST_SEGMENT << 4}}}}, SEGMENT, {{0}}},
    {"a segment of another sub type", {A, 16, SDC_NVME_SGL_LAST_SEGMENT << 4 | 10}, 512, {{A, {D(5 * P, 512)}}}, TYPE, {{0}}},
    {"a block of another sub type in a segment", L(A, 1), 512, {{A, {{5 * P, 512, 1}}}}, TYPE, {{0}}},
    {"an unknown type in a segment", L(A, 2), 512, {{A, {{5 * P, 512, 6 << 4}, D(P, 512)}}}, TYPE, {{0}}},
    {"segments in a circle", S(A, 1), 512, {{A, {S(A, 1)}}}, COUNT, {{0}}},
    {"too many descriptors", L(A, NVME_SGL_DESCRIPTORS_MAX + 1), 512, {{A, {D(5 * P, 512)}}}, COUNT, {{0}}},
    {"as many as there can be", {A, 0xfffffff0, SDC_NVME_SGL_SEGMENT << 4}, 512, {{0}}, COUNT, {{0}}},
    {"a segment outside", L(FAR, 1), 512, {{0}}, TRANSFER, {{0}}},
    {"a segment around the end", L(UINT64_MAX - 15, 2), 512, {{0}}, TRANSFER, {{0}}},
    {"a block outside in a segment", L(A, 2), 512, {{A, {D(5 * P, 500), D(FAR, 12)}}}, TRANSFER, {{0}}},
};

static void put_sgl(uint8_t raw[16], const struct sgl_desc *desc)
{
    memset(raw, 0xa5, 16); // what is reserved does not matter
    sdc_put64(raw, desc->address);
    sdc_put32(raw + 8, desc->length);
    raw[15] = desc->kind;
}

static void put_segments(struct course *course, const struct sgl_case *c)
{
    uint8_t raw[16];

    for (unsigned i = 0; i < 3 && c->segments[i].at; i++) {
        for (unsigned k = 0; k < 6; k++) {
            put_sgl(raw, &c->segments[i].descs[k]);
            assert_int_equal(sdc_memory_write(&course->guest.view, c->segments[i].at + 16 * (uint64_t)k, raw, 16), 0);
        }
    }
}

static void sgl_descriptors(void **state)
{
    (void)state;
    for (unsigned how = 0; how < 4; how++) {
        for (size_t i = 0; i < sizeof sgl_cases / sizeof sgl_cases[0]; i++) {
            const struct sgl_case *c = &sgl_cases[i];
            struct course course;
            uint8_t first[16];
            open_course(&course, how & 1);
            put_segments(&course, c);
            put_sgl(first, &c->first);
            int rc = walk_once(&course, 0, 0, first, c->size, how & 2 ? SDC_ACCESS_WRITE : SDC_ACCESS_READ, false);
            if (rc != c->rc)
                fail_msg("%s: %#x", c->name, (unsigned)rc);
            if (rc == 0)
                check_pieces(&course, c->pieces, how & 2);
            close_course(&course);
        }
    }
}

// They are read in pieces, each once.
static void a_segment_of_many_descriptors(void **state)
{
    struct course course;
    uint8_t first[16], raw[16];

    (void)state;
    open_course(&course, true);
    put_sgl(first, &(struct sgl_desc)L(0, 3000));
    for (uint32_t i = 0; i < 3000; i++) {
        put_sgl(raw, &(struct sgl_desc)D(A + 2 * (uint64_t)i, 1));
        assert_int_equal(sdc_memory_write(&course.guest.view, 16 * (uint64_t)i, raw, 16), 0);
    }
    assert_int_equal(walk_once(&course, 0, 0, first, 3000, SDC_ACCESS_READ, false), 0);
    assert_int_equal(course.payload.readable_size, 3000);
    for (uint32_t i = 0; i < 3000; i++) {
        uint8_t expected, byte;
        assert_int_equal(sdc_memory_read(&course.guest.view, A + 2 * (uint64_t)i, &expected, 1), 0);
        assert_int_equal(sdc_payload_read(&course.payload, i, &byte, 1), 0);
        assert_int_equal(byte, expected);
    }
    close_course(&course);
}

// What the driver sends has no gaps; what it wants filled may have some, and is bounced then.
static void bit_buckets(void **state)
{
    static const struct {
        const char *name;
        struct sgl_desc descs[4];
        unsigned count;
        enum sdc_access access;
        int rc;
        uint32_t nowhere; // bytes
    } cases[] = {
        {"a hole", {D(5 * P, 100), T(300), D(3 * P, 112)}, 3, SDC_ACCESS_WRITE, 0, 300},
        {"all of it", {T(512)}, 1, SDC_ACCESS_WRITE, 0, 512},
        {"two of them", {T(1), D(5 * P, 510), T(1)}, 3, SDC_ACCESS_WRITE, 0, 2},
        {"an empty one", {D(5 * P, 512), T(0)}, 2, SDC_ACCESS_WRITE, 0, 0},
        {"one that is too long", {D(5 * P, 500), T(13)}, 2, SDC_ACCESS_WRITE, LENGTH, 0},
        {"one of another sub type", {D(5 * P, 500), {0, 12, SDC_NVME_SGL_BIT_BUCKET << 4 | 1}}, 2, SDC_ACCESS_WRITE, TYPE, 0},
        {"ignored in a write", {D(5 * P, 500), T(77), D(3 * P, 12)}, 3, SDC_ACCESS_READ, 0, 0},
        {"ignored behind all data of a write", {D(5 * P, 512), T(77)}, 2, SDC_ACCESS_READ, 0, 0},
        {"no data of a write", {D(5 * P, 500), T(12)}, 2, SDC_ACCESS_READ, LENGTH, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct course course;
        uint8_t raw[16], first[16];
        uint32_t nowhere = 0;
        open_course(&course, false);
        for (unsigned k = 0; k < cases[i].count; k++) {
            put_sgl(raw, &cases[i].descs[k]);
            assert_int_equal(sdc_memory_write(&course.guest.view, A + 16 * (uint64_t)k, raw, 16), 0);
        }
        put_sgl(first, &(struct sgl_desc)L(A, cases[i].count));
        int rc = walk_once(&course, 0, 0, first, 512, cases[i].access, false);
        if (cases[i].nowhere > 0) {
            assert_int_equal(rc, NVME_WALK_BOUNCE);
            rc = walk_once(&course, 0, 0, first, 512, cases[i].access, true);
        }
        if (rc != cases[i].rc)
            fail_msg("%s: %#x", cases[i].name, (unsigned)rc);
        for (uint32_t k = 0; rc == 0 && k < course.payload.segments_count; k++)
            nowhere += course.payload.segments[k].nowhere ? course.payload.segments[k].size : 0;
        assert_int_equal(nowhere, cases[i].nowhere);
        assert_int_equal(course.payload.bounce != NULL, nowhere > 0);
        close_course(&course);
    }
}

// --- memory that has to be fetched ---

static int no_write(struct sdc_memory *memory, uint64_t iova, const void *data, size_t size)
{
    (void)memory, (void)iova, (void)data, (void)size;
    return -EFAULT;
}

// Walks as a queue does over remote memory: whatever is missing is fetched, and the walk begins again.
static int walk_fetching(struct course *course, struct sdc_memory *all, uint64_t prp1, uint64_t prp2, const uint8_t *sgl, uint64_t size,
                         enum sdc_access access)
{
    struct sdc_memory *memory = &course->guest.view;
    uint8_t bytes[P];
    bool bounce = false;
    int rc;

    for (unsigned tries = 0; tries < 50; tries++) {
        rc = walk_once(course, prp1, prp2, sgl, size, access, bounce);
        bounce |= rc == NVME_WALK_BOUNCE;
        if (rc == -EAGAIN) {
            assert_in_range(memory->missing_size, 1, sizeof bytes);
            assert_int_equal(sdc_memory_read(all, memory->missing_iova, bytes, memory->missing_size), 0);
            assert_int_equal(sdc_read_cache_add(memory->cache, memory->missing_iova, bytes, memory->missing_size), 0);
        } else if (rc != NVME_WALK_BOUNCE) {
            return rc;
        }
    }
    fail_msg("the walk does not come to its end");
    return 0;
}

static void check_segments(struct course *course, const struct piece *pieces, bool writable, bool jumbled)
{
    const struct sdc_payload *payload = &course->payload;
    uint64_t at = 0;
    uint32_t i = 0;

    (void)jumbled;
    assert_non_null(payload->bounce);
    for (; pieces[i].size > 0; i++) {
        assert_true(i < payload->segments_count);
        assert_int_equal(payload->segments[i].iova, pieces[i].iova);
        assert_int_equal(payload->segments[i].size, pieces[i].size);
        assert_int_equal(payload->segments[i].writable, writable);
        assert_true(payload->segments[i].remote);
        at += pieces[i].size;
    }
    assert_int_equal(payload->segments_count, i);
    assert_int_equal(payload->bounce_size, at);
}

static void everything_is_remote(void **state)
{
    (void)state;
    for (unsigned how = 0; how < 4; how++) {
        for (size_t i = 0; i < sizeof prp_cases / sizeof prp_cases[0] + sizeof sgl_cases / sizeof sgl_cases[0]; i++) {
            bool prp = i < sizeof prp_cases / sizeof prp_cases[0];
            const struct prp_case *p = &prp_cases[prp ? i : 0];
            const struct sgl_case *s = &sgl_cases[prp ? 0 : i - sizeof prp_cases / sizeof prp_cases[0]];
            struct sdc_read_cache cache = {0};
            struct course course;
            uint8_t first[16];
            open_course(&course, how & 1);
            if (prp)
                put_lists(&course, p);
            else
                put_segments(&course, s);
            put_sgl(first, &s->first);
            struct sdc_memory all = course.guest.view;
            struct sdc_map *map = guest_map_of(&course.guest, how & 1, UINT32_MAX, UINT32_MAX, 0);
            course.guest.view = (struct sdc_memory){.map = map, .cache = &cache, .write_remote = no_write};
            int rc = walk_fetching(&course, &all, p->prp1, p->prp2, prp ? NULL : first, prp ? p->size : s->size,
                                   how & 2 ? SDC_ACCESS_WRITE : SDC_ACCESS_READ);
            if (rc != (prp ? p->rc : s->rc))
                fail_msg("%s: %#x", prp ? p->name : s->name, (unsigned)rc);
            if (rc == 0)
                check_segments(&course, prp ? p->pieces : s->pieces, how & 2, how & 1);
            sdc_read_cache_clear(&cache);
            course.guest.view = all;
            sdc_map_unref(map);
            close_course(&course);
        }
    }
}

static void what_may_not_be_written_fails(void **state)
{
    struct course course;

    (void)state;
    open_course(&course, true);
    struct sdc_map *map = guest_map_of(&course.guest, true, UINT32_MAX, 0, 1 << 5); // page 5 is read-only
    sdc_memory_turn(&course.guest.view, map);
    assert_int_equal(walk_once(&course, 5 * P, 0, NULL, 512, SDC_ACCESS_READ, false), 0);
    assert_int_equal(walk_once(&course, 5 * P, 0, NULL, 512, SDC_ACCESS_WRITE, false), TRANSFER);
    sdc_map_unref(map);
    course.guest.view = (struct sdc_memory){.map = course.guest.map};
    close_course(&course);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prp_entries),
        cmocka_unit_test(the_longest_lists),
        cmocka_unit_test(pages_in_a_row_are_one_span),
        cmocka_unit_test(sgl_descriptors),
        cmocka_unit_test(a_segment_of_many_descriptors),
        cmocka_unit_test(bit_buckets),
        cmocka_unit_test(everything_is_remote),
        cmocka_unit_test(what_may_not_be_written_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
