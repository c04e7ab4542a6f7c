// SPDX-License-Identifier: BSD-3-Clause
// A PCI card: a page of memory of its own that drivers may map, and an engine that loads guest memory into that page, stores the page in
// guest memory, or turns the text in it into capitals, and raises an interrupt when it has. docs/writing-a-card.md goes through it.
#include "card.h"

#include <sidecard/dma.h>
#include <sidecard/server.h>

#include <ctype.h>
#include <err.h>
#include <errno.h>

struct card {
    struct sdc_pci_device pci; // first: the library's pointer to it is ours to the card
    uint32_t registers[CARD_REGISTERS];
    void *memory; // CARD_PAGE bytes, which a driver may change at any time
};

// The engine has done its work, or failed. After a reset nobody is there to be told.
static void finish(void *context, int result)
{
    struct card *card = (struct card *)context;

    if (result == -ECANCELED)
        return;
    card->registers[CARD_STATUS] = result == 0 ? CARD_DONE : CARD_FAILED;
    sdc_pci_raise(&card->pci, 0);
}

// The driver has written to the command register.
static void begin(struct sdc_pci_device *pci, uint64_t command)
{
    struct card *card = (struct card *)pci;
    const uint64_t address = (uint64_t)card->registers[CARD_ADDRESS_HIGH] << 32 | card->registers[CARD_ADDRESS];
    const uint32_t size = card->registers[CARD_SIZE];
    char *text = (char *)card->memory;
    int ret = -EINVAL;

    if (card->registers[CARD_STATUS] == CARD_BUSY)
        return;
    card->registers[CARD_STATUS] = CARD_BUSY;
    if (command == CARD_LOAD && size <= CARD_PAGE)
        ret = sdc_dma_read(pci, address, card->memory, size, finish, card);
    if (command == CARD_STORE && size <= CARD_PAGE)
        ret = sdc_dma_write(pci, address, card->memory, size, finish, card);
    if (command == CARD_CAPITALS && size <= CARD_PAGE) {
        for (uint32_t i = 0; i < size; i++)
            text[i] = (char)toupper((unsigned char)text[i]);
        finish(card, 0);
    } else if (ret < 0) {
        finish(card, ret);
    }
}

int main(int argc, char **argv)
{
    static const struct sdc_pci_ops ops = {.name = "card"};
    static const struct sdc_pci_identity identity = {
        .vendor = CARD_VENDOR, .device = CARD_DEVICE, .class_code = 0x120000}; // a processing accelerator
    static const struct sdc_pci_register registers[CARD_REGISTERS] = {
        {.offset = 4 * CARD_STATUS, .size = 4}, // drivers only read it
        {.offset = 4 * CARD_ADDRESS, .size = 4, .writable = UINT32_MAX},
        {.offset = 4 * CARD_ADDRESS_HIGH, .size = 4, .writable = UINT32_MAX},
        {.offset = 4 * CARD_SIZE, .size = 4, .writable = UINT32_MAX},
        {.offset = 4 * CARD_COMMAND, .size = 4, .writable = UINT32_MAX, .written = begin},
    };
    static struct card card = {.pci = {.bars = {{.size = CARD_BAR_SIZE}}}};
    struct sdc_error err;

    if (argc != 2)
        errx(2, "usage: card SOCKET");
    if (sdc_pci_init(&card.pci, &ops, &identity, &err) < 0 ||
        sdc_pci_add_registers(&card.pci, 0, registers, CARD_REGISTERS, card.registers, &err) < 0 ||
        sdc_pci_add_memory(&card.pci, 0, CARD_PAGE, CARD_PAGE, &card.memory, &err) < 0 || // the second page of BAR 0
        sdc_pci_add_msix(&card.pci, 1, 1, &err) < 0 ||                                    // one vector; its table is BAR 1
        sdc_serve_pci(argv[1], &card.pci, NULL, &err) < 0)                                // until SIGINT or SIGTERM
        errx(1, "%s", err.text);
    return 0;
}
