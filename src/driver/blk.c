// SPDX-License-Identifier: BSD-3-Clause
// A virtio disk's life: what it is, its queues, the memory of its requests' headers.
#include "driver/blk.h"

#include "base/bytes.h"
#include "base/check.h"
#include "driver/blk_queue.h"
#include "wire/virtio_blk.h"

#include <sidecard/virtio.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEVICE_BLK = 2,

    SEGMENTS_MAX = 4096, // data segments of one request that we make
};

#define QUEUES_IOVA UINT64_C(0x100000)

#define WANTED                                                                                                        \
    (SDC_VIRTIO_BLK_F_SIZE_MAX | SDC_VIRTIO_BLK_F_SEG_MAX | SDC_VIRTIO_BLK_F_RO | SDC_VIRTIO_BLK_F_BLK_SIZE |         \
     SDC_VIRTIO_BLK_F_FLUSH | SDC_VIRTIO_BLK_F_TOPOLOGY | SDC_VIRTIO_BLK_F_CONFIG_WCE | SDC_VIRTIO_BLK_F_MQ |         \
     SDC_VIRTIO_BLK_F_DISCARD | SDC_VIRTIO_BLK_F_WRITE_ZEROES | SDC_VIRTIO_F_INDIRECT_DESC | SDC_VIRTIO_F_EVENT_IDX | \
     SDC_VIRTIO_F_ACCESS_PLATFORM | SDC_VIRTIO_F_RING_PACKED | SDC_VIRTIO_F_IN_ORDER | SDC_VIRTIO_F_ORDER_PLATFORM |  \
     SDC_VIRTIO_F_NOTIFICATION_DATA | SDC_VIRTIO_F_RING_RESET)

struct sdc_driver_blk {
    struct sdc_driver_disk disk;
    struct sdc_driver_device device;
    uint16_t queues_count;
    struct sdc_driver_blk_queue **queues;
};

static struct sdc_driver_blk *of(struct sdc_driver_disk *disk)
{
    return sdc_container(disk, struct sdc_driver_blk, disk);
}

// --- what it is ---

// The fields of the configuration (5.2.4), and what they are where the feature that brings them is not there.
enum field {
    CAPACITY,
    SIZE_MAX_FIELD,
    SEG_MAX,
    BLK_SIZE,
    NUM_QUEUES,
    MAX_DISCARD,
    MAX_ZEROES,
    MAY_UNMAP,
    FIELDS
};

static const struct {
    uint64_t feature; // 0: always there
    uint32_t offset;
    uint32_t size;
    uint64_t absent;
} fields[FIELDS] = {
    [CAPACITY] = {0, SDC_VIRTIO_BLK_CAPACITY, 8, 0}, // sectors of 512 bytes, as all of them
    [SIZE_MAX_FIELD] = {SDC_VIRTIO_BLK_F_SIZE_MAX, SDC_VIRTIO_BLK_SIZE_MAX, 4, UINT32_MAX & ~UINT32_C(511)},
    [SEG_MAX] = {SDC_VIRTIO_BLK_F_SEG_MAX, SDC_VIRTIO_BLK_SEG_MAX, 4, 1},
    [BLK_SIZE] = {SDC_VIRTIO_BLK_F_BLK_SIZE, SDC_VIRTIO_BLK_BLK_SIZE, 4, SDC_VIRTIO_BLK_SECTOR},
    [NUM_QUEUES] = {SDC_VIRTIO_BLK_F_MQ, SDC_VIRTIO_BLK_NUM_QUEUES, 2, 1},
    [MAX_DISCARD] = {SDC_VIRTIO_BLK_F_DISCARD, SDC_VIRTIO_BLK_MAX_DISCARD_SECTORS, 4, 0},
    [MAX_ZEROES] = {SDC_VIRTIO_BLK_F_WRITE_ZEROES, SDC_VIRTIO_BLK_MAX_WRITE_ZEROES_SECTORS, 4, 0},
    [MAY_UNMAP] = {SDC_VIRTIO_BLK_F_WRITE_ZEROES, SDC_VIRTIO_BLK_WRITE_ZEROES_MAY_UNMAP, 1, 0},
};

static int read_fields(struct sdc_driver_blk *blk, uint64_t values[FIELDS], struct sdc_error *err)
{
    struct sdc_driver_transport *transport = blk->device.transport;
    for (unsigned i = 0; i < FIELDS; i++) {
        uint8_t raw[8] = {0};
        values[i] = fields[i].absent;
        if (fields[i].feature != 0 && !(blk->device.features & fields[i].feature))
            continue;
        int ret = transport->ops->get_config(transport, fields[i].offset, raw, fields[i].size, err);
        if (ret < 0)
            return ret;
        values[i] = sdc_get64(raw);
    }
    return 0;
}

static int read_info(struct sdc_driver_blk *blk, struct sdc_error *err)
{
    uint64_t features = blk->device.features, values[FIELDS], size;
    int ret = read_fields(blk, values, err);
    if (ret < 0)
        return ret;
    if (!sdc_mul(values[CAPACITY], SDC_VIRTIO_BLK_SECTOR, &size) || values[BLK_SIZE] < SDC_VIRTIO_BLK_SECTOR ||
        !sdc_is_power_of_two(values[BLK_SIZE]) || values[SIZE_MAX_FIELD] == 0 || values[SEG_MAX] == 0 ||
        values[NUM_QUEUES] == 0)
        return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER,
                             "the disk's configuration makes no sense: %" PRIu64
                             " sectors, block size %" PRIu64 ", size_max %" PRIu64 ", seg_max %" PRIu64
                             ", %" PRIu64 " queues",
                             values[CAPACITY], values[BLK_SIZE], values[SIZE_MAX_FIELD], values[SEG_MAX],
                             values[NUM_QUEUES]);
    blk->disk.info = (struct sdc_driver_disk_info){
        .device = "virtio-blk",
        .ring = features & SDC_VIRTIO_F_RING_PACKED ? "packed" : "split",
        .size = size,
        .block_size = (uint32_t)values[BLK_SIZE],
        .request_max = sdc_min(values[SEG_MAX], SEGMENTS_MAX) * values[SIZE_MAX_FIELD],
        .queues = (uint16_t)values[NUM_QUEUES],
        .read_only = features & SDC_VIRTIO_BLK_F_RO,
        .flush = features & SDC_VIRTIO_BLK_F_FLUSH,
        .discard = features & SDC_VIRTIO_BLK_F_DISCARD,
        .write_zeroes = features & SDC_VIRTIO_BLK_F_WRITE_ZEROES,
        .unmap = values[MAY_UNMAP] != 0,
        .discard_max = values[MAX_DISCARD] * SDC_VIRTIO_BLK_SECTOR,
        .write_zeroes_max = values[MAX_ZEROES] * SDC_VIRTIO_BLK_SECTOR,
        .notified_by = "",
        .virtio = {.features = features,
                   .seg_max = (uint32_t)values[SEG_MAX],
                   .size_max = (uint32_t)values[SIZE_MAX_FIELD],
                   .in_order = features & SDC_VIRTIO_F_IN_ORDER,
                   .packed = features & SDC_VIRTIO_F_RING_PACKED},
    };
    return 0;
}

// --- starting ---

// How many data segments a request of `bytes` takes, at least one; an error when the device takes fewer.
static int count_segments(const struct sdc_driver_disk_info *info, uint64_t bytes, uint32_t *segments,
                          struct sdc_error *err)
{
    uint32_t size_max = info->virtio.size_max;
    uint64_t count = bytes / size_max + (bytes % size_max != 0);
    uint64_t limit = sdc_min(info->virtio.seg_max, SEGMENTS_MAX);
    if (count > limit)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "requests of %" PRIu64 " bytes: the device takes %" PRIu64 " (%" PRIu64
                             " segments of %" PRIu32 ")",
                             bytes, info->request_max, limit, size_max);
    *segments = count > 0 ? (uint32_t)count : 1;
    return 0;
}

// How many requests of so many data segments every queue holds: with indirect tables each takes one entry,
// else one for each segment. In a split ring no chain may be longer than its queue either way (virtio 1.2, 2.7.5.3.1);
// in a packed one it is the device that limits what a table holds (2.8.19), here by seg_max.
static uint32_t count_room(const struct sdc_driver_blk *blk, uint32_t segments)
{
    bool indirect = blk->device.features & SDC_VIRTIO_F_INDIRECT_DESC;
    bool any_length = blk->device.features & SDC_VIRTIO_F_RING_PACKED;
    uint32_t least = UINT32_MAX;
    for (uint16_t i = 0; i < blk->queues_count; i++) {
        uint32_t size = blk->device.queues[i]->config.size;
        uint32_t room = !indirect ? size / (segments + 2) : any_length || segments + 2 <= size ? size : 0;
        least = (uint32_t)sdc_min(least, room);
    }
    return least;
}

static int make_queues(struct sdc_driver_blk *blk, uint32_t depth, uint32_t segments, struct sdc_error *err)
{
    int ret = 0;
    blk->queues = calloc(blk->queues_count, sizeof *blk->queues);
    if (!blk->queues)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for %u queues", blk->queues_count);
    for (uint16_t i = 0; ret == 0 && i < blk->queues_count; i++)
        ret = sdc_driver_blk_queue_new(&blk->device, &blk->disk.info, i, depth, segments, &blk->queues[i], err);
    return ret;
}

// Whether each queue holds `depth` requests of so many segments; 0 stands for any number, and is set.
static int check_depth(const struct sdc_driver_blk *blk, uint64_t request_max, uint32_t segments, uint32_t *depth,
                       struct sdc_error *err)
{
    const struct sdc_driver_disk_info *info = &blk->disk.info;
    uint32_t room = count_room(blk, segments);
    if (room == 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "a request of %" PRIu64 " bytes takes %" PRIu32
                             " descriptors, more than a chain may have in a queue of %u entries%s",
                             request_max, segments + 2, info->queue_size,
                             info->virtio.packed ? " without indirect tables" : "; packed rings with indirect tables take it");
    if (*depth > room)
        return sdc_error_set(err, -E2BIG, SDC_FAULT_USER,
                             "%" PRIu32 " requests in flight: the device's queues hold %" PRIu32
                             " requests of %" PRIu64 " bytes",
                             *depth, room, request_max);
    if (*depth == 0)
        *depth = (uint32_t)sdc_min(SDC_DRIVER_DISK_DEPTH, room);
    return 0;
}

static int start(struct sdc_driver_disk *disk, const struct sdc_driver_disk_options *options, struct sdc_error *err)
{
    struct sdc_driver_blk *blk = of(disk);
    uint64_t request_max = options->request_max;
    uint32_t depth = options->depth, segments = 0;
    if (request_max == 0)
        request_max = sdc_min(SDC_DRIVER_DISK_REQUEST, disk->info.request_max);
    int ret = sdc_driver_disk_check_queues(disk, options, err);
    if (ret == 0)
        ret = count_segments(&disk->info, request_max, &segments, err);
    if (ret < 0)
        return ret;
    uint16_t count = options->queues > 0 ? options->queues : 1;
    struct sdc_driver_device_options setup = {
        .queues = count,
        .queue_size = options->queue_size,
        .indirect_max = (uint16_t)(segments + 2),
        .iova = QUEUES_IOVA,
        .extra = count * sdc_driver_blk_queue_memory(depth > 0 ? depth : SDC_DRIVER_DISK_DEPTH),
        .interrupts = !options->poll,
        .memory = options->memory,
    };
    ret = sdc_driver_device_start(&blk->device, &setup, err);
    if (ret < 0)
        return ret;
    blk->queues_count = count;
    disk->info.queue_size = blk->device.queues[0]->config.size;
    if (blk->device.transport->ops->notified_by)
        disk->info.notified_by = blk->device.transport->ops->notified_by(blk->device.transport, 0);
    ret = check_depth(blk, request_max, segments, &depth, err);
    return ret < 0 ? ret : make_queues(blk, depth, segments, err);
}

// --- the rest of its life ---

static void close_disk(struct sdc_driver_disk *disk)
{
    struct sdc_driver_blk *blk = of(disk);
    // The device is reset before its requests' memory goes.
    sdc_driver_device_close(&blk->device);
    for (uint16_t i = 0; blk->queues && i < blk->queues_count; i++)
        sdc_driver_blk_queue_free(blk->queues[i]);
    free(blk->queues);
    free(blk);
}

static int map(struct sdc_driver_disk *disk, const struct sdc_client_memory *memory, struct sdc_error *err)
{
    struct sdc_driver_transport *transport = of(disk)->device.transport;
    return transport->ops->map(transport, memory, err);
}

static int reset_queue(struct sdc_driver_disk *disk, uint16_t index, struct sdc_error *err)
{
    int ret = sdc_driver_device_reset_queue(&of(disk)->device, index, err);
    if (ret == 0)
        sdc_driver_blk_queue_restart(of(disk)->queues[index]);
    return ret;
}

static int recover(struct sdc_driver_disk *disk, uint32_t timeout_ms, struct sdc_error *err)
{
    return sdc_driver_device_recover(&of(disk)->device, timeout_ms, err);
}

static int check(struct sdc_driver_disk *disk, struct sdc_error *err)
{
    return sdc_driver_device_check(&of(disk)->device, err);
}

static struct sdc_driver_disk_queue *queue(struct sdc_driver_disk *disk, uint16_t index)
{
    return sdc_driver_blk_queue_disk(of(disk)->queues[index]);
}

static const struct sdc_driver_disk_ops blk_ops = {
    .start = start,
    .close = close_disk,
    .map = map,
    .reset_queue = reset_queue,
    .recover = recover,
    .check = check,
    .queue = queue,
};

// --- opening ---

int sdc_driver_blk_open(struct sdc_driver_transport *transport, uint64_t without, struct sdc_driver_disk **disk,
                        struct sdc_error *err)
{
    uint16_t kind = transport->ops->device_id(transport);
    struct sdc_driver_blk *made = calloc(1, sizeof *made);
    if (!made || kind != DEVICE_BLK) {
        free(made);
        transport->ops->close(transport);
        return kind != DEVICE_BLK ? sdc_error_set(err, -ENODEV, SDC_FAULT_PEER,
                                                  "the device is virtio device %u; a disk is 2", kind)
                                  : sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a disk");
    }
    made->disk.ops = &blk_ops;
    int ret = sdc_driver_device_open(&made->device, transport, WANTED & ~without, err);
    if (ret == 0)
        ret = read_info(made, err);
    if (ret < 0) {
        close_disk(&made->disk);
        return ret;
    }
    *disk = &made->disk;
    return 0;
}
