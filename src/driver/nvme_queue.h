// SPDX-License-Identifier: BSD-3-Clause
// What nvme.c needs of a namespace's I/O queues. Nobody else includes this.
#pragma once

#include "driver/disk.h"
#include "driver/nvme_controller.h"
#include "driver/nvme_identify.h"
#include "driver/waiter.h"

// What all queues of a disk have in common.
struct sdc_driver_nvme_shape {
    struct sdc_driver_nvme_controller *controller;
    struct sdc_driver_nvme_namespace ns;
    uint32_t size;        // entries
    uint32_t depth;       // commands in flight, less than size
    uint64_t request_max; // bytes of data of one
    bool sgl;
};

struct sdc_driver_nvme_queue {
    struct sdc_driver_disk_queue disk;
    const struct sdc_driver_nvme_shape *shape;
    struct sdc_driver_nvme_ring ring;
    struct sdc_driver_waiter waiter;
    uint8_t *lists; // PRP lists, or ranges of DSM: list_bytes for each slot
    uint64_t lists_iova;
    uint64_t list_bytes;
    struct sdc_driver_disk_request **slots; // by command identifier; NULL: free
    uint32_t free_count;
    uint16_t *free_slots;
};

// Bytes of memory that one takes.
uint64_t sdc_driver_nvme_queue_memory(const struct sdc_driver_nvme_shape *shape);
// Makes queue `index` (identifier index + 1) in its memory; the controller does not know of it. Waiter and bells are the caller's to set
// up. To be closed also when this fails.
int sdc_driver_nvme_queue_init(struct sdc_driver_nvme_queue *queue, const struct sdc_driver_nvme_shape *shape, uint16_t index,
                               struct sdc_client_memory *memory, struct sdc_error *err);
// The controller has forgotten the queue: nothing is in flight.
void sdc_driver_nvme_queue_restart(struct sdc_driver_nvme_queue *queue);
void sdc_driver_nvme_queue_close(struct sdc_driver_nvme_queue *queue);
