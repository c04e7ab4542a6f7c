// SPDX-License-Identifier: BSD-3-Clause
#include "device/nvme/walk.h"

#include "base/check.h"

#include <errno.h>

static int outcome(int rc)
{
    if (rc == SDC_PAYLOAD_BOUNCE)
        return NVME_WALK_BOUNCE;
    return rc == -ENOMEM ? SDC_NVME_SC_INTERNAL : rc;
}

static int flush(struct nvme_walk *walk)
{
    uint32_t size = walk->pending;

    if (size == 0)
        return 0;
    walk->pending = 0;
    return outcome(sdc_payload_add(walk->payload, walk->memory, walk->iova, size, walk->access));
}

int nvme_walk_begin_buffer(struct nvme_walk *walk, uint64_t iova, uint32_t size)
{
    int rc = flush(walk);

    walk->iova = iova;
    walk->pending = size;
    walk->left -= size;
    return rc;
}

int nvme_walk_skip(struct nvme_walk *walk, uint32_t size)
{
    int rc = flush(walk);

    walk->left -= size;
    return rc ? rc : outcome(sdc_payload_add_nowhere(walk->payload, size));
}

// Data that is not in the guest's memory, or may not be accessed, makes the command fail: not for ever, it may be mapped later.
int nvme_walk_end(struct nvme_walk *walk)
{
    int rc = flush(walk);

    if (rc == 0)
        rc = outcome(sdc_payload_end(walk->payload));
    if (rc == 0 && walk->payload->fault)
        rc = SDC_NVME_SC_DATA_TRANSFER;
    return rc;
}

int nvme_walk_read(struct nvme_walk *walk, uint32_t list, uint64_t iova, uint64_t offset, void *local, size_t size)
{
    uint64_t at;

    if (!sdc_add(iova, offset, &at))
        return SDC_NVME_SC_DATA_TRANSFER;
    int rc = sdc_memory_read(walk->memory, at, local, size);
    if (rc == 0)
        sdc_fetch_log_add(walk->fetched, list, offset, size);
    return rc == 0 || rc == -EAGAIN ? rc : SDC_NVME_SC_DATA_TRANSFER;
}
