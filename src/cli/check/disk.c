// SPDX-License-Identifier: BSD-3-Clause
#include "cli/check/disk.h"

#include "base/bytes.h"
#include "base/check.h"

#include <string.h>

void sdc_check_disk_read(struct sdc_check_bed *bed, struct sdc_check_disk *disk)
{
    const struct {
        uint64_t feature;
        uint32_t offset, size;
        uint64_t absent;
    } fields[] = {
        {0, SDC_VIRTIO_BLK_CAPACITY, 8, 0},
        {SDC_VIRTIO_BLK_F_SIZE_MAX, SDC_VIRTIO_BLK_SIZE_MAX, 4, UINT32_MAX},
        {SDC_VIRTIO_BLK_F_SEG_MAX, SDC_VIRTIO_BLK_SEG_MAX, 4, 1},
        {SDC_VIRTIO_BLK_F_BLK_SIZE, SDC_VIRTIO_BLK_BLK_SIZE, 4, SDC_VIRTIO_BLK_SECTOR},
        {SDC_VIRTIO_BLK_F_MQ, SDC_VIRTIO_BLK_NUM_QUEUES, 2, 1},
        {SDC_VIRTIO_BLK_F_DISCARD, SDC_VIRTIO_BLK_MAX_DISCARD_SECTORS, 4, 0},
        {SDC_VIRTIO_BLK_F_DISCARD, SDC_VIRTIO_BLK_MAX_DISCARD_SEG, 4, 0},
        {SDC_VIRTIO_BLK_F_WRITE_ZEROES, SDC_VIRTIO_BLK_MAX_WRITE_ZEROES_SECTORS, 4, 0},
        {SDC_VIRTIO_BLK_F_WRITE_ZEROES, SDC_VIRTIO_BLK_MAX_WRITE_ZEROES_SEG, 4, 0},
    };
    uint64_t values[SDC_COUNT(fields)];

    for (unsigned i = 0; i < SDC_COUNT(fields); i++) {
        uint8_t raw[8] = {0};
        bool there = fields[i].feature == 0 || bed->features & fields[i].feature;
        if (there)
            sdc_check_bed_config(bed, fields[i].offset, raw, fields[i].size);
        values[i] = there ? sdc_get64(raw) : fields[i].absent;
    }
    *disk = (struct sdc_check_disk){
        .sectors = values[0],
        .size_max = (uint32_t)values[1],
        .seg_max = (uint32_t)values[2],
        .block_sectors = (uint32_t)values[3] / SDC_VIRTIO_BLK_SECTOR,
        .queues = (uint16_t)values[4],
        .discard_sectors = (uint32_t)values[5],
        .discard_segments = (uint32_t)values[6],
        .zeroes_sectors = (uint32_t)values[7],
        .zeroes_segments = (uint32_t)values[8],
    };
    // What makes no sense is the affair of one test, disk/configuration; here it is taken for no limit.
    if (disk->size_max == 0)
        disk->size_max = UINT32_MAX;
    disk->seg_max = (uint32_t)sdc_max(disk->seg_max, 1);
    disk->block_sectors = (uint32_t)sdc_max(disk->block_sectors, 1);
    disk->queues = (uint16_t)sdc_max(disk->queues, 1);
}
