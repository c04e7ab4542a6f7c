// SPDX-License-Identifier: BSD-3-Clause
// The page of notification registers as memory that clients may map, where every queue polls always: a driver's write then is a store to
// memory, which no monitor sees. It wakes nobody, and nobody need be woken: queues look at their rings. Those whose rings are in remote
// memory, which is not polled, look at their registers instead: each is BELL_SILENT until a driver has written to it.
#include "transport/common/mapped_page.h"
#include "transport/virtio_pci/card.h"

#include <string.h>

static void drop_page(struct virtio_pci *card)
{
    void *page = card->bells;

    for (uint16_t i = 0; i < card->core->device->queues_count; i++)
        card->core->queues[i].bell = NULL;
    sdc_mapped_page_free(&card->pci.bars[VIRTIO_PCI_BAR].mappable, &page);
    card->bells = NULL;
}

static int make_page(struct virtio_pci *card)
{
    void *page;
    int rc = sdc_mapped_page_new(&card->pci.bars[VIRTIO_PCI_BAR].mappable, "sidecard-notify", VIRTIO_PCI_NOTIFY, &page);
    if (rc < 0)
        return rc;
    memset(page, 0xff, VIRTIO_PCI_PAGE); // SDC_BELL_SILENT
    card->bells = page;
    for (uint16_t i = 0; i < card->core->device->queues_count; i++)
        card->core->queues[i].bell = &card->bells[i];
    return 0;
}

int sdc_virtio_pci_map_notifications(struct sdc_pci_device *pci, struct sdc_error *err)
{
    struct virtio_pci *card = (struct virtio_pci *)(void *)pci;
    int rc = make_page(card);

    if (rc < 0)
        return sdc_error_set(err, rc, SDC_FAULT_HOST, "no memory for a page of notification registers: %s", strerror(-rc));
    return 0;
}

void virtio_pci_renew_notify_page(struct virtio_pci *card)
{
    if (!card->bells)
        return;
    drop_page(card);
    make_page(card); // without one, notifications are messages
}

void virtio_pci_free_notify_page(struct virtio_pci *card)
{
    drop_page(card);
}
