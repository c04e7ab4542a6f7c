// SPDX-License-Identifier: BSD-3-Clause
// The packed ring's log: QueueRegionPacked, DescStatePacked. Used descriptors are written over available ones, so the log keeps a copy of
// every descriptor in flight. Entries that are free are a list; what the walk notes goes into free entries, and is in flight
// when old_free_head has moved past it.
#include "base/bytes.h"
#include "ring/chain.h"
#include "ring/inflight_layout.h"

#include <errno.h>
#include <stdlib.h>

// The used positions and their wrap counters are next to one another: one store, or a kill could leave an index without its counter.
static void put_used(struct sdc_inflight *log, uint16_t now, bool now_wrap, uint16_t old, bool old_wrap)
{
    put64(log->region + PACKED_USED, (uint64_t)now | (uint64_t)old << 16 | (uint64_t)now_wrap << 32 | (uint64_t)old_wrap << 40);
    log->shown = old;
    log->shown_wrap = old_wrap;
}

static void put_free(struct sdc_inflight *log, uint16_t now, uint16_t old)
{
    put32(log->region + PACKED_FREE_HEAD, (uint32_t)now | (uint32_t)old << 16);
}

void inflight_start_packed(struct sdc_inflight *log, uint16_t used, bool wrap)
{
    for (uint32_t i = 0; i < log->size; i++) {
        uint16_t next = (uint16_t)(i + 1); // one past the last entry ends the list
        put8(packed_entry(log, i) + PACKED_INFLIGHT, 0);
        put16(packed_entry(log, i) + PACKED_NEXT, next);
        log->next[i] = next;
    }
    put_free(log, 0, 0);
    put_used(log, used, wrap, used, wrap);
    log->free_head = 0;
    log->free_count = log->size;
}

void sdc_inflight_begin(struct sdc_inflight *log)
{
    log->noting = log->free_head;
    log->noted = 0;
}

void sdc_inflight_note(struct sdc_inflight *log, const struct sdc_desc *desc)
{
    // A chain for which there is no room is refused when its walk has ended.
    if (log->noted++ >= log->free_count)
        return;
    uint8_t *entry = packed_entry(log, log->noting);
    put64(entry + PACKED_ADDRESS, desc->address);
    put32(entry + PACKED_LENGTH, desc->length);
    put16(entry + PACKED_FLAGS, desc->flags);
    put16(entry + PACKED_ID, desc->next);
    log->last[log->free_head] = log->noting;
    log->noting = log->next[log->noting];
}

uint16_t sdc_inflight_take_packed(struct sdc_inflight *log)
{
    uint16_t head = log->free_head;
    uint8_t *entry = packed_entry(log, head);

    put16(entry + PACKED_LAST, log->last[head]);
    put16(entry + PACKED_NUM, (uint16_t)log->noted);
    put64(entry + PACKED_COUNTER, log->counter++);
    put8(entry + PACKED_INFLIGHT, 1);
    put_free(log, log->noting, log->noting);
    log->num[head] = (uint16_t)log->noted;
    log->free_count -= log->noted;
    log->free_head = log->noting;
    return head;
}

// The free list is left alone until the batch is shown: chains may be taken before that.
void sdc_inflight_give_packed(struct sdc_inflight *log, uint16_t entry, uint16_t used, bool wrap)
{
    log->given[log->given_count++] = entry;
    put_used(log, used, wrap, log->shown, log->shown_wrap);
}

void sdc_inflight_show_packed(struct sdc_inflight *log)
{
    for (uint32_t i = 0; i < log->given_count; i++) {
        uint16_t head = log->given[i];
        put16(packed_entry(log, log->last[head]) + PACKED_NEXT, log->free_head);
        put16(log->region + PACKED_FREE_HEAD, head);
        log->next[log->last[head]] = log->free_head;
        log->free_head = head;
        log->free_count += log->num[head];
    }
}

void sdc_inflight_shown_packed(struct sdc_inflight *log, uint16_t used, bool wrap)
{
    for (uint32_t i = 0; i < log->given_count; i++)
        put8(packed_entry(log, log->given[i]) + PACKED_INFLIGHT, 0);
    log->given_count = 0;
    put_free(log, log->free_head, log->free_head);
    put_used(log, used, wrap, used, wrap);
}

// --- recovery ---

int sdc_inflight_used(const struct sdc_inflight *log, struct sdc_inflight_used *used)
{
    const uint8_t *region = log->region;
    uint8_t old_wrap = get8(region + PACKED_OLD_WRAP), now_wrap = get8(region + PACKED_WRAP);

    if (!sdc_inflight_written(log))
        return -EPROTO;
    *used = (struct sdc_inflight_used){.old = get16(region + PACKED_OLD_USED), .old_wrap = old_wrap,
                                       .now = get16(region + PACKED_USED), .now_wrap = now_wrap};
    return old_wrap > 1 || now_wrap > 1 || used->old >= log->size || used->now >= log->size ? -EPROTO : 0;
}

// Copies the links of all entries, and marks the free ones.
static int copy_links(struct sdc_inflight *log, bool *met)
{
    for (uint32_t i = 0; i < log->size; i++) {
        log->next[i] = get16(packed_entry(log, i) + PACKED_NEXT);
        log->num[i] = get16(packed_entry(log, i) + PACKED_NUM);
    }
    log->free_count = 0;
    for (uint16_t i = log->free_head; i != log->size; i = log->next[i]) {
        if (i > log->size || met[i])
            return -EPROTO;
        met[i] = true;
        log->free_count++;
    }
    return 0;
}

// Marks the entries of a chain that is in flight, and finds its last.
static int follow_chain(struct sdc_inflight *log, uint16_t head, bool *met)
{
    uint16_t at = head;

    if (log->num[head] == 0)
        return -EPROTO;
    for (uint32_t i = 0; i < log->num[head]; i++, at = log->next[at]) {
        if (at >= log->size || met[at])
            return -EPROTO;
        met[at] = true;
        log->last[head] = at;
    }
    return 0;
}

// Every entry is in one list: of the free ones, which are not in flight whatever they say, or of a chain.
static int find_chains(struct sdc_inflight *log, bool *met, struct inflight_age *ages, uint32_t *count)
{
    int rc = copy_links(log, met);
    uint32_t descs = log->free_count;

    for (uint32_t i = 0; rc == 0 && i < log->size; i++) {
        uint8_t *entry = packed_entry(log, i);
        uint8_t inflight = get8(entry + PACKED_INFLIGHT);
        if (inflight > 1)
            return -EPROTO;
        if (inflight == 0)
            continue;
        if (met[i]) {
            put8(entry + PACKED_INFLIGHT, 0);
            continue;
        }
        rc = follow_chain(log, (uint16_t)i, met);
        ages[(*count)++] = (struct inflight_age){.counter = get64(entry + PACKED_COUNTER), .entry = (uint16_t)i};
        descs += log->num[i];
    }
    return rc == 0 && descs != log->size ? -EPROTO : rc;
}

static int recover(struct sdc_inflight *log, struct inflight_age *ages, bool *met)
{
    uint32_t count = 0;
    int rc = find_chains(log, met, ages, &count);

    if (rc == 0)
        rc = inflight_line_up(log, ages, count);
    if (rc == 0) {
        log->table = malloc(((uint64_t)log->size + 1) * SDC_DESC_SIZE);
        rc = log->table ? 0 : -ENOMEM;
    }
    if (rc < 0)
        sdc_inflight_forget(log);
    return rc < 0 ? rc : (int)(log->size - log->free_count);
}

int sdc_inflight_recover_packed(struct sdc_inflight *log, const struct sdc_inflight_used *used, bool shown)
{
    uint8_t *region = log->region;
    struct inflight_age *ages = malloc(log->size * sizeof *ages);
    bool *met = calloc(log->size, sizeof *met);
    int rc = -ENOMEM;

    sdc_inflight_forget(log);
    log->given_count = 0;
    if (ages && met) {
        log->free_head = get16(region + (shown ? PACKED_FREE_HEAD : PACKED_OLD_FREE_HEAD));
        put_free(log, log->free_head, log->free_head);
        rc = recover(log, ages, met);
    }
    free(ages);
    free(met);
    if (rc < 0)
        return rc;
    if (shown)
        put_used(log, used->now, used->now_wrap, used->now, used->now_wrap);
    else
        put_used(log, used->old, used->old_wrap, used->old, used->old_wrap);
    return rc;
}

const uint8_t *sdc_inflight_table(struct sdc_inflight *log, uint16_t head, uint32_t *count)
{
    uint16_t at = head;

    for (uint32_t i = 0; i < log->num[head]; i++, at = log->next[at]) {
        const uint8_t *entry = packed_entry(log, at);
        uint8_t *desc = log->table + (uint64_t)i * SDC_DESC_SIZE;
        sdc_put64(desc, get64(entry + PACKED_ADDRESS));
        sdc_put32(desc + 8, get32(entry + PACKED_LENGTH));
        sdc_put16(desc + 12, get16(entry + PACKED_ID));
        sdc_put16(desc + 14, get16(entry + PACKED_FLAGS));
    }
    *count = log->num[head];
    return log->table;
}
