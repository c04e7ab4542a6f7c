// SPDX-License-Identifier: BSD-3-Clause
// The driver's half of virtio over PCI (virtio 1.2, 4.1).
#include "driver/virtio_pci.h"

#include "base/bytes.h"
#include "base/check.h"
#include "driver/pci.h"

#include <sidecard/virtio.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    VENDOR_VIRTIO = 0x1af4,
    DEVICE_MODERN = 0x1040, // plus the virtio device number
    NO_VECTOR = 0xffff,
    GENERATION_TRIES = 100,
};

// The structures that vendor capabilities point to (4.1.4).
enum structure { COMMON = 1, NOTIFY, ISR, DEVICE, STRUCTURES };

// Offsets in such a capability.
enum {
    CAP_LENGTH = 2,
    CAP_TYPE = 3,
    CAP_BAR = 4,
    CAP_OFFSET = 8,
    CAP_SIZE = 12,
    CAP_BYTES = 16,
    CAP_MULTIPLIER = 16
};

// Registers of the common configuration (4.1.4.3).
enum {
    DEVICE_FEATURE_SELECT = 0x00,
    DEVICE_FEATURE = 0x04,
    DRIVER_FEATURE_SELECT = 0x08,
    DRIVER_FEATURE = 0x0c,
    CONFIG_VECTOR = 0x10,
    NUM_QUEUES = 0x12,
    DEVICE_STATUS = 0x14,
    CONFIG_GENERATION = 0x15,
    QUEUE_SELECT = 0x16,
    QUEUE_SIZE = 0x18,
    QUEUE_VECTOR = 0x1a,
    QUEUE_ENABLE = 0x1c,
    QUEUE_NOTIFY_OFF = 0x1e,
    QUEUE_DESC = 0x20,
    QUEUE_DRIVER = 0x28,
    QUEUE_DEVICE = 0x30,
    COMMON_BYTES = 0x38,
    QUEUE_RESET = 0x3a, // with VIRTIO_F_RING_RESET; the structure is longer then
};

// Where a structure lies.
struct place {
    bool found;
    uint32_t region;
    uint64_t offset;
    uint64_t size; // bytes
};

struct virtio_pci {
    struct sdc_driver_transport transport;
    struct sdc_driver_pci pci;
    struct place places[STRUCTURES];
    uint32_t notify_multiplier;
    bool notification_data; // VIRTIO_F_NOTIFICATION_DATA was accepted
    enum sdc_driver_notify notify_by;
    bool doorbells_open;
    struct sdc_driver_doorbells doorbells;
    uint16_t bells_count;
    struct sdc_driver_doorbell *bells; // of each queue
};

static struct virtio_pci *of(struct sdc_driver_transport *transport)
{
    return sdc_container(transport, struct virtio_pci, transport);
}

// --- registers ---

static int common_read(struct virtio_pci *card, uint32_t offset, uint32_t size, uint32_t *value,
                       struct sdc_error *err)
{
    uint8_t raw[4] = {0};
    int ret = sdc_vfio_client_read(card->pci.client, card->places[COMMON].region,
                                   card->places[COMMON].offset + offset, raw, size, err);
    *value = sdc_get32(raw);
    return ret;
}

static int common_write(struct virtio_pci *card, uint32_t offset, uint32_t size, uint32_t value,
                        struct sdc_error *err)
{
    uint8_t raw[4];
    sdc_put32(raw, value);
    return sdc_vfio_client_write(card->pci.client, card->places[COMMON].region,
                                 card->places[COMMON].offset + offset, raw, size, err);
}

// --- features, status ---

static uint16_t device_id(struct sdc_driver_transport *transport)
{
    return (uint16_t)(of(transport)->pci.device_id - DEVICE_MODERN);
}

static int get_features(struct sdc_driver_transport *transport, uint64_t *offered, struct sdc_error *err)
{
    struct virtio_pci *card = of(transport);
    int ret = 0;
    *offered = 0;
    for (uint32_t half = 0; ret == 0 && half < 2; half++) {
        uint32_t bits = 0;
        ret = common_write(card, DEVICE_FEATURE_SELECT, 4, half, err);
        if (ret == 0)
            ret = common_read(card, DEVICE_FEATURE, 4, &bits, err);
        *offered |= (uint64_t)bits << (32 * half);
    }
    return ret;
}

static int set_features(struct sdc_driver_transport *transport, uint64_t accepted, struct sdc_error *err)
{
    struct virtio_pci *card = of(transport);
    int ret = 0;
    card->notification_data = accepted & SDC_VIRTIO_F_NOTIFICATION_DATA;
    for (uint32_t half = 0; ret == 0 && half < 2; half++) {
        ret = common_write(card, DRIVER_FEATURE_SELECT, 4, half, err);
        if (ret == 0)
            ret = common_write(card, DRIVER_FEATURE, 4, (uint32_t)(accepted >> (32 * half)), err);
    }
    return ret;
}

static int get_status(struct sdc_driver_transport *transport, uint8_t *status, struct sdc_error *err)
{
    uint32_t value;
    int ret = common_read(of(transport), DEVICE_STATUS, 1, &value, err);
    *status = (uint8_t)value;
    return ret;
}

static int set_status(struct sdc_driver_transport *transport, uint8_t status, struct sdc_error *err)
{
    return common_write(of(transport), DEVICE_STATUS, 1, status, err);
}

// --- configuration ---

// Reads or writes in aligned words, then a half-word and a byte: what every device has to take (4.1.3.1).
static int access_config(struct virtio_pci *card, uint32_t offset, uint8_t *to, const uint8_t *from,
                         uint32_t size, struct sdc_error *err)
{
    const struct place *place = &card->places[DEVICE];
    int ret = 0;
    for (uint32_t done = 0, step; ret == 0 && done < size; done += step) {
        step = 4;
        while (step > size - done || (offset + done) % step != 0)
            step /= 2;
        uint64_t at = place->offset + offset + done;
        if (to)
            ret = sdc_vfio_client_read(card->pci.client, place->region, at, to + done, step, err);
        else
            ret = sdc_vfio_client_write(card->pci.client, place->region, at, from + done, step, err);
    }
    return ret;
}

static int check_config(struct virtio_pci *card, uint32_t offset, uint32_t size, struct sdc_error *err)
{
    const struct place *place = &card->places[DEVICE];
    if (place->found && sdc_within(offset, size, place->size))
        return 0;
    return sdc_error_set(err, -ERANGE, SDC_FAULT_PEER,
                         "the device's configuration has %" PRIu64 " bytes; %" PRIu32 " at %" PRIu32
                         " were wanted",
                         place->found ? place->size : 0, size, offset);
}

static int get_config(struct sdc_driver_transport *transport, uint32_t offset, void *data, uint32_t size,
                      struct sdc_error *err)
{
    struct virtio_pci *card = of(transport);
    int ret = check_config(card, offset, size, err);
    // 4.1.4.3.1: what is read between two equal generations belongs together.
    for (unsigned i = 0; ret == 0 && i < GENERATION_TRIES; i++) {
        uint32_t before, after;
        ret = common_read(card, CONFIG_GENERATION, 1, &before, err);
        if (ret == 0)
            ret = access_config(card, offset, data, NULL, size, err);
        if (ret == 0)
            ret = common_read(card, CONFIG_GENERATION, 1, &after, err);
        if (ret == 0 && before == after)
            return 0;
    }
    if (ret < 0)
        return ret;
    return sdc_error_set(err, -EAGAIN, SDC_FAULT_PEER,
                         "the device's configuration changed %d times while it was read", GENERATION_TRIES);
}

static int set_config(struct sdc_driver_transport *transport, uint32_t offset, const void *data,
                      uint32_t size, struct sdc_error *err)
{
    int ret = check_config(of(transport), offset, size, err);
    return ret < 0 ? ret : access_config(of(transport), offset, NULL, data, size, err);
}

// --- interrupts ---

// Connects a vector to an eventfd and a register to the vector. Vector 0 is the configuration's, i + 1 is
// queue i's.
static int set_vector(struct virtio_pci *card, uint32_t vector, int fd, uint32_t vector_register,
                      struct sdc_error *err)
{
    uint32_t back;
    int ret = sdc_driver_pci_set_vector(&card->pci, vector, fd, err);
    if (ret == 0)
        ret = common_write(card, vector_register, 2, vector, err);
    if (ret == 0)
        ret = common_read(card, vector_register, 2, &back, err);
    if (ret == 0 && back != vector)
        return sdc_error_set(err, -EBUSY, SDC_FAULT_PEER, "the device did not take MSI-X vector %" PRIu32,
                             vector);
    return ret;
}

static int set_config_call(struct sdc_driver_transport *transport, int fd, struct sdc_error *err)
{
    return set_vector(of(transport), 0, fd, CONFIG_VECTOR, err);
}

// --- queues ---

static int queues_count(struct sdc_driver_transport *transport, uint16_t *count, struct sdc_error *err)
{
    uint32_t value;
    int ret = common_read(of(transport), NUM_QUEUES, 2, &value, err);
    *count = (uint16_t)value;
    return ret;
}

static int queue_size(struct sdc_driver_transport *transport, uint16_t index, uint16_t *size,
                      struct sdc_error *err)
{
    uint32_t value = 0;
    int ret = common_write(of(transport), QUEUE_SELECT, 2, index, err);
    if (ret == 0)
        ret = common_read(of(transport), QUEUE_SIZE, 2, &value, err);
    *size = (uint16_t)value;
    return ret;
}

// Bytes of a notification (4.1.5.2).
static uint32_t notification_size(const struct virtio_pci *card)
{
    return card->notification_data ? 4 : 2;
}

// Where queue `index`, which is selected, is notified (4.1.4.4), as an offset in the region.
static int find_notify(struct virtio_pci *card, uint16_t index, uint64_t *at, struct sdc_error *err)
{
    const struct place *place = &card->places[NOTIFY];
    uint32_t number;
    int ret = common_read(card, QUEUE_NOTIFY_OFF, 2, &number, err);
    if (ret < 0)
        return ret;
    uint64_t offset = (uint64_t)number * card->notify_multiplier;
    if (!sdc_within(offset, notification_size(card), place->size))
        return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER,
                             "the device says that queue %u is notified at 0x%" PRIx64 " of 0x%" PRIx64
                             " bytes",
                             index, offset, place->size);
    *at = place->offset + offset;
    return 0;
}

// What the server offers for all queues is asked for with the first one.
static int open_doorbells(struct virtio_pci *card, struct sdc_error *err)
{
    const struct place *place = &card->places[NOTIFY];
    if (card->doorbells_open)
        return 0;
    int ret = sdc_driver_doorbells_open(&card->doorbells, card->pci.client, place->region, place->offset, place->size,
                                        card->notify_by, err);
    card->doorbells_open = ret == 0;
    return ret;
}

static int make_bells(struct virtio_pci *card, uint16_t index, struct sdc_error *err)
{
    if (index < card->bells_count)
        return 0;
    struct sdc_driver_doorbell *bells = reallocarray(card->bells, index + (size_t)1, sizeof *bells);
    if (!bells)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for %u queues", index + 1);
    for (; card->bells_count <= index; card->bells_count++)
        bells[card->bells_count] = (struct sdc_driver_doorbell){.way = SDC_DRIVER_NOTIFY_AUTO, .fd = -1};
    card->bells = bells;
    return 0;
}

// Queue `index` is selected.
static int setup_bell(struct virtio_pci *card, uint16_t index, struct sdc_error *err)
{
    uint64_t offset = 0;
    int ret = find_notify(card, index, &offset, err);
    if (ret == 0)
        ret = open_doorbells(card, err);
    if (ret == 0)
        ret = make_bells(card, index, err);
    if (ret == 0)
        ret = sdc_driver_doorbell_choose(&card->doorbells, card->notify_by, offset, notification_size(card), index,
                                         &card->bells[index], err);
    return ret;
}

// A device that does not take the size keeps the one it had, and would go on at other places than we do.
static int set_size(struct virtio_pci *card, uint16_t index, uint16_t size, struct sdc_error *err)
{
    uint32_t back = 0;
    int ret = common_write(card, QUEUE_SIZE, 2, size, err);
    if (ret == 0)
        ret = common_read(card, QUEUE_SIZE, 2, &back, err);
    if (ret == 0 && back != size)
        return sdc_error_set(err, -ENOTSUP, SDC_FAULT_PEER,
                             "queue %u: the device did not take %u entries but keeps %" PRIu32, index, size,
                             back);
    return ret;
}

// 64-bit registers are written as two halves, which every device has to take (4.1.3.1).
static int write_addresses(struct virtio_pci *card, const struct sdc_driver_queue_place *place, struct sdc_error *err)
{
    static const uint32_t registers[] = {QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE};
    const uint64_t addresses[] = {place->desc, place->driver, place->device};
    struct sdc_vfio_write writes[2 * SDC_COUNT(registers)];
    for (uint32_t i = 0; i < SDC_COUNT(writes); i++) {
        writes[i] = (struct sdc_vfio_write){
            .region = card->places[COMMON].region,
            .size = 4,
            .offset = card->places[COMMON].offset + registers[i / 2] + 4 * (i % 2),
        };
        sdc_put32(writes[i].data, (uint32_t)(addresses[i / 2] >> (32 * (i % 2))));
    }
    return sdc_vfio_client_write_multi(card->pci.client, writes, SDC_COUNT(writes), false, err);
}

static int queue_setup(struct sdc_driver_transport *transport, const struct sdc_driver_queue_place *place,
                       struct sdc_error *err)
{
    struct virtio_pci *card = of(transport);
    int ret = common_write(card, QUEUE_SELECT, 2, place->index, err);
    if (ret == 0)
        ret = setup_bell(card, place->index, err);
    if (ret == 0)
        ret = set_size(card, place->index, place->size, err);
    if (ret == 0)
        ret = write_addresses(card, place, err);
    if (ret == 0 && place->call_fd >= 0)
        ret = set_vector(card, place->index + UINT32_C(1), place->call_fd, QUEUE_VECTOR, err);
    else if (ret == 0)
        ret = common_write(card, QUEUE_VECTOR, 2, NO_VECTOR, err);
    if (ret == 0)
        ret = common_write(card, QUEUE_ENABLE, 2, 1, err);
    return ret;
}

// Selects a queue whose reset register is to be used.
static int select_for_reset(struct virtio_pci *card, uint16_t index, struct sdc_error *err)
{
    if (card->places[COMMON].size < QUEUE_RESET + 2)
        return sdc_error_set(err, -ENOTSUP, SDC_FAULT_PEER,
                             "the device's common configuration has %" PRIu64
                             " bytes, and no register that resets a queue",
                             card->places[COMMON].size);
    return common_write(card, QUEUE_SELECT, 2, index, err);
}

static int queue_reset(struct sdc_driver_transport *transport, uint16_t index, struct sdc_error *err)
{
    struct virtio_pci *card = of(transport);
    int ret = select_for_reset(card, index, err);
    return ret < 0 ? ret : common_write(card, QUEUE_RESET, 2, 1, err);
}

// 4.1.4.3.2: the register reads 1 while the reset is under way, then 0.
static int queue_resetting(struct sdc_driver_transport *transport, uint16_t index, bool *resetting,
                           struct sdc_error *err)
{
    struct virtio_pci *card = of(transport);
    uint32_t value = 0;
    int ret = select_for_reset(card, index, err);
    if (ret == 0)
        ret = common_read(card, QUEUE_RESET, 2, &value, err);
    *resetting = value != 0;
    return ret;
}

static int notify(struct sdc_driver_transport *transport, uint16_t index, uint16_t position, struct sdc_error *err)
{
    struct virtio_pci *card = of(transport);
    uint32_t value = index | (card->notification_data ? (uint32_t)position << 16 : 0);
    return sdc_driver_doorbell_ring(&card->doorbells, &card->bells[index], value, notification_size(card), err);
}

static const char *notified_by(struct sdc_driver_transport *transport, uint16_t index)
{
    return sdc_driver_notify_name(of(transport)->bells[index].way);
}

// --- memory, life and death ---

static int map(struct sdc_driver_transport *transport, const struct sdc_client_memory *memory,
               struct sdc_error *err)
{
    return sdc_driver_pci_map(&of(transport)->pci, memory, err);
}

static int hangup_fd(struct sdc_driver_transport *transport)
{
    return sdc_vfio_client_fd(of(transport)->pci.client);
}

static int check(struct sdc_driver_transport *transport, struct sdc_error *err)
{
    return sdc_driver_pci_check(&of(transport)->pci, err);
}

static void close_transport(struct sdc_driver_transport *transport)
{
    struct virtio_pci *card = of(transport);
    sdc_vfio_client_close(card->pci.client);
    sdc_driver_doorbells_close(&card->doorbells);
    free(card->bells);
    free(card);
}

static const struct sdc_driver_transport_ops virtio_pci_ops = {
    .name = "virtio-pci over vfio-user",
    SDC_DRIVER_TRANSPORT_FUNCTIONS,
    .notified_by = notified_by,
};

// --- finding the registers ---

// One vendor capability. The first of each type counts (4.1.4.1); one that points nowhere is passed over.
static void take_structure(struct virtio_pci *card, uint8_t at)
{
    const uint8_t *config = card->pci.config;
    if (at > sizeof card->pci.config - CAP_BYTES || config[at + CAP_LENGTH] < CAP_BYTES)
        return;
    uint8_t type = config[at + CAP_TYPE], bar = config[at + CAP_BAR];
    if (type < COMMON || type >= STRUCTURES || bar > 5 || card->places[type].found)
        return;
    struct place place = {
        .found = true,
        .region = bar,
        .offset = sdc_get32(config + at + CAP_OFFSET),
        .size = sdc_get32(config + at + CAP_SIZE),
    };
    if (!sdc_within(place.offset, place.size, card->pci.bars[bar].region_size))
        return;
    if (type == NOTIFY) {
        if (at > sizeof card->pci.config - CAP_BYTES - 4 || config[at + CAP_LENGTH] < CAP_BYTES + 4)
            return;
        card->notify_multiplier = sdc_get32(config + at + CAP_MULTIPLIER);
    }
    card->places[type] = place;
}

static int find_structures(struct virtio_pci *card, struct sdc_error *err)
{
    const struct sdc_driver_pci *pci = &card->pci;
    for (unsigned i = 0; i < pci->capabilities_count; i++)
        if (pci->capabilities[i].id == SDC_DRIVER_PCI_CAP_VENDOR)
            take_structure(card, pci->capabilities[i].offset);
    if (card->places[COMMON].found && card->places[COMMON].size >= COMMON_BYTES && card->places[NOTIFY].found)
        return 0;
    return sdc_error_set(err, -ENODEV, SDC_FAULT_PEER,
                         "the device has no %s structure inside a BAR: it is no virtio 1 device",
                         card->places[COMMON].found ? "notification" : "common configuration");
}

static int find_device(struct virtio_pci *card, struct sdc_vfio_client *client, struct sdc_error *err)
{
    int ret = sdc_driver_pci_open(client, &card->pci, err);
    if (ret < 0)
        return ret;
    if (card->pci.vendor_id != VENDOR_VIRTIO || card->pci.device_id <= DEVICE_MODERN ||
        card->pci.device_id > 0x107f)
        return sdc_error_set(err, -ENODEV, SDC_FAULT_PEER,
                             "the device is %04x:%04x; a virtio device is 1af4:1041 to 1af4:107f",
                             card->pci.vendor_id, card->pci.device_id);
    ret = find_structures(card, err);
    if (ret < 0)
        return ret;
    return sdc_driver_pci_enable(&card->pci, true, err);
}

int sdc_driver_virtio_pci_open(struct sdc_vfio_client *client, struct sdc_driver_transport **transport,
                               struct sdc_error *err)
{
    struct virtio_pci *card = calloc(1, sizeof *card);
    int ret = card ? find_device(card, client, err)
                   : sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a device");
    if (ret < 0) {
        free(card);
        sdc_vfio_client_close(client);
        return ret;
    }
    card->transport.ops = &virtio_pci_ops;
    *transport = &card->transport;
    return 0;
}

void sdc_driver_virtio_pci_notify_by(struct sdc_driver_transport *transport, enum sdc_driver_notify way)
{
    of(transport)->notify_by = way;
}
