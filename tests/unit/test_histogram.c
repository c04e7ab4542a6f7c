// SPDX-License-Identifier: BSD-3-Clause
// The histogram: exact where it promises to be, close elsewhere, for every size of number.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/histogram.h"

#include <stdlib.h>
#include <string.h>

static struct sdc_histogram *new_histogram(void)
{
    return calloc(1, sizeof(struct sdc_histogram));
}

static void an_empty_one_is_all_zero(void **state)
{
    (void)state;
    struct sdc_histogram *h = new_histogram();
    assert_int_equal(sdc_histogram_percentile(h, 99), 0);
    assert_true(sdc_histogram_mean(h) == 0);
    assert_true(sdc_histogram_deviation(h) == 0);
    free(h);
}

static void small_values_are_exact(void **state)
{
    (void)state;
    struct sdc_histogram *h = new_histogram();
    for (uint64_t i = 1; i <= 100; i++)
        sdc_histogram_add(h, i);
    assert_int_equal(h->min, 1);
    assert_int_equal(h->max, 100);
    assert_int_equal(sdc_histogram_percentile(h, 0), 1);
    assert_int_equal(sdc_histogram_percentile(h, 1), 1);
    assert_int_equal(sdc_histogram_percentile(h, 50), 50);
    assert_int_equal(sdc_histogram_percentile(h, 99), 99);
    assert_int_equal(sdc_histogram_percentile(h, 99.1), 100);
    assert_int_equal(sdc_histogram_percentile(h, 100), 100);
    assert_true(sdc_histogram_mean(h) == 50.5);
    assert_true(sdc_histogram_deviation(h) > 29.01 && sdc_histogram_deviation(h) < 29.02);
    free(h);
}

// Each value of every magnitude comes back within 1/128; the neighbours keep min and max out of the way.
static void every_magnitude_is_kept_close(void **state)
{
    (void)state;
    for (unsigned bit = 0; bit < 64; bit++) {
        uint64_t values[] = {UINT64_C(1) << bit, (UINT64_C(1) << bit) + (UINT64_C(1) << bit) / 3,
                             ((UINT64_C(1) << bit) - 1) * 2 + 1};
        for (unsigned i = 0; i < 3; i++) {
            struct sdc_histogram *h = new_histogram();
            sdc_histogram_add(h, 0);
            sdc_histogram_add(h, values[i]);
            sdc_histogram_add(h, UINT64_MAX);
            uint64_t got = sdc_histogram_percentile(h, 50);
            uint64_t off = got > values[i] ? got - values[i] : values[i] - got;
            assert_true(off <= values[i] / 128);
            free(h);
        }
    }
}

static void merging_is_as_good_as_adding_all_to_one(void **state)
{
    (void)state;
    struct sdc_histogram *parts[2] = {new_histogram(), new_histogram()}, *all = new_histogram();
    struct sdc_histogram *sum = new_histogram(), *empty = new_histogram();
    uint64_t value = 12345;
    for (unsigned i = 0; i < 10000; i++) {
        value = value * 6364136223846793005u + 1442695040888963407u;
        sdc_histogram_add(parts[i & 1], value >> (value & 31));
        sdc_histogram_add(all, value >> (value & 31));
    }
    sdc_histogram_merge(sum, parts[0]);
    sdc_histogram_merge(sum, empty);
    sdc_histogram_merge(sum, parts[1]);
    assert_int_equal(sum->count, all->count);
    assert_int_equal(sum->min, all->min);
    assert_int_equal(sum->max, all->max);
    assert_memory_equal(sum->buckets, all->buckets, sizeof all->buckets);
    free(parts[0]), free(parts[1]), free(all), free(sum), free(empty);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_one_is_all_zero),
        cmocka_unit_test(small_values_are_exact),
        cmocka_unit_test(every_magnitude_is_kept_close),
        cmocka_unit_test(merging_is_as_good_as_adding_all_to_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
