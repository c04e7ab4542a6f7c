// SPDX-License-Identifier: BSD-3-Clause
// Who answers the server's commands, and on which of the two sockets.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "client_fixture.h"
#include "client_script.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BASE UINT64_C(0x10000)

enum { SIZE = 4096, BOTH = SDC_VFIO_MAP_READ | SDC_VFIO_MAP_WRITE };

static const struct sdc_vfio_client_options with_twin = {.twin_socket = true};

// --- agreeing on a twin ---

static void a_twin_is_offered_only_when_that_is_wanted(void **state)
{
    (void)state;
    for (unsigned wanted = 0; wanted < 2; wanted++) {
        struct sdc_vfio_client_options options = {.twin_socket = wanted};
        struct script_message *message = malloc(sizeof *message);
        struct script script;
        // The server wants none.
        assert_int_equal(script_try(&script, "{\"capabilities\":{}}", NULL, 0, &options), 0);
        assert_true(script_hear(script.fd, message));
        const char *json = (char *)message->payload + sizeof(struct sdc_vfu_version);
        assert_int_equal(strstr(json, "\"twin_socket\":{\"supported\":true}") != NULL, wanted);
        assert_non_null(strstr(json, "\"write_multiple\":true"));
        assert_false(sdc_vfio_client_session(script.client)->twin_socket);
        assert_false(sdc_vfio_client_session(script.client)->write_multiple);
        assert_int_equal(sdc_vfio_client_twin_fd(script.client), -1);
        script_close(&script);
        free(message);
    }
}

static void a_twin_that_is_none_is_refused(void **state)
{
    (void)state;
    int pair[2], lonely = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int datagrams[2], internet = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, datagrams), 0);
    assert_int_equal(pipe(ends), 0);
    struct {
        const char *twin;
        int fd; // -1: none is sent
        const char *text;
    } cases[] = {
        {"{\"supported\":true}", pair[1], "none of them its number"},
        {"{\"supported\":true,\"fd_index\":1}", pair[1], "sent 1 file descriptors"},
        {"{\"supported\":true,\"fd_index\":0}", -1, "sent 0 file descriptors"},
        {"{\"supported\":true,\"fd_index\":4294967296}", pair[1], "fd_index"},
        {"{\"supported\":true,\"fd_index\":-1}", pair[1], "fd_index"},
        {"{\"supported\":true,\"fd_index\":0}", null, "no connected Unix stream socket"},
        {"{\"supported\":true,\"fd_index\":0}", ends[0], "no connected"},
        {"{\"supported\":true,\"fd_index\":0}", lonely, "no connected"},
        {"{\"supported\":true,\"fd_index\":0}", datagrams[0], "no connected"},
        {"{\"supported\":true,\"fd_index\":0}", internet, "no connected"},
        {"{\"supported\":1}", pair[1], "supported"},
        {"true", pair[1], "twin_socket"},
    };
    unsigned before = open_fds();
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char json[200];
        struct script script;
        snprintf(json, sizeof json, "{\"capabilities\":{\"twin_socket\":%s}}", cases[i].twin);
        assert_int_equal(script_try(&script, json, &cases[i].fd, cases[i].fd >= 0 ? 1 : 0, &with_twin), -EPROTO);
        if (!strstr(script.err.text, cases[i].text))
            fail_msg("'%s' is not in '%s'", cases[i].text, script.err.text);
        script_close(&script);
        assert_int_equal(open_fds(), before);
    }
    // Nobody has asked for one.
    struct script script;
    const char *json = "{\"capabilities\":{\"twin_socket\":{\"supported\":true,\"fd_index\":0}}}";
    assert_int_equal(script_try(&script, json, &pair[1], 1, NULL), -EPROTO);
    script_close(&script);
    int all[] = {pair[0], pair[1], lonely, null, datagrams[0], datagrams[1], internet, ends[0], ends[1]};
    for (unsigned i = 0; i < sizeof all / sizeof all[0]; i++)
        close(all[i]);
}

// --- using it ---

static void what_is_asked_on_a_socket_is_answered_on_it(void **state)
{
    (void)state;
    struct script script;
    uint8_t memory[SIZE], data[SIZE];
    memset(memory, 'm', SIZE);
    script_open(&script, &with_twin);
    assert_true(sdc_vfio_client_session(script.client)->twin_socket);
    assert_true(sdc_vfio_client_twin_fd(script.client) >= 0);
    script_map(&script, BASE, SIZE, BOTH, memory);
    assert_true(script_ask(script.twin, 1, 0, BASE, 100, NULL));
    assert_true(script_ask(script.fd, 2, 0, BASE, 5, "write"));
    assert_int_equal(sdc_vfio_client_process(script.client, &script.err), 0);
    assert_int_equal(script_answer(script.twin, 1, SDC_VFU_DMA_READ, BASE, 100, data), 0);
    assert_int_equal(script_answer(script.fd, 2, SDC_VFU_DMA_WRITE, BASE, 5, NULL), 0);
    assert_int_equal(script_skip(script.twin) + script_skip(script.fd), 0);
    // A thread that waits for a reply answers there, too.
    assert_true(script_ask(script.twin, 3, 0, BASE, 100, NULL));
    script_reply(&script, SDC_VFU_RESET, 0, NULL, 0);
    assert_int_equal(sdc_vfio_client_reset(script.client, &script.err), 0);
    assert_int_equal(script_answer(script.twin, 3, SDC_VFU_DMA_READ, BASE, 100, data), 0);
    script_close(&script);
}

static void a_full_twin_holds_up_nothing_on_the_other_socket(void **state)
{
    (void)state;
    struct script script;
    uint8_t memory[SIZE] = {0};
    script_open(&script, &with_twin);
    script_map(&script, BASE, SIZE, BOTH, memory);
    for (uint16_t i = 0; sdc_vfio_client_process(script.client, &script.err) == 0; i++)
        assert_true(script_ask(script.twin, i, 0, BASE, SIZE, NULL));
    script_reply(&script, SDC_VFU_RESET, 0, NULL, 0);
    assert_int_equal(sdc_vfio_client_reset(script.client, &script.err), 0);
    assert_true(script_ask(script.fd, 2, 0, BASE, 5, "write"));
    assert_int_equal(sdc_vfio_client_process(script.client, &script.err), 1);
    assert_int_equal(script_skip(script.fd), 2);
    script_close(&script);
}

static void a_reply_on_the_twin_ends_the_connection(void **state)
{
    (void)state;
    struct script script;
    struct sdc_vfu_header header = {.msg_id = 1, .cmd = SDC_VFU_RESET, .flags = SDC_VFU_TYPE_REPLY};
    script_open(&script, &with_twin);
    assert_true(script_say(script.twin, header, NULL, 0, NULL, 0));
    assert_int_equal(sdc_vfio_client_reset(script.client, &script.err), -EPROTO);
    assert_non_null(strstr(script.err.text, "twin"));
    script_close(&script);
}

static void a_twin_that_is_closed_ends_the_connection(void **state)
{
    (void)state;
    struct script script;
    script_open(&script, &with_twin);
    close(script.twin);
    script.twin = -1;
    assert_int_equal(sdc_vfio_client_process(script.client, &script.err), -ECONNRESET);
    assert_non_null(strstr(script.err.text, "twin"));
    script_close(&script);
}

// --- threads ---

static void a_thread_of_the_librarys_serves_when_nobody_waits(void **state)
{
    (void)state;
    for (unsigned twin = 0; twin < 2; twin++) {
        struct sdc_vfio_client_options options = {.twin_socket = twin};
        struct script script;
        uint8_t memory[SIZE];
        memset(memory, 'm', SIZE);
        script_open(&script, &options);
        script_map(&script, BASE, SIZE, BOTH, memory);
        assert_int_equal(sdc_vfio_client_serve_start(script.client, &script.err), 0);
        assert_int_equal(sdc_vfio_client_serve_start(script.client, &script.err), 0);
        int fd = twin ? script.twin : script.fd;
        for (uint16_t i = 0; i < 200; i++) {
            struct pollfd item = {.fd = fd, .events = POLLIN};
            uint8_t data[SIZE];
            assert_true(script_ask(fd, i, 0, BASE, 16, NULL));
            assert_int_equal(poll(&item, 1, 60000), 1);
            assert_int_equal(script_answer(fd, i, SDC_VFU_DMA_READ, BASE, 16, data), 0);
            assert_memory_equal(data, memory, 16);
        }
        // It is no obstacle to who waits.
        struct sdc_vfio_call *call;
        struct sdc_vfio_command command = {.command = SDC_VFU_RESET};
        assert_int_equal(sdc_vfio_client_send(script.client, &command, &call, &script.err), 0);
        script_reply(&script, SDC_VFU_RESET, 0, NULL, 0);
        assert_int_equal(sdc_vfio_client_wait(script.client, call, NULL, &script.err), 0);
        sdc_vfio_client_serve_stop(script.client);
        sdc_vfio_client_serve_stop(script.client);
        script_close(&script);
    }
}

// Before it answers a read of a register it writes its number to memory, once with a reply and once without,
// and reads it back.
struct asker {
    uint32_t *memory;
    unsigned answers;
    unsigned wrong;
};

static bool write_first(struct fake_server *server, struct fake_message *message)
{
    struct asker *asker = server->context;
    struct sdc_vfu_region_access access;
    if ((message->header.flags & SDC_VFU_TYPE_MASK) == SDC_VFU_TYPE_REPLY) {
        asker->answers++;
        asker->wrong += message->header.error != 0;
        return true;
    }
    if (message->header.cmd != SDC_VFU_REGION_READ) {
        fake_reply(server, message, message->payload, message->size, NULL, 0);
        return true;
    }
    memcpy(&access, message->payload, sizeof access);
    struct {
        struct sdc_vfu_header header;
        struct sdc_vfu_dma_access access;
        uint32_t value;
    } ask = {.header = {.cmd = SDC_VFU_DMA_WRITE, .msg_size = 36},
             .access = {BASE + access.offset, 4},
             .value = (uint32_t)access.offset + 1};
    fake_send(server, &ask, 36, NULL, 0);
    ask.header.flags = SDC_VFU_NO_REPLY;
    ask.value++;
    fake_send(server, &ask, 36, NULL, 0);
    ask.header = (struct sdc_vfu_header){.cmd = SDC_VFU_DMA_READ, .msg_size = 32};
    fake_send(server, &ask, 32, NULL, 0);
    uint8_t reply[sizeof access + 4] = {0};
    memcpy(reply, &access, sizeof access);
    fake_reply(server, message, reply, sizeof reply, NULL, 0);
    return true;
}

struct reader {
    pthread_t thread;
    struct sdc_vfio_client *client;
    uint32_t *memory;
    uint32_t number;
    unsigned wrong;
};

static void *read_much(void *context)
{
    struct reader *reader = context;
    for (uint32_t i = 0; i < 300; i++) {
        uint32_t place = reader->number * 300 + i, value;
        if (sdc_vfio_client_read(reader->client, 0, 4 * place, &value, sizeof value, NULL) != 0)
            reader->wrong++;
        // What was written before the reply was sent is there.
        if (__atomic_load_n(&reader->memory[place], __ATOMIC_ACQUIRE) != 4 * place + 2)
            reader->wrong++;
    }
    return NULL;
}

static void a_reply_finds_done_what_was_asked_before_it(void **state)
{
    (void)state;
    enum { READERS = 4 };
    for (unsigned serving = 0; serving < 2; serving++) {
        struct asker asker = {0};
        struct fake_server server = {.message = write_first, .context = &asker};
        struct reader readers[READERS];
        OPEN(server, client);
        uint32_t *memory = calloc(READERS * 300, sizeof *memory);
        assert_int_equal(sdc_vfio_client_map_private(client, BASE, READERS * 1200, BOTH, memory, &err), 0);
        if (serving)
            assert_int_equal(sdc_vfio_client_serve_start(client, &err), 0);
        for (uint32_t i = 0; i < READERS; i++) {
            readers[i] = (struct reader){.client = client, .memory = memory, .number = i};
            assert_int_equal(pthread_create(&readers[i].thread, NULL, read_much, &readers[i]), 0);
        }
        for (uint32_t i = 0; i < READERS; i++) {
            pthread_join(readers[i].thread, NULL);
            assert_int_equal(readers[i].wrong, 0);
        }
        struct sdc_vfio_device device;
        sdc_vfio_client_device(client, &device, &err); // the answers before it have been taken
        fake_close(&server, client);
        assert_int_equal(asker.answers, 2 * READERS * 300);
        assert_int_equal(asker.wrong, 0);
        free(memory);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_twin_is_offered_only_when_that_is_wanted),
        cmocka_unit_test(a_twin_that_is_none_is_refused),
        cmocka_unit_test(what_is_asked_on_a_socket_is_answered_on_it),
        cmocka_unit_test(a_full_twin_holds_up_nothing_on_the_other_socket),
        cmocka_unit_test(a_reply_on_the_twin_ends_the_connection),
        cmocka_unit_test(a_twin_that_is_closed_ends_the_connection),
        cmocka_unit_test(a_thread_of_the_librarys_serves_when_nobody_waits),
        cmocka_unit_test(a_reply_finds_done_what_was_asked_before_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
