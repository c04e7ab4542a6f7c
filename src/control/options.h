// SPDX-License-Identifier: BSD-3-Clause
// What can be said about a server and its cards, and the tables by which the command line and configuration files say it. Names are
// the same in both. A device's own options are in its row of the registry (control/card.c).
#pragma once

#include "base/log.h"
#include "base/option.h"
#include "control/card.h"
#include "loop/loop.h"
#include "os/socket.h"

// The process.
struct sdc_process_options {
    uint32_t threads;
    enum sdc_loop_kind loop;
    enum sdc_log_level log_level;
};

// A card and the socket that it is reached by. Texts are the caller's.
struct sdc_serve_options {
    const char *socket; // PATH, vfio-user:PATH, or fd:N: a listening socket that was passed in
    const char *device;
    struct sdc_card_options card;
    struct sdc_listen_options listen;
    bool allow_file_memory;
    bool fixed_buffers; // guest memory is registered with io_uring
    bool connect; // to a vhost-user front end that listens at the socket
};

// What holds where nothing is said.
void sdc_process_options_init(struct sdc_process_options *options);
void sdc_serve_options_init(struct sdc_serve_options *options);

extern const struct sdc_options sdc_process_options;  // struct sdc_process_options
extern const struct sdc_options sdc_serve_options;    // struct sdc_serve_options
extern const struct sdc_options sdc_backend_options;  // struct sdc_card_backend

// Fills in groups of all devices' options, at most max, and returns how many. Those of `device` are about *values; so are all when there is
// no such device, which is for sdc_card_new to say.
unsigned sdc_device_options(const char *device, struct sdc_card_options *values, struct sdc_option_group *groups, unsigned max);
