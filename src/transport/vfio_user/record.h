// SPDX-License-Identifier: BSD-3-Clause
// The state record of a card at a vfio-user socket: what a session writes into it as it runs, and how another process goes on with it. A
// message is consumed when its effect is recorded: until then it stands in the record as received and will be handled again.
//
// Everything here is on the home loop, and does nothing when the record is NULL.
#pragma once

#include <sidecard/pci.h>

#include "transport/common/slots.h"
#include "transport/vfio_user/journal.h"
#include "wire/state.h"

struct sdc_vfu_record;
struct vfu_session;
struct vfu_arrival;
struct sdc_region;

#define VFU_REGION_HAS_FILE UINT32_C(0x80000000) // beside enum sdc_access, in a region's entry

enum { VFU_RECORD_IO_FDS = 64 }; // eventfds of the card's that a client was given

struct sdc_vfu_record {
    struct sdc_state state;
    struct sdc_slots *slots;
    struct sdc_pci_device *device;
    struct sdc_state_shape shape;
    uint32_t live_session; // of enum vfu_state, as committed; 0: nobody is connected
    uint32_t socket_slot;
    struct vfu_journal received;
    struct vfu_journal owed;
    uint64_t consumed;   // of what was received, as committed
    uint64_t owed_until; // position, as committed
    uint64_t registers;  // device->state_changes, as committed
    bool regions_changed;
    bool interrupts_changed;
    bool lost;           // as committed: no other process can go on with the session
    const char *failed;  // why it cannot, if that is our fault
    uint8_t *base;       // of the mapping
    uint64_t mapped;     // bytes
    uint8_t *registers_scratch;
    uint8_t *interrupts_scratch;
    uint32_t io_region;
    uint32_t io_slots[VFU_RECORD_IO_FDS];
    uint32_t io_count;
    struct vfu_record_places *places; // of regions in the table
    uint32_t *drops; // slots that are free with the next commit
    uint32_t drops_count;
    uint32_t drops_capacity;
};

// --- what a session's parts tell ---

// In place of sdc_socket_receive and sdc_socket_send.
ssize_t vfu_record_receive(struct sdc_vfu_record *record, int fd, void *buffer, size_t size, int *fds, int *fds_count);
ssize_t vfu_record_send(struct sdc_vfu_record *record, int fd, uint64_t position, const struct iovec *iov, const int *fds, unsigned count);
// fds of a message that is not dispatched yet are in arrival, which is the index-th of the stream's.
void vfu_record_arrived(struct sdc_vfu_record *record, unsigned index, struct vfu_arrival *arrival);
// No other process can go on with this session.
void vfu_record_fail(struct sdc_vfu_record *record, const char *why);
// The slot is not needed when what happened meanwhile is committed.
void vfu_record_drop(struct sdc_vfu_record *record, uint32_t slot);

void vfu_record_mapped(struct sdc_vfu_record *record, const struct sdc_region *region, uint32_t slot);
void vfu_record_unmapped(struct sdc_vfu_record *record, uint64_t iova);
void vfu_record_unmapped_all(struct sdc_vfu_record *record);
void vfu_record_irqs_changed(struct sdc_vfu_record *record);
// The client was given these eventfds of the card's.
void vfu_record_io_fds(struct sdc_vfu_record *record, uint32_t region, const int *fds, uint32_t count);

// --- the course ---

// A client has connected. Without it: its socket, or no record could be kept.
int vfu_record_begin(struct vfu_session *session);
// All that was done is recorded, unless a command waits for the card; then nothing of it is.
void vfu_record_commit(struct vfu_session *session);
// The client has gone and the card is as new.
void vfu_record_end(struct vfu_session *session);

// --- going on (resume.c) ---

// Fills the session, which is as new and without a socket, with the recorded one, and puts the card where it was. -EINVAL and others with
// err filled.
int vfu_record_resume(struct vfu_session *session, struct sdc_error *err);
