// SPDX-License-Identifier: BSD-3-Clause
// Memory for the device (DMA_MAP, DMA_UNMAP), and DEVICE_RESET.
#include "client/vfio_client.h"

#include "base/check.h"

#include <errno.h>
#include <inttypes.h>

static int map(struct sdc_vfio_client *client, uint64_t iova, uint64_t size, uint32_t flags, int fd,
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
    return sdc_vfio_client_just_do(client, &command, 0, err);
}

static int check(const struct sdc_vfio_client *client, uint64_t iova, uint64_t size, uint32_t flags,
                 struct sdc_error *err)
{
    uint64_t last;
    if (flags & ~(uint32_t)(SDC_VFIO_MAP_READ | SDC_VFIO_MAP_WRITE))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "%s: flags 0x%" PRIx32 " of memory", client->name,
                             flags);
    if (size == 0 || !sdc_add(iova, size - 1, &last))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "%s: no such memory: %" PRIu64 " bytes at 0x%" PRIx64, client->name, size, iova);
    return 0;
}

int sdc_vfio_client_map(struct sdc_vfio_client *client, uint64_t iova, uint64_t size, uint32_t flags, int fd,
                        uint64_t offset, struct sdc_error *err)
{
    int ret = check(client, iova, size, flags, err);
    return ret < 0 ? ret : map(client, iova, size, flags, fd, offset, err);
}

int sdc_vfio_client_map_private(struct sdc_vfio_client *client, uint64_t iova, uint64_t size, uint32_t flags,
                                void *host, struct sdc_error *err)
{
    struct sdc_vfio_private memory = {.iova = iova, .size = size, .flags = flags, .host = host};
    int ret = check(client, iova, size, flags, err);
    if (ret < 0)
        return ret;
    // The server may use it before we see the reply.
    ret = sdc_vfio_private_add(client, &memory);
    if (ret == -EEXIST)
        return sdc_error_set(err, ret, SDC_FAULT_USER,
                             "%s: %" PRIu64 " bytes at 0x%" PRIx64 " overlap memory that is mapped",
                             client->name, size, iova);
    if (ret < 0)
        return sdc_error_set(err, ret, SDC_FAULT_HOST, "%s: no memory for another mapping", client->name);
    ret = map(client, iova, size, flags, -1, 0, err);
    if (ret < 0)
        sdc_vfio_private_remove(client, iova, size);
    return ret;
}

int sdc_vfio_client_unmap(struct sdc_vfio_client *client, uint64_t iova, uint64_t size, struct sdc_error *err)
{
    struct sdc_vfu_dma_unmap unmap = {.argsz = sizeof unmap, .address = iova, .size = size};
    struct sdc_vfio_command command = {.command = SDC_VFU_DMA_UNMAP,
                                       .head = &unmap,
                                       .head_size = sizeof unmap};
    int ret = sdc_vfio_client_just_do(client, &command, sizeof unmap, err);
    if (ret == 0)
        sdc_vfio_private_remove(client, iova, size);
    return ret;
}

int sdc_vfio_client_unmap_all(struct sdc_vfio_client *client, struct sdc_error *err)
{
    struct sdc_vfu_dma_unmap unmap = {.argsz = sizeof unmap, .flags = SDC_VFU_UNMAP_ALL};
    struct sdc_vfio_command command = {.command = SDC_VFU_DMA_UNMAP,
                                       .head = &unmap,
                                       .head_size = sizeof unmap};
    int ret = sdc_vfio_client_just_do(client, &command, sizeof unmap, err);
    if (ret == 0)
        sdc_vfio_private_remove_all(client);
    return ret;
}

int sdc_vfio_client_reset(struct sdc_vfio_client *client, struct sdc_error *err)
{
    struct sdc_vfio_command command = {.command = SDC_VFU_RESET};
    return sdc_vfio_client_just_do(client, &command, 0, err);
}
