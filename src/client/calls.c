// SPDX-License-Identifier: BSD-3-Clause
// Commands and their replies: who sent what, who gets which reply, who reads.
#include "client/vfio_client.h"

#include "base/check.h"
#include "os/clock.h"
#include "os/wait.h"
#include "wire/names.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MS_NS UINT64_C(1000000)
#define SECOND_NS UINT64_C(1000000000)

enum { BATCH = 64 }; // messages that are taken before whoever reads looks up

// --- the end of a connection ---

int sdc_vfio_client_fail(struct sdc_vfio_client *client, const struct sdc_error *why, struct sdc_error *err)
{
    pthread_mutex_lock(&client->lock);
    if (client->failure.code == 0)
        client->failure = *why;
    int code = client->failure.code;
    if (err)
        *err = client->failure;
    pthread_cond_broadcast(&client->changed);
    pthread_mutex_unlock(&client->lock);
    return code;
}

// The failure, or 0. Under lock.
static int failed(const struct sdc_vfio_client *client, struct sdc_error *err)
{
    if (client->failure.code != 0 && err)
        *err = client->failure;
    return client->failure.code;
}

// --- the list of calls, under lock ---

static struct sdc_vfio_call **find_call(struct sdc_vfio_client *client, uint16_t id)
{
    struct sdc_vfio_call **at = &client->calls;
    while (*at && (*at)->id != id)
        at = &(*at)->next;
    return at;
}

// An id that no call on the list has: an abandoned call keeps its id, so that a late reply is not taken for
// another's.
static uint16_t new_id(struct sdc_vfio_client *client)
{
    while (*find_call(client, client->next_id))
        client->next_id++;
    return client->next_id++;
}

static void free_call(struct sdc_vfio_call *call)
{
    sdc_vfio_reply_release(&call->reply);
    free(call);
}

static void drop_call(struct sdc_vfio_client *client, struct sdc_vfio_call *call)
{
    struct sdc_vfio_call **at = &client->calls;
    while (*at && *at != call)
        at = &(*at)->next;
    if (*at)
        *at = call->next;
    free_call(call);
}

// --- what comes in ---

// Gives the reply that has come in to its call. One that nobody waits for is dropped: its call has timed out.
static int take_reply(struct sdc_vfio_client *client, struct sdc_vfio_channel *channel, struct sdc_error *err)
{
    struct sdc_vfio_incoming *in = &channel->in;
    char name[2][SDC_NAME_SIZE];
    int ret = 0;
    pthread_mutex_lock(&client->lock);
    struct sdc_vfio_call **at = find_call(client, in->header.msg_id);
    struct sdc_vfio_call *call = *at;
    if (!call) {
        client->strays++;
    } else if (call->command != in->header.cmd) {
        ret = sdc_error_set(err, -EPROTO, SDC_FAULT_PEER, "%s: the server answered %s with a reply to %s",
                            client->name, sdc_vfu_command_name(call->command, name[0]),
                            sdc_vfu_command_name(in->header.cmd, name[1]));
    } else {
        *at = call->next;
        call->header = in->header;
        call->reply.payload = in->payload;
        call->reply.size = in->header.msg_size - sizeof in->header;
        memcpy(call->reply.fds, in->fds, sizeof in->fds);
        call->reply.fds_count = in->fds_count;
        in->payload = NULL;
        in->fds_count = 0;
        call->done = true;
        if (call->abandoned)
            free_call(call);
        pthread_cond_broadcast(&client->changed);
    }
    pthread_mutex_unlock(&client->lock);
    return ret;
}

// Takes the whole messages that are there, a batch of them at most.
static int take_messages(struct sdc_vfio_client *client, struct sdc_vfio_channel *channel,
                         struct sdc_error *err)
{
    for (unsigned i = 0; i < BATCH; i++) {
        int ret = sdc_vfio_channel_receive(client, channel, err);
        if (ret <= 0)
            return ret;
        bool reply = (channel->in.header.flags & SDC_VFU_TYPE_MASK) == SDC_VFU_TYPE_REPLY;
        ret = reply ? take_reply(client, channel, err) : sdc_vfio_answers_take(client, channel, err);
        sdc_vfio_channel_next(channel);
        if (ret < 0)
            return ret;
        if (!reply)
            sdc_vfio_answers_send(client);
    }
    return 0;
}

void sdc_vfio_client_take(struct sdc_vfio_client *client)
{
    struct sdc_error why = {0};
    int ret = 0;
    for (unsigned i = 0; ret == 0 && i < SDC_VFIO_CLIENT_CHANNELS; i++)
        if (client->channels[i].fd >= 0)
            ret = take_messages(client, &client->channels[i], &why);
    if (ret < 0)
        sdc_vfio_client_fail(client, &why, NULL);
}

bool sdc_vfio_client_begin_reading(struct sdc_vfio_client *client)
{
    if (client->reading || client->failure.code != 0)
        return false;
    client->reading = true;
    return true;
}

void sdc_vfio_client_end_reading(struct sdc_vfio_client *client)
{
    client->reading = false;
    pthread_cond_broadcast(&client->changed);
}

void sdc_vfio_client_drain(struct sdc_vfio_client *client)
{
    pthread_mutex_lock(&client->lock);
    bool mine = sdc_vfio_client_begin_reading(client);
    pthread_mutex_unlock(&client->lock);
    if (!mine)
        return;
    sdc_vfio_client_take(client);
    pthread_mutex_lock(&client->lock);
    sdc_vfio_client_end_reading(client);
    pthread_mutex_unlock(&client->lock);
}

void sdc_vfio_client_wait_input(struct sdc_vfio_client *client, int wake_fd, int timeout_ms)
{
    struct sdc_wait_item items[SDC_VFIO_CLIENT_CHANNELS + 1];
    for (unsigned i = 0; i < SDC_VFIO_CLIENT_CHANNELS; i++) {
        const struct sdc_vfio_channel *channel = &client->channels[i];
        items[i] = (struct sdc_wait_item){.fd = channel->fd, .wanted = SDC_WAIT_INPUT};
        if (sdc_vfio_answers_owed(client, channel))
            items[i].wanted |= SDC_WAIT_OUTPUT;
    }
    items[SDC_VFIO_CLIENT_CHANNELS] = (struct sdc_wait_item){.fd = wake_fd, .wanted = SDC_WAIT_INPUT};
    sdc_wait_fds(items, SDC_COUNT(items), timeout_ms);
}

// --- what goes out ---

static uint64_t deadline_of(const struct sdc_vfio_client *client)
{
    return sdc_clock_ns() + client->timeout_ms * MS_NS;
}

static int check_command(const struct sdc_vfio_client *client, const struct sdc_vfio_command *command,
                         struct sdc_error *err)
{
    if (command->fds_count > SDC_VFIO_CLIENT_FDS || command->fds_count > client->session.max_message_fds)
        return sdc_error_set(err, -E2BIG, SDC_FAULT_USER,
                             "%s: %u file descriptors with one message; the server takes %" PRIu32,
                             client->name, command->fds_count, client->session.max_message_fds);
    if (command->head_size > UINT16_MAX || command->data_size > client->session.max_data_transfer)
        return sdc_error_set(err, -E2BIG, SDC_FAULT_USER,
                             "%s: %zu bytes of data in one message; the server takes %" PRIu32, client->name,
                             command->data_size, client->session.max_data_transfer);
    return 0;
}

// Puts call on the list (unless the command is posted) and fills the header. Or the connection's failure.
static int enlist(struct sdc_vfio_client *client, const struct sdc_vfio_command *command,
                  struct sdc_vfio_call *call, struct sdc_vfu_header *header, struct sdc_error *err)
{
    pthread_mutex_lock(&client->lock);
    int ret = failed(client, err);
    if (ret == 0) {
        *header = (struct sdc_vfu_header){
            .msg_id = new_id(client),
            .cmd = command->command,
            .msg_size = (uint32_t)(sizeof *header + command->head_size + command->data_size),
            .flags = SDC_VFU_TYPE_COMMAND | (command->posted ? SDC_VFU_NO_REPLY : 0),
        };
        if (call) {
            call->id = header->msg_id;
            call->next = client->calls;
            client->calls = call;
        }
    }
    pthread_mutex_unlock(&client->lock);
    return ret;
}

int sdc_vfio_client_send(struct sdc_vfio_client *client, const struct sdc_vfio_command *command,
                         struct sdc_vfio_call **call, struct sdc_error *err)
{
    struct sdc_vfu_header header;
    struct sdc_vfio_call *made = NULL;
    int ret = check_command(client, command, err);
    if (ret < 0)
        return ret;
    if (!command->posted) {
        made = calloc(1, sizeof *made);
        if (!made)
            return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "%s: no memory for a command", client->name);
        made->command = command->command;
    }
    struct sdc_vfio_channel *channel = &client->channels[SDC_VFIO_CLIENT_MAIN];
    pthread_mutex_lock(&channel->send_lock);
    ret = enlist(client, command, made, &header, err);
    if (ret == 0) {
        ret = sdc_vfio_channel_send(client, channel, &header, command, deadline_of(client));
        if (ret < 0) {
            pthread_mutex_lock(&client->lock);
            ret = failed(client, err);
            pthread_mutex_unlock(&client->lock);
        }
    }
    pthread_mutex_unlock(&channel->send_lock);
    sdc_vfio_answers_send(client);
    if (ret < 0 && made) {
        pthread_mutex_lock(&client->lock);
        drop_call(client, made);
        pthread_mutex_unlock(&client->lock);
    }
    if (ret == 0 && made)
        *call = made;
    return ret;
}

// --- waiting ---

static void wait_for_reader(struct sdc_vfio_client *client, uint64_t deadline_ns)
{
    struct timespec until = {.tv_sec = (time_t)(deadline_ns / SECOND_NS),
                             .tv_nsec = (long)(deadline_ns % SECOND_NS)};
    pthread_cond_timedwait(&client->changed, &client->lock, &until);
}

// Waits until call is done, the connection fails, or the time is up. Under lock, which is given up meanwhile.
static void wait_until_done(struct sdc_vfio_client *client, struct sdc_vfio_call *call, uint64_t deadline_ns)
{
    uint64_t now;
    while (!call->done && client->failure.code == 0 && (now = sdc_clock_ns()) < deadline_ns) {
        if (!sdc_vfio_client_begin_reading(client)) {
            wait_for_reader(client, deadline_ns);
            continue;
        }
        pthread_mutex_unlock(&client->lock);
        sdc_vfio_client_wait_input(client, -1, (int)((deadline_ns - now) / MS_NS) + 1);
        sdc_vfio_client_take(client);
        sdc_vfio_answers_send(client);
        pthread_mutex_lock(&client->lock);
        sdc_vfio_client_end_reading(client);
    }
}

// What a reply that has come says. The call is off the list.
static int outcome(struct sdc_vfio_client *client, struct sdc_vfio_call *call, struct sdc_vfio_reply *reply,
                   struct sdc_error *err)
{
    char name[SDC_NAME_SIZE];
    if (call->header.flags & SDC_VFU_ERROR) {
        int code = call->header.error > 0 && call->header.error < 4096 ? -(int)call->header.error : -EIO;
        return sdc_error_set(err, code, SDC_FAULT_PEER, "%s: the server refused %s: %s", client->name,
                             sdc_vfu_command_name(call->command, name), strerror(-code));
    }
    if (reply) {
        *reply = call->reply;
        call->reply = (struct sdc_vfio_reply){0};
    }
    return 0;
}

int sdc_vfio_client_wait(struct sdc_vfio_client *client, struct sdc_vfio_call *call,
                         struct sdc_vfio_reply *reply, struct sdc_error *err)
{
    char name[SDC_NAME_SIZE];
    pthread_mutex_lock(&client->lock);
    wait_until_done(client, call, deadline_of(client));
    if (call->done) {
        pthread_mutex_unlock(&client->lock);
        int ret = outcome(client, call, reply, err);
        free_call(call);
        return ret;
    }
    int ret = failed(client, err);
    if (ret == 0) {
        call->abandoned = true;
        ret = sdc_error_set(err, -ETIMEDOUT, SDC_FAULT_PEER,
                            "%s: the server did not answer %s within %" PRIu32 " ms%s", client->name,
                            sdc_vfu_command_name(call->command, name), client->timeout_ms,
                            client->strays > 0 ? " (but sent replies that nobody waits for)" : "");
    } else {
        drop_call(client, call);
    }
    pthread_mutex_unlock(&client->lock);
    return ret;
}

int sdc_vfio_client_process(struct sdc_vfio_client *client, struct sdc_error *err)
{
    sdc_vfio_client_drain(client);
    sdc_vfio_answers_send(client);
    pthread_mutex_lock(&client->lock);
    int ret = failed(client, err);
    for (unsigned i = 0; ret == 0 && i < SDC_VFIO_CLIENT_CHANNELS; i++)
        ret = client->channels[i].owed_count > 0;
    pthread_mutex_unlock(&client->lock);
    return ret;
}

int sdc_vfio_client_do(struct sdc_vfio_client *client, const struct sdc_vfio_command *command, size_t least,
                       struct sdc_vfio_reply *reply, struct sdc_error *err)
{
    struct sdc_vfio_call *call;
    char name[SDC_NAME_SIZE];
    int ret = sdc_vfio_client_send(client, command, &call, err);
    if (ret == 0)
        ret = sdc_vfio_client_wait(client, call, reply, err);
    if (ret < 0)
        return ret;
    if (reply->size >= least)
        return 0;
    size_t size = reply->size;
    sdc_vfio_reply_release(reply);
    return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER,
                         "%s: the server's reply to %s has %zu bytes, at least %zu are due", client->name,
                         sdc_vfu_command_name(command->command, name), size, least);
}

int sdc_vfio_client_just_do(struct sdc_vfio_client *client, const struct sdc_vfio_command *command,
                            size_t least, struct sdc_error *err)
{
    struct sdc_vfio_reply reply;
    int ret = sdc_vfio_client_do(client, command, least, &reply, err);
    if (ret == 0)
        sdc_vfio_reply_release(&reply);
    return ret;
}
