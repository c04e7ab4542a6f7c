// SPDX-License-Identifier: BSD-3-Clause
// How well loops keep out of each other's way: a virtio-blk device whose queues are on loops of their own, each on a processor of its own
// and driven by a client on the same thread. So nothing is between a request and its device but the ring, and what two loops do
// less than twice as often as one, they do to each other.
//
//     loops LOOPS SECONDS BACKEND [split|packed]     prints the requests a second of all loops, and how many there were
#include "backend/block/block.h"
#include "base/check.h"
#include "device/virtio_blk/virtio_blk.h"
#include "driver/virtqueue.h"
#include "memory/map.h"
#include "os/clock.h"
#include "transport/common/virtio_core.h"

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 16, DEPTH = 32, ENTRIES = 256, BLOCK = 4096, HEADER = 16, SLOT = BLOCK + 64, SKIPPED = 77 };
#define MILLISECOND UINT64_C(1000000)

enum phase { WARMING, COUNTING, OVER };

struct slot {
    uint8_t *header; // struct virtio_blk_req, and behind it the status
    struct sdc_driver_segment segments[3];
};

// A client and its loop; all but what is atomic belongs to the loop's thread.
struct client {
    struct sdc_poller poller; // it is looked at in each turn, as its queue is
    struct sdc_post post;
    struct bench *bench;
    unsigned index;
    struct sdc_loop *loop;
    pthread_t thread;
    struct sdc_client_memory memory;
    struct sdc_driver_queue *queue;
    struct slot slots[DEPTH];
    uint64_t blocks, random;
    enum phase phase; // as this client has seen it last
    uint64_t done, counted, began_ns, took_ns;
    atomic_bool idle; // over, and nothing in flight
};

struct bench {
    struct client clients[MOST];
    unsigned count;
    uint64_t ns; // to count for
    struct sdc_virtio_core *core;
    struct sdc_timer timer;
    _Alignas(64) _Atomic(enum phase) phase;
};

static void check(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "loops: %s\n", what);
        exit(1);
    }
}

// --- the client ---

static void ask(struct client *client, struct slot *slot)
{
    client->random = client->random * UINT64_C(6364136223846793005) + 1442695040888963407;
    uint64_t sector = (client->random >> 33) % client->blocks * (BLOCK / 512);

    memcpy(slot->header + 8, &sector, sizeof sector);
    check(sdc_driver_queue_add(client->queue, slot->segments, 1, 2, slot) == 0, "a ring is full");
}

static void enter(struct client *client, enum phase phase)
{
    if (phase == COUNTING) {
        client->began_ns = sdc_clock_ns();
        client->counted = client->done;
    } else if (phase == OVER) {
        client->took_ns = sdc_clock_ns() - client->began_ns;
        client->counted = client->done - client->counted;
    }
    client->phase = phase;
}

// In each turn: takes what is done, and asks for as much again.
static bool look(struct sdc_poller *poller)
{
    struct client *client = sdc_container(poller, struct client, poller);
    enum phase phase = atomic_load_explicit(&client->bench->phase, memory_order_relaxed);
    struct sdc_driver_used used[DEPTH];

    if (phase != client->phase)
        enter(client, phase);
    int count = sdc_driver_queue_take(client->queue, used, DEPTH);
    check(count >= 0, "a ring is broken");
    client->done += (unsigned)count;
    for (int i = 0; i < count && phase != OVER; i++)
        ask(client, used[i].token);
    if (count > 0 && sdc_driver_queue_publish(client->queue))
        sdc_virtio_core_kick(client->bench->core, (uint16_t)client->index);
    if (phase == OVER && client->queue->in_flight == 0 && !atomic_load_explicit(&client->idle, memory_order_relaxed)) {
        sdc_poller_stop(poller);
        atomic_store(&client->idle, true);
    }
    return count > 0;
}

static void nothing(struct sdc_poller *poller)
{
    (void)poller;
}

static const struct sdc_poller_ops client_ops = {.look = look, .suppress = nothing, .rearm = nothing};

static void begin(struct sdc_post *post)
{
    struct client *client = sdc_container(post, struct client, post);

    for (unsigned i = 0; i < DEPTH; i++)
        ask(client, &client->slots[i]);
    sdc_driver_queue_publish(client->queue);
    sdc_virtio_core_kick(client->bench->core, (uint16_t)client->index);
    sdc_poller_start(client->loop, &client->poller, SDC_POLL_ALWAYS, 0);
}

static void make_slots(struct client *client)
{
    for (unsigned i = 0; i < DEPTH; i++) {
        uint64_t iova;
        struct slot *slot = &client->slots[i];
        slot->header = sdc_client_memory_take(&client->memory, SLOT, 64, &iova);
        check(slot->header, "there is no memory for requests");
        memset(slot->header, 0, SLOT); // VIRTIO_BLK_T_IN (virtio 1.2, 5.2.6)
        slot->segments[0] = (struct sdc_driver_segment){.iova = iova, .size = HEADER};
        slot->segments[1] = (struct sdc_driver_segment){.iova = iova + 64, .size = BLOCK};
        slot->segments[2] = (struct sdc_driver_segment){.iova = iova + HEADER, .size = 1};
    }
}

static void make_client(struct bench *bench, unsigned index, uint64_t features, struct sdc_region_table *table)
{
    struct client *client = &bench->clients[index];
    struct sdc_driver_queue_config config = {.index = (uint16_t)index, .size = ENTRIES, .features = features};
    struct sdc_error err = {0};

    client->bench = bench;
    client->index = index;
    client->random = index + 1;
    client->poller.ops = &client_ops;
    client->post.run = begin;
    uint64_t iova = (uint64_t)(index + 1) << 32, bytes = sdc_driver_queue_memory(&config) + DEPTH * (SLOT + 64) + 4096;
    check(sdc_client_memory_new(&client->memory, iova, bytes, &err) == 0, err.text);
    check(sdc_driver_queue_new(&config, &client->memory, &client->queue, &err) == 0, err.text);
    make_slots(client);
    struct sdc_region region = {.iova = client->memory.iova, .size = client->memory.size, .host = client->memory.base,
                                .access = SDC_ACCESS_READ | SDC_ACCESS_WRITE};
    check(sdc_region_table_add(table, &region) == 0, "a region is refused");
    check(sdc_loop_new(SDC_LOOP_AUTO, &client->loop, &err) == 0, err.text);
}

// --- the device ---

static void interrupt(void *context, uint16_t queue)
{
    (void)context, (void)queue; // the client looks
}

static void unheard(void *context)
{
    (void)context;
}

static const struct sdc_virtio_core_ops core_ops = {.interrupt = interrupt, .config_interrupt = unheard, .ready = unheard};

static void make_device(struct bench *bench, const char *backend, uint64_t features)
{
    struct sdc_virtio_blk_options options = {.queues = (uint16_t)bench->count, .queue_size = ENTRIES};
    struct sdc_loop *loops[MOST];
    struct sdc_virtio_device *device;
    struct sdc_block *block;
    struct sdc_block_info info;
    struct sdc_error err = {0};

    check(sdc_block_open(backend, &(struct sdc_block_open_options){0}, &block, &err) == 0, err.text);
    block->ops->info(block, &info);
    for (unsigned i = 0; i < bench->count; i++) {
        bench->clients[i].blocks = info.size / BLOCK;
        loops[i] = bench->clients[i].loop;
    }
    check(sdc_virtio_blk_new(block, &options, &device, &err) == 0, err.text);
    check(sdc_virtio_core_new(device, loops, bench->count, &core_ops, bench, &bench->core, &err) == 0, err.text);
    sdc_virtio_core_poll(bench->core, SDC_POLL_ALWAYS, 0);
    sdc_virtio_core_set_status(bench->core, SDC_VIRTIO_S_ACKNOWLEDGE | SDC_VIRTIO_S_DRIVER);
    sdc_virtio_core_accept(bench->core, features);
    sdc_virtio_core_set_status(bench->core, SDC_VIRTIO_S_FEATURES_OK);
}

static void start_queues(struct bench *bench, struct sdc_map *map)
{
    sdc_virtio_core_set_map(bench->core, map);
    sdc_map_unref(map);
    for (unsigned i = 0; i < bench->count; i++) {
        const struct sdc_driver_queue *queue = bench->clients[i].queue;
        sdc_virtio_core_enable(bench->core, (uint16_t)i,
                               &(struct sdc_ring_config){.size = ENTRIES, .features = queue->config.features, .desc = queue->desc,
                                                         .driver = queue->driver, .device = queue->device});
    }
    sdc_virtio_core_set_status(bench->core, SDC_VIRTIO_S_DRIVER_OK);
}

// --- the run ---

static void sit_on(unsigned processor)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0) {
        fprintf(stderr, "loops: there is no processor %u for a loop\n", processor);
        exit(SKIPPED);
    }
}

static void *run(void *context)
{
    struct client *client = context;

    sit_on(client->index);
    sdc_loop_run(client->loop);
    return NULL;
}

// On the first loop: one phase after the other; then lets the queues end, and the loops.
static void next(struct sdc_timer *timer)
{
    struct bench *bench = sdc_container(timer, struct bench, timer);
    enum phase phase = atomic_load(&bench->phase);
    bool ended = phase == OVER;
    uint64_t after = MILLISECOND;

    for (unsigned i = 0; i < bench->count; i++)
        ended = ended && atomic_load(&bench->clients[i].idle);
    if (phase != OVER) {
        atomic_store(&bench->phase, phase + 1);
        after = phase == WARMING ? bench->ns : after;
    } else if (ended && bench->core->status != 0) {
        sdc_virtio_core_reset(bench->core);
        sdc_virtio_core_set_map(bench->core, NULL);
    } else if (ended && !sdc_virtio_core_busy(bench->core)) {
        for (unsigned i = 0; i < bench->count; i++)
            sdc_loop_stop(bench->clients[i].loop);
        return;
    }
    check(sdc_loop_timer_set(bench->clients[0].loop, timer, after) == 0, "a timer is refused");
}

static void measure(struct bench *bench)
{
    bench->timer.expired = next;
    check(sdc_loop_timer_set(bench->clients[0].loop, &bench->timer, 100 * MILLISECOND) == 0, "a timer is refused");
    for (unsigned i = 0; i < bench->count; i++)
        sdc_loop_post(bench->clients[i].loop, &bench->clients[i].post);
    for (unsigned i = 1; i < bench->count; i++)
        check(pthread_create(&bench->clients[i].thread, NULL, run, &bench->clients[i]) == 0, "a thread is refused");
    run(&bench->clients[0]);
    for (unsigned i = 1; i < bench->count; i++)
        pthread_join(bench->clients[i].thread, NULL);
}

int main(int argc, char **argv)
{
    static struct bench bench;
    struct sdc_region_table table = {0};
    bool packed = argc == 5 && strcmp(argv[4], "packed") == 0;
    uint64_t features = SDC_VIRTIO_F_VERSION_1 | (packed ? SDC_VIRTIO_F_RING_PACKED : 0), requests = 0;
    double each_second = 0;

    bench.count = argc >= 4 ? (unsigned)strtoul(argv[1], NULL, 10) : 0;
    bench.ns = argc >= 4 ? (uint64_t)(strtod(argv[2], NULL) * 1e9) : 0;
    if (bench.count == 0 || bench.count > MOST || bench.ns == 0) {
        fprintf(stderr, "usage: %s LOOPS SECONDS BACKEND [split|packed]\n", argv[0]);
        return 2;
    }
    sit_on(bench.count - 1);
    for (unsigned i = 0; i < bench.count; i++)
        make_client(&bench, i, features, &table);
    make_device(&bench, argv[3], features);
    start_queues(&bench, sdc_region_table_publish(&table, sdc_map_free, NULL));
    sdc_region_table_clear(&table);
    measure(&bench);
    sdc_virtio_core_free(bench.core);
    for (unsigned i = 0; i < bench.count; i++) {
        struct client *client = &bench.clients[i];
        requests += client->counted;
        each_second += (double)client->counted * 1e9 / (double)client->took_ns;
        sdc_driver_queue_free(client->queue);
        sdc_loop_free(client->loop);
        sdc_client_memory_free(&client->memory);
    }
    printf("%.0f %" PRIu64 "\n", each_second, requests);
    return 0;
}
