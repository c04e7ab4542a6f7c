// SPDX-License-Identifier: BSD-3-Clause
// A disk behind vfio-user with requests in flight: it is reset, its memory is taken away, its client goes. Afterwards the device leaves
// memory alone, and serves who comes next.
#include "cli/check/vfio.h"

#include "base/check.h"
#include "driver/disk_find.h"
#include "os/clock.h"
#include "os/fd.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define DATA_IOVA (UINT64_C(1) << 32)
#define MS_NS UINT64_C(1000000)

enum {
    DEPTH = 32,
    BYTES = 4096, // of a request
    ROUNDS = 8,
    PATTERN = 0x5a,
    QUIET_MS = 20, // that a device which is wrong has to show it
};

struct load {
    struct sdc_check *check;
    struct sdc_vfio_client *client;
    struct sdc_driver_disk *disk;
    struct sdc_driver_disk_queue *queue;
    struct sdc_client_memory memory;
    struct sdc_driver_disk_request requests[DEPTH];
    bool writes;
};

static void open_load(struct load *load, struct sdc_check *check, bool writes)
{
    const struct sdc_vfio_client_options options = {.timeout_ms = (uint32_t)check->options->timeout_s * 1000};
    const struct sdc_driver_disk_wishes wishes = {0};
    const struct sdc_driver_disk_options setup = {.queues = 1, .request_max = BYTES};
    struct sdc_error err = {0};
    *load = (struct load){.check = check, .writes = writes};
    sdc_check_sent(check, "what a driver sends to use the disk");
    int fd = sdc_check_connect(check);
    sdc_check_must(check, sdc_vfio_client_open_fd(fd, check->options->socket, &options, &load->client, &err), &err, "VERSION");
    sdc_check_must(check, sdc_driver_disk_find(load->client, &wishes, &load->disk, &err), &err, "finding the disk");
    sdc_check_must(check, sdc_driver_disk_start(load->disk, &setup, &err), &err, "setting up a queue");
    sdc_check_must(check, sdc_client_memory_new(&load->memory, DATA_IOVA, DEPTH * BYTES, &err), &err, "memory");
    sdc_check_must(check, sdc_driver_disk_map(load->disk, &load->memory, &err), &err, "DMA_MAP");
    load->queue = sdc_driver_disk_queue(load->disk, 0);
    const struct sdc_driver_disk_info *info = sdc_driver_disk_info(load->disk);
    if (info->size < BYTES || BYTES % info->block_size != 0)
        sdc_check_not_offered(check, "the disk has %" PRIu64 " bytes in blocks of %" PRIu32, info->size, info->block_size);
    load->writes = writes && !info->read_only;
}

// Leaves requests with the device: DEPTH, or as many as its queue holds.
static void begin(struct load *load)
{
    const struct sdc_driver_disk_info *info = sdc_driver_disk_info(load->disk);
    struct sdc_error err = {0};
    for (unsigned i = 0; i < DEPTH; i++) {
        struct sdc_driver_disk_request *request = &load->requests[i];
        *request = (struct sdc_driver_disk_request){
            .op = load->writes && i % 2 == 1 ? SDC_DRIVER_DISK_WRITE : SDC_DRIVER_DISK_READ,
            .offset = (uint64_t)i * BYTES % (info->size / BYTES * BYTES),
            .size = BYTES,
            .data = DATA_IOVA + (uint64_t)i * BYTES,
        };
        if (sdc_driver_disk_submit(load->queue, &request, 1) != 1)
            break;
    }
    sdc_check_sent(load->check, "%d requests of %d bytes", DEPTH, BYTES);
    sdc_check_must(load->check, sdc_driver_disk_kick(load->queue, &err), &err, "notifying the device");
}

// Fails if the device writes to data that it has given up.
static void left_alone(struct load *load, const char *asked)
{
    memset(load->memory.base, PATTERN, DEPTH * BYTES);
    sdc_clock_pause(QUIET_MS * MS_NS);
    for (unsigned i = 0; i < DEPTH * BYTES; i++)
        sdc_check_that(load->check, load->memory.base[i] == PATTERN, "%s", asked);
}

// What the next one has to find: a disk that works.
static void works(struct sdc_check *check, bool writes)
{
    struct load load;
    open_load(&load, check, writes);
    for (unsigned i = 0; i < DEPTH; i++) {
        struct sdc_error err = {0};
        struct sdc_driver_disk_request request = {.op = SDC_DRIVER_DISK_READ, .size = BYTES, .data = DATA_IOVA};
        sdc_check_must(check, sdc_driver_disk_do(load.queue, &request, sdc_check_patience(check), &err), &err, "a read afterwards");
        sdc_check_that(check, request.result == 0, "a read afterwards succeeds (status 0x%x)", request.status);
    }
    sdc_driver_disk_close(load.disk);
    sdc_client_memory_free(&load.memory);
}

static void reset_with(struct sdc_check *check, bool writes)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct load load;
        struct sdc_vfio_device device;
        struct sdc_error err = {0};
        open_load(&load, check, writes);
        sdc_check_must(check, sdc_vfio_client_device(load.client, &device, &err), &err, "DEVICE_GET_INFO");
        if (!device.can_reset)
            sdc_check_not_offered(check, "the device has not the flag RESET");
        begin(&load);
        sdc_check_sent(check, "DEVICE_RESET with %d requests in flight", DEPTH);
        int ret = sdc_vfio_client_reset(load.client, &err);
        if (ret == -EBUSY)
            sdc_check_note(check, "DEVICE_RESET was answered EBUSY, as long as requests were in flight");
        else
            sdc_check_must(check, ret, &err, "DEVICE_RESET");
        if (ret == 0)
            left_alone(&load, "a device that was reset writes to no memory");
        sdc_driver_disk_close(load.disk);
        sdc_client_memory_free(&load.memory);
    }
    works(check, writes);
}

static void reset_with_reads(struct sdc_check *check)
{
    reset_with(check, false);
}

static void reset_with_writes(struct sdc_check *check)
{
    reset_with(check, true);
}

static void unmap_with_reads(struct sdc_check *check)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct load load;
        struct sdc_error err = {0};
        open_load(&load, check, false);
        begin(&load);
        sdc_check_sent(check, "DMA_UNMAP of the data with %d requests in flight", DEPTH);
        int ret = sdc_vfio_client_unmap(load.client, load.memory.iova, load.memory.size, &err);
        if (ret == -EBUSY)
            sdc_check_note(check, "DMA_UNMAP was answered EBUSY, as long as requests were in flight");
        else
            sdc_check_must(check, ret, &err, "DMA_UNMAP");
        if (ret == 0)
            left_alone(&load, "the server must release all references to the region before replying, in-flight DMA included");
        sdc_driver_disk_close(load.disk);
        sdc_client_memory_free(&load.memory);
    }
    works(check, false);
}

static void leave_with(struct sdc_check *check, bool writes)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct load load;
        struct sdc_check_vfio next;
        open_load(&load, check, writes);
        begin(&load);
        int fd = sdc_vfio_client_fd(load.client);
        sdc_fd_close(&fd); // as when a process is killed; what the library holds of it goes with this test
        sdc_check_vfio_open(&next, check);
        left_alone(&load, "all memory of a client that disconnects is unmapped; the device writes to it no more");
        sdc_check_vfio_close(&next);
    }
    works(check, writes);
}

static void leave_with_reads(struct sdc_check *check)
{
    leave_with(check, false);
}

static void leave_with_writes(struct sdc_check *check)
{
    leave_with(check, true);
}

static const struct sdc_check_test tests[] = {
    {"load/reset-with-reads", "vfio-user, VFIO_USER_DEVICE_RESET", SDC_CHECK_DISK, reset_with_reads},
    {"load/reset-with-writes", "vfio-user, VFIO_USER_DEVICE_RESET", SDC_CHECK_DISK | SDC_CHECK_DESTRUCTIVE, reset_with_writes},
    {"load/unmap-with-reads", "vfio-user, VFIO_USER_DMA_UNMAP", SDC_CHECK_DISK, unmap_with_reads},
    {"load/leave-with-reads", "vfio-user, Client Disconnection", SDC_CHECK_DISK, leave_with_reads},
    {"load/leave-with-writes", "vfio-user, Client Disconnection", SDC_CHECK_DISK | SDC_CHECK_DESTRUCTIVE, leave_with_writes},
};

const struct sdc_check_table sdc_check_vfio_load = {tests, SDC_COUNT(tests)};
