// SPDX-License-Identifier: BSD-3-Clause
// What sidecard inspect is made of: decoding of configuration spaces, of virtio's and NVMe's structures, names, and text.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/bytes.h"
#include "base/check.h"
#include "cli/inspect/inspect.h"
#include "cli/inspect/text.h"
#include "wire/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// --- looking into a tree ---

// "pci.bars.0.size".
static const json_t *at(const json_t *tree, const char *path)
{
    char key[64];

    while (tree && *path) {
        size_t length = strcspn(path, ".");
        snprintf(key, sizeof key, "%.*s", (int)length, path);
        tree = json_is_array(tree) ? json_array_get(tree, strtoul(key, NULL, 10)) : json_object_get(tree, key);
        path += length + (path[length] == '.');
    }
    return tree;
}

#define assert_text(tree, path, text)                          \
    do {                                                       \
        const char *is_ = json_string_value(at(tree, path));   \
        assert_non_null(is_);                                  \
        assert_string_equal(is_, text);                        \
    } while (0)
#define assert_number(tree, path, number)                                  \
    do {                                                                   \
        assert_true(json_is_integer(at(tree, path)));                      \
        assert_int_equal(json_integer_value(at(tree, path)), number);      \
    } while (0)
#define assert_flag(tree, path, set)                                       \
    do {                                                                   \
        assert_true(json_is_boolean(at(tree, path)));                      \
        assert_int_equal(json_is_true(at(tree, path)), set);               \
    } while (0)

// --- configuration spaces ---

// A function of an endpoint with everything that this has tables for, as the specifications lay it out.
static void fill(struct sdc_inspect_config *config, size_t size)
{
    static const uint8_t header[] = {
        0x86, 0x80, 0x33, 0x15, 0x06, 0x04, 0x10, 0x00, 0x03, 0x00, 0x00, 0x02, 0x10, 0x00, 0x80, 0x00, // 00
        0x00, 0x00, 0x40, 0xf7, 0x00, 0x00, 0x00, 0x00, 0x01, 0xd0, 0x00, 0x00, 0x0c, 0x00, 0x00, 0x20, // 10
        0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x3c, 0x10, 0x03, 0x00, // 20
        0x01, 0x00, 0x80, 0xf7, 0x40, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0b, 0x01, 0x00, 0x00, // 30
        0x01, 0x50, 0x23, 0xc8, 0x0b, 0x21, 0x00, 0x00,                                                 // 40: power, D3, PME
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x05, 0x70, 0x81, 0x01, 0x00, 0x00, 0xe0, 0xfe, 0x01, 0x00, 0x00, 0x00, 0x41, 0x00, 0x00, 0x00, // 50: MSI, 64 bits, masks
        0x0f, 0x00, 0x00, 0x00, 0x05, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // 60
        0x11, 0xa0, 0x04, 0xc0, 0x03, 0x20, 0x00, 0x00, 0x03, 0x30, 0x00, 0x00,                         // 70: MSI-X, on, masked
    };
    static const uint8_t express[] = {0x10, 0xe0, 0x02, 0x02, 0xc2, 0x8c, 0x00, 0x10, 0x1f, 0x28, 0x19, 0x00, 0x12, 0x5c,
                                      0x42, 0x03, 0x40, 0x00, 0x11, 0x20};

    *config = (struct sdc_inspect_config){.size = size, .bar_sizes = {0x100000, 0, 32, 0x4000}};
    memcpy(config->bytes, header, sizeof header);
    memcpy(config->bytes + 0xa0, express, sizeof express);
    memcpy(config->bytes + 0xe0, (const uint8_t[]){0x09, 0xf0, 0x06, 0xde, 0xad, 0x1b}, 6);
    memcpy(config->bytes + 0xf0, (const uint8_t[]){0x77, 0x00, 0xff, 0xff}, 4);
    if (size <= 256)
        return;
    sdc_put32(config->bytes + 0x100, 0x14020001); // error reporting, version 2
    sdc_put32(config->bytes + 0x104, 0x00100000);
    sdc_put32(config->bytes + 0x140, 0x1a010003); // serial number
    sdc_put64(config->bytes + 0x144, 0x0123456789abcdef);
    sdc_put32(config->bytes + 0x1a0, 0xffc1feed); // a number without a name, then at the last place
    sdc_put32(config->bytes + 0xffc, 0x0001000b); // vendor specific, cut off behind its head
}

static json_t *decode(const struct sdc_inspect_config *config, json_t *problems)
{
    struct sdc_inspect_ids none = {0};
    json_t *pci = json_object();

    sdc_inspect_pci(pci, config, &none, problems);
    return pci;
}

static void a_header_is_decoded(void **state)
{
    struct sdc_inspect_config config;
    json_t *problems = json_array();

    (void)state;
    fill(&config, 256);
    json_t *pci = decode(&config, problems);
    assert_int_equal(json_array_size(problems), 0);
    assert_text(pci, "vendor.id", "0x8086");
    assert_null(at(pci, "vendor.name"));
    assert_text(pci, "device.id", "0x1533");
    assert_text(pci, "subsystem_vendor.id", "0x103c");
    assert_text(pci, "subsystem.id", "0x0003");
    assert_text(pci, "class.id", "0x020000");
    assert_text(pci, "class.name", "Ethernet controller");
    assert_text(pci, "revision", "0x03");
    assert_flag(pci, "multifunction", true);
    assert_flag(pci, "command.io", false);
    assert_flag(pci, "command.memory", true);
    assert_flag(pci, "command.bus_master", true);
    assert_flag(pci, "command.intx_disable", true);
    assert_flag(pci, "status.capabilities", true);
    assert_text(pci, "status.devsel", "fast");
    assert_number(pci, "cache_line_size", 64);
    assert_text(pci, "interrupt.pin", "A");
    assert_number(pci, "interrupt.line", 11);
    assert_text(pci, "rom.address", "0xf7800000");
    assert_flag(pci, "rom.enabled", true);
    json_decref(pci);
    json_decref(problems);
}

static void bars_are_decoded(void **state)
{
    struct sdc_inspect_config config;
    json_t *problems = json_array();

    (void)state;
    fill(&config, 256);
    json_t *pci = decode(&config, problems);
    assert_int_equal(json_array_size(at(pci, "bars")), 3);
    assert_number(pci, "bars.0.index", 0);
    assert_text(pci, "bars.0.address", "0xf7400000");
    assert_number(pci, "bars.0.size", 0x100000);
    assert_text(pci, "bars.1.kind", "io");
    assert_text(pci, "bars.1.address", "0x0000d000");
    assert_number(pci, "bars.2.bits", 64);
    assert_flag(pci, "bars.2.prefetchable", true);
    assert_text(pci, "bars.2.address", "0x0000000120000000");
    json_decref(pci);
    json_decref(problems);
}

static void capabilities_are_decoded(void **state)
{
    struct sdc_inspect_config config;
    json_t *problems = json_array();

    (void)state;
    fill(&config, 256);
    json_t *pci = decode(&config, problems), *list = json_object_get(pci, "capabilities");
    assert_int_equal(json_array_size(list), 6);
    assert_text(list, "0.name", "power management");
    assert_number(list, "0.version", 3);
    assert_text(list, "0.state", "D3");
    assert_flag(list, "0.pme_from.d3cold", true);
    assert_flag(list, "0.pme_from.d2", false);
    assert_flag(list, "0.pme_enabled", true);
    assert_text(list, "1.name", "MSI");
    assert_number(list, "1.vectors", 1);
    assert_text(list, "1.address", "0x00000001fee00000");
    assert_text(list, "1.data", "0x0041");
    assert_text(list, "1.masked", "0x0000000f");
    assert_text(list, "1.pending", "0x00000005");
    assert_text(list, "2.offset", "0x70");
    assert_number(list, "2.vectors", 5);
    assert_flag(list, "2.enabled", true);
    assert_flag(list, "2.masked", true);
    assert_number(list, "2.table.bar", 3);
    assert_text(list, "2.table.offset", "0x2000");
    assert_text(list, "2.pending.offset", "0x3000");
    assert_text(list, "3.type", "endpoint");
    assert_number(list, "3.interrupt_message", 1);
    assert_number(list, "3.can.max_payload", 512);
    assert_number(list, "3.control.max_read_request", 512);
    assert_flag(list, "3.control.relaxed_ordering", true);
    assert_text(list, "3.link.speed", "2.5 GT/s");
    assert_number(list, "3.link.port", 3);
    assert_text(list, "4.bytes", "de ad 1b");
    assert_text(list, "5.id", "0x77");
    assert_null(at(list, "5.name"));
    json_decref(pci);
    json_decref(problems);
}

static void extended_capabilities_are_decoded(void **state)
{
    struct sdc_inspect_config config;
    json_t *problems = json_array();

    (void)state;
    fill(&config, 4096);
    json_t *pci = decode(&config, problems), *list = json_object_get(pci, "extended_capabilities");
    assert_int_equal(json_array_size(problems), 0);
    assert_int_equal(json_array_size(list), 4);
    assert_text(list, "0.offset", "0x100");
    assert_number(list, "0.version", 2);
    assert_text(list, "0.uncorrectable.status", "0x00100000");
    assert_text(list, "1.serial", "0x0123456789abcdef");
    assert_text(list, "2.id", "0xfeed");
    assert_text(list, "3.offset", "0xffc");
    assert_null(at(list, "3.vendor_id")); // it would be outside
    json_decref(pci);
    json_decref(problems);
}

// The function whose list of capabilities begins at `first` and goes from each place to the next one's.
struct step {
    uint16_t place;
    uint16_t next;
};

static void check_list(const struct step *steps, size_t count, size_t found, const char *problem)
{
    struct sdc_inspect_config config = {.size = 256, .bytes = {0xf4, 0x1a, 0x41, 0x10}};
    json_t *problems = json_array();

    config.bytes[6] = 0x10;
    config.bytes[0x34] = (uint8_t)steps[0].next;
    for (size_t i = 1; i < count; i++) {
        config.bytes[steps[i].place] = 0x09;
        config.bytes[steps[i].place + 1] = (uint8_t)steps[i].next;
    }
    json_t *pci = decode(&config, problems);
    assert_int_equal(json_array_size(at(pci, "capabilities")), found);
    assert_int_equal(json_array_size(problems), problem != NULL);
    if (problem)
        assert_non_null(strstr(json_string_value(json_array_get(problems, 0)), problem));
    json_decref(pci);
    json_decref(problems);
}

#define CHECK_LIST(found, problem, ...)                                                     \
    do {                                                                                    \
        static const struct step steps_[] = {__VA_ARGS__};                                  \
        check_list(steps_, SDC_COUNT(steps_), found, problem);                              \
    } while (0)

static void broken_lists_end(void **state)
{
    (void)state;
    CHECK_LIST(0, NULL, {0, 0});
    CHECK_LIST(1, "0x40, where it has been", {0, 0x40}, {0x40, 0x40});
    CHECK_LIST(3, "0x50, where it has been", {0, 0x40}, {0x40, 0x50}, {0x50, 0x60}, {0x60, 0x50});
    CHECK_LIST(0, "0x04, into the header", {0, 0x04});
    CHECK_LIST(1, "0x3c, into the header", {0, 0x40}, {0x40, 0x3c});
    CHECK_LIST(2, NULL, {0, 0x43}, {0x40, 0xff}, {0xfc, 0}); // the lowest two bits are reserved
}

static void broken_extended_lists_end(void **state)
{
    struct sdc_inspect_config config;
    static const struct {
        uint32_t head;
        size_t found;
        const char *problem;
    } cases[] = {
        {0, 0, NULL},
        {UINT32_MAX, 0, NULL},
        {0x00010003, 1, NULL},
        {0x10010003, 1, "0x100, where it has been"},
        {0x0c010003, 1, "0xc0, among the standard ones"},
        {0x80010003, 1, "0x800, where there is none"},
    };

    (void)state;
    for (size_t i = 0; i < SDC_COUNT(cases); i++) {
        json_t *problems = json_array();
        fill(&config, 4096);
        memset(config.bytes + 256, 0, 4096 - 256);
        sdc_put32(config.bytes + 256, cases[i].head);
        json_t *pci = decode(&config, problems);
        assert_int_equal(json_array_size(at(pci, "extended_capabilities")), cases[i].found);
        assert_int_equal(json_array_size(problems), cases[i].problem != NULL);
        if (cases[i].problem)
            assert_non_null(strstr(json_string_value(json_array_get(problems, 0)), cases[i].problem));
        json_decref(pci);
        json_decref(problems);
    }
}

static void a_space_that_is_cut_off_is_decoded_as_far_as_it_goes(void **state)
{
    struct sdc_inspect_config config;

    (void)state;
    for (size_t size = 0; size <= 4096; size = size < 260 ? size + 4 : size + 148) {
        fill(&config, 4096);
        config.size = size;
        memset(config.bytes + size, 0xff, sizeof config.bytes - size);
        json_t *problems = json_array(), *pci = decode(&config, problems);
        assert_int_equal(json_object_size(pci) == 0, size < 64);
        assert_int_equal(json_array_size(at(pci, "capabilities")), size < 0x40 + 2   ? 0
                                                                   : size < 0x50 + 2 ? 1
                                                                   : size < 0x70 + 2 ? 2
                                                                   : size < 0xa0 + 2 ? 3
                                                                   : size < 0xe0 + 2 ? 4
                                                                   : size < 0xf0 + 2 ? 5
                                                                                     : 6);
        json_decref(pci);
        json_decref(problems);
    }
}

static void an_absent_function_is_said_to_be_absent(void **state)
{
    struct sdc_inspect_config config = {.size = 256};
    json_t *problems = json_array();

    (void)state;
    memset(config.bytes, 0xff, sizeof config.bytes);
    json_t *pci = decode(&config, problems);
    assert_int_equal(json_object_size(pci), 0);
    assert_non_null(strstr(json_string_value(json_array_get(problems, 0)), "absent"));
    json_decref(pci);
    json_decref(problems);
}

// --- names ---

static const char ids_text[] = "# a comment\n"
                               "8086  Intel Corporation\n"
                               "\t1533  I210 Gigabit Network Connection\n"
                               "\t\t103c 0003  Ethernet I210-T1 GbE NIC\n"
                               "\t1534  Another\n"
                               "\t\t103c 0004  Not of 1533\n"
                               "8087  Next vendor\n"
                               "\t1535  Of the next vendor\n"
                               "C 02  Network controller\n"
                               "\t00  Ethernet controller\n"
                               "C 01  Mass storage controller\n"
                               "\t08  Non-Volatile memory controller\n"
                               "\t\t02  NVM Express\n"
                               "1af4  Cut of";

static void names_come_from_pci_ids(void **state)
{
    struct sdc_inspect_ids ids = {(char *)(uintptr_t)ids_text, sizeof ids_text - 1};
    char name[SDC_INSPECT_NAME];

    (void)state;
    assert_string_equal(sdc_inspect_vendor_name(&ids, 0x8086, name), "Intel Corporation");
    assert_string_equal(sdc_inspect_vendor_name(&ids, 0x8085, name), "");
    assert_string_equal(sdc_inspect_vendor_name(&ids, 0x1af4, name), "Cut of");
    assert_string_equal(sdc_inspect_device_name(&ids, 0x8086, 0x1533, name), "I210 Gigabit Network Connection");
    assert_string_equal(sdc_inspect_device_name(&ids, 0x8086, 0x1535, name), "");
    assert_string_equal(sdc_inspect_device_name(&ids, 0x1af4, 0x1042, name), "virtio block device");
    assert_string_equal(sdc_inspect_subsystem_name(&ids, 0x8086, 0x1533, 0x103c, 3, name), "Ethernet I210-T1 GbE NIC");
    assert_string_equal(sdc_inspect_subsystem_name(&ids, 0x8086, 0x1533, 0x103c, 4, name), "");
    assert_string_equal(sdc_inspect_class_name(&ids, 0x020000, name), "Ethernet controller");
    assert_string_equal(sdc_inspect_class_name(&ids, 0x010802, name), "Non-Volatile memory controller, NVM Express");
    assert_string_equal(sdc_inspect_class_name(&ids, 0x0108ff, name), "Non-Volatile memory controller");
    assert_string_equal(sdc_inspect_class_name(&ids, 0x01ffff, name), "Mass storage controller");
    assert_string_equal(sdc_inspect_class_name(&ids, 0x778899, name), "");
}

static void messages_have_their_names_or_their_numbers(void **state)
{
    char name[SDC_NAME_SIZE];

    (void)state;
    assert_string_equal(sdc_vfu_command_name(4, name), "DEVICE_GET_INFO");
    assert_string_equal(sdc_vfu_command_name(65535, name), "command 65535");
    assert_string_equal(sdc_vhost_request_name(43, name), "CHECK_DEVICE_STATE");
    assert_string_equal(sdc_vhost_request_name(0, name), "request 0");
    assert_string_equal(sdc_vhost_request_name(UINT32_MAX, name), "request 4294967295");
}

static void bits_have_the_names_of_their_device(void **state)
{
    (void)state;
    assert_string_equal(sdc_virtio_feature_name(2, 2), "SEG_MAX");
    assert_string_equal(sdc_virtio_feature_name(1, 5), "MAC");
    assert_string_equal(sdc_virtio_feature_name(1, 63), "SPEED_DUPLEX");
    assert_string_equal(sdc_virtio_feature_name(0, 34), "RING_PACKED");
    assert_null(sdc_virtio_feature_name(0, 2));
    assert_null(sdc_virtio_feature_name(999, 2));
    assert_null(sdc_virtio_feature_name(2, 64));
    assert_string_equal(sdc_vhost_feature_name(2, 26), "LOG_ALL");
    assert_string_equal(sdc_vhost_feature_name(2, 30), "PROTOCOL_FEATURES");
    assert_null(sdc_vhost_feature_name(2, 200));
    assert_string_equal(sdc_vhost_protocol_feature_name(0, 16), "STATUS");
    assert_null(sdc_vhost_protocol_feature_name(0, 63));
    assert_int_equal(sdc_virtio_device_number("fs"), 26);
    assert_int_equal(sdc_virtio_device_number("disk"), 0);
    assert_string_equal(sdc_vfu_region_name(7), "config");
    assert_null(sdc_vfu_region_name(9));
    assert_null(sdc_vfu_irq_name(5));
    assert_null(sdc_vfu_feature_name(70000));
}

// --- virtio ---

static void configurations_are_decoded_as_far_as_their_features_say(void **state)
{
    uint8_t bytes[96] = {0};
    json_t *object = json_object();

    (void)state;
    sdc_put64(bytes, 2048);
    sdc_put32(bytes + 12, 126);
    sdc_put32(bytes + 20, 4096);
    bytes[32] = 1;
    sdc_inspect_virtio_config_put(object, 2, 1 << 6 | 1 << 11, bytes, sizeof bytes, false);
    assert_number(object, "config.capacity_size", 1 << 20);
    assert_number(object, "config.blk_size", 4096);
    assert_flag(object, "config.writeback", true);
    assert_null(at(object, "config.seg_max"));
    assert_null(at(object, "config_bytes"));
    json_object_clear(object);
    sdc_inspect_virtio_config_put(object, 2, UINT64_MAX, bytes, 22, true);
    assert_number(object, "config.seg_max", 126);
    assert_null(at(object, "config.blk_size")); // cut off
    assert_non_null(at(object, "config_bytes"));
    json_object_clear(object);
    sdc_inspect_virtio_config_put(object, 0, 0, bytes, 4, false);
    assert_null(at(object, "config"));
    assert_text(object, "config_bytes", "00 08 00 00");
    json_object_clear(object);
    sdc_inspect_virtio_config_put(object, 0, 0, (const uint8_t[64]){0}, 64, false);
    assert_int_equal(json_object_size(object), 0);
    sdc_inspect_virtio_config_put(object, 26, 0, (const uint8_t *)"my\033[2Jfs\0............................\2\0\0\0", 40, false);
    assert_text(object, "config.tag", "my?[2Jfs");
    json_decref(object);
}

static void a_back_ends_device_is_guessed_only_by_what_is_its_own(void **state)
{
    uint8_t bytes[256] = {0};

    (void)state;
    assert_int_equal(sdc_inspect_virtio_guess(0, bytes, 0), 0);
    assert_int_equal(sdc_inspect_virtio_guess(UINT64_C(1) << 32, bytes, sizeof bytes), 0);
    sdc_put32(bytes + 20, 512);
    assert_int_equal(sdc_inspect_virtio_guess(1 << 6, bytes, 60), 2);
    assert_int_equal(sdc_inspect_virtio_guess(0, bytes, 60), 0);
    sdc_put32(bytes + 20, 96);
    sdc_put32(bytes + 24, 32);
    sdc_put32(bytes, 4);
    assert_int_equal(sdc_inspect_virtio_guess(0, bytes, 36), 8);
    memset(bytes, 0, sizeof bytes);
    memcpy(bytes, "myfs", 4);
    sdc_put32(bytes + 36, 1);
    assert_int_equal(sdc_inspect_virtio_guess(0, bytes, 44), 26);
    assert_int_equal(sdc_inspect_virtio_guess(1 << 22, bytes, 0), 1);
    assert_int_equal(sdc_inspect_virtio_guess(UINT64_C(0x15c000007), NULL, 0), 0); // a SCSI host without a configuration
}

// --- NVMe ---

static void registers_of_a_controller_are_decoded(void **state)
{
    uint8_t bytes[0x40] = {0};
    json_t *nvme = json_object();

    (void)state;
    sdc_put64(bytes, UINT64_C(0x0240002028010fff));
    sdc_put32(bytes + 8, 0x00010400);
    sdc_put32(bytes + 0x14, 0x00460001);
    sdc_put32(bytes + 0x1c, 1);
    sdc_put32(bytes + 0x24, 0x001f001f);
    sdc_put64(bytes + 0x28, 0x100000);
    sdc_inspect_nvme_registers_put(nvme, bytes, sizeof bytes);
    assert_text(nvme, "version", "1.4.0");
    assert_number(nvme, "capabilities.queue_entries_max", 4096);
    assert_number(nvme, "capabilities.timeout_ms", 20000);
    assert_number(nvme, "capabilities.doorbell_stride", 4);
    assert_number(nvme, "capabilities.largest_page_size", 65536);
    assert_flag(nvme, "capabilities.nvm_command_set", true);
    assert_flag(nvme, "capabilities.controller_memory", true);
    assert_flag(nvme, "config.enabled", true);
    assert_number(nvme, "config.submission_entry_size", 64);
    assert_number(nvme, "config.completion_entry_size", 16);
    assert_flag(nvme, "status.ready", true);
    assert_number(nvme, "admin_queue.submission_entries", 32);
    assert_text(nvme, "admin_queue.submission_address", "0x0000000000100000");
    json_decref(nvme);
}

static void what_identify_says_is_decoded(void **state)
{
    uint8_t bytes[4096] = {0};
    json_t *object = json_object();

    (void)state;
    memcpy(bytes + 4, "  SERIAL\033]0;x\7      ", 20);
    memset(bytes + 24, ' ', 40);
    memcpy(bytes + 24, "Model", 5);
    bytes[77] = 5;
    sdc_put32(bytes + 80, 0x00020000);
    sdc_put32(bytes + 516, 256);
    bytes[525] = 1;
    sdc_inspect_nvme_controller_put(object, bytes);
    assert_text(object, "serial", "SERIAL?]0;x?");
    assert_text(object, "model", "Model");
    assert_text(object, "version", "2.0.0");
    assert_number(object, "transfer_max_pages", 32);
    assert_number(object, "namespaces_max", 256);
    assert_flag(object, "write_cache", true);
    json_object_clear(object);
    memset(bytes, 0xff, sizeof bytes);
    sdc_inspect_nvme_namespace_put(object, bytes);
    assert_null(at(object, "block_size")); // 2 to the power of 255
    assert_number(object, "blocks", INT64_MAX);
    json_object_clear(object);
    memset(bytes, 0, sizeof bytes);
    sdc_put64(bytes, 1000);
    bytes[26] = 1;
    sdc_put32(bytes + 128 + 4, 12 << 16 | 8);
    sdc_inspect_nvme_namespace_put(object, bytes);
    assert_number(object, "block_size", 4096);
    assert_number(object, "metadata_size", 8);
    assert_number(object, "size", 4096000);
    json_decref(object);
}

static void lists_of_descriptors_end(void **state)
{
    uint8_t bytes[4096];
    json_t *object = json_object();

    (void)state;
    memset(bytes, 0xff, sizeof bytes);
    sdc_inspect_nvme_descriptors_put(object, bytes);
    memset(bytes, 1, sizeof bytes); // of one byte each, to the end
    sdc_inspect_nvme_descriptors_put(object, bytes);
    assert_int_equal(json_object_size(object), 0);
    memset(bytes, 0, sizeof bytes);
    memcpy(bytes, (const uint8_t[]){1, 8, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 3, 16, 0, 0, 0xab}, 17);
    sdc_inspect_nvme_descriptors_put(object, bytes);
    assert_text(object, "uuid", "ab000000000000000000000000000000");
    bytes[13] = 0; // no length: it has no end
    json_object_clear(object);
    sdc_inspect_nvme_descriptors_put(object, bytes);
    assert_int_equal(json_object_size(object), 0);
    json_decref(object);
}

// --- text ---

static void the_text_has_what_the_tree_has(void **state)
{
    char *text = NULL;
    size_t size;
    json_t *root = json_pack("{s:i, s:s, s:s, s:{s:[s,s], s:i, s:{s:s, s:s}, s:{s:b, s:b}}, s:[{s:i, s:i}, {s:i, s:i}], s:[], s:[s], s:s}",
                             "format", 1, "socket", "a.sock", "protocol", "vfio-user", "device", "flags", "reset", "pci", "some_size",
                             2048, "vendor", "id", "0x1af4", "name", "Red Hat", "command", "io", 1, "bus_master", 0, "rows", "index", 0,
                             "size", 7, "index", 1, "size", 123456, "features", "problems", "it is broken", "config_space", "f41a4210");
    FILE *to = open_memstream(&text, &size);

    (void)state;
    assert_non_null(root);
    sdc_inspect_print_text(to, root);
    fclose(to);
    assert_string_equal(text, "a.sock: vfio-user\n"
                              "\n"
                              "device:\n"
                              "  flags      reset pci\n"
                              "  some size  2048 (2.0 KiB)\n"
                              "  vendor     0x1af4 Red Hat\n"
                              "  command    io+ bus_master-\n"
                              "\n"
                              "rows:\n"
                              "  index  size\n"
                              "  0      7\n"
                              "  1      123456 (120.5 KiB)\n"
                              "\n"
                              "problems:\n"
                              "  it is broken\n"
                              "\n"
                              "00:00.0 PCI function: \n"
                              "00: f4 1a 42 10\n");
    free(text);
    json_decref(root);
}

static void long_lines_are_broken_between_words(void **state)
{
    char *text = NULL;
    size_t size, longest = 0;
    char word[300];
    memset(word, 'x', sizeof word - 1);
    word[sizeof word - 1] = '\0';
    json_t *root = json_pack("{s:s, s:s, s:{}}", "socket", "a.sock", "protocol", "vfio-user", "virtio");
    json_t *list = sdc_tree_array(json_object_get(root, "virtio"), "features");
    FILE *to = open_memstream(&text, &size);

    (void)state;
    for (unsigned i = 0; i < 100; i++)
        json_array_append_new(list, json_sprintf("FEATURE_%u", i));
    sdc_tree_put_string(json_object_get(root, "virtio"), "a_word_without_end", word);
    sdc_inspect_print_text(to, root);
    fclose(to);
    for (const char *line = text; *line; line += strcspn(line, "\n") + 1)
        longest = sdc_max(longest, strcspn(line, "\n"));
    assert_in_range(longest, 90, 110);
    assert_non_null(strstr(text, " FEATURE_99\n"));
    free(text);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_header_is_decoded),
        cmocka_unit_test(bars_are_decoded),
        cmocka_unit_test(capabilities_are_decoded),
        cmocka_unit_test(extended_capabilities_are_decoded),
        cmocka_unit_test(broken_lists_end),
        cmocka_unit_test(broken_extended_lists_end),
        cmocka_unit_test(a_space_that_is_cut_off_is_decoded_as_far_as_it_goes),
        cmocka_unit_test(an_absent_function_is_said_to_be_absent),
        cmocka_unit_test(names_come_from_pci_ids),
        cmocka_unit_test(messages_have_their_names_or_their_numbers),
        cmocka_unit_test(bits_have_the_names_of_their_device),
        cmocka_unit_test(configurations_are_decoded_as_far_as_their_features_say),
        cmocka_unit_test(a_back_ends_device_is_guessed_only_by_what_is_its_own),
        cmocka_unit_test(registers_of_a_controller_are_decoded),
        cmocka_unit_test(what_identify_says_is_decoded),
        cmocka_unit_test(lists_of_descriptors_end),
        cmocka_unit_test(the_text_has_what_the_tree_has),
        cmocka_unit_test(long_lines_are_broken_between_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
