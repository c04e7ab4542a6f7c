// SPDX-License-Identifier: BSD-3-Clause
// Doorbell Buffer Config (base 5.8): doorbells of I/O queues in the driver's memory, and beside them from which value on it is to write the
// register as well. Drivers leave the admin queue out, and so does the controller.
#include "base/check.h"
#include "base/log.h"
#include "device/nvme/bits.h"
#include "device/nvme/controller.h"

enum { STRIDE = sizeof(uint32_t) };

// --- the worker's loop ---

// What the driver finds in its words is what the register held.
static void share(struct sdc_nvme_doorbell *doorbell, struct sdc_memory *memory, const struct nvme_shadow *shadow, unsigned number)
{
    uint64_t offset = (uint64_t)number * STRIDE;

    if (sdc_nvme_doorbell_share(doorbell, memory, shadow->doorbells + offset, shadow->events + offset) < 0)
        sdc_log_peer("nvme: the shadow doorbell of a queue is not in the guest's memory");
}

void nvme_share_sq(struct nvme_sq *sq)
{
    if (!sq->shadow.given || sq->id == 0)
        return;
    bool fresh = !sq->ring.doorbell.shadowed;
    share(&sq->ring.doorbell, &sq->ring.memory, &sq->shadow, 2U * sq->id);
    if (fresh)
        sdc_nvme_doorbell_seed(&sq->ring.doorbell);
    sdc_nvme_sq_rearm(&sq->ring);
}

void nvme_share_cq(struct nvme_cq *cq)
{
    if (!cq->shadow.given || cq->id == 0)
        return;
    bool fresh = !cq->ring.doorbell.shadowed;
    share(&cq->ring.doorbell, &cq->ring.memory, &cq->shadow, 2U * cq->id + 1);
    if (fresh)
        sdc_nvme_doorbell_seed(&cq->ring.doorbell);
    if (!cq->waiting)
        nvme_listen(cq);
    else if (nvme_has_room(cq))
        nvme_post_waiting(cq);
}

static void run_share(struct nvme_order *order)
{
    struct nvme_worker *worker = order->worker;
    struct nvme *nvme = worker->nvme;

    for (int id = -1; (id = nvme_bit_next(worker->cqs, id + 1)) >= 0;) {
        nvme->cqs[id].shadow = worker->shadow;
        nvme_share_cq(&nvme->cqs[id]);
    }
    for (int id = -1; (id = nvme_bit_next(worker->sqs, id + 1)) >= 0;) {
        nvme->sqs[id].shadow = worker->shadow;
        nvme_share_sq(&nvme->sqs[id]);
        nvme_start_poller(&nvme->sqs[id]);
        nvme_look(&nvme->sqs[id]);
    }
    nvme_order_obeyed(order);
}

// --- the home loop ---

static void shared(struct nvme_order *order)
{
    struct nvme *nvme = order->worker->nvme;

    if (--nvme->sharing > 0)
        return;
    nvme_live_shadow(nvme);
    nvme_complete(nvme->share_command, SDC_NVME_SC_SUCCESS, 0);
}

static bool is_local(struct sdc_memory *memory, uint64_t iova)
{
    return sdc_memory_check(memory, iova, NVME_PAGE, SDC_ACCESS_READ) == 0 &&
           sdc_memory_check(memory, iova, NVME_PAGE, SDC_ACCESS_WRITE) == 0;
}

// Without a sum, which the driver could make wrap.
static bool overlap(uint64_t iova, uint64_t bytes, uint64_t page)
{
    return iova < page ? page - iova < bytes : iova - page < NVME_PAGE;
}

bool nvme_over_shadow(const struct nvme_shadow *shadow, uint64_t iova, uint64_t bytes)
{
    return shadow->given && (overlap(iova, bytes, shadow->doorbells) || overlap(iova, bytes, shadow->events));
}

static bool over_queues(const struct nvme *nvme, const struct nvme_shadow *shadow)
{
    for (unsigned id = 0; id <= nvme->options.queues; id++) {
        const struct nvme_sq *sq = &nvme->sqs[id];
        const struct nvme_cq *cq = &nvme->cqs[id];
        if (sq->state != NVME_QUEUE_NONE && nvme_over_shadow(shadow, sq->iova, (uint64_t)sq->size << SDC_NVME_SQES))
            return true;
        if (cq->state != NVME_QUEUE_NONE && nvme_over_shadow(shadow, cq->iova, (uint64_t)cq->size << SDC_NVME_CQES))
            return true;
    }
    return false;
}

bool nvme_offers_shadow(const struct nvme *nvme)
{
    return nvme->options.shadow_doorbells && !nvme->sqs[0].ring.area.remote;
}

int nvme_doorbell_buffer(struct nvme_command *command)
{
    struct nvme *nvme = command->sq->nvme;
    struct sdc_memory *memory = &command->sq->worker->memory;
    struct nvme_shadow shadow = {.given = true,
                                 .doorbells = sdc_get64(command->sqe + SDC_NVME_SQE_PRP1),
                                 .events = sdc_get64(command->sqe + SDC_NVME_SQE_PRP2)};

    if (!nvme_offers_shadow(nvme))
        return SDC_NVME_SC_INVALID_OPCODE | SDC_NVME_SC_DNR;
    if (nvme->sharing > 0)
        return SDC_NVME_SC_SEQUENCE;
    if (shadow.doorbells % NVME_PAGE != 0 || shadow.events % NVME_PAGE != 0 || !is_local(memory, shadow.doorbells) ||
        !is_local(memory, shadow.events) || shadow.doorbells == shadow.events || over_queues(nvme, &shadow))
        return SDC_NVME_SC_INVALID_FIELD | SDC_NVME_SC_DNR;
    nvme->shadow = shadow;
    nvme->share_command = command;
    for (unsigned i = 0; i < nvme->workers_count; i++) {
        struct nvme_worker *worker = &nvme->workers[i];
        if (worker->queues == 0)
            continue;
        nvme->sharing++;
        worker->shadow = shadow;
        worker->share_order = (struct nvme_order){.run = run_share, .obeyed = shared};
        nvme_order_send(&worker->share_order, worker);
    }
    return NVME_PENDING;
}

// --- doorbells that make no sense ---

static void run_misled(struct sdc_post *post)
{
    struct nvme_worker *worker = sdc_container(post, struct nvme_worker, misled_post);

    atomic_store(&worker->misled, false);
    nvme_event_doorbell(worker->nvme, SDC_NVME_EVENT_BAD_DOORBELL_VALUE);
}

void nvme_misled(struct nvme_worker *worker)
{
    if (atomic_exchange(&worker->misled, true))
        return;
    worker->misled_post.run = run_misled;
    sdc_loop_post(worker->nvme->home, &worker->misled_post);
}
