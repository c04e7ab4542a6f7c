// SPDX-License-Identifier: BSD-3-Clause
// The course of a session: messages in their order, replies in theirs, waiting for the card without blocking anybody, and the
// end. All work is done in one place, the step, which looks what can go on; events only lead there.
#include "transport/vfio_user/session.h"

#include "base/check.h"
#include "base/log.h"
#include "os/fd.h"
#include "transport/common/pci_core.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SECOND UINT64_C(1000000000)
#define MILLISECOND UINT64_C(1000000)

void vfu_session_step(struct vfu_session *session)
{
    sdc_loop_defer(session->loop, &session->step);
}

// --- the end ---

void vfu_session_close(struct vfu_session *session, const char *reason)
{
    if (session->state == VFU_CLOSING)
        return;
    sdc_log(SDC_LOG_INFO, "%s: session ends: %s", session->options->name, reason);
    session->state = VFU_CLOSING;
    session->waiting = NULL;
    sdc_loop_unwatch(session->loop, &session->watch);
    for (unsigned kind = 0; kind < SDC_PCI_IRQS; kind++)
        vfu_irq_switches_clear(session, kind);
    sdc_loop_timer_clear(session->loop, &session->deadline);
    sdc_loop_timer_clear(session->loop, &session->patience);
    sdc_loop_timer_clear(session->loop, &session->notice);
    vfu_stream_send_rest(&session->stream);
    vfu_stream_close(&session->stream);
    vfu_twin_close(session);
    vfu_remote_fail(session);
    vfu_dma_give_up(session);
    vfu_session_step(session);
}

static void run_notice(struct sdc_timer *timer)
{
    vfu_session_close(sdc_container(timer, struct vfu_session, notice), "the server ends");
}

void vfu_session_end(struct vfu_session *session)
{
    bool told = session->irqs.sets[SDC_PCI_REQ].fds[0] >= 0 && session->state != VFU_CLOSING &&
                sdc_loop_timer_set(session->loop, &session->notice, SDC_LIMIT_NOTICE_MS * MILLISECOND) == 0;

    if (told)
        vfu_irqs_raise(&session->irqs, session->device, SDC_PCI_REQ, 0);
    else
        vfu_session_close(session, "the server ends");
}

// Puts the card back: reset, then without memory; each begins when the one before has ended.
static void take_down(struct vfu_session *session)
{
    struct sdc_pci_device *device = session->device;

    if (session->closing == VFU_CLOSE_RESET && !device->ops->busy(device)) {
        session->closing = VFU_CLOSE_UNMAP;
        device->ops->reset(device);
    }
    if (session->closing == VFU_CLOSE_UNMAP && !device->ops->busy(device)) {
        session->closing = VFU_CLOSE_END;
        vfu_dma_withdraw(session);
    }
    const struct sdc_guest_memory *memory = &session->dma.memory;
    if (session->closing == VFU_CLOSE_END && !device->ops->busy(device) && memory->maps_alive == 0 && memory->windows_leaving == 0) {
        if (device->ops->client_gone)
            device->ops->client_gone(device);
        vfu_record_end(session);
        sdc_pci_set_host(device, NULL);
        sdc_loop_undefer(session->loop, &session->step);
        session->ended(session);
    }
}

// --- waiting for the card ---

static void run_impatient(struct sdc_timer *timer)
{
    struct vfu_session *session = sdc_container(timer, struct vfu_session, patience);

    session->impatient = true;
    vfu_session_step(session);
}

int vfu_session_wait(struct vfu_session *session, const struct sdc_vfu_header *command,
                     bool (*finished)(struct vfu_session *session))
{
    session->command = *command;
    session->waiting = finished;
    session->impatient = false;
    sdc_loop_timer_set(session->loop, &session->patience, SDC_LIMIT_UNMAP_MS * MILLISECOND);
    return VFU_LATER;
}

static bool reset_finished(struct vfu_session *session)
{
    bool busy = session->device->ops->busy(session->device);

    if (busy && !session->impatient)
        return false;
    if (busy)
        vfu_reply_error(session, &session->command, -EBUSY, 0);
    else
        vfu_reply(session, &session->command, 0);
    return true;
}

int vfu_reset(struct vfu_session *session, struct vfu_message *message)
{
    session->device->ops->reset(session->device);
    vfu_irqs_reset(&session->irqs);
    return vfu_session_wait(session, &message->header, reset_finished);
}

// --- messages ---

static bool is_access(uint16_t command)
{
    return command == SDC_VFU_REGION_READ || command == SDC_VFU_REGION_WRITE || command == SDC_VFU_REGION_WRITE_MULTI;
}

// Whether something that was begun has to end before the next message. have: a message is there.
static bool must_wait(struct vfu_session *session, int have, const struct sdc_vfu_header *header)
{
    struct sdc_pci_device *device = session->device;

    if (session->waiting) {
        if (!session->waiting(session))
            return true;
        session->waiting = NULL;
        sdc_loop_timer_clear(session->loop, &session->patience);
    }
    // A run of DMA_MAPs is published as one, before anything else is done and before their replies are sent.
    if (have > 0 && session->dma.changed && header->cmd == SDC_VFU_DMA_MAP)
        return device->ops->busy(device);
    if (session->dma.changed && !device->ops->busy(device) && vfu_dma_publish(session) < 0) {
        vfu_session_close(session, "no memory for the table of guest memory");
        return true;
    }
    if (!device->ops->busy(device)) {
        session->dma.holding = false;
        return false;
    }
    // A reset, a queue's start, or I/O that keeps memory from being given up: registers may be read meanwhile.
    return session->dma.holding || (have > 0 && !is_access(header->cmd));
}

// The client does not read its replies: it gets no more until it does.
static bool is_full(const struct vfu_session *session)
{
    return vfu_stream_unsent(&session->stream) >= SDC_LIMIT_UNSENT;
}

// Handles what is there, in order, until something must be waited for.
static void process(struct vfu_session *session)
{
    struct sdc_vfu_header header = {0};

    if (vfu_remote_replies(session) < 0)
        vfu_session_close(session, "a reply that answers nothing");
    while (session->state != VFU_CLOSING) {
        int have = vfu_stream_message(&session->stream, &header);
        session->parked = must_wait(session, have, &header) || (have > 0 && is_full(session));
        if (session->parked || have == 0 || session->state == VFU_CLOSING)
            return;
        int rc = have < 0 ? VFU_DROP : vfu_dispatch(session, &header);
        if (rc == VFU_AGAIN) {
            session->parked = true;
            return;
        }
        if (rc == VFU_DROP)
            vfu_session_close(session, have < 0 ? "a message of an impossible size" : "the client broke the protocol");
        else if (session->state != VFU_CLOSING)
            vfu_stream_consume(&session->stream, header.msg_size);
        vfu_record_commit(session);
    }
}

static void send_replies(struct vfu_session *session)
{
    bool was_full = is_full(session);

    if (session->dma.holding)
        return;
    int rc = vfu_stream_send(&session->stream);
    if (rc < 0)
        vfu_session_close(session, strerror(-rc));
    else if (was_full && !is_full(session))
        vfu_session_step(session); // for messages that waited for it
}

static void run_deadline(struct sdc_timer *timer)
{
    struct vfu_session *session = sdc_container(timer, struct vfu_session, deadline);

    vfu_session_close(session, session->state == VFU_NEW ? "no VERSION from the client" : "the rest of a message did not come");
}

// A message that has begun must end in time; one that waits for the card is not the client's fault.
static void set_deadline(struct vfu_session *session)
{
    bool begun = session->stream.in_used > 0 && !session->parked;

    if (!begun && session->state == VFU_NEW)
        return; // the deadline is VERSION's
    if (!begun) {
        sdc_loop_timer_clear(session->loop, &session->deadline);
        session->begun = UINT64_MAX;
    } else if (session->begun != session->stream.messages) {
        session->begun = session->stream.messages;
        sdc_loop_timer_set(session->loop, &session->deadline, SDC_LIMIT_MESSAGE_SECONDS * SECOND);
    }
}

static void set_wanted(struct vfu_session *session)
{
    size_t unsent = vfu_stream_unsent(&session->stream);
    uint32_t wanted = 0;

    // While a command waits, replies to questions of ours are read on.
    bool asked = session->remote.outstanding > 0 && !session->twin.on;
    bool reading = !session->parked || (asked && !session->full);
    if (reading && !is_full(session))
        wanted |= SDC_READABLE;
    if (unsent > 0 && !session->dma.holding)
        wanted |= SDC_WRITABLE;
    sdc_loop_rewatch(session->loop, &session->watch, wanted);
}

static void unsent(struct vfu_stream *stream)
{
    vfu_session_step(sdc_container(stream, struct vfu_session, stream));
}

static void run_step(struct sdc_deferred *deferred)
{
    struct vfu_session *session = sdc_container(deferred, struct vfu_session, step);

    if (session->held)
        return;
    if (session->state != VFU_CLOSING)
        process(session);
    if (session->state != VFU_CLOSING)
        vfu_remote_pump(session);
    vfu_record_commit(session);
    if (session->state != VFU_CLOSING)
        send_replies(session);
    if (session->state != VFU_CLOSING && session->twin.on)
        vfu_twin_step(session);
    if (session->state == VFU_CLOSING) {
        take_down(session);
        return;
    }
    set_deadline(session);
    set_wanted(session);
}

static void socket_ready(struct sdc_watch *watch, uint32_t events)
{
    struct vfu_session *session = sdc_container(watch, struct vfu_session, watch);

    if (events & (SDC_READABLE | SDC_HANGUP)) {
        int rc = vfu_stream_receive(&session->stream);
        session->full = rc == -EAGAIN;
        if (rc == 0)
            vfu_session_close(session, "the client has gone");
        else if (rc < 0 && rc != -EAGAIN)
            vfu_session_close(session, strerror(-rc));
    }
    vfu_session_step(session);
}

// --- the card's side ---

static void host_interrupt(struct sdc_pci_host *host, enum sdc_pci_irq kind, uint32_t vector)
{
    struct vfu_session *session = (struct vfu_session *)(void *)host;

    vfu_irqs_raise(&session->irqs, session->device, kind, vector);
}

static void host_ready(struct sdc_pci_host *host)
{
    struct vfu_session *session = (struct vfu_session *)(void *)host;

    vfu_remote_forget(session);
    vfu_session_step(session);
}

static const struct sdc_pci_host_ops host_ops = {
    .interrupt = host_interrupt,
    .ready = host_ready,
};

static void slot_free(struct sdc_guest_memory *memory, uint32_t slot)
{
    vfu_record_drop(sdc_container(memory, struct vfu_session, dma.memory)->record, slot);
}

static void memory_released(struct sdc_guest_memory *memory)
{
    vfu_session_step(sdc_container(memory, struct vfu_session, dma.memory));
}

// --- life ---

// One that nobody knows of yet. NULL: fd is closed.
static struct vfu_session *make(struct sdc_loop *loop, int fd, struct sdc_pci_device *device, const struct sdc_vfu_options *options,
                                void (*ended)(struct vfu_session *session), void *context)
{
    struct vfu_session *session = calloc(1, sizeof *session);
    if (!session) {
        sdc_fd_close(&fd);
        return NULL;
    }

    *session = (struct vfu_session){
        .host = {.ops = &host_ops},
        .loop = loop,
        .device = device,
        .options = options,
        .state = VFU_NEW,
        .watch = {.fd = fd, .wanted = SDC_READABLE, .ready = socket_ready},
        .deadline = {.expired = run_deadline},
        .patience = {.expired = run_impatient},
        .notice = {.expired = run_notice},
        .step = {.run = run_step},
        .max_data_xfer_size = SDC_LIMIT_DATA_XFER,
        .record = options->record,
        .dma.memory = {.loop = loop,
                       .name = options->name,
                       .allow_plain_files = options->allow_file_memory,
                       .loops = options->fixed_loops,
                       .loops_count = options->fixed_loops_count,
                       .released = memory_released,
                       .slot_free = slot_free},
        .begun = UINT64_MAX,
        .ended = ended,
        .context = context,
    };
    vfu_remote_init(&session->remote, loop);
    vfu_twin_init(&session->twin);
    int rc = vfu_stream_init(&session->stream, fd);
    session->stream.record = session->record;
    if (rc == 0)
        vfu_stream_send_by(&session->stream, loop, unsent);
    if (rc == 0)
        rc = vfu_irqs_init(&session->irqs, device);
    if (rc < 0) {
        vfu_stream_close(&session->stream);
        vfu_session_free(session);
        return NULL;
    }
    return session;
}

// Begins to listen to the client.
static int open_ears(struct vfu_session *session)
{
    int rc = 0;

    if (session->state == VFU_NEW)
        rc = sdc_loop_timer_set(session->loop, &session->deadline, SDC_LIMIT_HANDSHAKE_SECONDS * SECOND);
    if (rc == 0)
        rc = sdc_loop_watch(session->loop, &session->watch);
    if (rc < 0)
        sdc_loop_timer_clear(session->loop, &session->deadline);
    return rc;
}

struct vfu_session *vfu_session_new(struct sdc_loop *loop, int fd, struct sdc_pci_device *device,
                                    const struct sdc_vfu_options *options, void (*ended)(struct vfu_session *session),
                                    void *context)
{
    if (sdc_pci_admit(device) < 0) {
        sdc_fd_close(&fd);
        return NULL;
    }
    struct vfu_session *session = make(loop, fd, device, options, ended, context);
    if (!session)
        return NULL;
    if (vfu_record_begin(session) < 0 || open_ears(session) < 0) {
        vfu_stream_close(&session->stream);
        vfu_session_free(session);
        return NULL;
    }
    sdc_pci_set_host(device, &session->host);
    return session;
}

// What it has is the keeper's too, and another process may do better: the client is told nothing, the record stays as it is.
static void give_up(struct vfu_session *session)
{
    session->record = session->stream.record = NULL;
    sdc_fd_close(&session->stream.fd);
    vfu_session_close(session, "its record cannot be gone on with");
}

int vfu_session_resume(struct sdc_loop *loop, struct sdc_pci_device *device, const struct sdc_vfu_options *options,
                       void (*ended)(struct vfu_session *session), void *context, struct vfu_session **out, struct sdc_error *err)
{
    struct sdc_slots *slots = options->record->slots;
    int fd = slots->ops->take(slots, options->record->socket_slot);

    *out = NULL;
    if (fd < 0 || sdc_fd_set_nonblocking(fd) < 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "the state record's client is not among the keeper's fds");
    struct vfu_session *session = make(loop, fd, device, options, ended, context);
    if (!session)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a session");
    *out = session;
    sdc_pci_set_host(device, &session->host);
    int rc = vfu_record_resume(session, err);
    if (rc == 0 && open_ears(session) < 0)
        rc = sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a session");
    if (rc < 0)
        give_up(session);
    else if (session->record->lost)
        vfu_session_close(session, "messages were under way that nobody else can go on with");
    else
        vfu_session_step(session);
    return rc;
}

void vfu_session_hold(struct vfu_session *session)
{
    session->held = true;
    sdc_loop_unwatch(session->loop, &session->watch);
    sdc_loop_timer_clear(session->loop, &session->deadline);
    sdc_loop_timer_clear(session->loop, &session->patience);
    sdc_loop_timer_clear(session->loop, &session->notice);
}

void vfu_session_free(struct vfu_session *session)
{
    vfu_irqs_destroy(&session->irqs);
    free(session->access_data);
    free(session);
}
