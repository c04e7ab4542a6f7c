// SPDX-License-Identifier: BSD-3-Clause
// The two structures of MSI-X in a card's BARs. Over vfio-user an interrupt is an eventfd, and clients keep the table's
// messages and mask bits to themselves; the table here is memory that reads back, the pending bits are true.
#pragma once

#include <sidecard/pci.h>

enum { SDC_MSIX_ENTRY = 16 };

// Fresh out of reset: every vector masked, none pending. table has vectors * SDC_MSIX_ENTRY bytes.
void sdc_msix_reset(struct sdc_pci_device *device, uint8_t *table, uint32_t vectors);
void sdc_msix_table_access(uint8_t *table, uint32_t vectors, struct sdc_pci_access *access);
void sdc_msix_pba_access(struct sdc_pci_device *device, struct sdc_pci_access *access);
