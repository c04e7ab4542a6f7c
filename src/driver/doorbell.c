// SPDX-License-Identifier: BSD-3-Clause
#include "driver/doorbell.h"

#include "base/bytes.h"
#include "base/check.h"
#include "os/fd.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

const char *sdc_driver_notify_name(enum sdc_driver_notify way)
{
    static const char *const names[] = {
        [SDC_DRIVER_NOTIFY_AUTO] = "auto",
        [SDC_DRIVER_NOTIFY_MESSAGE] = "message",
        [SDC_DRIVER_NOTIFY_IOEVENTFD] = "ioeventfd",
        [SDC_DRIVER_NOTIFY_MAPPED] = "mapped",
    };
    return names[way];
}

// --- what there is ---

// Whether an error says that the server has not got something, not that it is broken or gone.
static bool has_none(int code)
{
    return code != -EPROTO && code != -ECONNRESET && code != -EPIPE && code != -ETIMEDOUT && code != -ENOMEM;
}

static int open_ways(struct sdc_driver_doorbells *doorbells, const struct sdc_vfio_region *region, uint64_t size,
                     enum sdc_driver_notify way, struct sdc_error *err)
{
    int ret = 0;
    if (way == SDC_DRIVER_NOTIFY_AUTO || way == SDC_DRIVER_NOTIFY_MAPPED)
        ret = sdc_vfio_region_map(region, doorbells->offset, size, &doorbells->mapping, err);
    if (ret < 0 && !has_none(ret))
        return ret;
    ret = 0;
    if (way == SDC_DRIVER_NOTIFY_AUTO || way == SDC_DRIVER_NOTIFY_IOEVENTFD)
        ret = sdc_vfio_client_ioeventfds(doorbells->client, region, &doorbells->ioeventfds, err);
    return ret < 0 && has_none(ret) ? 0 : ret;
}

int sdc_driver_doorbells_open(struct sdc_driver_doorbells *doorbells, struct sdc_vfio_client *client, uint32_t region,
                              uint64_t offset, uint64_t size, enum sdc_driver_notify way, struct sdc_error *err)
{
    struct sdc_vfio_region info;
    *doorbells = (struct sdc_driver_doorbells){.client = client, .region = region, .offset = offset};
    if (way == SDC_DRIVER_NOTIFY_MESSAGE)
        return 0;
    int ret = sdc_vfio_client_region(client, region, &info, err);
    if (ret < 0)
        return ret;
    ret = open_ways(doorbells, &info, size, way, err);
    sdc_vfio_region_release(&info);
    if (ret < 0)
        sdc_driver_doorbells_close(doorbells);
    return ret;
}

void sdc_driver_doorbells_close(struct sdc_driver_doorbells *doorbells)
{
    sdc_vfio_region_unmap(&doorbells->mapping);
    sdc_vfio_ioeventfds_release(&doorbells->ioeventfds);
}

// --- one register ---

// The eventfd for such a write, or -1. One that is no eventfd, or could let us wait when it is full, is left alone.
static int find_ioeventfd(const struct sdc_driver_doorbells *doorbells, uint64_t offset, uint32_t size, uint16_t value)
{
    for (uint32_t i = 0; i < doorbells->ioeventfds.count; i++) {
        const struct sdc_vfio_ioeventfd *entry = &doorbells->ioeventfds.entries[i];
        if (entry->offset != offset || (entry->size != 0 && entry->size != size))
            continue;
        if (entry->match && (size != 2 || entry->datamatch != value))
            continue;
        if (sdc_fd_is_eventfd(entry->fd) && sdc_fd_is_nonblocking(entry->fd))
            return entry->fd;
    }
    return -1;
}

static void *find_mapped(const struct sdc_driver_doorbells *doorbells, uint64_t offset, uint32_t size)
{
    const struct sdc_vfio_mapping *mapping = &doorbells->mapping;
    if (!mapping->data || offset < doorbells->offset || !sdc_within(offset - doorbells->offset, size, mapping->size))
        return NULL;
    uint8_t *at = mapping->data + (offset - doorbells->offset);
    return (uintptr_t)at % size == 0 ? at : NULL;
}

int sdc_driver_doorbell_choose(const struct sdc_driver_doorbells *doorbells, enum sdc_driver_notify way, uint64_t offset,
                               uint32_t size, uint16_t value, struct sdc_driver_doorbell *bell, struct sdc_error *err)
{
    *bell = (struct sdc_driver_doorbell){
        .way = SDC_DRIVER_NOTIFY_MESSAGE,
        .offset = offset,
        .fd = find_ioeventfd(doorbells, offset, size, value),
        .mapped = find_mapped(doorbells, offset, size),
    };
    if (bell->mapped)
        bell->way = SDC_DRIVER_NOTIFY_MAPPED;
    else if (bell->fd >= 0)
        bell->way = SDC_DRIVER_NOTIFY_IOEVENTFD;
    if (way == SDC_DRIVER_NOTIFY_AUTO || way == bell->way)
        return 0;
    return sdc_error_set(err, -ENOTSUP, SDC_FAULT_PEER, "the server offers no %s for queue %u's notifications",
                         way == SDC_DRIVER_NOTIFY_MAPPED ? "mapped register" : "eventfd that does not block", value);
}

int sdc_driver_doorbell_ring(const struct sdc_driver_doorbells *doorbells, const struct sdc_driver_doorbell *bell,
                             uint32_t value, uint32_t size, struct sdc_error *err)
{
    uint8_t raw[4];
    sdc_put32(raw, value);
    if (bell->way == SDC_DRIVER_NOTIFY_MESSAGE)
        return sdc_vfio_client_post(doorbells->client, doorbells->region, bell->offset, raw, size, err);
    // What was made available is there before the register is written; a system call is as good.
    if (bell->way == SDC_DRIVER_NOTIFY_IOEVENTFD) {
        sdc_eventfd_signal(bell->fd);
    } else if (size == 2) {
        uint16_t half;
        memcpy(&half, raw, sizeof half);
        __atomic_store_n((uint16_t *)bell->mapped, half, __ATOMIC_RELEASE);
    } else {
        uint32_t word;
        memcpy(&word, raw, sizeof word);
        __atomic_store_n((uint32_t *)bell->mapped, word, __ATOMIC_RELEASE);
    }
    return 0;
}
