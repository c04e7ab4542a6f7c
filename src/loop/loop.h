// SPDX-License-Identifier: BSD-3-Clause
// A loop: one thread that waits in one place for everything that can happen to it: posts from other threads, watched
// fds, timers, file I/O. All callbacks run on the loop's thread. A turn is: sleep until something happened, run its
// callbacks, then run what was deferred; what the turn asked of the kernel goes down in one system call, the
// same in which the loop sleeps. While a poller is open (loop/poller.h) turns do not sleep, and those in which nothing happens make no
// system call.
#pragma once

#include <sidecard/loop.h>
#include <sidecard/memory.h>

// A new loop, run by the thread that calls sdc_loop_run. Before that, the thread that made it may use every function below.
// -EPERM, -ENOSYS or -EACCES: io_uring is wanted and refused.
int sdc_loop_new(enum sdc_loop_kind kind, struct sdc_loop **loop, struct sdc_error *err);
// Never AUTO.
enum sdc_loop_kind sdc_loop_kind(const struct sdc_loop *loop);
// After sdc_loop_run returned, with nothing watched and no I/O in flight.
void sdc_loop_free(struct sdc_loop *loop);
// Runs until sdc_loop_stop. What was posted before the stop is run. After sdc_loop_process: by the same thread.
void sdc_loop_run(struct sdc_loop *loop);
// Instead of running it: an fd of the loop's that is readable when sdc_loop_process is to be called. Or a negative errno with err filled.
int sdc_loop_fd(struct sdc_loop *loop, struct sdc_error *err);
enum { SDC_LOOP_WAITS, SDC_LOOP_GOES_ON /* it is to be called again at once */, SDC_LOOP_STOPPED };
// After sdc_loop_fd: takes turns for as long as there is something to do, within bounds, and does not wait. Always by the same thread, and
// not inside a callback.
int sdc_loop_process(struct sdc_loop *loop);
// Any thread.
void sdc_loop_stop(struct sdc_loop *loop);
// Whether the caller is on the loop's thread (or the loop has not been run yet).
bool sdc_loop_is_mine(const struct sdc_loop *loop);

// Whether another thread runs it: what only the owner may call is a mistake of an author's then. Between two calls of sdc_loop_process it
// is the thread's that made them.
bool sdc_loop_is_anothers(const struct sdc_loop *loop);
// Whether the caller is inside of a callback of any loop's.
bool sdc_loop_inside(void);

// --- file I/O (owner) ---

// A loop on epoll does reads of so many bytes at once where the page cache has them; longer ones are for its threads.
enum { SDC_IO_AT_ONCE = 32 * 1024 };

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

// --- memory that I/O goes to and comes from (owner) ---

// A stretch of memory that stays mapped, so that the loop may have the kernel hold its pages and need not have them looked up for each I/O.
// Zeroed but for the first three.
struct sdc_loop_buffer {
    void *base;
    uint64_t size; // bytes, not 0
    // The kernel holds nothing of it any more. May free it.
    void (*removed)(struct sdc_loop_buffer *buffer);
    void *engine; // the loop's
};
// Whether it can do such a thing: with io_uring. Any thread.
bool sdc_loop_takes_buffers(const struct sdc_loop *loop);
// Stretches may overlap. That the kernel refuses, or there is no memory for it, is not told: I/O goes on as ever.
void sdc_loop_buffer_add(struct sdc_loop *loop, struct sdc_loop_buffer *buffer);
// I/O that begins from now on does without. removed is called when what has begun has ended, from inside if nothing has to be waited for.
void sdc_loop_buffer_remove(struct sdc_loop *loop, struct sdc_loop_buffer *buffer);

// --- sends: a few bytes on a stream socket, with the system call by which the turn ends (owner) ---

enum { SDC_SEND_MOST = 512 };

// Zeroed but for the first two. It is the loop's while size is not 0.
struct sdc_send {
    int fd;
    // Nothing of the last `size` bytes in `bytes` has gone, and they are the owner's again: to be sent in another way, which tells why.
    // From inside a turn, before any deferred function.
    void (*failed)(struct sdc_send *send, uint32_t size);
    uint32_t size;         // bytes on their way
    uint64_t number;       // the loop's, like what follows
    uint32_t behind;
    void *down;
    struct sdc_send *next;
    uint8_t bytes[SDC_SEND_MOST];
};
// From deferred functions only. 1: the bytes go at the end of this turn, behind those on their way, all or nothing; 0: not by this way,
// and none are on their way; -EAGAIN: not now, others are on their way.
int sdc_loop_send(struct sdc_loop *loop, struct sdc_send *send, const void *bytes, size_t size);
// The fd is about to be closed: what has not gone comes back at once, by failed.
void sdc_loop_unsend(struct sdc_loop *loop, struct sdc_send *send);
