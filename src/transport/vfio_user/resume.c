// SPDX-License-Identifier: BSD-3-Clause
// Going on with a session that another process had. Everything in its record is checked like a message: it may be anybody's.
#include "base/check.h"
#include "base/log.h"
#include "os/fd.h"
#include "transport/vfio_user/record_layout.h"
#include "transport/vfio_user/session.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int corrupt(struct sdc_error *err, const char *what)
{
    return sdc_error_set(err, -EINVAL, SDC_FAULT_PEER, "the state record is corrupt: %s", what);
}

int vfu_record_read(struct sdc_vfu_record *record, struct sdc_error *err)
{
    const uint8_t *session = sdc_state_now(&record->state, SDC_STATE_SESSION);

    record->live_session = session ? sdc_get32(session + SESSION_STATE) : 0;
    if (record->live_session == 0)
        return 0;
    if (record->live_session != VFU_NEW && record->live_session != VFU_READY)
        return corrupt(err, "its session is in no state that there is");
    if (!sdc_state_now(&record->state, SDC_STATE_REGISTERS) || !sdc_state_now(&record->state, SDC_STATE_INTERRUPTS))
        return corrupt(err, "it has a session, but no registers");
    record->lost = sdc_get32(session + SESSION_FLAGS) & SESSION_LOST;
    record->consumed = sdc_get64(session + SESSION_CONSUMED);
    record->owed_until = sdc_get64(session + SESSION_OWED);
    record->socket_slot = sdc_get32(session + SESSION_SOCKET);
    return 0;
}

// An fd from a slot that the record names; *slot is claimed.
static int take_slot(struct sdc_vfu_record *record, uint32_t slot, const char *what, struct sdc_error *err)
{
    int fd = record->slots->ops->take(record->slots, slot);

    if (fd < 0)
        sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "the state record names slot %" PRIu32 " for %s, and there is nothing in it", slot,
                      what);
    return fd;
}

// --- bytes ---

static void resume_arrivals(struct vfu_session *session)
{
    struct sdc_vfu_record *record = session->record;
    uint64_t end = vfu_journal_end(&record->received);

    for (unsigned i = 0; i < VFU_ARRIVALS; i++) {
        const uint8_t *at = vfu_journal_notes(&record->received) + i * ARRIVAL_BYTES;
        struct vfu_arrival *arrival = &session->stream.arrivals[i];
        uint64_t position = sdc_get64(at + ARRIVAL_POSITION);
        uint32_t count = sdc_get32(at + ARRIVAL_COUNT);
        if (position == 0 || position - 1 < record->consumed || position - 1 >= end || count > SDC_LIMIT_MESSAGE_FDS)
            continue;
        arrival->position = position - 1;
        arrival->lost = sdc_get32(at + ARRIVAL_LOST) != 0;
        for (uint32_t k = 0; k < count; k++) {
            uint32_t slot = sdc_get32(at + ARRIVAL_SLOTS + k * 4);
            int fd = record->slots->ops->take(record->slots, slot);
            if (fd < 0) {
                arrival->lost = true; // the message is refused
                continue;
            }
            arrival->fds[arrival->count] = fd;
            arrival->slots[arrival->count++] = slot;
        }
    }
}

static int resume_received(struct vfu_session *session, struct sdc_error *err)
{
    struct sdc_vfu_record *record = session->record;
    struct vfu_stream *stream = &session->stream;
    uint64_t moved;
    int rc = vfu_journal_parse(&record->received, sdc_state_live(&record->state, SDC_STATE_RECEIVED), RECEIVED_AREA, &moved);

    if (rc < 0 || record->consumed < record->received.position || record->consumed > moved)
        return corrupt(err, "what was received");
    rc = vfu_stream_fill(stream, record->consumed, vfu_journal_at(&record->received, record->consumed), moved - record->consumed);
    if (rc < 0)
        return rc == -ENOMEM ? sdc_error_set(err, rc, SDC_FAULT_HOST, "no memory for a session") : corrupt(err, "what was received");
    // A call that brought fds, and was the last that its process made.
    resume_arrivals(session);
    if (sdc_socket_note_has_fds(vfu_journal_last_note(&record->received)))
        vfu_stream_lose_fds(stream);
    return 0;
}

static int resume_owed(struct vfu_session *session, struct sdc_error *err)
{
    struct sdc_vfu_record *record = session->record;
    uint64_t moved;
    int rc = vfu_journal_parse(&record->owed, sdc_state_live(&record->state, SDC_STATE_OWED), OWED_AREA, &moved);

    if (rc < 0 || moved > record->owed_until || record->owed_until - record->owed.position > OWED_AREA)
        return corrupt(err, "what is owed to the client");
    uint64_t size = record->owed_until - moved;
    record->owed.used = record->owed_until - record->owed.position;
    session->stream.sent = moved;
    if (size == 0)
        return 0;
    uint8_t *room = vfu_stream_append(&session->stream, (size_t)size);
    if (!room)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a session");
    memcpy(room, vfu_journal_at(&record->owed, moved), (size_t)size);
    return 0;
}

// --- fds ---

static int resume_interrupts(struct vfu_session *session, struct sdc_error *err)
{
    struct sdc_vfu_record *record = session->record;
    const uint8_t *from = sdc_state_now(&record->state, SDC_STATE_INTERRUPTS) + IRQ_VECTORS;

    for (unsigned kind = 0; kind < SDC_PCI_IRQS; kind++) {
        struct vfu_irq_set *set = &session->irqs.sets[kind];
        for (uint32_t i = 0; i < set->count; i++, from += 4) {
            uint32_t word = sdc_get32(from);
            set->masked[i] = word & IRQ_MASKED;
            if ((word & IRQ_SLOT) == 0)
                continue;
            set->slots[i] = (word & IRQ_SLOT) - 1;
            set->fds[i] = take_slot(record, set->slots[i], "an interrupt", err);
            if (set->fds[i] < 0)
                return -EINVAL;
            if (!sdc_fd_is_eventfd(set->fds[i]) || sdc_fd_set_nonblocking(set->fds[i]) < 0)
                return corrupt(err, "an interrupt's fd is no eventfd");
        }
    }
    return 0;
}

static int resume_io_fds(struct vfu_session *session, struct sdc_error *err)
{
    struct sdc_vfu_record *record = session->record;
    const uint8_t *from = sdc_state_now(&record->state, SDC_STATE_INTERRUPTS);
    uint32_t count = sdc_get32(from + IRQ_IO_COUNT);
    int fds[VFU_RECORD_IO_FDS];

    record->io_region = sdc_get32(from + IRQ_IO_REGION);
    record->io_count = 0;
    if (count > VFU_RECORD_IO_FDS || (count > 0 && !session->device->ops->adopt_io_fds))
        return corrupt(err, "eventfds that the card cannot have");
    for (uint32_t i = 0; i < count; i++) {
        uint32_t slot = sdc_get32(from + IRQ_IO_SLOTS + i * 4);
        fds[i] = take_slot(record, slot, "a notification", err);
        bool good = fds[i] >= 0 && sdc_fd_is_eventfd(fds[i]);
        if (!good) {
            for (uint32_t k = 0; k <= i; k++)
                sdc_fd_close(&fds[k]);
            return corrupt(err, "a notification's fd is no eventfd");
        }
        record->io_slots[record->io_count++] = slot;
    }
    if (count > 0)
        session->device->ops->adopt_io_fds(session->device, record->io_region, fds, count);
    return 0;
}

static int resume_regions(struct vfu_session *session, struct sdc_error *err)
{
    struct sdc_vfu_record *record = session->record;
    struct sdc_state_region entry;

    for (uint32_t i = 0, end = sdc_state_regions_end(&record->state); i < end; i++) {
        if (!sdc_state_region_now(&record->state, i, &entry))
            continue;
        if (!vfu_places_adopt(record->places, i, entry.iova))
            return corrupt(err, "two regions of guest memory at one address");
        int rc = vfu_dma_resume(session, &entry);
        if (rc < 0)
            return sdc_error_set(err, rc, SDC_FAULT_PEER, "the state record's guest memory at %#" PRIx64 " + %#" PRIx64 " cannot be had: "
                                 "%s", entry.iova, entry.size, strerror(-rc));
    }
    return 0;
}

// --- the whole ---

int vfu_record_resume(struct vfu_session *session, struct sdc_error *err)
{
    struct sdc_vfu_record *record = session->record;
    struct sdc_pci_device *device = session->device;
    const uint8_t *saved = sdc_state_now(&record->state, SDC_STATE_SESSION);
    uint32_t flags = sdc_get32(saved + SESSION_FLAGS);
    uint32_t layout = sdc_get32(saved + SESSION_LAYOUT);

    session->state = record->live_session;
    session->pads_errors = flags & SESSION_PADS_ERRORS;
    session->no_intx = flags & SESSION_NO_INTX;
    session->max_data_xfer_size = sdc_min(sdc_get64(saved + SESSION_MAX_XFER), SDC_LIMIT_DATA_XFER);
    session->max_msg_fds = sdc_get64(saved + SESSION_MAX_FDS);
    session->remote.layout = layout == VFU_LAYOUT_64 || layout == VFU_LAYOUT_32 ? layout : VFU_LAYOUT_UNKNOWN;
    session->dma.changed = true;

    // One that nobody can go on with is only taken apart.
    int rc = record->lost ? 0 : resume_received(session, err);
    if (rc == 0 && !record->lost)
        rc = resume_owed(session, err);
    if (rc == 0)
        rc = resume_interrupts(session, err);
    if (rc == 0)
        rc = resume_regions(session, err);
    if (rc == 0 && vfu_dma_publish(session) < 0)
        rc = sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for the table of guest memory");
    if (rc == 0)
        rc = resume_io_fds(session, err);
    if (rc == 0 && !record->lost)
        rc = device->ops->state_load(device, sdc_state_now(&record->state, SDC_STATE_REGISTERS), err);
    record->registers = device->state_changes;
    return rc;
}
