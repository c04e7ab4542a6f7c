// SPDX-License-Identifier: BSD-3-Clause
// PCI discovery (PCI Local Bus 3.0, chapter 6), over a vfio-user connection.
#include "driver/pci.h"

#include "base/bytes.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum {
    REGION_CONFIG = 7,
    IRQ_MSIX = 2,

    COMMAND = 0x04,
    COMMAND_MEMORY = 1 << 1,
    COMMAND_MASTER = 1 << 2,
    COMMAND_DECODE = 3, // I/O and memory
    COMMAND_NO_INTX = 1 << 10,
    STATUS = 0x06,
    STATUS_CAPABILITIES = 1 << 4,
    REVISION = 0x08,
    HEADER_TYPE = 0x0e,
    BAR0 = 0x10,
    SUBSYSTEM_VENDOR = 0x2c,
    SUBSYSTEM = 0x2e,
    CAPABILITIES = 0x34,
    HEADER_SIZE = 0x40,

    MSIX_CONTROL = 2, // in the capability
    MSIX_TABLE_SIZE = 0x7ff,
    MSIX_ENABLE = 1 << 15,
};

static int read_config(struct sdc_driver_pci *pci, uint32_t offset, void *data, uint32_t size,
                       struct sdc_error *err)
{
    return sdc_vfio_client_read(pci->client, REGION_CONFIG, offset, data, size, err);
}

static int write16(struct sdc_driver_pci *pci, uint32_t offset, uint16_t value, struct sdc_error *err)
{
    uint8_t raw[2];
    sdc_put16(raw, value);
    return sdc_vfio_client_write(pci->client, REGION_CONFIG, offset, raw, sizeof raw, err);
}

static int write32(struct sdc_driver_pci *pci, uint32_t offset, uint32_t value, struct sdc_error *err)
{
    uint8_t raw[4];
    sdc_put32(raw, value);
    return sdc_vfio_client_write(pci->client, REGION_CONFIG, offset, raw, sizeof raw, err);
}

// --- BARs ---

// What a BAR register holds when all ones were written to it; its own value is put back.
static int probe_bar(struct sdc_driver_pci *pci, unsigned index, uint32_t *mask, struct sdc_error *err)
{
    uint32_t offset = BAR0 + 4 * index;
    uint8_t raw[4];
    int ret = write32(pci, offset, UINT32_MAX, err);
    if (ret == 0)
        ret = read_config(pci, offset, raw, sizeof raw, err);
    if (ret == 0)
        ret = write32(pci, offset, sdc_get32(pci->config + offset), err);
    if (ret == 0)
        *mask = sdc_get32(raw);
    return ret;
}

// The size that a BAR's writable bits say: the lowest one.
static uint64_t lowest_bit(uint64_t mask)
{
    return mask & (~mask + 1);
}

static int measure_bars(struct sdc_driver_pci *pci, struct sdc_error *err)
{
    for (unsigned i = 0; i < 6; i++) {
        struct sdc_driver_pci_bar *bar = &pci->bars[i];
        uint32_t value = sdc_get32(pci->config + BAR0 + 4 * i), low, high = 0;
        int ret = probe_bar(pci, i, &low, err);
        if (ret < 0)
            return ret;
        bar->io = value & 1;
        bar->is_64bit = !bar->io && (value & 6) == 4 && i < 5;
        bar->prefetchable = !bar->io && value & 8;
        if (bar->is_64bit) {
            ret = probe_bar(pci, i + 1, &high, err);
            if (ret < 0)
                return ret;
        }
        bar->size = lowest_bit((uint64_t)high << 32 | (low & ~(bar->io ? UINT32_C(3) : UINT32_C(15))));
        if (bar->is_64bit)
            i++;
    }
    return 0;
}

static int ask_regions(struct sdc_driver_pci *pci, struct sdc_error *err)
{
    for (uint32_t i = 0; i < 6; i++) {
        struct sdc_vfio_region region;
        int ret = sdc_vfio_client_region(pci->client, i, &region, err);
        if (ret < 0)
            return ret;
        pci->bars[i].region_size = region.size;
        sdc_vfio_region_release(&region);
    }
    return 0;
}

// --- capabilities ---

static int walk_capabilities(struct sdc_driver_pci *pci, struct sdc_error *err)
{
    uint8_t at = pci->config[CAPABILITIES] & 0xfc;
    if (!(sdc_get16(pci->config + STATUS) & STATUS_CAPABILITIES))
        return 0;
    while (at != 0) {
        if (at < HEADER_SIZE)
            return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER,
                                 "the device's list of PCI capabilities leads to 0x%02x, into the header",
                                 at);
        if (pci->capabilities_count == SDC_DRIVER_PCI_CAPABILITIES)
            return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER,
                                 "the device's list of PCI capabilities has no end");
        struct sdc_driver_pci_capability *capability = &pci->capabilities[pci->capabilities_count++];
        *capability = (struct sdc_driver_pci_capability){.id = pci->config[at], .offset = at};
        at = pci->config[at + 1] & 0xfc;
    }
    return 0;
}

static const struct sdc_driver_pci_capability *find_capability(const struct sdc_driver_pci *pci, uint8_t id)
{
    for (unsigned i = 0; i < pci->capabilities_count; i++)
        if (pci->capabilities[i].id == id)
            return &pci->capabilities[i];
    return NULL;
}

// MSI-X needs both: the capability, which the driver sees, and the interrupts, which the server sends.
static int count_vectors(struct sdc_driver_pci *pci, struct sdc_error *err)
{
    const struct sdc_driver_pci_capability *capability = find_capability(pci, SDC_DRIVER_PCI_CAP_MSIX);
    struct sdc_vfio_irq irq;
    if (!capability || capability->offset > sizeof pci->config - 12)
        return 0;
    int ret = sdc_vfio_client_irq(pci->client, IRQ_MSIX, &irq, err);
    if (ret < 0)
        return ret;
    uint32_t table =
        (sdc_get16(pci->config + capability->offset + MSIX_CONTROL) & MSIX_TABLE_SIZE) + UINT32_C(1);
    pci->msix_vectors = irq.count < table ? irq.count : table;
    return 0;
}

// --- the whole ---

static void take_identity(struct sdc_driver_pci *pci)
{
    pci->vendor_id = sdc_get16(pci->config);
    pci->device_id = sdc_get16(pci->config + 2);
    pci->revision = pci->config[REVISION];
    pci->class_code = sdc_get32(pci->config + REVISION) >> 8;
    pci->subsystem_vendor_id = sdc_get16(pci->config + SUBSYSTEM_VENDOR);
    pci->subsystem_id = sdc_get16(pci->config + SUBSYSTEM);
}

int sdc_driver_pci_open(struct sdc_vfio_client *client, struct sdc_driver_pci *pci, struct sdc_error *err)
{
    struct sdc_vfio_device device;
    *pci = (struct sdc_driver_pci){.client = client};
    int ret = sdc_vfio_client_device(client, &device, err);
    if (ret < 0)
        return ret;
    if (!device.is_pci || device.regions_count <= REGION_CONFIG || device.irqs_count <= IRQ_MSIX)
        return sdc_error_set(err, -ENODEV, SDC_FAULT_PEER,
                             "the server's device is no PCI device (%" PRIu32 " regions, %" PRIu32
                             " interrupts)",
                             device.regions_count, device.irqs_count);
    ret = read_config(pci, 0, pci->config, sizeof pci->config, err);
    if (ret < 0)
        return ret;
    take_identity(pci);
    if (pci->vendor_id == 0xffff)
        return sdc_error_set(err, -ENODEV, SDC_FAULT_PEER,
                             "the server's PCI function is absent (vendor 0xffff)");
    if ((pci->config[HEADER_TYPE] & 0x7f) != 0)
        return sdc_error_set(err, -ENODEV, SDC_FAULT_PEER,
                             "the server's PCI function has header type %u, a device has 0",
                             pci->config[HEADER_TYPE] & 0x7f);
    // A BAR that is being measured must not be decoded.
    ret = write16(pci, COMMAND, sdc_get16(pci->config + COMMAND) & (uint16_t)~COMMAND_DECODE, err);
    if (ret == 0)
        ret = measure_bars(pci, err);
    if (ret == 0)
        ret = ask_regions(pci, err);
    if (ret == 0)
        ret = walk_capabilities(pci, err);
    if (ret == 0)
        ret = count_vectors(pci, err);
    return ret;
}

// Servers may keep what the client before has enabled, whose eventfds are gone.
static int disable_old_msix(struct sdc_driver_pci *pci, struct sdc_error *err)
{
    const struct sdc_driver_pci_capability *capability = find_capability(pci, SDC_DRIVER_PCI_CAP_MSIX);
    if (pci->msix_vectors == 0 || pci->msix_on || !(sdc_get16(pci->config + capability->offset + MSIX_CONTROL) & MSIX_ENABLE))
        return 0;
    return sdc_driver_pci_enable_msix(pci, false, err);
}

int sdc_driver_pci_enable(struct sdc_driver_pci *pci, bool on, struct sdc_error *err)
{
    int ret = on ? disable_old_msix(pci, err) : 0;
    return ret < 0 ? ret : write16(pci, COMMAND, on ? COMMAND_MEMORY | COMMAND_MASTER | COMMAND_NO_INTX : 0, err);
}

int sdc_driver_pci_enable_msix(struct sdc_driver_pci *pci, bool on, struct sdc_error *err)
{
    const struct sdc_driver_pci_capability *capability = find_capability(pci, SDC_DRIVER_PCI_CAP_MSIX);
    if (!capability || pci->msix_vectors == 0)
        return sdc_error_set(err, -ENOTSUP, SDC_FAULT_PEER, "the device has no MSI-X");
    uint32_t offset = capability->offset + (uint32_t)MSIX_CONTROL;
    uint16_t control = sdc_get16(pci->config + offset) & (uint16_t)~MSIX_ENABLE;
    return write16(pci, offset, control | (uint16_t)(on ? MSIX_ENABLE : 0), err);
}

int sdc_driver_pci_set_vector(struct sdc_driver_pci *pci, uint32_t vector, int fd, struct sdc_error *err)
{
    if (vector >= pci->msix_vectors)
        return sdc_error_set(err, -ENOTSUP, SDC_FAULT_PEER,
                             "the device has %" PRIu32 " MSI-X vectors; this takes number %" PRIu32
                             " (polling takes none)",
                             pci->msix_vectors, vector);
    int ret = sdc_vfio_client_irq_eventfds(pci->client, IRQ_MSIX, SDC_VFIO_IRQ_TRIGGER, vector, 1, &fd, err);
    if (ret == 0 && !pci->msix_on) {
        ret = sdc_driver_pci_enable_msix(pci, true, err);
        pci->msix_on = ret == 0;
    }
    return ret;
}

// --- memory, and the connection ---

int sdc_driver_pci_map(struct sdc_driver_pci *pci, const struct sdc_client_memory *memory, struct sdc_error *err)
{
    uint32_t both = SDC_VFIO_MAP_READ | SDC_VFIO_MAP_WRITE;
    if (memory->fd >= 0)
        return sdc_vfio_client_map(pci->client, memory->iova, memory->size, both, memory->fd, 0, err);
    int ret = sdc_vfio_client_serve_start(pci->client, err);
    return ret < 0 ? ret
                   : sdc_vfio_client_map_private(pci->client, memory->iova, memory->size, both, memory->base, err);
}

int sdc_driver_pci_check(struct sdc_driver_pci *pci, struct sdc_error *err)
{
    int ret = sdc_vfio_client_process(pci->client, err);
    return ret < 0 ? ret : 0; // answers that are left go out with the next message
}
