// SPDX-License-Identifier: BSD-3-Clause
// Requests fail by a rule. Those that the rule is about are counted, over all queues, and the number of a request says whether it fails, so
// that the same requests fail whenever they come in the same order.
#include "backend/filter/filter.h"
#include "base/check.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct fault {
    struct sdc_filter filter;
    struct sdc_fault_options rule;
    uint64_t end;           // of the part of the disk
    _Alignas(64) _Atomic uint64_t seen; // requests that the rule is about
    _Atomic uint64_t failed;            // may count on past rule.times
    atomic_bool spent;                  // nothing fails any more
};

static bool is_about(const struct fault *fault, const struct sdc_block_request *request)
{
    const struct sdc_fault_options *rule = &fault->rule;
    bool everywhere = rule->offset == 0 && fault->end == UINT64_MAX;

    if (rule->ops && !(rule->ops & 1u << request->op))
        return false;
    if (everywhere)
        return true;
    if (request->op == SDC_BLOCK_FLUSH || request->size == 0)
        return false; // it has no place
    uint64_t last = request->size - 1;
    return request->offset < fault->end && (!sdc_add(request->offset, last, &last) || last >= rule->offset);
}

static bool is_chosen(struct fault *fault, uint64_t number)
{
    const struct sdc_fault_options *rule = &fault->rule;

    if (number < rule->after)
        return false;
    number -= rule->after;
    if (rule->every)
        return (number + 1) % rule->every == 0;
    return rule->probability == 0 || (double)(sdc_filter_random(rule->seed, number) >> 11) * 0x1p-53 < rule->probability;
}

static bool keeps(struct sdc_filter_queue *queue, struct sdc_block_request *request)
{
    struct fault *fault = (struct fault *)(void *)queue->base.block;

    if (!is_about(fault, request))
        return false;
    if (!is_chosen(fault, atomic_fetch_add_explicit(&fault->seen, 1, memory_order_relaxed)))
        return false;
    if (fault->rule.times) {
        uint64_t before = atomic_fetch_add_explicit(&fault->failed, 1, memory_order_relaxed);
        if (before + 1 >= fault->rule.times)
            atomic_store_explicit(&fault->spent, true, memory_order_relaxed);
        if (before >= fault->rule.times)
            return false;
    }
    sdc_block_finish(&queue->finisher, request, fault->rule.result);
    return true;
}

static void submit(struct sdc_block_queue *base, struct sdc_block_request **requests, unsigned count)
{
    struct sdc_filter_queue *queue = (struct sdc_filter_queue *)base;
    const struct fault *fault = (struct fault *)(void *)base->block;

    if (atomic_load_explicit(&fault->spent, memory_order_relaxed))
        queue->next->ops->submit(queue->next, requests, count);
    else
        sdc_filter_pass(queue, requests, count, keeps);
}

static int queue_open(struct sdc_block *block, struct sdc_loop *loop, sdc_block_done *done, void *context, struct sdc_block_queue **queue)
{
    static const struct sdc_block_queue_ops ops = {
        .submit = submit, .cancel = sdc_filter_queue_cancel, .close = sdc_filter_queue_close};
    const struct sdc_block_queue above = {.block = block, .loop = loop, .done = done, .context = context};

    return sdc_filter_queue_plain(&ops, &above, NULL, queue);
}

static const struct sdc_block_ops block_ops = {
    .name = "error", .info = sdc_filter_info, .queue_open = queue_open, .refresh = sdc_filter_refresh, .close = sdc_filter_close};

// --- opening ---

static int error_check(const union sdc_filter_options *options, struct sdc_error *err)
{
    const struct sdc_fault_options *rule = &options->fault;

    if (rule->every && rule->probability != 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "error: every and probability are two ways to choose; leave one of them out");
    if (rule->ops == 1u << SDC_BLOCK_FLUSH && (rule->offset || rule->size))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "error,op=flush: a flush is of the whole disk; leave offset and size out");
    return 0;
}

static int error_open(struct sdc_block *next, const union sdc_filter_options *options, struct sdc_block **block, struct sdc_error *err)
{
    struct fault *made = sdc_filter_new(sizeof *made, &block_ops, next, err);

    if (!made)
        return -ENOMEM;
    made->rule = options->fault;
    if (made->rule.result == 0)
        made->rule.result = -EIO;
    if (made->rule.size == 0 || !sdc_add(made->rule.offset, made->rule.size, &made->end))
        made->end = UINT64_MAX;
    *block = &made->filter.base;
    return 0;
}

static int parse_op(const struct sdc_option *option, const char *text, void *value, struct sdc_error *err)
{
    static const char *const names[] = {[SDC_BLOCK_READ] = "read",       [SDC_BLOCK_WRITE] = "write",
                                        [SDC_BLOCK_FLUSH] = "flush",     [SDC_BLOCK_DISCARD] = "discard",
                                        [SDC_BLOCK_WRITE_ZEROES] = "zeroes", "all"};
    int which = sdc_option_pick(text, names, SDC_COUNT(names), err);

    (void)option;
    if (which >= 0)
        *(uint32_t *)value = which > SDC_BLOCK_WRITE_ZEROES ? 0 : 1u << which;
    return which < 0 ? which : 0;
}

static int parse_errno(const struct sdc_option *option, const char *text, void *value, struct sdc_error *err)
{
    static const char *const names[] = {"EIO", "ENOSPC", "EINVAL", "EROFS", "EBUSY", "ENOMEM", "EOPNOTSUPP", "ETIMEDOUT"};
    static const int results[] = {-EIO, -ENOSPC, -EINVAL, -EROFS, -EBUSY, -ENOMEM, -EOPNOTSUPP, -ETIMEDOUT};
    int which = sdc_option_pick(text, names, SDC_COUNT(names), err);

    (void)option;
    if (which >= 0)
        *(int *)value = results[which];
    return which < 0 ? which : 0;
}

static int parse_probability(const struct sdc_option *option, const char *text, void *value, struct sdc_error *err)
{
    char *end;
    double number = strtod(text, &end);

    (void)option;
    if (strspn(text, "0123456789.") != strlen(text) || *text == '\0' || *end != '\0' || !(number > 0 && number <= 1))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "must be a number above 0, and 1 at most");
    *(double *)value = number;
    return 0;
}

#define FAULT(member) SDC_OPTION_AT(union sdc_filter_options, fault.member)

static const struct sdc_option rows[] = {
    {"op", SDC_OPTION_CALL, FAULT(ops), 0, 0, "read", parse_op},
    {"offset", SDC_OPTION_SIZE, FAULT(offset), 0, INT64_MAX, "1M", NULL},
    {"size", SDC_OPTION_SIZE, FAULT(size), 1, INT64_MAX, "64k", NULL},
    {"every", SDC_OPTION_NUMBER, FAULT(every), 1, UINT64_MAX, "100", NULL},
    {"probability", SDC_OPTION_CALL, FAULT(probability), 0, 0, "0.01", parse_probability},
    {"after", SDC_OPTION_NUMBER, FAULT(after), 1, UINT64_MAX, "1000", NULL},
    {"times", SDC_OPTION_NUMBER, FAULT(times), 1, INT64_MAX, "1", NULL},
    {"errno", SDC_OPTION_CALL, FAULT(result), 0, 0, "ENOSPC", parse_errno},
    {"seed", SDC_OPTION_NUMBER, FAULT(seed), 0, UINT64_MAX, "1", NULL},
};
static const struct sdc_options options = {rows, SDC_COUNT(rows)};

const struct sdc_filter_type sdc_filter_error = {
    .name = "error", .what = "requests fail by a rule", .options = &options, .check = error_check, .open = error_open};
