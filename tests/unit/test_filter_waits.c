// SPDX-License-Identifier: BSD-3-Clause
// Filters that hold requests back for a time: delay and limit.
#include "filter_fixture.h"

// --- delay ---

static void delay_holds_requests_for_as_long_as_it_says(void **state)
{
    (void)state;
    open_filter(&sdc_filter_delay, "read=10ms,write=5ms");
    fill(0, 3, SDC_BLOCK_READ, 0, 512);
    fill(3, 2, SDC_BLOCK_WRITE, 0, 512);
    fill(5, 1, SDC_BLOCK_FLUSH, 0, 0);
    fill(6, 1, SDC_BLOCK_DISCARD, 0, 512);
    send(0, 7);
    assert_int_equal(loop->timers_count, 1); // for all of them
    assert_int_equal(gone_down(), 1); // the flush
    pass(5 * MS - 1);
    assert_int_equal(gone_down(), 1);
    pass(1);
    assert_int_equal(gone_down(), 4);
    assert_ptr_equal(probes[0]->seen[1], &requests[3]);
    assert_ptr_equal(probes[0]->seen[2], &requests[4]);
    assert_ptr_equal(probes[0]->seen[3], &requests[6]);
    pass(5 * MS - 1);
    assert_int_equal(gone_down(), 4);
    pass(1);
    assert_int_equal(gone_down(), 7);
    for (unsigned i = 0; i < 3; i++)
        assert_ptr_equal(probes[0]->seen[4 + i], &requests[i]); // in their order, as one batch
    assert_int_equal(probes[0]->batches, 3);
    assert_int_equal(loop->timers_count, 1);
    assert_true(loop->timers[0]->deadline_ns > now_ns + 3600 * SECOND); // nobody is woken for nothing
    close_filter();
}

static void delay_lets_later_requests_go_earlier(void **state)
{
    (void)state;
    open_filter(&sdc_filter_delay, "read=10ms,write=5ms");
    fill(0, 1, SDC_BLOCK_READ, 0, 512);
    fill(1, 1, SDC_BLOCK_WRITE, 0, 512);
    send(0, 1);
    pass(MS);
    send(1, 1);
    pass(5 * MS);
    assert_int_equal(gone_down(), 1);
    assert_ptr_equal(probes[0]->seen[0], &requests[1]);
    pass(4 * MS);
    assert_int_equal(gone_down(), 2);
    close_filter();
}

static void delay_passes_what_it_does_not_hold_as_it_came(void **state)
{
    (void)state;
    open_filter(&sdc_filter_delay, "write=5ms");
    fill(0, 64, SDC_BLOCK_READ, 0, 512);
    send(0, 64);
    assert_ptr_equal(probes[0]->last_array, list);
    assert_int_equal(gone_down(), 64);
    close_filter();
}

// When each of them went down, counted in steps of 0.1 ms.
static void random_delays(const char *options, unsigned steps_of[REQUESTS])
{
    open_filter(&sdc_filter_delay, options);
    fill(0, REQUESTS, SDC_BLOCK_WRITE, 0, 512);
    for (unsigned i = 0; i < REQUESTS; i += 256)
        send(i, 256);
    assert_int_equal(loop->timers_count, 1);
    for (unsigned step = 0, at = 0; step <= 40; step++) {
        for (; at < gone_down(); at++)
            steps_of[probes[0]->seen[at] - requests] = step;
        pass(MS / 10);
    }
    assert_int_equal(gone_down(), REQUESTS);
    close_filter();
}

static void delay_draws_between_two_times_by_its_seed(void **state)
{
    (void)state;
    static unsigned first[REQUESTS], again[REQUESTS], other[REQUESTS];
    unsigned counts[42] = {0};
    random_delays("all=1ms-3ms,seed=7", first);
    random_delays("all=1ms-3ms,seed=7", again);
    random_delays("all=1ms-3ms,seed=8", other);
    assert_memory_equal(first, again, sizeof first);
    assert_true(memcmp(first, other, sizeof first) != 0);
    for (unsigned i = 0; i < REQUESTS; i++)
        counts[first[i]]++;
    for (unsigned step = 0; step < SDC_COUNT(counts); step++) {
        bool inside = step >= 11 && step <= 30;
        assert_true(inside ? counts[step] > REQUESTS / 20 / 2 && counts[step] < REQUESTS / 20 * 2 : counts[step] == 0);
    }
}

static void delay_gives_up_what_waits_when_it_is_told_to(void **state)
{
    (void)state;
    open_filter(&sdc_filter_delay, "read=1h-2h,write=1ms");
    fill(0, 300, SDC_BLOCK_READ, 0, 512);
    fill(300, 2, SDC_BLOCK_WRITE, 0, 512);
    send(0, 302);
    pass(MS);
    assert_int_equal(gone_down(), 2);
    queue->ops->cancel(queue);
    assert_int_equal(done_count, 0); // not from inside
    turn();
    assert_int_equal(done_count, 300);
    for (unsigned i = 0; i < 300; i++)
        assert_int_equal(requests[i].result, -ECANCELED);
    assert_int_equal(probes[0]->cancels, 1);
    end_all(probes[0], 0);
    assert_int_equal(requests[300].result, 0); // what had begun ends as it does
    fill(0, 1, SDC_BLOCK_WRITE, 0, 512);
    send(0, 1);
    pass(MS);
    assert_int_equal(gone_down(), 3); // later ones are as before
    close_filter();
}

// --- limit ---

// The same requests, over and over, at least `deep` of them waiting, for so long by steps; how many went down.
static unsigned flow(enum sdc_block_op op, uint64_t size, unsigned deep, uint64_t ns, uint64_t step_ns)
{
    unsigned sent = 0, before = gone_down();
    fill(0, deep, op, 0, size);
    while (sent < deep)
        send(sent++, 1);
    for (uint64_t passed = 0; passed < ns; passed += step_ns) {
        pass(step_ns);
        for (unsigned ended = gone_down() - before; sent < deep + ended; sent++) {
            unsigned place = (unsigned)(probes[0]->seen[before + sent - deep] - requests); // that one has gone down
            send(place, 1);
        }
    }
    return gone_down() - before;
}

static void limit_lets_through_what_it_says_in_the_long_run(void **state)
{
    (void)state;
    static const struct {
        const char *options;
        enum sdc_block_op op;
        uint64_t size;
        unsigned a_second, burst;
    } rows[] = {
        {"iops=100", SDC_BLOCK_READ, 4096, 100, 10},
        {"iops=100,burst=1s", SDC_BLOCK_WRITE, 4096, 100, 100},
        {"iops=3,burst=1ms", SDC_BLOCK_READ, 512, 3, 0},
        {"bw=1M", SDC_BLOCK_READ, 16384, 64, 6},
        {"bw=64k,burst=1ms", SDC_BLOCK_WRITE, 65536, 1, 0}, // larger than the burst: it goes, and is paid for
        {"iops=100,bw=1M", SDC_BLOCK_READ, 65536, 16, 1},   // the smaller of both
        {"iops=10,bw=1M", SDC_BLOCK_READ, 4096, 10, 1},
        {"read-iops=50", SDC_BLOCK_READ, 4096, 50, 5},
        {"write-iops=50,iops=100000", SDC_BLOCK_WRITE, 4096, 50, 5},
        {"write-bw=512k", SDC_BLOCK_WRITE, 16384, 32, 3},
        {"write-iops=20", SDC_BLOCK_DISCARD, 16384, 20, 2},
        {"write-iops=20,bw=1", SDC_BLOCK_WRITE_ZEROES, 16384, 20, 2}, // moves nothing
    };
    for (size_t i = 0; i < SDC_COUNT(rows); i++) {
        open_filter(&sdc_filter_limit, rows[i].options);
        unsigned count = flow(rows[i].op, rows[i].size, 200, 10 * SECOND, 7 * MS);
        unsigned expected = 10 * rows[i].a_second + rows[i].burst;
        if (count + 1 < expected || count > expected + 2)
            fail_msg("%s: %u in 10 s, not %u", rows[i].options, count, expected);
        queue->ops->cancel(queue);
        close_filter();
    }
}

// A loop that comes late finds as many allowed as if it had been on time.
static void limit_loses_nothing_to_lateness(void **state)
{
    (void)state;
    open_filter(&sdc_filter_limit, "iops=1000");
    unsigned count = flow(SDC_BLOCK_READ, 512, 500, 10 * SECOND, 90 * MS);
    assert_in_range(count, 10000 - 2, 10000 + 100 + 90 + 2);
    queue->ops->cancel(queue);
    close_filter();
}

static void limit_saves_up_no_more_than_the_burst(void **state)
{
    (void)state;
    open_filter(&sdc_filter_limit, "iops=10,burst=2s");
    for (unsigned round = 0; round < 3; round++) {
        unsigned before = gone_down();
        pass(1000 * SECOND);
        fill(0, 100, SDC_BLOCK_READ, 0, 512);
        send(0, 100);
        assert_int_equal(gone_down() - before, 21);
        queue->ops->cancel(queue);
        turn();
    }
    close_filter();
}

static void limit_does_not_touch_what_it_is_not_about(void **state)
{
    (void)state;
    open_filter(&sdc_filter_limit, "write-iops=1,write-bw=1");
    fill(0, 500, SDC_BLOCK_READ, 0, 4096);
    send(0, 500);
    assert_ptr_equal(probes[0]->last_array, list);
    assert_int_equal(gone_down(), 500);
    fill(500, 3, SDC_BLOCK_WRITE, 0, 512);
    fill(503, 5, SDC_BLOCK_FLUSH, 0, 0);
    fill(508, 5, SDC_BLOCK_READ, 0, 512);
    send(500, 13);
    assert_int_equal(gone_down(), 500 + 1 + 10); // reads and flushes pass writes that wait
    queue->ops->cancel(queue);
    close_filter();
}

static void limit_keeps_the_order_of_what_waits(void **state)
{
    (void)state;
    open_filter(&sdc_filter_limit, "bw=1M,burst=1ms");
    for (unsigned i = 0; i < 200; i++)
        fill(i, 1, SDC_BLOCK_READ, 0, i % 7 == 0 ? 65536 : 512);
    for (unsigned i = 0; i < 200; i += 20) {
        send(i, 20);
        pass(3 * MS);
    }
    for (unsigned i = 0; i < 1000; i++)
        pass(10 * MS);
    assert_int_equal(gone_down(), 200);
    for (unsigned i = 0; i < 200; i++)
        assert_ptr_equal(probes[0]->seen[i], &requests[i]);
    close_filter();
}

static void limit_gives_queues_turns(void **state)
{
    (void)state;
    struct sdc_block_queue *second;
    open_filter(&sdc_filter_limit, "iops=1000,burst=1ms");
    assert_int_equal(filter->ops->queue_open(filter, loop, done, NULL, &second), 0);
    fill(0, 1000, SDC_BLOCK_READ, 0, 512);
    send_to(queue, 0, 800); // all of these before any of the other
    send_to(second, 800, 100);
    for (unsigned i = 0; i < 180; i++)
        pass(MS);
    assert_in_range(probes[0]->count + probes[1]->count, 180, 184);
    assert_in_range(probes[1]->count, 86, 92);
    queue->ops->cancel(queue);
    for (unsigned i = 0; i < 20; i++)
        pass(MS);
    assert_int_equal(probes[1]->count, 100); // alone it has all of it
    end_all(probes[0], 0);
    end_all(probes[1], 0);
    turn();
    second->ops->close(second);
    close_filter();
}

static void limit_gives_up_what_waits_and_takes_no_costs_for_it(void **state)
{
    (void)state;
    open_filter(&sdc_filter_limit, "bw=1,burst=1024s");
    fill(0, 100, SDC_BLOCK_WRITE, 0, 512);
    fill(100, 1, SDC_BLOCK_READ, 0, 1 << 20);
    send(0, 101);
    assert_int_equal(gone_down(), 3); // 1024 bytes were saved up, and the third goes for the last of them
    for (unsigned round = 0; round < 50; round++) {
        unsigned before = done_count;
        queue->ops->cancel(queue);
        turn();
        assert_int_equal(done_count - before, round == 0 ? 98 : 97);
        fill(3, 97, SDC_BLOCK_WRITE, 0, 512);
        send(3, 97);
        assert_int_equal(gone_down(), 3);
    }
    assert_int_equal(requests[100].result, -ECANCELED);
    pass(512 * SECOND);
    assert_int_equal(gone_down(), 4); // nothing was taken for those
    pass(511 * SECOND);
    assert_int_equal(gone_down(), 4);
    pass(SECOND);
    assert_int_equal(gone_down(), 5);
    queue->ops->cancel(queue);
    assert_int_equal(probes[0]->cancels, 51);
    close_filter();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(delay_holds_requests_for_as_long_as_it_says),
        cmocka_unit_test(delay_lets_later_requests_go_earlier),
        cmocka_unit_test(delay_passes_what_it_does_not_hold_as_it_came),
        cmocka_unit_test(delay_draws_between_two_times_by_its_seed),
        cmocka_unit_test(delay_gives_up_what_waits_when_it_is_told_to),
        cmocka_unit_test(limit_lets_through_what_it_says_in_the_long_run),
        cmocka_unit_test(limit_loses_nothing_to_lateness),
        cmocka_unit_test(limit_saves_up_no_more_than_the_burst),
        cmocka_unit_test(limit_does_not_touch_what_it_is_not_about),
        cmocka_unit_test(limit_keeps_the_order_of_what_waits),
        cmocka_unit_test(limit_gives_queues_turns),
        cmocka_unit_test(limit_gives_up_what_waits_and_takes_no_costs_for_it),
    };
    RUN_WITH_EVERY_LOOP(tests);
}
