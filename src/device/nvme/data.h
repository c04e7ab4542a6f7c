// SPDX-License-Identifier: BSD-3-Clause
// A command's data: guest memory that its PRP entries or SGL name.
#pragma once

#include "memory/payload.h"
#include "ring/fetch_log.h"

struct nvme_command;

enum {
    NVME_PAGE = 4096,            // bytes of a memory page: of CC.MPS 0, the only one
    NVME_DATA_MAX = 1024 * 1024, // bytes of a command's data (MDTS)
};

struct nvme_data {
    const struct sdc_span *spans; // of what nvme_data_map has looked up, until the command ends
    struct sdc_payload payload;   // one stream: readable or writable, as the command is
    uint32_t spans_count;         // of spans
    struct sdc_fetch_log fetched;
};

// Looks up the command's data buffer, which has `size` bytes, and which the device reads or writes: command->data.spans. 0, a status (> 0),
// or a negative number, with which the handler returns: it runs again, from its start, and finds the data here.
int nvme_data_map(struct nvme_command *command, uint64_t size, enum sdc_access access);
// What the handler waited for is here, or it cannot be had: goes on with the command. Its queue's loop.
void nvme_data_arrived(struct nvme_command *command);
// Copies a structure to or from a data buffer of its size: to the driver, from the driver. As nvme_data_map.
int nvme_data_copy_out(struct nvme_command *command, const void *bytes, size_t size);
int nvme_data_copy_in(struct nvme_command *command, void *bytes, size_t size);
// Likewise to a buffer of `total` bytes, with zeroes behind the structure.
int nvme_data_copy_out_padded(struct nvme_command *command, const void *bytes, size_t size, uint64_t total);
// Copies bytes [offset, offset + size) of a buffer that was looked up to be read. 0 or a status.
int nvme_data_read(struct nvme_command *command, uint64_t offset, void *bytes, size_t size);
