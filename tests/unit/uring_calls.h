// SPDX-License-Identifier: BSD-3-Clause
// Every way into the kernel that liburing has for a loop, in a test's hands. Goes with uring_calls.c and the linker's arguments uring_wraps
// (meson.build).
#pragma once

#include <liburing.h>

// The test's own: called before each of them, in the thread that calls.
void uring_call(const struct io_uring *ring);
