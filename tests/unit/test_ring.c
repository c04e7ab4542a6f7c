// SPDX-License-Identifier: BSD-3-Clause
// The device's half of a virtqueue, split and packed: where it lies, what breaks it, what the driver finds when it is shown, when the
// driver is interrupted, and a ring whose memory goes away.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "ring/ring.h"
#include "ring_fixture.h"

#include <sidecard/virtio.h>

#include <errno.h>

enum {
    DESC = 0x0ff0 & ~15, // the last descriptor of a page: a ring that begins there is in two pieces when pages are jumbled
    DRIVER = 0x3ffc,
    DEVICE = 0x5ffc,
    DATA = 0x8000,
    AVAIL = 1 << 7, // flags of a packed descriptor
    USED = 1 << 15,
    CHAINS = 64,
};

struct fixture {
    struct guest guest;
    struct sdc_ring ring;
    struct sdc_chain chains[CHAINS];
    uint16_t avail; // the driver's index; packed: its position
    bool wrap;      // packed: the driver's wrap counter
};

static void open_ring(struct fixture *f, bool jumbled, uint32_t size, uint64_t features, uint16_t position)
{
    struct sdc_ring_config config = {
        .size = size, .features = features, .desc = DESC, .driver = DRIVER, .device = DEVICE, .position = position};

    guest_open(&f->guest, jumbled);
    assert_int_equal(sdc_ring_start(&f->ring, &config, &(struct sdc_memory){.map = f->guest.map}, NULL), 0);
    for (unsigned i = 0; i < CHAINS; i++)
        sdc_chain_init(&f->chains[i]);
    f->avail = features & SDC_VIRTIO_F_RING_PACKED ? 0 : position;
    f->wrap = true;
}

static void close_ring(struct fixture *f)
{
    for (unsigned i = 0; i < CHAINS; i++)
        sdc_chain_destroy(&f->chains[i]);
    sdc_ring_stop(&f->ring);
    sdc_ring_stop(&f->ring); // a stopped one is stopped
    guest_close(&f->guest);
}

static bool is_packed(const struct fixture *f)
{
    return sdc_ring_has(&f->ring, SDC_VIRTIO_F_RING_PACKED);
}

// Makes a chain of one writable byte available: descriptor or buffer id `id`.
static void offer(struct fixture *f, uint16_t id)
{
    uint32_t size = f->ring.config.size;

    if (is_packed(f)) {
        guest_put_desc(&f->guest, DESC + 16 * (uint64_t)f->avail, DATA, 1, (uint16_t)(SDC_DESC_F_WRITE | (f->wrap ? AVAIL : USED)), id,
                       true);
        f->avail = (uint16_t)((f->avail + 1) % size);
        f->wrap ^= f->avail == 0;
    } else {
        guest_put_desc(&f->guest, DESC + 16 * (uint64_t)id, DATA, 1, SDC_DESC_F_WRITE, 0, false);
        guest_put(&f->guest, DRIVER + 4 + 2 * (uint64_t)(f->avail % size), id, 2);
        guest_put(&f->guest, DRIVER + 2, ++f->avail, 2);
    }
}

// Offers, takes and gives `count` chains, without showing them.
static void pass(struct fixture *f, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        offer(f, (uint16_t)i);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(sdc_ring_take(&f->ring, &f->chains[i]), 1);
    for (unsigned i = 0; i < count; i++)
        sdc_ring_give(&f->ring, &f->chains[i], 1);
}

// --- where it lies ---

static void a_ring_starts_where_it_may_lie(void **state)
{
    static const struct {
        const char *name;
        struct sdc_ring_config config;
        int rc;
    } cases[] = {
        {"split", {.size = 8, .desc = 0, .driver = 0x100, .device = 0x200}, 0},
        {"one entry", {.size = 1, .desc = 0, .driver = 0x100, .device = 0x200}, 0},
        {"size 0", {.size = 0, .desc = 0, .driver = 0x100, .device = 0x200}, -EINVAL},
        {"size 3", {.size = 3, .desc = 0, .driver = 0x100, .device = 0x200}, -EINVAL},
        {"size 65536", {.size = 65536, .desc = 0, .driver = 0x100, .device = 0x200}, -EINVAL},
        {"desc misaligned", {.size = 8, .desc = 8, .driver = 0x100, .device = 0x200}, -EINVAL},
        {"driver misaligned", {.size = 8, .desc = 0, .driver = 0x101, .device = 0x200}, -EINVAL},
        {"driver at 2", {.size = 8, .desc = 0, .driver = 0x102, .device = 0x200}, 0},
        {"device misaligned", {.size = 8, .desc = 0, .driver = 0x100, .device = 0x202}, -EINVAL},
        {"desc runs out", {.size = 8, .desc = GUEST_BYTES - 0x70, .driver = 0x100, .device = 0x200}, -EFAULT},
        {"desc just fits", {.size = 8, .desc = GUEST_BYTES - 0x80, .driver = 0x100, .device = 0x200}, 0},
        {"driver just fits", {.size = 8, .desc = 0, .driver = GUEST_BYTES - 20, .device = 0x200}, 0},
        {"driver has no room for its event", {.size = 8, .features = SDC_VIRTIO_F_EVENT_IDX, .desc = 0, .driver = GUEST_BYTES - 20,
                                              .device = 0x200}, -EFAULT},
        {"device just fits", {.size = 8, .desc = 0, .driver = 0x100, .device = GUEST_BYTES - 68}, 0},
        {"device has no room for its event", {.size = 8, .features = SDC_VIRTIO_F_EVENT_IDX, .desc = 0, .driver = 0x100,
                                              .device = GUEST_BYTES - 68}, -EFAULT},
        {"wraps", {.size = 8, .desc = UINT64_MAX - 15, .driver = 0x100, .device = 0x200}, -EFAULT},
        {"packed", {.size = 7, .features = SDC_VIRTIO_F_RING_PACKED, .desc = 0, .driver = 0x100, .device = 0x200}, 0},
        {"packed size 0", {.size = 0, .features = SDC_VIRTIO_F_RING_PACKED, .desc = 0, .driver = 0x100, .device = 0x200}, -EINVAL},
        {"packed size 32769", {.size = 32769, .features = SDC_VIRTIO_F_RING_PACKED, .desc = 0, .driver = 0x100, .device = 0x200}, -EINVAL},
        {"packed misaligned", {.size = 7, .features = SDC_VIRTIO_F_RING_PACKED, .desc = 0, .driver = 0x102, .device = 0x200}, -EINVAL},
        {"packed just fits", {.size = 7, .features = SDC_VIRTIO_F_RING_PACKED, .desc = 0, .driver = GUEST_BYTES - 4, .device = 0x200}, 0},
        {"packed elsewhere", {.size = 7, .features = SDC_VIRTIO_F_RING_PACKED, .desc = 0, .driver = GUEST_BYTES, .device = 0x200}, -EFAULT},
    };
    struct guest guest;

    (void)state;
    for (unsigned jumbled = 0; jumbled < 2; jumbled++) {
        guest_open(&guest, jumbled);
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            struct sdc_ring ring = {0};
            struct sdc_error err = {0};
            int rc = sdc_ring_start(&ring, &cases[i].config, &(struct sdc_memory){.map = guest.map}, &err);
            if (rc != cases[i].rc)
                fail_msg("%s: %d", cases[i].name, rc);
            assert_int_equal(err.text[0] != '\0', rc < 0);
            sdc_ring_stop(&ring);
        }
        guest_close(&guest);
    }
}

static void rights_matter(void **state)
{
    static const struct {
        uint64_t features;
        uint32_t desc, driver, device; // rights of their pages
        int rc;
    } cases[] = {
        {0, SDC_ACCESS_READ, SDC_ACCESS_READ, SDC_ACCESS_WRITE, 0},
        {0, SDC_ACCESS_WRITE, SDC_ACCESS_READ, SDC_ACCESS_WRITE, -EACCES},
        {0, SDC_ACCESS_READ, SDC_ACCESS_WRITE, SDC_ACCESS_WRITE, -EACCES},
        {0, SDC_ACCESS_READ, SDC_ACCESS_READ, SDC_ACCESS_READ, -EACCES},
        {SDC_VIRTIO_F_RING_PACKED, SDC_ACCESS_READ, SDC_ACCESS_READ, SDC_ACCESS_WRITE, -EACCES},
        {SDC_VIRTIO_F_RING_PACKED, SDC_ACCESS_READ | SDC_ACCESS_WRITE, SDC_ACCESS_READ, SDC_ACCESS_WRITE, 0},
    };
    static uint8_t bytes[3 * GUEST_PAGE] __attribute__((aligned(16)));

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t rights[] = {cases[i].desc, cases[i].driver, cases[i].device};
        struct sdc_region_table table = {0};
        struct sdc_ring ring = {0};
        struct sdc_ring_config config = {
            .size = 8, .features = cases[i].features, .desc = 0, .driver = GUEST_PAGE, .device = 2 * GUEST_PAGE};
        for (unsigned page = 0; page < 3; page++) {
            struct sdc_region region = {.iova = page * GUEST_PAGE, .size = GUEST_PAGE, .host = bytes + page * GUEST_PAGE,
                                        .access = rights[page]};
            assert_int_equal(sdc_region_table_add(&table, &region), 0);
        }
        struct sdc_map *map = sdc_region_table_publish(&table, sdc_map_free, NULL);
        assert_int_equal(sdc_ring_start(&ring, &config, &(struct sdc_memory){.map = map}, NULL), cases[i].rc);
        sdc_ring_stop(&ring);
        sdc_map_unref(map);
        sdc_region_table_clear(&table);
    }
}

// --- what breaks it ---

static void an_available_index_may_be_ahead_by_the_size(void **state)
{
    static const struct {
        uint16_t position;
        uint32_t ahead;
        int rc;
    } cases[] = {
        {0, 0, 0}, {0, 8, 1}, {0, 9, -EPROTO}, {0, 0xffff, -EPROTO}, {65530, 8, 1}, {65530, 9, -EPROTO}, {32767, 0x8000, -EPROTO},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fixture f;
        open_ring(&f, false, 8, 0, cases[i].position);
        guest_put(&f.guest, DRIVER + 2, (uint16_t)(cases[i].position + cases[i].ahead), 2);
        assert_int_equal(sdc_ring_take(&f.ring, &f.chains[0]), cases[i].rc);
        assert_int_equal(f.ring.broken != NULL, cases[i].rc < 0);
        if (cases[i].rc < 0) { // and stays broken
            guest_put(&f.guest, DRIVER + 2, cases[i].position, 2);
            assert_int_equal(sdc_ring_take(&f.ring, &f.chains[0]), -EPROTO);
            assert_false(sdc_ring_publish(&f.ring));
            assert_false(sdc_ring_rearm(&f.ring));
        }
        close_ring(&f);
    }
}

static void a_head_is_in_the_ring_and_not_on_its_way(void **state)
{
    struct fixture f;

    (void)state;
    open_ring(&f, true, 8, 0, 0);
    guest_put(&f.guest, DRIVER + 4, 8, 2);
    guest_put(&f.guest, DRIVER + 2, 1, 2);
    assert_int_equal(sdc_ring_take(&f.ring, &f.chains[0]), -EPROTO);
    close_ring(&f);

    open_ring(&f, true, 8, 0, 0);
    offer(&f, 3);
    offer(&f, 3);
    assert_int_equal(sdc_ring_take(&f.ring, &f.chains[0]), 1);
    assert_int_equal(f.ring.in_flight, 1);
    assert_int_equal(sdc_ring_take(&f.ring, &f.chains[1]), -EPROTO);
    sdc_ring_give(&f.ring, &f.chains[0], 0); // what was taken can be given back, and is not shown
    assert_int_equal(f.ring.in_flight, 0);
    assert_int_equal(guest_get(&f.guest, DEVICE + 2, 2), 0);
    close_ring(&f);
}

static void a_packed_ring_knows_its_ids_and_entries(void **state)
{
    struct fixture f;

    (void)state;
    open_ring(&f, true, 5, SDC_VIRTIO_F_RING_PACKED, 0);
    offer(&f, 0xffff);
    offer(&f, 0xffff);
    assert_int_equal(sdc_ring_take(&f.ring, &f.chains[0]), 1);
    assert_int_equal(f.chains[0].id, 0xffff);
    assert_int_equal(sdc_ring_take(&f.ring, &f.chains[1]), -EPROTO);
    close_ring(&f);

    // Five are on their way, and the driver says that the first is available again.
    open_ring(&f, true, 5, SDC_VIRTIO_F_RING_PACKED, 0);
    for (uint16_t id = 0; id < 5; id++) {
        offer(&f, (uint16_t)(100 + id));
        assert_int_equal(sdc_ring_take(&f.ring, &f.chains[id]), 1);
    }
    offer(&f, 105);
    assert_int_equal(sdc_ring_take(&f.ring, &f.chains[5]), -EPROTO);
    close_ring(&f);
}

// --- what the driver finds ---

static void used_elements_say_what_was_given(void **state)
{
    struct fixture f;

    (void)state;
    for (unsigned jumbled = 0; jumbled < 2; jumbled++) {
        open_ring(&f, jumbled, 4, 0, 65534);
        for (uint16_t id = 0; id < 4; id++)
            offer(&f, (uint16_t)(3 - id));
        for (unsigned i = 0; i < 4; i++)
            assert_int_equal(sdc_ring_take(&f.ring, &f.chains[i]), 1);
        assert_int_equal(sdc_ring_take(&f.ring, &f.chains[4]), 0);
        sdc_ring_give(&f.ring, &f.chains[2], 7); // id 1, in another order than they came
        sdc_ring_give(&f.ring, &f.chains[0], 9); // id 3
        assert_int_equal(guest_get(&f.guest, DEVICE + 2, 2), 0);
        assert_true(sdc_ring_publish(&f.ring));
        assert_false(sdc_ring_publish(&f.ring)); // nothing new
        assert_int_equal(guest_get(&f.guest, DEVICE + 2, 2), 0);
        assert_int_equal(guest_get(&f.guest, DEVICE + 4 + 8 * 2, 8), UINT64_C(7) << 32 | 1); // 65534 % 4
        assert_int_equal(guest_get(&f.guest, DEVICE + 4 + 8 * 3, 8), UINT64_C(9) << 32 | 3);
        // What the driver writes to the used ring is not believed.
        guest_put(&f.guest, DEVICE + 2, 0x1234, 2);
        sdc_ring_give(&f.ring, &f.chains[1], 1);
        sdc_ring_give(&f.ring, &f.chains[3], 1);
        assert_true(sdc_ring_publish(&f.ring));
        assert_int_equal(guest_get(&f.guest, DEVICE + 2, 2), 2);
        close_ring(&f);
    }
}

static void packed_used_descriptors_appear_at_once(void **state)
{
    struct fixture f;

    (void)state;
    open_ring(&f, true, 5, SDC_VIRTIO_F_RING_PACKED, 0);
    for (unsigned lap = 0; lap < 12; lap++) { // 3 of 5 each time: batches over the ring's end, both values of the wrap counter
        uint16_t first = f.ring.used_next;
        bool wrap = f.ring.packed.used_wrap;
        pass(&f, 3);
        uint16_t before = (uint16_t)guest_get(&f.guest, DESC + 16 * (uint64_t)first + 14, 2);
        assert_true(((before & AVAIL) != 0) != ((before & USED) != 0)); // still the driver's
        assert_true(sdc_ring_publish(&f.ring));
        for (unsigned i = 0; i < 3; i++) {
            uint64_t at = DESC + 16 * (uint64_t)((first + i) % 5);
            uint16_t flags = (uint16_t)guest_get(&f.guest, at + 14, 2);
            bool expected = first + i >= 5 ? !wrap : wrap;
            assert_int_equal((flags & AVAIL) != 0, expected);
            assert_int_equal((flags & USED) != 0, expected);
            assert_int_equal(guest_get(&f.guest, at + 12, 2), i);
            assert_int_equal(guest_get(&f.guest, at + 8, 4), 1);
        }
    }
    close_ring(&f);
}

// --- interrupts ---

static void a_split_driver_is_interrupted_unless_it_says_no(void **state)
{
    struct fixture f;

    (void)state;
    open_ring(&f, true, 8, 0, 0);
    pass(&f, 1);
    assert_true(sdc_ring_publish(&f.ring));
    guest_put(&f.guest, DRIVER, 1, 2);
    pass(&f, 1);
    assert_false(sdc_ring_publish(&f.ring));
    close_ring(&f);
}

// virtio 1.2, 2.7.10.1: the index is moved one by one; the driver wants an interrupt when it leaves used_event behind.
static void every_used_event_is_met_exactly(void **state)
{
    struct fixture f;

    (void)state;
    for (unsigned count = 1; count <= 8; count += 3) {
        open_ring(&f, false, 8, SDC_VIRTIO_F_EVENT_IDX, 65500);
        for (uint32_t event = 0; event <= UINT16_MAX; event++) {
            bool expected = false;
            guest_put(&f.guest, DRIVER + 4 + 2 * 8, event, 2);
            for (uint16_t i = 0; i < count; i++)
                expected |= (uint16_t)(f.ring.used_next + i) == event;
            pass(&f, count);
            assert_int_equal(sdc_ring_publish(&f.ring), expected);
        }
        // And one that is always just there: no lost interrupt wherever the index stands.
        for (uint32_t i = 0; i <= UINT16_MAX; i++) {
            guest_put(&f.guest, DRIVER + 4 + 2 * 8, f.ring.used_next, 2);
            pass(&f, count);
            assert_true(sdc_ring_publish(&f.ring));
        }
        close_ring(&f);
    }
}

// The same for packed rings: every position and wrap counter that the driver can name, from every position of the device.
static void every_packed_event_is_met_exactly(void **state)
{
    enum { SIZE = 5 };
    struct fixture f;

    (void)state;
    open_ring(&f, false, SIZE, SDC_VIRTIO_F_RING_PACKED | SDC_VIRTIO_F_EVENT_IDX, 0);
    guest_put(&f.guest, DRIVER + 2, 2, 2); // by descriptor
    for (unsigned round = 0; round < 40; round++) {
        for (unsigned count = 1; count <= SIZE; count++) {
            for (unsigned event = 0; event < 2 * SIZE; event++) {
                bool event_wrap = event >= SIZE, wrap = f.ring.packed.used_wrap, expected = false;
                unsigned at = f.ring.used_next;
                for (unsigned i = 0; i < count; i++) {
                    expected |= at == event % SIZE && wrap == event_wrap;
                    at = (at + 1) % SIZE;
                    wrap ^= at == 0;
                }
                guest_put(&f.guest, DRIVER, event % SIZE | (event_wrap ? 0x8000 : 0), 2);
                pass(&f, count);
                assert_int_equal(sdc_ring_publish(&f.ring), expected);
            }
        }
    }
    static const struct {
        uint16_t flags;
        bool due;
    } words[] = {{0, true}, {1, false}};
    for (unsigned i = 0; i < 2; i++) {
        guest_put(&f.guest, DRIVER + 2, words[i].flags, 2);
        pass(&f, 1);
        assert_int_equal(sdc_ring_publish(&f.ring), words[i].due);
    }
    close_ring(&f);
}

// --- kicks ---

static void rearming_tells_the_driver_and_looks_again(void **state)
{
    static const struct {
        uint64_t features;
        uint64_t at;                   // of the word that the driver looks at
        uint16_t suppressed, rearmed; // what it finds there
    } cases[] = {
        {0, DEVICE, 1, 0},
        {SDC_VIRTIO_F_EVENT_IDX, DEVICE + 4 + 8 * 8, 1, 2}, // behind the driver, and where it is
        {SDC_VIRTIO_F_RING_PACKED, DEVICE + 2, 1, 0},
        {SDC_VIRTIO_F_RING_PACKED | SDC_VIRTIO_F_EVENT_IDX, DEVICE + 2, 1, 2},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fixture f;
        open_ring(&f, true, 8, cases[i].features, 0);
        pass(&f, 2);
        sdc_ring_suppress(&f.ring);
        assert_int_equal(guest_get(&f.guest, cases[i].at, 2), cases[i].suppressed);
        assert_false(sdc_ring_look(&f.ring));
        assert_false(sdc_ring_rearm(&f.ring));
        assert_int_equal(guest_get(&f.guest, cases[i].at, 2), cases[i].rearmed);
        if (cases[i].features == (SDC_VIRTIO_F_RING_PACKED | SDC_VIRTIO_F_EVENT_IDX))
            assert_int_equal(guest_get(&f.guest, DEVICE, 2), 2 | 0x8000); // the next one, in the first lap
        sdc_ring_suppress(&f.ring);
        offer(&f, 5);
        assert_true(sdc_ring_look(&f.ring));
        assert_true(sdc_ring_look(&f.ring)); // looking takes nothing
        assert_true(sdc_ring_rearm(&f.ring)); // it came before the driver could see that
        assert_int_equal(sdc_ring_take(&f.ring, &f.chains[0]), 1);
        close_ring(&f);
    }
}

// --- memory that goes away ---

static void a_ring_sleeps_while_its_memory_is_away(void **state)
{
    static const uint64_t features[] = {0, SDC_VIRTIO_F_RING_PACKED};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct fixture f;
        open_ring(&f, true, 8, features[i], 0);
        struct sdc_map *without = guest_map(&f.guest, true, ~(1U << (DEVICE / GUEST_PAGE)));
        pass(&f, 2);
        assert_true(sdc_ring_publish(&f.ring));
        offer(&f, 6);
        sdc_ring_remap(&f.ring, &(struct sdc_memory){.map = without});
        assert_false(f.ring.awake);
        assert_int_equal(sdc_ring_take(&f.ring, &f.chains[0]), 0);
        sdc_ring_suppress(&f.ring);
        assert_false(sdc_ring_rearm(&f.ring));
        assert_false(sdc_ring_publish(&f.ring));
        sdc_ring_remap(&f.ring, &(struct sdc_memory){.map = NULL});
        assert_int_equal(sdc_ring_take(&f.ring, &f.chains[0]), 0);

        sdc_ring_remap(&f.ring, &(struct sdc_memory){.map = f.guest.map});
        assert_true(f.ring.awake);
        assert_int_equal(sdc_ring_take(&f.ring, &f.chains[0]), 1);
        assert_int_equal(f.chains[0].id, 6);
        sdc_ring_give(&f.ring, &f.chains[0], 1);
        assert_true(sdc_ring_publish(&f.ring));
        if (!features[i])
            assert_int_equal(guest_get(&f.guest, DEVICE + 2, 2), 3);
        sdc_map_unref(without);
        close_ring(&f);
    }
}

static void a_ring_stays_if_its_own_memory_does(void **state)
{
    struct fixture f;
    uint32_t pages = UINT32_MAX & ~(1U << 12); // nothing of the ring lies there

    (void)state;
    open_ring(&f, true, 8, 0, 0);
    struct sdc_map *fewer = guest_map(&f.guest, true, pages);
    struct sdc_map *without = guest_map(&f.guest, true, ~(1U << (DRIVER / GUEST_PAGE)));
    struct sdc_map *moved = guest_map(&f.guest, false, UINT32_MAX);
    assert_true(sdc_ring_stays(&f.ring, f.guest.map));
    assert_true(sdc_ring_stays(&f.ring, fewer));
    assert_false(sdc_ring_stays(&f.ring, without));
    assert_false(sdc_ring_stays(&f.ring, moved));
    assert_false(sdc_ring_stays(&f.ring, NULL));
    sdc_ring_remap(&f.ring, &(struct sdc_memory){.map = without});
    assert_false(sdc_ring_stays(&f.ring, f.guest.map)); // one that is asleep does not
    sdc_map_unref(fewer);
    sdc_map_unref(without);
    sdc_map_unref(moved);
    close_ring(&f);
}

static void a_ring_moves_if_one_of_its_areas_does(void **state)
{
    struct sdc_ring_config config = {.size = 8, .desc = 1 * GUEST_PAGE, .driver = 2 * GUEST_PAGE, .device = 3 * GUEST_PAGE};
    struct sdc_ring ring;
    struct guest guest;

    (void)state;
    guest_open(&guest, true);
    assert_int_equal(sdc_ring_start(&ring, &config, &(struct sdc_memory){.map = guest.map}, NULL), 0);
    for (unsigned page = 1; page <= 4; page++) {
        struct sdc_map *other = guest_map(&guest, true, UINT32_MAX);
        other->regions.slots[0].leaf->regions[page].host = guest.bytes;
        assert_int_equal(sdc_ring_stays(&ring, other), page == 4); // the fourth is not the ring's
        sdc_map_unref(other);
    }
    sdc_ring_stop(&ring);
    guest_close(&guest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ring_starts_where_it_may_lie),
        cmocka_unit_test(rights_matter),
        cmocka_unit_test(an_available_index_may_be_ahead_by_the_size),
        cmocka_unit_test(a_head_is_in_the_ring_and_not_on_its_way),
        cmocka_unit_test(a_packed_ring_knows_its_ids_and_entries),
        cmocka_unit_test(used_elements_say_what_was_given),
        cmocka_unit_test(packed_used_descriptors_appear_at_once),
        cmocka_unit_test(a_split_driver_is_interrupted_unless_it_says_no),
        cmocka_unit_test(every_used_event_is_met_exactly),
        cmocka_unit_test(every_packed_event_is_met_exactly),
        cmocka_unit_test(rearming_tells_the_driver_and_looks_again),
        cmocka_unit_test(a_ring_sleeps_while_its_memory_is_away),
        cmocka_unit_test(a_ring_stays_if_its_own_memory_does),
        cmocka_unit_test(a_ring_moves_if_one_of_its_areas_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
