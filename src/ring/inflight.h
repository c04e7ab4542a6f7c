// SPDX-License-Identifier: BSD-3-Clause
// The log of what is in flight in a virtqueue, in memory that outlasts the process: after a kill -9 between any two instructions, whoever
// is next knows from it and from the ring where to go on and which chains to take again, oldest first. The layout and the order
// of the stores are those of the vhost-user specification ("Inflight I/O tracking"), so that the same code serves its shared region and
// the state record. One thread at a time.
//
// Others can write to the region. So nothing in it is read while the queue runs; recovery copies what it looks at, once, and
// believes none of it.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct sdc_desc;

struct sdc_inflight {
    uint8_t *region; // not ours
    uint32_t size;   // entries
    bool packed;
    uint64_t counter; // of the next chain that is taken
    uint16_t *given;  // entries that were given and are not shown yet
    uint32_t given_count;
    uint16_t batch_head; // split: the entry that was given last
    // Packed: our own copies of the entries' links.
    uint16_t *next;
    uint16_t *last;
    uint16_t *num;
    uint16_t free_head;
    uint32_t free_count;
    uint16_t shown;  // the used position that the driver has seen, and its wrap counter
    bool shown_wrap;
    uint16_t noting; // the free entry that the next descriptor goes to
    uint32_t noted;  // descriptors of the chain that is being walked
    // After a recovery: entries whose chains have to be taken again, oldest first.
    uint16_t *again;
    uint32_t again_count;
    uint32_t again_at;
    uint8_t *table; // packed: the descriptors of the one that is taken again
};

// Bytes of a region for a queue of so many entries.
uint64_t sdc_inflight_bytes(uint32_t size, bool packed);
// Uses region, which is `bytes` long and 8-byte aligned, and stays the caller's. Follows with start or one of the recoveries. 0, -EINVAL
// (too short, or no size that a queue can have), -ENOMEM.
int sdc_inflight_open(struct sdc_inflight *log, void *region, uint64_t bytes, uint32_t size, bool packed);
// The region stays as it is. Idempotent; a zeroed log is a closed one.
void sdc_inflight_close(struct sdc_inflight *log);
// Nothing is in flight, and the next used entry is at `used` (wrap: of a packed ring).
void sdc_inflight_start(struct sdc_inflight *log, uint16_t used, bool wrap);
// Whether somebody has written a log of this size and version here.
bool sdc_inflight_written(const struct sdc_inflight *log);

// Forgets that there is something to take again.
void sdc_inflight_forget(struct sdc_inflight *log);
// The entry whose chain is to be taken again next. It stays so until sdc_inflight_took_again.
static inline bool sdc_inflight_again(const struct sdc_inflight *log, uint16_t *entry)
{
    if (log->again_at == log->again_count)
        return false;
    *entry = log->again[log->again_at];
    return true;
}
static inline void sdc_inflight_took_again(struct sdc_inflight *log)
{
    log->again_at++;
}

// --- split rings; an entry is a chain's head ---

// Before the device gets to know of it.
void sdc_inflight_take(struct sdc_inflight *log, uint16_t head);
// Its used element is written, the driver does not see it yet.
void sdc_inflight_give(struct sdc_inflight *log, uint16_t head);
// The driver sees all that was given: used is the used index now.
void sdc_inflight_shown(struct sdc_inflight *log, uint16_t used);
// used is the index that the driver sees. How many chains are in flight, or -EPROTO: what stands here cannot be.
int sdc_inflight_recover(struct sdc_inflight *log, uint16_t used);

// --- packed rings; entries are of the log's own choosing ---

// A walk begins: forgets what an earlier one has noted. Then note each descriptor of the ring that it reads.
void sdc_inflight_begin(struct sdc_inflight *log);
void sdc_inflight_note(struct sdc_inflight *log, const struct sdc_desc *desc);
// The walk has ended well: the entry of the chain. Before the device gets to know of it.
uint16_t sdc_inflight_take_packed(struct sdc_inflight *log);
// Before its used descriptor is written; used and wrap are where the next one will stand.
void sdc_inflight_give_packed(struct sdc_inflight *log, uint16_t entry, uint16_t used, bool wrap);
// Around the store that shows the driver all that was given.
void sdc_inflight_show_packed(struct sdc_inflight *log);
void sdc_inflight_shown_packed(struct sdc_inflight *log, uint16_t used, bool wrap);

// Where the used descriptors stand: those before `old` were shown; those from there to `now` were perhaps.
struct sdc_inflight_used {
    uint16_t old;
    bool old_wrap;
    uint16_t now;
    bool now_wrap;
};
// -EPROTO if they stand where they cannot.
int sdc_inflight_used(const struct sdc_inflight *log, struct sdc_inflight_used *used);
// shown: the driver sees what stands from used->old on. How many descriptors are in flight, or -EPROTO.
int sdc_inflight_recover_packed(struct sdc_inflight *log, const struct sdc_inflight_used *used, bool shown);
// The chain of an entry that is taken again, as a table of descriptors. Good until the next call.
const uint8_t *sdc_inflight_table(struct sdc_inflight *log, uint16_t entry, uint32_t *count);
