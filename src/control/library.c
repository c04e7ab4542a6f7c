// SPDX-License-Identifier: BSD-3-Clause
// What concerns a program that uses the library as a whole.
#include <sidecard/server.h>

#include "base/log.h"
#include "os/clock.h"

void sdc_log_set(enum sdc_log_level level, void (*write)(enum sdc_log_level level, const char *line))
{
    sdc_log_to(&(struct sdc_log_sink){.level = level, .write = write, .now_ns = sdc_clock_ns});
}

const char *sdc_version(void)
{
    return SDC_VERSION;
}
