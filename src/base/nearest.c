// SPDX-License-Identifier: BSD-3-Clause
// Names to choose from: "did you mean ...", the one that is fewest edits away, and all of them.
#include "base/parse.h"

#include <stdio.h>
#include <string.h>

enum { NAME_MAX_LENGTH = 48 };

static unsigned smallest(unsigned a, unsigned b, unsigned c)
{
    unsigned ab = a < b ? a : b;
    return ab < c ? ab : c;
}

// Insertions, deletions, substitutions, and swaps of neighbours that make b out of a. Both are at most
// NAME_MAX_LENGTH long. Three rows of the usual table are enough.
static unsigned distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
    unsigned rows[3][NAME_MAX_LENGTH + 1];
    unsigned *before = rows[0], *last = rows[1], *row = rows[2];
    for (size_t j = 0; j <= b_length; j++)
        last[j] = (unsigned)j;
    for (size_t i = 1; i <= a_length; i++) {
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_length; j++) {
            unsigned differs = a[i - 1] != b[j - 1];
            row[j] = smallest(last[j] + 1, row[j - 1] + 1, last[j - 1] + differs);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < row[j])
                row[j] = before[j - 2] + 1;
        }
        unsigned *spare = before;
        before = last;
        last = row;
        row = spare;
    }
    return last[b_length];
}

const char *sdc_nearest(const char *text, const char *const *names)
{
    size_t length = strlen(text);
    if (length > NAME_MAX_LENGTH)
        return NULL;
    // A third of the word may be wrong, but never all of it.
    unsigned best = (unsigned)(length < 4 ? 1 : length / 3 + 1) + 1;
    const char *nearest = NULL;
    for (; *names; names++) {
        size_t name_length = strlen(*names);
        if (name_length > NAME_MAX_LENGTH)
            continue;
        unsigned edits = distance(text, length, *names, name_length);
        if (edits < best && edits < length) {
            best = edits;
            nearest = *names;
        }
    }
    return nearest;
}

const char *sdc_list_names(const char *const *names, size_t count, const char *last, char *buffer, size_t room)
{
    size_t at = 0;

    buffer[0] = '\0';
    for (size_t i = 0; i < count && at < room; i++)
        at += (size_t)snprintf(buffer + at, room - at, "%s%s", i == 0 ? "" : i + 1 < count ? ", " : last, names[i]);
    return buffer;
}
