// SPDX-License-Identifier: BSD-3-Clause
// Messages as such: headers, IDs, No_reply, how bytes arrive, fds that nobody asked for.
#include "cli/check/vfio.h"

#include "base/check.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/memfd.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define HEADER "vfio-user, Header"
#define CONCURRENCY "vfio-user, Command Concurrency"

enum {
    PIPELINED = 64,
    CONFIG_COMMAND = 4,     // PCI's Command register
    INTX_DISABLE = 1 << 10, // a bit of it that is writable and does nothing at rest
};

static const struct sdc_vfu_device_info asked = {.argsz = sizeof asked};
static const struct sdc_check_command get_info = {.command = SDC_VFU_GET_INFO, .payload = &asked, .size = sizeof asked};

// --- message IDs ---

static void id_echoed(struct sdc_check *check)
{
    static const uint16_t ids[] = {0, 1, 0x7fff, 0x8000, UINT16_MAX, 0};
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    for (size_t i = 0; i < SDC_COUNT(ids); i++) {
        vfio.next_id = ids[i];
        sdc_check_vfio_fence(&vfio);
    }
}

static void id_used_again(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    struct sdc_check_reply reply;
    sdc_check_vfio_open(&vfio, check);
    for (unsigned i = 0; i < 3; i++) {
        vfio.next_id = 7;
        sdc_check_vfio_send(&vfio, &get_info);
    }
    for (unsigned i = 0; i < 3; i++)
        sdc_check_that(check, sdc_check_vfio_answer(&vfio, 7, SDC_VFU_GET_INFO, &reply) == SDC_CHECK_DONE,
                       "message IDs can be re-used, even concurrently");
}

// --- order ---

static void pipelined(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    struct sdc_check_reply reply;
    uint16_t ids[PIPELINED];
    sdc_check_vfio_open(&vfio, check);
    for (unsigned i = 0; i < PIPELINED; i++)
        ids[i] = sdc_check_vfio_send(&vfio, &get_info);
    for (unsigned i = 0; i < PIPELINED; i++)
        sdc_check_that(check, sdc_check_vfio_answer(&vfio, ids[i], SDC_VFU_GET_INFO, &reply) == SDC_CHECK_DONE,
                       "a client may send commands without waiting for replies");
}

// Errors among the good ones: each keeps its place.
static void pipelined_errors(struct sdc_check *check)
{
    static const struct sdc_vfu_region_info nowhere = {.argsz = sizeof nowhere, .index = UINT32_MAX};
    static const struct sdc_check_command bad = {.command = SDC_VFU_GET_REGION_INFO, .payload = &nowhere, .size = sizeof nowhere};
    struct sdc_check_vfio vfio;
    struct sdc_check_reply reply;
    uint16_t ids[8];
    sdc_check_vfio_open(&vfio, check);
    for (unsigned i = 0; i < SDC_COUNT(ids); i++)
        ids[i] = sdc_check_vfio_send(&vfio, i % 2 == 0 ? &get_info : &bad);
    for (unsigned i = 0; i < SDC_COUNT(ids); i++) {
        enum sdc_check_answer answer =
            sdc_check_vfio_answer(&vfio, ids[i], i % 2 == 0 ? SDC_VFU_GET_INFO : SDC_VFU_GET_REGION_INFO, &reply);
        sdc_check_that(check, (answer == SDC_CHECK_DONE) == (i % 2 == 0), "a refused command changes nothing for those around it");
    }
}

static void no_reply(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    struct sdc_check_command quiet = get_info;
    sdc_check_vfio_open(&vfio, check);
    quiet.flags = SDC_VFU_NO_REPLY;
    for (unsigned i = 0; i < 3; i++)
        sdc_check_vfio_send(&vfio, &quiet);
    sdc_check_vfio_fence(&vfio); // the first reply has to be this one's, by its ID
}

static void no_reply_to_errors(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    struct sdc_check_command quiet = {.command = SDC_VFU_COMMANDS + 10, .flags = SDC_VFU_NO_REPLY};
    sdc_check_vfio_open(&vfio, check);
    sdc_check_vfio_send(&vfio, &quiet);
    quiet = get_info;
    quiet.flags = SDC_VFU_NO_REPLY;
    quiet.size = 3;
    sdc_check_vfio_send(&vfio, &quiet);
    sdc_check_vfio_fence(&vfio);
}

// A posted write is done before what comes after it.
static void no_reply_in_order(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    uint16_t before = (uint16_t)sdc_check_vfio_read(&vfio, SDC_CHECK_REGION_CONFIG, CONFIG_COMMAND, 2);
    sdc_check_vfio_write(&vfio, SDC_CHECK_REGION_CONFIG, CONFIG_COMMAND, before ^ INTX_DISABLE, 2);
    if (sdc_check_vfio_read(&vfio, SDC_CHECK_REGION_CONFIG, CONFIG_COMMAND, 2) == before)
        sdc_check_not_offered(check, "the device has no Interrupt Disable bit to see it by");
    sdc_check_vfio_write(&vfio, SDC_CHECK_REGION_CONFIG, CONFIG_COMMAND, before, 2);
    for (unsigned i = 0; i < 4; i++) {
        struct {
            struct sdc_vfu_region_access access;
            uint16_t value;
        } write = {{.offset = CONFIG_COMMAND, .region = SDC_CHECK_REGION_CONFIG, .count = 2},
                   (uint16_t)(i % 2 == 0 ? before | INTX_DISABLE : before & ~INTX_DISABLE)};
        sdc_check_vfio_send(&vfio, &(struct sdc_check_command){.command = SDC_VFU_REGION_WRITE, .flags = SDC_VFU_NO_REPLY,
                                                               .payload = &write, .size = sizeof write.access + 2});
        uint16_t after = (uint16_t)sdc_check_vfio_read(&vfio, SDC_CHECK_REGION_CONFIG, CONFIG_COMMAND, 2);
        sdc_check_that(check, after == write.value,
                       "a command with No_reply has been processed before the reply to a younger one is sent");
    }
}

// --- how bytes arrive ---

// Sends a message in pieces of `piece` bytes, each of which the server can take on its own.
static void in_pieces(struct sdc_check *check, size_t piece)
{
    struct sdc_check_vfio vfio;
    struct sdc_check_reply reply;
    sdc_check_vfio_open(&vfio, check);
    uint16_t id = vfio.next_id;
    uint8_t *bytes = sdc_check_vfio_lay_out(&vfio, &get_info);
    size_t size = sizeof(struct sdc_vfu_header) + get_info.size;
    for (size_t at = 0; at < size; at += piece) {
        sdc_check_vfio_send_bytes(&vfio, bytes + at, sdc_min(piece, size - at), NULL, 0);
        sdc_clock_pause(2 * UINT64_C(1000000)); // most servers find it alone; it is right if they don't
    }
    sdc_check_that(check, sdc_check_vfio_answer(&vfio, id, SDC_VFU_GET_INFO, &reply) == SDC_CHECK_DONE,
                   "a stream socket keeps no boundaries: a message may come in pieces of %zu bytes", piece);
    sdc_check_vfio_fence(&vfio);
}

static void byte_by_byte(struct sdc_check *check)
{
    in_pieces(check, 1);
}

static void split_header(struct sdc_check *check)
{
    in_pieces(check, 9);
}

static void body_later(struct sdc_check *check)
{
    in_pieces(check, sizeof(struct sdc_vfu_header));
}

static void several_at_once(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    struct sdc_check_reply reply;
    enum { COUNT = 5 };
    size_t size = sizeof(struct sdc_vfu_header) + get_info.size;
    uint8_t all[COUNT * (sizeof(struct sdc_vfu_header) + sizeof asked)];
    sdc_check_vfio_open(&vfio, check);
    uint16_t first = vfio.next_id;
    for (unsigned i = 0; i < COUNT; i++)
        memcpy(all + i * size, sdc_check_vfio_lay_out(&vfio, &get_info), size);
    // The last one comes in two halves.
    sdc_check_vfio_send_bytes(&vfio, all, sizeof all - size / 2, NULL, 0);
    sdc_check_vfio_send_bytes(&vfio, all + sizeof all - size / 2, size / 2, NULL, 0);
    for (unsigned i = 0; i < COUNT; i++)
        sdc_check_that(check, sdc_check_vfio_answer(&vfio, (uint16_t)(first + i), SDC_VFU_GET_INFO, &reply) == SDC_CHECK_DONE,
                       "a stream socket keeps no boundaries: several messages may come at once");
}

// --- what is no message ---

static void unknown_commands(struct sdc_check *check)
{
    static const uint16_t commands[] = {0, 14, SDC_VFU_COMMANDS, 100, 0x8000 | SDC_VFU_GET_INFO, UINT16_MAX};
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    for (size_t i = 0; i < SDC_COUNT(commands); i++) {
        sdc_check_vfio_refused(&vfio, &(struct sdc_check_command){.command = commands[i]}, "there is no such command: it cannot succeed");
        sdc_check_vfio_refused(&vfio, &(struct sdc_check_command){.command = commands[i], .payload = &asked, .size = sizeof asked},
                               "there is no such command: it cannot succeed");
    }
    sdc_check_vfio_fence(&vfio);
}

// Commands of the server's.
static void commands_of_servers(struct sdc_check *check)
{
    static const struct sdc_vfu_dma_access access = {.address = 0, .count = 16};
    static const uint8_t write[sizeof access + 16] = {[8] = 16};
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    sdc_check_vfio_refused(&vfio, &(struct sdc_check_command){.command = SDC_VFU_DMA_READ, .payload = &access, .size = sizeof access},
                           "DMA_READ is the server's to send: it cannot succeed the other way");
    sdc_check_vfio_refused(&vfio, &(struct sdc_check_command){.command = SDC_VFU_DMA_WRITE, .payload = write, .size = sizeof write},
                           "DMA_WRITE is the server's to send: it cannot succeed the other way");
    sdc_check_vfio_fence(&vfio);
}

// After that nobody knows where the next message begins: the connection may be closed.
static void impossible_size(struct sdc_check *check)
{
    static const uint32_t sizes[] = {1, 15, UINT32_C(0x7fffffff), UINT32_MAX};
    for (size_t i = 0; i < SDC_COUNT(sizes); i++) {
        struct sdc_check_vfio vfio;
        struct sdc_check_reply reply;
        struct sdc_check_command command = get_info;
        sdc_check_vfio_open(&vfio, check);
        command.message_size = sizes[i];
        uint16_t id = sdc_check_vfio_send(&vfio, &command);
        enum sdc_check_answer answer = sdc_check_vfio_await(&vfio, id, SDC_VFU_GET_INFO, &reply);
        sdc_check_that(check, answer != SDC_CHECK_DONE, "a message has as many bytes as its header says, and at least the header's");
        if (answer == SDC_CHECK_SILENCE)
            sdc_check_note(check, "the server waits for %" PRIu32 " bytes of a message", sizes[i]);
        sdc_check_vfio_close(&vfio);
    }
}

static void reply_unasked(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    struct sdc_check_reply reply;
    struct sdc_check_command command = get_info;
    sdc_check_vfio_open(&vfio, check);
    command.flags = SDC_VFU_TYPE_REPLY;
    sdc_check_vfio_send(&vfio, &command);
    uint16_t id = sdc_check_vfio_send(&vfio, &get_info);
    enum sdc_check_answer answer = sdc_check_vfio_next(&vfio, &reply);
    if (answer == SDC_CHECK_CLOSED)
        return; // it may, too
    if (answer == SDC_CHECK_DONE && reply.header.msg_id != id) {
        sdc_check_that(check, reply.header.flags & SDC_VFU_ERROR, "what is no command cannot be done");
        sdc_check_note(check, "the server answers a reply that it has not asked for, with an error");
        answer = sdc_check_vfio_next(&vfio, &reply);
    }
    sdc_check_that(check, answer == SDC_CHECK_DONE && reply.header.msg_id == id && !(reply.header.flags & SDC_VFU_ERROR),
                   "a command is answered that follows a reply which nobody has asked for");
}

static void other_types(struct sdc_check *check)
{
    for (uint32_t type = 2; type <= SDC_VFU_TYPE_MASK; type++) {
        struct sdc_check_vfio vfio;
        struct sdc_check_command command = get_info;
        sdc_check_vfio_open(&vfio, check);
        command.flags = type;
        sdc_check_vfio_open_question(&vfio, &command, "a message that is neither command nor reply");
        sdc_check_vfio_close(&vfio);
    }
}

// "Error ... is reserved in a command message": what comes of it is open; it has to be answered.
static void error_in_command(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    struct sdc_check_reply reply;
    sdc_check_vfio_open(&vfio, check);
    uint16_t id = vfio.next_id;
    uint8_t *bytes = sdc_check_vfio_lay_out(&vfio, &get_info);
    struct sdc_vfu_header header;
    memcpy(&header, bytes, sizeof header);
    header.error = 22;
    memcpy(bytes, &header, sizeof header);
    sdc_check_vfio_send_bytes(&vfio, bytes, sizeof header + get_info.size, NULL, 0);
    enum sdc_check_answer answer = sdc_check_vfio_await(&vfio, id, SDC_VFU_GET_INFO, &reply);
    sdc_check_that(check, answer != SDC_CHECK_SILENCE, "each command must be replied to, unless it sets No_reply");
    if (answer == SDC_CHECK_CLOSED)
        sdc_check_note(check, "the server closed the connection for a command whose reserved Error field was not zero");
}

// Commands without the payload that they are to have.
static void too_short(struct sdc_check *check)
{
    static const struct {
        uint16_t command;
        size_t size; // of the fixed part
    } rows[] = {
        {SDC_VFU_DMA_MAP, sizeof(struct sdc_vfu_dma_map)},
        {SDC_VFU_DMA_UNMAP, sizeof(struct sdc_vfu_dma_unmap)},
        {SDC_VFU_GET_INFO, sizeof(struct sdc_vfu_device_info)},
        {SDC_VFU_GET_REGION_INFO, sizeof(struct sdc_vfu_region_info)},
        {SDC_VFU_GET_REGION_IO_FDS, sizeof(struct sdc_vfu_region_io_fds)},
        {SDC_VFU_GET_IRQ_INFO, sizeof(struct sdc_vfu_irq_info)},
        {SDC_VFU_SET_IRQS, sizeof(struct sdc_vfu_set_irqs)},
        {SDC_VFU_REGION_READ, sizeof(struct sdc_vfu_region_access)},
        {SDC_VFU_REGION_WRITE, sizeof(struct sdc_vfu_region_access)},
        {SDC_VFU_REGION_WRITE_MULTI, sizeof(struct sdc_vfu_write_multi)},
        {SDC_VFU_DEVICE_FEATURE, sizeof(struct sdc_vfu_device_feature)},
        {SDC_VFU_MIG_DATA_READ, sizeof(struct sdc_vfu_mig_data)},
        {SDC_VFU_MIG_DATA_WRITE, sizeof(struct sdc_vfu_mig_data)},
    };
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    for (size_t i = 0; i < SDC_COUNT(rows); i++) {
        const size_t sizes[] = {0, 1, 4, rows[i].size / 2, rows[i].size - 1};
        for (size_t j = 0; j < SDC_COUNT(sizes); j++) {
            uint8_t payload[64] = {(uint8_t)rows[i].size}; // argsz, where there is one
            sdc_check_vfio_refused(
                &vfio, &(struct sdc_check_command){.command = rows[i].command, .payload = payload, .size = sizes[j]},
                "a command that is shorter than its structure says nothing that could be done");
        }
    }
    sdc_check_vfio_fence(&vfio);
}

// --- fds that nobody asked for ---

static void fds_unasked(struct sdc_check *check)
{
    static const unsigned counts[] = {1, 2, SDC_CHECK_VFIO_FDS};
    int fds[SDC_CHECK_VFIO_FDS];
    struct sdc_check_vfio vfio;
    struct sdc_check_reply reply;
    sdc_check_vfio_open(&vfio, check);
    for (unsigned i = 0; i < SDC_CHECK_VFIO_FDS; i++)
        fds[i] = sdc_eventfd_new();
    for (unsigned i = 0; i < SDC_COUNT(counts); i++) {
        struct sdc_check_command command = get_info;
        command.fds = fds;
        command.fds_count = counts[i];
        uint16_t id = sdc_check_vfio_send(&vfio, &command);
        // Both are fine; that it goes on is what counts.
        if (sdc_check_vfio_await(&vfio, id, SDC_VFU_GET_INFO, &reply) == SDC_CHECK_CLOSED) {
            sdc_check_note(check, "the server closed the connection for fds that the command takes none of");
            return;
        }
    }
    sdc_check_vfio_fence(&vfio);
}

static const struct sdc_check_test tests[] = {
    {"message/id-echoed", HEADER, 0, id_echoed},
    {"message/id-used-again", HEADER, 0, id_used_again},
    {"message/pipelined", CONCURRENCY, 0, pipelined},
    {"message/pipelined-errors", CONCURRENCY, 0, pipelined_errors},
    {"message/no-reply", HEADER, 0, no_reply},
    {"message/no-reply-to-errors", HEADER, 0, no_reply_to_errors},
    {"message/no-reply-in-order", CONCURRENCY, SDC_CHECK_PCI, no_reply_in_order},
    {"message/byte-by-byte", HEADER, 0, byte_by_byte},
    {"message/split-header", HEADER, 0, split_header},
    {"message/body-later", HEADER, 0, body_later},
    {"message/several-at-once", HEADER, 0, several_at_once},
    {"message/unknown-commands", "vfio-user, Commands", 0, unknown_commands},
    {"message/commands-of-servers", "vfio-user, Commands", 0, commands_of_servers},
    {"message/impossible-size", HEADER, 0, impossible_size},
    {"message/reply-unasked", HEADER, 0, reply_unasked},
    {"message/other-types", HEADER, 0, other_types},
    {"message/error-in-command", HEADER, 0, error_in_command},
    {"message/too-short", HEADER, 0, too_short},
    {"message/fds-unasked", HEADER, 0, fds_unasked},
};

const struct sdc_check_table sdc_check_vfio_message = {tests, SDC_COUNT(tests)};
