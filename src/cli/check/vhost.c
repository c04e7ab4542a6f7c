// SPDX-License-Identifier: BSD-3-Clause
#include "cli/check/vhost.h"

#include "base/check.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/socket.h"
#include "os/wait.h"
#include "wire/names.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MS_NS UINT64_C(1000000)

// What holds for every message.
static void rule(struct sdc_check_vhost *vhost, bool holds, const char *section, const char *text)
{
    if (holds)
        return;
    sdc_check_section(vhost->check, section);
    sdc_check_fail(vhost->check, "%s", text);
}

void sdc_check_vhost_connect(struct sdc_check_vhost *vhost, struct sdc_check *check)
{
    *vhost = (struct sdc_check_vhost){.check = check, .fd = sdc_check_connect(check), .channel_fd = -1};
}

void sdc_check_vhost_close(struct sdc_check_vhost *vhost)
{
    sdc_fd_close(&vhost->fd);
    if (vhost->asked)
        sdc_fd_close(&vhost->channel_fd);
    vhost->asked = NULL;
}

void sdc_check_vhost_needs(struct sdc_check_vhost *vhost, uint64_t feature, const char *name)
{
    if (!(vhost->protocol & feature))
        sdc_check_not_offered(vhost->check, "VHOST_USER_PROTOCOL_F_%s is not offered", name);
}

// --- out ---

void sdc_check_vhost_send_bytes(struct sdc_check_vhost *vhost, const void *bytes, size_t size, const int *fds, unsigned fds_count)
{
    uint64_t give_up = sdc_clock_ns() + (uint64_t)sdc_check_patience(vhost->check) * MS_NS;
    struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};

    while (iov.iov_len > 0) {
        ssize_t sent = sdc_socket_send(vhost->fd, &iov, 1, fds, fds_count);
        if (sent == -EAGAIN || sent == -ENOBUFS) {
            sdc_wait_fd(vhost->fd, SDC_WAIT_OUTPUT, 100);
            if (sdc_clock_ns() < give_up)
                continue;
            sdc_check_fail(vhost->check, "the back end has to take messages");
        }
        if (sent < 0)
            return;
        fds_count = 0; // they went with the first byte
        iov.iov_base = (char *)iov.iov_base + sent;
        iov.iov_len -= (size_t)sent;
    }
}

void sdc_check_vhost_send(struct sdc_check_vhost *vhost, const struct sdc_check_vhost_request *request)
{
    struct sdc_check_vhost_message message = {
        .header = {
            .request = request->request,
            .flags = request->flags | (request->version != 0 ? request->version : SDC_VHOST_VERSION),
            .size = request->claimed != 0 ? request->claimed : request->size,
        }};
    char name[SDC_NAME_SIZE], hex[200];

    if (request->size > 0)
        memcpy(message.payload, request->payload, request->size);
    sdc_check_sent(vhost->check, "%s (%" PRIu32 "), flags 0x%" PRIx32 ", size %" PRIu32 ", %u fds, payload: %s",
                   sdc_vhost_request_name(request->request, name), request->request, message.header.flags, message.header.size,
                   request->fds_count,
                   request->size > 0 ? sdc_check_hex(request->payload, request->size, hex, sizeof hex) : "none");
    sdc_check_vhost_send_bytes(vhost, &message, sizeof message.header + request->size, request->fds, request->fds_count);
}

// --- in ---

// Waits for something on fd, and serves the channel meanwhile (which is fd itself while one of its messages is received).
static void wait_for_input(struct sdc_check_vhost *vhost, int fd, int ms)
{
    struct sdc_wait_item items[] = {{.fd = fd, .wanted = SDC_WAIT_INPUT},
                                    {.fd = fd != vhost->channel_fd ? vhost->channel_fd : -1, .wanted = SDC_WAIT_INPUT}};

    sdc_wait_fds(items, SDC_COUNT(items), ms);
    if (items[1].seen)
        sdc_check_vhost_serve(vhost);
}

static enum sdc_check_vhost_answer receive(struct sdc_check_vhost *vhost, int fd, struct sdc_check_vhost_message *message, void *to,
                                           size_t size, uint64_t give_up)
{
    uint8_t *at = to;

    while (size > 0) {
        int fds[SDC_SOCKET_FDS_MAX], fds_count = 0;
        ssize_t got = sdc_socket_receive(fd, at, size, fds, &fds_count);
        if (got == -EAGAIN) {
            uint64_t now = sdc_clock_ns();
            if (now >= give_up)
                return SDC_CHECK_VHOST_SILENCE;
            wait_for_input(vhost, fd, (int)((give_up - now) / MS_NS) + 1);
            continue;
        }
        if (got <= 0)
            return SDC_CHECK_VHOST_CLOSED;
        rule(vhost, fds_count >= 0 && (unsigned)fds_count <= SDC_VHOST_FDS_MAX - message->fds_count, "vhost-user, Communication",
             "no message has so many file descriptors");
        for (int i = 0; i < fds_count; i++)
            message->fds[message->fds_count++] = fds[i];
        at += got;
        size -= (size_t)got;
    }
    return SDC_CHECK_VHOST_DONE;
}

static enum sdc_check_vhost_answer receive_message(struct sdc_check_vhost *vhost, int fd, struct sdc_check_vhost_message *message,
                                                   uint64_t give_up)
{
    *message = (struct sdc_check_vhost_message){0};
    enum sdc_check_vhost_answer answer = receive(vhost, fd, message, &message->header, sizeof message->header, give_up);
    if (answer != SDC_CHECK_VHOST_DONE)
        return answer;
    rule(vhost, message->header.size <= sizeof message->payload, "vhost-user, Header", "no message has so many bytes of payload");
    return receive(vhost, fd, message, message->payload, message->header.size, give_up);
}

// Of the replies that were left to come.
static bool is_owed(struct sdc_check_vhost *vhost, const struct sdc_check_vhost_message *message)
{
    uint64_t value;

    if (vhost->iotlb_owed == 0 || message->header.request != SDC_VHOST_IOTLB_MSG)
        return false;
    memcpy(&value, message->payload, sizeof value);
    rule(vhost, message->header.size == sizeof value && value == 0, "vhost-user, VHOST_USER_IOTLB_MSG",
         "the back end has to acknowledge an update with zero");
    vhost->iotlb_owed--;
    return true;
}

enum sdc_check_vhost_answer sdc_check_vhost_receive(struct sdc_check_vhost *vhost, struct sdc_check_vhost_message *message, int ms)
{
    uint64_t give_up = sdc_clock_ns() + (uint64_t)ms * MS_NS;
    char name[SDC_NAME_SIZE], hex[200];
    enum sdc_check_vhost_answer answer;

    do
        answer = receive_message(vhost, vhost->fd, message, give_up);
    while (answer == SDC_CHECK_VHOST_DONE && is_owed(vhost, message));
    if (answer == SDC_CHECK_VHOST_DONE)
        sdc_check_came(vhost->check, "%s (%" PRIu32 "), flags 0x%" PRIx32 ", size %" PRIu32 ", %u fds, payload: %s",
                       sdc_vhost_request_name(message->header.request, name), message->header.request, message->header.flags,
                       message->header.size, message->fds_count,
                       message->header.size > 0 ? sdc_check_hex(message->payload, message->header.size, hex, sizeof hex) : "none");
    else
        sdc_check_came(vhost->check, answer == SDC_CHECK_VHOST_CLOSED ? "the connection was closed" : "nothing within %d ms", ms);
    return answer;
}

// --- the back end's channel ---

void sdc_check_vhost_open_channel(struct sdc_check_vhost *vhost,
                                  void (*asked)(struct sdc_check_vhost *vhost, const struct sdc_check_vhost_message *message), void *owner)
{
    int pair[2];

    if (sdc_socket_pair(pair) < 0)
        sdc_check_skip(vhost->check, "the tester cannot make sockets");
    vhost->channel_fd = pair[0];
    vhost->asked = asked;
    vhost->owner = owner;
    sdc_check_vhost_do(vhost, &(struct sdc_check_vhost_request){
                                  .request = SDC_VHOST_SET_BACKEND_REQ_FD, .fds = &pair[1], .fds_count = 1});
    sdc_fd_close(&pair[1]);
}

void sdc_check_vhost_serve(struct sdc_check_vhost *vhost)
{
    struct sdc_check_vhost_message message;
    uint64_t give_up = sdc_clock_ns() + (uint64_t)sdc_check_patience(vhost->check) * MS_NS;

    if (receive_message(vhost, vhost->channel_fd, &message, give_up) != SDC_CHECK_VHOST_DONE) {
        sdc_fd_close(&vhost->channel_fd); // it is the back end's to close
        return;
    }
    rule(vhost, !(message.header.flags & SDC_VHOST_REPLY), "vhost-user, Back-end communication",
         "the back end sends requests on its channel");
    vhost->asked(vhost, &message);
    if (!(message.header.flags & SDC_VHOST_NEED_REPLY))
        return;
    struct {
        struct sdc_vhost_header header;
        uint8_t value[8];
    } reply = {.header = {.request = message.header.request, .flags = SDC_VHOST_VERSION | SDC_VHOST_REPLY, .size = sizeof reply.value}};
    struct iovec iov = {.iov_base = &reply, .iov_len = sizeof reply};
    sdc_socket_send(vhost->channel_fd, &iov, 1, NULL, 0);
}

static void check_reply(struct sdc_check_vhost *vhost, uint32_t request, const struct sdc_check_vhost_message *message)
{
    uint32_t flags = message->header.flags;

    rule(vhost, message->header.request == request, "vhost-user, Communication", "the next message is the reply to the request");
    rule(vhost, (flags & SDC_VHOST_VERSION_MASK) == SDC_VHOST_VERSION, "vhost-user, Header", "the version in a reply's flags is 1");
    rule(vhost, flags & SDC_VHOST_REPLY, "vhost-user, Header", "bit 2 of the flags needs to be set in each reply");
}

void sdc_check_vhost_reply(struct sdc_check_vhost *vhost, uint32_t request, uint32_t size, struct sdc_check_vhost_message *message)
{
    char name[SDC_NAME_SIZE];

    if (sdc_check_vhost_receive(vhost, message, sdc_check_patience(vhost->check)) != SDC_CHECK_VHOST_DONE)
        sdc_check_fail(vhost->check, "%s has to be answered", sdc_vhost_request_name(request, name));
    check_reply(vhost, request, message);
    if (message->header.size != size)
        sdc_check_fail(vhost->check, "the reply to %s has a payload of %" PRIu32 " bytes", sdc_vhost_request_name(request, name), size);
}

// --- requests and what comes of them ---

void sdc_check_vhost_ask(struct sdc_check_vhost *vhost, const struct sdc_check_vhost_request *request, void *reply, uint32_t reply_size)
{
    struct sdc_check_vhost_message message;

    sdc_check_vhost_send(vhost, request);
    sdc_check_vhost_reply(vhost, request->request, reply_size, &message);
    memcpy(reply, message.payload, reply_size);
}

uint64_t sdc_check_vhost_ask_u64(struct sdc_check_vhost *vhost, uint32_t request)
{
    uint64_t value;

    sdc_check_vhost_ask(vhost, &(struct sdc_check_vhost_request){.request = request}, &value, sizeof value);
    return value;
}

void sdc_check_vhost_fence(struct sdc_check_vhost *vhost)
{
    vhost->features = sdc_check_vhost_ask_u64(vhost, SDC_VHOST_GET_FEATURES);
}

static enum sdc_check_vhost_answer acknowledged(struct sdc_check_vhost *vhost, uint32_t request)
{
    struct sdc_check_vhost_message message;
    enum sdc_check_vhost_answer answer = sdc_check_vhost_receive(vhost, &message, sdc_check_patience(vhost->check));
    uint64_t value;

    if (answer == SDC_CHECK_VHOST_CLOSED)
        return answer;
    rule(vhost, answer == SDC_CHECK_VHOST_DONE, "vhost-user, REPLY_ACK",
         "with need_reply set, the back end must respond, or close the connection");
    check_reply(vhost, request, &message);
    rule(vhost, message.header.size == sizeof value, "vhost-user, REPLY_ACK", "an acknowledgement is a 64-bit integer");
    memcpy(&value, message.payload, sizeof value);
    return value == 0 ? SDC_CHECK_VHOST_DONE : SDC_CHECK_VHOST_REFUSED;
}

// GET_FEATURES; false if the connection is closed.
static bool fenced(struct sdc_check_vhost *vhost)
{
    static const struct sdc_vhost_header header = {.request = SDC_VHOST_GET_FEATURES, .flags = SDC_VHOST_VERSION};
    struct sdc_check_vhost_message message;

    sdc_check_vhost_send_bytes(vhost, &header, sizeof header, NULL, 0);
    enum sdc_check_vhost_answer answer = sdc_check_vhost_receive(vhost, &message, sdc_check_patience(vhost->check));
    if (answer == SDC_CHECK_VHOST_CLOSED)
        return false;
    rule(vhost, answer == SDC_CHECK_VHOST_DONE, "vhost-user, Communication", "a GET_FEATURES behind that request has to be answered");
    rule(vhost, message.header.request == SDC_VHOST_GET_FEATURES, "vhost-user, REPLY_ACK",
         "a request that asks for no reply, and has none of its own, is not replied to");
    return true;
}

enum sdc_check_vhost_answer sdc_check_vhost_try(struct sdc_check_vhost *vhost, const struct sdc_check_vhost_request *request)
{
    struct sdc_check_vhost_request sent = *request;
    bool ack = vhost->protocol & SDC_VHOST_PROTOCOL_F_REPLY_ACK;

    sent.flags |= ack ? SDC_VHOST_NEED_REPLY : 0;
    sdc_check_vhost_send(vhost, &sent);
    if (ack)
        return acknowledged(vhost, request->request);
    return fenced(vhost) ? SDC_CHECK_VHOST_DONE : SDC_CHECK_VHOST_CLOSED;
}

void sdc_check_vhost_do(struct sdc_check_vhost *vhost, const struct sdc_check_vhost_request *request)
{
    char name[SDC_NAME_SIZE];
    enum sdc_check_vhost_answer answer = sdc_check_vhost_try(vhost, request);

    if (answer != SDC_CHECK_VHOST_DONE)
        sdc_check_fail(vhost->check, "%s has to be done", sdc_vhost_request_name(request->request, name));
}

bool sdc_check_vhost_open_question(struct sdc_check_vhost *vhost, const struct sdc_check_vhost_request *request, const char *what)
{
    enum sdc_check_vhost_answer answer = sdc_check_vhost_try(vhost, request);

    if (answer == SDC_CHECK_VHOST_DONE && vhost->protocol & SDC_VHOST_PROTOCOL_F_REPLY_ACK)
        sdc_check_note(vhost->check, "%s is acknowledged as done", what);
    return answer != SDC_CHECK_VHOST_CLOSED;
}

void sdc_check_vhost_set_u64(struct sdc_check_vhost *vhost, uint32_t request, uint64_t value)
{
    sdc_check_vhost_do(vhost, &(struct sdc_check_vhost_request){.request = request, .payload = &value, .size = sizeof value});
}

void sdc_check_vhost_set_state(struct sdc_check_vhost *vhost, uint32_t request, uint32_t index, uint32_t num)
{
    struct sdc_vhost_vring_state state = {.index = index, .num = num};

    sdc_check_vhost_do(vhost, &(struct sdc_check_vhost_request){.request = request, .payload = &state, .size = sizeof state});
}

void sdc_check_vhost_set_fd(struct sdc_check_vhost *vhost, uint32_t request, uint32_t index, int fd)
{
    uint64_t which = index | (fd < 0 ? (uint64_t)SDC_VHOST_VRING_NO_FD : 0);

    sdc_check_vhost_do(vhost, &(struct sdc_check_vhost_request){
                                  .request = request, .payload = &which, .size = sizeof which, .fds = &fd, .fds_count = fd >= 0});
}

// --- the first requests ---

void sdc_check_vhost_shake(struct sdc_check_vhost *vhost, uint64_t protocol)
{
    sdc_check_vhost_fence(vhost);
    if (vhost->features & SDC_VHOST_F_PROTOCOL_FEATURES) {
        vhost->offered = sdc_check_vhost_ask_u64(vhost, SDC_VHOST_GET_PROTOCOL_FEATURES);
        uint64_t set = vhost->offered & protocol;
        sdc_check_vhost_set_u64(vhost, SDC_VHOST_SET_PROTOCOL_FEATURES, set);
        vhost->protocol = set;
    }
    sdc_check_vhost_do(vhost, &(struct sdc_check_vhost_request){.request = SDC_VHOST_SET_OWNER});
}

void sdc_check_vhost_open(struct sdc_check_vhost *vhost, struct sdc_check *check, uint64_t protocol)
{
    sdc_check_vhost_connect(vhost, check);
    sdc_check_vhost_shake(vhost, protocol);
}
