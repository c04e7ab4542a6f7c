// SPDX-License-Identifier: BSD-3-Clause
// What both ring formats have in common.
#include "ring/ring.h"

#include "base/check.h"
#include "base/limits.h"

#include <sidecard/virtio.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

static void note_remote(struct sdc_ring *ring)
{
    ring->remote = ring->desc.remote || ring->driver.remote || ring->device.remote;
    ring->told = false;
}

// Makes use of areas that have just been resolved.
static void wake(struct sdc_ring *ring)
{
    ring->awake = true;
    note_remote(ring);
    if (!ring->resuming)
        return;
    ring->resuming = false;
    // Whether the last batch was shown is in the ring itself, and that cannot be looked at from here.
    int rc = ring->remote ? -EPROTO : ring->format->recover(ring);
    if (rc < 0)
        sdc_ring_break(ring, rc == -ENOMEM ? "no memory to recover what was in flight" : "the log of what was in flight makes no sense");
}

int sdc_ring_start(struct sdc_ring *ring, const struct sdc_ring_config *config, const struct sdc_memory *memory,
                   struct sdc_error *err)
{
    bool packed = (config->features & SDC_VIRTIO_F_RING_PACKED) != 0;
    if (config->size == 0 || config->size > SDC_LIMIT_QUEUE_SIZE || (!packed && !sdc_is_power_of_two(config->size)))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_PEER, "queue size %" PRIu32 " is not %s up to %d", config->size,
                             packed ? "a number" : "a power of two", SDC_LIMIT_QUEUE_SIZE);

    if (packed && config->position >= config->size)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_PEER, "a queue of %" PRIu32 " entries cannot go on at %u", config->size,
                             config->position);

    *ring = (struct sdc_ring){
        .format = packed ? &sdc_ring_packed : &sdc_ring_split, .config = *config, .memory = *memory};
    ring->format->start(ring);
    int rc = ring->format->resolve(ring, &ring->memory);
    ring->resuming = config->log && config->resume;
    ring->lacking = rc == -EAGAIN;
    if (rc < 0 && !ring->lacking && !(ring->resuming && rc == -EFAULT))
        return sdc_error_set(err, rc, SDC_FAULT_PEER,
                             "ring areas at %#" PRIx64 ", %#" PRIx64 ", %#" PRIx64 " (%" PRIu32 " entries) are %s",
                             config->desc, config->driver, config->device, config->size,
                             rc == -EINVAL ? "misaligned" : "not in the guest's memory");
    // The driver of a packed ring chooses the ids as it likes.
    ring->taken = calloc(packed ? (UINT16_MAX + 1) / 64 : (config->size + 63) / 64, sizeof *ring->taken);
    if (!ring->taken)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a queue of %" PRIu32 " entries", config->size);
    if (config->log && !config->resume)
        sdc_inflight_start(config->log, ring->used_next, !config->wrapped);
    if (rc == 0)
        wake(ring);
    return 0;
}

void sdc_ring_stop(struct sdc_ring *ring)
{
    free(ring->taken);
    *ring = (struct sdc_ring){0};
}

bool sdc_ring_stays(const struct sdc_ring *ring, const struct sdc_map *map)
{
    struct sdc_ring moved = *ring;
    struct sdc_memory memory = ring->memory;

    sdc_memory_turn(&memory, map);
    return ring->awake && ring->format->resolve(&moved, &memory) == 0 && moved.desc.host == ring->desc.host &&
           moved.driver.host == ring->driver.host && moved.device.host == ring->device.host;
}

void sdc_ring_remap(struct sdc_ring *ring, const struct sdc_memory *memory)
{
    bool told = !ring->remote; // when to notify, for as long as the ring was not remote

    ring->memory = *memory;
    ring->awake = false;
    int rc = ring->format->resolve(ring, &ring->memory);
    ring->lacking = rc == -EAGAIN;
    if (rc == 0)
        wake(ring);
    if (ring->remote && ring->awake && told)
        ring->format->rearm(ring);
}

int sdc_ring_take(struct sdc_ring *ring, struct sdc_chain *chain)
{
    if (ring->broken)
        return -EPROTO;
    return ring->awake ? ring->format->take(ring, chain) : 0;
}

void sdc_ring_give(struct sdc_ring *ring, const struct sdc_chain *chain, uint32_t written)
{
    ring->in_flight--;
    if (ring->awake && !ring->broken)
        ring->format->give(ring, chain, written);
}

void sdc_ring_leave(struct sdc_ring *ring)
{
    ring->in_flight--;
}

bool sdc_ring_publish(struct sdc_ring *ring)
{
    return ring->awake && !ring->broken && ring->format->publish(ring);
}

bool sdc_ring_look(struct sdc_ring *ring)
{
    return ring->awake && !ring->remote && !ring->broken && (sdc_ring_has_again(ring) || ring->format->look(ring));
}

void sdc_ring_suppress(struct sdc_ring *ring)
{
    if (ring->awake && !ring->suppressed && !ring->remote)
        ring->format->suppress(ring);
    ring->suppressed = true;
}

// The driver of a remote ring was never told not to notify. With event indices in a split ring it notifies when it passes the one that
// we wrote last: after that is moved the ring has to be looked at once more.
static bool rearm_remote(struct sdc_ring *ring)
{
    if (ring->format != &sdc_ring_split || !sdc_ring_has(ring, SDC_VIRTIO_F_EVENT_IDX))
        return false;
    if (ring->told && ring->told_at == ring->avail_next)
        return false;
    ring->told = true;
    ring->told_at = ring->avail_next;
    ring->format->rearm(ring);
    return true;
}

bool sdc_ring_rearm(struct sdc_ring *ring)
{
    ring->suppressed = false;
    if (ring->remote)
        return ring->awake && !ring->broken && rearm_remote(ring);
    return ring->awake && !ring->broken && ring->format->rearm(ring);
}
