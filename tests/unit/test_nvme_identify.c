// SPDX-License-Identifier: BSD-3-Clause
// What Identify says of a controller and its namespaces, byte by byte, and which questions it refuses.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/bytes.h"
#include "device/nvme/identify.h"
#include "nvme_namespace_fixture.h"

static struct three_namespaces three;
static uint8_t page[SDC_NVME_IDENTIFY_BYTES];
static const struct nvme_identity identity = {
    .vendor = 0x1234, .subsystem_vendor = 0x5678, .controller = 3, .shadow_doorbells = true,
    .serial = "SERIAL", .model = "a model whose name has all the 40 letters", .firmware = "1.0",
    .nqn = "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-8000-8000-000000000000",
};

static int ask(uint8_t cns, uint32_t nsid, uint8_t csi, uint16_t controller)
{
    struct nvme_identify_request request = {.cns = cns, .nsid = nsid, .csi = csi, .controller = controller};

    memset(page, 0xee, sizeof page);
    return nvme_identify_build(&identity, &three.all, &request, page);
}

static uint64_t number(unsigned offset, unsigned size)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)page[offset + i] << 8 * i;
    return value;
}

struct field {
    const char *name;
    unsigned offset, size;
    uint64_t value;
};

// These fields have these values, and every other byte is zero.
static void expect_fields(const struct field *fields, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (number(fields[i].offset, fields[i].size) != fields[i].value)
            fail_msg("%s is 0x%llx, not 0x%llx", fields[i].name, (unsigned long long)number(fields[i].offset, fields[i].size),
                     (unsigned long long)fields[i].value);
        memset(page + fields[i].offset, 0, fields[i].size);
    }
    for (unsigned i = 0; i < sizeof page; i++)
        if (page[i] != 0)
            fail_msg("byte %u is 0x%02x and should be zero", i, page[i]);
}

static void expect_text(unsigned offset, unsigned size, const char *text)
{
    assert_memory_equal(page + offset, text, size);
    memset(page + offset, 0, size);
}

static void the_controller_says_what_it_is(void **state)
{
    static const struct field fields[] = {
        {"VID", 0, 2, 0x1234},
        {"SSVID", 2, 2, 0x5678},
        {"RAB", 72, 1, 6},
        {"MDTS", 77, 1, 8},
        {"CNTLID", 78, 2, 3},
        {"VER", 80, 4, 0x20000},
        {"OAES", 92, 4, 0x100},
        {"CNTRLTYPE", 111, 1, 1},
        {"OACS", 256, 2, 0x100},
        {"ACL", 258, 1, 3},
        {"AERL", 259, 1, 3},
        {"FRMW", 260, 1, 3},
        {"LPA", 261, 1, 0x26},
        {"ELPE", 262, 1, 63},
        {"WCTEMP", 266, 2, 343},
        {"CCTEMP", 268, 2, 373},
        {"KAS", 320, 2, 10},
        {"SQES", 512, 1, 0x66},
        {"CQES", 513, 1, 0x44},
        {"NN", 516, 4, 256},
        {"ONCS", 520, 2, 0x5d},
        {"VWC", 525, 1, 7},
        {"SGLS", 536, 4, 0x10001},
    };

    (void)state;
    assert_int_equal(ask(SDC_NVME_CNS_CONTROLLER, 0, 0, 0), 0);
    expect_text(4, 20, "SERIAL              ");
    expect_text(24, 40, "a model whose name has all the 40 letters");
    expect_text(64, 8, "1.0     ");
    expect_text(768, sizeof identity.nqn, identity.nqn);
    expect_fields(fields, SDC_COUNT(fields));
}

static void without_shadow_doorbells_their_command_is_not_there(void **state)
{
    struct nvme_identity plain = identity;
    struct nvme_identify_request request = {.cns = SDC_NVME_CNS_CONTROLLER};

    (void)state;
    plain.shadow_doorbells = false;
    assert_int_equal(nvme_identify_build(&plain, &three.all, &request, page), 0);
    assert_int_equal(number(256, 2), 0);
}

static void a_namespace_says_what_its_backend_is(void **state)
{
    static const struct field small[] = {
        {"NSZE", 0, 8, 1000}, {"NCAP", 8, 8, 1000}, {"NUSE", 16, 8, 1000}, {"NSFEAT", 24, 1, 0x10}, {"DLFEAT", 33, 1, 8},
        {"LBADS", 130, 1, 9},
    };
    static const struct field large[] = {
        {"NSZE", 0, 8, 77}, {"NCAP", 8, 8, 77}, {"NUSE", 16, 8, 77}, {"NSFEAT", 24, 1, 0x10}, {"DLFEAT", 33, 1, 9}, {"NPWG", 64, 2, 3},
        {"NPWA", 66, 2, 3}, {"NPDG", 68, 2, 7}, {"NPDA", 70, 2, 7}, {"NOWS", 72, 2, 15}, {"LBADS", 130, 1, 12},
    };
    static const struct field read_only[] = {
        {"NSZE", 0, 8, 1}, {"NCAP", 8, 8, 1}, {"NUSE", 16, 8, 1}, {"NSFEAT", 24, 1, 0x10}, {"NPWG", 64, 2, 7}, {"NPWA", 66, 2, 7},
        {"NPDG", 68, 2, 7}, {"NPDA", 70, 2, 7}, {"NOWS", 72, 2, 7}, {"NSATTR", 99, 1, 1}, {"LBADS", 130, 1, 9},
    };
    static const struct {
        uint32_t nsid;
        const struct field *fields;
        size_t count;
    } rows[] = {{1, small, SDC_COUNT(small)}, {2, large, SDC_COUNT(large)}, {256, read_only, SDC_COUNT(read_only)}};
    static const uint8_t questions[] = {SDC_NVME_CNS_NS, SDC_NVME_CNS_ALLOCATED};

    (void)state;
    for (unsigned q = 0; q < SDC_COUNT(questions); q++) {
        for (unsigned i = 0; i < SDC_COUNT(rows); i++) {
            assert_int_equal(ask(questions[q], rows[i].nsid, 0, 0), 0);
            assert_memory_equal(page + 104, three.namespaces[i].nguid, 16);
            assert_memory_equal(page + 120, three.namespaces[i].eui64, 8);
            memset(page + 104, 0, 24);
            expect_fields(rows[i].fields, rows[i].count);
        }
    }
}

static void a_namespace_that_grew_says_so(void **state)
{
    (void)state;
    three.blocks[1].info.size = 99 * 4096;
    assert_int_equal(ask(SDC_NVME_CNS_NS, 2, 0, 0), 0);
    assert_int_equal(number(0, 8), 99);
    three.blocks[1].info.size = 77 * 4096;
}

static void names_come_as_descriptors(void **state)
{
    (void)state;
    assert_int_equal(ask(SDC_NVME_CNS_NS_DESCRIPTORS, 2, 0, 0), 0);
    const struct nvme_namespace *namespace = &three.namespaces[1];
    assert_int_equal(number(0, 4), 1 | 8 << 8);
    assert_memory_equal(page + 4, namespace->eui64, 8);
    assert_int_equal(number(12, 4), 2 | 16 << 8);
    assert_memory_equal(page + 16, namespace->nguid, 16);
    assert_int_equal(number(32, 4), 3 | 16 << 8);
    assert_memory_equal(page + 36, namespace->uuid, 16);
    assert_int_equal(number(52, 4), 4 | 1 << 8);
    for (unsigned i = 56; i < sizeof page; i++)
        assert_int_equal(page[i], 0);
}

static void names_are_the_same_tomorrow_and_differ_from_all_others(void **state)
{
    static const struct {
        uint32_t nsid;
        const char *backend, *serial;
    } makings[] = {{1, "a.img", "S"}, {2, "a.img", "S"}, {1, "b.img", "S"}, {1, "a.img", "T"}};
    struct nvme_namespace made[SDC_COUNT(makings)], again;

    (void)state;
    for (unsigned i = 0; i < SDC_COUNT(makings); i++) {
        nvme_namespace_describe(&made[i], makings[i].nsid, &three.blocks[0].base, makings[i].backend, makings[i].serial);
        assert_int_equal(made[i].uuid[6] >> 4, 8);
        assert_int_equal(made[i].uuid[8] >> 6, 2);
        assert_int_equal(made[i].nguid[8] & 3, 2);
        assert_int_equal(made[i].eui64[0] & 3, 2);
        for (unsigned k = 0; k < i; k++) {
            assert_memory_not_equal(made[i].uuid, made[k].uuid, 16);
            assert_memory_not_equal(made[i].nguid, made[k].nguid, 16);
            assert_memory_not_equal(made[i].eui64, made[k].eui64, 8);
        }
    }
    nvme_namespace_describe(&again, 1, &three.blocks[1].base, "a.img", "S");
    assert_memory_equal(made[0].uuid, again.uuid, 16);
    // Written down once, so that an upgrade that changes them does not go unnoticed.
    static const uint8_t uuid[16] = {0x37, 0xda, 0x15, 0xc6, 0x3b, 0xfe, 0x85, 0xf9, 0x88, 0x93, 0xf1, 0x0e, 0x52, 0x91, 0x00, 0x7a};
    assert_memory_equal(again.uuid, uuid, 16);
}

static void lists_have_what_is_above_the_nsid(void **state)
{
    static const struct {
        uint32_t above;
        uint32_t found[4];
    } rows[] = {
        {0, {1, 2, 256}}, {1, {2, 256}}, {2, {256}}, {255, {256}}, {256, {0}}, {0xfffffffd, {0}},
    };
    static const uint8_t questions[] = {SDC_NVME_CNS_ACTIVE_NS, SDC_NVME_CNS_CS_ACTIVE_NS, SDC_NVME_CNS_ALLOCATED_NS};

    (void)state;
    for (unsigned q = 0; q < SDC_COUNT(questions); q++) {
        for (unsigned i = 0; i < SDC_COUNT(rows); i++) {
            assert_int_equal(ask(questions[q], rows[i].above, 0, 0), 0);
            for (unsigned k = 0; k < 1024; k++)
                assert_int_equal(number(4 * k, 4), k < 4 ? rows[i].found[k] : 0);
        }
    }
}

static void controllers_are_listed(void **state)
{
    static const struct {
        uint8_t cns;
        uint32_t nsid;
        uint16_t first;
        unsigned count;
    } rows[] = {
        {SDC_NVME_CNS_CONTROLLERS, 0, 0, 1}, {SDC_NVME_CNS_CONTROLLERS, 0, 3, 1}, {SDC_NVME_CNS_CONTROLLERS, 0, 4, 0},
        {SDC_NVME_CNS_NS_CONTROLLERS, 1, 0, 1}, {SDC_NVME_CNS_NS_CONTROLLERS, 1, 4, 0}, {SDC_NVME_CNS_NS_CONTROLLERS, 3, 0, 0},
    };

    (void)state;
    for (unsigned i = 0; i < SDC_COUNT(rows); i++) {
        struct field fields[] = {{"count", 0, 2, rows[i].count}, {"controller", 2, 2, rows[i].count ? 3 : 0}};
        assert_int_equal(ask(rows[i].cns, rows[i].nsid, 0, rows[i].first), 0);
        expect_fields(fields, SDC_COUNT(fields));
    }
}

static void the_command_set_has_its_own_pages(void **state)
{
    static const struct field zeroes[] = {{"WZSL", 1, 1, 13}};
    static const struct field sets[] = {{"NVM", 0, 8, 1}};
    static const struct field writable[] = {{"NSTAT", 14, 1, 1}};
    static const struct field read_only[] = {{"NSATTR", 8, 1, 1}, {"NSTAT", 14, 1, 1}};

    (void)state;
    assert_int_equal(ask(SDC_NVME_CNS_CS_CONTROLLER, 0, 0, 0), 0);
    expect_fields(zeroes, SDC_COUNT(zeroes));
    assert_int_equal(ask(SDC_NVME_CNS_CS_NS, 1, 0, 0), 0);
    expect_fields(NULL, 0);
    assert_int_equal(ask(SDC_NVME_CNS_COMMAND_SETS, 0, 0, 0xffff), 0);
    expect_fields(sets, SDC_COUNT(sets));
    assert_int_equal(ask(SDC_NVME_CNS_COMMAND_SETS, 0, 0, 3), 0);
    expect_fields(sets, SDC_COUNT(sets));
    assert_int_equal(ask(SDC_NVME_CNS_NS_INDEPENDENT, 1, 0, 0), 0);
    expect_fields(writable, SDC_COUNT(writable));
    assert_int_equal(ask(SDC_NVME_CNS_NS_INDEPENDENT, 256, 0, 0), 0);
    expect_fields(read_only, SDC_COUNT(read_only));
}

static void a_namespace_that_is_not_there_is_all_zeroes(void **state)
{
    static const uint8_t questions[] = {SDC_NVME_CNS_NS, SDC_NVME_CNS_CS_NS, SDC_NVME_CNS_NS_INDEPENDENT, SDC_NVME_CNS_ALLOCATED};

    (void)state;
    for (unsigned i = 0; i < SDC_COUNT(questions); i++) {
        assert_int_equal(ask(questions[i], 3, 0, 0), 0);
        expect_fields(NULL, 0);
    }
}

static void mistakes_have_their_status(void **state)
{
    static const struct {
        uint8_t cns;
        uint32_t nsid;
        uint8_t csi;
        uint16_t controller;
        int status;
    } rows[] = {
        {SDC_NVME_CNS_NS, 0, 0, 0, SDC_NVME_SC_INVALID_NS},
        {SDC_NVME_CNS_NS, 257, 0, 0, SDC_NVME_SC_INVALID_NS},
        {SDC_NVME_CNS_NS, SDC_NVME_NSID_ALL, 0, 0, SDC_NVME_SC_INVALID_NS},
        {SDC_NVME_CNS_ACTIVE_NS, 0xfffffffe, 0, 0, SDC_NVME_SC_INVALID_NS},
        {SDC_NVME_CNS_ACTIVE_NS, SDC_NVME_NSID_ALL, 0, 0, SDC_NVME_SC_INVALID_NS},
        {SDC_NVME_CNS_ALLOCATED_NS, SDC_NVME_NSID_ALL, 0, 0, SDC_NVME_SC_INVALID_NS},
        {SDC_NVME_CNS_NS_DESCRIPTORS, 0, 0, 0, SDC_NVME_SC_INVALID_NS},
        {SDC_NVME_CNS_NS_DESCRIPTORS, SDC_NVME_NSID_ALL, 0, 0, SDC_NVME_SC_INVALID_NS},
        {SDC_NVME_CNS_NS_DESCRIPTORS, 3, 0, 0, SDC_NVME_SC_INVALID_FIELD},
        {SDC_NVME_CNS_CS_NS, 1, 2, 0, SDC_NVME_SC_INVALID_FIELD},
        {SDC_NVME_CNS_CS_NS, 0, 0, 0, SDC_NVME_SC_INVALID_NS},
        {SDC_NVME_CNS_CS_CONTROLLER, 0, 1, 0, SDC_NVME_SC_INVALID_FIELD},
        {SDC_NVME_CNS_CS_ACTIVE_NS, 0, 2, 0, SDC_NVME_SC_INVALID_FIELD},
        {SDC_NVME_CNS_NS_INDEPENDENT, 0, 0, 0, SDC_NVME_SC_INVALID_NS},
        {SDC_NVME_CNS_NS_CONTROLLERS, 0, 0, 0, SDC_NVME_SC_INVALID_NS},
        {SDC_NVME_CNS_COMMAND_SETS, 0, 0, 4, SDC_NVME_SC_INVALID_FIELD},
        {0x04, 0, 0, 0, SDC_NVME_SC_INVALID_FIELD}, // NVM sets
        {0x09, 1, 0, 0, SDC_NVME_SC_INVALID_FIELD},
        {0x14, 0, 0, 0, SDC_NVME_SC_INVALID_FIELD}, // primary controllers
        {0x15, 0, 0, 0, SDC_NVME_SC_INVALID_FIELD}, // secondary controllers
        {0x16, 0, 0, 0, SDC_NVME_SC_INVALID_FIELD}, // namespace granularity
        {0x17, 0, 0, 0, SDC_NVME_SC_INVALID_FIELD}, // UUIDs
        {0xff, 0, 0, 0, SDC_NVME_SC_INVALID_FIELD},
    };

    (void)state;
    for (unsigned i = 0; i < SDC_COUNT(rows); i++) {
        int status = ask(rows[i].cns, rows[i].nsid, rows[i].csi, rows[i].controller);
        if (status != rows[i].status)
            fail_msg("CNS %02xh, NSID %x: status 0x%x, not 0x%x", rows[i].cns, rows[i].nsid, (unsigned)status, (unsigned)rows[i].status);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_controller_says_what_it_is),
        cmocka_unit_test(without_shadow_doorbells_their_command_is_not_there),
        cmocka_unit_test(a_namespace_says_what_its_backend_is),
        cmocka_unit_test(a_namespace_that_grew_says_so),
        cmocka_unit_test(names_come_as_descriptors),
        cmocka_unit_test(names_are_the_same_tomorrow_and_differ_from_all_others),
        cmocka_unit_test(lists_have_what_is_above_the_nsid),
        cmocka_unit_test(controllers_are_listed),
        cmocka_unit_test(the_command_set_has_its_own_pages),
        cmocka_unit_test(a_namespace_that_is_not_there_is_all_zeroes),
        cmocka_unit_test(mistakes_have_their_status),
    };

    three_open(&three);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
