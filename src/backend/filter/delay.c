// SPDX-License-Identifier: BSD-3-Clause
// Requests wait before they go on. Those of a queue that wait are a pairing heap, the first to go on top, made of the requests themselves;
// one timer is set to when that is.
#include "backend/filter/filter.h"
#include "base/check.h"
#include "base/limits.h"
#include "base/parse.h"
#include "os/clock.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { BATCH = 64 };

struct delay {
    struct sdc_filter filter;
    struct sdc_delay_range reads, writes, flushes;
    uint64_t seed;
    _Atomic uint64_t drawn; // random numbers so far, of all queues
};

// A request that waits, in its backend[] bytes.
struct waiting {
    struct sdc_block_request *child, *sibling;
    uint64_t due_ns;
    uint64_t number; // of those that are due at the same time, the smallest goes first
};
_Static_assert(sizeof(struct waiting) <= SDC_BLOCK_BACKEND_BYTES, "what waits has its place in the request");

struct delay_queue {
    struct sdc_filter_queue filter;
    struct sdc_timer timer;
    struct sdc_block_request *first; // the heap's top
    uint64_t number;                 // of the next one that waits
    uint64_t now_ns;                 // while a batch is submitted
};

// --- the heap ---

static struct waiting *waiting_of(struct sdc_block_request *request)
{
    return (struct waiting *)(void *)request->backend;
}

static bool goes_before(struct sdc_block_request *a, struct sdc_block_request *b)
{
    const struct waiting *left = waiting_of(a), *right = waiting_of(b);

    return left->due_ns != right->due_ns ? left->due_ns < right->due_ns : left->number < right->number;
}

// Of two heaps one; either may be NULL.
static struct sdc_block_request *meld(struct sdc_block_request *a, struct sdc_block_request *b)
{
    if (!a || !b)
        return a ? a : b;
    struct sdc_block_request *top = goes_before(a, b) ? a : b, *other = top == a ? b : a;
    waiting_of(other)->sibling = waiting_of(top)->child;
    waiting_of(top)->child = other;
    return top;
}

// Takes the top. Its children are melded in pairs, and the pairs from the last to the first.
static struct sdc_block_request *take_first(struct delay_queue *queue)
{
    struct sdc_block_request *taken = queue->first, *pairs = NULL, *rest = NULL;

    for (struct sdc_block_request *at = waiting_of(taken)->child, *next; at; at = next) {
        struct sdc_block_request *second = waiting_of(at)->sibling;
        next = second ? waiting_of(second)->sibling : NULL;
        struct sdc_block_request *pair = meld(at, second);
        waiting_of(pair)->sibling = pairs;
        pairs = pair;
    }
    for (struct sdc_block_request *next; pairs; pairs = next) {
        next = waiting_of(pairs)->sibling;
        rest = meld(rest, pairs);
    }
    queue->first = rest;
    return taken;
}

// --- going on ---

static void wait_for_first(struct delay_queue *queue, uint64_t now_ns)
{
    if (!queue->first) {
        sdc_filter_timer_rest(&queue->filter, &queue->timer);
        return;
    }
    uint64_t due_ns = waiting_of(queue->first)->due_ns;
    sdc_filter_timer_set(&queue->filter, &queue->timer, due_ns > now_ns ? due_ns - now_ns : 0);
}

static void expired(struct sdc_timer *timer)
{
    struct delay_queue *queue = sdc_container(timer, struct delay_queue, timer);
    struct sdc_block_queue *next = queue->filter.next;
    uint64_t now_ns = sdc_clock_ns();

    while (queue->first && waiting_of(queue->first)->due_ns <= now_ns) {
        struct sdc_block_request *batch[BATCH];
        unsigned count = 0;
        while (count < BATCH && queue->first && waiting_of(queue->first)->due_ns <= now_ns)
            batch[count++] = take_first(queue);
        next->ops->submit(next, batch, count);
    }
    wait_for_first(queue, now_ns);
}

// --- coming in ---

static uint64_t draw(struct delay *delay, const struct sdc_delay_range *range)
{
    uint64_t width = range->most_ns - range->least_ns;

    if (width == 0)
        return range->least_ns;
    uint64_t number = atomic_fetch_add_explicit(&delay->drawn, 1, memory_order_relaxed);
    return range->least_ns + sdc_filter_random(delay->seed, number) % (width + 1);
}

static bool keeps(struct sdc_filter_queue *base, struct sdc_block_request *request)
{
    struct delay_queue *queue = (struct delay_queue *)base;
    struct delay *delay = (struct delay *)(void *)base->base.block;
    const struct sdc_delay_range *range = request->op == SDC_BLOCK_READ    ? &delay->reads
                                          : request->op == SDC_BLOCK_FLUSH ? &delay->flushes
                                                                           : &delay->writes;

    if (range->most_ns == 0)
        return false;
    if (queue->now_ns == 0)
        queue->now_ns = sdc_clock_ns();
    *waiting_of(request) = (struct waiting){.due_ns = queue->now_ns + draw(delay, range), .number = queue->number++};
    queue->first = meld(queue->first, request);
    return true;
}

static void submit(struct sdc_block_queue *base, struct sdc_block_request **requests, unsigned count)
{
    struct delay_queue *queue = (struct delay_queue *)base;
    struct sdc_block_request *first = queue->first;

    queue->now_ns = 0;
    sdc_filter_pass(&queue->filter, requests, count, keeps);
    if (queue->first != first)
        wait_for_first(queue, queue->now_ns);
}

static void cancel(struct sdc_block_queue *base)
{
    struct delay_queue *queue = (struct delay_queue *)base;

    while (queue->first)
        sdc_block_finish(&queue->filter.finisher, take_first(queue), -ECANCELED);
    sdc_filter_timer_rest(&queue->filter, &queue->timer);
    sdc_filter_queue_cancel(base);
}

static void close_queue(struct sdc_block_queue *base)
{
    sdc_loop_timer_clear(base->loop, &((struct delay_queue *)base)->timer);
    sdc_filter_queue_close(base);
}

static int queue_open(struct sdc_block *block, struct sdc_loop *loop, sdc_block_done *done, void *context, struct sdc_block_queue **queue)
{
    static const struct sdc_block_queue_ops ops = {.submit = submit, .cancel = cancel, .close = close_queue};
    const struct sdc_block_queue above = {.block = block, .loop = loop, .done = done, .context = context};
    struct sdc_filter_queue *made;
    int rc = sdc_filter_queue_new(sizeof(struct delay_queue), &ops, &above, NULL, &made);

    if (rc < 0)
        return rc;
    ((struct delay_queue *)made)->timer.expired = expired;
    rc = sdc_filter_timer_start(made, &((struct delay_queue *)made)->timer);
    if (rc < 0)
        sdc_filter_queue_close(&made->base);
    else
        *queue = &made->base;
    return rc;
}

static const struct sdc_block_ops block_ops = {
    .name = "delay", .info = sdc_filter_info, .queue_open = queue_open, .refresh = sdc_filter_refresh, .close = sdc_filter_close};

// --- opening ---

static bool is_said(const struct sdc_delay_range *range)
{
    return range->most_ns > 0;
}

static int delay_check(const union sdc_filter_options *options, struct sdc_error *err)
{
    const struct sdc_delay_options *delay = &options->delay;

    if (is_said(&delay->all) || is_said(&delay->read) || is_said(&delay->write) || is_said(&delay->flush))
        return 0;
    return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "delay: it is not said how long; type for example "
                         "delay,read=1ms,write=2ms-8ms:disk.img");
}

static int delay_open(struct sdc_block *next, const union sdc_filter_options *options, struct sdc_block **block, struct sdc_error *err)
{
    const struct sdc_delay_options *asked = &options->delay;
    struct delay *made = sdc_filter_new(sizeof *made, &block_ops, next, err);

    if (!made)
        return -ENOMEM;
    made->reads = is_said(&asked->read) ? asked->read : asked->all;
    made->writes = is_said(&asked->write) ? asked->write : asked->all;
    made->flushes = is_said(&asked->flush) ? asked->flush : asked->all;
    made->seed = asked->seed;
    *block = &made->filter.base;
    return 0;
}

// TIME, or TIME-TIME.
static int parse_range(const struct sdc_option *option, const char *text, void *value, struct sdc_error *err)
{
    struct sdc_delay_range *range = value;
    char least[32];
    size_t length = strcspn(text, "-");

    (void)option;
    snprintf(least, sizeof least, "%.*s", (int)sdc_min(length, sizeof least), text);
    int rc = length < sizeof least ? sdc_parse_time(least, &range->least_ns) : -EINVAL;
    if (rc == 0)
        rc = sdc_parse_time(text[length] == '-' ? text + length + 1 : least, &range->most_ns);
    if (rc == -EINVAL)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "is not a time, nor two with a dash between them (units ns, us, ms, s)");
    if (rc < 0 || range->most_ns > SDC_LIMIT_FILTER_SECONDS * UINT64_C(1000000000))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "is too long, the limit is %us", SDC_LIMIT_FILTER_SECONDS);
    if (range->least_ns > range->most_ns || range->most_ns == 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, range->most_ns == 0 ? "is no delay; leave it out" : "ends before it begins");
    return 0;
}

#define DELAY(member) SDC_OPTION_AT(union sdc_filter_options, delay.member)

static const struct sdc_option rows[] = {
    {"all", SDC_OPTION_CALL, DELAY(all), 0, 0, "1ms", parse_range},
    {"read", SDC_OPTION_CALL, DELAY(read), 0, 0, "1ms", parse_range},
    {"write", SDC_OPTION_CALL, DELAY(write), 0, 0, "2ms-8ms", parse_range},
    {"flush", SDC_OPTION_CALL, DELAY(flush), 0, 0, "10ms", parse_range},
    {"seed", SDC_OPTION_NUMBER, DELAY(seed), 0, UINT64_MAX, "1", NULL},
};
static const struct sdc_options options = {rows, SDC_COUNT(rows)};

const struct sdc_filter_type sdc_filter_delay = {
    .name = "delay", .what = "requests wait", .options = &options, .check = delay_check, .open = delay_open};
