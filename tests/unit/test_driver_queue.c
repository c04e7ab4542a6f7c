// SPDX-License-Identifier: BSD-3-Clause
// The driver's half of a virtqueue against the device's half, with and without event indices and indirect
// tables; against a device that breaks the rules; and both halves in two threads that wait for each other.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "driver/virtqueue.h"
#include "driver_memory.h"
#include "os/fd.h"
#include "os/wait.h"
#include "ring/ring.h"

#include <sidecard/virtio.h>

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define IOVA UINT64_C(0x7000)

// Both halves of one queue.
struct pair {
    struct sdc_client_memory memory;
    struct sdc_map *map;
    struct sdc_driver_queue *driver;
    struct sdc_ring ring;
    struct sdc_chain chain;
    uint8_t *data;
    uint64_t data_iova;
};

static void open_pair(struct pair *pair, uint16_t size, uint64_t features, uint16_t indirect_max)
{
    struct sdc_driver_queue_config config = {.size = size,
                                             .features = features,
                                             .indirect_max = indirect_max};
    uint64_t bytes = sdc_driver_queue_memory(&config) + 65536;
    assert_int_equal(sdc_client_memory_new(&pair->memory, IOVA, bytes, NULL), 0);
    assert_int_equal(sdc_driver_queue_new(&config, &pair->memory, &pair->driver, NULL), 0);
    pair->data = sdc_client_memory_take(&pair->memory, 65536 - 4096, 64, &pair->data_iova);
    assert_non_null(pair->data);
    pair->map = driver_map(&pair->memory);
    struct sdc_ring_config device = {
        .size = size,
        .features = features,
        .desc = pair->driver->desc,
        .driver = pair->driver->driver,
        .device = pair->driver->device,
    };
    assert_int_equal(sdc_ring_start(&pair->ring, &device, pair->map, NULL), 0);
    sdc_chain_init(&pair->chain);
}

static void close_pair(struct pair *pair)
{
    sdc_chain_destroy(&pair->chain);
    sdc_ring_stop(&pair->ring);
    sdc_map_unref(pair->map);
    sdc_driver_queue_free(pair->driver);
    sdc_client_memory_free(&pair->memory);
}

static const uint64_t feature_sets[] = {
    SDC_VIRTIO_F_VERSION_1,
    SDC_VIRTIO_F_VERSION_1 | SDC_VIRTIO_F_EVENT_IDX,
    SDC_VIRTIO_F_VERSION_1 | SDC_VIRTIO_F_INDIRECT_DESC,
    SDC_VIRTIO_F_VERSION_1 | SDC_VIRTIO_F_INDIRECT_DESC | SDC_VIRTIO_F_EVENT_IDX,
};

// --- chains ---

// One chain of `readable` and `writable` segments: the device reads "a", "b", ... and writes as many bytes
// back.
static void send_one(struct pair *pair, unsigned readable, unsigned writable)
{
    struct sdc_driver_segment segments[16];
    struct sdc_driver_used used;
    uint8_t text[16], token;
    for (unsigned i = 0; i < readable + writable; i++) {
        segments[i] = (struct sdc_driver_segment){.iova = pair->data_iova + 100 * i, .size = 1};
        pair->data[100 * i] = (uint8_t)('a' + i);
    }
    assert_int_equal(sdc_driver_queue_add(pair->driver, segments, readable, writable, &token), 0);
    assert_int_equal(sdc_ring_take(&pair->ring, &pair->chain), 0); // not shown yet
    sdc_driver_queue_publish(pair->driver);
    assert_int_equal(sdc_ring_take(&pair->ring, &pair->chain), 1);
    assert_int_equal(pair->chain.readable_size, readable);
    assert_int_equal(pair->chain.writable_size, writable);
    assert_int_equal(sdc_chain_read(&pair->chain, 0, text, readable), 0);
    assert_memory_equal(text, "abcdefghijklmnop", readable);
    assert_int_equal(sdc_chain_write(&pair->chain, 0, "ABCDEFGHIJKLMNOP", writable), 0);
    assert_int_equal(sdc_driver_queue_take(pair->driver, &used, 1), 0);
    sdc_ring_give(&pair->ring, &pair->chain, writable);
    sdc_ring_publish(&pair->ring);
    assert_int_equal(sdc_driver_queue_take(pair->driver, &used, 1), 1);
    assert_ptr_equal(used.token, &token);
    assert_int_equal(used.written, writable);
    for (unsigned i = 0; i < writable; i++)
        assert_int_equal(pair->data[100 * (readable + i)], 'A' + i);
    assert_int_equal(pair->driver->in_flight, 0);
}

static void chains_of_every_shape_get_across(void **state)
{
    (void)state;
    for (unsigned set = 0; set < 4; set++) {
        struct pair pair;
        open_pair(&pair, 16, feature_sets[set], feature_sets[set] & SDC_VIRTIO_F_INDIRECT_DESC ? 6 : 0);
        for (unsigned round = 0; round < 20; round++)
            for (unsigned readable = 0; readable <= 8; readable++)
                for (unsigned writable = readable == 0; writable <= 8; writable++)
                    send_one(&pair, readable, writable);
        close_pair(&pair);
    }
}

static void a_full_ring_says_so_and_empties(void **state)
{
    (void)state;
    for (unsigned indirect = 0; indirect < 2; indirect++) {
        struct pair pair;
        struct sdc_driver_segment segments[3] = {{IOVA, 1}, {IOVA, 1}, {IOVA, 1}};
        struct sdc_driver_used used[16];
        unsigned room = indirect ? 16 : 5;
        open_pair(&pair, 16, feature_sets[2], indirect ? 3 : 0);
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
    (void)state;
    struct pair pair;
    struct sdc_driver_segment segments[5] = {{IOVA, 1}, {IOVA, 1}, {IOVA, 1}, {IOVA, 1}, {IOVA, 1}};
    open_pair(&pair, 4, feature_sets[0], 0);
    assert_int_equal(sdc_driver_queue_add(pair.driver, segments, 5, 0, NULL), -EINVAL);
    assert_int_equal(sdc_driver_queue_add(pair.driver, segments, 0, 0, NULL), -EINVAL);
    assert_int_equal(sdc_driver_queue_add(pair.driver, segments, 4, 0, NULL), 0);
    close_pair(&pair);
}

static void bad_queue_sizes_are_refused(void **state)
{
    (void)state;
    static const uint16_t sizes[] = {0, 3, 100, 65535};
    struct sdc_client_memory memory;
    struct sdc_driver_queue *queue;
    assert_int_equal(sdc_client_memory_new(&memory, IOVA, 4096, NULL), 0);
    for (unsigned i = 0; i < 4; i++) {
        struct sdc_driver_queue_config config = {.size = sizes[i]};
        assert_int_equal(sdc_driver_queue_new(&config, &memory, &queue, NULL), -EINVAL);
    }
    struct sdc_driver_queue_config config = {.size = 1024};
    assert_int_equal(sdc_driver_queue_new(&config, &memory, &queue, NULL), -ENOMEM);
    sdc_client_memory_free(&memory);
}

// --- who notifies whom ---

static void add_one(struct pair *pair)
{
    struct sdc_driver_segment segment = {.iova = pair->data_iova, .size = 1};
    assert_int_equal(sdc_driver_queue_add(pair->driver, &segment, 1, 0, pair), 0);
}

static void take_and_give(struct pair *pair)
{
    assert_int_equal(sdc_ring_take(&pair->ring, &pair->chain), 1);
    sdc_ring_give(&pair->ring, &pair->chain, 0);
}

static void take_back(struct pair *pair, unsigned count)
{
    struct sdc_driver_used used[16];
    assert_int_equal(sdc_driver_queue_take(pair->driver, used, 16), count);
}

static void the_device_is_notified_when_it_asked_and_once_a_batch(void **state)
{
    (void)state;
    for (unsigned set = 0; set < 2; set++) {
        struct pair pair;
        open_pair(&pair, 8, feature_sets[set], 0);
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
    (void)state;
    for (unsigned set = 0; set < 2; set++) {
        struct pair pair;
        open_pair(&pair, 8, feature_sets[set], 0);
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

// --- a device that breaks the rules ---

// Writes a used element and index as a device would, whatever they are.
static void use(struct pair *pair, uint16_t index, uint32_t id, uint32_t written)
{
    uint8_t *used = pair->memory.base + (pair->driver->device - IOVA);
    sdc_put32(used + 4, id);
    sdc_put32(used + 8, written);
    sdc_put16(used + 2, index);
}

static void a_device_that_breaks_the_rules_breaks_the_queue(void **state)
{
    (void)state;
    static const struct {
        uint16_t index;
        uint32_t id;
        uint32_t written;
        const char *why;
    } cases[] = {
        {1, 8, 0, "not in flight"}, // outside the ring
        {1, UINT32_MAX, 0, "not in flight"},
        {1, 65536, 0, "not in flight"}, // head 0 in 16 bits
        {1, 5, 0, "not in flight"},     // free
        {1, 1, 0, "not in flight"},     // inside a chain
        {1, 0, 3, "more than the chain has room"},
        {2, 0, 0, "ahead"},
        {65535, 0, 0, "ahead"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct pair pair;
        struct sdc_driver_used used;
        open_pair(&pair, 8, feature_sets[0], 0);
        struct sdc_driver_segment segments[2] = {{pair.data_iova, 2}, {pair.data_iova, 2}};
        assert_int_equal(sdc_driver_queue_add(pair.driver, segments, 1, 1, &pair), 0);
        sdc_driver_queue_publish(pair.driver);
        use(&pair, cases[i].index, cases[i].id, cases[i].written);
        assert_int_equal(sdc_driver_queue_take(pair.driver, &used, 1), -EPROTO);
        assert_non_null(strstr(pair.driver->broken, cases[i].why));
        use(&pair, 1, 0, 2);
        assert_int_equal(sdc_driver_queue_take(pair.driver, &used, 1), -EPROTO); // for good
        close_pair(&pair);
    }
}

static void a_chain_is_not_given_back_twice(void **state)
{
    (void)state;
    struct pair pair;
    struct sdc_driver_used used;
    open_pair(&pair, 8, feature_sets[0], 0);
    add_one(&pair), add_one(&pair);
    sdc_driver_queue_publish(pair.driver);
    use(&pair, 1, 0, 0);
    assert_int_equal(sdc_driver_queue_take(pair.driver, &used, 1), 1);
    uint8_t *ring = pair.memory.base + (pair.driver->device - IOVA);
    sdc_put32(ring + 4 + 8, 0);
    sdc_put16(ring + 2, 2);
    assert_int_equal(sdc_driver_queue_take(pair.driver, &used, 1), -EPROTO);
    close_pair(&pair);
}

// --- both at once ---

enum { REQUESTS = 60000 };

struct threads {
    struct pair pair;
    int kick;
    int call;
    unsigned kicks;
    unsigned calls;
    bool stuck;
};

static bool wait_on(int fd)
{
    if (sdc_wait_fd(fd, SDC_WAIT_INPUT, 10000) <= 0)
        return false;
    sdc_eventfd_take(fd);
    return true;
}

// A device that sleeps whenever it finds nothing.
static void *device_thread(void *context)
{
    struct threads *threads = context;
    struct pair *pair = &threads->pair;
    for (unsigned done = 0; done < REQUESTS;) {
        unsigned batch = 0;
        sdc_ring_suppress(&pair->ring);
        while (sdc_ring_take(&pair->ring, &pair->chain) == 1) {
            sdc_ring_give(&pair->ring, &pair->chain, 0);
            batch++;
        }
        done += batch;
        if (sdc_ring_publish(&pair->ring)) {
            sdc_eventfd_signal(threads->call);
            threads->calls++;
        }
        if (done < REQUESTS && !sdc_ring_rearm(&pair->ring) && !wait_on(threads->kick)) {
            threads->stuck = true;
            return NULL;
        }
    }
    return NULL;
}

static void nobody_sleeps_while_there_is_work(void **state)
{
    (void)state;
    for (unsigned set = 0; set < 2; set++) {
        struct threads threads = {.kick = sdc_eventfd_new(), .call = sdc_eventfd_new()};
        struct pair *pair = &threads.pair;
        pthread_t thread;
        open_pair(pair, 32, feature_sets[set], 0);
        assert_int_equal(pthread_create(&thread, NULL, device_thread, &threads), 0);
        unsigned sent = 0, done = 0;
        bool stuck = false;
        while (done < REQUESTS && !stuck) {
            struct sdc_driver_used used[32];
            struct sdc_driver_segment segment = {.iova = pair->data_iova, .size = 1};
            // As many as a changing depth allows, so that both sides run dry at times.
            unsigned depth = 1 + (done / 7) % 13;
            while (sent < REQUESTS && sent - done < depth) {
                assert_int_equal(sdc_driver_queue_add(pair->driver, &segment, 1, 0, pair), 0);
                sent++;
            }
            if (sdc_driver_queue_publish(pair->driver)) {
                sdc_eventfd_signal(threads.kick);
                threads.kicks++;
            }
            int count = sdc_driver_queue_take(pair->driver, used, 32);
            assert_true(count >= 0);
            done += (unsigned)count;
            if (count == 0 && sdc_driver_queue_arm(pair->driver)) {
                stuck = !wait_on(threads.call);
                sdc_driver_queue_disarm(pair->driver);
            }
        }
        pthread_join(thread, NULL);
        assert_false(stuck);
        assert_false(threads.stuck);
        assert_int_equal(done, REQUESTS);
        assert_true(threads.kicks < REQUESTS); // suppression works at all
        close_pair(pair);
        close(threads.kick), close(threads.call);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(chains_of_every_shape_get_across),
        cmocka_unit_test(a_full_ring_says_so_and_empties),
        cmocka_unit_test(a_chain_longer_than_the_ring_is_refused),
        cmocka_unit_test(bad_queue_sizes_are_refused),
        cmocka_unit_test(the_device_is_notified_when_it_asked_and_once_a_batch),
        cmocka_unit_test(the_driver_is_interrupted_when_it_asked),
        cmocka_unit_test(a_device_that_breaks_the_rules_breaks_the_queue),
        cmocka_unit_test(a_chain_is_not_given_back_twice),
        cmocka_unit_test(nobody_sleeps_while_there_is_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
