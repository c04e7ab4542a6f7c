// SPDX-License-Identifier: BSD-3-Clause
// Abort (base 5.1). What waits for an event is aborted. I/O that has been given to a backend cannot be taken back, and ends as it does: the
// answer says that it was not aborted, as of a command that is not known. The command ends at once, so that there are never as many as the
// limit allows.
#include "device/nvme/controller.h"

enum { NOT_ABORTED = 1 };

int nvme_abort(struct nvme_command *command)
{
    struct nvme *nvme = command->sq->nvme;
    uint32_t sq = nvme_dword(command, 10) & 0xffff;
    uint16_t cid = (uint16_t)(nvme_dword(command, 10) >> 16);

    command->dw0 = NOT_ABORTED;
    if (sq > nvme->options.queues || nvme->sqs[sq].state != NVME_QUEUE_LIVE)
        return SDC_NVME_SC_INVALID_FIELD;
    if (sq == 0 && nvme_events_abort(&nvme->admin.events, cid))
        command->dw0 = 0;
    return SDC_NVME_SC_SUCCESS;
}
