// SPDX-License-Identifier: BSD-3-Clause
// Memory without an fd: what the server asks of it, good and bad, is answered by the client, whatever else
// goes on.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "client_script.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BASE UINT64_C(0x10000)

enum { SIZE = 4096, BOTH = SDC_VFIO_MAP_READ | SDC_VFIO_MAP_WRITE };

static void unmap(struct script *script, uint64_t iova, uint64_t size)
{
    struct sdc_vfu_dma_unmap sent = {.argsz = sizeof sent, .address = iova, .size = size};
    script_reply(script, SDC_VFU_DMA_UNMAP, 0, &sent, sizeof sent);
    assert_int_equal(sdc_vfio_client_unmap(script->client, iova, size, &script->err), 0);
    assert_int_equal(script_skip(script->fd), 1);
}

static uint32_t read_memory(struct script *script, uint64_t address, uint64_t count, void *data)
{
    assert_true(script_ask(script->fd, 7, 0, address, count, NULL));
    assert_int_equal(sdc_vfio_client_process(script->client, &script->err), 0);
    return script_answer(script->fd, 7, SDC_VFU_DMA_READ, address, count, data);
}

static uint32_t write_memory(struct script *script, uint64_t address, uint64_t count, const void *data)
{
    assert_true(script_ask(script->fd, 8, 0, address, count, data));
    assert_int_equal(sdc_vfio_client_process(script->client, &script->err), 0);
    return script_answer(script->fd, 8, SDC_VFU_DMA_WRITE, address, count, NULL);
}

// --- what can be reached ---

static void private_memory_is_read_and_written_at_any_place(void **state)
{
    (void)state;
    struct script script;
    uint8_t memory[SIZE], expected[SIZE], data[SIZE];
    script_open(&script, NULL);
    script_map(&script, BASE, SIZE, BOTH, memory);
    for (unsigned i = 0; i < SIZE; i++)
        memory[i] = expected[i] = (uint8_t)(i * 7 + i / 251);
    for (unsigned at = 0; at < 24; at++) {
        for (unsigned count = 0; count < 40; count++) {
            assert_int_equal(read_memory(&script, BASE + at, count, data), 0);
            assert_memory_equal(data, memory + at, count);
            memset(data, (int)(at * count + 1), count);
            memcpy(expected + 100 + at, data, count);
            assert_int_equal(write_memory(&script, BASE + 100 + at, count, data), 0);
            assert_memory_equal(memory, expected, SIZE);
        }
    }
    assert_int_equal(read_memory(&script, BASE, SIZE, data), 0);
    assert_memory_equal(data, memory, SIZE);
    assert_int_equal(read_memory(&script, BASE + SIZE - 1, 1, data), 0);
    assert_int_equal(read_memory(&script, 0, 0, NULL), 0); // nothing, nowhere
    script_close(&script);
}

static void what_is_not_mapped_is_not_reached(void **state)
{
    (void)state;
    struct script script;
    uint8_t memory[SIZE] = {0}, data[SIZE] = {1, 2, 3};
    static const struct {
        uint64_t address, count;
    } outside[] = {
        {0, 1},
        {BASE - 1, 1},
        {BASE - 1, 2},
        {BASE + SIZE, 1},
        {BASE + SIZE - 1, 2},
        {BASE + 1, SIZE},
        {UINT64_MAX, 1},
        {UINT64_MAX, 2}, // wraps
        {UINT64_MAX - 100, SIZE},
        {UINT64_MAX - SIZE + 2, SIZE},
    };
    script_open(&script, NULL);
    script_map(&script, BASE, SIZE, BOTH, memory);
    for (unsigned i = 0; i < sizeof outside / sizeof outside[0]; i++) {
        assert_int_equal(read_memory(&script, outside[i].address, outside[i].count, NULL), EFAULT);
        assert_int_equal(write_memory(&script, outside[i].address, outside[i].count, data), EFAULT);
    }
    for (unsigned i = 0; i < SIZE; i++)
        assert_int_equal(memory[i], 0); // not even in part
    script_close(&script);
}

static void an_access_may_span_regions_that_adjoin(void **state)
{
    (void)state;
    struct script script;
    uint8_t low[SIZE], high[SIZE], data[SIZE];
    script_open(&script, NULL);
    memset(low, 'l', SIZE);
    memset(high, 'h', SIZE);
    script_map(&script, BASE + SIZE, SIZE, BOTH, high);
    script_map(&script, BASE, SIZE, BOTH, low);
    script_map(&script, BASE + 3 * SIZE, SIZE, BOTH, low);
    assert_int_equal(read_memory(&script, BASE + SIZE - 3, 8, data), 0);
    assert_memory_equal(data, "lllhhhhh", 8);
    assert_int_equal(write_memory(&script, BASE + SIZE - 3, 8, "abcdefgh"), 0);
    assert_memory_equal(low + SIZE - 3, "abc", 3);
    assert_memory_equal(high, "defgh", 5);
    assert_int_equal(read_memory(&script, BASE + 2 * SIZE - 3, 8, data), EFAULT); // a gap
    script_close(&script);
}

static void the_very_last_bytes_can_be_mapped(void **state)
{
    (void)state;
    struct script script;
    uint8_t memory[SIZE];
    uint64_t iova = UINT64_MAX - SIZE + 1;
    script_open(&script, NULL);
    memset(memory, 0, SIZE);
    script_map(&script, iova, SIZE, BOTH, memory);
    assert_int_equal(write_memory(&script, UINT64_MAX - 3, 4, "last"), 0);
    assert_memory_equal(memory + SIZE - 4, "last", 4);
    assert_int_equal(write_memory(&script, UINT64_MAX - 3, 5, "last!"), EFAULT);
    assert_int_equal(sdc_vfio_client_map_private(script.client, iova, SIZE + 1, BOTH, memory, NULL), -EINVAL);
    assert_int_equal(sdc_vfio_client_map_private(script.client, 0, 0, BOTH, memory, NULL), -EINVAL);
    assert_int_equal(sdc_vfio_client_map_private(script.client, 0, SIZE, 4, memory, NULL), -EINVAL);
    assert_int_equal(script_skip(script.fd), 0);
    script_close(&script);
}

static void directions_are_what_was_allowed(void **state)
{
    (void)state;
    struct script script;
    uint8_t readable[SIZE] = "read", writable[SIZE] = "write", data[8] = {0};
    script_open(&script, NULL);
    script_map(&script, BASE, SIZE, SDC_VFIO_MAP_READ, readable);
    script_map(&script, BASE + SIZE, SIZE, SDC_VFIO_MAP_WRITE, writable);
    assert_int_equal(read_memory(&script, BASE, 4, data), 0);
    assert_int_equal(write_memory(&script, BASE, 4, "evil"), EACCES);
    assert_memory_equal(readable, "read", 4);
    assert_int_equal(write_memory(&script, BASE + SIZE, 4, "good"), 0);
    assert_memory_equal(writable, "good", 4);
    assert_int_equal(read_memory(&script, BASE + SIZE, 4, data), EACCES);
    assert_int_equal(read_memory(&script, BASE + SIZE - 2, 4, data), EACCES);
    script_close(&script);
}

static void memory_is_out_of_reach_when_it_was_unmapped(void **state)
{
    (void)state;
    struct script script;
    uint8_t memory[SIZE] = {0};
    struct sdc_vfu_dma_unmap sent;
    struct script_message *message = malloc(sizeof *message);
    script_open(&script, NULL);
    script_map(&script, BASE, SIZE, BOTH, memory);
    script_map(&script, BASE + SIZE, SIZE, BOTH, memory);
    script_map(&script, BASE + 2 * SIZE, SIZE, BOTH, memory);
    unmap(&script, BASE, SIZE);
    assert_int_equal(read_memory(&script, BASE, 1, NULL), EFAULT);
    assert_int_equal(read_memory(&script, BASE + SIZE, 1, NULL), 0);
    // The server keeps it: so do we.
    script_reply(&script, SDC_VFU_DMA_UNMAP, EBUSY, NULL, 0);
    assert_int_equal(sdc_vfio_client_unmap(script.client, BASE + SIZE, SIZE, &script.err), -EBUSY);
    script_skip(script.fd);
    assert_int_equal(read_memory(&script, BASE + SIZE, 1, NULL), 0);
    script_map(&script, BASE, SIZE, BOTH, memory);
    sent = (struct sdc_vfu_dma_unmap){.argsz = sizeof sent, .flags = SDC_VFU_UNMAP_ALL};
    script_reply(&script, SDC_VFU_DMA_UNMAP, 0, &sent, sizeof sent);
    assert_int_equal(sdc_vfio_client_unmap_all(script.client, &script.err), 0);
    assert_true(script_hear(script.fd, message));
    assert_int_equal(message->header.msg_size, 16 + sizeof sent);
    assert_memory_equal(message->payload, &sent, sizeof sent);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(read_memory(&script, BASE + i * SIZE, 1, NULL), EFAULT);
    script_close(&script);
    free(message);
}

static void a_mapping_that_the_server_refuses_is_none(void **state)
{
    (void)state;
    struct script script;
    uint8_t memory[SIZE];
    script_open(&script, NULL);
    script_reply(&script, SDC_VFU_DMA_MAP, ENOSPC, NULL, 0);
    assert_int_equal(sdc_vfio_client_map_private(script.client, BASE, SIZE, BOTH, memory, NULL), -ENOSPC);
    script_skip(script.fd);
    assert_int_equal(read_memory(&script, BASE, 1, NULL), EFAULT);
    script_map(&script, BASE, SIZE, BOTH, memory);
    // Overlaps are refused before the server hears of them.
    static const uint64_t others[][2] = {{BASE, SIZE}, {BASE - 1, 2}, {BASE + SIZE - 1, 2}, {0, 3 * BASE}};
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(sdc_vfio_client_map_private(script.client, others[i][0], others[i][1], BOTH, memory,
                                                     &script.err),
                         -EEXIST);
    assert_int_equal(script_skip(script.fd), 0);
    script_close(&script);
}

static void many_regions_are_told_apart(void **state)
{
    (void)state;
    enum { MANY = 500 };
    struct script script;
    uint32_t *memory = calloc(MANY, sizeof *memory), value;
    script_open(&script, NULL);
    for (uint32_t i = 0; i < MANY; i++) {
        uint32_t place = i * 211 % MANY; // in no order
        memory[place] = place;
        script_map(&script, BASE + place * UINT64_C(8), 4, BOTH, &memory[place]);
    }
    for (uint32_t i = 0; i < MANY; i++) {
        assert_int_equal(read_memory(&script, BASE + i * 8, 4, &value), 0);
        assert_int_equal(value, i);
        assert_int_equal(read_memory(&script, BASE + i * 8 + 4, 1, NULL), EFAULT);
    }
    for (uint32_t i = 0; i < MANY; i += 2)
        unmap(&script, BASE + i * 8, 4);
    for (uint32_t i = 0; i < MANY; i++)
        assert_int_equal(read_memory(&script, BASE + i * 8, 4, &value), i % 2 == 0 ? EFAULT : 0);
    script_close(&script);
    free(memory);
}

// --- what the messages may be ---

static void broken_commands_are_refused_and_the_connection_goes_on(void **state)
{
    (void)state;
    struct script script;
    uint8_t memory[2 * SIZE] = {0}, data[2 * SIZE];
    struct sdc_vfu_dma_access access = {.address = BASE, .count = 16};
    script_open(&script, NULL);
    script_map(&script, BASE, 2 * SIZE, BOTH, memory);
    memset(data, 'x', sizeof data);
    static const struct {
        uint16_t command;
        uint64_t count;
        size_t head, data;
        uint32_t error;
    } cases[] = {
        {SDC_VFU_DMA_READ, 16, 0, 0, EINVAL},
        {SDC_VFU_DMA_READ, 16, 15, 0, EINVAL},
        {SDC_VFU_DMA_READ, 16, 16, 1, EINVAL},
        {SDC_VFU_DMA_READ, 4097, 16, 0, EINVAL}, // max_data_transfer is 4096
        {SDC_VFU_DMA_READ, UINT64_MAX, 16, 0, EINVAL},
        {SDC_VFU_DMA_READ, (UINT64_C(1) << 32) + 16, 16, 0, EINVAL},
        {SDC_VFU_DMA_WRITE, 16, 8, 0, EINVAL},
        {SDC_VFU_DMA_WRITE, 16, 16, 15, EINVAL},
        {SDC_VFU_DMA_WRITE, 16, 16, 17, EINVAL},
        {SDC_VFU_DMA_WRITE, 4097, 16, 4097, EINVAL},
        {SDC_VFU_DMA_WRITE, UINT64_MAX, 16, 0, EINVAL},
        {SDC_VFU_DMA_MAP, 0, 16, 16, ENOSYS},
        {0, 0, 0, 0, ENOSYS},
        {UINT16_MAX, 0, 16, 0, ENOSYS},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sdc_vfu_header header = {.msg_id = 9, .cmd = cases[i].command};
        access.count = cases[i].count;
        assert_true(script_say(script.fd, header, &access, cases[i].head, data, cases[i].data));
        header.flags = SDC_VFU_NO_REPLY;
        assert_true(script_say(script.fd, header, &access, cases[i].head, data, cases[i].data));
        assert_int_equal(sdc_vfio_client_process(script.client, &script.err), 0);
        assert_int_equal(script_answer(script.fd, 9, cases[i].command, 0, 0, NULL), cases[i].error);
        assert_int_equal(script_skip(script.fd), 0);
    }
    for (unsigned i = 0; i < SIZE; i++)
        assert_int_equal(memory[i], 0);
    assert_int_equal(read_memory(&script, BASE, SIZE, NULL), 0);
    script_close(&script);
}

static void a_command_that_wants_no_reply_gets_none(void **state)
{
    (void)state;
    struct script script;
    uint8_t memory[SIZE] = {0};
    script_open(&script, NULL);
    script_map(&script, BASE, SIZE, BOTH, memory);
    assert_true(script_ask(script.fd, 1, SDC_VFU_NO_REPLY, BASE, 6, "silent"));
    assert_true(script_ask(script.fd, 2, SDC_VFU_NO_REPLY, BASE, 6, NULL));
    assert_true(script_ask(script.fd, 3, SDC_VFU_NO_REPLY, 0, 6, "nobody"));
    assert_int_equal(sdc_vfio_client_process(script.client, &script.err), 0);
    assert_memory_equal(memory, "silent", 7);
    assert_int_equal(script_skip(script.fd), 0);
    script_close(&script);
}

static void memory_that_was_mapped_without_anything_cannot_be_read(void **state)
{
    (void)state;
    struct script script;
    script_open(&script, NULL);
    script_reply(&script, SDC_VFU_DMA_MAP, 0, NULL, 0);
    assert_int_equal(sdc_vfio_client_map(script.client, BASE, SIZE, BOTH, -1, 0, &script.err), 0);
    script_skip(script.fd);
    assert_int_equal(read_memory(&script, BASE, 16, NULL), EFAULT);
    script_close(&script);
}

// The layout of older clients: a count of 32 bits, data at once behind it, four bytes at the end, and nothing in the
// answer to a write.
static void the_older_layout_is_spoken_when_asked_for(void **state)
{
    (void)state;
    static const struct sdc_vfio_client_options options = {.dma_count_32 = true};
    struct script script;
    struct script_message *message = malloc(sizeof *message);
    uint8_t memory[SIZE] = {0}, head[12];
    uint64_t address = BASE + 8;
    uint32_t count = 5;
    script_open(&script, &options);
    script_map(&script, BASE, SIZE, BOTH, memory);
    memcpy(head, &address, 8);
    memcpy(head + 8, &count, 4);
    struct sdc_vfu_header header = {.msg_id = 3, .cmd = SDC_VFU_DMA_WRITE};
    assert_true(script_say(script.fd, header, head, sizeof head, "older\0\0\0\0", 9));
    assert_int_equal(sdc_vfio_client_process(script.client, &script.err), 0);
    assert_true(script_hear(script.fd, message));
    assert_int_equal(message->header.msg_size, 16);
    assert_int_equal(message->header.flags, SDC_VFU_TYPE_REPLY);
    assert_memory_equal(memory + 8, "older", 6);
    header.cmd = SDC_VFU_DMA_READ;
    assert_true(script_say(script.fd, header, head, sizeof head, "\xff\xff\xff\xff", 4));
    assert_int_equal(sdc_vfio_client_process(script.client, &script.err), 0);
    assert_true(script_hear(script.fd, message));
    assert_int_equal(message->header.msg_size, 16 + 16 + 5);
    assert_memory_equal(message->payload, head, sizeof head);
    assert_memory_equal(message->payload + 12, "older", 5);
    // Who finds out by an empty write with 64 bits is answered, too.
    assert_true(script_ask(script.fd, 4, 0, BASE, 0, ""));
    assert_int_equal(sdc_vfio_client_process(script.client, &script.err), 0);
    assert_true(script_hear(script.fd, message));
    assert_int_equal(message->header.msg_size, 16);
    assert_int_equal(message->header.flags, SDC_VFU_TYPE_REPLY);
    // A write of fewer bytes than it says.
    header.cmd = SDC_VFU_DMA_WRITE;
    assert_true(script_say(script.fd, header, head, sizeof head, "less\0\0\0\0", 8));
    assert_int_equal(sdc_vfio_client_process(script.client, &script.err), 0);
    assert_true(script_hear(script.fd, message));
    assert_int_equal(message->header.error, EINVAL);
    script_close(&script);
    free(message);
}

// --- while other things go on ---

// Asks for whole pages until the socket takes no more questions. How many.
static unsigned ask_much(int fd, uint16_t *id)
{
    unsigned count = 0;
    while (count < 2000 && script_ask(fd, *id, 0, BASE, SIZE, NULL)) {
        (*id)++;
        count++;
    }
    return count;
}

// A server that asks for much and does not read the answers does not keep us from reading its replies.
static void answers_that_nobody_takes_hold_up_no_reply(void **state)
{
    (void)state;
    struct script script;
    struct sdc_vfio_call *call;
    struct sdc_vfio_command command = {.command = SDC_VFU_RESET};
    uint8_t memory[SIZE] = {0};
    uint16_t id = 0;
    unsigned asked = 0;
    script_open(&script, NULL);
    script_map(&script, BASE, SIZE, BOTH, memory);
    assert_int_equal(sdc_vfio_client_send(script.client, &command, &call, &script.err), 0);
    // Several times what the socket holds of answers.
    for (unsigned i = 0; i < 5; i++) {
        asked += ask_much(script.fd, &id);
        while (sdc_vfio_client_process(script.client, &script.err) == 0 && i == 0)
            ;
        for (unsigned j = 0; j < 40; j++)
            assert_int_equal(sdc_vfio_client_process(script.client, &script.err), 1);
    }
    assert_true(asked > 1000);
    script_reply(&script, SDC_VFU_RESET, 0, NULL, 0);
    assert_int_equal(sdc_vfio_client_wait(script.client, call, NULL, &script.err), 0);
    // Now they are taken, and each comes, in order.
    assert_int_equal(script_skip(script.fd) > 1, 1);
    while (sdc_vfio_client_process(script.client, &script.err) == 1)
        script_skip(script.fd);
    script_skip(script.fd);
    assert_int_equal(read_memory(&script, BASE, SIZE, NULL), 0);
    script_close(&script);
}

struct listener {
    int fd;
    atomic_uint answers; // to DMA_READ, in their order
    unsigned commands;   // of the client's own
    unsigned wrong;
};

// Reads all that the client sends until it hangs up.
static void *listen_to_all(void *context)
{
    struct listener *listener = context;
    struct script_message *message = malloc(sizeof *message);
    struct pollfd item = {.fd = listener->fd, .events = POLLIN};
    uint8_t *bytes = (uint8_t *)message;
    size_t got = 0;
    for (;;) {
        size_t want = got < 16 ? 16 : message->header.msg_size;
        ssize_t ret = poll(&item, 1, -1) > 0 ? read(listener->fd, bytes + got, want - got) : -1;
        if (ret <= 0)
            break;
        got += (size_t)ret;
        if (got < 16 || got < message->header.msg_size)
            continue;
        got = 0;
        if ((message->header.flags & SDC_VFU_TYPE_MASK) == SDC_VFU_TYPE_COMMAND)
            listener->commands++;
        else
            listener->wrong += message->header.msg_id != (uint16_t)listener->answers++ ||
                               message->header.msg_size != 32 + SIZE;
    }
    free(message);
    return NULL;
}

static void commands_of_ours_go_between_answers_never_into_one(void **state)
{
    (void)state;
    enum { POSTS = 300 };
    struct script script;
    struct listener listener = {0};
    pthread_t thread;
    uint8_t memory[SIZE] = {0};
    uint16_t id = 0;
    script_open(&script, NULL);
    script_map(&script, BASE, SIZE, BOTH, memory);
    unsigned asked = ask_much(script.fd, &id);
    while (sdc_vfio_client_process(script.client, &script.err) == 0)
        ; // until the socket is full, mostly in the middle of an answer
    listener.fd = script.fd;
    assert_int_equal(pthread_create(&thread, NULL, listen_to_all, &listener), 0);
    for (unsigned i = 0; i < POSTS; i++)
        assert_int_equal(sdc_vfio_client_post(script.client, 0, 0, memory, i % 64, &script.err), 0);
    while (atomic_load(&listener.answers) < asked && sdc_vfio_client_process(script.client, &script.err) >= 0)
        poll(NULL, 0, 1);
    sdc_vfio_client_close(script.client);
    script.client = NULL;
    pthread_join(thread, NULL);
    assert_int_equal(listener.answers, asked);
    assert_int_equal(listener.commands, POSTS);
    assert_int_equal(listener.wrong, 0);
    script_close(&script);
}

static void answers_without_end_end_the_connection(void **state)
{
    (void)state;
    struct script script;
    int ret = 0;
    script_open(&script, NULL);
    for (uint32_t i = 0; i < 200000 && ret >= 0; i++) {
        if (!script_ask(script.fd, (uint16_t)i, 0, 0, 1, NULL) || i % 32 == 0)
            ret = sdc_vfio_client_process(script.client, &script.err);
    }
    assert_int_equal(ret, -EPROTO);
    assert_non_null(strstr(script.err.text, "took no answers"));
    script_close(&script);
}

static void a_server_that_goes_in_the_middle_of_a_write_writes_nothing(void **state)
{
    (void)state;
    struct script script;
    uint8_t memory[SIZE] = {0}, zero[SIZE] = {0};
    struct sdc_vfu_dma_access access = {.address = BASE, .count = SIZE};
    struct sdc_vfu_header header = {.cmd = SDC_VFU_DMA_WRITE, .msg_size = 32 + SIZE};
    uint8_t data[100];
    script_open(&script, NULL);
    script_map(&script, BASE, SIZE, BOTH, memory);
    memset(data, 'x', sizeof data);
    assert_true(script_say(script.fd, header, &access, sizeof access, data, sizeof data));
    assert_int_equal(sdc_vfio_client_process(script.client, &script.err), 0);
    close(script.fd);
    script.fd = -1;
    assert_int_equal(sdc_vfio_client_process(script.client, &script.err), -ECONNRESET);
    assert_memory_equal(memory, zero, SIZE);
    script_close(&script);
}

static void a_server_that_goes_while_it_is_answered_is_noticed(void **state)
{
    (void)state;
    struct script script;
    uint8_t memory[SIZE] = {0};
    uint16_t id = 0;
    int ret;
    script_open(&script, NULL);
    script_map(&script, BASE, SIZE, BOTH, memory);
    ask_much(script.fd, &id);
    while (sdc_vfio_client_process(script.client, &script.err) == 0)
        ;
    close(script.fd);
    script.fd = -1;
    while ((ret = sdc_vfio_client_process(script.client, &script.err)) >= 0)
        ;
    assert_true(ret == -ECONNRESET || ret == -EPIPE);
    assert_int_equal(sdc_vfio_client_reset(script.client, &script.err), ret);
    script_close(&script);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(private_memory_is_read_and_written_at_any_place),
        cmocka_unit_test(what_is_not_mapped_is_not_reached),
        cmocka_unit_test(an_access_may_span_regions_that_adjoin),
        cmocka_unit_test(the_very_last_bytes_can_be_mapped),
        cmocka_unit_test(directions_are_what_was_allowed),
        cmocka_unit_test(memory_is_out_of_reach_when_it_was_unmapped),
        cmocka_unit_test(a_mapping_that_the_server_refuses_is_none),
        cmocka_unit_test(many_regions_are_told_apart),
        cmocka_unit_test(broken_commands_are_refused_and_the_connection_goes_on),
        cmocka_unit_test(a_command_that_wants_no_reply_gets_none),
        cmocka_unit_test(memory_that_was_mapped_without_anything_cannot_be_read),
        cmocka_unit_test(the_older_layout_is_spoken_when_asked_for),
        cmocka_unit_test(answers_that_nobody_takes_hold_up_no_reply),
        cmocka_unit_test(commands_of_ours_go_between_answers_never_into_one),
        cmocka_unit_test(answers_without_end_end_the_connection),
        cmocka_unit_test(a_server_that_goes_in_the_middle_of_a_write_writes_nothing),
        cmocka_unit_test(a_server_that_goes_while_it_is_answered_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
