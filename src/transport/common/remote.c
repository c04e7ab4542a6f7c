// SPDX-License-Identifier: BSD-3-Clause
#include "transport/common/remote.h"

#include "base/check.h"

static void run_begin(struct sdc_post *post)
{
    struct sdc_transfer *transfer = sdc_container(post, struct sdc_transfer, post);

    transfer->remote->begin(transfer->remote, transfer);
}

static void run_done(struct sdc_post *post)
{
    struct sdc_transfer *transfer = sdc_container(post, struct sdc_transfer, post);

    transfer->done(transfer);
}

void sdc_transfer_start(struct sdc_remote *remote, struct sdc_transfer *transfer)
{
    transfer->remote = remote;
    transfer->sent = transfer->outstanding = 0;
    transfer->post.run = run_begin;
    sdc_loop_post(remote->home, &transfer->post);
}

void sdc_transfer_finish(struct sdc_transfer *transfer, int result)
{
    transfer->result = result;
    transfer->post.run = run_done;
    sdc_loop_post(transfer->loop, &transfer->post);
}
