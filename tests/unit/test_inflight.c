// SPDX-License-Identifier: BSD-3-Clause
// The log of what is in flight: a device is killed before each store that others see - in the ring or in the log - and at each such
// place another one is started from what is left; it is killed too. Whatever happens, the driver gets each of its chains back exactly once.
// The sources of the ring are built into this test with a hook before each store.
#include "ring/inflight.h"

#include "ring/inflight_layout.h"
#include "ring/ring.h"
#include "ring_fixture.h"

#include <sidecard/virtio.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum {
    DESC = 0x1000,
    DRIVER = 0x2000,
    DEVICE = 0x3000,
    BUFFERS = 0x4000,
    ENTRIES = 8,
    BOTH = (1 << 7) | (1 << 15),
    REGION = 512,
};

void (*sdc_step)(void);

// --- the driver, and all that outlasts a device ---

struct world {
    bool packed;
    _Alignas(8) uint8_t region[REGION];
    struct guest guest;
    uint32_t random;
    uint64_t tag;  // of the next chain
    uint64_t outstanding[ENTRIES]; // tag of the chain with this id, 0: none
    uint16_t held[ENTRIES];        // ring entries that it has
    uint16_t free_entries;
    bool desc_used[ENTRIES];       // split
    uint16_t avail, used;
    bool avail_wrap, used_wrap;    // packed
    unsigned finished;
};

static uint64_t place(uint64_t base, unsigned unit, unsigned index)
{
    return base + (uint64_t)unit * index;
}

static unsigned roll(struct world *world, unsigned below)
{
    world->random = world->random * 1664525 + 1013904223;
    return (world->random >> 16) % below;
}

static void world_new(struct world *world, bool packed, uint32_t seed)
{
    memset(world, 0, sizeof *world);
    world->packed = packed;
    world->random = seed;
    world->tag = 1;
    world->free_entries = ENTRIES;
    world->avail_wrap = world->used_wrap = true;
    guest_open(&world->guest, false);
}

static uint16_t free_id(const struct world *world)
{
    for (uint16_t i = 0; i < ENTRIES; i++) {
        if (world->outstanding[i] == 0 && (world->packed || !world->desc_used[i]))
            return i;
    }
    return ENTRIES;
}

static uint16_t free_desc(struct world *world)
{
    for (uint16_t i = 0; i < ENTRIES; i++) {
        if (!world->desc_used[i]) {
            world->desc_used[i] = true;
            return i;
        }
    }
    abort();
}

static uint64_t buffer_of(struct world *world, uint64_t tag)
{
    uint64_t at = BUFFERS + tag % 64 * 64;

    guest_put(&world->guest, at, tag, 8);
    return at;
}

static void add_split(struct world *world, uint16_t id, unsigned count, uint64_t buffer)
{
    uint16_t at = id;

    world->desc_used[id] = true;
    for (unsigned i = 0; i < count; i++) {
        bool last = i + 1 == count;
        uint16_t next = last ? 0 : free_desc(world);
        guest_put_desc(&world->guest, place(DESC, 16, at), buffer + 8 * i, 8, last ? 0 : SDC_DESC_F_NEXT, next, false);
        at = next;
    }
    guest_put(&world->guest, place(DRIVER + 4, 2, world->avail % ENTRIES), id, 2);
    guest_put(&world->guest, DRIVER + 2, ++world->avail, 2);
}

static void step_on(uint16_t *position, bool *wrap, unsigned entries)
{
    *position = (uint16_t)(*position + entries);
    if (*position >= ENTRIES) {
        *position = (uint16_t)(*position - ENTRIES);
        *wrap = !*wrap;
    }
}

static void add_packed(struct world *world, uint16_t id, unsigned count, uint64_t buffer)
{
    for (unsigned i = 0; i < count; i++) {
        uint16_t flags = (uint16_t)((world->avail_wrap ? 1 << 7 : 1 << 15) | (i + 1 == count ? 0 : SDC_DESC_F_NEXT));
        guest_put_desc(&world->guest, place(DESC, 16, world->avail), buffer + 8 * i, 8, flags, id, true);
        step_on(&world->avail, &world->avail_wrap, 1);
    }
}

// Makes one chain available if there is room.
static void add(struct world *world)
{
    uint16_t id = free_id(world);
    unsigned count = 1 + roll(world, 3);

    if (id == ENTRIES || count > world->free_entries)
        return;
    uint64_t buffer = buffer_of(world, world->tag);
    world->outstanding[id] = world->tag++;
    world->held[id] = (uint16_t)count;
    world->free_entries = (uint16_t)(world->free_entries - count);
    if (world->packed)
        add_packed(world, id, count, buffer);
    else
        add_split(world, id, count, buffer);
}

static void finish(struct world *world, uint64_t id)
{
    if (id >= ENTRIES || world->outstanding[id] == 0)
        fail_msg("a chain came back that was not out: %u", (unsigned)id);
    world->outstanding[id] = 0;
    world->free_entries = (uint16_t)(world->free_entries + world->held[id]);
    world->finished++;
    if (world->packed)
        return;
    for (uint16_t at = (uint16_t)id, i = 0; i < world->held[id]; i++) {
        world->desc_used[at] = false;
        at = (uint16_t)guest_get(&world->guest, place(DESC, 16, at) + 14, 2);
    }
}

// Takes what came back.
static void poll_used(struct world *world)
{
    struct guest *guest = &world->guest;

    while (!world->packed && guest_get(guest, DEVICE + 2, 2) != world->used)
        finish(world, guest_get(guest, place(DEVICE + 4, 8, world->used++ % ENTRIES), 4));
    while (world->packed) {
        uint64_t flags = guest_get(guest, place(DESC, 16, world->used) + 14, 2) & BOTH;
        if (flags != (world->used_wrap ? BOTH : 0))
            return;
        uint64_t id = guest_get(guest, place(DESC, 16, world->used) + 12, 2);
        unsigned held = id < ENTRIES ? world->held[id] : 0;
        finish(world, id);
        step_on(&world->used, &world->used_wrap, held);
    }
}

// --- a device ---

struct device {
    struct world *world;
    struct sdc_inflight log;
    struct sdc_ring ring;
    struct sdc_chain chains[ENTRIES];
    uint64_t tags[ENTRIES];
    bool busy[ENTRIES];
    uint64_t newest; // tag
};

static void device_start(struct device *device, struct world *world, bool resume)
{
    memset(device, 0, sizeof *device);
    device->world = world;
    for (unsigned i = 0; i < ENTRIES; i++)
        sdc_chain_init(&device->chains[i]);
    assert_int_equal(sdc_inflight_open(&device->log, world->region, REGION, ENTRIES, world->packed), 0);
    struct sdc_ring_config config = {
        .size = ENTRIES, .desc = DESC, .driver = DRIVER, .device = DEVICE, .log = &device->log, .resume = resume,
        .features = SDC_VIRTIO_F_VERSION_1 | (world->packed ? SDC_VIRTIO_F_RING_PACKED : 0)};
    struct sdc_error err;
    assert_int_equal(sdc_ring_start(&device->ring, &config, &world->guest.view, &err), 0);
    if (device->ring.broken)
        fail_msg("a resumed ring is broken: %s", device->ring.broken);
}

static void device_end(struct device *device)
{
    for (unsigned i = 0; i < ENTRIES; i++)
        sdc_chain_destroy(&device->chains[i]);
    sdc_ring_stop(&device->ring);
    sdc_inflight_close(&device->log);
}

// Takes a chain if there is one; its buffer says which it is.
static bool device_take(struct device *device)
{
    unsigned at = 0;
    uint8_t tag[8];

    while (at < ENTRIES && device->busy[at])
        at++;
    if (at == ENTRIES)
        return false;
    int rc = sdc_ring_take(&device->ring, &device->chains[at]);
    if (rc < 0)
        fail_msg("the ring is broken: %s", device->ring.broken);
    if (rc == 0)
        return false;
    assert_int_equal(sdc_chain_read(&device->chains[at], 0, tag, sizeof tag), 0);
    device->tags[at] = sdc_get64(tag);
    assert_int_equal(device->tags[at], device->world->outstanding[device->chains[at].id]);
    // In the order in which the driver made them available, those that are taken again too.
    assert_true(device->tags[at] > device->newest);
    device->newest = device->tags[at];
    device->busy[at] = true;
    return true;
}

static void device_give(struct device *device, unsigned at)
{
    device->busy[at] = false;
    sdc_ring_give(&device->ring, &device->chains[at], 0);
}

// What the device has did not come back to the driver.
static void expect_out(const struct device *device)
{
    for (unsigned i = 0; i < ENTRIES; i++) {
        if (device->busy[i])
            assert_int_equal(device->world->outstanding[device->chains[i].id], device->tags[i]);
    }
}

static void device_give_some(struct device *device)
{
    unsigned at = roll(device->world, ENTRIES);

    if (device->busy[at])
        device_give(device, at);
}

// --- killing ---

static struct world *victim;  // that runs now
static unsigned depth, kills;

static void kill_here(void);

static struct world *copy_world(const struct world *from)
{
    struct world *copy = malloc(sizeof *copy);

    *copy = *from;
    guest_open(&copy->guest, false);
    memcpy(copy->guest.bytes, from->guest.bytes, GUEST_BYTES);
    return copy;
}

static void world_end(struct world *world)
{
    guest_close(&world->guest);
}

// Everything that is out comes back, once, and the queue goes on.
static void go_on(struct world *world)
{
    struct device device;

    poll_used(world);
    device_start(&device, world, true);
    for (unsigned turn = 0; turn < 3; turn++) {
        while (device_take(&device))
            ;
        for (unsigned i = 0; i < 2 * ENTRIES; i++) {
            device_give_some(&device);
            if (roll(world, 2))
                sdc_ring_publish(&device.ring);
            poll_used(world);
            expect_out(&device);
        }
        for (unsigned i = 0; i < ENTRIES; i++) {
            if (device.busy[i])
                device_give(&device, i);
        }
        sdc_ring_publish(&device.ring);
        poll_used(world);
        for (unsigned i = 0; i < ENTRIES; i++)
            assert_int_equal(world->outstanding[i], 0);
        if (turn < 2) {
            add(world);
            add(world);
        }
    }
    device_end(&device);
}

static void kill_here(void)
{
    if (depth == 2 || (depth == 1 && roll(victim, 4) != 0))
        return;
    struct world *before = victim;
    struct world *after = copy_world(before);
    victim = after;
    depth++;
    kills++;
    go_on(after);
    depth--;
    victim = before;
    world_end(after);
    free(after);
}

static void run_and_kill(bool packed)
{
    unsigned finished = 0;

    for (uint32_t seed = 1; seed <= 40; seed++) {
        struct world *world = malloc(sizeof *world);
        struct device device;

        world_new(world, packed, seed);
        victim = world;
        depth = 0;
        device_start(&device, world, false);
        sdc_step = kill_here;
        for (unsigned turn = 0; turn < 60; turn++) {
            for (unsigned i = roll(world, 4); i > 0; i--)
                add(world);
            for (unsigned i = roll(world, 5); i > 0; i--)
                device_take(&device);
            for (unsigned i = roll(world, 8); i > 0; i--)
                device_give_some(&device);
            if (roll(world, 2))
                device_take(&device); // between giving and showing
            if (roll(world, 3))
                sdc_ring_publish(&device.ring);
            if (roll(world, 2))
                poll_used(world);
        }
        sdc_step = NULL;
        finished += world->finished;
        device_end(&device);
        world_end(world);
        free(world);
    }
    assert_true(finished > 40 * 20);
    assert_true(kills > 10000);
    print_message("%s: %u kills\n", packed ? "packed" : "split", kills);
    kills = 0;
}

static void test_a_split_queue_survives_a_kill_before_any_store(void **state)
{
    (void)state;
    run_and_kill(false);
}

static void test_a_packed_queue_survives_a_kill_before_any_store(void **state)
{
    (void)state;
    run_and_kill(true);
}

// --- sleep, the region's own words ---

static void test_a_resumed_ring_may_be_asleep_at_first(void **state)
{
    (void)state;
    for (int packed = 0; packed < 2; packed++) {
        struct world *world = malloc(sizeof *world);
        struct device device;

        world_new(world, packed, 3);
        device_start(&device, world, false);
        add(world);
        assert_true(device_take(&device));
        device_end(&device);

        struct sdc_map *all = world->guest.view.map ? world->guest.map : NULL;
        struct sdc_map *some = guest_map(&world->guest, true, 1U << 4 | 1U << 8); // the buffers alone
        world->guest.view = (struct sdc_memory){.map = some};
        device_start(&device, world, true);
        assert_false(device.ring.awake);
        assert_false(device_take(&device));
        world->guest.view = (struct sdc_memory){.map = all};
        sdc_ring_remap(&device.ring, &world->guest.view);
        assert_true(device_take(&device));
        device_give(&device, 0);
        sdc_ring_publish(&device.ring);
        poll_used(world);
        assert_int_equal(world->finished, 1);
        device_end(&device);
        sdc_map_unref(some);
        world_end(world);
        free(world);
    }
}

// Words at the places that the vhost-user specification gives them.
static void test_the_layout_is_the_specifications(void **state)
{
    (void)state;
    struct world *world = malloc(sizeof *world);
    struct device device;
    const uint8_t *region = world->region;

    assert_int_equal(sdc_inflight_bytes(256, false), 16 + 256 * 16);
    assert_int_equal(sdc_inflight_bytes(256, true), 32 + 256 * 32);

    world_new(world, false, 1);
    device_start(&device, world, false);
    add(world);
    assert_true(device_take(&device));
    assert_int_equal(sdc_get64(region), 0);
    assert_int_equal(sdc_get16(region + 8), 1);
    assert_int_equal(sdc_get16(region + 10), ENTRIES);
    assert_int_equal(region[16], 1);
    device_give(&device, 0);
    sdc_ring_publish(&device.ring);
    assert_int_equal(sdc_get16(region + 14), 1);
    assert_int_equal(region[16], 0);
    device_end(&device);
    world_end(world);

    world_new(world, true, 1);
    device_start(&device, world, false);
    buffer_of(world, 1);
    world->outstanding[3] = world->tag++;
    world->held[3] = 2;
    world->free_entries -= 2;
    add_packed(world, 3, 2, buffer_of(world, 1));
    assert_true(device_take(&device));
    assert_int_equal(sdc_get16(region + 12), 2); // free_head
    assert_int_equal(sdc_get16(region + 14), 2); // old_free_head
    assert_int_equal(region[32], 1);             // inflight
    assert_int_equal(sdc_get16(region + 32 + 4), 1); // last
    assert_int_equal(sdc_get16(region + 32 + 6), 2); // num
    assert_int_equal(sdc_get16(region + 64 + 16), 3); // id
    assert_int_equal(sdc_get32(region + 64 + 20), 8); // len
    assert_int_equal(sdc_get64(region + 64 + 24), BUFFERS + 64 + 8); // addr
    device_give(&device, 0);
    assert_int_equal(sdc_get16(region + 16), 2); // used_idx
    assert_int_equal(sdc_get16(region + 18), 0); // old_used_idx
    sdc_ring_publish(&device.ring);
    assert_int_equal(sdc_get16(region + 18), 2);
    assert_int_equal(region[20], 1);
    assert_int_equal(region[21], 1);
    assert_int_equal(region[32], 0);
    device_end(&device);
    world_end(world);
    free(world);
}

// --- a hostile region ---

// What recovery says of a region of which one word was overwritten.
static int recover_with(bool packed, unsigned offset, uint64_t value, unsigned size)
{
    struct world *world = malloc(sizeof *world);
    struct device device;
    struct sdc_inflight log;
    struct sdc_inflight_used used;
    uint8_t raw[8];

    world_new(world, packed, 5);
    device_start(&device, world, false);
    for (unsigned i = 0; i < 3; i++) {
        add(world);
        device_take(&device);
    }
    device_give(&device, 1);
    sdc_ring_publish(&device.ring);
    uint16_t shown = device.ring.used_next;
    device_end(&device);

    sdc_put64(raw, value);
    memcpy(world->region + offset, raw, size);
    assert_int_equal(sdc_inflight_open(&log, world->region, REGION, ENTRIES, packed), 0);
    int rc = packed ? sdc_inflight_used(&log, &used) : sdc_inflight_recover(&log, shown);
    if (packed && rc == 0)
        rc = sdc_inflight_recover_packed(&log, &used, false);
    sdc_inflight_close(&log);
    world_end(world);
    free(world);
    return rc;
}

static void test_r25_a_region_that_cannot_be_is_refused(void **state)
{
    static const struct {
        bool packed;
        unsigned offset, size;
        uint64_t value;
        const char *what;
    } cases[] = {
        {false, 8, 2, 0, "no version"},
        {false, 8, 2, 2, "another version"},
        {false, 10, 2, ENTRIES - 1, "another size"},
        {false, 10, 2, UINT16_MAX, "a huge size"},
        {false, 12, 2, ENTRIES, "a batch head outside"},
        {false, 12, 2, UINT16_MAX, "a batch head far outside"},
        {false, 14, 2, 1000, "a used index that is ahead"},
        {false, 16, 1, 2, "an inflight that is no flag"},
        {false, 16 + 8, 8, UINT64_MAX, "the last counter that there is"},
        {true, 8, 2, 0, "no version"},
        {true, 10, 2, UINT16_MAX, "a huge size"},
        {true, 14, 2, ENTRIES + 1, "a free head outside"},
        {true, 32 * 8 + 2, 2, 0, "a free entry whose next is in a chain"},
        {true, 18, 2, ENTRIES, "a used position outside"},
        {true, 16, 2, UINT16_MAX, "a used position far outside"},
        {true, 20, 1, 2, "a wrap counter that is no flag"},
        {true, 21, 1, 7, "a wrap counter that is no flag"},
        {true, 32, 1, 3, "an inflight that is no flag"},
        {true, 32 + 6, 2, 0, "a chain of nothing"},
        {true, 32 + 6, 2, UINT16_MAX, "a chain that is longer than the queue"},
        {true, 32 + 8, 8, UINT64_MAX, "the last counter that there is"},
        {true, 32 * 8 + 2, 2, 7, "a free entry that is next to itself"},
        {true, 32 * 8 + 2, 2, UINT16_MAX, "a free entry whose next is outside"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int rc = recover_with(cases[i].packed, cases[i].offset, cases[i].value, cases[i].size);
        if (rc != -EPROTO)
            fail_msg("%s, %s: %d", cases[i].packed ? "packed" : "split", cases[i].what, rc);
    }
    assert_true(recover_with(false, 0, 0, 0) > 0);
    assert_true(recover_with(true, 0, 0, 0) > 0);
}

static void test_r25_a_list_of_the_last_batch_that_ends_nowhere_is_refused(void **state)
{
    struct world *world = malloc(sizeof *world);
    struct device device;
    struct sdc_inflight log;

    (void)state;
    world_new(world, false, 5);
    device_start(&device, world, false);
    device_end(&device);
    // The driver has seen two more than the log knows of; the list of them leads outside.
    sdc_put16(world->region + 16 + 6, ENTRIES);
    assert_int_equal(sdc_inflight_open(&log, world->region, REGION, ENTRIES, false), 0);
    assert_int_equal(sdc_inflight_recover(&log, 2), -EPROTO);
    sdc_inflight_close(&log);
    world_end(world);
    free(world);
}

static void test_r25_a_file_shorter_than_said_is_refused(void **state)
{
    struct sdc_inflight log;
    _Alignas(8) uint8_t region[REGION];

    (void)state;
    assert_int_equal(sdc_inflight_open(&log, region, sdc_inflight_bytes(ENTRIES, false) - 1, ENTRIES, false), -EINVAL);
    assert_int_equal(sdc_inflight_open(&log, region, sdc_inflight_bytes(ENTRIES, true) - 1, ENTRIES, true), -EINVAL);
    assert_int_equal(sdc_inflight_open(&log, region, REGION, 0, true), -EINVAL);
    assert_int_equal(sdc_inflight_open(&log, region, UINT64_MAX, 65536, true), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_split_queue_survives_a_kill_before_any_store),
        cmocka_unit_test(test_a_packed_queue_survives_a_kill_before_any_store),
        cmocka_unit_test(test_a_resumed_ring_may_be_asleep_at_first),
        cmocka_unit_test(test_the_layout_is_the_specifications),
        cmocka_unit_test(test_r25_a_region_that_cannot_be_is_refused),
        cmocka_unit_test(test_r25_a_list_of_the_last_batch_that_ends_nowhere_is_refused),
        cmocka_unit_test(test_r25_a_file_shorter_than_said_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
