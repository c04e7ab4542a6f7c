// SPDX-License-Identifier: BSD-3-Clause
// Guest memory: the table of regions that readers use (a map: immutable once published, counted), and the owner's table from
// which maps are published. The door below is the only way by which bytes are reached.
#pragma once

#include "base/check.h"
#include "memory/regions.h"

#include <stdbool.h>

struct sdc_remote;

enum { SDC_DENIALS_MAX = 8 };

struct sdc_map {
    // Readers (queues, the session) that may look addresses up in it or hold spans from it; zero: released is called.
    atomic_uint refs;
    void (*released)(struct sdc_map *map); // on the thread of the last unref; it ends in sdc_map_free
    void *context;                         // released's
    uint64_t generation;                   // counts up with each one published
    struct sdc_remote *remote;             // the way to its remote regions, or NULL
    bool partial; // what it does not have may be there for the asking: a cache of what an IOMMU knows. ->remote asks
    struct sdc_regions regions;
};
struct sdc_map *sdc_map_ref(struct sdc_map *map);
void sdc_map_unref(struct sdc_map *map); // NULL is fine
void sdc_map_free(struct sdc_map *map);  // drops the mappings

// What a reader has fetched from remote memory for what it parses just now. It lasts for one attempt after another until the
// parse succeeds; then it is cleared, so that nothing old is taken for new.
struct sdc_read_cache {
    struct sdc_cached *pieces; // sorted by iova, disjoint
    uint32_t count;
    uint32_t capacity;
    uint32_t last;  // index of the last hit
    uint64_t bytes; // in all pieces
};
// Copies the bytes in; iova + size does not wrap. A byte that is there already keeps its value, so that every attempt of a parse sees
// the same. -ENOMEM.
int sdc_read_cache_add(struct sdc_read_cache *cache, uint64_t iova, const void *data, size_t size);
void sdc_read_cache_drop(struct sdc_read_cache *cache);
static inline void sdc_read_cache_clear(struct sdc_read_cache *cache)
{
    if (cache->pieces)
        sdc_read_cache_drop(cache);
}

// What a reader was denied of a partial map while it parsed: not asked for again in the same parse.
struct sdc_denials {
    struct {
        uint64_t iova;
        uint64_t size; // bytes
    } ranges[SDC_DENIALS_MAX];
    uint32_t count;
    bool all; // there were more, or it has asked too often: nothing is asked for any more
};
void sdc_denials_add(struct sdc_denials *denials, uint64_t iova, uint64_t size);

// A region as its bytes are reached. Zeroed, it holds nothing.
struct sdc_window {
    uint64_t iova;
    uint64_t size;
    uint8_t *host; // not NULL
    uint32_t access;
};

enum { SDC_WINDOWS = 2 };

// A view of a map, for one thread at a time. Starts zeroed but for the map, which does not change and is held by somebody else.
struct sdc_memory {
    const struct sdc_map *map;    // NULL: no memory at all
    const struct sdc_region *hit; // of the map: where the last search ended, or NULL
    struct sdc_window near[SDC_WINDOWS]; // the last that were searched for: rings and data mostly lie in a region each
    uint32_t oldest;                     // of those
    uint64_t missing_iova;        // after -EAGAIN: what has to be fetched, or asked for
    size_t missing_size;
    enum sdc_access missing_access;
    const struct sdc_denials *denied; // NULL: nothing
    // A reader that can reach remote memory has both; else such memory is not there for it.
    struct sdc_read_cache *cache;
    int (*write_remote)(struct sdc_memory *memory, uint64_t iova, const void *data, size_t size);
};

// --- the door: what is parsed is copied out once, what is only moved goes by spans ---

// Copies size bytes at iova to local. 0, -EFAULT (no region, or a part of it), -EACCES (region is not readable),
// -EAGAIN (memory that has to be fetched from the client first; the view names the range).
int sdc_memory_read(struct sdc_memory *memory, uint64_t iova, void *local, size_t size);

// Copies size bytes from local to iova. Errors as sdc_memory_read; nothing is written when one is returned.
int sdc_memory_write(struct sdc_memory *memory, uint64_t iova, const void *local, size_t size);

// Fills out[0..max) with the spans of [iova, iova + size), one for each contiguous stretch. Returns their number
// (0 for size 0), -EFAULT, -EACCES, -EAGAIN, or -E2BIG when max does not suffice. The spans are good while the
// table of regions that they came from is held.
int sdc_memory_spans(struct sdc_memory *memory, uint64_t iova, uint64_t size, enum sdc_access access, struct sdc_span *out, unsigned max);

// Another map, or the same one as if it were new.
static inline void sdc_memory_turn(struct sdc_memory *memory, const struct sdc_map *map)
{
    memory->map = map;
    memory->hit = NULL;
    memory->near[0] = memory->near[1] = (struct sdc_window){0};
}

static inline uint8_t *sdc_window_at(const struct sdc_window *window, uint64_t iova, uint32_t size, enum sdc_access access)
{
    uint64_t end;

    if (!sdc_add(iova - window->iova, size, &end) || end > window->size || !(window->access & (uint32_t)access))
        return NULL;
    return window->host + (iova - window->iova);
}

// Host memory of [iova, iova + size), not empty, if all of it lies in one region that was found of late and may be accessed; else NULL,
// which says nothing. What every request asks a few times: all other answers are sdc_memory_spans'.
static inline uint8_t *sdc_memory_at_hand(const struct sdc_memory *memory, uint64_t iova, uint32_t size, enum sdc_access access)
{
    uint8_t *host = sdc_window_at(&memory->near[0], iova, size, access);

    return host ? host : sdc_window_at(&memory->near[1], iova, size, access);
}

// Whether all of [iova, iova + size) may be accessed: 0; 1 if a part of it is remote; -EFAULT, -EACCES, and of a partial map -EAGAIN.
int sdc_memory_check(struct sdc_memory *memory, uint64_t iova, uint64_t size, enum sdc_access access);
// Cuts [*begin, *end), which holds iova, down to the region that holds iova.
void sdc_memory_clip(struct sdc_memory *memory, uint64_t iova, uint64_t *begin, uint64_t *end);

// The owner's table: mutable, one thread.
struct sdc_region_table {
    struct sdc_regions regions;
    uint64_t generation; // of the map published last
};
// Takes a reference to region->mapping. -EINVAL (empty, or the end wraps), -EEXIST (overlaps another), -ENOSPC (too many), -ENOMEM.
int sdc_region_table_add(struct sdc_region_table *table, const struct sdc_region *region);
// Removes the region that is exactly [iova, iova + size). -ENOENT, -ENOMEM.
int sdc_region_table_remove(struct sdc_region_table *table, uint64_t iova, uint64_t size);
void sdc_region_table_clear(struct sdc_region_table *table);
// A map of what the table holds now, with one reference, which is the caller's. NULL: no memory.
struct sdc_map *sdc_region_table_publish(struct sdc_region_table *table, void (*released)(struct sdc_map *map),
                                         void *context);
