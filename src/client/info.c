// SPDX-License-Identifier: BSD-3-Clause
// What the device has: GET_INFO, GET_REGION_INFO with its chain of capabilities, GET_IRQ_INFO.
#include "client/vfio_client.h"

#include "base/check.h"
#include "os/fd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { REGION_INFO_MAX = 65536 }; // bytes of a region's info with its capabilities

int sdc_vfio_client_device(struct sdc_vfio_client *client, struct sdc_vfio_device *device,
                           struct sdc_error *err)
{
    struct sdc_vfu_device_info info = {.argsz = sizeof info};
    struct sdc_vfio_command command = {.command = SDC_VFU_GET_INFO, .head = &info, .head_size = sizeof info};
    struct sdc_vfio_reply reply;
    int ret = sdc_vfio_client_do(client, &command, sizeof info, &reply, err);
    if (ret < 0)
        return ret;
    memcpy(&info, reply.payload, sizeof info);
    sdc_vfio_reply_release(&reply);
    *device = (struct sdc_vfio_device){
        .is_pci = info.flags & SDC_VFU_DEVICE_PCI,
        .can_reset = info.flags & SDC_VFU_DEVICE_RESET,
        .flags = info.flags,
        .regions_count = info.num_regions,
        .irqs_count = info.num_irqs,
    };
    return 0;
}

int sdc_vfio_client_irq(struct sdc_vfio_client *client, uint32_t index, struct sdc_vfio_irq *irq,
                        struct sdc_error *err)
{
    struct sdc_vfu_irq_info info = {.argsz = sizeof info, .index = index};
    struct sdc_vfio_command command = {.command = SDC_VFU_GET_IRQ_INFO,
                                       .head = &info,
                                       .head_size = sizeof info};
    struct sdc_vfio_reply reply;
    int ret = sdc_vfio_client_do(client, &command, sizeof info, &reply, err);
    if (ret < 0)
        return ret;
    memcpy(&info, reply.payload, sizeof info);
    sdc_vfio_reply_release(&reply);
    *irq = (struct sdc_vfio_irq){
        .index = index,
        .count = info.count,
        .eventfd = info.flags & SDC_VFU_IRQ_EVENTFD,
        .maskable = info.flags & SDC_VFU_IRQ_MASKABLE,
        .automasked = info.flags & SDC_VFU_IRQ_AUTOMASKED,
        .no_resize = info.flags & SDC_VFU_IRQ_NORESIZE,
    };
    return 0;
}

// --- regions ---

static int broken(struct sdc_vfio_client *client, uint32_t index, const char *what, struct sdc_error *err)
{
    return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER, "%s: region %" PRIu32 ": the server's reply %s",
                         client->name, index, what);
}

// The areas of a sparse mmap capability that lies at `at` of the reply.
static int take_areas(struct sdc_vfio_client *client, const struct sdc_vfio_reply *reply, size_t at,
                      struct sdc_vfio_region *region, struct sdc_error *err)
{
    struct sdc_vfu_cap_sparse_mmap cap;
    if (!sdc_within(at, sizeof cap, reply->size))
        return broken(client, region->index, "ends in the middle of a capability", err);
    memcpy(&cap, (uint8_t *)reply->payload + at, sizeof cap);
    at += sizeof cap;
    if (!sdc_within(at, cap.nr_areas * (uint64_t)sizeof(struct sdc_vfu_mmap_area), reply->size))
        return broken(client, region->index, "ends before its last area", err);
    struct sdc_vfio_area *areas = calloc(cap.nr_areas + (size_t)1, sizeof *areas);
    if (!areas)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "%s: no memory for %" PRIu32 " areas",
                             client->name, cap.nr_areas);
    free(region->areas);
    region->areas = areas;
    region->areas_count = cap.nr_areas;
    for (uint32_t i = 0; i < cap.nr_areas; i++, at += sizeof(struct sdc_vfu_mmap_area)) {
        struct sdc_vfu_mmap_area area;
        memcpy(&area, (uint8_t *)reply->payload + at, sizeof area);
        if (!sdc_within(area.offset, area.size, region->size))
            return broken(client, region->index, "has an area outside the region", err);
        areas[i] = (struct sdc_vfio_area){.offset = area.offset, .size = area.size};
    }
    return 0;
}

// Walks the chain from `at`. Each entry has to lie behind the one before, so that the chain ends.
static int take_capabilities(struct sdc_vfio_client *client, const struct sdc_vfio_reply *reply, size_t at,
                             struct sdc_vfio_region *region, struct sdc_error *err)
{
    size_t end = sizeof(struct sdc_vfu_region_info);
    while (at != 0) {
        struct sdc_vfu_cap_header cap;
        if (at < end)
            return broken(client, region->index, "has a capability that overlaps another", err);
        if (!sdc_within(at, sizeof cap, reply->size))
            return broken(client, region->index, "has a capability outside itself", err);
        memcpy(&cap, (uint8_t *)reply->payload + at, sizeof cap);
        if (region->capabilities_count < SDC_COUNT(region->capabilities))
            region->capabilities[region->capabilities_count] = cap.id;
        region->capabilities_count++;
        if (cap.id == SDC_VFU_CAP_SPARSE_MMAP) {
            int ret = take_areas(client, reply, at, region, err);
            if (ret < 0)
                return ret;
        }
        end = at + sizeof cap;
        at = cap.next;
    }
    return 0;
}

// Asks with room for `room` bytes of answer.
static int ask_region(struct sdc_vfio_client *client, uint32_t index, uint32_t room,
                      struct sdc_vfio_reply *reply, struct sdc_vfu_region_info *info, struct sdc_error *err)
{
    *info = (struct sdc_vfu_region_info){.argsz = room, .index = index};
    struct sdc_vfio_command command = {.command = SDC_VFU_GET_REGION_INFO,
                                       .head = info,
                                       .head_size = sizeof *info};
    int ret = sdc_vfio_client_do(client, &command, sizeof *info, reply, err);
    if (ret < 0)
        return ret;
    memcpy(info, reply->payload, sizeof *info);
    if (info->index == index)
        return 0;
    sdc_vfio_reply_release(reply);
    return broken(client, index, "is about another region", err);
}

static void take_fd(struct sdc_vfio_region *region, struct sdc_vfio_reply *reply)
{
    if (region->fd >= 0 || reply->fds_count == 0)
        return;
    region->fd = reply->fds[0];
    reply->fds[0] = -1;
}

int sdc_vfio_client_region(struct sdc_vfio_client *client, uint32_t index, struct sdc_vfio_region *region,
                           struct sdc_error *err)
{
    struct sdc_vfu_region_info info;
    struct sdc_vfio_reply reply;
    *region = (struct sdc_vfio_region){.index = index, .fd = -1};
    int ret = ask_region(client, index, sizeof info, &reply, &info, err);
    if (ret == 0 && info.argsz > sizeof info) {
        // There is more than the fixed part. The fd may come with either reply.
        take_fd(region, &reply);
        sdc_vfio_reply_release(&reply);
        if (info.argsz > REGION_INFO_MAX)
            ret = broken(client, index, "wants room for more than 64 KiB", err);
        else
            ret = ask_region(client, index, info.argsz, &reply, &info, err);
    }
    if (ret < 0) {
        sdc_vfio_region_release(region);
        return ret;
    }
    region->readable = info.flags & SDC_VFU_REGION_READABLE;
    region->writable = info.flags & SDC_VFU_REGION_WRITABLE;
    region->mappable = info.flags & SDC_VFU_REGION_MMAP;
    region->size = info.size;
    region->fd_offset = info.offset;
    take_fd(region, &reply);
    if (info.flags & SDC_VFU_REGION_CAPS)
        ret = take_capabilities(client, &reply, info.cap_offset, region, err);
    sdc_vfio_reply_release(&reply);
    if (ret < 0)
        sdc_vfio_region_release(region);
    return ret;
}

void sdc_vfio_region_release(struct sdc_vfio_region *region)
{
    sdc_fd_close(&region->fd);
    free(region->areas);
    *region = (struct sdc_vfio_region){.fd = -1};
}
