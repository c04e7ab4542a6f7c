// SPDX-License-Identifier: BSD-3-Clause
#include "base/check.h"
#include "device/nvme/controller.h"
#include "device/nvme/walk.h"

_Static_assert(NVME_DATA_MAX == NVME_PAGE << NVME_MDTS, "what Identify says");

static int walk_once(struct nvme_command *command, uint64_t size, enum sdc_access access, bool bounce)
{
    struct nvme_data *data = &command->data;
    const uint8_t *pointer = command->sqe + SDC_NVME_SQE_PRP1;
    uint8_t kind = command->sqe[SDC_NVME_SQE_FLAGS] & SDC_NVME_PSDT;
    struct nvme_walk walk = {
        .memory = &command->sq->worker->memory, .payload = &data->payload, .fetched = &data->fetched, .access = access, .left = size};

    if (kind == SDC_NVME_PSDT)
        return SDC_NVME_SC_INVALID_FIELD | SDC_NVME_SC_DNR;
    sdc_fetch_log_clear(&data->fetched);
    sdc_payload_begin(&data->payload, bounce);
    return kind == 0 ? nvme_prp_walk(&walk, sdc_get64(pointer), sdc_get64(pointer + 8)) : nvme_sgl_walk(&walk, pointer);
}

// The data is brought to memory of ours, or is there; what the driver is to get goes to it when the command ends.
static int bounce(struct nvme_command *command, uint64_t size, enum sdc_access access)
{
    struct nvme_sq *sq = command->sq;
    int rc = walk_once(command, size, access, true);

    if (rc != 0)
        return rc;
    // Nothing of it lies in the map any more.
    sdc_map_use_put(command->use, sq->worker->use);
    command->use = NULL;
    command->remote.queue = &sq->remote;
    if (sdc_remote_bounce(&command->remote))
        return NVME_PENDING;
    return command->remote.fault ? SDC_NVME_SC_DATA_TRANSFER : 0;
}

// A queue whose commands in flight have too many spans takes no more for now.
static void weigh(struct nvme_command *command)
{
    uint32_t before = command->spans;

    command->spans = command->data.payload.spans_count + command->data.payload.segments_count;
    command->sq->spans += command->spans - before;
}

// Most commands' data lies in one page that PRP1 names, and whose memory is at hand: then there is nothing to walk over. False: there
// may be.
static bool map_page(struct nvme_command *command, uint64_t size, enum sdc_access access)
{
    struct sdc_payload *payload = &command->data.payload;
    uint64_t prp1 = sdc_get64(command->sqe + SDC_NVME_SQE_PRP1);

    if (command->sqe[SDC_NVME_SQE_FLAGS] & SDC_NVME_PSDT || prp1 % 4 != 0 || size == 0 || size > NVME_PAGE - prp1 % NVME_PAGE)
        return false;
    sdc_fetch_log_clear(&command->data.fetched);
    sdc_payload_begin(payload, false);
    return sdc_payload_add_at_hand(payload, &command->sq->worker->memory, prp1, (uint32_t)size, access);
}

// Out of line: what it needs on the stack is not for those that map_page has helped.
static __attribute__((noinline)) int map_by_walk(struct nvme_command *command, uint64_t size, enum sdc_access access)
{
    int rc = walk_once(command, size, access, false);

    return rc == NVME_WALK_BOUNCE ? bounce(command, size, access) : rc;
}

int nvme_data_map(struct nvme_command *command, uint64_t size, enum sdc_access access)
{
    struct nvme_data *data = &command->data;
    const struct sdc_payload *payload = &data->payload;
    bool here = command->remote.queue; // it was bounced, and has arrived
    int rc = here || map_page(command, size, access) ? 0 : map_by_walk(command, size, access);

    if (!here && (rc == 0 || rc == NVME_PENDING))
        weigh(command);
    if (rc != 0)
        return rc;
    data->spans = payload->spans + (access == SDC_ACCESS_WRITE ? payload->readable_spans : 0);
    data->spans_count = access == SDC_ACCESS_WRITE ? payload->spans_count - payload->readable_spans : payload->readable_spans;
    return 0;
}

void nvme_data_arrived(struct nvme_command *command)
{
    int rc = SDC_NVME_SC_DATA_TRANSFER;

    if (command->remote.fault == 0)
        rc = command->sq->id == 0 ? nvme_admin_run(command) : nvme_io_run(command);
    if (rc != NVME_PENDING)
        nvme_complete(command, (uint16_t)rc, command->dw0);
}

int nvme_data_copy_out(struct nvme_command *command, const void *bytes, size_t size)
{
    int rc = nvme_data_map(command, size, SDC_ACCESS_WRITE);

    if (rc == 0 && sdc_payload_write(&command->data.payload, 0, bytes, size) < 0)
        rc = SDC_NVME_SC_DATA_TRANSFER;
    return rc;
}

#include <errno.h>

int nvme_data_copy_out_padded(struct nvme_command *command, const void *bytes, size_t size, uint64_t total)
{
    static const uint8_t zeroes[NVME_PAGE];
    int rc = nvme_data_map(command, total, SDC_ACCESS_WRITE);

    if (rc == 0 && sdc_payload_write(&command->data.payload, 0, bytes, size) < 0)
        rc = SDC_NVME_SC_DATA_TRANSFER;
    for (uint64_t at = size; rc == 0 && at < total; at += NVME_PAGE) {
        if (sdc_payload_write(&command->data.payload, at, zeroes, (size_t)sdc_min(NVME_PAGE, total - at)) < 0)
            rc = SDC_NVME_SC_DATA_TRANSFER;
    }
    return rc;
}

int nvme_data_copy_in(struct nvme_command *command, void *bytes, size_t size)
{
    int rc = nvme_data_map(command, size, SDC_ACCESS_READ);

    return rc ? rc : nvme_data_read(command, 0, bytes, size);
}

int nvme_data_read(struct nvme_command *command, uint64_t offset, void *bytes, size_t size)
{
    return sdc_payload_read(&command->data.payload, offset, bytes, size) < 0 ? SDC_NVME_SC_DATA_TRANSFER : 0;
}
