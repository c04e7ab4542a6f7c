// SPDX-License-Identifier: BSD-3-Clause
// A queue in memory that is out of reach. The other side is simulated: it keeps the transfers that the queue starts until it is told to
// answer them, in order or not, well or not, or never. The device under it ends requests at once, or holds them.
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core_fixture.h"
#include "transport/common/remote.h"

#include <errno.h>
#include <string.h>

enum {
    SENT = 0x4000, // what the driver sends, 16 bytes
    ROOM = 0x6000, // what it wants filled, 64 bytes
    SIZE_SENT = 16,
    SIZE_ROOM = 64,
    LOST = 0xee,
    MOST = 64,
};

// --- the other side ---

static struct core_fixture f;

static struct {
    struct sdc_remote base;
    bool partial; // maps have what they have for the asking: no bytes move
    struct sdc_transfer *waiting[MOST];
    unsigned count;
} sim;

static inline void sim_begin(struct sdc_remote *remote, struct sdc_transfer *transfer)
{
    (void)remote;
    assert_true(sim.count < MOST);
    sim.waiting[sim.count++] = transfer;
}

// The map with which the queue works: all pages of `remote` are reached by transfers only.
static inline struct sdc_map *map_of(uint32_t pages, uint32_t remote)
{
    struct sdc_map *map = guest_map_of(&f.guest, true, pages, remote, 0);

    map->remote = &sim.base;
    map->partial = sim.partial;
    return map;
}

static inline void use_map(uint32_t pages, uint32_t remote)
{
    struct sdc_map *map = map_of(pages, remote);

    sdc_virtio_core_set_map(f.core, map);
    sdc_map_unref(map);
    run_turns(&f, 6);
}

// Answers the n-th transfer that waits.
static inline void answer(unsigned n, int result)
{
    struct sdc_transfer *transfer = sim.waiting[n];

    assert_true(n < sim.count);
    memmove(&sim.waiting[n], &sim.waiting[n + 1], (--sim.count - n) * sizeof sim.waiting[0]);
    if (sim.partial)
        ;
    else if (result == 0 && transfer->write)
        assert_int_equal(sdc_memory_write(&f.guest.view, transfer->iova, transfer->data, transfer->size), 0);
    else if (result == 0)
        assert_int_equal(sdc_memory_read(&f.guest.view, transfer->iova, transfer->data, transfer->size), 0);
    sdc_transfer_finish(transfer, result);
    run_turns(&f, 8);
}

static inline bool is_at(unsigned n, uint64_t iova, bool write)
{
    return n < sim.count && sim.waiting[n]->iova == iova && sim.waiting[n]->write == write;
}

// Answers everything up to the first that is the one of iova. False: it did not come.
static inline bool answer_up_to(uint64_t iova, bool write)
{
    while (sim.count > 0) {
        if (is_at(0, iova, write))
            return true;
        answer(0, 0);
    }
    return false;
}

static inline void answer_all(void)
{
    while (sim.count > 0)
        answer(0, 0);
}

// --- the device ---

static struct {
    struct sdc_virtio_device device; // first
    struct sdc_virtio_request *held[8];
    unsigned held_count;
    bool hold;
    unsigned taken, faults, losses, stops;
    uint8_t seen; // the first byte that was sent
} dev;

static inline uint64_t dev_features(struct sdc_virtio_device *device)
{
    (void)device;
    return 0;
}

static inline void dev_config_read(struct sdc_virtio_device *device, uint32_t offset, void *local, uint32_t size)
{
    (void)device, (void)offset;
    memset(local, 0, size);
}

static inline int dev_queue_start(struct sdc_virtio_device *device, struct sdc_virtqueue *queue)
{
    (void)device, (void)queue;
    return 0;
}

static inline void dev_queue_stop(struct sdc_virtio_device *device, struct sdc_virtqueue *queue)
{
    (void)device, (void)queue;
    assert_int_equal(dev.held_count, 0);
    dev.stops++;
}

// Fills the room with the byte after the one that was sent.
static inline void finish(struct sdc_virtio_request *request)
{
    uint8_t bytes[SIZE_ROOM];

    if (request->fault) {
        dev.faults++;
        sdc_virtqueue_give(request, 0);
        return;
    }
    assert_int_equal(sdc_virtio_request_read(request, 0, &dev.seen, 1), 0);
    memset(bytes, dev.seen + 1, sizeof bytes);
    assert_int_equal(sdc_virtio_request_write(request, 0, bytes, sizeof bytes), 0);
    sdc_virtqueue_give(request, sizeof bytes);
}

static inline void dev_queue_work(struct sdc_virtio_device *device, struct sdc_virtqueue *queue)
{
    struct sdc_virtio_request *request;

    (void)device;
    while (sdc_virtqueue_take(queue, &request, 1) > 0) {
        dev.taken++;
        if (dev.hold)
            dev.held[dev.held_count++] = request;
        else
            finish(request);
    }
}

static inline void give_held(void)
{
    for (unsigned i = 0; i < dev.held_count; i++)
        finish(dev.held[i]);
    dev.held_count = 0;
    run_turns(&f, 6);
}

static inline uint32_t dev_queue_lost(struct sdc_virtio_device *device, struct sdc_virtio_request *request)
{
    uint8_t byte = LOST;

    (void)device;
    dev.losses++;
    assert_int_equal(sdc_virtio_request_write(request, 0, &byte, 1), 0);
    return 1;
}

static inline void dev_destroy(struct sdc_virtio_device *device)
{
    (void)device;
}

static const struct sdc_virtio_ops dev_ops = {
    .name = "test", .device_id = 42, .request_size = 8, .features = dev_features, .config_read = dev_config_read,
    .queue_start = dev_queue_start, .queue_stop = dev_queue_stop, .queue_work = dev_queue_work, .queue_lost = dev_queue_lost,
    .destroy = dev_destroy,
};

enum { EVERYTHING = 0xffff, DATA_ONLY = 0xfff0 }; // what is remote

static inline void open_queue_with(uint32_t remote, uint64_t features)
{
    memset(&dev, 0, sizeof dev);
    memset(&f, 0, sizeof f);
    memset(&sim, 0, sizeof sim);
    dev.device = (struct sdc_virtio_device){.ops = &dev_ops, .queues_count = 1, .queue_size_max = CORE_SIZE};
    assert_int_equal(sdc_loop_new(SDC_LOOP_AUTO, &f.loop, NULL), 0);
    core_open(&f, &dev.device, true);
    sim.base = (struct sdc_remote){.home = f.loop, .begin = sim_begin};
    use_map(EVERYTHING, remote);
    driver_start(&f, features);
    run_turns(&f, 4);
    answer_all(); // the index: nothing is there
}

static inline void open_queue(uint32_t remote)
{
    open_queue_with(remote, 0);
}

static inline void close_queue(void)
{
    sdc_virtio_core_reset(f.core);
    run_turns(&f, 6);
    while (sim.count > 0)
        answer(0, -ECANCELED);
    core_close(&f);
}

static inline void offer(uint8_t byte)
{
    static const struct part parts[] = {{SENT, SIZE_SENT, false}, {ROOM, SIZE_ROOM, true}};

    guest_put(&f.guest, SENT, byte, 1);
    guest_put(&f.guest, ROOM, 0, 1);
    driver_offer(&f, parts, 2);
}

static inline bool is_broken(void)
{
    return f.core->status & SDC_VIRTIO_S_NEEDS_RESET;
}

static inline void assert_done(uint16_t used, uint8_t byte)
{
    assert_int_equal(driver_used(&f), used);
    assert_int_equal(guest_get(&f.guest, ROOM, 1), byte);
    assert_int_equal(guest_get(&f.guest, ROOM + SIZE_ROOM - 1, 1), byte);
    assert_false(is_broken());
}
