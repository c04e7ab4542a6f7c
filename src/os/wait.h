// SPDX-License-Identifier: BSD-3-Clause
// Waiting for fds in threads that have no loop: clients, drivers, tools.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum sdc_wait_for {
    SDC_WAIT_INPUT = 1,  // something can be read, or the peer has closed
    SDC_WAIT_OUTPUT = 2, // something can be written
    SDC_WAIT_HANGUP = 4, // the peer has closed its end; reported even when it isn't asked for
};

// Waits until fd has one of `wanted` (enum sdc_wait_for), at most timeout_ms (negative: without end). Returns
// what it has, 0 when the time is up, or a negative errno. A signal does not end it.
int sdc_wait_fd(int fd, unsigned wanted, int timeout_ms);

// The same for a few fds at once, whose `seen` is filled. How many have something, 0, or a negative errno.
enum { SDC_WAIT_ITEMS_MAX = 8 };
struct sdc_wait_item {
    int fd; // -1: passed over
    unsigned wanted;
    unsigned seen;
};
int sdc_wait_fds(struct sdc_wait_item *items, unsigned count, int timeout_ms);

// A waiter waits for several fds at once. One thread waits on it at a time. An fd, or a negative errno;
// sdc_fd_close ends it.
int sdc_waiter_new(void);
// Watches fd for `wanted`. With `edges`, each new event wakes a waiter once and needs no reading (eventfds).
// tag: 0 to 31.
int sdc_waiter_add(int waiter, int fd, unsigned wanted, bool edges, unsigned tag);
// Waits at most timeout_ms. Returns 1 << tag of those that woke it, or-ed together, or 0 (time up, or a
// signal came).
uint32_t sdc_waiter_wait(int waiter, int timeout_ms);
