// SPDX-License-Identifier: BSD-3-Clause
#include "loop/gather.h"

#include "base/check.h"

static uint32_t bounded(uint32_t count)
{
    return (uint32_t)sdc_min(count, SDC_GATHER_MOST);
}

// How many the batch that begins is to have.
static uint32_t wanted(struct sdc_gather *gather)
{
    gather->probing = gather->probe_due == 0 && gather->keeps < SDC_GATHER_MOST;
    if (gather->probing)
        return bounded(2 * gather->keeps);
    if (gather->probe_due > 0)
        gather->probe_due--;
    if (gather->skip > 0) {
        gather->skip--;
        return 0;
    }
    return gather->keeps >= SDC_GATHER_LEAST ? gather->keeps / 2 : 0;
}

static void end_probe(struct sdc_gather *gather, uint32_t there)
{
    bool found = there > gather->keeps;

    if (found)
        gather->probe_gap = 0;
    else
        gather->probe_gap = (uint32_t)sdc_min(2 * gather->probe_gap + 1, SDC_GATHER_PROBES);
    gather->probe_due = gather->probe_gap;
}

static void note_stall(struct sdc_gather *gather)
{
    gather->keeps /= 2;
    gather->skip = UINT32_C(1) << gather->stalls;
    if (gather->stalls < SDC_GATHER_STALLS)
        gather->stalls++;
}

// The batch is fetched. stalled: the driver has stopped before there were as many as it was thought to have.
static void end(struct sdc_gather *gather, uint32_t there, bool stalled)
{
    if (gather->probing)
        end_probe(gather, there);
    else if (stalled)
        note_stall(gather);
    else if (gather->waiting && gather->stalls > 0)
        gather->stalls--;
    if (there > gather->keeps)
        gather->keeps = bounded(there);
    gather->waiting = false;
}

static void wait(struct sdc_gather *gather, uint32_t there, uint64_t now_ns)
{
    gather->waiting = true;
    gather->seen = there;
    gather->until_ns = now_ns + SDC_GATHER_STEP_NS;
}

bool sdc_gather_waits_any(struct sdc_gather *gather, uint32_t there, uint64_t now_ns)
{
    bool begins = !gather->waiting;
    bool stalled = !begins && there <= gather->seen;

    if (begins) {
        if (there > gather->keeps)
            gather->keeps = bounded(there);
        gather->wanted = wanted(gather);
        gather->since_ns = now_ns;
    }
    if (there >= gather->wanted || stalled || now_ns - gather->since_ns >= SDC_GATHER_MOST_NS) {
        end(gather, there, stalled && there < gather->wanted);
        return false;
    }
    wait(gather, there, now_ns);
    return true;
}
