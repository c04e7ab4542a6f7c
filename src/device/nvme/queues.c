// SPDX-License-Identifier: BSD-3-Clause
// I/O queues as the home loop knows them: admin commands create and delete them (base 5.4 to 5.7), workers run them.
#include "base/check.h"
#include "device/nvme/controller.h"

#include <errno.h>

enum {
    CDW10_SIZE = 16,        // shift; entries less one
    CDW11_CONTIGUOUS = 1,
    CDW11_INTERRUPTS = 2,   // completion queues
    CDW11_HIGH = 16,        // shift: the vector, or the completion queue
};

// Every refusal here is one that a repetition would meet again.
static int refuse(enum sdc_nvme_status status)
{
    return (int)status | SDC_NVME_SC_DNR;
}

static int status_of(int result)
{
    if (result >= 0)
        return result;
    return refuse(result == -ENOMEM ? SDC_NVME_SC_INTERNAL : SDC_NVME_SC_DATA_TRANSFER);
}

// What the creation of both kinds has in common. 0 or a refusal. entry: log2 of the bytes of an entry, as CC has to say.
static int check_queue(const struct nvme_command *command, unsigned cc_shift, unsigned entry)
{
    const struct nvme *nvme = command->sq->nvme;
    uint32_t size = (nvme_dword(command, 10) >> CDW10_SIZE) + 1;

    if (size < 2 || size > nvme->options.depth)
        return refuse(SDC_NVME_SC_QSIZE_INVALID);
    if (!(nvme_dword(command, 11) & CDW11_CONTIGUOUS) || (nvme->cc >> cc_shift & 15) != entry)
        return refuse(SDC_NVME_SC_INVALID_FIELD);
    if (sdc_get64(command->sqe + SDC_NVME_SQE_PRP1) % NVME_PAGE != 0)
        return refuse(SDC_NVME_SC_PRP_OFFSET);
    if (nvme_over_shadow(&nvme->shadow, sdc_get64(command->sqe + SDC_NVME_SQE_PRP1), (uint64_t)size << entry))
        return refuse(SDC_NVME_SC_INVALID_FIELD);
    return 0;
}

static bool id_is_io(const struct nvme *nvme, uint32_t id)
{
    return id >= 1 && id <= nvme->options.queues;
}

// --- what another process finds ---

// Whether this very command made, or deleted, the queue, but for its completion.
static bool is_repeated(const struct nvme_command *command, const uint8_t *log, unsigned what)
{
    return log && sdc_nvme_log_load(log + what) == command->position + 1;
}

static void record_cq(const struct nvme_cq *cq)
{
    if (!cq->log)
        return;
    sdc_put64(cq->log + SDC_NVME_LOG_CQ_IOVA, cq->iova);
    sdc_put32(cq->log + SDC_NVME_LOG_CQ_SIZE, cq->size);
    sdc_put32(cq->log + SDC_NVME_LOG_CQ_VECTOR, cq->vector | (uint32_t)cq->interrupts << 16);
    sdc_nvme_log_store(cq->log + SDC_NVME_LOG_CQ, cq->command->position + 1);
}

static void record_sq(const struct nvme_sq *sq)
{
    if (!sq->log)
        return;
    sdc_put64(sq->log + SDC_NVME_LOG_SQ_IOVA, sq->iova);
    sdc_put32(sq->log + SDC_NVME_LOG_SQ_SIZE, sq->size);
    sdc_put32(sq->log + SDC_NVME_LOG_SQ_CQ, sq->cq->id);
    sdc_nvme_log_store(sq->log + SDC_NVME_LOG_SQ, sq->command->position + 1);
}

static void record_end(uint8_t *log, unsigned what, unsigned end, const struct nvme_command *command)
{
    if (!log)
        return;
    sdc_nvme_log_store(log + end, command->position + 1);
    sdc_nvme_log_store(log + what, 0);
}

// --- completion queues ---

static void cq_is_gone(struct nvme_cq *cq)
{
    cq->state = NVME_QUEUE_NONE;
    cq->worker->queues--;
}

static void created_cq(struct nvme_order *order)
{
    struct nvme_cq *cq = sdc_container(order, struct nvme_cq, order);

    if (order->result != 0)
        cq_is_gone(cq);
    else
        cq->state = NVME_QUEUE_LIVE;
    if (order->result == 0)
        record_cq(cq);
    nvme_complete(cq->command, (uint16_t)status_of(order->result), 0);
}

int nvme_create_cq(struct nvme_command *command)
{
    struct nvme *nvme = command->sq->nvme;
    uint16_t id = (uint16_t)nvme_dword(command, 10);
    uint16_t vector = (uint16_t)(nvme_dword(command, 11) >> CDW11_HIGH);

    if (id_is_io(nvme, id) && is_repeated(command, nvme->cqs[id].log, SDC_NVME_LOG_CQ))
        return SDC_NVME_SC_SUCCESS;
    if (!id_is_io(nvme, id) || nvme->cqs[id].state != NVME_QUEUE_NONE)
        return refuse(SDC_NVME_SC_QID_INVALID);
    int rc = check_queue(command, SDC_NVME_CC_IOCQES, SDC_NVME_CQES);
    if (rc != 0)
        return rc;
    if (vector >= (nvme->msix_enabled ? nvme->options.vectors : 1))
        return refuse(SDC_NVME_SC_VECTOR_INVALID);

    struct nvme_cq *cq = &nvme->cqs[id];
    cq->worker = &nvme->workers[id % nvme->workers_count];
    cq->iova = sdc_get64(command->sqe + SDC_NVME_SQE_PRP1);
    cq->size = (nvme_dword(command, 10) >> CDW10_SIZE) + 1;
    cq->interrupts = (nvme_dword(command, 11) & CDW11_INTERRUPTS) != 0;
    cq->vector = vector;
    cq->shadow = nvme->shadow;
    cq->users = 0;
    cq->shown = 0;
    cq->starved = false;
    cq->command = command;
    cq->worker->queues++;
    nvme->doorbells[2 * id + 1] = 0;
    cq->state = NVME_QUEUE_CREATING;
    cq->resumes = false;
    cq->order = (struct nvme_order){.run = nvme_run_create_cq, .obeyed = created_cq, .map = sdc_map_ref(nvme->map)};
    nvme_order_send(&cq->order, cq->worker);
    return NVME_PENDING;
}

static void deleted_cq(struct nvme_order *order)
{
    struct nvme_cq *cq = sdc_container(order, struct nvme_cq, order);

    cq_is_gone(cq);
    record_end(cq->log, SDC_NVME_LOG_CQ, SDC_NVME_LOG_CQ_END, cq->command);
    nvme_complete(cq->command, SDC_NVME_SC_SUCCESS, 0);
}

int nvme_delete_cq(struct nvme_command *command)
{
    struct nvme *nvme = command->sq->nvme;
    uint16_t id = (uint16_t)nvme_dword(command, 10);

    if (id_is_io(nvme, id) && nvme->cqs[id].state == NVME_QUEUE_NONE && is_repeated(command, nvme->cqs[id].log, SDC_NVME_LOG_CQ_END))
        return SDC_NVME_SC_SUCCESS;
    if (!id_is_io(nvme, id) || nvme->cqs[id].state != NVME_QUEUE_LIVE)
        return refuse(SDC_NVME_SC_QID_INVALID);
    struct nvme_cq *cq = &nvme->cqs[id];
    if (cq->users > 0)
        return refuse(SDC_NVME_SC_QUEUE_IN_USE);
    cq->state = NVME_QUEUE_DELETING;
    cq->command = command;
    cq->order = (struct nvme_order){.run = nvme_run_delete_cq, .obeyed = deleted_cq};
    nvme_order_send(&cq->order, cq->worker);
    return NVME_PENDING;
}

// --- submission queues ---

static void sq_is_gone(struct nvme_sq *sq)
{
    sq->state = NVME_QUEUE_NONE;
    sq->cq->users--;
}

static void created_sq(struct nvme_order *order)
{
    struct nvme_sq *sq = sdc_container(order, struct nvme_sq, order);

    if (order->result != 0)
        sq_is_gone(sq);
    else
        sq->state = NVME_QUEUE_LIVE;
    if (order->result == 0)
        record_sq(sq);
    nvme_complete(sq->command, (uint16_t)status_of(order->result), 0);
}

int nvme_create_sq(struct nvme_command *command)
{
    struct nvme *nvme = command->sq->nvme;
    uint16_t id = (uint16_t)nvme_dword(command, 10);
    uint16_t cq = (uint16_t)(nvme_dword(command, 11) >> CDW11_HIGH);

    if (id_is_io(nvme, id) && is_repeated(command, nvme->sqs[id].log, SDC_NVME_LOG_SQ))
        return SDC_NVME_SC_SUCCESS;
    if (!id_is_io(nvme, id) || nvme->sqs[id].state != NVME_QUEUE_NONE || !id_is_io(nvme, cq))
        return refuse(SDC_NVME_SC_QID_INVALID);
    if (nvme->cqs[cq].state != NVME_QUEUE_LIVE)
        return refuse(SDC_NVME_SC_CQ_INVALID);
    int rc = check_queue(command, SDC_NVME_CC_IOSQES, SDC_NVME_SQES);
    if (rc != 0)
        return rc;

    struct nvme_sq *sq = &nvme->sqs[id];
    sq->cq = &nvme->cqs[cq];
    sq->worker = sq->cq->worker;
    sq->iova = sdc_get64(command->sqe + SDC_NVME_SQE_PRP1);
    sq->size = (nvme_dword(command, 10) >> CDW10_SIZE) + 1;
    sq->shadow = nvme->shadow;
    sq->command = command;
    sq->cq->users++;
    nvme->doorbells[2 * id] = 0;
    sq->state = NVME_QUEUE_CREATING;
    sq->resumes = false;
    sq->order = (struct nvme_order){.run = nvme_run_create_sq, .obeyed = created_sq};
    nvme_order_send(&sq->order, sq->worker);
    return NVME_PENDING;
}

static void deleted_sq(struct nvme_order *order)
{
    struct nvme_sq *sq = sdc_container(order, struct nvme_sq, order);

    sq_is_gone(sq);
    record_end(sq->log, SDC_NVME_LOG_SQ, SDC_NVME_LOG_SQ_END, sq->command);
    nvme_complete(sq->command, SDC_NVME_SC_SUCCESS, 0);
}

int nvme_delete_sq(struct nvme_command *command)
{
    struct nvme *nvme = command->sq->nvme;
    uint16_t id = (uint16_t)nvme_dword(command, 10);

    if (id_is_io(nvme, id) && nvme->sqs[id].state == NVME_QUEUE_NONE && is_repeated(command, nvme->sqs[id].log, SDC_NVME_LOG_SQ_END))
        return SDC_NVME_SC_SUCCESS;
    if (!id_is_io(nvme, id) || nvme->sqs[id].state != NVME_QUEUE_LIVE)
        return refuse(SDC_NVME_SC_QID_INVALID);
    struct nvme_sq *sq = &nvme->sqs[id];
    sq->state = NVME_QUEUE_DELETING;
    sq->command = command;
    sq->order = (struct nvme_order){.run = nvme_run_delete_sq, .obeyed = deleted_sq};
    nvme_order_send(&sq->order, sq->worker);
    return NVME_PENDING;
}
