// SPDX-License-Identifier: BSD-3-Clause
// Who runs next, by the seed; and the clock, which moves when nobody can run, or when it likes to.
#include "sim.h"

#include "loop/gather.h"
#include "loop/poller.h"

enum { ACTORS = 3 + SIM_LOOPS + SIM_QUEUES, DEPTH = 3, CALLS_MAX = 2000000 };
enum { CLIENT_READS, CLIENT_ANSWERS, DISK, LOOPS, QUEUES = LOOPS + SIM_LOOPS };

#define SECOND UINT64_C(1000000000)

static uint64_t clock_ns;
static unsigned depth;
static unsigned calls; // of sim_preempt since the outermost step began

void sim_steps_open(void)
{
    clock_ns = SECOND;
    depth = 0;
}

uint64_t sim_now(void)
{
    return clock_ns;
}

// Those who can do something; now and then a loop that polls is one, whether it will find anything or not.
static unsigned list(unsigned actors[ACTORS])
{
    unsigned count = 0;

    if (sim_client_can_read())
        actors[count++] = CLIENT_READS;
    if (sim_client_can_answer())
        actors[count++] = CLIENT_ANSWERS;
    if (sim_disk_can_run())
        actors[count++] = DISK;
    for (unsigned i = 0; i < plan.loops; i++) {
        if (sim_loop_can_run(i) || (sim_loop_polls(i) && sim_chance(1, 4)))
            actors[count++] = LOOPS + i;
    }
    for (unsigned i = 0; i < plan.queues; i++) {
        if (sim_driver->can_run(i))
            actors[count++] = QUEUES + i;
    }
    return count;
}

static void run(unsigned actor)
{
    if (actor == CLIENT_READS)
        sim_client_read();
    else if (actor == CLIENT_ANSWERS)
        sim_client_answer();
    else if (actor == DISK)
        sim_disk_run();
    else if (actor < QUEUES)
        sim_loop_run(actor - LOOPS);
    else
        sim_driver->run(actor - QUEUES);
    sim_guest_check();
}

// A jump of seconds, when nothing that has a deadline has only come in part.
static void perhaps_jump(void)
{
    if (!plan.patience_ends || !sim_chance(1, 256) || !sim_client_agreed() || sim_socket_unread() || sim_loop_can_run(0))
        return;
    clock_ns += sim_pick(1, 5) * SECOND;
    EVENT("time jumps to %llu", clock_ns);
}

// All that poll look. Whether one may look in vain and yet find something later.
static bool look_at_rings(void)
{
    bool some = false;

    for (unsigned i = 0; i < plan.loops; i++) {
        if (!sim_loop_polls(i))
            continue;
        sim_loop_run(i);
        sim_guest_check();
        some |= sim_loop_polls(i) && plan.poll == SDC_POLL_ADAPTIVE;
    }
    return some;
}

// Nobody else can do anything. Whether somebody can now, or will, since windows are over some time: a loop that always polls, and finds
// nothing, is no reason to go on. It may let what it finds wait for more: not longer than until the third look.
static bool look_around(void)
{
    bool some = false;

    for (unsigned look = 0; look < 3; look++) {
        some |= look_at_rings();
        clock_ns += SDC_GATHER_STEP_NS;
    }
    for (unsigned i = 0; i < plan.loops; i++)
        some |= sim_loop_can_run(i);
    for (unsigned i = 0; i < plan.queues; i++)
        some |= sim_driver->can_run(i);
    return some || sim_disk_can_run() || sim_client_can_read() || sim_client_can_answer();
}

bool sim_step(void)
{
    unsigned actors[ACTORS];
    unsigned count = list(actors);

    calls = 0;
    clock_ns += 1000;
    if (sim_client_connected() && sim_client_ended())
        sim_fail("the server has ended the session");
    perhaps_jump();
    if (count > 0) {
        run(actors[sim_below(count)]);
        return true;
    }
    if (look_around())
        return true;
    if (sim_disk_locked()) {
        sim_disk_unlock();
        return true;
    }
    uint64_t deadline = sim_loops_deadline();
    if (deadline == UINT64_MAX || !sim_client_agreed())
        return false;
    clock_ns = deadline;
    EVENT("time moves on to %llu", clock_ns);
    return true;
}

void sim_preempt(void)
{
    unsigned actors[ACTORS];

    if (++calls > CALLS_MAX)
        sim_fail("a turn does not end");
    if (depth == DEPTH || !sim_chance(plan.preempt, 256))
        return;
    sim_guest_check(); // what changed so far was allowed until now
    depth++;
    do {
        unsigned count = list(actors);
        if (count > 0)
            run(actors[sim_below(count)]);
    } while (sim_chance(2, 3));
    depth--;
}

void sim_wait(const bool *flag, const char *what)
{
    for (unsigned steps = 0; !*flag; steps++) {
        if (steps % 5000 == 4999)
            sim_disk_unlock(); // others may go on without end, and nobody rest until then
        if (!sim_step() || steps > 100000)
            sim_fail("stall while %s", what);
    }
}
