// SPDX-License-Identifier: BSD-3-Clause
// PCI discovery and the virtio-pci transport, against a card made for the test.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/bytes.h"
#include "base/check.h"
#include "driver/pci.h"
#include "driver/virtio_pci.h"
#include "fake_card.h"
#include "os/fd.h"
#include "os/wait.h"

#include <sidecard/virtio.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// --- discovery ---

static void a_function_is_found_out_and_left_as_it_was(void **state)
{
    (void)state;
    struct card *card = new_card(), *before = new_card();
    struct sdc_driver_pci pci;
    CONNECT(card);
    assert_int_equal(sdc_driver_pci_open(client, &pci, &err), 0);
    assert_int_equal(pci.vendor_id, 0x1af4);
    assert_int_equal(pci.device_id, 0x1042);
    assert_int_equal(pci.class_code, 0x018000);
    assert_int_equal(pci.subsystem_id, 0x1100);
    assert_true(pci.bars[0].io);
    assert_int_equal(pci.bars[0].size, 32);
    assert_int_equal(pci.bars[1].size, 4096);
    assert_false(pci.bars[1].is_64bit || pci.bars[1].prefetchable);
    assert_int_equal(pci.bars[2].size, 0);
    assert_int_equal(pci.bars[4].size, BAR_BYTES);
    assert_true(pci.bars[4].is_64bit && pci.bars[4].prefetchable);
    assert_int_equal(pci.bars[5].size, 0);
    assert_int_equal(pci.capabilities_count, 5);
    assert_int_equal(pci.capabilities[0].id, SDC_DRIVER_PCI_CAP_MSIX);
    assert_int_equal(pci.capabilities[4].offset, CAP_SECOND_COMMON);
    assert_int_equal(pci.msix_vectors, VECTORS);
    assert_memory_equal(card->config, before->config, sizeof card->config);
    assert_int_equal(sdc_driver_pci_enable(&pci, true, &err), 0);
    assert_int_equal(sdc_get16(card->config + 4), 0x406);
    assert_int_equal(sdc_driver_pci_enable_msix(&pci, true, &err), 0);
    assert_int_equal(sdc_get16(card->config + CAP_MSIX + 2), 0x8000 | (VECTORS - 1));
    assert_int_equal(sdc_driver_pci_enable_msix(&pci, false, &err), 0);
    assert_int_equal(sdc_get16(card->config + CAP_MSIX + 2), VECTORS - 1);
    fake_close(&server, client);
    free_card(card), free_card(before);
}

static void interrupts_that_another_client_has_left_on_are_off(void **state)
{
    (void)state;
    struct card *card = new_card();
    struct sdc_driver_pci pci;
    CONNECT(card);
    sdc_put16(card->config + CAP_MSIX + 2, 0x8000 | (VECTORS - 1));
    assert_int_equal(sdc_driver_pci_open(client, &pci, &err), 0);
    assert_int_equal(sdc_driver_pci_enable(&pci, true, &err), 0);
    assert_int_equal(sdc_get16(card->config + CAP_MSIX + 2), VECTORS - 1);
    fake_close(&server, client);
    free_card(card);
}

static void open_fails(struct card *card, int code, const char *text)
{
    struct sdc_driver_transport *transport;
    CONNECT(card);
    assert_int_equal(sdc_driver_virtio_pci_open(client, &transport, &err), code);
    if (!strstr(err.text, text))
        fail_msg("'%s' is not in '%s'", text, err.text);
    fake_close(&server, NULL);
    free_card(card);
}

static void what_is_no_virtio_device_is_refused(void **state)
{
    (void)state;
    struct card *card = new_card();
    sdc_put16(card->config, 0xffff);
    open_fails(card, -ENODEV, "absent");
    card = new_card();
    sdc_put16(card->config, 0x8086);
    open_fails(card, -ENODEV, "8086:1042");
    card = new_card();
    sdc_put16(card->config + 2, 0x1001);
    open_fails(card, -ENODEV, "1af4:1001");
    card = new_card();
    card->config[0x0e] = 1;
    open_fails(card, -ENODEV, "header type 1");
    card = new_card();
    sdc_put16(card->config + 6, 0);
    open_fails(card, -ENODEV, "no common configuration structure");
    card = new_card();
    card->config[CAP_NOTIFY] = 0x09, card->config[CAP_NOTIFY + 3] = 5;
    open_fails(card, -ENODEV, "no notification structure");
}

static void broken_lists_of_capabilities_end(void **state)
{
    (void)state;
    struct card *card = new_card();
    card->config[CAP_SECOND_COMMON + 1] = CAP_MSIX;
    open_fails(card, -EPROTO, "has no end");
    card = new_card();
    card->config[CAP_SECOND_COMMON + 1] = 0x10;
    open_fails(card, -EPROTO, "into the header");
    card = new_card();
    card->config[0x34] = 0xfc; // too close to the end to be a whole one
    card->config[0xfc] = SDC_DRIVER_PCI_CAP_VENDOR;
    open_fails(card, -ENODEV, "no common configuration structure");
}

static void structures_outside_their_bar_are_passed_over(void **state)
{
    (void)state;
    static const uint32_t places[][2] = {{BAR_BYTES, 0x38},
                                         {BAR_BYTES - 0x37, 0x38},
                                         {UINT32_MAX, UINT32_MAX},
                                         {0, UINT32_MAX}};
    for (unsigned i = 0; i < SDC_COUNT(places); i++) {
        struct card *card = new_card();
        card->config[CAP_DEVICE + 1] = 0; // no second one
        sdc_put32(card->config + CAP_COMMON + 8, places[i][0]);
        sdc_put32(card->config + CAP_COMMON + 12, places[i][1]);
        open_fails(card, -ENODEV, "no common configuration structure");
    }
    struct card *card = new_card();
    card->config[CAP_DEVICE + 1] = 0;
    card->config[CAP_COMMON + 4] = 6; // no such BAR
    open_fails(card, -ENODEV, "no common configuration structure");
    card = new_card();
    card->config[CAP_DEVICE + 1] = 0;
    sdc_put32(card->config + CAP_COMMON + 12, 0x37); // too short
    open_fails(card, -ENODEV, "structure");
}

// --- the transport ---

static void features_and_status_get_across(void **state)
{
    (void)state;
    struct card *card = new_card();
    uint64_t features;
    uint8_t status;
    uint16_t count, size;
    OPEN(card);
    assert_int_equal(ops->device_id(transport), 2);
    assert_int_equal(ops->get_features(transport, &features, &err), 0);
    assert_true(features == UINT64_C(0x1234567890abcdef));
    assert_int_equal(ops->set_features(transport, UINT64_C(0xfedcba9876543210), &err), 0);
    assert_true(card->accepted == UINT64_C(0xfedcba9876543210));
    assert_int_equal(ops->set_status(transport, 0x4b, &err), 0);
    assert_int_equal(ops->get_status(transport, &status, &err), 0);
    assert_int_equal(status, 0x4b);
    assert_int_equal(ops->queues_count(transport, &count, &err), 0);
    assert_int_equal(count, 2);
    assert_int_equal(ops->queue_size(transport, 1, &size, &err), 0);
    assert_int_equal(size, 256);
    assert_int_equal(ops->queue_size(transport, 2, &size, &err), 0);
    assert_int_equal(size, 0);
    CLOSE(card);
}

static void configuration_is_read_in_one_generation(void **state)
{
    (void)state;
    struct card *card = new_card();
    uint8_t data[61], wanted[61];
    OPEN(card);
    for (unsigned i = 0; i < 64; i++)
        card->bar[DEVICE + i] = (uint8_t)(i * 3 + 1);
    for (uint32_t offset = 0; offset < 4; offset++) {
        memcpy(wanted, card->bar + DEVICE + offset, 60);
        card->generations = 5;
        assert_int_equal(ops->get_config(transport, offset, data, 60, &err), 0);
        assert_memory_equal(data, wanted, 60);
        assert_int_equal(card->generations, 0);
    }
    assert_int_equal(ops->set_config(transport, 33, "abcdefg", 7, &err), 0);
    assert_memory_equal(card->bar + DEVICE + 33, "abcdefg", 7);
    assert_int_equal(ops->get_config(transport, 60, data, 5, &err), -ERANGE);
    assert_int_equal(ops->get_config(transport, UINT32_MAX, data, 5, &err), -ERANGE);
    card->generations = 100000;
    assert_int_equal(ops->get_config(transport, 0, data, 4, &err), -EAGAIN);
    CLOSE(card);
}

static void a_queue_is_set_up_and_notified(void **state)
{
    (void)state;
    struct card *card = new_card();
    int call = sdc_eventfd_new(), config = sdc_eventfd_new();
    struct sdc_driver_queue_place place = {.index = 1,
                                           .size = 64,
                                           .desc = UINT64_C(0x1122334455667788),
                                           .driver = UINT64_C(0x99aabbccddeeff00),
                                           .device = 0x1000,
                                           .call_fd = call};
    OPEN(card);
    assert_int_equal(ops->set_config_call(transport, config, &err), 0);
    assert_int_equal(ops->queue_setup(transport, &place, &err), 0);
    assert_int_equal(sdc_get16(card->bar + 0x16), 1);
    assert_int_equal(sdc_get16(card->bar + 0x18), 64);
    assert_true(sdc_get64(card->bar + 0x20) == place.desc);
    assert_true(sdc_get64(card->bar + 0x28) == place.driver);
    assert_true(sdc_get64(card->bar + 0x30) == place.device);
    assert_int_equal(sdc_get16(card->bar + 0x1c), 1);
    assert_int_equal(sdc_get16(card->bar + 0x10), 0); // the configuration's vector
    assert_int_equal(sdc_get16(card->bar + 0x1a), 2); // queue 1's
    assert_true(sdc_get16(card->config + CAP_MSIX + 2) & 0x8000);
    sdc_eventfd_signal(card->fds[2]);
    assert_int_equal(sdc_eventfd_take(call), 1);
    sdc_eventfd_signal(card->fds[0]);
    assert_int_equal(sdc_eventfd_take(config), 1);
    assert_int_equal(ops->notify(transport, 1, 0xabcd, &err), 0);
    uint8_t status;
    assert_int_equal(ops->get_status(transport, &status, &err),
                     0); // a reply: the posted write before it has arrived
    assert_int_equal(card->notified, 1);
    assert_int_equal(card->notified_size, 2);
    assert_int_equal(card->notified_value, 1);
    assert_true(card->notified_posted);
    close(call), close(config);
    CLOSE(card);
}

// 4.1.5.2
static void a_notification_has_data_if_that_was_negotiated(void **state)
{
    (void)state;
    struct card *card = new_card();
    struct sdc_driver_queue_place place = {.index = 1, .size = 64, .call_fd = -1};
    uint8_t status;
    OPEN(card);
    for (unsigned round = 0; round < 2; round++) {
        assert_int_equal(ops->set_features(transport, round == 0 ? SDC_VIRTIO_F_NOTIFICATION_DATA : 0, &err), 0);
        assert_int_equal(ops->queue_setup(transport, &place, &err), 0);
        assert_int_equal(ops->notify(transport, 1, 0xabcd, &err), 0);
        assert_int_equal(ops->get_status(transport, &status, &err), 0); // a reply: the write has arrived
        assert_int_equal(card->notified_size, round == 0 ? 4 : 2);
        assert_true(card->notified_value == (round == 0 ? 0xabcd0001 : 1));
    }
    CLOSE(card);
}

static void vectors_that_the_card_does_not_take_are_noticed(void **state)
{
    (void)state;
    struct card *card = new_card();
    int call = sdc_eventfd_new();
    struct sdc_driver_queue_place place = {.index = 1, .size = 64, .call_fd = call};
    OPEN(card);
    card->queues = 3;
    card->bad_vector = 2;
    assert_int_equal(ops->queue_setup(transport, &place, &err), -EBUSY);
    place.index = 2;
    assert_int_equal(ops->queue_setup(transport, &place, &err), -ENOTSUP);
    assert_non_null(strstr(err.text, "3 MSI-X vectors"));
    place.call_fd = -1; // polled
    assert_int_equal(ops->queue_setup(transport, &place, &err), 0);
    assert_int_equal(sdc_get16(card->bar + 0x1a), 0xffff);
    close(call);
    CLOSE(card);
}

static void a_size_that_the_card_does_not_take_is_noticed(void **state)
{
    (void)state;
    struct card *card = new_card();
    struct sdc_driver_queue_place place = {.index = 1, .size = 100, .call_fd = -1};
    OPEN(card);
    assert_int_equal(ops->queue_setup(transport, &place, &err), 0);
    assert_int_equal(card->sizes[1], 100);
    card->keeps_sizes = true;
    place.size = 3;
    sdc_put16(card->bar + 0x1c, 0);
    assert_int_equal(ops->queue_setup(transport, &place, &err), -ENOTSUP);
    assert_non_null(strstr(err.text, "did not take 3 entries but keeps 100"));
    assert_int_equal(sdc_get16(card->bar + 0x1c), 0); // it is not enabled
    CLOSE(card);
}

static void one_queue_is_reset(void **state)
{
    (void)state;
    struct card *card = new_card();
    bool resetting;
    sdc_put32(card->config + CAP_COMMON + 12, 0x3c);
    OPEN(card);
    assert_int_equal(ops->queue_reset(transport, 1, &err), 0);
    assert_int_equal(sdc_get16(card->bar + 0x3a), 1);
    assert_int_equal(card->resets[0], 0);
    assert_int_equal(card->resets[1], 1);
    card->resetting = 2;
    for (unsigned i = 0; i < 3; i++) {
        sdc_put16(card->bar + 0x16, 0); // somebody has selected another one
        assert_int_equal(ops->queue_resetting(transport, 1, &resetting, &err), 0);
        assert_int_equal(resetting, i < 2);
        assert_int_equal(sdc_get16(card->bar + 0x16), 1);
    }
    CLOSE(card);
}

static void a_card_without_the_reset_register_says_so(void **state)
{
    (void)state;
    struct card *card = new_card();
    bool resetting;
    sdc_put32(card->config + CAP_COMMON + 12, 0x3b);
    OPEN(card);
    assert_int_equal(ops->queue_reset(transport, 0, &err), -ENOTSUP);
    assert_non_null(strstr(err.text, "59 bytes"));
    assert_int_equal(ops->queue_resetting(transport, 0, &resetting, &err), -ENOTSUP);
    CLOSE(card);
}

static void a_notification_outside_its_structure_is_refused(void **state)
{
    (void)state;
    struct card *card = new_card();
    struct sdc_driver_queue_place place = {.index = 0, .size = 64, .call_fd = -1};
    sdc_put32(card->config + CAP_NOTIFY + 16, 0x10000000);
    OPEN(card);
    assert_int_equal(ops->queue_setup(transport, &place, &err), -EPROTO);
    CLOSE(card);
}

static void a_notification_with_data_takes_four_bytes(void **state)
{
    (void)state;
    struct card *card = new_card();
    struct sdc_driver_queue_place place = {.index = 0, .size = 64, .call_fd = -1};
    sdc_put32(card->config + CAP_NOTIFY + 12, NOTIFY_OFF * MULTIPLIER + 2);
    OPEN(card);
    assert_int_equal(ops->queue_setup(transport, &place, &err), 0);
    assert_int_equal(ops->set_features(transport, SDC_VIRTIO_F_NOTIFICATION_DATA, &err), 0);
    assert_int_equal(ops->queue_setup(transport, &place, &err), -EPROTO);
    CLOSE(card);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_function_is_found_out_and_left_as_it_was),
        cmocka_unit_test(interrupts_that_another_client_has_left_on_are_off),
        cmocka_unit_test(what_is_no_virtio_device_is_refused),
        cmocka_unit_test(broken_lists_of_capabilities_end),
        cmocka_unit_test(structures_outside_their_bar_are_passed_over),
        cmocka_unit_test(features_and_status_get_across),
        cmocka_unit_test(configuration_is_read_in_one_generation),
        cmocka_unit_test(a_queue_is_set_up_and_notified),
        cmocka_unit_test(a_notification_has_data_if_that_was_negotiated),
        cmocka_unit_test(vectors_that_the_card_does_not_take_are_noticed),
        cmocka_unit_test(a_size_that_the_card_does_not_take_is_noticed),
        cmocka_unit_test(one_queue_is_reset),
        cmocka_unit_test(a_card_without_the_reset_register_says_so),
        cmocka_unit_test(a_notification_outside_its_structure_is_refused),
        cmocka_unit_test(a_notification_with_data_takes_four_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
