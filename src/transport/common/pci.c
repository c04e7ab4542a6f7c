// SPDX-License-Identifier: BSD-3-Clause
// What a PCI device asks of its host.
#include "transport/common/pci_core.h"

// Devices inside the library have nothing going on in any thread when their host goes. Of an author's any thread may raise an interrupt at
// any time, so that the host has to stay until it has.
static void lock(struct sdc_pci_core *core)
{
    if (core)
        pthread_mutex_lock(&core->host_lock);
}

static void unlock(struct sdc_pci_core *core)
{
    if (core)
        pthread_mutex_unlock(&core->host_lock);
}

void sdc_pci_set_host(struct sdc_pci_device *device, struct sdc_pci_host *host)
{
    lock(device->core);
    device->host = host;
    unlock(device->core);
}

void sdc_pci_interrupt(struct sdc_pci_device *device, enum sdc_pci_irq kind, uint32_t vector)
{
    lock(device->core);
    struct sdc_pci_host *host = device->host;
    if (host)
        host->ops->interrupt(host, kind, vector);
    unlock(device->core);
}

void sdc_pci_ready(struct sdc_pci_device *device)
{
    struct sdc_pci_host *host = device->host;

    if (host)
        host->ops->ready(host);
}
