// SPDX-License-Identifier: BSD-3-Clause
// An NVMe driver: enables the controller, creates queues of any size that share completion queues, keeps them busy from one processor
// each, deletes and creates them while others go on, resets what it likes to, rings doorbells that it may not, and sleeps until an
// interrupt comes, so that one that is lost is noticed.
#include "nvme_command.h"

#include "device/nvme/nvme.h"
#include "wire/nvme.h"

#include <sidecard/block.h>

#include <errno.h>
#include <string.h>

enum {
    ENTRIES_MAX = 64,
    ADMIN_ENTRIES = 8,
    NONE = UINT32_MAX,
    CAP_MSIX = 0x11,
    MSIX_ENABLE = 1 << 15,
};

// A completion queue; number q of the tables below is queue q + 1 of the device, and the admin queue is the last.
struct cq {
    bool open;
    uint64_t iova;
    uint16_t size, head, told;
    bool phase;
    bool irqs; // it interrupts
    uint32_t vector;
    bool sleeping;
    bool irq;
    bool may_stall; // an entry may have been lost with the memory that it was sent to
};

struct sq {
    bool open; // it has memory
    bool live; // and may be used
    uint64_t iova;
    uint16_t size, tail, told, head;
    unsigned cq;
    struct nvme_command commands[ENTRIES_MAX];
    unsigned in_flight;
    unsigned burst; // commands until it waits for all
    bool kick_due;
};

enum { ADMIN = SIM_QUEUES };

static struct cq cqs[SIM_QUEUES + 1];
static struct sq sqs[SIM_QUEUES + 1];
static bool telling; // a processor is in the middle of that
static bool mapped; // doorbells are written to the page that the server lets clients map
static bool shadows_on;
static uint64_t shadows, events; // pages; 0: none
static uint64_t now;             // counts up with everything that a command does
static bool stopped;             // no new commands
static bool silent;              // the device may not interrupt
static bool may_break;           // a refused message may have cost the controller
static bool masked[SIM_QUEUES + 1];
static unsigned long ended;      // commands
static uint16_t admin_cid;

static struct sim_io *io(unsigned index)
{
    return index < plan.queues * ENTRIES_MAX ? &sqs[index / ENTRIES_MAX].commands[index % ENTRIES_MAX].io : NULL;
}

static unsigned id_of(unsigned q)
{
    return q == ADMIN ? 0 : q + 1;
}

// --- doorbells ---

// Writes the register, or the shadow and the register if the controller wants that.
static void tell(unsigned q, bool completions, uint16_t before, uint16_t value)
{
    uint64_t offset = 8 * id_of(q) + (completions ? 4 : 0);

    if (shadows_on && q != ADMIN) {
        sim_put32(shadows + offset, value);
        telling = true;
        sim_preempt();
        telling = false;
        uint16_t event = (uint16_t)sim_get32(events + offset);
        bool wanted = (uint16_t)(value - event - 1) < (uint16_t)(value - before);
        EVENT("driver: shadow of queue %llu, completions %llu, is %llu, rings %llu", id_of(q), completions, value, wanted);
        if (!wanted)
            return;
    } else {
        EVENT("driver: doorbell of queue %llu, completions %llu, is %llu, mapped %llu", id_of(q), completions, value, mapped);
    }
    if (mapped)
        __atomic_store_n((uint32_t *)(void *)(sim_mapped_page + offset), value, __ATOMIC_RELEASE);
    else
        sim_post_write(SDC_NVME_DOORBELLS + offset, 4, value);
}

static void kick(unsigned q)
{
    struct sq *sq = &sqs[q];
    uint16_t before = sq->told;

    sq->kick_due = false;
    sq->told = sq->tail;
    if (before != sq->tail)
        tell(q, false, before, sq->tail);
}

static void acknowledge(unsigned c)
{
    struct cq *cq = &cqs[c];
    uint16_t before = cq->told;

    cq->told = cq->head;
    if (before != cq->head)
        tell(c, true, before, cq->head);
}

// --- completions ---

static bool has_next(const struct cq *cq)
{
    return (sim_get16(cq->iova + (uint64_t)cq->head * SDC_NVME_CQE + SDC_NVME_CQE_STATUS) & 1) == cq->phase;
}

static struct nvme_command *find(struct sq *sq, uint16_t cid)
{
    for (unsigned i = 0; i < ENTRIES_MAX; i++) {
        if (sq->commands[i].io.busy && sq->commands[i].cid == cid)
            return &sq->commands[i];
    }
    return NULL;
}

static unsigned distance(const struct sq *sq, uint16_t from, uint16_t to)
{
    return (unsigned)(to + sq->size - from) % sq->size;
}

// Takes the next entry out. False: there is none.
static bool next_entry(unsigned c, uint16_t *cid, uint16_t *status, uint16_t *sq_id)
{
    struct cq *cq = &cqs[c];
    uint8_t entry[SDC_NVME_CQE];
    uint16_t head, word;

    if (!has_next(cq))
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
    unsigned q = *sq_id == 0 ? ADMIN : *sq_id - 1U;
    if (q > ADMIN || !sqs[q].open || sqs[q].cq != c)
        sim_fail("completion queue %u has an entry of queue %u", id_of(c), *sq_id);
    if (head >= sqs[q].size || distance(&sqs[q], sqs[q].head, head) > distance(&sqs[q], sqs[q].head, sqs[q].told))
        sim_fail("queue %u: the head is %u, after %u, with the tail at %u", *sq_id, head, sqs[q].head, sqs[q].told);
    sqs[q].head = head;
    return true;
}

static bool poll(unsigned c)
{
    uint16_t cid, status, id;

    if (!next_entry(c, &cid, &status, &id))
        return false;
    struct sq *sq = &sqs[id - 1];
    struct nvme_command *command = find(sq, cid);
    if (!command)
        sim_fail("command %u of queue %u is completed, which is not in flight", cid, id);
    sq->in_flight--;
    nvme_command_end(command, status, ++now);
    ended++;
    return true;
}

static void poll_some(unsigned c)
{
    unsigned most = sim_chance(1, 2) ? ENTRIES_MAX : sim_pick(1, 3);

    for (unsigned i = 0; i < most; i++) {
        if (!poll(c))
            break;
    }
    if (sim_chance(1, 2))
        acknowledge(c);
}

// --- submitting ---

static uint64_t oldest(void)
{
    uint64_t first = now;

    for (unsigned i = 0; i < plan.queues * ENTRIES_MAX; i++) {
        const struct sim_io *one = io(i);
        if (one->busy && one->op == SDC_BLOCK_READ && !one->may_be_old && one->invoked < first)
            first = one->invoked;
    }
    return first;
}

static struct nvme_command *free_command(struct sq *sq)
{
    for (unsigned i = 0; i < ENTRIES_MAX; i++) {
        if (!sq->commands[i].io.busy)
            return &sq->commands[i];
    }
    return NULL;
}

static void put_entry(struct sq *sq, const uint8_t entry[SDC_NVME_SQE])
{
    sim_guest_put(sq->iova + (uint64_t)sq->tail * SDC_NVME_SQE, entry, SDC_NVME_SQE);
    sq->tail = (uint16_t)((sq->tail + 1) % sq->size);
}

static bool submit_one(unsigned q)
{
    struct sq *sq = &sqs[q];
    struct nvme_command *command = free_command(sq);
    uint8_t entry[SDC_NVME_SQE];

    do // any, but for those that are in flight
        command->cid = (uint16_t)sim_random();
    while (find(sq, command->cid));
    if (!nvme_command_make(command, entry))
        return false;
    command->io.queue = id_of(q);
    sim_model_prune(oldest());
    nvme_command_begin(command, ++now);
    put_entry(sq, entry);
    sq->in_flight++;
    return true;
}

static bool has_room(const struct sq *sq)
{
    return sq->in_flight + 1U < sq->size;
}

static void submit(unsigned q)
{
    struct sq *sq = &sqs[q];
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

static bool may_submit(const struct sq *sq)
{
    return sq->live && !stopped && has_room(sq) && (sq->burst > 0 || sq->in_flight == 0);
}

static unsigned in_flight(unsigned c)
{
    unsigned count = 0;

    for (unsigned q = 0; q < plan.queues; q++)
        count += sqs[q].live && sqs[q].cq == c ? sqs[q].in_flight : 0;
    return count;
}

// One that does not interrupt is looked at again and again.
static bool may_poll(unsigned c)
{
    const struct cq *cq = &cqs[c];

    return cq->open && !silent && (cq->irq || (in_flight(c) > 0 && (!cq->sleeping || (!cq->irqs && has_next(cq)))));
}

static bool can_run(unsigned q)
{
    if (telling) // its queue is nobody else's business meanwhile
        return false;
    return (sqs[q].live && (sqs[q].kick_due || may_submit(&sqs[q]))) || may_poll(q);
}

// It kicks what it submitted, and acknowledges what it took: the controller owes it an interrupt for everything else.
static void go_to_sleep(unsigned c)
{
    for (unsigned q = 0; q < plan.queues; q++) {
        if (sqs[q].live && sqs[q].cq == c && sqs[q].kick_due)
            kick(q);
    }
    acknowledge(c);
    cqs[c].sleeping = !has_next(&cqs[c]);
    EVENT("driver: completion queue %llu: sleeps %llu", id_of(c), cqs[c].sleeping);
}

static void run_queue(unsigned q)
{
    struct sq *sq = &sqs[q];
    struct cq *cq = &cqs[q];

    if (cq->open && cq->irq) {
        cq->irq = cq->sleeping = false;
        poll_some(q);
    } else if (sq->live && sq->kick_due && sim_chance(1, 2)) {
        kick(q);
    } else if (may_submit(sq) && sim_chance(1, 2)) {
        if (sq->burst == 0)
            sq->burst = sim_pick(1, sim_chance(1, 2) ? 4 : 2U * sq->size);
        submit(q);
    } else if (may_poll(q)) {
        if (!has_next(cq) && sim_chance(1, 2))
            go_to_sleep(q);
        else
            cq->sleeping = false, poll_some(q);
    }
}

// --- what happens from outside ---

static void take_irq(uint32_t vector)
{
    bool wanted = vector == 0;

    EVENT("interrupt of vector %llu", vector);
    if (silent)
        sim_fail("an interrupt of vector %u after the reset", vector);
    if (masked[vector])
        sim_fail("an interrupt of vector %u, which is masked", vector);
    for (unsigned c = 0; c < plan.queues; c++) {
        if (!cqs[c].open || !cqs[c].irqs || cqs[c].vector != vector)
            continue;
        wanted = true;
        cqs[c].irq = true;
    }
    if (!wanted && !plan.masks) // one that was held back may come when its queue is gone
        sim_fail("an interrupt of vector %u, which no queue has", vector);
}

static void refused(void)
{
    may_break = true;
    for (unsigned i = 0; i < plan.queues * ENTRIES_MAX; i++)
        io(i)->may_fail = io(i)->may_be_old = true;
}

static bool overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
    return a < b + b_size && b < a + a_size;
}

static bool cq_touches(const struct cq *cq, uint64_t iova, uint64_t size)
{
    return cq->open && overlap(cq->iova, (uint64_t)cq->size * SDC_NVME_CQE, iova, size);
}

static bool rings_touch(uint64_t iova, uint64_t size)
{
    bool touches = false;

    for (unsigned c = 0; c <= ADMIN; c++)
        touches |= cq_touches(&cqs[c], iova, size);
    return touches;
}

static void moved(uint64_t iova, uint64_t size)
{
    for (unsigned q = 0; q <= ADMIN; q++) {
        cqs[q].may_stall |= plan.remote > 0 && cq_touches(&cqs[q], iova, size);
        for (unsigned i = 0; i < ENTRIES_MAX; i++) {
            struct nvme_command *command = &sqs[q].commands[i];
            if (!command->io.busy)
                continue;
            command->io.may_fail |= nvme_command_touches(command, iova, size);
            command->io.may_be_old |= cqs[sqs[q].cq].may_stall;
        }
    }
}

static void resized(uint64_t low)
{
    for (unsigned i = 0; i < plan.queues * ENTRIES_MAX; i++) {
        struct sim_io *one = io(i);
        for (unsigned r = 0; r < one->ranges_count; r++)
            one->may_fail |= one->ranges[r].sector + one->ranges[r].sectors > low;
    }
}

// --- memory of queues ---

static bool take_cq(unsigned c, unsigned size)
{
    struct cq *cq = &cqs[c];
    uint8_t zero[ENTRIES_MAX * SDC_NVME_CQE] = {0};

    *cq = (struct cq){.size = (uint16_t)size, .phase = true};
    if (!sim_guest_take(size * SDC_NVME_CQE, SIM_PAGE, true, &cq->iova))
        return false;
    sim_guest_put(cq->iova, zero, size * SDC_NVME_CQE);
    sim_guest_allow(cq->iova, size * SDC_NVME_CQE, true);
    cq->open = true;
    return true;
}

static void give_cq(unsigned c)
{
    struct cq *cq = &cqs[c];

    if (!cq->open)
        return;
    cq->open = false;
    sim_guest_allow(cq->iova, (uint32_t)cq->size * SDC_NVME_CQE, false);
    sim_guest_give(cq->iova, (uint32_t)cq->size * SDC_NVME_CQE);
}

static bool take_sq(unsigned q, unsigned size, unsigned c)
{
    struct sq *sq = &sqs[q];

    sq->size = (uint16_t)size;
    sq->tail = sq->told = sq->head = 0;
    sq->cq = c;
    sq->in_flight = sq->burst = 0;
    sq->kick_due = false;
    sq->open = sim_guest_take(size * SDC_NVME_SQE, SIM_PAGE, false, &sq->iova);
    return sq->open;
}

static void give_sq(unsigned q)
{
    struct sq *sq = &sqs[q];

    sq->live = false;
    if (!sq->open)
        return;
    sq->open = false;
    for (unsigned i = 0; i < ENTRIES_MAX; i++) {
        if (sq->commands[i].io.busy)
            nvme_command_drop(&sq->commands[i], ++now);
    }
    sim_guest_give(sq->iova, (uint32_t)sq->size * SDC_NVME_SQE);
}

static void give_shadows(void)
{
    if (events != 0) {
        sim_guest_allow(events, SIM_PAGE, false);
        sim_guest_give(events, SIM_PAGE);
        sim_guest_allow(shadows, SIM_PAGE, false);
    }
    if (shadows != 0)
        sim_guest_give(shadows, SIM_PAGE);
    shadows = events = 0;
    shadows_on = false;
}

static void lost(void)
{
    for (unsigned q = 0; q <= ADMIN; q++) {
        give_sq(q);
        give_cq(q);
    }
    give_shadows();
    sim_disk_forget_errors();
    may_break = false;
}

// --- admin commands ---

static uint32_t status(void)
{
    return (uint32_t)sim_register_read(SDC_NVME_CSTS, 4);
}

enum { UNANSWERED = 0xffff }; // the controller has failed, as it may

static bool has_failed(void)
{
    return may_break && status() & SDC_NVME_CSTS_CFS;
}

static uint16_t admin(uint8_t entry[SDC_NVME_SQE])
{
    uint16_t cid, result, id, mine = admin_cid++;

    if (!sim_guest_whole())
        sim_disk_unlock(); // what is in flight may wait for it, and memory for that
    sim_guest_map_all();
    memcpy(entry + SDC_NVME_SQE_CID, &mine, 2);
    put_entry(&sqs[ADMIN], entry);
    kick(ADMIN);
    EVENT("driver: admin command %llu of opcode %llu", mine, entry[0]);
    for (unsigned steps = 0; !has_next(&cqs[ADMIN]); steps++) {
        if (steps % 1000 == 999)
            sim_disk_unlock(); // what is in flight may wait for it, while others go on
        if ((sim_step() && steps < 100000) || has_next(&cqs[ADMIN]))
            continue;
        if (has_failed())
            return UNANSWERED;
        sim_fail("the admin command of opcode %#x is not answered", entry[0]);
    }
    if (!next_entry(ADMIN, &cid, &result, &id) || cid != mine || id != 0)
        sim_fail("admin command %u is completed, %u was under way", cid, mine);
    acknowledge(ADMIN);
    EVENT("driver: admin command %llu: status %llx", mine, result);
    return result;
}

static void must(uint8_t entry[SDC_NVME_SQE], uint16_t expected)
{
    uint8_t opcode = entry[0];
    uint16_t result = admin(entry);

    if (result != expected && !may_break)
        sim_fail("the admin command of opcode %#x ends with status %#x instead of %#x", opcode, result, expected);
}

static void put_words(uint8_t *entry, uint64_t prp1, uint32_t word10, uint32_t word11)
{
    memcpy(entry + SDC_NVME_SQE_PRP1, &prp1, 8);
    memcpy(entry + SDC_NVME_SQE_CDW10, &word10, 4);
    memcpy(entry + SDC_NVME_SQE_CDW11, &word11, 4);
}

static uint16_t set_feature(uint32_t feature, uint32_t value)
{
    uint8_t entry[SDC_NVME_SQE] = {SDC_NVME_ADMIN_SET_FEATURES};

    put_words(entry, 0, feature, value);
    return admin(entry);
}

// What is in the cache is written before it is off, which may fail; then it stays on.
static void set_cache(bool on)
{
    uint16_t result = set_feature(SDC_NVME_FEAT_WRITE_CACHE, on);

    if (result == 0)
        sim_disk_expect_fua(!on);
    else if (!may_break && !sim_disk_take_error(SDC_BLOCK_FLUSH, 0, 0))
        sim_fail("the cache cannot be switched: status %#x", result);
}

static void create_cq(unsigned c)
{
    uint8_t entry[SDC_NVME_SQE] = {SDC_NVME_ADMIN_CREATE_CQ};
    struct cq *cq = &cqs[c];

    if (!take_cq(c, sim_pick(2, plan.queue_size_max)))
        return;
    cq->irqs = sim_chance(7, 8);
    cq->vector = sim_chance(3, 4) ? c + 1 : sim_pick(0, plan.queues);
    put_words(entry, cq->iova, (cq->size - 1U) << 16 | id_of(c), cq->vector << 16 | (cq->irqs ? 2U : 0U) | 1U);
    must(entry, 0);
    EVENT("driver: completion queue %llu: %llu entries at %llx, interrupts %llu", id_of(c), cq->size, cq->iova, cq->irqs);
}

static unsigned choose_cq(void)
{
    for (unsigned tries = 0; tries < 8; tries++) {
        unsigned c = sim_below(plan.queues);
        if (cqs[c].open)
            return c;
    }
    return NONE;
}

static void create_sq(unsigned q)
{
    uint8_t entry[SDC_NVME_SQE] = {SDC_NVME_ADMIN_CREATE_SQ};
    unsigned c = sim_chance(1, 2) && cqs[q].open ? q : choose_cq();

    if (c == NONE || !take_sq(q, sim_pick(2, plan.queue_size_max), c))
        return;
    put_words(entry, sqs[q].iova, (sqs[q].size - 1U) << 16 | id_of(q), id_of(c) << 16 | 1U);
    if (shadows_on) {
        sim_put32(shadows + 8 * id_of(q), 0);
        sim_put32(events + 8 * id_of(q), 0);
    }
    must(entry, 0);
    sqs[q].live = true;
    EVENT("driver: queue %llu: %llu entries at %llx, completes to %llu", id_of(q), sqs[q].size, sqs[q].iova, id_of(c));
}

static void delete_sq(unsigned q)
{
    uint8_t entry[SDC_NVME_SQE] = {SDC_NVME_ADMIN_DELETE_SQ};
    unsigned c = sqs[q].cq;

    if (!sqs[q].live)
        return;
    EVENT("driver: deletes queue %llu", id_of(q));
    sqs[q].live = false;
    put_words(entry, 0, id_of(q), 0);
    must(entry, 0);
    sim_guest_check();
    while (poll(c)) // what was completed before
        continue;
    acknowledge(c);
    cqs[c].irq = true; // others may sleep for what was taken here
    give_sq(q);
    // Errors that its commands had cannot be told from others' now.
    for (unsigned i = 0; i < plan.queues * ENTRIES_MAX; i++)
        io(i)->may_fail = true;
    sim_disk_forget_errors();
}

static bool is_used(unsigned c)
{
    bool used = false;

    for (unsigned q = 0; q < plan.queues; q++)
        used |= sqs[q].open && sqs[q].cq == c;
    return used;
}

static void delete_cq(unsigned c)
{
    uint8_t entry[SDC_NVME_SQE] = {SDC_NVME_ADMIN_DELETE_CQ};

    if (!cqs[c].open)
        return;
    put_words(entry, 0, id_of(c), 0);
    must(entry, is_used(c) ? SDC_NVME_SC_QUEUE_IN_USE : 0);
    sim_guest_check();
    if (!is_used(c))
        give_cq(c);
}

static void use_shadows(void)
{
    uint8_t entry[SDC_NVME_SQE] = {SDC_NVME_ADMIN_DOORBELL_BUFFER};
    uint8_t zero[SIM_PAGE] = {0};

    if (plan.remote > 0 || !plan.event_idx_allowed || !sim_guest_take(SIM_PAGE, SIM_PAGE, true, &shadows))
        return;
    if (!sim_guest_take(SIM_PAGE, SIM_PAGE, true, &events)) {
        events = 0;
        return;
    }
    sim_guest_allow(shadows, SIM_PAGE, true); // a queue's are filled when the controller begins to look at them
    sim_guest_put(shadows, zero, SIM_PAGE);
    sim_guest_put(events, zero, SIM_PAGE);
    sim_guest_allow(events, SIM_PAGE, true);
    put_words(entry, shadows, 0, 0);
    memcpy(entry + SDC_NVME_SQE_PRP2, &events, 8);
    must(entry, 0);
    shadows_on = true;
    EVENT("driver: shadow doorbells at %llx, events at %llx", shadows, events);
}

// --- bringing it up ---

static void await(uint32_t mask, uint32_t value, const char *what)
{
    for (unsigned tries = 0; (status() & mask) != value; tries++) {
        if (tries > 10000)
            sim_fail("%s does not come: CSTS %#x", what, status());
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
    if (!take_cq(ADMIN, ADMIN_ENTRIES) || !take_sq(ADMIN, ADMIN_ENTRIES, ADMIN)) {
        EVENT("driver: no memory for an admin queue");
        give_cq(ADMIN);
        return;
    }
    sim_register_write(SDC_NVME_AQA, 4, (ADMIN_ENTRIES - 1) << 16 | (ADMIN_ENTRIES - 1));
    sim_register_write(SDC_NVME_ASQ, 8, sqs[ADMIN].iova);
    sim_register_write(SDC_NVME_ACQ, 8, cqs[ADMIN].iova);
    silent = false;
    mapped = sim_mapped_page && sim_chance(2, 3);
    sim_register_write(SDC_NVME_CC, 4, SDC_NVME_CC_EN | SDC_NVME_SQES << SDC_NVME_CC_IOSQES | SDC_NVME_CQES << SDC_NVME_CC_IOCQES);
    await(SDC_NVME_CSTS_RDY, SDC_NVME_CSTS_RDY, "readiness");
    if (set_feature(SDC_NVME_FEAT_QUEUES, (plan.queues - 1) << 16 | (plan.queues - 1)) != 0 && !may_break)
        sim_fail("the number of queues is refused");
    sim_disk_expect_fua(!plan.write_cache);
    set_cache(sim_chance(1, 2));
    if (sim_chance(1, 4)) // interrupts may wait for some others, up to 300 us
        set_feature(SDC_NVME_FEAT_COALESCING, sim_pick(1, 3) << 8 | sim_below(8));
    if (sim_chance(1, 4))
        use_shadows();
    for (unsigned q = 0; q < plan.queues; q++)
        create_cq(q);
    for (unsigned q = 0; q < plan.queues; q++)
        create_sq(q);
}

// --- resets ---

static void leave(void)
{
    for (unsigned q = 0; q < plan.queues; q++)
        sqs[q].live = false;
    for (unsigned c = 0; c < plan.queues; c++)
        cqs[c].sleeping = true, cqs[c].irq = false;
}

static void was_reset(void)
{
    silent = true;
    sim_guest_check();
    lost();
    if (sim_disk_queues() > 0)
        sim_fail("the reset is over with %u of the backend's queues open", sim_disk_queues());
}

// A disk that somebody else has locked keeps it waiting; a driver loses its patience then.
static void shut_down(void)
{
    for (unsigned tries = 0; (status() & SDC_NVME_CSTS_SHST) != SDC_NVME_CSTS_SHST_DONE; tries++) {
        if (tries > 200 && sim_disk_locked())
            return;
        if (tries > 10000)
            sim_fail("the shutdown does not end: CSTS %#x", status());
    }
}

static void reset_by_cc(void)
{
    EVENT("driver: disables the controller");
    leave();
    // What is in flight is lost, and a flush at the shutdown has errors of its own.
    for (unsigned i = 0; i < plan.queues * ENTRIES_MAX; i++)
        io(i)->may_fail = true;
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
    sim_client_close();
    memset(masked, 0, sizeof masked);
    silent = true;
    if (sim_disk_queues() > 0)
        sim_fail("the session is over with %u of the backend's queues open", sim_disk_queues());
    sim_client_open();
    sim_set_irqs(plan.queues + 1);
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

static void unmask_all(void)
{
    for (uint32_t i = 0; i <= plan.queues; i++) {
        if (!masked[i])
            continue;
        masked[i] = false;
        sim_mask_irq(i, false);
    }
}

static void settle(void)
{
    for (unsigned steps = 0; sim_step(); steps++) {
        if (steps > 100000)
            sim_fail("commands do not come to an end");
    }
}

static bool is_broken(void)
{
    bool broken = status() & SDC_NVME_CSTS_CFS;

    if (broken && !may_break)
        sim_fail("the controller has failed without a reason");
    for (unsigned q = 0; q < plan.queues; q++) {
        const struct sq *sq = &sqs[q];
        if (!sq->live || sq->in_flight == 0)
            continue;
        if (!broken && !may_break && !cqs[sq->cq].may_stall)
            sim_fail("queue %u: stall: %u commands in flight, %s", id_of(q), sq->in_flight,
                     has_next(&cqs[sq->cq]) ? "some are completed: an interrupt is lost" : "and nobody does anything");
        broken = true;
    }
    return broken;
}

static void drain(void)
{
    EVENT("driver: drains");
    stopped = true;
    unmask_all();
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
    stopped = false;
}

// --- whatever else a driver and its VMM do ---

static void mask_something(void)
{
    uint32_t vector = sim_below(plan.queues + 1);

    if (!plan.masks || silent)
        return;
    if (!masked[vector]) {
        sim_mask_irq(vector, true);
        masked[vector] = true;
        EVENT("client: masked vector %llu", vector);
    } else {
        masked[vector] = false;
        sim_mask_irq(vector, false);
    }
}

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

    if (plan.malformed == 0 || silent)
        return;
    EVENT("driver: rings wrongly");
    if (sim_chance(1, 2) && sqs[q].live && !shadows_on)
        sim_post_write(SDC_NVME_DOORBELLS + 8 * id_of(q), 4, sqs[q].size + sim_below(1 << 20));
    else
        sim_post_write(SDC_NVME_DOORBELLS + 8 * (plan.queues + 1) + 4 * sim_below(100), 4, sim_random() & UINT32_MAX);
}

static void change_queue(unsigned q)
{
    if (silent || !sqs[ADMIN].open || has_failed())
        return;
    delete_sq(q);
    if (sim_chance(1, 2)) {
        delete_cq(sim_below(plan.queues));
        for (unsigned c = 0; c < plan.queues; c++) {
            if (!cqs[c].open)
                create_cq(c);
        }
    }
    if (!sqs[q].open && sim_chance(7, 8))
        create_sq(q);
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
        mask_something();
        break;
    case 7:
        resize();
        break;
    case 8:
        drain();
        if (sqs[ADMIN].open && !has_failed())
            set_cache(sim_chance(1, 2));
        stopped = false;
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
        if (may_break && status() & SDC_NVME_CSTS_CFS)
            restart();
        break;
    }
}

// --- life ---

static unsigned long commands_done(void)
{
    return ended;
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
    memset(cqs, 0, sizeof cqs);
    memset(sqs, 0, sizeof sqs);
    memset(masked, 0, sizeof masked);
    telling = false;
    nvme_commands_begin();
    shadows = events = 0;
    now = 0;
    stopped = may_break = shadows_on = false;
    silent = true;
    admin_cid = 0;
}

const struct sim_driver sim_nvme_driver = {
    .name = "nvme",
    .bar = 0,
    .ios_max = SIM_QUEUES * ENTRIES_MAX,
    .io = io,
    .make_card = make_card,
    .start = start,
    .restless = restless,
    .can_run = can_run,
    .run = run_queue,
    .drain = drain_all,
    .leave = leave,
    .lost = lost,
    .irq = take_irq,
    .refused = refused,
    .rings_touch = rings_touch,
    .moved = moved,
    .resized = resized,
    .requests = commands_done,
};
