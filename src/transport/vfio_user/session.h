// SPDX-License-Identifier: BSD-3-Clause
// A session: one connected client. What the files of this folder share. Everything runs on the home loop but sdc_vfu_irqs_raise.
#pragma once

#include <sidecard/pci.h>

#include "base/limits.h"
#include "loop/loop.h"
#include "os/socket.h"
#include "transport/common/guest_memory.h"
#include "transport/common/remote.h"
#include "transport/vfio_user/record.h"
#include "transport/vfio_user/vfio_user.h"
#include "wire/vfio_user.h"
#include "wire/vfio_user_version.h"

#include <pthread.h>

struct vfu_session;

// The states that a message can be legal in; the message table says which.
enum vfu_state {
    VFU_NEW = 1,     // connected; VERSION is awaited
    VFU_READY = 2,   // VERSION is done
    VFU_CLOSING = 4, // the client has gone or was dropped; the card is being put back
};

// --- irqs.c: who is told of interrupts; irq_switch.c: who masks them by eventfd ---

struct vfu_irq_switch;

// One kind of interrupt (INTx, MSI, ...).
struct vfu_irq_set {
    uint32_t count;
    int *fds;      // eventfds; -1: none
    uint32_t *slots; // that they are kept in, or SDC_SLOT_NONE. Home loop
    bool *masked;  // INTx masks itself when it fires
    bool *pending; // MSI: it was raised while it was masked. MSI-X has the device's pending bits, INTx its level.
    struct vfu_irq_switch **switches; // two a vector: the one that unmasks it, the one that masks it; NULL: none. Home loop
};

struct vfu_irqs {
    pthread_mutex_t lock; // queues' loops raise interrupts while the home loop changes them
    struct vfu_irq_set sets[SDC_PCI_IRQS];
};

// --- stream.c: bytes from and to the socket ---

// fds that came with a message that has not been dispatched yet.
struct vfu_arrival {
    uint64_t position; // of the message's first byte in the stream
    int count;
    bool lost; // some could not be kept: more than one message may have, or the kernel cut them
    int fds[SDC_LIMIT_MESSAGE_FDS];
    uint32_t slots[SDC_LIMIT_MESSAGE_FDS]; // that they are kept in; who keeps one sets it to SDC_SLOT_NONE here
};

// Messages with fds that may be here at a time: while one command waits, others are read behind it.
enum { VFU_ARRIVALS = 16 };

// fds that go with a message that has not been sent.
struct vfu_departure {
    uint64_t position; // of the message's first byte in what is sent
    unsigned count;
    int fds[SDC_LIMIT_REPLY_FDS];
};

enum { VFU_DEPARTURES = 8 };

struct vfu_stream {
    int fd;
    struct sdc_vfu_record *record; // NULL: none is kept
    uint8_t *room;  // what is received lies in it
    uint8_t *in;    // what was not consumed
    size_t in_size; // from there to the end of the room
    size_t in_used;
    size_t scanned;    // bytes of in that were searched for replies: whole messages
    uint64_t position; // in the stream, of in[0]
    uint64_t messages; // that were taken out: it moves when the peer does
    struct vfu_arrival arrivals[VFU_ARRIVALS];
    uint8_t *reply; // the one that was taken last
    uint8_t *out;
    size_t out_size;
    size_t out_used;
    size_t out_sent;
    uint64_t sent; // bytes, all told
    struct vfu_departure departures[VFU_DEPARTURES]; // in their order
    unsigned departures_count;
    unsigned unread_fds; // that may lie in the peer's socket, or are to go there
    // Small replies go with the system call by which the loop's turn ends; NULL: each by one of its own.
    struct sdc_loop *loop;
    struct sdc_send send;
    void (*unsent)(struct vfu_stream *stream); // some have come back: vfu_stream_send is to be called
    bool holed; // and there was no memory for them
};

int vfu_stream_init(struct vfu_stream *stream, int fd);
// From now on small replies go by the loop (sdc_loop_send), and vfu_stream_send is called from deferred functions only.
void vfu_stream_send_by(struct vfu_stream *stream, struct sdc_loop *loop, void (*unsent)(struct vfu_stream *stream));
void vfu_stream_close(struct vfu_stream *stream);
// Receives once, unless there are more commands waiting than a client sends (-EAGAIN). >0, 0 at the end of the stream, -EAGAIN, or
// an error.
int vfu_stream_receive(struct vfu_stream *stream);
// Whether a whole message is there: 1, 0, or -EPROTO when its size is out of bounds.
int vfu_stream_message(const struct vfu_stream *stream, struct sdc_vfu_header *header);
// The fds of the message at in[0]; never NULL.
struct vfu_arrival *vfu_stream_arrival(struct vfu_stream *stream);
// The message at in[0] is done with: drops its size bytes, and closes the fds with it that nobody took.
void vfu_stream_consume(struct vfu_stream *stream, uint32_t size);
// Room for size more bytes to send, zeroed; NULL when there is no memory.
uint8_t *vfu_stream_append(struct vfu_stream *stream, size_t size);
// Takes size bytes out again, which were appended when `position` bytes had been: false if the first of them was sent. Nothing else that
// is appended has fds.
bool vfu_stream_take_back(struct vfu_stream *stream, uint64_t position, size_t size);
// These fds go with the message that is appended next; they stay the caller's, open until the stream has sent it or is closed.
// -EBUSY: the peer leaves too many unread as it is.
int vfu_stream_attach(struct vfu_stream *stream, const int *fds, unsigned count);
// What was received by another process, from a position on, and that it had fds with the last message of which nothing is known.
int vfu_stream_fill(struct vfu_stream *stream, uint64_t position, const uint8_t *bytes, uint64_t size);
void vfu_stream_lose_fds(struct vfu_stream *stream);
// Sends what can be sent. 0 (look at vfu_stream_unsent) or an error.
int vfu_stream_send(struct vfu_stream *stream);
// Likewise what is on its way by the loop, and before the stream is closed.
void vfu_stream_send_rest(struct vfu_stream *stream);
size_t vfu_stream_unsent(const struct vfu_stream *stream);

// Takes a whole reply out of what has arrived, wherever it stands behind commands that wait: 1 with header and *payload (good until the
// next call), or 0.
int vfu_stream_take_reply(struct vfu_stream *stream, struct sdc_vfu_header *header, const uint8_t **payload);

// --- remote.c: guest memory without an fd, reached by DMA_READ and DMA_WRITE ---

enum { VFU_OUTSTANDING = 64 }; // messages of ours without a reply

// How the client lays DMA messages out. An older QEMU's (10.1) have a 32-bit count, the data right behind it, and four bytes at the end
// that mean nothing. It is found out before the first transfer.
enum vfu_dma_layout { VFU_LAYOUT_UNKNOWN, VFU_LAYOUT_ASKED, VFU_LAYOUT_64, VFU_LAYOUT_32 };

struct vfu_question {
    bool asked; // a reply is owed
    bool layout; // the question for the layout
    uint16_t id;
    uint16_t cmd;
    uint64_t iova;
    uint32_t size;
    uint64_t position; // of the message in what is sent
    uint32_t length;   // of the message
    struct sdc_transfer *transfer; // NULL: nobody waits for it any more
    uint32_t offset; // of this piece in the transfer
};

struct vfu_remote {
    struct sdc_remote base;
    enum vfu_dma_layout layout;
    struct sdc_transfer *first; // that have not been sent whole
    struct sdc_transfer **end;
    uint16_t next_id;
    uint32_t outstanding;
    uint32_t reading; // bytes of replies to DMA_READs that are owed
    struct vfu_question questions[VFU_OUTSTANDING];
};

void vfu_remote_init(struct vfu_remote *remote, struct sdc_loop *home);
// Sends what there is to send.
void vfu_remote_pump(struct vfu_session *session);
// Handles every reply that has arrived. 0, or -EPROTO when one answers nothing that was asked, or came over the wrong socket.
int vfu_remote_replies(struct vfu_session *session);
// The card has let go of something: what it has dropped is forgotten. Replies to what was asked of it still have to be good ones.
void vfu_remote_forget(struct vfu_session *session);
// The client has gone: every transfer fails.
void vfu_remote_fail(struct vfu_session *session);

// --- twin.c: the socket for what we ask, if the client has one for that ---

struct vfu_twin {
    bool on;                  // agreed on in VERSION: nothing is asked over the main socket
    struct vfu_stream stream; // its fd is -1 when the client has closed its end
    struct sdc_watch watch;
    struct sdc_timer deadline; // for the rest of a reply
    uint64_t begun;            // stream.messages when the deadline was set
    int peer;                  // the client's end, until it has left with VERSION's reply
};

void vfu_twin_init(struct vfu_twin *twin);
// 0, or a negative errno: then there is none.
int vfu_twin_open(struct vfu_session *session);
void vfu_twin_close(struct vfu_session *session);
// After replies were taken: refuses what else came, sends what there is to send. May close the session.
void vfu_twin_step(struct vfu_session *session);

// --- dispatch.c ---

// The message under way, while its handler runs.
struct vfu_message {
    struct sdc_vfu_header header;
    const uint8_t *payload; // in the receive buffer
    uint32_t size;          // of the payload, bytes; inside the table's bounds
    int *fds;               // a handler that keeps one sets it to -1 here
    int fds_count;          // inside the table's bounds
    uint32_t *slots;        // that the fds are kept in; a handler that keeps one sets it to SDC_SLOT_NONE here
};

// What a handler can say besides 0 (done) and a negative errno (refused).
enum {
    VFU_LATER = 1, // session->waiting is set: it finishes the command
    VFU_AGAIN = 2, // the device said not now: dispatch the same message again when it is ready
    VFU_DROP = 3,  // an answer has been made; the session ends after it
};

// Handles the message at the head of the stream. 0, VFU_LATER, VFU_AGAIN or VFU_DROP.
int vfu_dispatch(struct vfu_session *session, const struct sdc_vfu_header *header);
// The good reply to a command: its header, and room for size bytes of payload, zeroed. NULL when no reply is wanted, or there is no
// memory for one: then the session ends.
uint8_t *vfu_reply(struct vfu_session *session, const struct sdc_vfu_header *command, uint32_t size);
// The same with fds, which stay the caller's and open until the session has ended. *room is NULL when there is no reply. -EBUSY: the
// client has not taken the ones before.
int vfu_reply_with_fds(struct vfu_session *session, const struct sdc_vfu_header *command, uint32_t size, const int *fds,
                       uint32_t count, uint8_t **room);
// An error reply, header only; for clients that need it padded to the payload of the good one. error is a negative errno.
void vfu_reply_error(struct vfu_session *session, const struct sdc_vfu_header *command, int error, uint32_t good_size);

// --- feature.c ---

// What a device has by number (DEVICE_FEATURE).
struct vfu_feature {
    uint32_t methods;  // SDC_VFU_FEATURE_GET, SDC_VFU_FEATURE_SET; 0: the device hasn't got it
    uint32_t get_size; // of the data that a GET's request has at least, bytes
    uint32_t set_size; // likewise
    // Answers a GET or a SET with enough data. As a message's handler.
    int (*serve)(struct vfu_session *session, struct vfu_message *message);
};

// Serves a DEVICE_FEATURE by the table features[count].
int vfu_feature_serve(struct vfu_session *session, struct vfu_message *message, const struct vfu_feature *features, uint32_t count);

// --- dma.c: guest memory ---

struct vfu_dma {
    struct sdc_guest_memory memory;
    bool changed;              // the table is ahead of the newest map
    bool holding;              // replies to DMA_MAPs wait until the card has taken the maps over
    struct sdc_regions before; // the DMA_UNMAP under way: what the table was, in case I/O on the region does not end
    struct sdc_vfu_dma_unmap unmap; // that command
};

struct vfu_session {
    struct sdc_pci_host host; // first: the device's way to us
    struct sdc_loop *loop;
    struct sdc_pci_device *device;
    const struct sdc_vfu_options *options;
    enum vfu_state state;
    struct vfu_stream stream;
    struct sdc_watch watch;
    struct sdc_timer deadline;  // for VERSION, or for the rest of a message
    struct sdc_timer patience;  // for a command that waits for the card
    struct sdc_timer notice;    // for a client that was told that the server ends
    struct sdc_deferred step;
    // Quirks and limits, fixed by VERSION.
    bool pads_errors; // Cloud Hypervisor: an error reply is as long as the good one
    bool no_intx;     // likewise: INTx count 0
    uint64_t max_data_xfer_size;
    uint64_t max_msg_fds; // that the client takes with a message
    // The command that waits for the card: called whenever the card may be ready; true: it is finished.
    bool (*waiting)(struct vfu_session *session);
    struct sdc_vfu_header command;  // its header
    uint32_t access_done;           // bytes of a region access that were served before the card said not now
    uint32_t writes_done;           // of a REGION_WRITE_MULTI, likewise
    uint8_t *access_data;           // of a region read
    uint32_t access_size;           // allocated
    bool impatient;                 // patience ran out
    struct sdc_vfu_record *record;  // NULL: none is kept
    bool held;                      // nothing is handled or received any more: another process goes on
    bool parked;                    // the next message must wait: nothing is read meanwhile
    bool full;                      // no more can be received until a command is done
    uint64_t begun;                 // stream.messages when the deadline was set
    struct vfu_irqs irqs;
    struct vfu_dma dma;
    struct vfu_remote remote;
    struct vfu_twin twin;
    enum { VFU_CLOSE_RESET, VFU_CLOSE_UNMAP, VFU_CLOSE_END } closing; // the next step of taking it down
    void (*ended)(struct vfu_session *session); // the last call; the session may be freed
    void *context;
};

int vfu_irqs_init(struct vfu_irqs *irqs, const struct sdc_pci_device *device);
void vfu_irqs_destroy(struct vfu_irqs *irqs);
// SDC_VFU_IRQ_..., for GET_IRQ_INFO.
uint32_t vfu_irq_flags(enum sdc_pci_irq kind);
// A device reset: what is pending is forgotten; eventfds and masks stay.
void vfu_irqs_reset(struct vfu_irqs *irqs);
void vfu_irqs_set_mask(struct vfu_irqs *irqs, struct sdc_pci_device *device, enum sdc_pci_irq kind, uint32_t vector, bool masked);
// From now on a signal of *fd, an eventfd, (un)masks the vector; it is taken over, and set to -1. -ENOMEM.
int vfu_irq_switch_set(struct vfu_session *session, enum sdc_pci_irq kind, uint32_t vector, bool masks, int *fd);
void vfu_irq_switch_clear(struct vfu_session *session, enum sdc_pci_irq kind, uint32_t vector, bool masks);
void vfu_irq_switches_clear(struct vfu_session *session, enum sdc_pci_irq kind);
// Any thread.
void vfu_irqs_raise(struct vfu_irqs *irqs, struct sdc_pci_device *device, enum sdc_pci_irq kind, uint32_t vector);

// region.c. Bytes; 0: there is no such region.
uint64_t vfu_region_size(const struct sdc_pci_device *device, uint32_t index);

// Publishes the table as it is and gives it to the card; done when the card is not busy any more.
int vfu_dma_publish(struct vfu_session *session);
// A region that another process had. 0 or a negative errno.
int vfu_dma_resume(struct vfu_session *session, const struct sdc_state_region *entry);
// The session ends: a DMA_UNMAP that waits for the card waits no more, and the card for nothing that it waited for.
void vfu_dma_give_up(struct vfu_session *session);
// Then the card forgets all memory. Done when the card is not busy and maps_alive is 0.
void vfu_dma_withdraw(struct vfu_session *session);
// Whether all of [iova, iova + size) is the client's memory and may be accessed so. Until it is told that it was unmapped, it is.
bool vfu_dma_reachable(const struct vfu_session *session, uint64_t iova, uint64_t size, enum sdc_access access);
void vfu_dma_destroy(struct vfu_session *session);

// Handlers, by file. Each gets a message whose size, fds and state the table has checked.
int vfu_version(struct vfu_session *session, struct vfu_message *message);       // version.c
int vfu_get_info(struct vfu_session *session, struct vfu_message *message);      // info.c
int vfu_get_irq_info(struct vfu_session *session, struct vfu_message *message);
int vfu_get_region_info(struct vfu_session *session, struct vfu_message *message); // region.c
int vfu_get_region_io_fds(struct vfu_session *session, struct vfu_message *message);
int vfu_dma_map(struct vfu_session *session, struct vfu_message *message);       // dma.c
int vfu_dma_unmap(struct vfu_session *session, struct vfu_message *message);
int vfu_set_irqs(struct vfu_session *session, struct vfu_message *message);      // irqs.c
int vfu_region_read(struct vfu_session *session, struct vfu_message *message);   // access.c
int vfu_region_write(struct vfu_session *session, struct vfu_message *message);
int vfu_region_write_multi(struct vfu_session *session, struct vfu_message *message);
int vfu_reset(struct vfu_session *session, struct vfu_message *message);         // session.c
int vfu_device_feature(struct vfu_session *session, struct vfu_message *message); // feature.c
int vfu_migration_data(struct vfu_session *session, struct vfu_message *message);

// Looks at once what can go on.
void vfu_session_step(struct vfu_session *session);
// Starts to wait for the card, at most the time that a client waits: finished is called whenever it may have become ready.
int vfu_session_wait(struct vfu_session *session, const struct sdc_vfu_header *command,
                     bool (*finished)(struct vfu_session *session));

// Takes over fd. The session lives until ended is called.
struct vfu_session *vfu_session_new(struct sdc_loop *loop, int fd, struct sdc_pci_device *device,
                                    const struct sdc_vfu_options *options, void (*ended)(struct vfu_session *session),
                                    void *context);
// The session that options->record has, whose process is no more: goes on with it. 0, or a negative errno with err filled; *session is one
// that ends, then, or NULL.
int vfu_session_resume(struct sdc_loop *loop, struct sdc_pci_device *device, const struct sdc_vfu_options *options,
                       void (*ended)(struct vfu_session *session), void *context, struct vfu_session **session, struct sdc_error *err);
// Another process is to go on with it: nothing is handled any more.
void vfu_session_hold(struct vfu_session *session);
// The server ends. A client that has asked for it is told (the REQ interrupt) and has a while to go by itself.
void vfu_session_end(struct vfu_session *session);
// Ends it, whatever its state; reason is for the log.
void vfu_session_close(struct vfu_session *session, const char *reason);
void vfu_session_free(struct vfu_session *session);
