// SPDX-License-Identifier: BSD-3-Clause
// What backends share that carry a request out as it is submitted, because nothing in it waits: their disk and its queues.
#pragma once

#include "backend/block/common.h"

struct sdc_immediate {
    struct sdc_block base;
    struct sdc_block_info info;
    // Carries out one request, which lies inside the disk. On any loop's thread, on several at the same time. NULL: there is nothing to do.
    void (*execute)(struct sdc_immediate *disk, const struct sdc_block_request *request);
    // A request will be executed soon, and may lie anywhere. NULL: there is nothing to be done about that.
    void (*announce)(struct sdc_immediate *disk, const struct sdc_block_request *request);
};

// For struct sdc_block_ops.
void sdc_immediate_info(struct sdc_block *block, struct sdc_block_info *out);
int sdc_immediate_queue_open(struct sdc_block *block, struct sdc_loop *loop, sdc_block_done *done, void *context,
                             struct sdc_block_queue **queue);
