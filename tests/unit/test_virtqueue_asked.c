// SPDX-License-Identifier: BSD-3-Clause
// A queue whose ring and buffers lie in memory that is there for the asking, as behind an IOMMU.
#include "remote_queue_fixture.h"

static uint32_t page_of(uint64_t iova)
{
    return UINT32_C(1) << iova / GUEST_PAGE;
}

// A queue whose map has none of its areas: it was idle, and asks for nothing before it is notified.
static void open_partial(void)
{
    open_queue(0);
    sim.partial = true;
    use_map(0, 0);
    use_map(0, 0);
    assert_int_equal(sim.count, 0);
    driver_kick(&f);
    assert_int_equal(sim.count, 1);
}

// Gives what is asked for until nothing is.
static uint32_t give_from(uint32_t pages)
{
    for (unsigned asked = 0; sim.count > 0; asked++) {
        assert_true(asked < 16);
        pages |= page_of(sim.waiting[0]->iova);
        use_map(pages, 0);
        answer(0, 0);
    }
    return pages;
}

static void a_ring_is_asked_for_then_what_its_requests_need(void **state)
{
    (void)state;
    open_partial();
    assert_true(is_at(0, CORE_DESC, false));
    uint32_t pages = give_from(0);
    assert_true(pages & page_of(CORE_DRIVER) && pages & page_of(CORE_DEVICE) && !(pages & page_of(SENT)));
    offer(5);
    driver_kick(&f);
    assert_true(is_at(0, SENT, false));
    assert_int_equal(sim.waiting[0]->size, SIZE_SENT);
    assert_int_equal(dev.taken, 0);
    use_map(pages | page_of(SENT), 0);
    answer(0, 0);
    assert_true(is_at(0, ROOM, true));
    give_from(pages | page_of(SENT));
    assert_done(1, 6);
    close_queue();
}

static void another_map_in_the_meantime_asks_nothing_twice(void **state)
{
    (void)state;
    open_partial();
    uint32_t pages = give_from(0);
    offer(5);
    driver_kick(&f);
    assert_int_equal(sim.count, 1);
    for (unsigned i = 0; i < 4; i++) {
        use_map(pages, 0);
        driver_kick(&f);
        assert_int_equal(sim.count, 1);
    }
    give_from(pages);
    assert_done(1, 6);
    close_queue();
}

static void what_is_denied_fails_the_request_and_is_asked_for_by_the_next(void **state)
{
    (void)state;
    open_partial();
    uint32_t pages = give_from(0);
    for (unsigned round = 1; round <= 3; round++) {
        offer(5);
        driver_kick(&f);
        assert_true(is_at(0, SENT, false));
        answer(0, -EFAULT);
        pages = give_from(pages);
        assert_int_equal(dev.faults, round);
        assert_int_equal(driver_used(&f), round);
    }
    assert_false(is_broken());
    close_queue();
}

static void a_ring_that_is_denied_sleeps_until_the_next_kick(void **state)
{
    (void)state;
    open_partial();
    answer(0, -EFAULT);
    assert_int_equal(sim.count, 0);
    driver_kick(&f);
    assert_int_equal(sim.count, 1);
    give_from(0);
    assert_false(is_broken());
    close_queue();
}

// What came while the change of memory waited for the device is found.
static void a_ring_that_is_lost_with_work_to_do_is_asked_for_at_once(void **state)
{
    (void)state;
    open_queue(0);
    sim.partial = true;
    dev.hold = true;
    offer(1);
    driver_kick(&f);
    assert_int_equal(dev.held_count, 1);
    use_map(0, 0);
    assert_true(sdc_virtio_core_busy(f.core));
    offer(5);
    driver_kick(&f);
    give_held();
    assert_false(sdc_virtio_core_busy(f.core));
    dev.hold = false;
    assert_int_equal(sim.count, 1);
    give_from(0);
    assert_done(2, 6);
    close_queue();
}

static void a_stop_waits_for_no_answer(void **state)
{
    (void)state;
    for (unsigned station = 0; station < 2; station++) {
        open_partial();
        if (station == 1) {
            give_from(0);
            offer(5);
            driver_kick(&f);
        }
        assert_int_equal(sim.count, 1);
        sdc_virtio_core_reset(f.core);
        run_turns(&f, 6);
        assert_false(sdc_virtio_core_busy(f.core));
        assert_true(atomic_load(&sim.waiting[0]->dropped));
        close_queue();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ring_is_asked_for_then_what_its_requests_need),
        cmocka_unit_test(another_map_in_the_meantime_asks_nothing_twice),
        cmocka_unit_test(what_is_denied_fails_the_request_and_is_asked_for_by_the_next),
        cmocka_unit_test(a_ring_that_is_denied_sleeps_until_the_next_kick),
        cmocka_unit_test(a_ring_that_is_lost_with_work_to_do_is_asked_for_at_once),
        cmocka_unit_test(a_stop_waits_for_no_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
