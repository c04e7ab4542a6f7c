// SPDX-License-Identifier: BSD-3-Clause
// vfio-user as a transport of sidecard check: what is behind the socket, a client without faults, and which tests there are.
#include "cli/check/nvme.h"
#include "cli/check/vfio.h"

#include "base/check.h"

#include <inttypes.h>
#include <stdio.h>

enum {
    CONFIG_ID = 0,
    CONFIG_REVISION = 8, // and the class code behind it
    VENDOR_VIRTIO = 0x1af4,
    VIRTIO_FIRST = 0x1040, // device IDs: this and the kind (virtio 1.2, 4.1.2.1)
    VIRTIO_LAST = 0x107f,
};
#define CLASS_NVME UINT32_C(0x010802)

static void look_at_pci(struct sdc_check_vfio *vfio, struct sdc_check_target *target)
{
    uint32_t id = (uint32_t)sdc_check_vfio_read(vfio, SDC_CHECK_REGION_CONFIG, CONFIG_ID, 4);
    uint32_t class = (uint32_t)sdc_check_vfio_read(vfio, SDC_CHECK_REGION_CONFIG, CONFIG_REVISION, 4) >> 8;
    uint32_t vendor = id & 0xffff, device = id >> 16;
    const char *what = "PCI device";
    if (class == CLASS_NVME) {
        target->has |= SDC_CHECK_NVME | SDC_CHECK_DISK;
        what = "NVMe controller";
    } else if (vendor == VENDOR_VIRTIO && device >= VIRTIO_FIRST && device <= VIRTIO_LAST) {
        target->has |= sdc_check_virtio_has(vfio->check->options, device - VIRTIO_FIRST);
        what = target->has & SDC_CHECK_BLK ? "virtio disk" : "virtio device";
    }
    snprintf(target->what, sizeof target->what, "%s %04" PRIx32 ":%04" PRIx32 ", class %06" PRIx32, what, vendor, device, class);
}

static void look(struct sdc_check *check, struct sdc_check_target *target)
{
    struct sdc_check_vfio vfio;
    sdc_check_vfio_connect(&vfio, check);
    // The tests of VERSION are to run even if VERSION does not work.
    snprintf(target->what, sizeof target->what, "what it is could not be found out");
    sdc_check_vfio_agree(&vfio);
    struct sdc_vfu_device_info info = sdc_check_vfio_info(&vfio);
    if (!(info.flags & SDC_VFU_DEVICE_PCI) || info.num_regions <= SDC_CHECK_REGION_CONFIG)
        return;
    target->has |= SDC_CHECK_PCI;
    look_at_pci(&vfio, target);
}

static void greet(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    sdc_check_vfio_connect(&vfio, check);
    sdc_check_vfio_agree(&vfio);
    sdc_check_vfio_fence(&vfio);
    sdc_check_vfio_close(&vfio);
}

static const struct sdc_check_table *const tables[] = {
    &sdc_check_vfio_version,
    &sdc_check_vfio_message,
    &sdc_check_vfio_device,
    &sdc_check_vfio_region_access,
    &sdc_check_vfio_dma,
    &sdc_check_vfio_irqs,
    &sdc_check_vfio_feature,
    &sdc_check_vfio_session,
    &sdc_check_vfio_pci,
    &sdc_check_vfio_virtio,
    &sdc_check_nvme_registers,
    &sdc_check_nvme_admin_commands,
    &sdc_check_nvme_io_commands,
    &sdc_check_vfio_load,
    &sdc_check_ring_requests,
    &sdc_check_ring_events,
    &sdc_check_ring_mistakes,
    &sdc_check_data,
    &sdc_check_vfio_hostile,
};

const struct sdc_check_transport sdc_check_vfio_user = {
    .name = "vfio-user",
    .tables = tables,
    .tables_count = SDC_COUNT(tables),
    .look = look,
    .greet = greet,
};
