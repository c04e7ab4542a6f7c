// SPDX-License-Identifier: BSD-3-Clause
#include "base/check.h"
#include "device/nvme/controller.h"

// PRP1, and PRP2 where it is a second page.
int nvme_data_copy_out(struct nvme_command *command, const void *bytes, size_t size)
{
    struct sdc_memory *memory = &command->sq->worker->memory;
    uint64_t prp1 = sdc_get64(command->sqe + SDC_NVME_SQE_PRP1);
    size_t first = (size_t)sdc_min(size, NVME_PAGE - prp1 % NVME_PAGE);
    int rc = sdc_memory_write(memory, prp1, bytes, first);

    if (rc == 0 && first < size)
        rc = sdc_memory_write(memory, sdc_get64(command->sqe + SDC_NVME_SQE_PRP2), (const uint8_t *)bytes + first, size - first);
    return rc < 0 ? SDC_NVME_SC_DATA_TRANSFER | SDC_NVME_SC_DNR : 0;
}
