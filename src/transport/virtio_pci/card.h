// SPDX-License-Identifier: BSD-3-Clause
// A virtio device as a PCI device: what the files of this folder share.
#pragma once

#include "transport/common/msix.h"
#include "transport/common/pci_config.h"
#include "transport/common/registers.h"
#include "transport/common/virtio_core.h"
#include "transport/virtio_pci/virtio_pci.h"

enum {
    VIRTIO_PCI_TABLE_BAR = 1,
    VIRTIO_PCI_PBA_BAR = 2,
    VIRTIO_PCI_BAR = 4,
    VIRTIO_PCI_PAGE = 0x1000,
    VIRTIO_PCI_COMMON = 0x0000, // offsets in BAR4
    VIRTIO_PCI_ISR = 0x1000,
    VIRTIO_PCI_DEVICE = 0x2000,
    VIRTIO_PCI_NOTIFY = 0x3000,
    VIRTIO_PCI_NOTIFY_MULTIPLIER = 4,
    VIRTIO_PCI_NO_VECTOR = 0xffff,
};

// What the driver has written about a queue.
struct virtio_pci_queue {
    uint16_t size;
    _Atomic uint16_t vector; // read by the queue's loop
    uint64_t desc;
    uint64_t driver;
    uint64_t device;
};

struct virtio_pci {
    struct sdc_pci_device pci;
    struct sdc_virtio_core *core;
    struct virtio_pci_queue *queues;
    uint8_t *msix_table;
    uint32_t *bells; // the notification registers as memory that clients may map, or NULL (notify_page.c)
    uint32_t vectors;
    uint32_t msix_cap;   // offset in configuration space
    uint32_t window_cap; // likewise, of the PCI configuration access capability
    _Atomic bool msix_enabled;
    _Atomic uint8_t isr; // 1: queue, 2: configuration
    _Atomic bool intx_disabled;
    _Atomic uint16_t config_vector;
    uint32_t device_feature_select; // common configuration's registers
    uint32_t driver_feature_select;
    uint64_t driver_features;
    uint16_t queue_select;
};

// The common configuration structure (common_config.c).
uint64_t virtio_pci_common_read(struct virtio_pci *card, uint64_t offset, uint32_t size);
void virtio_pci_common_write(struct virtio_pci *card, uint64_t offset, uint32_t size, uint64_t value);
void virtio_pci_common_reset(struct virtio_pci *card);

// Notification registers that clients may map (notify_page.c). The client has gone: the next gets others.
void virtio_pci_renew_notify_page(struct virtio_pci *card);
void virtio_pci_free_notify_page(struct virtio_pci *card);

// The state record (state.c).
void virtio_pci_state_needs(struct sdc_pci_device *device, struct sdc_pci_state_needs *needs);
void virtio_pci_state_keep(struct sdc_pci_device *device, void *memory, bool goes_on);
void virtio_pci_state_save(struct sdc_pci_device *device, void *registers);
int virtio_pci_state_load(struct sdc_pci_device *device, const void *registers, struct sdc_error *err);
void virtio_pci_state_stop(struct sdc_pci_device *device);
// Brings what is derived from the configuration space up to date.
void virtio_pci_config_changed(struct virtio_pci *card);
