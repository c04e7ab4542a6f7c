// SPDX-License-Identifier: BSD-3-Clause
// What a namespace is: a block backend with an id and names.
#pragma once

#include "base/limits.h"

#include <sidecard/block.h>
#include <sidecard/error.h>

#include <stdbool.h>

enum { NVME_NAMESPACES_MAX = SDC_LIMIT_NAMESPACES }; // NSIDs go from 1 to it (NN)

// One namespace. All but error_recovery stays as it is from the time that loops see it, but for the backend's size, which info gives at any
// time.
struct nvme_namespace {
    uint32_t nsid;
    struct sdc_block *block;
    struct sdc_block_info info; // as of its making; the size as of the last look (home loop)
    unsigned shift;             // a logical block has 1 << shift bytes
    uint32_t error_recovery;    // the feature's value (home loop)
    uint8_t nguid[16], eui64[8], uuid[16];
};

// Fills in what a namespace is: nsid on block, which it does not own. Its names are made of the controller's serial number, its NSID and
// what the backend is called, so that they are the same the next time.
void nvme_namespace_describe(struct nvme_namespace *namespace, uint32_t nsid, struct sdc_block *block, const char *backend,
                             const char *serial);
// Its size as of now, in logical blocks. Any thread.
uint64_t nvme_namespace_blocks(const struct nvme_namespace *namespace);

// What there is: by_id[0] is unused.
struct nvme_namespaces {
    struct nvme_namespace *by_id[NVME_NAMESPACES_MAX + 1];
};

// An NSID that could be in use: 1 to NVME_NAMESPACES_MAX (base 3.2.1.2).
static inline bool nvme_nsid_valid(uint32_t nsid)
{
    return nsid >= 1 && nsid <= NVME_NAMESPACES_MAX;
}

// The namespace, or NULL if the NSID is not valid or there is none.
static inline struct nvme_namespace *nvme_namespace_find(const struct nvme_namespaces *namespaces, uint32_t nsid)
{
    return nvme_nsid_valid(nsid) ? namespaces->by_id[nsid] : NULL;
}
