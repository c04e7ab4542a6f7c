// SPDX-License-Identifier: BSD-3-Clause
// Options as tables: what they are called, what they may be, where their values go. A table is about one structure. Who reads
// options (the command line, a file) says where a mistake is; what is wrong with a value is said here.
#pragma once

#include <sidecard/error.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sdc_option_kind {
    SDC_OPTION_FLAG,         // bool, true when given; also on or off
    SDC_OPTION_BOOL,         // bool, on or off
    SDC_OPTION_NUMBER,       // in [min, max]
    SDC_OPTION_POWER_OF_TWO, // a number, likewise
    SDC_OPTION_SIZE,         // bytes, in [min, max], as text with a suffix or not
    SDC_OPTION_TEXT,         // const char *, the caller's; max: the most characters, 0 no limit
    SDC_OPTION_CALL,         // text that `parse` makes something of
};

struct sdc_option {
    const char *name; // on the command line with two dashes before it
    enum sdc_option_kind kind;
    size_t place; // of the value in the structure, bytes
    size_t size;  // of the value, bytes: numbers and sizes may be of any width that holds max
    uint64_t min;
    uint64_t max;
    const char *example; // a value; NULL: a flag
    int (*parse)(const struct sdc_option *option, const char *text, void *value, struct sdc_error *err);
};

// The place and size of a row.
#define SDC_OPTION_AT(type, member) offsetof(type, member), sizeof(((type *)0)->member)

struct sdc_options {
    const struct sdc_option *rows;
    size_t count;
};

// A table and the structure that it is about, for who reads several tables at once.
struct sdc_option_group {
    const struct sdc_options *options;
    void *values;    // NULL: these are known here and refused
    const char *why; // then: what to say
};

// The option of that name, which is length bytes long, and its group; or NULL. One with values goes before one without.
const struct sdc_option *sdc_option_find(const struct sdc_option_group *groups, size_t count, const char *name, size_t length,
                                         const struct sdc_option_group **group);
// Of the options with values, the name that is nearest to text; or NULL if none is near.
const char *sdc_option_nearest(const struct sdc_option_group *groups, size_t count, const char *text);
// Sets the option's value in `values`. -EINVAL: err says what is wrong with text ("must be 1 to 64"), and nothing else.
int sdc_option_set(const struct sdc_option *option, void *values, const char *text, struct sdc_error *err);
// For who has a parse of his own: which of names[count] text is, or -EINVAL with err filled likewise.
int sdc_option_pick(const char *text, const char *const *names, size_t count, struct sdc_error *err);
// Whether err says itself what to write instead, so that an example would be one thing too many.
bool sdc_option_says_what(const struct sdc_error *err);
