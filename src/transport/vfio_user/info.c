// SPDX-License-Identifier: BSD-3-Clause
// What the device has: DEVICE_GET_INFO, DEVICE_GET_IRQ_INFO. Its regions are region.c's.
#include "transport/vfio_user/session.h"

#include <errno.h>
#include <string.h>

static int reply_with(struct vfu_session *session, const struct vfu_message *message, const void *payload, uint32_t size)
{
    uint8_t *room = vfu_reply(session, &message->header, size);

    if (room)
        memcpy(room, payload, size);
    return 0;
}

int vfu_get_info(struct vfu_session *session, struct vfu_message *message)
{
    struct sdc_vfu_device_info info;

    memcpy(&info, message->payload, sizeof info);
    if (info.argsz < sizeof info)
        return -EINVAL;
    info = (struct sdc_vfu_device_info){
        .argsz = sizeof info,
        .flags = SDC_VFU_DEVICE_RESET | SDC_VFU_DEVICE_PCI,
        .num_regions = SDC_PCI_REGIONS,
        .num_irqs = SDC_PCI_IRQS,
    };
    return reply_with(session, message, &info, sizeof info);
}

int vfu_get_irq_info(struct vfu_session *session, struct vfu_message *message)
{
    struct sdc_vfu_irq_info info;

    memcpy(&info, message->payload, sizeof info);
    if (info.argsz < sizeof info || info.index >= SDC_PCI_IRQS)
        return -EINVAL;
    uint32_t count = session->irqs.sets[info.index].count;
    if (info.index == SDC_PCI_INTX && session->no_intx)
        count = 0;
    info = (struct sdc_vfu_irq_info){
        .argsz = sizeof info, .flags = count ? vfu_irq_flags(info.index) : 0, .index = info.index, .count = count};
    return reply_with(session, message, &info, sizeof info);
}
