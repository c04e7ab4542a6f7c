// SPDX-License-Identifier: BSD-3-Clause
// The course of a session: requests in their order, each handled when what the one before has begun is done, and the end. All work is
// done in one place, the step, which looks what can go on; events only lead there.
#include "transport/vhost_user/session.h"

#include "base/check.h"
#include "base/log.h"
#include "os/fd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SECOND UINT64_C(1000000000)

enum {
    UNSENT_MAX = 16384, // bytes of replies that a front end may leave unread; then it is not read from
    TURN = 64,          // requests that are handled before others have their turn
};

void vhu_session_step(struct vhu_session *session)
{
    sdc_loop_defer(session->loop, &session->step);
}

// --- the end ---

void vhu_session_close(struct vhu_session *session, const char *reason)
{
    if (session->closing)
        return;
    sdc_log(SDC_LOG_INFO, "%s: session ends: %s", session->options->name, reason);
    session->closing = true;
    session->waiting = NULL;
    sdc_loop_unwatch(session->loop, &session->watch);
    sdc_loop_timer_clear(session->loop, &session->deadline);
    vhu_channel_close(session);
    vhu_stream_send(&session->stream);
    vhu_stream_close(&session->stream);
    vhu_session_step(session);
}

// Puts the card back: reset, then without memory; each begins when the one before has ended.
static void take_down(struct vhu_session *session)
{
    struct sdc_virtio_core *core = session->card->core;

    vhu_iotlb_forget_dropped(session); // queues that have stopped want nothing
    if (session->step_down == VHU_CLOSE_RESET && !sdc_virtio_core_busy(core)) {
        session->step_down = VHU_CLOSE_UNMAP;
        // The guest lives on: what is in flight is for the next back end, or for the same front end when it comes back.
        sdc_virtio_core_leave(core);
    }
    if (session->step_down == VHU_CLOSE_UNMAP && !sdc_virtio_core_busy(core)) {
        session->step_down = VHU_CLOSE_END;
        vhu_card_forget(session->card);
        vhu_inflight_forget(session);
        sdc_virtio_core_set_map(core, NULL);
        sdc_guest_memory_withdraw(&session->memory);
        sdc_region_table_clear(&session->iotlb.table);
    }
    bool given_up = session->memory.maps_alive == 0 && session->memory.windows_leaving == 0;
    if (session->step_down == VHU_CLOSE_END && !sdc_virtio_core_busy(core) && given_up) {
        session->card->session = NULL;
        sdc_loop_undefer(session->loop, &session->step);
        session->ended(session);
    }
}

// --- requests ---

static bool is_full(const struct vhu_session *session)
{
    return vhu_stream_unsent(&session->stream) > UNSENT_MAX || session->stream.out_fd >= 0;
}

// Whether what an earlier request began is still under way.
static bool must_wait(struct vhu_session *session)
{
    if (sdc_virtio_core_busy(session->card->core))
        return true;
    if (session->waiting) {
        if (!session->waiting(session))
            return true;
        session->waiting = NULL;
        vhu_stream_consume(&session->stream);
        session->whole = false;
        // What finished it may have begun something itself.
        return sdc_virtio_core_busy(session->card->core);
    }
    return false;
}

// Handles what is there, in order, until something must be waited for.
static void process(struct vhu_session *session)
{
    for (unsigned handled = 0; !session->closing && !must_wait(session) && !session->closing && !is_full(session); handled++) {
        if (handled == TURN)
            return; // the rest is found readable in the next turn: what is deferred here would run in this one
        int rc = session->whole ? 1 : vhu_stream_receive(&session->stream);
        if (rc == -EAGAIN) {
            vhu_iotlb_read_all(session);
            return;
        }
        if (rc <= 0) {
            vhu_session_close(session, rc == 0 ? "the front end has gone" : rc == -EPROTO ? "a request larger than any" : strerror(-rc));
            return;
        }
        session->whole = session->greeted = true;
        session->dated = false; // the next one has its own time
        rc = vhu_dispatch(session);
        if (rc < 0) {
            vhu_session_close(session, "a request was refused, and there is no way to say so");
        } else if (rc != VHU_LATER && !session->closing) {
            vhu_stream_consume(&session->stream);
            session->whole = false;
        }
    }
}

static void run_deadline(struct sdc_timer *timer)
{
    struct vhu_session *session = sdc_container(timer, struct vhu_session, deadline);

    vhu_session_close(session, session->greeted ? "the rest of a request did not come" : "no request from the front end");
}

// A message that has begun must end in time; one that waits for the card is not the front end's fault.
static void set_deadline(struct vhu_session *session)
{
    bool begun = session->stream.got > 0 && !session->whole;

    if (!session->greeted)
        return; // the deadline is the first request's
    if (!begun)
        sdc_loop_timer_clear(session->loop, &session->deadline);
    else if (!session->dated)
        sdc_loop_timer_set(session->loop, &session->deadline, SDC_LIMIT_MESSAGE_SECONDS * SECOND);
    session->dated = begun;
}

static void run_step(struct sdc_deferred *deferred)
{
    struct vhu_session *session = sdc_container(deferred, struct vhu_session, step);

    if (!session->closing)
        process(session);
    if (!session->closing)
        vhu_iotlb_run(session);
    bool was_full = is_full(session);
    int rc = session->closing ? 0 : vhu_stream_send(&session->stream);
    if (rc < 0)
        vhu_session_close(session, strerror(-rc));
    else if (was_full && !is_full(session))
        vhu_session_step(session); // for requests that waited for it
    if (session->closing) {
        take_down(session);
        return;
    }
    set_deadline(session);
    uint32_t wanted = session->whole || is_full(session) ? 0 : SDC_READABLE;
    if (vhu_stream_unsent(&session->stream) > 0)
        wanted |= SDC_WRITABLE;
    sdc_loop_rewatch(session->loop, &session->watch, wanted);
}

static void socket_ready(struct sdc_watch *watch, uint32_t events)
{
    struct vhu_session *session = sdc_container(watch, struct vhu_session, watch);

    // A hang-up while a request waits is noticed without reading: what it waits for may be what ends.
    if (events & SDC_HANGUP && session->whole)
        vhu_session_close(session, "the front end has gone");
    vhu_session_step(session);
}

static void memory_released(struct sdc_guest_memory *memory)
{
    vhu_session_step(sdc_container(memory, struct vhu_session, memory));
}

// --- life ---

struct vhu_session *vhu_session_new(struct sdc_loop *loop, int fd, struct sdc_vhu_card *card, const struct sdc_vhu_options *options,
                                    void (*ended)(struct vhu_session *session), void *context)
{
    struct vhu_session *session = calloc(1, sizeof *session);
    struct sdc_vhost_region *slots = calloc(SDC_LIMIT_VHOST_SLOTS, sizeof *slots);
    int rc = session && slots ? 0 : -ENOMEM;

    if (rc == 0) {
        *session = (struct vhu_session){
            .loop = loop,
            .card = card,
            .options = options,
            .stream = {.fd = fd, .out_fd = -1},
            .watch = {.fd = fd, .wanted = SDC_READABLE, .ready = socket_ready},
            .deadline = {.expired = run_deadline},
            .step = {.run = run_step},
            .memory = {.loop = loop,
                       .name = options->name,
                       .allow_plain_files = options->allow_file_memory,
                       .loops = options->fixed_loops,
                       .loops_count = options->fixed_loops_count,
                       .released = memory_released},
            .slots = slots,
            .channel = {.fd = -1},
            .ended = ended,
            .context = context,
        };
        vhu_iotlb_init(&session->iotlb, loop);
        // One that we have connected to may take its time: it keeps nobody out.
        session->greeted = options->path != NULL;
        if (!session->greeted)
            rc = sdc_loop_timer_set(loop, &session->deadline, SDC_LIMIT_HANDSHAKE_SECONDS * SECOND);
    }
    if (rc == 0)
        rc = sdc_loop_watch(loop, &session->watch);
    if (rc < 0) {
        if (session)
            sdc_loop_timer_clear(loop, &session->deadline);
        sdc_fd_close(&fd);
        free(session);
        free(slots);
        return NULL;
    }
    card->session = session;
    return session;
}

void vhu_session_free(struct vhu_session *session)
{
    free(session->slots);
    free(session);
}
