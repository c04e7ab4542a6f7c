// SPDX-License-Identifier: BSD-3-Clause
// The front end of vhost-user: the side of a VMM, or of a driver in user space. A struct sdc_vhost_client is one
// connection to a back end: it agrees on features, shows the back end memory and virtqueues, and reads the
// device's configuration.
//
// Threads. Any number of threads may use one connection at once, but for opening and closing it: a request and
// its reply go under a lock.
//
// Errors. Functions return 0 or a negative errno, and fill *err, which may be NULL. Once the connection is lost
// (the back end went away, broke the protocol, or did not answer within the timeout), that call and all that
// follow fail with the same code and text: replies have no ids, so that a late one could be taken for another's.
//
// The protocol: docs/interop/vhost-user.rst in the QEMU repository.
#pragma once

#include <sidecard/error.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sdc_vhost_client;

// --- open and close ---

// What to leave alone and how long to wait. Zero means: as said.
struct sdc_vhost_client_options {
    uint32_t timeout_ms;                // for each reply, and for being let in; 0: 5000
    uint64_t without_protocol_features; // bits that are not to be negotiated though the back end offers them
    bool in_band; // notifications as messages instead of eventfds (slow: for simulators). -ENOTSUP where there is no such thing
};

// What was agreed on when the connection was opened.
struct sdc_vhost_client_session {
    uint64_t features;          // virtio feature bits that the device offers
    uint64_t protocol_features; // that both sides use
    uint64_t protocol_offered;  // that the back end offers
    uint16_t queues_max;        // virtqueues that the back end has; 1 if it does not say
    uint64_t mem_slots;         // regions of memory that it keeps at a time
};

// Connects to the Unix socket at path and takes the device over. options may be NULL. -ENOENT and others from
// connecting; -ETIMEDOUT: no answer; -EPROTO: it speaks something else.
SDC_PUBLIC int sdc_vhost_client_open(const char *path, const struct sdc_vhost_client_options *options,
                                     struct sdc_vhost_client **client, struct sdc_error *err);
// The same on a connected stream socket, which is the client's from then on, also when this fails. name is for
// error texts.
SDC_PUBLIC int sdc_vhost_client_open_fd(int fd, const char *name, const struct sdc_vhost_client_options *options,
                                        struct sdc_vhost_client **client, struct sdc_error *err);
// The back end has gone: connects again, to the same path, and tries for timeout_ms to be let in. Then features and
// memory are as they were; the memory of what is in flight and the vrings are the caller's to show again. One
// thread; others may go on, and meet the old failure or the new connection. -ENOTSUP: the connection was made from
// an fd, or the new back end cannot do what the old one could. After an error it may be tried again.
SDC_PUBLIC int sdc_vhost_client_reconnect(struct sdc_vhost_client *client, uint32_t timeout_ms, struct sdc_error *err);
// No other thread uses it any more. NULL is fine.
SDC_PUBLIC void sdc_vhost_client_close(struct sdc_vhost_client *client);

SDC_PUBLIC const struct sdc_vhost_client_session *sdc_vhost_client_session(const struct sdc_vhost_client *client);
// The socket: to wait for its hang-up. Another one after reconnecting.
SDC_PUBLIC int sdc_vhost_client_fd(struct sdc_vhost_client *client);
// Where the back end asks, or -1: when it is readable, and no request is under way, sdc_vhost_client_process is to be called. In band
// nothing else brings interrupts. Another one after reconnecting.
SDC_PUBLIC int sdc_vhost_client_channel_fd(struct sdc_vhost_client *client);
// Serves what the back end has asked on its own channel, without waiting. 0, or the error that the connection
// has ended with.
SDC_PUBLIC int sdc_vhost_client_process(struct sdc_vhost_client *client, struct sdc_error *err);

// --- the device ---

// Bits out of session->features; those of the protocol are added.
SDC_PUBLIC int sdc_vhost_client_set_features(struct sdc_vhost_client *client, uint64_t features,
                                             struct sdc_error *err);
// The device status (virtio 1.2, 2.1), with PROTOCOL_F_STATUS; else -ENOTSUP.
SDC_PUBLIC int sdc_vhost_client_get_status(struct sdc_vhost_client *client, uint8_t *status, struct sdc_error *err);
SDC_PUBLIC int sdc_vhost_client_set_status(struct sdc_vhost_client *client, uint8_t status, struct sdc_error *err);
// RESET_DEVICE, with PROTOCOL_F_RESET_DEVICE; else -ENOTSUP.
SDC_PUBLIC int sdc_vhost_client_reset(struct sdc_vhost_client *client, struct sdc_error *err);
// [offset, offset + size) of the device's configuration, at most 256 bytes in all. -ENOTSUP without
// PROTOCOL_F_CONFIG; -ERANGE: the device has no such bytes.
SDC_PUBLIC int sdc_vhost_client_get_config(struct sdc_vhost_client *client, uint32_t offset, void *data,
                                           uint32_t size, struct sdc_error *err);
SDC_PUBLIC int sdc_vhost_client_set_config(struct sdc_vhost_client *client, uint32_t offset, const void *data,
                                           uint32_t size, struct sdc_error *err);
// An eventfd that is signalled when the back end says that the configuration has changed; it stays the
// caller's. -1: none.
SDC_PUBLIC void sdc_vhost_client_set_config_call(struct sdc_vhost_client *client, int fd);

// --- memory ---

struct sdc_vhost_client_region {
    uint64_t guest_address;
    uint64_t user_address; // by which vrings are named: where the front end has it mapped
    uint64_t size;         // bytes
    uint64_t offset;       // of its first byte in fd
    int fd;                // stays the caller's
};
// -ENOSPC: the back end keeps no more; -EEXIST: it overlaps another.
SDC_PUBLIC int sdc_vhost_client_map(struct sdc_vhost_client *client, const struct sdc_vhost_client_region *region,
                                    struct sdc_error *err);
// Exactly a region that was mapped. When it returns 0, and vrings are stopped or REPLY_ACK was negotiated, the
// back end does not reach the memory any more.
SDC_PUBLIC int sdc_vhost_client_unmap(struct sdc_vhost_client *client, uint64_t guest_address, uint64_t size,
                                      struct sdc_error *err);

// --- translations ---

// When VIRTIO_F_ACCESS_PLATFORM was accepted the device is behind an IOMMU: the driver's addresses, those of vrings too, are
// translated, and guest addresses mean nothing. The back end asks for a translation when it needs one, and is answered from these
// entries, a page of 4096 bytes at a time, by whoever waits for a reply on this connection or calls sdc_vhost_client_process. What is in
// no entry is denied.
struct sdc_vhost_client_entry {
    uint64_t iova;         // as the driver says; a multiple of 4096
    uint64_t user_address; // in memory that was mapped
    uint64_t size;         // bytes, a multiple of 4096
    uint32_t access;       // what the device may do: 1 to read, 2 to write, or both
};
// -EEXIST: it overlaps another.
SDC_PUBLIC int sdc_vhost_client_translate(struct sdc_vhost_client *client, const struct sdc_vhost_client_entry *entry,
                                          struct sdc_error *err);
// Exactly an entry. When it returns 0, the back end does not use it any more. -ENOENT.
SDC_PUBLIC int sdc_vhost_client_untranslate(struct sdc_vhost_client *client, uint64_t iova, uint64_t size, struct sdc_error *err);
// The back end forgets what it knows of [iova, iova + size); entries stay, and it asks for them again. Both 0: everything.
SDC_PUBLIC int sdc_vhost_client_invalidate(struct sdc_vhost_client *client, uint64_t iova, uint64_t size, struct sdc_error *err);

// --- virtqueues ---

struct sdc_vhost_client_vring {
    uint16_t index;
    uint16_t size;   // entries
    uint64_t desc;   // user addresses of the three areas (virtio 1.2, 2.6); behind an IOMMU the driver's
    uint64_t driver;
    uint64_t device;
    uint32_t base;   // where it goes on: as sdc_vhost_client_vring_stop returned it, 0 for a new split ring
    int kick_fd;     // eventfds; they stay the caller's. The back end waits for the first; -1: it polls, or in_band
    int call_fd;     // and signals this one, or in_band has it signalled; -1: the front end polls
};
// The base of a packed ring that is new: both wrap counters are 1.
#define SDC_VHOST_PACKED_BASE_NEW UINT32_C(0x80008000)

// Shows the back end a vring, starts and enables it.
SDC_PUBLIC int sdc_vhost_client_vring_start(struct sdc_vhost_client *client,
                                            const struct sdc_vhost_client_vring *vring, struct sdc_error *err);
// In band: tells the back end that a vring has something new, and waits until it knows.
SDC_PUBLIC int sdc_vhost_client_kick(struct sdc_vhost_client *client, uint16_t index, struct sdc_error *err);
// Stops it; the back end has finished, or given up, what it had taken. *base (may be NULL) says where to go on.
SDC_PUBLIC int sdc_vhost_client_vring_stop(struct sdc_vhost_client *client, uint16_t index, uint32_t *base,
                                           struct sdc_error *err);

// --- what outlives the back end ---

// Memory in which a back end keeps what it has taken and not finished, so that the next one can go on with it.
struct sdc_vhost_client_inflight {
    int fd;
    uint64_t size; // bytes
    uint64_t offset;
    uint16_t queues;
    uint16_t queue_size;
};
// Has the back end make it, for so many vrings of so many entries, before they are started. The fd is the
// caller's. -ENOTSUP without PROTOCOL_F_INFLIGHT_SHMFD.
SDC_PUBLIC int sdc_vhost_client_get_inflight(struct sdc_vhost_client *client, uint16_t queues, uint16_t queue_size,
                                             struct sdc_vhost_client_inflight *inflight, struct sdc_error *err);
// Gives it to a back end, the same or another, before vrings are started.
SDC_PUBLIC int sdc_vhost_client_set_inflight(struct sdc_vhost_client *client,
                                             const struct sdc_vhost_client_inflight *inflight, struct sdc_error *err);

#ifdef __cplusplus
}
#endif
