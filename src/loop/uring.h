// SPDX-License-Identifier: BSD-3-Clause
// Inside the io_uring engine.
#pragma once

#include "loop/engine.h"

#include <liburing.h>

enum { SDC_URING_FILES = 256 }; // that are registered; the others go by their fds
enum { SDC_URING_SLOTS = 4096 }; // of the table of registered memory

// The low bits of user_data say what the rest points to.
enum {
    SDC_URING_IO = 0,     // struct sdc_io
    SDC_URING_WATCH = 1,  // struct sdc_uring_poll
    SDC_URING_WAKE = 2,   // nothing
    SDC_URING_CANCEL = 3, // nothing
    SDC_URING_SEND = 4,   // nothing: the rest is the number of a struct sdc_send
    SDC_URING_BUFFER = 5, // nothing: the rest is a slot of the table of registered memory, whose chunk the kernel has let go
    SDC_URING_TAGS = 7,
};

// What stands behind a watch. It outlives the watch until the kernel has given up its poll request, which
// points to it: a late completion finds watch == NULL.
struct sdc_uring_poll {
    struct sdc_watch *watch;                // NULL: unwatched
    struct sdc_uring_poll *next, *previous; // all of the loop's
    struct sdc_uring_poll *next_changed;
    int fd;
    bool changed;    // on the list of those that settle_watches looks at
    bool in_flight;  // the kernel has a poll request of it
    bool cancelling; // and was asked to end that
    uint32_t events; // what that waits for, enum sdc_ready
};

// uring_buffers.c: memory that is registered.
struct sdc_uring_slot {
    struct sdc_uring_buffer *buffer; // whose chunk the kernel has; NULL: free
    uint16_t next_free;
};

struct sdc_uring_buffers {
    struct sdc_loop *loop;
    struct sdc_uring_buffer **sorted; // by address
    uint32_t count;                   // zero: no I/O is looked up
    uint32_t capacity;
    struct sdc_uring_buffer *hit;     // where the last one was found
    struct sdc_uring_slot *slots;     // SDC_URING_SLOTS of them; NULL: the kernel has no table yet
    uint16_t first_free;              // slot; SDC_URING_SLOTS: none
    bool full;                        // nothing is registered until something has been let go
    struct sdc_uring_buffer *wanted;  // with the chunk that is to be registered next
    uint32_t wanted_chunk;
    struct sdc_uring_buffer *leaving; // that the kernel has still to be asked to let go
    struct sdc_post post;             // to ourselves: the next chunk
    bool posted;
};

struct sdc_uring {
    struct io_uring ring;
    bool enabled;

    struct sdc_io *held, **held_end; // found no place in the submission queue
    unsigned direct; // I/O on files that are: begun, whether the kernel has it or not, and not done
    bool urgent;  // there is I/O in the submission queue
    bool put_off; // what was in it was left there in the turn before

    struct sdc_uring_poll *polls;
    struct sdc_uring_poll *changed;

    struct sdc_send *sends; // of this turn
    struct sdc_send *down;  // that the kernel was given, and whose end was not looked for
    uint64_t sends_count;
    bool cannot_send;       // the kernel refused to be silent

    int wake_fd;
    bool wake_armed;
    uint64_t wake_count;

    bool fixed; // files are registered
    struct sdc_uring_buffers buffers;
};

// A place in the submission queue. Sends down what is there when it is full; NULL if that doesn't help.
struct io_uring_sqe *sdc_uring_sqe(struct sdc_uring *uring);

int sdc_uring_watch(struct sdc_loop *loop, struct sdc_watch *watch);
void sdc_uring_rewatch(struct sdc_loop *loop, struct sdc_watch *watch);
void sdc_uring_unwatch(struct sdc_loop *loop, struct sdc_watch *watch);
// Brings the kernel's poll requests in line with the watches. False: the submission queue is full, some are
// left.
bool sdc_uring_settle_watches(struct sdc_uring *uring);
// A poll request has ended.
void sdc_uring_watch_event(struct sdc_uring *uring, struct sdc_uring_poll *poll, int result);
void sdc_uring_free_watches(struct sdc_uring *uring);

// uring_send.c. The engine's; False: no place in the submission queue; a send has failed; after a dispatch, none has any more.
int sdc_uring_send(struct sdc_loop *loop, struct sdc_send *send, const void *bytes, size_t size);
void sdc_uring_unsend(struct sdc_loop *loop, struct sdc_send *send);
bool sdc_uring_start_sends(struct sdc_uring *uring);
void sdc_uring_send_failed(struct sdc_uring *uring, uint64_t number, int result);
void sdc_uring_end_sends(struct sdc_uring *uring);

// uring_buffers.c. The engine's; the slot of the registered chunk that all of a span lies in, or -1 (not while there are no buffers); the
// kernel has let go of what was in a slot.
void sdc_uring_buffer_add(struct sdc_loop *loop, struct sdc_loop_buffer *buffer);
void sdc_uring_buffer_remove(struct sdc_loop *loop, struct sdc_loop_buffer *buffer);
int sdc_uring_buffer_find(struct sdc_uring *uring, const void *base, size_t size);
void sdc_uring_buffer_released(struct sdc_uring *uring, uint64_t slot);
void sdc_uring_free_buffers(struct sdc_uring *uring);
