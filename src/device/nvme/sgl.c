// SPDX-License-Identifier: BSD-3-Clause
// Scatter gather lists (base 4.1.2). The descriptor in the command is the data, or names a segment of descriptors; the last one in a
// segment may name the next.
#include "base/bytes.h"
#include "base/check.h"
#include "device/nvme/walk.h"

enum {
    PIECE = 64, // descriptors that are read at a time
    BAD_SEGMENT = SDC_NVME_SC_SGL_LAST_SEGMENT | SDC_NVME_SC_DNR,
    BAD_COUNT = SDC_NVME_SC_SGL_COUNT | SDC_NVME_SC_DNR,
    BAD_LENGTH = SDC_NVME_SC_SGL_LENGTH | SDC_NVME_SC_DNR,
    BAD_TYPE = SDC_NVME_SC_SGL_TYPE | SDC_NVME_SC_DNR,
};

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint8_t type;     // enum sdc_nvme_sgl_type
    uint8_t sub_type; // 0: an address
};

// A segment that is walked.
struct segment {
    uint64_t address;
    uint32_t count; // descriptors
    bool last;
};

static void decode(struct descriptor *descriptor, const uint8_t raw[SDC_NVME_SGL])
{
    descriptor->address = sdc_get64(raw);
    descriptor->length = sdc_get32(raw + SDC_NVME_SGL_LENGTH);
    descriptor->type = raw[SDC_NVME_SGL_KIND] >> 4;
    descriptor->sub_type = raw[SDC_NVME_SGL_KIND] & 15;
}

static bool names_segment(const struct descriptor *descriptor)
{
    return descriptor->type == SDC_NVME_SGL_SEGMENT || descriptor->type == SDC_NVME_SGL_LAST_SEGMENT;
}

// Data that is too long is refused, which Identify says (SGLS).
static int add_data(struct nvme_walk *walk, const struct descriptor *descriptor)
{
    if (descriptor->length > walk->left)
        return BAD_LENGTH;
    return descriptor->length > 0 ? nvme_walk_add(walk, descriptor->address, descriptor->length) : 0;
}

// Data that the driver does not want. For what the driver sends it means nothing.
static int add_bucket(struct nvme_walk *walk, const struct descriptor *descriptor)
{
    if (walk->access == SDC_ACCESS_READ)
        return 0;
    if (descriptor->length > walk->left)
        return BAD_LENGTH;
    return descriptor->length > 0 ? nvme_walk_skip(walk, descriptor->length) : 0;
}

static int add(struct nvme_walk *walk, const struct descriptor *descriptor)
{
    if (descriptor->sub_type != 0)
        return BAD_TYPE;
    if (descriptor->type == SDC_NVME_SGL_DATA)
        return add_data(walk, descriptor);
    if (descriptor->type == SDC_NVME_SGL_BIT_BUCKET)
        return add_bucket(walk, descriptor);
    return BAD_TYPE;
}

static int open_segment(const struct descriptor *descriptor, struct segment *segment)
{
    if (descriptor->sub_type != 0)
        return BAD_TYPE;
    if (descriptor->length == 0 || descriptor->length % SDC_NVME_SGL != 0)
        return BAD_SEGMENT;
    segment->address = descriptor->address;
    segment->count = descriptor->length / SDC_NVME_SGL;
    segment->last = descriptor->type == SDC_NVME_SGL_LAST_SEGMENT;
    return 0;
}

// The descriptor at the end of a segment. Of all but the last it has to name the next one, which *next becomes.
static int add_end(struct nvme_walk *walk, const struct segment *segment, const struct descriptor *descriptor, struct segment *next)
{
    bool names = names_segment(descriptor);

    if (names == segment->last)
        return BAD_SEGMENT;
    return names ? open_segment(descriptor, next) : add(walk, descriptor);
}

static int add_segment(struct nvme_walk *walk, uint32_t n, const struct segment *segment, struct segment *next)
{
    uint8_t raw[PIECE * SDC_NVME_SGL];
    struct descriptor descriptor;
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < segment->count; i++) {
        if (i % PIECE == 0) {
            size_t count = (size_t)sdc_min(segment->count - i, PIECE);
            rc = nvme_walk_read(walk, n, segment->address, (uint64_t)i * SDC_NVME_SGL, raw, count * SDC_NVME_SGL);
            if (rc != 0)
                return rc;
        }
        decode(&descriptor, raw + (size_t)(i % PIECE) * SDC_NVME_SGL);
        if (i + 1 == segment->count)
            rc = add_end(walk, segment, &descriptor, next);
        else
            rc = names_segment(&descriptor) ? BAD_COUNT : add(walk, &descriptor);
    }
    return rc;
}

static int add_segments(struct nvme_walk *walk, struct segment next)
{
    uint32_t budget = NVME_SGL_DESCRIPTORS_MAX;
    struct segment segment;
    int rc = 0;

    for (uint32_t n = 0; rc == 0 && next.count > 0; n++) {
        segment = next;
        next.count = 0;
        if (segment.count > budget)
            return BAD_COUNT;
        budget -= segment.count;
        rc = add_segment(walk, n, &segment, &next);
    }
    return rc;
}

int nvme_sgl_walk(struct nvme_walk *walk, const uint8_t raw[SDC_NVME_SGL])
{
    struct descriptor descriptor;
    struct segment segment;

    decode(&descriptor, raw);
    int rc = names_segment(&descriptor) ? open_segment(&descriptor, &segment) : add(walk, &descriptor);
    if (rc == 0 && names_segment(&descriptor))
        rc = add_segments(walk, segment);
    if (rc == 0 && walk->left > 0)
        rc = BAD_LENGTH;
    return rc ? rc : nvme_walk_end(walk);
}
