// SPDX-License-Identifier: BSD-3-Clause
// Signals as something to read.
#pragma once

// Blocks the signals of the list (which ends with 0) in this thread and in those it makes from now on; an fd, non-blocking, that
// becomes readable when one arrives; or a negative errno.
int sdc_signals_open(const int *signals);
// The next signal that has arrived, or 0.
int sdc_signals_take(int fd);
