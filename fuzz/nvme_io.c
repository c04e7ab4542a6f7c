// SPDX-License-Identifier: BSD-3-Clause
// I/O commands to an NVMe controller, from the queue to the backend and back, by a driver that is honest until it is not. While it is
// honest every command ends, with any status, once; afterwards the controller may fail, but it has to end its work and let go of memory.
// Some of the memory may be remote.
#include "base/check.h"
#include "card.h"
#include "input.h"
#include "transport/common/remote.h"
#include "wire/nvme.h"

#include <errno.h>

enum {
    ENTRIES = 16, // of each queue
    // Where an honest driver has its things.
    ADMIN_SQ = 0,
    ADMIN_CQ = 1 * FUZZ_PAGE,
    SQ = 2 * FUZZ_PAGE,
    CQ = 3 * FUZZ_PAGE,
    DATA_PAGE = 4, // from here on there is data, and lists
    BAR = 0,
    PATIENCE = 2000, // turns: an honest driver's commands have ended by then
};

struct queue {
    uint64_t sq, cq;
    uint16_t id;
    uint16_t tail, head;
    bool phase;
    uint16_t submitted, completed;
    bool in_flight[ENTRIES]; // by command identifier
};

struct course {
    struct fuzz_card card;
    struct fuzz_memory memory;
    struct sdc_remote remote;
    uint8_t remote_regions; // a bit for each, the lowest first
    uint8_t refused;        // transfers to come that the client refuses, a bit each
    struct queue admin, io;
    struct queue *kicked; // the one that is waited for
    bool honest;
};

// --- the client's memory ---

static void begin_transfer(struct sdc_remote *remote, struct sdc_transfer *transfer)
{
    struct course *course = sdc_container(remote, struct course, remote);
    int result = course->refused & 1 ? -EIO : 0;

    course->refused >>= 1;
    for (uint32_t i = 0; i < transfer->size; i++) {
        uint8_t *byte = fuzz_memory_at(&course->memory, transfer->iova + i);
        if (!byte)
            result = -EFAULT;
        else if (transfer->write)
            *byte = transfer->data[i];
        else
            transfer->data[i] = *byte;
    }
    sdc_transfer_finish(transfer, result);
}

// The regions but for those whose bit is set in `missing`.
static void show_memory(struct course *course, uint8_t missing)
{
    struct sdc_region_table table = {0};
    const struct sdc_regions *regions = &course->memory.table.regions;
    const struct sdc_region *region = sdc_regions_past(regions, 0);

    for (uint8_t bit = 1; region; region = sdc_regions_next(regions, region), bit = (uint8_t)(bit << 1)) {
        struct sdc_region shown = *region;
        if (course->remote_regions & bit)
            shown.host = NULL;
        if (!(missing & bit))
            sdc_region_table_add(&table, &shown);
    }
    struct sdc_map *map = sdc_region_table_publish(&table, sdc_map_free, NULL);
    fuzz_check(map != NULL, "no memory");
    map->remote = &course->remote;
    sdc_region_table_clear(&table);
    fuzz_card_set_map(&course->card, map);
    sdc_map_unref(map);
    course->honest = course->honest && missing == 0;
}

// --- queues ---

static void open_queue(struct course *course, struct queue *queue, uint16_t id, uint64_t sq, uint64_t cq)
{
    static const uint8_t zeroes[FUZZ_PAGE];

    *queue = (struct queue){.id = id, .sq = sq, .cq = cq, .phase = true};
    fuzz_memory_poke(&course->memory, cq, zeroes, sizeof zeroes);
}

static void doorbell(struct course *course, const struct queue *queue, bool head)
{
    fuzz_card_write(&course->card, BAR, SDC_NVME_DOORBELLS + 8 * (uint64_t)queue->id + (head ? 4 : 0), 4,
                    head ? queue->head : queue->tail);
}

static void look(struct course *course, struct queue *queue)
{
    for (unsigned i = 0; i < ENTRIES; i++) {
        const uint8_t *entry = fuzz_memory_at(&course->memory, queue->cq + SDC_NVME_CQE * (uint64_t)queue->head);
        if (!entry || (sdc_get16(entry + SDC_NVME_CQE_STATUS) & 1) != queue->phase)
            return;
        uint16_t cid = sdc_get16(entry + SDC_NVME_CQE_CID);
        if (course->honest) {
            fuzz_check(cid < ENTRIES && queue->in_flight[cid], "a command ends that was not on its way");
            fuzz_check(sdc_get16(entry + SDC_NVME_CQE_SQID) == queue->id, "a command ends that came by another queue");
            fuzz_check(sdc_get16(entry + SDC_NVME_CQE_SQHD) < ENTRIES, "a submission queue's head lies outside it");
            queue->in_flight[cid] = false;
        }
        queue->completed++;
        queue->head = (uint16_t)((queue->head + 1) % ENTRIES);
        queue->phase ^= queue->head == 0;
    }
}

static bool is_idle(void *context)
{
    struct course *course = context;

    look(course, course->kicked);
    return course->kicked->completed == course->kicked->submitted;
}

static void kick(struct course *course, struct queue *queue)
{
    course->kicked = queue;
    doorbell(course, queue, false);
    bool ended = fuzz_turns(course->honest ? PATIENCE : 40, is_idle, course);
    if (course->honest) {
        fuzz_check(ended, "an honest driver's commands don't end");
        fuzz_check(!(fuzz_card_read(&course->card, BAR, SDC_NVME_CSTS, 4) & SDC_NVME_CSTS_CFS), "an honest driver's controller fails");
    }
    doorbell(course, queue, true);
}

static void put(struct course *course, struct queue *queue, uint8_t entry[SDC_NVME_SQE])
{
    // A queue that is full has a free entry.
    if ((uint16_t)(queue->submitted - queue->completed) == ENTRIES - 1)
        kick(course, queue);
    if (course->honest)
        sdc_put16(entry + SDC_NVME_SQE_CID, queue->tail);
    queue->in_flight[queue->tail] = true;
    fuzz_memory_poke(&course->memory, queue->sq + SDC_NVME_SQE * (uint64_t)queue->tail, entry, SDC_NVME_SQE);
    queue->tail = (uint16_t)((queue->tail + 1) % ENTRIES);
    queue->submitted++;
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

static void create(struct course *course, uint8_t opcode, uint64_t iova, uint32_t dw11)
{
    uint8_t entry[SDC_NVME_SQE] = {opcode};

    sdc_put64(entry + SDC_NVME_SQE_PRP1, iova);
    sdc_put32(entry + SDC_NVME_SQE_CDW10, (ENTRIES - 1) << 16 | 1);
    sdc_put32(entry + SDC_NVME_SQE_CDW11, dw11);
    put(course, &course->admin, entry);
    kick(course, &course->admin);
}

static void start(struct course *course)
{
    fuzz_card_write(&course->card, BAR, SDC_NVME_CC, 4, 0);
    fuzz_check(fuzz_turns(PATIENCE, is_off, course), "the controller is not disabled");
    course->refused = 0;
    course->honest = true;
    show_memory(course, 0);
    open_queue(course, &course->admin, 0, ADMIN_SQ, ADMIN_CQ);
    open_queue(course, &course->io, 1, SQ, CQ);
    fuzz_card_write(&course->card, BAR, SDC_NVME_AQA, 4, (ENTRIES - 1) << 16 | (ENTRIES - 1));
    fuzz_card_write(&course->card, BAR, SDC_NVME_ASQ, 8, ADMIN_SQ);
    fuzz_card_write(&course->card, BAR, SDC_NVME_ACQ, 8, ADMIN_CQ);
    fuzz_card_write(&course->card, BAR, SDC_NVME_CC, 4,
                    SDC_NVME_CC_EN | SDC_NVME_SQES << SDC_NVME_CC_IOSQES | SDC_NVME_CQES << SDC_NVME_CC_IOCQES);
    fuzz_check(fuzz_turns(PATIENCE, is_ready, course), "the controller is not enabled");
    create(course, SDC_NVME_ADMIN_CREATE_CQ, CQ, 1);
    create(course, SDC_NVME_ADMIN_CREATE_SQ, SQ, 1 << 16 | 1);
}

// --- commands ---

// An address that is likely to be one for data.
static uint64_t address(struct fuzz_input *input)
{
    uint8_t page = fuzz_u8(input);

    if (page == 0xff)
        return UINT64_C(1) << 40 | fuzz_u16(input);
    return (DATA_PAGE + (uint64_t)page % (FUZZ_PAGES - DATA_PAGE)) * FUZZ_PAGE + (page & 0x80 ? fuzz_u8(input) * 4U : 0);
}

static void command(struct course *course, struct fuzz_input *input)
{
    static const uint8_t opcodes[] = {SDC_NVME_IO_READ, SDC_NVME_IO_WRITE, SDC_NVME_IO_FLUSH, SDC_NVME_IO_COMPARE,
                                      SDC_NVME_IO_WRITE_ZEROES, SDC_NVME_IO_DSM, SDC_NVME_IO_READ, SDC_NVME_IO_WRITE};
    uint8_t how = fuzz_u8(input);
    uint8_t entry[SDC_NVME_SQE] = {how & 8 ? fuzz_u8(input) : opcodes[how & 7]};

    if (how & 0x10) {
        entry[SDC_NVME_SQE_FLAGS] = SDC_NVME_PSDT_SGL;
        entry[SDC_NVME_SQE_PRP1 + SDC_NVME_SGL_KIND] = (uint8_t)((fuzz_u8(input) & 3) << 4);
    }
    sdc_put32(entry + SDC_NVME_SQE_NSID, how & 0x20 ? (uint32_t)(int8_t)fuzz_u8(input) : 1);
    sdc_put64(entry + SDC_NVME_SQE_PRP1, address(input));
    if (how & 0x10)
        sdc_put32(entry + SDC_NVME_SQE_PRP1 + SDC_NVME_SGL_LENGTH, fuzz_u8(input) * 16U);
    else
        sdc_put64(entry + SDC_NVME_SQE_PRP2, address(input));
    sdc_put64(entry + SDC_NVME_SQE_CDW10, how & 0x40 ? fuzz_u64(input) : fuzz_u8(input) | (uint64_t)SDC_NVME_DSM_AD << 32);
    sdc_put32(entry + SDC_NVME_SQE_CDW12, how & 0x80 ? fuzz_u32(input) : fuzz_u8(input) & 31U);
    put(course, &course->io, entry);
}

// An admin command that moves data and ends.
static void admin_command(struct course *course, struct fuzz_input *input)
{
    static const uint8_t opcodes[] = {SDC_NVME_ADMIN_IDENTIFY, SDC_NVME_ADMIN_GET_LOG_PAGE, SDC_NVME_ADMIN_SET_FEATURES,
                                      SDC_NVME_ADMIN_GET_FEATURES};
    uint8_t entry[SDC_NVME_SQE] = {opcodes[fuzz_u8(input) % 4]};

    sdc_put32(entry + SDC_NVME_SQE_NSID, fuzz_u8(input) & 1);
    sdc_put64(entry + SDC_NVME_SQE_PRP1, address(input));
    sdc_put64(entry + SDC_NVME_SQE_PRP2, address(input));
    sdc_put32(entry + SDC_NVME_SQE_CDW10, fuzz_u8(input) | (uint32_t)fuzz_u8(input) << 16);
    put(course, &course->admin, entry);
}

// Lists, or the ranges of a Dataset Management: numbers in a row.
static void put_list(struct course *course, struct fuzz_input *input)
{
    uint64_t at = address(input);
    uint8_t raw[16];

    for (unsigned count = fuzz_u8(input) % 16 + 1; count > 0; count--) {
        uint8_t kind = fuzz_u8(input);
        size_t size = kind & 0x80 ? 16 : 8;
        memset(raw, 0, sizeof raw);
        if (kind & 0x40) { // a range
            sdc_put32(raw + 4, kind & 7);
            sdc_put64(raw + 8, fuzz_u16(input) % 520);
            size = 16;
        } else {
            sdc_put64(raw, address(input));
            sdc_put32(raw + 8, fuzz_u8(input) * 128U);
            raw[SDC_NVME_SGL_KIND] = (uint8_t)((kind & 3) << 4);
        }
        fuzz_memory_poke(&course->memory, at, raw, size);
        at += size;
    }
}

// --- what no honest driver does ---

static void poke_anything(struct course *course, struct fuzz_input *input)
{
    uint8_t bytes[64];
    uint16_t iova = fuzz_u16(input);
    uint8_t size = fuzz_u8(input) % sizeof bytes;

    fuzz_bytes(input, bytes, size);
    fuzz_memory_poke(&course->memory, iova, bytes, size);
    course->honest = course->honest && iova >= DATA_PAGE * FUZZ_PAGE;
}

static void ring_anything(struct course *course, struct fuzz_input *input)
{
    fuzz_card_write(&course->card, BAR, SDC_NVME_DOORBELLS + 4 * (uint64_t)(fuzz_u8(input) % 8), 4, fuzz_u16(input));
    course->honest = false;
}

// --- the course ---

static void do_one(struct course *course, struct fuzz_input *input)
{
    switch (fuzz_u8(input) % 13) {
    case 0:
    case 1:
    case 2:
    case 3:
        command(course, input);
        break;
    case 4:
    case 5:
        put_list(course, input);
        break;
    case 6:
    case 7:
        kick(course, &course->io);
        break;
    case 8:
        poke_anything(course, input);
        break;
    case 9: // while commands may be on their way
        show_memory(course, fuzz_u8(input) % 3 ? 0 : fuzz_u8(input));
        break;
    case 10:
        if (fuzz_u8(input) & 1)
            start(course);
        else
            ring_anything(course, input);
        break;
    case 11: // the client says no: a queue that cannot be reached fails
        course->refused = fuzz_u8(input);
        course->honest = course->honest && (course->refused == 0 || course->remote_regions == 0);
        break;
    case 12:
        admin_command(course, input);
        kick(course, &course->admin);
        break;
    }
}

// All memory in one region, or its parts in a jumble, so that everything that is long crosses an edge.
static void add_regions(struct course *course, struct fuzz_input *input)
{
    uint8_t how = fuzz_u8(input);
    uint32_t access = SDC_ACCESS_READ | SDC_ACCESS_WRITE;

    course->remote_regions = how & 2 ? fuzz_u8(input) : 0;
    if (!(how & 1))
        fuzz_memory_add(&course->memory, 0, 0, FUZZ_PAGES, access);
    for (unsigned i = 0; how & 1 && i < FUZZ_REGIONS; i++)
        fuzz_memory_add(&course->memory, 2 * FUZZ_PAGE * (uint64_t)i, 2 * (i * 3 % FUZZ_REGIONS), 2, access);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    struct course course = {.remote = {.home = fuzz_loop(), .begin = begin_transfer}};

    fuzz_memory_init(&course.memory);
    add_regions(&course, &input);
    fuzz_card_open_device(&course.card, "nvme", 2, ENTRIES);
    fuzz_card_write(&course.card, BAR, SDC_NVME_CC, 4, 0);
    start(&course);
    for (unsigned i = 0; i < 64 && fuzz_more(&input); i++)
        do_one(&course, &input);
    if (course.honest)
        kick(&course, &course.io);
    fuzz_card_close(&course.card);
    fuzz_memory_destroy(&course.memory);
    return 0;
}
