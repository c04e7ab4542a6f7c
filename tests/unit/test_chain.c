// SPDX-License-Identifier: BSD-3-Clause
// Descriptor chains: which are taken and which break the queue, and the two streams that a chain is, however it is laid out.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/limits.h"
#include "ring/chain.h"
#include "ring_fixture.h"

#include <errno.h>

enum {
    N = SDC_DESC_F_NEXT,
    W = SDC_DESC_F_WRITE,
    I = SDC_DESC_F_INDIRECT,
    TABLE = 0,          // the queue's descriptors
    TABLE_SIZE = 8,
    INDIRECT = 0x1000,  // an indirect table
    DATA = 0x4000,
    LARGE = GUEST_BYTES - DATA,
};

struct desc {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

struct walk {
    struct guest guest;
    struct sdc_area table;
    struct sdc_iterator it;
    struct sdc_chain chain;
};

static void open_walk(struct walk *walk, bool jumbled, bool packed, bool indirect_allowed)
{
    guest_open(&walk->guest, jumbled);
    walk->table = (struct sdc_area){.iova = TABLE, .size = TABLE_SIZE * SDC_DESC_SIZE};
    assert_int_equal(sdc_area_resolve(&walk->table, &walk->guest.view, SDC_ACCESS_READ, 16), 0);
    sdc_iterator_begin(&walk->it, &walk->guest.view, &walk->table, TABLE_SIZE, 0);
    walk->it.packed = packed;
    walk->it.indirect_allowed = indirect_allowed;
    sdc_chain_init(&walk->chain);
}

static void close_walk(struct walk *walk)
{
    sdc_chain_destroy(&walk->chain);
    guest_close(&walk->guest);
}

static void put_table(struct walk *walk, uint64_t at, const struct desc *descs, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        guest_put_desc(&walk->guest, at + SDC_DESC_SIZE * (uint64_t)i, descs[i].address, descs[i].length, descs[i].flags, descs[i].next,
                       walk->it.packed);
}

// --- which chains are taken ---

static void split_chains(void **state)
{
    static const struct {
        const char *name;
        struct desc table[TABLE_SIZE], indirect[4];
        int rc, fault;
        uint64_t readable, writable;
    } cases[] = {
        {"one readable", {{DATA, 16, 0, 0}}, {{0}}, 0, 0, 16, 0},
        {"one writable", {{DATA, 16, W, 0}}, {{0}}, 0, 0, 0, 16},
        {"in any order", {{DATA, 1, N, 5}, [5] = {DATA, 2, N | W, 2}, [2] = {DATA, 4, W, 0}}, {{0}}, 0, 0, 1, 6},
        {"whole table", {{DATA, 1, N, 1}, {DATA, 1, N, 2}, {DATA, 1, N, 3}, {DATA, 1, N, 4}, {DATA, 1, N, 5}, {DATA, 1, N, 6},
                         {DATA, 1, N, 7}, {DATA, 1, 0, 0}}, {{0}}, 0, 0, 8, 0},
        {"next of the last means nothing", {{DATA, 1, 0, 99}}, {{0}}, 0, 0, 1, 0},
        {"next outside", {{DATA, 1, N, TABLE_SIZE}}, {{0}}, -EPROTO, 0, 0, 0},
        {"next far outside", {{DATA, 1, N, 0xffff}}, {{0}}, -EPROTO, 0, 0, 0},
        {"a cycle of one", {{DATA, 1, N, 0}}, {{0}}, -EPROTO, 0, 0, 0},
        {"a cycle of three", {{DATA, 1, N, 1}, {DATA, 1, N, 2}, {DATA, 1, N, 0}}, {{0}}, -EPROTO, 0, 0, 0},
        {"readable after writable", {{DATA, 1, N | W, 1}, {DATA, 1, 0, 0}}, {{0}}, 0, -EPROTO, 0, 0},
        {"foreign address", {{UINT64_C(1) << 40, 16, N, 1}, {DATA, 1, W, 0}}, {{0}}, 0, -EFAULT, 16, 1},
        {"runs out of memory", {{GUEST_BYTES - 8, 16, 0, 0}}, {{0}}, 0, -EFAULT, 16, 0},
        {"address wraps", {{UINT64_MAX - 3, 16, 0, 0}}, {{0}}, 0, -EFAULT, 16, 0},
        {"empty", {{DATA, 0, N, 1}, {DATA, 1, W, 0}}, {{0}}, 0, 0, 0, 1},
        {"empty at a foreign address", {{UINT64_C(1) << 40, 0, N, 1}, {DATA, 1, W, 0}}, {{0}}, 0, -EFAULT, 0, 1},
        {"4 GiB less one", {{DATA, UINT32_MAX, 0, 0}}, {{0}}, 0, -EFAULT, UINT32_MAX, 0},
        {"4 GiB", {{DATA, UINT32_MAX, N, 1}, {DATA, 1, 0, 0}}, {{0}}, -EPROTO, 0, 0, 0},
        {"indirect", {{INDIRECT, 48, I, 0}}, {{DATA, 3, N, 2}, {0}, {DATA, 5, W, 0}}, 0, 0, 3, 5},
        {"indirect behind direct", {{DATA, 7, N, 1}, {INDIRECT, 32, I, 0}}, {{DATA, 3, N, 1}, {DATA, 5, W, 0}}, 0, 0, 10, 5},
        {"WRITE of an indirect one means nothing", {{INDIRECT, 16, I | W, 0}}, {{DATA, 3, 0, 0}}, 0, 0, 3, 0},
        {"indirect with NEXT", {{INDIRECT, 16, I | N, 1}, {DATA, 1, 0, 0}}, {{DATA, 3, 0, 0}}, -EPROTO, 0, 0, 0},
        {"indirect in indirect", {{INDIRECT, 16, I, 0}}, {{INDIRECT, 16, I, 0}}, -EPROTO, 0, 0, 0},
        {"indirect of no length", {{INDIRECT, 0, I, 0}}, {{0}}, -EPROTO, 0, 0, 0},
        {"indirect of an odd length", {{INDIRECT, 17, I, 0}}, {{0}}, -EPROTO, 0, 0, 0},
        {"indirect that is huge", {{INDIRECT, 0xfffffff0, I, 0}}, {{0}}, -EPROTO, 0, 0, 0},
        {"indirect elsewhere", {{UINT64_C(1) << 40, 16, I, 0}}, {{0}}, -EPROTO, 0, 0, 0},
        {"indirect that runs out", {{GUEST_BYTES - 16, 32, I, 0}}, {{0}}, -EPROTO, 0, 0, 0},
        {"next outside the indirect table", {{INDIRECT, 32, I, 0}}, {{DATA, 3, N, 2}, {0}, {DATA, 5, W, 0}}, -EPROTO, 0, 0, 0},
        {"a cycle in the indirect table", {{INDIRECT, 32, I, 0}}, {{DATA, 3, N, 1}, {DATA, 3, N, 0}}, -EPROTO, 0, 0, 0},
        {"unknown flags", {{DATA, 1, 0xfff8, 0}}, {{0}}, 0, 0, 1, 0},
    };

    (void)state;
    for (unsigned jumbled = 0; jumbled < 2; jumbled++) {
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            struct walk walk;
            open_walk(&walk, jumbled, false, true);
            put_table(&walk, TABLE, cases[i].table, TABLE_SIZE);
            put_table(&walk, INDIRECT, cases[i].indirect, 4);
            int rc = sdc_chain_walk(&walk.chain, &walk.it);
            if (rc != cases[i].rc)
                fail_msg("%s: %d, broken: %s", cases[i].name, rc, walk.it.broken ? walk.it.broken : "no");
            assert_int_equal(walk.it.broken != NULL, rc == -EPROTO);
            if (rc == 0) {
                if (walk.chain.payload.fault != cases[i].fault)
                    fail_msg("%s: fault %d", cases[i].name, walk.chain.payload.fault);
                assert_int_equal(walk.chain.payload.readable_size, cases[i].readable);
                assert_int_equal(walk.chain.payload.writable_size, cases[i].writable);
            }
            close_walk(&walk);
        }
    }
}

static void packed_chains(void **state)
{
    static const struct {
        const char *name;
        struct desc table[TABLE_SIZE], indirect[4]; // next: the buffer id
        unsigned start;
        int rc;
        uint16_t id, entries;
        uint64_t readable, writable;
    } cases[] = {
        {"the last one names the buffer", {{DATA, 16, N, 1}, {DATA, 8, W, 42}}, {{0}}, 0, 0, 42, 2, 16, 8},
        {"over the ring's end", {{DATA, 8, W, 3}, [7] = {DATA, 16, N, 9}}, {{0}}, 7, 0, 3, 2, 16, 8},
        {"ends at the ring's end", {[6] = {DATA, 1, N, 0}, [7] = {DATA, 2, 0, 5}}, {{0}}, 6, 0, 5, 2, 3, 0},
        {"the whole ring", {{DATA, 1, N, 0}, {DATA, 1, N, 0}, {DATA, 1, N, 0}, {DATA, 1, N, 0}, {DATA, 1, N, 0}, {DATA, 1, N, 0},
                            {DATA, 1, N, 0}, {DATA, 1, 0, 0xffff}}, {{0}}, 0, 0, 0xffff, 8, 8, 0},
        {"more than the ring", {{DATA, 1, N, 0}, {DATA, 1, N, 0}, {DATA, 1, N, 0}, {DATA, 1, N, 0}, {DATA, 1, N, 0}, {DATA, 1, N, 0},
                                {DATA, 1, N, 0}, {DATA, 1, N, 0}}, {{0}}, 3, -EPROTO, 0, 0, 0, 0},
        {"indirect, NEXT means nothing in it", {{INDIRECT, 48, I, 6}}, {{DATA, 3, 0, 0}, {DATA, 5, N, 0}, {DATA, 7, W | N, 0}}, 0, 0, 6,
         1, 8, 7},
        {"indirect in indirect", {{INDIRECT, 32, I, 6}}, {{DATA, 3, 0, 0}, {INDIRECT, 16, I, 0}}, 0, -EPROTO, 0, 0, 0, 0},
        {"indirect with NEXT", {{INDIRECT, 32, I | N, 6}, {DATA, 1, 0, 0}}, {{0}}, 0, -EPROTO, 0, 0, 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct walk walk;
        open_walk(&walk, false, true, true);
        put_table(&walk, TABLE, cases[i].table, TABLE_SIZE);
        put_table(&walk, INDIRECT, cases[i].indirect, 4);
        walk.it.index = cases[i].start;
        int rc = sdc_chain_walk(&walk.chain, &walk.it);
        if (rc != cases[i].rc)
            fail_msg("%s: %d, broken: %s", cases[i].name, rc, walk.it.broken ? walk.it.broken : "no");
        if (rc == 0) {
            assert_int_equal(walk.it.id, cases[i].id);
            assert_int_equal(walk.it.entries, cases[i].entries);
            assert_int_equal(walk.chain.payload.readable_size, cases[i].readable);
            assert_int_equal(walk.chain.payload.writable_size, cases[i].writable);
        }
        close_walk(&walk);
    }
}

static void indirect_has_to_be_negotiated(void **state)
{
    struct walk walk;

    (void)state;
    open_walk(&walk, false, false, false);
    put_table(&walk, TABLE, (struct desc[]){{INDIRECT, 16, I, 0}}, 1);
    put_table(&walk, INDIRECT, (struct desc[]){{DATA, 3, 0, 0}}, 1);
    assert_int_equal(sdc_chain_walk(&walk.chain, &walk.it), -EPROTO);
    close_walk(&walk);
}

// The largest indirect table that there is room for: spans grow, and are given back.
static void a_long_chain_fits_and_is_trimmed(void **state)
{
    enum { COUNT = 512 };
    struct walk walk;

    (void)state;
    open_walk(&walk, false, false, true);
    put_table(&walk, TABLE, (struct desc[]){{INDIRECT, COUNT * 16, I, 0}}, 1);
    for (unsigned i = 0; i < COUNT; i++) {
        struct desc desc = {DATA + 2 * (uint64_t)i, 1, (uint16_t)((i + 1 < COUNT ? N : 0) | (i >= 100 ? W : 0)), (uint16_t)(i + 1)};
        put_table(&walk, INDIRECT + 16 * (uint64_t)i, &desc, 1);
    }
    assert_int_equal(sdc_chain_walk(&walk.chain, &walk.it), 0);
    assert_int_equal(walk.chain.payload.readable_spans, 100);
    assert_int_equal(walk.chain.payload.spans_count, COUNT);
    sdc_chain_trim(&walk.chain);
    assert_ptr_equal(walk.chain.payload.spans, walk.chain.payload.few);
    close_walk(&walk);
}

// A map of regions of one byte each from address 0 on, none beside its neighbour in host memory.
static struct sdc_map *crumbs(uint8_t *host, uint32_t count)
{
    struct sdc_region_table table = {0};

    for (uint32_t i = 0; i < count; i++) {
        struct sdc_region region = {.iova = i, .size = 1, .host = host + 2 * (count - i), .access = SDC_ACCESS_READ | SDC_ACCESS_WRITE};
        assert_int_equal(sdc_region_table_add(&table, &region), 0);
    }
    struct sdc_map *map = sdc_region_table_publish(&table, sdc_map_free, NULL);
    sdc_region_table_clear(&table);
    return map;
}

static void a_buffer_may_lie_in_any_number_of_pieces(void **state)
{
    static uint8_t host[2 * SDC_LIMIT_DMA_REGIONS + 1];
    static const uint32_t sizes[] = {15, 16, 17, 64, 1000, SDC_LIMIT_DMA_REGIONS};
    static uint8_t bytes[SDC_LIMIT_DMA_REGIONS];
    struct walk walk;

    (void)state;
    open_walk(&walk, false, false, true);
    struct sdc_map *map = crumbs(host, SDC_LIMIT_DMA_REGIONS);
    struct sdc_memory view = {.map = map};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct sdc_iterator it = walk.it;
        it.memory = &view;
        put_table(&walk, TABLE, &(struct desc){0, sizes[i], W, 0}, 1);
        assert_int_equal(sdc_chain_walk(&walk.chain, &it), 0);
        assert_int_equal(walk.chain.payload.fault, 0);
        assert_int_equal(walk.chain.payload.spans_count, sizes[i]);
        memset(bytes, (int)i + 1, sizes[i]);
        assert_int_equal(sdc_chain_write(&walk.chain, 0, bytes, sizes[i]), 0);
        assert_int_equal(host[2 * (SDC_LIMIT_DMA_REGIONS - sizes[i] + 1)], i + 1);
        assert_int_equal(host[2 * (SDC_LIMIT_DMA_REGIONS - sizes[i])], 0);
        sdc_chain_trim(&walk.chain);
    }
    sdc_map_unref(map);
    close_walk(&walk);
}

static void a_chain_in_too_many_pieces_fails_and_stays_small(void **state)
{
    static uint8_t host[2 * SDC_LIMIT_DMA_REGIONS + 1];
    struct walk walk;

    (void)state;
    open_walk(&walk, false, false, true);
    struct sdc_map *map = crumbs(host, SDC_LIMIT_DMA_REGIONS);
    struct sdc_memory view = {.map = map};
    for (uint16_t i = 0; i < TABLE_SIZE; i++)
        put_table(&walk, TABLE + 16 * (uint64_t)i, &(struct desc){0, SDC_LIMIT_DMA_REGIONS, i + 1 < TABLE_SIZE ? N : 0, (uint16_t)(i + 1)},
                  1);
    walk.it.memory = &view;
    assert_int_equal(sdc_chain_walk(&walk.chain, &walk.it), 0);
    assert_int_equal(walk.chain.payload.fault, -EFAULT);
    assert_int_equal(walk.chain.payload.readable_size, (uint64_t)TABLE_SIZE * SDC_LIMIT_DMA_REGIONS);
    assert_in_range(walk.chain.payload.capacity, 1, 4 * SDC_LIMIT_QUEUE_SPANS + 4);
    sdc_map_unref(map);
    close_walk(&walk);
}

// --- the streams ---

// Readable 1 + 4000 + 16 + 700 bytes, writable 513 + 5000 + 1, on jumbled pages; returns the readable stream as one.
enum { READABLE = 1 + 4000 + 16 + 700, WRITABLE = 513 + 5000 + 1 };

static void make_streams(struct walk *walk, uint8_t readable[READABLE])
{
    static const struct desc descs[] = {
        {DATA + 4095, 1, N, 1}, {DATA + 0x1100, 4000, N, 2}, {DATA + 0x2ff8, 16, N, 3}, {DATA + 0x3800, 700, N, 4},
        {DATA + 0x4f00, 513, N | W, 5}, {DATA + 0x6123, 5000, N | W, 6}, {DATA + 0x8000, 1, W, 0},
    };
    uint8_t *at = readable;

    open_walk(walk, true, false, false);
    put_table(walk, TABLE, descs, 7);
    for (unsigned i = 0; i < 4; i++) {
        for (uint32_t k = 0; k < descs[i].length; k++, at++) {
            *at = (uint8_t)((at - readable) * 13 + (at - readable) / 97);
            guest_put(&walk->guest, descs[i].address + k, *at, 1);
        }
    }
    assert_int_equal(sdc_chain_walk(&walk->chain, &walk->it), 0);
    assert_int_equal(walk->chain.payload.fault, 0);
    assert_int_equal(walk->chain.payload.readable_size, READABLE);
    assert_int_equal(walk->chain.payload.writable_size, WRITABLE);
}

// Places that are worth a look: the edges of buffers and pages, and beside them.
static const uint64_t places[] = {0, 1, 2, 512, 513, 514, 3840, 3841, 4000, 4001, 4002, 4009, 4010, 4016, 4017, 4018, 4500,
                                  READABLE - 1, READABLE, READABLE + 1, WRITABLE - 1, WRITABLE, WRITABLE + 1, UINT64_MAX};
enum { PLACES = sizeof places / sizeof places[0] };

static void reading_sees_one_stream(void **state)
{
    uint8_t readable[READABLE], local[WRITABLE + 1];
    struct walk walk;

    (void)state;
    make_streams(&walk, readable);
    for (unsigned i = 0; i < PLACES; i++) {
        for (unsigned k = 0; k < PLACES; k++) {
            if (places[k] > sizeof local)
                continue;
            bool inside = places[i] <= READABLE && places[k] <= READABLE - places[i];
            sdc_fetch_log_clear(&walk.chain.fetched);
            assert_int_equal(sdc_chain_read(&walk.chain, places[i], local, places[k]), inside ? 0 : -EINVAL);
            if (inside)
                assert_memory_equal(local, readable + places[i], places[k]);
        }
    }
    close_walk(&walk);
}

// Bytes of guest memory that differ from a copy of it.
static unsigned changed(const struct walk *walk, const uint8_t *before)
{
    unsigned count = 0;

    for (size_t i = 0; i < GUEST_BYTES; i++)
        count += walk->guest.bytes[i] != before[i];
    return count;
}

static void spans_cover_what_was_asked_for_and_nothing_else(void **state)
{
    uint8_t readable[READABLE];
    uint8_t *before = malloc(GUEST_BYTES);
    struct walk walk;

    (void)state;
    make_streams(&walk, readable);
    for (unsigned i = 0; i < PLACES; i++) {
        for (unsigned k = 0; k < PLACES; k++) {
            const struct sdc_span *spans;
            uint32_t count;
            bool inside = places[i] <= WRITABLE && places[k] <= WRITABLE - places[i];
            int rc = sdc_chain_spans(&walk.chain, true, places[i], places[k], &spans, &count);
            assert_int_equal(rc, inside ? 0 : -EINVAL);
            if (!inside)
                continue;
            memcpy(before, walk.guest.bytes, GUEST_BYTES);
            uint64_t sum = 0;
            for (uint32_t n = 0; n < count; n++) {
                for (size_t b = 0; b < spans[n].size; b++)
                    ((uint8_t *)spans[n].base)[b] ^= 0xff;
                sum += spans[n].size;
            }
            assert_int_equal(sum, places[k]);
            assert_int_equal(changed(&walk, before), places[k]); // no byte twice
            // A write of the same range undoes it, so they are the same bytes in the same order.
            for (uint64_t at = 0, n = 0, b = 0; at < sum; at++) {
                uint8_t byte = (uint8_t)(((uint8_t *)spans[n].base)[b] ^ 0xff);
                assert_int_equal(sdc_chain_write(&walk.chain, places[i] + at, &byte, 1), 0);
                if (++b == spans[n].size)
                    n++, b = 0;
            }
            assert_int_equal(changed(&walk, before), 0);
        }
    }
    // After all these cuts the streams are what they were.
    assert_int_equal(walk.chain.payload.readable_size, READABLE);
    assert_int_equal(walk.chain.payload.writable_size, WRITABLE);
    free(before);
    close_walk(&walk);
}

static void data_then_status(void **state)
{
    uint8_t readable[READABLE], local[READABLE], status = 0x77;
    const struct sdc_span *spans;
    uint32_t count;
    struct walk walk;

    (void)state;
    make_streams(&walk, readable);
    assert_int_equal(sdc_chain_spans(&walk.chain, false, 16, READABLE - 16, &spans, &count), 0);
    assert_int_equal(sdc_chain_spans(&walk.chain, true, 0, WRITABLE - 1, &spans, &count), 0);
    memset(spans[count - 1].base, 0x55, spans[count - 1].size);
    assert_int_equal(sdc_chain_write(&walk.chain, WRITABLE - 1, &status, 1), 0);
    assert_int_equal(guest_get(&walk.guest, DATA + 0x8000, 1), 0x77);
    assert_int_equal(guest_get(&walk.guest, DATA + 0x6123 + 4999, 1), 0x55);
    assert_int_equal(sdc_chain_write(&walk.chain, WRITABLE, &status, 1), -EINVAL);
    assert_int_equal(sdc_chain_read(&walk.chain, 0, local, READABLE), 0);
    assert_memory_equal(local, readable, READABLE);
    close_walk(&walk);
}

// What can be reached is used; what cannot is an error only when it is asked for.
static void a_hole_is_an_error_where_it_is(void **state)
{
    const struct sdc_span *spans;
    uint8_t local[32] = {0};
    uint32_t count;
    struct walk walk;

    (void)state;
    open_walk(&walk, false, false, false);
    put_table(&walk, TABLE, (struct desc[]){{DATA, 16, N, 1}, {UINT64_C(1) << 40, 16, N, 2}, {DATA, 8, N | W, 3},
                                            {UINT64_C(1) << 41, 8, N | W, 4}, {DATA + 64, 1, W, 0}}, 5);
    assert_int_equal(sdc_chain_walk(&walk.chain, &walk.it), 0);
    assert_int_equal(walk.chain.payload.fault, -EFAULT);
    assert_int_equal(sdc_chain_read(&walk.chain, 0, local, 16), 0);
    assert_int_equal(sdc_chain_read(&walk.chain, 16, local, 1), -EFAULT);
    assert_int_equal(sdc_chain_write(&walk.chain, 0, local, 8), 0);
    assert_int_equal(sdc_chain_write(&walk.chain, 7, local, 2), -EFAULT);
    assert_int_equal(sdc_chain_write(&walk.chain, 16, local, 1), 0);
    assert_int_equal(sdc_chain_spans(&walk.chain, true, 0, 8, &spans, &count), 0);
    assert_int_equal(sdc_chain_spans(&walk.chain, true, 4, 8, &spans, &count), -EFAULT);
    close_walk(&walk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(split_chains),
        cmocka_unit_test(packed_chains),
        cmocka_unit_test(indirect_has_to_be_negotiated),
        cmocka_unit_test(a_long_chain_fits_and_is_trimmed),
        cmocka_unit_test(a_buffer_may_lie_in_any_number_of_pieces),
        cmocka_unit_test(a_chain_in_too_many_pieces_fails_and_stays_small),
        cmocka_unit_test(reading_sees_one_stream),
        cmocka_unit_test(spans_cover_what_was_asked_for_and_nothing_else),
        cmocka_unit_test(data_then_status),
        cmocka_unit_test(a_hole_is_an_error_where_it_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
