// SPDX-License-Identifier: BSD-3-Clause
// A device for tests of what every virtio device has in common: it holds its requests until it is told to give them back.
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core_fixture.h"

#include <string.h>

enum { HELD = 64 };

#define F_GOOD (UINT64_C(1) << 3) // the device's own features: one that it takes, one that it refuses
#define F_BAD (UINT64_C(1) << 4)

static struct {
    struct sdc_virtio_device device; // first
    struct sdc_virtio_request *held[HELD];
    unsigned held_count;
    bool hold;
    bool endless;        // the driver makes a chain available for each that it gets back, while the turn still lasts
    unsigned most_a_turn; // requests that one call of queue_work got
    int start_rc;
    unsigned starts, stops, resets, cancels, taken, works;
} dev;

static struct core_fixture f;

static inline void offer(unsigned count)
{
    static const struct part one_byte[] = {{0x4000, 1, true}};

    for (unsigned i = 0; i < count; i++)
        driver_offer(&f, one_byte, 1);
}

static inline uint64_t dev_features(struct sdc_virtio_device *device)
{
    (void)device;
    return F_GOOD | F_BAD;
}

static inline bool dev_accept(struct sdc_virtio_device *device, uint64_t features)
{
    (void)device;
    return !(features & F_BAD);
}

static inline void dev_config_read(struct sdc_virtio_device *device, uint32_t offset, void *local, uint32_t size)
{
    (void)device, (void)offset;
    memset(local, 0, size);
}

static inline int dev_queue_start(struct sdc_virtio_device *device, struct sdc_virtqueue *queue)
{
    (void)device, (void)queue;
    dev.starts++;
    return dev.start_rc;
}

static inline void dev_queue_stop(struct sdc_virtio_device *device, struct sdc_virtqueue *queue)
{
    (void)device, (void)queue;
    assert_int_equal(dev.held_count, 0);
    dev.stops++;
}

static inline void dev_queue_cancel(struct sdc_virtio_device *device, struct sdc_virtqueue *queue)
{
    (void)device, (void)queue;
    dev.cancels++;
}

static inline void dev_queue_work(struct sdc_virtio_device *device, struct sdc_virtqueue *queue)
{
    struct sdc_virtio_request *requests[8];
    unsigned count, before = dev.taken;

    (void)device;
    dev.works++;
    while ((count = sdc_virtqueue_take(queue, requests, 8)) > 0) {
        dev.taken += count;
        dev.most_a_turn = dev.taken - before > dev.most_a_turn ? dev.taken - before : dev.most_a_turn;
        if (dev.endless)
            offer(count);
        for (unsigned i = 0; i < count; i++) {
            if (dev.hold)
                dev.held[dev.held_count++] = requests[i];
            else
                sdc_virtqueue_give(requests[i], 1);
        }
    }
}

static inline void dev_reset(struct sdc_virtio_device *device)
{
    (void)device;
    dev.resets++;
}

static inline void dev_destroy(struct sdc_virtio_device *device)
{
    (void)device;
}

static const struct sdc_virtio_ops dev_ops = {
    .name = "test", .device_id = 42, .request_size = 24, .features = dev_features, .accept = dev_accept,
    .config_read = dev_config_read, .queue_start = dev_queue_start, .queue_stop = dev_queue_stop,
    .queue_cancel = dev_queue_cancel, .queue_work = dev_queue_work, .reset = dev_reset, .destroy = dev_destroy,
};

static inline void open_core(uint16_t queues, bool jumbled)
{
    memset(&dev, 0, sizeof dev);
    memset(&f, 0, sizeof f);
    dev.device = (struct sdc_virtio_device){.ops = &dev_ops, .queues_count = queues, .queue_size_max = CORE_SIZE};
    assert_int_equal(sdc_loop_new(SDC_LOOP_AUTO, &f.loop, NULL), 0);
    core_open(&f, &dev.device, jumbled);
}

static inline void give_held(void)
{
    for (unsigned i = 0; i < dev.held_count; i++)
        sdc_virtqueue_give(dev.held[i], 1);
    dev.held_count = 0;
}

static unsigned maps_released;

static inline void count_released(struct sdc_map *map)
{
    maps_released++;
    sdc_map_free(map);
}

// A map of all memory, or of all but one page, that counts when it goes. The reference is the core's only.
static inline void show_map(unsigned missing)
{
    struct sdc_map *map = guest_map(&f.guest, true, missing ? ~(1U << missing) : UINT32_MAX);

    map->released = count_released;
    sdc_virtio_core_set_map(f.core, map);
    sdc_map_unref(map);
}
