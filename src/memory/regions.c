// SPDX-License-Identifier: BSD-3-Clause
#include "memory/regions.h"

#include "base/check.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

void sdc_mapping_ref(struct sdc_mapping *mapping)
{
    if (mapping)
        atomic_fetch_add_explicit(&mapping->refs, 1, memory_order_relaxed);
}

void sdc_mapping_unref(struct sdc_mapping *mapping)
{
    if (mapping && atomic_fetch_sub_explicit(&mapping->refs, 1, memory_order_acq_rel) == 1)
        mapping->release(mapping);
}

// --- leaves ---

static struct sdc_region_leaf *leaf_new(void)
{
    struct sdc_region_leaf *leaf = malloc(sizeof *leaf);

    if (leaf) {
        atomic_init(&leaf->refs, 1);
        leaf->count = 0;
    }
    return leaf;
}

static void leaf_unref(struct sdc_region_leaf *leaf)
{
    if (atomic_fetch_sub_explicit(&leaf->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (uint32_t i = 0; i < leaf->count; i++)
        sdc_mapping_unref(leaf->regions[i].mapping);
    free(leaf);
}

static bool is_shared(struct sdc_region_leaf *leaf)
{
    // Acquire: what others read of it they have read before it is changed.
    return atomic_load_explicit(&leaf->refs, memory_order_acquire) > 1;
}

// Moves the regions from `at` on by `by` places and fills no gap. The leaf has room.
static void leaf_move(struct sdc_region_leaf *leaf, uint32_t at, int32_t by)
{
    uint32_t count = leaf->count - at;
    uint32_t to = (uint32_t)((int32_t)at + by);

    memmove(&leaf->first[to], &leaf->first[at], count * sizeof leaf->first[0]);
    memmove(&leaf->regions[to], &leaf->regions[at], count * sizeof leaf->regions[0]);
    leaf->count = to + count;
}

static void leaf_put(struct sdc_region_leaf *leaf, uint32_t at, const struct sdc_region *region)
{
    leaf->first[at] = region->iova;
    leaf->regions[at] = *region;
    sdc_mapping_ref(region->mapping);
}

// Appends `count` regions of another leaf, from `at` on.
static void leaf_append(struct sdc_region_leaf *leaf, const struct sdc_region_leaf *other, uint32_t at, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        leaf_put(leaf, leaf->count + i, &other->regions[at + i]);
    leaf->count += count;
}

// The slot's leaf as one that may be changed, or NULL: no memory.
static struct sdc_region_leaf *own_leaf(struct sdc_region_slot *slot)
{
    if (!is_shared(slot->leaf))
        return slot->leaf;
    struct sdc_region_leaf *own = leaf_new();
    if (!own)
        return NULL;
    leaf_append(own, slot->leaf, 0, slot->leaf->count);
    leaf_unref(slot->leaf);
    slot->leaf = own;
    return own;
}

// --- looking up ---

// Where a region is or would be.
struct place {
    uint32_t slot;
    uint32_t at;
};

// The last slot that begins at or before iova; the first one if all begin after it. There is one.
static uint32_t find_slot(const struct sdc_regions *set, uint64_t iova)
{
    const struct sdc_region_slot *low = set->slots;

    // Without a branch on what was compared, which nothing could predict.
    for (uint32_t count = set->slots_count; count > 1;) {
        uint32_t half = count / 2;
        low += iova >= low[half].first ? half : 0;
        count -= half;
    }
    return (uint32_t)(low - set->slots);
}

// The same among the regions of a leaf.
static uint32_t find_region(const struct sdc_region_leaf *leaf, uint64_t iova)
{
    const uint64_t *low = leaf->first;

    for (uint32_t count = leaf->count; count > 1;) {
        uint32_t half = count / 2;
        low += iova >= low[half] ? half : 0;
        count -= half;
    }
    return (uint32_t)(low - leaf->first);
}

const struct sdc_region *sdc_regions_find(const struct sdc_regions *set, uint64_t iova)
{
    if (set->count == 0)
        return NULL;
    const struct sdc_region_leaf *leaf = set->slots[find_slot(set, iova)].leaf;
    const struct sdc_region *region = &leaf->regions[find_region(leaf, iova)];
    return iova - region->iova < region->size ? region : NULL;
}

// The first region that ends behind iova. False: none does, and place is where one at iova would be appended.
static bool place_past(const struct sdc_regions *set, uint64_t iova, struct place *place)
{
    *place = (struct place){0, 0};
    if (set->count == 0)
        return false;
    place->slot = find_slot(set, iova);
    const struct sdc_region_leaf *leaf = set->slots[place->slot].leaf;
    place->at = find_region(leaf, iova);
    const struct sdc_region *region = &leaf->regions[place->at];
    if (iova < region->iova || iova - region->iova < region->size)
        return true;
    place->at++;
    if (place->at < leaf->count)
        return true;
    if (place->slot + 1 == set->slots_count)
        return false;
    *place = (struct place){place->slot + 1, 0};
    return true;
}

static const struct sdc_region *region_at(const struct sdc_regions *set, struct place place)
{
    return &set->slots[place.slot].leaf->regions[place.at];
}

const struct sdc_region *sdc_regions_past(const struct sdc_regions *set, uint64_t iova)
{
    struct place place;

    return place_past(set, iova, &place) ? region_at(set, place) : NULL;
}

const struct sdc_region *sdc_regions_next(const struct sdc_regions *set, const struct sdc_region *region)
{
    return sdc_regions_past(set, region->iova + region->size);
}

// --- changing ---

// A new slot at `at`, whose leaf is empty, or NULL: no memory.
static struct sdc_region_leaf *insert_slot(struct sdc_regions *set, uint32_t at)
{
    if (set->slots_count == set->slots_capacity) {
        uint32_t capacity = set->slots_capacity ? set->slots_capacity * 2 : 4;
        struct sdc_region_slot *slots = realloc(set->slots, capacity * sizeof *slots);
        if (!slots)
            return NULL;
        set->slots = slots;
        set->slots_capacity = capacity;
    }
    struct sdc_region_leaf *leaf = leaf_new();
    if (!leaf)
        return NULL;
    memmove(&set->slots[at + 1], &set->slots[at], (set->slots_count - at) * sizeof set->slots[0]);
    set->slots[at] = (struct sdc_region_slot){0, leaf};
    set->slots_count++;
    return leaf;
}

static void remove_slot(struct sdc_regions *set, uint32_t at)
{
    leaf_unref(set->slots[at].leaf);
    set->slots_count--;
    memmove(&set->slots[at], &set->slots[at + 1], (set->slots_count - at) * sizeof set->slots[0]);
}

// Moves the upper half of a full leaf to a new slot behind it, and place with it.
static int halve(struct sdc_regions *set, struct place *place)
{
    const uint32_t half = SDC_LEAF_REGIONS / 2;
    struct sdc_region_leaf *lower = own_leaf(&set->slots[place->slot]);
    struct sdc_region_leaf *upper = lower ? insert_slot(set, place->slot + 1) : NULL;

    if (!upper)
        return -ENOMEM;
    memcpy(upper->first, &lower->first[half], half * sizeof lower->first[0]);
    memcpy(upper->regions, &lower->regions[half], half * sizeof lower->regions[0]);
    upper->count = lower->count = half;
    set->slots[place->slot + 1].first = upper->first[0];
    if (place->at > half)
        *place = (struct place){place->slot + 1, place->at - half};
    return 0;
}

// Sees to it that the leaf at place has room for one more and may be changed. What comes behind all others begins a leaf of its own,
// so that regions that come in order fill their leaves.
static int make_room(struct sdc_regions *set, struct place *place)
{
    if (set->slots_count == 0)
        return insert_slot(set, 0) ? 0 : -ENOMEM;
    if (set->slots[place->slot].leaf->count < SDC_LEAF_REGIONS)
        return own_leaf(&set->slots[place->slot]) ? 0 : -ENOMEM;
    if (place->at < SDC_LEAF_REGIONS)
        return halve(set, place);
    *place = (struct place){set->slots_count, 0};
    return insert_slot(set, place->slot) ? 0 : -ENOMEM;
}

int sdc_regions_add(struct sdc_regions *set, const struct sdc_region *region)
{
    struct place place;
    uint64_t end;

    if (region->size == 0 || !sdc_add(region->iova, region->size, &end))
        return -EINVAL;
    if (place_past(set, region->iova, &place) && region_at(set, place)->iova < end)
        return -EEXIST;
    int rc = make_room(set, &place);
    if (rc < 0)
        return rc;
    struct sdc_region_slot *slot = &set->slots[place.slot];
    leaf_move(slot->leaf, place.at, 1);
    leaf_put(slot->leaf, place.at, region);
    slot->first = slot->leaf->first[0];
    set->count++;
    return 0;
}

// Joins the slot with the one after it if both are small, so that what remains of many regions takes little. Never needed: no matter
// if there is no memory for it.
static void join(struct sdc_regions *set, uint32_t at)
{
    if (at + 1 >= set->slots_count)
        return;
    struct sdc_region_leaf *next = set->slots[at + 1].leaf;
    if (set->slots[at].leaf->count + next->count > SDC_LEAF_REGIONS / 2)
        return;
    struct sdc_region_leaf *leaf = own_leaf(&set->slots[at]);
    if (!leaf)
        return;
    leaf_append(leaf, next, 0, next->count);
    remove_slot(set, at + 1);
}

int sdc_regions_remove(struct sdc_regions *set, uint64_t iova, uint64_t size)
{
    struct place place;

    if (!place_past(set, iova, &place) || region_at(set, place)->iova != iova || region_at(set, place)->size != size)
        return -ENOENT;
    struct sdc_region_slot *slot = &set->slots[place.slot];
    if (slot->leaf->count == 1) {
        remove_slot(set, place.slot);
    } else {
        struct sdc_region_leaf *leaf = own_leaf(slot);
        if (!leaf)
            return -ENOMEM;
        sdc_mapping_unref(leaf->regions[place.at].mapping);
        leaf_move(leaf, place.at + 1, -1);
        slot->first = leaf->first[0];
        join(set, place.slot);
    }
    if (place.slot > 0)
        join(set, place.slot - 1);
    set->count--;
    return 0;
}

int sdc_regions_copy(struct sdc_regions *copy, const struct sdc_regions *set)
{
    *copy = (struct sdc_regions){0};
    if (set->slots_count == 0)
        return 0;
    copy->slots = malloc(set->slots_count * sizeof copy->slots[0]);
    if (!copy->slots)
        return -ENOMEM;
    copy->count = set->count;
    copy->slots_count = copy->slots_capacity = set->slots_count;
    for (uint32_t i = 0; i < set->slots_count; i++) {
        copy->slots[i] = set->slots[i];
        atomic_fetch_add_explicit(&set->slots[i].leaf->refs, 1, memory_order_relaxed);
    }
    return 0;
}

void sdc_regions_clear(struct sdc_regions *set)
{
    for (uint32_t i = 0; i < set->slots_count; i++)
        leaf_unref(set->slots[i].leaf);
    free(set->slots);
    *set = (struct sdc_regions){0};
}
