// SPDX-License-Identifier: BSD-3-Clause
// The PCI configuration space that every card has: header, BARs that can be sized, a list of capabilities. A device builds
// it once; the host reads and writes it for the driver.
#pragma once

#include <sidecard/pci.h>

// Offsets and bits of the header and of the capabilities that are made here (PCI Local Bus 3.0, PCI Express base).
enum {
    SDC_PCI_COMMAND = 0x04,
    SDC_PCI_COMMAND_INTX_DISABLE = 1 << 10,
    SDC_PCI_STATUS = 0x06,
    SDC_PCI_STATUS_INTX = 1 << 3, // INTx is asserted, disabled or not
    SDC_PCI_BARS = 0x10,
    SDC_PCI_CAP_POINTER = 0x34,
    SDC_PCI_CAP_PM = 0x01,
    SDC_PCI_CAP_MSI = 0x05,
    SDC_PCI_CAP_VENDOR = 0x09,
    SDC_PCI_CAP_EXPRESS = 0x10,
    SDC_PCI_CAP_MSIX = 0x11,
    SDC_PCI_MSI_CONTROL_ENABLE = 1 << 0,
    SDC_PCI_MSI_CONTROL_COUNT = 4, // from this bit on: which power of two of vectors the driver has switched on
    SDC_PCI_MSIX_CONTROL_ENABLE = 1 << 15,
};

// Fills the header. device->bars are set already.
void sdc_pci_config_init(struct sdc_pci_device *device, const struct sdc_pci_identity *identity);
// Shows a BAR that was set later.
void sdc_pci_config_add_bar(struct sdc_pci_device *device, unsigned bar);
// Appends a capability of size bytes (a multiple of 4, its two-byte head included); offset of it. Its bytes are zero and read-only.
uint32_t sdc_pci_config_add(struct sdc_pci_device *device, uint8_t id, uint32_t size);
// MSI-X with `vectors` entries. table and pba say where the table and the pending bits are: a BAR, with their offset in it, a multiple of
// 8, above the lower three bits.
uint32_t sdc_pci_config_add_msix(struct sdc_pci_device *device, uint32_t vectors, uint32_t table, uint32_t pba);
// MSI with `vectors` vectors, a power of two up to 32, and 64-bit addresses.
uint32_t sdc_pci_config_add_msi(struct sdc_pci_device *device, uint32_t vectors);
void sdc_pci_config_add_pm(struct sdc_pci_device *device);
// An endpoint that can do a function-level reset.
void sdc_pci_config_add_express(struct sdc_pci_device *device);
// What config is now is what a reset brings back.
void sdc_pci_config_seal(struct sdc_pci_device *device);

// --- for the driver, by the host; offset + size lies inside the configuration space ---

// 0 or -EAGAIN.
int sdc_pci_config_read(struct sdc_pci_device *device, uint32_t offset, void *data, uint32_t size);
// True if the write asks for a function-level reset.
bool sdc_pci_config_write(struct sdc_pci_device *device, uint32_t offset, const void *data, uint32_t size);
void sdc_pci_config_reset(struct sdc_pci_device *device);
