// SPDX-License-Identifier: BSD-3-Clause
// What a virtio disk says of itself (virtio 1.2, 5.2).
#pragma once

#include "cli/check/bed.h"
#include "wire/virtio_blk.h"

enum { SDC_CHECK_DISK_UNTOUCHED = 0xa5 }; // a status that the device has not written

// Features of the device's own that the tester knows.
#define SDC_CHECK_BLK_FEATURES                                                                                          \
    (SDC_VIRTIO_BLK_F_SIZE_MAX | SDC_VIRTIO_BLK_F_SEG_MAX | SDC_VIRTIO_BLK_F_RO | SDC_VIRTIO_BLK_F_BLK_SIZE |           \
     SDC_VIRTIO_BLK_F_FLUSH | SDC_VIRTIO_BLK_F_MQ | SDC_VIRTIO_BLK_F_DISCARD | SDC_VIRTIO_BLK_F_WRITE_ZEROES)

// What the disk says of itself.
struct sdc_check_disk {
    uint64_t sectors;
    uint32_t block_sectors; // of its logical blocks
    uint32_t size_max;      // bytes of one descriptor
    uint32_t seg_max;       // descriptors of a request's data
    uint16_t queues;
    uint32_t discard_sectors, discard_segments;
    uint32_t zeroes_sectors, zeroes_segments;
};
void sdc_check_disk_read(struct sdc_check_bed *bed, struct sdc_check_disk *disk);
