// SPDX-License-Identifier: BSD-3-Clause
// What both kinds of log have in common, and the split ring's: QueueRegionSplit, DescStateSplit.
#include "ring/inflight.h"

#include "base/limits.h"
#include "ring/inflight_layout.h"

#include <errno.h>
#include <stdlib.h>

uint64_t sdc_inflight_bytes(uint32_t size, bool packed)
{
    return packed ? PACKED_ENTRIES + (uint64_t)size * PACKED_ENTRY : SPLIT_ENTRIES + (uint64_t)size * SPLIT_ENTRY;
}

int sdc_inflight_open(struct sdc_inflight *log, void *region, uint64_t bytes, uint32_t size, bool packed)
{
    if (size == 0 || size > SDC_LIMIT_QUEUE_SIZE || bytes < sdc_inflight_bytes(size, packed) || (uintptr_t)region % 8 != 0)
        return -EINVAL;
    *log = (struct sdc_inflight){.region = region, .size = size, .packed = packed};
    log->given = calloc(size, sizeof *log->given);
    if (packed) {
        log->next = calloc(size, sizeof *log->next);
        log->last = calloc(size, sizeof *log->last);
        log->num = calloc(size, sizeof *log->num);
    }
    if (!log->given || (packed && (!log->next || !log->last || !log->num))) {
        sdc_inflight_close(log);
        return -ENOMEM;
    }
    return 0;
}

void sdc_inflight_close(struct sdc_inflight *log)
{
    free(log->given);
    free(log->next);
    free(log->last);
    free(log->num);
    free(log->again);
    free(log->table);
    *log = (struct sdc_inflight){0};
}

void sdc_inflight_start(struct sdc_inflight *log, uint16_t used, bool wrap)
{
    log->counter = 0;
    log->given_count = 0;
    log->batch_head = 0;
    sdc_inflight_forget(log);
    // Not a log, until it is one.
    put16(log->region + REGION_VERSION, 0);
    put64(log->region + REGION_FEATURES, 0);
    put16(log->region + REGION_DESC_NUM, (uint16_t)log->size);
    if (log->packed) {
        inflight_start_packed(log, used, wrap);
    } else {
        put16(log->region + SPLIT_BATCH_HEAD, 0);
        put16(log->region + SPLIT_USED, used);
        for (uint32_t i = 0; i < log->size; i++)
            put8(split_entry(log, i) + SPLIT_INFLIGHT, 0);
    }
    put16(log->region + REGION_VERSION, VERSION);
}

bool sdc_inflight_written(const struct sdc_inflight *log)
{
    return get16(log->region + REGION_VERSION) == VERSION && get16(log->region + REGION_DESC_NUM) == log->size;
}

// --- what has to be taken again ---

void sdc_inflight_forget(struct sdc_inflight *log)
{
    free(log->again);
    free(log->table);
    log->again = NULL;
    log->table = NULL;
    log->again_count = log->again_at = 0;
}

static int by_age(const void *one, const void *other)
{
    const struct inflight_age *a = one, *b = other;

    return a->counter < b->counter ? -1 : a->counter > b->counter;
}

int inflight_line_up(struct sdc_inflight *log, struct inflight_age *ages, uint32_t count)
{
    log->again = malloc((count + 1) * sizeof *log->again);
    if (!log->again)
        return -ENOMEM;
    qsort(ages, count, sizeof *ages, by_age);
    for (uint32_t i = 0; i < count; i++)
        log->again[i] = ages[i].entry;
    log->again_count = count;
    log->again_at = 0;
    if (count > 0 && ages[count - 1].counter == UINT64_MAX)
        return -EPROTO; // nobody counts that far
    log->counter = count > 0 ? ages[count - 1].counter + 1 : 0;
    return 0;
}

// --- split rings ---

void sdc_inflight_take(struct sdc_inflight *log, uint16_t head)
{
    uint8_t *entry = split_entry(log, head);

    put64(entry + SPLIT_COUNTER, log->counter++);
    put8(entry + SPLIT_INFLIGHT, 1);
}

void sdc_inflight_give(struct sdc_inflight *log, uint16_t head)
{
    put16(split_entry(log, head) + SPLIT_NEXT, log->batch_head);
    put16(log->region + SPLIT_BATCH_HEAD, head);
    log->batch_head = head;
    log->given[log->given_count++] = head;
}

void sdc_inflight_shown(struct sdc_inflight *log, uint16_t used)
{
    for (uint32_t i = 0; i < log->given_count; i++)
        put8(split_entry(log, log->given[i]) + SPLIT_INFLIGHT, 0);
    log->given_count = 0;
    put16(log->region + SPLIT_USED, used);
}

// The last batch may have been shown and not noted: its entries are not in flight any more.
static int end_batch(struct sdc_inflight *log, uint16_t used)
{
    uint16_t shown = (uint16_t)(used - get16(log->region + SPLIT_USED));
    uint16_t head = log->batch_head;

    if (shown > log->size)
        return -EPROTO;
    for (; shown > 0; shown--) {
        if (head >= log->size)
            return -EPROTO;
        uint8_t *entry = split_entry(log, head);
        put8(entry + SPLIT_INFLIGHT, 0);
        head = get16(entry + SPLIT_NEXT);
    }
    put16(log->region + SPLIT_USED, used);
    return 0;
}

int sdc_inflight_recover(struct sdc_inflight *log, uint16_t used)
{
    log->given_count = 0;
    log->batch_head = get16(log->region + SPLIT_BATCH_HEAD);
    sdc_inflight_forget(log);
    if (!sdc_inflight_written(log) || log->batch_head >= log->size || end_batch(log, used) < 0)
        return -EPROTO;

    struct inflight_age *ages = malloc(log->size * sizeof *ages);
    if (!ages)
        return -ENOMEM;
    uint32_t count = 0;
    int rc = 0;
    for (uint32_t i = 0; i < log->size; i++) {
        const uint8_t *entry = split_entry(log, i);
        uint8_t inflight = get8(entry + SPLIT_INFLIGHT);
        if (inflight > 1)
            rc = -EPROTO;
        if (inflight == 1)
            ages[count++] = (struct inflight_age){.counter = get64(entry + SPLIT_COUNTER), .entry = (uint16_t)i};
    }
    if (rc == 0)
        rc = inflight_line_up(log, ages, count);
    free(ages);
    if (rc < 0)
        sdc_inflight_forget(log);
    return rc < 0 ? rc : (int)count;
}
