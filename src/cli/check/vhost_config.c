// SPDX-License-Identifier: BSD-3-Clause
// The device's configuration over vhost-user: read in pieces, read where there is none, and written where that may not be.
#include "cli/check/vhost.h"

#include "base/check.h"
#include "os/wait.h"

#include <sidecard/virtio.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ALL (~SDC_VHOST_PROTOCOL_F_INBAND_NOTIFICATIONS)
#define GET "vhost-user, VHOST_USER_GET_CONFIG"
#define SET "vhost-user, VHOST_USER_SET_CONFIG"

enum { CAPACITY = 8, DISK_FIXED = 32 /* bytes that each disk has */, WRITEBACK_AT = 32, CLOSE_MS = 20 };

// The device's bit, VIRTIO_BLK_F_CONFIG_WCE.
#define BLK_F_CONFIG_WCE (UINT64_C(1) << 11)

struct config {
    struct sdc_vhost_config head;
    uint8_t bytes[SDC_VHOST_CONFIG_MAX + 256];
};

static void open_config(struct sdc_check_vhost *vhost, struct sdc_check *check)
{
    sdc_check_vhost_open(vhost, check, ALL);
    sdc_check_vhost_needs(vhost, SDC_VHOST_PROTOCOL_F_CONFIG, "CONFIG");
}

static struct sdc_check_vhost_request request_of(uint32_t request, const struct config *config, uint32_t bytes)
{
    return (struct sdc_check_vhost_request){.request = request, .payload = config, .size = (uint32_t)sizeof config->head + bytes};
}

// Reads [offset, offset + size); the reply has to be about that.
static void get(struct sdc_check_vhost *vhost, uint32_t offset, uint32_t size, void *to)
{
    struct config config = {.head = {.offset = offset, .size = size}};
    struct sdc_check_vhost_request request = request_of(SDC_VHOST_GET_CONFIG, &config, size);

    sdc_check_vhost_ask(vhost, &request, &config, request.size);
    sdc_check_that(vhost->check, config.head.size == size, "the payload's size has to match the front end's request");
    memcpy(to, config.bytes, size);
}

static void sizes(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;
    uint8_t whole[DISK_FIXED], part[DISK_FIXED];

    open_config(&vhost, check);
    get(&vhost, 0, sizeof whole, whole);
    for (uint32_t size = 1; size <= sizeof whole; size++) {
        get(&vhost, 0, size, part);
        sdc_check_that(check, memcmp(part, whole, size) == 0, "the configuration is the same, however much of it is read");
    }
}

static void offset(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;
    uint8_t whole[DISK_FIXED], part[DISK_FIXED];

    open_config(&vhost, check);
    get(&vhost, 0, sizeof whole, whole);
    for (uint32_t at = 0; at < sizeof whole; at += 4) {
        get(&vhost, at, 4, part);
        sdc_check_that(check, memcmp(part, whole + at, 4) == 0,
                       "what is read at an offset of the configuration, %" PRIu32 ", is what lies there", at);
    }
}

// An error is a payload of no length.
static void outside(struct sdc_check *check)
{
    static const struct {
        uint32_t offset, size, sent;
    } ranges[] = {
        {0x10000, 8, 8},     {UINT32_MAX - 3, 8, 8},   {0, SDC_VHOST_CONFIG_MAX + 1, SDC_VHOST_CONFIG_MAX + 1},
        {0, UINT32_MAX, 8},  {0, 64, 8},               {0, 8, 64},
    };

    for (size_t i = 0; i < SDC_COUNT(ranges); i++) {
        struct sdc_check_vhost vhost;
        struct sdc_check_vhost_message message;
        struct config config = {.head = {.offset = ranges[i].offset, .size = ranges[i].size}};
        struct sdc_check_vhost_request request = request_of(SDC_VHOST_GET_CONFIG, &config, ranges[i].sent);
        open_config(&vhost, check);
        sdc_check_vhost_send(&vhost, &request);
        enum sdc_check_vhost_answer answer = sdc_check_vhost_receive(&vhost, &message, sdc_check_patience(check));
        if (answer == SDC_CHECK_VHOST_SILENCE)
            sdc_check_fail(check, "GET_CONFIG has to be answered, or the connection closed");
        memcpy(&config, message.payload, sizeof config.head);
        if (answer == SDC_CHECK_VHOST_DONE && message.header.size > sizeof config.head && config.head.size > 0)
            sdc_check_note(check, "%" PRIu32 " bytes of configuration at offset %" PRIu32 " (with %" PRIu32
                                  " bytes of payload) are read without an error, which is a payload of zero length",
                           ranges[i].size, ranges[i].offset, ranges[i].sent);
        sdc_check_vhost_close(&vhost);
    }
}

// Fields that are read-only, which the capacity of a disk is. With flags 0 it must not be accepted.
static void read_only(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;
    uint8_t before[CAPACITY], after[CAPACITY];

    open_config(&vhost, check);
    get(&vhost, 0, CAPACITY, before);
    struct config config = {.head = {.size = CAPACITY, .flags = SDC_VHOST_CONFIG_WRITABLE}};
    for (unsigned i = 0; i < CAPACITY; i++)
        config.bytes[i] = (uint8_t)(before[i] + 1);
    struct sdc_check_vhost_request request = request_of(SDC_VHOST_SET_CONFIG, &config, CAPACITY);
    enum sdc_check_vhost_answer answer = sdc_check_vhost_try(&vhost, &request);
    // One that has answered may close the connection yet.
    if (answer == SDC_CHECK_VHOST_CLOSED || sdc_wait_fd(vhost.fd, SDC_WAIT_HANGUP, CLOSE_MS) > 0) {
        sdc_check_vhost_close(&vhost);
        open_config(&vhost, check);
        answer = SDC_CHECK_VHOST_CLOSED;
    }
    get(&vhost, 0, CAPACITY, after);
    sdc_check_that(check, memcmp(before, after, CAPACITY) == 0, "SET_CONFIG must not be accepted for fields that are read-only");
    if (answer == SDC_CHECK_VHOST_DONE && vhost.protocol & SDC_VHOST_PROTOCOL_F_REPLY_ACK)
        sdc_check_note(check, "SET_CONFIG of a field that is read-only is acknowledged as done, though it is not");
}

static void wrong_flags(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;
    struct config config = {.head = {.size = CAPACITY, .flags = 0x80}};
    struct sdc_check_vhost_request request = request_of(SDC_VHOST_SET_CONFIG, &config, CAPACITY);

    open_config(&vhost, check);
    get(&vhost, 0, CAPACITY, config.bytes);
    sdc_check_vhost_open_question(&vhost, &request, "SET_CONFIG with flags that there are not, which the back end must check,");
}

static void set_outside(struct sdc_check *check)
{
    static const struct {
        uint32_t offset, size, sent;
    } ranges[] = {{0x10000, 8, 8}, {UINT32_MAX - 3, 8, 8}, {0, UINT32_MAX, 8}, {0, 64, 8}};

    for (size_t i = 0; i < SDC_COUNT(ranges); i++) {
        struct sdc_check_vhost vhost;
        struct config config = {.head = {.offset = ranges[i].offset, .size = ranges[i].size}};
        struct sdc_check_vhost_request request = request_of(SDC_VHOST_SET_CONFIG, &config, ranges[i].sent);
        char what[120];
        snprintf(what, sizeof what, "SET_CONFIG of %" PRIu32 " bytes at %" PRIu32 " with %" PRIu32 " bytes of payload", ranges[i].size,
                 ranges[i].offset, ranges[i].sent);
        open_config(&vhost, check);
        sdc_check_vhost_open_question(&vhost, &request, what);
        sdc_check_vhost_close(&vhost);
    }
}

// The one field of a disk that is writable (5.2.5): the cache's mode.
static void writeback(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;

    open_config(&vhost, check);
    if (!(vhost.features & BLK_F_CONFIG_WCE))
        sdc_check_not_offered(check, "VIRTIO_BLK_F_CONFIG_WCE is not offered");
    sdc_check_vhost_set_u64(&vhost, SDC_VHOST_SET_FEATURES, vhost.features & ~SDC_VIRTIO_F_ACCESS_PLATFORM);
    for (unsigned i = 0; i < 4; i++) {
        uint8_t bytes[WRITEBACK_AT + 1];
        struct config config = {.head = {.offset = WRITEBACK_AT, .size = 1}, .bytes = {i % 2}};
        struct sdc_check_vhost_request request = request_of(SDC_VHOST_SET_CONFIG, &config, 1);
        sdc_check_vhost_do(&vhost, &request);
        get(&vhost, 0, sizeof bytes, bytes);
        sdc_check_that(check, bytes[WRITEBACK_AT] == i % 2, "writeback reads as it was set, %u", i % 2);
    }
}

static const struct sdc_check_test tests[] = {
    {"config/sizes", GET, SDC_CHECK_BLK, sizes},
    {"config/offset", GET, SDC_CHECK_BLK, offset},
    {"config/outside", GET, 0, outside},
    {"config/read-only", SET, SDC_CHECK_BLK, read_only},
    {"config/wrong-flags", SET, SDC_CHECK_BLK, wrong_flags},
    {"config/set-outside", SET, 0, set_outside},
    {"config/writeback", SET, SDC_CHECK_BLK, writeback},
};

const struct sdc_check_table sdc_check_vhost_config = {tests, SDC_COUNT(tests)};
