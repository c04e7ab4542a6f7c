// SPDX-License-Identifier: BSD-3-Clause
// What a queue's thread sleeps on: the queue's interrupts, and the end of the connection.
#pragma once

#include <sidecard/error.h>

#include <stdint.h>

// fds -1: there is none, the queue is polled.
struct sdc_driver_waiter {
    int call_fd; // eventfd for the device to signal
    int fd;
};
#define SDC_DRIVER_WAITER_NONE ((struct sdc_driver_waiter){.call_fd = -1, .fd = -1})

// queue is for error texts.
int sdc_driver_waiter_open(struct sdc_driver_waiter *waiter, uint16_t queue, struct sdc_error *err);
void sdc_driver_waiter_close(struct sdc_driver_waiter *waiter);
// Looks at the connection as well: hangup_fd hangs up when the device goes away, asking_fd (-1: there is none) can be read when the
// device side asks for something. Again when the connection is another one.
int sdc_driver_waiter_watch(const struct sdc_driver_waiter *waiter, int hangup_fd, int asking_fd, struct sdc_error *err);
// Waits at most timeout_ms. 1: there may be something new; 0: the time is up, or a signal came; or an error: the device is gone.
// check takes what has arrived on the connection, or says how it has ended.
int sdc_driver_waiter_wait(const struct sdc_driver_waiter *waiter, int timeout_ms,
                           int (*check)(void *context, struct sdc_error *err), void *context, struct sdc_error *err);
