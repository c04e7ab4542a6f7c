// SPDX-License-Identifier: BSD-3-Clause
// Asynchronous events (base 5.2).
#include "device/nvme/controller.h"

void nvme_event_doorbell(struct nvme *nvme, uint8_t information)
{
    (void)nvme, (void)information;
}
