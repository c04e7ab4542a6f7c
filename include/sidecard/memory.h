// SPDX-License-Identifier: BSD-3-Clause
// Guest memory, as a device sees it. The guest's addresses are uint64_t (iova), never pointers. What a device parses is copied out once
// (sidecard/dma.h, and of virtio requests sdc_virtio_request_read); what it only moves (payload) goes through spans, and a span is never
// parsed.
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

#ifdef __cplusplus
}
#endif
