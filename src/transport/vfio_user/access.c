// SPDX-License-Identifier: BSD-3-Clause
// REGION_READ and REGION_WRITE. A client may ask for any bytes; the device sees aligned accesses of 1, 2, 4 or 8 bytes inside its
// BARs, the configuration space is the library's. When the device says not now the access stands still where it is, and goes on from
// there.
#include "transport/vfio_user/session.h"

#include "base/bytes.h"
#include "base/check.h"
#include "transport/common/pci_config.h"

#include <errno.h>
#include <stdlib.h>

// The largest aligned piece of [offset, offset + left).
static uint32_t piece(uint64_t offset, uint32_t left)
{
    uint32_t size = 8;

    while (size > left || offset % size != 0)
        size /= 2;
    return size;
}

static int access_bar(struct vfu_session *session, const struct sdc_vfu_region_access *access, uint8_t *data, bool write)
{
    struct sdc_pci_device *device = session->device;

    while (session->access_done < access->count) {
        uint64_t offset = access->offset + session->access_done;
        uint8_t *at = data + session->access_done;
        uint8_t bytes[8] = {0};
        struct sdc_pci_access one = {
            .region = access->region,
            .offset = offset,
            .size = piece(offset, access->count - session->access_done),
            .write = write,
        };
        if (write) {
            memcpy(bytes, at, one.size);
            one.value = sdc_get64(bytes);
        }
        int rc = device->ops->access(device, &one);
        if (rc < 0)
            return rc;
        if (!write) {
            sdc_put64(bytes, one.value);
            memcpy(at, bytes, one.size);
        }
        session->access_done += one.size;
    }
    return 0;
}

static int access_config(struct vfu_session *session, const struct sdc_vfu_region_access *access, uint8_t *data, bool write)
{
    struct sdc_pci_device *device = session->device;

    if (!write)
        return sdc_pci_config_read(device, (uint32_t)access->offset, data, access->count);
    if (device->ops->busy(device))
        return -EAGAIN;
    if (sdc_pci_config_write(device, (uint32_t)access->offset, data, access->count))
        device->ops->reset(device);
    return 0;
}

// Serves the whole access. 0, VFU_AGAIN, or -EINVAL when it is not inside a region that exists.
static int serve(struct vfu_session *session, const struct sdc_vfu_region_access *access, uint8_t *data, bool write)
{
    if (!sdc_within(access->offset, access->count, vfu_region_size(session->device, access->region)))
        return -EINVAL;
    if (access->count == 0)
        return 0; // reads and writes nothing: no register hears of it
    int rc = access->region == SDC_PCI_CONFIG ? access_config(session, access, data, write)
                                              : access_bar(session, access, data, write);
    if (rc == -EAGAIN)
        return VFU_AGAIN;
    session->access_done = 0;
    return rc;
}

static int reserve(struct vfu_session *session, uint32_t size)
{
    if (size <= session->access_size)
        return 0;
    uint8_t *data = realloc(session->access_data, size);
    if (!data)
        return -ENOMEM;
    session->access_data = data;
    session->access_size = size;
    return 0;
}

int vfu_region_read(struct vfu_session *session, struct vfu_message *message)
{
    struct sdc_vfu_region_access access;

    memcpy(&access, message->payload, sizeof access);
    if (access.count > session->max_data_xfer_size)
        return -EINVAL;
    int rc = reserve(session, access.count);
    if (rc == 0)
        rc = serve(session, &access, session->access_data, false);
    if (rc != 0)
        return rc;
    uint8_t *room = vfu_reply(session, &message->header, (uint32_t)sizeof access + access.count);
    if (room) {
        memcpy(room, &access, sizeof access);
        if (access.count > 0)
            memcpy(room + sizeof access, session->access_data, access.count);
    }
    return 0;
}

int vfu_region_write(struct vfu_session *session, struct vfu_message *message)
{
    struct sdc_vfu_region_access access;

    memcpy(&access, message->payload, sizeof access);
    if (access.count != message->size - sizeof access)
        return -EINVAL;
    int rc = serve(session, &access, (uint8_t *)(uintptr_t)message->payload + sizeof access, true);
    if (rc != 0)
        return rc;
    uint8_t *room = vfu_reply(session, &message->header, sizeof access);
    if (room)
        memcpy(room, &access, sizeof access);
    return 0;
}

// One after the other; the first that is refused ends it, what was written before stays written.
int vfu_region_write_multi(struct vfu_session *session, struct vfu_message *message)
{
    struct sdc_vfu_write_multi multi;
    struct sdc_vfu_write write;
    const uint8_t *writes = message->payload + sizeof multi;

    memcpy(&multi, message->payload, sizeof multi);
    if (multi.wr_cnt > SDC_LIMIT_WRITE_MULTI || message->size - sizeof multi != multi.wr_cnt * sizeof write)
        return -EINVAL;
    while (session->writes_done < multi.wr_cnt) {
        memcpy(&write, writes + session->writes_done * sizeof write, sizeof write);
        struct sdc_vfu_region_access access = {.offset = write.offset, .region = write.region, .count = write.count};
        int rc = write.count <= sizeof write.data ? serve(session, &access, write.data, true) : -EINVAL;
        if (rc == VFU_AGAIN)
            return rc;
        session->writes_done++;
        if (rc < 0) {
            session->writes_done = 0;
            return rc;
        }
    }
    session->writes_done = 0;
    uint8_t *room = vfu_reply(session, &message->header, sizeof multi);
    if (room)
        memcpy(room, &multi, sizeof multi);
    return 0;
}
