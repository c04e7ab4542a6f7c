// SPDX-License-Identifier: BSD-3-Clause
// What a virtio device needs whatever transport it is under: status, features, the life of its queues on their loops,
// guest memory. A transport (virtio PCI, later MMIO, vhost-user, VDUSE) translates its registers or messages into these calls, all on
// the home loop. Calls that start something return at once; while sdc_virtio_core_busy, none of them may be made.
#pragma once

#include "transport/common/virtqueue.h"

struct sdc_virtio_core_ops {
    uint64_t features; // that are the transport's own to offer
    void (*interrupt)(void *context, uint16_t queue); // the queue's loop
    // Home loop: the configuration has changed, or the device needs a reset. The driver is to hear of it, if it is there.
    void (*config_interrupt)(void *context);
    void (*ready)(void *context);                     // home loop: not busy any more
};

struct sdc_virtio_core {
    struct sdc_virtio_device *device;
    const struct sdc_virtio_core_ops *ops;
    void *context;
    struct sdc_loop *home;
    struct sdc_virtqueue *queues; // device->queues_count
    struct sdc_map *map;          // a reference
    uint64_t features;            // accepted; fixed by FEATURES_OK
    uint8_t status;
    uint8_t config_generation;
    bool resetting;
    // Orders that queues have not obeyed yet; zero: the core may be called again.
    uint32_t pending;
    struct queue_state *states; // what the home loop knows of each queue
};

// Takes over device. loops[0] is the home loop; queue i lives on loops[i % loops_count].
int sdc_virtio_core_new(struct sdc_virtio_device *device, struct sdc_loop *const *loops, unsigned loops_count,
                        const struct sdc_virtio_core_ops *ops, void *context, struct sdc_virtio_core **core,
                        struct sdc_error *err);
// Ends a device, whose core is not used any more, if it has one.
void sdc_virtio_destroy(struct sdc_virtio_device *device);
// Not busy, and reset. Frees the device too.
void sdc_virtio_core_free(struct sdc_virtio_core *core);

// Before any client: how the queues wait for requests, and the longest window of adaptive ones. Without it they never poll.
void sdc_virtio_core_poll(struct sdc_virtio_core *core, enum sdc_poll_mode mode, uint64_t max_ns);

bool sdc_virtio_core_busy(const struct sdc_virtio_core *core);
// What the device and the rings offer.
uint64_t sdc_virtio_core_offered(const struct sdc_virtio_core *core);
// The driver writes its features (only counts before FEATURES_OK).
void sdc_virtio_core_accept(struct sdc_virtio_core *core, uint64_t features);
// The driver writes the status; 0 resets. Reading is core->status.
void sdc_virtio_core_set_status(struct sdc_virtio_core *core, uint8_t status);
// The driver has set a queue up. It starts with DRIVER_OK, or now if that is past. Ignored for a queue that was enabled before.
void sdc_virtio_core_enable(struct sdc_virtio_core *core, uint16_t queue, const struct sdc_ring_config *config);
bool sdc_virtio_core_enabled(const struct sdc_virtio_core *core, uint16_t queue);
// VIRTIO_F_RING_RESET: the queue alone ends (virtio 1.2, 2.6.1); it may be set up and enabled again when it is not resetting any more.
void sdc_virtio_core_reset_queue(struct sdc_virtio_core *core, uint16_t queue);
// The same where it is the transport that ends queues (vhost-user), and the driver stays: what nothing was done of stays in flight in the
// queue's log, if it keeps one. Where the ring stood is in core->queues[queue] then, and how much was left.
void sdc_virtio_core_stop_queue(struct sdc_virtio_core *core, uint16_t queue);
// No queue runs: those that broke may be started again.
void sdc_virtio_core_forgive(struct sdc_virtio_core *core);
bool sdc_virtio_core_queue_resetting(const struct sdc_virtio_core *core, uint16_t queue);
void sdc_virtio_core_kick(struct sdc_virtio_core *core, uint16_t queue);
// Signals of fd, an eventfd, are kicks of the queue too, from whoever has a copy of it: whenever it is started, and from now on if it is.
// The fd is the core's, which closes the one before when the queue has let go of it. -1: none any more. Resets change nothing. The
// core is busy until the queue has taken it; others may be given theirs meanwhile.
void sdc_virtio_core_set_kick_fd(struct sdc_virtio_core *core, uint16_t queue, int fd);
// Likewise: nobody notifies the queue, which is polled whatever its mode, until there is a kick fd again, or none (-1).
void sdc_virtio_core_set_unkicked(struct sdc_virtio_core *core, uint16_t queue);
// -1: none.
int sdc_virtio_core_kick_fd(const struct sdc_virtio_core *core, uint16_t queue);
// Ends all queues, forgets what the driver set.
void sdc_virtio_core_reset(struct sdc_virtio_core *core);
// The same when the driver stays, and somebody else goes on with its queues: what has not ended in those that keep a log stays in flight
// there, and the driver hears of no failure.
void sdc_virtio_core_leave(struct sdc_virtio_core *core);
// Guest memory is `map` from now on; takes a reference of its own. While an earlier call is all that the core is busy with, it may be
// called once more, with a map in which everything is where it was before that: then the core waits for nothing that the earlier one
// waited for.
void sdc_virtio_core_set_map(struct sdc_virtio_core *core, struct sdc_map *map);

// --- the state record: what the home loop remembers of the queues, and going on with it ---

struct sdc_virtio_queue_state {
    bool enabled;
    uint64_t starts; // of the queue, so far
};

// Before any queue is started: queue i writes into bytes [i * each, (i + 1) * each) of memory, which outlasts the core. each is at least
// sdc_virtqueue_record_bytes of the largest size. Unless the core goes on with it, what stands there is forgotten.
void sdc_virtio_core_keep(struct sdc_virtio_core *core, void *memory, uint64_t each, bool goes_on);
void sdc_virtio_core_queue_state(const struct sdc_virtio_core *core, uint16_t queue, struct sdc_virtio_queue_state *state);
// Takes over what another process's core had: after a reset, with guest memory set, not busy. -EINVAL with err filled: no core can have
// been so; reset it.
int sdc_virtio_core_load(struct sdc_virtio_core *core, uint8_t status, uint8_t config_generation, uint64_t features,
                         struct sdc_error *err);
int sdc_virtio_core_load_queue(struct sdc_virtio_core *core, uint16_t queue, const struct sdc_virtio_queue_state *state,
                               const struct sdc_ring_config *config, struct sdc_error *err);
// After the loads: starts the queues that ran, and tells the driver to look at all of them, since whoever was killed may not have.
void sdc_virtio_core_go_on(struct sdc_virtio_core *core);
// The queues take no more; what is in flight is still given. When the core is not busy any more they have ended, and their memory is for
// another process. Nothing may follow.
void sdc_virtio_core_stop_for_good(struct sdc_virtio_core *core);
