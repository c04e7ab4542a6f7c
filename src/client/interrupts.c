// SPDX-License-Identifier: BSD-3-Clause
// SET_IRQS in all its forms: one action (mask, unmask, trigger) and one kind of data (none, bytes, eventfds).
#include "client/vfio_client.h"

#include "base/check.h"

#include <errno.h>

static uint32_t action_flag(enum sdc_vfio_irq_action action)
{
    switch (action) {
    case SDC_VFIO_IRQ_MASK:
        return SDC_VFU_IRQ_ACTION_MASK;
    case SDC_VFIO_IRQ_UNMASK:
        return SDC_VFU_IRQ_ACTION_UNMASK;
    case SDC_VFIO_IRQ_TRIGGER:
        return SDC_VFU_IRQ_ACTION_TRIGGER;
    }
    return 0;
}

static int set(struct sdc_vfio_client *client, struct sdc_vfu_set_irqs *set, const uint8_t *bools,
               const int *fds, struct sdc_error *err)
{
    size_t bools_size = bools ? set->count : 0;
    set->argsz = (uint32_t)(sizeof *set + bools_size);
    struct sdc_vfio_command command = {
        .command = SDC_VFU_SET_IRQS,
        .head = set,
        .head_size = sizeof *set,
        .data = bools,
        .data_size = bools_size,
        .fds = fds,
        .fds_count = fds ? set->count : 0,
    };
    struct sdc_vfio_reply reply;
    int ret = sdc_vfio_client_do(client, &command, 0, &reply, err);
    if (ret == 0)
        sdc_vfio_reply_release(&reply);
    return ret;
}

int sdc_vfio_client_irq_none(struct sdc_vfio_client *client, uint32_t index, enum sdc_vfio_irq_action action,
                             uint32_t start, uint32_t count, struct sdc_error *err)
{
    struct sdc_vfu_set_irqs irqs = {.flags = SDC_VFU_IRQ_DATA_NONE | action_flag(action),
                                    .index = index,
                                    .start = start,
                                    .count = count};
    return set(client, &irqs, NULL, NULL, err);
}

int sdc_vfio_client_irq_bools(struct sdc_vfio_client *client, uint32_t index, enum sdc_vfio_irq_action action,
                              uint32_t start, uint32_t count, const uint8_t *bools, struct sdc_error *err)
{
    struct sdc_vfu_set_irqs irqs = {.flags = SDC_VFU_IRQ_DATA_BOOL | action_flag(action),
                                    .index = index,
                                    .start = start,
                                    .count = count};
    return set(client, &irqs, bools, NULL, err);
}

int sdc_vfio_client_irq_eventfds(struct sdc_vfio_client *client, uint32_t index,
                                 enum sdc_vfio_irq_action action, uint32_t start, uint32_t count,
                                 const int *fds, struct sdc_error *err)
{
    uint32_t batch = fds ? client->session.max_message_fds : count;
    int ret = 0;
    for (uint32_t at = 0; ret == 0 && at < count; at += batch) {
        struct sdc_vfu_set_irqs irqs = {
            .flags = SDC_VFU_IRQ_DATA_EVENTFD | action_flag(action),
            .index = index,
            .start = start + at,
            .count = (uint32_t)sdc_min(batch, count - at),
        };
        ret = set(client, &irqs, NULL, fds ? fds + at : NULL, err);
    }
    return ret;
}
