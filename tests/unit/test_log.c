// SPDX-License-Identifier: BSD-3-Clause
// Log lines: levels, one line a second for each kind, and what a peer may not put into them. And errors.
#include "base/check.h"
#include "base/log.h"

#include <sidecard/error.h>

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char last[4096];
static atomic_uint lines;
static uint64_t now;

static void keep(enum sdc_log_level level, const char *line)
{
    (void)level;
    if (atomic_fetch_add(&lines, 1) == 0)
        snprintf(last, sizeof last, "%s", line);
}

static uint64_t tell_time(void)
{
    return now;
}

static const char *take_line(void)
{
    return atomic_exchange(&lines, 0) == 1 ? last : "(not one line)";
}

static int start(void **state)
{
    (void)state;
    sdc_log_to(&(struct sdc_log_sink){SDC_LOG_INFO, keep, tell_time});
    atomic_store(&lines, 0);
    now = UINT64_C(5000000000);
    return 0;
}

static void without_a_sink_lines_go_nowhere(void **state)
{
    (void)state;
    struct sdc_log_kind kind = {0};
    sdc_log(SDC_LOG_ERROR, "lost");
    sdc_log_limited(&kind, SDC_LOG_ERROR, "lost");
    assert_int_equal(atomic_load(&lines), 0);
}

static void lines_above_the_level_are_not_made(void **state)
{
    (void)state;
    sdc_log(SDC_LOG_INFO, "%d is %s", 7, "seven");
    assert_string_equal(take_line(), "7 is seven");
    sdc_log(SDC_LOG_DEBUG, "too much");
    struct sdc_log_kind kind = {0};
    sdc_log_limited(&kind, SDC_LOG_DEBUG, "too much");
    assert_int_equal(atomic_load(&lines), 0);
    assert_int_equal(atomic_load(&kind.held), 0);
}

static void a_peer_cannot_begin_a_new_line(void **state)
{
    (void)state;
    sdc_log(SDC_LOG_ERROR, "serial '%s'", "a\nsidecard: all is well\r\x1b[2J\x7f\xc3\xa4");
    assert_string_equal(take_line(), "serial 'a?sidecard: all is well??[2J?\xc3\xa4'");
}

static void long_lines_are_cut(void **state)
{
    (void)state;
    char text[3000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    sdc_log(SDC_LOG_ERROR, "%s", text);
    assert_in_range(strlen(take_line()), 500, 1023);
    struct sdc_log_kind kind = {.held = 3};
    sdc_log_limited(&kind, SDC_LOG_ERROR, "%s", text);
    assert_non_null(strstr(take_line(), "xxx (and 3 more like it)"));
}

static void one_line_a_second_for_each_kind(void **state)
{
    (void)state;
    struct sdc_log_kind a = {0}, b = {0};
    sdc_log_limited(&a, SDC_LOG_WARNING, "a %d", 1);
    assert_string_equal(take_line(), "a 1");
    for (int i = 0; i < 41; i++)
        sdc_log_limited(&a, SDC_LOG_WARNING, "a %d", 2);
    now += 999999999;
    sdc_log_limited(&a, SDC_LOG_WARNING, "a %d", 2);
    assert_int_equal(atomic_load(&lines), 0);
    sdc_log_limited(&b, SDC_LOG_WARNING, "b");
    assert_string_equal(take_line(), "b");
    now += 1;
    sdc_log_limited(&a, SDC_LOG_WARNING, "a %d", 3);
    assert_string_equal(take_line(), "a 3 (and 42 more like it)");
    now += UINT64_C(1000000000);
    sdc_log_limited(&a, SDC_LOG_WARNING, "a %d", 4);
    assert_string_equal(take_line(), "a 4");
}

enum { THREADS = 4, LINES = 10000 };

static void *log_many(void *kind)
{
    for (int i = 0; i < LINES; i++)
        sdc_log_limited(kind, SDC_LOG_WARNING, "line");
    return NULL;
}

static void threads_share_a_kind(void **state)
{
    (void)state;
    struct sdc_log_kind kind = {0};
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, log_many, &kind);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&lines), 1);
    unsigned told = 0;
    sscanf(last, "line (and %u more", &told);
    assert_int_equal(atomic_load(&kind.held) + told, THREADS * LINES - 1);
}

static void a_bug_says_so_and_aborts(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        sdc_bug("two and two are five");
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

static int refuse(struct sdc_error *err, const char *text)
{
    return sdc_error_set(err, -ENOSPC, SDC_FAULT_HOST, "no room for %s", text);
}

static void errors_carry_code_fault_and_text(void **state)
{
    (void)state;
    struct sdc_error err = {0};
    char text[1000];
    memset(text, 'y', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_int_equal(refuse(NULL, "nobody"), -ENOSPC);
    assert_int_equal(refuse(&err, "two"), -ENOSPC);
    assert_int_equal(err.code, -ENOSPC);
    assert_int_equal(err.fault, SDC_FAULT_HOST);
    assert_string_equal(err.text, "no room for two");
    refuse(&err, text);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_sink_lines_go_nowhere),
        cmocka_unit_test_setup(lines_above_the_level_are_not_made, start),
        cmocka_unit_test_setup(a_peer_cannot_begin_a_new_line, start),
        cmocka_unit_test_setup(long_lines_are_cut, start),
        cmocka_unit_test_setup(one_line_a_second_for_each_kind, start),
        cmocka_unit_test_setup(threads_share_a_kind, start),
        cmocka_unit_test_setup(a_bug_says_so_and_aborts, start),
        cmocka_unit_test(errors_carry_code_fault_and_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
