// SPDX-License-Identifier: BSD-3-Clause
// Making log lines and handing them to the sink. Until a sink is set they go nowhere.
#include "base/log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { LINE_BYTES = 1024 };
#define SECOND_NS UINT64_C(1000000000)

static struct sdc_log_sink sink;

void sdc_log_to(const struct sdc_log_sink *new_sink)
{
    sink = *new_sink;
}

static bool wanted(enum sdc_log_level level)
{
    return sink.write && level <= sink.level;
}

// A peer's strings may be part of a line: they must not begin a new one or drive a terminal.
void sdc_log_disarm(char *line)
{
    for (; *line; line++)
        if ((unsigned char)*line < 0x20 || *line == 0x7f)
            *line = '?';
}

static void write_line(enum sdc_log_level level, char *line)
{
    sdc_log_disarm(line);
    sink.write(level, line);
}

void sdc_log(enum sdc_log_level level, const char *format, ...)
{
    if (!wanted(level))
        return;
    char line[LINE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    write_line(level, line);
}

// Whether a line of this kind may be written now. The exchange lets one of several threads win.
static bool may_write(struct sdc_log_kind *kind)
{
    uint64_t now = sink.now_ns ? sink.now_ns() : 0;
    if (now == 0)
        now = 1; // 0 stands for "never"
    uint64_t last = atomic_load_explicit(&kind->last_ns, memory_order_relaxed);
    if (last != 0 && (now <= last || now - last < SECOND_NS))
        return false;
    return atomic_compare_exchange_strong(&kind->last_ns, &last, now);
}

void sdc_log_limited(struct sdc_log_kind *kind, enum sdc_log_level level, const char *format, ...)
{
    if (!wanted(level))
        return;
    if (!may_write(kind)) {
        atomic_fetch_add(&kind->held, 1);
        return;
    }
    uint64_t held = atomic_exchange(&kind->held, 0);
    char line[LINE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line - 48, format, arguments);
    va_end(arguments);
    if (length > (int)sizeof line - 49)
        length = (int)sizeof line - 49;
    if (held > 0 && length >= 0)
        snprintf(line + length, sizeof line - (size_t)length, " (and %" PRIu64 " more like it)", held);
    write_line(level, line);
}

_Noreturn void sdc_bug(const char *reason)
{
    if (sink.write)
        sdc_log(SDC_LOG_ERROR, "bug: %s", reason);
    else
        fprintf(stderr, "bug: %s\n",
                reason); // no sink, no process to speak of: a test or somebody else's program
    abort();
}
