// SPDX-License-Identifier: BSD-3-Clause
// Admin commands (base 5), on the home loop.
#include "device/nvme/controller.h"

#include <stdio.h>

enum {
    ID_VID = 0,
    ID_SSVID = 2,
    ID_SERIAL = 4,
    ID_MODEL = 24,
    ID_FIRMWARE = 64,
    ID_MDTS = 77,
    ID_CNTLID = 78,
    ID_VERSION = 80,
    ID_SQES = 512,
    ID_CQES = 513,
    ID_NN = 516,
};

static void put_text(uint8_t *field, const char *text, size_t size)
{
    memset(field, ' ', size);
    memcpy(field, text, strnlen(text, size));
}

static int identify(struct nvme_command *command)
{
    const struct nvme *nvme = command->sq->nvme;
    uint8_t page[SDC_NVME_IDENTIFY_BYTES] = {0};

    if ((nvme_dword(command, 10) & 0xff) != SDC_NVME_CNS_CONTROLLER)
        return SDC_NVME_SC_INVALID_FIELD | SDC_NVME_SC_DNR;
    sdc_put16(page + ID_VID, NVME_VENDOR);
    sdc_put16(page + ID_SSVID, NVME_VENDOR);
    put_text(page + ID_SERIAL, nvme->options.serial, 20);
    put_text(page + ID_MODEL, "sidecard NVMe", 40);
    put_text(page + ID_FIRMWARE, SDC_VERSION, 8);
    page[ID_MDTS] = NVME_MDTS;
    sdc_put16(page + ID_CNTLID, 1);
    sdc_put32(page + ID_VERSION, SDC_NVME_VERSION_2_0);
    page[ID_SQES] = SDC_NVME_SQES << 4 | SDC_NVME_SQES;
    page[ID_CQES] = SDC_NVME_CQES << 4 | SDC_NVME_CQES;
    sdc_put32(page + ID_NN, NVME_NAMESPACES_MAX);
    return nvme_data_copy_out(command, page, sizeof page);
}

int nvme_admin_run(struct nvme_command *command)
{
    switch (nvme_opcode(command)) {
    case SDC_NVME_ADMIN_CREATE_CQ:
        return nvme_create_cq(command);
    case SDC_NVME_ADMIN_DELETE_CQ:
        return nvme_delete_cq(command);
    case SDC_NVME_ADMIN_CREATE_SQ:
        return nvme_create_sq(command);
    case SDC_NVME_ADMIN_DELETE_SQ:
        return nvme_delete_sq(command);
    case SDC_NVME_ADMIN_DOORBELL_BUFFER:
        return nvme_doorbell_buffer(command);
    case SDC_NVME_ADMIN_IDENTIFY:
        return identify(command);
    default:
        return SDC_NVME_SC_INVALID_OPCODE | SDC_NVME_SC_DNR;
    }
}

void nvme_admin_reset(struct nvme *nvme)
{
    (void)nvme;
}
