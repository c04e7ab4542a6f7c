// SPDX-License-Identifier: BSD-3-Clause
#include "ring/nvme_sq.h"

#include "base/line.h"

#include <errno.h>

enum {
    PAGE = 4096, // queues are aligned to the smallest memory page (base 5.5)
    AHEAD = 4,   // entries on their way from the driver's processor while one is parsed
};

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
    return rc < 0 ? rc : (int)((sq->tail < sq->head ? sq->size : 0) + sq->tail - sq->head);
}

int sdc_nvme_sq_take(struct sdc_nvme_sq *sq, uint8_t entry[SDC_NVME_SQE])
{
    if (!sq->awake || sq->head == sq->tail)
        return 0;
    if (sq->area.host && sq->head + AHEAD < sq->size)
        sdc_prefetch(sq->area.host + (size_t)(sq->head + AHEAD) * SDC_NVME_SQE);
    int rc = sdc_area_read(&sq->area, &sq->memory, (uint64_t)sq->head * SDC_NVME_SQE, entry, SDC_NVME_SQE);
    if (rc < 0)
        return rc;
    sq->head = sq->head + 1 == sq->size ? 0 : sq->head + 1;
    return 1;
}

void sdc_nvme_sq_suppress(struct sdc_nvme_sq *sq)
{
    uint32_t ahead = (sq->event < sq->head ? sq->size : 0) + sq->event - sq->head;

    // Far from where the driver is now. It reads the word whenever it submits something, so that the word is moved only when a quarter of
    // the queue was taken. A driver that passes it fills at least another quarter meanwhile.
    if (ahead > sq->size / 4 && ahead <= sq->size / 2)
        return;
    sq->event = (sq->head + sq->size / 2) % sq->size;
    sdc_nvme_doorbell_set_event(&sq->doorbell, sq->event);
}

void sdc_nvme_sq_rearm(struct sdc_nvme_sq *sq)
{
    sq->event = sq->tail;
    sdc_nvme_doorbell_set_event(&sq->doorbell, sq->event);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); // pair [event] in nvme_doorbell.h
}

bool sdc_nvme_sq_stays(const struct sdc_nvme_sq *sq, const struct sdc_map *map)
{
    struct sdc_nvme_sq moved = *sq;

    sdc_memory_turn(&moved.memory, map);
    return sq->awake && resolve(&moved) == 0 && moved.area.host == sq->area.host;
}

void sdc_nvme_sq_remap(struct sdc_nvme_sq *sq, const struct sdc_memory *memory)
{
    sq->memory = *memory;
    resolve(sq);
}
