// SPDX-License-Identifier: BSD-3-Clause
// A loop: one thread that waits in one place for everything that can happen to it: posts from other threads, watched
// fds, timers, file I/O. All callbacks run on the loop's thread. A turn is: sleep until something happened, run its
// callbacks, then run what was deferred; what the turn asked of the kernel goes down in one system call, the
// same in which the loop sleeps. While a poller is open (loop/poller.h) turns do not sleep, and those in which nothing happens make no
// system call.
#pragma once

#include <sidecard/error.h>
#include <sidecard/memory.h>

#include <stdbool.h>

struct sdc_loop;

// What a loop waits by. With epoll, which needs no permission, file I/O is done by up to four threads of the
// loop's. AUTO: io_uring, or epoll where the host refuses that, which is said in the log at level info.
enum sdc_loop_kind { SDC_LOOP_AUTO, SDC_LOOP_IO_URING, SDC_LOOP_EPOLL };

// A new loop, run by the thread that calls sdc_loop_run. Before that, the thread that made it may use every function below.
// -EPERM, -ENOSYS or -EACCES: io_uring is wanted and refused.
int sdc_loop_new(enum sdc_loop_kind kind, struct sdc_loop **loop, struct sdc_error *err);
// Never AUTO.
enum sdc_loop_kind sdc_loop_kind(const struct sdc_loop *loop);
// After sdc_loop_run returned, with nothing watched and no I/O in flight.
void sdc_loop_free(struct sdc_loop *loop);
// Runs until sdc_loop_stop. What was posted before the stop is run.
void sdc_loop_run(struct sdc_loop *loop);
// Any thread.
void sdc_loop_stop(struct sdc_loop *loop);
// Whether the caller is on the loop's thread (or the loop has not been run yet).
bool sdc_loop_is_mine(const struct sdc_loop *loop);
// Monotonic nanoseconds as of the start of this turn.
uint64_t sdc_loop_now(const struct sdc_loop *loop);

// --- posts: work handed to a loop ---

// Embedded in what it belongs to. From sdc_loop_post until run is called it is the loop's; run may post it again or
// free it. Posts of one thread run in their order.
struct sdc_post {
    struct sdc_post *next;
    void (*run)(struct sdc_post *post);
};
// Any thread, the owner too.
void sdc_loop_post(struct sdc_loop *loop, struct sdc_post *post);

// --- deferred: once, at the end of this turn (owner) ---

struct sdc_deferred {
    struct sdc_deferred *next;
    bool queued; // false at first
    void (*run)(struct sdc_deferred *deferred);
};
// Does nothing if it is queued already. What a deferred function defers runs in the same turn's end, after it.
void sdc_loop_defer(struct sdc_loop *loop, struct sdc_deferred *deferred);
// Takes it out if it is queued.
void sdc_loop_undefer(struct sdc_loop *loop, struct sdc_deferred *deferred);

// --- watches: an fd that becomes ready (owner) ---

enum sdc_ready { SDC_READABLE = 1, SDC_WRITABLE = 2, SDC_HANGUP = 4 }; // HANGUP is always reported

struct sdc_watch {
    int fd;
    uint32_t wanted; // enum sdc_ready
    void (*ready)(struct sdc_watch *watch, uint32_t events);
    void *armed; // the loop's; NULL at first
};
// Level-triggered: while an event stands, ready is called once each turn. -ENOMEM.
int sdc_loop_watch(struct sdc_loop *loop, struct sdc_watch *watch);
// Changes what is wanted of a watched fd; 0 pauses it altogether.
void sdc_loop_rewatch(struct sdc_loop *loop, struct sdc_watch *watch, uint32_t wanted);
// ready is not called any more, also not in this turn; watch and fd are the caller's again. Idempotent.
void sdc_loop_unwatch(struct sdc_loop *loop, struct sdc_watch *watch);

// --- timers (owner) ---

struct sdc_timer {
    uint64_t deadline_ns;
    uint32_t place; // the loop's: 0 while it is not set
    void (*expired)(struct sdc_timer *timer);
};
// Sets or moves it. Runs once.
int sdc_loop_timer_set(struct sdc_loop *loop, struct sdc_timer *timer, uint64_t after_ns);
void sdc_loop_timer_clear(struct sdc_loop *loop, struct sdc_timer *timer);

// --- file I/O (owner) ---

enum sdc_io_op { SDC_IO_READ, SDC_IO_WRITE, SDC_IO_FDATASYNC, SDC_IO_FALLOCATE };

struct sdc_io {
    enum sdc_io_op op;
    int file;             // from sdc_loop_file_add
    uint64_t offset;      // bytes
    uint64_t size;        // FALLOCATE: bytes
    int mode;             // FALLOCATE: its mode
    bool dsync;           // WRITE: as with RWF_DSYNC
    const struct sdc_span *spans; // READ, WRITE: at most 1024
    uint32_t spans_count;
    int64_t result;       // bytes, or a negative errno
    void (*done)(struct sdc_io *io);
    int fd;               // the loop's
    struct sdc_io *next;  // the loop's
};
// From now on I/O on this loop may name a file, by the number that is returned. -ENOMEM. The fd stays the caller's and open.
int sdc_loop_file_add(struct sdc_loop *loop, int fd);
// No I/O on it is in flight.
void sdc_loop_file_remove(struct sdc_loop *loop, int file);
// Starts it. done is called later, never from inside; io is the loop's until then. Cannot fail: errors come as results.
void sdc_loop_io(struct sdc_loop *loop, struct sdc_io *io);
