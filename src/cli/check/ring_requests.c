// SPDX-License-Identifier: BSD-3-Clause
// Rings that are used as they should be, in every way that there is: sizes, laps, chains of all shapes, tables, many in flight, features
// on and off. All on reads of a virtio disk, over either transport; each for split and for packed rings.
#include "cli/check/disk.h"

#include "base/bytes.h"
#include "base/check.h"
#include "os/clock.h"

#include <inttypes.h>
#include <string.h>

enum {
    DATA = 16 * SDC_CHECK_SECTOR,
    FLIGHT_MAX = 64,
    LAPS = 3,
    SIZE_MAX_TRIED = 1024,
};

#define RINGS (SDC_VIRTIO_F_INDIRECT_DESC | SDC_VIRTIO_F_EVENT_IDX)

struct stage {
    struct sdc_check_bed bed;
    struct sdc_check_disk disk;
    struct sdc_check_request request;
};

// A disk with these features of the rings, which it has to offer; but for the layout they may be missing.
static void open_stage(struct stage *stage, struct sdc_check *check, uint64_t features, uint32_t data)
{
    const struct sdc_check_bed_wishes wishes = {.features = features | SDC_CHECK_BLK_FEATURES, .memory = 32 << 20};

    sdc_check_bed_open(&stage->bed, check, &wishes);
    if (features & SDC_VIRTIO_F_RING_PACKED && !(stage->bed.features & SDC_VIRTIO_F_RING_PACKED))
        sdc_check_not_offered(check, "VIRTIO_F_RING_PACKED is not offered");
    sdc_check_disk_read(&stage->bed, &stage->disk);
    if (stage->disk.sectors < DATA / SDC_CHECK_SECTOR)
        sdc_check_skip(check, "the disk has %" PRIu64 " sectors; %d are needed", stage->disk.sectors, DATA / SDC_CHECK_SECTOR);
    sdc_check_request_new(&stage->bed, data, &stage->request);
    stage->request.type = SDC_CHECK_DISK_IN;
    stage->request.size = data;
}

static bool has(const struct stage *stage, uint64_t feature)
{
    return (stage->bed.features & feature) != 0;
}

static void needs(const struct stage *stage, uint64_t feature, const char *name)
{
    if (!has(stage, feature))
        sdc_check_not_offered(stage->bed.check, "VIRTIO_F_%s is not offered", name);
}

// Reads with the stage's request.
static void do_read(struct stage *stage, uint16_t queue, enum sdc_check_cut cut, bool indirect)
{
    sdc_check_request_do(&stage->bed, queue, &stage->request, &stage->disk, cut, indirect);
}

static void same_bytes(struct stage *stage, const uint8_t *expected, const char *how)
{
    if (memcmp(sdc_check_request_data(&stage->request), expected, stage->request.size) == 0)
        return;
    sdc_check_sent(stage->bed.check, "a read of sectors 0 to %u as %s", stage->request.size / SDC_CHECK_SECTOR - 1, how);
    sdc_check_came(stage->bed.check, "other bytes than those of a read with header, data and status in one descriptor each");
    sdc_check_fail(stage->bed.check, "the device must not make assumptions about the arrangement of descriptors");
}

// --- chains ---

static void shapes(struct sdc_check *check, uint64_t layout)
{
    struct stage stage;
    uint8_t expected[DATA];

    open_stage(&stage, check, layout | RINGS, DATA);
    sdc_check_bed_run_queues(&stage.bed, 1, 0);
    do_read(&stage, 0, SDC_CHECK_CUT_PLAIN, false);
    memcpy(expected, sdc_check_request_data(&stage.request), DATA);
    for (unsigned cut = 0; cut < SDC_CHECK_CUTS; cut++) {
        for (unsigned indirect = 0; indirect <= has(&stage, SDC_VIRTIO_F_INDIRECT_DESC); indirect++) {
            do_read(&stage, 0, cut, indirect);
            same_bytes(&stage, expected, sdc_check_cut_name(cut));
        }
    }
}

// Both halves in one chain: direct descriptors, then a table with the rest. Split rings only (2.7.5.3.2).
static void direct_then_indirect(struct sdc_check *check, uint64_t layout)
{
    struct stage stage;
    struct sdc_check_piece pieces[SDC_CHECK_PIECES_MAX], chain[2];
    uint8_t expected[DATA];

    open_stage(&stage, check, layout | RINGS, DATA);
    needs(&stage, SDC_VIRTIO_F_INDIRECT_DESC, "INDIRECT_DESC");
    sdc_check_bed_run_queues(&stage.bed, 1, 0);
    do_read(&stage, 0, SDC_CHECK_CUT_PLAIN, false);
    memcpy(expected, sdc_check_request_data(&stage.request), DATA);
    sdc_check_request_prepare(&stage.request);
    unsigned count = sdc_check_request_cut(&stage.request, &stage.disk, SDC_CHECK_CUT_PLAIN, 64, pieces);
    sdc_check_ring_table(&stage.bed.queues[0].ring, stage.request.table, pieces + 1, count - 1);
    chain[0] = pieces[0];
    chain[1] = (struct sdc_check_piece){.iova = stage.request.table_iova,
                                        .size = (count - 1) * SDC_CHECK_DESC_BYTES,
                                        .flags = SDC_CHECK_DESC_INDIRECT};
    stage.request.id = sdc_check_ring_add(&stage.bed.queues[0].ring, chain, 2);
    sdc_check_sent(check, "a chain of the header and then a table with data and status");
    sdc_check_bed_show(&stage.bed, 0);
    sdc_check_bed_wait(&stage.bed, 0, stage.request.id);
    sdc_check_request_judge(&stage.bed, 0, &stage.request, SDC_CHECK_DISK_OK);
    same_bytes(&stage, expected, "a descriptor and a table");
}

// The descriptor that refers to a table may have the write flag, which means nothing there.
static void table_marked_writable(struct sdc_check *check, uint64_t layout)
{
    struct stage stage;
    struct sdc_check_piece pieces[SDC_CHECK_PIECES_MAX];

    open_stage(&stage, check, layout | RINGS, DATA);
    needs(&stage, SDC_VIRTIO_F_INDIRECT_DESC, "INDIRECT_DESC");
    sdc_check_bed_run_queues(&stage.bed, 1, 0);
    sdc_check_request_prepare(&stage.request);
    unsigned count = sdc_check_request_cut(&stage.request, &stage.disk, SDC_CHECK_CUT_PLAIN, 64, pieces);
    sdc_check_ring_table(&stage.bed.queues[0].ring, stage.request.table, pieces, count);
    pieces[0] = (struct sdc_check_piece){.iova = stage.request.table_iova,
                                         .size = count * SDC_CHECK_DESC_BYTES,
                                         .flags = SDC_CHECK_DESC_INDIRECT | SDC_CHECK_DESC_WRITE};
    stage.request.id = sdc_check_ring_add(&stage.bed.queues[0].ring, pieces, 1);
    sdc_check_sent(check, "a table whose descriptor has the write flag too");
    sdc_check_bed_show(&stage.bed, 0);
    sdc_check_bed_wait(&stage.bed, 0, stage.request.id);
    sdc_check_request_judge(&stage.bed, 0, &stage.request, SDC_CHECK_DISK_OK);
}

// As long a chain as the disk says it takes, and the queue allows.
static void longest(struct sdc_check *check, uint64_t layout)
{
    struct stage stage;
    const uint32_t size = 128 * SDC_CHECK_SECTOR;

    open_stage(&stage, check, layout | RINGS, size);
    if (stage.disk.sectors < size / SDC_CHECK_SECTOR)
        sdc_check_skip(check, "the disk has %" PRIu64 " sectors", stage.disk.sectors);
    sdc_check_bed_run_queues(&stage.bed, 1, 0);
    do_read(&stage, 0, SDC_CHECK_CUT_MANY, false);
    if (has(&stage, SDC_VIRTIO_F_INDIRECT_DESC))
        do_read(&stage, 0, SDC_CHECK_CUT_MANY, true);
}

// --- rings ---

// The largest chain that a ring of so many entries holds: 3, 2, or 1 as a table.
static bool read_in(struct stage *stage, uint16_t size)
{
    bool indirect = size < 2;

    if (indirect && !has(stage, SDC_VIRTIO_F_INDIRECT_DESC))
        return false;
    do_read(stage, 0, size < 3 ? SDC_CHECK_CUT_JOINED : SDC_CHECK_CUT_PLAIN, indirect);
    return true;
}

static void sizes(struct sdc_check *check, uint64_t layout)
{
    static const uint16_t packed_sizes[] = {1, 2, 3, 5, 7, 33, 100, 255};
    bool packed = layout & SDC_VIRTIO_F_RING_PACKED;
    struct stage stage;

    open_stage(&stage, check, layout | RINGS, SDC_CHECK_SECTOR);
    uint16_t max = (uint16_t)sdc_min(sdc_check_bed_queue_max(&stage.bed, 0), SIZE_MAX_TRIED);
    size_t used = stage.bed.memory.used;
    for (unsigned i = 0;; i++) {
        uint32_t size = packed && i < SDC_COUNT(packed_sizes) ? packed_sizes[i] : 1u << (packed ? i - SDC_COUNT(packed_sizes) : i);
        if (size > max)
            break;
        // A chain is no longer than the queue, a table's neither: what fits into a ring of one entry is nothing that a disk takes.
        if (size < 2)
            continue;
        sdc_check_sent(check, "a queue of %u entries", size);
        sdc_check_bed_run_queues(&stage.bed, 1, (uint16_t)size);
        for (uint32_t j = 0; j < LAPS * sdc_min(size, 8) + 1; j++)
            read_in(&stage, (uint16_t)size);
        sdc_check_bed_reset(&stage.bed);
        stage.bed.memory.used = used;
    }
}

// Chains of 1, 2, 3 and more entries, several laps, so that chains straddle the end of the ring.
static void laps(struct sdc_check *check, uint64_t layout)
{
    struct stage stage;
    const uint16_t size = 32;

    open_stage(&stage, check, layout | RINGS, DATA);
    sdc_check_bed_run_queues(&stage.bed, 1, (uint16_t)sdc_min(size, sdc_check_bed_queue_max(&stage.bed, 0)));
    for (unsigned i = 0; i < LAPS * size; i++)
        do_read(&stage, 0, i % SDC_CHECK_CUTS, i % 7 == 6 && has(&stage, SDC_VIRTIO_F_INDIRECT_DESC));
}

// So many requests, reused as they come back.
struct crowd {
    struct sdc_check_request requests[FLIGHT_MAX];
    unsigned count;
};

static void gather(struct stage *stage, struct crowd *crowd, unsigned count)
{
    crowd->count = (unsigned)sdc_min(count, FLIGHT_MAX);
    for (unsigned i = 0; i < crowd->count; i++) {
        sdc_check_request_new(&stage->bed, SDC_CHECK_SECTOR, &crowd->requests[i]);
        crowd->requests[i].type = SDC_CHECK_DISK_IN;
        crowd->requests[i].size = SDC_CHECK_SECTOR;
        crowd->requests[i].sector = i % (DATA / SDC_CHECK_SECTOR);
        crowd->requests[i].id = -1;
    }
}

// Puts as many of the crowd as fit into a queue at once, waits for all, and judges them. How many there were.
static unsigned wave(struct stage *stage, uint16_t queue, struct crowd *crowd, bool polled)
{
    bool indirect = has(stage, SDC_VIRTIO_F_INDIRECT_DESC);
    unsigned added = 0;

    while (added < crowd->count) {
        sdc_check_request_prepare(&crowd->requests[added]);
        if (!sdc_check_request_add(&stage->bed, queue, &crowd->requests[added], &stage->disk, SDC_CHECK_CUT_PLAIN, indirect))
            break;
        added++;
    }
    sdc_check_sent(stage->bed.check, "%u reads at once", added);
    sdc_check_bed_show(&stage->bed, queue);
    sdc_check_bed_wait_all(&stage->bed, queue, polled);
    for (unsigned i = 0; i < added; i++)
        sdc_check_request_judge(&stage->bed, queue, &crowd->requests[i], SDC_CHECK_DISK_OK);
    return added;
}

static void full(struct sdc_check *check, uint64_t layout)
{
    struct stage stage;
    struct crowd crowd;

    open_stage(&stage, check, layout | RINGS, SDC_CHECK_SECTOR);
    gather(&stage, &crowd, FLIGHT_MAX);
    sdc_check_bed_run_queues(&stage.bed, 1, (uint16_t)sdc_min(FLIGHT_MAX, sdc_check_bed_queue_max(&stage.bed, 0)));
    for (unsigned i = 0; i < LAPS * 2; i++)
        wave(&stage, 0, &crowd, false);
}

// The index of a split ring has 16 bits, whatever its size: it goes on at 0 after 65535. Over vhost-user rings start just before that, and
// packed ones before the end of their second lap.
static void index_wraps(struct sdc_check *check, uint64_t layout)
{
    struct stage stage;
    struct crowd crowd;
    unsigned left = 65536 + 2 * FLIGHT_MAX;

    open_stage(&stage, check, layout | RINGS, SDC_CHECK_SECTOR);
    gather(&stage, &crowd, FLIGHT_MAX);
    sdc_check_bed_make_queue(&stage.bed, 0, (uint16_t)sdc_min(FLIGHT_MAX, sdc_check_bed_queue_max(&stage.bed, 0)));
    if (stage.bed.vhost_user) {
        uint32_t at = layout & SDC_VIRTIO_F_RING_PACKED ? stage.bed.queues[0].ring.config.size - 3u : 65536 - FLIGHT_MAX - 3;
        sdc_check_ring_clear(&stage.bed.queues[0].ring, layout & SDC_VIRTIO_F_RING_PACKED ? at | at << 16 : at);
        left = 4 * FLIGHT_MAX;
    }
    sdc_check_bed_start_queue(&stage.bed, 0);
    sdc_check_bed_run(&stage.bed);
    while (left > 0) {
        left -= (unsigned)sdc_min(left, wave(&stage, 0, &crowd, true));
        if (left > 0 && sdc_clock_ns() + check->options->timeout_s * UINT64_C(1000000000) > check->deadline_ns)
            sdc_check_skip(check, "65536 requests take the device too long: type a longer --timeout");
    }
}

static void all_queues(struct sdc_check *check, uint64_t layout)
{
    struct stage stage;
    struct crowd crowds[8];

    open_stage(&stage, check, layout | RINGS, SDC_CHECK_SECTOR);
    uint16_t count = (uint16_t)sdc_min(sdc_min(stage.bed.queues_max, stage.disk.queues), SDC_COUNT(crowds));
    if (count < 2)
        sdc_check_not_offered(check, "the device has one queue");
    for (unsigned i = 0; i < count; i++)
        gather(&stage, &crowds[i], 16);
    sdc_check_bed_run_queues(&stage.bed, count, 64);
    for (unsigned i = 0; i < 4; i++)
        for (uint16_t queue = 0; queue < count; queue++)
            wave(&stage, queue, &crowds[queue], false);
}

// --- features, on and off ---

static const uint64_t choices[] = {SDC_VIRTIO_F_INDIRECT_DESC, SDC_VIRTIO_F_EVENT_IDX, SDC_VIRTIO_F_IN_ORDER};

static void combinations(struct sdc_check *check, uint64_t layout)
{
    for (unsigned set = 0; set < 1u << SDC_COUNT(choices); set++) {
        struct stage stage;
        struct crowd crowd;
        uint64_t features = layout;
        for (unsigned i = 0; i < SDC_COUNT(choices); i++)
            features |= set & 1u << i ? choices[i] : 0;
        open_stage(&stage, check, features, DATA);
        bool whole = (stage.bed.features & features) == features;
        if (whole) {
            gather(&stage, &crowd, 16);
            sdc_check_bed_run_queues(&stage.bed, 1, 0);
            for (unsigned cut = 0; cut < SDC_CHECK_CUTS; cut++)
                do_read(&stage, 0, cut, has(&stage, SDC_VIRTIO_F_INDIRECT_DESC));
            wave(&stage, 0, &crowd, false);
        }
        sdc_check_bed_close(&stage.bed);
    }
}

static void in_order(struct sdc_check *check, uint64_t layout)
{
    struct stage stage;
    struct crowd crowd;

    open_stage(&stage, check, layout | RINGS | SDC_VIRTIO_F_IN_ORDER, SDC_CHECK_SECTOR);
    needs(&stage, SDC_VIRTIO_F_IN_ORDER, "IN_ORDER");
    gather(&stage, &crowd, FLIGHT_MAX);
    sdc_check_bed_run_queues(&stage.bed, 1, 64);
    for (unsigned i = 0; i < 8; i++)
        wave(&stage, 0, &crowd, i % 2 == 0);
}

// A notification that says how far the ring has come (2.9).
static void notification_data(struct sdc_check *check, uint64_t layout)
{
    struct stage stage;
    struct crowd crowd;

    open_stage(&stage, check, layout | RINGS | SDC_VIRTIO_F_NOTIFICATION_DATA, SDC_CHECK_SECTOR);
    needs(&stage, SDC_VIRTIO_F_NOTIFICATION_DATA, "NOTIFICATION_DATA");
    gather(&stage, &crowd, FLIGHT_MAX);
    sdc_check_bed_run_queues(&stage.bed, 1, 64);
    for (unsigned i = 0; i < 8; i++)
        wave(&stage, 0, &crowd, false);
}

// --- resets ---

static void device_reset(struct sdc_check *check, uint64_t layout)
{
    struct stage stage;
    struct crowd crowd;

    open_stage(&stage, check, layout | RINGS, SDC_CHECK_SECTOR);
    gather(&stage, &crowd, FLIGHT_MAX);
    size_t used = stage.bed.memory.used;
    for (unsigned i = 0; i < 4; i++) {
        sdc_check_bed_run_queues(&stage.bed, 1, 64);
        wave(&stage, 0, &crowd, false);
        sdc_check_bed_reset(&stage.bed);
        stage.bed.memory.used = used;
    }
}

// With requests in flight: after it the device does not touch them, and works (2.4.1, 2.6.1).
static void reset_in_flight(struct sdc_check *check, uint64_t layout)
{
    struct stage stage;
    struct crowd crowd;

    open_stage(&stage, check, layout | RINGS, SDC_CHECK_SECTOR);
    gather(&stage, &crowd, FLIGHT_MAX);
    size_t used = stage.bed.memory.used;
    for (unsigned round = 0; round < 8; round++) {
        sdc_check_bed_run_queues(&stage.bed, 1, 64);
        for (unsigned i = 0; i < crowd.count; i++) {
            sdc_check_request_prepare(&crowd.requests[i]);
            if (!sdc_check_request_add(&stage.bed, 0, &crowd.requests[i], &stage.disk, SDC_CHECK_CUT_PLAIN, false))
                break;
        }
        sdc_check_bed_show(&stage.bed, 0);
        sdc_check_bed_reset(&stage.bed);
        for (unsigned i = 0; i < crowd.count; i++)
            sdc_check_request_prepare(&crowd.requests[i]);
        sdc_clock_pause(2000000);
        for (unsigned i = 0; i < crowd.count; i++)
            sdc_check_that(check, sdc_check_request_status(&crowd.requests[i]) == SDC_CHECK_DISK_UNTOUCHED,
                           "after a reset the device must not touch the buffers that it had");
        stage.bed.memory.used = used;
    }
    sdc_check_bed_run_queues(&stage.bed, 1, 64);
    wave(&stage, 0, &crowd, false);
}

// One queue alone (2.6.1).
static void queue_reset(struct sdc_check *check, uint64_t layout)
{
    struct stage stage;
    struct crowd crowd;
    struct sdc_error err = {0};
    bool resetting = true;

    open_stage(&stage, check, layout | RINGS | SDC_VIRTIO_F_RING_RESET, SDC_CHECK_SECTOR);
    needs(&stage, SDC_VIRTIO_F_RING_RESET, "RING_RESET");
    if (stage.bed.vhost_user)
        sdc_check_not_offered(check, "VIRTIO_F_RING_RESET has no message in vhost-user");
    struct sdc_driver_transport *transport = stage.bed.pci.transport;
    gather(&stage, &crowd, FLIGHT_MAX);
    sdc_check_bed_run_queues(&stage.bed, 1, 64);
    for (unsigned round = 0; round < 4; round++) {
        wave(&stage, 0, &crowd, false);
        for (unsigned i = 0; round % 2 == 1 && i < 8; i++) {
            sdc_check_request_prepare(&crowd.requests[i]);
            sdc_check_request_add(&stage.bed, 0, &crowd.requests[i], &stage.disk, SDC_CHECK_CUT_PLAIN, false);
        }
        sdc_check_bed_show(&stage.bed, 0);
        sdc_check_must(check, transport->ops->queue_reset(transport, 0, &err), &err, "writing 1 to queue_reset");
        uint64_t give_up = sdc_clock_ns() + (uint64_t)sdc_check_patience(check) * 1000000;
        for (resetting = true; resetting && sdc_clock_ns() < give_up;)
            sdc_check_must(check, transport->ops->queue_resetting(transport, 0, &resetting, &err), &err, "reading queue_reset");
        sdc_check_that(check, !resetting, "queue_reset has to read as 0 when the queue is reset");
        sdc_check_ring_clear(&stage.bed.queues[0].ring, layout & SDC_VIRTIO_F_RING_PACKED ? 0x80008000 : 0);
        sdc_check_bed_start_queue(&stage.bed, 0);
    }
    wave(&stage, 0, &crowd, false);
}

// --- the rows ---

#define BOTH(name)                                                                                   \
    static void split_##name(struct sdc_check *check) { name(check, 0); }                            \
    static void packed_##name(struct sdc_check *check) { name(check, SDC_VIRTIO_F_RING_PACKED); }

BOTH(shapes)
BOTH(table_marked_writable)
BOTH(longest)
BOTH(sizes)
BOTH(laps)
BOTH(full)
BOTH(index_wraps)
BOTH(all_queues)
BOTH(combinations)
BOTH(in_order)
BOTH(notification_data)
BOTH(device_reset)
BOTH(reset_in_flight)
BOTH(queue_reset)

static void split_direct_then_indirect(struct sdc_check *check)
{
    direct_then_indirect(check, 0);
}

#define ROWS(name, split_section, packed_section, function)                          \
    {"split/" name, split_section, SDC_CHECK_BLK, split_##function},                 \
    {"packed/" name, packed_section, SDC_CHECK_BLK, packed_##function}

static const struct sdc_check_test tests[] = {
    ROWS("shapes", "virtio 1.2, 2.7.4.1", "virtio 1.2, 2.8.6", shapes),
    {"split/direct-then-indirect", "virtio 1.2, 2.7.5.3.2", SDC_CHECK_BLK, split_direct_then_indirect},
    ROWS("table-marked-writable", "virtio 1.2, 2.7.5.3.2", "virtio 1.2, 2.8.7", table_marked_writable),
    ROWS("longest-chain", "virtio 1.2, 5.2.3", "virtio 1.2, 5.2.3", longest),
    ROWS("sizes", "virtio 1.2, 2.7", "virtio 1.2, 2.8.10.1", sizes),
    ROWS("laps", "virtio 1.2, 2.7", "virtio 1.2, 2.8.1", laps),
    ROWS("full", "virtio 1.2, 2.7", "virtio 1.2, 2.8", full),
    ROWS("index-wraps", "virtio 1.2, 2.7.13.3", "virtio 1.2, 2.8.1", index_wraps),
    ROWS("all-queues", "virtio 1.2, 5.2.2", "virtio 1.2, 5.2.2", all_queues),
    ROWS("combinations", "virtio 1.2, 2.2", "virtio 1.2, 2.2", combinations),
    ROWS("in-order", "virtio 1.2, 2.7.9", "virtio 1.2, 2.8.8", in_order),
    ROWS("notification-data", "virtio 1.2, 2.9", "virtio 1.2, 2.9", notification_data),
    ROWS("device-reset", "virtio 1.2, 2.4.1", "virtio 1.2, 2.4.1", device_reset),
    ROWS("reset-in-flight", "virtio 1.2, 2.4.1", "virtio 1.2, 2.4.1", reset_in_flight),
    ROWS("queue-reset", "virtio 1.2, 2.6.1", "virtio 1.2, 2.6.1", queue_reset),
};

const struct sdc_check_table sdc_check_ring_requests = {tests, SDC_COUNT(tests)};
