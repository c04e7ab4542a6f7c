// SPDX-License-Identifier: BSD-3-Clause
#include "ring/area.h"

#include <errno.h>

int sdc_area_resolve(struct sdc_area *area, struct sdc_memory *memory, enum sdc_access access, uint64_t align)
{
    struct sdc_span span;

    area->host = NULL;
    area->remote = false;
    if (area->iova % align != 0)
        return -EINVAL;
    int count = sdc_memory_spans(memory, area->iova, area->size, access, &span, 1);
    if (count == -E2BIG || count == -EAGAIN) { // in several pieces, or remote
        int rc = sdc_memory_check(memory, area->iova, area->size, access);
        area->remote = rc == 1;
        return rc == 1 && !memory->cache ? -EFAULT : rc < 0 ? rc : 0;
    }
    if (count < 0)
        return count;
    if ((uintptr_t)span.base % sizeof(uint16_t) == 0)
        area->host = span.base;
    return 0;
}
