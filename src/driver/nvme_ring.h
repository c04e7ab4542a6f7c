// SPDX-License-Identifier: BSD-3-Clause
// A submission queue and the completion queue that is its own, the host's half (NVMe base specification 2.0, 3.3.1): entries in,
// entries out, and who is told of them. One thread at a time.
//
// The controller is not trusted: where it says it stands is checked against what it was given. A pair whose controller has broken the
// rules is broken for good, and `broken` says how. Command identifiers are the caller's to check.
#pragma once

#include "driver/doorbell.h"

// A doorbell register, and its shadow in our memory if there is one (5.8). Then the register is written only if the controller has
// asked for that, by an index of its own beside the shadow.
struct sdc_driver_nvme_bell {
    struct sdc_driver_doorbell bell;
    uint32_t *shadow; // little-endian; NULL: there is none
    uint32_t *event;
    uint16_t told; // what the controller was told last
};

struct sdc_driver_nvme_ring {
    const struct sdc_driver_doorbells *doorbells;
    uint16_t id;
    uint32_t size; // entries of either queue
    uint8_t *sq;
    uint8_t *cq;
    uint64_t sq_iova;
    uint64_t cq_iova;
    uint16_t tail;    // where the next submission goes
    uint16_t sq_head; // up to where the controller says it has taken them
    uint16_t head;    // where the next completion is looked for
    bool phase;       // of a new one
    uint32_t unacknowledged;
    struct sdc_driver_nvme_bell tail_bell;
    struct sdc_driver_nvme_bell head_bell;
    const char *broken; // what the controller did wrong, or NULL
};

// A completion, copied out of the queue.
struct sdc_driver_nvme_completion {
    uint32_t dw0;
    uint16_t cid;
    uint16_t status; // without the phase: type and code in bits 10:0, SDC_NVME_SC_MORE, SDC_NVME_SC_DNR
};

// Bytes of memory, in whole pages of the controller's, that a pair of so many entries takes.
uint64_t sdc_driver_nvme_ring_memory(uint32_t size, uint64_t page_size);
// Takes its memory; id, size and doorbells are set, bells are the caller's to choose. -ENOMEM: there is too little.
int sdc_driver_nvme_ring_init(struct sdc_driver_nvme_ring *ring, struct sdc_client_memory *memory, uint64_t page_size,
                              struct sdc_error *err);
// The controller has no such queues at the moment: makes them what they were when they were new.
void sdc_driver_nvme_ring_restart(struct sdc_driver_nvme_ring *ring);

// The 64 bytes of the next submission, to be filled, and then counted by add. There is room for size - 1 that were not completed; the
// caller knows how many are not.
static inline uint8_t *sdc_driver_nvme_ring_entry(const struct sdc_driver_nvme_ring *ring)
{
    return ring->sq + (size_t)ring->tail * 64;
}

static inline void sdc_driver_nvme_ring_add(struct sdc_driver_nvme_ring *ring)
{
    ring->tail = (uint16_t)(ring->tail + 1u == ring->size ? 0 : ring->tail + 1);
}

// Shows the controller what was added; and with `acknowledge`, what was taken, in the same message if it goes by message. 1 if it
// wanted to be notified of submissions and was, 0, or an error.
int sdc_driver_nvme_ring_publish(struct sdc_driver_nvme_ring *ring, bool acknowledge, struct sdc_error *err);
// Whether there is a completion.
bool sdc_driver_nvme_ring_has_next(const struct sdc_driver_nvme_ring *ring);
// Takes one. 1, 0: there is none, or -EPROTO: the pair is broken.
int sdc_driver_nvme_ring_take(struct sdc_driver_nvme_ring *ring, struct sdc_driver_nvme_completion *completion);
// Tells the controller that what was taken may be overwritten.
int sdc_driver_nvme_ring_acknowledge(struct sdc_driver_nvme_ring *ring, struct sdc_error *err);
