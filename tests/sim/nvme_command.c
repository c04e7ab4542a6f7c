// SPDX-License-Identifier: BSD-3-Clause
// Commands: data by PRPs and SGLs in every layout that the rules allow, mistakes that cost a status, and a close look at what comes back.
#include "nvme_command.h"

#include "wire/nvme.h"

#include <sidecard/block.h>

#include <string.h>

enum {
    NSID = 1,
    SECTORS_MAX = 24,
    DATA_MAX = SECTORS_MAX * SIM_SECTOR,
    PRP = 8,
    PIECE_RANGE = 16, // bytes of a range of DSM
};

// When somebody last wrote to a sector, or began to; and how many do now.
static uint64_t touched[SIM_SECTORS];
static unsigned writing[SIM_SECTORS];

void nvme_commands_begin(void)
{
    memset(touched, 0, sizeof touched);
    memset(writing, 0, sizeof writing);
}

static void put16(uint8_t *to, uint16_t value)
{
    memcpy(to, &value, sizeof value);
}

static void put32(uint8_t *to, uint32_t value)
{
    memcpy(to, &value, sizeof value);
}

static void put64(uint8_t *to, uint64_t value)
{
    memcpy(to, &value, sizeof value);
}

// --- memory ---

static bool take(struct nvme_command *command, uint32_t size, uint32_t align, bool writable, uint64_t *iova)
{
    if (command->chunks_count == COMMAND_CHUNKS || !sim_guest_take(size, align, writable, iova))
        return false;
    command->chunks[command->chunks_count++] = (struct nvme_piece){.iova = *iova, .size = size};
    return true;
}

static void give_back(struct nvme_command *command)
{
    for (unsigned i = 0; i < command->chunks_count; i++)
        sim_guest_give(command->chunks[i].iova, command->chunks[i].size);
    command->io.busy = false;
}

static bool add_piece(struct nvme_command *command, uint64_t iova, uint32_t size, bool nowhere)
{
    if (command->pieces_count == COMMAND_PIECES)
        return false;
    command->pieces[command->pieces_count++] = (struct nvme_piece){iova, size, nowhere};
    return true;
}

// Puts what the device is to read into the pieces, or something that it has to overwrite.
static void fill_pieces(const struct nvme_command *command, const uint8_t *data)
{
    for (unsigned i = 0; i < command->pieces_count; i++) {
        const struct nvme_piece *piece = &command->pieces[i];
        if (!piece->nowhere && data)
            sim_guest_put(piece->iova, data, piece->size);
        else if (!piece->nowhere)
            sim_guest_scribble(piece->iova, piece->size);
        if (data)
            data += piece->size;
    }
}

// --- PRPs ---

// Where the data's pages are: anywhere, or one behind the other.
static bool cut_pages(struct nvme_command *command, uint32_t size, bool writable)
{
    uint64_t iova, offset = sim_chance(1, 2) ? 0 : sim_below(SIM_PAGE / 4) * 4;
    bool together = sim_chance(1, 2);

    if (together && !take(command, size, 4, writable, &iova))
        return false;
    if (together)
        offset = iova % SIM_PAGE;
    while (size > 0) {
        uint32_t step = SIM_PAGE - (uint32_t)offset < size ? SIM_PAGE - (uint32_t)offset : size;
        if (!together && !take(command, SIM_PAGE, SIM_PAGE, writable, &iova))
            return false;
        if (!add_piece(command, together ? iova : iova + offset, step, false))
            return false;
        iova += step;
        size -= step;
        offset = 0;
    }
    return true;
}

// The list of all pages but the first; often it goes on in another page.
static bool put_list(struct nvme_command *command, uint64_t *list)
{
    uint32_t count = command->pieces_count - 1, room = sim_pick(1, count), filled = 0;
    uint64_t at, next;

    if (room >= count || room < 2) {
        if (!take(command, 64, 64, false, list)) // does not cross a page
            return false;
        for (uint32_t i = 0; i < count; i++)
            sim_put64(*list + PRP * i, command->pieces[i + 1].iova);
        return true;
    }
    if (!take(command, SIM_PAGE, SIM_PAGE, false, &at) || !take(command, SIM_PAGE, SIM_PAGE, false, &next))
        return false;
    *list = at = at + SIM_PAGE - PRP * room;
    for (; filled < room - 1; filled++, at += PRP)
        sim_put64(at, command->pieces[filled + 1].iova);
    sim_put64(at, next);
    for (; filled < count; filled++, next += PRP)
        sim_put64(next, command->pieces[filled + 1].iova);
    return true;
}

static bool place_by_prps(struct nvme_command *command, uint8_t *entry, uint32_t size)
{
    uint64_t second = sim_random(); // nobody looks at it where there is one page

    if (!cut_pages(command, size, command->reads))
        return false;
    if (command->pieces_count == 2)
        second = command->pieces[1].iova;
    else if (command->pieces_count > 2 && !put_list(command, &second))
        return false;
    put64(entry + SDC_NVME_SQE_PRP1, command->pieces[0].iova);
    put64(entry + SDC_NVME_SQE_PRP2, second);
    return true;
}

// --- SGLs ---

static void put_descriptor(uint8_t *at, unsigned type, uint64_t address, uint32_t length)
{
    memset(at, 0, SDC_NVME_SGL);
    put64(at, address);
    put32(at + SDC_NVME_SGL_LENGTH, length);
    at[SDC_NVME_SGL_KIND] = (uint8_t)(type << 4);
}

static bool cut_anyhow(struct nvme_command *command, uint32_t size, bool writable)
{
    bool small = sim_chance(plan.splinters, 256);
    uint64_t iova;

    while (size > 0) {
        bool last = command->pieces_count + 2 >= COMMAND_PIECES || sim_chance(1, 3);
        uint32_t length = last ? size : small ? sim_pick(1, size < 24 ? size : 24) : sim_pick(1, size);
        bool bucket = command->reads && sim_chance(1, 8);
        if (!bucket && !take(command, length, 1, writable, &iova))
            return false;
        if (!add_piece(command, bucket ? 0 : iova, length, bucket))
            return false;
        size -= length;
    }
    return true;
}

static void put_pieces(const struct nvme_command *command, uint64_t at, unsigned first, unsigned count)
{
    uint8_t raw[SDC_NVME_SGL];

    for (unsigned i = 0; i < count; i++) {
        const struct nvme_piece *piece = &command->pieces[first + i];
        put_descriptor(raw, piece->nowhere ? SDC_NVME_SGL_BIT_BUCKET : SDC_NVME_SGL_DATA, piece->iova, piece->size);
        sim_guest_put(at + i * SDC_NVME_SGL, raw, sizeof raw);
    }
}

static bool place_by_sgl(struct nvme_command *command, uint8_t *entry, uint32_t size)
{
    uint8_t *pointer = entry + SDC_NVME_SQE_PRP1, raw[SDC_NVME_SGL];
    uint64_t first, second;

    if (!cut_anyhow(command, size, command->reads))
        return false;
    entry[SDC_NVME_SQE_FLAGS] |= SDC_NVME_PSDT_SGL;
    unsigned count = command->pieces_count, split = sim_below(count);
    if (count == 1 && sim_chance(1, 2)) {
        const struct nvme_piece *piece = &command->pieces[0];
        put_descriptor(pointer, piece->nowhere ? SDC_NVME_SGL_BIT_BUCKET : SDC_NVME_SGL_DATA, piece->iova, piece->size);
        return true;
    }
    if (!take(command, (split + 1) * SDC_NVME_SGL, 8, false, &first) ||
        !take(command, (count - split) * SDC_NVME_SGL, 8, false, &second))
        return false;
    put_pieces(command, second, split, count - split);
    if (split == 0) {
        put_descriptor(pointer, SDC_NVME_SGL_LAST_SEGMENT, second, count * SDC_NVME_SGL);
        return true;
    }
    put_pieces(command, first, 0, split);
    put_descriptor(raw, SDC_NVME_SGL_LAST_SEGMENT, second, (count - split) * SDC_NVME_SGL);
    sim_guest_put(first + split * SDC_NVME_SGL, raw, sizeof raw);
    put_descriptor(pointer, SDC_NVME_SGL_SEGMENT, first, (split + 1) * SDC_NVME_SGL);
    return true;
}

static bool place(struct nvme_command *command, uint8_t *entry, const uint8_t *data, uint32_t size)
{
    if (!(sim_chance(1, 3) ? place_by_sgl(command, entry, size) : place_by_prps(command, entry, size)))
        return false;
    fill_pieces(command, data);
    return true;
}

// --- what it asks for ---

static void put_blocks(const struct nvme_command *command, uint8_t *entry)
{
    uint32_t block = plan.block_size / SIM_SECTOR;

    put64(entry + SDC_NVME_SQE_CDW10, command->io.ranges[0].sector / block);
    put32(entry + SDC_NVME_SQE_CDW12, command->io.ranges[0].sectors / block - 1);
}

static bool ask_data(struct nvme_command *command, uint8_t *entry)
{
    static uint8_t data[DATA_MAX];
    struct sim_io *io = &command->io;
    const struct sim_range *range = &io->ranges[0];
    bool compare = command->opcode == SDC_NVME_IO_COMPARE;

    command->reads = command->opcode == SDC_NVME_IO_READ;
    io->op = command->opcode == SDC_NVME_IO_WRITE ? SDC_BLOCK_WRITE : SDC_BLOCK_READ;
    sim_io_choose_place(io, SECTORS_MAX);
    put_blocks(command, entry);
    if (io->op == SDC_BLOCK_WRITE)
        io->stamp = sim_model_new_stamp();
    for (uint32_t i = 0; i < range->sectors; i++)
        sim_fill_sector(data + i * SIM_SECTOR, range->sector + i, compare ? sim_disk_stamp(range->sector + i) : io->stamp);
    command->differs = compare && sim_chance(1, 3);
    if (command->differs)
        data[sim_chance(1, 3) ? range->sectors * SIM_SECTOR - 1 : sim_below(range->sectors * SIM_SECTOR)] ^= (uint8_t)(1 << sim_below(8));
    if (io->op == SDC_BLOCK_WRITE && sim_chance(1, 8))
        entry[SDC_NVME_SQE_CDW12 + 3] |= SDC_NVME_RW_FUA >> 24;
    return place(command, entry, command->reads ? NULL : data, range->sectors * SIM_SECTOR);
}

static bool ask_ranges(struct nvme_command *command, uint8_t *entry)
{
    uint8_t data[SIM_RANGES * PIECE_RANGE];
    struct sim_io *io = &command->io;
    unsigned count = sim_pick(1, SIM_RANGES);
    uint32_t block = plan.block_size / SIM_SECTOR;

    for (unsigned i = count; i > 0; i--) {
        sim_io_choose_place(io, 16);
        io->ranges[i - 1] = io->ranges[0];
        put32(data + (i - 1) * PIECE_RANGE, (uint32_t)sim_random());
        put32(data + (i - 1) * PIECE_RANGE + 4, io->ranges[0].sectors / block);
        put64(data + (i - 1) * PIECE_RANGE + 8, io->ranges[0].sector / block);
    }
    io->ranges_count = count;
    io->op = SDC_BLOCK_DISCARD;
    put32(entry + SDC_NVME_SQE_CDW10, count - 1);
    put32(entry + SDC_NVME_SQE_CDW11, SDC_NVME_DSM_AD);
    if (sim_chance(1, 4)) { // advice only
        put32(entry + SDC_NVME_SQE_CDW11, SDC_NVME_DSM_IDR | SDC_NVME_DSM_IDW);
        io->op = SIM_IO_NONE;
        io->ranges_count = 0;
    }
    return place(command, entry, data, count * PIECE_RANGE);
}

static bool ask(struct nvme_command *command, uint8_t *entry)
{
    static const uint8_t opcodes[] = {SDC_NVME_IO_READ,  SDC_NVME_IO_READ,    SDC_NVME_IO_READ,         SDC_NVME_IO_READ,
                                      SDC_NVME_IO_WRITE, SDC_NVME_IO_WRITE,   SDC_NVME_IO_WRITE,        SDC_NVME_IO_WRITE,
                                      SDC_NVME_IO_FLUSH, SDC_NVME_IO_COMPARE, SDC_NVME_IO_WRITE_ZEROES, SDC_NVME_IO_DSM};

    command->opcode = opcodes[sim_below(sizeof opcodes)];
    entry[SDC_NVME_SQE_OPCODE] = command->opcode;
    put16(entry + SDC_NVME_SQE_CID, command->cid);
    put32(entry + SDC_NVME_SQE_NSID, NSID);
    switch (command->opcode) {
    case SDC_NVME_IO_FLUSH:
        command->io.op = SDC_BLOCK_FLUSH;
        put32(entry + SDC_NVME_SQE_NSID, sim_chance(1, 3) ? SDC_NVME_NSID_ALL : NSID);
        return true;
    case SDC_NVME_IO_WRITE_ZEROES:
        command->io.op = SDC_BLOCK_WRITE_ZEROES;
        sim_io_choose_place(&command->io, 16);
        put_blocks(command, entry);
        entry[SDC_NVME_SQE_CDW12 + 3] |= sim_chance(1, 2) ? SDC_NVME_RW_DEAC >> 24 : 0;
        return true;
    case SDC_NVME_IO_DSM:
        return ask_ranges(command, entry);
    default:
        return ask_data(command, entry);
    }
}

// --- mistakes ---

enum mistake { PAST_END, BAD_NSID, BAD_OPCODE, FUSED, BAD_PSDT, ODD_PRP, ODD_PAGE, FOREIGN, SGL_SHORT, SGL_TYPE, TOO_LONG, MISTAKES };

// Whether the device has to look at its data. Advice it may leave alone.
static bool has_data(const struct nvme_command *command)
{
    return command->pieces_count > 0 && !(command->opcode == SDC_NVME_IO_DSM && command->io.op == SIM_IO_NONE);
}

static bool is_sgl(const uint8_t *entry)
{
    return entry[SDC_NVME_SQE_FLAGS] & SDC_NVME_PSDT;
}

static bool has_blocks(const struct nvme_command *command)
{
    return command->opcode != SDC_NVME_IO_FLUSH && command->opcode != SDC_NVME_IO_DSM;
}

static void add_to_pointer(uint8_t *entry, uint64_t by, unsigned offset)
{
    uint64_t value;

    memcpy(&value, entry + offset, sizeof value);
    put64(entry + offset, value + by);
}

static bool is_one_descriptor(const uint8_t *entry)
{
    return is_sgl(entry) && entry[SDC_NVME_SQE_PRP1 + SDC_NVME_SGL_KIND] <= SDC_NVME_SGL_BIT_BUCKET << 4;
}

// The status that the mistake earns, or 0: it cannot be made here.
static uint16_t make_mistake(const struct nvme_command *command, uint8_t *entry, enum mistake mistake)
{
    switch (mistake) {
    case PAST_END:
        put64(entry + SDC_NVME_SQE_CDW10, sim_chance(1, 2) ? UINT64_MAX - sim_below(1 << 20) : SIM_SECTORS + sim_below(1000) * 8);
        return has_blocks(command) ? SDC_NVME_SC_LBA_RANGE : 0;
    case BAD_NSID:
        put32(entry + SDC_NVME_SQE_NSID, sim_chance(1, 2) ? 0 : SDC_NVME_NSID_ALL - 1);
        return SDC_NVME_SC_INVALID_NS;
    case BAD_OPCODE:
        entry[SDC_NVME_SQE_OPCODE] = (uint8_t)sim_pick(0x20, 0xff);
        return SDC_NVME_SC_INVALID_OPCODE;
    case FUSED:
        entry[SDC_NVME_SQE_FLAGS] |= (uint8_t)sim_pick(1, 3);
        return SDC_NVME_SC_INVALID_FIELD;
    case BAD_PSDT:
        entry[SDC_NVME_SQE_FLAGS] |= SDC_NVME_PSDT;
        return SDC_NVME_SC_INVALID_FIELD;
    case ODD_PRP:
        add_to_pointer(entry, sim_pick(1, 3), SDC_NVME_SQE_PRP1);
        return has_data(command) && !is_sgl(entry) ? SDC_NVME_SC_PRP_OFFSET : 0;
    case ODD_PAGE:
        add_to_pointer(entry, sim_pick(1, 7), SDC_NVME_SQE_PRP2);
        return has_data(command) && command->pieces_count > 1 && !is_sgl(entry) ? SDC_NVME_SC_PRP_OFFSET : 0;
    case FOREIGN: // as far into its page as it was
        put64(entry + SDC_NVME_SQE_PRP1, (sim_guest_hole() & ~(uint64_t)(SIM_PAGE - 1)) + command->pieces[0].iova % SIM_PAGE);
        return has_data(command) && (!is_sgl(entry) || entry[SDC_NVME_SQE_PRP1 + SDC_NVME_SGL_KIND] == 0) ? SDC_NVME_SC_DATA_TRANSFER : 0;
    case SGL_SHORT:
        add_to_pointer(entry, sim_chance(1, 2) ? 1 : UINT64_MAX, SDC_NVME_SQE_PRP1 + SDC_NVME_SGL_LENGTH);
        return has_data(command) && is_one_descriptor(entry) ? SDC_NVME_SC_SGL_LENGTH : 0;
    case SGL_TYPE:
        entry[SDC_NVME_SQE_PRP1 + SDC_NVME_SGL_KIND] = (uint8_t)(sim_pick(4, 15) << 4);
        return has_data(command) && is_sgl(entry) ? SDC_NVME_SC_SGL_TYPE : 0;
    default: // TOO_LONG
        put16(entry + SDC_NVME_SQE_CDW12, (uint16_t)sim_pick((1 << 20) / plan.block_size, UINT16_MAX));
        return command->opcode == SDC_NVME_IO_READ || command->opcode == SDC_NVME_IO_WRITE ? SDC_NVME_SC_INVALID_FIELD : 0;
    }
}

static bool writes_the_disk(const struct nvme_command *command)
{
    return command->opcode != SDC_NVME_IO_READ && command->opcode != SDC_NVME_IO_FLUSH && command->opcode != SDC_NVME_IO_COMPARE;
}

static void spoil(struct nvme_command *command, uint8_t *entry)
{
    enum mistake mistake = sim_below(MISTAKES);
    uint8_t before[64];

    memcpy(before, entry, sizeof before);
    uint16_t earned = make_mistake(command, entry, mistake);
    if (earned == 0) {
        memcpy(entry, before, sizeof before);
        return;
    }
    command->expected = earned;
    if (plan.read_only && writes_the_disk(command) && (mistake > BAD_PSDT || mistake == PAST_END))
        command->expected = SDC_NVME_SC_READ_ONLY;
    EVENT("driver: mistake %llu, status %llx is to come of it", mistake, command->expected);
}

bool nvme_command_make(struct nvme_command *command, uint8_t entry[64])
{
    uint16_t cid = command->cid;

    *command = (struct nvme_command){.io = {.busy = true, .op = SIM_IO_NONE}, .cid = cid};
    memset(entry, 0, 64);
    if (!ask(command, entry)) {
        give_back(command);
        return false;
    }
    if (plan.read_only && writes_the_disk(command))
        command->expected = SDC_NVME_SC_READ_ONLY;
    if (sim_chance(plan.invalid, 256))
        spoil(command, entry);
    if (command->expected != 0) { // it does nothing
        command->io.op = SIM_IO_NONE;
        command->io.ranges_count = 0;
    }
    for (unsigned i = 0; i < command->chunks_count; i++)
        command->io.may_fail |= !sim_guest_steady(command->chunks[i].iova, command->chunks[i].size);
    for (unsigned i = 0; i < command->io.ranges_count; i++)
        command->io.may_fail |= command->io.ranges[i].sector + command->io.ranges[i].sectors > sim_disk_sectors();
    return true;
}

// --- its course ---

static bool changes(const struct nvme_command *command)
{
    return command->io.op != SIM_IO_NONE && writes_the_disk(command);
}

static void touch(const struct nvme_command *command, uint64_t now, int more)
{
    for (unsigned i = 0; changes(command) && i < command->io.ranges_count; i++) {
        const struct sim_range *range = &command->io.ranges[i];
        for (uint32_t s = 0; s < range->sectors; s++) {
            touched[range->sector + s] = now;
            writing[range->sector + s] = (unsigned)((int)writing[range->sector + s] + more);
        }
    }
}

// Whether nobody has written to its sectors since it began.
static bool is_calm(const struct nvme_command *command)
{
    const struct sim_range *range = &command->io.ranges[0];
    bool calm = true;

    for (uint32_t s = 0; s < range->sectors; s++)
        calm &= writing[range->sector + s] == 0 && touched[range->sector + s] < command->io.invoked;
    return calm;
}

void nvme_command_begin(struct nvme_command *command, uint64_t now)
{
    command->io.invoked = now;
    command->io.flushes = sim_disk_flushes();
    for (unsigned i = 0; command->reads && i < command->pieces_count; i++) {
        if (!command->pieces[i].nowhere)
            sim_guest_allow(command->pieces[i].iova, command->pieces[i].size, true);
    }
    if (changes(command))
        sim_io_write(&command->io, now);
    touch(command, now, 1);
    command->calm = is_calm(command);
    EVENT("driver: queue %llu: command %llu of opcode %llu at %llu", command->io.queue, command->cid, command->opcode,
          command->io.ranges[0].sector);
    for (unsigned i = 0; i < command->pieces_count; i++)
        EVENT("driver: piece %llu at %llx + %llx, nowhere %llu", i, command->pieces[i].iova, command->pieces[i].size,
              command->pieces[i].nowhere);
}

static void leave(struct nvme_command *command, uint64_t now)
{
    touch(command, now, -1);
    for (unsigned i = 0; command->reads && i < command->pieces_count; i++) {
        if (!command->pieces[i].nowhere)
            sim_guest_allow(command->pieces[i].iova, command->pieces[i].size, false);
    }
    for (unsigned i = 0; i < command->chunks_count; i++)
        sim_guest_scribble(command->chunks[i].iova, command->chunks[i].size);
    give_back(command);
}

void nvme_command_drop(struct nvme_command *command, uint64_t now)
{
    sim_io_written(&command->io, now, false);
    leave(command, now);
}

// Sectors of which a part went nowhere tell nothing.
static void check_read(const struct nvme_command *command, uint64_t now)
{
    static uint8_t data[DATA_MAX];
    static bool gone[DATA_MAX];
    uint32_t at = 0;

    for (unsigned i = 0; i < command->pieces_count; i++) {
        const struct nvme_piece *piece = &command->pieces[i];
        memset(gone + at, piece->nowhere, piece->size);
        if (!piece->nowhere)
            sim_guest_get(piece->iova, data + at, piece->size);
        at += piece->size;
    }
    for (uint32_t s = 0; s < command->io.ranges[0].sectors; s++) {
        struct sim_io one = command->io;
        one.ranges[0] = (struct sim_range){.sector = command->io.ranges[0].sector + s, .sectors = 1};
        if (!memchr(gone + s * SIM_SECTOR, true, SIM_SECTOR))
            sim_io_check_read(&one, data + s * SIM_SECTOR, now);
    }
}

static void check_success(const struct nvme_command *command, uint64_t now)
{
    if (command->expected != 0)
        sim_fail("a command of opcode %#x succeeds that is to end with status %#x", command->opcode, command->expected);
    if (command->differs)
        sim_fail("a compare finds no difference, though there is one");
    if (command->opcode == SDC_NVME_IO_READ)
        check_read(command, now);
    if (command->opcode == SDC_NVME_IO_FLUSH && sim_disk_flushes() == command->io.flushes)
        sim_fail("a flush succeeds without the backend");
    sim_io_check_swallowed(&command->io);
}

// Several of its ranges may have failed, some of them as one.
static bool takes_errors_of_ranges(const struct nvme_command *command)
{
    bool any = false;

    for (unsigned i = 0; i < command->io.ranges_count; i++) {
        while (sim_disk_take_error_touching(SDC_BLOCK_DISCARD, command->io.ranges[i].sector, command->io.ranges[i].sectors))
            any = true;
    }
    for (unsigned i = 0; i < sim_driver->ios_max; i++) {
        struct sim_io *io = sim_driver->io(i);
        if (io && io->busy && io->op == SDC_BLOCK_DISCARD)
            io->may_fail = true;
    }
    return any;
}

static void check_failure(const struct nvme_command *command, uint16_t status)
{
    if (command->opcode == SDC_NVME_IO_COMPARE && status == SDC_NVME_SC_COMPARE && command->expected == 0) {
        if (!command->differs && command->calm && is_calm(command) && !command->io.may_fail)
            sim_fail("a compare finds a difference, though there is none");
        return;
    }
    bool error = command->io.op == SDC_BLOCK_DISCARD ? takes_errors_of_ranges(command) : sim_io_takes_error(&command->io);
    if (!error && !command->io.may_fail && status != command->expected)
        sim_fail("a command of opcode %#x ends with status %#x instead of %#x", command->opcode, status, command->expected);
}

void nvme_command_end(struct nvme_command *command, uint16_t status, uint64_t now)
{
    EVENT("driver: queue %llu: command %llu of opcode %llu ends with status %llx", command->io.queue, command->cid, command->opcode,
          status);
    if (status == 0)
        check_success(command, now);
    else
        check_failure(command, status);
    if (status != 0 && command->io.may_fail)
        sim_io_spread_doubt(&command->io);
    sim_io_written(&command->io, now, status == 0 && command->io.op != SDC_BLOCK_DISCARD);
    leave(command, now);
}

bool nvme_command_touches(const struct nvme_command *command, uint64_t iova, uint64_t size)
{
    for (unsigned i = 0; i < command->chunks_count; i++) {
        const struct nvme_piece *chunk = &command->chunks[i];
        if (chunk->iova < iova + size && iova < chunk->iova + chunk->size)
            return true;
    }
    return false;
}
