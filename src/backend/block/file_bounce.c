// SPDX-License-Identifier: BSD-3-Clause
// Bounce buffers: direct I/O wants aligned memory, and a guest's buffers lie where the guest likes.
#include "backend/block/file.h"
#include "base/check.h"
#include "os/disk.h"
#include "os/fd.h"

#include <errno.h>
#include <string.h>

bool sdc_file_must_bounce(const struct sdc_file *file, const struct sdc_span *spans, uint32_t count)
{
    if (file->memory_align == 0)
        return false;
    uintptr_t addresses = 0;
    size_t lengths = 0;
    for (uint32_t i = 0; i < count; i++) {
        addresses |= (uintptr_t)spans[i].base;
        lengths |= spans[i].size;
    }
    return (addresses & (file->memory_align - 1)) || (lengths & (file->length_align - 1));
}

static int make_bounce(struct sdc_file_queue *queue)
{
    void *buffer;
    if (queue->bounces_made == SDC_FILE_BOUNCES)
        return -EAGAIN;
    int ret = sdc_disk_map_buffer(SDC_FILE_BOUNCE, &buffer);
    if (ret < 0)
        return ret;
    queue->bounces_made++;
    queue->bounces[queue->bounces_free++] = buffer;
    return 0;
}

// One is there from the start, so that waiting for one always ends.
int sdc_file_bounces_init(struct sdc_file_queue *queue)
{
    return queue->file->memory_align == 0 ? 0 : make_bounce(queue);
}

void sdc_file_bounces_free(struct sdc_file_queue *queue)
{
    while (queue->bounces_free > 0)
        sdc_unmap(queue->bounces[--queue->bounces_free], SDC_FILE_BOUNCE);
}

void *sdc_file_bounce_take(struct sdc_block_request *request)
{
    struct sdc_file_queue *queue = sdc_file_state(request)->queue;
    if (queue->bounces_free == 0 && make_bounce(queue) < 0) {
        sdc_block_list_add(&queue->bounce_waiters, request);
        return NULL;
    }
    return queue->bounces[--queue->bounces_free];
}

void sdc_file_bounce_give(struct sdc_file_queue *queue, void *buffer)
{
    queue->bounces[queue->bounces_free++] = buffer;
    struct sdc_block_request *waiter = sdc_block_list_take(&queue->bounce_waiters);
    if (waiter)
        sdc_file_transfer(waiter);
}

// A walk over the spans from the request's cursor on, which stays where it is.
struct walk {
    const struct sdc_span *span;
    uint64_t skip; // bytes of *span
    uint64_t left;
};

static struct walk walk_from(const struct sdc_block_request *request, uint64_t size)
{
    const struct sdc_file_request *state = (const void *)request->backend;
    return (struct walk){&request->spans[state->first_span], state->span_done, size};
}

static struct sdc_span next_part(struct walk *walk)
{
    struct sdc_span part = {(char *)walk->span->base + walk->skip, walk->span->size - (size_t)walk->skip};
    part.size = (size_t)sdc_min(part.size, walk->left);
    walk->left -= part.size;
    walk->skip = 0;
    walk->span++;
    return part;
}

void sdc_file_gather(const struct sdc_block_request *request, void *buffer, uint64_t size)
{
    struct walk walk = walk_from(request, size);
    for (unsigned char *to = buffer; walk.left > 0;) {
        struct sdc_span part = next_part(&walk);
        memcpy(to, part.base, part.size);
        to += part.size;
    }
}

void sdc_file_scatter(const struct sdc_block_request *request, const void *buffer, uint64_t size)
{
    struct walk walk = walk_from(request, size);
    for (const unsigned char *from = buffer; walk.left > 0;) {
        struct sdc_span part = next_part(&walk);
        memcpy(part.base, from, part.size);
        from += part.size;
    }
}
