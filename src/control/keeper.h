// SPDX-License-Identifier: BSD-3-Clause
// The device process's end of the channel to its keeper: slots for fds, which outlast the process, and the word to stop.
#pragma once

#include <sidecard/error.h>

#include "loop/loop.h"
#include "transport/common/slots.h"

struct sdc_keeper;

// Takes over fd, and waits until the keeper has handed over all that it has. 0 or a negative errno with err filled.
int sdc_keeper_open(int fd, struct sdc_keeper **keeper, struct sdc_error *err);
struct sdc_slots *sdc_keeper_slots(struct sdc_keeper *keeper);
// What nobody has taken from its slot is dropped; the keeper is told that clients are served. From then on `stop` is called on the loop
// when the keeper says so, `gone` when it is no more.
int sdc_keeper_ready(struct sdc_keeper *keeper, struct sdc_loop *loop, void (*stop)(void *context), void (*gone)(void *context),
                     void *context, struct sdc_error *err);
// The last word.
void sdc_keeper_stopped(struct sdc_keeper *keeper);
// NULL is fine.
void sdc_keeper_close(struct sdc_keeper *keeper);
