// SPDX-License-Identifier: BSD-3-Clause
// vhost-user messages in a stream of bytes, and the channel on which the back end asks. A receive never asks for
// bytes beyond the message that it is in, so that fds, which come with the first bytes of a message, are always of
// the message that is being read.
#include "client/vhost_client.h"

#include "base/check.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/socket.h"
#include "os/wait.h"
#include "wire/names.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define MS_NS UINT64_C(1000000)

enum {
    TAG_SOCKET = 0,
    TAG_CHANNEL = 1,
    SERVED_MOST = 64, // requests on the channel that are answered at a time
};

// --- the end of a connection ---

int sdc_vhost_fail(struct sdc_vhost_client *client, const struct sdc_error *why, struct sdc_error *err)
{
    if (client->failure.code == 0)
        client->failure = *why;
    return sdc_vhost_failed(client, err);
}

int sdc_vhost_failed(const struct sdc_vhost_client *client, struct sdc_error *err)
{
    if (client->failure.code != 0 && err)
        *err = client->failure;
    return client->failure.code;
}

static int lost(struct sdc_vhost_client *client, int code, const char *doing, struct sdc_error *err)
{
    struct sdc_error why;

    if (code == 0 || code == -EPIPE || code == -ECONNRESET)
        sdc_error_set(&why, -ECONNRESET, SDC_FAULT_PEER, "%s: the back end has closed the connection", client->name);
    else if (code == -ETIMEDOUT)
        sdc_error_set(&why, code, SDC_FAULT_PEER, "%s: the back end does not %s (waited %" PRIu32 " ms)", client->name,
                      doing, client->timeout_ms);
    else
        sdc_error_set(&why, code, SDC_FAULT_HOST, "%s: the back end cannot be reached: %s", client->name, strerror(-code));
    return sdc_vhost_fail(client, &why, err);
}

void sdc_vhost_close_fds(struct sdc_vhost_message *message)
{
    for (unsigned i = 0; i < message->fds_count; i++)
        sdc_fd_close(&message->fds[i]);
    message->fds_count = 0;
}

// --- out ---

static int time_left(uint64_t deadline_ns)
{
    uint64_t now = sdc_clock_ns();

    return now >= deadline_ns ? -ETIMEDOUT : (int)((deadline_ns - now) / MS_NS) + 1;
}

static int send_all(int fd, const struct sdc_vhost_message *message, uint64_t deadline_ns)
{
    struct iovec parts[2] = {
        {.iov_base = (void *)(uintptr_t)&message->header, .iov_len = sizeof message->header},
        {.iov_base = (void *)(uintptr_t)message->payload, .iov_len = message->header.size},
    };
    unsigned first = 0, fds_count = message->fds_count;

    while (first < SDC_COUNT(parts)) {
        ssize_t sent = parts[first].iov_len == 0
                           ? 0
                           : sdc_socket_send(fd, &parts[first], SDC_COUNT(parts) - first, message->fds, fds_count);
        if (sent == -EAGAIN || sent == -ENOBUFS) {
            int left = time_left(deadline_ns);
            if (left < 0)
                return left;
            sdc_wait_fd(fd, SDC_WAIT_OUTPUT, left);
            continue;
        }
        if (sent < 0)
            return (int)sent;
        if (sent > 0)
            fds_count = 0; // they went with the first byte
        size_t gone = (size_t)sent;
        while (first < SDC_COUNT(parts) && gone >= parts[first].iov_len)
            gone -= parts[first++].iov_len;
        if (first < SDC_COUNT(parts)) {
            parts[first].iov_base = (char *)parts[first].iov_base + gone;
            parts[first].iov_len -= gone;
        }
    }
    return 0;
}

int sdc_vhost_send(struct sdc_vhost_client *client, const struct sdc_vhost_message *request, struct sdc_error *err)
{
    int ret = sdc_vhost_failed(client, err);
    if (ret == 0) {
        ret = send_all(client->fd, request, sdc_clock_ns() + client->timeout_ms * MS_NS);
        if (ret < 0)
            ret = lost(client, ret, "take a request", err);
    }
    return ret;
}

// --- in ---

// What is there of a message; *got counts its bytes. 1: it is whole; 0: not yet; -EPROTO, -ECONNRESET, or another error.
static int receive_some(int fd, struct sdc_vhost_message *message, size_t *got)
{
    int fds[SDC_SOCKET_FDS_MAX], fds_count = 0;
    size_t head = sizeof message->header;

    for (;;) {
        if (*got >= head && message->header.size > sizeof message->payload)
            return -EPROTO;
        if (*got >= head && *got - head == message->header.size)
            return 1;
        ssize_t n = *got < head ? sdc_socket_receive(fd, (uint8_t *)&message->header + *got, head - *got, fds, &fds_count)
                                : sdc_socket_receive(fd, message->payload + (*got - head),
                                                     message->header.size - (*got - head), fds, &fds_count);
        if (n <= 0)
            return n == -EAGAIN ? 0 : n == 0 ? -ECONNRESET : (int)n;
        *got += (size_t)n;
        bool fits = fds_count >= 0 && (unsigned)fds_count <= SDC_VHOST_FDS_MAX - message->fds_count;
        for (int i = 0; i < fds_count; i++) {
            if (fits)
                message->fds[message->fds_count++] = fds[i];
            else
                sdc_fd_close(&fds[i]);
        }
        if (!fits)
            return -EPROTO;
    }
}

static int broken(struct sdc_vhost_client *client, const struct sdc_vhost_message *message, const char *expected,
                  struct sdc_error *err)
{
    struct sdc_error why;

    sdc_error_set(&why, -EPROTO, SDC_FAULT_PEER,
                  "%s: the back end sent request %" PRIu32 ", flags 0x%" PRIx32 ", %" PRIu32 " bytes, %u fds: %s was due",
                  client->name, message->header.request, message->header.flags, message->header.size, message->fds_count,
                  expected);
    return sdc_vhost_fail(client, &why, err);
}

// While a question waits for the reply that is due, the channel is left alone. Which of the two has something.
static uint32_t wait_for_input(struct sdc_vhost_client *client, int timeout_ms)
{
    if (!client->missed_pending)
        return sdc_waiter_wait(client->waiter, timeout_ms);
    sdc_wait_fd(client->fd, SDC_WAIT_INPUT, timeout_ms);
    return UINT32_C(1) << TAG_SOCKET;
}

int sdc_vhost_receive(struct sdc_vhost_client *client, uint32_t request, struct sdc_vhost_message *reply,
                      struct sdc_error *err)
{
    uint64_t deadline_ns = sdc_clock_ns() + client->timeout_ms * MS_NS;
    size_t got = 0;
    char name[SDC_NAME_SIZE];

    *reply = (struct sdc_vhost_message){0};
    for (;;) {
        int ret = receive_some(client->fd, reply, &got);
        if (ret == 0) {
            int left = time_left(deadline_ns);
            uint32_t ready = left < 0 ? 0 : wait_for_input(client, left);
            if (left < 0)
                ret = left;
            else if (ready & UINT32_C(1) << TAG_CHANNEL && sdc_vhost_serve_channel(client, err) < 0)
                ret = client->failure.code;
            if (ret == 0)
                continue;
        }
        bool right = reply->header.request == request && reply->header.flags & SDC_VHOST_REPLY;
        if (ret == 1 && right)
            return 0;
        ret = ret == 1 || ret == -EPROTO ? broken(client, reply, sdc_vhost_request_name(request, name), err)
                                         : lost(client, ret, "answer", err);
        sdc_vhost_close_fds(reply);
        return ret;
    }
}

int sdc_vhost_look(struct sdc_vhost_client *client, struct sdc_error *err)
{
    int ret = sdc_vhost_failed(client, err);
    int state = ret == 0 ? sdc_wait_fd(client->fd, SDC_WAIT_HANGUP, 0) : 0;

    return ret == 0 && state > 0 && state & SDC_WAIT_HANGUP ? lost(client, -ECONNRESET, "answer", err) : ret;
}

// --- the back end's channel ---

// 0: done; else what the answer says.
static uint64_t serve(struct sdc_vhost_client *client, const struct sdc_vhost_message *message)
{
    struct sdc_vhost_vring_state state = {0};
    uint32_t request = message->header.request, size = message->header.size;
    int fd = -1;

    if (request == SDC_VHOST_BACKEND_CONFIG_CHANGE_MSG && size == 0) {
        fd = client->config_fd;
    } else if (client->in_band && request == SDC_VHOST_BACKEND_VRING_CALL && size == sizeof state) {
        memcpy(&state, message->payload, sizeof state);
        fd = state.index <= SDC_VHOST_VRING_INDEX ? client->call_fds[state.index] : -1;
    } else if (!client->in_band || request != SDC_VHOST_BACKEND_VRING_ERR || size != sizeof state) {
        return EINVAL; // of a broken vring a driver hears by its silence
    }
    if (fd >= 0)
        sdc_eventfd_signal(fd);
    return 0;
}

int sdc_vhost_answer(struct sdc_vhost_client *client, const struct sdc_vhost_message *request, uint64_t result, struct sdc_error *err)
{
    struct sdc_vhost_message answer;

    if (!(request->header.flags & SDC_VHOST_NEED_REPLY) || client->channel_fd < 0)
        return 0;
    sdc_vhost_fill(&answer, request->header.request, &result, sizeof result);
    answer.header.flags |= SDC_VHOST_REPLY;
    int ret = send_all(client->channel_fd, &answer, sdc_clock_ns() + client->timeout_ms * MS_NS);
    return ret < 0 ? lost(client, ret, "take an answer", err) : 0;
}

static bool is_miss(const struct sdc_vhost_message *message)
{
    struct sdc_vhost_iotlb iotlb;

    if (message->header.request != SDC_VHOST_BACKEND_IOTLB_MSG || message->header.size != sizeof iotlb)
        return false;
    memcpy(&iotlb, message->payload, sizeof iotlb);
    return iotlb.type == SDC_VHOST_IOTLB_MISS;
}

// A back end sends a request on its channel whole, and waits for the answer before the next: the rest of one that has begun is
// there at once. One that asks without end is answered in part, so that it does not keep us here.
int sdc_vhost_serve_channel(struct sdc_vhost_client *client, struct sdc_error *err)
{
    uint64_t deadline_ns = sdc_clock_ns() + client->timeout_ms * MS_NS;
    struct sdc_vhost_message message = {0};
    size_t got = 0;

    for (unsigned served = 0; client->channel_fd >= 0 && !client->missed_pending && served < SERVED_MOST;) {
        int ret = receive_some(client->channel_fd, &message, &got);
        if (ret == 0 && got > 0 && time_left(deadline_ns) > 0) {
            sdc_wait_fd(client->channel_fd, SDC_WAIT_INPUT, time_left(deadline_ns));
            continue;
        }
        sdc_vhost_close_fds(&message);
        if (ret == 0 && got == 0)
            return 0;
        if (ret == -ECONNRESET && got == 0) { // the channel alone is gone: the socket will tell
            sdc_fd_close(&client->channel_fd);
            return 0;
        }
        if (ret != 1)
            return broken(client, &message, "a request on the back end's channel", err);
        client->missed_pending = is_miss(&message);
        if (client->missed_pending)
            client->missed = message;
        else if ((ret = sdc_vhost_answer(client, &message, serve(client, &message), err)) < 0)
            return ret;
        message = (struct sdc_vhost_message){0};
        got = 0;
        served++;
    }
    return 0;
}
