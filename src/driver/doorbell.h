// SPDX-License-Identifier: BSD-3-Clause
// Ways to tell a PCI device of something new in one of its queues: a message, an eventfd that stands for it
// (GET_REGION_IO_FDS), or a write to the device's register, if the server lets us map it.
#pragma once

#include <sidecard/client.h>

#include <stdbool.h>
#include <stdint.h>

enum sdc_driver_notify {
    SDC_DRIVER_NOTIFY_AUTO, // the first that there is: mapped, ioeventfd, message
    SDC_DRIVER_NOTIFY_MESSAGE,
    SDC_DRIVER_NOTIFY_IOEVENTFD,
    SDC_DRIVER_NOTIFY_MAPPED,
};

// "auto", "message", "ioeventfd", "mapped".
const char *sdc_driver_notify_name(enum sdc_driver_notify way);

// What the server offers for a part of a region in which the registers are.
struct sdc_driver_doorbells {
    struct sdc_vfio_client *client;
    uint32_t region;
    uint64_t offset; // of the part
    struct sdc_vfio_mapping mapping;
    struct sdc_vfio_ioeventfds ioeventfds;
};

// The register of one queue.
struct sdc_driver_doorbell {
    enum sdc_driver_notify way; // how it is rung; AUTO: not at all yet
    uint64_t offset;            // in the region
    int fd;
    void *mapped;
};

// Asks the server for what `way` needs. A server that has none of it is no error here; one whose answer is broken
// is.
int sdc_driver_doorbells_open(struct sdc_driver_doorbells *doorbells, struct sdc_vfio_client *client, uint32_t region,
                              uint64_t offset, uint64_t size, enum sdc_driver_notify way, struct sdc_error *err);
// Zeroed ones do no harm.
void sdc_driver_doorbells_close(struct sdc_driver_doorbells *doorbells);

// Fills *bell for a register at `offset` of the region, to which `size` bytes (2 or 4) are written whose lower 16
// bits are value. -ENOTSUP: the server does not offer that way for it.
int sdc_driver_doorbell_choose(const struct sdc_driver_doorbells *doorbells, enum sdc_driver_notify way, uint64_t offset,
                               uint32_t size, uint16_t value, struct sdc_driver_doorbell *bell, struct sdc_error *err);
// Writes size bytes of value, or what stands for that. Any thread; does not wait for the device.
int sdc_driver_doorbell_ring(const struct sdc_driver_doorbells *doorbells, const struct sdc_driver_doorbell *bell,
                             uint32_t value, uint32_t size, struct sdc_error *err);
