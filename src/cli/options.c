// SPDX-License-Identifier: BSD-3-Clause
#include "cli/options.h"

#include "base/parse.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int refuse(const struct sdc_option *option, const char *text, const char *why, struct sdc_error *err)
{
    return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--%s=%s: %s; type for example %s", option->name, text, why,
                         option->example);
}

static int parse_number(const struct sdc_option *option, const char *text, struct sdc_error *err)
{
    char why[96];
    int rc = sdc_parse_number(text, option->min, option->max, option->value);

    if (rc == 0)
        return 0;
    if (rc == -ERANGE)
        snprintf(why, sizeof why, "must be %" PRIu64 " to %" PRIu64, option->min, option->max);
    else
        snprintf(why, sizeof why, "is not a number");
    return refuse(option, text, why, err);
}

static int parse_size(const struct sdc_option *option, const char *text, struct sdc_error *err)
{
    char why[96], low[32], high[32];
    uint64_t bytes;
    int rc = sdc_parse_size(text, &bytes);

    if (rc == -EINVAL)
        return refuse(option, text, "is not a size in bytes (suffixes k, M, G, T)", err);
    if (rc == 0 && bytes >= option->min && bytes <= option->max) {
        *(uint64_t *)option->value = bytes;
        return 0;
    }
    snprintf(why, sizeof why, "must be %s to %s", sdc_format_size(option->min, low), sdc_format_size(option->max, high));
    return refuse(option, text, why, err);
}

static int parse_bool(const struct sdc_option *option, const char *text, struct sdc_error *err)
{
    return sdc_parse_bool(text, option->value) < 0 ? refuse(option, text, "must be on or off", err) : 0;
}

static int set(const struct sdc_option *option, const char *text, struct sdc_error *err)
{
    switch (option->kind) {
    case SDC_OPTION_FLAG:
    case SDC_OPTION_BOOL:
        return parse_bool(option, text, err);
    case SDC_OPTION_NUMBER:
        return parse_number(option, text, err);
    case SDC_OPTION_SIZE:
        return parse_size(option, text, err);
    case SDC_OPTION_TEXT:
        *(const char **)option->value = text;
        return 0;
    case SDC_OPTION_CALL:
        return option->parse(option, text, err);
    }
    return 0;
}

static int unknown(const struct sdc_option *options, size_t count, const char *name, size_t length, struct sdc_error *err)
{
    const char *names[64];
    char text[64];
    size_t n = 0;

    snprintf(text, sizeof text, "%.*s", (int)length, name);
    for (; n < count && n < 63; n++)
        names[n] = options[n].name;
    names[n] = NULL;
    const char *near = sdc_nearest(text, names);
    if (near)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "unknown option --%s; did you mean --%s?", text, near);
    return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "unknown option --%s; --help lists what there is", text);
}

static const struct sdc_option *find(const struct sdc_option *options, size_t count, const char *name, size_t length)
{
    for (size_t i = 0; i < count; i++) {
        if (strlen(options[i].name) == length && memcmp(options[i].name, name, length) == 0)
            return &options[i];
    }
    return NULL;
}

// One option at argv[*at]; *at moves on if its value is the next argument.
static int parse_option(const struct sdc_option *options, size_t count, int argc, char **argv, int *at,
                        struct sdc_error *err)
{
    const char *name = argv[*at] + 2;
    size_t length = strcspn(name, "=");
    const struct sdc_option *option = find(options, count, name, length);

    if (!option)
        return unknown(options, count, name, length, err);
    if (name[length] == '=')
        return set(option, name + length + 1, err);
    if (option->kind == SDC_OPTION_FLAG)
        return set(option, "on", err);
    if (*at + 1 >= argc)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--%s needs a value; type for example %s", option->name,
                             option->example);
    return set(option, argv[++*at], err);
}

int sdc_options_parse(const struct sdc_option *options, size_t options_count, int argc, char **argv, const char **others,
                      int max, struct sdc_error *err)
{
    bool options_end = false;
    int count = 0;

    for (int i = 1; i < argc; i++) {
        if (!options_end && strcmp(argv[i], "--") == 0) {
            options_end = true;
        } else if (!options_end && strncmp(argv[i], "--", 2) == 0) {
            int rc = parse_option(options, options_count, argc, argv, &i, err);
            if (rc < 0)
                return rc;
        } else if (!options_end && argv[i][0] == '-' && argv[i][1] != '\0') {
            return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "unknown option %s; options begin with two dashes, --help lists them",
                                 argv[i]);
        } else if (count == max) {
            return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "one argument too many: '%s'", argv[i]);
        } else {
            others[count++] = argv[i];
        }
    }
    return count;
}

int sdc_command_failed(const struct sdc_error *err)
{
    fprintf(stderr, "sidecard: %s\n", err->text);
    return err->fault == SDC_FAULT_USER && err->code == -EINVAL ? 2 : 1;
}
