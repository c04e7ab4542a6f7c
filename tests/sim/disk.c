// SPDX-License-Identifier: BSD-3-Clause
// The backend: an array. Requests are carried out when the simulation says, in any order, and told of in batches; some fail, some
// wait for a lock until they are cancelled, and the disk changes its size.
#include "sim.h"

#include <sidecard/block.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 1024, QUEUES = 16, ERRORS = 256 };

struct entry {
    struct sdc_block_request *request;
    bool carried_out;
    int result;
};

struct disk_queue {
    struct sdc_block_queue base;
    struct entry waiting[MOST]; // not finished
    unsigned waiting_count;
    struct sdc_block_request *finished[MOST]; // to be told of
    unsigned finished_count;
    bool locked; // by somebody else: nothing begins
};

struct error {
    unsigned op;
    uint64_t offset, size;
};

static struct sdc_block disk;
static uint8_t bytes[SIM_SECTORS * SIM_SECTOR];
static uint64_t size;
static struct disk_queue *queues[QUEUES];
static uint64_t flushes;
static bool fua;
static struct error errors[ERRORS];
static unsigned errors_count;

// --- errors that were given out ---

static void note_error(const struct sdc_block_request *request)
{
    if (errors_count == ERRORS)
        memmove(errors, errors + 1, --errors_count * sizeof errors[0]);
    errors[errors_count++] = (struct error){request->op, request->offset, request->size};
}

unsigned sim_disk_errors(unsigned op, uint64_t sector, uint32_t sectors)
{
    unsigned count = 0;

    for (unsigned i = 0; i < errors_count; i++)
        count += errors[i].op == op && errors[i].offset == sector * SIM_SECTOR && errors[i].size == (uint64_t)sectors * SIM_SECTOR;
    return count;
}

bool sim_disk_take_error(unsigned op, uint64_t sector, uint32_t sectors)
{
    for (unsigned i = 0; i < errors_count; i++) {
        if (errors[i].op != op || errors[i].offset != sector * SIM_SECTOR || errors[i].size != (uint64_t)sectors * SIM_SECTOR)
            continue;
        errors[i] = errors[--errors_count];
        return true;
    }
    return false;
}

bool sim_disk_take_error_touching(unsigned op, uint64_t sector, uint32_t sectors)
{
    uint64_t from = sector * SIM_SECTOR, to = from + (uint64_t)sectors * SIM_SECTOR;

    for (unsigned i = 0; i < errors_count; i++) {
        if (errors[i].op != op || errors[i].offset >= to || errors[i].offset + errors[i].size <= from)
            continue;
        errors[i] = errors[--errors_count];
        return true;
    }
    return false;
}

void sim_disk_forget_errors(void)
{
    errors_count = 0;
}

// --- carrying out ---

static void check_spans(const struct sdc_block_request *request)
{
    for (uint32_t i = 0; i < request->spans_count; i++) {
        if (!sim_guest_check_span(request->spans[i].base, request->spans[i].size))
            sim_fail("the backend is to move bytes of memory that was given up");
    }
}

static void move(const struct sdc_block_request *request)
{
    uint8_t *at = bytes + request->offset;

    check_spans(request);
    for (uint32_t i = 0; i < request->spans_count; at += request->spans[i++].size) {
        if (request->op == SDC_BLOCK_READ)
            memcpy(request->spans[i].base, at, request->spans[i].size);
        else
            memcpy(at, request->spans[i].base, request->spans[i].size);
    }
}

static int choose_result(const struct sdc_block_request *request)
{
    if (request->op != SDC_BLOCK_FLUSH && (request->offset > size || request->size > size - request->offset))
        return -EINVAL;
    if (!sim_chance(plan.errors, 256))
        return 0;
    note_error(request);
    return request->op == SDC_BLOCK_WRITE && sim_chance(1, 2) ? -ENOSPC : -EIO;
}

static void carry_out(struct entry *entry)
{
    const struct sdc_block_request *request = entry->request;

    entry->carried_out = true;
    entry->result = choose_result(request);
    EVENT("disk: op %llu at %llu + %llu, result -%llu", request->op, request->offset, request->size,
          (unsigned long long)-entry->result);
    // A write that fails may have written or not.
    bool happens = entry->result == 0 || (entry->result != -EINVAL && sim_chance(1, 2));
    if (!happens)
        return;
    switch (request->op) {
    case SDC_BLOCK_READ:
    case SDC_BLOCK_WRITE:
        move(request);
        break;
    case SDC_BLOCK_FLUSH:
        flushes += entry->result == 0;
        break;
    case SDC_BLOCK_DISCARD:
        if (sim_chance(1, 2))
            break;
        memset(bytes + request->offset, 0, request->size);
        break;
    case SDC_BLOCK_WRITE_ZEROES:
        memset(bytes + request->offset, 0, request->size);
        break;
    }
}

static void finish(struct disk_queue *queue, unsigned i, int result)
{
    struct sdc_block_request *request = queue->waiting[i].request;

    queue->waiting[i] = queue->waiting[--queue->waiting_count];
    request->result = result;
    queue->finished[queue->finished_count++] = request;
}

// A queue with something to do, or NULL.
static struct disk_queue *choose(void)
{
    unsigned first = sim_below(QUEUES);

    for (unsigned i = 0; i < QUEUES; i++) {
        struct disk_queue *queue = queues[(first + i) % QUEUES];
        if (queue && !queue->locked && queue->waiting_count > 0)
            return queue;
    }
    return NULL;
}

bool sim_disk_can_run(void)
{
    for (unsigned i = 0; i < QUEUES; i++) {
        if (queues[i] && !queues[i]->locked && queues[i]->waiting_count > 0)
            return true;
    }
    return false;
}

void sim_disk_run(void)
{
    struct disk_queue *queue = choose();
    unsigned batch = sim_chance(1, 4) ? sim_pick(1, 16) : 1;

    for (; queue && batch > 0 && queue->waiting_count > 0; batch--) {
        unsigned i = sim_below(queue->waiting_count);
        struct entry *entry = &queue->waiting[i];
        bool begun = entry->carried_out;
        if (!begun)
            carry_out(entry);
        if (begun || sim_chance(1, 2))
            finish(queue, i, entry->result);
    }
}

// --- the loop's side ---

bool sim_disk_has_finished(const struct sdc_loop *loop)
{
    for (unsigned i = 0; i < QUEUES; i++) {
        if (queues[i] && queues[i]->base.loop == loop && queues[i]->finished_count > 0)
            return true;
    }
    return false;
}

static void tell(struct disk_queue *queue)
{
    struct sdc_block_request *batch[16];
    unsigned count = queue->finished_count < 16 ? queue->finished_count : 16;

    memcpy(batch, queue->finished, count * sizeof batch[0]);
    queue->finished_count -= count;
    memmove(queue->finished, queue->finished + count, queue->finished_count * sizeof batch[0]);
    queue->base.done(queue->base.context, batch, count);
}

void sim_disk_dispatch(struct sdc_loop *loop)
{
    for (unsigned i = 0; i < QUEUES; i++) {
        while (queues[i] && queues[i]->base.loop == loop && queues[i]->finished_count > 0)
            tell(queues[i]);
    }
}

static void check_request(const struct disk_queue *queue, const struct sdc_block_request *request)
{
    uint64_t sum = 0, end;
    bool data = request->op == SDC_BLOCK_READ || request->op == SDC_BLOCK_WRITE;

    if (!sim_loop_is_running(queue->base.loop))
        sim_fail("the backend is called from a foreign loop");
    for (uint32_t i = 0; i < request->spans_count; i++) {
        sum += request->spans[i].size;
        if (!request->spans[i].base)
            sim_fail("the backend gets a span that is nowhere");
    }
    if ((data && (sum != request->size || sum == 0)) || (!data && request->spans_count > 0))
        sim_fail("the backend gets %llu bytes of spans for %llu", (unsigned long long)sum, (unsigned long long)request->size);
    if ((request->offset | request->size) % plan.block_size != 0 || __builtin_add_overflow(request->offset, request->size, &end))
        sim_fail("the backend gets a request that is not aligned");
    if (request->op != SDC_BLOCK_READ && request->op != SDC_BLOCK_FLUSH && plan.read_only)
        sim_fail("a disk that is read-only is written");
    bool writes = request->op == SDC_BLOCK_WRITE || request->op == SDC_BLOCK_WRITE_ZEROES;
    if (writes && fua && !(request->flags & SDC_BLOCK_FUA))
        sim_fail("a write that need not be durable, though the cache is off");
    check_spans(request);
}

static void submit(struct sdc_block_queue *base, struct sdc_block_request **requests, unsigned count)
{
    struct disk_queue *queue = (struct disk_queue *)base;

    for (unsigned i = 0; i < count; i++) {
        check_request(queue, requests[i]);
        if (queue->waiting_count + queue->finished_count == MOST)
            sim_fail("the backend has %d requests at a time", MOST);
        EVENT("disk: gets op %llu at %llu + %llu, flags %llu", requests[i]->op, requests[i]->offset, requests[i]->size,
              requests[i]->flags);
        queue->waiting[queue->waiting_count++] = (struct entry){.request = requests[i]};
    }
    sim_preempt();
}

static void cancel(struct sdc_block_queue *base)
{
    struct disk_queue *queue = (struct disk_queue *)base;

    EVENT("disk: cancel, locked %llu", queue->locked);
    for (unsigned i = queue->waiting_count; queue->locked && i > 0; i--)
        finish(queue, i - 1, -ECANCELED);
}

static void close_queue(struct sdc_block_queue *base)
{
    struct disk_queue *queue = (struct disk_queue *)base;

    if (queue->waiting_count > 0 || queue->finished_count > 0)
        sim_fail("a backend's queue is closed with %u requests in it", queue->waiting_count + queue->finished_count);
    for (unsigned i = 0; i < QUEUES; i++) {
        if (queues[i] == queue)
            queues[i] = NULL;
    }
    EVENT("disk: a queue closes");
    free(queue);
}

static const struct sdc_block_queue_ops queue_ops = {.submit = submit, .cancel = cancel, .close = close_queue};

static int open_queue(struct sdc_block *block, struct sdc_loop *loop, sdc_block_done *done, void *context,
                      struct sdc_block_queue **queue)
{
    for (unsigned i = 0; i < QUEUES; i++) {
        if (queues[i])
            continue;
        queues[i] = calloc(1, sizeof *queues[i]);
        if (!queues[i])
            abort();
        queues[i]->base = (struct sdc_block_queue){&queue_ops, block, loop, done, context};
        queues[i]->locked = plan.locks && sim_chance(1, 3);
        EVENT("disk: a queue opens, locked %llu", queues[i]->locked);
        *queue = &queues[i]->base;
        return 0;
    }
    sim_fail("too many of the backend's queues are open");
}

static void info(struct sdc_block *block, struct sdc_block_info *out)
{
    (void)block;
    *out = (struct sdc_block_info){.size = size,
                                   .block_size = plan.block_size,
                                   .physical_block_size = plan.block_size,
                                   .discard_granularity = plan.block_size,
                                   .read_only = plan.read_only,
                                   .volatile_cache = true};
}

static int refresh(struct sdc_block *block)
{
    (void)block;
    return 1;
}

static void close_block(struct sdc_block *block)
{
    (void)block;
    if (sim_disk_queues() > 0)
        sim_fail("the backend is closed with a queue open");
}

static const struct sdc_block_ops ops = {
    .name = "sim", .info = info, .queue_open = open_queue, .refresh = refresh, .close = close_block};

struct sdc_block *sim_disk_open(void)
{
    memset(bytes, 0, sizeof bytes);
    memset(queues, 0, sizeof queues);
    size = sizeof bytes;
    flushes = errors_count = 0;
    fua = false;
    disk.ops = &ops;
    return &disk;
}

void sim_disk_abort(void)
{
    for (unsigned i = 0; i < QUEUES; i++) {
        free(queues[i]);
        queues[i] = NULL;
    }
}

// --- for the others ---

uint64_t sim_disk_sectors(void)
{
    return size / SIM_SECTOR;
}

void sim_disk_resize(void)
{
    uint64_t before = size;

    size = sim_chance(1, 3) ? sizeof bytes : (uint64_t)sim_pick(SIM_SECTORS / 2, SIM_SECTORS) * SIM_SECTOR / 4096 * 4096;
    EVENT("disk: %llu bytes now", size);
    sim_driver->resized((size < before ? size : before) / SIM_SECTOR);
}

unsigned sim_disk_requests(void)
{
    unsigned count = 0;

    for (unsigned i = 0; i < QUEUES; i++)
        count += queues[i] ? queues[i]->waiting_count + queues[i]->finished_count : 0;
    return count;
}

unsigned sim_disk_queues(void)
{
    unsigned count = 0;

    for (unsigned i = 0; i < QUEUES; i++)
        count += queues[i] != NULL;
    return count;
}

bool sim_disk_locked(void)
{
    for (unsigned i = 0; i < QUEUES; i++) {
        if (queues[i] && queues[i]->locked && queues[i]->waiting_count > 0)
            return true;
    }
    return false;
}

void sim_disk_unlock(void)
{
    for (unsigned i = 0; i < QUEUES; i++) {
        if (queues[i])
            queues[i]->locked = false;
    }
}

uint64_t sim_disk_flushes(void)
{
    return flushes;
}

void sim_disk_expect_fua(bool expect)
{
    fua = expect;
}

uint64_t sim_disk_stamp(uint64_t sector)
{
    return sim_read_sector(bytes + sector * SIM_SECTOR, sector);
}
