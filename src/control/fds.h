// SPDX-License-Identifier: BSD-3-Clause
// Whether the process may open what its cards need.
#pragma once

#include "control/options.h"

// Raises the limit of open files as far as this process may, and looks at what `count` cards on `threads` loops take of it. 0; or -EMFILE
// with err filled: not even their sockets and backends fit in. When clients of all of them would not, that is logged.
int sdc_fds_make_room(const struct sdc_serve_options *cards, unsigned count, unsigned threads, struct sdc_error *err);
