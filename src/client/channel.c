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
static int wait_for_room(struct sdc_vfio_client *client, uint64_t deadline_ns)
{
    uint64_t now = sdc_clock_ns();
    if (now >= deadline_ns)
        return -ETIMEDOUT;
    // Another thread may be reading: then input stays readable for a moment, and the wait is short.
    int events =
        sdc_wait_fd(client->fd, SDC_WAIT_OUTPUT | SDC_WAIT_INPUT, (int)((deadline_ns - now) / MS_NS) + 1);
    if (events < 0)
        return events;
    if (events & SDC_WAIT_INPUT) {
        sdc_vfio_client_drain(client);
        if (!(events & SDC_WAIT_OUTPUT))
            sdc_wait_fd(client->fd, SDC_WAIT_OUTPUT, 1);
    }
    pthread_mutex_lock(&client->lock);
    int failure = client->failure.code;
    pthread_mutex_unlock(&client->lock);
    return failure;
}

static int send_failed(struct sdc_vfio_client *client, int code)
{
    struct sdc_error why = {0};
    if (code == -ETIMEDOUT)
        sdc_error_set(&why, code, SDC_FAULT_PEER,
                      "%s: the server takes no messages any more (waited %" PRIu32 " ms)", client->name,
                      client->timeout_ms);
    else if (code == -EPIPE || code == -ECONNRESET)
        sdc_error_set(&why, code, SDC_FAULT_PEER, "%s: the server has closed the connection", client->name);
    else
        sdc_error_set(&why, code, SDC_FAULT_HOST, "%s: cannot send: %s", client->name, strerror(-code));
    return sdc_vfio_client_fail(client, &why, NULL);
}

int sdc_vfio_channel_send(struct sdc_vfio_client *client, const struct sdc_vfu_header *header,
                          const struct sdc_vfio_command *command, uint64_t deadline_ns)
{
    struct iovec parts[3] = {
        {.iov_base = (void *)(uintptr_t)header, .iov_len = sizeof *header},
        {.iov_base = (void *)(uintptr_t)command->head, .iov_len = command->head_size},
        {.iov_base = (void *)(uintptr_t)command->data, .iov_len = command->data_size},
    };
    struct iovec *iov = parts;
    unsigned count = SDC_COUNT(parts);
    unsigned fds_count = command->fds_count;
    while (count > 0) {
        ssize_t sent = sdc_socket_send(client->fd, iov, count, command->fds, fds_count);
        if (sent == -EAGAIN || sent == -ENOBUFS) {
            int ret = wait_for_room(client, deadline_ns);
            if (ret < 0)
                return send_failed(client, ret);
            continue;
        }
        if (sent < 0)
            return send_failed(client, (int)sent);
        fds_count = 0; // they went with the first byte
        advance(&iov, &count, (size_t)sent);
    }
    return 0;
}

// --- in ---

static int check_header(struct sdc_vfio_client *client, const struct sdc_vfu_header *header,
                        struct sdc_error *err)
{
    uint32_t type = header->flags & SDC_VFU_TYPE_MASK;
    if (header->msg_size < sizeof *header || header->msg_size > client->message_max)
        return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER,
                             "%s: the server sent a message of %" PRIu32 " bytes; they have %zu to %" PRIu32,
                             client->name, header->msg_size, sizeof *header, client->message_max);
    if (type != SDC_VFU_TYPE_COMMAND && type != SDC_VFU_TYPE_REPLY)
        return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER,
                             "%s: the server sent a message with flags 0x%" PRIx32
                             ", neither command nor reply",
                             client->name, header->flags);
    return 0;
}

// Keeps fds that came, or closes them all when there are too many.
static int keep_fds(struct sdc_vfio_client *client, int *fds, int count, struct sdc_error *err)
{
    struct sdc_vfio_incoming *in = &client->in;
    if (count >= 0 && (unsigned)count <= SDC_VFIO_CLIENT_FDS - in->fds_count) {
        memcpy(in->fds + in->fds_count, fds, sizeof *fds * (unsigned)count);
        in->fds_count += (unsigned)count;
        return 0;
    }
    for (int i = 0; i < count; i++)
        sdc_fd_close(&fds[i]);
    return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER,
                         "%s: the server sent more than %d file descriptors at once", client->name,
                         SDC_VFIO_CLIENT_FDS);
}

// One receive, of at most the bytes that the header or the payload still lacks. Bytes, 0 for none now, or an
// error.
static int receive_some(struct sdc_vfio_client *client, struct sdc_error *err)
{
    struct sdc_vfio_incoming *in = &client->in;
    size_t header_size = sizeof in->header;
    int fds[SDC_SOCKET_FDS_MAX], fds_count;
    ssize_t got;
    if (in->got < header_size)
        got = sdc_socket_receive(client->fd, (uint8_t *)&in->header + in->got, header_size - in->got, fds,
                                 &fds_count);
    else
        got = sdc_socket_receive(client->fd, in->payload + (in->got - header_size),
                                 in->header.msg_size - in->got, fds, &fds_count);
    if (got == -EAGAIN)
        return 0;
    if (got == 0 || got == -ECONNRESET)
        return sdc_error_set(err, -ECONNRESET, SDC_FAULT_PEER, "%s: the server has closed the connection",
                             client->name);
    if (got < 0)
        return sdc_error_set(err, (int)got, SDC_FAULT_HOST, "%s: cannot receive: %s", client->name,
                             strerror((int)-got));
    if (fds_count != 0) {
        int ret = keep_fds(client, fds, fds_count, err);
        if (ret < 0)
            return ret;
    }
    in->got += (size_t)got;
    return 1;
}

int sdc_vfio_channel_receive(struct sdc_vfio_client *client, struct sdc_error *err)
{
    struct sdc_vfio_incoming *in = &client->in;
    while (in->got < sizeof in->header || in->got < in->header.msg_size) {
        int ret = receive_some(client, err);
        if (ret <= 0)
            return ret;
        if (in->got != sizeof in->header)
            continue;
        ret = check_header(client, &in->header, err);
        if (ret < 0)
            return ret;
        size_t size = in->header.msg_size - sizeof in->header;
        in->payload = size > 0 ? malloc(size) : NULL;
        if (size > 0 && !in->payload)
            return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "%s: no memory for a message of %zu bytes",
                                 client->name, size);
    }
    return 1;
}

void sdc_vfio_channel_next(struct sdc_vfio_client *client)
{
    struct sdc_vfio_incoming *in = &client->in;
    for (unsigned i = 0; i < in->fds_count; i++)
        sdc_fd_close(&in->fds[i]);
    free(in->payload);
    *in = (struct sdc_vfio_incoming){0};
}
