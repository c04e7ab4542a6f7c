// SPDX-License-Identifier: BSD-3-Clause
// File descriptors: eventfds, and what stands behind an fd that a peer sent.
#include "base/check.h"
#include "os/fd.h"
#include "os/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void eventfds_count_and_never_block(void **state)
{
    (void)state;
    int fd = sdc_eventfd_new();
    assert_true(fd >= 0);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(sdc_eventfd_take(fd), 0);
    sdc_eventfd_signal(fd);
    sdc_eventfd_signal(fd);
    assert_int_equal(sdc_eventfd_take(fd), 2);
    assert_int_equal(sdc_eventfd_take(fd), 0);
    uint64_t full = UINT64_MAX - 1;
    assert_int_equal(write(fd, &full, sizeof full), sizeof full);
    sdc_eventfd_signal(fd); // does not wait for room
    assert_int_equal(sdc_eventfd_take(fd), UINT64_MAX - 1);
    assert_int_equal(fcntl(fd, F_SETFL, 0), 0); // by somebody who has a copy
    assert_int_equal(sdc_eventfd_take(fd), 0);
    sdc_fd_close(&fd);
    assert_int_equal(fd, -1);
    sdc_fd_close(&fd);
}

static void only_eventfds_are_eventfds(void **state)
{
    (void)state;
    int pipes[2], pair[2];
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    const struct {
        int fd;
        bool is;
    } rows[] = {
        {eventfd(0, 0), true},
        {eventfd(0, EFD_SEMAPHORE), true},
        {pipes[0], false},
        {pipes[1], false},
        {pair[0], false},
        {pair[1], false},
        {timerfd_create(CLOCK_MONOTONIC, 0), false},
        {epoll_create1(0), false},
        {memfd_create("anon_inode:[eventfd]", 0), false},
        {open("/dev/null", O_RDWR), false},
    };
    for (size_t i = 0; i < SDC_COUNT(rows); i++) {
        assert_true(rows[i].fd >= 0);
        if (sdc_fd_is_eventfd(rows[i].fd) != rows[i].is)
            fail_msg("row %zu", i);
    }
    for (size_t i = 0; i < SDC_COUNT(rows); i++)
        close(rows[i].fd);
    assert_false(sdc_fd_is_eventfd(-1));
    assert_false(sdc_fd_is_eventfd(rows[0].fd)); // closed
}

static void non_blocking_is_added_to_the_flags(void **state)
{
    (void)state;
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(sdc_fd_set_nonblocking(pipes[0]), 0);
    assert_true(fcntl(pipes[0], F_GETFL) & O_NONBLOCK);
    assert_int_equal(sdc_fd_set_nonblocking(pipes[0]), 0);
    close(pipes[0]);
    close(pipes[1]);
    assert_int_equal(sdc_fd_set_nonblocking(-1), -EBADF);
}

// --- memory files ---

static int sized_memfd(unsigned flags, off_t size)
{
    int fd = memfd_create("memory", flags | MFD_ALLOW_SEALING);
    if (fd >= 0)
        assert_int_equal(ftruncate(fd, size), 0);
    return fd;
}

static void memory_files_are_told_from_others(void **state)
{
    (void)state;
    int pipes[2], pair[2];
    char plain[] = "/var/tmp/sidecard-test-XXXXXX";
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    int plain_fd = mkstemp(plain);
    assert_true(plain_fd >= 0);
    struct sdc_file_identity probe;
    assert_int_equal(sdc_fd_identify(plain_fd, &probe), 0);
    bool on_disk = probe.kind == SDC_MEMORY_FILE_PLAIN; // unless /var/tmp is a tmpfs
    const struct {
        const char *what;
        int fd;
        enum sdc_memory_file kind;
        bool writable;
    } rows[] = {
        {"memfd", sized_memfd(0, 8192), SDC_MEMORY_FILE_SHARED, true},
        {"tmpfs", open("/dev/shm", O_TMPFILE | O_RDWR, 0600), SDC_MEMORY_FILE_SHARED, true},
        {"file", plain_fd, on_disk ? SDC_MEMORY_FILE_PLAIN : SDC_MEMORY_FILE_SHARED, true},
        {"read-only file", open(plain, O_RDONLY), on_disk ? SDC_MEMORY_FILE_PLAIN : SDC_MEMORY_FILE_SHARED,
         false},
        {"write-only file", open(plain, O_WRONLY), on_disk ? SDC_MEMORY_FILE_PLAIN : SDC_MEMORY_FILE_SHARED,
         false},
        {"O_PATH", open(plain, O_PATH), SDC_MEMORY_FILE_OTHER, false},
        {"directory", open("/dev/shm", O_RDONLY), SDC_MEMORY_FILE_OTHER, false},
        {"pipe", pipes[0], SDC_MEMORY_FILE_OTHER, false},
        {"socket", pair[0], SDC_MEMORY_FILE_OTHER, true},
        {"device", open("/dev/zero", O_RDWR), SDC_MEMORY_FILE_OTHER, true},
        {"eventfd", eventfd(0, 0), SDC_MEMORY_FILE_OTHER, true},
    };
    for (size_t i = 0; i < SDC_COUNT(rows); i++) {
        struct sdc_file_identity identity;
        int ret = sdc_fd_identify(rows[i].fd, &identity);
        if (ret != 0 || identity.kind != rows[i].kind || identity.writable != rows[i].writable ||
            identity.sealed)
            fail_msg("%s: %d, kind %d, writable %d", rows[i].what, ret, identity.kind, identity.writable);
        close(rows[i].fd);
    }
    close(pipes[1]);
    close(pair[1]);
    unlink(plain);
    assert_int_equal(sdc_fd_identify(-1, &probe), -EBADF);
}

// A peer in a mount namespace of its own opens these and sends them; 77 if it may not have one.
static void send_from_elsewhere(int socket, const char *const *paths, unsigned count)
{
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0 && unshare(CLONE_NEWNS) < 0)
        _exit(77);
    for (unsigned i = 0; i < count; i++) {
        int fd = open(paths[i], O_RDONLY | O_CLOEXEC);
        struct iovec iov = {"x", 1};
        if (fd < 0 || sdc_socket_send(socket, &iov, 1, &fd, 1) != 1)
            _exit(1);
    }
    _exit(0);
}

static void a_mount_that_is_not_seen_may_be_fuse_unless_a_device_is_under_it(void **state)
{
    (void)state;
    char plain[] = "/var/tmp/sidecard-test-XXXXXX";
    close(mkstemp(plain));
    const char *paths[] = {plain, "/proc/version"};
    int pair[2], status;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    pid_t peer = fork();
    if (peer == 0)
        send_from_elsewhere(pair[1], paths, 2);
    assert_int_equal(waitpid(peer, &status, 0), peer);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        unlink(plain);
        skip();
    }
    assert_int_equal(status, 0);
    for (unsigned i = 0; i < 2; i++) {
        int fds[SDC_SOCKET_FDS_MAX], count;
        char byte;
        struct sdc_file_identity here, sent;
        assert_int_equal(sdc_socket_receive(pair[0], &byte, 1, fds, &count), 1);
        assert_int_equal(count, 1);
        int own = open(paths[i], O_RDONLY);
        assert_int_equal(sdc_fd_identify(own, &here), 0);
        assert_int_equal(sdc_fd_identify(fds[0], &sent), 0);
        assert_true(here.device == sent.device && here.inode == sent.inode);
        // What can be sealed is known for itself; of the rest only what lies on a device.
        bool known = here.kind == SDC_MEMORY_FILE_SHARED || major(sent.device) != 0;
        assert_int_equal(sent.kind, known ? here.kind : SDC_MEMORY_FILE_OTHER);
        close(own);
        close(fds[0]);
    }
    unlink(plain);
    close(pair[0]);
    close(pair[1]);
}

static void a_memfd_is_measured(void **state)
{
    (void)state;
    struct sdc_file_identity a, b, again;
    int fd = sized_memfd(0, 8192), other = sized_memfd(0, 0), copy = dup(fd);
    assert_int_equal(sdc_fd_identify(fd, &a), 0);
    assert_int_equal(sdc_fd_identify(other, &b), 0);
    assert_int_equal(sdc_fd_identify(copy, &again), 0);
    assert_int_equal(a.size, 8192);
    assert_int_equal(a.page_size, sysconf(_SC_PAGESIZE));
    assert_true(a.device == b.device && a.inode != b.inode);
    assert_true(a.device == again.device && a.inode == again.inode);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    assert_int_equal(sdc_fd_identify(fd, &a), 0);
    assert_true(a.sealed && a.writable);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
    assert_int_equal(sdc_fd_identify(fd, &a), 0);
    assert_false(a.writable); // though the fd is open for it
    int huge = memfd_create("huge", MFD_HUGETLB | MFD_CLOEXEC);
    if (huge >= 0) {
        assert_int_equal(sdc_fd_identify(huge, &a), 0);
        assert_int_equal(a.kind, SDC_MEMORY_FILE_SHARED);
        assert_true(a.page_size > (uint64_t)sysconf(_SC_PAGESIZE));
        close(huge);
    }
    close(fd);
    close(copy);
    close(other);
}

static void a_mapping_shows_the_file(void **state)
{
    (void)state;
    int fd = sized_memfd(0, 8192);
    void *writable, *readable;
    assert_int_equal(sdc_fd_map(fd, 8192, true, &writable), 0);
    assert_int_equal(sdc_fd_map(fd, 8192, false, &readable), 0);
    strcpy((char *)writable + 4096, "shared");
    assert_string_equal((char *)readable + 4096, "shared");
    sdc_unmap(writable, 8192);
    sdc_unmap(readable, 8192);
    assert_int_equal(sdc_fd_map(fd, 0, true, &writable), -EINVAL);
    assert_int_equal(sdc_fd_map(-1, 4096, true, &writable), -EBADF);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
    assert_int_equal(sdc_fd_map(fd, 8192, true, &writable), -EPERM);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eventfds_count_and_never_block),
        cmocka_unit_test(only_eventfds_are_eventfds),
        cmocka_unit_test(non_blocking_is_added_to_the_flags),
        cmocka_unit_test(memory_files_are_told_from_others),
        cmocka_unit_test(a_mount_that_is_not_seen_may_be_fuse_unless_a_device_is_under_it),
        cmocka_unit_test(a_memfd_is_measured),
        cmocka_unit_test(a_mapping_shows_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
