// SPDX-License-Identifier: BSD-3-Clause
// File I/O by a few threads, for a loop whose engine has none of its own. The loop asks and is told; only the
// I/O itself is done elsewhere. Threads are made when there is something to do and end when there was nothing
// for a while. All functions are called by the loop's owner.
#pragma once

#include "loop/loop.h"

enum { SDC_IO_POOL_THREADS = 4, SDC_IO_POOL_IDLE_SECONDS = 2 };

struct sdc_io_pool;
struct sdc_loop_file;

// -ENOMEM. No thread is made yet.
int sdc_io_pool_new(struct sdc_loop *loop, struct sdc_io_pool **pool);
// Ends the threads and waits for that. No I/O is in flight.
void sdc_io_pool_free(struct sdc_io_pool *pool);
// Looks at how a new file's I/O has to be done.
void sdc_io_pool_file_add(struct sdc_loop_file *file);
// As sdc_loop_io. What has to wait for a disk begins with the next sdc_io_pool_start.
void sdc_io_pool_ask(struct sdc_io_pool *pool, struct sdc_io *io);
// Hands what was asked for to the threads. Does not wait, unless not a single thread can be made: then it
// does the I/O.
void sdc_io_pool_start(struct sdc_io_pool *pool);
