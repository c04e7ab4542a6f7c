// SPDX-License-Identifier: BSD-3-Clause
// How a virtio driver reaches its device: virtio over PCI, over a vfio-user connection, or a vhost-user front end.
// The driver above it knows features, status, configuration and
// queues, and nothing of how they travel.
//
// Set-up functions are called by one thread. All return 0 or a negative errno and fill *err (which may be
// NULL).
#pragma once

#include <sidecard/client.h>

#include <stdbool.h>
#include <stdint.h>

struct sdc_driver_transport;

// A queue as the device has to know it: where its parts lie (virtio 1.2, 2.6), and what to signal.
struct sdc_driver_queue_place {
    uint16_t index;
    uint16_t size; // entries
    uint64_t desc; // iovas
    uint64_t driver;
    uint64_t device;
    int call_fd; // eventfd for the queue's interrupts, -1: none are wanted
};

struct sdc_driver_transport_ops {
    const char *name;
    uint16_t (*device_id)(struct sdc_driver_transport *transport); // virtio 1.2, section 5
    // Lets the device reach memory. It stays the caller's and has to outlive the transport. -ENOTSUP: this
    // device reaches shared memory only, and this is private.
    int (*map)(struct sdc_driver_transport *transport, const struct sdc_client_memory *memory,
               struct sdc_error *err);
    int (*get_features)(struct sdc_driver_transport *transport, uint64_t *offered, struct sdc_error *err);
    int (*set_features)(struct sdc_driver_transport *transport, uint64_t accepted, struct sdc_error *err);
    int (*get_status)(struct sdc_driver_transport *transport, uint8_t *status, struct sdc_error *err);
    int (*set_status)(struct sdc_driver_transport *transport, uint8_t status, struct sdc_error *err);
    // [offset, offset + size) of the device's configuration, all of one generation. -ERANGE: it has no such
    // bytes.
    int (*get_config)(struct sdc_driver_transport *transport, uint32_t offset, void *data, uint32_t size,
                      struct sdc_error *err);
    int (*set_config)(struct sdc_driver_transport *transport, uint32_t offset, const void *data,
                      uint32_t size, struct sdc_error *err);
    // An eventfd that is signalled when the configuration changes or the device needs a reset. Before queues
    // are set up.
    int (*set_config_call)(struct sdc_driver_transport *transport, int fd, struct sdc_error *err);
    int (*queues_count)(struct sdc_driver_transport *transport, uint16_t *count, struct sdc_error *err);
    // The largest size that a queue may have; 0: the device has no such queue.
    int (*queue_size)(struct sdc_driver_transport *transport, uint16_t index, uint16_t *size,
                      struct sdc_error *err);
    int (*queue_setup)(struct sdc_driver_transport *transport, const struct sdc_driver_queue_place *place,
                       struct sdc_error *err);
    // Begins the reset of one queue, and asks whether it is still under way; then the queue may be set up
    // again (virtio 1.2, 2.6.1). VIRTIO_F_RING_RESET was negotiated. -ENOTSUP: there is no way to say so.
    int (*queue_reset)(struct sdc_driver_transport *transport, uint16_t index, struct sdc_error *err);
    int (*queue_resetting)(struct sdc_driver_transport *transport, uint16_t index, bool *resetting,
                           struct sdc_error *err);
    // Tells the device that a queue has something new, and up to which position if VIRTIO_F_NOTIFICATION_DATA was
    // negotiated. Any thread; does not wait for the device.
    int (*notify)(struct sdc_driver_transport *transport, uint16_t index, uint16_t position, struct sdc_error *err);
    // How it tells it, for a queue that was set up: a word for people. May be absent.
    const char *(*notified_by)(struct sdc_driver_transport *transport, uint16_t index);
    // An fd that hangs up when the device goes away.
    int (*hangup_fd)(struct sdc_driver_transport *transport);
    // An fd on which the device side asks for things that nobody may have to wait for, interrupts for one: when it can be read, check is to
    // be called. -1, or NULL: there is none.
    int (*asking_fd)(struct sdc_driver_transport *transport);
    // Takes what the device side has sent unasked; an error when it is gone. Any thread.
    int (*check)(struct sdc_driver_transport *transport, struct sdc_error *err);
    // The device side has gone: tries for timeout_ms to find it again, with all that was set up, and what was in
    // flight goes on; hangup_fd is another then. One thread at a time; the others may use the transport meanwhile.
    // NULL: there is no way. -ENOTSUP: there is none with this device.
    int (*recover)(struct sdc_driver_transport *transport, uint32_t timeout_ms, struct sdc_error *err);
    // The device was reset or is gone. Frees transport.
    void (*close)(struct sdc_driver_transport *transport);
};

// Implementations embed it at the start of their own.
struct sdc_driver_transport {
    const struct sdc_driver_transport_ops *ops;
};

// The members that every transport has: a transport's functions are named like them.
#define SDC_DRIVER_TRANSPORT_FUNCTIONS                                                                                  \
    .device_id = device_id, .map = map, .get_features = get_features, .set_features = set_features,                     \
    .get_status = get_status, .set_status = set_status, .get_config = get_config, .set_config = set_config,             \
    .set_config_call = set_config_call, .queues_count = queues_count, .queue_size = queue_size,                         \
    .queue_setup = queue_setup, .queue_reset = queue_reset, .queue_resetting = queue_resetting, .notify = notify,       \
    .hangup_fd = hangup_fd, .check = check, .close = close_transport
