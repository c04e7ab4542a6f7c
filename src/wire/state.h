// SPDX-License-Identifier: BSD-3-Clause
// The state record: what a card must remember, flat, little-endian, in memory that outlasts the process. It is written as the card runs,
// so whoever is killed leaves a whole one behind; loading is parsing, and the input is hostile. No I/O.
//
// A header and a directory of sections, which never change once written and have a checksum; then the sections:
//   - pairs: two copies, each with its generation and checksum. The copy that counts is the newer one that was committed.
//   - tables of entries that are born with one generation and die with another;
//   - live memory, for which its user answers (what is in flight, bytes that were received).
// Committing is one store: the record's generation counts up, and everything that was prepared for it is true at once.
//
// One thread at a time (live memory apart).
#pragma once

#include <sidecard/error.h>

#include <stdbool.h>
#include <stdint.h>

enum { SDC_STATE_VERSION = 1 };

enum sdc_state_section {
    SDC_STATE_IDENTITY,   // whose record it is, text; fixed
    SDC_STATE_SESSION,    // the connected client, a pair
    SDC_STATE_REGISTERS,  // the card's, a pair
    SDC_STATE_INTERRUPTS, // slots of eventfds and masks, a pair
    SDC_STATE_REGIONS,    // of guest memory, a table
    SDC_STATE_RECEIVED,   // bytes from the client, live
    SDC_STATE_OWED,       // bytes to it, live
    SDC_STATE_QUEUES,     // one piece for each queue, live
    SDC_STATE_SECTIONS,
};

enum { SDC_STATE_IDENTITY_BYTES = 256 };

// How long the sections are.
struct sdc_state_shape {
    char identity[SDC_STATE_IDENTITY_BYTES]; // ends with a NUL
    uint32_t session;    // bytes
    uint32_t registers;  // bytes
    uint32_t interrupts; // bytes
    uint32_t regions;    // entries
    uint64_t received;   // bytes
    uint64_t owed;       // bytes
    uint64_t queues;     // bytes
};

struct sdc_state {
    uint8_t *bytes;
    uint64_t size;
    uint64_t generation; // committed
    uint64_t offsets[SDC_STATE_SECTIONS];
    uint64_t lengths[SDC_STATE_SECTIONS];
};

// A window of guest memory. Entry 0 of the file's bytes is at `offset`.
struct sdc_state_region {
    uint64_t iova;
    uint64_t size;
    uint64_t offset;
    uint32_t slot;   // of the memory's file; UINT32_MAX: remote
    uint32_t access; // enum sdc_access
};

// Bytes of a record of this shape.
uint64_t sdc_state_size(const struct sdc_state_shape *shape);
// Writes an empty record into bytes, which are zeroed, 8-byte aligned, and stay the caller's.
void sdc_state_format(struct sdc_state *state, void *bytes, const struct sdc_state_shape *shape);
// Opens a record that somebody left. It must be of this version and shape, whole, and say the same as when it was written: else
// -EINVAL with err filled. What was prepared and never committed is gone.
int sdc_state_parse(struct sdc_state *state, void *bytes, uint64_t size, const struct sdc_state_shape *shape, struct sdc_error *err);

// Live memory of a section.
void *sdc_state_live(const struct sdc_state *state, enum sdc_state_section section);

// A pair. prepare: the copy that counts after the next commit is `size` bytes from data, then zeroes. now: the one that counts, or NULL:
// nothing was ever committed.
void sdc_state_prepare(struct sdc_state *state, enum sdc_state_section section, const void *data, uint32_t size);
const uint8_t *sdc_state_now(const struct sdc_state *state, enum sdc_state_section section);

// The table of regions. An index belongs to nobody before born and after the commit that follows died.
void sdc_state_region_born(struct sdc_state *state, uint32_t index, const struct sdc_state_region *region);
void sdc_state_region_died(struct sdc_state *state, uint32_t index);
// Entries from here on were never born.
uint32_t sdc_state_regions_end(const struct sdc_state *state);
// Whether the entry counts.
bool sdc_state_region_now(const struct sdc_state *state, uint32_t index, struct sdc_state_region *region);

// All that was prepared, born and died is so from now on.
void sdc_state_commit(struct sdc_state *state);
