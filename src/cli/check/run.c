// SPDX-License-Identifier: BSD-3-Clause
// Runs tests one after the other, each in a process of its own, and a client without faults after each.
#include "cli/check/check.h"

#include "base/check.h"
#include "os/child.h"
#include "os/clock.h"
#include "os/fd.h"

#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS_NS UINT64_C(1000000)

enum {
    ANSWERS = 4,    // a test may wait for so many answers that do not come
    SLACK_MS = 500, // what is left to a test to say that its time is up
    FIRST_GREETINGS = 5,
    ANEW_MS = 300,  // that it takes to start a server anew
    GREETINGS = 5,  // clients that come to see whether the server is still there
    GREETING_PAUSE_MS = 100, // after the first; longer each time
};

// What a test's process and the tester share.
struct shared {
    struct sdc_check_outcome outcome;
    struct sdc_check_exchange last;
    struct sdc_check_target target;
    struct sdc_socket_file served; // stays from one to the next
    bool ended; // the test said how it ended, or came to its end
};

struct work {
    struct sdc_check_run *run;
    struct shared *shared;
    const struct sdc_check_test *test; // NULL: look, or greet
    bool look;
    uint64_t deadline_ns;
};

static void in_child(void *argument)
{
    struct work *work = argument;
    struct sdc_check check = {
        .options = work->run->options,
        .target = &work->run->target,
        .outcome = &work->shared->outcome,
        .last = &work->shared->last,
        .served = &work->shared->served,
        .deadline_ns = work->deadline_ns,
    };
    if (work->test)
        work->test->run(&check);
    else if (work->look)
        work->run->transport->look(&check, &work->shared->target);
    else
        work->run->transport->greet(&check);
    work->shared->ended = true;
}

// Does the work, and says of one that did not end by itself that it failed.
static int do_work(struct work *work, struct sdc_error *err)
{
    struct sdc_check_outcome *outcome = &work->shared->outcome;
    uint64_t limit_ms = ANSWERS * work->run->options->timeout_s * 1000;
    int number;
    *work->shared = (struct shared){.served = work->shared->served};
    if (work->test)
        snprintf(outcome->section, sizeof outcome->section, "%s", work->test->section);
    work->deadline_ns = sdc_clock_ns() + limit_ms * MS_NS;
    int end = sdc_child_run(in_child, work, (int)limit_ms + SLACK_MS, &number);
    if (end < 0)
        return sdc_error_set(err, end, SDC_FAULT_HOST, "cannot start a process for a test: %s", strerror(-end));
    bool said = work->shared->ended || (outcome->result != SDC_CHECK_PASSED && outcome->result != SDC_CHECK_NOTED);
    if (end == SDC_CHILD_ENDED && said)
        return 0;
    outcome->result = SDC_CHECK_FAILED;
    outcome->exchange = work->shared->last;
    if (end == SDC_CHILD_LATE)
        snprintf(outcome->text, sizeof outcome->text, "the test did not come to an end within %" PRIu64 " s", limit_ms / 1000);
    else if (end == SDC_CHILD_ENDED)
        snprintf(outcome->text, sizeof outcome->text, "the test broke off: that is a fault of the tester");
    else
        snprintf(outcome->text, sizeof outcome->text, "signal %d (%s) ended the test: memory or a file of the server's is not what it said",
                 number, strsignal(number));
    return 0;
}

// --- whether a test is to run ---

static const struct {
    unsigned need;
    const char *missing;
} reasons[] = {
    {SDC_CHECK_PCI, "no PCI device was found"},
    {SDC_CHECK_NVME, "the device is no NVMe controller"},
    {SDC_CHECK_VIRTIO, "the device is no virtio device"},
    {SDC_CHECK_BLK, "the device is no virtio disk"},
    {SDC_CHECK_DISK, "the device is no disk"},
    {SDC_CHECK_REQUESTS, "no request of such a device is known: type --request if there is one that does no harm"},
};

static bool can_run(const struct sdc_check_run *run, struct sdc_check_entry *entry)
{
    struct sdc_check_outcome *outcome = &entry->outcome;
    unsigned missing = entry->test->needs & ~run->target.has;
    snprintf(outcome->section, sizeof outcome->section, "%s", entry->test->section);
    for (size_t i = 0; i < SDC_COUNT(reasons); i++) {
        if ((missing & reasons[i].need) == 0)
            continue;
        outcome->result = SDC_CHECK_NOT_OFFERED;
        snprintf(outcome->text, sizeof outcome->text, "%s", reasons[i].missing);
        return false;
    }
    if ((missing & SDC_CHECK_DESTRUCTIVE) && !run->options->destructive) {
        outcome->result = SDC_CHECK_SKIPPED;
        snprintf(outcome->text, sizeof outcome->text, "it writes to the disk: type --destructive if that may be");
        return false;
    }
    return true;
}

// --- all of them ---

static int choose(struct sdc_check_run *run, struct sdc_error *err)
{
    size_t all = 0;
    for (size_t i = 0; i < run->transport->tables_count; i++)
        all += run->transport->tables[i]->count;
    run->entries = calloc(all, sizeof *run->entries);
    if (!run->entries)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for %zu tests", all);
    for (size_t i = 0; i < run->transport->tables_count; i++) {
        const struct sdc_check_table *table = run->transport->tables[i];
        for (size_t j = 0; j < table->count; j++) {
            if (!run->options->only || fnmatch(run->options->only, table->tests[j].name, 0) == 0)
                run->entries[run->count++].test = &table->tests[j];
        }
    }
    if (run->count == 0)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--only=%s: no test has such a name; type --list to see them",
                             run->options->only);
    return 0;
}

// Lets a client without faults come. *tries: how many came until one was let in; 0: none was, and shared says why.
static int greet(struct sdc_check_run *run, struct shared *shared, unsigned *tries, struct sdc_error *err)
{
    // Who waits for a server that is started anew has waited as long as an answer may take.
    for (unsigned i = 1; i <= (run->options->restarts ? 1 : GREETINGS); i++) {
        struct work work = {.run = run, .shared = shared};
        int ret = do_work(&work, err);
        *tries = i;
        if (ret < 0 || shared->outcome.result != SDC_CHECK_FAILED)
            return ret;
        sdc_clock_pause(i * GREETING_PAUSE_MS * MS_NS);
    }
    *tries = 0;
    return 0;
}

static int look(struct sdc_check_run *run, struct shared *shared, struct sdc_error *err)
{
    struct work work = {.run = run, .shared = shared, .look = true};
    unsigned tries = 1;
    int ret = do_work(&work, err);
    run->target = shared->target;
    run->target.what[sizeof run->target.what - 1] = '\0';
    const struct sdc_check_outcome *outcome = &shared->outcome;
    bool failed = outcome->result == SDC_CHECK_FAILED;
    if (ret == 0 && failed && run->target.what[0] == '\0')
        return sdc_error_set(err, -ENOTCONN, SDC_FAULT_PEER, "%s: %s", run->options->socket,
                             outcome->exchange.came[0] != '\0' ? outcome->exchange.came : outcome->text);
    if (ret == 0 && run->options->request && run->target.has & SDC_CHECK_BLK)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "--request=%s: it is a disk, whose requests are known; leave --request out",
                             run->options->request);
    // Several, since a server that is about to end may still take a client that comes at once.
    for (unsigned i = 0; ret == 0 && tries > 0 && i < (run->options->restarts ? 1 : FIRST_GREETINGS); i++) {
        ret = greet(run, shared, &tries, err);
        run->one_client |= tries > 1 || run->options->restarts;
    }
    run->ungreeted = tries == 0;
    if (ret == 0 && run->ungreeted && !failed && outcome->unreached)
        return sdc_error_set(err, -ENOTCONN, SDC_FAULT_PEER,
                             "%s: the server let one client in, and no other after it (%.200s); each test is a client of its own",
                             run->options->socket, outcome->exchange.came);
    return ret;
}

// Whether a new client is let in; if not, that is the test's failure, beside one of its own. A server that was gone and is back has
// been started anew by somebody: servers may end with their client, so that is worth a remark.
static int still_there(struct sdc_check_run *run, struct shared *shared, struct sdc_check_entry *entry, bool *there,
                       struct sdc_error *err)
{
    unsigned tries;
    int ret = greet(run, shared, &tries, err);
    *there = tries > 0;
    if (ret < 0 || tries == 1 || (*there && run->one_client))
        return ret;
    const struct sdc_check_outcome *greeting = &shared->outcome;
    struct sdc_check_outcome *outcome = &entry->outcome;
    bool failed = outcome->result == SDC_CHECK_FAILED;
    size_t used = failed ? strlen(outcome->text) : 0;
    char *rest = outcome->text + used;
    const char *and = failed ? "; and " : "";
    if (*there)
        snprintf(rest, sizeof outcome->text - used, "%safter the test the server was gone for a while, and has been started anew", and);
    else
        snprintf(rest, sizeof outcome->text - used, "%safter the test the server did not let a new client in: %.200s%s%.200s", and,
                 greeting->text, greeting->exchange.came[0] != '\0' ? ": " : "", greeting->exchange.came);
    if (!failed)
        outcome->result = *there ? SDC_CHECK_NOTED : SDC_CHECK_FAILED;
    return 0;
}

int sdc_check_run_all(struct sdc_check_run *run, void (*done)(const struct sdc_check_run *run, const struct sdc_check_entry *entry),
                      struct sdc_error *err)
{
    void *memory = NULL;
    bool there = true;
    int ret = choose(run, err);
    if (ret == 0 && sdc_child_share(sizeof(struct shared), &memory) < 0)
        ret = sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory to share with tests");
    if (ret == 0)
        ret = look(run, memory, err);
    if (ret == 0)
        sdc_check_print_head(run);
    for (size_t i = 0; ret == 0 && i < run->count; i++) {
        struct sdc_check_entry *entry = &run->entries[i];
        struct work work = {.run = run, .shared = memory, .test = entry->test};
        bool runs = can_run(run, entry);
        if (runs && !there) {
            entry->outcome.result = SDC_CHECK_SKIPPED;
            snprintf(entry->outcome.text, sizeof entry->outcome.text, "the server is gone");
        } else if (runs) {
            if (run->one_client && !run->options->restarts)
                sdc_clock_pause(ANEW_MS * MS_NS);
            ret = do_work(&work, err);
            entry->outcome = work.shared->outcome;
            if (ret == 0 && !run->ungreeted)
                ret = still_there(run, memory, entry, &there, err);
        }
        run->sums[entry->outcome.result]++;
        done(run, entry);
    }
    if (memory)
        sdc_unmap(memory, sizeof(struct shared));
    return ret < 0 ? ret : run->sums[SDC_CHECK_FAILED] > 0;
}
