// SPDX-License-Identifier: BSD-3-Clause
// The guest's memory: regions, each a window into a file or remote, that come, go and move. A shadow has what every byte should be;
// what the device may write is counted for each byte, and nothing else may ever change.
#include "sim.h"

#include "wire/vfio_user.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    REGIONS = 6,
    FILES = 16,
    PAGES = 64, // of guest addresses
    BYTES = PAGES * SIM_PAGE,
};
#define BASE UINT64_C(0x100000)

struct file {
    uint8_t *bytes; // NULL: none
    uint32_t size;
    unsigned maps; // by the server
};

enum state { AWAY, COMING, HERE, GOING };

struct region {
    uint64_t iova;
    uint32_t size;
    unsigned file;   // FILES: none now
    uint32_t offset; // in it
    bool alone;      // nobody else looks into its file
    bool writable;   // by the device
    bool remote;
    bool dimmed; // for now not writable, though it is meant to be
    bool kept;   // it was not given up, since the server was busy: some queues may have let go of it for now
    enum state state;
};

static struct file files[FILES];
static struct region regions[REGIONS];
static unsigned regions_count;
static uint8_t shadow[BYTES];
static uint8_t taken[BYTES];   // by the driver
static uint8_t allowed[BYTES]; // counts: the device may write it

// --- files ---

static unsigned file_new(uint32_t size)
{
    for (unsigned i = 0; i < FILES; i++) {
        if (files[i].bytes)
            continue;
        files[i] = (struct file){.bytes = calloc(1, size), .size = size};
        if (!files[i].bytes)
            abort();
        return i;
    }
    sim_fail("too many files");
}

uint8_t *sim_file_map(unsigned file)
{
    files[file].maps++;
    return files[file].bytes;
}

void sim_file_unmap(void *base)
{
    for (unsigned i = 0; i < FILES; i++) {
        if (files[i].bytes == base && files[i].maps > 0) {
            files[i].maps--;
            return;
        }
    }
    sim_fail("something is unmapped that was not mapped");
}

uint64_t sim_file_size(unsigned file)
{
    return files[file].size;
}

static void file_free(unsigned file)
{
    free(files[file].bytes);
    files[file] = (struct file){0};
}

// --- looking up ---

static struct region *region_at(uint64_t iova)
{
    for (unsigned i = 0; i < regions_count; i++) {
        if (iova >= regions[i].iova && iova - regions[i].iova < regions[i].size)
            return &regions[i];
    }
    return NULL;
}

static uint8_t *bytes_of(const struct region *region)
{
    return region->file == FILES ? NULL : files[region->file].bytes + region->offset;
}

// Calls visit for each region that [iova, iova + size) touches, with where in it; false if there is a hole or visit says so.
typedef bool visit_region(struct region *region, uint32_t offset, uint32_t size, void *context);
static bool each(uint64_t iova, uint64_t size, visit_region *visit, void *context)
{
    while (size > 0) {
        struct region *region = region_at(iova);
        if (!region)
            return false;
        uint32_t offset = (uint32_t)(iova - region->iova);
        uint32_t length = region->size - offset < size ? region->size - offset : (uint32_t)size;
        if (!visit(region, offset, length, context))
            return false;
        iova += length;
        size -= length;
    }
    return true;
}

// --- bytes, for the driver ---

static bool put_piece(struct region *region, uint32_t offset, uint32_t size, void *context)
{
    const uint8_t **from = context;

    if (bytes_of(region))
        memcpy(bytes_of(region) + offset, *from, size);
    memcpy(shadow + (region->iova - BASE) + offset, *from, size);
    *from += size;
    return true;
}

void sim_guest_put(uint64_t iova, const void *data, size_t size)
{
    if (!each(iova, size, put_piece, &data))
        sim_fail("the simulation writes where no memory is");
}

static bool get_piece(struct region *region, uint32_t offset, uint32_t size, void *context)
{
    uint8_t **to = context;
    const uint8_t *bytes = bytes_of(region) ? bytes_of(region) : shadow + (region->iova - BASE);

    memcpy(*to, bytes + offset, size);
    *to += size;
    return true;
}

void sim_guest_get(uint64_t iova, void *data, size_t size)
{
    if (!each(iova, size, get_piece, &data))
        sim_fail("the simulation reads where no memory is");
}

void sim_guest_scribble(uint64_t iova, uint32_t size)
{
    uint8_t bytes[256];

    memset(bytes, (int)sim_below(256), sizeof bytes);
    for (uint32_t done = 0; done < size; done += (uint32_t)sizeof bytes)
        sim_guest_put(iova + done, bytes, size - done < sizeof bytes ? size - done : sizeof bytes);
}

// --- places ---

static bool fits(struct region *region, uint32_t offset, uint32_t size, void *context)
{
    const bool *writable = context;

    return (region->writable || !*writable) && !memchr(taken + (region->iova - BASE) + offset, 1, size);
}

bool sim_guest_take(uint32_t size, uint32_t align, bool writable, uint64_t *iova)
{
    for (unsigned tries = 0; tries < 24; tries++) {
        const struct region *region = &regions[sim_below(regions_count)];
        uint64_t at = (region->iova + sim_below(region->size)) & ~(uint64_t)(align - 1);
        // Often where two regions meet.
        if (sim_chance(1, 4) && size > 1)
            at = (region->iova + region->size - 1 - sim_below(size)) & ~(uint64_t)(align - 1);
        if (!region_at(at) || !each(at, size, fits, &writable))
            continue;
        memset(taken + (at - BASE), 1, size);
        *iova = at;
        return true;
    }
    return false;
}

void sim_guest_give(uint64_t iova, uint32_t size)
{
    memset(taken + (iova - BASE), 0, size);
}

void sim_guest_allow(uint64_t iova, uint32_t size, bool allow)
{
    for (uint32_t i = 0; i < size; i++)
        allowed[iova - BASE + i] = (uint8_t)(allowed[iova - BASE + i] + (allow ? 1 : -1));
}

uint64_t sim_guest_hole(void)
{
    for (unsigned tries = 0; tries < 16; tries++) {
        uint64_t iova = BASE + sim_below(BYTES);
        if (!region_at(iova))
            return iova;
    }
    return sim_chance(1, 2) ? BASE + BYTES + sim_below(1 << 20) : UINT64_MAX - sim_below(4096);
}

static bool is_steady(struct region *region, uint32_t offset, uint32_t size, void *context)
{
    (void)offset, (void)size, (void)context;
    return region->state == HERE && !region->dimmed && !region->kept;
}

bool sim_guest_steady(uint64_t iova, uint32_t size)
{
    return each(iova, size, is_steady, NULL);
}

static bool is_shared(struct region *region, uint32_t offset, uint32_t size, void *context)
{
    (void)offset, (void)size, (void)context;
    return !region->remote;
}

bool sim_guest_shared(uint64_t iova, uint32_t size)
{
    return each(iova, size, is_shared, NULL);
}

bool sim_guest_whole(void)
{
    for (unsigned i = 0; i < regions_count; i++) {
        if (regions[i].state != HERE || regions[i].dimmed)
            return false;
    }
    return true;
}

// --- what the device does to them ---

static void check_changes(struct region *region)
{
    uint8_t *bytes = bytes_of(region);
    uint64_t start = region->iova - BASE;

    for (uint32_t i = 0; i < region->size; i++) {
        if (bytes[i] == shadow[start + i])
            continue;
        if (region->state == AWAY)
            sim_fail("the byte at %#llx changed after its memory was given up", (unsigned long long)region->iova + i);
        if (region->remote)
            sim_fail("the byte at %#llx changed, though it is remote", (unsigned long long)region->iova + i);
        if (!region->writable || region->dimmed)
            sim_fail("the byte at %#llx changed, which is read-only", (unsigned long long)region->iova + i);
        if (!allowed[start + i])
            sim_fail("the byte at %#llx changed, which no request gave", (unsigned long long)region->iova + i);
        shadow[start + i] = bytes[i];
    }
}

void sim_guest_check(void)
{
    for (unsigned i = 0; i < regions_count; i++) {
        struct region *region = &regions[i];
        if (bytes_of(region) && memcmp(bytes_of(region), shadow + (region->iova - BASE), region->size) != 0)
            check_changes(region);
    }
}

struct dma {
    uint8_t *data;
    bool write;
};

static bool dma_piece(struct region *region, uint32_t offset, uint32_t size, void *context)
{
    struct dma *dma = context;
    uint64_t start = region->iova - BASE + offset;

    if (region->state == AWAY)
        sim_fail("a DMA message to memory at %#llx, which was given up", (unsigned long long)region->iova + offset);
    if (dma->write && (!region->writable || region->dimmed))
        sim_fail("a DMA_WRITE to read-only memory at %#llx", (unsigned long long)region->iova + offset);
    for (uint32_t i = 0; dma->write && i < size; i++) {
        if (!allowed[start + i])
            sim_fail("a DMA_WRITE to the byte at %#llx, which no request gave", (unsigned long long)region->iova + offset + i);
    }
    if (dma->write) {
        memcpy(bytes_of(region) + offset, dma->data, size);
        memcpy(shadow + start, dma->data, size);
    } else {
        memcpy(dma->data, bytes_of(region) + offset, size);
    }
    dma->data += size;
    return true;
}

int sim_guest_dma(uint64_t iova, uint8_t *data, uint64_t size, bool write)
{
    struct dma dma = {data, write};

    if (!each(iova, size, dma_piece, &dma))
        sim_fail("a DMA message to %#llx, where no memory is", (unsigned long long)iova);
    return 0;
}

bool sim_guest_check_span(const void *base, size_t size)
{
    const uint8_t *at = base;

    for (unsigned i = 0; i < regions_count; i++) {
        const struct region *region = &regions[i];
        const uint8_t *bytes = bytes_of(region);
        if (bytes && at < bytes + region->size && at + size > bytes && (region->state == AWAY || region->remote))
            return false;
    }
    return true;
}

// --- coming and going ---

static void came(struct sim_command *command)
{
    struct region *region = command->context;

    if (command->error)
        sim_fail("DMA_MAP was refused: %d", command->error);
    EVENT("memory at %llx is here", region->iova);
    region->state = HERE;
    command->busy = false;
}

static void map(struct region *region)
{
    struct sdc_vfu_dma_map message = {.argsz = sizeof message,
                                      .flags = SDC_VFU_MAP_READ | (region->writable && !region->dimmed ? SDC_VFU_MAP_WRITE : 0),
                                      .offset = region->remote ? 0 : region->offset,
                                      .address = region->iova,
                                      .size = region->size};
    int fd = -1;

    EVENT("memory at %llx + %llx comes, remote %llu, dimmed %llu", region->iova, region->size, region->remote, region->dimmed);
    region->state = COMING;
    if (!region->remote)
        fd = sim_fd_new(SIM_FD_FILE, region->file);
    struct sim_command *command = sim_send(SDC_VFU_DMA_MAP, &message, sizeof message, &fd, !region->remote);
    command->done = came;
    command->context = region;
}

static void went(struct sim_command *command)
{
    struct region *region = command->context;

    if (command->error && command->error != EBUSY)
        sim_fail("DMA_UNMAP was refused: %d", command->error);
    region->state = command->error ? HERE : AWAY;
    region->kept = command->error;
    command->busy = false;
    if (region->state == HERE)
        return;
    EVENT("memory at %llx is away", region->iova);
    sim_guest_check();
    if (region->alone && region->file != FILES && files[region->file].maps > 0)
        sim_fail("the server still maps the file of memory that was given up");
    if (region->alone && sim_chance(1, 2)) {
        file_free(region->file);
        region->file = FILES;
    }
}

static void unmap(struct region *region)
{
    struct sdc_vfu_dma_unmap message = {.argsz = sizeof message, .address = region->iova, .size = region->size};

    EVENT("memory at %llx goes", region->iova);
    region->state = GOING;
    sim_driver->moved(region->iova, region->size);
    struct sim_command *command = sim_send(SDC_VFU_DMA_UNMAP, &message, sizeof message, NULL, 0);
    command->done = went;
    command->context = region;
}

static void bring_back(struct region *region, bool dim)
{
    if (region->file == FILES) {
        region->file = file_new(region->size);
        region->offset = 0;
        memcpy(files[region->file].bytes, shadow + (region->iova - BASE), region->size);
    }
    if (region->alone)
        region->remote = sim_chance(plan.remote, 16);
    region->dimmed = dim && region->writable;
    map(region);
}

void sim_guest_restless(void)
{
    struct region *region = &regions[sim_below(regions_count)];

    if (region->state == HERE)
        unmap(region);
    else if (region->state == AWAY)
        bring_back(region, sim_chance(1, 6));
}

void sim_guest_map_all(void)
{
    for (;;) {
        bool all = true;
        for (unsigned i = 0; i < regions_count; i++) {
            struct region *region = &regions[i];
            if (region->state == AWAY)
                bring_back(region, false);
            else if (region->state == HERE && region->dimmed)
                unmap(region);
            all &= region->state == HERE && !region->dimmed;
        }
        if (all)
            return;
        if (!sim_step())
            sim_fail("memory does not come or go");
    }
}

void sim_guest_forget(void)
{
    sim_guest_check();
    for (unsigned i = 0; i < regions_count; i++)
        regions[i].state = AWAY;
    for (unsigned i = 0; i < FILES; i++) {
        if (files[i].maps > 0)
            sim_fail("the server maps a file, though the session has ended");
    }
}

// --- life ---

void sim_guest_open(void)
{
    uint64_t iova = BASE;

    memset(taken, 0, sizeof taken);
    memset(allowed, 0, sizeof allowed);
    memset(shadow, 0, sizeof shadow);
    for (unsigned i = 0; i < FILES; i++)
        files[i] = (struct file){0};
    regions_count = sim_pick(2, REGIONS);
    for (unsigned i = 0; i < regions_count; i++) {
        regions[i] = (struct region){.iova = iova,
                                     .size = sim_pick(i < 2 ? 4 : 1, 7) * SIM_PAGE,
                                     .alone = true,
                                     .writable = i < 2 || sim_chance(7, 8),
                                     .remote = sim_chance(plan.remote, 16)};
        iova += regions[i].size + (sim_chance(1, 3) ? sim_pick(1, 3) * SIM_PAGE : 0);
    }
    for (unsigned i = 0; i < regions_count; i++) {
        struct region *region = &regions[i];
        bool pair = i + 1 < regions_count && sim_chance(1, 4);
        region->file = file_new(region->size + (pair ? region[1].size : 0));
        if (!pair)
            continue;
        // Two that look into one file, in the other order.
        region->offset = region[1].size;
        region[1].file = region->file;
        region->alone = region[1].alone = region->remote = region[1].remote = false;
        i++;
    }
}

void sim_guest_close(void)
{
    for (unsigned i = 0; i < FILES; i++)
        file_free(i);
}
