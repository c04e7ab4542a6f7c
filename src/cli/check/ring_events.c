// SPDX-License-Identifier: BSD-3-Clause
// Who notifies whom, and when: interrupts that were asked for and those that were not, the event index, and notifications that a device
// has said it does not need. What the specification only advises (SHOULD NOT) is a remark.
#include "cli/check/stage.h"

#include "base/bytes.h"
#include "base/check.h"
#include "os/clock.h"
#include "os/fd.h"

#include <inttypes.h>

enum {
    ROUNDS = 40,
    LATE_MS = 5, // an interrupt that nobody asked for would have come by then
    SPLIT_FLAGS = 1,
    PACKED_FLAGS = 3,
    PACKED_FLAGS_DESC = 2,
};

// The device is to be asked exactly: with the event index or without.
static void open_exactly(struct sdc_check_stage *stage, struct sdc_check *check, uint64_t features)
{
    sdc_check_stage_open(stage, check, features | SDC_VIRTIO_F_INDIRECT_DESC, SDC_VIRTIO_BLK_SECTOR);
    if (features & SDC_VIRTIO_F_EVENT_IDX)
        sdc_check_stage_needs(stage, SDC_VIRTIO_F_EVENT_IDX, "EVENT_IDX");
    sdc_check_bed_run_queues(&stage->bed, 1, 32);
}

// One read, whose end is looked for without interrupts, which are asked for as the test has said.
static void quiet_read(struct sdc_check_stage *stage)
{
    struct sdc_check_request *request = &stage->request;

    sdc_check_request_prepare(request);
    sdc_check_request_add(&stage->bed, 0, request, &stage->disk, SDC_CHECK_CUT_PLAIN,
                          sdc_check_stage_has(stage, SDC_VIRTIO_F_INDIRECT_DESC));
    sdc_check_bed_show(&stage->bed, 0);
    sdc_check_bed_wait_all(&stage->bed, 0, true);
    sdc_check_request_judge(&stage->bed, 0, request, SDC_VIRTIO_BLK_S_OK);
}

// Back ends signal a queue when it starts, so that nothing is lost over a reconnection, and some with the first request too: that is not
// what is looked at.
static void warm_up(struct sdc_check_stage *stage)
{
    sdc_check_stage_read(stage, 0, SDC_CHECK_CUT_PLAIN, false);
    while (sdc_check_bed_called(&stage->bed, 0, LATE_MS))
        continue;
}

static void must_call(struct sdc_check_stage *stage, const char *when)
{
    if (sdc_check_bed_called(&stage->bed, 0, sdc_check_patience(stage->bed.check)))
        return;
    sdc_check_sent(stage->bed.check, "%s", when);
    sdc_check_came(stage->bed.check, "the request was used, but no interrupt came");
    sdc_check_fail(stage->bed.check, "the device must send a used buffer notification that the driver asked for");
}

static void asked(struct sdc_check *check, uint64_t features)
{
    struct sdc_check_stage stage;

    open_exactly(&stage, check, features);
    for (unsigned i = 0; i < ROUNDS; i++) {
        sdc_check_ring_calls(&stage.bed.queues[0].ring, SDC_CHECK_CALLS_ALWAYS, 0);
        quiet_read(&stage);
        must_call(&stage, "a read, with an interrupt asked for");
    }
}

static void not_asked(struct sdc_check *check, uint64_t features)
{
    struct sdc_check_stage stage;

    open_exactly(&stage, check, features);
    warm_up(&stage);
    for (unsigned i = 0; i < ROUNDS; i++) {
        sdc_check_ring_calls(&stage.bed.queues[0].ring, SDC_CHECK_CALLS_NEVER, 0);
        quiet_read(&stage);
    }
    if (sdc_check_bed_called(&stage.bed, 0, LATE_MS))
        sdc_check_note(check, "interrupts come, though the driver has said that it needs none (SHOULD NOT)");
    sdc_check_ring_calls(&stage.bed.queues[0].ring, SDC_CHECK_CALLS_ALWAYS, 0);
    sdc_check_bed_called(&stage.bed, 0, 0);
    quiet_read(&stage);
    must_call(&stage, "a read, with an interrupt asked for again after some without");
}

// An interrupt is asked for with the 4th chain from here; not before.
static void event(struct sdc_check *check, uint64_t features)
{
    struct sdc_check_stage stage;
    const unsigned ahead = 3;

    open_exactly(&stage, check, features);
    warm_up(&stage);
    unsigned entries = !(features & SDC_VIRTIO_F_RING_PACKED) || sdc_check_stage_has(&stage, SDC_VIRTIO_F_INDIRECT_DESC)
                           ? 1
                           : sdc_check_stage_entries(&stage);
    for (unsigned round = 0; round < ROUNDS; round++) {
        sdc_check_ring_calls(&stage.bed.queues[0].ring, SDC_CHECK_CALLS_AT, (uint16_t)(ahead * entries));
        sdc_check_bed_called(&stage.bed, 0, 0);
        for (unsigned i = 0; i < ahead; i++)
            quiet_read(&stage);
        if (sdc_check_bed_called(&stage.bed, 0, round == 0 ? LATE_MS : 0))
            sdc_check_note(check, "an interrupt comes before the event index is reached (SHOULD NOT)");
        quiet_read(&stage);
        must_call(&stage, "four reads, with an interrupt asked for when the fourth is used");
    }
}

// The event lies inside of what is used at once.
static void event_in_batch(struct sdc_check *check, uint64_t features)
{
    struct sdc_check_stage stage;
    struct sdc_check_crowd crowd;

    open_exactly(&stage, check, features);
    bool indirect = sdc_check_stage_has(&stage, SDC_VIRTIO_F_INDIRECT_DESC);
    unsigned each = sdc_check_stage_entries(&stage), entries = !(features & SDC_VIRTIO_F_RING_PACKED) || indirect ? 1 : each;
    sdc_check_crowd_new(&stage, &crowd, indirect ? 8 : (unsigned)sdc_min(8, stage.bed.queues[0].ring.config.size / each));
    for (unsigned round = 0; round < ROUNDS; round++) {
        sdc_check_ring_calls(&stage.bed.queues[0].ring, SDC_CHECK_CALLS_AT, (uint16_t)(round % crowd.count * entries));
        sdc_check_bed_called(&stage.bed, 0, 0);
        sdc_check_crowd_wave(&stage, 0, &crowd, true);
        must_call(&stage, "some reads at once, with an interrupt asked for when one of them is used");
    }
}

// 2.7.7.2: with the event index the flag means nothing, and without it the index.
static void other_mechanism(struct sdc_check *check, uint64_t features)
{
    struct sdc_check_stage stage;

    open_exactly(&stage, check, features);
    struct sdc_check_ring *ring = &stage.bed.queues[0].ring;
    for (unsigned i = 0; i < ROUNDS; i++) {
        sdc_check_ring_calls(ring, SDC_CHECK_CALLS_ALWAYS, 0);
        if (features & SDC_VIRTIO_F_EVENT_IDX)
            sdc_put16(ring->driver, 1);
        else
            sdc_put16(ring->driver + 4 + 2 * (size_t)ring->config.size, (uint16_t)(ring->used - 1));
        sdc_check_bed_called(&stage.bed, 0, 0);
        quiet_read(&stage);
        must_call(&stage, features & SDC_VIRTIO_F_EVENT_IDX
                              ? "a read, with used_event at it, and flags of 1, which are to be ignored with VIRTIO_F_EVENT_IDX"
                              : "a read, with flags of 0, and a used_event far away, which is to be ignored without VIRTIO_F_EVENT_IDX");
    }
}

// What the device writes to say what it wants to be told of.
static void device_flags(struct sdc_check *check, uint64_t features)
{
    struct sdc_check_stage stage;
    bool packed = features & SDC_VIRTIO_F_RING_PACKED;

    open_exactly(&stage, check, features);
    for (unsigned i = 0; i < ROUNDS; i++) {
        quiet_read(&stage);
        uint16_t flags = sdc_check_ring_device_flags(&stage.bed.queues[0].ring);
        sdc_check_sent(check, "a read");
        sdc_check_came(check, "flags of 0x%x in the device's half of the notification suppression", flags);
        if (packed)
            sdc_check_that(check, flags <= PACKED_FLAGS_DESC && (flags != PACKED_FLAGS_DESC || features & SDC_VIRTIO_F_EVENT_IDX),
                           "flags are 0 or 1, or 2 with VIRTIO_F_EVENT_IDX; 3 and the other bits are reserved");
        else if (features & SDC_VIRTIO_F_EVENT_IDX)
            sdc_check_that(check, flags == 0, "with VIRTIO_F_EVENT_IDX the device must set flags to 0");
        else
            sdc_check_that(check, flags <= SPLIT_FLAGS, "the device must set flags to 0 or 1");
    }
}

// Requests with pauses of all lengths between them, each notified of only if the device wants that: none may be forgotten.
static void wanted_kicks(struct sdc_check *check, uint64_t features)
{
    static const uint32_t pauses_us[] = {0, 5, 20, 50, 100, 300, 1000};
    struct sdc_check_stage stage;

    open_exactly(&stage, check, features);
    for (unsigned i = 0; i < ROUNDS * SDC_COUNT(pauses_us); i++) {
        uint32_t pause_us = pauses_us[i % SDC_COUNT(pauses_us)];
        if (pause_us > 0)
            sdc_clock_pause(pause_us * UINT64_C(1000));
        quiet_read(&stage);
    }
}

static void needless_kicks(struct sdc_check *check, uint64_t features)
{
    struct sdc_check_stage stage;

    open_exactly(&stage, check, features);
    for (unsigned i = 0; i < ROUNDS; i++) {
        sdc_check_bed_kick(&stage.bed, 0);
        if (i % 4 == 0)
            quiet_read(&stage);
        sdc_check_bed_kick(&stage.bed, 0);
    }
    sdc_check_stage_read(&stage, 0, SDC_CHECK_CUT_PLAIN, false);
}

// A driver that polls gives the device nothing to signal.
static void polled(struct sdc_check *check, uint64_t features)
{
    struct sdc_check_stage stage;

    sdc_check_stage_open(&stage, check, features | SDC_CHECK_RINGS, SDC_VIRTIO_BLK_SECTOR);
    sdc_check_bed_make_queue(&stage.bed, 0, 32);
    sdc_fd_close(&stage.bed.queues[0].call_fd);
    sdc_check_bed_start_queue(&stage.bed, 0);
    sdc_check_bed_run(&stage.bed);
    for (unsigned i = 0; i < ROUNDS; i++)
        quiet_read(&stage);
}

#define FOUR(name)                                                                                                            \
    SDC_CHECK_BOTH(name)                                                                                                      \
    static void split_event_##name(struct sdc_check *check) { name(check, SDC_VIRTIO_F_EVENT_IDX); }                          \
    static void packed_event_##name(struct sdc_check *check) { name(check, SDC_VIRTIO_F_RING_PACKED | SDC_VIRTIO_F_EVENT_IDX); }
#define EVENT_ONLY(name)                                                                                                      \
    static void split_event_##name(struct sdc_check *check) { name(check, SDC_VIRTIO_F_EVENT_IDX); }                          \
    static void packed_event_##name(struct sdc_check *check) { name(check, SDC_VIRTIO_F_RING_PACKED | SDC_VIRTIO_F_EVENT_IDX); }

FOUR(asked)
FOUR(not_asked)
FOUR(device_flags)
FOUR(wanted_kicks)
FOUR(needless_kicks)
EVENT_ONLY(event)
EVENT_ONLY(event_in_batch)
SDC_CHECK_BOTH(polled)

static void split_other_mechanism(struct sdc_check *check)
{
    other_mechanism(check, 0);
}

static void split_event_other_mechanism(struct sdc_check *check)
{
    other_mechanism(check, SDC_VIRTIO_F_EVENT_IDX);
}

#define CALLS "virtio 1.2, 2.7.7"
#define KICKS "virtio 1.2, 2.7.10"
#define PACKED "virtio 1.2, 2.8.10"

#define EVENT_ROWS(name, split_section, function)                            \
    {"split-event/" name, split_section, SDC_CHECK_REQUESTS, split_event_##function}, \
    {"packed-event/" name, PACKED, SDC_CHECK_REQUESTS, packed_event_##function}

static const struct sdc_check_test tests[] = {
    SDC_CHECK_ROWS("interrupt-asked-for", CALLS, PACKED, asked),
    SDC_CHECK_ROWS("no-interrupt-asked-for", CALLS, PACKED, not_asked),
    SDC_CHECK_ROWS("no-interrupts-at-all", CALLS, PACKED, polled),
    {"split/event-without-feature", CALLS, SDC_CHECK_REQUESTS, split_other_mechanism},
    SDC_CHECK_ROWS("device-flags", KICKS, PACKED, device_flags),
    SDC_CHECK_ROWS("wanted-notifications", KICKS, PACKED, wanted_kicks),
    SDC_CHECK_ROWS("needless-notifications", KICKS, PACKED, needless_kicks),
    EVENT_ROWS("interrupt-asked-for", CALLS, asked),
    EVENT_ROWS("no-interrupt-asked-for", CALLS, not_asked),
    EVENT_ROWS("interrupt-at", CALLS, event),
    EVENT_ROWS("interrupt-in-batch", CALLS, event_in_batch),
    {"split-event/flags-ignored", CALLS, SDC_CHECK_REQUESTS, split_event_other_mechanism},
    EVENT_ROWS("device-flags", KICKS, device_flags),
    EVENT_ROWS("wanted-notifications", KICKS, wanted_kicks),
    EVENT_ROWS("needless-notifications", KICKS, needless_kicks),
};

const struct sdc_check_table sdc_check_ring_events = {tests, SDC_COUNT(tests)};
