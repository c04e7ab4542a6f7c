// SPDX-License-Identifier: BSD-3-Clause
// The registers of a virtio PCI card: any sequence of accesses to its BARs.
#include "card.h"
#include "input.h"
#include "transport/virtio_pci/card.h"

// What holds of the common configuration whatever was written.
static void check_common(struct fuzz_card *card)
{
    uint64_t status = fuzz_card_read(card, VIRTIO_PCI_BAR, 0x14, 1);
    uint64_t select = fuzz_card_read(card, VIRTIO_PCI_BAR, 0x16, 2);
    uint64_t size = fuzz_card_read(card, VIRTIO_PCI_BAR, 0x18, 2);
    uint64_t vector = fuzz_card_read(card, VIRTIO_PCI_BAR, 0x1a, 2);
    uint64_t config_vector = fuzz_card_read(card, VIRTIO_PCI_BAR, 0x10, 2);
    uint64_t queues = fuzz_card_read(card, VIRTIO_PCI_BAR, 0x12, 2);
    uint32_t vectors = card->pci->irq_counts[SDC_PCI_MSIX];

    fuzz_check(!(status & SDC_VIRTIO_S_DRIVER_OK) || status & SDC_VIRTIO_S_FEATURES_OK, "DRIVER_OK without FEATURES_OK");
    fuzz_check(select < queues ? size >= 1 && size <= 64 : size == 0, "a wrong queue size");
    fuzz_check(vector < vectors || vector == VIRTIO_PCI_NO_VECTOR, "a queue's vector does not exist");
    fuzz_check(config_vector < vectors || config_vector == VIRTIO_PCI_NO_VECTOR, "the configuration's vector does not exist");
}

static void access_once(struct fuzz_card *card, struct fuzz_input *input)
{
    static const uint8_t bars[] = {VIRTIO_PCI_BAR, VIRTIO_PCI_BAR, VIRTIO_PCI_BAR, VIRTIO_PCI_TABLE_BAR, VIRTIO_PCI_PBA_BAR};
    uint8_t how = fuzz_u8(input);
    unsigned bar = bars[(how & 0xf) % sizeof bars];
    uint32_t size = 1U << (how >> 4 & 3);
    uint64_t offset = fuzz_u16(input) % card->pci->bars[bar].size & ~(uint64_t)(size - 1);
    uint8_t raw[8] = {0};

    if (how & 0x80) {
        fuzz_bytes(input, raw, size);
        fuzz_card_write(card, bar, offset, size, sdc_get64(raw));
    } else {
        fuzz_card_read(card, bar, offset, size);
    }
    if (how & 0x40) {
        fuzz_turns(2, NULL, NULL);
        check_common(card);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    struct fuzz_memory memory;
    struct fuzz_card card;

    fuzz_memory_init(&memory);
    fuzz_memory_add(&memory, 0, 0, FUZZ_PAGES, SDC_ACCESS_READ | SDC_ACCESS_WRITE);
    fuzz_card_open(&card, 3, 64);
    struct sdc_map *map = fuzz_memory_publish(&memory);
    fuzz_card_set_map(&card, map);
    sdc_map_unref(map);
    for (unsigned i = 0; i < 256 && fuzz_more(&input); i++)
        access_once(&card, &input);
    fuzz_card_close(&card);
    fuzz_memory_destroy(&memory);
    return 0;
}
