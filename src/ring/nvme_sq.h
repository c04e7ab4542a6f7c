// SPDX-License-Identifier: BSD-3-Clause
// An NVMe submission queue in guest memory (base 3.3.1), the controller's half: takes entries that the driver filled. One thread at a
// time. It keeps its own copy of both indices.
//
// It outlasts a change of the map: sdc_nvme_sq_remap looks its memory up again, and a queue whose memory is away is asleep until it
// is back.
#pragma once

#include "ring/nvme_doorbell.h"
#include "wire/nvme.h"

struct sdc_nvme_sq {
    struct sdc_memory memory; // its own view: what is missing after -EAGAIN is in it
    struct sdc_area area;
    struct sdc_nvme_doorbell doorbell;
    uint32_t size; // entries, 2 to 65536
    uint32_t head; // the next to take; what completions tell the driver
    uint32_t tail; // how far the driver has filled it, as last looked at
    uint32_t event; // where the driver was last asked to write the register, if it has its words in memory
    bool awake;    // its memory is there
};

// Starts a queue of `size` entries at iova, empty; the doorbell's word is 0. memory is copied: its map is held by somebody else. 0;
// -EINVAL (alignment), -EFAULT, -EACCES.
int sdc_nvme_sq_start(struct sdc_nvme_sq *sq, uint64_t iova, uint32_t size, const _Atomic uint32_t *word,
                      const struct sdc_memory *memory);
// Looks at the doorbell: how many entries may be taken. -EPROTO: its value is none that a queue of this size can have; the one before
// counts on. Cheap; no more than a load if nothing has changed.
int sdc_nvme_sq_look(struct sdc_nvme_sq *sq);
// Copies the next entry out, once. 1; 0: there is none; -EAGAIN: it has to be fetched first; another error: it is out of reach.
int sdc_nvme_sq_take(struct sdc_nvme_sq *sq, uint8_t entry[SDC_NVME_SQE]);
// With shadow doorbells: the driver need not write the register until we have taken more; it shall, as soon as it goes on from the tail
// that was looked at last. After the latter, who called it looks once more.
void sdc_nvme_sq_suppress(struct sdc_nvme_sq *sq);
void sdc_nvme_sq_rearm(struct sdc_nvme_sq *sq);
// Whether its memory lies in map where it lay before.
bool sdc_nvme_sq_stays(const struct sdc_nvme_sq *sq, const struct sdc_map *map);
// Guest memory is what memory's map says, from now on. The queue is asleep if its own is not there.
void sdc_nvme_sq_remap(struct sdc_nvme_sq *sq, const struct sdc_memory *memory);
