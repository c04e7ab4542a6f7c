// SPDX-License-Identifier: BSD-3-Clause
// Unix sockets: whose path it is, connections, and messages with fds. The linker puts __wrap_flock between us
// and flock
// (-Wl,--wrap=flock).
#include "base/check.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64];
static const struct sdc_listen_options as_is = {-1, (uid_t)-1, (gid_t)-1};

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/sidecard-test-XXXXXX");
    return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    if (chdir("/") < 0)
        return -1;
    char command[100];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

static bool exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

static int listen_at(const char *path, struct sdc_socket_place *lock)
{
    struct sdc_error err = {0};
    int fd = sdc_socket_listen(path, &as_is, lock, &err);
    if (fd < 0)
        fail_msg("%s", err.text);
    return fd;
}

static void refused(const char *path, int code, const char *text)
{
    struct sdc_error err = {0};
    struct sdc_socket_place lock = {.lock_fd = 77};
    int fd = sdc_socket_listen(path, &as_is, &lock, &err);
    if (fd != code || err.code != code || !strstr(err.text, text))
        fail_msg("%s: %d '%s', expected %d '%s'", path, fd, err.text, code, text);
    assert_int_equal(lock.lock_fd, -1);
    assert_int_equal(err.fault, SDC_FAULT_USER);
}

// --- listening ---

static void a_path_is_ours_until_we_give_it_up(void **state)
{
    (void)state;
    struct sdc_socket_place lock;
    int fd = listen_at("a.sock", &lock);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    refused("a.sock", -EADDRINUSE, "in use by another server");
    int client = sdc_socket_connect("a.sock", 1000, NULL);
    assert_true(client >= 0);
    assert_false(fcntl(client, F_GETFL) & O_NONBLOCK);
    close(client);
    close(fd);
    sdc_socket_unlisten("a.sock", &lock);
    assert_int_equal(lock.lock_fd, -1);
    assert_false(exists("a.sock"));
    assert_false(exists("a.sock.lock"));
    fd = listen_at("a.sock", &lock);
    close(fd);
    sdc_socket_unlisten("a.sock", &lock);
}

static void a_dead_servers_socket_is_replaced(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        struct sdc_socket_place lock;
        listen_at("a.sock", &lock);
        kill(getpid(), SIGKILL);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_true(exists("a.sock"));
    assert_true(exists("a.sock.lock"));
    struct sdc_socket_place lock;
    int fd = listen_at("a.sock", &lock);
    int client = sdc_socket_connect("a.sock", 1000, NULL);
    assert_true(client >= 0);
    close(client);
    close(fd);
    sdc_socket_unlisten("a.sock", &lock);
}

static void somebody_elses_live_socket_is_left_alone(void **state)
{
    (void)state;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "b.sock"};
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 0), 0);
    refused("b.sock", -EADDRINUSE, "in use by another server");
    int first = sdc_socket_connect("b.sock", 100, NULL); // with the one before, the backlog is full
    refused("b.sock", -EADDRINUSE, "in use by another server");
    assert_false(exists("b.sock.lock"));
    sdc_fd_close(&first);
    close(fd);
    struct sdc_socket_place lock;
    fd = listen_at("b.sock", &lock); // no lock file of ours, but it is dead now
    close(fd);
    sdc_socket_unlisten("b.sock", &lock);
}

static void put_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    fputs(text, file);
    fclose(file);
}

static void nothing_but_a_socket_is_replaced(void **state)
{
    (void)state;
    put_file("file", "precious");
    put_file("locked.lock", "precious");
    assert_int_equal(mkdir("folder", 0700), 0);
    assert_int_equal(mkfifo("fifo", 0600), 0);
    assert_int_equal(symlink("file", "link"), 0);
    assert_int_equal(symlink("nowhere", "dangling"), 0);
    assert_int_equal(symlink("file", "trap.lock"), 0);
    refused("file", -EEXIST, "is a file, not a socket");
    refused("folder", -EEXIST, "is a directory, not a socket");
    refused("fifo", -EEXIST, "is a special file, not a socket");
    refused("link", -EEXIST, "is a symbolic link, not a socket");
    refused("dangling", -EEXIST, "is a symbolic link, not a socket");
    refused("locked", -EEXIST, "locked.lock is needed as a lock file");
    refused("trap", -ELOOP, "trap.lock: it is a symbolic link");
    refused("no/such/a.sock", -ENOENT, "no such directory");
    refused("", -EINVAL, "empty");
    struct stat st;
    assert_int_equal(stat("file", &st), 0);
    assert_int_equal(st.st_size, 8);
    assert_int_equal(stat("locked.lock", &st), 0);
    assert_int_equal(st.st_size, 8);
    assert_true(exists("link") && exists("dangling") && exists("folder") && exists("fifo"));
    assert_false(exists("nowhere") || exists("file.lock") || exists("link.lock"));
}

static void a_path_that_is_too_long_is_refused_with_its_length(void **state)
{
    (void)state;
    char path[200] = {0};
    struct sdc_socket_place lock;
    memset(path, 'x', 107);
    int fd = listen_at(path, &lock);
    int client = sdc_socket_connect(path, 1000, NULL);
    assert_true(client >= 0);
    close(client);
    close(fd);
    sdc_socket_unlisten(path, &lock);
    path[107] = 'x';
    refused(path, -ENAMETOOLONG, "socket path is 108 bytes long, the limit is 107: xxx");
    struct sdc_error err = {0};
    assert_int_equal(sdc_socket_connect(path, 1000, &err), -ENAMETOOLONG);
    assert_non_null(strstr(err.text, "108 bytes long, the limit is 107"));
}

static void mode_and_owner_are_set(void **state)
{
    (void)state;
    static const int modes[] = {0600, 0660, 0666, 0777};
    mode_t old = umask(027);
    for (size_t i = 0; i < SDC_COUNT(modes); i++) {
        struct sdc_listen_options options = {modes[i], (uid_t)-1, (gid_t)-1};
        struct sdc_socket_place lock;
        int fd = sdc_socket_listen("a.sock", &options, &lock, NULL);
        struct stat st;
        assert_true(fd >= 0);
        assert_int_equal(stat("a.sock", &st), 0);
        assert_int_equal(st.st_mode & 07777, modes[i]); // whatever the umask
        close(fd);
        sdc_socket_unlisten("a.sock", &lock);
    }
    umask(old);
    struct sdc_listen_options options = {0600, 12345, 23456};
    struct sdc_error err = {0};
    struct sdc_socket_place lock;
    int fd = sdc_socket_listen("a.sock", &options, &lock, &err);
    struct stat st;
    if (geteuid() == 0) {
        assert_true(fd >= 0);
        assert_int_equal(stat("a.sock", &st), 0);
        assert_true(st.st_uid == 12345 && st.st_gid == 23456 && (st.st_mode & 07777) == 0600);
        close(fd);
        sdc_socket_unlisten("a.sock", &lock);
    } else {
        assert_int_equal(fd, -EPERM);
        assert_non_null(strstr(err.text, "only root may"));
    }
    assert_false(exists("a.sock") || exists("a.sock.lock"));
}

// Servers that start at the same moment, again and again: at no time do two have the path.
enum { RACERS = 8, RACES = 60 };

static void servers_that_start_at_once_do_not_take_each_others_path(void **state)
{
    (void)state;
    int wins = 0;
    for (int racer = 0; racer < RACERS; racer++) {
        if (fork() != 0)
            continue;
        int own = 0;
        for (int race = 0; race < RACES; race++) {
            struct sdc_socket_place lock;
            int fd = sdc_socket_listen("race.sock", &as_is, &lock, NULL);
            if (fd < 0 && fd != -EADDRINUSE)
                _exit(255);
            if (fd < 0) {
                usleep(200);
                continue;
            }
            // We have it, so a connection through the path has to arrive here.
            int client = sdc_socket_connect("race.sock", 1000, NULL);
            int accepted = sdc_socket_accept(fd);
            if (client < 0 || accepted < 0)
                _exit(254);
            close(client);
            close(accepted);
            close(fd);
            own++;
            if (race % 3 == 0)
                close(lock.lock_fd); // as if it had been killed: the files stay
            else
                sdc_socket_unlisten("race.sock", &lock);
        }
        _exit(own > 100 ? 100 : own);
    }
    for (int racer = 0; racer < RACERS; racer++) {
        int status;
        assert_true(wait(&status) > 0);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) > 100)
            fail_msg("a server got %d", WEXITSTATUS(status));
        wins += WEXITSTATUS(status);
    }
    assert_true(wins > RACERS);
}

int __real_flock(int fd, int operation);
int __wrap_flock(int fd, int operation);
static int *swap_lock_file; // the next flock finds that a.sock.lock was replaced by one that this fd holds

int __wrap_flock(int fd, int operation)
{
    if (swap_lock_file) {
        assert_int_equal(unlink("a.sock.lock"), 0);
        *swap_lock_file = open("a.sock.lock", O_RDWR | O_CREAT, 0600);
        assert_int_equal(__real_flock(*swap_lock_file, LOCK_EX), 0);
        swap_lock_file = NULL;
    }
    return __real_flock(fd, operation);
}

// The one before removed its lock file after we had opened it, and a third made a new one: what we hold locks
// nobody out.
static void a_lock_file_that_was_replaced_is_no_lock(void **state)
{
    (void)state;
    int third = -1;
    swap_lock_file = &third;
    refused("a.sock", -EADDRINUSE, "in use by another server");
    assert_true(third >= 0);
    assert_true(exists("a.sock.lock"));
    close(third);
    struct sdc_socket_place place;
    int fd = listen_at("a.sock", &place);
    close(fd);
    sdc_socket_unlisten("a.sock", &place);
}

static void a_socket_put_in_our_place_stays(void **state)
{
    (void)state;
    struct sdc_socket_place place;
    int fd = listen_at("a.sock", &place);
    assert_int_equal(rename("a.sock", "kept.sock"), 0); // so that its inode is not used again
    int other = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "a.sock"};
    assert_int_equal(bind(other, (struct sockaddr *)&address, sizeof address), 0);
    sdc_socket_unlisten("a.sock", &place);
    assert_true(exists("a.sock"));
    assert_false(exists("a.sock.lock"));
    close(fd);
    close(other);
}

static void only_listening_unix_sockets_are_adopted(void **state)
{
    (void)state;
    int pair[2];
    struct sdc_socket_place lock;
    struct sdc_error err = {0};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    int other = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "seq.sock"};
    assert_int_equal(bind(other, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(other, 1), 0);
    int null = open("/dev/null", O_RDWR);
    assert_int_equal(sdc_socket_adopt(pair[0], &err), -ENOTSOCK);
    assert_non_null(strstr(err.text, "is not a listening Unix stream socket"));
    assert_int_equal(sdc_socket_adopt(other, &err), -ENOTSOCK);
    assert_int_equal(sdc_socket_adopt(null, &err), -ENOTSOCK);
    assert_int_equal(sdc_socket_adopt(999, &err), -EBADF);
    assert_non_null(strstr(err.text, "fd 999 is not open"));
    int fd = listen_at("a.sock", &lock);
    assert_int_equal(fcntl(fd, F_SETFL, 0), 0);
    assert_int_equal(fcntl(fd, F_SETFD, 0), 0);
    assert_int_equal(sdc_socket_adopt(fd, &err), 0);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    sdc_socket_unlisten("a.sock", &lock);
    close(fd);
    close(null);
    close(other);
    close(pair[0]);
    close(pair[1]);
}

// --- connecting and accepting ---

static void a_failed_connection_says_why(void **state)
{
    (void)state;
    struct sdc_error err = {0};
    assert_int_equal(sdc_socket_connect("none.sock", 1000, &err), -ENOENT);
    assert_non_null(strstr(err.text, "no such socket: none.sock; is the server running?"));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "full.sock"};
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(sdc_socket_connect("full.sock", 1000, &err), -ECONNREFUSED);
    assert_non_null(strstr(err.text, "nobody listens on it"));
    assert_int_equal(listen(fd, 0), 0);
    int first = sdc_socket_connect("full.sock", 1000, &err);
    assert_true(first >= 0);
    uint64_t before = sdc_clock_ns();
    assert_int_equal(sdc_socket_connect("full.sock", 100, &err), -ETIMEDOUT);
    assert_non_null(strstr(err.text, "within 100 ms"));
    assert_in_range(sdc_clock_ns() - before, 90000000, 60000000000);
    close(first);
    close(fd);
}

static void accept_takes_what_waits(void **state)
{
    (void)state;
    struct sdc_socket_place lock;
    int fd = listen_at("a.sock", &lock);
    assert_int_equal(sdc_socket_accept(fd), -EAGAIN);
    int client = sdc_socket_connect("a.sock", 1000, NULL);
    int accepted = sdc_socket_accept(fd);
    assert_true(accepted >= 0);
    assert_true(fcntl(accepted, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(accepted, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(sdc_socket_accept(fd), -EAGAIN);
    close(client);
    close(accepted);
    close(fd);
    sdc_socket_unlisten("a.sock", &lock);
}

static void without_fds_a_connection_is_taken_and_closed(void **state)
{
    (void)state;
    struct rlimit old;
    struct sdc_socket_place lock;
    int fd = listen_at("a.sock", &lock);
    int clients[3];
    for (int i = 0; i < 3; i++)
        clients[i] = sdc_socket_connect("a.sock", 1000, NULL);
    getrlimit(RLIMIT_NOFILE, &old);
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){64, old.rlim_max});
    int taken[64], count = 0;
    while (count < 64 && (taken[count] = dup(fd)) >= 0)
        count++;
    for (int i = 0; i < 3; i++) // more than once: the reserve is refilled
        assert_int_equal(sdc_socket_accept(fd), -EMFILE);
    assert_int_equal(sdc_socket_accept(fd), -EMFILE); // none waits, and the kernel looks for an fd first
    while (count > 0)
        close(taken[--count]);
    setrlimit(RLIMIT_NOFILE, &old);
    assert_int_equal(sdc_socket_accept(fd), -EAGAIN);
    char byte;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(recv(clients[i], &byte, 1, 0), 0); // closed, not forgotten
        close(clients[i]);
    }
    int client = sdc_socket_connect("a.sock", 1000, NULL);
    int accepted = sdc_socket_accept(fd);
    assert_true(accepted >= 0);
    close(accepted);
    close(client);
    close(fd);
    sdc_socket_unlisten("a.sock", &lock);
}

// --- messages ---

static unsigned open_fds(void)
{
    unsigned count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void fds_travel_with_the_first_byte(void **state)
{
    (void)state;
    int pair[2], fds[SDC_SOCKET_FDS_MAX], got[SDC_SOCKET_FDS_MAX], count;
    char buffer[100];
    static const unsigned numbers[] = {0, 1, 16, SDC_SOCKET_FDS_MAX};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(sdc_socket_receive(pair[1], buffer, sizeof buffer, got, &count), -EAGAIN);
    assert_int_equal(count, 0);
    for (size_t row = 0; row < SDC_COUNT(numbers); row++) {
        for (unsigned i = 0; i < numbers[row]; i++)
            fds[i] = pair[0];
        struct iovec iov[2] = {{(char *)"he", 2}, {(char *)"llo", 3}};
        assert_int_equal(sdc_socket_send(pair[0], iov, 2, fds, numbers[row]), 5);
        assert_int_equal(sdc_socket_receive(pair[1], buffer, 3, got, &count), 3);
        assert_int_equal(count, numbers[row]);
        for (int i = 0; i < count; i++) {
            assert_true(fcntl(got[i], F_GETFD) & FD_CLOEXEC);
            close(got[i]);
        }
        assert_int_equal(sdc_socket_receive(pair[1], buffer + 3, sizeof buffer - 3, got, &count), 2);
        assert_int_equal(count, 0);
        assert_memory_equal(buffer, "hello", 5);
    }
    assert_int_equal(sdc_socket_send(pair[0], NULL, 0, fds, SDC_SOCKET_FDS_MAX + 1), -EINVAL);
    close(pair[0]);
    assert_int_equal(sdc_socket_receive(pair[1], buffer, sizeof buffer, got, &count), 0);
    struct iovec iov = {(char *)"x", 1};
    assert_int_equal(sdc_socket_send(pair[1], &iov, 1, NULL, 0), -EPIPE); // and no SIGPIPE
    close(pair[1]);
}

static void fds_that_find_no_room_are_closed(void **state)
{
    (void)state;
    int pair[2], fds[8], got[SDC_SOCKET_FDS_MAX], count;
    char buffer[10];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    for (int i = 0; i < 8; i++)
        fds[i] = pair[0];
    struct iovec iov = {(char *)"x", 1};
    assert_int_equal(sdc_socket_send(pair[0], &iov, 1, fds, 8), 1);
    unsigned before = open_fds();
    struct rlimit old;
    getrlimit(RLIMIT_NOFILE, &old);
    int last = dup(0); // three more fit
    close(last);
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){(rlim_t)last + 3, old.rlim_max});
    assert_int_equal(sdc_socket_receive(pair[1], buffer, sizeof buffer, got, &count), 1);
    setrlimit(RLIMIT_NOFILE, &old);
    assert_int_equal(count, -1);
    assert_int_equal(open_fds(), before);
    close(pair[0]);
    close(pair[1]);
}

static void a_full_socket_does_not_block(void **state)
{
    (void)state;
    int pair[2];
    char block[4096] = {0};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    struct iovec iov = {block, sizeof block};
    ssize_t ret;
    while ((ret = sdc_socket_send(pair[0], &iov, 1, NULL, 0)) > 0)
        ;
    assert_int_equal(ret, -EAGAIN);
    // Closed with input unread, the peer would get ECONNRESET instead of the end.
    sdc_socket_close_read_out(&pair[1]);
    assert_int_equal(pair[1], -1);
    assert_int_equal(recv(pair[0], block, 1, 0), 0);
    sdc_socket_close_read_out(&pair[1]);
    close(pair[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_path_is_ours_until_we_give_it_up, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_dead_servers_socket_is_replaced, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(somebody_elses_live_socket_is_left_alone, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(nothing_but_a_socket_is_replaced, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_path_that_is_too_long_is_refused_with_its_length, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(mode_and_owner_are_set, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(servers_that_start_at_once_do_not_take_each_others_path, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(a_lock_file_that_was_replaced_is_no_lock, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_socket_put_in_our_place_stays, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(only_listening_unix_sockets_are_adopted, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_failed_connection_says_why, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(accept_takes_what_waits, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(without_fds_a_connection_is_taken_and_closed, make_folder,
                                        remove_folder),
        cmocka_unit_test(fds_travel_with_the_first_byte),
        cmocka_unit_test(fds_that_find_no_room_are_closed),
        cmocka_unit_test(a_full_socket_does_not_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
