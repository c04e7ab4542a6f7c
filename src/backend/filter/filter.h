// SPDX-License-Identifier: BSD-3-Clause
// What filters share. A filter is a block backend that stands on another one, its `next`: requests go down through it, and it changes
// them, holds them back, or ends them itself. A batch that it has nothing to do with goes on as it came. What a filter does not want to see
// again ends past it: the queue below has the done of the queue above.
//
// While a filter holds a request, nothing below has it, so its backend[] bytes are the filter's.
#pragma once

#include "backend/block/common.h"
#include "base/option.h"

// --- what people say ---

struct sdc_slice_options {
    uint64_t offset; // bytes
    uint64_t size;   // bytes, 0: to the end
};

struct sdc_delay_range {
    uint64_t least_ns, most_ns;
};

struct sdc_delay_options {
    struct sdc_delay_range all, read, write, flush; // a range that is zeroes was not said; all: what the others don't say
    uint64_t seed;
};

struct sdc_fault_options {
    uint32_t ops;           // a bit for each enum sdc_block_op, 0: all
    uint64_t offset, size;  // of the part of the disk, bytes; size 0: to the end
    uint64_t after;         // so many requests pass first
    uint64_t every;         // then each so manieth fails, 0: each
    double probability;     // of those, 0: 1
    uint64_t times;         // at most so many fail, 0: no limit
    int result;             // negative errno, 0: -EIO
    uint64_t seed;
};

enum { SDC_RATE_ALL, SDC_RATE_READ, SDC_RATE_WRITE, SDC_RATE_DIRECTIONS };

struct sdc_limit_options {
    uint64_t iops[SDC_RATE_DIRECTIONS];      // requests a second, 0: no limit
    uint64_t bandwidth[SDC_RATE_DIRECTIONS]; // bytes a second, 0: no limit
    uint64_t burst_ns;                        // 0: the default
};

union sdc_filter_options {
    struct sdc_slice_options slice;
    struct sdc_delay_options delay;
    struct sdc_fault_options fault;
    struct sdc_limit_options limit;
};

// --- kinds of filters ---

struct sdc_filter_type {
    const char *name;
    const char *what;                  // in a few words
    const struct sdc_options *options; // about a union sdc_filter_options, which is zeroes before
    // What of the options does not go together, or is missing. 0, or -EINVAL with err filled. NULL: nothing.
    int (*check)(const union sdc_filter_options *options, struct sdc_error *err);
    // Any thread. next becomes the filter's only if it succeeds. 0 or a negative errno with err filled.
    int (*open)(struct sdc_block *next, const union sdc_filter_options *options, struct sdc_block **block, struct sdc_error *err);
};

extern const struct sdc_filter_type sdc_filter_slice, sdc_filter_readonly, sdc_filter_delay, sdc_filter_error, sdc_filter_limit;

// --- a filter ---

// Filters embed it at the start of their own.
struct sdc_filter {
    struct sdc_block base;
    struct sdc_block *next;
};

// Memory of size bytes for a filter over next, zeroes but for what is here. NULL: err says why.
void *sdc_filter_new(size_t size, const struct sdc_block_ops *ops, struct sdc_block *next, struct sdc_error *err);

// For struct sdc_block_ops: next's.
void sdc_filter_info(struct sdc_block *block, struct sdc_block_info *info);
int sdc_filter_refresh(struct sdc_block *block);
// Frees block too.
void sdc_filter_close(struct sdc_block *block);

// --- a queue of one ---

// Filters embed it at the start of their own.
struct sdc_filter_queue {
    struct sdc_block_queue base;
    struct sdc_block_queue *next;
    struct sdc_block_finisher finisher; // of what the filter ends itself
};

// Makes a queue of size bytes for block on loop, and next's under it. done: the filter's own, whose context is the queue, or NULL: what
// ends below is told to who is above. 0 or a negative errno.
int sdc_filter_queue_new(size_t size, const struct sdc_block_queue_ops *ops, const struct sdc_block_queue *above, sdc_block_done *done,
                         struct sdc_filter_queue **queue);

// The same for a queue that has nothing more to remember.
int sdc_filter_queue_plain(const struct sdc_block_queue_ops *ops, const struct sdc_block_queue *above, sdc_block_done *done,
                           struct sdc_block_queue **queue);

// For struct sdc_block_queue_ops: next's; and the queue's end.
void sdc_filter_queue_cancel(struct sdc_block_queue *base);
void sdc_filter_queue_close(struct sdc_block_queue *base);

// Takes a request in, in place of what is below. False: it goes on.
typedef bool sdc_filter_keeps(struct sdc_filter_queue *queue, struct sdc_block_request *request);

// Submits to what is below those requests that the filter does not keep: all at once, if it keeps none.
static inline void sdc_filter_pass(struct sdc_filter_queue *queue, struct sdc_block_request **requests, unsigned count,
                                   sdc_filter_keeps *keeps)
{
    unsigned begin = 0;

    for (unsigned i = 0; i < count; i++) {
        if (!keeps(queue, requests[i]))
            continue;
        if (i > begin)
            queue->next->ops->submit(queue->next, requests + begin, i - begin);
        begin = i + 1;
    }
    if (count > begin)
        queue->next->ops->submit(queue->next, requests + begin, count - begin);
}

// The number-th of a row of random numbers that the seed stands for.
uint64_t sdc_filter_random(uint64_t seed, uint64_t number);

// --- a timer that can always be set ---

// It is set all the time, since what holds requests back must not fail for want of memory: while there is nothing to wait for, to a far-off
// moment. 0 or -ENOMEM.
int sdc_filter_timer_start(struct sdc_filter_queue *queue, struct sdc_timer *timer);
// Called when it has expired too.
void sdc_filter_timer_set(struct sdc_filter_queue *queue, struct sdc_timer *timer, uint64_t after_ns);
void sdc_filter_timer_rest(struct sdc_filter_queue *queue, struct sdc_timer *timer);
