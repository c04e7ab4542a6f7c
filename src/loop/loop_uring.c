// SPDX-License-Identifier: BSD-3-Clause
// The io_uring engine: the ring itself, file I/O, and the wake-up. Watches are in uring_watch.c.
//
// The ring is made disabled, so that one thread may make the loop and another run it: what is asked for
// before that stays in the submission queue (or on the lists, when that is full) until start() enables the
// ring, which binds it to the thread that runs.
#include "loop/uring.h"

#include "base/log.h"
#include "os/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>

enum { SQ_ENTRIES = 256, CQ_ENTRIES = 4096 };
enum { TURN_MS_WHEN_STUCK = 1 };
enum { BEGIN_EARLY = 2 }; // I/Os: fewer are not worth a system call of their own
#define RW_MOST 0x7ffff000u // bytes: the kernel moves no more in one go

_Static_assert(sizeof(struct sdc_span) == sizeof(struct iovec) &&
                   offsetof(struct sdc_span, base) == offsetof(struct iovec, iov_base) &&
                   offsetof(struct sdc_span, size) == offsetof(struct iovec, iov_len),
               "a span is laid out as an iovec");

// --- submission ---

struct io_uring_sqe *sdc_uring_sqe(struct sdc_uring *uring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    if (!sqe && uring->enabled) {
        io_uring_submit(&uring->ring);
        sqe = io_uring_get_sqe(&uring->ring);
    }
    return sqe;
}

// One span: of memory that is registered, if all of it is.
static void prepare_span(struct sdc_uring *uring, struct io_uring_sqe *sqe, int file, const struct sdc_io *io)
{
    static const uint8_t ops[2][2] = {{IORING_OP_READ, IORING_OP_READ_FIXED}, {IORING_OP_WRITE, IORING_OP_WRITE_FIXED}};
    unsigned size = io->spans->size < RW_MOST ? (unsigned)io->spans->size : RW_MOST;
    int slot = uring->buffers.count > 0 ? sdc_uring_buffer_find(uring, io->spans->base, size) : -1;

    io_uring_prep_rw(ops[io->op == SDC_IO_WRITE][slot >= 0], sqe, file, io->spans->base, size, io->offset);
    if (slot >= 0)
        sqe->buf_index = (uint16_t)slot;
}

static void prepare_transfer(struct sdc_uring *uring, struct io_uring_sqe *sqe, int file, const struct sdc_io *io)
{
    bool write = io->op == SDC_IO_WRITE;
    if (io->spans_count == 1) {
        prepare_span(uring, sqe, file, io);
    } else {
        io_uring_prep_rw(write ? IORING_OP_WRITEV : IORING_OP_READV, sqe, file, io->spans, io->spans_count,
                         io->offset);
    }
    if (write && io->dsync)
        sqe->rw_flags = RWF_DSYNC;
}

static void prepare(struct sdc_loop *loop, struct io_uring_sqe *sqe, const struct sdc_io *io)
{
    struct sdc_uring *uring = loop->engine;
    bool registered = loop->files[io->file].registered;
    int file = registered ? io->file : io->fd;
    switch (io->op) {
    case SDC_IO_READ:
    case SDC_IO_WRITE:
        prepare_transfer(uring, sqe, file, io);
        break;
    case SDC_IO_FDATASYNC:
        io_uring_prep_fsync(sqe, file, IORING_FSYNC_DATASYNC);
        break;
    case SDC_IO_FALLOCATE:
        io_uring_prep_fallocate(sqe, file, io->mode, (off_t)io->offset, (off_t)io->size);
        break;
    }
    if (registered)
        sqe->flags |= IOSQE_FIXED_FILE;
    uring->urgent = true;
    io_uring_sqe_set_data64(sqe, (uint64_t)(uintptr_t)io | SDC_URING_IO);
}

// Direct I/O goes down before the turn ends where the kernel has little of it: a disk that has nothing to do begins with the first of a
// batch while the rest is made ready, which takes as long as some requests. The more it has, the more are sent down in one go.
static void begin_early(struct sdc_uring *uring)
{
    unsigned ready = io_uring_sq_ready(&uring->ring);

    if (uring->enabled && ready >= BEGIN_EARLY && 2 * ready >= uring->direct)
        io_uring_submit(&uring->ring);
}

static void start_io(struct sdc_loop *loop, struct sdc_io *io)
{
    struct sdc_uring *uring = loop->engine;
    if (loop->files[io->file].direct) {
        begin_early(uring);
        uring->direct++;
    }
    struct io_uring_sqe *sqe = uring->held ? NULL : sdc_uring_sqe(uring);
    if (sqe) {
        prepare(loop, sqe, io);
        return;
    }
    io->next = NULL;
    *uring->held_end = io;
    uring->held_end = &io->next;
}

// Starts what found no place in the submission queue. False: there still is none.
static bool start_held(struct sdc_loop *loop)
{
    struct sdc_uring *uring = loop->engine;
    while (uring->held) {
        struct io_uring_sqe *sqe = sdc_uring_sqe(uring);
        if (!sqe)
            return false;
        struct sdc_io *io = uring->held;
        uring->held = io->next;
        if (!uring->held)
            uring->held_end = &uring->held;
        prepare(loop, sqe, io);
    }
    return true;
}

// --- waking ---

// The read completes when somebody writes, and takes the count with it: no system call of ours.
static bool arm_wake(struct sdc_uring *uring)
{
    if (uring->wake_armed)
        return true;
    struct io_uring_sqe *sqe = sdc_uring_sqe(uring);
    if (!sqe)
        return false;
    io_uring_prep_read(sqe, uring->wake_fd, &uring->wake_count, sizeof uring->wake_count, 0);
    io_uring_sqe_set_data64(sqe, SDC_URING_WAKE);
    uring->wake_armed = true;
    return true;
}

static void wake(struct sdc_loop *loop)
{
    struct sdc_uring *uring = loop->engine;
    sdc_eventfd_signal(uring->wake_fd);
}

// --- waiting ---

// Without sleeping: only if there is something to send down or the kernel says that it has something to deliver. Watches that
// are to be armed again are put off for one turn: mostly that one sleeps, and sends them down in the same call.
static int look(struct sdc_uring *uring)
{
    unsigned flags = __atomic_load_n(uring->ring.sq.kflags, __ATOMIC_RELAXED);
    bool waiting = io_uring_sq_ready(&uring->ring) > 0;
    bool due = waiting && (uring->urgent || uring->put_off);
    uring->put_off = waiting && !due;
    if (!due && !(flags & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN)))
        return 0;
    uring->urgent = uring->put_off = false;
    return io_uring_submit_and_get_events(&uring->ring);
}

static int sleep_for(struct sdc_uring *uring, uint64_t timeout_ns)
{
    struct io_uring_cqe *cqe;
    uring->urgent = uring->put_off = false;
    if (timeout_ns == SDC_LOOP_FOREVER)
        return io_uring_submit_and_wait(&uring->ring, 1);
    struct __kernel_timespec timeout = {.tv_sec = (long long)(timeout_ns / 1000000000),
                                        .tv_nsec = (long long)(timeout_ns % 1000000000)};
    return io_uring_submit_and_wait_timeout(&uring->ring, &cqe, 1, &timeout, NULL);
}

static void wait_uring(struct sdc_loop *loop, uint64_t timeout_ns)
{
    struct sdc_uring *uring = loop->engine;
    bool all = sdc_uring_start_sends(uring) && sdc_uring_settle_watches(uring) && start_held(loop) && arm_wake(uring);
    if (!all && timeout_ns > TURN_MS_WHEN_STUCK * UINT64_C(1000000))
        timeout_ns = TURN_MS_WHEN_STUCK * UINT64_C(1000000);
    int ret =
        io_uring_cq_ready(&uring->ring) > 0 || timeout_ns == 0 ? look(uring) : sleep_for(uring, timeout_ns);
    if (ret >= 0 || ret == -ETIME || ret == -EINTR || ret == -EAGAIN || ret == -EBUSY || ret == -ENOMEM)
        return;
    sdc_log(SDC_LOG_ERROR, "io_uring_enter: %s", strerror(-ret));
    sdc_bug("the loop's ring refuses to work");
}

static bool settle_uring(struct sdc_loop *loop)
{
    struct sdc_uring *uring = loop->engine;
    bool all = sdc_uring_start_sends(uring) && sdc_uring_settle_watches(uring) && start_held(loop) && arm_wake(uring);

    uring->urgent = uring->put_off = false;
    if (io_uring_sq_ready(&uring->ring) > 0)
        io_uring_submit(&uring->ring);
    unsigned flags = __atomic_load_n(uring->ring.sq.kflags, __ATOMIC_SEQ_CST);
    return all && io_uring_sq_ready(&uring->ring) == 0 && io_uring_cq_ready(&uring->ring) == 0 &&
           !(flags & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN));
}

static void dispatch_one(struct sdc_loop *loop, uint64_t data, int result)
{
    struct sdc_uring *uring = loop->engine;
    void *pointer = (void *)(uintptr_t)(data & ~(uint64_t)SDC_URING_TAGS);
    switch (data & SDC_URING_TAGS) {
    case SDC_URING_IO: {
        struct sdc_io *io = pointer;
        uring->direct -= loop->files[io->file].direct;
        io->result = result;
        io->done(io);
        break;
    }
    case SDC_URING_WATCH:
        sdc_uring_watch_event(uring, pointer, result);
        break;
    case SDC_URING_WAKE:
        uring->wake_armed = false;
        break;
    case SDC_URING_SEND:
        sdc_uring_send_failed(uring, data / (SDC_URING_TAGS + 1), result);
        break;
    case SDC_URING_BUFFER:
        sdc_uring_buffer_released(uring, data / (SDC_URING_TAGS + 1));
        break;
    default: // SDC_URING_CANCEL: the watch was done before it could be cancelled
        break;
    }
}

// Only what is there now: what callbacks bring about is the next turn's.
static void dispatch_uring(struct sdc_loop *loop)
{
    struct sdc_uring *uring = loop->engine;
    for (unsigned left = io_uring_cq_ready(&uring->ring); left > 0; left--) {
        struct io_uring_cqe *cqe;
        if (io_uring_peek_cqe(&uring->ring, &cqe) < 0)
            break;
        uint64_t data = cqe->user_data;
        int result = cqe->res;
        io_uring_cqe_seen(&uring->ring, cqe);
        dispatch_one(loop, data, result);
    }
    sdc_uring_end_sends(uring);
}

// --- files ---

// A registered file saves its look-up and reference for each I/O. One that is not is as good: its fd does.
static void add_file(struct sdc_loop *loop, int file)
{
    struct sdc_uring *uring = loop->engine;
    bool room = uring->fixed && file < SDC_URING_FILES;
    int flags = fcntl(loop->files[file].fd, F_GETFL);
    loop->files[file].direct = flags >= 0 && flags & O_DIRECT;
    loop->files[file].registered =
        room && io_uring_register_files_update(&uring->ring, (unsigned)file, &loop->files[file].fd, 1) >= 0;
}

static void remove_file(struct sdc_loop *loop, int file)
{
    struct sdc_uring *uring = loop->engine;
    int none = -1;
    if (loop->files[file].registered)
        io_uring_register_files_update(&uring->ring, (unsigned)file, &none, 1);
}

// A process that may open only a few files may not register many. 0, or how io_uring_register is refused
// altogether.
static int make_file_table(struct sdc_uring *uring)
{
    int ret = io_uring_register_files_sparse(&uring->ring, SDC_URING_FILES);
    uring->fixed = ret == 0;
    return sdc_loop_is_refusal(ret) ? ret : 0;
}

// --- life ---

// Outside: somebody else waits for the ring's fd. What is to be worked off has to become completions by itself, then, or nobody would see
// it.
static int make_ring(struct io_uring *ring, bool outside)
{
    static const unsigned flags[] = {
        // Completions are worked off when the owner asks for them, not whenever it enters the kernel (6.1).
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
            IORING_SETUP_SUBMIT_ALL,
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL, // 5.19
        0,
    };
    int ret = -EINVAL;
    for (size_t i = outside ? 1 : 0; i < sizeof flags / sizeof *flags && ret == -EINVAL; i++) {
        struct io_uring_params params = {.flags = flags[i] | IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE,
                                         .cq_entries = CQ_ENTRIES};
        ret = io_uring_queue_init_params(SQ_ENTRIES, ring, &params);
    }
    return ret;
}

// A seccomp profile may let a ring be made and then refuse to work it. The kernel itself answers EBADFD: the ring is disabled.
static int try_to_enter(struct io_uring *ring)
{
    int ret = io_uring_enter((unsigned)ring->ring_fd, 0, 0, 0, NULL);
    return sdc_loop_is_refusal(ret) ? ret : 0;
}

static int ring_error(int code, struct sdc_error *err)
{
    if (sdc_loop_is_refusal(code))
        return sdc_error_set(
            err, code, SDC_FAULT_HOST,
            "io_uring is not permitted here (%s); allow it in the container's seccomp profile and set "
            "sysctl kernel.io_uring_disabled=0, or use --loop=epoll",
            strerror(-code));
    return sdc_error_set(err, code, SDC_FAULT_HOST, "cannot make an io_uring: %s", strerror(-code));
}

static int open_uring(struct sdc_loop *loop, struct sdc_error *err)
{
    struct sdc_uring *uring = calloc(1, sizeof *uring);
    if (!uring)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "out of memory for a loop");
    uring->held_end = &uring->held;
    // Blocking, because io_uring takes O_NONBLOCK to mean that a read must not wait.
    uring->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (uring->wake_fd < 0) {
        int code = -errno;
        free(uring);
        return sdc_error_set(err, code, SDC_FAULT_HOST, "cannot make an eventfd: %s", strerror(-code));
    }
    int ret = make_ring(&uring->ring, false);
    if (ret == 0) {
        ret = try_to_enter(&uring->ring);
        if (ret == 0)
            ret = make_file_table(uring);
        if (ret < 0)
            io_uring_queue_exit(&uring->ring);
    }
    if (ret < 0) {
        sdc_fd_close(&uring->wake_fd);
        free(uring);
        return ring_error(ret, err);
    }
    loop->engine = uring;
    return 0;
}

static void close_uring(struct sdc_loop *loop)
{
    struct sdc_uring *uring = loop->engine;
    io_uring_queue_exit(&uring->ring);
    sdc_uring_free_watches(uring);
    sdc_uring_free_buffers(uring);
    sdc_fd_close(&uring->wake_fd);
    free(uring);
}

// Another ring, of the kind whose fd can be waited for, in place of one that has not been used yet.
static int fd_of_uring(struct sdc_loop *loop)
{
    struct sdc_uring *uring = loop->engine;
    struct io_uring ring;

    if (uring->enabled || io_uring_sq_ready(&uring->ring) > 0)
        return -EBUSY;
    int ret = make_ring(&ring, true);
    if (ret < 0)
        return ret;
    io_uring_queue_exit(&uring->ring);
    uring->ring = ring;
    make_file_table(uring);
    for (int file = 0; file < loop->files_capacity; file++) {
        if (loop->files[file].users > 0)
            add_file(loop, file);
    }
    return uring->ring.ring_fd;
}

static void start_uring(struct sdc_loop *loop)
{
    struct sdc_uring *uring = loop->engine;
    // liburing 2.3 declares io_uring_enable_rings and does not export it.
    if (!uring->enabled &&
        io_uring_register((unsigned)uring->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) < 0)
        sdc_bug("a new ring cannot be enabled");
    uring->enabled = true;
    io_uring_register_ring_fd(&uring->ring); // saves a look-up a turn; works without
}

// What was cancelled last is sent down, so that no poll of ours keeps a file that the caller has closed; and
// the read that waits for wakes is taken back, because it points into memory that may be freed next.
static void finish_uring(struct sdc_loop *loop)
{
    struct sdc_uring *uring = loop->engine;
    sdc_uring_settle_watches(uring);
    io_uring_submit(&uring->ring);
    struct io_uring_sync_cancel_reg wakes = {.addr = SDC_URING_WAKE,
                                             .timeout = {.tv_sec = -1, .tv_nsec = -1}};
    io_uring_register_sync_cancel(&uring->ring, &wakes);
    io_uring_get_events(&uring->ring);
    io_uring_unregister_ring_fd(&uring->ring);
}

const struct sdc_loop_engine sdc_loop_uring = {
    .kind = SDC_LOOP_IO_URING,
    .open = open_uring,
    .close = close_uring,
    .start = start_uring,
    .finish = finish_uring,
    .wait = wait_uring,
    .dispatch = dispatch_uring,
    .fd = fd_of_uring,
    .settle = settle_uring,
    .wake = wake,
    .watch = sdc_uring_watch,
    .rewatch = sdc_uring_rewatch,
    .unwatch = sdc_uring_unwatch,
    .file_add = add_file,
    .file_remove = remove_file,
    .io = start_io,
    .buffer_add = sdc_uring_buffer_add,
    .buffer_remove = sdc_uring_buffer_remove,
    .send = sdc_uring_send,
    .unsend = sdc_uring_unsend,
};
