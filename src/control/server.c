// SPDX-License-Identifier: BSD-3-Clause
#include "control/server.h"

#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/parse.h"
#include "control/keeper.h"
#include "os/fd.h"
#include "os/signals.h"
#include "transport/vfio_user/vfio_user.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define MILLISECOND UINT64_C(1000000)

static void end(struct sdc_server *server);

// A card at its socket.
struct outlet {
    struct sdc_server *server;
    struct outlet *next;
    struct sdc_card *card;
    char *path; // of the socket file, which is ours to remove; NULL: it was passed in
    char *dialled; // the path that is connected to; NULL: it is listened at
    char *name;
    struct sdc_socket_place place;
    int fd;
    struct sdc_listener *listener;
    struct sdc_vfu_record *record; // NULL: there is no keeper
};

struct sdc_server {
    struct sdc_loop *loops[SDC_LIMIT_THREADS];
    pthread_t threads[SDC_LIMIT_THREADS];
    unsigned loops_count;
    unsigned threads_count; // running; loops[0] has none of its own
    int signals_fd;
    struct sdc_watch signals;
    struct outlet *outlets;
    // Listeners that are not closed yet; zero: the loops may stop.
    unsigned open;
    bool ending;
    struct sdc_keeper *keeper;   // NULL: none
    struct sdc_timer stop_timer; // looks whether I/O has ended
    unsigned stop_ms;            // since the keeper said stop
    bool stopping;               // the cards were told
    bool left;
};

// --- sockets ---

static const struct {
    const char *prefix;
    enum sdc_card_shape shape;
} transports[] = {{"vfio-user:", SDC_CARD_PCI}, {"vhost-user:", SDC_CARD_VHOST}};
static const char fd_prefix[] = "fd:";

// What stands before a colon in what the user calls the socket is a transport, unless a slash says that it is part of a path. *rest is
// what stands behind it.
static int parse_transport(const char *socket, enum sdc_card_shape *shape, const char **rest, struct sdc_error *err)
{
    size_t word = strcspn(socket, ":/");

    *shape = SDC_CARD_PCI;
    *rest = socket;
    for (size_t i = 0; i < SDC_COUNT(transports); i++) {
        size_t length = strlen(transports[i].prefix);
        if (strncmp(socket, transports[i].prefix, length) != 0)
            continue;
        *shape = transports[i].shape;
        *rest = socket + length;
        return 0;
    }
    if (socket[word] != ':' || strncmp(socket, fd_prefix, sizeof fd_prefix - 1) == 0)
        return 0;
    return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "socket '%s': there is no transport '%.*s'; type PATH, vfio-user:PATH, "
                         "vhost-user:PATH or fd:N, and ./ before a path with a colon in it", socket, (int)word, socket);
}

// Opens what the user calls the socket, without the transport.
static int open_socket(struct outlet *outlet, const struct sdc_serve_options *options, const char *socket, struct sdc_error *err)
{
    uint64_t number;

    if (strncmp(socket, fd_prefix, sizeof fd_prefix - 1) == 0) {
        if (options->connect)
            return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--connect: '%s' is a listening socket; type vhost-user:PATH", socket);
        if (sdc_parse_number(socket + sizeof fd_prefix - 1, 0, INT32_MAX, &number) < 0)
            return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "socket '%s': write fd: and a number, as in fd:3", socket);
        outlet->fd = (int)number;
        return sdc_socket_adopt(outlet->fd, err);
    }
    if (*socket == '\0')
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "socket '%s': the path is missing", options->socket);
    if (options->connect) {
        outlet->dialled = strdup(socket);
        return outlet->dialled ? 0 : sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a path");
    }
    outlet->path = strdup(socket);
    if (!outlet->path)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a path");
    outlet->fd = sdc_socket_listen(socket, &options->listen, &outlet->place, err);
    if (outlet->fd < 0) {
        free(outlet->path);
        outlet->path = NULL;
        return outlet->fd;
    }
    return 0;
}

static void free_outlet(struct outlet *outlet)
{
    if (outlet->path)
        sdc_socket_unlisten(outlet->path, &outlet->place);
    sdc_fd_close(&outlet->fd);
    sdc_vfu_record_close(outlet->record);
    if (outlet->card)
        sdc_card_free(outlet->card);
    free(outlet->path);
    free(outlet->dialled);
    free(outlet->name);
    free(outlet);
}

static int start_listening(struct outlet *outlet, bool allow_file_memory, struct sdc_error *err)
{
    struct sdc_loop *home = outlet->server->loops[0];
    struct sdc_vfu_options vfu = {.name = outlet->name, .allow_file_memory = allow_file_memory, .record = outlet->record};
    struct sdc_vhu_options vhu = {.name = outlet->name, .path = outlet->dialled, .allow_file_memory = allow_file_memory};

    if (outlet->card->shape == SDC_CARD_VHOST)
        return sdc_vhu_listen(home, outlet->fd, outlet->card->vhost, &vhu, &outlet->listener, err);
    return sdc_vfu_listen(home, outlet->fd, outlet->card->pci, &vfu, &outlet->listener, err);
}

// --- the keeper ---

int sdc_server_keep(struct sdc_server *server, int fd, struct sdc_error *err)
{
    return sdc_keeper_open(fd, &server->keeper, err);
}

static int check_keepable(const struct outlet *outlet, const struct sdc_serve_options *options, struct sdc_error *err)
{
    if (outlet->card->shape != SDC_CARD_PCI || !outlet->card->pci->ops->state_needs)
        return sdc_error_set(err, -ENOTSUP, SDC_FAULT_USER, "socket '%s': with a keeper only vfio-user is served", options->socket);
    if (outlet->path)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "socket '%s': with a keeper it must outlast this process; type fd:N",
                             options->socket);
    if (strncmp(options->backend, "ram:", 4) == 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "backend '%s': with a keeper it must outlast this process; type the path of a "
                             "file", options->backend);
    return 0;
}

static int open_record(struct outlet *outlet, const struct sdc_serve_options *options, struct sdc_error *err)
{
    struct sdc_keeper *keeper = outlet->server->keeper;
    int rc = keeper ? check_keepable(outlet, options, err) : 0;

    if (rc == 0 && keeper)
        rc = sdc_vfu_record_open(outlet->card->pci, outlet->card->identity, sdc_keeper_slots(keeper), &outlet->record, err);
    return rc;
}

static bool all_idle(const struct sdc_server *server)
{
    for (const struct outlet *outlet = server->outlets; outlet; outlet = outlet->next) {
        if (outlet->card->pci->ops->busy(outlet->card->pci))
            return false;
    }
    return true;
}

static void look_whether_idle(struct sdc_timer *timer)
{
    struct sdc_server *server = sdc_container(timer, struct sdc_server, stop_timer);

    // What was begun (a queue's start, a new map) ends first.
    if (!server->stopping && all_idle(server)) {
        server->stopping = true;
        for (struct outlet *outlet = server->outlets; outlet; outlet = outlet->next)
            outlet->card->pci->ops->state_stop(outlet->card->pci);
    }
    // What does not end now is in the record, and will be done again.
    bool ended = server->stopping && all_idle(server);
    if (!ended && ++server->stop_ms <= SDC_LIMIT_STOP_MS && sdc_loop_timer_set(server->loops[0], timer, MILLISECOND) == 0)
        return;
    server->left = true;
    for (unsigned i = 0; i < server->loops_count; i++)
        sdc_loop_stop(server->loops[i]);
}

static void keeper_says_stop(void *context)
{
    struct sdc_server *server = context;

    if (server->ending)
        return;
    server->ending = true;
    for (struct outlet *outlet = server->outlets; outlet; outlet = outlet->next)
        sdc_listener_hold(outlet->listener);
    look_whether_idle(&server->stop_timer);
}

bool sdc_server_left(const struct sdc_server *server)
{
    return server->left;
}

// --- cards ---

int sdc_server_add(struct sdc_server *server, const struct sdc_serve_options *options, struct sdc_error *err)
{
    struct outlet *outlet = calloc(1, sizeof *outlet);
    if (!outlet)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a socket");

    enum sdc_card_shape shape = SDC_CARD_PCI;
    const char *socket = options->socket;
    *outlet = (struct outlet){.server = server, .place = {.lock_fd = -1}, .fd = -1, .name = strdup(options->socket)};
    int rc = outlet->name ? parse_transport(options->socket, &shape, &socket, err)
                          : sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a name");
    if (rc == 0 && options->connect && shape != SDC_CARD_VHOST)
        rc = sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--connect: only vhost-user front ends listen; type vhost-user:%s", socket);
    if (rc == 0)
        rc = sdc_card_new(options->device, options->backend, &options->card, shape, server->loops, server->loops_count,
                          &outlet->card, err);
    if (rc == 0)
        rc = open_socket(outlet, options, socket, err);
    if (rc == 0)
        rc = open_record(outlet, options, err);
    if (rc == 0)
        rc = start_listening(outlet, options->allow_file_memory, err);
    if (rc < 0) {
        free_outlet(outlet);
        return rc;
    }
    outlet->next = server->outlets;
    server->outlets = outlet;
    server->open++;
    rc = sdc_listener_resume(outlet->listener, err);
    if (rc < 0) {
        // What was begun is ended in order.
        end(server);
        sdc_loop_run(server->loops[0]);
    }
    return rc;
}

// --- running ---

static void listener_closed(void *context)
{
    struct sdc_server *server = ((struct outlet *)context)->server;

    if (--server->open > 0)
        return;
    sdc_loop_unwatch(server->loops[0], &server->signals);
    for (unsigned i = 0; i < server->loops_count; i++)
        sdc_loop_stop(server->loops[i]);
}

static void end(struct sdc_server *server)
{
    if (server->ending)
        return;
    server->ending = true;
    for (struct outlet *outlet = server->outlets; outlet; outlet = outlet->next)
        sdc_listener_close(outlet->listener, listener_closed, outlet);
}

static void signal_arrived(struct sdc_watch *watch, uint32_t events)
{
    struct sdc_server *server = sdc_container(watch, struct sdc_server, signals);
    int number;

    (void)events;
    while ((number = sdc_signals_take(watch->fd)) != 0) {
        if (number != SIGHUP) {
            end(server);
            continue;
        }
        for (struct outlet *outlet = server->outlets; outlet; outlet = outlet->next)
            outlet->card->refresh(outlet->card);
    }
}

static void keeper_gone(void *context)
{
    end(context);
}

static void *run_loop(void *loop)
{
    sdc_loop_run(loop);
    return NULL;
}

static void join(struct sdc_server *server)
{
    for (unsigned i = 1; i <= server->threads_count; i++)
        pthread_join(server->threads[i], NULL);
    server->threads_count = 0;
}

int sdc_server_run(struct sdc_server *server, struct sdc_error *err)
{
    struct sdc_keeper *keeper = server->keeper;
    int ready = keeper ? sdc_keeper_ready(keeper, server->loops[0], keeper_says_stop, keeper_gone, server, err) : 0;

    if (ready < 0)
        return ready;
    for (unsigned i = 1; i < server->loops_count; i++) {
        int rc = pthread_create(&server->threads[i], NULL, run_loop, server->loops[i]);
        if (rc != 0) {
            for (unsigned k = 1; k < i; k++)
                sdc_loop_stop(server->loops[k]);
            join(server);
            return sdc_error_set(err, -rc, SDC_FAULT_HOST, "thread %u of %u cannot be started: %s; try a smaller --threads", i,
                                 server->loops_count, strerror(rc));
        }
        server->threads_count = i;
    }
    sdc_loop_run(server->loops[0]);
    join(server);
    if (server->left)
        sdc_keeper_stopped(server->keeper);
    return 0;
}

// --- life ---

int sdc_server_new(unsigned threads, enum sdc_loop_kind kind, struct sdc_server **out, struct sdc_error *err)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, 0};
    struct sdc_server *server = calloc(1, sizeof *server);
    if (!server)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a server");

    server->signals_fd = sdc_signals_open(signals);
    if (server->signals_fd < 0) {
        int rc = server->signals_fd;
        free(server);
        return sdc_error_set(err, rc, SDC_FAULT_HOST, "signals cannot be read: %s", strerror(-rc));
    }
    for (unsigned i = 0; i < threads; i++) {
        int rc = sdc_loop_new(kind, &server->loops[i], err);
        if (rc < 0) {
            sdc_server_free(server);
            return rc;
        }
        kind = sdc_loop_kind(server->loops[0]);
        server->loops_count++;
    }
    server->stop_timer.expired = look_whether_idle;
    server->signals = (struct sdc_watch){.fd = server->signals_fd, .wanted = SDC_READABLE, .ready = signal_arrived};
    int rc = sdc_loop_watch(server->loops[0], &server->signals);
    if (rc < 0) {
        sdc_server_free(server);
        return sdc_error_set(err, rc, SDC_FAULT_HOST, "signals cannot be watched: %s", strerror(-rc));
    }
    *out = server;
    return 0;
}

void sdc_server_free(struct sdc_server *server)
{
    if (!server)
        return;
    if (!server->ending)
        end(server); // it never ran, so no session is there to wait for
    if (server->loops_count > 0)
        sdc_loop_unwatch(server->loops[0], &server->signals);
    while (server->outlets) {
        struct outlet *outlet = server->outlets;
        server->outlets = outlet->next;
        free_outlet(outlet);
    }
    sdc_keeper_close(server->keeper);
    for (unsigned i = 0; i < server->loops_count; i++)
        sdc_loop_free(server->loops[i]);
    sdc_fd_close(&server->signals_fd);
    free(server);
}
