// SPDX-License-Identifier: BSD-3-Clause
// The virtio block device on a ram disk: requests in any layout, the statuses that they end with, and the configuration space.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "backend/block/block.h"
#include "core_fixture.h"
#include "device/virtio_blk/virtio_blk.h"

#include <errno.h>
#include <string.h>

enum {
    DISK = 64 * 1024, // bytes
    HEADER = 0x4000,
    DATA = 0x5000,
    STATUS = 0x3fff, // the last byte of a page
    IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, ZEROES = 13,
    OK = 0, IOERR = 1, UNSUPP = 2, NONE = 0x99, // NONE: no status was written
};

#define F_FLUSH (UINT64_C(1) << 9)
#define F_CONFIG_WCE (UINT64_C(1) << 11)
#define F_RANGES (UINT64_C(3) << 13) // DISCARD, WRITE_ZEROES

static struct core_fixture f;
static struct sdc_virtio_device *device;

static void open_backend(const char *backend, uint32_t block_size, bool read_only, bool jumbled)
{
    struct sdc_virtio_blk_options options = {.queues = 1, .queue_size = CORE_SIZE, .write_cache = true, .serial = "SERIAL-NUMBER-OF-20C"};
    struct sdc_block_open_options how = {.block_size = block_size, .read_only = read_only};
    struct sdc_block *block;

    f = (struct core_fixture){0};
    assert_int_equal(sdc_loop_new(SDC_LOOP_AUTO, &f.loop, NULL), 0);
    assert_int_equal(sdc_block_open(backend, &how, &block, NULL), 0);
    assert_int_equal(sdc_virtio_blk_new(block, &options, &device, NULL), 0);
    core_open(&f, device, jumbled);
}

static void open_disk(uint32_t block_size, bool read_only, bool jumbled)
{
    open_backend("ram:64k", block_size, read_only, jumbled);
}

static void put_header(uint32_t type, uint64_t sector)
{
    guest_put(&f.guest, HEADER, type, 4);
    guest_put(&f.guest, HEADER + 4, 0, 4);
    guest_put(&f.guest, HEADER + 8, sector, 8);
    guest_put(&f.guest, STATUS, NONE, 1);
}

// Has the device do what these parts say. The status byte.
static unsigned submit(const struct part *parts, unsigned count)
{
    uint16_t before = driver_used(&f);

    driver_offer(&f, parts, count);
    driver_kick(&f);
    assert_int_equal((uint16_t)(driver_used(&f) - before), 1); // whatever it was, it comes back
    assert_false(f.core->status & SDC_VIRTIO_S_NEEDS_RESET);
    return (unsigned)guest_get(&f.guest, STATUS, 1);
}

// A request of the usual form: header, data, status.
static unsigned request(uint32_t type, uint64_t sector, uint32_t size)
{
    bool reads = type == IN || type == GET_ID;
    struct part parts[] = {{HEADER, 16, false}, {DATA, size, reads}, {STATUS, 1, true}};

    put_header(type, sector);
    if (size == 0)
        parts[1] = parts[2];
    return submit(parts, size == 0 ? 2 : 3);
}

static void fill_data(uint8_t seed, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++)
        guest_put(&f.guest, DATA + i, (uint8_t)(seed + i * 11), 1);
}

static void expect_data(uint8_t seed, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++)
        assert_int_equal(guest_get(&f.guest, DATA + i, 1), (uint8_t)(seed + i * 11));
}

static void expect_zeroes(uint32_t size)
{
    for (uint32_t i = 0; i < size; i++)
        assert_int_equal(guest_get(&f.guest, DATA + i, 1), 0);
}

// --- statuses ---

static void every_request_ends_with_its_status(void **state)
{
    static const struct {
        uint32_t type;
        uint64_t sector;
        uint32_t size;
        unsigned status, read_only, of_4096; // on a writable disk of 512, a read-only one, one of 4096
    } cases[] = {
        {IN, 0, 4096, OK, OK, OK},
        {IN, 0, 512, OK, OK, IOERR},
        {IN, 127, 512, OK, OK, IOERR},
        {IN, 120, 4096, OK, OK, OK},
        {IN, 1, 4096, OK, OK, IOERR},            // not a whole block of 4096
        {IN, 121, 4096, IOERR, IOERR, IOERR},    // past the end
        {IN, 128, 512, IOERR, IOERR, IOERR},
        {IN, 0, 0, IOERR, IOERR, IOERR},         // nothing
        {IN, 0, 511, IOERR, IOERR, IOERR},
        {IN, 0, 1, IOERR, IOERR, IOERR},
        {IN, UINT64_C(1) << 55, 512, IOERR, IOERR, IOERR},      // x 512 wraps to 0
        {IN, UINT64_MAX, 4096, IOERR, IOERR, IOERR},
        {IN, UINT64_MAX / 512, 4096, IOERR, IOERR, IOERR},      // the sum wraps
        {OUT, 0, 4096, OK, IOERR, OK},
        {OUT, 0, 100, IOERR, IOERR, IOERR},
        {OUT, 128, 512, IOERR, IOERR, IOERR},
        {OUT, 0, 0, IOERR, IOERR, IOERR},
        {FLUSH, 0, 0, OK, OK, OK},
        {FLUSH, 99, 0, OK, OK, OK},
        {GET_ID, 0, 20, OK, OK, OK},
        {GET_ID, 0, 0, IOERR, IOERR, IOERR},
        {2, 0, 512, UNSUPP, UNSUPP, UNSUPP},
        {UINT32_MAX, 0, 0, UNSUPP, UNSUPP, UNSUPP},
        {DISCARD, 0, 0, IOERR, UNSUPP, IOERR},   // without a segment; a read-only disk does not offer it
        {ZEROES, 0, 8, IOERR, UNSUPP, IOERR},    // with half of one
        {DISCARD, 0, 17 * 16, IOERR, UNSUPP, IOERR}, // with more than there may be
    };
    static const struct {
        uint32_t block_size;
        bool read_only;
    } disks[] = {{512, false}, {512, true}, {4096, false}};

    (void)state;
    for (unsigned disk = 0; disk < 3; disk++) {
        open_disk(disks[disk].block_size, disks[disk].read_only, disk == 1);
        driver_start(&f, F_FLUSH | (disks[disk].read_only ? 0 : F_RANGES));
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            unsigned expected = disk == 0 ? cases[i].status : disk == 1 ? cases[i].read_only : cases[i].of_4096;
            unsigned status = request(cases[i].type, cases[i].sector, cases[i].size);
            if (status != expected)
                fail_msg("disk %u, case %zu: status %u instead of %u", disk, i, status, expected);
        }
        core_close(&f);
    }
}

static void segments_are_checked_one_by_one(void **state)
{
    static const struct {
        uint32_t type;
        struct {
            uint64_t sector;
            uint32_t sectors, flags;
        } segments[2];
        unsigned count, status;
    } cases[] = {
        {DISCARD, {{0, 8, 0}}, 1, OK},
        {DISCARD, {{0, 0, 0}}, 1, OK},
        {DISCARD, {{127, 1, 0}, {0, 128, 0}}, 2, OK},
        {DISCARD, {{127, 2, 0}}, 1, IOERR},
        {DISCARD, {{0, 8, 1}}, 1, UNSUPP},                 // UNMAP is write zeroes' (virtio 1.2, 5.2.6.2)
        {DISCARD, {{0, 8, 2}}, 1, UNSUPP},
        {DISCARD, {{0, 8, 0}, {0, 8, 0x80000000}}, 2, UNSUPP},
        {ZEROES, {{0, 8, 0}}, 1, OK},
        {ZEROES, {{0, 8, 1}}, 1, OK},
        {ZEROES, {{0, 8, 2}}, 1, UNSUPP},
        {ZEROES, {{128, 1, 0}}, 1, IOERR},
        {ZEROES, {{0, 8388608, 0}}, 1, IOERR},             // 4 GiB: more than is offered, and 0 in 32 bits
        {ZEROES, {{0, 0xffffffff, 0}}, 1, IOERR},
        {ZEROES, {{UINT64_MAX, 1, 0}}, 1, IOERR},
        {ZEROES, {{UINT64_C(1) << 55, 1, 0}}, 1, IOERR},
        {ZEROES, {{0, 8, 0}, {128, 8, 0}}, 2, IOERR},
    };

    (void)state;
    open_disk(512, false, true);
    driver_start(&f, F_RANGES);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (unsigned k = 0; k < cases[i].count; k++) {
            guest_put(&f.guest, DATA + 16 * k, cases[i].segments[k].sector, 8);
            guest_put(&f.guest, DATA + 16 * k + 8, cases[i].segments[k].sectors, 4);
            guest_put(&f.guest, DATA + 16 * k + 12, cases[i].segments[k].flags, 4);
        }
        unsigned status = request(cases[i].type, 0, 16 * cases[i].count);
        if (status != cases[i].status)
            fail_msg("case %zu: status %u instead of %u", i, status, cases[i].status);
    }
    core_close(&f);
}

// What the configuration space offers is what is taken, on a disk with room for more.
static void segments_have_a_largest_size(void **state)
{
    static const struct {
        uint32_t sectors;
        unsigned status;
    } cases[] = {{1 << 22, OK}, {(1 << 22) + 1, IOERR}, {1 << 23, IOERR}};

    (void)state;
    open_backend("null:8G", 512, false, false);
    driver_start(&f, F_RANGES);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        guest_put(&f.guest, DATA, 0, 8);
        guest_put(&f.guest, DATA + 8, cases[i].sectors, 8);
        assert_int_equal(request(DISCARD, 0, 16), cases[i].status);
        assert_int_equal(request(ZEROES, 0, 16), cases[i].status);
    }
    core_close(&f);
}

// Chains that no request can be made of. All come back; those that can carry a status do.
static void odd_chains_come_back(void **state)
{
    static const struct {
        const char *name;
        struct part parts[4];
        unsigned count, status;
        uint32_t used; // length
    } cases[] = {
        {"only a status", {{STATUS, 1, true}}, 1, IOERR, 1},
        {"only a header", {{HEADER, 16, false}}, 1, NONE, 0},
        {"half a header", {{HEADER, 15, false}, {STATUS, 1, true}}, 2, IOERR, 1},
        {"header behind the status", {{STATUS, 1, true}, {HEADER, 16, false}}, 2, NONE, 0},
        {"data elsewhere", {{HEADER, 16, false}, {UINT64_C(1) << 40, 512, true}, {STATUS, 1, true}}, 3, IOERR, 513},
        {"header elsewhere", {{UINT64_C(1) << 40, 16, false}, {STATUS, 1, true}}, 2, IOERR, 1},
        {"status elsewhere", {{HEADER, 16, false}, {UINT64_C(1) << 40, 1, true}}, 2, NONE, 0},
        {"data of no length", {{HEADER, 16, false}, {DATA, 0, true}, {STATUS, 1, true}}, 3, IOERR, 1},
        {"4 GiB of data", {{HEADER, 16, false}, {DATA, 0xfffffe00, true}, {STATUS, 1, true}}, 3, IOERR, 0xfffffe01},
    };

    (void)state;
    open_disk(512, false, false);
    driver_start(&f, 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint16_t at = driver_used(&f);
        put_header(IN, 0);
        unsigned status = submit(cases[i].parts, cases[i].count);
        if (status != cases[i].status)
            fail_msg("%s: status %x instead of %x", cases[i].name, status, cases[i].status);
        assert_int_equal(driver_used_length(&f, at), cases[i].used);
    }
    core_close(&f);
}

// --- data ---

// Cuts [iova, iova + size) into pieces of `step` bytes, the last one longer.
static unsigned cut(struct part *parts, uint64_t iova, uint32_t size, bool writable, uint32_t step, unsigned most)
{
    unsigned count = 0;

    while (size > 0) {
        uint32_t length = count + 1 == most || size < step ? size : step;
        parts[count++] = (struct part){iova, length, writable};
        iova += length;
        size -= length;
    }
    return count;
}

static void any_layout_carries_the_same_data(void **state)
{
    static const struct {
        uint32_t header_step, data_step;
    } layouts[] = {{16, 4096}, {1, 512}, {16, 300}, {7, 511}, {8, 1000}, {5, 4095}};

    (void)state;
    for (unsigned jumbled = 0; jumbled < 2; jumbled++) {
        open_disk(512, false, jumbled);
        driver_start(&f, F_FLUSH);
        for (uint8_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
            for (uint32_t type = OUT;; type = IN) { // written in this layout, and read back in it
                struct part parts[CORE_SIZE];
                put_header(type, 8);
                if (type == OUT)
                    fill_data(i, 4096);
                else
                    fill_data(99, 4096);
                unsigned count = cut(parts, HEADER, 16, false, layouts[i].header_step, 16);
                count += cut(parts + count, DATA, 4096, type == IN, layouts[i].data_step, 12);
                parts[count++] = (struct part){STATUS, 1, true};
                assert_int_equal(submit(parts, count), OK);
                if (type == IN)
                    break;
            }
            expect_data(i, 4096);
        }
        core_close(&f);
    }
}

// The header behind the data's first bytes in one buffer, the status behind the data in another.
static void buffers_may_be_shared(void **state)
{
    struct part write[] = {{HEADER, 16 + 512, false}, {STATUS, 1, true}};
    struct part read[] = {{HEADER, 16, false}, {DATA, 513, true}};

    (void)state;
    open_disk(512, false, false);
    driver_start(&f, 0);
    put_header(OUT, 5);
    for (uint32_t i = 0; i < 512; i++)
        guest_put(&f.guest, HEADER + 16 + i, (uint8_t)(42 + i * 11), 1);
    assert_int_equal(submit(write, 2), OK);
    put_header(IN, 5);
    guest_put(&f.guest, DATA + 512, NONE, 1);
    submit(read, 2);
    expect_data(42, 512);
    assert_int_equal(guest_get(&f.guest, DATA + 512, 1), OK);
    core_close(&f);
}

static void discarded_and_zeroed_ranges_read_as_zeroes(void **state)
{
    (void)state;
    open_disk(512, false, false);
    driver_start(&f, F_RANGES);
    for (uint32_t type = DISCARD; type <= ZEROES; type += 2) {
        fill_data(7, 8192);
        assert_int_equal(request(OUT, 0, 8192), OK);
        guest_put(&f.guest, DATA, 1, 8); // sectors 1 to 3
        guest_put(&f.guest, DATA + 8, 3, 8);
        guest_put(&f.guest, DATA + 16, 8, 8); // sectors 8 to 11
        guest_put(&f.guest, DATA + 24, 4, 8);
        assert_int_equal(request(type, 0, 32), OK);
        assert_int_equal(request(IN, 1, 1536), OK);
        expect_zeroes(1536);
        assert_int_equal(request(IN, 8, 2048), OK);
        expect_zeroes(2048);
        assert_int_equal(request(IN, 0, 512), OK);
        expect_data(7, 512);
        assert_int_equal(request(IN, 4, 2048), OK);
        expect_data((uint8_t)(7 + 2048 * 11), 2048);
    }
    core_close(&f);
}

static void what_was_not_accepted_is_not_done(void **state)
{
    (void)state;
    open_disk(512, false, false);
    driver_start(&f, F_FLUSH);
    fill_data(0, 16);
    assert_int_equal(request(DISCARD, 0, 16), UNSUPP);
    assert_int_equal(request(ZEROES, 0, 16), UNSUPP);
    core_close(&f);
}

static void the_serial_number_fits_what_there_is_room_for(void **state)
{
    static const char serial[] = "SERIAL-NUMBER-OF-20C";
    static const uint32_t sizes[] = {20, 5, 1, 64};

    (void)state;
    open_disk(512, true, true);
    driver_start(&f, 0);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        fill_data(0, 64);
        assert_int_equal(request(GET_ID, 0, sizes[i]), OK);
        for (uint32_t k = 0; k < 64; k++)
            assert_int_equal(guest_get(&f.guest, DATA + k, 1), k < sizes[i] && k < 20 ? (uint8_t)serial[k] : (uint8_t)(k * 11));
    }
    core_close(&f);
}

static void many_requests_come_back_as_a_batch(void **state)
{
    struct part parts[] = {{HEADER, 16, false}, {DATA, 512, true}, {STATUS, 1, true}};

    (void)state;
    open_disk(512, false, false);
    driver_start(&f, 0);
    put_header(IN, 0);
    for (unsigned i = 0; i < 10; i++)
        driver_offer(&f, parts, 3);
    driver_kick(&f);
    assert_int_equal(driver_used(&f), 10);
    assert_int_equal(f.interrupts, 1);
    core_close(&f);
}

// --- the configuration space ---

static uint64_t config(uint32_t offset, uint32_t size)
{
    uint8_t bytes[8] = {0};

    device->ops->config_read(device, offset, bytes, size);
    return sdc_get64(bytes);
}

static void the_configuration_says_what_the_disk_is(void **state)
{
    static const struct {
        uint32_t block_size;
        bool read_only;
        uint32_t offset, size;
        uint64_t value;
    } cases[] = {
        {512, false, 0, 8, 128},   {4096, false, 0, 8, 128},  {512, false, 12, 4, 30},     {512, false, 20, 4, 512},
        {4096, false, 20, 4, 4096}, {512, false, 24, 1, 3},   {4096, false, 24, 1, 0},     {512, false, 34, 2, 1},
        {512, false, 36, 4, 1 << 22}, {512, false, 40, 4, 16}, {512, false, 44, 4, 8},     {512, true, 36, 4, 0},
        {512, false, 48, 4, 1 << 22}, {512, false, 56, 1, 1}, {512, false, 32, 1, 1},      {512, false, 58, 2, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        open_disk(cases[i].block_size, cases[i].read_only, false);
        assert_int_equal(config(cases[i].offset, cases[i].size), cases[i].value);
        core_close(&f);
    }
}

// virtio 1.2, 5.2.5.2 and 5.2.6.2: writeback is the driver's to switch if it took CONFIG_WCE, and off if it cannot flush.
static void the_cache_is_the_drivers_to_switch(void **state)
{
    static const struct {
        uint64_t features;
        bool at_first, after_off, after_on;
    } cases[] = {
        {F_FLUSH | F_CONFIG_WCE, true, false, true},
        {F_FLUSH, true, true, true},
        {F_CONFIG_WCE, false, false, false},
        {0, false, false, false},
    };
    static const uint8_t off = 0, on = 1;

    (void)state;
    open_disk(512, false, false);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(config(32, 1), 1);
        driver_start(&f, cases[i].features);
        assert_int_equal(config(32, 1), cases[i].at_first);
        device->ops->config_write(device, 32, &off, 1);
        assert_int_equal(config(32, 1), cases[i].after_off);
        device->ops->config_write(device, 32, &on, 1);
        assert_int_equal(config(32, 1), cases[i].after_on);
        device->ops->config_write(device, 0, (uint8_t[8]){0}, 8); // the capacity is not
        assert_int_equal(config(0, 8), 128);
        sdc_virtio_core_set_status(f.core, 0);
        run_turns(&f, 2);
    }
    core_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_request_ends_with_its_status),
        cmocka_unit_test(segments_are_checked_one_by_one),
        cmocka_unit_test(segments_have_a_largest_size),
        cmocka_unit_test(odd_chains_come_back),
        cmocka_unit_test(any_layout_carries_the_same_data),
        cmocka_unit_test(buffers_may_be_shared),
        cmocka_unit_test(discarded_and_zeroed_ranges_read_as_zeroes),
        cmocka_unit_test(what_was_not_accepted_is_not_done),
        cmocka_unit_test(the_serial_number_fits_what_there_is_room_for),
        cmocka_unit_test(many_requests_come_back_as_a_batch),
        cmocka_unit_test(the_configuration_says_what_the_disk_is),
        cmocka_unit_test(the_cache_is_the_drivers_to_switch),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
