// SPDX-License-Identifier: BSD-3-Clause
// Work in a process of its own: what it opens is closed and what it takes is given back when it ends, however it ends, and its end
// can be waited for with a limit. The caller has one thread.
#pragma once

#include <stdint.h>

enum sdc_child_end {
    SDC_CHILD_ENDED,  // of its own accord
    SDC_CHILD_KILLED, // by a signal
    SDC_CHILD_LATE,   // it was still at it when the time was up, and was killed
};

// Runs work(argument) in a child and waits for its end, at most timeout_ms. enum sdc_child_end, with the signal's number in *number if
// it was killed by one, or a negative errno: it did not run.
int sdc_child_run(void (*work)(void *argument), void *argument, int timeout_ms, int *number);
// Ends the child that calls it.
_Noreturn void sdc_child_end(void);
// Memory, all zero, that is the same in the caller and its children. sdc_unmap gives it back.
int sdc_child_share(uint64_t size, void **base);
