// SPDX-License-Identifier: BSD-3-Clause
// The virtio block device (virtio 1.2, 5.2): a disk on a block backend.
#pragma once

#include "wire/virtio_blk.h"

#include <sidecard/block.h>
#include <sidecard/virtio.h>

struct sdc_virtio_blk_options {
    uint16_t queues;     // 1 to 1024
    uint16_t queue_size; // entries
    uint32_t seg_max;    // most data segments of a request; 0: what the queue size suggests
    uint32_t size_max;   // most bytes of a segment; 0: no limit is told
    bool write_cache;    // whether the driver finds the cache on (it may switch it)
    char serial[SDC_VIRTIO_BLK_ID_BYTES + 1];
};

// Makes a disk on block, which it takes over when it succeeds. -EINVAL with err filled: options that don't fit together.
int sdc_virtio_blk_new(struct sdc_block *block, const struct sdc_virtio_blk_options *options,
                       struct sdc_virtio_device **device, struct sdc_error *err);

// Home loop: looks at the backend's size again; the driver is told of a new capacity.
void sdc_virtio_blk_refresh(struct sdc_virtio_device *device);
