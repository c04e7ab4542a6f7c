// SPDX-License-Identifier: BSD-3-Clause
// A vhost-user connection: opening it, agreeing on features, and the device behind it.
#include "client/vhost_client.h"

#include "base/check.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/socket.h"
#include "os/wait.h"
#include "wire/names.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TIMEOUT_MS = 5000, TAG_SOCKET = 0, TAG_CHANNEL = 1 };

#define RETRY_NS UINT64_C(10000000) // between attempts to connect again

// What we can do.
#define PROTOCOL_FEATURES                                                                                              \
    (SDC_VHOST_PROTOCOL_F_MQ | SDC_VHOST_PROTOCOL_F_REPLY_ACK | SDC_VHOST_PROTOCOL_F_BACKEND_REQ |                     \
     SDC_VHOST_PROTOCOL_F_CONFIG | SDC_VHOST_PROTOCOL_F_INFLIGHT_SHMFD | SDC_VHOST_PROTOCOL_F_RESET_DEVICE |           \
     SDC_VHOST_PROTOCOL_F_CONFIGURE_MEM_SLOTS | SDC_VHOST_PROTOCOL_F_STATUS)

// --- requests ---

void sdc_vhost_fill(struct sdc_vhost_message *message, uint32_t request, const void *payload, uint32_t size)
{
    *message = (struct sdc_vhost_message){
        .header = {.request = request, .flags = SDC_VHOST_VERSION, .size = size},
    };
    if (size > 0)
        memcpy(message->payload, payload, size);
}

static int exchange(struct sdc_vhost_client *client, struct sdc_vhost_message *message, struct sdc_error *err)
{
    struct sdc_vhost_message reply;
    int ret = sdc_vhost_send(client, message, err);

    if (ret == 0)
        ret = sdc_vhost_receive(client, message->header.request, &reply, err);
    if (ret == 0)
        *message = reply;
    if (client->missed_pending)
        sdc_vhost_answer_missed(client, NULL); // a failure of it is the next one's
    return ret;
}

int sdc_vhost_tell(struct sdc_vhost_client *client, struct sdc_vhost_message *message, struct sdc_error *err)
{
    uint32_t request = message->header.request;
    char name[SDC_NAME_SIZE];
    uint64_t result = 0;
    int ret;

    pthread_mutex_lock(&client->lock);
    if (sdc_vhost_has(client, SDC_VHOST_PROTOCOL_F_REPLY_ACK)) {
        message->header.flags |= SDC_VHOST_NEED_REPLY;
        ret = exchange(client, message, err);
        if (ret == 0) {
            sdc_vhost_close_fds(message);
            memcpy(&result, message->payload, sizeof result);
            if (message->header.size != sizeof result || result != 0)
                ret = sdc_error_set(err, -EIO, SDC_FAULT_PEER, "%s: the back end refuses %s", client->name,
                                    sdc_vhost_request_name(request, name));
        }
    } else {
        ret = sdc_vhost_send(client, message, err);
    }
    pthread_mutex_unlock(&client->lock);
    return ret;
}

int sdc_vhost_ask(struct sdc_vhost_client *client, struct sdc_vhost_message *message, uint32_t size, struct sdc_error *err)
{
    uint32_t request = message->header.request;
    char name[SDC_NAME_SIZE];

    pthread_mutex_lock(&client->lock);
    int ret = exchange(client, message, err);
    pthread_mutex_unlock(&client->lock);
    if (ret == 0 && message->header.size != size) {
        sdc_vhost_close_fds(message);
        ret = sdc_error_set(err, message->header.size == 0 ? -ERANGE : -EPROTO, SDC_FAULT_PEER,
                            "%s: the back end answers %s with %" PRIu32 " bytes, %" PRIu32 " were due", client->name,
                            sdc_vhost_request_name(request, name), message->header.size, size);
    }
    return ret;
}

static int ask_u64(struct sdc_vhost_client *client, uint32_t request, uint64_t *value, struct sdc_error *err)
{
    struct sdc_vhost_message message;

    sdc_vhost_fill(&message, request, NULL, 0);
    int ret = sdc_vhost_ask(client, &message, sizeof *value, err);
    if (ret == 0) {
        sdc_vhost_close_fds(&message);
        memcpy(value, message.payload, sizeof *value);
    }
    return ret == -ERANGE ? -EPROTO : ret;
}

static int tell_u64(struct sdc_vhost_client *client, uint32_t request, uint64_t value, struct sdc_error *err)
{
    struct sdc_vhost_message message;

    sdc_vhost_fill(&message, request, &value, sizeof value);
    return sdc_vhost_tell(client, &message, err);
}

static int unsupported(const struct sdc_vhost_client *client, const char *feature, struct sdc_error *err)
{
    return sdc_error_set(err, -ENOTSUP, SDC_FAULT_PEER, "%s: the back end does not offer VHOST_USER_PROTOCOL_F_%s",
                         client->name, feature);
}

// --- agreeing ---

// A socket for what the back end asks; it gets one end.
static int make_channel(struct sdc_vhost_client *client, struct sdc_error *err)
{
    struct sdc_vhost_message message;
    int pair[2] = {-1, -1};

    int ret = sdc_socket_pair(pair);
    if (ret == 0) {
        pthread_mutex_lock(&client->lock);
        client->channel_fd = pair[0];
        ret = sdc_waiter_add(client->waiter, pair[0], SDC_WAIT_INPUT, false, TAG_CHANNEL);
        pthread_mutex_unlock(&client->lock);
    }
    if (ret < 0) {
        sdc_fd_close(&pair[1]);
        return sdc_error_set(err, ret, SDC_FAULT_HOST, "%s: cannot make a socket: %s", client->name, strerror(-ret));
    }
    sdc_vhost_fill(&message, SDC_VHOST_SET_BACKEND_REQ_FD, NULL, 0);
    message.fds[message.fds_count++] = pair[1];
    ret = sdc_vhost_tell(client, &message, err);
    sdc_fd_close(&pair[1]);
    return ret;
}

// Without asking for an acknowledgement: whether there are any is what it says.
static int set_protocol_features(struct sdc_vhost_client *client, uint64_t features, struct sdc_error *err)
{
    struct sdc_vhost_message message;

    sdc_vhost_fill(&message, SDC_VHOST_SET_PROTOCOL_FEATURES, &features, sizeof features);
    pthread_mutex_lock(&client->lock);
    int ret = sdc_vhost_send(client, &message, err);
    pthread_mutex_unlock(&client->lock);
    return ret;
}

static int agree_on_protocol(struct sdc_vhost_client *client, struct sdc_vhost_client_session *session,
                             struct sdc_error *err)
{
    uint64_t offered, number;

    int ret = ask_u64(client, SDC_VHOST_GET_PROTOCOL_FEATURES, &offered, err);
    if (ret == 0) {
        uint64_t in_band = client->in_band ? SDC_VHOST_PROTOCOL_F_INBAND_NOTIFICATIONS : 0;
        session->protocol_offered = offered;
        session->protocol_features = offered & (PROTOCOL_FEATURES | in_band) & ~client->without;
        if (in_band && !(session->protocol_features & in_band))
            return sdc_error_set(err, -ENOTSUP, SDC_FAULT_PEER, "%s: the back end takes no notifications in band", client->name);
        ret = set_protocol_features(client, session->protocol_features, err);
    }
    if (ret == 0 && session->protocol_features & SDC_VHOST_PROTOCOL_F_MQ) {
        ret = ask_u64(client, SDC_VHOST_GET_QUEUE_NUM, &number, err);
        session->queues_max = ret == 0 ? (uint16_t)sdc_min(number, UINT16_MAX) : 0;
    }
    if (ret == 0 && session->protocol_features & SDC_VHOST_PROTOCOL_F_CONFIGURE_MEM_SLOTS)
        ret = ask_u64(client, SDC_VHOST_GET_MAX_MEM_SLOTS, &session->mem_slots, err);
    return ret;
}

// The first words on a connection. Requests are acknowledged once client->session says that both sides can.
static int agree(struct sdc_vhost_client *client, struct sdc_vhost_client_session *session, struct sdc_error *err)
{
    *session = (struct sdc_vhost_client_session){.queues_max = 1, .mem_slots = SDC_VHOST_MEM_TABLE_MAX};
    int ret = ask_u64(client, SDC_VHOST_GET_FEATURES, &session->features, err);
    if (ret == 0 && session->features & SDC_VHOST_F_PROTOCOL_FEATURES)
        ret = agree_on_protocol(client, session, err);
    return ret;
}

// Takes the device over.
static int own(struct sdc_vhost_client *client, struct sdc_error *err)
{
    struct sdc_vhost_message message;

    sdc_vhost_fill(&message, SDC_VHOST_SET_OWNER, NULL, 0);
    int ret = sdc_vhost_tell(client, &message, err);
    if (ret == 0 && sdc_vhost_has(client, SDC_VHOST_PROTOCOL_F_BACKEND_REQ))
        ret = make_channel(client, err);
    return ret;
}

// --- open and close ---

// Takes the socket over.
static int adopt(struct sdc_vhost_client *client, int fd, struct sdc_error *err)
{
    pthread_mutex_lock(&client->lock);
    sdc_fd_close(&client->fd);
    sdc_fd_close(&client->channel_fd);
    client->fd = fd;
    client->failure = (struct sdc_error){0};
    client->missed_pending = false;
    int ret = sdc_waiter_add(client->waiter, fd, SDC_WAIT_INPUT, false, TAG_SOCKET);
    pthread_mutex_unlock(&client->lock);
    return ret == 0 ? 0 : sdc_error_set(err, ret, SDC_FAULT_HOST, "%s: cannot wait for the socket: %s", client->name, strerror(-ret));
}

static int make(int fd, const char *name, const char *path, const struct sdc_vhost_client_options *options,
                struct sdc_vhost_client **client, struct sdc_error *err)
{
    struct sdc_vhost_client *made = calloc(1, sizeof *made);
    char *copy = path ? strdup(path) : NULL;
    int waiter = sdc_waiter_new();

    if (!made || (path && !copy) || waiter < 0) {
        free(made);
        free(copy);
        sdc_fd_close(&waiter);
        sdc_fd_close(&fd);
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "%s: no memory or file descriptors for a connection", name);
    }
    made->fd = made->channel_fd = made->config_fd = -1;
    made->waiter = waiter;
    made->path = copy;
    made->timeout_ms = options && options->timeout_ms > 0 ? options->timeout_ms : TIMEOUT_MS;
    made->without = options ? options->without_protocol_features : 0;
    made->in_band = options && options->in_band;
    for (unsigned i = 0; i < SDC_COUNT(made->call_fds); i++)
        made->call_fds[i] = -1;
    snprintf(made->name, sizeof made->name, "%s", name);
    pthread_mutex_init(&made->lock, NULL);
    int ret = adopt(made, fd, err);
    if (ret == 0)
        ret = agree(made, &made->session, err);
    if (ret == 0)
        ret = own(made, err);
    if (ret < 0)
        sdc_vhost_client_close(made);
    else
        *client = made;
    return ret;
}

int sdc_vhost_client_open_fd(int fd, const char *name, const struct sdc_vhost_client_options *options,
                             struct sdc_vhost_client **client, struct sdc_error *err)
{
    return make(fd, name, NULL, options, client, err);
}

int sdc_vhost_client_open(const char *path, const struct sdc_vhost_client_options *options,
                          struct sdc_vhost_client **client, struct sdc_error *err)
{
    uint32_t timeout_ms = options && options->timeout_ms > 0 ? options->timeout_ms : TIMEOUT_MS;
    int fd = sdc_socket_connect(path, (int)sdc_min(timeout_ms, INT32_MAX), err);

    return fd < 0 ? fd : make(fd, path, path, options, client, err);
}

// A new back end has to offer what is in use.
static int check_same(struct sdc_vhost_client *client, const struct sdc_vhost_client_session *now, struct sdc_error *err)
{
    const struct sdc_vhost_client_session *before = &client->session;

    if ((now->features & client->accepted) == client->accepted && now->protocol_features == before->protocol_features &&
        now->queues_max >= before->queues_max && now->mem_slots >= client->regions_count)
        return 0;
    return sdc_error_set(err, -ENOTSUP, SDC_FAULT_PEER,
                         "%s: the new back end cannot take over: features 0x%" PRIx64 ", 0x%" PRIx64 " are in use; protocol features"
                         " 0x%" PRIx64 ", were 0x%" PRIx64,
                         client->name, now->features, client->accepted, now->protocol_features, before->protocol_features);
}

int sdc_vhost_client_reconnect(struct sdc_vhost_client *client, uint32_t timeout_ms, struct sdc_error *err)
{
    uint64_t deadline_ns = sdc_clock_ns() + timeout_ms * UINT64_C(1000000);
    struct sdc_vhost_client_session now;
    int fd;

    if (!client->path)
        return sdc_error_set(err, -ENOTSUP, SDC_FAULT_USER, "%s: there is no path to connect to again", client->name);
    while ((fd = sdc_socket_connect(client->path, (int)client->timeout_ms, err)) < 0) {
        if (sdc_clock_ns() > deadline_ns)
            return fd;
        sdc_clock_pause(RETRY_NS);
    }
    int ret = adopt(client, fd, err);
    if (ret == 0)
        ret = agree(client, &now, err);
    if (ret == 0)
        ret = check_same(client, &now, err);
    if (ret == 0)
        ret = own(client, err);
    if (ret == 0 && client->accepted != 0)
        ret = sdc_vhost_client_set_features(client, client->accepted, err);
    return ret == 0 ? sdc_vhost_show_memory(client, err) : ret;
}

void sdc_vhost_client_close(struct sdc_vhost_client *client)
{
    if (!client)
        return;
    sdc_socket_close_read_out(&client->fd);
    sdc_fd_close(&client->channel_fd);
    sdc_fd_close(&client->waiter);
    for (unsigned i = 0; i < client->regions_count; i++)
        sdc_fd_close(&client->region_fds[i]);
    free(client->path);
    free(client->regions);
    free(client->region_fds);
    free(client->entries);
    pthread_mutex_destroy(&client->lock);
    free(client);
}

const struct sdc_vhost_client_session *sdc_vhost_client_session(const struct sdc_vhost_client *client)
{
    return &client->session;
}

int sdc_vhost_client_fd(struct sdc_vhost_client *client)
{
    pthread_mutex_lock(&client->lock);
    int fd = client->fd;
    pthread_mutex_unlock(&client->lock);
    return fd;
}

int sdc_vhost_client_channel_fd(struct sdc_vhost_client *client)
{
    pthread_mutex_lock(&client->lock);
    int fd = client->channel_fd;
    pthread_mutex_unlock(&client->lock);
    return fd;
}

int sdc_vhost_client_process(struct sdc_vhost_client *client, struct sdc_error *err)
{
    pthread_mutex_lock(&client->lock);
    int ret = sdc_vhost_look(client, err);
    if (ret == 0)
        ret = sdc_vhost_serve_channel(client, err);
    if (ret == 0)
        ret = sdc_vhost_answer_missed(client, err);
    pthread_mutex_unlock(&client->lock);
    return ret;
}

// --- the device ---

int sdc_vhost_client_set_features(struct sdc_vhost_client *client, uint64_t features, struct sdc_error *err)
{
    client->accepted = features;
    return tell_u64(client, SDC_VHOST_SET_FEATURES,
                    features | (client->session.features & SDC_VHOST_F_PROTOCOL_FEATURES), err);
}

int sdc_vhost_client_get_status(struct sdc_vhost_client *client, uint8_t *status, struct sdc_error *err)
{
    uint64_t value = 0;
    int ret = sdc_vhost_has(client, SDC_VHOST_PROTOCOL_F_STATUS) ? ask_u64(client, SDC_VHOST_GET_STATUS, &value, err)
                                                                 : unsupported(client, "STATUS", err);
    *status = (uint8_t)value;
    return ret;
}

int sdc_vhost_client_set_status(struct sdc_vhost_client *client, uint8_t status, struct sdc_error *err)
{
    if (!sdc_vhost_has(client, SDC_VHOST_PROTOCOL_F_STATUS))
        return unsupported(client, "STATUS", err);
    return tell_u64(client, SDC_VHOST_SET_STATUS, status, err);
}

int sdc_vhost_client_reset(struct sdc_vhost_client *client, struct sdc_error *err)
{
    struct sdc_vhost_message message;

    if (!sdc_vhost_has(client, SDC_VHOST_PROTOCOL_F_RESET_DEVICE))
        return unsupported(client, "RESET_DEVICE", err);
    sdc_vhost_fill(&message, SDC_VHOST_RESET_DEVICE, NULL, 0);
    return sdc_vhost_tell(client, &message, err);
}

static int check_config(const struct sdc_vhost_client *client, uint32_t offset, uint32_t size, struct sdc_error *err)
{
    if (!sdc_vhost_has(client, SDC_VHOST_PROTOCOL_F_CONFIG))
        return unsupported(client, "CONFIG", err);
    if (!sdc_within(offset, size, SDC_VHOST_CONFIG_MAX))
        return sdc_error_set(err, -ERANGE, SDC_FAULT_USER, "%s: a configuration has at most %d bytes", client->name,
                             SDC_VHOST_CONFIG_MAX);
    return 0;
}

// A request for, or with, the configuration from its start: there are back ends that overlook the offset.
int sdc_vhost_client_get_config(struct sdc_vhost_client *client, uint32_t offset, void *data, uint32_t size,
                                struct sdc_error *err)
{
    struct sdc_vhost_config config = {.flags = SDC_VHOST_CONFIG_WRITABLE};
    struct sdc_vhost_message message;

    int ret = check_config(client, offset, size, err);
    if (ret < 0)
        return ret;
    config.size = offset + size;
    sdc_vhost_fill(&message, SDC_VHOST_GET_CONFIG, &config, sizeof config);
    memset(message.payload + sizeof config, 0, config.size);
    message.header.size += config.size;
    ret = sdc_vhost_ask(client, &message, message.header.size, err);
    if (ret < 0)
        return ret;
    sdc_vhost_close_fds(&message);
    memcpy(data, message.payload + sizeof config + offset, size);
    return 0;
}

int sdc_vhost_client_set_config(struct sdc_vhost_client *client, uint32_t offset, const void *data, uint32_t size,
                                struct sdc_error *err)
{
    struct sdc_vhost_config config = {.offset = offset, .size = size, .flags = SDC_VHOST_CONFIG_WRITABLE};
    struct sdc_vhost_message message;

    int ret = check_config(client, offset, size, err);
    if (ret < 0)
        return ret;
    sdc_vhost_fill(&message, SDC_VHOST_SET_CONFIG, &config, sizeof config);
    memcpy(message.payload + sizeof config, data, size);
    message.header.size += size;
    return sdc_vhost_tell(client, &message, err);
}

void sdc_vhost_client_set_config_call(struct sdc_vhost_client *client, int fd)
{
    pthread_mutex_lock(&client->lock);
    client->config_fd = fd;
    pthread_mutex_unlock(&client->lock);
}
