// SPDX-License-Identifier: BSD-3-Clause
// Pollers: how long one is open, by what it has seen. The clock is the test's, and turns are taken by hand.
#include "base/check.h"
#include "loop/engine.h"
#include "os/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define US UINT64_C(1000)
#define MAX (80 * US)

static uint64_t now_ns = 1000000;

uint64_t __wrap_sdc_clock_ns(void);
uint64_t __wrap_sdc_clock_ns(void)
{
    return now_ns;
}

// --- a ring of numbers ---

struct fake {
    struct sdc_poller poller;
    struct sdc_loop *loop;
    struct sdc_deferred work;
    unsigned there;      // what the driver has put in
    unsigned taken;
    unsigned most;       // that one turn takes, 0: all
    unsigned rearms;
    unsigned looks;
    bool suppressed;
    bool arrives_late;   // the driver puts one in just before it is told to notify
};

static bool look(struct sdc_poller *poller)
{
    struct fake *fake = sdc_container(poller, struct fake, poller);
    fake->looks++;
    if (fake->there == 0)
        return false;
    sdc_loop_defer(fake->loop, &fake->work);
    return true;
}

static void suppress(struct sdc_poller *poller)
{
    struct fake *fake = sdc_container(poller, struct fake, poller);
    assert_false(fake->suppressed);
    fake->suppressed = true;
}

static void rearm(struct sdc_poller *poller)
{
    struct fake *fake = sdc_container(poller, struct fake, poller);
    assert_false(poller->open);
    fake->rearms++;
    fake->suppressed = false;
    fake->there += fake->arrives_late;
    fake->arrives_late = false;
    if (fake->there > 0)
        sdc_loop_defer(fake->loop, &fake->work);
}

static void work(struct sdc_deferred *deferred)
{
    struct fake *fake = sdc_container(deferred, struct fake, work);
    unsigned count = fake->most && fake->there > fake->most ? fake->most : fake->there;
    fake->suppressed = true;
    fake->there -= count;
    fake->taken += count;
    if (count > 0)
        sdc_poller_worked(&fake->poller);
    sdc_poller_rest(&fake->poller);
}

static const struct sdc_poller_ops ops = {look, suppress, rearm};

static void begin(struct fake *fake, struct sdc_loop *loop, enum sdc_poll_mode mode)
{
    *fake = (struct fake){.poller.ops = &ops, .loop = loop, .work.run = work};
    sdc_poller_start(loop, &fake->poller, mode, MAX);
}

static struct sdc_loop *new_loop(void)
{
    struct sdc_loop *loop;
    assert_int_equal(sdc_loop_new(SDC_LOOP_EPOLL, &loop, NULL), 0);
    return loop;
}

// One turn every step_ns for a while. A kick comes only where the driver was told to notify.
static void turns(struct fake *fake, uint64_t for_ns, uint64_t step_ns)
{
    for (uint64_t end = now_ns + for_ns; now_ns < end; now_ns += step_ns)
        sdc_loop_turn(fake->loop);
}

static void put_in(struct fake *fake)
{
    fake->there++;
    if (!fake->suppressed)
        sdc_loop_defer(fake->loop, &fake->work);
    sdc_loop_turn(fake->loop);
    assert_int_equal(fake->there, 0);
}

// Requests that come one every gap_ns. How many of them were found by looking.
static unsigned flow(struct fake *fake, unsigned count, uint64_t gap_ns)
{
    unsigned found = 0;
    for (unsigned i = 0; i < count; i++) {
        turns(fake, gap_ns, US);
        found += fake->suppressed;
        put_in(fake);
    }
    return found;
}

// --- tests ---

static void who_never_polls_asks_to_be_told_after_each_work(void **state)
{
    (void)state;
    struct fake fake;
    struct sdc_loop *loop = new_loop();
    begin(&fake, loop, SDC_POLL_NEVER);
    assert_int_equal(flow(&fake, 10, 2 * US), 0);
    assert_int_equal(fake.rearms, 10);
    assert_int_equal(fake.looks, 0);
    sdc_poller_stop(&fake.poller);
    sdc_loop_free(loop);
}

static void who_always_polls_is_open_until_the_stop(void **state)
{
    (void)state;
    struct fake fake;
    struct sdc_loop *loop = new_loop();
    begin(&fake, loop, SDC_POLL_ALWAYS);
    fake.suppressed = true;
    turns(&fake, 100 * MAX, MAX);
    assert_true(fake.poller.open);
    assert_int_equal(fake.looks, 100);
    assert_int_equal(flow(&fake, 10, 100 * MAX), 10);
    assert_int_equal(fake.rearms, 0);
    sdc_poller_stop(&fake.poller);
    assert_null(loop->pollers);
    sdc_loop_free(loop);
}

static void a_window_is_as_long_as_the_gaps_want_it(void **state)
{
    (void)state;
    struct fake fake;
    struct sdc_loop *loop = new_loop();
    begin(&fake, loop, SDC_POLL_ADAPTIVE);
    assert_true(flow(&fake, 100, 5 * US) >= 99);
    uint64_t begun = now_ns;
    while (fake.poller.open) {
        now_ns += US;
        sdc_loop_turn(loop);
    }
    assert_in_range(now_ns - begun, 15 * US, 30 * US); // four gaps
    assert_int_equal(fake.rearms, 1);
    sdc_poller_stop(&fake.poller);
    sdc_loop_free(loop);
}

static void a_window_is_never_longer_than_its_bound(void **state)
{
    (void)state;
    struct fake fake;
    struct sdc_loop *loop = new_loop();
    begin(&fake, loop, SDC_POLL_ADAPTIVE);
    flow(&fake, 100, MAX - 10 * US);
    assert_true(fake.poller.open);
    turns(&fake, MAX + 2 * US, US);
    assert_false(fake.poller.open);
    assert_false(fake.suppressed);
    sdc_poller_stop(&fake.poller);
    sdc_loop_free(loop);
}

static void rare_work_is_not_looked_for(void **state)
{
    (void)state;
    struct fake fake;
    struct sdc_loop *loop = new_loop();
    begin(&fake, loop, SDC_POLL_ADAPTIVE);
    flow(&fake, 20, 20 * MAX);
    fake.looks = 0;
    assert_int_equal(flow(&fake, 100, 20 * MAX), 0);
    assert_int_equal(fake.looks, 0);
    // Two dozen short gaps show that it pays again, one long one does not change that.
    flow(&fake, 24, 5 * US);
    assert_true(flow(&fake, 20, 5 * US) == 20);
    flow(&fake, 1, 1000 * MAX);
    assert_true(flow(&fake, 20, 5 * US) == 20);
    sdc_poller_stop(&fake.poller);
    sdc_loop_free(loop);
}

// Somebody for whom the gaps are short, but only while nobody looks: as on one processor for two threads.
static void windows_that_never_pay_are_left_out(void **state)
{
    (void)state;
    struct fake fake;
    struct sdc_loop *loop = new_loop();
    unsigned windows = 0;
    begin(&fake, loop, SDC_POLL_ADAPTIVE);
    for (unsigned i = 0; i < 2000; i++) {
        windows += fake.poller.open;
        while (fake.poller.open) {
            now_ns += US;
            sdc_loop_turn(loop);
        }
        now_ns += 5 * US;
        put_in(&fake);
    }
    assert_in_range(windows, 4, 2000 / 64 + 32);
    // As soon as one pays, all of them do.
    assert_true(flow(&fake, 300, 5 * US) >= 200);
    assert_true(flow(&fake, 100, 5 * US) == 100);
    sdc_poller_stop(&fake.poller);
    sdc_loop_free(loop);
}

static void what_comes_while_it_closes_is_seen(void **state)
{
    (void)state;
    struct fake fake;
    struct sdc_loop *loop = new_loop();
    begin(&fake, loop, SDC_POLL_ADAPTIVE);
    flow(&fake, 10, 5 * US);
    fake.arrives_late = true;
    unsigned taken = fake.taken;
    turns(&fake, 2 * MAX, US);
    assert_int_equal(fake.taken, taken + 1);
    assert_int_equal(fake.there, 0);
    sdc_poller_stop(&fake.poller);
    sdc_loop_free(loop);
}

// The driver's next request comes soon after it has seen that one has ended, however long that took.
static void the_end_of_a_request_opens_a_window(void **state)
{
    (void)state;
    struct fake fake;
    struct sdc_loop *loop = new_loop();
    begin(&fake, loop, SDC_POLL_ADAPTIVE);
    unsigned found = 0;
    for (unsigned i = 0; i < 50; i++) {
        put_in(&fake);
        turns(&fake, 10 * MAX, US); // it is with the disk
        assert_false(fake.poller.open);
        sdc_poller_stir(&fake.poller);
        turns(&fake, 5 * US, US);
        found += fake.suppressed;
    }
    assert_true(found >= 45);
    sdc_poller_stop(&fake.poller);
    sdc_loop_free(loop);
}

static void two_that_poll_share_the_turns(void **state)
{
    (void)state;
    struct fake one, other;
    struct sdc_loop *loop = new_loop();
    begin(&one, loop, SDC_POLL_ALWAYS);
    begin(&other, loop, SDC_POLL_ALWAYS);
    one.most = other.most = 4;
    one.there = 1000; // more than there is time for
    other.there = 40;
    for (unsigned i = 0; i < 10; i++)
        sdc_loop_turn(loop);
    assert_int_equal(one.taken, 40);
    assert_int_equal(other.taken, 40);
    sdc_poller_stop(&one.poller);
    sdc_poller_stop(&other.poller);
    sdc_loop_free(loop);
}

// A look may stop its own poller (a ring that breaks), and others are looked at all the same.
static struct fake three[3];

static bool look_and_stop(struct sdc_poller *poller)
{
    struct fake *fake = sdc_container(poller, struct fake, poller);
    fake->looks++;
    sdc_poller_stop(poller);
    return false;
}

static void a_look_may_stop_its_poller(void **state)
{
    static const struct sdc_poller_ops stopping = {look_and_stop, suppress, rearm};
    (void)state;
    for (unsigned which = 0; which < 3; which++) {
        struct sdc_loop *loop = new_loop();
        for (unsigned i = 0; i < 3; i++)
            begin(&three[i], loop, SDC_POLL_ALWAYS);
        three[which].poller.ops = &stopping;
        sdc_loop_turn(loop);
        sdc_loop_turn(loop);
        for (unsigned i = 0; i < 3; i++) {
            assert_int_equal(three[i].looks, i == which ? 1 : 2);
            assert_int_equal(three[i].poller.open, i != which);
            sdc_poller_stop(&three[i].poller);
        }
        assert_null(loop->pollers);
        sdc_loop_free(loop);
    }
}

static bool look_and_stop_the_next(struct sdc_poller *poller)
{
    struct fake *fake = sdc_container(poller, struct fake, poller);
    fake->looks++;
    if (poller->next)
        sdc_poller_stop(poller->next);
    return false;
}

static void a_look_may_stop_the_next(void **state)
{
    static const struct sdc_poller_ops stopping = {look_and_stop_the_next, suppress, rearm};
    (void)state;
    struct sdc_loop *loop = new_loop();
    for (unsigned i = 0; i < 3; i++)
        begin(&three[i], loop, SDC_POLL_ALWAYS);
    loop->pollers->ops = &stopping;
    sdc_loop_turn(loop);
    assert_int_equal(three[2].looks + three[1].looks + three[0].looks, 2);
    assert_int_equal(three[2].poller.open + three[1].poller.open + three[0].poller.open, 2);
    for (unsigned i = 0; i < 3; i++)
        sdc_poller_stop(&three[i].poller);
    assert_null(loop->pollers);
    sdc_loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_never_polls_asks_to_be_told_after_each_work),
        cmocka_unit_test(who_always_polls_is_open_until_the_stop),
        cmocka_unit_test(a_window_is_as_long_as_the_gaps_want_it),
        cmocka_unit_test(a_window_is_never_longer_than_its_bound),
        cmocka_unit_test(rare_work_is_not_looked_for),
        cmocka_unit_test(windows_that_never_pay_are_left_out),
        cmocka_unit_test(what_comes_while_it_closes_is_seen),
        cmocka_unit_test(the_end_of_a_request_opens_a_window),
        cmocka_unit_test(two_that_poll_share_the_turns),
        cmocka_unit_test(a_look_may_stop_its_poller),
        cmocka_unit_test(a_look_may_stop_the_next),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
