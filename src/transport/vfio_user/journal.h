// SPDX-License-Identifier: BSD-3-Clause
// The bytes of one direction of a session in the state record, so that none is lost or doubled when the process is killed around the call
// that moves them. Positions count all bytes of the direction since the session began. Two areas hold the bytes, one of them is in
// use; two marks say where that one stands and hold the note in which the kernel writes how much a call has moved.
#pragma once

#include "os/socket.h"

struct vfu_journal {
    uint8_t *bytes;    // in the record
    uint64_t size;     // of an area, bytes
    unsigned mark;     // in use
    unsigned area;     // likewise
    uint64_t position; // of the area's first byte
    uint64_t used;     // bytes of the area
};

// Behind the marks there is room for what belongs to the bytes.
enum { VFU_JOURNAL_NOTES = 2048 };
uint8_t *vfu_journal_notes(struct vfu_journal *journal);

// Bytes of a journal with two areas of so many.
uint64_t vfu_journal_bytes(uint64_t area);
// An empty one that begins at position 0.
void vfu_journal_format(struct vfu_journal *journal, void *bytes, uint64_t area);
// One that somebody left; *moved is the position up to which its calls have moved bytes. -EINVAL: it cannot be.
int vfu_journal_parse(struct vfu_journal *journal, void *bytes, uint64_t area, uint64_t *moved);

// Room for `size` bytes behind those that are there; what is before keep may be forgotten. moved: up to which position calls have moved
// bytes. NULL: there is not so much room.
uint8_t *vfu_journal_room(struct vfu_journal *journal, uint64_t keep, uint64_t moved, uint64_t size);
// The bytes from a position on; those before `used` are there.
uint8_t *vfu_journal_at(struct vfu_journal *journal, uint64_t position);
uint64_t vfu_journal_end(const struct vfu_journal *journal);
// The next call moves bytes from position on, and makes its note here.
void *vfu_journal_note(struct vfu_journal *journal, uint64_t position);
// The note of the call before.
void *vfu_journal_last_note(struct vfu_journal *journal);
// Nothing before position counts any more, and nothing is there.
void vfu_journal_restart(struct vfu_journal *journal, uint64_t position);
