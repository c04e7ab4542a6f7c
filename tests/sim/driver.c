// SPDX-License-Identifier: BSD-3-Clause
// A virtio-blk driver over PCI registers: brings the device up, and resets what it likes to. Its queues (driver_queue.c) are kept busy from
// one processor each, and sleep until an interrupt comes, so that one that is lost is noticed.
#include "driver.h"

#include <sidecard/virtio.h>

#include "device/virtio_blk/virtio_blk.h"
#include "transport/common/virtio_core.h"
#include "transport/virtio_pci/virtio_pci.h"

#include <errno.h>
#include <string.h>

enum {
    // BAR 4 and its common configuration (virtio 1.2, 4.1.4.3).
    FEATURE_SELECT = 0x00,
    FEATURE = 0x04,
    DRIVER_FEATURE_SELECT = 0x08,
    DRIVER_FEATURE = 0x0c,
    CONFIG_VECTOR = 0x10,
    STATUS = 0x14,
    QUEUE_SELECT = 0x16,
    QUEUE_SIZE = 0x18,
    QUEUE_VECTOR = 0x1a,
    QUEUE_ENABLE = 0x1c,
    QUEUE_DESC = 0x20,
    QUEUE_DRIVER = 0x28,
    QUEUE_DEVICE = 0x30,
    QUEUE_RESET = 0x3a,
    DEVICE = 0x2000,
    WRITEBACK = DEVICE + 32,
    BITS = 64,
};

#define BLK_FLUSH        (UINT64_C(1) << 9)
#define BLK_CONFIG_WCE   (UINT64_C(1) << 11)
#define BLK_DISCARD      (UINT64_C(1) << 13)
#define BLK_WRITE_ZEROES (UINT64_C(1) << 14)

static struct sdc_virtio_device *device;
static uint64_t features;
static bool tainted; // a queue broke, or may have, since the device was reset

// --- bringing it up ---

static uint64_t offered(void)
{
    uint64_t bits = 0;

    for (unsigned half = 0; half < 2; half++) {
        sim_register_write(FEATURE_SELECT, 4, half);
        bits |= sim_register_read(FEATURE, 4) << (32 * half);
    }
    return bits;
}

static bool take_feature(uint64_t *bits, uint64_t feature, bool wanted)
{
    if (wanted && sim_chance(3, 4))
        return true;
    *bits &= ~feature;
    return false;
}

static void negotiate(void)
{
    features = offered() & (SDC_VIRTIO_F_VERSION_1 | SDC_VIRTIO_F_ACCESS_PLATFORM | SDC_VIRTIO_F_INDIRECT_DESC |
                            SDC_VIRTIO_F_EVENT_IDX | SDC_VIRTIO_F_RING_PACKED | SDC_VIRTIO_F_IN_ORDER |
                            SDC_VIRTIO_F_RING_RESET | BLK_FLUSH | BLK_CONFIG_WCE | BLK_DISCARD | BLK_WRITE_ZEROES);
    take_feature(&features, SDC_VIRTIO_F_INDIRECT_DESC, plan.indirect_allowed);
    take_feature(&features, SDC_VIRTIO_F_EVENT_IDX, plan.event_idx_allowed);
    take_feature(&features, SDC_VIRTIO_F_RING_PACKED, plan.packed_allowed);
    take_feature(&features, SDC_VIRTIO_F_RING_RESET, plan.reset_queue_allowed);
    take_feature(&features, SDC_VIRTIO_F_IN_ORDER, plan.in_order_allowed);
    take_feature(&features, BLK_FLUSH, true);
    take_feature(&features, BLK_CONFIG_WCE, true);
    take_feature(&features, BLK_DISCARD, true);
    take_feature(&features, BLK_WRITE_ZEROES, true);
    for (unsigned half = 0; half < 2; half++) {
        sim_register_write(DRIVER_FEATURE_SELECT, 4, half);
        sim_register_write(DRIVER_FEATURE, 4, features >> (32 * half) & UINT32_MAX);
    }
    driver.view = (struct disk_view){.discard = features & BLK_DISCARD,
                              .write_zeroes = features & BLK_WRITE_ZEROES,
                              .read_only = plan.read_only};
}

static bool open_queue(struct driver_queue *queue, unsigned index)
{
    unsigned size = 1U << sim_pick(1, 6);

    if (features & SDC_VIRTIO_F_RING_PACKED)
        size = sim_pick(2, SIM_RING_MAX);
    memset(&queue->ring, 0, sizeof queue->ring);
    queue->ring.packed = features & SDC_VIRTIO_F_RING_PACKED;
    queue->ring.event_idx = features & SDC_VIRTIO_F_EVENT_IDX;
    queue->ring.in_order = features & SDC_VIRTIO_F_IN_ORDER;
    queue->ring.indirect = features & SDC_VIRTIO_F_INDIRECT_DESC;
    queue->ring.size = (uint16_t)(size < plan.queue_size_max ? size : plan.queue_size_max);
    if (!sim_ring_open(&queue->ring))
        return false;
    queue->open = true;
    queue->sleeping = queue->irq = queue->kick_due = queue->malformed = false;
    queue->may_break = !sim_guest_whole();
    queue->burst = 0;
    queue->vector = sim_chance(7, 8) ? index + 1 : 1;
    sim_register_write(QUEUE_SELECT, 2, index);
    sim_register_write(QUEUE_SIZE, 2, queue->ring.size);
    sim_register_write(QUEUE_VECTOR, 2, queue->vector);
    sim_register_write(QUEUE_DESC, 8, queue->ring.desc);
    sim_register_write(QUEUE_DRIVER, 8, queue->ring.driver);
    sim_register_write(QUEUE_DEVICE, 8, queue->ring.device);
    EVENT("driver: queue %llu: %llu entries, packed %llu, event_idx %llu", index, queue->ring.size, queue->ring.packed,
          queue->ring.event_idx);
    EVENT("driver: queue %llu: areas at %llx, %llx, %llx", index, queue->ring.desc, queue->ring.driver, queue->ring.device);
    sim_register_write(QUEUE_ENABLE, 2, 1);
    return true;
}

static void close_queue(struct driver_queue *queue)
{
    queue->live = false;
    if (!queue->open)
        return;
    queue->open = false;
    for (unsigned i = 0; i < SIM_RING_MAX; i++) {
        if (queue->requests[i].io.busy)
            request_drop(&queue->requests[i], ++driver.now);
        queue->requests[i].io.busy = false;
    }
    sim_ring_close(&queue->ring);
}

static void lost(void)
{
    for (unsigned q = 0; q < plan.queues; q++)
        close_queue(&driver.queues[q]);
    sim_disk_forget_errors();
    driver.config_irq = tainted = false;
}

// Whether writes stay in a cache until a flush, as the driver knows.
static void know_the_cache(void)
{
    sim_disk_expect_fua(!(features & BLK_FLUSH) || sim_register_read(WRITEBACK, 1) == 0);
}

static void start(void)
{
    EVENT("driver: starts");
    sim_guest_map_all(); // a ring that is nowhere cannot start
    sim_register_write(STATUS, 1, 1);
    sim_register_write(STATUS, 1, 3);
    negotiate();
    sim_register_write(STATUS, 1, 11);
    if (sim_register_read(STATUS, 1) != 11)
        sim_fail("the device refuses its features");
    know_the_cache();
    sim_register_write(CONFIG_VECTOR, 2, 0);
    for (unsigned q = 0; q < plan.queues; q++)
        open_queue(&driver.queues[q], q);
    driver.silent = false;
    sim_register_write(STATUS, 1, 15);
    for (unsigned q = 0; q < plan.queues; q++)
        driver.queues[q].live = driver.queues[q].open;
}

// --- resets ---

static void leave(void)
{
    for (unsigned q = 0; q < plan.queues; q++)
        driver.queues[q].live = false;
}

static void wait_for_status_zero(void)
{
    unsigned tries = 0;

    while (sim_register_read(STATUS, 1) != 0) {
        if (++tries > 10000)
            sim_fail("the reset does not end");
    }
}

static void was_reset(void)
{
    driver.silent = true;
    sim_guest_check();
    lost();
    if (sim_disk_queues() > 0)
        sim_fail("the reset is over with %u of the backend's queues open", sim_disk_queues());
}

static void reset_by_status(void)
{
    EVENT("driver: resets by status");
    leave();
    sim_register_write(STATUS, 1, 0);
    wait_for_status_zero();
    was_reset();
    start();
}

static void reset_device(void)
{
    EVENT("driver: DEVICE_RESET");
    leave();
    int error = sim_device_reset();
    if (error && error != EBUSY)
        sim_fail("DEVICE_RESET was refused: %d", error);
    if (error)
        wait_for_status_zero();
    if (sim_register_read(STATUS, 1) != 0)
        sim_fail("the status after DEVICE_RESET is not zero");
    was_reset();
    start();
}

static void reset_queue(struct driver_queue *queue)
{
    unsigned index = (unsigned)(queue - driver.queues);

    if (!(features & SDC_VIRTIO_F_RING_RESET) || !queue->live)
        return;
    EVENT("driver: resets queue %llu", index);
    queue->live = false;
    sim_register_write(QUEUE_SELECT, 2, index);
    sim_register_write(QUEUE_RESET, 2, 1);
    for (unsigned tries = 0; sim_register_read(QUEUE_RESET, 2) != 0;) {
        if (++tries > 10000)
            sim_fail("the queue's reset does not end");
    }
    if (sim_register_read(QUEUE_ENABLE, 2) != 0)
        sim_fail("a queue is enabled after its reset");
    sim_guest_check();
    tainted |= queue->malformed || queue->may_break;
    close_queue(queue);
    // Errors that its requests had cannot be told from others' now.
    for (unsigned q = 0; q < plan.queues; q++) {
        for (unsigned i = 0; i < SIM_RING_MAX; i++)
            driver.queues[q].requests[i].io.may_fail = true;
    }
    sim_disk_forget_errors();
    sim_guest_map_all();
    if (sim_chance(7, 8))
        queue->live = open_queue(queue, index);
}

static void reconnect(void)
{
    driver.silent = true;
    sim_client_reconnect();
    start();
}

static void restart(void)
{
    switch (sim_below(4)) {
    case 0:
        reset_device();
        break;
    case 1:
        reconnect();
        break;
    default:
        reset_by_status();
        break;
    }
}

// --- draining ---

static bool needs_reset(void)
{
    return sim_register_read(STATUS, 1) & SDC_VIRTIO_S_NEEDS_RESET;
}

static bool may_need_reset(void)
{
    if (tainted)
        return true;
    for (unsigned q = 0; q < plan.queues; q++) {
        if (driver.queues[q].live && (driver.queues[q].malformed || driver.queues[q].may_break))
            return true;
    }
    return false;
}

// Whether every queue is as it has to be when nobody can do anything any more.
static void check_rest(bool broken)
{
    for (unsigned q = 0; q < plan.queues; q++) {
        struct driver_queue *queue = &driver.queues[q];
        if (!queue->live)
            continue;
        if (queue->malformed && !broken)
            sim_fail("queue %u got a malformed chain and does not break", q);
        if (queue->ring.in_flight > 0 && !(broken && (queue->malformed || queue->may_break)))
            sim_fail("queue %u: stall: %u requests in flight, %s", q, queue->ring.in_flight,
                     sim_ring_has_used(&queue->ring) ? "some are used: an interrupt is lost" : "and nobody does anything");
    }
}

static void drain(void)
{
    EVENT("driver: drains");
    driver.stopped = true;
    sim_unmask_irqs();
    sim_guest_map_all();
    sim_disk_unlock();
    for (unsigned steps = 0; sim_step(); steps++) {
        if (steps > 100000)
            sim_fail("requests do not come to an end");
    }
    bool irq = driver.config_irq;
    bool broken = needs_reset();
    if (broken && !may_need_reset())
        sim_fail("the device needs a reset without a reason");
    if (broken && !irq)
        sim_fail("the device needs a reset and does not say so");
    if (sim_disk_requests() > 0 || sim_client_can_answer())
        sim_fail("something is under way that nobody goes on with");
    check_rest(broken);
    if (broken)
        restart();
}

static void drain_all(void)
{
    drain();
    driver.stopped = false;
}

// --- whatever else a driver and its VMM do ---

static void resize(void)
{
    if (!plan.resizes || sim_loop_in_turn(0))
        return;
    bool before = driver.config_irq;
    sim_disk_resize();
    driver.config_irq = false;
    sim_home_enter();
    sdc_virtio_blk_refresh(device);
    sim_home_leave();
    if (!sim_irq_masked(0) && !driver.config_irq)
        sim_fail("the driver is not told of the disk's new size");
    driver.config_irq |= before;
    if (sim_register_read(DEVICE, 8) != sim_disk_sectors())
        sim_fail("the disk's new size cannot be read");
}

static void switch_the_cache(void)
{
    bool on = sim_chance(1, 2);

    drain();
    sim_register_write(WRITEBACK, 1, on);
    know_the_cache();
    driver.stopped = false;
    if ((features & BLK_FLUSH) && (features & BLK_CONFIG_WCE) && sim_register_read(WRITEBACK, 1) != on)
        sim_fail("the cache cannot be switched");
}

static void restless(void)
{
    unsigned queue = sim_below(plan.queues);

    switch (sim_below(20)) {
    case 0:
    case 1:
    case 2:
    case 3:
    case 4:
        if (plan.unmaps)
            sim_guest_restless();
        break;
    case 5:
    case 6:
        if (!driver.silent)
            sim_mask_some_irq();
        break;
    case 7:
        resize();
        break;
    case 8:
        switch_the_cache();
        break;
    case 9:
    case 10:
        reset_queue(&driver.queues[queue]);
        break;
    case 11:
        restart();
        break;
    case 12:
        sim_post_write(NOTIFY + 4 * queue, 2, queue); // for nothing
        break;
    case 13:
        sim_disk_unlock();
        break;
    case 14:
    case 15:
    case 16:
        drain_all();
        break;
    default:
        if (driver.config_irq && needs_reset() && may_need_reset())
            restart();
        break;
    }
}

// --- life ---

static unsigned long requests_done(void)
{
    return driver.ended;
}

static void make_card(struct sdc_block *block, struct sdc_loop *const *loops)
{
    struct sdc_virtio_blk_options options = {.queues = (uint16_t)plan.queues,
                                             .queue_size = (uint16_t)plan.queue_size_max,
                                             .write_cache = plan.write_cache,
                                             .serial = "walk"};

    if (sdc_virtio_blk_new(block, &options, &device, NULL) < 0 || sdc_virtio_pci_new(device, loops, plan.loops, &sim_card, NULL) < 0)
        sim_fail("the card cannot be made");
    sdc_virtio_core_poll(device->core, (enum sdc_poll_mode)plan.poll, plan.poll_max_us * UINT64_C(1000));
    memset(driver.queues, 0, sizeof driver.queues);
    driver.now = 0;
    driver.stopped = driver.config_irq = tainted = false;
    driver.silent = true;
}

const struct sim_driver sim_virtio_driver = {
    .name = "virtio-blk",
    .bar = 4,
    .ios_max = DRIVER_IOS,
    .io = driver_io,
    .make_card = make_card,
    .start = start,
    .restless = restless,
    .can_run = driver_can_run,
    .run = driver_run,
    .drain = drain_all,
    .leave = leave,
    .lost = lost,
    .irq = driver_irq,
    .refused = driver_refused,
    .rings_touch = driver_rings_touch,
    .moved = driver_moved,
    .resized = driver_resized,
    .requests = requests_done,
};
