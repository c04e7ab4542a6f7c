// SPDX-License-Identifier: BSD-3-Clause
// Messages from and to the socket.
#include "os/fd.h"
#include "transport/vhost_user/session.h"

#include "base/check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// --- in ---

static void keep_fds(struct vhu_stream *stream, const int *fds, int count)
{
    struct vhu_message *in = &stream->in;

    stream->fds_lost |= count < 0;
    for (int i = 0; i < count; i++) {
        if (in->fds_count < SDC_VHOST_FDS_MAX) {
            in->fds[in->fds_count++] = fds[i];
        } else {
            sdc_fd_close(&(int){fds[i]});
            stream->fds_lost = true;
        }
    }
}

int vhu_stream_receive(struct vhu_stream *stream)
{
    struct vhu_message *in = &stream->in;
    size_t head = sizeof in->header;

    for (;;) {
        if (stream->got >= head && in->header.size > sizeof in->payload)
            return -EPROTO;
        if (stream->got >= head && stream->got - head == in->header.size)
            return 1;
        int fds[SDC_SOCKET_FDS_MAX], fds_count = 0;
        bool heading = stream->got < head;
        uint8_t *into = heading ? (uint8_t *)&in->header + stream->got : in->payload + (stream->got - head);
        size_t missing = heading ? head - stream->got : in->header.size - (stream->got - head);
        ssize_t got = sdc_socket_receive(stream->fd, into, missing, fds, &fds_count);
        keep_fds(stream, fds, fds_count);
        if (got <= 0)
            return (int)got;
        stream->got += (size_t)got;
    }
}

void vhu_stream_consume(struct vhu_stream *stream)
{
    for (int i = 0; i < stream->in.fds_count; i++)
        sdc_fd_close(&stream->in.fds[i]);
    stream->in.fds_count = 0;
    stream->fds_lost = false;
    stream->got = 0;
}

// --- out ---

int vhu_stream_reply(struct vhu_stream *stream, uint32_t request, const void *payload, uint32_t size)
{
    struct sdc_vhost_header header = {.request = request, .flags = SDC_VHOST_VERSION | SDC_VHOST_REPLY, .size = size};
    size_t wanted = stream->out_used + sizeof header + size;

    if (wanted > stream->out_size) {
        size_t room = wanted * 2;
        uint8_t *out = realloc(stream->out, room);
        if (!out)
            return -ENOMEM;
        stream->out = out;
        stream->out_size = room;
    }
    stream->out_last = stream->out_used;
    memcpy(stream->out + stream->out_used, &header, sizeof header);
    if (size > 0)
        memcpy(stream->out + stream->out_used + sizeof header, payload, size);
    stream->out_used = wanted;
    return 0;
}

void vhu_stream_attach(struct vhu_stream *stream, int fd)
{
    stream->out_fd = fd;
    stream->out_fd_at = stream->out_last;
}

int vhu_stream_send(struct vhu_stream *stream)
{
    while (vhu_stream_unsent(stream) > 0) {
        bool with_fd = stream->out_fd >= 0 && stream->out_sent == stream->out_fd_at;
        size_t size = stream->out_fd >= 0 && !with_fd ? stream->out_fd_at - stream->out_sent : vhu_stream_unsent(stream);
        struct iovec iov = {stream->out + stream->out_sent, size};
        ssize_t sent = sdc_socket_send(stream->fd, &iov, 1, &stream->out_fd, with_fd);
        if (sent == -EAGAIN || sent == -ENOBUFS)
            return 0;
        if (sent < 0)
            return (int)sent;
        stream->out_sent += (size_t)sent;
        if (with_fd)
            sdc_fd_close(&stream->out_fd);
    }
    stream->out_sent = stream->out_used = 0;
    return 0;
}

void vhu_stream_close(struct vhu_stream *stream)
{
    vhu_stream_consume(stream);
    sdc_socket_close_read_out(&stream->fd);
    sdc_fd_close(&stream->out_fd);
    free(stream->out);
    stream->out = NULL;
    stream->out_size = stream->out_used = stream->out_sent = 0;
}
