// SPDX-License-Identifier: BSD-3-Clause
// A virtqueue, the driver's half: makes chains of buffers available, takes back those that the device has
// used, and negotiates who notifies whom. One thread at a time. Split and packed rings are a struct of ops
// each; the negotiated features say which one it is.
//
// The device is not trusted: it names chains by numbers that are checked against what is in flight. A queue
// whose device has broken the rules is broken for good (-EPROTO), and `broken` says how.
#pragma once

#include <sidecard/client.h>

#include <stdbool.h>
#include <stdint.h>

struct sdc_driver_queue;

struct sdc_driver_queue_config {
    uint16_t index;
    uint16_t size;         // entries; in a split ring a power of two
    uint64_t features;     // as negotiated; VIRTIO_F_RING_PACKED: a packed ring
    uint16_t indirect_max; // segments of a chain that are put into a table of their own; 0: never
};

// A piece of memory for the device.
struct sdc_driver_segment {
    uint64_t iova;
    uint32_t size; // bytes
};

// A chain that the device has used.
struct sdc_driver_used {
    void *token;      // that it was added with
    uint32_t written; // bytes that the device says it wrote
};

struct sdc_driver_queue_ops {
    int (*add)(struct sdc_driver_queue *queue, const struct sdc_driver_segment *segments, unsigned readable,
               unsigned writable, void *token);
    bool (*publish)(struct sdc_driver_queue *queue);
    int (*take)(struct sdc_driver_queue *queue, struct sdc_driver_used *used, unsigned max);
    bool (*arm)(struct sdc_driver_queue *queue);
    void (*disarm)(struct sdc_driver_queue *queue);
    uint16_t (*position)(struct sdc_driver_queue *queue);
    void (*restart)(struct sdc_driver_queue *queue);
    void (*free)(struct sdc_driver_queue *queue);
};

struct sdc_driver_queue {
    const struct sdc_driver_queue_ops *ops;
    struct sdc_driver_queue_config config;
    uint64_t desc; // iovas of its three parts (virtio 1.2, 2.6)
    uint64_t driver;
    uint64_t device;
    // A slot for each chain, by its id: SDC_DRIVER_SIDE bytes of the caller's, then its indirect table.
    uint8_t *slots;
    uint64_t slots_iova;
    uint32_t slot_bytes;
    uint16_t next_id;   // of the chain that is added next
    uint32_t in_flight; // chains that were added and not taken back
    const char *broken; // what the device did wrong, or NULL
};

enum { SDC_DRIVER_SIDE = 16 };

// Bytes of memory that a queue takes.
uint64_t sdc_driver_queue_memory(const struct sdc_driver_queue_config *config);
// A queue in memory taken from `memory`. -EINVAL, -ENOMEM (there is too little of it), with *err filled.
int sdc_driver_queue_new(const struct sdc_driver_queue_config *config, struct sdc_client_memory *memory,
                         struct sdc_driver_queue **queue, struct sdc_error *err);
// The device does not use it any more. NULL is fine.
void sdc_driver_queue_free(struct sdc_driver_queue *queue);

// Memory of SDC_DRIVER_SIDE bytes for the next chain that is added, its own until it is taken back: before its indirect table, on the
// same cache line, so that a header which stands there comes to the device with the table. The queue is not full.
static inline uint8_t *sdc_driver_queue_side(const struct sdc_driver_queue *queue, uint64_t *iova)
{
    size_t offset = (size_t)queue->next_id * queue->slot_bytes;
    *iova = queue->slots_iova + offset;
    return queue->slots + offset;
}

// Adds a chain: `readable` segments that the device reads, then `writable` ones that it writes; at least one.
// The device does not see it before publish. 0, -ENOSPC (ring full: take some back first), -EINVAL (more
// segments than any room would hold).
static inline int sdc_driver_queue_add(struct sdc_driver_queue *queue,
                                       const struct sdc_driver_segment *segments, unsigned readable,
                                       unsigned writable, void *token)
{
    return queue->ops->add(queue, segments, readable, writable, token);
}

// Whether there is no room for a chain of any length.
static inline bool sdc_driver_queue_is_full(const struct sdc_driver_queue *queue)
{
    return queue->in_flight == queue->config.size;
}

// Shows the device all that was added. Whether it wants to be notified of that.
static inline bool sdc_driver_queue_publish(struct sdc_driver_queue *queue)
{
    return queue->ops->publish(queue);
}

// What VIRTIO_F_NOTIFICATION_DATA has a notification say: where the next chain will be put, and on which lap (virtio 1.2, 2.9).
static inline uint16_t sdc_driver_queue_position(struct sdc_driver_queue *queue)
{
    return queue->ops->position(queue);
}

// Takes up to max used chains. How many, or -EPROTO: the queue is broken.
static inline int sdc_driver_queue_take(struct sdc_driver_queue *queue, struct sdc_driver_used *used,
                                        unsigned max)
{
    return queue->ops->take(queue, used, max);
}

// Asks for an interrupt when the next chain is used. False: one is there already, take it instead of waiting.
static inline bool sdc_driver_queue_arm(struct sdc_driver_queue *queue)
{
    return queue->ops->arm(queue);
}

// Asks for no interrupts. The device may still send some.
static inline void sdc_driver_queue_disarm(struct sdc_driver_queue *queue)
{
    queue->ops->disarm(queue);
}

// Makes the queue what it was when it was new, in the same memory: nothing is in flight, no interrupts are
// asked for, and it is not broken. What was in flight is forgotten. The device was reset, or this queue of
// it was.
static inline void sdc_driver_queue_restart(struct sdc_driver_queue *queue)
{
    queue->ops->restart(queue);
}

// --- for the formats ---

// Takes the slots' memory. False: there is too little.
bool sdc_driver_queue_take_slots(struct sdc_driver_queue *queue, struct sdc_client_memory *memory);
uint64_t sdc_driver_queue_slots_size(const struct sdc_driver_queue_config *config);
