// SPDX-License-Identifier: BSD-3-Clause
// An outlet: a card at its socket. All of it belongs to the card's home loop; before the loops run, to whoever makes them.
#pragma once

#include "control/keeper.h"
#include "control/options.h"
#include "transport/vfio_user/vfio_user.h"

#include <stdatomic.h>

struct sdc_reload;
struct sdc_server;

struct sdc_outlet {
    struct sdc_outlet *next;
    struct sdc_server *server;
    struct sdc_loop *home;
    struct sdc_card *card;
    char *path; // of the socket file, which is ours to remove; NULL: it was passed in
    char *dialled; // the path that is connected to; NULL: it is listened at
    char *name;
    struct sdc_socket_place place;
    int fd;
    struct sdc_listener *listener;
    struct sdc_vfu_record *record; // NULL: there is no keeper
    // From the server's thread to home.
    struct sdc_post close_post;
    struct sdc_post refresh_post;
    atomic_bool refreshing; // refresh_post is on its way
    struct sdc_reload *_Atomic reload; // what the card is to become: taken by refresh_post. NULL: it stays as it is
};

// What stands before a colon in what the user calls a socket is a transport, unless a slash says that it is part of a path. *rest is what
// stands behind it. 0, or -EINVAL with err filled: there is no such transport.
int sdc_outlet_transport(const char *socket, enum sdc_card_shape *shape, const char **rest, struct sdc_error *err);

// A device that somebody else has made: one of the two.
struct sdc_outlet_device {
    struct sdc_pci_device *pci;
    struct sdc_virtio_device *virtio;
};

// Makes the card, of device, or, if that is NULL, by the options; with loops[0] for its home; and listens. What options point to may go
// afterwards; the device is taken over, also when this fails. keeper: NULL for none. 0 or a negative errno with err filled.
int sdc_outlet_open(const struct sdc_serve_options *options, const struct sdc_outlet_device *device, struct sdc_loop *const *loops,
                    unsigned loops_count, struct sdc_keeper *keeper, struct sdc_outlet **outlet, struct sdc_error *err);
// Destroys a device that nobody has taken over. NULL is fine.
void sdc_outlet_destroy(const struct sdc_outlet_device *device);
// Its listener is closed, no loop runs.
void sdc_outlet_free(struct sdc_outlet *outlet);
