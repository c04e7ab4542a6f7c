// SPDX-License-Identifier: BSD-3-Clause
// A virtqueue's ring, the device's half: takes chains that the driver made available, gives them back as used, and
// negotiates who notifies whom. One thread at a time. It keeps its own copy of every index: what it wrote to shared
// memory it never reads back.
//
// A ring lives in guest memory and outlasts a change of its map: sdc_ring_remap looks its areas up again, and a ring whose memory
// is away is asleep until it is back.
#pragma once

#include "base/line.h"
#include "ring/chain.h"
#include "ring/inflight.h"

#include <errno.h>

struct sdc_ring;

struct sdc_ring_config {
    uint32_t size;     // entries, 1 to 32768; in a split ring a power of two
    uint64_t features; // as negotiated
    uint64_t desc;     // guest addresses (virtio 1.2, 2.7: descriptor area, driver area, device area)
    uint64_t driver;
    uint64_t device;
    uint16_t position; // where to go on: the next available entry, which is the next used one too. 0: a new ring
    bool wrapped;      // packed rings: the wrap counters are 0 there; they are 1 in a new ring
    struct sdc_inflight *log; // opened for a ring like this, outlasts it; NULL: what is in flight is written down nowhere
    bool resume;       // with a log: go on where it says, not at position. Such a ring may be started asleep
};

// A ring's format: split or packed.
struct sdc_ring_format {
    void (*start)(struct sdc_ring *ring); // positions
    int (*recover)(struct sdc_ring *ring); // the same from the log and what the driver has seen; the areas are resolved
    int (*resolve)(struct sdc_ring *ring, struct sdc_memory *memory);
    int (*take)(struct sdc_ring *ring, struct sdc_chain *chain);
    void (*give)(struct sdc_ring *ring, const struct sdc_chain *chain, uint32_t written);
    bool (*publish)(struct sdc_ring *ring);
    bool (*look)(struct sdc_ring *ring);
    void (*suppress)(struct sdc_ring *ring);
    bool (*rearm)(struct sdc_ring *ring);
};

extern const struct sdc_ring_format sdc_ring_split;
extern const struct sdc_ring_format sdc_ring_packed;

struct sdc_ring {
    const struct sdc_ring_format *format;
    struct sdc_ring_config config;
    struct sdc_memory memory;
    struct sdc_area desc, driver, device;
    bool awake;           // its areas are in memory
    bool lacking;         // they are not in a partial map: what ->memory says is missing has to be asked for
    bool remote;          // some of them in remote memory: never polled, the driver is never told not to notify
    bool resuming;        // the log has to be recovered when it is awake
    bool told;            // remote, with event indices: the driver was told to notify from told_at on
    uint16_t told_at;
    const char *broken;   // why the driver must reset, or NULL
    uint16_t avail_next;  // next entry to take
    uint16_t hinted;      // chains from there on that the processor was told of
    uint16_t used_next;   // next entry to fill
    union {
        struct {
            uint16_t avail_seen; // the driver's index when last looked at
            uint16_t used_shown; // the used index that the driver sees
        } split;
        struct {
            bool avail_wrap;      // the wrap counters (virtio 1.2, 2.8.1)
            bool used_wrap;
            uint16_t first;       // the first entry that was given and not shown; it hides those behind it,
            uint16_t first_flags; // until it gets these flags
            uint32_t hidden;      // entries from there to used_next
        } packed;
    };
    bool suppressed;      // the driver was told not to notify
    uint32_t entries_in_flight; // packed rings: that those occupy
    uint32_t in_flight;   // taken and not given; zero: no chain of this ring is anywhere
    uint64_t *taken;      // a bit for each head or buffer id: it is in flight
};

// Starts a ring whose areas are in memory's map (or will be, if it is resumed or the map is partial); the ring keeps a view of its own,
// with what memory says about remote regions.
// 0; -EINVAL (size, alignment), -EFAULT, -EACCES, -ENOMEM, with err filled. A log that makes no sense breaks the ring.
int sdc_ring_start(struct sdc_ring *ring, const struct sdc_ring_config *config, const struct sdc_memory *memory,
                   struct sdc_error *err);
// Nothing is in flight. Idempotent; a zeroed ring is a stopped one.
void sdc_ring_stop(struct sdc_ring *ring);

// Whether the areas would lie at the same place under map, so that a remap may happen while chains are in flight.
bool sdc_ring_stays(const struct sdc_ring *ring, const struct sdc_map *map);
// From now on chains are looked up in memory's map.
void sdc_ring_remap(struct sdc_ring *ring, const struct sdc_memory *memory);

// Takes the next chain. 1; 0: none is there (or the ring is asleep); -EPROTO: broken, ->broken says why; -ENOMEM: try later; -EAGAIN:
// put what ->memory says is missing into its cache, or ask for it if the map is partial, and call again; a cache is cleared after any
// other answer.
int sdc_ring_take(struct sdc_ring *ring, struct sdc_chain *chain);
// Puts a chain into the used ring; the driver does not see it yet.
void sdc_ring_give(struct sdc_ring *ring, const struct sdc_chain *chain, uint32_t written);
// Gives it back to nobody: in the ring's log it stays in flight, for who goes on with that.
void sdc_ring_leave(struct sdc_ring *ring);
// Shows the driver what was given. Whether it wants an interrupt for it.
bool sdc_ring_publish(struct sdc_ring *ring);

// Whether there is something to take. Cheap, and may be asked as often as one likes: who polls does it all the time. Breaks the ring where
// take would. False for remote rings, which are not polled.
bool sdc_ring_look(struct sdc_ring *ring);
// After such a look that found something: how many chains are there, as far as that is known at no price; of a packed ring it is not.
static inline uint32_t sdc_ring_there(const struct sdc_ring *ring)
{
    return ring->format == &sdc_ring_split ? (uint16_t)(ring->split.avail_seen - ring->avail_next) : UINT16_MAX;
}

// Asks the driver not to notify, and to notify again. rearm returns true if something is there already: take it, the driver may have
// made it available before it saw that it should notify.
void sdc_ring_suppress(struct sdc_ring *ring);
bool sdc_ring_rearm(struct sdc_ring *ring);

// Packed rings: whether the wrap counter of the next available entry is 0.
static inline bool sdc_ring_wrapped(const struct sdc_ring *ring)
{
    return ring->format == &sdc_ring_packed && !ring->packed.avail_wrap;
}

// For the formats: the features that they differ by, and how they say that the driver broke the rules.
static inline bool sdc_ring_has(const struct sdc_ring *ring, uint64_t feature)
{
    return (ring->config.features & feature) != 0;
}

static inline bool sdc_ring_is_taken(const struct sdc_ring *ring, uint16_t id)
{
    return ring->taken[id / 64] >> (id % 64) & 1;
}

static inline void sdc_ring_turn_taken(struct sdc_ring *ring, uint16_t id)
{
    ring->taken[id / 64] ^= UINT64_C(1) << (id % 64);
}

// Whether chains that were in flight when the log was recovered have still to be taken.
static inline bool sdc_ring_has_again(const struct sdc_ring *ring)
{
    uint16_t entry;

    return ring->config.log && sdc_inflight_again(ring->config.log, &entry);
}

enum { SDC_RING_HINTS = 16 }; // chains that are told of at once

// For a hint: that the guest's memory at iova will be read. No rule of data concerns it: whatever stood where iova was read, nothing
// but time depends on it.
static inline void sdc_ring_hint(const struct sdc_ring *ring, uint64_t iova)
{
    const uint8_t *host = sdc_memory_at_hand(&ring->memory, iova, 1, SDC_ACCESS_READ);

    if (host)
        sdc_prefetch(host);
}

static inline int sdc_ring_break(struct sdc_ring *ring, const char *reason)
{
    ring->broken = reason;
    return -EPROTO;
}
