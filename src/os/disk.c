// SPDX-License-Identifier: BSD-3-Clause
// Disk images and block devices.
#include "os/disk.h"

#include "base/check.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { SECTOR = 512, CAUTIOUS_ALIGN = 4096, BLOCK_MOST = 65536 };

// --- opening ---

static int open_error(const char *path, int code, bool read_only, struct sdc_error *err)
{
    bool device = strncmp(path, "/dev/", 5) == 0;
    switch (code) {
    case ENOENT:
        return device ? sdc_error_set(err, -code, SDC_FAULT_USER, "no such device: %s", path)
                      : sdc_error_set(err, -code, SDC_FAULT_USER,
                                      "no such file: %s; make one with: truncate -s 10G %s", path, path);
    case EISDIR:
        return sdc_error_set(err, -code, SDC_FAULT_USER,
                             "%s is a directory; name a disk image or a block device", path);
    case EACCES:
    case EROFS:
    case EPERM:
        return sdc_error_set(err, -code, SDC_FAULT_USER, "%s: no permission to %s it (%s)%s", path,
                             read_only ? "read" : "read and write", strerror(code),
                             read_only ? "" : "; if reading is enough, add --read-only");
    default:
        return sdc_error_set(err, -code, SDC_FAULT_HOST, "%s: cannot open: %s", path, strerror(code));
    }
}

int sdc_disk_open(const char *path, bool read_only, struct sdc_error *err)
{
    // O_NONBLOCK so that a fifo doesn't keep us waiting. It is taken off again: io_uring would not wait for
    // I/O either.
    int fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return open_error(path, errno, read_only, err);
    struct stat st;
    int code = fstat(fd, &st) < 0 || fcntl(fd, F_SETFL, 0) < 0 ? errno : 0;
    if (code != 0) {
        close(fd);
        return open_error(path, code, read_only, err);
    }
    if (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))
        return fd;
    close(fd);
    if (S_ISDIR(st.st_mode))
        return open_error(path, EISDIR, read_only, err);
    return sdc_error_set(err, -EINVAL, SDC_FAULT_HOST, "%s is neither a file nor a block device", path);
}

int sdc_disk_set_direct(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 || fcntl(fd, F_SETFL, flags | O_DIRECT) < 0 ? -errno : 0;
}

int64_t sdc_disk_peek(int fd, uint64_t offset, void *buffer, size_t size)
{
    ssize_t ret;
    do
        ret = pread(fd, buffer, size, (off_t)offset);
    while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : ret;
}

// --- shape ---

int sdc_disk_size(int fd, uint64_t *size)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (S_ISBLK(st.st_mode))
        return ioctl(fd, BLKGETSIZE64, size) < 0 ? -errno : 0;
    *size = (uint64_t)st.st_size;
    return 0;
}

// A power of two between 512 and 64 KiB, whatever the kernel says.
static uint32_t sane_block(uint64_t size)
{
    return sdc_is_power_of_two(size) && size >= SECTOR && size <= BLOCK_MOST ? (uint32_t)size : SECTOR;
}

// A number from the device's queue directory in sysfs (a partition's is its parent's), 0 when it isn't there.
static uint32_t queue_number(dev_t device, const char *name)
{
    static const char *const up[] = {"", "../"};
    uint32_t number = 0;
    for (size_t i = 0; i < SDC_COUNT(up); i++) {
        char path[128];
        snprintf(path, sizeof path, "/sys/dev/block/%u:%u/%squeue/%s", major(device), minor(device), up[i],
                 name);
        FILE *file = fopen(path, "re");
        if (!file)
            continue;
        if (fscanf(file, "%u", &number) != 1)
            number = 0;
        fclose(file);
        break;
    }
    return number;
}

static int measure_device(int fd, dev_t device, struct sdc_disk_shape *shape)
{
    int logical;
    unsigned physical, optimal;
    if (ioctl(fd, BLKSSZGET, &logical) < 0 || ioctl(fd, BLKPBSZGET, &physical) < 0 ||
        ioctl(fd, BLKIOOPT, &optimal) < 0)
        return -errno;
    shape->block_device = true;
    shape->logical_block_size = sane_block((uint64_t)logical);
    shape->physical_block_size = sane_block(physical);
    shape->optimal_io_size = optimal;
    shape->discard_granularity = queue_number(device, "discard_granularity");
    return 0;
}

// The smallest length that a direct read takes, found by trying: for kernels and file systems that don't say.
static uint32_t try_offset_align(int fd)
{
    _Alignas(CAUTIOUS_ALIGN) unsigned char buffer[CAUTIOUS_ALIGN];
    for (uint32_t size = SECTOR; size < CAUTIOUS_ALIGN; size *= 2)
        if (sdc_disk_peek(fd, 0, buffer, size) >= 0)
            return size;
    return CAUTIOUS_ALIGN;
}

static void measure_direct(int fd, struct sdc_disk_shape *shape)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || !(flags & O_DIRECT))
        return;
    struct statx st; // says it since Linux 6.1, for file systems that know
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) == 0 && st.stx_mask & STATX_DIOALIGN &&
        st.stx_dio_offset_align != 0 && st.stx_dio_mem_align != 0) {
        shape->direct_offset_align = (uint32_t)sdc_max(st.stx_dio_offset_align, SECTOR);
        shape->direct_memory_align = st.stx_dio_mem_align;
        return;
    }
    shape->direct_memory_align = CAUTIOUS_ALIGN;
    shape->direct_offset_align = shape->block_device ? shape->logical_block_size : try_offset_align(fd);
}

// Whether the file system makes holes, found by trying behind the end of the file, where there is nothing to lose.
static bool makes_holes(int fd, uint64_t size)
{
    return size <= INT64_MAX - SECTOR &&
           fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)size, SECTOR) == 0;
}

int sdc_disk_measure(int fd, struct sdc_disk_shape *shape)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    uint32_t block = sane_block((uint64_t)st.st_blksize);
    *shape = (struct sdc_disk_shape){
        .logical_block_size = SECTOR, .physical_block_size = block, .discard_granularity = block};
    int ret = sdc_disk_size(fd, &shape->size);
    if (ret == 0 && S_ISBLK(st.st_mode))
        ret = measure_device(fd, st.st_rdev, shape);
    else if (ret == 0)
        shape->discard_zeroes = makes_holes(fd, shape->size);
    if (ret == 0)
        measure_direct(fd, shape);
    return ret;
}

// --- locks ---

static int set_lock(int fd, uint64_t offset, uint64_t size, short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)offset, .l_len = (off_t)size};
    int ret;
    do
        ret = fcntl(fd, F_OFD_SETLK, &lock);
    while (ret < 0 && errno == EINTR);
    if (ret == 0)
        return 0;
    return errno == EACCES ? -EAGAIN : -errno;
}

int sdc_disk_lock(int fd, uint64_t offset, uint64_t size, bool writing)
{
    return set_lock(fd, offset, size, writing ? F_WRLCK : F_RDLCK);
}

void sdc_disk_unlock(int fd, uint64_t offset, uint64_t size)
{
    set_lock(fd, offset, size, F_UNLCK);
}

// --- memory ---

static int map_anonymous(size_t size, int protection, void **base)
{
    void *address = mmap(NULL, size, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED)
        return -errno;
    *base = address;
    return 0;
}

int sdc_disk_map_zeroes(size_t size, void **base)
{
    return map_anonymous(size, PROT_READ, base);
}

int sdc_disk_map_buffer(size_t size, void **base)
{
    return map_anonymous(size, PROT_READ | PROT_WRITE, base);
}
