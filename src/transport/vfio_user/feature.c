// SPDX-License-Identifier: BSD-3-Clause
// DEVICE_FEATURE, by a table of what the device has; errors are the kernel's for VFIO_DEVICE_FEATURE. And MIG_DATA_READ and
// MIG_DATA_WRITE, which belong to states that only a feature leads to.
#include "transport/vfio_user/session.h"

#include "base/check.h"

#include <errno.h>
#include <string.h>

enum { METHODS = SDC_VFU_FEATURE_GET | SDC_VFU_FEATURE_SET };

// Holds a request against the table. 0 with *feature, or what to refuse it with.
static int check(const struct vfu_feature *features, uint32_t count, const struct sdc_vfu_device_feature *request,
                 uint32_t data_size, const struct vfu_feature **feature)
{
    uint32_t methods = request->flags & METHODS;
    uint32_t number = request->flags & SDC_VFU_FEATURE_MASK;
    bool probe = request->flags & SDC_VFU_FEATURE_PROBE;

    if (request->argsz < sizeof *request || request->flags & ~(uint32_t)(SDC_VFU_FEATURE_MASK | METHODS | SDC_VFU_FEATURE_PROBE))
        return -EINVAL;
    // One of them; a probe may name both or none.
    if (!probe && !sdc_is_power_of_two(methods))
        return -EINVAL;
    if (number >= count || features[number].methods == 0)
        return -ENOTTY;
    *feature = &features[number];
    if (methods & ~(*feature)->methods)
        return -EINVAL;
    if (!probe && data_size < (methods == SDC_VFU_FEATURE_GET ? (*feature)->get_size : (*feature)->set_size))
        return -EINVAL;
    return 0;
}

int vfu_feature_serve(struct vfu_session *session, struct vfu_message *message, const struct vfu_feature *features, uint32_t count)
{
    struct sdc_vfu_device_feature request;
    const struct vfu_feature *feature;

    memcpy(&request, message->payload, sizeof request);
    int rc = check(features, count, &request, message->size - (uint32_t)sizeof request, &feature);
    if (rc < 0)
        return rc;
    if (!(request.flags & SDC_VFU_FEATURE_PROBE))
        return feature->serve(session, message);
    uint8_t *room = vfu_reply(session, &message->header, sizeof request);
    if (room)
        memcpy(room, &request, sizeof request);
    return 0;
}

// A device has none of them yet.
static const struct vfu_feature features[SDC_VFU_FEATURE_DMA_LOGGING_REPORT + 1];

int vfu_device_feature(struct vfu_session *session, struct vfu_message *message)
{
    return vfu_feature_serve(session, message, features, SDC_VFU_FEATURE_DMA_LOGGING_REPORT + 1);
}

int vfu_migration_data(struct vfu_session *session, struct vfu_message *message)
{
    (void)session, (void)message;
    return -EINVAL; // the device is never in a state that saves or resumes
}
