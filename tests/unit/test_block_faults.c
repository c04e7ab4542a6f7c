// SPDX-License-Identifier: BSD-3-Clause
// What the file backend makes of I/O that fails, or does less than was asked for. The linker puts
// __wrap_sdc_loop_io between the backend and the loop (-Wl,--wrap=sdc_loop_io).
#include "io_faults.h"

#include <linux/falloc.h>

static struct {
    bool noise; // short I/O, EINTR and EAGAIN at random
    int op;     // -1, or the enum sdc_io_op whose I/O gets `result`
    int mode;   // for FALLOCATE: of those, the ones with this mode bit
    int64_t result;
    unsigned times; // how often
    unsigned seed;
    unsigned hits; // how often it was done
    unsigned seen; // I/Os, those included
} fault = {.op = -1};

static unsigned short_step = 1; // bytes; for direct I/O what the kernel would do

static void fail_io(struct sdc_loop *loop, struct sdc_io *io, int64_t result)
{
    fault.hits++;
    io_end(loop, io, result);
}

// Lets the first part of a transfer through.
static void cut_short(struct sdc_io *io)
{
    uint64_t size = io_size(io);
    uint64_t left = (1 + (uint64_t)rand_r(&fault.seed) % (size / short_step + 1)) * short_step;
    fault.hits += left < size && io_cut(io, left);
}

void __wrap_sdc_loop_io(struct sdc_loop *loop, struct sdc_io *io)
{
    fault.seen++;
    bool mine = (int)io->op == fault.op && (io->op != SDC_IO_FALLOCATE || io->mode & fault.mode);
    if (mine && fault.times > 0) {
        fault.times--;
        fail_io(loop, io, fault.result);
        return;
    }
    unsigned dice = fault.noise ? (unsigned)rand_r(&fault.seed) % 8 : 7;
    if (dice < 2) {
        fail_io(loop, io, dice == 0 ? -EINTR : -EAGAIN);
        return;
    }
    if (dice < 5 && (io->op == SDC_IO_READ || io->op == SDC_IO_WRITE))
        cut_short(io);
    __real_sdc_loop_io(loop, io);
}

static int reset(void **state)
{
    (void)state;
    memset(&fault, 0, sizeof fault);
    fault.op = -1;
    io_forget_cuts();
    return 0;
}

static void inject(enum sdc_io_op op, int64_t result, unsigned times)
{
    fault.op = (int)op;
    fault.result = result;
    fault.times = times;
    fault.mode = -1;
}

// --- going on ---

static void noisy(const struct sdc_block_open_options *options, unsigned step)
{
    char *image = make_image(MODEL_BYTES);
    struct sdc_error err = {0};
    struct sdc_block *block;
    int ret = sdc_block_open(image, options, &block, &err);
    if (ret == -EINVAL && options->direct) {
        drop_image(image);
        skip();
    }
    assert_int_equal(ret, 0);
    struct fixture f;
    fixture_open_queue(&f, block);
    fault.noise = true;
    fault.seed = 5;
    short_step = step;
    random_operations(&f, 60, 23);
    assert_true(fault.hits > 250); // of some 500 with direct I/O; chance decides
    fixture_close(&f);
    drop_image(image);
}

static void short_and_interrupted_io_is_continued(void **state)
{
    (void)state;
    noisy(&(struct sdc_block_open_options){0}, 1);
}

static void short_direct_io_is_continued(void **state)
{
    (void)state;
    noisy(&(struct sdc_block_open_options){.direct = true}, 512);
}

static void io_that_says_again_for_ever_fails(void **state)
{
    (void)state;
    static unsigned char memory[4096];
    char *image = make_image(1 << 20);
    struct fixture f;
    fixture_open(&f, image, &(struct sdc_block_open_options){0});
    inject(SDC_IO_READ, -EAGAIN, 100000);
    assert_int_equal(fixture_do(&f, SDC_BLOCK_READ, 0, 0, memory, 4096), -EIO);
    assert_true(fault.hits > 10 && fault.hits < 1000);
    fixture_close(&f);
    drop_image(image);
}

// --- errors ---

static void errors_reach_the_request_and_only_it(void **state)
{
    (void)state;
    static unsigned char memory[4096];
    static const int codes[] = {-EIO, -ENOSPC, -EFAULT, -EFBIG};
    char *image = make_image(1 << 20);
    struct fixture f;
    fixture_open(&f, image, &(struct sdc_block_open_options){0});
    for (size_t i = 0; i < SDC_COUNT(codes); i++) {
        inject(SDC_IO_READ, codes[i], 1);
        assert_int_equal(fixture_do(&f, SDC_BLOCK_READ, 0, 0, memory, 4096), codes[i]);
        assert_int_equal(fixture_do(&f, SDC_BLOCK_READ, 0, 0, memory, 4096), 0);
        inject(SDC_IO_WRITE, codes[i], 1);
        assert_int_equal(fixture_do(&f, SDC_BLOCK_WRITE, 0, 0, memory, 4096), codes[i]);
        assert_int_equal(fixture_do(&f, SDC_BLOCK_WRITE, 0, 0, memory, 4096), 0);
        inject(SDC_IO_FALLOCATE, codes[i], 1);
        assert_int_equal(fixture_do(&f, SDC_BLOCK_DISCARD, 0, 0, NULL, 4096), codes[i]);
        inject(SDC_IO_FALLOCATE, codes[i], 1);
        assert_int_equal(fixture_do(&f, SDC_BLOCK_WRITE_ZEROES, 0, 0, NULL, 4096), codes[i]);
    }
    inject(SDC_IO_WRITE, 0, 1);
    assert_int_equal(fixture_do(&f, SDC_BLOCK_WRITE, 0, 0, memory, 4096), -EIO); // no progress at all
    assert_int_equal(fixture_do(&f, SDC_BLOCK_FLUSH, 0, 0, NULL, 0), 0);
    fixture_close(&f);
    drop_image(image);
}

// After op failed, the image takes nothing until it is opened afresh, though the kernel would.
static void stays_failed(enum sdc_block_op op, enum sdc_io_op io)
{
    static unsigned char memory[4096];
    char *image = make_image(1 << 20);
    struct fixture f;
    fixture_open(&f, image, &(struct sdc_block_open_options){0});
    assert_int_equal(fixture_do(&f, SDC_BLOCK_WRITE, 0, 0, memory, 4096), 0);
    inject(io, -EIO, 1);
    assert_int_equal(fixture_do(&f, op, SDC_BLOCK_FUA, 0, memory, 4096), -EIO);
    assert_int_equal(fixture_do(&f, SDC_BLOCK_FLUSH, 0, 0, NULL, 0), -EIO);
    assert_int_equal(fixture_do(&f, SDC_BLOCK_WRITE, 0, 0, memory, 4096), -EIO);
    assert_int_equal(fixture_do(&f, SDC_BLOCK_WRITE_ZEROES, 0, 0, NULL, 4096), -EIO);
    assert_int_equal(fixture_do(&f, SDC_BLOCK_READ, 0, 0, memory, 4096), 0);
    assert_int_equal(fault.hits, 1);
    fixture_close(&f);
    fixture_open(&f, image, &(struct sdc_block_open_options){0});
    assert_int_equal(fixture_do(&f, SDC_BLOCK_WRITE, 0, 0, memory, 4096), 0);
    assert_int_equal(fixture_do(&f, SDC_BLOCK_FLUSH, 0, 0, NULL, 0), 0);
    fixture_close(&f);
    drop_image(image);
}

static void a_failed_flush_fails_the_image_until_it_is_opened_again(void **state)
{
    (void)state;
    stays_failed(SDC_BLOCK_FLUSH, SDC_IO_FDATASYNC);
}

static void a_failed_durable_write_does_so_too(void **state)
{
    (void)state;
    stays_failed(SDC_BLOCK_WRITE, SDC_IO_WRITE);
}

// Whether zeroes are made by the file system, and then flushed; else they are written (tmpfs).
static bool has_zeroes(void)
{
    char *image = make_image(4096);
    int fd = open(image, O_RDWR | O_CLOEXEC);
    bool has = fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0;
    close(fd);
    drop_image(image);
    return has;
}

static void so_do_durable_zeroes_whose_flush_failed(void **state)
{
    (void)state;
    if (!has_zeroes())
        skip();
    stays_failed(SDC_BLOCK_WRITE_ZEROES, SDC_IO_FDATASYNC);
}

// --- requests that are merged ---

enum { RUN = 8, PIECE = 4096 }; // as much as a loop on epoll reads at once

struct run {
    unsigned char memory[RUN][PIECE];
    struct sdc_span spans[RUN][2];
    struct sdc_block_request requests[RUN], *batch[RUN];
};

// Requests of PIECE bytes, each behind the one before; every other one has two spans.
static void make_run(struct run *run, enum sdc_block_op op, uint32_t flags)
{
    for (unsigned i = 0; i < RUN; i++) {
        memset(run->memory[i], op == SDC_BLOCK_WRITE ? (int)i + 1 : 0, PIECE);
        run->spans[i][0] = (struct sdc_span){run->memory[i], i % 2 ? 512 : PIECE};
        run->spans[i][1] = (struct sdc_span){run->memory[i] + 512, PIECE - 512};
        run->requests[i] = (struct sdc_block_request){
            .op = op, .flags = flags, .offset = i * (uint64_t)PIECE, .size = PIECE, .spans = run->spans[i], .spans_count = 1 + i % 2};
        run->batch[i] = &run->requests[i];
    }
}

// How many I/Os a batch takes.
static unsigned ios_of(struct fixture *f, struct run *run)
{
    fault.seen = 0;
    fixture_run(f, run->batch, RUN);
    return fault.seen;
}

static unsigned failed_of(const struct run *run, int result)
{
    unsigned failed = 0;
    for (unsigned i = 0; i < RUN; i++) {
        assert_true(run->requests[i].result == 0 || run->requests[i].result == result);
        failed += run->requests[i].result != 0;
    }
    return failed;
}

static void requests_in_a_row_are_one(void **state)
{
    (void)state;
    static struct run run;
    char *image = make_image(1 << 20);
    struct fixture f;
    fixture_open(&f, image, &(struct sdc_block_open_options){0});
    make_run(&run, SDC_BLOCK_WRITE, 0);
    assert_int_equal(ios_of(&f, &run), 1);
    assert_int_equal(failed_of(&run, 0), 0);
    make_run(&run, SDC_BLOCK_READ, 0);
    assert_int_equal(ios_of(&f, &run), 1);
    for (unsigned i = 0; i < RUN; i++)
        assert_true(run.memory[i][0] == i + 1 && memcmp(run.memory[i], run.memory[i] + 1, PIECE - 1) == 0);
    // Durable ones are not, nor is what does not follow, has another direction, or is large.
    make_run(&run, SDC_BLOCK_WRITE, SDC_BLOCK_FUA);
    assert_int_equal(ios_of(&f, &run), RUN);
    make_run(&run, SDC_BLOCK_READ, 0);
    run.requests[5].offset += 128 * PIECE;
    assert_int_equal(ios_of(&f, &run), 3);
    make_run(&run, SDC_BLOCK_READ, 0);
    for (unsigned i = 0; i < RUN; i++)
        run.requests[i].offset = (RUN - i) * (uint64_t)PIECE;
    assert_int_equal(ios_of(&f, &run), RUN);
    make_run(&run, SDC_BLOCK_READ, 0);
    run.requests[4].op = SDC_BLOCK_WRITE;
    assert_int_equal(ios_of(&f, &run), 3);
    fixture_close(&f);
    drop_image(image);
}

static void one_of_a_row_that_fails_does_so_alone(void **state)
{
    (void)state;
    static struct run run;
    char *image = make_image(1 << 20);
    struct fixture f;
    fixture_open(&f, image, &(struct sdc_block_open_options){0});
    for (enum sdc_block_op op = SDC_BLOCK_READ; op <= SDC_BLOCK_WRITE; op++) {
        enum sdc_io_op io = op == SDC_BLOCK_READ ? SDC_IO_READ : SDC_IO_WRITE;
        make_run(&run, op, 0);
        inject(io, -EIO, 1); // all together, but none alone
        assert_int_equal(ios_of(&f, &run), 1 + RUN);
        assert_int_equal(failed_of(&run, -EIO), 0);
        make_run(&run, op, 0);
        inject(io, -EIO, 2); // all together, and one alone
        assert_int_equal(ios_of(&f, &run), 1 + RUN);
        assert_int_equal(failed_of(&run, -EIO), 1);
        // One that lies outside of the disk is no part of it.
        make_run(&run, op, 0);
        for (unsigned i = 0; i < RUN; i++)
            run.requests[i].offset += (1 << 20) - (RUN - 2) * (uint64_t)PIECE;
        assert_int_equal(ios_of(&f, &run), 1);
        assert_int_equal(failed_of(&run, -EINVAL), 2);
    }
    fixture_close(&f);
    drop_image(image);
}

// --- file systems that cannot ---

static void unsupported_discard_succeeds_and_is_not_tried_again(void **state)
{
    (void)state;
    char *image = make_image(1 << 20);
    struct fixture f;
    struct sdc_block_info info;
    fixture_open(&f, image, &(struct sdc_block_open_options){0});
    inject(SDC_IO_FALLOCATE, -EOPNOTSUPP, 10);
    for (int i = 0; i < 3; i++)
        assert_int_equal(fixture_do(&f, SDC_BLOCK_DISCARD, 0, 0, NULL, 1 << 20), 0);
    assert_int_equal(fault.hits, 1);
    f.block->ops->info(f.block, &info);
    assert_false(info.discard_zeroes);
    fixture_close(&f);
    drop_image(image);
}

static void unsupported_zeroes_are_written(void **state)
{
    (void)state;
    enum { SIZE = 3 << 20 };
    for (int pass = 0; pass < 3; pass++) {
        char *image = make_image(SIZE);
        unsigned char *memory = malloc(SIZE), *expected = calloc(1, SIZE);
        memset(memory, 0x5a, SIZE);
        memset(expected, 0x5a, 512);
        memset(expected + SIZE - 512, 0x5a, 512);
        struct fixture f;
        fixture_open(&f, image, &(struct sdc_block_open_options){0});
        reset(NULL);
        inject(SDC_IO_FALLOCATE, -EOPNOTSUPP, 10);
        if (pass == 1)
            fault.mode = FALLOC_FL_PUNCH_HOLE; // zeroing a range works
        uint32_t flags = pass == 0 ? SDC_BLOCK_FUA : SDC_BLOCK_UNMAP;
        assert_int_equal(fixture_do(&f, SDC_BLOCK_WRITE, 0, 0, memory, SIZE), 0);
        for (int i = 0; i < 2; i++)
            assert_int_equal(fixture_do(&f, SDC_BLOCK_WRITE_ZEROES, flags, 512, NULL, SIZE - 1024), 0);
        assert_int_equal(fixture_do(&f, SDC_BLOCK_READ, 0, 0, memory, SIZE), 0);
        assert_memory_equal(memory, expected, SIZE);
        assert_int_equal(fault.hits, pass == 2 ? 2 : 1); // each way is tried once
        fixture_close(&f);
        free(memory);
        free(expected);
        drop_image(image);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(short_and_interrupted_io_is_continued, reset),
        cmocka_unit_test_teardown(short_direct_io_is_continued, reset),
        cmocka_unit_test_teardown(io_that_says_again_for_ever_fails, reset),
        cmocka_unit_test_teardown(errors_reach_the_request_and_only_it, reset),
        cmocka_unit_test_teardown(a_failed_flush_fails_the_image_until_it_is_opened_again, reset),
        cmocka_unit_test_teardown(a_failed_durable_write_does_so_too, reset),
        cmocka_unit_test_teardown(so_do_durable_zeroes_whose_flush_failed, reset),
        cmocka_unit_test_teardown(unsupported_discard_succeeds_and_is_not_tried_again, reset),
        cmocka_unit_test_teardown(unsupported_zeroes_are_written, reset),
        cmocka_unit_test_teardown(requests_in_a_row_are_one, reset),
        cmocka_unit_test_teardown(one_of_a_row_that_fails_does_so_alone, reset),
    };
    RUN_WITH_EVERY_LOOP(tests);
}
