// SPDX-License-Identifier: BSD-3-Clause
// Memory for the device (DMA_MAP, DMA_UNMAP), and DEVICE_RESET.
#include "client/vfio_client.h"

#include <errno.h>
#include <string.h>

static int do_without_answer(struct sdc_vfio_client *client, const struct sdc_vfio_command *command,
                             size_t least, struct sdc_error *err)
{
    struct sdc_vfio_reply reply;
    int ret = sdc_vfio_client_do(client, command, least, &reply, err);
    if (ret == 0)
        sdc_vfio_reply_release(&reply);
    return ret;
}

int sdc_vfio_client_map(struct sdc_vfio_client *client, uint64_t iova, uint64_t size, uint32_t flags, int fd,
                        uint64_t offset, struct sdc_error *err)
{
    struct sdc_vfu_dma_map map = {
        .argsz = sizeof map,
        .flags = (flags & SDC_VFIO_MAP_READ ? SDC_VFU_MAP_READ : 0) |
                 (flags & SDC_VFIO_MAP_WRITE ? SDC_VFU_MAP_WRITE : 0),
        .offset = offset,
        .address = iova,
        .size = size,
    };
    struct sdc_vfio_command command = {
        .command = SDC_VFU_DMA_MAP,
        .head = &map,
        .head_size = sizeof map,
        .fds = &fd,
        .fds_count = fd >= 0 ? 1 : 0,
    };
    return do_without_answer(client, &command, 0, err);
}

int sdc_vfio_client_unmap(struct sdc_vfio_client *client, uint64_t iova, uint64_t size, struct sdc_error *err)
{
    struct sdc_vfu_dma_unmap unmap = {.argsz = sizeof unmap, .address = iova, .size = size};
    struct sdc_vfio_command command = {.command = SDC_VFU_DMA_UNMAP,
                                       .head = &unmap,
                                       .head_size = sizeof unmap};
    return do_without_answer(client, &command, sizeof unmap, err);
}

int sdc_vfio_client_reset(struct sdc_vfio_client *client, struct sdc_error *err)
{
    struct sdc_vfio_command command = {.command = SDC_VFU_RESET};
    return do_without_answer(client, &command, 0, err);
}
