// SPDX-License-Identifier: BSD-3-Clause
// Queues on their loops. A controller has a worker on each loop; completion queue c and all submission queues that complete to it live with
// worker c modulo their number, so that a queue belongs to one thread, and the admin queue is the home loop's. What the home loop
// wants of a worker it orders: it never touches a running queue.
#pragma once

#include "device/nvme/command.h"
#include "device/nvme/nvme.h"
#include "loop/loop.h"
#include "ring/nvme_cq.h"
#include "ring/nvme_sq.h"
#include "transport/common/map_use.h"

struct nvme;
struct nvme_worker;
struct nvme_ns_queue;

enum {
    NVME_IDS = SDC_NVME_QUEUES_MAX + 1,      // with the admin queue's, 0
    NVME_KICK_WORDS = (NVME_IDS + 63) / 64,
};

// What the home loop wants a worker to do. It is the worker's from nvme_order_send until obeyed is called.
struct nvme_order {
    struct sdc_post post;
    struct nvme_worker *worker;
    void (*run)(struct nvme_order *order);    // the worker's loop: does it, and ends, now or later, in nvme_order_obeyed
    void (*obeyed)(struct nvme_order *order); // home loop
    struct sdc_map *map;                      // a reference that the order carries, if it wants one
    int result;                               // 0, a status (> 0) or a negative errno
};
// Home loop. Orders to one worker run in the order in which they were sent.
void nvme_order_send(struct nvme_order *order, struct nvme_worker *worker);
// The worker's loop.
void nvme_order_obeyed(struct nvme_order *order);

enum nvme_queue_state {
    NVME_QUEUE_NONE,
    NVME_QUEUE_CREATING, // an order is under way, for `command`
    NVME_QUEUE_LIVE,
    NVME_QUEUE_DELETING, // likewise
};

struct nvme_cq {
    struct nvme *nvme;
    uint16_t id;
    // Home loop; the worker reads it from the order that creates the queue on.
    struct nvme_worker *worker;
    uint64_t iova;
    uint32_t size;
    bool interrupts;
    uint16_t vector;
    // Home loop.
    _Atomic enum nvme_queue_state state; // intx_level reads it on any thread
    uint32_t users;                      // submission queues that complete to it; zero: it may be deleted
    struct nvme_command *command;        // the admin command that waits for the order
    struct nvme_order order;
    // Shared: what the driver can see, and whether the worker is to be kicked when the driver has taken something.
    _Atomic uint32_t shown;
    atomic_bool starved;
    // The worker's loop.
    bool running;
    struct sdc_nvme_cq ring;
    struct nvme_command *waiting, **waiting_end; // done, and no room for what they have to say
};

struct nvme_sq {
    struct nvme *nvme;
    uint16_t id;
    // Home loop; the worker reads it from the order that creates the queue on.
    struct nvme_worker *worker;
    struct nvme_cq *cq;
    uint64_t iova;
    uint32_t size;
    // Home loop.
    enum nvme_queue_state state;
    struct nvme_command *command;
    struct nvme_order order;
    // The worker's loop.
    bool running;
    bool stopping; // takes no more; `order` is obeyed when nothing is in flight
    struct sdc_nvme_sq ring;
    struct nvme_command *oldest, *newest; // in flight
    uint32_t in_flight; // taken, and not free again
    uint32_t resting;   // of those, idle or waiting for room: no drain waits for them
};

struct nvme_worker {
    struct nvme *nvme;
    struct sdc_loop *loop;
    // Home loop.
    uint32_t queues;               // completion queues that live here, or are about to; zero: it needs no map
    struct nvme_order stop_order;
    struct nvme_order remap_order;
    // Kicks, by queue: set by whoever kicks, taken by the worker before it looks.
    _Atomic uint64_t sq_kicks[NVME_KICK_WORDS];
    _Atomic uint64_t cq_kicks[NVME_KICK_WORDS];
    atomic_bool kicked; // kick_post is on its way
    struct sdc_post kick_post;
    // The worker's loop.
    struct sdc_map_use *use;   // NULL: no queue runs here
    struct sdc_memory memory;  // a view of it, for the handlers
    struct nvme_command *free; // commands
    void **slabs;              // of commands
    uint32_t slabs_count;
    uint64_t sqs[NVME_KICK_WORDS];   // that run here, a bit for each id
    uint64_t cqs[NVME_KICK_WORDS];
    uint64_t look[NVME_KICK_WORDS];  // submission queues that may have something to take
    uint64_t fresh[NVME_KICK_WORDS]; // completion queues that something was posted to since their last interrupt
    struct nvme_ns_queue **namespaces; // by NSID - 1, NVME_NAMESPACES_MAX of them; NULL where there is none, or no I/O queue runs here
    uint32_t io_queues;        // submission queues that run here, but the admin queue; zero: backends are closed
    bool stopping;             // stop_order waits until nothing is in flight
    bool remapping;            // remap_order, likewise
    uint32_t draining;         // orders that wait so
    struct sdc_deferred work;
    struct sdc_deferred flush;
};

// A zeroed worker. -ENOMEM.
int nvme_worker_open(struct nvme_worker *worker, struct nvme *nvme, struct sdc_loop *loop);
void nvme_worker_close(struct nvme_worker *worker);

// Any thread: the driver has filled a submission queue; it has emptied a completion queue.
void nvme_kick_sq(struct nvme_worker *worker, uint16_t id);
void nvme_kick_cq(struct nvme_worker *worker, uint16_t id);

// The worker's loop, directly or by an order. 0, a status, or a negative errno.
// Handlers and queues use map from now on, whose reference it takes over.
int nvme_worker_use(struct nvme_worker *worker, struct sdc_map *map);
int nvme_cq_start(struct nvme_cq *cq);
int nvme_sq_start(struct nvme_sq *sq);

// What orders run.
void nvme_run_create_cq(struct nvme_order *order); // with map
void nvme_run_delete_cq(struct nvme_order *order);
void nvme_run_create_sq(struct nvme_order *order);
void nvme_run_delete_sq(struct nvme_order *order);
void nvme_run_stop(struct nvme_order *order);      // all queues here
void nvme_run_remap(struct nvme_order *order);     // with map
