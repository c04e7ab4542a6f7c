// SPDX-License-Identifier: BSD-3-Clause
// A disk from its driver's side, whatever kind of device it is: requests in batches, on any of its queues. Offsets and sizes are
// bytes. Each kind (driver/blk.h, driver/nvme.h) is a table of operations; which one is behind a socket, driver/disk_find.h finds out.
//
// Threads. One thread opens and closes; each queue then belongs to one thread.
#pragma once

#include <sidecard/client.h>

#include <stdbool.h>
#include <stdint.h>

struct sdc_driver_disk;
struct sdc_driver_disk_queue;

// What the disk is, as it said when it was opened.
struct sdc_driver_disk_info {
    const char *device;       // "virtio-blk", ...
    const char *ring;         // what its queues look like: "split", "packed", "nvme"
    uint64_t size;            // bytes
    uint32_t block_size;      // bytes; 512 when the device does not say
    uint64_t request_max;     // bytes of data that one request can have
    uint16_t queues;          // that the device has
    uint16_t queue_size;      // entries of the queues, once they are set up
    const char *notified_by;  // how its queues are notified, once they are set up; "": nobody says
    bool read_only;
    bool flush; // it has a volatile cache
    bool discard;
    bool write_zeroes;
    bool unmap; // WRITE_ZEROES may deallocate
    bool compare;
    uint64_t discard_max; // bytes of one request
    uint64_t write_zeroes_max;
    struct {
        uint64_t features;  // negotiated
        uint32_t seg_max;   // data segments in one request
        uint32_t size_max;  // bytes of one segment
        bool in_order;      // they come back in the order in which they were submitted
        bool packed;        // the queues are packed rings
    } virtio; // zero for other devices
    struct {
        uint32_t nsid;
        uint32_t version; // as in the register VS
        char serial[21];  // printable
        char model[41];
        char firmware[9];
        bool sgl;     // it is told by SGLs where data is
        bool shadows; // shadow doorbells are used, once queues are set up
    } nvme; // likewise
};

// How to use it.
struct sdc_driver_disk_options {
    uint16_t queues;      // to set up; 0: 1
    uint16_t queue_size;  // entries; 0: as the kind of device has it
    uint32_t depth;       // requests in flight on each queue; 0: 128, or as many as it holds
    uint64_t request_max; // bytes of data in one request; 0: 128 KiB, or what the device takes
    bool poll;            // no interrupts
    enum sdc_client_memory_kind memory; // of the queues
};

enum { SDC_DRIVER_DISK_DEPTH = 128, SDC_DRIVER_DISK_REQUEST = 128 * 1024 }; // what 0 means there

enum sdc_driver_disk_op {
    SDC_DRIVER_DISK_READ,
    SDC_DRIVER_DISK_WRITE,
    SDC_DRIVER_DISK_FLUSH,
    SDC_DRIVER_DISK_DISCARD,
    SDC_DRIVER_DISK_WRITE_ZEROES,
    SDC_DRIVER_DISK_WRITE_ZEROES_UNMAP,
    SDC_DRIVER_DISK_COMPARE, // with the data
    SDC_DRIVER_DISK_GET_ID,  // virtio-blk's: 20 bytes to data
};

// The caller's, who leaves it alone from submit until it is taken back.
struct sdc_driver_disk_request {
    enum sdc_driver_disk_op op;
    uint64_t offset; // bytes
    uint64_t size;   // bytes
    uint64_t data;   // iova of the data, in memory that was mapped
    int result;      // 0, -EIO, -ENOTSUP, -EILSEQ (COMPARE: it is something else), or -EPROTO (no such status)
    uint16_t status; // what the device said, in its own numbers
    void *owner;     // the caller's
    uint32_t slot;   // the queue's
};

struct sdc_driver_disk_ops {
    // See the functions below. recover and reset_queue may be absent.
    int (*start)(struct sdc_driver_disk *disk, const struct sdc_driver_disk_options *options, struct sdc_error *err);
    void (*close)(struct sdc_driver_disk *disk);
    int (*map)(struct sdc_driver_disk *disk, const struct sdc_client_memory *memory, struct sdc_error *err);
    int (*reset_queue)(struct sdc_driver_disk *disk, uint16_t index, struct sdc_error *err);
    int (*recover)(struct sdc_driver_disk *disk, uint32_t timeout_ms, struct sdc_error *err);
    int (*check)(struct sdc_driver_disk *disk, struct sdc_error *err);
    struct sdc_driver_disk_queue *(*queue)(struct sdc_driver_disk *disk, uint16_t index);
};

struct sdc_driver_disk_queue_ops {
    int (*submit)(struct sdc_driver_disk_queue *queue, struct sdc_driver_disk_request **requests, unsigned count);
    int (*kick)(struct sdc_driver_disk_queue *queue, struct sdc_error *err);
    int (*take)(struct sdc_driver_disk_queue *queue, struct sdc_driver_disk_request **requests, unsigned max,
                struct sdc_error *err);
    int (*wait)(struct sdc_driver_disk_queue *queue, int timeout_ms, struct sdc_error *err);
};

// A kind of disk embeds it at the start of its own.
struct sdc_driver_disk {
    const struct sdc_driver_disk_ops *ops;
    struct sdc_driver_disk_info info;
};

// Likewise its queues.
struct sdc_driver_disk_queue {
    const struct sdc_driver_disk_queue_ops *ops;
    uint16_t index;
    bool polled; // nobody can wait for it
};

// Sets its queues up and lets it go. Once; options may be NULL. -EINVAL: it has no such queues, or takes no
// such requests; -E2BIG: its queues don't hold as many requests.
int sdc_driver_disk_start(struct sdc_driver_disk *disk, const struct sdc_driver_disk_options *options,
                          struct sdc_error *err);
// Resets the device; requests in flight are lost. NULL is fine.
void sdc_driver_disk_close(struct sdc_driver_disk *disk);
const struct sdc_driver_disk_info *sdc_driver_disk_info(const struct sdc_driver_disk *disk);
// Memory for data. It has to outlive the disk. Its iova is not in [0, 4 GiB), where the driver has its own.
int sdc_driver_disk_map(struct sdc_driver_disk *disk, const struct sdc_client_memory *memory, struct sdc_error *err);
// Resets one queue and sets it up again. Requests that were in flight on it are the caller's again; whether
// the device has done them is not known. Other queues go on. Called by the thread that started the disk; the
// queue's own thread leaves it alone meanwhile. -ENOTSUP: the device cannot. After any other error the queue is not to be used.
int sdc_driver_disk_reset_queue(struct sdc_driver_disk *disk, uint16_t index, struct sdc_error *err);
// The device is gone: tries for timeout_ms to find it again, as it was set up. Requests in flight stay in flight. Any
// queue's thread; those that come while another does it, or after it, wait for it and are done. -ENOTSUP: there is no way.
int sdc_driver_disk_recover(struct sdc_driver_disk *disk, uint32_t timeout_ms, struct sdc_error *err);
// Whether the device is alive: 0, or an error (gone; -EIO: it needs a reset). Any thread.
int sdc_driver_disk_check(struct sdc_driver_disk *disk, struct sdc_error *err);
struct sdc_driver_disk_queue *sdc_driver_disk_queue(struct sdc_driver_disk *disk, uint16_t index);

// --- on a queue's thread ---

// Adds requests; the device does not see them before the next kick. How many were taken, in order (fewer: the
// queue is full), or -EINVAL when the next one is not what the device takes: an offset or size that is no multiple of 512, too
// much data, an operation that this kind of device has not got.
static inline int sdc_driver_disk_submit(struct sdc_driver_disk_queue *queue, struct sdc_driver_disk_request **requests,
                                         unsigned count)
{
    return queue->ops->submit(queue, requests, count);
}

// Shows the device what was submitted. 1 if it wanted to be notified and was, 0, or an error: the device is
// gone.
static inline int sdc_driver_disk_kick(struct sdc_driver_disk_queue *queue, struct sdc_error *err)
{
    return queue->ops->kick(queue, err);
}

// Takes back up to max requests that are finished, results set. How many, or -EPROTO with *err filled: the
// device broke the rules.
static inline int sdc_driver_disk_take(struct sdc_driver_disk_queue *queue, struct sdc_driver_disk_request **requests,
                                       unsigned max, struct sdc_error *err)
{
    return queue->ops->take(queue, requests, max, err);
}

// Waits until a request may have finished, at most timeout_ms. 1: look; 0: time up; or an error: the device
// is gone.
static inline int sdc_driver_disk_wait(struct sdc_driver_disk_queue *queue, int timeout_ms, struct sdc_error *err)
{
    return queue->ops->wait(queue, timeout_ms, err);
}

// Does one request and waits for it, with nothing else in flight on the queue. Its result, or -ETIMEDOUT, or
// another error.
int sdc_driver_disk_do(struct sdc_driver_disk_queue *queue, struct sdc_driver_disk_request *request, int timeout_ms,
                       struct sdc_error *err);

// --- for kinds of disks ---

// -EINVAL when a start wants more queues than there are.
int sdc_driver_disk_check_queues(const struct sdc_driver_disk *disk, const struct sdc_driver_disk_options *options,
                                 struct sdc_error *err);
// Whether submit takes a request, by the rules of submit that all kinds have: whole sectors, of which there are some.
static inline bool sdc_driver_disk_is_whole(const struct sdc_driver_disk_request *request)
{
    enum { SECTOR = 512 };
    if (request->op == SDC_DRIVER_DISK_FLUSH || request->op == SDC_DRIVER_DISK_GET_ID)
        return true;
    return (request->offset | request->size) % SECTOR == 0 && request->size > 0;
}
