// SPDX-License-Identifier: BSD-3-Clause
// What the harnesses share: a check that stays in every build, a loop whose turns are counted, guest memory, and a real card on a
// ram disk, all in one thread.
#pragma once

#include "control/card.h"
#include "memory/map.h"

#include <stdbool.h>

// What libFuzzer calls with each input. Always 0.
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// Aborts with the text unless it holds: what a harness knows to be true whatever the input.
void fuzz_check(bool holds, const char *what);

// The loop of this process. It lives as long as the process.
struct sdc_loop *fuzz_loop(void);
// Runs the loop until done says true, for at most max turns. Whether it did. done NULL: max turns.
bool fuzz_turns(unsigned max, bool (*done)(void *context), void *context);

// Guest memory in one buffer, seen through up to FUZZ_REGIONS windows.
enum { FUZZ_PAGE = 4096, FUZZ_PAGES = 16, FUZZ_REGIONS = 8 };

struct fuzz_memory {
    uint8_t *bytes; // FUZZ_PAGES pages
    struct sdc_region_table table;
};
void fuzz_memory_init(struct fuzz_memory *memory);
// Shows `pages` pages of the buffer, from page `host`, at iova. False if that overlaps another region or is outside the buffer.
bool fuzz_memory_add(struct fuzz_memory *memory, uint64_t iova, unsigned host, unsigned pages, uint32_t access);
// A map of the regions, with one reference.
struct sdc_map *fuzz_memory_publish(struct fuzz_memory *memory);
// Adds the regions of `from` to `to` but for those whose bit is set in `missing`: bit 0 is the lowest region.
void fuzz_table_without(const struct sdc_region_table *from, uint8_t missing, struct sdc_region_table *to);
// The byte of the buffer at iova, whatever the region's rights, or NULL.
uint8_t *fuzz_memory_at(const struct fuzz_memory *memory, uint64_t iova);
// What a driver does: writes as far as there is memory.
void fuzz_memory_poke(struct fuzz_memory *memory, uint64_t iova, const void *from, size_t size);
// No map is left.
void fuzz_memory_destroy(struct fuzz_memory *memory);

// A card and its host.
struct fuzz_card {
    struct sdc_pci_host host; // first
    struct sdc_card *card;
    struct sdc_pci_device *pci;
    unsigned interrupts; // that it raised
};
// A virtio-blk card. queue_size 0: the default.
void fuzz_card_open(struct fuzz_card *card, uint16_t queues, uint16_t queue_size);
// The same of any device.
void fuzz_card_open_device(struct fuzz_card *card, const char *device, uint16_t queues, uint16_t queue_size);
// One access to a BAR; waits while the card is busy. offset and size as the device interface wants them.
uint64_t fuzz_card_read(struct fuzz_card *card, unsigned bar, uint64_t offset, uint32_t size);
void fuzz_card_write(struct fuzz_card *card, unsigned bar, uint64_t offset, uint32_t size, uint64_t value);
// From now on the card sees map (NULL: no memory); returns when it has taken it over.
void fuzz_card_set_map(struct fuzz_card *card, struct sdc_map *map);
void fuzz_card_settle(struct fuzz_card *card);
// Resets it, takes its memory away and frees it: each has to end.
void fuzz_card_close(struct fuzz_card *card);
