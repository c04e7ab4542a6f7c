// SPDX-License-Identifier: BSD-3-Clause
// Signals as something to read.
#pragma once

// Blocks the signals of the list (which ends with 0) in this thread and in those it makes from now on; an fd, non-blocking, that
// becomes readable when one arrives; or a negative errno.
int sdc_signals_open(const int *signals);
// The next signal that has arrived, or 0.
int sdc_signals_take(int fd);

// For programs without a loop: calls `caught` when the signal arrives, in a signal handler; only the first time, then the signal has
// its usual effect again. System calls that it interrupts go on.
void sdc_signal_catch_once(int signal, void (*caught)(int signal));
