// SPDX-License-Identifier: BSD-3-Clause
// Both halves of a virtqueue in two threads: that wait for each other, or that look at the ring all the time, where no system call
// puts in order what the barriers should. `--spin=N` does the latter alone, with N requests and more over each kind of ring.
#include "queue_fixture.h"

#include "base/check.h"
#include "os/fd.h"
#include "os/wait.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
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

// --- without a system call ---

enum { SLOTS = 64, PATIENCE = 2000 }; // looks at an empty ring before the processor is given away

static uint64_t spin_requests = 4000;

// A request: the driver puts its number into its slot, the device puts the complement behind it.
struct slot {
    uint64_t sent;
    uint64_t answer;
};

struct spin {
    struct pair pair;
    struct sdc_chain chains[BATCH];
    uint64_t requests;
    _Atomic bool wrong;
};

static void rest(unsigned *looks)
{
    if (++*looks % PATIENCE == 0)
        sched_yield();
}

static void *spinning_device(void *context)
{
    struct spin *spin = context;
    struct pair *pair = &spin->pair;
    bool in_order = pair->ring.config.features & SDC_VIRTIO_F_IN_ORDER;
    unsigned looks = 0;
    sdc_ring_suppress(&pair->ring);
    for (uint64_t done = 0; done < spin->requests && !spin->wrong;) {
        unsigned batch = 0;
        while (batch < BATCH && sdc_ring_take(&pair->ring, &spin->chains[batch]) == 1) {
            uint64_t number = 0;
            spin->wrong |= sdc_chain_read(&spin->chains[batch], 0, &number, sizeof number) < 0 || number != done + batch;
            number = ~number;
            spin->wrong |= sdc_chain_write(&spin->chains[batch++], 0, &number, sizeof number) < 0;
        }
        spin->wrong |= pair->ring.broken != NULL;
        for (unsigned i = 0; i < batch; i++)
            sdc_ring_give(&pair->ring, &spin->chains[in_order ? i : batch - 1 - i], sizeof(uint64_t));
        sdc_ring_publish(&pair->ring);
        done += batch;
        if (batch == 0)
            rest(&looks);
    }
    return NULL;
}

static struct slot *slot_of(struct pair *pair, uint64_t number)
{
    return (struct slot *)(void *)pair->data + number % SLOTS;
}

// Slots are used in turn, so that the oldest one has to be free. How many were sent now.
static uint64_t send_numbers(struct spin *spin, uint64_t sent, uint64_t oldest)
{
    struct pair *pair = &spin->pair;
    while (sent < spin->requests && sent - oldest < SLOTS) {
        struct slot *slot = slot_of(pair, sent);
        uint64_t iova = pair->data_iova + (uint64_t)((uint8_t *)slot - pair->data);
        struct sdc_driver_segment segments[2] = {{iova, sizeof slot->sent}, {iova + sizeof slot->sent, sizeof slot->answer}};
        if (sdc_driver_queue_add(pair->driver, segments, 1, 1, slot) < 0)
            break;
        *slot = (struct slot){.sent = sent++};
    }
    sdc_driver_queue_publish(pair->driver);
    return sent;
}

static void spin_over(uint16_t size, uint64_t features, uint64_t requests)
{
    struct spin *spin = calloc(1, sizeof *spin);
    struct pair *pair = &spin->pair;
    bool free_slots[SLOTS] = {0};
    pthread_t thread;
    unsigned looks = 0;
    spin->requests = requests;
    for (unsigned i = 0; i < BATCH; i++)
        sdc_chain_init(&spin->chains[i]);
    open_pair(pair, size, features, 0);
    assert_int_equal(pthread_create(&thread, NULL, spinning_device, spin), 0);
    uint64_t sent = 0, oldest = 0, wrong = 0;
    while (oldest < requests && !spin->wrong && wrong == 0) {
        struct sdc_driver_used used[BATCH];
        sent = send_numbers(spin, sent, oldest);
        int count = sdc_driver_queue_take(pair->driver, used, BATCH);
        for (int i = 0; i < count; i++) {
            struct slot *slot = used[i].token;
            wrong += slot->answer != ~slot->sent || used[i].written != sizeof slot->answer;
            free_slots[slot->sent % SLOTS] = true;
        }
        for (; free_slots[oldest % SLOTS]; oldest++)
            free_slots[oldest % SLOTS] = false;
        wrong += count < 0;
        if (count <= 0)
            rest(&looks);
    }
    spin->wrong |= wrong > 0;
    pthread_join(thread, NULL);
    assert_false(spin->wrong);
    for (unsigned i = 0; i < BATCH; i++)
        sdc_chain_destroy(&spin->chains[i]);
    close_pair(pair);
    free(spin);
}

static void what_is_seen_is_whole(void **state)
{
    spin_over(is_packed(state) ? 3 : 4, features_of(state, PLAIN), spin_requests / 20);
    spin_over(128, features_of(state, PLAIN), spin_requests);
    spin_over(128, features_of(state, ORDER), spin_requests / 4);
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest spinning[] = {
        BOTH(what_is_seen_is_whole),
    };
    if (argc == 2 && strncmp(argv[1], "--spin=", 7) == 0) {
        spin_requests = strtoull(argv[1] + 7, NULL, 10);
        return cmocka_run_group_tests(spinning, NULL, NULL);
    }
    static const struct CMUnitTest tests[] = {
        BOTH(nobody_sleeps_while_there_is_work),
        BOTH(what_is_seen_is_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
