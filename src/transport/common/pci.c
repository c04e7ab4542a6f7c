// SPDX-License-Identifier: BSD-3-Clause
// What a PCI device asks of its host.
#include <sidecard/pci.h>

void sdc_pci_interrupt(struct sdc_pci_device *device, enum sdc_pci_irq kind, uint32_t vector)
{
    struct sdc_pci_host *host = device->host;

    if (host)
        host->ops->interrupt(host, kind, vector);
}

void sdc_pci_ready(struct sdc_pci_device *device)
{
    struct sdc_pci_host *host = device->host;

    if (host)
        host->ops->ready(host);
}
