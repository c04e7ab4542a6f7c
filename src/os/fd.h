// SPDX-License-Identifier: BSD-3-Clause
// File descriptors: closing them, and finding out what a peer has sent.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

// Closes *fd if it is one and sets it to -1.
void sdc_fd_close(int *fd);
// A second fd for the same file, close-on-exec. The fd or a negative errno.
int sdc_fd_duplicate(int fd);
// Whether there is an fd of this number.
bool sdc_fd_is_open(int fd);
// Sets O_NONBLOCK. 0 or a negative errno.
int sdc_fd_set_nonblocking(int fd);
// Whether O_NONBLOCK is set.
bool sdc_fd_is_nonblocking(int fd);
// Whether fd is an eventfd (not a pipe, socket or file).
bool sdc_fd_is_eventfd(int fd);

// Raises the number of fds that this process may have open to the most that it is allowed, and returns it.
uint64_t sdc_fd_raise_limit(void);

// Reads or writes once, of a non-blocking fd of any kind; a pipe that nobody reads is SIGPIPE. Bytes, 0 at the end, or a negative errno.
ssize_t sdc_fd_read(int fd, void *buffer, size_t size);
ssize_t sdc_fd_write(int fd, const void *buffer, size_t size);

// A new eventfd, close-on-exec, non-blocking. The fd or a negative errno.
int sdc_eventfd_new(void);
// Adds 1. A full counter is as good as signalled: it does not block with O_NONBLOCK, which whoever has a copy of the fd can take off
// (no kernel has a way to write to an eventfd that does not ask for the flag).
void sdc_eventfd_signal(int fd);
// Takes the count. Never blocks, whatever the fd's flags. 0 when there was none.
uint64_t sdc_eventfd_take(int fd);

// What kind of file stands behind an fd that came as memory.
enum sdc_memory_file { SDC_MEMORY_FILE_SHARED /* memfd, tmpfs, hugetlbfs */, SDC_MEMORY_FILE_PLAIN, SDC_MEMORY_FILE_OTHER };
struct sdc_file_identity {
    dev_t device;
    ino_t inode;
    uint64_t size;      // bytes
    uint64_t page_size; // bytes: the file's own (hugetlbfs) or the system's
    enum sdc_memory_file kind;
    bool writable;      // the fd is open for writing
    bool sealed;        // F_SEAL_SHRINK is on
};
int sdc_fd_identify(int fd, struct sdc_file_identity *identity);

// Maps size bytes of fd from its start, shared. 0 or a negative errno.
int sdc_fd_map(int fd, uint64_t size, bool writable, void **base);
// Maps [offset, offset + size) of fd; offset is a multiple of its page size.
int sdc_fd_map_part(int fd, uint64_t offset, uint64_t size, bool writable, void **base);
// Memory of our own that nobody shares, all zero.
int sdc_map_private(uint64_t size, void **base);
// Addresses of ours that nothing else gets, with nothing there.
int sdc_map_reserve(uint64_t size, void **base);
// Maps [offset, offset + size) of fd, shared, at an address, in place of what is there, in one step.
int sdc_fd_map_over(int fd, uint64_t offset, uint64_t size, void *at);
void sdc_unmap(void *base, uint64_t size);
