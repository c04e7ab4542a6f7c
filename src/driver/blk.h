// SPDX-License-Identifier: BSD-3-Clause
// A virtio disk from its driver's side (virtio 1.2, 5.2): requests in batches, on any of its queues. Offsets
// and sizes are bytes; the device wants them in multiples of 512.
//
// Threads. One thread opens and closes; each queue then belongs to one thread.
#pragma once

#include "driver/device.h"

struct sdc_driver_blk;
struct sdc_driver_blk_queue;

// What the disk is, as it said when it was opened.
struct sdc_driver_blk_info {
    uint64_t size;       // bytes
    uint32_t block_size; // bytes; 512 when the device does not say
    uint32_t seg_max;    // data segments in one request
    uint32_t size_max;   // bytes of one segment
    uint16_t queues;     // that the device has
    uint16_t queue_size; // entries of the queues, once they are set up
    bool read_only;
    bool flush; // it has a volatile cache
    bool discard;
    bool write_zeroes;
    bool unmap;           // WRITE_ZEROES may deallocate
    uint64_t discard_max; // bytes of one request
    uint64_t write_zeroes_max;
    uint64_t features; // negotiated
    bool in_order;   // they come back in the order in which they were submitted
    bool packed;       // the queues are packed rings
    const char *notified_by; // how its queues are notified, once they are set up; "": nobody says
};

// How to use it.
struct sdc_driver_blk_options {
    uint16_t queues;      // to set up; 0: 1
    uint16_t queue_size;  // entries; 0: as many as the device allows. Packed rings take any number
    uint32_t depth;       // requests in flight on each queue; 0: 128, or as many as it holds
    uint64_t request_max; // bytes of data in one request; 0: 128 KiB, or what the device takes
    bool poll;            // no interrupts
    bool private_memory;  // of the queues: see driver/device.h
};

enum sdc_driver_blk_op {
    SDC_DRIVER_BLK_READ,
    SDC_DRIVER_BLK_WRITE,
    SDC_DRIVER_BLK_FLUSH,
    SDC_DRIVER_BLK_DISCARD,
    SDC_DRIVER_BLK_WRITE_ZEROES,
    SDC_DRIVER_BLK_WRITE_ZEROES_UNMAP,
    SDC_DRIVER_BLK_GET_ID, // 20 bytes to data
};

// The caller's, who leaves it alone from submit until it is taken back.
struct sdc_driver_blk_request {
    enum sdc_driver_blk_op op;
    uint64_t offset; // bytes
    uint64_t size;   // bytes
    uint64_t data;   // iova of the data, in memory that was mapped
    int result;      // 0, -EIO, -ENOTSUP, or -EPROTO (no such status)
    void *owner;     // the caller's
    uint32_t slot;   // the queue's
};

// Opens the disk behind a transport, which is the disk's from then on, also when this fails, and finds out
// what it is. Feature bits in `without` are left alone though the device offers them. -ENODEV: it is another
// kind of device.
int sdc_driver_blk_open(struct sdc_driver_transport *transport, uint64_t without, struct sdc_driver_blk **blk,
                        struct sdc_error *err);
// Sets its queues up and lets it go. Once; options may be NULL. -EINVAL: it has no such queues, or takes no
// such requests; -E2BIG: its queues don't hold as many requests.
int sdc_driver_blk_start(struct sdc_driver_blk *blk, const struct sdc_driver_blk_options *options,
                         struct sdc_error *err);
// Resets the device; requests in flight are lost. NULL is fine.
void sdc_driver_blk_close(struct sdc_driver_blk *blk);
const struct sdc_driver_blk_info *sdc_driver_blk_info(const struct sdc_driver_blk *blk);
// Memory for data. It has to outlive blk. Its iova is not in [0, 4 GiB), where blk has its own.
int sdc_driver_blk_map(struct sdc_driver_blk *blk, const struct sdc_client_memory *memory,
                       struct sdc_error *err);
// Resets one queue and sets it up again. Requests that were in flight on it are the caller's again; whether
// the device has done them is not known. Otherwise as sdc_driver_device_reset_queue.
int sdc_driver_blk_reset_queue(struct sdc_driver_blk *blk, uint16_t index, struct sdc_error *err);
// The device is gone: as sdc_driver_device_recover. Requests in flight stay in flight.
int sdc_driver_blk_recover(struct sdc_driver_blk *blk, uint32_t timeout_ms, struct sdc_error *err);
// Whether the device is alive. Any thread.
int sdc_driver_blk_check(struct sdc_driver_blk *blk, struct sdc_error *err);
struct sdc_driver_blk_queue *sdc_driver_blk_queue(struct sdc_driver_blk *blk, uint16_t index);

// --- on a queue's thread ---

// Adds requests; the device does not see them before the next kick. How many were taken, in order (fewer: the
// queue is full), or -EINVAL when the next one has an offset or size that is no multiple of 512, or too much
// data.
int sdc_driver_blk_submit(struct sdc_driver_blk_queue *queue, struct sdc_driver_blk_request **requests,
                          unsigned count);
// Shows the device what was submitted. 1 if it wanted to be notified and was, 0, or an error: the device is
// gone.
int sdc_driver_blk_kick(struct sdc_driver_blk_queue *queue, struct sdc_error *err);
// Takes back up to max requests that are finished, results set. How many, or -EPROTO with *err filled: the
// device broke the rules.
int sdc_driver_blk_take(struct sdc_driver_blk_queue *queue, struct sdc_driver_blk_request **requests,
                        unsigned max, struct sdc_error *err);
// Waits until a request may have finished, at most timeout_ms. 1: look; 0: time up; or an error: the device
// is gone.
int sdc_driver_blk_wait(struct sdc_driver_blk_queue *queue, int timeout_ms, struct sdc_error *err);

// Does one request and waits for it, with nothing else in flight on the queue. Its result, or -ETIMEDOUT, or
// another error.
int sdc_driver_blk_do(struct sdc_driver_blk_queue *queue, struct sdc_driver_blk_request *request,
                      int timeout_ms, struct sdc_error *err);
