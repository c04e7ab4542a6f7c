// SPDX-License-Identifier: BSD-3-Clause
// A loop of the kind that the tests are run for, and a run of it that ends.
#pragma once

#include "base/check.h"
#include "loop_kinds.h"

#include <fcntl.h>
#include <sys/mman.h>

#define MS UINT64_C(1000000)

static inline struct sdc_loop *new_loop(void)
{
    struct sdc_loop *loop;
    struct sdc_error err = {0};
    if (sdc_loop_new(loop_kind, &loop, &err) < 0)
        fail_msg("%s", err.text);
    return loop;
}

// Ends a run that would otherwise hang, and makes the test fail.
struct watchdog {
    struct sdc_timer timer;
    struct sdc_loop *loop;
    bool bit;
};

static inline void bite(struct sdc_timer *timer)
{
    struct watchdog *dog = sdc_container(timer, struct watchdog, timer);
    dog->bit = true;
    sdc_loop_stop(dog->loop);
}

static inline void run(struct sdc_loop *loop)
{
    struct watchdog dog = {.timer.expired = bite, .loop = loop};
    assert_int_equal(sdc_loop_timer_set(loop, &dog.timer, 240000 * MS), 0); // emulated and busy hosts are slow
    sdc_loop_run(loop);
    assert_false(dog.bit);
    sdc_loop_timer_clear(loop, &dog.timer);
}

static inline int temporary_file(void)
{
    int fd = open("/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        fd = memfd_create("file", MFD_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}
