// SPDX-License-Identifier: BSD-3-Clause
// Guest memory that loops may register: when they are shown a region, when they are asked to let go of it, and when its file is given up.
// The loop is real, what it does with buffers is the test's.
#include "loop_fixture.h"

#include "base/limits.h"
#include "loop_turns.h"
#include "os/memfd.h"
#include "transport/common/guest_memory.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

enum { REGION = 1 << 20, BUFFERS = SDC_LIMIT_WINDOWS };

// --- buffers, by the test ---

static struct sdc_loop_buffer *shown[BUFFERS]; // that the loop has
static struct sdc_loop_buffer *stuck[BUFFERS]; // that it is to let go, and the kernel does not
static unsigned shown_count, stuck_count, added;
static bool sticks;

void __wrap_sdc_loop_buffer_add(struct sdc_loop *loop, struct sdc_loop_buffer *buffer);
void __wrap_sdc_loop_buffer_add(struct sdc_loop *loop, struct sdc_loop_buffer *buffer)
{
    (void)loop;
    assert_true(shown_count < BUFFERS);
    shown[shown_count++] = buffer;
    added++;
    *(volatile uint8_t *)buffer->base = 1; // it is mapped
}

void __wrap_sdc_loop_buffer_remove(struct sdc_loop *loop, struct sdc_loop_buffer *buffer);
void __wrap_sdc_loop_buffer_remove(struct sdc_loop *loop, struct sdc_loop_buffer *buffer)
{
    unsigned i = 0;

    (void)loop;
    while (i < shown_count && shown[i] != buffer)
        i++;
    assert_true(i < shown_count); // none is taken away twice, or before it was there
    shown[i] = shown[--shown_count];
    *(volatile uint8_t *)buffer->base = 2; // it is mapped still
    if (sticks)
        stuck[stuck_count++] = buffer;
    else
        buffer->removed(buffer);
}

static void unstick(void)
{
    while (stuck_count > 0) {
        struct sdc_loop_buffer *buffer = stuck[--stuck_count];
        *(volatile uint8_t *)buffer->base = 3;
        buffer->removed(buffer);
    }
    sticks = false;
}

// --- memory ---

struct bed {
    struct sdc_loop *loops[2]; // the same one twice: it is asked twice
    struct sdc_guest_memory memory;
    int fd;
    unsigned told;
};

static void memory_released(struct sdc_guest_memory *memory)
{
    sdc_container(memory, struct bed, memory)->told++;
}

static void set_up(struct bed *bed, unsigned loops)
{
    shown_count = stuck_count = added = 0;
    sticks = false;
    *bed = (struct bed){.fd = sdc_memfd_new("guest", 64 * REGION)};
    assert_true(bed->fd >= 0);
    bed->loops[0] = bed->loops[1] = new_loop();
    bed->memory = (struct sdc_guest_memory){
        .loop = bed->loops[0], .name = "test", .loops = bed->loops, .loops_count = loops, .released = memory_released};
}

static void turn(struct bed *bed)
{
    loop_turns(bed->loops[0], 4);
}

// All has gone, and not before it could.
static void tear_down(struct bed *bed)
{
    sdc_guest_memory_withdraw(&bed->memory);
    turn(bed);
    assert_int_equal(bed->memory.maps_alive, 0);
    assert_int_equal(bed->memory.windows_leaving, 0);
    assert_int_equal(bed->memory.windows_count, 0);
    assert_int_equal(bed->memory.files_count, 0);
    assert_int_equal(shown_count, 0);
    sdc_loop_free(bed->loops[0]);
    close(bed->fd);
}

static struct sdc_region find(struct bed *bed, uint64_t offset, uint64_t size)
{
    struct sdc_region region = {.iova = offset, .size = size, .access = SDC_ACCESS_READ | SDC_ACCESS_WRITE};

    assert_int_equal(sdc_guest_memory_find(&bed->memory, bed->fd, offset, &region), 0);
    return region;
}

// Maps [offset, offset + size) of the file, at that address.
static void map(struct bed *bed, uint64_t offset, uint64_t size)
{
    struct sdc_region region = find(bed, offset, size);

    assert_int_equal(sdc_region_table_add(&bed->memory.table, &region), 0);
    sdc_mapping_unref(region.mapping);
    assert_non_null(sdc_guest_memory_publish(&bed->memory));
}

static void unmap(struct bed *bed, uint64_t offset, uint64_t size)
{
    assert_int_equal(sdc_region_table_remove(&bed->memory.table, offset, size), 0);
    assert_non_null(sdc_guest_memory_publish(&bed->memory));
}

// --- the tests ---

static void regions_are_shown_to_every_loop_and_taken_back(void **state)
{
    struct bed bed;
    (void)state;
    set_up(&bed, 2);
    map(&bed, 0, REGION);
    map(&bed, 2 * REGION, 3 * REGION);
    turn(&bed);
    assert_int_equal(shown_count, 4);
    unmap(&bed, 0, REGION);
    turn(&bed);
    assert_int_equal(shown_count, 2);
    assert_int_equal(shown[0]->size, 3 * REGION);
    assert_int_equal(bed.memory.windows_leaving, 0);
    tear_down(&bed);
}

static void without_loops_nothing_is_shown(void **state)
{
    struct bed bed;
    (void)state;
    set_up(&bed, 0);
    map(&bed, 0, REGION);
    turn(&bed);
    assert_int_equal(added, 0);
    tear_down(&bed);
}

static void small_regions_and_those_that_cannot_be_written_are_not_shown(void **state)
{
    struct bed bed;
    char path[64];
    (void)state;
    set_up(&bed, 1);
    map(&bed, 0, 4096);
    map(&bed, REGION, SDC_LIMIT_WINDOW_BYTES - 4096);
    turn(&bed);
    assert_int_equal(added, 0);
    unmap(&bed, 0, 4096);
    unmap(&bed, REGION, SDC_LIMIT_WINDOW_BYTES - 4096);
    turn(&bed);

    snprintf(path, sizeof path, "/proc/self/fd/%d", bed.fd);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct sdc_region region = {.size = REGION, .access = SDC_ACCESS_READ};
    assert_int_equal(sdc_guest_memory_find(&bed.memory, fd, 0, &region), 0);
    turn(&bed);
    assert_int_equal(added, 0);
    sdc_mapping_unref(region.mapping);
    close(fd);
    tear_down(&bed);
}

static void a_file_goes_when_the_kernel_has_let_go(void **state)
{
    struct bed bed;
    (void)state;
    set_up(&bed, 2);
    map(&bed, 0, REGION);
    turn(&bed);
    sticks = true;
    unmap(&bed, 0, REGION);
    turn(&bed);
    assert_int_equal(bed.memory.maps_alive, 1);
    assert_int_equal(bed.memory.windows_leaving, 1);
    assert_int_equal(bed.memory.files_count, 1);
    unsigned told = bed.told;
    unstick(); // which looks whether it is mapped
    turn(&bed);
    assert_int_equal(bed.memory.windows_leaving, 0);
    assert_int_equal(bed.memory.files_count, 0);
    assert_true(bed.told > told);
    tear_down(&bed);
}

static void what_is_taken_back_and_kept_after_all_is_shown_again(void **state)
{
    struct bed bed;
    (void)state;
    set_up(&bed, 2);
    map(&bed, 0, REGION);
    turn(&bed);
    const struct sdc_region *region = sdc_regions_find(&bed.memory.table.regions, 0);

    for (int round = 0; round < 3; round++) {
        sticks = true;
        sdc_guest_memory_let_go(region);
        assert_int_equal(bed.memory.windows_leaving, 1);
        turn(&bed);
        assert_int_equal(bed.memory.windows_leaving, 1);
        sdc_guest_memory_keep(region);
        assert_int_equal(bed.memory.windows_leaving, 0);
        if (round == 1) { // and back again, while the loops have not answered the first time
            sdc_guest_memory_let_go(region);
            assert_int_equal(bed.memory.windows_leaving, 1);
            sdc_guest_memory_keep(region);
        }
        turn(&bed);
        assert_int_equal(shown_count, 0);
        unstick();
        turn(&bed);
        assert_int_equal(shown_count, 2);
    }
    // Taken back for good, before the loops have heard of the last change.
    sdc_guest_memory_let_go(region);
    sdc_guest_memory_keep(region);
    sdc_guest_memory_let_go(region);
    turn(&bed);
    assert_int_equal(shown_count, 0);
    assert_int_equal(bed.memory.windows_leaving, 0);
    tear_down(&bed);
}

static void another_table_with_the_same_regions_keeps_what_is_shown(void **state)
{
    struct bed bed;
    (void)state;
    set_up(&bed, 1);
    map(&bed, 0, REGION);
    map(&bed, 2 * REGION, REGION);
    turn(&bed);
    assert_int_equal(added, 2);

    struct sdc_region first = find(&bed, 0, REGION), other = find(&bed, 4 * REGION, REGION);
    sdc_region_table_clear(&bed.memory.table);
    assert_int_equal(sdc_region_table_add(&bed.memory.table, &first), 0);
    assert_int_equal(sdc_region_table_add(&bed.memory.table, &other), 0);
    sdc_mapping_unref(first.mapping);
    sdc_mapping_unref(other.mapping);
    assert_non_null(sdc_guest_memory_publish(&bed.memory));
    turn(&bed);
    assert_int_equal(added, 3);
    assert_int_equal(shown_count, 2);
    tear_down(&bed);
}

static void a_region_that_goes_before_a_loop_has_heard_of_it_goes_in_order(void **state)
{
    struct bed bed;
    (void)state;
    set_up(&bed, 2);
    for (int i = 0; i < 10; i++) {
        struct sdc_region region = find(&bed, 0, REGION);
        sdc_mapping_unref(region.mapping);
    }
    turn(&bed);
    turn(&bed);
    assert_int_equal(shown_count, 0);
    assert_int_equal(bed.memory.files_count, 0);
    tear_down(&bed);
}

static void regions_past_the_limit_are_served_without(void **state)
{
    struct bed bed;
    (void)state;
    set_up(&bed, 1);
    int fd = sdc_memfd_new("many", (SDC_LIMIT_WINDOWS + 10) * (uint64_t)SDC_LIMIT_WINDOW_BYTES);
    struct sdc_region regions[SDC_LIMIT_WINDOWS + 10];
    for (unsigned i = 0; i < SDC_LIMIT_WINDOWS + 10; i++) {
        regions[i] = (struct sdc_region){.size = SDC_LIMIT_WINDOW_BYTES, .access = SDC_ACCESS_READ};
        assert_int_equal(sdc_guest_memory_find(&bed.memory, fd, i * (uint64_t)SDC_LIMIT_WINDOW_BYTES, &regions[i]), 0);
    }
    assert_int_equal(bed.memory.windows_count, SDC_LIMIT_WINDOWS);
    for (unsigned i = 0; i < SDC_LIMIT_WINDOWS + 10; i++)
        sdc_mapping_unref(regions[i].mapping);
    // None was shown yet: what is on its way is waited for.
    assert_int_equal(bed.memory.windows_leaving, SDC_LIMIT_WINDOWS);
    turn(&bed);
    close(fd);
    tear_down(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(regions_are_shown_to_every_loop_and_taken_back),
        cmocka_unit_test(without_loops_nothing_is_shown),
        cmocka_unit_test(small_regions_and_those_that_cannot_be_written_are_not_shown),
        cmocka_unit_test(a_file_goes_when_the_kernel_has_let_go),
        cmocka_unit_test(what_is_taken_back_and_kept_after_all_is_shown_again),
        cmocka_unit_test(another_table_with_the_same_regions_keeps_what_is_shown),
        cmocka_unit_test(a_region_that_goes_before_a_loop_has_heard_of_it_goes_in_order),
        cmocka_unit_test(regions_past_the_limit_are_served_without),
    };
    RUN_WITH_EVERY_LOOP(tests);
}
