// SPDX-License-Identifier: BSD-3-Clause
// Interrupts: of completion queues, by MSI-X or INTx, at once or coalesced (base 5.27.1.6 and 5.27.1.7: by number and time, for each
// completion queue alone; the admin queue's never).
#include "base/check.h"
#include "device/nvme/controller.h"

#define COALESCING_NS UINT64_C(100000) // the unit of its time

// Completion queues whose entries the driver has not all taken assert INTx, unless INTMS masks vector 0, the only one there is then.
bool nvme_intx_level(struct nvme *nvme)
{
    bool level = false;

    if (nvme->msix_enabled || nvme->intx_disabled || nvme->intms & 1)
        return false;
    for (unsigned i = 0; !level && i <= nvme->options.queues; i++) {
        const struct nvme_cq *cq = &nvme->cqs[i];
        level = cq->state == NVME_QUEUE_LIVE && cq->interrupts && cq->shown != nvme->doorbells[2 * i + 1];
    }
    return level;
}

// If what was posted is still on its way to remote memory, when it has arrived.
void nvme_interrupt_now(struct nvme_cq *cq)
{
    struct nvme *nvme = cq->nvme;

    cq->untold = 0;
    cq->interrupt_due = cq->remote.ring_writes > 0;
    if (cq->interrupt_due || !cq->interrupts)
        return;
    if (nvme->msix_enabled)
        sdc_pci_interrupt(&nvme->pci, SDC_PCI_MSIX, cq->vector);
    else if (!nvme->intx_disabled && !(nvme->intms & 1))
        sdc_pci_interrupt(&nvme->pci, SDC_PCI_INTX, 0);
}

static void waited(struct sdc_timer *timer)
{
    nvme_interrupt_now(sdc_container(timer, struct nvme_cq, coalescing));
}

void nvme_interrupt(struct nvme_cq *cq)
{
    const struct nvme_features *features = &cq->nvme->admin.features;
    uint32_t value = atomic_load_explicit(&features->coalescing, memory_order_relaxed);
    uint32_t threshold = (value & 0xff) + 1;
    uint64_t ns = (value >> 8 & 0xff) * COALESCING_NS;
    bool waits = cq->id != 0 && ns > 0 && cq->untold < threshold && nvme_features_coalesce(features, cq->vector);

    if (!waits || (cq->coalescing.place == 0 && sdc_loop_timer_set(cq->worker->loop, &cq->coalescing, ns) < 0)) {
        sdc_loop_timer_clear(cq->worker->loop, &cq->coalescing);
        nvme_interrupt_now(cq);
    }
}

void nvme_interrupt_end(struct nvme_cq *cq)
{
    sdc_loop_timer_clear(cq->worker->loop, &cq->coalescing);
    cq->interrupt_due = false;
}

void nvme_interrupt_start(struct nvme_cq *cq)
{
    cq->coalescing.expired = waited;
    cq->interrupt_due = false;
    cq->untold = 0;
}
