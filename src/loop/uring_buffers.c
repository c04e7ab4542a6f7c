// SPDX-License-Identifier: BSD-3-Clause
// Memory that is registered with the ring. I/O on it has its pages at hand: the kernel need not look them up, and hold them, for
// each request. What is registered is held all the time, so that it counts as locked memory, for each ring on its own.
//
// A buffer is registered in chunks, each when I/O has gone to it a few times, and one in a turn: to register one takes as long as its
// pages take to be found, or made. I/O that lies in no chunk goes as ever.
//
// The kernel says by a completion (the chunk's tag) that it has let a chunk go: then no I/O that was begun uses it any more.
#include "loop/uring.h"

#include "base/check.h"
#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/uio.h>

enum {
    CHUNK_SHIFT = 24,     // 16 MiB: takes 0.5 ms if its pages are there, 11 ms if not
    CHUNK_SHIFT_MOST = 30, // 1 GiB: the kernel takes no more
    CHUNKS_MOST = 1024,   // of a buffer, as long as that can be
    USES = 16,            // I/Os that go to a chunk before it is registered: memory that comes and goes is not worth it
};

// What a chunk is: the number of its slot in the kernel's table, or
enum {
    REFUSED = SDC_URING_SLOTS, // the kernel will not have it
    WANTED,                    // it is to be registered, when there is room
    COLD = WANTED + USES,      // minus the times that it was used
};

struct sdc_uring_buffer {
    struct sdc_loop_buffer *owner;
    uintptr_t base;
    uint64_t size;
    unsigned shift;      // of a chunk's size
    uint32_t registered; // chunks that the kernel has; zero: it has let go of all
    uint32_t chunks_count;
    struct sdc_uring_buffer *next; // of those that the kernel has still to be asked to let go
    uint16_t chunks[];
};

// --- finding ---

// The buffer that begins last at or before address; the first one if all begin after it. There is one.
static uint32_t find(const struct sdc_uring_buffers *buffers, uintptr_t address)
{
    uint32_t low = 0;

    for (uint32_t count = buffers->count; count > 1;) {
        uint32_t half = count / 2;
        low += address >= buffers->sorted[low + half]->base ? half : 0;
        count -= half;
    }
    return low;
}

static void run_next(struct sdc_post *post);

static void come_again(struct sdc_uring_buffers *buffers)
{
    if (buffers->posted)
        return;
    buffers->posted = true;
    buffers->post.run = run_next;
    sdc_loop_post(buffers->loop, &buffers->post);
}

// The slot of a chunk that is used once more, or -1.
static int use(struct sdc_uring_buffers *buffers, struct sdc_uring_buffer *buffer, uint32_t chunk)
{
    uint16_t *state = &buffer->chunks[chunk];

    if (*state < SDC_URING_SLOTS)
        return *state;
    if (*state > WANTED)
        --*state;
    if (*state == WANTED && !buffers->full && !buffers->wanted) {
        buffers->wanted = buffer;
        buffers->wanted_chunk = chunk;
        come_again(buffers);
    }
    return -1;
}

// Buffers may overlap; what lies in another one than that which is found here goes as ever.
int sdc_uring_buffer_find(struct sdc_uring *uring, const void *base, size_t size)
{
    struct sdc_uring_buffers *buffers = &uring->buffers;
    struct sdc_uring_buffer *buffer = buffers->hit;
    uintptr_t address = (uintptr_t)base;

    if (!buffer || address - buffer->base >= buffer->size) {
        buffer = buffers->sorted[find(buffers, address)];
        if (address - buffer->base >= buffer->size)
            return -1;
        buffers->hit = buffer;
    }
    uint64_t offset = address - buffer->base;
    uint64_t chunk = offset >> buffer->shift;
    if (size == 0 || size > buffer->size - offset || (offset + size - 1) >> buffer->shift != chunk)
        return -1;
    return use(buffers, buffer, (uint32_t)chunk);
}

// --- the kernel's table ---

// Once for each way in which the kernel refuses, in the whole process: rings are many, and all fare alike.
static void warn(int code)
{
    static atomic_flag said[] = {ATOMIC_FLAG_INIT, ATOMIC_FLAG_INIT, ATOMIC_FLAG_INIT};
    struct rlimit limit = {0};

    getrlimit(RLIMIT_MEMLOCK, &limit);
    if (code == -ENOMEM && limit.rlim_cur != RLIM_INFINITY) {
        if (!atomic_flag_test_and_set(&said[0]))
            sdc_log(SDC_LOG_WARNING,
                    "fixed-buffers: no more guest memory is registered, since this process may lock only %llu KiB; I/O goes on without; "
                    "raise the limit (ulimit -l unlimited, or LimitMEMLOCK=infinity)",
                    (unsigned long long)(limit.rlim_cur / 1024));
    } else if (code == -ENOSPC) {
        if (!atomic_flag_test_and_set(&said[1]))
            sdc_log(SDC_LOG_WARNING, "fixed-buffers: a thread registers at most %u chunks of guest memory; I/O on more goes on without",
                    SDC_URING_SLOTS);
    } else if (!atomic_flag_test_and_set(&said[2])) {
        sdc_log(SDC_LOG_WARNING, "fixed-buffers: the kernel does not register this guest memory (%s); I/O goes on without",
                strerror(-code));
    }
}

// The kernel's table, on first use. Linux 5.19 has tables of which the slots are filled later.
static int open_table(struct sdc_uring *uring)
{
    struct sdc_uring_buffers *buffers = &uring->buffers;

    if (buffers->slots)
        return 0;
    struct sdc_uring_slot *slots = malloc(SDC_URING_SLOTS * sizeof *slots);
    int ret = slots ? io_uring_register_buffers_sparse(&uring->ring, SDC_URING_SLOTS) : -ENOMEM;
    if (ret < 0) {
        free(slots);
        return ret;
    }
    for (uint32_t i = 0; i < SDC_URING_SLOTS; i++)
        slots[i] = (struct sdc_uring_slot){.next_free = (uint16_t)(i + 1)};
    buffers->slots = slots;
    buffers->first_free = 0;
    return 0;
}

static int update(struct sdc_uring *uring, uint32_t slot, void *base, size_t size, uint64_t tag)
{
    struct iovec memory = {.iov_base = base, .iov_len = size};
    __u64 tags = tag;
    int ret = io_uring_register_buffers_update_tag(&uring->ring, slot, &memory, &tags, 1);

    return ret < 0 ? ret : ret == 1 ? 0 : -EINVAL;
}

static int register_chunk(struct sdc_uring *uring, struct sdc_uring_buffer *buffer, uint32_t chunk)
{
    struct sdc_uring_buffers *buffers = &uring->buffers;
    uint64_t offset = (uint64_t)chunk << buffer->shift;
    uint64_t size = sdc_min(buffer->size - offset, UINT64_C(1) << buffer->shift);
    int ret = open_table(uring);

    if (ret < 0)
        return ret;
    uint32_t slot = buffers->first_free;
    if (slot == SDC_URING_SLOTS)
        return -ENOSPC;
    ret = update(uring, slot, (uint8_t *)buffer->owner->base + offset, size,
                 (uint64_t)slot * (SDC_URING_TAGS + 1) | SDC_URING_BUFFER);
    if (ret < 0)
        return ret;
    buffers->first_free = buffers->slots[slot].next_free;
    buffers->slots[slot].buffer = buffer;
    buffer->chunks[chunk] = (uint16_t)slot;
    buffer->registered++;
    return 0;
}

static void register_wanted(struct sdc_uring *uring)
{
    struct sdc_uring_buffers *buffers = &uring->buffers;
    struct sdc_uring_buffer *buffer = buffers->wanted;

    buffers->wanted = NULL;
    if (!buffer)
        return;
    int ret = register_chunk(uring, buffer, buffers->wanted_chunk);
    if (ret == 0)
        return;
    warn(ret);
    // Where there is no room now there may be when something else has been let go.
    buffers->full = ret == -ENOMEM || ret == -ENOSPC;
    if (!buffers->full)
        buffer->chunks[buffers->wanted_chunk] = REFUSED;
}

// --- letting go ---

static void tell(struct sdc_uring_buffer *buffer)
{
    struct sdc_loop_buffer *owner = buffer->owner;

    free(buffer);
    owner->engine = NULL;
    owner->removed(owner);
}

// Asks the kernel to let go of all chunks. False: not all of them were asked for, it has to be tried again.
static bool let_go(struct sdc_uring *uring, struct sdc_uring_buffer *buffer)
{
    // What stands in the submission queue names slots, and must find them as they were.
    if (buffer->registered > 0 && io_uring_sq_ready(&uring->ring) > 0)
        io_uring_submit(&uring->ring);
    if (buffer->registered > 0 && io_uring_sq_ready(&uring->ring) > 0)
        return false;
    for (uint32_t i = 0; i < buffer->chunks_count; i++) {
        if (buffer->chunks[i] >= SDC_URING_SLOTS)
            continue;
        if (update(uring, buffer->chunks[i], NULL, 0, 0) < 0)
            return false;
        buffer->chunks[i] = REFUSED;
    }
    return true;
}

static void let_all_go(struct sdc_uring *uring)
{
    struct sdc_uring_buffer *left = uring->buffers.leaving;

    uring->buffers.leaving = NULL;
    while (left) {
        struct sdc_uring_buffer *buffer = left;
        left = buffer->next;
        if (let_go(uring, buffer))
            continue;
        buffer->next = uring->buffers.leaving;
        uring->buffers.leaving = buffer;
        come_again(&uring->buffers);
    }
}

static void run_next(struct sdc_post *post)
{
    struct sdc_uring *uring = sdc_container(post, struct sdc_uring, buffers.post);

    uring->buffers.posted = false;
    register_wanted(uring);
    let_all_go(uring);
}

void sdc_uring_buffer_released(struct sdc_uring *uring, uint64_t slot)
{
    struct sdc_uring_buffers *buffers = &uring->buffers;
    struct sdc_uring_buffer *buffer = buffers->slots[slot].buffer;

    buffers->slots[slot] = (struct sdc_uring_slot){.next_free = buffers->first_free};
    buffers->first_free = (uint16_t)slot;
    buffers->full = false;
    if (--buffer->registered == 0)
        tell(buffer);
}

// --- the engine's ---

static bool make_room(struct sdc_uring_buffers *buffers)
{
    uint32_t capacity = buffers->capacity ? 2 * buffers->capacity : 8;

    if (buffers->count < buffers->capacity)
        return true;
    struct sdc_uring_buffer **sorted = realloc(buffers->sorted, capacity * sizeof *sorted);
    if (!sorted)
        return false;
    buffers->sorted = sorted;
    buffers->capacity = capacity;
    return true;
}

static struct sdc_uring_buffer *buffer_new(struct sdc_loop_buffer *owner)
{
    unsigned shift = CHUNK_SHIFT;

    while (shift < CHUNK_SHIFT_MOST && (owner->size - 1) >> shift >= CHUNKS_MOST)
        shift++;
    uint64_t count = ((owner->size - 1) >> shift) + 1;
    struct sdc_uring_buffer *buffer = malloc(sizeof *buffer + count * sizeof buffer->chunks[0]);
    if (!buffer)
        return NULL;
    *buffer = (struct sdc_uring_buffer){.owner = owner, .base = (uintptr_t)owner->base, .size = owner->size, .shift = shift,
                                        .chunks_count = (uint32_t)count};
    for (uint32_t i = 0; i < buffer->chunks_count; i++)
        buffer->chunks[i] = COLD;
    return buffer;
}

void sdc_uring_buffer_add(struct sdc_loop *loop, struct sdc_loop_buffer *owner)
{
    struct sdc_uring *uring = loop->engine;
    struct sdc_uring_buffers *buffers = &uring->buffers;
    struct sdc_uring_buffer *buffer = make_room(buffers) ? buffer_new(owner) : NULL;

    buffers->loop = loop;
    owner->engine = buffer;
    if (!buffer)
        return;
    uint32_t at = buffers->count > 0 ? find(buffers, buffer->base) : 0;
    if (at < buffers->count && buffers->sorted[at]->base <= buffer->base)
        at++;
    memmove(&buffers->sorted[at + 1], &buffers->sorted[at], (buffers->count - at) * sizeof buffers->sorted[0]);
    buffers->sorted[at] = buffer;
    buffers->count++;
}

static void forget(struct sdc_uring_buffers *buffers, const struct sdc_uring_buffer *buffer)
{
    uint32_t at = 0;

    while (buffers->sorted[at] != buffer)
        at++;
    buffers->count--;
    memmove(&buffers->sorted[at], &buffers->sorted[at + 1], (buffers->count - at) * sizeof buffers->sorted[0]);
    if (buffers->hit == buffer)
        buffers->hit = NULL;
    if (buffers->wanted == buffer)
        buffers->wanted = NULL;
}

void sdc_uring_buffer_remove(struct sdc_loop *loop, struct sdc_loop_buffer *owner)
{
    struct sdc_uring *uring = loop->engine;
    struct sdc_uring_buffer *buffer = owner->engine;

    if (!buffer) {
        owner->removed(owner);
        return;
    }
    forget(&uring->buffers, buffer);
    if (buffer->registered == 0) {
        tell(buffer);
        return;
    }
    buffer->next = uring->buffers.leaving;
    uring->buffers.leaving = buffer;
    let_all_go(uring);
}

void sdc_uring_free_buffers(struct sdc_uring *uring)
{
    for (uint32_t i = 0; i < uring->buffers.count; i++)
        free(uring->buffers.sorted[i]);
    free(uring->buffers.sorted);
    free(uring->buffers.slots);
}
