// SPDX-License-Identifier: BSD-3-Clause
// What a run of sidecard check says: a table as text, or JSON.
#include "cli/check/check.h"

#include "base/check.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>

static const char *const names[SDC_CHECK_RESULTS] = {
    [SDC_CHECK_PASSED] = "passed", [SDC_CHECK_NOTED] = "noted", [SDC_CHECK_FAILED] = "FAILED",
    [SDC_CHECK_NOT_OFFERED] = "not offered", [SDC_CHECK_SKIPPED] = "skipped",
};

const char *sdc_check_result_name(enum sdc_check_result result)
{
    return names[result];
}

enum { NAME_WIDTH = 48, RESULT_WIDTH = 12 };

void sdc_check_print_list(const struct sdc_check_transport *transport)
{
    for (size_t i = 0; i < transport->tables_count; i++) {
        const struct sdc_check_table *table = transport->tables[i];
        for (size_t j = 0; j < table->count; j++)
            printf("%-*s %-*s %s\n", NAME_WIDTH, table->tests[j].name, RESULT_WIDTH,
                   table->tests[j].needs & SDC_CHECK_DESTRUCTIVE ? "destructive" : "", table->tests[j].section);
    }
}

void sdc_check_print_head(const struct sdc_check_run *run)
{
    if (!run->options->json)
        printf("%s:%s: %s%s\n", run->transport->name, run->options->socket, run->target.what,
               run->one_client ? "; the server goes away with its client and is started anew" : "");
}

// Texts of the server's may be in them: what is not printable is not printed.
static void print_text(const char *head, const char *text)
{
    if (text[0] == '\0')
        return;
    printf("    %-6s", head);
    for (; *text != '\0'; text++)
        putchar((unsigned char)*text >= ' ' && (unsigned char)*text < 0x7f ? *text : '?');
    putchar('\n');
}

void sdc_check_print_entry(const struct sdc_check_run *run, const struct sdc_check_entry *entry)
{
    const struct sdc_check_outcome *outcome = &entry->outcome;
    if (run->options->json)
        return;
    printf("%-*s %-*s %s\n", NAME_WIDTH, entry->test->name, RESULT_WIDTH, names[outcome->result], outcome->section);
    if (outcome->result == SDC_CHECK_FAILED) {
        print_text("sent", outcome->exchange.sent);
        print_text("came", outcome->exchange.came);
        print_text("asked", outcome->text);
    } else if (outcome->result != SDC_CHECK_PASSED) {
        print_text(outcome->result == SDC_CHECK_NOTED ? "note" : "why", outcome->text);
    }
    fflush(stdout);
}

void sdc_check_print_sums(const struct sdc_check_run *run)
{
    printf("\n%zu tests: %u passed, %u noted, %u failed, %u not offered, %u skipped\n", run->count, run->sums[SDC_CHECK_PASSED],
           run->sums[SDC_CHECK_NOTED], run->sums[SDC_CHECK_FAILED], run->sums[SDC_CHECK_NOT_OFFERED], run->sums[SDC_CHECK_SKIPPED]);
}

// --- JSON ---

// In names of members.
static const char *const keys[SDC_CHECK_RESULTS] = {
    [SDC_CHECK_PASSED] = "passed", [SDC_CHECK_NOTED] = "noted", [SDC_CHECK_FAILED] = "failed",
    [SDC_CHECK_NOT_OFFERED] = "not_offered", [SDC_CHECK_SKIPPED] = "skipped",
};

// Text of the server's may be no UTF-8.
static void set_text(json_t *object, const char *key, const char *text)
{
    char clean[SDC_CHECK_TEXT];
    size_t used = 0;
    for (; *text != '\0' && used + 1 < sizeof clean; text++)
        clean[used++] = (unsigned char)*text < 0x7f ? *text : '?';
    clean[used] = '\0';
    if (used > 0)
        json_object_set_new(object, key, json_string(clean));
}

static json_t *entry_object(const struct sdc_check_entry *entry)
{
    const struct sdc_check_outcome *outcome = &entry->outcome;
    json_t *object = json_object();
    set_text(object, "name", entry->test->name);
    set_text(object, "result", keys[outcome->result]);
    set_text(object, "section", outcome->section);
    if (outcome->result == SDC_CHECK_FAILED) {
        set_text(object, "sent", outcome->exchange.sent);
        set_text(object, "came", outcome->exchange.came);
    }
    if (outcome->result == SDC_CHECK_FAILED)
        set_text(object, "asked", outcome->text);
    else if (outcome->result != SDC_CHECK_PASSED)
        set_text(object, outcome->result == SDC_CHECK_NOTED ? "note" : "why", outcome->text);
    return object;
}

int sdc_check_print_json(const struct sdc_check_run *run)
{
    json_t *root = json_object(), *tests = json_array(), *sums = json_object();
    set_text(root, "transport", run->transport->name);
    set_text(root, "socket", run->options->socket);
    set_text(root, "device", run->target.what);
    for (size_t i = 0; i < run->count; i++)
        json_array_append_new(tests, entry_object(&run->entries[i]));
    for (unsigned i = 0; i < SDC_CHECK_RESULTS; i++)
        json_object_set_new(sums, keys[i], json_integer((json_int_t)run->sums[i]));
    json_object_set_new(root, "tests", tests);
    json_object_set_new(root, "sums", sums);
    int ret = json_dumpf(root, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(root);
    return ret < 0 ? -EIO : 0;
}
