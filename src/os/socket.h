// SPDX-License-Identifier: BSD-3-Clause
// Unix stream sockets, and messages that carry fds.
#pragma once

#include <sidecard/error.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

enum { SDC_SOCKET_FDS_MAX = 253 }; // what Linux passes in one message at most

struct sdc_listen_options {
    int mode;             // of the socket file; -1: as umask says
    uid_t owner;          // (uid_t)-1: unchanged
    gid_t group;          // (gid_t)-1: unchanged
};

// A path that is ours: its lock, and which file we made there.
struct sdc_socket_place {
    int lock_fd; // -1: not ours
    dev_t device;
    ino_t inode;
};

// Listens on path, non-blocking, close-on-exec. A socket file that nobody listens on any more is replaced (held by a lock file
// beside it, PATH.lock, so that two servers that start at once don't take each other's); one that is in use, a symlink or any
// other file is refused. *place says what is ours. The fd or a negative errno, with *err filled.
int sdc_socket_listen(const char *path, const struct sdc_listen_options *options, struct sdc_socket_place *place,
                      struct sdc_error *err);
// Checks that fd is a listening Unix stream socket and makes it non-blocking and close-on-exec.
int sdc_socket_adopt(int fd, struct sdc_error *err);
// Removes the socket file, unless somebody has put another in its place, and gives up the lock.
void sdc_socket_unlisten(const char *path, struct sdc_socket_place *place);
// Blocks while the server's backlog is full, at most timeout_ms. The fd (blocking, close-on-exec) or a negative errno.
int sdc_socket_connect(const char *path, int timeout_ms, struct sdc_error *err);
// Which file is at a path: another one there is not equal, with a number that was used before neither. False: none is.
struct sdc_socket_file {
    uint64_t device, inode, born_ns;
};
bool sdc_socket_file(const char *path, struct sdc_socket_file *file);
bool sdc_socket_same_file(const struct sdc_socket_file *a, const struct sdc_socket_file *b);
// Whether a socket can have such a path: 0, -ENAMETOOLONG or -EINVAL.
int sdc_socket_check_path(const char *path, struct sdc_error *err);
// Two stream sockets that are connected with each other, close-on-exec. 0 or a negative errno.
int sdc_socket_pair(int pair[2]);
// Whether fd is a stream socket.
bool sdc_socket_is_stream(int fd);
// Whether a and b may be the two ends of one connection, by their names: each has the one that the other knows its peer by. False if
// neither has a name.
bool sdc_socket_may_be_ends(int a, int b);
// A connection, non-blocking, close-on-exec, or a negative errno: -EAGAIN none waits; -EMFILE when fds have run out: then the
// connection was accepted by means of a reserve fd and closed, so that the caller's loop does not spin.
int sdc_socket_accept(int fd);

// Whether fd is one end of a connection of Unix stream sockets.
bool sdc_socket_is_connected(int fd);

// Receives once, without blocking. *fds_count fds arrive close-on-exec; if the control data was cut, those that arrived are closed
// and *fds_count is -1. Returns bytes, 0 at the end, or a negative errno.
ssize_t sdc_socket_receive(int fd, void *buffer, size_t size, int fds[SDC_SOCKET_FDS_MAX], int *fds_count);
// Sends once, without blocking and without SIGPIPE; fds go with the first byte. Bytes or a negative errno.
ssize_t sdc_socket_send(int fd, const struct iovec *iov, unsigned iov_count, const int *fds, unsigned fds_count);
// Whether the peer has received all that was sent.
bool sdc_socket_drained(int fd);
// The same two with a note of how much was moved, in memory that outlasts the process (SDC_SOCKET_NOTE bytes, 8-byte aligned): the kernel
// makes it in the very call, so that whoever is killed around it leaves behind what is true.
enum { SDC_SOCKET_NOTE = 64 };
ssize_t sdc_socket_receive_noted(int fd, void *buffer, size_t size, int fds[SDC_SOCKET_FDS_MAX], int *fds_count, void *note);
ssize_t sdc_socket_send_noted(int fd, const struct iovec *iov, unsigned iov_count, const int *fds, unsigned fds_count, void *note);
void sdc_socket_note_clear(void *note);
// Bytes that were moved since the note was cleared. Whoever left it may lie.
uint32_t sdc_socket_note(const void *note);
// Whether fds came too, and the process that received them has not said that they are safe.
bool sdc_socket_note_has_fds(const void *note);
void sdc_socket_note_fds_safe(void *note);
// Whether fd is a Unix socket that keeps messages apart (SOCK_SEQPACKET).
bool sdc_socket_is_seqpacket(int fd);

// Reads away what has arrived, then closes: QEMU aborts if it is closed with unread input.
void sdc_socket_close_read_out(int *fd);
