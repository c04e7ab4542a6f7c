// SPDX-License-Identifier: BSD-3-Clause
#include "device/nvme/namespace.h"

#include "base/bytes.h"
#include "base/hash.h"
#include "device/nvme/identify.h"

#include <stdio.h>

// Sixteen bytes made of the controller's serial number, the NSID and the backend's name; `kind` tells those apart that are made of
// the same.
static void make_name(uint8_t name[16], const char *kind, uint32_t nsid, const char *backend, const char *serial)
{
    for (unsigned i = 0; i < 2; i++) {
        uint64_t hash = sdc_hash_text(SDC_HASH_BASIS + i, kind);
        hash = sdc_hash_text(hash, serial);
        hash = sdc_hash_text(hash * 31 + nsid, backend);
        sdc_put64(name + 8 * i, sdc_hash_mix(hash));
    }
}

// A UUID of version 8 (RFC 9562), which says that its bits are ours.
static void make_uuid(uint8_t uuid[16], const char *kind, uint32_t nsid, const char *backend, const char *serial)
{
    make_name(uuid, kind, nsid, backend, serial);
    uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x80);
    uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
}

void nvme_name_subsystem(char nqn[NVME_NQN + 1], const char *serial)
{
    uint8_t uuid[16];

    make_uuid(uuid, "subsystem", 0, "", serial);
    int at = snprintf(nqn, NVME_NQN + 1, "nqn.2014-08.org.nvmexpress:uuid:");
    for (unsigned i = 0; i < sizeof uuid; i++)
        at += snprintf(nqn + at, (size_t)(NVME_NQN + 1 - at), i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", uuid[i]);
}

void nvme_namespace_describe(struct nvme_namespace *namespace, uint32_t nsid, struct sdc_block *block, const char *backend,
                             const char *serial)
{
    uint8_t name[16];

    *namespace = (struct nvme_namespace){.nsid = nsid, .block = block};
    block->ops->info(block, &namespace->info);
    while ((UINT32_C(1) << namespace->shift) < namespace->info.block_size)
        namespace->shift++;
    make_uuid(namespace->uuid, "uuid", nsid, backend, serial);
    // Nobody gave this project a number of its own: the bit says that these are made locally, in the first octet of where a company's
    // number would stand (base 4.5).
    make_name(namespace->nguid, "nguid", nsid, backend, serial);
    namespace->nguid[8] = (uint8_t)((namespace->nguid[8] & 0xfc) | 0x02);
    make_name(name, "eui64", nsid, backend, serial);
    memcpy(namespace->eui64, name, sizeof namespace->eui64);
    namespace->eui64[0] = (uint8_t)((namespace->eui64[0] & 0xfc) | 0x02);
}

uint64_t nvme_namespace_blocks(const struct nvme_namespace *namespace)
{
    struct sdc_block_info info;

    namespace->block->ops->info(namespace->block, &info);
    return info.size >> namespace->shift;
}
