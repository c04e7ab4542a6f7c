// SPDX-License-Identifier: BSD-3-Clause
// Requests in order (VIRTIO_F_IN_ORDER): a device gives back what it holds in any order, and the driver gets it in the one in which
// it was made available, whatever happens meanwhile.
#include "core_device.h"

// The device gives the n-th of those that it holds.
static void give_one(unsigned n)
{
    assert_true(n < dev.held_count);
    sdc_virtqueue_give(dev.held[n], 1);
    memmove(&dev.held[n], &dev.held[n + 1], (--dev.held_count - n) * sizeof dev.held[0]);
    run_turns(&f, 2);
}

static void what_is_done_early_waits_for_its_turn(void **state)
{
    static const struct {
        unsigned give;        // of those that are held
        unsigned used;        // what the driver sees then
        unsigned interrupts;
    } steps[] = {{3, 0, 0}, {1, 0, 0}, {0, 2, 1}, {2, 2, 1}, {0, 4, 2}, {0, 6, 3}};

    (void)state;
    open_core(1, false);
    dev.hold = true;
    driver_start(&f, SDC_VIRTIO_F_IN_ORDER);
    offer(6);
    driver_kick(&f);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        give_one(steps[i].give);
        assert_int_equal(driver_used(&f), steps[i].used);
        assert_int_equal(f.interrupts, steps[i].interrupts);
        for (uint16_t n = 0; n < steps[i].used; n++) {
            assert_int_equal(driver_used_head(&f, n), n); // each has its element
            assert_int_equal(driver_used_length(&f, n), 1);
        }
    }
    core_close(&f);
}

static void any_order_becomes_the_order_in_which_they_came(void **state)
{
    unsigned seed = 12, offered = 0;

    (void)state;
    open_core(1, false);
    dev.hold = true;
    driver_start(&f, SDC_VIRTIO_F_IN_ORDER);
    for (unsigned round = 0; round < 5000; round++) {
        uint16_t before = driver_used(&f);
        seed = seed * 1103515245 + 12345;
        if ((seed >> 16) % 3 == 0 && (uint16_t)(offered - before) < CORE_SIZE) {
            offer(1);
            offered++;
            driver_kick(&f);
        } else if (dev.held_count > 0) {
            give_one((seed >> 20) % dev.held_count);
        }
        for (uint16_t n = before; n != driver_used(&f); n++)
            assert_int_equal(driver_used_head(&f, n), n % CORE_SIZE);
    }
    while (dev.held_count > 0)
        give_one(dev.held_count - 1);
    assert_int_equal(driver_used(&f), (uint16_t)offered);
    assert_true(offered > 3 * CORE_SIZE);
    core_close(&f);
}

// A request that waits for its turn holds nothing but its place.
static void a_map_does_not_wait_for_the_turn_of_a_request(void **state)
{
    (void)state;
    open_core(1, true);
    dev.hold = true;
    driver_start(&f, SDC_VIRTIO_F_IN_ORDER);
    offer(1);
    driver_kick(&f);
    maps_released = 0;
    show_map(9);
    run_turns(&f, 2);
    offer(1);
    driver_kick(&f);
    show_map(10);
    run_turns(&f, 2);
    assert_int_equal(maps_released, 0);
    give_one(1);
    assert_int_equal(maps_released, 1);
    assert_int_equal(driver_used(&f), 0);
    give_one(0);
    assert_int_equal(driver_used(&f), 2);
    core_close(&f);
}

// Whatever ends a queue, all come to their end, once.
static void a_queue_ends_with_requests_that_wait_for_their_turn(void **state)
{
    enum { RESET, QUEUE_RESET, BROKEN, NO_MEMORY, NO_RING, ENDS };

    (void)state;
    for (unsigned end = 0; end < ENDS; end++) {
        open_core(1, true);
        dev.hold = true;
        driver_start(&f, SDC_VIRTIO_F_IN_ORDER | SDC_VIRTIO_F_RING_RESET);
        offer(4);
        driver_kick(&f);
        give_one(1);
        give_one(2); // two wait, two are under way
        if (end == BROKEN) {
            offer(1);
            guest_put(&f.guest, CORE_DRIVER + 4 + 2 * 4, CORE_SIZE, 2);
            driver_kick(&f);
            assert_true(f.core->status & SDC_VIRTIO_S_NEEDS_RESET);
        }
        if (end == NO_MEMORY)
            sdc_virtio_core_set_map(f.core, NULL);
        else if (end == NO_RING)
            show_map(2);
        else if (end == QUEUE_RESET)
            sdc_virtio_core_reset_queue(f.core, 0);
        else
            sdc_virtio_core_set_status(f.core, 0);
        run_turns(&f, 4);
        assert_true(sdc_virtio_core_busy(f.core));
        give_one(1);
        assert_true(sdc_virtio_core_busy(f.core));
        give_one(0);
        assert_false(sdc_virtio_core_busy(f.core));
        assert_int_equal(driver_used(&f), end == BROKEN ? 0 : 4);
        assert_int_equal(dev.stops, end < NO_MEMORY);

        sdc_virtio_core_set_map(f.core, f.guest.map);
        run_turns(&f, 4);
        sdc_virtio_core_set_status(f.core, 0);
        run_turns(&f, 4);
        driver_start(&f, SDC_VIRTIO_F_IN_ORDER); // and nothing of it is left
        offer(2);
        driver_kick(&f);
        give_one(1);
        assert_int_equal(driver_used(&f), 0);
        give_one(0);
        assert_int_equal(driver_used(&f), 2);
        core_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_done_early_waits_for_its_turn),
        cmocka_unit_test(any_order_becomes_the_order_in_which_they_came),
        cmocka_unit_test(a_map_does_not_wait_for_the_turn_of_a_request),
        cmocka_unit_test(a_queue_ends_with_requests_that_wait_for_their_turn),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
