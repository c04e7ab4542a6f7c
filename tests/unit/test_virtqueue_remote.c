// SPDX-License-Identifier: BSD-3-Clause
// A queue whose ring and buffers lie in memory that came without an fd.
#include "remote_queue_fixture.h"

// --- the course of a request ---

static void a_completion_goes_data_element_index_interrupt(void **state)
{
    (void)state;
    open_queue(EVERYTHING);
    offer(7);
    driver_kick(&f);
    assert_true(is_at(0, CORE_DRIVER + 2, false)); // the index alone: what is behind it may be older
    assert_int_equal(sim.waiting[0]->size, 2);
    assert_true(answer_up_to(SENT, false));
    assert_int_equal(dev.taken, 0); // not before its bytes are here
    assert_true(answer_up_to(ROOM, true));
    assert_int_equal(dev.seen, 7);
    assert_int_equal(sim.waiting[0]->size, SIZE_ROOM);
    for (unsigned i = 0; i < sim.count; i++)
        assert_false(sim.waiting[i]->write && sim.waiting[i]->iova < 0x3000); // nothing of the ring before the data has arrived
    assert_true(answer_up_to(CORE_DEVICE + 4, true));
    assert_int_equal(guest_get(&f.guest, ROOM, 1), 8);
    unsigned index = 1;
    while (!is_at(index, CORE_DEVICE + 2, true))
        assert_true(++index < sim.count);
    assert_int_equal(f.interrupts, 0);
    answer(index, 0);
    assert_int_equal(f.interrupts, 0); // not before all of it was answered
    answer(0, 0);
    assert_int_equal(f.interrupts, 1);
    answer_all();
    assert_done(1, 8);
    assert_int_equal(driver_used_length(&f, 0), SIZE_ROOM);
    close_queue();
}

static void rings_here_and_data_there(void **state)
{
    (void)state;
    open_queue(DATA_ONLY);
    assert_int_equal(sim.count, 0);
    offer(1);
    driver_kick(&f);
    assert_int_equal(sim.count, 1);
    assert_true(is_at(0, SENT, false));
    answer(0, 0);
    assert_int_equal(driver_used(&f), 0);
    assert_true(is_at(0, ROOM, true));
    answer(0, 0);
    assert_done(1, 2);
    assert_int_equal(f.interrupts, 1);
    close_queue();
}

static void many_requests_one_after_the_other_and_at_once(void **state)
{
    (void)state;
    open_queue(EVERYTHING);
    for (uint16_t round = 0; round < 100; round++) {
        unsigned batch = round % 3 + 1;
        for (unsigned i = 0; i < batch; i++)
            offer((uint8_t)round);
        driver_kick(&f);
        answer_all();
        assert_done(f.avail, (uint8_t)(round + 1));
    }
    assert_int_equal(dev.taken, f.avail);
    close_queue();
}

// Made available while the index was on its way: the kick comes when nobody looks.
static void a_kick_while_something_is_fetched_is_not_lost(void **state)
{
    (void)state;
    open_queue(EVERYTHING);
    driver_kick(&f);
    assert_true(is_at(0, CORE_DRIVER + 2, false));
    struct sdc_transfer *old = sim.waiting[0];
    assert_int_equal(sdc_memory_read(&f.guest.view, old->iova, old->data, old->size), 0);
    offer(3);
    driver_kick(&f);
    sim.count = 0;
    sdc_transfer_finish(old, 0); // says that nothing is there
    run_turns(&f, 8);
    answer_all();
    assert_done(1, 4);
    close_queue();
}

// --- what fails ---

static void a_ring_that_cannot_be_read_or_written_breaks_the_queue(void **state)
{
    static const struct {
        uint64_t iova;
        bool write;
    } cases[] = {{CORE_DRIVER + 2, false}, {CORE_DRIVER + 4, false}, {CORE_DEVICE + 4, true}, {CORE_DEVICE + 2, true}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        open_queue(EVERYTHING);
        offer(1);
        driver_kick(&f);
        while (!is_at(0, cases[i].iova, cases[i].write))
            answer(0, 0);
        answer(0, -EIO);
        assert_true(is_broken());
        answer_all();
        sdc_virtio_core_set_status(f.core, 0); // a reset heals it
        run_turns(&f, 6);
        driver_start(&f, 0);
        offer(5);
        driver_kick(&f);
        answer_all();
        assert_done(1, 6);
        close_queue();
    }
}

static void bytes_that_cannot_be_fetched_are_a_fault_of_the_request(void **state)
{
    (void)state;
    open_queue(EVERYTHING);
    offer(1);
    driver_kick(&f);
    assert_true(answer_up_to(SENT, false));
    answer(0, -EIO);
    assert_int_equal(dev.faults, 1);
    answer_all();
    assert_int_equal(driver_used(&f), 1);
    assert_false(is_broken());
    close_queue();
}

static void bytes_that_cannot_be_stored_are_told_to_the_device_once(void **state)
{
    (void)state;
    for (unsigned again = 0; again < 2; again++) {
        open_queue(EVERYTHING);
        offer(1);
        driver_kick(&f);
        assert_true(answer_up_to(ROOM, true));
        answer(0, -EIO);
        assert_int_equal(dev.losses, 1);
        assert_true(answer_up_to(ROOM, true));
        assert_int_equal(sim.waiting[0]->size, 1);
        answer(0, again ? -EIO : 0);
        answer_all();
        assert_int_equal(dev.losses, 1);
        assert_int_equal(driver_used(&f), 1);
        assert_int_equal(driver_used_length(&f, 0), 1);
        assert_int_equal(guest_get(&f.guest, ROOM, 1), again ? 0 : LOST);
        close_queue();
    }
}

// --- orders that come while transfers are out: none of them waits ---

// Where a request can stand: up to which transfer everything was answered.
static const struct {
    uint64_t iova;
    bool write;
} stations[] = {
    {CORE_DRIVER + 2, false}, {CORE_DRIVER + 4, false}, {CORE_DESC, false}, {SENT, false}, {ROOM, true}, {CORE_DEVICE + 4, true}};
enum { STATIONS = sizeof stations / sizeof stations[0], BEFORE_THE_ELEMENT = STATIONS - 1 };

static void stop_at(unsigned station)
{
    offer(1);
    driver_kick(&f);
    assert_true(answer_up_to(stations[station].iova, stations[station].write));
}

static void a_reset_waits_for_no_transfer(void **state)
{
    (void)state;
    for (unsigned station = 0; station < STATIONS; station++) {
        open_queue(EVERYTHING);
        stop_at(station);
        sdc_virtio_core_set_status(f.core, 0);
        run_turns(&f, 4);
        assert_false(sdc_virtio_core_busy(f.core));
        assert_int_equal(f.core->status, 0);
        assert_int_equal(dev.stops, 1);
        for (unsigned i = 0; i < sim.count; i++)
            assert_true(atomic_load(&sim.waiting[i]->dropped)); // so that nothing more of them is sent
        // The driver goes on; then the orphans are answered, and nobody notices.
        unsigned orphans = sim.count;
        driver_start(&f, 0);
        offer(9);
        driver_kick(&f);
        unsigned interrupts = f.interrupts;
        while (orphans-- > 0) {
            struct sdc_transfer *orphan = sim.waiting[0];
            memmove(&sim.waiting[0], &sim.waiting[1], --sim.count * sizeof sim.waiting[0]);
            memset(orphan->data, 0xbb, orphan->write ? 0 : orphan->size);
            sdc_transfer_finish(orphan, 0);
            run_turns(&f, 4);
        }
        assert_int_equal(f.interrupts, interrupts);
        answer_all();
        assert_done(1, 10);
        close_queue();
    }
}

static void a_reset_waits_for_the_device_and_brings_nothing_afterwards(void **state)
{
    (void)state;
    open_queue(EVERYTHING);
    dev.hold = true;
    offer(1);
    driver_kick(&f);
    answer_all();
    assert_int_equal(dev.held_count, 1);
    sdc_virtio_core_set_status(f.core, 0);
    run_turns(&f, 6);
    assert_true(sdc_virtio_core_busy(f.core));
    give_held();
    assert_false(sdc_virtio_core_busy(f.core));
    assert_int_equal(sim.count, 0);
    close_queue();
}

// Other memory changes; the ring stays.
static void a_remap_beside_the_ring_waits_for_no_transfer(void **state)
{
    (void)state;
    for (unsigned station = 0; station < STATIONS; station++) {
        open_queue(EVERYTHING);
        stop_at(station);
        use_map(EVERYTHING & ~0x8000, EVERYTHING);
        assert_false(sdc_virtio_core_busy(f.core));
        if (station < 3) { // what the parser was to get is from another time
            struct sdc_transfer *old = sim.waiting[0];
            assert_true(atomic_load(&old->dropped));
            memmove(&sim.waiting[0], &sim.waiting[1], --sim.count * sizeof sim.waiting[0]);
            memset(old->data, 0xbb, old->size);
            sdc_transfer_finish(old, 0);
            run_turns(&f, 8);
        }
        answer_all();
        assert_done(1, 2);
        assert_int_equal(dev.taken, 1);
        close_queue();
    }
}

// All of memory goes away and comes back: requests go on where they were, none is lost, none is done twice.
static void requests_outlast_the_absence_of_all_memory(void **state)
{
    (void)state;
    for (unsigned station = 0; station < BEFORE_THE_ELEMENT; station++) {
        for (unsigned answered = 0; answered < 2; answered++) {
            open_queue(EVERYTHING);
            stop_at(station);
            use_map(0, 0);
            assert_false(sdc_virtio_core_busy(f.core));
            for (unsigned i = 0; i < sim.count; i++)
                assert_true(atomic_load(&sim.waiting[i]->dropped));
            unsigned orphans = sim.count;
            while (answered && orphans-- > 0) // while it is away, or after it is back
                answer(0, -ECANCELED);
            assert_int_equal(driver_used(&f), 0);
            use_map(EVERYTHING, EVERYTHING);
            assert_false(sdc_virtio_core_busy(f.core));
            while (!answered && orphans-- > 0)
                answer(0, -ECANCELED);
            answer_all();
            assert_done(1, 2);
            assert_int_equal(dev.taken, 1);
            offer(4);
            driver_kick(&f);
            answer_all();
            assert_done(2, 5);
            close_queue();
        }
    }
}

static void requests_wait_until_all_of_their_memory_is_back(void **state)
{
    (void)state;
    for (unsigned station = 3; station < BEFORE_THE_ELEMENT; station++) { // the others have not been taken
        open_queue(EVERYTHING);
        stop_at(station);
        use_map(0, 0);
        while (sim.count > 0)
            answer(0, -ECANCELED);
        for (uint32_t pages = 0x7; pages != EVERYTHING; pages = pages << 1 | 1) {
            bool back = pages >> (SENT / GUEST_PAGE) & 1 && pages >> (ROOM / GUEST_PAGE) & 1;
            use_map(pages, pages);
            answer_all();
            assert_int_equal(driver_used(&f), back);
        }
        assert_done(1, 2);
        close_queue();
    }
}

// What was to be written to the ring could not be sent before its memory went, since the client owed too many answers. It is when the
// memory is back, as it was or shared; the driver is interrupted then.
static void writes_to_the_ring_outlast_the_absence_of_its_memory(void **state)
{
    (void)state;
    for (unsigned station = BEFORE_THE_ELEMENT; station < STATIONS; station++) {
        for (unsigned shared = 0; shared < 2; shared++) {
            open_queue(EVERYTHING);
            stop_at(station);
            use_map(0, 0);
            while (sim.count > 0)
                answer(0, -EFAULT);
            assert_false(is_broken());
            assert_int_equal(f.interrupts, 0);
            use_map(0x1, 0x1); // of no use
            use_map(EVERYTHING, shared ? 0 : EVERYTHING);
            answer_all();
            assert_false(is_broken());
            assert_done(1, 2);
            assert_int_equal(f.interrupts, 1);
            offer(4);
            driver_kick(&f);
            answer_all();
            assert_done(2, 5);
            close_queue();
            // Nor does anything wait for memory that does not come back.
            open_queue(EVERYTHING);
            stop_at(station);
            use_map(0, 0);
            while (sim.count > 0)
                answer(0, -EFAULT);
            sdc_virtio_core_set_status(f.core, 0);
            run_turns(&f, 4);
            assert_false(sdc_virtio_core_busy(f.core));
            close_queue();
        }
    }
}

// The device works in memory of ours meanwhile: nobody waits for it either.
static void memory_may_go_away_while_the_device_has_a_bounced_request(void **state)
{
    (void)state;
    for (unsigned late = 0; late < 2; late++) {
        for (unsigned ring_here = 0; ring_here < 2; ring_here++) {
            open_queue(ring_here ? DATA_ONLY : EVERYTHING);
            dev.hold = true;
            offer(1);
            driver_kick(&f);
            answer_all();
            assert_int_equal(dev.held_count, 1);
            use_map(0, 0);
            assert_false(sdc_virtio_core_busy(f.core));
            if (!late)
                give_held();
            assert_int_equal(sim.count, 0);
            use_map(EVERYTHING, ring_here ? DATA_ONLY : EVERYTHING);
            if (late)
                give_held();
            answer_all();
            assert_done(1, 2);
            close_queue();
        }
    }
}

// Nor for a request that is done and waits for the turn of such a one.
static void memory_may_go_away_while_requests_wait_for_their_turn(void **state)
{
    (void)state;
    for (unsigned late = 0; late < 2; late++) {
        for (unsigned ring_here = 0; ring_here < 2; ring_here++) {
            open_queue_with(ring_here ? DATA_ONLY : EVERYTHING, SDC_VIRTIO_F_IN_ORDER);
            dev.hold = true;
            offer(1);
            offer(1);
            driver_kick(&f);
            answer_all();
            assert_int_equal(dev.held_count, 2);
            finish(dev.held[--dev.held_count]); // the second one
            run_turns(&f, 6);
            answer_all();
            assert_int_equal(driver_used(&f), 0);
            use_map(0, 0);
            assert_false(sdc_virtio_core_busy(f.core));
            if (!late)
                give_held();
            use_map(EVERYTHING, ring_here ? DATA_ONLY : EVERYTHING);
            if (late)
                give_held();
            answer_all();
            assert_done(2, 2);
            assert_int_equal(driver_used_head(&f, 0), 0);
            assert_int_equal(driver_used_head(&f, 1), 2);
            close_queue();
        }
    }
}

// Buffers in memory that is mapped here are the device's until it gives them back.
static void memory_does_not_go_away_under_the_device(void **state)
{
    (void)state;
    open_queue(0x7); // the ring is remote
    dev.hold = true;
    offer(1);
    driver_kick(&f);
    answer_all();
    assert_int_equal(dev.held_count, 1);
    use_map(0, 0);
    assert_true(sdc_virtio_core_busy(f.core));
    give_held();
    assert_false(sdc_virtio_core_busy(f.core));
    answer_all(); // the element and the index: they were begun before the memory went
    assert_done(1, 2);
    use_map(EVERYTHING, 0x7);
    answer_all();
    close_queue();
}

static void a_reset_forgets_requests_that_were_put_aside(void **state)
{
    (void)state;
    for (unsigned station = 0; station < BEFORE_THE_ELEMENT; station++) {
        open_queue(EVERYTHING);
        stop_at(station);
        use_map(0, 0);
        sdc_virtio_core_set_status(f.core, 0);
        run_turns(&f, 6);
        assert_false(sdc_virtio_core_busy(f.core));
        while (sim.count > 0)
            answer(0, -ECANCELED);
        use_map(EVERYTHING, EVERYTHING);
        assert_int_equal(sim.count, 0);
        close_queue();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_completion_goes_data_element_index_interrupt),
        cmocka_unit_test(rings_here_and_data_there),
        cmocka_unit_test(many_requests_one_after_the_other_and_at_once),
        cmocka_unit_test(a_kick_while_something_is_fetched_is_not_lost),
        cmocka_unit_test(a_ring_that_cannot_be_read_or_written_breaks_the_queue),
        cmocka_unit_test(bytes_that_cannot_be_fetched_are_a_fault_of_the_request),
        cmocka_unit_test(bytes_that_cannot_be_stored_are_told_to_the_device_once),
        cmocka_unit_test(a_reset_waits_for_no_transfer),
        cmocka_unit_test(a_reset_waits_for_the_device_and_brings_nothing_afterwards),
        cmocka_unit_test(a_remap_beside_the_ring_waits_for_no_transfer),
        cmocka_unit_test(requests_outlast_the_absence_of_all_memory),
        cmocka_unit_test(requests_wait_until_all_of_their_memory_is_back),
        cmocka_unit_test(writes_to_the_ring_outlast_the_absence_of_its_memory),
        cmocka_unit_test(memory_may_go_away_while_the_device_has_a_bounced_request),
        cmocka_unit_test(memory_may_go_away_while_requests_wait_for_their_turn),
        cmocka_unit_test(memory_does_not_go_away_under_the_device),
        cmocka_unit_test(a_reset_forgets_requests_that_were_put_aside),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
