// SPDX-License-Identifier: BSD-3-Clause
// The life of vrings over vhost-user: started, stopped, gone on with, changed while they run; and what is said of them that cannot be.
#include "cli/check/stage.h"

#include "base/bytes.h"
#include "base/check.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/memfd.h"
#include "os/socket.h"
#include "os/wait.h"
#include "wire/names.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ALL (~SDC_VHOST_PROTOCOL_F_INBAND_NOTIFICATIONS)
#define STATES "vhost-user, Ring states"
#define GET_BASE "vhost-user, VHOST_USER_GET_VRING_BASE"

enum { SIZE = 64, SMALL = 8, QUIET_MS = 50, QUEUES_NONE = 300 };

static void open_vring(struct sdc_check_stage *stage, struct sdc_check *check, uint64_t layout)
{
    sdc_check_stage_open(stage, check, layout | SDC_CHECK_RINGS, SDC_VIRTIO_BLK_SECTOR);
}

static struct sdc_check_ring *ring_of(struct sdc_check_stage *stage)
{
    return &stage->bed.queues[0].ring;
}

// --- where a vring is ---

static void base_told(struct sdc_check_stage *stage, uint32_t base, const char *when)
{
    uint32_t expected = sdc_check_ring_base(ring_of(stage));

    if (base == expected)
        return;
    sdc_check_sent(stage->bed.check, "GET_VRING_BASE %s", when);
    sdc_check_came(stage->bed.check, "0x%" PRIx32, base);
    sdc_check_fail(stage->bed.check, "the back end has to say where it is in the ring: 0x%" PRIx32, expected);
}

// Stopped after some requests, it says where it is, and goes on from there.
static void stop_and_go(struct sdc_check *check, uint64_t layout)
{
    struct sdc_check_stage stage;

    open_vring(&stage, check, layout);
    sdc_check_bed_run_queues(&stage.bed, 1, SIZE);
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned i = 0; i < round * 11; i++)
            sdc_check_stage_read(&stage, 0, i % SDC_CHECK_CUTS, false);
        base_told(&stage, sdc_check_bed_vhost_stop(&stage.bed, 0), "when all requests were used");
        sdc_check_bed_start_queue(&stage.bed, 0);
    }
    sdc_check_stage_read(&stage, 0, SDC_CHECK_CUT_PLAIN, false);
}

// A ring that somebody else has used: where the used index is, a split ring has in memory.
static void start_anywhere(struct sdc_check *check, uint64_t layout)
{
    static const uint16_t places[] = {1, 1000, 0x7fff, 0x8000, 0xfffe, UINT16_MAX};
    struct sdc_check_stage stage;
    bool packed = layout != 0;

    for (size_t i = 0; i < SDC_COUNT(places); i++) {
        open_vring(&stage, check, layout);
        sdc_check_bed_make_queue(&stage.bed, 0, SIZE);
        uint32_t at = packed ? places[i] % ring_of(&stage)->config.size | (i % 2 ? 0x8000u : 0) : places[i];
        sdc_check_ring_clear(ring_of(&stage), packed ? at | at << 16 : at);
        sdc_check_bed_start_queue(&stage.bed, 0);
        sdc_check_bed_run(&stage.bed);
        for (unsigned j = 0; j < 5; j++)
            sdc_check_stage_read(&stage, 0, SDC_CHECK_CUT_PLAIN, false);
        base_told(&stage, sdc_check_bed_vhost_stop(&stage.bed, 0), "after a start in the middle of the ring");
        sdc_check_vhost_close(&stage.bed.vhost);
    }
}

static void never_started(struct sdc_check *check)
{
    struct sdc_check_stage stage;

    open_vring(&stage, check, 0);
    sdc_check_that(check, sdc_check_bed_vhost_stop(&stage.bed, 0) == 0, "a vring that was never started is at 0");
    sdc_check_bed_run_queues(&stage.bed, 1, SIZE);
    sdc_check_stage_read(&stage, 0, SDC_CHECK_CUT_PLAIN, false);
    base_told(&stage, sdc_check_bed_vhost_stop(&stage.bed, 0), "after one request");
    base_told(&stage, sdc_check_bed_vhost_stop(&stage.bed, 0), "once more");
}

// While it is stopped nothing is taken; what was made available meanwhile is done when it goes on.
static void stopped_is_quiet(struct sdc_check *check, uint64_t layout)
{
    struct sdc_check_stage stage;
    struct sdc_check_crowd crowd;

    open_vring(&stage, check, layout);
    sdc_check_bed_run_queues(&stage.bed, 1, SIZE);
    sdc_check_stage_read(&stage, 0, SDC_CHECK_CUT_PLAIN, false);
    uint32_t base = sdc_check_bed_vhost_stop(&stage.bed, 0);
    base_told(&stage, base, "after one request");
    sdc_check_crowd_new(&stage, &crowd, 8);
    unsigned added = sdc_check_crowd_add(&stage, 0, &crowd, false);
    sdc_check_ring_show(ring_of(&stage));
    sdc_check_bed_kick(&stage.bed, 0);
    sdc_clock_pause(QUIET_MS * UINT64_C(1000000));
    sdc_check_sent(check, "requests and a kick, after GET_VRING_BASE");
    sdc_check_that(check, sdc_check_bed_take_used(&stage.bed, 0) == 0, "while a ring is stopped, the back end must not process it at all");
    sdc_check_bed_vhost_start(&stage.bed, 0, base);
    sdc_check_bed_kick(&stage.bed, 0);
    sdc_check_bed_wait_all(&stage.bed, 0, false);
    for (unsigned i = 0; i < added; i++)
        sdc_check_request_judge(&stage.bed, 0, &crowd.requests[i], SDC_VIRTIO_BLK_S_OK);
}

// Stopped with requests in flight: it has finished them, or goes on with them; none is lost, none is done twice, and meanwhile nothing of
// the guest's is touched.
static void stop_in_flight(struct sdc_check *check, uint64_t layout)
{
    struct sdc_check_stage stage;
    struct sdc_check_crowd crowd;

    open_vring(&stage, check, layout);
    sdc_check_crowd_new(&stage, &crowd, SDC_CHECK_CROWD_MAX);
    sdc_check_bed_make_queue(&stage.bed, 0, 256);
    sdc_check_bed_start_queue(&stage.bed, 0);
    sdc_check_bed_run(&stage.bed);
    for (unsigned round = 0; round < 8; round++) {
        unsigned added = sdc_check_crowd_add(&stage, 0, &crowd, false);
        sdc_check_ring_calls(ring_of(&stage), SDC_CHECK_CALLS_ALWAYS, 0);
        sdc_check_bed_show(&stage.bed, 0);
        uint32_t base = sdc_check_bed_vhost_stop(&stage.bed, 0);
        sdc_check_bed_take_used(&stage.bed, 0);
        unsigned flying = sdc_check_ring_flying(ring_of(&stage));
        sdc_clock_pause(QUIET_MS / 10 * UINT64_C(1000000));
        sdc_check_sent(check, "%u requests, and GET_VRING_BASE", added);
        sdc_check_section(check, "vhost-user, Suspended device state");
        sdc_check_that(check, sdc_check_bed_take_used(&stage.bed, 0) == 0,
                       "while all vrings are stopped the device must not write to guest memory");
        sdc_check_section(check, GET_BASE);
        sdc_check_bed_vhost_start(&stage.bed, 0, base);
        sdc_check_bed_kick(&stage.bed, 0);
        sdc_check_sent(check, "%u requests, GET_VRING_BASE (0x%" PRIx32 ", %u not used then), and a start from there", added, base, flying);
        sdc_check_bed_wait_all(&stage.bed, 0, true);
        for (unsigned i = 0; i < added; i++)
            sdc_check_request_judge(&stage.bed, 0, &crowd.requests[i], SDC_VIRTIO_BLK_S_OK);
    }
}

// --- changes while it runs ---

static void other_call_fd(struct sdc_check *check)
{
    struct sdc_check_stage stage;

    open_vring(&stage, check, 0);
    sdc_check_bed_run_queues(&stage.bed, 1, SIZE);
    for (unsigned i = 0; i < 4; i++) {
        sdc_check_stage_read(&stage, 0, SDC_CHECK_CUT_PLAIN, false);
        int old = stage.bed.queues[0].call_fd;
        stage.bed.queues[0].call_fd = sdc_eventfd_new();
        sdc_check_vhost_set_fd(&stage.bed.vhost, SDC_VHOST_SET_VRING_CALL, 0, stage.bed.queues[0].call_fd);
        sdc_eventfd_take(old);
        sdc_check_stage_read(&stage, 0, SDC_CHECK_CUT_PLAIN, false);
        if (sdc_wait_fd(old, SDC_WAIT_INPUT, 0) > 0)
            sdc_check_note(check, "the event file descriptor that another has replaced is signalled");
    }
}

// Without a kick fd it polls.
static void polls(struct sdc_check *check)
{
    struct sdc_check_stage stage;

    open_vring(&stage, check, 0);
    sdc_check_bed_make_queue(&stage.bed, 0, SIZE);
    const uint64_t without = SDC_VHOST_VRING_NO_FD;
    const struct sdc_check_vhost_request kick = {.request = SDC_VHOST_SET_VRING_KICK, .payload = &without, .size = sizeof without};
    if (sdc_check_vhost_try(&stage.bed.vhost, &kick) != SDC_CHECK_VHOST_DONE)
        sdc_check_not_offered(check, "the back end takes no ring that it is not notified of");
    sdc_fd_close(&stage.bed.queues[0].kick_fd);
    sdc_check_bed_start_queue(&stage.bed, 0);
    sdc_check_bed_run(&stage.bed);
    struct sdc_check_request *request = &stage.request;
    sdc_check_request_prepare(request);
    sdc_check_request_add(&stage.bed, 0, request, &stage.disk, SDC_CHECK_CUT_PLAIN, false);
    sdc_check_ring_show(ring_of(&stage));
    uint64_t give_up = sdc_clock_ns() + UINT64_C(1000000000);
    while (sdc_check_bed_take_used(&stage.bed, 0) == 0) {
        if (sdc_clock_ns() > give_up || sdc_check_bed_gone(&stage.bed, 1)) {
            sdc_check_note(check, "a ring that was given no kick fd is not polled");
            return;
        }
    }
    sdc_check_request_judge(&stage.bed, 0, request, SDC_VIRTIO_BLK_S_OK);
}

// Off and on, stopped and running. What was made available while it was off is done by the time it is on.
static void enable(struct sdc_check *check)
{
    struct sdc_check_stage stage;

    open_vring(&stage, check, 0);
    if (!(stage.bed.vhost.features & SDC_VHOST_F_PROTOCOL_FEATURES))
        sdc_check_not_offered(check, "VHOST_USER_F_PROTOCOL_FEATURES is not offered");
    sdc_check_bed_make_queue(&stage.bed, 0, SIZE);
    sdc_check_vhost_set_state(&stage.bed.vhost, SDC_VHOST_SET_VRING_ENABLE, 0, 1);
    sdc_check_vhost_set_state(&stage.bed.vhost, SDC_VHOST_SET_VRING_ENABLE, 0, 0);
    sdc_check_bed_start_queue(&stage.bed, 0);
    sdc_check_bed_run(&stage.bed);
    for (unsigned i = 0; i < 3; i++) {
        sdc_check_stage_read(&stage, 0, SDC_CHECK_CUT_PLAIN, false);
        sdc_check_vhost_set_state(&stage.bed.vhost, SDC_VHOST_SET_VRING_ENABLE, 0, 0);
        sdc_check_vhost_set_state(&stage.bed.vhost, SDC_VHOST_SET_VRING_ENABLE, 0, 1);
    }
    sdc_check_stage_read(&stage, 0, SDC_CHECK_CUT_PLAIN, false);
}

// As front ends were before there were protocol features: rings are enabled from the start.
static void without_protocol_features(struct sdc_check *check)
{
    // Nobody can be asked what the disk says of itself.
    struct sdc_check_stage stage = {.disk = {.size_max = UINT32_MAX, .seg_max = 1, .block_sectors = 1, .queues = 1},
                                    .block = SDC_VIRTIO_BLK_SECTOR};

    sdc_check_bed_open(&stage.bed, check, &(struct sdc_check_bed_wishes){.bare = true});
    sdc_check_stage_request(&stage, SDC_CHECK_STAGE_DATA, &stage.request);
    sdc_check_bed_run_queues(&stage.bed, 1, SMALL); // nobody says whether it would take more
    for (unsigned i = 0; i < 3; i++)
        sdc_check_stage_read(&stage, 0, SDC_CHECK_CUT_PLAIN, false);
    sdc_check_that(check, sdc_check_bed_vhost_stop(&stage.bed, 0) == 3, "after three requests a ring is at 3");
}

// --- what cannot be ---

// Sends one request after the other, until one is refused or closes the connection. Whether all were done.
static bool all_done(struct sdc_check_stage *stage, const struct sdc_check_vhost_request *requests, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (sdc_check_vhost_try(&stage->bed.vhost, &requests[i]) != SDC_CHECK_VHOST_DONE)
            return false;
    return true;
}

// Starts queue 0 with this size and these addresses, notifies it of something, and sees whether that is taken for good.
static void start_wrong(struct sdc_check_stage *stage, uint32_t size, const struct sdc_vhost_vring_addr *addr, const char *what)
{
    const struct sdc_vhost_vring_state num = {.num = size}, on = {.num = 1};
    const uint64_t index = 0;
    const struct sdc_check_vhost_request requests[] = {
        {.request = SDC_VHOST_SET_VRING_NUM, .payload = &num, .size = sizeof num},
        {.request = SDC_VHOST_SET_VRING_ADDR, .payload = addr, .size = sizeof *addr},
        {.request = SDC_VHOST_SET_VRING_ERR,
         .payload = &index,
         .size = sizeof index,
         .fds = &stage->bed.queues[0].err_fd,
         .fds_count = 1},
        {.request = SDC_VHOST_SET_VRING_KICK,
         .payload = &index,
         .size = sizeof index,
         .fds = &stage->bed.queues[0].kick_fd,
         .fds_count = 1},
        {.request = SDC_VHOST_SET_VRING_ENABLE, .payload = &on, .size = sizeof on},
    };

    if (all_done(stage, requests, SDC_COUNT(requests))) {
        sdc_check_ring_add_head(ring_of(stage), 0);
        sdc_check_ring_show(ring_of(stage));
        sdc_check_bed_kick(&stage->bed, 0);
        // Addresses may be looked up as late as that, and by who does not wait for acknowledgements always are.
        bool gone = sdc_check_bed_gone(&stage->bed, QUIET_MS / 10);
        if (!gone && !sdc_check_bed_broken(&stage->bed, 0) && stage->bed.vhost.protocol & SDC_VHOST_PROTOCOL_F_REPLY_ACK)
            sdc_check_note(stage->bed.check, "%s is acknowledged as done", what);
    }
    sdc_check_bed_vanish(&stage->bed);
}

static void wrong_sizes(struct sdc_check *check)
{
    static const uint32_t sizes[] = {0, 3, 48, 32769, 65536, 0x10000 + SIZE, UINT32_MAX};

    for (size_t i = 0; i < SDC_COUNT(sizes); i++) {
        struct sdc_check_stage stage;
        char what[80];
        snprintf(what, sizeof what, "a split ring of %" PRIu32 " entries", sizes[i]);
        open_vring(&stage, check, 0);
        sdc_check_bed_make_queue(&stage.bed, 0, SIZE);
        struct sdc_vhost_vring_addr addr = sdc_check_bed_vhost_addresses(&stage.bed, 0);
        start_wrong(&stage, sizes[i], &addr, what);
    }
}

static void wrong_index(struct sdc_check *check)
{
    static const uint32_t requests[] = {SDC_VHOST_SET_VRING_NUM, SDC_VHOST_SET_VRING_BASE, SDC_VHOST_SET_VRING_ENABLE,
                                        SDC_VHOST_SET_VRING_ADDR, SDC_VHOST_SET_VRING_KICK, SDC_VHOST_SET_VRING_CALL,
                                        SDC_VHOST_SET_VRING_ERR};
    static const uint32_t indexes[] = {255, QUEUES_NONE, 0x80000000, UINT32_MAX};
    int fd = sdc_eventfd_new();

    for (size_t i = 0; i < SDC_COUNT(requests) * SDC_COUNT(indexes); i++) {
        struct sdc_check_vhost vhost;
        uint32_t request = requests[i / SDC_COUNT(indexes)], index = indexes[i % SDC_COUNT(indexes)];
        struct sdc_vhost_vring_addr payload = {.index = index};
        bool has_fd = request >= SDC_VHOST_SET_VRING_KICK && request <= SDC_VHOST_SET_VRING_ERR;
        char what[80], name[SDC_NAME_SIZE];
        snprintf(what, sizeof what, "%s for vring %" PRIu32, sdc_vhost_request_name(request, name), has_fd ? index & 0xff : index);
        if (request == SDC_VHOST_SET_VRING_NUM || request == SDC_VHOST_SET_VRING_ENABLE)
            payload.flags = 1; // num
        sdc_check_vhost_open(&vhost, check, ALL);
        sdc_check_vhost_set_u64(&vhost, SDC_VHOST_SET_FEATURES, vhost.features & ~SDC_VIRTIO_F_ACCESS_PLATFORM);
        sdc_check_vhost_open_question(&vhost,
                                      &(struct sdc_check_vhost_request){.request = request,
                                                                        .payload = &payload,
                                                                        .size = request == SDC_VHOST_SET_VRING_ADDR ? sizeof payload : 8,
                                                                        .fds = &fd,
                                                                        .fds_count = has_fd},
                                      what);
        sdc_check_vhost_close(&vhost);
    }
}

static void wrong_index_asked(struct sdc_check *check)
{
    static const uint32_t indexes[] = {255, QUEUES_NONE, 0x80000000, UINT32_MAX};

    for (size_t i = 0; i < SDC_COUNT(indexes); i++) {
        struct sdc_check_vhost vhost;
        struct sdc_check_vhost_message message;
        struct sdc_vhost_vring_state state = {.index = indexes[i]};
        sdc_check_vhost_open(&vhost, check, ALL);
        sdc_check_vhost_send(&vhost, &(struct sdc_check_vhost_request){
                                         .request = SDC_VHOST_GET_VRING_BASE, .payload = &state, .size = sizeof state});
        if (sdc_check_vhost_receive(&vhost, &message, sdc_check_patience(check)) == SDC_CHECK_VHOST_SILENCE)
            sdc_check_fail(check, "GET_VRING_BASE has to be answered, or the connection closed");
        sdc_check_vhost_close(&vhost);
    }
}

static void wrong_addresses(struct sdc_check *check)
{
    for (unsigned i = 0; i < 18; i++) {
        static const char *const names[] = {"a descriptor table", "an available ring", "a used ring"};
        struct sdc_check_stage stage;
        char what[80];
        open_vring(&stage, check, 0);
        sdc_check_bed_make_queue(&stage.bed, 0, SIZE);
        struct sdc_vhost_vring_addr addr = sdc_check_bed_vhost_addresses(&stage.bed, 0);
        const struct sdc_client_memory *memory = &stage.bed.memory;
        uint64_t user = memory->iova + stage.bed.user_offset;
        const uint64_t places[] = {0, memory->iova, user + memory->size, user + memory->size - 16, UINT64_MAX - 15, user - 16};
        uint64_t *const parts[] = {&addr.descriptor, &addr.available, &addr.used};
        *parts[i % 3] = places[i / 3];
        snprintf(what, sizeof what, "%s at 0x%" PRIx64 ", outside the memory", names[i % 3], places[i / 3]);
        start_wrong(&stage, SIZE, &addr, what);
    }
}

// Fds that are no eventfds; fds that the message says do not come, and none that it says do.
static void wrong_fds(struct sdc_check *check)
{
    static const uint32_t requests[] = {SDC_VHOST_SET_VRING_KICK, SDC_VHOST_SET_VRING_CALL, SDC_VHOST_SET_VRING_ERR};
    int pair[2], event = sdc_eventfd_new();

    if (sdc_socket_pair(pair) < 0)
        sdc_check_skip(check, "the tester cannot make sockets");
    const struct {
        const char *what;
        uint64_t payload;
        int fds[2];
        unsigned count;
    } forms[] = {
        {"memory", 0, {sdc_memfd_new("check", 4096), -1}, 1},
        {"a socket", 0, {pair[0], -1}, 1},
        {"no file descriptor, though one is said to come", 0, {-1, -1}, 0},
        {"a file descriptor, though none is said to come", SDC_VHOST_VRING_NO_FD, {event, -1}, 1},
        {"two file descriptors", 0, {event, event}, 2},
        {"bits that mean nothing", UINT64_C(1) << 40, {event, -1}, 1},
    };
    for (size_t i = 0; i < SDC_COUNT(requests) * SDC_COUNT(forms); i++) {
        struct sdc_check_vhost vhost;
        uint32_t request = requests[i % SDC_COUNT(requests)];
        size_t form = i / SDC_COUNT(requests);
        char what[120], name[SDC_NAME_SIZE];
        snprintf(what, sizeof what, "%s with %s", sdc_vhost_request_name(request, name), forms[form].what);
        sdc_check_vhost_open(&vhost, check, ALL);
        sdc_check_vhost_set_u64(&vhost, SDC_VHOST_SET_FEATURES, vhost.features & ~SDC_VIRTIO_F_ACCESS_PLATFORM);
        sdc_check_vhost_open_question(&vhost,
                                      &(struct sdc_check_vhost_request){.request = request,
                                                                        .payload = &forms[form].payload,
                                                                        .size = sizeof forms[form].payload,
                                                                        .fds = forms[form].fds,
                                                                        .fds_count = forms[form].count},
                                      what);
        sdc_check_vhost_close(&vhost);
    }
}

// Kicks and starts in a wrong order: before there is memory, before there are addresses.
static void wrong_order(struct sdc_check *check)
{
    static const uint32_t orders[][3] = {
        {SDC_VHOST_SET_VRING_KICK, SDC_VHOST_SET_VRING_ENABLE, SDC_VHOST_SET_VRING_NUM},
        {SDC_VHOST_SET_VRING_ENABLE, SDC_VHOST_SET_VRING_KICK, SDC_VHOST_SET_VRING_ADDR},
        {SDC_VHOST_SET_VRING_ADDR, SDC_VHOST_SET_VRING_KICK, SDC_VHOST_SET_VRING_ENABLE},
    };

    for (size_t i = 0; i < SDC_COUNT(orders); i++) {
        struct sdc_check_vhost vhost;
        int fd = sdc_eventfd_new();
        bool there = true;
        sdc_check_vhost_open(&vhost, check, ALL);
        sdc_check_vhost_set_u64(&vhost, SDC_VHOST_SET_FEATURES, vhost.features & ~SDC_VIRTIO_F_ACCESS_PLATFORM);
        sdc_eventfd_signal(fd);
        for (unsigned j = 0; there && j < SDC_COUNT(orders[i]); j++) {
            const struct sdc_vhost_vring_addr payload = {.flags = orders[i][j] == SDC_VHOST_SET_VRING_ADDR ? 0 : j + 1};
            bool kick = orders[i][j] == SDC_VHOST_SET_VRING_KICK;
            const uint64_t index = 0;
            const struct sdc_check_vhost_request request = {
                .request = orders[i][j],
                .payload = kick ? (const void *)&index : &payload,
                .size = orders[i][j] == SDC_VHOST_SET_VRING_ADDR ? sizeof payload : sizeof index,
                .fds = &fd,
                .fds_count = kick};
            there = sdc_check_vhost_try(&vhost, &request) != SDC_CHECK_VHOST_CLOSED;
        }
        sdc_check_vhost_close(&vhost);
    }
}

SDC_CHECK_BOTH(stop_and_go)
SDC_CHECK_BOTH(start_anywhere)
SDC_CHECK_BOTH(stopped_is_quiet)
SDC_CHECK_BOTH(stop_in_flight)

#define ROWS(name, section, function)                                  \
    {"vring-split/" name, section, SDC_CHECK_REQUESTS, split_##function},   \
    {"vring-packed/" name, section, SDC_CHECK_REQUESTS, packed_##function}

static const struct sdc_check_test tests[] = {
    ROWS("stop-and-go", GET_BASE, stop_and_go),
    ROWS("start-anywhere", "vhost-user, VHOST_USER_SET_VRING_BASE", start_anywhere),
    ROWS("stopped-is-quiet", STATES, stopped_is_quiet),
    ROWS("stop-in-flight", GET_BASE, stop_in_flight),
    {"vring/never-started", GET_BASE, SDC_CHECK_REQUESTS, never_started},
    {"vring/other-call-fd", STATES, SDC_CHECK_REQUESTS, other_call_fd},
    {"vring/polled", "vhost-user, VHOST_USER_SET_VRING_KICK", SDC_CHECK_REQUESTS, polls},
    {"vring/enable", "vhost-user, VHOST_USER_SET_VRING_ENABLE", SDC_CHECK_REQUESTS, enable},
    {"vring/without-protocol-features", STATES, SDC_CHECK_REQUESTS, without_protocol_features},
    {"vring/wrong-sizes", "vhost-user, VHOST_USER_SET_VRING_NUM", SDC_CHECK_REQUESTS, wrong_sizes},
    {"vring/wrong-index", "vhost-user, Multiple queue support", 0, wrong_index},
    {"vring/wrong-index-asked", GET_BASE, 0, wrong_index_asked},
    {"vring/wrong-addresses", "vhost-user, VHOST_USER_SET_VRING_ADDR", SDC_CHECK_REQUESTS, wrong_addresses},
    {"vring/wrong-fds", "vhost-user, VHOST_USER_SET_VRING_KICK", 0, wrong_fds},
    {"vring/wrong-order", STATES, 0, wrong_order},
};

const struct sdc_check_table sdc_check_vhost_vrings = {tests, SDC_COUNT(tests)};
