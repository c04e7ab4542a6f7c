// SPDX-License-Identifier: BSD-3-Clause
// REGION_READ, REGION_WRITE and REGION_WRITE_MULTI: where they reach, and where not.
#include "cli/check/vfio.h"

#include "base/bytes.h"
#include "base/check.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define READ "vfio-user, VFIO_USER_REGION_READ"
#define WRITE "vfio-user, VFIO_USER_REGION_WRITE"
#define MULTI "vfio-user, VFIO_USER_REGION_WRITE_MULTI"
#define TRANSFERS "vfio-user, Read and Write Operations"

enum {
    CONFIG_COMMAND = 4,
    INTX_DISABLE = 1 << 10,
    CONFIG_HEADER = 64, // bytes of configuration space that every function has
};

// What is done in turn with each region.
static uint32_t regions_of(struct sdc_check_vfio *vfio)
{
    uint32_t count = sdc_check_vfio_info(vfio).num_regions;
    return count < SDC_CHECK_REGIONS_MAX ? count : SDC_CHECK_REGIONS_MAX;
}

static struct sdc_check_command read_of(const struct sdc_vfu_region_access *access)
{
    return (struct sdc_check_command){.command = SDC_VFU_REGION_READ, .payload = access, .size = sizeof *access};
}

// A write with bytes behind its head: `size` of them, whatever its count says.
struct write {
    struct sdc_vfu_region_access access;
    uint8_t data[64];
};

static struct sdc_check_command write_of(const struct write *write, size_t size)
{
    return (struct sdc_check_command){.command = SDC_VFU_REGION_WRITE, .payload = write, .size = sizeof write->access + size};
}

// --- good ones ---

// However many bytes are asked for at a time, they are the same.
static void widths(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    uint8_t bytes[CONFIG_HEADER];
    sdc_check_vfio_open(&vfio, check);
    for (uint32_t i = 0; i < CONFIG_HEADER; i++)
        bytes[i] = (uint8_t)sdc_check_vfio_read(&vfio, SDC_CHECK_REGION_CONFIG, i, 1);
    for (uint32_t i = 0; i < CONFIG_HEADER; i += 2)
        sdc_check_that(check, sdc_check_vfio_read(&vfio, SDC_CHECK_REGION_CONFIG, i, 2) == sdc_get16(bytes + i),
                       "two bytes of configuration space are those that are read one by one (0x%02" PRIx32 ")", i);
    for (uint32_t i = 0; i < CONFIG_HEADER; i += 4)
        sdc_check_that(check, sdc_check_vfio_read(&vfio, SDC_CHECK_REGION_CONFIG, i, 4) == sdc_get32(bytes + i),
                       "four bytes of configuration space are those that are read one by one (0x%02" PRIx32 ")", i);
}

// As monitors do it when they begin.
static void config_at_once(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    struct sdc_check_reply reply;
    sdc_check_vfio_open(&vfio, check);
    uint32_t size = (uint32_t)sdc_check_vfio_region(&vfio, SDC_CHECK_REGION_CONFIG).size;
    const struct sdc_vfu_region_access all = {.region = SDC_CHECK_REGION_CONFIG, .count = size};
    struct sdc_check_command command = read_of(&all);
    sdc_check_vfio_do(&vfio, &command, sizeof all + size, &reply);
    const uint8_t *bytes = reply.payload + sizeof all;
    for (uint32_t i = 0; i < CONFIG_HEADER; i += 4) {
        uint32_t value = sdc_get32(bytes + i);
        sdc_check_that(check, sdc_check_vfio_read(&vfio, SDC_CHECK_REGION_CONFIG, i, 4) == value,
                       "all of configuration space in one message is what it is in several (0x%02" PRIx32 ")", i);
    }
}

// Reads that lie badly: they are done, byte for byte, or refused.
static void unaligned(struct sdc_check *check)
{
    static const uint32_t sizes[] = {2, 3, 4, 5, 7, 8};
    struct sdc_check_vfio vfio;
    uint8_t bytes[CONFIG_HEADER];
    sdc_check_vfio_open(&vfio, check);
    for (uint32_t i = 0; i < CONFIG_HEADER; i++)
        bytes[i] = (uint8_t)sdc_check_vfio_read(&vfio, SDC_CHECK_REGION_CONFIG, i, 1);
    for (size_t i = 0; i < SDC_COUNT(sizes); i++) {
        for (uint32_t at = 0; at < 8; at++) {
            struct sdc_check_reply reply;
            if (sdc_check_vfio_try_read(&vfio, SDC_CHECK_REGION_CONFIG, at, sizes[i], &reply) == SDC_CHECK_DONE)
                sdc_check_that(check, memcmp(reply.payload + sizeof(struct sdc_vfu_region_access), bytes + at, sizes[i]) == 0,
                               "%" PRIu32 " bytes at 0x%" PRIx32 " of configuration space are what they are one by one", sizes[i], at);
        }
    }
}

static void write_form(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    uint64_t command = sdc_check_vfio_read(&vfio, SDC_CHECK_REGION_CONFIG, CONFIG_COMMAND, 2);
    for (unsigned i = 0; i < 4; i++) {
        uint64_t value = i % 2 == 0 ? command | INTX_DISABLE : command & ~(uint64_t)INTX_DISABLE;
        sdc_check_vfio_write(&vfio, SDC_CHECK_REGION_CONFIG, CONFIG_COMMAND, value, 2);
        uint64_t now = sdc_check_vfio_read(&vfio, SDC_CHECK_REGION_CONFIG, CONFIG_COMMAND, 2);
        sdc_check_that(check, now == value || now == command, "what was written to the Command register is there, or nothing changed");
    }
}

static void zero_bytes(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    struct sdc_check_reply reply;
    sdc_check_vfio_open(&vfio, check);
    // Both are fine; a reply has the form of replies.
    sdc_check_vfio_try_read(&vfio, SDC_CHECK_REGION_CONFIG, 0, 0, &reply);
    sdc_check_section(check, WRITE);
    sdc_check_vfio_try_write(&vfio, SDC_CHECK_REGION_CONFIG, 0, NULL, 0, &reply);
    sdc_check_vfio_fence(&vfio);
}

// --- beyond ---

static void refuse_access(struct sdc_check_vfio *vfio, uint32_t region, uint64_t offset, uint32_t count, bool writes, const char *asked)
{
    struct write write = {.access = {.offset = offset, .region = region, .count = count}};
    struct sdc_check_command command = writes ? write_of(&write, count < sizeof write.data ? count : sizeof write.data)
                                              : read_of(&write.access);
    sdc_check_vfio_refused(vfio, &command, asked);
}

static void beyond(struct sdc_check *check, bool writes)
{
    static const char asked[] = "offset and count are into the region: what lies outside cannot be accessed";
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    uint32_t count = regions_of(&vfio);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t size = sdc_check_vfio_region(&vfio, i).size;
        if (size == 0)
            continue;
        refuse_access(&vfio, i, size, 1, writes, asked);
        refuse_access(&vfio, i, size - 1, 2, writes, asked);
        refuse_access(&vfio, i, size + 4096, 4, writes, asked);
        refuse_access(&vfio, i, UINT64_MAX, 1, writes, asked);
        refuse_access(&vfio, i, UINT64_MAX - 3, 8, writes, asked);
        refuse_access(&vfio, i, UINT64_C(1) << 63, 4, writes, asked);
    }
    sdc_check_vfio_fence(&vfio);
}

static void reads_beyond(struct sdc_check *check)
{
    beyond(check, false);
}

static void writes_beyond(struct sdc_check *check)
{
    beyond(check, true);
}

static void no_such_region(struct sdc_check *check)
{
    static const char asked[] = "there is no such region: nothing can be read from it or written to it";
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    uint32_t all = sdc_check_vfio_info(&vfio).num_regions;
    const uint32_t regions[] = {all, all + 1, UINT32_C(0x10000) + SDC_CHECK_REGION_CONFIG, UINT32_MAX};
    for (size_t i = 0; i < SDC_COUNT(regions); i++) {
        refuse_access(&vfio, regions[i], 0, 4, false, asked);
        refuse_access(&vfio, regions[i], 0, 4, true, asked);
    }
    uint32_t count = regions_of(&vfio);
    for (uint32_t i = 0; i < count; i++) {
        if (sdc_check_vfio_region(&vfio, i).size != 0)
            continue;
        refuse_access(&vfio, i, 0, 4, false, asked);
        refuse_access(&vfio, i, 0, 4, true, asked);
    }
}

static void flags_hold(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    bool any = false;
    sdc_check_vfio_open(&vfio, check);
    uint32_t count = regions_of(&vfio);
    for (uint32_t i = 0; i < count; i++) {
        struct sdc_vfu_region_info info = sdc_check_vfio_region(&vfio, i);
        if (info.size < 4)
            continue;
        if (!(info.flags & SDC_VFU_REGION_READABLE))
            refuse_access(&vfio, i, 0, 4, false, "the region has not the flag READ");
        if (!(info.flags & SDC_VFU_REGION_WRITABLE))
            refuse_access(&vfio, i, 0, 4, true, "the region has not the flag WRITE");
        any = any || (info.flags & 3) != 3;
    }
    if (!any)
        sdc_check_not_offered(check, "all regions can be read and written");
}

static void too_much(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    uint64_t most = vfio.capabilities.max_data_xfer_size;
    uint32_t count = regions_of(&vfio);
    if (most >= UINT32_MAX)
        sdc_check_not_offered(check, "no transfer is too large for the server");
    for (uint32_t i = 0; i < count; i++) {
        if (sdc_check_vfio_region(&vfio, i).size == 0)
            continue;
        refuse_access(&vfio, i, 0, (uint32_t)most + 1, false, "count must not exceed the server's max_data_xfer_size");
        refuse_access(&vfio, i, 0, UINT32_MAX, false, "count must not exceed the server's max_data_xfer_size");
    }
    sdc_check_vfio_fence(&vfio);
}

// The count and the bytes that are there say different things.
static void count_mismatch(struct sdc_check *check)
{
    static const uint32_t counts[] = {5, 8, 64, 4096, UINT32_MAX};
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    for (size_t i = 0; i < SDC_COUNT(counts); i++) {
        struct write write = {.access = {.region = SDC_CHECK_REGION_CONFIG, .count = counts[i]}};
        struct sdc_check_command command = write_of(&write, 4);
        sdc_check_vfio_refused(&vfio, &command, "count is the size of the data to be transferred, and there are 4 bytes");
    }
    struct write write = {.access = {.region = SDC_CHECK_REGION_CONFIG, .count = 4}};
    struct sdc_check_command command = write_of(&write, 8);
    if (sdc_check_vfio_open_question(&vfio, &command, "a write with more data than its count says"))
        sdc_check_vfio_fence(&vfio);
}

// --- several writes in one message ---

enum { WRITES = 3 };

struct multi {
    struct sdc_vfu_write_multi head;
    struct sdc_vfu_write writes[WRITES];
};

static struct sdc_check_command multi_of(const struct multi *multi, size_t count)
{
    return (struct sdc_check_command){.command = SDC_VFU_REGION_WRITE_MULTI, .payload = multi,
                                      .size = sizeof multi->head + count * sizeof multi->writes[0]};
}

static void open_multi(struct sdc_check_vfio *vfio, struct sdc_check *check)
{
    sdc_check_vfio_open(vfio, check);
    if (!vfio->capabilities.write_multiple)
        sdc_check_not_offered(check, "the server does not name write_multiple");
}

static void multi_form(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    struct sdc_check_reply reply;
    open_multi(&vfio, check);
    uint16_t before = (uint16_t)sdc_check_vfio_read(&vfio, SDC_CHECK_REGION_CONFIG, CONFIG_COMMAND, 2);
    struct multi multi = {.head.wr_cnt = WRITES};
    for (unsigned i = 0; i < WRITES; i++) {
        multi.writes[i] = (struct sdc_vfu_write){.offset = CONFIG_COMMAND, .region = SDC_CHECK_REGION_CONFIG, .count = 2};
        sdc_put16(multi.writes[i].data, (uint16_t)(i % 2 == 0 ? before | INTX_DISABLE : before & ~INTX_DISABLE));
    }
    struct sdc_check_command command = multi_of(&multi, WRITES);
    sdc_check_vfio_do(&vfio, &command, sizeof multi.head, &reply);
    sdc_check_that(check, sdc_get64(reply.payload) == WRITES, "wr_cnt in the reply is the number of device writes completed");
    uint16_t after = (uint16_t)sdc_check_vfio_read(&vfio, SDC_CHECK_REGION_CONFIG, CONFIG_COMMAND, 2);
    sdc_check_that(check, after == sdc_get16(multi.writes[WRITES - 1].data) || after == before, "the writes are done, in their order");
}

static void multi_refused(struct sdc_check *check)
{
    static const uint64_t counts[] = {WRITES + 1, UINT64_C(1) << 32, UINT64_MAX, UINT64_C(1) << 61};
    struct sdc_check_vfio vfio;
    open_multi(&vfio, check);
    for (size_t i = 0; i < SDC_COUNT(counts); i++) {
        struct multi multi = {.head.wr_cnt = counts[i]};
        struct sdc_check_command command = multi_of(&multi, WRITES);
        sdc_check_vfio_refused(&vfio, &command, "wr_cnt is the number of writes in the message, and there are 3");
    }
    struct multi multi = {.head.wr_cnt = 1};
    struct sdc_check_command command = multi_of(&multi, 1);
    multi.writes[0] = (struct sdc_vfu_write){.region = SDC_CHECK_REGION_CONFIG, .count = 9};
    sdc_check_vfio_refused(&vfio, &command, "this format can only describe writes of 8 bytes or less");
    multi.writes[0] = (struct sdc_vfu_write){.region = UINT32_MAX, .count = 4};
    struct sdc_check_reply reply;
    uint16_t id = sdc_check_vfio_send(&vfio, &command);
    if (sdc_check_vfio_answer(&vfio, id, command.command, &reply) == SDC_CHECK_DONE)
        sdc_check_that(check, reply.size == sizeof multi.head && sdc_get64(reply.payload) == 0,
                       "wr_cnt in the reply is the number of device writes completed, and there is no such region");
    sdc_check_vfio_fence(&vfio);
}

static const struct sdc_check_test tests[] = {
    {"region-read/widths", READ, SDC_CHECK_PCI, widths},
    {"region-read/config-at-once", READ, SDC_CHECK_PCI, config_at_once},
    {"region-read/unaligned", READ, SDC_CHECK_PCI, unaligned},
    {"region-read/beyond", READ, 0, reads_beyond},
    {"region-read/no-such-region", READ, 0, no_such_region},
    {"region-read/too-much", TRANSFERS, 0, too_much},
    {"region-read/zero-bytes", READ, SDC_CHECK_PCI, zero_bytes},
    {"region-write/form", WRITE, SDC_CHECK_PCI, write_form},
    {"region-write/beyond", WRITE, 0, writes_beyond},
    {"region-write/count-mismatch", WRITE, SDC_CHECK_PCI, count_mismatch},
    {"region-write/flags", WRITE, 0, flags_hold},
    {"region-write-multi/form", MULTI, SDC_CHECK_PCI, multi_form},
    {"region-write-multi/refused", MULTI, SDC_CHECK_PCI, multi_refused},
};

const struct sdc_check_table sdc_check_vfio_region_access = {tests, SDC_COUNT(tests)};
