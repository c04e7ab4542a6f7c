// SPDX-License-Identifier: BSD-3-Clause
// The table of messages: what a handler sees has the size, the fds and the state that its row says, and everything else is refused once,
// by a header alone.
#include "os/fd.h"
#include "vfu_fixture.h"

#include <string.h>

enum { MOST = SDC_LIMIT_MESSAGE - sizeof(struct sdc_vfu_header) };

#define BYTES(type, ...) &(const struct type){__VA_ARGS__}, sizeof(struct type)
enum { MSI_OFF = SDC_VFU_IRQ_DATA_NONE | SDC_VFU_IRQ_ACTION_TRIGGER, RW = SDC_VFU_MAP_READ | SDC_VFU_MAP_WRITE };

// A good request of each kind, its error (of a card without features), and what the specification and its clients make of the rest.
static const struct row {
    uint16_t command;
    uint32_t min, max; // bytes of payload
    int fds;           // at most
    uint32_t error;
    const void *payload;
    size_t payload_size;
} rows[] = {
    {SDC_VFU_DMA_MAP, 32, 32, 1, 0, BYTES(sdc_vfu_dma_map, .argsz = 32, .flags = RW, .address = 0x10000, .size = 4096)},
    {SDC_VFU_DMA_UNMAP, 24, 4096, 1, 0, BYTES(sdc_vfu_dma_unmap, .argsz = 24, .address = 0x10000, .size = 4096)},
    {SDC_VFU_GET_INFO, 16, 4096, 0, 0, BYTES(sdc_vfu_device_info, .argsz = 16)},
    {SDC_VFU_GET_REGION_INFO, 32, 4096, 0, 0, BYTES(sdc_vfu_region_info, .argsz = 32)},
    {SDC_VFU_GET_REGION_IO_FDS, 16, 4096, 0, 0, BYTES(sdc_vfu_region_io_fds, .argsz = 16)},
    {SDC_VFU_GET_IRQ_INFO, 16, 4096, 0, 0, BYTES(sdc_vfu_irq_info, .argsz = 16)},
    {SDC_VFU_SET_IRQS, 20, 20 + 2048, 16, 0, BYTES(sdc_vfu_set_irqs, .argsz = 20, .flags = MSI_OFF, .index = SDC_PCI_MSI)},
    {SDC_VFU_REGION_READ, 16, 16, 0, 0, BYTES(sdc_vfu_region_access, .region = SDC_PCI_CONFIG, .count = 4)},
    {SDC_VFU_REGION_WRITE, 16, 16 + 1024 * 1024, 0, 0, BYTES(sdc_vfu_region_access, .region = SDC_PCI_CONFIG)},
    {SDC_VFU_RESET, 0, 4096, 0, 0, NULL, 0},
    {SDC_VFU_REGION_WRITE_MULTI, 8, 8 + 200 * 24, 0, 0, BYTES(sdc_vfu_write_multi, 0)},
    {SDC_VFU_DEVICE_FEATURE, 8, 4096, 0, ENOTTY, BYTES(sdc_vfu_device_feature, .argsz = 8, .flags = SDC_VFU_FEATURE_PROBE)},
    {SDC_VFU_MIG_DATA_READ, 8, 4096, 0, EINVAL, BYTES(sdc_vfu_mig_data, .argsz = 8)},
    {SDC_VFU_MIG_DATA_WRITE, 8, 8 + 1024 * 1024, 0, EINVAL, BYTES(sdc_vfu_mig_data, .argsz = 8)},
};

enum { ROWS = sizeof rows / sizeof rows[0] };

// Sends so many bytes of a row's request, and zeroes behind it, with fds; gives the error, whose reply has to be the only one.
static uint32_t error_of(struct fixture *f, const struct row *row, uint32_t size, int fds_count, uint32_t flags)
{
    static uint8_t bytes[SDC_LIMIT_MESSAGE];
    struct sdc_vfu_header header = {.msg_id = 7, .cmd = row->command, .msg_size = (uint32_t)sizeof header + size, .flags = flags};
    int fds[SDC_SOCKET_FDS_MAX];
    size_t sent = 0;

    memset(bytes, 0, sizeof bytes);
    memcpy(bytes, &header, sizeof header);
    if (row->payload_size > 0)
        memcpy(bytes + sizeof header, row->payload, row->payload_size);
    for (int i = 0; i < fds_count; i++)
        fds[i] = STDERR_FILENO;
    while (sent < header.msg_size) {
        struct iovec iov = {bytes + sent, header.msg_size - sent};
        ssize_t part = sdc_socket_send(f->client, &iov, 1, fds, sent == 0 ? (unsigned)fds_count : 0);
        assert_true(part > 0 || part == -EAGAIN);
        sent += part > 0 ? (size_t)part : 0;
        run_turns(f, 4);
    }
    struct sdc_vfu_header reply = {0};
    if (!(flags & SDC_VFU_NO_REPLY)) {
        receive(f, &reply, sizeof reply);
        assert_int_equal(reply.msg_id, 7);
        assert_int_equal(reply.cmd, row->command);
        assert_int_equal((reply.flags & SDC_VFU_ERROR) != 0, reply.error != 0);
        if (reply.error != 0)
            assert_int_equal(reply.msg_size, sizeof reply);
        receive(f, NULL, reply.msg_size - sizeof reply);
        run_turns(f, 4);
    }
    assert_int_equal(recv(f->client, bytes, 1, MSG_DONTWAIT), -1);
    return reply.error;
}

static void sizes_and_fds_outside_a_row_are_refused(void **state)
{
    struct fixture f;

    (void)state;
    open_session(&f);
    say_version(&f, "{\"capabilities\":{}}");
    for (const struct row *row = rows; row < rows + ROWS; row++) {
        if (row->min > 0)
            assert_int_equal(error_of(&f, row, row->min - 1, 0, 0), EINVAL);
        if (row->max < MOST)
            assert_int_equal(error_of(&f, row, row->max + 1, 0, 0), EINVAL);
        assert_int_equal(error_of(&f, row, row->min, row->fds + 1, 0), EINVAL);
        assert_int_equal(error_of(&f, row, row->min, 100, 0), EINVAL);
        assert_int_equal(error_of(&f, row, row->min, 0, 0), row->error);
    }
    close_session(&f);
}

static void a_command_before_version_is_refused_and_version_after_itself(void **state)
{
    struct fixture f;

    (void)state;
    open_session(&f);
    for (const struct row *row = rows; row < rows + ROWS; row++)
        assert_int_equal(error_of(&f, row, row->min, 0, 0), EINVAL);
    say_version(&f, "{\"capabilities\":{}}");
    assert_int_equal(error_of(&f, &(struct row){.command = SDC_VFU_VERSION}, 4, 0, 0), EINVAL);
    for (const struct row *row = rows; row < rows + ROWS; row++)
        assert_int_equal(error_of(&f, row, row->min, 0, 0), row->error);
    close_session(&f);
}

static void commands_that_are_none_of_a_servers_are_not_known(void **state)
{
    static const uint16_t commands[] = {0, SDC_VFU_DMA_READ, SDC_VFU_DMA_WRITE, 14, SDC_VFU_COMMANDS, 255, 0x100 + SDC_VFU_RESET,
                                        UINT16_MAX};
    struct fixture f;

    (void)state;
    open_session(&f);
    say_version(&f, "{\"capabilities\":{}}");
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        assert_int_equal(error_of(&f, &(struct row){.command = commands[i]}, 16, 0, 0), ENOSYS);
    close_session(&f);
}

static void a_refusal_is_silent_where_no_reply_is_wanted(void **state)
{
    struct fixture f;

    (void)state;
    open_session(&f);
    say_version(&f, "{\"capabilities\":{}}");
    for (const struct row *row = rows; row < rows + ROWS; row++) {
        error_of(&f, row, row->min, 0, SDC_VFU_NO_REPLY);
        error_of(&f, row, 0, row->fds + 1, SDC_VFU_NO_REPLY);
    }
    close_session(&f);
}

// The fds of all of these are closed: the next one has the number that the first had.
static void fds_that_nobody_took_are_closed(void **state)
{
    struct fixture f;

    (void)state;
    open_session(&f);
    say_version(&f, "{\"capabilities\":{}}");
    int before = dup(STDERR_FILENO);
    close(before);
    for (const struct row *row = rows; row < rows + ROWS; row++) {
        error_of(&f, row, row->min, 20, 0);
        error_of(&f, row, row->min, 1, SDC_VFU_NO_REPLY);
    }
    int after = dup(STDERR_FILENO);
    close(after);
    assert_int_equal(after, before);
    close_session(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_and_fds_outside_a_row_are_refused),
        cmocka_unit_test(a_command_before_version_is_refused_and_version_after_itself),
        cmocka_unit_test(commands_that_are_none_of_a_servers_are_not_known),
        cmocka_unit_test(a_refusal_is_silent_where_no_reply_is_wanted),
        cmocka_unit_test(fds_that_nobody_took_are_closed),
    };

    RUN_WITH_EVERY_LOOP(tests);
}
