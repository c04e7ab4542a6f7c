// SPDX-License-Identifier: BSD-3-Clause
// Where the driver says how far it has come with an NVMe queue: in the controller's register, or, once it has shown its buffers (Doorbell
// Buffer Config, base 5.8), in a word of its own memory. Beside that one it finds the value from which on it is to write the register
// too. Both values are indices into the queue.
#pragma once

#include "ring/area.h"

#include <stdatomic.h>

struct sdc_nvme_doorbell {
    const _Atomic uint32_t *word; // the register: written by the home loop, or by the driver where it is mapped
    struct sdc_area shadow;       // 4 bytes; host NULL: the register counts
    struct sdc_area event;        // likewise
};

static inline uint32_t sdc_nvme_doorbell_load(const struct sdc_nvme_doorbell *doorbell)
{
    if (!doorbell->shadow.host)
        return atomic_load_explicit(doorbell->word, memory_order_acquire);
    return le32toh(__atomic_load_n((const uint32_t *)(const void *)doorbell->shadow.host, __ATOMIC_ACQUIRE));
}

// The driver is to write the register when its index passes `index`. Whoever relies on that puts a full barrier behind, and then looks
// once more.
static inline void sdc_nvme_doorbell_set_event(const struct sdc_nvme_doorbell *doorbell, uint32_t index)
{
    if (doorbell->event.host)
        __atomic_store_n((uint32_t *)(void *)doorbell->event.host, htole32(index), __ATOMIC_RELAXED);
}

// Looks up where its words are: at iova + offset in the driver's two buffers. -EFAULT, -EACCES; the register counts then.
int sdc_nvme_doorbell_share(struct sdc_nvme_doorbell *doorbell, struct sdc_memory *memory, uint64_t shadow, uint64_t event);
