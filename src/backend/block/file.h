// SPDX-License-Identifier: BSD-3-Clause
// Inside the file backend. One struct sdc_file is shared by its queues on several loops; a queue and its
// requests belong to one loop.
#pragma once

#include "backend/block/common.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    SDC_FILE_ZEROES = 1024 * 1024, // bytes written at once where zeroes have to be written
    SDC_FILE_BOUNCE = 256 * 1024,  // bytes of one bounce buffer
    SDC_FILE_BOUNCES = 16,         // of a queue at most; requests wait for one
    SDC_FILE_RETRIES = 100,        // of one I/O that got EAGAIN
};

// The image's lock. Taken for the first queue, released with the last.
struct sdc_file_lock {
    pthread_mutex_t mutex;
    unsigned users; // queues; at zero the lock is released
    bool held;
    uint64_t offset, size; // of the part that is locked; size 0: to the end
    uint64_t deadline_ns; // while somebody else has it; 0: nobody was seen to
    uint64_t wait_ns;
};

struct sdc_file {
    struct sdc_block base;
    int fd;
    char *path;                 // for messages
    struct sdc_block_info info; // all but size
    _Atomic uint64_t size;
    uint32_t memory_align; // bytes, of spans for direct I/O; 0: not direct
    uint32_t length_align;
    void *zeroes; // SDC_FILE_ZEROES of them, read-only
    // A flush has failed: what was lost is not known, and the next flush might succeed without it. So nothing
    // is written any more until the image is opened afresh.
    atomic_bool failed;
    atomic_bool no_punch, no_zero_range; // the file system said that it cannot
    struct sdc_file_lock lock;
};

struct sdc_file_queue {
    struct sdc_block_queue base;
    struct sdc_block_finisher finisher;
    struct sdc_file *file;
    int number;   // of the file on this loop
    bool waiting; // for the lock; requests are in held
    bool refused; // waited too long: requests fail
    struct sdc_timer retry;
    struct sdc_block_list held;

    void *bounces[SDC_FILE_BOUNCES]; // free ones
    unsigned bounces_free, bounces_made;
    struct sdc_block_list bounce_waiters;

    struct sdc_file_group *groups; // free ones (file_merge.c)
    unsigned groups_made;
};

// What the backend remembers of a request, in its backend[] bytes.
struct sdc_file_request {
    struct sdc_file_queue *queue;
    struct sdc_io io;
    struct sdc_span span; // zeroes, the bounce buffer, or what is left of a span
    uint64_t done;        // bytes finished
    uint32_t first_span;  // that is not finished,
    uint64_t span_done;   // and so many bytes of it are
    uint32_t retries;
    void *bounce;
    bool bounced; // the I/O in flight goes through it
};
_Static_assert(sizeof(struct sdc_file_request) <= SDC_BLOCK_BACKEND_BYTES,
               "a request's state has its place in the request");

static inline struct sdc_file_request *sdc_file_state(struct sdc_block_request *request)
{
    return (struct sdc_file_request *)(void *)request->backend;
}

// file_merge.c: begins the first few of count requests as one I/O. How many; 0: they are no run that would be worth it. Their ends come
// through the queue's finisher.
unsigned sdc_file_merge(struct sdc_file_queue *queue, struct sdc_block_request **requests, unsigned count);
void sdc_file_groups_free(struct sdc_file_queue *queue);

// file_io.c: checks a request and makes its state. False: it cannot be begun, and has ended.
bool sdc_file_prepare(struct sdc_file_queue *queue, struct sdc_block_request *request);
// Begins a request. Its end comes through the queue's finisher.
void sdc_file_start(struct sdc_file_queue *queue, struct sdc_block_request *request);

// file_transfer.c: READ, WRITE and zeroes that have to be written, from state->done on. Calls sdc_file_finish
// at the end.
void sdc_file_transfer(struct sdc_block_request *request);
void sdc_file_transfer_done(struct sdc_block_request *request, int64_t result);
void sdc_file_finish(struct sdc_block_request *request, int result);

// file_bounce.c
bool sdc_file_must_bounce(const struct sdc_file *file, const struct sdc_span *spans, uint32_t count);
// A bounce buffer for the request, or NULL: then sdc_file_transfer is called again when one is free.
void *sdc_file_bounce_take(struct sdc_block_request *request);
void sdc_file_bounce_give(struct sdc_file_queue *queue, void *buffer);
int sdc_file_bounces_init(struct sdc_file_queue *queue);
void sdc_file_bounces_free(struct sdc_file_queue *queue);
// Copies size bytes between the spans, from the cursor on, and buffer.
void sdc_file_gather(const struct sdc_block_request *request, void *buffer, uint64_t size);
void sdc_file_scatter(const struct sdc_block_request *request, const void *buffer, uint64_t size);

// file_queue.c
int sdc_file_queue_open(struct sdc_block *block, struct sdc_loop *loop, sdc_block_done *done, void *context,
                        struct sdc_block_queue **queue);

// file_lock.c. Any thread. 0 (we have it), -EAGAIN (try again in a while) or -EBUSY (waited long enough).
int sdc_file_lock_enter(struct sdc_file *file);
int sdc_file_lock_try(struct sdc_file *file);
void sdc_file_lock_leave(struct sdc_file *file);

// file_probe.c: the name of the image format that the file begins with, or NULL.
const char *sdc_file_probe(int fd);
