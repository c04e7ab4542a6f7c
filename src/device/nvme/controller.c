// SPDX-License-Identifier: BSD-3-Clause
// The life of a controller: CC.EN, CC.SHN, NSSR and resets of the PCI function, all on the home loop. Each ends the queues in the same way,
// which takes as long as their I/O, and differs in what follows.
#include "base/check.h"
#include "base/log.h"
#include "device/nvme/controller.h"

#include <errno.h>

enum { SHN_NORMAL = 1 }; // CC.SHN

static unsigned cc_field(const struct nvme *nvme, unsigned shift, unsigned mask)
{
    return nvme->cc >> shift & mask;
}

void nvme_fatal(struct nvme *nvme, const char *reason)
{
    uint32_t before = atomic_fetch_or(&nvme->csts, SDC_NVME_CSTS_CFS);

    nvme_live_failed(nvme);
    if (!(before & SDC_NVME_CSTS_CFS))
        sdc_log_peer("nvme: the driver must reset the controller: %s", reason);
}

// --- enabling ---

static int start_admin_queue(struct nvme *nvme, bool resumes)
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
    cq->resumes = sq->resumes = resumes;
    if (!resumes)
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
    nvme_live_starts(nvme);
    if (!reason && start_admin_queue(nvme, false) < 0)
        reason = "the admin queues are not in the guest's memory";
    if (reason) {
        nvme_fatal(nvme, reason);
        return;
    }
    nvme_live_runs(nvme);
    nvme->csts |= SDC_NVME_CSTS_RDY;
}

int nvme_resume(struct nvme *nvme)
{
    if (what_forbids_start(nvme))
        return -EINVAL;
    int rc = start_admin_queue(nvme, true);
    if (rc == 0)
        nvme->csts |= SDC_NVME_CSTS_RDY;
    return rc;
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

static void finish_ending(struct nvme *nvme)
{
    uint32_t subsystem_reset = nvme->csts & SDC_NVME_CSTS_NSSRO;

    if (nvme->ending == NVME_END_LEAVE) {
        nvme->left = true;
        sdc_pci_ready(&nvme->pci);
        return;
    }
    nvme_live_ended(nvme, nvme->ending == NVME_END_SHUTDOWN);
    nvme->pci.state_changes++;
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
    case NVME_END_LEAVE:
        break; // above
    }
    nvme_step(nvme);
}

// --- a normal shutdown makes durable what caches hold (base 3.6.1) ---

static void stop_flushing(struct sdc_deferred *deferred)
{
    struct nvme *nvme = sdc_container(deferred, struct nvme, settle);

    nvme->flushes = false;
    nvme_namespaces_close(&nvme->workers[0]);
    nvme_free_commands(&nvme->workers[0]);
    finish_ending(nvme);
}

static void settle(struct nvme *nvme)
{
    nvme->settle.run = stop_flushing;
    sdc_loop_defer(nvme->home, &nvme->settle);
}

static void flushed(struct nvme_command *command)
{
    struct nvme *nvme = command->sq->nvme;

    if (command->status != SDC_NVME_SC_SUCCESS)
        sdc_log(SDC_LOG_ERROR, "nvme: a flush at the controller's shutdown failed, status 0x%x", command->status);
    nvme_release(command);
    settle(nvme); // not from inside the backend, which it closes
}

static void flush(struct nvme *nvme)
{
    if (nvme_flush_all(nvme, flushed) == 0)
        return;
    sdc_log(SDC_LOG_ERROR, "nvme: no memory for a flush at the controller's shutdown");
    settle(nvme);
}

static void shut_down(struct nvme *nvme)
{
    bool io = false;

    nvme->csts |= SDC_NVME_CSTS_SHST_BUSY;
    for (unsigned i = 1; i <= nvme->options.queues; i++)
        io |= nvme->sqs[i].state != NVME_QUEUE_NONE;
    // Without a queue there is nothing to make durable. The image stays locked until it is.
    nvme->flushes = io && cc_field(nvme, SDC_NVME_CC_SHN, 3) == SHN_NORMAL && nvme_namespaces_open(&nvme->workers[0]) == 0;
    nvme_end(nvme, NVME_END_SHUTDOWN);
}

// --- the end of queues ---

static void ended(struct nvme *nvme)
{
    if (nvme->flushes && nvme->ending == NVME_END_SHUTDOWN && nvme->cc & SDC_NVME_CC_EN)
        flush(nvme);
    else if (nvme->flushes)
        settle(nvme);
    else
        finish_ending(nvme);
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
        // A reset does not wait for a flush that waits for the image's lock.
        if (nvme->flushes && nvme->stopping == 0)
            nvme_namespaces_cancel(&nvme->workers[0]);
        return;
    }
    nvme->life = NVME_STOPPING;
    nvme->ending = ending;
    for (unsigned i = 0; i < nvme->workers_count; i++) {
        struct nvme_worker *worker = &nvme->workers[i];
        if (worker->queues == 0)
            continue;
        nvme->stopping++;
        worker->stop_order = (struct nvme_order){.run = ending == NVME_END_LEAVE ? nvme_run_leave : nvme_run_stop, .obeyed = stopped};
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

    if (nvme->resetting || nvme->left)
        return;
    if (nvme->nssr)
        nvme_end(nvme, NVME_END_SUBSYSTEM);
    else if (nvme->life == NVME_OFF && enabled)
        start(nvme);
    else if (nvme->life != NVME_OFF && !enabled)
        nvme_end(nvme, NVME_END_DISABLE);
    else if (nvme->life == NVME_ON && cc_field(nvme, SDC_NVME_CC_SHN, 3) != 0 && !(nvme->csts & SDC_NVME_CSTS_SHST))
        shut_down(nvme);
}

void nvme_step(struct nvme *nvme)
{
    nvme->step.run = run_step;
    sdc_loop_defer(nvme->home, &nvme->step);
}
