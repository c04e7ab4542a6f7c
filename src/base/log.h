// SPDX-License-Identifier: BSD-3-Clause
// The log, and the end of the road for bugs. base makes no system call of its own: who starts the process says where
// lines go and what time it is.
#pragma once

#include <sidecard/log.h>

#include <stdbool.h>
#include <stdint.h>

struct sdc_log_sink {
    enum sdc_log_level level; // lines above it are not made
    void (*write)(enum sdc_log_level level, const char *line); // any thread; the line has no newline
    uint64_t (*now_ns)(void); // monotonic
};

// Set before the first thread starts.
void sdc_log_to(const struct sdc_log_sink *sink);

void sdc_log(enum sdc_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

// What a peer can cause: one line a second for each kind (a static struct at the place that logs), the rest are counted
// and the count is told with the next line. Any thread.
struct sdc_log_kind {
    _Atomic uint64_t last_ns;
    _Atomic uint64_t held;
};
void sdc_log_limited(struct sdc_log_kind *kind, enum sdc_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define sdc_log_peer(...)                                            \
    do {                                                             \
        static struct sdc_log_kind kind_;                            \
        sdc_log_limited(&kind_, SDC_LOG_WARNING, __VA_ARGS__);       \
    } while (0)

// Takes out of a line what would break it or drive a terminal.
void sdc_log_disarm(char *line);

// A state that no peer and no user can bring about: says so and aborts.
_Noreturn void sdc_bug(const char *reason);
