// SPDX-License-Identifier: BSD-3-Clause
// Gathering: how much work of a polled ring is worth being fetched.
//
// A driver that submits requests one by one, each with an index stored and a full barrier behind it, and a device that looks all the time,
// take the same lines from one another for each request: the index, the descriptors that follow those it has just seen. The quicker the
// device, the smaller its batches, and the slower the driver. So where the driver is known to keep many requests going around, the device
// lets half of them come together before it fetches any, and does not look at the ring meanwhile. The driver is not held up: it has
// the other half to see to.
//
// How many it keeps is learnt. What is there at a look is the least that it can be; now and then a wait for twice as many (a probe) shows
// whether there are more; and a wait in which nothing comes for STEP_NS ends at once, halves the number, and after some such in a row
// the next 2, 4, up to 64 batches are not waited for. So whoever has few requests in flight is waited for in probes alone, which become
// rare where they find nothing: one in 1024 batches.
//
// A request waits MOST_NS longer at most, and that only if others follow it by the microsecond.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    SDC_GATHER_STEP_NS = 1000,  // between two looks
    SDC_GATHER_MOST_NS = 16000, // a wait in all
    SDC_GATHER_LEAST = 32,      // who keeps fewer is not waited for
    SDC_GATHER_MOST = 128,      // nobody is thought to keep more
    SDC_GATHER_PROBES = 1024,   // batches from one probe to the next, at most
    SDC_GATHER_STALLS = 6,      // after so many waits in vain 64 batches are not waited for
};

// All of it is the ring's loop's. Starts zeroed; what is left of one driver is soon put right by the next.
struct sdc_gather {
    uint32_t keeps;     // requests that the driver keeps going around, as far as is known
    uint32_t wanted;    // while waiting
    uint32_t seen;      // while waiting: there at the last look
    uint32_t stalls;    // waits of late that were in vain, less those that were not
    uint32_t skip;      // batches that are not waited for
    uint32_t probe_gap; // batches between probes
    uint32_t probe_due; // batches until the next one
    bool probing;
    bool waiting;
    uint64_t since_ns; // the wait's beginning
    uint64_t until_ns; // no look before that
};

// Whether the ring is not to be looked at now.
static inline bool sdc_gather_rests(const struct sdc_gather *gather, uint64_t now_ns)
{
    return gather->waiting && now_ns < gather->until_ns;
}

// sdc_gather_waits, whatever is known.
bool sdc_gather_waits_any(struct sdc_gather *gather, uint32_t there, uint64_t now_ns);

// So many requests are there, at least one. Whether they wait for more; else all of them are to be fetched.
static inline bool sdc_gather_waits(struct sdc_gather *gather, uint32_t there, uint64_t now_ns)
{
    // Who has few requests in flight comes here with each of them.
    if (gather->probe_due > 0 && gather->keeps < SDC_GATHER_LEAST && there <= gather->keeps && !gather->waiting) {
        gather->probe_due--;
        return false;
    }
    return sdc_gather_waits_any(gather, there, now_ns);
}
