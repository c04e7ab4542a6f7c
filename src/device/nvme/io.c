// SPDX-License-Identifier: BSD-3-Clause
// I/O commands (nvm 3.2): block requests to the namespace's backend, a batch at a time. What a command needs beyond one block request at a
// time is in jobs.c.
#include "base/check.h"
#include "device/nvme/controller.h"

#include <errno.h>

// command->words: what follows when the block request has ended well.
enum { STEP, NEXT_NSID };
enum step {
    STEP_END,
    STEP_READ,      // what was flushed is read
    STEP_FLUSH_ALL, // the next namespace is flushed, from NEXT_NSID on
};

enum {
    DNR = SDC_NVME_SC_DNR,
    ZEROES_MAX = NVME_PAGE << NVME_ZEROES_LIMIT, // bytes of a Write Zeroes command
};

// --- batches ---

static void submit_batch(struct nvme_ns_queue *queue)
{
    unsigned count = queue->batched;

    queue->batched = 0;
    queue->backend->ops->submit(queue->backend, queue->batch, count);
    // Its namespace goes, and what would wait was cancelled before.
    if (queue->leaving && queue->backend->ops->cancel)
        queue->backend->ops->cancel(queue->backend);
}

void nvme_submit(struct nvme_ns_queue *queue, struct sdc_block_request *request)
{
    struct nvme_command *command = request->owner;
    struct nvme_worker *worker = command->sq->worker;

    if (queue->batched == 0) {
        queue->next = worker->batches;
        worker->batches = queue;
    } else if (queue->batched == NVME_BATCH) {
        submit_batch(queue);
    }
    queue->batch[queue->batched++] = request;
}

void nvme_submit_batch(struct nvme_worker *worker)
{
    struct nvme_ns_queue *queue;

    while ((queue = worker->batches) != NULL) {
        worker->batches = queue->next;
        submit_batch(queue);
    }
}

// --- the end of requests ---

uint16_t nvme_io_status(enum sdc_block_op op, int result)
{
    switch (result) {
    case 0:
        return SDC_NVME_SC_SUCCESS;
    case -EINVAL: // past the end, as of now
        return SDC_NVME_SC_LBA_RANGE | DNR;
    case -EROFS:
        return SDC_NVME_SC_READ_ONLY | DNR;
    case -ENOSPC:
        return SDC_NVME_SC_CAPACITY;
    case -EBUSY: // another process has the image
        return SDC_NVME_SC_NS_NOT_READY;
    case -ECANCELED:
        return SDC_NVME_SC_ABORTED;
    case -ENOMEM:
        return SDC_NVME_SC_INTERNAL;
    default:
        return op == SDC_BLOCK_READ ? SDC_NVME_SC_READ_ERROR : SDC_NVME_SC_WRITE_FAULT;
    }
}

static void submit_flush(struct nvme_command *command)
{
    struct sdc_block_request *block = &command->block;

    block->op = SDC_BLOCK_FLUSH;
    block->flags = 0;
    block->offset = block->size = 0;
    block->spans = NULL;
    block->spans_count = 0;
    block->owner = command;
    nvme_submit(command->ns, block);
}

// Flushes the next namespace that there is. False: that was the last one.
static bool flush_next(struct nvme_command *command)
{
    struct nvme_worker *worker = command->sq->worker;
    uint64_t *nsid = &command->words[NEXT_NSID];

    while (*nsid <= NVME_NAMESPACES_MAX && !worker->namespaces[*nsid - 1])
        ++*nsid;
    if (*nsid > NVME_NAMESPACES_MAX)
        return false;
    nvme_ns_take(command, worker->namespaces[*nsid - 1]);
    ++*nsid;
    submit_flush(command);
    return true;
}

static int submit_read(struct nvme_command *command);

// Whether the command goes on.
static bool go_on(struct nvme_command *command)
{
    enum step step = (enum step)command->words[STEP];

    if (step == STEP_FLUSH_ALL)
        return flush_next(command);
    if (step == STEP_READ)
        submit_read(command);
    return step == STEP_READ;
}

static void end_request(struct nvme_worker *worker, struct sdc_block_request *request)
{
    struct nvme_command *command = request->owner;
    uint16_t status = nvme_io_status(request->op, request->result);

    // What begins while the worker stops would be waited for, and cancelled by nobody.
    if (status == SDC_NVME_SC_SUCCESS && worker->stopping && command->words[STEP] != STEP_END)
        status = SDC_NVME_SC_ABORTED;
    if (status != SDC_NVME_SC_SUCCESS || !go_on(command))
        nvme_complete(command, status, 0);
}

void nvme_io_done(void *context, struct sdc_block_request **requests, unsigned count)
{
    struct nvme_worker *worker = context;

    for (unsigned i = 0; i < count; i++) {
        struct nvme_command *command = requests[i]->owner;
        if (command == command->ns->first_job)
            nvme_job_done(command, requests[i]);
        else
            end_request(worker, requests[i]);
    }
    nvme_submit_batch(worker);
}

// --- commands. Each returns as a handler does; NSID, opcode and flags were checked ---

static uint32_t write_flags(const struct nvme_command *command)
{
    bool cached = atomic_load_explicit(&command->sq->nvme->admin.features.write_cache, memory_order_relaxed);

    return !cached || nvme_dword(command, 12) & SDC_NVME_RW_FUA ? SDC_BLOCK_FUA : 0;
}

// The bytes of the disk that the command names, to its block request. Whether they are all there the backend sees, which alone knows it at
// the moment when it counts.
static int take_range(struct nvme_command *command)
{
    struct sdc_block_request *block = &command->block;
    uint64_t block_size = command->ns->ns->info.block_size;
    uint64_t end;

    block->size = ((nvme_dword(command, 12) & 0xffff) + UINT64_C(1)) * block_size;
    if (!sdc_mul(sdc_get64(command->sqe + SDC_NVME_SQE_CDW10), block_size, &block->offset) ||
        !sdc_add(block->offset, block->size, &end))
        return SDC_NVME_SC_LBA_RANGE | DNR;
    return 0;
}

static int submit(struct nvme_command *command, enum sdc_block_op op, uint32_t flags)
{
    struct sdc_block_request *block = &command->block;

    block->op = op;
    block->flags = flags;
    block->spans = command->data.spans;
    block->spans_count = command->data.spans_count;
    block->owner = command;
    command->words[STEP] = STEP_END;
    nvme_submit(command->ns, block);
    return NVME_PENDING;
}

int nvme_io_take_data(struct nvme_command *command, enum sdc_access access)
{
    int rc = take_range(command);

    if (command->block.size > NVME_DATA_MAX)
        return SDC_NVME_SC_INVALID_FIELD | DNR;
    return rc ? rc : nvme_data_map(command, command->block.size, access);
}

// Behind a flush, which has used the block request.
static int submit_read(struct nvme_command *command)
{
    take_range(command);
    return submit(command, SDC_BLOCK_READ, 0);
}

static int run_read(struct nvme_command *command)
{
    int rc = nvme_io_take_data(command, SDC_ACCESS_WRITE);

    if (rc != 0)
        return rc;
    if (!(nvme_dword(command, 12) & SDC_NVME_RW_FUA) || !command->ns->ns->info.volatile_cache)
        return submit(command, SDC_BLOCK_READ, 0);
    // What it returns has to be durable before (nvm 3.2.4).
    command->words[STEP] = STEP_READ;
    submit_flush(command);
    return NVME_PENDING;
}

static int run_write(struct nvme_command *command)
{
    int rc = nvme_io_take_data(command, SDC_ACCESS_READ);

    return rc ? rc : submit(command, SDC_BLOCK_WRITE, write_flags(command));
}

static int run_write_zeroes(struct nvme_command *command)
{
    int rc = take_range(command);
    uint32_t unmap = nvme_dword(command, 12) & SDC_NVME_RW_DEAC ? SDC_BLOCK_UNMAP : 0;

    if (command->block.size > ZEROES_MAX)
        return SDC_NVME_SC_INVALID_FIELD | DNR;
    if (rc != 0)
        return rc;
    command->data.spans = NULL;
    command->data.spans_count = 0;
    return submit(command, SDC_BLOCK_WRITE_ZEROES, write_flags(command) | unmap);
}

static int run_flush(struct nvme_command *command)
{
    if (command->ns) {
        command->words[STEP] = STEP_END;
        submit_flush(command);
        return NVME_PENDING;
    }
    command->words[STEP] = STEP_FLUSH_ALL;
    command->words[NEXT_NSID] = 1;
    return flush_next(command) ? NVME_PENDING : SDC_NVME_SC_SUCCESS;
}

// --- which is which ---

struct row {
    int (*run)(struct nvme_command *command); // NULL: not supported, as Identify and the log of effects say
    bool writes; // not to a namespace that is read-only
    bool all;    // may be for all namespaces at once
};

static const struct row rows[] = {
    [SDC_NVME_IO_FLUSH] = {.run = run_flush, .all = true},
    [SDC_NVME_IO_WRITE] = {.run = run_write, .writes = true},
    [SDC_NVME_IO_READ] = {.run = run_read},
    [SDC_NVME_IO_COMPARE] = {.run = nvme_compare_run},
    [SDC_NVME_IO_WRITE_ZEROES] = {.run = run_write_zeroes, .writes = true},
    [SDC_NVME_IO_DSM] = {.run = nvme_dsm_run, .writes = true},
};

// Finds the namespace (base 3.2.1): an NSID that none can have is invalid, one that is not in use is a wrong field. 0 or a status.
static int find_namespace(struct nvme_command *command, const struct row *row)
{
    uint32_t nsid = nvme_nsid(command);

    nvme_ns_put(command);
    if (nsid == SDC_NVME_NSID_ALL && row->all)
        return 0;
    if (nsid == 0 || nsid > NVME_NAMESPACES_MAX)
        return SDC_NVME_SC_INVALID_NS | DNR;
    struct nvme_ns_queue *queue = command->sq->worker->namespaces[nsid - 1];
    if (!queue)
        return SDC_NVME_SC_INVALID_FIELD | DNR;
    nvme_ns_take(command, queue);
    return row->writes && command->ns->ns->info.read_only ? SDC_NVME_SC_READ_ONLY | DNR : 0;
}

int nvme_io_run(struct nvme_command *command)
{
    uint8_t opcode = nvme_opcode(command);
    const struct row *row = opcode < SDC_COUNT(rows) ? &rows[opcode] : NULL;

    if (!row || !row->run)
        return SDC_NVME_SC_INVALID_OPCODE | DNR;
    // Nothing is fused here, and the fourth way to say where data is does not exist.
    uint8_t flags = command->sqe[SDC_NVME_SQE_FLAGS];
    if (flags & SDC_NVME_FUSED || (flags & SDC_NVME_PSDT) == SDC_NVME_PSDT)
        return SDC_NVME_SC_INVALID_FIELD | DNR;
    int rc = find_namespace(command, row);
    return rc ? rc : row->run(command);
}

uint32_t nvme_io_effects(uint8_t opcode)
{
    if (opcode >= SDC_COUNT(rows) || !rows[opcode].run)
        return 0;
    return NVME_EFFECT_SUPPORTED | NVME_EFFECT_NS_SCOPE | (rows[opcode].writes ? NVME_EFFECT_CONTENT : 0);
}
