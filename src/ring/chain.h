// SPDX-License-Identifier: BSD-3-Clause
// Descriptor chains: the iterator that walks one, whatever the ring's format, within a budget that no caller can forget;
// and the chain as a device gets it: checked, translated to spans, readable ones first.
#pragma once

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

enum { SDC_CHAIN_FEW = 8 };

// A buffer of a chain that is bounced.
struct sdc_segment {
    uint64_t iova;
    uint32_t size;
    bool writable;
    bool remote; // a part of it is
};

// A chain of one request. Reused from request to request.
struct sdc_chain {
    uint16_t id;      // what names it when it is given back
    uint16_t logged;  // packed rings with a log: its entry there
    uint16_t entries; // of the ring that it occupies; a packed ring goes on behind them
    int fault;   // 0; -EFAULT, -EACCES: a buffer is not in guest memory; -EPROTO: readable after writable
    uint64_t readable_size;
    uint64_t writable_size;
    uint32_t readable_spans;
    uint32_t spans_count; // readable and writable ones
    uint32_t capacity;
    struct sdc_span *spans; // few, or allocated. A span with base NULL could not be translated
    struct sdc_span few[SDC_CHAIN_FEW];
    // A chain of which any buffer is in remote memory is bounced as a whole: its two streams are two spans of memory of ours, the
    // readable one first, and its segments say where they come from and go to. Who takes it fills and empties it.
    uint8_t *bounce; // NULL: not bounced
    uint64_t bounce_size;
    uint64_t unbounced; // bytes of the two streams before those in bounce: not zero when they are too long for it
    struct sdc_segment *segments;
    uint32_t segments_count;
    uint32_t segments_capacity;
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
