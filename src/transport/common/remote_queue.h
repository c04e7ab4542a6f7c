// SPDX-License-Identifier: BSD-3-Clause
// A queue and remote memory, whatever its ring looks like: what a parser misses is fetched, requests of which any buffer is remote are
// bounced (memory/payload.h), and what the queue writes to its ring goes in messages. Of a partial map what a parser misses is asked for
// instead. The queue's owner embeds this, and all of it is on the queue's loop. No change of memory, and no end of the queue, waits for
// messages: the client may hold the very lock that would let it answer them.
#pragma once

#include "memory/payload.h"
#include "transport/common/remote.h"

struct remote_op;
struct sdc_remote_queue;

// What a queue keeps about a request that is bounced.
struct sdc_remote_request {
    struct sdc_payload *payload;     // the owner's, set once
    struct sdc_remote_queue *queue;  // likewise
    struct sdc_remote_request *next; // while it has arrived, or is parked
    bool storing;       // its writable bytes are on their way; before that, its readable ones
    bool lost;          // it was turned into a failed one
    uint32_t transfers; // of its bytes, under way; zero: it goes on
    uint32_t written;   // bytes of its writable stream that are brought to the driver
    int result;         // of the transfers: the first error
    int fault;          // when its readable bytes have arrived: 0, or why they have not, or -EFAULT, -EACCES as payload has it
};

struct sdc_remote_queue_ops {
    // What the parser missed is in the cache: it runs again. Or a negative errno: it cannot be had.
    void (*fetched)(struct sdc_remote_queue *queue, int result);
    // What was asked for is in the map; or its result is a negative errno: it is denied.
    void (*asked)(struct sdc_remote_queue *queue, const struct sdc_transfer *transfer);
    // A request has arrived, or there is room for another one.
    void (*go_on)(struct sdc_remote_queue *queue);
    // A write to the ring has been answered, with 0 or a negative errno; ring_writes has gone down.
    void (*written)(struct sdc_remote_queue *queue, int result);
    // Whether the ring's memory has gone: a write to it that came too late is kept, counts as under way, and is done when the memory is
    // back (sdc_remote_unpark). NULL: it fails.
    bool (*asleep)(const struct sdc_remote_queue *queue);
    // The driver could not be reached: makes a failed request of it. How many bytes of its writable stream are brought instead; that is
    // tried once.
    uint32_t (*lost)(struct sdc_remote_request *request);
    // It is where it should be, or dropped: the owner's again.
    void (*finish)(struct sdc_remote_request *request);
};

struct sdc_remote_queue {
    const struct sdc_remote_queue_ops *ops;
    struct sdc_loop *loop;
    struct sdc_memory *memory;    // the owner's view, of the map as it is now: buffers are looked up in it
    // For one parse; the owner clears them with sdc_remote_parsed when that has succeeded.
    struct sdc_read_cache cache;
    struct sdc_denials denials;
    uint32_t asks; // for what a partial map misses
    struct remote_op *transfers;  // under way
    struct sdc_remote_request *arrived; // their readable bytes are here
    struct sdc_remote_request **arrived_end;
    struct remote_op *kept;       // writes to the ring, likewise
    struct remote_op **kept_end;
    struct sdc_remote_request *parked;  // the memory is away: they go on when it is back
    uint32_t afloat;              // requests that are bounced: no change of memory waits for them
    uint32_t ring_writes;         // under way; zero: the driver can see what was published
    uint64_t bounced;             // bytes of requests that are bounced
    bool fetching;                // for the cache, or asking: nothing is parsed meanwhile
    bool starved;                 // too much is bounced: nothing is taken until some is given back
};
// With ops, loop and memory set, everything else zero.
void sdc_remote_queue_init(struct sdc_remote_queue *queue);

// Begins to fetch what a view that has the queue's cache misses. 0, -EFAULT, -ENOMEM.
int sdc_remote_fetch(struct sdc_remote_queue *queue, struct sdc_memory *memory);
// Begins to ask for what a view of a partial map misses. 0, -ENOMEM; -E2BIG: that was asked too often for one parse.
int sdc_remote_ask(struct sdc_remote_queue *queue, struct sdc_memory *memory);
void sdc_remote_forget_parse(struct sdc_remote_queue *queue);
// A parse has come to its end: what was fetched or denied for it is forgotten.
static inline void sdc_remote_parsed(struct sdc_remote_queue *queue)
{
    if (queue->cache.pieces || queue->denials.count > 0 || queue->denials.all || queue->asks > 0)
        sdc_remote_forget_parse(queue);
}
// Writes to the ring: in the order of the calls, and behind what was stored before. 0, -EFAULT, -ENOMEM.
int sdc_remote_write_ring(struct sdc_remote_queue *queue, uint64_t iova, const void *data, size_t size);

// Brings the readable bytes of a bounced request. True if it has to wait for messages: it arrives later. Else ->fault says how it went.
bool sdc_remote_bounce(struct sdc_remote_request *request);
// The next request whose bytes have arrived, or NULL.
struct sdc_remote_request *sdc_remote_arrived(struct sdc_remote_queue *queue);
// The device is done with a bounced request: brings the first `written` bytes of its writable stream to the driver, then finishes it.
void sdc_remote_unbounce(struct sdc_remote_request *request, uint32_t written);
// The same while the memory is away: it waits for unpark.
void sdc_remote_unbounce_later(struct sdc_remote_request *request, uint32_t written);
// The same when nobody wants it any more.
void sdc_remote_drop(struct sdc_remote_request *request);

// The memory changes: what was fetched for the parser is too old.
void sdc_remote_forget_cache(struct sdc_remote_queue *queue);
// The ring's memory goes away: requests that wait for messages are put aside, and their messages forgotten. When it is back, and with it
// the memory of its buffers, each of them goes on where it was.
void sdc_remote_park(struct sdc_remote_queue *queue);
void sdc_remote_unpark(struct sdc_remote_queue *queue);
// Whether anything is under way, or waits to go on.
bool sdc_remote_is_busy(const struct sdc_remote_queue *queue);
// Forgets every transfer: requests that waited for one are finished, with nothing written.
void sdc_remote_abandon(struct sdc_remote_queue *queue);
