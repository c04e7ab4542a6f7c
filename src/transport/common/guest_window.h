// SPDX-License-Identifier: BSD-3-Clause
// Windows: regions of guest memory that loops may register with the kernel, so that I/O need not have their pages looked up. A region has
// its window in the place of its file's mapping, and holds it, as maps of it do. When the last of them has gone every loop is asked to
// let go, and only then is the file given up. All on the home loop.
#pragma once

#include "transport/common/guest_memory.h"

// What a region of [host, host + size) in file (of which it takes no reference) is to hold: a window with a reference for the caller, or
// NULL: it is too small, nothing is registered, or there is no memory for it.
struct sdc_mapping *sdc_guest_window_new(struct sdc_guest_memory *memory, struct sdc_mapping *file, uint8_t *host, uint64_t size);
// The mapping of the file that a region's mapping, a window or not, leads to.
struct sdc_mapping *sdc_guest_window_file(struct sdc_mapping *mapping);
