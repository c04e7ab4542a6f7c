// SPDX-License-Identifier: BSD-3-Clause
// What the tests of block backends share: a loop with a queue on it, requests that are sent and waited for,
// and random operations checked against a model of the disk.
#pragma once

#include "backend/filter/stack.h"
#include "base/check.h"
#include "loop/loop.h"
#include "loop_kinds.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define MS UINT64_C(1000000)

struct fixture {
    struct sdc_loop *loop;
    struct sdc_block *block;
    struct sdc_block_queue *queue;
    struct sdc_block_request **sending;
    unsigned sending_count;
    struct sdc_post send;
    struct sdc_timer watchdog;
    unsigned outstanding;
    unsigned done_calls;
    bool in_submit, timed_out;
};

static inline void fixture_done(void *context, struct sdc_block_request **requests, unsigned count)
{
    struct fixture *f = context;
    (void)requests;
    assert_false(f->in_submit);
    assert_true(count > 0 && count <= f->outstanding);
    f->outstanding -= count;
    f->done_calls++;
    if (f->outstanding == 0)
        sdc_loop_stop(f->loop);
}

static inline void fixture_send(struct sdc_post *post)
{
    struct fixture *f = sdc_container(post, struct fixture, send);
    f->outstanding += f->sending_count;
    f->in_submit = true;
    f->queue->ops->submit(f->queue, f->sending, f->sending_count);
    f->in_submit = false;
}

static inline void fixture_timeout(struct sdc_timer *timer)
{
    struct fixture *f = sdc_container(timer, struct fixture, watchdog);
    f->timed_out = true;
    sdc_loop_stop(f->loop);
}

static inline void fixture_open_queue(struct fixture *f, struct sdc_block *block)
{
    struct sdc_error err = {0};
    *f = (struct fixture){.block = block, .send.run = fixture_send, .watchdog.expired = fixture_timeout};
    if (sdc_loop_new(loop_kind, &f->loop, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(block->ops->queue_open(block, f->loop, fixture_done, f, &f->queue), 0);
}

static inline void fixture_close_queue(struct fixture *f)
{
    f->queue->ops->close(f->queue);
    sdc_loop_free(f->loop);
}

static inline void fixture_open(struct fixture *f, const char *spec,
                                const struct sdc_block_open_options *options)
{
    struct sdc_error err = {0};
    struct sdc_block *block;
    if (sdc_stack_open(spec, options, &block, &err) < 0)
        fail_msg("%s", err.text);
    fixture_open_queue(f, block);
}

static inline void fixture_close(struct fixture *f)
{
    fixture_close_queue(f);
    f->block->ops->close(f->block);
}

// Sends requests as one batch and waits until all of them are done.
static inline void fixture_run(struct fixture *f, struct sdc_block_request **requests, unsigned count)
{
    f->sending = requests;
    f->sending_count = count;
    sdc_loop_post(f->loop, &f->send);
    sdc_loop_timer_set(f->loop, &f->watchdog, 240000 * MS);
    sdc_loop_run(f->loop);
    sdc_loop_timer_clear(f->loop, &f->watchdog);
    assert_false(f->timed_out);
    assert_int_equal(f->outstanding, 0);
}

// One request over one stretch of memory (which may be NULL for all but reads and writes). Its result.
static inline int fixture_do(struct fixture *f, enum sdc_block_op op, uint32_t flags, uint64_t offset,
                             void *memory, uint64_t size)
{
    bool transfer = op == SDC_BLOCK_READ || op == SDC_BLOCK_WRITE;
    struct sdc_span span = {memory, (size_t)size};
    struct sdc_block_request request = {.op = op,
                                        .flags = flags,
                                        .offset = offset,
                                        .size = size,
                                        .spans = &span,
                                        .spans_count = transfer ? 1 : 0,
                                        .result = 1};
    fixture_run(f, &(struct sdc_block_request *){&request}, 1);
    return request.result;
}

// Cuts memory into spans of odd sizes, some of them empty. The spans are the caller's to free.
static inline struct sdc_span *cut_into_spans(unsigned char *memory, size_t size, unsigned *seed,
                                              uint32_t *count)
{
    uint32_t capacity = 4096;
    struct sdc_span *spans = calloc(capacity, sizeof *spans);
    size_t at = 0;
    for (*count = 0; *count + 1 < capacity && at < size; ++*count) {
        size_t most = (size_t)sdc_min(size - at, rand_r(seed) % 4 ? 700 : 9000);
        size_t part = rand_r(seed) % 16 == 0 ? 0 : 1 + (size_t)rand_r(seed) % most;
        if (rand_r(seed) % 4 == 0)
            part = (size_t)sdc_min(size - at, 4096);
        spans[*count] = (struct sdc_span){memory + at, part};
        at += part;
    }
    spans[(*count)++] = (struct sdc_span){memory + at, size - at};
    return spans;
}

static inline void fill(unsigned char *memory, size_t size, unsigned *seed)
{
    for (size_t i = 0; i < size; i++)
        memory[i] = (unsigned char)rand_r(seed);
}

// Random operations in batches; those of one batch touch different stretches of the disk. What is read is
// compared with a model, but for what was discarded.
enum { MODEL_LANES = 8, MODEL_LANE = 128 * 1024, MODEL_BYTES = MODEL_LANES * MODEL_LANE };

struct model {
    unsigned char *disk;
    bool *undefined; // for each block
    uint32_t block_size;
    unsigned seed;
};

struct model_step {
    struct sdc_block_request request;
    struct sdc_span *spans;
    unsigned char *memory;
};

static inline void model_prepare(struct model *model, struct model_step *step, unsigned lane)
{
    static const enum sdc_block_op ops[] = {SDC_BLOCK_READ,    SDC_BLOCK_READ,  SDC_BLOCK_WRITE,
                                            SDC_BLOCK_WRITE,   SDC_BLOCK_WRITE, SDC_BLOCK_WRITE_ZEROES,
                                            SDC_BLOCK_DISCARD, SDC_BLOCK_FLUSH};
    uint32_t block = model->block_size;
    size_t blocks = MODEL_LANE / block;
    size_t first = (size_t)rand_r(&model->seed) % blocks;
    size_t count = 1 + (size_t)rand_r(&model->seed) % (blocks - first);
    size_t skew = (size_t)rand_r(&model->seed) % 3 ? (size_t)rand_r(&model->seed) % 64 : 0;
    struct sdc_block_request *request = &step->request;
    step->memory = aligned_alloc(4096, MODEL_LANE + 4096);
    fill(step->memory, MODEL_LANE + 4096, &model->seed);
    *request = (struct sdc_block_request){.op = ops[(size_t)rand_r(&model->seed) % SDC_COUNT(ops)],
                                          .result = 1,
                                          .flags = (uint32_t)rand_r(&model->seed) % 4,
                                          .offset = (uint64_t)lane * MODEL_LANE + first * block,
                                          .size = count * block};
    step->spans = cut_into_spans(step->memory + skew, request->size, &model->seed, &request->spans_count);
    if (rand_r(&model->seed) % 4 == 0) {
        step->spans[0] = (struct sdc_span){step->memory + skew, request->size};
        request->spans_count = 1;
    }
    if (request->op == SDC_BLOCK_FLUSH || request->op == SDC_BLOCK_DISCARD ||
        request->op == SDC_BLOCK_WRITE_ZEROES)
        request->spans_count = 0;
    request->spans = step->spans;
}

// Compares or copies, span by span: the backend may not have changed them.
static inline void model_check_step(struct model *model, const struct model_step *step)
{
    const struct sdc_block_request *request = &step->request;
    uint64_t at = request->offset;
    assert_int_equal(request->result, 0);
    for (uint64_t block = at / model->block_size; block < (at + request->size) / model->block_size; block++)
        if (request->op != SDC_BLOCK_READ && request->op != SDC_BLOCK_FLUSH)
            model->undefined[block] = request->op == SDC_BLOCK_DISCARD;
    if (request->op == SDC_BLOCK_WRITE_ZEROES)
        memset(model->disk + at, 0, request->size);
    for (uint32_t i = 0; i < request->spans_count; at += request->spans[i++].size) {
        const unsigned char *memory = request->spans[i].base;
        if (request->op == SDC_BLOCK_WRITE)
            memcpy(model->disk + at, memory, request->spans[i].size);
        for (size_t j = 0; request->op == SDC_BLOCK_READ && j < request->spans[i].size; j++)
            if (!model->undefined[(at + j) / model->block_size] && memory[j] != model->disk[at + j])
                fail_msg("byte %llu is %u, not %u", (unsigned long long)(at + j), memory[j],
                         model->disk[at + j]);
    }
}

static inline void random_operations(struct fixture *f, unsigned rounds, unsigned seed)
{
    struct sdc_block_info info;
    f->block->ops->info(f->block, &info);
    assert_int_equal(info.size, MODEL_BYTES);
    struct model model = {.disk = malloc(MODEL_BYTES),
                          .undefined = calloc(MODEL_BYTES / info.block_size, 1),
                          .block_size = info.block_size,
                          .seed = seed};
    fill(model.disk, MODEL_BYTES, &model.seed);
    assert_int_equal(fixture_do(f, SDC_BLOCK_WRITE, 0, 0, model.disk, MODEL_BYTES), 0);
    for (unsigned round = 0; round < rounds; round++) {
        struct model_step steps[MODEL_LANES];
        struct sdc_block_request *requests[MODEL_LANES];
        for (unsigned i = 0; i < MODEL_LANES; i++) {
            model_prepare(&model, &steps[i], i);
            requests[i] = &steps[i].request;
        }
        fixture_run(f, requests, MODEL_LANES);
        for (unsigned i = 0; i < MODEL_LANES; i++) {
            model_check_step(&model, &steps[i]);
            free(steps[i].spans);
            free(steps[i].memory);
        }
    }
    free(model.disk);
    free(model.undefined);
}

// An image file of size bytes under TMPDIR or /var/tmp. The path is the caller's to unlink and free.
static inline char *make_image(uint64_t size)
{
    const char *folder = getenv("TMPDIR");
    char *path = NULL;
    if (asprintf(&path, "%s/sidecard-test-XXXXXX", folder ? folder : "/var/tmp") < 0)
        abort();
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    close(fd);
    return path;
}

static inline void drop_image(char *path)
{
    unlink(path);
    free(path);
}

// Cancels what waits in the fixture's queue when its timer expires.
struct canceller {
    struct sdc_timer timer;
    struct fixture *f;
};

static inline void cancel_all(struct sdc_timer *timer)
{
    struct fixture *f = sdc_container(timer, struct canceller, timer)->f;
    f->queue->ops->cancel(f->queue);
}
