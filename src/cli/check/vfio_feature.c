// SPDX-License-Identifier: BSD-3-Clause
// DEVICE_RESET, DEVICE_FEATURE and, with them, migration.
#include "cli/check/vfio.h"

#include "base/bytes.h"
#include "base/check.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define RESET "vfio-user, VFIO_USER_DEVICE_RESET"
#define FEATURE "vfio-user, VFIO_USER_DEVICE_FEATURE"
#define STATE "vfio-user, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE"

enum {
    PAGE = 4096,
    CONFIG_COMMAND = 4,
    BUS_MASTER = 1 << 2,
    INTX_DISABLE = 1 << 10,
    STOP_COPY_SUPPORTED = 1 << 0,
    PIECE = 65536,     // bytes of migration data at a time
    PIECES_MAX = 4096, // of them
};

enum { STATE_ERROR, STATE_STOP, STATE_RUNNING, STATE_STOP_COPY, STATE_RESUMING };

// --- reset ---

static void open_resettable(struct sdc_check_vfio *vfio, struct sdc_check *check)
{
    sdc_check_vfio_open(vfio, check);
    if (!(sdc_check_vfio_info(vfio).flags & SDC_VFU_DEVICE_RESET))
        sdc_check_not_offered(check, "the device has not the flag RESET");
}

static void reset(struct sdc_check_vfio *vfio)
{
    struct sdc_check_reply reply;
    sdc_check_vfio_do(vfio, &(struct sdc_check_command){.command = SDC_VFU_RESET}, 0, &reply);
}

static void reset_form(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    open_resettable(&vfio, check);
    for (unsigned i = 0; i < 3; i++)
        reset(&vfio);
    // With a payload, which it does not have: it may be refused, or not.
    static const uint8_t payload[8];
    struct sdc_check_reply reply;
    uint16_t id =
        sdc_check_vfio_send(&vfio, &(struct sdc_check_command){.command = SDC_VFU_RESET, .payload = payload, .size = sizeof payload});
    sdc_check_vfio_answer(&vfio, id, SDC_VFU_RESET, &reply);
    sdc_check_vfio_fence(&vfio);
}

// What a reset does to every PCI function (PCI 3.0, 6.2.2); but the kernel's VFIO puts the configuration space back.
static void reset_clears_command(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    open_resettable(&vfio, check);
    sdc_check_vfio_write(&vfio, SDC_CHECK_REGION_CONFIG, CONFIG_COMMAND, BUS_MASTER | INTX_DISABLE, 2);
    uint64_t before = sdc_check_vfio_read(&vfio, SDC_CHECK_REGION_CONFIG, CONFIG_COMMAND, 2);
    reset(&vfio);
    uint64_t after = sdc_check_vfio_read(&vfio, SDC_CHECK_REGION_CONFIG, CONFIG_COMMAND, 2);
    if (!(before & (BUS_MASTER | INTX_DISABLE)))
        sdc_check_not_offered(check, "the device does not keep what is written to its Command register");
    if (after & (BUS_MASTER | INTX_DISABLE))
        sdc_check_note(check, "DEVICE_RESET leaves the Command register as it is (0x%04" PRIx64 "); a reset of PCI's clears it", after);
}

// The specification does not say that a reset unmaps memory: what was mapped before it can be unmapped after it.
static void reset_keeps_maps(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    struct sdc_check_reply reply;
    open_resettable(&vfio, check);
    struct sdc_vfu_dma_map map = {.argsz = sizeof map, .flags = SDC_VFU_MAP_READ | SDC_VFU_MAP_WRITE, .address = PAGE, .size = PAGE};
    struct sdc_vfu_dma_unmap unmap = {.argsz = sizeof unmap, .address = PAGE, .size = PAGE};
    sdc_check_vfio_do(&vfio, &(struct sdc_check_command){.command = SDC_VFU_DMA_MAP, .payload = &map, .size = sizeof map}, 0, &reply);
    reset(&vfio);
    uint16_t id =
        sdc_check_vfio_send(&vfio, &(struct sdc_check_command){.command = SDC_VFU_DMA_UNMAP, .payload = &unmap, .size = sizeof unmap});
    if (sdc_check_vfio_answer(&vfio, id, SDC_VFU_DMA_UNMAP, &reply) == SDC_CHECK_REFUSED)
        sdc_check_note(check, "the server forgets memory with DEVICE_RESET");
}

// --- features ---

static struct sdc_check_command feature_command(const struct sdc_vfu_device_feature *feature, size_t size)
{
    return (struct sdc_check_command){.command = SDC_VFU_DEVICE_FEATURE, .payload = feature, .size = size};
}

// Asks whether the device has a feature for these uses. The reply to a probe is its request.
static bool probe(struct sdc_check_vfio *vfio, uint32_t flags)
{
    struct sdc_vfu_device_feature feature = {.argsz = sizeof feature, .flags = SDC_VFU_FEATURE_PROBE | flags};
    struct sdc_check_command command = feature_command(&feature, sizeof feature);
    struct sdc_check_reply reply;
    uint16_t id = sdc_check_vfio_send(vfio, &command);
    if (sdc_check_vfio_answer(vfio, id, command.command, &reply) == SDC_CHECK_REFUSED)
        return false;
    sdc_check_that(vfio->check, reply.size == sizeof feature && memcmp(reply.payload, &feature, sizeof feature) == 0,
                   "the reply payload must be the same as the request payload for probing a feature");
    return true;
}

static void probes(struct sdc_check *check)
{
    static const uint32_t features[] = {SDC_VFU_FEATURE_MIGRATION, SDC_VFU_FEATURE_MIG_DEVICE_STATE, SDC_VFU_FEATURE_DMA_LOGGING_START,
                                        SDC_VFU_FEATURE_DMA_LOGGING_STOP, SDC_VFU_FEATURE_DMA_LOGGING_REPORT};
    struct sdc_check_vfio vfio;
    bool any = false;
    sdc_check_vfio_open(&vfio, check);
    for (size_t i = 0; i < SDC_COUNT(features); i++) {
        bool has = probe(&vfio, features[i]);
        bool both = probe(&vfio, features[i] | SDC_VFU_FEATURE_GET | SDC_VFU_FEATURE_SET);
        bool get = probe(&vfio, features[i] | SDC_VFU_FEATURE_GET), set = probe(&vfio, features[i] | SDC_VFU_FEATURE_SET);
        sdc_check_that(check, both == (get && set), "the probe will only return success if all of the indicated methods are supported");
        sdc_check_that(check, has == (get || set), "a feature that is there can be got or set, and one that is not cannot");
        any = any || has;
    }
    if (!any)
        sdc_check_not_offered(check, "the device has no features");
}

static void features_refused(struct sdc_check *check)
{
    static const struct {
        struct sdc_vfu_device_feature feature;
        const char *asked;
    } rows[] = {
        {{64, SDC_VFU_FEATURE_PROBE | 0xffff}, "there is no such feature"},
        {{64, SDC_VFU_FEATURE_GET | 0xffff}, "there is no such feature"},
        {{64, SDC_VFU_FEATURE_SET | 0x7fff}, "there is no such feature"},
        {{64, SDC_VFU_FEATURE_GET | SDC_VFU_FEATURE_SET | SDC_VFU_FEATURE_MIGRATION},
         "GET and SET are mutually exclusive, except for PROBE"},
    };
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    for (size_t i = 0; i < SDC_COUNT(rows); i++) {
        struct sdc_check_command command = feature_command(&rows[i].feature, sizeof rows[i].feature);
        sdc_check_vfio_refused(&vfio, &command, rows[i].asked);
    }
    static const uint32_t numbers[] = {SDC_VFU_FEATURE_MIG_DEVICE_STATE, SDC_VFU_FEATURE_DMA_LOGGING_START,
                                       SDC_VFU_FEATURE_DMA_LOGGING_REPORT};
    for (size_t i = 0; i < SDC_COUNT(numbers); i++) {
        bool report = numbers[i] == SDC_VFU_FEATURE_DMA_LOGGING_REPORT;
        struct sdc_vfu_device_feature short_one = {64, (report ? SDC_VFU_FEATURE_GET : SDC_VFU_FEATURE_SET) | numbers[i]};
        struct sdc_check_command command = feature_command(&short_one, sizeof short_one);
        sdc_check_vfio_refused(&vfio, &command, "the command has not the data that the feature takes");
    }
    sdc_check_vfio_fence(&vfio);
}

// --- migration ---

static enum sdc_check_answer try_state(struct sdc_check_vfio *vfio, uint32_t state)
{
    struct {
        struct sdc_vfu_device_feature head;
        uint32_t state;
        uint32_t data_fd;
    } set = {{sizeof set, SDC_VFU_FEATURE_SET | SDC_VFU_FEATURE_MIG_DEVICE_STATE}, state, 0};
    struct sdc_check_command command = feature_command(&set.head, sizeof set);
    struct sdc_check_reply reply;
    uint16_t id = sdc_check_vfio_send(vfio, &command);
    enum sdc_check_answer answer = sdc_check_vfio_answer(vfio, id, command.command, &reply);
    if (answer == SDC_CHECK_DONE)
        sdc_check_that(vfio->check, reply.size == sizeof set,
                       "the reply payload must be the same as the request payload for setting a feature");
    return answer;
}

static uint32_t state_of(struct sdc_check_vfio *vfio)
{
    struct sdc_vfu_device_feature get = {16, SDC_VFU_FEATURE_GET | SDC_VFU_FEATURE_MIG_DEVICE_STATE};
    struct sdc_check_command command = feature_command(&get, sizeof get);
    struct sdc_check_reply reply;
    sdc_check_vfio_do(vfio, &command, 16, &reply);
    return sdc_get32(reply.payload + sizeof get);
}

static void go(struct sdc_check_vfio *vfio, uint32_t state)
{
    if (try_state(vfio, state) != SDC_CHECK_DONE)
        sdc_check_fail(vfio->check, "the transition to state %" PRIu32 " has to be supported", state);
    sdc_check_that(vfio->check, state_of(vfio) == state, "the transition to state %" PRIu32 " must be complete before the reply is sent",
                   state);
}

static void open_migratable(struct sdc_check_vfio *vfio, struct sdc_check *check)
{
    struct sdc_vfu_device_feature get = {16, SDC_VFU_FEATURE_GET | SDC_VFU_FEATURE_MIGRATION};
    struct sdc_check_command command = feature_command(&get, sizeof get);
    struct sdc_check_reply reply;
    sdc_check_vfio_open(vfio, check);
    if (!probe(vfio, SDC_VFU_FEATURE_GET | SDC_VFU_FEATURE_MIGRATION))
        sdc_check_not_offered(check, "the device has not the feature MIGRATION");
    sdc_check_vfio_do(vfio, &command, 16, &reply);
    sdc_check_that(check, sdc_get64(reply.payload + sizeof get) & STOP_COPY_SUPPORTED, "at least VFIO_MIGRATION_STOP_COPY must be set");
}

static void states(struct sdc_check *check)
{
    static const uint32_t path[] = {STATE_STOP, STATE_RUNNING, STATE_STOP, STATE_STOP_COPY, STATE_STOP, STATE_RESUMING, STATE_STOP,
                                    STATE_RUNNING};
    struct sdc_check_vfio vfio;
    open_migratable(&vfio, check);
    sdc_check_that(check, state_of(&vfio) == STATE_RUNNING, "a device that nobody has migrated is running");
    for (size_t i = 0; i < SDC_COUNT(path); i++) {
        if (i > 0 && path[i - 1] == STATE_RESUMING && try_state(&vfio, path[i]) == SDC_CHECK_REFUSED) {
            sdc_check_note(check, "leaving RESUMING without data is refused, as it may be");
            return;
        }
        go(&vfio, path[i]);
    }
}

static void no_such_state(struct sdc_check *check)
{
    static const uint32_t numbers[] = {STATE_ERROR, 5, 7, 8, 9, UINT32_MAX};
    struct sdc_check_vfio vfio;
    open_migratable(&vfio, check);
    for (size_t i = 0; i < SDC_COUNT(numbers); i++) {
        sdc_check_that(check, try_state(&vfio, numbers[i]) == SDC_CHECK_REFUSED, "%" PRIu32 " cannot be specified as a device state",
                       numbers[i]);
        sdc_check_that(check, state_of(&vfio) == STATE_RUNNING, "a transition that was refused leaves the device in a valid state");
    }
}

// One MIG_DATA_READ. Bytes, of which the reply has those.
static uint32_t read_data(struct sdc_check_vfio *vfio, struct sdc_check_reply *reply)
{
    struct sdc_vfu_mig_data read = {.argsz = sizeof read + PIECE, .size = PIECE};
    struct sdc_check_command command = {.command = SDC_VFU_MIG_DATA_READ, .payload = &read, .size = sizeof read};
    sdc_check_vfio_do_at_least(vfio, &command, sizeof read, reply);
    memcpy(&read, reply->payload, sizeof read);
    sdc_check_that(vfio->check, read.size <= PIECE && reply->size >= sizeof read + read.size,
                   "size indicates the size of returned migration data, at most what was asked for");
    if (reply->size != sizeof read + read.size)
        sdc_check_note(vfio->check, "the reply has more bytes than its size says");
    return read.size;
}

static void data_moves(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    struct sdc_check_reply *replies = calloc(PIECES_MAX, sizeof *replies);
    unsigned count = 0;
    open_migratable(&vfio, check);
    sdc_check_section(check, "vfio-user, VFIO_USER_MIG_DATA_READ");
    struct sdc_vfu_mig_data early = {.argsz = sizeof early + 16, .size = 16};
    sdc_check_vfio_refused(&vfio,
                           &(struct sdc_check_command){.command = SDC_VFU_MIG_DATA_READ, .payload = &early, .size = sizeof early},
                           "data is read in a saving group state, and the device is running");
    go(&vfio, STATE_STOP);
    go(&vfio, STATE_STOP_COPY);
    while (replies && read_data(&vfio, &replies[count]) == PIECE && ++count < PIECES_MAX - 1)
        ;
    sdc_check_that(check, replies && count < PIECES_MAX - 1, "the data has an end: less than what was asked for");
    go(&vfio, STATE_STOP);
    go(&vfio, STATE_RESUMING);
    sdc_check_section(check, "vfio-user, VFIO_USER_MIG_DATA_WRITE");
    for (unsigned i = 0; i <= count; i++) {
        struct sdc_vfu_mig_data head;
        struct sdc_check_reply done;
        memcpy(&head, replies[i].payload, sizeof head);
        head.argsz = (uint32_t)sizeof head + head.size;
        memcpy(replies[i].payload, &head, sizeof head);
        if (head.size > 0)
            sdc_check_vfio_do(&vfio, &(struct sdc_check_command){.command = SDC_VFU_MIG_DATA_WRITE, .payload = replies[i].payload,
                                                                 .size = head.argsz},
                              0, &done);
    }
    go(&vfio, STATE_STOP);
    go(&vfio, STATE_RUNNING);
}

static void reset_runs(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    struct sdc_check_reply reply;
    open_migratable(&vfio, check);
    go(&vfio, STATE_STOP);
    uint16_t id = sdc_check_vfio_send(&vfio, &(struct sdc_check_command){.command = SDC_VFU_RESET});
    if (sdc_check_vfio_answer(&vfio, id, SDC_VFU_RESET, &reply) == SDC_CHECK_REFUSED)
        sdc_check_note(check, "the server refuses DEVICE_RESET while the device is stopped");
    go(&vfio, STATE_RUNNING);
}

static const struct sdc_check_test tests[] = {
    {"reset/form", RESET, 0, reset_form},
    {"reset/clears-command", "PCI 3.0, 6.2.2", SDC_CHECK_PCI, reset_clears_command},
    {"reset/keeps-maps", RESET, 0, reset_keeps_maps},
    {"feature/probes", FEATURE, 0, probes},
    {"feature/refused", FEATURE, 0, features_refused},
    {"migration/states", STATE, 0, states},
    {"migration/no-such-state", STATE, 0, no_such_state},
    {"migration/data", STATE, 0, data_moves},
    {"migration/reset", STATE, 0, reset_runs},
};

const struct sdc_check_table sdc_check_vfio_feature = {tests, SDC_COUNT(tests)};
