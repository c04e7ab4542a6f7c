// SPDX-License-Identifier: BSD-3-Clause
// matrix-body SOCKET DEVICE WAY QUEUES BLOCK [read-only]: what a disk of 16 MiB with blocks of so many bytes must do, whatever is
// between it and us. Prints a line for each check with what came out, so that lines can be compared from cell to cell; a line that ends
// in "data" is about what is read back, which a null disk does not know. WAY is the kind of ring, of virtio-blk: split or packed, or
// either with -in-order or -iommu behind it; of nvme: prp or sgl, or prp-registers (no shadow doorbells) or prp-private (memory that is
// not shared). Exit status 1: a check could not be made, or came out wrong. A disk that is read-only has the bytes of pattern_byte on
// it, which somebody else has written, and keeps them.
#include "base/check.h"
#include "driver/blk.h"
#include "driver/disk_find.h"
#include "driver/vhost_user.h"
#include "wire/nvme.h"
#include "wire/virtio_blk.h"

#include <sidecard/virtio.h>

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DISK (UINT64_C(16) << 20)
#define DATA_IOVA (UINT64_C(1) << 32)
#define DATA_SIZE (UINT64_C(8) << 20)

enum { DEVICE_BLK = 2, TIMEOUT_MS = 60000, DEPTH = 32, BLOCK = 4096 };

// Features that end at the transport, which are not the disk's to have or not.
#define OF_THE_TRANSPORT (SDC_VIRTIO_F_ACCESS_PLATFORM | SDC_VIRTIO_F_NOTIFICATION_DATA | SDC_VIRTIO_F_RING_RESET)
#define OF_THE_RING (SDC_VIRTIO_F_RING_PACKED | SDC_VIRTIO_F_IN_ORDER)

struct cell {
    const char *socket;
    bool vhost_user;
    bool nvme;
    const char *way;
    uint16_t queues;
    uint32_t block; // bytes
    struct sdc_driver_disk *disk;
    struct sdc_client_memory data;
    bool wrong;
};

__attribute__((format(printf, 2, 3))) static void die(const char *doing, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "matrix-body: %s: ", doing);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

// A check whose result is right or wrong.
static void expect(struct cell *cell, bool right, const char *what)
{
    printf("%s: %s\n", what, right ? "ok" : "wrong");
    cell->wrong |= !right;
}

// One about what is read back. It does not fail here: whoever runs us knows what the disk is.
static void expect_data(bool right, const char *what)
{
    printf("%s: %s data\n", what, right ? "ok" : "other");
}

// --- opening ---

static bool is_packed(const struct cell *cell)
{
    return strncmp(cell->way, "packed", 6) == 0;
}

static enum sdc_client_memory_kind memory_of(const struct cell *cell)
{
    return strstr(cell->way, "private") ? SDC_CLIENT_MEMORY_PRIVATE : SDC_CLIENT_MEMORY_SHARED;
}

static int find_disk(struct cell *cell, struct sdc_error *err)
{
    uint64_t without = is_packed(cell) ? 0 : SDC_VIRTIO_F_RING_PACKED;
    struct sdc_driver_disk_wishes wishes = {.without_features = without,
                                            .memory = memory_of(cell),
                                            .nvme = {.sgl = strcmp(cell->way, "sgl") == 0}};
    struct sdc_vfio_client *vfio;
    struct sdc_vhost_client *vhost;
    struct sdc_driver_transport *transport;
    int ret;

    if (strstr(cell->way, "registers"))
        wishes.nvme.shadows = SDC_DRIVER_NVME_SHADOWS_OFF;
    else if (wishes.memory != SDC_CLIENT_MEMORY_PRIVATE)
        wishes.nvme.shadows = SDC_DRIVER_NVME_SHADOWS_ON;
    if (!cell->vhost_user) {
        ret = sdc_vfio_client_open(cell->socket, NULL, &vfio, err);
        return ret < 0 ? ret : sdc_driver_disk_find(vfio, &wishes, &cell->disk, err);
    }
    ret = sdc_vhost_client_open(cell->socket, NULL, &vhost, err);
    if (ret == 0)
        ret = sdc_driver_vhost_user_open(vhost, DEVICE_BLK, &transport, err);
    if (ret == 0 && strstr(cell->way, "iommu"))
        ret = sdc_driver_vhost_user_iommu(transport, SDC_DRIVER_IOMMU_FLUSH, err);
    return ret < 0 ? ret : sdc_driver_blk_open(transport, without, &cell->disk, err);
}

static void open_disk(struct cell *cell)
{
    struct sdc_error err = {0};
    struct sdc_driver_disk_options options = {.queues = cell->queues, .queue_size = 256, .depth = DEPTH, .request_max = 1 << 20};
    options.memory = memory_of(cell);
    int ret = find_disk(cell, &err);

    if (ret == 0)
        ret = sdc_driver_disk_start(cell->disk, &options, &err);
    if (ret == 0)
        ret = sdc_client_memory_new_kind(&cell->data, options.memory, DATA_IOVA, DATA_SIZE, &err);
    if (ret == 0)
        ret = sdc_driver_disk_map(cell->disk, &cell->data, &err);
    if (ret < 0)
        die("opening", "%s", err.text);
}

static void close_disk(struct cell *cell)
{
    sdc_driver_disk_close(cell->disk);
    sdc_client_memory_free(&cell->data);
}

// --- requests ---

static int request(struct cell *cell, uint16_t queue, enum sdc_driver_disk_op op, uint64_t offset, uint64_t size, uint64_t at)
{
    struct sdc_driver_disk_request one = {.op = op, .offset = offset, .size = size, .data = DATA_IOVA + at};
    struct sdc_error err = {0};
    int ret = sdc_driver_disk_do(sdc_driver_disk_queue(cell->disk, queue), &one, TIMEOUT_MS, &err);

    if (ret != one.result && ret < 0 && ret != -EIO && ret != -ENOTSUP && ret != -EILSEQ)
        die("a request", "%s (%d)", err.text, ret);
    return ret;
}

static void fill(struct cell *cell, uint64_t at, uint64_t size, uint8_t seed)
{
    for (uint64_t i = 0; i < size; i++)
        cell->data.base[at + i] = (uint8_t)(seed + i * 7 + (i >> 9));
}

static bool same(const struct cell *cell, uint64_t a, uint64_t b, uint64_t size)
{
    return memcmp(cell->data.base + a, cell->data.base + b, size) == 0;
}

static bool zero(const struct cell *cell, uint64_t at, uint64_t size)
{
    for (uint64_t i = 0; i < size; i++) {
        if (cell->data.base[at + i] != 0)
            return false;
    }
    return true;
}

enum { OUT = 0, IN = 4 << 20 }; // where in our memory

// --- checks ---

static void check_virtio(struct cell *cell, const struct sdc_driver_disk_info *info)
{
    printf("segments: %" PRIu32 ", of %" PRIu32 " bytes\n", info->virtio.seg_max, info->virtio.size_max);
    printf("features: %#" PRIx64 "\n", info->virtio.features & ~(OF_THE_TRANSPORT | OF_THE_RING));
    expect(cell, info->virtio.packed == is_packed(cell) && info->virtio.in_order == (strstr(cell->way, "-in-order") != NULL),
           "the kind of ring is the one that was asked for");
}

static void check_nvme(struct cell *cell, const struct sdc_driver_disk_info *info)
{
    printf("most of a request: %" PRIu64 "\n", info->request_max);
    printf("compare: %d\n", info->compare);
    printf("version, namespace: %#" PRIx32 ", %" PRIu32 "\n", info->nvme.version, info->nvme.nsid);
    expect(cell, info->nvme.shadows == (strchr(cell->way, '-') == NULL), "shadow doorbells where they are to be");
}

static void check_info(struct cell *cell)
{
    const struct sdc_driver_disk_info *info = sdc_driver_disk_info(cell->disk);

    expect(cell, strcmp(info->device, cell->nvme ? "nvme" : "virtio-blk") == 0, "the kind of device");
    printf("size: %" PRIu64 "\n", info->size);
    expect(cell, info->block_size == cell->block, "the block size");
    printf("read-only, flush, discard, write zeroes, unmap: %d %d %d %d %d\n", info->read_only, info->flush, info->discard,
           info->write_zeroes, info->unmap);
    printf("most at once: discard %" PRIu64 ", write zeroes %" PRIu64 "\n", info->discard_max, info->write_zeroes_max);
    expect(cell, info->queues >= cell->queues, "there are as many queues");
    if (cell->nvme)
        check_nvme(cell, info);
    else
        check_virtio(cell, info);
}

static void check_sizes(struct cell *cell)
{
    const uint64_t block = cell->block;
    const uint64_t sizes[] = {block, 4096, 64 << 10, 1 << 20};
    const uint64_t offsets[] = {0, block, 5 * 4096 + block, DISK - (1 << 20)};
    char what[80];

    for (size_t i = 0; i < SDC_COUNT(sizes); i++) {
        for (size_t j = 0; j < SDC_COUNT(offsets); j++) {
            uint16_t queue = (uint16_t)((i + j) % cell->queues);
            fill(cell, OUT, sizes[i], (uint8_t)(i * 16 + j));
            memset(cell->data.base + IN, 0xee, sizes[i]);
            snprintf(what, sizeof what, "%" PRIu64 " bytes at %" PRIu64, sizes[i], offsets[j]);
            bool done = request(cell, queue, SDC_DRIVER_DISK_WRITE, offsets[j], sizes[i], OUT) == 0 &&
                        request(cell, queue, SDC_DRIVER_DISK_READ, offsets[j], sizes[i], IN) == 0;
            expect(cell, done, what);
            expect_data(same(cell, OUT, IN, sizes[i]), what);
        }
    }
}

// A page of memory, and where data begins in it.
static void check_places(struct cell *cell)
{
    static const uint64_t places[] = {4, 512, 2048, 4092};
    const uint64_t size = 68 << 10;
    char what[80];

    for (size_t i = 0; i < SDC_COUNT(places); i++) {
        fill(cell, OUT + places[i], size, (uint8_t)(40 + i));
        memset(cell->data.base + IN, 0xee, size + 4096);
        snprintf(what, sizeof what, "data at byte %" PRIu64 " of a page", places[i]);
        expect(cell,
               request(cell, 0, SDC_DRIVER_DISK_WRITE, 0, size, OUT + places[i]) == 0 &&
                   request(cell, 0, SDC_DRIVER_DISK_READ, 0, size, IN + 4096 - places[i]) == 0,
               what);
        expect_data(same(cell, OUT + places[i], IN + 4096 - places[i], size), what);
        expect(cell, cell->data.base[IN + 4096 - places[i] - 1] == 0xee, "the byte before is left alone");
    }
}

static void check_bounds(struct cell *cell)
{
    const uint64_t block = cell->block;

    expect(cell, request(cell, 0, SDC_DRIVER_DISK_READ, DISK - block, block, IN) == 0, "the last block is read");
    expect(cell, request(cell, 0, SDC_DRIVER_DISK_READ, DISK, block, IN) == -EIO, "a read behind the end fails");
    expect(cell, request(cell, 0, SDC_DRIVER_DISK_WRITE, DISK - block, 2 * block, OUT) == -EIO, "a write across the end fails");
    expect(cell, request(cell, 0, SDC_DRIVER_DISK_READ, UINT64_C(1) << 62, block, IN) == -EIO, "a read far away fails");
    expect(cell, request(cell, 0, SDC_DRIVER_DISK_DISCARD, DISK, 4096, 0) == -EIO, "a discard behind the end fails");
    expect(cell, request(cell, 0, SDC_DRIVER_DISK_WRITE_ZEROES, DISK - 4096, 8192, 0) == -EIO, "zeroes across the end fail");
    expect(cell, request(cell, 0, SDC_DRIVER_DISK_READ, 0, block, IN) == 0, "the disk goes on after that");
}

static void check_id(struct cell *cell)
{
    if (cell->nvme) {
        expect(cell, strcmp(sdc_driver_disk_info(cell->disk)->nvme.serial, "MATRIX") == 0, "the serial number");
        return;
    }
    memset(cell->data.base + IN, 0xee, 32);
    expect(cell, request(cell, 0, SDC_DRIVER_DISK_GET_ID, 0, 20, IN) == 0, "get id");
    expect(cell, strcmp((char *)cell->data.base + IN, "MATRIX") == 0, "the serial number");
    expect(cell, cell->data.base[IN + 20] == 0xee, "no byte behind the serial number is written");
}

// NVMe's alone.
static void check_compare(struct cell *cell)
{
    if (!cell->nvme)
        return;
    fill(cell, OUT, 4 * BLOCK, 55);
    expect(cell, request(cell, 0, SDC_DRIVER_DISK_WRITE, BLOCK, 4 * BLOCK, OUT) == 0, "a write to compare with");
    expect_data(request(cell, 0, SDC_DRIVER_DISK_COMPARE, BLOCK, 4 * BLOCK, OUT) == 0, "what is the same compares");
    cell->data.base[OUT + 4 * BLOCK - 1] ^= 1;
    expect(cell, request(cell, 0, SDC_DRIVER_DISK_COMPARE, BLOCK, 4 * BLOCK, OUT) == -EILSEQ, "what is not does not");
}

static void check_zeroes(struct cell *cell)
{
    static const struct {
        enum sdc_driver_disk_op op;
        const char *what;
    } ops[] = {{SDC_DRIVER_DISK_WRITE_ZEROES, "write zeroes"},
               {SDC_DRIVER_DISK_WRITE_ZEROES_UNMAP, "write zeroes, unmap"},
               {SDC_DRIVER_DISK_DISCARD, "discard"}};
    const uint64_t from = 1 << 20, size = 64 << 10;

    for (size_t i = 0; i < SDC_COUNT(ops); i++) {
        fill(cell, OUT, size, (uint8_t)(100 + i));
        bool done = request(cell, 0, SDC_DRIVER_DISK_WRITE, from, size, OUT) == 0 &&
                    request(cell, 0, ops[i].op, from + BLOCK, 2 * BLOCK, 0) == 0 &&
                    request(cell, 0, SDC_DRIVER_DISK_READ, from, size, IN) == 0;
        expect(cell, done, ops[i].what);
        expect_data(zero(cell, IN + BLOCK, 2 * BLOCK) && same(cell, OUT, IN, BLOCK) &&
                        same(cell, OUT + 3 * BLOCK, IN + 3 * BLOCK, size - 3 * BLOCK),
                    ops[i].what);
    }
}

// All queues at once, each as deep as it is, writes and then reads.
static void run_all(struct cell *cell, enum sdc_driver_disk_op op, uint64_t at)
{
    struct sdc_driver_disk_request *requests = calloc((size_t)cell->queues * DEPTH, sizeof *requests);
    struct sdc_driver_disk_request *list[DEPTH];
    struct sdc_error err = {0};
    bool good = true;

    for (uint16_t queue = 0; queue < cell->queues; queue++) {
        for (unsigned i = 0; i < DEPTH; i++) {
            uint64_t block = (uint64_t)queue * DEPTH + i;
            list[i] = &requests[block];
            *list[i] = (struct sdc_driver_disk_request){
                .op = op, .offset = block * BLOCK, .size = BLOCK, .data = DATA_IOVA + at + block * BLOCK};
        }
        if (sdc_driver_disk_submit(sdc_driver_disk_queue(cell->disk, queue), list, DEPTH) != DEPTH)
            die("submitting", "the queue is too small");
    }
    for (uint16_t queue = 0; queue < cell->queues; queue++) {
        if (sdc_driver_disk_kick(sdc_driver_disk_queue(cell->disk, queue), &err) < 0)
            die("notifying", "%s", err.text);
    }
    for (uint16_t queue = 0; queue < cell->queues; queue++) {
        for (int left = DEPTH; left > 0;) {
            int count = sdc_driver_disk_take(sdc_driver_disk_queue(cell->disk, queue), list, DEPTH, &err);
            if (count == 0 && sdc_driver_disk_wait(sdc_driver_disk_queue(cell->disk, queue), TIMEOUT_MS, &err) <= 0)
                die("waiting", "%s", err.text);
            if (count < 0)
                die("taking", "%s", err.text);
            for (int i = 0; i < count; i++)
                good &= list[i]->result == 0;
            left -= count;
        }
    }
    expect(cell, good, op == SDC_DRIVER_DISK_WRITE ? "many writes at once" : "many reads at once");
    free(requests);
}

static void check_many(struct cell *cell)
{
    uint64_t size = (uint64_t)cell->queues * DEPTH * BLOCK;

    fill(cell, OUT, size, 77);
    memset(cell->data.base + IN, 0xee, size);
    for (unsigned round = 0; round < 20; round++)
        run_all(cell, SDC_DRIVER_DISK_WRITE, OUT);
    run_all(cell, SDC_DRIVER_DISK_READ, IN);
    expect_data(same(cell, OUT, IN, size), "many at once");
}

static void check_coming_again(struct cell *cell)
{
    fill(cell, OUT, BLOCK, 200);
    expect(cell, request(cell, 0, SDC_DRIVER_DISK_WRITE, 8 * BLOCK, BLOCK, OUT) == 0, "a write before the end");
    close_disk(cell);
    open_disk(cell);
    fill(cell, OUT, BLOCK, 200);
    expect(cell, request(cell, 0, SDC_DRIVER_DISK_READ, 8 * BLOCK, BLOCK, IN) == 0, "a read by the next client");
    expect_data(same(cell, OUT, IN, BLOCK), "the next client");
}

// --- a disk that may only be read ---

static uint8_t pattern_byte(uint64_t offset)
{
    return (uint8_t)(offset * 7 + (offset >> 9) + 13);
}

static void expect_pattern(struct cell *cell, uint64_t offset, uint64_t size, const char *what)
{
    bool right = true;

    for (uint64_t i = 0; i < size; i++)
        right &= cell->data.base[IN + i] == pattern_byte(offset + i);
    expect_data(right, what);
}

static void check_pattern(struct cell *cell)
{
    const uint64_t block = cell->block;
    const uint64_t sizes[] = {block, 4096, 64 << 10, 1 << 20};
    const uint64_t offsets[] = {0, block, 5 * 4096 + block, DISK - (1 << 20)};
    char what[80];

    for (size_t i = 0; i < SDC_COUNT(sizes) * SDC_COUNT(offsets); i++) {
        uint64_t size = sizes[i / SDC_COUNT(offsets)], offset = offsets[i % SDC_COUNT(offsets)];
        memset(cell->data.base + IN, 0xee, size);
        snprintf(what, sizeof what, "a read of %" PRIu64 " bytes at %" PRIu64, size, offset);
        expect(cell, request(cell, (uint16_t)(i % cell->queues), SDC_DRIVER_DISK_READ, offset, size, IN) == 0, what);
        expect_pattern(cell, offset, size, what);
    }
}

// What changes a disk fails, and says why: virtio 1.2, 5.2.6.2; NVMe, of a namespace that is write protected (NSATTR). A virtio disk
// has not got the rest, which it does not offer.
static void check_refusals(struct cell *cell)
{
    static const struct {
        enum sdc_driver_disk_op op;
        const char *what;
    } ops[] = {{SDC_DRIVER_DISK_WRITE, "a write"},
               {SDC_DRIVER_DISK_WRITE_ZEROES, "write zeroes"},
               {SDC_DRIVER_DISK_WRITE_ZEROES_UNMAP, "write zeroes, unmap"},
               {SDC_DRIVER_DISK_DISCARD, "discard"}};
    const uint64_t offsets[] = {0, 1 << 20, DISK - 4096};

    memset(cell->data.base + OUT, 0x11, 4096);
    for (size_t i = 0; i < SDC_COUNT(ops) * SDC_COUNT(offsets); i++) {
        bool write = i / SDC_COUNT(offsets) == 0;
        struct sdc_driver_disk_request one = {
            .op = ops[i / SDC_COUNT(offsets)].op, .offset = offsets[i % SDC_COUNT(offsets)], .size = 4096, .data = DATA_IOVA + OUT};
        uint16_t refused = cell->nvme ? SDC_NVME_SC_READ_ONLY : write ? SDC_VIRTIO_BLK_S_IOERR : SDC_VIRTIO_BLK_S_UNSUPP;
        struct sdc_error err = {0};
        int ret = sdc_driver_disk_do(sdc_driver_disk_queue(cell->disk, 0), &one, TIMEOUT_MS, &err);
        printf("%s at %" PRIu64 ": %d, status %#x\n", ops[i / SDC_COUNT(offsets)].what, one.offset, ret, one.status);
        expect(cell, ret < 0 && one.result == ret && one.status == refused, "it is refused for that");
    }
}

static void check_read_only(struct cell *cell)
{
    const uint64_t size = (uint64_t)cell->queues * DEPTH * BLOCK;

    check_info(cell);
    expect(cell, sdc_driver_disk_info(cell->disk)->read_only, "it says that it is read-only");
    check_pattern(cell);
    check_refusals(cell);
    expect(cell, request(cell, 0, SDC_DRIVER_DISK_READ, DISK, cell->block, IN) == -EIO, "a read behind the end fails");
    expect(cell, request(cell, 0, SDC_DRIVER_DISK_FLUSH, 0, 0, 0) == 0, "flush");
    check_id(cell);
    memset(cell->data.base + IN, 0xee, size);
    run_all(cell, SDC_DRIVER_DISK_READ, IN);
    expect_pattern(cell, 0, size, "many at once");
    close_disk(cell);
    open_disk(cell);
    expect(cell, request(cell, 0, SDC_DRIVER_DISK_READ, BLOCK, BLOCK, IN) == 0, "a read by the next client");
    expect_pattern(cell, BLOCK, BLOCK, "the next client");
}

static void check_writable(struct cell *cell)
{
    check_info(cell);
    check_sizes(cell);
    check_places(cell);
    check_bounds(cell);
    expect(cell, request(cell, 0, SDC_DRIVER_DISK_FLUSH, 0, 0, 0) == 0, "flush");
    check_id(cell);
    check_zeroes(cell);
    check_compare(cell);
    check_many(cell);
    check_coming_again(cell);
}

int main(int argc, char **argv)
{
    static const char scheme[] = "vhost-user:";
    struct cell cell = {.data = {.fd = -1}};

    bool read_only = argc == 7 && strcmp(argv[6], "read-only") == 0;

    if (argc != 6 && !read_only) {
        fprintf(stderr, "usage: matrix-body [vhost-user:]SOCKET DEVICE WAY QUEUES BLOCK [read-only]\n");
        return 2;
    }
    cell.vhost_user = strncmp(argv[1], scheme, sizeof scheme - 1) == 0;
    cell.socket = cell.vhost_user ? argv[1] + sizeof scheme - 1 : argv[1];
    cell.nvme = strcmp(argv[2], "nvme") == 0;
    cell.way = argv[3];
    cell.queues = (uint16_t)atoi(argv[4]);
    cell.block = (uint32_t)atoi(argv[5]);
    open_disk(&cell);
    if (read_only)
        check_read_only(&cell);
    else
        check_writable(&cell);
    close_disk(&cell);
    return cell.wrong;
}
