// SPDX-License-Identifier: BSD-3-Clause
#include "ring/fetch_log.h"

#ifdef SDC_TEST_HOOKS

#include "base/log.h"

void sdc_fetch_log_add(struct sdc_fetch_log *log, uint32_t place, uint64_t offset, uint64_t size)
{
    for (uint32_t i = 0; i < log->count; i++) {
        if (log->entries[i].place == place && offset < log->entries[i].end && log->entries[i].begin < offset + size)
            sdc_bug("control data of a request was fetched twice");
    }
    if (log->count == SDC_FETCH_LOG_ENTRIES)
        return;
    log->entries[log->count].place = place;
    log->entries[log->count].begin = offset;
    log->entries[log->count].end = offset + size;
    log->count++;
}

#endif
