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

static int take_text(const struct sdc_option *option, const char *text, struct sdc_error *err)
{
    if (strcmp(text, "good") != 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--%s=%s: must be good", option->name, text);
    *(bool *)option->value = true;
    return 0;
}

static void check_refusal(int rc, const struct sdc_error *err)
{
    fuzz_check(rc == -EINVAL && err->code == rc && err->fault == SDC_FAULT_USER && err->text[0] != '\0',
               "refused without a reason");
}

// One option of each kind.
static void parse_table(int argc, char **argv)
{
    uint64_t number = 0, size = 0;
    bool flag = false, answer = false, good = false;
    const char *text = NULL;
    const char *others[OTHERS] = {0};
    struct sdc_error err = {0};
    const struct sdc_option options[] = {
        {"queues", SDC_OPTION_NUMBER, &number, 1, 1024, "--queues=4", NULL},
        {"size-max", SDC_OPTION_SIZE, &size, 512, UINT32_MAX, "--size-max=64k", NULL},
        {"read-only", SDC_OPTION_FLAG, &flag, 0, 0, "--read-only", NULL},
        {"write-cache", SDC_OPTION_BOOL, &answer, 0, 0, "--write-cache=off", NULL},
        {"serial", SDC_OPTION_TEXT, &text, 0, 0, "--serial=DISK1", NULL},
        {"call", SDC_OPTION_CALL, &good, 0, 0, "--call=good", take_text},
    };

    int count = sdc_options_parse(options, sizeof options / sizeof options[0], argc, argv, others, OTHERS, &err);
    if (count < 0) {
        check_refusal(count, &err);
        return;
    }
    fuzz_check(count <= OTHERS, "more arguments than there is room for");
    for (int i = 0; i < count; i++)
        fuzz_check(others[i] != NULL, "an argument is missing");
    fuzz_check(number <= 1024 && (size == 0 || (size >= 512 && size <= UINT32_MAX)), "a number out of range is taken");
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
