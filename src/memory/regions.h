// SPDX-License-Identifier: BSD-3-Clause
// Regions of guest memory, and a sorted set of them that is cheap to copy. A set is an array of leaves of up to SDC_LEAF_REGIONS
// regions. A copy shares them with the original: it costs a pointer for each leaf, and a change copies the one leaf that it
// falls into. A look-up searches the leaves' first addresses, then those of one leaf; both lie close together.
#pragma once

#include <sidecard/memory.h>

#include <stdatomic.h>
#include <stdint.h>

// A file of guest memory, mapped once however many regions look into it. Made by a transport, which knows how to unmap.
struct sdc_mapping {
    uint8_t *base;
    uint64_t size; // bytes
    // Leaves that hold it, once for each region; zero: nobody can reach the bytes, release may unmap.
    atomic_uint refs;
    void (*release)(struct sdc_mapping *mapping); // on the thread of the last unref
};
void sdc_mapping_ref(struct sdc_mapping *mapping);
void sdc_mapping_unref(struct sdc_mapping *mapping); // NULL is fine

// A window of guest addresses.
struct sdc_region {
    uint64_t iova;
    uint64_t size;               // bytes; iova + size does not wrap
    uint8_t *host;               // first byte, or NULL: remote, reached by messages to the client
    uint32_t access;             // enum sdc_access: what the device may do
    struct sdc_mapping *mapping; // that host lies in
};

enum { SDC_LEAF_REGIONS = 128 };

struct sdc_region_leaf {
    // Sets that hold it. At one it belongs to that set, whose owner may change it; with more it is immutable. Zero: freed.
    atomic_uint refs;
    uint32_t count;                   // never 0 in a set
    uint64_t first[SDC_LEAF_REGIONS]; // iova of each region
    struct sdc_region regions[SDC_LEAF_REGIONS];
};

struct sdc_region_slot {
    uint64_t first; // iova of the leaf's first region
    struct sdc_region_leaf *leaf;
};

// Zeroed, it is empty. One thread changes it; any number may look things up in one that nobody changes.
struct sdc_regions {
    uint32_t count; // regions
    uint32_t slots_count;
    uint32_t slots_capacity;
    struct sdc_region_slot *slots; // sorted; two neighbours have more than SDC_LEAF_REGIONS / 2 regions between them
};

// Takes a reference to region->mapping. -EINVAL (empty, or the end wraps), -EEXIST (overlaps another), -ENOMEM: nothing has changed.
int sdc_regions_add(struct sdc_regions *set, const struct sdc_region *region);
// Removes the region that is exactly [iova, iova + size). -ENOENT, -ENOMEM: nothing has changed.
int sdc_regions_remove(struct sdc_regions *set, uint64_t iova, uint64_t size);
// Makes *copy, which is empty, hold what the set does. -ENOMEM.
int sdc_regions_copy(struct sdc_regions *copy, const struct sdc_regions *set);
// On any thread, while no other uses the set. It is empty then.
void sdc_regions_clear(struct sdc_regions *set);

// The region that holds iova, or NULL. It stays where it is until the set is changed or cleared.
const struct sdc_region *sdc_regions_find(const struct sdc_regions *set, uint64_t iova);
// The first region that ends behind iova, or NULL. It holds iova or lies after it.
const struct sdc_region *sdc_regions_past(const struct sdc_regions *set, uint64_t iova);
// All of them, by address: begin with sdc_regions_past(set, 0), go on until NULL.
const struct sdc_region *sdc_regions_next(const struct sdc_regions *set, const struct sdc_region *region);
