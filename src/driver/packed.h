// SPDX-License-Identifier: BSD-3-Clause
// What virtqueue.c needs of the packed ring. Nobody else includes this.
#pragma once

#include "driver/virtqueue.h"

uint64_t sdc_driver_packed_memory(const struct sdc_driver_queue_config *config);
// NULL: no memory.
struct sdc_driver_queue *sdc_driver_packed_new(const struct sdc_driver_queue_config *config,
                                               struct sdc_client_memory *memory);
