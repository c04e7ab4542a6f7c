// SPDX-License-Identifier: BSD-3-Clause
// Clients that come, go, and misbehave: whatever one of them does, the next one is served.
#include "cli/check/vfio.h"

#include "base/check.h"
#include "os/fd.h"
#include "os/memfd.h"
#include "os/socket.h"
#include "os/wait.h"

#include <inttypes.h>
#include <string.h>

#define DISCONNECTION "vfio-user, Client Disconnection"
#define SECURITY "vfio-user, Security Considerations"

enum {
    PAGE = 4096,
    CLIENTS = 20,
    UNREAD = 2000, // commands whose replies nobody reads
};

static void one_after_the_other(struct sdc_check *check)
{
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct sdc_check_vfio vfio;
        if (i % 2 == 0)
            sdc_check_vfio_open(&vfio, check);
        else
            sdc_check_vfio_connect(&vfio, check); // and goes without a word
        sdc_check_vfio_close(&vfio);
    }
}

// Goes after `bytes` bytes of a command with an fd; VERSION comes before it or is the command.
static void leave_within(struct sdc_check *check, bool after_version, const struct sdc_check_command *command, size_t bytes)
{
    struct sdc_check_vfio vfio;
    if (after_version)
        sdc_check_vfio_open(&vfio, check);
    else
        sdc_check_vfio_connect(&vfio, check);
    uint8_t *laid_out = sdc_check_vfio_lay_out(&vfio, command);
    sdc_check_vfio_send_bytes(&vfio, laid_out, bytes, command->fds, command->fds_count);
    sdc_check_vfio_close(&vfio);
}

static void leave_anywhere(struct sdc_check *check)
{
    static const char version[] = "\0\0\0\0{\"capabilities\":{}}";
    struct sdc_check_command hello = {.command = SDC_VFU_VERSION, .payload = version, .size = sizeof version};
    for (size_t bytes = 1; bytes <= sizeof(struct sdc_vfu_header) + hello.size; bytes += 3)
        leave_within(check, false, &hello, bytes);
    int fd = sdc_memfd_new("sidecard-check", PAGE);
    struct sdc_vfu_dma_map map = {.argsz = sizeof map, .flags = 3, .address = PAGE, .size = PAGE};
    struct sdc_check_command command = {.command = SDC_VFU_DMA_MAP, .payload = &map, .size = sizeof map, .fds = &fd, .fds_count = 1};
    for (size_t bytes = 1; bytes <= sizeof(struct sdc_vfu_header) + command.size; bytes += 3)
        leave_within(check, true, &command, bytes);
}

static void replies_unread(struct sdc_check *check)
{
    struct sdc_vfu_device_info info = {.argsz = sizeof info};
    struct sdc_check_command command = {.command = SDC_VFU_GET_INFO, .payload = &info, .size = sizeof info};
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    uint8_t *bytes = sdc_check_vfio_lay_out(&vfio, &command);
    struct iovec iov = {.iov_base = bytes, .iov_len = sizeof(struct sdc_vfu_header) + sizeof info};
    // A server that waits for its replies to be read takes no more at some point; that is its right.
    for (unsigned i = 0; i < UNREAD && sdc_socket_send(vfio.fd, &iov, 1, NULL, 0) == (ssize_t)iov.iov_len; i++)
        ;
    sdc_check_vfio_close(&vfio);
}

// Another client comes while one is there: it may be refused, or wait. The first one is served as before.
static void second_client(struct sdc_check *check)
{
    struct sdc_vfu_version version = {0, 0};
    struct sdc_check_vfio first, second;
    struct sdc_error err;
    if (check->options->restarts)
        sdc_check_not_offered(check, "the server ends with its client");
    sdc_check_vfio_open(&first, check);
    second = (struct sdc_check_vfio){.check = check, .fd = sdc_socket_connect(check->options->socket, 100, &err)};
    sdc_check_vfio_fence(&first);
    if (second.fd < 0)
        return;
    uint16_t id =
        sdc_check_vfio_send(&second, &(struct sdc_check_command){.command = SDC_VFU_VERSION, .payload = &version, .size = sizeof version});
    for (unsigned i = 0; i < 3; i++)
        sdc_check_vfio_fence(&first);
    sdc_check_vfio_close(&first);
    struct sdc_check_reply reply;
    if (sdc_check_vfio_await(&second, id, SDC_VFU_VERSION, &reply) == SDC_CHECK_SILENCE)
        sdc_check_fail(check, "the connection was taken: VERSION has to be answered once the first client has gone");
}

// A client does not get the connection's other end by giving the server its own: it has gone when it closes it.
static void own_socket(struct sdc_check *check, bool as_memory)
{
    struct sdc_vfu_dma_map map = {.argsz = sizeof map, .flags = 3, .address = PAGE, .size = PAGE};
    struct sdc_vfu_set_irqs irq = {.argsz = sizeof irq, .flags = SDC_VFU_IRQ_DATA_EVENTFD | SDC_VFU_IRQ_ACTION_TRIGGER, .count = 1};
    struct sdc_check_vfio vfio;
    sdc_check_vfio_open(&vfio, check);
    uint32_t types = sdc_check_vfio_info(&vfio).num_irqs;
    while (!as_memory && irq.index < types && sdc_check_vfio_irq(&vfio, irq.index).count == 0)
        irq.index++;
    int socket = vfio.fd;
    struct sdc_check_command command = {.fds = &socket, .fds_count = 1};
    command.command = as_memory ? SDC_VFU_DMA_MAP : SDC_VFU_SET_IRQS;
    command.payload = as_memory ? (const void *)&map : &irq;
    command.size = as_memory ? sizeof map : sizeof irq;
    struct sdc_check_reply reply;
    uint16_t id = sdc_check_vfio_send(&vfio, &command);
    sdc_check_vfio_await(&vfio, id, command.command, &reply);
}

static void socket_as_memory(struct sdc_check *check)
{
    own_socket(check, true);
}

static void socket_as_eventfd(struct sdc_check *check)
{
    own_socket(check, false);
}

// Noise from a fixed seed, so that it can be had again.
static void noise(struct sdc_check *check)
{
    uint32_t state = UINT32_C(2463534242);
    for (unsigned round = 0; round < 40; round++) {
        struct sdc_check_vfio vfio;
        sdc_check_vfio_open(&vfio, check);
        for (unsigned i = 0; i < 16; i++) {
            uint32_t words[12];
            for (size_t j = 0; j < SDC_COUNT(words); j++) {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                // Small numbers say more than large ones.
                words[j] = state % 3 == 0 ? state : state >> 8 & 0x3f;
            }
            uint16_t command = (uint16_t)(state >> 20 & 31);
            // What resets or stops the device is tested elsewhere; here the next message has to say something.
            struct sdc_check_command any = {.command = command, .payload = words, .size = state >> 4 & 0x2c};
            sdc_check_vfio_send(&vfio, &any);
        }
        sdc_check_vfio_close(&vfio);
    }
}

static const struct sdc_check_test tests[] = {
    {"session/one-after-the-other", DISCONNECTION, 0, one_after_the_other},
    {"session/leave-anywhere", DISCONNECTION, 0, leave_anywhere},
    {"session/replies-unread", DISCONNECTION, 0, replies_unread},
    {"session/second-client", "vfio-user, Socket", 0, second_client},
};

const struct sdc_check_table sdc_check_vfio_session = {tests, SDC_COUNT(tests)};

// The last ones: a server may not get over them.
static const struct sdc_check_test hostile[] = {
    {"hostile/noise", SECURITY, 0, noise},
    {"hostile/own-socket-as-memory", SECURITY, 0, socket_as_memory},
    {"hostile/own-socket-as-eventfd", SECURITY, 0, socket_as_eventfd},
};

const struct sdc_check_table sdc_check_vfio_hostile = {hostile, SDC_COUNT(hostile)};
