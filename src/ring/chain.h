// SPDX-License-Identifier: BSD-3-Clause
// Descriptor chains: the iterator that walks one, whatever the ring's format, within a budget that no caller can forget;
// and the chain as a device gets it: checked, translated to spans, readable ones first.
#pragma once

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
void sdc_chain_trim(struct sdc_chain *chain);
void sdc_chain_destroy(struct sdc_chain *chain);

struct sdc_inflight;

// Where a walk stands.
struct sdc_iterator {
    struct sdc_memory *memory;
    const struct sdc_area *table; // the ring's own table, then &indirect
    struct sdc_inflight *log;     // is told of the descriptors of the ring's own table; may be NULL
    struct sdc_area indirect;
    uint32_t table_size; // descriptors
    uint32_t index;      // of the next one
    uint32_t steps_left; // the budget: no chain is longer than its table
    uint16_t id;         // packed rings: of the buffer, as its last descriptor in the ring says
    uint16_t entries;    // of the ring that were walked
    uint64_t bytes;      // so far; 4 GiB at most in all (virtio 1.2, 2.7.4)
    bool packed; // descriptors follow one another; else each names the next
    bool indirect_allowed;
    bool ended;
    const char *broken; // after -EPROTO: why
};

// Takes one descriptor. 1, 0 at the end of the chain, -EPROTO (the queue is broken; ->broken says why), -EAGAIN.
int sdc_iterator_next(struct sdc_iterator *iterator, struct sdc_desc *desc, struct sdc_fetch_log *log);

// Walks the chain that iterator stands at the start of, and fills chain. 0, or an error as above, or -ENOMEM.
int sdc_chain_walk(struct sdc_chain *chain, struct sdc_iterator *iterator);

// The readable or writable stream's bytes [offset, offset + size). 0, -EINVAL (past the end), -EFAULT.
int sdc_chain_read(struct sdc_chain *chain, uint64_t offset, void *local, size_t size);
int sdc_chain_write(struct sdc_chain *chain, uint64_t offset, const void *local, size_t size);
// The spans of that range of one stream, cut so that they cover nothing else; the streams stay what they are. Good until the next
// call. 0, -EINVAL, -EFAULT, -ENOMEM.
int sdc_chain_spans(struct sdc_chain *chain, bool writable, uint64_t offset, uint64_t size, const struct sdc_span **spans,
                    uint32_t *count);
