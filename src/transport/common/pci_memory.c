// SPDX-License-Identifier: BSD-3-Clause
// Areas of BARs that are memory, which clients may map. A BAR has one file for all of them, as long as the BAR, of which nothing but the
// areas is ever touched; a client that goes leaves with it, and the next one gets another, at the same addresses of ours.
#include "base/bytes.h"
#include "base/check.h"
#include "os/fd.h"
#include "os/memfd.h"
#include "transport/common/pci_core.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { PAGE = 4096 };

static const struct sdc_pci_area *area_of(const struct sdc_pci_bar *bar, uint64_t offset, uint64_t size)
{
    for (uint32_t i = 0; i < bar->mappable.areas_count; i++) {
        const struct sdc_pci_area *area = &bar->mappable.areas[i];
        if (offset >= area->offset && sdc_within(offset - area->offset, size, area->size))
            return area;
    }
    return NULL;
}

// In one access, as a driver that has mapped it expects.
static void load(const uint8_t *at, struct sdc_pci_access *access)
{
    switch (access->size) {
    case 1:
        access->value = __atomic_load_n(at, __ATOMIC_ACQUIRE);
        break;
    case 2:
        access->value = le16toh(__atomic_load_n((const uint16_t *)(const void *)at, __ATOMIC_ACQUIRE));
        break;
    case 4:
        access->value = le32toh(__atomic_load_n((const uint32_t *)(const void *)at, __ATOMIC_ACQUIRE));
        break;
    default:
        access->value = le64toh(__atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_ACQUIRE));
        break;
    }
}

static void store(uint8_t *at, const struct sdc_pci_access *access)
{
    switch (access->size) {
    case 1:
        __atomic_store_n(at, (uint8_t)access->value, __ATOMIC_RELEASE);
        break;
    case 2:
        __atomic_store_n((uint16_t *)(void *)at, htole16((uint16_t)access->value), __ATOMIC_RELEASE);
        break;
    case 4:
        __atomic_store_n((uint32_t *)(void *)at, htole32((uint32_t)access->value), __ATOMIC_RELEASE);
        break;
    default:
        __atomic_store_n((uint64_t *)(void *)at, htole64(access->value), __ATOMIC_RELEASE);
        break;
    }
}

bool sdc_pci_memory_has(const struct sdc_pci_device *device, unsigned bar, uint64_t offset, uint64_t size)
{
    return area_of(&device->bars[bar], offset, size) != NULL;
}

bool sdc_pci_memory_access(struct sdc_pci_core *core, struct sdc_pci_access *access)
{
    uint8_t *base = access->region < SDC_PCI_ROM ? core->memories[access->region].base : NULL;

    if (!base || !area_of(&core->device->bars[access->region], access->offset, access->size))
        return false;
    if (access->write)
        store(base + access->offset, access);
    else
        load(base + access->offset, access);
    return true;
}

// --- making it ---

int sdc_pci_memory_check(const struct sdc_pci_device *device, unsigned bar, const struct sdc_pci_area *areas, uint32_t count,
                         struct sdc_error *err)
{
    uint64_t end = 0;

    if (count > SDC_PCI_AREAS_MAX)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "BAR %u: %u areas of memory, at most %u", bar, count, SDC_PCI_AREAS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        const struct sdc_pci_area *area = &areas[i];
        if ((area->offset | area->size) % PAGE != 0 || area->size == 0)
            return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "BAR %u, area %u: offset 0x%" PRIx64 " and size 0x%" PRIx64
                                 " have to be multiples of 4096, and the size not 0", bar, i, area->offset, area->size);
        if (area->offset < end)
            return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "BAR %u, area %u: it begins at 0x%" PRIx64 ", before the end of the one "
                                 "before it", bar, i, area->offset);
        if (!sdc_within(area->offset, area->size, device->bars[bar].size))
            return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "BAR %u, area %u: it ends outside of the BAR, which has 0x%" PRIx64
                                 " bytes", bar, i, device->bars[bar].size);
        end = area->offset + area->size;
    }
    return 0;
}

// A file full of zeroes, in place of what is at the areas. The fd or a negative errno.
static int fill_areas(uint8_t *base, const struct sdc_pci_bar *bar)
{
    int fd = sdc_memfd_new("sidecard-bar", bar->size);

    for (uint32_t i = 0; fd >= 0 && i < bar->mappable.areas_count; i++) {
        const struct sdc_pci_area *area = &bar->mappable.areas[i];
        int rc = sdc_fd_map_over(fd, area->offset, area->size, base + area->offset);
        if (rc == 0)
            continue;
        sdc_fd_close(&fd);
        fd = rc;
    }
    return fd;
}

// Puts an area in its place among the others.
static void insert(struct sdc_pci_mappable *mappable, uint64_t offset, uint64_t size)
{
    uint32_t at = mappable->areas_count++;

    for (; at > 0 && mappable->areas[at - 1].offset > offset; at--)
        mappable->areas[at] = mappable->areas[at - 1];
    mappable->areas[at] = (struct sdc_pci_area){.offset = offset, .size = size};
}

// A BAR's first area comes with room for all of the BAR, and a file. 0, or a negative errno.
static int make_first(struct sdc_pci_memory *memory, struct sdc_pci_bar *bar, const struct sdc_pci_mappable *mappable)
{
    struct sdc_pci_bar wanted = {.size = bar->size, .mappable = *mappable};
    void *base;
    int rc = sdc_map_reserve(bar->size, &base);

    if (rc < 0)
        return rc;
    wanted.mappable.fd = fill_areas(base, &wanted);
    if (wanted.mappable.fd < 0) {
        sdc_unmap(base, bar->size);
        return wanted.mappable.fd;
    }
    bar->mappable = wanted.mappable;
    memory->base = base;
    return 0;
}

// What stands at the other areas stays.
static int make_area(struct sdc_pci_memory *memory, struct sdc_pci_bar *bar, const struct sdc_pci_mappable *wanted, uint64_t offset,
                     uint64_t size)
{
    if (!memory->base)
        return make_first(memory, bar, wanted);
    int rc = sdc_fd_map_over(bar->mappable.fd, offset, size, memory->base + offset);
    if (rc == 0)
        bar->mappable = *wanted;
    return rc;
}

int sdc_pci_add_memory(struct sdc_pci_device *device, unsigned bar, uint64_t offset, uint64_t size, void **memory, struct sdc_error *err)
{
    int rc = sdc_pci_check_new(device, "memory", err);

    if (rc < 0)
        return rc;
    struct sdc_pci_core *core = device->core;
    if (bar >= SDC_PCI_ROM || device->bars[bar].size == 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "memory in BAR %u: the device has no such BAR", bar);
    struct sdc_pci_bar *in = &device->bars[bar];
    struct sdc_pci_mappable wanted = in->mappable;
    if (in->is_io || (core->msix_vectors > 0 && core->msix_bar == bar) || (wanted.areas_count > 0 && !core->memories[bar].base))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "memory in BAR %u: that has I/O ports, MSI-X, or areas with an fd of your own",
                             bar);
    if (wanted.areas_count == SDC_PCI_AREAS_MAX)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "memory in BAR %u: it has %u areas already, at most %u", bar,
                             wanted.areas_count, SDC_PCI_AREAS_MAX);
    size = size == 0 && offset < in->size ? in->size - offset : size;
    insert(&wanted, offset, size);
    rc = sdc_pci_memory_check(device, bar, wanted.areas, wanted.areas_count, err);
    if (rc < 0)
        return rc;
    rc = make_area(&core->memories[bar], in, &wanted, offset, size);
    if (rc < 0)
        return sdc_error_set(err, rc, SDC_FAULT_HOST, "memory in BAR %u: there is none for 0x%" PRIx64 " bytes: %s", bar, size,
                             strerror(-rc));
    *memory = core->memories[bar].base + offset;
    return 0;
}

int sdc_pci_memory_renew(struct sdc_pci_core *core)
{
    for (unsigned i = 0; i < SDC_COUNT(core->memories); i++) {
        struct sdc_pci_bar *bar = &core->device->bars[i];
        int fd = core->memories[i].base ? fill_areas(core->memories[i].base, bar) : -1;
        if (core->memories[i].base && fd < 0)
            return fd;
        if (fd < 0)
            continue;
        sdc_fd_close(&bar->mappable.fd);
        bar->mappable.fd = fd;
    }
    return 0;
}

void sdc_pci_memory_close(struct sdc_pci_core *core)
{
    for (unsigned i = 0; i < SDC_COUNT(core->memories); i++) {
        struct sdc_pci_bar *bar = &core->device->bars[i];
        if (!core->memories[i].base)
            continue;
        sdc_unmap(core->memories[i].base, bar->size);
        sdc_fd_close(&bar->mappable.fd);
        bar->mappable = (struct sdc_pci_mappable){0};
        core->memories[i].base = NULL;
    }
}
