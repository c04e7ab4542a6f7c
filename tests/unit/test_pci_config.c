// SPDX-License-Identifier: BSD-3-Clause
// The PCI configuration space: sizing BARs, what a driver may change, the list of capabilities, function-level reset.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/bytes.h"
#include "transport/common/pci_config.h"

#include <errno.h>

static struct {
    uint32_t read_offset, read_size, written_offset, written_size;
    int read_rc;
} heard;

static int hear_read(struct sdc_pci_device *device, uint32_t offset, uint32_t size)
{
    (void)device;
    heard.read_offset = offset;
    heard.read_size = size;
    return heard.read_rc;
}

static void hear_written(struct sdc_pci_device *device, uint32_t offset, uint32_t size)
{
    (void)device;
    heard.written_offset = offset;
    heard.written_size = size;
}

static const struct sdc_pci_ops ops = {.name = "test", .config_read = hear_read, .config_written = hear_written};

enum { VECTORS = 5 };

static struct sdc_pci_device device;
static uint32_t msix, pm, express, vendor;

static int set_up(void **state)
{
    struct sdc_pci_identity identity = {.vendor = 0x1af4, .device = 0x1042, .subsystem_vendor = 0x1111, .subsystem = 0x2222,
                                        .revision = 3, .class_code = 0x010802, .intx = true};

    (void)state;
    device = (struct sdc_pci_device){.ops = &ops};
    device.bars[0] = (struct sdc_pci_bar){.size = 16};
    device.bars[1] = (struct sdc_pci_bar){.size = 0x1000};
    device.bars[2] = (struct sdc_pci_bar){.size = UINT64_C(0x200000000), .is_64bit = true, .prefetchable = true};
    device.bars[4] = (struct sdc_pci_bar){.size = 0x4000, .is_64bit = true};
    sdc_pci_config_init(&device, &identity);
    msix = sdc_pci_config_add_msix(&device, VECTORS, 1, 2);
    pm = sdc_pci_config_add(&device, 0x55, 4); // an odd neighbour
    pm = (sdc_pci_config_add_pm(&device), pm + 4);
    express = pm + 8;
    sdc_pci_config_add_express(&device);
    vendor = sdc_pci_config_add(&device, SDC_PCI_CAP_VENDOR, 20);
    sdc_pci_config_seal(&device);
    heard.read_rc = 0;
    return 0;
}

static uint32_t get(uint32_t offset, uint32_t size)
{
    uint8_t bytes[4] = {0};

    assert_int_equal(sdc_pci_config_read(&device, offset, bytes, size), 0);
    return sdc_get32(bytes);
}

static bool put(uint32_t offset, uint32_t value, uint32_t size)
{
    uint8_t bytes[4];

    sdc_put32(bytes, value);
    return sdc_pci_config_write(&device, offset, bytes, size);
}

static void the_header_says_who_it_is(void **state)
{
    static const struct {
        uint32_t offset, size, value;
    } cases[] = {
        {0x00, 4, 0x10421af4}, {0x08, 4, 0x01080203}, {0x0e, 1, 0}, {0x2c, 4, 0x22221111}, {0x34, 1, 0x40}, {0x3d, 1, 1},
        {0x04, 2, 0}, {0x06, 2, 0x10},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(get(cases[i].offset, cases[i].size), cases[i].value);
}

static void bars_tell_their_size(void **state)
{
    static const uint32_t sized[6] = {0xfffffff0, 0xfffff000, 0x0000000c, 0xfffffffe, 0xffffc004, 0xffffffff};
    static const uint32_t empty[6] = {0, 0, 12, 0, 4, 0};

    (void)state;
    for (uint32_t i = 0; i < 6; i++) {
        assert_int_equal(get(0x10 + 4 * i, 4), empty[i]);
        put(0x10 + 4 * i, 0xffffffff, 4);
        assert_int_equal(get(0x10 + 4 * i, 4), sized[i]);
        put(0x10 + 4 * i, 0xfebc1234, 4);
        assert_int_equal(get(0x10 + 4 * i, 4), (0xfebc1234 & sized[i] & ~0xfU) | (i % 2 ? 0xfebc1234 & sized[i] & 0xf : empty[i]));
    }
}

// One byte at a time changes as much as all at once.
static void only_what_is_writable_changes(void **state)
{
    uint8_t ones[SDC_PCI_CONFIG_SIZE], bytes[SDC_PCI_CONFIG_SIZE];

    (void)state;
    memset(ones, 0xff, sizeof ones);
    sdc_pci_config_write(&device, 0, ones, sizeof ones);
    assert_int_equal(sdc_pci_config_read(&device, 0, bytes, sizeof bytes), 0);
    for (unsigned i = 0; i < SDC_PCI_CONFIG_SIZE; i++)
        assert_int_equal(bytes[i], i < SDC_PCI_CONFIG_KEPT ? device.config_reset[i] | device.config_mask[i] : 0);
    sdc_pci_config_reset(&device);
    for (uint32_t i = 0; i < SDC_PCI_CONFIG_SIZE; i++)
        put(i, 0xff, 1);
    assert_memory_equal(bytes, device.config, SDC_PCI_CONFIG_KEPT);
    // Across the end of what is kept, and behind it.
    assert_int_equal(get(SDC_PCI_CONFIG_KEPT - 2, 4) >> 16, 0);
    assert_int_equal(get(SDC_PCI_CONFIG_SIZE - 4, 4), 0);

    assert_int_equal(get(0x00, 4), 0x10421af4);
    assert_int_equal(get(0x04, 2), 0x0547);
    assert_int_equal(get(0x3c, 2), 0x01ff);
    assert_int_equal(get(msix, 4), 0xc0000011 | (VECTORS - 1) << 16 | get(msix + 1, 1) << 8);
    assert_int_equal(get(vendor + 2, 2), 0);
}

static void capabilities_follow_one_another(void **state)
{
    static const uint8_t ids[] = {0x11, 0x55, 0x01, 0x10, 0x09};
    uint32_t at = get(0x34, 1);

    (void)state;
    for (size_t i = 0; i < sizeof ids; i++) {
        assert_true(at >= 0x40 && at % 4 == 0);
        assert_int_equal(get(at, 1), ids[i]);
        at = get(at + 1, 1);
    }
    assert_int_equal(at, 0);
    assert_int_equal(get(msix + 2, 2), VECTORS - 1);
    assert_int_equal(get(msix + 4, 4), 1);
    assert_int_equal(get(msix + 8, 4), 2);
    assert_int_equal(get(express + 4, 4) & 1U << 28, 1U << 28); // FLR
}

static void a_function_level_reset_is_heard(void **state)
{
    static const struct {
        uint32_t offset, value, size; // offset from the capability's
        bool reset;
    } cases[] = {
        {8, 0x8000, 2, true},     {9, 0x80, 1, true},   {8, 0x7fff, 2, false}, {8, 0x8080, 1, false},
        {4, 0xffffffff, 4, false}, {8, 0x12348000, 4, true}, {10, 0x8000, 2, false},
    };
    uint8_t everything[SDC_PCI_CONFIG_SIZE] = {0};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(put(express + cases[i].offset, cases[i].value, cases[i].size), cases[i].reset);
        assert_int_equal(get(express + 9, 1) & 0x80, 0); // reads as zero
    }
    assert_false(sdc_pci_config_write(&device, 0, everything, sizeof everything));
    everything[express + 9] = 0x80;
    assert_true(sdc_pci_config_write(&device, 0, everything, sizeof everything));
    assert_true(sdc_pci_config_write(&device, express + 9, everything + express + 9, sizeof everything - express - 9));
}

static void a_reset_brings_back_what_was_sealed(void **state)
{
    (void)state;
    put(0x04, 7, 2);
    put(0x14, 0xfe000000, 4);
    put(msix + 2, 0x8000, 2);
    put(pm + 4, 3, 2);
    assert_int_equal(get(pm + 4, 2), 3 | 1 << 3);
    sdc_pci_config_reset(&device);
    assert_memory_equal(device.config, device.config_reset, sizeof device.config);
    assert_int_equal(get(0x04, 2), 0);
}

static void the_device_hears_of_accesses(void **state)
{
    uint32_t value;

    (void)state;
    put(0x3c, 9, 1);
    assert_int_equal(heard.written_offset, 0x3c);
    assert_int_equal(heard.written_size, 1);
    get(0xfff, 1);
    assert_int_equal(heard.read_offset, 0xfff);
    heard.read_rc = -EAGAIN;
    assert_int_equal(sdc_pci_config_read(&device, 0, &value, 4), -EAGAIN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_header_says_who_it_is, set_up),
        cmocka_unit_test_setup(bars_tell_their_size, set_up),
        cmocka_unit_test_setup(only_what_is_writable_changes, set_up),
        cmocka_unit_test_setup(capabilities_follow_one_another, set_up),
        cmocka_unit_test_setup(a_function_level_reset_is_heard, set_up),
        cmocka_unit_test_setup(a_reset_brings_back_what_was_sealed, set_up),
        cmocka_unit_test_setup(the_device_hears_of_accesses, set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
