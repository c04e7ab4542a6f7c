// SPDX-License-Identifier: BSD-3-Clause
// Both halves of a virtqueue in two threads that wait for each other.
#include "queue_fixture.h"

#include "base/check.h"
#include "os/fd.h"
#include "os/wait.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { REQUESTS = 60000, BATCH = 32 };

struct threads {
    struct pair pair;
    struct sdc_chain chains[BATCH];
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

// A device that sleeps whenever it finds nothing, and gives the last one first unless it has to keep the order.
static void *device_thread(void *context)
{
    struct threads *threads = context;
    struct pair *pair = &threads->pair;
    for (unsigned done = 0; done < REQUESTS;) {
        unsigned batch = 0;
        sdc_ring_suppress(&pair->ring);
        while (batch < BATCH && sdc_ring_take(&pair->ring, &threads->chains[batch]) == 1)
            batch++;
        done += batch;
        bool in_order = pair->ring.config.features & SDC_VIRTIO_F_IN_ORDER;
        for (unsigned i = 0; i < batch; i++)
            sdc_ring_give(&pair->ring, &threads->chains[in_order ? i : batch - 1 - i], 0);
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

// Adds what a depth that changes allows, so that both sides run dry at times.
static unsigned add_some(struct pair *pair, unsigned sent, unsigned done)
{
    unsigned size = pair->driver->config.size, depth = 1 + (done / 7) % 13;
    while (sent < REQUESTS && sent - done < depth) {
        struct sdc_driver_segment segments[3] = {
            {pair->data_iova, 1}, {pair->data_iova, 1}, {pair->data_iova, 1}};
        unsigned count = 1 + sent % (unsigned)sdc_min(3, size);
        int ret = sdc_driver_queue_add(pair->driver, segments, count, 0, pair);
        if (ret == -ENOSPC)
            break;
        assert_int_equal(ret, 0);
        sent++;
    }
    return sent;
}

static void run_threads(uint16_t size, uint64_t features)
{
    struct threads *threads = calloc(1, sizeof *threads);
    struct pair *pair = &threads->pair;
    pthread_t thread;
    threads->kick = sdc_eventfd_new(), threads->call = sdc_eventfd_new();
    for (unsigned i = 0; i < BATCH; i++)
        sdc_chain_init(&threads->chains[i]);
    open_pair(pair, size, features, 0);
    assert_int_equal(pthread_create(&thread, NULL, device_thread, threads), 0);
    unsigned sent = 0, done = 0;
    bool stuck = false;
    while (done < REQUESTS && !stuck) {
        struct sdc_driver_used used[BATCH];
        sent = add_some(pair, sent, done);
        if (sdc_driver_queue_publish(pair->driver)) {
            sdc_eventfd_signal(threads->kick);
            threads->kicks++;
        }
        int count = sdc_driver_queue_take(pair->driver, used, BATCH);
        assert_true(count >= 0);
        done += (unsigned)count;
        if (count == 0 && sdc_driver_queue_arm(pair->driver)) {
            stuck = !wait_on(threads->call);
            sdc_driver_queue_disarm(pair->driver);
        }
    }
    pthread_join(thread, NULL);
    assert_false(stuck);
    assert_false(threads->stuck);
    assert_int_equal(done, REQUESTS);
    if (size > 1)
        assert_true(threads->kicks < REQUESTS); // suppression works at all
    for (unsigned i = 0; i < BATCH; i++)
        sdc_chain_destroy(&threads->chains[i]);
    close_pair(pair);
    close(threads->kick), close(threads->call);
    free(threads);
}

static void nobody_sleeps_while_there_is_work(void **state)
{
    for (unsigned set = 0; set < 2; set++) {
        run_threads(1, features_of(state, set));
        run_threads(is_packed(state) ? 3 : 4, features_of(state, set));
        run_threads(32, features_of(state, set));
    }
    run_threads(32, features_of(state, ORDER | EVENTS));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        BOTH(nobody_sleeps_while_there_is_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
