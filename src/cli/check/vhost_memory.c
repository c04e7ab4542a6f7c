// SPDX-License-Identifier: BSD-3-Clause
// Memory over vhost-user: tables and single regions, in good form and in bad, and the device's requests in them.
#include "cli/check/stage.h"

#include "base/check.h"
#include "os/fd.h"
#include "os/memfd.h"
#include "os/socket.h"
#include "os/wait.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ALL (~SDC_VHOST_PROTOCOL_F_INBAND_NOTIFICATIONS)
#define TABLE "vhost-user, VHOST_USER_SET_MEM_TABLE"
#define ADD "vhost-user, VHOST_USER_ADD_MEM_REG"
#define REMOVE "vhost-user, VHOST_USER_REM_MEM_REG"

enum { PAGE = 4096, REGIONS = 8, SLOTS_TRIED = 32 };

// A table of regions as SET_MEM_TABLE has it.
struct mem_table {
    struct sdc_vhost_mem_table head;
    struct sdc_vhost_region regions[REGIONS];
};

static struct sdc_check_vhost_request table_request(const struct mem_table *table, uint32_t regions, const int *fds, unsigned fds_count)
{
    return (struct sdc_check_vhost_request){.request = SDC_VHOST_SET_MEM_TABLE,
                                            .payload = table,
                                            .size = (uint32_t)(sizeof table->head + regions * sizeof table->regions[0]),
                                            .fds = fds,
                                            .fds_count = fds_count};
}

// --- with requests ---

// The memory of a bed in eight regions with holes in the file between them: adjacent for the guest, in another order in the file.
static void adjacent_regions(struct sdc_check *check)
{
    struct sdc_check_stage stage;
    struct mem_table table = {.head = {.num_regions = REGIONS}};
    int fds[REGIONS];

    sdc_check_stage_open_as(&stage, check,
                            (struct sdc_check_bed_wishes){.features = SDC_CHECK_RINGS,
                                                          .protocol = ALL & ~SDC_VHOST_PROTOCOL_F_CONFIGURE_MEM_SLOTS},
                            SDC_CHECK_STAGE_DATA);
    struct sdc_client_memory *memory = &stage.bed.memory;
    uint64_t part = memory->size / REGIONS;
    for (unsigned i = 0; i < REGIONS; i++) {
        fds[i] = memory->fd;
        table.regions[i] = (struct sdc_vhost_region){.guest_address = memory->iova + i * part,
                                                     .size = part,
                                                     .user_address = memory->iova + stage.bed.user_offset + i * part,
                                                     .mmap_offset = i * part};
    }
    struct sdc_check_vhost_request request = table_request(&table, REGIONS, fds, REGIONS);
    sdc_check_vhost_do(&stage.bed.vhost, &request);
    // A buffer that begins in one region and ends in the next.
    memory->used = part - 2 * PAGE;
    sdc_check_stage_request(&stage, SDC_CHECK_STAGE_DATA, &stage.request);
    sdc_check_bed_run_queues(&stage.bed, 1, 64);
    for (unsigned cut = 0; cut < SDC_CHECK_CUTS; cut++)
        sdc_check_stage_read(&stage, 0, cut, false);
}

// A second table while the ring runs: what is in it is as good as what was there before.
static void table_replaced(struct sdc_check *check)
{
    struct sdc_check_stage stage;
    struct mem_table table = {.head = {.num_regions = 2}};
    struct sdc_client_memory more;
    struct sdc_error err = {0};

    sdc_check_stage_open_as(&stage, check,
                            (struct sdc_check_bed_wishes){.features = SDC_CHECK_RINGS,
                                                          .protocol = ALL & ~SDC_VHOST_PROTOCOL_F_CONFIGURE_MEM_SLOTS},
                            SDC_VIRTIO_BLK_SECTOR);
    sdc_check_bed_run_queues(&stage.bed, 1, 64);
    sdc_check_stage_read(&stage, 0, SDC_CHECK_CUT_PLAIN, false);
    if (sdc_client_memory_new(&more, stage.bed.memory.iova + (UINT64_C(1) << 32), 1 << 20, &err) < 0)
        sdc_check_skip(check, "%s", err.text);
    table.regions[0] = sdc_check_bed_vhost_region(&stage.bed);
    table.regions[1] = (struct sdc_vhost_region){
        .guest_address = more.iova, .size = more.size, .user_address = more.iova + stage.bed.user_offset};
    struct sdc_check_vhost_request request = table_request(&table, 2, (int[]){stage.bed.memory.fd, more.fd}, 2);
    sdc_check_vhost_do(&stage.bed.vhost, &request);
    sdc_check_stage_read(&stage, 0, SDC_CHECK_CUT_PLAIN, false);
    struct sdc_client_memory first = stage.bed.memory;
    stage.bed.memory = more;
    sdc_check_stage_request(&stage, stage.block, &stage.request);
    stage.bed.memory = first;
    sdc_check_stage_read(&stage, 0, SDC_CHECK_CUT_PLAIN, false);
}

// --- single regions ---

static void open_slots(struct sdc_check_vhost *vhost, struct sdc_check *check)
{
    sdc_check_vhost_open(vhost, check, ALL);
    sdc_check_vhost_needs(vhost, SDC_VHOST_PROTOCOL_F_CONFIGURE_MEM_SLOTS, "CONFIGURE_MEM_SLOTS");
}

static struct sdc_vhost_mem_reg slot(unsigned index)
{
    return (struct sdc_vhost_mem_reg){.region = {.guest_address = index * UINT64_C(2) * PAGE,
                                                 .size = PAGE,
                                                 .user_address = (UINT64_C(1) << 40) + index * UINT64_C(2) * PAGE,
                                                 .mmap_offset = (uint64_t)index * PAGE}};
}

static struct sdc_check_vhost_request slot_request(uint32_t request, const struct sdc_vhost_mem_reg *reg, const int *fd, unsigned count)
{
    return (struct sdc_check_vhost_request){.request = request, .payload = reg, .size = sizeof *reg, .fds = fd, .fds_count = count};
}

static void slots(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;
    int fd = sdc_memfd_new("check", SLOTS_TRIED * PAGE);

    open_slots(&vhost, check);
    uint64_t max = sdc_check_vhost_ask_u64(&vhost, SDC_VHOST_GET_MAX_MEM_SLOTS);
    unsigned count = (unsigned)sdc_min(max, SLOTS_TRIED);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < count; i++) {
            struct sdc_vhost_mem_reg reg = slot(i);
            struct sdc_check_vhost_request request = slot_request(SDC_VHOST_ADD_MEM_REG, &reg, &fd, 1);
            sdc_check_vhost_do(&vhost, &request);
        }
        for (unsigned i = count; i-- > 0;) {
            struct sdc_vhost_mem_reg reg = slot(i);
            reg.region.mmap_offset = 0x123; // is ignored
            struct sdc_check_vhost_request request = slot_request(SDC_VHOST_REM_MEM_REG, &reg, NULL, 0);
            sdc_check_vhost_do(&vhost, &request);
        }
    }
}

static void remove_unknown(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;
    struct sdc_vhost_mem_reg reg = slot(0);
    struct sdc_check_vhost_request request = slot_request(SDC_VHOST_REM_MEM_REG, &reg, NULL, 0);

    open_slots(&vhost, check);
    sdc_check_vhost_open_question(&vhost, &request, "REM_MEM_REG of a region that there is not");
}

// The back end must close a file descriptor that comes with it, which is seen at the other end of the socket that it is.
static void remove_with_fd(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;
    struct sdc_vhost_mem_reg reg = slot(0);
    int fd = sdc_memfd_new("check", PAGE), pair[2];

    if (sdc_socket_pair(pair) < 0)
        sdc_check_skip(check, "the tester cannot make sockets");
    open_slots(&vhost, check);
    struct sdc_check_vhost_request add = slot_request(SDC_VHOST_ADD_MEM_REG, &reg, &fd, 1);
    sdc_check_vhost_do(&vhost, &add);
    struct sdc_check_vhost_request request = slot_request(SDC_VHOST_REM_MEM_REG, &reg, &pair[1], 1);
    sdc_check_vhost_try(&vhost, &request);
    sdc_fd_close(&pair[1]);
    int seen = sdc_wait_fd(pair[0], SDC_WAIT_HANGUP, sdc_check_patience(check));
    sdc_check_that(check, seen > 0 && seen & SDC_WAIT_HANGUP, "a file descriptor that comes with REM_MEM_REG must be closed");
}

// --- what no back end can use ---

static const struct {
    const char *what;
    struct sdc_vhost_region region;
    unsigned fds;
} mistakes[] = {
    {"a region without a file descriptor", {.guest_address = 0, .size = PAGE, .user_address = PAGE}, 0},
    {"a region with two file descriptors", {.guest_address = 0, .size = PAGE, .user_address = PAGE}, 2},
    {"a region of 0 bytes", {.guest_address = 0, .size = 0, .user_address = PAGE}, 1},
    {"a region that is longer than its file", {.guest_address = 0, .size = 1 << 30, .user_address = PAGE}, 1},
    {"a region behind the end of its file", {.guest_address = 0, .size = PAGE, .user_address = PAGE, .mmap_offset = 1 << 30}, 1},
    {"a region whose guest addresses do not end", {.guest_address = UINT64_MAX - 100, .size = PAGE, .user_address = PAGE}, 1},
    {"a region whose user addresses do not end", {.guest_address = 0, .size = PAGE, .user_address = UINT64_MAX - 100}, 1},
    {"a region whose file offsets do not end",
     {.guest_address = 0, .size = PAGE, .user_address = PAGE, .mmap_offset = UINT64_MAX - 100}, 1},
    {"a region of 2^64 - 1 bytes", {.guest_address = 0, .size = UINT64_MAX, .user_address = 0}, 1},
};

static void wrong_slots(struct sdc_check *check)
{
    int fd = sdc_memfd_new("check", PAGE), fds[] = {fd, fd};

    for (size_t i = 0; i < SDC_COUNT(mistakes); i++) {
        struct sdc_check_vhost vhost;
        struct sdc_vhost_mem_reg reg = {.region = mistakes[i].region};
        struct sdc_check_vhost_request request = slot_request(SDC_VHOST_ADD_MEM_REG, &reg, fds, mistakes[i].fds);
        open_slots(&vhost, check);
        sdc_check_vhost_open_question(&vhost, &request, mistakes[i].what);
        sdc_check_vhost_close(&vhost);
    }
}

static void wrong_tables(struct sdc_check *check)
{
    int fd = sdc_memfd_new("check", PAGE), fds[] = {fd, fd};

    for (size_t i = 0; i < SDC_COUNT(mistakes); i++) {
        struct sdc_check_vhost vhost;
        struct mem_table table = {.head = {.num_regions = 1}, .regions = {mistakes[i].region}};
        struct sdc_check_vhost_request request = table_request(&table, 1, fds, mistakes[i].fds);
        sdc_check_vhost_open(&vhost, check, SDC_VHOST_PROTOCOL_F_REPLY_ACK);
        sdc_check_vhost_open_question(&vhost, &request, mistakes[i].what);
        sdc_check_vhost_close(&vhost);
    }
}

static void wrong_counts(struct sdc_check *check)
{
    static const uint32_t counts[] = {0, 2, REGIONS + 1, 0x08000000, UINT32_MAX};
    int fd = sdc_memfd_new("check", PAGE);

    for (size_t i = 0; i < SDC_COUNT(counts); i++) {
        struct sdc_check_vhost vhost;
        char what[80];
        struct mem_table table = {.head = {.num_regions = counts[i]}, .regions = {mistakes[0].region}};
        struct sdc_check_vhost_request request = table_request(&table, 1, &fd, 1);
        snprintf(what, sizeof what, "a table that says it has %" PRIu32 " regions, and has one", counts[i]);
        sdc_check_vhost_open(&vhost, check, SDC_VHOST_PROTOCOL_F_REPLY_ACK);
        sdc_check_vhost_open_question(&vhost, &request, what);
        sdc_check_vhost_close(&vhost);
    }
}

static void no_memory(struct sdc_check *check)
{
    int pair[2], fds[] = {sdc_eventfd_new(), -1};

    if (sdc_socket_pair(pair) < 0)
        sdc_check_skip(check, "the tester cannot make sockets");
    fds[1] = pair[0];
    for (size_t i = 0; i < SDC_COUNT(fds); i++) {
        struct sdc_check_vhost vhost;
        struct mem_table table = {.head = {.num_regions = 1}, .regions = {mistakes[0].region}};
        struct sdc_check_vhost_request request = table_request(&table, 1, &fds[i], 1);
        sdc_check_vhost_open(&vhost, check, SDC_VHOST_PROTOCOL_F_REPLY_ACK);
        sdc_check_vhost_open_question(&vhost, &request, i == 0 ? "a region in an eventfd" : "a region in a socket");
        sdc_check_vhost_close(&vhost);
    }
}

static void overlap(struct sdc_check *check)
{
    struct sdc_check_vhost vhost;
    int fd = sdc_memfd_new("check", 4 * PAGE);

    open_slots(&vhost, check);
    for (unsigned i = 0; i < 3; i++) {
        struct sdc_vhost_mem_reg reg = slot(0);
        reg.region.size = 2 * PAGE;
        reg.region.mmap_offset = 0;
        reg.region.guest_address = i == 2 ? PAGE : 0; // as it is there already, and half of it
        struct sdc_check_vhost_request request = slot_request(SDC_VHOST_ADD_MEM_REG, &reg, &fd, 1);
        if (i == 0)
            sdc_check_vhost_do(&vhost, &request);
        else if (!sdc_check_vhost_open_question(&vhost, &request, i == 1 ? "a region that is there already" : "a region over another"))
            return;
    }
}

static const struct sdc_check_test tests[] = {
    {"memory/adjacent-regions", TABLE, SDC_CHECK_REQUESTS, adjacent_regions},
    {"memory/table-replaced", TABLE, SDC_CHECK_REQUESTS, table_replaced},
    {"memory/slots", ADD, 0, slots},
    {"memory/remove-unknown", REMOVE, 0, remove_unknown},
    {"memory/remove-with-fd", REMOVE, 0, remove_with_fd},
    {"memory/wrong-slots", ADD, 0, wrong_slots},
    {"memory/wrong-tables", TABLE, 0, wrong_tables},
    {"memory/wrong-counts", TABLE, 0, wrong_counts},
    {"memory/not-memory", TABLE, 0, no_memory},
    {"memory/overlap", ADD, 0, overlap},
};

const struct sdc_check_table sdc_check_vhost_memory = {tests, SDC_COUNT(tests)};
