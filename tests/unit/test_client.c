// SPDX-License-Identifier: BSD-3-Clause
// The vfio-user client against a server that does what the test says, good and bad.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "client_fixture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// --- opening ---

static void opening_agrees_on_the_smaller_limits(void **state)
{
    (void)state;
    struct fake_server server = {.message = never_answer};
    OPEN(server, client);
    const struct sdc_vfio_client_session *session = sdc_vfio_client_session(client);
    assert_int_equal(session->max_message_fds, 4);
    assert_int_equal(session->max_data_transfer, 4096);
    assert_int_equal(session->max_dma_maps, 65535);
    fake_close(&server, client);
}

static void a_server_without_json_has_the_defaults(void **state)
{
    (void)state;
    struct fake_server server = {.message = never_answer, .version_json = ""};
    OPEN(server, client);
    const struct sdc_vfio_client_session *session = sdc_vfio_client_session(client);
    assert_int_equal(session->max_message_fds, 1);
    assert_int_equal(session->max_data_transfer, 1024 * 1024);
    assert_int_equal(session->page_sizes, 4096);
    fake_close(&server, client);
}

static void open_fails(struct fake_server *server, uint32_t timeout_ms, int code, const char *text)
{
    struct sdc_vfio_client *client;
    struct sdc_error err = {0};
    struct sdc_vfio_client_options options = {.timeout_ms = timeout_ms};
    assert_int_equal(fake_open(server, &options, &client, &err), code);
    assert_non_null(strstr(err.text, text));
    assert_int_equal(err.code, code);
    fake_close(server, NULL);
}

static void a_silent_server_may_have_another_client(void **state)
{
    (void)state;
    struct fake_server server = {.message = never_answer, .own_version = true};
    open_fails(&server, 100, -ETIMEDOUT, "another client may be connected");
}

static void a_server_that_hangs_up_on_version(void **state)
{
    (void)state;
    struct fake_server server = {.message = hang_up, .own_version = true};
    open_fails(&server, 30000, -ECONNRESET, "instead of answering VERSION");
}

static void bad_json_is_refused(void **state)
{
    (void)state;
    struct fake_server server = {.message = never_answer,
                                 .version_json = "{\"capabilities\":{\"max_msg_fds\":0}}"};
    open_fails(&server, 30000, -EPROTO, "max_msg_fds");
}

static bool answer_version_of_context(struct fake_server *server, struct fake_message *message)
{
    fake_reply(server, message, server->context, sizeof(struct sdc_vfu_version), NULL, 0);
    return true;
}

static void a_newer_version_is_refused(void **state)
{
    (void)state;
    struct sdc_vfu_version newer[] = {{0, 1}, {1, 0}};
    for (unsigned i = 0; i < 2; i++) {
        struct fake_server server = {.message = answer_version_of_context,
                                     .own_version = true,
                                     .context = &newer[i]};
        open_fails(&server, 30000, -EPROTO, i == 0 ? "with 0.1" : "with 1.0");
    }
}

static void a_path_without_server_is_named(void **state)
{
    (void)state;
    struct sdc_vfio_client *client;
    struct sdc_error err = {0};
    assert_int_equal(sdc_vfio_client_open("/nonexistent/x.sock", NULL, &client, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nonexistent/x.sock"));
}

// --- replies ---

static void a_reply_may_be_empty(void **state)
{
    (void)state;
    struct fake_server server = {.message = echo};
    OPEN(server, client);
    struct sdc_vfio_device device;
    struct sdc_vfio_reply reply;
    assert_int_equal(sdc_vfio_client_device(client, &device, &err), 0); // 16 bytes back
    struct sdc_vfio_command reset = {.command = SDC_VFU_RESET};
    struct sdc_vfio_call *call;
    assert_int_equal(sdc_vfio_client_send(client, &reset, &call, &err), 0);
    assert_int_equal(sdc_vfio_client_wait(client, call, &reply, &err), 0);
    assert_int_equal(reply.size, 0);
    sdc_vfio_reply_release(&reply);
    fake_close(&server, client);
}

static bool reply_of_eight_bytes(struct fake_server *server, struct fake_message *message)
{
    fake_reply(server, message, message->payload, 8, NULL, 0);
    return true;
}

static void each_kind_of_reply_has_its_length_checked(void **state)
{
    (void)state;
    struct fake_server server = {.message = reply_of_eight_bytes};
    OPEN(server, client);
    struct sdc_vfio_device device;
    struct sdc_vfio_region region;
    struct sdc_vfio_irq irq;
    uint32_t word = 0;
    assert_int_equal(sdc_vfio_client_device(client, &device, &err), -EPROTO);
    assert_non_null(strstr(err.text, "GET_INFO has 8 bytes, at least 16"));
    assert_int_equal(sdc_vfio_client_region(client, 0, &region, &err), -EPROTO);
    assert_int_equal(sdc_vfio_client_irq(client, 0, &irq, &err), -EPROTO);
    assert_int_equal(sdc_vfio_client_read(client, 0, 0, &word, sizeof word, &err), -EPROTO);
    assert_int_equal(sdc_vfio_client_write(client, 0, 0, &word, sizeof word, &err), -EPROTO);
    assert_int_equal(sdc_vfio_client_unmap(client, 0, 4096, &err), -EPROTO);
    assert_int_equal(sdc_vfio_client_unmap_all(client, &err), -EPROTO);
    static const struct sdc_vfio_region bar = {.index = 4, .size = 4096, .fd = -1};
    struct sdc_vfio_ioeventfds list;
    assert_int_equal(sdc_vfio_client_ioeventfds(client, &bar, &list, &err), -EPROTO);
    assert_non_null(strstr(err.text, "GET_REGION_IO_FDS has 8 bytes, at least 16"));
    fake_close(&server, client);
}

static bool reply_with_errors(struct fake_server *server, struct fake_message *message)
{
    static const uint32_t errors[] = {ENOSPC, 0, 99999};
    fake_reply_error(server, message, errors[message->header.msg_id % 3]);
    return true;
}

static void error_replies_become_their_errno(void **state)
{
    (void)state;
    struct fake_server server = {.message = reply_with_errors};
    OPEN(server, client);
    // VERSION had id 0.
    assert_int_equal(sdc_vfio_client_reset(client, &err), -EIO); // 0
    assert_int_equal(sdc_vfio_client_reset(client, &err), -EIO); // no errno at all
    assert_int_equal(sdc_vfio_client_reset(client, &err), -ENOSPC);
    assert_non_null(strstr(err.text, "refused DEVICE_RESET: No space left"));
    fake_close(&server, client);
}

// Holds every message until the third, then answers in reverse.
static bool reply_in_reverse(struct fake_server *server, struct fake_message *message)
{
    static struct fake_message held[3];
    static unsigned count;
    held[count++] = *message;
    while (count >= 3) {
        for (unsigned i = 3; i-- > 0;)
            fake_reply(server, &held[i], held[i].payload, held[i].size, NULL, 0);
        count = 0;
    }
    return true;
}

static void replies_are_matched_by_id(void **state)
{
    (void)state;
    struct fake_server server = {.message = reply_in_reverse};
    OPEN(server, client);
    struct sdc_vfio_call *calls[3];
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t head[4] = {16, 0, i, 0};
        struct sdc_vfio_command command = {.command = SDC_VFU_GET_IRQ_INFO,
                                           .head = head,
                                           .head_size = sizeof head};
        assert_int_equal(sdc_vfio_client_send(client, &command, &calls[i], &err), 0);
    }
    for (uint32_t i = 0; i < 3; i++) {
        struct sdc_vfio_reply reply;
        uint32_t head[4];
        assert_int_equal(sdc_vfio_client_wait(client, calls[i], &reply, &err), 0);
        assert_int_equal(reply.size, sizeof head);
        memcpy(head, reply.payload, sizeof head);
        assert_int_equal(head[2], i);
        sdc_vfio_reply_release(&reply);
    }
    fake_close(&server, client);
}

// Answers everything one message late.
static bool reply_late(struct fake_server *server, struct fake_message *message)
{
    struct fake_message *last = server->context;
    if (last->header.cmd != 0)
        fake_reply(server, last, last->payload, last->size, NULL, 0);
    if (message->header.cmd == SDC_VFU_RESET)
        *last = *message;
    else
        fake_reply(server, message, message->payload, message->size, NULL, 0);
    return true;
}

static void a_late_reply_is_dropped_and_the_connection_goes_on(void **state)
{
    (void)state;
    struct fake_message *last = calloc(1, sizeof *last);
    struct fake_server server = {.message = reply_late, .context = last};
    struct sdc_vfio_client *client;
    struct sdc_error err = {0};
    static const struct sdc_vfio_client_options quick = {.timeout_ms = 2000};
    assert_int_equal(fake_open(&server, &quick, &client, &err), 0);
    struct sdc_vfio_device device;
    assert_int_equal(sdc_vfio_client_reset(client, &err), -ETIMEDOUT);
    assert_non_null(strstr(err.text, "did not answer DEVICE_RESET within 2000 ms"));
    assert_int_equal(sdc_vfio_client_device(client, &device, &err), 0);
    fake_close(&server, client);
    free(last);
}

static bool reply_to_another_command(struct fake_server *server, struct fake_message *message)
{
    message->header.cmd = SDC_VFU_VERSION;
    fake_reply(server, message, NULL, 0, NULL, 0);
    return true;
}

static void a_reply_to_another_command_ends_the_connection(void **state)
{
    (void)state;
    struct fake_server server = {.message = reply_to_another_command};
    OPEN(server, client);
    struct sdc_vfio_device device;
    assert_int_equal(sdc_vfio_client_reset(client, &err), -EPROTO);
    assert_non_null(strstr(err.text, "answered DEVICE_RESET with a reply to VERSION"));
    assert_int_equal(sdc_vfio_client_device(client, &device, &err), -EPROTO); // and stays ended
    fake_close(&server, client);
}

// The context is the header to send instead of a reply.
static bool send_header_of_context(struct fake_server *server, struct fake_message *message)
{
    struct sdc_vfu_header header = *(struct sdc_vfu_header *)server->context;
    header.msg_id = message->header.msg_id;
    header.cmd = message->header.cmd;
    fake_send(server, &header, sizeof header, NULL, 0);
    return true;
}

static void impossible_headers_end_the_connection(void **state)
{
    (void)state;
    struct sdc_vfu_header headers[] = {
        {.msg_size = 0, .flags = SDC_VFU_TYPE_REPLY},
        {.msg_size = 15, .flags = SDC_VFU_TYPE_REPLY},
        {.msg_size = UINT32_MAX, .flags = SDC_VFU_TYPE_REPLY},
        {.msg_size = 4 * 1024 * 1024, .flags = SDC_VFU_TYPE_REPLY},
        {.msg_size = 16, .flags = 2},
        {.msg_size = 16, .flags = 15},
    };
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        struct fake_server server = {.message = send_header_of_context, .context = &headers[i]};
        OPEN(server, client);
        assert_int_equal(sdc_vfio_client_reset(client, &err), -EPROTO);
        fake_close(&server, client);
    }
}

static bool reply_byte_by_byte(struct fake_server *server, struct fake_message *message)
{
    uint8_t bytes[32];
    message->header.flags = SDC_VFU_TYPE_REPLY;
    memcpy(bytes, &message->header, 16);
    memcpy(bytes + 16, message->payload, 16);
    for (size_t i = 0; i < sizeof bytes; i++) {
        fake_send(server, bytes + i, 1, NULL, 0);
        usleep(200);
    }
    return true;
}

static void a_reply_may_come_in_pieces(void **state)
{
    (void)state;
    struct fake_server server = {.message = reply_byte_by_byte};
    OPEN(server, client);
    struct sdc_vfio_irq irq;
    assert_int_equal(sdc_vfio_client_irq(client, 3, &irq, &err), 0);
    assert_int_equal(irq.index, 3);
    fake_close(&server, client);
}

static void when_the_server_goes_away_everything_fails_alike(void **state)
{
    (void)state;
    struct fake_server server = {.message = hang_up};
    OPEN(server, client);
    struct sdc_vfio_device device;
    uint16_t value = 0;
    assert_int_equal(sdc_vfio_client_reset(client, &err), -ECONNRESET);
    assert_non_null(strstr(err.text, "closed the connection"));
    assert_int_equal(sdc_vfio_client_device(client, &device, &err), -ECONNRESET);
    assert_int_equal(sdc_vfio_client_post(client, 4, 0, &value, sizeof value, &err), -ECONNRESET);
    assert_int_equal(sdc_vfio_client_process(client, &err), -ECONNRESET);
    fake_close(&server, client);
}

// --- file descriptors ---

static bool reply_with_fds(struct fake_server *server, struct fake_message *message)
{
    int fds[32];
    int count = *(int *)server->context;
    for (int i = 0; i < count; i++)
        fds[i] = 0;
    fake_reply(server, message, message->payload, message->size, fds, count);
    return true;
}

static void fds_that_nobody_asked_for_are_closed(void **state)
{
    (void)state;
    int count = 5;
    unsigned before = open_fds();
    struct fake_server server = {.message = reply_with_fds, .context = &count};
    OPEN(server, client);
    struct sdc_vfio_device device;
    unsigned connected = open_fds();
    assert_int_equal(sdc_vfio_client_device(client, &device, &err), 0);
    assert_int_equal(sdc_vfio_client_reset(client, &err), 0);
    assert_int_equal(open_fds(), connected);
    count = 20;
    assert_int_equal(sdc_vfio_client_reset(client, &err), -EPROTO);
    assert_non_null(strstr(err.text, "file descriptors"));
    fake_close(&server, client);
    assert_int_equal(open_fds(), before);
}

// --- both at once ---

struct commands_seen {
    unsigned errors; // error replies that came back
    uint32_t error;
    uint16_t id;
};

// Sends two commands of its own before it answers; the second wants no reply.
static bool ask_the_client(struct fake_server *server, struct fake_message *message)
{
    struct commands_seen *seen = server->context;
    if ((message->header.flags & SDC_VFU_TYPE_MASK) == SDC_VFU_TYPE_REPLY) {
        seen->errors++;
        seen->error = message->header.error;
        seen->id = message->header.msg_id;
        return true;
    }
    struct {
        struct sdc_vfu_header header;
        struct sdc_vfu_dma_access access;
    } ask = {.header = {.msg_id = 77, .cmd = SDC_VFU_DMA_READ, .msg_size = 32}, .access = {0x1000, 16}};
    fake_send(server, &ask, sizeof ask, NULL, 0);
    ask.header.msg_id = 78;
    ask.header.cmd = 999;
    ask.header.flags = SDC_VFU_NO_REPLY;
    fake_send(server, &ask, sizeof ask, NULL, 0);
    fake_reply(server, message, message->payload, message->size, NULL, 0);
    return true;
}

static void the_servers_commands_are_answered_with_an_error(void **state)
{
    (void)state;
    struct commands_seen seen = {0};
    struct fake_server server = {.message = ask_the_client, .context = &seen};
    OPEN(server, client);
    struct sdc_vfio_device device;
    assert_int_equal(sdc_vfio_client_device(client, &device, &err), 0);
    assert_int_equal(sdc_vfio_client_device(client, &device, &err), 0);
    assert_int_equal(sdc_vfio_client_process(client, &err), 0);
    fake_close(&server, client);
    assert_int_equal(seen.errors, 2);
    assert_int_equal(seen.error, EFAULT); // it reads memory that is not there
    assert_int_equal(seen.id, 77);
}

static bool reply_much(struct fake_server *server, struct fake_message *message)
{
    static uint8_t much[16384];
    fake_reply(server, message, much, sizeof much, NULL, 0);
    return true;
}

static void a_server_that_is_stuck_on_its_replies_is_read_from(void **state)
{
    (void)state;
    enum { MANY = 3000 };
    static struct sdc_vfio_call *calls[MANY];
    struct fake_server server = {.message = reply_much};
    OPEN(server, client);
    struct sdc_vfio_command command = {.command = SDC_VFU_GET_INFO};
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(sdc_vfio_client_send(client, &command, &calls[i], &err), 0);
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(sdc_vfio_client_wait(client, calls[i], NULL, &err), 0);
    fake_close(&server, client);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening_agrees_on_the_smaller_limits),
        cmocka_unit_test(a_server_without_json_has_the_defaults),
        cmocka_unit_test(a_silent_server_may_have_another_client),
        cmocka_unit_test(a_server_that_hangs_up_on_version),
        cmocka_unit_test(bad_json_is_refused),
        cmocka_unit_test(a_newer_version_is_refused),
        cmocka_unit_test(a_path_without_server_is_named),
        cmocka_unit_test(a_reply_may_be_empty),
        cmocka_unit_test(each_kind_of_reply_has_its_length_checked),
        cmocka_unit_test(error_replies_become_their_errno),
        cmocka_unit_test(replies_are_matched_by_id),
        cmocka_unit_test(a_late_reply_is_dropped_and_the_connection_goes_on),
        cmocka_unit_test(a_reply_to_another_command_ends_the_connection),
        cmocka_unit_test(impossible_headers_end_the_connection),
        cmocka_unit_test(a_reply_may_come_in_pieces),
        cmocka_unit_test(when_the_server_goes_away_everything_fails_alike),
        cmocka_unit_test(fds_that_nobody_asked_for_are_closed),
        cmocka_unit_test(the_servers_commands_are_answered_with_an_error),
        cmocka_unit_test(a_server_that_is_stuck_on_its_replies_is_read_from),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
