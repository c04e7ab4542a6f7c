// SPDX-License-Identifier: BSD-3-Clause
// Gathering: drivers of several kinds against a device that takes no time, step by step with a clock of the test's.
#include "loop/gather.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { LOOK_NS = 50, BATCHES = 20000 };

// Keeps so many requests going around. What comes back it submits again: all that it has in its hands every step_ns, at most `most`.
struct driver {
    uint32_t keeps;
    uint32_t most;
    uint64_t step_ns;
    uint32_t there; // in the ring; the others are in its hands
    uint64_t next_ns;
};

struct run {
    struct sdc_gather gather;
    uint64_t now_ns;
    uint64_t batches, requests;
    uint64_t waits;        // batches that waited
    uint64_t waited_ns;    // all of them
    uint64_t longest_ns;
};

static void submit(struct driver *driver, uint64_t now_ns)
{
    while (now_ns >= driver->next_ns) {
        uint32_t ready = driver->keeps - driver->there;
        driver->there += ready < driver->most ? ready : driver->most;
        driver->next_ns += driver->step_ns;
    }
}

static void note_batch(struct run *run, uint64_t since_ns, uint32_t count)
{
    uint64_t waited = since_ns ? run->now_ns - since_ns : 0;

    run->batches++;
    run->requests += count;
    run->waits += waited > 0;
    run->waited_ns += waited;
    if (waited > run->longest_ns)
        run->longest_ns = waited;
}

static void go(struct run *run, struct driver *driver, unsigned batches)
{
    uint64_t since_ns = 0, end = run->batches + batches;

    driver->next_ns = run->now_ns;
    driver->there = 0;
    while (run->batches < end) {
        run->now_ns += LOOK_NS;
        submit(driver, run->now_ns);
        if (sdc_gather_rests(&run->gather, run->now_ns) || driver->there == 0)
            continue;
        if (sdc_gather_waits(&run->gather, driver->there, run->now_ns)) {
            since_ns = since_ns ? since_ns : run->now_ns;
            continue;
        }
        note_batch(run, since_ns, driver->there);
        since_ns = 0;
        driver->there = 0;
    }
}

static void forget_counts(struct run *run)
{
    run->batches = run->requests = run->waits = run->waited_ns = run->longest_ns = 0;
}

static void who_has_few_in_flight_is_hardly_ever_waited_for(void **state)
{
    (void)state;
    for (uint32_t keeps = 1; keeps < SDC_GATHER_LEAST; keeps++) {
        struct run run = {.now_ns = 1};
        struct driver driver = {.keeps = keeps, .most = keeps, .step_ns = 400};
        go(&run, &driver, BATCHES);
        assert_in_range(run.waits, 1, 4 * BATCHES / SDC_GATHER_PROBES);
        assert_in_range(run.waited_ns, 1, run.now_ns / 100);
    }
}

static void of_many_that_come_one_by_one_a_part_is_gathered(void **state)
{
    // From one that is as quick as the device looks to one for which a line travels far.
    static const uint64_t steps[] = {60, 80, 150, 330};

    (void)state;
    for (unsigned i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        struct run run = {.now_ns = 1};
        struct driver driver = {.keeps = 128, .most = 1, .step_ns = steps[i]};
        go(&run, &driver, BATCHES);
        assert_true(run.requests / run.batches >= 24);
        assert_true(run.longest_ns <= SDC_GATHER_MOST_NS + SDC_GATHER_STEP_NS + LOOK_NS);
    }
}

static void who_is_slow_is_not_waited_for(void **state)
{
    struct run run = {.now_ns = 1};
    struct driver driver = {.keeps = 128, .most = 1, .step_ns = UINT64_C(3) * SDC_GATHER_STEP_NS};

    (void)state;
    go(&run, &driver, BATCHES);
    assert_in_range(run.waits, 1, 4 * BATCHES / SDC_GATHER_PROBES);
}

static void who_submits_many_at_once_is_hardly_ever_waited_for(void **state)
{
    struct run run = {.now_ns = 1};
    struct driver driver = {.keeps = 128, .most = 128, .step_ns = 2000};

    (void)state;
    go(&run, &driver, BATCHES);
    assert_int_equal(run.requests, UINT64_C(128) * BATCHES);
    assert_in_range(run.waits, 0, BATCHES / 50);
}

static void a_driver_that_has_fewer_now_is_soon_known(void **state)
{
    struct run run = {.now_ns = 1};
    struct driver many = {.keeps = 128, .most = 1, .step_ns = 80}, one = {.keeps = 1, .most = 1, .step_ns = 400};

    (void)state;
    go(&run, &many, BATCHES);
    forget_counts(&run);
    go(&run, &one, 100);
    assert_in_range(run.waits, 1, 16);
    assert_true(run.longest_ns <= SDC_GATHER_STEP_NS + LOOK_NS);
    go(&run, &many, BATCHES);
    forget_counts(&run);
    go(&run, &many, BATCHES);
    assert_true(run.requests / run.batches >= 24);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_has_few_in_flight_is_hardly_ever_waited_for),
        cmocka_unit_test(of_many_that_come_one_by_one_a_part_is_gathered),
        cmocka_unit_test(who_is_slow_is_not_waited_for),
        cmocka_unit_test(who_submits_many_at_once_is_hardly_ever_waited_for),
        cmocka_unit_test(a_driver_that_has_fewer_now_is_soon_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
