// SPDX-License-Identifier: BSD-3-Clause
// A session with a card that does nothing, and a client at the other end of a socket pair, in one thread.
#pragma once

#include "loop_kinds.h"
#include "loop_turns.h"

#include "transport/common/pci_config.h"
#include "transport/vfio_user/session.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

// --- a card that does nothing ---

static inline int card_access(struct sdc_pci_device *device, struct sdc_pci_access *access)
{
    (void)device;
    access->value = 0;
    return 0;
}

static inline void card_reset(struct sdc_pci_device *device)
{
    (void)device;
}

static inline void card_set_map(struct sdc_pci_device *device, struct sdc_map *map)
{
    (void)device, (void)map;
}

static inline bool card_busy(struct sdc_pci_device *device)
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

static inline void run_turns(struct fixture *f, unsigned count)
{
    loop_turns(f->loop, count);
}

static inline void session_ended(struct vfu_session *session)
{
    ((struct fixture *)session->context)->ended = true;
}

static inline void open_session(struct fixture *f)
{
    static const struct sdc_vfu_options options = {.name = "test.sock"};
    int ends[2];

    *f = (struct fixture){.card = {.ops = &card_ops, .irq_counts = {[SDC_PCI_MSI] = 2}}};
    assert_int_equal(sdc_loop_new(loop_kind, &f->loop, NULL), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    f->client = ends[0];
    f->session = vfu_session_new(f->loop, ends[1], &f->card, &options, session_ended, f);
    assert_non_null(f->session);
}

static inline void close_session(struct fixture *f)
{
    close(f->client);
    for (unsigned i = 0; i < 1000 && !f->ended; i++)
        run_turns(f, 4);
    assert_true(f->ended);
    vfu_session_free(f->session);
    sdc_loop_free(f->loop);
}

static inline void send_message(struct fixture *f, uint16_t id, uint16_t command, const void *payload, uint32_t size)
{
    uint8_t bytes[256];
    struct sdc_vfu_header header = {.msg_id = id, .cmd = command, .msg_size = (uint32_t)sizeof header + size};

    memcpy(bytes, &header, sizeof header);
    memcpy(bytes + sizeof header, payload, size);
    assert_int_equal(send(f->client, bytes, header.msg_size, MSG_DONTWAIT), header.msg_size);
}

// Reads exactly size bytes, or throws them away; lets the server work meanwhile.
static inline void receive(struct fixture *f, void *local, size_t size)
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

static inline struct sdc_vfu_header receive_reply(struct fixture *f)
{
    struct sdc_vfu_header header;

    receive(f, &header, sizeof header);
    receive(f, NULL, header.msg_size - sizeof header);
    return header;
}

static inline void say_version(struct fixture *f, const char *json)
{
    uint8_t bytes[256] = {0};

    memcpy(bytes + 4, json, strlen(json) + 1);
    send_message(f, 1, SDC_VFU_VERSION, bytes, (uint32_t)(4 + strlen(json) + 1));
    assert_int_equal(receive_reply(f).error, 0);
}
