// SPDX-License-Identifier: BSD-3-Clause
// Memory of our own that others can map: an anonymous file.
#pragma once

#include <stdint.h>

// A new memfd of size bytes, close-on-exec, sealed so that nobody who gets it can shrink it. The fd or a negative errno.
int sdc_memfd_new(const char *name, uint64_t size);
// The same, to be sealed further.
int sdc_memfd_new_sealable(const char *name, uint64_t size);
// Seals it against writing, which cannot be done while anybody has it mapped for that: 0, -EBUSY, or another negative errno.
int sdc_memfd_seal_writes(int fd);
