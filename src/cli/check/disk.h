// SPDX-License-Identifier: BSD-3-Clause
// What a virtio disk says of itself, and the numbers of its requests (virtio 1.2, 5.2).
#pragma once

#include "cli/check/bed.h"

enum { SDC_CHECK_SECTOR = 512 };

enum sdc_check_disk_type {
    SDC_CHECK_DISK_IN = 0,
    SDC_CHECK_DISK_OUT = 1,
    SDC_CHECK_DISK_FLUSH = 4,
    SDC_CHECK_DISK_GET_ID = 8,
    SDC_CHECK_DISK_DISCARD = 11,
    SDC_CHECK_DISK_WRITE_ZEROES = 13,
};

enum { SDC_CHECK_DISK_OK = 0, SDC_CHECK_DISK_IOERR = 1, SDC_CHECK_DISK_UNSUPP = 2, SDC_CHECK_DISK_UNTOUCHED = 0xa5 };

// Features of the device's own (5.2.3).
#define SDC_CHECK_BLK_F_SIZE_MAX (UINT64_C(1) << 1)
#define SDC_CHECK_BLK_F_SEG_MAX (UINT64_C(1) << 2)
#define SDC_CHECK_BLK_F_RO (UINT64_C(1) << 5)
#define SDC_CHECK_BLK_F_BLK_SIZE (UINT64_C(1) << 6)
#define SDC_CHECK_BLK_F_FLUSH (UINT64_C(1) << 9)
#define SDC_CHECK_BLK_F_MQ (UINT64_C(1) << 12)
#define SDC_CHECK_BLK_F_DISCARD (UINT64_C(1) << 13)
#define SDC_CHECK_BLK_F_WRITE_ZEROES (UINT64_C(1) << 14)
#define SDC_CHECK_BLK_FEATURES                                                                                          \
    (SDC_CHECK_BLK_F_SIZE_MAX | SDC_CHECK_BLK_F_SEG_MAX | SDC_CHECK_BLK_F_RO | SDC_CHECK_BLK_F_BLK_SIZE |               \
     SDC_CHECK_BLK_F_FLUSH | SDC_CHECK_BLK_F_MQ | SDC_CHECK_BLK_F_DISCARD | SDC_CHECK_BLK_F_WRITE_ZEROES)

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
