// SPDX-License-Identifier: BSD-3-Clause
// Descriptor chains: the iterator that walks one, whatever the ring's format, within a budget that no caller can forget;
// and the chain as a device gets it: checked, translated to spans, readable ones first.
#pragma once

#include "base/check.h"
#include "memory/payload.h"
#include "ring/area.h"
#include "ring/fetch_log.h"

// Descriptor flags, the same in split and packed rings (virtio 1.2, 2.7.5 and 2.8.1).
enum {
    SDC_DESC_F_NEXT = 1,
    SDC_DESC_F_WRITE = 2,
    SDC_DESC_F_INDIRECT = 4,
};
enum { SDC_DESC_SIZE = 16 }; // bytes of a descriptor, in either format

struct sdc_desc {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next; // split rings: the index of the next one; packed rings: the buffer id
};

// A chain of one request. Reused from request to request.
struct sdc_chain {
    uint16_t id;      // what names it when it is given back
    uint16_t logged;  // packed rings with a log: its entry there
    uint16_t entries; // of the ring that it occupies; a packed ring goes on behind them
    struct sdc_payload payload; // its fault is -EPROTO, and its streams empty, when a readable buffer came after a writable one
    struct sdc_fetch_log fetched;
};
void sdc_chain_init(struct sdc_chain *chain);
// Gives back what a large or a bounced request made it allocate.
static inline void sdc_chain_trim(struct sdc_chain *chain)
{
    sdc_payload_trim(&chain->payload);
}
void sdc_chain_destroy(struct sdc_chain *chain);

struct sdc_inflight;

// A walk along one chain: where it begins, and what it found.
struct sdc_iterator {
    struct sdc_memory *memory;
    const struct sdc_area *table; // the ring's own
    struct sdc_inflight *log;     // is told of the descriptors of that table; may be NULL
    uint32_t table_size; // descriptors
    uint32_t index;      // of the first one
    bool packed; // descriptors follow one another; else each names the next
    bool indirect_allowed;
    // At the end.
    uint16_t id;        // packed rings: of the buffer, as its last descriptor in the ring says
    uint16_t entries;   // of the ring that were walked
    const char *broken; // after -EPROTO: why
    struct sdc_area indirect; // the other table, if there is one
};

static inline void sdc_iterator_begin(struct sdc_iterator *it, struct sdc_memory *memory, const struct sdc_area *table, uint32_t size,
                                      uint32_t index)
{
    it->memory = memory;
    it->table = table;
    it->log = NULL;
    it->table_size = size;
    it->index = index;
    it->packed = it->indirect_allowed = false;
    it->broken = NULL;
}

// Walks the chain that iterator stands at the start of, and fills chain, within a budget: no chain is longer than its table, or has more
// than 4 GiB (virtio 1.2, 2.7.4). 0, -EPROTO (the queue is broken; ->broken says why), -EAGAIN, -ENOMEM.
int sdc_chain_walk(struct sdc_chain *chain, struct sdc_iterator *iterator);

// The readable stream's bytes [offset, offset + size), which are control data: any byte of them once. 0, -EINVAL (past the end), -EFAULT.
static inline int sdc_chain_read(struct sdc_chain *chain, uint64_t offset, void *local, size_t size)
{
    if (sdc_within(offset, size, chain->payload.readable_size))
        sdc_fetch_log_add(&chain->fetched, SDC_FETCH_STREAM, offset, size);
    return sdc_payload_read(&chain->payload, offset, local, size);
}

// The same of the writable stream, for what the device says.
static inline int sdc_chain_write(struct sdc_chain *chain, uint64_t offset, const void *local, size_t size)
{
    return sdc_payload_write(&chain->payload, offset, local, size);
}

// The spans of that range of one stream (sdc_payload_spans).
static inline int sdc_chain_spans(struct sdc_chain *chain, bool writable, uint64_t offset, uint64_t size, const struct sdc_span **spans,
                                  uint32_t *count)
{
    return sdc_payload_spans(&chain->payload, writable, offset, size, spans, count);
}
