// SPDX-License-Identifier: BSD-3-Clause
// From a command's data pointer to its payload: a walk over PRP entries (prp.c) or an SGL (sgl.c), which reads every list once, through
// the door.
#pragma once

#include "device/nvme/data.h"
#include "wire/nvme.h"

enum { NVME_SGL_DESCRIPTORS_MAX = 4096 }; // of one command; each may be for as little as nothing

// What a walk returns beside 0, a status (> 0) and -EAGAIN: a part of the data is to be bounced. Begin again, and do so.
enum { NVME_WALK_BOUNCE = -3000 };

struct nvme_walk {
    struct sdc_memory *memory;
    struct sdc_payload *payload;   // where buffers go
    struct sdc_fetch_log *fetched;
    enum sdc_access access;
    uint64_t left;    // bytes of data that have no place yet: the command's size at the start
    uint64_t iova;    // a buffer that may still grow by what comes next
    uint32_t pending; // its bytes
};

// Walks from prp1 and prp2 (base 4.1.1), or from the descriptor in the command (base 4.1.2): all of `left` gets its place. 0, a status,
// -EAGAIN or NVME_WALK_BOUNCE.
int nvme_prp_walk(struct nvme_walk *walk, uint64_t prp1, uint64_t prp2);
int nvme_sgl_walk(struct nvme_walk *walk, const uint8_t descriptor[SDC_NVME_SGL]);

// For those two. The next `size` bytes of the data are at iova, in a buffer of their own; size is at most `left`. Likewise.
int nvme_walk_begin_buffer(struct nvme_walk *walk, uint64_t iova, uint32_t size);
// The same, wherever iova is. What lies behind one another is one buffer: one look-up, one span.
static inline int nvme_walk_add(struct nvme_walk *walk, uint64_t iova, uint32_t size)
{
    if (walk->pending == 0 || iova != walk->iova + walk->pending || iova == 0)
        return nvme_walk_begin_buffer(walk, iova, size);
    walk->pending += size;
    walk->left -= size;
    return 0;
}

// The next `size` bytes of the data are nowhere.
int nvme_walk_skip(struct nvme_walk *walk, uint32_t size);
// There are no more.
int nvme_walk_end(struct nvme_walk *walk);
// Copies a piece of the n-th list, which stands at iova, from offset. 0, a status, or -EAGAIN.
int nvme_walk_read(struct nvme_walk *walk, uint32_t list, uint64_t iova, uint64_t offset, void *local, size_t size);
