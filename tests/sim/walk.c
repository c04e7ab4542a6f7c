// SPDX-License-Identifier: BSD-3-Clause
// The walk: makes a plan from the seed, puts the card together, lets everybody run, and looks at the end whether anything is left.
#include "sim.h"

#include "base/log.h"

#include <sidecard/pci.h>

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct sim_plan plan;
struct sdc_pci_device *sim_card;
const struct sim_driver *sim_driver = &sim_virtio_driver;

static uint64_t seed;
static unsigned steps = 2000;
static bool verbose;

static unsigned some(unsigned of, unsigned high)
{
    return sim_chance(1, of) ? sim_pick(1, high) : 0;
}

// What this seed's walk is like. Most things are switched off in most walks, so that others happen undisturbed.
static void make_plan(void)
{
    static const unsigned room[] = {200, 4096, 1 << 20};

    plan = (struct sim_plan){
        .loops = sim_pick(1, SIM_LOOPS),
        .queues = sim_pick(1, SIM_QUEUES),
        .packed_allowed = sim_chance(1, 2),
        .event_idx_allowed = sim_chance(2, 3),
        .indirect_allowed = sim_chance(2, 3),
        .reset_queue_allowed = sim_chance(2, 3),
        .in_order_allowed = sim_chance(1, 2),
        .queue_size_max = 1U << sim_pick(3, 6),
        .preempt = some(2, 64),
        .remote = sim_chance(1, 2) ? 0 : sim_pick(1, 16),
        .errors = some(2, 40),
        .refusals = some(8, 8),
        .malformed = some(3, 4),
        .invalid = some(2, 100),
        .restless = some(2, 8),
        .fragments = some(3, 128),
        .splinters = some(2, 128),
        .old_client = sim_chance(1, 4),
        .patience_ends = sim_chance(1, 6),
        .unmaps = sim_chance(1, 2),
        .masks = sim_chance(1, 4),
        .locks = sim_chance(1, 4),
        .resizes = sim_chance(1, 4),
        .read_only = sim_chance(1, 12),
        .write_cache = sim_chance(3, 4),
        .block_size = sim_chance(3, 4) ? 512 : 4096,
        .socket_room = room[sim_below(3)],
        .poll = (int)sim_below(3),
        .poll_max_us = sim_pick(1, 60),
    };
}

static void make_card(void)
{
    struct sdc_loop *loops[SIM_LOOPS];

    for (unsigned i = 0; i < plan.loops; i++)
        loops[i] = sim_loop(i);
    sim_driver->make_card(sim_disk_open(), loops);
}

static void check_disk(void)
{
    for (uint64_t sector = 0; sector < SIM_SECTORS; sector++) {
        uint64_t stamp = sim_disk_stamp(sector);
        if (stamp == UINT64_MAX || !sim_model_may_read(sector, stamp, UINT64_MAX - 1, UINT64_MAX - 1))
            sim_fail("sector %" PRIu64 " is not what it has to be at the end", sector);
    }
}

static void walk(void)
{
    make_plan();
    sim_steps_open();
    sim_model_begin();
    sim_guest_open();
    sim_loops_open();
    make_card();
    sim_client_open();
    sim_set_irqs(plan.queues + 1);
    sim_driver->start();
    for (unsigned i = 0; i < steps; i++) {
        sim_step();
        if (sim_chance(plan.restless, 256))
            sim_driver->restless();
    }
    sim_driver->drain();
    check_disk();
    sim_client_close();
    while (sim_step()) // the loops run what was posted before they stop
        continue;
    sim_card->ops->destroy(sim_card);
    sim_loops_close();
    sim_guest_close();
}

// --- seeds ---

static void command_line(char *text, size_t size)
{
    snprintf(text, size, "build/tests/sim/walk --device=%s --seed=%" PRIu64 " --steps=%u", sim_driver->name, seed, steps);
}

static void on_crash(int number)
{
    char text[120];

    fflush(stdout);
    command_line(text, sizeof text);
    sim_show_events();
    printf("FAILED: %s: signal %d\n", text, number);
    printf("0 passed, 1 failed\n");
    fflush(stdout);
    signal(number, SIG_DFL);
    raise(number);
}

static bool run_seed(bool trace)
{
    char text[120];

    sim_begin(seed, trace);
    if (sim_run(walk))
        return true;
    command_line(text, sizeof text);
    sim_show_events();
    printf("FAILED: %s: %s\n", text, sim_failure());
    sim_disk_abort();
    sim_client_abort();
    sim_guest_close();
    return false;
}

static void log_line(enum sdc_log_level level, const char *line)
{
    (void)level;
    if (verbose)
        printf("         log: %s\n", line);
}

static void help(void)
{
    puts("usage: walk [--device=NAME] [--seed=N] [--seeds=N] [--steps=N] [--twice=N] [--trace]\n"
         "  --device=NAME  virtio-blk if not given, or nvme\n"
         "  --seed=N   the first seed, 1 if not given\n"
         "  --seeds=N  how many, 1 if not given\n"
         "  --steps=N  of each walk, 2000 if not given\n"
         "  --twice=N  so many of the first seeds are run twice, and have to do the same\n"
         "  --trace    prints every event");
}

static bool number(const char *word, const char *name, uint64_t *value)
{
    size_t length = strlen(name);

    if (strncmp(word, name, length) != 0 || word[length] != '=')
        return false;
    *value = strtoull(word + length + 1, NULL, 10);
    return true;
}

static bool choose_device(const char *word)
{
    static const struct sim_driver *const drivers[] = {&sim_virtio_driver, &sim_nvme_driver};

    for (unsigned i = 0; i < sizeof drivers / sizeof drivers[0]; i++) {
        if (strncmp(word, "--device=", 9) == 0 && strcmp(word + 9, drivers[i]->name) == 0) {
            sim_driver = drivers[i];
            return true;
        }
    }
    return false;
}

// Whether the seed that was just run does the same once more.
static bool does_the_same(void)
{
    uint64_t hash = sim_hash();

    if (run_seed(false) && sim_hash() == hash)
        return true;
    printf("FAILED: seed %" PRIu64 " does not do the same twice\n", seed);
    return false;
}

int main(int argc, char **argv)
{
    static const struct sdc_log_sink sink = {.level = SDC_LOG_INFO, .write = log_line, .now_ns = sim_now};
    uint64_t first = 1, count = 1, given = steps, twice = 0;
    unsigned failed = 0;

    for (int i = 1; i < argc; i++) {
        if (number(argv[i], "--seed", &first) || number(argv[i], "--seeds", &count) || number(argv[i], "--steps", &given) ||
            number(argv[i], "--twice", &twice))
            continue;
        if (choose_device(argv[i]))
            continue;
        if (strcmp(argv[i], "--trace") != 0)
            return help(), 2;
        verbose = true;
    }
    steps = (unsigned)given;
    sdc_log_to(&sink);
    signal(SIGABRT, on_crash);
    signal(SIGSEGV, on_crash);
    for (seed = first; seed < first + count && failed < 5; seed++)
        failed += !run_seed(verbose) || (seed - first < twice && !does_the_same());
    printf("%" PRIu64 " seeds, %lu requests\n", seed - first, sim_driver->requests());
    // One test, and another that walks can be repeated.
    printf("%d passed, %u failed\n", failed ? 0 : 1 + (twice > 0), failed);
    return failed > 0;
}
