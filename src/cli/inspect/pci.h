// SPDX-License-Identifier: BSD-3-Clause
// A PCI function's configuration space, decoded. Nothing in it is believed: lists may loop, lead anywhere, or be cut off.
#pragma once

#include "cli/inspect/ids.h"
#include "cli/inspect/tree.h"

enum { SDC_INSPECT_CONFIG_MAX = 4096, SDC_INSPECT_BARS = 6 };

struct sdc_inspect_config {
    uint8_t bytes[SDC_INSPECT_CONFIG_MAX];
    size_t size; // bytes that there are: 256 or 4096, or as many as the server has
    uint64_t bar_sizes[SDC_INSPECT_BARS]; // as the server says, 0: none
};

// Fills pci, an object. What is wrong with it is appended to problems, as texts.
void sdc_inspect_pci(json_t *pci, const struct sdc_inspect_config *config, const struct sdc_inspect_ids *ids, json_t *problems);

// One step of a walk over the list of capabilities.
struct sdc_inspect_capability {
    uint16_t id;
    uint16_t offset; // in the configuration space
    uint16_t next;   // the next one's, 0: none
    uint8_t version; // of an extended one
};
struct sdc_inspect_walk {
    const struct sdc_inspect_config *config;
    bool extended;
    bool begun;
    struct sdc_inspect_capability at;
    uint8_t seen[SDC_INSPECT_CONFIG_MAX / 4 / 8]; // a bit for each place
    char broken[96]; // why the list ends where it should not; empty: it does not
};
// true: walk->at is the next capability.
bool sdc_inspect_walk_next(struct sdc_inspect_walk *walk);

// Puts what a capability says. bytes: what there is of the configuration space from its first byte on.
void sdc_inspect_capability_put(json_t *object, const struct sdc_inspect_capability *capability, uint16_t vendor, const uint8_t *bytes,
                                size_t size);
void sdc_inspect_extended_put(json_t *object, const struct sdc_inspect_capability *capability, const uint8_t *bytes, size_t size);
