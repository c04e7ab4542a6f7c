// SPDX-License-Identifier: BSD-3-Clause
// Guest memory: the table of regions, the maps that are published from it, and the door through which bytes are reached.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/limits.h"
#include "memory/map.h"

#include <errno.h>
#include <string.h>

enum { BOTH = SDC_ACCESS_READ | SDC_ACCESS_WRITE };

// --- the table ---

static struct sdc_region region_at(uint64_t iova, uint64_t size)
{
    static uint8_t host[1];

    return (struct sdc_region){.iova = iova, .size = size, .host = host, .access = BOTH};
}

static void adding_checks_overlap_and_wrap(void **state)
{
    static const struct {
        uint64_t iova, size;
        int rc;
    } cases[] = {
        {0x2000, 0x1000, 0},
        {0x5000, 0x1000, 0},
        {0x2000, 0x1000, -EEXIST},        // again
        {0x1000, 0x1001, -EEXIST},        // its last byte is the first one of another
        {0x2fff, 1, -EEXIST},             // inside, at the end
        {0x1000, 0x8000, -EEXIST},        // around both
        {0x2800, 0x4000, -EEXIST},        // from one into the next
        {0x1000, 0x1000, 0},              // right before
        {0x3000, 0x2000, 0},              // fills the gap
        {0x9000, 0, -EINVAL},             // empty
        {UINT64_MAX, 1, -EINVAL},         // the end wraps to 0
        {UINT64_MAX, UINT64_MAX, -EINVAL},
        {UINT64_MAX - 1, 1, 0},           // the last one that does not
        {0, 0x1000, 0},
    };
    struct sdc_region_table table = {0};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sdc_region region = region_at(cases[i].iova, cases[i].size);
        assert_int_equal(sdc_region_table_add(&table, &region), cases[i].rc);
    }
    uint64_t last = 0;
    const struct sdc_region *at = sdc_regions_past(&table.regions, 0);
    for (; at; last = at->iova + at->size, at = sdc_regions_next(&table.regions, at))
        assert_true(at->iova >= last);
    assert_int_equal(table.regions.count, 6);
    sdc_region_table_clear(&table);
}

static void removing_wants_the_exact_region(void **state)
{
    static const struct {
        uint64_t iova, size;
        int rc;
    } cases[] = {
        {0x1000, 0x2000, -ENOENT}, {0x1000, 0x800, -ENOENT}, {0x1800, 0x800, -ENOENT}, {0x0, 0x1000, -ENOENT},
        {0x1000, 0x1000, 0},       {0x1000, 0x1000, -ENOENT}, {0x2000, 0x1000, 0},
    };
    struct sdc_region_table table = {0};

    (void)state;
    for (uint64_t iova = 0x1000; iova <= 0x2000; iova += 0x1000) {
        struct sdc_region region = region_at(iova, 0x1000);
        assert_int_equal(sdc_region_table_add(&table, &region), 0);
    }
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(sdc_region_table_remove(&table, cases[i].iova, cases[i].size), cases[i].rc);
    assert_int_equal(table.regions.count, 0);
    sdc_region_table_clear(&table);
}

static void a_full_table_takes_no_more(void **state)
{
    struct sdc_region_table table = {0};

    (void)state;
    for (uint64_t i = 0; i < SDC_LIMIT_DMA_REGIONS; i++) {
        struct sdc_region region = region_at(i * 2, 1);
        assert_int_equal(sdc_region_table_add(&table, &region), 0);
    }
    struct sdc_region more = region_at(UINT64_C(1) << 40, 1);
    assert_int_equal(sdc_region_table_add(&table, &more), -ENOSPC);
    assert_int_equal(sdc_region_table_remove(&table, 2, 1), 0);
    assert_int_equal(sdc_region_table_add(&table, &more), 0);
    sdc_region_table_clear(&table);
}

// --- references ---

static unsigned maps_released, mappings_released;

static void release_map(struct sdc_map *map)
{
    maps_released++;
    sdc_map_free(map);
}

static void release_mapping(struct sdc_mapping *mapping)
{
    (void)mapping;
    mappings_released++;
}

static void a_mapping_lives_as_long_as_a_map_that_shows_it(void **state)
{
    struct sdc_mapping mapping = {.release = release_mapping};
    struct sdc_region_table table = {0};
    struct sdc_region region = region_at(0, 0x1000);

    (void)state;
    maps_released = mappings_released = 0;
    atomic_init(&mapping.refs, 1);
    region.mapping = &mapping;
    assert_int_equal(sdc_region_table_add(&table, &region), 0);
    sdc_mapping_unref(&mapping); // ours; the table has its own
    struct sdc_map *first = sdc_region_table_publish(&table, release_map, NULL);
    assert_int_equal(sdc_region_table_remove(&table, 0, 0x1000), 0);
    struct sdc_map *second = sdc_region_table_publish(&table, release_map, NULL);
    assert_true(second->generation > first->generation);
    assert_int_equal(mappings_released, 0);

    sdc_map_ref(first);
    sdc_map_unref(first);
    assert_int_equal(maps_released, 0);
    sdc_map_unref(first);
    assert_int_equal(maps_released, 1);
    assert_int_equal(mappings_released, 1);
    sdc_map_unref(second);
    assert_int_equal(maps_released, 2);
    sdc_map_unref(NULL);
    sdc_mapping_unref(NULL);
    sdc_region_table_clear(&table);
}

// --- the door ---

// 0x1000..0x2fff: two regions whose bytes follow one another; 0x3000..0x3fff: elsewhere; 0x4000..: read only; 0x5000..: write only;
// 0x6000..: remote; 0x7000..: nothing; 0x8000..: alone.
struct memory {
    uint8_t bytes[6 * 0x1000];
    struct sdc_map *map;
    struct sdc_memory view;
};

static void open_memory(struct memory *memory)
{
    static const struct {
        uint64_t iova;
        unsigned page; // of bytes; 99: remote
        uint32_t access;
    } regions[] = {
        {0x1000, 0, BOTH}, {0x2000, 1, BOTH}, {0x3000, 3, BOTH}, {0x4000, 2, SDC_ACCESS_READ},
        {0x5000, 4, SDC_ACCESS_WRITE}, {0x6000, 99, BOTH}, {0x8000, 5, BOTH},
    };
    struct sdc_region_table table = {0};

    memset(memory->bytes, 0, sizeof memory->bytes);
    for (size_t i = 0; i < sizeof regions / sizeof regions[0]; i++) {
        struct sdc_region region = {.iova = regions[i].iova, .size = 0x1000, .access = regions[i].access};
        region.host = regions[i].page == 99 ? NULL : memory->bytes + 0x1000 * regions[i].page;
        assert_int_equal(sdc_region_table_add(&table, &region), 0);
    }
    memory->map = sdc_region_table_publish(&table, sdc_map_free, NULL);
    memory->view = (struct sdc_memory){.map = memory->map};
    sdc_region_table_clear(&table);
}

static void copies_are_whole_or_not_begun(void **state)
{
    static const struct {
        uint64_t iova;
        size_t size;
        int read, write;
    } cases[] = {
        {0x1000, 1, 0, 0},
        {0x1ffe, 4, 0, 0},                    // across the seam of two
        {0x1001, 0x2ffe, 0, 0},               // across three
        {0x3ffe, 4, 0, -EACCES},              // into memory that is not writable
        {0x4000, 8, 0, -EACCES},
        {0x5000, 8, -EACCES, 0},
        {0x4ffe, 4, -EACCES, -EACCES},
        {0x5ffc, 8, -EACCES, -EAGAIN},        // into remote memory
        {0x6000, 8, -EAGAIN, -EAGAIN},
        {0x7000, 8, -EFAULT, -EFAULT},
        {0x0fff, 2, -EFAULT, -EFAULT},
        {0x8ffe, 3, -EFAULT, -EFAULT},        // out at the end
        {0x8fff, 1, 0, 0},
        {UINT64_MAX, 2, -EFAULT, -EFAULT},    // wraps
        {UINT64_MAX, 1, -EFAULT, -EFAULT},
        {0x7000, 0, 0, 0},                    // nothing is nowhere
    };
    struct memory memory;
    uint8_t local[0x3000];

    (void)state;
    open_memory(&memory);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t before[sizeof memory.bytes];
        memcpy(before, memory.bytes, sizeof before);
        memset(local, (int)i + 1, sizeof local);
        assert_int_equal(sdc_memory_read(&memory.view, cases[i].iova, local, cases[i].size), cases[i].read);
        if (cases[i].read < 0)
            assert_int_equal(local[0], i + 1);
        memset(local, 0xa5, sizeof local);
        assert_int_equal(sdc_memory_write(&memory.view, cases[i].iova, local, cases[i].size), cases[i].write);
        if (cases[i].write < 0)
            assert_memory_equal(before, memory.bytes, sizeof before);
    }
    sdc_map_unref(memory.map);
}

static void what_is_written_across_seams_reads_back(void **state)
{
    struct memory memory;
    uint8_t out[0x2800], in[sizeof out];

    (void)state;
    open_memory(&memory);
    for (size_t i = 0; i < sizeof out; i++)
        out[i] = (uint8_t)(i * 7 + i / 251);
    assert_int_equal(sdc_memory_write(&memory.view, 0x1400, out, sizeof out), 0);
    assert_int_equal(sdc_memory_read(&memory.view, 0x1400, in, sizeof in), 0);
    assert_memory_equal(out, in, sizeof out);
    assert_memory_equal(memory.bytes + 0x400, out, 0x1c00);              // pages 0 and 1
    assert_memory_equal(memory.bytes + 0x3000, out + 0x1c00, 0xc00);     // then page 3
    sdc_map_unref(memory.map);
}

static void remote_memory_is_named(void **state)
{
    struct memory memory;
    uint8_t local[16];

    (void)state;
    open_memory(&memory);
    assert_int_equal(sdc_memory_read(&memory.view, 0x6ff8, local, 16), -EAGAIN);
    assert_int_equal(memory.view.missing_iova, 0x6ff8);
    assert_int_equal(memory.view.missing_size, 8);
    sdc_map_unref(memory.map);
}

static void spans_merge_where_host_memory_does(void **state)
{
    static const struct {
        uint64_t iova, size;
        uint32_t access;
        unsigned max;
        int count;
        size_t first, second; // their sizes
    } cases[] = {
        {0x1000, 0x2000, BOTH, 1, 1, 0x2000, 0},        // two regions, one stretch
        {0x1800, 0x2000, BOTH, 2, 2, 0x1800, 0x800},
        {0x1800, 0x2000, BOTH, 1, -E2BIG, 0, 0},
        {0x2fff, 2, BOTH, 2, 2, 1, 1},
        {0x3800, 0x1000, SDC_ACCESS_READ, 2, 2, 0x800, 0x800}, // page 3, then page 2: not in order
        {0x3800, 0x1000, SDC_ACCESS_WRITE, 2, -EACCES, 0, 0},
        {0x5800, 0x1000, SDC_ACCESS_WRITE, 2, -EAGAIN, 0, 0},
        {0x6800, 0x1000, SDC_ACCESS_READ, 2, -EAGAIN, 0, 0},
        {0x8800, 0x801, BOTH, 2, -EFAULT, 0, 0},
        {0x8000, 0, BOTH, 0, 0, 0, 0},
        {0x8000, 1, BOTH, 0, -E2BIG, 0, 0},
        {UINT64_MAX, 2, BOTH, 2, -EFAULT, 0, 0},
    };
    struct memory memory;

    (void)state;
    open_memory(&memory);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sdc_span spans[2] = {{0}};
        int count = sdc_memory_spans(&memory.view, cases[i].iova, cases[i].size, cases[i].access & SDC_ACCESS_WRITE ? SDC_ACCESS_WRITE :
                                     SDC_ACCESS_READ, spans, cases[i].max);
        assert_int_equal(count, cases[i].count);
        if (count > 0)
            assert_int_equal(spans[0].size, cases[i].first);
        if (count > 1)
            assert_int_equal(spans[1].size, cases[i].second);
    }
    sdc_map_unref(memory.map);
}

// Of a map that may have more for the asking, what is not there is missing, and what may not be done with it too; what was denied is not.
static void a_partial_map_names_what_it_misses(void **state)
{
    static const struct {
        uint64_t iova, size;
        enum sdc_access access;
        int rc;
        uint64_t missing, missing_size;
    } cases[] = {
        {0x1000, 0x2000, SDC_ACCESS_READ, 0, 0, 0},
        {0x7000, 0x10, SDC_ACCESS_READ, -EAGAIN, 0x7000, 0x10},
        {0x8ff0, 0x20, SDC_ACCESS_WRITE, -EAGAIN, 0x9000, 0x10},   // from there on
        {0x3ff0, 0x30, SDC_ACCESS_WRITE, -EAGAIN, 0x4000, 0x20},   // read only
        {0x5008, 1, SDC_ACCESS_READ, -EAGAIN, 0x5008, 1},          // write only
        {0xa000, 0x10, SDC_ACCESS_READ, -EFAULT, 0, 0},            // denied
        {0xa00f, 0x10, SDC_ACCESS_READ, -EFAULT, 0, 0},
        {0x9ff8, 0x10, SDC_ACCESS_READ, -EAGAIN, 0x9ff8, 0x10},    // not its beginning
        {0x4100, 0x10, SDC_ACCESS_WRITE, -EACCES, 0, 0},
        {0x4100, 0x10, SDC_ACCESS_READ, 0, 0, 0},
        {UINT64_MAX, 2, SDC_ACCESS_READ, -EFAULT, 0, 0},
    };
    struct sdc_denials denied = {0};
    struct memory memory;

    (void)state;
    open_memory(&memory);
    memory.map->partial = true;
    memory.view.denied = &denied;
    sdc_denials_add(&denied, 0xa000, 0x10);
    sdc_denials_add(&denied, 0x4100, 0x10);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sdc_span spans[2];
        int count = sdc_memory_spans(&memory.view, cases[i].iova, cases[i].size, cases[i].access, spans, 2);
        assert_int_equal(count < 0 ? count : 0, cases[i].rc);
        assert_int_equal(sdc_memory_check(&memory.view, cases[i].iova, cases[i].size, cases[i].access), cases[i].rc);
        if (cases[i].rc != -EAGAIN)
            continue;
        assert_int_equal(memory.view.missing_iova, cases[i].missing);
        assert_int_equal(memory.view.missing_size, cases[i].missing_size);
        assert_int_equal(memory.view.missing_access, cases[i].access);
    }
    for (unsigned i = 0; i <= SDC_DENIALS_MAX; i++)
        sdc_denials_add(&denied, 0x10000 + i, 1);
    assert_int_equal(sdc_memory_check(&memory.view, 0x7000, 1, SDC_ACCESS_READ), -EFAULT); // too many to remember
    sdc_map_unref(memory.map);
}

// Every address against a plain search, whatever was hit before.
static void every_address_is_found_where_it_is(void **state)
{
    struct memory memory;
    uint64_t random = 1;

    (void)state;
    open_memory(&memory);
    for (unsigned i = 0; i < 20000; i++) {
        random = random * UINT64_C(6364136223846793005) + 1;
        uint64_t iova = (random >> 33) % 0xa000;
        const struct sdc_region *found = NULL;
        struct sdc_span span;
        const struct sdc_region *at = sdc_regions_past(&memory.map->regions, 0);
        for (; at; at = sdc_regions_next(&memory.map->regions, at))
            found = iova - at->iova < 0x1000 ? at : found;
        int count = sdc_memory_spans(&memory.view, iova, 1, SDC_ACCESS_READ, &span, 1);
        if (!found) {
            assert_int_equal(count, -EFAULT);
        } else if (count == 1) {
            assert_ptr_equal(span.base, found->host + (iova - found->iova));
        } else {
            assert_true(!found->host || !(found->access & SDC_ACCESS_READ));
        }
    }
    sdc_map_unref(memory.map);
}

static void without_a_map_there_is_no_memory(void **state)
{
    struct sdc_memory view = {0};
    uint8_t local;

    (void)state;
    assert_int_equal(sdc_memory_read(&view, 0, &local, 1), -EFAULT);
    assert_int_equal(sdc_memory_write(&view, 0, &local, 1), -EFAULT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adding_checks_overlap_and_wrap),
        cmocka_unit_test(removing_wants_the_exact_region),
        cmocka_unit_test(a_full_table_takes_no_more),
        cmocka_unit_test(a_mapping_lives_as_long_as_a_map_that_shows_it),
        cmocka_unit_test(copies_are_whole_or_not_begun),
        cmocka_unit_test(what_is_written_across_seams_reads_back),
        cmocka_unit_test(remote_memory_is_named),
        cmocka_unit_test(spans_merge_where_host_memory_does),
        cmocka_unit_test(a_partial_map_names_what_it_misses),
        cmocka_unit_test(every_address_is_found_where_it_is),
        cmocka_unit_test(without_a_map_there_is_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
