// SPDX-License-Identifier: BSD-3-Clause
// What blk.c needs of a disk's queues. Nobody else includes this.
#pragma once

#include "driver/device.h"
#include "driver/disk.h"

struct sdc_driver_blk_queue;

// Bytes of the device's memory that a queue takes for `depth` requests' headers.
uint64_t sdc_driver_blk_queue_memory(uint32_t depth);
int sdc_driver_blk_queue_new(struct sdc_driver_device *device, const struct sdc_driver_disk_info *info,
                             uint16_t index, uint32_t depth, uint32_t segments_max,
                             struct sdc_driver_blk_queue **queue, struct sdc_error *err);
// The queue was reset: no request is in flight.
void sdc_driver_blk_queue_restart(struct sdc_driver_blk_queue *queue);
// NULL is fine.
void sdc_driver_blk_queue_free(struct sdc_driver_blk_queue *queue);
// As the disk shows it.
struct sdc_driver_disk_queue *sdc_driver_blk_queue_disk(struct sdc_driver_blk_queue *queue);
