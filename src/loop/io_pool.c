// SPDX-License-Identifier: BSD-3-Clause
// The pool. A turn's I/O goes to the threads under one lock. What they have done goes on a stack without a
// lock, and the first that lands on an empty one posts to the loop, so that everything that ended meanwhile
// is told in one go and costs one wake-up. A small read of what the page cache holds is done at once: it
// takes less than handing it over.
#include "loop/io_pool.h"

#include "base/check.h"
#include "base/log.h"
#include "loop/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

_Static_assert(sizeof(struct sdc_span) == sizeof(struct iovec) &&
                   offsetof(struct sdc_span, base) == offsetof(struct iovec, iov_base) &&
                   offsetof(struct sdc_span, size) == offsetof(struct iovec, iov_len),
               "a span is laid out as an iovec");

struct worker {
    struct sdc_io_pool *pool;
    pthread_t thread;
    bool made;    // the owner's: there is a thread to join
    bool running; // under the mutex: it takes work, or sleeps until there is some
};

struct sdc_io_pool {
    struct sdc_loop *loop;
    struct sdc_io *asked, **asked_end; // in this turn
    struct sdc_post told;              // runs the callbacks of `finished`; posted while that has something
    _Atomic(struct sdc_io *) finished; // newest first

    pthread_mutex_t mutex; // of what follows
    pthread_cond_t work;
    struct sdc_io *queue, **queue_end;
    unsigned queued;
    unsigned idle; // threads that sleep
    bool closing;
    struct worker workers[SDC_IO_POOL_THREADS];
};

// --- one I/O ---

static int64_t read_spans(int fd, const struct sdc_io *io, int flags)
{
    return preadv2(fd, (const struct iovec *)(const void *)io->spans, (int)io->spans_count,
                   (off_t)io->offset, flags);
}

static int64_t write_spans(int fd, const struct sdc_io *io)
{
    return pwritev2(fd, (const struct iovec *)(const void *)io->spans, (int)io->spans_count,
                    (off_t)io->offset, io->dsync ? RWF_DSYNC : 0);
}

static int64_t perform(const struct sdc_io *io)
{
    int fd = io->fd;
    int64_t ret = -1;
    switch (io->op) {
    case SDC_IO_READ:
        ret = read_spans(fd, io, 0);
        break;
    case SDC_IO_WRITE:
        ret = write_spans(fd, io);
        break;
    case SDC_IO_FDATASYNC:
        ret = fdatasync(fd);
        break;
    case SDC_IO_FALLOCATE:
        ret = fallocate(fd, io->mode, (off_t)io->offset, (off_t)io->size);
        break;
    }
    return ret < 0 ? -errno : ret;
}

// --- telling the loop ---

static void finish(struct sdc_io_pool *pool, struct sdc_io *io)
{
    struct sdc_io *newest = atomic_load_explicit(&pool->finished, memory_order_relaxed);
    do
        io->next = newest;
    while (!atomic_compare_exchange_weak(&pool->finished, &newest, io));
    // From here on the loop may end the I/O, but not the pool: its end waits for the threads.
    if (!newest)
        sdc_loop_post(pool->loop, &pool->told);
}

static void tell(struct sdc_post *post)
{
    struct sdc_io_pool *pool = sdc_container(post, struct sdc_io_pool, told);
    struct sdc_io *newest = atomic_exchange(&pool->finished, NULL);
    struct sdc_io *oldest = NULL;
    while (newest) {
        struct sdc_io *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest) {
        struct sdc_io *io = oldest;
        oldest = io->next;
        io->done(io);
    }
}

// --- the threads ---

// The next I/O, or NULL. Holds the mutex.
static struct sdc_io *take(struct sdc_io_pool *pool)
{
    struct sdc_io *io = pool->queue;
    if (!io)
        return NULL;
    pool->queue = io->next;
    if (!pool->queue)
        pool->queue_end = &pool->queue;
    pool->queued--;
    return io;
}

// NULL: there was none for a while, or the pool ends. Holds the mutex.
static struct sdc_io *wait_for_io(struct sdc_io_pool *pool)
{
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += SDC_IO_POOL_IDLE_SECONDS;
    int ret = 0;
    while (!pool->queue && !pool->closing && ret == 0) {
        pool->idle++;
        ret = pthread_cond_timedwait(&pool->work, &pool->mutex, &end);
        pool->idle--;
    }
    return take(pool);
}

static void *run_worker(void *context)
{
    struct worker *worker = context;
    struct sdc_io_pool *pool = worker->pool;
    struct sdc_io *io;
    pthread_mutex_lock(&pool->mutex);
    while ((io = take(pool)) || (io = wait_for_io(pool))) {
        pthread_mutex_unlock(&pool->mutex);
        io->result = perform(io);
        finish(pool, io);
        pthread_mutex_lock(&pool->mutex);
    }
    worker->running = false;
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

// Signals are the owner's business; but a fault of this thread's own is nobody else's.
static int make_thread(struct worker *worker)
{
    sigset_t blocked, before;
    sigfillset(&blocked);
    sigdelset(&blocked, SIGSEGV);
    sigdelset(&blocked, SIGBUS);
    sigdelset(&blocked, SIGILL);
    sigdelset(&blocked, SIGFPE);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    int ret = pthread_create(&worker->thread, NULL, run_worker, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -ret;
}

static struct worker *free_place(struct sdc_io_pool *pool)
{
    for (unsigned i = 0; i < SDC_IO_POOL_THREADS; i++)
        if (!pool->workers[i].running)
            return &pool->workers[i];
    return NULL;
}

// Makes up to count threads, as there is room for them. 0, or why one cannot be made. Holds the mutex.
static int add_workers(struct sdc_io_pool *pool, unsigned count)
{
    struct worker *worker;
    int ret = 0;
    for (; ret == 0 && count > 0 && (worker = free_place(pool)); count--) {
        if (worker->made)
            pthread_join(worker->thread, NULL); // it has ended, or is just about to
        ret = make_thread(worker);
        worker->made = worker->running = ret == 0;
    }
    return ret;
}

static bool has_workers(const struct sdc_io_pool *pool)
{
    for (unsigned i = 0; i < SDC_IO_POOL_THREADS; i++)
        if (pool->workers[i].running)
            return true;
    return false;
}

// --- the owner ---

static bool is_small(const struct sdc_io *io)
{
    uint64_t size = 0;
    for (uint32_t i = 0; i < io->spans_count && size <= SDC_IO_AT_ONCE; i++)
        size += sdc_min(io->spans[i].size, SDC_IO_AT_ONCE + 1);
    return size <= SDC_IO_AT_ONCE;
}

// False: the threads have to, and what went wrong is theirs to find.
static bool read_at_once(struct sdc_io_pool *pool, struct sdc_io *io)
{
    struct sdc_loop_file *file = &pool->loop->files[io->file];
    if (io->op != SDC_IO_READ || file->wait || !is_small(io))
        return false;
    int64_t ret = read_spans(file->fd, io, RWF_NOWAIT);
    if (ret < 0 && (errno == EOPNOTSUPP || errno == ENOSYS))
        file->wait = true; // its file system cannot say what it would wait for
    if (ret <= 0)
        return false;
    io->result = ret;
    finish(pool, io);
    return true;
}

void sdc_io_pool_ask(struct sdc_io_pool *pool, struct sdc_io *io)
{
    if (read_at_once(pool, io))
        return;
    io->next = NULL;
    *pool->asked_end = io;
    pool->asked_end = &io->next;
}

// Queues what was asked for and wakes whom it takes. Holds the mutex.
static void hand_over(struct sdc_io_pool *pool)
{
    unsigned count = 0;
    for (const struct sdc_io *io = pool->asked; io; io = io->next)
        count++;
    *pool->queue_end = pool->asked;
    pool->queue_end = pool->asked_end;
    pool->asked = NULL;
    pool->asked_end = &pool->asked;
    pool->queued += count;
    for (uint64_t i = sdc_min(count, pool->idle); i > 0; i--)
        pthread_cond_signal(&pool->work);
}

// A host that is out of threads gets its I/O done all the same, only that this loop waits for it. Holds the
// mutex, which nobody else asks for.
static void do_it_here(struct sdc_io_pool *pool, int code)
{
    static struct sdc_log_kind kind;
    sdc_log_limited(&kind, SDC_LOG_WARNING,
                    "no thread can be started for file I/O (%s); everything waits while a disk is read or "
                    "written",
                    strerror(-code));
    struct sdc_io *io;
    while ((io = take(pool))) {
        io->result = perform(io);
        finish(pool, io);
    }
}

void sdc_io_pool_start(struct sdc_io_pool *pool)
{
    if (!pool->asked)
        return;
    pthread_mutex_lock(&pool->mutex);
    hand_over(pool);
    int ret = add_workers(pool, pool->queued > pool->idle ? pool->queued - pool->idle : 0);
    if (ret < 0 && !has_workers(pool))
        do_it_here(pool, ret);
    pthread_mutex_unlock(&pool->mutex);
}

void sdc_io_pool_file_add(struct sdc_loop_file *file)
{
    int flags = fcntl(file->fd, F_GETFL);

    // With O_DIRECT, RWF_NOWAIT does not wait for memory and locks, but for the disk.
    file->wait = flags < 0 || flags & O_DIRECT;
}

// --- life ---

int sdc_io_pool_new(struct sdc_loop *loop, struct sdc_io_pool **pool)
{
    struct sdc_io_pool *made = calloc(1, sizeof *made);
    if (!made)
        return -ENOMEM;
    made->loop = loop;
    made->told.run = tell;
    made->asked_end = &made->asked;
    made->queue_end = &made->queue;
    for (unsigned i = 0; i < SDC_IO_POOL_THREADS; i++)
        made->workers[i].pool = made;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&made->mutex, NULL);
    pthread_cond_init(&made->work, &monotonic);
    pthread_condattr_destroy(&monotonic);
    *pool = made;
    return 0;
}

void sdc_io_pool_free(struct sdc_io_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    pool->closing = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    for (unsigned i = 0; i < SDC_IO_POOL_THREADS; i++)
        if (pool->workers[i].made)
            pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}
