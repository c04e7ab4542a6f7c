// SPDX-License-Identifier: BSD-3-Clause
// The configurations of virtio devices (virtio 1.2, section 5): which field is there with which feature.
#include "cli/inspect/inspect.h"

#include "base/bytes.h"
#include "base/check.h"

#include <string.h>

enum { NET = 1, BLK = 2, CONSOLE = 3, BALLOON = 5, SCSI = 8, NINEP = 9, GPU = 16, VSOCK = 19, CRYPTO = 20, IOMMU = 23, MEM = 24, SOUND = 25,
       FS = 26, PMEM = 27, GPIO = 41 };

enum { ALWAYS = -1, SECTOR = 512 };

struct row {
    uint8_t device;
    int8_t feature; // the bit without which the field means nothing, or ALWAYS
    struct sdc_field field;
};

#define NUMBER(device, feature, name, offset, size) {device, feature, {name, offset, size, 0, 0, SDC_FIELD_NUMBER, 0, NULL}}
#define HEX(device, feature, name, offset, size) {device, feature, {name, offset, size, 0, 0, SDC_FIELD_HEX, 0, NULL}}
#define FLAG(device, feature, name, offset) {device, feature, {name, offset, 1, 0, 1, SDC_FIELD_FLAG, 0, NULL}}
#define TEXT(device, feature, name, offset, size) {device, feature, {name, offset, size, 0, 0, SDC_FIELD_TEXT, 0, NULL}}
#define BYTES(device, feature, name, offset, size) {device, feature, {name, offset, size, 0, 0, SDC_FIELD_BYTES, 0, NULL}}

static const struct row rows[] = {
    {BLK, ALWAYS, {"capacity_size", 0, 8, 0, 0, SDC_FIELD_NUMBER, SECTOR, NULL}},
    NUMBER(BLK, 1, "size_max", 8, 4),
    NUMBER(BLK, 2, "seg_max", 12, 4),
    NUMBER(BLK, 4, "geometry.cylinders", 16, 2),
    NUMBER(BLK, 4, "geometry.heads", 18, 1),
    NUMBER(BLK, 4, "geometry.sectors", 19, 1),
    NUMBER(BLK, 6, "blk_size", 20, 4),
    NUMBER(BLK, 10, "topology.physical_block_exp", 24, 1),
    NUMBER(BLK, 10, "topology.alignment_offset", 25, 1),
    NUMBER(BLK, 10, "topology.min_io_blocks", 26, 2),
    NUMBER(BLK, 10, "topology.opt_io_blocks", 28, 4),
    FLAG(BLK, 11, "writeback", 32),
    NUMBER(BLK, 12, "num_queues", 34, 2),
    NUMBER(BLK, 13, "max_discard_sectors", 36, 4),
    NUMBER(BLK, 13, "max_discard_seg", 40, 4),
    NUMBER(BLK, 13, "discard_sector_alignment", 44, 4),
    NUMBER(BLK, 14, "max_write_zeroes_sectors", 48, 4),
    NUMBER(BLK, 14, "max_write_zeroes_seg", 52, 4),
    FLAG(BLK, 14, "write_zeroes_may_unmap", 56),
    NUMBER(BLK, 16, "max_secure_erase_sectors", 60, 4),
    NUMBER(BLK, 16, "max_secure_erase_seg", 64, 4),
    NUMBER(BLK, 16, "secure_erase_sector_alignment", 68, 4),
    NUMBER(BLK, 17, "zones.sectors", 72, 4),
    NUMBER(BLK, 17, "zones.max_open", 76, 4),
    NUMBER(BLK, 17, "zones.max_active", 80, 4),
    NUMBER(BLK, 17, "zones.max_append_sectors", 84, 4),
    NUMBER(BLK, 17, "zones.write_granularity", 88, 4),
    NUMBER(BLK, 17, "zones.model", 92, 1),
    BYTES(NET, 5, "mac", 0, 6),
    {NET, 16, {"link_up", 6, 2, 0, 1, SDC_FIELD_FLAG, 0, NULL}},
    {NET, 16, {"announce", 6, 2, 1, 1, SDC_FIELD_FLAG, 0, NULL}},
    NUMBER(NET, 22, "max_virtqueue_pairs", 8, 2),
    NUMBER(NET, 3, "mtu", 10, 2),
    NUMBER(NET, 63, "speed_mbit", 12, 4),
    NUMBER(NET, 63, "duplex", 16, 1),
    NUMBER(NET, 60, "rss_max_key_size", 17, 1),
    NUMBER(NET, 60, "rss_max_indirection_table_length", 18, 2),
    HEX(NET, 60, "supported_hash_types", 20, 4),
    NUMBER(SCSI, ALWAYS, "num_queues", 0, 4),
    NUMBER(SCSI, ALWAYS, "seg_max", 4, 4),
    NUMBER(SCSI, ALWAYS, "max_sectors", 8, 4),
    NUMBER(SCSI, ALWAYS, "cmd_per_lun", 12, 4),
    NUMBER(SCSI, ALWAYS, "event_info_size", 16, 4),
    NUMBER(SCSI, ALWAYS, "sense_size", 20, 4),
    NUMBER(SCSI, ALWAYS, "cdb_size", 24, 4),
    NUMBER(SCSI, ALWAYS, "max_channel", 28, 2),
    NUMBER(SCSI, ALWAYS, "max_target", 30, 2),
    NUMBER(SCSI, ALWAYS, "max_lun", 32, 4),
    NUMBER(CONSOLE, 0, "cols", 0, 2),
    NUMBER(CONSOLE, 0, "rows", 2, 2),
    NUMBER(CONSOLE, 1, "max_nr_ports", 4, 4),
    NUMBER(BALLOON, ALWAYS, "num_pages", 0, 4),
    NUMBER(BALLOON, ALWAYS, "actual", 4, 4),
    HEX(BALLOON, 3, "free_page_hint_cmd_id", 8, 4),
    HEX(BALLOON, 4, "poison_val", 12, 4),
    NUMBER(NINEP, 0, "tag_length", 0, 2),
    HEX(GPU, ALWAYS, "events", 0, 4),
    NUMBER(GPU, ALWAYS, "num_scanouts", 8, 4),
    NUMBER(GPU, ALWAYS, "num_capsets", 12, 4),
    NUMBER(VSOCK, ALWAYS, "guest_cid", 0, 8),
    HEX(CRYPTO, ALWAYS, "status", 0, 4),
    NUMBER(CRYPTO, ALWAYS, "max_dataqueues", 4, 4),
    HEX(CRYPTO, ALWAYS, "crypto_services", 8, 4),
    NUMBER(CRYPTO, ALWAYS, "max_cipher_key_size", 32, 4),
    NUMBER(CRYPTO, ALWAYS, "max_auth_key_size", 36, 4),
    NUMBER(CRYPTO, ALWAYS, "max_size", 48, 8),
    HEX(IOMMU, ALWAYS, "page_size_mask", 0, 8),
    HEX(IOMMU, 0, "input_range.first", 8, 8),
    HEX(IOMMU, 0, "input_range.last", 16, 8),
    NUMBER(IOMMU, 1, "domain_range.first", 24, 4),
    NUMBER(IOMMU, 1, "domain_range.last", 28, 4),
    NUMBER(IOMMU, 4, "probe_size", 32, 4),
    FLAG(IOMMU, 6, "bypass", 36),
    NUMBER(MEM, ALWAYS, "block_size", 0, 8),
    NUMBER(MEM, 0, "node_id", 8, 2),
    HEX(MEM, ALWAYS, "address", 16, 8),
    NUMBER(MEM, ALWAYS, "region_size", 24, 8),
    NUMBER(MEM, ALWAYS, "usable_region_size", 32, 8),
    NUMBER(MEM, ALWAYS, "plugged_size", 40, 8),
    NUMBER(MEM, ALWAYS, "requested_size", 48, 8),
    NUMBER(SOUND, ALWAYS, "jacks", 0, 4),
    NUMBER(SOUND, ALWAYS, "streams", 4, 4),
    NUMBER(SOUND, ALWAYS, "chmaps", 8, 4),
    TEXT(FS, ALWAYS, "tag", 0, 36),
    NUMBER(FS, ALWAYS, "num_request_queues", 36, 4),
    NUMBER(FS, 0, "notify_buf_size", 40, 4),
    HEX(PMEM, ALWAYS, "start", 0, 8),
    NUMBER(PMEM, ALWAYS, "size", 8, 8),
    NUMBER(GPIO, ALWAYS, "ngpio", 0, 2),
    NUMBER(GPIO, ALWAYS, "names_size", 4, 4),
};

void sdc_inspect_virtio_config_put(json_t *object, unsigned device, uint64_t features, const uint8_t *bytes, size_t size, bool raw)
{
    json_t *config = json_object();

    for (size_t i = 0; i < SDC_COUNT(rows); i++) {
        if (rows[i].device == device && (rows[i].feature == ALWAYS || features >> rows[i].feature & 1))
            sdc_fields_put(config, &rows[i].field, 1, bytes, size);
    }
    if (json_object_size(config) > 0)
        json_object_set(object, "config", config);
    // A structure may be a page of zeroes where a device has no configuration at all.
    for (size_t i = 0; !raw && json_object_size(config) == 0 && i < size; i++)
        raw = bytes[i] != 0;
    json_decref(config);
    if (raw)
        sdc_tree_put_bytes(object, "config_bytes", bytes, size, ' ');
}

// --- guessing ---

#define BIT(number) (UINT64_C(1) << (number))

static bool looks_like_disk(uint64_t features, const uint8_t *bytes, size_t size)
{
    uint32_t block = size >= 24 ? sdc_get32(bytes + 20) : 0;
    bool sane = block >= SECTOR && block <= 1 << 16 && sdc_is_power_of_two(block);

    return sane && features & (BIT(6) | BIT(9) | BIT(2));
}

// Defaults that a driver may change, and nobody has a reason to offer others of (virtio 1.2, 5.6.4).
static bool looks_like_scsi(const uint8_t *bytes, size_t size)
{
    return size >= 36 && sdc_get32(bytes + 20) == 96 && sdc_get32(bytes + 24) == 32 && sdc_get32(bytes) > 0;
}

// A tag, padded with NULs.
static bool looks_like_fs(const uint8_t *bytes, size_t size)
{
    size_t length = 0;

    if (size < 40)
        return false;
    while (length < 36 && bytes[length] > 0x20 && bytes[length] < 0x7f)
        length++;
    for (size_t i = length; i < 36; i++) {
        if (bytes[i] != 0)
            return false;
    }
    return length > 0 && sdc_get32(bytes + 36) > 0 && sdc_get32(bytes + 36) <= 1024;
}

// Only network cards have features of such numbers, and their back ends have them all but always (CTRL_RX, GUEST_ANNOUNCE, MQ). The
// protocol features that are for them, RARP and MTU, are offered by libraries for everything.
static bool looks_like_net(uint64_t features)
{
    return features & (BIT(18) | BIT(19) | BIT(20) | BIT(21) | BIT(22) | BIT(23));
}

unsigned sdc_inspect_virtio_guess(uint64_t features, const uint8_t *bytes, size_t size)
{
    if (looks_like_net(features))
        return NET;
    if (looks_like_scsi(bytes, size))
        return SCSI;
    if (looks_like_fs(bytes, size))
        return FS;
    return looks_like_disk(features, bytes, size) ? BLK : 0;
}
