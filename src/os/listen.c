// SPDX-License-Identifier: BSD-3-Clause
// Listening sockets: whose path it is, what may be replaced there, and who may connect.
#include "os/fd.h"
#include "os/socket.h"
#include "os/socket_path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int sdc_socket_address(const char *path, struct sockaddr_un *address, struct sdc_error *err)
{
    size_t length = strlen(path);
    if (length == 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "the socket's path is empty");
    if (length >= sizeof address->sun_path)
        return sdc_error_set(
            err, -ENAMETOOLONG, SDC_FAULT_USER,
            "socket path is %zu bytes long, the limit is %zu: %s; use a shorter one, or a relative one",
            length, sizeof address->sun_path - 1, path);
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(address->sun_path, path, length);
    return 0;
}

static int in_use(const char *path, struct sdc_error *err)
{
    return sdc_error_set(err, -EADDRINUSE, SDC_FAULT_USER,
                         "%s is in use by another server; stop that one or choose another path", path);
}

// --- the lock file ---

static char *lock_path_of(const char *path)
{
    char *lock_path;
    return asprintf(&lock_path, "%s.lock", path) < 0 ? NULL : lock_path;
}

// Whether fd is still the file at path: whoever held the lock before may have removed it.
static bool is_at(int fd, const char *path)
{
    struct stat held, there;
    return fstat(fd, &held) == 0 && lstat(path, &there) == 0 && held.st_dev == there.st_dev &&
           held.st_ino == there.st_ino;
}

static int no_lock(const char *path, const char *lock_path, int code, struct sdc_error *err)
{
    const char *slash = strrchr(path, '/');

    if (code == -ENOENT && slash)
        return sdc_error_set(err, code, SDC_FAULT_USER, "%s: no such directory; make it with: mkdir -p %.*s", path, (int)(slash - path),
                             path);
    return sdc_error_set(err, code, SDC_FAULT_USER, "%s: cannot open its lock file %s: %s", path, lock_path,
                         code == -ELOOP ? "it is a symbolic link" : strerror(-code));
}

static int open_lock(const char *path, const char *lock_path, struct sdc_error *err)
{
    int fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (fd < 0)
        return no_lock(path, lock_path, -errno, err);
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size != 0) {
        close(fd);
        return sdc_error_set(err, -EEXIST, SDC_FAULT_USER,
                             "%s is needed as a lock file, but there is something in it; "
                             "move it or choose another socket path",
                             lock_path);
    }
    return fd;
}

static int take_lock_at(const char *path, const char *lock_path, struct sdc_error *err)
{
    for (;;) {
        int fd = open_lock(path, lock_path, err);
        if (fd < 0)
            return fd;
        if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
            int code = errno;
            close(fd);
            if (code == EINTR)
                continue;
            return code == EWOULDBLOCK ? in_use(path, err)
                                       : sdc_error_set(err, -code, SDC_FAULT_HOST, "%s: cannot lock: %s",
                                                       lock_path, strerror(code));
        }
        if (is_at(fd, lock_path))
            return fd;
        close(fd);
    }
}

static int take_lock(const char *path, struct sdc_error *err)
{
    char *lock_path = lock_path_of(path);
    if (!lock_path)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "out of memory");
    int fd = take_lock_at(path, lock_path, err);
    free(lock_path);
    return fd;
}

// The file goes first and the lock after it: one who opened the file in between finds out with is_at.
static void drop_lock(const char *path, int *lock_fd)
{
    char *lock_path = lock_path_of(path);
    if (lock_path && *lock_fd >= 0 && is_at(*lock_fd, lock_path))
        unlink(lock_path);
    free(lock_path);
    sdc_fd_close(lock_fd);
}

// --- the path ---

// Whether somebody, not necessarily one of us, listens on the socket at address. 0 if not.
static int probe(const struct sockaddr_un *address, struct sdc_error *err)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return sdc_error_set(err, -errno, SDC_FAULT_HOST, "cannot make a socket: %s", strerror(errno));
    int code = connect(fd, (const struct sockaddr *)address, sizeof *address) < 0 ? errno : 0;
    close(fd);
    if (code == ECONNREFUSED || code == ENOENT)
        return 0;
    if (code == EACCES)
        return sdc_error_set(err, -EACCES, SDC_FAULT_USER,
                             "%s: a socket that we have no permission to replace", address->sun_path);
    return in_use(address->sun_path, err);
}

// A killed server's process is gone before the kernel has taken its io_uring apart, and until then its socket
// still listens: what answers is asked again for somewhat more than a second.
static int probe_patiently(const struct sockaddr_un *address, struct sdc_error *err)
{
    int ret = probe(address, err);
    for (long ms = 10; ret == -EADDRINUSE && ms <= 640; ms *= 2) {
        struct timespec pause = {.tv_nsec = ms * 1000000};
        nanosleep(&pause, NULL);
        ret = probe(address, err);
    }
    return ret;
}

// Makes room for a new socket, if what is there is a socket that nobody listens on.
static int clear_path(const struct sockaddr_un *address, struct sdc_error *err)
{
    const char *path = address->sun_path;
    struct stat st;
    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0
                               : sdc_error_set(err, -errno, SDC_FAULT_USER, "%s: %s", path, strerror(errno));
    if (!S_ISSOCK(st.st_mode))
        return sdc_error_set(err, -EEXIST, SDC_FAULT_USER,
                             "%s is %s, not a socket; it is left alone, choose another path", path,
                             S_ISLNK(st.st_mode)   ? "a symbolic link"
                             : S_ISDIR(st.st_mode) ? "a directory"
                             : S_ISREG(st.st_mode) ? "a file"
                                                   : "a special file");
    int ret = probe_patiently(address, err);
    if (ret < 0)
        return ret;
    if (unlink(path) < 0 && errno != ENOENT)
        return sdc_error_set(err, -errno, SDC_FAULT_USER, "%s: cannot remove the old socket: %s", path,
                             strerror(errno));
    return 0;
}

// Sets mode and owner of the socket file, through an fd so that nothing put in its place gets them.
static int set_rights(const char *path, const struct sdc_listen_options *options, struct sdc_error *err)
{
    int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISSOCK(st.st_mode)) {
        sdc_fd_close(&fd);
        return sdc_error_set(err, -EEXIST, SDC_FAULT_HOST, "%s: something else was put in its place", path);
    }
    char proc[40];
    snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd);
    int ret = 0;
    if (options->mode >= 0 && chmod(proc, (mode_t)options->mode & 07777) < 0)
        ret = sdc_error_set(err, -errno, SDC_FAULT_USER, "%s: cannot set mode %04o: %s", path,
                            (unsigned)options->mode, strerror(errno));
    else if ((options->owner != (uid_t)-1 || options->group != (gid_t)-1) &&
             fchownat(fd, "", options->owner, options->group, AT_EMPTY_PATH) < 0)
        ret = sdc_error_set(err, -errno, SDC_FAULT_USER, "%s: cannot give it to another owner: %s", path,
                            errno == EPERM ? "only root may, or for a group one of its members"
                                           : strerror(errno));
    close(fd);
    return ret;
}

// Nobody can connect before listen(): mode and owner are set between it and bind().
static int bind_and_listen(int fd, const struct sockaddr_un *address,
                           const struct sdc_listen_options *options, struct sdc_error *err)
{
    const char *path = address->sun_path;
    if (bind(fd, (const struct sockaddr *)address, sizeof *address) < 0)
        return sdc_error_set(err, -errno, SDC_FAULT_USER, "%s: cannot make the socket: %s", path,
                             errno == ENOENT ? "no such directory" : strerror(errno));
    int ret = set_rights(path, options, err);
    if (ret == 0 && listen(fd, SOMAXCONN) < 0)
        ret = sdc_error_set(err, -errno, SDC_FAULT_HOST, "%s: cannot listen: %s", path, strerror(errno));
    if (ret < 0)
        unlink(path);
    return ret;
}

static int listen_locked(const struct sockaddr_un *address, const struct sdc_listen_options *options,
                         struct sdc_error *err)
{
    int ret = clear_path(address, err);
    if (ret < 0)
        return ret;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return sdc_error_set(err, -errno, SDC_FAULT_HOST, "cannot make a socket: %s", strerror(errno));
    ret = bind_and_listen(fd, address, options, err);
    if (ret < 0) {
        close(fd);
        return ret;
    }
    sdc_socket_hold_reserve();
    return fd;
}

// Notes which file is the socket that we made.
static void note_place(const char *path, struct sdc_socket_place *place)
{
    struct stat st;
    if (lstat(path, &st) == 0) {
        place->device = st.st_dev;
        place->inode = st.st_ino;
    }
}

int sdc_socket_listen(const char *path, const struct sdc_listen_options *options,
                      struct sdc_socket_place *place, struct sdc_error *err)
{
    struct sockaddr_un address;
    *place = (struct sdc_socket_place){.lock_fd = -1};
    int ret = sdc_socket_address(path, &address, err);
    if (ret < 0)
        return ret;
    ret = take_lock(path, err);
    if (ret < 0)
        return ret;
    place->lock_fd = ret;
    ret = listen_locked(&address, options, err);
    if (ret < 0)
        drop_lock(path, &place->lock_fd);
    else
        note_place(path, place);
    return ret;
}

static int socket_option(int fd, int name)
{
    int value;
    socklen_t size = sizeof value;
    return getsockopt(fd, SOL_SOCKET, name, &value, &size) < 0 ? -errno : value;
}

bool sdc_socket_is_stream(int fd)
{
    return socket_option(fd, SO_TYPE) == SOCK_STREAM;
}

int sdc_socket_adopt(int fd, struct sdc_error *err)
{
    int domain = socket_option(fd, SO_DOMAIN);
    if (domain == -EBADF)
        return sdc_error_set(err, -EBADF, SDC_FAULT_USER,
                             "fd %d is not open; pass a listening Unix socket as that fd", fd);
    if (domain != AF_UNIX || socket_option(fd, SO_TYPE) != SOCK_STREAM ||
        socket_option(fd, SO_ACCEPTCONN) != 1)
        return sdc_error_set(err, -ENOTSOCK, SDC_FAULT_USER, "fd %d is not a listening Unix stream socket",
                             fd);
    int ret = sdc_fd_set_nonblocking(fd);
    if (ret == 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        ret = -errno;
    if (ret < 0)
        return sdc_error_set(err, ret, SDC_FAULT_HOST, "fd %d: cannot set its flags: %s", fd, strerror(-ret));
    sdc_socket_hold_reserve();
    return 0;
}

void sdc_socket_unlisten(const char *path, struct sdc_socket_place *place)
{
    if (place->lock_fd < 0)
        return;
    struct stat st;
    if (lstat(path, &st) == 0 && st.st_dev == place->device && st.st_ino == place->inode)
        unlink(path);
    drop_lock(path, &place->lock_fd);
}
