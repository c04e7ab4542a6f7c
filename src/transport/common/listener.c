// SPDX-License-Identifier: BSD-3-Clause
#include "transport/common/listener.h"

#include "base/check.h"
#include "base/log.h"
#include "os/socket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct sdc_listener {
    struct sdc_loop *loop;
    const char *name;
    const struct sdc_listener_ops *ops;
    void *context;
    struct sdc_watch watch;
    void *session; // NULL: nobody is connected
    void (*closed)(void *context);
    void *closed_context;
};

static void finish_close(struct sdc_listener *listener)
{
    void (*closed)(void *context) = listener->closed;
    void *context = listener->closed_context;

    sdc_loop_unwatch(listener->loop, &listener->watch);
    listener->ops->free(listener->context);
    free(listener);
    closed(context);
}

void sdc_listener_ended(struct sdc_listener *listener)
{
    listener->session = NULL;
    if (listener->closed)
        finish_close(listener);
    else
        sdc_loop_rewatch(listener->loop, &listener->watch, SDC_READABLE);
}

static void client_waits(struct sdc_watch *watch, uint32_t events)
{
    struct sdc_listener *listener = sdc_container(watch, struct sdc_listener, watch);

    (void)events;
    int fd = sdc_socket_accept(watch->fd);
    if (fd < 0) {
        if (fd != -EAGAIN)
            sdc_log_peer("%s: a client could not be let in: %s", listener->name, strerror(-fd));
        return;
    }
    listener->session = listener->ops->open(listener->context, fd, listener);
    if (!listener->session) {
        sdc_log_peer("%s: a client could not be let in: no memory", listener->name);
        return;
    }
    sdc_log(SDC_LOG_INFO, "%s: a client connects", listener->name);
    sdc_loop_rewatch(listener->loop, watch, 0);
}

int sdc_listener_new(struct sdc_loop *loop, int fd, const char *name, const struct sdc_listener_ops *ops, void *context,
                     struct sdc_listener **out, struct sdc_error *err)
{
    struct sdc_listener *listener = calloc(1, sizeof *listener);
    if (!listener) {
        ops->free(context);
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a listener");
    }
    *listener = (struct sdc_listener){
        .loop = loop,
        .name = name,
        .ops = ops,
        .context = context,
        .watch = {.fd = fd, .wanted = SDC_READABLE, .ready = client_waits},
    };
    int rc = sdc_loop_watch(loop, &listener->watch);
    if (rc < 0) {
        ops->free(context);
        free(listener);
        return sdc_error_set(err, rc, SDC_FAULT_HOST, "the socket cannot be watched: %s", strerror(-rc));
    }
    *out = listener;
    return 0;
}

void sdc_listener_close(struct sdc_listener *listener, void (*closed)(void *context), void *context)
{
    listener->closed = closed;
    listener->closed_context = context;
    sdc_loop_rewatch(listener->loop, &listener->watch, 0);
    if (listener->session)
        listener->ops->end(listener->session);
    else
        finish_close(listener);
}
