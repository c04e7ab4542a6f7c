// SPDX-License-Identifier: BSD-3-Clause
#include "ring/nvme_cq.h"

#include <errno.h>

enum { PAGE = 4096 }; // queues are aligned to the smallest memory page (base 5.4)

static int resolve(struct sdc_nvme_cq *cq)
{
    int rc = sdc_area_resolve(&cq->area, &cq->memory, SDC_ACCESS_WRITE, PAGE);

    if ((uintptr_t)cq->area.host % sizeof(uint64_t) != 0)
        cq->area.host = NULL; // half an entry is one store
    cq->awake = rc == 0;
    return rc;
}

int sdc_nvme_cq_start(struct sdc_nvme_cq *cq, uint64_t iova, uint32_t size, const _Atomic uint32_t *word,
                      const struct sdc_memory *memory)
{
    *cq = (struct sdc_nvme_cq){.memory = *memory, .size = size, .phase = true, .doorbell = {.word = word}};
    cq->area = (struct sdc_area){.iova = iova, .size = (uint64_t)size * SDC_NVME_CQE};
    return resolve(cq);
}

int sdc_nvme_cq_look(struct sdc_nvme_cq *cq)
{
    uint32_t head = sdc_nvme_doorbell_load(&cq->doorbell, cq->head);
    uint32_t posted = (cq->tail + cq->size - cq->head) % cq->size;

    if (head >= cq->size || (head + cq->size - cq->head) % cq->size > posted)
        return -EPROTO;
    cq->head = head;
    return (int)sdc_nvme_cq_room(cq);
}

void sdc_nvme_cq_suppress(struct sdc_nvme_cq *cq)
{
    // The driver gets no further than there with what there is room for.
    sdc_nvme_doorbell_set_event(&cq->doorbell, (cq->head + cq->size - 1) % cq->size);
}

void sdc_nvme_cq_rearm(struct sdc_nvme_cq *cq)
{
    sdc_nvme_doorbell_set_event(&cq->doorbell, cq->head);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); // pair [event] in nvme_doorbell.h
}

// Where its host address is not known: in remote memory an entry is one message.
static int put_by_door(struct sdc_nvme_cq *cq, uint64_t offset, const uint64_t halves[2])
{
    if (cq->area.remote)
        return sdc_area_write(&cq->area, &cq->memory, offset, halves, SDC_NVME_CQE);
    int rc = sdc_area_write(&cq->area, &cq->memory, offset, &halves[0], sizeof halves[0]);
    if (rc < 0)
        return rc;
    __atomic_thread_fence(__ATOMIC_RELEASE);
    return sdc_area_write(&cq->area, &cq->memory, offset + sizeof halves[0], &halves[1], sizeof halves[1]);
}

void sdc_nvme_cq_skip(struct sdc_nvme_cq *cq)
{
    if (++cq->tail == cq->size) {
        cq->tail = 0;
        cq->phase = !cq->phase;
    }
}

// The half that has the phase goes last, in one store, so that the driver sees all of the entry or nothing.
int sdc_nvme_cq_post(struct sdc_nvme_cq *cq, const struct sdc_nvme_completion *completion)
{
    uint64_t offset = (uint64_t)cq->tail * SDC_NVME_CQE;
    uint64_t first = htole64(completion->dw0 | (uint64_t)completion->dw1 << 32);
    uint64_t last = htole64(completion->sq_head | (uint64_t)completion->sq << 16 | (uint64_t)completion->cid << 32 |
                            (uint64_t)(uint16_t)(completion->status << 1 | cq->phase) << 48);

    if (cq->area.host) {
        uint64_t *entry = (uint64_t *)(void *)(cq->area.host + offset);
        SDC_STEP();
        __atomic_store_n(&entry[0], first, __ATOMIC_RELAXED);
        SDC_STEP();
        __atomic_store_n(&entry[1], last, __ATOMIC_RELEASE);
    } else {
        int rc = put_by_door(cq, offset, (const uint64_t[]){first, last});
        if (rc < 0)
            return rc;
    }
    sdc_nvme_cq_skip(cq);
    return 0;
}

bool sdc_nvme_cq_peek(struct sdc_nvme_cq *cq, struct sdc_nvme_completion *completion)
{
    uint8_t entry[SDC_NVME_CQE];

    if (sdc_area_read(&cq->area, &cq->memory, (uint64_t)cq->tail * SDC_NVME_CQE, entry, sizeof entry) < 0)
        return false;
    *completion = (struct sdc_nvme_completion){.sq = sdc_get16(entry + SDC_NVME_CQE_SQID), .cid = sdc_get16(entry + SDC_NVME_CQE_CID)};
    return (sdc_get16(entry + SDC_NVME_CQE_STATUS) & 1) == cq->phase;
}

bool sdc_nvme_cq_stays(const struct sdc_nvme_cq *cq, const struct sdc_map *map)
{
    struct sdc_nvme_cq moved = *cq;

    sdc_memory_turn(&moved.memory, map);
    return cq->awake && resolve(&moved) == 0 && moved.area.host == cq->area.host;
}

void sdc_nvme_cq_remap(struct sdc_nvme_cq *cq, const struct sdc_memory *memory)
{
    cq->memory = *memory;
    resolve(cq);
}
