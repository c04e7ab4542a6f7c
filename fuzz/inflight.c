// SPDX-License-Identifier: BSD-3-Clause
// The log of what is in flight, in a region that somebody else scribbles on while it is written and before it is recovered.
#include "base/check.h"
#include "card.h"
#include "input.h"
#include "ring/ring.h"

#include <sidecard/virtio.h>

#include <stdlib.h>

enum {
    ENTRIES = 16, // at most
    DESC = 0x0000,
    DRIVER = 0x1000,
    DEVICE = 0x2000,
    BUFFER = 0x3000,
    REGION = 32 + ENTRIES * 32,
    AVAIL = 1 << 7,
    USED = 1 << 15,
};

struct course {
    struct fuzz_memory memory;
    struct sdc_map *map;
    _Alignas(8) uint8_t region[REGION];
    struct sdc_inflight log;
    struct sdc_ring ring;
    struct sdc_ring_config config;
    bool packed;
    struct sdc_chain *chains[ENTRIES];
    unsigned chains_count;
    uint16_t avail; // the driver's
    bool wrap;
    bool running;
};

static void check(const struct course *course)
{
    if (!course->running)
        return;
    fuzz_check(course->log.given_count <= course->config.size, "more was given than the queue has");
    fuzz_check(!course->packed || course->log.free_count <= course->config.size, "more entries are free than there are");
    fuzz_check(course->log.again_at <= course->log.again_count && course->log.again_count <= course->config.size, "too many again");
    fuzz_check(course->ring.in_flight == course->chains_count, "what is in flight is not what was taken");
}

// --- the device ---

static void give(struct course *course, unsigned index)
{
    struct sdc_chain *chain = course->chains[index];

    course->chains[index] = course->chains[--course->chains_count];
    sdc_ring_give(&course->ring, chain, 0);
    sdc_chain_destroy(chain);
    free(chain);
}

static void stop(struct course *course)
{
    while (course->chains_count > 0) {
        struct sdc_chain *chain = course->chains[--course->chains_count];
        sdc_chain_destroy(chain);
        free(chain);
    }
    sdc_ring_stop(&course->ring);
    sdc_inflight_close(&course->log);
    course->running = false;
}

static void start(struct course *course, bool resume)
{
    struct sdc_error err;

    course->config.resume = resume;
    course->config.log = &course->log;
    int rc = sdc_inflight_open(&course->log, course->region, REGION, course->config.size, course->packed);
    if (rc == 0)
        rc = sdc_ring_start(&course->ring, &course->config, &(struct sdc_memory){.map = course->map}, &err);
    course->running = rc == 0;
    if (rc < 0)
        sdc_inflight_close(&course->log);
}

static void take(struct course *course)
{
    struct sdc_chain *chain = course->chains_count < ENTRIES ? calloc(1, sizeof *chain) : NULL;

    if (!chain)
        return;
    sdc_chain_init(chain);
    if (sdc_ring_take(&course->ring, chain) == 1) {
        course->chains[course->chains_count++] = chain;
        return;
    }
    sdc_chain_destroy(chain);
    free(chain);
}

// --- the driver ---

static void offer(struct course *course, uint8_t how)
{
    uint8_t *bytes = course->memory.bytes;
    uint16_t size = (uint16_t)course->config.size;
    unsigned count = 1 + how % 3;

    if (!course->packed) {
        uint8_t *desc = bytes + DESC + (how >> 2) % size * 16;
        sdc_put64(desc, BUFFER);
        sdc_put32(desc + 8, 8);
        sdc_put16(desc + 12, how & 1);
        sdc_put16(bytes + DRIVER + 4 + 2 * (course->avail % size), (how >> 2) % size);
        sdc_put16(bytes + DRIVER + 2, ++course->avail);
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        uint8_t *desc = bytes + DESC + course->avail * 16;
        sdc_put64(desc, BUFFER);
        sdc_put32(desc + 8, 8);
        sdc_put16(desc + 12, how >> 2);
        sdc_put16(desc + 14, (uint16_t)((course->wrap ? AVAIL : USED) | (i + 1 < count)));
        if (++course->avail == size) {
            course->avail = 0;
            course->wrap = !course->wrap;
        }
    }
}

static void do_one(struct course *course, struct fuzz_input *input)
{
    uint8_t what = fuzz_u8(input);

    switch (what % 8) {
    case 0:
        offer(course, fuzz_u8(input));
        break;
    case 1:
        take(course);
        break;
    case 2:
        if (course->chains_count > 0)
            give(course, (what >> 3) % course->chains_count);
        break;
    case 3:
        sdc_ring_publish(&course->ring);
        break;
    case 4:
        sdc_put16(course->region + fuzz_u16(input) % (REGION - 1), fuzz_u16(input));
        break;
    case 5:
        sdc_put16(course->memory.bytes + (uint64_t)(what >> 3 & 3) * FUZZ_PAGE + fuzz_u16(input) % (ENTRIES * 16), fuzz_u16(input));
        break;
    case 6:
        stop(course);
        start(course, true);
        break;
    case 7:
        sdc_ring_rearm(&course->ring);
        break;
    }
    check(course);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    struct course course = {.wrap = true};

    fuzz_memory_init(&course.memory);
    fuzz_memory_add(&course.memory, 0, 0, 4, SDC_ACCESS_READ | SDC_ACCESS_WRITE);
    uint8_t how = fuzz_u8(&input);
    course.packed = how & 0x80;
    course.config = (struct sdc_ring_config){
        .size = course.packed ? 1 + how % ENTRIES : 1U << how % 5,
        .features = course.packed ? SDC_VIRTIO_F_RING_PACKED : 0,
        .desc = DESC, .driver = DRIVER, .device = DEVICE};
    course.map = fuzz_memory_publish(&course.memory);
    // A region as it is found, or a fresh one.
    if (how & 0x40)
        fuzz_bytes(&input, course.region, sizeof course.region);
    start(&course, how & 0x40);
    for (unsigned i = 0; course.running && i < 300 && fuzz_more(&input); i++)
        do_one(&course, &input);
    stop(&course);
    sdc_map_unref(course.map);
    fuzz_memory_destroy(&course.memory);
    return 0;
}
