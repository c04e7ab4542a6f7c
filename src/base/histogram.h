// SPDX-License-Identifier: BSD-3-Clause
// How long things took: a histogram of nanoseconds whose buckets grow with the value, so that every value up
// to 2^64 - 1 is kept to within 1/128 of itself. One thread adds; others read when it is done.
#pragma once

#include <stdint.h>

enum {
    SDC_HISTOGRAM_BITS = 7, // buckets of each power of two: 2^7
    SDC_HISTOGRAM_BUCKETS = (64 - SDC_HISTOGRAM_BITS + 1) << SDC_HISTOGRAM_BITS,
};

// Starts zeroed.
struct sdc_histogram {
    uint64_t count;
    uint64_t min; // of what was added; 0 while count is 0
    uint64_t max;
    double sum;
    double sum_of_squares;
    uint64_t buckets[SDC_HISTOGRAM_BUCKETS];
};

void sdc_histogram_add(struct sdc_histogram *histogram, uint64_t value);
// Adds all that `from` has.
void sdc_histogram_merge(struct sdc_histogram *histogram, const struct sdc_histogram *from);
// The smallest value that at least `percent` (0 to 100) of all values don't exceed, as the middle of its
// bucket but never beyond min and max. 0 when there are none.
uint64_t sdc_histogram_percentile(const struct sdc_histogram *histogram, double percent);
double sdc_histogram_mean(const struct sdc_histogram *histogram);
// Standard deviation of the sample.
double sdc_histogram_deviation(const struct sdc_histogram *histogram);
