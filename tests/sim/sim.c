// SPDX-License-Identifier: BSD-3-Clause
// The seed, the log of events, failures.
#include "sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { KEPT = 120 }; // events that a failure shows

struct event {
    const char *format;
    unsigned long long numbers[4];
};

static uint64_t state[4];
static uint64_t hash;
static struct event events[KEPT];
static uint64_t events_count;
static bool tracing;
static char failure[400];
static jmp_buf out;

// --- the seed: xoshiro256** ---

static uint64_t mix(uint64_t *seed)
{
    uint64_t z = (*seed += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void sim_begin(uint64_t seed, bool trace)
{
    for (unsigned i = 0; i < 4; i++)
        state[i] = mix(&seed);
    hash = UINT64_C(0xcbf29ce484222325);
    events_count = 0;
    tracing = trace;
    failure[0] = 0;
}

static uint64_t rotate(uint64_t value, unsigned by)
{
    return value << by | value >> (64 - by);
}

uint64_t sim_random(void)
{
    uint64_t result = rotate(state[1] * 5, 7) * 9;
    uint64_t shifted = state[1] << 17;

    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= shifted;
    state[3] = rotate(state[3], 45);
    return result;
}

uint32_t sim_below(uint32_t limit)
{
    return (uint32_t)((sim_random() >> 32) * limit >> 32);
}

bool sim_chance(uint32_t times, uint32_t of)
{
    return times > 0 && sim_below(of) < times;
}

uint32_t sim_pick(uint32_t low, uint32_t high)
{
    return low + sim_below(high - low + 1);
}

// --- events ---

static void stir(uint64_t value)
{
    hash = (hash ^ value) * UINT64_C(0x100000001b3);
    hash ^= hash >> 29;
}

static void show(const struct event *event, uint64_t number)
{
    const unsigned long long *n = event->numbers;

    printf("%7llu  ", (unsigned long long)number);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    printf(event->format, n[0], n[1], n[2], n[3]);
#pragma GCC diagnostic pop
    putchar('\n');
}

void sim_event(const char *format, const unsigned long long numbers[4])
{
    struct event *event = &events[events_count % KEPT];

    event->format = format;
    memcpy(event->numbers, numbers, sizeof event->numbers);
    for (const char *c = format; *c; c++)
        stir((unsigned char)*c);
    for (unsigned i = 0; i < 4; i++)
        stir(numbers[i]);
    if (tracing)
        show(event, events_count);
    events_count++;
}

void sim_show_events(void)
{
    uint64_t first = events_count > KEPT ? events_count - KEPT : 0;

    for (uint64_t i = first; i < events_count && !tracing; i++)
        show(&events[i % KEPT], i);
}

uint64_t sim_hash(void)
{
    return hash;
}

// --- failures ---

void sim_fail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(failure, sizeof failure, format, args);
    va_end(args);
    longjmp(out, 1);
}

bool sim_run(void (*body)(void))
{
    if (setjmp(out))
        return false;
    body();
    return true;
}

const char *sim_failure(void)
{
    return failure;
}
