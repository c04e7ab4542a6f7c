// SPDX-License-Identifier: BSD-3-Clause
// What block backends share: checking a request, and telling of finished ones in batches.
#pragma once

#include <sidecard/block.h>

#include "loop/loop.h"

// 0, or the result that the request has to get: -EINVAL (outside of the disk, not whole blocks, or spans that
// don't add up to its size) or -EROFS. size is the disk's at this moment.
int sdc_block_check(const struct sdc_block_request *request, uint64_t size, uint32_t block_size,
                    bool read_only);

// Requests that wait for something, linked by their `next`.
struct sdc_block_list {
    struct sdc_block_request *first, *last;
};
void sdc_block_list_add(struct sdc_block_list *list, struct sdc_block_request *request);
struct sdc_block_request *sdc_block_list_take(struct sdc_block_list *list); // the first, or NULL

// Collects the finished requests of a turn and hands them to queue->done as arrays. One for each queue, used
// on its loop.
struct sdc_block_finisher {
    struct sdc_block_queue *queue;
    struct sdc_deferred deferred;
    struct sdc_post post;
    bool posted;
    bool *gone; // while done is being called: set when the queue is closed by it
    struct sdc_block_list finished;
};
void sdc_block_finisher_init(struct sdc_block_finisher *finisher, struct sdc_block_queue *queue);
// The queue is about to be freed. Nothing is outstanding; may be called from inside done.
void sdc_block_finisher_close(struct sdc_block_finisher *finisher);
// count requests are done, their results set: told at the end of this turn, as by sdc_block_finish.
void sdc_block_finish_all(struct sdc_block_finisher *finisher, struct sdc_block_request **requests, unsigned count);
// request is done: told at the end of this turn, or in the next one when it was submitted from inside done,
// so that a device that never runs out of requests leaves room for everything else on the loop.
void sdc_block_finish(struct sdc_block_finisher *finisher, struct sdc_block_request *request, int result);
