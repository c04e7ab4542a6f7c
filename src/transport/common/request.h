// SPDX-License-Identifier: BSD-3-Clause
// A request with all that its queue keeps about it: what virtqueue.c and virtqueue_remote.c share.
#pragma once

#include "base/check.h"
#include "base/line.h"
#include "transport/common/virtqueue.h"

#include <stdalign.h>

// A line for each: what its queue looks at when it is taken and given, the chain, its first spans, and the device's beginning.
struct request {
    struct sdc_virtio_request shown;
    struct request *next;    // while it is free; while it is taken, in rings in order: the one that was taken after it
    struct sdc_map_use *use; // NULL: bounced, nothing in it lies in a map
    uint32_t spans;          // that the queue counts for it
    uint32_t written; // what the device said
    bool left;        // in flight, for whoever goes on with the queue
    bool done;        // it waits for those that were taken before it: rings in order only
    alignas(SDC_LINE) struct sdc_chain chain;
    struct sdc_remote_request remote; // bounced
    alignas(SDC_LINE) unsigned char private_memory[]; // the device's
};

static inline struct request *sdc_request_of(struct sdc_virtio_request *shown)
{
    return sdc_container(shown, struct request, shown);
}

// The device may have nothing to do when a queue comes to life or ends.
static inline int sdc_virtqueue_tell_start(struct sdc_virtqueue *queue)
{
    const struct sdc_virtio_ops *ops = queue->device->ops;

    return ops->queue_start ? ops->queue_start(queue->device, queue) : 0;
}

static inline void sdc_virtqueue_tell_stop(struct sdc_virtqueue *queue)
{
    const struct sdc_virtio_ops *ops = queue->device->ops;

    if (ops->queue_stop)
        ops->queue_stop(queue->device, queue);
}

// virtqueue.c
void sdc_virtqueue_schedule(struct sdc_virtqueue *queue);
// Puts it into the used ring, in order if that was negotiated; it is free again then.
void sdc_virtqueue_finish(struct request *request, uint32_t written);

// virtqueue_remote.c. With loop set.
void sdc_virtqueue_init_remote(struct sdc_virtqueue *queue);
// A view of map for the queue's ring, which reaches remote memory if the map has a way there.
struct sdc_memory sdc_virtqueue_view(struct sdc_virtqueue *queue, struct sdc_map *map);
// Fetches what the ring's memory misses, or asks for it.
void sdc_virtqueue_fetch(struct sdc_virtqueue *queue);
// The next request whose bytes have arrived, or NULL.
struct request *sdc_virtqueue_arrived(struct sdc_virtqueue *queue);
// Fills a bounced request. True if it has to wait for messages; it then arrives later.
bool sdc_virtqueue_bounce(struct request *request);
// Brings what the device wrote to the driver, then finishes the request.
void sdc_virtqueue_unbounce(struct request *request, uint32_t written);
// Forgets every transfer: requests that waited for one are finished or dropped.
void sdc_virtqueue_abandon(struct sdc_virtqueue *queue);
