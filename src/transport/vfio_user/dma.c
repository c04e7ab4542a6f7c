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

// A file of guest memory that is mapped as a whole.
struct vfu_file {
    struct sdc_mapping mapping;
    struct vfu_dma *dma;
    struct vfu_file *next;
    dev_t device;
    ino_t inode;
    bool writable;
};

// A published map on its way back to the home loop.
struct vfu_live_map {
    struct sdc_post post;
    struct vfu_session *session;
    struct sdc_map *map;
};

// --- files ---

// The last region or map that held it has gone; both are dropped on the home loop only.
static void release_file(struct sdc_mapping *mapping)
{
    struct vfu_file *file = sdc_container(mapping, struct vfu_file, mapping);
    struct vfu_file **link = &file->dma->files;

    while (*link != file)
        link = &(*link)->next;
    *link = file->next;
    sdc_unmap(mapping->base, mapping->size);
    free(file);
}

// The mapping of the file behind fd, at least `end` bytes long, with a reference for the caller.
static int map_file(struct vfu_dma *dma, int fd, const struct sdc_file_identity *id, uint64_t end, bool writable,
                    struct sdc_mapping **mapping)
{
    for (struct vfu_file *file = dma->files; file; file = file->next) {
        if (file->device == id->device && file->inode == id->inode && file->mapping.size >= end &&
            (file->writable || !writable)) {
            sdc_mapping_ref(&file->mapping);
            *mapping = &file->mapping;
            return 0;
        }
    }
    struct vfu_file *file = calloc(1, sizeof *file);
    void *base;
    int rc = file ? sdc_fd_map(fd, id->size, id->writable, &base) : -ENOMEM;
    if (rc < 0) {
        free(file);
        return rc;
    }
    *file = (struct vfu_file){.dma = dma, .next = dma->files, .device = id->device, .inode = id->inode,
                              .writable = id->writable};
    file->mapping.base = base;
    file->mapping.size = id->size;
    file->mapping.release = release_file;
    atomic_init(&file->mapping.refs, 1);
    dma->files = file;
    *mapping = &file->mapping;
    return 0;
}

// --- publishing ---

static void run_released(struct sdc_post *post)
{
    struct vfu_live_map *live = sdc_container(post, struct vfu_live_map, post);
    struct vfu_session *session = live->session;

    sdc_map_free(live->map);
    free(live);
    session->dma.maps_alive--;
    vfu_session_step(session);
}

// On the thread of the last reader.
static void released(struct sdc_map *map)
{
    struct vfu_live_map *live = map->context;

    sdc_loop_post(live->session->loop, &live->post);
}

int vfu_dma_publish(struct vfu_session *session)
{
    struct vfu_dma *dma = &session->dma;
    struct vfu_live_map *live = calloc(1, sizeof *live);
    struct sdc_map *map = live ? sdc_region_table_publish(&dma->table, released, live) : NULL;
    if (!map) {
        free(live);
        return -ENOMEM;
    }
    *live = (struct vfu_live_map){.post = {.run = run_released}, .session = session, .map = map};
    // Cloud Hypervisor takes no messages from a server.
    map->remote = session->pads_errors ? NULL : &session->remote.base;
    sdc_map_unref(dma->map);
    dma->map = map;
    dma->maps_alive++;
    dma->changed = false;
    session->device->ops->set_map(session->device, map);
    return 0;
}

void vfu_dma_withdraw(struct vfu_session *session)
{
    struct vfu_dma *dma = &session->dma;

    session->device->ops->set_map(session->device, NULL);
    sdc_map_unref(dma->map);
    dma->map = NULL;
    sdc_region_table_clear(&dma->table);
    sdc_regions_clear(&dma->before);
}

// --- DMA_MAP ---

// Checks the file and finds the region's place in it.
static int map_region(struct vfu_session *session, const struct sdc_vfu_dma_map *map, int fd, struct sdc_region *region)
{
    struct sdc_file_identity id;
    uint64_t end;
    int rc = sdc_fd_identify(fd, &id);
    if (rc < 0)
        return rc;

    if (id.kind == SDC_MEMORY_FILE_OTHER)
        return -EINVAL;
    if (id.kind == SDC_MEMORY_FILE_PLAIN && !session->options->allow_file_memory) {
        sdc_log_peer("%s: guest memory is a plain file, which may be truncated under us: give the VM memory from memfd or /dev/shm, "
                     "or serve with --allow-file-memory", session->options->name);
        return -EINVAL;
    }
    if (!sdc_add(map->offset, map->size, &end) || end > id.size)
        return -EINVAL;
    bool writable = map->flags & SDC_VFU_MAP_WRITE;
    if (writable && !id.writable)
        return -EACCES;
    rc = map_file(&session->dma, fd, &id, end, writable, &region->mapping);
    if (rc == 0)
        region->host = region->mapping->base + map->offset;
    return rc;
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
    int rc = message->fds_count > 0 ? map_region(session, &map, message->fds[0], &region) : 0;
    if (rc == 0)
        rc = sdc_region_table_add(&session->dma.table, &region);
    sdc_mapping_unref(region.mapping);
    if (rc < 0)
        return rc;
    session->dma.changed = session->dma.holding = true;
    vfu_reply(session, &message->header, 0);
    return 0;
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

// The regions are there again, so that the client can try again.
static void put_back(struct vfu_dma *dma)
{
    sdc_regions_clear(&dma->table.regions);
    dma->table.regions = dma->before;
    dma->before = (struct sdc_regions){0};
    dma->changed = true;
}

// The card has taken the new map over and the older ones are gone: nothing touches the memory any more.
static bool unmap_finished(struct vfu_session *session)
{
    struct vfu_dma *dma = &session->dma;
    bool drained = dma->maps_alive == 1 && !session->device->ops->busy(session->device);

    if (!drained && !session->impatient)
        return false;
    if (drained) {
        reply_unmap(session);
    } else {
        sdc_log_peer("%s: DMA_UNMAP of %#" PRIx64 " + %#" PRIx64 ": I/O on it does not end", session->options->name,
                     dma->unmap.address, dma->unmap.size);
        put_back(dma);
        vfu_reply_error(session, &session->command, -EBUSY, sizeof(struct sdc_vfu_dma_unmap));
    }
    sdc_regions_clear(&dma->before);
    return true;
}

// Takes what the command names out of the table, and keeps what the table was.
static int take_out(struct vfu_dma *dma, const struct sdc_vfu_dma_unmap *unmap)
{
    if (unmap->flags & SDC_VFU_UNMAP_ALL) {
        dma->before = dma->table.regions;
        dma->table.regions = (struct sdc_regions){0};
        return 0;
    }
    int rc = sdc_regions_copy(&dma->before, &dma->table.regions);
    if (rc == 0)
        rc = sdc_region_table_remove(&dma->table, unmap->address, unmap->size);
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
        put_back(dma);
        return rc;
    }
    return vfu_session_wait(session, &message->header, unmap_finished);
}
