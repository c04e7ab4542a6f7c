// SPDX-License-Identifier: BSD-3-Clause
// A namespace of an NVMe controller as a disk (NVMe base specification 2.0, NVM command set specification 1.0), for any controller
// behind a vfio-user connection.
#pragma once

#include "driver/disk.h"
#include "driver/doorbell.h"

#define SDC_DRIVER_NVME_CLASS UINT32_C(0x010802) // PCI class code

enum sdc_driver_nvme_shadows {
    SDC_DRIVER_NVME_SHADOWS_AUTO, // shadow doorbells if the controller has them and memory is shared
    SDC_DRIVER_NVME_SHADOWS_ON,
    SDC_DRIVER_NVME_SHADOWS_OFF,
};

struct sdc_driver_nvme_options {
    uint32_t nsid; // 0: the first that is active
    bool sgl;      // say where data is by SGLs, not by PRPs
    enum sdc_driver_nvme_shadows shadows;
    enum sdc_driver_notify notify;
    enum sdc_client_memory_kind memory; // of the admin queue
};

// Enables the controller, and finds out what the namespace is. client is the disk's from then on, also when this fails. -ENODEV: there
// is no such controller, or namespace; -ENOTSUP: it has not got what the options say.
int sdc_driver_nvme_open(struct sdc_vfio_client *client, const struct sdc_driver_nvme_options *options,
                         struct sdc_driver_disk **disk, struct sdc_error *err);
