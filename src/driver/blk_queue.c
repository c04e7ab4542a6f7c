// SPDX-License-Identifier: BSD-3-Clause
// Requests of a virtio disk (virtio 1.2, 5.2.6): header, data, status.
#include "driver/blk_queue.h"

#include "base/bytes.h"
#include "base/check.h"
#include "base/line.h"
#include "wire/virtio_blk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    STATUS_NONE = 0xff, // the device has not written it
    TAKE_MAX = 64,
};
_Static_assert((int)SDC_VIRTIO_BLK_HEADER == (int)SDC_DRIVER_SIDE, "the room that a header has");

struct sdc_driver_blk_queue {
    struct sdc_driver_disk_queue disk;
    struct sdc_driver_device *device;
    struct sdc_driver_queue *ring;
    uint32_t size_max;
    uint32_t segments_max; // of data
    // A status byte for each slot, side by side: those of a batch come back from the device on a line or two. Each is STATUS_NONE but
    // while it has the device's answer.
    uint8_t *statuses;
    uint64_t statuses_iova;
    uint8_t *ranges; // SDC_VIRTIO_BLK_RANGE for each slot
    uint64_t ranges_iova;
    uint32_t depth; // slots
    uint32_t free_count;
    uint32_t *free_slots;
    struct sdc_driver_segment *segments; // room for one request: header, data, status
};

static struct sdc_driver_blk_queue *of(struct sdc_driver_disk_queue *queue)
{
    return sdc_container(queue, struct sdc_driver_blk_queue, disk);
}

struct sdc_driver_disk_queue *sdc_driver_blk_queue_disk(struct sdc_driver_blk_queue *queue)
{
    return &queue->disk;
}

uint64_t sdc_driver_blk_queue_memory(uint32_t depth)
{
    // Two pieces, each of which may have to be aligned.
    return (uint64_t)depth * (SDC_VIRTIO_BLK_RANGE + 1) + 3 * SDC_LINE;
}

void sdc_driver_blk_queue_restart(struct sdc_driver_blk_queue *queue)
{
    // The first to be taken is slot 0.
    for (uint32_t i = 0; i < queue->depth; i++)
        queue->free_slots[i] = queue->depth - 1 - i;
    queue->free_count = queue->depth;
    memset(queue->statuses, STATUS_NONE, queue->depth);
}

void sdc_driver_blk_queue_free(struct sdc_driver_blk_queue *queue)
{
    if (!queue)
        return;
    free(queue->free_slots);
    free(queue->segments);
    free(queue);
}

// --- submitting ---

static const uint8_t types[] = {
    [SDC_DRIVER_DISK_READ] = SDC_VIRTIO_BLK_T_IN,
    [SDC_DRIVER_DISK_WRITE] = SDC_VIRTIO_BLK_T_OUT,
    [SDC_DRIVER_DISK_FLUSH] = SDC_VIRTIO_BLK_T_FLUSH,
    [SDC_DRIVER_DISK_DISCARD] = SDC_VIRTIO_BLK_T_DISCARD,
    [SDC_DRIVER_DISK_WRITE_ZEROES] = SDC_VIRTIO_BLK_T_WRITE_ZEROES,
    [SDC_DRIVER_DISK_WRITE_ZEROES_UNMAP] = SDC_VIRTIO_BLK_T_WRITE_ZEROES,
    [SDC_DRIVER_DISK_GET_ID] = SDC_VIRTIO_BLK_T_GET_ID,
};

static bool has_range(enum sdc_driver_disk_op op)
{
    return op == SDC_DRIVER_DISK_DISCARD || op == SDC_DRIVER_DISK_WRITE_ZEROES ||
           op == SDC_DRIVER_DISK_WRITE_ZEROES_UNMAP;
}

static bool is_whole(const struct sdc_driver_disk_request *request)
{
    if ((unsigned)request->op >= SDC_COUNT(types) || request->op == SDC_DRIVER_DISK_COMPARE)
        return false;
    if (has_range(request->op) && request->size / SDC_VIRTIO_BLK_SECTOR > UINT32_MAX)
        return false;
    return sdc_driver_disk_is_whole(request);
}

// Appends the data's segments, none over size_max. The number after them, or -EINVAL: too many.
static int add_data(struct sdc_driver_blk_queue *queue, unsigned count, uint64_t iova, uint64_t size)
{
    while (size > 0) {
        uint32_t step = (uint32_t)sdc_min(size, queue->size_max);
        if (count > queue->segments_max)
            return -EINVAL;
        queue->segments[count++] = (struct sdc_driver_segment){.iova = iova, .size = step};
        iova += step;
        size -= step;
    }
    return (int)count;
}

static void fill_header(uint8_t *header, const struct sdc_driver_disk_request *request)
{
    bool plain = request->op == SDC_DRIVER_DISK_READ || request->op == SDC_DRIVER_DISK_WRITE;
    sdc_put32(header, types[request->op]);
    sdc_put32(header + 4, 0);
    sdc_put64(header + 8, plain ? request->offset / SDC_VIRTIO_BLK_SECTOR : 0);
}

static void fill_range(uint8_t *range, const struct sdc_driver_disk_request *request)
{
    sdc_put64(range, request->offset / SDC_VIRTIO_BLK_SECTOR);
    sdc_put32(range + 8, (uint32_t)(request->size / SDC_VIRTIO_BLK_SECTOR));
    sdc_put32(range + 12, request->op == SDC_DRIVER_DISK_WRITE_ZEROES_UNMAP ? SDC_VIRTIO_BLK_UNMAP : 0);
}

// Puts one request into the ring. 0, -ENOSPC, -EINVAL.
static int submit_one(struct sdc_driver_blk_queue *queue, struct sdc_driver_disk_request *request)
{
    if (!is_whole(request))
        return -EINVAL;
    if (queue->free_count == 0 || sdc_driver_queue_is_full(queue->ring))
        return -ENOSPC;
    uint32_t slot = queue->free_slots[queue->free_count - 1];
    bool writes = request->op == SDC_DRIVER_DISK_READ || request->op == SDC_DRIVER_DISK_GET_ID;
    uint64_t size = request->op == SDC_DRIVER_DISK_GET_ID ? SDC_VIRTIO_BLK_ID_BYTES : request->size;
    int count = 1;
    fill_header(sdc_driver_queue_side(queue->ring, &queue->segments[0].iova), request);
    queue->segments[0].size = SDC_VIRTIO_BLK_HEADER;
    if (has_range(request->op)) {
        fill_range(queue->ranges + (size_t)slot * SDC_VIRTIO_BLK_RANGE, request);
        count = add_data(queue, 1, queue->ranges_iova + (uint64_t)slot * SDC_VIRTIO_BLK_RANGE, SDC_VIRTIO_BLK_RANGE);
    } else if (request->op != SDC_DRIVER_DISK_FLUSH) {
        count = add_data(queue, 1, request->data, size);
    }
    if (count < 0)
        return count;
    queue->segments[count] = (struct sdc_driver_segment){.iova = queue->statuses_iova + slot, .size = 1};
    unsigned readable = writes ? 1 : (unsigned)count;
    int ret =
        sdc_driver_queue_add(queue->ring, queue->segments, readable, (unsigned)count + 1 - readable, request);
    if (ret < 0)
        return ret;
    request->slot = slot;
    queue->free_count--;
    return 0;
}

static int submit(struct sdc_driver_disk_queue *disk_queue, struct sdc_driver_disk_request **requests, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        int ret = submit_one(of(disk_queue), requests[i]);
        if (ret == -ENOSPC || (ret < 0 && i > 0))
            return (int)i;
        if (ret < 0)
            return ret;
    }
    return (int)count;
}

static int kick(struct sdc_driver_disk_queue *disk_queue, struct sdc_error *err)
{
    return sdc_driver_device_kick(of(disk_queue)->device, disk_queue->index, err);
}

// --- taking back ---

static int result_of(uint8_t status)
{
    switch (status) {
    case SDC_VIRTIO_BLK_S_OK:
        return 0;
    case SDC_VIRTIO_BLK_S_IOERR:
        return -EIO;
    case SDC_VIRTIO_BLK_S_UNSUPP:
        return -ENOTSUP;
    default:
        return -EPROTO;
    }
}

static int take(struct sdc_driver_disk_queue *disk_queue, struct sdc_driver_disk_request **requests, unsigned max,
                struct sdc_error *err)
{
    struct sdc_driver_blk_queue *queue = of(disk_queue);
    struct sdc_driver_used used[TAKE_MAX];
    int count = sdc_driver_queue_take(queue->ring, used, max < TAKE_MAX ? max : TAKE_MAX);
    if (count < 0)
        return sdc_error_set(err, count, SDC_FAULT_PEER, "queue %u: %s", disk_queue->index, queue->ring->broken);
    for (int i = 0; i < count; i++) {
        struct sdc_driver_disk_request *request = used[i].token;
        request->status = queue->statuses[request->slot];
        queue->statuses[request->slot] = STATUS_NONE;
        request->result = result_of((uint8_t)request->status);
        queue->free_slots[queue->free_count++] = request->slot;
        requests[i] = request;
    }
    return count;
}

static int wait(struct sdc_driver_disk_queue *disk_queue, int timeout_ms, struct sdc_error *err)
{
    struct sdc_driver_blk_queue *queue = of(disk_queue);
    if (disk_queue->polled)
        return sdc_error_set(err, -ENOTSUP, SDC_FAULT_USER,
                             "queue %u is polled: there is no interrupt to wait for", disk_queue->index);
    if (!sdc_driver_queue_arm(queue->ring))
        return 1;
    int ret = sdc_driver_device_wait(queue->device, disk_queue->index, timeout_ms, err);
    sdc_driver_queue_disarm(queue->ring);
    return ret;
}

static const struct sdc_driver_disk_queue_ops queue_ops = {
    .submit = submit,
    .kick = kick,
    .take = take,
    .wait = wait,
};

// --- making ---

int sdc_driver_blk_queue_new(struct sdc_driver_device *device, const struct sdc_driver_disk_info *info,
                             uint16_t index, uint32_t depth, uint32_t segments_max,
                             struct sdc_driver_blk_queue **queue, struct sdc_error *err)
{
    struct sdc_driver_blk_queue *made = calloc(1, sizeof *made);
    if (made) {
        made->disk = (struct sdc_driver_disk_queue){
            .ops = &queue_ops, .index = index, .polled = device->waiters[index].fd < 0};
        made->device = device;
        made->ring = device->queues[index];
        made->depth = depth;
        made->size_max = info->virtio.size_max;
        made->segments_max = segments_max;
        made->statuses = sdc_client_memory_take(&device->memory, ((uint64_t)depth + SDC_LINE - 1) & ~(uint64_t)(SDC_LINE - 1), SDC_LINE,
                                                &made->statuses_iova);
        made->ranges = sdc_client_memory_take(&device->memory, (uint64_t)depth * SDC_VIRTIO_BLK_RANGE, SDC_LINE, &made->ranges_iova);
        made->free_slots = calloc(depth, sizeof *made->free_slots);
        made->segments = calloc(segments_max + (size_t)2, sizeof *made->segments);
    }
    if (!made || !made->statuses || !made->ranges || !made->free_slots || !made->segments) {
        sdc_driver_blk_queue_free(made);
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for queue %u with %" PRIu32 " requests",
                             index, depth);
    }
    sdc_driver_blk_queue_restart(made);
    *queue = made;
    return 0;
}
