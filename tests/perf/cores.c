// SPDX-License-Identifier: BSD-3-Clause
// How long two processors take to answer each other through one cache line: `cores A B` prints the median round trip between them in
// nanoseconds. It is what a server and a client that never sleep are made of, and on shared machines it changes by a factor of five
// as the hypervisor moves processors about: measurements are compared only where it was alike. tools/bench asks before and after each.
#include "os/clock.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { BATCHES = 101, TRIPS = 200, PATIENCE_MS = 10000, SKIPPED = 77 };

struct table {
    _Alignas(64) _Atomic uint32_t ball; // odd: the other one's turn
    _Alignas(64) _Atomic bool over;
};

static bool sit_on(int processor)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((unsigned)processor, &set);
    return sched_setaffinity(0, sizeof set, &set) == 0;
}

static void *answer(void *context)
{
    struct table *table = context;

    while (!atomic_load_explicit(&table->over, memory_order_relaxed)) {
        uint32_t ball = atomic_load_explicit(&table->ball, memory_order_acquire);
        if (ball % 2 == 1)
            atomic_store_explicit(&table->ball, ball + 1, memory_order_release);
    }
    return NULL;
}

// Nanoseconds of some round trips, or 0 when nobody answers.
static uint64_t play(struct table *table)
{
    uint64_t begun = sdc_clock_ns();

    for (unsigned trip = 0; trip < TRIPS; trip++) {
        uint32_t ball = atomic_load_explicit(&table->ball, memory_order_relaxed) + 1;
        atomic_store_explicit(&table->ball, ball, memory_order_release);
        for (unsigned looks = 1; atomic_load_explicit(&table->ball, memory_order_acquire) == ball; looks++) {
            if (looks % 100000 == 0 && (atomic_load(&table->over) || sdc_clock_ns() - begun > PATIENCE_MS * UINT64_C(1000000)))
                return 0;
        }
    }
    return sdc_clock_ns() - begun;
}

static int compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

    return (a > b) - (a < b);
}

int main(int argc, char **argv)
{
    static struct table table;
    uint64_t took[BATCHES];
    pthread_t other;

    if (argc != 3) {
        fprintf(stderr, "usage: %s PROCESSOR PROCESSOR\n", argv[0]);
        return 2;
    }
    // Who answers begins where it shall be: on the first processor it might wait for ever, where that is had by priority.
    if (!sit_on(atoi(argv[2])) || pthread_create(&other, NULL, answer, &table) != 0 || !sit_on(atoi(argv[1]))) {
        fprintf(stderr, "cores: cannot run on processors %s and %s\n", argv[1], argv[2]);
        return SKIPPED;
    }
    bool answered = play(&table) > 0; // the other one has arrived
    for (unsigned i = 0; i < BATCHES && answered; i++)
        answered = (took[i] = play(&table)) > 0;
    atomic_store(&table.over, true);
    pthread_join(other, NULL);
    if (!answered) {
        fprintf(stderr, "cores: nobody answers on processor %s\n", argv[2]);
        return SKIPPED;
    }
    qsort(took, BATCHES, sizeof took[0], compare);
    printf("%.1f\n", (double)took[BATCHES / 2] / TRIPS);
    return 0;
}
