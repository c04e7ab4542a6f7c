// SPDX-License-Identifier: BSD-3-Clause
// Which entries of the record's table of regions are taken: found by address in constant time, however many there are.
#include "transport/vfio_user/record_layout.h"

#include <stdlib.h>

enum { HEADS = 4096, FIRST = 64 };

struct place {
    uint64_t iova;
    uint32_t next; // in its chain, or in the list of free ones
};

struct vfu_record_places {
    uint32_t limit;
    uint32_t capacity;
    uint32_t end;        // entries from here on were never used
    struct place *places;
    uint32_t heads[HEADS]; // of chains by address
    uint32_t free;         // list
    uint32_t dying;        // list: free with the next settle
};

struct vfu_record_places *vfu_places_new(uint32_t count)
{
    struct vfu_record_places *places = calloc(1, sizeof *places);

    if (!places)
        return NULL;
    places->limit = count;
    memset(places->heads, 0xff, sizeof places->heads);
    places->free = places->dying = SDC_SLOT_NONE;
    return places;
}

void vfu_places_free(struct vfu_record_places *places)
{
    if (places)
        free(places->places);
    free(places);
}

static uint32_t *head_of(struct vfu_record_places *places, uint64_t iova)
{
    return &places->heads[(iova / 4096 * UINT64_C(0x9e3779b97f4a7c15)) >> 52];
}

static bool grow(struct vfu_record_places *places, uint32_t wanted)
{
    uint32_t capacity = places->capacity ? places->capacity : FIRST;

    while (capacity < wanted)
        capacity *= 2;
    if (capacity == places->capacity)
        return true;
    struct place *more = realloc(places->places, capacity * sizeof *more);
    if (!more)
        return false;
    places->places = more;
    places->capacity = capacity;
    return true;
}

static void chain(struct vfu_record_places *places, uint32_t place, uint64_t iova)
{
    uint32_t *head = head_of(places, iova);

    places->places[place] = (struct place){.iova = iova, .next = *head};
    *head = place;
}

uint32_t vfu_places_take(struct vfu_record_places *places, uint64_t iova)
{
    uint32_t place = places->free;

    if (place != SDC_SLOT_NONE) {
        places->free = places->places[place].next;
    } else {
        if (places->end == places->limit || !grow(places, places->end + 1))
            return SDC_SLOT_NONE;
        place = places->end++;
    }
    chain(places, place, iova);
    return place;
}

static uint32_t *find(struct vfu_record_places *places, uint64_t iova)
{
    uint32_t *link = head_of(places, iova);

    while (*link != SDC_SLOT_NONE && places->places[*link].iova != iova)
        link = &places->places[*link].next;
    return link;
}

bool vfu_places_adopt(struct vfu_record_places *places, uint32_t place, uint64_t iova)
{
    if (place >= places->limit || *find(places, iova) != SDC_SLOT_NONE || !grow(places, place + 1))
        return false;
    // Those in between are free.
    for (; places->end < place; places->end++) {
        places->places[places->end].next = places->free;
        places->free = places->end;
    }
    places->end = place + 1;
    chain(places, place, iova);
    return true;
}

uint32_t vfu_places_give(struct vfu_record_places *places, uint64_t iova)
{
    uint32_t *link = find(places, iova);
    uint32_t place = *link;

    if (place == SDC_SLOT_NONE)
        return place;
    *link = places->places[place].next;
    places->places[place].next = places->dying;
    places->dying = place;
    return place;
}

void vfu_places_settle(struct vfu_record_places *places)
{
    while (places->dying != SDC_SLOT_NONE) {
        uint32_t place = places->dying;
        places->dying = places->places[place].next;
        places->places[place].next = places->free;
        places->free = place;
    }
}

uint32_t vfu_places_end(const struct vfu_record_places *places)
{
    return places->end;
}
