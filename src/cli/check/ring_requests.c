// SPDX-License-Identifier: BSD-3-Clause
// Rings that are used as they should be, in every way that there is: sizes, laps, chains of all shapes, tables, many in flight, features
// on and off. All on requests that do no harm, over either transport; each for split and for packed rings.
#include "cli/check/stage.h"

#include "base/bytes.h"
#include "base/check.h"
#include "os/clock.h"

#include <inttypes.h>
#include <string.h>

enum { DATA = SDC_CHECK_STAGE_DATA, FLIGHT = SDC_CHECK_CROWD_MAX, LAPS = 3, SIZE_MAX_TRIED = 1024 };

static void same_bytes(struct sdc_check_stage *stage, const uint8_t *expected, const char *how)
{
    if (stage->request.form || memcmp(sdc_check_request_data(&stage->request), expected, stage->request.size) == 0)
        return; // of a device that is no disk nobody knows what it will say
    sdc_check_sent(stage->bed.check, "a read of sectors 0 to %u as %s", stage->request.size / SDC_VIRTIO_BLK_SECTOR - 1, how);
    sdc_check_came(stage->bed.check, "other bytes than those of a read with header, data and status in one descriptor each");
    sdc_check_fail(stage->bed.check, "the device must not make assumptions about the arrangement of descriptors");
}

// --- chains ---

static void shapes(struct sdc_check *check, uint64_t layout)
{
    struct sdc_check_stage stage;
    uint8_t expected[DATA];

    sdc_check_stage_open(&stage, check, layout | SDC_CHECK_RINGS, DATA);
    sdc_check_bed_run_queues(&stage.bed, 1, 0);
    sdc_check_stage_read(&stage, 0, SDC_CHECK_CUT_PLAIN, false);
    memcpy(expected, sdc_check_request_data(&stage.request), stage.request.size);
    for (unsigned cut = 0; cut < SDC_CHECK_CUTS; cut++) {
        for (unsigned indirect = 0; indirect <= sdc_check_stage_has(&stage, SDC_VIRTIO_F_INDIRECT_DESC); indirect++) {
            sdc_check_stage_read(&stage, 0, cut, indirect);
            same_bytes(&stage, expected, sdc_check_cut_name(cut));
        }
    }
}

// Both halves in one chain: direct descriptors, then a table with the rest. Split rings only (2.7.5.3.2).
static void direct_then_indirect(struct sdc_check *check, uint64_t layout)
{
    struct sdc_check_stage stage;
    struct sdc_check_piece pieces[SDC_CHECK_PIECES_MAX], chain[2];
    uint8_t expected[DATA];

    sdc_check_stage_open(&stage, check, layout | SDC_CHECK_RINGS, DATA);
    sdc_check_stage_needs(&stage, SDC_VIRTIO_F_INDIRECT_DESC, "INDIRECT_DESC");
    sdc_check_bed_run_queues(&stage.bed, 1, 0);
    sdc_check_stage_read(&stage, 0, SDC_CHECK_CUT_PLAIN, false);
    memcpy(expected, sdc_check_request_data(&stage.request), stage.request.size);
    sdc_check_request_prepare(&stage.request);
    unsigned count = 3;
    sdc_check_request_three(&stage.bed, &stage.request, &stage.disk, pieces);
    sdc_check_ring_table(&stage.bed.queues[0].ring, stage.request.table, pieces + 1, count - 1);
    chain[0] = pieces[0];
    chain[1] = (struct sdc_check_piece){.iova = stage.request.table_iova,
                                        .size = (count - 1) * SDC_CHECK_DESC_BYTES,
                                        .flags = SDC_CHECK_DESC_INDIRECT};
    stage.request.id = sdc_check_ring_add(&stage.bed.queues[0].ring, chain, 2);
    sdc_check_sent(check, "a chain of a descriptor, and then a table with the rest of the request");
    sdc_check_bed_show(&stage.bed, 0);
    sdc_check_bed_wait(&stage.bed, 0, stage.request.id);
    sdc_check_request_judge(&stage.bed, 0, &stage.request, SDC_VIRTIO_BLK_S_OK);
    same_bytes(&stage, expected, "a descriptor and a table");
}

// The descriptor that refers to a table may have the write flag, which means nothing there.
static void table_marked_writable(struct sdc_check *check, uint64_t layout)
{
    struct sdc_check_stage stage;
    struct sdc_check_piece pieces[SDC_CHECK_PIECES_MAX];

    sdc_check_stage_open(&stage, check, layout | SDC_CHECK_RINGS, DATA);
    sdc_check_stage_needs(&stage, SDC_VIRTIO_F_INDIRECT_DESC, "INDIRECT_DESC");
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
    sdc_check_request_judge(&stage.bed, 0, &stage.request, SDC_VIRTIO_BLK_S_OK);
}

// As long a chain as the disk says it takes, and the queue allows.
static void longest(struct sdc_check *check, uint64_t layout)
{
    struct sdc_check_stage stage;
    const uint32_t size = 128 * SDC_VIRTIO_BLK_SECTOR;

    sdc_check_stage_open(&stage, check, layout | SDC_CHECK_RINGS, size);
    if (stage.disk.sectors < size / SDC_VIRTIO_BLK_SECTOR)
        sdc_check_skip(check, "the disk has %" PRIu64 " sectors", stage.disk.sectors);
    sdc_check_bed_run_queues(&stage.bed, 1, 0);
    sdc_check_stage_read(&stage, 0, SDC_CHECK_CUT_MANY, false);
    if (sdc_check_stage_has(&stage, SDC_VIRTIO_F_INDIRECT_DESC))
        sdc_check_stage_read(&stage, 0, SDC_CHECK_CUT_MANY, true);
}

// --- rings ---

// The largest chain that a ring of so many entries holds: 3, 2, or 1 as a table.
static bool read_in(struct sdc_check_stage *stage, uint16_t size)
{
    bool indirect = size < 2;

    if (indirect && !sdc_check_stage_has(stage, SDC_VIRTIO_F_INDIRECT_DESC))
        return false;
    sdc_check_stage_read(stage, 0, size < 3 ? SDC_CHECK_CUT_JOINED : SDC_CHECK_CUT_PLAIN, indirect);
    return true;
}

static void sizes(struct sdc_check *check, uint64_t layout)
{
    static const uint16_t packed_sizes[] = {1, 2, 3, 5, 7, 33, 100, 255};
    bool packed = layout & SDC_VIRTIO_F_RING_PACKED;
    struct sdc_check_stage stage;

    sdc_check_stage_open(&stage, check, layout | SDC_CHECK_RINGS, SDC_VIRTIO_BLK_SECTOR);
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
    struct sdc_check_stage stage;
    const uint16_t size = 32;

    sdc_check_stage_open(&stage, check, layout | SDC_CHECK_RINGS, DATA);
    sdc_check_bed_run_queues(&stage.bed, 1, (uint16_t)sdc_min(size, sdc_check_bed_queue_max(&stage.bed, 0)));
    for (unsigned i = 0; i < LAPS * size; i++)
        sdc_check_stage_read(&stage, 0, i % SDC_CHECK_CUTS, i % 7 == 6 && sdc_check_stage_has(&stage, SDC_VIRTIO_F_INDIRECT_DESC));
}

static void full(struct sdc_check *check, uint64_t layout)
{
    struct sdc_check_stage stage;
    struct sdc_check_crowd crowd;

    sdc_check_stage_open(&stage, check, layout | SDC_CHECK_RINGS, SDC_VIRTIO_BLK_SECTOR);
    sdc_check_crowd_new(&stage, &crowd, FLIGHT);
    sdc_check_bed_run_queues(&stage.bed, 1, (uint16_t)sdc_min(FLIGHT, sdc_check_bed_queue_max(&stage.bed, 0)));
    for (unsigned i = 0; i < LAPS * 2; i++)
        sdc_check_crowd_wave(&stage, 0, &crowd, false);
}

// The index of a split ring has 16 bits, whatever its size: it goes on at 0 after 65535. Over vhost-user rings start just before that, and
// packed ones before the end of their second lap.
static void index_wraps(struct sdc_check *check, uint64_t layout)
{
    struct sdc_check_stage stage;
    struct sdc_check_crowd crowd;
    unsigned left = 65536 + 2 * FLIGHT;

    sdc_check_stage_open(&stage, check, layout | SDC_CHECK_RINGS, SDC_VIRTIO_BLK_SECTOR);
    sdc_check_crowd_new(&stage, &crowd, FLIGHT);
    sdc_check_bed_make_queue(&stage.bed, 0, (uint16_t)sdc_min(FLIGHT, sdc_check_bed_queue_max(&stage.bed, 0)));
    if (stage.bed.vhost_user) {
        uint32_t at = layout & SDC_VIRTIO_F_RING_PACKED ? stage.bed.queues[0].ring.config.size - 3u : 65536 - FLIGHT - 3;
        sdc_check_ring_clear(&stage.bed.queues[0].ring, layout & SDC_VIRTIO_F_RING_PACKED ? at | at << 16 : at);
        left = 4 * FLIGHT;
    }
    sdc_check_bed_start_queue(&stage.bed, 0);
    sdc_check_bed_run(&stage.bed);
    while (left > 0) {
        left -= (unsigned)sdc_min(left, sdc_check_crowd_wave(&stage, 0, &crowd, true));
        if (left > 0 && sdc_clock_ns() + check->options->timeout_s * UINT64_C(1000000000) > check->deadline_ns)
            sdc_check_skip(check, "65536 requests take the device too long: type a longer --timeout");
    }
}

static void all_queues(struct sdc_check *check, uint64_t layout)
{
    struct sdc_check_stage stage;
    struct sdc_check_crowd crowds[8];

    sdc_check_stage_open(&stage, check, layout | SDC_CHECK_RINGS, SDC_VIRTIO_BLK_SECTOR);
    uint16_t count = (uint16_t)sdc_min(sdc_min(stage.bed.queues_max, stage.disk.queues), SDC_COUNT(crowds));
    if (count < 2)
        sdc_check_not_offered(check, "there is one queue that requests are known of");
    for (unsigned i = 0; i < count; i++)
        sdc_check_crowd_new(&stage, &crowds[i], 16);
    sdc_check_bed_run_queues(&stage.bed, count, 64);
    for (unsigned i = 0; i < 4; i++)
        for (uint16_t queue = 0; queue < count; queue++)
            sdc_check_crowd_wave(&stage, queue, &crowds[queue], false);
}

// --- features, on and off ---

static const uint64_t choices[] = {SDC_VIRTIO_F_INDIRECT_DESC, SDC_VIRTIO_F_EVENT_IDX, SDC_VIRTIO_F_IN_ORDER};

static void combinations(struct sdc_check *check, uint64_t layout)
{
    for (unsigned set = 0; set < 1u << SDC_COUNT(choices); set++) {
        struct sdc_check_stage stage;
        struct sdc_check_crowd crowd;
        uint64_t features = layout;
        for (unsigned i = 0; i < SDC_COUNT(choices); i++)
            features |= set & 1u << i ? choices[i] : 0;
        sdc_check_stage_open(&stage, check, features, DATA);
        bool whole = (stage.bed.features & features) == features;
        if (whole) {
            sdc_check_crowd_new(&stage, &crowd, 16);
            sdc_check_bed_run_queues(&stage.bed, 1, 0);
            for (unsigned cut = 0; cut < SDC_CHECK_CUTS; cut++)
                sdc_check_stage_read(&stage, 0, cut, sdc_check_stage_has(&stage, SDC_VIRTIO_F_INDIRECT_DESC));
            sdc_check_crowd_wave(&stage, 0, &crowd, false);
        }
        sdc_check_bed_close(&stage.bed);
    }
}

static void in_order(struct sdc_check *check, uint64_t layout)
{
    struct sdc_check_stage stage;
    struct sdc_check_crowd crowd;

    sdc_check_stage_open(&stage, check, layout | SDC_CHECK_RINGS | SDC_VIRTIO_F_IN_ORDER, SDC_VIRTIO_BLK_SECTOR);
    sdc_check_stage_needs(&stage, SDC_VIRTIO_F_IN_ORDER, "IN_ORDER");
    sdc_check_crowd_new(&stage, &crowd, FLIGHT);
    sdc_check_bed_run_queues(&stage.bed, 1, 64);
    for (unsigned i = 0; i < 8; i++)
        sdc_check_crowd_wave(&stage, 0, &crowd, i % 2 == 0);
}

// A notification that says how far the ring has come (2.9).
static void notification_data(struct sdc_check *check, uint64_t layout)
{
    struct sdc_check_stage stage;
    struct sdc_check_crowd crowd;

    sdc_check_stage_open(&stage, check, layout | SDC_CHECK_RINGS | SDC_VIRTIO_F_NOTIFICATION_DATA, SDC_VIRTIO_BLK_SECTOR);
    sdc_check_stage_needs(&stage, SDC_VIRTIO_F_NOTIFICATION_DATA, "NOTIFICATION_DATA");
    sdc_check_crowd_new(&stage, &crowd, FLIGHT);
    sdc_check_bed_run_queues(&stage.bed, 1, 64);
    for (unsigned i = 0; i < 8; i++)
        sdc_check_crowd_wave(&stage, 0, &crowd, false);
}

// --- resets ---

static void device_reset(struct sdc_check *check, uint64_t layout)
{
    struct sdc_check_stage stage;
    struct sdc_check_crowd crowd;

    sdc_check_stage_open(&stage, check, layout | SDC_CHECK_RINGS, SDC_VIRTIO_BLK_SECTOR);
    sdc_check_crowd_new(&stage, &crowd, FLIGHT);
    size_t used = stage.bed.memory.used;
    for (unsigned i = 0; i < 4; i++) {
        sdc_check_bed_run_queues(&stage.bed, 1, 64);
        sdc_check_crowd_wave(&stage, 0, &crowd, false);
        sdc_check_bed_reset(&stage.bed);
        stage.bed.memory.used = used;
    }
}

// With requests in flight: after it the device does not touch them, and works (2.4.1, 2.6.1).
static void reset_in_flight(struct sdc_check *check, uint64_t layout)
{
    struct sdc_check_stage stage;
    struct sdc_check_crowd crowd;

    sdc_check_stage_open(&stage, check, layout | SDC_CHECK_RINGS, SDC_VIRTIO_BLK_SECTOR);
    sdc_check_crowd_new(&stage, &crowd, FLIGHT);
    size_t used = stage.bed.memory.used;
    for (unsigned round = 0; round < 8; round++) {
        sdc_check_bed_run_queues(&stage.bed, 1, 64);
        sdc_check_crowd_add(&stage, 0, &crowd, false);
        sdc_check_bed_show(&stage.bed, 0);
        sdc_check_bed_reset(&stage.bed);
        for (unsigned i = 0; i < crowd.count; i++)
            sdc_check_request_prepare(&crowd.requests[i]);
        sdc_clock_pause(2000000);
        if (stage.bed.vhost_user)
            sdc_check_section(check, "vhost-user, Suspended device state");
        for (unsigned i = 0; i < crowd.count; i++)
            sdc_check_that(check, sdc_check_request_untouched(&crowd.requests[i]),
                           "after a reset the device must not touch the buffers that it had");
        stage.bed.memory.used = used;
    }
    sdc_check_bed_run_queues(&stage.bed, 1, 64);
    sdc_check_crowd_wave(&stage, 0, &crowd, false);
}

// One queue alone (2.6.1).
static void queue_reset(struct sdc_check *check, uint64_t layout)
{
    struct sdc_check_stage stage;
    struct sdc_check_crowd crowd;
    struct sdc_error err = {0};
    bool resetting = true;

    sdc_check_stage_open(&stage, check, layout | SDC_CHECK_RINGS | SDC_VIRTIO_F_RING_RESET, SDC_VIRTIO_BLK_SECTOR);
    sdc_check_stage_needs(&stage, SDC_VIRTIO_F_RING_RESET, "RING_RESET");
    if (stage.bed.vhost_user)
        sdc_check_not_offered(check, "VIRTIO_F_RING_RESET has no message in vhost-user");
    struct sdc_driver_transport *transport = stage.bed.pci.transport;
    sdc_check_crowd_new(&stage, &crowd, FLIGHT);
    sdc_check_bed_run_queues(&stage.bed, 1, 64);
    for (unsigned round = 0; round < 4; round++) {
        sdc_check_crowd_wave(&stage, 0, &crowd, false);
        if (round % 2 == 1)
            sdc_check_crowd_add(&stage, 0, &crowd, false);
        sdc_check_bed_show(&stage.bed, 0);
        sdc_check_must(check, transport->ops->queue_reset(transport, 0, &err), &err, "writing 1 to queue_reset");
        uint64_t give_up = sdc_clock_ns() + (uint64_t)sdc_check_patience(check) * 1000000;
        for (resetting = true; resetting && sdc_clock_ns() < give_up;)
            sdc_check_must(check, transport->ops->queue_resetting(transport, 0, &resetting, &err), &err, "reading queue_reset");
        sdc_check_that(check, !resetting, "queue_reset has to read as 0 when the queue is reset");
        sdc_check_ring_clear(&stage.bed.queues[0].ring, layout & SDC_VIRTIO_F_RING_PACKED ? 0x80008000 : 0);
        sdc_check_bed_start_queue(&stage.bed, 0);
    }
    sdc_check_crowd_wave(&stage, 0, &crowd, false);
}

// --- the rows ---

SDC_CHECK_BOTH(shapes)
SDC_CHECK_BOTH(table_marked_writable)
SDC_CHECK_BOTH(longest)
SDC_CHECK_BOTH(sizes)
SDC_CHECK_BOTH(laps)
SDC_CHECK_BOTH(full)
SDC_CHECK_BOTH(index_wraps)
SDC_CHECK_BOTH(all_queues)
SDC_CHECK_BOTH(combinations)
SDC_CHECK_BOTH(in_order)
SDC_CHECK_BOTH(notification_data)
SDC_CHECK_BOTH(device_reset)
SDC_CHECK_BOTH(reset_in_flight)
SDC_CHECK_BOTH(queue_reset)

static void split_direct_then_indirect(struct sdc_check *check)
{
    direct_then_indirect(check, 0);
}

static const struct sdc_check_test tests[] = {
    SDC_CHECK_ROWS("shapes", "virtio 1.2, 2.7.4.1", "virtio 1.2, 2.8.6", shapes),
    {"split/direct-then-indirect", "virtio 1.2, 2.7.5.3.2", SDC_CHECK_REQUESTS, split_direct_then_indirect},
    SDC_CHECK_ROWS("table-marked-writable", "virtio 1.2, 2.7.5.3.2", "virtio 1.2, 2.8.7", table_marked_writable),
    SDC_CHECK_ROWS("longest-chain", "virtio 1.2, 5.2.3", "virtio 1.2, 5.2.3", longest),
    SDC_CHECK_ROWS("sizes", "virtio 1.2, 2.7", "virtio 1.2, 2.8.10.1", sizes),
    SDC_CHECK_ROWS("laps", "virtio 1.2, 2.7", "virtio 1.2, 2.8.1", laps),
    SDC_CHECK_ROWS("full", "virtio 1.2, 2.7", "virtio 1.2, 2.8", full),
    SDC_CHECK_ROWS("index-wraps", "virtio 1.2, 2.7.13.3", "virtio 1.2, 2.8.1", index_wraps),
    SDC_CHECK_ROWS("all-queues", "virtio 1.2, 5.2.2", "virtio 1.2, 5.2.2", all_queues),
    SDC_CHECK_ROWS("combinations", "virtio 1.2, 2.2", "virtio 1.2, 2.2", combinations),
    SDC_CHECK_ROWS("in-order", "virtio 1.2, 2.7.9", "virtio 1.2, 2.8.8", in_order),
    SDC_CHECK_ROWS("notification-data", "virtio 1.2, 2.9", "virtio 1.2, 2.9", notification_data),
    SDC_CHECK_ROWS("device-reset", "virtio 1.2, 2.4.1", "virtio 1.2, 2.4.1", device_reset),
    SDC_CHECK_ROWS("reset-in-flight", "virtio 1.2, 2.4.1", "virtio 1.2, 2.4.1", reset_in_flight),
    SDC_CHECK_ROWS("queue-reset", "virtio 1.2, 2.6.1", "virtio 1.2, 2.6.1", queue_reset),
};

const struct sdc_check_table sdc_check_ring_requests = {tests, SDC_COUNT(tests)};
