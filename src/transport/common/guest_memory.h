// SPDX-License-Identifier: BSD-3-Clause
// The memory that a client has shown, as its session owns it: files, each mapped once however many regions look into it; the table of
// regions; and the maps that were published from it and that somebody may still use. All on the home loop.
#pragma once

#include "loop/loop.h"
#include "memory/map.h"
#include "transport/common/slots.h"

struct sdc_guest_memory {
    struct sdc_loop *loop;
    const char *name;       // for the log: whose memory it is
    bool allow_plain_files; // which can be truncated under us
    // A map has gone that was published.
    void (*released)(struct sdc_guest_memory *memory);
    // A file has gone that was kept in this slot. May be NULL.
    void (*slot_free)(struct sdc_guest_memory *memory, uint32_t slot);
    struct sdc_region_table table;
    struct sdc_map *map;        // the newest; a reference
    struct sdc_guest_file **files; // that are mapped: lists, by what tells a file; NULL: none was yet
    uint32_t files_count;
    uint32_t lists_count;       // a power of two
    uint32_t maps_alive;        // published and not freed; one: nobody uses an older one than the newest
};

// Finds region->size bytes at `offset` of the file behind fd: fills in region->host and region->mapping, with a reference for the
// caller. fd stays the caller's. -EINVAL: it is no memory (memfd, tmpfs, hugetlbfs), or it is shorter. -EACCES: it cannot be written
// as region->access wants.
int sdc_guest_memory_find(struct sdc_guest_memory *memory, int fd, uint64_t offset, struct sdc_region *region);
// The same in the file that is kept in this slot. -ENOENT: none of those that are mapped.
int sdc_guest_memory_find_in_slot(struct sdc_guest_memory *memory, uint32_t slot, uint64_t offset, struct sdc_region *region);
// The slot that the file of a region which was found is kept in, SDC_SLOT_NONE at first; it is the caller's to set.
uint32_t *sdc_guest_memory_slot(const struct sdc_region *region);
// A new map of the table as it is, which becomes the newest. NULL: no memory.
struct sdc_map *sdc_guest_memory_publish(struct sdc_guest_memory *memory);
// The same of another table, whose regions lie in the files of this memory.
struct sdc_map *sdc_guest_memory_publish_other(struct sdc_guest_memory *memory, struct sdc_region_table *table);
// Forgets the table and the newest map. What is left of it all is gone when maps_alive is zero.
void sdc_guest_memory_withdraw(struct sdc_guest_memory *memory);
