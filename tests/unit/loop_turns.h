// SPDX-License-Identifier: BSD-3-Clause
// So many turns of a loop, for tests in one thread.
#pragma once

#include "loop/loop.h"

struct turns {
    struct sdc_post post; // first
    struct sdc_loop *loop;
    unsigned left;
};

static inline void run_turn(struct sdc_post *post)
{
    struct turns *turns = (struct turns *)(void *)post;

    if (turns->left-- == 0)
        sdc_loop_stop(turns->loop);
    else
        sdc_loop_post(turns->loop, post);
}

static inline void loop_turns(struct sdc_loop *loop, unsigned count)
{
    struct turns turns = {.post = {.run = run_turn}, .loop = loop, .left = count};

    sdc_loop_post(loop, &turns.post);
    sdc_loop_run(loop);
}
