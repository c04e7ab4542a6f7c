// SPDX-License-Identifier: BSD-3-Clause
// The common configuration structure (virtio 1.2, 4.1.4.3), as a table of registers. 64-bit fields are two registers, since drivers
// write them in halves.
#include "transport/virtio_pci/card.h"

#include "base/check.h"

// The queue that the driver has selected, or NULL if there is none of that number (it then reads as size 0).
static struct virtio_pci_queue *selected(struct virtio_pci *card)
{
    return card->queue_select < card->core->device->queues_count ? &card->queues[card->queue_select] : NULL;
}

// The selected queue if the driver may still change it (virtio 1.2, 4.1.4.3.2: not once it is enabled).
static struct virtio_pci_queue *changeable(struct virtio_pci *card)
{
    struct virtio_pci_queue *queue = selected(card);

    return queue && !sdc_virtio_core_enabled(card->core, card->queue_select) ? queue : NULL;
}

static void put_half(uint64_t *field, bool high, uint32_t value)
{
    unsigned shift = high ? 32 : 0;

    *field = (*field & ~(UINT64_C(0xffffffff) << shift)) | (uint64_t)value << shift;
}

static uint32_t read_device_feature_select(void *context)
{
    return ((struct virtio_pci *)context)->device_feature_select;
}

static void write_device_feature_select(void *context, uint32_t value)
{
    ((struct virtio_pci *)context)->device_feature_select = value;
}

static uint32_t read_device_feature(void *context)
{
    struct virtio_pci *card = context;

    if (card->device_feature_select > 1)
        return 0;
    return (uint32_t)(sdc_virtio_core_offered(card->core) >> (32 * card->device_feature_select));
}

static uint32_t read_driver_feature_select(void *context)
{
    return ((struct virtio_pci *)context)->driver_feature_select;
}

static void write_driver_feature_select(void *context, uint32_t value)
{
    ((struct virtio_pci *)context)->driver_feature_select = value;
}

static uint32_t read_driver_feature(void *context)
{
    struct virtio_pci *card = context;

    return card->driver_feature_select > 1 ? 0 : (uint32_t)(card->driver_features >> (32 * card->driver_feature_select));
}

static void write_driver_feature(void *context, uint32_t value)
{
    struct virtio_pci *card = context;

    if (card->driver_feature_select > 1)
        return;
    put_half(&card->driver_features, card->driver_feature_select == 1, value);
    sdc_virtio_core_accept(card->core, card->driver_features);
}

static uint32_t read_config_vector(void *context)
{
    return ((struct virtio_pci *)context)->config_vector;
}

// A vector that does not exist reads back as none (virtio 1.2, 4.1.5.1.2.1).
static uint16_t checked_vector(const struct virtio_pci *card, uint32_t value)
{
    return value < card->vectors ? (uint16_t)value : VIRTIO_PCI_NO_VECTOR;
}

static void write_config_vector(void *context, uint32_t value)
{
    struct virtio_pci *card = context;

    card->config_vector = checked_vector(card, value);
}

static uint32_t read_num_queues(void *context)
{
    return ((struct virtio_pci *)context)->core->device->queues_count;
}

static uint32_t read_status(void *context)
{
    return ((struct virtio_pci *)context)->core->status;
}

static void write_status(void *context, uint32_t value)
{
    struct virtio_pci *card = context;

    if (value == 0)
        virtio_pci_common_reset(card);
    sdc_virtio_core_set_status(card->core, (uint8_t)value);
}

static uint32_t read_generation(void *context)
{
    return ((struct virtio_pci *)context)->core->config_generation;
}

static uint32_t read_queue_select(void *context)
{
    return ((struct virtio_pci *)context)->queue_select;
}

static void write_queue_select(void *context, uint32_t value)
{
    ((struct virtio_pci *)context)->queue_select = (uint16_t)value;
}

static uint32_t read_queue_size(void *context)
{
    struct virtio_pci_queue *queue = selected(context);

    return queue ? queue->size : 0;
}

static void write_queue_size(void *context, uint32_t value)
{
    struct virtio_pci *card = context;
    struct virtio_pci_queue *queue = changeable(card);

    // A packed ring may be of any size (virtio 1.2, 2.8).
    bool any = (card->core->features & SDC_VIRTIO_F_RING_PACKED) != 0;

    if (queue && value > 0 && value <= card->core->device->queue_size_max && (any || sdc_is_power_of_two(value)))
        queue->size = (uint16_t)value;
}

static uint32_t read_queue_vector(void *context)
{
    struct virtio_pci_queue *queue = selected(context);

    return queue ? queue->vector : VIRTIO_PCI_NO_VECTOR;
}

static void write_queue_vector(void *context, uint32_t value)
{
    struct virtio_pci *card = context;
    struct virtio_pci_queue *queue = selected(card);

    if (queue)
        queue->vector = checked_vector(card, value);
}

static uint32_t read_queue_enable(void *context)
{
    struct virtio_pci *card = context;

    return selected(card) && sdc_virtio_core_enabled(card->core, card->queue_select);
}

static void write_queue_enable(void *context, uint32_t value)
{
    struct virtio_pci *card = context;
    struct virtio_pci_queue *queue = changeable(card);

    // 0 is not for drivers to write (virtio 1.2, 4.1.4.3.2).
    if (!queue || value != 1)
        return;
    struct sdc_ring_config config = {
        .size = queue->size, .desc = queue->desc, .driver = queue->driver, .device = queue->device};
    sdc_virtio_core_enable(card->core, card->queue_select, &config);
}

static uint32_t read_queue_reset(void *context)
{
    struct virtio_pci *card = context;

    return selected(card) && sdc_virtio_core_queue_resetting(card->core, card->queue_select);
}

static void write_queue_reset(void *context, uint32_t value)
{
    struct virtio_pci *card = context;

    if (selected(card) && value == 1)
        sdc_virtio_core_reset_queue(card->core, card->queue_select);
}

static uint32_t read_notify_offset(void *context)
{
    struct virtio_pci *card = context;

    return selected(card) ? card->queue_select : 0;
}

#define ADDRESS_REGISTER(field, half, high)                                   \
    static uint32_t read_##field##_##half(void *context)                      \
    {                                                                         \
        struct virtio_pci_queue *queue = selected(context);                   \
        return queue ? (uint32_t)(queue->field >> ((high) ? 32 : 0)) : 0;     \
    }                                                                         \
    static void write_##field##_##half(void *context, uint32_t value)         \
    {                                                                         \
        struct virtio_pci_queue *queue = changeable(context);                 \
        if (queue)                                                            \
            put_half(&queue->field, high, value);                             \
    }

ADDRESS_REGISTER(desc, low, false)
ADDRESS_REGISTER(desc, high, true)
ADDRESS_REGISTER(driver, low, false)
ADDRESS_REGISTER(driver, high, true)
ADDRESS_REGISTER(device, low, false)
ADDRESS_REGISTER(device, high, true)

static const struct sdc_register registers[] = {
    {0x00, 4, read_device_feature_select, write_device_feature_select},
    {0x04, 4, read_device_feature, NULL},
    {0x08, 4, read_driver_feature_select, write_driver_feature_select},
    {0x0c, 4, read_driver_feature, write_driver_feature},
    {0x10, 2, read_config_vector, write_config_vector},
    {0x12, 2, read_num_queues, NULL},
    {0x14, 1, read_status, write_status},
    {0x15, 1, read_generation, NULL},
    {0x16, 2, read_queue_select, write_queue_select},
    {0x18, 2, read_queue_size, write_queue_size},
    {0x1a, 2, read_queue_vector, write_queue_vector},
    {0x1c, 2, read_queue_enable, write_queue_enable},
    {0x1e, 2, read_notify_offset, NULL},
    {0x20, 4, read_desc_low, write_desc_low},
    {0x24, 4, read_desc_high, write_desc_high},
    {0x28, 4, read_driver_low, write_driver_low},
    {0x2c, 4, read_driver_high, write_driver_high},
    {0x30, 4, read_device_low, write_device_low},
    {0x34, 4, read_device_high, write_device_high},
    {0x3a, 2, read_queue_reset, write_queue_reset},
};

uint64_t virtio_pci_common_read(struct virtio_pci *card, uint64_t offset, uint32_t size)
{
    return sdc_registers_read(registers, SDC_COUNT(registers), card, offset, size);
}

void virtio_pci_common_write(struct virtio_pci *card, uint64_t offset, uint32_t size, uint64_t value)
{
    sdc_registers_write(registers, SDC_COUNT(registers), card, offset, size, value);
}

void virtio_pci_common_reset(struct virtio_pci *card)
{
    card->device_feature_select = card->driver_feature_select = 0;
    card->driver_features = 0;
    card->queue_select = 0;
    card->config_vector = VIRTIO_PCI_NO_VECTOR;
    card->isr = 0;
    for (uint16_t i = 0; i < card->core->device->queues_count; i++) {
        struct virtio_pci_queue *queue = &card->queues[i];
        queue->size = card->core->device->queue_size_max;
        queue->vector = VIRTIO_PCI_NO_VECTOR;
        queue->desc = queue->driver = queue->device = 0;
    }
}
