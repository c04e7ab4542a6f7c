// SPDX-License-Identifier: BSD-3-Clause
// The twin socket: a second one, for what we ask the client and for its replies, if the client offered that in VERSION. Only replies
// may come over it. A client that closes it can't be asked any more: what needs memory without an fd fails, the rest goes on.
#include "transport/vfio_user/session.h"

#include "base/check.h"
#include "base/log.h"
#include "os/fd.h"

#include <errno.h>

#define SECOND UINT64_C(1000000000)

static void gone(struct vfu_session *session)
{
    struct vfu_twin *twin = &session->twin;

    sdc_loop_unwatch(session->loop, &twin->watch);
    sdc_loop_timer_clear(session->loop, &twin->deadline);
    vfu_stream_close(&twin->stream);
    vfu_remote_fail(session);
}

static void socket_ready(struct sdc_watch *watch, uint32_t events)
{
    struct vfu_session *session = sdc_container(watch, struct vfu_session, twin.watch);

    if (events & (SDC_READABLE | SDC_HANGUP)) {
        int rc = vfu_stream_receive(&session->twin.stream);
        if (rc == 0 || (rc < 0 && rc != -EAGAIN)) {
            sdc_log_peer("%s: the client has closed its twin socket: memory without an fd is out of reach", session->options->name);
            gone(session);
        }
    }
    vfu_session_step(session);
}

static void run_deadline(struct sdc_timer *timer)
{
    vfu_session_close(sdc_container(timer, struct vfu_session, twin.deadline), "the rest of a reply did not come");
}

void vfu_twin_init(struct vfu_twin *twin)
{
    *twin = (struct vfu_twin){.stream = {.fd = -1}, .peer = -1, .begun = UINT64_MAX};
}

int vfu_twin_open(struct vfu_session *session)
{
    struct vfu_twin *twin = &session->twin;
    int ends[2];
    int rc = sdc_socket_pair(ends);
    if (rc < 0)
        return rc;

    twin->peer = ends[1];
    rc = vfu_stream_init(&twin->stream, ends[0]);
    if (rc == 0) {
        twin->watch = (struct sdc_watch){.fd = ends[0], .wanted = SDC_READABLE, .ready = socket_ready};
        twin->deadline.expired = run_deadline;
        rc = sdc_loop_watch(session->loop, &twin->watch);
    }
    twin->on = rc == 0;
    if (rc < 0)
        vfu_twin_close(session);
    return rc;
}

void vfu_twin_close(struct vfu_session *session)
{
    struct vfu_twin *twin = &session->twin;

    sdc_loop_unwatch(session->loop, &twin->watch);
    sdc_loop_timer_clear(session->loop, &twin->deadline);
    vfu_stream_close(&twin->stream);
    sdc_fd_close(&twin->peer);
}

// The rest of a reply that has begun must come in time.
static void set_deadline(struct vfu_session *session)
{
    struct vfu_twin *twin = &session->twin;

    if (twin->stream.in_used == 0) {
        sdc_loop_timer_clear(session->loop, &twin->deadline);
        twin->begun = UINT64_MAX;
    } else if (twin->begun != twin->stream.messages) {
        twin->begun = twin->stream.messages;
        sdc_loop_timer_set(session->loop, &twin->deadline, SDC_LIMIT_MESSAGE_SECONDS * SECOND);
    }
}

void vfu_twin_step(struct vfu_session *session)
{
    struct vfu_twin *twin = &session->twin;
    struct sdc_vfu_header header;

    if (session->stream.departures_count == 0)
        sdc_fd_close(&twin->peer); // VERSION's reply has taken it along
    if (twin->stream.fd < 0)
        return;
    // Whole replies have been taken out: what is whole now is a command.
    if (vfu_stream_message(&twin->stream, &header) != 0) {
        vfu_session_close(session, "something that is no reply on the twin socket");
        return;
    }
    if (vfu_stream_send(&twin->stream) < 0) {
        gone(session);
        return;
    }
    set_deadline(session);
    sdc_loop_rewatch(session->loop, &twin->watch, SDC_READABLE | (vfu_stream_unsent(&twin->stream) > 0 ? (uint32_t)SDC_WRITABLE : 0));
}
