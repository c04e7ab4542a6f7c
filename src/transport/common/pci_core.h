// SPDX-License-Identifier: BSD-3-Clause
// What the library keeps for a PCI device that was made with sdc_pci_init: it stands between the host and the author's functions, and does
// what authors should not have to: MSI-X, INTx, doorbells, mappable memory (pci_memory.c), guest memory and DMA (dma.c). Home loop, but
// where a comment says otherwise.
#pragma once

#include <sidecard/dma.h>

#include "loop/loop.h"
#include "transport/common/dma.h"

#include <pthread.h>
#include <stdatomic.h>

enum { SDC_PCI_DOORBELLS_MAX = 64 };

struct sdc_pci_doorbell {
    struct sdc_pci_core *core;
    unsigned bar;
    uint32_t size; // 0: any
    uint64_t offset;
    struct sdc_watch watch; // of its eventfd; -1: no client has asked for it
};

// A BAR of which a part is memory.
struct sdc_pci_memory {
    uint8_t *base; // where the BAR's first byte is; NULL: none of it is
};

// Registers of a BAR that the library keeps.
struct sdc_pci_block {
    const struct sdc_pci_register *registers; // the author's, like values
    uint32_t count;                           // 0: there are none
    uint8_t *values;                          // of the first one, and the others behind it
};

struct sdc_pci_core {
    const struct sdc_pci_ops *ops; // the author's
    struct sdc_pci_device *device;
    struct sdc_loop *loop; // NULL until it is plugged in
    pthread_mutex_t host_lock; // guards the device's host: threads of the author's raise interrupts while it comes and goes
    bool has_intx;
    bool resetting;
    bool stale; // there was no memory to replace what the last client may still have mapped: nobody is let in until there is
    bool destroying; // by its host: sdc_pci_fini may come
    uint32_t msix_vectors; // 0: it has none
    unsigned msix_bar;
    uint64_t msix_pba; // offset in the BAR, of the pending bits
    uint32_t msix_cap;
    uint8_t *msix_table;
    uint32_t msi_cap; // 0: it has none
    // What the driver has switched on, and what the device has asserted: any thread reads them.
    atomic_bool msix_enabled;
    atomic_uint msi_enabled; // vectors
    atomic_bool intx_disabled;
    atomic_bool intx_asserted;
    struct sdc_pci_memory memories[6];
    struct sdc_pci_block blocks[6];
    struct sdc_pci_doorbell doorbells[SDC_PCI_DOORBELLS_MAX];
    uint32_t doorbells_count;
    struct sdc_dma dma;
};

// Before any client: its home loop is `loop` from now on. -EINVAL with err filled: it is not well made.
int sdc_pci_plug(struct sdc_pci_device *device, struct sdc_loop *loop, struct sdc_error *err);

// Home loop: it is not shown any more. Nothing of the device's is under way on the loop when all has run that is posted there by now.
void sdc_pci_unplug(struct sdc_pci_device *device);

// Whether a part, what, may be added to a device: 0, or -EINVAL with err filled.
int sdc_pci_check_new(const struct sdc_pci_device *device, const char *what, struct sdc_error *err);

// Home loop: who shows it from now on, or NULL.
void sdc_pci_set_host(struct sdc_pci_device *device, struct sdc_pci_host *host);

// Before a client is let in. 0, or -ENOMEM: one that has gone may still share the device's memory.
int sdc_pci_admit(struct sdc_pci_device *device);

// pci_memory.c. Whether a BAR can have these areas: 0, or -EINVAL with err filled.
int sdc_pci_memory_check(const struct sdc_pci_device *device, unsigned bar, const struct sdc_pci_area *areas, uint32_t count,
                         struct sdc_error *err);
// Whether clients may map [offset, offset + size) of a BAR.
bool sdc_pci_memory_has(const struct sdc_pci_device *device, unsigned bar, uint64_t offset, uint64_t size);
// Whether the access is to memory of a BAR; it has been done then.
bool sdc_pci_memory_access(struct sdc_pci_core *core, struct sdc_pci_access *access);
// The client has gone: nobody who has mapped the memory shares it any more, and it is full of zeroes. Or a negative errno: some of it is
// what it was.
int sdc_pci_memory_renew(struct sdc_pci_core *core);
void sdc_pci_memory_close(struct sdc_pci_core *core);

// pci_registers.c. Whether the access is to registers that the library keeps; it has been done then.
bool sdc_pci_registers_access(struct sdc_pci_core *core, struct sdc_pci_access *access);
void sdc_pci_registers_reset(struct sdc_pci_core *core);
// Whether some of them lie in memory that clients may map: 0, or -EINVAL with err filled.
int sdc_pci_registers_check(const struct sdc_pci_core *core, struct sdc_error *err);
