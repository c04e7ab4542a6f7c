// SPDX-License-Identifier: BSD-3-Clause
// Requests of ours, on a socket that the front end gave for them. There is one so far, and no answer to it is asked for.
#include "os/fd.h"
#include "transport/vhost_user/session.h"

#include "base/check.h"

#include <errno.h>
#include <string.h>

// Sends what is left of a message: true if it is out.
static bool flush(struct vhu_session *session)
{
    while (session->unsent_size > 0) {
        size_t sent_before = sizeof session->unsent - session->unsent_size;
        struct iovec iov = {session->unsent + sent_before, session->unsent_size};
        ssize_t sent = sdc_socket_send(session->channel_fd, &iov, 1, NULL, 0);
        if (sent == -EAGAIN || sent == -ENOBUFS)
            return false;
        if (sent < 0) {
            vhu_channel_close(session);
            return false;
        }
        session->unsent_size -= (size_t)sent;
    }
    return true;
}

void vhu_channel_tell(struct vhu_session *session)
{
    struct sdc_vhost_header header = {.request = SDC_VHOST_BACKEND_CONFIG_CHANGE_MSG, .flags = SDC_VHOST_VERSION};

    if (session->channel_fd < 0)
        return;
    if (flush(session) && session->config_changed && session->protocol_features & SDC_VHOST_PROTOCOL_F_CONFIG) {
        session->config_changed = false;
        memcpy(session->unsent, &header, sizeof header);
        session->unsent_size = sizeof header;
        flush(session);
    }
    if (session->channel_fd >= 0)
        sdc_loop_rewatch(session->loop, &session->channel, SDC_READABLE | (session->unsent_size > 0 ? SDC_WRITABLE : 0));
}

// Nothing is to come in, since no answer was asked for: what does is a mistake, or our own replies, if the front end gave us its end of
// the session's socket; and that would keep the session alive when it has gone. The end of the channel is not the end of the session.
static void channel_ready(struct sdc_watch *watch, uint32_t events)
{
    struct vhu_session *session = sdc_container(watch, struct vhu_session, channel);

    if (events & (SDC_READABLE | SDC_HANGUP))
        vhu_channel_close(session);
    else
        vhu_channel_tell(session);
}

void vhu_channel_close(struct vhu_session *session)
{
    if (session->channel_fd < 0)
        return;
    sdc_loop_unwatch(session->loop, &session->channel);
    sdc_fd_close(&session->channel_fd);
    session->unsent_size = 0;
}

int vhu_set_backend_req_fd(struct vhu_session *session, struct vhu_message *message)
{
    if (!sdc_socket_is_stream(message->fds[0]))
        return -EINVAL;
    vhu_channel_close(session);
    session->channel = (struct sdc_watch){.fd = message->fds[0], .wanted = SDC_READABLE, .ready = channel_ready};
    int rc = sdc_loop_watch(session->loop, &session->channel);
    if (rc < 0)
        return rc;
    session->channel_fd = message->fds[0];
    message->fds[0] = -1;
    vhu_channel_tell(session);
    return 0;
}
