// SPDX-License-Identifier: BSD-3-Clause
// How long to look before sleeping.
//
// A *gap* is the time from the end of some work (the last request taken, or the last one shown as finished) to the beginning of the
// next, whoever found that: a look or a notification. gap_ns is their running mean, in which each counts an eighth. No gap counts more
// than four times max_ns, so that a pause of any length, alone, does not close a window that paid before it, and a dozen short gaps open
// one that was closed.
//
//   window    four times the mean gap, which catches nearly all gaps of a steady flow; never less than max_ns / 8, never more than max_ns.
//   none      if the mean gap is longer than max_ns: the next work is not to be expected within any window. Gaps go on being measured,
//             from notification to notification, so that the window opens again when they become short.
//   hit       work came while the window was open: the window begins anew, and past misses are forgotten.
//   miss      the window ended without work. After the fourth in a row 1, 2, 4 up to 64 windows are left out before the next is tried.
//             This is for hosts with fewer processors than threads that want to run: there our looking is what keeps the driver from
//             making work, and the gap of a turn that slept says nothing about one that looks.
//
// So the most that adaptive polling wastes is max_ns for a burst of work, and where it never pays 1/64 of that.
#include "loop/engine.h"

#include "os/clock.h"

enum { GAP_WEIGHT = 8, GAP_MOST = 4, WINDOW_GAPS = 4, WINDOW_LEAST = 8, MISSES_FREE = 3, SKIP_DOUBLINGS = 6 };

static void open_window(struct sdc_poller *poller)
{
    struct sdc_loop *loop = poller->loop;

    poller->open = true;
    poller->next = loop->pollers;
    poller->link = &loop->pollers;
    if (poller->next)
        poller->next->link = &poller->next;
    loop->pollers = poller;
}

static void close_window(struct sdc_poller *poller)
{
    struct sdc_loop *loop = poller->loop;

    poller->open = false;
    if (loop->next_poller == poller)
        loop->next_poller = poller->next;
    *poller->link = poller->next;
    if (poller->next)
        poller->next->link = poller->link;
}

void sdc_poller_start(struct sdc_loop *loop, struct sdc_poller *poller, enum sdc_poll_mode mode, uint64_t max_ns)
{
    // The first gaps decide: it begins between the two.
    *poller = (struct sdc_poller){
        .ops = poller->ops, .loop = loop, .mode = mode, .max_ns = max_ns, .gap_ns = max_ns, .since_ns = sdc_clock_ns()};
    if (mode == SDC_POLL_ALWAYS)
        open_window(poller);
}

void sdc_poller_stop(struct sdc_poller *poller)
{
    if (poller->open)
        close_window(poller);
    poller->loop = NULL;
}

// --- the window ---

static uint64_t window(const struct sdc_poller *poller)
{
    uint64_t least = poller->max_ns / WINDOW_LEAST;
    uint64_t wanted = WINDOW_GAPS * poller->gap_ns;

    if (poller->gap_ns > poller->max_ns)
        return 0;
    return wanted < least ? least : wanted < poller->max_ns ? wanted : poller->max_ns;
}

// Work has ended. When that was is known to the next look for one that is open, without asking the clock.
static void note_end(struct sdc_poller *poller)
{
    poller->fresh = true;
    if (!poller->open)
        poller->since_ns = sdc_clock_ns();
}

// Whether it is worth while to look from now on.
static bool pays(struct sdc_poller *poller)
{
    if (window(poller) == 0)
        return false;
    if (poller->open || poller->skip == 0)
        return true;
    poller->skip--;
    return false;
}

void sdc_poller_worked(struct sdc_poller *poller)
{
    if (!poller->loop || poller->mode != SDC_POLL_ADAPTIVE)
        return;
    uint64_t now = poller->loop->now_ns;
    uint64_t gap = now > poller->since_ns ? now - poller->since_ns : 0;
    if (gap > GAP_MOST * poller->max_ns)
        gap = GAP_MOST * poller->max_ns;
    poller->gap_ns = (poller->gap_ns * (GAP_WEIGHT - 1) + gap) / GAP_WEIGHT;
    note_end(poller);
    if (poller->open)
        poller->misses = 0; // and skip is: the window would not have been opened
}

void sdc_poller_rest(struct sdc_poller *poller)
{
    if (!poller->loop || poller->mode == SDC_POLL_ALWAYS)
        return;
    note_end(poller);
    bool opens = poller->mode == SDC_POLL_ADAPTIVE && pays(poller);
    if (opens && !poller->open)
        open_window(poller);
    if (opens)
        return;
    if (poller->open)
        close_window(poller);
    poller->ops->rearm(poller);
}

void sdc_poller_stir(struct sdc_poller *poller)
{
    if (!poller->loop || poller->mode != SDC_POLL_ADAPTIVE)
        return;
    note_end(poller);
    if (poller->open || !pays(poller))
        return;
    poller->ops->suppress(poller);
    open_window(poller);
}

// --- the loop's part ---

static void begin(struct sdc_poller *poller)
{
    poller->fresh = false;
    poller->since_ns = poller->loop->now_ns;
    poller->closes_ns = poller->since_ns + window(poller);
}

static void miss(struct sdc_poller *poller)
{
    poller->misses++;
    if (poller->misses > MISSES_FREE) {
        unsigned doublings = poller->misses - MISSES_FREE - 1;
        poller->skip = 1u << (doublings < SKIP_DOUBLINGS ? doublings : SKIP_DOUBLINGS);
    }
    close_window(poller);
    poller->ops->rearm(poller);
}

// Each gets one look a turn, which is how those of one loop share it. A ring that is looked at late is looked at all the same before its
// window is over.
bool sdc_loop_look_around(struct sdc_loop *loop)
{
    struct sdc_poller *poller;
    bool found = false;

    for (poller = loop->pollers; poller; poller = loop->next_poller) {
        loop->next_poller = poller->next;
        if (poller->fresh)
            begin(poller);
        if (poller->ops->look(poller))
            found = true;
        else if (poller->open && poller->mode == SDC_POLL_ADAPTIVE && loop->now_ns >= poller->closes_ns)
            miss(poller);
    }
    return found;
}
