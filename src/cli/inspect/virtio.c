// SPDX-License-Identifier: BSD-3-Clause
// A virtio device on PCI: what its common configuration says (virtio 1.2, 4.1.4.3). What is selected for that is selected as before
// when it has been read.
#include "cli/inspect/inspect.h"

#include "base/bytes.h"
#include "base/check.h"
#include "wire/names.h"

#include <errno.h>
#include <stdio.h>

enum {
    VENDOR_CAP = 0x09,
    MODERN = 0x1040, // plus the device's number
    SUBSYSTEM = 0x2e,
    QUEUES_MAX = 1024, // that are shown
    CONFIG_MAX = 256,  // bytes of a device's own configuration that are shown
    CAP_BYTES = 16,
    CAP_MULTIPLIER = 16,
    NO_VECTOR = 0xffff,
};

// The structures that vendor capabilities point to (4.1.4).
enum structure { COMMON = 1, NOTIFY, ISR, DEVICE, STRUCTURES };

// Registers of the common configuration.
struct reg {
    uint8_t offset;
    uint8_t size;
};
static const struct reg feature_select = {0x00, 4}, feature = {0x04, 4}, config_vector = {0x10, 2}, num_queues = {0x12, 2},
                        status = {0x14, 1}, generation = {0x15, 1}, queue_select = {0x16, 2}, queue_size = {0x18, 2},
                        queue_vector = {0x1a, 2}, queue_enable = {0x1c, 2}, queue_notify_off = {0x1e, 2};
enum { COMMON_BYTES = 0x38 };

struct place {
    uint32_t region;
    uint64_t offset;
    uint64_t size; // bytes, 0: it has no such structure
};

struct virtio {
    struct sdc_inspect *inspect;
    const struct sdc_inspect_device *device;
    struct place places[STRUCTURES];
    uint32_t multiplier; // bytes between the places where queues are notified
    bool failed;         // reading a register did: the rest is left out
};

static void note(struct virtio *virtio, const struct sdc_error *err)
{
    virtio->failed = true;
    sdc_inspect_problem(virtio->inspect, "virtio registers", err);
}

static uint64_t get(struct virtio *virtio, const struct reg *reg)
{
    const struct place *place = &virtio->places[COMMON];
    struct sdc_error err = {0};
    uint64_t value = 0;

    if (!virtio->failed && sdc_inspect_read(virtio->device, place->region, place->offset + reg->offset, reg->size, &value, &err) < 0)
        note(virtio, &err);
    return value;
}

static void set(struct virtio *virtio, const struct reg *reg, uint64_t value)
{
    const struct place *place = &virtio->places[COMMON];
    struct sdc_error err = {0};

    if (!virtio->failed && sdc_inspect_write(virtio->device, place->region, place->offset + reg->offset, reg->size, value, &err) < 0)
        note(virtio, &err);
}

// --- finding the registers ---

// The first of each type counts (4.1.4.1).
static void take_place(struct virtio *virtio, const uint8_t *bytes, size_t size)
{
    if (size < CAP_BYTES || bytes[2] < CAP_BYTES || bytes[3] < COMMON || bytes[3] >= STRUCTURES || bytes[4] >= SDC_INSPECT_BARS)
        return;
    struct place place = {.region = bytes[4], .offset = sdc_get32(bytes + 8), .size = sdc_get32(bytes + 12)};
    if (virtio->places[bytes[3]].size > 0 || !sdc_within(place.offset, place.size, virtio->device->config.bar_sizes[place.region]))
        return;
    if (bytes[3] == NOTIFY && size >= CAP_MULTIPLIER + 4 && bytes[2] >= CAP_MULTIPLIER + 4)
        virtio->multiplier = sdc_get32(bytes + CAP_MULTIPLIER);
    virtio->places[bytes[3]] = place;
}

static void find_places(struct virtio *virtio)
{
    const struct sdc_inspect_config *config = &virtio->device->config;
    struct sdc_inspect_walk walk = {.config = config};

    while (sdc_inspect_walk_next(&walk)) {
        if (walk.at.id == VENDOR_CAP)
            take_place(virtio, config->bytes + walk.at.offset, sdc_min(config->size, 256) - walk.at.offset);
    }
}

// --- what they say ---

static uint64_t read_features(struct virtio *virtio)
{
    uint64_t before = get(virtio, &feature_select), features = 0;

    for (unsigned half = 0; half < 2; half++) {
        set(virtio, &feature_select, half);
        features |= (get(virtio, &feature) & UINT32_MAX) << (32 * half);
    }
    set(virtio, &feature_select, before);
    return features;
}

static void put_queue(struct virtio *virtio, json_t *list, unsigned index)
{
    json_t *object;

    set(virtio, &queue_select, index);
    uint64_t size = get(virtio, &queue_size), vector = get(virtio, &queue_vector), enabled = get(virtio, &queue_enable);
    uint64_t notify = get(virtio, &queue_notify_off) * virtio->multiplier;
    if (virtio->failed)
        return;
    object = sdc_tree_append(list);
    sdc_tree_put_number(object, "index", index);
    sdc_tree_put_number(object, "entries", size);
    sdc_tree_put_flag(object, "enabled", enabled != 0);
    if (vector != NO_VECTOR)
        sdc_tree_put_number(object, "vector", vector);
    sdc_tree_put_hex(object, "notify_offset", notify, 1);
}

static void put_queues(struct virtio *virtio, json_t *object, uint64_t count)
{
    uint64_t before = get(virtio, &queue_select);
    json_t *list = sdc_tree_array(object, "queues");

    for (unsigned i = 0; i < count && i < QUEUES_MAX && !virtio->failed; i++)
        put_queue(virtio, list, i);
    set(virtio, &queue_select, before);
    if (count > QUEUES_MAX)
        sdc_tree_put_number(object, "queues_left_out", count - QUEUES_MAX);
}

// In aligned words: what every device has to take (4.1.3.1). There are devices whose structure ends before its length; what they refuse
// is not there.
static void put_config(struct virtio *virtio, json_t *object, unsigned number, uint64_t features)
{
    const struct place *place = &virtio->places[DEVICE];
    uint32_t size = (uint32_t)sdc_min(place->size, CONFIG_MAX);
    uint8_t bytes[CONFIG_MAX];
    struct sdc_error err = {0};

    for (uint32_t at = 0, step; at < size && !virtio->failed; at += step) {
        uint64_t value;
        for (step = 4; step > size - at || (place->offset + at) % step != 0;)
            step /= 2;
        int ret = sdc_inspect_read(virtio->device, place->region, place->offset + at, step, &value, &err);
        if (ret < 0 && (at == 0 || sdc_inspect_ends(ret)))
            note(virtio, &err);
        if (ret < 0)
            size = at;
        for (uint32_t i = 0; ret == 0 && i < step; i++)
            bytes[at + i] = (uint8_t)(value >> (8 * i));
    }
    if (!virtio->failed && size > 0)
        sdc_inspect_virtio_config_put(object, number, features, bytes, size, virtio->inspect->options->hex);
}

void sdc_inspect_virtio(struct sdc_inspect *inspect, const struct sdc_inspect_device *device)
{
    struct virtio virtio = {.inspect = inspect, .device = device};
    const uint8_t *bytes = device->config.bytes;
    uint16_t id = sdc_get16(bytes + 2);
    // A transitional device has its number as the subsystem's (4.1.2.1).
    unsigned number = id >= MODERN ? id - (unsigned)MODERN : sdc_get16(bytes + SUBSYSTEM);
    uint64_t features = 0;

    find_places(&virtio);
    json_t *object = sdc_tree_object(inspect->root, "virtio");
    sdc_tree_put_number(object, "device_number", number);
    if (sdc_virtio_device_name(number))
        sdc_tree_put_string(object, "device", sdc_virtio_device_name(number));
    if (virtio.places[COMMON].size < COMMON_BYTES) {
        struct sdc_error why;
        sdc_error_set(&why, -ENODEV, SDC_FAULT_PEER, "there is no common configuration inside a BAR: it is no virtio 1 device");
        note(&virtio, &why);
        return;
    }
    sdc_tree_put_names(object, "status", get(&virtio, &status), sdc_virtio_status_name, 0);
    sdc_tree_put_number(object, "generation", get(&virtio, &generation));
    uint64_t vector = get(&virtio, &config_vector), count = get(&virtio, &num_queues);
    if (vector != NO_VECTOR)
        sdc_tree_put_number(object, "config_vector", vector);
    sdc_tree_put_number(object, "queues_count", count);
    if (!inspect->options->passive) {
        features = read_features(&virtio);
        sdc_tree_put_hex(object, "features_value", features, 16);
        sdc_tree_put_names(object, "features", features, sdc_virtio_feature_name, number);
        put_queues(&virtio, object, count);
    }
    put_config(&virtio, object, number, inspect->options->passive ? UINT64_MAX : features);
}
