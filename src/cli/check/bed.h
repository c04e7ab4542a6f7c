// SPDX-License-Identifier: BSD-3-Clause
// What the tests of rings and of disks lie on: one virtio device over whichever transport is behind the socket, with memory, and with
// queues of raw rings (ring.h) that any of its tests may misuse. Each function ends the test when the device does what it may not.
#pragma once

#include "cli/check/check.h"
#include "cli/check/ring.h"
#include "cli/check/vhost.h"
#include "driver/device.h"

#include <sidecard/virtio.h>

enum {
    SDC_CHECK_QUEUES_MAX = 64,
    SDC_CHECK_VHOST_RING_MAX = 1024, // what QEMU's front end goes to
};

struct sdc_check_bed_wishes {
    uint64_t features; // virtio's: of those that are offered
    uint64_t protocol; // vhost-user's, likewise; 0: all that we know but notifications in band
    bool bare;         // vhost-user: as front ends were before there were protocol features
    bool iommu;        // vhost-user: behind an IOMMU (VIRTIO_F_ACCESS_PLATFORM), which has to be offered
    bool in_band;      // vhost-user: notifications are messages, which have to be offered too
    uint64_t memory;   // bytes; 0: 4 MiB
};

struct sdc_check_queue {
    bool started;
    struct sdc_check_ring ring;
    int kick_fd, call_fd, err_fd; // -1 before they are made
    uint64_t calls;               // interrupts that were taken from call_fd
};

struct sdc_check_bed {
    struct sdc_check *check;
    bool vhost_user;             // else virtio-pci over vfio-user
    struct sdc_check_vhost vhost;
    struct sdc_driver_device pci;
    uint64_t offered;    // virtio's features
    uint64_t features;   // negotiated
    uint16_t queues_max; // that the device has
    uint16_t ring_max;   // vhost-user: entries that a ring may have, as far as we know
    bool bare;           // as it was wished
    bool iommu;
    bool in_band;
    struct sdc_check_bed_wishes wishes;
    int inflight_fd; // the log of what is in flight, -1: none;
    struct sdc_vhost_inflight inflight; // where it is;
    bool inflight_shown;                // and whether the back end was given it
    struct sdc_client_memory memory;
    uint64_t user_offset; // vhost-user: of user addresses to guest addresses
    struct sdc_check_queue queues[SDC_CHECK_QUEUES_MAX];
};

// Connects, agrees on features, and shows memory.
void sdc_check_bed_open(struct sdc_check_bed *bed, struct sdc_check *check, const struct sdc_check_bed_wishes *wishes);
// Resets the device as a VMM that ends in order does, and closes the connection: for tests that go on with another one.
void sdc_check_bed_close(struct sdc_check_bed *bed);
// Only closes the connection.
void sdc_check_bed_vanish(struct sdc_check_bed *bed);

// [offset, offset + size) of the device's configuration. Ends the test as not offered when there is no way to read it.
void sdc_check_bed_config(struct sdc_check_bed *bed, uint32_t offset, void *data, uint32_t size);

// Makes queue `index` with a ring of `size` entries (0: 256), or as many as the device takes, but does not tell the device.
void sdc_check_bed_make_queue(struct sdc_check_bed *bed, uint16_t index, uint16_t size);
// Tells the device of it. It goes on where the ring is.
void sdc_check_bed_start_queue(struct sdc_check_bed *bed, uint16_t index);
// Lets the device go (DRIVER_OK), after its queues have started.
void sdc_check_bed_run(struct sdc_check_bed *bed);
// All of that for queues 0 to queues - 1.
void sdc_check_bed_run_queues(struct sdc_check_bed *bed, uint16_t queues, uint16_t size);
// The largest ring that queue `index` may have, as far as the device says so; 0: there is no such queue.
uint16_t sdc_check_bed_queue_max(struct sdc_check_bed *bed, uint16_t index);
// The whole device is reset and brought up again with the features it had; its queues are to be made and started anew.
void sdc_check_bed_reset(struct sdc_check_bed *bed);

// Memory whose iova is a multiple of 16.
uint8_t *sdc_check_bed_take(struct sdc_check_bed *bed, uint64_t size, uint64_t *iova);

// Notifies the device, whatever it wants; or shows what was added, and notifies it if it wants that.
void sdc_check_bed_kick(struct sdc_check_bed *bed, uint16_t queue);
void sdc_check_bed_show(struct sdc_check_bed *bed, uint16_t queue);
// Waits until chain `id` is used, of which an interrupt has to tell.
void sdc_check_bed_wait(struct sdc_check_bed *bed, uint16_t queue, int id);
// Waits until nothing is in flight; polled: without interrupts.
void sdc_check_bed_wait_all(struct sdc_check_bed *bed, uint16_t queue, bool polled);
// Takes what the device has used already. How many.
unsigned sdc_check_bed_take_used(struct sdc_check_bed *bed, uint16_t queue);
// Whether an interrupt has come since the last call, or comes within ms.
bool sdc_check_bed_called(struct sdc_check_bed *bed, uint16_t queue, int ms);
// Whether the connection was closed, or is within ms.
bool sdc_check_bed_gone(struct sdc_check_bed *bed, int ms);
// Whether the device says that the queue, or all of it, is broken.
bool sdc_check_bed_broken(struct sdc_check_bed *bed, uint16_t queue);

// --- vhost-user: for bed.c, and for tests that are about it ---

void sdc_check_bed_vhost_open(struct sdc_check_bed *bed, const struct sdc_check_bed_wishes *wishes);
void sdc_check_bed_vhost_config(struct sdc_check_bed *bed, uint32_t offset, void *data, uint32_t size);
// Starts a queue, or one that was stopped again; at `base`.
void sdc_check_bed_vhost_start(struct sdc_check_bed *bed, uint16_t index, uint32_t base);
// Stops a queue. Where the device says it is.
uint32_t sdc_check_bed_vhost_stop(struct sdc_check_bed *bed, uint16_t index);
// Makes the log of what is in flight (GET_INFLIGHT_FD), for all queues with rings of ring_max entries, unless there is one. Nothing
// where INFLIGHT_SHMFD was not agreed on. The first queue that starts shows it to the back end.
void sdc_check_bed_vhost_make_inflight(struct sdc_check_bed *bed);
// The connection ends as when one of both dies, and another begins: memory, queues and the log stay as they are, and none is started.
void sdc_check_bed_vhost_reconnect(struct sdc_check_bed *bed);
// Nothing where PROTOCOL_F_STATUS was not negotiated.
void sdc_check_bed_vhost_status(struct sdc_check_bed *bed, uint8_t status);
void sdc_check_bed_vhost_stop_all(struct sdc_check_bed *bed);
void sdc_check_bed_vhost_reset(struct sdc_check_bed *bed);
// SET_VRING_ADDR's payload for a queue, and the bed's memory as a region, as they should be.
struct sdc_vhost_vring_addr sdc_check_bed_vhost_addresses(const struct sdc_check_bed *bed, uint16_t index);
struct sdc_vhost_region sdc_check_bed_vhost_region(const struct sdc_check_bed *bed);
