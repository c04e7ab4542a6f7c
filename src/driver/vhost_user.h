// SPDX-License-Identifier: BSD-3-Clause
// A virtio device behind a vhost-user back end.
#pragma once

#include "driver/transport.h"

#include <sidecard/vhost.h>

enum sdc_driver_iommu {
    SDC_DRIVER_IOMMU_OFF,
    SDC_DRIVER_IOMMU_ON,    // the device's addresses are translated
    SDC_DRIVER_IOMMU_FLUSH, // and now and then all translations are void, as kernels do it
};

// A back end does not say what kind of device it has: the caller does (virtio 1.2, section 5). client is the
// transport's from then on, also when this fails.
// Notifications go in band if client was opened for that.
int sdc_driver_vhost_user_open(struct sdc_vhost_client *client, uint16_t device_id,
                               struct sdc_driver_transport **transport, struct sdc_error *err);
// Right after opening. -ENOTSUP: the back end knows no IOMMU.
int sdc_driver_vhost_user_iommu(struct sdc_driver_transport *transport, enum sdc_driver_iommu iommu, struct sdc_error *err);
