// SPDX-License-Identifier: BSD-3-Clause
// So many requests, and so many bytes, a second. A limit is one word that all queues share: the moment from which on what was let through
// so far would have been allowed, had nothing been saved up. A request moves it on by what it costs, and may go when the moment before is
// no further ahead than the burst. So nothing has to be filled up as time goes by, a request larger than the burst goes too and is paid
// for by those behind it, and however late a loop is, no allowance is lost but what is older than the burst.
//
// Those that wait do so in the order in which they came, reads and writes in lines of their own. Only the first of a line has its moment;
// the next one asks for its own when that one goes. So queues that wait take turns.
#include "backend/filter/filter.h"
#include "base/check.h"
#include "base/limits.h"
#include "base/parse.h"
#include "os/clock.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

// Time is counted in sixteenths of a nanosecond, of which a request costs a whole number.
enum { TICKS = 16, BATCH = 64 };
#define TICKS_A_SECOND (UINT64_C(1000000000) * TICKS)
#define COST_MOST (SDC_LIMIT_FILTER_SECONDS * TICKS_A_SECOND)
#define BURST_NS UINT64_C(100000000)

struct rate {
    _Alignas(64) _Atomic uint64_t moment; // ticks of the monotonic clock
    double cost;                          // ticks of a request, or of a byte
    bool of_bytes;
};

enum { REQUESTS, BYTES, KINDS };
enum { READS, WRITES, LINES };

struct limit {
    struct sdc_filter filter;
    uint64_t burst; // ticks
    // Those that there are and a request of a line has to keep to.
    struct rate *kept[LINES][2 * KINDS];
    unsigned kept_count[LINES];
    struct rate rates[SDC_RATE_DIRECTIONS][KINDS];
};

struct line {
    struct sdc_block_list waiting;
    uint64_t moment; // when the first of them may go, ticks
};

struct limit_queue {
    struct sdc_filter_queue filter;
    struct sdc_timer timer;
    struct line lines[LINES];
    uint64_t now; // ticks, while a batch is submitted; 0: nobody has looked yet
};

// --- moments ---

// Which line a request belongs to. Discards and zeroes are writes.
static unsigned line_of(const struct sdc_block_request *request)
{
    return request->op == SDC_BLOCK_READ ? READS : WRITES;
}

static uint64_t cost_of(const struct rate *rate, const struct sdc_block_request *request)
{
    // What is discarded or zeroed does not move.
    bool moves = request->op == SDC_BLOCK_READ || request->op == SDC_BLOCK_WRITE;
    double cost = rate->of_bytes ? rate->cost * (double)(moves ? request->size : 0) : rate->cost;

    return cost < (double)COST_MOST ? (uint64_t)cost : COST_MOST;
}

// Takes the request's costs from one limit. When it may go by that, ticks.
static uint64_t take(struct rate *rate, uint64_t cost, uint64_t burst, uint64_t now)
{
    uint64_t before = atomic_load_explicit(&rate->moment, memory_order_relaxed), from;

    do
        from = sdc_max(before, now);
    while (!atomic_compare_exchange_weak_explicit(&rate->moment, &before, from + cost, memory_order_relaxed, memory_order_relaxed));
    return from > burst ? from - burst : 0;
}

// Takes the request's costs from all limits. When it may go, ticks.
static uint64_t take_all(struct limit *limit, const struct sdc_block_request *request, uint64_t now)
{
    unsigned line = line_of(request);
    uint64_t moment = 0;

    for (unsigned i = 0; i < limit->kept_count[line]; i++) {
        struct rate *rate = limit->kept[line][i];
        uint64_t cost = cost_of(rate, request);
        if (cost > 0)
            moment = sdc_max(moment, take(rate, cost, limit->burst, now));
    }
    return moment;
}

// The request does not go after all. Others keep the moments that they have.
static void give_back(struct limit *limit, const struct sdc_block_request *request)
{
    unsigned line = line_of(request);

    for (unsigned i = 0; i < limit->kept_count[line]; i++) {
        struct rate *rate = limit->kept[line][i];
        atomic_fetch_sub_explicit(&rate->moment, cost_of(rate, request), memory_order_relaxed);
    }
}

// --- lines ---

static struct limit *limit_of(struct limit_queue *queue)
{
    return (struct limit *)(void *)queue->filter.base.block;
}

static void wait_for_first(struct limit_queue *queue, uint64_t now)
{
    uint64_t moment = UINT64_MAX;

    for (unsigned i = 0; i < LINES; i++) {
        if (queue->lines[i].waiting.first)
            moment = sdc_min(moment, queue->lines[i].moment);
    }
    if (moment == UINT64_MAX)
        sdc_filter_timer_rest(&queue->filter, &queue->timer);
    else
        sdc_filter_timer_set(&queue->filter, &queue->timer, moment > now ? (moment - now + TICKS - 1) / TICKS : 0);
}

// The first of the line, if it may go now; the one behind it gets its moment.
static struct sdc_block_request *take_first(struct limit_queue *queue, struct line *line, uint64_t now)
{
    if (!line->waiting.first || line->moment > now)
        return NULL;
    struct sdc_block_request *request = sdc_block_list_take(&line->waiting);
    if (line->waiting.first)
        line->moment = take_all(limit_of(queue), line->waiting.first, now);
    return request;
}

static void expired(struct sdc_timer *timer)
{
    struct limit_queue *queue = sdc_container(timer, struct limit_queue, timer);
    struct sdc_block_queue *next = queue->filter.next;
    uint64_t now = sdc_clock_ns() * TICKS;

    for (unsigned i = 0; i < LINES; i++) {
        struct sdc_block_request *batch[BATCH], *request;
        unsigned count = 0;
        while ((request = take_first(queue, &queue->lines[i], now)) != NULL) {
            batch[count++] = request;
            if (count == BATCH) {
                next->ops->submit(next, batch, count);
                count = 0;
            }
        }
        if (count > 0)
            next->ops->submit(next, batch, count);
    }
    wait_for_first(queue, now);
}

static bool keeps(struct sdc_filter_queue *base, struct sdc_block_request *request)
{
    struct limit_queue *queue = (struct limit_queue *)base;
    struct line *line = &queue->lines[line_of(request)];
    bool is_first = !line->waiting.first;

    if (request->op == SDC_BLOCK_FLUSH)
        return false;
    if (is_first) {
        if (queue->now == 0)
            queue->now = sdc_clock_ns() * TICKS;
        line->moment = take_all(limit_of(queue), request, queue->now);
        if (line->moment <= queue->now)
            return false;
    }
    sdc_block_list_add(&line->waiting, request);
    if (is_first)
        wait_for_first(queue, queue->now);
    return true;
}

static void submit(struct sdc_block_queue *base, struct sdc_block_request **requests, unsigned count)
{
    struct limit_queue *queue = (struct limit_queue *)base;

    queue->now = 0;
    sdc_filter_pass(&queue->filter, requests, count, keeps);
}

static void cancel(struct sdc_block_queue *base)
{
    struct limit_queue *queue = (struct limit_queue *)base;

    for (unsigned i = 0; i < LINES; i++) {
        struct sdc_block_list *waiting = &queue->lines[i].waiting;
        if (waiting->first)
            give_back(limit_of(queue), waiting->first);
        while (waiting->first)
            sdc_block_finish(&queue->filter.finisher, sdc_block_list_take(waiting), -ECANCELED);
    }
    sdc_filter_timer_rest(&queue->filter, &queue->timer);
    sdc_filter_queue_cancel(base);
}

static void close_queue(struct sdc_block_queue *base)
{
    sdc_loop_timer_clear(base->loop, &((struct limit_queue *)base)->timer);
    sdc_filter_queue_close(base);
}

static int queue_open(struct sdc_block *block, struct sdc_loop *loop, sdc_block_done *done, void *context, struct sdc_block_queue **queue)
{
    static const struct sdc_block_queue_ops ops = {.submit = submit, .cancel = cancel, .close = close_queue};
    const struct sdc_block_queue above = {.block = block, .loop = loop, .done = done, .context = context};
    struct sdc_filter_queue *made;
    int rc = sdc_filter_queue_new(sizeof(struct limit_queue), &ops, &above, NULL, &made);

    if (rc < 0)
        return rc;
    ((struct limit_queue *)made)->timer.expired = expired;
    rc = sdc_filter_timer_start(made, &((struct limit_queue *)made)->timer);
    if (rc < 0)
        sdc_filter_queue_close(&made->base);
    else
        *queue = &made->base;
    return rc;
}

static const struct sdc_block_ops block_ops = {
    .name = "limit", .info = sdc_filter_info, .queue_open = queue_open, .refresh = sdc_filter_refresh, .close = sdc_filter_close};

// --- opening ---

static int limit_check(const union sdc_filter_options *options, struct sdc_error *err)
{
    for (unsigned i = 0; i < SDC_RATE_DIRECTIONS; i++) {
        if (options->limit.iops[i] || options->limit.bandwidth[i])
            return 0;
    }
    return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "limit: it is not said what the limit is; type for example "
                         "limit,iops=1000,bw=100M:disk.img");
}

// There is this limit, of direction i.
static void keep_to(struct limit *limit, unsigned i, unsigned kind, uint64_t a_second)
{
    struct rate *rate = &limit->rates[i][kind];

    rate->cost = (double)TICKS_A_SECOND / (double)a_second;
    rate->of_bytes = kind == BYTES;
    if (i != SDC_RATE_WRITE)
        limit->kept[READS][limit->kept_count[READS]++] = rate;
    if (i != SDC_RATE_READ)
        limit->kept[WRITES][limit->kept_count[WRITES]++] = rate;
}

static int limit_open(struct sdc_block *next, const union sdc_filter_options *options, struct sdc_block **block, struct sdc_error *err)
{
    const struct sdc_limit_options *asked = &options->limit;
    struct limit *made = sdc_filter_new(sizeof *made, &block_ops, next, err);

    if (!made)
        return -ENOMEM;
    for (unsigned i = 0; i < SDC_RATE_DIRECTIONS; i++) {
        if (asked->iops[i])
            keep_to(made, i, REQUESTS, asked->iops[i]);
        if (asked->bandwidth[i])
            keep_to(made, i, BYTES, asked->bandwidth[i]);
    }
    made->burst = (asked->burst_ns ? asked->burst_ns : BURST_NS) * TICKS;
    *block = &made->filter.base;
    return 0;
}

static int parse_burst(const struct sdc_option *option, const char *text, void *value, struct sdc_error *err)
{
    uint64_t ns = 0;
    int rc = sdc_parse_time(text, &ns);

    if (rc == -EINVAL)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "is not a time (units ns, us, ms, s)");
    if (rc < 0 || ns < option->min || ns > option->max)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "must be 1ms to %us", SDC_LIMIT_FILTER_SECONDS);
    *(uint64_t *)value = ns;
    return 0;
}

#define LIMIT(member) SDC_OPTION_AT(union sdc_filter_options, limit.member)
#define IOPS_MOST UINT64_C(100000000)
#define BANDWIDTH_MOST (UINT64_C(1) << 40)

static const struct sdc_option rows[] = {
    {"iops", SDC_OPTION_NUMBER, LIMIT(iops[SDC_RATE_ALL]), 1, IOPS_MOST, "1000", NULL},
    {"read-iops", SDC_OPTION_NUMBER, LIMIT(iops[SDC_RATE_READ]), 1, IOPS_MOST, "1000", NULL},
    {"write-iops", SDC_OPTION_NUMBER, LIMIT(iops[SDC_RATE_WRITE]), 1, IOPS_MOST, "1000", NULL},
    {"bw", SDC_OPTION_SIZE, LIMIT(bandwidth[SDC_RATE_ALL]), 1, BANDWIDTH_MOST, "100M", NULL},
    {"read-bw", SDC_OPTION_SIZE, LIMIT(bandwidth[SDC_RATE_READ]), 1, BANDWIDTH_MOST, "100M", NULL},
    {"write-bw", SDC_OPTION_SIZE, LIMIT(bandwidth[SDC_RATE_WRITE]), 1, BANDWIDTH_MOST, "100M", NULL},
    {"burst", SDC_OPTION_CALL, LIMIT(burst_ns), 1000000, SDC_LIMIT_FILTER_SECONDS * UINT64_C(1000000000), "1s", parse_burst},
};
static const struct sdc_options options = {rows, SDC_COUNT(rows)};

const struct sdc_filter_type sdc_filter_limit = {
    .name = "limit", .what = "so many requests and bytes a second", .options = &options, .check = limit_check, .open = limit_open};
