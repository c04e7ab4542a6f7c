// SPDX-License-Identifier: BSD-3-Clause
// The vfio-user server (docs/interop/vfio-user.rst in QEMU): shows a PCI device to a VMM over a Unix socket. A listener holds the
// socket and one card; a session is one connected client. When a client has gone its session is taken down - I/O drained, card
// reset, memory unmapped - and the next one is let in.
#pragma once

#include <sidecard/pci.h>

#include "transport/common/listener.h"

struct sdc_slots;
struct sdc_vfu_record;

struct sdc_vfu_options {
    const char *name;       // for the log: the socket's path
    bool allow_file_memory; // guest memory may be a plain file, which can be truncated under us
    struct sdc_loop *const *fixed_loops; // that register guest memory with io_uring, where the card's queues are; they outlive the listener
    unsigned fixed_loops_count;          // 0: none does
    struct sdc_vfu_record *record; // NULL: nothing is kept for another process
};

// Serves device on fd, a listening non-blocking socket that stays the caller's, from loop, which is the device's home loop. device
// outlives the listener.
int sdc_vfu_listen(struct sdc_loop *loop, int fd, struct sdc_pci_device *device, const struct sdc_vfu_options *options,
                   struct sdc_listener **listener, struct sdc_error *err);

// The state record of device, in a slot of slots: the one that another process left there, or a new one. identity says whose it is (at most
// 255 characters): with another one it is refused. Before the device has a client. slots outlive it. A device that cannot be gone on
// with has no record: its state_needs is NULL.
int sdc_vfu_record_open(struct sdc_pci_device *device, const char *identity, struct sdc_slots *slots, struct sdc_vfu_record **record,
                        struct sdc_error *err);
bool sdc_vfu_record_has_session(const struct sdc_vfu_record *record);
// NULL is fine. The record itself stays in its slot.
void sdc_vfu_record_close(struct sdc_vfu_record *record);
