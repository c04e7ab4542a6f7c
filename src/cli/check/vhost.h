// SPDX-License-Identifier: BSD-3-Clause
// A vhost-user connection for tests: every byte of a message can be wrong, and nothing is done behind the test's back. A reply that breaks
// the rules that hold for all replies (its request, its flags, its size) fails the test wherever it comes.
#pragma once

#include "cli/check/check.h"
#include "wire/vhost_user.h"

enum { SDC_CHECK_VHOST_PAYLOAD = 1024 }; // bytes: no message of either side that we know has more

struct sdc_check_vhost_message;

struct sdc_check_vhost {
    struct sdc_check *check;
    int fd;
    int channel_fd; // our end of the back end's channel, -1: none. While something is waited for, what comes there is given to `asked`
    void (*asked)(struct sdc_check_vhost *vhost, const struct sdc_check_vhost_message *message);
    void *owner;         // the test's, for `asked`
    unsigned iotlb_owed; // replies to IOTLB_MSG that `asked` has left to come, between others
    uint64_t features; // that the back end offers, once it was asked
    uint64_t offered;  // protocol features, likewise
    uint64_t protocol; // that were set
};

struct sdc_check_vhost_message {
    struct sdc_vhost_header header;
    uint8_t payload[SDC_CHECK_VHOST_PAYLOAD];
    int fds[SDC_VHOST_FDS_MAX];
    unsigned fds_count;
};

// A request to send.
struct sdc_check_vhost_request {
    uint32_t request;
    uint32_t flags;   // beside the version and, with _try and _do, NEED_REPLY
    uint32_t version; // 0: 1, as it should be
    const void *payload;
    uint32_t size;    // of the payload
    uint32_t claimed; // size that the header names; 0: what it is
    const int *fds;
    unsigned fds_count;
};

// Only connects.
void sdc_check_vhost_connect(struct sdc_check_vhost *vhost, struct sdc_check *check);
// Agrees on protocol features, as many of `protocol` as are offered, and takes the device over (SET_OWNER).
void sdc_check_vhost_shake(struct sdc_check_vhost *vhost, uint64_t protocol);
// Both.
void sdc_check_vhost_open(struct sdc_check_vhost *vhost, struct sdc_check *check, uint64_t protocol);
void sdc_check_vhost_close(struct sdc_check_vhost *vhost);
// Ends the test unless the protocol feature was set. name: as in the specification.
void sdc_check_vhost_needs(struct sdc_check_vhost *vhost, uint64_t feature, const char *name);

// Sends bytes as they are, fds with the first. A back end that has closed the connection takes none; that is found when something is
// received.
void sdc_check_vhost_send_bytes(struct sdc_check_vhost *vhost, const void *bytes, size_t size, const int *fds, unsigned fds_count);
void sdc_check_vhost_send(struct sdc_check_vhost *vhost, const struct sdc_check_vhost_request *request);

enum sdc_check_vhost_answer {
    SDC_CHECK_VHOST_DONE,    // a reply; of an acknowledgement: that it was done
    SDC_CHECK_VHOST_REFUSED, // an acknowledgement that says it was not
    SDC_CHECK_VHOST_CLOSED,
    SDC_CHECK_VHOST_SILENCE,
};
// Gives the back end a socket for its own requests, which are given to `asked` from then on, and answered with 0.
void sdc_check_vhost_open_channel(struct sdc_check_vhost *vhost,
                                  void (*asked)(struct sdc_check_vhost *vhost, const struct sdc_check_vhost_message *message), void *owner);
// Serves one message of the channel, which is readable.
void sdc_check_vhost_serve(struct sdc_check_vhost *vhost);
// The next message, if one comes within ms.
enum sdc_check_vhost_answer sdc_check_vhost_receive(struct sdc_check_vhost *vhost, struct sdc_check_vhost_message *message, int ms);
// The reply to a request, which has to come and to have `size` bytes.
void sdc_check_vhost_reply(struct sdc_check_vhost *vhost, uint32_t request, uint32_t size, struct sdc_check_vhost_message *message);

// Sends a request and takes its reply of reply_size bytes.
void sdc_check_vhost_ask(struct sdc_check_vhost *vhost, const struct sdc_check_vhost_request *request, void *reply, uint32_t reply_size);
uint64_t sdc_check_vhost_ask_u64(struct sdc_check_vhost *vhost, uint32_t request);
// Sends a request that has no reply of its own: DONE, REFUSED or CLOSED. Where REPLY_ACK was not agreed on, nobody learns whether it was
// done; then another request and its reply (a fence) say that it was handled.
enum sdc_check_vhost_answer sdc_check_vhost_try(struct sdc_check_vhost *vhost, const struct sdc_check_vhost_request *request);
// The same; it has to be done.
void sdc_check_vhost_do(struct sdc_check_vhost *vhost, const struct sdc_check_vhost_request *request);
// Sends one of which the specification does not say what comes of it: a remark is made if it is taken for good. True if the connection
// goes on.
bool sdc_check_vhost_open_question(struct sdc_check_vhost *vhost, const struct sdc_check_vhost_request *request, const char *what);
// A request and back, to see that the back end is in step with us.
void sdc_check_vhost_fence(struct sdc_check_vhost *vhost);

// --- requests that many tests send; they have to be done ---

void sdc_check_vhost_set_u64(struct sdc_check_vhost *vhost, uint32_t request, uint64_t value);
void sdc_check_vhost_set_state(struct sdc_check_vhost *vhost, uint32_t request, uint32_t index, uint32_t num);
// fd -1: none comes, which the message says.
void sdc_check_vhost_set_fd(struct sdc_check_vhost *vhost, uint32_t request, uint32_t index, int fd);

// Tables of rows.
extern const struct sdc_check_table sdc_check_vhost_messages;
extern const struct sdc_check_table sdc_check_vhost_config;
extern const struct sdc_check_table sdc_check_vhost_memory;
extern const struct sdc_check_table sdc_check_vhost_vrings;
extern const struct sdc_check_table sdc_check_vhost_guest;
extern const struct sdc_check_table sdc_check_vhost_inflight;
extern const struct sdc_check_table sdc_check_vhost_state;
