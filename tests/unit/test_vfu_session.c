// SPDX-License-Identifier: BSD-3-Clause
// A session whose client does not read its replies: they are kept up to a limit, and the rest of what it asked for waits.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/bytes.h"
#include "transport/common/pci_config.h"
#include "transport/vfio_user/session.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

// --- a card that does nothing ---

static int card_access(struct sdc_pci_device *device, struct sdc_pci_access *access)
{
    (void)device;
    access->value = 0;
    return 0;
}

static void card_reset(struct sdc_pci_device *device)
{
    (void)device;
}

static void card_set_map(struct sdc_pci_device *device, struct sdc_map *map)
{
    (void)device, (void)map;
}

static bool card_busy(struct sdc_pci_device *device)
{
    (void)device;
    return false;
}

static const struct sdc_pci_ops card_ops = {
    .name = "test", .access = card_access, .reset = card_reset, .set_map = card_set_map, .busy = card_busy};

// --- a session with a client at the other end of a socket pair ---

struct fixture {
    struct sdc_loop *loop;
    struct sdc_pci_device card;
    struct vfu_session *session;
    int client;
    bool ended;
};

struct turns {
    struct sdc_post post;
    struct sdc_loop *loop;
    unsigned left;
};

static void run_turn(struct sdc_post *post)
{
    struct turns *turns = (struct turns *)(void *)post;

    if (turns->left-- == 0)
        sdc_loop_stop(turns->loop);
    else
        sdc_loop_post(turns->loop, post);
}

static void run_turns(struct fixture *f, unsigned count)
{
    struct turns turns = {.post = {.run = run_turn}, .loop = f->loop, .left = count};

    sdc_loop_post(f->loop, &turns.post);
    sdc_loop_run(f->loop);
}

static void session_ended(struct vfu_session *session)
{
    ((struct fixture *)session->context)->ended = true;
}

static void open_session(struct fixture *f)
{
    static const struct sdc_vfu_options options = {.name = "test.sock"};
    int ends[2];

    *f = (struct fixture){.card = {.ops = &card_ops}};
    assert_int_equal(sdc_loop_new(SDC_LOOP_AUTO, &f->loop, NULL), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    f->client = ends[0];
    f->session = vfu_session_new(f->loop, ends[1], &f->card, &options, session_ended, f);
    assert_non_null(f->session);
}

static void close_session(struct fixture *f)
{
    close(f->client);
    for (unsigned i = 0; i < 1000 && !f->ended; i++)
        run_turns(f, 4);
    assert_true(f->ended);
    vfu_session_free(f->session);
    sdc_loop_free(f->loop);
}

static void send_message(struct fixture *f, uint16_t id, uint16_t command, const void *payload, uint32_t size)
{
    uint8_t bytes[256];
    struct sdc_vfu_header header = {.msg_id = id, .cmd = command, .msg_size = (uint32_t)sizeof header + size};

    memcpy(bytes, &header, sizeof header);
    memcpy(bytes + sizeof header, payload, size);
    assert_int_equal(send(f->client, bytes, header.msg_size, MSG_DONTWAIT), header.msg_size);
}

// Reads exactly size bytes, or throws them away; lets the server work meanwhile.
static void receive(struct fixture *f, void *local, size_t size)
{
    static uint8_t waste[65536];

    while (size > 0) {
        size_t room = local || size < sizeof waste ? size : sizeof waste;
        ssize_t got = recv(f->client, local ? local : waste, room, MSG_DONTWAIT);
        if (got < 0) {
            assert_int_equal(errno, EAGAIN);
            run_turns(f, 2);
            continue;
        }
        assert_true(got > 0);
        local = local ? (uint8_t *)local + got : NULL;
        size -= (size_t)got;
    }
}

static struct sdc_vfu_header receive_reply(struct fixture *f)
{
    struct sdc_vfu_header header;

    receive(f, &header, sizeof header);
    receive(f, NULL, header.msg_size - sizeof header);
    return header;
}

// --- the tests ---

enum { COMMANDS = 120 };

// A client that has errors padded to the good reply's length gets 1 MiB for each of these 32 bytes. It reads none of them.
static void ask_for_much(struct fixture *f)
{
    static const char json[] = "\0\0\1\0{\"capabilities\":{\"max_msg_fds\":1}}"; // version 0.1: as Cloud Hypervisor
    struct sdc_vfu_region_access access = {.region = 0, .count = UINT32_MAX};

    send_message(f, 1000, SDC_VFU_VERSION, json, sizeof json);
    run_turns(f, 4);
    assert_int_equal(receive_reply(f).msg_id, 1000);
    assert_true(f->session->pads_errors);
    for (uint16_t id = 0; id < COMMANDS; id++)
        send_message(f, id, SDC_VFU_REGION_READ, &access, sizeof access);
    run_turns(f, 8);
}

static void replies_that_nobody_reads_are_bounded(void **state)
{
    struct fixture f;

    (void)state;
    open_session(&f);
    ask_for_much(&f);
    size_t unsent = vfu_stream_unsent(&f.session->stream);
    assert_true(unsent >= SDC_LIMIT_UNSENT / 2);
    assert_true(unsent <= SDC_LIMIT_UNSENT + SDC_LIMIT_MESSAGE);
    assert_false(f.ended);

    // It reads after all: every reply comes, in order, none twice.
    for (uint16_t id = 0; id < COMMANDS; id++) {
        struct sdc_vfu_header reply = receive_reply(&f);
        assert_int_equal(reply.msg_id, id);
        assert_true(f.session->stream.out_size <= SDC_LIMIT_UNSENT + 2 * SDC_LIMIT_MESSAGE); // what was sent takes no room
        assert_int_equal(reply.error, EINVAL);
        assert_int_equal(reply.msg_size, sizeof reply + sizeof(struct sdc_vfu_region_access) + SDC_LIMIT_DATA_XFER);
    }
    assert_int_equal(vfu_stream_unsent(&f.session->stream), 0);
    close_session(&f);
}

static void a_client_that_goes_without_reading_is_noticed(void **state)
{
    struct fixture f;

    (void)state;
    open_session(&f);
    ask_for_much(&f);
    close_session(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies_that_nobody_reads_are_bounded),
        cmocka_unit_test(a_client_that_goes_without_reading_is_noticed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
