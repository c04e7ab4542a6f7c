// SPDX-License-Identifier: BSD-3-Clause
// A driver for the card of card.c, without a virtual machine: it has the card load a text from memory, turn it into capitals, and store it
// again. With "private" the memory is not shared: the card gets at it by messages.
#include "card.h"

#include <sidecard/client.h>

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

// Regions and interrupts are numbered as in <linux/vfio.h>.
enum { BAR0 = 0, CONFIG = 7, MSIX = 2, PATIENCE_MS = 5000 };

// Where the card sees our memory: one page that it loads, and one in which it stores.
static const uint64_t source = 0x100000, target = 0x100000 + CARD_PAGE;

struct driver {
    struct sdc_vfio_client *client;
    struct sdc_client_memory memory;
    int interrupt; // an eventfd
    struct sdc_error err;
};

static int write_register(struct driver *driver, enum card_register number, uint32_t value)
{
    value = htole32(value);
    return sdc_vfio_client_write(driver->client, BAR0, 4 * (uint64_t)number, &value, sizeof value, &driver->err);
}

static int read_register(struct driver *driver, enum card_register number, uint32_t *value)
{
    int ret = sdc_vfio_client_read(driver->client, BAR0, 4 * (uint64_t)number, value, sizeof *value, &driver->err);

    *value = le32toh(*value);
    return ret;
}

// Starts the engine and waits for its interrupt.
static int run(struct driver *driver, enum card_command command, uint64_t address, uint32_t size)
{
    struct pollfd waited = {.fd = driver->interrupt, .events = POLLIN, .revents = 0};
    uint32_t status = CARD_FAILED;
    uint64_t times;

    if (write_register(driver, CARD_ADDRESS, (uint32_t)address) < 0 ||
        write_register(driver, CARD_ADDRESS_HIGH, (uint32_t)(address >> 32)) < 0 ||
        write_register(driver, CARD_SIZE, size) < 0 || write_register(driver, CARD_COMMAND, command) < 0)
        return driver->err.code;
    if (poll(&waited, 1, PATIENCE_MS) <= 0 || read(driver->interrupt, &times, sizeof times) != sizeof times)
        return sdc_error_set(&driver->err, -ETIMEDOUT, SDC_FAULT_PEER, "no interrupt came");
    if (read_register(driver, CARD_STATUS, &status) < 0)
        return driver->err.code;
    if (status != CARD_DONE)
        return sdc_error_set(&driver->err, -EIO, SDC_FAULT_PEER, "command %d: status %u", (int)command, status);
    return 0;
}

// Shows the card two pages of memory.
static int share_memory(struct driver *driver)
{
    struct sdc_client_memory *memory = &driver->memory;

    if (sdc_client_memory_new(memory, source, 2 * CARD_PAGE, &driver->err) < 0)
        return driver->err.code;
    return sdc_vfio_client_map(driver->client, memory->iova, memory->size, SDC_VFIO_MAP_READ | SDC_VFIO_MAP_WRITE, memory->fd, 0,
                               &driver->err);
}

// The same, but the pages stay ours: a thread of the library's answers when the card asks for what is in them.
static int lend_memory(struct driver *driver)
{
    struct sdc_client_memory *memory = &driver->memory;

    if (sdc_client_memory_new_private(memory, source, 2 * CARD_PAGE, &driver->err) < 0 ||
        sdc_vfio_client_map_private(driver->client, memory->iova, memory->size, SDC_VFIO_MAP_READ | SDC_VFIO_MAP_WRITE, memory->base,
                                    &driver->err) < 0)
        return driver->err.code;
    return sdc_vfio_client_serve_start(driver->client, &driver->err);
}

// Whether it is our card; and connects its interrupt to the eventfd.
static int set_up(struct driver *driver)
{
    uint16_t ids[2];

    if (sdc_vfio_client_read(driver->client, CONFIG, 0, ids, sizeof ids, &driver->err) < 0)
        return driver->err.code;
    if (le16toh(ids[0]) != CARD_VENDOR || le16toh(ids[1]) != CARD_DEVICE)
        return sdc_error_set(&driver->err, -ENODEV, SDC_FAULT_PEER, "this is another card: %04x:%04x", le16toh(ids[0]), le16toh(ids[1]));
    return sdc_vfio_client_irq_eventfds(driver->client, MSIX, SDC_VFIO_IRQ_TRIGGER, 0, 1, &driver->interrupt, &driver->err);
}

// Prints the text that is in the card's memory, a page of BAR 0 that can be mapped.
static int print_card_memory(struct driver *driver, uint32_t size)
{
    struct sdc_vfio_region bar;
    struct sdc_vfio_mapping page;
    int ret = sdc_vfio_client_region(driver->client, BAR0, &bar, &driver->err);

    if (ret < 0)
        return ret;
    ret = sdc_vfio_region_map(&bar, CARD_PAGE, CARD_PAGE, &page, &driver->err);
    if (ret == 0)
        printf("in the card: %.*s\n", (int)size, (const char *)page.data);
    sdc_vfio_region_unmap(&page);
    sdc_vfio_region_release(&bar);
    return ret;
}

static int drive(struct driver *driver, const char *text)
{
    const uint32_t size = (uint32_t)strnlen(text, CARD_PAGE);

    memcpy(driver->memory.base, text, size);
    if (run(driver, CARD_LOAD, source, size) < 0 || run(driver, CARD_CAPITALS, 0, size) < 0 ||
        print_card_memory(driver, size) < 0 || run(driver, CARD_STORE, target, size) < 0)
        return driver->err.code;
    printf("stored:      %.*s\n", (int)size, (const char *)driver->memory.base + CARD_PAGE);
    return 0;
}

int main(int argc, char **argv)
{
    const bool is_private = argc == 4 && strcmp(argv[3], "private") == 0;
    struct driver driver = {.memory = {.fd = -1}, .interrupt = eventfd(0, EFD_CLOEXEC)};
    int ret;

    if (argc != 3 && !is_private) {
        fprintf(stderr, "usage: client SOCKET TEXT [private]\n");
        return 2;
    }
    ret = sdc_vfio_client_open(argv[1], NULL, &driver.client, &driver.err);
    if (ret == 0)
        ret = set_up(&driver);
    if (ret == 0)
        ret = is_private ? lend_memory(&driver) : share_memory(&driver);
    if (ret == 0)
        ret = drive(&driver, argv[2]);
    if (ret < 0)
        fprintf(stderr, "client: %s\n", driver.err.text);
    sdc_vfio_client_close(driver.client);
    sdc_client_memory_free(&driver.memory);
    close(driver.interrupt);
    return ret < 0;
}
