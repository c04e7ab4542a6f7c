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
    pthread_mutex_init(&client->memory_lock, NULL);
    for (unsigned i = 0; i < SDC_VFIO_CLIENT_CHANNELS; i++)
        pthread_mutex_init(&client->channels[i].send_lock, NULL);
}

static void destroy_locks(struct sdc_vfio_client *client)
{
    for (unsigned i = 0; i < SDC_VFIO_CLIENT_CHANNELS; i++)
        pthread_mutex_destroy(&client->channels[i].send_lock);
    pthread_mutex_destroy(&client->memory_lock);
    pthread_mutex_destroy(&client->lock);
    pthread_cond_destroy(&client->changed);
}

// Nobody is there yet, and neither is a socket.
static struct sdc_vfio_client *new_client(const char *name, const struct sdc_vfio_client_options *options)
{
    struct sdc_vfio_client *client = calloc(1, sizeof *client);
    if (!client)
        return NULL;
    for (unsigned i = 0; i < SDC_VFIO_CLIENT_CHANNELS; i++)
        client->channels[i].fd = -1;
    snprintf(client->name, sizeof client->name, "%s", name);
    client->timeout_ms = options->timeout_ms > 0 ? options->timeout_ms : TIMEOUT_MS;
    client->message_max = SDC_LIMIT_DATA_XFER + REPLY_ROOM;
    client->dma_count_32 = options->dma_count_32;
    client->session.max_message_fds = 1;
    client->session.max_data_transfer = SDC_LIMIT_DATA_XFER;
    client->serve_fd = -1;
    init_locks(client);
    return client;
}

int sdc_vfio_client_open_fd(int fd, const char *name, const struct sdc_vfio_client_options *options,
                            struct sdc_vfio_client **client, struct sdc_error *err)
{
    static const struct sdc_vfio_client_options defaults;
    if (!options)
        options = &defaults;
    struct sdc_vfio_client *made = new_client(name, options);
    if (!made)
        sdc_fd_close(&fd);
    if (!made || sdc_vfio_channel_open(&made->channels[SDC_VFIO_CLIENT_MAIN], fd, made->name) < 0) {
        sdc_vfio_client_close(made);
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "%s: no memory for a connection", name);
    }
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
    sdc_vfio_client_serve_stop(client);
    for (unsigned i = 0; i < SDC_VFIO_CLIENT_CHANNELS; i++)
        sdc_vfio_channel_close(&client->channels[i]);
    while (client->calls) {
        struct sdc_vfio_call *call = client->calls;
        client->calls = call->next;
        free(call);
    }
    free(client->memory);
    destroy_locks(client);
    free(client);
}

const struct sdc_vfio_client_session *sdc_vfio_client_session(const struct sdc_vfio_client *client)
{
    return &client->session;
}

int sdc_vfio_client_fd(const struct sdc_vfio_client *client)
{
    return client->channels[SDC_VFIO_CLIENT_MAIN].fd;
}

int sdc_vfio_client_twin_fd(const struct sdc_vfio_client *client)
{
    return client->channels[SDC_VFIO_CLIENT_TWIN].fd;
}

void sdc_vfio_reply_release(struct sdc_vfio_reply *reply)
{
    for (unsigned i = 0; i < reply->fds_count; i++)
        sdc_fd_close(&reply->fds[i]);
    free(reply->payload);
    *reply = (struct sdc_vfio_reply){0};
}
