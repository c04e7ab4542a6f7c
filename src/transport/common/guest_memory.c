// SPDX-License-Identifier: BSD-3-Clause
#include "transport/common/guest_memory.h"

#include "base/check.h"
#include "base/log.h"
#include "os/fd.h"

#include <errno.h>
#include <stdlib.h>

// A file of guest memory that is mapped as a whole.
struct sdc_guest_file {
    struct sdc_mapping mapping;
    struct sdc_guest_memory *memory;
    struct sdc_guest_file *next;
    dev_t device;
    ino_t inode;
    bool writable;
    uint32_t slot;
};

// A published map on its way back to the home loop.
struct live_map {
    struct sdc_post post;
    struct sdc_guest_memory *memory;
    struct sdc_map *map;
};

// --- files ---

// The last region or map that held it has gone; both are dropped on the home loop only.
static void release_file(struct sdc_mapping *mapping)
{
    struct sdc_guest_file *file = sdc_container(mapping, struct sdc_guest_file, mapping);
    struct sdc_guest_file **link = &file->memory->files;

    while (*link != file)
        link = &(*link)->next;
    *link = file->next;
    if (file->slot != SDC_SLOT_NONE && file->memory->slot_free)
        file->memory->slot_free(file->memory, file->slot);
    sdc_unmap(mapping->base, mapping->size);
    free(file);
}

// The mapping of the file behind fd, at least `end` bytes long, with a reference for the caller.
static int open_file(struct sdc_guest_memory *memory, int fd, const struct sdc_file_identity *id, uint64_t end, bool writable,
                     struct sdc_mapping **mapping)
{
    for (struct sdc_guest_file *file = memory->files; file; file = file->next) {
        if (file->device == id->device && file->inode == id->inode && file->mapping.size >= end && (file->writable || !writable)) {
            sdc_mapping_ref(&file->mapping);
            *mapping = &file->mapping;
            return 0;
        }
    }
    struct sdc_guest_file *file = calloc(1, sizeof *file);
    void *base;
    int rc = file ? sdc_fd_map(fd, id->size, id->writable, &base) : -ENOMEM;
    if (rc < 0) {
        free(file);
        return rc;
    }
    *file = (struct sdc_guest_file){
        .memory = memory, .next = memory->files, .device = id->device, .inode = id->inode, .writable = id->writable,
        .slot = SDC_SLOT_NONE};
    file->mapping.base = base;
    file->mapping.size = id->size;
    file->mapping.release = release_file;
    atomic_init(&file->mapping.refs, 1);
    memory->files = file;
    *mapping = &file->mapping;
    return 0;
}

int sdc_guest_memory_find(struct sdc_guest_memory *memory, int fd, uint64_t offset, struct sdc_region *region)
{
    struct sdc_file_identity id;
    uint64_t end;
    int rc = sdc_fd_identify(fd, &id);
    if (rc < 0)
        return rc;

    if (id.kind == SDC_MEMORY_FILE_OTHER)
        return -EINVAL;
    if (id.kind == SDC_MEMORY_FILE_PLAIN && !memory->allow_plain_files) {
        sdc_log_peer("%s: guest memory is a plain file, which may be truncated under us: give the VM memory from memfd or /dev/shm, "
                     "or serve with --allow-file-memory", memory->name);
        return -EINVAL;
    }
    if (!sdc_add(offset, region->size, &end) || end > id.size)
        return -EINVAL;
    bool writable = region->access & SDC_ACCESS_WRITE;
    if (writable && !id.writable)
        return -EACCES;
    rc = open_file(memory, fd, &id, end, writable, &region->mapping);
    if (rc == 0)
        region->host = region->mapping->base + offset;
    return rc;
}

int sdc_guest_memory_find_in_slot(struct sdc_guest_memory *memory, uint32_t slot, uint64_t offset, struct sdc_region *region)
{
    for (struct sdc_guest_file *file = memory->files; file; file = file->next) {
        if (file->slot != slot || !sdc_within(offset, region->size, file->mapping.size) ||
            (region->access & SDC_ACCESS_WRITE && !file->writable))
            continue;
        sdc_mapping_ref(&file->mapping);
        region->mapping = &file->mapping;
        region->host = file->mapping.base + offset;
        return 0;
    }
    return -ENOENT;
}

uint32_t *sdc_guest_memory_slot(const struct sdc_region *region)
{
    return &sdc_container(region->mapping, struct sdc_guest_file, mapping)->slot;
}

// --- maps ---

static void run_released(struct sdc_post *post)
{
    struct live_map *live = sdc_container(post, struct live_map, post);
    struct sdc_guest_memory *memory = live->memory;

    sdc_map_free(live->map);
    free(live);
    memory->maps_alive--;
    memory->released(memory);
}

// On the thread of the last reader.
static void map_released(struct sdc_map *map)
{
    struct live_map *live = map->context;

    sdc_loop_post(live->memory->loop, &live->post);
}

struct sdc_map *sdc_guest_memory_publish(struct sdc_guest_memory *memory)
{
    return sdc_guest_memory_publish_other(memory, &memory->table);
}

struct sdc_map *sdc_guest_memory_publish_other(struct sdc_guest_memory *memory, struct sdc_region_table *table)
{
    struct live_map *live = calloc(1, sizeof *live);
    struct sdc_map *map = live ? sdc_region_table_publish(table, map_released, live) : NULL;
    if (!map) {
        free(live);
        return NULL;
    }
    *live = (struct live_map){.post = {.run = run_released}, .memory = memory, .map = map};
    sdc_map_unref(memory->map);
    memory->map = map;
    memory->maps_alive++;
    return map;
}

void sdc_guest_memory_withdraw(struct sdc_guest_memory *memory)
{
    sdc_map_unref(memory->map);
    memory->map = NULL;
    sdc_region_table_clear(&memory->table);
}
