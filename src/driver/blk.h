// SPDX-License-Identifier: BSD-3-Clause
// A virtio disk from its driver's side (virtio 1.2, 5.2). Offsets and sizes are bytes; the device wants them in multiples of 512.
#pragma once

#include "driver/device.h"
#include "driver/disk.h"

// Opens the disk behind a transport, which is the disk's from then on, also when this fails, and finds out
// what it is. Feature bits in `without` are left alone though the device offers them. -ENODEV: it is another
// kind of device.
int sdc_driver_blk_open(struct sdc_driver_transport *transport, uint64_t without, struct sdc_driver_disk **disk,
                        struct sdc_error *err);
