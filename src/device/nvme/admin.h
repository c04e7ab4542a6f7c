// SPDX-License-Identifier: BSD-3-Clause
// What a controller keeps for admin commands. Home loop, but what says otherwise.
#pragma once

#include "device/nvme/events.h"
#include "device/nvme/logs.h"
#include "loop/loop.h"

struct nvme;
struct nvme_command;

// Set Features that turned the write cache off, while what is in it is flushed.
struct nvme_cache {
    struct nvme_command *command; // NULL: there is none
    uint16_t status;
    struct sdc_deferred end;
};

struct nvme_admin {
    struct nvme_identity identity;
    struct nvme_features features;
    struct nvme_logs logs;
    struct nvme_events events;
    struct sdc_timer keep_alive;
    struct nvme_cache cache;
};

// With the controller, before its queues run; when nothing runs any more.
void nvme_admin_open(struct nvme *nvme);
void nvme_admin_close(struct nvme *nvme);
// The controller was reset or shut down; commands that were held are not there any more.
void nvme_admin_reset(struct nvme *nvme);
// A doorbell was written wrongly (SDC_NVME_EVENT_BAD_DOORBELL, ...).
void nvme_event_doorbell(struct nvme *nvme, uint8_t information);
// The namespace has come, gone or changed its size.
void nvme_event_namespace(struct nvme *nvme, uint32_t nsid);

// cache.c. The cache was turned off by this command: as a handler.
int nvme_cache_flush(struct nvme_command *command);

// keep_alive.c. As a handler.
int nvme_keep_alive(struct nvme_command *command);
// Its feature was set, or the controller was reset: the timer begins anew, if there is to be one. 0 or -ENOMEM.
int nvme_keep_alive_restart(struct nvme *nvme);

// abort.c. As a handler.
int nvme_abort(struct nvme_command *command);

// account.c. The command's loop: it has ended with this status. Counted for SMART; what failed goes into the error log.
void nvme_account(struct nvme_command *command, uint16_t status);
