// SPDX-License-Identifier: BSD-3-Clause
// The fake server's thread and its sockets.
#include "fake_server.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void fake_send(struct fake_server *server, const void *bytes, size_t size, const int *fds, int fds_count)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * 32)] = {0};
    struct iovec iov = {(void *)(uintptr_t)bytes, size};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fds_count > 0) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * (unsigned)fds_count);
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * (unsigned)fds_count);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * (unsigned)fds_count);
    }
    while (iov.iov_len > 0) {
        ssize_t sent = sendmsg(server->fd, &message, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        iov.iov_base = (char *)iov.iov_base + sent;
        iov.iov_len -= (size_t)sent;
        message.msg_control = NULL;
        message.msg_controllen = 0;
    }
}

static void reply(struct fake_server *server, struct sdc_vfu_header header, const void *payload, size_t size,
                  const int *fds, int fds_count)
{
    uint8_t *bytes = malloc(sizeof header + size);
    header.msg_size = (uint32_t)(sizeof header + size);
    memcpy(bytes, &header, sizeof header);
    if (size > 0)
        memcpy(bytes + sizeof header, payload, size);
    fake_send(server, bytes, sizeof header + size, fds, fds_count);
    free(bytes);
}

void fake_reply(struct fake_server *server, const struct fake_message *message, const void *payload,
                size_t size, const int *fds, int fds_count)
{
    struct sdc_vfu_header header = message->header;
    header.flags = SDC_VFU_TYPE_REPLY;
    header.error = 0;
    reply(server, header, payload, size, fds, fds_count);
}

void fake_reply_error(struct fake_server *server, const struct fake_message *message, uint32_t error)
{
    struct sdc_vfu_header header = message->header;
    header.flags = SDC_VFU_TYPE_REPLY | SDC_VFU_ERROR;
    header.error = error;
    reply(server, header, NULL, 0, NULL, 0);
}

// Receives exactly size bytes, with fds. False at the end.
static bool receive(struct fake_server *server, void *bytes, size_t size, struct fake_message *message)
{
    while (size > 0) {
        _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * 32)];
        struct iovec iov = {bytes, size};
        struct msghdr header = {.msg_iov = &iov,
                                .msg_iovlen = 1,
                                .msg_control = control,
                                .msg_controllen = sizeof control};
        ssize_t got = recvmsg(server->fd, &header, 0);
        if (got <= 0)
            return false;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c)) {
            message->fds_count = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            memcpy(message->fds, CMSG_DATA(c), sizeof(int) * (unsigned)message->fds_count);
        }
        bytes = (char *)bytes + got;
        size -= (size_t)got;
    }
    return true;
}

static void answer_version(struct fake_server *server, const struct fake_message *message)
{
    const char *json = server->version_json
                           ? server->version_json
                           : "{\"capabilities\":{\"max_msg_fds\":4,\"max_data_xfer_size\":4096}}";
    uint8_t payload[512] = {0};
    size_t size = *json ? strlen(json) + 1 : 0;
    memcpy(payload + sizeof(struct sdc_vfu_version), json, size);
    fake_reply(server, message, payload, sizeof(struct sdc_vfu_version) + size, NULL, 0);
}

static void *serve(void *context)
{
    struct fake_server *server = context;
    struct fake_message *message = malloc(sizeof *message);
    bool go_on = true;
    while (go_on) {
        message->fds_count = 0;
        if (!receive(server, &message->header, sizeof message->header, message))
            break;
        message->size = message->header.msg_size - sizeof message->header;
        if (!receive(server, message->payload, message->size, message))
            break;
        atomic_fetch_add(&server->messages, 1);
        if (message->header.cmd == SDC_VFU_VERSION && !server->own_version)
            answer_version(server, message);
        else
            go_on = server->message(server, message);
        for (int i = 0; i < message->fds_count; i++)
            close(message->fds[i]);
    }
    free(message);
    shutdown(server->fd, SHUT_RDWR);
    return NULL;
}

int fake_open(struct fake_server *server, const struct sdc_vfio_client_options *options,
              struct sdc_vfio_client **client, struct sdc_error *err)
{
    int pair[2];
    *client = NULL;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        abort();
    server->fd = pair[0];
    if (pthread_create(&server->thread, NULL, serve, server) != 0)
        abort();
    return sdc_vfio_client_open_fd(pair[1], "fake", options, client, err);
}

void fake_close(struct fake_server *server, struct sdc_vfio_client *client)
{
    sdc_vfio_client_close(client);
    pthread_join(server->thread, NULL);
    close(server->fd);
}
