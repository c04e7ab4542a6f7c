// SPDX-License-Identifier: BSD-3-Clause
// The adaptor that shows a virtio device as a PCI device (virtio 1.2, 4.1, modern interface only). BAR1 holds the MSI-X table,
// BAR2 the pending bits, BAR4 the four virtio structures on a page each.
#pragma once

#include <sidecard/pci.h>
#include <sidecard/virtio.h>

#include "loop/loop.h"

// Takes over device, also when it fails. loops[0] is the home loop.
int sdc_virtio_pci_new(struct sdc_virtio_device *device, struct sdc_loop *const *loops, unsigned loops_count,
                       struct sdc_pci_device **pci, struct sdc_error *err);
// Before any client, if every queue polls always: lets clients map the notification registers. A write to them wakes nobody then.
int sdc_virtio_pci_map_notifications(struct sdc_pci_device *pci, struct sdc_error *err);
