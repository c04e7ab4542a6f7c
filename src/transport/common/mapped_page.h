// SPDX-License-Identifier: BSD-3-Clause
// A page of a BAR as memory that clients may map: what a driver writes there is a store to memory, which no monitor sees and which wakes
// nobody. Each client gets a page of its own, so that nobody who has gone can write to, or learn from, that of whoever comes next.
#pragma once

#include <sidecard/pci.h>

enum { SDC_MAPPED_PAGE = 4096 };

// A page at `offset` of its BAR, full of zeroes; fills in mappable. 0 or a negative errno, and mappable says that there is none.
int sdc_mapped_page_new(struct sdc_pci_mappable *mappable, const char *name, uint64_t offset, void **page);
// Idempotent: *page becomes NULL.
void sdc_mapped_page_free(struct sdc_pci_mappable *mappable, void **page);
