// SPDX-License-Identifier: BSD-3-Clause
// Filters by name. The input is what stands in front of a backend, which is a null disk.
#include "backend/filter/stack.h"
#include "card.h"

#include <stdlib.h>
#include <string.h>

#define BASE ":null:1G"
#define BASE_SIZE (UINT64_C(1) << 30)

static void check_stack(struct sdc_block *block, uint64_t most)
{
    struct sdc_block_info info;

    block->ops->info(block, &info);
    fuzz_check(info.size > 0 && info.size <= most && info.size % info.block_size == 0, "a disk of a size that cannot be is made");
    fuzz_check(info.block_size == 512 && info.physical_block_size % info.block_size == 0 && info.discard_granularity % info.block_size == 0,
               "a disk whose units are no multiples of its blocks is made");
    block->ops->close(block);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *spec = malloc(size + sizeof BASE);
    struct sdc_error err = {0};
    struct sdc_block *block;

    fuzz_check(spec != NULL, "no memory");
    if (size)
        memcpy(spec, data, size);
    memcpy(spec + size, BASE, sizeof BASE);
    const char *base = sdc_stack_base(spec);
    fuzz_check(base >= spec && base <= spec + strlen(spec), "the backend is not inside the name");
    if (strncmp(base, "null:", 5) == 0) { // and not somebody's file
        int rc = sdc_stack_open(spec, &(struct sdc_block_open_options){0}, &block, &err);
        if (rc == 0)
            check_stack(block, base == spec + size + 1 ? BASE_SIZE : INT64_MAX); // the input may name a null disk, too
        else
            fuzz_check(rc < 0 && err.code == rc && err.fault != SDC_FAULT_NONE && err.text[0] != '\0', "refused without a reason");
    }
    free(spec);
    return 0;
}
