// SPDX-License-Identifier: BSD-3-Clause
#include "backend/filter/stack.h"

#include "base/check.h"
#include "base/parse.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct sdc_filter_type *const kinds[] = {&sdc_filter_slice, &sdc_filter_readonly, &sdc_filter_delay, &sdc_filter_error,
                                                      &sdc_filter_limit};

const struct sdc_filter_type *sdc_filter_kind(size_t number)
{
    return number < SDC_COUNT(kinds) ? kinds[number] : NULL;
}

const struct sdc_filter_type *sdc_filter_named(const char *name, size_t length)
{
    for (size_t i = 0; i < SDC_COUNT(kinds); i++) {
        if (strlen(kinds[i]->name) == length && memcmp(kinds[i]->name, name, length) == 0)
            return kinds[i];
    }
    return NULL;
}

const char *sdc_filter_nearest(const char *text)
{
    const char *names[SDC_COUNT(kinds) + 1] = {0};

    for (size_t i = 0; i < SDC_COUNT(kinds); i++)
        names[i] = kinds[i]->name;
    return sdc_nearest(text, names);
}

// The filter that spec begins with; *end is moved behind its name. NULL: it begins with something else.
static const struct sdc_filter_type *begins_with(const char *spec, const char **end)
{
    size_t length = strcspn(spec, ",:");
    const struct sdc_filter_type *type = spec[length] ? sdc_filter_named(spec, length) : NULL;

    if (type)
        *end = spec + length;
    return type;
}

const char *sdc_stack_base(const char *spec)
{
    const char *at;

    while (begins_with(spec, &at)) {
        at += strcspn(at, ":");
        if (*at == '\0')
            break;
        spec = at + 1;
    }
    return spec;
}

// --- reading ---

struct layer {
    const struct sdc_filter_type *type;
    union sdc_filter_options options;
};

// Those of a stack from the top down, and what is below them.
struct stack {
    struct layer layers[SDC_BLOCK_FILTERS];
    unsigned count;
    const char *base;
};

enum { WORD_MAX = 64 };

// An option as it was typed.
struct typed {
    char name[WORD_MAX];
    char value[WORD_MAX];
    bool has_value;
};

static int unknown_option(const struct sdc_filter_type *type, const char *name, struct sdc_error *err)
{
    const struct sdc_option_group group = {type->options, (void *)type, NULL};
    const char *near = sdc_option_nearest(&group, 1, name);

    if (type->options->count == 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "%s: it has no options; type %s:BACKEND instead of %s,%s", type->name,
                             type->name, type->name, name);
    if (near)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "%s: unknown option '%s'; did you mean '%s'?", type->name, name, near);
    return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "%s: unknown option '%s'; sidecard-filters(7) lists what there is", type->name,
                         name);
}

static int set(struct layer *layer, const struct typed *typed, uint64_t *given, struct sdc_error *err)
{
    const struct sdc_option_group group = {layer->type->options, &layer->options, NULL}, *found;
    const struct sdc_option *option = sdc_option_find(&group, 1, typed->name, strlen(typed->name), &found);
    const char *filter = layer->type->name;
    struct sdc_error why = {0};

    if (!option)
        return unknown_option(layer->type, typed->name, err);
    if (!typed->has_value)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "%s,%s: it needs a value; type for example %s=%s", filter, option->name,
                             option->name, option->example);
    uint64_t bit = UINT64_C(1) << (option - layer->type->options->rows);
    if (*given & bit)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "%s: %s is said twice; leave one of them out", filter, option->name);
    *given |= bit;
    if (sdc_option_set(option, &layer->options, typed->value, &why) < 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "%s,%s=%s: %s; type for example %s=%s", filter, option->name, typed->value,
                             why.text, option->name, option->example);
    return 0;
}

// Takes the option at *at, which is moved behind it. -EINVAL: a word is too long to be any.
static int take_option(const char **at, struct typed *typed)
{
    size_t length = strcspn(*at, ",:"), name = strcspn(*at, "=,:");
    const char *value = *at + sdc_min(name + 1, length);

    typed->has_value = name < length;
    if (name >= WORD_MAX || length - name > WORD_MAX)
        return -EINVAL;
    snprintf(typed->name, WORD_MAX, "%.*s", (int)name, *at);
    snprintf(typed->value, WORD_MAX, "%.*s", (int)(*at + length - value), value);
    *at += length;
    return 0;
}

// The layer's options, which begin at *at with a comma, if there are any; *at is moved to the backend.
static int read_layer(struct layer *layer, const char **at, struct sdc_error *err)
{
    uint64_t given = 0;
    struct typed typed;

    while (**at == ',') {
        ++*at;
        int rc = take_option(at, &typed);
        if (rc < 0)
            return sdc_error_set(err, rc, SDC_FAULT_USER, "%s: an option of it is far too long: %.40s...", layer->type->name, typed.name);
        rc = set(layer, &typed, &given, err);
        if (rc < 0)
            return rc;
    }
    if (**at == '\0' || (*at)[1] == '\0')
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "%s: a filter without a backend; type %s%s:BACKEND, for example :disk.img at "
                             "its end", layer->type->name, layer->type->name, layer->type->options->count ? ",OPTION=VALUE" : "");
    ++*at;
    return layer->type->check ? layer->type->check(&layer->options, err) : 0;
}

static int read_stack(const char *spec, struct stack *stack, struct sdc_error *err)
{
    const struct sdc_filter_type *type;
    const char *at = spec;

    *stack = (struct stack){0};
    while ((type = begins_with(at, &at)) != NULL) {
        if (stack->count == SDC_BLOCK_FILTERS)
            return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "%s is one filter too many: %u may stand on one another; leave one out",
                                 type->name, SDC_BLOCK_FILTERS);
        struct layer *layer = &stack->layers[stack->count++];
        layer->type = type;
        int rc = read_layer(layer, &at, err);
        if (rc < 0)
            return rc;
    }
    stack->base = at;
    return 0;
}

// --- opening ---

// What the backend at the bottom has to know of the filters: whether anything is written, and which part of it they can reach.
static struct sdc_block_open_options options_of_base(const struct stack *stack, const struct sdc_block_open_options *asked)
{
    struct sdc_block_open_options options = *asked;

    for (unsigned i = stack->count; i-- > 0;) {
        const struct sdc_slice_options *slice = &stack->layers[i].options.slice;
        if (stack->layers[i].type == &sdc_filter_readonly)
            options.read_only = true;
        if (stack->layers[i].type != &sdc_filter_slice)
            continue;
        // The slice below ends where it ends; whether this one fits is seen when it is opened.
        uint64_t left = options.lock_size > slice->offset ? options.lock_size - slice->offset : options.lock_size ? 1 : 0;
        options.lock_offset = sdc_min(options.lock_offset + slice->offset, INT64_MAX); // both fit in 63 bits
        options.lock_size = slice->size && (left == 0 || slice->size < left) ? slice->size : left;
    }
    return options;
}

static const char *all_names(char text[WORD_MAX])
{
    const char *names[SDC_COUNT(kinds)];

    for (size_t i = 0; i < SDC_COUNT(kinds); i++)
        names[i] = kinds[i]->name;
    return sdc_list_names(names, SDC_COUNT(kinds), ", ", text, WORD_MAX);
}

// Something that is no backend may be a filter misspelt.
static int explain(const char *base, int rc, struct sdc_error *err)
{
    char word[WORD_MAX], names[WORD_MAX];
    size_t length = strcspn(base, ",:");

    if (rc != -ENOENT || length >= sizeof word || memchr(base, '/', length))
        return rc;
    snprintf(word, sizeof word, "%.*s", (int)length, base);
    const char *near = sdc_filter_nearest(word);
    if (base[length] == '\0') {
        if (sdc_filter_named(word, length))
            return sdc_error_set(err, rc, SDC_FAULT_USER, "no such file: %s; as a filter it needs a backend behind it: type %s:BACKEND",
                                 base, base);
        return rc;
    }
    if (near)
        return sdc_error_set(err, rc, SDC_FAULT_USER, "no such file: %.100s, and no filter is called '%s'; did you mean %s%.100s?", base,
                             word, near, base + length);
    if (base[length] == ',' && strchr(base, ':'))
        return sdc_error_set(err, rc, SDC_FAULT_USER, "no such file: %.100s, and no filter is called '%s' (there are: %s)", base, word,
                             all_names(names));
    return rc;
}

int sdc_stack_open(const char *spec, const struct sdc_block_open_options *asked, struct sdc_block **block, struct sdc_error *err)
{
    struct stack stack;
    int rc = read_stack(spec, &stack, err);

    if (rc < 0)
        return rc;
    struct sdc_block_open_options options = options_of_base(&stack, asked);
    struct sdc_block *top;
    rc = sdc_block_open(stack.base, &options, &top, err);
    if (rc < 0)
        return explain(stack.base, rc, err);
    while (stack.count > 0) {
        const struct layer *layer = &stack.layers[--stack.count];
        struct sdc_block *above;
        rc = layer->type->open(top, &layer->options, &above, err);
        if (rc < 0) {
            top->ops->close(top);
            return rc;
        }
        top = above;
    }
    *block = top;
    return 0;
}
