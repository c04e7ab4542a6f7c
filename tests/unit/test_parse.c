// SPDX-License-Identifier: BSD-3-Clause
// Numbers, sizes and words as people type them.
#include "base/check.h"
#include "base/parse.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void numbers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t min, max;
        int result;
        uint64_t value;
    } rows[] = {
        {"0", 0, 10, 0, 0},
        {"10", 0, 10, 0, 10},
        {"007", 0, 10, 0, 7},
        {"11", 0, 10, -ERANGE, 0},
        {"0", 1, 10, -ERANGE, 0},
        {"18446744073709551615", 0, UINT64_MAX, 0, UINT64_MAX},
        {"18446744073709551616", 0, UINT64_MAX, -ERANGE, 0},
        {"99999999999999999999999", 0, UINT64_MAX, -ERANGE, 0},
        {"99999999999999999999999x", 0, UINT64_MAX, -EINVAL, 0},
        {"", 0, 10, -EINVAL, 0},
        {"-1", 0, UINT64_MAX, -EINVAL, 0},
        {"+1", 0, 10, -EINVAL, 0},
        {" 1", 0, 10, -EINVAL, 0},
        {"1 ", 0, 10, -EINVAL, 0},
        {"1k", 0, 10000, -EINVAL, 0},
        {"0x10", 0, 100, -EINVAL, 0},
        {"1.0", 0, 10, -EINVAL, 0},
        {"four", 0, 10, -EINVAL, 0},
    };
    for (size_t i = 0; i < SDC_COUNT(rows); i++) {
        uint64_t value = 12345;
        int result = sdc_parse_number(rows[i].text, rows[i].min, rows[i].max, &value);
        if (result != rows[i].result || value != (result == 0 ? rows[i].value : 12345))
            fail_msg("'%s': %d, %llu", rows[i].text, result, (unsigned long long)value);
    }
}

static void sizes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int result;
        uint64_t value;
    } rows[] = {
        {"0", 0, 0},
        {"512", 0, 512},
        {"4k", 0, 4096},
        {"4K", 0, 4096},
        {"4KiB", 0, 4096},
        {"4kiB", 0, 4096},
        {"1M", 0, UINT64_C(1) << 20},
        {"10G", 0, UINT64_C(10) << 30},
        {"3TiB", 0, UINT64_C(3) << 40},
        {"1P", 0, UINT64_C(1) << 50},
        {"8191P", 0, UINT64_C(8191) << 50},
        {"8192P", -ERANGE, 0},
        {"9223372036854775807", 0, INT64_MAX},
        {"9223372036854775808", -ERANGE, 0},
        {"18446744073709551616", -ERANGE, 0},
        {"99999999999999999999G", -ERANGE, 0},
        {"99999999999999999999Q", -EINVAL, 0},
        {"", -EINVAL, 0},
        {"G", -EINVAL, 0},
        {"-1G", -EINVAL, 0},
        {"1.5G", -EINVAL, 0},
        {"1kB", -EINVAL, 0},
        {"1KB", -EINVAL, 0},
        {"1B", -EINVAL, 0},
        {"64m", 0, UINT64_C(64) << 20},
        {"2g", 0, UINT64_C(2) << 30},
        {"1t", 0, UINT64_C(1) << 40},
        {"1mB", -EINVAL, 0},
        {"1Ki", -EINVAL, 0},
        {"1KiBs", -EINVAL, 0},
        {"1 G", -EINVAL, 0},
        {"1GG", -EINVAL, 0},
    };
    for (size_t i = 0; i < SDC_COUNT(rows); i++) {
        uint64_t value = 12345;
        int result = sdc_parse_size(rows[i].text, &value);
        if (result != rows[i].result || value != (result == 0 ? rows[i].value : 12345))
            fail_msg("'%s': %d, %llu", rows[i].text, result, (unsigned long long)value);
    }
}

static void times(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int result;
        uint64_t ns;
    } rows[] = {
        {"1ns", 0, 1},
        {"15us", 0, 15000},
        {"2ms", 0, 2000000},
        {"3s", 0, UINT64_C(3000000000)},
        {"2m", 0, UINT64_C(120000000000)},
        {"1h", 0, UINT64_C(3600000000000)},
        {"0", 0, 0},
        {"0s", 0, 0},
        {"9223372036854775807ns", 0, INT64_MAX},
        {"9223372036854775808ns", -ERANGE, 0},
        {"9223372037s", -ERANGE, 0},
        {"99999999999999999999999h", -ERANGE, 0},
        {"1", -EINVAL, 0},
        {"", -EINVAL, 0},
        {"ms", -EINVAL, 0},
        {"-1ms", -EINVAL, 0},
        {"1.5s", -EINVAL, 0},
        {"1 s", -EINVAL, 0},
        {"1S", -EINVAL, 0},
        {"1msec", -EINVAL, 0},
    };
    for (size_t i = 0; i < SDC_COUNT(rows); i++) {
        uint64_t ns = 0;
        int result = sdc_parse_time(rows[i].text, &ns);
        if (result != rows[i].result || (result == 0 && ns != rows[i].ns))
            fail_msg("'%s': %d, %llu", rows[i].text, result, (unsigned long long)ns);
    }
}

static void yes_and_no(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int result;
        bool value;
    } rows[] = {
        {"on", 0, true},      {"true", 0, true},      {"yes", 0, true},      {"1", 0, true},
        {"off", 0, false},    {"false", 0, false},    {"no", 0, false},      {"0", 0, false},
        {"", -EINVAL, false}, {"On", -EINVAL, false}, {"2", -EINVAL, false}, {"onn", -EINVAL, false},
    };
    for (size_t i = 0; i < SDC_COUNT(rows); i++) {
        for (int before = 0; before < 2; before++) {
            bool value = before;
            int result = sdc_parse_bool(rows[i].text, &value);
            if (result != rows[i].result || value != (result == 0 ? rows[i].value : (bool)before))
                fail_msg("'%s': %d, %d", rows[i].text, result, value);
        }
    }
}

static void sizes_as_text(void **state)
{
    (void)state;
    static const struct {
        uint64_t bytes;
        const char *text;
    } rows[] = {
        {0, "0 B"},
        {1023, "1023 B"},
        {1024, "1.0 KiB"},
        {1536, "1.5 KiB"},
        {1048575, "1023.9 KiB"},
        {1048576, "1.0 MiB"},
        {UINT64_C(12) << 30, "12.0 GiB"},
        {UINT64_MAX, "15.9 EiB"},
    };
    for (size_t i = 0; i < SDC_COUNT(rows); i++) {
        char buffer[32];
        assert_string_equal(sdc_format_size(rows[i].bytes, buffer), rows[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers),
        cmocka_unit_test(sizes),
        cmocka_unit_test(times),
        cmocka_unit_test(yes_and_no),
        cmocka_unit_test(sizes_as_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
