// SPDX-License-Identifier: BSD-3-Clause
// A virtio device under its core, in one thread: a loop whose turns are counted, guest memory, and a driver of one split ring.
#pragma once

#include "loop_turns.h"
#include "ring_fixture.h"
#include "transport/common/virtio_core.h"

#include <stdbool.h>

enum {
    CORE_DESC = 0x0000, // where the driver has its ring
    CORE_DRIVER = 0x1000,
    CORE_DEVICE = 0x2000,
    CORE_SIZE = 32, // entries
};

struct core_fixture {
    struct sdc_loop *loop;
    struct sdc_virtio_core *core;
    struct guest guest;
    uint16_t avail;             // the driver's index
    uint16_t desc;              // its next descriptor
    unsigned interrupts;        // of queues
    unsigned config_interrupts;
    unsigned ready;
};

static inline void fixture_interrupt(void *context, uint16_t queue)
{
    (void)queue;
    ((struct core_fixture *)context)->interrupts++;
}

static inline void fixture_config_interrupt(void *context)
{
    ((struct core_fixture *)context)->config_interrupts++;
}

static inline void fixture_ready(void *context)
{
    ((struct core_fixture *)context)->ready++;
}

static const struct sdc_virtio_core_ops fixture_ops = {
    .interrupt = fixture_interrupt, .config_interrupt = fixture_config_interrupt, .ready = fixture_ready};

static inline void run_turns(struct core_fixture *f, unsigned count)
{
    loop_turns(f->loop, count);
}

// --- life ---

static inline void core_open(struct core_fixture *f, struct sdc_virtio_device *device, bool jumbled)
{
    if (sdc_virtio_core_new(device, &f->loop, 1, &fixture_ops, f, &f->core, NULL) < 0)
        abort();
    guest_open(&f->guest, jumbled);
    sdc_virtio_core_set_map(f->core, f->guest.map);
}

// All but the loop, which another core may be on too.
static inline void core_end(struct core_fixture *f)
{
    sdc_virtio_core_reset(f->core);
    run_turns(f, 4);
    sdc_virtio_core_set_map(f->core, NULL);
    run_turns(f, 4);
    sdc_virtio_core_free(f->core);
    guest_close(&f->guest);
}

static inline void core_close(struct core_fixture *f)
{
    core_end(f);
    sdc_loop_free(f->loop);
}

// --- the driver ---

// Brings the device up with these features beside VERSION_1, queue 0 running.
static inline void driver_start(struct core_fixture *f, uint64_t features)
{
    struct sdc_ring_config config = {.size = CORE_SIZE, .desc = CORE_DESC, .driver = CORE_DRIVER, .device = CORE_DEVICE};

    for (uint64_t at = 0; at < 0x3000; at += 8)
        guest_put(&f->guest, at, 0, 8);
    f->avail = f->desc = 0;
    sdc_virtio_core_set_status(f->core, SDC_VIRTIO_S_ACKNOWLEDGE | SDC_VIRTIO_S_DRIVER);
    sdc_virtio_core_accept(f->core, features | SDC_VIRTIO_F_VERSION_1);
    sdc_virtio_core_set_status(f->core, SDC_VIRTIO_S_FEATURES_OK);
    sdc_virtio_core_enable(f->core, 0, &config);
    sdc_virtio_core_set_status(f->core, SDC_VIRTIO_S_DRIVER_OK);
    run_turns(f, 2);
}

// A buffer of a request.
struct part {
    uint64_t iova;
    uint32_t size;
    bool writable;
};

// Makes a chain available. Its head.
static inline uint16_t driver_offer(struct core_fixture *f, const struct part *parts, unsigned count)
{
    uint16_t head = f->desc % CORE_SIZE;

    for (unsigned i = 0; i < count; i++) {
        uint16_t flags = (uint16_t)((i + 1 < count ? SDC_DESC_F_NEXT : 0) | (parts[i].writable ? SDC_DESC_F_WRITE : 0));
        uint64_t at = CORE_DESC + SDC_DESC_SIZE * (uint64_t)(f->desc % CORE_SIZE);
        f->desc++;
        guest_put_desc(&f->guest, at, parts[i].iova, parts[i].size, flags, f->desc % CORE_SIZE, false);
    }
    guest_put(&f->guest, CORE_DRIVER + 4 + 2 * (uint64_t)(f->avail % CORE_SIZE), head, 2);
    guest_put(&f->guest, CORE_DRIVER + 2, ++f->avail, 2);
    return head;
}

static inline void driver_kick(struct core_fixture *f)
{
    sdc_virtio_core_kick(f->core, 0);
    run_turns(f, 6);
}

static inline uint16_t driver_used(struct core_fixture *f)
{
    return (uint16_t)guest_get(&f->guest, CORE_DEVICE + 2, 2);
}

// The chain that the n-th used element names.
static inline uint32_t driver_used_head(struct core_fixture *f, uint16_t n)
{
    return (uint32_t)guest_get(&f->guest, CORE_DEVICE + 4 + 8 * (uint64_t)(n % CORE_SIZE), 4);
}

// The length that the n-th used element names.
static inline uint32_t driver_used_length(struct core_fixture *f, uint16_t n)
{
    return (uint32_t)guest_get(&f->guest, CORE_DEVICE + 4 + 8 * (uint64_t)(n % CORE_SIZE) + 4, 4);
}
