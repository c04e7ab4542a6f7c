// SPDX-License-Identifier: BSD-3-Clause
// An NVMe completion queue in guest memory (base 3.3.3), the controller's half: posts entries, each of which the driver knows for new by
// its phase. One thread at a time. It keeps its own copy of both indices, and sleeps like a submission queue.
#pragma once

#include "ring/nvme_doorbell.h"
#include "wire/nvme.h"

// What a completion says. Its phase is the queue's affair.
struct sdc_nvme_completion {
    uint32_t dw0;
    uint32_t dw1;
    uint16_t sq_head;
    uint16_t sq;
    uint16_t cid;
    uint16_t status; // the status field: enum sdc_nvme_status and the bits above it
};

struct sdc_nvme_cq {
    struct sdc_memory memory; // its own view
    struct sdc_area area;
    struct sdc_nvme_doorbell doorbell;
    uint32_t size; // entries, 2 to 65536
    uint32_t tail; // the next to fill
    uint32_t head; // how far the driver has taken them, as last looked at
    bool phase;    // of what is posted now
    bool awake;
};

// As sdc_nvme_sq_start.
int sdc_nvme_cq_start(struct sdc_nvme_cq *cq, uint64_t iova, uint32_t size, const _Atomic uint32_t *word,
                      const struct sdc_memory *memory);
// Looks at the doorbell: how many entries there is room for. -EPROTO: it says that the driver took what was not posted; the one before
// counts on.
int sdc_nvme_cq_look(struct sdc_nvme_cq *cq);
// With shadow doorbells: the driver need not write the register; it shall when it takes what comes next. After the latter, who called it
// looks once more.
void sdc_nvme_cq_suppress(struct sdc_nvme_cq *cq);
void sdc_nvme_cq_rearm(struct sdc_nvme_cq *cq);
// Room for how many entries, as far as is known without a look.
static inline uint32_t sdc_nvme_cq_room(const struct sdc_nvme_cq *cq)
{
    return (cq->head > cq->tail ? 0 : cq->size) + cq->head - cq->tail - 1;
}
// Puts an entry there is room for where the driver sees it. 0, or a negative errno: it is out of reach.
int sdc_nvme_cq_post(struct sdc_nvme_cq *cq, const struct sdc_nvme_completion *completion);
// The entry at the tail, if it is one of this pass; and as if it had been posted just now. For who goes on where another process was.
bool sdc_nvme_cq_peek(struct sdc_nvme_cq *cq, struct sdc_nvme_completion *completion);
void sdc_nvme_cq_skip(struct sdc_nvme_cq *cq);
bool sdc_nvme_cq_stays(const struct sdc_nvme_cq *cq, const struct sdc_map *map);
void sdc_nvme_cq_remap(struct sdc_nvme_cq *cq, const struct sdc_memory *memory);
