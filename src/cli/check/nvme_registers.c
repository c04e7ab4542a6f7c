// SPDX-License-Identifier: BSD-3-Clause
// An NVMe controller's registers and life: capabilities, enabling, disabling, shutting down, resets.
#include "cli/check/nvme.h"
#include "cli/check/vfio.h"

#include "base/check.h"
#include "os/clock.h"
#include "os/memfd.h"

#include <inttypes.h>
#include <string.h>

#define BASE(section) SDC_CHECK_NVME_BASE(section)
#define MS_NS UINT64_C(1000000)
#define MEMORY UINT64_C(0x100000)

enum { BAR = 0, PAGE = 4096, PAGES = 4, AQA_ENTRIES = 8, CONFIG_COMMAND = 4, MEMORY_AND_MASTER = 6 };

// A controller by its registers alone.
struct bare {
    struct sdc_check_vfio vfio;
    uint64_t cap;
};

static uint64_t get(struct bare *bare, uint32_t offset, uint32_t size)
{
    return sdc_check_vfio_read(&bare->vfio, BAR, offset, size);
}

static void put(struct bare *bare, uint32_t offset, uint64_t value, uint32_t size)
{
    sdc_check_vfio_write(&bare->vfio, BAR, offset, value, size);
}

static void put64(struct bare *bare, uint32_t offset, uint64_t value)
{
    put(bare, offset, value & UINT32_MAX, 4);
    put(bare, offset + 4, value >> 32, 4);
}

// Until (CSTS & mask) == value. A controller whose CAP.TO is longer than an answer may take is given no more time, and not blamed.
static void await(struct bare *bare, uint32_t mask, uint32_t value, const char *asked)
{
    struct sdc_check *check = bare->vfio.check;
    uint64_t timeout_ms = check->options->timeout_s * 1000, own_ms = (bare->cap >> SDC_NVME_CAP_TO & 0xff) * 500;
    uint64_t give_up = sdc_clock_ns() + timeout_ms * MS_NS;
    uint32_t status;
    while (((status = (uint32_t)get(bare, SDC_NVME_CSTS, 4)) & mask) != value) {
        bool over = sdc_clock_ns() >= give_up;
        if (over && own_ms > timeout_ms)
            sdc_check_skip(check, "CSTS is still 0x%" PRIx32 ", and CAP.TO is longer than --timeout: type --timeout=%" PRIu64, status,
                           own_ms / 1000 + 1);
        sdc_check_that(check, !over, "%s", asked);
        sdc_clock_pause(MS_NS);
    }
}

static void disable(struct bare *bare)
{
    put(bare, SDC_NVME_CC, 0, 4);
    await(bare, SDC_NVME_CSTS_RDY, 0, "CSTS.RDY becomes 0 within CAP.TO when CC.EN is cleared");
}

static void open_bare(struct bare *bare, struct sdc_check *check)
{
    *bare = (struct bare){0};
    sdc_check_vfio_open(&bare->vfio, check);
    sdc_check_vfio_write(&bare->vfio, SDC_CHECK_REGION_CONFIG, CONFIG_COMMAND, MEMORY_AND_MASTER, 2);
    bare->cap = get(bare, SDC_NVME_CAP, 4) | get(bare, SDC_NVME_CAP + 4, 4) << 32;
    disable(bare);
}

static void enable(struct bare *bare)
{
    struct sdc_check_reply reply;
    int fd = sdc_memfd_new("sidecard-check", PAGES * PAGE);
    struct sdc_vfu_dma_map map = {.argsz = sizeof map, .flags = 3, .address = MEMORY, .size = PAGES * PAGE};
    struct sdc_check_command command = {.command = SDC_VFU_DMA_MAP, .payload = &map, .size = sizeof map, .fds = &fd, .fds_count = 1};
    sdc_check_vfio_do(&bare->vfio, &command, 0, &reply);
    put(bare, SDC_NVME_AQA, (AQA_ENTRIES - 1) << 16 | (AQA_ENTRIES - 1), 4);
    put64(bare, SDC_NVME_ASQ, MEMORY);
    put64(bare, SDC_NVME_ACQ, MEMORY + PAGE);
    put(bare, SDC_NVME_CC, SDC_NVME_CC_EN | SDC_NVME_SQES << SDC_NVME_CC_IOSQES | SDC_NVME_CQES << SDC_NVME_CC_IOCQES, 4);
    await(bare, SDC_NVME_CSTS_RDY, SDC_NVME_CSTS_RDY, "CSTS.RDY becomes 1 within CAP.TO when CC.EN is set");
    sdc_check_that(bare->vfio.check, !(get(bare, SDC_NVME_CSTS, 4) & SDC_NVME_CSTS_CFS),
                   "a controller that was enabled as it should has not failed");
}

static void capabilities(struct sdc_check *check)
{
    struct bare bare;
    open_bare(&bare, check);
    uint64_t cap = bare.cap;
    uint32_t stride = UINT32_C(4) << (cap >> SDC_NVME_CAP_DSTRD & 15);
    sdc_check_that(check, (cap & 0xffff) >= 1, "CAP.MQES is 1 at least: a queue has two entries");
    sdc_check_that(check, (cap >> SDC_NVME_CAP_CSS & 0xff) != 0, "CAP.CSS names at least one command set");
    sdc_check_that(check, (cap >> SDC_NVME_CAP_MPSMIN & 15) <= (cap >> SDC_NVME_CAP_MPSMAX & 15), "CAP.MPSMIN is not above CAP.MPSMAX");
    uint64_t size = sdc_check_vfio_region(&bare.vfio, BAR).size;
    sdc_check_that(check, size >= SDC_NVME_DOORBELLS + UINT64_C(4) * stride,
                   "the doorbells of the admin queue and of one I/O queue are in BAR 0 (it has 0x%" PRIx64 " bytes)", size);
    uint32_t version = (uint32_t)get(&bare, SDC_NVME_VS, 4);
    sdc_check_that(check, version >> 16 >= 1 && version >> 16 <= 3, "VS is a version of the specification (0x%08" PRIx32 ")", version);
    if ((cap >> SDC_NVME_CAP_TO & 0xff) == 0)
        sdc_check_note(check, "CAP.TO is 0: nobody knows how long enabling takes");
}

static void widths(struct sdc_check *check)
{
    struct bare bare;
    struct sdc_check_reply reply;
    open_bare(&bare, check);
    if (sdc_check_vfio_try_read(&bare.vfio, BAR, SDC_NVME_CAP, 8, &reply) != SDC_CHECK_DONE) {
        sdc_check_note(check, "64-bit registers can be read in halves only");
        return;
    }
    sdc_check_that(check, memcmp(reply.payload + sizeof(struct sdc_vfu_region_access), &bare.cap, 8) == 0,
                   "a 64-bit register is the same whether it is read whole or in halves");
}

static void read_only(struct sdc_check *check)
{
    static const struct {
        uint32_t offset;
        const char *name;
    } rows[] = {{SDC_NVME_CAP, "CAP"}, {SDC_NVME_CAP + 4, "CAP"}, {SDC_NVME_VS, "VS"}, {SDC_NVME_CSTS, "CSTS"}};
    struct bare bare;
    open_bare(&bare, check);
    for (size_t i = 0; i < SDC_COUNT(rows); i++) {
        uint64_t before = get(&bare, rows[i].offset, 4);
        struct sdc_check_reply reply;
        uint32_t ones = UINT32_MAX;
        sdc_check_vfio_try_write(&bare.vfio, BAR, rows[i].offset, &ones, 4, &reply);
        sdc_check_that(check, get(&bare, rows[i].offset, 4) == before, "%s is read-only", rows[i].name);
    }
}

static void admin_registers(struct sdc_check *check)
{
    struct bare bare;
    open_bare(&bare, check);
    put(&bare, SDC_NVME_AQA, 0x00070003, 4);
    put64(&bare, SDC_NVME_ASQ, UINT64_C(0x123456789a000));
    put64(&bare, SDC_NVME_ACQ, UINT64_C(0x76543210f000));
    sdc_check_that(check, get(&bare, SDC_NVME_AQA, 4) == 0x00070003, "AQA keeps what is written to it");
    uint64_t asq = get(&bare, SDC_NVME_ASQ, 4) | get(&bare, SDC_NVME_ASQ + 4, 4) << 32;
    uint64_t acq = get(&bare, SDC_NVME_ACQ, 4) | get(&bare, SDC_NVME_ACQ + 4, 4) << 32;
    sdc_check_that(check, asq == UINT64_C(0x123456789a000) && acq == UINT64_C(0x76543210f000), "ASQ and ACQ keep what is written to them");
}

static void enabled(struct sdc_check *check)
{
    struct bare bare;
    open_bare(&bare, check);
    enable(&bare);
    sdc_check_that(check, get(&bare, SDC_NVME_CC, 4) & SDC_NVME_CC_EN, "CC.EN stays set");
    disable(&bare);
    // 3.7.2: these are not reset with the controller.
    sdc_check_section(check, BASE("3.7.2"));
    uint64_t asq = get(&bare, SDC_NVME_ASQ, 4), acq = get(&bare, SDC_NVME_ACQ, 4), aqa = get(&bare, SDC_NVME_AQA, 4);
    sdc_check_that(check, asq == MEMORY && acq == MEMORY + PAGE && aqa == ((AQA_ENTRIES - 1) << 16 | (AQA_ENTRIES - 1)),
                   "AQA, ASQ and ACQ are not reset when CC.EN is cleared");
}

static void shut_down(struct sdc_check *check)
{
    struct bare bare;
    open_bare(&bare, check);
    enable(&bare);
    for (uint32_t how = 1; how <= 2; how++) {
        put(&bare, SDC_NVME_CC, get(&bare, SDC_NVME_CC, 4) | how << SDC_NVME_CC_SHN, 4);
        await(&bare, SDC_NVME_CSTS_SHST, SDC_NVME_CSTS_SHST_DONE, "CSTS.SHST becomes 2 when CC.SHN asks for a shutdown");
        disable(&bare);
        if (how == 1) {
            sdc_check_vfio_close(&bare.vfio);
            open_bare(&bare, check);
            enable(&bare);
        }
    }
}

static void reset(struct sdc_check *check)
{
    struct bare bare;
    struct sdc_check_reply reply;
    open_bare(&bare, check);
    if (!(sdc_check_vfio_info(&bare.vfio).flags & SDC_VFU_DEVICE_RESET))
        sdc_check_not_offered(check, "the device has not the flag RESET");
    enable(&bare);
    sdc_check_vfio_do(&bare.vfio, &(struct sdc_check_command){.command = SDC_VFU_RESET}, 0, &reply);
    sdc_check_vfio_write(&bare.vfio, SDC_CHECK_REGION_CONFIG, CONFIG_COMMAND, MEMORY_AND_MASTER, 2);
    sdc_check_that(check, get(&bare, SDC_NVME_CC, 4) == 0, "CC is 0 after a reset");
    sdc_check_that(check, (get(&bare, SDC_NVME_CSTS, 4) & (SDC_NVME_CSTS_RDY | SDC_NVME_CSTS_CFS)) == 0,
                   "CSTS.RDY and CSTS.CFS are 0 after a reset");
}

// Writes to doorbells of queues that there are not, before there are any, and with values that are none.
static void doorbells(struct sdc_check *check)
{
    struct bare bare;
    open_bare(&bare, check);
    uint32_t stride = UINT32_C(4) << (bare.cap >> SDC_NVME_CAP_DSTRD & 15);
    uint64_t size = sdc_check_vfio_region(&bare.vfio, BAR).size;
    for (unsigned pass = 0; pass < 2; pass++) {
        for (uint32_t queue = pass; queue < 4; queue++) { // in the second pass the admin queue is left alone
            for (uint32_t i = 0; i < 2; i++) {
                uint64_t offset = SDC_NVME_DOORBELLS + (UINT64_C(2) * queue + i) * stride;
                uint32_t value = pass == 0 ? 1 : 0xffff;
                struct sdc_check_reply reply;
                if (sdc_within(offset, 4, size))
                    sdc_check_vfio_try_write(&bare.vfio, BAR, offset, &value, 4, &reply);
            }
        }
        if (pass == 0)
            enable(&bare);
    }
    sdc_check_that(check, (get(&bare, SDC_NVME_CSTS, 4) & (SDC_NVME_CSTS_RDY | SDC_NVME_CSTS_CFS)) == SDC_NVME_CSTS_RDY,
                   "doorbells of queues that there are not do the controller no harm");
}

static const struct sdc_check_test tests[] = {
    {"nvme-registers/capabilities", BASE("3.1.3.1"), SDC_CHECK_NVME, capabilities},
    {"nvme-registers/widths", BASE("3.1.3"), SDC_CHECK_NVME, widths},
    {"nvme-registers/read-only", BASE("3.1.3"), SDC_CHECK_NVME, read_only},
    {"nvme-registers/admin-queue", BASE("3.1.3.8"), SDC_CHECK_NVME, admin_registers},
    {"nvme-registers/enable", BASE("3.5.1"), SDC_CHECK_NVME, enabled},
    {"nvme-registers/shutdown", BASE("3.6.1"), SDC_CHECK_NVME, shut_down},
    {"nvme-registers/reset", BASE("3.7.2"), SDC_CHECK_NVME, reset},
    {"nvme-registers/doorbells", BASE("3.1.3.25"), SDC_CHECK_NVME, doorbells},
};

const struct sdc_check_table sdc_check_nvme_registers = {tests, SDC_COUNT(tests)};
