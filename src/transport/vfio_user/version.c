// SPDX-License-Identifier: BSD-3-Clause
// VERSION: what the client and we agree on, and which client it is. Quirks are fixed here for the session.
#include "transport/vfio_user/session.h"

#include "base/check.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { MAJOR = 0, MINOR = 2 };

// Cloud Hypervisor is the client that speaks minor 1 and names capabilities, pgsizes and a twin socket not among them.
static bool is_cloud_hypervisor(const struct sdc_vfu_version *version, bool has_json,
                                const struct sdc_vfu_capabilities *client)
{
    return version->minor == 1 && has_json && !client->has_pgsizes && !client->has_twin_socket;
}

// Ours, only where the client named its own: QEMU takes no reply that is longer than its request.
static struct sdc_vfu_capabilities answer_to(const struct sdc_vfu_capabilities *client)
{
    return (struct sdc_vfu_capabilities){
        .has_max_msg_fds = client->has_max_msg_fds,
        .has_max_data_xfer_size = client->has_max_data_xfer_size,
        .has_max_dma_maps = client->has_max_dma_maps,
        .has_pgsizes = client->has_pgsizes,
        .has_write_multiple = client->has_write_multiple,
        .max_msg_fds = SDC_LIMIT_MESSAGE_FDS,
        .max_data_xfer_size = SDC_LIMIT_DATA_XFER,
        .max_dma_maps = SDC_LIMIT_DMA_REGIONS,
        .pgsizes = 4096,
        .write_multiple = true,
    };
}

int vfu_version(struct vfu_session *session, struct vfu_message *message)
{
    struct sdc_vfu_version version;
    struct sdc_vfu_capabilities client;
    struct sdc_error err;
    char json[SDC_LIMIT_VERSION_REPLY_JSON];
    const char *client_json = (const char *)message->payload + sizeof version;
    size_t client_size = message->size - sizeof version;

    memcpy(&version, message->payload, sizeof version);
    if (version.major != MAJOR) {
        sdc_log_peer("%s: the client speaks vfio-user %u.%u, this server %d.%d", session->options->name, version.major,
                     version.minor, MAJOR, MINOR);
        vfu_reply_error(session, &message->header, -EINVAL, 0);
        return VFU_DROP;
    }
    int rc = sdc_vfu_capabilities_parse(client_json, client_size, &client, &err);
    if (rc < 0) {
        sdc_log_peer("%s: %s", session->options->name, err.text);
        return rc;
    }
    session->pads_errors = session->no_intx = is_cloud_hypervisor(&version, client_size > 0, &client);
    session->max_data_xfer_size = sdc_min(client.max_data_xfer_size, SDC_LIMIT_DATA_XFER);
    session->max_msg_fds = client.max_msg_fds;

    struct sdc_vfu_capabilities ours = answer_to(&client);
    if (client.twin_supported && !(message->header.flags & SDC_VFU_NO_REPLY) && vfu_twin_open(session) == 0)
        ours.has_twin_socket = ours.twin_supported = ours.has_twin_fd_index = true; // the fd is number 0
    int length = sdc_vfu_capabilities_print(&ours, json, sizeof json);
    if (length < 0)
        return length;
    uint8_t *room;
    rc = vfu_reply_with_fds(session, &message->header, (uint32_t)(sizeof version + (size_t)length), &session->twin.peer,
                            session->twin.on, &room);
    if (rc < 0)
        return rc;
    if (room) {
        version.minor = (uint16_t)sdc_min(version.minor, MINOR);
        memcpy(room, &version, sizeof version);
        memcpy(room + sizeof version, json, (size_t)length);
    }
    sdc_log(SDC_LOG_DEBUG, "%s: a client of vfio-user 0.%u%s", session->options->name, version.minor,
            session->pads_errors ? ", as Cloud Hypervisor" : session->twin.on ? ", with a twin socket" : "");
    if (session->state == VFU_NEW) // else there was no memory for the reply
        session->state = VFU_READY;
    return 0;
}
