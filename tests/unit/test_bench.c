// SPDX-License-Identifier: BSD-3-Clause
// What sidecard bench is made of: orders of blocks, data that can be told, options.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/check.h"
#include "cli/bench_data.h"
#include "cli/bench_offsets.h"
#include "cli/bench_options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// --- orders ---

static void each_pass_has_each_block_once(void **state)
{
    (void)state;
    static const uint64_t counts[] = {1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 1000, 4096, 65537};
    for (unsigned i = 0; i < SDC_COUNT(counts); i++) {
        for (unsigned random = 0; random < 2; random++) {
            struct sdc_bench_offsets offsets;
            uint8_t *seen = calloc(counts[i], 1);
            sdc_bench_offsets_init(&offsets, counts[i], random, 42);
            for (uint8_t pass = 1; pass <= 3; pass++) {
                assert_true(sdc_bench_offsets_at_start(&offsets));
                for (uint64_t j = 0; j < counts[i]; j++) {
                    uint64_t block = sdc_bench_offsets_next(&offsets);
                    assert_true(block < counts[i]);
                    assert_int_equal(seen[block]++, pass - 1);
                    assert_true(random || block == j);
                }
            }
            free(seen);
        }
    }
}

// How many of `count` blocks two orders have at the same place.
static unsigned same_places(struct sdc_bench_offsets *a, struct sdc_bench_offsets *b, unsigned count)
{
    unsigned same = 0;
    for (unsigned i = 0; i < count; i++)
        same += sdc_bench_offsets_next(a) == sdc_bench_offsets_next(b);
    return same;
}

static void random_orders_follow_from_the_seed_and_differ(void **state)
{
    (void)state;
    struct sdc_bench_offsets a, b, order;
    sdc_bench_offsets_init(&a, 1000, true, 1);
    sdc_bench_offsets_init(&b, 1000, true, 1);
    assert_int_equal(same_places(&a, &b, 1000), 1000);
    sdc_bench_offsets_init(&b, 1000, true, 2);
    assert_true(same_places(&a, &b, 1000) < 20);
    // The next pass, and counting up, are other orders, too.
    sdc_bench_offsets_init(&a, 1000, true, 1);
    sdc_bench_offsets_init(&b, 1000, true, 1);
    for (unsigned i = 0; i < 1000; i++)
        sdc_bench_offsets_next(&b);
    assert_true(same_places(&a, &b, 1000) < 20);
    sdc_bench_offsets_init(&a, 1000, true, 1);
    sdc_bench_offsets_init(&order, 1000, false, 1);
    assert_true(same_places(&a, &order, 1000) < 20);
}

static void random_blocks_are_spread_evenly(void **state)
{
    (void)state;
    unsigned tenths[10] = {0};
    struct sdc_bench_offsets offsets;
    sdc_bench_offsets_init(&offsets, UINT64_C(3000000000000), true, 7);
    for (unsigned i = 0; i < 10000; i++)
        tenths[sdc_bench_offsets_next(&offsets) / UINT64_C(300000000000)]++;
    for (unsigned i = 0; i < 10; i++)
        assert_in_range(tenths[i], 850, 1150);
}

// --- data ---

static void every_changed_bit_of_a_block_is_found(void **state)
{
    (void)state;
    uint8_t block[512];
    char what[200];
    struct sdc_bench_stamp stamp = {.seed = 3, .offset = 4096, .generation = 2},
                           any = {.seed = 3, .offset = 4096};
    sdc_bench_data_fill(block, sizeof block, &stamp);
    assert_true(sdc_bench_data_check(block, sizeof block, &stamp, what));
    assert_true(sdc_bench_data_check(block, sizeof block, &any, what));
    for (unsigned bit = 0; bit < 8 * sizeof block; bit++) {
        block[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_false(sdc_bench_data_check(block, sizeof block, &stamp, what));
        assert_false(sdc_bench_data_check(block, sizeof block, &any, what));
        block[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static void a_wrong_block_is_told_by_its_fault(void **state)
{
    (void)state;
    uint8_t block[1024], other[1024];
    char what[200];
    struct sdc_bench_stamp stamp = {.seed = 3, .offset = 4096, .generation = 2}, wrong;
    static const struct {
        struct sdc_bench_stamp stamp;
        const char *what;
    } cases[] = {
        {{3, 8192, 2}, "expected the block of offset 4096, found 8192"},
        {{4, 4096, 2}, "expected seed 3, found 4"},
        {{3, 4096, 1}, "expected generation 2, found 1"},
    };
    for (unsigned i = 0; i < SDC_COUNT(cases); i++) {
        wrong = cases[i].stamp;
        sdc_bench_data_fill(block, sizeof block, &wrong);
        assert_false(sdc_bench_data_check(block, sizeof block, &stamp, what));
        assert_string_equal(what, cases[i].what);
    }
    sdc_bench_data_fill(block, sizeof block, &stamp);
    assert_false(sdc_bench_data_check(block, 512, &stamp, what));
    assert_string_equal(what, "expected a block written with --bs 512, found 1024");
    // Torn: the second half is from an older write.
    wrong = (struct sdc_bench_stamp){3, 4096, 1};
    sdc_bench_data_fill(other, sizeof other, &wrong);
    memcpy(block + 512, other + 512, 512);
    assert_false(sdc_bench_data_check(block, sizeof block, &stamp, what));
    assert_non_null(strstr(what, "byte 512 on"));
    memset(block, 0, sizeof block);
    assert_false(sdc_bench_data_check(block, sizeof block, &stamp, what));
    assert_string_equal(what, "expected a block of seed 3 and generation 2, found zeroes");
}

// --- options ---

static int parse(const char *line, struct sdc_bench_options *options, struct sdc_error *err)
{
    static char text[512];
    char *argv[32] = {(char[]){"bench"}};
    int argc = 1;
    *err = (struct sdc_error){0};
    strcpy(text, line);
    for (char *word = strtok(text, " "); word; word = strtok(NULL, " "))
        argv[argc++] = word;
    return sdc_bench_options_parse(argc, argv, options, err);
}

static void fios_words_are_understood(void **state)
{
    (void)state;
    struct sdc_bench_options options;
    struct sdc_error err;
    assert_int_equal(parse("vm0.sock", &options, &err), 0);
    assert_true(options.reads && !options.writes && !options.random && !options.poll && !options.verify);
    assert_true(options.packed && options.event_idx && options.indirect && !options.in_order);
    // Packed rings take any number.
    assert_int_equal(parse("vm0.sock --queue-size=100", &options, &err), 0);
    assert_int_equal(options.queue_size, 100);
    assert_int_equal(parse("vm0.sock", &options, &err), 0);
    assert_int_equal(options.block_size, 4096);
    assert_int_equal(
        parse("--rw=randrw --rwmixread=70 --bs=64k --iodepth 128 vfio-user:vm0.sock --numjobs=2 --size=64m "
              "--offset=1m --runtime=2m --ramp_time=3s --time_based --number_ios=9 --verify --randseed=5 "
              "--poll --json --timeout=7 --queue-size=64 --packed=off --event_idx=off --indirect=off "
              "--in-order=on --eta=never",
              &options, &err),
        0);
    assert_string_equal(options.socket, "vm0.sock");
    assert_true(options.reads && options.writes && options.random && options.poll && options.verify &&
                options.json);
    assert_true(options.quiet && !options.packed && !options.event_idx && !options.indirect && options.in_order);
    assert_int_equal(options.rwmixread, 70);
    assert_int_equal(options.block_size, 65536);
    assert_int_equal(options.iodepth, 128);
    assert_int_equal(options.numjobs, 2);
    assert_int_equal(options.size, 64 << 20);
    assert_int_equal(options.offset, 1 << 20);
    assert_int_equal(options.runtime_s, 120);
    assert_int_equal(options.ramp_s, 3);
    assert_int_equal(options.number_ios, 9);
    assert_int_equal(options.seed, 5);
    assert_int_equal(options.timeout_s, 7);
    assert_int_equal(options.queue_size, 64);
}

static void memory_and_notifications_are_as_asked_for(void **state)
{
    (void)state;
    static const char *const words[] = {"auto", "message", "ioeventfd", "mapped"};
    struct sdc_bench_options options;
    struct sdc_error err;
    assert_int_equal(parse("a", &options, &err), 0);
    assert_int_equal(options.memory, SDC_CLIENT_MEMORY_SHARED);
    assert_false(options.twin_socket);
    assert_int_equal(options.notify, SDC_DRIVER_NOTIFY_AUTO);
    assert_int_equal(parse("a --memory=private --twin_socket=on", &options, &err), 0);
    assert_int_equal(options.memory, SDC_CLIENT_MEMORY_PRIVATE);
    assert_true(options.twin_socket);
    assert_int_equal(parse("a --memory=private --memory=shared", &options, &err), 0);
    assert_int_equal(options.memory, SDC_CLIENT_MEMORY_SHARED);
    assert_int_equal(parse("vhost-user:a --memory=huge", &options, &err), 0);
    assert_int_equal(options.memory, SDC_CLIENT_MEMORY_HUGE);
    for (unsigned i = 0; i < SDC_COUNT(words); i++) {
        char line[40];
        snprintf(line, sizeof line, "a --notify=%s", words[i]);
        assert_int_equal(parse(line, &options, &err), 0);
        assert_int_equal(options.notify, SDC_DRIVER_NOTIFY_AUTO + i);
    }
}

static void mistakes_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        const char *text;
    } cases[] = {
        {"", "needs a socket"},
        {"vfio-user:", "path is empty"},
        {"a b", "too many: 'b'"},
        {"a --rw=randreed", "--rw=randreed: no such pattern; did you mean --rw=randread?"},
        {"a --rw=xyz", "must be read, write"},
        {"a --io_depth=3", "did you mean --iodepth?"},
        {"a --bs=1000", "multiple of 512"},
        {"a --bs=4k --offset=6k", "multiple of --bs=4096"},
        {"a --size=512", "--size=512: must be at least --bs=4096"},
        {"a --iodepth=0", "must be 1 to 32768"},
        {"a --runtime=0", "must be 1 to"},
        {"a --runtime=1h", "--runtime=1h: must be"},
        {"a --runtime=s", "--runtime=s: must be"},
        {"a --ramp_time=1", "needs --runtime"},
        {"a --time_based", "needs --runtime"},
        {"a --rwmixread=101", "must be 0 to 100"},
        {"a --queue_size=100 --packed=off", "power of two"},
        {"a --packed=maybe", "must be on or off"},
        {"a --in-order=maybe", "must be on or off"},
        {"a --poll --interrupt", "exclude each other"},
        {"a --rw=write --readonly", "--readonly was given"},
        {"a --eta=always", "auto or never"},
        {"a --memory=some", "--memory=some: must be shared, private or huge"},
        {"a --notify=irq", "--notify=irq: must be auto, message, ioeventfd or mapped"},
        {"a --twin-socket=maybe", "must be on or off"},
        {"vhost-user:a --memory=private", "--memory=private: over vhost-user all memory is shared"},
        {"vhost-user:a --twin-socket=on", "--twin-socket=on: over vhost-user"},
        {"vhost-user:a --notify=mapped", "--notify=mapped: over vhost-user it is an eventfd, or type --notify=message"},
    };
    for (unsigned i = 0; i < SDC_COUNT(cases); i++) {
        struct sdc_bench_options options;
        struct sdc_error err;
        assert_int_equal(parse(cases[i].line, &options, &err), -EINVAL);
        assert_int_equal(err.fault, SDC_FAULT_USER);
        if (!strstr(err.text, cases[i].text))
            fail_msg("'%s': '%s' is not in '%s'", cases[i].line, cases[i].text, err.text);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_pass_has_each_block_once),
        cmocka_unit_test(random_orders_follow_from_the_seed_and_differ),
        cmocka_unit_test(random_blocks_are_spread_evenly),
        cmocka_unit_test(every_changed_bit_of_a_block_is_found),
        cmocka_unit_test(a_wrong_block_is_told_by_its_fault),
        cmocka_unit_test(fios_words_are_understood),
        cmocka_unit_test(memory_and_notifications_are_as_asked_for),
        cmocka_unit_test(mistakes_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
