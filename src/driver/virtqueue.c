// SPDX-License-Identifier: BSD-3-Clause
// Making queues, whatever their ring's format.
#include "driver/virtqueue.h"

#include "base/check.h"
#include "base/limits.h"
#include "base/line.h"
#include "driver/packed.h"
#include "driver/split.h"

#include <sidecard/virtio.h>

#include <errno.h>
#include <inttypes.h>

static bool is_packed(const struct sdc_driver_queue_config *config)
{
    return (config->features & SDC_VIRTIO_F_RING_PACKED) != 0;
}

uint64_t sdc_driver_queue_memory(const struct sdc_driver_queue_config *config)
{
    return is_packed(config) ? sdc_driver_packed_memory(config) : sdc_driver_split_memory(config);
}

int sdc_driver_queue_new(const struct sdc_driver_queue_config *config, struct sdc_client_memory *memory,
                         struct sdc_driver_queue **queue, struct sdc_error *err)
{
    bool packed = is_packed(config);
    if (config->size == 0 || config->size > SDC_LIMIT_QUEUE_SIZE ||
        (!packed && !sdc_is_power_of_two(config->size)))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "queue %u: %u entries; it takes %s up to %d",
                             config->index, config->size, packed ? "any number" : "a power of two",
                             SDC_LIMIT_QUEUE_SIZE);
    if (config->indirect_max > SDC_LIMIT_INDIRECT)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "queue %u: %u segments in a table, at most %d",
                             config->index, config->indirect_max, SDC_LIMIT_INDIRECT);
    *queue = packed ? sdc_driver_packed_new(config, memory) : sdc_driver_split_new(config, memory);
    if (!*queue)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "queue %u: no memory for %u entries",
                             config->index, config->size);
    return 0;
}

// Slots begin with cache lines.
static uint32_t slot_bytes(const struct sdc_driver_queue_config *config)
{
    enum { DESC = 16 };
    return (SDC_DRIVER_SIDE + config->indirect_max * (uint32_t)DESC + SDC_LINE - 1) & ~(uint32_t)(SDC_LINE - 1);
}

uint64_t sdc_driver_queue_slots_size(const struct sdc_driver_queue_config *config)
{
    return (uint64_t)config->size * slot_bytes(config);
}

bool sdc_driver_queue_take_slots(struct sdc_driver_queue *queue, struct sdc_client_memory *memory)
{
    queue->slot_bytes = slot_bytes(&queue->config);
    queue->slots = sdc_client_memory_take(memory, sdc_driver_queue_slots_size(&queue->config), SDC_LINE, &queue->slots_iova);
    return queue->slots;
}

void sdc_driver_queue_free(struct sdc_driver_queue *queue)
{
    if (queue)
        queue->ops->free(queue);
}
