// SPDX-License-Identifier: BSD-3-Clause
// DEVICE_FEATURE: asking for, reading and setting what a device has by number.
#include "client/vfio_client.h"

#include "base/check.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static uint32_t use_flags(unsigned uses)
{
    return (uses & SDC_VFIO_FEATURE_GET ? SDC_VFU_FEATURE_GET : 0) |
           (uses & SDC_VFIO_FEATURE_SET ? SDC_VFU_FEATURE_SET : 0);
}

// The reply repeats number and use; what else it has is the caller's.
static int ask(struct sdc_vfio_client *client, uint32_t flags, const void *data, size_t size, size_t room,
               struct sdc_vfio_reply *reply, struct sdc_error *err)
{
    struct sdc_vfu_device_feature feature = {.flags = flags}, back;
    size_t most = client->session.max_data_transfer;
    if (size > most || room > most)
        return sdc_error_set(err, -E2BIG, SDC_FAULT_USER,
                             "%s: %zu bytes of feature %" PRIu32 "; a message carries %zu", client->name,
                             size > room ? size : room, flags & SDC_VFU_FEATURE_MASK, most);
    feature.argsz = (uint32_t)(sizeof feature + sdc_max(size, room));
    struct sdc_vfio_command command = {
        .command = SDC_VFU_DEVICE_FEATURE,
        .head = &feature,
        .head_size = sizeof feature,
        .data = data,
        .data_size = size,
    };
    struct sdc_error why = {0};
    int ret = sdc_vfio_client_do(client, &command, sizeof feature, reply, &why);
    if (ret < 0)
        return sdc_error_set(err, ret, why.fault, "feature %" PRIu32 ": %.400s", flags & SDC_VFU_FEATURE_MASK,
                             why.text);
    memcpy(&back, reply->payload, sizeof back);
    if (back.flags == flags)
        return 0;
    sdc_vfio_reply_release(reply);
    return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER,
                         "%s: the server was asked with flags 0x%" PRIx32
                         " about a feature and answered with 0x%" PRIx32,
                         client->name, flags, back.flags);
}

int sdc_vfio_client_feature_probe(struct sdc_vfio_client *client, uint16_t feature, unsigned uses,
                                  struct sdc_error *err)
{
    struct sdc_vfio_reply reply;
    int ret = ask(client, SDC_VFU_FEATURE_PROBE | use_flags(uses) | feature, NULL, 0, 0, &reply, err);
    if (ret == 0)
        sdc_vfio_reply_release(&reply);
    return ret;
}

int sdc_vfio_client_feature_get(struct sdc_vfio_client *client, uint16_t feature, void *data, size_t size,
                                size_t room, size_t *came, struct sdc_error *err)
{
    struct sdc_vfio_reply reply;
    struct sdc_vfu_device_feature head;
    int ret = ask(client, SDC_VFU_FEATURE_GET | feature, data, size, room, &reply, err);
    if (ret < 0)
        return ret;
    memcpy(&head, reply.payload, sizeof head);
    *came = reply.size - sizeof head;
    // A server that has more says how much, and sends none of it.
    if (*came > room || (*came == 0 && head.argsz > sizeof head + room))
        ret = sdc_error_set(err, -EMSGSIZE, SDC_FAULT_USER,
                            "%s: feature %u has more data than there is room for (%zu bytes)", client->name,
                            feature, room);
    else if (*came > 0)
        memcpy(data, (uint8_t *)reply.payload + sizeof head, *came);
    sdc_vfio_reply_release(&reply);
    return ret;
}

int sdc_vfio_client_feature_set(struct sdc_vfio_client *client, uint16_t feature, const void *data,
                                size_t size, struct sdc_error *err)
{
    struct sdc_vfio_reply reply;
    int ret = ask(client, SDC_VFU_FEATURE_SET | feature, data, size, 0, &reply, err);
    if (ret == 0)
        sdc_vfio_reply_release(&reply);
    return ret;
}
