// SPDX-License-Identifier: BSD-3-Clause
// Where the driver says how far it has come with an NVMe queue: in the controller's register, or, once it has shown its buffers (Doorbell
// Buffer Config, base 5.8), in a word of its own memory. Beside that one it finds the value from which on it is to write the register
// too. Both values are indices into the queue.
#pragma once

#include "ring/area.h"

#include <stdatomic.h>

struct sdc_nvme_doorbell {
    const _Atomic uint32_t *word; // the register: written by the home loop, or by the driver where it is mapped
    bool shadowed;                // the driver's words count, not the register
    struct sdc_area shadow;       // 4 bytes; host NULL: there are none, or their memory is away
    struct sdc_area event;        // likewise
};

// What the driver says; `known`, what it said before, while its words are away.
static inline uint32_t sdc_nvme_doorbell_load(const struct sdc_nvme_doorbell *doorbell, uint32_t known)
{
    if (!doorbell->shadowed)
        return atomic_load_explicit(doorbell->word, memory_order_acquire);
    if (!doorbell->shadow.host)
        return known;
    return le32toh(__atomic_load_n((const uint32_t *)(const void *)doorbell->shadow.host, __ATOMIC_ACQUIRE));
}

// The driver is to write the register when its index passes `index`. Pair [event]: who relies on that puts a full barrier behind, and
// then looks once more; the driver stores its index, full barrier, then loads this. One of the two sees the other.
static inline void sdc_nvme_doorbell_set_event(const struct sdc_nvme_doorbell *doorbell, uint32_t index)
{
    if (doorbell->event.host)
        __atomic_store_n((uint32_t *)(void *)doorbell->event.host, htole32(index), __ATOMIC_RELAXED);
}

// Looks up where its words are. 0; -EINVAL, -EFAULT, -EACCES: they are not there. In either case they count from now on.
int sdc_nvme_doorbell_share(struct sdc_nvme_doorbell *doorbell, struct sdc_memory *memory, uint64_t shadow, uint64_t event);
// Stores what the register holds in the driver's word.
void sdc_nvme_doorbell_seed(const struct sdc_nvme_doorbell *doorbell);
