// SPDX-License-Identifier: BSD-3-Clause
// Tables of options: what values of each kind may be, where they go, and what is said of the others.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/check.h"
#include "base/option.h"

#include <errno.h>
#include <string.h>

struct values {
    uint8_t before;
    uint16_t queues;
    uint8_t behind;
    uint32_t size;
    uint64_t bytes;
    int mode;
    bool flag, answer;
    const char *text;
};

static int parse_mode(const struct sdc_option *option, const char *text, void *value, struct sdc_error *err)
{
    static const char *const names[] = {"never", "adaptive", "always"};
    int which = sdc_option_pick(text, names, SDC_COUNT(names), err);

    (void)option;
    if (which >= 0)
        *(int *)value = which;
    return which < 0 ? which : 0;
}

#define AT(member) SDC_OPTION_AT(struct values, member)

static const struct sdc_option rows[] = {
    {"queues", SDC_OPTION_NUMBER, AT(queues), 1, 1024, "4", NULL},
    {"size", SDC_OPTION_POWER_OF_TWO, AT(size), 1, 32768, "256", NULL},
    {"bytes", SDC_OPTION_SIZE, AT(bytes), 512, INT64_MAX, "64k", NULL},
    {"mode", SDC_OPTION_CALL, AT(mode), 0, 0, "never", parse_mode},
    {"flag", SDC_OPTION_FLAG, AT(flag), 0, 0, NULL, NULL},
    {"answer", SDC_OPTION_BOOL, AT(answer), 0, 0, "off", NULL},
    {"text", SDC_OPTION_TEXT, AT(text), 0, 5, "DISK1", NULL},
};
static const struct sdc_options table = {rows, SDC_COUNT(rows)};
static const struct sdc_option other_rows[] = {
    {"queues", SDC_OPTION_NUMBER, AT(queues), 1, 4, "4", NULL},
    {"namespaces", SDC_OPTION_NUMBER, AT(queues), 1, 256, "4", NULL},
};
static const struct sdc_options other = {other_rows, SDC_COUNT(other_rows)};

static int set(struct values *values, const char *name, const char *text, struct sdc_error *err)
{
    const struct sdc_option_group group = {&table, values, NULL}, *found;
    const struct sdc_option *option = sdc_option_find(&group, 1, name, strlen(name), &found);

    assert_non_null(option);
    *err = (struct sdc_error){0};
    return sdc_option_set(option, values, text, err);
}

static void values_go_where_the_table_says(void **state)
{
    struct values values = {.before = 0xaa, .behind = 0xbb};
    struct sdc_error err;

    (void)state;
    assert_int_equal(set(&values, "queues", "1024", &err), 0);
    assert_int_equal(values.queues, 1024);
    assert_int_equal(values.before, 0xaa); // as wide as it is, and no wider
    assert_int_equal(values.behind, 0xbb);
    assert_int_equal(set(&values, "size", "256", &err), 0);
    assert_int_equal(values.size, 256);
    assert_int_equal(set(&values, "bytes", "3M", &err), 0);
    assert_int_equal(values.bytes, 3 << 20);
    assert_int_equal(set(&values, "mode", "always", &err), 0);
    assert_int_equal(values.mode, 2);
    assert_int_equal(set(&values, "flag", "on", &err), 0);
    assert_int_equal(set(&values, "answer", "yes", &err), 0);
    assert_true(values.flag && values.answer);
    assert_int_equal(set(&values, "answer", "off", &err), 0);
    assert_false(values.answer);
    assert_int_equal(set(&values, "text", "abcde", &err), 0);
    assert_string_equal(values.text, "abcde");
}

static void mistakes_are_told_and_change_nothing(void **state)
{
    static const struct {
        const char *name, *text, *what;
    } cases[] = {
        {"queues", "0", "must be 1 to 1024"},
        {"queues", "1025", "must be 1 to 1024"},
        {"queues", "x", "is not a number"},
        {"queues", "", "is not a number"},
        {"size", "100", "must be a power of two, 1 to 32768"},
        {"size", "65536", "must be 1 to 32768"},
        {"bytes", "511", "must be 512 B to"},
        {"bytes", "1x", "is not a size in bytes"},
        {"bytes", "16E", "is not a size in bytes"},
        {"mode", "sometimes", "must be never, adaptive or always"},
        {"flag", "perhaps", "must be on or off"},
        {"answer", "2", "must be on or off"},
        {"text", "abcdef", "has 6 characters, the limit is 5"},
    };

    (void)state;
    for (size_t i = 0; i < SDC_COUNT(cases); i++) {
        struct values values = {0}, none = {0};
        struct sdc_error err;
        assert_int_equal(set(&values, cases[i].name, cases[i].text, &err), -EINVAL);
        assert_int_equal(err.fault, SDC_FAULT_USER);
        if (!strstr(err.text, cases[i].what))
            fail_msg("%s=%s: '%s' is not in '%s'", cases[i].name, cases[i].text, cases[i].what, err.text);
        assert_memory_equal(&values, &none, sizeof values);
    }
}

static void a_table_with_values_goes_before_one_without(void **state)
{
    struct values values;
    const struct sdc_option_group groups[] = {{&other, NULL, "it is another's"}, {&table, &values, NULL}}, *found = NULL;

    (void)state;
    assert_ptr_equal(sdc_option_find(groups, 2, "queues", 6, &found), &rows[0]);
    assert_ptr_equal(found, &groups[1]);
    assert_ptr_equal(sdc_option_find(groups, 2, "namespaces", 10, &found), &other_rows[1]);
    assert_ptr_equal(found, &groups[0]);
    assert_null(sdc_option_find(groups, 2, "queue", 5, &found)); // names count whole
    assert_null(sdc_option_find(groups, 2, "queuess", 7, &found));
    assert_ptr_equal(sdc_option_find(groups, 2, "queues=4", 6, &found), &rows[0]);
}

static void the_nearest_name_is_one_that_may_be_given(void **state)
{
    struct values values;
    const struct sdc_option_group groups[] = {{&other, NULL, "it is another's"}, {&table, &values, NULL}};

    (void)state;
    assert_string_equal(sdc_option_nearest(groups, 2, "quees"), "queues");
    assert_null(sdc_option_nearest(groups, 2, "namespacs"));
    assert_null(sdc_option_nearest(groups, 2, "zzzzzzzz"));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_go_where_the_table_says),
        cmocka_unit_test(mistakes_are_told_and_change_nothing),
        cmocka_unit_test(a_table_with_values_goes_before_one_without),
        cmocka_unit_test(the_nearest_name_is_one_that_may_be_given),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
