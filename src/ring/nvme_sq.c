// SPDX-License-Identifier: BSD-3-Clause
#include "ring/nvme_sq.h"

#include <errno.h>

enum { PAGE = 4096 }; // queues are aligned to the smallest memory page (base 5.5)

static int resolve(struct sdc_nvme_sq *sq)
{
    int rc = sdc_area_resolve(&sq->area, &sq->memory, SDC_ACCESS_READ, PAGE);

    sq->awake = rc == 0;
    return rc;
}

int sdc_nvme_sq_start(struct sdc_nvme_sq *sq, uint64_t iova, uint32_t size, const _Atomic uint32_t *word,
                      const struct sdc_memory *memory)
{
    *sq = (struct sdc_nvme_sq){.memory = *memory, .size = size, .doorbell = {.word = word}};
    sq->area = (struct sdc_area){.iova = iova, .size = (uint64_t)size * SDC_NVME_SQE};
    return resolve(sq);
}

int sdc_nvme_sq_look(struct sdc_nvme_sq *sq)
{
    uint32_t tail = sdc_nvme_doorbell_load(&sq->doorbell, sq->tail);
    int rc = tail < sq->size ? 0 : -EPROTO;

    if (rc == 0)
        sq->tail = tail;
    return rc < 0 ? rc : (int)((sq->tail + sq->size - sq->head) % sq->size);
}

int sdc_nvme_sq_take(struct sdc_nvme_sq *sq, uint8_t entry[SDC_NVME_SQE])
{
    if (!sq->awake || sq->head == sq->tail)
        return 0;
    int rc = sdc_area_read(&sq->area, &sq->memory, (uint64_t)sq->head * SDC_NVME_SQE, entry, SDC_NVME_SQE);
    if (rc < 0)
        return rc;
    sq->head = sq->head + 1 == sq->size ? 0 : sq->head + 1;
    return 1;
}

void sdc_nvme_sq_suppress(struct sdc_nvme_sq *sq)
{
    // Far from where the driver is now, and put away further whenever something is taken. A driver that passes it fills half of the queue
    // meanwhile.
    sdc_nvme_doorbell_set_event(&sq->doorbell, (sq->head + sq->size / 2) % sq->size);
}

void sdc_nvme_sq_rearm(struct sdc_nvme_sq *sq)
{
    sdc_nvme_doorbell_set_event(&sq->doorbell, sq->tail);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); // pair [event] in nvme_doorbell.h
}

bool sdc_nvme_sq_stays(const struct sdc_nvme_sq *sq, const struct sdc_map *map)
{
    struct sdc_nvme_sq moved = *sq;

    moved.memory.map = map;
    moved.memory.hit = NULL;
    return sq->awake && resolve(&moved) == 0 && moved.area.host == sq->area.host;
}

void sdc_nvme_sq_remap(struct sdc_nvme_sq *sq, const struct sdc_memory *memory)
{
    sq->memory = *memory;
    resolve(sq);
}
