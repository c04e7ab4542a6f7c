// SPDX-License-Identifier: BSD-3-Clause
// The requests that a back end knows, and what must hold of each before its handler sees it.
#include "transport/vhost_user/session.h"

#include "base/check.h"
#include "base/log.h"
#include "wire/names.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

struct request_type {
    uint32_t min_size; // of the payload, bytes
    uint32_t max_size;
    int min_fds;
    int max_fds;
    uint64_t protocol_feature; // without which it is not legal; 0: always
    bool replies;              // with more than an acknowledgement
    int (*handle)(struct vhu_session *session, struct vhu_message *message);
};

enum {
    U64 = sizeof(uint64_t),
    STATE = sizeof(struct sdc_vhost_vring_state),
    TABLE = sizeof(struct sdc_vhost_mem_table),
    SLOT = sizeof(struct sdc_vhost_mem_reg),
    CONFIG = sizeof(struct sdc_vhost_config),
    INFLIGHT = sizeof(struct sdc_vhost_inflight),
};

static const struct request_type types[SDC_VHOST_REQUESTS] = {
    [SDC_VHOST_GET_FEATURES] = {0, 0, 0, 0, 0, true, vhu_get_features},
    [SDC_VHOST_SET_FEATURES] = {U64, U64, 0, 0, 0, false, vhu_set_features},
    [SDC_VHOST_SET_OWNER] = {0, 0, 0, 0, 0, false, vhu_nothing},
    // Deprecated: what it used to mean differs, and the specification lets it be ignored.
    [SDC_VHOST_RESET_OWNER] = {0, 0, 0, 0, 0, false, vhu_nothing},
    [SDC_VHOST_SET_MEM_TABLE] = {TABLE, TABLE + SDC_VHOST_MEM_TABLE_MAX * sizeof(struct sdc_vhost_region), 0,
                                 SDC_VHOST_MEM_TABLE_MAX, 0, false, vhu_set_mem_table},
    [SDC_VHOST_SET_VRING_NUM] = {STATE, STATE, 0, 0, 0, false, vhu_set_vring_num},
    [SDC_VHOST_SET_VRING_ADDR] = {sizeof(struct sdc_vhost_vring_addr), sizeof(struct sdc_vhost_vring_addr), 0, 0, 0, false,
                                  vhu_set_vring_addr},
    [SDC_VHOST_SET_VRING_BASE] = {STATE, STATE, 0, 0, 0, false, vhu_set_vring_base},
    [SDC_VHOST_GET_VRING_BASE] = {STATE, STATE, 0, 0, 0, true, vhu_get_vring_base},
    [SDC_VHOST_SET_VRING_KICK] = {U64, U64, 0, 1, 0, false, vhu_set_vring_kick},
    [SDC_VHOST_SET_VRING_CALL] = {U64, U64, 0, 1, 0, false, vhu_set_vring_call},
    [SDC_VHOST_SET_VRING_ERR] = {U64, U64, 0, 1, 0, false, vhu_set_vring_err},
    [SDC_VHOST_GET_PROTOCOL_FEATURES] = {0, 0, 0, 0, 0, true, vhu_get_protocol_features},
    [SDC_VHOST_SET_PROTOCOL_FEATURES] = {U64, U64, 0, 0, 0, false, vhu_set_protocol_features},
    [SDC_VHOST_GET_QUEUE_NUM] = {0, 0, 0, 0, SDC_VHOST_PROTOCOL_F_MQ, true, vhu_get_queue_num},
    [SDC_VHOST_SET_VRING_ENABLE] = {STATE, STATE, 0, 0, 0, false, vhu_set_vring_enable},
    [SDC_VHOST_SET_BACKEND_REQ_FD] = {0, 0, 1, 1, SDC_VHOST_PROTOCOL_F_BACKEND_REQ, false, vhu_set_backend_req_fd},
    // Its padding need not be there.
    [SDC_VHOST_IOTLB_MSG] = {offsetof(struct sdc_vhost_iotlb, padding), sizeof(struct sdc_vhost_iotlb), 0, 0, 0, true,
                             vhu_iotlb_msg},
    [SDC_VHOST_GET_CONFIG] = {CONFIG, CONFIG + SDC_VHOST_CONFIG_MAX, 0, 0, SDC_VHOST_PROTOCOL_F_CONFIG, true, vhu_get_config},
    [SDC_VHOST_SET_CONFIG] = {CONFIG, CONFIG + SDC_VHOST_CONFIG_MAX, 0, 0, SDC_VHOST_PROTOCOL_F_CONFIG, false, vhu_set_config},
    [SDC_VHOST_GET_INFLIGHT_FD] = {INFLIGHT, INFLIGHT, 0, 0, SDC_VHOST_PROTOCOL_F_INFLIGHT_SHMFD, true, vhu_get_inflight_fd},
    [SDC_VHOST_SET_INFLIGHT_FD] = {INFLIGHT, INFLIGHT, 1, 1, SDC_VHOST_PROTOCOL_F_INFLIGHT_SHMFD, false, vhu_set_inflight_fd},
    [SDC_VHOST_RESET_DEVICE] = {0, 0, 0, 0, SDC_VHOST_PROTOCOL_F_RESET_DEVICE, false, vhu_reset_device},
    [SDC_VHOST_VRING_KICK] = {STATE, STATE, 0, 0, SDC_VHOST_PROTOCOL_F_INBAND_NOTIFICATIONS, false, vhu_vring_kick},
    [SDC_VHOST_GET_MAX_MEM_SLOTS] = {0, 0, 0, 0, SDC_VHOST_PROTOCOL_F_CONFIGURE_MEM_SLOTS, true, vhu_get_max_mem_slots},
    [SDC_VHOST_ADD_MEM_REG] = {SLOT, SLOT, 1, 1, SDC_VHOST_PROTOCOL_F_CONFIGURE_MEM_SLOTS, false, vhu_add_mem_reg},
    // The specification lets an fd come with it, which is closed.
    [SDC_VHOST_REM_MEM_REG] = {SLOT, SLOT, 0, 1, SDC_VHOST_PROTOCOL_F_CONFIGURE_MEM_SLOTS, false, vhu_rem_mem_reg},
    [SDC_VHOST_SET_STATUS] = {U64, U64, 0, 0, SDC_VHOST_PROTOCOL_F_STATUS, false, vhu_set_status},
    [SDC_VHOST_GET_STATUS] = {0, 0, 0, 0, SDC_VHOST_PROTOCOL_F_STATUS, true, vhu_get_status},
};

static const struct request_type *type_of(uint32_t request)
{
    return request < SDC_VHOST_REQUESTS && types[request].handle ? &types[request] : NULL;
}

// --- replies ---

int vhu_reply(struct vhu_session *session, const void *payload, uint32_t size)
{
    int rc = vhu_stream_reply(&session->stream, session->stream.in.header.request, payload, size);
    return rc < 0 ? rc : VHU_REPLIED;
}

int vhu_reply_u64(struct vhu_session *session, uint64_t value)
{
    return vhu_reply(session, &value, sizeof value);
}

int vhu_acknowledge(struct vhu_session *session, int result)
{
    bool wanted = session->protocol_features & SDC_VHOST_PROTOCOL_F_REPLY_ACK &&
                  session->stream.in.header.flags & SDC_VHOST_NEED_REPLY;

    if (!wanted)
        return result;
    int rc = vhu_reply_u64(session, result < 0 ? (uint64_t)-result : 0);
    return rc < 0 ? rc : 0;
}

bool vhu_finish(struct vhu_session *session)
{
    if (vhu_acknowledge(session, 0) < 0)
        vhu_session_close(session, "no memory for a reply");
    return true;
}

// --- the door ---

// Holds the message against its type's columns. 0 or the error to refuse it with.
static int check(const struct vhu_session *session, const struct request_type *type, const struct vhu_message *message)
{
    uint32_t flags = message->header.flags;

    if ((flags & SDC_VHOST_VERSION_MASK) != SDC_VHOST_VERSION ||
        flags & ~(uint32_t)(SDC_VHOST_VERSION_MASK | SDC_VHOST_NEED_REPLY))
        return -EPROTO;
    if (!type)
        return -ENOSYS;
    if (message->header.size < type->min_size || message->header.size > type->max_size)
        return -EINVAL;
    if (session->stream.fds_lost || message->fds_count < type->min_fds || message->fds_count > type->max_fds)
        return -EINVAL;
    if (type->protocol_feature && !(session->protocol_features & type->protocol_feature))
        return -EPROTO;
    return 0;
}

int vhu_dispatch(struct vhu_session *session)
{
    struct vhu_message *message = &session->stream.in;
    const struct request_type *type = type_of(message->header.request);
    char name[SDC_NAME_SIZE];

    int rc = check(session, type, message);
    bool known = rc == 0;
    if (rc == 0)
        rc = type->handle(session, message);
    if (session->closing)
        return 0;
    if (rc > 0)
        return rc == VHU_LATER ? rc : 0;
    if (rc < 0)
        sdc_log_peer("%s: refused %s, flags %#x, with %u bytes and %d fds: %s", session->options->name,
                     sdc_vhost_request_name(message->header.request, name), message->header.flags, message->header.size,
                     message->fds_count, strerror(-rc));
    // Where a reply of another kind is due, an error cannot be said.
    if (rc < 0 && known && type->replies)
        return rc;
    return vhu_acknowledge(session, rc);
}
