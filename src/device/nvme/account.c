// SPDX-License-Identifier: BSD-3-Clause
// What commands leave behind when they have ended: counts, and entries in the error log.
#include "device/nvme/controller.h"

enum { STATUS_TYPE = 0x700, STATUS_MEDIA = 0x200, STATUS = 0x7ff };

static void count(struct nvme_counters *counters, const struct nvme_command *command)
{
    uint64_t blocks = (nvme_dword(command, 12) & 0xffff) + UINT64_C(1);

    switch (nvme_opcode(command)) {
    case SDC_NVME_IO_READ:
    case SDC_NVME_IO_COMPARE:
        nvme_count(&counters->read_commands, 1);
        nvme_count(&counters->read_bytes, blocks << command->ns->ns->shift);
        break;
    case SDC_NVME_IO_WRITE:
        nvme_count(&counters->write_commands, 1);
        nvme_count(&counters->written_bytes, blocks << command->ns->ns->shift);
        break;
    default:
        break;
    }
}

// Being aborted is no error of the command's.
static bool was_aborted(uint16_t status)
{
    return (status & STATUS) == SDC_NVME_SC_ABORTED || (status & STATUS) == SDC_NVME_SC_ABORTED_SQ_DELETION;
}

void nvme_account(struct nvme_command *command, uint16_t status)
{
    struct nvme_worker *worker = command->sq->worker;
    bool io = command->sq->id != 0;

    if (status == SDC_NVME_SC_SUCCESS) {
        if (io)
            count(&worker->counters, command);
        return;
    }
    if (was_aborted(status))
        return;
    if ((status & STATUS_TYPE) == STATUS_MEDIA)
        nvme_count(&worker->counters.media_errors, 1);
    nvme_logs_error(&worker->nvme->admin.logs, &(struct nvme_error){
        .lba = io ? sdc_get64(command->sqe + SDC_NVME_SQE_CDW10) : 0,
        .nsid = nvme_nsid(command),
        .sq = command->sq->id,
        .cid = nvme_cid(command),
        .status = status,
        .opcode = nvme_opcode(command),
    });
}
