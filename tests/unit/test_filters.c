// SPDX-License-Identifier: BSD-3-Clause
// Each filter over a backend that does nothing but remember what it was given. The clock is the test's.
#include "backend/filter/filter.h"
#include "base/check.h"
#include "loop/engine.h"
#include "loop_kinds.h"
#include "loop_turns.h"
#include "os/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS UINT64_C(1000000)
#define SECOND (1000 * MS)

static uint64_t now_ns;

uint64_t __wrap_sdc_clock_ns(void);
uint64_t __wrap_sdc_clock_ns(void)
{
    return now_ns;
}

// --- what is below ---

enum { SEEN = 16384, REQUESTS = 2048 };

struct probe_queue {
    struct sdc_block_queue base;
    unsigned cancels;
    unsigned batches;
    struct sdc_block_request **last_array; // as it was given
    struct sdc_block_request *seen[SEEN];
    unsigned count, ended;
};

static struct sdc_block_info probe_info;
static struct probe_queue *probes[4]; // in the order in which they were opened
static unsigned probes_count;
static bool probe_is_closed;
static int probe_refreshed;

static void probe_submit(struct sdc_block_queue *base, struct sdc_block_request **requests, unsigned count)
{
    struct probe_queue *queue = (struct probe_queue *)base;
    queue->batches++;
    queue->last_array = requests;
    for (unsigned i = 0; i < count; i++) {
        assert_true(queue->count < SEEN);
        queue->seen[queue->count++] = requests[i];
    }
}

static void probe_cancel(struct sdc_block_queue *base)
{
    ((struct probe_queue *)base)->cancels++;
}

static void probe_queue_close(struct sdc_block_queue *base)
{
    assert_int_equal(((struct probe_queue *)base)->ended, ((struct probe_queue *)base)->count);
    for (unsigned i = 0; i < probes_count; i++) {
        if (probes[i] == (struct probe_queue *)base)
            probes[i] = NULL;
    }
    free(base);
}

static int probe_queue_open(struct sdc_block *block, struct sdc_loop *loop, sdc_block_done *done, void *context,
                            struct sdc_block_queue **queue)
{
    static const struct sdc_block_queue_ops ops = {.submit = probe_submit, .cancel = probe_cancel, .close = probe_queue_close};
    struct probe_queue *made = calloc(1, sizeof *made);
    made->base = (struct sdc_block_queue){&ops, block, loop, done, context};
    probes[probes_count++] = made;
    *queue = &made->base;
    return 0;
}

static void probe_get_info(struct sdc_block *block, struct sdc_block_info *info)
{
    (void)block;
    *info = probe_info;
}

static int probe_refresh(struct sdc_block *block)
{
    (void)block;
    return probe_refreshed;
}

static void probe_close(struct sdc_block *block)
{
    (void)block;
    probe_is_closed = true;
}

static const struct sdc_block_ops probe_ops = {
    .name = "probe", .info = probe_get_info, .queue_open = probe_queue_open, .refresh = probe_refresh, .close = probe_close};
static struct sdc_block probe = {&probe_ops};

// Everything that went down and has not ended does, with this result.
static void end_all(struct probe_queue *queue, int result)
{
    unsigned from = queue->ended;
    queue->ended = queue->count;
    for (unsigned i = from; i < queue->ended; i++)
        queue->seen[i]->result = result;
    if (queue->ended > from)
        queue->base.done(queue->base.context, queue->seen + from, queue->ended - from);
}

// --- what is above ---

static struct sdc_loop *loop;
static struct sdc_block *filter;
static struct sdc_block_queue *queue;
static struct sdc_block_request requests[REQUESTS];
static struct sdc_block_request *list[REQUESTS];
static unsigned done_count;
static struct sdc_block_request *done_order[SEEN];
static bool in_submit;

static void done(void *context, struct sdc_block_request **array, unsigned count)
{
    (void)context;
    assert_false(in_submit);
    for (unsigned i = 0; i < count; i++)
        done_order[done_count++ % SEEN] = array[i];
}

// "name=value,name=value" by the filter's own table.
static void read_options(const struct sdc_filter_type *type, const char *text, union sdc_filter_options *options)
{
    const struct sdc_option_group group = {type->options, options, NULL}, *found;
    char copy[200];
    struct sdc_error err = {0};
    memset(options, 0, sizeof *options);
    snprintf(copy, sizeof copy, "%s", text);
    for (char *word = copy, *end; *word; word = end) {
        char *value = strchr(word, '=') + 1;
        end = word + strcspn(word, ",");
        if (*end)
            *end++ = '\0';
        const struct sdc_option *option = sdc_option_find(&group, 1, word, (size_t)(value - 1 - word), &found);
        assert_non_null(option);
        if (sdc_option_set(option, options, value, &err) < 0)
            fail_msg("%s: %s", word, err.text);
    }
    if (type->check && type->check(options, &err) < 0)
        fail_msg("%s: %s", text, err.text);
}

static void open_filter(const struct sdc_filter_type *type, const char *text)
{
    union sdc_filter_options options;
    struct sdc_error err = {0};
    if (!probe_info.block_size)
        probe_info = (struct sdc_block_info){.size = 1 << 30, .block_size = 512, .physical_block_size = 4096, .discard_granularity = 4096};
    probe_is_closed = false;
    probes_count = done_count = 0;
    now_ns = 1000 * SECOND;
    read_options(type, text, &options);
    if (sdc_loop_new(loop_kind, &loop, &err) < 0 || type->open(&probe, &options, &filter, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(filter->ops->queue_open(filter, loop, done, NULL, &queue), 0);
}

static void turn(void)
{
    loop_turns(loop, 3);
}

static void pass(uint64_t ns)
{
    now_ns += ns;
    turn();
}

static void close_filter(void)
{
    end_all(probes[0], 0);
    turn();
    queue->ops->close(queue);
    assert_null(probes[0]);
    filter->ops->close(filter);
    assert_true(probe_is_closed);
    assert_int_equal(loop->timers_count, 0);
    sdc_loop_free(loop);
    probe_info = (struct sdc_block_info){0};
}

static void fill(unsigned from, unsigned count, enum sdc_block_op op, uint64_t offset, uint64_t size)
{
    for (unsigned i = from; i < from + count; i++) {
        requests[i] = (struct sdc_block_request){.op = op, .offset = offset + (i - from) * size, .size = size, .result = 1};
        list[i] = &requests[i];
    }
}

static void send_to(struct sdc_block_queue *to, unsigned from, unsigned count)
{
    in_submit = true;
    to->ops->submit(to, list + from, count);
    in_submit = false;
}

static void send(unsigned from, unsigned count)
{
    send_to(queue, from, count);
}

static unsigned gone_down(void)
{
    return probes[0]->count;
}

// --- readonly ---

static void readonly_fails_what_writes_and_passes_the_rest_as_it_came(void **state)
{
    (void)state;
    static const enum sdc_block_op mix[] = {SDC_BLOCK_READ,         SDC_BLOCK_WRITE, SDC_BLOCK_FLUSH, SDC_BLOCK_DISCARD,
                                            SDC_BLOCK_WRITE_ZEROES, SDC_BLOCK_READ,  SDC_BLOCK_READ};
    struct sdc_block_info info;
    open_filter(&sdc_filter_readonly, "");
    filter->ops->info(filter, &info);
    assert_true(info.read_only);
    fill(0, 20, SDC_BLOCK_READ, 0, 4096);
    send(0, 20);
    assert_int_equal(gone_down(), 20);
    assert_int_equal(probes[0]->batches, 1);
    assert_ptr_equal(probes[0]->last_array, list); // not a copy
    fill(20, SDC_COUNT(mix), SDC_BLOCK_READ, 0, 512);
    for (unsigned i = 0; i < SDC_COUNT(mix); i++)
        requests[20 + i].op = mix[i];
    send(20, SDC_COUNT(mix));
    turn();
    assert_int_equal(gone_down(), 24);
    assert_int_equal(done_count, 3);
    for (unsigned i = 0; i < SDC_COUNT(mix); i++)
        assert_int_equal(requests[20 + i].result, i == 1 || i == 3 || i == 4 ? -EROFS : 1);
    queue->ops->cancel(queue);
    assert_int_equal(probes[0]->cancels, 1);
    close_filter();
}

// --- slice ---

static void slice_moves_requests_and_gives_them_back_as_they_were(void **state)
{
    (void)state;
    struct sdc_block_info info;
    open_filter(&sdc_filter_slice, "offset=1M,size=2M");
    filter->ops->info(filter, &info);
    assert_int_equal(info.size, 2 << 20);
    assert_int_equal(info.discard_granularity, 4096);
    fill(0, 4, SDC_BLOCK_WRITE, (2 << 20) - 3 * 512, 512); // the last one lies behind the end
    fill(4, 1, SDC_BLOCK_FLUSH, 0, 0);
    fill(5, 1, SDC_BLOCK_READ, UINT64_MAX - 511, 512);
    fill(6, 1, SDC_BLOCK_DISCARD, 0, 2 << 20);
    fill(7, 1, SDC_BLOCK_WRITE_ZEROES, 512, 2 << 20);
    send(0, 8);
    turn();
    assert_int_equal(gone_down(), 5);
    assert_int_equal(done_count, 3);
    assert_int_equal(requests[3].result, -EINVAL);
    assert_int_equal(requests[5].result, -EINVAL);
    assert_int_equal(requests[7].result, -EINVAL);
    assert_int_equal(requests[3].offset, 2 << 20);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(requests[i].offset, (3 << 20) - (3 - i) * 512);
    assert_int_equal(requests[4].offset, 0);
    assert_int_equal(requests[6].offset, 1 << 20);
    end_all(probes[0], 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(requests[i].offset, (2 << 20) - (3 - i) * 512);
    assert_int_equal(requests[4].offset, 0);
    assert_int_equal(requests[6].offset, 0);
    assert_int_equal(done_count, 8);
    close_filter();
}

static void slice_describes_what_begins_where_it_begins(void **state)
{
    (void)state;
    struct sdc_block_info info;
    probe_info = (struct sdc_block_info){.size = 1 << 20, .block_size = 512, .physical_block_size = 4096, .discard_granularity = 12288,
                                         .optimal_io_size = 65536, .read_only = true, .volatile_cache = true};
    open_filter(&sdc_filter_slice, "offset=1k");
    filter->ops->info(filter, &info);
    assert_int_equal(info.size, (1 << 20) - 1024);
    assert_int_equal(info.block_size, 512);
    assert_int_equal(info.physical_block_size, 1024);
    assert_int_equal(info.discard_granularity, 1024);
    assert_int_equal(info.optimal_io_size, 0);
    assert_true(info.read_only && info.volatile_cache);
    fill(0, 1, SDC_BLOCK_WRITE, 1 << 30, 512);
    send(0, 1);
    turn();
    assert_int_equal(requests[0].result, -EROFS); // before where it lies
    close_filter();
}

static uint64_t size_now(void)
{
    struct sdc_block_info info;
    filter->ops->info(filter, &info);
    return info.size;
}

static void check_sizes(const char *options, uint64_t small, uint64_t usual, uint64_t large)
{
    const struct {
        uint64_t below, size;
    } steps[] = {{3 << 20, large}, {(1 << 20) + 4096, small}, {1 << 20, 0}, {4096, 0}, {2 << 20, usual}};
    probe_info = (struct sdc_block_info){.size = 2 << 20, .block_size = 512, .physical_block_size = 512};
    open_filter(&sdc_filter_slice, options);
    assert_int_equal(size_now(), usual);
    uint64_t before = usual;
    for (size_t i = 0; i < SDC_COUNT(steps); i++) {
        probe_info.size = steps[i].below;
        assert_int_equal(filter->ops->refresh(filter), before != steps[i].size);
        assert_int_equal(size_now(), steps[i].size);
        before = steps[i].size;
    }
    probe_refreshed = -EIO;
    assert_int_equal(filter->ops->refresh(filter), -EIO);
    probe_refreshed = 0;
    probe_info.size = (1 << 20) + 4096;
    filter->ops->refresh(filter);
    fill(0, 2, SDC_BLOCK_READ, 4096 - 512, 512);
    send(0, 2);
    turn();
    assert_int_equal(gone_down(), 1);
    assert_int_equal(requests[1].result, -EINVAL);
    close_filter();
}

static void slice_follows_the_size_of_its_disk(void **state)
{
    (void)state;
    check_sizes("offset=1M", 4096, 1 << 20, 2 << 20);
    check_sizes("offset=1M,size=1M", 4096, 1 << 20, 1 << 20);
}

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

// --- error ---

// Sends count requests in batches. How many failed, and which: '!' or '.'.
static unsigned send_in_batches(unsigned count, unsigned batch, char *pattern, int result)
{
    unsigned failed = 0;
    for (unsigned i = 0; i < count; i += batch)
        send(i, batch);
    turn();
    for (unsigned i = 0; i < count; i++) {
        pattern[i] = requests[i].result == result ? '!' : '.';
        failed += requests[i].result == result;
    }
    pattern[count] = '\0';
    return failed;
}

static void error_fails_by_its_rule(void **state)
{
    (void)state;
    static const struct {
        const char *options, *pattern;
    } rows[] = {
        {"", "!!!!!!!!!!!!"},
        {"times=3", "!!!........."},
        {"every=4", "...!...!...!"},
        {"after=5", ".....!!!!!!!"},
        {"after=5,times=1", ".....!......"},
        {"after=2,every=3,times=2", "....!..!...."},
        {"probability=1", "!!!!!!!!!!!!"},
        {"op=write", "............"},
        {"op=read", "!!!!!!!!!!!!"},
        {"offset=1k,size=1k", "..!!........"},
        {"offset=1536,size=1", "...!........"},
        {"offset=5k", "..........!!"},
        {"offset=2k,every=2", ".....!.!.!.!"}, // only those that it is about are counted
    };
    char pattern[16];
    for (size_t i = 0; i < SDC_COUNT(rows); i++) {
        for (unsigned batch = 1; batch <= 12; batch += 11) {
            open_filter(&sdc_filter_error, rows[i].options);
            fill(0, 12, SDC_BLOCK_READ, 0, 512);
            send_in_batches(12, batch, pattern, -EIO);
            if (strcmp(pattern, rows[i].pattern) != 0)
                fail_msg("%s, %u at once: %s, not %s", rows[i].options, batch, pattern, rows[i].pattern);
            close_filter();
        }
    }
}

static void error_knows_operations_and_errors(void **state)
{
    (void)state;
    static const char *const names[] = {"op=read", "op=write", "op=flush", "op=discard", "op=zeroes"};
    static const struct {
        const char *name;
        int result;
    } errors[] = {{"EIO", -EIO},       {"ENOSPC", -ENOSPC}, {"EINVAL", -EINVAL},         {"EROFS", -EROFS},
                  {"EBUSY", -EBUSY},   {"ENOMEM", -ENOMEM}, {"EOPNOTSUPP", -EOPNOTSUPP}, {"ETIMEDOUT", -ETIMEDOUT}};
    char options[64], pattern[16];
    for (unsigned op = SDC_BLOCK_READ; op <= SDC_BLOCK_WRITE_ZEROES; op++) {
        for (size_t i = 0; i < SDC_COUNT(errors); i++) {
            snprintf(options, sizeof options, "%s,errno=%s", names[op], errors[i].name);
            open_filter(&sdc_filter_error, options);
            for (unsigned other = SDC_BLOCK_READ; other <= SDC_BLOCK_WRITE_ZEROES; other++)
                fill(other, 1, (enum sdc_block_op)other, 0, other == SDC_BLOCK_FLUSH ? 0 : 512);
            assert_int_equal(send_in_batches(5, 1, pattern, errors[i].result), 1);
            assert_int_equal(pattern[op], '!');
            close_filter();
        }
    }
    // A flush is nowhere, so a rule for a part of the disk is not about it.
    open_filter(&sdc_filter_error, "offset=512");
    fill(0, 1, SDC_BLOCK_FLUSH, 0, 0);
    fill(1, 1, SDC_BLOCK_WRITE, UINT64_MAX - 1023, 4096); // beyond all ends
    assert_int_equal(send_in_batches(2, 1, pattern, -EIO), 1);
    assert_string_equal(pattern, ".!");
    close_filter();
}

static void error_draws_by_its_seed(void **state)
{
    (void)state;
    static char first[REQUESTS + 1], again[REQUESTS + 1], other[REQUESTS + 1];
    const char *const options[] = {"probability=0.25,seed=1", "probability=0.25,seed=1", "probability=0.25,seed=2"};
    char *const patterns[] = {first, again, other};
    for (size_t i = 0; i < SDC_COUNT(options); i++) {
        open_filter(&sdc_filter_error, options[i]);
        fill(0, REQUESTS, SDC_BLOCK_READ, 0, 512);
        send(0, REQUESTS); // at once or one by one is the same
        turn();
        unsigned failed = 0;
        for (unsigned j = 0; j < REQUESTS; j++) {
            patterns[i][j] = requests[j].result == -EIO ? '!' : '.';
            failed += requests[j].result == -EIO;
        }
        assert_true(failed > REQUESTS / 4 - 100 && failed < REQUESTS / 4 + 100);
        assert_int_equal(gone_down(), REQUESTS - failed);
        close_filter();
    }
    assert_string_equal(first, again);
    assert_string_not_equal(first, other);
}

static void error_that_is_spent_passes_everything_as_it_came(void **state)
{
    (void)state;
    open_filter(&sdc_filter_error, "times=1");
    fill(0, 65, SDC_BLOCK_READ, 0, 512);
    send(0, 1);
    turn();
    send(1, 64);
    assert_ptr_equal(probes[0]->last_array, list + 1);
    assert_int_equal(gone_down(), 64);
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

// --- all of them ---

static void closing_done(void *context, struct sdc_block_request **array, unsigned count)
{
    (void)array;
    assert_int_equal(count, 1);
    struct sdc_block_queue **own = context;
    (*own)->ops->close(*own);
    *own = NULL;
}

// What a device does whose last request has ended.
static void queues_may_be_closed_when_their_last_request_ends(void **state)
{
    (void)state;
    static const struct {
        const struct sdc_filter_type *type;
        const char *options;
    } rows[] = {{&sdc_filter_readonly, ""},
                {&sdc_filter_slice, "offset=512"},
                {&sdc_filter_delay, "all=1ms"},
                {&sdc_filter_error, "times=1"},
                {&sdc_filter_limit, "iops=1"}};
    for (size_t i = 0; i < SDC_COUNT(rows); i++) {
        for (unsigned own = 0; own < 2; own++) {
            struct sdc_block_queue *second;
            open_filter(rows[i].type, rows[i].options);
            assert_int_equal(filter->ops->queue_open(filter, loop, closing_done, &second, &second), 0);
            // One that the filter ends itself, and one that is ended below.
            fill(0, 2, own && rows[i].type != &sdc_filter_slice ? SDC_BLOCK_WRITE : SDC_BLOCK_READ, own ? UINT64_C(1) << 40 : 0, 512);
            if (rows[i].type == &sdc_filter_limit && own)
                send(1, 1);
            send_to(second, 0, 1);
            if (own)
                second->ops->cancel(second);
            else
                now_ns += MS;
            turn();
            if (second && probes[1]->count > 0)
                end_all(probes[1], 0);
            assert_null(second);
            end_all(probes[0], 0);
            close_filter();
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readonly_fails_what_writes_and_passes_the_rest_as_it_came),
        cmocka_unit_test(slice_moves_requests_and_gives_them_back_as_they_were),
        cmocka_unit_test(slice_describes_what_begins_where_it_begins),
        cmocka_unit_test(slice_follows_the_size_of_its_disk),
        cmocka_unit_test(delay_holds_requests_for_as_long_as_it_says),
        cmocka_unit_test(delay_lets_later_requests_go_earlier),
        cmocka_unit_test(delay_passes_what_it_does_not_hold_as_it_came),
        cmocka_unit_test(delay_draws_between_two_times_by_its_seed),
        cmocka_unit_test(delay_gives_up_what_waits_when_it_is_told_to),
        cmocka_unit_test(error_fails_by_its_rule),
        cmocka_unit_test(error_knows_operations_and_errors),
        cmocka_unit_test(error_draws_by_its_seed),
        cmocka_unit_test(error_that_is_spent_passes_everything_as_it_came),
        cmocka_unit_test(limit_lets_through_what_it_says_in_the_long_run),
        cmocka_unit_test(limit_loses_nothing_to_lateness),
        cmocka_unit_test(limit_saves_up_no_more_than_the_burst),
        cmocka_unit_test(limit_does_not_touch_what_it_is_not_about),
        cmocka_unit_test(limit_keeps_the_order_of_what_waits),
        cmocka_unit_test(limit_gives_queues_turns),
        cmocka_unit_test(limit_gives_up_what_waits_and_takes_no_costs_for_it),
        cmocka_unit_test(queues_may_be_closed_when_their_last_request_ends),
    };
    RUN_WITH_EVERY_LOOP(tests);
}
