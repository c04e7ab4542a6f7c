// SPDX-License-Identifier: BSD-3-Clause
// A thread that does what the server asks while nobody else reads.
#include "client/vfio_client.h"

#include "os/fd.h"

#include <errno.h>
#include <string.h>

static void *serve(void *context)
{
    struct sdc_vfio_client *client = context;
    pthread_mutex_lock(&client->lock);
    while (!client->serve_stop && client->failure.code == 0) {
        if (!sdc_vfio_client_begin_reading(client)) {
            pthread_cond_wait(&client->changed, &client->lock);
            continue;
        }
        pthread_mutex_unlock(&client->lock);
        sdc_vfio_client_wait_input(client, client->serve_fd, -1);
        sdc_vfio_client_take(client);
        sdc_vfio_answers_send(client);
        pthread_mutex_lock(&client->lock);
        sdc_vfio_client_end_reading(client);
    }
    pthread_mutex_unlock(&client->lock);
    return NULL;
}

int sdc_vfio_client_serve_start(struct sdc_vfio_client *client, struct sdc_error *err)
{
    if (client->serving)
        return 0;
    client->serve_fd = sdc_eventfd_new();
    int ret = client->serve_fd < 0 ? client->serve_fd : -pthread_create(&client->server, NULL, serve, client);
    if (ret == 0) {
        client->serving = true;
        return 0;
    }
    sdc_fd_close(&client->serve_fd);
    return sdc_error_set(err, ret, SDC_FAULT_HOST, "%s: cannot start a thread that serves memory: %s",
                         client->name, strerror(-ret));
}

void sdc_vfio_client_serve_stop(struct sdc_vfio_client *client)
{
    if (!client->serving)
        return;
    pthread_mutex_lock(&client->lock);
    client->serve_stop = true;
    pthread_cond_broadcast(&client->changed);
    pthread_mutex_unlock(&client->lock);
    sdc_eventfd_signal(client->serve_fd);
    pthread_join(client->server, NULL);
    sdc_fd_close(&client->serve_fd);
    client->serving = client->serve_stop = false;
}
