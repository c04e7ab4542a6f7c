// SPDX-License-Identifier: BSD-3-Clause
// DMA_MAP and DMA_UNMAP: which memory the server may reach, and that it lets go of it.
#include "cli/check/vfio.h"

#include "base/check.h"
#include "os/fd.h"
#include "os/memfd.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define MAP "vfio-user, VFIO_USER_DMA_MAP"
#define UNMAP "vfio-user, VFIO_USER_DMA_UNMAP"

enum {
    PAGE = 4096,
    FILE_SIZE = 64 * PAGE,
    MANY = 512, // mappings
    READ_WRITE = SDC_VFU_MAP_READ | SDC_VFU_MAP_WRITE,
};
#define BASE UINT64_C(0x100000)

static int new_file(struct sdc_check *check)
{
    int fd = sdc_memfd_new_sealable("sidecard-check", FILE_SIZE);
    if (fd < 0)
        sdc_check_skip(check, "the tester has no memory to share: %s", strerror(-fd));
    return fd;
}

static struct sdc_vfu_dma_map map_at(uint64_t address, uint64_t size)
{
    return (struct sdc_vfu_dma_map){.argsz = sizeof(struct sdc_vfu_dma_map), .flags = READ_WRITE, .address = address, .size = size};
}

// fd may be -1.
static struct sdc_check_command command_of(const struct sdc_vfu_dma_map *map, const int *fd)
{
    return (struct sdc_check_command){.command = SDC_VFU_DMA_MAP, .payload = map, .size = sizeof *map, .fds = fd,
                                      .fds_count = *fd >= 0 ? 1 : 0};
}

static void map(struct sdc_check_vfio *vfio, const struct sdc_vfu_dma_map *map, int fd)
{
    struct sdc_check_command command = command_of(map, &fd);
    struct sdc_check_reply reply;
    sdc_check_vfio_do(vfio, &command, 0, &reply);
}

static struct sdc_vfu_dma_unmap unmap_of(uint64_t address, uint64_t size)
{
    return (struct sdc_vfu_dma_unmap){.argsz = sizeof(struct sdc_vfu_dma_unmap), .address = address, .size = size};
}

static void unmap(struct sdc_check_vfio *vfio, uint64_t address, uint64_t size)
{
    struct sdc_vfu_dma_unmap range = unmap_of(address, size);
    struct sdc_check_command command = {.command = SDC_VFU_DMA_UNMAP, .payload = &range, .size = sizeof range};
    struct sdc_check_reply reply;
    sdc_check_vfio_do(vfio, &command, sizeof range, &reply);
    struct sdc_vfu_dma_unmap echo;
    memcpy(&echo, reply.payload, sizeof echo);
    sdc_check_that(vfio->check, echo.address == address && echo.size == size,
                   "the server responds with the original DMA entry in the request");
}

static void refuse_unmap(struct sdc_check_vfio *vfio, uint64_t address, uint64_t size)
{
    struct sdc_vfu_dma_unmap range = unmap_of(address, size);
    sdc_check_vfio_refused(vfio, &(struct sdc_check_command){.command = SDC_VFU_DMA_UNMAP, .payload = &range, .size = sizeof range},
                           "address and size must match exactly a previous mapping");
}

// --- maps that have to be taken ---

static void map_with_fd(struct sdc_check *check)
{
    static const uint32_t flags[] = {READ_WRITE, SDC_VFU_MAP_READ, SDC_VFU_MAP_WRITE};
    struct sdc_check_vfio vfio;
    int fd = new_file(check);
    sdc_check_vfio_open(&vfio, check);
    for (size_t i = 0; i < SDC_COUNT(flags); i++) {
        struct sdc_vfu_dma_map range = map_at(BASE + i * FILE_SIZE, 16 * PAGE);
        range.flags = flags[i];
        range.offset = i * 16 * PAGE;
        map(&vfio, &range, fd);
    }
    for (size_t i = 0; i < SDC_COUNT(flags); i++)
        unmap(&vfio, BASE + i * FILE_SIZE, 16 * PAGE);
}

static void map_without_fd(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    struct sdc_vfu_dma_map range = map_at(BASE, FILE_SIZE);
    map(&vfio, &range, -1);
    unmap(&vfio, BASE, FILE_SIZE);
}

static void adjacent(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    int fd = new_file(check);
    sdc_check_vfio_open(&vfio, check);
    for (uint64_t i = 0; i < 4; i++) {
        struct sdc_vfu_dma_map range = map_at(BASE + (i ^ 1) * PAGE, PAGE);
        range.offset = i * PAGE;
        map(&vfio, &range, i % 2 == 0 ? fd : -1);
    }
    for (uint64_t i = 0; i < 4; i++)
        unmap(&vfio, BASE + i * PAGE, PAGE);
}

static void many(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    int fd = new_file(check);
    sdc_check_vfio_open(&vfio, check);
    uint64_t count = sdc_min(MANY, vfio.capabilities.max_dma_maps);
    for (uint64_t i = 0; i < count; i++) {
        struct sdc_vfu_dma_map range = map_at(BASE + 2 * i * PAGE, PAGE);
        map(&vfio, &range, fd);
    }
    for (uint64_t i = count; i-- > 0;)
        unmap(&vfio, BASE + 2 * i * PAGE, PAGE);
}

// --- maps that cannot be taken ---

static void overlap(struct sdc_check *check)
{
    static const struct {
        uint64_t address, size;
    } ranges[] = {{BASE, 4 * PAGE}, {BASE, PAGE}, {BASE + PAGE, PAGE}, {BASE + 3 * PAGE, 2 * PAGE},
                  {BASE - PAGE, 2 * PAGE}, {BASE - PAGE, 6 * PAGE}};
    struct sdc_check_vfio vfio;
    int fd = new_file(check), none = -1;
    sdc_check_vfio_open(&vfio, check);
    struct sdc_vfu_dma_map first = map_at(BASE, 4 * PAGE);
    map(&vfio, &first, fd);
    for (size_t i = 0; i < SDC_COUNT(ranges); i++) {
        struct sdc_vfu_dma_map range = map_at(ranges[i].address, ranges[i].size);
        struct sdc_check_command with = command_of(&range, &fd), without = command_of(&range, &none);
        uint32_t error = sdc_check_vfio_refused(&vfio, &with, "a command to map over an existing region must be failed");
        sdc_check_that(check, error == EEXIST,
                       "a command to map over an existing region must be failed with EEXIST (%d) in the error field", EEXIST);
        sdc_check_vfio_refused(&vfio, &without, "a command to map over an existing region must be failed");
    }
    unmap(&vfio, BASE, 4 * PAGE); // the first one is still there
}

// What the specification does not say a word about: answered, and the server goes on.
static void odd_ranges(struct sdc_check *check)
{
    static const struct {
        uint64_t address, size, offset;
        uint32_t flags;
        const char *what;
    } rows[] = {
        {BASE, 0, 0, READ_WRITE, "a region of no bytes"},
        {BASE + 1, PAGE, 0, READ_WRITE, "an address that is no multiple of a page"},
        {BASE, PAGE + 1, 0, READ_WRITE, "a size that is no multiple of a page"},
        {BASE, PAGE, 1, READ_WRITE, "an offset that is no multiple of a page"},
        {BASE, FILE_SIZE + PAGE, 0, READ_WRITE, "more than the file has"},
        {BASE, PAGE, FILE_SIZE, READ_WRITE, "an offset behind the file's end"},
        {BASE, PAGE, UINT64_MAX - PAGE + 1, READ_WRITE, "an offset that wraps around"},
        {BASE, PAGE, 0, UINT32_C(0x80000000) | READ_WRITE, "a flag that does not exist"},
        {UINT64_MAX - PAGE + 1, 2 * PAGE, 0, READ_WRITE, "an address and a size whose sum is more than 64 bits can say"},
        {PAGE, UINT64_MAX - PAGE + 1, 0, READ_WRITE, "an address and a size whose sum is more than 64 bits can say"},
    };
    for (size_t i = 0; i < SDC_COUNT(rows); i++) {
        struct sdc_check_vfio vfio;
        int fd = new_file(check);
        sdc_check_vfio_open(&vfio, check);
        struct sdc_vfu_dma_map range = map_at(rows[i].address, rows[i].size);
        range.offset = rows[i].offset;
        range.flags = rows[i].flags;
        struct sdc_check_command command = command_of(&range, &fd);
        if (sdc_check_vfio_open_question(&vfio, &command, rows[i].what))
            sdc_check_vfio_fence(&vfio);
        sdc_check_vfio_close(&vfio);
        sdc_fd_close(&fd);
    }
}

static void odd_fds(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    int fds[2] = {new_file(check), sdc_eventfd_new()};
    const struct {
        const int *fds;
        unsigned count;
        const char *what;
    } rows[] = {{fds, 2, "two fds where one region is mapped"}, {fds + 1, 1, "an eventfd as memory"}};
    for (size_t i = 0; i < SDC_COUNT(rows); i++) {
        struct sdc_vfu_dma_map range = map_at(BASE + i * FILE_SIZE, PAGE);
        struct sdc_check_command command = {.command = SDC_VFU_DMA_MAP, .payload = &range, .size = sizeof range, .fds = rows[i].fds,
                                            .fds_count = rows[i].count};
        if (!sdc_check_vfio_open_question(&vfio, &command, rows[i].what))
            return;
    }
    sdc_check_vfio_fence(&vfio);
}

// --- unmapping ---

static void unmap_unknown(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    int fd = new_file(check);
    sdc_check_vfio_open(&vfio, check);
    refuse_unmap(&vfio, BASE, PAGE);
    struct sdc_vfu_dma_map range = map_at(BASE, 4 * PAGE), next = map_at(BASE + 4 * PAGE, 4 * PAGE);
    map(&vfio, &range, fd);
    map(&vfio, &next, -1);
    refuse_unmap(&vfio, BASE, PAGE);
    refuse_unmap(&vfio, BASE + PAGE, PAGE);
    refuse_unmap(&vfio, BASE + PAGE, 3 * PAGE);
    refuse_unmap(&vfio, BASE, 5 * PAGE);
    refuse_unmap(&vfio, BASE, 8 * PAGE);
    refuse_unmap(&vfio, BASE - PAGE, 5 * PAGE);
    refuse_unmap(&vfio, BASE, 0);
    refuse_unmap(&vfio, BASE, UINT64_MAX);
    unmap(&vfio, BASE, 4 * PAGE);
    refuse_unmap(&vfio, BASE, 4 * PAGE);
    unmap(&vfio, BASE + 4 * PAGE, 4 * PAGE);
}

static void map_again(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    int fd = new_file(check);
    sdc_check_vfio_open(&vfio, check);
    for (uint64_t i = 0; i < 8; i++) {
        struct sdc_vfu_dma_map range = map_at(BASE, (i + 1) * PAGE);
        map(&vfio, &range, i % 2 == 0 ? fd : -1);
        unmap(&vfio, BASE, (i + 1) * PAGE);
    }
}

// A file that is mapped for writing anywhere cannot be sealed against writing.
static void unmap_lets_go(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    int fd = new_file(check);
    sdc_check_vfio_open(&vfio, check);
    struct sdc_vfu_dma_map range = map_at(BASE, FILE_SIZE);
    map(&vfio, &range, fd);
    if (sdc_memfd_seal_writes(fd) == 0)
        sdc_check_not_offered(check, "the server does not map memory when it is told of it");
    unmap(&vfio, BASE, FILE_SIZE);
    sdc_check_that(check, sdc_memfd_seal_writes(fd) == 0,
                   "the server must release all references to the region before replying; the file is still mapped for writing");
}

static void disconnect_lets_go(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    int fd = new_file(check);
    sdc_check_vfio_open(&vfio, check);
    struct sdc_vfu_dma_map range = map_at(BASE, FILE_SIZE);
    map(&vfio, &range, fd);
    sdc_check_vfio_close(&vfio);
    sdc_check_vfio_open(&vfio, check); // now it has seen that the other one has gone
    sdc_check_that(check, sdc_memfd_seal_writes(fd) == 0,
                   "when a client disconnects, all its memory is unmapped; the file is still mapped for writing");
    refuse_unmap(&vfio, BASE, FILE_SIZE);
}

// Not in the specification; servers that know it take it with an address and a size of 0.
static void unmap_all(struct sdc_check *check)
{
    struct sdc_check_vfio vfio;
    struct sdc_check_reply reply;
    int fd = new_file(check);
    sdc_check_vfio_open(&vfio, check);
    struct sdc_vfu_dma_map first = map_at(BASE, PAGE), second = map_at(BASE + 2 * PAGE, PAGE);
    map(&vfio, &first, fd);
    map(&vfio, &second, -1);
    struct sdc_vfu_dma_unmap all = {.argsz = sizeof all, .flags = SDC_VFU_UNMAP_ALL};
    struct sdc_check_command command = {.command = SDC_VFU_DMA_UNMAP, .payload = &all, .size = sizeof all};
    uint16_t id = sdc_check_vfio_send(&vfio, &command);
    if (sdc_check_vfio_answer(&vfio, id, SDC_VFU_DMA_UNMAP, &reply) == SDC_CHECK_REFUSED) {
        unmap(&vfio, BASE, PAGE);
        unmap(&vfio, BASE + 2 * PAGE, PAGE);
        sdc_check_not_offered(check, "the server does not take DMA_UNMAP with the flag UNMAP_ALL, which the specification has no more");
    }
    refuse_unmap(&vfio, BASE, PAGE);
    refuse_unmap(&vfio, BASE + 2 * PAGE, PAGE);
    map(&vfio, &first, fd);
    unmap(&vfio, BASE, PAGE);
}

static const struct sdc_check_test tests[] = {
    {"dma-map/with-fd", MAP, 0, map_with_fd},
    {"dma-map/without-fd", MAP, 0, map_without_fd},
    {"dma-map/adjacent", MAP, 0, adjacent},
    {"dma-map/many", MAP, 0, many},
    {"dma-map/overlap", MAP, 0, overlap},
    {"dma-map/odd-ranges", MAP, 0, odd_ranges},
    {"dma-map/odd-fds", MAP, 0, odd_fds},
    {"dma-unmap/unknown", UNMAP, 0, unmap_unknown},
    {"dma-unmap/map-again", UNMAP, 0, map_again},
    {"dma-unmap/lets-go", UNMAP, 0, unmap_lets_go},
    {"dma-unmap/all", UNMAP, 0, unmap_all},
    {"dma-unmap/disconnect-lets-go", "vfio-user, Client Disconnection", 0, disconnect_lets_go},
};

const struct sdc_check_table sdc_check_vfio_dma = {tests, SDC_COUNT(tests)};
