// SPDX-License-Identifier: BSD-3-Clause
// A command: what the queue that took it, and the handlers of admin and I/O commands share.
//
// A handler is `int run(struct nvme_command *command)`, on the loop of the command's queue (admin commands: the home loop). It returns
//
//     a status       (enum sdc_nvme_status, perhaps with SDC_NVME_SC_DNR or _MORE): it ends now, with command->dw0, which was 0
//     NVME_PENDING   nvme_complete follows later on the same loop, never from inside the handler. Until then the command counts as I/O
//                    under way: resets, and changes of memory that concern it, wait for it
//     NVME_HELD      likewise, but nothing is under way and nobody waits for it (asynchronous event requests). It gives its memory up. A
//                    reset ends it without nvme_complete, after nvme_admin_reset
//     -EAGAIN        command->sq->worker->memory names bytes that have to be fetched first; then the handler runs again, from its start,
//                    and finds in the view what was fetched for it
//
// Where data is to be bounced and has to be brought first, nvme_data_map says NVME_PENDING, and so does the handler; it runs again, from
// its start, when the data has arrived.
//
// No allocation, lock, log or system call for each command; block requests are collected by nvme_submit and go down once a batch.
#pragma once

#include "base/bytes.h"
#include "base/line.h"
#include "device/nvme/data.h"
#include "transport/common/remote_queue.h"
#include "wire/nvme.h"

#include <sidecard/block.h>

#include <stdalign.h>

struct nvme_sq;
struct nvme_ns_queue;
struct sdc_map_use;

enum { NVME_PENDING = -2000, NVME_HELD = -2001 };

enum nvme_command_state {
    NVME_COMMAND_FREE,
    NVME_COMMAND_RUNNING, // the handler has it, or what it began
    NVME_COMMAND_IDLE,    // NVME_HELD
    NVME_COMMAND_FETCHING, // its handler returned -EAGAIN
    NVME_COMMAND_WAITING, // done, but there is no room in the completion queue
};

// In lines: the entry; what its queue does with it; what its handler does; its data and the first of its spans; the block request.
struct nvme_command {
    alignas(SDC_LINE) uint8_t sqe[SDC_NVME_SQE]; // the only copy of its entry
    struct nvme_sq *sq;           // the queue that it came by
    uint32_t dw0;                 // of its completion
    uint16_t status;              // likewise, once it is done
    bool ended;                   // another process ran it, but for its completion
    // queue.c's
    uint64_t position;            // of its entry in the queue, since that was made
    uint32_t slot;                // of the queue's log
    enum nvme_command_state state;
    struct nvme_command *next;           // in the list that it waits in
    struct nvme_command *older, *newer;  // of its queue, in flight
    struct nvme_ns_queue *ns;            // the namespace that it works on, on this loop
    void (*then)(struct nvme_command *command); // it is the controller's own: what follows, instead of a completion; NULL: the driver's
    struct sdc_map_use *use;             // the map that its spans come from; NULL: it needs none
    // The handlers'
    uint32_t spans;                      // that its queue counts for it
    uint64_t words[4];                   // whatever the handler has to remember
    alignas(SDC_LINE) struct nvme_data data;          // its data, as spans (data.h)
    alignas(SDC_LINE) struct sdc_block_request block; // owner is the command
    struct sdc_remote_request remote;    // who bounces its data sets remote.queue to &sq->remote (transport/common/remote_queue.h)
};

// Dword n, 0 to 15.
static inline uint32_t nvme_dword(const struct nvme_command *command, unsigned n)
{
    return sdc_get32(command->sqe + 4 * (size_t)n);
}

static inline uint8_t nvme_opcode(const struct nvme_command *command)
{
    return command->sqe[SDC_NVME_SQE_OPCODE];
}

static inline uint16_t nvme_cid(const struct nvme_command *command)
{
    return sdc_get16(command->sqe + SDC_NVME_SQE_CID);
}

static inline uint32_t nvme_nsid(const struct nvme_command *command)
{
    return sdc_get32(command->sqe + SDC_NVME_SQE_NSID);
}

// The command, for which its handler returned NVME_PENDING or NVME_HELD, has ended with this status. Its queue's loop. It is not the
// handler's any more.
void nvme_complete(struct nvme_command *command, uint16_t status, uint32_t dw0);

// --- entry points of the handlers ---

int nvme_admin_run(struct nvme_command *command); // admin.c, home loop
int nvme_io_run(struct nvme_command *command);    // io.c
// The entry of an I/O command in Commands Supported and Effects; 0: there is no such command.
uint32_t nvme_io_effects(uint8_t opcode);
