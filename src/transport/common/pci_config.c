// SPDX-License-Identifier: BSD-3-Clause
#include "transport/common/pci_config.h"

#include "base/bytes.h"
#include "base/check.h"

enum {
    REVISION = 0x08,
    CLASS = 0x09,
    SUBSYSTEM_VENDOR = 0x2c,
    SUBSYSTEM = 0x2e,
    INTERRUPT_LINE = 0x3c,
    INTERRUPT_PIN = 0x3d,
    CAPS_FIRST = 0x40,
    COMMAND_WRITABLE = 0x0547, // I/O, memory, bus master, parity, SERR, INTx disable
    STATUS_CAP_LIST = 1 << 4,
    BAR_IO = 1,
    BAR_64BIT = 4,
    BAR_PREFETCHABLE = 8,
    MSI_SIZE = 16, // 14, and what makes a multiple of 4 of it
    MSI_64BIT = 1 << 7,
    EXPRESS_SIZE = 60,
    EXPRESS_DEVICE_CAP = 4,
    EXPRESS_DEVICE_CONTROL = 8,
    EXPRESS_CONTROL_FLR = 1 << 15,
    EXPRESS_LINK_CAP = 12,
    EXPRESS_LINK_STATUS = 18,
    PM_CAPABILITIES = 2,
    PM_CONTROL = 4,
};

void sdc_pci_config_add_bar(struct sdc_pci_device *device, unsigned index)
{
    const struct sdc_pci_bar *bar = &device->bars[index];
    uint32_t at = SDC_PCI_BARS + 4 * index;
    uint64_t mask = ~(bar->size - 1);

    if (bar->size == 0)
        return;
    sdc_put32(&device->config[at],
              (bar->is_io ? BAR_IO : 0) | (bar->is_64bit ? BAR_64BIT : 0) | (bar->prefetchable ? BAR_PREFETCHABLE : 0));
    sdc_put32(&device->config_mask[at], (uint32_t)mask);
    if (bar->is_64bit)
        sdc_put32(&device->config_mask[at + 4], (uint32_t)(mask >> 32));
}

void sdc_pci_config_init(struct sdc_pci_device *device, const struct sdc_pci_identity *identity)
{
    uint8_t *config = device->config;

    sdc_put16(config, identity->vendor);
    sdc_put16(config + 2, identity->device);
    sdc_put16(device->config_mask + SDC_PCI_COMMAND, COMMAND_WRITABLE);
    config[REVISION] = identity->revision;
    config[CLASS] = (uint8_t)identity->class_code;
    config[CLASS + 1] = (uint8_t)(identity->class_code >> 8);
    config[CLASS + 2] = (uint8_t)(identity->class_code >> 16);
    sdc_put16(config + SUBSYSTEM_VENDOR, identity->subsystem_vendor);
    sdc_put16(config + SUBSYSTEM, identity->subsystem);
    config[INTERRUPT_PIN] = identity->intx ? 1 : 0;
    device->config_mask[INTERRUPT_LINE] = 0xff;
    for (unsigned i = 0; i < SDC_COUNT(device->bars); i++)
        sdc_pci_config_add_bar(device, i);
}

uint32_t sdc_pci_config_add(struct sdc_pci_device *device, uint8_t id, uint32_t size)
{
    uint8_t *config = device->config;
    uint8_t *link = &config[SDC_PCI_CAP_POINTER];
    uint32_t at = device->config_caps_end ? device->config_caps_end : CAPS_FIRST;

    while (*link)
        link = &config[*link + 1];
    *link = (uint8_t)at;
    config[at] = id;
    sdc_put16(config + SDC_PCI_STATUS, STATUS_CAP_LIST);
    device->config_caps_end = (uint8_t)(at + size);
    return at;
}

uint32_t sdc_pci_config_add_msix(struct sdc_pci_device *device, uint32_t vectors, uint32_t table, uint32_t pba)
{
    uint32_t at = sdc_pci_config_add(device, SDC_PCI_CAP_MSIX, 12);

    sdc_put16(&device->config[at + 2], (uint16_t)(vectors - 1));
    sdc_put16(&device->config_mask[at + 2], 0xc000); // enable, function mask
    sdc_put32(&device->config[at + 4], table);
    sdc_put32(&device->config[at + 8], pba);
    return at;
}

uint32_t sdc_pci_config_add_msi(struct sdc_pci_device *device, uint32_t vectors)
{
    uint32_t at = sdc_pci_config_add(device, SDC_PCI_CAP_MSI, MSI_SIZE);
    uint32_t power = 0;

    while (1U << power < vectors)
        power++;
    sdc_put16(&device->config[at + 2], (uint16_t)(MSI_64BIT | power << 1));
    sdc_put16(&device->config_mask[at + 2], SDC_PCI_MSI_CONTROL_ENABLE | 7 << SDC_PCI_MSI_CONTROL_COUNT);
    sdc_put32(&device->config_mask[at + 4], 0xfffffffc); // address
    sdc_put32(&device->config_mask[at + 8], 0xffffffff);
    sdc_put16(&device->config_mask[at + 12], 0xffff); // data
    return at;
}

void sdc_pci_config_add_pm(struct sdc_pci_device *device)
{
    uint32_t at = sdc_pci_config_add(device, SDC_PCI_CAP_PM, 8);

    sdc_put16(&device->config[at + PM_CAPABILITIES], 3);  // PCI Power Management 1.2
    sdc_put16(&device->config[at + PM_CONTROL], 1 << 3); // no soft reset: D3hot to D0 keeps state
    sdc_put16(&device->config_mask[at + PM_CONTROL], 3); // power state
}

void sdc_pci_config_add_express(struct sdc_pci_device *device)
{
    uint32_t at = sdc_pci_config_add(device, SDC_PCI_CAP_EXPRESS, EXPRESS_SIZE);
    uint8_t *cap = &device->config[at];

    sdc_put16(cap + 2, 2);                                             // version 2, endpoint
    sdc_put32(cap + EXPRESS_DEVICE_CAP, (1U << 28) | (1 << 15));       // FLR, role-based error reporting
    sdc_put16(&device->config_mask[at + EXPRESS_DEVICE_CONTROL], 0x7fff); // FLR itself reads as zero
    sdc_put32(cap + EXPRESS_LINK_CAP, (1 << 4) | 1);                   // x1, 2.5 GT/s
    sdc_put16(cap + EXPRESS_LINK_STATUS, (1 << 4) | 1);
}

void sdc_pci_config_seal(struct sdc_pci_device *device)
{
    memcpy(device->config_reset, device->config, sizeof device->config);
}

int sdc_pci_config_read(struct sdc_pci_device *device, uint32_t offset, void *data, uint32_t size)
{
    if (device->ops->config_read) {
        int rc = device->ops->config_read(device, offset, size);
        if (rc < 0)
            return rc;
    }
    uint32_t kept = offset < SDC_PCI_CONFIG_KEPT ? (uint32_t)sdc_min(size, SDC_PCI_CONFIG_KEPT - offset) : 0;
    if (kept > 0)
        memcpy(data, device->config + offset, kept);
    memset((uint8_t *)data + kept, 0, size - kept);
    return 0;
}

// Whether [offset, offset + size) of data sets the FLR bit.
static bool asks_for_reset(const struct sdc_pci_device *device, uint32_t offset, const uint8_t *data, uint32_t size)
{
    for (uint32_t at = device->config[SDC_PCI_CAP_POINTER]; at; at = device->config[at + 1]) {
        uint32_t high = at + EXPRESS_DEVICE_CONTROL + 1;
        if (device->config[at] == SDC_PCI_CAP_EXPRESS && high >= offset && high < offset + size)
            return (data[high - offset] & (EXPRESS_CONTROL_FLR >> 8)) != 0;
    }
    return false;
}

bool sdc_pci_config_write(struct sdc_pci_device *device, uint32_t offset, const void *data, uint32_t size)
{
    const uint8_t *bytes = data;

    for (uint32_t i = 0; i < size && offset + i < SDC_PCI_CONFIG_KEPT; i++) {
        uint8_t mask = device->config_mask[offset + i];
        uint8_t *byte = &device->config[offset + i];
        *byte = (uint8_t)((*byte & ~mask) | (bytes[i] & mask));
    }
    if (device->ops->config_written)
        device->ops->config_written(device, offset, size);
    return asks_for_reset(device, offset, bytes, size);
}

void sdc_pci_config_reset(struct sdc_pci_device *device)
{
    memcpy(device->config, device->config_reset, sizeof device->config);
}
