// SPDX-License-Identifier: BSD-3-Clause
// The log of what is in flight, over vhost-user: what one back end took and did not finish, the next one does again.
//
// Most tests write the log themselves, as a back end that died at a certain place would have left it. The specification says what a log
// can look like, not what it must: where the back end writes another one these tests are not offered. (inflight-*/reconnect goes without.)
#include "cli/check/stage.h"

#include "base/bytes.h"
#include "base/check.h"
#include "os/fd.h"

#include <inttypes.h>
#include <string.h>

#define SECTION "vhost-user, Inflight I/O tracking"

enum { SIZE = 64, CHAINS = 8, GIVEN = 3, ROUNDS = 8 };

enum {
    VERSION = 1,
    AT_VERSION = 8, // of a queue's region, in bytes
    AT_DESC_NUM = 10,
    // split
    AT_LAST_BATCH = 12,
    AT_USED = 14,
    SPLIT_HEAD = 16,
    SPLIT_ENTRY = 16,
    SPLIT_INFLIGHT = 0,
    SPLIT_NEXT = 6,
    SPLIT_COUNTER = 8,
    // packed
    AT_FREE = 12,
    AT_OLD_FREE = 14,
    AT_PACKED_USED = 16,
    AT_OLD_USED = 18,
    AT_WRAP = 20,
    AT_OLD_WRAP = 21,
    PACKED_HEAD = 32,
    PACKED_ENTRY = 32,
    PACKED_INFLIGHT = 0,
    PACKED_NEXT = 2,
    PACKED_LAST = 4,
    PACKED_NUM = 6,
    PACKED_COUNTER = 8,
    PACKED_ID = 16,
    PACKED_FLAGS = 18,
    PACKED_LENGTH = 20,
    PACKED_ADDRESS = 24,
};

// Where the back end before had come to with the last chains that it had finished.
enum death {
    DIED_NOTED,  // they are used, and the log says so
    DIED_SHOWN,  // they are used, and the log does not say so yet
    DIED_HIDDEN, // they are in the log's last batch, but are not used yet
};

struct scene {
    struct sdc_check_stage stage;
    struct sdc_check_crowd crowd;
    uint8_t *log; // of queue 0
    unsigned entries; // of each chain
};

// The chains that it had finished, and not in the order in which they came.
static const unsigned given[GIVEN] = {4, 1, 6};

static bool was_given(unsigned chain)
{
    return chain == given[0] || chain == given[1] || chain == given[2];
}

static struct sdc_check_ring *ring_of(struct scene *scene)
{
    return &scene->stage.bed.queues[0].ring;
}

static uint8_t *split_entry(struct scene *scene, unsigned index)
{
    return scene->log + SPLIT_HEAD + (size_t)index * SPLIT_ENTRY;
}

static uint8_t *packed_entry(struct scene *scene, unsigned index)
{
    return scene->log + PACKED_HEAD + (size_t)index * PACKED_ENTRY;
}

// Chains lie in the log the other way round, so that where they lie does not say which one came first.
static unsigned packed_place(const struct scene *scene, unsigned chain)
{
    return (CHAINS - 1 - chain) * scene->entries;
}

// --- opening ---

static void map_log(struct scene *scene)
{
    const struct sdc_check_bed *bed = &scene->stage.bed;
    struct sdc_file_identity identity;
    uint64_t end;
    void *memory;

    sdc_check_that(bed->check,
                   sdc_fd_identify(bed->inflight_fd, &identity) == 0 && sdc_add(bed->inflight.mmap_offset, bed->inflight.mmap_size, &end) &&
                       end <= identity.size,
                   "the buffer lies inside its file");
    if (bed->inflight.mmap_size < PACKED_HEAD + SIZE * (uint64_t)PACKED_ENTRY &&
        bed->inflight.mmap_size < SPLIT_HEAD + SIZE * (uint64_t)SPLIT_ENTRY)
        sdc_check_not_offered(bed->check, "the buffer is too short for a log as the specification describes it, which need not be");
    if (sdc_fd_map(bed->inflight_fd, end, true, &memory) < 0)
        sdc_check_skip(bed->check, "the tester cannot map the buffer");
    scene->log = (uint8_t *)memory + bed->inflight.mmap_offset;
}

static void open_with_log(struct scene *scene, struct sdc_check *check, uint64_t features)
{
    struct sdc_check_stage *stage = &scene->stage;

    sdc_check_stage_open(stage, check, features, SDC_VIRTIO_BLK_SECTOR);
    if (features & SDC_VIRTIO_F_IN_ORDER)
        sdc_check_stage_needs(stage, SDC_VIRTIO_F_IN_ORDER, "IN_ORDER");
    sdc_check_vhost_needs(&stage->bed.vhost, SDC_VHOST_PROTOCOL_F_INFLIGHT_SHMFD, "INFLIGHT_SHMFD");
    stage->bed.ring_max = (uint16_t)sdc_min(stage->bed.ring_max, SIZE);
    scene->entries = sdc_check_stage_entries(stage);
    if (stage->bed.ring_max < SIZE || CHAINS * scene->entries > SIZE)
        sdc_check_skip(check, "%d requests do not fit into a ring of %u entries", CHAINS, stage->bed.ring_max);
}

// Whether the back end writes a log as the specification describes it.
static void know_log(struct sdc_check *check, uint64_t features)
{
    struct scene scene;

    open_with_log(&scene, check, features);
    sdc_check_bed_run_queues(&scene.stage.bed, 1, SIZE);
    sdc_check_stage_read(&scene.stage, 0, SDC_CHECK_CUT_PLAIN, false);
    map_log(&scene);
    unsigned used = sdc_get16(scene.log + (features & SDC_VIRTIO_F_RING_PACKED ? AT_OLD_USED : AT_USED));
    unsigned expected = features & SDC_VIRTIO_F_RING_PACKED ? scene.entries : 1;
    // It may be put down after the request is used: when the queue has stopped it is there.
    if (used != expected) {
        sdc_check_bed_vhost_stop_all(&scene.stage.bed);
        used = sdc_get16(scene.log + (features & SDC_VIRTIO_F_RING_PACKED ? AT_OLD_USED : AT_USED));
    }
    if (sdc_get16(scene.log + AT_VERSION) != VERSION || sdc_get16(scene.log + AT_DESC_NUM) != SIZE || used != expected)
        sdc_check_not_offered(check, "the log is not as the specification describes it, which it need not be");
    sdc_check_bed_close(&scene.stage.bed);
}

// A ring with requests of which the log will tell, and which no back end has been shown.
static void open_scene(struct scene *scene, struct sdc_check *check, uint64_t features)
{
    know_log(check, features);
    open_with_log(scene, check, features);
    struct sdc_check_bed *bed = &scene->stage.bed;
    sdc_check_crowd_new(&scene->stage, &scene->crowd, CHAINS);
    sdc_check_bed_make_queue(bed, 0, SIZE);
    ring_of(scene)->next = SIZE / 2 + SIZE / 4; // heads and ids begin again at 0 on the way
    sdc_check_that(check, sdc_check_crowd_add(&scene->stage, 0, &scene->crowd, false) == CHAINS, "the requests fit into the ring");
    sdc_check_ring_show(ring_of(scene));
    sdc_check_bed_vhost_make_inflight(bed);
    map_log(scene);
}

// --- what the one before has left ---

static void write_split_log(struct scene *scene, enum death death)
{
    const struct sdc_check_request *requests = scene->crowd.requests;
    uint16_t batch = 0;

    sdc_put16(scene->log + AT_DESC_NUM, SIZE);
    for (unsigned i = 0; i < CHAINS; i++) {
        uint8_t *entry = split_entry(scene, (unsigned)requests[i].id);
        sdc_put64(entry + SPLIT_COUNTER, i);
        entry[SPLIT_INFLIGHT] = death != DIED_NOTED || !was_given(i);
    }
    for (unsigned i = 0; i < GIVEN; i++) {
        uint16_t head = (uint16_t)requests[given[i]].id;
        sdc_put16(split_entry(scene, head) + SPLIT_NEXT, batch);
        batch = head;
    }
    sdc_put16(scene->log + AT_LAST_BATCH, batch);
    sdc_put16(scene->log + AT_USED, death == DIED_NOTED ? GIVEN : 0);
    sdc_put16(scene->log + AT_VERSION, VERSION);
}

static void write_packed_chain(struct scene *scene, unsigned chain, bool in_flight)
{
    struct sdc_check_piece pieces[SDC_CHECK_PIECES_MAX];
    const struct sdc_check_request *request = &scene->crowd.requests[chain];
    unsigned place = packed_place(scene, chain), wrap = 1u << 7;
    unsigned count = sdc_check_request_cut(request, &scene->stage.disk, SDC_CHECK_CUT_PLAIN, SIZE, pieces);
    uint8_t *head = packed_entry(scene, place);

    sdc_put16(head + PACKED_LAST, (uint16_t)(place + count - 1));
    sdc_put16(head + PACKED_NUM, (uint16_t)count);
    sdc_put64(head + PACKED_COUNTER, chain);
    head[PACKED_INFLIGHT] = in_flight;
    for (unsigned i = 0; i < count; i++) {
        uint8_t *entry = packed_entry(scene, place + i);
        unsigned next = i + 1 < count ? SDC_CHECK_DESC_NEXT : 0;
        sdc_put16(entry + PACKED_ID, (uint16_t)request->id);
        sdc_put16(entry + PACKED_FLAGS, (uint16_t)(pieces[i].flags | next | wrap));
        sdc_put32(entry + PACKED_LENGTH, pieces[i].size);
        sdc_put64(entry + PACKED_ADDRESS, pieces[i].iova);
    }
}

static void write_packed_log(struct scene *scene, enum death death)
{
    const uint16_t old_free = (uint16_t)(CHAINS * scene->entries), used = (uint16_t)(GIVEN * scene->entries);
    uint16_t now_free = old_free;

    sdc_put16(scene->log + AT_DESC_NUM, SIZE);
    for (unsigned i = 0; i < SIZE; i++)
        sdc_put16(packed_entry(scene, i) + PACKED_NEXT, (uint16_t)(i + 1));
    for (unsigned i = 0; i < CHAINS; i++)
        write_packed_chain(scene, i, death != DIED_NOTED || !was_given(i));
    for (unsigned i = 0; i < GIVEN; i++) {
        unsigned place = packed_place(scene, given[i]);
        sdc_put16(packed_entry(scene, place + scene->entries - 1) + PACKED_NEXT, now_free);
        now_free = (uint16_t)place;
    }
    sdc_put16(scene->log + AT_FREE, now_free);
    sdc_put16(scene->log + AT_OLD_FREE, death == DIED_NOTED ? now_free : old_free);
    sdc_put16(scene->log + AT_PACKED_USED, used);
    sdc_put16(scene->log + AT_OLD_USED, death == DIED_NOTED ? used : 0);
    scene->log[AT_WRAP] = scene->log[AT_OLD_WRAP] = 1;
    sdc_put16(scene->log + AT_VERSION, VERSION);
}

// --- and what comes of it ---

// It died with requests in flight, of which it had finished some. All others are done, once each.
static void go_on(struct sdc_check *check, uint64_t features, enum death death, const char *what)
{
    struct scene scene;
    int ids[GIVEN];

    open_scene(&scene, check, features);
    struct sdc_check_bed *bed = &scene.stage.bed;
    for (unsigned i = 0; i < GIVEN; i++)
        ids[i] = scene.crowd.requests[given[i]].id;
    if (features & SDC_VIRTIO_F_RING_PACKED)
        write_packed_log(&scene, death);
    else
        write_split_log(&scene, death);
    if (death != DIED_HIDDEN)
        sdc_check_ring_pretend(ring_of(&scene), ids, GIVEN);
    sdc_check_that(check, sdc_check_bed_take_used(bed, 0) == (death == DIED_HIDDEN ? 0 : GIVEN), "what was used before is there");
    sdc_check_sent(check, "a log of %d requests that were taken, %s, and a start of the queue", CHAINS, what);
    sdc_check_bed_vhost_start(bed, 0, sdc_check_ring_used_base(ring_of(&scene)));
    sdc_check_bed_run(bed);
    sdc_check_bed_kick(bed, 0);
    sdc_check_bed_wait_all(bed, 0, true);
    for (unsigned i = 0; i < CHAINS; i++) {
        if (death == DIED_HIDDEN || !was_given(i))
            sdc_check_request_judge(bed, 0, &scene.crowd.requests[i], SDC_VIRTIO_BLK_S_OK);
        else
            sdc_check_that(check, sdc_check_request_untouched(&scene.crowd.requests[i]),
                           "what was used before the back end came is not touched any more");
    }
    // It goes on from there.
    for (unsigned i = 0; i < SIZE; i++)
        sdc_check_stage_read(&scene.stage, 0, SDC_CHECK_CUT_PLAIN, false);
}

static void replayed(struct sdc_check *check, uint64_t layout)
{
    go_on(check, layout, DIED_NOTED, "3 of them used in another order and marked as done");
}

static void batch_shown(struct sdc_check *check, uint64_t layout)
{
    go_on(check, layout, DIED_SHOWN, "3 of them used in another order, which are still in flight by the log, but in its last batch");
}

static void batch_hidden(struct sdc_check *check, uint64_t layout)
{
    go_on(check, layout, DIED_HIDDEN, "3 of them in the last batch of the log, but not used yet");
}

// Resubmitted in order of their counters: where buffers are used in the order in which they came, that is seen.
static void in_order(struct sdc_check *check, uint64_t layout)
{
    go_on(check, layout | SDC_VIRTIO_F_IN_ORDER, DIED_HIDDEN, "with VIRTIO_F_IN_ORDER, none of them used yet");
}

// Requests that are in flight, as far as they are, when the connection ends; whatever the log looks like.
static void reconnect(struct sdc_check *check, uint64_t layout)
{
    struct sdc_check_stage stage;
    struct sdc_check_crowd crowd;

    sdc_check_stage_open(&stage, check, layout, SDC_VIRTIO_BLK_SECTOR);
    struct sdc_check_bed *bed = &stage.bed;
    sdc_check_vhost_needs(&bed->vhost, SDC_VHOST_PROTOCOL_F_INFLIGHT_SHMFD, "INFLIGHT_SHMFD");
    sdc_check_crowd_new(&stage, &crowd, SDC_CHECK_CROWD_MAX);
    sdc_check_bed_run_queues(bed, 1, 256);
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned added = sdc_check_crowd_add(&stage, 0, &crowd, false);
        sdc_check_bed_show(bed, 0);
        sdc_check_bed_vhost_reconnect(bed);
        unsigned used = sdc_check_bed_take_used(bed, 0);
        sdc_check_sent(check, "%u requests, %u of them used when the connection had ended, and another connection with the same log", added,
                       used);
        sdc_check_bed_vhost_start(bed, 0, sdc_check_ring_used_base(&bed->queues[0].ring));
        sdc_check_bed_run(bed);
        sdc_check_bed_kick(bed, 0);
        sdc_check_bed_wait_all(bed, 0, true);
        for (unsigned i = 0; i < added; i++)
            sdc_check_request_judge(bed, 0, &crowd.requests[i], SDC_VIRTIO_BLK_S_OK);
    }
}

SDC_CHECK_BOTH(replayed)
SDC_CHECK_BOTH(batch_shown)
SDC_CHECK_BOTH(batch_hidden)
SDC_CHECK_BOTH(in_order)
SDC_CHECK_BOTH(reconnect)

#define ROWS(name, function)                                                \
    {"inflight-split/" name, SECTION, SDC_CHECK_REQUESTS, split_##function}, \
    {"inflight-packed/" name, SECTION, SDC_CHECK_REQUESTS, packed_##function}

static const struct sdc_check_test tests[] = {
    ROWS("replayed", replayed),         ROWS("last-batch-shown", batch_shown), ROWS("last-batch-not-shown", batch_hidden),
    ROWS("replayed-in-order", in_order), ROWS("reconnect", reconnect),
};

const struct sdc_check_table sdc_check_vhost_inflight = {tests, SDC_COUNT(tests)};
