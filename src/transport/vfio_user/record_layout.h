// SPDX-License-Identifier: BSD-3-Clause
// The forms of a vfio-user card's own sections in its state record (offsets in bytes), and the book-keeping of the regions' table.
#pragma once

#include "base/bytes.h"
#include "base/limits.h"
#include "transport/vfio_user/record.h"

enum {
    // The session.
    SESSION_STATE = 0, // 0: nobody is connected; else enum vfu_state
    SESSION_FLAGS = 4,
    SESSION_MAX_XFER = 8,
    SESSION_MAX_FDS = 16,
    SESSION_CONSUMED = 24, // position in what was received
    SESSION_OWED = 32,     // end of what is owed
    SESSION_SOCKET = 40,   // slot
    SESSION_LAYOUT = 44,   // enum vfu_dma_layout
    SESSION_BYTES = 64,
    SESSION_PADS_ERRORS = 1,
    SESSION_NO_INTX = 2,
    SESSION_LOST = 4,
    // Interrupts: the card's eventfds that the client was given, then a word for each vector of each kind.
    IRQ_IO_REGION = 0,
    IRQ_IO_COUNT = 4,
    IRQ_IO_SLOTS = 8,
    IRQ_VECTORS = IRQ_IO_SLOTS + 4 * VFU_RECORD_IO_FDS,
    // fds that came with a message that was not handled yet.
    ARRIVAL_POSITION = 0, // of the message, plus one; 0: none
    ARRIVAL_COUNT = 8,
    ARRIVAL_LOST = 12,
    ARRIVAL_SLOTS = 16,
    ARRIVAL_BYTES = ARRIVAL_SLOTS + 4 * SDC_LIMIT_MESSAGE_FDS,
};
#define IRQ_SLOT UINT32_C(0x7fffffff) // plus one; 0: none
#define IRQ_MASKED UINT32_C(0x80000000)

#define RECEIVED_AREA (UINT64_C(4) << 20)
#define OWED_AREA (UINT64_C(12) << 20)
#define RECORD_MOST (UINT64_C(4) << 30)

// Which entries of the regions' table are taken, by the regions' addresses.
struct vfu_record_places;
struct vfu_record_places *vfu_places_new(uint32_t count);
void vfu_places_free(struct vfu_record_places *places);
// A free entry; SDC_SLOT_NONE: no memory.
uint32_t vfu_places_take(struct vfu_record_places *places, uint64_t iova);
// This entry, when a record is taken over. False: another region has the address, or there is no memory.
bool vfu_places_adopt(struct vfu_record_places *places, uint32_t place, uint64_t iova);
// The entry of a region that is gone; nobody gets it before settle. SDC_SLOT_NONE: there is none.
uint32_t vfu_places_give(struct vfu_record_places *places, uint64_t iova);
void vfu_places_settle(struct vfu_record_places *places);
// Entries from here on were never used.
uint32_t vfu_places_end(const struct vfu_record_places *places);

// A record that another process left: what it says of the session, checked. -EINVAL with err filled.
int vfu_record_read(struct sdc_vfu_record *record, struct sdc_error *err);
