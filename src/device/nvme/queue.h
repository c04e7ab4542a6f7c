// SPDX-License-Identifier: BSD-3-Clause
// Queues on their loops. A controller has a worker on each loop; completion queue c and all submission queues that complete to it live with
// worker c modulo their number, so that a queue belongs to one thread, and the admin queue is the home loop's. What the home loop
// wants of a worker it orders: it never touches a running queue.
#pragma once

#include "device/nvme/command.h"
#include "device/nvme/logs.h"
#include "device/nvme/nvme.h"
#include "loop/gather.h"
#include "loop/poller.h"
#include "ring/nvme_cq.h"
#include "ring/nvme_log.h"
#include "ring/nvme_sq.h"
#include "transport/common/map_use.h"
#include "transport/common/remote_queue.h"

struct nvme;
struct nvme_worker;
struct nvme_ns_queue;
struct nvme_namespace;

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

// The driver's buffers for doorbells, a page each.
struct nvme_shadow {
    bool given;
    uint64_t doorbells, events;
};

enum nvme_queue_state {
    NVME_QUEUE_NONE,
    NVME_QUEUE_CREATING, // an order is under way, for `command`
    NVME_QUEUE_LIVE,
    NVME_QUEUE_DELETING, // likewise
};

struct nvme_cq {
    struct nvme *nvme;
    uint16_t id;
    uint8_t *log; // ring/nvme_log.h, or NULL: nothing is written down
    bool resumes; // home loop, until the order that creates it has been obeyed: it goes on where the log says
    // Home loop; the worker reads it from the order that creates the queue on.
    struct nvme_worker *worker;
    uint64_t iova;
    uint32_t size;
    bool interrupts;
    uint16_t vector;
    struct nvme_shadow shadow;
    // Home loop.
    _Atomic enum nvme_queue_state state; // intx_level reads it on any thread
    uint32_t users;                      // submission queues that complete to it; zero: it may be deleted
    struct nvme_command *command;        // the admin command that waits for the order
    struct nvme_order order;
    // Shared: what the driver can see, and whether the worker is to be kicked when the driver has taken something.
    _Atomic uint32_t shown;
    atomic_bool starved;
    // The worker's loop.
    struct sdc_nvme_cq ring;
    bool unsettled; // the log may name a slot whose completion is being posted
    bool misled; // its doorbell makes no sense
    struct nvme_command *waiting, **waiting_end; // done, and no room for what they have to say
    struct sdc_remote_queue remote; // of the ring alone
    struct sdc_timer coalescing;    // of its interrupts
    uint32_t untold;                // entries that were posted since the last interrupt
    bool interrupt_due;             // when the driver can see all that was written to the ring
};

// A command that another process took.
struct nvme_again {
    uint64_t position; // plus one
    uint32_t slot;
};

struct nvme_sq {
    struct nvme *nvme;
    uint16_t id;
    uint8_t *log; // likewise, of the same pair
    bool resumes;
    // Home loop; the worker reads it from the order that creates the queue on.
    struct nvme_worker *worker;
    struct nvme_cq *cq;
    uint64_t iova;
    uint32_t size;
    struct nvme_shadow shadow;
    // Home loop.
    enum nvme_queue_state state;
    struct nvme_command *command;
    struct nvme_order order;
    // The worker's loop.
    bool stopping; // takes no more; `order` is obeyed when nothing is in flight
    bool moving;   // its memory, or its completion queue's, goes away or moves: remap_order waits for what is in flight
    struct sdc_nvme_sq ring;
    uint64_t taken;          // commands, since it was made
    uint32_t *slots;         // of the log, that are free
    uint32_t slots_free;
    struct nvme_again *again; // what another process took, oldest first
    uint32_t again_count, again_next;
    struct sdc_poller poller;
    struct sdc_gather gather;
    bool misled; // its doorbell makes no sense
    struct sdc_remote_queue remote;
    struct nvme_command *fetching;        // its handler misses something, and runs again when that is here
    struct nvme_command *oldest, *newest; // in flight
    uint32_t in_flight; // taken, and not free again
    uint32_t spans;     // of those; if they are too many nothing is taken until some have ended
    uint32_t resting;   // of those, idle, waiting for room, or fetching: no drain waits for them
};

struct nvme_worker {
    struct nvme *nvme;
    struct sdc_loop *loop;
    // Home loop.
    uint32_t queues;               // completion queues that live here, or are about to; zero: it needs no map
    struct nvme_order stop_order;
    struct nvme_order remap_order;
    struct nvme_order recall_order; // that one may still wait, and is taken back
    struct nvme_order share_order;
    struct nvme_shadow shadow;     // of share_order
    // A doorbell was found that makes no sense, and the home loop is to hear of it: misled_post is on its way.
    atomic_bool misled;
    struct sdc_post misled_post;
    // Kicks, by queue: set by whoever kicks, taken by the worker before it looks.
    _Atomic uint64_t sq_kicks[NVME_KICK_WORDS];
    _Atomic uint64_t cq_kicks[NVME_KICK_WORDS];
    atomic_bool kicked; // kick_post is on its way
    struct sdc_post kick_post;
    // The worker's loop; anybody reads counters.
    struct nvme_counters counters;
    struct sdc_map_use *use;   // NULL: no queue runs here
    struct sdc_memory memory;  // a view of it, for the handlers
    struct nvme_command *free; // commands
    void **slabs;              // of commands
    uint32_t slabs_count;
    uint64_t sqs[NVME_KICK_WORDS];   // that run here, a bit for each id
    uint64_t cqs[NVME_KICK_WORDS];
    uint64_t look[NVME_KICK_WORDS];  // submission queues that may have something to take
    uint64_t stirred[NVME_KICK_WORDS]; // submission queues that commands of have ended in this turn
    uint64_t fresh[NVME_KICK_WORDS]; // completion queues that something was posted to since their last interrupt
    struct nvme_namespace **known;     // by NSID - 1, NVME_NAMESPACES_MAX of them: all that there are
    struct nvme_ns_queue **namespaces; // by NSID - 1, NVME_NAMESPACES_MAX of them; NULL where there is none, or no I/O queue runs here
    struct nvme_ns_queue *batches; // those that have something to be submitted
    uint32_t io_users;         // who needs the backends, as I/O queues that run here do; zero: they are closed
    bool stopping;             // stop_order waits until nothing is in flight
    bool leaving;              // and what has not ended by then is left to another process
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

// --- the worker's loop, directly or by an order. 0, a status, or a negative errno ---

// Handlers and queues use map from now on, whose reference it takes over.
int nvme_worker_use(struct nvme_worker *worker, struct sdc_map *map);
int nvme_cq_start(struct nvme_cq *cq);
int nvme_sq_start(struct nvme_sq *sq);

// What orders run (worker.c).
void nvme_run_create_cq(struct nvme_order *order); // with map
void nvme_run_delete_cq(struct nvme_order *order);
void nvme_run_create_sq(struct nvme_order *order);
void nvme_run_delete_sq(struct nvme_order *order);
void nvme_run_stop(struct nvme_order *order);      // all queues here
void nvme_run_leave(struct nvme_order *order);     // likewise, and leaves what has not ended to another process
void nvme_run_remap(struct nvme_order *order);     // with map
void nvme_run_recall(struct nvme_order *order);    // with the map in which everything is where it was before the remap; waits for nothing

// --- log.c: the worker's loop; nothing happens without a log ---

// The queue begins, or goes on where the log says (sq->resumes). -ENOMEM.
int nvme_sq_log_open(struct nvme_sq *sq);
void nvme_sq_log_close(struct nvme_sq *sq);
// The same of a completion queue, whose ring has begun.
void nvme_cq_log_start(struct nvme_cq *cq);
// Finds out whether the completion that another process was posting is there. False: its memory is away.
bool nvme_cq_settle(struct nvme_cq *cq);
// Fills in the next command that another process took. False: its completion is posted, there is nothing to do.
bool nvme_log_again(struct nvme_sq *sq, struct nvme_command *command);
// A command was taken; it has ended; its completion is about to be posted, and has been.
void nvme_log_take(struct nvme_command *command);
void nvme_log_end(struct nvme_command *command);
void nvme_log_posting(struct nvme_cq *cq, struct nvme_command *command);
void nvme_log_posted(struct nvme_cq *cq, struct nvme_command *command);

// --- between queue.c, worker.c and remote.c: the worker's loop ---

// The command is done, and its data is where it should be: posts its completion, or lets it wait for room.
void nvme_finish(struct nvme_command *command);
// A command of the controller's own, as if it had come by sq: the caller fills in the entry. NULL: no memory. Ends in nvme_release.
struct nvme_command *nvme_own_command(struct nvme_sq *sq, void (*then)(struct nvme_command *command));
// The command is nowhere any more.
void nvme_release(struct nvme_command *command);
// Gives the memory of commands back; none is in flight.
void nvme_free_commands(struct nvme_worker *worker);
// The driver has taken something, or the queue's memory is back.
void nvme_post_waiting(struct nvme_cq *cq);
// Whether there is room in cq. If not, the worker is kicked when there is.
bool nvme_has_room(struct nvme_cq *cq);
// Tells the driver whether to write the register for what it takes.
void nvme_listen(struct nvme_cq *cq);
// There may be something to take.
void nvme_look(struct nvme_sq *sq);
// Interrupts for all that was posted.
void nvme_worker_flush(struct nvme_worker *worker);
// Obeys the orders that wait for something which has come true.
void nvme_look_at_drains(struct nvme_worker *worker);

// poll.c. Whether the queue can take commands now; if not, what ends that brings it to look, or is its end.
bool nvme_may_take(const struct nvme_sq *sq);
// The same for a command that is written down already.
bool nvme_may_run(const struct nvme_sq *sq);
// Entries that there are to take, or a negative errno.
int nvme_available(struct nvme_sq *sq);
// As the queue's memory and doorbell are now.
void nvme_start_poller(struct nvme_sq *sq);

// doorbells.c. Looks the queue's words in the driver's buffers up, if it has any.
void nvme_share_sq(struct nvme_sq *sq);
void nvme_share_cq(struct nvme_cq *cq);
// A doorbell makes no sense.
void nvme_misled(struct nvme_worker *worker);

void nvme_sq_init_remote(struct nvme_sq *sq);
void nvme_cq_init_remote(struct nvme_cq *cq);
// Views of the worker's map for a ring, which reach remote memory if the map has a way there.
struct sdc_memory nvme_sq_view(struct nvme_sq *sq);
struct sdc_memory nvme_cq_view(struct nvme_cq *cq);
// Fetches what a view of sq's misses. 0 or a negative errno.
int nvme_fetch(struct nvme_sq *sq, struct sdc_memory *memory);
// The device is done with a command whose data is bounced: nvme_finish follows, now or later.
void nvme_unbounce(struct nvme_command *command);
