// SPDX-License-Identifier: BSD-3-Clause
// The PCI configuration space: any sequence of reads and writes, the window capability and function-level resets among them.
#include "base/check.h"
#include "card.h"
#include "input.h"
#include "transport/common/pci_config.h"
#include "transport/virtio_pci/card.h"

// Every bit that is not writable is as it was built. The window's data is the exception: reading it brings it up to date.
static void check_read_only(struct fuzz_card *card)
{
    const struct sdc_pci_device *pci = card->pci;
    uint32_t data = ((const struct virtio_pci *)(const void *)pci)->window_cap + 16;

    for (uint32_t i = 0; i < SDC_PCI_CONFIG_KEPT; i++) {
        if (i >= data && i < data + 4)
            continue;
        uint8_t fixed = (uint8_t)~pci->config_mask[i];
        fuzz_check((pci->config[i] & fixed) == (pci->config_reset[i] & fixed), "a read-only bit has changed");
    }
}

// A driver that follows the list of capabilities comes to its end.
static void check_capabilities(struct fuzz_card *card)
{
    const uint8_t *config = card->pci->config;
    unsigned steps = 0;

    for (uint32_t at = config[SDC_PCI_CAP_POINTER]; at; at = config[at + 1]) {
        fuzz_check(at % 4 == 0 && at >= 0x40 && ++steps <= 48, "the list of capabilities is broken");
    }
    fuzz_check(steps == 8, "a capability is missing");
}

static void write_config(struct fuzz_card *card, uint32_t offset, const uint8_t *bytes, uint32_t size)
{
    fuzz_card_settle(card); // the host asks no card that is busy
    if (!sdc_pci_config_write(card->pci, offset, bytes, size))
        return;
    card->pci->ops->reset(card->pci);
    fuzz_card_settle(card);
    fuzz_check(memcmp(card->pci->config, card->pci->config_reset, SDC_PCI_CONFIG_KEPT) == 0, "a reset has left something");
}

static void access_once(struct fuzz_card *card, struct fuzz_input *input)
{
    uint8_t bytes[128];
    uint8_t how = fuzz_u8(input);
    uint16_t where = fuzz_u16(input);
    uint32_t size = how & 0x40 ? 1U << (how & 3) : how & 0x3f;
    // Most of what there is lies in the first 256 bytes.
    uint32_t offset = where & 0x8000 ? where % SDC_PCI_CONFIG_SIZE : where % 256;

    size = (uint32_t)sdc_min(size, SDC_PCI_CONFIG_SIZE - offset);
    if (how & 0x80) {
        fuzz_bytes(input, bytes, size);
        write_config(card, offset, bytes, size);
    } else {
        fuzz_check(sdc_pci_config_read(card->pci, offset, bytes, size) == 0, "a read of the configuration space fails");
    }
    check_read_only(card);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    struct fuzz_card card;

    fuzz_card_open(&card, 2, 64);
    for (unsigned i = 0; i < 256 && fuzz_more(&input); i++)
        access_once(&card, &input);
    check_capabilities(&card);
    fuzz_card_close(&card);
    return 0;
}
