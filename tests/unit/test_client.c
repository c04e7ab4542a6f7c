// SPDX-License-Identifier: BSD-3-Clause
// The vfio-user client against a server that does what the test says, good and bad.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fake_server.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define OPEN(server, client)                                                 \
    struct sdc_vfio_client *client;                                          \
    struct sdc_error err = {0};                                              \
    static const struct sdc_vfio_client_options quick = {.timeout_ms = 300}; \
    assert_int_equal(fake_open(&server, &quick, &client, &err), 0)

static unsigned open_fds(void)
{
    unsigned count = 0;
    DIR *directory = opendir("/proc/self/fd");
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

static bool never_answer(struct fake_server *server, struct fake_message *message)
{
    (void)server, (void)message;
    return true;
}

static bool hang_up(struct fake_server *server, struct fake_message *message)
{
    (void)server, (void)message;
    return false;
}

static bool echo(struct fake_server *server, struct fake_message *message)
{
    fake_reply(server, message, message->payload, message->size, NULL, 0);
    return true;
}

// --- opening ---

static void opening_agrees_on_the_smaller_limits(void **state)
{
    (void)state;
    struct fake_server server = {.message = never_answer};
    OPEN(server, client);
    const struct sdc_vfio_client_session *session = sdc_vfio_client_session(client);
    assert_int_equal(session->max_message_fds, 4);
    assert_int_equal(session->max_data_transfer, 4096);
    assert_int_equal(session->max_dma_maps, 65535);
    fake_close(&server, client);
}

static void a_server_without_json_has_the_defaults(void **state)
{
    (void)state;
    struct fake_server server = {.message = never_answer, .version_json = ""};
    OPEN(server, client);
    const struct sdc_vfio_client_session *session = sdc_vfio_client_session(client);
    assert_int_equal(session->max_message_fds, 1);
    assert_int_equal(session->max_data_transfer, 1024 * 1024);
    assert_int_equal(session->page_sizes, 4096);
    fake_close(&server, client);
}

static void open_fails(struct fake_server *server, int code, const char *text)
{
    struct sdc_vfio_client *client;
    struct sdc_error err = {0};
    static const struct sdc_vfio_client_options quick = {.timeout_ms = 100};
    assert_int_equal(fake_open(server, &quick, &client, &err), code);
    assert_non_null(strstr(err.text, text));
    assert_int_equal(err.code, code);
    fake_close(server, NULL);
}

static void a_silent_server_may_have_another_client(void **state)
{
    (void)state;
    struct fake_server server = {.message = never_answer, .own_version = true};
    open_fails(&server, -ETIMEDOUT, "another client may be connected");
}

static void a_server_that_hangs_up_on_version(void **state)
{
    (void)state;
    struct fake_server server = {.message = hang_up, .own_version = true};
    open_fails(&server, -ECONNRESET, "instead of answering VERSION");
}

static void bad_json_is_refused(void **state)
{
    (void)state;
    struct fake_server server = {.message = never_answer,
                                 .version_json = "{\"capabilities\":{\"max_msg_fds\":0}}"};
    open_fails(&server, -EPROTO, "max_msg_fds");
}

static bool answer_version_of_context(struct fake_server *server, struct fake_message *message)
{
    fake_reply(server, message, server->context, sizeof(struct sdc_vfu_version), NULL, 0);
    return true;
}

static void a_newer_version_is_refused(void **state)
{
    (void)state;
    struct sdc_vfu_version newer[] = {{0, 1}, {1, 0}};
    for (unsigned i = 0; i < 2; i++) {
        struct fake_server server = {.message = answer_version_of_context,
                                     .own_version = true,
                                     .context = &newer[i]};
        open_fails(&server, -EPROTO, i == 0 ? "with 0.1" : "with 1.0");
    }
}

static void a_path_without_server_is_named(void **state)
{
    (void)state;
    struct sdc_vfio_client *client;
    struct sdc_error err = {0};
    assert_int_equal(sdc_vfio_client_open("/nonexistent/x.sock", NULL, &client, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nonexistent/x.sock"));
}

// --- replies ---

static void a_reply_may_be_empty(void **state)
{
    (void)state;
    struct fake_server server = {.message = echo};
    OPEN(server, client);
    struct sdc_vfio_device device;
    struct sdc_vfio_reply reply;
    assert_int_equal(sdc_vfio_client_device(client, &device, &err), 0); // 16 bytes back
    struct sdc_vfio_command reset = {.command = SDC_VFU_RESET};
    struct sdc_vfio_call *call;
    assert_int_equal(sdc_vfio_client_send(client, &reset, &call, &err), 0);
    assert_int_equal(sdc_vfio_client_wait(client, call, &reply, &err), 0);
    assert_int_equal(reply.size, 0);
    sdc_vfio_reply_release(&reply);
    fake_close(&server, client);
}

static bool reply_of_eight_bytes(struct fake_server *server, struct fake_message *message)
{
    fake_reply(server, message, message->payload, 8, NULL, 0);
    return true;
}

static void each_kind_of_reply_has_its_length_checked(void **state)
{
    (void)state;
    struct fake_server server = {.message = reply_of_eight_bytes};
    OPEN(server, client);
    struct sdc_vfio_device device;
    struct sdc_vfio_region region;
    struct sdc_vfio_irq irq;
    uint32_t word = 0;
    assert_int_equal(sdc_vfio_client_device(client, &device, &err), -EPROTO);
    assert_non_null(strstr(err.text, "GET_INFO has 8 bytes, at least 16"));
    assert_int_equal(sdc_vfio_client_region(client, 0, &region, &err), -EPROTO);
    assert_int_equal(sdc_vfio_client_irq(client, 0, &irq, &err), -EPROTO);
    assert_int_equal(sdc_vfio_client_read(client, 0, 0, &word, sizeof word, &err), -EPROTO);
    assert_int_equal(sdc_vfio_client_write(client, 0, 0, &word, sizeof word, &err), -EPROTO);
    assert_int_equal(sdc_vfio_client_unmap(client, 0, 4096, &err), -EPROTO);
    fake_close(&server, client);
}

static bool reply_with_errors(struct fake_server *server, struct fake_message *message)
{
    static const uint32_t errors[] = {ENOSPC, 0, 99999};
    fake_reply_error(server, message, errors[message->header.msg_id % 3]);
    return true;
}

static void error_replies_become_their_errno(void **state)
{
    (void)state;
    struct fake_server server = {.message = reply_with_errors};
    OPEN(server, client);
    // VERSION had id 0.
    assert_int_equal(sdc_vfio_client_reset(client, &err), -EIO); // 0
    assert_int_equal(sdc_vfio_client_reset(client, &err), -EIO); // no errno at all
    assert_int_equal(sdc_vfio_client_reset(client, &err), -ENOSPC);
    assert_non_null(strstr(err.text, "refused DEVICE_RESET: No space left"));
    fake_close(&server, client);
}

// Holds every message until the third, then answers in reverse.
static bool reply_in_reverse(struct fake_server *server, struct fake_message *message)
{
    static struct fake_message held[3];
    static unsigned count;
    held[count++] = *message;
    while (count >= 3) {
        for (unsigned i = 3; i-- > 0;)
            fake_reply(server, &held[i], held[i].payload, held[i].size, NULL, 0);
        count = 0;
    }
    return true;
}

static void replies_are_matched_by_id(void **state)
{
    (void)state;
    struct fake_server server = {.message = reply_in_reverse};
    OPEN(server, client);
    struct sdc_vfio_call *calls[3];
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t head[4] = {16, 0, i, 0};
        struct sdc_vfio_command command = {.command = SDC_VFU_GET_IRQ_INFO,
                                           .head = head,
                                           .head_size = sizeof head};
        assert_int_equal(sdc_vfio_client_send(client, &command, &calls[i], &err), 0);
    }
    for (uint32_t i = 0; i < 3; i++) {
        struct sdc_vfio_reply reply;
        uint32_t head[4];
        assert_int_equal(sdc_vfio_client_wait(client, calls[i], &reply, &err), 0);
        assert_int_equal(reply.size, sizeof head);
        memcpy(head, reply.payload, sizeof head);
        assert_int_equal(head[2], i);
        sdc_vfio_reply_release(&reply);
    }
    fake_close(&server, client);
}

// Answers everything one message late.
static bool reply_late(struct fake_server *server, struct fake_message *message)
{
    struct fake_message *last = server->context;
    if (last->header.cmd != 0)
        fake_reply(server, last, last->payload, last->size, NULL, 0);
    if (message->header.cmd == SDC_VFU_RESET)
        *last = *message;
    else
        fake_reply(server, message, message->payload, message->size, NULL, 0);
    return true;
}

static void a_late_reply_is_dropped_and_the_connection_goes_on(void **state)
{
    (void)state;
    struct fake_message *last = calloc(1, sizeof *last);
    struct fake_server server = {.message = reply_late, .context = last};
    OPEN(server, client);
    struct sdc_vfio_device device;
    assert_int_equal(sdc_vfio_client_reset(client, &err), -ETIMEDOUT);
    assert_non_null(strstr(err.text, "did not answer DEVICE_RESET within 300 ms"));
    assert_int_equal(sdc_vfio_client_device(client, &device, &err), 0);
    fake_close(&server, client);
    free(last);
}

static bool reply_to_another_command(struct fake_server *server, struct fake_message *message)
{
    message->header.cmd = SDC_VFU_VERSION;
    fake_reply(server, message, NULL, 0, NULL, 0);
    return true;
}

static void a_reply_to_another_command_ends_the_connection(void **state)
{
    (void)state;
    struct fake_server server = {.message = reply_to_another_command};
    OPEN(server, client);
    struct sdc_vfio_device device;
    assert_int_equal(sdc_vfio_client_reset(client, &err), -EPROTO);
    assert_non_null(strstr(err.text, "answered DEVICE_RESET with a reply to VERSION"));
    assert_int_equal(sdc_vfio_client_device(client, &device, &err), -EPROTO); // and stays ended
    fake_close(&server, client);
}

// The context is the header to send instead of a reply.
static bool send_header_of_context(struct fake_server *server, struct fake_message *message)
{
    struct sdc_vfu_header header = *(struct sdc_vfu_header *)server->context;
    header.msg_id = message->header.msg_id;
    header.cmd = message->header.cmd;
    fake_send(server, &header, sizeof header, NULL, 0);
    return true;
}

static void impossible_headers_end_the_connection(void **state)
{
    (void)state;
    struct sdc_vfu_header headers[] = {
        {.msg_size = 0, .flags = SDC_VFU_TYPE_REPLY},
        {.msg_size = 15, .flags = SDC_VFU_TYPE_REPLY},
        {.msg_size = UINT32_MAX, .flags = SDC_VFU_TYPE_REPLY},
        {.msg_size = 4 * 1024 * 1024, .flags = SDC_VFU_TYPE_REPLY},
        {.msg_size = 16, .flags = 2},
        {.msg_size = 16, .flags = 15},
    };
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        struct fake_server server = {.message = send_header_of_context, .context = &headers[i]};
        OPEN(server, client);
        assert_int_equal(sdc_vfio_client_reset(client, &err), -EPROTO);
        fake_close(&server, client);
    }
}

static bool reply_byte_by_byte(struct fake_server *server, struct fake_message *message)
{
    uint8_t bytes[32];
    message->header.flags = SDC_VFU_TYPE_REPLY;
    memcpy(bytes, &message->header, 16);
    memcpy(bytes + 16, message->payload, 16);
    for (size_t i = 0; i < sizeof bytes; i++) {
        fake_send(server, bytes + i, 1, NULL, 0);
        usleep(200);
    }
    return true;
}

static void a_reply_may_come_in_pieces(void **state)
{
    (void)state;
    struct fake_server server = {.message = reply_byte_by_byte};
    OPEN(server, client);
    struct sdc_vfio_irq irq;
    assert_int_equal(sdc_vfio_client_irq(client, 3, &irq, &err), 0);
    assert_int_equal(irq.index, 3);
    fake_close(&server, client);
}

static void when_the_server_goes_away_everything_fails_alike(void **state)
{
    (void)state;
    struct fake_server server = {.message = hang_up};
    OPEN(server, client);
    struct sdc_vfio_device device;
    uint16_t value = 0;
    assert_int_equal(sdc_vfio_client_reset(client, &err), -ECONNRESET);
    assert_non_null(strstr(err.text, "closed the connection"));
    assert_int_equal(sdc_vfio_client_device(client, &device, &err), -ECONNRESET);
    assert_int_equal(sdc_vfio_client_post(client, 4, 0, &value, sizeof value, &err), -ECONNRESET);
    assert_int_equal(sdc_vfio_client_process(client, &err), -ECONNRESET);
    fake_close(&server, client);
}

// --- file descriptors ---

static bool reply_with_fds(struct fake_server *server, struct fake_message *message)
{
    int fds[32];
    int count = *(int *)server->context;
    for (int i = 0; i < count; i++)
        fds[i] = 0;
    fake_reply(server, message, message->payload, message->size, fds, count);
    return true;
}

static void fds_that_nobody_asked_for_are_closed(void **state)
{
    (void)state;
    int count = 5;
    unsigned before = open_fds();
    struct fake_server server = {.message = reply_with_fds, .context = &count};
    OPEN(server, client);
    struct sdc_vfio_device device;
    unsigned connected = open_fds();
    assert_int_equal(sdc_vfio_client_device(client, &device, &err), 0);
    assert_int_equal(sdc_vfio_client_reset(client, &err), 0);
    assert_int_equal(open_fds(), connected);
    count = 20;
    assert_int_equal(sdc_vfio_client_reset(client, &err), -EPROTO);
    assert_non_null(strstr(err.text, "file descriptors"));
    fake_close(&server, client);
    assert_int_equal(open_fds(), before);
}

static bool note_map(struct fake_server *server, struct fake_message *message)
{
    struct stat *seen = server->context;
    struct sdc_vfu_dma_map map;
    memcpy(&map, message->payload, sizeof map);
    bool good = message->header.cmd == SDC_VFU_DMA_MAP && message->size == sizeof map &&
                map.argsz == sizeof map && map.flags == (SDC_VFU_MAP_READ | SDC_VFU_MAP_WRITE) &&
                map.address == 0x100000 && map.size == 8192 && map.offset == 4096 &&
                message->fds_count == 1 && fstat(message->fds[0], seen) == 0;
    if (good)
        fake_reply(server, message, NULL, 0, NULL, 0);
    else
        fake_reply_error(server, message, EINVAL);
    return true;
}

static void memory_is_mapped_with_its_fd(void **state)
{
    (void)state;
    struct stat seen = {0}, own;
    struct fake_server server = {.message = note_map, .context = &seen};
    OPEN(server, client);
    struct sdc_client_memory memory;
    assert_int_equal(sdc_client_memory_new(&memory, 0x100000, 10000, &err), 0);
    assert_int_equal(memory.size, 12288);
    assert_int_equal(sdc_vfio_client_map(client, 0x100000, 8192, SDC_VFIO_MAP_READ | SDC_VFIO_MAP_WRITE,
                                         memory.fd, 4096, &err),
                     0);
    assert_int_equal(fstat(memory.fd, &own), 0);
    assert_int_equal(seen.st_ino, own.st_ino);
    sdc_client_memory_free(&memory);
    fake_close(&server, client);
}

// Writes down each SET_IRQS: flags, start, count, fds.
struct irqs_seen {
    struct sdc_vfu_set_irqs set[8];
    int fds[8];
    uint8_t bytes[8][4];
    unsigned count;
};
static bool note_irqs(struct fake_server *server, struct fake_message *message)
{
    struct irqs_seen *seen = server->context;
    memcpy(&seen->set[seen->count], message->payload, sizeof seen->set[0]);
    if (message->size > sizeof seen->set[0])
        memcpy(seen->bytes[seen->count], message->payload + sizeof seen->set[0],
               message->size - sizeof seen->set[0]);
    seen->fds[seen->count++] = message->fds_count;
    fake_reply(server, message, NULL, 0, NULL, 0);
    return true;
}

static void eventfds_go_in_batches_that_the_server_takes(void **state)
{
    (void)state;
    struct irqs_seen seen = {0};
    struct fake_server server = {.message = note_irqs, .context = &seen};
    int fds[10] = {0};
    static const unsigned counts[] = {4, 4, 2};
    OPEN(server, client);
    assert_int_equal(sdc_vfio_client_irq_eventfds(client, 2, SDC_VFIO_IRQ_TRIGGER, 1, 10, fds, &err), 0);
    assert_int_equal(seen.count, 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(seen.set[i].flags, SDC_VFU_IRQ_DATA_EVENTFD | SDC_VFU_IRQ_ACTION_TRIGGER);
        assert_int_equal(seen.set[i].index, 2);
        assert_int_equal(seen.set[i].start, 1 + 4 * i);
        assert_int_equal(seen.set[i].count, counts[i]);
        assert_int_equal(seen.fds[i], counts[i]);
    }
    fake_close(&server, client);
}

static void the_other_forms_of_set_irqs(void **state)
{
    (void)state;
    struct irqs_seen seen = {0};
    struct fake_server server = {.message = note_irqs, .context = &seen};
    static const uint8_t bools[3] = {1, 0, 1};
    OPEN(server, client);
    assert_int_equal(sdc_vfio_client_irq_none(client, 0, SDC_VFIO_IRQ_UNMASK, 0, 1, &err), 0);
    assert_int_equal(seen.set[0].flags, SDC_VFU_IRQ_DATA_NONE | SDC_VFU_IRQ_ACTION_UNMASK);
    assert_int_equal(seen.set[0].argsz, 20);
    assert_int_equal(sdc_vfio_client_irq_bools(client, 2, SDC_VFIO_IRQ_MASK, 5, 3, bools, &err), 0);
    assert_int_equal(seen.set[1].flags, SDC_VFU_IRQ_DATA_BOOL | SDC_VFU_IRQ_ACTION_MASK);
    assert_int_equal(seen.set[1].argsz, 23);
    assert_int_equal(seen.set[1].start, 5);
    assert_memory_equal(seen.bytes[1], bools, 3);
    assert_int_equal(sdc_vfio_client_irq_eventfds(client, 2, SDC_VFIO_IRQ_TRIGGER, 0, 10, NULL, &err), 0);
    assert_int_equal(seen.set[2].flags, SDC_VFU_IRQ_DATA_EVENTFD | SDC_VFU_IRQ_ACTION_TRIGGER);
    assert_int_equal(seen.set[2].count, 10);
    assert_int_equal(seen.fds[2], 0);
    fake_close(&server, client);
}

// --- regions ---

struct region_reply {
    struct sdc_vfu_region_info info;
    struct sdc_vfu_cap_sparse_mmap cap;
    struct sdc_vfu_mmap_area areas[2];
};

static bool reply_region(struct fake_server *server, struct fake_message *message)
{
    struct region_reply *whole = server->context;
    struct region_reply reply = *whole;
    struct sdc_vfu_region_info asked;
    memcpy(&asked, message->payload, sizeof asked);
    int fd = 0;
    if (asked.argsz >= sizeof reply) {
        fake_reply(server, message, &reply, sizeof reply, &fd, 1);
    } else {
        reply.info.flags &= ~(uint32_t)SDC_VFU_REGION_CAPS;
        fake_reply(server, message, &reply, sizeof reply.info, NULL, 0);
    }
    return true;
}

static const struct region_reply good_region = {
    .info = {.argsz = sizeof(struct region_reply), .flags = 15, .index = 4, .cap_offset = 32, .size = 0x4000},
    .cap = {.header = {.id = SDC_VFU_CAP_SPARSE_MMAP, .version = 1}, .nr_areas = 2},
    .areas = {{0x1000, 0x1000}, {0x3000, 0x1000}},
};

static void a_region_comes_with_its_areas_and_fd(void **state)
{
    (void)state;
    struct region_reply reply = good_region;
    struct fake_server server = {.message = reply_region, .context = &reply};
    OPEN(server, client);
    struct sdc_vfio_region region;
    assert_int_equal(sdc_vfio_client_region(client, 4, &region, &err), 0);
    assert_true(region.readable && region.writable && region.mappable);
    assert_int_equal(region.size, 0x4000);
    assert_int_equal(region.areas_count, 2);
    assert_int_equal(region.areas[1].offset, 0x3000);
    assert_true(region.fd > 0);
    sdc_vfio_region_release(&region);
    fake_close(&server, client);
}

static void broken_regions_are_refused(void **state)
{
    (void)state;
    struct region_reply cases[7];
    for (unsigned i = 0; i < 7; i++)
        cases[i] = good_region;
    cases[0].cap.header.next = 32;               // a loop
    cases[1].cap.header.next = 1000;             // outside
    cases[2].info.cap_offset = 8;                // inside the fixed part
    cases[3].cap.nr_areas = 3;                   // more than came
    cases[4].cap.nr_areas = UINT32_MAX;          // many more
    cases[5].areas[0].offset = UINT64_MAX - 100; // outside the region
    cases[6].info.index = 5;                     // another region's
    unsigned before = open_fds();
    for (unsigned i = 0; i < 7; i++) {
        struct fake_server server = {.message = reply_region, .context = &cases[i]};
        OPEN(server, client);
        struct sdc_vfio_region region;
        assert_int_equal(sdc_vfio_client_region(client, 4, &region, &err), -EPROTO);
        assert_non_null(strstr(err.text, "region 4"));
        fake_close(&server, client);
    }
    assert_int_equal(open_fds(), before);
}

// A region of 64 KiB of memory.
static bool serve_memory(struct fake_server *server, struct fake_message *message)
{
    uint8_t *memory = server->context;
    struct sdc_vfu_region_access access;
    static uint8_t reply[sizeof access + 65536];
    memcpy(&access, message->payload, sizeof access);
    memcpy(reply, &access, sizeof access);
    if (access.count > 4096 || access.offset + access.count > 65536) {
        fake_reply_error(server, message, EINVAL);
    } else if (message->header.cmd == SDC_VFU_REGION_READ) {
        memcpy(reply + sizeof access, memory + access.offset, access.count);
        fake_reply(server, message, reply, sizeof access + access.count, NULL, 0);
    } else {
        memcpy(memory + access.offset, message->payload + sizeof access, access.count);
        if (!(message->header.flags & SDC_VFU_NO_REPLY))
            fake_reply(server, message, reply, sizeof access, NULL, 0);
    }
    return true;
}

static void large_accesses_are_split(void **state)
{
    (void)state;
    uint8_t *memory = calloc(1, 65536), *data = malloc(65536), *back = malloc(65536);
    struct fake_server server = {.message = serve_memory, .context = memory};
    for (unsigned i = 0; i < 65536; i++)
        data[i] = (uint8_t)(i * 7 + i / 251);
    OPEN(server, client);
    assert_int_equal(sdc_vfio_client_write(client, 0, 3, data, 60001, &err), 0);
    assert_int_equal(sdc_vfio_client_read(client, 0, 3, back, 60001, &err), 0);
    assert_memory_equal(data, back, 60001);
    assert_memory_equal(memory + 3, data, 60001);
    assert_int_equal(atomic_load(&server.messages), 1 + 15 + 15);
    // Past the end: the error, and the replies that were still due disturb nobody.
    assert_int_equal(sdc_vfio_client_read(client, 0, 32768, back, 65536, &err), -EINVAL);
    assert_int_equal(sdc_vfio_client_read(client, 0, 3, back, 16, &err), 0);
    assert_int_equal(sdc_vfio_client_read(client, 0, UINT64_MAX, back, 16, &err), -EINVAL);
    assert_int_equal(sdc_vfio_client_read(client, 0, 0, back, 0, &err), 0);
    fake_close(&server, client);
    free(memory), free(data), free(back);
}

static void a_posted_write_is_not_answered(void **state)
{
    (void)state;
    uint8_t *memory = calloc(1, 65536);
    struct fake_server server = {.message = serve_memory, .context = memory};
    OPEN(server, client);
    uint16_t value = 0x1234, back = 0;
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(sdc_vfio_client_post(client, 0, 2 * i, &value, sizeof value, &err), 0);
    assert_int_equal(sdc_vfio_client_read(client, 0, 1998, &back, sizeof back, &err), 0);
    assert_int_equal(back, value);
    assert_int_equal(sdc_vfio_client_post(client, 0, 0, memory, 5000, &err), -E2BIG);
    fake_close(&server, client);
    free(memory);
}

// --- both at once ---

struct commands_seen {
    unsigned errors; // error replies that came back
    uint32_t error;
    uint16_t id;
};

// Sends two commands of its own before it answers; the second wants no reply.
static bool ask_the_client(struct fake_server *server, struct fake_message *message)
{
    struct commands_seen *seen = server->context;
    if ((message->header.flags & SDC_VFU_TYPE_MASK) == SDC_VFU_TYPE_REPLY) {
        seen->errors++;
        seen->error = message->header.error;
        seen->id = message->header.msg_id;
        return true;
    }
    struct {
        struct sdc_vfu_header header;
        struct sdc_vfu_dma_access access;
    } ask = {.header = {.msg_id = 77, .cmd = SDC_VFU_DMA_READ, .msg_size = 32}, .access = {0x1000, 16}};
    fake_send(server, &ask, sizeof ask, NULL, 0);
    ask.header.msg_id = 78;
    ask.header.cmd = 999;
    ask.header.flags = SDC_VFU_NO_REPLY;
    fake_send(server, &ask, sizeof ask, NULL, 0);
    fake_reply(server, message, message->payload, message->size, NULL, 0);
    return true;
}

static void the_servers_commands_are_answered_with_an_error(void **state)
{
    (void)state;
    struct commands_seen seen = {0};
    struct fake_server server = {.message = ask_the_client, .context = &seen};
    OPEN(server, client);
    struct sdc_vfio_device device;
    assert_int_equal(sdc_vfio_client_device(client, &device, &err), 0);
    assert_int_equal(sdc_vfio_client_device(client, &device, &err), 0);
    assert_int_equal(sdc_vfio_client_process(client, &err), 0);
    fake_close(&server, client);
    assert_int_equal(seen.errors, 2);
    assert_int_equal(seen.error, ENOSYS);
    assert_int_equal(seen.id, 77);
}

static bool reply_much(struct fake_server *server, struct fake_message *message)
{
    static uint8_t much[16384];
    fake_reply(server, message, much, sizeof much, NULL, 0);
    return true;
}

static void a_server_that_is_stuck_on_its_replies_is_read_from(void **state)
{
    (void)state;
    enum { MANY = 3000 };
    static struct sdc_vfio_call *calls[MANY];
    struct fake_server server = {.message = reply_much};
    OPEN(server, client);
    struct sdc_vfio_command command = {.command = SDC_VFU_GET_INFO};
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(sdc_vfio_client_send(client, &command, &calls[i], &err), 0);
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(sdc_vfio_client_wait(client, calls[i], NULL, &err), 0);
    fake_close(&server, client);
}

struct worker {
    pthread_t thread;
    struct sdc_vfio_client *client;
    uint32_t number;
    unsigned failures;
};

static void *work(void *context)
{
    struct worker *worker = context;
    for (unsigned i = 0; i < 500; i++) {
        uint32_t value = worker->number * 1000 + i, back = 0;
        uint64_t offset = worker->number * 64;
        if (sdc_vfio_client_post(worker->client, 0, offset, &value, sizeof value, NULL) != 0 ||
            sdc_vfio_client_read(worker->client, 0, offset, &back, sizeof back, NULL) != 0 || back != value)
            worker->failures++;
    }
    return NULL;
}

static void many_threads_share_a_connection(void **state)
{
    (void)state;
    uint8_t *memory = calloc(1, 65536);
    struct fake_server server = {.message = serve_memory, .context = memory};
    struct worker workers[6];
    struct sdc_vfio_client *client;
    assert_int_equal(fake_open(&server, NULL, &client, NULL), 0);
    for (uint32_t i = 0; i < 6; i++) {
        workers[i] = (struct worker){.client = client, .number = i};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < 6; i++) {
        pthread_join(workers[i].thread, NULL);
        assert_int_equal(workers[i].failures, 0);
    }
    fake_close(&server, client);
    free(memory);
}

// --- memory ---

static void memory_is_taken_in_aligned_pieces_until_it_is_used_up(void **state)
{
    (void)state;
    struct sdc_client_memory memory;
    uint64_t iova;
    assert_int_equal(sdc_client_memory_new(&memory, 0x10000, 8192, NULL), 0);
    uint8_t *first = sdc_client_memory_take(&memory, 100, 16, &iova);
    assert_int_equal(iova, 0x10000);
    uint8_t *second = sdc_client_memory_take(&memory, 4096, 4096, &iova);
    assert_int_equal(iova, 0x11000);
    assert_int_equal(second - first, 4096);
    assert_null(sdc_client_memory_take(&memory, 1, 1, &iova));
    assert_null(sdc_client_memory_take(&memory, UINT64_MAX, 1, &iova));
    assert_null(sdc_client_memory_take(&memory, 0, 3, &iova));
    assert_int_not_equal(ftruncate(memory.fd, 0), 0); // sealed
    sdc_client_memory_free(&memory);
    assert_int_equal(sdc_client_memory_new(&memory, 0x10001, 8192, NULL), -EINVAL);
    assert_int_equal(sdc_client_memory_new(&memory, 0, 0, NULL), -EINVAL);
    assert_int_equal(sdc_client_memory_new(&memory, UINT64_MAX - 4095, 8192, NULL), -EINVAL);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening_agrees_on_the_smaller_limits),
        cmocka_unit_test(a_server_without_json_has_the_defaults),
        cmocka_unit_test(a_silent_server_may_have_another_client),
        cmocka_unit_test(a_server_that_hangs_up_on_version),
        cmocka_unit_test(bad_json_is_refused),
        cmocka_unit_test(a_newer_version_is_refused),
        cmocka_unit_test(a_path_without_server_is_named),
        cmocka_unit_test(a_reply_may_be_empty),
        cmocka_unit_test(each_kind_of_reply_has_its_length_checked),
        cmocka_unit_test(error_replies_become_their_errno),
        cmocka_unit_test(replies_are_matched_by_id),
        cmocka_unit_test(a_late_reply_is_dropped_and_the_connection_goes_on),
        cmocka_unit_test(a_reply_to_another_command_ends_the_connection),
        cmocka_unit_test(impossible_headers_end_the_connection),
        cmocka_unit_test(a_reply_may_come_in_pieces),
        cmocka_unit_test(when_the_server_goes_away_everything_fails_alike),
        cmocka_unit_test(fds_that_nobody_asked_for_are_closed),
        cmocka_unit_test(memory_is_mapped_with_its_fd),
        cmocka_unit_test(eventfds_go_in_batches_that_the_server_takes),
        cmocka_unit_test(the_other_forms_of_set_irqs),
        cmocka_unit_test(a_region_comes_with_its_areas_and_fd),
        cmocka_unit_test(broken_regions_are_refused),
        cmocka_unit_test(large_accesses_are_split),
        cmocka_unit_test(a_posted_write_is_not_answered),
        cmocka_unit_test(the_servers_commands_are_answered_with_an_error),
        cmocka_unit_test(a_server_that_is_stuck_on_its_replies_is_read_from),
        cmocka_unit_test(many_threads_share_a_connection),
        cmocka_unit_test(memory_is_taken_in_aligned_pieces_until_it_is_used_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
