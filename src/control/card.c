// SPDX-License-Identifier: BSD-3-Clause
#include "control/card.h"

#include "base/check.h"
#include "base/parse.h"
#include "device/virtio_blk/virtio_blk.h"
#include "transport/virtio_pci/virtio_pci.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// A virtio device in the shape that the card is to have; takes device over.
static int shape_virtio(struct sdc_card *card, struct sdc_virtio_device *device, struct sdc_loop *const *loops, unsigned loops_count,
                        struct sdc_error *err)
{
    if (card->shape == SDC_CARD_VHOST)
        return sdc_vhu_card_new(device, loops, loops_count, &card->vhost, err);
    return sdc_virtio_pci_new(device, loops, loops_count, &card->pci, err);
}

// --- virtio-blk ---

// A serial number that stays the same when the card is served again: made of the backend's name.
static void name_serial(char serial[SDC_VIRTIO_BLK_ID_BYTES + 1], const char *backend)
{
    uint64_t hash = UINT64_C(14695981039346656037); // FNV-1a

    for (; *backend; backend++)
        hash = (hash ^ (unsigned char)*backend) * UINT64_C(1099511628211);
    memcpy(serial, "SC", 2);
    for (unsigned i = 0; i < 16; i++)
        serial[2 + i] = "0123456789ABCDEF"[hash >> (60 - 4 * i) & 15];
    serial[18] = '\0';
}

static void refresh_virtio_blk(struct sdc_card *card)
{
    sdc_virtio_blk_refresh(card->device);
}

static int make_virtio_blk(struct sdc_card *card, const char *backend, const struct sdc_card_options *options,
                           struct sdc_loop *const *loops, unsigned loops_count, struct sdc_error *err)
{
    struct sdc_virtio_blk_options blk = {
        .queues = options->queues ? options->queues : 1,
        // Over vhost-user the VMM says how long its queues are: QEMU makes them up to 1024 entries long.
        .queue_size = options->queue_size ? options->queue_size : card->shape == SDC_CARD_VHOST ? 1024 : 256,
        .seg_max = options->seg_max,
        .size_max = options->size_max,
        .write_cache = options->write_cache,
    };
    struct sdc_virtio_device *device;
    struct sdc_block *block;

    if (options->serial && strlen(options->serial) > SDC_VIRTIO_BLK_ID_BYTES)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--serial=%s has %zu characters; virtio-blk takes at most %d",
                             options->serial, strlen(options->serial), SDC_VIRTIO_BLK_ID_BYTES);
    if (options->serial)
        memcpy(blk.serial, options->serial, strlen(options->serial) + 1);
    else
        name_serial(blk.serial, backend);

    int rc = sdc_block_open(backend, &options->block, &block, err);
    if (rc < 0)
        return rc;
    rc = sdc_virtio_blk_new(block, &blk, &device, err);
    if (rc < 0) {
        block->ops->close(block);
        return rc;
    }
    snprintf(card->identity, sizeof card->identity, "virtio-blk, queues %u of %u entries, serial %s%s%s%s%s", blk.queues, blk.queue_size,
             blk.serial, options->block.read_only ? ", read-only" : "", options->write_cache ? "" : ", without a write cache",
             options->packed ? "" : ", without packed rings", options->in_order ? ", in order" : "");
    device->withheld = (options->packed ? 0 : SDC_VIRTIO_F_RING_PACKED) | (options->in_order ? 0 : SDC_VIRTIO_F_IN_ORDER);
    card->device = device;
    card->refresh = refresh_virtio_blk;
    return shape_virtio(card, device, loops, loops_count, err);
}

// --- the registry ---

struct device_type {
    const char *name;
    int (*make)(struct sdc_card *card, const char *backend, const struct sdc_card_options *options,
                struct sdc_loop *const *loops, unsigned loops_count, struct sdc_error *err);
};

static const struct device_type types[] = {
    {"virtio-blk", make_virtio_blk},
};

const char *const *sdc_card_names(void)
{
    static const char *names[SDC_COUNT(types) + 1];

    for (size_t i = 0; i < SDC_COUNT(types); i++)
        names[i] = types[i].name;
    return names;
}

static int unknown(const char *device, struct sdc_error *err)
{
    const char *near = sdc_nearest(device, sdc_card_names());

    if (near)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "unknown device '%s'; did you mean '%s'?", device, near);
    return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "unknown device '%s'; there is: virtio-blk", device);
}

int sdc_card_new(const char *device, const char *backend, const struct sdc_card_options *options, enum sdc_card_shape shape,
                 struct sdc_loop *const *loops, unsigned loops_count, struct sdc_card **out, struct sdc_error *err)
{
    for (size_t i = 0; i < SDC_COUNT(types); i++) {
        if (strcmp(device, types[i].name) != 0)
            continue;
        struct sdc_card *card = calloc(1, sizeof *card);
        if (!card)
            return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a card");
        card->shape = shape;
        int rc = types[i].make(card, backend, options, loops, loops_count, err);
        if (rc < 0)
            free(card);
        else
            *out = card;
        return rc;
    }
    return unknown(device, err);
}

void sdc_card_free(struct sdc_card *card)
{
    if (card->shape == SDC_CARD_VHOST)
        sdc_vhu_card_free(card->vhost);
    else
        card->pci->ops->destroy(card->pci);
    free(card);
}
