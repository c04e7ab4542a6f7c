// SPDX-License-Identifier: BSD-3-Clause
// A namespace's life as a disk: what it is, its queues, the end.
#include "driver/nvme.h"

#include "base/check.h"
#include "base/limits.h"
#include "driver/nvme_controller.h"
#include "driver/nvme_identify.h"
#include "driver/nvme_queue.h"
#include "os/fd.h"
#include "wire/nvme.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define QUEUES_IOVA UINT64_C(0x1000000) // the controller's own memory is below
#define QUEUES_MAX (UINT64_C(0xf0000000) - QUEUES_IOVA)
#define TRANSFER_MAX (UINT64_C(64) << 20) // that we make

enum { ENTRIES = 1024, BLOCKS_MAX = 65536 };

struct nvme {
    struct sdc_driver_disk disk;
    struct sdc_driver_nvme_options options;
    struct sdc_driver_nvme_controller controller;
    struct sdc_driver_nvme_identity identity;
    struct sdc_driver_nvme_shape shape;
    struct sdc_client_memory memory; // the queues'
    uint16_t queues_count;           // that were made
    struct sdc_driver_nvme_queue *queues;
    int unheard_fd; // the admin queue's interrupts; -1: it makes none
};

static struct nvme *of(struct sdc_driver_disk *disk)
{
    return sdc_container(disk, struct nvme, disk);
}

// --- bells ---

static int choose_bell(struct nvme *nvme, struct sdc_driver_nvme_ring *ring, bool completions, struct sdc_error *err)
{
    struct sdc_driver_nvme_bell *bell = completions ? &ring->head_bell : &ring->tail_bell;
    enum sdc_driver_notify way = nvme->options.notify;
    uint64_t offset;
    if (!sdc_driver_nvme_find_register(&nvme->controller, ring->id, completions, &offset))
        return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER, "queue %u's doorbells are outside the controller's BAR of 0x%" PRIx64 " bytes",
                             ring->id, nvme->controller.bar_size);
    // An eventfd says nothing of where the queue stands: only a controller that looks at a shadow can do with it.
    if (completions && way == SDC_DRIVER_NOTIFY_IOEVENTFD)
        way = SDC_DRIVER_NOTIFY_AUTO;
    int ret = sdc_driver_doorbell_choose(&nvme->controller.doorbells, way, offset, 4, ring->id, &bell->bell, err);
    if (ret == 0 && bell->bell.way == SDC_DRIVER_NOTIFY_IOEVENTFD && !bell->shadow)
        bell->bell.way = SDC_DRIVER_NOTIFY_MESSAGE;
    return ret;
}

static int open_doorbells(struct nvme *nvme, uint16_t queues, struct sdc_error *err)
{
    struct sdc_driver_nvme_controller *controller = &nvme->controller;
    uint64_t size = UINT64_C(2) * (queues + 1) * controller->stride;
    if (nvme->options.notify == SDC_DRIVER_NOTIFY_IOEVENTFD && !nvme->disk.info.nvme.shadows)
        return sdc_error_set(err, -ENOTSUP, SDC_FAULT_USER,
                             "an eventfd does not say where an NVMe queue stands: it takes shadow doorbells");
    return sdc_driver_doorbells_open(&controller->doorbells, controller->pci.client, controller->doorbells.region,
                                     SDC_NVME_DOORBELLS, size, nvme->options.notify, err);
}

// Decides on shadow doorbells for so many queues.
static int decide_shadows(struct nvme *nvme, const struct sdc_driver_disk_options *options, uint16_t queues, struct sdc_error *err)
{
    enum sdc_driver_nvme_shadows wanted = nvme->options.shadows;
    struct sdc_driver_nvme_bell bell;
    const char *why = NULL;
    if (!nvme->identity.shadows)
        why = "the controller offers none";
    else if (options->memory == SDC_CLIENT_MEMORY_PRIVATE || nvme->options.memory == SDC_CLIENT_MEMORY_PRIVATE)
        why = "memory is not shared";
    else if (!sdc_driver_nvme_find_shadow(&nvme->controller, queues, true, &bell))
        why = "so many queues have no place in a page";
    if (wanted == SDC_DRIVER_NVME_SHADOWS_ON && why)
        return sdc_error_set(err, -ENOTSUP, SDC_FAULT_USER, "no shadow doorbells: %s", why);
    nvme->disk.info.nvme.shadows = wanted != SDC_DRIVER_NVME_SHADOWS_OFF && !why;
    return 0;
}

// --- starting ---

// Completions of queue `index` interrupt by this vector: the admin queue has the first to itself, if there are enough.
static uint32_t vector_of(const struct nvme *nvme, uint16_t index)
{
    return nvme->controller.pci.msix_vectors > nvme->queues_count ? index + UINT32_C(1) : index;
}

static int listen(struct nvme *nvme, struct sdc_driver_nvme_queue *queue, struct sdc_error *err)
{
    int ret = sdc_driver_waiter_open(&queue->waiter, queue->disk.index, err);
    if (ret == 0)
        ret = sdc_driver_waiter_watch(&queue->waiter, sdc_vfio_client_fd(nvme->controller.pci.client), -1, err);
    if (ret == 0)
        ret = sdc_driver_pci_set_vector(&nvme->controller.pci, vector_of(nvme, queue->disk.index), queue->waiter.call_fd, err);
    queue->disk.polled = ret < 0;
    return ret;
}

// The admin queue is looked at, but from when MSI-X is on its vector has to lead somewhere: a controller may fail when nobody is told.
static int sink_admin(struct nvme *nvme, struct sdc_error *err)
{
    if (vector_of(nvme, 0) == 0)
        return 0; // the first queue hears it too
    nvme->unheard_fd = sdc_eventfd_new();
    if (nvme->unheard_fd < 0)
        return sdc_error_set(err, nvme->unheard_fd, SDC_FAULT_HOST, "no eventfd for the admin queue: %s", strerror(-nvme->unheard_fd));
    return sdc_driver_pci_set_vector(&nvme->controller.pci, 0, nvme->unheard_fd, err);
}

static int create_queue(struct nvme *nvme, struct sdc_driver_nvme_queue *queue, struct sdc_error *err)
{
    int vector = queue->disk.polled ? -1 : (int)vector_of(nvme, queue->disk.index);
    return sdc_driver_nvme_create_ring(&nvme->controller, &queue->ring, vector, err);
}

static int make_queue(struct nvme *nvme, uint16_t index, bool poll, struct sdc_error *err)
{
    struct sdc_driver_nvme_queue *queue = &nvme->queues[index];
    int ret = sdc_driver_nvme_queue_init(queue, &nvme->shape, index, &nvme->memory, err);
    for (unsigned completions = 0; ret == 0 && completions < 2; completions++) {
        if (nvme->disk.info.nvme.shadows)
            sdc_driver_nvme_find_shadow(&nvme->controller, queue->ring.id, completions,
                                        completions ? &queue->ring.head_bell : &queue->ring.tail_bell);
        ret = choose_bell(nvme, &queue->ring, completions, err);
    }
    if (ret == 0 && !poll)
        ret = listen(nvme, queue, err);
    return ret < 0 ? ret : create_queue(nvme, queue, err);
}

static int make_queues(struct nvme *nvme, uint16_t count, const struct sdc_driver_disk_options *options, struct sdc_error *err)
{
    uint64_t bytes = count * sdc_driver_nvme_queue_memory(&nvme->shape);
    if (bytes > QUEUES_MAX)
        return sdc_error_set(err, -E2BIG, SDC_FAULT_USER, "%u queues with %" PRIu32 " requests of %" PRIu64 " bytes: their lists take %"
                             PRIu64 " bytes, at most %" PRIu64, count, nvme->shape.depth, nvme->shape.request_max, bytes, QUEUES_MAX);
    nvme->queues = calloc(count, sizeof *nvme->queues);
    if (!nvme->queues)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for %u queues", count);
    for (uint16_t i = 0; i < count; i++)
        nvme->queues[i].waiter = SDC_DRIVER_WAITER_NONE;
    nvme->queues_count = count;
    int ret = sdc_client_memory_new_kind(&nvme->memory, options->memory, QUEUES_IOVA, bytes, err);
    if (ret == 0)
        ret = sdc_driver_pci_map(&nvme->controller.pci, &nvme->memory, err);
    if (ret == 0 && !options->poll)
        ret = sink_admin(nvme, err);
    for (uint16_t i = 0; ret == 0 && i < count; i++)
        ret = make_queue(nvme, i, options->poll, err);
    return ret;
}

// Fills what queues have in common.
static int choose_shape(struct nvme *nvme, const struct sdc_driver_disk_options *options, struct sdc_error *err)
{
    const struct sdc_driver_disk_info *info = &nvme->disk.info;
    struct sdc_driver_nvme_shape *shape = &nvme->shape;
    shape->size = options->queue_size > 0 ? options->queue_size : (uint32_t)sdc_min(ENTRIES, nvme->controller.entries_max);
    shape->request_max = options->request_max > 0 ? options->request_max : sdc_min(SDC_DRIVER_DISK_REQUEST, info->request_max);
    if (shape->size < 2 || shape->size > nvme->controller.entries_max)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "a queue of %" PRIu32 " entries: the controller's have 2 to %" PRIu32,
                             shape->size, nvme->controller.entries_max);
    if (shape->request_max > info->request_max)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "requests of %" PRIu64 " bytes: the controller takes %" PRIu64,
                             shape->request_max, info->request_max);
    // One entry of a queue is always empty (base 3.3.1.4).
    if (options->depth >= shape->size)
        return sdc_error_set(err, -E2BIG, SDC_FAULT_USER,
                             "%" PRIu32 " requests in flight: a queue of %" PRIu32 " entries holds %" PRIu32, options->depth,
                             shape->size, shape->size - 1);
    shape->depth = options->depth > 0 ? options->depth : (uint32_t)sdc_min(SDC_DRIVER_DISK_DEPTH, shape->size - 1);
    return 0;
}

static int start(struct sdc_driver_disk *disk, const struct sdc_driver_disk_options *options, struct sdc_error *err)
{
    struct nvme *nvme = of(disk);
    uint16_t count = options->queues > 0 ? options->queues : 1;
    int ret = sdc_driver_disk_check_queues(disk, options, err);
    if (ret == 0)
        ret = choose_shape(nvme, options, err);
    if (ret == 0)
        ret = decide_shadows(nvme, options, count, err);
    if (ret == 0)
        ret = open_doorbells(nvme, count, err);
    if (ret == 0)
        ret = make_queues(nvme, count, options, err);
    if (ret == 0 && disk->info.nvme.shadows)
        ret = sdc_driver_nvme_use_shadows(&nvme->controller, err);
    if (ret < 0)
        return ret;
    disk->info.queue_size = (uint16_t)sdc_min(nvme->shape.size, UINT16_MAX);
    disk->info.notified_by = sdc_driver_notify_name(nvme->queues[0].ring.tail_bell.bell.way);
    return 0;
}

// --- the rest of its life ---

static void close_disk(struct sdc_driver_disk *disk)
{
    struct nvme *nvme = of(disk);
    // The controller is stopped before memory goes that it could write.
    sdc_driver_nvme_controller_stop(&nvme->controller, NULL);
    sdc_driver_nvme_controller_close(&nvme->controller);
    for (uint16_t i = 0; i < nvme->queues_count; i++)
        sdc_driver_nvme_queue_close(&nvme->queues[i]);
    free(nvme->queues);
    sdc_fd_close(&nvme->unheard_fd);
    sdc_client_memory_free(&nvme->memory);
    free(nvme);
}

static int map(struct sdc_driver_disk *disk, const struct sdc_client_memory *memory, struct sdc_error *err)
{
    return sdc_driver_pci_map(&of(disk)->controller.pci, memory, err);
}

static int reset_queue(struct sdc_driver_disk *disk, uint16_t index, struct sdc_error *err)
{
    struct sdc_driver_nvme_queue *queue = &of(disk)->queues[index];
    int ret = sdc_driver_nvme_delete_ring(&of(disk)->controller, &queue->ring, err);
    if (ret < 0)
        return ret;
    sdc_driver_nvme_queue_restart(queue);
    return create_queue(of(disk), queue, err);
}

static int check(struct sdc_driver_disk *disk, struct sdc_error *err)
{
    return sdc_driver_nvme_controller_check(&of(disk)->controller, err);
}

static struct sdc_driver_disk_queue *queue(struct sdc_driver_disk *disk, uint16_t index)
{
    return &of(disk)->queues[index].disk;
}

static const struct sdc_driver_disk_ops nvme_ops = {
    .start = start,
    .close = close_disk,
    .map = map,
    .reset_queue = reset_queue,
    .check = check,
    .queue = queue,
};

// --- opening ---

static void fill_info(struct nvme *nvme, uint16_t queues)
{
    const struct sdc_driver_nvme_identity *identity = &nvme->identity;
    const struct sdc_driver_nvme_namespace *ns = &nvme->shape.ns;
    uint64_t block = UINT64_C(1) << ns->block_shift, most = BLOCKS_MAX * block;
    struct sdc_driver_disk_info *info = &nvme->disk.info;
    *info = (struct sdc_driver_disk_info){
        .device = "nvme",
        .ring = "nvme",
        .size = ns->blocks * block,
        .block_size = (uint32_t)block,
        .request_max = sdc_min(sdc_min(identity->transfer_max, TRANSFER_MAX), most),
        .queues = queues,
        .notified_by = "",
        .read_only = ns->read_only,
        .flush = identity->write_cache,
        .discard = identity->dsm,
        .write_zeroes = identity->write_zeroes,
        .unmap = identity->write_zeroes && ns->zeroes_deallocate,
        .compare = identity->compare,
        .discard_max = identity->dsm ? identity->dsm_max * block : 0,
        .write_zeroes_max = identity->write_zeroes ? sdc_min(identity->write_zeroes_max, most) : 0,
        .nvme = {.nsid = ns->nsid, .version = nvme->controller.version, .sgl = nvme->options.sgl},
    };
    memcpy(info->nvme.serial, identity->serial, sizeof info->nvme.serial);
    memcpy(info->nvme.model, identity->model, sizeof info->nvme.model);
    memcpy(info->nvme.firmware, identity->firmware, sizeof info->nvme.firmware);
}

static int find_out(struct nvme *nvme, struct sdc_vfio_client *client, struct sdc_error *err)
{
    uint16_t queues = 0;
    int ret = sdc_driver_nvme_controller_open(&nvme->controller, client, nvme->options.memory, err);
    if (ret == 0)
        ret = sdc_driver_nvme_identify(&nvme->controller, &nvme->identity, err);
    if (ret == 0)
        ret = sdc_driver_nvme_identify_namespace(&nvme->controller, nvme->options.nsid, &nvme->shape.ns, err);
    if (ret == 0 && nvme->options.sgl && !nvme->identity.sgl)
        ret = sdc_error_set(err, -ENOTSUP, SDC_FAULT_USER, "the controller takes no SGLs for the NVM command set");
    if (ret == 0)
        ret = sdc_driver_nvme_ask_queues(&nvme->controller, SDC_LIMIT_QUEUES, &queues, err);
    if (ret == 0)
        fill_info(nvme, queues);
    return ret;
}

int sdc_driver_nvme_open(struct sdc_vfio_client *client, const struct sdc_driver_nvme_options *options,
                         struct sdc_driver_disk **disk, struct sdc_error *err)
{
    struct nvme *nvme = calloc(1, sizeof *nvme);
    if (!nvme) {
        sdc_vfio_client_close(client);
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a controller");
    }
    nvme->disk.ops = &nvme_ops;
    nvme->options = *options;
    nvme->memory.fd = -1;
    nvme->unheard_fd = -1;
    nvme->shape.controller = &nvme->controller;
    nvme->shape.sgl = options->sgl;
    int ret = find_out(nvme, client, err);
    if (ret < 0) {
        close_disk(&nvme->disk);
        return ret;
    }
    *disk = &nvme->disk;
    return 0;
}
