// SPDX-License-Identifier: BSD-3-Clause
// A virtqueue on its loop: the ring, the requests taken from it, and the orders that the home loop sends it. All of it
// belongs to the queue's loop; others only post.
#pragma once

#include <sidecard/virtio.h>

#include "loop/gather.h"
#include "loop/poller.h"
#include "ring/ring.h"
#include "transport/common/map_use.h"
#include "transport/common/remote_queue.h"

#include <stdatomic.h>

struct sdc_virtqueue;
struct request;

// What the home loop can order a queue to do. One order at a time is under way.
enum sdc_virtqueue_order {
    SDC_VIRTQUEUE_START, // with config, map and kick_fd
    SDC_VIRTQUEUE_STOP,  // takes no more, waits for what is in flight, ends
    SDC_VIRTQUEUE_REMAP, // with map
    SDC_VIRTQUEUE_WATCH, // kick_fd instead of the one before
    SDC_VIRTQUEUE_SAVE,  // as STOP, but nothing is given up: another process goes on with the ring
};

// What a queue writes down as it runs, for whoever goes on when this process is no more (in memory that the transport provides):
// which start of the queue it is of, whether it broke, and the log of what is in flight.
enum {
    SDC_QUEUE_RECORD_START = 0,
    SDC_QUEUE_RECORD_BROKEN = 8,
    SDC_QUEUE_RECORD_LOG = 16,
};

// In a notification register that is memory: not written to since somebody looked. No driver writes that: it is no queue's number.
#define SDC_BELL_SILENT UINT32_MAX

struct sdc_virtqueue {
    // Fixed at creation.
    struct sdc_virtio_core *core;
    struct sdc_virtio_device *device;
    struct sdc_loop *loop;
    uint16_t index;
    uint8_t *record;       // SDC_QUEUE_RECORD_*, or NULL: nothing is written down
    uint64_t record_bytes;
    enum sdc_poll_mode poll_mode; // of a ring that is not remote
    uint64_t poll_max_ns;
    // The driver's notification register where that is memory, or NULL; it changes between clients only, when no queue runs. Who looks
    // at it puts SDC_BELL_SILENT there.
    uint32_t *bell;
    void (*obeyed)(struct sdc_virtqueue *queue);                     // the queue's loop: an order is done
    void (*recalled)(struct sdc_virtqueue *queue);                   // the queue's loop: a recall is
    void (*interrupt)(struct sdc_virtqueue *queue);                  // the queue's loop
    void (*broke)(struct sdc_virtqueue *queue, const char *reason); // the queue's loop: once until the next start

    // The order, written by the home loop before it posts.
    enum sdc_virtqueue_order order;
    struct sdc_ring_config config;
    struct sdc_map *map; // a reference that the order carries
    // An eventfd whose signals are kicks too, -1: none. It stays the home loop's, which closes it when the queue has obeyed a STOP
    // or a WATCH; from START to STOP the queue's loop watches it.
    int kick_fd;
    bool unkicked; // with START and WATCH: nobody notifies, so that the ring is polled whatever poll_mode says
    uint64_t start_number; // of START: counts up, and is the same when another process repeats or goes on with the start
    bool leaves; // a STOP leaves what has not ended by then in flight in the ring's log, if it has one
    bool spares; // a STOP leaves there what nothing was done of
    struct sdc_post order_post;
    // A REMAP that may still wait is taken back: this map instead, in which the ring is where it was before. With a reference.
    struct sdc_map *recall_map;
    struct sdc_post recall_post;

    // A kick on its way; set by the kicker, cleared by the queue before it looks.
    atomic_bool kicked;
    struct sdc_post kick_post;

    // Where the ring stood when the queue obeyed a STOP; the home loop reads it until the next START.
    uint16_t position;
    bool wrapped;
    uint32_t left; // in flight in the log

    // The queue's loop only.
    struct sdc_watch kick_watch;
    unsigned lone_kicks; // signals by eventfd, one after the other, that counted 1
    struct sdc_poller poller;
    struct sdc_gather gather;
    bool running;
    bool stopping;  // a STOP waits for in_flight to become zero
    bool remapping; // a REMAP waits until those in flight are afloat
    struct sdc_ring ring;
    struct sdc_inflight log; // in record
    struct sdc_map_use *use;
    struct request *free_requests;
    struct request *oldest;      // rings in order: of those that were taken and not given
    struct request **youngest;   // where the next one is linked
    uint32_t waiting;            // of those, done: they wait for their turn alone. Zero when nothing else is in flight
    // Remote memory (virtqueue_remote.c).
    struct sdc_remote_queue remote;
    bool due;                    // there was work to do while a REMAP waited
    bool dozing;                 // a partial map has lost an idle ring, whose driver will notify: nothing is asked for before
    bool look_again;             // a kick came since something was fetched, which may be older than it
    bool look_when_written;      // when no write to the ring is under way: the driver knows only then when to notify
    bool interrupt_due;          // likewise
    void **slabs; // of requests
    uint32_t slabs_count;
    uint32_t spans;  // of requests in flight
    bool crowded;    // they are too many: nothing is taken until some are given back
    unsigned budget; // requests that may still be taken in this turn
    bool again;      // the turn's budget did not suffice
    void *context;   // the device's
    struct sdc_deferred work;
    struct sdc_deferred flush;
};

// Bytes of a record for a queue of so many entries, whatever its format.
uint64_t sdc_virtqueue_record_bytes(uint32_t size);

void sdc_virtqueue_init(struct sdc_virtqueue *queue);
// Home loop, with order, config and map filled in as the order wants them.
void sdc_virtqueue_send(struct sdc_virtqueue *queue);
// Home loop, while a REMAP is under way, with recall_map filled in: both are obeyed without waiting for anything.
void sdc_virtqueue_recall(struct sdc_virtqueue *queue);
// Any thread: the driver has made something available.
void sdc_virtqueue_kick(struct sdc_virtqueue *queue);
