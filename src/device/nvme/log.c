// SPDX-License-Identifier: BSD-3-Clause
// What queues write down, and how they go on where another process was killed: commands that had been taken are run again, oldest first,
// unless they had ended; a completion that was being posted is looked for.
#include "base/check.h"
#include "device/nvme/controller.h"

#include <errno.h>
#include <stdlib.h>

static uint64_t position_of(const struct nvme_sq *sq, uint32_t slot)
{
    return sdc_nvme_log_load(sdc_nvme_log_slot(sq->log, slot) + SDC_NVME_LOG_POSITION);
}

// --- submission queues ---

static int by_position(const void *a, const void *b)
{
    const struct nvme_again *left = a, *right = b;

    return left->position < right->position ? -1 : left->position > right->position;
}

static void resume(struct nvme_sq *sq)
{
    sq->taken = sdc_nvme_log_load(sq->log + SDC_NVME_LOG_TAKEN);
    sq->ring.head = sq->ring.tail = (uint32_t)(sq->taken % sq->size);
    for (uint32_t slot = 0; slot < sq->size; slot++) {
        uint64_t position = position_of(sq, slot);
        if (position > 0 && position <= sq->taken) {
            sq->again[sq->again_count++] = (struct nvme_again){position, slot};
            continue;
        }
        // One that was not quite taken must not count when its command is, into another slot.
        sdc_nvme_log_free(sq->log, slot);
        sq->slots[sq->slots_free++] = slot;
    }
    qsort(sq->again, sq->again_count, sizeof *sq->again, by_position);
}

int nvme_sq_log_open(struct nvme_sq *sq)
{
    sq->taken = 0;
    sq->slots_free = sq->again_count = sq->again_next = 0;
    if (!sq->log)
        return 0;
    sq->slots = calloc(sq->size, sizeof *sq->slots);
    sq->again = calloc(sq->size, sizeof *sq->again);
    if (!sq->slots || !sq->again) {
        nvme_sq_log_close(sq);
        return -ENOMEM;
    }
    if (sq->resumes) {
        resume(sq);
        return 0;
    }
    sdc_nvme_log_clear(sq->log, sq->size);
    for (uint32_t slot = sq->size; slot > 0; slot--)
        sq->slots[sq->slots_free++] = slot - 1;
    return 0;
}

void nvme_sq_log_close(struct nvme_sq *sq)
{
    free(sq->slots);
    free(sq->again);
    sq->slots = NULL;
    sq->again = NULL;
    sq->again_count = sq->again_next = 0;
}

// --- commands ---

bool nvme_log_again(struct nvme_sq *sq, struct nvme_command *command)
{
    const struct nvme_again *again = &sq->again[sq->again_next++];
    const uint8_t *at = sdc_nvme_log_slot(sq->log, again->slot);
    uint64_t result = sdc_nvme_log_load(at + SDC_NVME_LOG_RESULT);

    // It was found to be posted after all.
    if (position_of(sq, again->slot) == 0) {
        sq->slots[sq->slots_free++] = again->slot;
        return false;
    }
    memcpy(command->sqe, at + SDC_NVME_LOG_ENTRY, SDC_NVME_SQE);
    command->position = again->position - 1;
    command->slot = again->slot;
    command->status = (uint16_t)(result >> 32 & 0x7fff);
    command->dw0 = (uint32_t)result;
    command->ended = (result & SDC_NVME_LOG_ENDED) != 0;
    return true;
}

void nvme_log_take(struct nvme_command *command)
{
    struct nvme_sq *sq = command->sq;

    command->position = sq->taken++;
    command->slot = UINT32_MAX;
    if (!sq->log)
        return;
    command->slot = sq->slots[--sq->slots_free];
    sdc_nvme_log_take(sq->log, command->slot, command->position, command->sqe);
}

void nvme_log_end(struct nvme_command *command)
{
    if (command->sq->log)
        sdc_nvme_log_end(command->sq->log, command->slot, command->status, command->dw0);
}

void nvme_log_posting(struct nvme_cq *cq, struct nvme_command *command)
{
    struct sdc_nvme_log_word word = {
        .tail = cq->ring.tail, .phase = cq->ring.phase, .posting = true, .slot = command->slot, .sq = command->sq->id};

    if (cq->log)
        sdc_nvme_log_set_word(cq->log, &word);
}

static void move_on(struct nvme_cq *cq, struct nvme_sq *sq, uint32_t slot)
{
    struct sdc_nvme_log_word word = {.tail = cq->ring.tail, .phase = cq->ring.phase};

    sdc_nvme_log_free(sq->log, slot);
    sdc_nvme_log_set_word(cq->log, &word);
}

void nvme_log_posted(struct nvme_cq *cq, struct nvme_command *command)
{
    struct nvme_sq *sq = command->sq;

    if (!cq->log)
        return;
    move_on(cq, sq, command->slot);
    sq->slots[sq->slots_free++] = command->slot;
    if (sq->slots_free == 1)
        nvme_look(sq); // it took no more than can be written down
}

// --- completion queues ---

void nvme_cq_log_start(struct nvme_cq *cq)
{
    struct sdc_nvme_log_word word = {.tail = 0, .phase = true};

    cq->unsettled = false;
    if (!cq->log)
        return;
    if (!cq->resumes) {
        sdc_nvme_log_set_word(cq->log, &word);
        return;
    }
    word = sdc_nvme_log_get_word(cq->log);
    cq->ring.tail = word.tail % cq->size;
    cq->ring.phase = word.phase;
    // Any head that the driver can say is possible: as if it had taken nothing of a full queue.
    cq->ring.head = (cq->ring.tail + 1) % cq->size;
    cq->unsettled = word.posting;
    cq->shown = cq->ring.tail;
}

// Whether the entry at the tail is the completion of the command in that slot.
static bool was_posted(struct nvme_cq *cq, struct nvme_sq *sq, uint32_t slot)
{
    const uint8_t *entry = sdc_nvme_log_slot(sq->log, slot) + SDC_NVME_LOG_ENTRY;
    struct sdc_nvme_completion posted;

    if (position_of(sq, slot) == 0)
        return true; // and freed
    return sdc_nvme_cq_peek(&cq->ring, &posted) && posted.sq == sq->id && posted.cid == sdc_get16(entry + SDC_NVME_SQE_CID);
}

bool nvme_cq_settle(struct nvme_cq *cq)
{
    struct nvme *nvme = cq->nvme;

    if (!cq->unsettled)
        return true;
    if (!cq->ring.awake)
        return false;
    if (cq->ring.area.remote) {
        cq->unsettled = false;
        nvme_fatal(nvme, "nobody knows what was posted to memory that is not shared");
        return false;
    }
    struct sdc_nvme_log_word word = sdc_nvme_log_get_word(cq->log);
    struct nvme_sq *sq = &nvme->sqs[word.sq <= nvme->options.queues ? word.sq : 0];
    cq->unsettled = false;
    if (sq->cq != cq || !sq->log || word.slot >= sq->size || !was_posted(cq, sq, word.slot)) {
        word.posting = false;
        sdc_nvme_log_set_word(cq->log, &word);
        return true;
    }
    sdc_nvme_cq_skip(&cq->ring);
    cq->shown = cq->ring.tail;
    move_on(cq, sq, word.slot);
    return true;
}
