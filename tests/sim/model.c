// SPDX-License-Identifier: BSD-3-Clause
// What a disk may hold: for each sector the writes that a read may find. A write that is under way may be seen or not; one that ended
// well hides what had ended before it began; one that failed or was given up may have happened or not.
#include "sim.h"

#include <string.h>

enum { WRITES = 4096, EACH = 1000, PRUNE = 32 };

struct write {
    uint64_t sector;
    uint32_t sectors;
    uint64_t stamp;
    uint64_t invoked;
    uint64_t responded; // UINT64_MAX: under way
    bool sure;
    unsigned uses; // sectors that list it; 0: free
};

static struct write writes[WRITES];
static uint16_t lists[SIM_SECTORS][EACH];
static uint16_t counts[SIM_SECTORS];
static uint64_t stamps;
static uint64_t oldest; // no read that began before this is under way

void sim_model_begin(void)
{
    memset(writes, 0, sizeof writes);
    memset(counts, 0, sizeof counts);
    stamps = 0;
    oldest = 0;
    // The disk is made of zeroes.
    for (unsigned i = 0; i < SIM_SECTORS; i++) {
        lists[i][0] = 0;
        counts[i] = 1;
    }
    writes[0] = (struct write){.sectors = SIM_SECTORS, .sure = true, .uses = SIM_SECTORS};
}

uint64_t sim_model_new_stamp(void)
{
    return ++stamps;
}

// Whether a read that begins at `invoked` can't find `write` any more in this sector.
static bool is_hidden(const struct write *write, uint64_t sector, uint64_t invoked)
{
    for (unsigned i = 0; i < counts[sector]; i++) {
        const struct write *other = &writes[lists[sector][i]];
        if (other->sure && write->responded < other->invoked && other->responded < invoked)
            return true;
    }
    return false;
}

static void prune(uint64_t sector)
{
    unsigned kept = 0;
    uint16_t list[EACH];

    for (unsigned i = 0; i < counts[sector]; i++) {
        struct write *write = &writes[lists[sector][i]];
        if (is_hidden(write, sector, oldest))
            write->uses--;
        else
            list[kept++] = lists[sector][i];
    }
    memcpy(lists[sector], list, kept * sizeof list[0]);
    counts[sector] = (uint16_t)kept;
}

void sim_model_prune(uint64_t bound)
{
    oldest = bound;
}

unsigned sim_model_write(uint64_t sector, uint32_t sectors, uint64_t stamp, uint64_t invoked)
{
    for (unsigned i = 0; i < WRITES; i++) {
        if (writes[i].uses > 0)
            continue;
        writes[i] = (struct write){.sector = sector,
                                   .sectors = sectors,
                                   .stamp = stamp,
                                   .invoked = invoked,
                                   .responded = UINT64_MAX,
                                   .uses = sectors};
        for (uint32_t s = 0; s < sectors; s++) {
            if (counts[sector + s] % PRUNE == PRUNE - 1)
                prune(sector + s);
            if (counts[sector + s] == EACH)
                sim_fail("the model is too small: %u writes of sector %llu", EACH, (unsigned long long)sector + s);
            lists[sector + s][counts[sector + s]++] = (uint16_t)i;
        }
        return i;
    }
    for (unsigned s = 0; s < SIM_SECTORS; s++)
        prune(s);
    for (unsigned i = 0; i < WRITES; i++) {
        if (writes[i].uses == 0)
            return sim_model_write(sector, sectors, stamp, invoked);
    }
    sim_fail("the model is too small");
}

void sim_model_written(unsigned handle, uint64_t responded, bool sure)
{
    writes[handle].responded = responded;
    writes[handle].sure = sure;
}

bool sim_model_may_read(uint64_t sector, uint64_t stamp, uint64_t invoked, uint64_t responded)
{
    for (unsigned i = 0; i < counts[sector]; i++) {
        const struct write *write = &writes[lists[sector][i]];
        if (write->stamp == stamp && write->invoked <= responded && !is_hidden(write, sector, invoked))
            return true;
    }
    return false;
}

// --- what is in a sector ---

static uint64_t word(uint64_t number, uint64_t stamp, unsigned i)
{
    return i == 0 ? stamp : (stamp * UINT64_C(0x9e3779b97f4a7c15) + number) * (2 * i + 1);
}

void sim_fill_sector(uint8_t *sector, uint64_t number, uint64_t stamp)
{
    memset(sector, 0, SIM_SECTOR);
    for (unsigned i = 0; stamp > 0 && i < SIM_SECTOR / 8; i++) {
        uint64_t value = word(number, stamp, i);
        memcpy(sector + 8 * i, &value, sizeof value);
    }
}

uint64_t sim_read_sector(const uint8_t *sector, uint64_t number)
{
    uint8_t expected[SIM_SECTOR];
    uint64_t stamp;

    memcpy(&stamp, sector, sizeof stamp);
    sim_fill_sector(expected, number, stamp);
    return memcmp(expected, sector, SIM_SECTOR) == 0 ? stamp : UINT64_MAX;
}
