// SPDX-License-Identifier: BSD-3-Clause
#include "cli/options.h"

#include "base/check.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

// What of argv an option is.
struct typed {
    const char *name;
    size_t length;     // of the name, bytes
    const char *value; // NULL: none was given
};

// --- mistakes ---

// Says where the value is, around what `why` says is wrong with it.
static int refuse(const struct sdc_option *option, const char *text, const struct sdc_error *why, struct sdc_error *err)
{
    if (sdc_option_says_what(why))
        return sdc_error_set(err, why->code, why->fault, "--%s=%s: %s", option->name, text, why->text);
    return sdc_error_set(err, why->code, why->fault, "--%s=%s: %s; type for example --%s%s%s", option->name, text, why->text, option->name,
                         option->example ? "=" : "", option->example ? option->example : "");
}

static int unknown(const struct sdc_option_group *groups, size_t count, const struct typed *typed, struct sdc_error *err)
{
    char text[64];

    snprintf(text, sizeof text, "%.*s", (int)sdc_min(typed->length, sizeof text), typed->name);
    const char *near = sdc_option_nearest(groups, count, text);
    if (near)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "unknown option --%s; did you mean --%s?", text, near);
    return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "unknown option --%s; --help lists what there is", text);
}

// The option at argv[*at]; *at moves on if its value is the next argument. NULL: it is unknown.
static const struct sdc_option *take(const struct sdc_option_group *groups, size_t count, int argc, char **argv, int *at,
                                     struct typed *typed, const struct sdc_option_group **group)
{
    typed->name = argv[*at] + 2;
    typed->length = strcspn(typed->name, "=");
    typed->value = typed->name[typed->length] == '=' ? typed->name + typed->length + 1 : NULL;
    const struct sdc_option *option = sdc_option_find(groups, count, typed->name, typed->length, group);
    if (!option || typed->value)
        return option;
    if (option->kind == SDC_OPTION_FLAG)
        typed->value = "on";
    else if (*at + 1 < argc)
        typed->value = argv[++*at];
    return option;
}

static int set(const struct sdc_option *option, const struct sdc_option_group *group, const struct typed *typed, struct sdc_error *err)
{
    struct sdc_error why = {0};

    if (!group->values)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--%s: %s", option->name, group->why);
    if (!typed->value)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--%s needs a value; type for example --%s=%s", option->name, option->name,
                             option->example);
    return sdc_option_set(option, group->values, typed->value, &why) < 0 ? refuse(option, typed->value, &why, err) : 0;
}

// --- argv ---

// Goes through argv. Strict: the first mistake ends it.
static int walk(const struct sdc_option_group *groups, size_t groups_count, int argc, char **argv, const char **others, int max,
                bool strict, struct sdc_error *err)
{
    bool options_end = false;
    int count = 0;

    for (int i = 1; i < argc; i++) {
        if (!options_end && strcmp(argv[i], "--") == 0) {
            options_end = true;
        } else if (!options_end && strncmp(argv[i], "--", 2) == 0) {
            const struct sdc_option_group *group;
            struct typed typed;
            const struct sdc_option *option = take(groups, groups_count, argc, argv, &i, &typed, &group);
            int rc = option ? set(option, group, &typed, err) : unknown(groups, groups_count, &typed, err);
            if (rc < 0 && strict)
                return rc;
        } else if (!options_end && argv[i][0] == '-' && argv[i][1] != '\0') {
            if (strict)
                return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "unknown option %s; options begin with two dashes, --help lists them",
                                     argv[i]);
        } else if (count < max) {
            others[count++] = argv[i];
        } else if (strict) {
            return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "one argument too many: '%s'; options begin with two dashes", argv[i]);
        }
    }
    return count;
}

int sdc_options_parse(const struct sdc_option_group *groups, size_t groups_count, int argc, char **argv, const char **others, int max,
                      struct sdc_error *err)
{
    return walk(groups, groups_count, argc, argv, others, max, true, err);
}

int sdc_options_glance(const struct sdc_option_group *groups, size_t groups_count, int argc, char **argv, const char **others, int max)
{
    return walk(groups, groups_count, argc, argv, others, max, false, NULL);
}

int sdc_command_failed(const struct sdc_error *err)
{
    fprintf(stderr, "sidecard: %s\n", err->text);
    return err->fault == SDC_FAULT_USER && err->code == -EINVAL ? 2 : 1;
}
