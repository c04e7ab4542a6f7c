// SPDX-License-Identifier: BSD-3-Clause
// NVMe I/O commands: reads of every shape, what has to be refused, and, where that is allowed, writes.
#include "cli/check/nvme.h"

#include "base/bytes.h"
#include "base/check.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BASE(section) SDC_CHECK_NVME_BASE(section)
#define NVM(section) SDC_CHECK_NVME_NVM(section)
#define ONE_OF(...) ((const uint16_t[]){__VA_ARGS__, 0xffff})

enum { ID_MDTS = 77, ID_NN = 516, ID_ONCS = 520, ONCS_COMPARE = 1, ONCS_ZEROES = 8, POISON = 0xa5, WRAPS = 5 };

static void read_well(struct sdc_check_nvme *nvme, uint64_t lba, uint32_t count)
{
    sdc_check_that(nvme->check, sdc_check_nvme_transfer(nvme, SDC_NVME_IO_READ, lba, count) == 0,
                   "a read of %" PRIu32 " blocks at %" PRIu64 " of %" PRIu64 " succeeds", count, lba, nvme->blocks);
}

// Blocks in two pages of data, or one.
static uint32_t some(const struct sdc_check_nvme *nvme)
{
    return (uint32_t)sdc_max(sdc_min(2 * nvme->controller.page_size / nvme->block_size, nvme->blocks), 1);
}

static void reads(struct sdc_check *check)
{
    struct sdc_check_nvme nvme;
    sdc_check_nvme_open_io(&nvme, check);
    uint32_t bytes = some(&nvme) * nvme.block_size;
    uint8_t *first = malloc(bytes);
    if (!first)
        sdc_check_skip(check, "the tester has no memory");
    memset(nvme.data, POISON, bytes + nvme.block_size);
    read_well(&nvme, 0, some(&nvme));
    memcpy(first, nvme.data, bytes);
    for (uint32_t i = 0; i < nvme.block_size; i++)
        sdc_check_that(check, nvme.data[bytes + i] == POISON, "a read writes the data that was asked for, and nothing behind it");
    memset(nvme.data, (uint8_t)~POISON, bytes);
    read_well(&nvme, 0, some(&nvme));
    sdc_check_that(check, memcmp(first, nvme.data, bytes) == 0, "what nobody writes is read as it was");
    for (uint32_t i = 0; i < some(&nvme) && i < 8; i++) {
        read_well(&nvme, i, 1);
        sdc_check_that(check, memcmp(first + i * nvme.block_size, nvme.data, nvme.block_size) == 0,
                       "a block that is read alone is what it was among others");
    }
    read_well(&nvme, nvme.blocks - 1, 1);
    sdc_check_nvme_close(&nvme);
}

// Data that begins in a page, and data that needs a list.
static void prp_shapes(struct sdc_check *check)
{
    struct sdc_check_nvme nvme;
    sdc_check_nvme_open_io(&nvme, check);
    uint32_t page = nvme.controller.page_size, most = nvme.identify[ID_MDTS] == 0 ? 8 : 1u << sdc_min(nvme.identify[ID_MDTS], 3);
    uint32_t count = (uint32_t)sdc_max(sdc_min(most * page / nvme.block_size, nvme.blocks), 1), bytes = count * nvme.block_size;
    uint8_t *aligned = malloc(bytes);
    if (!aligned)
        sdc_check_skip(check, "the tester has no memory");
    read_well(&nvme, 0, count);
    memcpy(aligned, nvme.data, bytes);
    // One block from the middle of a page on, which may cross into another page anywhere.
    uint8_t entry[64] = {SDC_NVME_IO_READ};
    uint32_t offset = page - 64;
    memset(nvme.data, POISON, 8 * page);
    sdc_put32(entry + SDC_NVME_SQE_NSID, nvme.nsid);
    sdc_put64(entry + SDC_NVME_SQE_PRP1, nvme.data_iova + offset);
    sdc_put64(entry + SDC_NVME_SQE_PRP2, nvme.data_iova + 3 * page);
    if (nvme.block_size <= page) {
        sdc_check_that(check, sdc_check_nvme_io(&nvme, entry) == 0, "PRP1 may have an offset, and PRP2 is the page behind it");
        sdc_check_that(check, memcmp(nvme.data + offset, aligned, 64) == 0 &&
                                  memcmp(nvme.data + 3 * page, aligned + 64, nvme.block_size - 64) == 0,
                       "data goes to where the PRPs say");
        sdc_check_that(check,
                       nvme.data[offset - 1] == POISON && nvme.data[page] == POISON && nvme.data[3 * page + nvme.block_size - 64] == POISON,
                       "data goes nowhere else");
    }
    sdc_check_nvme_close(&nvme);
}

static void out_of_range(struct sdc_check *check)
{
    const uint16_t *range = ONE_OF(SDC_NVME_SC_LBA_RANGE);
    struct sdc_check_nvme nvme;
    sdc_check_nvme_open_io(&nvme, check);
    memset(nvme.data, POISON, 2 * nvme.controller.page_size);
    sdc_check_nvme_status(&nvme, sdc_check_nvme_transfer(&nvme, SDC_NVME_IO_READ, nvme.blocks, 1), range, "a read behind the last block");
    if (nvme.block_size <= nvme.controller.page_size)
        sdc_check_nvme_status(&nvme, sdc_check_nvme_transfer(&nvme, SDC_NVME_IO_READ, nvme.blocks - 1, 2), range,
                              "a read that goes on behind the last block");
    sdc_check_nvme_status(&nvme, sdc_check_nvme_transfer(&nvme, SDC_NVME_IO_READ, UINT64_MAX, 1), range, "a read at 2^64 - 1");
    sdc_check_nvme_status(&nvme, sdc_check_nvme_transfer(&nvme, SDC_NVME_IO_READ, UINT64_MAX, 2), range, "a read whose end wraps around");
    sdc_check_nvme_status(&nvme, sdc_check_nvme_transfer(&nvme, SDC_NVME_IO_READ, UINT64_C(1) << 60, 1), range, "a read at 2^60");
    read_well(&nvme, 0, 1);
    sdc_check_nvme_close(&nvme);
}

static void refused(struct sdc_check *check)
{
    struct sdc_check_nvme nvme;
    sdc_check_nvme_open_io(&nvme, check);
    uint32_t nsid = nvme.nsid, count = sdc_get32(nvme.identify + ID_NN);
    static const uint8_t opcodes[] = {0x03, 0x07, 0x3f, 0x7b};
    for (size_t i = 0; i < SDC_COUNT(opcodes); i++)
        sdc_check_nvme_status(&nvme, sdc_check_nvme_transfer(&nvme, opcodes[i], 0, 1), ONE_OF(SDC_NVME_SC_INVALID_OPCODE),
                              "an opcode that is reserved");
    nvme.nsid = 0;
    sdc_check_nvme_status(&nvme, sdc_check_nvme_transfer(&nvme, SDC_NVME_IO_READ, 0, 1), ONE_OF(SDC_NVME_SC_INVALID_NS),
                          "a read of namespace 0");
    if (count < UINT32_MAX - 1) {
        nvme.nsid = count + 1;
        sdc_check_nvme_status(&nvme, sdc_check_nvme_transfer(&nvme, SDC_NVME_IO_READ, 0, 1), ONE_OF(SDC_NVME_SC_INVALID_NS),
                              "a read of a namespace above NN");
    }
    nvme.nsid = nsid;
    sdc_check_section(check, BASE("5.17.2.1"));
    uint64_t most = nvme.identify[ID_MDTS] == 0 || nvme.identify[ID_MDTS] > 20
                        ? 0 : ((uint64_t)nvme.controller.page_size << nvme.identify[ID_MDTS]) / nvme.block_size;
    if (most > 0 && most < 65536 && nvme.blocks > most)
        sdc_check_nvme_status(&nvme, sdc_check_nvme_transfer(&nvme, SDC_NVME_IO_READ, 0, (uint32_t)most + 1),
                              ONE_OF(SDC_NVME_SC_INVALID_FIELD), "a transfer larger than MDTS");
    read_well(&nvme, 0, 1);
    sdc_check_nvme_close(&nvme);
}

// Memory that is not there: an error, and the controller goes on.
static void bad_memory(struct sdc_check *check)
{
    static const uint64_t places[] = {UINT64_C(0xdead0000000), UINT64_MAX - 4095, 0};
    struct sdc_check_nvme nvme;
    sdc_check_nvme_open_io(&nvme, check);
    for (size_t i = 0; i < SDC_COUNT(places); i++) {
        uint8_t entry[64] = {SDC_NVME_IO_READ};
        sdc_put32(entry + SDC_NVME_SQE_NSID, nvme.nsid);
        sdc_put64(entry + SDC_NVME_SQE_PRP1, places[i]);
        sdc_check_that(check, sdc_check_nvme_io(&nvme, entry) != 0, "a read into memory that there is not cannot succeed");
    }
    uint8_t entry[64] = {SDC_NVME_IO_READ};
    sdc_put32(entry + SDC_NVME_SQE_NSID, nvme.nsid);
    sdc_put64(entry + SDC_NVME_SQE_PRP1, nvme.data_iova + 2);
    uint16_t status = sdc_check_nvme_io(&nvme, entry);
    if (status == 0)
        sdc_check_note(check, "a PRP that is not aligned to dwords is taken, which the controller need not check");
    read_well(&nvme, 0, 1);
    sdc_check_nvme_close(&nvme);
}

// Around the queues' ends several times.
static void wraps(struct sdc_check *check)
{
    struct sdc_check_nvme nvme;
    sdc_check_nvme_open_io(&nvme, check);
    for (uint32_t i = 0; i < WRAPS * nvme.io.size + 3; i++)
        read_well(&nvme, i % nvme.blocks, 1);
    sdc_check_nvme_close(&nvme);
}

static void flush(struct sdc_check *check)
{
    struct sdc_check_nvme nvme;
    sdc_check_nvme_open_io(&nvme, check);
    uint8_t entry[64] = {SDC_NVME_IO_FLUSH};
    sdc_put32(entry + SDC_NVME_SQE_NSID, nvme.nsid);
    sdc_check_that(check, sdc_check_nvme_io(&nvme, entry) == 0, "Flush is mandatory, and succeeds");
    sdc_check_nvme_close(&nvme);
}

// --- writes ---

static void fill(uint8_t *data, size_t size, uint32_t seed)
{
    for (size_t i = 0; i < size; i++) {
        seed = seed * UINT32_C(1664525) + UINT32_C(1013904223);
        data[i] = (uint8_t)(seed >> 24);
    }
}

static void writes(struct sdc_check *check)
{
    struct sdc_check_nvme nvme;
    sdc_check_nvme_open_io(&nvme, check);
    uint32_t count = some(&nvme), bytes = count * nvme.block_size;
    uint8_t *wanted = malloc(bytes);
    if (!wanted)
        sdc_check_skip(check, "the tester has no memory");
    const uint64_t places[] = {0, nvme.blocks / 2, nvme.blocks - count};
    for (uint32_t i = 0; i < SDC_COUNT(places); i++) {
        fill(wanted, bytes, i);
        memcpy(nvme.data, wanted, bytes);
        uint16_t status = sdc_check_nvme_transfer(&nvme, SDC_NVME_IO_WRITE, places[i], count);
        if (status == SDC_NVME_SC_WRITE_PROTECTED || status == SDC_NVME_SC_READ_ONLY)
            sdc_check_not_offered(check, "the namespace is write protected");
        sdc_check_that(check, status == 0, "a write succeeds");
        memset(nvme.data, POISON, bytes);
        read_well(&nvme, places[i], count);
        sdc_check_that(check, memcmp(nvme.data, wanted, bytes) == 0, "what was written is read back");
        if (!(sdc_get16(nvme.identify + ID_ONCS) & ONCS_COMPARE))
            continue;
        sdc_check_that(check, sdc_check_nvme_transfer(&nvme, SDC_NVME_IO_COMPARE, places[i], count) == 0, "Compare finds what is there");
        nvme.data[bytes - 1] ^= 1;
        sdc_check_nvme_status(&nvme, sdc_check_nvme_transfer(&nvme, SDC_NVME_IO_COMPARE, places[i], count), ONE_OF(SDC_NVME_SC_COMPARE),
                              "Compare with something else");
    }
    sdc_check_nvme_status(&nvme, sdc_check_nvme_transfer(&nvme, SDC_NVME_IO_WRITE, nvme.blocks, 1), ONE_OF(SDC_NVME_SC_LBA_RANGE),
                          "a write behind the last block");
    sdc_check_nvme_close(&nvme);
}

static void zeroes(struct sdc_check *check)
{
    struct sdc_check_nvme nvme;
    sdc_check_nvme_open_io(&nvme, check);
    if (!(sdc_get16(nvme.identify + ID_ONCS) & ONCS_ZEROES))
        sdc_check_not_offered(check, "the controller has not the command Write Zeroes");
    uint32_t count = some(&nvme), bytes = count * nvme.block_size;
    memset(nvme.data, POISON, bytes);
    uint16_t status = sdc_check_nvme_transfer(&nvme, SDC_NVME_IO_WRITE, 0, count);
    if (status == SDC_NVME_SC_WRITE_PROTECTED || status == SDC_NVME_SC_READ_ONLY)
        sdc_check_not_offered(check, "the namespace is write protected");
    sdc_check_that(check, status == 0, "a write succeeds");
    sdc_check_that(check, sdc_check_nvme_transfer(&nvme, SDC_NVME_IO_WRITE_ZEROES, 0, count > 1 ? count - 1 : 1) == 0,
                   "Write Zeroes succeeds");
    memset(nvme.data, 1, bytes);
    read_well(&nvme, 0, count);
    for (uint32_t i = 0; i < bytes; i++)
        sdc_check_that(check, nvme.data[i] == (i < bytes - nvme.block_size || count == 1 ? 0 : POISON),
                       "after Write Zeroes its blocks are zeroes, and the next one is what it was");
    sdc_check_nvme_close(&nvme);
}

static const struct sdc_check_test tests[] = {
    {"nvme-io/reads", NVM("3.2.4"), SDC_CHECK_NVME, reads},
    {"nvme-io/prp-shapes", BASE("4.1.1"), SDC_CHECK_NVME, prp_shapes},
    {"nvme-io/out-of-range", NVM("3.2.4"), SDC_CHECK_NVME, out_of_range},
    {"nvme-io/refused", BASE("3.3.3.2.1"), SDC_CHECK_NVME, refused},
    {"nvme-io/bad-memory", BASE("4.1.1"), SDC_CHECK_NVME, bad_memory},
    {"nvme-io/wraps", BASE("3.3.1"), SDC_CHECK_NVME, wraps},
    {"nvme-io/flush", BASE("7.1"), SDC_CHECK_NVME, flush},
    {"nvme-io/writes", NVM("3.2.6"), SDC_CHECK_NVME | SDC_CHECK_DESTRUCTIVE, writes},
    {"nvme-io/zeroes", NVM("3.2.8"), SDC_CHECK_NVME | SDC_CHECK_DESTRUCTIVE, zeroes},
};

const struct sdc_check_table sdc_check_nvme_io_commands = {tests, SDC_COUNT(tests)};
