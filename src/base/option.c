// SPDX-License-Identifier: BSD-3-Clause
#include "base/option.h"

#include "base/check.h"
#include "base/log.h"
#include "base/parse.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { NAMES_MAX = 96 };

static int wrong(struct sdc_error *err, const char *what)
{
    return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "%s", what);
}

static void store(const struct sdc_option *option, void *value, uint64_t number)
{
    switch (option->size) {
    case 1:
        *(uint8_t *)value = (uint8_t)number;
        break;
    case 2:
        *(uint16_t *)value = (uint16_t)number;
        break;
    case 4:
        *(uint32_t *)value = (uint32_t)number;
        break;
    case 8:
        *(uint64_t *)value = number;
        break;
    default:
        sdc_bug("an option's value is of no size that numbers have");
    }
}

static int set_number(const struct sdc_option *option, void *value, const char *text, struct sdc_error *err)
{
    uint64_t number;
    int rc = sdc_parse_number(text, option->min, option->max, &number);

    if (rc == -ERANGE)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "must be %" PRIu64 " to %" PRIu64, option->min, option->max);
    if (rc < 0)
        return wrong(err, "is not a number");
    if (option->kind == SDC_OPTION_POWER_OF_TWO && !sdc_is_power_of_two(number))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "must be a power of two, %" PRIu64 " to %" PRIu64, option->min, option->max);
    store(option, value, number);
    return 0;
}

static int set_size(const struct sdc_option *option, void *value, const char *text, struct sdc_error *err)
{
    char low[32], high[32];
    uint64_t bytes = 0;
    int rc = sdc_parse_size(text, &bytes);

    if (rc == -EINVAL)
        return wrong(err, "is not a size in bytes (suffixes k, M, G, T)");
    if (rc < 0 || bytes < option->min || bytes > option->max)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "must be %s to %s", sdc_format_size(option->min, low),
                             sdc_format_size(option->max, high));
    store(option, value, bytes);
    return 0;
}

static int set_text(const struct sdc_option *option, void *value, const char *text, struct sdc_error *err)
{
    if (option->max > 0 && strlen(text) > option->max)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "has %zu characters, the limit is %" PRIu64, strlen(text), option->max);
    *(const char **)value = text;
    return 0;
}

int sdc_option_set(const struct sdc_option *option, void *values, const char *text, struct sdc_error *err)
{
    void *value = (char *)values + option->place;

    switch (option->kind) {
    case SDC_OPTION_FLAG:
    case SDC_OPTION_BOOL:
        return sdc_parse_bool(text, value) < 0 ? wrong(err, "must be on or off") : 0;
    case SDC_OPTION_NUMBER:
    case SDC_OPTION_POWER_OF_TWO:
        return set_number(option, value, text, err);
    case SDC_OPTION_SIZE:
        return set_size(option, value, text, err);
    case SDC_OPTION_TEXT:
        return set_text(option, value, text, err);
    case SDC_OPTION_CALL:
        return option->parse(option, text, value, err);
    }
    return 0;
}

int sdc_option_pick(const char *text, const char *const *names, size_t count, struct sdc_error *err)
{
    char all[128];

    for (size_t i = 0; i < count; i++) {
        if (strcmp(text, names[i]) == 0)
            return (int)i;
    }
    return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "must be %s", sdc_list_names(names, count, " or ", all, sizeof all));
}

bool sdc_option_says_what(const struct sdc_error *err)
{
    size_t length = strlen(err->text);

    return length > 0 && err->text[length - 1] == '?';
}

// --- several tables ---

static const struct sdc_option *find_in(const struct sdc_options *options, const char *name, size_t length)
{
    for (size_t i = 0; i < options->count; i++) {
        if (strlen(options->rows[i].name) == length && memcmp(options->rows[i].name, name, length) == 0)
            return &options->rows[i];
    }
    return NULL;
}

const struct sdc_option *sdc_option_find(const struct sdc_option_group *groups, size_t count, const char *name, size_t length,
                                         const struct sdc_option_group **group)
{
    const struct sdc_option *found = NULL;

    for (size_t i = 0; i < count; i++) {
        const struct sdc_option *option = found && !groups[i].values ? NULL : find_in(groups[i].options, name, length);
        if (!option)
            continue;
        found = option;
        *group = &groups[i];
        if (groups[i].values)
            break;
    }
    return found;
}

const char *sdc_option_nearest(const struct sdc_option_group *groups, size_t count, const char *text)
{
    const char *names[NAMES_MAX + 1];
    size_t n = 0;

    for (size_t g = 0; g < count; g++) {
        for (size_t i = 0; groups[g].values && i < groups[g].options->count && n < NAMES_MAX; i++)
            names[n++] = groups[g].options->rows[i].name;
    }
    names[n] = NULL;
    return sdc_nearest(text, names);
}
