// SPDX-License-Identifier: BSD-3-Clause
// A listener lets one client in at a time: the next one waits in the socket's backlog until the card is as new again.
#include "transport/vfio_user/vfio_user.h"

#include "base/check.h"
#include "base/log.h"
#include "transport/vfio_user/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct sdc_vfu_listener {
    struct sdc_loop *loop;
    struct sdc_pci_device *device;
    struct sdc_vfu_options options;
    struct sdc_watch watch;
    struct vfu_session *session; // NULL: nobody is connected
    void (*closed)(void *context);
    void *context;
};

static void finish_close(struct sdc_vfu_listener *listener)
{
    void (*closed)(void *context) = listener->closed;
    void *context = listener->context;

    sdc_loop_unwatch(listener->loop, &listener->watch);
    free(listener);
    closed(context);
}

static void session_ended(struct vfu_session *session)
{
    struct sdc_vfu_listener *listener = session->context;

    vfu_session_free(session);
    listener->session = NULL;
    if (listener->closed)
        finish_close(listener);
    else
        sdc_loop_rewatch(listener->loop, &listener->watch, SDC_READABLE);
}

static void client_waits(struct sdc_watch *watch, uint32_t events)
{
    struct sdc_vfu_listener *listener = sdc_container(watch, struct sdc_vfu_listener, watch);

    (void)events;
    int fd = sdc_socket_accept(watch->fd);
    if (fd < 0) {
        if (fd != -EAGAIN)
            sdc_log_peer("%s: a client could not be let in: %s", listener->options.name, strerror(-fd));
        return;
    }
    listener->session = vfu_session_new(listener->loop, fd, listener->device, &listener->options, session_ended, listener);
    if (!listener->session) {
        sdc_log_peer("%s: a client could not be let in: no memory", listener->options.name);
        return;
    }
    sdc_log(SDC_LOG_INFO, "%s: a client connects", listener->options.name);
    sdc_loop_rewatch(listener->loop, watch, 0);
}

int sdc_vfu_listener_new(struct sdc_loop *loop, int fd, struct sdc_pci_device *device, const struct sdc_vfu_options *options,
                         struct sdc_vfu_listener **out, struct sdc_error *err)
{
    struct sdc_vfu_listener *listener = calloc(1, sizeof *listener);
    if (!listener)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a listener");

    *listener = (struct sdc_vfu_listener){
        .loop = loop,
        .device = device,
        .options = *options,
        .watch = {.fd = fd, .wanted = SDC_READABLE, .ready = client_waits},
    };
    int rc = sdc_loop_watch(loop, &listener->watch);
    if (rc < 0) {
        free(listener);
        return sdc_error_set(err, rc, SDC_FAULT_HOST, "the socket cannot be watched: %s", strerror(-rc));
    }
    *out = listener;
    return 0;
}

void sdc_vfu_listener_close(struct sdc_vfu_listener *listener, void (*closed)(void *context), void *context)
{
    listener->closed = closed;
    listener->context = context;
    sdc_loop_rewatch(listener->loop, &listener->watch, 0);
    if (listener->session)
        vfu_session_end(listener->session);
    else
        finish_close(listener);
}
