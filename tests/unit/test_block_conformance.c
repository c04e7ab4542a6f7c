// SPDX-License-Identifier: BSD-3-Clause
// One conformance body over every block backend, alone and behind filters.
#include "block_fixture.h"

#include <pthread.h>

static const struct cell {
    const char *name;
    const char *spec; // NULL: an image file
    struct sdc_block_open_options options;
    const char *filters; // before an image's path; the image is larger by SPARE then
    bool late;           // requests of a batch end at different times
} cells[] = {
    {.name = "null", .spec = "null:1M"},
    {.name = "ram", .spec = "ram:1M"},
    {.name = "ram of 4096", .spec = "ram:1M", .options.block_size = 4096},
    {.name = "file"},
    {.name = "file of 4096", .options.block_size = 4096},
    {.name = "direct file", .options.direct = true},
    {.name = "direct file of 4096", .options = {.direct = true, .block_size = 4096}},
    {.name = "slice of ram", .spec = "slice,offset=64k,size=1M:ram:2M"},
    {.name = "end of a slice of ram", .spec = "slice,offset=68k:slice,offset=4k,size=1092k:ram:2M", .options.block_size = 4096},
    {.name = "late ram", .spec = "delay,all=1us-300us:ram:1M", .late = true},
    {.name = "limited ram", .spec = "limit,iops=1000000,bw=8G,burst=1ms:ram:1M", .late = true},
    {.name = "ram that could fail", .spec = "error,after=1000000000:ram:1M"},
    {.name = "slice of a file", .filters = "slice,offset=64k,size=1M:"},
    {.name = "slice of a direct file", .filters = "slice,offset=64k,size=1M:", .options.direct = true},
    {.name = "stack over a file", .late = true,
     .filters = "limit,iops=1000000,bw=8G:delay,write=1us-300us:error,after=1000000000:slice,offset=128k:"},
};

enum { SPARE = 128 * 1024 };

static bool keeps_data(const struct cell *cell)
{
    return !cell->spec || strncmp(sdc_stack_base(cell->spec), "null", 4) != 0;
}

// Calls body for every cell, on a fresh disk of MODEL_BYTES.
static void each_cell(void (*body)(struct fixture *f, const struct cell *cell), bool read_only)
{
    for (size_t i = 0; i < SDC_COUNT(cells); i++) {
        struct sdc_block_open_options options = cells[i].options;
        options.read_only = read_only;
        const char *filters = cells[i].filters ? cells[i].filters : "";
        char *image = cells[i].spec ? NULL : make_image(MODEL_BYTES + (*filters ? SPARE : 0)), spec[300];
        struct sdc_error err = {0};
        struct sdc_block *block;
        snprintf(spec, sizeof spec, "%s%s", filters, image ? image : cells[i].spec);
        int ret = sdc_stack_open(spec, &options, &block, &err);
        if (ret == -EINVAL && options.direct) {
            print_message("%s: not here (%s)\n", cells[i].name, err.text);
        } else if (ret < 0) {
            fail_msg("%s: %s", cells[i].name, err.text);
        } else {
            struct fixture f;
            print_message("%s\n", cells[i].name);
            fixture_open_queue(&f, block);
            body(&f, &cells[i]);
            fixture_close(&f);
        }
        if (image)
            drop_image(image);
    }
}

// --- data ---

static void body_random(struct fixture *f, const struct cell *cell)
{
    if (keeps_data(cell))
        random_operations(f, 80, 11);
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    each_cell(body_random, false);
}

enum { MANY_SPANS = 3000 };

static void body_many_spans(struct fixture *f, const struct cell *cell)
{
    unsigned char *memory[2] = {malloc(MODEL_BYTES), malloc(MODEL_BYTES)};
    struct sdc_span *spans[2] = {calloc(MANY_SPANS, sizeof(struct sdc_span)),
                                 calloc(MANY_SPANS, sizeof(struct sdc_span))};
    unsigned seed = 3;
    fill(memory[0], MODEL_BYTES, &seed);
    memset(memory[1], 0, MODEL_BYTES);
    for (int pass = 0; pass < 2; pass++) {
        size_t part = pass == 0 ? 301 : 57, at = 0; // cut differently for writing and reading
        for (unsigned i = 0; i < MANY_SPANS; at += spans[pass][i++].size)
            spans[pass][i] =
                (struct sdc_span){memory[pass] + at, i + 1 < MANY_SPANS ? part : MODEL_BYTES - at};
        struct sdc_block_request request = {.op = pass == 0 ? SDC_BLOCK_WRITE : SDC_BLOCK_READ,
                                            .size = MODEL_BYTES,
                                            .spans = spans[pass],
                                            .spans_count = MANY_SPANS,
                                            .result = 1};
        fixture_run(f, &(struct sdc_block_request *){&request}, 1);
        assert_int_equal(request.result, 0);
    }
    if (keeps_data(cell))
        assert_memory_equal(memory[0], memory[1], MODEL_BYTES);
    for (int pass = 0; pass < 2; pass++) {
        free(memory[pass]);
        free(spans[pass]);
    }
}

static void three_thousand_spans_are_one_request(void **state)
{
    (void)state;
    each_cell(body_many_spans, false);
}

// --- what is refused ---

static void body_bounds(struct fixture *f, const struct cell *cell)
{
    (void)cell;
    static unsigned char memory[8192];
    static const struct {
        uint64_t offset, size;
        int result;
    } rows[] = {
        {0, 0, 0},
        {MODEL_BYTES, 0, 0},
        {MODEL_BYTES - 4096, 4096, 0},
        {MODEL_BYTES - 4096, 8192, -EINVAL},
        {MODEL_BYTES, 4096, -EINVAL},
        {UINT64_MAX - 4095, 4096, -EINVAL},
        {UINT64_MAX - 4095, 8192, -EINVAL},
        {256, 4096, -EINVAL},
        {0, 100, -EINVAL},
    };
    static const enum sdc_block_op ops[] = {SDC_BLOCK_READ, SDC_BLOCK_WRITE, SDC_BLOCK_DISCARD,
                                            SDC_BLOCK_WRITE_ZEROES};
    for (size_t i = 0; i < SDC_COUNT(rows); i++)
        for (size_t j = 0; j < SDC_COUNT(ops); j++)
            assert_int_equal(fixture_do(f, ops[j], 0, rows[i].offset, memory, rows[i].size), rows[i].result);
    struct sdc_span span = {memory, 4096};
    struct sdc_block_request liar = {.op = SDC_BLOCK_WRITE, .size = 8192, .spans = &span, .spans_count = 1};
    fixture_run(f, &(struct sdc_block_request *){&liar}, 1);
    assert_int_equal(liar.result, -EINVAL);
    assert_int_equal(fixture_do(f, SDC_BLOCK_FLUSH, 0, 77, NULL, 78), 0); // has neither offset nor size
}

static void requests_outside_of_the_disk_are_refused(void **state)
{
    (void)state;
    each_cell(body_bounds, false);
}

static void body_read_only(struct fixture *f, const struct cell *cell)
{
    (void)cell;
    static unsigned char memory[4096];
    struct sdc_block_info info;
    f->block->ops->info(f->block, &info);
    assert_true(info.read_only);
    assert_int_equal(fixture_do(f, SDC_BLOCK_READ, 0, 0, memory, 4096), 0);
    assert_int_equal(fixture_do(f, SDC_BLOCK_FLUSH, 0, 0, NULL, 0), 0);
    assert_int_equal(fixture_do(f, SDC_BLOCK_WRITE, 0, 0, memory, 4096), -EROFS);
    assert_int_equal(fixture_do(f, SDC_BLOCK_DISCARD, 0, 0, NULL, 4096), -EROFS);
    assert_int_equal(fixture_do(f, SDC_BLOCK_WRITE_ZEROES, 0, 0, NULL, 4096), -EROFS);
}

static void a_read_only_disk_is_only_read(void **state)
{
    (void)state;
    each_cell(body_read_only, true);
}

static void body_info(struct fixture *f, const struct cell *cell)
{
    struct sdc_block_info info;
    f->block->ops->info(f->block, &info);
    assert_int_equal(info.size, MODEL_BYTES);
    assert_int_equal(info.block_size, cell->options.block_size ? cell->options.block_size : 512);
    assert_true(info.physical_block_size >= info.block_size && sdc_is_power_of_two(info.physical_block_size));
    assert_true(info.discard_granularity % info.block_size == 0);
    assert_int_equal(info.volatile_cache, !cell->spec);
    assert_false(info.read_only);
}

static void body_discard(struct fixture *f, const struct cell *cell)
{
    enum { SIZE = 64 << 10 };
    struct sdc_block_info info;
    unsigned char *memory = malloc(SIZE);

    f->block->ops->info(f->block, &info);
    memset(memory, 0x77, SIZE);
    assert_int_equal(fixture_do(f, SDC_BLOCK_WRITE, 0, 0, memory, SIZE), 0);
    assert_int_equal(fixture_do(f, SDC_BLOCK_DISCARD, 0, info.block_size, NULL, SIZE - info.block_size), 0);
    assert_int_equal(fixture_do(f, SDC_BLOCK_READ, 0, 0, memory, SIZE), 0);
    for (unsigned i = 0; i < SIZE; i++)
        if (keeps_data(cell) && (i < info.block_size || info.discard_zeroes))
            assert_int_equal(memory[i], i < info.block_size ? 0x77 : 0);
    free(memory);
}

static void what_was_discarded_reads_as_the_disk_says(void **state)
{
    (void)state;
    each_cell(body_discard, false);
}

static void a_disk_describes_itself(void **state)
{
    (void)state;
    each_cell(body_info, false);
}

// --- how completions come ---

enum { BATCH = 200 };

static void body_batch(struct fixture *f, const struct cell *cell)
{
    static unsigned char memory[4096 + 1];
    static struct sdc_block_request requests[BATCH];
    struct sdc_block_request *list[BATCH];
    struct sdc_span span = {memory + 1, 4096}; // unaligned: more of them than there are bounce buffers
    for (unsigned i = 0; i < BATCH; i++) {
        requests[i] = (struct sdc_block_request){.op = SDC_BLOCK_READ,
                                                 .offset = i * UINT64_C(4096),
                                                 .size = 4096,
                                                 .spans = &span,
                                                 .spans_count = 1};
        list[i] = &requests[i];
    }
    f->done_calls = 0;
    fixture_run(f, list, BATCH);
    if (cell->spec && !cell->late) // known to end in one turn
        assert_true(f->done_calls <= 4);
}

static void a_batch_ends_in_few_calls(void **state)
{
    (void)state;
    each_cell(body_batch, false);
}

struct chain {
    struct sdc_loop *loop;
    struct sdc_block_queue *queue;
    struct sdc_block_request request;
    struct sdc_span span;
    struct sdc_post start;
    struct sdc_timer timer;
    bool stop, in_done;
};

static void chain_submit(struct chain *chain)
{
    chain->request = (struct sdc_block_request){
        .op = SDC_BLOCK_READ, .size = chain->span.size, .spans = &chain->span, .spans_count = 1};
    chain->queue->ops->submit(chain->queue, &(struct sdc_block_request *){&chain->request}, 1);
}

static void chain_start(struct sdc_post *post)
{
    chain_submit(sdc_container(post, struct chain, start));
}

static void chain_stop(struct sdc_timer *timer)
{
    sdc_container(timer, struct chain, timer)->stop = true;
}

// Goes on for ever, until the timer is let through.
static void chain_done(void *context, struct sdc_block_request **requests, unsigned count)
{
    struct chain *chain = context;
    assert_int_equal(count, 1);
    assert_ptr_equal(requests[0], &chain->request);
    assert_false(chain->in_done);
    if (!chain->stop) {
        chain->in_done = true;
        chain_submit(chain);
        chain->in_done = false;
        return;
    }
    chain->queue->ops->close(chain->queue); // allowed here: nothing is outstanding
    sdc_loop_stop(chain->loop);
}

static void body_chain(struct fixture *f, const struct cell *cell)
{
    (void)cell;
    static unsigned char memory[4096];
    struct chain chain = {.loop = f->loop,
                          .span = {memory, sizeof memory},
                          .start.run = chain_start,
                          .timer.expired = chain_stop};
    assert_int_equal(f->block->ops->queue_open(f->block, f->loop, chain_done, &chain, &chain.queue), 0);
    sdc_loop_timer_set(f->loop, &chain.timer, 20 * MS);
    sdc_loop_post(f->loop, &chain.start);
    sdc_loop_run(f->loop);
    assert_true(chain.stop);
}

static void a_device_that_always_has_more_leaves_room_for_timers(void **state)
{
    (void)state;
    each_cell(body_chain, false);
}

// --- several loops ---

struct worker {
    pthread_t thread;
    struct sdc_block *block;
    uint64_t offset;
    unsigned failures;
};

enum { WORKERS = 3, WORKER_BYTES = MODEL_BYTES / 4 };

static void *work(void *context)
{
    struct worker *worker = context;
    struct fixture f;
    unsigned seed = (unsigned)worker->offset + 1;
    unsigned char *memory = malloc(WORKER_BYTES), *back = calloc(1, WORKER_BYTES);
    fixture_open_queue(&f, worker->block);
    for (int round = 0; round < 10; round++) {
        fill(memory, WORKER_BYTES, &seed);
        worker->failures +=
            fixture_do(&f, SDC_BLOCK_WRITE, SDC_BLOCK_FUA, worker->offset, memory, WORKER_BYTES) != 0;
        worker->failures += fixture_do(&f, SDC_BLOCK_FLUSH, 0, 0, NULL, 0) != 0;
        worker->failures += fixture_do(&f, SDC_BLOCK_READ, 0, worker->offset, back, WORKER_BYTES) != 0;
        worker->failures += memcmp(memory, back, WORKER_BYTES) != 0;
        worker->failures +=
            fixture_do(&f, SDC_BLOCK_WRITE_ZEROES, SDC_BLOCK_UNMAP, worker->offset, NULL, WORKER_BYTES) != 0;
    }
    fixture_close_queue(&f);
    free(memory);
    free(back);
    return NULL;
}

static void body_threads(struct fixture *f, const struct cell *cell)
{
    struct worker workers[WORKERS];
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){.block = f->block, .offset = (uint64_t)i * WORKER_BYTES};
        pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        pthread_join(workers[i].thread, NULL);
        if (keeps_data(cell))
            assert_int_equal(workers[i].failures, 0);
    }
}

static void several_loops_share_a_disk(void **state)
{
    (void)state;
    each_cell(body_threads, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(three_thousand_spans_are_one_request),
        cmocka_unit_test(requests_outside_of_the_disk_are_refused),
        cmocka_unit_test(a_read_only_disk_is_only_read),
        cmocka_unit_test(a_disk_describes_itself),
        cmocka_unit_test(what_was_discarded_reads_as_the_disk_says),
        cmocka_unit_test(a_batch_ends_in_few_calls),
        cmocka_unit_test(a_device_that_always_has_more_leaves_room_for_timers),
        cmocka_unit_test(several_loops_share_a_disk),
    };
    RUN_WITH_EVERY_LOOP(tests);
}
