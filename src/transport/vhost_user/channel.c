// SPDX-License-Identifier: BSD-3-Clause
// Requests of ours, on a socket that the front end gave for them: one at a time, and where both sides can, the next when the front end has
// answered. What there is to say is kept as flags, so that a front end that does not listen costs nothing.
#include "os/fd.h"
#include "transport/vhost_user/session.h"

#include "base/check.h"

#include <errno.h>
#include <string.h>

void vhu_channel_close(struct vhu_session *session)
{
    struct vhu_channel *channel = &session->channel;

    if (channel->fd < 0)
        return;
    sdc_loop_unwatch(session->loop, &channel->watch);
    sdc_fd_close(&channel->fd);
    vhu_iotlb_unsay(session);
}

// --- out ---

static void say(struct vhu_session *session, uint32_t request, const void *payload, uint32_t size)
{
    struct vhu_channel *channel = &session->channel;
    struct sdc_vhost_header header = {.request = request, .flags = SDC_VHOST_VERSION, .size = size};

    channel->awaiting = session->protocol_features & SDC_VHOST_PROTOCOL_F_REPLY_ACK;
    if (channel->awaiting)
        header.flags |= SDC_VHOST_NEED_REPLY;
    channel->request = request;
    channel->answered = 0;
    memcpy(channel->out, &header, sizeof header);
    if (size > 0)
        memcpy(channel->out + sizeof header, payload, size);
    channel->out_size = sizeof header + size;
    channel->out_sent = 0;
}

static bool say_of_vring(struct vhu_session *session, uint16_t index)
{
    struct vhu_vring *vring = &session->card->vrings[index];
    struct sdc_vhost_vring_state state = {.index = index};

    if (vring->call_due)
        say(session, SDC_VHOST_BACKEND_VRING_CALL, &state, sizeof state);
    else if (vring->err_due)
        say(session, SDC_VHOST_BACKEND_VRING_ERR, &state, sizeof state);
    else
        return false;
    if (vring->call_due)
        vring->call_due = false;
    else
        vring->err_due = false;
    return true;
}

// What a queue misses of an IOMMU's translations.
static bool say_miss(struct vhu_session *session)
{
    struct sdc_vhost_iotlb iotlb;

    if (!vhu_iotlb_say(session, &iotlb))
        return false;
    say(session, SDC_VHOST_BACKEND_IOTLB_MSG, &iotlb, sizeof iotlb);
    return session->channel.asked_last = true;
}

// The next thing that there is to say. Vrings have their turns, so that a busy one does not keep the others from being heard.
static bool say_next(struct vhu_session *session)
{
    struct vhu_channel *channel = &session->channel;
    uint16_t count = session->card->core->device->queues_count;

    if (channel->config_changed && session->protocol_features & SDC_VHOST_PROTOCOL_F_CONFIG) {
        channel->config_changed = false;
        say(session, SDC_VHOST_BACKEND_CONFIG_CHANGE_MSG, NULL, 0);
        return true;
    }
    if (!channel->asked_last && say_miss(session))
        return true;
    channel->asked_last = false;
    for (uint16_t i = 0; i < count; i++) {
        uint16_t index = (uint16_t)((channel->turn + i) % count);
        if (say_of_vring(session, index)) {
            channel->turn = (uint16_t)((index + 1) % count);
            return true;
        }
    }
    return say_miss(session);
}

// Sends what is left of a request: 1 if it is out, 0, or an error.
static int flush(struct vhu_channel *channel)
{
    while (channel->out_sent < channel->out_size) {
        struct iovec iov = {channel->out + channel->out_sent, channel->out_size - channel->out_sent};
        ssize_t sent = sdc_socket_send(channel->fd, &iov, 1, NULL, 0);
        if (sent == -EAGAIN || sent == -ENOBUFS)
            return 0;
        if (sent < 0)
            return (int)sent;
        channel->out_sent += (size_t)sent;
    }
    return 1;
}

void vhu_channel_tell(struct vhu_session *session)
{
    struct vhu_channel *channel = &session->channel;
    int rc = 1;

    if (channel->fd < 0)
        return;
    while ((rc = flush(channel)) == 1 && !channel->awaiting && say_next(session))
        ;
    if (rc < 0)
        vhu_channel_close(session);
    else
        sdc_loop_rewatch(session->loop, &channel->watch, SDC_READABLE | (rc == 0 ? SDC_WRITABLE : 0));
}

// --- in ---

// Takes what there is of the answer that is due. False: something else came, or came when nothing is due: a mistake, or our own
// replies, if the front end gave us its end of the session's socket; and that would keep the session alive when it has gone.
static bool take_answer(struct vhu_session *session)
{
    struct vhu_channel *channel = &session->channel;
    uint8_t *in = (uint8_t *)&channel->answer;
    int fds[SDC_SOCKET_FDS_MAX], fds_count = 0;

    if (!channel->awaiting)
        return false;
    ssize_t got = sdc_socket_receive(channel->fd, in + channel->answered, sizeof channel->answer - channel->answered, fds, &fds_count);
    for (int i = 0; i < fds_count; i++)
        sdc_fd_close(&fds[i]);
    if (got == -EAGAIN)
        return true;
    if (got <= 0 || fds_count != 0)
        return false;
    channel->answered += (size_t)got;
    if (channel->answered < sizeof channel->answer)
        return true;
    channel->awaiting = false;
    if (channel->request == SDC_VHOST_BACKEND_IOTLB_MSG)
        vhu_iotlb_said(session);
    return channel->answer.header.request == channel->request && channel->answer.header.flags & SDC_VHOST_REPLY &&
           channel->answer.header.size == sizeof channel->answer.result;
}

// The end of the channel is not the end of the session.
static void channel_ready(struct sdc_watch *watch, uint32_t events)
{
    struct vhu_session *session = sdc_container(watch, struct vhu_session, channel.watch);

    if (events & (SDC_READABLE | SDC_HANGUP) && !take_answer(session))
        vhu_channel_close(session);
    else
        vhu_channel_tell(session);
}

int vhu_set_backend_req_fd(struct vhu_session *session, struct vhu_message *message)
{
    struct vhu_channel *channel = &session->channel;

    // Not its own end of the session's socket, on which our replies would come for answers.
    if (!sdc_socket_is_stream(message->fds[0]) || sdc_socket_may_be_ends(message->fds[0], session->stream.fd))
        return -EINVAL;
    vhu_channel_close(session);
    *channel = (struct vhu_channel){
        .fd = message->fds[0],
        .watch = {.fd = message->fds[0], .wanted = SDC_READABLE, .ready = channel_ready},
        .config_changed = channel->config_changed,
    };
    message->fds[0] = -1;
    int rc = sdc_loop_watch(session->loop, &channel->watch);
    if (rc < 0) {
        sdc_fd_close(&channel->fd);
        return rc;
    }
    vhu_channel_tell(session);
    return 0;
}
