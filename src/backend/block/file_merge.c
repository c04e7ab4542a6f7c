// SPDX-License-Identifier: BSD-3-Clause
// Requests of a batch that follow one another on the disk go to the kernel as one: what a small I/O costs there is mostly not its
// bytes. Such a run has its spans and its I/O in a group. If the kernel does less than all of it, each request is done anew, alone, so that
// one that fails does so for itself only.
#include "backend/block/file.h"
#include "base/check.h"

#include <stdlib.h>
#include <string.h>

enum {
    GROUPS_MOST = 16,    // of a queue; while all are at work requests go one by one
    GROUP_REQUESTS = 64,
    GROUP_SPANS = 128,   // far from what the kernel takes (1024)
    GROUP_BYTES = 1024 * 1024,
    SMALL = 64 * 1024,   // bytes: larger requests gain nothing
};

struct sdc_file_group {
    struct sdc_file_queue *queue;
    struct sdc_file_group *next; // while it is free
    struct sdc_io io;
    uint64_t size; // bytes
    unsigned count;
    struct sdc_block_request *requests[GROUP_REQUESTS];
    struct sdc_span spans[GROUP_SPANS];
};

static void group_done(struct sdc_io *io)
{
    struct sdc_file_group *group = sdc_container(io, struct sdc_file_group, io);
    struct sdc_file_queue *queue = group->queue;
    bool whole = io->result >= 0 && (uint64_t)io->result == group->size;

    for (unsigned i = 0; i < group->count; i++) {
        if (whole)
            sdc_file_finish(group->requests[i], 0);
        else
            sdc_file_transfer(group->requests[i]);
    }
    group->next = queue->groups;
    queue->groups = group;
}

static struct sdc_file_group *group_new(struct sdc_file_queue *queue)
{
    struct sdc_file_group *group = queue->groups_made < GROUPS_MOST ? malloc(sizeof *group) : NULL;

    if (group) {
        group->queue = queue;
        queue->groups_made++;
    }
    return group;
}

static struct sdc_file_group *group_take(struct sdc_file_queue *queue)
{
    struct sdc_file_group *group = queue->groups;

    if (!group)
        return group_new(queue);
    queue->groups = group->next;
    return group;
}

void sdc_file_groups_free(struct sdc_file_queue *queue)
{
    while (queue->groups) {
        struct sdc_file_group *group = queue->groups;
        queue->groups = group->next;
        free(group);
    }
}

// Whether it may be part of a run. After a durable write has failed nobody can tell what of it was lost: that is said of each alone.
static bool is_plain(const struct sdc_file *file, const struct sdc_block_request *request)
{
    bool transfer = request->op == SDC_BLOCK_READ || request->op == SDC_BLOCK_WRITE;

    return transfer && request->flags == 0 && request->size > 0 && request->size <= SMALL &&
           request->spans_count <= GROUP_SPANS && !sdc_file_must_bounce(file, request->spans, request->spans_count);
}

static bool follows(const struct sdc_block_request *before, const struct sdc_block_request *request)
{
    return request->op == before->op && request->offset == before->offset + before->size;
}

// Bytes of one group. A read that a loop on epoll does at once stays one; a thread would cost more than is saved.
static uint64_t most_of(const struct sdc_file_queue *queue, enum sdc_block_op op)
{
    bool at_once = op == SDC_BLOCK_READ && queue->file->memory_align == 0 && sdc_loop_kind(queue->base.loop) == SDC_LOOP_EPOLL;

    return at_once ? SDC_IO_AT_ONCE : GROUP_BYTES;
}

// How many requests from the first one on are a run.
static unsigned find_run(const struct sdc_file_queue *queue, struct sdc_block_request **requests, unsigned count)
{
    uint64_t left = most_of(queue, requests[0]->op);
    uint32_t spans = 0;
    unsigned run = 0;

    while (run < count && run < GROUP_REQUESTS) {
        const struct sdc_block_request *request = requests[run];
        if ((run > 0 && !follows(requests[run - 1], request)) || !is_plain(queue->file, request) ||
            request->spans_count > GROUP_SPANS - spans || request->size > left)
            break;
        spans += request->spans_count;
        left -= request->size;
        run++;
    }
    return run;
}

static void start(struct sdc_file_group *group)
{
    const struct sdc_block_request *first = group->requests[0];
    uint32_t spans = 0;

    group->size = 0;
    for (unsigned i = 0; i < group->count; i++) {
        const struct sdc_block_request *request = group->requests[i];
        memcpy(&group->spans[spans], request->spans, request->spans_count * sizeof *request->spans);
        spans += request->spans_count;
        group->size += request->size;
    }
    group->io = (struct sdc_io){
        .op = first->op == SDC_BLOCK_READ ? SDC_IO_READ : SDC_IO_WRITE,
        .file = group->queue->number,
        .offset = first->offset,
        .spans = group->spans,
        .spans_count = spans,
        .done = group_done,
    };
    sdc_loop_io(group->queue->base.loop, &group->io);
}

unsigned sdc_file_merge(struct sdc_file_queue *queue, struct sdc_block_request **requests, unsigned count)
{
    unsigned run = count > 1 && follows(requests[0], requests[1]) ? find_run(queue, requests, count) : 0;
    struct sdc_file_group *group = run > 1 ? group_take(queue) : NULL;

    if (!group)
        return 0;
    group->count = 0;
    for (unsigned i = 0; i < run; i++) {
        // One that cannot be begun ends here, and the run in front of it.
        if (!sdc_file_prepare(queue, requests[i])) {
            run = i + 1;
            break;
        }
        group->requests[group->count++] = requests[i];
    }
    if (group->count > 0) {
        start(group);
    } else {
        group->next = queue->groups;
        queue->groups = group;
    }
    return run;
}
