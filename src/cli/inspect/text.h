// SPDX-License-Identifier: BSD-3-Clause
// A tree of what inspect has found, as text for people. It knows forms, and nothing of what is in them: objects become labels with
// values, lists of like objects tables, lists of unlike ones paragraphs.
#pragma once

#include <jansson.h>
#include <stdio.h>

// "config_space" of the root comes last, in the form of lspci -xxx.
void sdc_inspect_print_text(FILE *to, const json_t *root);
