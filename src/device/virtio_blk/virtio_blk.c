// SPDX-License-Identifier: BSD-3-Clause
// The disk as the driver finds it: features, configuration space, life.
#include "device/virtio_blk/virtio_blk.h"

#include "base/bytes.h"
#include "base/check.h"
#include "base/log.h"
#include "device/virtio_blk/disk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

enum {
    DEVICE_ID = 2,
    CLASS_SCSI_STORAGE = 0x010000,
    SEG_MAX = 254,
};

static struct virtio_blk *disk_of(struct sdc_virtio_device *device)
{
    return (struct virtio_blk *)(void *)device;
}

static uint64_t disk_features(struct sdc_virtio_device *device)
{
    const struct virtio_blk *disk = disk_of(device);
    uint64_t features = SDC_VIRTIO_BLK_F_SEG_MAX | SDC_VIRTIO_BLK_F_BLK_SIZE | SDC_VIRTIO_BLK_F_FLUSH | SDC_VIRTIO_BLK_F_TOPOLOGY |
                        SDC_VIRTIO_BLK_F_CONFIG_WCE;

    if (disk->options.size_max)
        features |= SDC_VIRTIO_BLK_F_SIZE_MAX;
    if (device->queues_count > 1)
        features |= SDC_VIRTIO_BLK_F_MQ;
    if (disk->info.read_only)
        features |= SDC_VIRTIO_BLK_F_RO;
    else
        features |= SDC_VIRTIO_BLK_F_DISCARD | SDC_VIRTIO_BLK_F_WRITE_ZEROES;
    return features;
}

// Without FLUSH the driver cannot ask for durability, so every write is durable before it completes (virtio 1.2, 5.2.5.2).
static bool disk_accept(struct sdc_virtio_device *device, uint64_t features)
{
    struct virtio_blk *disk = disk_of(device);

    disk->accepted = features;
    if (!(features & SDC_VIRTIO_BLK_F_FLUSH))
        disk->writeback = false;
    return true;
}

static uint32_t exponent(uint32_t value)
{
    uint32_t log = 0;

    while (value >>= 1)
        log++;
    return log;
}

static void fill_config(struct virtio_blk *disk, uint8_t config[SDC_VIRTIO_BLK_CONFIG_SIZE])
{
    const struct sdc_block_info *info = &disk->info;
    struct sdc_block_info now;

    disk->block->ops->info(disk->block, &now);
    memset(config, 0, SDC_VIRTIO_BLK_CONFIG_SIZE);
    sdc_put64(config + SDC_VIRTIO_BLK_CAPACITY, now.size / info->block_size * (info->block_size / SDC_VIRTIO_BLK_SECTOR));
    sdc_put32(config + SDC_VIRTIO_BLK_SIZE_MAX, disk->options.size_max);
    sdc_put32(config + SDC_VIRTIO_BLK_SEG_MAX, disk->options.seg_max);
    sdc_put32(config + SDC_VIRTIO_BLK_BLK_SIZE, info->block_size);
    config[SDC_VIRTIO_BLK_PHYSICAL_BLOCK_EXP] = (uint8_t)exponent(info->physical_block_size / info->block_size);
    sdc_put16(config + SDC_VIRTIO_BLK_MIN_IO_SIZE, (uint16_t)sdc_min(UINT16_MAX, info->physical_block_size / info->block_size));
    sdc_put32(config + SDC_VIRTIO_BLK_OPT_IO_SIZE, info->optimal_io_size / info->block_size);
    config[SDC_VIRTIO_BLK_WRITEBACK] = disk->writeback;
    sdc_put16(config + SDC_VIRTIO_BLK_NUM_QUEUES, disk->device.queues_count);
    if (info->read_only)
        return;
    uint32_t alignment = info->discard_granularity ? info->discard_granularity : info->block_size;
    sdc_put32(config + SDC_VIRTIO_BLK_MAX_DISCARD_SECTORS, BLK_RANGE_SECTORS);
    sdc_put32(config + SDC_VIRTIO_BLK_MAX_DISCARD_SEG, BLK_RANGES);
    sdc_put32(config + SDC_VIRTIO_BLK_DISCARD_ALIGNMENT, alignment / SDC_VIRTIO_BLK_SECTOR);
    sdc_put32(config + SDC_VIRTIO_BLK_MAX_WRITE_ZEROES_SECTORS, BLK_RANGE_SECTORS);
    sdc_put32(config + SDC_VIRTIO_BLK_MAX_WRITE_ZEROES_SEG, BLK_RANGES);
    config[SDC_VIRTIO_BLK_WRITE_ZEROES_MAY_UNMAP] = 1;
}

static void disk_config_read(struct sdc_virtio_device *device, uint32_t offset, void *local, uint32_t size)
{
    uint8_t config[SDC_VIRTIO_BLK_CONFIG_SIZE];

    fill_config(disk_of(device), config);
    memcpy(local, config + offset, size);
}

// Only writeback may be written, and only if CONFIG_WCE was accepted (virtio 1.2, 5.2.4).
static void disk_config_write(struct sdc_virtio_device *device, uint32_t offset, const void *local, uint32_t size)
{
    struct virtio_blk *disk = disk_of(device);

    if (offset <= SDC_VIRTIO_BLK_WRITEBACK && offset + size > SDC_VIRTIO_BLK_WRITEBACK &&
        (disk->accepted & (SDC_VIRTIO_BLK_F_CONFIG_WCE | SDC_VIRTIO_BLK_F_FLUSH)) == (SDC_VIRTIO_BLK_F_CONFIG_WCE | SDC_VIRTIO_BLK_F_FLUSH))
        disk->writeback = ((const uint8_t *)local)[SDC_VIRTIO_BLK_WRITEBACK - offset] & 1;
}

static void disk_reset(struct sdc_virtio_device *device)
{
    struct virtio_blk *disk = disk_of(device);

    disk->accepted = 0;
    disk->writeback = disk->options.write_cache;
}

static void disk_state_save(struct sdc_virtio_device *device, void *bytes)
{
    *(uint8_t *)bytes = disk_of(device)->writeback;
}

static void disk_state_load(struct sdc_virtio_device *device, const void *bytes)
{
    struct virtio_blk *disk = disk_of(device);

    // Without FLUSH it stays off, which accept has seen to.
    if (disk->accepted & SDC_VIRTIO_BLK_F_FLUSH)
        disk->writeback = *(const uint8_t *)bytes & 1;
}

static void disk_destroy(struct sdc_virtio_device *device)
{
    struct virtio_blk *disk = disk_of(device);

    disk->block->ops->close(disk->block);
    free(disk);
}

static const struct sdc_virtio_ops disk_ops = {
    .name = "virtio-blk",
    .device_id = DEVICE_ID,
    .pci_class = CLASS_SCSI_STORAGE,
    .request_size = VIRTIO_BLK_REQUEST_SIZE,
    .features = disk_features,
    .accept = disk_accept,
    .config_read = disk_config_read,
    .config_write = disk_config_write,
    .queue_start = virtio_blk_queue_start,
    .queue_stop = virtio_blk_queue_stop,
    .queue_lost = virtio_blk_queue_lost,
    .queue_cancel = virtio_blk_queue_cancel,
    .queue_work = virtio_blk_queue_work,
    .reset = disk_reset,
    .state_save = disk_state_save,
    .state_load = disk_state_load,
    .destroy = disk_destroy,
};

void sdc_virtio_blk_refresh(struct sdc_virtio_device *device)
{
    struct sdc_block *block = disk_of(device)->block;
    struct sdc_block_info info;
    int rc = block->ops->refresh ? block->ops->refresh(block) : 0;

    if (rc < 0) {
        sdc_log(SDC_LOG_ERROR, "virtio-blk: the backend's size cannot be read: %s", strerror(-rc));
    } else if (rc > 0) {
        block->ops->info(block, &info);
        sdc_log(SDC_LOG_INFO, "virtio-blk: the disk has %" PRIu64 " bytes now", info.size);
        sdc_virtio_config_changed(device);
    }
}

int sdc_virtio_blk_new(struct sdc_block *block, const struct sdc_virtio_blk_options *options,
                       struct sdc_virtio_device **device, struct sdc_error *err)
{
    struct sdc_block_info info;

    block->ops->info(block, &info);
    if (options->size_max && options->size_max < info.block_size)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "size-max %u is smaller than a block of %u bytes",
                             options->size_max, info.block_size);
    struct virtio_blk *disk = calloc(1, sizeof *disk);
    if (!disk)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a disk");

    disk->block = block;
    disk->info = info;
    disk->options = *options;
    disk->writeback = options->write_cache;
    if (disk->options.seg_max == 0)
        disk->options.seg_max = options->queue_size > 2 ? (uint32_t)sdc_min(SEG_MAX, options->queue_size - 2U) : 1;
    disk->device = (struct sdc_virtio_device){
        .ops = &disk_ops,
        .config_size = SDC_VIRTIO_BLK_CONFIG_SIZE,
        .queues_count = options->queues,
        .queue_size_max = options->queue_size,
    };
    *device = &disk->device;
    return 0;
}
