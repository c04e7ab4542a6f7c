// SPDX-License-Identifier: BSD-3-Clause
// Guest memory, as a device sees it. The guest's addresses are uint64_t (iova), never pointers. What a device
// parses is copied out once, by sdc_memory_read; what it only moves (payload) goes through spans, and a span
// is never parsed.
#pragma once

#include <sidecard/error.h>

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// A stretch of payload. Laid out as struct iovec, so that a backend hands an array of them to the kernel. Only
// backends look inside; a device passes spans on.
struct sdc_span {
    void *base;
    size_t size;
};

enum sdc_access {
    SDC_ACCESS_READ = 1,  // the device reads guest memory
    SDC_ACCESS_WRITE = 2, // the device writes guest memory
};

// A reader's view of guest memory: the current table of regions and where the last look-up hit. One thread uses
// a view at a time.
struct sdc_memory;

// Copies size bytes at iova to local. 0, -EFAULT (no region, or a part of it), -EACCES (region is not readable),
// -EAGAIN (memory that has to be fetched from the client first; the view names the range).
SDC_PUBLIC int sdc_memory_read(struct sdc_memory *memory, uint64_t iova, void *local, size_t size);

// Copies size bytes from local to iova. Errors as sdc_memory_read; nothing is written when one is returned.
SDC_PUBLIC int sdc_memory_write(struct sdc_memory *memory, uint64_t iova, const void *local, size_t size);

// Fills out[0..max) with the spans of [iova, iova + size), one for each contiguous stretch. Returns their number
// (0 for size 0), -EFAULT, -EACCES, -EAGAIN, or -E2BIG when max does not suffice. The spans are good while the
// table of regions that they came from is held.
SDC_PUBLIC int sdc_memory_spans(struct sdc_memory *memory, uint64_t iova, uint64_t size, enum sdc_access access,
                                struct sdc_span *out, unsigned max);

#ifdef __cplusplus
}
#endif
