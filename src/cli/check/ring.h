// SPDX-License-Identifier: BSD-3-Clause
// A virtqueue's driver half that does as it is told, also when that is wrong: chains of any shape, entries with any flags, a start at
// any position. (driver/virtqueue.h is the one that does right.) Both layouts of the ring; one thread.
//
// What the device writes is checked against the rules as it is taken: an id that is not in flight, an index that runs ahead.
#pragma once

#include <sidecard/client.h>

#include <stdbool.h>
#include <stdint.h>

enum {
    SDC_CHECK_DESC_NEXT = 1,
    SDC_CHECK_DESC_WRITE = 2,
    SDC_CHECK_DESC_INDIRECT = 4,
    SDC_CHECK_DESC_BYTES = 16,
};

// A descriptor, but for what the layout adds to it.
struct sdc_check_piece {
    uint64_t iova;
    uint32_t size;
    uint16_t flags; // WRITE, INDIRECT; NEXT is the ring's affair unless a chain is added as it is
    uint16_t next;  // split, of a chain that is added as it is: the table's index
};

struct sdc_check_used {
    uint16_t id;
    uint32_t written; // bytes, as the device says
    uint16_t position; // where the device wrote that
};

// In order, one used element may stand for several chains: all but the last were used as a whole (2.7.9, 2.8.8).
#define SDC_CHECK_WRITTEN_ALL UINT32_MAX

// When the device is to interrupt.
enum sdc_check_calls { SDC_CHECK_CALLS_ALWAYS, SDC_CHECK_CALLS_NEVER, SDC_CHECK_CALLS_AT };

struct sdc_check_ring_config {
    bool packed;
    bool event_idx; // was negotiated
    bool in_order;  // likewise
    uint16_t size;  // entries
};

struct sdc_check_ring {
    struct sdc_check_ring_config config;
    uint8_t *desc, *driver, *device; // the three areas (virtio 1.2, 2.6), where we have them,
    uint64_t desc_iova, driver_iova, device_iova;
    uint16_t avail;     // split: the free-running index of the next chain; packed: the next entry's,
    bool avail_wrap;    // and its wrap counter
    uint16_t used;      // likewise, of what is taken next
    bool used_wrap;
    uint16_t shown;     // avail, as the device may see it,
    bool shown_wrap;    // and its wrap counter
    uint16_t free;      // entries of the table, or of the ring
    uint16_t next;      // where the search for the next free entry (split) or id (packed) begins
    uint16_t hidden_first, hidden_flags, hidden; // packed: entries that are not shown yet
    uint16_t *counts;   // of each id: its entries; 0: not in flight
    uint32_t *written;  // of each id that came back: bytes that the device says it wrote, or SDC_CHECK_WRITTEN_ALL
    uint16_t *links;    // split: of each entry of the table that is taken, the next one of its chain + 1; 0: free
    uint16_t oldest;    // in order: the slot of `order` that comes back next,
    uint16_t newest;    // and where the next id goes
    uint16_t *order;    // ids in flight, in the order in which they were added
    const char *wrong;  // what the device did, or NULL
};

// In memory taken from `memory`, empty and at its beginning. 0, -ENOMEM.
int sdc_check_ring_new(const struct sdc_check_ring_config *config, struct sdc_client_memory *memory, struct sdc_check_ring *ring);
// A zeroed one does no harm.
void sdc_check_ring_free(struct sdc_check_ring *ring);
// Empty, at a position: a split ring's index, or what a packed ring's base is in vhost-user.
void sdc_check_ring_clear(struct sdc_check_ring *ring, uint32_t base);
// What says the same of where the ring is when nothing is in flight.
uint32_t sdc_check_ring_base(const struct sdc_check_ring *ring);

// Where a device would begin that finds the ring in memory: behind what was taken.
uint32_t sdc_check_ring_used_base(const struct sdc_check_ring *ring);
// Uses chains in the device's place, from where the ring is; nothing waits to be taken.
void sdc_check_ring_pretend(struct sdc_check_ring *ring, const int *ids, unsigned count);

// Adds a chain, which the device does not see before it is shown. Its id, or -ENOSPC.
int sdc_check_ring_add(struct sdc_check_ring *ring, const struct sdc_check_piece *pieces, unsigned count);
// The same, but flags and next (split) are as in the pieces; they go to entries in a row from the first of the table (split) or from
// where the ring is (packed). Nothing else may be in flight.
int sdc_check_ring_add_as_is(struct sdc_check_ring *ring, const struct sdc_check_piece *pieces, unsigned count);
// Split: makes available what is no chain at all. The entry takes no room.
void sdc_check_ring_add_head(struct sdc_check_ring *ring, uint16_t head);
// Shows the device all of them. Whether it wants to be notified of that.
bool sdc_check_ring_show(struct sdc_check_ring *ring);
// The position for a notification with VIRTIO_F_NOTIFICATION_DATA (2.9).
uint16_t sdc_check_ring_position(const struct sdc_check_ring *ring);

// Takes a chain that the device has used. 1; 0: there is none; -EPROTO: the device broke a rule, which `wrong` names.
int sdc_check_ring_take(struct sdc_check_ring *ring, struct sdc_check_used *used);
// Chains in flight.
unsigned sdc_check_ring_flying(const struct sdc_check_ring *ring);

// Says when to interrupt; with AT (only where the event index was negotiated) when the `ahead`th chain from the next one on has been
// used, 0 for the very next. Packed: entries instead of chains.
void sdc_check_ring_calls(struct sdc_check_ring *ring, enum sdc_check_calls calls, uint16_t ahead);
// What the device has written to its half of the notification suppression: the flags.
uint16_t sdc_check_ring_device_flags(const struct sdc_check_ring *ring);
// Puts descriptors into an indirect table at `to`, chained as the layout has it (split: by next).
void sdc_check_ring_table(const struct sdc_check_ring *ring, uint8_t *to, const struct sdc_check_piece *pieces, unsigned count);
// One descriptor of a table as it is.
void sdc_check_ring_table_entry(const struct sdc_check_ring *ring, uint8_t *to, unsigned index, const struct sdc_check_piece *piece);
