// SPDX-License-Identifier: BSD-3-Clause
// vhost-user as a transport of sidecard check: what is behind the socket, a client without faults, and which tests there are.
#include "cli/check/vhost.h"

#include "base/check.h"

#include <sidecard/virtio.h>

#include <inttypes.h>
#include <stdio.h>

// A back end does not say what kind of device it has. Bits of a disk's that no other device has at once: SEG_MAX, BLK_SIZE, TOPOLOGY.
#define DISK_BITS (UINT64_C(1) << 2 | UINT64_C(1) << 6 | UINT64_C(1) << 10)

static void look(struct sdc_check *check, struct sdc_check_target *target)
{
    struct sdc_check_vhost vhost;

    sdc_check_vhost_connect(&vhost, check);
    snprintf(target->what, sizeof target->what, "what it is could not be found out");
    sdc_check_vhost_fence(&vhost);
    unsigned device = check->options->device_number;
    bool looks_like_one = device == 0 && (vhost.features & DISK_BITS) == DISK_BITS;
    target->has |= sdc_check_virtio_has(check->options, looks_like_one ? SDC_CHECK_DEVICE_BLK : device);
    bool disk = target->has & SDC_CHECK_BLK;
    snprintf(target->what, sizeof target->what, "%s%s, features 0x%" PRIx64, disk ? "virtio disk" : "virtio device",
             device != 0 ? "" : disk ? " (by its features)" : " of a kind that was not named (--device)", vhost.features);
}

static void greet(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;

    sdc_check_vhost_open(&vhost, check, 0);
    sdc_check_vhost_fence(&vhost);
    sdc_check_vhost_close(&vhost);
}

static const struct sdc_check_table *const tables[] = {
    &sdc_check_vhost_messages,
    &sdc_check_vhost_config,
    &sdc_check_vhost_memory,
    &sdc_check_vhost_vrings,
    &sdc_check_vhost_guest,
    &sdc_check_vhost_inflight,
    &sdc_check_vhost_state,
    &sdc_check_ring_requests,
    &sdc_check_ring_events,
    &sdc_check_ring_mistakes,
    &sdc_check_data,
};

const struct sdc_check_transport sdc_check_vhost_user = {
    .name = "vhost-user",
    .tables = tables,
    .tables_count = SDC_COUNT(tables),
    .look = look,
    .greet = greet,
};
