// SPDX-License-Identifier: BSD-3-Clause
// An NVMe controller (NVM Express base specification 2.0, NVM command set 1.0) on block backends, as a PCI device.
#pragma once

#include "base/limits.h"
#include "loop/poller.h"

#include <sidecard/block.h>
#include <sidecard/pci.h>

enum {
    SDC_NVME_SERIAL_BYTES = 20,
    SDC_NVME_MODEL_BYTES = 40,
    SDC_NVME_NQN_BYTES = 223,
    SDC_NVME_NAMESPACES_MAX = SDC_LIMIT_NAMESPACES,
    SDC_NVME_QUEUES_MAX = 256,  // I/O queue pairs
    SDC_NVME_DEPTH_MAX = 65536, // entries of a queue
};

struct sdc_nvme_options {
    uint16_t queues;  // I/O queue pairs, 1 to 256
    uint32_t depth;   // most entries of an I/O queue, 2 to 65536
    uint16_t vectors; // of MSI-X, 1 to queues + 1
    enum sdc_poll_mode poll; // of queues whose doorbells are in memory
    uint64_t poll_max_ns;
    bool shadow_doorbells; // are offered, where the guest's memory is shared
    bool write_cache; // whether the driver finds the cache on (it may switch it)
    char serial[SDC_NVME_SERIAL_BYTES + 1];
    char model[SDC_NVME_MODEL_BYTES + 1]; // empty: the usual one
    char nqn[SDC_NVME_NQN_BYTES + 1];     // empty: made of the serial number
};

// Makes a controller without namespaces. loops[0] is its home loop. 0 or a negative errno with err filled.
int sdc_nvme_new(const struct sdc_nvme_options *options, struct sdc_loop *const *loops, unsigned loops_count, struct sdc_pci_device **pci,
                 struct sdc_error *err);

// Before the controller runs: makes namespace nsid, 1 to SDC_NVME_NAMESPACES_MAX, on block, which it takes over when it succeeds. Names of
// the namespace are made of `backend`, which is not kept. 0; -EEXIST or another negative errno with err filled.
int sdc_nvme_namespace_new(struct sdc_pci_device *device, uint32_t nsid, struct sdc_block *block, const char *backend,
                           struct sdc_error *err);

// Home loop, while it runs: the same. The driver is told when all queues can use it.
int sdc_nvme_namespace_add(struct sdc_pci_device *device, uint32_t nsid, struct sdc_block *block, const char *backend,
                           struct sdc_error *err);
// Home loop: takes a namespace away. The driver is told at once; commands that work on it end first, then its backend is closed. 0,
// -ENOENT, -ENOMEM.
int sdc_nvme_namespace_remove(struct sdc_pci_device *device, uint32_t nsid);

// Home loop: looks at the backends' sizes again.
void sdc_nvme_refresh(struct sdc_pci_device *device);
