// SPDX-License-Identifier: BSD-3-Clause
// A log-linear histogram. Values under 2^BITS have a bucket each; above, the highest BITS + 1 bits of a value
// choose its bucket.
#include "base/histogram.h"

#include <math.h>

enum { BITS = SDC_HISTOGRAM_BITS };

static unsigned bucket_of(uint64_t value)
{
    if (value < UINT64_C(1) << BITS)
        return (unsigned)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - BITS;
    return ((shift + 1) << BITS) + (unsigned)((value >> shift) & ((1u << BITS) - 1));
}

// The middle of a bucket.
static uint64_t value_of(unsigned bucket)
{
    unsigned row = bucket >> BITS;
    uint64_t low = bucket & ((1u << BITS) - 1);
    if (row == 0)
        return low;
    unsigned shift = row - 1;
    low = (low + (UINT64_C(1) << BITS)) << shift;
    return low + (UINT64_C(1) << shift) / 2;
}

void sdc_histogram_add(struct sdc_histogram *histogram, uint64_t value)
{
    if (histogram->count == 0 || value < histogram->min)
        histogram->min = value;
    if (value > histogram->max)
        histogram->max = value;
    histogram->count++;
    histogram->sum += (double)value;
    histogram->sum_of_squares += (double)value * (double)value;
    histogram->buckets[bucket_of(value)]++;
}

void sdc_histogram_merge(struct sdc_histogram *histogram, const struct sdc_histogram *from)
{
    if (from->count == 0)
        return;
    if (histogram->count == 0 || from->min < histogram->min)
        histogram->min = from->min;
    if (from->max > histogram->max)
        histogram->max = from->max;
    histogram->count += from->count;
    histogram->sum += from->sum;
    histogram->sum_of_squares += from->sum_of_squares;
    for (unsigned i = 0; i < SDC_HISTOGRAM_BUCKETS; i++)
        histogram->buckets[i] += from->buckets[i];
}

uint64_t sdc_histogram_percentile(const struct sdc_histogram *histogram, double percent)
{
    double wanted = ceil((double)histogram->count * percent / 100.0);
    uint64_t below = 0;
    if (histogram->count == 0)
        return 0;
    for (unsigned i = 0; i < SDC_HISTOGRAM_BUCKETS; i++) {
        below += histogram->buckets[i];
        if (below == 0 || (double)below < wanted)
            continue;
        uint64_t value = value_of(i);
        if (value < histogram->min)
            return histogram->min;
        return value > histogram->max ? histogram->max : value;
    }
    return histogram->max;
}

double sdc_histogram_mean(const struct sdc_histogram *histogram)
{
    return histogram->count == 0 ? 0 : histogram->sum / (double)histogram->count;
}

double sdc_histogram_deviation(const struct sdc_histogram *histogram)
{
    double count = (double)histogram->count;
    if (histogram->count < 2)
        return 0;
    double variance = (histogram->sum_of_squares - histogram->sum * histogram->sum / count) / (count - 1);
    return variance > 0 ? sqrt(variance) : 0;
}
