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
#define HUGE_PAGE (UINT64_C(2) << 20)

// Rounds size up to pages of so many bytes.
static int check(uint64_t iova, uint64_t size, uint64_t page, uint64_t *rounded, struct sdc_error *err)
{
    uint64_t end;
    if (size == 0 || iova % PAGE != 0 || !sdc_add(size, page - 1, rounded) || !sdc_add(iova, *rounded, &end))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "no such memory: %" PRIu64 " bytes at 0x%" PRIx64,
                             size, iova);
    *rounded -= *rounded % page;
    return 0;
}

// In the kind's own way, as large as it says.
static int map(struct sdc_client_memory *memory, enum sdc_client_memory_kind kind, void **base)
{
    if (kind == SDC_CLIENT_MEMORY_PRIVATE)
        return sdc_map_private(memory->size, base);
    memory->fd = kind == SDC_CLIENT_MEMORY_HUGE ? sdc_memfd_new_huge("sidecard-client", memory->size)
                                                : sdc_memfd_new("sidecard-client", memory->size);
    return memory->fd < 0 ? memory->fd : sdc_fd_map(memory->fd, memory->size, true, base);
}

int sdc_client_memory_new_kind(struct sdc_client_memory *memory, enum sdc_client_memory_kind kind, uint64_t iova, uint64_t size,
                               struct sdc_error *err)
{
    bool huge = kind == SDC_CLIENT_MEMORY_HUGE;
    uint64_t rounded = 0;
    void *base = NULL;
    *memory = (struct sdc_client_memory){.fd = -1};
    int ret = check(iova, size, huge ? HUGE_PAGE : PAGE, &rounded, err);
    if (ret < 0)
        return ret;
    *memory = (struct sdc_client_memory){.iova = iova, .size = rounded, .fd = -1};
    ret = map(memory, kind, &base);
    if (ret == 0) {
        memory->base = base;
        return 0;
    }
    sdc_error_set(err, ret, SDC_FAULT_HOST, "cannot make %" PRIu64 " bytes of memory%s: %s", rounded,
                  huge ? " in free huge pages of 2 MiB (/proc/sys/vm/nr_hugepages)" : "", strerror(-ret));
    sdc_client_memory_free(memory);
    return ret;
}

int sdc_client_memory_new(struct sdc_client_memory *memory, uint64_t iova, uint64_t size,
                          struct sdc_error *err)
{
    return sdc_client_memory_new_kind(memory, SDC_CLIENT_MEMORY_SHARED, iova, size, err);
}

int sdc_client_memory_new_private(struct sdc_client_memory *memory, uint64_t iova, uint64_t size,
                                  struct sdc_error *err)
{
    return sdc_client_memory_new_kind(memory, SDC_CLIENT_MEMORY_PRIVATE, iova, size, err);
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
