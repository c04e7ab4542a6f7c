// SPDX-License-Identifier: BSD-3-Clause
#include "driver/disk_find.h"

#include "base/bytes.h"
#include "driver/blk.h"
#include "driver/virtio_pci.h"

enum { REGION_CONFIG = 7, REVISION = 8 };

static int open_virtio(struct sdc_vfio_client *client, const struct sdc_driver_disk_wishes *wishes, struct sdc_driver_disk **disk,
                       struct sdc_error *err)
{
    struct sdc_driver_transport *transport;
    int ret = sdc_driver_virtio_pci_open(client, &transport, err);
    if (ret < 0)
        return ret;
    sdc_driver_virtio_pci_notify_by(transport, wishes->notify);
    return sdc_driver_blk_open(transport, wishes->without_features, disk, err);
}

static int open_nvme(struct sdc_vfio_client *client, const struct sdc_driver_disk_wishes *wishes, struct sdc_driver_disk **disk,
                     struct sdc_error *err)
{
    struct sdc_driver_nvme_options options = wishes->nvme;
    options.notify = wishes->notify;
    options.memory = wishes->memory;
    return sdc_driver_nvme_open(client, &options, disk, err);
}

int sdc_driver_disk_find(struct sdc_vfio_client *client, const struct sdc_driver_disk_wishes *wishes, struct sdc_driver_disk **disk,
                         struct sdc_error *err)
{
    uint8_t raw[4];
    int ret = sdc_vfio_client_read(client, REGION_CONFIG, REVISION, raw, sizeof raw, err);
    if (ret < 0) {
        sdc_vfio_client_close(client);
        return ret;
    }
    return sdc_get32(raw) >> 8 == SDC_DRIVER_NVME_CLASS ? open_nvme(client, wishes, disk, err)
                                                        : open_virtio(client, wishes, disk, err);
}
