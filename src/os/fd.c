// SPDX-License-Identifier: BSD-3-Clause
// File descriptors. What a peer sent is looked at without asking the file system behind it anything: a FUSE
// server in the peer's hands could let us wait for ever.
#include "os/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

void sdc_fd_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

int sdc_fd_duplicate(int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return copy < 0 ? -errno : copy;
}

bool sdc_fd_is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

int sdc_fd_set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -errno;
    if (!(flags & O_NONBLOCK) && fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return -errno;
    return 0;
}

bool sdc_fd_is_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && flags & O_NONBLOCK;
}

bool sdc_fd_is_eventfd(int fd)
{
    char path[40], target[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(path, target, sizeof target);
    static const char wanted[] = "anon_inode:[eventfd]";
    return length == (ssize_t)strlen(wanted) && memcmp(target, wanted, (size_t)length) == 0;
}

uint64_t sdc_fd_raise_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return UINT64_MAX; // it will be found out by running out
    struct rlimit most = {limit.rlim_max, limit.rlim_max};
    if (limit.rlim_cur < limit.rlim_max && setrlimit(RLIMIT_NOFILE, &most) == 0)
        return most.rlim_cur;
    return limit.rlim_cur;
}

int sdc_eventfd_new(void)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

void sdc_eventfd_signal(int fd)
{
    uint64_t one = 1;
    ssize_t ret;
    do
        ret = write(fd, &one, sizeof one);
    while (ret < 0 && errno == EINTR);
}

ssize_t sdc_fd_read(int fd, void *buffer, size_t size)
{
    ssize_t ret;

    do
        ret = read(fd, buffer, size);
    while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : ret;
}

ssize_t sdc_fd_write(int fd, const void *buffer, size_t size)
{
    ssize_t ret;

    do
        ret = write(fd, buffer, size);
    while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : ret;
}

uint64_t sdc_eventfd_take(int fd)
{
    uint64_t count;
    struct iovec iov = {&count, sizeof count};
    ssize_t ret;
    // O_NONBLOCK alone would not do: whoever has a copy of the fd can clear it, and take the count before us.
    do
        ret = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);
    while (ret < 0 && errno == EINTR);
    return ret == (ssize_t)sizeof count ? count : 0;
}

// Whether the file system mounted as mount_id is a FUSE one, or may be. The number is good in every mount namespace as long as the
// fd is open, so that a mount that isn't in our table is one that we don't see: of another namespace, which a peer can make for
// itself and mount in what it likes, or outside our chroot. A peer's FUSE has no block device under it, and neither has what it
// stacks on one (overlayfs): FUSE over a block device takes the machine's root to mount. Without a device under it a file of a
// mount unseen is therefore taken for FUSE. That may refuse a file on btrfs or overlayfs that came out of a container, though it
// would do; the file systems can't be told apart without asking them (fstatfs is a question to the server).
static bool is_fuse(uint64_t mount_id, unsigned device_major)
{
    bool fuse = device_major == 0;
    FILE *table = fopen("/proc/self/mountinfo", "re");
    if (!table)
        return fuse;
    char *line = NULL;
    size_t capacity = 0;
    while (getline(&line, &capacity, table) > 0) {
        if (strtoull(line, NULL, 10) != mount_id)
            continue;
        const char *type = strstr(line, " - ");
        fuse = !type || strncmp(type + 3, "fuse", 4) == 0;
        break;
    }
    free(line);
    fclose(table);
    return fuse;
}

// Memory files are those that can be sealed (memfd, tmpfs, hugetlbfs): a question that the kernel answers
// itself.
static void identify_shared(int fd, int seals, struct sdc_file_identity *identity)
{
    identity->kind = SDC_MEMORY_FILE_SHARED;
    identity->sealed = seals & F_SEAL_SHRINK;
    if (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
        identity->writable = false;
    struct statfs fs;
    if (fstatfs(fd, &fs) == 0 && fs.f_bsize > 0)
        identity->page_size = (uint64_t)fs.f_bsize;
}

int sdc_fd_identify(int fd, struct sdc_file_identity *identity)
{
    struct statx st;
    if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS | STATX_MNT_ID, &st) < 0)
        return -errno;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -errno;
    *identity = (struct sdc_file_identity){
        .device = makedev(st.stx_dev_major, st.stx_dev_minor),
        .inode = st.stx_ino,
        .size = st.stx_size,
        .page_size = (uint64_t)sysconf(_SC_PAGESIZE),
        .kind = SDC_MEMORY_FILE_OTHER,
        .writable = !(flags & O_PATH) && (flags & O_ACCMODE) == O_RDWR,
    };
    if (!S_ISREG(st.stx_mode) || flags & O_PATH)
        return 0;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals >= 0)
        identify_shared(fd, seals, identity);
    else if (st.stx_mask & STATX_MNT_ID && !is_fuse(st.stx_mnt_id, st.stx_dev_major))
        identity->kind = SDC_MEMORY_FILE_PLAIN;
    return 0;
}

static int map(int flags, int fd, uint64_t offset, uint64_t size, bool writable, void **base)
{
    if (size == 0 || size > SIZE_MAX || offset > INT64_MAX)
        return -EINVAL;
    void *address = mmap(NULL, size, PROT_READ | (writable ? PROT_WRITE : 0), flags, fd, (off_t)offset);
    if (address == MAP_FAILED)
        return -errno;
    madvise(address, size, MADV_DONTDUMP); // a guest's memory has no place in our core dump
    *base = address;
    return 0;
}

int sdc_fd_map(int fd, uint64_t size, bool writable, void **base)
{
    return map(MAP_SHARED, fd, 0, size, writable, base);
}

int sdc_fd_map_part(int fd, uint64_t offset, uint64_t size, bool writable, void **base)
{
    return map(MAP_SHARED, fd, offset, size, writable, base);
}

int sdc_map_private(uint64_t size, void **base)
{
    return map(MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, size, true, base);
}

int sdc_map_reserve(uint64_t size, void **base)
{
    *base = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return *base == MAP_FAILED ? -errno : 0;
}

int sdc_fd_map_over(int fd, uint64_t offset, uint64_t size, void *at)
{
    void *mapped = mmap(at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, (off_t)offset);

    return mapped == MAP_FAILED ? -errno : 0;
}

void sdc_unmap(void *base, uint64_t size)
{
    if (size != 0)
        munmap(base, size);
}
