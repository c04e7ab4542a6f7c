// SPDX-License-Identifier: BSD-3-Clause
// What PCI capabilities say. A row for each that has a name; with a table of fields where they are known.
#include "cli/inspect/pci.h"

#include "base/bytes.h"
#include "base/check.h"

#include <stdio.h>

struct kind {
    const char *name;
    const struct sdc_field *fields;
    size_t count;
    uint8_t length; // bytes that it has, 0: not known, or it says
};

#define FLAG(name, offset, size, bit) {name, offset, size, bit, 1, SDC_FIELD_FLAG, 0, NULL}
#define NUMBER(name, offset, size, shift, bits) {name, offset, size, shift, bits, SDC_FIELD_NUMBER, 0, NULL}
#define HEX(name, offset, size, shift, bits) {name, offset, size, shift, bits, SDC_FIELD_HEX, 0, NULL}
#define WORD(name, offset, size, shift, bits, words) {name, offset, size, shift, bits, SDC_FIELD_WORD, 0, words}
#define POWER(name, offset, size, shift, bits, base) {name, offset, size, shift, bits, SDC_FIELD_POWER, base, NULL}
#define FIELDS(fields) fields, SDC_COUNT(fields)

// --- PCI Bus Power Management 1.2, 3.2 ---

static const char *const power_states[] = {"D0", "D1", "D2", "D3", NULL};
static const struct sdc_field power[] = {
    NUMBER("version", 2, 2, 0, 3),
    FLAG("d1", 2, 2, 9),
    FLAG("d2", 2, 2, 10),
    FLAG("pme_from.d0", 2, 2, 11),
    FLAG("pme_from.d1", 2, 2, 12),
    FLAG("pme_from.d2", 2, 2, 13),
    FLAG("pme_from.d3hot", 2, 2, 14),
    FLAG("pme_from.d3cold", 2, 2, 15),
    WORD("state", 4, 2, 0, 2, power_states),
    FLAG("no_soft_reset", 4, 2, 3),
    FLAG("pme_enabled", 4, 2, 8),
    FLAG("pme", 4, 2, 15),
};

// --- PCI Local Bus 3.0, 6.8, 6.9 and appendix I ---

static const struct sdc_field vpd[] = {HEX("address", 2, 2, 0, 15), FLAG("done", 2, 2, 15)};
static const struct sdc_field msi[] = {
    FLAG("enabled", 2, 2, 0),
    POWER("vectors", 2, 2, 1, 3, 1),
    POWER("vectors_enabled", 2, 2, 4, 3, 1),
    FLAG("address_64", 2, 2, 7),
    FLAG("maskable", 2, 2, 8),
};
// What follows depends on whether addresses have 64 bits.
static const struct sdc_field msi_32[] = {HEX("address", 4, 4, 0, 0), HEX("data", 8, 2, 0, 0)};
static const struct sdc_field msi_32_masks[] = {HEX("masked", 12, 4, 0, 0), HEX("pending", 16, 4, 0, 0)};
static const struct sdc_field msi_64[] = {HEX("address", 4, 8, 0, 0), HEX("data", 12, 2, 0, 0)};
static const struct sdc_field msi_64_masks[] = {HEX("masked", 16, 4, 0, 0), HEX("pending", 20, 4, 0, 0)};
static const struct sdc_field msix[] = {
    FLAG("enabled", 2, 2, 15),
    FLAG("masked", 2, 2, 14),
    {"vectors", 2, 2, 0, 11, SDC_FIELD_COUNT, 0, NULL},
    NUMBER("table.bar", 4, 4, 0, 3),
    NUMBER("pending.bar", 8, 4, 0, 3),
};

static const struct sdc_field subsystem[] = {HEX("vendor", 4, 2, 0, 0), HEX("device", 6, 2, 0, 0)};
static const struct sdc_field advanced[] = {
    FLAG("transactions_pending_known", 3, 1, 0),
    FLAG("function_reset", 3, 1, 1),
    FLAG("transactions_pending", 5, 1, 0),
};

// --- PCI Express Base 5.0, 7.5.3 ---

static const char *const port_types[] = {"endpoint",
                                         "legacy endpoint",
                                         "reserved 2",
                                         "reserved 3",
                                         "root port",
                                         "upstream port",
                                         "downstream port",
                                         "bridge to PCI",
                                         "bridge from PCI",
                                         "root complex integrated endpoint",
                                         "root complex event collector",
                                         NULL};
static const char *const speeds[] = {"none", "2.5 GT/s", "5 GT/s", "8 GT/s", "16 GT/s", "32 GT/s", "64 GT/s", NULL};
static const char *const aspm[] = {"none", "L0s", "L1", "L0s L1", NULL};
static const struct sdc_field express[] = {
    NUMBER("version", 2, 2, 0, 4),
    WORD("type", 2, 2, 4, 4, port_types),
    FLAG("slot", 2, 2, 8),
    NUMBER("interrupt_message", 2, 2, 9, 5),
    POWER("can.max_payload", 4, 4, 0, 3, 128),
    NUMBER("can.phantom_functions", 4, 4, 3, 2),
    FLAG("can.extended_tag", 4, 4, 5),
    FLAG("can.role_based_errors", 4, 4, 15),
    FLAG("can.function_reset", 4, 4, 28),
    FLAG("control.correctable_errors", 8, 2, 0),
    FLAG("control.nonfatal_errors", 8, 2, 1),
    FLAG("control.fatal_errors", 8, 2, 2),
    FLAG("control.unsupported_requests", 8, 2, 3),
    FLAG("control.relaxed_ordering", 8, 2, 4),
    POWER("control.max_payload", 8, 2, 5, 3, 128),
    FLAG("control.extended_tag", 8, 2, 8),
    FLAG("control.no_snoop", 8, 2, 11),
    POWER("control.max_read_request", 8, 2, 12, 3, 128),
    FLAG("status.correctable_error", 10, 2, 0),
    FLAG("status.nonfatal_error", 10, 2, 1),
    FLAG("status.fatal_error", 10, 2, 2),
    FLAG("status.unsupported_request", 10, 2, 3),
    FLAG("status.aux_power", 10, 2, 4),
    FLAG("status.transactions_pending", 10, 2, 5),
};
static const struct sdc_field express_link[] = {
    WORD("link.speed_max", 12, 4, 0, 4, speeds),
    NUMBER("link.width_max", 12, 4, 4, 6),
    WORD("link.aspm", 12, 4, 10, 2, aspm),
    NUMBER("link.port", 12, 4, 24, 8),
    WORD("link.aspm_enabled", 16, 2, 0, 2, aspm),
    WORD("link.speed", 18, 2, 0, 4, speeds),
    NUMBER("link.width", 18, 2, 4, 6),
    FLAG("link.active", 18, 2, 13),
};
static const struct sdc_field express_2[] = {
    FLAG("can_2.completion_timeout_disable", 36, 4, 4),
    FLAG("can_2.ari_forwarding", 36, 4, 5),
    FLAG("can_2.latency_reports", 36, 4, 11),
    FLAG("control_2.completion_timeout_disable", 40, 2, 4),
    FLAG("control_2.ari_forwarding", 40, 2, 5),
    FLAG("control_2.latency_reports", 40, 2, 10),
};

enum {
    CAP_MSI = 0x05,
    CAP_VENDOR = 0x09,
    CAP_EXPRESS = 0x10,
    CAP_MSIX = 0x11,
    KINDS = 0x16,
    TYPE_INTEGRATED = 9, // in a root complex: no link
};

static const struct kind kinds[KINDS] = {
    [0x00] = {"null", NULL, 0, 4},
    [0x01] = {"power management", FIELDS(power), 8},
    [0x02] = {"AGP", NULL, 0, 0},
    [0x03] = {"VPD", FIELDS(vpd), 8},
    [0x04] = {"slot identification", NULL, 0, 4},
    [CAP_MSI] = {"MSI", FIELDS(msi), 0},
    [0x06] = {"CompactPCI hot swap", NULL, 0, 4},
    [0x07] = {"PCI-X", NULL, 0, 0},
    [0x08] = {"HyperTransport", NULL, 0, 0},
    [CAP_VENDOR] = {"vendor specific", NULL, 0, 0},
    [0x0a] = {"debug port", NULL, 0, 4},
    [0x0b] = {"CompactPCI resource control", NULL, 0, 4},
    [0x0c] = {"hot plug", NULL, 0, 8},
    [0x0d] = {"subsystem", FIELDS(subsystem), 8},
    [0x0e] = {"AGP 8x", NULL, 0, 0},
    [0x0f] = {"secure device", NULL, 0, 0},
    [CAP_EXPRESS] = {"PCI Express", FIELDS(express), 0},
    [CAP_MSIX] = {"MSI-X", FIELDS(msix), 12},
    [0x12] = {"SATA", NULL, 0, 8},
    [0x13] = {"advanced features", FIELDS(advanced), 6},
    [0x14] = {"enhanced allocation", NULL, 0, 0},
    [0x15] = {"flattening portal bridge", NULL, 0, 0},
};

// --- those that need more than a table ---

static void put_msi(json_t *object, const uint8_t *bytes, size_t size)
{
    uint16_t control = size >= 4 ? sdc_get16(bytes + 2) : 0;
    bool wide = control & 1 << 7, masks = control & 1 << 8;

    if (wide)
        sdc_fields_put(object, msi_64, SDC_COUNT(msi_64), bytes, size);
    else
        sdc_fields_put(object, msi_32, SDC_COUNT(msi_32), bytes, size);
    if (masks && wide)
        sdc_fields_put(object, msi_64_masks, SDC_COUNT(msi_64_masks), bytes, size);
    else if (masks)
        sdc_fields_put(object, msi_32_masks, SDC_COUNT(msi_32_masks), bytes, size);
}

// The offsets share their words with the numbers of the BARs.
static void put_msix(json_t *object, const uint8_t *bytes, size_t size)
{
    json_t *table = json_object_get(object, "table"), *pending = json_object_get(object, "pending");

    if (table && size >= 8)
        sdc_tree_put_hex(table, "offset", sdc_get32(bytes + 4) & ~UINT32_C(7), 4);
    if (pending && size >= 12)
        sdc_tree_put_hex(pending, "offset", sdc_get32(bytes + 8) & ~UINT32_C(7), 4);
}

static void put_express(json_t *object, const uint8_t *bytes, size_t size)
{
    uint16_t flags = size >= 4 ? sdc_get16(bytes + 2) : 0;

    if ((flags >> 4 & 0xf) < TYPE_INTEGRATED)
        sdc_fields_put(object, express_link, SDC_COUNT(express_link), bytes, size);
    if ((flags & 0xf) >= 2)
        sdc_fields_put(object, express_2, SDC_COUNT(express_2), bytes, size);
}

// --- a virtio device's (virtio 1.2, 4.1.4) ---

static const char *const structures[] = {"reserved",         "common configuration", "notification",          "ISR status",
                                         "device configuration", "PCI configuration access", "reserved 6", "reserved 7",
                                         "shared memory",    "vendor data",          NULL};
static const struct sdc_field virtio[] = {
    NUMBER("length", 2, 1, 0, 0),     WORD("structure", 3, 1, 0, 0, structures), NUMBER("bar", 4, 1, 0, 0),
    HEX("bar_offset", 8, 4, 0, 0),         NUMBER("size", 12, 4, 0, 0),
};
static const struct sdc_field virtio_notify[] = {NUMBER("multiplier", 16, 4, 0, 0)};
static const struct sdc_field virtio_shared[] = {NUMBER("shared_memory", 5, 1, 0, 0)};

enum { VENDOR_VIRTIO = 0x1af4, VIRTIO_NOTIFY = 2, VIRTIO_SHARED = 8, VIRTIO_LENGTH = 16, SHOWN_MAX = 64 };

static void put_vendor(json_t *object, uint16_t vendor, const uint8_t *bytes, size_t size)
{
    size_t length = size > 2 ? sdc_min(bytes[2], size) : 0;

    if (vendor == VENDOR_VIRTIO && length >= VIRTIO_LENGTH) {
        sdc_fields_put(object, virtio, SDC_COUNT(virtio), bytes, length);
        if (bytes[3] == VIRTIO_NOTIFY)
            sdc_fields_put(object, virtio_notify, SDC_COUNT(virtio_notify), bytes, length);
        if (bytes[3] == VIRTIO_SHARED)
            sdc_fields_put(object, virtio_shared, SDC_COUNT(virtio_shared), bytes, length);
        return;
    }
    sdc_tree_put_number(object, "length", size > 2 ? bytes[2] : 0);
    if (length > 3)
        sdc_tree_put_bytes(object, "bytes", bytes + 3, sdc_min(length - 3, SHOWN_MAX), ' ');
}

void sdc_inspect_capability_put(json_t *object, const struct sdc_inspect_capability *capability, uint16_t vendor, const uint8_t *bytes,
                                size_t size)
{
    const struct kind *kind = capability->id < KINDS ? &kinds[capability->id] : NULL;

    sdc_tree_put_hex(object, "id", capability->id, 2);
    if (!kind)
        return;
    sdc_tree_put_string(object, "name", kind->name);
    if (kind->length > 0)
        size = sdc_min(size, kind->length);
    sdc_fields_put(object, kind->fields, kind->count, bytes, size);
    switch (capability->id) {
    case CAP_MSI:
        put_msi(object, bytes, size);
        break;
    case CAP_VENDOR:
        put_vendor(object, vendor, bytes, size);
        break;
    case CAP_EXPRESS:
        put_express(object, bytes, size);
        break;
    case CAP_MSIX:
        put_msix(object, bytes, size);
        break;
    }
}

// --- extended ones (PCI Express Base 5.0, 7.7 to 7.9) ---

static const struct sdc_field errors[] = {
    HEX("uncorrectable.status", 4, 4, 0, 0),   HEX("uncorrectable.mask", 8, 4, 0, 0), HEX("uncorrectable.severity", 12, 4, 0, 0),
    HEX("correctable.status", 16, 4, 0, 0),    HEX("correctable.mask", 20, 4, 0, 0),  HEX("control", 24, 4, 0, 0),
};
static const struct sdc_field serial[] = {HEX("serial", 4, 8, 0, 0)};
static const struct sdc_field vendor_extended[] = {
    HEX("vendor_id", 4, 4, 0, 16),
    NUMBER("revision", 4, 4, 16, 4),
    NUMBER("length", 4, 4, 20, 12),
};
static const struct sdc_field ari[] = {NUMBER("next_function", 4, 2, 8, 8)};
static const struct sdc_field ats[] = {
    NUMBER("queue_depth", 4, 2, 0, 5),
    FLAG("page_aligned", 4, 2, 5),
    NUMBER("smallest_unit", 6, 2, 0, 5),
    FLAG("enabled", 6, 2, 15),
};
static const struct sdc_field sriov[] = {
    FLAG("enabled", 8, 2, 0),
    FLAG("memory", 8, 2, 3),
    NUMBER("functions_initial", 12, 2, 0, 0),
    NUMBER("functions_total", 14, 2, 0, 0),
    NUMBER("functions", 16, 2, 0, 0),
    NUMBER("first", 20, 2, 0, 0),
    NUMBER("stride", 22, 2, 0, 0),
    HEX("device", 26, 2, 0, 0),
};
static const struct sdc_field latency[] = {HEX("snoop", 4, 2, 0, 0), HEX("no_snoop", 6, 2, 0, 0)};
static const struct sdc_field pasid[] = {
    FLAG("can.execute", 4, 2, 1),
    FLAG("can.privileged", 4, 2, 2),
    NUMBER("width", 4, 2, 8, 5),
    FLAG("enabled", 6, 2, 0),
};

enum { EXTENDED_KINDS = 0x30 };

static const struct kind extended_kinds[EXTENDED_KINDS] = {
    [0x00] = {"null", NULL, 0, 0},
    [0x01] = {"advanced error reporting", FIELDS(errors), 0},
    [0x02] = {"virtual channel", NULL, 0, 0},
    [0x03] = {"device serial number", FIELDS(serial), 12},
    [0x04] = {"power budgeting", NULL, 0, 0},
    [0x05] = {"root complex link declaration", NULL, 0, 0},
    [0x06] = {"root complex internal link control", NULL, 0, 0},
    [0x07] = {"root complex event collector", NULL, 0, 0},
    [0x08] = {"multi-function virtual channel", NULL, 0, 0},
    [0x09] = {"virtual channel", NULL, 0, 0},
    [0x0a] = {"root complex register block", NULL, 0, 0},
    [0x0b] = {"vendor specific", FIELDS(vendor_extended), 8},
    [0x0c] = {"configuration access correlation", NULL, 0, 0},
    [0x0d] = {"access control services", NULL, 0, 0},
    [0x0e] = {"alternative routing-ID", FIELDS(ari), 8},
    [0x0f] = {"address translation", FIELDS(ats), 8},
    [0x10] = {"SR-IOV", FIELDS(sriov), 64},
    [0x11] = {"multi-root I/O virtualization", NULL, 0, 0},
    [0x12] = {"multicast", NULL, 0, 0},
    [0x13] = {"page requests", NULL, 0, 0},
    [0x15] = {"resizable BAR", NULL, 0, 0},
    [0x16] = {"dynamic power allocation", NULL, 0, 0},
    [0x17] = {"TPH requester", NULL, 0, 0},
    [0x18] = {"latency tolerance reporting", FIELDS(latency), 8},
    [0x19] = {"secondary PCI Express", NULL, 0, 0},
    [0x1a] = {"protocol multiplexing", NULL, 0, 0},
    [0x1b] = {"PASID", FIELDS(pasid), 8},
    [0x1c] = {"LN requester", NULL, 0, 0},
    [0x1d] = {"downstream port containment", NULL, 0, 0},
    [0x1e] = {"L1 PM substates", NULL, 0, 0},
    [0x1f] = {"precision time measurement", NULL, 0, 0},
    [0x20] = {"PCI Express over M-PHY", NULL, 0, 0},
    [0x21] = {"FRS queueing", NULL, 0, 0},
    [0x22] = {"readiness time reporting", NULL, 0, 0},
    [0x23] = {"designated vendor specific", NULL, 0, 0},
    [0x24] = {"VF resizable BAR", NULL, 0, 0},
    [0x25] = {"data link feature", NULL, 0, 0},
    [0x26] = {"physical layer 16 GT/s", NULL, 0, 0},
    [0x27] = {"lane margining", NULL, 0, 0},
    [0x28] = {"hierarchy ID", NULL, 0, 0},
    [0x29] = {"native enclosure management", NULL, 0, 0},
    [0x2a] = {"physical layer 32 GT/s", NULL, 0, 0},
    [0x2b] = {"alternate protocol", NULL, 0, 0},
    [0x2c] = {"system firmware intermediary", NULL, 0, 0},
    [0x2e] = {"data object exchange", NULL, 0, 0},
};

void sdc_inspect_extended_put(json_t *object, const struct sdc_inspect_capability *capability, const uint8_t *bytes, size_t size)
{
    const struct kind *kind = capability->id < EXTENDED_KINDS ? &extended_kinds[capability->id] : NULL;

    sdc_tree_put_hex(object, "id", capability->id, 4);
    if (kind && kind->name)
        sdc_tree_put_string(object, "name", kind->name);
    sdc_tree_put_number(object, "version", capability->version);
    if (kind && kind->length > 0)
        size = sdc_min(size, kind->length);
    if (kind)
        sdc_fields_put(object, kind->fields, kind->count, bytes, size);
}
