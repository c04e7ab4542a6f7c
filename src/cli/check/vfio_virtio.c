// SPDX-License-Identifier: BSD-3-Clause
// A virtio device's registers over PCI (virtio 1.2, 4.1): where they are, status, features, queues. Rings are tested elsewhere.
#include "cli/check/vfio.h"

#include "base/check.h"
#include "os/clock.h"
#include "os/memfd.h"

#include <inttypes.h>
#include <string.h>

#include <sidecard/virtio.h>

#define VIRTIO(section) "virtio 1.2, " section
#define MS_NS UINT64_C(1000000)

enum { CFG_COMMON = 1, CFG_NOTIFY, CFG_ISR, CFG_DEVICE, CFG_PCI, CFGS };

// Offsets in a vendor capability (4.1.4).
enum { CAP_LENGTH = 2, CAP_TYPE = 3, CAP_BAR = 4, CAP_OFFSET = 8, CAP_SIZE = 12, CAP_EXTRA = 16, CAP_VENDOR = 9 };

// Offsets in the common configuration (4.1.4.3), with sizes behind them.
enum {
    FEATURE_SELECT = 0x00,
    FEATURE = 0x04,
    GUEST_SELECT = 0x08,
    GUEST = 0x0c,
    CONFIG_VECTOR = 0x10,
    NUM_QUEUES = 0x12,
    STATUS = 0x14,
    GENERATION = 0x15,
    QUEUE_SELECT = 0x16,
    QUEUE_SIZE = 0x18,
    QUEUE_VECTOR = 0x1a,
    QUEUE_ENABLE = 0x1c,
    QUEUE_DESC = 0x20,
    QUEUE_DRIVER = 0x28,
    QUEUE_DEVICE = 0x30,
    COMMON_SIZE = 0x38,
};

enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8, NO_VECTOR = 0xffff, WALK_MAX = 48, PAGE = 4096 };

struct place {
    uint32_t at; // in configuration space; 0: there is none
    uint32_t bar;
    uint64_t offset;
    uint64_t size;
};

struct device {
    struct sdc_check_vfio vfio;
    struct place places[CFGS];
    uint64_t offered;
};

static uint32_t config(struct device *device, uint32_t offset, uint32_t size)
{
    return (uint32_t)sdc_check_vfio_read(&device->vfio, SDC_CHECK_REGION_CONFIG, offset, size);
}

static uint64_t get(struct device *device, uint32_t offset, uint32_t size)
{
    const struct place *common = &device->places[CFG_COMMON];
    return sdc_check_vfio_read(&device->vfio, common->bar, common->offset + offset, size);
}

static void put(struct device *device, uint32_t offset, uint64_t value, uint32_t size)
{
    const struct place *common = &device->places[CFG_COMMON];
    sdc_check_vfio_write(&device->vfio, common->bar, common->offset + offset, value, size);
}

// Notes where the structures are, the first of each kind.
static void find_places(struct device *device)
{
    uint32_t at = config(device, 0x34, 1);
    for (unsigned i = 0; i < WALK_MAX && at >= 0x40; i++) {
        uint32_t type = config(device, at + CAP_TYPE, 1);
        if (config(device, at, 1) == CAP_VENDOR && type >= CFG_COMMON && type < CFGS && device->places[type].at == 0)
            device->places[type] = (struct place){at, config(device, at + CAP_BAR, 1), config(device, at + CAP_OFFSET, 4),
                                                  config(device, at + CAP_SIZE, 4)};
        at = config(device, at + 1, 1);
    }
}

// 4.1.4.3.2: until it reads 0, the reset goes on.
static void reset(struct device *device)
{
    uint64_t give_up = sdc_clock_ns() + (uint64_t)sdc_check_patience(device->vfio.check) * MS_NS;
    put(device, STATUS, 0, 1);
    while (get(device, STATUS, 1) != 0) {
        sdc_check_that(device->vfio.check, sdc_clock_ns() < give_up, "device_status reads 0 once the device has been reset");
        sdc_clock_pause(MS_NS);
    }
}

static uint64_t offered(struct device *device)
{
    put(device, FEATURE_SELECT, 0, 4);
    uint64_t bits = get(device, FEATURE, 4);
    put(device, FEATURE_SELECT, 1, 4);
    return bits | get(device, FEATURE, 4) << 32;
}

static void open_device(struct device *device, struct sdc_check *check)
{
    *device = (struct device){0};
    sdc_check_vfio_open(&device->vfio, check);
    find_places(device);
    if (device->places[CFG_COMMON].at == 0)
        sdc_check_not_offered(check, "the device has no common configuration: it is a legacy one");
    sdc_check_vfio_write(&device->vfio, SDC_CHECK_REGION_CONFIG, 4, 6, 2); // Memory Space, Bus Master
    reset(device);
    device->offered = offered(device);
}

// Accepts these features. Whether the device takes them.
static bool negotiate(struct device *device, uint64_t features)
{
    reset(device);
    put(device, STATUS, ACKNOWLEDGE, 1);
    put(device, STATUS, ACKNOWLEDGE | DRIVER, 1);
    for (uint32_t half = 0; half < 2; half++) {
        put(device, GUEST_SELECT, half, 4);
        put(device, GUEST, features >> (32 * half) & UINT32_MAX, 4);
    }
    put(device, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK, 1);
    return get(device, STATUS, 1) & FEATURES_OK;
}

// --- where things are ---

static void structures(struct sdc_check *check)
{
    static const struct {
        unsigned type;
        uint64_t least;
        uint32_t align;
        const char *name;
    } rows[] = {{CFG_COMMON, COMMON_SIZE, 4, "common configuration"},
                {CFG_NOTIFY, 2, 2, "notification structure"},
                {CFG_ISR, 1, 1, "ISR status"},
                {CFG_DEVICE, 1, 4, "device-specific configuration"}};
    struct device device;
    open_device(&device, check);
    for (size_t i = 0; i < SDC_COUNT(rows); i++) {
        const struct place *place = &device.places[rows[i].type];
        if (place->at == 0 && rows[i].type == CFG_DEVICE)
            continue;
        sdc_check_that(check, place->at != 0, "there must be at least one capability for the %s", rows[i].name);
        sdc_check_that(check, place->bar < 6, "the %s is in one of six BARs", rows[i].name);
        sdc_check_that(check, place->size >= rows[i].least && place->offset % rows[i].align == 0,
                       "the %s has at least %" PRIu64 " bytes, aligned to %" PRIu32, rows[i].name, rows[i].least, rows[i].align);
        sdc_check_that(check, sdc_within(place->offset, place->size, sdc_check_vfio_region(&device.vfio, place->bar).size),
                       "the %s lies in its BAR", rows[i].name);
        sdc_check_that(check, config(&device, place->at + CAP_LENGTH, 1) >= CAP_EXTRA + (rows[i].type == CFG_NOTIFY ? 4u : 0u),
                       "cap_len includes all of the capability's fields");
    }
    uint32_t multiplier = config(&device, device.places[CFG_NOTIFY].at + CAP_EXTRA, 4);
    sdc_check_that(check, multiplier == 0 || (sdc_is_power_of_two(multiplier) && multiplier % 2 == 0),
                   "notify_off_multiplier is an even power of 2, or 0 (it is %" PRIu32 ")", multiplier);
}

// 4.1.4.9: a BAR through configuration space.
static void window(struct sdc_check *check)
{
    struct device device;
    open_device(&device, check);
    uint32_t at = device.places[CFG_PCI].at;
    sdc_check_that(check, at != 0, "the device must present at least one capability VIRTIO_PCI_CAP_PCI_CFG");
    const struct place *common = &device.places[CFG_COMMON];
    static const uint32_t offsets[] = {NUM_QUEUES, STATUS, QUEUE_SIZE}, sizes[] = {2, 1, 2};
    for (size_t i = 0; i < SDC_COUNT(offsets); i++) {
        uint64_t direct = get(&device, offsets[i], sizes[i]);
        sdc_check_vfio_write(&device.vfio, SDC_CHECK_REGION_CONFIG, at + CAP_BAR, common->bar, 1);
        sdc_check_vfio_write(&device.vfio, SDC_CHECK_REGION_CONFIG, at + CAP_SIZE, sizes[i], 4);
        sdc_check_vfio_write(&device.vfio, SDC_CHECK_REGION_CONFIG, at + CAP_OFFSET, common->offset + offsets[i], 4);
        uint64_t through = config(&device, at + CAP_EXTRA, sizes[i]);
        sdc_check_that(check, through == direct, "a read of pci_cfg_data is a read of cap.length bytes at cap.offset of the BAR cap.bar");
    }
}

// --- status ---

static void status_goes_on(struct sdc_check *check)
{
    struct device device;
    open_device(&device, check);
    sdc_check_that(check, get(&device, STATUS, 1) == 0, "the device initializes device_status to 0 on reset");
    put(&device, STATUS, ACKNOWLEDGE, 1);
    sdc_check_that(check, get(&device, STATUS, 1) == ACKNOWLEDGE, "ACKNOWLEDGE stays set");
    put(&device, STATUS, ACKNOWLEDGE | DRIVER, 1);
    sdc_check_that(check, get(&device, STATUS, 1) == (ACKNOWLEDGE | DRIVER), "DRIVER stays set");
    reset(&device);
    sdc_check_that(check, negotiate(&device, SDC_VIRTIO_F_VERSION_1),
                   "VERSION_1 alone is a valid subset of the features");
    put(&device, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK, 1);
    sdc_check_that(check, (get(&device, STATUS, 1) & 0xf) == (ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK), "DRIVER_OK stays set");
    reset(&device);
}

static void reset_by_message(struct sdc_check *check)
{
    struct device device;
    struct sdc_check_reply reply;
    open_device(&device, check);
    if (!(sdc_check_vfio_info(&device.vfio).flags & SDC_VFU_DEVICE_RESET))
        sdc_check_not_offered(check, "the device has not the flag RESET");
    negotiate(&device, device.offered);
    sdc_check_vfio_do(&device.vfio, &(struct sdc_check_command){.command = SDC_VFU_RESET}, 0, &reply);
    sdc_check_vfio_write(&device.vfio, SDC_CHECK_REGION_CONFIG, 4, 6, 2);
    sdc_check_that(check, get(&device, STATUS, 1) == 0, "the device initializes device_status to 0 upon reset");
}

// --- features ---

static void features_offered(struct sdc_check *check)
{
    static const uint32_t selects[] = {4, 0x7fffffff, UINT32_MAX};
    struct device device;
    open_device(&device, check);
    sdc_check_that(check, device.offered & SDC_VIRTIO_F_VERSION_1, "a device must offer VIRTIO_F_VERSION_1");
    for (size_t i = 0; i < SDC_COUNT(selects); i++) {
        put(&device, FEATURE_SELECT, selects[i], 4);
        sdc_check_that(check, get(&device, FEATURE, 4) == 0,
                       "device_feature has the bits from device_feature_select * 32 on, and there are none from there on");
    }
    put(&device, FEATURE_SELECT, 1, 4);
    sdc_check_that(check, get(&device, FEATURE_SELECT, 4) == 1, "device_feature_select is read-write");
    sdc_check_that(check, offered(&device) == device.offered, "what is offered does not change");
}

static void all_accepted(struct sdc_check *check)
{
    struct device device;
    open_device(&device, check);
    sdc_check_that(check, negotiate(&device, device.offered), "the device accepts what it offers");
    if (!negotiate(&device, SDC_VIRTIO_F_VERSION_1))
        sdc_check_note(check, "the device, which should accept any valid subset of its features, does not accept VERSION_1 alone");
}

static void not_offered_refused(struct sdc_check *check)
{
    struct device device;
    open_device(&device, check);
    for (unsigned bit = 0; bit < 64; bit++) {
        uint64_t feature = UINT64_C(1) << bit;
        if (device.offered & feature)
            continue;
        sdc_check_that(check, !negotiate(&device, device.offered | feature),
                       "the device must fail to set FEATURES_OK when a feature is accepted that it did not offer (bit %u)", bit);
    }
}

// --- queues ---

static void queue_registers(struct sdc_check *check)
{
    struct device device;
    open_device(&device, check);
    uint32_t count = (uint32_t)get(&device, NUM_QUEUES, 2);
    sdc_check_that(check, count > 0, "a virtio device has queues");
    sdc_check_that(check, negotiate(&device, device.offered & ~SDC_VIRTIO_F_RING_PACKED), "the device accepts a subset of its features");
    for (uint32_t i = 0; i < count; i++) {
        put(&device, QUEUE_SELECT, i, 2);
        uint64_t size = get(&device, QUEUE_SIZE, 2);
        sdc_check_that(check, get(&device, QUEUE_ENABLE, 2) == 0, "queue_enable is 0 on reset (queue %" PRIu32 ")", i);
        sdc_check_that(check, size == 0 || (sdc_is_power_of_two(size) && size <= 32768),
                       "the size of a split queue is a power of 2, at most 32768 (queue %" PRIu32 ": %" PRIu64 ")", i, size);
        if (size >= 4) {
            put(&device, QUEUE_SIZE, size / 2, 2);
            sdc_check_that(check, get(&device, QUEUE_SIZE, 2) == size / 2, "a driver may reduce queue_size (queue %" PRIu32 ")", i);
        }
    }
    reset(&device);
    for (uint32_t i = 0; i < count; i++) {
        put(&device, QUEUE_SELECT, i, 2);
        sdc_check_that(check, get(&device, QUEUE_SELECT, 2) == i, "queue_select is read-write");
    }
}

static void no_such_queue(struct sdc_check *check)
{
    struct device device;
    open_device(&device, check);
    uint32_t count = (uint32_t)get(&device, NUM_QUEUES, 2);
    const uint32_t selects[] = {count, count + 1, 0x8000, 0xffff};
    for (size_t i = 0; i < SDC_COUNT(selects); i++) {
        if (selects[i] > 0xffff)
            continue;
        put(&device, QUEUE_SELECT, selects[i], 2);
        sdc_check_that(check, get(&device, QUEUE_SIZE, 2) == 0, "queue_size must be 0 if the queue of queue_select is unavailable");
        put(&device, QUEUE_SIZE, 4, 2);
        put(&device, QUEUE_ENABLE, 1, 2);
        put(&device, QUEUE_DESC, 0x1000, 4);
        sdc_check_that(check, get(&device, QUEUE_SIZE, 2) == 0, "queue_size must be 0 if the queue of queue_select is unavailable");
    }
    put(&device, QUEUE_SELECT, 0, 2);
    sdc_check_that(check, get(&device, QUEUE_SIZE, 2) != 0, "a queue that there is can be selected again");
}

// A queue with nothing in its ring is enabled, runs, and is gone with a reset.
static void queue_enabled(struct sdc_check *check)
{
    struct device device;
    struct sdc_check_reply reply;
    open_device(&device, check);
    int fd = sdc_memfd_new("sidecard-check", 64 * PAGE);
    struct sdc_vfu_dma_map map = {.argsz = sizeof map, .flags = 3, .address = 0x100000, .size = 64 * PAGE};
    sdc_check_vfio_do(&device.vfio, &(struct sdc_check_command){.command = SDC_VFU_DMA_MAP, .payload = &map, .size = sizeof map, .fds = &fd,
                                                                .fds_count = 1},
                      0, &reply);
    sdc_check_that(check, negotiate(&device, SDC_VIRTIO_F_VERSION_1), "the device accepts a subset of its features");
    put(&device, QUEUE_SELECT, 0, 2);
    put(&device, QUEUE_SIZE, 8, 2);
    static const uint32_t registers[] = {QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE};
    for (uint32_t i = 0; i < SDC_COUNT(registers); i++) {
        put(&device, registers[i], 0x100000 + i * PAGE, 4);
        put(&device, registers[i] + 4, 0, 4);
        sdc_check_that(check, get(&device, registers[i], 4) == 0x100000 + i * PAGE && get(&device, registers[i] + 4, 4) == 0,
                       "the addresses of a queue are read-write");
    }
    put(&device, QUEUE_ENABLE, 1, 2);
    sdc_check_that(check, get(&device, QUEUE_ENABLE, 2) == 1, "queue_enable stays set");
    put(&device, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK, 1);
    const struct place *notify = &device.places[CFG_NOTIFY];
    sdc_check_vfio_write(&device.vfio, notify->bar, notify->offset, 0, 2);
    sdc_check_that(check, !(get(&device, STATUS, 1) & 0x40), "there is nothing wrong with an empty queue: DEVICE_NEEDS_RESET is not set");
    reset(&device);
    put(&device, QUEUE_SELECT, 0, 2);
    sdc_check_that(check, get(&device, QUEUE_ENABLE, 2) == 0, "queue_enable is 0 on reset");
}

static void vectors(struct sdc_check *check)
{
    struct device device;
    open_device(&device, check);
    uint32_t count = sdc_check_vfio_irq(&device.vfio, SDC_CHECK_IRQ_MSIX).count;
    if (count == 0)
        sdc_check_not_offered(check, "the device has no MSI-X");
    put(&device, QUEUE_SELECT, 0, 2);
    static const uint32_t registers[] = {CONFIG_VECTOR, QUEUE_VECTOR};
    for (size_t i = 0; i < SDC_COUNT(registers); i++) {
        put(&device, registers[i], count - 1, 2);
        uint64_t vector = get(&device, registers[i], 2);
        sdc_check_that(check, vector == count - 1 || vector == NO_VECTOR,
                       "a vector register reads back the vector, or NO_VECTOR if the mapping failed");
        put(&device, registers[i], count, 2);
        if (get(&device, registers[i], 2) != NO_VECTOR)
            sdc_check_note(check, "a vector that the MSI-X table has not got is taken for one");
        put(&device, registers[i], NO_VECTOR, 2);
        sdc_check_that(check, get(&device, registers[i], 2) == NO_VECTOR, "NO_VECTOR unmaps the event");
    }
}

static void read_only(struct sdc_check *check)
{
    static const struct {
        uint32_t offset, size;
        const char *name;
    } rows[] = {{FEATURE, 4, "device_feature"}, {NUM_QUEUES, 2, "num_queues"}, {GENERATION, 1, "config_generation"}};
    struct device device;
    open_device(&device, check);
    for (size_t i = 0; i < SDC_COUNT(rows); i++) {
        uint64_t before = get(&device, rows[i].offset, rows[i].size);
        put(&device, rows[i].offset, ~before & 0xff, rows[i].size);
        sdc_check_that(check, get(&device, rows[i].offset, rows[i].size) == before, "%s is read-only for the driver", rows[i].name);
    }
}

// --- the device's own configuration ---

static void own_config(struct sdc_check *check)
{
    struct device device;
    uint8_t bytes[64];
    open_device(&device, check);
    const struct place *place = &device.places[CFG_DEVICE];
    if (place->at == 0)
        sdc_check_not_offered(check, "the device has no configuration of its own");
    uint32_t size = (uint32_t)sdc_min(place->size, sizeof bytes);
    uint64_t before, after;
    unsigned tries = 0;
    do {
        before = get(&device, GENERATION, 1);
        for (uint32_t i = 0; i < size; i++)
            bytes[i] = (uint8_t)sdc_check_vfio_read(&device.vfio, place->bar, place->offset + i, 1);
        after = get(&device, GENERATION, 1);
    } while (before != after && tries++ < 10);
    for (uint32_t i = 0; i + 4 <= size; i += 4) {
        uint32_t whole = (uint32_t)sdc_check_vfio_read(&device.vfio, place->bar, place->offset + i, 4);
        bool same = memcmp(&whole, bytes + i, 4) == 0;
        sdc_check_that(check, same || get(&device, GENERATION, 1) != after,
                       "of one config_generation, fields are the same whatever the accesses' widths (at 0x%02" PRIx32 ")", i);
    }
}

#define ROW(name, section, run) {"virtio-pci/" name, VIRTIO(section), SDC_CHECK_VIRTIO, run}

static const struct sdc_check_test tests[] = {
    ROW("structures", "4.1.4", structures),
    ROW("window", "4.1.4.9", window),
    ROW("status", "2.1", status_goes_on),
    ROW("reset-by-message", "4.1.4.3", reset_by_message),
    ROW("features-offered", "4.1.4.3, 6", features_offered),
    ROW("features-accepted", "2.2", all_accepted),
    ROW("features-not-offered", "2.2", not_offered_refused),
    ROW("queue-registers", "4.1.4.3", queue_registers),
    ROW("no-such-queue", "4.1.4.3", no_such_queue),
    ROW("queue-enabled", "4.1.4.3", queue_enabled),
    ROW("vectors", "4.1.5.1.2", vectors),
    ROW("read-only", "4.1.4.3", read_only),
    ROW("own-config", "2.5", own_config),
};

const struct sdc_check_table sdc_check_vfio_virtio = {tests, SDC_COUNT(tests)};
