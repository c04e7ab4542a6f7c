// SPDX-License-Identifier: BSD-3-Clause
// The command line of sidecard inspect.
#pragma once

#include "cli/protocol.h"

#include <sidecard/error.h>

#include <stdbool.h>
#include <stdint.h>

struct sdc_inspect_options {
    enum sdc_protocol protocol;
    const char *socket; // path
    bool json;
    bool hex;
    bool passive;       // write nothing: leave out what registers tell only to who has written one
    uint32_t device;    // what a vhost-user back end is, as a virtio device number; 0: guess
    uint64_t timeout_s; // for each answer
    const char *pci_ids; // NULL: the system's
    bool help;
};

extern const char sdc_inspect_usage[];

// Fills options from argv[1..argc). argv's strings are the options' from then on. -EINVAL, with *err filled.
int sdc_inspect_options_parse(int argc, char **argv, struct sdc_inspect_options *options, struct sdc_error *err);
