// SPDX-License-Identifier: BSD-3-Clause
// How the virtio-pci transport notifies a card: by message, by eventfd, by a write to a mapped register.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/bytes.h"
#include "base/check.h"
#include "driver/virtio_pci.h"
#include "fake_card.h"
#include "os/fd.h"
#include "os/memfd.h"

#include <sidecard/virtio.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

// Sets queue 1 up by `way` and notifies it once; what that came to.
struct rung {
    int setup;
    char way[16];
    unsigned messages;  // that the card got for it
    uint64_t signalled; // the eventfd
    uint32_t stored;    // in the mapped page
};

static struct rung ring_with(struct card *card, enum sdc_driver_notify way, uint64_t features)
{
    struct sdc_driver_queue_place place = {.index = 1, .size = 64, .call_fd = -1};
    struct rung rung = {0};
    uint8_t status, raw[4] = {0};
    OPEN(card);
    sdc_driver_virtio_pci_notify_by(transport, way);
    assert_int_equal(ops->set_features(transport, features, &err), 0);
    rung.setup = ops->queue_setup(transport, &place, &err);
    if (rung.setup == 0) {
        snprintf(rung.way, sizeof rung.way, "%s", ops->notified_by(transport, 1));
        assert_int_equal(ops->notify(transport, 1, 0x8005, &err), 0);
        assert_int_equal(ops->get_status(transport, &status, &err), 0);
    }
    ops->close(transport);
    fake_close(&server, NULL);
    rung.messages = card->notified;
    if (card->bell_fd >= 0 && card->mappable) {
        assert_int_equal(pread(card->bell_fd, raw, 4, NOTIFY + NOTIFY_OFF * MULTIPLIER), 4);
        rung.stored = sdc_get32(raw);
    } else if (card->bell_fd >= 0) {
        rung.signalled = sdc_eventfd_take(card->bell_fd);
    }
    sdc_fd_close(&card->bell_fd);
    free_card(card);
    return rung;
}

static struct rung ring_once(struct card *card, enum sdc_driver_notify way)
{
    return ring_with(card, way, 0);
}

static struct card *card_with_bell(struct sdc_vfu_ioeventfd bell)
{
    struct card *card = new_card();
    card->bells[0] = (struct sdc_vfu_ioeventfd){.offset = NOTIFY}; // another queue's
    card->bells[1] = bell;
    card->bells_count = 2;
    card->bell_fd = sdc_eventfd_new();
    return card;
}

static void an_eventfd_is_used_where_it_stands_for_the_notification(void **state)
{
    (void)state;
    const uint64_t at = NOTIFY + NOTIFY_OFF * MULTIPLIER;
    static const uint32_t match = SDC_VFU_IOEVENTFD_DATAMATCH;
    struct {
        struct sdc_vfu_ioeventfd bell;
        bool used;
    } cases[] = {
        {{.offset = at}, true},
        {{.offset = at, .size = 2}, true},
        {{.offset = at, .size = 2, .flags = match, .datamatch = 1}, true},
        {{.offset = at, .datamatch = 7}, true}, // which does not count without the flag
        {{.offset = at, .size = 4}, false},
        {{.offset = at, .size = 1}, false},
        {{.offset = at, .flags = match, .datamatch = 0}, false},
        {{.offset = at, .flags = match, .datamatch = 0x10001}, false},
        {{.offset = at + 1}, false},
        {{.offset = at - 2, .size = 4}, false},
        {{.offset = at, .type = SDC_VFU_IO_FD_IOREGIONFD}, false},
    };
    for (unsigned i = 0; i < SDC_COUNT(cases); i++) {
        struct rung rung = ring_once(card_with_bell(cases[i].bell), SDC_DRIVER_NOTIFY_AUTO);
        assert_int_equal(rung.setup, 0);
        assert_string_equal(rung.way, cases[i].used ? "ioeventfd" : "message");
        assert_int_equal(rung.signalled, cases[i].used);
        assert_int_equal(rung.messages, !cases[i].used);
        rung = ring_once(card_with_bell(cases[i].bell), SDC_DRIVER_NOTIFY_IOEVENTFD);
        assert_int_equal(rung.setup, cases[i].used ? 0 : -ENOTSUP);
    }
    struct card *card = card_with_bell(cases[0].bell);
    struct rung rung = ring_once(card, SDC_DRIVER_NOTIFY_MESSAGE);
    assert_string_equal(rung.way, "message");
    assert_int_equal(rung.messages, 1);
    assert_int_equal(rung.signalled, 0);
}

static void an_fd_that_could_let_us_wait_is_left_alone(void **state)
{
    (void)state;
    struct sdc_vfu_ioeventfd bell = {.offset = NOTIFY + NOTIFY_OFF * MULTIPLIER};
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    int fds[] = {eventfd(0, EFD_CLOEXEC), dup(ends[1]), dup(STDERR_FILENO)};
    for (unsigned i = 0; i < SDC_COUNT(fds); i++) {
        struct card *card = card_with_bell(bell);
        sdc_fd_close(&card->bell_fd);
        card->bell_fd = fds[i];
        struct sdc_driver_queue_place place = {.index = 1, .size = 64, .call_fd = -1};
        OPEN(card);
        assert_int_equal(ops->queue_setup(transport, &place, &err), 0);
        assert_string_equal(ops->notified_by(transport, 1), "message");
        CLOSE(card);
        close(fds[i]);
    }
    close(ends[0]), close(ends[1]);
}

static void a_mapped_register_is_written(void **state)
{
    (void)state;
    for (unsigned way = SDC_DRIVER_NOTIFY_AUTO; way <= SDC_DRIVER_NOTIFY_MAPPED; way++) {
        struct card *card = new_card();
        card->mappable = true;
        card->bell_fd = sdc_memfd_new("bar", BAR_BYTES);
        struct rung rung = ring_once(card, (enum sdc_driver_notify)way);
        bool mapped = way == SDC_DRIVER_NOTIFY_AUTO || way == SDC_DRIVER_NOTIFY_MAPPED;
        assert_int_equal(rung.setup, way == SDC_DRIVER_NOTIFY_IOEVENTFD ? -ENOTSUP : 0);
        assert_int_equal(rung.stored, mapped ? 1 : 0);
        assert_int_equal(rung.messages, way == SDC_DRIVER_NOTIFY_MESSAGE);
    }
    struct rung rung = ring_once(new_card(), SDC_DRIVER_NOTIFY_MAPPED);
    assert_int_equal(rung.setup, -ENOTSUP);
    // A file that can only be read: a message does it.
    struct card *card = new_card();
    char path[40];
    int file = sdc_memfd_new("bar", BAR_BYTES);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    card->mappable = true;
    card->bell_fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(card->bell_fd >= 0);
    rung = ring_once(card, SDC_DRIVER_NOTIFY_AUTO);
    assert_string_equal(rung.way, "message");
    assert_int_equal(rung.messages, 1);
    close(file);
}

// With VIRTIO_F_NOTIFICATION_DATA the register has 4 bytes: the queue's number, and above it how far it is filled.
static void a_notification_with_data_goes_by_what_takes_four_bytes(void **state)
{
    (void)state;
    const uint64_t at = NOTIFY + NOTIFY_OFF * MULTIPLIER, data = SDC_VIRTIO_F_NOTIFICATION_DATA;
    static const struct {
        uint64_t size;
        uint32_t flags;
        const char *way;
    } cases[] = {{0, 0, "ioeventfd"},
                 {4, 0, "ioeventfd"},
                 {2, 0, "message"},
                 {0, SDC_VFU_IOEVENTFD_DATAMATCH, "message"}}; // there is no one value
    for (unsigned i = 0; i < SDC_COUNT(cases); i++) {
        struct sdc_vfu_ioeventfd bell = {
            .offset = at, .size = cases[i].size, .flags = cases[i].flags, .datamatch = 1};
        struct rung rung = ring_with(card_with_bell(bell), SDC_DRIVER_NOTIFY_AUTO, data);
        assert_int_equal(rung.setup, 0);
        assert_string_equal(rung.way, cases[i].way);
    }
    struct card *card = new_card();
    card->mappable = true;
    card->bell_fd = sdc_memfd_new("bar", BAR_BYTES);
    struct rung rung = ring_with(card, SDC_DRIVER_NOTIFY_MAPPED, data);
    assert_int_equal(rung.setup, 0);
    assert_int_equal(rung.stored, 0x80050001);
}

static void what_is_broken_about_it_is_no_reason_to_go_on(void **state)
{
    (void)state;
    struct card *card = card_with_bell((struct sdc_vfu_ioeventfd){0});
    card->broken_bells = true; // one more than there are
    assert_int_equal(ring_once(card, SDC_DRIVER_NOTIFY_AUTO).setup, -EPROTO);
    card = new_card();
    card->mappable = true;
    card->bell_fd = sdc_memfd_new("short", NOTIFY);
    struct sdc_driver_queue_place place = {.index = 1, .size = 64, .call_fd = -1};
    OPEN(card);
    assert_int_equal(ops->queue_setup(transport, &place, &err), -EPROTO);
    sdc_fd_close(&card->bell_fd);
    CLOSE(card);
}

static void addresses_go_together_where_the_server_takes_that(void **state)
{
    (void)state;
    struct card *card = new_card();
    struct sdc_driver_queue_place place = {.index = 1,
                                           .size = 64,
                                           .desc = UINT64_C(0x1122334455667788),
                                           .driver = UINT64_C(0x99aabbccddeeff00),
                                           .device = UINT64_C(0xfedcba9876543210),
                                           .call_fd = -1};
    struct fake_server server = {.message = serve_card,
                                 .context = card,
                                 .version_json = "{\"capabilities\":{\"write_multiple\":true}}"};
    struct sdc_vfio_client *client;
    struct sdc_driver_transport *transport;
    struct sdc_error err = {0};
    assert_int_equal(fake_open(&server, NULL, &client, &err), 0);
    assert_int_equal(sdc_driver_virtio_pci_open(client, &transport, &err), 0);
    assert_int_equal(transport->ops->queue_setup(transport, &place, &err), 0);
    assert_int_equal(card->multi, 6);
    assert_true(sdc_get64(card->bar + 0x20) == place.desc);
    assert_true(sdc_get64(card->bar + 0x28) == place.driver);
    assert_true(sdc_get64(card->bar + 0x30) == place.device);
    transport->ops->close(transport);
    fake_close(&server, NULL);
    free_card(card);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_eventfd_is_used_where_it_stands_for_the_notification),
        cmocka_unit_test(an_fd_that_could_let_us_wait_is_left_alone),
        cmocka_unit_test(a_mapped_register_is_written),
        cmocka_unit_test(a_notification_with_data_goes_by_what_takes_four_bytes),
        cmocka_unit_test(what_is_broken_about_it_is_no_reason_to_go_on),
        cmocka_unit_test(addresses_go_together_where_the_server_takes_that),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
