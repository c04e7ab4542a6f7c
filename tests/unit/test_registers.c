// SPDX-License-Identifier: BSD-3-Clause
// Register files, and the two structures of MSI-X: accesses of every size at every place.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "transport/common/msix.h"
#include "transport/common/registers.h"

#include <string.h>

// --- a file of registers ---

// What its registers hold, and how often each was written.
struct file {
    uint32_t a, b, c, d;
    unsigned writes[4];
};

#define REGISTER(name, index)                                   \
    static uint32_t read_##name(void *context)                  \
    {                                                           \
        return ((struct file *)context)->name;                  \
    }                                                           \
    static void write_##name(void *context, uint32_t value)     \
    {                                                           \
        ((struct file *)context)->name = value;                 \
        ((struct file *)context)->writes[index]++;              \
    }

REGISTER(a, 0)
REGISTER(b, 1)
REGISTER(c, 2)
REGISTER(d, 3)

// Offset 8 is read-only, 9 to 11 is nothing, 14 is write-only.
static const struct sdc_register table[] = {
    {0, 4, read_a, write_a}, {4, 2, read_b, write_b}, {6, 1, read_c, write_c}, {7, 1, read_d, write_d},
    {8, 1, read_c, NULL},    {14, 2, NULL, write_b},
};
enum { COUNT = sizeof table / sizeof table[0], END = 24 };

// The file as bytes, made by hand.
static void flatten(const struct file *file, uint8_t bytes[END + 8])
{
    memset(bytes, 0, END + 8);
    for (unsigned i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(file->a >> (8 * i));
    bytes[4] = (uint8_t)file->b;
    bytes[5] = (uint8_t)(file->b >> 8);
    bytes[6] = bytes[8] = (uint8_t)file->c;
    bytes[7] = (uint8_t)file->d;
}

static void reads_of_any_size_see_the_bytes_there(void **state)
{
    struct file file = {.a = 0x44332211, .b = 0x6655, .c = 0x77, .d = 0x88};
    uint8_t bytes[END + 8];

    (void)state;
    flatten(&file, bytes);
    for (uint32_t size = 1; size <= 8; size *= 2) {
        for (uint64_t offset = 0; offset < END; offset++) { // also those that are not aligned
            uint64_t value = sdc_registers_read(table, COUNT, &file, offset, size);
            for (uint32_t i = 0; i < 8; i++)
                assert_int_equal((uint8_t)(value >> (8 * i)), i < size ? bytes[offset + i] : 0);
        }
    }
}

static void a_handler_that_says_more_than_its_size_is_cut(void **state)
{
    struct file file = {.b = 0xdeadbeef, .c = 0x123};

    (void)state;
    assert_int_equal(sdc_registers_read(table, COUNT, &file, 4, 4), 0x23beef);
    assert_int_equal(sdc_registers_read(table, COUNT, &file, 4, 8), 0x2300000000 | 0x23beef);
}

static void writes_reach_whole_registers_only(void **state)
{
    (void)state;
    for (uint32_t size = 1; size <= 8; size *= 2) {
        for (uint64_t offset = 0; offset < END; offset++) {
            struct file file = {0};
            unsigned expected[4] = {0};
            uint64_t value = UINT64_C(0x8877665544332211);
            sdc_registers_write(table, COUNT, &file, offset, size, value);
            for (unsigned i = 0; i < COUNT; i++) {
                bool whole = table[i].offset >= offset && table[i].offset + table[i].size <= offset + size;
                if (whole && table[i].write)
                    expected[table[i].write == write_a ? 0 : table[i].write == write_b ? 1 : table[i].write == write_c ? 2 : 3]++;
            }
            assert_memory_equal(file.writes, expected, sizeof expected);
            if (file.writes[0])
                assert_int_equal(file.a, (uint32_t)(value >> (8 * (0 - offset))));
            if (file.writes[3])
                assert_int_equal(file.d, (uint8_t)(value >> (8 * (7 - offset))));
        }
    }
}

// --- MSI-X ---

enum { VECTORS = 3 };

static uint64_t access_table(uint8_t *bytes, uint64_t offset, uint32_t size, bool write, uint64_t value)
{
    struct sdc_pci_access access = {.offset = offset, .size = size, .write = write, .value = value};

    sdc_msix_table_access(bytes, VECTORS, &access);
    return access.value;
}

static void the_table_is_masked_at_first_and_reads_back(void **state)
{
    static struct sdc_pci_device device;
    uint8_t bytes[VECTORS * SDC_MSIX_ENTRY];

    (void)state;
    device.msix_pending[0] = 7;
    memset(bytes, 0xff, sizeof bytes);
    sdc_msix_reset(&device, bytes, VECTORS);
    assert_int_equal(device.msix_pending[0], 0);
    for (uint64_t vector = 0; vector < VECTORS; vector++) {
        assert_int_equal(access_table(bytes, vector * 16, 8, false, 0), 0);
        assert_int_equal(access_table(bytes, vector * 16 + 12, 4, false, 0), 1);
    }
    access_table(bytes, 16, 8, true, UINT64_C(0x1122334455667788));
    access_table(bytes, 28, 4, true, 0);
    assert_int_equal(access_table(bytes, 20, 4, false, 0), 0x11223344);
    assert_int_equal(access_table(bytes, 17, 1, false, 0), 0x77);
    assert_int_equal(access_table(bytes, 28, 4, false, 0), 0);
    assert_int_equal(access_table(bytes, 0, 8, false, 0), 0);
    assert_int_equal(access_table(bytes, 32, 8, false, 0), 0);
}

static void behind_the_table_there_is_nothing(void **state)
{
    uint8_t bytes[VECTORS * SDC_MSIX_ENTRY + 8];
    uint8_t before[sizeof bytes];

    (void)state;
    memset(bytes, 0x5a, sizeof bytes);
    memcpy(before, bytes, sizeof bytes);
    static const uint64_t offsets[] = {VECTORS * SDC_MSIX_ENTRY, VECTORS * SDC_MSIX_ENTRY - 4, UINT64_MAX - 7, UINT64_MAX};
    for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        assert_int_equal(access_table(bytes, offsets[i], 8, false, 99), 0);
        access_table(bytes, offsets[i], 8, true, 99);
    }
    assert_memory_equal(bytes, before, sizeof bytes);
}

static void pending_bits_read_in_every_size_and_are_read_only(void **state)
{
    static struct sdc_pci_device device;
    static const struct {
        uint64_t offset;
        uint32_t size;
        uint64_t value;
    } cases[] = {
        {0, 8, UINT64_C(0x8877665544332211)}, {0, 4, 0x44332211}, {4, 4, 0x88776655}, {2, 2, 0x4433}, {7, 1, 0x88},
        {8, 8, 1}, {8, 1, 1}, {9, 1, 0}, {248, 8, UINT64_C(1) << 63}, {255, 1, 0x80}, {256, 8, 0}, {UINT64_MAX - 7, 8, 0},
    };

    (void)state;
    device.msix_pending[0] = UINT64_C(0x8877665544332211);
    device.msix_pending[1] = 1;
    device.msix_pending[31] = UINT64_C(1) << 63;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sdc_pci_access access = {.offset = cases[i].offset, .size = cases[i].size, .write = true, .value = 0};
        sdc_msix_pba_access(&device, &access);
        access = (struct sdc_pci_access){.offset = cases[i].offset, .size = cases[i].size, .value = 99};
        sdc_msix_pba_access(&device, &access);
        assert_int_equal(access.value, cases[i].value);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_of_any_size_see_the_bytes_there),
        cmocka_unit_test(a_handler_that_says_more_than_its_size_is_cut),
        cmocka_unit_test(writes_reach_whole_registers_only),
        cmocka_unit_test(the_table_is_masked_at_first_and_reads_back),
        cmocka_unit_test(behind_the_table_there_is_nothing),
        cmocka_unit_test(pending_bits_read_in_every_size_and_are_read_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
