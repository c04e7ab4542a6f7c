// SPDX-License-Identifier: BSD-3-Clause
// Tests that hold whatever the loop waits by are run once for each kind of loop.
#pragma once

#include "loop/loop.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static enum sdc_loop_kind loop_kind; // of this run

static inline bool loop_kind_is_permitted(void)
{
    struct sdc_loop *loop;
    struct sdc_error err = {0};
    int ret = sdc_loop_new(loop_kind, &loop, &err);
    if (ret == 0)
        sdc_loop_free(loop);
    else if (loop_kind == SDC_LOOP_EPOLL || (ret != -EPERM && ret != -ENOSYS && ret != -EACCES))
        fail_msg("%s", err.text);
    return ret == 0;
}

// The body of main. A macro, because cmocka counts the tests by the array's size.
#define RUN_WITH_EVERY_LOOP(tests)                                                            \
    int failed = 0;                                                                           \
    for (loop_kind = SDC_LOOP_IO_URING; loop_kind <= SDC_LOOP_EPOLL; loop_kind++) {           \
        const char *name = loop_kind == SDC_LOOP_EPOLL ? "epoll" : "io_uring";                \
        if (loop_kind_is_permitted())                                                         \
            failed += cmocka_run_group_tests_name(name, tests, NULL, NULL);                   \
        else                                                                                  \
            print_message("%s is not permitted here: its tests are left out\n", name);        \
    }                                                                                         \
    return failed
