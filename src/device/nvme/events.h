// SPDX-License-Identifier: BSD-3-Clause
// Asynchronous events (base 5.2): what happened, and commands of the driver's that wait for something to. Home loop.
#pragma once

#include "device/nvme/features.h"
#include "device/nvme/identify.h"
#include "wire/nvme.h"

struct nvme_command;

struct nvme_events {
    struct nvme_command *waiting[NVME_ASYNC_LIMIT]; // the oldest first
    unsigned waiting_count;
    uint8_t masked;  // a bit for each type (enum sdc_nvme_event) that was told of, until its log page is read
    uint32_t raised; // a bit for each event that is still to be told of
};

enum nvme_event {
    NVME_EVENT_BAD_DOORBELL,
    NVME_EVENT_BAD_DOORBELL_VALUE,
    NVME_EVENT_TEMPERATURE,
    NVME_EVENT_NS_CHANGED,
};

// An Asynchronous Event Request: it is answered now, when there is something to be told, or later. As a handler.
int nvme_events_ask(struct nvme_events *events, struct nvme_command *command);
// It happened. Told of as soon as it is neither masked nor unwanted, and somebody asks.
void nvme_events_raise(struct nvme_events *events, const struct nvme_features *features, enum nvme_event event);
// The log page was read, and not to be retained: its events may be told of again.
void nvme_events_log_read(struct nvme_events *events, uint8_t log);
// Ends a waiting request that was aborted. False: none has that id.
bool nvme_events_abort(struct nvme_events *events, uint16_t cid);
// The requests that wait are not there any more; what has happened is told to those that come.
void nvme_events_forget(struct nvme_events *events);
// Nothing has happened, nobody waits.
void nvme_events_reset(struct nvme_events *events);
