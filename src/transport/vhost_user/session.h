// SPDX-License-Identifier: BSD-3-Clause
// A vhost-user session: one connected front end. What the files of this folder share. Everything runs on the home loop but what a vring's
// lock guards.
#pragma once

#include "base/limits.h"
#include "os/socket.h"
#include "transport/common/guest_memory.h"
#include "transport/common/remote.h"
#include "transport/common/virtio_core.h"
#include "transport/vhost_user/vhost_user.h"
#include "wire/vhost_user.h"

#include <pthread.h>

struct vhu_session;

// Features of virtio that end or begin at the VMM's own transport: a front end that was offered them would promise what it does not bring.
#define VHU_WITHHELD (SDC_VIRTIO_F_NOTIFICATION_DATA | SDC_VIRTIO_F_RING_RESET)

#define VHU_PROTOCOL_FEATURES                                                                                          \
    (SDC_VHOST_PROTOCOL_F_MQ | SDC_VHOST_PROTOCOL_F_REPLY_ACK | SDC_VHOST_PROTOCOL_F_BACKEND_REQ |                     \
     SDC_VHOST_PROTOCOL_F_CONFIG | SDC_VHOST_PROTOCOL_F_RESET_DEVICE | SDC_VHOST_PROTOCOL_F_CONFIGURE_MEM_SLOTS |      \
     SDC_VHOST_PROTOCOL_F_STATUS | SDC_VHOST_PROTOCOL_F_INFLIGHT_SHMFD |                                          \
     SDC_VHOST_PROTOCOL_F_INBAND_NOTIFICATIONS)

// --- card.c: the device and its vrings ---

struct vhu_vring {
    // What the front end has said.
    uint32_t size;
    bool has_addresses;
    struct sdc_vhost_vring_addr addresses; // in the front end's own memory
    uint16_t position; // where to go on
    bool wrapped;
    bool started; // by a kick fd, until GET_VRING_BASE
    bool enabled;
    // Whether the queue runs: it is both.
    bool running;
    struct sdc_inflight log; // of what is in flight, while it runs
    bool resume;             // the log is somebody's who is gone: the vring goes on from there
    bool left;               // or ours, of when it stopped, and the front end has the same vring go on
    // Queues' loops signal the fds while the home loop changes them.
    pthread_mutex_t lock;
    int call_fd; // eventfds; -1: none
    int err_fd;
    // In-band notifications: a queue's loop wants one, and posts that once; the home loop sends it.
    atomic_bool calling;
    struct sdc_post call_post;
    struct sdc_vhu_card *card;
    bool call_due; // home loop: to be sent
    bool err_due;
};

struct sdc_vhu_card {
    struct sdc_virtio_core *core;
    struct vhu_vring *vrings; // as many as the device has queues
    struct vhu_session *session; // NULL: no front end is connected
    atomic_bool in_band;         // notifications go as messages where there is no fd for them
    bool broken;                 // and the front end was told
};

// The vrings are as the front end found them: its fds are closed. No queue runs.
void vhu_card_forget(struct sdc_vhu_card *card);

// --- stream.c: messages from and to the socket ---

// As large as the payload of a request can be: a table of 8 regions, or 256 bytes of configuration.
enum { VHU_PAYLOAD_MAX = sizeof(struct sdc_vhost_mem_table) + SDC_VHOST_MEM_TABLE_MAX * sizeof(struct sdc_vhost_region) + 64 };

struct vhu_message {
    struct sdc_vhost_header header;
    uint8_t payload[VHU_PAYLOAD_MAX];
    int fds[SDC_VHOST_FDS_MAX]; // a handler that keeps one sets it to -1
    int fds_count;
};

struct vhu_stream {
    int fd;
    struct vhu_message in; // the message that is arriving
    size_t got;            // its bytes
    bool fds_lost;         // more came with it than a message may have
    uint8_t *out;          // replies that were not sent yet
    size_t out_size;
    size_t out_used;
    size_t out_sent;
    size_t out_last;       // where the last reply begins
    int out_fd;            // goes with the byte at out_fd_at, and is closed then; -1: none
    size_t out_fd_at;
};

// Receives what is there of one message and no more, so that fds, which come with the first bytes of a message, are always those of the
// message that is being read. 1: it is whole, in stream->in; 0 at the end of the stream; -EAGAIN; -EPROTO: it is larger than any; or
// an error.
int vhu_stream_receive(struct vhu_stream *stream);
// The message is done with: closes the fds that nobody kept.
void vhu_stream_consume(struct vhu_stream *stream);
// A reply to a request, with size bytes of payload. -ENOMEM.
int vhu_stream_reply(struct vhu_stream *stream, uint32_t request, const void *payload, uint32_t size);
// fd goes with the reply that was made last, and is the stream's. The stream is full until it is sent.
void vhu_stream_attach(struct vhu_stream *stream, int fd);
// Sends what can be sent. 0 (look at vhu_stream_unsent) or an error.
int vhu_stream_send(struct vhu_stream *stream);
static inline size_t vhu_stream_unsent(const struct vhu_stream *stream)
{
    return stream->out_used - stream->out_sent;
}
void vhu_stream_close(struct vhu_stream *stream);

// --- channel.c: requests of ours ---

struct vhu_channel {
    int fd; // -1: none
    struct sdc_watch watch;
    bool config_changed; // is to be told
    uint16_t turn;       // the vring that is heard first
    bool asked_last;     // a miss was said, and others are heard before the next
    uint8_t out[sizeof(struct sdc_vhost_header) + sizeof(struct sdc_vhost_iotlb)]; // the request on its way
    size_t out_size;
    size_t out_sent;
    uint32_t request;
    bool awaiting;   // its answer is due
    size_t answered; // bytes of that
    struct __attribute__((packed)) {
        struct sdc_vhost_header header;
        uint64_t result;
    } answer;
};

// --- iotlb.c: translations of an IOMMU ---

struct vhu_iotlb {
    bool on;                       // VIRTIO_F_ACCESS_PLATFORM was negotiated
    struct sdc_region_table table; // entries, by IOVA
    bool changed;                  // since a map was published
    struct sdc_remote remote;      // of those maps: queues say here what they want
    struct sdc_transfer *wants;    // in turn; outstanding counts the questions for one
    // The question, if there is one.
    bool asking;
    uint64_t asked;
    enum sdc_access asked_access;
    bool said;     // to the front end
    bool answered; // by its acknowledgement
    bool denied;   // everything was read that can have come before the answer: what is not there now will not come
};

// --- session.c ---

struct vhu_session {
    struct sdc_loop *loop;
    struct sdc_vhu_card *card;
    const struct sdc_vhu_options *options;
    struct vhu_stream stream;
    bool whole;   // stream.in is a whole message that waits to be handled
    bool closing;
    struct sdc_watch watch;
    struct sdc_timer deadline; // for the rest of a message
    bool dated;                // it is set
    struct sdc_deferred step;
    uint64_t protocol_features; // as the front end set them
    bool features_set;
    bool enables; // the front end enables vrings itself: it has set VHOST_USER_F_PROTOCOL_FEATURES
    bool greeted; // a request has come
    // What it has written of the configuration. It outlasts resets, since a VMM goes on showing it to its guest.
    uint8_t config[SDC_VHOST_CONFIG_MAX];
    bool config_written[SDC_VHOST_CONFIG_MAX];
    uint8_t status; // as the front end set it
    // The command that waits for the card: called when that is not busy; true: it is finished, with *result.
    bool (*waiting)(struct vhu_session *session);
    struct sdc_guest_memory memory;
    struct sdc_vhost_region *slots; // the front end's regions
    unsigned slots_count;
    struct vhu_iotlb iotlb;
    // inflight.c
    uint8_t *inflight; // the log's memory, NULL: none
    uint64_t inflight_mapped; // bytes
    struct sdc_vhost_inflight inflight_said;
    struct vhu_channel channel;
    enum { VHU_CLOSE_RESET, VHU_CLOSE_UNMAP, VHU_CLOSE_END } step_down; // the next step of taking it down
    void (*ended)(struct vhu_session *session);
    void *context;
};

// What was negotiated.
static inline bool vhu_is_packed(const struct vhu_session *session)
{
    return (session->card->core->features & SDC_VIRTIO_F_RING_PACKED) != 0;
}

struct vhu_session *vhu_session_new(struct sdc_loop *loop, int fd, struct sdc_vhu_card *card, const struct sdc_vhu_options *options,
                                    void (*ended)(struct vhu_session *session), void *context);
void vhu_session_close(struct vhu_session *session, const char *reason);
void vhu_session_free(struct vhu_session *session);
void vhu_session_step(struct vhu_session *session);

// --- dispatch.c ---

// What a handler can say besides 0 (done; acknowledged if the front end wants that) and a negative errno (refused).
enum {
    VHU_REPLIED = 1, // with a reply of its own
    VHU_LATER = 2,   // session->waiting is set: it acknowledges or replies
};

// Handles the message in hand. 0; VHU_LATER; or a negative errno: it was refused and that cannot be said: the session ends.
int vhu_dispatch(struct vhu_session *session);
// Says that the message in hand was done (0) or refused, if the front end asked for that. An error: see vhu_dispatch.
int vhu_acknowledge(struct vhu_session *session, int result);
// The same for a request that has waited and is done. True.
bool vhu_finish(struct vhu_session *session);
// A handler's reply.
int vhu_reply(struct vhu_session *session, const void *payload, uint32_t size);
int vhu_reply_u64(struct vhu_session *session, uint64_t value);

// Handlers, by file. Each gets a message whose size, fds and state the table has checked.
int vhu_get_features(struct vhu_session *session, struct vhu_message *message); // device.c
int vhu_set_features(struct vhu_session *session, struct vhu_message *message);
int vhu_get_protocol_features(struct vhu_session *session, struct vhu_message *message);
int vhu_set_protocol_features(struct vhu_session *session, struct vhu_message *message);
int vhu_nothing(struct vhu_session *session, struct vhu_message *message);
int vhu_get_queue_num(struct vhu_session *session, struct vhu_message *message);
int vhu_get_config(struct vhu_session *session, struct vhu_message *message);
int vhu_set_config(struct vhu_session *session, struct vhu_message *message);
int vhu_reset_device(struct vhu_session *session, struct vhu_message *message);
int vhu_get_status(struct vhu_session *session, struct vhu_message *message);
int vhu_set_status(struct vhu_session *session, struct vhu_message *message);
int vhu_set_backend_req_fd(struct vhu_session *session, struct vhu_message *message); // channel.c
int vhu_set_mem_table(struct vhu_session *session, struct vhu_message *message);      // memory.c
int vhu_get_max_mem_slots(struct vhu_session *session, struct vhu_message *message);
int vhu_add_mem_reg(struct vhu_session *session, struct vhu_message *message);
int vhu_rem_mem_reg(struct vhu_session *session, struct vhu_message *message);
int vhu_iotlb_msg(struct vhu_session *session, struct vhu_message *message);          // iotlb.c
int vhu_get_inflight_fd(struct vhu_session *session, struct vhu_message *message);    // inflight.c
int vhu_set_inflight_fd(struct vhu_session *session, struct vhu_message *message);
int vhu_set_vring_num(struct vhu_session *session, struct vhu_message *message);      // vrings.c
int vhu_set_vring_addr(struct vhu_session *session, struct vhu_message *message);
int vhu_set_vring_base(struct vhu_session *session, struct vhu_message *message);
int vhu_get_vring_base(struct vhu_session *session, struct vhu_message *message);
int vhu_set_vring_kick(struct vhu_session *session, struct vhu_message *message);
int vhu_set_vring_call(struct vhu_session *session, struct vhu_message *message);
int vhu_set_vring_err(struct vhu_session *session, struct vhu_message *message);
int vhu_vring_kick(struct vhu_session *session, struct vhu_message *message);
int vhu_set_vring_enable(struct vhu_session *session, struct vhu_message *message);

// inflight.c: opens a vring's log, if the front end has given memory for one; config then says so.
int vhu_inflight_open(struct vhu_session *session, uint16_t index, struct sdc_ring_config *config);
// No vring runs.
void vhu_inflight_forget(struct vhu_session *session);
// vrings.c: whether any queue runs.
bool vhu_runs(const struct sdc_vhu_card *card);
// memory.c: the guest address of the size bytes that the front end has at `user`. False: it has shown no such memory, in one piece.
bool vhu_translate(const struct vhu_session *session, uint64_t user, uint64_t size, uint64_t *guest);
// memory.c: a new map of what the front end has shown, or behind an IOMMU of its translations. The core is not busy, and is then. -ENOMEM.
int vhu_publish(struct vhu_session *session);

// iotlb.c
void vhu_iotlb_init(struct vhu_iotlb *iotlb, struct sdc_loop *loop);
// Addresses of the driver's are the IOMMU's from now on, or the guest's. No vring runs.
int vhu_iotlb_turn(struct vhu_session *session, bool on);
// All translations are void. No vring runs.
void vhu_iotlb_flush(struct vhu_session *session);
// Gives queues what they wanted, if it is there now, and asks for the next thing.
void vhu_iotlb_run(struct vhu_session *session);
// The same for what queues do not want any more; of a session that ends too.
void vhu_iotlb_forget_dropped(struct vhu_session *session);
// Everything was handled that the front end had sent.
void vhu_iotlb_read_all(struct vhu_session *session);
// For the channel: the question to be said, if there is one; it was answered; it was lost and has to be said again.
bool vhu_iotlb_say(struct vhu_session *session, struct sdc_vhost_iotlb *message);
void vhu_iotlb_said(struct vhu_session *session);
void vhu_iotlb_unsay(struct vhu_session *session);

// channel.c: tells the front end that the configuration has changed, when it can be told.
void vhu_channel_tell(struct vhu_session *session);
void vhu_channel_close(struct vhu_session *session);
