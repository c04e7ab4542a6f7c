// SPDX-License-Identifier: BSD-3-Clause
#include "control/server.h"

#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "control/keeper.h"
#include "control/outlet.h"
#include "control/reload.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/signals.h"
#include "transport/common/pci_core.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define MILLISECOND UINT64_C(1000000)

static void end(struct sdc_server *server);
static void all_closed(struct sdc_post *post);

struct runner {
    struct sdc_server *server;
    struct sdc_loop *loop;
    pthread_t thread;
};

struct sdc_server {
    struct sdc_loop *loops[SDC_LIMIT_THREADS];
    struct runner runners[SDC_LIMIT_THREADS];
    unsigned loops_count;
    bool epoll_asked_for;
    bool said_unfixed; // that nothing can be registered
    unsigned runners_count; // threads that were made; loops[0] has none of its own
    pthread_mutex_t gate;   // held until all threads are made: no client is let in before
    bool all_made;          // under the gate
    int signals_fd;
    struct sdc_watch signals;
    pthread_mutex_t lock; // guards what devices change that come and go in any thread while the loops run: the next five
    struct sdc_outlet *outlets; // newest first
    unsigned outlets_count;
    unsigned homes; // loops that were made somebody's home, so far
    unsigned open;  // outlets that are not closed yet; zero: the loops may stop, when it ends
    bool ending;
    struct sdc_post closed_post; // to loops[0]: open is zero
    atomic_bool asked_to_stop;
    struct sdc_post stop_post; // to loops[0]: sdc_server_stop; sent once
    bool begun;                // it runs, or has run
    bool ended;                // and has come to its end
    const char *config;          // the file that the cards come from; NULL: none
    struct sdc_keeper *keeper;   // NULL: none
    struct sdc_timer stop_timer; // looks whether I/O has ended
    uint64_t stop_deadline_ns;   // the keeper said stop: so long requests may take to end
    bool stopping;               // the cards were told
    bool left;
};

// --- the keeper: the one card that it has was there before the loops ran ---

int sdc_server_keep(struct sdc_server *server, int fd, struct sdc_error *err)
{
    return sdc_keeper_open(fd, &server->keeper, err);
}

static bool all_idle(const struct sdc_server *server)
{
    for (const struct sdc_outlet *outlet = server->outlets; outlet; outlet = outlet->next) {
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
        for (struct sdc_outlet *outlet = server->outlets; outlet; outlet = outlet->next)
            outlet->card->pci->ops->state_stop(outlet->card->pci);
    }
    // What does not end now is in the record, and will be done again.
    bool ended = server->stopping && all_idle(server);
    if (!ended && sdc_clock_ns() < server->stop_deadline_ns && sdc_loop_timer_set(server->loops[0], timer, MILLISECOND) == 0)
        return;
    if (!ended)
        sdc_log(SDC_LOG_INFO, "requests have not ended after %u ms; they are left to the next process", SDC_LIMIT_STOP_MS);
    server->left = true;
    for (unsigned i = 0; i < server->loops_count; i++)
        sdc_loop_stop(server->loops[i]);
}

static void keeper_says_stop(void *context)
{
    struct sdc_server *server = context;

    pthread_mutex_lock(&server->lock);
    bool late = server->ending;
    server->ending = true;
    pthread_mutex_unlock(&server->lock);
    if (late)
        return;
    server->stop_deadline_ns = sdc_clock_ns() + SDC_LIMIT_STOP_MS * MILLISECOND;
    for (struct sdc_outlet *outlet = server->outlets; outlet; outlet = outlet->next)
        sdc_listener_hold(outlet->listener);
    look_whether_idle(&server->stop_timer);
}

bool sdc_server_left(const struct sdc_server *server)
{
    return server->left;
}

// --- cards ---

// Home. The last of the loops to be asked: none of them has anything of the outlet under way any more.
static void forget(struct sdc_outlet *outlet)
{
    struct sdc_server *server = outlet->server;
    struct sdc_outlet **link = &server->outlets;

    pthread_mutex_lock(&server->lock);
    while (*link != outlet)
        link = &(*link)->next;
    *link = outlet->next;
    server->outlets_count--;
    pthread_mutex_unlock(&server->lock);
    sdc_outlet_free(outlet);
}

// What was posted on a loop before this has run, and so has what was deferred in that turn.
static void visit_loops(struct sdc_post *post)
{
    struct sdc_outlet *outlet = sdc_container(post, struct sdc_outlet, leave_post);
    struct sdc_server *server = outlet->server;
    unsigned visited = outlet->visited++;

    if (visited < server->loops_count)
        sdc_loop_post(server->loops[visited], post);
    else if (visited == server->loops_count || atomic_load(&outlet->refreshing))
        sdc_loop_post(outlet->home, post);
    else
        forget(outlet);
}

// Home.
static void outlet_closed(void *context)
{
    struct sdc_outlet *outlet = context;
    struct sdc_server *server = outlet->server;

    pthread_mutex_lock(&server->lock);
    bool leaves = outlet->leaves;
    bool last = --server->open == 0 && server->ending;
    pthread_mutex_unlock(&server->lock);
    outlet->listener = NULL;
    if (leaves) {
        if (outlet->card->shape == SDC_CARD_PCI)
            sdc_pci_unplug(outlet->card->pci);
        sdc_loop_post(outlet->home, &outlet->leave_post);
    }
    if (last)
        sdc_loop_post(server->loops[0], &server->closed_post);
}

static void close_outlet(struct sdc_post *post)
{
    struct sdc_outlet *outlet = sdc_container(post, struct sdc_outlet, close_post);

    if (outlet->listener)
        sdc_listener_close(outlet->listener, outlet_closed, outlet);
    else
        outlet_closed(outlet);
}

// Under the lock.
static void send_close(struct sdc_outlet *outlet)
{
    if (!outlet->closing)
        sdc_loop_post(outlet->home, &outlet->close_post);
    outlet->closing = true;
}

// Home. Without memory for a listener the device goes again.
static void listen_outlet(struct sdc_post *post)
{
    struct sdc_outlet *outlet = sdc_container(post, struct sdc_outlet, listen_post);
    struct sdc_error err;

    if (sdc_outlet_listen(outlet, &err) == 0)
        return;
    sdc_log(SDC_LOG_ERROR, "socket '%s': nobody is let in: %s", outlet->name, err.text);
    pthread_mutex_lock(&outlet->server->lock);
    outlet->leaves = true;
    send_close(outlet);
    pthread_mutex_unlock(&outlet->server->lock);
}

// Home. Takes over a reference.
static void reload_card(struct sdc_outlet *outlet, struct sdc_reload *reload)
{
    const struct sdc_serve_options *options = sdc_reload_find(reload, outlet->name);
    struct sdc_error err = {0};

    if (!options || strcmp(options->device, outlet->card->type->name) != 0)
        sdc_log(SDC_LOG_WARNING, "socket '%s': the configuration file has no %s there any more; it is served until the server is started "
                "again", outlet->name, outlet->card->type->name);
    else if (outlet->card->reload && outlet->card->reload(outlet->card, &options->card, &err) < 0)
        sdc_log(SDC_LOG_ERROR, "socket '%s': %s", outlet->name, err.text);
    sdc_reload_unref(reload);
}

static void refresh_outlet(struct sdc_post *post)
{
    struct sdc_outlet *outlet = sdc_container(post, struct sdc_outlet, refresh_post);

    atomic_store(&outlet->refreshing, false);
    struct sdc_reload *reload = atomic_exchange(&outlet->reload, NULL);
    if (reload)
        reload_card(outlet, reload);
    outlet->card->refresh(outlet->card);
}

// Memory is registered with io_uring only. Who asked for epoll is told that this makes no sense; where the host refuses io_uring the card
// is served all the same.
static int check_fixed_buffers(struct sdc_server *server, const struct sdc_serve_options *options, struct sdc_error *err)
{
    if (!options->fixed_buffers || sdc_loop_takes_buffers(server->loops[0]))
        return 0;
    if (server->epoll_asked_for)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "socket '%s': fixed-buffers: memory is registered with io_uring; leave out "
                             "one of fixed-buffers and loop=epoll", options->socket);
    if (!server->said_unfixed)
        sdc_log(SDC_LOG_WARNING, "socket '%s': fixed-buffers: io_uring is not permitted here, so no memory is registered with it",
                options->socket);
    server->said_unfixed = true;
    return 0;
}

// Card n has its home on thread n, and its queues on those from there on, so that many cards of few queues spread over all.
static int open_outlet(struct sdc_server *server, const struct sdc_serve_options *options, const struct sdc_outlet_device *device,
                       struct sdc_outlet **out, struct sdc_error *err)
{
    struct sdc_loop *loops[SDC_LIMIT_THREADS];
    struct sdc_outlet *outlet;

    pthread_mutex_lock(&server->lock);
    unsigned home = server->homes++;
    pthread_mutex_unlock(&server->lock);
    for (unsigned i = 0; i < server->loops_count; i++)
        loops[i] = server->loops[(home + i) % server->loops_count];
    int rc = sdc_outlet_open(options, device, loops, server->loops_count, server->keeper, &outlet, err);
    if (rc < 0)
        return rc;
    outlet->server = server;
    outlet->listen_post.run = listen_outlet;
    outlet->close_post.run = close_outlet;
    outlet->leave_post.run = visit_loops;
    outlet->refresh_post.run = refresh_outlet;
    *out = outlet;
    return 0;
}

// Under the lock.
static void hang_in(struct sdc_server *server, struct sdc_outlet *outlet)
{
    outlet->next = server->outlets;
    server->outlets = outlet;
    server->outlets_count++;
    server->open++;
}

int sdc_server_add(struct sdc_server *server, const struct sdc_serve_options *options, struct sdc_error *err)
{
    struct sdc_outlet *outlet;

    if (server->keeper && server->outlets)
        return sdc_error_set(err, -ENOTSUP, SDC_FAULT_USER, "socket '%s': with a keeper there is one card in a process; start one for each",
                             options->socket);
    int rc = check_fixed_buffers(server, options, err);
    if (rc == 0)
        rc = open_outlet(server, options, NULL, &outlet, err);
    if (rc < 0)
        return rc;
    rc = sdc_outlet_listen(outlet, err);
    if (rc < 0) {
        sdc_outlet_free(outlet);
        return rc;
    }
    pthread_mutex_lock(&server->lock);
    hang_in(server, outlet);
    pthread_mutex_unlock(&server->lock);
    rc = sdc_listener_resume(outlet->listener, err);
    if (rc < 0) {
        // What was begun is ended in order.
        end(server);
        sdc_loop_run(server->loops[0]);
    }
    return rc;
}

// --- devices that somebody else has made ---

static struct sdc_outlet *outlet_of(const struct sdc_server *server, const void *device)
{
    struct sdc_outlet *outlet = server->outlets;

    while (outlet && outlet->device != device)
        outlet = outlet->next;
    return outlet;
}

// A device that is somebody's already is not this server's to destroy.
static int check_device(struct sdc_server *server, const char *socket, const struct sdc_outlet_device *device, const void *known,
                        struct sdc_error *err)
{
    if (!known)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "there is no device to plug in, but NULL");
    pthread_mutex_lock(&server->lock);
    bool plugged = outlet_of(server, known) || (device->pci && sdc_pci_loop(device->pci));
    pthread_mutex_unlock(&server->lock);
    if (plugged)
        return sdc_error_set(err, -EBUSY, SDC_FAULT_USER, "socket '%s': the device is plugged in already", socket ? socket : "NULL");
    return 0;
}

static void take_options(struct sdc_serve_options *options, const char *socket, const struct sdc_socket_options *said)
{
    sdc_serve_options_init(options);
    options->socket = socket;
    if (!said)
        return;
    options->listen.mode = said->mode ? (int)(said->mode & 0777) : options->listen.mode;
    options->allow_file_memory = said->allow_file_memory;
    options->connect = said->connect;
    options->card.poll = said->always_poll ? SDC_POLL_ALWAYS : said->never_poll ? SDC_POLL_NEVER : SDC_POLL_ADAPTIVE;
    options->card.poll_max_us = (uint32_t)sdc_min(said->poll_max_us, SDC_LIMIT_POLL_MAX_US);
}

// What can fail is done here, in whichever thread; what the loops have to do with it is posted.
static int add_device(struct sdc_server *server, const char *socket, const struct sdc_outlet_device *device,
                      const struct sdc_socket_options *said, struct sdc_error *err)
{
    const void *known = device->pci ? (const void *)device->pci : device->virtio;
    struct sdc_serve_options options;
    struct sdc_outlet *outlet;

    int rc = check_device(server, socket, device, known, err);
    if (rc < 0)
        return rc;
    if (!socket) {
        sdc_outlet_destroy(device);
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "there is no socket to plug the device into, but NULL");
    }
    take_options(&options, socket, said);
    rc = open_outlet(server, &options, device, &outlet, err);
    if (rc < 0)
        return rc;
    outlet->device = known;
    pthread_mutex_lock(&server->lock);
    bool late = server->ending;
    if (!late) {
        hang_in(server, outlet);
        sdc_loop_post(outlet->home, &outlet->listen_post);
    }
    pthread_mutex_unlock(&server->lock);
    if (!late)
        return 0;
    sdc_outlet_free(outlet);
    return sdc_error_set(err, -ECANCELED, SDC_FAULT_USER, "socket '%s': the server has been stopped", socket);
}

int sdc_server_add_pci(struct sdc_server *server, const char *socket, struct sdc_pci_device *device,
                       const struct sdc_socket_options *options, struct sdc_error *err)
{
    return add_device(server, socket, &(struct sdc_outlet_device){.pci = device}, options, err);
}

int sdc_server_add_virtio(struct sdc_server *server, const char *socket, struct sdc_virtio_device *device,
                          const struct sdc_socket_options *options, struct sdc_error *err)
{
    return add_device(server, socket, &(struct sdc_outlet_device){.virtio = device}, options, err);
}

static int remove_device(struct sdc_server *server, const void *device, struct sdc_error *err)
{
    pthread_mutex_lock(&server->lock);
    struct sdc_outlet *outlet = device ? outlet_of(server, device) : NULL;
    bool stays = outlet && !outlet->closing;
    if (stays) {
        outlet->leaves = true;
        send_close(outlet);
    }
    pthread_mutex_unlock(&server->lock);
    return stays ? 0 : sdc_error_set(err, -ENOENT, SDC_FAULT_USER, "the device is not plugged in here, or goes already");
}

int sdc_server_remove_pci(struct sdc_server *server, const struct sdc_pci_device *device, struct sdc_error *err)
{
    return remove_device(server, device, err);
}

int sdc_server_remove_virtio(struct sdc_server *server, const struct sdc_virtio_device *device, struct sdc_error *err)
{
    return remove_device(server, device, err);
}

void sdc_server_follow(struct sdc_server *server, const char *config)
{
    server->config = config;
}

// --- running ---

static void all_closed(struct sdc_post *post)
{
    struct sdc_server *server = sdc_container(post, struct sdc_server, closed_post);

    sdc_loop_unwatch(server->loops[0], &server->signals);
    for (unsigned i = 0; i < server->loops_count; i++)
        sdc_loop_stop(server->loops[i]);
}

static void end(struct sdc_server *server)
{
    pthread_mutex_lock(&server->lock);
    bool first = !server->ending;
    bool none = first && server->open == 0;
    server->ending = true;
    for (struct sdc_outlet *outlet = first ? server->outlets : NULL; outlet; outlet = outlet->next)
        send_close(outlet);
    pthread_mutex_unlock(&server->lock);
    if (none)
        all_closed(&server->closed_post);
}

// A file that is wrong changes nothing. All cards are the file's: none comes or goes.
static void read_again(struct sdc_server *server)
{
    struct sdc_reload *reload;
    struct sdc_error err;

    if (sdc_reload_read(server->config, &reload, &err) < 0) {
        sdc_log(SDC_LOG_ERROR, "%s; all cards stay as they are", err.text);
        return;
    }
    if (sdc_reload_cards(reload) > server->outlets_count)
        sdc_log(SDC_LOG_WARNING, "%s: cards that were added are served when the server is started again", server->config);
    for (struct sdc_outlet *outlet = server->outlets; outlet; outlet = outlet->next)
        sdc_reload_unref(atomic_exchange(&outlet->reload, sdc_reload_ref(reload)));
    sdc_reload_unref(reload);
}

static void refresh_all(struct sdc_server *server)
{
    pthread_mutex_lock(&server->lock);
    for (struct sdc_outlet *outlet = server->outlets; outlet; outlet = outlet->next) {
        if (!outlet->leaves && !atomic_exchange(&outlet->refreshing, true))
            sdc_loop_post(outlet->home, &outlet->refresh_post);
    }
    pthread_mutex_unlock(&server->lock);
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
        if (server->config)
            read_again(server);
        refresh_all(server);
    }
}

static void told_to_stop(struct sdc_post *post)
{
    end(sdc_container(post, struct sdc_server, stop_post));
}

// What it calls may be called from a signal handler: atomic words without locks, and a write to an eventfd.
void sdc_server_stop(struct sdc_server *server)
{
    int before = errno;

    if (!atomic_exchange(&server->asked_to_stop, true))
        sdc_loop_post(server->loops[0], &server->stop_post);
    errno = before;
}

static void keeper_gone(void *context)
{
    end(context);
}

static void *run_loop(void *context)
{
    struct runner *runner = context;

    pthread_mutex_lock(&runner->server->gate);
    bool run = runner->server->all_made;
    pthread_mutex_unlock(&runner->server->gate);
    if (run)
        sdc_loop_run(runner->loop);
    return NULL;
}

static void join(struct sdc_server *server)
{
    for (unsigned i = 0; i < server->runners_count; i++)
        pthread_join(server->runners[i].thread, NULL);
    server->runners_count = 0;
}

static int start_threads(struct sdc_server *server, struct sdc_error *err)
{
    int rc = 0;

    pthread_mutex_lock(&server->gate);
    for (unsigned i = 1; i < server->loops_count && rc == 0; i++) {
        struct runner *runner = &server->runners[server->runners_count];
        *runner = (struct runner){.server = server, .loop = server->loops[i]};
        rc = pthread_create(&runner->thread, NULL, run_loop, runner);
        server->runners_count += rc == 0;
    }
    server->all_made = rc == 0;
    unsigned made = server->runners_count;
    pthread_mutex_unlock(&server->gate);
    if (rc == 0)
        return 0;
    join(server);
    return sdc_error_set(err, -rc, SDC_FAULT_HOST, "thread %u of %u cannot be started: %s; try fewer threads", made + 2,
                         server->loops_count, strerror(rc));
}

static int begin(struct sdc_server *server, struct sdc_error *err)
{
    struct sdc_keeper *keeper = server->keeper;
    int rc = 0;

    if (server->begun)
        return 0;
    if (keeper)
        rc = sdc_keeper_ready(keeper, server->loops[0], keeper_says_stop, keeper_gone, server, err);
    if (rc == 0)
        rc = start_threads(server, err);
    server->begun = rc == 0;
    return rc;
}

int sdc_server_run(struct sdc_server *server, struct sdc_error *err)
{
    if (server->ended)
        return sdc_error_set(err, -ECANCELED, SDC_FAULT_USER, "the server has been stopped; make another one");
    int rc = begin(server, err);
    if (rc < 0)
        return rc;
    sdc_loop_run(server->loops[0]);
    join(server);
    server->ended = true;
    if (server->left)
        sdc_keeper_stopped(server->keeper);
    return 0;
}

int sdc_server_fd(struct sdc_server *server, struct sdc_error *err)
{
    int rc = begin(server, err);

    return rc < 0 ? rc : sdc_loop_fd(server->loops[0], err);
}

int sdc_server_process(struct sdc_server *server, struct sdc_error *err)
{
    if (server->ended)
        return SDC_SERVER_ENDED;
    int rc = sdc_server_fd(server, err);
    if (rc < 0)
        return rc;
    switch (sdc_loop_process(server->loops[0])) {
    case SDC_LOOP_WAITS:
        return SDC_SERVER_WAITS;
    case SDC_LOOP_GOES_ON:
        return SDC_SERVER_GOES_ON;
    default:
        join(server);
        server->ended = true;
        return SDC_SERVER_ENDED;
    }
}

// --- life ---

static int watch_signals(struct sdc_server *server, const int *signals, struct sdc_error *err)
{
    server->signals_fd = sdc_signals_open(signals);
    if (server->signals_fd < 0)
        return sdc_error_set(err, server->signals_fd, SDC_FAULT_HOST, "signals cannot be read: %s", strerror(-server->signals_fd));
    server->signals = (struct sdc_watch){.fd = server->signals_fd, .wanted = SDC_READABLE, .ready = signal_arrived};
    int rc = sdc_loop_watch(server->loops[0], &server->signals);
    return rc < 0 ? sdc_error_set(err, rc, SDC_FAULT_HOST, "signals cannot be watched: %s", strerror(-rc)) : 0;
}

static int make_loops(struct sdc_server *server, unsigned threads, enum sdc_loop_kind kind, struct sdc_error *err)
{
    if (threads > SDC_LIMIT_THREADS)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "threads: %u, at most %u", threads, SDC_LIMIT_THREADS);
    for (unsigned i = 0; i < threads; i++) {
        int rc = sdc_loop_new(kind, &server->loops[i], err);
        if (rc < 0)
            return rc;
        kind = sdc_loop_kind(server->loops[0]);
        server->loops_count++;
    }
    return 0;
}

int sdc_server_new_with(const struct sdc_server_options *options, const int *signals, struct sdc_server **out, struct sdc_error *err)
{
    struct sdc_server *server = calloc(1, sizeof *server);
    if (!server)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a server");

    pthread_mutex_init(&server->gate, NULL);
    pthread_mutex_init(&server->lock, NULL);
    server->signals_fd = -1;
    server->epoll_asked_for = options->loop == SDC_LOOP_EPOLL;
    server->stop_timer.expired = look_whether_idle;
    server->closed_post.run = all_closed;
    server->stop_post.run = told_to_stop;
    int rc = make_loops(server, options->threads ? options->threads : 1, options->loop, err);
    if (rc == 0 && signals)
        rc = watch_signals(server, signals, err);
    if (rc < 0)
        sdc_server_free(server);
    else
        *out = server;
    return rc;
}

int sdc_server_new(const struct sdc_server_options *options, struct sdc_server **server, struct sdc_error *err)
{
    static const int signals[] = {SIGTERM, SIGINT, 0};
    static const struct sdc_server_options defaults = {0};

    if (!options)
        options = &defaults;
    return sdc_server_new_with(options, options->take_signals ? signals : NULL, server, err);
}

// Sessions may live in the caller's loop: they end in order.
static void end_what_lives(struct sdc_server *server)
{
    if (server->begun && !server->ended) {
        if (sdc_loop_inside() || sdc_loop_is_anothers(server->loops[0]))
            sdc_bug("sdc_server_free of a server that runs, inside a callback or in another thread: that is what sdc_server_stop is for");
        sdc_server_stop(server);
        sdc_loop_run(server->loops[0]);
        join(server);
        return;
    }
    // It never ran, so no session is there to wait for.
    for (struct sdc_outlet *outlet = server->ending ? NULL : server->outlets; outlet; outlet = outlet->next) {
        if (outlet->listener)
            sdc_listener_close(outlet->listener, outlet_closed, outlet);
    }
}

void sdc_server_free(struct sdc_server *server)
{
    if (!server)
        return;
    end_what_lives(server);
    if (server->loops_count > 0)
        sdc_loop_unwatch(server->loops[0], &server->signals);
    while (server->outlets) {
        struct sdc_outlet *outlet = server->outlets;
        server->outlets = outlet->next;
        sdc_outlet_free(outlet);
    }
    sdc_keeper_close(server->keeper);
    for (unsigned i = 0; i < server->loops_count; i++)
        sdc_loop_free(server->loops[i]);
    sdc_fd_close(&server->signals_fd);
    pthread_mutex_destroy(&server->gate);
    pthread_mutex_destroy(&server->lock);
    free(server);
}
