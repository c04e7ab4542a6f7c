// SPDX-License-Identifier: BSD-3-Clause
// Options of a command: --name=value or --name value, anywhere among the other arguments. Every mistake is one line that says what was
// wrong, with which value, and what to type.
#pragma once

#include "base/option.h"

// Reads argv[1..argc): options, which set their values, and up to `max` other arguments, whose number is returned. "--" ends the
// options. A name that several groups have is the first one's with values. Texts are argv's. -EINVAL with err filled.
int sdc_options_parse(const struct sdc_option_group *groups, size_t groups_count, int argc, char **argv, const char **others, int max,
                      struct sdc_error *err);
// The same for who has to know some of it to say which options there are: mistakes are passed over, to be found by sdc_options_parse.
int sdc_options_glance(const struct sdc_option_group *groups, size_t groups_count, int argc, char **argv, const char **others, int max);

// "sidecard: TEXT" on stderr. Returns the exit status: 2 for a mistake of the user's in what was typed (-EINVAL), 1 for the rest.
int sdc_command_failed(const struct sdc_error *err);
