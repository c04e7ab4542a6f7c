// SPDX-License-Identifier: BSD-3-Clause
#include "card.h"

#include "base/log.h"
#include "loop/loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fuzz_check(bool holds, const char *what)
{
    if (!holds)
        sdc_bug(what);
}

// --- the loop ---

// Lines are made, so that making them is tested, and thrown away, but for errors and bugs.
static void drop_line(enum sdc_log_level level, const char *line)
{
    if (level == SDC_LOG_ERROR)
        fprintf(stderr, "%s\n", line);
}

// So late each time that no line is held back.
static uint64_t late(void)
{
    static uint64_t now_ns;

    return now_ns += UINT64_C(2000000000);
}

struct sdc_loop *fuzz_loop(void)
{
    static const struct sdc_log_sink sink = {.level = SDC_LOG_DEBUG, .write = drop_line, .now_ns = late};
    static struct sdc_loop *loop;
    struct sdc_error err;

    if (loop)
        return loop;
    sdc_log_to(&sink);
    if (sdc_loop_new(SDC_LOOP_AUTO, &loop, &err) < 0)
        sdc_bug(err.text);
    return loop;
}

struct turns {
    struct sdc_post post;
    unsigned left;
    bool (*done)(void *context);
    void *context;
    bool is_done;
};

static void run_turn(struct sdc_post *post)
{
    struct turns *turns = (struct turns *)(void *)post;

    turns->is_done = turns->done && turns->done(turns->context);
    if (turns->is_done || turns->left-- == 0)
        sdc_loop_stop(fuzz_loop());
    else
        sdc_loop_post(fuzz_loop(), post);
}

bool fuzz_turns(unsigned max, bool (*done)(void *context), void *context)
{
    struct turns turns = {.post = {.run = run_turn}, .left = max, .done = done, .context = context};

    sdc_loop_post(fuzz_loop(), &turns.post);
    sdc_loop_run(fuzz_loop());
    return turns.is_done;
}

// --- guest memory ---

void fuzz_memory_init(struct fuzz_memory *memory)
{
    *memory = (struct fuzz_memory){.bytes = calloc(FUZZ_PAGES, FUZZ_PAGE)};
    fuzz_check(memory->bytes != NULL, "no memory for guest memory");
}

bool fuzz_memory_add(struct fuzz_memory *memory, uint64_t iova, unsigned host, unsigned pages, uint32_t access)
{
    if (host > FUZZ_PAGES || pages > FUZZ_PAGES - host || memory->table.regions.count == FUZZ_REGIONS)
        return false;
    struct sdc_region region = {.iova = iova, .size = (uint64_t)pages * FUZZ_PAGE,
                                .host = memory->bytes + (size_t)host * FUZZ_PAGE, .access = access};
    return sdc_region_table_add(&memory->table, &region) == 0;
}

struct sdc_map *fuzz_memory_publish(struct fuzz_memory *memory)
{
    struct sdc_map *map = sdc_region_table_publish(&memory->table, sdc_map_free, NULL);

    fuzz_check(map != NULL, "no memory for a map");
    return map;
}

void fuzz_table_without(const struct sdc_region_table *from, uint8_t missing, struct sdc_region_table *to)
{
    const struct sdc_region *region = sdc_regions_past(&from->regions, 0);

    for (; region; region = sdc_regions_next(&from->regions, region), missing >>= 1) {
        if (!(missing & 1))
            sdc_region_table_add(to, region);
    }
}

uint8_t *fuzz_memory_at(const struct fuzz_memory *memory, uint64_t iova)
{
    const struct sdc_region *region = sdc_regions_find(&memory->table.regions, iova);

    return region ? region->host + (iova - region->iova) : NULL;
}

void fuzz_memory_poke(struct fuzz_memory *memory, uint64_t iova, const void *from, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        uint8_t *byte = fuzz_memory_at(memory, iova + i);
        if (byte)
            *byte = ((const uint8_t *)from)[i];
    }
}

void fuzz_memory_destroy(struct fuzz_memory *memory)
{
    sdc_region_table_clear(&memory->table);
    free(memory->bytes);
}

// --- the card ---

enum { PATIENCE = 100000 }; // turns: what has not ended then hangs

static void host_interrupt(struct sdc_pci_host *host, enum sdc_pci_irq kind, uint32_t vector)
{
    struct fuzz_card *card = (struct fuzz_card *)(void *)host;

    fuzz_check(kind == SDC_PCI_INTX || kind == SDC_PCI_MSIX, "an interrupt of a kind that the card does not have");
    fuzz_check(vector < card->pci->irq_counts[kind], "an interrupt vector that the card does not have");
    card->interrupts++;
}

static void host_ready(struct sdc_pci_host *host)
{
    (void)host; // settle looks for itself
}

void fuzz_card_open_device(struct fuzz_card *card, const char *device, uint16_t queues, uint16_t queue_size)
{
    static const struct sdc_pci_host_ops ops = {.interrupt = host_interrupt, .ready = host_ready};
    struct sdc_card_options options = {.queues = queues, .queue_size = queue_size, .shadow_doorbells = true, .write_cache = true,
                                       .packed = true, .in_order = true, .backends_count = 1,
                                       .backends = &(struct sdc_card_backend){.name = "ram:256k"}};
    struct sdc_loop *loop = fuzz_loop();
    struct sdc_error err;

    *card = (struct fuzz_card){.host = {.ops = &ops}};
    if (sdc_card_new(device, &options, SDC_CARD_PCI, &loop, 1, &card->card, &err) < 0)
        sdc_bug(err.text);
    card->pci = card->card->pci;
    card->pci->host = &card->host;
}

void fuzz_card_open(struct fuzz_card *card, uint16_t queues, uint16_t queue_size)
{
    fuzz_card_open_device(card, "virtio-blk", queues, queue_size);
}

static bool is_settled(void *context)
{
    struct sdc_pci_device *pci = ((struct fuzz_card *)context)->pci;

    return !pci->ops->busy(pci);
}

void fuzz_card_settle(struct fuzz_card *card)
{
    if (!is_settled(card))
        fuzz_check(fuzz_turns(PATIENCE, is_settled, card), "the card stays busy for ever");
}

static uint64_t access_bar(struct fuzz_card *card, struct sdc_pci_access access)
{
    int rc = card->pci->ops->access(card->pci, &access);

    if (rc < 0) {
        fuzz_check(!is_settled(card), "the card says not now, and is not busy");
        fuzz_card_settle(card);
        rc = card->pci->ops->access(card->pci, &access);
    }
    fuzz_check(rc == 0, "a card that is not busy refuses an access");
    return access.value;
}

uint64_t fuzz_card_read(struct fuzz_card *card, unsigned bar, uint64_t offset, uint32_t size)
{
    uint64_t value = access_bar(card, (struct sdc_pci_access){.region = bar, .offset = offset, .size = size});

    fuzz_check(size == 8 || value >> (8 * size) == 0, "a register's value is wider than the access");
    return value;
}

void fuzz_card_write(struct fuzz_card *card, unsigned bar, uint64_t offset, uint32_t size, uint64_t value)
{
    access_bar(card, (struct sdc_pci_access){.region = bar, .offset = offset, .size = size, .write = true, .value = value});
}

void fuzz_card_set_map(struct fuzz_card *card, struct sdc_map *map)
{
    fuzz_card_settle(card);
    card->pci->ops->set_map(card->pci, map);
    fuzz_card_settle(card);
}

void fuzz_card_close(struct fuzz_card *card)
{
    fuzz_card_settle(card);
    card->pci->ops->reset(card->pci);
    fuzz_card_set_map(card, NULL);
    fuzz_turns(2, NULL, NULL); // what is still posted
    card->pci->host = NULL;
    sdc_card_free(card->card);
}
