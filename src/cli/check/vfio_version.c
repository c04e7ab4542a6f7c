// SPDX-License-Identifier: BSD-3-Clause
// The handshake: VERSION, what may be proposed, and what may be answered.
#include "cli/check/vfio.h"

#include "base/check.h"
#include "os/clock.h"
#include "os/socket.h"
#include "wire/names.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECTION "vfio-user, VFIO_USER_VERSION"

enum { PROPOSAL_MAX = 65536, DEPTH = 20000, TRIES = 5, AGAIN_MS = 50 };

#define ALL_CAPABILITIES                                                                                               \
    "{\"capabilities\":{\"max_msg_fds\":16,\"max_data_xfer_size\":1048576,\"max_dma_maps\":65535,\"pgsizes\":4096," \
    "\"write_multiple\":true}}"

// Proposes a version with size bytes of data; its NUL is the caller's to count. The message ID.
static uint16_t propose(struct sdc_check_vfio *vfio, uint16_t major, uint16_t minor, const void *data, size_t size)
{
    struct sdc_vfu_version version = {.major = major, .minor = minor};
    uint8_t payload[sizeof version + PROPOSAL_MAX];
    memcpy(payload, &version, sizeof version);
    if (size > 0)
        memcpy(payload + sizeof version, data, size);
    return sdc_check_vfio_send(vfio, &(struct sdc_check_command){.command = SDC_VFU_VERSION, .payload = payload,
                                                                 .size = sizeof version + size});
}

static struct sdc_vfu_version version_of(struct sdc_check_vfio *vfio, const struct sdc_check_reply *reply)
{
    struct sdc_vfu_version version;
    sdc_check_that(vfio->check, reply->size >= sizeof version, "the reply has the same format as the request: major, minor, data");
    memcpy(&version, reply->payload, sizeof version);
    return version;
}

// The same with a reply that has to come. text NULL: without data. A client that is sent away comes again: the one before may have taken
// the server with it.
static struct sdc_vfu_version agree(struct sdc_check_vfio *vfio, uint16_t minor, const char *text, struct sdc_check_reply *reply)
{
    enum sdc_check_answer answer = SDC_CHECK_CLOSED;
    for (unsigned tries = 0; tries < TRIES && answer == SDC_CHECK_CLOSED; tries++) {
        if (tries > 0) {
            sdc_clock_pause(tries * AGAIN_MS * UINT64_C(1000000));
            sdc_check_vfio_close(vfio);
            sdc_check_vfio_connect(vfio, vfio->check);
        }
        uint16_t id = propose(vfio, 0, minor, text, text ? strlen(text) + 1 : 0);
        answer = sdc_check_vfio_await(vfio, id, SDC_VFU_VERSION, reply);
    }
    if (answer != SDC_CHECK_DONE)
        sdc_check_fail(vfio->check, "the server replies with a compatible version, or closes the connection");
    struct sdc_vfu_version version = version_of(vfio, reply);
    sdc_check_that(vfio->check, version.major == 0, "the major version in the reply must be the one that was proposed");
    sdc_check_that(vfio->check, version.minor <= minor, "the minor version in the reply must not be above the one that was proposed, %u",
                   minor);
    return version;
}

// The reply's data, parsed; NULL: it has none.
static json_t *data_of(struct sdc_check_vfio *vfio, const struct sdc_check_reply *reply)
{
    const char *text = (const char *)reply->payload + sizeof(struct sdc_vfu_version);
    size_t size = reply->size - sizeof(struct sdc_vfu_version);
    if (size == 0)
        return NULL;
    sdc_check_that(vfio->check, memchr(text, '\0', size) == text + size - 1, "the version data ends with its terminating NUL");
    json_t *data = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    sdc_check_that(vfio->check, json_is_object(data), "the version data is a JSON object (it was: %.300s)", text);
    return data;
}

static json_t *capabilities_of(struct sdc_check_vfio *vfio, const struct sdc_check_reply *reply)
{
    json_t *capabilities = json_object_get(data_of(vfio, reply), "capabilities");
    sdc_check_that(vfio->check, !capabilities || json_is_object(capabilities), "capabilities is an object");
    return capabilities;
}

// --- good ones ---

static void accepted(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    struct sdc_check_reply reply;
    sdc_check_vfio_connect(&vfio, check);
    agree(&vfio, 0, ALL_CAPABILITIES, &reply);
    sdc_check_vfio_fence(&vfio);
}

static void later_minor(struct sdc_check *check)
{
    static const uint16_t minors[] = {1, 2, 3, 255, UINT16_MAX};
    for (size_t i = 0; i < SDC_COUNT(minors); i++) {
        struct sdc_check_vfio vfio;
        struct sdc_check_reply reply;
        sdc_check_vfio_connect(&vfio, check);
        agree(&vfio, minors[i], ALL_CAPABILITIES, &reply);
        sdc_check_vfio_close(&vfio);
    }
}

static void agrees_on(struct sdc_check *check, const char *text)
{
    struct sdc_check_vfio vfio;
    struct sdc_check_reply reply;
    sdc_check_vfio_connect(&vfio, check);
    agree(&vfio, 0, text, &reply);
    sdc_check_vfio_fence(&vfio);
}

static void without_data(struct sdc_check *check)
{
    agrees_on(check, NULL);
}

static void empty_object(struct sdc_check *check)
{
    agrees_on(check, "{}");
}

static void empty_capabilities(struct sdc_check *check)
{
    agrees_on(check, "{\"capabilities\":{}}");
}

static void unknown_keys(struct sdc_check *check)
{
    agrees_on(check, "{\"of\":[1,2.5,null],\"capabilities\":{\"max_msg_fds\":1,\"other\":{\"a\":[\"b\"]}},\"vendor\":\"text\"}");
}

static void data_form(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    struct sdc_check_reply reply;
    sdc_check_vfio_connect(&vfio, check);
    agree(&vfio, 0, ALL_CAPABILITIES, &reply);
    data_of(&vfio, &reply);
}

static void capabilities_subset(struct sdc_check *check)
{
    static const char *const proposals[] = {
        NULL, "{\"capabilities\":{}}", "{\"capabilities\":{\"max_msg_fds\":8}}", "{\"capabilities\":{\"max_data_xfer_size\":65536}}",
        "{\"capabilities\":{\"write_multiple\":true}}", ALL_CAPABILITIES};
    for (size_t i = 0; i < SDC_COUNT(proposals); i++) {
        struct sdc_check_vfio vfio;
        struct sdc_check_reply reply;
        sdc_check_vfio_connect(&vfio, check);
        agree(&vfio, 0, proposals[i], &reply);
        json_t *proposed = proposals[i] ? json_object_get(json_loads(proposals[i], 0, NULL), "capabilities") : NULL;
        json_t *answered = capabilities_of(&vfio, &reply), *value;
        const char *key;
        json_object_foreach(answered, key, value)
            sdc_check_that(check, json_object_get(proposed, key),
                           "the capability list must be a subset of those proposed; '%.60s' was not (in answer to %s)", key,
                           proposals[i] ? proposals[i] : "no version data");
        sdc_check_vfio_close(&vfio);
    }
}

static void capability_types(struct sdc_check *check)
{
    static const char *const numbers[] = {"max_msg_fds", "max_data_xfer_size", "max_dma_maps", "pgsizes"};
    struct sdc_check_vfio vfio;
    struct sdc_check_reply reply;
    sdc_check_vfio_connect(&vfio, check);
    agree(&vfio, 0, ALL_CAPABILITIES, &reply);
    json_t *capabilities = capabilities_of(&vfio, &reply);
    for (size_t i = 0; i < SDC_COUNT(numbers); i++) {
        json_t *value = json_object_get(capabilities, numbers[i]);
        sdc_check_that(check, !value || (json_is_integer(value) && json_integer_value(value) >= 0), "%s is a number", numbers[i]);
    }
    json_t *multiple = json_object_get(capabilities, "write_multiple");
    sdc_check_that(check, !multiple || json_is_boolean(multiple), "write_multiple is a boolean");
}

static void twin_socket(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    struct sdc_check_reply reply;
    sdc_check_vfio_connect(&vfio, check);
    agree(&vfio, 0, "{\"capabilities\":{\"max_msg_fds\":8,\"twin_socket\":{\"supported\":true}}}", &reply);
    json_t *twin = json_object_get(capabilities_of(&vfio, &reply), "twin_socket");
    json_t *index = json_object_get(twin, "fd_index");
    if (!json_is_true(json_object_get(twin, "supported")))
        sdc_check_not_offered(check, "the server sets up no twin socket");
    sdc_check_that(check, json_is_integer(index) && json_integer_value(index) >= 0 && json_integer_value(index) < reply.fds_count,
                   "twin_socket.fd_index is the index of an fd that came with the reply");
    sdc_check_that(check, sdc_socket_is_connected(reply.fds[json_integer_value(index)]), "the fd is one end of a socket pair");
    sdc_check_vfio_fence(&vfio);
}

static void no_twin_unasked(struct sdc_check *check)
{
    static const char *const proposals[] = {NULL, ALL_CAPABILITIES, "{\"capabilities\":{\"twin_socket\":{\"supported\":false}}}",
                                            "{\"capabilities\":{\"twin_socket\":{}}}"};
    for (size_t i = 0; i < SDC_COUNT(proposals); i++) {
        struct sdc_check_vfio vfio;
        struct sdc_check_reply reply;
        sdc_check_vfio_connect(&vfio, check);
        agree(&vfio, 0, proposals[i], &reply);
        json_t *twin = json_object_get(capabilities_of(&vfio, &reply), "twin_socket");
        sdc_check_that(check, !json_is_true(json_object_get(twin, "supported")) && reply.fds_count == 0,
                       "a twin socket is set up if and only if the client has set twin_socket.supported to true");
        sdc_check_vfio_close(&vfio);
    }
}

// --- bad ones ---

static void other_major(struct sdc_check *check)
{
    static const uint16_t majors[] = {1, UINT16_MAX};
    for (size_t i = 0; i < SDC_COUNT(majors); i++) {
        struct sdc_check_vfio vfio;
        struct sdc_check_reply reply;
        sdc_check_vfio_connect(&vfio, check);
        uint16_t id = propose(&vfio, majors[i], 0, ALL_CAPABILITIES, sizeof ALL_CAPABILITIES);
        enum sdc_check_answer answer = sdc_check_vfio_await(&vfio, id, SDC_VFU_VERSION, &reply);
        sdc_check_that(check, answer != SDC_CHECK_SILENCE, "the server replies with a compatible version, or closes the connection");
        if (answer == SDC_CHECK_REFUSED)
            sdc_check_that(check, sdc_check_vfio_await(&vfio, id, SDC_VFU_VERSION, &reply) == SDC_CHECK_CLOSED,
                           "the server closes the connection if it cannot support the version");
        if (answer == SDC_CHECK_DONE)
            sdc_check_that(check, version_of(&vfio, &reply).major == majors[i],
                           "the major version in the reply must be the one that was proposed");
        sdc_check_vfio_close(&vfio);
    }
}

// A proposal that is no good: it is answered with an error, or the connection is closed. Accepting it is worth a remark.
static void turned_away(struct sdc_check *check, const void *data, size_t size, const char *what)
{
    struct sdc_check_vfio vfio;
    struct sdc_check_reply reply;
    sdc_check_vfio_connect(&vfio, check);
    uint16_t id = propose(&vfio, 0, 0, data, size);
    enum sdc_check_answer answer = sdc_check_vfio_await(&vfio, id, SDC_VFU_VERSION, &reply);
    sdc_check_that(check, answer != SDC_CHECK_SILENCE, "%s is answered, or the connection is closed", what);
    if (answer == SDC_CHECK_DONE)
        sdc_check_note(check, "the server accepted %s", what);
    sdc_check_vfio_close(&vfio);
}

static void broken_json(struct sdc_check *check)
{
    static const char *const texts[] = {"", "{", "[]", "\"text\"", "null", "{\"capabilities\":}", "{\"capabilities\":{\"max_msg_fds\":8}",
                                        "\xff\xfe{}", "{\"capabilities\":{}} and more"};
    for (size_t i = 0; i < SDC_COUNT(texts); i++) {
        char what[120];
        snprintf(what, sizeof what, "version data that is no JSON object: '%s'", i == 7 ? "(no UTF-8)" : texts[i]);
        turned_away(check, texts[i], strlen(texts[i]) + 1, what);
    }
}

static void wrong_types(struct sdc_check *check)
{
    static const char *const texts[] = {
        "{\"capabilities\":1}", "{\"capabilities\":[]}", "{\"capabilities\":{\"max_msg_fds\":\"8\"}}",
        "{\"capabilities\":{\"max_msg_fds\":-1}}", "{\"capabilities\":{\"max_data_xfer_size\":1e300}}",
        "{\"capabilities\":{\"max_data_xfer_size\":null}}", "{\"capabilities\":{\"pgsizes\":{}}}",
        "{\"capabilities\":{\"write_multiple\":1}}", "{\"capabilities\":{\"twin_socket\":true}}",
        "{\"capabilities\":{\"twin_socket\":{\"supported\":\"yes\"}}}"};
    for (size_t i = 0; i < SDC_COUNT(texts); i++)
        turned_away(check, texts[i], strlen(texts[i]) + 1, texts[i]);
}

static void not_terminated(struct sdc_check *check)
{
    static const char text[] = ALL_CAPABILITIES;
    turned_away(check, text, sizeof text - 1, "version data without its terminating NUL");
}

static void nested_deeply(struct sdc_check *check)
{
    static char text[2 * DEPTH + 32];
    size_t used = (size_t)snprintf(text, sizeof text, "{\"a\":");
    memset(text + used, '[', DEPTH);
    memset(text + used + DEPTH, ']', DEPTH);
    text[used + 2 * DEPTH] = '}';
    turned_away(check, text, used + 2 * DEPTH + 2, "version data that is nested 20000 deep");
}

static void cut_short(struct sdc_check *check)
{
    for (size_t size = 0; size < sizeof(struct sdc_vfu_version); size++) {
        static const uint8_t zeros[sizeof(struct sdc_vfu_version)];
        struct sdc_check_vfio vfio;
        sdc_check_vfio_connect(&vfio, check);
        struct sdc_check_reply reply;
        uint16_t id = sdc_check_vfio_send(&vfio, &(struct sdc_check_command){.command = SDC_VFU_VERSION, .payload = zeros, .size = size});
        enum sdc_check_answer answer = sdc_check_vfio_await(&vfio, id, SDC_VFU_VERSION, &reply);
        sdc_check_that(check, answer == SDC_CHECK_REFUSED || answer == SDC_CHECK_CLOSED,
                       "a VERSION without its major and minor (%zu bytes of payload) can only be refused", size);
        sdc_check_vfio_close(&vfio);
    }
}

static void twice(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    static const struct sdc_vfu_version version;
    sdc_check_vfio_open(&vfio, check);
    struct sdc_check_command again = {.command = SDC_VFU_VERSION, .payload = &version, .size = sizeof version};
    if (sdc_check_vfio_open_question(&vfio, &again, "a second VERSION"))
        sdc_check_vfio_fence(&vfio);
}

static void commands_before(struct sdc_check *check)
{
    static const uint16_t commands[] = {SDC_VFU_GET_INFO, SDC_VFU_RESET, SDC_VFU_REGION_READ, SDC_VFU_DMA_MAP};
    static const size_t sizes[] = {sizeof(struct sdc_vfu_device_info), 0, sizeof(struct sdc_vfu_region_access),
                                   sizeof(struct sdc_vfu_dma_map)};
    for (size_t i = 0; i < SDC_COUNT(commands); i++) {
        uint8_t payload[sizeof(struct sdc_vfu_dma_map)] = {(uint8_t)sizes[i]};
        char name[SDC_NAME_SIZE], what[60];
        struct sdc_check_vfio vfio;
        snprintf(what, sizeof what, "%s before VERSION", sdc_vfu_command_name(commands[i], name));
        sdc_check_vfio_connect(&vfio, check);
        sdc_check_vfio_open_question(
            &vfio, &(struct sdc_check_command){.command = commands[i], .payload = payload, .size = sizes[i]}, what);
        sdc_check_vfio_close(&vfio);
    }
}

static const struct sdc_check_test tests[] = {
    {"version/accepted", SECTION, 0, accepted},
    {"version/later-minor", SECTION, 0, later_minor},
    {"version/without-data", SECTION, 0, without_data},
    {"version/empty-object", SECTION, 0, empty_object},
    {"version/empty-capabilities", SECTION, 0, empty_capabilities},
    {"version/unknown-keys", SECTION, 0, unknown_keys},
    {"version/data-form", SECTION, 0, data_form},
    {"version/capabilities-subset", SECTION, 0, capabilities_subset},
    {"version/capability-types", SECTION, 0, capability_types},
    {"version/twin-socket", SECTION, 0, twin_socket},
    {"version/no-twin-unasked", SECTION, 0, no_twin_unasked},
    {"version/other-major", SECTION, 0, other_major},
    {"version/broken-json", SECTION, 0, broken_json},
    {"version/wrong-types", SECTION, 0, wrong_types},
    {"version/not-terminated", SECTION, 0, not_terminated},
    {"version/nested-deeply", SECTION, 0, nested_deeply},
    {"version/cut-short", SECTION, 0, cut_short},
    {"version/twice", SECTION, 0, twice},
    {"version/commands-before", SECTION, 0, commands_before},
};

const struct sdc_check_table sdc_check_vfio_version = {tests, SDC_COUNT(tests)};
