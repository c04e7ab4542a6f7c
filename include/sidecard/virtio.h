// SPDX-License-Identifier: BSD-3-Clause
// The virtio device interface. A virtio device (disk, network port, ...) implements struct sdc_virtio_ops and
// knows nothing of PCI, sockets or VMMs: it has features, a configuration space and queues, from which it takes
// requests and to which it gives them back.
//
// Threads. A device has a home loop, where its driver-facing state changes (features, configuration, reset), and each
// queue has a loop of its own (perhaps the same), where its requests are taken and given. A comment at each
// function says on which of them it is called.
#pragma once

#include <sidecard/error.h>
#include <sidecard/memory.h>

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sdc_loop;
struct sdc_virtqueue;
struct sdc_virtio_core;
struct sdc_virtio_device;

// Feature bits that belong to the transport and the rings (virtio 1.2, section 6); the device's own are below.
#define SDC_VIRTIO_F_INDIRECT_DESC   (UINT64_C(1) << 28)
#define SDC_VIRTIO_F_EVENT_IDX       (UINT64_C(1) << 29)
#define SDC_VIRTIO_F_VERSION_1       (UINT64_C(1) << 32)
#define SDC_VIRTIO_F_ACCESS_PLATFORM (UINT64_C(1) << 33)
#define SDC_VIRTIO_F_RING_PACKED     (UINT64_C(1) << 34)
#define SDC_VIRTIO_F_IN_ORDER        (UINT64_C(1) << 35)
#define SDC_VIRTIO_F_ORDER_PLATFORM  (UINT64_C(1) << 36)
#define SDC_VIRTIO_F_NOTIFICATION_DATA (UINT64_C(1) << 38)
#define SDC_VIRTIO_F_RING_RESET      (UINT64_C(1) << 40)

// Device status bits (virtio 1.2, 2.1).
enum sdc_virtio_status {
    SDC_VIRTIO_S_ACKNOWLEDGE = 1,
    SDC_VIRTIO_S_DRIVER = 2,
    SDC_VIRTIO_S_DRIVER_OK = 4,
    SDC_VIRTIO_S_FEATURES_OK = 8,
    SDC_VIRTIO_S_NEEDS_RESET = 64,
    SDC_VIRTIO_S_FAILED = 128,
};

// One request: a descriptor chain, checked and translated, with what the device keeps about it behind it. Readable
// bytes are what the driver sent, writable bytes what it wants filled; each is one stream, however the driver laid it out.
struct sdc_virtio_request {
    struct sdc_virtqueue *queue;
    uint64_t readable_size; // bytes
    uint64_t writable_size; // bytes
    int fault; // 0, or -EFAULT/-EACCES: a part of the chain lies outside the guest's memory: fail the request
};

enum { SDC_VIRTIO_STATE_MAX = 64 };

struct sdc_virtio_ops {
    const char *name;
    uint16_t device_id;    // virtio 1.2, section 5
    uint32_t pci_class;    // class, subclass, interface as 0xCCSSII, for a PCI transport to show
    uint32_t request_size; // bytes of the device's own memory with each request, zeroed when made

    // The device's own feature bits (0 to 23, 50 to 127 truncated to 64). Home loop. May be NULL: none.
    uint64_t (*features)(struct sdc_virtio_device *device);
    // The driver has accepted features; false refuses the combination (FEATURES_OK stays clear). Home loop. May be NULL.
    bool (*accept)(struct sdc_virtio_device *device, uint64_t features);
    // Configuration space. offset + size lies inside config_size. Home loop. config_write may be NULL: all read-only; config_read
    // too where config_size is 0.
    void (*config_read)(struct sdc_virtio_device *device, uint32_t offset, void *local, uint32_t size);
    void (*config_write)(struct sdc_virtio_device *device, uint32_t offset, const void *local, uint32_t size);
    // A queue comes to life, or has given back its last request and ends. The queue's loop. start may fail with a negative
    // errno: the device then needs a reset. May be NULL: nothing is to be done.
    int (*queue_start)(struct sdc_virtio_device *device, struct sdc_virtqueue *queue);
    void (*queue_stop)(struct sdc_virtio_device *device, struct sdc_virtqueue *queue);
    // The queue is to stop and waits for the requests that were taken: give up on those that have not begun. The queue's loop. May be
    // NULL.
    void (*queue_cancel)(struct sdc_virtio_device *device, struct sdc_virtqueue *queue);
    // There may be requests to take. The queue's loop.
    void (*queue_work)(struct sdc_virtio_device *device, struct sdc_virtqueue *queue);
    // What the device wrote could not be brought to the driver: turn the request into a failed one, in its writable stream. How many bytes
    // of that are written now. The queue's loop. May be NULL: it is given back as it is.
    uint32_t (*queue_lost)(struct sdc_virtio_device *device, struct sdc_virtio_request *request);
    // Every queue has ended; forget what the driver set. Home loop. May be NULL.
    void (*reset)(struct sdc_virtio_device *device);
    // What the driver has set in the device, beyond features and queues, for a state record: at most SDC_VIRTIO_STATE_MAX bytes. load gets
    // what save wrote in another process, after accept; it is not to be trusted. Home loop. Both may be NULL: nothing.
    void (*state_save)(struct sdc_virtio_device *device, void *bytes);
    void (*state_load)(struct sdc_virtio_device *device, const void *bytes);
    // Frees device, and takes out what it has on its home loop (timers and the like). Home loop, or when no loop runs; no queue runs. May
    // be NULL: there is nothing to free.
    void (*destroy)(struct sdc_virtio_device *device);
};

// A device. Implementations embed it at the start of their own and fill it before they hand it to a transport.
struct sdc_virtio_device {
    const struct sdc_virtio_ops *ops;
    uint32_t config_size;    // bytes
    uint16_t queues_count;   // 1 to 1024
    uint16_t queue_size_max; // entries, 1 to 32768; power of two
    uint64_t withheld;       // features of the rings and the transport that are not to be offered
    struct sdc_virtio_core *core; // set by the transport
};

// --- for the device, on the queue's loop ---

// Takes up to max requests. Returns how many; 0 when there are none, when this turn's budget is used up (queue_work is
// called again) or when the queue is broken. Each must be given back exactly once.
SDC_PUBLIC unsigned sdc_virtqueue_take(struct sdc_virtqueue *queue, struct sdc_virtio_request **requests, unsigned max);

// Gives a request back; the first `written` bytes of its writable stream were written. The used index moves and the driver is
// interrupted once at the end of the loop's turn. The request's memory is the queue's again.
SDC_PUBLIC void sdc_virtqueue_give(struct sdc_virtio_request *request, uint32_t written);

// The same for a request of which nothing was done, because the queue is to stop: true if it stays in flight for whoever goes on with the
// queue, and is not the device's any more; false if it has to be given, failed.
SDC_PUBLIC bool sdc_virtqueue_leave(struct sdc_virtio_request *request);

SDC_PUBLIC uint16_t sdc_virtqueue_index(const struct sdc_virtqueue *queue);
SDC_PUBLIC struct sdc_loop *sdc_virtqueue_loop(const struct sdc_virtqueue *queue);
// A pointer of the device's own for each queue.
SDC_PUBLIC void sdc_virtqueue_set_context(struct sdc_virtqueue *queue, void *context);
SDC_PUBLIC void *sdc_virtqueue_context(const struct sdc_virtqueue *queue);
// The features that the driver accepted.
SDC_PUBLIC uint64_t sdc_virtqueue_features(const struct sdc_virtqueue *queue);

// The device's own request_size bytes.
SDC_PUBLIC void *sdc_virtio_request_private(struct sdc_virtio_request *request);
SDC_PUBLIC struct sdc_virtio_request *sdc_virtio_request_of(void *private_memory);

// Copies size bytes of the readable stream, from offset. 0, -EINVAL when the stream is shorter, -EFAULT when they lie in a
// part that is outside the guest's memory. Control data: read any byte of it once only.
SDC_PUBLIC int sdc_virtio_request_read(struct sdc_virtio_request *request, uint64_t offset, void *local, size_t size);
// Copies size bytes to the writable stream, from offset. Errors as above.
SDC_PUBLIC int sdc_virtio_request_write(struct sdc_virtio_request *request, uint64_t offset, const void *local,
                                        size_t size);
// The spans of [offset, offset + size) of the readable or the writable stream: *spans points to *count of them. They are
// the request's own, good until the next call or until it is given back. Errors as above, and -ENOMEM.
SDC_PUBLIC int sdc_virtio_request_spans(struct sdc_virtio_request *request, bool writable, uint64_t offset, uint64_t size,
                                        const struct sdc_span **spans, uint32_t *count);

// The device cannot go on (virtio 1.2, 2.1.2): NEEDS_RESET and a configuration interrupt. Any of the device's loops.
SDC_PUBLIC void sdc_virtqueue_break(struct sdc_virtqueue *queue, const char *reason);

// --- for the device, on the home loop ---

// The home loop, from when the device is plugged in. Any thread.
SDC_PUBLIC struct sdc_loop *sdc_virtio_loop(const struct sdc_virtio_device *device);

// The configuration space changed: new generation and, once the driver is up, a configuration interrupt.
SDC_PUBLIC void sdc_virtio_config_changed(struct sdc_virtio_device *device);

#ifdef __cplusplus
}
#endif
