// SPDX-License-Identifier: BSD-3-Clause
// What a pair of NVMe queues writes down as it runs, for whoever goes on when this process is no more: where both stand, and every command
// that was taken and whose completion was not posted. In memory that outlasts the process; all numbers are little-endian. Who
// reads it when it goes on trusts nothing in it.
//
// The order of stores makes each step whole:
//   take      the slot, then `taken`, which makes it count: a slot whose position is not below `taken` is free
//   end       the slot's result: the command is not run again
//   post      the completion queue's word names the slot; the entry in guest memory; the slot is freed; the word moves on. Who finds a slot
//             named looks whether its entry is in guest memory.
#pragma once

#include "base/bytes.h"
#include "ring/step.h"
#include "wire/nvme.h"

#include <stdbool.h>

enum {
    // A pair's header.
    SDC_NVME_LOG_SQ = 0,       // not zero: the submission queue is there, made by the admin command at this position, plus one
    SDC_NVME_LOG_SQ_IOVA = 8,
    SDC_NVME_LOG_SQ_SIZE = 16, // 4 bytes
    SDC_NVME_LOG_SQ_CQ = 20,   // 4 bytes
    SDC_NVME_LOG_SQ_END = 24,  // deleted by the admin command at this position, plus one
    SDC_NVME_LOG_TAKEN = 32,   // commands that were taken since it was made
    SDC_NVME_LOG_CQ = 40,      // likewise for the completion queue
    SDC_NVME_LOG_CQ_IOVA = 48,
    SDC_NVME_LOG_CQ_SIZE = 56, // 4 bytes
    SDC_NVME_LOG_CQ_VECTOR = 60, // 4 bytes; bit 16: it interrupts
    SDC_NVME_LOG_CQ_END = 64,
    SDC_NVME_LOG_CQ_WORD = 72, // struct sdc_nvme_log_word
    SDC_NVME_LOG_HEADER = 128,
    // A slot.
    SDC_NVME_LOG_POSITION = 0, // of its command in the queue, plus one; 0: free
    SDC_NVME_LOG_RESULT = 8,   // 0: it has not ended; else SDC_NVME_LOG_ENDED, status in bits 47:32, dword 0
    SDC_NVME_LOG_ENTRY = 16,
    SDC_NVME_LOG_SLOT = 80,
};

#define SDC_NVME_LOG_ENDED (UINT64_C(1) << 63)

// Where a completion queue stands, and which slot's completion is being posted there.
struct sdc_nvme_log_word {
    uint32_t tail; // 16 bits
    bool phase;
    bool posting;
    uint32_t slot; // 16 bits
    uint16_t sq;
};

static inline uint64_t sdc_nvme_log_bytes(uint32_t slots)
{
    return (SDC_NVME_LOG_HEADER + (uint64_t)slots * SDC_NVME_LOG_SLOT + 63) / 64 * 64;
}

static inline void sdc_nvme_log_store(uint8_t *at, uint64_t value)
{
    SDC_STEP();
    __atomic_store_n((uint64_t *)(void *)at, htole64(value), __ATOMIC_RELEASE);
}

static inline uint64_t sdc_nvme_log_load(const uint8_t *at)
{
    return le64toh(__atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_ACQUIRE));
}

static inline uint8_t *sdc_nvme_log_slot(uint8_t *log, uint32_t slot)
{
    return log + SDC_NVME_LOG_HEADER + (uint64_t)slot * SDC_NVME_LOG_SLOT;
}

// The command at `position` of its queue is taken, into this slot.
static inline void sdc_nvme_log_take(uint8_t *log, uint32_t slot, uint64_t position, const uint8_t entry[SDC_NVME_SQE])
{
    uint8_t *at = sdc_nvme_log_slot(log, slot);

    memcpy(at + SDC_NVME_LOG_ENTRY, entry, SDC_NVME_SQE);
    sdc_put64(at + SDC_NVME_LOG_RESULT, 0);
    sdc_nvme_log_store(at + SDC_NVME_LOG_POSITION, position + 1);
    sdc_nvme_log_store(log + SDC_NVME_LOG_TAKEN, position + 1);
}

static inline void sdc_nvme_log_end(uint8_t *log, uint32_t slot, uint16_t status, uint32_t dw0)
{
    sdc_nvme_log_store(sdc_nvme_log_slot(log, slot) + SDC_NVME_LOG_RESULT, SDC_NVME_LOG_ENDED | (uint64_t)status << 32 | dw0);
}

static inline void sdc_nvme_log_free(uint8_t *log, uint32_t slot)
{
    sdc_nvme_log_store(sdc_nvme_log_slot(log, slot) + SDC_NVME_LOG_POSITION, 0);
}

static inline void sdc_nvme_log_set_word(uint8_t *log, const struct sdc_nvme_log_word *word)
{
    sdc_nvme_log_store(log + SDC_NVME_LOG_CQ_WORD, word->tail | (uint64_t)word->phase << 16 | (uint64_t)word->posting << 17 |
                                                       (uint64_t)word->slot << 32 | (uint64_t)word->sq << 48);
}

static inline struct sdc_nvme_log_word sdc_nvme_log_get_word(const uint8_t *log)
{
    uint64_t raw = sdc_nvme_log_load(log + SDC_NVME_LOG_CQ_WORD);

    return (struct sdc_nvme_log_word){.tail = raw & 0xffff, .phase = raw >> 16 & 1, .posting = raw >> 17 & 1,
                                      .slot = raw >> 32 & 0xffff, .sq = (uint16_t)(raw >> 48)};
}

// A new queue: no slot counts.
static inline void sdc_nvme_log_clear(uint8_t *log, uint32_t slots)
{
    sdc_nvme_log_store(log + SDC_NVME_LOG_TAKEN, 0);
    for (uint32_t i = 0; i < slots; i++)
        sdc_nvme_log_free(log, i);
}
