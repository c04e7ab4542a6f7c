// SPDX-License-Identifier: BSD-3-Clause
#include "driver/nvme_data.h"

#include "base/bytes.h"
#include "wire/nvme.h"

enum { PRP = 8 };

static uint64_t divide_up(uint64_t number, uint64_t by)
{
    return number / by + (number % by != 0);
}

uint64_t sdc_driver_nvme_list_bytes(uint64_t size, uint64_t page_size, uint64_t least)
{
    // The first page is in the command itself; data that begins in the middle of a page touches one more.
    uint64_t entries = divide_up(size, page_size), in_page = page_size / PRP, bytes = least;
    // A list of several pages has a pointer to the next one in the last place of each but the last.
    if (entries > in_page)
        return divide_up(entries - 1, in_page - 1) * page_size;
    while (bytes < entries * PRP)
        bytes *= 2;
    return bytes;
}

// Fills the list with the pages from `page` to `end`, and goes on in the next page of the list where one is full.
static void fill_list(const struct sdc_driver_nvme_list *list, uint64_t page_size, uint64_t page, uint64_t end)
{
    uint64_t at = 0;
    for (; page < end; page += page_size) {
        bool last_place = (list->iova + at) % page_size == page_size - PRP;
        if (last_place && end - page > page_size) {
            sdc_put64(list->memory + at, list->iova + at + PRP);
            at += PRP;
        }
        sdc_put64(list->memory + at, page);
        at += PRP;
    }
}

void sdc_driver_nvme_put_prps(uint8_t *entry, const struct sdc_driver_nvme_list *list, uint64_t page_size, uint64_t iova, uint64_t size)
{
    uint64_t end = iova + size, second = (iova & ~(page_size - 1)) + page_size;
    sdc_put64(entry + SDC_NVME_SQE_PRP1, iova);
    if (second >= end) {
        sdc_put64(entry + SDC_NVME_SQE_PRP2, 0);
    } else if (second + page_size >= end) {
        sdc_put64(entry + SDC_NVME_SQE_PRP2, second);
    } else {
        fill_list(list, page_size, second, end);
        sdc_put64(entry + SDC_NVME_SQE_PRP2, list->iova);
    }
}

void sdc_driver_nvme_put_sgl(uint8_t *entry, uint64_t iova, uint32_t size)
{
    uint8_t *descriptor = entry + SDC_NVME_SQE_PRP1;
    entry[SDC_NVME_SQE_FLAGS] |= SDC_NVME_PSDT_SGL;
    sdc_put64(descriptor, iova);
    sdc_put32(descriptor + SDC_NVME_SGL_LENGTH, size);
    sdc_put32(descriptor + SDC_NVME_SGL_LENGTH + 4, (uint32_t)SDC_NVME_SGL_DATA << 28);
}
