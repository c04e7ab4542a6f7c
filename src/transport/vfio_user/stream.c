// SPDX-License-Identifier: BSD-3-Clause
// Bytes from and to the socket. Messages arrive in any pieces; several may arrive at once. fds belong to the last message whose
// first byte had arrived when they did: a client sends them with the message's first byte, and the kernel ends a receive behind
// the piece that carried fds.
#include "os/fd.h"
#include "transport/vfio_user/session.h"

#include "base/check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    STREAM_SMALL = 4096,
    STREAM_MOST = 2 * SDC_LIMIT_MESSAGE + 64 * 1024, // commands that wait, and a reply behind them
};

int vfu_stream_init(struct vfu_stream *stream, int fd)
{
    *stream = (struct vfu_stream){.fd = fd, .in_size = STREAM_SMALL};
    stream->in = stream->room = malloc(stream->in_size);
    return stream->in ? 0 : -ENOMEM;
}

static void close_arrival(struct vfu_stream *stream, struct vfu_arrival *arrival)
{
    for (int i = 0; i < arrival->count; i++) {
        sdc_fd_close(&arrival->fds[i]);
        vfu_record_drop(stream->record, arrival->slots[i]);
    }
    *arrival = (struct vfu_arrival){0};
}

void vfu_stream_close(struct vfu_stream *stream)
{
    if (stream->loop)
        sdc_loop_unsend(stream->loop, &stream->send);
    sdc_socket_close_read_out(&stream->fd);
    for (unsigned i = 0; i < VFU_ARRIVALS; i++)
        close_arrival(stream, &stream->arrivals[i]);
    free(stream->room);
    free(stream->out);
    free(stream->reply);
    stream->in = stream->room = stream->out = stream->reply = NULL;
    stream->in_used = stream->scanned = stream->out_used = stream->out_sent = 0;
    stream->departures_count = 0;
}

static struct sdc_vfu_header header_at(const struct vfu_stream *stream, size_t offset)
{
    struct sdc_vfu_header header;

    memcpy(&header, stream->in + offset, sizeof header);
    return header;
}

static bool size_in_bounds(uint32_t size)
{
    return size >= sizeof(struct sdc_vfu_header) && size <= SDC_LIMIT_MESSAGE;
}

// Where the last message begins of which a byte is here.
static size_t last_start(const struct vfu_stream *stream)
{
    size_t at = 0;

    while (stream->in_used - at >= sizeof(struct sdc_vfu_header)) {
        uint32_t size = header_at(stream, at).msg_size;
        if (!size_in_bounds(size) || size >= stream->in_used - at)
            break;
        at += size;
    }
    return at;
}

static bool in_use(const struct vfu_arrival *arrival)
{
    return arrival->count > 0 || arrival->lost;
}

// Where fds of the message at position are kept: with those of it that are here already, else in a free place, or NULL.
static struct vfu_arrival *place_for(struct vfu_stream *stream, uint64_t position)
{
    for (unsigned i = 0; i < VFU_ARRIVALS; i++) {
        if (in_use(&stream->arrivals[i]) && stream->arrivals[i].position == position)
            return &stream->arrivals[i];
    }
    for (unsigned i = 0; i < VFU_ARRIVALS; i++) {
        if (!in_use(&stream->arrivals[i]))
            return &stream->arrivals[i];
    }
    return NULL;
}

static void keep_fds(struct vfu_stream *stream, const int *fds, int count)
{
    uint64_t position = stream->position + last_start(stream);
    struct vfu_arrival *arrival = place_for(stream, position);

    if (!arrival) {
        // There is always a free place when something is received.
        for (int i = 0; i < count; i++)
            sdc_fd_close(&(int){fds[i]});
        return;
    }
    arrival->position = position;
    arrival->lost |= count < 0;
    for (int i = 0; i < count; i++) {
        if (arrival->count < SDC_LIMIT_MESSAGE_FDS) {
            arrival->slots[arrival->count] = SDC_SLOT_NONE;
            arrival->fds[arrival->count++] = fds[i];
        } else {
            sdc_fd_close(&(int){fds[i]});
            arrival->lost = true;
        }
    }
    vfu_record_arrived(stream->record, (unsigned)(arrival - stream->arrivals), arrival);
}

// Moves what was not consumed to where the room begins: once for all that was consumed since something was received, so that many small
// messages do not cost their number's square.
static void settle(struct vfu_stream *stream)
{
    if (stream->in == stream->room)
        return;
    stream->in_size += (size_t)(stream->in - stream->room);
    memmove(stream->room, stream->in, stream->in_used);
    stream->in = stream->room;
}

// Makes room for the rest of the last message that has begun, if it is in bounds.
static int make_room(struct vfu_stream *stream)
{
    settle(stream);
    size_t begun = last_start(stream);
    size_t wanted = begun + STREAM_SMALL;

    if (stream->in_used - begun >= sizeof(struct sdc_vfu_header)) {
        uint32_t size = header_at(stream, begun).msg_size;
        if (size_in_bounds(size))
            wanted = sdc_max(wanted, begun + size);
    }
    bool grow = stream->in_size < wanted;
    bool shrink = stream->in_size > STREAM_SMALL && wanted == STREAM_SMALL && stream->in_used < STREAM_SMALL;
    if (grow && wanted > STREAM_MOST)
        return stream->in_used < stream->in_size ? 0 : -EAGAIN;
    if (grow || shrink) {
        uint8_t *room = realloc(stream->room, wanted);
        if (!room)
            return -ENOMEM;
        stream->in = stream->room = room;
        stream->in_size = wanted;
    }
    return stream->in_used < stream->in_size ? 0 : -EAGAIN;
}

static bool has_free_arrival(const struct vfu_stream *stream)
{
    for (unsigned i = 0; i < VFU_ARRIVALS; i++) {
        if (!in_use(&stream->arrivals[i]))
            return true;
    }
    return false;
}

int vfu_stream_receive(struct vfu_stream *stream)
{
    int fds[SDC_SOCKET_FDS_MAX];
    int fds_count = 0;
    int rc = has_free_arrival(stream) ? make_room(stream) : -EAGAIN;
    if (rc < 0)
        return rc;

    ssize_t got = vfu_record_receive(stream->record, stream->fd, stream->in + stream->in_used, stream->in_size - stream->in_used,
                                     fds, &fds_count);
    if (got <= 0) {
        for (int i = 0; i < fds_count; i++)
            sdc_fd_close(&fds[i]);
        return (int)got;
    }
    stream->in_used += (size_t)got;
    if (fds_count != 0)
        keep_fds(stream, fds, fds_count);
    return 1;
}

int vfu_stream_fill(struct vfu_stream *stream, uint64_t position, const uint8_t *bytes, uint64_t size)
{
    if (size > STREAM_MOST)
        return -EINVAL;
    uint8_t *room = realloc(stream->room, (size_t)size + STREAM_SMALL);
    if (!room)
        return -ENOMEM;
    memcpy(room, bytes, (size_t)size);
    stream->in = stream->room = room;
    stream->in_size = (size_t)size + STREAM_SMALL;
    stream->in_used = (size_t)size;
    stream->position = position;
    return 0;
}

void vfu_stream_lose_fds(struct vfu_stream *stream)
{
    if (stream->in_used > 0 && has_free_arrival(stream))
        keep_fds(stream, NULL, -1);
}

int vfu_stream_message(const struct vfu_stream *stream, struct sdc_vfu_header *header)
{
    if (stream->in_used < sizeof *header)
        return 0;
    *header = header_at(stream, 0);
    if (!size_in_bounds(header->msg_size))
        return -EPROTO;
    return stream->in_used >= header->msg_size;
}

struct vfu_arrival *vfu_stream_arrival(struct vfu_stream *stream)
{
    static struct vfu_arrival none;

    for (unsigned i = 0; i < VFU_ARRIVALS; i++) {
        if (in_use(&stream->arrivals[i]) && stream->arrivals[i].position == stream->position)
            return &stream->arrivals[i];
    }
    return &none;
}

// Takes the message at offset, which is size bytes long, out of the middle; a reply has no fds that anybody wants.
static void cut(struct vfu_stream *stream, size_t offset, uint32_t size)
{
    uint64_t position = stream->position + offset;

    for (unsigned i = 0; i < VFU_ARRIVALS; i++) {
        struct vfu_arrival *arrival = &stream->arrivals[i];
        if (in_use(arrival) && arrival->position == position)
            close_arrival(stream, arrival);
        else if (in_use(arrival) && arrival->position > position)
            arrival->position -= size;
    }
    if (offset > 0)
        vfu_record_fail(stream->record, "a reply was taken from behind a command that waits");
    stream->messages++;
    stream->in_used -= size;
    memmove(stream->in + offset, stream->in + offset + size, stream->in_used - offset);
}

int vfu_stream_take_reply(struct vfu_stream *stream, struct sdc_vfu_header *header, const uint8_t **payload)
{
    for (;;) {
        size_t left = stream->in_used - stream->scanned;
        if (left < sizeof *header)
            return 0;
        *header = header_at(stream, stream->scanned);
        if (!size_in_bounds(header->msg_size) || left < header->msg_size)
            return 0;
        if ((header->flags & SDC_VFU_TYPE_MASK) == SDC_VFU_TYPE_REPLY)
            break;
        stream->scanned += header->msg_size;
    }
    // Copied out of the way of what stands behind it.
    uint8_t *copy = realloc(stream->reply, header->msg_size);
    if (!copy)
        return 0;
    stream->reply = copy;
    memcpy(copy, stream->in + stream->scanned, header->msg_size);
    *payload = copy + sizeof *header;
    cut(stream, stream->scanned, header->msg_size);
    return 1;
}

void vfu_stream_consume(struct vfu_stream *stream, uint32_t size)
{
    for (unsigned i = 0; i < VFU_ARRIVALS; i++) {
        if (stream->arrivals[i].position == stream->position)
            close_arrival(stream, &stream->arrivals[i]);
    }
    stream->scanned = stream->scanned > size ? stream->scanned - size : 0;
    stream->position += size;
    stream->messages++;
    stream->in += size;
    stream->in_size -= size;
    stream->in_used -= size;
}

uint8_t *vfu_stream_append(struct vfu_stream *stream, size_t size)
{
    size_t wanted = stream->out_used + size;

    // A client that always leaves something unread: what it has read makes room first.
    if (wanted > stream->out_size && stream->out_sent > 0) {
        stream->out_used -= stream->out_sent;
        memmove(stream->out, stream->out + stream->out_sent, stream->out_used);
        stream->out_sent = 0;
        wanted = stream->out_used + size;
    }
    if (wanted > stream->out_size) {
        wanted = sdc_max(wanted, STREAM_SMALL);
        uint8_t *out = realloc(stream->out, wanted);
        if (!out)
            return NULL;
        stream->out = out;
        stream->out_size = wanted;
    }
    uint8_t *room = stream->out + stream->out_used;
    memset(room, 0, size);
    stream->out_used += size;
    return room;
}

bool vfu_stream_take_back(struct vfu_stream *stream, uint64_t position, size_t size)
{
    if (position < stream->sent)
        return false;
    size_t at = stream->out_sent + (size_t)(position - stream->sent);
    stream->out_used -= size;
    memmove(stream->out + at, stream->out + at + size, stream->out_used - at);
    return true;
}

// fds on their way count against the user who sent them, for the kernel: a client that doesn't take its own would stop others'.
int vfu_stream_attach(struct vfu_stream *stream, const int *fds, unsigned count)
{
    if (vfu_stream_unsent(stream) == 0 && sdc_socket_drained(stream->fd))
        stream->unread_fds = 0;
    if (stream->departures_count == VFU_DEPARTURES || stream->unread_fds + count > SDC_LIMIT_UNREAD_FDS)
        return -EBUSY;
    stream->unread_fds += count;
    struct vfu_departure *departure = &stream->departures[stream->departures_count++];
    departure->position = stream->sent + vfu_stream_unsent(stream);
    departure->count = count;
    memcpy(departure->fds, fds, count * sizeof *fds);
    return 0;
}

static void leave(struct vfu_stream *stream)
{
    stream->departures_count--;
    memmove(&stream->departures[0], &stream->departures[1], stream->departures_count * sizeof stream->departures[0]);
}

// Sends once: up to the next message with fds, or that message and what follows, up to the one after it.
static ssize_t send_piece(struct vfu_stream *stream)
{
    const struct vfu_departure *now = stream->departures;
    bool due = stream->departures_count > 0 && now->position == stream->sent;
    const struct vfu_departure *next = due ? now + 1 : now;
    size_t size = vfu_stream_unsent(stream);

    if (next < stream->departures + stream->departures_count)
        size = (size_t)sdc_min(size, next->position - stream->sent);
    struct iovec iov = {stream->out + stream->out_sent, size};
    ssize_t sent = vfu_record_send(stream->record, stream->fd, stream->sent, &iov, now->fds, due ? now->count : 0);
    if (sent > 0 && due)
        leave(stream);
    return sent;
}

// The bytes were counted as sent: they are the first again.
static void come_back(struct sdc_send *send, uint32_t size)
{
    struct vfu_stream *stream = sdc_container(send, struct vfu_stream, send);
    size_t behind = vfu_stream_unsent(stream);

    stream->unsent(stream);
    if (!vfu_stream_append(stream, size)) {
        stream->holed = true;
        return;
    }
    uint8_t *at = stream->out + stream->out_sent;
    memmove(at + size, at, behind);
    memcpy(at, send->bytes, size);
    stream->sent -= size;
}

void vfu_stream_send_by(struct vfu_stream *stream, struct sdc_loop *loop, void (*unsent)(struct vfu_stream *stream))
{
    stream->loop = loop;
    stream->unsent = unsent;
    stream->send = (struct sdc_send){.fd = stream->fd, .failed = come_back};
}

// Sends all that there is with the end of the turn. 1, 0: not by this way; -EAGAIN: what was sent so is still on its way. The record has
// to know what the kernel took, which this way does not tell.
static int send_by_loop(struct vfu_stream *stream)
{
    size_t size = vfu_stream_unsent(stream);

    if (!stream->loop || stream->record)
        return 0;
    if (stream->departures_count > 0 || size > SDC_SEND_MOST)
        return stream->send.size > 0 ? -EAGAIN : 0;
    int rc = sdc_loop_send(stream->loop, &stream->send, stream->out + stream->out_sent, size);
    if (rc == 1) {
        stream->sent += size;
        stream->out_used = stream->out_sent = 0;
    }
    return rc;
}

int vfu_stream_send(struct vfu_stream *stream)
{
    int rc = vfu_stream_unsent(stream) > 0 ? send_by_loop(stream) : 0;

    if (stream->holed)
        return -ENOMEM;
    if (rc != 0)
        return 0;
    while (stream->out_sent < stream->out_used) {
        ssize_t sent = send_piece(stream);
        if (sent == -EAGAIN)
            return 0;
        if (sent < 0)
            return (int)sent;
        stream->out_sent += (size_t)sent;
        stream->sent += (uint64_t)sent;
    }
    stream->out_used = stream->out_sent = 0;
    if (stream->out_size > STREAM_SMALL) {
        free(stream->out);
        stream->out = NULL;
        stream->out_size = 0;
    }
    return 0;
}

void vfu_stream_send_rest(struct vfu_stream *stream)
{
    if (stream->loop)
        sdc_loop_unsend(stream->loop, &stream->send);
    stream->loop = NULL;
    vfu_stream_send(stream);
}

size_t vfu_stream_unsent(const struct vfu_stream *stream)
{
    return stream->out_used - stream->out_sent;
}
