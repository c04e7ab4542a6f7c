// SPDX-License-Identifier: BSD-3-Clause
// A PCI card: a page of memory of its own that drivers may map, and an engine that loads guest memory into that page, stores the page in
// guest memory, or turns the text in it into capitals, and raises an interrupt when it has. docs/writing-a-card.md goes through it.
#include "card.h"

#include <sidecard/dma.h>
#include <sidecard/server.h>

#include <ctype.h>
#include <err.h>
#include <errno.h>
#include <string.h>

struct card {
    struct sdc_pci_device pci; // first: the library's pointer to it is ours to the card
    uint32_t registers[CARD_REGISTERS];
    unsigned char *memory; // CARD_PAGE bytes, which a driver may change at any time
};

// The engine has done its work, or failed. After a reset nobody is there to be told.
static void finish(void *context, int result)
{
    struct card *card = (struct card *)context;

    if (result == -ECANCELED)
        return;
    card->registers[CARD_STATUS] = result == 0 ? CARD_DONE : CARD_FAILED;
    sdc_pci_interrupt(&card->pci, SDC_PCI_MSIX, 0);
}

// 0: finish was called, or is going to be.
static int start(struct card *card)
{
    const uint64_t address = (uint64_t)card->registers[CARD_ADDRESS_HIGH] << 32 | card->registers[CARD_ADDRESS];
    const uint32_t size = card->registers[CARD_SIZE];

    if (size > CARD_PAGE)
        return -EINVAL;
    switch (card->registers[CARD_COMMAND]) {
    case CARD_LOAD:
        return sdc_dma_read(&card->pci, address, card->memory, size, finish, card);
    case CARD_STORE:
        return sdc_dma_write(&card->pci, address, card->memory, size, finish, card);
    case CARD_CAPITALS:
        for (uint32_t i = 0; i < size; i++)
            card->memory[i] = (unsigned char)toupper(card->memory[i]);
        finish(card, 0);
        return 0;
    default:
        return -EINVAL;
    }
}

static int access_register(struct sdc_pci_device *pci, struct sdc_pci_access *access)
{
    struct card *card = (struct card *)pci;
    const uint64_t number = access->offset / 4;

    if (access->size != 4 || number >= CARD_REGISTERS) {
        access->value = UINT64_MAX; // there is no such register
    } else if (!access->write) {
        access->value = card->registers[number];
    } else if (number != CARD_STATUS && card->registers[CARD_STATUS] != CARD_BUSY) {
        card->registers[number] = (uint32_t)access->value;
        if (number == CARD_COMMAND) {
            card->registers[CARD_STATUS] = CARD_BUSY;
            int ret = start(card);
            if (ret < 0)
                finish(card, ret);
        }
    }
    return 0;
}

// What DMA was under way has been cancelled.
static void reset(struct sdc_pci_device *pci)
{
    struct card *card = (struct card *)pci;

    memset(card->registers, 0, sizeof card->registers);
}

int main(int argc, char **argv)
{
    static const struct sdc_pci_ops ops = {
        .name = "card", .access = access_register, .reset = reset, .destroy = sdc_pci_fini};
    static const struct sdc_pci_identity identity = {
        .vendor = CARD_VENDOR, .device = CARD_DEVICE, .class_code = 0x120000}; // a processing accelerator
    static const struct sdc_pci_area second_page = {.offset = CARD_PAGE, .size = CARD_PAGE};
    static const struct sdc_server_options options = {.take_signals = true}; // SIGINT and SIGTERM end sdc_server_run
    static struct card card;
    struct sdc_server *server;
    struct sdc_error err;
    void *bar;

    if (argc != 2)
        errx(2, "usage: card SOCKET");
    card.pci.bars[0].size = CARD_BAR_SIZE;
    if (sdc_server_new(&options, &server, &err) < 0 || sdc_pci_init(&card.pci, &ops, &identity, &err) < 0 ||
        sdc_pci_add_msix(&card.pci, 1, 1, &err) < 0 || // one vector; its table is BAR 1
        sdc_pci_add_memory(&card.pci, 0, &second_page, 1, &bar, &err) < 0)
        errx(1, "%s", err.text);
    card.memory = (unsigned char *)bar + CARD_PAGE;
    if (sdc_server_add_pci(server, argv[1], &card.pci, NULL, &err) < 0 || sdc_server_run(server, &err) < 0)
        errx(1, "%s", err.text);
    sdc_server_free(server);
    return 0;
}
