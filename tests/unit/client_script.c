// SPDX-License-Identifier: BSD-3-Clause
// The script's sockets.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "client_script.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

bool script_send(int fd, const void *bytes, size_t size, const int *fds, unsigned fds_count)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * 32)] = {0};
    struct iovec iov = {(void *)(uintptr_t)bytes, size};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fds_count > 0) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * fds_count);
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * fds_count);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * fds_count);
    }
    return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size;
}

static bool say(int fd, struct sdc_vfu_header header, const void *head, size_t head_size, const void *data,
                size_t data_size, const int *fds, unsigned fds_count)
{
    size_t size = sizeof header + head_size + data_size;
    uint8_t *bytes = malloc(size);
    if (header.msg_size == 0)
        header.msg_size = (uint32_t)size;
    memcpy(bytes, &header, sizeof header);
    if (head_size > 0)
        memcpy(bytes + sizeof header, head, head_size);
    if (data_size > 0)
        memcpy(bytes + sizeof header + head_size, data, data_size);
    bool sent = script_send(fd, bytes, size, fds, fds_count);
    free(bytes);
    return sent;
}

bool script_say(int fd, struct sdc_vfu_header header, const void *head, size_t head_size, const void *data,
                size_t data_size)
{
    return say(fd, header, head, head_size, data, data_size, NULL, 0);
}

void script_reply(struct script *script, uint16_t command, uint32_t error, const void *payload, size_t size)
{
    struct sdc_vfu_header header = {
        .msg_id = script->next_id++,
        .cmd = command,
        .flags = SDC_VFU_TYPE_REPLY | (error != 0 ? SDC_VFU_ERROR : 0),
        .error = error,
    };
    assert_true(script_say(script->fd, header, payload, size, NULL, 0));
}

void script_reply_fds(struct script *script, uint16_t command, const void *payload, size_t size,
                      const int *fds, unsigned fds_count)
{
    struct sdc_vfu_header header = {
        .msg_id = script->next_id++, .cmd = command, .flags = SDC_VFU_TYPE_REPLY};
    assert_true(say(script->fd, header, payload, size, NULL, 0, fds, fds_count));
}

bool script_ask(int fd, uint16_t id, uint32_t flags, uint64_t address, uint64_t count, const void *data)
{
    struct sdc_vfu_dma_access access = {.address = address, .count = count};
    struct sdc_vfu_header header = {
        .msg_id = id, .cmd = data ? SDC_VFU_DMA_WRITE : SDC_VFU_DMA_READ, .flags = flags};
    return script_say(fd, header, &access, sizeof access, data, data ? count : 0);
}

static bool receive(int fd, void *bytes, size_t size)
{
    return size == 0 || recv(fd, bytes, size, MSG_DONTWAIT | MSG_WAITALL) == (ssize_t)size;
}

bool script_hear(int fd, struct script_message *message)
{
    if (!receive(fd, &message->header, sizeof message->header))
        return false;
    size_t size = message->header.msg_size - sizeof message->header;
    assert_true(message->header.msg_size >= sizeof message->header && size <= sizeof message->payload);
    return receive(fd, message->payload, size);
}

unsigned script_skip(int fd)
{
    struct script_message *message = malloc(sizeof *message);
    unsigned count = 0;
    while (script_hear(fd, message))
        count++;
    free(message);
    return count;
}

// A pair of which the client's end, pair[1], is soon full, however large sockets are made on this machine.
static void new_pair(int pair[2])
{
    int bytes = 32768;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes), 0);
}

int script_try(struct script *script, const char *json, const int *fds, unsigned fds_count,
               const struct sdc_vfio_client_options *options)
{
    static const char usual[] =
        "{\"capabilities\":{\"max_msg_fds\":4,\"max_data_xfer_size\":4096,\"write_multiple\":true}}";
    uint8_t payload[512] = {0};
    int pair[2];
    *script = (struct script){.twin = -1};
    if (!json)
        json = usual;
    memcpy(payload + sizeof(struct sdc_vfu_version), json, strlen(json));
    new_pair(pair);
    script->fd = pair[0];
    script_reply_fds(script, SDC_VFU_VERSION, payload, sizeof(struct sdc_vfu_version) + strlen(json) + 1, fds,
                     fds_count);
    return sdc_vfio_client_open_fd(pair[1], "script", options, &script->client, &script->err);
}

void script_open(struct script *script, const struct sdc_vfio_client_options *options)
{
    static const char with_twin[] = "{\"capabilities\":{\"max_data_xfer_size\":4096,"
                                    "\"twin_socket\":{\"supported\":true,\"fd_index\":0}}}";
    int pair[2];
    if (!options || !options->twin_socket) {
        assert_int_equal(script_try(script, NULL, NULL, 0, options), 0);
    } else {
        new_pair(pair);
        assert_int_equal(script_try(script, with_twin, &pair[1], 1, options), 0);
        close(pair[1]);
        script->twin = pair[0];
    }
    assert_int_equal(script_skip(script->fd), 1);
}

void script_close(struct script *script)
{
    sdc_vfio_client_close(script->client);
    if (script->fd >= 0)
        close(script->fd);
    if (script->twin >= 0)
        close(script->twin);
}

void script_map(struct script *script, uint64_t iova, uint64_t size, uint32_t flags, void *host)
{
    struct script_message *message = malloc(sizeof *message);
    struct sdc_vfu_dma_map sent;
    script_reply(script, SDC_VFU_DMA_MAP, 0, NULL, 0);
    assert_int_equal(sdc_vfio_client_map_private(script->client, iova, size, flags, host, &script->err), 0);
    assert_true(script_hear(script->fd, message));
    assert_int_equal(message->header.cmd, SDC_VFU_DMA_MAP);
    memcpy(&sent, message->payload, sizeof sent);
    assert_int_equal(sent.address, iova);
    assert_int_equal(sent.size, size);
    assert_int_equal(sent.flags, flags);
    assert_int_equal(sent.offset, 0);
    free(message);
}

uint32_t script_answer(int fd, uint16_t id, uint16_t command, uint64_t address, uint64_t count, void *data)
{
    struct script_message *message = malloc(sizeof *message);
    struct sdc_vfu_dma_access access;
    assert_true(script_hear(fd, message));
    uint32_t error = message->header.error, size = message->header.msg_size - 16;
    assert_int_equal(message->header.msg_id, id);
    assert_int_equal(message->header.cmd, command);
    assert_int_equal(message->header.flags, SDC_VFU_TYPE_REPLY | (error != 0 ? SDC_VFU_ERROR : 0));
    if (error != 0) {
        assert_int_equal(size, 0);
    } else {
        memcpy(&access, message->payload, sizeof access);
        assert_int_equal(access.address, address);
        assert_int_equal(access.count, count);
        assert_int_equal(size, sizeof access + (command == SDC_VFU_DMA_READ ? count : 0));
        if (data)
            memcpy(data, message->payload + sizeof access, size - sizeof access);
    }
    free(message);
    return error;
}
