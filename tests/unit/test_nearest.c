// SPDX-License-Identifier: BSD-3-Clause
// "Did you mean ...".
#include "base/check.h"
#include "base/parse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char *const names[] = {"--queues", "--queue-size", "--read-only", "--raw",
                                    "--rw",     "virtio-blk",   NULL};

static void the_name_fewest_edits_away_is_found(void **state)
{
    (void)state;
    static const struct {
        const char *text, *nearest;
    } rows[] = {
        {"--queues", "--queues"},
        {"--queus", "--queues"},
        {"--quesue", "--queues"}, // neighbours swapped
        {"--queue-sise", "--queue-size"},
        {"--readonly", "--read-only"},
        {"--raww", "--raw"},
        {"virtio_blk", "virtio-blk"},
        {"virtioblk", "virtio-blk"},
        {"nvme", NULL},
        {"--frobnicate", NULL},
        {"", NULL},
        {"x", NULL},
        {"-", NULL},
    };
    for (size_t i = 0; i < SDC_COUNT(rows); i++) {
        const char *nearest = sdc_nearest(rows[i].text, names);
        if (nearest != rows[i].nearest &&
            (!nearest || !rows[i].nearest || strcmp(nearest, rows[i].nearest) != 0))
            fail_msg("'%s': %s", rows[i].text, nearest ? nearest : "none");
    }
}

static void long_words_are_nobodys_neighbours(void **state)
{
    (void)state;
    char text[1000];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    const char *const long_names[] = {text, "b", NULL};
    assert_null(sdc_nearest(text, names));
    assert_null(sdc_nearest(text, long_names));
    assert_null(sdc_nearest("aaaa", long_names));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_name_fewest_edits_away_is_found),
        cmocka_unit_test(long_words_are_nobodys_neighbours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
