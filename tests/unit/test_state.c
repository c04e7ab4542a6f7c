// SPDX-License-Identifier: BSD-3-Clause
// The state record's format: what is committed is there, what is not never was, and what is wrong is refused with a reason.
#include "wire/state.h"

#include "base/bytes.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct sdc_state_shape shape = {
    .identity = "a card", .session = 40, .registers = 1001, .interrupts = 8, .regions = 5, .received = 100, .owed = 100, .queues = 4096};

// A record whose registers are all `value`, and with one region.
static uint8_t *record_with(uint8_t value)
{
    uint8_t *bytes = aligned_alloc(4096, sdc_state_size(&shape));
    uint8_t registers[1001];
    struct sdc_state state;

    memset(bytes, 0, sdc_state_size(&shape));
    memset(registers, value, sizeof registers);
    sdc_state_format(&state, bytes, &shape);
    sdc_state_prepare(&state, SDC_STATE_REGISTERS, registers, sizeof registers);
    sdc_state_region_born(&state, 3, &(struct sdc_state_region){.iova = 0x1000, .size = 0x2000, .offset = 0x3000, .slot = 7, .access = 3});
    sdc_state_commit(&state);
    return bytes;
}

static void reopen(struct sdc_state *state, uint8_t *bytes)
{
    struct sdc_error err = {0};

    if (sdc_state_parse(state, bytes, sdc_state_size(&shape), &shape, &err) < 0)
        fail_msg("%s", err.text);
}

static void test_what_was_committed_is_there(void **unused)
{
    uint8_t *bytes = record_with(5);
    struct sdc_state state;
    struct sdc_state_region region;

    (void)unused;
    reopen(&state, bytes);
    assert_null(sdc_state_now(&state, SDC_STATE_SESSION));
    const uint8_t *registers = sdc_state_now(&state, SDC_STATE_REGISTERS);
    assert_non_null(registers);
    assert_int_equal(registers[0], 5);
    assert_int_equal(registers[1000], 5);
    assert_true(sdc_state_region_now(&state, 3, &region));
    assert_int_equal(region.iova, 0x1000);
    assert_int_equal(region.size, 0x2000);
    assert_int_equal(region.offset, 0x3000);
    assert_int_equal(region.slot, 7);
    assert_int_equal(region.access, 3);
    assert_false(sdc_state_region_now(&state, 2, &region));
    free(bytes);
}

static void test_what_was_not_committed_never_was(void **unused)
{
    uint8_t *bytes = record_with(5);
    uint8_t later[1001];
    struct sdc_state state, next;
    struct sdc_state_region region;

    (void)unused;
    reopen(&state, bytes);
    memset(later, 6, sizeof later);
    sdc_state_prepare(&state, SDC_STATE_REGISTERS, later, sizeof later);
    sdc_state_prepare(&state, SDC_STATE_SESSION, "x", 1);
    sdc_state_region_died(&state, 3);
    sdc_state_region_born(&state, 4, &(struct sdc_state_region){.iova = 0x9000, .size = 0x1000});
    // Another process comes, which does not take what was prepared for its own, when it commits either.
    reopen(&next, bytes);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(sdc_state_now(&next, SDC_STATE_REGISTERS)[0], 5);
        assert_null(sdc_state_now(&next, SDC_STATE_SESSION));
        assert_true(sdc_state_region_now(&next, 3, &region));
        assert_false(sdc_state_region_now(&next, 4, &region));
        sdc_state_commit(&next);
    }
    free(bytes);
}

static void test_the_newest_of_many_counts(void **unused)
{
    uint8_t *bytes = record_with(0);
    struct sdc_state state;
    struct sdc_state_region region;

    (void)unused;
    reopen(&state, bytes);
    for (unsigned i = 1; i < 50; i++) {
        uint8_t value = (uint8_t)i;
        sdc_state_prepare(&state, SDC_STATE_SESSION, "made twice", 10);
        sdc_state_prepare(&state, SDC_STATE_SESSION, &value, 1);
        if (i % 2)
            sdc_state_region_died(&state, 3);
        else
            sdc_state_region_born(&state, 3, &(struct sdc_state_region){.iova = i});
        sdc_state_commit(&state);
        reopen(&state, bytes);
        assert_int_equal(sdc_state_now(&state, SDC_STATE_SESSION)[0], i);
        assert_int_equal(sdc_state_now(&state, SDC_STATE_SESSION)[1], 0);
        assert_int_equal(sdc_state_region_now(&state, 3, &region), i % 2 == 0);
    }
    free(bytes);
}

// --- refusals (row P10) ---

static void expect_refused(uint8_t *bytes, uint64_t size, const struct sdc_state_shape *wanted, const char *words)
{
    struct sdc_state state;
    struct sdc_error err = {0};

    assert_int_equal(sdc_state_parse(&state, bytes, size, wanted, &err), -EINVAL);
    if (!strstr(err.text, words))
        fail_msg("'%s' does not say '%s'", err.text, words);
}

static void test_p10_a_record_that_is_wrong_is_refused_and_says_why(void **unused)
{
    static const struct {
        unsigned offset;
        const char *words;
    } cases[] = {
        {0, "no state record"},
        {8, "is of version"},
        {13, "checksum"},
        {18, "checksum"},
        {24, "checksum"},
        {39, "generation"},
        {64 + 8, "checksum"},
        {64 + 16, "checksum"},
    };
    uint64_t size = sdc_state_size(&shape);

    (void)unused;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t *bytes = record_with(5);
        bytes[cases[i].offset] ^= 0x80;
        expect_refused(bytes, size, &shape, cases[i].words);
        free(bytes);
    }
}

static void test_p10_every_bit_of_a_pair_is_looked_at(void **unused)
{
    uint8_t *bytes = record_with(5);
    struct sdc_state state;

    (void)unused;
    reopen(&state, bytes);
    uint8_t *registers = (uint8_t *)(uintptr_t)sdc_state_now(&state, SDC_STATE_REGISTERS);
    for (unsigned bit = 0; bit < 1001 * 8; bit += 7) {
        registers[bit / 8] ^= (uint8_t)(1U << bit % 8);
        expect_refused(bytes, sdc_state_size(&shape), &shape, "section 'registers' has a wrong checksum");
        registers[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    reopen(&state, bytes);
    free(bytes);
}

static void test_p10_a_record_that_is_cut_is_refused(void **unused)
{
    uint8_t *bytes = record_with(5);
    uint64_t size = sdc_state_size(&shape);

    (void)unused;
    expect_refused(bytes, size - 1, &shape, "cut");
    expect_refused(bytes, 4096, &shape, "cut");
    expect_refused(bytes, 4095, &shape, "no state record");
    expect_refused(bytes, 0, &shape, "no state record");
    free(bytes);
}

static void test_p10_a_record_of_another_shape_is_refused(void **unused)
{
    uint8_t *bytes = record_with(5);
    uint64_t size = sdc_state_size(&shape);
    struct sdc_state_shape other = shape;

    (void)unused;
    other.identity[0] = 'A';
    expect_refused(bytes, size, &other, "of another card: 'a card', and this one is 'A card'");
    other = shape;
    other.queues += 4096;
    expect_refused(bytes, size, &other, "section 'queues' has another size");
    other = shape;
    other.regions--;
    expect_refused(bytes, size, &other, "section 'regions' has another size");
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_committed_is_there),
        cmocka_unit_test(test_what_was_not_committed_never_was),
        cmocka_unit_test(test_the_newest_of_many_counts),
        cmocka_unit_test(test_p10_a_record_that_is_wrong_is_refused_and_says_why),
        cmocka_unit_test(test_p10_every_bit_of_a_pair_is_looked_at),
        cmocka_unit_test(test_p10_a_record_that_is_cut_is_refused),
        cmocka_unit_test(test_p10_a_record_of_another_shape_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
