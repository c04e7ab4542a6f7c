// SPDX-License-Identifier: BSD-3-Clause
// What of a controller is in a state record. Registers, configuration space and the MSI-X table are copied when a message was handled. What
// changes at other times is live: whether the controller runs, what the driver set by admin commands, doorbells, and the logs of
// its queues (log.c). Events that nobody has asked for yet, the error log and SMART's counters are not there.
#include "base/check.h"
#include "device/nvme/controller.h"
#include "transport/common/mapped_page.h"
#include "transport/common/msix.h"
#include "transport/common/pci_config.h"

#include <errno.h>
#include <stdlib.h>

enum {
    // Registers.
    AT_CONFIG = 0,
    AT_CC = SDC_PCI_CONFIG_KEPT,
    AT_CSTS = AT_CC + 4,
    AT_INTMS = AT_CC + 8,
    AT_AQA = AT_CC + 12,
    AT_ASQ = AT_CC + 16,
    AT_ACQ = AT_CC + 24,
    AT_NSSR = AT_CC + 32,
    AT_TABLE = AT_CC + 40,
    // Live.
    LIVE_LIFE = 0,     // enum live_life
    LIVE_SHADOW = 8,   // 1: the driver's buffers for doorbells are
    LIVE_DOORBELLS = 16,
    LIVE_EVENTS = 24,
    LIVE_FEATURES_NOW = 32, // which of the two copies counts
    LIVE_FEATURES = 64,
    LIVE_WORDS = 4096, // doorbells
    LIVE_LOGS = LIVE_WORDS + SDC_MAPPED_PAGE,
    // Features.
    FEATURE_ARBITRATION = 0,
    FEATURE_COALESCING = 4,
    FEATURE_WRITE_CACHE = 8,
    FEATURE_HOT = 12,
    FEATURE_COLD = 16,
    FEATURE_ATOMICITY = 20,
    FEATURE_EVENTS = 24,
    FEATURE_KEEP_ALIVE = 28,
    FEATURE_HOST_BEHAVIOR = 32,
    FEATURE_TIMESTAMP_SET = 36,
    FEATURE_TIMESTAMP = 40,
    FEATURE_EAGER = 48,
    FEATURE_EAGER_WORDS = (SDC_NVME_QUEUES_MAX + 1 + 63) / 64,
    FEATURE_RECOVERY = FEATURE_EAGER + 8 * FEATURE_EAGER_WORDS,
    FEATURE_BYTES = FEATURE_RECOVERY + 4 * NVME_NAMESPACES_MAX,
};
_Static_assert(LIVE_FEATURES + 2 * FEATURE_BYTES <= LIVE_WORDS, "features end before doorbells");
_Static_assert(LIVE_FEATURES % 8 == 0 && FEATURE_BYTES % 8 == 0, "numbers are aligned");

enum live_life { LIFE_OFF, LIFE_ON, LIFE_SHUT_DOWN, LIFE_FAILED };

static uint64_t log_bytes(const struct nvme *nvme, unsigned id)
{
    return sdc_nvme_log_bytes(id == 0 ? NVME_ADMIN_DEPTH_MAX : nvme->options.depth);
}

void nvme_state_needs(struct sdc_pci_device *device, struct sdc_pci_state_needs *needs)
{
    const struct nvme *nvme = nvme_of(device);

    *needs = (struct sdc_pci_state_needs){
        .registers = AT_TABLE + (uint32_t)nvme->options.vectors * SDC_MSIX_ENTRY,
        .live = LIVE_LOGS + log_bytes(nvme, 0) + nvme->options.queues * log_bytes(nvme, 1),
    };
}

void nvme_state_keep(struct sdc_pci_device *device, void *memory, bool goes_on)
{
    struct nvme *nvme = nvme_of(device);
    uint8_t *at = (uint8_t *)memory + LIVE_LOGS;

    nvme_adopt_doorbells(nvme, (_Atomic uint32_t *)(void *)((uint8_t *)memory + LIVE_WORDS));
    nvme->live = memory;
    for (unsigned id = 0; id <= nvme->options.queues; id++) {
        nvme->cqs[id].log = nvme->sqs[id].log = at;
        at += log_bytes(nvme, id);
    }
    if (!goes_on)
        sdc_nvme_log_store(nvme->live + LIVE_LIFE, LIFE_OFF);
}

// --- as the controller runs ---

static void set_life(struct nvme *nvme, enum live_life life)
{
    if (nvme->live)
        sdc_nvme_log_store(nvme->live + LIVE_LIFE, life);
}

void nvme_live_starts(struct nvme *nvme)
{
    static const unsigned words[] = {SDC_NVME_LOG_SQ, SDC_NVME_LOG_SQ_END, SDC_NVME_LOG_CQ, SDC_NVME_LOG_CQ_END};

    if (!nvme->live)
        return;
    set_life(nvme, LIFE_OFF); // what was before does not count
    for (unsigned id = 0; id <= nvme->options.queues; id++) {
        for (size_t i = 0; i < SDC_COUNT(words); i++)
            sdc_nvme_log_store(nvme->sqs[id].log + words[i], 0);
    }
    nvme_live_shadow(nvme);
    nvme_live_features(nvme);
}

void nvme_live_runs(struct nvme *nvme)
{
    set_life(nvme, LIFE_ON);
}

void nvme_live_failed(struct nvme *nvme)
{
    set_life(nvme, LIFE_FAILED);
}

void nvme_live_ended(struct nvme *nvme, bool shut_down)
{
    set_life(nvme, shut_down ? LIFE_SHUT_DOWN : LIFE_OFF);
}

void nvme_live_shadow(struct nvme *nvme)
{
    if (!nvme->live)
        return;
    sdc_nvme_log_store(nvme->live + LIVE_SHADOW, 0);
    sdc_nvme_log_store(nvme->live + LIVE_DOORBELLS, nvme->shadow.doorbells);
    sdc_nvme_log_store(nvme->live + LIVE_EVENTS, nvme->shadow.events);
    sdc_nvme_log_store(nvme->live + LIVE_SHADOW, nvme->shadow.given);
}

// The time that the driver set has gone on since.
static uint64_t timestamp_now(struct nvme *nvme)
{
    const struct nvme_features *features = &nvme->admin.features;

    return features->timestamp_ms + (sdc_loop_now(nvme->home) - features->timestamp_ns) / 1000000;
}

void nvme_live_features(struct nvme *nvme)
{
    const struct nvme_features *features = &nvme->admin.features;

    if (!nvme->live)
        return;
    uint64_t next = !(sdc_nvme_log_load(nvme->live + LIVE_FEATURES_NOW) & 1);
    uint8_t *to = nvme->live + LIVE_FEATURES + next * FEATURE_BYTES;
    sdc_put32(to + FEATURE_ARBITRATION, features->arbitration);
    sdc_put32(to + FEATURE_COALESCING, features->coalescing);
    sdc_put32(to + FEATURE_WRITE_CACHE, features->write_cache);
    sdc_put32(to + FEATURE_HOT, features->hot);
    sdc_put32(to + FEATURE_COLD, features->cold);
    sdc_put32(to + FEATURE_ATOMICITY, features->atomicity);
    sdc_put32(to + FEATURE_EVENTS, features->events);
    sdc_put32(to + FEATURE_KEEP_ALIVE, features->keep_alive_ms);
    sdc_put32(to + FEATURE_HOST_BEHAVIOR, features->host_behavior);
    sdc_put32(to + FEATURE_TIMESTAMP_SET, features->timestamp_set);
    sdc_put64(to + FEATURE_TIMESTAMP, timestamp_now(nvme));
    for (size_t i = 0; i < FEATURE_EAGER_WORDS; i++)
        sdc_put64(to + FEATURE_EAGER + 8 * i, features->eager[i]);
    for (uint32_t nsid = 1; nsid <= NVME_NAMESPACES_MAX; nsid++) {
        const struct nvme_namespace *ns = nvme_namespace_find(&nvme->namespaces, nsid);
        sdc_put32(to + FEATURE_RECOVERY + 4 * (size_t)(nsid - 1), ns ? ns->error_recovery : 0);
    }
    sdc_nvme_log_store(nvme->live + LIVE_FEATURES_NOW, next);
}

// --- save ---

void nvme_state_save(struct sdc_pci_device *device, void *registers)
{
    struct nvme *nvme = nvme_of(device);
    uint8_t *to = registers;
    // A reset that is under way will have ended.
    bool reset = nvme->resetting;

    memset(to, 0, AT_TABLE);
    memcpy(to + AT_CONFIG, device->config, SDC_PCI_CONFIG_KEPT);
    memcpy(to + AT_TABLE, nvme->msix_table, nvme->options.vectors * (size_t)SDC_MSIX_ENTRY);
    if (reset)
        return;
    sdc_put32(to + AT_CC, nvme->cc);
    sdc_put32(to + AT_CSTS, nvme->csts);
    sdc_put32(to + AT_INTMS, nvme->intms);
    sdc_put32(to + AT_AQA, nvme->aqa);
    sdc_put64(to + AT_ASQ, nvme->asq);
    sdc_put64(to + AT_ACQ, nvme->acq);
    sdc_put32(to + AT_NSSR, nvme->nssr);
}

// --- load ---

static void load_features(struct nvme *nvme)
{
    struct nvme_features *features = &nvme->admin.features;
    const uint8_t *from = nvme->live + LIVE_FEATURES + (sdc_nvme_log_load(nvme->live + LIVE_FEATURES_NOW) & 1) * FEATURE_BYTES;

    features->arbitration = sdc_get32(from + FEATURE_ARBITRATION);
    features->coalescing = sdc_get32(from + FEATURE_COALESCING) & UINT16_MAX;
    features->write_cache = sdc_get32(from + FEATURE_WRITE_CACHE) & 1;
    features->hot = sdc_get32(from + FEATURE_HOT) & UINT16_MAX;
    features->cold = sdc_get32(from + FEATURE_COLD) & UINT16_MAX;
    features->atomicity = sdc_get32(from + FEATURE_ATOMICITY) & 1;
    features->events = sdc_get32(from + FEATURE_EVENTS);
    features->keep_alive_ms = sdc_get32(from + FEATURE_KEEP_ALIVE);
    features->host_behavior = sdc_get32(from + FEATURE_HOST_BEHAVIOR) & 1;
    features->timestamp_set = sdc_get32(from + FEATURE_TIMESTAMP_SET) & 1;
    features->timestamp_ms = sdc_get64(from + FEATURE_TIMESTAMP);
    features->timestamp_ns = sdc_loop_now(nvme->home);
    for (size_t i = 0; i < FEATURE_EAGER_WORDS; i++)
        features->eager[i] = sdc_get64(from + FEATURE_EAGER + 8 * i);
    for (uint32_t nsid = 1; nsid <= NVME_NAMESPACES_MAX; nsid++) {
        struct nvme_namespace *ns = nvme_namespace_find(&nvme->namespaces, nsid);
        if (ns)
            ns->error_recovery = sdc_get32(from + FEATURE_RECOVERY + 4 * (size_t)(nsid - 1));
    }
}

static int impossible(struct sdc_error *err, const char *what, unsigned id)
{
    return sdc_error_set(err, -EINVAL, SDC_FAULT_PEER, "the state record has an impossible %s queue %u", what, id);
}

static int load_cq(struct nvme *nvme, unsigned id, struct sdc_error *err)
{
    struct nvme_cq *cq = &nvme->cqs[id];
    uint32_t size = sdc_get32(cq->log + SDC_NVME_LOG_CQ_SIZE);
    uint32_t vector = sdc_get32(cq->log + SDC_NVME_LOG_CQ_VECTOR);

    if (sdc_nvme_log_load(cq->log + SDC_NVME_LOG_CQ) == 0)
        return 0;
    if (size < 2 || size > nvme->options.depth || (vector & UINT16_MAX) >= nvme->options.vectors)
        return impossible(err, "completion", id);
    cq->iova = sdc_get64(cq->log + SDC_NVME_LOG_CQ_IOVA);
    cq->size = size;
    cq->vector = (uint16_t)vector;
    cq->interrupts = vector >> 16 & 1;
    cq->users = 0;
    cq->state = NVME_QUEUE_LIVE;
    return 0;
}

static int load_sq(struct nvme *nvme, unsigned id, struct sdc_error *err)
{
    struct nvme_sq *sq = &nvme->sqs[id];
    uint32_t size = sdc_get32(sq->log + SDC_NVME_LOG_SQ_SIZE);
    uint32_t cq = sdc_get32(sq->log + SDC_NVME_LOG_SQ_CQ);

    if (sdc_nvme_log_load(sq->log + SDC_NVME_LOG_SQ) == 0)
        return 0;
    if (size < 2 || size > nvme->options.depth || cq == 0 || cq > nvme->options.queues || nvme->cqs[cq].state != NVME_QUEUE_LIVE)
        return impossible(err, "submission", id);
    sq->iova = sdc_get64(sq->log + SDC_NVME_LOG_SQ_IOVA);
    sq->size = size;
    sq->cq = &nvme->cqs[cq];
    sq->cq->users++;
    sq->state = NVME_QUEUE_LIVE;
    return 0;
}

static int load_queues(struct nvme *nvme, struct sdc_error *err)
{
    int rc = 0;

    for (unsigned id = 1; rc == 0 && id <= nvme->options.queues; id++)
        rc = load_cq(nvme, id, err);
    for (unsigned id = 1; rc == 0 && id <= nvme->options.queues; id++)
        rc = load_sq(nvme, id, err);
    nvme->shadow = (struct nvme_shadow){.given = sdc_nvme_log_load(nvme->live + LIVE_SHADOW) & 1,
                                        .doorbells = sdc_nvme_log_load(nvme->live + LIVE_DOORBELLS),
                                        .events = sdc_nvme_log_load(nvme->live + LIVE_EVENTS)};
    return rc;
}

static void resumed(struct nvme_order *order)
{
    struct nvme *nvme = order->worker->nvme;

    if (order->result < 0)
        nvme_fatal(nvme, "a queue cannot go on in this process");
    if (--nvme->resuming > 0)
        return;
    nvme_look(&nvme->sqs[0]); // which has waited for that
    if (nvme->remapping == 0)
        sdc_pci_ready(&nvme->pci);
}

static void resume_queue(struct nvme *nvme, struct nvme_order *order, struct nvme_worker *worker, void (*run)(struct nvme_order *order),
                         struct sdc_map *map)
{
    nvme->resuming++;
    *order = (struct nvme_order){.run = run, .obeyed = resumed, .map = map};
    nvme_order_send(order, worker);
}

static void resume_queues(struct nvme *nvme)
{
    for (unsigned id = 1; id <= nvme->options.queues; id++) {
        struct nvme_cq *cq = &nvme->cqs[id];
        cq->worker = &nvme->workers[id % nvme->workers_count];
        cq->shadow = nvme->shadow;
        cq->resumes = true;
        if (cq->state == NVME_QUEUE_LIVE) {
            cq->worker->queues++;
            resume_queue(nvme, &cq->order, cq->worker, nvme_run_create_cq, sdc_map_ref(nvme->map));
        }
    }
    for (unsigned id = 1; id <= nvme->options.queues; id++) {
        struct nvme_sq *sq = &nvme->sqs[id];
        if (sq->state != NVME_QUEUE_LIVE)
            continue;
        sq->worker = sq->cq->worker;
        sq->shadow = nvme->shadow;
        sq->resumes = true;
        resume_queue(nvme, &sq->order, sq->worker, nvme_run_create_sq, NULL);
    }
}

static int go_on(struct nvme *nvme, struct sdc_error *err)
{
    int rc = load_queues(nvme, err);

    if (rc < 0)
        return rc;
    load_features(nvme);
    rc = nvme_keep_alive_restart(nvme);
    if (rc == 0)
        rc = nvme_resume(nvme);
    if (rc < 0)
        return sdc_error_set(err, rc, SDC_FAULT_HOST, "the admin queues of an NVMe controller cannot go on");
    resume_queues(nvme);
    return 0;
}

int nvme_state_load(struct sdc_pci_device *device, const void *registers, struct sdc_error *err)
{
    struct nvme *nvme = nvme_of(device);
    const uint8_t *from = registers;
    uint64_t life = sdc_nvme_log_load(nvme->live + LIVE_LIFE);
    int rc = 0;

    for (unsigned i = 0; i < SDC_PCI_CONFIG_KEPT; i++)
        device->config[i] = (uint8_t)((device->config_reset[i] & ~device->config_mask[i]) | (from[AT_CONFIG + i] & device->config_mask[i]));
    nvme_config_changed(nvme);
    memcpy(nvme->msix_table, from + AT_TABLE, nvme->options.vectors * (size_t)SDC_MSIX_ENTRY);
    nvme->cc = sdc_get32(from + AT_CC) & NVME_CC_WRITABLE;
    nvme->intms = sdc_get32(from + AT_INTMS);
    nvme->aqa = sdc_get32(from + AT_AQA) & NVME_AQA_WRITABLE;
    nvme->asq = sdc_get64(from + AT_ASQ) & ~(uint64_t)(NVME_PAGE - 1);
    nvme->acq = sdc_get64(from + AT_ACQ) & ~(uint64_t)(NVME_PAGE - 1);
    nvme->nssr = sdc_get32(from + AT_NSSR) & 1;
    nvme->csts = sdc_get32(from + AT_CSTS) & SDC_NVME_CSTS_NSSRO;
    if (!(nvme->cc & SDC_NVME_CC_EN))
        set_life(nvme, LIFE_OFF); // it was being disabled, which is done now
    else if (life != LIFE_OFF)
        nvme->life = NVME_ON;
    if (nvme->life == NVME_ON && life == LIFE_ON)
        rc = go_on(nvme, err);
    else if (nvme->life == NVME_ON)
        nvme->csts |= life == LIFE_FAILED ? SDC_NVME_CSTS_CFS : SDC_NVME_CSTS_RDY | SDC_NVME_CSTS_SHST_DONE;
    device->state_changes++;
    if (rc == 0)
        nvme_step(nvme); // what a register asked for
    return rc;
}

// --- leaving ---

void nvme_state_stop(struct sdc_pci_device *device)
{
    nvme_end(nvme_of(device), NVME_END_LEAVE);
}
