// SPDX-License-Identifier: BSD-3-Clause
// A virtio disk's life: what it is, its queues, the memory of its requests' headers.
#include "driver/blk.h"

#include "base/bytes.h"
#include "base/check.h"
#include "driver/blk_queue.h"

#include <sidecard/virtio.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEVICE_BLK = 2,

    SECTOR = 512,
    DEPTH = 128,
    REQUEST_MAX = 128 * 1024,
    SEGMENTS_MAX = 4096, // data segments of one request that we make
};

#define QUEUES_IOVA UINT64_C(0x100000)
#define FIRST_4G (UINT64_C(1) << 32)

// Features (5.2.3).
#define F_SIZE_MAX (UINT64_C(1) << 1)
#define F_SEG_MAX (UINT64_C(1) << 2)
#define F_RO (UINT64_C(1) << 5)
#define F_BLK_SIZE (UINT64_C(1) << 6)
#define F_FLUSH (UINT64_C(1) << 9)
#define F_TOPOLOGY (UINT64_C(1) << 10)
#define F_CONFIG_WCE (UINT64_C(1) << 11)
#define F_MQ (UINT64_C(1) << 12)
#define F_DISCARD (UINT64_C(1) << 13)
#define F_WRITE_ZEROES (UINT64_C(1) << 14)
#define WANTED                                                                                             \
    (F_SIZE_MAX | F_SEG_MAX | F_RO | F_BLK_SIZE | F_FLUSH | F_TOPOLOGY | F_CONFIG_WCE | F_MQ | F_DISCARD | \
     F_WRITE_ZEROES | SDC_VIRTIO_F_INDIRECT_DESC | SDC_VIRTIO_F_EVENT_IDX | SDC_VIRTIO_F_ACCESS_PLATFORM | \
     SDC_VIRTIO_F_RING_PACKED | SDC_VIRTIO_F_IN_ORDER | SDC_VIRTIO_F_ORDER_PLATFORM |                      \
     SDC_VIRTIO_F_NOTIFICATION_DATA | SDC_VIRTIO_F_RING_RESET)

struct sdc_driver_blk {
    struct sdc_driver_device device;
    struct sdc_driver_blk_info info;
    uint16_t queues_count;
    struct sdc_driver_blk_queue **queues;
};

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
    [CAPACITY] = {0, 0, 8, 0}, // sectors of 512 bytes, as all of them
    [SIZE_MAX_FIELD] = {F_SIZE_MAX, 8, 4, UINT32_MAX & ~UINT32_C(511)},
    [SEG_MAX] = {F_SEG_MAX, 12, 4, 1},
    [BLK_SIZE] = {F_BLK_SIZE, 20, 4, SECTOR},
    [NUM_QUEUES] = {F_MQ, 34, 2, 1},
    [MAX_DISCARD] = {F_DISCARD, 36, 4, 0},
    [MAX_ZEROES] = {F_WRITE_ZEROES, 48, 4, 0},
    [MAY_UNMAP] = {F_WRITE_ZEROES, 56, 1, 0},
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
    if (!sdc_mul(values[CAPACITY], SECTOR, &size) || values[BLK_SIZE] < SECTOR ||
        !sdc_is_power_of_two(values[BLK_SIZE]) || values[SIZE_MAX_FIELD] == 0 || values[SEG_MAX] == 0 ||
        values[NUM_QUEUES] == 0)
        return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER,
                             "the disk's configuration makes no sense: %" PRIu64
                             " sectors, block size %" PRIu64 ", size_max %" PRIu64 ", seg_max %" PRIu64
                             ", %" PRIu64 " queues",
                             values[CAPACITY], values[BLK_SIZE], values[SIZE_MAX_FIELD], values[SEG_MAX],
                             values[NUM_QUEUES]);
    blk->info = (struct sdc_driver_blk_info){
        .size = size,
        .block_size = (uint32_t)values[BLK_SIZE],
        .seg_max = (uint32_t)values[SEG_MAX],
        .size_max = (uint32_t)values[SIZE_MAX_FIELD],
        .queues = (uint16_t)values[NUM_QUEUES],
        .read_only = features & F_RO,
        .flush = features & F_FLUSH,
        .discard = features & F_DISCARD,
        .write_zeroes = features & F_WRITE_ZEROES,
        .unmap = values[MAY_UNMAP] != 0,
        .discard_max = values[MAX_DISCARD] * SECTOR,
        .write_zeroes_max = values[MAX_ZEROES] * SECTOR,
        .features = features,
        .packed = features & SDC_VIRTIO_F_RING_PACKED,
        .notified_by = "",
        .in_order = features & SDC_VIRTIO_F_IN_ORDER,
    };
    return 0;
}

// --- opening and starting ---

int sdc_driver_blk_open(struct sdc_driver_transport *transport, uint64_t without, struct sdc_driver_blk **blk,
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
    int ret = sdc_driver_device_open(&made->device, transport, WANTED & ~without, err);
    if (ret == 0)
        ret = read_info(made, err);
    if (ret < 0) {
        sdc_driver_blk_close(made);
        return ret;
    }
    *blk = made;
    return 0;
}

// How many data segments a request of `bytes` takes, at least one; an error when the device takes fewer.
static int count_segments(const struct sdc_driver_blk_info *info, uint64_t bytes, uint32_t *segments,
                          struct sdc_error *err)
{
    uint64_t count = bytes / info->size_max + (bytes % info->size_max != 0);
    uint64_t limit = sdc_min(info->seg_max, SEGMENTS_MAX);
    if (count > limit)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "requests of %" PRIu64 " bytes: the device takes %" PRIu64 " (%" PRIu64
                             " segments of %" PRIu32 ")",
                             bytes, limit * info->size_max, limit, info->size_max);
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
        ret = sdc_driver_blk_queue_new(&blk->device, &blk->info, i, depth, segments, &blk->queues[i], err);
    return ret;
}

int sdc_driver_blk_start(struct sdc_driver_blk *blk, const struct sdc_driver_blk_options *options,
                         struct sdc_error *err)
{
    static const struct sdc_driver_blk_options defaults;
    if (!options)
        options = &defaults;
    uint64_t request_max = options->request_max;
    uint32_t depth = options->depth > 0 ? options->depth : DEPTH;
    uint32_t segments = 0;
    if (request_max == 0)
        request_max = sdc_min(REQUEST_MAX, (uint64_t)blk->info.size_max * blk->info.seg_max);
    if (options->queues > blk->info.queues)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "%u queues: the device has %u", options->queues,
                             blk->info.queues);
    int ret = count_segments(&blk->info, request_max, &segments, err);
    if (ret < 0)
        return ret;
    uint16_t count = options->queues > 0 ? options->queues : 1;
    struct sdc_driver_device_options setup = {
        .queues = count,
        .queue_size = options->queue_size,
        .indirect_max = (uint16_t)(segments + 2),
        .iova = QUEUES_IOVA,
        .extra = count * sdc_driver_blk_queue_memory(depth),
        .interrupts = !options->poll,
        .private_memory = options->private_memory,
    };
    ret = sdc_driver_device_start(&blk->device, &setup, err);
    if (ret < 0)
        return ret;
    blk->queues_count = count;
    blk->info.queue_size = blk->device.queues[0]->config.size;
    if (blk->device.transport->ops->notified_by)
        blk->info.notified_by = blk->device.transport->ops->notified_by(blk->device.transport, 0);
    uint32_t room = count_room(blk, segments);
    if (room == 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "a request of %" PRIu64 " bytes takes %" PRIu32
                             " descriptors, more than a chain may have in a queue of %u entries%s",
                             request_max, segments + 2, blk->info.queue_size,
                             blk->info.packed ? " without indirect tables" : "; packed rings with indirect tables take it");
    if (options->depth > room)
        return sdc_error_set(err, -E2BIG, SDC_FAULT_USER,
                             "%" PRIu32 " requests in flight: the device's queues hold %" PRIu32
                             " requests of %" PRIu64 " bytes",
                             depth, room, request_max);
    return make_queues(blk, (uint32_t)sdc_min(depth, room), segments, err);
}

void sdc_driver_blk_close(struct sdc_driver_blk *blk)
{
    if (!blk)
        return;
    // The device is reset before its requests' memory goes.
    sdc_driver_device_close(&blk->device);
    for (uint16_t i = 0; blk->queues && i < blk->queues_count; i++)
        sdc_driver_blk_queue_free(blk->queues[i]);
    free(blk->queues);
    free(blk);
}

const struct sdc_driver_blk_info *sdc_driver_blk_info(const struct sdc_driver_blk *blk)
{
    return &blk->info;
}

int sdc_driver_blk_map(struct sdc_driver_blk *blk, const struct sdc_client_memory *memory,
                       struct sdc_error *err)
{
    if (memory->iova < FIRST_4G)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "memory for data at iova 0x%" PRIx64 ": it begins at 4 GiB or above",
                             memory->iova);
    return blk->device.transport->ops->map(blk->device.transport, memory, err);
}

int sdc_driver_blk_reset_queue(struct sdc_driver_blk *blk, uint16_t index, struct sdc_error *err)
{
    int ret = sdc_driver_device_reset_queue(&blk->device, index, err);
    if (ret == 0)
        sdc_driver_blk_queue_restart(blk->queues[index]);
    return ret;
}

int sdc_driver_blk_recover(struct sdc_driver_blk *blk, uint32_t timeout_ms, struct sdc_error *err)
{
    return sdc_driver_device_recover(&blk->device, timeout_ms, err);
}

int sdc_driver_blk_check(struct sdc_driver_blk *blk, struct sdc_error *err)
{
    return sdc_driver_device_check(&blk->device, err);
}

struct sdc_driver_blk_queue *sdc_driver_blk_queue(struct sdc_driver_blk *blk, uint16_t index)
{
    return blk->queues[index];
}
