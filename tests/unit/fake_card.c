// SPDX-License-Identifier: BSD-3-Clause
#include "fake_card.h"

#include "base/bytes.h"
#include "base/check.h"
#include "driver/pci.h"
#include "os/fd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

struct card *new_card(void)
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
    card->bell_fd = -1;
    card->queues = 2;
    for (unsigned i = 0; i < 4; i++)
        card->sizes[i] = 256;
    for (unsigned i = 0; i < VECTORS; i++)
        card->fds[i] = -1;
    return card;
}

void free_card(struct card *card)
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

static void write_multi(struct fake_server *server, struct fake_message *message)
{
    struct card *card = server->context;
    struct sdc_vfu_write_multi head;
    struct sdc_vfu_write write;
    memcpy(&head, message->payload, sizeof head);
    for (uint64_t i = 0; i < head.wr_cnt; i++) {
        memcpy(&write, message->payload + sizeof head + i * sizeof write, sizeof write);
        if (write.region == BAR && sdc_within(write.offset, write.count, BAR_BYTES))
            bar_write(card, write.offset, write.data, write.count, false);
        card->multi++;
    }
    fake_reply(server, message, &head, sizeof head, NULL, 0);
}

static void reply_bells(struct fake_server *server, struct fake_message *message)
{
    struct card *card = server->context;
    struct {
        struct sdc_vfu_region_io_fds head;
        struct sdc_vfu_ioeventfd bells[4];
    } reply;
    memcpy(&reply.head, message->payload, sizeof reply.head);
    card->bells_asked++;
    size_t size = sizeof reply.head + card->bells_count * sizeof reply.bells[0];
    reply.head.argsz = (uint32_t)size;
    reply.head.count = card->bells_count + card->broken_bells;
    memcpy(reply.bells, card->bells, sizeof reply.bells);
    if (card->bells_count == 0 && !card->broken_bells)
        fake_reply_error(server, message, EINVAL);
    else
        fake_reply(server, message, &reply, size, &card->bell_fd, card->bell_fd >= 0);
}

static void reply_region(struct fake_server *server, struct fake_message *message)
{
    struct card *card = server->context;
    struct {
        struct sdc_vfu_region_info info;
        struct sdc_vfu_cap_sparse_mmap cap;
        struct sdc_vfu_mmap_area area;
    } reply = {.cap = {.header = {.id = SDC_VFU_CAP_SPARSE_MMAP, .version = 1}, .nr_areas = 1}, .area = {NOTIFY, 0x1000}};
    memcpy(&reply.info, message->payload, sizeof reply.info);
    bool mappable = card->mappable && reply.info.index == BAR, whole = reply.info.argsz >= sizeof reply;
    reply.info.size = reply.info.index == BAR ? BAR_BYTES : reply.info.index == 1 ? 4096 : 0;
    reply.info.argsz = mappable ? sizeof reply : sizeof reply.info;
    reply.info.flags = mappable ? 15 : 3;
    reply.info.cap_offset = mappable ? sizeof reply.info : 0;
    fake_reply(server, message, &reply, mappable && whole ? sizeof reply : sizeof reply.info, &card->bell_fd,
               mappable && whole);
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

bool serve_card(struct fake_server *server, struct fake_message *message)
{
    struct sdc_vfu_device_info device = {.argsz = 16, .flags = 2, .num_regions = 9, .num_irqs = 5};
    struct sdc_vfu_irq_info irq;
    switch (message->header.cmd) {
    case SDC_VFU_GET_INFO:
        fake_reply(server, message, &device, sizeof device, NULL, 0);
        break;
    case SDC_VFU_GET_REGION_INFO:
        reply_region(server, message);
        break;
    case SDC_VFU_GET_REGION_IO_FDS:
        reply_bells(server, message);
        break;
    case SDC_VFU_REGION_WRITE_MULTI:
        write_multi(server, message);
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
