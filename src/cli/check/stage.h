// SPDX-License-Identifier: BSD-3-Clause
// A virtio device on a bed, and requests that do no harm: what most tests of rings begin with. A disk's only read.
#pragma once

#include "cli/check/request.h"

enum {
    SDC_CHECK_STAGE_DATA = 16 * SDC_VIRTIO_BLK_SECTOR, // that each disk is expected to have
    SDC_CHECK_STAGE_SMALL = 64,                   // bytes of a small request where any number will do
    SDC_CHECK_CROWD_MAX = 64,
};

// Features of the rings that are as good as everywhere.
#define SDC_CHECK_RINGS (SDC_VIRTIO_F_INDIRECT_DESC | SDC_VIRTIO_F_EVENT_IDX)

struct sdc_check_stage {
    struct sdc_check_bed bed;
    struct sdc_check_disk disk;       // of another device: one without limits
    uint32_t block;                   // bytes of the smallest request
    struct sdc_check_request request; // a disk's: a read from sector 0
};

// Opens a bed with these features, as far as they are offered, and a request with `data` bytes, rounded up to blocks or as many as it has
// by its form; without a packed layout that is asked for the test ends. Nothing runs yet.
void sdc_check_stage_open(struct sdc_check_stage *stage, struct sdc_check *check, uint64_t features, uint32_t data);
// The same with other wishes than features, which are those of the disk too.
void sdc_check_stage_open_as(struct sdc_check_stage *stage, struct sdc_check *check, struct sdc_check_bed_wishes wishes, uint32_t data);
static inline bool sdc_check_stage_has(const struct sdc_check_stage *stage, uint64_t feature)
{
    return (stage->bed.features & feature) != 0;
}
// Ends the test unless the feature was agreed on. name: without VIRTIO_F_.
void sdc_check_stage_needs(const struct sdc_check_stage *stage, uint64_t feature, const char *name);
// Another request like that.
void sdc_check_stage_request(struct sdc_check_stage *stage, uint32_t data, struct sdc_check_request *request);
// Descriptors of a request in the plain cut: entries of the ring without a table.
unsigned sdc_check_stage_entries(const struct sdc_check_stage *stage);
// Does the stage's request.
void sdc_check_stage_read(struct sdc_check_stage *stage, uint16_t queue, enum sdc_check_cut cut, bool indirect);

// Requests that are in flight at once, reused as they come back.
struct sdc_check_crowd {
    struct sdc_check_request requests[SDC_CHECK_CROWD_MAX];
    unsigned count;
};
// So many reads of a block each.
void sdc_check_crowd_new(struct sdc_check_stage *stage, struct sdc_check_crowd *crowd, unsigned count);
// Puts as many of the crowd as fit into a queue, without showing them. How many.
unsigned sdc_check_crowd_add(struct sdc_check_stage *stage, uint16_t queue, struct sdc_check_crowd *crowd, bool indirect);
// Does that, shows them, waits for all, and judges them. How many there were.
unsigned sdc_check_crowd_wave(struct sdc_check_stage *stage, uint16_t queue, struct sdc_check_crowd *crowd, bool polled);

// Two functions from one that takes the feature of the layout, and their two rows.
#define SDC_CHECK_BOTH(name)                                                                        \
    static void split_##name(struct sdc_check *check) { name(check, 0); }                            \
    static void packed_##name(struct sdc_check *check) { name(check, SDC_VIRTIO_F_RING_PACKED); }
#define SDC_CHECK_ROWS(name, split_section, packed_section, function)                \
    {"split/" name, split_section, SDC_CHECK_REQUESTS, split_##function},                 \
    {"packed/" name, packed_section, SDC_CHECK_REQUESTS, packed_##function}
