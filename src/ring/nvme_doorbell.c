// SPDX-License-Identifier: BSD-3-Clause
#include "ring/nvme_doorbell.h"

#include <errno.h>

// A word that is shared with the driver is reached by host address or not at all: such memory is looked at without being asked for.
static int share(struct sdc_area *area, struct sdc_memory *memory, uint64_t iova, enum sdc_access access)
{
    *area = (struct sdc_area){.iova = iova, .size = sizeof(uint32_t)};
    int rc = sdc_area_resolve(area, memory, access, sizeof(uint32_t));

    if ((uintptr_t)area->host % sizeof(uint32_t) != 0)
        area->host = NULL;
    return rc < 0 || area->host ? rc : -EFAULT;
}

int sdc_nvme_doorbell_share(struct sdc_nvme_doorbell *doorbell, struct sdc_memory *memory, uint64_t shadow, uint64_t event)
{
    doorbell->shadowed = true;
    int rc = share(&doorbell->shadow, memory, shadow, SDC_ACCESS_WRITE); // it is seeded once

    if (rc == 0)
        rc = share(&doorbell->shadow, memory, shadow, SDC_ACCESS_READ);
    if (rc == 0)
        rc = share(&doorbell->event, memory, event, SDC_ACCESS_WRITE);
    if (rc < 0)
        doorbell->shadow.host = doorbell->event.host = NULL;
    return rc;
}

void sdc_nvme_doorbell_seed(const struct sdc_nvme_doorbell *doorbell)
{
    uint32_t value = atomic_load_explicit(doorbell->word, memory_order_relaxed);

    if (doorbell->shadow.host)
        __atomic_store_n((uint32_t *)(void *)doorbell->shadow.host, htole32(value), __ATOMIC_RELEASE);
}
