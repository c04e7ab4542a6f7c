// SPDX-License-Identifier: BSD-3-Clause
// Sends by a loop on a socket that is about to be closed while the kernel takes nothing, or a part of what it is given: all that was sent
// goes once.
#include "loop_turns.h"

#include "base/check.h"

#include <errno.h>
#include <liburing.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { ALL = -1 };

static int most = ALL; // entries of the submission queue that the kernel takes at a time
static bool refuses;   // all that a turn ends with

int __wrap_io_uring_submit(struct io_uring *ring);
int __real_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit_and_get_events(struct io_uring *ring);
int __real_io_uring_submit_and_get_events(struct io_uring *ring);

// Shows the kernel all entries, as liburing does, and has it take some of them.
int __wrap_io_uring_submit(struct io_uring *ring)
{
    struct io_uring_sq *sq = &ring->sq;

    if (most == ALL)
        return __real_io_uring_submit(ring);
    for (; sq->sqe_head != sq->sqe_tail; sq->sqe_head++)
        sq->array[sq->sqe_head & *sq->kring_mask] = sq->sqe_head & *sq->kring_mask;
    __atomic_store_n(sq->ktail, sq->sqe_tail, __ATOMIC_RELEASE);
    return most > 0 ? io_uring_enter((unsigned)ring->ring_fd, (unsigned)most, 0, 0, NULL) : -EAGAIN;
}

int __wrap_io_uring_submit_and_get_events(struct io_uring *ring)
{
    return refuses ? -EAGAIN : __real_io_uring_submit_and_get_events(ring);
}

struct fixture {
    struct sdc_loop *loop;
    int peer;
    struct sdc_send send;
    struct sdc_watch watch;
    struct sdc_deferred sender;
    struct sdc_post starter, ender;
    bool full;       // the socket
    int most;        // of the kernel, when the socket is to be closed
    unsigned failed; // sends
};

static void nothing(struct sdc_watch *watch, uint32_t events)
{
    (void)watch, (void)events;
}

// As a stream does: in another way.
static void come_back(struct sdc_send *send, uint32_t size)
{
    struct fixture *f = sdc_container(send, struct fixture, send);

    f->failed++;
    assert_int_equal(size, 3);
    if (!f->full)
        assert_int_equal(write(send->fd, send->bytes, size), size);
}

static void run_sender(struct sdc_deferred *deferred)
{
    struct fixture *f = sdc_container(deferred, struct fixture, sender);

    assert_int_equal(sdc_loop_send(f->loop, &f->send, "abc", 3), 1);
    assert_int_equal(sdc_loop_watch(f->loop, &f->watch), 0); // what goes down behind it
    sdc_loop_post(f->loop, &f->ender);
    refuses = true;
}

static void run_starter(struct sdc_post *post)
{
    struct fixture *f = sdc_container(post, struct fixture, starter);

    sdc_loop_defer(f->loop, &f->sender);
}

static void run_ender(struct sdc_post *post)
{
    struct fixture *f = sdc_container(post, struct fixture, ender);

    assert_non_null(f->send.down);
    most = f->most;
    sdc_loop_unsend(f->loop, &f->send);
    assert_int_equal(f->send.size, 0);
    most = ALL;
    refuses = false;
}

static void fill(int fd)
{
    static const char much[4096];

    while (send(fd, much, sizeof much, MSG_DONTWAIT) > 0 || send(fd, much, 1, MSG_DONTWAIT) > 0)
        ;
}

// All that is in the socket; the last bytes of it.
static size_t empty(int fd, char last[3])
{
    char bytes[4096];
    size_t count = 0;
    ssize_t got;

    while ((got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0) {
        count += (size_t)got;
        if (got >= 3)
            memcpy(last, bytes + got - 3, 3);
    }
    return count;
}

static void what_is_sent_at_the_end_goes_once(void **state)
{
    static const struct {
        int most;
        bool full;
        unsigned failed;
    } rows[] = {{ALL, false, 0}, {2, false, 0}, {1, false, 0}, {0, false, 1}, {ALL, true, 1}, {1, true, 1}, {0, true, 1}};

    (void)state;
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct fixture f = {.sender.run = run_sender, .starter.run = run_starter, .ender.run = run_ender, .most = rows[i].most,
                            .full = rows[i].full};
        char last[3] = {0};
        int pair[2];

        if (sdc_loop_new(SDC_LOOP_IO_URING, &f.loop, NULL) < 0)
            skip(); // not permitted here
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        f.peer = pair[1];
        f.send = (struct sdc_send){.fd = pair[0], .failed = come_back};
        f.watch = (struct sdc_watch){.fd = eventfd(0, 0), .wanted = SDC_READABLE, .ready = nothing};
        if (f.full)
            fill(pair[0]);
        sdc_loop_post(f.loop, &f.starter);
        loop_turns(f.loop, 8);
        assert_int_equal(f.failed, rows[i].failed);
        size_t count = empty(f.peer, last);
        if (!f.full) {
            assert_int_equal(count, 3);
            assert_memory_equal(last, "abc", 3);
        }
        sdc_loop_unwatch(f.loop, &f.watch);
        loop_turns(f.loop, 2);
        assert_int_equal(empty(f.peer, last), 0);
        sdc_loop_free(f.loop);
        close(f.watch.fd);
        close(pair[0]);
        close(pair[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_sent_at_the_end_goes_once)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
