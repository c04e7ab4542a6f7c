// SPDX-License-Identifier: BSD-3-Clause
// Compare and Dataset Management (nvm 3.2.1, 3.2.3) need more memory than a command has: buffers for what is compared, and ranges with a
// request for each. Each namespace has that once on each loop. Commands that want it line up.
#include "base/check.h"
#include "device/nvme/controller.h"

#include <errno.h>
#include <stdlib.h>

enum {
    CHUNK = 64 * 1024, // bytes that are compared at a time
    RANGES = 256,      // of one command
    RANGE_BYTES = 16,  // an entry: attributes, blocks, first block
    REQUESTS = 16,     // that are under way at a time
    DNR = SDC_NVME_SC_DNR,
};

struct range {
    uint64_t offset; // bytes
    uint64_t size;   // bytes
};

struct nvme_job {
    // Compare.
    uint64_t done; // bytes that are the same
    uint32_t size; // of this chunk
    struct sdc_span span;
    uint8_t stored[CHUNK], given[CHUNK];
    // Dataset Management.
    struct range ranges[RANGES];
    uint32_t ranges_count;
    uint32_t next; // range
    unsigned under_way;
    uint16_t status; // of the first that failed
    struct sdc_block_request requests[REQUESTS];
};

static struct nvme_job *job_open(struct nvme_ns_queue *queue)
{
    if (!queue->job)
        queue->job = calloc(1, sizeof *queue->job);
    return queue->job;
}

void nvme_jobs_close(struct nvme_ns_queue *queue)
{
    free(queue->job);
    queue->job = NULL;
}

// --- compare ---

static void submit_compare(struct nvme_command *command)
{
    struct nvme_job *job = command->ns->job;
    struct sdc_block_request *block = &job->requests[0];

    job->size = (uint32_t)sdc_min(command->block.size - job->done, CHUNK);
    job->span = (struct sdc_span){job->stored, job->size};
    *block = (struct sdc_block_request){.op = SDC_BLOCK_READ, .offset = command->block.offset + job->done, .size = job->size,
                                        .spans = &job->span, .spans_count = 1, .owner = command};
    nvme_submit(command->ns, block);
}

static int begin_compare(struct nvme_command *command)
{
    command->ns->job->done = 0;
    submit_compare(command);
    return NVME_PENDING;
}

// NVME_PENDING, or the status with which the command ends.
static int compare_done(struct nvme_command *command, struct sdc_block_request *request)
{
    struct nvme_job *job = command->ns->job;
    int rc = nvme_io_status(SDC_BLOCK_READ, request->result);

    if (rc == 0)
        rc = nvme_data_read(command, job->done, job->given, job->size);
    if (rc == 0 && memcmp(job->given, job->stored, job->size) != 0)
        rc = SDC_NVME_SC_COMPARE | DNR;
    if (rc != 0)
        return rc;
    job->done += job->size;
    if (job->done == command->block.size)
        return SDC_NVME_SC_SUCCESS;
    if (command->sq->worker->stopping)
        return SDC_NVME_SC_ABORTED;
    submit_compare(command);
    return NVME_PENDING;
}

// --- dataset management ---

static int add_range(struct nvme_job *job, const uint8_t raw[RANGE_BYTES], const struct sdc_block_info *info)
{
    struct range range = {.size = (uint64_t)sdc_get32(raw + 4) * info->block_size};
    struct range *before = job->ranges_count > 0 ? &job->ranges[job->ranges_count - 1] : NULL;

    if (!sdc_mul(sdc_get64(raw + 8), info->block_size, &range.offset) || !sdc_within(range.offset, range.size, info->size))
        return SDC_NVME_SC_LBA_RANGE | DNR;
    if (range.size == 0)
        return 0;
    if (before && before->offset + before->size == range.offset)
        before->size += range.size;
    else
        job->ranges[job->ranges_count++] = range;
    return 0;
}

static void submit_ranges(struct nvme_command *command)
{
    struct nvme_job *job = command->ns->job;

    for (unsigned i = 0; i < REQUESTS && job->next < job->ranges_count; i++, job->next++) {
        const struct range *range = &job->ranges[job->next];
        job->requests[i] = (struct sdc_block_request){
            .op = SDC_BLOCK_DISCARD, .offset = range->offset, .size = range->size, .owner = command};
        job->under_way++;
        nvme_submit(command->ns, &job->requests[i]);
    }
}

// All ranges are checked before anything is done.
static int begin_dsm(struct nvme_command *command)
{
    struct nvme_job *job = command->ns->job;
    struct sdc_block *block = command->ns->ns->block;
    uint8_t raw[RANGES * RANGE_BYTES];
    uint32_t count = (nvme_dword(command, 10) & 0xff) + 1;
    struct sdc_block_info info;
    int rc = nvme_data_read(command, 0, raw, count * (size_t)RANGE_BYTES);

    block->ops->info(block, &info);
    job->ranges_count = job->next = 0;
    job->status = SDC_NVME_SC_SUCCESS;
    for (uint32_t i = 0; rc == 0 && i < count; i++)
        rc = add_range(job, raw + (size_t)i * RANGE_BYTES, &info);
    if (rc != 0 || job->ranges_count == 0)
        return rc;
    submit_ranges(command);
    return NVME_PENDING;
}

static int dsm_done(struct nvme_command *command, struct sdc_block_request *request)
{
    struct nvme_job *job = command->ns->job;

    if (job->status == SDC_NVME_SC_SUCCESS)
        job->status = nvme_io_status(SDC_BLOCK_DISCARD, request->result);
    if (--job->under_way > 0)
        return NVME_PENDING;
    if (job->status != SDC_NVME_SC_SUCCESS || job->next == job->ranges_count)
        return job->status;
    if (command->sq->worker->stopping)
        return SDC_NVME_SC_ABORTED;
    submit_ranges(command);
    return NVME_PENDING;
}

// --- one after the other ---

static int begin(struct nvme_command *command)
{
    return nvme_opcode(command) == SDC_NVME_IO_COMPARE ? begin_compare(command) : begin_dsm(command);
}

// The first one has ended: begins those behind it, up to one that has something to wait for.
static void begin_next(struct nvme_ns_queue *queue)
{
    struct nvme_command *command;

    while ((command = queue->first_job) != NULL) {
        int rc = command->sq->worker->stopping ? SDC_NVME_SC_ABORTED : begin(command);
        if (rc == NVME_PENDING)
            return;
        queue->first_job = command->next;
        nvme_complete(command, (uint16_t)rc, 0);
    }
}

void nvme_job_done(struct nvme_command *command, struct sdc_block_request *request)
{
    struct nvme_ns_queue *queue = command->ns;
    bool compares = nvme_opcode(command) == SDC_NVME_IO_COMPARE;
    int rc = compares ? compare_done(command, request) : dsm_done(command, request);

    if (rc == NVME_PENDING)
        return;
    queue->first_job = command->next;
    nvme_complete(command, (uint16_t)rc, 0);
    begin_next(queue);
}

static int line_up(struct nvme_command *command)
{
    struct nvme_ns_queue *queue = command->ns;
    bool first = !queue->first_job;

    if (!job_open(queue))
        return SDC_NVME_SC_INTERNAL;
    command->next = NULL;
    *(first ? &queue->first_job : &queue->last_job->next) = command;
    queue->last_job = command;
    int rc = first ? begin(command) : NVME_PENDING;
    if (rc != NVME_PENDING)
        queue->first_job = NULL;
    return rc;
}

int nvme_compare_run(struct nvme_command *command)
{
    int rc = nvme_io_take_data(command, SDC_ACCESS_READ);

    return rc ? rc : line_up(command);
}

// Hints of how data will be used are good for nothing here, and nothing is done of them.
int nvme_dsm_run(struct nvme_command *command)
{
    uint32_t count = (nvme_dword(command, 10) & 0xff) + 1;

    if (!(nvme_dword(command, 11) & SDC_NVME_DSM_AD))
        return SDC_NVME_SC_SUCCESS;
    int rc = nvme_data_map(command, count * UINT64_C(16), SDC_ACCESS_READ);
    return rc ? rc : line_up(command);
}
