// SPDX-License-Identifier: BSD-3-Clause
// An NVMe controller's registers, doorbells and queues, by a driver that is never honest: any register is written at any time, queues are
// made over one another and over what is in flight, memory goes away and comes back. Whatever happened, the controller ends its
// work when it is disabled, and is as good as new when it is enabled again.
#include "card.h"
#include "input.h"
#include "wire/nvme.h"

enum {
    ENTRIES = 16,
    QUEUES = 3,
    BAR = 0,
    PATIENCE = 2000, // turns
    // Where a driver has its things, as long as it goes by the book.
    ADMIN_SQ = 0,
    ADMIN_CQ = 1 * FUZZ_PAGE,
    DATA = 15 * FUZZ_PAGE,
};

struct course {
    struct fuzz_card card;
    struct fuzz_memory memory;
    uint16_t tails[QUEUES + 1], heads[QUEUES + 1];
    uint16_t cid;
};

static uint32_t csts(struct course *course)
{
    return (uint32_t)fuzz_card_read(&course->card, BAR, SDC_NVME_CSTS, 4);
}

static bool is_ready(void *context)
{
    return (csts(context) & SDC_NVME_CSTS_RDY) != 0;
}

static bool is_off(void *context)
{
    return (csts(context) & (SDC_NVME_CSTS_RDY | SDC_NVME_CSTS_CFS)) == 0;
}

static void show_memory(struct course *course, uint8_t missing)
{
    struct sdc_region_table table = {0};

    fuzz_table_without(&course->memory.table, missing, &table);
    struct sdc_map *map = sdc_region_table_publish(&table, sdc_map_free, NULL);
    fuzz_check(map != NULL, "no memory");
    sdc_region_table_clear(&table);
    fuzz_card_set_map(&course->card, map);
    sdc_map_unref(map);
}

// --- the book ---

static void enable(struct course *course)
{
    static const uint8_t zeroes[FUZZ_PAGE];

    fuzz_memory_poke(&course->memory, ADMIN_CQ, zeroes, sizeof zeroes);
    memset(course->tails, 0, sizeof course->tails);
    memset(course->heads, 0, sizeof course->heads);
    fuzz_card_write(&course->card, BAR, SDC_NVME_AQA, 4, (ENTRIES - 1) << 16 | (ENTRIES - 1));
    fuzz_card_write(&course->card, BAR, SDC_NVME_ASQ, 8, ADMIN_SQ);
    fuzz_card_write(&course->card, BAR, SDC_NVME_ACQ, 8, ADMIN_CQ);
    fuzz_card_write(&course->card, BAR, SDC_NVME_CC, 4,
                    SDC_NVME_CC_EN | SDC_NVME_SQES << SDC_NVME_CC_IOSQES | SDC_NVME_CQES << SDC_NVME_CC_IOCQES);
}

static void put(struct course *course, unsigned queue, const uint8_t entry[SDC_NVME_SQE])
{
    uint64_t sq = 2 * FUZZ_PAGE * (uint64_t)queue;

    fuzz_memory_poke(&course->memory, sq + SDC_NVME_SQE * (uint64_t)course->tails[queue], entry, SDC_NVME_SQE);
    course->tails[queue] = (uint16_t)((course->tails[queue] + 1) % ENTRIES);
}

static void ring(struct course *course, unsigned queue, bool head, uint32_t value)
{
    fuzz_card_write(&course->card, BAR, SDC_NVME_DOORBELLS + 8 * (uint64_t)queue + (head ? 4 : 0), 4, value);
}

static bool identified(void *context)
{
    struct course *course = context;
    const uint8_t *entry = fuzz_memory_at(&course->memory, ADMIN_CQ);

    return (sdc_get16(entry + SDC_NVME_CQE_STATUS) & 1) != 0;
}

// Disables the controller, enables it again, and asks it what it is.
static void recover(struct course *course)
{
    uint8_t entry[SDC_NVME_SQE] = {SDC_NVME_ADMIN_IDENTIFY};

    show_memory(course, 0);
    fuzz_card_write(&course->card, BAR, SDC_NVME_CC, 4, 0);
    fuzz_check(fuzz_turns(PATIENCE, is_off, course), "the controller is not disabled");
    enable(course);
    fuzz_check(fuzz_turns(PATIENCE, is_ready, course), "the controller is not enabled");
    sdc_put64(entry + SDC_NVME_SQE_PRP1, DATA);
    sdc_put32(entry + SDC_NVME_SQE_CDW10, SDC_NVME_CNS_CONTROLLER);
    put(course, 0, entry);
    ring(course, 0, false, 1);
    fuzz_check(fuzz_turns(PATIENCE, identified, course), "the controller does not say what it is");
    const uint8_t *done = fuzz_memory_at(&course->memory, ADMIN_CQ);
    fuzz_check(sdc_get16(done + SDC_NVME_CQE_STATUS) >> 1 == SDC_NVME_SC_SUCCESS, "the controller cannot say what it is");
    ring(course, 0, true, 1);
}

// --- anything ---

static void access_anything(struct course *course, struct fuzz_input *input)
{
    static const uint16_t places[] = {SDC_NVME_CAP, SDC_NVME_INTMS, SDC_NVME_INTMC, SDC_NVME_CC, SDC_NVME_CC, SDC_NVME_CSTS,
                                      SDC_NVME_NSSR, SDC_NVME_AQA, SDC_NVME_ASQ, SDC_NVME_ACQ};
    uint8_t how = fuzz_u8(input);
    uint32_t size = 1U << (how & 3);
    uint64_t offset = how & 4 ? places[fuzz_u8(input) % (sizeof places / sizeof places[0])] : fuzz_u16(input) % 0x4000;

    offset &= ~(uint64_t)(size - 1);
    if (how & 8)
        fuzz_card_read(&course->card, BAR, offset, size);
    else if (how & 16)
        fuzz_card_write(&course->card, BAR, SDC_NVME_NSSR, 4, SDC_NVME_NSSR_MAGIC);
    else
        fuzz_card_write(&course->card, BAR, offset, size, how & 32 ? fuzz_u64(input) : fuzz_u8(input));
}

// CC with fields that mean something.
static void write_configuration(struct course *course, struct fuzz_input *input)
{
    uint8_t how = fuzz_u8(input);
    uint32_t value = how & SDC_NVME_CC_EN;

    value |= (how >> 1 & 3U) << SDC_NVME_CC_SHN;
    value |= how & 8 ? 0 : SDC_NVME_SQES << SDC_NVME_CC_IOSQES | SDC_NVME_CQES << SDC_NVME_CC_IOCQES;
    value |= how & 16 ? (uint32_t)fuzz_u8(input) << SDC_NVME_CC_CSS : 0;
    fuzz_card_write(&course->card, BAR, SDC_NVME_CC, 4, value);
}

static void admin(struct course *course, struct fuzz_input *input)
{
    static const uint8_t opcodes[] = {
        SDC_NVME_ADMIN_CREATE_CQ, SDC_NVME_ADMIN_CREATE_SQ, SDC_NVME_ADMIN_DELETE_SQ, SDC_NVME_ADMIN_DELETE_CQ,
        SDC_NVME_ADMIN_DOORBELL_BUFFER, SDC_NVME_ADMIN_ASYNC_EVENT, SDC_NVME_ADMIN_ABORT, SDC_NVME_ADMIN_SET_FEATURES,
        SDC_NVME_ADMIN_GET_FEATURES, SDC_NVME_ADMIN_GET_LOG_PAGE, SDC_NVME_ADMIN_IDENTIFY, SDC_NVME_ADMIN_KEEP_ALIVE,
    };
    uint8_t how = fuzz_u8(input), id = fuzz_u8(input);
    uint8_t entry[SDC_NVME_SQE] = {how & 0x80 ? id : opcodes[(how & 0x7f) % sizeof opcodes]};
    uint8_t pages = fuzz_u8(input);

    sdc_put16(entry + SDC_NVME_SQE_CID, course->cid++);
    sdc_put64(entry + SDC_NVME_SQE_PRP1, (uint64_t)(pages & 0x1f) * FUZZ_PAGE + (pages & 0x20 ? 8 : 0));
    sdc_put64(entry + SDC_NVME_SQE_PRP2, (uint64_t)(pages >> 4) * FUZZ_PAGE);
    sdc_put32(entry + SDC_NVME_SQE_CDW10, pages & 0x40 ? fuzz_u32(input) : (id & 7U) | (id >> 3 & 15U) << 16);
    sdc_put32(entry + SDC_NVME_SQE_CDW11, pages & 0x80 ? fuzz_u32(input) : 3 | (id >> 6 & 3U) << 16);
    put(course, 0, entry);
    ring(course, 0, false, course->tails[0]);
}

// Queues where admin commands put them when they are asked to by the book: pair n at pages 2 * n and 2 * n + 1.
static void create_pair(struct course *course, struct fuzz_input *input)
{
    uint8_t how = fuzz_u8(input);
    unsigned id = how % QUEUES + 1;

    for (unsigned i = 0; i < 2; i++) {
        uint8_t entry[SDC_NVME_SQE] = {i == 0 ? SDC_NVME_ADMIN_CREATE_CQ : SDC_NVME_ADMIN_CREATE_SQ};
        sdc_put16(entry + SDC_NVME_SQE_CID, course->cid++);
        sdc_put64(entry + SDC_NVME_SQE_PRP1, (2 * (uint64_t)id + !i) * FUZZ_PAGE);
        sdc_put32(entry + SDC_NVME_SQE_CDW10, (ENTRIES - 1) << 16 | id);
        sdc_put32(entry + SDC_NVME_SQE_CDW11, i == 0 ? 3 : id << 16 | 1);
        put(course, 0, entry);
    }
    course->tails[id] = course->heads[id] = 0;
    ring(course, 0, false, course->tails[0]);
    fuzz_turns(4, NULL, NULL);
}

static void io(struct course *course, struct fuzz_input *input)
{
    uint8_t how = fuzz_u8(input);
    unsigned id = how % QUEUES + 1;
    uint8_t entry[SDC_NVME_SQE] = {how & 0x40 ? SDC_NVME_IO_WRITE : how & 0x80 ? SDC_NVME_IO_READ : SDC_NVME_IO_FLUSH};

    sdc_put16(entry + SDC_NVME_SQE_CID, course->cid++);
    sdc_put32(entry + SDC_NVME_SQE_NSID, 1);
    sdc_put64(entry + SDC_NVME_SQE_PRP1, DATA);
    for (unsigned count = how >> 2 & 15; count > 0; count--)
        put(course, id, entry);
    ring(course, id, false, course->tails[id]);
}

// Acknowledges what was posted, however much that was, or says that it did.
static void acknowledge(struct course *course, struct fuzz_input *input)
{
    uint8_t how = fuzz_u8(input);
    unsigned id = how % (QUEUES + 1);

    course->heads[id] = (uint16_t)((course->heads[id] + (how >> 2)) % (how & 0x80 ? 65536 : ENTRIES));
    ring(course, id, true, course->heads[id]);
}

static void poke(struct course *course, struct fuzz_input *input)
{
    uint8_t bytes[16];
    uint16_t iova = fuzz_u16(input);

    fuzz_bytes(input, bytes, sizeof bytes);
    fuzz_memory_poke(&course->memory, iova, bytes, sizeof bytes);
}

static void configure_interrupts(struct course *course, struct fuzz_input *input)
{
    struct sdc_pci_device *pci = course->card.pci;
    uint8_t how = fuzz_u8(input);

    pci->config[0x43] = (uint8_t)((pci->config[0x43] & 0x3f) | (how & 0xc0)); // MSI-X is the first capability
    pci->config[5] = how & 4;
    pci->ops->config_written(pci, 4, 0x40);
    pci->ops->intx_level(pci);
}

static void do_one(struct course *course, struct fuzz_input *input)
{
    static void (*const operations[])(struct course *course, struct fuzz_input *input) = {
        access_anything, write_configuration, admin, admin, create_pair, io, io, acknowledge, poke, configure_interrupts};
    uint8_t what = fuzz_u8(input) % 14;

    if (what < sizeof operations / sizeof operations[0])
        operations[what](course, input);
    else if (what == 10)
        show_memory(course, fuzz_u8(input) % 3 ? 0 : fuzz_u8(input));
    else if (what == 11)
        fuzz_turns(fuzz_u8(input) % 16, NULL, NULL);
    else if (what == 12)
        enable(course);
    else
        recover(course);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    struct course course = {0};

    fuzz_memory_init(&course.memory);
    for (unsigned i = 0; i < FUZZ_REGIONS; i++)
        fuzz_memory_add(&course.memory, 2 * FUZZ_PAGE * (uint64_t)i, 2 * i, 2, SDC_ACCESS_READ | SDC_ACCESS_WRITE);
    fuzz_card_open_device(&course.card, "nvme", QUEUES, ENTRIES);
    recover(&course);
    for (unsigned i = 0; i < 64 && fuzz_more(&input); i++)
        do_one(&course, &input);
    recover(&course);
    fuzz_card_close(&course.card);
    fuzz_memory_destroy(&course.memory);
    return 0;
}
