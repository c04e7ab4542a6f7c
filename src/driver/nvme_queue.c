// SPDX-License-Identifier: BSD-3-Clause
// Requests of a namespace as commands (NVM command set specification 1.0, 3.2), and back.
#include "driver/nvme_queue.h"

#include "base/bytes.h"
#include "base/check.h"
#include "driver/nvme_data.h"
#include "wire/nvme.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

enum {
    LIST_MIN = 64, // bytes; a cache line
    BLOCKS_MAX = 65536, // of one command but DSM
    DATA_ALIGN = 4,
    STATUS = 0x7ff, // type and code
};

static struct sdc_driver_nvme_queue *of(struct sdc_driver_disk_queue *queue)
{
    return sdc_container(queue, struct sdc_driver_nvme_queue, disk);
}

// --- submitting ---

enum how { HAS_NOTHING, HAS_BLOCKS, HAS_DATA, HAS_RANGE };

static const struct operation {
    uint8_t opcode;
    enum how how;
    uint32_t dword12; // beside the number of blocks
} operations[] = {
    [SDC_DRIVER_DISK_READ] = {SDC_NVME_IO_READ, HAS_DATA, 0},
    [SDC_DRIVER_DISK_WRITE] = {SDC_NVME_IO_WRITE, HAS_DATA, 0},
    [SDC_DRIVER_DISK_FLUSH] = {SDC_NVME_IO_FLUSH, HAS_NOTHING, 0},
    [SDC_DRIVER_DISK_DISCARD] = {SDC_NVME_IO_DSM, HAS_RANGE, 0},
    [SDC_DRIVER_DISK_WRITE_ZEROES] = {SDC_NVME_IO_WRITE_ZEROES, HAS_BLOCKS, 0},
    [SDC_DRIVER_DISK_WRITE_ZEROES_UNMAP] = {SDC_NVME_IO_WRITE_ZEROES, HAS_BLOCKS, SDC_NVME_RW_DEAC},
    [SDC_DRIVER_DISK_COMPARE] = {SDC_NVME_IO_COMPARE, HAS_DATA, 0},
};

// Whether it can be a command at all.
static bool fits(const struct sdc_driver_nvme_shape *shape, const struct sdc_driver_disk_request *request)
{
    uint64_t mask = (UINT64_C(1) << shape->ns.block_shift) - 1, blocks = request->size >> shape->ns.block_shift;
    if ((unsigned)request->op >= SDC_COUNT(operations) || !sdc_driver_disk_is_whole(request))
        return false;
    enum how how = operations[request->op].how;
    if (how == HAS_NOTHING)
        return true;
    if ((request->offset & mask) != 0 || (request->size & mask) != 0)
        return false;
    if (how == HAS_RANGE)
        return blocks <= UINT32_MAX;
    return blocks <= BLOCKS_MAX && (how == HAS_BLOCKS || (request->size <= shape->request_max && request->data % DATA_ALIGN == 0));
}

static void put_range(uint8_t *entry, const struct sdc_driver_nvme_list *list, const struct sdc_driver_disk_request *request,
                      const struct sdc_driver_nvme_shape *shape)
{
    sdc_put32(list->memory, 0); // attributes: none
    sdc_put32(list->memory + 4, (uint32_t)(request->size >> shape->ns.block_shift));
    sdc_put64(list->memory + 8, request->offset >> shape->ns.block_shift);
    sdc_put32(entry + SDC_NVME_SQE_CDW10, 0); // one range
    sdc_put32(entry + SDC_NVME_SQE_CDW11, SDC_NVME_DSM_AD);
    if (shape->sgl)
        sdc_driver_nvme_put_sgl(entry, list->iova, SDC_NVME_DSM_RANGE);
    else
        sdc_put64(entry + SDC_NVME_SQE_PRP1, list->iova);
}

static void fill_entry(struct sdc_driver_nvme_queue *queue, uint16_t slot, const struct sdc_driver_disk_request *request)
{
    const struct sdc_driver_nvme_shape *shape = queue->shape;
    const struct operation *operation = &operations[request->op];
    struct sdc_driver_nvme_list list = {.memory = queue->lists + slot * queue->list_bytes,
                                        .iova = queue->lists_iova + slot * queue->list_bytes};
    uint8_t *entry = sdc_driver_nvme_ring_entry(&queue->ring);
    memset(entry, 0, SDC_NVME_SQE);
    entry[SDC_NVME_SQE_OPCODE] = operation->opcode;
    sdc_put16(entry + SDC_NVME_SQE_CID, slot);
    sdc_put32(entry + SDC_NVME_SQE_NSID, shape->ns.nsid);
    if (operation->how == HAS_NOTHING)
        return;
    if (operation->how == HAS_RANGE) {
        put_range(entry, &list, request, shape);
        return;
    }
    sdc_put64(entry + SDC_NVME_SQE_CDW10, request->offset >> shape->ns.block_shift);
    sdc_put32(entry + SDC_NVME_SQE_CDW12, (uint32_t)((request->size >> shape->ns.block_shift) - 1) | operation->dword12);
    if (operation->how == HAS_DATA && shape->sgl)
        sdc_driver_nvme_put_sgl(entry, request->data, (uint32_t)request->size);
    else if (operation->how == HAS_DATA)
        sdc_driver_nvme_put_prps(entry, &list, shape->controller->page_size, request->data, request->size);
}

static int submit(struct sdc_driver_disk_queue *disk_queue, struct sdc_driver_disk_request **requests, unsigned count)
{
    struct sdc_driver_nvme_queue *queue = of(disk_queue);
    for (unsigned i = 0; i < count; i++) {
        if (!fits(queue->shape, requests[i]))
            return i > 0 ? (int)i : -EINVAL;
        if (queue->free_count == 0)
            return (int)i;
        uint16_t slot = queue->free_slots[--queue->free_count];
        fill_entry(queue, slot, requests[i]);
        sdc_driver_nvme_ring_add(&queue->ring);
        queue->slots[slot] = requests[i];
        requests[i]->slot = slot;
    }
    return (int)count;
}

static int kick(struct sdc_driver_disk_queue *disk_queue, struct sdc_error *err)
{
    // A thread that sleeps will have to acknowledge what it took before it does: here that costs no message of its own.
    return sdc_driver_nvme_ring_publish(&of(disk_queue)->ring, !disk_queue->polled, err);
}

// --- taking back ---

static int result_of(uint16_t status)
{
    switch (status & STATUS) {
    case SDC_NVME_SC_SUCCESS:
        return 0;
    case SDC_NVME_SC_INVALID_OPCODE:
        return -ENOTSUP;
    case SDC_NVME_SC_COMPARE:
        return -EILSEQ;
    default:
        return -EIO;
    }
}

// The request that a completion is of, or NULL: there is none.
static struct sdc_driver_disk_request *finish(struct sdc_driver_nvme_queue *queue,
                                              const struct sdc_driver_nvme_completion *completion)
{
    uint16_t slot = completion->cid;
    struct sdc_driver_disk_request *request = slot < queue->shape->depth ? queue->slots[slot] : NULL;
    if (!request)
        return NULL;
    queue->slots[slot] = NULL;
    queue->free_slots[queue->free_count++] = slot;
    request->status = completion->status & STATUS;
    request->result = result_of(completion->status);
    return request;
}

static int take(struct sdc_driver_disk_queue *disk_queue, struct sdc_driver_disk_request **requests, unsigned max,
                struct sdc_error *err)
{
    struct sdc_driver_nvme_queue *queue = of(disk_queue);
    struct sdc_driver_nvme_completion completion;
    unsigned count = 0;
    int ret = 0;
    while (count < max && (ret = sdc_driver_nvme_ring_take(&queue->ring, &completion)) == 1) {
        requests[count] = finish(queue, &completion);
        if (!requests[count]) {
            queue->ring.broken = "the controller completed a command that was not in flight";
            ret = -EPROTO;
            break;
        }
        count++;
    }
    if (ret < 0)
        return sdc_error_set(err, ret, SDC_FAULT_PEER, "queue %u: %s", disk_queue->index, queue->ring.broken);
    // The controller has room for whatever is in flight, and is told before it has not.
    if (queue->ring.unacknowledged + queue->shape->depth >= queue->ring.size)
        ret = sdc_driver_nvme_ring_acknowledge(&queue->ring, err);
    return ret < 0 ? ret : (int)count;
}

static int check(void *context, struct sdc_error *err)
{
    return sdc_driver_pci_check(context, err);
}

static int wait(struct sdc_driver_disk_queue *disk_queue, int timeout_ms, struct sdc_error *err)
{
    struct sdc_driver_nvme_queue *queue = of(disk_queue);
    if (disk_queue->polled)
        return sdc_error_set(err, -ENOTSUP, SDC_FAULT_USER, "queue %u is polled: there is no interrupt to wait for",
                             disk_queue->index);
    if (sdc_driver_nvme_ring_has_next(&queue->ring))
        return 1;
    // There are controllers that interrupt again only if the last interrupt's completions were acknowledged.
    int ret = sdc_driver_nvme_ring_acknowledge(&queue->ring, err);
    if (ret < 0)
        return ret;
    return sdc_driver_waiter_wait(&queue->waiter, timeout_ms, check, &queue->shape->controller->pci, err);
}

static const struct sdc_driver_disk_queue_ops queue_ops = {
    .submit = submit,
    .kick = kick,
    .take = take,
    .wait = wait,
};

// --- making ---

static uint64_t list_bytes(const struct sdc_driver_nvme_shape *shape)
{
    return sdc_driver_nvme_list_bytes(shape->sgl ? 1 : shape->request_max, shape->controller->page_size, LIST_MIN);
}

uint64_t sdc_driver_nvme_queue_memory(const struct sdc_driver_nvme_shape *shape)
{
    uint64_t page_size = shape->controller->page_size;
    // Lists begin at a page.
    return sdc_driver_nvme_ring_memory(shape->size, page_size) + shape->depth * list_bytes(shape) + page_size;
}

int sdc_driver_nvme_queue_init(struct sdc_driver_nvme_queue *queue, const struct sdc_driver_nvme_shape *shape, uint16_t index,
                               struct sdc_client_memory *memory, struct sdc_error *err)
{
    *queue = (struct sdc_driver_nvme_queue){
        .disk = {.ops = &queue_ops, .index = index, .polled = true},
        .shape = shape,
        .ring = {.doorbells = &shape->controller->doorbells, .id = (uint16_t)(index + 1), .size = shape->size},
        .waiter = SDC_DRIVER_WAITER_NONE,
        .list_bytes = list_bytes(shape),
    };
    uint64_t page_size = shape->controller->page_size;
    int ret = sdc_driver_nvme_ring_init(&queue->ring, memory, page_size, err);
    if (ret < 0)
        return ret;
    queue->lists = sdc_client_memory_take(memory, shape->depth * queue->list_bytes, page_size, &queue->lists_iova);
    queue->slots = calloc(shape->depth, sizeof *queue->slots);
    queue->free_slots = calloc(shape->depth, sizeof *queue->free_slots);
    if (!queue->lists || !queue->slots || !queue->free_slots)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for queue %u with %" PRIu32 " requests", index,
                             shape->depth);
    sdc_driver_nvme_queue_restart(queue);
    return 0;
}

void sdc_driver_nvme_queue_restart(struct sdc_driver_nvme_queue *queue)
{
    uint32_t depth = queue->shape->depth;
    sdc_driver_nvme_ring_restart(&queue->ring);
    // The first to be taken is slot 0.
    for (uint32_t i = 0; i < depth; i++) {
        queue->slots[i] = NULL;
        queue->free_slots[i] = (uint16_t)(depth - 1 - i);
    }
    queue->free_count = depth;
}

void sdc_driver_nvme_queue_close(struct sdc_driver_nvme_queue *queue)
{
    sdc_driver_waiter_close(&queue->waiter);
    free(queue->slots);
    free(queue->free_slots);
}
