// SPDX-License-Identifier: BSD-3-Clause
#include "transport/virtio_pci/virtio_pci.h"

#include "base/bytes.h"
#include "base/check.h"
#include "base/log.h"
#include "os/fd.h"
#include "transport/virtio_pci/card.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

enum {
    VENDOR = 0x1af4,
    DEVICE_BASE = 0x1040, // + the virtio device id (virtio 1.2, 4.1.2)
    ISR_QUEUE = 1,
    ISR_CONFIG = 2,
    // Types of structure in vendor capabilities (virtio 1.2, 4.1.4).
    CAP_COMMON = 1,
    CAP_NOTIFY = 2,
    CAP_ISR = 3,
    CAP_DEVICE = 4,
    CAP_PCI = 5,
    // Offsets inside a vendor capability.
    CAP_LENGTH = 2,
    CAP_TYPE = 3,
    CAP_BAR = 4,
    CAP_OFFSET = 8,
    CAP_SIZE = 12,
    CAP_EXTRA = 16, // the notify multiplier; the window's data
};

static struct virtio_pci *card_of(struct sdc_pci_device *device)
{
    return (struct virtio_pci *)(void *)device;
}

// --- interrupts ---

static void raise(struct virtio_pci *card, uint16_t vector, uint8_t isr)
{
    if (vector != VIRTIO_PCI_NO_VECTOR) {
        sdc_pci_interrupt(&card->pci, SDC_PCI_MSIX, vector);
    } else if (!card->msix_enabled) {
        card->isr |= isr;
        if (!card->intx_disabled)
            sdc_pci_interrupt(&card->pci, SDC_PCI_INTX, 0);
    }
}

static void core_interrupt(void *context, uint16_t queue)
{
    struct virtio_pci *card = context;

    raise(card, card->queues[queue].vector, ISR_QUEUE);
}

static void core_config_interrupt(void *context)
{
    struct virtio_pci *card = context;

    card->pci.state_changes++;
    if (card->core->status & SDC_VIRTIO_S_DRIVER_OK)
        raise(card, card->config_vector, ISR_CONFIG);
}

static void core_ready(void *context)
{
    struct virtio_pci *card = context;

    card->pci.state_changes++;
    sdc_pci_ready(&card->pci);
}

static const struct sdc_virtio_core_ops core_ops = {
    .features = SDC_VIRTIO_F_NOTIFICATION_DATA,
    .interrupt = core_interrupt,
    .config_interrupt = core_config_interrupt,
    .ready = core_ready,
};

static bool card_intx_level(struct sdc_pci_device *device)
{
    struct virtio_pci *card = card_of(device);

    return card->isr != 0 && !card->intx_disabled;
}

// --- register accesses ---

// While a reset or a queue's start is under way only reads are served: the driver polls the status.
static int access_common(struct virtio_pci *card, uint64_t offset, struct sdc_pci_access *access)
{
    if (!access->write)
        access->value = virtio_pci_common_read(card, offset, access->size);
    else if (sdc_virtio_core_busy(card->core))
        return -EAGAIN;
    else
        virtio_pci_common_write(card, offset, access->size, access->value);
    return 0;
}

// Reading clears (virtio 1.2, 4.1.4.5).
static void access_isr(struct virtio_pci *card, uint64_t offset, struct sdc_pci_access *access)
{
    access->value = offset == 0 && !access->write ? atomic_exchange(&card->isr, 0) : 0;
}

static void access_device(struct virtio_pci *card, uint64_t offset, struct sdc_pci_access *access)
{
    struct sdc_virtio_device *device = card->core->device;
    uint8_t bytes[8] = {0};

    if (access->write)
        sdc_put64(bytes, access->value);
    access->value = 0;
    if (offset >= device->config_size)
        return;
    uint32_t size = (uint32_t)sdc_min(access->size, device->config_size - offset);
    if (access->write) {
        if (device->ops->config_write)
            device->ops->config_write(device, (uint32_t)offset, bytes, size);
    } else {
        device->ops->config_read(device, (uint32_t)offset, bytes, size);
        access->value = sdc_get64(bytes);
    }
}

// A notification is 16 bits, with VIRTIO_F_NOTIFICATION_DATA 32: the queue's number, and above it how far the driver has filled the ring
// (virtio 1.2, 4.1.5.2). Either is taken with the feature and without it. Each queue has a register of its own, which has to be the
// one that the number says. How far the ring is filled is a hint, and not trusted: the queue looks into the ring, which says it better.
static void access_notify(struct virtio_pci *card, uint64_t offset, struct sdc_pci_access *access)
{
    uint64_t queue = offset / VIRTIO_PCI_NOTIFY_MULTIPLIER;
    bool whole = offset % VIRTIO_PCI_NOTIFY_MULTIPLIER == 0 && (access->size == 2 || access->size == 4);
    uint64_t value = access->value;

    access->value = 0;
    if (!access->write || queue >= card->core->device->queues_count)
        return;
    if (whole && (value & UINT16_MAX) == queue)
        sdc_virtio_core_kick(card->core, (uint16_t)queue);
    else
        sdc_log_peer("virtio-pci: a notification of %" PRIu32 " bytes, 0x%" PRIx64 ", at the register of queue %" PRIu64, access->size,
                     value, queue);
}

// An eventfd for each queue's notification address, whatever the size of the write: what it would say beside the queue's number
// (VIRTIO_F_NOTIFICATION_DATA) is a hint.
static uint32_t card_io_fds(struct sdc_pci_device *device, uint32_t region, struct sdc_pci_io_fd *fds, uint32_t max)
{
    struct sdc_virtio_core *core = card_of(device)->core;
    uint32_t count = region == VIRTIO_PCI_BAR ? (uint32_t)sdc_min(max, core->device->queues_count) : 0;

    for (uint16_t i = 0; i < count; i++) {
        int fd = sdc_virtio_core_kick_fd(core, i);
        if (fd < 0) {
            fd = sdc_eventfd_new();
            if (fd < 0)
                return i; // the host is out of fds: the other queues are kicked by messages
            sdc_virtio_core_set_kick_fd(core, i, fd);
        }
        fds[i] = (struct sdc_pci_io_fd){
            .offset = VIRTIO_PCI_NOTIFY + (uint64_t)i * VIRTIO_PCI_NOTIFY_MULTIPLIER, .size = 0, .fd = fd};
    }
    return count;
}

static void card_adopt_io_fds(struct sdc_pci_device *device, uint32_t region, const int *fds, uint32_t count)
{
    struct sdc_virtio_core *core = card_of(device)->core;

    for (uint32_t i = 0; i < count; i++) {
        if (region == VIRTIO_PCI_BAR && i < core->device->queues_count)
            sdc_virtio_core_set_kick_fd(core, (uint16_t)i, fds[i]);
        else
            sdc_fd_close(&(int){fds[i]});
    }
}

static void card_client_gone(struct sdc_pci_device *device)
{
    struct sdc_virtio_core *core = card_of(device)->core;

    for (uint16_t i = 0; i < core->device->queues_count; i++)
        sdc_virtio_core_set_kick_fd(core, i, -1);
    virtio_pci_renew_notify_page(card_of(device));
}

static int access_virtio(struct virtio_pci *card, struct sdc_pci_access *access)
{
    uint64_t offset = access->offset % VIRTIO_PCI_PAGE;

    switch (access->offset - offset) {
    case VIRTIO_PCI_COMMON:
        return access_common(card, offset, access);
    case VIRTIO_PCI_ISR:
        access_isr(card, offset, access);
        return 0;
    case VIRTIO_PCI_DEVICE:
        access_device(card, offset, access);
        return 0;
    case VIRTIO_PCI_NOTIFY:
        access_notify(card, offset, access);
        return 0;
    default:
        access->value = 0;
        return 0;
    }
}

static int card_access(struct sdc_pci_device *device, struct sdc_pci_access *access)
{
    struct virtio_pci *card = card_of(device);

    // Notifications change nothing, and are all that comes often.
    if (access->write && (access->region != VIRTIO_PCI_BAR || access->offset < VIRTIO_PCI_NOTIFY))
        device->state_changes++;
    switch (access->region) {
    case VIRTIO_PCI_TABLE_BAR:
        sdc_msix_table_access(card->msix_table, card->vectors, access);
        return 0;
    case VIRTIO_PCI_PBA_BAR:
        sdc_msix_pba_access(device, access);
        return 0;
    case VIRTIO_PCI_BAR:
        return access_virtio(card, access);
    default:
        access->value = 0;
        return 0;
    }
}

// --- configuration space ---

// The access that the window capability describes (virtio 1.2, 4.1.4.9), or false if it describes none.
static bool window_access(struct virtio_pci *card, bool write, struct sdc_pci_access *access)
{
    const uint8_t *cap = &card->pci.config[card->window_cap];
    uint32_t offset = sdc_get32(cap + CAP_OFFSET);
    uint32_t size = sdc_get32(cap + CAP_SIZE);

    *access = (struct sdc_pci_access){.region = cap[CAP_BAR], .offset = offset, .size = size, .write = write};
    if (write)
        access->value = sdc_get32(cap + CAP_EXTRA);
    return (size == 1 || size == 2 || size == 4) && offset % size == 0 && cap[CAP_BAR] < 6 &&
           sdc_within(offset, size, card->pci.bars[cap[CAP_BAR]].size);
}

static bool touches_window(const struct virtio_pci *card, uint32_t offset, uint32_t size)
{
    uint32_t data = card->window_cap + CAP_EXTRA;

    return offset < data + 4 && data < offset + size;
}

static int card_config_read(struct sdc_pci_device *device, uint32_t offset, uint32_t size)
{
    struct virtio_pci *card = card_of(device);
    struct sdc_pci_access access;

    if (offset <= SDC_PCI_STATUS && SDC_PCI_STATUS < offset + size) {
        uint8_t *status = &device->config[SDC_PCI_STATUS];
        *status = (uint8_t)((*status & ~SDC_PCI_STATUS_INTX) | (card->isr ? SDC_PCI_STATUS_INTX : 0));
    }
    // A read of the whole space is a look, not an access through the window.
    if (size > 4 || !touches_window(card, offset, size) || !window_access(card, false, &access))
        return 0;
    int rc = card_access(device, &access);
    if (rc == 0)
        sdc_put32(&device->config[card->window_cap + CAP_EXTRA], (uint32_t)access.value);
    return rc;
}

void virtio_pci_config_changed(struct virtio_pci *card)
{
    const struct sdc_pci_device *device = &card->pci;

    card->msix_enabled = (sdc_get16(&device->config[card->msix_cap + 2]) & SDC_PCI_MSIX_CONTROL_ENABLE) != 0;
    card->intx_disabled = (sdc_get16(&device->config[SDC_PCI_COMMAND]) & SDC_PCI_COMMAND_INTX_DISABLE) != 0;
}

static void card_config_written(struct sdc_pci_device *device, uint32_t offset, uint32_t size)
{
    struct virtio_pci *card = card_of(device);
    struct sdc_pci_access access;

    device->state_changes++;
    virtio_pci_config_changed(card);
    if (touches_window(card, offset, size) && window_access(card, true, &access))
        card_access(device, &access);
}

static uint32_t add_vendor_cap(struct virtio_pci *card, uint8_t type, uint32_t offset, uint32_t size, uint8_t length)
{
    uint32_t at = sdc_pci_config_add(&card->pci, SDC_PCI_CAP_VENDOR, length);
    uint8_t *cap = &card->pci.config[at];

    cap[CAP_LENGTH] = length;
    cap[CAP_TYPE] = type;
    cap[CAP_BAR] = type == CAP_PCI ? 0 : VIRTIO_PCI_BAR;
    sdc_put32(cap + CAP_OFFSET, offset);
    sdc_put32(cap + CAP_SIZE, size);
    return at;
}

// MSI-X first: Cloud Hypervisor walks the list for it on every configuration read.
static void build_config(struct virtio_pci *card, const struct sdc_virtio_ops *ops)
{
    struct sdc_pci_device *pci = &card->pci;
    struct sdc_pci_identity identity = {
        .vendor = VENDOR,
        .device = (uint16_t)(DEVICE_BASE + ops->device_id),
        .subsystem_vendor = VENDOR,
        .subsystem = (uint16_t)(DEVICE_BASE + ops->device_id),
        .revision = 1,
        .class_code = ops->pci_class,
        .intx = true,
    };

    sdc_pci_config_init(pci, &identity);
    card->msix_cap = sdc_pci_config_add_msix(pci, card->vectors, VIRTIO_PCI_TABLE_BAR, VIRTIO_PCI_PBA_BAR);
    sdc_pci_config_add_pm(pci);
    sdc_pci_config_add_express(pci);
    add_vendor_cap(card, CAP_COMMON, VIRTIO_PCI_COMMON, VIRTIO_PCI_PAGE, 16);
    add_vendor_cap(card, CAP_ISR, VIRTIO_PCI_ISR, VIRTIO_PCI_PAGE, 16);
    add_vendor_cap(card, CAP_DEVICE, VIRTIO_PCI_DEVICE, VIRTIO_PCI_PAGE, 16);
    uint32_t notify = add_vendor_cap(card, CAP_NOTIFY, VIRTIO_PCI_NOTIFY, VIRTIO_PCI_PAGE, 20);
    sdc_put32(&pci->config[notify + CAP_EXTRA], VIRTIO_PCI_NOTIFY_MULTIPLIER);
    card->window_cap = add_vendor_cap(card, CAP_PCI, 0, 0, 20);
    memset(&pci->config_mask[card->window_cap + CAP_BAR], 0xff, 1);
    memset(&pci->config_mask[card->window_cap + CAP_OFFSET], 0xff, 12);
    sdc_pci_config_seal(pci);
}

// --- life ---

static void card_reset(struct sdc_pci_device *device)
{
    struct virtio_pci *card = card_of(device);

    device->state_changes++;
    sdc_pci_config_reset(device);
    sdc_msix_reset(device, card->msix_table, card->vectors);
    card->msix_enabled = card->intx_disabled = false;
    virtio_pci_common_reset(card);
    sdc_virtio_core_reset(card->core);
}

static void card_set_map(struct sdc_pci_device *device, struct sdc_map *map)
{
    sdc_virtio_core_set_map(card_of(device)->core, map);
}

static bool card_busy(struct sdc_pci_device *device)
{
    return sdc_virtio_core_busy(card_of(device)->core);
}

static void card_destroy(struct sdc_pci_device *device)
{
    struct virtio_pci *card = card_of(device);

    virtio_pci_free_notify_page(card);
    sdc_virtio_core_free(card->core);
    free(card->queues);
    free(card->msix_table);
    free(card);
}

static const struct sdc_pci_ops card_ops = {
    .name = "virtio-pci",
    .access = card_access,
    .reset = card_reset,
    .set_map = card_set_map,
    .busy = card_busy,
    .config_written = card_config_written,
    .config_read = card_config_read,
    .intx_level = card_intx_level,
    .io_fds = card_io_fds,
    .client_gone = card_client_gone,
    .state_needs = virtio_pci_state_needs,
    .state_keep = virtio_pci_state_keep,
    .state_save = virtio_pci_state_save,
    .state_load = virtio_pci_state_load,
    .state_stop = virtio_pci_state_stop,
    .adopt_io_fds = card_adopt_io_fds,
    .destroy = card_destroy,
};

// The size of a BAR that holds `bytes`: a power of two, a page at least.
static uint64_t bar_size(uint64_t bytes)
{
    uint64_t size = VIRTIO_PCI_PAGE;

    while (size < bytes)
        size *= 2;
    return size;
}

int sdc_virtio_pci_new(struct sdc_virtio_device *device, struct sdc_loop *const *loops, unsigned loops_count,
                       struct sdc_pci_device **pci, struct sdc_error *err)
{
    const struct sdc_virtio_ops *ops = device->ops;
    uint32_t vectors = device->queues_count + 1U;
    struct virtio_pci *card = calloc(1, sizeof *card);
    struct virtio_pci_queue *queues = calloc(device->queues_count, sizeof *queues);
    uint8_t *table = calloc(vectors, SDC_MSIX_ENTRY);
    int rc = card && queues && table
                 ? sdc_virtio_core_new(device, loops, loops_count, &core_ops, card, &card->core, err)
                 : sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a device with %u queues", vectors - 1);
    if (rc < 0) {
        free(card);
        free(queues);
        free(table);
        sdc_virtio_destroy(device);
        return rc;
    }

    card->pci.ops = &card_ops;
    card->queues = queues;
    card->msix_table = table;
    card->vectors = vectors;
    card->pci.irq_counts[SDC_PCI_INTX] = 1;
    card->pci.irq_counts[SDC_PCI_MSIX] = vectors;
    card->pci.irq_counts[SDC_PCI_ERR] = 1; // QEMU warns of a card without
    card->pci.bars[VIRTIO_PCI_TABLE_BAR] = (struct sdc_pci_bar){.size = bar_size((uint64_t)vectors * SDC_MSIX_ENTRY)};
    card->pci.bars[VIRTIO_PCI_PBA_BAR] = (struct sdc_pci_bar){.size = VIRTIO_PCI_PAGE};
    card->pci.bars[VIRTIO_PCI_BAR] = (struct sdc_pci_bar){.size = 4 * VIRTIO_PCI_PAGE, .is_64bit = true};
    build_config(card, ops);
    sdc_msix_reset(&card->pci, table, vectors);
    virtio_pci_common_reset(card);
    *pci = &card->pci;
    return 0;
}
