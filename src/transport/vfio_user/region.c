// SPDX-License-Identifier: BSD-3-Clause
// What regions the device has, and the ways into them that need no message: DEVICE_GET_REGION_INFO with the part that may be mapped,
// DEVICE_GET_REGION_IO_FDS with the eventfds that stand for writes.
#include "transport/vfio_user/session.h"

#include "base/check.h"

#include <errno.h>
#include <string.h>

// --- DEVICE_GET_REGION_INFO ---

uint64_t vfu_region_size(const struct sdc_pci_device *device, uint32_t index)
{
    if (index == SDC_PCI_CONFIG)
        return SDC_PCI_CONFIG_SIZE;
    return index < SDC_PCI_ROM ? device->bars[index].size : 0;
}

// What follows the region info when only parts of the region may be mapped. SPDK's client takes one fd for each area, others take one for
// all.
struct sparse {
    struct sdc_vfu_cap_sparse_mmap cap;
    struct sdc_vfu_mmap_area areas[];
};

static const struct sdc_pci_mappable *mappable_of(const struct sdc_pci_device *device, uint32_t index)
{
    return index < SDC_PCI_ROM && device->bars[index].mappable.areas_count > 0 ? &device->bars[index].mappable : NULL;
}

static uint32_t sparse_size(const struct sdc_pci_mappable *mappable)
{
    return (uint32_t)(sizeof(struct sparse) + mappable->areas_count * sizeof(struct sdc_vfu_mmap_area));
}

static void describe_areas(const struct sdc_pci_mappable *mappable, uint8_t *room)
{
    struct sparse sparse = {.cap = {.header = {.id = SDC_VFU_CAP_SPARSE_MMAP, .version = 1}, .nr_areas = mappable->areas_count}};

    memcpy(room, &sparse, sizeof sparse);
    room += sizeof sparse;
    for (uint32_t i = 0; i < mappable->areas_count; i++, room += sizeof(struct sdc_vfu_mmap_area)) {
        struct sdc_vfu_mmap_area area = {.offset = mappable->areas[i].offset, .size = mappable->areas[i].size};
        memcpy(room, &area, sizeof area);
    }
}

// A client without room for the capability learns from argsz how much to bring. The flags then say nothing of mapping: one that does
// not ask again must not take the whole region for mappable, and some take the flag without an fd very badly.
int vfu_get_region_info(struct vfu_session *session, struct vfu_message *message)
{
    struct sdc_vfu_region_info info;
    uint8_t *room;

    memcpy(&info, message->payload, sizeof info);
    if (info.argsz < sizeof info || info.index >= SDC_PCI_REGIONS)
        return -EINVAL;
    const struct sdc_pci_mappable *mappable = mappable_of(session->device, info.index);
    uint64_t region_size = vfu_region_size(session->device, info.index);
    bool sparse = mappable && mappable->areas[0].size != region_size;
    uint32_t needed = (uint32_t)sizeof info + (sparse ? sparse_size(mappable) : 0);
    bool fits = needed <= info.argsz;
    bool shown = mappable && fits;
    uint32_t size = fits ? needed : (uint32_t)sizeof info;

    info = (struct sdc_vfu_region_info){.argsz = needed, .index = info.index, .size = region_size};
    if (info.size > 0)
        info.flags = SDC_VFU_REGION_READABLE | SDC_VFU_REGION_WRITABLE;
    if (shown) {
        info.flags |= SDC_VFU_REGION_MMAP | (sparse ? SDC_VFU_REGION_CAPS : 0);
        info.offset = mappable->fd_offset;
        info.cap_offset = sparse ? (uint32_t)sizeof info : 0;
    }
    int rc = vfu_reply_with_fds(session, &message->header, size, shown ? &mappable->fd : NULL, shown, &room);
    if (rc < 0 || !room)
        return rc;
    memcpy(room, &info, sizeof info);
    if (shown && sparse)
        describe_areas(mappable, room + sizeof info);
    return 0;
}

// --- DEVICE_GET_REGION_IO_FDS ---

static void describe_io_fds(const struct sdc_pci_io_fd *fds, uint32_t count, uint8_t *room)
{
    for (uint32_t i = 0; i < count; i++) {
        struct sdc_vfu_ioeventfd entry = {
            .offset = fds[i].offset, .size = fds[i].size, .fd_index = i, .type = SDC_VFU_IO_FD_IOEVENTFD};
        memcpy(room + i * sizeof entry, &entry, sizeof entry);
    }
}

// As many as the client takes with a message; what is left over is written to by messages. When it has no room for all of these,
// it gets none and learns from argsz how much to bring.
int vfu_get_region_io_fds(struct vfu_session *session, struct vfu_message *message)
{
    struct sdc_pci_device *device = session->device;
    struct sdc_pci_io_fd offered[SDC_LIMIT_REPLY_FDS];
    struct sdc_vfu_region_io_fds info;
    int fds[SDC_LIMIT_REPLY_FDS];
    uint8_t *room;

    memcpy(&info, message->payload, sizeof info);
    if (info.argsz < sizeof info || info.argsz > SDC_LIMIT_DATA_XFER || info.flags != 0 || info.count != 0 ||
        info.index >= SDC_PCI_REGIONS)
        return -EINVAL;
    uint32_t most = (uint32_t)sdc_min(session->max_msg_fds, SDC_LIMIT_REPLY_FDS);
    uint32_t count = device->ops->io_fds ? device->ops->io_fds(device, info.index, offered, most) : 0;
    uint32_t needed = (uint32_t)(sizeof info + count * sizeof(struct sdc_vfu_ioeventfd));
    if (needed > info.argsz)
        count = 0;
    for (uint32_t i = 0; i < count; i++)
        fds[i] = offered[i].fd;

    info = (struct sdc_vfu_region_io_fds){.argsz = needed, .index = info.index, .count = count};
    uint32_t size = (uint32_t)(sizeof info + count * sizeof(struct sdc_vfu_ioeventfd));
    int rc = vfu_reply_with_fds(session, &message->header, size, fds, count, &room);
    if (rc < 0 || !room)
        return rc;
    vfu_record_io_fds(session->record, info.index, fds, count);
    memcpy(room, &info, sizeof info);
    describe_io_fds(offered, count, room + sizeof info);
    return 0;
}
