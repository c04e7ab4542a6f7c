// SPDX-License-Identifier: BSD-3-Clause
// A server as a file: JSON with the process's options, and a list of cards, each with its socket, device, backends and options. Keys are
// the names of the command line's options. sidecard-serve(1) has the format.
#pragma once

#include "control/options.h"

struct sdc_config {
    struct sdc_process_options process;
    struct sdc_serve_options *cards;
    unsigned cards_count; // at least 1
    void *document;       // holds the texts
};

// Reads the file at path. 0 or a negative errno with err filled: the file, the place in it, the value, what is wrong, what to write.
int sdc_config_read(const char *path, struct sdc_config *config, struct sdc_error *err);
// The same from memory; name stands for the file in errors.
int sdc_config_parse(const char *name, const char *text, size_t length, struct sdc_config *config, struct sdc_error *err);
// Of one that was read; the cards' texts go with it.
void sdc_config_free(struct sdc_config *config);
