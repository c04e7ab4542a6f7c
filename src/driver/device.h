// SPDX-License-Identifier: BSD-3-Clause
// A virtio device from its driver's side, whatever its kind and transport: bringing it up
// (virtio 1.2, 3.1.1), its queues and their interrupts, taking it down. A driver for a kind of device
// (driver/blk.h) stands on it.
//
// Threads. One thread opens, starts and closes. Once it is started, each queue belongs to one thread, which
// may notify and wait for its queue; check may be called by any thread.
#pragma once

#include "driver/transport.h"
#include "driver/virtqueue.h"
#include "driver/waiter.h"

#include <pthread.h>

struct sdc_driver_device {
    struct sdc_driver_transport *transport;
    uint64_t features;     // negotiated
    uint16_t queues_count; // that are set up
    struct sdc_driver_queue **queues;
    struct sdc_driver_waiter *waiters; // each queue's
    int config_fd;                   // configuration interrupts, -1: none
    struct sdc_client_memory memory; // the queues'
    pthread_mutex_t recovering;      // held by the thread that does
};

// Resets the device, agrees on those of the wanted features that it offers, and stops before its queues: its
// configuration can be read now. transport is the device's from then on, also when this fails. VERSION_1 is
// wanted always, and required.
int sdc_driver_device_open(struct sdc_driver_device *device, struct sdc_driver_transport *transport,
                           uint64_t wanted, struct sdc_error *err);

struct sdc_driver_device_options {
    uint16_t queues;       // 1 to what the device has
    uint16_t queue_size;   // entries; 0: as many as the device allows. Packed rings take any number
    uint16_t indirect_max; // segments of a chain in an indirect table, if that feature is negotiated
    uint64_t iova;         // where the queues' memory begins; a multiple of 4096
    uint64_t extra;        // bytes of that memory that the caller takes for itself, from device->memory
    bool interrupts;       // an eventfd for each queue; else they are polled
    enum sdc_client_memory_kind memory; // of the queues
};
// Sets the queues up and lets the device go (DRIVER_OK).
int sdc_driver_device_start(struct sdc_driver_device *device, const struct sdc_driver_device_options *options,
                            struct sdc_error *err);

// Resets one queue and sets it up again as it was, empty: what was in flight on it is forgotten, and the
// device does not touch it any more. Other queues go on. Called by the thread that started the device; the
// queue's own thread leaves the queue alone meanwhile. -ENOTSUP: VIRTIO_F_RING_RESET was not negotiated.
// After any other error the queue is not to be used.
int sdc_driver_device_reset_queue(struct sdc_driver_device *device, uint16_t index, struct sdc_error *err);

// Resets the device, so that it does not reach our memory any more, and frees all. A zeroed device does no
// harm.
void sdc_driver_device_close(struct sdc_driver_device *device);

// Publishes what was added to a queue and notifies the device if it wants that. 1 if it was notified, 0, or
// an error.
int sdc_driver_device_kick(struct sdc_driver_device *device, uint16_t index, struct sdc_error *err);
// Waits for a queue's interrupt, at most timeout_ms. 1: it came; 0: the time is up, or a signal came; or an
// error: the device is gone.
int sdc_driver_device_wait(struct sdc_driver_device *device, uint16_t index, int timeout_ms,
                           struct sdc_error *err);
// The device is gone: tries for timeout_ms to find it again, as it was set up and with what was in flight. Any
// queue's thread; those that come while another does it, or after it, wait for it and are done. 0, or an error:
// -ENOTSUP, the transport or the device has no way to do so.
int sdc_driver_device_recover(struct sdc_driver_device *device, uint32_t timeout_ms, struct sdc_error *err);
// Whether the device is alive: 0, or an error (gone; -EIO: it needs a reset). A message to the device and
// back.
int sdc_driver_device_check(struct sdc_driver_device *device, struct sdc_error *err);
