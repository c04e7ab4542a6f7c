// SPDX-License-Identifier: BSD-3-Clause
// Memory of our own that others can map: an anonymous file.
#pragma once

#include <stdint.h>

// A new memfd of size bytes, close-on-exec, sealed so that nobody who gets it can shrink it. The fd or a negative errno.
int sdc_memfd_new(const char *name, uint64_t size);
