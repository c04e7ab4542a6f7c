// SPDX-License-Identifier: BSD-3-Clause
// Both halves of a virtqueue, the driver's and the device's, in one process, split and packed, with and without event indices,
// indirect tables and order.
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "driver/virtqueue.h"
#include "driver_memory.h"
#include "ring/ring.h"

#include <sidecard/virtio.h>

#define PAIR_IOVA UINT64_C(0x7000)

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

static inline void open_pair(struct pair *pair, uint16_t size, uint64_t features, uint16_t indirect_max)
{
    struct sdc_driver_queue_config config = {.size = size,
                                             .features = features,
                                             .indirect_max = indirect_max};
    uint64_t bytes = sdc_driver_queue_memory(&config) + 65536;
    assert_int_equal(sdc_client_memory_new(&pair->memory, PAIR_IOVA, bytes, NULL), 0);
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
    assert_int_equal(sdc_ring_start(&pair->ring, &device, &(struct sdc_memory){.map = pair->map}, NULL), 0);
    sdc_chain_init(&pair->chain);
}

static inline void close_pair(struct pair *pair)
{
    sdc_chain_destroy(&pair->chain);
    sdc_ring_stop(&pair->ring);
    sdc_map_unref(pair->map);
    sdc_driver_queue_free(pair->driver);
    sdc_client_memory_free(&pair->memory);
}

// Each test is run with rings of both formats; this is its state.
static uint64_t formats[] = {0, SDC_VIRTIO_F_RING_PACKED};

// Sets of features: any of the first three.
enum { EVENTS = 1, TABLES = 2, ORDER = 4, PLAIN = 0, SETS = 8 };

static inline uint64_t features_of(void **state, unsigned set)
{
    return *(uint64_t *)*state | SDC_VIRTIO_F_VERSION_1 | (set & EVENTS ? SDC_VIRTIO_F_EVENT_IDX : 0) |
           (set & TABLES ? SDC_VIRTIO_F_INDIRECT_DESC : 0) | (set & ORDER ? SDC_VIRTIO_F_IN_ORDER : 0);
}

static inline bool is_packed(void **state)
{
    return *(uint64_t *)*state != 0;
}

// --- chains ---

// One chain of `readable` and `writable` segments: the device reads "a", "b", ... and writes as many bytes
// back.
static inline void send_one(struct pair *pair, unsigned readable, unsigned writable)
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
    assert_int_equal(pair->chain.payload.readable_size, readable);
    assert_int_equal(pair->chain.payload.writable_size, writable);
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

static inline void add_one(struct pair *pair)
{
    struct sdc_driver_segment segment = {.iova = pair->data_iova, .size = 1};
    assert_int_equal(sdc_driver_queue_add(pair->driver, &segment, 1, 0, pair), 0);
}

static inline void take_and_give(struct pair *pair)
{
    assert_int_equal(sdc_ring_take(&pair->ring, &pair->chain), 1);
    sdc_ring_give(&pair->ring, &pair->chain, 0);
}

static inline void take_back(struct pair *pair, unsigned count)
{
    struct sdc_driver_used used[16];
    assert_int_equal(sdc_driver_queue_take(pair->driver, used, 16), count);
}

// --- tests that are run with rings of both formats ---

#define SPLIT(test) {#test " (split)", test, NULL, NULL, &formats[0]}
#define PACKED(test) {#test " (packed)", test, NULL, NULL, &formats[1]}
#define BOTH(test) SPLIT(test), PACKED(test)
