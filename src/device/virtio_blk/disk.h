// SPDX-License-Identifier: BSD-3-Clause
// What the files of the virtio block device share.
#pragma once

#include "device/virtio_blk/virtio_blk.h"

#include <stdatomic.h>

enum {
    BLK_RANGES = 16,           // segments of one discard or write zeroes request
    BLK_RANGE_SECTORS = 1 << 22, // most sectors of a segment: 2 GiB
    VIRTIO_BLK_REQUEST_SIZE = 832, // bytes that the device keeps with each request
};

struct virtio_blk {
    struct sdc_virtio_device device;
    struct sdc_block *block;
    struct sdc_virtio_blk_options options;
    struct sdc_block_info info; // as of creation: only the size changes
    uint64_t accepted;          // features
    atomic_bool writeback;      // the driver lets writes stay in the cache until it flushes
};

// Turns a request into I/O (request.c). Their declarations are those of struct sdc_virtio_ops.
int virtio_blk_queue_start(struct sdc_virtio_device *device, struct sdc_virtqueue *queue);
void virtio_blk_queue_stop(struct sdc_virtio_device *device, struct sdc_virtqueue *queue);
uint32_t virtio_blk_queue_lost(struct sdc_virtio_device *device, struct sdc_virtio_request *request);
void virtio_blk_queue_cancel(struct sdc_virtio_device *device, struct sdc_virtqueue *queue);
void virtio_blk_queue_work(struct sdc_virtio_device *device, struct sdc_virtqueue *queue);
