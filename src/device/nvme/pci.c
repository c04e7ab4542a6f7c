// SPDX-License-Identifier: BSD-3-Clause
// The controller as a PCI device: configuration space, BARs, doorbells, interrupts.
#include "base/check.h"
#include "base/log.h"
#include "device/nvme/controller.h"
#include "transport/common/mapped_page.h"
#include "transport/common/msix.h"
#include "transport/common/pci_config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

enum { CLASS_NVME = 0x010802 };

static bool card_intx_level(struct sdc_pci_device *device)
{
    return nvme_intx_level(nvme_of(device));
}

// --- doorbells ---

static void ring_sq(struct nvme *nvme, uint16_t id, uint32_t tail)
{
    struct nvme_sq *sq = &nvme->sqs[id];

    if (tail >= sq->size) {
        nvme_event_doorbell(nvme, SDC_NVME_EVENT_BAD_DOORBELL_VALUE);
        return;
    }
    atomic_store_explicit(&nvme->doorbells[2 * id], tail, memory_order_release);
    nvme_kick_sq(sq->worker, id);
}

// Whether the driver can have taken what a head of `head` says. Where it keeps its doorbells in memory it tells the register only of a few;
// of a queue that goes on, what was shown is not known yet. Then the queue finds out by itself.
static bool head_is_possible(struct nvme *nvme, uint16_t id, uint32_t head)
{
    const struct nvme_cq *cq = &nvme->cqs[id];
    uint32_t before = nvme->doorbells[2 * id + 1];
    uint32_t posted = (cq->shown + cq->size - before) % cq->size;

    if (head >= cq->size || cq->resumes || (nvme->shadow.given && id != 0))
        return head < cq->size;
    return (head + cq->size - before) % cq->size <= posted;
}

static void ring_cq(struct nvme *nvme, uint16_t id, uint32_t head)
{
    struct nvme_cq *cq = &nvme->cqs[id];

    if (!head_is_possible(nvme, id, head)) {
        nvme_event_doorbell(nvme, SDC_NVME_EVENT_BAD_DOORBELL_VALUE);
        return;
    }
    // Pair [starved] with nvme_has_room in queue.c.
    atomic_store_explicit(&nvme->doorbells[2 * id + 1], head, memory_order_seq_cst);
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&cq->starved, memory_order_seq_cst))
        nvme_kick_cq(cq->worker, id);
}

static void ring_doorbell(struct nvme *nvme, const struct sdc_pci_access *access)
{
    uint64_t number = (access->offset - SDC_NVME_DOORBELLS) / sizeof(uint32_t);
    uint16_t id = (uint16_t)(number / 2);
    bool completion = number % 2 != 0;
    bool live = number / 2 <= nvme->options.queues &&
                (completion ? nvme->cqs[id].state : nvme->sqs[id].state) == NVME_QUEUE_LIVE;

    if (access->size != sizeof(uint32_t) || !live) {
        sdc_log_peer("nvme: a write of %" PRIu32 " bytes to the doorbell at 0x%" PRIx64 ", which is no queue's", access->size,
                     access->offset);
        nvme_event_doorbell(nvme, SDC_NVME_EVENT_BAD_DOORBELL);
    } else if (completion) {
        ring_cq(nvme, id, (uint32_t)access->value);
    } else {
        ring_sq(nvme, id, (uint32_t)access->value);
    }
}

// --- accesses ---

static int access_controller(struct nvme *nvme, struct sdc_pci_access *access)
{
    if (!access->write)
        access->value = access->offset < SDC_NVME_DOORBELLS ? nvme_register_read(nvme, access->offset, access->size) : 0;
    else if (nvme->resetting)
        return -EAGAIN;
    else if (access->offset < SDC_NVME_DOORBELLS)
        nvme_register_write(nvme, access->offset, access->size, access->value);
    else
        ring_doorbell(nvme, access);
    return 0;
}

static int card_access(struct sdc_pci_device *device, struct sdc_pci_access *access)
{
    struct nvme *nvme = nvme_of(device);

    // Doorbells are written down elsewhere, and are all that comes often.
    if (access->write && (access->region != NVME_BAR || access->offset < SDC_NVME_DOORBELLS))
        device->state_changes++;
    switch (access->region) {
    case NVME_BAR:
        return access_controller(nvme, access);
    case NVME_TABLE_BAR:
        sdc_msix_table_access(nvme->msix_table, nvme->options.vectors, access);
        return 0;
    case NVME_PBA_BAR:
        sdc_msix_pba_access(device, access);
        return 0;
    default:
        access->value = 0;
        return 0;
    }
}

void nvme_config_changed(struct nvme *nvme)
{
    const struct sdc_pci_device *device = &nvme->pci;

    nvme->msix_enabled = (sdc_get16(&device->config[nvme->msix_cap + 2]) & SDC_PCI_MSIX_CONTROL_ENABLE) != 0;
    nvme->intx_disabled = (sdc_get16(&device->config[SDC_PCI_COMMAND]) & SDC_PCI_COMMAND_INTX_DISABLE) != 0;
}

static void card_config_written(struct sdc_pci_device *device, uint32_t offset, uint32_t size)
{
    (void)offset, (void)size;
    device->state_changes++;
    nvme_config_changed(nvme_of(device));
}

// The status bit shows the level whether or not INTx is disabled; only the pin is.
static int card_config_read(struct sdc_pci_device *device, uint32_t offset, uint32_t size)
{
    uint8_t *status = &device->config[SDC_PCI_STATUS];

    if (offset <= SDC_PCI_STATUS && SDC_PCI_STATUS < offset + size)
        *status = (uint8_t)((*status & ~SDC_PCI_STATUS_INTX) | (nvme_intx_level(nvme_of(device)) ? SDC_PCI_STATUS_INTX : 0));
    return 0;
}

// --- life ---

static void card_reset(struct sdc_pci_device *device)
{
    struct nvme *nvme = nvme_of(device);

    device->state_changes++;
    sdc_pci_config_reset(device);
    sdc_msix_reset(device, nvme->msix_table, nvme->options.vectors);
    nvme->msix_enabled = nvme->intx_disabled = false;
    nvme->resetting = true;
    nvme_end(nvme, NVME_END_RESET);
}

static void remapped(struct nvme_order *order)
{
    struct nvme *nvme = order->worker->nvme;

    if (--nvme->remapping == 0 && nvme->resuming == 0)
        sdc_pci_ready(&nvme->pci);
}

static void card_set_map(struct sdc_pci_device *device, struct sdc_map *map)
{
    struct nvme *nvme = nvme_of(device);
    struct sdc_map *before = nvme->map;
    bool recalls = nvme->remapping > 0;

    nvme->map = sdc_map_ref(map);
    sdc_map_unref(before);
    for (unsigned i = 0; i < nvme->workers_count; i++) {
        struct nvme_worker *worker = &nvme->workers[i];
        if (worker->queues == 0)
            continue;
        struct nvme_order *order = recalls ? &worker->recall_order : &worker->remap_order;
        nvme->remapping++;
        *order = (struct nvme_order){.run = recalls ? nvme_run_recall : nvme_run_remap, .obeyed = remapped, .map = sdc_map_ref(map)};
        nvme_order_send(order, worker);
    }
    if (nvme->remapping == 0)
        sdc_pci_ready(device);
}

static bool card_busy(struct sdc_pci_device *device)
{
    const struct nvme *nvme = nvme_of(device);

    return nvme->resetting || nvme->remapping > 0 || nvme->resuming > 0 || (nvme->ending == NVME_END_LEAVE && !nvme->left);
}

// --- where doorbells are ---

// With --poll=always each client has a page of its own, which it may map.
static int doorbells_open(struct nvme *nvme)
{
    void *page;

    if (nvme->options.poll == SDC_POLL_ALWAYS &&
        sdc_mapped_page_new(&nvme->pci.bars[NVME_BAR].mappable, "sidecard-nvme", SDC_NVME_DOORBELLS, &page) == 0) {
        nvme->doorbells = nvme->mapped_doorbells = page;
        return 0;
    }
    page = aligned_alloc(SDC_MAPPED_PAGE, SDC_MAPPED_PAGE);
    if (!page)
        return -ENOMEM;
    memset(page, 0, SDC_MAPPED_PAGE);
    nvme->doorbells = page;
    return 0;
}

static void close_doorbells(struct nvme *nvme)
{
    if (nvme->live)
        return; // they are not ours
    if (nvme->mapped_doorbells)
        sdc_mapped_page_free(&nvme->pci.bars[NVME_BAR].mappable, &nvme->mapped_doorbells);
    else
        free((void *)nvme->doorbells);
    nvme->doorbells = NULL;
}

void nvme_adopt_doorbells(struct nvme *nvme, _Atomic uint32_t *words)
{
    nvme->live = NULL;
    close_doorbells(nvme);
    nvme->doorbells = words;
}

// A doorbell says a number, which an eventfd cannot.
static uint32_t card_io_fds(struct sdc_pci_device *device, uint32_t region, struct sdc_pci_io_fd *fds, uint32_t max)
{
    (void)device, (void)region, (void)fds, (void)max;
    return 0;
}

// The client has gone, and with it what it has mapped. The page stays as it is if there is no memory for another.
static void card_client_gone(struct sdc_pci_device *device)
{
    struct nvme *nvme = nvme_of(device);
    struct sdc_pci_mappable mappable;
    void *page;

    if (!nvme->mapped_doorbells || sdc_mapped_page_new(&mappable, "sidecard-nvme", SDC_NVME_DOORBELLS, &page) < 0)
        return;
    close_doorbells(nvme);
    nvme->doorbells = nvme->mapped_doorbells = page;
    nvme->pci.bars[NVME_BAR].mappable = mappable;
}

static void free_parts(struct nvme *nvme)
{
    for (unsigned i = 0; nvme->workers && i < nvme->workers_count; i++)
        nvme_worker_close(&nvme->workers[i]);
    free(nvme->workers);
    free(nvme->cqs);
    free(nvme->sqs);
    close_doorbells(nvme);
    free(nvme->msix_table);
    free(nvme);
}

static void card_destroy(struct sdc_pci_device *device)
{
    struct nvme *nvme = nvme_of(device);

    sdc_loop_undefer(nvme->home, &nvme->step);
    sdc_loop_undefer(nvme->home, &nvme->settle);
    nvme_admin_close(nvme);
    nvme_namespaces_free(nvme);
    sdc_map_unref(nvme->map);
    free_parts(nvme);
}

static const struct sdc_pci_ops card_ops = {
    .name = "nvme",
    .access = card_access,
    .reset = card_reset,
    .set_map = card_set_map,
    .busy = card_busy,
    .config_written = card_config_written,
    .config_read = card_config_read,
    .intx_level = card_intx_level,
    .io_fds = card_io_fds,
    .client_gone = card_client_gone,
    .state_needs = nvme_state_needs,
    .state_keep = nvme_state_keep,
    .state_save = nvme_state_save,
    .state_load = nvme_state_load,
    .state_stop = nvme_state_stop,
    .destroy = card_destroy,
};

static void build_config(struct nvme *nvme)
{
    struct sdc_pci_device *pci = &nvme->pci;
    struct sdc_pci_identity identity = {
        .vendor = NVME_VENDOR,
        .device = NVME_DEVICE,
        .subsystem_vendor = NVME_VENDOR,
        .subsystem = NVME_DEVICE,
        .revision = 1,
        .class_code = CLASS_NVME,
        .intx = true,
    };
    uint64_t table = NVME_PAGE;

    while (table < (uint64_t)nvme->options.vectors * SDC_MSIX_ENTRY)
        table *= 2;
    pci->bars[NVME_BAR].size = NVME_BAR_SIZE;
    pci->bars[NVME_BAR].is_64bit = true;
    pci->bars[NVME_TABLE_BAR] = (struct sdc_pci_bar){.size = table};
    pci->bars[NVME_PBA_BAR] = (struct sdc_pci_bar){.size = NVME_PAGE};
    pci->irq_counts[SDC_PCI_INTX] = 1;
    pci->irq_counts[SDC_PCI_MSIX] = nvme->options.vectors;
    pci->irq_counts[SDC_PCI_ERR] = 1; // QEMU warns of a card without
    sdc_pci_config_init(pci, &identity);
    nvme->msix_cap = sdc_pci_config_add_msix(pci, nvme->options.vectors, NVME_TABLE_BAR, NVME_PBA_BAR);
    sdc_pci_config_add_pm(pci);
    sdc_pci_config_add_express(pci);
    sdc_pci_config_seal(pci);
    sdc_msix_reset(pci, nvme->msix_table, nvme->options.vectors);
}

static int open_parts(struct nvme *nvme, struct sdc_loop *const *loops, unsigned loops_count)
{
    size_t ids = nvme->options.queues + 1U;

    nvme->workers = calloc(loops_count, sizeof *nvme->workers);
    nvme->cqs = calloc(ids, sizeof *nvme->cqs);
    nvme->sqs = calloc(ids, sizeof *nvme->sqs);
    nvme->msix_table = calloc(nvme->options.vectors, SDC_MSIX_ENTRY);
    if (!nvme->workers || !nvme->cqs || !nvme->sqs || !nvme->msix_table || doorbells_open(nvme) < 0)
        return -ENOMEM;
    for (; nvme->workers_count < loops_count; nvme->workers_count++) {
        if (nvme_worker_open(&nvme->workers[nvme->workers_count], nvme, loops[nvme->workers_count]) < 0)
            return -ENOMEM;
    }
    for (uint16_t i = 0; i < ids; i++) {
        nvme->cqs[i].nvme = nvme->sqs[i].nvme = nvme;
        nvme->cqs[i].id = nvme->sqs[i].id = i;
    }
    return 0;
}

int sdc_nvme_new(const struct sdc_nvme_options *options, struct sdc_loop *const *loops, unsigned loops_count, struct sdc_pci_device **pci,
                 struct sdc_error *err)
{
    struct nvme *nvme = calloc(1, sizeof *nvme);
    if (!nvme)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for an NVMe controller");

    nvme->home = loops[0];
    nvme->options = *options;
    nvme->pci.ops = &card_ops;
    int rc = open_parts(nvme, loops, loops_count);
    if (rc < 0) {
        free_parts(nvme);
        return sdc_error_set(err, rc, SDC_FAULT_HOST, "no memory for an NVMe controller with %u queues", options->queues);
    }
    nvme_admin_open(nvme);
    build_config(nvme);
    *pci = &nvme->pci;
    return 0;
}
