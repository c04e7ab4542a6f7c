// SPDX-License-Identifier: BSD-3-Clause
// Options of a command as a table: --name=value or --name value, anywhere among the other arguments. Every mistake is one line that
// says what was wrong, with which value, and what to type.
#pragma once

#include <sidecard/error.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sdc_option_kind {
    SDC_OPTION_FLAG,   // bool, true when given; also --name=on|off
    SDC_OPTION_BOOL,   // bool, on or off
    SDC_OPTION_NUMBER, // uint64_t in [min, max]
    SDC_OPTION_SIZE,   // uint64_t, bytes, in [min, max]
    SDC_OPTION_TEXT,   // const char *, points into argv
    SDC_OPTION_CALL,   // by `parse`
};

struct sdc_option {
    const char *name; // without the dashes
    enum sdc_option_kind kind;
    void *value;
    uint64_t min;
    uint64_t max;
    const char *example; // what to type, as in "--queues=4"
    int (*parse)(const struct sdc_option *option, const char *text, struct sdc_error *err);
};

// Reads argv[1..argc): options, which set their values, and up to `max` other arguments, whose number is returned. "--" ends the
// options. -EINVAL with err filled.
int sdc_options_parse(const struct sdc_option *options, size_t options_count, int argc, char **argv, const char **others,
                      int max, struct sdc_error *err);

// "sidecard: TEXT" on stderr. Returns the exit status: 2 for a mistake of the user's in what was typed (-EINVAL), 1 for the rest.
int sdc_command_failed(const struct sdc_error *err);
