// SPDX-License-Identifier: BSD-3-Clause
// Guest memory for tests of rings: 16 pages at address 0, as one region, or each a region of its own whose bytes lie elsewhere, so
// that everything that is long is in pieces. Bytes are reached through the door in both.
#pragma once

#include "base/bytes.h"
#include "memory/map.h"

#include <stdlib.h>

enum { GUEST_PAGE = 4096, GUEST_PAGES = 16, GUEST_BYTES = GUEST_PAGES * GUEST_PAGE };

struct guest {
    uint8_t *bytes;
    struct sdc_map *map;
    struct sdc_memory view;
};

// A map of the pages whose bit is set in `pages`; a page whose bit is set in `remote` came without memory, one in `fixed` is read-only.
static inline struct sdc_map *guest_map_of(struct guest *guest, bool jumbled, uint32_t pages, uint32_t remote, uint32_t fixed)
{
    struct sdc_region_table table = {0};
    unsigned step = jumbled ? 1 : GUEST_PAGES;

    for (unsigned page = 0; page < GUEST_PAGES; page += step) {
        struct sdc_region region = {
            .iova = (uint64_t)page * GUEST_PAGE,
            .size = (uint64_t)step * GUEST_PAGE,
            .host = remote >> page & 1 ? NULL : guest->bytes + (jumbled ? page * 7 % GUEST_PAGES : page) * GUEST_PAGE,
            .access = SDC_ACCESS_READ | (fixed >> page & 1 ? 0 : SDC_ACCESS_WRITE),
        };
        if (pages >> page & 1)
            sdc_region_table_add(&table, &region);
    }
    struct sdc_map *map = sdc_region_table_publish(&table, sdc_map_free, NULL);
    sdc_region_table_clear(&table);
    return map;
}

static inline struct sdc_map *guest_map(struct guest *guest, bool jumbled, uint32_t pages)
{
    return guest_map_of(guest, jumbled, pages, 0, 0);
}

static inline void guest_open(struct guest *guest, bool jumbled)
{
    guest->bytes = aligned_alloc(GUEST_PAGE, GUEST_BYTES);
    memset(guest->bytes, 0, GUEST_BYTES);
    guest->map = guest_map(guest, jumbled, UINT32_MAX);
    guest->view = (struct sdc_memory){.map = guest->map};
}

static inline void guest_close(struct guest *guest)
{
    sdc_map_unref(guest->map);
    free(guest->bytes);
}

// Little-endian numbers in guest memory.
static inline void guest_put(struct guest *guest, uint64_t iova, uint64_t value, size_t size)
{
    uint8_t raw[8];

    sdc_put64(raw, value);
    if (sdc_memory_write(&guest->view, iova, raw, size) < 0)
        abort();
}

static inline uint64_t guest_get(struct guest *guest, uint64_t iova, size_t size)
{
    uint8_t raw[8] = {0};

    if (sdc_memory_read(&guest->view, iova, raw, size) < 0)
        abort();
    return sdc_get64(raw);
}

// A descriptor: in a split ring `last` is the next one's index and stands behind the flags, in a packed one it is the buffer id and
// stands before them.
static inline void guest_put_desc(struct guest *guest, uint64_t at, uint64_t address, uint32_t length, uint16_t flags, uint16_t last,
                                  bool packed)
{
    guest_put(guest, at, address, 8);
    guest_put(guest, at + 8, length, 4);
    guest_put(guest, at + (packed ? 12 : 14), last, 2);
    guest_put(guest, at + (packed ? 14 : 12), flags, 2);
}
