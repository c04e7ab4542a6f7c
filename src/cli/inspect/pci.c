// SPDX-License-Identifier: BSD-3-Clause
// The configuration header (PCI Local Bus 3.0, 6.1 and 6.2) and the walk over both lists of capabilities (6.7; PCI Express Base 5.0,
// 7.6).
#include "cli/inspect/pci.h"

#include "base/bytes.h"
#include "base/check.h"

#include <inttypes.h>
#include <stdio.h>

enum {
    VENDOR = 0x00,
    DEVICE = 0x02,
    STATUS = 0x06,
    STATUS_CAPABILITIES = 1 << 4,
    CLASS = 0x08, // with the revision below it
    HEADER_TYPE = 0x0e,
    BAR0 = 0x10,
    SUBSYSTEM_VENDOR = 0x2c,
    SUBSYSTEM = 0x2e,
    ROM = 0x30,
    CARDBUS_CAPABILITIES = 0x14,
    CAPABILITIES = 0x34,
    HEADER_BYTES = 0x40,
    STANDARD_BYTES = 0x100,
    CAP_EXPRESS = 0x10,
    CAP_PCIX = 0x07,
};

// --- the header ---

static const char *const devsel[] = {"fast", "medium", "slow", NULL};
static const char *const pins[] = {"none", "A", "B", "C", "D", NULL};

#define FLAG(name, offset, bit) {name, offset, 2, bit, 1, SDC_FIELD_FLAG, 0, NULL}

static const struct sdc_field common_fields[] = {
    {"revision", 0x08, 1, 0, 0, SDC_FIELD_HEX, 0, NULL},
    {"header_type", HEADER_TYPE, 1, 0, 7, SDC_FIELD_NUMBER, 0, NULL},
    {"multifunction", HEADER_TYPE, 1, 7, 1, SDC_FIELD_FLAG, 0, NULL},
    FLAG("command.io", 0x04, 0),
    FLAG("command.memory", 0x04, 1),
    FLAG("command.bus_master", 0x04, 2),
    FLAG("command.special_cycles", 0x04, 3),
    FLAG("command.write_invalidate", 0x04, 4),
    FLAG("command.vga_snoop", 0x04, 5),
    FLAG("command.parity_error", 0x04, 6),
    FLAG("command.stepping", 0x04, 7),
    FLAG("command.serr", 0x04, 8),
    FLAG("command.fast_back_to_back", 0x04, 9),
    FLAG("command.intx_disable", 0x04, 10),
    FLAG("status.intx", STATUS, 3),
    FLAG("status.capabilities", STATUS, 4),
    FLAG("status.66mhz", STATUS, 5),
    FLAG("status.fast_back_to_back", STATUS, 7),
    FLAG("status.master_parity_error", STATUS, 8),
    {"status.devsel", STATUS, 2, 9, 2, SDC_FIELD_WORD, 0, devsel},
    FLAG("status.signaled_target_abort", STATUS, 11),
    FLAG("status.received_target_abort", STATUS, 12),
    FLAG("status.received_master_abort", STATUS, 13),
    FLAG("status.signaled_serr", STATUS, 14),
    FLAG("status.detected_parity_error", STATUS, 15),
    {"cache_line_size", 0x0c, 1, 0, 0, SDC_FIELD_NUMBER, 4, NULL},
    {"latency_timer", 0x0d, 1, 0, 0, SDC_FIELD_NUMBER, 0, NULL},
    {"interrupt.pin", 0x3d, 1, 0, 0, SDC_FIELD_WORD, 0, pins},
    {"interrupt.line", 0x3c, 1, 0, 0, SDC_FIELD_NUMBER, 0, NULL},
};

// Of a bridge.
static const struct sdc_field bridge_fields[] = {
    {"bus.primary", 0x18, 1, 0, 0, SDC_FIELD_NUMBER, 0, NULL},
    {"bus.secondary", 0x19, 1, 0, 0, SDC_FIELD_NUMBER, 0, NULL},
    {"bus.subordinate", 0x1a, 1, 0, 0, SDC_FIELD_NUMBER, 0, NULL},
};

static void put_bars(json_t *pci, const struct sdc_inspect_config *config, unsigned count)
{
    json_t *bars = sdc_tree_array(pci, "bars");

    for (unsigned i = 0; i < count; i++) {
        uint32_t value = sdc_get32(config->bytes + BAR0 + 4 * i);
        bool io = value & 1, wide = !io && (value & 6) == 4 && i + 1 < count;
        if (value <= 1 && config->bar_sizes[i] == 0) // of no kind, or of ports
            continue;
        uint64_t high = wide ? sdc_get32(config->bytes + BAR0 + 4 * (i + 1)) : 0;
        json_t *bar = sdc_tree_append(bars);
        sdc_tree_put_number(bar, "index", i);
        sdc_tree_put_string(bar, "kind", io ? "io" : "memory");
        sdc_tree_put_number(bar, "bits", wide ? 64 : 32);
        sdc_tree_put_flag(bar, "prefetchable", !io && value & 8);
        sdc_tree_put_hex(bar, "address", high << 32 | (value & ~(io ? UINT32_C(3) : UINT32_C(15))), wide ? 16 : 8);
        sdc_tree_put_number(bar, "size", config->bar_sizes[i]);
        if (wide)
            i++;
    }
}

static void put_rom(json_t *pci, uint32_t value)
{
    json_t *rom;

    if (value == 0)
        return;
    rom = sdc_tree_object(pci, "rom");
    sdc_tree_put_hex(rom, "address", value & ~UINT32_C(0x7ff), 8);
    sdc_tree_put_flag(rom, "enabled", value & 1);
}

static void put_header(json_t *pci, const struct sdc_inspect_config *config, const struct sdc_inspect_ids *ids)
{
    const uint8_t *bytes = config->bytes;
    uint16_t vendor = sdc_get16(bytes + VENDOR), device = sdc_get16(bytes + DEVICE);
    uint16_t subvendor = sdc_get16(bytes + SUBSYSTEM_VENDOR), subsystem = sdc_get16(bytes + SUBSYSTEM);
    unsigned type = bytes[HEADER_TYPE] & 0x7f;
    char name[SDC_INSPECT_NAME];

    sdc_tree_put_named(pci, "vendor", vendor, 4, sdc_inspect_vendor_name(ids, vendor, name));
    sdc_tree_put_named(pci, "device", device, 4, sdc_inspect_device_name(ids, vendor, device, name));
    if (type == 0) {
        sdc_tree_put_named(pci, "subsystem_vendor", subvendor, 4, sdc_inspect_vendor_name(ids, subvendor, name));
        // One that repeats the device's numbers has its name.
        if (subvendor == vendor && subsystem == device)
            sdc_inspect_device_name(ids, vendor, device, name);
        else
            sdc_inspect_subsystem_name(ids, vendor, device, subvendor, subsystem, name);
        sdc_tree_put_named(pci, "subsystem", subsystem, 4, name);
    }
    uint32_t class = sdc_get32(bytes + CLASS) >> 8;
    sdc_tree_put_named(pci, "class", class, 6, sdc_inspect_class_name(ids, class, name));
    sdc_fields_put(pci, common_fields, SDC_COUNT(common_fields), bytes, HEADER_BYTES);
    if (type == 1)
        sdc_fields_put(pci, bridge_fields, SDC_COUNT(bridge_fields), bytes, HEADER_BYTES);
    if (type <= 1)
        put_bars(pci, config, type == 0 ? 6 : 2);
    if (type == 0)
        put_rom(pci, sdc_get32(bytes + ROM));
}

// --- the lists ---

static uint16_t first(const struct sdc_inspect_walk *walk)
{
    const struct sdc_inspect_config *config = walk->config;

    if (walk->extended)
        return config->size > STANDARD_BYTES ? STANDARD_BYTES : 0;
    if (config->size < HEADER_BYTES || !(sdc_get16(config->bytes + STATUS) & STATUS_CAPABILITIES))
        return 0;
    unsigned pointer = (config->bytes[HEADER_TYPE] & 0x7f) == 2 ? CARDBUS_CAPABILITIES : CAPABILITIES;
    return config->bytes[pointer] & 0xfc;
}

static bool end(struct sdc_inspect_walk *walk, uint16_t at, const char *why)
{
    snprintf(walk->broken, sizeof walk->broken, "the list of %scapabilities leads to 0x%02x, %s", walk->extended ? "extended " : "", at,
             why);
    return false;
}

// The head of the capability at `at`, which lies inside.
static void take_head(struct sdc_inspect_walk *walk, uint16_t at)
{
    const uint8_t *bytes = walk->config->bytes + at;

    walk->at = (struct sdc_inspect_capability){.offset = at};
    if (walk->extended) {
        uint32_t head = sdc_get32(bytes);
        walk->at.id = (uint16_t)head;
        walk->at.version = head >> 16 & 0xf;
        walk->at.next = head >> 20 & 0xffc;
    } else {
        walk->at.id = bytes[0];
        walk->at.next = bytes[1] & 0xfc;
    }
}

bool sdc_inspect_walk_next(struct sdc_inspect_walk *walk)
{
    uint16_t at = walk->begun ? walk->at.next : first(walk);
    unsigned lowest = walk->extended ? STANDARD_BYTES : HEADER_BYTES, head = walk->extended ? 4 : 2;
    size_t limit = walk->extended ? walk->config->size : sdc_min(walk->config->size, STANDARD_BYTES);

    walk->begun = true;
    if (at == 0)
        return false;
    if (at < lowest)
        return end(walk, at, walk->extended ? "among the standard ones" : "into the header");
    if (!sdc_within(at, head, limit))
        return end(walk, at, "outside the configuration space");
    if (walk->seen[at / 32] >> (at / 4 % 8) & 1)
        return end(walk, at, "where it has been: it has no end");
    walk->seen[at / 32] |= (uint8_t)(1 << (at / 4 % 8));
    take_head(walk, at);
    // The list of extended ones is empty when its first has no number (7.6.2); all ones are nobody's answer.
    if (walk->extended && (sdc_get32(walk->config->bytes + at) == 0 || sdc_get32(walk->config->bytes + at) == UINT32_MAX))
        return at == STANDARD_BYTES ? false : end(walk, at, "where there is none");
    return true;
}

// Returns whether there is one by which a function has extended ones too.
static bool put_list(json_t *pci, const struct sdc_inspect_config *config, bool extended, json_t *problems)
{
    struct sdc_inspect_walk walk = {.config = config, .extended = extended};
    json_t *list = sdc_tree_array(pci, extended ? "extended_capabilities" : "capabilities");
    bool express = false;

    while (sdc_inspect_walk_next(&walk)) {
        json_t *object = sdc_tree_append(list);
        const uint8_t *bytes = config->bytes + walk.at.offset;
        size_t limit = extended ? config->size : sdc_min(config->size, STANDARD_BYTES);
        sdc_tree_put_hex(object, "offset", walk.at.offset, extended ? 3 : 2);
        if (extended)
            sdc_inspect_extended_put(object, &walk.at, bytes, limit - walk.at.offset);
        else
            sdc_inspect_capability_put(object, &walk.at, sdc_get16(config->bytes + VENDOR), bytes, limit - walk.at.offset);
        express |= !extended && (walk.at.id == CAP_EXPRESS || walk.at.id == CAP_PCIX);
    }
    if (walk.broken[0] != '\0')
        json_array_append_new(problems, json_string(walk.broken));
    return express;
}

void sdc_inspect_pci(json_t *pci, const struct sdc_inspect_config *config, const struct sdc_inspect_ids *ids, json_t *problems)
{
    if (config->size < HEADER_BYTES) {
        json_array_append_new(problems, json_sprintf("the configuration space has %d bytes, a header has %d", (int)config->size,
                                                     HEADER_BYTES));
        return;
    }
    if (sdc_get16(config->bytes + VENDOR) == 0xffff) {
        json_array_append_new(problems, json_string("the PCI function is absent: its vendor reads as 0xffff"));
        return;
    }
    put_header(pci, config, ids);
    if (put_list(pci, config, false, problems) && config->size > STANDARD_BYTES)
        put_list(pci, config, true, problems);
}
