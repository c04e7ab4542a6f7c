// SPDX-License-Identifier: BSD-3-Clause
// The disk that bench drives: which transport leads to it, and what of it is left alone.
#pragma once

#include "cli/bench_options.h"
#include "driver/disk.h"

// Connects and finds out what the disk is.
int sdc_bench_connect(const struct sdc_bench_options *options, struct sdc_driver_disk **disk, struct sdc_error *err);
