// SPDX-License-Identifier: BSD-3-Clause
// A vhost-user connection from the inside: what its parts (channel, client, iotlb, memory, vrings) share. Nobody else
// includes this.
//
// Replies have no ids, they come in the order of the requests: one lock is held from a request to its reply.
#pragma once

#include "wire/vhost_user.h"

#include <sidecard/vhost.h>

#include <pthread.h>

// A message as it is sent, and as it has been received.
struct sdc_vhost_message {
    struct sdc_vhost_header header;
    uint8_t payload[sizeof(struct sdc_vhost_config) + SDC_VHOST_CONFIG_MAX +
                    SDC_VHOST_MEM_TABLE_MAX * sizeof(struct sdc_vhost_region)];
    int fds[SDC_VHOST_FDS_MAX];
    unsigned fds_count;
};

enum { SDC_VHOST_CLIENT_REGIONS = 512 }; // that we show a back end at most

struct sdc_vhost_client {
    char name[120]; // for error texts: the path
    char *path;     // NULL: it was made from an fd
    uint32_t timeout_ms;
    uint64_t without; // protocol features that are not to be used
    uint64_t accepted; // virtio features, as they were set
    struct sdc_vhost_client_session session;

    pthread_mutex_t lock; // all below
    int fd;
    int channel_fd;       // our end of the back end's channel, -1: it has none
    int waiter;           // for input on both
    int config_fd;        // the caller's eventfd, or -1
    bool in_band;
    int call_fds[SDC_VHOST_VRING_INDEX + 1]; // in band: the callers' eventfds, or -1
    struct sdc_error failure; // code 0 while the connection is good
    struct sdc_vhost_region *regions; // that the back end has been shown
    int *region_fds;                  // ours
    unsigned regions_count;
    struct sdc_vhost_client_entry *entries; // translations, sorted by iova
    unsigned entries_count;
    struct sdc_vhost_message missed; // a question for one of them, that was not answered yet
    bool missed_pending;
};

// --- channel.c: messages, under lock ---

// Sends request, with fds that stay the caller's. Waits while the socket is full. 0, or the connection's failure.
int sdc_vhost_send(struct sdc_vhost_client *client, const struct sdc_vhost_message *request, struct sdc_error *err);
// Waits for the reply to request; its fds are the caller's. Serves the back end's channel meanwhile. 0, or the
// connection's failure.
int sdc_vhost_receive(struct sdc_vhost_client *client, uint32_t request, struct sdc_vhost_message *reply,
                      struct sdc_error *err);
// Records why the connection has ended, once. Returns the first failure's code, in *err too.
int sdc_vhost_fail(struct sdc_vhost_client *client, const struct sdc_error *why, struct sdc_error *err);
// The failure, or 0.
int sdc_vhost_failed(const struct sdc_vhost_client *client, struct sdc_error *err);
// Whether the back end is still there: 0, or the connection's failure.
int sdc_vhost_look(struct sdc_vhost_client *client, struct sdc_error *err);
// Answers what the back end has asked on its channel, up to the first question for a translation, which is kept in missed.
int sdc_vhost_serve_channel(struct sdc_vhost_client *client, struct sdc_error *err);
// The answer to a request on the channel, if it wants one.
int sdc_vhost_answer(struct sdc_vhost_client *client, const struct sdc_vhost_message *request, uint64_t result, struct sdc_error *err);
void sdc_vhost_close_fds(struct sdc_vhost_message *message);

// --- vhost_client.c: requests; they take the lock ---

// A request of size bytes.
void sdc_vhost_fill(struct sdc_vhost_message *message, uint32_t request, const void *payload, uint32_t size);
// Sends a request that has no reply of its own and, with REPLY_ACK, waits until it was taken: -EIO when the back
// end refused it.
int sdc_vhost_tell(struct sdc_vhost_client *client, struct sdc_vhost_message *message, struct sdc_error *err);
// Sends a request and waits for its reply, whose payload has `size` bytes; *message becomes the reply.
int sdc_vhost_ask(struct sdc_vhost_client *client, struct sdc_vhost_message *message, uint32_t size,
                  struct sdc_error *err);
// vhost_iotlb.c: answers the question in missed, and those that come meanwhile. No reply is due. 0, or the connection's failure.
int sdc_vhost_answer_missed(struct sdc_vhost_client *client, struct sdc_error *err);
// vhost_memory.c: shows a new back end what the one before was shown.
int sdc_vhost_show_memory(struct sdc_vhost_client *client, struct sdc_error *err);

static inline bool sdc_vhost_has(const struct sdc_vhost_client *client, uint64_t protocol_feature)
{
    return (client->session.protocol_features & protocol_feature) != 0;
}
