// SPDX-License-Identifier: BSD-3-Clause
#include "control/card.h"

#include "base/check.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/parse.h"
#include "device/virtio_blk/virtio_blk.h"
#include "transport/common/pci_core.h"
#include "transport/common/virtio_core.h"
#include "transport/virtio_pci/virtio_pci.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t sdc_card_poll_max_ns(const struct sdc_card_options *options)
{
    return (options->poll_max_us > 0 ? options->poll_max_us : SDC_LIMIT_POLL_US) * UINT64_C(1000);
}

// A virtio device in the shape that the card is to have; takes device over.
static int shape_virtio(struct sdc_card *card, struct sdc_virtio_device *device, const struct sdc_card_options *options,
                        struct sdc_loop *const *loops, unsigned loops_count, struct sdc_error *err)
{
    int rc = card->shape == SDC_CARD_VHOST ? sdc_vhu_card_new(device, loops, loops_count, &card->vhost, err)
                                           : sdc_virtio_pci_new(device, loops, loops_count, &card->pci, err);

    if (rc < 0)
        return rc;
    sdc_virtio_core_poll(device->core, options->poll, sdc_card_poll_max_ns(options));
    if (options->poll != SDC_POLL_ALWAYS || card->shape != SDC_CARD_PCI)
        return 0;
    rc = sdc_virtio_pci_map_notifications(card->pci, err);
    if (rc < 0)
        card->pci->ops->destroy(card->pci);
    return rc;
}

#define CARD(member) SDC_OPTION_AT(struct sdc_card_options, member)

// --- serial numbers ---

_Static_assert((int)SDC_CARD_SERIAL_BYTES == SDC_VIRTIO_BLK_ID_BYTES, "every device's");

// A serial number that stays the same when the card is served again: made of the backend's name.
static void name_serial(char serial[SDC_CARD_SERIAL_BYTES + 1], const char *backend)
{
    uint64_t hash = sdc_hash_text(SDC_HASH_BASIS, backend);

    memcpy(serial, "SC", 2);
    for (unsigned i = 0; i < 16; i++)
        serial[2 + i] = "0123456789ABCDEF"[hash >> (60 - 4 * i) & 15];
    serial[18] = '\0';
}

void sdc_card_serial(const struct sdc_card_options *options, char serial[SDC_CARD_SERIAL_BYTES + 1])
{
    if (options->serial)
        snprintf(serial, SDC_CARD_SERIAL_BYTES + 1, "%s", options->serial);
    else
        name_serial(serial, options->backends[0].name);
}

// --- filters ---

const char *sdc_card_filters(const struct sdc_card_backend *backend, char text[SDC_CARD_FILTERS_BYTES])
{
    size_t length = (size_t)(sdc_stack_base(backend->name) - backend->name);
    uint64_t hash = SDC_HASH_BASIS;

    text[0] = '\0';
    if (length == 0)
        return text;
    if (snprintf(text, SDC_CARD_FILTERS_BYTES, ", behind %.*s", (int)length, backend->name) < SDC_CARD_FILTERS_BYTES)
        return text;
    for (size_t i = 0; i < length; i++)
        hash = sdc_hash_text(hash, (const char[]){backend->name[i], '\0'});
    snprintf(text, SDC_CARD_FILTERS_BYTES, ", behind %.40s... (%016" PRIx64 ")", backend->name, hash);
    return text;
}

// --- virtio-blk ---

static void refresh_virtio_blk(struct sdc_card *card)
{
    sdc_virtio_blk_refresh(card->device);
}

static const struct sdc_option virtio_blk_rows[] = {
    {"queues", SDC_OPTION_NUMBER, CARD(queues), 1, SDC_LIMIT_QUEUES, "4", NULL},
    {"queue-size", SDC_OPTION_POWER_OF_TWO, CARD(queue_size), 1, SDC_LIMIT_QUEUE_SIZE, "256", NULL},
    {"write-cache", SDC_OPTION_BOOL, CARD(write_cache), 0, 0, "off", NULL},
    {"packed", SDC_OPTION_BOOL, CARD(packed), 0, 0, "off", NULL},
    {"in-order", SDC_OPTION_BOOL, CARD(in_order), 0, 0, "on", NULL},
    {"serial", SDC_OPTION_TEXT, CARD(serial), 0, SDC_VIRTIO_BLK_ID_BYTES, "DISK1", NULL},
    {"seg-max", SDC_OPTION_NUMBER, CARD(seg_max), 1, SDC_LIMIT_QUEUE_SIZE, "126", NULL},
    {"size-max", SDC_OPTION_SIZE, CARD(size_max), 512, UINT32_MAX, "64k", NULL},
};

static const struct sdc_options virtio_blk_options = {virtio_blk_rows, SDC_COUNT(virtio_blk_rows)};

static int make_virtio_blk(struct sdc_card *card, const struct sdc_card_options *options, struct sdc_loop *const *loops,
                           unsigned loops_count, struct sdc_error *err)
{
    const struct sdc_card_backend *backend = &options->backends[0];
    struct sdc_virtio_blk_options blk = {
        .queues = options->queues ? options->queues : 1,
        // Over vhost-user the VMM says how long its queues are: QEMU makes them up to 1024 entries long.
        .queue_size = options->queue_size ? options->queue_size : card->shape == SDC_CARD_VHOST ? 1024 : 256,
        .seg_max = options->seg_max,
        .size_max = options->size_max,
        .write_cache = options->write_cache,
    };
    char filters[SDC_CARD_FILTERS_BYTES];
    struct sdc_virtio_device *device;
    struct sdc_block *block;

    sdc_card_serial(options, blk.serial);
    int rc = sdc_stack_open(backend->name, &backend->options, &block, err);
    if (rc < 0)
        return rc;
    rc = sdc_virtio_blk_new(block, &blk, &device, err);
    if (rc < 0) {
        block->ops->close(block);
        return rc;
    }
    snprintf(card->identity, sizeof card->identity, "virtio-blk, queues %u of %u entries, serial %s%s%s%s%s%s%s", blk.queues,
             blk.queue_size, blk.serial, backend->options.read_only ? ", read-only" : "",
             options->write_cache ? "" : ", without a write cache", options->packed ? "" : ", without packed rings",
             options->in_order ? ", in order" : "",
             options->poll == SDC_POLL_ALWAYS ? ", polled always" : "", // which the driver relies on when it has mapped its registers
             sdc_card_filters(backend, filters));
    device->withheld = (options->packed ? 0 : SDC_VIRTIO_F_RING_PACKED) | (options->in_order ? 0 : SDC_VIRTIO_F_IN_ORDER);
    card->device = device;
    card->refresh = refresh_virtio_blk;
    return shape_virtio(card, device, options, loops, loops_count, err);
}

// --- the registry ---

static const struct sdc_card_type virtio_blk = {
    .name = "virtio-blk",
    .options = &virtio_blk_options,
    .options_why = "it is an option of virtio-blk; leave it out",
    .backends_max = 1,
    .make = make_virtio_blk,
};

static const struct sdc_card_type *const types[] = {&sdc_card_nvme, &virtio_blk};

const char *const *sdc_card_names(void)
{
    static const char *names[SDC_COUNT(types) + 1];

    for (size_t i = 0; i < SDC_COUNT(types); i++)
        names[i] = types[i]->name;
    return names;
}

static int unknown(const char *device, struct sdc_error *err)
{
    const char *const *names = sdc_card_names();
    const char *near = sdc_nearest(device, names);
    char all[128];

    if (near)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "unknown device '%s'; did you mean '%s'?", device, near);
    return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "unknown device '%s'; type one of %s", device,
                         sdc_list_names(names, SDC_COUNT(types), ", ", all, sizeof all));
}

const struct sdc_card_type *sdc_card_type(const char *device)
{
    for (size_t i = 0; i < SDC_COUNT(types); i++) {
        if (strcmp(device, types[i]->name) == 0)
            return types[i];
    }
    return NULL;
}

int sdc_card_new(const char *device, const struct sdc_card_options *options, enum sdc_card_shape shape, struct sdc_loop *const *loops,
                 unsigned loops_count, struct sdc_card **out, struct sdc_error *err)
{
    const struct sdc_card_type *type = sdc_card_type(device);

    if (!type)
        return unknown(device, err);
    if (options->backends_count > type->backends_max)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "%s: %u backends, the limit is %u", device, options->backends_count,
                             type->backends_max);
    if (options->poll_max_us > 0 && options->poll != SDC_POLL_ADAPTIVE)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--poll-max-us=%u: only queues that poll adaptively have a window; leave it "
                             "out, or type --poll=adaptive", options->poll_max_us);
    struct sdc_card *card = calloc(1, sizeof *card);
    if (!card)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a card");
    card->type = type;
    card->shape = shape;
    int rc = type->make(card, options, loops, loops_count, err);
    if (rc < 0)
        free(card);
    else
        *out = card;
    return rc;
}

// --- devices that somebody else has made ---

static void refresh_nothing(struct sdc_card *card)
{
    (void)card;
}

static const struct sdc_card_type authors_pci = {.name = "pci"}, authors_virtio = {.name = "virtio"};

static struct sdc_card *new_authors_card(const struct sdc_card_type *type, enum sdc_card_shape shape)
{
    struct sdc_card *card = calloc(1, sizeof *card);

    if (card)
        *card = (struct sdc_card){.type = type, .shape = shape, .refresh = refresh_nothing};
    return card;
}

int sdc_card_of_pci(struct sdc_pci_device *device, enum sdc_card_shape shape, struct sdc_loop *home, struct sdc_card **out,
                    struct sdc_error *err)
{
    struct sdc_card *card = new_authors_card(&authors_pci, shape);
    int rc = card ? 0 : sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a card");

    if (rc == 0 && shape != SDC_CARD_PCI)
        rc = sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "vhost-user serves virtio devices, and this is another PCI device; use "
                           "vfio-user:PATH");
    if (rc == 0)
        rc = sdc_pci_plug(device, home, err);
    if (rc < 0) {
        free(card);
        if (device->ops && device->ops->destroy)
            device->ops->destroy(device);
        return rc;
    }
    card->pci = device;
    *out = card;
    return 0;
}

static int check_virtio(const struct sdc_virtio_device *device, struct sdc_error *err)
{
    const struct sdc_virtio_ops *ops = device->ops;

    if (!ops || !ops->name || !ops->queue_work || (device->config_size > 0 && !ops->config_read))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "a virtio device needs ops with a name, queue_work, and config_read if it has a "
                             "config_size; one of them is NULL");
    if (device->queues_count < 1 || device->queues_count > SDC_LIMIT_QUEUES)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "virtio device %s: %u queues; there are 1 to %u", ops->name,
                             device->queues_count, SDC_LIMIT_QUEUES);
    if (!sdc_is_power_of_two(device->queue_size_max) || device->queue_size_max > SDC_LIMIT_QUEUE_SIZE)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "virtio device %s: queue_size_max is %u; it has to be a power of two up to %u",
                             ops->name, device->queue_size_max, SDC_LIMIT_QUEUE_SIZE);
    return 0;
}

int sdc_card_of_virtio(struct sdc_virtio_device *device, const struct sdc_card_options *options, enum sdc_card_shape shape,
                       struct sdc_loop *const *loops, unsigned loops_count, struct sdc_card **out, struct sdc_error *err)
{
    struct sdc_card *card = new_authors_card(&authors_virtio, shape);
    int rc = card ? check_virtio(device, err) : sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a card");

    if (rc < 0) {
        sdc_virtio_destroy(device);
    } else {
        card->device = device;
        rc = shape_virtio(card, device, options, loops, loops_count, err);
    }
    if (rc < 0)
        free(card);
    else
        *out = card;
    return rc;
}

void sdc_card_free(struct sdc_card *card)
{
    if (card->shape == SDC_CARD_VHOST)
        sdc_vhu_card_free(card->vhost);
    else
        card->pci->ops->destroy(card->pci);
    if (card->forget)
        card->forget(card);
    free(card);
}
