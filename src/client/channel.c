// SPDX-License-Identifier: BSD-3-Clause
// Messages in a stream of bytes. A receive never asks for bytes beyond the message it is in, so that fds,
// which come with the first bytes of a message, are always of the message that is being read.
#include "client/vfio_client.h"

#include "base/check.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/socket.h"
#include "os/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MS_NS UINT64_C(1000000)

enum { ANSWER_LEAST = 64 }; // bytes that an answer without data fits into

// --- life ---

int sdc_vfio_channel_open(struct sdc_vfio_channel *channel, int fd, const char *name)
{
    uint8_t *answer = malloc(ANSWER_LEAST);
    if (!answer) {
        sdc_fd_close(&fd);
        return -ENOMEM;
    }
    channel->fd = fd;
    channel->name = name;
    channel->answer = answer;
    channel->answer_room = ANSWER_LEAST;
    return 0;
}

void sdc_vfio_channel_close(struct sdc_vfio_channel *channel)
{
    sdc_socket_close_read_out(&channel->fd);
    sdc_vfio_channel_next(channel);
    free(channel->answer);
    free(channel->owed);
    channel->answer = NULL;
    channel->owed = NULL;
}

// --- out ---

// Moves iov past the first `bytes` bytes.
static void advance(struct iovec **iov, unsigned *count, size_t bytes)
{
    while (*count > 0 && bytes >= (*iov)->iov_len) {
        bytes -= (*iov)->iov_len;
        (*iov)++;
        (*count)--;
    }
    if (*count > 0) {
        (*iov)->iov_base = (char *)(*iov)->iov_base + bytes;
        (*iov)->iov_len -= bytes;
    }
}

// Waits until the socket takes more. 0, -ETIMEDOUT, or the connection's failure.
static int wait_for_room(struct sdc_vfio_client *client, struct sdc_vfio_channel *channel,
                         uint64_t deadline_ns)
{
    uint64_t now = sdc_clock_ns();
    if (now >= deadline_ns)
        return -ETIMEDOUT;
    struct sdc_wait_item items[SDC_VFIO_CLIENT_CHANNELS];
    unsigned input = 0;
    for (unsigned i = 0; i < SDC_VFIO_CLIENT_CHANNELS; i++)
        items[i] = (struct sdc_wait_item){.fd = client->channels[i].fd, .wanted = SDC_WAIT_INPUT};
    struct sdc_wait_item *own = &items[channel - client->channels];
    own->wanted |= SDC_WAIT_OUTPUT;
    int ret = sdc_wait_fds(items, SDC_COUNT(items), (int)((deadline_ns - now) / MS_NS) + 1);
    if (ret < 0)
        return ret;
    for (unsigned i = 0; i < SDC_COUNT(items); i++)
        input |= items[i].seen & SDC_WAIT_INPUT;
    if (input != 0) {
        sdc_vfio_client_drain(client);
        // Another thread may be reading: then input stays readable for a moment.
        if (!(own->seen & SDC_WAIT_OUTPUT))
            sdc_wait_fd(channel->fd, SDC_WAIT_OUTPUT, 1);
    }
    pthread_mutex_lock(&client->lock);
    int failure = client->failure.code;
    pthread_mutex_unlock(&client->lock);
    return failure;
}

static int send_failed(struct sdc_vfio_client *client, const struct sdc_vfio_channel *channel, int code)
{
    struct sdc_error why = {0};
    if (code == -ETIMEDOUT)
        sdc_error_set(&why, code, SDC_FAULT_PEER,
                      "%s: the server takes no messages any more (waited %" PRIu32 " ms)", channel->name,
                      client->timeout_ms);
    else if (code == -EPIPE || code == -ECONNRESET)
        sdc_error_set(&why, code, SDC_FAULT_PEER, "%s: the server has closed the connection", channel->name);
    else
        sdc_error_set(&why, code, SDC_FAULT_HOST, "%s: cannot send: %s", channel->name, strerror(-code));
    return sdc_vfio_client_fail(client, &why, NULL);
}

int sdc_vfio_channel_send_answer(struct sdc_vfio_client *client, struct sdc_vfio_channel *channel)
{
    if (channel->answer_size == 0)
        return 1;
    while (channel->answer_sent < channel->answer_size) {
        struct iovec iov = {.iov_base = channel->answer + channel->answer_sent,
                            .iov_len = channel->answer_size - channel->answer_sent};
        ssize_t sent = sdc_socket_send(channel->fd, &iov, 1, NULL, 0);
        if (sent == -EAGAIN || sent == -ENOBUFS)
            return 0;
        if (sent < 0)
            return send_failed(client, channel, (int)sent);
        channel->answer_sent += (size_t)sent;
    }
    channel->answer_size = 0;
    pthread_mutex_lock(&client->lock);
    channel->owed_first = (channel->owed_first + 1) % channel->owed_room;
    channel->owed_count--;
    pthread_mutex_unlock(&client->lock);
    return 1;
}

int sdc_vfio_channel_send(struct sdc_vfio_client *client, struct sdc_vfio_channel *channel,
                          const struct sdc_vfu_header *header, const struct sdc_vfio_command *command,
                          uint64_t deadline_ns)
{
    struct iovec parts[3] = {
        {.iov_base = (void *)(uintptr_t)header, .iov_len = sizeof *header},
        {.iov_base = (void *)(uintptr_t)command->head, .iov_len = command->head_size},
        {.iov_base = (void *)(uintptr_t)command->data, .iov_len = command->data_size},
    };
    struct iovec *iov = parts;
    unsigned count = SDC_COUNT(parts);
    unsigned fds_count = command->fds_count;
    int ret;
    while ((ret = sdc_vfio_channel_send_answer(client, channel)) == 0) {
        ret = wait_for_room(client, channel, deadline_ns);
        if (ret < 0)
            return send_failed(client, channel, ret);
    }
    if (ret < 0)
        return ret;
    while (count > 0) {
        ssize_t sent = sdc_socket_send(channel->fd, iov, count, command->fds, fds_count);
        if (sent == -EAGAIN || sent == -ENOBUFS) {
            ret = wait_for_room(client, channel, deadline_ns);
            if (ret < 0)
                return send_failed(client, channel, ret);
            continue;
        }
        if (sent < 0)
            return send_failed(client, channel, (int)sent);
        fds_count = 0; // they went with the first byte
        advance(&iov, &count, (size_t)sent);
    }
    return 0;
}

// --- in ---

static int check_header(struct sdc_vfio_client *client, const struct sdc_vfio_channel *channel,
                        struct sdc_error *err)
{
    const struct sdc_vfu_header *header = &channel->in.header;
    uint32_t type = header->flags & SDC_VFU_TYPE_MASK;
    if (header->msg_size < sizeof *header || header->msg_size > client->message_max)
        return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER,
                             "%s: the server sent a message of %" PRIu32 " bytes; they have %zu to %" PRIu32,
                             channel->name, header->msg_size, sizeof *header, client->message_max);
    if (type == SDC_VFU_TYPE_REPLY && channel != &client->channels[SDC_VFIO_CLIENT_MAIN])
        return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER, "%s: the server sent a reply; we ask nothing there",
                             channel->name);
    if (type != SDC_VFU_TYPE_COMMAND && type != SDC_VFU_TYPE_REPLY)
        return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER,
                             "%s: the server sent a message with flags 0x%" PRIx32
                             ", neither command nor reply",
                             channel->name, header->flags);
    return 0;
}

// Keeps fds that came, or closes them all when there are too many.
static int keep_fds(struct sdc_vfio_channel *channel, int *fds, int count, struct sdc_error *err)
{
    struct sdc_vfio_incoming *in = &channel->in;
    if (count >= 0 && (unsigned)count <= SDC_VFIO_CLIENT_FDS - in->fds_count) {
        memcpy(in->fds + in->fds_count, fds, sizeof *fds * (unsigned)count);
        in->fds_count += (unsigned)count;
        return 0;
    }
    for (int i = 0; i < count; i++)
        sdc_fd_close(&fds[i]);
    return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER,
                         "%s: the server sent more than %d file descriptors at once", channel->name,
                         SDC_VFIO_CLIENT_FDS);
}

// One receive, of at most the bytes that the header or the payload still lacks. Bytes, 0 for none now, or an
// error.
static int receive_some(struct sdc_vfio_channel *channel, struct sdc_error *err)
{
    struct sdc_vfio_incoming *in = &channel->in;
    size_t header_size = sizeof in->header;
    int fds[SDC_SOCKET_FDS_MAX], fds_count;
    ssize_t got;
    if (in->got < header_size)
        got = sdc_socket_receive(channel->fd, (uint8_t *)&in->header + in->got, header_size - in->got, fds,
                                 &fds_count);
    else
        got = sdc_socket_receive(channel->fd, in->payload + (in->got - header_size),
                                 in->header.msg_size - in->got, fds, &fds_count);
    if (got == -EAGAIN)
        return 0;
    if (got == 0 || got == -ECONNRESET)
        return sdc_error_set(err, -ECONNRESET, SDC_FAULT_PEER, "%s: the server has closed the connection",
                             channel->name);
    if (got < 0)
        return sdc_error_set(err, (int)got, SDC_FAULT_HOST, "%s: cannot receive: %s", channel->name,
                             strerror((int)-got));
    if (fds_count != 0) {
        int ret = keep_fds(channel, fds, fds_count, err);
        if (ret < 0)
            return ret;
    }
    in->got += (size_t)got;
    return 1;
}

int sdc_vfio_channel_receive(struct sdc_vfio_client *client, struct sdc_vfio_channel *channel,
                             struct sdc_error *err)
{
    struct sdc_vfio_incoming *in = &channel->in;
    while (in->got < sizeof in->header || in->got < in->header.msg_size) {
        int ret = receive_some(channel, err);
        if (ret <= 0)
            return ret;
        if (in->got != sizeof in->header)
            continue;
        ret = check_header(client, channel, err);
        if (ret < 0)
            return ret;
        size_t size = in->header.msg_size - sizeof in->header;
        in->payload = size > 0 ? malloc(size) : NULL;
        if (size > 0 && !in->payload)
            return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "%s: no memory for a message of %zu bytes",
                                 channel->name, size);
    }
    return 1;
}

void sdc_vfio_channel_next(struct sdc_vfio_channel *channel)
{
    struct sdc_vfio_incoming *in = &channel->in;
    for (unsigned i = 0; i < in->fds_count; i++)
        sdc_fd_close(&in->fds[i]);
    free(in->payload);
    *in = (struct sdc_vfio_incoming){0};
}
