// SPDX-License-Identifier: BSD-3-Clause
#include "cli/bench_connect.h"

#include "base/check.h"
#include "cli/protocol.h"
#include "driver/blk.h"
#include "driver/disk_find.h"
#include "driver/vhost_user.h"

#include <sidecard/virtio.h>

enum {
    CONNECT_MS = 5000, // for each answer to a message
    DEVICE_BLK = 2,    // virtio 1.2, 5.2.1
};

// virtio's features that are not to be used.
static uint64_t without(const struct sdc_bench_options *options)
{
    return (options->packed ? 0 : SDC_VIRTIO_F_RING_PACKED) | (options->in_order ? 0 : SDC_VIRTIO_F_IN_ORDER) |
           (options->event_idx ? 0 : SDC_VIRTIO_F_EVENT_IDX) | (options->indirect ? 0 : SDC_VIRTIO_F_INDIRECT_DESC);
}

static int open_vfio_user(const struct sdc_bench_options *options, struct sdc_driver_disk **disk, struct sdc_error *err)
{
    struct sdc_vfio_client_options connect = {
        .timeout_ms = (uint32_t)sdc_min(options->timeout_s * 1000, CONNECT_MS),
        .twin_socket = options->twin_socket,
    };
    struct sdc_driver_disk_wishes wishes = {
        .without_features = without(options),
        .nvme = {.nsid = (uint32_t)options->namespace, .sgl = options->sgl, .shadows = options->shadows},
        .notify = options->notify,
        .memory = options->memory,
    };
    struct sdc_vfio_client *client;
    struct sdc_error why = {0};
    int ret = sdc_vfio_client_open(options->socket, &connect, &client, &why);
    if (ret < 0 && sdc_protocol_may_be_other(ret))
        return sdc_error_set(err, ret, why.fault, "%s; if it is a vhost-user back end, type vhost-user:%s", why.text, options->socket);
    if (ret < 0) {
        *err = why;
        return ret;
    }
    return sdc_driver_disk_find(client, &wishes, disk, err);
}

static int open_vhost_user(const struct sdc_bench_options *options, struct sdc_driver_disk **disk, struct sdc_error *err)
{
    struct sdc_vhost_client_options connect = {
        .timeout_ms = (uint32_t)sdc_min(options->timeout_s * 1000, CONNECT_MS),
        .in_band = options->notify == SDC_DRIVER_NOTIFY_MESSAGE,
    };
    struct sdc_vhost_client *client;
    struct sdc_driver_transport *transport;
    int ret = sdc_vhost_client_open(options->socket, &connect, &client, err);
    if (ret == 0)
        ret = sdc_driver_vhost_user_open(client, DEVICE_BLK, &transport, err);
    if (ret < 0)
        return ret;
    ret = sdc_driver_vhost_user_iommu(transport, options->iommu, err);
    if (ret < 0)
        transport->ops->close(transport);
    return ret < 0 ? ret : sdc_driver_blk_open(transport, without(options), disk, err);
}

int sdc_bench_connect(const struct sdc_bench_options *options, struct sdc_driver_disk **disk, struct sdc_error *err)
{
    return options->vhost_user ? open_vhost_user(options, disk, err) : open_vfio_user(options, disk, err);
}
