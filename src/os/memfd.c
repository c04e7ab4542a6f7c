// SPDX-License-Identifier: BSD-3-Clause
// memfds.
#include "os/memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_2MB (21U << 26) // MFD_HUGE_2MB: glibc 2.36 does not name it, and <linux/memfd.h> does not go with its header

static int new_sealed(const char *name, uint64_t size, unsigned flags, int seals)
{
    if (size > INT64_MAX)
        return -EFBIG;
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)size) < 0 || fcntl(fd, F_ADD_SEALS, seals) < 0) {
        int code = -errno;
        close(fd);
        return code;
    }
    return fd;
}

int sdc_memfd_new(const char *name, uint64_t size)
{
    return new_sealed(name, size, 0, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
}

int sdc_memfd_new_huge(const char *name, uint64_t size)
{
    return new_sealed(name, size, MFD_HUGETLB | HUGE_2MB, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
}

int sdc_memfd_new_sealable(const char *name, uint64_t size)
{
    return new_sealed(name, size, 0, F_SEAL_SHRINK | F_SEAL_GROW);
}

int sdc_memfd_seal_writes(int fd)
{
    return fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) < 0 ? -errno : 0;
}
