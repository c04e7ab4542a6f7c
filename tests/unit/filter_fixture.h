// SPDX-License-Identifier: BSD-3-Clause
// A filter over a backend that does nothing but remember what it was given. The clock is the test's: goes with -Wl,--wrap=sdc_clock_ns.
#pragma once

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

static inline void probe_submit(struct sdc_block_queue *base, struct sdc_block_request **requests, unsigned count)
{
    struct probe_queue *queue = (struct probe_queue *)base;
    queue->batches++;
    queue->last_array = requests;
    for (unsigned i = 0; i < count; i++) {
        assert_true(queue->count < SEEN);
        queue->seen[queue->count++] = requests[i];
    }
}

static inline void probe_cancel(struct sdc_block_queue *base)
{
    ((struct probe_queue *)base)->cancels++;
}

static inline void probe_queue_close(struct sdc_block_queue *base)
{
    assert_int_equal(((struct probe_queue *)base)->ended, ((struct probe_queue *)base)->count);
    for (unsigned i = 0; i < probes_count; i++) {
        if (probes[i] == (struct probe_queue *)base)
            probes[i] = NULL;
    }
    free(base);
}

static inline int probe_queue_open(struct sdc_block *block, struct sdc_loop *loop, sdc_block_done *done, void *context,
                            struct sdc_block_queue **queue)
{
    static const struct sdc_block_queue_ops ops = {.submit = probe_submit, .cancel = probe_cancel, .close = probe_queue_close};
    struct probe_queue *made = calloc(1, sizeof *made);
    made->base = (struct sdc_block_queue){&ops, block, loop, done, context};
    probes[probes_count++] = made;
    *queue = &made->base;
    return 0;
}

static inline void probe_get_info(struct sdc_block *block, struct sdc_block_info *info)
{
    (void)block;
    *info = probe_info;
}

static inline int probe_refresh(struct sdc_block *block)
{
    (void)block;
    return probe_refreshed;
}

static inline void probe_close(struct sdc_block *block)
{
    (void)block;
    probe_is_closed = true;
}

static const struct sdc_block_ops probe_ops = {
    .name = "probe", .info = probe_get_info, .queue_open = probe_queue_open, .refresh = probe_refresh, .close = probe_close};
static struct sdc_block probe = {&probe_ops};

// Everything that went down and has not ended does, with this result.
static inline void end_all(struct probe_queue *queue, int result)
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

static inline void done(void *context, struct sdc_block_request **array, unsigned count)
{
    (void)context;
    assert_false(in_submit);
    for (unsigned i = 0; i < count; i++)
        done_order[done_count++ % SEEN] = array[i];
}

// "name=value,name=value" by the filter's own table.
static inline void read_options(const struct sdc_filter_type *type, const char *text, union sdc_filter_options *options)
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

static inline void open_filter(const struct sdc_filter_type *type, const char *text)
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

static inline void turn(void)
{
    loop_turns(loop, 3);
}

static inline void pass(uint64_t ns)
{
    now_ns += ns;
    turn();
}

static inline void close_filter(void)
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

static inline void fill(unsigned from, unsigned count, enum sdc_block_op op, uint64_t offset, uint64_t size)
{
    for (unsigned i = from; i < from + count; i++) {
        requests[i] = (struct sdc_block_request){.op = op, .offset = offset + (i - from) * size, .size = size, .result = 1};
        list[i] = &requests[i];
    }
}

static inline void send_to(struct sdc_block_queue *to, unsigned from, unsigned count)
{
    in_submit = true;
    to->ops->submit(to, list + from, count);
    in_submit = false;
}

static inline void send(unsigned from, unsigned count)
{
    send_to(queue, from, count);
}

static inline unsigned gone_down(void)
{
    return probes[0]->count;
}
