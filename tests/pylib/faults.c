// SPDX-License-Identifier: BSD-3-Clause
// A disk that fails, for the real program: loaded before the libraries (LD_PRELOAD), it stands between the program and its
// file I/O, by preadv2 and its kin or by io_uring, and follows rules in a file that the test has mapped (faults.py).
//
// An I/O meets a rule when it is handed to the kernel: it gets an error instead, moves less than it was asked to, or is held
// until the gate (a FIFO) is opened. What is held over io_uring is a request of the kernel's all that time: a poll of the gate in
// the place of the I/O, which is done, and its result put into the completion, when that comes.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum op { OP_READ, OP_WRITE, OP_FLUSH, OP_ALLOCATE, OPS, OP_NONE };
enum kind { PASS, ERROR, SHORT, HOLD };

struct rule {
    uint32_t kind;
    int32_t value; // ERROR: the negative errno; SHORT: the most bytes
    uint32_t skip; // so many go through first
    uint32_t times;
    uint32_t hits;
};

// As in faults.py.
struct control {
    uint32_t loaded;
    uint32_t through; // I/Os that no rule was for
    uint32_t overflows; // turns that found completions that had no place in the ring
    int32_t submit_error; // what handing over to io_uring ends with,
    uint32_t submit_times;
    uint32_t submit_hits;
    uint32_t fixed; // I/Os by memory that is registered with io_uring
    struct rule rules[OPS][2]; // the second when the first has had its times
};

static struct control *control;
static int gate = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void load(void)
{
    const char *rules = getenv("FAULTS_RULES"), *fifo = getenv("FAULTS_GATE");
    int fd = rules ? open(rules, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0 || !fifo)
        return;
    void *memory = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    gate = open(fifo, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (memory == MAP_FAILED || gate < 0)
        abort();
    control = memory;
    control->loaded++;
}

static void *next(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found)
        abort();
    return found;
}

// The rule that this I/O meets, with the errno or the bytes in *value.
static enum kind meet(enum op op, int32_t *value)
{
    enum kind kind = PASS;
    if (!control)
        return PASS;
    pthread_mutex_lock(&lock);
    struct rule *rule = &control->rules[op][control->rules[op][0].times == 0];
    if (rule->kind != PASS && rule->times > 0) {
        if (rule->skip > 0) {
            rule->skip--;
        } else {
            kind = rule->kind;
            *value = rule->value;
            rule->times--;
            rule->hits++;
        }
    }
    if (kind == PASS)
        control->through++;
    pthread_mutex_unlock(&lock);
    return kind;
}

static bool has_rule(enum op op)
{
    return control && (control->rules[op][0].times > 0 || control->rules[op][1].times > 0);
}

static void wait_for_gate(void)
{
    struct pollfd wait = {.fd = gate, .events = POLLIN};
    while (poll(&wait, 1, -1) < 0)
        ;
}

// --- system calls ---

static int64_t transfer(enum op op, int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    typedef ssize_t call(int, const struct iovec *, int, off_t, int);
    static call *calls[2];
    if (!calls[op])
        calls[op] = (call *)next(op == OP_READ ? "preadv64v2" : "pwritev64v2");
    return calls[op](fd, iov, count, offset, flags);
}

static int allocate(int fd, int mode, off_t offset, off_t size)
{
    typedef int call(int, int, off_t, off_t);
    static call *found;
    if (!found)
        found = (call *)next("fallocate64");
    return found(fd, mode, offset, size);
}

static int flush(int fd)
{
    typedef int call(int);
    static call *found;
    if (!found)
        found = (call *)next("fdatasync");
    return found(fd);
}

// False: the call is to fail, and errno says with what.
static bool let_through(enum op op)
{
    int32_t value = 0;
    switch (meet(op, &value)) {
    case ERROR:
        errno = -value;
        return false;
    case HOLD:
        wait_for_gate();
        return true;
    default:
        return true;
    }
}

static ssize_t faulty_transfer(enum op op, int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    // What must not wait is left to those who may.
    if (flags & RWF_NOWAIT && has_rule(op)) {
        errno = EAGAIN;
        return -1;
    }
    int32_t value = 0;
    struct iovec first = {0};
    switch (meet(op, &value)) {
    case ERROR:
        errno = -value;
        return -1;
    case SHORT:
        first = iov[0];
        if (first.iov_len > (size_t)value)
            first.iov_len = (size_t)value;
        return transfer(op, fd, &first, 1, offset, flags);
    case HOLD:
        wait_for_gate();
        break;
    case PASS:
        break;
    }
    return transfer(op, fd, iov, count, offset, flags);
}

ssize_t preadv64v2(int fd, const struct iovec *iov, int count, off64_t offset, int flags)
{
    return faulty_transfer(OP_READ, fd, iov, count, offset, flags);
}

ssize_t pwritev64v2(int fd, const struct iovec *iov, int count, off64_t offset, int flags)
{
    return faulty_transfer(OP_WRITE, fd, iov, count, offset, flags);
}

int fdatasync(int fd)
{
    return let_through(OP_FLUSH) ? flush(fd) : -1;
}

int fallocate64(int fd, int mode, off64_t offset, off64_t size)
{
    return let_through(OP_ALLOCATE) ? allocate(fd, mode, offset, size) : -1;
}

// --- io_uring ---

// A request whose completion is still to be mended, in the order of submission.
struct changed {
    struct changed *next;
    enum kind kind;
    int32_t value;
    int fd;
    struct io_uring_sqe sqe; // as the program had it
    struct iovec iov;
};

struct ring_state {
    struct ring_state *next;
    int ring_fd;
    struct changed *changed, **changed_end;
    int files[1024]; // registered; plain fds are their own
};

static struct ring_state *rings;

static struct ring_state *state_of(struct io_uring *ring)
{
    pthread_mutex_lock(&lock);
    struct ring_state *state = rings;
    while (state && state->ring_fd != ring->ring_fd)
        state = state->next;
    if (!state) {
        state = calloc(1, sizeof *state);
        if (!state)
            abort();
        state->ring_fd = ring->ring_fd;
        state->changed_end = &state->changed;
        state->next = rings;
        rings = state;
    }
    pthread_mutex_unlock(&lock);
    return state;
}

int io_uring_register_files_update(struct io_uring *ring, unsigned offset, const int *files, unsigned count)
{
    typedef int call(struct io_uring *, unsigned, const int *, unsigned);
    struct ring_state *state = state_of(ring);
    for (unsigned i = 0; i < count && offset + i < 1024; i++)
        state->files[offset + i] = files[i];
    return ((call *)next("io_uring_register_files_update"))(ring, offset, files, count);
}

static int file_of(const struct ring_state *state, const struct io_uring_sqe *sqe)
{
    return sqe->flags & IOSQE_FIXED_FILE ? state->files[sqe->fd & 1023] : sqe->fd;
}

static enum op op_of(const struct ring_state *state, const struct io_uring_sqe *sqe)
{
    struct stat file;
    if (fstat(file_of(state, sqe), &file) < 0 || !S_ISREG(file.st_mode))
        return OP_NONE; // the wake-up is read by the ring too
    switch (sqe->opcode) {
    case IORING_OP_READ:
    case IORING_OP_READV:
    case IORING_OP_READ_FIXED:
        return OP_READ;
    case IORING_OP_WRITE:
    case IORING_OP_WRITEV:
    case IORING_OP_WRITE_FIXED:
        return OP_WRITE;
    case IORING_OP_FSYNC:
        return OP_FLUSH;
    case IORING_OP_FALLOCATE:
        return OP_ALLOCATE;
    default:
        return OP_NONE;
    }
}

// One request by system calls, when its gate has opened.
static int perform(const struct changed *changed)
{
    const struct io_uring_sqe *sqe = &changed->sqe;
    struct iovec one = {(void *)(uintptr_t)sqe->addr, sqe->len};
    const struct iovec *iov = (const struct iovec *)(uintptr_t)sqe->addr;
    int64_t ret = -1;
    switch (sqe->opcode) {
    case IORING_OP_READ:
    case IORING_OP_READ_FIXED:
        ret = transfer(OP_READ, changed->fd, &one, 1, (off_t)sqe->off, sqe->rw_flags);
        break;
    case IORING_OP_READV:
        ret = transfer(OP_READ, changed->fd, iov, (int)sqe->len, (off_t)sqe->off, sqe->rw_flags);
        break;
    case IORING_OP_WRITE:
    case IORING_OP_WRITE_FIXED:
        ret = transfer(OP_WRITE, changed->fd, &one, 1, (off_t)sqe->off, sqe->rw_flags);
        break;
    case IORING_OP_WRITEV:
        ret = transfer(OP_WRITE, changed->fd, iov, (int)sqe->len, (off_t)sqe->off, sqe->rw_flags);
        break;
    case IORING_OP_FSYNC:
        ret = flush(changed->fd);
        break;
    case IORING_OP_FALLOCATE:
        ret = allocate(changed->fd, (int)sqe->len, (off_t)sqe->off, (off_t)sqe->addr);
        break;
    }
    return ret < 0 ? -errno : (int)ret;
}

static void cut_short(struct io_uring_sqe *sqe, uint32_t most)
{
    if (sqe->opcode == IORING_OP_READV || sqe->opcode == IORING_OP_WRITEV) {
        const struct iovec *iov = (const struct iovec *)(uintptr_t)sqe->addr;
        sqe->opcode = sqe->opcode == IORING_OP_READV ? IORING_OP_READ : IORING_OP_WRITE;
        sqe->addr = (uint64_t)(uintptr_t)iov->iov_base;
        sqe->len = (uint32_t)iov->iov_len;
    }
    if (sqe->len > most)
        sqe->len = most;
}

static void change(struct ring_state *state, struct io_uring_sqe *sqe)
{
    enum op op = op_of(state, sqe);
    int32_t value = 0;
    control->fixed += sqe->opcode == IORING_OP_READ_FIXED || sqe->opcode == IORING_OP_WRITE_FIXED;
    enum kind kind = op == OP_NONE ? PASS : meet(op, &value);
    if (kind == SHORT)
        cut_short(sqe, (uint32_t)value);
    if (kind != ERROR && kind != HOLD)
        return;
    struct changed *changed = calloc(1, sizeof *changed);
    if (!changed)
        abort();
    *changed = (struct changed){.kind = kind, .value = value, .fd = file_of(state, sqe), .sqe = *sqe};
    *state->changed_end = changed;
    state->changed_end = &changed->next;
    uint64_t user_data = sqe->user_data;
    if (kind == HOLD)
        io_uring_prep_poll_add(sqe, gate, POLLIN);
    else
        io_uring_prep_nop(sqe);
    sqe->user_data = user_data;
}

// Every request is handed over once, so each is looked at once: from where the last hand-over ended.
static void before(struct io_uring *ring)
{
    struct ring_state *state = state_of(ring);
    if (!control)
        return;
    for (unsigned at = ring->sq.sqe_head; at != ring->sq.sqe_tail; at++)
        change(state, &ring->sq.sqes[at & *ring->sq.kring_mask]);
}

static bool mend(struct ring_state *state, struct io_uring_cqe *cqe)
{
    for (struct changed **link = &state->changed; *link; link = &(*link)->next) {
        struct changed *changed = *link;
        if (changed->sqe.user_data != cqe->user_data)
            continue;
        cqe->res = changed->kind == HOLD ? perform(changed) : changed->value;
        *link = changed->next;
        if (!changed->next)
            state->changed_end = link;
        free(changed);
        return true;
    }
    return false;
}

static void after(struct io_uring *ring)
{
    struct ring_state *state = state_of(ring);
    if (!control)
        return;
    if (__atomic_load_n(ring->sq.kflags, __ATOMIC_ACQUIRE) & IORING_SQ_CQ_OVERFLOW)
        control->overflows++;
    unsigned tail = __atomic_load_n(ring->cq.ktail, __ATOMIC_ACQUIRE);
    for (unsigned at = *ring->cq.khead; state->changed && at != tail; at++)
        mend(state, &ring->cq.cqes[at & *ring->cq.kring_mask]);
}

// The error that this hand-over is to end with, or 0.
static int submit_error(void)
{
    int error = 0;
    if (!control)
        return 0;
    pthread_mutex_lock(&lock);
    if (control->submit_times > 0) {
        control->submit_times--;
        control->submit_hits++;
        error = control->submit_error;
    }
    pthread_mutex_unlock(&lock);
    return error;
}

#define HAND_OVER(name, type, ring, ...)                                                                                          \
    int error = submit_error();                                                                                                   \
    if (error != 0)                                                                                                               \
        return error;                                                                                                             \
    static type *call;                                                                                                            \
    if (!call)                                                                                                                    \
        call = (type *)next(name);                                                                                                \
    before(ring);                                                                                                                 \
    int ret = call(__VA_ARGS__);                                                                                                  \
    after(ring);                                                                                                                  \
    return ret

typedef int submit_call(struct io_uring *);
typedef int wait_call(struct io_uring *, unsigned);
typedef int timed_call(struct io_uring *, struct io_uring_cqe **, unsigned, struct __kernel_timespec *, sigset_t *);

int io_uring_submit(struct io_uring *ring)
{
    HAND_OVER("io_uring_submit", submit_call, ring, ring);
}

int io_uring_submit_and_get_events(struct io_uring *ring)
{
    HAND_OVER("io_uring_submit_and_get_events", submit_call, ring, ring);
}

int io_uring_submit_and_wait(struct io_uring *ring, unsigned count)
{
    HAND_OVER("io_uring_submit_and_wait", wait_call, ring, ring, count);
}

int io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned count,
                                     struct __kernel_timespec *timeout, sigset_t *mask)
{
    HAND_OVER("io_uring_submit_and_wait_timeout", timed_call, ring, ring, cqe, count, timeout, mask);
}
