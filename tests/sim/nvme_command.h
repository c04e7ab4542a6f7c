// SPDX-License-Identifier: BSD-3-Clause
// An NVMe I/O command of the simulated driver: how it is made, and what may come of it.
#pragma once

#include "io.h"

enum { COMMAND_PIECES = 12, COMMAND_CHUNKS = 24 };

struct nvme_piece {
    uint64_t iova;
    uint32_t size;
    bool nowhere; // a bit bucket, or an address where nothing is
};

struct nvme_command {
    struct sim_io io;
    uint16_t cid;
    uint8_t opcode;
    uint16_t expected; // status
    bool reads;        // the device writes its data to the guest
    struct nvme_piece pieces[COMMAND_PIECES]; // of its data, in order
    unsigned pieces_count;
    struct nvme_piece chunks[COMMAND_CHUNKS]; // memory that it has taken: data, lists, segments
    unsigned chunks_count;
    bool differs; // compare: the data is not what is there
    bool calm;    // compare: nobody writes there
};

// Fills a free command, and its 64 bytes. False: there is no memory.
bool nvme_command_make(struct nvme_command *command, uint8_t entry[64]);
// It is about to be shown to the device.
void nvme_command_begin(struct nvme_command *command, uint64_t now);
// The device completed it.
void nvme_command_end(struct nvme_command *command, uint16_t status, uint64_t now);
// It was given up.
void nvme_command_drop(struct nvme_command *command, uint64_t now);
bool nvme_command_touches(const struct nvme_command *command, uint64_t iova, uint64_t size);
// A walk begins.
void nvme_commands_begin(void);
