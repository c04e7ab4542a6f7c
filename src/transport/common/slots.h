// SPDX-License-Identifier: BSD-3-Clause
// Where copies of fds are kept that have to outlast this process: numbered slots of somebody else's. A state record names slots. Home loop.
#pragma once

#include <stdint.h>

#define SDC_SLOT_NONE UINT32_MAX

enum { SDC_SLOT_RECORD = 0 }; // the state record itself

struct sdc_slots;

struct sdc_slots_ops {
    // A copy of fd, which stays the caller's, goes to a free slot. 0, -ENOSPC, or another negative errno.
    int (*put)(struct sdc_slots *slots, int fd, uint32_t *slot);
    // The slot is free again. Nothing happens with SDC_SLOT_NONE.
    void (*drop)(struct sdc_slots *slots, uint32_t slot);
    // What was in a slot when this process began; it is the caller's now, the slot stays taken. -ENOENT.
    int (*take)(struct sdc_slots *slots, uint32_t slot);
};

struct sdc_slots {
    const struct sdc_slots_ops *ops;
};
