// SPDX-License-Identifier: BSD-3-Clause
#include "cli/check/vfio.h"

#include "base/bytes.h"
#include "base/check.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/socket.h"
#include "os/wait.h"
#include "wire/names.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS_NS UINT64_C(1000000)

enum {
    MESSAGE_MAX = 2 << 20, // bytes of a message from the server that are taken
    AGAIN_MS = 50,         // before a client that was sent away comes again
};

// What holds for every message.
static void header_rule(struct sdc_check *check, bool holds, const char *rule)
{
    if (holds)
        return;
    sdc_check_section(check, "vfio-user, Header");
    sdc_check_fail(check, "%s", rule);
}

static void *take(struct sdc_check *check, size_t size)
{
    void *memory = calloc(1, size > 0 ? size : 1);
    if (!memory)
        sdc_check_skip(check, "the tester has no memory for a message of %zu bytes", size);
    return memory;
}

// --- out ---

void sdc_check_vfio_connect(struct sdc_check_vfio *vfio, struct sdc_check *check)
{
    *vfio = (struct sdc_check_vfio){.check = check, .fd = sdc_check_connect(check), .next_id = 1};
}

void sdc_check_vfio_close(struct sdc_check_vfio *vfio)
{
    sdc_fd_close(&vfio->fd);
}

void sdc_check_vfio_send_bytes(struct sdc_check_vfio *vfio, const void *bytes, size_t size, const int *fds, unsigned fds_count)
{
    uint64_t give_up = sdc_clock_ns() + (uint64_t)sdc_check_patience(vfio->check) * MS_NS;
    struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};
    while (iov.iov_len > 0) {
        ssize_t sent = sdc_socket_send(vfio->fd, &iov, 1, fds, fds_count);
        if (sent == -EAGAIN || sent == -ENOBUFS) {
            sdc_wait_fd(vfio->fd, SDC_WAIT_OUTPUT, 100);
            if (sdc_clock_ns() < give_up)
                continue;
            sdc_check_fail(vfio->check, "the server has to take messages");
        }
        if (sent < 0)
            return;
        fds_count = 0;
        iov.iov_base = (char *)iov.iov_base + sent;
        iov.iov_len -= (size_t)sent;
    }
}

uint8_t *sdc_check_vfio_lay_out(struct sdc_check_vfio *vfio, const struct sdc_check_command *command)
{
    struct sdc_vfu_header header = {
        .msg_id = vfio->next_id++,
        .cmd = command->command,
        .msg_size = command->message_size != 0 ? command->message_size : (uint32_t)(sizeof header + command->size),
        .flags = command->flags,
    };
    uint8_t *bytes = take(vfio->check, sizeof header + command->size);
    char buffer[SDC_NAME_SIZE], hex[200];
    memcpy(bytes, &header, sizeof header);
    if (command->size > 0)
        memcpy(bytes + sizeof header, command->payload, command->size);
    sdc_check_sent(vfio->check, "%s, ID %u, message size %" PRIu32 ", flags 0x%" PRIx32 ", %u fds, payload: %s",
                   sdc_vfu_command_name(header.cmd, buffer), header.msg_id, header.msg_size, header.flags, command->fds_count,
                   command->size > 0 ? sdc_check_hex(command->payload, command->size, hex, sizeof hex) : "none");
    return bytes;
}

uint16_t sdc_check_vfio_send(struct sdc_check_vfio *vfio, const struct sdc_check_command *command)
{
    uint16_t id = vfio->next_id;
    uint8_t *bytes = sdc_check_vfio_lay_out(vfio, command);
    sdc_check_vfio_send_bytes(vfio, bytes, sizeof(struct sdc_vfu_header) + command->size, command->fds, command->fds_count);
    free(bytes);
    return id;
}

// --- in ---

// Receives size bytes, and fds that come with them. DONE, CLOSED or SILENCE (of which *got says how far it came).
static enum sdc_check_answer receive(struct sdc_check_vfio *vfio, void *to, size_t size, struct sdc_check_reply *reply, uint64_t give_up)
{
    int fds[SDC_SOCKET_FDS_MAX], count;
    for (size_t got = 0; got < size;) {
        uint64_t now = sdc_clock_ns();
        ssize_t some = sdc_socket_receive(vfio->fd, (char *)to + got, size - got, fds, &count);
        if (some == -EAGAIN && now >= give_up)
            return SDC_CHECK_SILENCE;
        if (some == -EAGAIN) {
            sdc_wait_fd(vfio->fd, SDC_WAIT_INPUT, (int)((give_up - now) / MS_NS) + 1);
            continue;
        }
        if (some <= 0)
            return SDC_CHECK_CLOSED;
        got += (size_t)some;
        for (int i = 0; i < count; i++) {
            sdc_check_that(vfio->check, reply->fds_count < SDC_CHECK_VFIO_FDS,
                           "a message may carry as many fds as the receiver named in max_msg_fds (%d)", SDC_CHECK_VFIO_FDS);
            reply->fds[reply->fds_count++] = fds[i];
        }
    }
    return SDC_CHECK_DONE;
}

static void describe(struct sdc_check_vfio *vfio, const struct sdc_check_reply *reply)
{
    const struct sdc_vfu_header *header = &reply->header;
    char buffer[SDC_NAME_SIZE], hex[200], error[40] = "";
    if (header->flags & SDC_VFU_ERROR)
        snprintf(error, sizeof error, ", error %" PRIu32, header->error);
    sdc_check_came(vfio->check, "%s, ID %u, message size %" PRIu32 ", flags 0x%" PRIx32 "%s, %u fds, payload: %s",
                   sdc_vfu_command_name(header->cmd, buffer), header->msg_id, header->msg_size, header->flags, error, reply->fds_count,
                   reply->size > 0 ? sdc_check_hex(reply->payload, reply->size, hex, sizeof hex) : "none");
}

enum sdc_check_answer sdc_check_vfio_next(struct sdc_check_vfio *vfio, struct sdc_check_reply *reply)
{
    uint64_t give_up = sdc_clock_ns() + (uint64_t)sdc_check_patience(vfio->check) * MS_NS;
    struct sdc_vfu_header *header = &reply->header;
    *reply = (struct sdc_check_reply){0};
    enum sdc_check_answer answer = receive(vfio, header, sizeof *header, reply, give_up);
    if (answer != SDC_CHECK_DONE) {
        sdc_check_came(vfio->check, answer == SDC_CHECK_CLOSED ? "the server closed the connection"
                                                               : "nothing, as long as the tester waited");
        return answer;
    }
    describe(vfio, reply);
    header_rule(vfio->check, header->msg_size >= sizeof *header && header->msg_size <= MESSAGE_MAX,
                "the message size is of the entire message, header included");
    reply->size = header->msg_size - sizeof *header;
    reply->payload = take(vfio->check, reply->size);
    answer = receive(vfio, reply->payload, reply->size, reply, give_up);
    describe(vfio, reply);
    header_rule(vfio->check, answer == SDC_CHECK_DONE, "a message has as many bytes as its header says");
    return answer;
}

// The server asks for memory that it has not got by an fd: it gets none.
static void answer_server(struct sdc_check_vfio *vfio, const struct sdc_check_reply *asked)
{
    struct sdc_vfu_header header = asked->header;
    if (header.flags & SDC_VFU_NO_REPLY)
        return;
    header.flags = SDC_VFU_TYPE_REPLY | SDC_VFU_ERROR;
    header.error = EFAULT;
    header.msg_size = sizeof header;
    sdc_check_vfio_send_bytes(vfio, &header, sizeof header, NULL, 0);
}

enum sdc_check_answer sdc_check_vfio_await(struct sdc_check_vfio *vfio, uint16_t id, uint16_t command, struct sdc_check_reply *reply)
{
    enum sdc_check_answer answer;
    const struct sdc_vfu_header *header = &reply->header;
    while ((answer = sdc_check_vfio_next(vfio, reply)) == SDC_CHECK_DONE && (header->flags & SDC_VFU_TYPE_MASK) == SDC_VFU_TYPE_COMMAND)
        answer_server(vfio, reply);
    if (answer != SDC_CHECK_DONE)
        return answer;
    struct sdc_check *check = vfio->check;
    header_rule(check, (header->flags & SDC_VFU_TYPE_MASK) == SDC_VFU_TYPE_REPLY, "a reply has the type 1");
    header_rule(check, header->msg_id == id, "a reply has the message ID of its command");
    header_rule(check, header->cmd == command, "a reply has the number of its command");
    if (!(header->flags & SDC_VFU_ERROR))
        return SDC_CHECK_DONE;
    if (reply->size != 0)
        sdc_check_violation(check, "vfio-user, Header", "if an error occurs, the reply must only include the header");
    return SDC_CHECK_REFUSED;
}

enum sdc_check_answer sdc_check_vfio_answer(struct sdc_check_vfio *vfio, uint16_t id, uint16_t command, struct sdc_check_reply *reply)
{
    enum sdc_check_answer answer = sdc_check_vfio_await(vfio, id, command, reply);
    header_rule(vfio->check, answer != SDC_CHECK_CLOSED && answer != SDC_CHECK_SILENCE,
                "each command must be replied to, unless it sets No_reply");
    return answer;
}

// --- whole exchanges ---

void sdc_check_vfio_do_at_least(struct sdc_check_vfio *vfio, const struct sdc_check_command *command, size_t size,
                                struct sdc_check_reply *reply)
{
    uint16_t id = sdc_check_vfio_send(vfio, command);
    if (sdc_check_vfio_answer(vfio, id, command->command, reply) != SDC_CHECK_DONE)
        sdc_check_fail(vfio->check, "the command is a good one and has to be done");
    sdc_check_that(vfio->check, reply->size >= size, "the reply has to have at least %zu bytes of payload", size);
}

void sdc_check_vfio_do(struct sdc_check_vfio *vfio, const struct sdc_check_command *command, size_t size, struct sdc_check_reply *reply)
{
    sdc_check_vfio_do_at_least(vfio, command, size, reply);
    sdc_check_that(vfio->check, reply->size == size, "the reply has to have %zu bytes of payload", size);
}

uint32_t sdc_check_vfio_refused(struct sdc_check_vfio *vfio, const struct sdc_check_command *command, const char *asked)
{
    struct sdc_check_reply reply;
    uint16_t id = sdc_check_vfio_send(vfio, command);
    if (sdc_check_vfio_answer(vfio, id, command->command, &reply) != SDC_CHECK_REFUSED)
        sdc_check_fail(vfio->check, "%s", asked);
    return reply.header.error;
}

bool sdc_check_vfio_open_question(struct sdc_check_vfio *vfio, const struct sdc_check_command *command, const char *what)
{
    struct sdc_check_reply reply;
    uint16_t id = sdc_check_vfio_send(vfio, command);
    enum sdc_check_answer answer = sdc_check_vfio_await(vfio, id, command->command, &reply);
    header_rule(vfio->check, answer != SDC_CHECK_SILENCE, "each command must be replied to, unless it sets No_reply");
    if (answer == SDC_CHECK_CLOSED)
        sdc_check_note(vfio->check, "the server closed the connection for %s", what);
    else if (answer == SDC_CHECK_DONE)
        sdc_check_note(vfio->check, "the server accepted %s", what);
    return answer != SDC_CHECK_CLOSED;
}

void sdc_check_vfio_fence(struct sdc_check_vfio *vfio)
{
    sdc_check_vfio_info(vfio);
}

// Proposes what a client without faults does. *reply is VERSION's.
static enum sdc_check_answer propose(struct sdc_check_vfio *vfio, struct sdc_check_reply *reply)
{
    static const char text[] = "{\"capabilities\":{\"max_msg_fds\":16,\"max_data_xfer_size\":1048576,\"max_dma_maps\":65535,"
                               "\"pgsizes\":4096,\"write_multiple\":true}}";
    struct sdc_vfu_version version = {.major = 0, .minor = 0};
    uint8_t payload[sizeof version + sizeof text];
    memcpy(payload, &version, sizeof version);
    memcpy(payload + sizeof version, text, sizeof text);
    uint16_t id = sdc_check_vfio_send(vfio, &(struct sdc_check_command){.command = SDC_VFU_VERSION, .payload = payload,
                                                                        .size = sizeof payload});
    return sdc_check_vfio_await(vfio, id, SDC_VFU_VERSION, reply);
}

static void agreed(struct sdc_check_vfio *vfio, enum sdc_check_answer answer, const struct sdc_check_reply *reply)
{
    struct sdc_vfu_version version;
    header_rule(vfio->check, answer != SDC_CHECK_CLOSED && answer != SDC_CHECK_SILENCE,
                "each command must be replied to, unless it sets No_reply");
    sdc_check_that(vfio->check, answer == SDC_CHECK_DONE && reply->size >= sizeof version, "a good VERSION is answered with another");
    // What is wrong with it is for the tests of VERSION to say.
    if (sdc_vfu_capabilities_parse((const char *)reply->payload + sizeof version, reply->size - sizeof version, &vfio->capabilities,
                                   NULL) < 0)
        sdc_vfu_capabilities_parse(NULL, 0, &vfio->capabilities, NULL);
}

void sdc_check_vfio_agree(struct sdc_check_vfio *vfio)
{
    struct sdc_check_reply reply;
    enum sdc_check_answer answer = propose(vfio, &reply);
    agreed(vfio, answer, &reply);
}

void sdc_check_vfio_open(struct sdc_check_vfio *vfio, struct sdc_check *check)
{
    uint64_t give_up = sdc_clock_ns() + (uint64_t)sdc_check_patience(check) * MS_NS;
    struct sdc_check_reply reply;
    enum sdc_check_answer answer;
    sdc_check_vfio_connect(vfio, check);
    while ((answer = propose(vfio, &reply)) == SDC_CHECK_CLOSED && sdc_clock_ns() < give_up) {
        sdc_check_vfio_close(vfio);
        sdc_clock_pause(AGAIN_MS * MS_NS);
        sdc_check_vfio_connect(vfio, check);
    }
    agreed(vfio, answer, &reply);
}

// --- messages that many tests send ---

struct sdc_vfu_device_info sdc_check_vfio_info(struct sdc_check_vfio *vfio)
{
    struct sdc_vfu_device_info info = {.argsz = sizeof info};
    struct sdc_check_reply reply;
    sdc_check_vfio_do(vfio, &(struct sdc_check_command){.command = SDC_VFU_GET_INFO, .payload = &info, .size = sizeof info}, sizeof info,
                      &reply);
    memcpy(&info, reply.payload, sizeof info);
    return info;
}

struct sdc_vfu_region_info sdc_check_vfio_region(struct sdc_check_vfio *vfio, uint32_t index)
{
    struct sdc_vfu_region_info info = {.argsz = sizeof info, .index = index};
    struct sdc_check_command command = {.command = SDC_VFU_GET_REGION_INFO, .payload = &info, .size = sizeof info};
    struct sdc_check_reply reply;
    sdc_check_vfio_do_at_least(vfio, &command, sizeof info, &reply);
    for (unsigned i = 0; i < reply.fds_count; i++)
        sdc_fd_close(&reply.fds[i]);
    memcpy(&info, reply.payload, sizeof info);
    return info;
}

struct sdc_vfu_irq_info sdc_check_vfio_irq(struct sdc_check_vfio *vfio, uint32_t index)
{
    struct sdc_vfu_irq_info info = {.argsz = sizeof info, .index = index};
    struct sdc_check_command command = {.command = SDC_VFU_GET_IRQ_INFO, .payload = &info, .size = sizeof info};
    struct sdc_check_reply reply;
    sdc_check_vfio_do(vfio, &command, sizeof info, &reply);
    memcpy(&info, reply.payload, sizeof info);
    return info;
}

enum sdc_check_answer sdc_check_vfio_try_read(struct sdc_check_vfio *vfio, uint32_t region, uint64_t offset, uint32_t count,
                                              struct sdc_check_reply *reply)
{
    struct sdc_vfu_region_access access = {.offset = offset, .region = region, .count = count};
    struct sdc_check_command command = {.command = SDC_VFU_REGION_READ, .payload = &access, .size = sizeof access};
    uint16_t id = sdc_check_vfio_send(vfio, &command);
    enum sdc_check_answer answer = sdc_check_vfio_answer(vfio, id, command.command, reply);
    if (answer == SDC_CHECK_DONE)
        sdc_check_that(vfio->check, reply->size == sizeof access + count && memcmp(reply->payload, &access, sizeof access) == 0,
                       "VFIO_USER_REGION_READ: the reply has offset, region and count of the command, and so many bytes of data");
    return answer;
}

enum sdc_check_answer sdc_check_vfio_try_write(struct sdc_check_vfio *vfio, uint32_t region, uint64_t offset, const void *data,
                                               uint32_t count, struct sdc_check_reply *reply)
{
    struct sdc_vfu_region_access access = {.offset = offset, .region = region, .count = count};
    struct sdc_check_command command = {.command = SDC_VFU_REGION_WRITE, .size = sizeof access + count};
    uint8_t *payload = take(vfio->check, command.size);
    memcpy(payload, &access, sizeof access);
    if (count > 0)
        memcpy(payload + sizeof access, data, count);
    command.payload = payload;
    uint16_t id = sdc_check_vfio_send(vfio, &command);
    free(payload);
    enum sdc_check_answer answer = sdc_check_vfio_answer(vfio, id, command.command, reply);
    if (answer == SDC_CHECK_DONE)
        sdc_check_that(vfio->check, reply->size == sizeof access && memcmp(reply->payload, &access, sizeof access) == 0,
                       "VFIO_USER_REGION_WRITE: the reply has offset, region and count of the command, and nothing else");
    return answer;
}

uint64_t sdc_check_vfio_read(struct sdc_check_vfio *vfio, uint32_t region, uint64_t offset, uint32_t size)
{
    struct sdc_check_reply reply;
    uint8_t raw[8] = {0};
    if (sdc_check_vfio_try_read(vfio, region, offset, size, &reply) != SDC_CHECK_DONE)
        sdc_check_fail(vfio->check, "region %" PRIu32 " can be read at 0x%" PRIx64 ", %" PRIu32 " bytes", region, offset, size);
    memcpy(raw, reply.payload + sizeof(struct sdc_vfu_region_access), size < 8 ? size : 8);
    return sdc_get64(raw);
}

void sdc_check_vfio_write(struct sdc_check_vfio *vfio, uint32_t region, uint64_t offset, uint64_t value, uint32_t size)
{
    struct sdc_check_reply reply;
    uint8_t raw[8];
    sdc_put64(raw, value);
    if (sdc_check_vfio_try_write(vfio, region, offset, raw, size, &reply) != SDC_CHECK_DONE)
        sdc_check_fail(vfio->check, "region %" PRIu32 " can be written at 0x%" PRIx64 ", %" PRIu32 " bytes", region, offset, size);
}
