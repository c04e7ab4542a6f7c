// SPDX-License-Identifier: BSD-3-Clause
#include "transport/vfio_user/record.h"

#include "base/check.h"
#include "base/log.h"
#include "os/fd.h"
#include "os/memfd.h"
#include "transport/vfio_user/record_layout.h"
#include "transport/vfio_user/session.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void vfu_record_fail(struct sdc_vfu_record *record, const char *why)
{
    if (!record || record->failed)
        return;
    record->failed = why;
    sdc_log(SDC_LOG_INFO, "no other process can go on with this client: %s", why);
}

// --- slots ---

static uint32_t put(struct sdc_vfu_record *record, int fd)
{
    uint32_t slot = SDC_SLOT_NONE;
    int rc = record->slots->ops->put(record->slots, fd, &slot);

    if (rc < 0)
        vfu_record_fail(record, rc == -ENOSPC ? "the keeper has no slot left for an fd" : "the keeper does not take an fd");
    return slot;
}

void vfu_record_drop(struct sdc_vfu_record *record, uint32_t slot)
{
    if (!record || slot == SDC_SLOT_NONE)
        return;
    if (record->drops_count == record->drops_capacity) {
        uint32_t capacity = record->drops_capacity ? 2 * record->drops_capacity : 64;
        uint32_t *drops = realloc(record->drops, capacity * sizeof *drops);
        if (!drops)
            return; // whoever takes over finds that nobody names it, and drops it
        record->drops = drops;
        record->drops_capacity = capacity;
    }
    record->drops[record->drops_count++] = slot;
}

static void commit(struct sdc_vfu_record *record)
{
    sdc_state_commit(&record->state);
    vfu_places_settle(record->places);
    while (record->drops_count > 0)
        record->slots->ops->drop(record->slots, record->drops[--record->drops_count]);
}

// --- bytes ---

ssize_t vfu_record_receive(struct sdc_vfu_record *record, int fd, void *buffer, size_t size, int *fds, int *fds_count)
{
    if (!record)
        return sdc_socket_receive(fd, buffer, size, fds, fds_count);
    uint64_t end = vfu_journal_end(&record->received);
    uint8_t *room = vfu_journal_room(&record->received, record->consumed, end, size);
    *fds_count = 0;
    if (!room)
        return -ENOBUFS; // no client has so much unhandled here
    ssize_t got = sdc_socket_receive_noted(fd, room, size, fds, fds_count, vfu_journal_note(&record->received, end));
    if (got > 0) {
        memcpy(buffer, room, (size_t)got);
        record->received.used += (uint64_t)got;
    }
    return got;
}

ssize_t vfu_record_send(struct sdc_vfu_record *record, int fd, uint64_t position, const struct iovec *iov, const int *fds, unsigned count)
{
    // What is not recorded are messages of ours; while they are under way no other process can go on.
    if (!record || position < record->owed.position || position + iov->iov_len > vfu_journal_end(&record->owed))
        return sdc_socket_send(fd, iov, 1, fds, count);
    return sdc_socket_send_noted(fd, iov, 1, fds, count, vfu_journal_note(&record->owed, position));
}

void vfu_record_arrived(struct sdc_vfu_record *record, unsigned index, struct vfu_arrival *arrival)
{
    if (!record)
        return;
    uint8_t *at = vfu_journal_notes(&record->received) + index * ARRIVAL_BYTES;
    for (int i = 0; i < arrival->count; i++) {
        if (arrival->slots[i] == SDC_SLOT_NONE)
            arrival->slots[i] = put(record, arrival->fds[i]);
        sdc_put32(at + ARRIVAL_SLOTS + (unsigned)i * 4, arrival->slots[i]);
    }
    for (int i = arrival->count; i < SDC_LIMIT_MESSAGE_FDS; i++)
        sdc_put32(at + ARRIVAL_SLOTS + (unsigned)i * 4, SDC_SLOT_NONE);
    sdc_put32(at + ARRIVAL_LOST, arrival->lost);
    sdc_put32(at + ARRIVAL_COUNT, (uint32_t)arrival->count);
    __atomic_store_n((uint64_t *)(void *)(at + ARRIVAL_POSITION), htole64(arrival->position + 1), __ATOMIC_RELEASE);
    sdc_socket_note_fds_safe(vfu_journal_last_note(&record->received));
}

// --- memory, interrupts ---

void vfu_record_mapped(struct sdc_vfu_record *record, const struct sdc_region *region, uint32_t slot)
{
    if (!record)
        return;
    uint32_t place = vfu_places_take(record->places, region->iova);
    struct sdc_state_region entry = {
        .iova = region->iova,
        .size = region->size,
        .offset = region->host ? (uint64_t)(region->host - region->mapping->base) : 0,
        .slot = region->host ? slot : SDC_SLOT_NONE,
        .access = region->access | (region->host ? VFU_REGION_HAS_FILE : 0),
    };
    if (place == SDC_SLOT_NONE) {
        vfu_record_fail(record, "no memory");
        return;
    }
    sdc_state_region_born(&record->state, place, &entry);
    record->regions_changed = true;
}

void vfu_record_unmapped(struct sdc_vfu_record *record, uint64_t iova)
{
    if (!record)
        return;
    uint32_t place = vfu_places_give(record->places, iova);
    if (place == SDC_SLOT_NONE)
        return;
    sdc_state_region_died(&record->state, place);
    record->regions_changed = true;
}

void vfu_record_unmapped_all(struct sdc_vfu_record *record)
{
    struct sdc_state_region region;

    if (!record)
        return;
    for (uint32_t i = 0, end = vfu_places_end(record->places); i < end; i++) {
        if (sdc_state_region_now(&record->state, i, &region))
            vfu_record_unmapped(record, region.iova);
    }
}

void vfu_record_irqs_changed(struct sdc_vfu_record *record)
{
    if (record)
        record->interrupts_changed = true;
}

void vfu_record_io_fds(struct sdc_vfu_record *record, uint32_t region, const int *fds, uint32_t count)
{
    // The same whenever the client asks; it may ask for more at another time.
    if (!record || (record->io_count > 0 && record->io_region != region))
        return;
    record->io_region = region;
    for (uint32_t i = record->io_count; i < count && i < VFU_RECORD_IO_FDS; i++)
        record->io_slots[record->io_count++] = put(record, fds[i]);
    record->interrupts_changed = true;
}

static void save_interrupts(struct vfu_session *session)
{
    struct sdc_vfu_record *record = session->record;
    uint8_t *to = record->interrupts_scratch;

    sdc_put32(to + IRQ_IO_REGION, record->io_region);
    sdc_put32(to + IRQ_IO_COUNT, record->io_count);
    for (uint32_t i = 0; i < record->io_count; i++)
        sdc_put32(to + IRQ_IO_SLOTS + i * 4, record->io_slots[i]);
    to += IRQ_VECTORS;
    for (unsigned kind = 0; kind < SDC_PCI_IRQS; kind++) {
        const struct vfu_irq_set *set = &session->irqs.sets[kind];
        for (uint32_t i = 0; i < set->count; i++, to += 4)
            sdc_put32(to, (set->fds[i] < 0 ? 0 : (set->slots[i] + 1) & IRQ_SLOT) | (set->masked[i] ? IRQ_MASKED : 0));
    }
    sdc_state_prepare(&record->state, SDC_STATE_INTERRUPTS, record->interrupts_scratch, record->shape.interrupts);
}

// --- the session ---

// A client whose memory is reached by messages, or that was not sent the fds of a reply yet: no other process can go on with it.
static bool cannot_go_on(const struct vfu_session *session)
{
    return session->remote.outstanding > 0 || session->remote.first || session->stream.departures_count > 0 || session->twin.on ||
           session->record->failed;
}

static void save_session(struct vfu_session *session, uint64_t consumed, uint64_t owed_until)
{
    struct sdc_vfu_record *record = session->record;
    uint8_t bytes[SESSION_BYTES] = {0};

    sdc_put32(bytes + SESSION_STATE, session->state == VFU_NEW ? VFU_NEW : VFU_READY);
    sdc_put32(bytes + SESSION_FLAGS, (session->pads_errors ? SESSION_PADS_ERRORS : 0) | (session->no_intx ? SESSION_NO_INTX : 0) |
                                         (cannot_go_on(session) ? SESSION_LOST : 0));
    sdc_put64(bytes + SESSION_MAX_XFER, session->max_data_xfer_size);
    sdc_put64(bytes + SESSION_MAX_FDS, session->max_msg_fds);
    sdc_put64(bytes + SESSION_CONSUMED, consumed);
    sdc_put64(bytes + SESSION_OWED, owed_until);
    sdc_put32(bytes + SESSION_SOCKET, record->socket_slot);
    sdc_put32(bytes + SESSION_LAYOUT, session->remote.layout);
    sdc_state_prepare(&record->state, SDC_STATE_SESSION, bytes, sizeof bytes);
    record->consumed = consumed;
    record->owed_until = owed_until;
    record->live_session = session->state;
    record->lost = cannot_go_on(session);
}

// Copies what has been appended to the stream since the last time. False: there is too much of it.
static bool journal_replies(struct vfu_session *session, uint64_t end)
{
    struct sdc_vfu_record *record = session->record;
    struct vfu_stream *stream = &session->stream;

    if (stream->sent > vfu_journal_end(&record->owed)) // messages of ours were among what was sent
        vfu_journal_restart(&record->owed, stream->sent);
    uint64_t more = end - vfu_journal_end(&record->owed);
    if (more == 0)
        return true;
    uint8_t *room = vfu_journal_room(&record->owed, stream->sent, stream->sent, more);
    if (!room)
        return false;
    memcpy(room, stream->out + stream->out_used - more, (size_t)more);
    record->owed.used += more;
    return true;
}

void vfu_record_commit(struct vfu_session *session)
{
    struct sdc_vfu_record *record = session->record;

    if (!record || session->state == VFU_CLOSING)
        return;
    if (session->waiting) {
        // Nothing of it is done; but that messages of ours are under way has to be known before they are sent.
        if (cannot_go_on(session) && !record->lost) {
            save_session(session, record->consumed, record->owed_until);
            commit(record);
        }
        return;
    }
    uint64_t consumed = vfu_journal_end(&record->received) - session->stream.in_used;
    uint64_t owed_until = session->stream.sent + vfu_stream_unsent(&session->stream);
    bool registers = record->registers != session->device->state_changes;
    if (consumed == record->consumed && owed_until == record->owed_until && !registers && !record->regions_changed &&
        !record->interrupts_changed && session->state == record->live_session && cannot_go_on(session) == record->lost)
        return;
    if (!journal_replies(session, owed_until))
        vfu_record_fail(record, "too many replies are owed");
    if (registers) {
        record->registers = session->device->state_changes;
        session->device->ops->state_save(session->device, record->registers_scratch);
        sdc_state_prepare(&record->state, SDC_STATE_REGISTERS, record->registers_scratch, record->shape.registers);
    }
    if (record->interrupts_changed)
        save_interrupts(session);
    save_session(session, consumed, owed_until);
    record->regions_changed = record->interrupts_changed = false;
    commit(record);
}

int vfu_record_begin(struct vfu_session *session)
{
    struct sdc_vfu_record *record = session->record;

    if (!record)
        return 0;
    record->socket_slot = put(record, session->stream.fd);
    if (record->socket_slot == SDC_SLOT_NONE)
        return -ENOSPC;
    record->failed = NULL;
    vfu_journal_format(&record->received, sdc_state_live(&record->state, SDC_STATE_RECEIVED), RECEIVED_AREA);
    vfu_journal_format(&record->owed, sdc_state_live(&record->state, SDC_STATE_OWED), OWED_AREA);
    memset(vfu_journal_notes(&record->received), 0, VFU_JOURNAL_NOTES);
    record->consumed = record->owed_until = 0;
    record->registers = session->device->state_changes - 1;
    record->interrupts_changed = true;
    vfu_record_commit(session);
    return 0;
}

void vfu_record_end(struct vfu_session *session)
{
    struct sdc_vfu_record *record = session->record;
    uint8_t nobody[SESSION_BYTES] = {0};

    if (!record)
        return;
    vfu_record_unmapped_all(record);
    vfu_record_drop(record, record->socket_slot);
    for (unsigned kind = 0; kind < SDC_PCI_IRQS; kind++) {
        for (uint32_t i = 0; i < session->irqs.sets[kind].count; i++)
            vfu_record_drop(record, session->irqs.sets[kind].slots[i]);
    }
    for (uint32_t i = 0; i < record->io_count; i++)
        vfu_record_drop(record, record->io_slots[i]);
    record->io_count = 0;
    sdc_state_prepare(&record->state, SDC_STATE_SESSION, nobody, sizeof nobody);
    record->live_session = 0;
    commit(record);
}

// --- life ---

bool sdc_vfu_record_has_session(const struct sdc_vfu_record *record)
{
    return record->live_session != 0;
}

static void fill_shape(struct sdc_vfu_record *record, const char *identity, const struct sdc_pci_state_needs *needs)
{
    uint32_t vectors = 0;

    for (unsigned kind = 0; kind < SDC_PCI_IRQS; kind++)
        vectors += kind == SDC_PCI_REQ ? 1 : record->device->irq_counts[kind];
    record->shape = (struct sdc_state_shape){
        .session = SESSION_BYTES,
        .registers = needs->registers,
        .interrupts = IRQ_VECTORS + 4 * vectors,
        .regions = SDC_LIMIT_DMA_REGIONS + 1,
        .received = vfu_journal_bytes(RECEIVED_AREA),
        .owed = vfu_journal_bytes(OWED_AREA),
        .queues = needs->live,
    };
    snprintf(record->shape.identity, SDC_STATE_IDENTITY_BYTES, "%s", identity);
}

// A record that another process left.
static int take_over(struct sdc_vfu_record *record, int fd, struct sdc_error *err)
{
    struct sdc_file_identity id;
    void *base;
    int rc = sdc_fd_identify(fd, &id);

    // One that could shrink would take us with it.
    if (rc == 0 && (id.kind != SDC_MEMORY_FILE_SHARED || !id.sealed || !id.writable || id.size > RECORD_MOST))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "the state record is not a sealed memfd");
    if (rc == 0)
        rc = sdc_fd_map(fd, id.size, true, &base);
    if (rc < 0)
        return sdc_error_set(err, rc, SDC_FAULT_HOST, "the state record cannot be mapped: %s", strerror(-rc));
    record->mapped = id.size;
    record->base = base;
    rc = sdc_state_parse(&record->state, base, id.size, &record->shape, err);
    if (rc == 0)
        rc = vfu_record_read(record, err);
    return rc;
}

static int make(struct sdc_vfu_record *record, struct sdc_error *err)
{
    uint64_t size = sdc_state_size(&record->shape);
    uint32_t slot = SDC_SLOT_NONE;
    void *base = NULL;
    int fd = sdc_memfd_new("sidecard-state", size);
    int rc = fd < 0 ? fd : sdc_fd_map(fd, size, true, &base);

    if (rc == 0) {
        record->mapped = size;
        record->base = base;
        sdc_state_format(&record->state, base, &record->shape);
        rc = record->slots->ops->put(record->slots, fd, &slot);
    }
    sdc_fd_close(&fd);
    if (rc < 0)
        return sdc_error_set(err, rc, SDC_FAULT_HOST, "a state record of %" PRIu64 " bytes cannot be made: %s", size, strerror(-rc));
    return slot == SDC_SLOT_RECORD ? 0
                                   : sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "the keeper has fds, but no state record among them");
}

int sdc_vfu_record_open(struct sdc_pci_device *device, const char *identity, struct sdc_slots *slots, struct sdc_vfu_record **out,
                        struct sdc_error *err)
{
    struct sdc_pci_state_needs needs;
    struct sdc_vfu_record *record = calloc(1, sizeof *record);

    if (!record)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a state record");
    device->ops->state_needs(device, &needs);
    record->device = device;
    record->slots = slots;
    fill_shape(record, identity, &needs);
    record->registers_scratch = calloc(1, record->shape.registers);
    record->interrupts_scratch = calloc(1, record->shape.interrupts);
    record->places = vfu_places_new(record->shape.regions);
    int fd = slots->ops->take(slots, SDC_SLOT_RECORD);
    int rc = !record->registers_scratch || !record->interrupts_scratch || !record->places
                 ? sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a state record")
             : fd >= 0 ? take_over(record, fd, err)
                       : make(record, err);
    sdc_fd_close(&fd);
    if (rc < 0) {
        sdc_vfu_record_close(record);
        return rc;
    }
    device->ops->state_keep(device, sdc_state_live(&record->state, SDC_STATE_QUEUES), record->live_session != 0 && !record->lost);
    *out = record;
    return 0;
}

void sdc_vfu_record_close(struct sdc_vfu_record *record)
{
    if (!record)
        return;
    if (record->base)
        sdc_unmap(record->base, record->mapped);
    vfu_places_free(record->places);
    free(record->registers_scratch);
    free(record->interrupts_scratch);
    free(record->drops);
    free(record);
}
