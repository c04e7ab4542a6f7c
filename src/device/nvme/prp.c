// SPDX-License-Identifier: BSD-3-Clause
// Physical region pages (base 4.1.1): PRP1 is the first page of the data, with an offset; PRP2 the second one, or a list of the others. A
// list has as many entries as fit up to the end of the page that it stands in; if that is too few, its last entry names the next list.
#include "base/bytes.h"
#include "base/check.h"
#include "device/nvme/walk.h"

enum {
    ENTRY = 8, // bytes
    BAD_OFFSET = SDC_NVME_SC_PRP_OFFSET | SDC_NVME_SC_DNR,
};

static uint64_t offset_of(uint64_t entry)
{
    return entry & (NVME_PAGE - 1);
}

// Adds what the entry names, up to a whole page. Only PRP1 may have an offset.
static int add_page(struct nvme_walk *walk, uint64_t entry)
{
    if (offset_of(entry) != 0)
        return BAD_OFFSET;
    return nvme_walk_add(walk, entry, (uint32_t)sdc_min(walk->left, NVME_PAGE));
}

// Adds the pages of the n-th list. *next becomes the list that goes on, if data is left.
static int add_list(struct nvme_walk *walk, uint32_t n, uint64_t list, uint64_t *next)
{
    uint8_t raw[NVME_PAGE];
    uint32_t pages = (uint32_t)((walk->left + NVME_PAGE - 1) / NVME_PAGE);
    uint32_t room = (uint32_t)(NVME_PAGE - offset_of(list)) / ENTRY;
    bool chained = pages > room;
    uint32_t count = chained ? room - 1 : pages;
    int rc = nvme_walk_read(walk, n, list, 0, raw, (count + chained) * (size_t)ENTRY);
    if (rc != 0)
        return rc;

    for (uint32_t i = 0; rc == 0 && i < count; i++)
        rc = add_page(walk, sdc_get64(raw + i * ENTRY));
    if (chained)
        *next = sdc_get64(raw + count * ENTRY);
    return rc;
}

static int add_lists(struct nvme_walk *walk, uint64_t list)
{
    // The first list may begin anywhere in its page, those that follow begin where their pages do.
    int rc = list % ENTRY == 0 ? 0 : BAD_OFFSET;

    // Each list but the first names 511 pages at least, so that the data comes to its end.
    for (uint32_t n = 0; rc == 0 && walk->left > 0; n++) {
        if (n > 0 && offset_of(list) != 0)
            return BAD_OFFSET;
        rc = add_list(walk, n, list, &list);
    }
    return rc;
}

int nvme_prp_walk(struct nvme_walk *walk, uint64_t prp1, uint64_t prp2)
{
    if (prp1 % 4 != 0)
        return BAD_OFFSET;
    int rc = nvme_walk_add(walk, prp1, (uint32_t)sdc_min(walk->left, NVME_PAGE - offset_of(prp1)));
    if (rc == 0 && walk->left > NVME_PAGE)
        rc = add_lists(walk, prp2);
    else if (rc == 0 && walk->left > 0)
        rc = add_page(walk, prp2);
    return rc ? rc : nvme_walk_end(walk);
}
