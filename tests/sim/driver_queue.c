// SPDX-License-Identifier: BSD-3-Clause
// The virtio-blk driver's queues: requests, kicks, sleep until an interrupt comes, and what befalls requests from outside.
#include "driver.h"

struct driver driver;

// --- requests ---

// When the oldest read began that may still end.
static uint64_t oldest(void)
{
    uint64_t first = driver.now;

    for (unsigned q = 0; q < plan.queues; q++) {
        for (unsigned i = 0; i < SIM_RING_MAX && !driver.queues[q].malformed; i++) {
            const struct request *request = &driver.queues[q].requests[i];
            if (request->io.busy && request->type == 0 && !request->chain.broken && request->io.invoked < first)
                first = request->io.invoked;
        }
    }
    return first;
}

struct sim_io *driver_io(unsigned index)
{
    return index < plan.queues * SIM_RING_MAX ? &driver.queues[index / SIM_RING_MAX].requests[index % SIM_RING_MAX].io : NULL;
}

static void choose_break(struct driver_queue *queue, struct sim_chain *chain)
{
    bool table = chain->indirect;
    unsigned kinds = sim_ring_break_kinds(&queue->ring);
    unsigned kind = sim_pick(table ? 1 : 5, table && queue->ring.packed ? 4 : kinds);

    if ((table && kind == 5) || (!table && kind == 5 && queue->ring.indirect))
        return; // it would be allowed
    if (kind > kinds)
        return;
    chain->broken = kind;
    queue->malformed = true;
    for (unsigned i = 0; i < SIM_RING_MAX; i++)
        queue->requests[i].io.may_be_old = true;
    EVENT("driver: a malformed chain, kind %llu, packed %llu, in a table %llu", kind, queue->ring.packed, table);
}

static struct request *free_request(struct driver_queue *queue)
{
    for (unsigned i = 0; i < SIM_RING_MAX; i++) {
        if (!queue->requests[i].io.busy)
            return &queue->requests[i];
    }
    return NULL;
}

static bool submit_one(struct driver_queue *queue)
{
    struct request *request = free_request(queue);

    if (!request || !request_make(request, &queue->ring, &driver.view, queue->ring.free))
        return false;
    request->io.queue = (unsigned)(queue - driver.queues);
    if (sim_chance(plan.malformed, 256))
        choose_break(queue, &request->chain);
    if (request->chain.broken)
        request->expected = EXPECT_NOTHING;
    sim_model_prune(oldest());
    request_begin(request, ++driver.now);
    sim_ring_add(&queue->ring, &request->chain);
    return true;
}

static void submit(struct driver_queue *queue)
{
    unsigned count = sim_chance(1, 3) ? sim_pick(1, 8) : 1;
    unsigned made = 0;

    while (made < count && queue->burst > 0 && queue->ring.free > 0 && !queue->malformed) {
        queue->burst--;
        if (!submit_one(queue)) {
            if (queue->ring.in_flight > 0)
                queue->burst = 0;
            break;
        }
        made++;
    }
    if (made == 0)
        return;
    sim_ring_show(&queue->ring);
    queue->kick_due = true;
}

static void kick(struct driver_queue *queue)
{
    unsigned index = (unsigned)(queue - driver.queues);

    queue->kick_due = false;
    bool wants = sim_ring_wants_kick(&queue->ring);
    EVENT("driver: queue %llu: %llu kicks", index, wants);
    if (wants)
        sim_post_write(NOTIFY + 4 * index, 2, index);
}

static bool poll(struct driver_queue *queue)
{
    uint32_t written;
    struct sim_chain *chain = sim_ring_poll(&queue->ring, &written);

    if (!chain)
        return false;
    struct request *request = chain->owner;
    request_end(request, written, ++driver.now, sim_disk_flushes());
    driver.ended++;
    return true;
}

static void poll_some(struct driver_queue *queue)
{
    unsigned most = sim_chance(1, 2) ? SIM_RING_MAX : sim_pick(1, 3);

    for (unsigned i = 0; i < most; i++) {
        if (!poll(queue))
            return;
    }
}

static void go_to_sleep(struct driver_queue *queue)
{
    if (queue->kick_due)
        kick(queue);
    sim_ring_irqs(&queue->ring, true);
    queue->sleeping = !sim_ring_has_used(&queue->ring);
    EVENT("driver: queue %llu: sleeps %llu", (unsigned)(queue - driver.queues), queue->sleeping);
}

static bool may_submit(const struct driver_queue *queue)
{
    return !driver.stopped && !queue->malformed && queue->ring.free > 0 && (queue->burst > 0 || queue->ring.in_flight == 0);
}

bool driver_can_run(unsigned index)
{
    const struct driver_queue *queue = &driver.queues[index];

    return queue->live && (queue->irq || queue->kick_due || may_submit(queue) || (!queue->sleeping && queue->ring.in_flight > 0));
}

void driver_run(unsigned index)
{
    struct driver_queue *queue = &driver.queues[index];

    if (queue->irq) {
        queue->irq = queue->sleeping = false;
        if (sim_chance(1, 2))
            sim_ring_irqs(&queue->ring, false);
        poll_some(queue);
        return;
    }
    if (queue->kick_due && sim_chance(1, 2)) {
        kick(queue);
        return;
    }
    if (may_submit(queue) && sim_chance(1, 2)) {
        if (queue->burst == 0)
            queue->burst = sim_pick(1, sim_chance(1, 2) ? 4 : 2U * queue->ring.size);
        submit(queue);
        return;
    }
    if (queue->sleeping || queue->ring.in_flight == 0)
        return;
    if (!sim_ring_has_used(&queue->ring) && sim_chance(1, 2)) {
        go_to_sleep(queue);
        return;
    }
    if (sim_chance(1, 4))
        sim_ring_irqs(&queue->ring, false);
    poll_some(queue);
}

// --- interrupts, and what happens to requests from outside ---

static bool is_alone(uint32_t vector)
{
    unsigned users = 0;

    for (unsigned q = 0; q < plan.queues; q++)
        users += driver.queues[q].open && driver.queues[q].vector == vector;
    return users == 1;
}

void driver_irq(uint32_t vector)
{
    if (driver.silent)
        sim_fail("an interrupt of vector %u after the reset", vector);
    driver.config_irq |= vector == 0;
    for (unsigned q = 0; q < plan.queues; q++) {
        struct driver_queue *queue = &driver.queues[q];
        if (!queue->open || queue->vector != vector)
            continue;
        if (queue->live && is_alone(vector) && !plan.masks && plan.remote == 0)
            sim_ring_check_irq(&queue->ring);
        queue->irq = true;
    }
}

void driver_refused(void)
{
    for (unsigned q = 0; q < plan.queues; q++) {
        driver.queues[q].may_break = true;
        for (unsigned i = 0; i < SIM_RING_MAX; i++)
            driver.queues[q].requests[i].io.may_fail = true;
    }
}

// Whether the device writes to the queue's ring there.
static bool ring_touches(const struct driver_queue *queue, uint64_t iova, uint64_t size)
{
    const struct sim_ring *ring = &queue->ring;

    return queue->open && ((iova < ring->desc + ring->desc_size && ring->desc < iova + size) ||
                           (iova < ring->device + ring->device_size && ring->device < iova + size));
}

bool driver_rings_touch(uint64_t iova, uint64_t size)
{
    for (unsigned q = 0; q < plan.queues; q++) {
        if (ring_touches(&driver.queues[q], iova, size))
            return true;
    }
    return false;
}

void driver_moved(uint64_t iova, uint64_t size)
{
    for (unsigned q = 0; q < plan.queues; q++) {
        // What was written to the ring by message may not have been sent in time.
        driver.queues[q].may_break |= plan.remote > 0 && ring_touches(&driver.queues[q], iova, size);
        for (unsigned i = 0; i < SIM_RING_MAX; i++) {
            struct request *request = &driver.queues[q].requests[i];
            if (!request->io.busy)
                continue;
            request->io.may_fail |= request_touches(request, iova, size);
            driver.queues[q].may_break |= request_table_touches(request, iova, size);
        }
    }
}

void driver_resized(uint64_t low)
{
    for (unsigned q = 0; q < plan.queues; q++) {
        for (unsigned i = 0; i < SIM_RING_MAX; i++) {
            struct request *request = &driver.queues[q].requests[i];
            for (unsigned r = 0; r < request->io.ranges_count; r++)
                request->io.may_fail |= request->io.ranges[r].sector + request->io.ranges[r].sectors > low;
        }
    }
}
