// SPDX-License-Identifier: BSD-3-Clause
// Virtqueues that the back end is shown, and the memory in which it keeps what it has taken.
#include "client/vhost_client.h"

#include "base/check.h"
#include "os/fd.h"

#include <errno.h>
#include <string.h>

static int set_state(struct sdc_vhost_client *client, uint32_t request, uint16_t index, uint32_t num, struct sdc_error *err)
{
    struct sdc_vhost_vring_state state = {.index = index, .num = num};
    struct sdc_vhost_message message;

    sdc_vhost_fill(&message, request, &state, sizeof state);
    return sdc_vhost_tell(client, &message, err);
}

static int set_addresses(struct sdc_vhost_client *client, const struct sdc_vhost_client_vring *vring, struct sdc_error *err)
{
    struct sdc_vhost_vring_addr addr = {
        .index = vring->index, .descriptor = vring->desc, .used = vring->device, .available = vring->driver};
    struct sdc_vhost_message message;

    sdc_vhost_fill(&message, SDC_VHOST_SET_VRING_ADDR, &addr, sizeof addr);
    return sdc_vhost_tell(client, &message, err);
}

static int set_fd(struct sdc_vhost_client *client, uint32_t request, uint16_t index, int fd, struct sdc_error *err)
{
    uint64_t which = index | (fd < 0 ? (uint64_t)SDC_VHOST_VRING_NO_FD : 0);
    struct sdc_vhost_message message;

    sdc_vhost_fill(&message, request, &which, sizeof which);
    if (fd >= 0)
        message.fds[message.fds_count++] = fd;
    return sdc_vhost_tell(client, &message, err);
}

int sdc_vhost_client_vring_start(struct sdc_vhost_client *client, const struct sdc_vhost_client_vring *vring,
                                 struct sdc_error *err)
{
    uint16_t index = vring->index;

    if (index > SDC_VHOST_VRING_INDEX)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "vring %u: vhost-user has no fds for more than %d", index,
                             SDC_VHOST_VRING_INDEX + 1);
    int ret = set_state(client, SDC_VHOST_SET_VRING_NUM, index, vring->size, err);
    if (ret == 0)
        ret = set_state(client, SDC_VHOST_SET_VRING_BASE, index, vring->base, err);
    if (ret == 0)
        ret = set_addresses(client, vring, err);
    if (client->in_band) {
        pthread_mutex_lock(&client->lock);
        client->call_fds[index] = vring->call_fd;
        pthread_mutex_unlock(&client->lock);
    } else {
        if (ret == 0)
            ret = set_fd(client, SDC_VHOST_SET_VRING_CALL, index, vring->call_fd, err);
        if (ret == 0)
            ret = set_fd(client, SDC_VHOST_SET_VRING_KICK, index, vring->kick_fd, err);
    }
    if (ret == 0 && client->session.features & SDC_VHOST_F_PROTOCOL_FEATURES)
        ret = set_state(client, SDC_VHOST_SET_VRING_ENABLE, index, 1, err);
    return ret;
}

int sdc_vhost_client_kick(struct sdc_vhost_client *client, uint16_t index, struct sdc_error *err)
{
    return set_state(client, SDC_VHOST_VRING_KICK, index, 0, err);
}

int sdc_vhost_client_vring_stop(struct sdc_vhost_client *client, uint16_t index, uint32_t *base, struct sdc_error *err)
{
    struct sdc_vhost_vring_state state = {.index = index};
    struct sdc_vhost_message message;

    pthread_mutex_lock(&client->lock);
    client->call_fds[index & SDC_VHOST_VRING_INDEX] = -1;
    pthread_mutex_unlock(&client->lock);
    sdc_vhost_fill(&message, SDC_VHOST_GET_VRING_BASE, &state, sizeof state);
    int ret = sdc_vhost_ask(client, &message, sizeof state, err);
    if (ret < 0)
        return ret;
    sdc_vhost_close_fds(&message);
    memcpy(&state, message.payload, sizeof state);
    if (base)
        *base = state.num;
    return 0;
}

// --- what outlives the back end ---

int sdc_vhost_client_get_inflight(struct sdc_vhost_client *client, uint16_t queues, uint16_t queue_size,
                                  struct sdc_vhost_client_inflight *inflight, struct sdc_error *err)
{
    struct sdc_vhost_inflight wanted = {.num_queues = queues, .queue_size = queue_size};
    struct sdc_vhost_message message;

    if (!sdc_vhost_has(client, SDC_VHOST_PROTOCOL_F_INFLIGHT_SHMFD))
        return sdc_error_set(err, -ENOTSUP, SDC_FAULT_PEER, "%s: the back end does not offer VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD",
                             client->name);
    sdc_vhost_fill(&message, SDC_VHOST_GET_INFLIGHT_FD, &wanted, sizeof wanted);
    int ret = sdc_vhost_ask(client, &message, sizeof wanted, err);
    if (ret < 0)
        return ret;
    memcpy(&wanted, message.payload, sizeof wanted);
    if (message.fds_count != 1 || wanted.mmap_size == 0) {
        sdc_vhost_close_fds(&message);
        return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER, "%s: the back end makes no memory for what is in flight", client->name);
    }
    *inflight = (struct sdc_vhost_client_inflight){.fd = message.fds[0],
                                                   .size = wanted.mmap_size,
                                                   .offset = wanted.mmap_offset,
                                                   .queues = queues,
                                                   .queue_size = queue_size};
    return 0;
}

int sdc_vhost_client_set_inflight(struct sdc_vhost_client *client, const struct sdc_vhost_client_inflight *inflight,
                                  struct sdc_error *err)
{
    struct sdc_vhost_inflight given = {.mmap_size = inflight->size,
                                       .mmap_offset = inflight->offset,
                                       .num_queues = inflight->queues,
                                       .queue_size = inflight->queue_size};
    struct sdc_vhost_message message;

    sdc_vhost_fill(&message, SDC_VHOST_SET_INFLIGHT_FD, &given, sizeof given);
    message.fds[message.fds_count++] = inflight->fd;
    return sdc_vhost_tell(client, &message, err);
}
