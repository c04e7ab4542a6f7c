// SPDX-License-Identifier: BSD-3-Clause
// A vfio-user connection from the inside: what its parts (channel, calls, version, device) share. Nobody else
// includes this.
//
// One lock guards the list of calls and the failure; another lets one message out at a time. At most one
// thread reads the socket
// (`reading`): it hands every reply to its call and wakes the others, so that any number of threads may wait
// at once.
#pragma once

#include "wire/vfio_user.h"

#include <sidecard/client.h>

#include <pthread.h>

enum {
    SDC_VFIO_CLIENT_FDS = 16,        // fds in one message, both ways
    SDC_VFIO_CLIENT_OWED_MAX = 1024, // answers to the server's commands that may wait to be sent
};

// A command that was sent. It is on the client's list until its reply is there or nobody wants it any more.
struct sdc_vfio_call {
    struct sdc_vfio_call *next;
    uint16_t id;
    uint16_t command;
    bool done;                    // reply is filled; the call is off the list
    bool abandoned;               // nobody waits: free it when its reply comes
    struct sdc_vfu_header header; // of the reply
    struct sdc_vfio_reply reply;
};

// The message that is coming in, as far as it has. Belongs to the thread that reads.
struct sdc_vfio_incoming {
    struct sdc_vfu_header header;
    size_t got; // bytes, of header and payload
    uint8_t *payload;
    int fds[SDC_VFIO_CLIENT_FDS];
    unsigned fds_count;
};

struct sdc_vfio_client {
    int fd;
    char name[120]; // for error texts: the path
    uint32_t timeout_ms;
    uint32_t message_max; // bytes of a message that we take
    struct sdc_vfio_client_session session;

    pthread_mutex_t send_lock;
    pthread_mutex_t lock;   // the fields from here to the blank line
    pthread_cond_t changed; // a reply came, the reader stopped reading, or the connection failed
    struct sdc_vfio_call *calls;
    uint16_t next_id;
    bool reading;
    struct sdc_error failure;                             // code 0 while the connection is good
    struct sdc_vfu_header owed[SDC_VFIO_CLIENT_OWED_MAX]; // answers to the server's commands, not sent yet
    unsigned owed_count;
    uint64_t strays; // replies that nobody waited for

    struct sdc_vfio_incoming in;
};

// --- channel.c: bytes and messages ---

// Sends head, data and fds as one message's bytes. Waits while the socket is full, until deadline_ns, and
// reads meanwhile, so that a server that is stuck on its own replies goes on. Under send_lock. 0, or a
// negative errno with the connection failed.
int sdc_vfio_channel_send(struct sdc_vfio_client *client, const struct sdc_vfu_header *header,
                          const struct sdc_vfio_command *command, uint64_t deadline_ns);
// Receives what is there of the next message. 1: it is whole, in client->in; 0: not yet; or a negative errno
// with *err filled: the connection cannot go on. By the thread that reads.
int sdc_vfio_channel_receive(struct sdc_vfio_client *client, struct sdc_error *err);
// Makes room for the next message; closes fds and frees the payload if nobody took them.
void sdc_vfio_channel_next(struct sdc_vfio_client *client);

// --- calls.c: commands, replies, and who gets them ---

// Records why the connection has ended, once, and wakes who waits. Returns the first failure's code, in *err
// too.
int sdc_vfio_client_fail(struct sdc_vfio_client *client, const struct sdc_error *why, struct sdc_error *err);
// Takes every whole message that has arrived, if no other thread does. Does not wait.
void sdc_vfio_client_drain(struct sdc_vfio_client *client);
// "DMA_MAP" for 2; "command 99" is written to buffer for what has no name.
const char *sdc_vfio_command_name(uint16_t command, char buffer[16]);

// --- version.c ---

// Agrees on a version and fills client->session.
int sdc_vfio_client_negotiate(struct sdc_vfio_client *client, const struct sdc_vfio_client_options *options,
                              struct sdc_error *err);

// Sends head (and data, fds) and waits for the reply: its payload has at least `least` bytes or the call
// fails with -EPROTO.
int sdc_vfio_client_do(struct sdc_vfio_client *client, const struct sdc_vfio_command *command, size_t least,
                       struct sdc_vfio_reply *reply, struct sdc_error *err);
