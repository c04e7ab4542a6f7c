// SPDX-License-Identifier: BSD-3-Clause
#include "cli/check/bed.h"

#include "base/check.h"
#include "driver/virtio_pci.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/wait.h"

#include <inttypes.h>
#include <string.h>

enum { MEMORY = 4 << 20, QUEUE_SIZE = 256, TAKE_ALIGN = 16 };

#define MEMORY_IOVA UINT64_C(0x10000000)
#define MS_NS UINT64_C(1000000)
#define NAP_NS UINT64_C(16000) // between looks at a ring that is polled: at first, and 64 times as much at last
enum { NAPS_LONGER = 6 };

// What a driver on PCI accepts whatever it is about to do.
#define PCI_FEATURES (SDC_VIRTIO_F_ACCESS_PLATFORM | SDC_VIRTIO_F_ORDER_PLATFORM)

static const struct sdc_driver_transport_ops *ops_of(const struct sdc_check_bed *bed)
{
    return bed->pci.transport->ops;
}

// --- opening ---

static void open_pci(struct sdc_check_bed *bed, const struct sdc_check_bed_wishes *wishes)
{
    struct sdc_vfio_client_options options = {.timeout_ms = (uint32_t)sdc_check_patience(bed->check)};
    struct sdc_vfio_client *client;
    struct sdc_driver_transport *transport;
    struct sdc_error err = {0};

    int fd = sdc_check_connect(bed->check);
    sdc_check_must(bed->check, sdc_vfio_client_open_fd(fd, bed->check->options->socket, &options, &client, &err), &err,
                   "a connection as a client without faults");
    sdc_check_must(bed->check, sdc_driver_virtio_pci_open(client, &transport, &err), &err, "finding the registers of a virtio device");
    sdc_check_must(bed->check, sdc_driver_device_open(&bed->pci, transport, wishes->features | PCI_FEATURES, &err), &err,
                   "a reset, and agreeing on features that are offered");
    bed->features = bed->pci.features;
    sdc_check_must(bed->check, ops_of(bed)->get_features(bed->pci.transport, &bed->offered, &err), &err, "reading the features");
    sdc_check_must(bed->check, ops_of(bed)->queues_count(bed->pci.transport, &bed->queues_max, &err), &err, "reading num_queues");
    sdc_check_must(bed->check, ops_of(bed)->map(bed->pci.transport, &bed->memory, &err), &err, "DMA_MAP");
}

void sdc_check_bed_open(struct sdc_check_bed *bed, struct sdc_check *check, const struct sdc_check_bed_wishes *wishes)
{
    struct sdc_error err = {0};

    *bed = (struct sdc_check_bed){
        .check = check,
        .vhost_user = check->options->protocol == SDC_PROTOCOL_VHOST_USER,
        .vhost = {.fd = -1, .channel_fd = -1},
        .memory = {.fd = -1},
        .inflight_fd = -1,
    };
    for (unsigned i = 0; i < SDC_CHECK_QUEUES_MAX; i++)
        bed->queues[i].kick_fd = bed->queues[i].call_fd = bed->queues[i].err_fd = -1;
    if (sdc_client_memory_new(&bed->memory, MEMORY_IOVA, wishes->memory > 0 ? wishes->memory : MEMORY, &err) < 0)
        sdc_check_skip(check, "%s", err.text);
    if (bed->vhost_user)
        sdc_check_bed_vhost_open(bed, wishes);
    else
        open_pci(bed, wishes);
}

static void release(struct sdc_check_bed *bed)
{
    for (unsigned i = 0; i < SDC_CHECK_QUEUES_MAX; i++) {
        struct sdc_check_queue *queue = &bed->queues[i];
        sdc_check_ring_free(&queue->ring);
        sdc_fd_close(&queue->kick_fd);
        sdc_fd_close(&queue->call_fd);
        sdc_fd_close(&queue->err_fd);
    }
    sdc_fd_close(&bed->inflight_fd);
    sdc_client_memory_free(&bed->memory);
}

void sdc_check_bed_close(struct sdc_check_bed *bed)
{
    if (bed->vhost_user) {
        sdc_check_bed_vhost_stop_all(bed);
        sdc_check_vhost_close(&bed->vhost);
    } else {
        sdc_driver_device_close(&bed->pci);
    }
    release(bed);
}

void sdc_check_bed_vanish(struct sdc_check_bed *bed)
{
    if (bed->vhost_user)
        sdc_check_vhost_close(&bed->vhost);
    else
        ops_of(bed)->close(bed->pci.transport);
    release(bed);
}

void sdc_check_bed_config(struct sdc_check_bed *bed, uint32_t offset, void *data, uint32_t size)
{
    struct sdc_error err = {0};

    if (bed->vhost_user)
        sdc_check_bed_vhost_config(bed, offset, data, size);
    else
        sdc_check_must(bed->check, ops_of(bed)->get_config(bed->pci.transport, offset, data, size, &err), &err,
                       "reading the configuration that the features promise");
}

uint8_t *sdc_check_bed_take(struct sdc_check_bed *bed, uint64_t size, uint64_t *iova)
{
    uint8_t *taken = sdc_client_memory_take(&bed->memory, size, TAKE_ALIGN, iova);

    if (!taken)
        sdc_check_skip(bed->check, "the tester has no more memory for the device: %" PRIu64 " bytes", size);
    return taken;
}

// --- queues ---

uint16_t sdc_check_bed_queue_max(struct sdc_check_bed *bed, uint16_t index)
{
    struct sdc_error err = {0};
    uint16_t size = 0;

    if (bed->vhost_user)
        return index < bed->queues_max ? bed->ring_max : 0;
    sdc_check_must(bed->check, ops_of(bed)->queue_size(bed->pci.transport, index, &size, &err), &err, "reading queue_size");
    return size;
}

static void make_fds(struct sdc_check_bed *bed, struct sdc_check_queue *queue)
{
    int *const fds[] = {&queue->kick_fd, &queue->call_fd, &queue->err_fd};

    for (unsigned i = 0; i < SDC_COUNT(fds); i++) {
        if (*fds[i] < 0)
            *fds[i] = sdc_eventfd_new();
        if (*fds[i] < 0)
            sdc_check_skip(bed->check, "the tester cannot make an eventfd: %s", strerror(-*fds[i]));
        sdc_eventfd_take(*fds[i]);
    }
    queue->calls = 0;
}

void sdc_check_bed_make_queue(struct sdc_check_bed *bed, uint16_t index, uint16_t size)
{
    struct sdc_check_queue *queue = &bed->queues[index];
    struct sdc_check_ring_config config = {
        .packed = bed->features & SDC_VIRTIO_F_RING_PACKED,
        .event_idx = bed->features & SDC_VIRTIO_F_EVENT_IDX,
        .in_order = bed->features & SDC_VIRTIO_F_IN_ORDER,
        .size = size,
    };

    make_fds(bed, queue);
    config.size = (uint16_t)sdc_min(sdc_check_bed_queue_max(bed, index), size > 0 ? size : QUEUE_SIZE);
    while (config.size != size && !config.packed && config.size > 0 && !sdc_is_power_of_two(config.size))
        config.size &= (uint16_t)(config.size - 1);
    if (config.size == 0)
        sdc_check_fail(bed->check, "queue %u has to have a size", index);
    sdc_check_ring_free(&queue->ring);
    if (sdc_check_ring_new(&config, &bed->memory, &queue->ring) < 0)
        sdc_check_skip(bed->check, "the tester has no memory for a ring of %u entries", config.size);
}

void sdc_check_bed_start_queue(struct sdc_check_bed *bed, uint16_t index)
{
    struct sdc_check_queue *queue = &bed->queues[index];
    struct sdc_error err = {0};
    struct sdc_driver_queue_place place = {
        .index = index,
        .size = queue->ring.config.size,
        .desc = queue->ring.desc_iova,
        .driver = queue->ring.driver_iova,
        .device = queue->ring.device_iova,
        .call_fd = queue->call_fd,
    };

    if (bed->vhost_user)
        sdc_check_bed_vhost_start(bed, index, sdc_check_ring_base(&queue->ring));
    else
        sdc_check_must(bed->check, ops_of(bed)->queue_setup(bed->pci.transport, &place, &err), &err,
                       "setting up a queue of a size that the device allows");
    queue->started = true;
}

static void set_status(struct sdc_check_bed *bed, uint8_t status)
{
    struct sdc_error err = {0};

    if (bed->vhost_user)
        sdc_check_bed_vhost_status(bed, status);
    else
        sdc_check_must(bed->check, ops_of(bed)->set_status(bed->pci.transport, status, &err), &err, "writing the device status");
}

void sdc_check_bed_run(struct sdc_check_bed *bed)
{
    set_status(bed, SDC_VIRTIO_S_ACKNOWLEDGE | SDC_VIRTIO_S_DRIVER | SDC_VIRTIO_S_FEATURES_OK | SDC_VIRTIO_S_DRIVER_OK);
}

void sdc_check_bed_run_queues(struct sdc_check_bed *bed, uint16_t queues, uint16_t size)
{
    for (uint16_t i = 0; i < queues; i++)
        sdc_check_bed_make_queue(bed, i, size);
    for (uint16_t i = 0; i < queues; i++)
        sdc_check_bed_start_queue(bed, i);
    sdc_check_bed_run(bed);
}

static uint8_t get_status(struct sdc_check_bed *bed)
{
    struct sdc_error err = {0};
    uint8_t status = 0;

    sdc_check_must(bed->check, ops_of(bed)->get_status(bed->pci.transport, &status, &err), &err, "reading the device status");
    return status;
}

// 2.4.1: what is written is 0, and 0 is read when it is done. Then it is brought up as it was.
static void reset_pci(struct sdc_check_bed *bed)
{
    static const uint8_t begun = SDC_VIRTIO_S_ACKNOWLEDGE | SDC_VIRTIO_S_DRIVER;
    uint64_t give_up = sdc_clock_ns() + (uint64_t)sdc_check_patience(bed->check) * MS_NS;
    struct sdc_error err = {0};

    set_status(bed, 0);
    while (get_status(bed) != 0) {
        if (sdc_clock_ns() > give_up)
            sdc_check_fail(bed->check, "after 0 was written to the device status it has to read as 0 when the reset is done");
        sdc_clock_pause(MS_NS);
    }
    set_status(bed, SDC_VIRTIO_S_ACKNOWLEDGE);
    set_status(bed, begun);
    sdc_check_must(bed->check, ops_of(bed)->set_features(bed->pci.transport, bed->features, &err), &err, "writing the features");
    set_status(bed, begun | SDC_VIRTIO_S_FEATURES_OK);
    sdc_check_that(bed->check, get_status(bed) & SDC_VIRTIO_S_FEATURES_OK, "features that were accepted before a reset are again");
}

void sdc_check_bed_reset(struct sdc_check_bed *bed)
{
    if (bed->vhost_user)
        sdc_check_bed_vhost_reset(bed);
    else
        reset_pci(bed);
    for (unsigned i = 0; i < SDC_CHECK_QUEUES_MAX; i++)
        bed->queues[i].started = false;
}

// --- running ---

void sdc_check_bed_kick(struct sdc_check_bed *bed, uint16_t queue)
{
    struct sdc_error err = {0};

    if (bed->vhost_user && bed->in_band)
        sdc_check_vhost_set_state(&bed->vhost, SDC_VHOST_VRING_KICK, queue, 0);
    else if (bed->vhost_user)
        sdc_eventfd_signal(bed->queues[queue].kick_fd);
    else
        sdc_check_must(bed->check,
                       ops_of(bed)->notify(bed->pci.transport, queue, sdc_check_ring_position(&bed->queues[queue].ring), &err), &err,
                       "notifying the device of a queue");
}

void sdc_check_bed_show(struct sdc_check_bed *bed, uint16_t queue)
{
    if (sdc_check_ring_show(&bed->queues[queue].ring))
        sdc_check_bed_kick(bed, queue);
}

static int hangup_fd(const struct sdc_check_bed *bed)
{
    return bed->vhost_user ? bed->vhost.fd : ops_of(bed)->hangup_fd(bed->pci.transport);
}

unsigned sdc_check_bed_take_used(struct sdc_check_bed *bed, uint16_t index)
{
    struct sdc_check_ring *ring = &bed->queues[index].ring;
    struct sdc_check_used used;
    unsigned taken = 0;
    int ret;

    while ((ret = sdc_check_ring_take(ring, &used)) > 0)
        taken++;
    if (ret < 0) {
        sdc_check_came(bed->check, "queue %u: %s", index, ring->wrong);
        sdc_check_fail(bed->check, "the device has to use each chain that it was given once, and no other");
    }
    return taken;
}

// Sleeps until an interrupt comes (polled: a moment, which is longer each time).
static void sleep_on(struct sdc_check_bed *bed, uint16_t index, uint64_t give_up, bool polled, unsigned naps)
{
    struct sdc_check_queue *queue = &bed->queues[index];
    struct sdc_wait_item items[] = {{.fd = polled ? -1 : queue->call_fd, .wanted = SDC_WAIT_INPUT},
                                    {.fd = hangup_fd(bed), .wanted = SDC_WAIT_HANGUP},
                                    {.fd = bed->vhost_user ? bed->vhost.channel_fd : -1, .wanted = SDC_WAIT_INPUT}};
    uint64_t now = sdc_clock_ns();

    if (polled)
        sdc_clock_pause(NAP_NS << sdc_min(naps, NAPS_LONGER));
    sdc_wait_fds(items, SDC_COUNT(items), polled ? 0 : now < give_up ? (int)((give_up - now) / MS_NS) + 1 : 0);
    if (items[1].seen & SDC_WAIT_HANGUP) {
        sdc_check_came(bed->check, "the connection was closed");
        sdc_check_fail(bed->check, "the device has to use what it is given");
    }
    if (items[0].seen)
        queue->calls += sdc_eventfd_take(queue->call_fd);
    if (items[2].seen)
        sdc_check_vhost_serve(&bed->vhost);
}

// Until chain `id` (-1: every one) is used.
static void wait_for(struct sdc_check_bed *bed, uint16_t index, int id, bool polled)
{
    struct sdc_check_ring *ring = &bed->queues[index].ring;
    int patience = sdc_check_patience(bed->check);
    uint64_t give_up = sdc_clock_ns() + (uint64_t)patience * MS_NS;

    for (unsigned naps = 0;; naps++) {
        bool late = sdc_clock_ns() >= give_up;
        if (!polled)
            sdc_check_ring_calls(ring, SDC_CHECK_CALLS_ALWAYS, 0);
        unsigned taken = sdc_check_bed_take_used(bed, index);
        if (late && taken > 0 && !polled) {
            sdc_check_came(bed->check, "the chain was used, but no interrupt within %d ms", patience);
            sdc_check_fail(bed->check, "the device must notify the driver of what it has used, unless it was asked not to");
        }
        if (id >= 0 ? ring->counts[id] == 0 : sdc_check_ring_flying(ring) == 0)
            return;
        if (late) {
            sdc_check_came(bed->check, "queue %u: %u chains are not used within %d ms", index, sdc_check_ring_flying(ring), patience);
            sdc_check_fail(bed->check, "the device has to use what it is given");
        }
        if (taken == 0)
            sleep_on(bed, index, give_up, polled, naps);
    }
}

void sdc_check_bed_wait(struct sdc_check_bed *bed, uint16_t queue, int id)
{
    wait_for(bed, queue, id, false);
}

void sdc_check_bed_wait_all(struct sdc_check_bed *bed, uint16_t queue, bool polled)
{
    wait_for(bed, queue, -1, polled);
}

bool sdc_check_bed_called(struct sdc_check_bed *bed, uint16_t index, int ms)
{
    struct sdc_check_queue *queue = &bed->queues[index];
    uint64_t give_up = sdc_clock_ns() + (uint64_t)ms * MS_NS;

    for (bool over = false; queue->calls == 0 && !over;) {
        uint64_t now = sdc_clock_ns();
        struct sdc_wait_item items[] = {{.fd = queue->call_fd, .wanted = SDC_WAIT_INPUT},
                                        {.fd = bed->vhost_user ? bed->vhost.channel_fd : -1, .wanted = SDC_WAIT_INPUT}};
        over = now >= give_up;
        sdc_wait_fds(items, SDC_COUNT(items), over ? 0 : (int)((give_up - now) / MS_NS) + 1);
        if (items[1].seen)
            sdc_check_vhost_serve(&bed->vhost);
        queue->calls += sdc_eventfd_take(queue->call_fd);
    }
    bool called = queue->calls > 0;
    queue->calls = 0;
    return called;
}

bool sdc_check_bed_gone(struct sdc_check_bed *bed, int ms)
{
    int seen = sdc_wait_fd(hangup_fd(bed), SDC_WAIT_HANGUP, ms);

    return seen > 0 && seen & SDC_WAIT_HANGUP;
}

bool sdc_check_bed_broken(struct sdc_check_bed *bed, uint16_t queue)
{
    if (bed->vhost_user)
        return sdc_wait_fd(bed->queues[queue].err_fd, SDC_WAIT_INPUT, 0) > 0;
    return get_status(bed) & SDC_VIRTIO_S_NEEDS_RESET;
}
