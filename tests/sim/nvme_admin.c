// SPDX-License-Identifier: BSD-3-Clause
// The admin commands of the NVMe driver: queues of any size that share completion queues are made and deleted while others go on.
#include "nvme_driver.h"

#include <sidecard/block.h>

#include <string.h>

enum { NONE = UINT32_MAX };

uint32_t nvme_driver_status(void)
{
    return (uint32_t)sim_register_read(SDC_NVME_CSTS, 4);
}

enum { UNANSWERED = 0xffff }; // the controller has failed, as it may

bool nvme_driver_has_failed(void)
{
    return nvme.may_break && nvme_driver_status() & SDC_NVME_CSTS_CFS;
}

static uint16_t admin(uint8_t entry[SDC_NVME_SQE])
{
    uint16_t cid, result, id, mine = nvme.admin_cid++;

    if (!sim_guest_whole())
        sim_disk_unlock(); // what is in flight may wait for it, and memory for that
    sim_guest_map_all();
    memcpy(entry + SDC_NVME_SQE_CID, &mine, 2);
    nvme_driver_put_entry(&nvme.sqs[NVME_ADMIN_PLACE], entry);
    nvme_driver_kick(NVME_ADMIN_PLACE);
    EVENT("driver: admin command %llu of opcode %llu", mine, entry[0]);
    for (unsigned steps = 0; !nvme_driver_has_next(&nvme.cqs[NVME_ADMIN_PLACE]); steps++) {
        if (steps % 1000 == 999)
            sim_disk_unlock(); // what is in flight may wait for it, while others go on
        if ((sim_step() && steps < 100000) || nvme_driver_has_next(&nvme.cqs[NVME_ADMIN_PLACE]))
            continue;
        if (nvme_driver_has_failed())
            return UNANSWERED;
        sim_fail("the admin command of opcode %#x is not answered", entry[0]);
    }
    if (!nvme_driver_next_entry(NVME_ADMIN_PLACE, &cid, &result, &id) || cid != mine || id != 0)
        sim_fail("admin command %u is completed, %u was under way", cid, mine);
    nvme_driver_acknowledge(NVME_ADMIN_PLACE);
    EVENT("driver: admin command %llu: status %llx", mine, result);
    return result;
}

static void must(uint8_t entry[SDC_NVME_SQE], uint16_t expected)
{
    uint8_t opcode = entry[0];
    uint16_t result = admin(entry);

    if (result != expected && !nvme.may_break)
        sim_fail("the admin command of opcode %#x ends with status %#x instead of %#x", opcode, result, expected);
}

static void put_words(uint8_t *entry, uint64_t prp1, uint32_t word10, uint32_t word11)
{
    memcpy(entry + SDC_NVME_SQE_PRP1, &prp1, 8);
    memcpy(entry + SDC_NVME_SQE_CDW10, &word10, 4);
    memcpy(entry + SDC_NVME_SQE_CDW11, &word11, 4);
}

uint16_t nvme_driver_set_feature(uint32_t feature, uint32_t value)
{
    uint8_t entry[SDC_NVME_SQE] = {SDC_NVME_ADMIN_SET_FEATURES};

    put_words(entry, 0, feature, value);
    return admin(entry);
}

void nvme_driver_set_cache(bool on)
{
    uint16_t result = nvme_driver_set_feature(SDC_NVME_FEAT_WRITE_CACHE, on);

    if (result == 0)
        sim_disk_expect_fua(!on);
    else if (!nvme.may_break && !sim_disk_take_error(SDC_BLOCK_FLUSH, 0, 0))
        sim_fail("the cache cannot be switched: status %#x", result);
}

void nvme_driver_create_cq(unsigned c)
{
    uint8_t entry[SDC_NVME_SQE] = {SDC_NVME_ADMIN_CREATE_CQ};
    struct nvme_driver_cq *cq = &nvme.cqs[c];

    if (!nvme_driver_take_cq(c, sim_pick(2, plan.queue_size_max)))
        return;
    cq->irqs = sim_chance(7, 8);
    cq->vector = sim_chance(3, 4) ? c + 1 : sim_pick(0, plan.queues);
    put_words(entry, cq->iova, (cq->size - 1U) << 16 | nvme_driver_queue_id(c), cq->vector << 16 | (cq->irqs ? 2U : 0U) | 1U);
    must(entry, 0);
    EVENT("driver: completion queue %llu: %llu entries at %llx, interrupts %llu", nvme_driver_queue_id(c), cq->size, cq->iova, cq->irqs);
}

static unsigned choose_cq(void)
{
    for (unsigned tries = 0; tries < 8; tries++) {
        unsigned c = sim_below(plan.queues);
        if (nvme.cqs[c].open)
            return c;
    }
    return NONE;
}

void nvme_driver_create_sq(unsigned q)
{
    uint8_t entry[SDC_NVME_SQE] = {SDC_NVME_ADMIN_CREATE_SQ};
    unsigned c = sim_chance(1, 2) && nvme.cqs[q].open ? q : choose_cq();

    if (c == NONE || !nvme_driver_take_sq(q, sim_pick(2, plan.queue_size_max), c))
        return;
    put_words(entry, nvme.sqs[q].iova, (nvme.sqs[q].size - 1U) << 16 | nvme_driver_queue_id(q), nvme_driver_queue_id(c) << 16 | 1U);
    if (nvme.shadows_on) {
        sim_put32(nvme.shadows + 8 * nvme_driver_queue_id(q), 0);
        sim_put32(nvme.events + 8 * nvme_driver_queue_id(q), 0);
    }
    must(entry, 0);
    nvme.sqs[q].live = true;
    EVENT("driver: queue %llu: %llu entries at %llx, completes to %llu", nvme_driver_queue_id(q), nvme.sqs[q].size, nvme.sqs[q].iova,
          nvme_driver_queue_id(c));
}

void nvme_driver_delete_sq(unsigned q)
{
    uint8_t entry[SDC_NVME_SQE] = {SDC_NVME_ADMIN_DELETE_SQ};
    unsigned c = nvme.sqs[q].cq;

    if (!nvme.sqs[q].live)
        return;
    EVENT("driver: deletes queue %llu", nvme_driver_queue_id(q));
    nvme.sqs[q].live = false;
    put_words(entry, 0, nvme_driver_queue_id(q), 0);
    must(entry, 0);
    sim_guest_check();
    while (nvme_driver_poll(c)) // what was completed before
        continue;
    nvme_driver_acknowledge(c);
    nvme.cqs[c].irq = true; // others may sleep for what was taken here
    nvme_driver_give_sq(q);
    // Errors that its commands had cannot be told from others' now.
    for (unsigned i = 0; i < plan.queues * NVME_ENTRIES_MAX; i++)
        nvme_driver_io(i)->may_fail = true;
    sim_disk_forget_errors();
}

static bool is_used(unsigned c)
{
    bool used = false;

    for (unsigned q = 0; q < plan.queues; q++)
        used |= nvme.sqs[q].open && nvme.sqs[q].cq == c;
    return used;
}

void nvme_driver_delete_cq(unsigned c)
{
    uint8_t entry[SDC_NVME_SQE] = {SDC_NVME_ADMIN_DELETE_CQ};

    if (!nvme.cqs[c].open)
        return;
    put_words(entry, 0, nvme_driver_queue_id(c), 0);
    must(entry, is_used(c) ? SDC_NVME_SC_QUEUE_IN_USE : 0);
    sim_guest_check();
    if (!is_used(c))
        nvme_driver_give_cq(c);
}

void nvme_driver_use_shadows(void)
{
    uint8_t entry[SDC_NVME_SQE] = {SDC_NVME_ADMIN_DOORBELL_BUFFER};
    uint8_t zero[SIM_PAGE] = {0};

    if (plan.remote > 0 || !plan.event_idx_allowed || !sim_guest_take(SIM_PAGE, SIM_PAGE, true, &nvme.shadows))
        return;
    if (!sim_guest_take(SIM_PAGE, SIM_PAGE, true, &nvme.events)) {
        nvme.events = 0;
        return;
    }
    sim_guest_allow(nvme.shadows, SIM_PAGE, true); // a queue's are filled when the controller begins to look at them
    sim_guest_put(nvme.shadows, zero, SIM_PAGE);
    sim_guest_put(nvme.events, zero, SIM_PAGE);
    sim_guest_allow(nvme.events, SIM_PAGE, true);
    put_words(entry, nvme.shadows, 0, 0);
    memcpy(entry + SDC_NVME_SQE_PRP2, &nvme.events, 8);
    must(entry, 0);
    nvme.shadows_on = true;
    EVENT("driver: shadow doorbells at %llx, events at %llx", nvme.shadows, nvme.events);
}
