// SPDX-License-Identifier: BSD-3-Clause
// An NVMe driver: enables the controller, creates its queues, resets what it likes to, rings doorbells that it may not, and does whatever
// else drivers and their VMMs do.
#include "nvme_driver.h"

#include "device/nvme/nvme.h"

#include <sidecard/block.h>

#include <errno.h>
#include <string.h>

enum { ADMIN_ENTRIES = 8, CAP_MSIX = 0x11, MSIX_ENABLE = 1 << 15 };

// --- bringing it up ---

static void await(uint32_t mask, uint32_t value, const char *what)
{
    for (unsigned tries = 0; (nvme_driver_status() & mask) != value; tries++) {
        if (tries > 10000)
            sim_fail("%s does not come: CSTS %#x", what, nvme_driver_status());
    }
}

static void enable_msix(void)
{
    const uint8_t *config = sim_card->config;
    uint8_t at = config[0x34];

    while (at != 0 && config[at] != CAP_MSIX)
        at = config[at + 1];
    sim_config_write(at + 2U, 2, MSIX_ENABLE | plan.queues);
}

static void start(void)
{
    EVENT("driver: starts");
    sim_guest_map_all();
    enable_msix();
    if (!nvme_driver_take_cq(NVME_ADMIN_PLACE, ADMIN_ENTRIES) || !nvme_driver_take_sq(NVME_ADMIN_PLACE, ADMIN_ENTRIES, NVME_ADMIN_PLACE)) {
        EVENT("driver: no memory for an admin queue");
        nvme_driver_give_cq(NVME_ADMIN_PLACE);
        return;
    }
    sim_register_write(SDC_NVME_AQA, 4, (ADMIN_ENTRIES - 1) << 16 | (ADMIN_ENTRIES - 1));
    sim_register_write(SDC_NVME_ASQ, 8, nvme.sqs[NVME_ADMIN_PLACE].iova);
    sim_register_write(SDC_NVME_ACQ, 8, nvme.cqs[NVME_ADMIN_PLACE].iova);
    nvme.silent = false;
    nvme.mapped = sim_mapped_page && sim_chance(2, 3);
    sim_register_write(SDC_NVME_CC, 4, SDC_NVME_CC_EN | SDC_NVME_SQES << SDC_NVME_CC_IOSQES | SDC_NVME_CQES << SDC_NVME_CC_IOCQES);
    await(SDC_NVME_CSTS_RDY, SDC_NVME_CSTS_RDY, "readiness");
    if (nvme_driver_set_feature(SDC_NVME_FEAT_QUEUES, (plan.queues - 1) << 16 | (plan.queues - 1)) != 0 && !nvme.may_break)
        sim_fail("the number of queues is refused");
    sim_disk_expect_fua(!plan.write_cache);
    nvme_driver_set_cache(sim_chance(1, 2));
    if (sim_chance(1, 4)) // interrupts may wait for some others, up to 300 us
        nvme_driver_set_feature(SDC_NVME_FEAT_COALESCING, sim_pick(1, 3) << 8 | sim_below(8));
    if (sim_chance(1, 4))
        nvme_driver_use_shadows();
    for (unsigned q = 0; q < plan.queues; q++)
        nvme_driver_create_cq(q);
    for (unsigned q = 0; q < plan.queues; q++)
        nvme_driver_create_sq(q);
}

// --- resets ---

static void leave(void)
{
    for (unsigned q = 0; q < plan.queues; q++)
        nvme.sqs[q].live = false;
    for (unsigned c = 0; c < plan.queues; c++)
        nvme.cqs[c].sleeping = true, nvme.cqs[c].irq = false;
}

static void was_reset(void)
{
    nvme.silent = true;
    sim_guest_check();
    nvme_driver_lost();
    if (sim_disk_queues() > 0)
        sim_fail("the reset is over with %u of the backend's queues open", sim_disk_queues());
}

// A disk that somebody else has locked keeps it waiting; a driver loses its patience then.
static void shut_down(void)
{
    for (unsigned tries = 0; (nvme_driver_status() & SDC_NVME_CSTS_SHST) != SDC_NVME_CSTS_SHST_DONE; tries++) {
        if (tries > 200 && sim_disk_locked())
            return;
        if (tries > 10000)
            sim_fail("the shutdown does not end: CSTS %#x", nvme_driver_status());
    }
}

static void reset_by_cc(void)
{
    EVENT("driver: disables the controller");
    leave();
    // What is in flight is lost, and a flush at the shutdown has errors of its own.
    for (unsigned i = 0; i < plan.queues * NVME_ENTRIES_MAX; i++)
        nvme_driver_io(i)->may_fail = true;
    if (sim_chance(1, 2)) {
        sim_register_write(SDC_NVME_CC, 4, sim_register_read(SDC_NVME_CC, 4) | sim_pick(1, 2) << SDC_NVME_CC_SHN);
        shut_down();
    }
    sim_register_write(SDC_NVME_CC, 4, 0);
    await(SDC_NVME_CSTS_RDY, 0, "the end of the reset");
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
    await(SDC_NVME_CSTS_RDY, 0, "the end of DEVICE_RESET");
    was_reset();
    start();
}

static void reconnect(void)
{
    nvme.silent = true;
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
        reset_by_cc();
        break;
    }
}

// --- draining ---

static void settle(void)
{
    for (unsigned steps = 0; sim_step(); steps++) {
        if (steps > 100000)
            sim_fail("commands do not come to an end");
    }
}

static bool is_broken(void)
{
    bool broken = nvme_driver_status() & SDC_NVME_CSTS_CFS;

    if (broken && !nvme.may_break)
        sim_fail("the controller has failed without a reason");
    for (unsigned q = 0; q < plan.queues; q++) {
        const struct nvme_driver_sq *sq = &nvme.sqs[q];
        if (!sq->live || sq->in_flight == 0)
            continue;
        if (!broken && !nvme.may_break && !nvme.cqs[sq->cq].may_stall)
            sim_fail("queue %u: stall: %u commands in flight, %s", nvme_driver_queue_id(q), sq->in_flight,
                     nvme_driver_has_next(&nvme.cqs[sq->cq]) ? "some are completed: an interrupt is lost" : "and nobody does anything");
        broken = true;
    }
    return broken;
}

static void drain(void)
{
    EVENT("driver: drains");
    nvme.stopped = true;
    sim_unmask_irqs();
    sim_guest_map_all();
    sim_disk_unlock();
    settle();
    if (sim_disk_requests() > 0 || sim_client_can_answer())
        sim_fail("something is under way that nobody goes on with");
    if (is_broken())
        restart();
}

static void drain_all(void)
{
    drain();
    nvme.stopped = false;
}

// --- whatever else a driver and its VMM do ---

static void resize(void)
{
    if (!plan.resizes || sim_loop_in_turn(0))
        return;
    sim_disk_resize();
    sim_home_enter();
    sdc_nvme_refresh(sim_card);
    sim_home_leave();
}

// A doorbell that no queue has, or a value that none can have: nothing comes of it.
static void ring_wrongly(void)
{
    unsigned q = sim_below(plan.queues);

    if (plan.malformed == 0 || nvme.silent)
        return;
    EVENT("driver: rings wrongly");
    if (sim_chance(1, 2) && nvme.sqs[q].live && !nvme.shadows_on)
        sim_post_write(SDC_NVME_DOORBELLS + 8 * nvme_driver_queue_id(q), 4, nvme.sqs[q].size + sim_below(1 << 20));
    else
        sim_post_write(SDC_NVME_DOORBELLS + 8 * (plan.queues + 1) + 4 * sim_below(100), 4, sim_random() & UINT32_MAX);
}

static void change_queue(unsigned q)
{
    if (nvme.silent || !nvme.sqs[NVME_ADMIN_PLACE].open || nvme_driver_has_failed())
        return;
    nvme_driver_delete_sq(q);
    if (sim_chance(1, 2)) {
        nvme_driver_delete_cq(sim_below(plan.queues));
        for (unsigned c = 0; c < plan.queues; c++) {
            if (!nvme.cqs[c].open)
                nvme_driver_create_cq(c);
        }
    }
    if (!nvme.sqs[q].open && sim_chance(7, 8))
        nvme_driver_create_sq(q);
}

static void restless(void)
{
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
        if (!nvme.silent)
            sim_mask_some_irq();
        break;
    case 7:
        resize();
        break;
    case 8:
        drain();
        if (nvme.sqs[NVME_ADMIN_PLACE].open && !nvme_driver_has_failed())
            nvme_driver_set_cache(sim_chance(1, 2));
        nvme.stopped = false;
        break;
    case 9:
    case 10:
    case 11:
        change_queue(sim_below(plan.queues));
        break;
    case 12:
    case 13:
        ring_wrongly();
        break;
    case 14:
    case 15:
        restart();
        break;
    case 16:
        drain_all();
        break;
    case 17:
        sim_disk_unlock(); // others, which never rest, would keep whoever waits for it waiting
        break;
    default:
        if (nvme.may_break && nvme_driver_status() & SDC_NVME_CSTS_CFS)
            restart();
        break;
    }
}

// --- life ---

static unsigned long commands_done(void)
{
    return nvme.ended;
}

static void make_card(struct sdc_block *block, struct sdc_loop *const *loops)
{
    struct sdc_nvme_options options = {.queues = (uint16_t)plan.queues,
                                       .depth = plan.queue_size_max,
                                       .vectors = (uint16_t)(plan.queues + 1),
                                       .poll = (enum sdc_poll_mode)plan.poll,
                                       .poll_max_ns = plan.poll_max_us * UINT64_C(1000),
                                       .shadow_doorbells = true,
                                       .write_cache = plan.write_cache,
                                       .serial = "walk"};

    sim_mapped_page = NULL; // a walk that failed leaves its own
    if (sdc_nvme_new(&options, loops, plan.loops, &sim_card, NULL) < 0 || sdc_nvme_namespace_new(sim_card, 1, block, "walk", NULL) < 0)
        sim_fail("the card cannot be made");
    unsigned long ended = nvme.ended;
    memset(&nvme, 0, sizeof nvme);
    nvme.ended = ended;
    nvme.silent = true;
    nvme_commands_begin();
}

const struct sim_driver sim_nvme_driver = {
    .name = "nvme",
    .bar = 0,
    .ios_max = SIM_QUEUES * NVME_ENTRIES_MAX,
    .io = nvme_driver_io,
    .make_card = make_card,
    .start = start,
    .restless = restless,
    .can_run = nvme_driver_can_run,
    .run = nvme_driver_run,
    .drain = drain_all,
    .leave = leave,
    .lost = nvme_driver_lost,
    .irq = nvme_driver_irq,
    .refused = nvme_driver_refused,
    .rings_touch = nvme_driver_rings_touch,
    .moved = nvme_driver_moved,
    .resized = nvme_driver_resized,
    .requests = commands_done,
};
