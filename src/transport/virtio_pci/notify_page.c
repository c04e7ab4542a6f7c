// SPDX-License-Identifier: BSD-3-Clause
// The page of notification registers as memory that clients may map, where every queue polls always: a driver's write then is a store to
// memory, which no monitor sees. It wakes nobody, and nobody need be woken: queues look at their rings. Those whose rings are in remote
// memory, which is not polled, look at their registers instead: each is BELL_SILENT until a driver has written to it.
//
// Each client gets a page of its own, so that nobody who has gone can ring for, or learn from, whoever comes next.
#include "transport/virtio_pci/card.h"

#include "os/fd.h"
#include "os/memfd.h"

#include <string.h>

// The BAR's length in a file, of which only this page is ever touched.
enum { FILE_SIZE = 4 * VIRTIO_PCI_PAGE };

static void drop_page(struct virtio_pci *card)
{
    struct sdc_pci_mappable *mappable = &card->pci.bars[VIRTIO_PCI_BAR].mappable;

    for (uint16_t i = 0; i < card->core->device->queues_count; i++)
        card->core->queues[i].bell = NULL;
    if (card->bells)
        sdc_unmap(card->bells, VIRTIO_PCI_PAGE);
    if (mappable->size > 0)
        sdc_fd_close(&mappable->fd);
    card->bells = NULL;
    *mappable = (struct sdc_pci_mappable){0};
}

static int make_page(struct virtio_pci *card)
{
    void *page;
    int fd = sdc_memfd_new("sidecard-notify", FILE_SIZE);
    if (fd < 0)
        return fd;
    int rc = sdc_fd_map_part(fd, VIRTIO_PCI_NOTIFY, VIRTIO_PCI_PAGE, true, &page);
    if (rc < 0) {
        sdc_fd_close(&fd);
        return rc;
    }
    memset(page, 0xff, VIRTIO_PCI_PAGE); // SDC_BELL_SILENT
    card->bells = page;
    for (uint16_t i = 0; i < card->core->device->queues_count; i++)
        card->core->queues[i].bell = &card->bells[i];
    card->pci.bars[VIRTIO_PCI_BAR].mappable =
        (struct sdc_pci_mappable){.offset = VIRTIO_PCI_NOTIFY, .size = VIRTIO_PCI_PAGE, .fd = fd};
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
