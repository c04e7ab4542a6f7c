// SPDX-License-Identifier: BSD-3-Clause
// Rings with a mistake in them, as no driver may make them. The specification does not say what a device does about one: it may fail the
// request, stop the queue, ask for a reset, or close the connection. But it stays there and in step, touches no memory that it was not
// given, and works for the next driver (a reset, or another connection).
#include "cli/check/stage.h"

#include "base/bytes.h"
#include "base/check.h"
#include "os/clock.h"

#include <inttypes.h>
#include <string.h>

enum {
    QUEUE = 16,
    LOOK_MS = 30, // for the device to do something about a mistake, or nothing
    CANARY = 4096,
    CANARY_BYTE = 0xc3,
    HEADER = 16,
    STATUS = 1,
    CHAIN_MAX = 64,
};

#define NOWHERE UINT64_C(0x10)

struct scene {
    struct sdc_check_stage stage;
    struct sdc_check_piece pieces[CHAIN_MAX]; // three, as they should be; a disk's: header, data, status
    unsigned variant;
};

static struct sdc_check_ring *ring_of(struct scene *scene)
{
    return &scene->stage.bed.queues[0].ring;
}

static void add(struct scene *scene, unsigned count)
{
    sdc_check_ring_add(ring_of(scene), scene->pieces, count);
}

static void add_as_is(struct scene *scene, unsigned count)
{
    sdc_check_ring_add_as_is(ring_of(scene), scene->pieces, count);
}

// One piece that says a table of the pieces lies where it does.
static void add_table(struct scene *scene, unsigned count, uint32_t size, uint16_t flags)
{
    const struct sdc_check_request *request = &scene->stage.request;
    struct sdc_check_piece table = {.iova = request->table_iova, .size = size, .flags = SDC_CHECK_DESC_INDIRECT | flags};

    for (unsigned i = 0; i < count; i++)
        sdc_check_ring_table_entry(ring_of(scene), request->table, i, &scene->pieces[i]);
    sdc_check_ring_add_as_is(ring_of(scene), &table, 1);
}

static void link_pieces(struct scene *scene, unsigned count)
{
    for (unsigned i = 0; i + 1 < count; i++) {
        scene->pieces[i].flags |= SDC_CHECK_DESC_NEXT;
        scene->pieces[i].next = (uint16_t)(i + 1);
    }
}

// --- the mistakes: each adds what is wrong, and says false when there are no more variants of it ---

static bool loop(struct scene *scene)
{
    unsigned count = scene->variant == 0 ? 1 : scene->variant == 1 ? 3 : QUEUE;

    for (unsigned i = 3; i < QUEUE; i++)
        scene->pieces[i] = scene->pieces[2];
    link_pieces(scene, count);
    scene->pieces[count - 1].flags |= SDC_CHECK_DESC_NEXT;
    scene->pieces[count - 1].next = 0;
    add_as_is(scene, count);
    return scene->variant < 2;
}

static bool next_outside(struct scene *scene)
{
    static const uint16_t nexts[] = {QUEUE, QUEUE + 1, 0x8000, UINT16_MAX};

    scene->pieces[0].flags |= SDC_CHECK_DESC_NEXT;
    scene->pieces[0].next = nexts[scene->variant];
    add_as_is(scene, 1);
    return scene->variant + 1 < SDC_COUNT(nexts);
}

static bool head_outside(struct scene *scene)
{
    static const uint16_t heads[] = {QUEUE, 0x8000, UINT16_MAX};

    sdc_check_ring_add_head(ring_of(scene), heads[scene->variant]);
    return scene->variant + 1 < SDC_COUNT(heads);
}

static bool index_jumps(struct scene *scene)
{
    static const uint16_t jumps[] = {QUEUE + 1, 0x7fff, 0x8001, UINT16_MAX};

    add(scene, 3);
    ring_of(scene)->avail = (uint16_t)(ring_of(scene)->avail + jumps[scene->variant] - 1);
    return scene->variant + 1 < SDC_COUNT(jumps);
}

static bool outside_memory(struct scene *scene)
{
    const struct sdc_client_memory *memory = &scene->stage.bed.memory;
    const uint64_t places[] = {NOWHERE, memory->iova - SDC_VIRTIO_BLK_SECTOR / 2, memory->iova + memory->size - SDC_VIRTIO_BLK_SECTOR / 2,
                               memory->iova + memory->size, UINT64_MAX - SDC_VIRTIO_BLK_SECTOR / 2, UINT64_C(1) << 63};
    unsigned which = scene->variant % 3;

    scene->pieces[which].iova = places[scene->variant / 3];
    add(scene, 3);
    return scene->variant + 1 < 3 * SDC_COUNT(places);
}

static bool huge(struct scene *scene)
{
    static const uint32_t sizes[] = {UINT32_MAX, 0x80000000, 1 << 30};

    const struct sdc_client_memory *memory = &scene->stage.bed.memory;
    // What lies inside of the memory is of no use to us.
    scene->pieces[1].iova = memory->iova + memory->size - SDC_VIRTIO_BLK_SECTOR;
    scene->pieces[1].size = sizes[scene->variant % 3];
    // Once, and so often that the sum of all does not fit into 32 bits.
    unsigned count = scene->variant < 3 ? 3 : QUEUE;
    struct sdc_check_piece status = scene->pieces[2];
    for (unsigned i = 2; i + 1 < count; i++)
        scene->pieces[i] = scene->pieces[1];
    scene->pieces[count - 1] = status;
    add(scene, count);
    return scene->variant < 5;
}

static bool zero_length(struct scene *scene)
{
    if (scene->variant < 3)
        scene->pieces[scene->variant].size = 0;
    for (unsigned i = 0; scene->variant == 3 && i < 3; i++)
        scene->pieces[i].size = 0;
    add(scene, 3);
    return scene->variant < 3;
}

static bool writable_first(struct scene *scene)
{
    struct sdc_check_piece header = scene->pieces[0];

    if (header.flags & SDC_CHECK_DESC_WRITE)
        sdc_check_not_offered(scene->stage.bed.check, "a request has nothing that the device reads");
    scene->pieces[0] = scene->pieces[2];
    scene->pieces[2] = header;
    add(scene, 3);
    return false;
}

static bool parts_missing(struct scene *scene)
{
    switch (scene->variant) {
    case 0: // no status
        add(scene, 1);
        return true;
    case 1: // no header
        scene->pieces[0] = scene->pieces[2];
        add(scene, 1);
        return true;
    case 2: // half a header
        scene->pieces[0].size = HEADER / 2;
        add(scene, 3);
        return true;
    case 3: // all of it read-only
        scene->pieces[1].flags = scene->pieces[2].flags = 0;
        add(scene, 3);
        return true;
    case 4: // data that are no sectors
        scene->pieces[1].size = SDC_VIRTIO_BLK_SECTOR - 1;
        add(scene, 3);
        return true;
    default: // no data
        scene->pieces[1] = scene->pieces[2];
        add(scene, 2);
        return false;
    }
}

static bool table_in_table(struct scene *scene)
{
    link_pieces(scene, 3);
    scene->pieces[1] = (struct sdc_check_piece){.iova = scene->stage.request.table_iova,
                                                .size = 3 * SDC_CHECK_DESC_BYTES,
                                                .flags = (uint16_t)(SDC_CHECK_DESC_INDIRECT | (scene->variant ? SDC_CHECK_DESC_NEXT : 0)),
                                                .next = 2};
    add_table(scene, 3, 3 * SDC_CHECK_DESC_BYTES, 0);
    return scene->variant == 0;
}

static bool table_and_next(struct scene *scene)
{
    const struct sdc_check_request *request = &scene->stage.request;

    sdc_check_ring_table(ring_of(scene), request->table, scene->pieces, 3);
    scene->pieces[0] = (struct sdc_check_piece){.iova = request->table_iova,
                                                .size = 3 * SDC_CHECK_DESC_BYTES,
                                                .flags = SDC_CHECK_DESC_INDIRECT | SDC_CHECK_DESC_NEXT,
                                                .next = 1};
    scene->pieces[1] = scene->pieces[2];
    add_as_is(scene, 2);
    return false;
}

static bool table_length(struct scene *scene)
{
    static const uint32_t sizes[] = {0, 1, 8, 3 * SDC_CHECK_DESC_BYTES - 1, 3 * SDC_CHECK_DESC_BYTES + 1, 0xfffffff0, UINT32_MAX,
                                     0x10000 * SDC_CHECK_DESC_BYTES};

    link_pieces(scene, 3);
    add_table(scene, 3, sizes[scene->variant], 0);
    return scene->variant + 1 < SDC_COUNT(sizes);
}

static bool table_outside(struct scene *scene)
{
    const struct sdc_client_memory *memory = &scene->stage.bed.memory;
    const uint64_t places[] = {NOWHERE, memory->iova + memory->size - SDC_CHECK_DESC_BYTES, memory->iova + memory->size,
                               UINT64_MAX - SDC_CHECK_DESC_BYTES};

    scene->pieces[0] = (struct sdc_check_piece){
        .iova = places[scene->variant], .size = 3 * SDC_CHECK_DESC_BYTES, .flags = SDC_CHECK_DESC_INDIRECT};
    add_as_is(scene, 1);
    return scene->variant + 1 < SDC_COUNT(places);
}

static bool table_links(struct scene *scene)
{
    static const uint16_t nexts[] = {0, 1, 3, 1000, UINT16_MAX};

    link_pieces(scene, 3);
    scene->pieces[1].next = nexts[scene->variant];
    add_table(scene, 3, 3 * SDC_CHECK_DESC_BYTES, 0);
    return scene->variant + 1 < SDC_COUNT(nexts);
}

// --- one mistake ---

static bool is_gone(struct scene *scene, int ms)
{
    return sdc_check_bed_gone(&scene->stage.bed, ms);
}

static void check_canary(struct scene *scene, const uint8_t *canary)
{
    for (unsigned i = 0; i < CANARY; i++)
        if (canary[i] != CANARY_BYTE)
            sdc_check_fail(scene->stage.bed.check, "the device must not write to memory that it was not given");
}

// Until the device has done something about it, or time is up.
static void look(struct scene *scene)
{
    struct sdc_check_used used;

    for (unsigned i = 0; i < LOOK_MS; i++) {
        if (sdc_check_ring_take(ring_of(scene), &used) != 0 || is_gone(scene, 1) || sdc_check_bed_broken(&scene->stage.bed, 0))
            return;
    }
}

// The same device, after a reset where there is one, and else over another connection.
static void works_again(struct scene *scene, uint64_t features)
{
    struct sdc_check_stage *stage = &scene->stage;
    struct sdc_check *check = stage->bed.check;
    bool gone = is_gone(scene, 0);
    bool can_reset = !stage->bed.vhost_user ||
                     stage->bed.vhost.protocol & (SDC_VHOST_PROTOCOL_F_RESET_DEVICE | SDC_VHOST_PROTOCOL_F_STATUS);

    if (gone || !can_reset) {
        if (!gone)
            sdc_check_vhost_fence(&stage->bed.vhost);
        sdc_check_bed_vanish(&stage->bed);
        sdc_check_stage_open(stage, check, features, SDC_VIRTIO_BLK_SECTOR);
    } else {
        sdc_check_bed_reset(&stage->bed);
    }
    sdc_check_bed_run_queues(&stage->bed, 1, QUEUE);
    sdc_check_stage_read(stage, 0, SDC_CHECK_CUT_PLAIN, false);
    sdc_check_bed_close(&stage->bed);
}

// Does one after another of its variants.
static void make(struct sdc_check *check, uint64_t layout, uint64_t features, const char *what, bool (*mistake)(struct scene *scene))
{
    static struct scene scene;
    bool more = true;

    for (unsigned variant = 0; more; variant++) {
        struct sdc_check_stage *stage = &scene.stage;
        uint64_t iova;
        sdc_check_stage_open(stage, check, layout | features, SDC_VIRTIO_BLK_SECTOR);
        if (features & SDC_VIRTIO_F_INDIRECT_DESC)
            sdc_check_stage_needs(stage, SDC_VIRTIO_F_INDIRECT_DESC, "INDIRECT_DESC");
        uint8_t *canary = sdc_check_bed_take(&stage->bed, CANARY, &iova);
        memset(canary, CANARY_BYTE, CANARY);
        sdc_check_bed_run_queues(&stage->bed, 1, QUEUE);
        sdc_check_request_prepare(&stage->request);
        memset(scene.pieces, 0, sizeof scene.pieces);
        sdc_check_request_three(&stage->bed, &stage->request, &stage->disk, scene.pieces);
        scene.variant = variant;
        more = mistake(&scene);
        sdc_check_ring_show(ring_of(&scene));
        sdc_check_bed_kick(&stage->bed, 0);
        look(&scene);
        sdc_check_sent(check, "%s (the %uth of its kind), and then a good request", what, variant + 1);
        check_canary(&scene, canary);
        sdc_check_request_guards(&stage->bed, &stage->request);
        works_again(&scene, layout | features);
    }
}

// Memory that is full of what is no ring at all.
static bool garbage(struct scene *scene)
{
    struct sdc_check_ring *ring = ring_of(scene);
    uint32_t state = 1 + scene->variant;

    for (unsigned i = 0; i < ring->config.size * SDC_CHECK_DESC_BYTES; i++) {
        state = state * 1664525 + 1013904223;
        ring->desc[i] = (uint8_t)(state >> 24);
    }
    for (unsigned i = 0; !ring->config.packed && i < ring->config.size; i++)
        sdc_check_ring_add_head(ring, (uint16_t)i);
    return scene->variant < 15;
}

#define INDIRECT SDC_VIRTIO_F_INDIRECT_DESC

#define ONE(layout, bit, name, features, what) \
    static void layout##_##name(struct sdc_check *check) { make(check, bit, features, what, name); }
#define SPLIT(name, features, what) ONE(split, 0, name, features, what)
#define TWO(name, features, what) SPLIT(name, features, what) ONE(packed, SDC_VIRTIO_F_RING_PACKED, name, features, what)

TWO(loop, 0, "a chain whose end leads to its beginning, or that has no end")
SPLIT(next_outside, 0, "a next that is outside the table")
SPLIT(head_outside, 0, "an available entry that is outside the table")
SPLIT(index_jumps, 0, "an available index that is further ahead than the ring is long")
TWO(outside_memory, 0, "a descriptor outside the memory")
TWO(huge, 0, "descriptors that are longer than the memory")
TWO(zero_length, 0, "descriptors with a length of 0")
TWO(writable_first, 0, "a writable descriptor before a readable one")
TWO(parts_missing, 0, "a request whose parts are missing or too short")
TWO(table_in_table, INDIRECT, "an indirect table inside an indirect table")
TWO(table_and_next, INDIRECT, "a descriptor with INDIRECT and NEXT")
TWO(table_length, INDIRECT, "an indirect table of a length that there is not")
TWO(table_outside, INDIRECT, "an indirect table outside the memory")
SPLIT(table_links, INDIRECT, "an indirect table whose links loop or lead outside")
TWO(garbage, INDIRECT, "a ring full of random bytes")

static void split_table_not_agreed(struct sdc_check *check)
{
    make(check, 0, 0, "an indirect table, which was not agreed on", table_links);
}

static void packed_table_not_agreed(struct sdc_check *check)
{
    make(check, SDC_VIRTIO_F_RING_PACKED, 0, "an indirect table, which was not agreed on", table_links);
}

#define SPLIT_ROW(name, section, function) {"split-mistakes/" name, section, SDC_CHECK_REQUESTS, split_##function}
#define ROWS(name, split_section, packed_section, function) \
    SPLIT_ROW(name, split_section, function), {"packed-mistakes/" name, packed_section, SDC_CHECK_REQUESTS, packed_##function}

static const struct sdc_check_test tests[] = {
    ROWS("loop", "virtio 1.2, 2.7.5.2", "virtio 1.2, 2.8.17", loop),
    SPLIT_ROW("next-outside", "virtio 1.2, 2.7.5", next_outside),
    SPLIT_ROW("head-outside", "virtio 1.2, 2.7.6", head_outside),
    SPLIT_ROW("index-jumps", "virtio 1.2, 2.7.6", index_jumps),
    ROWS("outside-memory", "virtio 1.2, 2.7.5", "virtio 1.2, 2.8.13", outside_memory),
    ROWS("huge", "virtio 1.2, 2.7.5.2", "virtio 1.2, 2.8.13", huge),
    ROWS("zero-length", "virtio 1.2, 2.7.5", "virtio 1.2, 2.8.13", zero_length),
    ROWS("writable-first", "virtio 1.2, 2.7.4.2", "virtio 1.2, 2.8.17", writable_first),
    {"split-mistakes/parts-missing", "virtio 1.2, 5.2.6", SDC_CHECK_BLK, split_parts_missing},
    {"packed-mistakes/parts-missing", "virtio 1.2, 5.2.6", SDC_CHECK_BLK, packed_parts_missing},
    ROWS("table-in-table", "virtio 1.2, 2.7.5.3.1", "virtio 1.2, 2.8.19", table_in_table),
    ROWS("table-and-next", "virtio 1.2, 2.7.5.3.1", "virtio 1.2, 2.8.19", table_and_next),
    ROWS("table-length", "virtio 1.2, 2.7.5.3", "virtio 1.2, 2.8.7", table_length),
    ROWS("table-outside", "virtio 1.2, 2.7.5.3", "virtio 1.2, 2.8.7", table_outside),
    SPLIT_ROW("table-links", "virtio 1.2, 2.7.5.3", table_links),
    ROWS("table-not-agreed-on", "virtio 1.2, 2.7.5.3.1", "virtio 1.2, 2.8.19", table_not_agreed),
    ROWS("garbage", "virtio 1.2, 2.7", "virtio 1.2, 2.8", garbage),
};

const struct sdc_check_table sdc_check_ring_mistakes = {tests, SDC_COUNT(tests)};
