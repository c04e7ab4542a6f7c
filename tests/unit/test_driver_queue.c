// SPDX-License-Identifier: BSD-3-Clause
// The driver's half of a virtqueue against the device's half: chains of every shape, a full ring, and who notifies whom.
#include "queue_fixture.h"

#include "base/check.h"

#include <errno.h>

// --- chains ---

static void chains_of_every_shape_get_across(void **state)
{
    for (unsigned set = 0; set < SETS; set++) {
        struct pair pair;
        open_pair(&pair, 16, features_of(state, set), set & TABLES ? 6 : 0);
        for (unsigned round = 0; round < 20; round++)
            for (unsigned readable = 0; readable <= 8; readable++)
                for (unsigned writable = readable == 0; writable <= 8; writable++)
                    send_one(&pair, readable, writable);
        close_pair(&pair);
    }
}

static void a_full_ring_says_so_and_empties(void **state)
{
    for (unsigned indirect = 0; indirect < 2; indirect++) {
        struct pair pair;
        struct sdc_driver_segment segments[3] = {{PAIR_IOVA, 1}, {PAIR_IOVA, 1}, {PAIR_IOVA, 1}};
        struct sdc_driver_used used[16];
        unsigned room = indirect ? 16 : 5;
        open_pair(&pair, 16, features_of(state, TABLES), indirect ? 3 : 0);
        for (unsigned round = 0; round < 100; round++) {
            for (unsigned i = 0; i < room; i++)
                assert_int_equal(sdc_driver_queue_add(pair.driver, segments, 2, 1, &pair), 0);
            assert_int_equal(sdc_driver_queue_add(pair.driver, segments, 2, 1, &pair), -ENOSPC);
            sdc_driver_queue_publish(pair.driver);
            for (unsigned i = 0; i < room; i++) {
                assert_int_equal(sdc_ring_take(&pair.ring, &pair.chain), 1);
                sdc_ring_give(&pair.ring, &pair.chain, 0);
            }
            sdc_ring_publish(&pair.ring);
            assert_int_equal(sdc_driver_queue_take(pair.driver, used, 3), 3);
            assert_int_equal(sdc_driver_queue_take(pair.driver, used, 16), room - 3);
        }
        close_pair(&pair);
    }
}

static void a_chain_longer_than_the_ring_is_refused(void **state)
{
    struct pair pair;
    struct sdc_driver_segment segments[5] = {{PAIR_IOVA, 1}, {PAIR_IOVA, 1}, {PAIR_IOVA, 1}, {PAIR_IOVA, 1}, {PAIR_IOVA, 1}};
    open_pair(&pair, 4, features_of(state, PLAIN), 0);
    assert_int_equal(sdc_driver_queue_add(pair.driver, segments, 5, 0, NULL), -EINVAL);
    assert_int_equal(sdc_driver_queue_add(pair.driver, segments, 0, 0, NULL), -EINVAL);
    assert_int_equal(sdc_driver_queue_add(pair.driver, segments, 4, 0, NULL), 0);
    close_pair(&pair);
}

static void bad_queue_sizes_are_refused(void **state)
{
    static const uint16_t sizes[] = {0, 32769, 65535, 3, 100};
    struct sdc_client_memory memory;
    struct sdc_driver_queue *queue;
    assert_int_equal(sdc_client_memory_new(&memory, PAIR_IOVA, 4096, NULL), 0);
    // Packed rings may be of any size, others of powers of two alone.
    for (unsigned i = 0; i < (is_packed(state) ? 3 : 5); i++) {
        struct sdc_driver_queue_config config = {.size = sizes[i], .features = features_of(state, PLAIN)};
        assert_int_equal(sdc_driver_queue_new(&config, &memory, &queue, NULL), -EINVAL);
    }
    struct sdc_driver_queue_config config = {.size = 1024, .features = features_of(state, PLAIN)};
    assert_int_equal(sdc_driver_queue_new(&config, &memory, &queue, NULL), -ENOMEM);
    sdc_client_memory_free(&memory);
}

// --- who notifies whom ---

static void the_device_is_notified_when_it_asked_and_once_a_batch(void **state)
{
    for (unsigned set = 0; set < 2; set++) {
        struct pair pair;
        open_pair(&pair, 8, features_of(state, set), 0);
        for (unsigned round = 0; round < 20000; round++) {
            assert_false(sdc_driver_queue_publish(pair.driver)); // nothing new
            assert_false(sdc_ring_rearm(&pair.ring));
            add_one(&pair), add_one(&pair), add_one(&pair);
            assert_true(sdc_driver_queue_publish(pair.driver));
            assert_false(sdc_driver_queue_publish(pair.driver));
            sdc_ring_suppress(&pair.ring);
            take_and_give(&pair);
            add_one(&pair);
            assert_false(sdc_driver_queue_publish(pair.driver)); // it is awake
            assert_true(sdc_ring_rearm(&pair.ring));             // and finds it before it sleeps
            take_and_give(&pair), take_and_give(&pair), take_and_give(&pair);
            sdc_ring_publish(&pair.ring);
            take_back(&pair, 4);
        }
        close_pair(&pair);
    }
}

static void the_driver_is_interrupted_when_it_asked(void **state)
{
    for (unsigned set = 0; set < 2; set++) {
        struct pair pair;
        open_pair(&pair, 8, features_of(state, set), 0);
        // From the start, nobody has asked.
        add_one(&pair);
        sdc_driver_queue_publish(pair.driver);
        take_and_give(&pair);
        assert_false(sdc_ring_publish(&pair.ring));
        take_back(&pair, 1);
        for (unsigned round = 0; round < 20000; round++) {
            add_one(&pair), add_one(&pair);
            sdc_driver_queue_publish(pair.driver);
            assert_true(sdc_driver_queue_arm(pair.driver));
            take_and_give(&pair);
            assert_true(sdc_ring_publish(&pair.ring));
            assert_false(sdc_driver_queue_arm(pair.driver)); // one is there
            take_back(&pair, 1);
            sdc_driver_queue_disarm(pair.driver);
            take_and_give(&pair);
            assert_false(sdc_ring_publish(&pair.ring));
            take_back(&pair, 1);
        }
        close_pair(&pair);
    }
}

// Virtio 1.2, 2.9: a split ring's available index; a packed ring's next place, with the wrap counter above it.
static void a_notification_says_where_the_next_chain_will_be(void **state)
{
    struct pair pair;
    uint16_t size = is_packed(state) ? 3 : 4;
    open_pair(&pair, size, features_of(state, PLAIN), 0);
    for (unsigned sent = 0; sent < 70000; sent++) {
        unsigned lap = sent / size % 2 == 0 ? 0x8000 : 0;
        unsigned wanted = is_packed(state) ? sent % size | lap : sent & 0xffff;
        assert_int_equal(sdc_driver_queue_position(pair.driver), wanted);
        send_one(&pair, 1, 0);
    }
    close_pair(&pair);
}

// With chains of two entries in a ring of three, every other one goes on at its start.
static void a_chain_goes_over_the_rings_end(void **state)
{
    for (unsigned set = 0; set < 2; set++) {
        struct pair pair;
        open_pair(&pair, is_packed(state) ? 3 : 4, features_of(state, set), 0);
        for (unsigned round = 0; round < 40; round++) {
            send_one(&pair, 1, 1);
            send_one(&pair, 3, 0); // all of it
            send_one(&pair, 0, 1);
        }
        close_pair(&pair);
    }
}

// As after a reset of the queue: whatever state it was in.
static void a_queue_that_was_restarted_is_as_new(void **state)
{
    for (unsigned set = 0; set < SETS; set++) {
        struct pair pair;
        open_pair(&pair, 4, features_of(state, set), set & TABLES ? 2 : 0);
        for (unsigned round = 0; round < 20; round++) {
            for (unsigned i = 0; i < round; i++)
                send_one(&pair, 1, 0);
            add_one(&pair), add_one(&pair);
            sdc_driver_queue_publish(pair.driver);
            take_and_give(&pair);
            sdc_ring_publish(&pair.ring);
            add_one(&pair);
            pair.driver->broken = "on purpose";
            struct sdc_ring_config config = pair.ring.config;
            sdc_ring_stop(&pair.ring);
            sdc_driver_queue_restart(pair.driver);
            assert_int_equal(sdc_ring_start(&pair.ring, &config, &(struct sdc_memory){.map = pair.map}, NULL), 0);
            assert_int_equal(pair.driver->in_flight, 0);
            assert_int_equal(sdc_ring_take(&pair.ring, &pair.chain), 0);
            take_back(&pair, 0);
            for (unsigned i = 0; i < 4; i++)
                add_one(&pair);
            sdc_driver_queue_publish(pair.driver);
            for (unsigned i = 0; i < 4; i++)
                take_and_give(&pair);
            assert_false(sdc_ring_publish(&pair.ring)); // nobody has asked
            take_back(&pair, 4);
        }
        close_pair(&pair);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        BOTH(chains_of_every_shape_get_across),
        BOTH(a_full_ring_says_so_and_empties),
        BOTH(a_chain_longer_than_the_ring_is_refused),
        BOTH(bad_queue_sizes_are_refused),
        BOTH(the_device_is_notified_when_it_asked_and_once_a_batch),
        BOTH(the_driver_is_interrupted_when_it_asked),
        BOTH(a_notification_says_where_the_next_chain_will_be),
        BOTH(a_chain_goes_over_the_rings_end),
        BOTH(a_queue_that_was_restarted_is_as_new),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
