// SPDX-License-Identifier: BSD-3-Clause
// The double-fetch recorder. A byte of control data that is read twice for one request may have changed in between, so what
// was checked is not what is used. Test builds (-Dtest_hooks=true) record every control read of a request by where it
// stands in the request - which visited descriptor, which byte of the readable stream - and abort on a second read of one. (Places
// in the request, not addresses: a hostile driver may point two descriptors at the same bytes.)
#pragma once

#include <stdint.h>

#define SDC_FETCH_STREAM UINT32_MAX // the readable stream; other values: the n-th descriptor visited

#ifdef SDC_TEST_HOOKS

enum { SDC_FETCH_LOG_ENTRIES = 64 }; // later reads of one request are not recorded

struct sdc_fetch_log {
    uint32_t count;
    struct {
        uint32_t place;
        uint64_t begin;
        uint64_t end;
    } entries[SDC_FETCH_LOG_ENTRIES];
};

static inline void sdc_fetch_log_clear(struct sdc_fetch_log *log)
{
    log->count = 0;
}

// Aborts if a byte of [offset, offset + size) at place was fetched before.
void sdc_fetch_log_add(struct sdc_fetch_log *log, uint32_t place, uint64_t offset, uint64_t size);

#else

struct sdc_fetch_log {
    char nothing[1];
};

static inline void sdc_fetch_log_clear(struct sdc_fetch_log *log)
{
    (void)log;
}

static inline void sdc_fetch_log_add(struct sdc_fetch_log *log, uint32_t place, uint64_t offset, uint64_t size)
{
    (void)log, (void)place, (void)offset, (void)size;
}

#endif
