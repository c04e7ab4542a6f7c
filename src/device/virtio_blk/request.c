// SPDX-License-Identifier: BSD-3-Clause
// Requests (virtio 1.2, 5.2.6): a header, data, and a status byte at the end of what the device writes; how they are laid out
// in descriptors does not matter. A queue takes them in batches and hands each batch to the backend as one.
#include "base/bytes.h"
#include "base/check.h"
#include "device/virtio_blk/disk.h"

#include <errno.h>
#include <stdlib.h>

enum { BATCH = 64 };

// A segment of a discard or write zeroes request.
struct range {
    uint64_t offset; // bytes
    uint64_t size;   // bytes
    uint32_t flags;  // enum sdc_block_flags
};

// What the device keeps about a request. What lies behind block is looked at where there are ranges only.
struct blk_request {
    struct sdc_block_request block;
    uint32_t ranges_count;
    uint32_t ranges_done;
    struct range ranges[BLK_RANGES];
};
_Static_assert(sizeof(struct blk_request) <= VIRTIO_BLK_REQUEST_SIZE, "the size that disk.h tells the queues");

// A queue's context.
struct blk_queue {
    struct virtio_blk *disk;
    struct sdc_block_queue *backend;
    bool cancelled; // nothing begins any more: it would be waited for, and cancelled by nobody
};

// --- the end of a request ---

// Writes the status byte, the last one that the device may write. How many bytes are written; where it cannot be reached, none.
static uint32_t put_status(struct sdc_virtio_request *request, uint8_t status)
{
    uint64_t size = request->writable_size;

    return size > 0 && sdc_virtio_request_write(request, size - 1, &status, 1) == 0 ? (uint32_t)size : 0;
}

static void complete(struct sdc_virtio_request *request, uint8_t status)
{
    sdc_virtqueue_give(request, put_status(request, status));
}

uint32_t virtio_blk_queue_lost(struct sdc_virtio_device *device, struct sdc_virtio_request *request)
{
    (void)device;
    return put_status(request, SDC_VIRTIO_BLK_S_IOERR);
}

static uint8_t status_of(int result)
{
    if (result == 0)
        return SDC_VIRTIO_BLK_S_OK;
    return result == -EOPNOTSUPP ? SDC_VIRTIO_BLK_S_UNSUPP : SDC_VIRTIO_BLK_S_IOERR;
}

static bool has_more(const struct blk_request *blk)
{
    bool ranges = blk->block.op == SDC_BLOCK_DISCARD || blk->block.op == SDC_BLOCK_WRITE_ZEROES;

    return ranges && blk->ranges_done < blk->ranges_count;
}

static void next_range(struct blk_request *blk)
{
    const struct range *range = &blk->ranges[blk->ranges_done++];

    blk->block.offset = range->offset;
    blk->block.size = range->size;
    blk->block.flags = range->flags;
}

static void blk_done(void *context, struct sdc_block_request **requests, unsigned count)
{
    struct blk_queue *queue = context;

    for (unsigned i = 0; i < count; i++) {
        struct blk_request *blk = requests[i]->owner;
        bool more = requests[i]->result == 0 && has_more(blk);
        if (more && queue->cancelled)
            requests[i]->result = -ECANCELED;
        if (more && !queue->cancelled) {
            next_range(blk);
            queue->backend->ops->submit(queue->backend, &requests[i], 1);
        } else if (requests[i]->result != -ECANCELED || !sdc_virtqueue_leave(sdc_virtio_request_of(blk))) {
            complete(sdc_virtio_request_of(blk), status_of(requests[i]->result));
        }
    }
}

// --- the start of a request. Each of these returns the status with which the request ends at once, or GO ---

enum { GO = -1 };

// The cache is off, or the driver cannot flush: nothing may stay behind in it.
static uint32_t write_flags(const struct virtio_blk *disk)
{
    return disk->writeback ? 0 : SDC_BLOCK_FUA;
}

static int prepare_data(struct virtio_blk *disk, struct sdc_virtio_request *request, struct blk_request *blk, bool write,
                        uint64_t sector)
{
    struct sdc_block_request *block = &blk->block;
    uint64_t size = write ? request->readable_size - SDC_VIRTIO_BLK_HEADER : request->writable_size - 1;
    uint64_t end;

    if (write && disk->info.read_only)
        return SDC_VIRTIO_BLK_S_IOERR;
    if (!sdc_mul(sector, SDC_VIRTIO_BLK_SECTOR, &block->offset) || !sdc_add(block->offset, size, &end) ||
        size == 0 || block->offset % disk->info.block_size != 0 || size % disk->info.block_size != 0)
        return SDC_VIRTIO_BLK_S_IOERR;
    block->op = write ? SDC_BLOCK_WRITE : SDC_BLOCK_READ;
    block->flags = write ? write_flags(disk) : 0;
    block->size = size;
    int rc = sdc_virtio_request_spans(request, !write, write ? SDC_VIRTIO_BLK_HEADER : 0, size, &block->spans, &block->spans_count);
    return rc < 0 ? SDC_VIRTIO_BLK_S_IOERR : GO;
}

static int prepare_flush(struct blk_request *blk)
{
    blk->block.op = SDC_BLOCK_FLUSH;
    blk->block.offset = blk->block.size = 0;
    blk->block.flags = 0;
    return GO;
}

// Checks one segment (virtio 1.2, 5.2.6.2) and takes it over.
static int parse_range(struct virtio_blk *disk, const uint8_t raw[SDC_VIRTIO_BLK_RANGE], bool zeroes, struct range *range)
{
    uint64_t sector = sdc_get64(raw);
    uint32_t sectors = sdc_get32(raw + 8);
    uint32_t flags = sdc_get32(raw + 12);
    uint64_t end;

    if (flags & ~(uint32_t)SDC_VIRTIO_BLK_UNMAP || (!zeroes && flags & SDC_VIRTIO_BLK_UNMAP))
        return SDC_VIRTIO_BLK_S_UNSUPP;
    range->size = (uint64_t)sectors * SDC_VIRTIO_BLK_SECTOR;
    if (sectors > BLK_RANGE_SECTORS || !sdc_mul(sector, SDC_VIRTIO_BLK_SECTOR, &range->offset) ||
        !sdc_add(range->offset, range->size, &end) || range->offset % disk->info.block_size != 0 ||
        range->size % disk->info.block_size != 0)
        return SDC_VIRTIO_BLK_S_IOERR;
    range->flags = zeroes ? write_flags(disk) | (flags & SDC_VIRTIO_BLK_UNMAP ? SDC_BLOCK_UNMAP : 0) : 0;
    return GO;
}

static int prepare_ranges(struct virtio_blk *disk, struct sdc_virtio_request *request, struct blk_request *blk, bool zeroes)
{
    uint8_t raw[BLK_RANGES * SDC_VIRTIO_BLK_RANGE];
    uint64_t size = request->readable_size - SDC_VIRTIO_BLK_HEADER;

    if (!(sdc_virtqueue_features(request->queue) & (zeroes ? SDC_VIRTIO_BLK_F_WRITE_ZEROES : SDC_VIRTIO_BLK_F_DISCARD)))
        return SDC_VIRTIO_BLK_S_UNSUPP;
    if (disk->info.read_only || size == 0 || size % SDC_VIRTIO_BLK_RANGE != 0 || size > sizeof raw)
        return SDC_VIRTIO_BLK_S_IOERR;
    if (sdc_virtio_request_read(request, SDC_VIRTIO_BLK_HEADER, raw, (size_t)size) < 0)
        return SDC_VIRTIO_BLK_S_IOERR;
    for (uint32_t i = 0; i < size / SDC_VIRTIO_BLK_RANGE; i++) {
        int status = parse_range(disk, raw + i * SDC_VIRTIO_BLK_RANGE, zeroes, &blk->ranges[i]);
        if (status != GO)
            return status;
    }
    blk->block.op = zeroes ? SDC_BLOCK_WRITE_ZEROES : SDC_BLOCK_DISCARD;
    blk->ranges_count = (uint32_t)(size / SDC_VIRTIO_BLK_RANGE);
    blk->ranges_done = 0;
    next_range(blk);
    return GO;
}

static int get_id(struct virtio_blk *disk, struct sdc_virtio_request *request)
{
    uint64_t size = sdc_min(SDC_VIRTIO_BLK_ID_BYTES, request->writable_size - 1);

    if (size == 0)
        return SDC_VIRTIO_BLK_S_IOERR;
    int rc = sdc_virtio_request_write(request, 0, disk->options.serial, (size_t)size);

    return rc < 0 ? SDC_VIRTIO_BLK_S_IOERR : SDC_VIRTIO_BLK_S_OK;
}

static int prepare(struct virtio_blk *disk, struct sdc_virtio_request *request, struct blk_request *blk)
{
    uint8_t header[SDC_VIRTIO_BLK_HEADER];

    if (request->fault || request->writable_size == 0 || sdc_virtio_request_read(request, 0, header, sizeof header) < 0)
        return SDC_VIRTIO_BLK_S_IOERR;
    blk->block.owner = blk;
    blk->block.spans = NULL;
    blk->block.spans_count = 0;

    switch (sdc_get32(header)) {
    case SDC_VIRTIO_BLK_T_IN:
        return prepare_data(disk, request, blk, false, sdc_get64(header + 8));
    case SDC_VIRTIO_BLK_T_OUT:
        return prepare_data(disk, request, blk, true, sdc_get64(header + 8));
    case SDC_VIRTIO_BLK_T_FLUSH:
        return prepare_flush(blk);
    case SDC_VIRTIO_BLK_T_GET_ID:
        return get_id(disk, request);
    case SDC_VIRTIO_BLK_T_DISCARD:
        return prepare_ranges(disk, request, blk, false);
    case SDC_VIRTIO_BLK_T_WRITE_ZEROES:
        return prepare_ranges(disk, request, blk, true);
    default:
        return SDC_VIRTIO_BLK_S_UNSUPP;
    }
}

void virtio_blk_queue_work(struct sdc_virtio_device *device, struct sdc_virtqueue *virtqueue)
{
    struct virtio_blk *disk = (struct virtio_blk *)(void *)device;
    struct blk_queue *queue = sdc_virtqueue_context(virtqueue);
    struct sdc_virtio_request *requests[BATCH];
    struct sdc_block_request *batch[BATCH];
    unsigned taken;

    do {
        unsigned count = 0;
        taken = sdc_virtqueue_take(virtqueue, requests, BATCH);
        for (unsigned i = 0; i < taken; i++) {
            struct blk_request *blk = sdc_virtio_request_private(requests[i]);
            int status = prepare(disk, requests[i], blk);
            if (status == GO)
                batch[count++] = &blk->block;
            else
                complete(requests[i], (uint8_t)status);
        }
        if (count > 0)
            queue->backend->ops->submit(queue->backend, batch, count);
        // What came meanwhile is for the next turn, after what is here was answered: it would come one by one.
    } while (taken == BATCH);
}

// --- the life of a queue ---

int virtio_blk_queue_start(struct sdc_virtio_device *device, struct sdc_virtqueue *virtqueue)
{
    struct virtio_blk *disk = (struct virtio_blk *)(void *)device;
    struct blk_queue *queue = calloc(1, sizeof *queue);
    if (!queue)
        return -ENOMEM;

    queue->disk = disk;
    int rc = disk->block->ops->queue_open(disk->block, sdc_virtqueue_loop(virtqueue), blk_done, queue, &queue->backend);
    if (rc < 0) {
        free(queue);
        return rc;
    }
    sdc_virtqueue_set_context(virtqueue, queue);
    return 0;
}

void virtio_blk_queue_cancel(struct sdc_virtio_device *device, struct sdc_virtqueue *virtqueue)
{
    struct blk_queue *queue = sdc_virtqueue_context(virtqueue);

    (void)device;
    queue->cancelled = true;
    if (queue->backend->ops->cancel)
        queue->backend->ops->cancel(queue->backend);
}

void virtio_blk_queue_stop(struct sdc_virtio_device *device, struct sdc_virtqueue *virtqueue)
{
    struct blk_queue *queue = sdc_virtqueue_context(virtqueue);

    (void)device;
    queue->backend->ops->close(queue->backend);
    free(queue);
}
