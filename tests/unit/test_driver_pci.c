// SPDX-License-Identifier: BSD-3-Clause
// PCI discovery and the virtio-pci transport against a card made of two arrays: configuration space and one
// BAR.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/bytes.h"
#include "base/check.h"
#include "driver/pci.h"
#include "driver/virtio_pci.h"
#include "fake_server.h"
#include "os/fd.h"
#include "os/wait.h"

#include <sidecard/virtio.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    CAP_MSIX = 0x40,
    CAP_COMMON = 0x50,
    CAP_NOTIFY = 0x60,
    CAP_DEVICE = 0x74,
    CAP_SECOND_COMMON = 0x84,
    BAR = 4,
    BAR_BYTES = 0x4000,
    COMMON = 0x0000,
    DEVICE = 0x2000,
    NOTIFY = 0x3000,
    MULTIPLIER = 4,
    NOTIFY_OFF = 3, // of every queue
    VECTORS = 3,
};

struct card {
    uint8_t config[256];
    uint8_t mask[256]; // bits that can be written
    uint8_t bar[BAR_BYTES];
    uint64_t features;
    uint64_t accepted;
    unsigned generations; // reads of the generation that still change it
    uint16_t bad_vector;  // reads back as NO_VECTOR
    uint16_t queues;
    uint16_t sizes[4];    // of each
    bool keeps_sizes;     // whatever is written
    unsigned resetting;   // reads of the queue's reset register that still say so
    unsigned resets[4];   // of each queue
    int fds[VECTORS];     // eventfds that were set
    unsigned notified;    // writes to the notification register
    uint32_t notified_value;
    uint32_t notified_size;
    bool notified_posted;
};

// --- the card ---

static void put_capability(struct card *card, uint8_t at, uint8_t next, uint8_t type, uint32_t offset,
                           uint32_t size)
{
    uint8_t *c = card->config + at;
    c[0] = SDC_DRIVER_PCI_CAP_VENDOR;
    c[1] = next;
    c[2] = type == 2 ? 20 : 16;
    c[3] = type;
    c[4] = BAR;
    sdc_put32(c + 8, offset);
    sdc_put32(c + 12, size);
    if (type == 2)
        sdc_put32(c + 16, MULTIPLIER);
}

static struct card *new_card(void)
{
    struct card *card = calloc(1, sizeof *card);
    uint8_t *c = card->config;
    sdc_put16(c, 0x1af4);
    sdc_put16(c + 2, 0x1042);
    sdc_put16(c + 6, 0x10);       // capabilities
    sdc_put32(c + 8, 0x01800001); // class, revision
    sdc_put16(c + 0x2c, 0x1af4);
    sdc_put16(c + 0x2e, 0x1100);
    c[0x34] = CAP_MSIX;
    sdc_put32(c + 0x10, 0xfe001001); // BAR0: I/O, 32 bytes
    sdc_put32(card->mask + 0x10, 0xffffffe0);
    sdc_put32(c + 0x14, 0xfe000000); // BAR1: 32-bit, 4 KiB
    sdc_put32(card->mask + 0x14, 0xfffff000);
    sdc_put32(c + 0x20, 0x0000000c); // BAR4: 64-bit, prefetchable, 16 KiB
    sdc_put32(card->mask + 0x20, 0xffffc000);
    sdc_put32(card->mask + 0x24, 0xffffffff);
    sdc_put16(card->mask + 4, 0xffff);
    c[CAP_MSIX] = SDC_DRIVER_PCI_CAP_MSIX;
    c[CAP_MSIX + 1] = CAP_COMMON;
    sdc_put16(c + CAP_MSIX + 2, VECTORS - 1);
    sdc_put16(card->mask + CAP_MSIX + 2, 0xc000);
    put_capability(card, CAP_COMMON, CAP_NOTIFY, 1, COMMON, 0x38);
    put_capability(card, CAP_NOTIFY, CAP_DEVICE, 2, NOTIFY, 0x1000);
    put_capability(card, CAP_DEVICE, CAP_SECOND_COMMON, 4, DEVICE, 64);
    put_capability(card, CAP_SECOND_COMMON, 0, 1, 0x1000, 0x38); // the first one counts
    card->features = UINT64_C(0x1234567890abcdef);
    card->bad_vector = 0xffff;
    card->queues = 2;
    for (unsigned i = 0; i < 4; i++)
        card->sizes[i] = 256;
    for (unsigned i = 0; i < VECTORS; i++)
        card->fds[i] = -1;
    return card;
}

static void free_card(struct card *card)
{
    for (unsigned i = 0; i < VECTORS; i++)
        sdc_fd_close(&card->fds[i]);
    free(card);
}

static void bar_read(struct card *card, uint64_t offset, uint8_t *to, uint32_t size)
{
    unsigned queue = sdc_get16(card->bar + 0x16);
    if (offset == COMMON + 0x04)
        sdc_put32(card->bar + 0x04, (uint32_t)(card->features >> (32 * (sdc_get32(card->bar) & 1))));
    if (offset == COMMON + 0x12)
        sdc_put16(card->bar + 0x12, card->queues);
    if (offset == COMMON + 0x15 && card->generations > 0) {
        card->generations--;
        card->bar[0x15]++;
    }
    if (offset == COMMON + 0x18)
        sdc_put16(card->bar + 0x18, queue < card->queues ? card->sizes[queue] : 0);
    if (offset == COMMON + 0x1a && sdc_get16(card->bar + 0x1a) == card->bad_vector)
        sdc_put16(card->bar + 0x1a, 0xffff);
    if (offset == COMMON + 0x1e)
        sdc_put16(card->bar + 0x1e, NOTIFY_OFF);
    if (offset == COMMON + 0x3a)
        sdc_put16(card->bar + 0x3a, card->resetting > 0 && card->resetting-- > 0);
    memcpy(to, card->bar + offset, size);
}

static void bar_write(struct card *card, uint64_t offset, const uint8_t *from, uint32_t size, bool posted)
{
    unsigned queue = sdc_get16(card->bar + 0x16);
    memcpy(card->bar + offset, from, size);
    if (offset == COMMON + 0x18 && queue < card->queues && !card->keeps_sizes)
        card->sizes[queue] = sdc_get16(from);
    if (offset == COMMON + 0x3a && queue < card->queues && sdc_get16(from) == 1)
        card->resets[queue]++;
    if (offset == COMMON + 0x0c) {
        unsigned shift = 32 * (sdc_get32(card->bar + 8) & 1);
        card->accepted = (card->accepted & ~(UINT64_C(0xffffffff) << shift)) | (uint64_t)sdc_get32(from)
                                                                                   << shift;
    }
    if (offset == NOTIFY + NOTIFY_OFF * MULTIPLIER) {
        card->notified++;
        card->notified_size = size;
        card->notified_value = size == 4 ? sdc_get32(from) : sdc_get16(from);
        card->notified_posted = posted;
    }
}

static void access_region(struct fake_server *server, struct fake_message *message)
{
    struct card *card = server->context;
    struct sdc_vfu_region_access access;
    uint8_t reply[sizeof access + 4096];
    memcpy(&access, message->payload, sizeof access);
    memcpy(reply, &access, sizeof access);
    uint8_t *data = message->payload + sizeof access;
    uint64_t limit = access.region == 7 ? sizeof card->config : access.region == BAR ? BAR_BYTES : 0;
    bool read = message->header.cmd == SDC_VFU_REGION_READ, posted = message->header.flags & SDC_VFU_NO_REPLY;
    if (!sdc_within(access.offset, access.count, limit)) {
        if (!posted)
            fake_reply_error(server, message, EINVAL);
        return;
    }
    if (read && access.region == 7)
        memcpy(reply + sizeof access, card->config + access.offset, access.count);
    else if (read)
        bar_read(card, access.offset, reply + sizeof access, access.count);
    else if (access.region == BAR)
        bar_write(card, access.offset, data, access.count, posted);
    for (uint32_t i = 0; !read && access.region == 7 && i < access.count; i++) {
        uint8_t mask = card->mask[access.offset + i], *at = &card->config[access.offset + i];
        *at = (uint8_t)((*at & ~mask) | (data[i] & mask));
    }
    if (!posted)
        fake_reply(server, message, reply, sizeof access + (read ? access.count : 0), NULL, 0);
}

static void set_irqs(struct fake_server *server, struct fake_message *message)
{
    struct card *card = server->context;
    struct sdc_vfu_set_irqs set;
    memcpy(&set, message->payload, sizeof set);
    if (set.index != 2 || set.start + set.count > VECTORS || message->fds_count != (int)set.count) {
        fake_reply_error(server, message, EINVAL);
        return;
    }
    for (unsigned i = 0; i < set.count; i++) {
        sdc_fd_close(&card->fds[set.start + i]);
        card->fds[set.start + i] = dup(message->fds[i]);
    }
    fake_reply(server, message, NULL, 0, NULL, 0);
}

static bool serve_card(struct fake_server *server, struct fake_message *message)
{
    struct sdc_vfu_device_info device = {.argsz = 16, .flags = 2, .num_regions = 9, .num_irqs = 5};
    struct sdc_vfu_region_info region;
    struct sdc_vfu_irq_info irq;
    switch (message->header.cmd) {
    case SDC_VFU_GET_INFO:
        fake_reply(server, message, &device, sizeof device, NULL, 0);
        break;
    case SDC_VFU_GET_REGION_INFO:
        memcpy(&region, message->payload, sizeof region);
        region.size = region.index == BAR ? BAR_BYTES : region.index == 1 ? 4096 : 0;
        fake_reply(server, message, &region, sizeof region, NULL, 0);
        break;
    case SDC_VFU_GET_IRQ_INFO:
        memcpy(&irq, message->payload, sizeof irq);
        irq.count = VECTORS;
        fake_reply(server, message, &irq, sizeof irq, NULL, 0);
        break;
    case SDC_VFU_SET_IRQS:
        set_irqs(server, message);
        break;
    case SDC_VFU_REGION_READ:
    case SDC_VFU_REGION_WRITE:
        access_region(server, message);
        break;
    default:
        fake_reply(server, message, NULL, 0, NULL, 0);
    }
    return true;
}

// --- discovery ---

#define CONNECT(card)                                                     \
    struct fake_server server = {.message = serve_card, .context = card}; \
    struct sdc_vfio_client *client;                                       \
    struct sdc_error err = {0};                                           \
    assert_int_equal(fake_open(&server, NULL, &client, &err), 0)

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

#define OPEN(card)                                                             \
    CONNECT(card);                                                             \
    struct sdc_driver_transport *transport;                                    \
    assert_int_equal(sdc_driver_virtio_pci_open(client, &transport, &err), 0); \
    const struct sdc_driver_transport_ops *ops = transport->ops

#define CLOSE(card)            \
    ops->close(transport);     \
    fake_close(&server, NULL); \
    free_card(card)

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
