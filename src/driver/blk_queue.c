// SPDX-License-Identifier: BSD-3-Clause
// Requests of a virtio disk (virtio 1.2, 5.2.6): header, data, status.
#include "driver/blk_queue.h"

#include "base/bytes.h"
#include "base/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

// Types and statuses (5.2.6).
enum {
    TYPE_IN = 0,
    TYPE_OUT = 1,
    TYPE_FLUSH = 4,
    TYPE_GET_ID = 8,
    TYPE_DISCARD = 11,
    TYPE_WRITE_ZEROES = 13,
    STATUS_OK = 0,
    STATUS_IOERR = 1,
    STATUS_UNSUPPORTED = 2,
    STATUS_NONE = 0xff, // ours: the device has not written it
};

// A request's own memory that the device sees.
enum {
    SLOT_HEADER = 0,  // 16 bytes: type, reserved, sector
    SLOT_RANGE = 16,  // 16 bytes: DISCARD's and WRITE_ZEROES' sector, sectors, flags
    SLOT_STATUS = 32, // 1 byte
    SLOT_BYTES = 64,  // a cache line
    HEADER_BYTES = 16,
    RANGE_BYTES = 16,
    GET_ID_BYTES = 20,
    RANGE_UNMAP = 1,
    SECTOR = 512,
    TAKE_MAX = 64,
};

struct sdc_driver_blk_queue {
    struct sdc_driver_disk_queue disk;
    struct sdc_driver_device *device;
    struct sdc_driver_queue *ring;
    uint32_t size_max;
    uint32_t segments_max; // of data
    uint8_t *slots;
    uint64_t slots_iova;
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
    return (uint64_t)depth * SLOT_BYTES + SLOT_BYTES;
}

void sdc_driver_blk_queue_restart(struct sdc_driver_blk_queue *queue)
{
    // The first to be taken is slot 0.
    for (uint32_t i = 0; i < queue->depth; i++)
        queue->free_slots[i] = queue->depth - 1 - i;
    queue->free_count = queue->depth;
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

static uint32_t type_of(enum sdc_driver_disk_op op)
{
    switch (op) {
    case SDC_DRIVER_DISK_READ:
        return TYPE_IN;
    case SDC_DRIVER_DISK_WRITE:
        return TYPE_OUT;
    case SDC_DRIVER_DISK_FLUSH:
        return TYPE_FLUSH;
    case SDC_DRIVER_DISK_DISCARD:
        return TYPE_DISCARD;
    case SDC_DRIVER_DISK_WRITE_ZEROES:
    case SDC_DRIVER_DISK_WRITE_ZEROES_UNMAP:
        return TYPE_WRITE_ZEROES;
    case SDC_DRIVER_DISK_GET_ID:
        return TYPE_GET_ID;
    case SDC_DRIVER_DISK_COMPARE:
        break;
    }
    return UINT32_MAX;
}

static bool has_range(enum sdc_driver_disk_op op)
{
    return op == SDC_DRIVER_DISK_DISCARD || op == SDC_DRIVER_DISK_WRITE_ZEROES ||
           op == SDC_DRIVER_DISK_WRITE_ZEROES_UNMAP;
}

static bool is_whole(const struct sdc_driver_disk_request *request)
{
    if (has_range(request->op) && request->size / SECTOR > UINT32_MAX)
        return false;
    return request->op != SDC_DRIVER_DISK_COMPARE && sdc_driver_disk_is_whole(request);
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

static void fill_slot(struct sdc_driver_blk_queue *queue, uint32_t slot,
                      const struct sdc_driver_disk_request *request)
{
    uint8_t *memory = queue->slots + (size_t)slot * SLOT_BYTES;
    bool plain = request->op == SDC_DRIVER_DISK_READ || request->op == SDC_DRIVER_DISK_WRITE;
    sdc_put32(memory + SLOT_HEADER, type_of(request->op));
    sdc_put32(memory + SLOT_HEADER + 4, 0);
    sdc_put64(memory + SLOT_HEADER + 8, plain ? request->offset / SECTOR : 0);
    if (has_range(request->op)) {
        sdc_put64(memory + SLOT_RANGE, request->offset / SECTOR);
        sdc_put32(memory + SLOT_RANGE + 8, (uint32_t)(request->size / SECTOR));
        sdc_put32(memory + SLOT_RANGE + 12,
                  request->op == SDC_DRIVER_DISK_WRITE_ZEROES_UNMAP ? RANGE_UNMAP : 0);
    }
    memory[SLOT_STATUS] = STATUS_NONE;
}

// Puts one request into the ring. 0, -ENOSPC, -EINVAL.
static int submit_one(struct sdc_driver_blk_queue *queue, struct sdc_driver_disk_request *request)
{
    if (!is_whole(request))
        return -EINVAL;
    if (queue->free_count == 0)
        return -ENOSPC;
    uint32_t slot = queue->free_slots[queue->free_count - 1];
    uint64_t iova = queue->slots_iova + (uint64_t)slot * SLOT_BYTES;
    bool writes = request->op == SDC_DRIVER_DISK_READ || request->op == SDC_DRIVER_DISK_GET_ID;
    uint64_t size = request->op == SDC_DRIVER_DISK_GET_ID ? GET_ID_BYTES : request->size;
    int count = 1;
    fill_slot(queue, slot, request);
    queue->segments[0] = (struct sdc_driver_segment){.iova = iova + SLOT_HEADER, .size = HEADER_BYTES};
    if (has_range(request->op))
        count = add_data(queue, 1, iova + SLOT_RANGE, RANGE_BYTES);
    else if (request->op != SDC_DRIVER_DISK_FLUSH)
        count = add_data(queue, 1, request->data, size);
    if (count < 0)
        return count;
    queue->segments[count] = (struct sdc_driver_segment){.iova = iova + SLOT_STATUS, .size = 1};
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
    case STATUS_OK:
        return 0;
    case STATUS_IOERR:
        return -EIO;
    case STATUS_UNSUPPORTED:
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
        request->status = queue->slots[(size_t)request->slot * SLOT_BYTES + SLOT_STATUS];
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
        made->slots = sdc_client_memory_take(&device->memory, (uint64_t)depth * SLOT_BYTES, SLOT_BYTES,
                                             &made->slots_iova);
        made->free_slots = calloc(depth, sizeof *made->free_slots);
        made->segments = calloc(segments_max + (size_t)2, sizeof *made->segments);
    }
    if (!made || !made->slots || !made->free_slots || !made->segments) {
        sdc_driver_blk_queue_free(made);
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for queue %u with %" PRIu32 " requests",
                             index, depth);
    }
    sdc_driver_blk_queue_restart(made);
    *queue = made;
    return 0;
}
