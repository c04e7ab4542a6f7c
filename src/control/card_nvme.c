// SPDX-License-Identifier: BSD-3-Clause
// NVMe controllers as cards: their options, and namespaces that come and go with the configuration.
#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "control/card.h"
#include "device/nvme/nvme.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { QUEUES = 8, DEPTH = 1024 }; // where nothing is said

// A namespace as it was asked for.
struct asked {
    struct sdc_block_open_options options;
    char name[]; // of its backend
};

struct nvme_card {
    struct asked *namespaces[SDC_NVME_NAMESPACES_MAX + 1]; // by NSID; NULL: there is none
};

// --- namespaces ---

static bool same(const struct asked *asked, const struct sdc_card_backend *backend)
{
    const struct sdc_block_open_options *a = &asked->options, *b = &backend->options;

    return strcmp(asked->name, backend->name) == 0 && a->read_only == b->read_only && a->direct == b->direct &&
           a->raw == b->raw && a->block_size == b->block_size;
}

typedef int add_namespace(struct sdc_pci_device *device, uint32_t nsid, struct sdc_block *block, const char *backend,
                          struct sdc_error *err);

static int add(struct sdc_card *card, add_namespace *how, uint32_t nsid, const struct sdc_card_backend *backend, struct sdc_error *err)
{
    struct nvme_card *nvme = card->device;
    size_t size = strlen(backend->name) + 1;
    struct asked *asked = calloc(1, sizeof *asked + size);
    struct sdc_block *block;

    if (!asked)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a namespace");
    asked->options = backend->options;
    memcpy(asked->name, backend->name, size);
    int rc = sdc_stack_open(backend->name, &backend->options, &block, err);
    if (rc == 0) {
        rc = how(card->pci, nsid, block, backend->name, err);
        if (rc < 0)
            block->ops->close(block);
    }
    if (rc < 0)
        free(asked);
    else
        nvme->namespaces[nsid] = asked;
    return rc;
}

// Which backend is to have which NSID: the one that was said, or its place in the list. -EINVAL: two want the same.
static int place(const struct sdc_card_options *options, const struct sdc_card_backend *places[SDC_NVME_NAMESPACES_MAX + 1],
                 struct sdc_error *err)
{
    for (unsigned i = 0; i < options->backends_count; i++) {
        const struct sdc_card_backend *backend = &options->backends[i];
        uint32_t nsid = backend->nsid ? backend->nsid : i + 1;
        if (places[nsid])
            return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "namespace %" PRIu32 " is given twice, with %s and with %s; write an "
                                 "\"nsid\" of its own for each", nsid, places[nsid]->name, backend->name);
        places[nsid] = backend;
    }
    return 0;
}

static void refresh(struct sdc_card *card)
{
    sdc_nvme_refresh(card->pci);
}

static int take_away(struct sdc_card *card, uint32_t nsid)
{
    struct asked **asked = &((struct nvme_card *)card->device)->namespaces[nsid];
    int rc = sdc_nvme_namespace_remove(card->pci, nsid);

    if (rc < 0)
        return rc;
    sdc_log(SDC_LOG_INFO, "nvme: namespace %" PRIu32 " on %s goes", nsid, (*asked)->name);
    free(*asked);
    *asked = NULL;
    return 0;
}

// What has gone, or is another one now, goes first: the same image may be behind another number.
static int reload(struct sdc_card *card, const struct sdc_card_options *options, struct sdc_error *err)
{
    const struct sdc_card_backend *places[SDC_NVME_NAMESPACES_MAX + 1] = {0};
    struct nvme_card *nvme = card->device;
    int rc = place(options, places, err);

    if (rc < 0)
        return rc;
    for (uint32_t nsid = 1; nsid <= SDC_NVME_NAMESPACES_MAX; nsid++) {
        const struct asked *asked = nvme->namespaces[nsid];
        if (!asked || (places[nsid] && same(asked, places[nsid])))
            continue;
        rc = take_away(card, nsid);
        if (rc < 0)
            return sdc_error_set(err, rc, SDC_FAULT_HOST, "namespace %" PRIu32 " cannot be taken away: %s", nsid, strerror(-rc));
    }
    for (uint32_t nsid = 1; nsid <= SDC_NVME_NAMESPACES_MAX; nsid++) {
        if (!places[nsid] || nvme->namespaces[nsid])
            continue;
        int one = add(card, sdc_nvme_namespace_add, nsid, places[nsid], rc < 0 ? NULL : err);
        if (one == 0)
            sdc_log(SDC_LOG_INFO, "nvme: namespace %" PRIu32 " on %s comes", nsid, places[nsid]->name);
        rc = rc < 0 ? rc : one; // the others come all the same
    }
    return rc;
}

// --- making one ---

#define CARD(member) SDC_OPTION_AT(struct sdc_card_options, member)

static const struct sdc_option rows[] = {
    {"queues", SDC_OPTION_NUMBER, CARD(queues), 1, SDC_NVME_QUEUES_MAX, "4", NULL},
    {"queue-size", SDC_OPTION_NUMBER, CARD(queue_size), 2, SDC_LIMIT_QUEUE_SIZE, "256", NULL},
    {"vectors", SDC_OPTION_NUMBER, CARD(vectors), 1, SDC_NVME_QUEUES_MAX + 1, "2", NULL},
    {"shadow-doorbells", SDC_OPTION_BOOL, CARD(shadow_doorbells), 0, 0, "off", NULL},
    {"write-cache", SDC_OPTION_BOOL, CARD(write_cache), 0, 0, "off", NULL},
    {"serial", SDC_OPTION_TEXT, CARD(serial), 0, SDC_NVME_SERIAL_BYTES, "DISK1", NULL},
    {"model", SDC_OPTION_TEXT, CARD(model), 0, SDC_NVME_MODEL_BYTES, "\"fast disk\"", NULL},
    {"nqn", SDC_OPTION_TEXT, CARD(nqn), 0, SDC_NVME_NQN_BYTES, "nqn.2026-11.org.example:disk1", NULL},
};

static const struct sdc_options options_of_nvme = {rows, SDC_COUNT(rows)};

// What Identify shows is ASCII (base 1.4.2).
static int check_text(const char *option, const char *text, struct sdc_error *err)
{
    for (const char *at = text; at && *at; at++) {
        if (*at < ' ' || *at > '~')
            return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--%s: only ASCII characters that can be printed may be in it", option);
    }
    return 0;
}

static int check(const struct sdc_card *card, const struct sdc_card_options *options, const struct sdc_nvme_options *nvme,
                 struct sdc_error *err)
{
    if (card->shape != SDC_CARD_PCI)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "nvme is not a virtio device, so vhost-user cannot serve it; type the socket's "
                             "path without vhost-user:");
    if (options->vectors > nvme->queues + 1)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--vectors=%u: %u queues and the admin queue can use %u; type for example "
                             "--vectors=%u", options->vectors, nvme->queues, nvme->queues + 1, nvme->queues + 1);
    if (options->nqn && strncmp(options->nqn, "nqn.", 4) != 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--nqn=%s: names of NVM subsystems begin with nqn.; type for example "
                             "--nqn=nqn.2026-11.org.example:disk1", options->nqn);
    int rc = check_text("serial", options->serial, err);
    if (rc == 0)
        rc = check_text("model", options->model, err);
    return rc ? rc : check_text("nqn", options->nqn, err);
}

static void forget(struct sdc_card *card)
{
    struct nvme_card *nvme = card->device;

    for (uint32_t nsid = 1; nsid <= SDC_NVME_NAMESPACES_MAX; nsid++)
        free(nvme->namespaces[nsid]);
    free(nvme);
}

static int make(struct sdc_card *card, const struct sdc_card_options *options, struct sdc_loop *const *loops, unsigned loops_count,
                struct sdc_error *err)
{
    const struct sdc_card_backend *places[SDC_NVME_NAMESPACES_MAX + 1] = {0};
    char filters[SDC_CARD_FILTERS_BYTES] = "";
    struct sdc_nvme_options nvme = {
        .queues = options->queues ? options->queues : QUEUES,
        .depth = options->queue_size ? options->queue_size : DEPTH,
        .shadow_doorbells = options->shadow_doorbells,
        .write_cache = options->write_cache,
        .poll = options->poll,
        .poll_max_ns = sdc_card_poll_max_ns(options),
    };
    int rc = check(card, options, &nvme, err);

    if (rc == 0)
        rc = place(options, places, err);
    if (rc < 0)
        return rc;
    nvme.vectors = options->vectors ? options->vectors : (uint16_t)(nvme.queues + 1);
    sdc_card_serial(options, nvme.serial);
    snprintf(nvme.model, sizeof nvme.model, "%s", options->model ? options->model : "");
    snprintf(nvme.nqn, sizeof nvme.nqn, "%s", options->nqn ? options->nqn : "");
    card->device = calloc(1, sizeof(struct nvme_card));
    if (!card->device)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a card");
    rc = sdc_nvme_new(&nvme, loops, loops_count, &card->pci, err);
    if (rc < 0) {
        forget(card);
        return rc;
    }
    for (uint32_t nsid = 1; rc == 0 && nsid <= SDC_NVME_NAMESPACES_MAX; nsid++) {
        if (places[nsid])
            rc = add(card, sdc_nvme_namespace_new, nsid, places[nsid], err);
    }
    if (rc < 0) {
        card->pci->ops->destroy(card->pci);
        forget(card);
        return rc;
    }
    snprintf(card->identity, sizeof card->identity, "nvme, queues %u of %u entries, vectors %u, serial %s, model %s%s%s", nvme.queues,
             nvme.depth, nvme.vectors, nvme.serial, nvme.model, nvme.shadow_doorbells ? "" : ", without shadow doorbells",
             options->backends_stay ? sdc_card_filters(&options->backends[0], filters) : filters); // namespaces of a file come and go
    card->refresh = refresh;
    card->reload = reload;
    card->forget = forget;
    return 0;
}

const struct sdc_card_type sdc_card_nvme = {
    .name = "nvme",
    .options = &options_of_nvme,
    .options_why = "it is an option of nvme; leave it out",
    .backends_max = SDC_NVME_NAMESPACES_MAX,
    .make = make,
};
