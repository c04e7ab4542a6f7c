// SPDX-License-Identifier: BSD-3-Clause
// Telling whoever started this process that it is ready.
#pragma once

#include <sidecard/error.h>

// Writes "READY\n" to fd and closes it.
int sdc_ready_fd(int fd, struct sdc_error *err);
// sd_notify: sends READY=1 to the socket that $NOTIFY_SOCKET names. Nothing happens if none is named.
void sdc_ready_notify(void);
