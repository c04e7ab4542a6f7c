// SPDX-License-Identifier: BSD-3-Clause
#include "transport/common/listener.h"

#include "base/check.h"
#include "base/log.h"
#include "os/fd.h"
#include "os/heap.h"
#include "os/socket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_NS UINT64_C(200000000) // between attempts to connect
#define TRIM_NS UINT64_C(1000000000) // from the end of a session; others end meanwhile, and one may follow

struct sdc_listener {
    struct sdc_loop *loop;
    const char *path; // that is connected to; NULL: watch listens
    struct sdc_timer retry;
    bool told; // that nobody listens there, since the last session
    const char *name;
    const struct sdc_listener_ops *ops;
    void *context;
    struct sdc_watch watch;
    void *session; // NULL: nobody is connected
    struct sdc_timer trim; // of what the last session has left free
    void (*closed)(void *context);
    void *closed_context;
};

static void finish_close(struct sdc_listener *listener)
{
    void (*closed)(void *context) = listener->closed;
    void *context = listener->closed_context;

    sdc_loop_timer_clear(listener->loop, &listener->trim);
    if (listener->path)
        sdc_loop_timer_clear(listener->loop, &listener->retry);
    else
        sdc_loop_unwatch(listener->loop, &listener->watch);
    listener->ops->free(listener->context);
    free(listener);
    closed(context);
}

static void run_trim(struct sdc_timer *timer)
{
    (void)timer;
    sdc_heap_trim();
}

void sdc_listener_ended(struct sdc_listener *listener)
{
    listener->session = NULL;
    if (sdc_heap_freed())
        sdc_loop_timer_set(listener->loop, &listener->trim, TRIM_NS);
    if (listener->closed)
        finish_close(listener);
    else if (listener->path)
        sdc_loop_timer_set(listener->loop, &listener->retry, RETRY_NS);
    else
        sdc_loop_rewatch(listener->loop, &listener->watch, SDC_READABLE);
}

static bool open_session(struct sdc_listener *listener, int fd)
{
    listener->session = listener->ops->open(listener->context, fd, listener);
    if (!listener->session)
        sdc_log_peer("%s: a client could not be let in: no memory", listener->name);
    else
        sdc_log(SDC_LOG_INFO, "%s: a client connects", listener->name);
    return listener->session != NULL;
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
    if (open_session(listener, fd))
        sdc_loop_rewatch(listener->loop, watch, 0);
}

static void dial(struct sdc_timer *timer)
{
    struct sdc_listener *listener = sdc_container(timer, struct sdc_listener, retry);
    int fd = sdc_socket_connect(listener->path, 0, NULL);

    if (fd >= 0 && sdc_fd_set_nonblocking(fd) < 0)
        sdc_fd_close(&fd);
    if (fd >= 0 && open_session(listener, fd)) {
        listener->told = false;
        return;
    }
    if (fd < 0 && !listener->told) {
        sdc_log(SDC_LOG_WARNING, "%s: nobody listens there (%s); trying again until somebody does", listener->name, strerror(-fd));
        listener->told = true;
    }
    sdc_loop_timer_set(listener->loop, &listener->retry, RETRY_NS);
}

int sdc_listener_dial_new(struct sdc_loop *loop, const char *path, const char *name, const struct sdc_listener_ops *ops, void *context,
                          struct sdc_listener **out, struct sdc_error *err)
{
    struct sdc_listener *listener = calloc(1, sizeof *listener);
    int rc = listener ? 0 : -ENOMEM;

    if (rc == 0) {
        *listener = (struct sdc_listener){
            .loop = loop, .path = path, .name = name, .ops = ops, .context = context, .retry = {.expired = dial},
            .trim = {.expired = run_trim}};
        rc = sdc_loop_timer_set(loop, &listener->retry, 0);
    }
    if (rc < 0) {
        ops->free(context);
        free(listener);
        return sdc_error_set(err, rc, SDC_FAULT_HOST, "no memory for a connection");
    }
    *out = listener;
    return 0;
}

int sdc_listener_resume(struct sdc_listener *listener, struct sdc_error *err)
{
    if (!listener->ops->resume)
        return 0;
    int rc = listener->ops->resume(listener->context, listener, &listener->session, err);
    if (!listener->session)
        return rc;
    sdc_loop_rewatch(listener->loop, &listener->watch, 0);
    if (rc == 0)
        sdc_log(SDC_LOG_INFO, "%s: goes on with a client", listener->name);
    return rc;
}

void sdc_listener_hold(struct sdc_listener *listener)
{
    sdc_loop_rewatch(listener->loop, &listener->watch, 0);
    if (listener->session)
        listener->ops->hold(listener->session);
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
        .trim = {.expired = run_trim},
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
    if (!listener->path)
        sdc_loop_rewatch(listener->loop, &listener->watch, 0);
    if (listener->session)
        listener->ops->end(listener->session);
    else
        finish_close(listener);
}
