// SPDX-License-Identifier: BSD-3-Clause
// What a PCI driver finds out first about a function behind a vfio-user connection: identity, BARs,
// capabilities, MSI-X.
#pragma once

#include <sidecard/client.h>

#include <stdbool.h>
#include <stdint.h>

enum {
    SDC_DRIVER_PCI_CAPABILITIES = 48, // as many as fit into the standard configuration space
    SDC_DRIVER_PCI_CAP_VENDOR = 0x09,
    SDC_DRIVER_PCI_CAP_MSIX = 0x11,
};

struct sdc_driver_pci_bar {
    uint64_t size;        // bytes, as the BAR itself says; 0: absent, or the upper half of the one before
    uint64_t region_size; // bytes, as the server says
    bool io;
    bool is_64bit;
    bool prefetchable;
};

struct sdc_driver_pci_capability {
    uint8_t id;
    uint8_t offset; // in the configuration space
};

struct sdc_driver_pci {
    struct sdc_vfio_client *client;
    uint16_t vendor_id;
    uint16_t device_id;
    uint16_t subsystem_vendor_id;
    uint16_t subsystem_id;
    uint8_t revision;
    uint32_t class_code; // 0xCCSSII
    uint8_t config[256]; // the standard configuration space as it was at the start
    struct sdc_driver_pci_bar bars[6];
    struct sdc_driver_pci_capability capabilities[SDC_DRIVER_PCI_CAPABILITIES]; // in their order
    unsigned capabilities_count;
    uint32_t msix_vectors; // 0: no MSI-X
    bool msix_on;
};

// Reads all that. The BARs are measured as a guest does it, by writing ones; their values are put back.
// -EPROTO: the list of capabilities is broken; -ENODEV: there is no PCI device.
int sdc_driver_pci_open(struct sdc_vfio_client *client, struct sdc_driver_pci *pci, struct sdc_error *err);

// Lets the device decode its BARs and reach memory (COMMAND: Memory Space, Bus Master), with INTx off, and MSI-X until a vector is set;
// or takes that away.
int sdc_driver_pci_enable(struct sdc_driver_pci *pci, bool on, struct sdc_error *err);
// MSI-X Enable in the capability. -ENOTSUP without MSI-X.
int sdc_driver_pci_enable_msix(struct sdc_driver_pci *pci, bool on, struct sdc_error *err);
// Has a vector signal fd, and enables MSI-X with the first one. -ENOTSUP: the device has not so many.
int sdc_driver_pci_set_vector(struct sdc_driver_pci *pci, uint32_t vector, int fd, struct sdc_error *err);

// Shows the device memory, which stays the caller's. Private memory is served by a thread of the client's: ours may be asleep, or
// poll the very memory.
int sdc_driver_pci_map(struct sdc_driver_pci *pci, const struct sdc_client_memory *memory, struct sdc_error *err);
// Takes what the server has sent unasked; an error when it is gone. Any thread.
int sdc_driver_pci_check(struct sdc_driver_pci *pci, struct sdc_error *err);
