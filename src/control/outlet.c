// SPDX-License-Identifier: BSD-3-Clause
#include "control/outlet.h"

#include "base/check.h"
#include "base/parse.h"
#include "control/reload.h"
#include "os/fd.h"
#include "os/socket.h"
#include "transport/common/virtio_core.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// --- sockets ---

static const struct {
    const char *prefix;
    enum sdc_card_shape shape;
} transports[] = {{"vfio-user:", SDC_CARD_PCI}, {"vhost-user:", SDC_CARD_VHOST}};
static const char fd_prefix[] = "fd:";

int sdc_outlet_transport(const char *socket, enum sdc_card_shape *shape, const char **rest, struct sdc_error *err)
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

// A socket that somebody else makes has its mode and owner already.
static int has_no_mode(const struct sdc_serve_options *options, struct sdc_error *err)
{
    const struct sdc_listen_options *listen = &options->listen;

    if (listen->mode == -1 && listen->owner == (uid_t)-1 && listen->group == (gid_t)-1)
        return 0;
    return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "socket-%s: '%s' is a socket that somebody else makes; leave it out",
                         listen->mode == -1 ? "owner" : "mode", options->socket);
}

// Opens what the user calls the socket, without the transport.
static int open_socket(struct sdc_outlet *outlet, const struct sdc_serve_options *options, const char *socket, struct sdc_error *err)
{
    bool is_fd = strncmp(socket, fd_prefix, sizeof fd_prefix - 1) == 0;
    uint64_t number;

    if ((is_fd || options->connect) && has_no_mode(options, err) < 0)
        return -EINVAL;
    if (is_fd) {
        if (options->connect)
            return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "connect: '%s' is a listening socket; type vhost-user:PATH", socket);
        if (sdc_parse_number(socket + sizeof fd_prefix - 1, 0, INT32_MAX, &number) < 0)
            return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "socket '%s': write fd: and a number, as in fd:3", socket);
        outlet->fd = (int)number;
        return sdc_socket_adopt(outlet->fd, err);
    }
    if (*socket == '\0')
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "socket '%s': the path is missing", options->socket);
    if (options->connect) {
        outlet->dialled = strdup(socket);
        return outlet->dialled ? sdc_socket_check_path(socket, err)
                               : sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a path");
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

void sdc_outlet_free(struct sdc_outlet *outlet)
{
    sdc_reload_unref(outlet->reload);
    if (outlet->path)
        sdc_socket_unlisten(outlet->path, &outlet->place);
    sdc_fd_close(&outlet->fd);
    sdc_vfu_record_close(outlet->record);
    if (outlet->card)
        sdc_card_free(outlet->card);
    free(outlet->fixed_loops);
    free(outlet->path);
    free(outlet->dialled);
    free(outlet->name);
    free(outlet);
}

// The loops that register guest memory are named to sessions, whose guests' memory they outlive.
static int keep_loops(struct sdc_outlet *outlet, struct sdc_loop *const *loops, unsigned count, struct sdc_error *err)
{
    if (!sdc_loop_takes_buffers(outlet->home))
        return 0;
    outlet->fixed_loops = malloc(count * sizeof(struct sdc_loop *));
    if (!outlet->fixed_loops)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a socket");
    memcpy(outlet->fixed_loops, loops, count * sizeof(struct sdc_loop *));
    outlet->fixed_loops_count = count;
    return 0;
}

int sdc_outlet_listen(struct sdc_outlet *outlet, struct sdc_error *err)
{
    struct sdc_loop *home = outlet->home;
    struct sdc_vfu_options vfu = {.name = outlet->name, .allow_file_memory = outlet->allow_file_memory, .record = outlet->record,
                                  .fixed_loops = outlet->fixed_loops, .fixed_loops_count = outlet->fixed_loops_count};
    struct sdc_vhu_options vhu = {.name = outlet->name, .path = outlet->dialled, .allow_file_memory = outlet->allow_file_memory,
                                  .fixed_loops = outlet->fixed_loops, .fixed_loops_count = outlet->fixed_loops_count};
    if (outlet->card->shape == SDC_CARD_VHOST)
        return sdc_vhu_listen(home, outlet->fd, outlet->card->vhost, &vhu, &outlet->listener, err);
    return sdc_vfu_listen(home, outlet->fd, outlet->card->pci, &vfu, &outlet->listener, err);
}

// --- the keeper ---

static int check_keepable(const struct sdc_outlet *outlet, const struct sdc_serve_options *options, struct sdc_error *err)
{
    if (outlet->card->shape != SDC_CARD_PCI)
        return sdc_error_set(err, -ENOTSUP, SDC_FAULT_USER, "socket '%s': with a keeper only vfio-user is served", options->socket);
    if (!outlet->card->pci->ops->state_needs)
        return sdc_error_set(err, -ENOTSUP, SDC_FAULT_USER, "socket '%s': another process cannot go on with %s yet, so it is not served "
                             "with a keeper", options->socket, options->device);
    if (outlet->path)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "socket '%s': with a keeper it must outlast this process; type fd:N",
                             options->socket);
    if (strncmp(sdc_stack_base(options->card.backends->name), "ram:", 4) == 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "backend '%s': with a keeper it must outlast this process; type the path of a "
                             "file", options->card.backends->name);
    return 0;
}

static int open_record(struct sdc_outlet *outlet, const struct sdc_serve_options *options, struct sdc_keeper *keeper, struct sdc_error *err)
{
    int rc = keeper ? check_keepable(outlet, options, err) : 0;

    if (rc == 0 && keeper)
        rc = sdc_vfu_record_open(outlet->card->pci, outlet->card->identity, sdc_keeper_slots(keeper), &outlet->record, err);
    return rc;
}

// --- life ---

void sdc_outlet_destroy(const struct sdc_outlet_device *device)
{
    if (device && device->pci && device->pci->ops && device->pci->ops->destroy)
        device->pci->ops->destroy(device->pci);
    if (device && device->virtio)
        sdc_virtio_destroy(device->virtio);
}

static int make_card(struct sdc_outlet *outlet, const struct sdc_serve_options *options, const struct sdc_outlet_device *device,
                     enum sdc_card_shape shape, struct sdc_loop *const *loops, unsigned loops_count, struct sdc_error *err)
{
    if (device && device->pci)
        return sdc_card_of_pci(device->pci, shape, loops[0], &outlet->card, err);
    if (device)
        return sdc_card_of_virtio(device->virtio, &options->card, shape, loops, loops_count, &outlet->card, err);
    return sdc_card_new(options->device, &options->card, shape, loops, loops_count, &outlet->card, err);
}

static int open_parts(struct sdc_outlet *outlet, const struct sdc_serve_options *options, const struct sdc_outlet_device *device,
                      struct sdc_loop *const *loops, unsigned loops_count, struct sdc_keeper *keeper, struct sdc_error *err)
{
    enum sdc_card_shape shape = SDC_CARD_PCI;
    const char *socket = options->socket;
    int rc = sdc_outlet_transport(options->socket, &shape, &socket, err);

    if (rc == 0 && options->connect && shape != SDC_CARD_VHOST)
        rc = sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "connect: only vhost-user front ends listen; type vhost-user:%s", socket);
    if (rc == 0)
        rc = make_card(outlet, options, device, shape, loops, loops_count, err);
    else
        sdc_outlet_destroy(device);
    if (rc == 0)
        rc = open_socket(outlet, options, socket, err);
    if (rc == 0)
        rc = open_record(outlet, options, keeper, err);
    if (rc == 0 && options->fixed_buffers)
        rc = keep_loops(outlet, loops, loops_count, err);
    return rc;
}

int sdc_outlet_open(const struct sdc_serve_options *options, const struct sdc_outlet_device *device, struct sdc_loop *const *loops,
                    unsigned loops_count, struct sdc_keeper *keeper, struct sdc_outlet **out, struct sdc_error *err)
{
    struct sdc_outlet *outlet = calloc(1, sizeof *outlet);
    char *name = strdup(options->socket);

    if (!outlet || !name) {
        sdc_outlet_destroy(device);
        free(name);
        free(outlet);
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a socket");
    }
    *outlet = (struct sdc_outlet){
        .home = loops[0], .place = {.lock_fd = -1}, .fd = -1, .name = name, .allow_file_memory = options->allow_file_memory};
    int rc = open_parts(outlet, options, device, loops, loops_count, keeper, err);
    if (rc < 0)
        sdc_outlet_free(outlet);
    else
        *out = outlet;
    return rc;
}
