// SPDX-License-Identifier: BSD-3-Clause
// What a thread has used of the machine.
#pragma once

#include <stdint.h>

struct sdc_usage {
    uint64_t user_ns;
    uint64_t system_ns;
    uint64_t switches; // voluntary and involuntary
    uint64_t minor_faults;
    uint64_t major_faults;
};

// Of the calling thread, since it began.
void sdc_usage_of_thread(struct sdc_usage *usage);
