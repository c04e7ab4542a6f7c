// SPDX-License-Identifier: BSD-3-Clause
// The device's state over vhost-user, as a migration moves it: saved through one file descriptor, loaded through another, and after each
// the back end says whether all is well.
#include "cli/check/stage.h"

#include "base/check.h"
#include "os/fd.h"
#include "os/socket.h"
#include "os/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SET "vhost-user, VHOST_USER_SET_DEVICE_STATE_FD"
#define CHECK "vhost-user, VHOST_USER_CHECK_DEVICE_STATE"
#define PROTOCOL (~SDC_VHOST_PROTOCOL_F_INBAND_NOTIFICATIONS)

enum { STATE_MAX = 64 << 20, PIECE = 64 << 10, ROUNDS = 3 };

struct state {
    uint8_t *bytes;
    size_t size;
};

static void open_stateful(struct sdc_check_stage *stage, struct sdc_check *check)
{
    const struct sdc_check_bed_wishes wishes = {.features = SDC_CHECK_RINGS, .protocol = PROTOCOL};

    sdc_check_stage_open_as(stage, check, wishes, SDC_VIRTIO_BLK_SECTOR);
    sdc_check_vhost_needs(&stage->bed.vhost, SDC_VHOST_PROTOCOL_F_DEVICE_STATE, "DEVICE_STATE");
}

// Sends one end of a channel with SET_DEVICE_STATE_FD. What the back end answers.
static uint64_t try_set(struct sdc_check_stage *stage, uint32_t direction, uint32_t phase, int fd, int *other)
{
    struct sdc_check_vhost *vhost = &stage->bed.vhost;
    const struct sdc_vhost_device_state transfer = {.direction = direction, .phase = phase};
    struct sdc_check_vhost_message reply;
    uint64_t value;

    sdc_check_vhost_send(vhost, &(struct sdc_check_vhost_request){.request = SDC_VHOST_SET_DEVICE_STATE_FD,
                                                                  .payload = &transfer,
                                                                  .size = sizeof transfer,
                                                                  .fds = &fd,
                                                                  .fds_count = 1});
    sdc_check_vhost_reply(vhost, SDC_VHOST_SET_DEVICE_STATE_FD, sizeof value, &reply);
    memcpy(&value, reply.payload, sizeof value);
    bool comes = !(value & SDC_VHOST_STATE_NO_FD);
    if ((value & SDC_VHOST_STATE_ERROR) == 0)
        sdc_check_that(vhost->check, reply.fds_count == comes,
                       "bit 8 of the reply is set when no file descriptor comes with it, and is not when one does");
    *other = reply.fds_count > 0 ? reply.fds[0] : -1;
    return value;
}

// Our end of a channel in that direction, which is the back end's own if it has one.
static int set(struct sdc_check_stage *stage, uint32_t direction)
{
    int pair[2], own;

    if (sdc_socket_pair(pair) < 0)
        sdc_check_skip(stage->bed.check, "the tester cannot make sockets");
    uint64_t value = try_set(stage, direction, SDC_VHOST_STATE_STOPPED, pair[1], &own);
    sdc_check_that(stage->bed.check, (value & SDC_VHOST_STATE_ERROR) == 0,
                   "while all vrings are stopped the state of a device can be %s, since DEVICE_STATE is offered",
                   direction == SDC_VHOST_STATE_SAVE ? "saved" : "loaded");
    sdc_fd_close(&pair[1]);
    if (own < 0)
        return pair[0];
    sdc_fd_close(&pair[0]);
    return own;
}

static void check_state(struct sdc_check_stage *stage, const char *when)
{
    sdc_check_section(stage->bed.check, CHECK);
    uint64_t value = sdc_check_vhost_ask_u64(&stage->bed.vhost, SDC_VHOST_CHECK_DEVICE_STATE);
    sdc_check_that(stage->bed.check, value == 0, "CHECK_DEVICE_STATE says 0 %s", when);
    sdc_check_section(stage->bed.check, SET);
}

// --- saving, loading ---

// Waits until fd is ready. False: it is not, as long as an answer may take.
static bool ready(struct sdc_check *check, int fd, unsigned wanted)
{
    return sdc_wait_fd(fd, wanted, sdc_check_patience(check)) > 0;
}

static void save(struct sdc_check_stage *stage, struct state *state)
{
    struct sdc_check *check = stage->bed.check;
    int fd = set(stage, SDC_VHOST_STATE_SAVE);
    ssize_t got = 1;

    *state = (struct state){.bytes = malloc(STATE_MAX)};
    if (!state->bytes || sdc_fd_set_nonblocking(fd) < 0)
        sdc_check_skip(check, "the tester has no memory for a state");
    while (got != 0) {
        got = sdc_fd_read(fd, state->bytes + state->size, STATE_MAX - state->size);
        if (got == -EAGAIN && ready(check, fd, SDC_WAIT_INPUT))
            continue;
        sdc_check_came(check, "%zu bytes of state, and no end", state->size);
        sdc_check_that(check, got >= 0 && (got == 0 || state->size + (size_t)got < STATE_MAX),
                       "closing the file descriptor signals the end of the state");
        state->size += (size_t)got;
    }
    sdc_fd_close(&fd);
    check_state(stage, "when the state was saved");
}

// Writes `size` bytes in pieces, closes, and asks. Whether the back end has taken them for a state.
static bool load(struct sdc_check_stage *stage, const struct state *state, size_t size)
{
    static const size_t pieces[] = {1, 3, 4096, 100, PIECE};
    struct sdc_check *check = stage->bed.check;
    int fd = set(stage, SDC_VHOST_STATE_LOAD);
    size_t sent = 0;

    if (sdc_fd_set_nonblocking(fd) < 0)
        sdc_check_skip(check, "the tester cannot write without waiting");
    for (unsigned i = 0; sent < size; i++) {
        ssize_t some = sdc_socket_is_connected(fd)
                           ? sdc_socket_send(fd, &(struct iovec){state->bytes + sent, sdc_min(size - sent, pieces[i % SDC_COUNT(pieces)])},
                                             1, NULL, 0)
                           : sdc_fd_write(fd, state->bytes + sent, sdc_min(size - sent, pieces[i % SDC_COUNT(pieces)]));
        if (some == -EAGAIN && ready(check, fd, SDC_WAIT_OUTPUT))
            continue;
        if (some < 0)
            break; // it wants no more: what it says of that is asked next
        sent += (size_t)some;
    }
    sdc_fd_close(&fd);
    sdc_check_sent(check, "%zu bytes of the %zu of a state, and CHECK_DEVICE_STATE", sent, state->size);
    return sdc_check_vhost_ask_u64(&stage->bed.vhost, SDC_VHOST_CHECK_DEVICE_STATE) == 0;
}

// --- the tests ---

static void saved(struct sdc_check *check)
{
    struct sdc_check_stage stage;
    struct state state;

    open_stateful(&stage, check);
    for (unsigned i = 0; i < ROUNDS; i++) {
        sdc_check_bed_run_queues(&stage.bed, 1, 0);
        sdc_check_stage_read(&stage, 0, SDC_CHECK_CUT_PLAIN, false);
        sdc_check_bed_vhost_stop_all(&stage.bed);
        save(&stage, &state);
        free(state.bytes);
    }
    sdc_check_bed_run_queues(&stage.bed, 1, 0);
    sdc_check_stage_read(&stage, 0, SDC_CHECK_CUT_PLAIN, false);
}

// What one connection has saved another one loads, and goes on where the rings were.
static void loaded(struct sdc_check *check)
{
    struct sdc_check_stage stage;
    struct state state;

    open_stateful(&stage, check);
    sdc_check_bed_run_queues(&stage.bed, 1, 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        sdc_check_stage_read(&stage, 0, SDC_CHECK_CUT_PLAIN, false);
        uint32_t base = sdc_check_bed_vhost_stop(&stage.bed, 0);
        save(&stage, &state);
        sdc_check_bed_vhost_reconnect(&stage.bed);
        sdc_check_section(check, CHECK);
        sdc_check_that(check, load(&stage, &state, state.size), "CHECK_DEVICE_STATE says 0 when a state that was saved is loaded");
        sdc_check_section(check, SET);
        free(state.bytes);
        sdc_check_bed_vhost_start(&stage.bed, 0, base);
        sdc_check_bed_run(&stage.bed);
    }
    sdc_check_stage_read(&stage, 0, SDC_CHECK_CUT_PLAIN, false);
}

// What is no state, or not all of one. How it is found out is the device's affair; but it stays there.
static void no_state(struct sdc_check *check)
{
    struct sdc_check_stage stage;
    struct state state;

    open_stateful(&stage, check);
    save(&stage, &state);
    sdc_check_section(check, CHECK);
    if (state.size == 0)
        sdc_check_not_offered(check, "the device has no state of its own");
    for (unsigned i = 0; i < 2; i++) {
        sdc_check_bed_vhost_reconnect(&stage.bed);
        if (i == 1)
            memset(state.bytes, 0xd5, state.size);
        if (load(&stage, &state, i == 0 ? state.size - 1 : state.size))
            sdc_check_note(check, "%s is taken for a state", i == 0 ? "a state without its last byte" : "so many bytes that mean nothing");
    }
}

static void unknown(struct sdc_check *check)
{
    static const uint32_t values[][2] = {{2, 0}, {UINT32_MAX, 0}, {0, 1}, {1, 7}};

    for (size_t i = 0; i < SDC_COUNT(values); i++) {
        struct sdc_check_stage stage;
        int pair[2], own;
        open_stateful(&stage, check);
        if (sdc_socket_pair(pair) < 0)
            sdc_check_skip(check, "the tester cannot make sockets");
        if ((try_set(&stage, values[i][0], values[i][1], pair[1], &own) & SDC_VHOST_STATE_ERROR) == 0)
            sdc_check_note(check, "direction %" PRIu32 " in phase %" PRIu32 ", which there is not, is acknowledged as done", values[i][0],
                           values[i][1]);
        sdc_check_bed_vanish(&stage.bed);
    }
}

static const struct sdc_check_test tests[] = {
    {"device-state/saved", SET, SDC_CHECK_REQUESTS, saved},
    {"device-state/loaded", SET, SDC_CHECK_REQUESTS, loaded},
    {"device-state/no-state", SET, SDC_CHECK_REQUESTS, no_state},
    {"device-state/unknown-transfers", SET, SDC_CHECK_REQUESTS, unknown},
};

const struct sdc_check_table sdc_check_vhost_state = {tests, SDC_COUNT(tests)};
