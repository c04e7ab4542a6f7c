// SPDX-License-Identifier: BSD-3-Clause
// Opening and closing a vfio-user connection.
#include "client/vfio_client.h"

#include "base/limits.h"
#include "os/fd.h"
#include "os/socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    TIMEOUT_MS = 5000,
    REPLY_ROOM = 65536, // bytes that a reply without data may have: lists of areas and fds
};

static void init_locks(struct sdc_vfio_client *client)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&client->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&client->lock, NULL);
    pthread_mutex_init(&client->send_lock, NULL);
}

int sdc_vfio_client_open_fd(int fd, const char *name, const struct sdc_vfio_client_options *options,
                            struct sdc_vfio_client **client, struct sdc_error *err)
{
    static const struct sdc_vfio_client_options defaults;
    if (!options)
        options = &defaults;
    struct sdc_vfio_client *made = calloc(1, sizeof *made);
    if (!made) {
        sdc_fd_close(&fd);
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "%s: no memory for a connection", name);
    }
    made->fd = fd;
    snprintf(made->name, sizeof made->name, "%s", name);
    made->timeout_ms = options->timeout_ms > 0 ? options->timeout_ms : TIMEOUT_MS;
    made->message_max = SDC_LIMIT_DATA_XFER + REPLY_ROOM;
    made->session.max_message_fds = 1;
    made->session.max_data_transfer = SDC_LIMIT_DATA_XFER;
    init_locks(made);
    int ret = sdc_vfio_client_negotiate(made, options, err);
    if (ret < 0) {
        sdc_vfio_client_close(made);
        return ret;
    }
    *client = made;
    return 0;
}

int sdc_vfio_client_open(const char *path, const struct sdc_vfio_client_options *options,
                         struct sdc_vfio_client **client, struct sdc_error *err)
{
    uint32_t timeout_ms = options && options->timeout_ms > 0 ? options->timeout_ms : TIMEOUT_MS;
    int fd = sdc_socket_connect(path, timeout_ms > INT32_MAX ? INT32_MAX : (int)timeout_ms, err);
    if (fd < 0)
        return fd;
    return sdc_vfio_client_open_fd(fd, path, options, client, err);
}

void sdc_vfio_client_close(struct sdc_vfio_client *client)
{
    if (!client)
        return;
    sdc_socket_close_read_out(&client->fd);
    sdc_vfio_channel_next(client);
    while (client->calls) {
        struct sdc_vfio_call *call = client->calls;
        client->calls = call->next;
        free(call);
    }
    pthread_mutex_destroy(&client->send_lock);
    pthread_mutex_destroy(&client->lock);
    pthread_cond_destroy(&client->changed);
    free(client);
}

const struct sdc_vfio_client_session *sdc_vfio_client_session(const struct sdc_vfio_client *client)
{
    return &client->session;
}

int sdc_vfio_client_fd(const struct sdc_vfio_client *client)
{
    return client->fd;
}

void sdc_vfio_reply_release(struct sdc_vfio_reply *reply)
{
    for (unsigned i = 0; i < reply->fds_count; i++)
        sdc_fd_close(&reply->fds[i]);
    free(reply->payload);
    *reply = (struct sdc_vfio_reply){0};
}
