// SPDX-License-Identifier: BSD-3-Clause
// What people call the numbers of virtio, vhost-user and vfio-user. NULL where a number has no name, or we know none.
#pragma once

#include <stdint.h>

// "blk" for 2: the words of command lines (virtio 1.2, 5). sdc_virtio_device_title has "block device".
const char *sdc_virtio_device_name(unsigned device);
const char *sdc_virtio_device_title(unsigned device);
// The number of a device by its name; 0: there is none.
unsigned sdc_virtio_device_number(const char *name);

// A feature bit of a device (0: one that we don't know; then only the bits that all have are known), without what its name begins
// with: "SEG_MAX" for VIRTIO_BLK_F_SEG_MAX, "VERSION_1" for VIRTIO_F_VERSION_1.
const char *sdc_virtio_feature_name(unsigned device, unsigned bit);
// A bit of the device status (virtio 1.2, 2.1), "DRIVER_OK". The context is not used.
const char *sdc_virtio_status_name(unsigned context, unsigned bit);

// The same over vhost-user, where two of the bits are its own.
const char *sdc_vhost_feature_name(unsigned device, unsigned bit);
// "REPLY_ACK" for VHOST_USER_PROTOCOL_F_REPLY_ACK. The context is not used.
const char *sdc_vhost_protocol_feature_name(unsigned context, unsigned bit);

// A request's name without what all begin with: "GET_FEATURES" for VHOST_USER_GET_FEATURES. What has no name is "request 99", in the
// buffer.
enum { SDC_NAME_SIZE = 24 };
const char *sdc_vhost_request_name(uint32_t request, char buffer[SDC_NAME_SIZE]);

// The same of vfio-user's messages: "DMA_MAP" for VFIO_USER_DMA_MAP, or "command 99".
const char *sdc_vfu_command_name(uint16_t command, char buffer[SDC_NAME_SIZE]);
// Regions and interrupts of a PCI device (linux/vfio.h): "bar0", "config"; "msix".
const char *sdc_vfu_region_name(uint32_t index);
const char *sdc_vfu_irq_name(uint32_t index);
// A feature's number (DEVICE_FEATURE): "migration".
const char *sdc_vfu_feature_name(unsigned feature);
