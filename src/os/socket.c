// SPDX-License-Identifier: BSD-3-Clause
// Unix stream sockets that are connected: connect, accept, receive and send with fds.
#include "os/socket.h"

#include "os/clock.h"
#include "os/fd.h"
#include "os/socket_path.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#define MS_NS UINT64_C(1000000)

// --- connect ---

// Lets connect() wait for a place in the backlog for at most timeout_ms.
static void limit_connect(int fd, uint64_t timeout_ms)
{
    // The kernel takes 0 as "for ever".
    struct timeval limit = {.tv_sec = (time_t)(timeout_ms / 1000),
                            .tv_usec = timeout_ms == 0 ? 1 : (suseconds_t)(timeout_ms % 1000) * 1000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

static int connect_until(int fd, const struct sockaddr_un *address, uint64_t deadline_ns)
{
    for (;;) {
        uint64_t now = sdc_clock_ns();
        limit_connect(fd, now < deadline_ns ? (deadline_ns - now) / MS_NS : 0);
        if (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0)
            return 0;
        if (errno != EINTR)
            return errno == EAGAIN ? -ETIMEDOUT : -errno;
    }
}

static bool is_socket(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISSOCK(st.st_mode);
}

static int connect_error(const char *path, int code, int timeout_ms, struct sdc_error *err)
{
    switch (code) {
    case -ENOENT:
        return sdc_error_set(err, code, SDC_FAULT_USER, "no such socket: %s; is the server running?", path);
    case -ECONNREFUSED:
        return sdc_error_set(err, code, SDC_FAULT_USER,
                             is_socket(path)
                                 ? "%s: nobody listens on it; the server that made it is gone, start it again"
                                 : "%s: is not a socket; give the path that sidecard serve was given",
                             path);
    case -EACCES:
        return sdc_error_set(err, code, SDC_FAULT_USER,
                             "%s: no permission to connect; the server sets that with --socket-mode and "
                             "--socket-owner",
                             path);
    case -ETIMEDOUT:
        return sdc_error_set(
            err, code, SDC_FAULT_HOST,
            "%s: the server did not accept the connection within %d ms; is another client on it?", path,
            timeout_ms);
    default:
        return sdc_error_set(err, code, SDC_FAULT_HOST, "%s: cannot connect: %s", path, strerror(-code));
    }
}

bool sdc_socket_file(const char *path, struct sdc_socket_file *file)
{
    struct stat st;

    if (lstat(path, &st) < 0)
        return false;
    *file = (struct sdc_socket_file){.device = st.st_dev,
                                     .inode = st.st_ino,
                                     .born_ns = (uint64_t)st.st_ctim.tv_sec * UINT64_C(1000000000) + (uint64_t)st.st_ctim.tv_nsec};
    return true;
}

bool sdc_socket_same_file(const struct sdc_socket_file *a, const struct sdc_socket_file *b)
{
    return a->device == b->device && a->inode == b->inode && a->born_ns == b->born_ns;
}

int sdc_socket_check_path(const char *path, struct sdc_error *err)
{
    struct sockaddr_un address;

    return sdc_socket_address(path, &address, err);
}

int sdc_socket_connect(const char *path, int timeout_ms, struct sdc_error *err)
{
    struct sockaddr_un address;
    int ret = sdc_socket_address(path, &address, err);
    if (ret < 0)
        return ret;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return sdc_error_set(err, -errno, SDC_FAULT_HOST, "cannot make a socket: %s", strerror(errno));
    if (timeout_ms < 0)
        timeout_ms = 0;
    ret = connect_until(fd, &address, sdc_clock_ns() + (uint64_t)timeout_ms * MS_NS);
    if (ret < 0) {
        close(fd);
        return connect_error(path, ret, timeout_ms, err);
    }
    struct timeval none = {0};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none);
    return fd;
}

int sdc_socket_pair(int pair[2])
{
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 ? -errno : 0;
}

// --- accept ---

// When fds have run out, a connection can neither be accepted nor refused, and the listening socket stays
// readable. This one is given up for a moment to take such a connection and close it.
static pthread_mutex_t reserve_lock = PTHREAD_MUTEX_INITIALIZER;
static int reserve = -1;

static void fill_reserve(void)
{
    if (reserve < 0)
        reserve = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

void sdc_socket_hold_reserve(void)
{
    pthread_mutex_lock(&reserve_lock);
    fill_reserve();
    pthread_mutex_unlock(&reserve_lock);
}

static int accept_once(int fd)
{
    int accepted;
    do
        accepted = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    while (accepted < 0 && (errno == EINTR || errno == ECONNABORTED));
    return accepted < 0 ? -errno : accepted;
}

int sdc_socket_accept(int fd)
{
    int accepted = accept_once(fd);
    if (accepted != -EMFILE && accepted != -ENFILE)
        return accepted;
    pthread_mutex_lock(&reserve_lock);
    sdc_fd_close(&reserve);
    int refused = accept_once(fd);
    sdc_fd_close(&refused);
    fill_reserve();
    pthread_mutex_unlock(&reserve_lock);
    return -EMFILE;
}

// --- receive ---

static bool has_option(int fd, int option, int wanted)
{
    int value;
    socklen_t size = sizeof value;
    return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 && value == wanted;
}

// Its own name, or its peer's: how many bytes there are of the path.
static size_t name_of(int fd, bool peer, struct sockaddr_un *name)
{
    socklen_t size = sizeof *name;
    int ret = peer ? getpeername(fd, (struct sockaddr *)name, &size) : getsockname(fd, (struct sockaddr *)name, &size);

    return ret < 0 || size <= offsetof(struct sockaddr_un, sun_path) ? 0 : size - offsetof(struct sockaddr_un, sun_path);
}

bool sdc_socket_may_be_ends(int a, int b)
{
    bool named = false;

    for (int i = 0; i < 2; i++) {
        struct sockaddr_un own, known;
        size_t size = name_of(i == 0 ? a : b, false, &own);
        if (name_of(i == 0 ? b : a, true, &known) != size || memcmp(own.sun_path, known.sun_path, size) != 0)
            return false;
        named |= size > 0;
    }
    return named;
}

bool sdc_socket_is_connected(int fd)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    return has_option(fd, SO_DOMAIN, AF_UNIX) && has_option(fd, SO_TYPE, SOCK_STREAM) &&
           getpeername(fd, (struct sockaddr *)&peer, &size) == 0;
}

// Moves the fds of one control message to fds, behind those that are there.
static int take_fds(struct cmsghdr *control, int fds[SDC_SOCKET_FDS_MAX], int count)
{
    size_t bytes = control->cmsg_len - CMSG_LEN(0);
    for (size_t at = 0; at + sizeof(int) <= bytes; at += sizeof(int)) {
        int fd;
        memcpy(&fd, CMSG_DATA(control) + at, sizeof fd);
        if (count < SDC_SOCKET_FDS_MAX)
            fds[count++] = fd;
        else
            close(fd);
    }
    return count;
}

// The kernel writes into note how much it has moved (struct mmsghdr), or returns it if there is none.
static ssize_t receive(int fd, struct msghdr *message, struct mmsghdr *note)
{
    const int flags = MSG_DONTWAIT | MSG_CMSG_CLOEXEC;

    if (!note)
        return recvmsg(fd, message, flags);
    note->msg_hdr = *message;
    int ret = recvmmsg(fd, note, 1, flags, NULL);
    *message = note->msg_hdr;
    return ret < 0 ? -1 : (ssize_t)note->msg_len;
}

ssize_t sdc_socket_receive_noted(int fd, void *buffer, size_t size, int fds[SDC_SOCKET_FDS_MAX], int *fds_count, void *note)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * SDC_SOCKET_FDS_MAX)];
    struct iovec iov = {buffer, size};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    *fds_count = 0;
    ssize_t ret;
    do
        ret = receive(fd, &message, note);
    while (ret < 0 && errno == EINTR);
    if (ret < 0)
        return -errno;
    int count = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
            count = take_fds(c, fds, count);
    if (message.msg_flags & MSG_CTRUNC) {
        while (count > 0)
            close(fds[--count]);
        count = -1;
    }
    *fds_count = count;
    return ret;
}

ssize_t sdc_socket_receive(int fd, void *buffer, size_t size, int fds[SDC_SOCKET_FDS_MAX], int *fds_count)
{
    return sdc_socket_receive_noted(fd, buffer, size, fds, fds_count, NULL);
}

// --- send ---

static ssize_t send_message(int fd, const struct msghdr *message, struct mmsghdr *note)
{
    const int flags = MSG_NOSIGNAL | MSG_DONTWAIT;

    if (!note)
        return sendmsg(fd, message, flags);
    note->msg_hdr = *message;
    return sendmmsg(fd, note, 1, flags) < 0 ? -1 : (ssize_t)note->msg_len;
}

ssize_t sdc_socket_send_noted(int fd, const struct iovec *iov, unsigned iov_count, const int *fds, unsigned fds_count, void *note)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * SDC_SOCKET_FDS_MAX)];
    struct msghdr message = {.msg_iov = (struct iovec *)iov, .msg_iovlen = iov_count};
    if (fds_count > SDC_SOCKET_FDS_MAX)
        return -EINVAL;
    if (fds_count > 0) {
        memset(control, 0, sizeof control);
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * fds_count);
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * fds_count);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * fds_count);
    }
    ssize_t ret;
    do
        ret = send_message(fd, &message, note);
    while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : ret;
}

ssize_t sdc_socket_send(int fd, const struct iovec *iov, unsigned iov_count, const int *fds,
                        unsigned fds_count)
{
    return sdc_socket_send_noted(fd, iov, iov_count, fds, fds_count, NULL);
}

void sdc_socket_note_clear(void *note)
{
    _Static_assert(sizeof(struct mmsghdr) <= SDC_SOCKET_NOTE, "a note holds what the kernel writes");
    memset(note, 0, SDC_SOCKET_NOTE);
}

uint32_t sdc_socket_note(const void *note)
{
    struct mmsghdr copy;

    memcpy(&copy, note, sizeof copy);
    return copy.msg_len;
}

// Where bytes were received, the kernel has written how much came beside them.
bool sdc_socket_note_has_fds(const void *note)
{
    struct mmsghdr copy;

    memcpy(&copy, note, sizeof copy);
    return copy.msg_len > 0 && copy.msg_hdr.msg_controllen > 0;
}

void sdc_socket_note_fds_safe(void *note)
{
    __atomic_store_n(&((struct mmsghdr *)note)->msg_hdr.msg_controllen, 0, __ATOMIC_RELEASE);
}

bool sdc_socket_is_seqpacket(int fd)
{
    int domain = 0, type = 0;
    socklen_t size = sizeof domain;

    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0)
        return false;
    size = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && domain == AF_UNIX && type == SOCK_SEQPACKET;
}

bool sdc_socket_drained(int fd)
{
    int unread;
    return ioctl(fd, SIOCOUTQ, &unread) == 0 && unread == 0;
}

// --- the end ---

void sdc_socket_close_read_out(int *fd)
{
    if (*fd < 0)
        return;
    // After SHUT_RD the peer can add nothing, so that the loop ends; fds in what is read here are dropped by
    // the kernel.
    shutdown(*fd, SHUT_RD);
    char waste[4096];
    ssize_t ret;
    do
        ret = recv(*fd, waste, sizeof waste, MSG_DONTWAIT);
    while (ret > 0 || (ret < 0 && errno == EINTR));
    sdc_fd_close(fd);
}
