// SPDX-License-Identifier: BSD-3-Clause
// Get Log Page: what each page says, from any offset and in any length, and which questions are refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/bytes.h"
#include "device/nvme/logs.h"
#include "nvme_namespace_fixture.h"

#include <stdlib.h>

#define HOUR_NS UINT64_C(3600000000000)

static struct nvme_logs logs;
static struct nvme_features features = {.hot = 343};
static struct nvme_counters one, two;
static const struct nvme_counters *const counters[] = {&one, &two};
static const struct nvme_identity identity = {.firmware = "1.2"};
static struct nvme_logs_of of;
static uint8_t page[NVME_LOG_BYTES];
static uint32_t size;

static void say_effects(const struct nvme_identity *of_whom, uint8_t *effects)
{
    assert_ptr_equal(of_whom, &identity);
    sdc_put32(effects + 4 * 6, 1);
}

static int set_up(void **state)
{
    (void)state;
    nvme_logs_init(&logs, HOUR_NS);
    memset(&one, 0, sizeof one);
    memset(&two, 0, sizeof two);
    features.hot = 343;
    of = (struct nvme_logs_of){.logs = &logs, .identity = &identity, .features = &features, .counters = counters, .counters_count = 2,
                               .now_ns = HOUR_NS, .effects = say_effects};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    nvme_logs_destroy(&logs);
    return 0;
}

static int read_from(uint8_t id, uint64_t offset, uint64_t length)
{
    struct nvme_log_request request = {.id = id, .offset = offset, .size = length, .nsid = SDC_NVME_NSID_ALL};

    memset(page, 0xee, sizeof page);
    return nvme_log_build(&of, &request, page, &size);
}

static void read_page(uint8_t id, uint32_t length)
{
    assert_int_equal(read_from(id, 0, length), 0);
    assert_int_equal(size, length);
}

static void expect_zeroes(unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++)
        if (page[i] != 0)
            fail_msg("byte %u is 0x%02x and should be zero", i, page[i]);
}

static void supported_pages_are_those_that_can_be_read(void **state)
{
    uint8_t listed[1024];

    (void)state;
    read_page(SDC_NVME_LOG_SUPPORTED, 1024);
    memcpy(listed, page, sizeof listed);
    for (unsigned id = 0; id < 256; id++) {
        uint32_t entry = sdc_get32(listed + 4 * (size_t)id);
        assert_true(entry <= 1);
        assert_int_equal(read_from((uint8_t)id, 0, 4), entry ? 0 : SDC_NVME_SC_LOG_PAGE_INVALID);
    }
    static const uint8_t mandatory[] = {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x12, 0x13};
    for (unsigned i = 0; i < SDC_COUNT(mandatory); i++)
        assert_int_equal(sdc_get32(listed + 4 * (size_t)mandatory[i]), 1);
}

static void errors_are_told_newest_first_and_the_oldest_are_forgotten(void **state)
{
    (void)state;
    read_page(SDC_NVME_LOG_ERROR, 4096);
    expect_zeroes(0, 4096);
    for (uint16_t i = 1; i <= 70; i++) {
        struct nvme_error error = {.lba = 1000U + i, .nsid = i, .sq = i, .cid = (uint16_t)(100 + i),
                                   .status = SDC_NVME_SC_DNR | SDC_NVME_SC_LBA_RANGE, .opcode = (uint8_t)i};
        nvme_logs_error(&logs, &error);
    }
    read_page(SDC_NVME_LOG_ERROR, 4096);
    for (unsigned i = 0; i < 64; i++) {
        const uint8_t *entry = page + 64 * (size_t)i;
        assert_int_equal(sdc_get64(entry), 70 - i);
        assert_int_equal(sdc_get16(entry + 8), 70 - i);
        assert_int_equal(sdc_get16(entry + 10), 170 - i);
        assert_int_equal(sdc_get16(entry + 12), (SDC_NVME_SC_DNR | SDC_NVME_SC_LBA_RANGE) << 1);
        assert_int_equal(sdc_get16(entry + 14), 0xffff);
        assert_int_equal(sdc_get64(entry + 16), 1070 - i);
        assert_int_equal(sdc_get32(entry + 24), 70 - i);
        assert_int_equal(entry[31], 70 - i);
    }
    // One further on: what a driver that reads in pieces finds.
    assert_int_equal(read_from(SDC_NVME_LOG_ERROR, 64, 64), 0);
    assert_int_equal(sdc_get64(page), 69);
    nvme_logs_reset(&logs);
    read_page(SDC_NVME_LOG_ERROR, 4096);
    expect_zeroes(0, 4096);
}

static void health_has_what_all_loops_counted(void **state)
{
    (void)state;
    nvme_count(&one.read_commands, 10);
    nvme_count(&two.read_commands, 1);
    nvme_count(&one.write_commands, 20);
    nvme_count(&two.write_commands, 2);
    nvme_count(&one.read_bytes, 512000);
    nvme_count(&two.read_bytes, 512);   // units are begun ones
    nvme_count(&two.written_bytes, 512000);
    nvme_count(&one.media_errors, 3);
    nvme_count(&one.busy_ns, UINT64_C(59999999999));
    nvme_count(&two.busy_ns, UINT64_C(120000000000));
    nvme_logs_error(&logs, &(struct nvme_error){.cid = 1});
    of.now_ns = HOUR_NS * 6 - 1;
    read_page(SDC_NVME_LOG_SMART, 512);
    static const struct {
        unsigned offset, size;
        uint64_t value;
    } fields[] = {
        {0, 1, 0}, {1, 2, 300}, {3, 1, 100}, {4, 1, 10}, {32, 8, 2}, {48, 8, 1}, {64, 8, 11}, {80, 8, 22}, {96, 8, 2}, {112, 8, 1},
        {128, 8, 4}, {160, 8, 3}, {176, 8, 1},
    };
    for (unsigned i = 0; i < SDC_COUNT(fields); i++) {
        uint8_t raw[8] = {0};
        memcpy(raw, page + fields[i].offset, fields[i].size);
        assert_int_equal(sdc_get64(raw), fields[i].value);
        memset(page + fields[i].offset, 0, fields[i].size);
    }
    expect_zeroes(0, 512);
}

static void a_loop_is_busy_from_its_first_command_to_its_last(void **state)
{
    static const struct {
        int begins; // 1: one begins, -1: one ends
        uint64_t now_ns, busy_ns;
    } steps[] = {{1, 10, 0}, {1, 20, 0}, {-1, 25, 0}, {1, 30, 0}, {-1, 40, 0}, {-1, 50, 40}, {1, 100, 40}, {-1, 101, 41}};

    (void)state;
    for (unsigned i = 0; i < SDC_COUNT(steps); i++) {
        if (steps[i].begins > 0)
            nvme_count_begin(&one, steps[i].now_ns);
        else
            nvme_count_end(&one, steps[i].now_ns);
        assert_int_equal(one.busy_ns, steps[i].busy_ns);
    }
}

static void heat_is_a_warning(void **state)
{
    (void)state;
    features.hot = 300;
    read_page(SDC_NVME_LOG_SMART, 512);
    assert_int_equal(page[0], 2);
}

static void firmware_is_in_its_only_slot(void **state)
{
    (void)state;
    read_page(SDC_NVME_LOG_FIRMWARE, 512);
    assert_int_equal(page[0], 1);
    expect_zeroes(1, 8);
    assert_memory_equal(page + 8, "1.2     ", 8);
    expect_zeroes(16, 512);
}

static void changed_namespaces_are_told_of_until_they_were_read(void **state)
{
    (void)state;
    logs.changed[256] = logs.changed[3] = logs.changed[1] = true;
    for (unsigned again = 0; again < 2; again++) {
        read_page(SDC_NVME_LOG_CHANGED_NS, 4096);
        assert_int_equal(sdc_get32(page), 1);
        assert_int_equal(sdc_get32(page + 4), 3);
        assert_int_equal(sdc_get32(page + 8), 256);
        expect_zeroes(12, 4096);
        nvme_log_was_read(&logs, SDC_NVME_LOG_SMART); // another page
    }
    nvme_log_was_read(&logs, SDC_NVME_LOG_CHANGED_NS);
    read_page(SDC_NVME_LOG_CHANGED_NS, 4096);
    expect_zeroes(0, 4096);
}

static void effects_are_those_of_features_and_commands(void **state)
{
    (void)state;
    read_page(SDC_NVME_LOG_FEATURES, 1024);
    for (unsigned id = 0; id < 256; id++)
        assert_int_equal(sdc_get32(page + 4 * (size_t)id), nvme_feature_effects((uint8_t)id));
    read_page(SDC_NVME_LOG_EFFECTS, 4096);
    expect_zeroes(0, 24);
    assert_int_equal(sdc_get32(page + 24), 1);
    expect_zeroes(28, 4096);
    read_page(SDC_NVME_LOG_MI, 4096);
    expect_zeroes(0, 4096);
}

static void any_part_of_a_page_can_be_read(void **state)
{
    static const struct {
        uint64_t offset, length;
        int status;
        uint32_t size;
    } rows[] = {
        {0, 4, 0, 4}, {0, 512, 0, 512}, {0, 4096, 0, 512}, {4, 512, 0, 508}, {508, 4, 0, 4}, {508, 512, 0, 4}, {512, 4, 0, 0},
        {516, 4, SDC_NVME_SC_INVALID_FIELD, 0}, {2, 4, SDC_NVME_SC_INVALID_FIELD, 0}, {509, 4, SDC_NVME_SC_INVALID_FIELD, 0},
        {UINT64_MAX - 3, 4, SDC_NVME_SC_INVALID_FIELD, 0}, {UINT64_C(1) << 32, 4, SDC_NVME_SC_INVALID_FIELD, 0},
        {0, 1 << 20, 0, 512}, {0, (1 << 20) + 4, SDC_NVME_SC_INVALID_FIELD, 0}, {0, UINT64_C(1) << 34, SDC_NVME_SC_INVALID_FIELD, 0},
    };
    uint8_t whole[512];

    (void)state;
    one.read_commands = UINT64_C(0x1122334455667788);
    one.media_errors = 0x99;
    read_page(SDC_NVME_LOG_SMART, 512);
    memcpy(whole, page, sizeof whole);
    for (unsigned i = 0; i < SDC_COUNT(rows); i++) {
        assert_int_equal(read_from(SDC_NVME_LOG_SMART, rows[i].offset, rows[i].length), rows[i].status);
        assert_int_equal(size, rows[i].size);
        if (size > 0)
            assert_memory_equal(page, whole + rows[i].offset, size);
    }
}

static void what_no_page_has_is_refused(void **state)
{
    static const struct {
        struct nvme_log_request request;
        int status;
    } rows[] = {
        {{.id = SDC_NVME_LOG_SMART, .size = 4, .nsid = 0}, 0},
        {{.id = SDC_NVME_LOG_SMART, .size = 4, .nsid = 1}, SDC_NVME_SC_INVALID_FIELD},
        {{.id = SDC_NVME_LOG_ERROR, .size = 4, .nsid = 2}, SDC_NVME_SC_INVALID_FIELD},
        {{.id = SDC_NVME_LOG_ERROR, .size = 4, .by_index = true}, SDC_NVME_SC_INVALID_FIELD},
        {{.id = SDC_NVME_LOG_EFFECTS, .size = 4, .csi = 2}, SDC_NVME_SC_INVALID_FIELD},
        {{.id = SDC_NVME_LOG_SMART, .size = 4, .csi = 2}, 0},
        {{.id = 0x06, .size = 4}, SDC_NVME_SC_LOG_PAGE_INVALID}, // self-test
        {{.id = 0x07, .size = 4}, SDC_NVME_SC_LOG_PAGE_INVALID}, // telemetry
        {{.id = 0x0d, .size = 4}, SDC_NVME_SC_LOG_PAGE_INVALID}, // persistent events
        {{.id = 0x80, .size = 4}, SDC_NVME_SC_LOG_PAGE_INVALID}, // reservations
        {{.id = 0xff, .size = 4, .nsid = 3}, SDC_NVME_SC_LOG_PAGE_INVALID},
    };

    (void)state;
    for (unsigned i = 0; i < SDC_COUNT(rows); i++)
        assert_int_equal(nvme_log_build(&of, &rows[i].request, page, &size), rows[i].status);
}

static void the_command_is_taken_apart(void **state)
{
    uint8_t sqe[SDC_NVME_SQE] = {0};
    struct nvme_log_request request;

    (void)state;
    sdc_put32(sqe + SDC_NVME_SQE_NSID, 0x01020304);
    sdc_put32(sqe + SDC_NVME_SQE_CDW10, UINT32_C(0x2345) << 16 | 1 << 15 | 0x12);
    sdc_put32(sqe + SDC_NVME_SQE_CDW11, 0xaaaa0006);
    sdc_put64(sqe + SDC_NVME_SQE_CDW12, UINT64_C(0x1122334455667788));
    sdc_put32(sqe + SDC_NVME_SQE_CDW14, 0x05800000);
    nvme_log_parse(sqe, &request);
    assert_int_equal(request.nsid, 0x01020304);
    assert_int_equal(request.id, 0x12);
    assert_true(request.retain);
    assert_int_equal(request.size, 4 * (UINT64_C(0x62345) + 1));
    assert_int_equal(request.offset, UINT64_C(0x1122334455667788));
    assert_true(request.by_index);
    assert_int_equal(request.csi, 5);
    memset(sqe, 0xff, sizeof sqe);
    nvme_log_parse(sqe, &request);
    assert_int_equal(request.size, UINT64_C(1) << 34);
    memset(sqe, 0, sizeof sqe);
    nvme_log_parse(sqe, &request);
    assert_int_equal(request.size, 4);
    assert_false(request.retain || request.by_index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(supported_pages_are_those_that_can_be_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(errors_are_told_newest_first_and_the_oldest_are_forgotten, set_up, tear_down),
        cmocka_unit_test_setup_teardown(health_has_what_all_loops_counted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_loop_is_busy_from_its_first_command_to_its_last, set_up, tear_down),
        cmocka_unit_test_setup_teardown(heat_is_a_warning, set_up, tear_down),
        cmocka_unit_test_setup_teardown(firmware_is_in_its_only_slot, set_up, tear_down),
        cmocka_unit_test_setup_teardown(changed_namespaces_are_told_of_until_they_were_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(effects_are_those_of_features_and_commands, set_up, tear_down),
        cmocka_unit_test_setup_teardown(any_part_of_a_page_can_be_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_no_page_has_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_command_is_taken_apart, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
