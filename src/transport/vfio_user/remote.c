// SPDX-License-Identifier: BSD-3-Clause
// DMA_READ and DMA_WRITE: transfers of the card's queues, cut into messages of the size that the client takes, sent in order, and
// their replies, which are looked at closely: a wrong one ends the session.
#include "transport/vfio_user/session.h"

#include "base/bytes.h"
#include "base/check.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

enum {
    COUNT_32_SIZE = 12,            // a DMA message's head with a 32-bit count: as long as the other with what stands at its end
    UNSENT_MOST = 4 * 1024 * 1024, // bytes of ours that may wait for the socket
    WRITTEN_32_SIZE = 12, // of a DMA_WRITE's reply whose count has 32 bits, as the specification's table says
    // Bytes of replies that the client may owe. QEMU loses part of a message when its socket is full (208 KiB by default), so it
    // is not let come near.
    READING_MOST = 64 * 1024,
};

static struct vfu_session *session_of(struct sdc_remote *remote)
{
    return sdc_container(remote, struct vfu_session, remote.base);
}

// What we ask goes over, and is answered there.
static struct vfu_stream *stream_of(struct vfu_session *session)
{
    return session->twin.on ? &session->twin.stream : &session->stream;
}

// Where the data stands in a DMA message.
static uint32_t data_offset(const struct vfu_remote *remote)
{
    return remote->layout == VFU_LAYOUT_32 ? COUNT_32_SIZE : (uint32_t)sizeof(struct sdc_vfu_dma_access);
}

// --- asking ---

static struct vfu_question *free_question(struct vfu_remote *remote)
{
    for (unsigned i = 0; i < VFU_OUTSTANDING; i++) {
        if (!remote->questions[i].asked)
            return &remote->questions[i];
    }
    return NULL;
}

// Appends one message to what is to be sent, with `count` bytes of transfer from where it stands; without a transfer an empty DMA_WRITE to
// iova.
static int ask(struct vfu_session *session, struct sdc_transfer *transfer, uint64_t iova, uint32_t count)
{
    struct vfu_remote *remote = &session->remote;
    struct vfu_question *question = free_question(remote);
    bool write = !transfer || transfer->write;
    struct sdc_vfu_dma_access access = {.address = iova, .count = count};
    struct sdc_vfu_header header = {
        .msg_id = remote->next_id++,
        .cmd = write ? SDC_VFU_DMA_WRITE : SDC_VFU_DMA_READ,
        .msg_size = (uint32_t)(sizeof header + sizeof access) + (write ? count : 0),
        .flags = SDC_VFU_TYPE_COMMAND,
    };
    struct vfu_stream *stream = stream_of(session);
    uint64_t position = stream->sent + vfu_stream_unsent(stream);
    uint8_t *room = question ? vfu_stream_append(stream, header.msg_size) : NULL;
    if (!room)
        return -ENOMEM;

    memcpy(room, &header, sizeof header);
    memcpy(room + sizeof header, &access, sizeof access); // little-endian: a 32-bit count is the lower half, the rest is zero
    if (write && count > 0)
        memcpy(room + sizeof header + data_offset(remote), transfer->data + transfer->sent, count);
    *question = (struct vfu_question){.asked = true, .layout = !transfer, .id = header.msg_id, .cmd = header.cmd, .iova = iova,
                                      .size = count, .position = position, .length = header.msg_size, .transfer = transfer,
                                      .offset = transfer ? transfer->sent : 0};
    remote->outstanding++;
    remote->reading += write ? 0 : count;
    return 0;
}

// Whether the rest of transfer may still be asked for: memory that the client has taken back is not touched any more.
static bool is_mapped(const struct vfu_session *session, const struct sdc_transfer *transfer)
{
    return vfu_dma_reachable(session, transfer->iova + transfer->sent, transfer->size - transfer->sent,
                             transfer->write ? SDC_ACCESS_WRITE : SDC_ACCESS_READ);
}

static bool is_dropped(struct sdc_transfer *transfer)
{
    return atomic_load_explicit(&transfer->dropped, memory_order_relaxed);
}

// How much of transfer the next message carries; 0: none now.
static uint32_t next_piece(const struct vfu_session *session, const struct sdc_transfer *transfer)
{
    uint32_t count = (uint32_t)sdc_min(transfer->size - transfer->sent, session->max_data_xfer_size);

    if (transfer->write)
        return count;
    count = (uint32_t)sdc_min(count, READING_MOST);
    return session->remote.reading + count <= READING_MOST ? count : 0;
}

static void take_first(struct vfu_remote *remote)
{
    remote->first = remote->first->next;
    if (!remote->first)
        remote->end = &remote->first;
}

// The first transfer fails without being asked for further.
static void give_up_first(struct vfu_remote *remote, int error)
{
    struct sdc_transfer *transfer = remote->first;

    take_first(remote);
    transfer->result = error;
    transfer->sent = transfer->size;
    if (transfer->outstanding == 0)
        sdc_transfer_finish(transfer, error);
}

// Asks for the next piece of the first transfer. False: not now.
static bool ask_first(struct vfu_session *session)
{
    struct vfu_remote *remote = &session->remote;
    struct sdc_transfer *transfer = remote->first;

    if (!is_mapped(session, transfer)) {
        give_up_first(remote, -EFAULT);
        return true;
    }
    if (remote->layout == VFU_LAYOUT_UNKNOWN && ask(session, NULL, transfer->iova, 0) == 0)
        remote->layout = VFU_LAYOUT_ASKED;
    if (remote->layout == VFU_LAYOUT_UNKNOWN || remote->layout == VFU_LAYOUT_ASKED)
        return false;
    uint32_t count = next_piece(session, transfer);
    if (count == 0 || ask(session, transfer, transfer->iova + transfer->sent, count) < 0)
        return false;
    transfer->sent += count;
    transfer->outstanding++;
    if (transfer->sent == transfer->size)
        take_first(remote);
    return true;
}

void vfu_remote_pump(struct vfu_session *session)
{
    struct vfu_remote *remote = &session->remote;
    bool going = true;

    while (going && remote->first && remote->outstanding < VFU_OUTSTANDING && vfu_stream_unsent(stream_of(session)) < UNSENT_MOST) {
        if (is_dropped(remote->first))
            vfu_remote_forget(session);
        else
            going = ask_first(session);
    }
}

static void begin(struct sdc_remote *base, struct sdc_transfer *transfer)
{
    struct vfu_session *session = session_of(base);

    if (session->state == VFU_CLOSING || stream_of(session)->fd < 0) {
        sdc_transfer_finish(transfer, -EIO);
        return;
    }
    transfer->result = 0;
    transfer->next = NULL;
    *session->remote.end = transfer;
    session->remote.end = &transfer->next;
    vfu_session_step(session);
}

void vfu_remote_init(struct vfu_remote *remote, struct sdc_loop *home)
{
    remote->base = (struct sdc_remote){.home = home, .begin = begin};
    remote->end = &remote->first;
}

// --- answers ---

static void answered(struct sdc_transfer *transfer, int result)
{
    if (result < 0)
        transfer->result = result;
    if (--transfer->outstanding == 0 && transfer->sent == transfer->size)
        sdc_transfer_finish(transfer, transfer->result);
}

// On the main socket what was asked goes before the answer to whatever made it void. The twin has an order of its own: what it has not
// begun to send is taken back.
static void take_back(struct vfu_session *session, struct vfu_question *question)
{
    struct vfu_remote *remote = &session->remote;

    if (!session->twin.on || !vfu_stream_take_back(&session->twin.stream, question->position, question->length))
        return;
    question->asked = false;
    remote->outstanding--;
    remote->reading -= question->cmd == SDC_VFU_DMA_READ ? question->size : 0;
    for (unsigned i = 0; i < VFU_OUTSTANDING; i++) {
        if (remote->questions[i].asked && remote->questions[i].position > question->position)
            remote->questions[i].position -= question->length;
    }
}

void vfu_remote_forget(struct vfu_session *session)
{
    struct vfu_remote *remote = &session->remote;

    for (unsigned i = 0; i < VFU_OUTSTANDING; i++) {
        struct vfu_question *question = &remote->questions[i];
        struct sdc_transfer *transfer = question->asked ? question->transfer : NULL;
        if (transfer && is_dropped(transfer)) {
            question->transfer = NULL;
            answered(transfer, -ECANCELED);
            take_back(session, question);
        }
    }
    for (struct sdc_transfer **link = &remote->first, *transfer = *link; transfer; transfer = *link) {
        if (is_dropped(transfer)) {
            *link = transfer->next;
            sdc_transfer_finish(transfer, -ECANCELED);
        } else {
            link = &transfer->next;
        }
        if (!*link)
            remote->end = link;
    }
}

// An empty write is answered with a bare header by those whose count has 32 bits.
static int learn_layout(struct vfu_session *session, const struct sdc_vfu_header *header)
{
    struct vfu_remote *remote = &session->remote;

    if (header->flags & SDC_VFU_ERROR) {
        // Not now (QEMU: bus mastering is off). What waited has failed; the next transfer asks again.
        remote->layout = VFU_LAYOUT_UNKNOWN;
        while (remote->first)
            give_up_first(remote, -EIO);
        return 0;
    }
    uint32_t size = header->msg_size - (uint32_t)sizeof *header;
    if (size != 0 && size != sizeof(struct sdc_vfu_dma_access) && size != WRITTEN_32_SIZE)
        return -EPROTO;
    remote->layout = size == 0 ? VFU_LAYOUT_32 : VFU_LAYOUT_64;
    return 0;
}

// What a good answer to the question is: its length, and that it repeats address and count.
static bool fits(const struct vfu_remote *remote, const struct vfu_question *question, const struct sdc_vfu_header *header,
                 const uint8_t *payload)
{
    struct sdc_vfu_dma_access access = {0};
    bool write = question->cmd == SDC_VFU_DMA_WRITE;
    uint32_t size = header->msg_size - (uint32_t)sizeof *header;
    uint32_t head = data_offset(remote);

    if (write && remote->layout == VFU_LAYOUT_32)
        return size == 0;
    if (write && size == WRITTEN_32_SIZE)
        head = size;
    else if (size != sizeof access + (write ? 0 : question->size))
        return false;
    memcpy(&access, payload, head);
    return access.address == question->iova && access.count == question->size;
}

static struct vfu_question *find_question(struct vfu_remote *remote, const struct sdc_vfu_header *header)
{
    for (unsigned i = 0; i < VFU_OUTSTANDING; i++) {
        struct vfu_question *question = &remote->questions[i];
        if (question->asked && question->id == header->msg_id && question->cmd == header->cmd)
            return question;
    }
    return NULL;
}

static int take_reply(struct vfu_session *session, const struct sdc_vfu_header *header, const uint8_t *payload)
{
    struct vfu_remote *remote = &session->remote;
    struct vfu_question *question = find_question(remote, header);
    if (!question || header->flags & ~(uint32_t)(SDC_VFU_TYPE_MASK | SDC_VFU_ERROR))
        return -EPROTO;

    struct vfu_question was = *question;
    bool error = header->flags & SDC_VFU_ERROR;
    question->asked = false;
    remote->outstanding--;
    remote->reading -= was.cmd == SDC_VFU_DMA_READ ? was.size : 0;
    if (was.layout)
        return learn_layout(session, header);
    bool good = error || fits(remote, &was, header, payload);
    if (error && was.transfer)
        sdc_log_peer("%s: the client refuses %s of %u bytes at %#llx: error %u", session->options->name,
                     was.cmd == SDC_VFU_DMA_WRITE ? "DMA_WRITE" : "DMA_READ", was.size, (unsigned long long)was.iova, header->error);
    if (was.transfer && good && !error && was.cmd == SDC_VFU_DMA_READ)
        memcpy(was.transfer->data + was.offset, payload + data_offset(remote), was.size);
    if (was.transfer)
        answered(was.transfer, good && !error ? 0 : -EIO);
    return good ? 0 : -EPROTO;
}

int vfu_remote_replies(struct vfu_session *session)
{
    struct sdc_vfu_header header;
    const uint8_t *payload;

    while (vfu_stream_take_reply(stream_of(session), &header, &payload)) {
        int rc = take_reply(session, &header, payload);
        if (rc < 0)
            return rc;
    }
    return session->twin.on && vfu_stream_take_reply(&session->stream, &header, &payload) ? -EPROTO : 0;
}

void vfu_remote_fail(struct vfu_session *session)
{
    struct vfu_remote *remote = &session->remote;

    for (unsigned i = 0; i < VFU_OUTSTANDING; i++) {
        struct vfu_question *question = &remote->questions[i];
        struct sdc_transfer *transfer = question->asked ? question->transfer : NULL;
        question->asked = false;
        if (transfer && transfer->sent == transfer->size)
            answered(transfer, -EIO);
    }
    remote->outstanding = remote->reading = 0;
    while (remote->first) {
        struct sdc_transfer *transfer = remote->first;
        take_first(remote);
        sdc_transfer_finish(transfer, -EIO);
    }
}
