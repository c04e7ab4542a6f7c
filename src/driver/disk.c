// SPDX-License-Identifier: BSD-3-Clause
// What is the same for all kinds of disks.
#include "driver/disk.h"

#include "os/clock.h"

#include <errno.h>
#include <inttypes.h>

#define FIRST_4G (UINT64_C(1) << 32)
#define MS_NS UINT64_C(1000000)


int sdc_driver_disk_start(struct sdc_driver_disk *disk, const struct sdc_driver_disk_options *options,
                          struct sdc_error *err)
{
    static const struct sdc_driver_disk_options defaults;
    return disk->ops->start(disk, options ? options : &defaults, err);
}

void sdc_driver_disk_close(struct sdc_driver_disk *disk)
{
    if (disk)
        disk->ops->close(disk);
}

const struct sdc_driver_disk_info *sdc_driver_disk_info(const struct sdc_driver_disk *disk)
{
    return &disk->info;
}

int sdc_driver_disk_map(struct sdc_driver_disk *disk, const struct sdc_client_memory *memory, struct sdc_error *err)
{
    if (memory->iova < FIRST_4G)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "memory for data at iova 0x%" PRIx64 ": it begins at 4 GiB or above", memory->iova);
    return disk->ops->map(disk, memory, err);
}

int sdc_driver_disk_reset_queue(struct sdc_driver_disk *disk, uint16_t index, struct sdc_error *err)
{
    return disk->ops->reset_queue(disk, index, err);
}

int sdc_driver_disk_recover(struct sdc_driver_disk *disk, uint32_t timeout_ms, struct sdc_error *err)
{
    if (!disk->ops->recover)
        return sdc_error_set(err, -ENOTSUP, SDC_FAULT_USER, "%s has no way to find a device again", disk->info.device);
    return disk->ops->recover(disk, timeout_ms, err);
}

int sdc_driver_disk_check(struct sdc_driver_disk *disk, struct sdc_error *err)
{
    return disk->ops->check(disk, err);
}

struct sdc_driver_disk_queue *sdc_driver_disk_queue(struct sdc_driver_disk *disk, uint16_t index)
{
    return disk->ops->queue(disk, index);
}

int sdc_driver_disk_do(struct sdc_driver_disk_queue *queue, struct sdc_driver_disk_request *request, int timeout_ms,
                       struct sdc_error *err)
{
    uint64_t deadline_ns = sdc_clock_ns() + (uint64_t)timeout_ms * MS_NS;
    struct sdc_driver_disk_request *finished = NULL;
    int ret = sdc_driver_disk_submit(queue, &request, 1);
    if (ret != 1)
        return sdc_error_set(err, ret < 0 ? ret : -EBUSY, SDC_FAULT_USER, "queue %u does not take the request",
                             queue->index);
    ret = sdc_driver_disk_kick(queue, err);
    while (ret >= 0) {
        ret = sdc_driver_disk_take(queue, &finished, 1, err);
        if (ret == 1)
            return request->result;
        if (ret == 0 && sdc_clock_ns() >= deadline_ns)
            return sdc_error_set(err, -ETIMEDOUT, SDC_FAULT_PEER,
                                 "queue %u: the device did not finish a request within %d ms", queue->index, timeout_ms);
        if (ret == 0 && !queue->polled)
            ret = sdc_driver_disk_wait(queue, timeout_ms, err);
    }
    return ret;
}

int sdc_driver_disk_check_queues(const struct sdc_driver_disk *disk, const struct sdc_driver_disk_options *options,
                                 struct sdc_error *err)
{
    if (options->queues <= disk->info.queues)
        return 0;
    return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "%u queues: the device has %u", options->queues,
                         disk->info.queues);
}
