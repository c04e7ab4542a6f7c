// SPDX-License-Identifier: BSD-3-Clause
// virtio over PCI (virtio 1.2, 4.1; modern devices only), over a vfio-user connection.
#pragma once

#include "driver/doorbell.h"
#include "driver/transport.h"

// Finds the device's registers and enables it. client is the transport's from then on, also when this fails.
// -ENODEV: no virtio device, or none that speaks virtio 1.
int sdc_driver_virtio_pci_open(struct sdc_vfio_client *client, struct sdc_driver_transport **transport,
                               struct sdc_error *err);

// How queues that are set up from now on are notified. AUTO at first; with another one, setting a queue up fails with
// -ENOTSUP where the server does not offer that.
void sdc_driver_virtio_pci_notify_by(struct sdc_driver_transport *transport, enum sdc_driver_notify way);
