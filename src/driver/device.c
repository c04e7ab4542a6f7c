// SPDX-License-Identifier: BSD-3-Clause
// A virtio device's life: reset, features, queues, DRIVER_OK, reset.
#include "driver/device.h"

#include "base/check.h"
#include "base/limits.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/wait.h"

#include <sidecard/virtio.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define RESET_NS (UINT64_C(5) * 1000 * 1000 * 1000)

// --- opening ---

// 2.4.1: writing 0 begins a reset, reading 0 is its end.
static int reset(struct sdc_driver_device *device, struct sdc_error *err)
{
    const struct sdc_driver_transport_ops *ops = device->transport->ops;
    uint64_t deadline_ns = sdc_clock_ns() + RESET_NS;
    uint8_t status = 0;
    int ret = ops->set_status(device->transport, 0, err);
    while (ret == 0) {
        ret = ops->get_status(device->transport, &status, err);
        if (ret < 0 || status == 0)
            return ret;
        if (sdc_clock_ns() > deadline_ns)
            return sdc_error_set(err, -ETIMEDOUT, SDC_FAULT_PEER,
                                 "the device did not finish a reset within 5 s (status 0x%02x)", status);
        sdc_wait_fd(ops->hangup_fd(device->transport), SDC_WAIT_HANGUP, 1);
    }
    return ret;
}

static int agree(struct sdc_driver_device *device, uint64_t wanted, struct sdc_error *err)
{
    const struct sdc_driver_transport_ops *ops = device->transport->ops;
    uint64_t offered;
    uint8_t status;
    int ret = ops->get_features(device->transport, &offered, err);
    if (ret < 0)
        return ret;
    if (!(offered & SDC_VIRTIO_F_VERSION_1))
        return sdc_error_set(err, -ENODEV, SDC_FAULT_PEER,
                             "the device does not offer VIRTIO_F_VERSION_1 (features 0x%" PRIx64 ")",
                             offered);
    device->features = offered & (wanted | SDC_VIRTIO_F_VERSION_1);
    ret = ops->set_features(device->transport, device->features, err);
    if (ret == 0)
        ret = ops->set_status(device->transport,
                              SDC_VIRTIO_S_ACKNOWLEDGE | SDC_VIRTIO_S_DRIVER | SDC_VIRTIO_S_FEATURES_OK, err);
    if (ret == 0)
        ret = ops->get_status(device->transport, &status, err);
    if (ret == 0 && !(status & SDC_VIRTIO_S_FEATURES_OK))
        return sdc_error_set(err, -ENOTSUP, SDC_FAULT_PEER,
                             "the device refused the features 0x%" PRIx64 " out of 0x%" PRIx64,
                             device->features, offered);
    return ret;
}

int sdc_driver_device_open(struct sdc_driver_device *device, struct sdc_driver_transport *transport,
                           uint64_t wanted, struct sdc_error *err)
{
    const struct sdc_driver_transport_ops *ops = transport->ops;
    *device = (struct sdc_driver_device){.transport = transport, .config_fd = -1, .memory = {.fd = -1}};
    pthread_mutex_init(&device->recovering, NULL);
    int ret = reset(device, err);
    if (ret == 0)
        ret = ops->set_status(transport, SDC_VIRTIO_S_ACKNOWLEDGE, err);
    if (ret == 0)
        ret = ops->set_status(transport, SDC_VIRTIO_S_ACKNOWLEDGE | SDC_VIRTIO_S_DRIVER, err);
    if (ret == 0)
        ret = agree(device, wanted, err);
    if (ret < 0)
        sdc_driver_device_close(device);
    return ret;
}

// --- queues ---

// The size that queue `index` is to have. In a split ring a power of two; the device's own limit may be none.
static int choose_size(struct sdc_driver_device *device, uint16_t index, uint16_t wanted, uint16_t *size,
                       struct sdc_error *err)
{
    uint16_t max;
    int ret = device->transport->ops->queue_size(device->transport, index, &max, err);
    if (ret < 0)
        return ret;
    if (max == 0)
        return sdc_error_set(err, -ENODEV, SDC_FAULT_PEER, "the device has no queue %u", index);
    if (wanted > max)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "a queue of %u entries: the device's queue %u has at most %u", wanted, index,
                             max);
    *size = wanted > 0 ? wanted : (uint16_t)sdc_min(max, SDC_LIMIT_QUEUE_SIZE);
    if (device->features & SDC_VIRTIO_F_RING_PACKED)
        return 0;
    if (wanted > 0 && !sdc_is_power_of_two(wanted))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "a queue of %u entries: with split rings, it takes a power of two", wanted);
    while (!sdc_is_power_of_two(*size))
        *size &= (uint16_t)(*size - 1);
    return 0;
}

static int make_memory(struct sdc_driver_device *device, const struct sdc_driver_device_options *options,
                       const struct sdc_driver_queue_config *configs, struct sdc_error *err)
{
    uint64_t size = options->extra;
    for (uint16_t i = 0; i < options->queues; i++)
        size += sdc_driver_queue_memory(&configs[i]);
    int ret = sdc_client_memory_new_kind(&device->memory, options->memory, options->iova, size, err);
    return ret < 0 ? ret : device->transport->ops->map(device->transport, &device->memory, err);
}

static int watch_transport(struct sdc_driver_device *device, const struct sdc_driver_waiter *waiter, struct sdc_error *err)
{
    struct sdc_driver_transport *transport = device->transport;
    int asking = transport->ops->asking_fd ? transport->ops->asking_fd(transport) : -1;
    return sdc_driver_waiter_watch(waiter, transport->ops->hangup_fd(transport), asking, err);
}

static int make_waiter(struct sdc_driver_device *device, uint16_t index, struct sdc_error *err)
{
    int ret = sdc_driver_waiter_open(&device->waiters[index], index, err);
    return ret < 0 ? ret : watch_transport(device, &device->waiters[index], err);
}

// Tells the device of a queue.
static int show_queue(struct sdc_driver_device *device, uint16_t index, struct sdc_error *err)
{
    struct sdc_driver_queue *queue = device->queues[index];
    struct sdc_driver_queue_place place = {
        .index = index,
        .size = queue->config.size,
        .desc = queue->desc,
        .driver = queue->driver,
        .device = queue->device,
        .call_fd = device->waiters[index].call_fd,
    };
    return device->transport->ops->queue_setup(device->transport, &place, err);
}

static int setup_queue(struct sdc_driver_device *device, const struct sdc_driver_queue_config *config,
                       bool interrupts, struct sdc_error *err)
{
    int ret = sdc_driver_queue_new(config, &device->memory, &device->queues[config->index], err);
    if (ret == 0 && interrupts)
        ret = make_waiter(device, config->index, err);
    return ret < 0 ? ret : show_queue(device, config->index, err);
}

static int setup_queues(struct sdc_driver_device *device, const struct sdc_driver_device_options *options,
                        struct sdc_driver_queue_config *configs, struct sdc_error *err)
{
    int ret = 0;
    for (uint16_t i = 0; ret == 0 && i < options->queues; i++) {
        configs[i].index = i;
        configs[i].features = device->features;
        configs[i].indirect_max = device->features & SDC_VIRTIO_F_INDIRECT_DESC ? options->indirect_max : 0;
        ret = choose_size(device, i, options->queue_size, &configs[i].size, err);
    }
    if (ret == 0)
        ret = make_memory(device, options, configs, err);
    for (uint16_t i = 0; ret == 0 && i < options->queues; i++)
        ret = setup_queue(device, &configs[i], options->interrupts, err);
    return ret;
}

static int setup_config_call(struct sdc_driver_device *device, struct sdc_error *err)
{
    device->config_fd = sdc_eventfd_new();
    if (device->config_fd < 0)
        return sdc_error_set(err, device->config_fd, SDC_FAULT_HOST, "cannot make an eventfd: %s",
                             strerror(-device->config_fd));
    return device->transport->ops->set_config_call(device->transport, device->config_fd, err);
}

static int allocate(struct sdc_driver_device *device, uint16_t queues, struct sdc_error *err)
{
    device->queues = calloc(queues, sizeof *device->queues);
    device->waiters = calloc(queues, sizeof *device->waiters);
    if (!device->queues || !device->waiters)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for %u queues", queues);
    device->queues_count = queues;
    for (uint16_t i = 0; i < queues; i++)
        device->waiters[i] = SDC_DRIVER_WAITER_NONE;
    return 0;
}

int sdc_driver_device_start(struct sdc_driver_device *device, const struct sdc_driver_device_options *options,
                            struct sdc_error *err)
{
    const struct sdc_driver_transport_ops *ops = device->transport->ops;
    uint16_t count = 0;
    int ret = ops->queues_count(device->transport, &count, err);
    if (ret == 0 && (options->queues == 0 || options->queues > count))
        ret = sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "%u queues: the device has %u", options->queues,
                            count);
    if (ret == 0)
        ret = allocate(device, options->queues, err);
    if (ret == 0 && options->interrupts)
        ret = setup_config_call(device, err);
    struct sdc_driver_queue_config *configs = ret == 0 ? calloc(options->queues, sizeof *configs) : NULL;
    if (ret == 0 && !configs)
        ret = sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for %u queues", options->queues);
    if (ret == 0)
        ret = setup_queues(device, options, configs, err);
    free(configs);
    if (ret == 0)
        ret = ops->set_status(device->transport,
                              SDC_VIRTIO_S_ACKNOWLEDGE | SDC_VIRTIO_S_DRIVER | SDC_VIRTIO_S_FEATURES_OK |
                                  SDC_VIRTIO_S_DRIVER_OK,
                              err);
    return ret;
}

int sdc_driver_device_reset_queue(struct sdc_driver_device *device, uint16_t index, struct sdc_error *err)
{
    const struct sdc_driver_transport_ops *ops = device->transport->ops;
    uint64_t deadline_ns = sdc_clock_ns() + RESET_NS;
    bool resetting = true;
    if (!(device->features & SDC_VIRTIO_F_RING_RESET))
        return sdc_error_set(err, -ENOTSUP, SDC_FAULT_PEER,
                             "queue %u: the device cannot reset a single queue (VIRTIO_F_RING_RESET)", index);
    int ret = ops->queue_reset(device->transport, index, err);
    while (ret == 0) {
        ret = ops->queue_resetting(device->transport, index, &resetting, err);
        if (ret < 0 || !resetting)
            break;
        if (sdc_clock_ns() > deadline_ns)
            return sdc_error_set(err, -ETIMEDOUT, SDC_FAULT_PEER,
                                 "the device did not finish the reset of queue %u within 5 s", index);
        sdc_wait_fd(ops->hangup_fd(device->transport), SDC_WAIT_HANGUP, 1);
    }
    if (ret < 0)
        return ret;
    sdc_driver_queue_restart(device->queues[index]);
    return show_queue(device, index, err);
}

void sdc_driver_device_close(struct sdc_driver_device *device)
{
    if (!device->transport)
        return;
    reset(device, NULL);
    device->transport->ops->close(device->transport);
    for (uint16_t i = 0; i < device->queues_count; i++) {
        sdc_driver_queue_free(device->queues[i]);
        sdc_driver_waiter_close(&device->waiters[i]);
    }
    free(device->queues);
    free(device->waiters);
    sdc_fd_close(&device->config_fd);
    sdc_client_memory_free(&device->memory);
    pthread_mutex_destroy(&device->recovering);
    *device = (struct sdc_driver_device){.config_fd = -1, .memory = {.fd = -1}};
}

// --- running ---

int sdc_driver_device_kick(struct sdc_driver_device *device, uint16_t index, struct sdc_error *err)
{
    struct sdc_driver_queue *queue = device->queues[index];
    if (!sdc_driver_queue_publish(queue))
        return 0;
    int ret = device->transport->ops->notify(device->transport, index, sdc_driver_queue_position(queue), err);
    return ret < 0 ? ret : 1;
}

static int check_transport(void *context, struct sdc_error *err)
{
    struct sdc_driver_device *device = context;
    return device->transport->ops->check(device->transport, err);
}

int sdc_driver_device_wait(struct sdc_driver_device *device, uint16_t index, int timeout_ms,
                           struct sdc_error *err)
{
    return sdc_driver_waiter_wait(&device->waiters[index], timeout_ms, check_transport, device, err);
}

int sdc_driver_device_recover(struct sdc_driver_device *device, uint32_t timeout_ms, struct sdc_error *err)
{
    struct sdc_driver_transport *transport = device->transport;
    struct sdc_error why = {0};
    if (!transport->ops->recover)
        return sdc_error_set(err, -ENOTSUP, SDC_FAULT_USER, "%s has no way to find a device again",
                             transport->ops->name);
    pthread_mutex_lock(&device->recovering);
    bool gone = transport->ops->check(transport, &why) < 0;
    uint64_t deadline_ns = sdc_clock_ns() + timeout_ms * UINT64_C(1000000);
    int ret = gone ? -ECONNRESET : 0;
    // What was found may be gone again before all is set up.
    while (ret == -ECONNRESET && sdc_clock_ns() < deadline_ns)
        ret = transport->ops->recover(transport, timeout_ms, &why);
    for (uint16_t i = 0; gone && ret == 0 && i < device->queues_count; i++)
        if (device->waiters[i].fd >= 0)
            ret = watch_transport(device, &device->waiters[i], &why);
    pthread_mutex_unlock(&device->recovering);
    if (ret < 0 && err)
        *err = why;
    return ret;
}

int sdc_driver_device_check(struct sdc_driver_device *device, struct sdc_error *err)
{
    const struct sdc_driver_transport_ops *ops = device->transport->ops;
    uint8_t status;
    int ret = ops->check(device->transport, err);
    if (ret == 0)
        ret = ops->get_status(device->transport, &status, err);
    if (ret == 0 && status & SDC_VIRTIO_S_NEEDS_RESET)
        return sdc_error_set(err, -EIO, SDC_FAULT_PEER,
                             "the device has stopped and needs a reset (status 0x%02x)", status);
    return ret;
}
