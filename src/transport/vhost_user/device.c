// SPDX-License-Identifier: BSD-3-Clause
// The device behind the vrings: features, status, configuration, reset.
#include "transport/vhost_user/session.h"

#include "base/check.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

// What a driver has done before its VMM shows us a vring. A front end that speaks of the status says its own.
enum { DRIVER_THERE = SDC_VIRTIO_S_ACKNOWLEDGE | SDC_VIRTIO_S_DRIVER | SDC_VIRTIO_S_FEATURES_OK | SDC_VIRTIO_S_DRIVER_OK };

#define NEEDED_IN_BAND (SDC_VHOST_PROTOCOL_F_BACKEND_REQ | SDC_VHOST_PROTOCOL_F_REPLY_ACK)

static uint64_t u64_of(const struct vhu_message *message)
{
    uint64_t value;

    memcpy(&value, message->payload, sizeof value);
    return value;
}

int vhu_nothing(struct vhu_session *session, struct vhu_message *message)
{
    (void)session;
    (void)message;
    return 0;
}

// --- features ---

int vhu_get_features(struct vhu_session *session, struct vhu_message *message)
{
    (void)message;
    return vhu_reply_u64(session, sdc_virtio_core_offered(session->card->core) | SDC_VHOST_F_PROTOCOL_FEATURES);
}

// What the front end has written of the configuration is so again after a reset.
static void restore_config(struct vhu_session *session)
{
    struct sdc_virtio_device *device = session->card->core->device;

    for (uint32_t i = 0; i < device->config_size && i < SDC_VHOST_CONFIG_MAX; i++) {
        if (session->config_written[i] && device->ops->config_write)
            device->ops->config_write(device, i, &session->config[i], 1);
    }
}

// A driver that is there comes again with other features only after its VMM has stopped the vrings.
int vhu_set_features(struct vhu_session *session, struct vhu_message *message)
{
    struct sdc_virtio_core *core = session->card->core;
    uint64_t features = u64_of(message) & ~SDC_VHOST_F_PROTOCOL_FEATURES;

    session->enables = u64_of(message) & SDC_VHOST_F_PROTOCOL_FEATURES;
    if (session->features_set && features == core->features)
        return 0;
    if (vhu_runs(session->card)) {
        sdc_log_peer("%s: SET_FEATURES %#" PRIx64 " while vrings run with %#" PRIx64, session->options->name, features, core->features);
        return -EBUSY;
    }
    sdc_virtio_core_reset(core); // at once: no queue runs
    session->card->broken = false;
    for (uint16_t i = 0; i < core->device->queues_count; i++)
        session->card->vrings[i].left = false; // of another driver
    sdc_virtio_core_accept(core, features);
    sdc_virtio_core_set_status(core, DRIVER_THERE);
    session->features_set = core->status & SDC_VIRTIO_S_FEATURES_OK;
    if (!session->features_set)
        return -EINVAL;
    restore_config(session);
    int rc = vhu_iotlb_turn(session, (features & SDC_VIRTIO_F_ACCESS_PLATFORM) != 0);
    session->features_set = rc == 0;
    return rc;
}

// A device without a configuration space offers none: QEMU's front ends of such devices warn of back ends that do.
static uint64_t offered_protocol_features(const struct vhu_session *session)
{
    bool configured = session->card->core->device->config_size > 0;
    return configured ? VHU_PROTOCOL_FEATURES : VHU_PROTOCOL_FEATURES & ~SDC_VHOST_PROTOCOL_F_CONFIG;
}

int vhu_get_protocol_features(struct vhu_session *session, struct vhu_message *message)
{
    (void)message;
    return vhu_reply_u64(session, offered_protocol_features(session));
}

int vhu_set_protocol_features(struct vhu_session *session, struct vhu_message *message)
{
    uint64_t features = u64_of(message);

    if (features & ~offered_protocol_features(session))
        return -EINVAL;
    // The specification knows no other way to say that these go together.
    if (features & SDC_VHOST_PROTOCOL_F_INBAND_NOTIFICATIONS && (features & NEEDED_IN_BAND) != NEEDED_IN_BAND) {
        vhu_session_close(session, "in-band notifications without a back-end channel or without acknowledgements");
        return -EINVAL;
    }
    session->protocol_features = features;
    atomic_store(&session->card->in_band, (features & SDC_VHOST_PROTOCOL_F_INBAND_NOTIFICATIONS) != 0);
    return 0;
}

int vhu_get_queue_num(struct vhu_session *session, struct vhu_message *message)
{
    (void)message;
    return vhu_reply_u64(session, session->card->core->device->queues_count);
}

// --- configuration ---

// Bytes past the end of the device's configuration are zero, as over PCI: front ends ask for as many as their own structure has.
int vhu_get_config(struct vhu_session *session, struct vhu_message *message)
{
    struct sdc_virtio_device *device = session->card->core->device;
    struct sdc_vhost_config config;
    uint8_t reply[sizeof config + SDC_VHOST_CONFIG_MAX] = {0};

    memcpy(&config, message->payload, sizeof config);
    // The specification's word for an error is a reply without payload.
    if (!sdc_within(config.offset, config.size, SDC_VHOST_CONFIG_MAX) || message->header.size != sizeof config + config.size)
        return vhu_reply(session, NULL, 0);
    memcpy(reply, &config, sizeof config);
    if (config.offset < device->config_size)
        device->ops->config_read(device, config.offset, reply + sizeof config,
                                 (uint32_t)sdc_min(config.size, device->config_size - config.offset));
    return vhu_reply(session, reply, (uint32_t)sizeof config + config.size);
}

// Which bytes may be written the device alone knows: those that read as they were written. They are kept; false if there are others.
static bool write_config(struct vhu_session *session, const struct sdc_vhost_config *config, const uint8_t *bytes)
{
    struct sdc_virtio_device *device = session->card->core->device;
    uint8_t back[SDC_VHOST_CONFIG_MAX] = {0};
    bool all = true;

    if (device->ops->config_write)
        device->ops->config_write(device, config->offset, bytes, config->size);
    device->ops->config_read(device, config->offset, back, config->size);
    for (uint32_t i = 0; i < config->size; i++) {
        uint32_t at = config->offset + i;
        if (back[i] != bytes[i]) {
            all = false;
            continue;
        }
        session->config[at] = bytes[i];
        session->config_written[at] = true;
    }
    return all;
}

// A write to what is read-only must not be accepted. It is refused where that can be said; where it cannot, it is not worth the session,
// since it is the guest that writes.
int vhu_set_config(struct vhu_session *session, struct vhu_message *message)
{
    struct sdc_virtio_device *device = session->card->core->device;
    struct sdc_vhost_config config;
    bool told = session->protocol_features & SDC_VHOST_PROTOCOL_F_REPLY_ACK && message->header.flags & SDC_VHOST_NEED_REPLY;

    memcpy(&config, message->payload, sizeof config);
    if (message->header.size != sizeof config + config.size || !sdc_within(config.offset, config.size, device->config_size))
        return -EINVAL;
    if (config.flags != SDC_VHOST_CONFIG_WRITABLE)
        return -ENOTSUP;
    if (!sdc_within(config.offset, config.size, SDC_VHOST_CONFIG_MAX))
        return -EINVAL;
    return write_config(session, &config, message->payload + sizeof config) || !told ? 0 : -EACCES;
}

// --- status and reset ---

static bool reset_finished(struct vhu_session *session)
{
    vhu_card_forget(session->card);
    vhu_iotlb_flush(session);
    return session->closing || vhu_finish(session);
}

int vhu_reset_device(struct vhu_session *session, struct vhu_message *message)
{
    (void)message;
    session->features_set = false;
    session->status = 0;
    sdc_virtio_core_reset(session->card->core);
    session->waiting = reset_finished;
    return VHU_LATER;
}

int vhu_get_status(struct vhu_session *session, struct vhu_message *message)
{
    uint8_t status = session->status;

    (void)message;
    if (!session->features_set)
        status &= (uint8_t)~SDC_VIRTIO_S_FEATURES_OK;
    return vhu_reply_u64(session, status | (session->card->core->status & SDC_VIRTIO_S_NEEDS_RESET));
}

int vhu_set_status(struct vhu_session *session, struct vhu_message *message)
{
    uint64_t status = u64_of(message);

    if (status > UINT8_MAX)
        return -EINVAL;
    if (status == 0)
        return vhu_reset_device(session, message);
    session->status = (uint8_t)(status & ~(uint64_t)SDC_VIRTIO_S_NEEDS_RESET);
    return 0;
}
