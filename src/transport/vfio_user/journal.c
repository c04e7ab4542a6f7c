// SPDX-License-Identifier: BSD-3-Clause
#include "transport/vfio_user/journal.h"

#include "base/bytes.h"
#include "base/check.h"

#include <errno.h>

enum {
    HEAD_MARK = 0, // which mark is in use
    HEAD_MARKS = 64,
    // A mark.
    MARK_POSITION = 0, // of the area's first byte
    MARK_AREA = 8,
    MARK_MOVED = 16, // bytes of the area that were moved before the note's call
    MARK_NOTE = 64,
    MARK_BYTES = 128,
    HEAD_BYTES = 4096,
};

static uint8_t *mark_of(const struct vfu_journal *journal, unsigned which)
{
    return journal->bytes + HEAD_MARKS + which * MARK_BYTES;
}

static uint8_t *area_of(const struct vfu_journal *journal, unsigned which)
{
    return journal->bytes + HEAD_BYTES + which * journal->size;
}

uint64_t vfu_journal_bytes(uint64_t area)
{
    return HEAD_BYTES + 2 * area;
}

// Makes the other mark, then it is the one: a kill before that leaves the old one whole.
static void turn(struct vfu_journal *journal, uint64_t moved)
{
    unsigned which = 1 - journal->mark;
    uint8_t *mark = mark_of(journal, which);

    sdc_put64(mark + MARK_POSITION, journal->position);
    sdc_put64(mark + MARK_AREA, journal->area);
    sdc_put64(mark + MARK_MOVED, moved);
    sdc_socket_note_clear(mark + MARK_NOTE);
    __atomic_store_n((uint64_t *)(void *)(journal->bytes + HEAD_MARK), htole64(which), __ATOMIC_RELEASE);
    journal->mark = which;
}

void vfu_journal_format(struct vfu_journal *journal, void *bytes, uint64_t area)
{
    *journal = (struct vfu_journal){.bytes = bytes, .size = area};
    turn(journal, 0);
}

int vfu_journal_parse(struct vfu_journal *journal, void *bytes, uint64_t area, uint64_t *moved)
{
    uint64_t which = sdc_get64((uint8_t *)bytes + HEAD_MARK);

    *journal = (struct vfu_journal){.bytes = bytes, .size = area, .mark = (unsigned)which};
    if (which > 1)
        return -EINVAL;
    const uint8_t *mark = mark_of(journal, journal->mark);
    uint64_t in_use = sdc_get64(mark + MARK_AREA), before = sdc_get64(mark + MARK_MOVED);
    journal->position = sdc_get64(mark + MARK_POSITION);
    journal->area = (unsigned)in_use;
    if (in_use > 1 || before > area || sdc_socket_note(mark + MARK_NOTE) > area - before || journal->position > UINT64_MAX / 2)
        return -EINVAL;
    *moved = journal->position + before + sdc_socket_note(mark + MARK_NOTE);
    journal->used = *moved - journal->position;
    return 0;
}

uint8_t *vfu_journal_at(struct vfu_journal *journal, uint64_t position)
{
    return area_of(journal, journal->area) + (position - journal->position);
}

uint64_t vfu_journal_end(const struct vfu_journal *journal)
{
    return journal->position + journal->used;
}

uint8_t *vfu_journal_notes(struct vfu_journal *journal)
{
    _Static_assert(HEAD_MARKS + 2 * MARK_BYTES + VFU_JOURNAL_NOTES <= HEAD_BYTES, "notes are in the head");
    return journal->bytes + HEAD_BYTES - VFU_JOURNAL_NOTES;
}

uint8_t *vfu_journal_room(struct vfu_journal *journal, uint64_t keep, uint64_t moved, uint64_t size)
{
    uint64_t end = vfu_journal_end(journal);
    uint64_t kept = end - keep;

    if (kept > journal->size || journal->size - kept < size)
        return NULL;
    bool full = journal->size - journal->used < size;
    if (!full && (kept > 0 || journal->used == 0))
        return vfu_journal_at(journal, end);
    // From the area's start again if nothing is kept, else in the other area. The old mark counts until the bytes are there.
    if (kept > 0) {
        memcpy(area_of(journal, 1 - journal->area), vfu_journal_at(journal, keep), (size_t)kept);
        journal->area = 1 - journal->area;
    }
    journal->position = keep;
    journal->used = kept;
    turn(journal, moved - keep);
    return vfu_journal_at(journal, end);
}

void *vfu_journal_note(struct vfu_journal *journal, uint64_t position)
{
    turn(journal, position - journal->position);
    return mark_of(journal, journal->mark) + MARK_NOTE;
}

void *vfu_journal_last_note(struct vfu_journal *journal)
{
    return mark_of(journal, journal->mark) + MARK_NOTE;
}

void vfu_journal_restart(struct vfu_journal *journal, uint64_t position)
{
    journal->position = position;
    journal->used = 0;
    turn(journal, 0);
}
