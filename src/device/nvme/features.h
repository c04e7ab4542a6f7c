// SPDX-License-Identifier: BSD-3-Clause
// What the driver may set (base 5.27, nvm 4.1.3): the values, and Get and Set Features on them. Nothing is kept over a reset: no feature
// can be saved.
#pragma once

#include "device/nvme/namespace.h"

#include <sidecard/pci.h>

#include <stdatomic.h>

enum {
    NVME_FEATURE_DATA = 512, // bytes of the largest feature's data
    NVME_SELECT_CURRENT = 0,
    NVME_SELECT_DEFAULT = 1,
    NVME_SELECT_SAVED = 2,
    NVME_SELECT_CAPABILITIES = 3,
};

// Bits of an entry in the logs of what is supported, commands (base 5.16.1.6) and features (5.16.1.17).
enum {
    NVME_EFFECT_SUPPORTED = 1 << 0,
    NVME_EFFECT_CONTENT = 1 << 1, // of blocks
    NVME_EFFECT_NS_SCOPE = 1 << 20,
    NVME_EFFECT_CONTROLLER_SCOPE = 1 << 21,
};

// Values as the commands have them, in CDW11 or DW0. The home loop writes; what is atomic is read by queues' loops as they run.
struct nvme_features {
    _Atomic uint32_t arbitration;
    _Atomic uint32_t coalescing;                         // THR, less one, in bits 7:0; TIME in bits 15:8, of 100 us
    _Atomic uint64_t eager[SDC_PCI_MSIX_MAX / 64];       // a bit for each vector whose interrupts are not coalesced
    atomic_bool write_cache;                             // off: every write is durable before it completes
    uint32_t power;
    uint32_t hot, cold; // temperature thresholds
    uint32_t atomicity;
    uint32_t events;        // asynchronous ones that are wanted
    uint32_t keep_alive_ms; // 0: the timer is off
    uint64_t timestamp_ms;  // what the driver set,
    uint64_t timestamp_ns;  // and when, by the loop's clock
    bool timestamp_set;
    uint8_t host_behavior;  // ACRE: it knows Command Retry Delay
};

// What they are about.
struct nvme_features_of {
    struct nvme_features *features;
    struct nvme_namespaces *namespaces;
    uint32_t queue_pairs; // of I/O queues, that there can be
    uint32_t vectors;
    uint64_t now_ns;
    bool write_cache;     // the default
    bool queues_exist;    // I/O queues: it is too late to ask for a number of them
};

struct nvme_feature_request {
    uint8_t id;      // enum sdc_nvme_feature
    uint8_t select;  // Get: SEL
    bool save;       // Set: SV
    uint32_t nsid;
    uint32_t value;  // CDW11
};

// All values are the defaults.
void nvme_features_reset(const struct nvme_features_of *of);
// Bytes that Set Features of this one takes from the driver; 0 of most.
uint32_t nvme_feature_data(uint8_t id);
// An enum sdc_nvme_status. *dw0 is the answer; data of *size bytes, at most NVME_FEATURE_DATA, goes to the driver.
int nvme_features_get(const struct nvme_features_of *of, const struct nvme_feature_request *request, uint32_t *dw0, uint8_t *data,
                      uint32_t *size);
// data: nvme_feature_data bytes. Nothing is changed unless it succeeds.
int nvme_features_set(const struct nvme_features_of *of, const struct nvme_feature_request *request, const uint8_t *data, uint32_t *dw0);
// The entry of the log Feature Identifiers Supported and Effects (base 5.16.1.17); 0: not supported.
uint32_t nvme_feature_effects(uint8_t id);

// The temperature is outside what the driver called normal (base 5.27.1.3).
bool nvme_features_hot_or_cold(const struct nvme_features *features);
// Whether interrupts of this vector may wait for more. Any thread.
static inline bool nvme_features_coalesce(const struct nvme_features *features, uint32_t vector)
{
    return !(atomic_load_explicit(&features->eager[vector / 64], memory_order_relaxed) >> vector % 64 & 1);
}
