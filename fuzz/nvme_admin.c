// SPDX-License-Identifier: BSD-3-Clause
// Admin commands to an NVMe controller whose namespaces come and go: Identify, features, logs, events, aborts, queues. The driver is honest
// about its queue, and may ask for anything: every command but a request for events ends, once, and the controller does not fail.
#include "base/check.h"
#include "card.h"
#include "input.h"
#include "wire/nvme.h"

enum {
    ENTRIES = 16, // of each queue
    IDS = 64,     // of commands
    ADMIN_SQ = 0,
    ADMIN_CQ = 1 * FUZZ_PAGE,
    QUEUES_PAGE = 2, // I/O queues lie here,
    DATA_PAGE = 6,   // and data from here on
    BAR = 0,
    PATIENCE = 2000,
    NAMESPACES = 6,
    REQUESTS = 4, // for events, that the controller holds
};

struct course {
    struct fuzz_card card;
    struct fuzz_memory memory;
    uint16_t tail, head;
    bool phase;
    unsigned unseen;                 // commands since the last kick
    bool in_flight[IDS];
    uint8_t opcodes[IDS];
};

// --- the queue ---

static bool holds(const struct course *course, unsigned cid)
{
    return course->opcodes[cid] == SDC_NVME_ADMIN_ASYNC_EVENT;
}

static void look(struct course *course)
{
    for (unsigned i = 0; i < ENTRIES; i++) {
        const uint8_t *entry = fuzz_memory_at(&course->memory, ADMIN_CQ + SDC_NVME_CQE * (uint64_t)course->head);
        if ((sdc_get16(entry + SDC_NVME_CQE_STATUS) & 1) != course->phase)
            return;
        uint16_t cid = sdc_get16(entry + SDC_NVME_CQE_CID);
        fuzz_check(cid < IDS && course->in_flight[cid], "a command ends that was not on its way");
        fuzz_check(sdc_get16(entry + SDC_NVME_CQE_SQID) == 0, "a command ends that came by another queue");
        course->in_flight[cid] = false;
        course->head = (uint16_t)((course->head + 1) % ENTRIES);
        course->phase ^= course->head == 0;
        fuzz_card_write(&course->card, BAR, SDC_NVME_DOORBELLS + 4, 4, course->head);
    }
}

static bool has_ended(void *context)
{
    struct course *course = context;
    unsigned held = 0;

    look(course);
    for (unsigned cid = 0; cid < IDS; cid++) {
        if (course->in_flight[cid] && !holds(course, cid))
            return false;
        held += course->in_flight[cid];
    }
    return held <= REQUESTS;
}

static void kick(struct course *course)
{
    fuzz_card_write(&course->card, BAR, SDC_NVME_DOORBELLS, 4, course->tail);
    fuzz_check(fuzz_turns(PATIENCE, has_ended, course), "commands don't end");
    fuzz_check(!(fuzz_card_read(&course->card, BAR, SDC_NVME_CSTS, 4) & SDC_NVME_CSTS_CFS), "the controller fails");
    course->unseen = 0;
}

static void put(struct course *course, uint8_t entry[SDC_NVME_SQE])
{
    unsigned cid = 0;

    if (course->unseen == ENTRIES - 1)
        kick(course);
    while (course->in_flight[cid]) // at most ENTRIES are unseen, and REQUESTS held
        cid++;
    sdc_put16(entry + SDC_NVME_SQE_CID, (uint16_t)cid);
    course->in_flight[cid] = true;
    course->opcodes[cid] = entry[SDC_NVME_SQE_OPCODE];
    fuzz_memory_poke(&course->memory, ADMIN_SQ + SDC_NVME_SQE * (uint64_t)course->tail, entry, SDC_NVME_SQE);
    course->tail = (uint16_t)((course->tail + 1) % ENTRIES);
    course->unseen++;
}

// --- bring-up ---

static bool is_ready(void *context)
{
    struct course *course = context;

    return fuzz_card_read(&course->card, BAR, SDC_NVME_CSTS, 4) & SDC_NVME_CSTS_RDY;
}

static bool is_off(void *context)
{
    return !is_ready(context);
}

static bool is_shut_down(void *context)
{
    struct course *course = context;

    return (fuzz_card_read(&course->card, BAR, SDC_NVME_CSTS, 4) & SDC_NVME_CSTS_SHST) == SDC_NVME_CSTS_SHST_DONE;
}

// how: 1: with a shutdown before, 2: with a reset of the function, whatever is under way.
static void start(struct course *course, uint8_t how)
{
    static const uint8_t zeroes[FUZZ_PAGE];
    uint32_t cc = SDC_NVME_CC_EN | SDC_NVME_SQES << SDC_NVME_CC_IOSQES | SDC_NVME_CQES << SDC_NVME_CC_IOCQES;

    if (how & 1) {
        fuzz_card_write(&course->card, BAR, SDC_NVME_CC, 4, cc | 1 << SDC_NVME_CC_SHN);
        fuzz_check(fuzz_turns(PATIENCE, is_shut_down, course), "the controller is not shut down");
    }
    if (how & 2) {
        course->card.pci->ops->reset(course->card.pci);
        fuzz_card_settle(&course->card);
    }
    fuzz_card_write(&course->card, BAR, SDC_NVME_CC, 4, 0);
    fuzz_check(fuzz_turns(PATIENCE, is_off, course), "the controller is not disabled");
    memset(course->in_flight, 0, sizeof course->in_flight);
    course->tail = course->head = 0;
    course->phase = true;
    course->unseen = 0;
    fuzz_memory_poke(&course->memory, ADMIN_CQ, zeroes, sizeof zeroes);
    fuzz_card_write(&course->card, BAR, SDC_NVME_AQA, 4, (ENTRIES - 1) << 16 | (ENTRIES - 1));
    fuzz_card_write(&course->card, BAR, SDC_NVME_ASQ, 8, ADMIN_SQ);
    fuzz_card_write(&course->card, BAR, SDC_NVME_ACQ, 8, ADMIN_CQ);
    fuzz_card_write(&course->card, BAR, SDC_NVME_CC, 4, cc);
    fuzz_check(fuzz_turns(PATIENCE, is_ready, course), "the controller is not enabled");
}

// --- commands ---

static uint64_t address(struct fuzz_input *input)
{
    uint8_t page = fuzz_u8(input);

    if (page == 0xff)
        return UINT64_C(1) << 40 | fuzz_u16(input);
    return (DATA_PAGE + (uint64_t)page % (FUZZ_PAGES - DATA_PAGE)) * FUZZ_PAGE + (page & 0x80 ? fuzz_u8(input) * 4U : 0);
}

static const uint8_t opcodes[] = {
    SDC_NVME_ADMIN_IDENTIFY, SDC_NVME_ADMIN_GET_LOG_PAGE, SDC_NVME_ADMIN_SET_FEATURES, SDC_NVME_ADMIN_GET_FEATURES,
    SDC_NVME_ADMIN_ASYNC_EVENT, SDC_NVME_ADMIN_ABORT, SDC_NVME_ADMIN_KEEP_ALIVE, SDC_NVME_ADMIN_CREATE_CQ, SDC_NVME_ADMIN_CREATE_SQ,
    SDC_NVME_ADMIN_DELETE_SQ, SDC_NVME_ADMIN_DELETE_CQ, SDC_NVME_ADMIN_DOORBELL_BUFFER,
};

// A queue of the driver's that is most likely a good one.
static void put_queue(struct fuzz_input *input, uint8_t entry[SDC_NVME_SQE])
{
    uint8_t id = fuzz_u8(input);
    bool completion = entry[SDC_NVME_SQE_OPCODE] == SDC_NVME_ADMIN_CREATE_CQ;

    sdc_put64(entry + SDC_NVME_SQE_PRP1, (QUEUES_PAGE + (uint64_t)(id & 1) * 2 + completion) * FUZZ_PAGE);
    sdc_put32(entry + SDC_NVME_SQE_CDW10, (ENTRIES - 1) << 16 | (id & 3));
    sdc_put32(entry + SDC_NVME_SQE_CDW11, 1 | (completion ? 0 : (uint32_t)(id & 3) << 16));
}

// Lists of pages would lead data anywhere, into the queue too, which is no honest driver's: logs are short, or longer than is allowed.
static void keep_from_lists(uint8_t entry[SDC_NVME_SQE])
{
    uint32_t cdw10 = sdc_get32(entry + SDC_NVME_SQE_CDW10), cdw11 = sdc_get32(entry + SDC_NVME_SQE_CDW11);

    if (entry[SDC_NVME_SQE_OPCODE] != SDC_NVME_ADMIN_GET_LOG_PAGE)
        return;
    sdc_put32(entry + SDC_NVME_SQE_CDW10, cdw10 & UINT32_C(0x03ffffff));
    if (cdw11 & 0xffff)
        sdc_put32(entry + SDC_NVME_SQE_CDW11, cdw11 | 0x10);
}

// how: bits 3:0 the command, 4: all words by chance, 5: an NSID, 6: a flag, 7: an opcode by chance.
static void command(struct course *course, struct fuzz_input *input)
{
    uint8_t how = fuzz_u8(input);
    uint8_t entry[SDC_NVME_SQE] = {how & 0x80 ? fuzz_u8(input) : opcodes[(how & 15) % SDC_COUNT(opcodes)]};
    uint8_t opcode = entry[SDC_NVME_SQE_OPCODE];

    if (how & 0x40)
        entry[SDC_NVME_SQE_FLAGS] = fuzz_u8(input);
    if (how & 0x20)
        sdc_put32(entry + SDC_NVME_SQE_NSID, (uint32_t)(int8_t)fuzz_u8(input));
    if (how & 0x10) {
        for (unsigned i = SDC_NVME_SQE_CDW10; i < SDC_NVME_SQE; i += 4)
            sdc_put32(entry + i, fuzz_u32(input));
    } else if (opcode == SDC_NVME_ADMIN_CREATE_CQ || opcode == SDC_NVME_ADMIN_CREATE_SQ) {
        put_queue(input, entry);
    } else {
        // An identifier and what goes with it; how much, or a value; where in a log.
        sdc_put32(entry + SDC_NVME_SQE_CDW10, fuzz_u8(input) | (uint32_t)fuzz_u16(input) << 8);
        sdc_put32(entry + SDC_NVME_SQE_CDW11, opcode == SDC_NVME_ADMIN_GET_LOG_PAGE ? 0 : fuzz_u16(input));
        sdc_put32(entry + SDC_NVME_SQE_CDW12, opcode == SDC_NVME_ADMIN_GET_LOG_PAGE ? fuzz_u8(input) * 4U : 0);
    }
    if (opcode != SDC_NVME_ADMIN_CREATE_CQ && opcode != SDC_NVME_ADMIN_CREATE_SQ) {
        sdc_put64(entry + SDC_NVME_SQE_PRP1, address(input));
        sdc_put64(entry + SDC_NVME_SQE_PRP2, address(input));
    }
    // The temperature and the rest may be set; a timer that ends the controller is not, since nobody knows how long a run takes.
    if (opcode == SDC_NVME_ADMIN_SET_FEATURES && entry[SDC_NVME_SQE_CDW10] == SDC_NVME_FEAT_KEEP_ALIVE)
        sdc_put32(entry + SDC_NVME_SQE_CDW11, UINT32_MAX / 2 | (uint32_t)fuzz_u8(input) << 24);
    keep_from_lists(entry);
    put(course, entry);
}

// --- namespaces ---

// Those whose bits are set are there from now on; bit 7: on other backends.
static void change_namespaces(struct course *course, uint8_t wanted)
{
    static const char *const names[2][NAMESPACES] = {{"ram:64k", "ram:128k", "null:1M", "ram:4k", "null:8k", "ram:64k"},
                                                     {"ram:32k", "null:128k", "ram:1M", "null:4k", "ram:8k", "null:64k"}};
    struct sdc_card_backend backends[NAMESPACES];
    struct sdc_card_options options = {.shadow_doorbells = true, .backends = backends};

    for (unsigned i = 0; i < NAMESPACES; i++) {
        if (wanted >> i & 1)
            backends[options.backends_count++] = (struct sdc_card_backend){
                .name = names[wanted >> 7][i], .nsid = i + 1, .options = {.block_size = wanted & 0x40 ? 4096 : 512}};
    }
    course->card.card->reload(course->card.card, &options, NULL);
    if (wanted & 0x20)
        course->card.card->refresh(course->card.card);
}

// --- the course ---

static void do_one(struct course *course, struct fuzz_input *input)
{
    switch (fuzz_u8(input) % 10) {
    case 0:
    case 1:
    case 2:
    case 3:
    case 4:
        command(course, input);
        break;
    case 5:
    case 6:
        kick(course);
        break;
    case 7:
        change_namespaces(course, fuzz_u8(input));
        break;
    case 8: // of queues that are there, and that are not
        fuzz_card_write(&course->card, BAR, SDC_NVME_DOORBELLS + 8 + 4 * (uint64_t)(fuzz_u8(input) % 64), 4, fuzz_u16(input));
        break;
    case 9:
        start(course, fuzz_u8(input));
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    struct course course = {0};

    fuzz_memory_init(&course.memory);
    fuzz_memory_add(&course.memory, 0, 0, FUZZ_PAGES, SDC_ACCESS_READ | SDC_ACCESS_WRITE);
    fuzz_card_open_device(&course.card, "nvme", 2, ENTRIES);
    struct sdc_map *map = fuzz_memory_publish(&course.memory);
    fuzz_card_set_map(&course.card, map);
    sdc_map_unref(map);
    start(&course, 0);
    for (unsigned i = 0; i < 96 && fuzz_more(&input); i++)
        do_one(&course, &input);
    kick(&course);
    fuzz_card_close(&course.card);
    fuzz_memory_destroy(&course.memory);
    return 0;
}
