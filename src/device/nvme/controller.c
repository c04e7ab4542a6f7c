// SPDX-License-Identifier: BSD-3-Clause
// The life of a controller: CC.EN, CC.SHN, NSSR and resets of the PCI function, all on the home loop. Each ends the queues in the same way,
// which takes as long as their I/O, and differs in what follows.
#include "base/check.h"
#include "base/log.h"
#include "device/nvme/controller.h"

#include <errno.h>

static unsigned cc_field(const struct nvme *nvme, unsigned shift, unsigned mask)
{
    return nvme->cc >> shift & mask;
}

void nvme_fatal(struct nvme *nvme, const char *reason)
{
    uint32_t before = atomic_fetch_or(&nvme->csts, SDC_NVME_CSTS_CFS);

    if (!(before & SDC_NVME_CSTS_CFS))
        sdc_log_peer("nvme: the driver must reset the controller: %s", reason);
}

// --- enabling ---

static int start_admin_queue(struct nvme *nvme)
{
    struct nvme_cq *cq = &nvme->cqs[0];
    struct nvme_sq *sq = &nvme->sqs[0];
    struct nvme_worker *worker = &nvme->workers[0];

    cq->worker = sq->worker = worker;
    cq->iova = nvme->acq;
    cq->size = (nvme->aqa >> 16) + 1;
    cq->interrupts = true;
    cq->vector = 0;
    cq->shown = 0;
    cq->starved = false;
    cq->shadow.given = sq->shadow.given = false;
    sq->cq = cq;
    sq->iova = nvme->asq;
    sq->size = (nvme->aqa & (NVME_ADMIN_DEPTH_MAX - 1)) + 1;
    nvme->doorbells[0] = nvme->doorbells[1] = 0;
    worker->queues = 1;
    int rc = nvme_worker_use(worker, sdc_map_ref(nvme->map));
    if (rc == 0)
        rc = nvme_cq_start(cq);
    if (rc == 0)
        rc = nvme_sq_start(sq);
    if (rc == 0)
        cq->state = sq->state = NVME_QUEUE_LIVE;
    return rc;
}

static const char *what_forbids_start(const struct nvme *nvme)
{
    if (cc_field(nvme, SDC_NVME_CC_CSS, 7) != 0)
        return "CC.CSS names a command set that is not offered";
    if (cc_field(nvme, SDC_NVME_CC_MPS, 15) != 0)
        return "CC.MPS names a memory page size that is not offered";
    if (cc_field(nvme, SDC_NVME_CC_AMS, 7) != 0)
        return "CC.AMS names an arbitration that is not offered";
    if (nvme->aqa >> 16 == 0 || (nvme->aqa & (NVME_ADMIN_DEPTH_MAX - 1)) == 0)
        return "AQA says that an admin queue has one entry";
    return NULL;
}

static void start(struct nvme *nvme)
{
    const char *reason = what_forbids_start(nvme);

    nvme->life = NVME_ON;
    if (!reason && start_admin_queue(nvme) < 0)
        reason = "the admin queues are not in the guest's memory";
    if (reason)
        nvme_fatal(nvme, reason);
    else
        nvme->csts |= SDC_NVME_CSTS_RDY;
}

// --- ending ---

// All but AQA, ASQ and ACQ, which a reset by CC.EN leaves (base 3.7.2).
static void forget(struct nvme *nvme)
{
    for (unsigned i = 0; i <= nvme->options.queues; i++) {
        nvme->cqs[i].state = nvme->sqs[i].state = NVME_QUEUE_NONE;
        nvme->doorbells[2 * i] = nvme->doorbells[2 * i + 1] = 0;
    }
    for (unsigned i = 0; i < nvme->workers_count; i++)
        nvme->workers[i].queues = 0;
    nvme->shadow.given = false;
    nvme_admin_reset(nvme);
}

static void forget_registers(struct nvme *nvme)
{
    nvme->cc = 0;
    nvme->aqa = 0;
    nvme->asq = nvme->acq = 0;
    nvme->nssr = false;
}

static void ended(struct nvme *nvme)
{
    uint32_t subsystem_reset = nvme->csts & SDC_NVME_CSTS_NSSRO;

    forget(nvme);
    nvme->life = NVME_OFF;
    nvme->intms = 0;
    switch (nvme->ending) {
    case NVME_END_SHUTDOWN:
        // It stays ready, and does nothing until it is reset (base 3.6.1).
        nvme->life = NVME_ON;
        nvme->csts = (nvme->csts & ~(uint32_t)SDC_NVME_CSTS_SHST) | SDC_NVME_CSTS_SHST_DONE;
        break;
    case NVME_END_DISABLE:
        nvme->csts = subsystem_reset;
        break;
    case NVME_END_SUBSYSTEM:
        forget_registers(nvme);
        nvme->csts = SDC_NVME_CSTS_NSSRO;
        break;
    case NVME_END_RESET:
        forget_registers(nvme);
        nvme->csts = 0;
        nvme->resetting = false;
        sdc_pci_ready(&nvme->pci);
        return;
    }
    nvme_step(nvme);
}

static void stopped(struct nvme_order *order)
{
    struct nvme *nvme = order->worker->nvme;

    if (--nvme->stopping == 0)
        ended(nvme);
}

// What ends more wins over what was under way.
void nvme_end(struct nvme *nvme, enum nvme_ending ending)
{
    if (nvme->life == NVME_STOPPING) {
        nvme->ending = (enum nvme_ending)sdc_max(nvme->ending, ending);
        return;
    }
    nvme->life = NVME_STOPPING;
    nvme->ending = ending;
    for (unsigned i = 0; i < nvme->workers_count; i++) {
        struct nvme_worker *worker = &nvme->workers[i];
        if (worker->queues == 0)
            continue;
        nvme->stopping++;
        worker->stop_order = (struct nvme_order){.run = nvme_run_stop, .obeyed = stopped};
        nvme_order_send(&worker->stop_order, worker);
    }
    if (nvme->stopping == 0)
        ended(nvme);
}

// --- what the registers ask for ---

static void run_step(struct sdc_deferred *deferred)
{
    struct nvme *nvme = sdc_container(deferred, struct nvme, step);
    bool enabled = (nvme->cc & SDC_NVME_CC_EN) != 0;

    if (nvme->resetting)
        return;
    if (nvme->nssr)
        nvme_end(nvme, NVME_END_SUBSYSTEM);
    else if (nvme->life == NVME_OFF && enabled)
        start(nvme);
    else if (nvme->life != NVME_OFF && !enabled)
        nvme_end(nvme, NVME_END_DISABLE);
    else if (nvme->life == NVME_ON && cc_field(nvme, SDC_NVME_CC_SHN, 3) != 0 && !(nvme->csts & SDC_NVME_CSTS_SHST)) {
        nvme->csts |= SDC_NVME_CSTS_SHST_BUSY;
        nvme_end(nvme, NVME_END_SHUTDOWN);
    }
}

void nvme_step(struct nvme *nvme)
{
    nvme->step.run = run_step;
    sdc_loop_defer(nvme->home, &nvme->step);
}
