// SPDX-License-Identifier: BSD-3-Clause
// The guest's driver for the card of examples/card.c, in user space: it has the card turn a text into capitals, and prints it.
//
//   card sysfs 0000:00:02.0 TEXT    by what every kernel shows in /sys: registers are mapped, DMA goes to a page by its physical address
//   card vfio 0000:00:02.0 TEXT     by vfio-pci, behind an IOMMU; the interrupt comes on an eventfd
#include "card.h"

#include <err.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <poll.h>
#include <unistd.h>

enum { PATIENCE_MS = 20000, COMMAND = 4, MEMORY_AND_MASTER = 6 };

struct driver {
    volatile uint32_t *registers;
    const char *card_memory;
    char *source, *target; // a page each
    uint64_t source_address, target_address;
    int interrupt; // an eventfd, -1: none
    int interrupts;
};

static int open_or_die(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC);

    if (fd < 0)
        err(1, "%s", path);
    return fd;
}

static void *map_or_die(const char *what, int fd, off_t offset, size_t size, int flags)
{
    void *mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, offset);

    if (mapped == MAP_FAILED)
        err(1, "cannot map %s", what);
    return mapped;
}

static void wait_for_card(struct driver *driver)
{
    uint64_t times;

    if (driver->interrupt >= 0) {
        struct pollfd waited = {.fd = driver->interrupt, .events = POLLIN};
        if (poll(&waited, 1, PATIENCE_MS) != 1 || read(driver->interrupt, &times, sizeof times) != sizeof times)
            errx(1, "no interrupt came");
        driver->interrupts += (int)times;
    }
    for (int i = 0; driver->registers[CARD_STATUS] == CARD_BUSY; i++, usleep(1000))
        if (i > PATIENCE_MS)
            errx(1, "the card stays busy");
    if (driver->registers[CARD_STATUS] != CARD_DONE)
        errx(1, "status %u", driver->registers[CARD_STATUS]);
}

static void run(struct driver *driver, enum card_command command, uint64_t address, uint32_t size)
{
    driver->registers[CARD_ADDRESS] = (uint32_t)address;
    driver->registers[CARD_ADDRESS_HIGH] = (uint32_t)(address >> 32);
    driver->registers[CARD_SIZE] = size;
    driver->registers[CARD_COMMAND] = command;
    wait_for_card(driver);
}

static void drive(struct driver *driver, const char *text)
{
    const uint32_t size = (uint32_t)strlen(text);

    memcpy(driver->source, text, size);
    run(driver, CARD_LOAD, driver->source_address, size);
    printf("loaded: %.*s\n", (int)size, driver->card_memory);
    run(driver, CARD_CAPITALS, 0, size);
    run(driver, CARD_STORE, driver->target_address, size);
    printf("stored: %.*s\n", (int)size, driver->target);
    if (driver->interrupt >= 0)
        printf("interrupts: %d\n", driver->interrupts);
}

static void map_bar(struct driver *driver, int fd, off_t offset)
{
    char *bar = map_or_die("BAR 0", fd, offset, CARD_BAR_SIZE, MAP_SHARED);

    driver->registers = (volatile uint32_t *)bar;
    driver->card_memory = bar + CARD_PAGE;
}

// Bus mastering, and memory at all.
static void enable(int config, off_t offset)
{
    const uint16_t command = MEMORY_AND_MASTER;

    if (pwrite(config, &command, sizeof command, offset + COMMAND) != sizeof command)
        err(1, "cannot write to the configuration space");
}

// --- by sysfs ---

static uint64_t physical(const void *page)
{
    int fd = open_or_die("/proc/self/pagemap", O_RDONLY);
    uint64_t entry;

    if (pread(fd, &entry, sizeof entry, (off_t)((uintptr_t)page / CARD_PAGE * sizeof entry)) != sizeof entry)
        err(1, "/proc/self/pagemap");
    close(fd);
    if (!(entry >> 63) || !(entry & ((UINT64_C(1) << 55) - 1)))
        errx(1, "the page has no physical address");
    return (entry & ((UINT64_C(1) << 55) - 1)) * CARD_PAGE;
}

static void set_up_sysfs(struct driver *driver, const char *device)
{
    char path[128];

    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/config", device);
    enable(open_or_die(path, O_RDWR), 0);
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/resource0", device);
    map_bar(driver, open_or_die(path, O_RDWR), 0);
    driver->source = map_or_die("memory", -1, 0, 2 * CARD_PAGE, MAP_SHARED | MAP_ANONYMOUS | MAP_LOCKED | MAP_POPULATE);
    driver->target = driver->source + CARD_PAGE;
    driver->source_address = physical(driver->source);
    driver->target_address = physical(driver->target);
    driver->interrupt = -1;
}

// --- by vfio-pci ---

static int open_group(const char *device)
{
    char path[128], link[128];
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/iommu_group", device);
    ssize_t length = readlink(path, link, sizeof link - 1);

    if (length < 0)
        err(1, "%s", path);
    link[length] = '\0';
    snprintf(path, sizeof path, "/dev/vfio/%s", strrchr(link, '/') + 1);
    return open_or_die(path, O_RDWR);
}

static void map_for_device(int container, void *memory, uint64_t size, uint64_t address)
{
    struct vfio_iommu_type1_dma_map map = {.argsz = sizeof map, .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
                                           .vaddr = (uintptr_t)memory, .iova = address, .size = size};

    if (ioctl(container, VFIO_IOMMU_MAP_DMA, &map) < 0)
        err(1, "VFIO_IOMMU_MAP_DMA");
}

static void connect_interrupt(int device, int fd)
{
    struct {
        struct vfio_irq_set set;
        int32_t fd;
    } irq = {.set = {.argsz = sizeof irq, .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
                     .index = VFIO_PCI_MSIX_IRQ_INDEX, .count = 1}, .fd = fd};

    if (ioctl(device, VFIO_DEVICE_SET_IRQS, &irq) < 0)
        err(1, "VFIO_DEVICE_SET_IRQS");
}

static void set_up_vfio(struct driver *driver, const char *name)
{
    struct vfio_region_info bar = {.argsz = sizeof bar, .index = VFIO_PCI_BAR0_REGION_INDEX};
    struct vfio_region_info config = {.argsz = sizeof config, .index = VFIO_PCI_CONFIG_REGION_INDEX};
    int container = open_or_die("/dev/vfio/vfio", O_RDWR), group = open_group(name);
    int device;

    if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) < 0 || ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU) < 0)
        err(1, "the card's IOMMU group cannot be used");
    device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name);
    if (device < 0 || ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &bar) < 0 || ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &config) < 0)
        err(1, "the card cannot be used");
    enable(device, (off_t)config.offset);
    map_bar(driver, device, (off_t)bar.offset);
    driver->source = map_or_die("memory", -1, 0, 2 * CARD_PAGE, MAP_PRIVATE | MAP_ANONYMOUS);
    driver->target = driver->source + CARD_PAGE;
    driver->source_address = 0x40000000;
    driver->target_address = driver->source_address + CARD_PAGE;
    map_for_device(container, driver->source, 2 * CARD_PAGE, driver->source_address);
    driver->interrupt = eventfd(0, EFD_CLOEXEC);
    connect_interrupt(device, driver->interrupt);
}

int main(int argc, char **argv)
{
    struct driver driver = {.interrupt = -1};

    if (argc != 4)
        errx(2, "usage: card sysfs|vfio DEVICE TEXT");
    if (strcmp(argv[1], "vfio") == 0)
        set_up_vfio(&driver, argv[2]);
    else
        set_up_sysfs(&driver, argv[2]);
    drive(&driver, argv[3]);
    return 0;
}
