// SPDX-License-Identifier: BSD-3-Clause
// What of the card is in a state record. Its queues write what they have in flight themselves; here is the rest: registers,
// configuration space, MSI-X table. Pending interrupts are not there: whoever goes on raises all of them, and drivers take
// one too many.
#include "base/bytes.h"
#include "transport/virtio_pci/card.h"

#include <errno.h>

enum {
    AT_CONFIG = 0,
    AT_DEVICE_FEATURE_SELECT = SDC_PCI_CONFIG_SIZE,
    AT_DRIVER_FEATURE_SELECT = AT_DEVICE_FEATURE_SELECT + 4,
    AT_DRIVER_FEATURES = AT_DEVICE_FEATURE_SELECT + 8,
    AT_FEATURES = AT_DEVICE_FEATURE_SELECT + 16,
    AT_QUEUE_SELECT = AT_DEVICE_FEATURE_SELECT + 24,
    AT_CONFIG_VECTOR = AT_DEVICE_FEATURE_SELECT + 26,
    AT_STATUS = AT_DEVICE_FEATURE_SELECT + 28,
    AT_GENERATION = AT_DEVICE_FEATURE_SELECT + 29,
    AT_DEVICE = AT_DEVICE_FEATURE_SELECT + 32,
    AT_QUEUES = AT_DEVICE + SDC_VIRTIO_STATE_MAX,
    // One queue.
    QUEUE_SIZE = 0,
    QUEUE_VECTOR = 2,
    QUEUE_ENABLED = 4,
    QUEUE_STARTS = 8,
    QUEUE_DESC = 16,
    QUEUE_DRIVER = 24,
    QUEUE_DEVICE = 32,
    QUEUE_BYTES = 40,
};

static struct virtio_pci *card_of(struct sdc_pci_device *device)
{
    return (struct virtio_pci *)(void *)device;
}

static uint64_t queue_live(const struct virtio_pci *card)
{
    return sdc_virtqueue_record_bytes(card->core->device->queue_size_max);
}

static uint32_t table_at(const struct virtio_pci *card)
{
    return AT_QUEUES + QUEUE_BYTES * (uint32_t)card->core->device->queues_count;
}

void virtio_pci_state_needs(struct sdc_pci_device *device, struct sdc_pci_state_needs *needs)
{
    struct virtio_pci *card = card_of(device);

    *needs = (struct sdc_pci_state_needs){.registers = table_at(card) + card->vectors * SDC_MSIX_ENTRY,
                                          .live = queue_live(card) * card->core->device->queues_count};
}

void virtio_pci_state_keep(struct sdc_pci_device *device, void *memory, bool goes_on)
{
    sdc_virtio_core_keep(card_of(device)->core, memory, queue_live(card_of(device)), goes_on);
}

void virtio_pci_state_stop(struct sdc_pci_device *device)
{
    sdc_virtio_core_stop_for_good(card_of(device)->core);
}

// --- save ---

static void save_queue(struct virtio_pci *card, uint16_t index, uint8_t *to)
{
    const struct virtio_pci_queue *queue = &card->queues[index];
    struct sdc_virtio_queue_state state;

    sdc_virtio_core_queue_state(card->core, index, &state);
    sdc_put16(to + QUEUE_SIZE, queue->size);
    sdc_put16(to + QUEUE_VECTOR, queue->vector);
    sdc_put32(to + QUEUE_ENABLED, state.enabled);
    sdc_put64(to + QUEUE_STARTS, state.starts);
    sdc_put64(to + QUEUE_DESC, queue->desc);
    sdc_put64(to + QUEUE_DRIVER, queue->driver);
    sdc_put64(to + QUEUE_DEVICE, queue->device);
}

void virtio_pci_state_save(struct sdc_pci_device *device, void *registers)
{
    struct virtio_pci *card = card_of(device);
    struct sdc_virtio_core *core = card->core;
    uint8_t *to = registers;
    // A reset that is under way will have ended.
    bool reset = core->resetting;

    memset(to, 0, AT_QUEUES);
    memcpy(to + AT_CONFIG, device->config, SDC_PCI_CONFIG_KEPT);
    sdc_put32(to + AT_DEVICE_FEATURE_SELECT, card->device_feature_select);
    sdc_put32(to + AT_DRIVER_FEATURE_SELECT, card->driver_feature_select);
    sdc_put64(to + AT_DRIVER_FEATURES, card->driver_features);
    sdc_put64(to + AT_FEATURES, reset ? 0 : core->features);
    sdc_put16(to + AT_QUEUE_SELECT, card->queue_select);
    sdc_put16(to + AT_CONFIG_VECTOR, card->config_vector);
    to[AT_STATUS] = reset ? 0 : core->status;
    to[AT_GENERATION] = core->config_generation;
    if (core->device->ops->state_save)
        core->device->ops->state_save(core->device, to + AT_DEVICE);
    for (uint16_t i = 0; i < core->device->queues_count; i++)
        save_queue(card, i, to + AT_QUEUES + (uint32_t)i * QUEUE_BYTES);
    memcpy(to + table_at(card), card->msix_table, card->vectors * SDC_MSIX_ENTRY);
}

// --- load ---

static uint16_t known_vector(const struct virtio_pci *card, uint16_t vector)
{
    return vector < card->vectors ? vector : VIRTIO_PCI_NO_VECTOR;
}

// The bits that a driver may write; the others are ours.
static void load_config(struct sdc_pci_device *device, const uint8_t *from)
{
    for (unsigned i = 0; i < SDC_PCI_CONFIG_KEPT; i++)
        device->config[i] = (uint8_t)((device->config_reset[i] & ~device->config_mask[i]) | (from[i] & device->config_mask[i]));
    virtio_pci_config_changed(card_of(device));
}

static int load_queue(struct virtio_pci *card, uint16_t index, const uint8_t *from, struct sdc_error *err)
{
    struct virtio_pci_queue *queue = &card->queues[index];
    struct sdc_virtio_queue_state state = {.enabled = sdc_get32(from + QUEUE_ENABLED) & 1, .starts = sdc_get64(from + QUEUE_STARTS)};
    struct sdc_ring_config config = {
        .size = sdc_get16(from + QUEUE_SIZE),
        .desc = sdc_get64(from + QUEUE_DESC),
        .driver = sdc_get64(from + QUEUE_DRIVER),
        .device = sdc_get64(from + QUEUE_DEVICE),
    };

    queue->size = (uint16_t)config.size;
    queue->vector = known_vector(card, sdc_get16(from + QUEUE_VECTOR));
    queue->desc = config.desc;
    queue->driver = config.driver;
    queue->device = config.device;
    if (queue->size == 0 || queue->size > card->core->device->queue_size_max)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_PEER, "the state record has a queue %u of %u entries", index, queue->size);
    return sdc_virtio_core_load_queue(card->core, index, &state, &config, err);
}

int virtio_pci_state_load(struct sdc_pci_device *device, const void *registers, struct sdc_error *err)
{
    struct virtio_pci *card = card_of(device);
    struct sdc_virtio_device *inner = card->core->device;
    const uint8_t *from = registers;

    load_config(device, from + AT_CONFIG);
    memcpy(card->msix_table, from + table_at(card), card->vectors * SDC_MSIX_ENTRY);
    card->device_feature_select = sdc_get32(from + AT_DEVICE_FEATURE_SELECT);
    card->driver_feature_select = sdc_get32(from + AT_DRIVER_FEATURE_SELECT);
    card->driver_features = sdc_get64(from + AT_DRIVER_FEATURES);
    card->queue_select = sdc_get16(from + AT_QUEUE_SELECT);
    card->config_vector = known_vector(card, sdc_get16(from + AT_CONFIG_VECTOR));
    int rc = sdc_virtio_core_load(card->core, from[AT_STATUS], from[AT_GENERATION], sdc_get64(from + AT_FEATURES), err);
    if (rc == 0 && inner->ops->state_load && from[AT_STATUS] & SDC_VIRTIO_S_FEATURES_OK)
        inner->ops->state_load(inner, from + AT_DEVICE);
    for (uint16_t i = 0; rc == 0 && i < inner->queues_count; i++)
        rc = load_queue(card, i, from + AT_QUEUES + (uint32_t)i * QUEUE_BYTES, err);
    if (rc == 0)
        sdc_virtio_core_go_on(card->core);
    device->state_changes++;
    return rc;
}
