// SPDX-License-Identifier: BSD-3-Clause
// How a command says where its data is (NVMe base specification 2.0, 4.1.1 and 4.1.2): PRP entries with lists in memory that was set
// aside for the command, or an SGL descriptor.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// Memory that belongs to one command: its PRP list.
struct sdc_driver_nvme_list {
    uint8_t *memory;
    uint64_t iova; // aligned to its size if that is less than a page, else to a page
};

// Bytes of such memory for data of up to `size` bytes that begin anywhere in a page; at least `least`. A power of two up to a page,
// or whole pages.
uint64_t sdc_driver_nvme_list_bytes(uint64_t size, uint64_t page_size, uint64_t least);
// Says in a submission queue entry that the data is [iova, iova + size), by PRPs. size is not 0, iova a multiple of 4. The list has
// room for so much.
void sdc_driver_nvme_put_prps(uint8_t *entry, const struct sdc_driver_nvme_list *list, uint64_t page_size, uint64_t iova, uint64_t size);
// The same by an SGL data block descriptor.
void sdc_driver_nvme_put_sgl(uint8_t *entry, uint64_t iova, uint32_t size);
