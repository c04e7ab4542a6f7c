// SPDX-License-Identifier: BSD-3-Clause
// A virtqueue's ring, the device's half: takes chains that the driver made available, gives them back as used, and
// negotiates who notifies whom. One thread at a time. It keeps its own copy of every index: what it wrote to shared
// memory it never reads back.
//
// A ring lives in guest memory and outlasts a change of its map: sdc_ring_remap looks its areas up again, and a ring whose memory
// is away is asleep until it is back.
#pragma once

#include "ring/chain.h"

struct sdc_ring;

struct sdc_ring_config {
    uint32_t size;     // entries, 1 to 32768; a power of two
    uint64_t features; // as negotiated
    uint64_t desc;     // guest addresses (virtio 1.2, 2.7: descriptor area, driver area, device area)
    uint64_t driver;
    uint64_t device;
    uint16_t position; // where to go on: the next available entry, and the next used one
};

// A ring's format: split now; packed joins here.
struct sdc_ring_format {
    int (*resolve)(struct sdc_ring *ring, struct sdc_memory *memory);
    int (*take)(struct sdc_ring *ring, struct sdc_chain *chain);
    void (*give)(struct sdc_ring *ring, const struct sdc_chain *chain, uint32_t written);
    bool (*publish)(struct sdc_ring *ring);
    void (*suppress)(struct sdc_ring *ring);
    bool (*rearm)(struct sdc_ring *ring);
};

struct sdc_ring {
    const struct sdc_ring_format *format;
    struct sdc_ring_config config;
    struct sdc_memory memory;
    struct sdc_area desc, driver, device;
    bool awake;           // its areas are in memory
    const char *broken;   // why the driver must reset, or NULL
    uint16_t avail_next;  // next entry to take
    uint16_t avail_seen;  // the driver's index when last looked at
    uint16_t used_next;   // next entry to fill
    uint16_t used_shown;  // the used index that the driver sees
    bool suppressed;      // the driver was told not to notify
    uint32_t in_flight;   // taken and not given; zero: no chain of this ring is anywhere
    uint8_t *taken;       // for each head: it is in flight
};

// Starts a ring whose areas are in memory's map. 0; -EINVAL (size, alignment), -EFAULT, -EACCES, -ENOMEM, with err filled.
int sdc_ring_start(struct sdc_ring *ring, const struct sdc_ring_config *config, const struct sdc_map *map,
                   struct sdc_error *err);
// Nothing is in flight. Idempotent; a zeroed ring is a stopped one.
void sdc_ring_stop(struct sdc_ring *ring);

// Whether the areas would lie at the same place under map, so that a remap may happen while chains are in flight.
bool sdc_ring_stays(const struct sdc_ring *ring, const struct sdc_map *map);
// From now on chains are looked up in map.
void sdc_ring_remap(struct sdc_ring *ring, const struct sdc_map *map);

// Takes the next chain. 1; 0: none is there (or the ring is asleep); -EPROTO: broken, ->broken says why; -ENOMEM: try later.
int sdc_ring_take(struct sdc_ring *ring, struct sdc_chain *chain);
// Puts a chain into the used ring; the driver does not see it yet.
void sdc_ring_give(struct sdc_ring *ring, const struct sdc_chain *chain, uint32_t written);
// Shows the driver what was given. Whether it wants an interrupt for it.
bool sdc_ring_publish(struct sdc_ring *ring);

// Asks the driver not to notify, and to notify again. rearm returns true if something is there already: take it, the driver may have
// made it available before it saw that it should notify.
void sdc_ring_suppress(struct sdc_ring *ring);
bool sdc_ring_rearm(struct sdc_ring *ring);

extern const struct sdc_ring_format sdc_ring_split;
