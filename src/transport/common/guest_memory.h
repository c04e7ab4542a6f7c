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
    // That may register the memory (guest_window.h); none: nothing is registered. They outlive it.
    struct sdc_loop *const *loops;
    unsigned loops_count;
    // A map has gone that was published, or a window that was taken back is registered nowhere any more.
    void (*released)(struct sdc_guest_memory *memory);
    // A file has gone that was kept in this slot. May be NULL.
    void (*slot_free)(struct sdc_guest_memory *memory, uint32_t slot);
    struct sdc_region_table table;
    struct sdc_map *map;        // the newest; a reference
    struct sdc_guest_file **files; // that are mapped: lists, by what tells a file; NULL: none was yet
    uint32_t files_count;
    uint32_t lists_count;       // a power of two
    uint32_t maps_alive;        // published and not freed; one: nobody uses an older one than the newest
    struct sdc_guest_window *windows;
    uint32_t windows_count;
    uint32_t windows_leaving;   // taken back, and may be registered still; zero: the kernel holds nothing but what is in the table
};

// Finds region->size bytes at `offset` of the file behind fd: fills in region->host and region->mapping, with a reference for the
// caller. fd stays the caller's. -EINVAL: it is no memory (memfd, tmpfs, hugetlbfs), or it is shorter. -EACCES: it cannot be written
// as region->access wants.
int sdc_guest_memory_find(struct sdc_guest_memory *memory, int fd, uint64_t offset, struct sdc_region *region);
// The same in the file that is kept in this slot. -ENOENT: none of those that are mapped.
int sdc_guest_memory_find_in_slot(struct sdc_guest_memory *memory, uint32_t slot, uint64_t offset, struct sdc_region *region);
// The slot that the file of a region which was found is kept in, SDC_SLOT_NONE at first; it is the caller's to set.
uint32_t *sdc_guest_memory_slot(const struct sdc_region *region);
// A region is being taken back: loops let go of it, whoever holds it still; it was not: they may have it again. Its window, and so a region
// of the same memory elsewhere, goes without from the one to the other.
void sdc_guest_memory_let_go(const struct sdc_region *region);
void sdc_guest_memory_keep(const struct sdc_region *region);
// A new map of the table as it is, which becomes the newest. NULL: no memory.
struct sdc_map *sdc_guest_memory_publish(struct sdc_guest_memory *memory);
// The same of another table, whose regions lie in the files of this memory.
struct sdc_map *sdc_guest_memory_publish_other(struct sdc_guest_memory *memory, struct sdc_region_table *table);
// Forgets the table and the newest map. What is left of it all is gone when maps_alive and windows_leaving are zero.
void sdc_guest_memory_withdraw(struct sdc_guest_memory *memory);
