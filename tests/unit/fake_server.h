// SPDX-License-Identifier: BSD-3-Clause
// A vfio-user server for tests of the client: a thread on the other end of a socket pair that answers VERSION
// and hands every other message to the test. It checks nothing and can be told to misbehave.
#pragma once

#include "wire/vfio_user.h"

#include <sidecard/client.h>

#include <pthread.h>
#include <stdatomic.h>

struct fake_message {
    struct sdc_vfu_header header;
    uint8_t payload[65536];
    size_t size; // of the payload
    int fds[32];
    int fds_count;
};

struct fake_server {
    int fd;
    pthread_t thread;
    const char *version_json; // NULL: a good one; "": no JSON at all
    bool own_version;         // the test answers VERSION, too
    // Called for each message but VERSION. False ends the server.
    bool (*message)(struct fake_server *server, struct fake_message *message);
    void *context;
    atomic_uint messages;
};

// Starts the server and opens a client on it. *client stays NULL when that fails.
int fake_open(struct fake_server *server, const struct sdc_vfio_client_options *options,
              struct sdc_vfio_client **client, struct sdc_error *err);
// Closes the client, joins the server.
void fake_close(struct fake_server *server, struct sdc_vfio_client *client);

void fake_send(struct fake_server *server, const void *bytes, size_t size, const int *fds, int fds_count);
// A good reply to message with size bytes of payload.
void fake_reply(struct fake_server *server, const struct fake_message *message, const void *payload,
                size_t size, const int *fds, int fds_count);
void fake_reply_error(struct fake_server *server, const struct fake_message *message, uint32_t error);
