// SPDX-License-Identifier: BSD-3-Clause
// Memory that a device can be given.
#include "base/check.h"
#include "os/fd.h"
#include "os/memfd.h"

#include <sidecard/client.h>

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define PAGE UINT64_C(4096)

// Rounds size up to pages.
static int check(uint64_t iova, uint64_t size, uint64_t *rounded, struct sdc_error *err)
{
    uint64_t end;
    if (size == 0 || iova % PAGE != 0 || !sdc_add(size, PAGE - 1, rounded) || !sdc_add(iova, *rounded, &end))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "no such memory: %" PRIu64 " bytes at 0x%" PRIx64,
                             size, iova);
    *rounded -= *rounded % PAGE;
    return 0;
}

static int take_base(struct sdc_client_memory *memory, int mapped, void *base, struct sdc_error *err)
{
    if (mapped == 0) {
        memory->base = base;
        return 0;
    }
    sdc_error_set(err, mapped, SDC_FAULT_HOST, "cannot map %" PRIu64 " bytes of memory: %s", memory->size,
                  strerror(-mapped));
    sdc_client_memory_free(memory);
    return mapped;
}

int sdc_client_memory_new(struct sdc_client_memory *memory, uint64_t iova, uint64_t size,
                          struct sdc_error *err)
{
    uint64_t rounded = 0;
    void *base = NULL;
    *memory = (struct sdc_client_memory){.fd = -1};
    int ret = check(iova, size, &rounded, err);
    if (ret < 0)
        return ret;
    int fd = sdc_memfd_new("sidecard-client", rounded);
    if (fd < 0)
        return sdc_error_set(err, fd, SDC_FAULT_HOST, "cannot make a memory file of %" PRIu64 " bytes: %s",
                             rounded, strerror(-fd));
    *memory = (struct sdc_client_memory){.iova = iova, .size = rounded, .fd = fd};
    ret = sdc_fd_map(fd, rounded, true, &base);
    return take_base(memory, ret, base, err);
}

int sdc_client_memory_new_private(struct sdc_client_memory *memory, uint64_t iova, uint64_t size,
                                  struct sdc_error *err)
{
    uint64_t rounded = 0;
    void *base = NULL;
    *memory = (struct sdc_client_memory){.fd = -1};
    int ret = check(iova, size, &rounded, err);
    if (ret < 0)
        return ret;
    *memory = (struct sdc_client_memory){.iova = iova, .size = rounded, .fd = -1};
    ret = sdc_map_private(rounded, &base);
    return take_base(memory, ret, base, err);
}

void *sdc_client_memory_take(struct sdc_client_memory *memory, uint64_t size, uint64_t align, uint64_t *iova)
{
    uint64_t at, end;
    if (!sdc_is_power_of_two(align) || !sdc_add(memory->iova + memory->used, align - 1, &at))
        return NULL;
    at = (at & ~(align - 1)) - memory->iova;
    if (!sdc_add(at, size, &end) || end > memory->size)
        return NULL;
    memory->used = end;
    *iova = memory->iova + at;
    return memory->base + at;
}

void sdc_client_memory_free(struct sdc_client_memory *memory)
{
    if (memory->base)
        sdc_unmap(memory->base, memory->size);
    sdc_fd_close(&memory->fd);
    *memory = (struct sdc_client_memory){.fd = -1};
}
