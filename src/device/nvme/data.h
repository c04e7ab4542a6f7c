// SPDX-License-Identifier: BSD-3-Clause
// A command's data: guest memory that its PRP entries or SGL name.
#pragma once

#include "memory/payload.h"

struct nvme_command;

struct nvme_data {
    struct sdc_payload payload;
};

// Looks up the first `size` bytes of the command's data buffer: command->data.payload. 0, a status (> 0), or -EAGAIN.
int nvme_data_map(struct nvme_command *command, uint64_t size, enum sdc_access access);
// Copies a structure to or from the start of the data buffer. Likewise.
int nvme_data_copy_out(struct nvme_command *command, const void *bytes, size_t size); // to the driver
int nvme_data_copy_in(struct nvme_command *command, void *bytes, size_t size);
