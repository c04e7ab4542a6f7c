// SPDX-License-Identifier: BSD-3-Clause
// NVMe registers and the structures of Identify (NVM Express base specification 2.0, 3.1.3 and 5.17; NVM command set 1.0, 4.1.5).
#include "cli/inspect/inspect.h"

#include "base/bytes.h"
#include "base/check.h"
#include "wire/nvme.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define FLAG(name, offset, size, bit) {name, offset, size, bit, 1, SDC_FIELD_FLAG, 0, NULL}
#define NUMBER(name, offset, size, shift, bits) {name, offset, size, shift, bits, SDC_FIELD_NUMBER, 0, NULL}
#define COUNT(name, offset, size, shift, bits) {name, offset, size, shift, bits, SDC_FIELD_COUNT, 0, NULL}
#define HEX(name, offset, size, shift, bits) {name, offset, size, shift, bits, SDC_FIELD_HEX, 0, NULL}
#define POWER(name, offset, size, shift, bits, base) {name, offset, size, shift, bits, SDC_FIELD_POWER, base, NULL}
#define WORD(name, offset, size, shift, bits, words) {name, offset, size, shift, bits, SDC_FIELD_WORD, 0, words}
#define TEXT(name, offset, size) {name, offset, size, 0, 0, SDC_FIELD_TEXT, 0, NULL}
#define BYTES(name, offset, size) {name, offset, size, 0, 0, SDC_FIELD_BYTES, 0, NULL}

enum { PAGE = 4096, TIMEOUT_UNIT_MS = 500 };

// --- registers ---

static const char *const shutdowns[] = {"none", "normal", "abrupt", NULL};
static const char *const shutdown_states[] = {"none", "under way", "complete", NULL};
static const char *const command_sets[] = {"NVM", NULL};

static const struct sdc_field registers[] = {
    COUNT("capabilities.queue_entries_max", SDC_NVME_CAP, 8, SDC_NVME_CAP_MQES, 16),
    FLAG("capabilities.contiguous_queues_required", SDC_NVME_CAP, 8, SDC_NVME_CAP_CQR),
    FLAG("capabilities.weighted_round_robin", SDC_NVME_CAP, 8, SDC_NVME_CAP_AMS),
    {"capabilities.timeout_ms", SDC_NVME_CAP, 8, SDC_NVME_CAP_TO, 8, SDC_FIELD_NUMBER, TIMEOUT_UNIT_MS, NULL},
    POWER("capabilities.doorbell_stride", SDC_NVME_CAP, 8, SDC_NVME_CAP_DSTRD, 4, 4),
    FLAG("capabilities.subsystem_reset", SDC_NVME_CAP, 8, SDC_NVME_CAP_NSSRS),
    FLAG("capabilities.nvm_command_set", SDC_NVME_CAP, 8, SDC_NVME_CAP_CSS),
    FLAG("capabilities.other_command_sets", SDC_NVME_CAP, 8, SDC_NVME_CAP_CSS + 6),
    FLAG("capabilities.boot_partitions", SDC_NVME_CAP, 8, 45),
    POWER("capabilities.page_size", SDC_NVME_CAP, 8, SDC_NVME_CAP_MPSMIN, 4, PAGE),
    POWER("capabilities.largest_page_size", SDC_NVME_CAP, 8, SDC_NVME_CAP_MPSMAX, 4, PAGE),
    FLAG("capabilities.persistent_memory", SDC_NVME_CAP, 8, 56),
    FLAG("capabilities.controller_memory", SDC_NVME_CAP, 8, 57),
    FLAG("config.enabled", SDC_NVME_CC, 4, 0),
    WORD("config.command_set", SDC_NVME_CC, 4, SDC_NVME_CC_CSS, 3, command_sets),
    POWER("config.page_size", SDC_NVME_CC, 4, SDC_NVME_CC_MPS, 4, PAGE),
    WORD("config.shutdown", SDC_NVME_CC, 4, SDC_NVME_CC_SHN, 2, shutdowns),
    POWER("config.submission_entry_size", SDC_NVME_CC, 4, SDC_NVME_CC_IOSQES, 4, 1),
    POWER("config.completion_entry_size", SDC_NVME_CC, 4, SDC_NVME_CC_IOCQES, 4, 1),
    FLAG("status.ready", SDC_NVME_CSTS, 4, 0),
    FLAG("status.fatal", SDC_NVME_CSTS, 4, 1),
    WORD("status.shutdown", SDC_NVME_CSTS, 4, 2, 2, shutdown_states),
    FLAG("status.subsystem_reset", SDC_NVME_CSTS, 4, 4),
    FLAG("status.paused", SDC_NVME_CSTS, 4, 5),
    COUNT("admin_queue.submission_entries", SDC_NVME_AQA, 4, 0, 12),
    COUNT("admin_queue.completion_entries", SDC_NVME_AQA, 4, 16, 12),
    HEX("admin_queue.submission_address", SDC_NVME_ASQ, 8, 0, 0),
    HEX("admin_queue.completion_address", SDC_NVME_ACQ, 8, 0, 0),
};

static void put_version(json_t *object, const uint8_t *bytes)
{
    uint32_t version = sdc_get32(bytes);
    char text[24];

    snprintf(text, sizeof text, "%" PRIu32 ".%" PRIu32 ".%" PRIu32, version >> 16, version >> 8 & 0xff, version & 0xff);
    sdc_tree_put_string(object, "version", text);
}

void sdc_inspect_nvme_registers_put(json_t *nvme, const uint8_t *bytes, size_t size)
{
    if (size >= SDC_NVME_VS + 4) {
        sdc_tree_put_hex(nvme, "capabilities_value", sdc_get64(bytes + SDC_NVME_CAP), 16);
        put_version(nvme, bytes + SDC_NVME_VS);
    }
    sdc_fields_put(nvme, registers, SDC_COUNT(registers), bytes, size);
}

// --- the controller ---

static const char *const controller_types[] = {"not said", "I/O", "discovery", "administrative", NULL};

static const struct sdc_field controller_fields[] = {
    TEXT("serial", 4, 20),
    TEXT("model", 24, 40),
    TEXT("firmware", 64, 8),
    HEX("vendor_id", 0, 2, 0, 0),
    HEX("subsystem_vendor_id", 2, 2, 0, 0),
    HEX("oui", 73, 4, 0, 24),
    NUMBER("controller_id", 78, 2, 0, 0),
    WORD("type", 111, 1, 0, 0, controller_types),
    FLAG("shared.ports", 76, 1, 0),
    FLAG("shared.controllers", 76, 1, 1),
    FLAG("shared.sriov", 76, 1, 2),
    FLAG("shared.ana", 76, 1, 3),
    NUMBER("namespaces_max", 516, 4, 0, 0),
    COUNT("aborts_max", 258, 1, 0, 0),
    COUNT("events_max", 259, 1, 0, 0),
    COUNT("error_log_entries", 262, 1, 0, 0),
    NUMBER("temperature.warning_kelvin", 266, 2, 0, 0),
    NUMBER("temperature.critical_kelvin", 268, 2, 0, 0),
    {"keep_alive_unit_ms", 320, 2, 0, 0, SDC_FIELD_NUMBER, 100, NULL},
    POWER("entries.submission_size", 512, 1, 0, 4, 1),
    POWER("entries.completion_size", 513, 1, 0, 4, 1),
    NUMBER("commands_max", 514, 2, 0, 0),
    FLAG("write_cache", 525, 1, 0),
    FLAG("admin.security", 256, 2, 0),
    FLAG("admin.format", 256, 2, 1),
    FLAG("admin.firmware", 256, 2, 2),
    FLAG("admin.namespaces", 256, 2, 3),
    FLAG("admin.self_test", 256, 2, 4),
    FLAG("admin.directives", 256, 2, 5),
    FLAG("admin.virtualization", 256, 2, 7),
    FLAG("admin.doorbell_buffer", 256, 2, 8),
    FLAG("io.compare", 520, 2, 0),
    FLAG("io.write_uncorrectable", 520, 2, 1),
    FLAG("io.dataset_management", 520, 2, 2),
    FLAG("io.write_zeroes", 520, 2, 3),
    FLAG("io.saved_features", 520, 2, 4),
    FLAG("io.reservations", 520, 2, 5),
    FLAG("io.timestamp", 520, 2, 6),
    FLAG("io.verify", 520, 2, 7),
    FLAG("io.copy", 520, 2, 8),
    COUNT("atomic_write_blocks", 526, 2, 0, 0),
    COUNT("atomic_write_power_fail_blocks", 528, 2, 0, 0),
    NUMBER("sgl.support", 536, 4, 0, 2),
    FLAG("sgl.keyed", 536, 4, 2),
    FLAG("sgl.bit_bucket", 536, 4, 16),
    FLAG("sgl.byte_aligned_metadata", 536, 4, 17),
    FLAG("sgl.larger_than_data", 536, 4, 18),
    TEXT("nqn", 768, 250),
};

enum { MDTS = 77, VERSION = 80, TRANSFER_MAX_SHIFT = 28 };

void sdc_inspect_nvme_controller_put(json_t *object, const uint8_t *bytes)
{
    sdc_fields_put(object, controller_fields, SDC_COUNT(controller_fields), bytes, SDC_NVME_IDENTIFY_BYTES);
    put_version(object, bytes + VERSION);
    // In pages of the smallest size that the controller has, which are of 4 KiB in all but name.
    if (bytes[MDTS] > 0 && bytes[MDTS] <= TRANSFER_MAX_SHIFT)
        sdc_tree_put_number(object, "transfer_max_pages", UINT64_C(1) << bytes[MDTS]);
}

// --- a namespace ---

static const struct sdc_field namespace_fields[] = {
    NUMBER("blocks", 0, 8, 0, 0),
    NUMBER("blocks_capacity", 8, 8, 0, 0),
    NUMBER("blocks_used", 16, 8, 0, 0),
    FLAG("thin", 24, 1, 0),
    FLAG("shared", 30, 1, 0),
    NUMBER("protection", 29, 1, 0, 3),
    FLAG("read_only", 99, 1, 0),
    NUMBER("deallocated_reads", 33, 1, 0, 3),
    FLAG("zeroes_deallocate", 33, 1, 3),
    BYTES("nguid", 104, 16),
    BYTES("eui64", 120, 8),
};

enum { FORMATS = 25, FLBAS = 26, FORMAT = 128, BLOCK_SHIFT_MAX = 31 };

void sdc_inspect_nvme_namespace_put(json_t *object, const uint8_t *bytes)
{
    unsigned number = (bytes[FLBAS] & 0xfU) | (bytes[FLBAS] >> 5 & 3U) << 4;
    uint32_t format = sdc_get32(bytes + FORMAT + 4 * number), shift = format >> 16 & 0xff;
    uint64_t size;

    sdc_fields_put(object, namespace_fields, SDC_COUNT(namespace_fields), bytes, SDC_NVME_IDENTIFY_BYTES);
    sdc_tree_put_number(object, "formats", bytes[FORMATS] + UINT64_C(1));
    sdc_tree_put_number(object, "format", number);
    sdc_tree_put_number(object, "metadata_size", format & 0xffff);
    if (shift > BLOCK_SHIFT_MAX)
        return;
    sdc_tree_put_number(object, "block_size", UINT64_C(1) << shift);
    if (sdc_mul(sdc_get64(bytes), UINT64_C(1) << shift, &size))
        sdc_tree_put_number(object, "size", size);
}

enum { DESCRIPTOR_HEAD = 4, TYPE_EUI64 = 1, TYPE_NGUID = 2, TYPE_UUID = 3, UUID_BYTES = 16 };

// A list of descriptors, each with its type and length, up to one of type 0 (5.17.2.3). Only the UUID is nowhere else.
void sdc_inspect_nvme_descriptors_put(json_t *object, const uint8_t *bytes)
{
    for (size_t at = 0; at + DESCRIPTOR_HEAD <= SDC_NVME_IDENTIFY_BYTES && bytes[at] != 0;) {
        size_t length = bytes[at + 1], value = at + DESCRIPTOR_HEAD;
        if (length == 0 || !sdc_within(value, length, SDC_NVME_IDENTIFY_BYTES))
            return;
        if (bytes[at] == TYPE_UUID && length == UUID_BYTES)
            sdc_tree_put_bytes(object, "uuid", bytes + value, length, 0);
        at = value + length;
    }
}
