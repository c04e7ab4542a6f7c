// SPDX-License-Identifier: BSD-3-Clause
// The log. The library writes none unless it is told where to.
#pragma once

#include <sidecard/error.h>

#ifdef __cplusplus
extern "C" {
#endif

enum sdc_log_level { SDC_LOG_ERROR, SDC_LOG_WARNING, SDC_LOG_INFO, SDC_LOG_DEBUG };

// From now on lines up to this level go to write: any thread; a line has no newline, and no characters that would drive a terminal. What a
// peer can cause is written once a second at most, for each kind. NULL: nothing is written, as at first. It is the process's, for all
// servers and clients: set it before the first of them is made.
SDC_PUBLIC void sdc_log_set(enum sdc_log_level level, void (*write)(enum sdc_log_level level, const char *line));

#ifdef __cplusplus
}
#endif
