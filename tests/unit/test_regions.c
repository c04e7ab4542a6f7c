// SPDX-License-Identifier: BSD-3-Clause
// The sorted set of regions behind the table and the maps: the borders of its leaves, copies that share them, and a random course
// of changes against an array that is searched from one end to the other.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/limits.h"
#include "memory/map.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { LEAF = SDC_LEAF_REGIONS, PAGE = 4096, BOTH = SDC_ACCESS_READ | SDC_ACCESS_WRITE };

static void add(struct sdc_regions *set, uint64_t iova, uint64_t size)
{
    assert_int_equal(sdc_regions_add(set, &(struct sdc_region){.iova = iova, .size = size, .access = BOTH}), 0);
}

// What the comments in regions.h say of every set.
static void check_set(const struct sdc_regions *set)
{
    uint64_t end = 0;
    uint32_t count = 0;

    for (uint32_t i = 0; i < set->slots_count; i++) {
        const struct sdc_region_leaf *leaf = set->slots[i].leaf;
        assert_in_range(leaf->count, 1, LEAF);
        assert_int_equal(set->slots[i].first, leaf->first[0]);
        if (i > 0)
            assert_true(set->slots[i - 1].leaf->count + leaf->count > LEAF / 2);
        for (uint32_t k = 0; k < leaf->count; k++) {
            assert_int_equal(leaf->first[k], leaf->regions[k].iova);
            assert_true(leaf->first[k] >= end);
            end = leaf->regions[k].iova + leaf->regions[k].size;
        }
        count += leaf->count;
    }
    assert_int_equal(set->count, count);
}

// --- leaves ---

// Regions of a page, a page apart, added in one order or another; then every seam is looked at, and all are removed.
static void every_seam_between_leaves_is_found(void **state)
{
    static const uint32_t steps[] = {1, 7, UINT32_MAX}; // in order, jumping, from the last to the first
    const uint32_t count = 5 * LEAF + 1;

    (void)state;
    for (unsigned s = 0; s < 3; s++) {
        struct sdc_regions set = {0};
        for (uint32_t i = 0; i < count; i++)
            add(&set, (uint64_t)(steps[s] == UINT32_MAX ? count - i : 1 + (i * steps[s]) % count) * 2 * PAGE, PAGE);
        check_set(&set);
        const struct sdc_region *at = sdc_regions_past(&set, 0);
        for (uint32_t i = 1; i <= count; i++, at = sdc_regions_next(&set, at)) {
            uint64_t iova = (uint64_t)i * 2 * PAGE;
            assert_int_equal(at->iova, iova);
            assert_ptr_equal(sdc_regions_find(&set, iova), at);
            assert_ptr_equal(sdc_regions_find(&set, iova + PAGE - 1), at);
            assert_null(sdc_regions_find(&set, iova - 1));
            assert_null(sdc_regions_find(&set, iova + PAGE));
            assert_ptr_equal(sdc_regions_past(&set, iova - 1), at);
            assert_ptr_equal(sdc_regions_past(&set, iova - PAGE), at);
            assert_ptr_equal(sdc_regions_past(&set, iova + PAGE - 1), at);
        }
        assert_null(at);
        assert_null(sdc_regions_find(&set, UINT64_MAX));
        for (uint32_t i = 0; i < count; i++) {
            assert_int_equal(sdc_regions_remove(&set, (uint64_t)(1 + (i * 11) % count) * 2 * PAGE, PAGE), 0);
            check_set(&set);
        }
        assert_int_equal(set.slots_count, 0);
        sdc_regions_clear(&set);
    }
}

static void a_region_over_a_seam_overlaps(void **state)
{
    struct sdc_regions set = {0};

    (void)state;
    for (uint32_t i = 0; i < 3 * LEAF; i++)
        add(&set, (uint64_t)i * 2 * PAGE, PAGE);
    for (uint32_t i = 1; i < 3 * LEAF; i++) {
        struct sdc_region region = {.iova = (uint64_t)i * 2 * PAGE - PAGE, .size = PAGE + 1};
        assert_int_equal(sdc_regions_add(&set, &region), -EEXIST); // its last byte is the first one of the next
        region = (struct sdc_region){.iova = (uint64_t)i * 2 * PAGE - PAGE - 1, .size = PAGE};
        assert_int_equal(sdc_regions_add(&set, &region), -EEXIST); // its first byte is the last one of the one before
    }
    for (uint32_t i = 1; i < 3 * LEAF; i++)
        add(&set, (uint64_t)i * 2 * PAGE - PAGE, PAGE);
    check_set(&set);
    sdc_regions_clear(&set);
}

static void regions_in_order_fill_their_leaves(void **state)
{
    struct sdc_regions set = {0};

    (void)state;
    for (uint32_t i = 0; i < 10 * LEAF; i++)
        add(&set, (uint64_t)i * PAGE, PAGE);
    assert_int_equal(set.slots_count, 10);
    sdc_regions_clear(&set);
}

// Fills leaves and empties them again but for a region or two: what is left must not keep a leaf each.
static void what_is_left_of_many_regions_takes_little(void **state)
{
    struct sdc_regions set = {0};

    (void)state;
    for (uint32_t turn = 0; turn < 64; turn++) {
        uint64_t base = (uint64_t)turn << 32;
        for (uint32_t i = 0; i < 2 * LEAF; i++)
            add(&set, base + (uint64_t)i * PAGE, PAGE);
        for (uint32_t i = 1; i < 2 * LEAF; i++)
            assert_int_equal(sdc_regions_remove(&set, base + (uint64_t)i * PAGE, PAGE), 0);
    }
    check_set(&set);
    assert_int_equal(set.count, 64);
    assert_in_range(set.slots_count, 1, 2);
    sdc_regions_clear(&set);
}

// --- copies ---

static unsigned released;

static void count_release(struct sdc_mapping *mapping)
{
    (void)mapping;
    released++;
}

static void a_copy_does_not_see_what_changes(void **state)
{
    struct sdc_mapping mapping = {.release = count_release};
    struct sdc_regions set = {0}, copy;

    (void)state;
    released = 0;
    atomic_init(&mapping.refs, 1);
    for (uint32_t i = 0; i < 4 * LEAF; i++) {
        struct sdc_region region = {.iova = (uint64_t)i * 2 * PAGE, .size = PAGE, .mapping = &mapping};
        assert_int_equal(sdc_regions_add(&set, &region), 0);
    }
    assert_int_equal(atomic_load(&mapping.refs), 4 * LEAF + 1);
    assert_int_equal(sdc_regions_copy(&copy, &set), 0);
    assert_int_equal(atomic_load(&mapping.refs), 4 * LEAF + 1);
    assert_int_equal(sdc_regions_remove(&set, 2 * PAGE, PAGE), 0);
    add(&set, (uint64_t)5 * LEAF * PAGE + PAGE, PAGE);
    assert_ptr_not_equal(set.slots[0].leaf, copy.slots[0].leaf);
    assert_ptr_equal(set.slots[1].leaf, copy.slots[1].leaf);
    assert_ptr_not_equal(set.slots[2].leaf, copy.slots[2].leaf);
    assert_ptr_equal(set.slots[4].leaf, copy.slots[3].leaf); // the third was full and is two now
    assert_null(sdc_regions_find(&set, 2 * PAGE));
    assert_non_null(sdc_regions_find(&copy, 2 * PAGE));
    assert_null(sdc_regions_find(&copy, (uint64_t)5 * LEAF * PAGE + PAGE));
    check_set(&copy);
    check_set(&set);
    sdc_regions_clear(&set);
    assert_int_equal(atomic_load(&mapping.refs), 4 * LEAF + 1);
    sdc_regions_clear(&copy);
    assert_int_equal(atomic_load(&mapping.refs), 1);
    assert_int_equal(released, 0);
    sdc_mapping_unref(&mapping);
    assert_int_equal(released, 1);
}

// --- a random course ---

enum { PLACES = 3000, COPIES = 4 };

// The plain model: which of the places, a page each, begins a region of how many pages.
struct model {
    uint8_t pages[PLACES];
};

struct course {
    uint64_t random;
    struct sdc_regions set;
    struct model model;
    struct sdc_regions copies[COPIES];
    struct model models[COPIES];
};

static uint32_t below(struct course *course, uint32_t bound)
{
    course->random = course->random * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (uint32_t)((course->random >> 32) * bound >> 32);
}

static bool is_free(const struct model *model, uint32_t place, uint32_t pages)
{
    uint32_t free_from = 0;

    for (uint32_t i = 0; i < PLACES && i < place + pages; i++) {
        if (model->pages[i] && i >= place)
            return false;
        if (model->pages[i])
            free_from = i + model->pages[i];
    }
    return free_from <= place;
}

static void compare(const struct sdc_regions *set, const struct model *model)
{
    const struct sdc_region *at = sdc_regions_past(set, 0);
    uint32_t end = 0; // of the region before

    for (uint32_t i = 0; i < PLACES; i++) {
        const struct sdc_region *found = sdc_regions_find(set, (uint64_t)i * PAGE + i);
        if (model->pages[i]) {
            assert_int_equal(at->iova, (uint64_t)i * PAGE);
            assert_int_equal(at->size, (uint64_t)model->pages[i] * PAGE);
            end = i + model->pages[i];
            at = sdc_regions_next(set, at);
        }
        if (i >= end)
            assert_null(found);
        else
            assert_int_equal(found->iova + found->size, (uint64_t)end * PAGE);
    }
    assert_null(at);
}

static void step(struct course *course, bool growing)
{
    uint32_t place = below(course, PLACES);
    uint32_t pages = 1 + below(course, below(course, 8) ? 2 : 20);

    if (below(course, 8) < (growing ? 6 : 2)) {
        bool wanted = is_free(&course->model, place, pages);
        struct sdc_region region = {.iova = (uint64_t)place * PAGE, .size = (uint64_t)pages * PAGE};
        assert_int_equal(sdc_regions_add(&course->set, &region), wanted ? 0 : -EEXIST);
        if (wanted)
            course->model.pages[place] = (uint8_t)pages;
    } else {
        pages = below(course, 8) && course->model.pages[place] ? course->model.pages[place] : pages;
        bool wanted = course->model.pages[place] == pages;
        assert_int_equal(sdc_regions_remove(&course->set, (uint64_t)place * PAGE, (uint64_t)pages * PAGE), wanted ? 0 : -ENOENT);
        if (wanted)
            course->model.pages[place] = 0;
    }
}

static void a_random_course_ends_as_the_model_does(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 20; seed++) {
        struct course *course = calloc(1, sizeof *course);
        course->random = seed;
        for (uint32_t i = 0; i < 12000; i++) {
            step(course, i / 3000 % 2 == 0);
            if (below(course, 1000) == 0) { // another map is published, and the oldest one goes
                uint32_t at = below(course, COPIES);
                compare(&course->copies[at], &course->models[at]);
                sdc_regions_clear(&course->copies[at]);
                assert_int_equal(sdc_regions_copy(&course->copies[at], &course->set), 0);
                course->models[at] = course->model;
                check_set(&course->set);
            }
        }
        compare(&course->set, &course->model);
        for (uint32_t i = 0; i < COPIES; i++) {
            compare(&course->copies[i], &course->models[i]);
            sdc_regions_clear(&course->copies[i]);
        }
        sdc_regions_clear(&course->set);
        free(course);
    }
}

// --- readers on other threads ---

enum { READERS = 2, STEADY = 400 };

// The owner publishes map after map; each reader takes over the newest one, as a queue does.
struct board {
    pthread_mutex_t lock;
    struct sdc_map *newest; // with a reference
    bool ended;
};

static struct sdc_map *take_newest(struct board *board)
{
    pthread_mutex_lock(&board->lock);
    struct sdc_map *map = board->ended ? NULL : sdc_map_ref(board->newest);
    pthread_mutex_unlock(&board->lock);
    return map;
}

static void *read_maps(void *context)
{
    struct board *board = context;
    uintptr_t wrong = 0;

    for (struct sdc_map *map; (map = take_newest(board)) != NULL; sdc_map_unref(map)) {
        struct sdc_memory memory = {.map = map};
        for (uint32_t i = 0; i < STEADY; i++) {
            struct sdc_span span; // the regions that never go are at even places
            wrong += sdc_memory_spans(&memory, (uint64_t)i * 2 * PAGE + i, 1, SDC_ACCESS_READ, &span, 1) != 1;
        }
    }
    return (void *)wrong;
}

static void publish(struct board *board, struct sdc_region_table *table)
{
    struct sdc_map *map = sdc_region_table_publish(table, sdc_map_free, NULL);

    assert_non_null(map);
    pthread_mutex_lock(&board->lock);
    struct sdc_map *before = board->newest;
    board->newest = map;
    pthread_mutex_unlock(&board->lock);
    sdc_map_unref(before);
}

static void readers_see_whole_maps_while_the_owner_changes_the_table(void **state)
{
    static uint8_t host[PAGE];
    struct board board = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct sdc_region_table table = {0};
    struct sdc_region region = {.size = PAGE, .host = host, .access = BOTH};
    pthread_t readers[READERS];

    (void)state;
    for (uint32_t i = 0; i < STEADY; i++) {
        region.iova = (uint64_t)i * 2 * PAGE;
        assert_int_equal(sdc_region_table_add(&table, &region), 0);
    }
    publish(&board, &table);
    for (unsigned i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, read_maps, &board), 0);
    for (uint32_t i = 0; i < 4 * STEADY; i++) {
        region.iova = (uint64_t)(i * 13 % STEADY) * 2 * PAGE + PAGE;
        if (i / STEADY % 2 == 0)
            assert_int_equal(sdc_region_table_add(&table, &region), 0);
        else
            assert_int_equal(sdc_region_table_remove(&table, region.iova, PAGE), 0);
        publish(&board, &table);
    }
    pthread_mutex_lock(&board.lock);
    board.ended = true;
    pthread_mutex_unlock(&board.lock);
    for (unsigned i = 0; i < READERS; i++) {
        void *wrong;
        pthread_join(readers[i], &wrong);
        assert_null(wrong);
    }
    sdc_map_unref(board.newest);
    sdc_region_table_clear(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_seam_between_leaves_is_found),
        cmocka_unit_test(a_region_over_a_seam_overlaps),
        cmocka_unit_test(regions_in_order_fill_their_leaves),
        cmocka_unit_test(what_is_left_of_many_regions_takes_little),
        cmocka_unit_test(a_copy_does_not_see_what_changes),
        cmocka_unit_test(a_random_course_ends_as_the_model_does),
        cmocka_unit_test(readers_see_whole_maps_while_the_owner_changes_the_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
