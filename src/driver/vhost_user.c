// SPDX-License-Identifier: BSD-3-Clause
// virtio over vhost-user. The front end is the transport of a VMM: it keeps the device status where the back end has
// none, and shows vrings when the driver says DRIVER_OK. Memory is named by where it is mapped here; behind an IOMMU by the driver's
// addresses, which are translated to that.
#include "driver/vhost_user.h"

#include "base/bytes.h"
#include "base/check.h"
#include "base/limits.h"
#include "os/fd.h"
#include "wire/vhost_user.h"

#include <sidecard/virtio.h>

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    MEMORIES_MAX = 16,
    QUEUES_MAX = 256,      // vhost-user names a vring by 8 bits where it has fds
    QUEUE_SIZE_MAX = 1024, // a back end does not say; this is what QEMU's front end goes to
    USED_INDEX = 2,        // in a split ring's device area (virtio 1.2, 2.7.8)
    FLUSH_EVERY = 64,      // notifications
};

// Behind an IOMMU nobody is to use the guest's addresses, which lie elsewhere.
#define NO_ADDRESS (UINT64_C(1) << 50)

// Bits that are the protocol's, or promise what this transport does not do.
#define NOT_THE_DRIVERS (SDC_VHOST_F_PROTOCOL_FEATURES | SDC_VHOST_F_LOG_ALL | SDC_VIRTIO_F_ACCESS_PLATFORM | \
                         SDC_VIRTIO_F_NOTIFICATION_DATA)

struct queue {
    bool set_up;
    bool started;
    int kick_fd;
    struct sdc_driver_queue_place place;
};

struct vhost_user {
    struct sdc_driver_transport transport;
    struct sdc_vhost_client *client;
    uint16_t device_id;
    uint8_t status;
    uint64_t features;
    const struct sdc_client_memory *memories[MEMORIES_MAX];
    unsigned memories_count;
    struct sdc_vhost_client_inflight inflight; // fd -1: none
    enum sdc_driver_iommu iommu;
    atomic_uint notified; // so often; to flush translations
    struct queue queues[QUEUES_MAX];
};

static struct vhost_user *of(struct sdc_driver_transport *transport)
{
    return sdc_container(transport, struct vhost_user, transport);
}

static uint16_t device_id(struct sdc_driver_transport *transport)
{
    return of(transport)->device_id;
}

static bool has(const struct vhost_user *device, uint64_t protocol_feature)
{
    return (sdc_vhost_client_session(device->client)->protocol_features & protocol_feature) != 0;
}

// --- memory ---

static int map(struct sdc_driver_transport *transport, const struct sdc_client_memory *memory, struct sdc_error *err)
{
    struct vhost_user *device = of(transport);
    struct sdc_vhost_client_region region = {
        .guest_address = memory->iova, .user_address = (uintptr_t)memory->base, .size = memory->size, .fd = memory->fd};

    if (device->iommu != SDC_DRIVER_IOMMU_OFF)
        region.guest_address += NO_ADDRESS;
    if (memory->fd < 0)
        return sdc_error_set(err, -ENOTSUP, SDC_FAULT_USER, "memory that is not shared: vhost-user reaches none");
    if (device->memories_count == MEMORIES_MAX)
        return sdc_error_set(err, -ENOSPC, SDC_FAULT_USER, "more than %d pieces of memory", MEMORIES_MAX);
    int ret = sdc_vhost_client_map(device->client, &region, err);
    struct sdc_vhost_client_entry entry = {.iova = memory->iova, .user_address = region.user_address, .size = memory->size,
                                           .access = SDC_VHOST_ACCESS_READ | SDC_VHOST_ACCESS_WRITE};
    if (ret == 0 && device->iommu != SDC_DRIVER_IOMMU_OFF)
        ret = sdc_vhost_client_translate(device->client, &entry, err);
    if (ret == 0)
        device->memories[device->memories_count++] = memory;
    return ret;
}

// Where we have what lies at iova, or NULL.
static uint8_t *host_of(const struct vhost_user *device, uint64_t iova)
{
    for (unsigned i = 0; i < device->memories_count; i++) {
        const struct sdc_client_memory *memory = device->memories[i];
        if (iova - memory->iova < memory->size)
            return memory->base + (iova - memory->iova);
    }
    return NULL;
}

// --- features, status, configuration ---

static int get_features(struct sdc_driver_transport *transport, uint64_t *offered, struct sdc_error *err)
{
    struct vhost_user *device = of(transport);
    uint64_t features = sdc_vhost_client_session(device->client)->features;

    (void)err;
    *offered = features & ~NOT_THE_DRIVERS;
    if (device->iommu != SDC_DRIVER_IOMMU_OFF)
        *offered |= features & SDC_VIRTIO_F_ACCESS_PLATFORM;
    return 0;
}

static int set_features(struct sdc_driver_transport *transport, uint64_t accepted, struct sdc_error *err)
{
    of(transport)->features = accepted;
    return sdc_vhost_client_set_features(of(transport)->client, accepted, err);
}

static int get_status(struct sdc_driver_transport *transport, uint8_t *status, struct sdc_error *err)
{
    struct vhost_user *device = of(transport);

    if (has(device, SDC_VHOST_PROTOCOL_F_STATUS))
        return sdc_vhost_client_get_status(device->client, status, err);
    *status = device->status;
    return 0;
}

// How far the device has come with a vring of packed layout lies in the log of what is in flight, and nowhere else.
static uint32_t base_of(const struct vhost_user *device, const struct sdc_driver_queue_place *place)
{
    if (device->features & SDC_VIRTIO_F_RING_PACKED)
        return SDC_VHOST_PACKED_BASE_NEW;
    const uint8_t *used = host_of(device, place->device);
    return used ? le16toh(__atomic_load_n((const uint16_t *)(const void *)(used + USED_INDEX), __ATOMIC_ACQUIRE)) : 0;
}

// By which the back end knows what lies at iova.
static uint64_t name_of(const struct vhost_user *device, uint64_t iova)
{
    return device->iommu != SDC_DRIVER_IOMMU_OFF ? iova : (uintptr_t)host_of(device, iova);
}

static int start_queue(struct vhost_user *device, struct queue *queue, struct sdc_error *err)
{
    const struct sdc_driver_queue_place *place = &queue->place;
    struct sdc_vhost_client_vring vring = {
        .index = place->index,
        .size = place->size,
        .desc = name_of(device, place->desc),
        .driver = name_of(device, place->driver),
        .device = name_of(device, place->device),
        .base = base_of(device, place),
        .kick_fd = queue->kick_fd,
        .call_fd = place->call_fd,
    };
    int ret = sdc_vhost_client_vring_start(device->client, &vring, err);

    queue->started = ret == 0;
    return ret;
}

// The log is made for all vrings at once, before the first is started.
static int make_inflight(struct vhost_user *device, struct sdc_error *err)
{
    uint16_t count = 0, size = 0;

    if (!has(device, SDC_VHOST_PROTOCOL_F_INFLIGHT_SHMFD))
        return 0;
    for (uint16_t i = 0; i < QUEUES_MAX; i++) {
        if (device->queues[i].set_up) {
            count = (uint16_t)(i + 1);
            size = (uint16_t)sdc_max(size, device->queues[i].place.size);
        }
    }
    if (count == 0)
        return 0;
    sdc_fd_close(&device->inflight.fd);
    int ret = sdc_vhost_client_get_inflight(device->client, count, size, &device->inflight, err);
    return ret < 0 ? ret : sdc_vhost_client_set_inflight(device->client, &device->inflight, err);
}

static int start_queues(struct vhost_user *device, struct sdc_error *err)
{
    int ret = 0;

    for (unsigned i = 0; ret == 0 && i < QUEUES_MAX; i++) {
        if (device->queues[i].set_up)
            ret = start_queue(device, &device->queues[i], err);
    }
    return ret;
}

static int stop_queue(struct vhost_user *device, struct queue *queue, struct sdc_error *err)
{
    if (!queue->started)
        return 0;
    queue->started = false;
    return sdc_vhost_client_vring_stop(device->client, queue->place.index, NULL, err);
}

static int reset(struct vhost_user *device, struct sdc_error *err)
{
    int ret = 0;

    for (unsigned i = 0; i < QUEUES_MAX; i++) {
        int stopped = stop_queue(device, &device->queues[i], err);
        ret = ret < 0 ? ret : stopped;
        device->queues[i].set_up = false;
    }
    if (ret == 0 && has(device, SDC_VHOST_PROTOCOL_F_STATUS))
        ret = sdc_vhost_client_set_status(device->client, 0, err);
    else if (ret == 0 && has(device, SDC_VHOST_PROTOCOL_F_RESET_DEVICE))
        ret = sdc_vhost_client_reset(device->client, err);
    return ret;
}

static int set_status(struct sdc_driver_transport *transport, uint8_t status, struct sdc_error *err)
{
    struct vhost_user *device = of(transport);
    uint8_t before = device->status;
    int ret = 0;

    device->status = status;
    if (status == 0)
        return reset(device, err);
    if (has(device, SDC_VHOST_PROTOCOL_F_STATUS))
        ret = sdc_vhost_client_set_status(device->client, status, err);
    if (ret < 0 || !(status & SDC_VIRTIO_S_DRIVER_OK) || before & SDC_VIRTIO_S_DRIVER_OK)
        return ret;
    ret = make_inflight(device, err);
    return ret < 0 ? ret : start_queues(device, err);
}

static int get_config(struct sdc_driver_transport *transport, uint32_t offset, void *data, uint32_t size,
                      struct sdc_error *err)
{
    return sdc_vhost_client_get_config(of(transport)->client, offset, data, size, err);
}

static int set_config(struct sdc_driver_transport *transport, uint32_t offset, const void *data, uint32_t size,
                      struct sdc_error *err)
{
    return sdc_vhost_client_set_config(of(transport)->client, offset, data, size, err);
}

static int set_config_call(struct sdc_driver_transport *transport, int fd, struct sdc_error *err)
{
    (void)err;
    sdc_vhost_client_set_config_call(of(transport)->client, fd);
    return 0;
}

// --- queues ---

static int queues_count(struct sdc_driver_transport *transport, uint16_t *count, struct sdc_error *err)
{
    (void)err;
    *count = (uint16_t)sdc_min(sdc_vhost_client_session(of(transport)->client)->queues_max, QUEUES_MAX);
    return 0;
}

static int queue_size(struct sdc_driver_transport *transport, uint16_t index, uint16_t *size, struct sdc_error *err)
{
    uint16_t count;

    queues_count(transport, &count, err);
    *size = index < count ? QUEUE_SIZE_MAX : 0;
    return 0;
}

static int kick(struct vhost_user *device, uint16_t index, struct sdc_error *err)
{
    if (has(device, SDC_VHOST_PROTOCOL_F_INBAND_NOTIFICATIONS))
        return sdc_vhost_client_kick(device->client, index, err);
    sdc_eventfd_signal(device->queues[index].kick_fd);
    return 0;
}

static int queue_setup(struct sdc_driver_transport *transport, const struct sdc_driver_queue_place *place,
                       struct sdc_error *err)
{
    struct vhost_user *device = of(transport);

    if (place->index >= QUEUES_MAX || !host_of(device, place->desc) || !host_of(device, place->driver) ||
        !host_of(device, place->device))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "queue %u does not lie in memory that was mapped", place->index);
    struct queue *queue = &device->queues[place->index];
    if (queue->kick_fd < 0)
        queue->kick_fd = sdc_eventfd_new();
    if (queue->kick_fd < 0)
        return sdc_error_set(err, queue->kick_fd, SDC_FAULT_HOST, "cannot make an eventfd: %s", strerror(-queue->kick_fd));
    queue->place = *place;
    queue->set_up = true;
    return device->status & SDC_VIRTIO_S_DRIVER_OK ? start_queue(device, queue, err) : 0;
}

static int queue_reset(struct sdc_driver_transport *transport, uint16_t index, struct sdc_error *err)
{
    return stop_queue(of(transport), &of(transport)->queues[index % QUEUES_MAX], err);
}

static int queue_resetting(struct sdc_driver_transport *transport, uint16_t index, bool *resetting, struct sdc_error *err)
{
    (void)transport;
    (void)index;
    (void)err;
    *resetting = false; // GET_VRING_BASE was answered when all was done
    return 0;
}

static int notify(struct sdc_driver_transport *transport, uint16_t index, uint16_t position, struct sdc_error *err)
{
    struct vhost_user *device = of(transport);
    int ret = 0;

    (void)position;
    if (device->iommu == SDC_DRIVER_IOMMU_FLUSH && atomic_fetch_add(&device->notified, 1) % FLUSH_EVERY == FLUSH_EVERY - 1)
        ret = sdc_vhost_client_invalidate(device->client, 0, 0, err);
    return ret < 0 && ret != -ECONNRESET ? ret : kick(device, index, err);
}

// --- the connection ---

static int hangup_fd(struct sdc_driver_transport *transport)
{
    return sdc_vhost_client_fd(of(transport)->client);
}

static int asking_fd(struct sdc_driver_transport *transport)
{
    return sdc_vhost_client_channel_fd(of(transport)->client);
}

static int check(struct sdc_driver_transport *transport, struct sdc_error *err)
{
    return sdc_vhost_client_process(of(transport)->client, err);
}

// The new back end goes on with what the log says was in flight, and looks at every ring as if it were notified.
static int recover(struct sdc_driver_transport *transport, uint32_t timeout_ms, struct sdc_error *err)
{
    struct vhost_user *device = of(transport);

    if (device->inflight.fd < 0)
        return sdc_error_set(err, -ENOTSUP, SDC_FAULT_PEER,
                             "the back end kept no log of what was in flight (VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)");
    int ret = sdc_vhost_client_reconnect(device->client, timeout_ms, err);
    if (ret == 0 && has(device, SDC_VHOST_PROTOCOL_F_STATUS))
        ret = sdc_vhost_client_set_status(device->client, device->status, err);
    if (ret == 0)
        ret = sdc_vhost_client_set_inflight(device->client, &device->inflight, err);
    if (ret == 0)
        ret = start_queues(device, err);
    for (unsigned i = 0; ret == 0 && i < QUEUES_MAX; i++) {
        if (!device->queues[i].set_up)
            continue;
        ret = kick(device, (uint16_t)i, err);
        if (device->queues[i].place.call_fd >= 0)
            sdc_eventfd_signal(device->queues[i].place.call_fd); // what the old one used and did not tell of
    }
    return ret;
}

static void close_transport(struct sdc_driver_transport *transport)
{
    struct vhost_user *device = of(transport);

    sdc_vhost_client_close(device->client);
    for (unsigned i = 0; i < QUEUES_MAX; i++)
        sdc_fd_close(&device->queues[i].kick_fd);
    sdc_fd_close(&device->inflight.fd);
    free(device);
}

static const struct sdc_driver_transport_ops vhost_user_ops = {
    .name = "vhost-user",
    SDC_DRIVER_TRANSPORT_FUNCTIONS,
    .asking_fd = asking_fd,
    .recover = recover,
};

int sdc_driver_vhost_user_open(struct sdc_vhost_client *client, uint16_t kind, struct sdc_driver_transport **transport,
                               struct sdc_error *err)
{
    struct vhost_user *device = calloc(1, sizeof *device);

    if (!device) {
        sdc_vhost_client_close(client);
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a device");
    }
    device->transport.ops = &vhost_user_ops;
    device->client = client;
    device->device_id = kind;
    device->inflight.fd = -1;
    for (unsigned i = 0; i < QUEUES_MAX; i++)
        device->queues[i].kick_fd = -1;
    *transport = &device->transport;
    return 0;
}

int sdc_driver_vhost_user_iommu(struct sdc_driver_transport *transport, enum sdc_driver_iommu iommu, struct sdc_error *err)
{
    struct vhost_user *device = of(transport);

    if (iommu != SDC_DRIVER_IOMMU_OFF && (!(sdc_vhost_client_session(device->client)->features & SDC_VIRTIO_F_ACCESS_PLATFORM) ||
                                          !has(device, SDC_VHOST_PROTOCOL_F_BACKEND_REQ)))
        return sdc_error_set(err, -ENOTSUP, SDC_FAULT_PEER,
                             "the back end cannot be behind an IOMMU: it does not offer VIRTIO_F_ACCESS_PLATFORM and "
                             "VHOST_USER_PROTOCOL_F_BACKEND_REQ");
    device->iommu = iommu;
    return 0;
}
