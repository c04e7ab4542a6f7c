// SPDX-License-Identifier: BSD-3-Clause
// vhost-user messages that need no vring: framing, features, acknowledgements, configuration, status, and what comes beside them.
#include "cli/check/vhost.h"

#include "base/check.h"
#include "os/fd.h"
#include "os/memfd.h"
#include "os/socket.h"
#include "os/wait.h"
#include "wire/names.h"

#include <sidecard/virtio.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ALL (~SDC_VHOST_PROTOCOL_F_INBAND_NOTIFICATIONS)

#define FRAMING "vhost-user, Header"
#define MESSAGES "vhost-user, Front-end message types"
#define ACKS "vhost-user, REPLY_ACK"

enum {
    ENTRIES = 8, // of a ring that every back end takes
    INFLIGHT_ENTRY = 16, // bytes of the log for each
};

static const uint64_t zero = 0;

// --- framing ---

static void whole_header(struct sdc_vhost_header *header, uint32_t request)
{
    *header = (struct sdc_vhost_header){.request = request, .flags = SDC_VHOST_VERSION};
}

static void byte_by_byte(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;
    struct sdc_check_vhost_message message;
    struct sdc_vhost_header header;

    sdc_check_vhost_connect(&vhost, check);
    sdc_check_vhost_fence(&vhost);
    whole_header(&header, SDC_VHOST_GET_FEATURES);
    for (size_t i = 0; i < sizeof header; i++)
        sdc_check_vhost_send_bytes(&vhost, (const uint8_t *)&header + i, 1, NULL, 0);
    if (sdc_check_vhost_receive(&vhost, &message, sdc_check_patience(check)) != SDC_CHECK_VHOST_DONE ||
        message.header.request != SDC_VHOST_GET_FEATURES)
        sdc_check_note(check, "a request whose header comes byte by byte is not answered, though a stream keeps no messages apart");
}

static void many_at_once(struct sdc_check *check)
{
    struct sdc_vhost_header headers[20];
    struct sdc_check_vhost_message message;
    struct sdc_check_vhost vhost;

    sdc_check_vhost_open(&vhost, check, 0);
    for (size_t i = 0; i < SDC_COUNT(headers); i++)
        whole_header(&headers[i], i % 2 == 0 ? SDC_VHOST_GET_FEATURES : SDC_VHOST_SET_OWNER);
    sdc_check_sent(check, "GET_FEATURES and SET_OWNER in turns, 10 times, at once");
    sdc_check_vhost_send_bytes(&vhost, headers, sizeof headers, NULL, 0);
    for (size_t i = 0; i < SDC_COUNT(headers) / 2; i++)
        sdc_check_vhost_reply(&vhost, SDC_VHOST_GET_FEATURES, sizeof(uint64_t), &message);
    sdc_check_vhost_fence(&vhost);
}

static void unknown_request(struct sdc_check *check)
{
    static const uint32_t requests[] = {0, 44 + 100, 0x7fffffff, UINT32_MAX};
    struct sdc_check_vhost vhost;

    for (size_t i = 0; i < SDC_COUNT(requests); i++) {
        for (unsigned ack = 0; ack < 2; ack++) {
            sdc_check_vhost_open(&vhost, check, ack ? ALL : 0);
            sdc_check_vhost_open_question(&vhost, &(struct sdc_check_vhost_request){.request = requests[i]}, "a request that there is not");
            sdc_check_vhost_close(&vhost);
        }
    }
}

static void other_version(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;

    for (uint32_t version = 2; version <= 3; version++) {
        sdc_check_vhost_open(&vhost, check, ALL);
        sdc_check_vhost_open_question(
            &vhost,
            &(struct sdc_check_vhost_request){.request = SDC_VHOST_SET_OWNER, .version = version},
            "a request of another version than 1");
        sdc_check_vhost_close(&vhost);
    }
}

static void wrong_size(struct sdc_check *check)
{
    static const struct {
        uint32_t request, size;
    } requests[] = {
        {SDC_VHOST_SET_FEATURES, 8},    {SDC_VHOST_SET_VRING_NUM, 8},  {SDC_VHOST_SET_VRING_ADDR, 40}, {SDC_VHOST_SET_VRING_BASE, 8},
        {SDC_VHOST_SET_VRING_ENABLE, 8}, {SDC_VHOST_SET_VRING_CALL, 8}, {SDC_VHOST_SET_VRING_KICK, 8},
        {SDC_VHOST_SET_PROTOCOL_FEATURES, 8},
    };
    static const int32_t off[] = {-8, -1, 1, 400};
    uint8_t payload[512] = {0};
    struct sdc_check_vhost vhost;

    for (size_t i = 0; i < SDC_COUNT(requests); i++) {
        for (size_t j = 0; j < SDC_COUNT(off); j++) {
            uint32_t size = (uint32_t)((int32_t)requests[i].size + off[j]);
            char what[100], name[SDC_NAME_SIZE];
            snprintf(what, sizeof what, "%s with %" PRIu32 " bytes of payload",
                     sdc_vhost_request_name(requests[i].request, name), size);
            sdc_check_vhost_open(&vhost, check, SDC_VHOST_PROTOCOL_F_REPLY_ACK);
            sdc_check_vhost_open_question(
                &vhost, &(struct sdc_check_vhost_request){.request = requests[i].request, .payload = payload, .size = size}, what);
            sdc_check_vhost_close(&vhost);
        }
    }
}

static void huge_size(struct sdc_check *check)
{
    static const uint32_t sizes[] = {UINT32_MAX, 0x7fffffff, 0x10000};
    struct sdc_check_vhost vhost;
    struct sdc_check_vhost_message message;

    for (size_t i = 0; i < SDC_COUNT(sizes); i++) {
        sdc_check_vhost_open(&vhost, check, 0);
        sdc_check_vhost_send(&vhost, &(struct sdc_check_vhost_request){
                                         .request = SDC_VHOST_SET_FEATURES, .payload = &zero, .size = sizeof zero, .claimed = sizes[i]});
        // It may wait for the rest, or close the connection; there is nothing to answer yet.
        if (sdc_check_vhost_receive(&vhost, &message, 100) == SDC_CHECK_VHOST_DONE)
            sdc_check_fail(check, "a request that is not there as a whole, and asks for no reply, has none");
        sdc_check_vhost_close(&vhost);
    }
}

static void cut_short(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;
    struct sdc_vhost_header header;

    whole_header(&header, SDC_VHOST_SET_FEATURES);
    header.size = sizeof zero;
    for (size_t size = 1; size <= sizeof header; size += 11) {
        sdc_check_vhost_open(&vhost, check, 0);
        sdc_check_sent(check, "the first %zu bytes of SET_FEATURES, and the end of the connection", size);
        sdc_check_vhost_send_bytes(&vhost, &header, size, NULL, 0);
        sdc_check_vhost_close(&vhost);
    }
}

static void needless_fds(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;
    int fds[SDC_VHOST_FDS_MAX];

    for (unsigned i = 0; i < SDC_COUNT(fds); i++)
        fds[i] = sdc_eventfd_new();
    for (unsigned ack = 0; ack < 2; ack++) {
        sdc_check_vhost_open(&vhost, check, ack ? ALL : 0);
        sdc_check_vhost_open_question(
            &vhost,
            &(struct sdc_check_vhost_request){.request = SDC_VHOST_SET_OWNER, .fds = fds, .fds_count = SDC_COUNT(fds)},
            "SET_OWNER with file descriptors");
        sdc_check_vhost_close(&vhost);
    }
}

// --- features ---

static void features(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;

    sdc_check_vhost_connect(&vhost, check);
    sdc_check_vhost_fence(&vhost);
    uint64_t first = vhost.features;
    sdc_check_vhost_fence(&vhost);
    sdc_check_that(check, vhost.features == first, "a device offers the same features each time it is asked");
    if (!(first & SDC_VIRTIO_F_VERSION_1))
        sdc_check_note(check, "VIRTIO_F_VERSION_1 is not offered: it is a legacy device");
    if (!(first & SDC_VHOST_F_PROTOCOL_FEATURES))
        sdc_check_note(check, "VHOST_USER_F_PROTOCOL_FEATURES is not offered");
    sdc_check_vhost_set_u64(&vhost, SDC_VHOST_SET_FEATURES, first);
}

static void features_not_offered(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;

    sdc_check_vhost_open(&vhost, check, ALL);
    uint64_t beyond = vhost.features | (UINT64_C(1) << 60);
    sdc_check_vhost_open_question(
        &vhost, &(struct sdc_check_vhost_request){.request = SDC_VHOST_SET_FEATURES, .payload = &beyond, .size = sizeof beyond},
        "SET_FEATURES with a bit that is not offered");
}

static void protocol_features(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;

    sdc_check_vhost_connect(&vhost, check);
    sdc_check_vhost_fence(&vhost);
    if (!(vhost.features & SDC_VHOST_F_PROTOCOL_FEATURES))
        sdc_check_not_offered(check, "VHOST_USER_F_PROTOCOL_FEATURES is not offered");
    // Both have to work before SET_FEATURES.
    vhost.offered = sdc_check_vhost_ask_u64(&vhost, SDC_VHOST_GET_PROTOCOL_FEATURES);
    sdc_check_vhost_set_u64(&vhost, SDC_VHOST_SET_PROTOCOL_FEATURES, vhost.offered & ALL);
    sdc_check_that(check, vhost.offered == sdc_check_vhost_ask_u64(&vhost, SDC_VHOST_GET_PROTOCOL_FEATURES),
                   "a back end offers the same protocol features each time it is asked");
    if (!(vhost.offered & SDC_VHOST_PROTOCOL_F_MQ))
        sdc_check_note(check, "VHOST_USER_PROTOCOL_F_MQ, which back ends should always have, is not offered");
}

static void protocol_features_not_offered(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;
    uint64_t beyond = UINT64_C(1) << 55;

    sdc_check_vhost_open(&vhost, check, SDC_VHOST_PROTOCOL_F_REPLY_ACK);
    sdc_check_vhost_needs(&vhost, SDC_VHOST_PROTOCOL_F_REPLY_ACK, "REPLY_ACK");
    beyond |= SDC_VHOST_PROTOCOL_F_REPLY_ACK;
    sdc_check_vhost_open_question(
        &vhost, &(struct sdc_check_vhost_request){.request = SDC_VHOST_SET_PROTOCOL_FEATURES, .payload = &beyond, .size = sizeof beyond},
        "SET_PROTOCOL_FEATURES with a bit that is not offered");
}

static void in_band_alone(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;
    uint64_t alone = SDC_VHOST_PROTOCOL_F_INBAND_NOTIFICATIONS;

    sdc_check_vhost_open(&vhost, check, 0);
    if (!(vhost.offered & alone))
        sdc_check_not_offered(check, "VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS is not offered");
    if (sdc_check_vhost_try(&vhost, &(struct sdc_check_vhost_request){
                                        .request = SDC_VHOST_SET_PROTOCOL_FEATURES, .payload = &alone, .size = sizeof alone}) !=
        SDC_CHECK_VHOST_CLOSED)
        sdc_check_note(check, "the connection should be closed when notifications in band are set without BACKEND_REQ and REPLY_ACK");
}

// --- acknowledgements ---

static void acks(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;

    sdc_check_vhost_open(&vhost, check, ALL);
    sdc_check_vhost_needs(&vhost, SDC_VHOST_PROTOCOL_F_REPLY_ACK, "REPLY_ACK");
    sdc_check_vhost_set_u64(&vhost, SDC_VHOST_SET_FEATURES, vhost.features);
    sdc_check_vhost_do(&vhost, &(struct sdc_check_vhost_request){.request = SDC_VHOST_SET_OWNER});
    sdc_check_vhost_set_state(&vhost, SDC_VHOST_SET_VRING_NUM, 0, ENTRIES);
    sdc_check_vhost_set_state(&vhost, SDC_VHOST_SET_VRING_BASE, 0, 0);
    sdc_check_vhost_set_fd(&vhost, SDC_VHOST_SET_VRING_CALL, 0, sdc_eventfd_new());
}

static void ack_only_when_asked(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;

    sdc_check_vhost_open(&vhost, check, ALL);
    sdc_check_vhost_needs(&vhost, SDC_VHOST_PROTOCOL_F_REPLY_ACK, "REPLY_ACK");
    vhost.protocol &= ~SDC_VHOST_PROTOCOL_F_REPLY_ACK; // so that no reply is asked for
    sdc_check_vhost_set_u64(&vhost, SDC_VHOST_SET_FEATURES, vhost.features);
    sdc_check_vhost_do(&vhost, &(struct sdc_check_vhost_request){.request = SDC_VHOST_SET_OWNER});
}

static void ack_of_own_replies(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;
    uint64_t value;

    sdc_check_vhost_open(&vhost, check, ALL);
    sdc_check_vhost_needs(&vhost, SDC_VHOST_PROTOCOL_F_REPLY_ACK, "REPLY_ACK");
    // One reply, the request's own: a second one would be taken for the next request's, of which there is only one.
    static const uint32_t requests[] = {SDC_VHOST_GET_FEATURES, SDC_VHOST_GET_PROTOCOL_FEATURES};
    for (size_t i = 0; i < SDC_COUNT(requests); i++) {
        sdc_check_vhost_ask(&vhost, &(struct sdc_check_vhost_request){.request = requests[i], .flags = SDC_VHOST_NEED_REPLY}, &value,
                            sizeof value);
        sdc_check_that(check, value == (i == 0 ? vhost.features : vhost.offered), "need_reply does not change a request's own reply");
    }
    struct sdc_vhost_vring_state state = {0};
    sdc_check_vhost_ask(&vhost,
                        &(struct sdc_check_vhost_request){.request = SDC_VHOST_GET_VRING_BASE,
                                                          .flags = SDC_VHOST_NEED_REPLY,
                                                          .payload = &state,
                                                          .size = sizeof state},
                        &state, sizeof state);
    sdc_check_vhost_fence(&vhost);
}

// --- what protocol features bring ---

static void queue_num(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;

    sdc_check_vhost_open(&vhost, check, ALL);
    sdc_check_vhost_needs(&vhost, SDC_VHOST_PROTOCOL_F_MQ, "MQ");
    sdc_check_that(check, sdc_check_vhost_ask_u64(&vhost, SDC_VHOST_GET_QUEUE_NUM) > 0, "a device has a queue");
}

static void max_mem_slots(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;

    sdc_check_vhost_open(&vhost, check, ALL);
    sdc_check_vhost_needs(&vhost, SDC_VHOST_PROTOCOL_F_CONFIGURE_MEM_SLOTS, "CONFIGURE_MEM_SLOTS");
    sdc_check_that(check, sdc_check_vhost_ask_u64(&vhost, SDC_VHOST_GET_MAX_MEM_SLOTS) > 0, "a back end has room for a region");
}

static void status(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;
    static const uint8_t steps[] = {SDC_VIRTIO_S_ACKNOWLEDGE, SDC_VIRTIO_S_ACKNOWLEDGE | SDC_VIRTIO_S_DRIVER,
                                    SDC_VIRTIO_S_ACKNOWLEDGE | SDC_VIRTIO_S_DRIVER | SDC_VIRTIO_S_FEATURES_OK, 0};

    sdc_check_vhost_open(&vhost, check, ALL);
    sdc_check_vhost_needs(&vhost, SDC_VHOST_PROTOCOL_F_STATUS, "STATUS");
    sdc_check_that(check, sdc_check_vhost_ask_u64(&vhost, SDC_VHOST_GET_STATUS) == 0, "a device that nobody has touched has status 0");
    for (size_t i = 0; i < SDC_COUNT(steps); i++) {
        if (steps[i] & SDC_VIRTIO_S_FEATURES_OK)
            sdc_check_vhost_set_u64(&vhost, SDC_VHOST_SET_FEATURES, vhost.features & ~SDC_VIRTIO_F_ACCESS_PLATFORM);
        sdc_check_vhost_set_u64(&vhost, SDC_VHOST_SET_STATUS, steps[i]);
        uint64_t got = sdc_check_vhost_ask_u64(&vhost, SDC_VHOST_GET_STATUS);
        sdc_check_that(check, got == steps[i], "GET_STATUS has to say what the driver set, 0x%x", steps[i]);
    }
}

static void reset_device(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;

    sdc_check_vhost_open(&vhost, check, ALL);
    sdc_check_vhost_needs(&vhost, SDC_VHOST_PROTOCOL_F_RESET_DEVICE, "RESET_DEVICE");
    for (unsigned i = 0; i < 3; i++) {
        sdc_check_vhost_set_u64(&vhost, SDC_VHOST_SET_FEATURES, vhost.features & ~SDC_VIRTIO_F_ACCESS_PLATFORM);
        sdc_check_vhost_do(&vhost, &(struct sdc_check_vhost_request){.request = SDC_VHOST_RESET_DEVICE});
    }
    if (vhost.protocol & SDC_VHOST_PROTOCOL_F_STATUS)
        sdc_check_that(check, sdc_check_vhost_ask_u64(&vhost, SDC_VHOST_GET_STATUS) == 0, "after a reset the status is 0");
}

static void backend_req(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;
    int pair[2];

    sdc_check_vhost_open(&vhost, check, ALL);
    sdc_check_vhost_needs(&vhost, SDC_VHOST_PROTOCOL_F_BACKEND_REQ, "BACKEND_REQ");
    if (sdc_socket_pair(pair) < 0)
        sdc_check_skip(check, "the tester cannot make sockets");
    for (unsigned i = 0; i < 2; i++) // the second takes the first one's place
        sdc_check_vhost_do(&vhost, &(struct sdc_check_vhost_request){
                                       .request = SDC_VHOST_SET_BACKEND_REQ_FD, .fds = &pair[1], .fds_count = 1});
}

static void backend_req_wrong(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;
    int fds[] = {sdc_eventfd_new(), sdc_memfd_new("check", 4096)};

    for (unsigned count = 0; count <= SDC_COUNT(fds); count++) {
        sdc_check_vhost_open(&vhost, check, ALL);
        sdc_check_vhost_needs(&vhost, SDC_VHOST_PROTOCOL_F_BACKEND_REQ, "BACKEND_REQ");
        sdc_check_vhost_open_question(
            &vhost,
            &(struct sdc_check_vhost_request){.request = SDC_VHOST_SET_BACKEND_REQ_FD, .fds = fds, .fds_count = count},
            count == 0 ? "SET_BACKEND_REQ_FD without a file descriptor" : "SET_BACKEND_REQ_FD with what is no socket");
        sdc_check_vhost_close(&vhost);
    }
}

// --- what is in flight ---

static void get_inflight(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;
    struct sdc_check_vhost_message reply;
    struct sdc_vhost_inflight area = {.num_queues = 1, .queue_size = ENTRIES};
    struct sdc_file_identity identity;

    sdc_check_vhost_open(&vhost, check, ALL);
    sdc_check_vhost_needs(&vhost, SDC_VHOST_PROTOCOL_F_INFLIGHT_SHMFD, "INFLIGHT_SHMFD");
    // What the buffer looks like depends on the layout of the rings.
    sdc_check_vhost_set_u64(&vhost, SDC_VHOST_SET_FEATURES, vhost.features & ~SDC_VIRTIO_F_RING_PACKED);
    sdc_check_vhost_send(&vhost, &(struct sdc_check_vhost_request){
                                     .request = SDC_VHOST_GET_INFLIGHT_FD, .payload = &area, .size = sizeof area});
    sdc_check_vhost_reply(&vhost, SDC_VHOST_GET_INFLIGHT_FD, sizeof area, &reply);
    memcpy(&area, reply.payload, sizeof area);
    sdc_check_that(check, reply.fds_count == 1, "the buffer comes as one file descriptor");
    sdc_check_that(check, area.mmap_size >= ENTRIES * INFLIGHT_ENTRY, "the buffer has room for %d descriptors of %d bytes", ENTRIES,
                   INFLIGHT_ENTRY);
    sdc_check_that(check, sdc_fd_identify(reply.fds[0], &identity) == 0 && sdc_within(area.mmap_offset, area.mmap_size, identity.size),
                   "the buffer lies inside its file");
    sdc_check_vhost_do(&vhost, &(struct sdc_check_vhost_request){.request = SDC_VHOST_SET_INFLIGHT_FD,
                                                                 .payload = &area,
                                                                 .size = sizeof area,
                                                                 .fds = reply.fds,
                                                                 .fds_count = 1});
}

static void inflight_wrong(struct sdc_check *check)
{
    static const struct sdc_vhost_inflight areas[] = {
        {.mmap_size = 1 << 20, .num_queues = 1, .queue_size = 128},                       // longer than its file
        {.mmap_size = 4096, .mmap_offset = UINT64_MAX - 4095, .num_queues = 1, .queue_size = 128},
        {.mmap_size = 16, .num_queues = 4, .queue_size = 1024},                           // too short for what is in it
        {.mmap_size = UINT64_MAX, .num_queues = UINT16_MAX, .queue_size = UINT16_MAX},
        {.mmap_size = 4096, .num_queues = 0, .queue_size = 0},
    };
    struct sdc_check_vhost vhost;
    int fd = sdc_memfd_new("check", 4096);

    for (size_t i = 0; i < SDC_COUNT(areas) * 2; i++) {
        sdc_check_vhost_open(&vhost, check, ALL);
        sdc_check_vhost_needs(&vhost, SDC_VHOST_PROTOCOL_F_INFLIGHT_SHMFD, "INFLIGHT_SHMFD");
        sdc_check_vhost_open_question(&vhost,
                                      &(struct sdc_check_vhost_request){.request = SDC_VHOST_SET_INFLIGHT_FD,
                                                                        .payload = &areas[i / 2],
                                                                        .size = sizeof areas[0],
                                                                        .fds = &fd,
                                                                        .fds_count = i % 2},
                                      "SET_INFLIGHT_FD with a buffer that is not there, or too short");
        sdc_check_vhost_close(&vhost);
    }
}

static const struct sdc_check_test tests[] = {
    {"framing/byte-by-byte", FRAMING, 0, byte_by_byte},
    {"framing/many-at-once", FRAMING, 0, many_at_once},
    {"framing/unknown-request", FRAMING, 0, unknown_request},
    {"framing/other-version", FRAMING, 0, other_version},
    {"framing/wrong-size", MESSAGES, 0, wrong_size},
    {"framing/huge-size", FRAMING, 0, huge_size},
    {"framing/cut-short", FRAMING, 0, cut_short},
    {"framing/needless-fds", "vhost-user, Communication", 0, needless_fds},
    {"features/offered", "vhost-user, VHOST_USER_GET_FEATURES", 0, features},
    {"features/not-offered", "vhost-user, VHOST_USER_SET_FEATURES", 0, features_not_offered},
    {"protocol-features/offered", "vhost-user, VHOST_USER_GET_PROTOCOL_FEATURES", 0, protocol_features},
    {"protocol-features/not-offered", "vhost-user, VHOST_USER_SET_PROTOCOL_FEATURES", 0, protocol_features_not_offered},
    {"protocol-features/in-band-alone", "vhost-user, In-band notifications", 0, in_band_alone},
    {"reply-ack/done", ACKS, 0, acks},
    {"reply-ack/only-when-asked", ACKS, 0, ack_only_when_asked},
    {"reply-ack/own-replies", ACKS, 0, ack_of_own_replies},
    {"queue-num/some", "vhost-user, VHOST_USER_GET_QUEUE_NUM", 0, queue_num},
    {"mem-slots/some", "vhost-user, VHOST_USER_GET_MAX_MEM_SLOTS", 0, max_mem_slots},
    {"status/steps", "vhost-user, VHOST_USER_SET_STATUS", 0, status},
    {"reset-device/done", "vhost-user, VHOST_USER_RESET_DEVICE", 0, reset_device},
    {"backend-req/done", "vhost-user, VHOST_USER_SET_BACKEND_REQ_FD", 0, backend_req},
    {"backend-req/wrong-fds", "vhost-user, VHOST_USER_SET_BACKEND_REQ_FD", 0, backend_req_wrong},
    {"inflight/made", "vhost-user, VHOST_USER_GET_INFLIGHT_FD", 0, get_inflight},
    {"inflight/wrong-areas", "vhost-user, VHOST_USER_SET_INFLIGHT_FD", 0, inflight_wrong},
};

const struct sdc_check_table sdc_check_vhost_messages = {tests, SDC_COUNT(tests)};
