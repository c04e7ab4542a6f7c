// SPDX-License-Identifier: BSD-3-Clause
#include "transport/common/pci_core.h"

#include "base/bytes.h"
#include "base/check.h"
#include "base/log.h"
#include "os/fd.h"
#include "transport/common/msix.h"
#include "transport/common/pci_config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

enum {
    PAGE = 4096,
    CAPS_FIRST = 0x40,
    LAST_CAPS = 8 + 60, // bytes of power management and PCI Express, which every device has
    MSIX_CAP = 12,
    MSI_CAP = 16,
    MSI_MAX = 32, // vectors
    PORTS_MAX = 256, // I/O ports of a BAR (PCI Local Bus 3.0, 6.2.5.1)
};

// --- interrupts ---

void sdc_pci_set_intx(struct sdc_pci_device *device, bool asserted)
{
    struct sdc_pci_core *core = device->core;

    if (!core)
        return;
    bool before = atomic_exchange(&core->intx_asserted, asserted);
    if (asserted && !before && core->has_intx && !atomic_load(&core->intx_disabled))
        sdc_pci_interrupt(device, SDC_PCI_INTX, 0);
}

void sdc_pci_raise(struct sdc_pci_device *device, uint32_t vector)
{
    struct sdc_pci_core *core = device->core;

    if (!core)
        return;
    unsigned msi = atomic_load(&core->msi_enabled);
    bool msix_alone = core->msix_vectors > 0 && msi == 0 && !core->has_intx;
    if (atomic_load(&core->msix_enabled) || msix_alone)
        sdc_pci_interrupt(device, SDC_PCI_MSIX, vector);
    else if (msi > 0)
        sdc_pci_interrupt(device, SDC_PCI_MSI, vector < msi ? vector : msi - 1);
    else
        sdc_pci_set_intx(device, true);
}

static bool card_intx_level(struct sdc_pci_device *device)
{
    struct sdc_pci_core *core = device->core;

    return core->has_intx && atomic_load(&core->intx_asserted) && !atomic_load(&core->intx_disabled);
}

// What the driver has switched on by the configuration space.
static void look_at_config(struct sdc_pci_core *core)
{
    const uint8_t *config = core->device->config;
    uint16_t msi = core->msi_cap ? sdc_get16(&config[core->msi_cap + 2]) : 0;
    unsigned power = msi >> SDC_PCI_MSI_CONTROL_COUNT & 7;
    unsigned vectors = (unsigned)sdc_min(UINT64_C(1) << power, core->device->irq_counts[SDC_PCI_MSI]);
    bool msix = core->msix_cap && sdc_get16(&config[core->msix_cap + 2]) & SDC_PCI_MSIX_CONTROL_ENABLE;

    atomic_store(&core->msix_enabled, msix);
    atomic_store(&core->msi_enabled, msi & SDC_PCI_MSI_CONTROL_ENABLE ? vectors : 0);
    atomic_store(&core->intx_disabled, (sdc_get16(&config[SDC_PCI_COMMAND]) & SDC_PCI_COMMAND_INTX_DISABLE) != 0);
}

// --- configuration space ---

static void card_config_written(struct sdc_pci_device *device, uint32_t offset, uint32_t size)
{
    struct sdc_pci_core *core = device->core;
    bool level = card_intx_level(device);

    look_at_config(core);
    if (!level && card_intx_level(device))
        sdc_pci_interrupt(device, SDC_PCI_INTX, 0);
    if (core->ops->config_written)
        core->ops->config_written(device, offset, size);
}

// The status bit shows the level whether or not INTx is disabled; only the pin is.
static int card_config_read(struct sdc_pci_device *device, uint32_t offset, uint32_t size)
{
    struct sdc_pci_core *core = device->core;
    uint8_t *status = &device->config[SDC_PCI_STATUS];
    bool asserted = core->has_intx && atomic_load(&core->intx_asserted);

    *status = (uint8_t)((*status & ~SDC_PCI_STATUS_INTX) | (asserted ? SDC_PCI_STATUS_INTX : 0));
    return core->ops->config_read ? core->ops->config_read(device, offset, size) : 0;
}

// --- doorbells ---

static struct sdc_pci_doorbell *doorbell_at(struct sdc_pci_core *core, const struct sdc_pci_access *access)
{
    for (uint32_t i = 0; i < core->doorbells_count; i++) {
        struct sdc_pci_doorbell *bell = &core->doorbells[i];
        if (bell->bar == access->region && bell->offset == access->offset && (bell->size == 0 || bell->size == access->size))
            return bell;
    }
    return NULL;
}

static void ring(struct sdc_pci_doorbell *bell)
{
    struct sdc_pci_core *core = bell->core;

    if (core->ops->doorbell && !core->resetting)
        core->ops->doorbell(core->device, bell->bar, bell->offset);
}

static void bell_signalled(struct sdc_watch *watch, uint32_t events)
{
    (void)events;
    if (sdc_eventfd_take(watch->fd) > 0)
        ring(sdc_container(watch, struct sdc_pci_doorbell, watch));
}

// An eventfd for a doorbell, when the first client asks. What cannot be had is rung by messages.
static bool wire(struct sdc_pci_doorbell *bell)
{
    if (bell->watch.fd >= 0)
        return true;
    int fd = sdc_eventfd_new();
    if (fd < 0)
        return false;
    bell->watch = (struct sdc_watch){.fd = fd, .wanted = SDC_READABLE, .ready = bell_signalled};
    if (sdc_loop_watch(bell->core->loop, &bell->watch) == 0)
        return true;
    sdc_fd_close(&bell->watch.fd);
    return false;
}

static void unwire(struct sdc_pci_doorbell *bell)
{
    if (bell->watch.fd < 0)
        return;
    sdc_loop_unwatch(bell->core->loop, &bell->watch);
    sdc_fd_close(&bell->watch.fd);
}

static uint32_t card_io_fds(struct sdc_pci_device *device, uint32_t region, struct sdc_pci_io_fd *fds, uint32_t max)
{
    struct sdc_pci_core *core = device->core;
    uint32_t count = 0;

    for (uint32_t i = 0; i < core->doorbells_count && count < max; i++) {
        struct sdc_pci_doorbell *bell = &core->doorbells[i];
        if (bell->bar == region && wire(bell))
            fds[count++] = (struct sdc_pci_io_fd){.offset = bell->offset, .size = bell->size, .fd = bell->watch.fd};
    }
    return count;
}

// --- registers ---

static void access_msix(struct sdc_pci_core *core, struct sdc_pci_access *access)
{
    struct sdc_pci_access pba = *access;

    if (access->offset < core->msix_pba) {
        sdc_msix_table_access(core->msix_table, core->msix_vectors, access);
        return;
    }
    pba.offset -= core->msix_pba;
    sdc_msix_pba_access(core->device, &pba);
    access->value = pba.value;
}

static bool still_resetting(struct sdc_pci_core *core)
{
    const struct sdc_pci_ops *ops = core->ops;

    if (core->resetting && core->dma.windows == 0 && !(ops->busy && ops->busy(core->device)))
        core->resetting = core->dma.refuses = false;
    return core->resetting;
}

static int card_access(struct sdc_pci_device *device, struct sdc_pci_access *access)
{
    struct sdc_pci_core *core = device->core;

    if (core->msix_vectors > 0 && access->region == core->msix_bar) {
        access_msix(core, access);
        return 0;
    }
    if (sdc_pci_memory_access(core, access))
        return 0;
    if (access->write && still_resetting(core))
        return -EAGAIN;
    struct sdc_pci_doorbell *bell = access->write ? doorbell_at(core, access) : NULL;
    if (bell) {
        ring(bell);
        return 0;
    }
    if (sdc_pci_registers_access(core, access))
        return 0;
    if (core->ops->access)
        return core->ops->access(device, access);
    access->value = 0;
    return 0;
}

// --- reset and memory ---

static void card_reset(struct sdc_pci_device *device)
{
    struct sdc_pci_core *core = device->core;

    core->resetting = core->dma.refuses = true;
    sdc_dma_end_all(&core->dma);
    sdc_pci_config_reset(device);
    if (core->msix_vectors > 0)
        sdc_msix_reset(device, core->msix_table, core->msix_vectors);
    atomic_store(&core->intx_asserted, false);
    look_at_config(core);
    sdc_pci_registers_reset(core);
    if (core->ops->reset)
        core->ops->reset(device);
    if (!still_resetting(core))
        sdc_pci_ready(device);
}

static bool card_busy(struct sdc_pci_device *device)
{
    return still_resetting(device->core);
}

static void dma_idle(struct sdc_dma *dma)
{
    struct sdc_pci_core *core = sdc_container(dma, struct sdc_pci_core, dma);

    if (core->resetting && !still_resetting(core))
        sdc_pci_ready(core->device);
}

static void card_set_map(struct sdc_pci_device *device, struct sdc_map *map)
{
    sdc_dma_set_map(&device->core->dma, map);
    sdc_pci_ready(device);
}

// The memory that a client could map is replaced, and the author's device as new.
static void renew(struct sdc_pci_core *core)
{
    core->stale = sdc_pci_memory_renew(core) < 0;
    if (!core->stale && core->ops->client_gone)
        core->ops->client_gone(core->device);
}

static void card_client_gone(struct sdc_pci_device *device)
{
    struct sdc_pci_core *core = device->core;

    for (uint32_t i = 0; i < core->doorbells_count; i++)
        unwire(&core->doorbells[i]);
    renew(core);
}

int sdc_pci_admit(struct sdc_pci_device *device)
{
    struct sdc_pci_core *core = device->core;

    if (core && core->stale)
        renew(core);
    return core && core->stale ? -ENOMEM : 0;
}

static void card_destroy(struct sdc_pci_device *device)
{
    struct sdc_pci_core *core = device->core;

    core->destroying = true;
    if (core->ops->destroy)
        core->ops->destroy(device);
    else
        sdc_pci_fini(device);
}

static const struct sdc_pci_ops card_ops = {
    .name = "pci",
    .access = card_access,
    .reset = card_reset,
    .busy = card_busy,
    .client_gone = card_client_gone,
    .config_written = card_config_written,
    .config_read = card_config_read,
    .intx_level = card_intx_level,
    .destroy = card_destroy,
    .set_map = card_set_map,
    .io_fds = card_io_fds,
};

// --- making a device ---

static int check_bar(const struct sdc_pci_device *device, unsigned index, struct sdc_error *err)
{
    const struct sdc_pci_bar *bar = &device->bars[index];
    uint64_t most = bar->is_64bit ? UINT64_C(1) << 62 : UINT64_C(1) << 31;

    if (bar->size == 0)
        return 0;
    if (bar->is_io && (!sdc_is_power_of_two(bar->size) || bar->size < 4 || bar->size > PORTS_MAX || bar->is_64bit || bar->prefetchable))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "BAR %u: it has 0x%" PRIx64 " I/O ports; there are 4 to %u, a power of two, "
                             "without is_64bit and prefetchable", index, bar->size, PORTS_MAX);
    if (bar->is_io)
        return 0;
    if (!sdc_is_power_of_two(bar->size) || bar->size < 16 || bar->size > most)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "BAR %u: its size is 0x%" PRIx64 "; it has to be a power of two, from 16 to 0x%"
                             PRIx64 "%s", index, bar->size, most, bar->is_64bit ? "" : ", or more with is_64bit");
    if (bar->is_64bit && (index == 5 || device->bars[index + 1].size > 0))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "BAR %u: with is_64bit it takes the place of BAR %u too, which has to be left "
                             "empty", index, index + 1);
    return 0;
}

static bool is_upper_half(const struct sdc_pci_device *device, unsigned bar)
{
    return bar > 0 && device->bars[bar - 1].size > 0 && device->bars[bar - 1].is_64bit;
}

int sdc_pci_init(struct sdc_pci_device *device, const struct sdc_pci_ops *ops, const struct sdc_pci_identity *identity,
                 struct sdc_error *err)
{
    if (!device || !ops || !identity)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "a PCI device needs its structure, ops and an identity; one of them is NULL");
    if (device->core)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "the PCI device was made already, or its structure was not zeroed");
    for (unsigned i = 0; i < SDC_COUNT(device->bars); i++) {
        int rc = check_bar(device, i, err);
        if (rc < 0)
            return rc;
    }
    struct sdc_pci_core *core = calloc(1, sizeof *core);
    if (!core)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a PCI device");

    *core = (struct sdc_pci_core){.ops = ops, .device = device, .has_intx = identity->intx, .dma = {.idle = dma_idle}};
    pthread_mutex_init(&core->host_lock, NULL);
    device->core = core;
    device->ops = &card_ops;
    device->irq_counts[SDC_PCI_INTX] = identity->intx;
    device->irq_counts[SDC_PCI_ERR] = 1; // QEMU warns of a card without
    sdc_pci_config_init(device, identity);
    return 0;
}

void sdc_pci_fini(struct sdc_pci_device *device)
{
    struct sdc_pci_core *core = device->core;

    if (!core)
        return;
    if (core->loop && !core->destroying)
        sdc_bug("sdc_pci_fini of a device that is plugged in: its server destroys it");
    for (uint32_t i = 0; i < core->doorbells_count; i++)
        unwire(&core->doorbells[i]);
    sdc_pci_memory_close(core);
    sdc_dma_close(&core->dma);
    pthread_mutex_destroy(&core->host_lock);
    free(core->msix_table);
    free(core);
    device->core = NULL;
    device->ops = NULL;
}

static uint32_t room_for_caps(const struct sdc_pci_device *device)
{
    uint32_t at = device->config_caps_end ? device->config_caps_end : CAPS_FIRST;

    return SDC_PCI_CONFIG_KEPT - LAST_CAPS - at;
}

int sdc_pci_check_new(const struct sdc_pci_device *device, const char *what, struct sdc_error *err)
{
    if (!device || !device->core)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "%s: the device was not made with sdc_pci_init", what);
    if (device->core->loop)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "%s: the device is plugged in already", what);
    return 0;
}

static int check_cap(const struct sdc_pci_device *device, const char *name, uint32_t size, struct sdc_error *err)
{
    int rc = sdc_pci_check_new(device, name, err);

    if (rc < 0)
        return rc;
    if (size < 4 || size % 4 != 0 || size > room_for_caps(device))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "%s: %u bytes; there is room for %u, and the size has to be a multiple of 4",
                             name, size, room_for_caps(device));
    return 0;
}

int sdc_pci_add_capability(struct sdc_pci_device *device, uint8_t id, uint32_t size, uint32_t *offset, struct sdc_error *err)
{
    int rc = check_cap(device, "capability", size, err);

    if (rc < 0)
        return rc;
    if (id == SDC_PCI_CAP_PM || id == SDC_PCI_CAP_EXPRESS || id == SDC_PCI_CAP_MSI || id == SDC_PCI_CAP_MSIX)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "capability 0x%02x is the library's to make", id);
    *offset = sdc_pci_config_add(device, id, size);
    return 0;
}

int sdc_pci_add_msix(struct sdc_pci_device *device, uint32_t vectors, unsigned bar, struct sdc_error *err)
{
    int rc = check_cap(device, "MSI-X", MSIX_CAP, err);

    if (rc < 0)
        return rc;
    struct sdc_pci_core *core = device->core;
    if (core->msix_vectors > 0 || vectors == 0 || vectors > SDC_PCI_MSIX_MAX)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "MSI-X: %u vectors; 1 to %u, and once only", vectors, SDC_PCI_MSIX_MAX);
    if (bar >= SDC_PCI_ROM || device->bars[bar].size > 0 || is_upper_half(device, bar))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "MSI-X: BAR %u is not there to take; it wants one that is empty", bar);
    core->msix_table = calloc(vectors, SDC_MSIX_ENTRY);
    if (!core->msix_table)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for %u vectors of MSI-X", vectors);

    uint64_t table = PAGE;
    while (table < (uint64_t)vectors * SDC_MSIX_ENTRY)
        table *= 2;
    core->msix_vectors = device->irq_counts[SDC_PCI_MSIX] = vectors;
    core->msix_bar = bar;
    core->msix_pba = table;
    device->bars[bar].size = 2 * table;
    sdc_pci_config_add_bar(device, bar);
    core->msix_cap = sdc_pci_config_add_msix(device, vectors, bar, (uint32_t)table | bar);
    sdc_msix_reset(device, core->msix_table, vectors);
    return 0;
}

int sdc_pci_add_msi(struct sdc_pci_device *device, uint32_t vectors, struct sdc_error *err)
{
    int rc = check_cap(device, "MSI", MSI_CAP, err);

    if (rc < 0)
        return rc;
    struct sdc_pci_core *core = device->core;
    if (core->msi_cap || !sdc_is_power_of_two(vectors) || vectors > MSI_MAX)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "MSI: %u vectors; a power of two up to %u, and once only", vectors, MSI_MAX);
    device->irq_counts[SDC_PCI_MSI] = vectors;
    core->msi_cap = sdc_pci_config_add_msi(device, vectors);
    return 0;
}

int sdc_pci_add_doorbell(struct sdc_pci_device *device, unsigned bar, uint64_t offset, uint32_t size, struct sdc_error *err)
{
    int rc = sdc_pci_check_new(device, "doorbell", err);
    bool fits = size == 0 || (size <= 8 && sdc_is_power_of_two(size) && offset % size == 0);

    if (rc < 0)
        return rc;
    struct sdc_pci_core *core = device->core;
    if (bar >= SDC_PCI_ROM || !sdc_within(offset, size ? size : 1, device->bars[bar].size) || !fits)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "doorbell at 0x%" PRIx64 " of BAR %u: %u bytes; it has to lie in the BAR, with "
                             "1, 2, 4 or 8 bytes, aligned, or 0 for any", offset, bar, size);
    if (core->doorbells_count == SDC_PCI_DOORBELLS_MAX)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "doorbell at 0x%" PRIx64 " of BAR %u: there are %u already, at most %u", offset,
                             bar, core->doorbells_count, SDC_PCI_DOORBELLS_MAX);
    core->doorbells[core->doorbells_count++] =
        (struct sdc_pci_doorbell){.core = core, .bar = bar, .size = size, .offset = offset, .watch = {.fd = -1}};
    return 0;
}

// --- in use ---

struct sdc_loop *sdc_pci_loop(const struct sdc_pci_device *device)
{
    return device->core ? device->core->loop : NULL;
}

// What the parts that were added one by one make of one another, and areas with an fd of the author's own.
static int check_parts(const struct sdc_pci_core *core, struct sdc_error *err)
{
    const struct sdc_pci_device *device = core->device;
    int rc = sdc_pci_registers_check(core, err);

    for (unsigned i = 0; i < SDC_COUNT(device->bars) && rc == 0; i++) {
        const struct sdc_pci_mappable *mappable = &device->bars[i].mappable;
        rc = sdc_pci_memory_check(device, i, mappable->areas, mappable->areas_count, err);
        if (rc == 0 && mappable->areas_count > 0 && (!sdc_fd_is_open(mappable->fd) || mappable->fd_offset % PAGE != 0))
            rc = sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "BAR %u: clients may map areas of it, and fd %d is not open, or fd_offset 0x%"
                               PRIx64 " is no multiple of 4096", i, mappable->fd, mappable->fd_offset);
    }
    for (uint32_t i = 0; i < core->doorbells_count && rc == 0; i++) {
        const struct sdc_pci_doorbell *bell = &core->doorbells[i];
        if (sdc_pci_memory_has(device, bell->bar, bell->offset, 1))
            rc = sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "doorbell at 0x%" PRIx64 " of BAR %u: it lies in memory that clients may map, "
                               "where a write rings nothing", bell->offset, bell->bar);
    }
    return rc;
}

int sdc_pci_plug(struct sdc_pci_device *device, struct sdc_loop *loop, struct sdc_error *err)
{
    struct sdc_pci_core *core = device->core;

    if (!core)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "the device was not made with sdc_pci_init");
    if (core->loop)
        return sdc_error_set(err, -EBUSY, SDC_FAULT_USER, "the device is plugged in already");
    int rc = check_parts(core, err);
    if (rc < 0)
        return rc;
    sdc_pci_config_add_pm(device);
    sdc_pci_config_add_express(device);
    sdc_pci_config_seal(device);
    core->loop = loop;
    sdc_dma_open(&core->dma, loop);
    return 0;
}

void sdc_pci_unplug(struct sdc_pci_device *device)
{
    if (!device->core)
        return;
    device->core->dma.refuses = true;
    sdc_dma_end_all(&device->core->dma);
}
