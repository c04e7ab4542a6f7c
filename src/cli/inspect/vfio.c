// SPDX-License-Identifier: BSD-3-Clause
// What a vfio-user server says in messages: the connection, the device, its regions, interrupts and features; and its configuration space.
#include "cli/inspect/inspect.h"

#include "base/bytes.h"
#include "base/check.h"
#include "wire/names.h"
#include "wire/vfio_user.h"

#include <errno.h>
#include <stdio.h>

enum {
    REGION_CONFIG = 7,
    REGIONS_MAX = 64, // that are asked about
    IRQS_MAX = 64,
    AREAS_MAX = 64, // of a region that are shown
    CLASS_NVME = 0x010802,
    VENDOR_VIRTIO = 0x1af4,
    DEVICE_VIRTIO_FIRST = 0x1000, // transitional ones, and from 0x1040 on the others
    DEVICE_VIRTIO_LAST = 0x107f,
    COMMAND = 4,
    COMMAND_MEMORY = 2,
};

// --- registers ---

int sdc_inspect_read(const struct sdc_inspect_device *device, uint32_t region, uint64_t offset, uint32_t size, uint64_t *value,
                     struct sdc_error *err)
{
    uint8_t raw[8] = {0};
    int ret = sdc_vfio_client_read(device->client, region, offset, raw, size, err);

    *value = sdc_get64(raw);
    return ret;
}

int sdc_inspect_write(const struct sdc_inspect_device *device, uint32_t region, uint64_t offset, uint32_t size, uint64_t value,
                      struct sdc_error *err)
{
    uint8_t raw[8];

    sdc_put64(raw, value);
    return sdc_vfio_client_write(device->client, region, offset, raw, size, err);
}

// --- messages ---

static void put_connection(struct sdc_inspect *inspect, struct sdc_vfio_client *client)
{
    const struct sdc_vfio_client_session *session = sdc_vfio_client_session(client);
    json_t *object = sdc_tree_object(inspect->root, "connection");
    char version[16];

    snprintf(version, sizeof version, "%u.%u", session->major, session->minor);
    sdc_tree_put_string(object, "version", version);
    sdc_tree_put_number(object, "max_message_fds", session->max_message_fds);
    sdc_tree_put_number(object, "max_data_transfer_size", session->max_data_transfer);
    sdc_tree_put_number(object, "max_dma_maps", session->max_dma_maps);
    sdc_tree_put_hex(object, "page_sizes", session->page_sizes, 4);
    sdc_tree_put_flag(object, "write_multiple", session->write_multiple);
    sdc_tree_put_flag(object, "twin_socket", session->twin_socket);
}

static const char *device_flag(unsigned context, unsigned bit)
{
    static const char *const names[] = {"reset", "pci", "platform", "amba", "ccw", "ap", "fsl-mc", "caps", "cdx"};

    (void)context;
    return bit < SDC_COUNT(names) ? names[bit] : NULL;
}

static int put_device(struct sdc_inspect *inspect, struct sdc_vfio_client *client, struct sdc_vfio_device *info)
{
    struct sdc_error err = {0};
    int ret = sdc_vfio_client_device(client, info, &err);

    if (ret < 0) {
        sdc_inspect_problem(inspect, "device info", &err);
        return ret;
    }
    json_t *object = sdc_tree_object(inspect->root, "device");
    sdc_tree_put_names(object, "flags", info->flags, device_flag, 0);
    sdc_tree_put_number(object, "regions", info->regions_count);
    sdc_tree_put_number(object, "irqs", info->irqs_count);
    return 0;
}

static void put_word(json_t *list, bool set, const char *word)
{
    if (set)
        json_array_append_new(list, json_string(word));
}

static void put_region(json_t *list, const struct sdc_vfio_region *region)
{
    json_t *object = sdc_tree_append(list), *flags, *areas, *ids;

    sdc_tree_put_number(object, "index", region->index);
    sdc_tree_put_string(object, "name", sdc_vfu_region_name(region->index) ? sdc_vfu_region_name(region->index) : "unknown");
    sdc_tree_put_number(object, "size", region->size);
    flags = sdc_tree_array(object, "flags");
    put_word(flags, region->readable, "read");
    put_word(flags, region->writable, "write");
    put_word(flags, region->mappable, "mmap");
    if (region->fd >= 0)
        sdc_tree_put_hex(object, "fd_offset", region->fd_offset, 1);
    if (region->capabilities_count > 0) {
        ids = sdc_tree_array(object, "capabilities");
        for (uint32_t i = 0; i < region->capabilities_count && i < SDC_COUNT(region->capabilities); i++)
            json_array_append_new(ids, json_integer(region->capabilities[i]));
    }
    if (region->areas_count == 0)
        return;
    areas = sdc_tree_array(object, "areas");
    for (uint32_t i = 0; i < region->areas_count && i < AREAS_MAX; i++) {
        json_t *area = sdc_tree_append(areas);
        sdc_tree_put_hex(area, "offset", region->areas[i].offset, 1);
        sdc_tree_put_number(area, "size", region->areas[i].size);
    }
    if (region->areas_count > AREAS_MAX)
        sdc_tree_put_number(object, "areas_left_out", region->areas_count - AREAS_MAX);
}

// What is asked about, of a number that the server chose.
static uint32_t bounded(struct sdc_inspect *inspect, const char *what, uint32_t count, uint32_t max)
{
    struct sdc_error why;

    if (count <= max)
        return count;
    sdc_error_set(&why, -E2BIG, SDC_FAULT_PEER, "there are %u %s; only the first %u are shown", count, what, max);
    sdc_inspect_problem(inspect, NULL, &why);
    return max;
}

// *config_size: bytes of the configuration space.
static void put_regions(struct sdc_inspect *inspect, struct sdc_inspect_device *device, uint32_t count, uint64_t *config_size)
{
    json_t *list = sdc_tree_array(inspect->root, "regions");

    count = bounded(inspect, "regions", count, REGIONS_MAX);
    for (uint32_t i = 0; i < count && !inspect->lost; i++) {
        struct sdc_vfio_region region;
        struct sdc_error err = {0};
        if (sdc_vfio_client_region(device->client, i, &region, &err) < 0) {
            sdc_inspect_problem(inspect, "region info", &err);
            continue;
        }
        if (i < SDC_INSPECT_BARS)
            device->config.bar_sizes[i] = region.size;
        if (i == REGION_CONFIG)
            *config_size = region.size;
        put_region(list, &region);
        sdc_vfio_region_release(&region);
    }
}

static void put_irqs(struct sdc_inspect *inspect, struct sdc_vfio_client *client, uint32_t count)
{
    json_t *list = sdc_tree_array(inspect->root, "irqs");

    count = bounded(inspect, "interrupts", count, IRQS_MAX);
    for (uint32_t i = 0; i < count && !inspect->lost; i++) {
        struct sdc_vfio_irq irq;
        struct sdc_error err = {0};
        if (sdc_vfio_client_irq(client, i, &irq, &err) < 0) {
            sdc_inspect_problem(inspect, "interrupt info", &err);
            continue;
        }
        json_t *object = sdc_tree_append(list);
        sdc_tree_put_number(object, "index", i);
        sdc_tree_put_string(object, "name", sdc_vfu_irq_name(i) ? sdc_vfu_irq_name(i) : "unknown");
        sdc_tree_put_number(object, "count", irq.count);
        json_t *flags = sdc_tree_array(object, "flags");
        put_word(flags, irq.eventfd, "eventfd");
        put_word(flags, irq.maskable, "maskable");
        put_word(flags, irq.automasked, "automasked");
        put_word(flags, irq.no_resize, "noresize");
    }
}

// --- features (DEVICE_FEATURE) ---

static const char *migration_flag(unsigned context, unsigned bit)
{
    static const char *const names[] = {"stop_copy", "p2p", "pre_copy"};

    (void)context;
    return bit < SDC_COUNT(names) ? names[bit] : NULL;
}

static bool offers(struct sdc_inspect *inspect, struct sdc_vfio_client *client, uint16_t feature, unsigned use)
{
    struct sdc_error err = {0};

    if (inspect->lost || sdc_vfio_client_feature_probe(client, feature, use, &err) == 0)
        return !inspect->lost;
    if (sdc_inspect_ends(err.code))
        sdc_inspect_problem(inspect, "features", &err);
    return false;
}

static void put_features(struct sdc_inspect *inspect, struct sdc_vfio_client *client, json_t *list)
{
    static const uint16_t features[] = {SDC_VFU_FEATURE_MIGRATION, SDC_VFU_FEATURE_MIG_DEVICE_STATE, SDC_VFU_FEATURE_DMA_LOGGING_START,
                                        SDC_VFU_FEATURE_DMA_LOGGING_STOP, SDC_VFU_FEATURE_DMA_LOGGING_REPORT};

    for (size_t i = 0; i < SDC_COUNT(features); i++) {
        bool get = offers(inspect, client, features[i], SDC_VFIO_FEATURE_GET);
        bool set = offers(inspect, client, features[i], SDC_VFIO_FEATURE_SET);
        uint8_t raw[8] = {0};
        size_t came;
        if (!get && !set)
            continue;
        json_t *object = sdc_tree_append(list), *uses;
        sdc_tree_put_number(object, "number", features[i]);
        sdc_tree_put_string(object, "name", sdc_vfu_feature_name(features[i]));
        uses = sdc_tree_array(object, "uses");
        put_word(uses, get, "get");
        put_word(uses, set, "set");
        if (features[i] == SDC_VFU_FEATURE_MIGRATION && get &&
            sdc_vfio_client_feature_get(client, features[i], raw, 0, sizeof raw, &came, NULL) == 0 && came == sizeof raw)
            sdc_tree_put_names(object, "flags", sdc_get64(raw), migration_flag, 0);
    }
}

// --- the configuration space ---

// At once, as QEMU reads it; and from a server that does not have that, in words.
static int read_config(struct sdc_inspect_device *device, uint64_t size, struct sdc_error *err)
{
    struct sdc_inspect_config *config = &device->config;

    config->size = (size_t)sdc_min(size, sizeof config->bytes) & ~(size_t)3;
    int ret = sdc_vfio_client_read(device->client, REGION_CONFIG, 0, config->bytes, config->size, err);
    if (ret == 0 || sdc_inspect_ends(ret))
        return ret;
    for (size_t at = 0; at < config->size; at += 4) {
        ret = sdc_vfio_client_read(device->client, REGION_CONFIG, at, config->bytes + at, 4, err);
        if (ret < 0 && at == 0)
            return ret;
        if (ret < 0) {
            config->size = at; // as much as it has
            break;
        }
    }
    return 0;
}

static void inspect_kind(struct sdc_inspect *inspect, struct sdc_inspect_device *device)
{
    const uint8_t *bytes = device->config.bytes;
    uint16_t vendor = sdc_get16(bytes), id = sdc_get16(bytes + 2), command = sdc_get16(bytes + COMMAND);
    bool virtio = vendor == VENDOR_VIRTIO && id >= DEVICE_VIRTIO_FIRST && id <= DEVICE_VIRTIO_LAST;
    bool nvme = sdc_get32(bytes + 8) >> 8 == CLASS_NVME;
    bool decode = !(command & COMMAND_MEMORY) && !inspect->options->passive;
    struct sdc_error err = {0};

    if (!virtio && !nvme)
        return;
    // Without Memory Space a device need not answer at its BARs. That it does not is seen there.
    if (decode)
        sdc_inspect_write(device, REGION_CONFIG, COMMAND, 2, command | COMMAND_MEMORY, NULL);
    if (virtio)
        sdc_inspect_virtio(inspect, device);
    else
        sdc_inspect_nvme(inspect, device);
    if (decode && device->client && !inspect->lost && sdc_inspect_write(device, REGION_CONFIG, COMMAND, 2, command, &err) < 0)
        sdc_inspect_problem(inspect, "putting the command register back", &err);
}

static void put_config(struct sdc_inspect *inspect, struct sdc_inspect_device *device, uint64_t size)
{
    struct sdc_error err = {0};

    if (read_config(device, size, &err) < 0) {
        device->config.size = 0;
        sdc_inspect_problem(inspect, "configuration space", &err);
        return;
    }
    sdc_inspect_pci(sdc_tree_object(inspect->root, "pci"), &device->config, &inspect->ids, inspect->problems);
    if (inspect->options->hex)
        sdc_tree_put_bytes(inspect->root, "config_space", device->config.bytes, device->config.size, 0);
}

void sdc_inspect_vfio(struct sdc_inspect *inspect, struct sdc_vfio_client *client)
{
    struct sdc_inspect_device device = {.client = client};
    struct sdc_vfio_device info = {0};
    uint64_t config_size = 0;

    sdc_tree_put_string(inspect->root, "protocol", "vfio-user");
    put_connection(inspect, client);
    if (put_device(inspect, client, &info) == 0) {
        device.can_reset = info.can_reset;
        put_regions(inspect, &device, info.regions_count, &config_size);
        put_irqs(inspect, client, info.irqs_count);
    }
    json_t *features = sdc_tree_array(inspect->root, "features"); // asked for last: not every server knows the message
    if (info.is_pci && !inspect->lost)
        put_config(inspect, &device, config_size);
    put_features(inspect, client, features);
    if (device.config.size >= 64 && !inspect->lost)
        inspect_kind(inspect, &device);
    sdc_vfio_client_close(device.client);
}
