// SPDX-License-Identifier: BSD-3-Clause
// A scripted vhost-user back end, in a thread of the test's, and a client of it.
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/check.h"
#include "os/fd.h"
#include "os/memfd.h"
#include "os/socket.h"
#include "os/wait.h"
#include "wire/vhost_user.h"

#include <sidecard/vhost.h>
#include <sidecard/virtio.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define FEATURES (SDC_VHOST_F_PROTOCOL_FEATURES | UINT64_C(1) << 32 | UINT64_C(1) << 9)
#define ALL_PROTOCOL                                                                                                   \
    (SDC_VHOST_PROTOCOL_F_MQ | SDC_VHOST_PROTOCOL_F_REPLY_ACK | SDC_VHOST_PROTOCOL_F_BACKEND_REQ |                     \
     SDC_VHOST_PROTOCOL_F_CONFIG | SDC_VHOST_PROTOCOL_F_INFLIGHT_SHMFD | SDC_VHOST_PROTOCOL_F_RESET_DEVICE |           \
     SDC_VHOST_PROTOCOL_F_CONFIGURE_MEM_SLOTS | SDC_VHOST_PROTOCOL_F_STATUS)

enum { SEEN_MAX = 128, TIMEOUT_MS = 60000, SHORT_MS = 1000 };

struct message {
    struct sdc_vhost_header header;
    uint8_t payload[600];
    int fds[8];
    int fds_count;
};

struct backend {
    int fd;
    int channel; // what SET_BACKEND_REQ_FD brought
    pthread_t thread;
    uint64_t features, protocol;
    // False: it was answered here, or is not to be answered.
    bool (*instead)(struct backend *backend, struct message *message);
    unsigned calls; // instead's
    struct message seen[SEEN_MAX];
    unsigned seen_count;
};

static inline bool receive_all(int fd, void *bytes, size_t size, struct message *message)
{
    for (size_t got = 0; got < size;) {
        int fds[SDC_SOCKET_FDS_MAX], count = 0;
        if (sdc_wait_fd(fd, SDC_WAIT_INPUT, -1) < 0)
            return false;
        ssize_t n = sdc_socket_receive(fd, (uint8_t *)bytes + got, size - got, fds, &count);
        if (n == -EAGAIN)
            continue;
        if (n <= 0)
            return false;
        for (int i = 0; i < count; i++)
            message->fds[message->fds_count++] = fds[i];
        got += (size_t)n;
    }
    return true;
}

static inline void send_bytes(int fd, const void *bytes, size_t size, const int *fds, unsigned fds_count)
{
    struct iovec iov = {(void *)(uintptr_t)bytes, size};

    assert_int_equal(sdc_socket_send(fd, &iov, 1, fds, fds_count), size);
}

static inline void answer(struct backend *backend, uint32_t request, const void *payload, uint32_t size, const int *fds,
                   unsigned fds_count)
{
    struct message reply = {
        .header = {.request = request, .flags = SDC_VHOST_VERSION | SDC_VHOST_REPLY, .size = size}};

    if (size > 0)
        memcpy(reply.payload, payload, size);
    send_bytes(backend->fd, &reply, sizeof reply.header + size, fds, fds_count);
}

static inline void answer_u64(struct backend *backend, const struct message *message, uint64_t value)
{
    answer(backend, message->header.request, &value, sizeof value, NULL, 0);
}

// A good back end's answer.
static inline void serve(struct backend *backend, struct message *message)
{
    switch (message->header.request) {
    case SDC_VHOST_GET_FEATURES:
        answer_u64(backend, message, backend->features);
        return;
    case SDC_VHOST_GET_PROTOCOL_FEATURES:
        answer_u64(backend, message, backend->protocol);
        return;
    case SDC_VHOST_GET_QUEUE_NUM:
        answer_u64(backend, message, 4);
        return;
    case SDC_VHOST_GET_MAX_MEM_SLOTS:
        answer_u64(backend, message, 3);
        return;
    case SDC_VHOST_GET_STATUS:
        answer_u64(backend, message, 11);
        return;
    case SDC_VHOST_GET_CONFIG:
        for (unsigned i = 12; i < message->header.size; i++)
            message->payload[i] = (uint8_t)i;
        answer(backend, message->header.request, message->payload, message->header.size, NULL, 0);
        return;
    case SDC_VHOST_GET_VRING_BASE:
        answer(backend, message->header.request, &(struct sdc_vhost_vring_state){.num = 77}, 8, NULL, 0);
        return;
    case SDC_VHOST_SET_BACKEND_REQ_FD:
        backend->channel = message->fds[0];
        message->fds_count = 0;
        break;
    default:
        break;
    }
    if (message->header.flags & SDC_VHOST_NEED_REPLY)
        answer_u64(backend, message, 0);
}

static inline void *run(void *context)
{
    struct backend *backend = context;

    for (;;) {
        struct message message = {0};
        if (!receive_all(backend->fd, &message.header, sizeof message.header, &message) ||
            message.header.size > sizeof message.payload ||
            !receive_all(backend->fd, message.payload, message.header.size, &message))
            break;
        if (backend->seen_count < SEEN_MAX)
            backend->seen[backend->seen_count++] = message;
        if (!backend->instead || backend->instead(backend, &message))
            serve(backend, &message);
        for (int i = 0; i < message.fds_count; i++)
            sdc_fd_close(&message.fds[i]);
    }
    return NULL;
}

static inline int open_with(struct backend *backend, const struct sdc_vhost_client_options *options, struct sdc_vhost_client **client)
{
    struct sdc_error err = {0};
    int pair[2];

    *client = NULL;
    backend->channel = -1;
    backend->features = backend->features ? backend->features : FEATURES;
    assert_int_equal(sdc_socket_pair(pair), 0);
    backend->fd = pair[0];
    assert_int_equal(pthread_create(&backend->thread, NULL, run, backend), 0);
    return sdc_vhost_client_open_fd(pair[1], "test", options, client, &err);
}

static inline struct sdc_vhost_client *open_in_time(struct backend *backend, uint32_t timeout_ms)
{
    struct sdc_vhost_client_options options = {.timeout_ms = timeout_ms};
    struct sdc_vhost_client *client;

    assert_int_equal(open_with(backend, &options, &client), 0);
    return client;
}

static inline struct sdc_vhost_client *open_good(struct backend *backend)
{
    return open_in_time(backend, TIMEOUT_MS);
}

static inline void end(struct backend *backend, struct sdc_vhost_client *client)
{
    sdc_vhost_client_close(client);
    shutdown(backend->fd, SHUT_RDWR);
    pthread_join(backend->thread, NULL);
    sdc_fd_close(&backend->fd);
    sdc_fd_close(&backend->channel);
}

static inline const struct message *find(const struct backend *backend, uint32_t request)
{
    for (unsigned i = backend->seen_count; i-- > 0;) {
        if (backend->seen[i].header.request == request)
            return &backend->seen[i];
    }
    return NULL;
}
