// SPDX-License-Identifier: BSD-3-Clause
// What a virtio disk does with data, over either transport: what is read is what is there whatever the shape of the request, what was
// written is read back, and requests that may not be done are not. Tests that write need --destructive.
#include "cli/check/stage.h"

#include "base/bytes.h"
#include "base/check.h"
#include "os/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    BLOCK = 8 * SDC_VIRTIO_BLK_SECTOR, // what is written and read at a time
    BLOCKS = 256,                 // as many as are written
    FLIGHT = 32,                  // of them at once, on each queue
    QUEUES = 4,
    BLOCK_SECTORS = BLOCK / SDC_VIRTIO_BLK_SECTOR,
};

struct bench {
    struct sdc_check_stage stage;
    struct sdc_check_request requests[QUEUES][FLIGHT];
    unsigned blocks[QUEUES][FLIGHT]; // that each request is about
    uint16_t queues;
    unsigned count; // of blocks that the disk has room for
    uint64_t state; // of the generator
    uint32_t seed;  // of the pattern
};

// A generator with a state of its own, so that each run is like the other.
static uint32_t draw(struct bench *bench)
{
    bench->state = bench->state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (uint32_t)(bench->state >> 33);
}

static void start(struct bench *bench)
{
    struct sdc_check_bed *bed = &bench->stage.bed;

    bench->queues = (uint16_t)sdc_min(sdc_min(bed->queues_max, bench->stage.disk.queues), QUEUES);
    sdc_check_bed_run_queues(bed, bench->queues, 128);
}

static void open_bench(struct bench *bench, struct sdc_check *check, uint64_t features)
{
    uint32_t seed = bench->seed;

    *bench = (struct bench){.state = 1, .seed = seed};
    sdc_check_stage_open(&bench->stage, check, features | SDC_CHECK_RINGS, BLOCK);
    bench->count = (unsigned)sdc_min(bench->stage.disk.sectors / BLOCK_SECTORS, BLOCKS);
    if (bench->stage.disk.block_sectors > BLOCK_SECTORS)
        sdc_check_skip(check, "the disk has blocks of %u bytes; %d at most are tested", bench->stage.block, BLOCK);
    for (unsigned i = 0; i < QUEUES * FLIGHT; i++)
        sdc_check_request_new(&bench->stage.bed, BLOCK, &bench->requests[i / FLIGHT][i % FLIGHT]);
    start(bench);
}

static void open_writable(struct bench *bench, struct sdc_check *check, uint64_t features)
{
    open_bench(bench, check, features);
    if (bench->stage.bed.offered & SDC_VIRTIO_BLK_F_RO)
        sdc_check_not_offered(check, "the disk is read-only");
}

// Each sector says where it belongs, and in which pass it was written.
static void fill(const struct bench *bench, uint8_t *data, uint64_t sector, unsigned count)
{
    for (unsigned i = 0; i < count; i++, sector++) {
        uint64_t value = (sector + 1) * UINT64_C(0x9e3779b97f4a7c15) ^ bench->seed;
        for (unsigned j = 0; j < SDC_VIRTIO_BLK_SECTOR; j += 8, value = value * UINT64_C(0xd1342543de82ef95) + 1)
            sdc_put64(data + (size_t)i * SDC_VIRTIO_BLK_SECTOR + j, value);
    }
}

static void expect(struct bench *bench, const struct sdc_check_request *request, enum sdc_check_cut cut, const char *when)
{
    uint8_t expected[BLOCK];

    fill(bench, expected, request->sector, BLOCK_SECTORS);
    if (memcmp(sdc_check_request_data(request), expected, BLOCK) == 0)
        return;
    unsigned at = 0;
    while (sdc_check_request_data(request)[at] == expected[at])
        at++;
    sdc_check_sent(bench->stage.bed.check, "a read of sectors %" PRIu64 " to %" PRIu64 " as %s, %s", request->sector,
                   request->sector + BLOCK_SECTORS - 1, sdc_check_cut_name(cut), when);
    sdc_check_came(bench->stage.bed.check, "other bytes than were written, from byte %u on", at);
    sdc_check_fail(bench->stage.bed.check, "what was written has to be read back");
}

// --- many requests, in random order, over all queues ---

// What is done with a block once its request has come back. NULL: nothing.
typedef void (*block_done)(struct bench *bench, const struct sdc_check_request *request, enum sdc_check_cut cut, const char *when);

static void finish(struct bench *bench, const char *when, block_done done, const unsigned *added, const enum sdc_check_cut *cuts)
{
    for (uint16_t queue = 0; queue < bench->queues; queue++) {
        sdc_check_bed_wait_all(&bench->stage.bed, queue, false);
        for (unsigned i = 0; i < added[queue]; i++) {
            sdc_check_request_judge(&bench->stage.bed, queue, &bench->requests[queue][i], SDC_VIRTIO_BLK_S_OK);
            if (done)
                done(bench, &bench->requests[queue][i], cuts[queue * FLIGHT + i], when);
        }
    }
}

static bool add_block(struct bench *bench, uint16_t queue, unsigned slot, uint32_t type, unsigned block, enum sdc_check_cut *cut)
{
    struct sdc_check_request *request = &bench->requests[queue][slot];
    bool indirect = draw(bench) % 2 && sdc_check_stage_has(&bench->stage, SDC_VIRTIO_F_INDIRECT_DESC);

    *cut = draw(bench) % SDC_CHECK_CUTS;
    request->type = type;
    request->sector = (uint64_t)block * BLOCK_SECTORS;
    request->size = BLOCK;
    sdc_check_request_prepare(request);
    if (type == SDC_VIRTIO_BLK_T_OUT)
        fill(bench, sdc_check_request_data(request), request->sector, BLOCK_SECTORS);
    return sdc_check_request_add(&bench->stage.bed, queue, request, &bench->stage.disk, *cut, indirect);
}

// Does every block once, in random order, as many at a time as there is room for.
static void all_blocks(struct bench *bench, uint32_t type, const char *when, block_done done)
{
    unsigned order[BLOCKS], next = 0;

    for (unsigned i = 0; i < bench->count; i++)
        order[i] = i;
    for (unsigned i = bench->count; i > 1; i--) {
        unsigned other = draw(bench) % i, block = order[i - 1];
        order[i - 1] = order[other];
        order[other] = block;
    }
    while (next < bench->count) {
        unsigned added[QUEUES] = {0};
        enum sdc_check_cut cuts[QUEUES * FLIGHT];
        bool room = true;
        while (room && next < bench->count) {
            room = false;
            for (uint16_t queue = 0; queue < bench->queues && next < bench->count; queue++) {
                unsigned slot = added[queue];
                if (slot == FLIGHT || !add_block(bench, queue, slot, type, order[next], &cuts[queue * FLIGHT + slot]))
                    continue;
                added[queue]++;
                next++;
                room = true;
            }
        }
        for (uint16_t queue = 0; queue < bench->queues; queue++)
            sdc_check_bed_show(&bench->stage.bed, queue);
        finish(bench, when, done, added, cuts);
    }
}

// One request, plain, on queue 0, that ends with `status` (-1: any).
static void one(struct bench *bench, struct sdc_check_request *request, int status)
{
    sdc_check_request_prepare(request);
    sdc_check_request_add(&bench->stage.bed, 0, request, &bench->stage.disk, SDC_CHECK_CUT_PLAIN, false);
    sdc_check_bed_show(&bench->stage.bed, 0);
    sdc_check_bed_wait(&bench->stage.bed, 0, request->id);
    sdc_check_request_judge(&bench->stage.bed, 0, request, status);
}

static void flush(struct bench *bench)
{
    if (bench->stage.bed.features & SDC_VIRTIO_BLK_F_FLUSH)
        one(bench, &(struct sdc_check_request){.type = SDC_VIRTIO_BLK_T_FLUSH,
                                               .memory = bench->requests[0][0].memory,
                                               .iova = bench->requests[0][0].iova,
                                               .table = bench->requests[0][0].table,
                                               .table_iova = bench->requests[0][0].table_iova},
            SDC_VIRTIO_BLK_S_OK);
}

// --- reading ---

static uint8_t shared_first[BLOCKS * BLOCK];

static void keep(struct bench *bench, const struct sdc_check_request *request, enum sdc_check_cut cut, const char *when)
{
    (void)bench;
    (void)cut;
    (void)when;
    memcpy(shared_first + request->sector * SDC_VIRTIO_BLK_SECTOR, sdc_check_request_data(request), BLOCK);
}

static void compare(struct bench *bench, const struct sdc_check_request *request, enum sdc_check_cut cut, const char *when)
{
    if (memcmp(shared_first + request->sector * SDC_VIRTIO_BLK_SECTOR, sdc_check_request_data(request), BLOCK) == 0)
        return;
    sdc_check_sent(bench->stage.bed.check, "a second read of sectors %" PRIu64 " to %" PRIu64 " as %s, %s", request->sector,
                   request->sector + BLOCK_SECTORS - 1, sdc_check_cut_name(cut), when);
    sdc_check_came(bench->stage.bed.check, "other bytes than the first time");
    sdc_check_fail(bench->stage.bed.check, "what is read has to be what is on the disk, which nobody has written to");
}

static void same_twice(struct sdc_check *check, uint64_t layout)
{
    static struct bench bench;

    open_bench(&bench, check, layout);
    all_blocks(&bench, SDC_VIRTIO_BLK_T_IN, "", keep);
    all_blocks(&bench, SDC_VIRTIO_BLK_T_IN, "in another order", compare);
}

// --- writing ---

static void written(struct sdc_check *check, uint64_t layout)
{
    static struct bench bench = {.seed = 1};

    open_writable(&bench, check, layout);
    all_blocks(&bench, SDC_VIRTIO_BLK_T_OUT, "", NULL);
    all_blocks(&bench, SDC_VIRTIO_BLK_T_IN, "after the writes", expect);
    flush(&bench);
    all_blocks(&bench, SDC_VIRTIO_BLK_T_IN, "after a flush", expect);
    sdc_check_bed_reset(&bench.stage.bed);
    start(&bench);
    all_blocks(&bench, SDC_VIRTIO_BLK_T_IN, "after a reset of the device", expect);
    sdc_check_bed_close(&bench.stage.bed);
    open_writable(&bench, check, layout);
    all_blocks(&bench, SDC_VIRTIO_BLK_T_IN, "over another connection", expect);
}

static void overwritten(struct sdc_check *check)
{
    static struct bench bench = {.seed = 2};

    open_writable(&bench, check, 0);
    for (unsigned pass = 0; pass < 3; pass++) {
        bench.seed++;
        all_blocks(&bench, SDC_VIRTIO_BLK_T_OUT, "", NULL);
        all_blocks(&bench, SDC_VIRTIO_BLK_T_IN, "after they were written again", expect);
    }
}

// A write that was acknowledged before the connection ended is there over the next.
static void vanish_with_writes(struct sdc_check *check)
{
    static struct bench bench = {.seed = 9};

    for (unsigned round = 0; round < 4; round++) {
        open_writable(&bench, check, 0);
        all_blocks(&bench, SDC_VIRTIO_BLK_T_OUT, "", NULL);
        flush(&bench);
        // The same bytes once more, which are in flight when the connection ends.
        for (unsigned slot = 0; slot < FLIGHT; slot++) {
            enum sdc_check_cut cut;
            if (!add_block(&bench, 0, slot, SDC_VIRTIO_BLK_T_OUT, slot % bench.count, &cut))
                break;
        }
        sdc_check_bed_show(&bench.stage.bed, 0);
        sdc_check_bed_vanish(&bench.stage.bed);
        open_writable(&bench, check, 0);
        all_blocks(&bench, SDC_VIRTIO_BLK_T_IN, "over another connection", expect);
        sdc_check_bed_close(&bench.stage.bed);
        bench.seed++;
    }
}

// The ends of the connection and of the device, with reads in flight on all queues.
static void vanish(struct sdc_check *check)
{
    static struct bench bench;

    for (unsigned round = 0; round < 8; round++) {
        open_bench(&bench, check, 0);
        for (uint16_t queue = 0; queue < bench.queues; queue++) {
            for (unsigned slot = 0; slot < FLIGHT; slot++) {
                enum sdc_check_cut cut;
                if (!add_block(&bench, queue, slot, SDC_VIRTIO_BLK_T_IN, draw(&bench) % bench.count, &cut))
                    break;
            }
            sdc_check_bed_show(&bench.stage.bed, queue);
        }
        sdc_check_bed_vanish(&bench.stage.bed);
    }
    open_bench(&bench, check, 0);
    all_blocks(&bench, SDC_VIRTIO_BLK_T_IN, "", NULL);
}

// --- ranges ---

static void needs(struct bench *bench, uint64_t feature, const char *name)
{
    if (!(bench->stage.bed.features & feature))
        sdc_check_not_offered(bench->stage.bed.check, "VIRTIO_BLK_F_%s is not offered", name);
}

static void zeroes(struct sdc_check *check)
{
    static struct bench bench = {.seed = 20};
    static const uint8_t nothing[BLOCK];

    open_writable(&bench, check, 0);
    needs(&bench, SDC_VIRTIO_BLK_F_WRITE_ZEROES, "WRITE_ZEROES");
    for (uint32_t unmap = 0; unmap < 2; unmap++) {
        all_blocks(&bench, SDC_VIRTIO_BLK_T_OUT, "", NULL);
        struct sdc_check_request *request = &bench.requests[0][0];
        const uint64_t sector = 3 * BLOCK_SECTORS;
        uint32_t sectors = (uint32_t)sdc_min(4 * BLOCK_SECTORS, bench.stage.disk.zeroes_sectors);
        request->type = SDC_VIRTIO_BLK_T_WRITE_ZEROES;
        request->sector = sector;
        request->sectors = sectors;
        request->flags = unmap;
        one(&bench, request, SDC_VIRTIO_BLK_S_OK);
        for (uint64_t at = sector; at + BLOCK_SECTORS <= sector + sectors; at += BLOCK_SECTORS) {
            *request = (struct sdc_check_request){.type = SDC_VIRTIO_BLK_T_IN,
                                                  .sector = at,
                                                  .size = BLOCK,
                                                  .memory = request->memory,
                                                  .iova = request->iova,
                                                  .table = request->table,
                                                  .table_iova = request->table_iova};
            one(&bench, request, SDC_VIRTIO_BLK_S_OK);
            if (memcmp(sdc_check_request_data(request), nothing, BLOCK) != 0) {
                sdc_check_sent(check, "a read after write zeroes, unmap %" PRIu32, unmap);
                sdc_check_fail(check, "after write zeroes reads of the range must return zeroes, whether unmap was set or clear");
            }
        }
        // What is around it is as it was.
        static const uint64_t neighbours[] = {2, 7};
        for (unsigned i = 0; i < 2 && bench.count > 7 && sectors == 4 * BLOCK_SECTORS; i++) {
            request->type = SDC_VIRTIO_BLK_T_IN;
            request->sector = neighbours[i] * BLOCK_SECTORS;
            request->size = BLOCK;
            one(&bench, request, SDC_VIRTIO_BLK_S_OK);
            expect(&bench, request, SDC_CHECK_CUT_PLAIN, "beside zeroes that were written");
        }
    }
}

static void discard(struct sdc_check *check)
{
    static struct bench bench = {.seed = 30};

    open_writable(&bench, check, 0);
    needs(&bench, SDC_VIRTIO_BLK_F_DISCARD, "DISCARD");
    all_blocks(&bench, SDC_VIRTIO_BLK_T_OUT, "", NULL);
    struct sdc_check_request *request = &bench.requests[0][0];
    request->type = SDC_VIRTIO_BLK_T_DISCARD;
    request->sector = 3 * BLOCK_SECTORS;
    request->sectors = (uint32_t)sdc_min(BLOCK_SECTORS, bench.stage.disk.discard_sectors);
    request->flags = 0;
    one(&bench, request, SDC_VIRTIO_BLK_S_OK);
    static const uint64_t neighbours[] = {2, 4};
    for (unsigned i = 0; i < 2; i++) {
        request->type = SDC_VIRTIO_BLK_T_IN;
        request->sector = neighbours[i] * BLOCK_SECTORS;
        request->size = BLOCK;
        one(&bench, request, SDC_VIRTIO_BLK_S_OK);
        expect(&bench, request, SDC_CHECK_CUT_PLAIN, "beside sectors that were discarded");
    }
}

// 5.2.6.2: unknown flags, and unmap with discard, must be refused as unsupported.
static void range_flags(struct sdc_check *check)
{
    static struct bench bench = {.seed = 40};
    static const struct {
        uint32_t type, flags;
        uint64_t feature;
    } wrong[] = {
        {SDC_VIRTIO_BLK_T_DISCARD, 1, SDC_VIRTIO_BLK_F_DISCARD},          {SDC_VIRTIO_BLK_T_DISCARD, 2, SDC_VIRTIO_BLK_F_DISCARD},
        {SDC_VIRTIO_BLK_T_DISCARD, 0x80000000, SDC_VIRTIO_BLK_F_DISCARD}, {SDC_VIRTIO_BLK_T_WRITE_ZEROES, 2, SDC_VIRTIO_BLK_F_WRITE_ZEROES},
        {SDC_VIRTIO_BLK_T_WRITE_ZEROES, 0x80000001, SDC_VIRTIO_BLK_F_WRITE_ZEROES},
    };

    open_writable(&bench, check, 0);
    if (!(bench.stage.bed.features & (SDC_VIRTIO_BLK_F_DISCARD | SDC_VIRTIO_BLK_F_WRITE_ZEROES)))
        sdc_check_not_offered(check, "neither VIRTIO_BLK_F_DISCARD nor VIRTIO_BLK_F_WRITE_ZEROES is offered");
    for (size_t i = 0; i < SDC_COUNT(wrong); i++) {
        struct sdc_check_request *request = &bench.requests[0][0];
        if (!(bench.stage.bed.features & wrong[i].feature))
            continue;
        request->type = wrong[i].type;
        request->sector = 0;
        request->sectors = BLOCK_SECTORS;
        request->flags = wrong[i].flags;
        one(&bench, request, SDC_VIRTIO_BLK_S_UNSUPP);
    }
}

// --- what may not be done ---

static void read_only(struct sdc_check *check)
{
    static struct bench bench = {.seed = 50};
    uint8_t before[BLOCK];

    open_bench(&bench, check, 0);
    if (!(bench.stage.bed.offered & SDC_VIRTIO_BLK_F_RO))
        sdc_check_not_offered(check, "the disk is not read-only");
    struct sdc_check_request *request = &bench.requests[0][0];
    request->type = SDC_VIRTIO_BLK_T_IN;
    request->size = BLOCK;
    one(&bench, request, SDC_VIRTIO_BLK_S_OK);
    memcpy(before, sdc_check_request_data(request), BLOCK);
    request->type = SDC_VIRTIO_BLK_T_OUT;
    fill(&bench, sdc_check_request_data(request), 0, BLOCK_SECTORS);
    one(&bench, request, SDC_VIRTIO_BLK_S_IOERR);
    request->type = SDC_VIRTIO_BLK_T_IN;
    one(&bench, request, SDC_VIRTIO_BLK_S_OK);
    sdc_check_that(check, memcmp(before, sdc_check_request_data(request), BLOCK) == 0, "a read-only disk must not write any data");
}

// Drivers must not read past the end; nothing is said of what a device does about it.
static void past_the_end(struct sdc_check *check)
{
    static struct bench bench;

    open_bench(&bench, check, 0);
    const uint64_t end = bench.stage.disk.sectors;
    const uint64_t sectors[] = {end, end - 1, end + 1, UINT64_MAX, UINT64_MAX / SDC_VIRTIO_BLK_SECTOR, UINT64_C(1) << 55,
                                UINT64_C(1) << 63};
    for (size_t i = 0; i < SDC_COUNT(sectors); i++) {
        struct sdc_check_request *request = &bench.requests[0][0];
        request->type = SDC_VIRTIO_BLK_T_IN;
        request->size = BLOCK;
        request->sector = sectors[i];
        one(&bench, request, -1);
        if (sdc_check_request_status(request) == SDC_VIRTIO_BLK_S_OK)
            sdc_check_note(check, "a read of %d sectors at sector %" PRIu64 " of %" PRIu64 " is done", BLOCK_SECTORS, sectors[i], end);
    }
    struct sdc_check_request *request = &bench.requests[0][0];
    request->sector = end - BLOCK_SECTORS;
    one(&bench, request, SDC_VIRTIO_BLK_S_OK);
}

// 5.2.5: the block's size does not affect the units of the protocol, 512 bytes; but it is common to take whole blocks only.
static void part_of_a_block(struct sdc_check *check)
{
    static struct bench bench;

    open_bench(&bench, check, 0);
    if (bench.stage.disk.block_sectors == 1)
        sdc_check_not_offered(check, "blocks have 512 bytes");
    struct sdc_check_request *request = &bench.requests[0][0];
    request->type = SDC_VIRTIO_BLK_T_IN;
    request->size = SDC_VIRTIO_BLK_SECTOR;
    request->sector = 1;
    one(&bench, request, -1);
}

static void unknown_type(struct sdc_check *check)
{
    static struct bench bench;
    static const uint32_t types[] = {3, 100, 0x80000000, UINT32_MAX};

    open_bench(&bench, check, 0);
    for (size_t i = 0; i < SDC_COUNT(types); i++) {
        struct sdc_check_request *request = &bench.requests[0][0];
        request->type = types[i];
        request->size = 0;
        request->sector = 0;
        one(&bench, request, -1);
        if (sdc_check_request_status(request) != SDC_VIRTIO_BLK_S_UNSUPP)
            sdc_check_note(check, "a request of type %" PRIu32 ", which there is not, ends with status %u", types[i],
                           sdc_check_request_status(request));
    }
}

static void get_id(struct sdc_check *check)
{
    static struct bench bench;

    open_bench(&bench, check, 0);
    struct sdc_check_request *request = &bench.requests[0][0];
    request->type = SDC_VIRTIO_BLK_T_GET_ID;
    request->sector = 0;
    one(&bench, request, -1);
    if (sdc_check_request_status(request) != SDC_VIRTIO_BLK_S_OK)
        sdc_check_note(check, "the device has no ID string: status %u", sdc_check_request_status(request));
}

// What features promise, the configuration has, in numbers that can be.
static void configuration(struct sdc_check *check)
{
    static struct bench bench;
    uint8_t raw[4] = {0};

    open_bench(&bench, check, 0);
    struct sdc_check_bed *bed = &bench.stage.bed;
    if (bed->features & SDC_VIRTIO_BLK_F_BLK_SIZE) {
        sdc_check_bed_config(bed, 20, raw, 4);
        sdc_check_that(check, sdc_is_power_of_two(sdc_get32(raw)) && sdc_get32(raw) >= SDC_VIRTIO_BLK_SECTOR,
                       "blk_size is a power of two of at least 512 (it is %" PRIu32 ")", sdc_get32(raw));
    }
    if (bed->features & SDC_VIRTIO_BLK_F_MQ) {
        sdc_check_bed_config(bed, 34, raw, 2);
        sdc_check_that(check, sdc_get16(raw) > 0, "num_queues is at least 1");
        sdc_check_that(check, sdc_get16(raw) <= bed->queues_max, "num_queues, %u, is no more than the transport has, %u", sdc_get16(raw),
                       bed->queues_max);
    }
    if (bed->features & SDC_VIRTIO_BLK_F_SIZE_MAX) {
        sdc_check_bed_config(bed, 8, raw, 4);
        if (sdc_get32(raw) == 0)
            sdc_check_note(check, "VIRTIO_BLK_F_SIZE_MAX is offered, and size_max is 0: no segment may have any bytes");
    }
    if (bed->features & SDC_VIRTIO_BLK_F_SEG_MAX) {
        sdc_check_bed_config(bed, 12, raw, 4);
        if (sdc_get32(raw) == 0)
            sdc_check_note(check, "VIRTIO_BLK_F_SEG_MAX is offered, and seg_max is 0: no request may have any data");
    }
}

SDC_CHECK_BOTH(same_twice)
SDC_CHECK_BOTH(written)

#define DATA "virtio 1.2, 5.2.6"
#define DEVICE "virtio 1.2, 5.2.6.2"
#define WRITES (SDC_CHECK_BLK | SDC_CHECK_DESTRUCTIVE)

static const struct sdc_check_test tests[] = {
    {"disk/configuration", "virtio 1.2, 5.2.4", SDC_CHECK_BLK, configuration},
    {"disk/id", DATA, SDC_CHECK_BLK, get_id},
    {"disk/unknown-type", DATA, SDC_CHECK_BLK, unknown_type},
    {"disk/part-of-a-block", "virtio 1.2, 5.2.5", SDC_CHECK_BLK, part_of_a_block},
    {"disk/past-the-end", DATA, SDC_CHECK_BLK, past_the_end},
    {"data-split/same-twice", DATA, SDC_CHECK_BLK, split_same_twice},
    {"data-packed/same-twice", DATA, SDC_CHECK_BLK, packed_same_twice},
    {"data/vanish", DATA, SDC_CHECK_BLK, vanish},
    {"data-split/written", DATA, WRITES, split_written},
    {"data-packed/written", DATA, WRITES, packed_written},
    {"data/overwritten", DATA, WRITES, overwritten},
    {"data/vanish-with-writes", DEVICE, WRITES, vanish_with_writes},
    {"data/zeroes", DEVICE, WRITES, zeroes},
    {"data/discard", DEVICE, WRITES, discard},
    {"data/range-flags", DEVICE, WRITES, range_flags},
    {"data/read-only", DEVICE, WRITES, read_only},
};

const struct sdc_check_table sdc_check_data = {tests, SDC_COUNT(tests)};
