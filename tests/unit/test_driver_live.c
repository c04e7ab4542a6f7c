// SPDX-License-Identifier: BSD-3-Clause
// The driver against the server, in a process of its own: the whole way over vfio-user and virtio over PCI to
// a disk and back, over split and packed rings of many sizes, and with queues that are reset while others go
// on.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/check.h"
#include "control/server.h"
#include "driver/blk.h"
#include "driver/virtio_pci.h"
#include "os/clock.h"

#include <sidecard/virtio.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define DATA_IOVA (UINT64_C(1) << 32)
#define TIMEOUT_NS (UINT64_C(20) * 1000 * 1000 * 1000)

// Each queue has blocks and memory of its own: that one queue's request is over before the other one's
// begins, only this process knows, not what watches the server for races.
enum { QUEUES = 2, BLOCK = 4096, BLOCKS = 128, PART = BLOCK * BLOCKS, DISK = QUEUES * PART, DEPTH = 64 };

// Each test is run with rings of both formats, in order and not; this is its state: what is left alone.
static uint64_t formats[] = {
    SDC_VIRTIO_F_RING_PACKED | SDC_VIRTIO_F_IN_ORDER, SDC_VIRTIO_F_IN_ORDER, SDC_VIRTIO_F_RING_PACKED, 0};

static bool is_packed(void **state)
{
    return !(*(uint64_t *)*state & SDC_VIRTIO_F_RING_PACKED);
}

// --- the server ---

struct server {
    char folder[32];
    char path[64];
    char image[64];
    pid_t pid;
};

// Half of the formats meet a server that is turned by a loop of the test's own, whose queues look for a while before they sleep.
static bool is_outside(void **state)
{
    return *(uint64_t *)*state & SDC_VIRTIO_F_IN_ORDER;
}

static int turn(struct sdc_server *server)
{
    int rc;

    do {
        struct pollfd waiting = {.fd = sdc_server_fd(server, NULL), .events = POLLIN};
        poll(&waiting, 1, -1);
        rc = sdc_server_process(server, NULL);
    } while (rc == SDC_SERVER_WAITS || rc == SDC_SERVER_GOES_ON);
    return rc == SDC_SERVER_ENDED ? 0 : -1;
}

// In the child: serves a disk with two queues on two threads at the listening socket until SIGTERM.
static int serve(int listener, const char *backend, bool outside)
{
    char name[16];
    struct sdc_server *server;
    struct sdc_serve_options options = {
        .socket = name,
        .device = "virtio-blk",
        .card = {.queues = QUEUES,
                 .queue_size = 256,
                 .write_cache = true,
                 .packed = true,
                 .in_order = true,
                 .backends = &(struct sdc_card_backend){.name = backend},
                 .backends_count = 1,
                 .poll = outside ? SDC_POLL_ADAPTIVE : SDC_POLL_NEVER},
        .listen = {.mode = -1, .owner = (uid_t)-1, .group = (gid_t)-1},
    };
    snprintf(name, sizeof name, "fd:%d", listener);
    int ret = sdc_server_new(&(struct sdc_server_options){.threads = 2, .take_signals = true}, &server, NULL);
    if (ret == 0)
        ret = sdc_server_add(server, &options, NULL);
    if (ret == 0)
        ret = outside ? turn(server) : sdc_server_run(server, NULL);
    sdc_server_free(server);
    return ret == 0 ? 0 : 1;
}

// A disk of memory, or in a file, whose requests take their time. The socket listens before there is a
// server: who connects waits for it.
static void start_server(struct server *server, bool file, bool outside)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(server->folder, "/tmp/sidecard-live.XXXXXX");
    assert_non_null(mkdtemp(server->folder));
    snprintf(server->path, sizeof server->path, "%s/s", server->folder);
    strcpy(address.sun_path, server->path);
    snprintf(server->image, sizeof server->image, "%s/image", server->folder);
    int image = open(server->image, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    assert_true(image >= 0);
    assert_int_equal(ftruncate(image, DISK), 0);
    close(image);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_true(listener >= 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 4), 0);
    server->pid = fork();
    assert_true(server->pid >= 0);
    if (server->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); // it does not outlive a test that failed
        _exit(serve(listener, file ? server->image : "ram:1M", outside));
    }
    close(listener);
}

static void stop_server(struct server *server)
{
    int status;
    kill(server->pid, SIGTERM);
    assert_int_equal(waitpid(server->pid, &status, 0), server->pid);
    assert_int_equal(status, 0);
    unlink(server->path);
    unlink(server->image);
    rmdir(server->folder);
}

// --- a disk of it ---

struct disk {
    struct sdc_driver_disk *blk;
    struct sdc_client_memory data; // the disk as it should be, then as it is
};

// How to connect, and by which way to notify.
struct way {
    struct sdc_vfio_client_options connect;
    enum sdc_driver_notify notify;
};

static void open_disk_by(struct disk *disk, const struct server *server, const struct way *way, uint64_t without,
                         const struct sdc_driver_disk_options *options)
{
    struct sdc_vfio_client *client;
    struct sdc_driver_transport *transport;
    struct sdc_error err = {0};
    int ret = sdc_vfio_client_open(server->path, &way->connect, &client, &err);
    if (ret == 0 && way->connect.twin_socket != sdc_vfio_client_session(client)->twin_socket)
        fail_msg("the server makes no twin socket");
    if (ret == 0)
        ret = sdc_driver_virtio_pci_open(client, &transport, &err);
    if (ret == 0)
        sdc_driver_virtio_pci_notify_by(transport, way->notify);
    if (ret == 0)
        ret = sdc_driver_blk_open(transport, without, &disk->blk, &err);
    if (ret == 0)
        ret = sdc_driver_disk_start(disk->blk, options, &err);
    if (ret == 0)
        ret = sdc_client_memory_new_kind(&disk->data, options->memory, DATA_IOVA, 2 * DISK, &err);
    if (ret == 0)
        ret = sdc_driver_disk_map(disk->blk, &disk->data, &err);
    if (ret < 0)
        fail_msg("%s", err.text);
}

static void open_disk(struct disk *disk, const struct server *server, uint64_t without,
                      const struct sdc_driver_disk_options *options)
{
    static const struct way usual;
    open_disk_by(disk, server, &usual, without, options);
}

static void close_disk(struct disk *disk)
{
    sdc_driver_disk_close(disk->blk);
    sdc_client_memory_free(&disk->data);
}

static struct sdc_driver_disk_request block_request(uint16_t queue, bool write, unsigned block)
{
    uint64_t offset = (uint64_t)queue * PART + (uint64_t)block * BLOCK;
    return (struct sdc_driver_disk_request){.op = write ? SDC_DRIVER_DISK_WRITE : SDC_DRIVER_DISK_READ,
                                           .offset = offset,
                                           .size = BLOCK,
                                           .data = DATA_IOVA + offset + (write ? 0 : DISK)};
}

// Takes back all that are in flight.
static void take_all(struct disk *disk, uint16_t index, bool poll, unsigned in_flight)
{
    struct sdc_driver_disk_queue *queue = sdc_driver_disk_queue(disk->blk, index);
    struct sdc_driver_disk_request *finished[DEPTH];
    struct sdc_error err = {0};
    uint64_t deadline_ns = sdc_clock_ns() + TIMEOUT_NS;
    while (in_flight > 0) {
        assert_true(sdc_clock_ns() < deadline_ns);
        int count = sdc_driver_disk_take(queue, finished, DEPTH, &err);
        if (count < 0)
            fail_msg("%s", err.text);
        for (int i = 0; i < count; i++)
            assert_int_equal(finished[i]->result, 0);
        in_flight -= (unsigned)count;
        if (count == 0 && !poll)
            assert_int_equal(sdc_driver_disk_wait(queue, 10000, &err), 1);
    }
}

// Writes or reads all blocks of a queue, as many at a time as the queue takes.
static void do_all(struct disk *disk, uint16_t index, bool poll, bool write)
{
    struct sdc_driver_disk_queue *queue = sdc_driver_disk_queue(disk->blk, index);
    struct sdc_driver_disk_request requests[BLOCKS], *list[BLOCKS];
    for (unsigned done = 0; done < BLOCKS;) {
        for (unsigned i = done; i < BLOCKS; i++) {
            requests[i] = block_request(index, write, i);
            list[i] = &requests[i];
        }
        int taken = sdc_driver_disk_submit(queue, list + done, BLOCKS - done);
        assert_true(taken > 0);
        assert_true(sdc_driver_disk_kick(queue, NULL) >= 0);
        take_all(disk, index, poll, (unsigned)taken);
        done += (unsigned)taken;
    }
}

static void write_and_compare(struct disk *disk, uint16_t index, bool poll, uint8_t seed)
{
    uint8_t *wanted = disk->data.base + (size_t)index * PART, *found = wanted + DISK;
    for (unsigned i = 0; i < PART; i++)
        wanted[i] = (uint8_t)(i * 7 + i / BLOCK * 13 + seed);
    memset(found, 0, PART);
    do_all(disk, index, poll, true);
    do_all(disk, index, poll, false);
    assert_memory_equal(wanted, found, PART);
}

static void data_comes_back_over_rings_of_any_size(void **state)
{
    static const struct {
        uint16_t size;
        uint64_t without; // with indirect tables, no chain may be longer than the ring
    } cases[] = {
        {4, 0},
        {16, SDC_VIRTIO_F_INDIRECT_DESC},
        {256, SDC_VIRTIO_F_EVENT_IDX},
        {0, 0},
        {1, 0}, // from here on packed rings alone
        {3, 0},
        {3, SDC_VIRTIO_F_INDIRECT_DESC | SDC_VIRTIO_F_EVENT_IDX},
        {7, SDC_VIRTIO_F_INDIRECT_DESC},
        {100, 0},
        {255, SDC_VIRTIO_F_INDIRECT_DESC},
    };
    struct server server;
    start_server(&server, false, is_outside(state));
    for (unsigned i = 0; i < (is_packed(state) ? SDC_COUNT(cases) : 4); i++) {
        struct disk disk;
        struct sdc_driver_disk_options options = {.queue_size = cases[i].size,
                                                 .queues = QUEUES,
                                                 .request_max = BLOCK,
                                                 .poll = i % 3 == 1};
        open_disk(&disk, &server, *(uint64_t *)*state | cases[i].without, &options);
        const struct sdc_driver_disk_info *info = sdc_driver_disk_info(disk.blk);
        assert_int_equal(info->virtio.packed, is_packed(state));
        assert_int_equal(info->virtio.features & *(uint64_t *)*state, 0);
        assert_int_equal(info->queue_size, cases[i].size ? cases[i].size : 256);
        for (uint16_t index = 0; index < QUEUES; index++)
            write_and_compare(&disk, index, options.poll, (uint8_t)(i + 100 * index));
        assert_int_equal(sdc_driver_disk_check(disk.blk, NULL), 0);
        close_disk(&disk);
    }
    stop_server(&server);
}

static void a_queue_is_reset_while_the_other_goes_on(void **state)
{
    struct server server;
    start_server(&server, true, is_outside(state));
    for (unsigned poll = 0; poll < 2; poll++) {
        struct disk disk;
        struct sdc_driver_disk_options options = {
            .queues = QUEUES, .depth = DEPTH, .request_max = BLOCK, .poll = poll};
        struct sdc_driver_disk_request requests[QUEUES][DEPTH], *list[QUEUES][DEPTH];
        open_disk(&disk, &server, *(uint64_t *)*state, &options);
        for (unsigned round = 0; round < 40; round++) {
            // Both have requests in flight; those of the first are given up wherever they are.
            for (uint16_t index = 0; index < QUEUES; index++) {
                for (unsigned i = 0; i < DEPTH; i++) {
                    requests[index][i] = block_request(index, false, i);
                    list[index][i] = &requests[index][i];
                }
                struct sdc_driver_disk_queue *queue = sdc_driver_disk_queue(disk.blk, index);
                assert_int_equal(sdc_driver_disk_submit(queue, list[index], DEPTH), DEPTH);
                assert_true(sdc_driver_disk_kick(queue, NULL) >= 0);
            }
            struct sdc_error err = {0};
            if (sdc_driver_disk_reset_queue(disk.blk, 0, &err) < 0)
                fail_msg("%s", err.text);
            take_all(&disk, 1, poll, DEPTH);
            for (uint16_t index = 0; index < QUEUES && round % 8 == 0; index++)
                write_and_compare(&disk, index, poll, (uint8_t)(round + index));
        }
        assert_int_equal(sdc_driver_disk_check(disk.blk, NULL), 0);
        close_disk(&disk);
    }
    stop_server(&server);
}

#define ALL(test)                                                  \
    {#test " (split)", test, NULL, NULL, &formats[0]},             \
    {#test " (packed)", test, NULL, NULL, &formats[1]},            \
    {#test " (split, in order)", test, NULL, NULL, &formats[2]},   \
    {                                                              \
        #test " (packed, in order)", test, NULL, NULL, &formats[3] \
    }

// No byte of memory is shared: rings, headers and data all go by messages, over either socket, in the layout of either
// kind of client; and whatever the memory is, each way to notify does.
static void data_comes_back_over_memory_that_is_not_shared(void **state)
{
    static const struct {
        struct way way;
        bool private, poll;
        const char *notified_by;
    } cases[] = {
        {{{0}, SDC_DRIVER_NOTIFY_AUTO}, true, false, "ioeventfd"},
        {{{0}, SDC_DRIVER_NOTIFY_MESSAGE}, true, true, "message"},
        {{{.twin_socket = true}, SDC_DRIVER_NOTIFY_MESSAGE}, true, false, "message"},
        {{{.twin_socket = true}, SDC_DRIVER_NOTIFY_IOEVENTFD}, true, true, "ioeventfd"},
        {{{.dma_count_32 = true}, SDC_DRIVER_NOTIFY_AUTO}, true, false, "ioeventfd"},
        {{{.max_data_transfer = 1000}, SDC_DRIVER_NOTIFY_AUTO}, true, false, "ioeventfd"},
        {{{.twin_socket = true}, SDC_DRIVER_NOTIFY_IOEVENTFD}, false, false, "ioeventfd"},
        {{{0}, SDC_DRIVER_NOTIFY_MESSAGE}, false, true, "message"},
    };
    struct server server;
    start_server(&server, false, is_outside(state));
    for (unsigned i = 0; i < SDC_COUNT(cases); i++) {
        struct disk disk;
        struct sdc_driver_disk_options options = {
            .queues = QUEUES, .request_max = BLOCK, .poll = cases[i].poll,
            .memory = cases[i].private ? SDC_CLIENT_MEMORY_PRIVATE : SDC_CLIENT_MEMORY_SHARED};
        open_disk_by(&disk, &server, &cases[i].way, *(uint64_t *)*state, &options);
        assert_string_equal(sdc_driver_disk_info(disk.blk)->notified_by, cases[i].notified_by);
        for (uint16_t queue = 0; queue < QUEUES; queue++)
            write_and_compare(&disk, queue, options.poll, (uint8_t)(i + queue));
        close_disk(&disk);
    }
    stop_server(&server);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        ALL(data_comes_back_over_rings_of_any_size),
        ALL(a_queue_is_reset_while_the_other_goes_on),
        ALL(data_comes_back_over_memory_that_is_not_shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
