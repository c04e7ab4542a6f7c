// SPDX-License-Identifier: BSD-3-Clause
// What it costs to find a region of guest memory, and to publish a change of them: the product's leaves beside three plainer
// structures. Prints one line for each figure; tools/perf-regions makes tables of them. With --quick it only shows that it works.
#include "base/limits.h"
#include "memory/map.h"

#include <inttypes.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST = SDC_LIMIT_DMA_REGIONS, MOST_ROUNDS = 101 };

static uint64_t random_state = 1;

static uint32_t random_below(uint32_t bound)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (uint32_t)((random_state >> 32) * bound >> 32);
}

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void check(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "regions: %s\n", what);
        exit(1);
    }
}

// --- what is compared ---

// The same regions in every structure. All look-ups are by a pointer to a function, so that none is built into its loop.
struct field {
    uint32_t count;
    struct sdc_region *regions; // sorted
    uint64_t *first;            // iova of each
    uint64_t *heap;             // those in the order of a binary heap's levels, from 1 on
    uint32_t *heap_region;      // which region each is
    struct sdc_region *circle;  // a copy of the regions, whose hosts lead through all of them
    const struct sdc_region *at;
    struct sdc_mapping mapping;
    struct sdc_region_table table;
    struct sdc_map *map;
    struct sdc_memory memory;
};

// A search that halves an array of regions and stops where it hits.
static const struct sdc_region *find_by_halves(struct field *field, uint64_t iova)
{
    for (uint32_t low = 0, high = field->count; low < high;) {
        uint32_t middle = low + (high - low) / 2;
        const struct sdc_region *region = &field->regions[middle];
        if (iova < region->iova)
            high = middle;
        else if (iova - region->iova >= region->size)
            low = middle + 1;
        else
            return region;
    }
    return NULL;
}

// The addresses alone in an array, halved without branches.
static const struct sdc_region *find_without_branches(struct field *field, uint64_t iova)
{
    const uint64_t *low = field->first;

    for (uint32_t count = field->count; count > 1;) {
        uint32_t half = count / 2;
        low += iova >= low[half] ? half : 0;
        count -= half;
    }
    const struct sdc_region *region = &field->regions[low - field->first];
    return iova - region->iova < region->size ? region : NULL;
}

// The addresses in the order in which a search meets them (Eytzinger's), fetched four levels ahead.
static const struct sdc_region *find_by_levels(struct field *field, uint64_t iova)
{
    uint32_t at = 1;

    while (at <= field->count) {
        __builtin_prefetch(&field->heap[(uint64_t)at * 8 <= field->count ? at * 8 : at]);
        at = at * 2 + (iova >= field->heap[at]);
    }
    at >>= __builtin_ctz(at) + 1; // up to the last turn to the right
    if (at == 0)
        return NULL;
    const struct sdc_region *region = &field->regions[field->heap_region[at]];
    return iova - region->iova < region->size ? region : NULL;
}

static const struct sdc_region *find_in_leaves(struct field *field, uint64_t iova)
{
    return sdc_regions_find(&field->map->regions, iova);
}

// No search at all: each region's host is the place of the next one in a random circle. What one load costs that misses as often.
static const struct sdc_region *find_next(struct field *field, uint64_t iova)
{
    (void)iova;
    field->at = (const struct sdc_region *)(const void *)field->at->host;
    return field->at;
}

// As a device does it, and with what it gets from it.
static const struct sdc_region *find_by_the_door(struct field *field, uint64_t iova)
{
    struct sdc_span span;

    int count = sdc_memory_spans(&field->memory, iova, 1, SDC_ACCESS_READ, &span, 1);
    return count == 1 ? field->memory.hit : NULL;
}

static const struct {
    const char *name;
    const struct sdc_region *(*find)(struct field *field, uint64_t iova);
} kinds[] = {
    {"halves", find_by_halves},
    {"branchless", find_without_branches},
    {"eytzinger", find_by_levels},
    {"leaves", find_in_leaves},
    {"door", find_by_the_door},
    {"load", find_next},
};
enum { KINDS = sizeof kinds / sizeof kinds[0], SEARCHES = KINDS - 1 };

static uint32_t fill_levels(struct field *field, uint32_t at, uint32_t next)
{
    if (at > field->count)
        return next;
    next = fill_levels(field, at * 2, next);
    field->heap[at] = field->first[next];
    field->heap_region[at] = next++;
    return fill_levels(field, at * 2 + 1, next);
}

static void make_circle(struct field *field)
{
    uint32_t *order = calloc(field->count, sizeof order[0]);

    check(order && field->circle, "no memory");
    for (uint32_t i = 0; i < field->count; i++)
        order[i] = i;
    for (uint32_t i = field->count - 1; i > 0; i--) {
        uint32_t other = random_below(i), kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
    for (uint32_t i = 0; i < field->count; i++) {
        field->circle[order[i]] = field->regions[i];
        field->circle[order[i]].host = (uint8_t *)&field->circle[order[(i + 1) % field->count]];
    }
    field->at = field->circle;
    free(order);
}

static void mapping_stays(struct sdc_mapping *mapping)
{
    (void)mapping;
}

// A region of 1 to 16 pages begins at each multiple of 64 KiB: an address in a random one needs no list, which would take a part of
// the caches.
static uint64_t address_in(uint32_t region, uint32_t random)
{
    return (UINT64_C(1) << 32) + ((uint64_t)region << 16) + random % 4096;
}

static void make_regions(struct field *field, uint32_t count)
{
    *field = (struct field){.count = count, .mapping = {.release = mapping_stays}};
    atomic_init(&field->mapping.refs, 1);
    field->regions = calloc(count, sizeof field->regions[0]);
    check(field->regions != NULL, "no memory");
    for (uint32_t i = 0; i < count; i++) {
        uint64_t size = 4096 * (UINT64_C(1) + random_below(16));
        uint64_t iova = address_in(i, 0);
        field->regions[i] = (struct sdc_region){.iova = iova, .size = size, .host = (uint8_t *)(uintptr_t)iova,
                                                .access = SDC_ACCESS_READ, .mapping = &field->mapping};
    }
}

static void open_field(struct field *field, uint32_t count)
{
    make_regions(field, count);
    field->first = calloc(count, sizeof field->first[0]);
    field->heap = aligned_alloc(64, ((count + 8) & ~UINT32_C(7)) * sizeof field->heap[0]);
    field->heap_region = calloc(count + 1, sizeof field->heap_region[0]);
    check(field->first && field->heap && field->heap_region, "no memory");
    for (uint32_t i = 0; i < count; i++) {
        field->first[i] = field->regions[i].iova;
        check(sdc_region_table_add(&field->table, &field->regions[i]) == 0, "a region is refused");
    }
    fill_levels(field, 1, 0);
    field->circle = calloc(count, sizeof field->circle[0]);
    make_circle(field);
    field->map = sdc_region_table_publish(&field->table, sdc_map_free, NULL);
    check(field->map != NULL, "no memory");
    field->memory = (struct sdc_memory){.map = field->map};
}

static void close_field(struct field *field)
{
    sdc_map_unref(field->map);
    sdc_region_table_clear(&field->table);
    free(field->circle);
    free(field->heap_region);
    free(field->heap);
    free(field->first);
    free(field->regions);
}

// --- look-ups ---

static int compare(const void *a, const void *b)
{
    const double *left = a, *right = b;

    return (*left > *right) - (*left < *right);
}

// ns for each look-up. Each one's address hangs on what the one before found, so that they do not overlap.
static double time_finds(struct field *field, const struct sdc_region *(*find)(struct field *field, uint64_t iova),
                         uint32_t count, bool repeated)
{
    uint32_t bound = repeated ? 1 : field->count;
    uint64_t began = now(), sum = 0, nothing = 0;

    for (uint32_t i = 0; i < count; i++) {
        const struct sdc_region *found = find(field, address_in(random_below(bound), i) + nothing);
        nothing = found->size & 1; // whole pages: always 0
        sum += found->iova;
    }
    double each = (double)(now() - began) / count;
    check(sum != 0 && nothing == 0, "a look-up went wrong");
    return each;
}

static void all_agree(struct field *field)
{
    for (uint32_t i = 0; i < field->count; i++) {
        for (unsigned kind = 0; kind < SEARCHES; kind++) {
            const struct sdc_region *found = kinds[kind].find(field, address_in(i, i));
            check(found && found->iova == field->regions[i].iova, "a region is not found");
        }
    }
}

static void look_up(uint32_t count, unsigned rounds, uint32_t finds)
{
    static double took[2][KINDS][MOST_ROUNDS];
    struct field field;

    open_field(&field, count);
    all_agree(&field);
    for (unsigned round = 0; round < rounds; round++)
        for (unsigned kind = 0; kind < KINDS; kind++)
            for (unsigned repeated = 0; repeated < 2; repeated++)
                took[repeated][kind][round] = time_finds(&field, kinds[kind].find, finds, repeated);
    for (unsigned kind = 0; kind < KINDS; kind++) {
        for (unsigned repeated = 0; repeated < 2; repeated++)
            qsort(took[repeated][kind], rounds, sizeof(double), compare);
        printf("lookup %s %" PRIu32 " %.2f %.2f\n", kinds[kind].name, count, took[1][kind][rounds / 2], took[0][kind][rounds / 2]);
    }
    close_field(&field);
}

// --- publishing ---

static size_t bytes_allocated(void)
{
    struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
}

// One change and one publication after the other. The map before lives until the next one is there, as with a queue.
static void publish_leaves(const struct field *field)
{
    struct sdc_region_table table = {0};
    struct sdc_map *map = NULL;
    size_t before = bytes_allocated();
    uint64_t began = now();

    for (uint32_t i = 0; i < 2 * field->count; i++) {
        if (i == field->count) {
            printf("publish leaves add %.1f\n", (double)(now() - began) / 1e6);
            printf("publish leaves bytes %zu\n", bytes_allocated() - before);
            began = now();
        }
        const struct sdc_region *region = &field->regions[i % field->count];
        int rc = i < field->count ? sdc_region_table_add(&table, region) : sdc_region_table_remove(&table, region->iova, region->size);
        struct sdc_map *next = sdc_region_table_publish(&table, sdc_map_free, NULL);
        check(rc == 0 && next, "a change went wrong");
        sdc_map_unref(map);
        map = next;
    }
    printf("publish leaves remove %.1f\n", (double)(now() - began) / 1e6);
    sdc_map_unref(map);
    sdc_region_table_clear(&table);
}

// The same with arrays that are copied as a whole: each `step`th publication is timed and counted `step` times. Regions come and go at
// the end, so that nothing has to be moved.
static void publish_arrays(const struct field *field, uint32_t step)
{
    struct sdc_mapping *mapping = (struct sdc_mapping *)&field->mapping;
    uint64_t took = 0;

    for (uint32_t count = 1; count <= field->count; count += step) {
        uint64_t began = now();
        struct sdc_region *copy = malloc(count * sizeof *copy);
        check(copy != NULL, "no memory");
        for (uint32_t i = 0; i < count; i++) {
            copy[i] = field->regions[i];
            sdc_mapping_ref(copy[i].mapping);
        }
        check(copy[count - 1].iova == field->regions[count - 1].iova, "a copy went wrong");
        for (uint32_t i = 0; i < count; i++)
            sdc_mapping_unref(mapping);
        free(copy);
        took += now() - began;
    }
    printf("publish halves add %.1f\n", (double)took * step / 1e6);
    printf("publish halves remove %.1f\n", (double)took * step / 1e6);
    printf("publish halves bytes %zu\n", 2 * field->count * sizeof field->regions[0]);
}

int main(int argc, char **argv)
{
    static const uint32_t counts[] = {1, 64, 1000, MOST};
    bool quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
    struct field field;

    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        look_up(counts[i], quick ? 1 : 21, quick ? 10000 : 200000);
    make_regions(&field, quick ? 5000 : MOST);
    publish_leaves(&field);
    publish_arrays(&field, quick ? 1000 : 101);
    free(field.regions);
    return 0;
}
