// SPDX-License-Identifier: BSD-3-Clause
#include "device/nvme/namespace.h"

#include "base/bytes.h"
#include "base/hash.h"

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

void nvme_namespace_describe(struct nvme_namespace *namespace, uint32_t nsid, struct sdc_block *block, const char *backend,
                             const char *serial)
{
    uint8_t name[16];

    *namespace = (struct nvme_namespace){.nsid = nsid, .block = block};
    block->ops->info(block, &namespace->info);
    while ((UINT32_C(1) << namespace->shift) < namespace->info.block_size)
        namespace->shift++;
    // Nobody gave this project numbers of its own, so that all say that they are made locally: a UUID of version 8 (RFC 9562), and in the
    // others the bit for that, in the first octet of where a company's number would stand (base 4.5).
    make_name(namespace->uuid, "uuid", nsid, backend, serial);
    namespace->uuid[6] = (uint8_t)((namespace->uuid[6] & 0x0f) | 0x80);
    namespace->uuid[8] = (uint8_t)((namespace->uuid[8] & 0x3f) | 0x80);
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
