// SPDX-License-Identifier: BSD-3-Clause
// Filling and checking blocks.
#include "cli/bench_data.h"

#include "base/bytes.h"
#include "cli/bench_offsets.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MAGIC UINT64_C(0x68636e6562636473) // "sdcbench"

struct header {
    uint64_t magic;
    uint64_t seed;
    uint64_t offset;
    uint64_t generation;
    uint64_t size;
};

static void make_header(struct header *header, size_t size, const struct sdc_bench_stamp *stamp)
{
    *header = (struct header){
        .magic = htole64(MAGIC),
        .seed = htole64(stamp->seed),
        .offset = htole64(stamp->offset),
        .generation = htole64(stamp->generation),
        .size = htole64(size),
    };
}

static uint64_t key_of(const struct sdc_bench_stamp *stamp)
{
    return sdc_bench_mix(stamp->seed + sdc_bench_mix(stamp->offset + sdc_bench_mix(stamp->generation)));
}

static uint64_t word_at(uint64_t key, size_t index)
{
    uint64_t word = (key + index) * UINT64_C(0x9e3779b97f4a7c15);
    return word ^ (word >> 29);
}

void sdc_bench_data_fill(void *block, size_t size, const struct sdc_bench_stamp *stamp)
{
    struct header header;
    uint64_t key = key_of(stamp);
    make_header(&header, size, stamp);
    memcpy(block, &header, sizeof header);
    for (size_t at = sizeof header; at < size; at += 8)
        sdc_put64((uint8_t *)block + at, word_at(key, at));
}

// --- checking ---

static bool is_zero(const uint8_t *block, size_t size)
{
    return block[0] == 0 && memcmp(block, block + 1, size - 1) == 0;
}

static bool say(char what[200], const char *name, uint64_t expected, uint64_t found)
{
    snprintf(what, 200, "expected %s %" PRIu64 ", found %" PRIu64, name, expected, found);
    return false;
}

static bool check_header(const void *block, size_t size, const struct sdc_bench_stamp *stamp,
                         uint64_t *generation, char what[200])
{
    struct header header;
    memcpy(&header, block, sizeof header);
    if (le64toh(header.magic) != MAGIC) {
        char generation_text[40] = "";
        if (stamp->generation != 0)
            snprintf(generation_text, sizeof generation_text, " and generation %" PRIu64, stamp->generation);
        snprintf(what, 200, "expected a block of seed %" PRIu64 "%s, found %s", stamp->seed, generation_text,
                 is_zero(block, size) ? "zeroes" : "data that was not written with --verify");
        return false;
    }
    *generation = le64toh(header.generation);
    if (le64toh(header.offset) != stamp->offset)
        return say(what, "the block of offset", stamp->offset, le64toh(header.offset));
    if (le64toh(header.size) != size)
        return say(what, "a block written with --bs", size, le64toh(header.size));
    if (le64toh(header.seed) != stamp->seed)
        return say(what, "seed", stamp->seed, le64toh(header.seed));
    if (stamp->generation != 0 && *generation != stamp->generation)
        return say(what, "generation", stamp->generation, *generation);
    return true;
}

bool sdc_bench_data_check(const void *block, size_t size, const struct sdc_bench_stamp *stamp, char what[200])
{
    struct sdc_bench_stamp own = *stamp;
    if (!check_header(block, size, stamp, &own.generation, what))
        return false;
    uint64_t key = key_of(&own);
    for (size_t at = sizeof(struct header); at < size; at += 8) {
        uint64_t expected = word_at(key, at), found = sdc_get64((const uint8_t *)block + at);
        if (found == expected)
            continue;
        snprintf(what, 200,
                 "the block's header is right (generation %" PRIu64 "), but byte %zu on are %016" PRIx64
                 " instead of %016" PRIx64,
                 own.generation, at, htobe64(found), htobe64(expected));
        return false;
    }
    return true;
}
