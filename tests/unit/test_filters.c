// SPDX-License-Identifier: BSD-3-Clause
// Filters that hold nothing back, and what holds for all of them.
#include "filter_fixture.h"

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
        cmocka_unit_test(error_fails_by_its_rule),
        cmocka_unit_test(error_knows_operations_and_errors),
        cmocka_unit_test(error_draws_by_its_seed),
        cmocka_unit_test(error_that_is_spent_passes_everything_as_it_came),
        cmocka_unit_test(queues_may_be_closed_when_their_last_request_ends),
    };
    RUN_WITH_EVERY_LOOP(tests);
}
