// SPDX-License-Identifier: BSD-3-Clause
// Memory of our own that others can map: an anonymous file.
#pragma once

#include <stdint.h>

// A new memfd of size bytes, close-on-exec, sealed so that nobody who gets it can shrink it. The fd or a negative errno.
int sdc_memfd_new(const char *name, uint64_t size);
// The same of huge pages of 2 MiB, of which size is a multiple. That there are so many shows when it is mapped.
int sdc_memfd_new_huge(const char *name, uint64_t size);
// As the first, to be sealed further.
int sdc_memfd_new_sealable(const char *name, uint64_t size);
// Seals it against writing, which cannot be done while anybody has it mapped for that: 0, -EBUSY, or another negative errno.
int sdc_memfd_seal_writes(int fd);
