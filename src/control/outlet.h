// SPDX-License-Identifier: BSD-3-Clause
// An outlet: a card at its socket. All of it belongs to the card's home loop, but where a comment says otherwise; before the loops run, to
// whoever makes them.
#pragma once

#include "control/keeper.h"
#include "control/options.h"
#include "transport/vfio_user/vfio_user.h"

#include <stdatomic.h>

struct sdc_reload;
struct sdc_server;

struct sdc_outlet {
    struct sdc_outlet *next; // the server's, under its lock
    struct sdc_server *server;
    const void *device; // that somebody else has made, as they know it; NULL: the card is of the command
    struct sdc_loop *home;
    struct sdc_card *card;
    char *path; // of the socket file, which is ours to remove; NULL: it was passed in
    char *dialled; // the path that is connected to; NULL: it is listened at
    char *name;
    struct sdc_socket_place place;
    int fd;
    struct sdc_listener *listener;
    struct sdc_vfu_record *record; // NULL: there is no keeper
    bool allow_file_memory;
    struct sdc_loop **fixed_loops; // those that register guest memory; NULL: none does
    unsigned fixed_loops_count;
    bool closing; // under the server's lock: close_post was sent
    bool leaves;  // likewise: it goes while the server runs
    unsigned visited; // loops, by leave_post
    // To home.
    struct sdc_post listen_post;
    struct sdc_post close_post;
    struct sdc_post leave_post; // round all loops, and home: none has anything of it under way any more
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

// Makes the card, of device, or, if that is NULL, by the options; with loops[0] for its home; and its socket. Of a device any thread may do
// so, whether the loops run or not. What options point to may go afterwards; the device is taken over, also when this fails. keeper: NULL
// for none. 0 or a negative errno with err filled.
int sdc_outlet_open(const struct sdc_serve_options *options, const struct sdc_outlet_device *device, struct sdc_loop *const *loops,
                    unsigned loops_count, struct sdc_keeper *keeper, struct sdc_outlet **outlet, struct sdc_error *err);
// Lets clients in. Home loop. -ENOMEM with err filled.
int sdc_outlet_listen(struct sdc_outlet *outlet, struct sdc_error *err);
// Destroys a device that nobody has taken over. NULL is fine.
void sdc_outlet_destroy(const struct sdc_outlet_device *device);
// Its listener is closed. No loop runs, or none but home has anything of it, and it is home's to free.
void sdc_outlet_free(struct sdc_outlet *outlet);
