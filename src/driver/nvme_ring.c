// SPDX-License-Identifier: BSD-3-Clause
#include "driver/nvme_ring.h"

#include "base/bytes.h"
#include "base/check.h"
#include "wire/nvme.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

enum { PHASE = 1 };

static uint64_t whole_pages(uint64_t bytes, uint64_t page_size)
{
    return (bytes + page_size - 1) & ~(page_size - 1);
}

uint64_t sdc_driver_nvme_ring_memory(uint32_t size, uint64_t page_size)
{
    return whole_pages((uint64_t)size * SDC_NVME_SQE, page_size) + whole_pages((uint64_t)size * SDC_NVME_CQE, page_size);
}

int sdc_driver_nvme_ring_init(struct sdc_driver_nvme_ring *ring, struct sdc_client_memory *memory, uint64_t page_size,
                              struct sdc_error *err)
{
    uint64_t sq_bytes = whole_pages((uint64_t)ring->size * SDC_NVME_SQE, page_size);
    uint64_t cq_bytes = whole_pages((uint64_t)ring->size * SDC_NVME_CQE, page_size);
    ring->sq = sdc_client_memory_take(memory, sq_bytes, page_size, &ring->sq_iova);
    ring->cq = sdc_client_memory_take(memory, cq_bytes, page_size, &ring->cq_iova);
    if (!ring->sq || !ring->cq)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for queue %u", ring->id);
    sdc_driver_nvme_ring_restart(ring);
    return 0;
}

static void restart_bell(struct sdc_driver_nvme_bell *bell)
{
    bell->told = 0;
    if (!bell->shadow)
        return;
    __atomic_store_n(bell->shadow, 0, __ATOMIC_RELAXED);
    __atomic_store_n(bell->event, 0, __ATOMIC_RELAXED);
}

void sdc_driver_nvme_ring_restart(struct sdc_driver_nvme_ring *ring)
{
    // An entry of an earlier life must not look new.
    memset(ring->cq, 0, (size_t)ring->size * SDC_NVME_CQE);
    ring->tail = ring->sq_head = ring->head = 0;
    ring->phase = true;
    ring->unacknowledged = 0;
    ring->broken = NULL;
    restart_bell(&ring->tail_bell);
    restart_bell(&ring->head_bell);
}

// --- telling the controller ---

// Whether the register has to be written for the controller to learn of value (base 5.8 and its annex on shadow doorbells).
static bool wants_ringing(struct sdc_driver_nvme_bell *bell, uint16_t value)
{
    uint16_t before = bell->told;
    bell->told = value;
    if (!bell->shadow)
        return true;
    __atomic_store_n(bell->shadow, htole32(value), __ATOMIC_RELEASE);
    // The shadow is there before its event index is looked at; the controller does it the other way round.
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    uint16_t event = (uint16_t)le32toh(__atomic_load_n(bell->event, __ATOMIC_RELAXED));
    return (uint16_t)(value - event - 1) < (uint16_t)(value - before);
}

static int ring_bell(const struct sdc_driver_nvme_ring *ring, const struct sdc_driver_nvme_bell *bell, struct sdc_error *err)
{
    return sdc_driver_doorbell_ring(ring->doorbells, &bell->bell, bell->told, 4, err);
}

// Both registers by one message.
static int ring_both(const struct sdc_driver_nvme_ring *ring, struct sdc_error *err)
{
    const struct sdc_driver_nvme_bell *bells[] = {&ring->head_bell, &ring->tail_bell};
    struct sdc_vfio_write writes[SDC_COUNT(bells)];
    for (unsigned i = 0; i < SDC_COUNT(bells); i++) {
        writes[i] = (struct sdc_vfio_write){.region = ring->doorbells->region, .size = 4, .offset = bells[i]->bell.offset};
        sdc_put32(writes[i].data, bells[i]->told);
    }
    return sdc_vfio_client_write_multi(ring->doorbells->client, writes, SDC_COUNT(writes), true, err);
}

int sdc_driver_nvme_ring_publish(struct sdc_driver_nvme_ring *ring, bool acknowledge, struct sdc_error *err)
{
    bool tail = ring->tail != ring->tail_bell.told && wants_ringing(&ring->tail_bell, ring->tail);
    bool head = acknowledge && ring->unacknowledged > 0 && wants_ringing(&ring->head_bell, ring->head);
    int ret = 0;
    if (acknowledge)
        ring->unacknowledged = 0;
    if (head && tail && ring->tail_bell.bell.way == SDC_DRIVER_NOTIFY_MESSAGE &&
        ring->head_bell.bell.way == SDC_DRIVER_NOTIFY_MESSAGE) {
        ret = ring_both(ring, err);
    } else {
        if (head)
            ret = ring_bell(ring, &ring->head_bell, err);
        if (ret == 0 && tail)
            ret = ring_bell(ring, &ring->tail_bell, err);
    }
    return ret < 0 ? ret : tail;
}

int sdc_driver_nvme_ring_acknowledge(struct sdc_driver_nvme_ring *ring, struct sdc_error *err)
{
    bool wanted = ring->unacknowledged > 0 && wants_ringing(&ring->head_bell, ring->head);
    ring->unacknowledged = 0;
    return wanted ? ring_bell(ring, &ring->head_bell, err) : 0;
}

// --- completions ---

// The half of an entry that the controller writes last: submission queue's head and identifier, command identifier, phase and status.
static uint64_t last_half(const struct sdc_driver_nvme_ring *ring)
{
    const uint8_t *entry = ring->cq + (size_t)ring->head * SDC_NVME_CQE;
    return le64toh(__atomic_load_n((const uint64_t *)(const void *)(entry + SDC_NVME_CQE_SQHD), __ATOMIC_ACQUIRE));
}

static bool is_new(const struct sdc_driver_nvme_ring *ring, uint64_t half)
{
    return (half >> 48 & PHASE) == ring->phase;
}

bool sdc_driver_nvme_ring_has_next(const struct sdc_driver_nvme_ring *ring)
{
    return is_new(ring, last_half(ring));
}

static int broken(struct sdc_driver_nvme_ring *ring, const char *how)
{
    ring->broken = how;
    return -EPROTO;
}

// How many entries lie from one to the other.
static uint32_t distance(const struct sdc_driver_nvme_ring *ring, uint16_t from, uint16_t to)
{
    return to >= from ? (uint32_t)to - from : ring->size - from + to;
}

int sdc_driver_nvme_ring_take(struct sdc_driver_nvme_ring *ring, struct sdc_driver_nvme_completion *completion)
{
    if (ring->broken)
        return -EPROTO;
    uint64_t half = last_half(ring);
    if (!is_new(ring, half))
        return 0;
    uint16_t sq_head = (uint16_t)half;
    if ((uint16_t)(half >> 16) != ring->id)
        return broken(ring, "the controller completed a command of another queue");
    if (sq_head >= ring->size)
        return broken(ring, "the controller's submission queue head is outside the queue");
    if (distance(ring, ring->sq_head, sq_head) > distance(ring, ring->sq_head, ring->tail_bell.told))
        return broken(ring, "the controller's submission queue head is where nothing was submitted");
    ring->sq_head = sq_head;
    *completion = (struct sdc_driver_nvme_completion){.dw0 = sdc_get32(ring->cq + (size_t)ring->head * SDC_NVME_CQE),
                                                      .cid = (uint16_t)(half >> 32),
                                                      .status = (uint16_t)(half >> 49)};
    ring->unacknowledged++;
    ring->head++;
    if (ring->head == ring->size) {
        ring->head = 0;
        ring->phase = !ring->phase;
    }
    return 1;
}
