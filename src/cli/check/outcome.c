// SPDX-License-Identifier: BSD-3-Clause
// What tests say: how they ended, what was sent, and what came back. All of it lies in memory that the tester shares.
#include "cli/check/check.h"

#include "base/check.h"
#include "os/child.h"
#include "os/clock.h"
#include "os/fd.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MS_NS UINT64_C(1000000)
enum { RETRY_MS = 10 };

// vsnprintf to a text of the outcome.
#define SAY(place, format)                                \
    do {                                                  \
        va_list arguments;                                \
        va_start(arguments, format);                      \
        vsnprintf(place, sizeof(place), format, arguments); \
        va_end(arguments);                                \
    } while (0)

_Noreturn void sdc_check_fail(struct sdc_check *check, const char *format, ...)
{
    SAY(check->outcome->text, format);
    check->outcome->exchange = *check->last;
    check->outcome->result = SDC_CHECK_FAILED;
    sdc_child_end();
}

void sdc_check_violation(struct sdc_check *check, const char *section, const char *format, ...)
{
    if (check->outcome->result == SDC_CHECK_FAILED)
        return;
    SAY(check->outcome->text, format);
    snprintf(check->outcome->section, sizeof check->outcome->section, "%s", section);
    check->outcome->exchange = *check->last;
    check->outcome->result = SDC_CHECK_FAILED;
}

// A test that has failed already stays so.
static _Noreturn void end_with(struct sdc_check *check, enum sdc_check_result result, const char *why)
{
    if (check->outcome->result != SDC_CHECK_FAILED) {
        snprintf(check->outcome->text, sizeof check->outcome->text, "%s", why);
        check->outcome->result = result;
    }
    sdc_child_end();
}

_Noreturn void sdc_check_not_offered(struct sdc_check *check, const char *format, ...)
{
    char why[SDC_CHECK_TEXT];
    SAY(why, format);
    end_with(check, SDC_CHECK_NOT_OFFERED, why);
}

_Noreturn void sdc_check_skip(struct sdc_check *check, const char *format, ...)
{
    char why[SDC_CHECK_TEXT];
    SAY(why, format);
    end_with(check, SDC_CHECK_SKIPPED, why);
}

void sdc_check_note(struct sdc_check *check, const char *format, ...)
{
    char remark[SDC_CHECK_TEXT];
    SAY(remark, format);
    if (check->outcome->result != SDC_CHECK_PASSED)
        return;
    memcpy(check->outcome->text, remark, sizeof remark);
    check->outcome->result = SDC_CHECK_NOTED;
}

void sdc_check_section(struct sdc_check *check, const char *section)
{
    if (check->outcome->result != SDC_CHECK_FAILED)
        snprintf(check->outcome->section, sizeof check->outcome->section, "%s", section);
}

void sdc_check_sent(struct sdc_check *check, const char *format, ...)
{
    SAY(check->last->sent, format);
    check->last->came[0] = '\0';
}

void sdc_check_came(struct sdc_check *check, const char *format, ...)
{
    SAY(check->last->came, format);
}

int sdc_check_must(struct sdc_check *check, int ret, const struct sdc_error *err, const char *what)
{
    if (ret >= 0)
        return ret;
    sdc_check_came(check, "%s", err->text);
    sdc_check_fail(check, "%s has to succeed", what);
}

int sdc_check_patience(const struct sdc_check *check)
{
    uint64_t now = sdc_clock_ns();
    uint64_t left = now < check->deadline_ns ? (check->deadline_ns - now) / MS_NS : 0;
    return (int)sdc_max(sdc_min(left, check->options->timeout_s * 1000), 1);
}

// Connects to a server that the client before has not seen: by the socket's file, before and after. -ESTALE: it is not there yet.
static int connect_to_another(struct sdc_check *check, int patience, struct sdc_error *err)
{
    const char *path = check->options->socket;
    struct sdc_socket_file before, after;

    if (!sdc_socket_file(path, &before) || sdc_socket_same_file(&before, check->served))
        return sdc_error_set(err, -ESTALE, SDC_FAULT_PEER, "%s: no server was started anew, with another socket", path);
    int fd = sdc_socket_connect(path, patience, err);
    if (fd < 0)
        return fd;
    if (!sdc_socket_file(path, &after) || !sdc_socket_same_file(&before, &after)) {
        sdc_fd_close(&fd);
        return sdc_error_set(err, -ESTALE, SDC_FAULT_PEER, "%s: another server has taken the place of the one that was there", path);
    }
    *check->served = after;
    return fd;
}

static int connect_once(struct sdc_check *check, int patience, struct sdc_error *err)
{
    return check->options->restarts ? connect_to_another(check, patience, err)
                                    : sdc_socket_connect(check->options->socket, patience, err);
}

int sdc_check_connect(struct sdc_check *check)
{
    struct sdc_error err = {0};
    int patience = sdc_check_patience(check);
    uint64_t give_up = sdc_clock_ns() + (uint64_t)patience * MS_NS;
    int fd = connect_once(check, patience, &err);
    // A server that serves one client and ends may be started anew by somebody.
    while ((fd == -ENOENT || fd == -ECONNREFUSED || fd == -ESTALE) && sdc_clock_ns() < give_up) {
        sdc_clock_pause(RETRY_MS * MS_NS);
        fd = connect_once(check, patience, &err);
    }
    if (fd < 0) {
        sdc_check_sent(check, "a connection to the socket");
        sdc_check_came(check, "%s", err.text);
        check->outcome->unreached = true;
        sdc_check_fail(check, "the server has to let clients in");
    }
    return fd;
}

const char *sdc_check_hex(const void *bytes, size_t size, char *buffer, size_t room)
{
    const uint8_t *from = bytes;
    size_t used = 0;
    buffer[0] = '\0';
    for (size_t i = 0; i < size && used + 32 < room; i++)
        used += (size_t)snprintf(buffer + used, room - used, "%s%02x", i > 0 ? " " : "", from[i]);
    if (used < size * 3 - (size > 0))
        snprintf(buffer + used, room - used, " ... (%zu bytes)", size);
    return buffer;
}
