// SPDX-License-Identifier: BSD-3-Clause
// A vfio-user connection from the inside: what its parts share. Nobody else includes this.
//
// It has one channel, or two: the socket that it was opened on, and the twin, if there is one, for what the
// server asks. At most one thread reads them (`reading`): it hands every reply to its call, does what the
// server asks of our memory, and wakes the others, so that any number of threads may wait at once.
//
// Locks, outermost first: a channel's send_lock (one message goes out at a time), memory_lock (private
// memory), lock (calls, questions, the failure).
#pragma once

#include "wire/vfio_user.h"

#include <sidecard/client.h>

#include <pthread.h>

enum {
    SDC_VFIO_CLIENT_FDS = 16,         // fds in one message, both ways
    SDC_VFIO_CLIENT_OWED_MAX = 65536, // answers to the server's commands that may wait to be sent
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

// An answer that the server waits for. What it reads is read when the answer goes out.
struct sdc_vfio_owed {
    uint16_t id;
    uint16_t command;
    int error; // errno, 0: none
    struct sdc_vfu_dma_access access;
};

// One socket. fd -1: there is none.
struct sdc_vfio_channel {
    int fd;
    const char *name; // in error texts
    struct sdc_vfio_incoming in;

    pthread_mutex_t send_lock;
    uint8_t *answer; // the answer that is on its way: bytes, of which some are sent. Under send_lock
    size_t answer_room;
    size_t answer_size;
    size_t answer_sent;

    struct sdc_vfio_owed *owed; // a ring of owed_room entries. Under the client's lock
    unsigned owed_room;
    unsigned owed_first;
    unsigned owed_count; // with the one that is on its way; 0: the server waits for nothing of ours here
};

enum { SDC_VFIO_CLIENT_MAIN, SDC_VFIO_CLIENT_TWIN, SDC_VFIO_CLIENT_CHANNELS };

// Memory of ours that the device reaches by messages.
struct sdc_vfio_private {
    uint64_t iova;
    uint64_t size;
    uint32_t flags; // enum sdc_vfio_map_flags
    uint8_t *host;
};

struct sdc_vfio_client {
    struct sdc_vfio_channel channels[SDC_VFIO_CLIENT_CHANNELS];
    char name[120]; // for error texts: the path
    char twin_name[140];
    uint32_t timeout_ms;
    uint32_t message_max; // bytes of a message that we take
    bool dma_count_32;
    struct sdc_vfio_client_session session;

    pthread_mutex_t lock;   // the fields from here to the blank line
    pthread_cond_t changed; // a reply came, the reader stopped reading, or the connection failed
    struct sdc_vfio_call *calls;
    uint16_t next_id;
    bool reading;
    struct sdc_error failure; // code 0 while the connection is good
    uint64_t strays;          // replies that nobody waited for
    bool serve_stop;

    pthread_mutex_t memory_lock;
    struct sdc_vfio_private *memory; // sorted by iova. Under memory_lock
    size_t memory_count;
    size_t memory_room;

    bool serving; // serve.c's thread runs. For who starts and stops it
    pthread_t server;
    int serve_fd; // eventfd that wakes it to stop
};

// --- channel.c: bytes and messages ---

// fd is the channel's from then on. -ENOMEM: then it is closed.
int sdc_vfio_channel_open(struct sdc_vfio_channel *channel, int fd, const char *name);
// No other thread uses it any more. Closes the socket and frees what is left.
void sdc_vfio_channel_close(struct sdc_vfio_channel *channel);
// Sends head, data and fds as one message's bytes, behind an answer that is on its way. Waits while the
// socket is full, until deadline_ns, and reads meanwhile, so that a server that is stuck on its own replies
// goes on. Under send_lock. 0, or a negative errno with the connection failed.
int sdc_vfio_channel_send(struct sdc_vfio_client *client, struct sdc_vfio_channel *channel,
                          const struct sdc_vfu_header *header, const struct sdc_vfio_command *command,
                          uint64_t deadline_ns);
// Sends what is left of the answer that is on its way, without waiting. 1: it is gone and no longer owed;
// 0: the socket is full; or a negative errno with the connection failed. Under send_lock.
int sdc_vfio_channel_send_answer(struct sdc_vfio_client *client, struct sdc_vfio_channel *channel);
// Receives what is there of the next message. 1: it is whole, in channel->in; 0: not yet; or a negative errno
// with *err filled: the connection cannot go on. By the thread that reads.
int sdc_vfio_channel_receive(struct sdc_vfio_client *client, struct sdc_vfio_channel *channel,
                             struct sdc_error *err);
// Makes room for the next message; closes fds and frees the payload if nobody took them.
void sdc_vfio_channel_next(struct sdc_vfio_channel *channel);

// --- calls.c: commands, replies, and who gets them ---

// Records why the connection has ended, once, and wakes who waits. Returns the first failure's code, in *err
// too.
int sdc_vfio_client_fail(struct sdc_vfio_client *client, const struct sdc_error *why, struct sdc_error *err);
// Becomes the thread that reads, if there is none and the connection is good. Under lock.
bool sdc_vfio_client_begin_reading(struct sdc_vfio_client *client);
void sdc_vfio_client_end_reading(struct sdc_vfio_client *client);
// Takes messages that have arrived, not without end. By the thread that reads.
void sdc_vfio_client_take(struct sdc_vfio_client *client);
// Takes messages that have arrived, if no other thread does. Does not wait.
void sdc_vfio_client_drain(struct sdc_vfio_client *client);
// Waits until there is something to take, an answer that is owed can be sent on, or wake_fd (-1: none) is
// readable; at most timeout_ms.
void sdc_vfio_client_wait_input(struct sdc_vfio_client *client, int wake_fd, int timeout_ms);
// Sends head (and data, fds) and waits for the reply: its payload has at least `least` bytes or the call
// fails with -EPROTO.
int sdc_vfio_client_do(struct sdc_vfio_client *client, const struct sdc_vfio_command *command, size_t least,
                       struct sdc_vfio_reply *reply, struct sdc_error *err);
// The same, and drops the reply.
int sdc_vfio_client_just_do(struct sdc_vfio_client *client, const struct sdc_vfio_command *command,
                            size_t least, struct sdc_error *err);

// --- answers.c: what the server asks of us ---

// Does the command in channel->in, or notes down that it is to be answered. Never waits. By the thread that
// reads.
int sdc_vfio_answers_take(struct sdc_vfio_client *client, struct sdc_vfio_channel *channel,
                          struct sdc_error *err);
// Sends answers that are owed, as long as the sockets take them. If another thread is sending, it does so
// once it is done: everyone who gives up a send lock comes here afterwards.
void sdc_vfio_answers_send(struct sdc_vfio_client *client);
// Whether answers are owed on a channel, and the connection is good.
bool sdc_vfio_answers_owed(struct sdc_vfio_client *client, const struct sdc_vfio_channel *channel);

// --- private.c: memory that the device reaches by messages. Any thread ---

// -EEXIST: it overlaps what is there; -ENOMEM.
int sdc_vfio_private_add(struct sdc_vfio_client *client, const struct sdc_vfio_private *memory);
// Nothing happens if there is none that is exactly this. Waits for an access that is under way.
void sdc_vfio_private_remove(struct sdc_vfio_client *client, uint64_t iova, uint64_t size);
void sdc_vfio_private_remove_all(struct sdc_vfio_client *client);
// All of it, or nothing: 0, -EFAULT (some of it is not there), -EACCES (some of it is not for that).
int sdc_vfio_private_read(struct sdc_vfio_client *client, uint64_t iova, void *to, uint64_t size);
int sdc_vfio_private_write(struct sdc_vfio_client *client, uint64_t iova, const void *from, uint64_t size);

// --- version.c ---

// Agrees on a version and fills client->session; opens the twin channel if the server has sent one.
int sdc_vfio_client_negotiate(struct sdc_vfio_client *client, const struct sdc_vfio_client_options *options,
                              struct sdc_error *err);
