// SPDX-License-Identifier: BSD-3-Clause
// DMA_MAP and DMA_UNMAP. Each file of guest memory is mapped once, however many regions look into it. Maps that come in one
// batch are published as one; an unmap is answered when no request uses the memory any more.
#include "transport/vfio_user/session.h"

#include "base/check.h"
#include "base/log.h"
#include "os/fd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE = 4096 };

// --- publishing ---

int vfu_dma_publish(struct vfu_session *session)
{
    struct sdc_map *map = sdc_guest_memory_publish(&session->dma.memory);
    if (!map)
        return -ENOMEM;
    // Cloud Hypervisor takes no messages from a server.
    map->remote = session->pads_errors ? NULL : &session->remote.base;
    session->dma.changed = false;
    session->device->ops->set_map(session->device, map);
    return 0;
}

void vfu_dma_withdraw(struct vfu_session *session)
{
    session->device->ops->set_map(session->device, NULL);
    sdc_guest_memory_withdraw(&session->dma.memory);
    sdc_regions_clear(&session->dma.before);
}

bool vfu_dma_reachable(const struct vfu_session *session, uint64_t iova, uint64_t size, enum sdc_access access)
{
    const struct vfu_dma *dma = &session->dma;
    const struct sdc_regions *set = dma->before.count > 0 ? &dma->before : &dma->memory.table.regions;

    while (size > 0) {
        const struct sdc_region *region = sdc_regions_find(set, iova);
        if (!region || !(region->access & (uint32_t)access))
            return false;
        uint64_t length = sdc_min(size, region->size - (iova - region->iova));
        iova += length;
        size -= length;
    }
    return true;
}

// --- DMA_MAP ---

// A file that is new to us is kept in the slot in which its fd arrived.
static void keep_mapped(struct vfu_session *session, struct vfu_message *message, const struct sdc_region *region)
{
    uint32_t *slot = region->host ? sdc_guest_memory_slot(region) : NULL;

    if (slot && *slot == SDC_SLOT_NONE) {
        *slot = message->slots[0];
        message->slots[0] = SDC_SLOT_NONE;
    }
    vfu_record_mapped(session->record, region, slot ? *slot : SDC_SLOT_NONE);
}

int vfu_dma_map(struct vfu_session *session, struct vfu_message *message)
{
    struct sdc_vfu_dma_map map;
    uint32_t access_flags = SDC_VFU_MAP_READ | SDC_VFU_MAP_WRITE;

    memcpy(&map, message->payload, sizeof map);
    if (map.argsz < sizeof map || map.flags & ~(access_flags | SDC_VFU_MAP_MMAP | SDC_VFU_MAP_FILE_IO) ||
        !(map.flags & access_flags))
        return -EINVAL;
    if ((map.address | map.size) % PAGE != 0 || map.size == 0)
        return -EINVAL;
    if (map.size > SDC_LIMIT_DMA_REGION_BYTES)
        return -ENOSPC;
    if (map.flags & SDC_VFU_MAP_FILE_IO && !(map.flags & SDC_VFU_MAP_MMAP))
        return -ENOTSUP;
    if (message->fds_count == 0 && map.flags & (SDC_VFU_MAP_MMAP | SDC_VFU_MAP_FILE_IO))
        return -EINVAL;
    if (message->fds_count > 0 && map.offset % PAGE != 0)
        return -EINVAL;

    struct sdc_region region = {.iova = map.address, .size = map.size};
    region.access = (map.flags & SDC_VFU_MAP_READ ? SDC_ACCESS_READ : 0) |
                    (map.flags & SDC_VFU_MAP_WRITE ? SDC_ACCESS_WRITE : 0);
    int rc = message->fds_count > 0 ? sdc_guest_memory_find(&session->dma.memory, message->fds[0], map.offset, &region) : 0;
    if (rc == 0)
        rc = sdc_region_table_add(&session->dma.memory.table, &region);
    if (rc == 0)
        keep_mapped(session, message, &region);
    sdc_mapping_unref(region.mapping);
    if (rc < 0)
        return rc;
    session->dma.changed = session->dma.holding = true;
    vfu_reply(session, &message->header, 0);
    return 0;
}

int vfu_dma_resume(struct vfu_session *session, const struct sdc_state_region *entry)
{
    struct sdc_guest_memory *memory = &session->dma.memory;
    struct sdc_region region = {.iova = entry->iova, .size = entry->size,
                                .access = entry->access & (SDC_ACCESS_READ | SDC_ACCESS_WRITE)};
    int rc = 0;

    if ((entry->iova | entry->size | entry->offset) % PAGE != 0 || entry->size == 0 || entry->size > SDC_LIMIT_DMA_REGION_BYTES ||
        region.access == 0 || !(entry->access & VFU_REGION_HAS_FILE) != (entry->slot == SDC_SLOT_NONE))
        return -EINVAL;
    // Many regions look into one file.
    if (entry->slot != SDC_SLOT_NONE)
        rc = sdc_guest_memory_find_in_slot(memory, entry->slot, entry->offset, &region);
    if (rc == -ENOENT) {
        int fd = session->record->slots->ops->take(session->record->slots, entry->slot);
        rc = fd < 0 ? fd : sdc_guest_memory_find(memory, fd, entry->offset, &region);
        sdc_fd_close(&fd);
        if (rc == 0)
            *sdc_guest_memory_slot(&region) = entry->slot;
    }
    if (rc == 0)
        rc = sdc_region_table_add(&memory->table, &region);
    sdc_mapping_unref(region.mapping);
    return rc;
}

// --- DMA_UNMAP ---

static void reply_unmap(struct vfu_session *session)
{
    struct sdc_vfu_dma_unmap reply = session->dma.unmap;
    uint8_t *room = vfu_reply(session, &session->command, sizeof reply);

    reply.argsz = sizeof reply;
    if (room)
        memcpy(room, &reply, sizeof reply);
}

// What an unmap names of `set`, which is the table or what that was before: loops are not to have it registered, or may again.
static void tell_loops(const struct sdc_regions *set, const struct sdc_vfu_dma_unmap *unmap, void (*tell)(const struct sdc_region *region))
{
    bool all = unmap->flags & SDC_VFU_UNMAP_ALL;
    const struct sdc_region *region = all ? sdc_regions_past(set, 0) : sdc_regions_find(set, unmap->address);

    for (; region; region = all ? sdc_regions_next(set, region) : NULL)
        tell(region);
}

// The regions are there again, so that the client can try again; in the table, and at once in a map that takes the place of the one that
// may still be on its way to the card's queues. Without memory for that the table is published when the card is not busy any more.
static void put_back(struct vfu_session *session)
{
    struct vfu_dma *dma = &session->dma;

    tell_loops(&dma->before, &dma->unmap, sdc_guest_memory_keep);
    sdc_regions_clear(&dma->memory.table.regions);
    dma->memory.table.regions = dma->before;
    dma->before = (struct sdc_regions){0};
    dma->changed = true;
    vfu_dma_publish(session);
}

void vfu_dma_give_up(struct vfu_session *session)
{
    if (session->dma.before.count > 0)
        put_back(session);
}

// The card has taken the new map over and the older ones are gone: nothing touches the memory any more.
static bool unmap_finished(struct vfu_session *session)
{
    struct vfu_dma *dma = &session->dma;
    bool drained = dma->memory.maps_alive == 1 && dma->memory.windows_leaving == 0 && !session->device->ops->busy(session->device);

    if (!drained && !session->impatient)
        return false;
    if (drained) {
        vfu_remote_pump(session); // what queues wrote to their rings there goes before the reply; nothing may go behind it
        if (dma->unmap.flags & SDC_VFU_UNMAP_ALL)
            vfu_record_unmapped_all(session->record);
        else
            vfu_record_unmapped(session->record, dma->unmap.address);
        reply_unmap(session);
    } else {
        sdc_log_peer("%s: DMA_UNMAP of %#" PRIx64 " + %#" PRIx64 ": I/O on it does not end", session->options->name,
                     dma->unmap.address, dma->unmap.size);
        put_back(session);
        vfu_reply_error(session, &session->command, -EBUSY, sizeof(struct sdc_vfu_dma_unmap));
    }
    sdc_regions_clear(&dma->before);
    return true;
}

// Takes what the command names out of the table, and keeps what the table was.
static int take_out(struct vfu_dma *dma, const struct sdc_vfu_dma_unmap *unmap)
{
    if (unmap->flags & SDC_VFU_UNMAP_ALL) {
        dma->before = dma->memory.table.regions;
        dma->memory.table.regions = (struct sdc_regions){0};
        return 0;
    }
    int rc = sdc_regions_copy(&dma->before, &dma->memory.table.regions);
    if (rc == 0)
        rc = sdc_region_table_remove(&dma->memory.table, unmap->address, unmap->size);
    if (rc < 0)
        sdc_regions_clear(&dma->before);
    return rc;
}

static int check_unmap(const struct sdc_vfu_dma_unmap *unmap)
{
    bool all = unmap->flags & SDC_VFU_UNMAP_ALL;

    if (unmap->argsz < sizeof *unmap || unmap->flags & ~(uint32_t)(SDC_VFU_UNMAP_DIRTY_BITMAP | SDC_VFU_UNMAP_ALL))
        return -EINVAL;
    if (unmap->flags & SDC_VFU_UNMAP_DIRTY_BITMAP)
        return -ENOTSUP;
    if (all ? unmap->address != 0 || unmap->size != 0 : unmap->size == 0)
        return -EINVAL;
    return 0;
}

int vfu_dma_unmap(struct vfu_session *session, struct vfu_message *message)
{
    struct vfu_dma *dma = &session->dma;

    memcpy(&dma->unmap, message->payload, sizeof dma->unmap);
    int rc = check_unmap(&dma->unmap);
    if (rc == 0)
        rc = take_out(dma, &dma->unmap);
    if (rc < 0)
        return rc;
    rc = vfu_dma_publish(session);
    if (rc < 0) {
        put_back(session);
        return rc;
    }
    tell_loops(&dma->before, &dma->unmap, sdc_guest_memory_let_go);
    return vfu_session_wait(session, &message->header, unmap_finished);
}
