// SPDX-License-Identifier: BSD-3-Clause
// DMA of a device made with sdc_pci_init (sidecard/dma.h): each copy or window is a request with one payload, whose buffer is in memory
// that is mapped, or is bounced. Home loop.
#pragma once

#include <sidecard/dma.h>

#include "loop/loop.h"
#include "memory/payload.h"
#include "transport/common/map_use.h"
#include "transport/common/remote_queue.h"

struct sdc_dma {
    struct sdc_loop *loop; // NULL until the device is plugged in
    void (*idle)(struct sdc_dma *dma); // the last window was unmapped
    struct sdc_map_use *use;
    struct sdc_memory memory; // a view of use's map
    struct sdc_remote_queue remote;
    struct sdc_dma_window *pending, **pending_end; // not begun
    struct sdc_dma_window *ended, **ended_end;     // the device does not know yet
    struct sdc_dma_window *spare;
    uint32_t under_way; // pending, begun or ended: whose end the device waits for
    uint32_t windows;   // that the device has; zero: nobody holds a span
    bool refuses;       // nothing is begun: a reset, or a cancel
    bool posted;        // work is on its way
    struct sdc_post work;
};

void sdc_dma_open(struct sdc_dma *dma, struct sdc_loop *loop);
// Nothing is under way.
void sdc_dma_close(struct sdc_dma *dma);
// Guest memory is map from now on (NULL: there is none); takes a reference of its own.
void sdc_dma_set_map(struct sdc_dma *dma, struct sdc_map *map);
// All that is under way ends with -ECANCELED, and the device hears of it before this returns; windows that it has stay.
void sdc_dma_end_all(struct sdc_dma *dma);
