// SPDX-License-Identifier: BSD-3-Clause
// Which kind of disk is behind a vfio-user connection.
#pragma once

#include "driver/nvme.h"

// What is wanted of a disk, whatever it turns out to be.
struct sdc_driver_disk_wishes {
    uint64_t without_features; // virtio: bits that are left alone
    struct sdc_driver_nvme_options nvme;
    enum sdc_driver_notify notify;
    enum sdc_client_memory_kind memory; // of what the driver keeps for itself
};

// Opens the disk that is there: an NVMe controller's namespace, by the PCI class, or else a virtio disk. client is the disk's from then
// on, also when this fails. -ENODEV: it is neither.
int sdc_driver_disk_find(struct sdc_vfio_client *client, const struct sdc_driver_disk_wishes *wishes, struct sdc_driver_disk **disk,
                         struct sdc_error *err);
