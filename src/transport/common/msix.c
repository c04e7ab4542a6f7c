// SPDX-License-Identifier: BSD-3-Clause
#include "transport/common/msix.h"

#include "base/bytes.h"
#include "base/check.h"

void sdc_msix_reset(struct sdc_pci_device *device, uint8_t *table, uint32_t vectors)
{
    memset(table, 0, (size_t)vectors * SDC_MSIX_ENTRY);
    for (uint32_t i = 0; i < vectors; i++)
        table[i * SDC_MSIX_ENTRY + 12] = 1; // masked
    for (size_t i = 0; i < SDC_COUNT(device->msix_pending); i++)
        device->msix_pending[i] = 0;
}

void sdc_msix_table_access(uint8_t *table, uint32_t vectors, struct sdc_pci_access *access)
{
    uint8_t bytes[8];

    if (!sdc_within(access->offset, access->size, (uint64_t)vectors * SDC_MSIX_ENTRY)) {
        access->value = 0;
        return;
    }
    if (access->write) {
        sdc_put64(bytes, access->value);
        memcpy(table + access->offset, bytes, access->size);
    } else {
        memset(bytes, 0, sizeof bytes);
        memcpy(bytes, table + access->offset, access->size);
        access->value = sdc_get64(bytes);
    }
}

void sdc_msix_pba_access(struct sdc_pci_device *device, struct sdc_pci_access *access)
{
    if (access->write || !sdc_within(access->offset, access->size, sizeof device->msix_pending)) {
        access->value = 0; // read-only (PCI 3.0, 6.8.2.10)
        return;
    }
    uint64_t word = device->msix_pending[access->offset / 8];
    access->value = word >> (8 * (access->offset % 8));
    if (access->size < 8)
        access->value &= (UINT64_C(1) << (8 * access->size)) - 1;
}
