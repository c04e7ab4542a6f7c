// SPDX-License-Identifier: BSD-3-Clause
// The block interface: what stands behind a storage device. A block backend (struct sdc_block) is opened once and
// shared; every loop that sends requests opens its own queue on it. Requests go down in batches and come back in
// batches, on the loop that submitted them, never from inside submit. A filter implements the same interface; what
// it must remember about a request that it holds is in the request's backend bytes, which nothing below has meanwhile.
#pragma once

#include <sidecard/memory.h>

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sdc_loop;
struct sdc_block;
struct sdc_block_queue;

enum sdc_block_op {
    SDC_BLOCK_READ,
    SDC_BLOCK_WRITE,
    SDC_BLOCK_FLUSH,        // everything completed before is durable when this completes
    SDC_BLOCK_DISCARD,      // contents become undefined; a backend that cannot succeeds and does nothing
    SDC_BLOCK_WRITE_ZEROES, // reads as zeroes afterwards, always
};

enum sdc_block_flags {
    SDC_BLOCK_FUA = 1,   // WRITE, WRITE_ZEROES: durable before it completes
    SDC_BLOCK_UNMAP = 2, // WRITE_ZEROES: may deallocate
};

enum {
    SDC_BLOCK_FILTERS = 4,         // that may stand on one another
    SDC_BLOCK_BACKEND_BYTES = 192, // a request's memory for the backend at the bottom
};

// One request. Memory belongs to the submitter, who may not touch it between submit and done.
struct sdc_block_request {
    enum sdc_block_op op;
    uint32_t flags;  // enum sdc_block_flags
    uint64_t offset; // bytes
    uint64_t size;   // bytes; for READ and WRITE the sum of the spans
    const struct sdc_span *spans; // READ and WRITE; the submitter's, as they are until done (short I/O goes on by a cursor)
    uint32_t spans_count;
    int result;      // set by the backend: 0 or a negative errno (-EIO, -ENOSPC, -EINVAL: past the end, -EROFS)
    void *owner;     // the submitter's
    struct sdc_block_request *next; // of whoever has it, a filter or the backend: a list that it waits in
    // Also of a filter that holds the request, and so has kept it from the backend.
    __attribute__((aligned(16))) unsigned char backend[SDC_BLOCK_BACKEND_BYTES];
};

// What a backend is. Everything but size stays as it is while the backend is open.
struct sdc_block_info {
    uint64_t size;                // bytes, as of now
    uint32_t block_size;          // bytes: smallest unit and alignment that requests may have
    uint32_t physical_block_size; // bytes: writes of this size and alignment don't read first; >= block_size
    uint32_t optimal_io_size;     // bytes, 0: unknown
    uint32_t discard_granularity; // bytes, 0: discard does nothing
    bool discard_zeroes;          // what was discarded reads as zeroes
    bool read_only;
    bool volatile_cache;          // writes need FLUSH or FUA to be durable
};

// Called when requests are finished: count of them, results set. On the queue's loop, not inside submit.
typedef void sdc_block_done(void *context, struct sdc_block_request **requests, unsigned count);

struct sdc_block_queue_ops {
    // Takes over count requests. Bounds are checked here, against the size of this moment.
    void (*submit)(struct sdc_block_queue *queue, struct sdc_block_request **requests, unsigned count);
    // Finishes, with -ECANCELED, what has not begun and may take long to (an image that is locked, a filter that holds requests back), as
    // of now: what is submitted afterwards waits again. May be NULL: nothing waits.
    void (*cancel)(struct sdc_block_queue *queue);
    // No request is outstanding. Frees queue.
    void (*close)(struct sdc_block_queue *queue);
};

// A loop's own way into a backend. Backends embed it at the start of their own.
struct sdc_block_queue {
    const struct sdc_block_queue_ops *ops;
    struct sdc_block *block;
    struct sdc_loop *loop;
    sdc_block_done *done;
    void *context;
};

struct sdc_block_ops {
    const char *name;
    // Any thread.
    void (*info)(struct sdc_block *block, struct sdc_block_info *info);
    // On the loop given, which then owns the queue. The first open queue locks the image, the last one's close unlocks it;
    // while another process holds the lock, requests wait for it (up to 30 s, then they fail with -EBUSY).
    int (*queue_open)(struct sdc_block *block, struct sdc_loop *loop, sdc_block_done *done, void *context,
                      struct sdc_block_queue **queue);
    // Looks at the size again. Any thread. 1 if it changed, 0 if not, or a negative errno. May be NULL: cannot change.
    int (*refresh)(struct sdc_block *block);
    // Every queue is closed. Frees block.
    void (*close)(struct sdc_block *block);
};

// A backend. Implementations embed it at the start of their own.
struct sdc_block {
    const struct sdc_block_ops *ops;
};

#ifdef __cplusplus
}
#endif
