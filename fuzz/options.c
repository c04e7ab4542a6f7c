// SPDX-License-Identifier: BSD-3-Clause
// Command line options, numbers and sizes. The input is one argument a line; its first byte chooses the command.
#include "base/parse.h"
#include "card.h"
#include "cli/bench_options.h"
#include "cli/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ARGUMENTS = 24, OTHERS = 3 };

static int take_text(const struct sdc_option *option, const char *text, void *value, struct sdc_error *err)
{
    (void)option;
    if (strcmp(text, "good") != 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "must be good");
    *(bool *)value = true;
    return 0;
}

struct values {
    uint16_t number;
    uint32_t size;
    bool flag, answer, good;
    const char *text;
};

#define AT(member) SDC_OPTION_AT(struct values, member)

// One option of each kind.
static const struct sdc_option rows[] = {
    {"queues", SDC_OPTION_NUMBER, AT(number), 1, 1024, "4", NULL},
    {"queue-size", SDC_OPTION_POWER_OF_TWO, AT(number), 1, 1024, "256", NULL},
    {"size-max", SDC_OPTION_SIZE, AT(size), 512, UINT32_MAX, "64k", NULL},
    {"read-only", SDC_OPTION_FLAG, AT(flag), 0, 0, NULL, NULL},
    {"write-cache", SDC_OPTION_BOOL, AT(answer), 0, 0, "off", NULL},
    {"serial", SDC_OPTION_TEXT, AT(text), 0, 20, "DISK1", NULL},
    {"call", SDC_OPTION_CALL, AT(good), 0, 0, "good", take_text},
};
static const struct sdc_options table = {rows, sizeof rows / sizeof rows[0]};
// Some that are somebody else's.
static const struct sdc_option other_rows[] = {{"namespaces", SDC_OPTION_NUMBER, 0, 8, 1, 256, "4", NULL}};
static const struct sdc_options others_table = {other_rows, 1};

static void check_refusal(int rc, const struct sdc_error *err)
{
    fuzz_check(rc == -EINVAL && err->code == rc && err->fault == SDC_FAULT_USER && err->text[0] != '\0',
               "refused without a reason");
}

static void parse_table(int argc, char **argv)
{
    struct values values = {0};
    const char *others[OTHERS] = {0}, *glanced[OTHERS] = {0};
    struct sdc_error err = {0};
    const struct sdc_option_group groups[] = {{&others_table, NULL, "they are somebody else's"}, {&table, &values, NULL}};

    int first = sdc_options_glance(groups, 2, argc, argv, glanced, OTHERS);
    fuzz_check(first >= 0 && first <= OTHERS, "a glance finds more arguments than there is room for");
    values = (struct values){0};
    int count = sdc_options_parse(groups, 2, argc, argv, others, OTHERS, &err);
    if (count < 0) {
        check_refusal(count, &err);
        return;
    }
    fuzz_check(count == first, "a glance finds other arguments");
    for (int i = 0; i < count; i++)
        fuzz_check(others[i] != NULL, "an argument is missing");
    fuzz_check(values.number <= 1024 && (values.size == 0 || values.size >= 512), "a number out of range is taken");
}

static void parse_bench(int argc, char **argv)
{
    struct sdc_bench_options options;
    struct sdc_error err = {0};
    int rc = sdc_bench_options_parse(argc, argv, &options, &err);

    if (rc < 0)
        check_refusal(rc, &err);
    else if (!options.help)
        fuzz_check(options.socket && options.block_size > 0 && options.iodepth > 0 && options.numjobs > 0,
                   "bench options that mean nothing are taken");
}

static void parse_words(const char *word)
{
    static const char *const names[] = {"virtio-blk", "virtio-net", "nvme", NULL};
    uint64_t value = 0;
    bool answer;
    char text[32];

    if (sdc_parse_number(word, 7, 70, &value) == 0)
        fuzz_check(value >= 7 && value <= 70, "a number out of range is taken");
    if (sdc_parse_size(word, &value) == 0) {
        fuzz_check(value <= INT64_MAX, "a size of more than 63 bits is taken");
        fuzz_check(strlen(sdc_format_size(value, text)) < sizeof text, "a size is printed beyond its buffer");
    }
    sdc_parse_bool(word, &answer);
    sdc_nearest(word, names);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *lines = malloc(size + 1);
    char *argv[ARGUMENTS + 1] = {(char[]){"sidecard"}};
    int argc = 1;

    fuzz_check(lines != NULL, "no memory");
    if (size)
        memcpy(lines, data, size);
    lines[size] = '\0';
    for (char *at = size > 1 ? lines + 1 : NULL; at && argc < ARGUMENTS;) {
        char *end = strchr(at, '\n');
        if (end)
            *end = '\0';
        argv[argc++] = at;
        at = end ? end + 1 : NULL;
    }
    for (int i = 1; i < argc; i++)
        parse_words(argv[i]);
    if (size > 0 && data[0] == 'b')
        parse_bench(argc, argv);
    else
        parse_table(argc, argv);
    free(lines);
    return 0;
}
