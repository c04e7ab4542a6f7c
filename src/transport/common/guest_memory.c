// SPDX-License-Identifier: BSD-3-Clause
#include "transport/common/guest_memory.h"

#include "base/check.h"
#include "base/log.h"
#include "os/fd.h"
#include "transport/common/guest_window.h"

#include <errno.h>
#include <stdlib.h>

enum { LISTS = 16 }; // at first

// A file of guest memory that is mapped as a whole.
struct sdc_guest_file {
    struct sdc_mapping mapping;
    struct sdc_guest_memory *memory;
    struct sdc_guest_file *next; // in its list
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

static struct sdc_guest_file **list_of(struct sdc_guest_file **lists, uint32_t lists_count, dev_t device, ino_t inode)
{
    uint64_t mixed = ((uint64_t)inode ^ (uint64_t)device << 40) * UINT64_C(0x9e3779b97f4a7c15);

    return &lists[(mixed >> 32) & (lists_count - 1)];
}

// As many lists as there are files, roughly: a client may have tens of thousands. Without memory for more they grow longer.
static void make_lists(struct sdc_guest_memory *memory)
{
    uint32_t count = memory->lists_count ? memory->lists_count * 2 : LISTS;
    struct sdc_guest_file **lists = memory->files_count < memory->lists_count ? NULL : calloc(count, sizeof(struct sdc_guest_file *));

    if (!lists)
        return;
    for (uint32_t i = 0; i < memory->lists_count; i++) {
        for (struct sdc_guest_file *file = memory->files[i], *next; file; file = next) {
            struct sdc_guest_file **list = list_of(lists, count, file->device, file->inode);
            next = file->next;
            file->next = *list;
            *list = file;
        }
    }
    free(memory->files);
    memory->files = lists;
    memory->lists_count = count;
}

// If there is nothing in them.
static void drop_lists(struct sdc_guest_memory *memory)
{
    if (memory->files_count > 0)
        return;
    free(memory->files);
    memory->files = NULL;
    memory->lists_count = 0;
}

// The last region or map that held it has gone; both are dropped on the home loop only.
static void release_file(struct sdc_mapping *mapping)
{
    struct sdc_guest_file *file = sdc_container(mapping, struct sdc_guest_file, mapping);
    struct sdc_guest_memory *memory = file->memory;
    struct sdc_guest_file **link = list_of(memory->files, memory->lists_count, file->device, file->inode);

    while (*link != file)
        link = &(*link)->next;
    *link = file->next;
    memory->files_count--;
    drop_lists(memory);
    if (file->slot != SDC_SLOT_NONE && file->memory->slot_free)
        file->memory->slot_free(file->memory, file->slot);
    sdc_unmap(mapping->base, mapping->size);
    free(file);
}

// One that is mapped and will do, or NULL.
static struct sdc_guest_file *find_file(const struct sdc_guest_memory *memory, const struct sdc_file_identity *id, uint64_t end,
                                        bool writable)
{
    struct sdc_guest_file *file = memory->files ? *list_of(memory->files, memory->lists_count, id->device, id->inode) : NULL;

    while (file && (file->device != id->device || file->inode != id->inode || file->mapping.size < end || (writable && !file->writable)))
        file = file->next;
    return file;
}

// The mapping of the file behind fd, at least `end` bytes long, with a reference for the caller.
static int open_file(struct sdc_guest_memory *memory, int fd, const struct sdc_file_identity *id, uint64_t end, bool writable,
                     struct sdc_mapping **mapping)
{
    struct sdc_guest_file *file = find_file(memory, id, end, writable);
    void *base;

    if (file) {
        sdc_mapping_ref(&file->mapping);
        *mapping = &file->mapping;
        return 0;
    }
    make_lists(memory);
    file = memory->files ? calloc(1, sizeof *file) : NULL;
    int rc = file ? sdc_fd_map(fd, id->size, id->writable, &base) : -ENOMEM;
    if (rc < 0) {
        free(file);
        drop_lists(memory);
        return rc;
    }
    struct sdc_guest_file **list = list_of(memory->files, memory->lists_count, id->device, id->inode);
    *file = (struct sdc_guest_file){
        .memory = memory, .next = *list, .device = id->device, .inode = id->inode, .writable = id->writable, .slot = SDC_SLOT_NONE};
    file->mapping.base = base;
    file->mapping.size = id->size;
    file->mapping.release = release_file;
    atomic_init(&file->mapping.refs, 1);
    *list = file;
    memory->files_count++;
    *mapping = &file->mapping;
    return 0;
}

// The region holds file, or a window into it, from now on. Takes over a reference to file.
static void hold(struct sdc_guest_memory *memory, struct sdc_region *region, struct sdc_mapping *file, uint64_t offset)
{
    region->host = file->base + offset;
    region->mapping = sdc_container(file, struct sdc_guest_file, mapping)->writable
                          ? sdc_guest_window_new(memory, file, region->host, region->size)
                          : NULL; // the kernel registers only what it may write to
    if (region->mapping)
        sdc_mapping_unref(file);
    else
        region->mapping = file;
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
    struct sdc_mapping *file = NULL;
    rc = open_file(memory, fd, &id, end, writable, &file);
    if (rc == 0)
        hold(memory, region, file, offset);
    return rc;
}

static bool has(const struct sdc_guest_file *file, uint32_t slot, uint64_t offset, const struct sdc_region *region)
{
    return file->slot == slot && sdc_within(offset, region->size, file->mapping.size) &&
           (file->writable || !(region->access & SDC_ACCESS_WRITE));
}

int sdc_guest_memory_find_in_slot(struct sdc_guest_memory *memory, uint32_t slot, uint64_t offset, struct sdc_region *region)
{
    struct sdc_guest_file *file = NULL;

    for (uint32_t i = 0; !file && i < memory->lists_count; i++) {
        file = memory->files[i];
        while (file && !has(file, slot, offset, region))
            file = file->next;
    }
    if (!file)
        return -ENOENT;
    sdc_mapping_ref(&file->mapping);
    hold(memory, region, &file->mapping, offset);
    return 0;
}

uint32_t *sdc_guest_memory_slot(const struct sdc_region *region)
{
    return &sdc_container(sdc_guest_window_file(region->mapping), struct sdc_guest_file, mapping)->slot;
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
