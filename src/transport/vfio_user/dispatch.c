// SPDX-License-Identifier: BSD-3-Clause
// The messages that a server knows, and what must hold of each before its handler sees it.
#include "transport/vfio_user/session.h"

#include "base/check.h"
#include "base/log.h"
#include "wire/names.h"

#include <errno.h>
#include <string.h>

struct message_type {
    uint32_t min_size; // of the payload, bytes
    uint32_t max_size;
    int min_fds;
    int max_fds;
    uint32_t states;    // enum vfu_state: where it is legal
    uint32_t good_size; // payload of its good reply, bytes; a region read's data comes on top
    int (*handle)(struct vfu_session *session, struct vfu_message *message);
};

// Longer payloads than the structure are let pass where a client sends the argsz that it has room for (SPDK: 4064).
enum { ROOM = 4096 };

static const struct message_type types[SDC_VFU_COMMANDS] = {
    [SDC_VFU_VERSION] = {sizeof(struct sdc_vfu_version), sizeof(struct sdc_vfu_version) + SDC_LIMIT_VERSION_JSON, 0, 0, VFU_NEW,
                         0, vfu_version},
    [SDC_VFU_DMA_MAP] = {sizeof(struct sdc_vfu_dma_map), sizeof(struct sdc_vfu_dma_map), 0, 1, VFU_READY, 0, vfu_dma_map},
    // SPDK's client attaches the memory's fd here too; it is closed.
    [SDC_VFU_DMA_UNMAP] = {sizeof(struct sdc_vfu_dma_unmap), ROOM, 0, 1, VFU_READY, sizeof(struct sdc_vfu_dma_unmap),
                           vfu_dma_unmap},
    [SDC_VFU_GET_INFO] = {sizeof(struct sdc_vfu_device_info), ROOM, 0, 0, VFU_READY, sizeof(struct sdc_vfu_device_info),
                          vfu_get_info},
    [SDC_VFU_GET_REGION_INFO] = {sizeof(struct sdc_vfu_region_info), ROOM, 0, 0, VFU_READY, sizeof(struct sdc_vfu_region_info),
                                 vfu_get_region_info},
    [SDC_VFU_GET_REGION_IO_FDS] = {sizeof(struct sdc_vfu_region_io_fds), ROOM, 0, 0, VFU_READY,
                                   sizeof(struct sdc_vfu_region_io_fds), vfu_get_region_io_fds},
    [SDC_VFU_GET_IRQ_INFO] = {sizeof(struct sdc_vfu_irq_info), ROOM, 0, 0, VFU_READY, sizeof(struct sdc_vfu_irq_info),
                              vfu_get_irq_info},
    [SDC_VFU_SET_IRQS] = {sizeof(struct sdc_vfu_set_irqs), sizeof(struct sdc_vfu_set_irqs) + SDC_PCI_MSIX_MAX, 0,
                          SDC_LIMIT_MESSAGE_FDS, VFU_READY, 0, vfu_set_irqs},
    [SDC_VFU_REGION_READ] = {sizeof(struct sdc_vfu_region_access), sizeof(struct sdc_vfu_region_access), 0, 0, VFU_READY,
                             sizeof(struct sdc_vfu_region_access), vfu_region_read},
    [SDC_VFU_REGION_WRITE] = {sizeof(struct sdc_vfu_region_access), sizeof(struct sdc_vfu_region_access) + SDC_LIMIT_DATA_XFER,
                              0, 0, VFU_READY, sizeof(struct sdc_vfu_region_access), vfu_region_write},
    [SDC_VFU_REGION_WRITE_MULTI] = {sizeof(struct sdc_vfu_write_multi),
                                    sizeof(struct sdc_vfu_write_multi) + SDC_LIMIT_WRITE_MULTI * sizeof(struct sdc_vfu_write),
                                    0, 0, VFU_READY, sizeof(struct sdc_vfu_write_multi), vfu_region_write_multi},
    [SDC_VFU_RESET] = {0, ROOM, 0, 0, VFU_READY, 0, vfu_reset},
    [SDC_VFU_DEVICE_FEATURE] = {sizeof(struct sdc_vfu_device_feature), ROOM, 0, 0, VFU_READY,
                                sizeof(struct sdc_vfu_device_feature), vfu_device_feature},
    [SDC_VFU_MIG_DATA_READ] = {sizeof(struct sdc_vfu_mig_data), ROOM, 0, 0, VFU_READY, sizeof(struct sdc_vfu_mig_data),
                               vfu_migration_data},
    [SDC_VFU_MIG_DATA_WRITE] = {sizeof(struct sdc_vfu_mig_data), sizeof(struct sdc_vfu_mig_data) + SDC_LIMIT_DATA_XFER, 0, 0,
                                VFU_READY, 0, vfu_migration_data},
};

static const struct message_type *type_of(uint16_t command)
{
    return command < SDC_VFU_COMMANDS && types[command].handle ? &types[command] : NULL;
}

// --- replies ---

static uint8_t *append_reply(struct vfu_session *session, const struct sdc_vfu_header *command, uint32_t size,
                             uint32_t flags, int error)
{
    if (command->flags & SDC_VFU_NO_REPLY || session->state == VFU_CLOSING)
        return NULL;
    struct sdc_vfu_header header = {
        .msg_id = command->msg_id,
        .cmd = command->cmd,
        .msg_size = (uint32_t)sizeof header + size,
        .flags = SDC_VFU_TYPE_REPLY | flags,
        .error = (uint32_t)-error,
    };
    uint8_t *room = vfu_stream_append(&session->stream, sizeof header + size);
    if (!room) {
        vfu_session_close(session, "no memory for a reply");
        return NULL;
    }
    memcpy(room, &header, sizeof header);
    return room + sizeof header;
}

uint8_t *vfu_reply(struct vfu_session *session, const struct sdc_vfu_header *command, uint32_t size)
{
    return append_reply(session, command, size, 0, 0);
}

int vfu_reply_with_fds(struct vfu_session *session, const struct sdc_vfu_header *command, uint32_t size, const int *fds,
                       uint32_t count, uint8_t **room)
{
    bool wanted = !(command->flags & SDC_VFU_NO_REPLY) && session->state != VFU_CLOSING;
    int rc = wanted && count > 0 ? vfu_stream_attach(&session->stream, fds, count) : 0;

    *room = rc == 0 ? vfu_reply(session, command, size) : NULL;
    return rc;
}

void vfu_reply_error(struct vfu_session *session, const struct sdc_vfu_header *command, int error, uint32_t good_size)
{
    append_reply(session, command, session->pads_errors ? good_size : 0, SDC_VFU_ERROR, error);
}

// How long the good reply would have been.
static uint32_t good_size(const struct vfu_session *session, const struct message_type *type,
                          const struct vfu_message *message)
{
    struct sdc_vfu_region_access access;

    if (type->handle != vfu_region_read || message->size < sizeof access)
        return type->good_size;
    memcpy(&access, message->payload, sizeof access);
    return type->good_size + (uint32_t)sdc_min(access.count, session->max_data_xfer_size);
}

// --- the door ---

// Holds the message against its type's columns. 0 or the error to refuse it with.
static int check(const struct vfu_session *session, const struct message_type *type, const struct vfu_message *message,
                 const struct vfu_arrival *arrival)
{
    uint32_t flags = message->header.flags;

    if (flags & ~(uint32_t)SDC_VFU_FLAGS_KNOWN || flags & SDC_VFU_ERROR || (flags & SDC_VFU_TYPE_MASK) != SDC_VFU_TYPE_COMMAND)
        return -EINVAL;
    if (!type)
        return -ENOSYS;
    if (!(type->states & session->state))
        return -EINVAL;
    if (message->size < type->min_size || message->size > type->max_size)
        return -EINVAL;
    if (arrival->lost || arrival->count < type->min_fds || arrival->count > type->max_fds)
        return -EINVAL;
    return 0;
}

static void log_refusal(const struct vfu_session *session, const struct vfu_message *message, const struct vfu_arrival *arrival,
                        int error)
{
    char name[SDC_NAME_SIZE];

    sdc_log_peer("%s: refused %s, flags %#x, with %u bytes and %d fds: %s", session->options->name,
                 sdc_vfu_command_name(message->header.cmd, name), message->header.flags, message->size, arrival->count,
                 strerror(-error));
}

int vfu_dispatch(struct vfu_session *session, const struct sdc_vfu_header *header)
{
    const struct message_type *type = type_of(header->cmd);
    struct vfu_arrival *arrival = vfu_stream_arrival(&session->stream);
    struct vfu_message message = {
        .header = *header,
        .payload = session->stream.in + sizeof *header,
        .size = header->msg_size - (uint32_t)sizeof *header,
        .fds = arrival->fds,
        .fds_count = arrival->count,
        .slots = arrival->slots,
    };

    int rc = check(session, type, &message, arrival);
    if (rc == 0)
        rc = type->handle(session, &message);
    if (rc < 0) {
        log_refusal(session, &message, arrival, rc);
        vfu_reply_error(session, header, rc, type ? good_size(session, type, &message) : 0);
        rc = 0;
    }
    return rc;
}
