// SPDX-License-Identifier: BSD-3-Clause
// Memory that came without an fd: the cache of what was fetched from it, the door in front of it, and chains and rings that lie in it.
// Parsers get -EAGAIN until all that they read is in the cache; then they succeed, and no byte was fetched twice.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/limits.h"
#include "memory/read_cache.h"
#include "ring/ring.h"
#include "ring_fixture.h"

#include <sidecard/virtio.h>

#include <errno.h>

enum { ALL = 0xffff }; // pages

// --- the cache ---

static bool cached_is(struct sdc_read_cache *cache, uint64_t iova, uint64_t want, uint64_t have, uint8_t first)
{
    uint64_t size = want;
    const uint8_t *found = sdc_read_cache_find(cache, iova, &size);

    return found ? size == have && *found == first : have == 0 && size > 0;
}

static void what_is_cached_is_found_where_it_is(void **state)
{
    struct sdc_read_cache cache = {0};
    uint8_t bytes[256];

    (void)state;
    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)i;
    assert_true(cached_is(&cache, 0, 1, 0, 0));
    assert_int_equal(sdc_read_cache_add(&cache, 0x1000, bytes, 16), 0);
    assert_int_equal(sdc_read_cache_add(&cache, 0x1020, bytes + 0x20, 16), 0);
    assert_int_equal(sdc_read_cache_add(&cache, 0x0f00, bytes, 1), 0);
    assert_true(cached_is(&cache, 0x0fff, 1, 0, 0));
    assert_true(cached_is(&cache, 0x1000, 100, 16, 0));
    assert_true(cached_is(&cache, 0x100f, 100, 1, 15));
    assert_true(cached_is(&cache, 0x1010, 100, 0, 0));
    assert_true(cached_is(&cache, 0x1024, 2, 2, 0x24));
    assert_true(cached_is(&cache, 0x0f00, 100, 1, 0));
    assert_true(cached_is(&cache, UINT64_MAX, 1, 0, 0));
    uint64_t gap = 100;
    assert_null(sdc_read_cache_find(&cache, 0x1012, &gap));
    assert_int_equal(gap, 14); // to the next piece
    assert_int_equal(cache.bytes, 33);
    sdc_read_cache_clear(&cache);
    assert_true(cached_is(&cache, 0x1000, 1, 0, 0));
    assert_int_equal(cache.bytes, 0);
}

// What the guest changes between two fetches must not be seen by half of a parse.
static void what_was_seen_once_stays_as_it_was(void **state)
{
    struct sdc_read_cache cache = {0};
    uint8_t old[64], new[64];

    (void)state;
    memset(old, 1, sizeof old);
    memset(new, 2, sizeof new);
    assert_int_equal(sdc_read_cache_add(&cache, 0x1010, old, 2), 0);
    assert_int_equal(sdc_read_cache_add(&cache, 0x1020, old, 2), 0);
    assert_int_equal(sdc_read_cache_add(&cache, 0x1000, new, 64), 0);
    assert_int_equal(cache.bytes, 64);
    for (uint64_t at = 0x1000; at < 0x1040; at++) {
        uint64_t size = 1;
        const uint8_t *found = sdc_read_cache_find(&cache, at, &size);
        assert_non_null(found);
        assert_int_equal(*found, (at & ~UINT64_C(0x31)) == 0x1000 && at & 0x30 && (at & 0x30) != 0x30 ? 1 : 2);
    }
    assert_int_equal(sdc_read_cache_add(&cache, 0x1008, old, 16), 0); // nothing of it is new
    assert_int_equal(cache.bytes, 64);
    assert_true(cached_is(&cache, 0x1008, 1, 1, 2));
    sdc_read_cache_clear(&cache);
}

static void the_cache_is_right_whatever_is_added_and_asked(void **state)
{
    struct sdc_read_cache cache = {0};
    uint8_t model[512], bytes[64];
    bool there[512] = {false};
    uint64_t random = 7;

    (void)state;
    for (unsigned i = 0; i < 4000; i++) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
        unsigned at = (unsigned)(random >> 33) % 448, size = (unsigned)(random >> 50) % 40;
        if (i % 8 == 0) {
            memset(bytes, (int)i, sizeof bytes);
            assert_int_equal(sdc_read_cache_add(&cache, at, bytes, size), 0);
            for (unsigned k = at; k < at + size; k++) {
                if (!there[k])
                    model[k] = (uint8_t)i;
                there[k] = true;
            }
        }
        uint64_t length = size + 1;
        const uint8_t *found = sdc_read_cache_find(&cache, at, &length);
        assert_int_equal(found != NULL, there[at]);
        for (uint64_t k = 0; found && k < length; k++) {
            assert_true(there[at + k]);
            assert_int_equal(found[k], model[at + k]);
        }
        if (i % 500 == 499) {
            sdc_read_cache_clear(&cache);
            memset(there, 0, sizeof there);
        }
    }
    sdc_read_cache_clear(&cache);
}

// --- a reader that can fetch ---

struct reader {
    struct guest guest;
    struct sdc_map *map;
    struct sdc_memory view; // first of what follows: fetches and writes are recorded beside it
    struct sdc_read_cache cache;
    uint64_t written_at[4];
    size_t written_size[4];
    unsigned writes;
    unsigned fetches;
    uint8_t fetched[GUEST_BYTES]; // how often each byte was
};

static int write_remote(struct sdc_memory *memory, uint64_t iova, const void *data, size_t size)
{
    struct reader *reader = (struct reader *)(void *)((char *)memory - offsetof(struct reader, view));

    if (reader->writes < 4) {
        reader->written_at[reader->writes] = iova;
        reader->written_size[reader->writes] = size;
    }
    reader->writes++;
    return sdc_memory_write(&reader->guest.view, iova, data, size);
}

// Bits of `remote` and `fixed` are pages: without memory here, and read-only.
static void open_reader(struct reader *reader, uint32_t remote, uint32_t fixed)
{
    *reader = (struct reader){0};
    guest_open(&reader->guest, true);
    reader->map = guest_map_of(&reader->guest, true, ALL, remote, fixed);
    reader->view = (struct sdc_memory){.map = reader->map, .cache = &reader->cache, .write_remote = write_remote};
}

static void close_reader(struct reader *reader)
{
    sdc_read_cache_clear(&reader->cache);
    sdc_map_unref(reader->map);
    guest_close(&reader->guest);
}

// Fetches exactly what is said to be missing.
static void fetch_missing(struct reader *reader, struct sdc_memory *view)
{
    uint8_t bytes[GUEST_PAGE];
    uint64_t iova = view->missing_iova;

    assert_in_range(view->missing_size, 1, sizeof bytes);
    assert_int_equal(sdc_memory_read(&reader->guest.view, iova, bytes, view->missing_size), 0);
    for (size_t i = 0; i < view->missing_size; i++)
        assert_int_equal(reader->fetched[iova + i]++, 0);
    assert_int_equal(sdc_read_cache_add(&reader->cache, iova, bytes, view->missing_size), 0);
    reader->fetches++;
}

static void what_is_missing_is_fetched_piece_by_piece(void **state)
{
    struct reader r;
    uint8_t local[2 * GUEST_PAGE + 32], expected[sizeof local];
    uint64_t at = GUEST_PAGE - 16; // pages 0 and 3 are ours, 1 and 2 are not

    (void)state;
    open_reader(&r, 0x6, 0);
    for (unsigned i = 0; i < GUEST_PAGES * GUEST_PAGE; i += 8)
        guest_put(&r.guest, i, i * UINT64_C(0x9e3779b97f4a7c15), 8);
    assert_int_equal(sdc_memory_read(&r.guest.view, at, expected, sizeof expected), 0);
    memset(local, 0xee, sizeof local);
    while (sdc_memory_read(&r.view, at, local, sizeof local) == -EAGAIN) {
        assert_int_equal(local[0], 0xee); // nothing before all is there
        fetch_missing(&r, &r.view);
    }
    assert_int_equal(r.fetches, 2);
    assert_memory_equal(local, expected, sizeof local);

    // Without a cache such memory is not there, and the range is named all the same.
    struct sdc_memory blind = {.map = r.map};
    assert_int_equal(sdc_memory_read(&blind, GUEST_PAGE + 4, local, 8), -EAGAIN);
    assert_int_equal(blind.missing_iova, GUEST_PAGE + 4);
    assert_int_equal(blind.missing_size, 8);
    close_reader(&r);
}

static void writes_go_where_the_memory_is(void **state)
{
    struct reader r;
    uint8_t local[GUEST_PAGE + 32], back[sizeof local];
    uint64_t at = GUEST_PAGE - 16; // only page 1 is remote; page 2 is read-only

    (void)state;
    open_reader(&r, 0x2, 0x4);
    memset(local, 0x5a, sizeof local);
    assert_int_equal(sdc_memory_write(&r.view, at, local, GUEST_PAGE + 16), 0);
    assert_int_equal(r.writes, 1);
    assert_int_equal(r.written_at[0], GUEST_PAGE);
    assert_int_equal(r.written_size[0], GUEST_PAGE);
    assert_int_equal(sdc_memory_read(&r.guest.view, at, back, GUEST_PAGE + 16), 0);
    assert_memory_equal(back, local, GUEST_PAGE + 16);

    // Nothing is written where a part cannot be.
    struct sdc_memory blind = {.map = r.map};
    assert_int_equal(sdc_memory_write(&blind, at, back, GUEST_PAGE + 16), -EAGAIN);
    memset(local, 0x11, sizeof local);
    assert_int_equal(sdc_memory_write(&r.view, at, local, sizeof local), -EACCES);
    assert_int_equal(r.writes, 1);
    assert_int_equal(guest_get(&r.guest, at, 1), 0x5a);
    close_reader(&r);
}

static void a_check_says_whether_and_how(void **state)
{
    static const struct {
        uint64_t iova, size;
        enum sdc_access access;
        int rc;
    } cases[] = {
        {0, GUEST_PAGE, SDC_ACCESS_READ, 0},
        {0, GUEST_PAGE + 1, SDC_ACCESS_READ, 1},
        {GUEST_PAGE, GUEST_PAGE, SDC_ACCESS_WRITE, 1},
        {GUEST_PAGE - 1, 1, SDC_ACCESS_WRITE, 0},
        {3 * GUEST_PAGE, 1, SDC_ACCESS_WRITE, -EACCES}, // read-only, and remote
        {3 * GUEST_PAGE, 1, SDC_ACCESS_READ, 1},
        {2 * GUEST_PAGE, GUEST_PAGE + 1, SDC_ACCESS_WRITE, -EACCES},
        {GUEST_BYTES - 1, 2, SDC_ACCESS_READ, -EFAULT},
        {GUEST_BYTES, 1, SDC_ACCESS_READ, -EFAULT},
        {GUEST_BYTES, 0, SDC_ACCESS_READ, 0},
        {UINT64_MAX, 2, SDC_ACCESS_READ, -EFAULT},
        {0, UINT64_MAX, SDC_ACCESS_READ, -EFAULT},
    };
    struct reader r;

    (void)state;
    open_reader(&r, 0xa, 0x8);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(sdc_memory_check(&r.view, cases[i].iova, cases[i].size, cases[i].access), cases[i].rc);
    close_reader(&r);
}

static void a_range_is_clipped_to_its_region(void **state)
{
    struct reader r;
    uint64_t begin = 0, end = UINT64_MAX;

    (void)state;
    open_reader(&r, ALL, 0);
    sdc_memory_clip(&r.view, 2 * GUEST_PAGE + 7, &begin, &end);
    assert_int_equal(begin, 2 * GUEST_PAGE);
    assert_int_equal(end, 3 * GUEST_PAGE);
    begin = 2 * GUEST_PAGE + 5, end = begin + 9;
    sdc_memory_clip(&r.view, 2 * GUEST_PAGE + 7, &begin, &end);
    assert_int_equal(begin, 2 * GUEST_PAGE + 5);
    assert_int_equal(end, begin + 9);
    close_reader(&r);
}

// --- chains ---

enum { TABLE = 0, TABLE_SIZE = 8, INDIRECT = 0x1ff8, DATA = 0x8000 };

struct walk {
    struct reader r;
    struct sdc_area table;
    struct sdc_iterator it;
    struct sdc_chain chain;
};

static void open_walk(struct walk *walk, uint32_t remote, uint32_t fixed, bool packed)
{
    open_reader(&walk->r, remote, fixed);
    walk->table = (struct sdc_area){.iova = TABLE, .size = TABLE_SIZE * SDC_DESC_SIZE};
    assert_int_equal(sdc_area_resolve(&walk->table, &walk->r.view, SDC_ACCESS_READ, 16), 0);
    sdc_iterator_begin(&walk->it, &walk->r.view, &walk->table, TABLE_SIZE, 0);
    walk->it.packed = packed;
    walk->it.indirect_allowed = true;
    sdc_chain_init(&walk->chain);
}

static void close_walk(struct walk *walk)
{
    sdc_chain_destroy(&walk->chain);
    close_reader(&walk->r);
}

static void put_desc(struct walk *walk, uint64_t at, uint64_t address, uint32_t length, uint16_t flags, uint16_t next)
{
    guest_put_desc(&walk->r.guest, at, address, length, flags, next, walk->it.packed);
}

// From its start, again and again.
static int walk_fetching(struct walk *walk)
{
    struct sdc_iterator start = walk->it;
    int rc;

    while ((rc = sdc_chain_walk(&walk->chain, &walk->it)) == -EAGAIN) {
        fetch_missing(&walk->r, &walk->r.view);
        walk->it = start;
    }
    return rc;
}

// The indirect table begins in one page and ends in the next: a descriptor of it is in two pieces.
static void tables_are_fetched_once(void **state)
{
    (void)state;
    for (unsigned packed = 0; packed < 2; packed++) {
        for (uint32_t remote = 0; remote < 8; remote++) {
            struct walk w;
            open_walk(&w, remote, 0, packed);
            put_desc(&w, TABLE, DATA, 7, SDC_DESC_F_NEXT, 1);
            put_desc(&w, TABLE + 16, INDIRECT, 32, SDC_DESC_F_INDIRECT, packed ? 42 : 0);
            put_desc(&w, INDIRECT, DATA + 100, 5, SDC_DESC_F_NEXT, 1);
            put_desc(&w, INDIRECT + 16, DATA + 200, 9, SDC_DESC_F_WRITE, 0);
            assert_int_equal(walk_fetching(&w), 0);
            assert_int_equal(w.chain.payload.readable_size, 12);
            assert_int_equal(w.chain.payload.writable_size, 9);
            assert_int_equal(w.chain.payload.fault, 0);
            assert_null(w.chain.payload.bounce); // the buffers themselves are ours
            assert_int_equal(w.r.fetches, 2 * (remote & 1) + (remote >> 1 & 1) + (remote >> 2 & 1) + (remote >> 2 & 1));
            close_walk(&w);
        }
    }
}

static void one_remote_buffer_bounces_the_chain(void **state)
{
    struct walk w;
    uint8_t bytes[32];

    (void)state;
    open_walk(&w, 1 << 9, 0, false); // the page behind DATA's
    put_desc(&w, TABLE, DATA, 16, SDC_DESC_F_NEXT, 1);
    put_desc(&w, TABLE + 16, DATA + GUEST_PAGE - 4, 8, SDC_DESC_F_NEXT, 2); // half here, half there
    put_desc(&w, TABLE + 32, DATA + 64, 0, SDC_DESC_F_NEXT, 3);             // nothing
    put_desc(&w, TABLE + 48, DATA + 32, 16, SDC_DESC_F_NEXT | SDC_DESC_F_WRITE, 4);
    put_desc(&w, TABLE + 64, DATA + GUEST_PAGE + 100, 1, SDC_DESC_F_WRITE, 0);
    assert_int_equal(walk_fetching(&w), 0);
    assert_non_null(w.chain.payload.bounce);
    assert_int_equal(w.chain.payload.fault, 0);
    assert_int_equal(w.chain.payload.readable_size, 24);
    assert_int_equal(w.chain.payload.writable_size, 17);
    assert_int_equal(w.chain.payload.bounce_size, 41);
    assert_int_equal(w.chain.payload.unbounced, 0);

    static const struct sdc_segment expected[] = {
        {DATA, 16, false, false, false}, {DATA + GUEST_PAGE - 4, 8, false, true, false}, {DATA + 32, 16, true, false, false},
        {DATA + GUEST_PAGE + 100, 1, true, true, false}};
    assert_int_equal(w.chain.payload.segments_count, 4);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(w.chain.payload.segments[i].iova, expected[i].iova);
        assert_int_equal(w.chain.payload.segments[i].size, expected[i].size);
        assert_int_equal(w.chain.payload.segments[i].writable, expected[i].writable);
        assert_int_equal(w.chain.payload.segments[i].remote, expected[i].remote);
    }
    // The two streams are the bounce's; before anybody fills them they are zero, not what lay there.
    memset(w.chain.payload.bounce, 'r', 24);
    memset(bytes, 'w', sizeof bytes);
    assert_int_equal(sdc_chain_write(&w.chain, 0, bytes, 17), 0);
    assert_int_equal(sdc_chain_write(&w.chain, 1, bytes, 17), -EINVAL);
    assert_int_equal(sdc_chain_read(&w.chain, 8, bytes, 16), 0);
    assert_int_equal(bytes[15], 'r');
    assert_int_equal(w.chain.payload.bounce[23], 'r');
    assert_int_equal(w.chain.payload.bounce[24], 'w');
    assert_int_equal(w.chain.payload.bounce[40], 'w');

    // The next request is not bounced, and nothing is left of this one.
    sdc_chain_trim(&w.chain);
    assert_null(w.chain.payload.bounce);
    assert_int_equal(w.chain.payload.segments_count, 0);
    close_walk(&w);
}

static void faults_in_a_bounced_chain_are_faults(void **state)
{
    static const struct {
        uint64_t address;
        uint32_t length;
        uint16_t flags;
        int fault;
    } cases[] = {
        {UINT64_C(1) << 40, 8, SDC_DESC_F_WRITE, -EFAULT},
        {GUEST_BYTES - 4, 8, SDC_DESC_F_WRITE, -EFAULT},
        {UINT64_C(1) << 40, 0, SDC_DESC_F_WRITE, -EFAULT}, // not even an empty one
        {UINT64_MAX - 3, 16, SDC_DESC_F_WRITE, -EFAULT},
        {4 * GUEST_PAGE, 8, SDC_DESC_F_WRITE, -EACCES},
        {DATA, SDC_LIMIT_BOUNCE, SDC_DESC_F_WRITE, -EFAULT},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct walk w;
        open_walk(&w, ALL & ~1U, 1 << 4, false);
        put_desc(&w, TABLE, DATA, 8, SDC_DESC_F_NEXT, 1);
        put_desc(&w, TABLE + 16, cases[i].address, cases[i].length, cases[i].flags, 0);
        assert_int_equal(walk_fetching(&w), 0);
        assert_non_null(w.chain.payload.bounce);
        assert_int_equal(w.chain.payload.fault, cases[i].fault);
        close_walk(&w);
    }
}

static void readable_behind_writable_is_refused_in_remote_memory_too(void **state)
{
    struct walk w;

    (void)state;
    open_walk(&w, ALL & ~1U, 0, false);
    put_desc(&w, TABLE, DATA, 8, SDC_DESC_F_NEXT | SDC_DESC_F_WRITE, 1);
    put_desc(&w, TABLE + 16, DATA, 8, 0, 0);
    assert_int_equal(walk_fetching(&w), 0);
    assert_int_equal(w.chain.payload.fault, -EPROTO);
    assert_int_equal(w.chain.payload.spans_count, 0);
    close_walk(&w);
}

// Of a request that is too large the end can still be written: there the driver looks how it went.
static void the_end_of_a_request_that_is_too_large_is_bounced(void **state)
{
    struct walk w;
    uint8_t status = 1;

    (void)state;
    open_walk(&w, 0, 0, false);
    // One region without memory, as large as it takes, and the one where the table is.
    struct sdc_region_table table = {0};
    struct sdc_region region = {.iova = 1 << 30, .size = 1 << 30, .access = SDC_ACCESS_READ | SDC_ACCESS_WRITE};
    struct sdc_region here = {.size = GUEST_PAGE, .host = w.r.guest.bytes, .access = SDC_ACCESS_READ | SDC_ACCESS_WRITE};
    assert_int_equal(sdc_region_table_add(&table, &region), 0);
    assert_int_equal(sdc_region_table_add(&table, &here), 0);
    struct sdc_map *map = sdc_region_table_publish(&table, sdc_map_free, NULL);
    w.r.view.map = map;
    put_desc(&w, TABLE, region.iova, 16, SDC_DESC_F_NEXT, 1);
    put_desc(&w, TABLE + 16, region.iova + 64, SDC_LIMIT_BOUNCE, SDC_DESC_F_WRITE | SDC_DESC_F_NEXT, 2);
    put_desc(&w, TABLE + 32, region.iova + 16, 1, SDC_DESC_F_WRITE, 0);
    assert_int_equal(walk_fetching(&w), 0);
    assert_int_equal(w.chain.payload.fault, -EFAULT);
    assert_int_equal(w.chain.payload.writable_size, SDC_LIMIT_BOUNCE + 1);
    assert_in_range(w.chain.payload.bounce_size, 1, 64);
    assert_int_equal(w.chain.payload.unbounced, 16 + SDC_LIMIT_BOUNCE + 1 - w.chain.payload.bounce_size);
    assert_int_equal(sdc_chain_write(&w.chain, SDC_LIMIT_BOUNCE, &status, 1), 0);
    assert_int_equal(w.chain.payload.bounce[w.chain.payload.bounce_size - 1], 1);
    assert_int_equal(sdc_chain_write(&w.chain, 0, &status, 1), -EFAULT);
    assert_int_equal(sdc_chain_read(&w.chain, 0, &status, 1), -EFAULT);
    sdc_map_unref(map);
    sdc_region_table_clear(&table);
    close_walk(&w);
}

// --- rings ---

enum { DESC = 0x0ff0 & ~15, DRIVER = 0x3ffc, DEVICE = 0x5ffc, RING_SIZE = 8, AVAIL = 1 << 7 };

struct ring_reader {
    struct reader r;
    struct sdc_ring ring;
    struct sdc_chain chain;
};

static void open_ring(struct ring_reader *f, uint32_t remote, uint64_t features)
{
    struct sdc_ring_config config = {.size = RING_SIZE, .features = features, .desc = DESC, .driver = DRIVER, .device = DEVICE};

    open_reader(&f->r, remote, 0);
    assert_int_equal(sdc_ring_start(&f->ring, &config, &f->r.view, NULL), 0);
    f->ring.memory.write_remote = NULL; // set where writes are looked at
    sdc_chain_init(&f->chain);
}

static void close_ring(struct ring_reader *f)
{
    sdc_ring_stop(&f->ring);
    sdc_chain_destroy(&f->chain);
    close_reader(&f->r);
}

static int take_fetching(struct ring_reader *f)
{
    int rc;

    while ((rc = sdc_ring_take(&f->ring, &f->chain)) == -EAGAIN)
        fetch_missing(&f->r, &f->ring.memory);
    sdc_read_cache_clear(&f->r.cache);
    memset(f->r.fetched, 0, sizeof f->r.fetched);
    return rc;
}

static void a_ring_wants_a_reader_that_can_fetch(void **state)
{
    struct sdc_ring_config config = {.size = RING_SIZE, .desc = DESC, .driver = DRIVER, .device = DEVICE};
    struct reader r;
    struct sdc_ring ring = {0};

    (void)state;
    open_reader(&r, 1 << 4, 0);
    assert_int_equal(sdc_ring_start(&ring, &config, &(struct sdc_memory){.map = r.map}, NULL), -EFAULT);
    assert_int_equal(sdc_ring_start(&ring, &config, &r.view, NULL), 0);
    assert_true(ring.remote);
    sdc_ring_stop(&ring);
    close_reader(&r);
}

// Whichever of its areas are remote.
static void split_chains_are_taken_from_remote_rings(void **state)
{
    (void)state;
    for (uint32_t remote = 0; remote < 32; remote++) {
        struct ring_reader f;
        open_ring(&f, remote, 0);
        assert_int_equal(take_fetching(&f), 0);
        for (unsigned round = 0; round < 12; round++) {
            guest_put_desc(&f.r.guest, DESC + 16 * (uint64_t)(round % RING_SIZE), DATA, 3, SDC_DESC_F_WRITE, 0, false);
            guest_put(&f.r.guest, DRIVER + 4 + 2 * (uint64_t)(round % RING_SIZE), round % RING_SIZE, 2);
            guest_put(&f.r.guest, DRIVER + 2, round + 1, 2);
            assert_int_equal(take_fetching(&f), 1);
            assert_int_equal(f.chain.id, round % RING_SIZE);
            assert_int_equal(f.chain.payload.writable_size, 3);
            assert_int_equal(take_fetching(&f), 0);
            f.ring.in_flight--; // writes are another test's
            sdc_ring_turn_taken(&f.ring, f.chain.id);
        }
        close_ring(&f);
    }
}

static void packed_chains_are_taken_from_remote_rings(void **state)
{
    (void)state;
    for (uint32_t remote = 0; remote < 32; remote++) {
        struct ring_reader f;
        open_ring(&f, remote, SDC_VIRTIO_F_RING_PACKED);
        assert_int_equal(take_fetching(&f), 0);
        for (uint16_t id = 0; id < 3; id++) { // two descriptors each
            uint64_t at = DESC + 32 * (uint64_t)id;
            guest_put_desc(&f.r.guest, at, DATA, 3, SDC_DESC_F_NEXT | AVAIL, id, true);
            guest_put_desc(&f.r.guest, at + 16, DATA + 16, 5, SDC_DESC_F_WRITE | AVAIL, id, true);
            assert_int_equal(take_fetching(&f), 1);
            assert_int_equal(f.chain.id, id);
            assert_int_equal(f.chain.entries, 2);
            assert_int_equal(f.chain.payload.readable_size, 3);
            assert_int_equal(f.chain.payload.writable_size, 5);
            assert_int_equal(take_fetching(&f), 0);
        }
        close_ring(&f);
    }
}

// The ring's view lies in the ring: its writes are recorded from there.
static uint64_t ring_writes[8];
static unsigned ring_writes_count;

static int record_write(struct sdc_memory *memory, uint64_t iova, const void *data, size_t size)
{
    (void)memory, (void)data, (void)size;
    ring_writes[ring_writes_count++] = iova;
    return 0;
}

static void the_driver_sees_elements_before_it_is_told_of_them(void **state)
{
    (void)state;
    for (unsigned packed = 0; packed < 2; packed++) {
        struct ring_reader f;
        open_ring(&f, ALL, packed ? SDC_VIRTIO_F_RING_PACKED : 0);
        f.ring.memory.write_remote = record_write;
        ring_writes_count = 0;
        guest_put_desc(&f.r.guest, DESC, DATA, 1, (uint16_t)(SDC_DESC_F_WRITE | (packed ? AVAIL : 0)), 0, packed);
        if (!packed)
            guest_put(&f.r.guest, DRIVER + 2, 1, 2);
        assert_int_equal(take_fetching(&f), 1);
        sdc_ring_suppress(&f.ring); // a remote driver is never told to be silent
        assert_int_equal(ring_writes_count, 0);
        sdc_ring_give(&f.ring, &f.chain, 1);
        unsigned element = ring_writes_count;
        assert_in_range(element, 1, 2); // in two pages
        assert_int_equal(ring_writes[0], packed ? DESC + 8 : DEVICE + 4);
        assert_true(sdc_ring_publish(&f.ring)); // whether it wants an interrupt cannot be read: it gets one
        assert_int_equal(ring_writes_count, element + 1);
        assert_int_equal(ring_writes[element], packed ? DESC + 14 : DEVICE + 2);
        assert_false(sdc_ring_rearm(&f.ring));
        assert_int_equal(ring_writes_count, element + 1);
        close_ring(&f);
    }
}

// With event indices a split driver notifies when it passes the one that we wrote: it has to move, and the ring is looked at again.
static void event_indices_of_a_remote_ring_move_on(void **state)
{
    struct ring_reader f;

    (void)state;
    open_ring(&f, ALL, SDC_VIRTIO_F_EVENT_IDX);
    f.ring.memory.write_remote = record_write;
    ring_writes_count = 0;
    assert_true(sdc_ring_rearm(&f.ring));
    assert_int_equal(ring_writes_count, 1);
    assert_int_equal(ring_writes[0], DEVICE + 4 + 8 * RING_SIZE);
    assert_false(sdc_ring_rearm(&f.ring)); // it has been told, and was looked at since
    assert_int_equal(ring_writes_count, 1);
    close_ring(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_cached_is_found_where_it_is),
        cmocka_unit_test(what_was_seen_once_stays_as_it_was),
        cmocka_unit_test(the_cache_is_right_whatever_is_added_and_asked),
        cmocka_unit_test(what_is_missing_is_fetched_piece_by_piece),
        cmocka_unit_test(writes_go_where_the_memory_is),
        cmocka_unit_test(a_check_says_whether_and_how),
        cmocka_unit_test(a_range_is_clipped_to_its_region),
        cmocka_unit_test(tables_are_fetched_once),
        cmocka_unit_test(one_remote_buffer_bounces_the_chain),
        cmocka_unit_test(faults_in_a_bounced_chain_are_faults),
        cmocka_unit_test(readable_behind_writable_is_refused_in_remote_memory_too),
        cmocka_unit_test(the_end_of_a_request_that_is_too_large_is_bounced),
        cmocka_unit_test(a_ring_wants_a_reader_that_can_fetch),
        cmocka_unit_test(split_chains_are_taken_from_remote_rings),
        cmocka_unit_test(packed_chains_are_taken_from_remote_rings),
        cmocka_unit_test(the_driver_sees_elements_before_it_is_told_of_them),
        cmocka_unit_test(event_indices_of_a_remote_ring_move_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
