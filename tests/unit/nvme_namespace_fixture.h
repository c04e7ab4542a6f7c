// SPDX-License-Identifier: BSD-3-Clause
// Namespaces on backends that say of themselves what a test wants.
#pragma once

#include "base/check.h"
#include "device/nvme/namespace.h"

struct told_block {
    struct sdc_block base;
    struct sdc_block_info info;
};

static inline void told_info(struct sdc_block *block, struct sdc_block_info *info)
{
    *info = sdc_container(block, struct told_block, base)->info;
}

static const struct sdc_block_ops told_ops = {.name = "told", .info = told_info};

// Three: of 512 byte blocks, of 4096 byte blocks with everything said, and read-only. NSIDs 1, 2 and 256.
struct three_namespaces {
    struct told_block blocks[3];
    struct nvme_namespace namespaces[3];
    struct nvme_namespaces all;
};

static inline void three_open(struct three_namespaces *three)
{
    static const uint32_t nsids[] = {1, 2, 256};
    static const char *const names[] = {"a.img", "b.img", "c.img"};
    static const struct sdc_block_info infos[] = {
        {.size = 1000 * 512, .block_size = 512, .physical_block_size = 512, .volatile_cache = true},
        {.size = 77 * 4096, .block_size = 4096, .physical_block_size = 16384, .optimal_io_size = 65536, .discard_granularity = 32768,
         .discard_zeroes = true},
        {.size = 512, .block_size = 512, .physical_block_size = 4096, .discard_granularity = 4096, .read_only = true},
    };

    *three = (struct three_namespaces){0};
    for (unsigned i = 0; i < 3; i++) {
        three->blocks[i] = (struct told_block){{&told_ops}, infos[i]};
        nvme_namespace_describe(&three->namespaces[i], nsids[i], &three->blocks[i].base, names[i], "SERIAL");
        three->all.by_id[nsids[i]] = &three->namespaces[i];
    }
}
