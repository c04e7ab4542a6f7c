// SPDX-License-Identifier: BSD-3-Clause
#include "device/nvme/events.h"

#include "base/check.h"
#include "device/nvme/command.h"

// What the completion of a request says of an event, and which bits of Asynchronous Event Configuration want it; 0: nobody is asked.
struct event_row {
    enum sdc_nvme_event type;
    uint8_t information;
    uint8_t log;
    uint32_t wanted;
};

enum { TEMPERATURE_WARNING = 1 << 1, TEMPERATURE_THRESHOLD = 1 };

static const struct event_row rows[] = {
    [NVME_EVENT_BAD_DOORBELL] = {SDC_NVME_EVENT_ERROR, SDC_NVME_EVENT_BAD_DOORBELL, SDC_NVME_LOG_ERROR, 0},
    [NVME_EVENT_BAD_DOORBELL_VALUE] = {SDC_NVME_EVENT_ERROR, SDC_NVME_EVENT_BAD_DOORBELL_VALUE, SDC_NVME_LOG_ERROR, 0},
    [NVME_EVENT_TEMPERATURE] = {SDC_NVME_EVENT_SMART, TEMPERATURE_THRESHOLD, SDC_NVME_LOG_SMART, TEMPERATURE_WARNING},
    [NVME_EVENT_NS_CHANGED] = {SDC_NVME_EVENT_NOTICE, SDC_NVME_EVENT_NS_CHANGED, SDC_NVME_LOG_CHANGED_NS, NVME_OAES},
};

// The first event that may be told of: its number, or that of rows if there is none.
static unsigned next(const struct nvme_events *events)
{
    unsigned i = 0;

    while (i < SDC_COUNT(rows) && (!(events->raised >> i & 1) || events->masked >> rows[i].type & 1))
        i++;
    return i;
}

// Base 5.2.1: once a type was told of it is masked, until the log page that it points to is read.
static uint32_t tell(struct nvme_events *events, unsigned i)
{
    events->raised &= ~(UINT32_C(1) << i);
    events->masked |= (uint8_t)(1 << rows[i].type);
    return (uint32_t)rows[i].type | (uint32_t)rows[i].information << 8 | (uint32_t)rows[i].log << 16;
}

static struct nvme_command *take(struct nvme_events *events, unsigned i)
{
    struct nvme_command *command = events->waiting[i];

    for (events->waiting_count--; i < events->waiting_count; i++)
        events->waiting[i] = events->waiting[i + 1];
    return command;
}

static void tell_waiting(struct nvme_events *events)
{
    unsigned i;

    while (events->waiting_count > 0 && (i = next(events)) < SDC_COUNT(rows))
        nvme_complete(take(events, 0), SDC_NVME_SC_SUCCESS, tell(events, i));
}

int nvme_events_ask(struct nvme_events *events, struct nvme_command *command)
{
    unsigned i = next(events);

    if (events->waiting_count == NVME_ASYNC_LIMIT)
        return SDC_NVME_SC_AER_LIMIT;
    if (i < SDC_COUNT(rows)) {
        command->dw0 = tell(events, i);
        return SDC_NVME_SC_SUCCESS;
    }
    events->waiting[events->waiting_count++] = command;
    return NVME_HELD;
}

void nvme_events_raise(struct nvme_events *events, const struct nvme_features *features, enum nvme_event event)
{
    if (rows[event].wanted != 0 && !(features->events & rows[event].wanted))
        return;
    events->raised |= UINT32_C(1) << event;
    tell_waiting(events);
}

// What was raised before the page was read is in the page.
void nvme_events_log_read(struct nvme_events *events, uint8_t log)
{
    for (unsigned i = 0; i < SDC_COUNT(rows); i++) {
        if (rows[i].log != log)
            continue;
        events->masked &= (uint8_t)~(1 << rows[i].type);
        events->raised &= ~(UINT32_C(1) << i);
    }
    tell_waiting(events);
}

bool nvme_events_abort(struct nvme_events *events, uint16_t cid)
{
    for (unsigned i = 0; i < events->waiting_count; i++) {
        if (nvme_cid(events->waiting[i]) != cid)
            continue;
        nvme_complete(take(events, i), SDC_NVME_SC_ABORTED, 0);
        return true;
    }
    return false;
}

void nvme_events_forget(struct nvme_events *events)
{
    events->waiting_count = 0;
}

void nvme_events_reset(struct nvme_events *events)
{
    *events = (struct nvme_events){0};
}
