// SPDX-License-Identifier: BSD-3-Clause
// The queues of the NVMe driver: kept busy from one processor each, with doorbells in all their forms, and asleep until an interrupt comes,
// so that one that is lost is noticed.
#include "nvme_driver.h"

#include <sidecard/block.h>

#include <string.h>

struct nvme_driver nvme;

struct sim_io *nvme_driver_io(unsigned index)
{
    return index < plan.queues * NVME_ENTRIES_MAX ? &nvme.sqs[index / NVME_ENTRIES_MAX].commands[index % NVME_ENTRIES_MAX].io : NULL;
}

unsigned nvme_driver_queue_id(unsigned q)
{
    return q == NVME_ADMIN_PLACE ? 0 : q + 1;
}

// --- doorbells ---

// Writes the register, or the shadow and the register if the controller wants that.
static void tell(unsigned q, bool completions, uint16_t before, uint16_t value)
{
    uint64_t offset = 8 * nvme_driver_queue_id(q) + (completions ? 4 : 0);

    if (nvme.shadows_on && q != NVME_ADMIN_PLACE) {
        sim_put32(nvme.shadows + offset, value);
        nvme.telling = true;
        sim_preempt();
        nvme.telling = false;
        uint16_t event = (uint16_t)sim_get32(nvme.events + offset);
        bool wanted = (uint16_t)(value - event - 1) < (uint16_t)(value - before);
        EVENT("driver: shadow of queue %llu, completions %llu, is %llu, rings %llu", nvme_driver_queue_id(q), completions, value, wanted);
        if (!wanted)
            return;
    } else {
        EVENT("driver: doorbell of queue %llu, completions %llu, is %llu, mapped %llu", nvme_driver_queue_id(q), completions,
              value, nvme.mapped);
    }
    if (nvme.mapped)
        __atomic_store_n((uint32_t *)(void *)(sim_mapped_page + offset), value, __ATOMIC_RELEASE);
    else
        sim_post_write(SDC_NVME_DOORBELLS + offset, 4, value);
}

void nvme_driver_kick(unsigned q)
{
    struct nvme_driver_sq *sq = &nvme.sqs[q];
    uint16_t before = sq->told;

    sq->kick_due = false;
    sq->told = sq->tail;
    if (before != sq->tail)
        tell(q, false, before, sq->tail);
}

void nvme_driver_acknowledge(unsigned c)
{
    struct nvme_driver_cq *cq = &nvme.cqs[c];
    uint16_t before = cq->told;

    cq->told = cq->head;
    if (before != cq->head)
        tell(c, true, before, cq->head);
}

// --- completions ---

bool nvme_driver_has_next(const struct nvme_driver_cq *cq)
{
    return (sim_get16(cq->iova + (uint64_t)cq->head * SDC_NVME_CQE + SDC_NVME_CQE_STATUS) & 1) == cq->phase;
}

static struct nvme_command *find(struct nvme_driver_sq *sq, uint16_t cid)
{
    for (unsigned i = 0; i < NVME_ENTRIES_MAX; i++) {
        if (sq->commands[i].io.busy && sq->commands[i].cid == cid)
            return &sq->commands[i];
    }
    return NULL;
}

static unsigned distance(const struct nvme_driver_sq *sq, uint16_t from, uint16_t to)
{
    return (unsigned)(to + sq->size - from) % sq->size;
}

bool nvme_driver_next_entry(unsigned c, uint16_t *cid, uint16_t *status, uint16_t *sq_id)
{
    struct nvme_driver_cq *cq = &nvme.cqs[c];
    uint8_t entry[SDC_NVME_CQE];
    uint16_t head, word;

    if (!nvme_driver_has_next(cq))
        return false;
    sim_guest_get(cq->iova + (uint64_t)cq->head * SDC_NVME_CQE, entry, sizeof entry);
    memcpy(&head, entry + SDC_NVME_CQE_SQHD, 2);
    memcpy(sq_id, entry + SDC_NVME_CQE_SQID, 2);
    memcpy(cid, entry + SDC_NVME_CQE_CID, 2);
    memcpy(&word, entry + SDC_NVME_CQE_STATUS, 2);
    *status = word >> 1 & 0x7ff;
    cq->head++;
    if (cq->head == cq->size) {
        cq->head = 0;
        cq->phase = !cq->phase;
    }
    unsigned q = *sq_id == 0 ? NVME_ADMIN_PLACE : *sq_id - 1U;
    if (q > NVME_ADMIN_PLACE || !nvme.sqs[q].open || nvme.sqs[q].cq != c)
        sim_fail("completion queue %u has an entry of queue %u", nvme_driver_queue_id(c), *sq_id);
    struct nvme_driver_sq *sq = &nvme.sqs[q];
    if (head >= sq->size || distance(sq, sq->head, head) > distance(sq, sq->head, sq->told))
        sim_fail("queue %u: the head is %u, after %u, with the tail at %u", *sq_id, head, sq->head, sq->told);
    sq->head = head;
    return true;
}

bool nvme_driver_poll(unsigned c)
{
    uint16_t cid, status, id;

    if (!nvme_driver_next_entry(c, &cid, &status, &id))
        return false;
    struct nvme_driver_sq *sq = &nvme.sqs[id - 1];
    struct nvme_command *command = find(sq, cid);
    if (!command)
        sim_fail("command %u of queue %u is completed, which is not in flight", cid, id);
    sq->in_flight--;
    nvme_command_end(command, status, ++nvme.now);
    nvme.ended++;
    return true;
}

static void poll_some(unsigned c)
{
    unsigned most = sim_chance(1, 2) ? NVME_ENTRIES_MAX : sim_pick(1, 3);

    for (unsigned i = 0; i < most; i++) {
        if (!nvme_driver_poll(c))
            break;
    }
    if (sim_chance(1, 2))
        nvme_driver_acknowledge(c);
}

// --- submitting ---

static uint64_t oldest(void)
{
    uint64_t first = nvme.now;

    for (unsigned i = 0; i < plan.queues * NVME_ENTRIES_MAX; i++) {
        const struct sim_io *one = nvme_driver_io(i);
        if (one->busy && one->op == SDC_BLOCK_READ && !one->may_be_old && one->invoked < first)
            first = one->invoked;
    }
    return first;
}

static struct nvme_command *free_command(struct nvme_driver_sq *sq)
{
    for (unsigned i = 0; i < NVME_ENTRIES_MAX; i++) {
        if (!sq->commands[i].io.busy)
            return &sq->commands[i];
    }
    return NULL;
}

void nvme_driver_put_entry(struct nvme_driver_sq *sq, const uint8_t entry[SDC_NVME_SQE])
{
    sim_guest_put(sq->iova + (uint64_t)sq->tail * SDC_NVME_SQE, entry, SDC_NVME_SQE);
    sq->tail = (uint16_t)((sq->tail + 1) % sq->size);
}

static bool submit_one(unsigned q)
{
    struct nvme_driver_sq *sq = &nvme.sqs[q];
    struct nvme_command *command = free_command(sq);
    uint8_t entry[SDC_NVME_SQE];

    do // any, but for those that are in flight
        command->cid = (uint16_t)sim_random();
    while (find(sq, command->cid));
    if (!nvme_command_make(command, entry))
        return false;
    command->io.queue = nvme_driver_queue_id(q);
    sim_model_prune(oldest());
    nvme_command_begin(command, ++nvme.now);
    nvme_driver_put_entry(sq, entry);
    sq->in_flight++;
    return true;
}

static bool has_room(const struct nvme_driver_sq *sq)
{
    return sq->in_flight + 1U < sq->size;
}

static void submit(unsigned q)
{
    struct nvme_driver_sq *sq = &nvme.sqs[q];
    unsigned count = sim_chance(1, 3) ? sim_pick(1, 8) : 1;

    while (count-- > 0 && sq->burst > 0 && has_room(sq)) {
        sq->burst--;
        if (!submit_one(q)) {
            if (sq->in_flight > 0)
                sq->burst = 0;
            return;
        }
        sq->kick_due = true;
    }
}

// --- who does what next ---

static bool may_submit(const struct nvme_driver_sq *sq)
{
    return sq->live && !nvme.stopped && has_room(sq) && (sq->burst > 0 || sq->in_flight == 0);
}

static unsigned in_flight(unsigned c)
{
    unsigned count = 0;

    for (unsigned q = 0; q < plan.queues; q++)
        count += nvme.sqs[q].live && nvme.sqs[q].cq == c ? nvme.sqs[q].in_flight : 0;
    return count;
}

// One that does not interrupt is looked at again and again.
static bool may_poll(unsigned c)
{
    const struct nvme_driver_cq *cq = &nvme.cqs[c];

    return cq->open && !nvme.silent && (cq->irq || (in_flight(c) > 0 && (!cq->sleeping || (!cq->irqs && nvme_driver_has_next(cq)))));
}

bool nvme_driver_can_run(unsigned q)
{
    if (nvme.telling) // its queue is nobody else's business meanwhile
        return false;
    return (nvme.sqs[q].live && (nvme.sqs[q].kick_due || may_submit(&nvme.sqs[q]))) || may_poll(q);
}

// It kicks what it submitted, and acknowledges what it took: the controller owes it an interrupt for everything else.
static void go_to_sleep(unsigned c)
{
    for (unsigned q = 0; q < plan.queues; q++) {
        if (nvme.sqs[q].live && nvme.sqs[q].cq == c && nvme.sqs[q].kick_due)
            nvme_driver_kick(q);
    }
    nvme_driver_acknowledge(c);
    nvme.cqs[c].sleeping = !nvme_driver_has_next(&nvme.cqs[c]);
    EVENT("driver: completion queue %llu: sleeps %llu", nvme_driver_queue_id(c), nvme.cqs[c].sleeping);
}

void nvme_driver_run(unsigned q)
{
    struct nvme_driver_sq *sq = &nvme.sqs[q];
    struct nvme_driver_cq *cq = &nvme.cqs[q];

    if (cq->open && cq->irq) {
        cq->irq = cq->sleeping = false;
        poll_some(q);
    } else if (sq->live && sq->kick_due && sim_chance(1, 2)) {
        nvme_driver_kick(q);
    } else if (may_submit(sq) && sim_chance(1, 2)) {
        if (sq->burst == 0)
            sq->burst = sim_pick(1, sim_chance(1, 2) ? 4 : 2U * sq->size);
        submit(q);
    } else if (may_poll(q)) {
        if (!nvme_driver_has_next(cq) && sim_chance(1, 2))
            go_to_sleep(q);
        else
            cq->sleeping = false, poll_some(q);
    }
}

// --- what happens from outside ---

void nvme_driver_irq(uint32_t vector)
{
    bool wanted = vector == 0;

    if (nvme.silent)
        sim_fail("an interrupt of vector %u after the reset", vector);
    for (unsigned c = 0; c < plan.queues; c++) {
        if (!nvme.cqs[c].open || !nvme.cqs[c].irqs || nvme.cqs[c].vector != vector)
            continue;
        wanted = true;
        nvme.cqs[c].irq = true;
    }
    if (!wanted && !plan.masks) // one that was held back may come when its queue is gone
        sim_fail("an interrupt of vector %u, which no queue has", vector);
}

void nvme_driver_refused(void)
{
    nvme.may_break = true;
    for (unsigned i = 0; i < plan.queues * NVME_ENTRIES_MAX; i++)
        nvme_driver_io(i)->may_fail = nvme_driver_io(i)->may_be_old = true;
}

static bool overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
    return a < b + b_size && b < a + a_size;
}

static bool cq_touches(const struct nvme_driver_cq *cq, uint64_t iova, uint64_t size)
{
    return cq->open && overlap(cq->iova, (uint64_t)cq->size * SDC_NVME_CQE, iova, size);
}

bool nvme_driver_rings_touch(uint64_t iova, uint64_t size)
{
    bool touches = false;

    for (unsigned c = 0; c <= NVME_ADMIN_PLACE; c++)
        touches |= cq_touches(&nvme.cqs[c], iova, size);
    return touches;
}

void nvme_driver_moved(uint64_t iova, uint64_t size)
{
    for (unsigned q = 0; q <= NVME_ADMIN_PLACE; q++) {
        nvme.cqs[q].may_stall |= plan.remote > 0 && cq_touches(&nvme.cqs[q], iova, size);
        for (unsigned i = 0; i < NVME_ENTRIES_MAX; i++) {
            struct nvme_command *command = &nvme.sqs[q].commands[i];
            if (!command->io.busy)
                continue;
            command->io.may_fail |= nvme_command_touches(command, iova, size);
            command->io.may_be_old |= nvme.cqs[nvme.sqs[q].cq].may_stall;
        }
    }
}

void nvme_driver_resized(uint64_t low)
{
    for (unsigned i = 0; i < plan.queues * NVME_ENTRIES_MAX; i++) {
        struct sim_io *one = nvme_driver_io(i);
        for (unsigned r = 0; r < one->ranges_count; r++)
            one->may_fail |= one->ranges[r].sector + one->ranges[r].sectors > low;
    }
}

// --- memory of queues ---

bool nvme_driver_take_cq(unsigned c, unsigned size)
{
    struct nvme_driver_cq *cq = &nvme.cqs[c];
    uint8_t zero[NVME_ENTRIES_MAX * SDC_NVME_CQE] = {0};

    *cq = (struct nvme_driver_cq){.size = (uint16_t)size, .phase = true};
    if (!sim_guest_take(size * SDC_NVME_CQE, SIM_PAGE, true, &cq->iova))
        return false;
    sim_guest_put(cq->iova, zero, size * SDC_NVME_CQE);
    sim_guest_allow(cq->iova, size * SDC_NVME_CQE, true);
    cq->open = true;
    return true;
}

void nvme_driver_give_cq(unsigned c)
{
    struct nvme_driver_cq *cq = &nvme.cqs[c];

    if (!cq->open)
        return;
    cq->open = false;
    sim_guest_allow(cq->iova, (uint32_t)cq->size * SDC_NVME_CQE, false);
    sim_guest_give(cq->iova, (uint32_t)cq->size * SDC_NVME_CQE);
}

bool nvme_driver_take_sq(unsigned q, unsigned size, unsigned c)
{
    struct nvme_driver_sq *sq = &nvme.sqs[q];

    sq->size = (uint16_t)size;
    sq->tail = sq->told = sq->head = 0;
    sq->cq = c;
    sq->in_flight = sq->burst = 0;
    sq->kick_due = false;
    sq->open = sim_guest_take(size * SDC_NVME_SQE, SIM_PAGE, false, &sq->iova);
    return sq->open;
}

void nvme_driver_give_sq(unsigned q)
{
    struct nvme_driver_sq *sq = &nvme.sqs[q];

    sq->live = false;
    if (!sq->open)
        return;
    sq->open = false;
    for (unsigned i = 0; i < NVME_ENTRIES_MAX; i++) {
        if (sq->commands[i].io.busy)
            nvme_command_drop(&sq->commands[i], ++nvme.now);
    }
    sim_guest_give(sq->iova, (uint32_t)sq->size * SDC_NVME_SQE);
}

static void give_shadows(void)
{
    if (nvme.events != 0) {
        sim_guest_allow(nvme.events, SIM_PAGE, false);
        sim_guest_give(nvme.events, SIM_PAGE);
        sim_guest_allow(nvme.shadows, SIM_PAGE, false);
    }
    if (nvme.shadows != 0)
        sim_guest_give(nvme.shadows, SIM_PAGE);
    nvme.shadows = nvme.events = 0;
    nvme.shadows_on = false;
}

void nvme_driver_lost(void)
{
    for (unsigned q = 0; q <= NVME_ADMIN_PLACE; q++) {
        nvme_driver_give_sq(q);
        nvme_driver_give_cq(q);
    }
    give_shadows();
    sim_disk_forget_errors();
    nvme.may_break = false;
}
