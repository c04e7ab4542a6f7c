// SPDX-License-Identifier: BSD-3-Clause
// Requests: made in every layout that the rules allow and some that they don't, and looked at closely when they come back.
#include "request.h"

#include <sidecard/block.h>

#include <string.h>

enum {
    TYPE_IN = 0,
    TYPE_OUT = 1,
    TYPE_FLUSH = 4,
    TYPE_GET_ID = 8,
    TYPE_DISCARD = 11,
    TYPE_WRITE_ZEROES = 13,
    STATUS_OK = 0,
    STATUS_IOERR = 1,
    STATUS_UNSUPP = 2,
    STATUS_UNTOUCHED = 0xee,
    HEADER = 16,
    RANGE = 16,
    DATA_MAX = 8 * SIM_SECTOR,
    STREAM_MAX = HEADER + DATA_MAX + 512,
    ID = 20,
};

// A stream on its way to being parts.
struct streams {
    uint8_t readable[STREAM_MAX];
    uint32_t readable_size;
    uint32_t writable_size;
};

// --- what it asks for ---

static void put_header(struct request *request, struct streams *streams, uint64_t sector)
{
    uint32_t ioprio = (uint32_t)sim_random();

    memcpy(streams->readable, &request->type, 4);
    memcpy(streams->readable + 4, &ioprio, 4);
    memcpy(streams->readable + 8, &sector, 8);
    streams->readable_size = HEADER;
    streams->writable_size = 1;
}

static void ask_data(struct request *request, struct streams *streams, bool write)
{
    sim_io_choose_place(&request->io, DATA_MAX / SIM_SECTOR);
    const struct sim_range *range = &request->io.ranges[0];
    put_header(request, streams, range->sector);
    if (!write) {
        streams->writable_size += range->sectors * SIM_SECTOR;
        return;
    }
    request->io.stamp = sim_model_new_stamp();
    for (uint32_t i = 0; i < range->sectors; i++)
        sim_fill_sector(streams->readable + HEADER + i * SIM_SECTOR, range->sector + i, request->io.stamp);
    streams->readable_size += range->sectors * SIM_SECTOR;
}

static void ask_ranges(struct request *request, struct streams *streams)
{
    unsigned count = sim_pick(1, SIM_RANGES);

    for (unsigned i = count; i > 0; i--) {
        sim_io_choose_place(&request->io, 16);
        request->io.ranges[i - 1] = request->io.ranges[0];
        request->io.ranges[i - 1].flags = request->type == TYPE_WRITE_ZEROES ? sim_below(2) : 0;
    }
    request->io.ranges_count = count;
    put_header(request, streams, sim_random());
    for (unsigned i = 0; i < count; i++) {
        uint8_t *at = streams->readable + HEADER + i * RANGE;
        memcpy(at, &request->io.ranges[i].sector, 8);
        memcpy(at + 8, &request->io.ranges[i].sectors, 4);
        memcpy(at + 12, &request->io.ranges[i].flags, 4);
    }
    streams->readable_size += count * RANGE;
}

static unsigned block_op(const struct request *request)
{
    switch (request->type) {
    case TYPE_IN:
        return SDC_BLOCK_READ;
    case TYPE_OUT:
        return SDC_BLOCK_WRITE;
    case TYPE_FLUSH:
        return SDC_BLOCK_FLUSH;
    case TYPE_DISCARD:
        return SDC_BLOCK_DISCARD;
    case TYPE_WRITE_ZEROES:
        return SDC_BLOCK_WRITE_ZEROES;
    default:
        return SIM_IO_NONE;
    }
}

static void ask(struct request *request, struct streams *streams, const struct disk_view *view)
{
    static const uint32_t types[] = {TYPE_IN,     TYPE_IN,      TYPE_IN,           TYPE_OUT,         TYPE_OUT, TYPE_OUT,
                                     TYPE_FLUSH,  TYPE_DISCARD, TYPE_WRITE_ZEROES, TYPE_GET_ID,      TYPE_IN,  TYPE_OUT};

    request->type = types[sim_below(sizeof types / sizeof types[0])];
    request->io.op = block_op(request);
    switch (request->type) {
    case TYPE_IN:
        ask_data(request, streams, false);
        break;
    case TYPE_OUT:
        ask_data(request, streams, true);
        request->expected = view->read_only ? EXPECT_IOERR : EXPECT_OK;
        break;
    case TYPE_DISCARD:
        ask_ranges(request, streams);
        request->expected = view->discard ? EXPECT_OK : EXPECT_UNSUPP;
        break;
    case TYPE_WRITE_ZEROES:
        ask_ranges(request, streams);
        request->expected = view->write_zeroes ? EXPECT_OK : EXPECT_UNSUPP;
        break;
    case TYPE_GET_ID:
        put_header(request, streams, sim_random());
        streams->writable_size += ID;
        break;
    default:
        put_header(request, streams, 0);
        break;
    }
}

// --- mistakes that cost the request, not the queue ---

enum mistake { NO_MISTAKE, PAST_END, ODD_SIZE, NO_STATUS, SHORT_HEADER, FOREIGN, DISORDER, BAD_FLAGS, UNKNOWN_TYPE, EMPTY, MISTAKES };

static bool is_data(const struct request *request)
{
    return request->type == TYPE_IN || request->type == TYPE_OUT;
}

static bool is_ranges(const struct request *request)
{
    return request->type == TYPE_DISCARD || request->type == TYPE_WRITE_ZEROES;
}

// Spoils the streams; what is expected then. False: this mistake cannot be made here.
static bool spoil_streams(struct request *request, struct streams *streams, enum mistake mistake)
{
    uint64_t sector = sim_chance(1, 2) ? UINT64_MAX - sim_below(1 << 20) : SIM_SECTORS + sim_below(1000) * 8;
    uint32_t word;

    switch (mistake) {
    case PAST_END:
        memcpy(streams->readable + 8, &sector, 8);
        return is_data(request);
    case ODD_SIZE:
        word = sim_pick(1, SIM_SECTOR - 1);
        if (request->type == TYPE_IN)
            streams->writable_size += word;
        else
            streams->readable_size += word;
        return is_data(request) || (is_ranges(request) && word % RANGE != 0 && request->expected == EXPECT_OK);
    case SHORT_HEADER:
        streams->readable_size = sim_below(HEADER);
        return true;
    case EMPTY:
        streams->readable_size = HEADER;
        streams->writable_size = 1;
        return is_data(request) || (is_ranges(request) && request->expected == EXPECT_OK);
    case BAD_FLAGS:
        word = request->type == TYPE_DISCARD ? 1 : 2U << sim_below(31);
        memcpy(streams->readable + HEADER + 12, &word, 4);
        request->expected = EXPECT_UNSUPP;
        return is_ranges(request);
    case UNKNOWN_TYPE:
        word = sim_pick(14, 1000);
        memcpy(streams->readable, &word, 4);
        request->expected = EXPECT_UNSUPP;
        return true;
    default:
        return true;
    }
}

static enum mistake spoil(struct request *request, struct streams *streams)
{
    enum mistake mistake = NO_MISTAKE + 1 + sim_below(MISTAKES - 1);
    struct streams before = *streams;
    enum expectation expected = request->expected;

    if (!spoil_streams(request, streams, mistake)) {
        *streams = before;
        request->expected = expected;
        return NO_MISTAKE;
    }
    if (mistake == NO_STATUS)
        streams->writable_size = 0;
    if (mistake == NO_STATUS || mistake == DISORDER)
        request->expected = EXPECT_NOTHING;
    else if (mistake != BAD_FLAGS && mistake != UNKNOWN_TYPE)
        request->expected = EXPECT_IOERR;
    request->io.ranges_count = 0; // it does nothing
    return mistake;
}

// --- how it lies in memory ---

// Cuts a stream into buffers, `most` at most.
static bool cut(struct sim_chain *chain, uint32_t size, bool writable, unsigned most, const uint8_t *data)
{
    bool small = sim_chance(plan.splinters, 256);
    unsigned pieces = 0;

    while (size > 0) {
        uint32_t length = size;
        if (pieces + 1 < most && chain->count + 1 < SIM_PARTS && sim_chance(2, 3))
            length = small ? sim_pick(1, size < 24 ? size : 24) : sim_pick(1, size);
        if (pieces == most || chain->count == SIM_PARTS)
            return false;
        struct sim_part *part = &chain->parts[chain->count];
        *part = (struct sim_part){.size = length, .writable = writable};
        if (!sim_guest_take(length, 1, writable, &part->iova))
            return false;
        chain->count++;
        pieces++;
        if (data)
            sim_guest_put(part->iova, data, length);
        else
            sim_guest_scribble(part->iova, length);
        data = data ? data + length : NULL;
        size -= length;
    }
    return true;
}

static bool is_foreign(const struct request *request, unsigned part)
{
    return request->foreign == part + 1;
}

static void give_back(struct request *request)
{
    struct sim_chain *chain = &request->chain;

    for (unsigned i = 0; i < chain->count; i++) {
        if (!is_foreign(request, i))
            sim_guest_give(chain->parts[i].iova, chain->parts[i].size);
    }
    if (chain->indirect)
        sim_guest_give(chain->table, 16 * chain->count);
    request->io.busy = false;
}

// One buffer, not the one with the status, is somewhere else.
static bool make_foreign(struct request *request)
{
    struct sim_chain *chain = &request->chain;

    if (chain->count < 2)
        return false;
    unsigned which = sim_below(chain->count - 1);
    sim_guest_give(chain->parts[which].iova, chain->parts[which].size);
    request->foreign = which + 1;
    chain->parts[which].iova = sim_guest_hole();
    return true;
}

static void put_out_of_order(struct sim_chain *chain)
{
    struct sim_part last = chain->parts[chain->count - 1];

    memmove(&chain->parts[1], &chain->parts[0], (chain->count - 1) * sizeof last);
    chain->parts[0] = last;
}

static bool lay_out(struct request *request, const struct streams *streams, unsigned slots, bool indirect, enum mistake mistake)
{
    struct sim_chain *chain = &request->chain;
    unsigned most = indirect ? SIM_PARTS : slots;

    request->writable_size = streams->writable_size;
    if (most < 2 || (streams->readable_size == 0 && streams->writable_size == 0))
        return false;
    if (!cut(chain, streams->readable_size, false, most - 1, streams->readable) ||
        !cut(chain, streams->writable_size, true, most - chain->count, NULL))
        return false;
    if (mistake == FOREIGN && !make_foreign(request))
        return false;
    if (mistake == DISORDER) {
        if (streams->readable_size == 0 || streams->writable_size == 0)
            return false;
        put_out_of_order(chain);
    }
    if (!indirect)
        return true;
    chain->indirect = sim_guest_take(16 * chain->count, sim_chance(3, 4) ? 16 : 1, false, &chain->table);
    return chain->indirect;
}

static bool is_steady(const struct request *request)
{
    const struct sim_chain *chain = &request->chain;

    for (unsigned i = 0; i < chain->count; i++) {
        if (!is_foreign(request, i) && !sim_guest_steady(chain->parts[i].iova, chain->parts[i].size))
            return false;
    }
    return true;
}

bool request_make(struct request *request, const struct sim_ring *ring, const struct disk_view *view, unsigned slots)
{
    static struct streams streams;
    bool indirect = ring->indirect && sim_chance(2, 3);
    enum mistake mistake = NO_MISTAKE;

    *request = (struct request){.io.busy = true, .chain.owner = request};
    ask(request, &streams, view);
    if (sim_chance(plan.invalid, 256))
        mistake = spoil(request, &streams);
    if (!lay_out(request, &streams, slots, indirect, mistake)) {
        give_back(request);
        return false;
    }
    // A table that is not there would break the queue.
    if (indirect && !sim_guest_steady(request->chain.table, 16 * request->chain.count)) {
        give_back(request);
        return false;
    }
    request->io.may_fail = !is_steady(request);
    for (unsigned i = 0; i < request->io.ranges_count; i++)
        request->io.may_fail |= request->io.ranges[i].sector + request->io.ranges[i].sectors > sim_disk_sectors();
    return true;
}

// --- its course ---

static bool changes(const struct request *request)
{
    return (request->type == TYPE_OUT || is_ranges(request)) && request->expected == EXPECT_OK;
}

static void last_byte(const struct request *request, uint8_t *value, bool put)
{
    const struct sim_chain *chain = &request->chain;

    for (unsigned i = chain->count; i > 0; i--) {
        const struct sim_part *part = &chain->parts[i - 1];
        if (!part->writable || is_foreign(request, i - 1))
            continue;
        if (put)
            sim_guest_put(part->iova + part->size - 1, value, 1);
        else
            sim_guest_get(part->iova + part->size - 1, value, 1);
        return;
    }
}

void request_begin(struct request *request, uint64_t now)
{
    struct sim_chain *chain = &request->chain;
    uint8_t status = STATUS_UNTOUCHED;

    request->io.invoked = now;
    request->io.flushes = sim_disk_flushes();
    last_byte(request, &status, true);
    for (unsigned i = 0; i < chain->count; i++) {
        if (chain->parts[i].writable && !is_foreign(request, i))
            sim_guest_allow(chain->parts[i].iova, chain->parts[i].size, true);
    }
    if (changes(request))
        sim_io_write(&request->io, now);
    EVENT("driver: queue %llu: request of type %llu at %llu, %llu buffers", request->io.queue, request->type, request->io.ranges[0].sector,
          chain->count);
}

static void leave(struct request *request)
{
    struct sim_chain *chain = &request->chain;

    for (unsigned i = 0; i < chain->count; i++) {
        const struct sim_part *part = &chain->parts[i];
        if (is_foreign(request, i))
            continue;
        if (part->writable)
            sim_guest_allow(part->iova, part->size, false);
        sim_guest_scribble(part->iova, part->size);
    }
    give_back(request);
}

void request_drop(struct request *request, uint64_t now)
{
    sim_io_written(&request->io, now, false);
    leave(request);
}

static void gather(const struct request *request, uint8_t *to)
{
    const struct sim_chain *chain = &request->chain;

    for (unsigned i = 0; i < chain->count; i++) {
        const struct sim_part *part = &chain->parts[i];
        if (!part->writable)
            continue;
        if (!is_foreign(request, i))
            sim_guest_get(part->iova, to, part->size);
        to += part->size;
    }
}

static void check_ok(const struct request *request, const uint8_t *data, uint64_t now, uint64_t flushes)
{
    static const char serial[ID] = "walk";

    if (request->expected != EXPECT_OK && !(request->expected == EXPECT_IOERR && request->io.ranges_count > 0 && request->io.may_fail))
        sim_fail("a request of type %u with a mistake succeeds", request->type);
    if (request->type == TYPE_IN)
        sim_io_check_read(&request->io, data, now);
    if (request->type == TYPE_FLUSH && flushes == request->io.flushes)
        sim_fail("a flush succeeds without the backend");
    if (request->type == TYPE_GET_ID && memcmp(data, serial, ID) != 0)
        sim_fail("the disk has another serial number");
    sim_io_check_swallowed(&request->io);
}

static void check_status(const struct request *request, uint8_t status, const uint8_t *data, uint64_t now, uint64_t flushes)
{
    switch (status) {
    case STATUS_OK:
        check_ok(request, data, now, flushes);
        break;
    case STATUS_IOERR:
        if (request->expected != EXPECT_IOERR && !sim_io_takes_error(&request->io) && !request->io.may_fail)
            sim_fail("a request of type %u fails without a reason", request->type);
        break;
    case STATUS_UNSUPP:
        if (request->expected != EXPECT_UNSUPP)
            sim_fail("a request of type %u is not supported", request->type);
        break;
    case STATUS_UNTOUCHED:
        if (!request->io.may_fail)
            sim_fail("a request of type %u ends without a status", request->type);
        sim_io_takes_error(&request->io); // if it had one, nobody hears of it any more
        break;
    default:
        sim_fail("status %u", status);
    }
}

void request_end(struct request *request, uint32_t written, uint64_t now, uint64_t flushes)
{
    static uint8_t data[STREAM_MAX];
    uint32_t size = request->writable_size;
    uint8_t status = STATUS_UNTOUCHED;

    gather(request, data);
    if (size > 0)
        last_byte(request, &status, false);
    EVENT("driver: queue %llu: request of type %llu ends, status %llu, %llu bytes", request->io.queue, request->type, status, written);
    if (request->expected == EXPECT_NOTHING) {
        if (written > 0 || (size > 0 && status != STATUS_UNTOUCHED))
            sim_fail("a request that cannot be answered is");
    } else {
        if (written != size && !(request->io.may_fail && written == 0))
            sim_fail("%u bytes are said to be written of %u", written, size);
        check_status(request, status, data, now, flushes);
    }
    if (status != STATUS_OK && request->io.may_fail)
        sim_io_spread_doubt(&request->io);
    sim_io_written(&request->io, now, status == STATUS_OK && request->type != TYPE_DISCARD);
    leave(request);
}

// --- what touches it ---

static bool overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
    return a < b + b_size && b < a + a_size;
}

bool request_table_touches(const struct request *request, uint64_t iova, uint64_t size)
{
    return request->chain.indirect && overlap(request->chain.table, 16 * request->chain.count, iova, size);
}

bool request_touches(const struct request *request, uint64_t iova, uint64_t size)
{
    const struct sim_chain *chain = &request->chain;

    for (unsigned i = 0; i < chain->count; i++) {
        if (!is_foreign(request, i) && overlap(chain->parts[i].iova, chain->parts[i].size, iova, size))
            return true;
    }
    return request_table_touches(request, iova, size);
}
