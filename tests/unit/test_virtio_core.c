// SPDX-License-Identifier: BSD-3-Clause
// What every virtio device has in common: status and features, the life of its queues, and guest memory that changes under it. The
// device here holds its requests until it is told to give them back.
#include "core_device.h"

#include "base/limits.h"
#include "os/fd.h"

#include <errno.h>
#include <unistd.h>

// --- status and features ---

static void features_are_accepted_or_not(void **state)
{
    static const struct {
        uint64_t features;
        bool ok;
    } cases[] = {
        {SDC_VIRTIO_F_VERSION_1, true},
        {SDC_VIRTIO_F_VERSION_1 | F_GOOD, true},
        {SDC_VIRTIO_F_VERSION_1 | F_GOOD | SDC_VIRTIO_F_INDIRECT_DESC | SDC_VIRTIO_F_EVENT_IDX | SDC_VIRTIO_F_ACCESS_PLATFORM, true},
        {SDC_VIRTIO_F_VERSION_1 | SDC_VIRTIO_F_RING_PACKED | SDC_VIRTIO_F_RING_RESET, true},
        {SDC_VIRTIO_F_VERSION_1 | F_BAD, false},                     // the device does not want it
        {SDC_VIRTIO_F_VERSION_1 | UINT64_C(1) << 5, false},          // nobody offered it
        {SDC_VIRTIO_F_VERSION_1 | UINT64_C(1) << 63, false},
        {SDC_VIRTIO_F_VERSION_1 | SDC_VIRTIO_F_IN_ORDER | SDC_VIRTIO_F_ORDER_PLATFORM, true},
        {SDC_VIRTIO_F_VERSION_1 | SDC_VIRTIO_F_NOTIFICATION_DATA, false}, // this transport has no data
        {F_GOOD, false},                                             // the legacy interface is not here
        {0, false},
    };

    (void)state;
    open_core(1, false);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sdc_virtio_core_set_status(f.core, 3);
        sdc_virtio_core_accept(f.core, cases[i].features);
        sdc_virtio_core_set_status(f.core, 3 | SDC_VIRTIO_S_FEATURES_OK);
        assert_int_equal((f.core->status & SDC_VIRTIO_S_FEATURES_OK) != 0, cases[i].ok);
        if (cases[i].ok) { // and are fixed from then on
            sdc_virtio_core_accept(f.core, SDC_VIRTIO_F_VERSION_1 | F_BAD);
            assert_int_equal(f.core->features, cases[i].features);
        }
        sdc_virtio_core_set_status(f.core, 0);
        assert_int_equal(f.core->status, 0);
        assert_int_equal(f.core->features, 0);
    }
    core_close(&f);
}

static void withheld_features_are_not_offered(void **state)
{
    (void)state;
    open_core(1, false);
    assert_true(sdc_virtio_core_offered(f.core) & SDC_VIRTIO_F_RING_PACKED);
    dev.device.withheld = SDC_VIRTIO_F_RING_PACKED;
    assert_false(sdc_virtio_core_offered(f.core) & SDC_VIRTIO_F_RING_PACKED);
    sdc_virtio_core_accept(f.core, SDC_VIRTIO_F_VERSION_1 | SDC_VIRTIO_F_RING_PACKED);
    sdc_virtio_core_set_status(f.core, 11);
    assert_int_equal(f.core->status, 3);
    core_close(&f);
}

static void status_bits_are_only_added(void **state)
{
    static const struct {
        uint8_t write, read;
    } steps[] = {
        {1, 1}, {2, 3}, {4, 3 /* not without FEATURES_OK */}, {64, 3 /* the device's own */}, {8, 11}, {4, 15}, {1, 15}, {128, 143},
        {0, 0}, {15, 3 /* nothing was accepted */}, {0, 0},
    };

    (void)state;
    open_core(1, false);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        if (steps[i].write == 8)
            sdc_virtio_core_accept(f.core, SDC_VIRTIO_F_VERSION_1);
        sdc_virtio_core_set_status(f.core, steps[i].write);
        assert_int_equal(f.core->status, steps[i].read);
    }
    core_close(&f);
}

// --- queues ---

static void a_queue_works_from_driver_ok_to_reset(void **state)
{
    (void)state;
    for (unsigned jumbled = 0; jumbled < 2; jumbled++) {
        open_core(2, jumbled);
        driver_start(&f, 0);
        assert_int_equal(dev.starts, 1);
        assert_true(sdc_virtio_core_enabled(f.core, 0));
        assert_false(sdc_virtio_core_enabled(f.core, 1));
        offer(5);
        driver_kick(&f);
        assert_int_equal(driver_used(&f), 5);
        assert_int_equal(driver_used_length(&f, 4), 1);
        assert_int_equal(f.interrupts, 1); // one for the batch
        sdc_virtio_core_set_status(f.core, 0);
        assert_true(sdc_virtio_core_busy(f.core));
        assert_true(f.core->status != 0); // reads as zero when it is done (virtio 1.2, 2.4.1)
        run_turns(&f, 2);
        assert_false(sdc_virtio_core_busy(f.core));
        assert_int_equal(f.core->status, 0);
        assert_int_equal(dev.stops, 1);
        assert_int_equal(dev.resets, 1);
        driver_start(&f, SDC_VIRTIO_F_EVENT_IDX); // and once more
        offer(1);
        driver_kick(&f);
        assert_int_equal(driver_used(&f), 1);
        core_close(&f);
    }
}

static void kicks_before_the_start_are_not_lost(void **state)
{
    struct sdc_ring_config config = {.size = CORE_SIZE, .desc = CORE_DESC, .driver = CORE_DRIVER, .device = CORE_DEVICE};

    (void)state;
    open_core(1, false);
    offer(1);
    sdc_virtio_core_kick(f.core, 0); // for nobody
    sdc_virtio_core_set_status(f.core, 3);
    sdc_virtio_core_accept(f.core, SDC_VIRTIO_F_VERSION_1);
    sdc_virtio_core_set_status(f.core, 15); // without a queue
    sdc_virtio_core_enable(f.core, 0, &config);
    sdc_virtio_core_enable(f.core, 0, &(struct sdc_ring_config){.size = 3}); // too late: ignored
    run_turns(&f, 4);
    assert_int_equal(driver_used(&f), 1);
    core_close(&f);
}

// --- kicks by eventfd ---

static void signal_kick(int fd)
{
    sdc_eventfd_signal(fd);
    run_turns(&f, 8);
}

static void an_eventfd_kicks_from_start_to_stop(void **state)
{
    int fd = sdc_eventfd_new();

    (void)state;
    open_core(2, false);
    sdc_virtio_core_set_kick_fd(f.core, 0, fd);
    assert_int_equal(sdc_virtio_core_kick_fd(f.core, 0), fd);
    assert_int_equal(sdc_virtio_core_kick_fd(f.core, 1), -1);
    signal_kick(fd); // nobody watches
    assert_int_equal(dev.works, 0);
    for (uint16_t round = 1; round <= 3; round++) {
        driver_start(&f, 0);
        run_turns(&f, 4);
        unsigned works = dev.works;
        offer(2);
        run_turns(&f, 4);
        assert_int_equal(dev.works, works);
        signal_kick(fd);
        assert_int_equal(driver_used(&f), 2);
        sdc_virtio_core_set_status(f.core, 0);
        run_turns(&f, 4);
        works = dev.works;
        signal_kick(fd);
        assert_int_equal(dev.works, works);
        assert_int_equal(sdc_eventfd_take(fd), 1); // it was left alone
        sdc_eventfd_signal(fd);
    }
    core_close(&f);
    assert_false(sdc_fd_is_open(fd)); // it was the core's
}

static void an_eventfd_can_be_replaced_while_the_queue_runs(void **state)
{
    int first = sdc_eventfd_new(), second = sdc_eventfd_new();
    int copy = dup(first);

    (void)state;
    open_core(1, false);
    driver_start(&f, 0);
    sdc_virtio_core_set_kick_fd(f.core, 0, first);
    assert_true(sdc_virtio_core_busy(f.core));
    run_turns(&f, 4);
    assert_false(sdc_virtio_core_busy(f.core));
    offer(1);
    signal_kick(first);
    assert_int_equal(driver_used(&f), 1);

    sdc_virtio_core_set_kick_fd(f.core, 0, second);
    assert_true(sdc_fd_is_open(first)); // until the queue has let go of it
    run_turns(&f, 4);
    assert_false(sdc_fd_is_open(first));
    offer(1);
    signal_kick(copy);
    assert_int_equal(driver_used(&f), 1);
    signal_kick(second);
    assert_int_equal(driver_used(&f), 2);

    sdc_virtio_core_set_kick_fd(f.core, 0, -1);
    run_turns(&f, 4);
    assert_false(sdc_fd_is_open(second));
    offer(1);
    driver_kick(&f);
    assert_int_equal(driver_used(&f), 3);
    close(copy);
    core_close(&f);
}

// Its requests are held, so that the ring cannot be given up yet: signals meanwhile are taken, and start nothing.
static void an_eventfd_of_a_queue_that_stops_starts_nothing(void **state)
{
    int fd = sdc_eventfd_new();

    (void)state;
    open_core(1, false);
    sdc_virtio_core_set_kick_fd(f.core, 0, fd);
    driver_start(&f, 0);
    dev.hold = true;
    offer(2);
    signal_kick(fd);
    assert_int_equal(dev.held_count, 2);
    sdc_virtio_core_set_status(f.core, 0);
    run_turns(&f, 4);
    unsigned works = dev.works;
    offer(1);
    signal_kick(fd);
    assert_int_equal(dev.works, works);
    assert_int_equal(dev.held_count, 2);
    give_held();
    run_turns(&f, 4);
    assert_int_equal(f.core->status, 0);
    core_close(&f);
}

static void a_reset_waits_for_what_is_on_its_way(void **state)
{
    (void)state;
    open_core(1, false);
    dev.hold = true;
    driver_start(&f, 0);
    offer(3);
    driver_kick(&f);
    assert_int_equal(dev.held_count, 3);
    sdc_virtio_core_set_status(f.core, 0);
    offer(1); // nobody takes it
    run_turns(&f, 8);
    assert_true(sdc_virtio_core_busy(f.core));
    assert_int_equal(dev.cancels, 1);
    assert_int_equal(dev.taken, 3);
    assert_int_equal(dev.stops, 0);
    give_held();
    run_turns(&f, 2);
    assert_false(sdc_virtio_core_busy(f.core));
    assert_int_equal(dev.stops, 1);
    assert_int_equal(driver_used(&f), 3); // what was done is shown
    core_close(&f);
}

static void one_queue_can_be_reset_alone(void **state)
{
    struct sdc_ring_config config = {.size = 8, .desc = 0x5000, .driver = 0x6000, .device = 0x7000};

    (void)state;
    open_core(2, false);
    driver_start(&f, 0);
    sdc_virtio_core_reset_queue(f.core, 0); // not negotiated
    assert_false(sdc_virtio_core_busy(f.core));
    sdc_virtio_core_set_status(f.core, 0);
    run_turns(&f, 2);

    driver_start(&f, SDC_VIRTIO_F_RING_RESET);
    sdc_virtio_core_enable(f.core, 1, &config);
    run_turns(&f, 2);
    dev.hold = true;
    offer(1);
    driver_kick(&f);
    sdc_virtio_core_reset_queue(f.core, 0);
    run_turns(&f, 2);
    assert_true(sdc_virtio_core_queue_resetting(f.core, 0));
    give_held();
    run_turns(&f, 2);
    assert_false(sdc_virtio_core_queue_resetting(f.core, 0));
    assert_false(sdc_virtio_core_enabled(f.core, 0));
    assert_true(sdc_virtio_core_enabled(f.core, 1));
    assert_int_equal(f.core->status, 15);
    assert_int_equal(dev.stops, 2); // of the first course, and of this
    sdc_virtio_core_enable(f.core, 0, &(struct sdc_ring_config){.size = CORE_SIZE, .desc = CORE_DESC, .driver = CORE_DRIVER,
                                                                .device = CORE_DEVICE});
    run_turns(&f, 4);
    assert_int_equal(dev.held_count, 1); // it begins again from the start of the ring
    give_held();
    core_close(&f);
}

// --- what breaks ---

static void a_broken_chain_needs_a_reset(void **state)
{
    (void)state;
    open_core(1, false);
    driver_start(&f, 0);
    offer(2);
    guest_put(&f.guest, CORE_DRIVER + 4 + 2, CORE_SIZE, 2); // the second head lies outside
    driver_kick(&f);
    assert_int_equal(driver_used(&f), 0);
    assert_true(f.core->status & SDC_VIRTIO_S_NEEDS_RESET);
    assert_int_equal(f.config_interrupts, 1);
    sdc_virtio_core_set_status(f.core, 15); // the driver cannot take it away
    assert_true(f.core->status & SDC_VIRTIO_S_NEEDS_RESET);
    driver_kick(&f);
    assert_int_equal(dev.taken, 1);
    sdc_virtio_core_set_status(f.core, 0);
    run_turns(&f, 2);
    assert_int_equal(f.core->status, 0);
    driver_start(&f, 0); // good as new
    offer(1);
    driver_kick(&f);
    assert_int_equal(driver_used(&f), 1);
    core_close(&f);
}

static void a_queue_that_cannot_start_needs_a_reset(void **state)
{
    static const struct {
        struct sdc_ring_config config;
        int start_rc;
    } cases[] = {
        {{.size = 8, .desc = UINT64_C(1) << 40, .driver = 0x1000, .device = 0x2000}, 0},
        {{.size = 8, .desc = 0, .driver = 0x1001, .device = 0x2000}, 0},
        {{.size = 7, .desc = 0, .driver = 0x1000, .device = 0x2000}, 0},
        {{.size = 8, .desc = 0, .driver = 0x1000, .device = 0x2000}, -ENOMEM},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        open_core(1, false);
        dev.start_rc = cases[i].start_rc;
        sdc_virtio_core_set_status(f.core, 3);
        sdc_virtio_core_accept(f.core, SDC_VIRTIO_F_VERSION_1);
        sdc_virtio_core_set_status(f.core, 11);
        sdc_virtio_core_enable(f.core, 0, &cases[i].config);
        sdc_virtio_core_set_status(f.core, 15);
        run_turns(&f, 4);
        assert_false(sdc_virtio_core_busy(f.core));
        assert_true(f.core->status & SDC_VIRTIO_S_NEEDS_RESET);
        driver_kick(&f);
        core_close(&f);
        assert_int_equal(dev.stops, 0); // what never started is not stopped
    }
}

static void a_turn_takes_no_more_than_its_budget(void **state)
{
    (void)state;
    open_core(1, false);
    driver_start(&f, 0);
    dev.endless = true;
    offer(8);
    driver_kick(&f); // returns: the loop has its turns, without another kick
    assert_int_equal(dev.most_a_turn, SDC_LIMIT_TURN);
    assert_true(dev.works >= 3);
    dev.endless = false;
    run_turns(&f, 4);
    assert_int_equal(driver_used(&f), f.avail);
    core_close(&f);
}

// --- memory ---

static void a_map_goes_when_its_last_request_does(void **state)
{
    (void)state;
    open_core(1, true);
    maps_released = 0;
    show_map(0);
    dev.hold = true;
    driver_start(&f, 0);
    offer(1);
    driver_kick(&f);
    assert_int_equal(dev.held_count, 1);

    show_map(9); // a page that nobody uses: the request keeps the map that it was translated with
    run_turns(&f, 2);
    assert_false(sdc_virtio_core_busy(f.core));
    assert_int_equal(maps_released, 0);
    offer(1);
    driver_kick(&f);
    assert_int_equal(dev.held_count, 2); // the queue goes on meanwhile
    sdc_virtqueue_give(dev.held[0], 1);
    dev.held[0] = dev.held[--dev.held_count];
    run_turns(&f, 2);
    assert_int_equal(maps_released, 1);
    give_held();
    run_turns(&f, 2);
    assert_int_equal(driver_used(&f), 2);
    core_close(&f);
    assert_int_equal(maps_released, 2);
}

static void a_ring_whose_memory_goes_is_given_back_first(void **state)
{
    (void)state;
    open_core(1, true);
    dev.hold = true;
    driver_start(&f, 0);
    offer(1);
    driver_kick(&f);
    show_map(2); // the used ring's page
    run_turns(&f, 4);
    assert_true(sdc_virtio_core_busy(f.core)); // it waits for the request
    give_held();
    run_turns(&f, 2);
    assert_false(sdc_virtio_core_busy(f.core));
    assert_int_equal(driver_used(&f), 1);

    offer(1);
    driver_kick(&f); // asleep
    assert_int_equal(dev.taken, 1);
    assert_false(f.core->status & SDC_VIRTIO_S_NEEDS_RESET);
    sdc_virtio_core_set_map(f.core, f.guest.map);
    run_turns(&f, 4);
    assert_int_equal(dev.taken, 2); // without another kick
    give_held();
    run_turns(&f, 2);
    assert_int_equal(driver_used(&f), 2);
    core_close(&f);
}

// The ring's memory was to go, and stays after all: nothing waits any more, what is in flight is, and the queue goes on beside it.
static void memory_that_is_put_back_is_as_it_was(void **state)
{
    (void)state;
    for (unsigned in_flight = 0; in_flight < 2; in_flight++) {
        for (unsigned turns = 0; turns < 4; turns++) {
            open_core(1, true);
            dev.hold = true;
            driver_start(&f, 0);
            offer(in_flight);
            driver_kick(&f);
            show_map(2); // the used ring's page
            run_turns(&f, turns);
            sdc_virtio_core_set_map(f.core, f.guest.map);
            run_turns(&f, 4);
            assert_false(sdc_virtio_core_busy(f.core));
            assert_int_equal(dev.held_count, in_flight);
            offer(1);
            driver_kick(&f);
            assert_int_equal(dev.taken, in_flight + 1);
            assert_false(f.core->status & SDC_VIRTIO_S_NEEDS_RESET);
            give_held();
            run_turns(&f, 2);
            assert_int_equal(driver_used(&f), in_flight + 1);
            core_close(&f);
        }
    }
}

static void a_reset_without_memory_ends(void **state)
{
    (void)state;
    open_core(1, true);
    driver_start(&f, 0);
    sdc_virtio_core_set_map(f.core, NULL);
    run_turns(&f, 2);
    sdc_virtio_core_set_status(f.core, 0);
    run_turns(&f, 2);
    assert_false(sdc_virtio_core_busy(f.core));
    assert_int_equal(dev.stops, 1);
    core_close(&f);
}

// Whether the driver is there to hear of it is the transport's affair.
static void a_changed_configuration_is_told_to_the_transport(void **state)
{
    (void)state;
    open_core(1, false);
    uint8_t generation = f.core->config_generation;
    sdc_virtio_config_changed(&dev.device);
    assert_int_equal(f.config_interrupts, 1);
    driver_start(&f, 0);
    sdc_virtio_config_changed(&dev.device);
    assert_int_equal(f.config_interrupts, 2);
    assert_int_equal((uint8_t)(f.core->config_generation - generation), 2);
    core_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(features_are_accepted_or_not),
        cmocka_unit_test(withheld_features_are_not_offered),
        cmocka_unit_test(status_bits_are_only_added),
        cmocka_unit_test(a_queue_works_from_driver_ok_to_reset),
        cmocka_unit_test(kicks_before_the_start_are_not_lost),
        cmocka_unit_test(an_eventfd_kicks_from_start_to_stop),
        cmocka_unit_test(an_eventfd_can_be_replaced_while_the_queue_runs),
        cmocka_unit_test(an_eventfd_of_a_queue_that_stops_starts_nothing),
        cmocka_unit_test(a_reset_waits_for_what_is_on_its_way),
        cmocka_unit_test(one_queue_can_be_reset_alone),
        cmocka_unit_test(a_broken_chain_needs_a_reset),
        cmocka_unit_test(a_queue_that_cannot_start_needs_a_reset),
        cmocka_unit_test(a_turn_takes_no_more_than_its_budget),
        cmocka_unit_test(a_map_goes_when_its_last_request_does),
        cmocka_unit_test(a_ring_whose_memory_goes_is_given_back_first),
        cmocka_unit_test(memory_that_is_put_back_is_as_it_was),
        cmocka_unit_test(a_reset_without_memory_ends),
        cmocka_unit_test(a_changed_configuration_is_told_to_the_transport),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
