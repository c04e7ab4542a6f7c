// SPDX-License-Identifier: BSD-3-Clause
// Ways to wait for commands (loop/poller.h). Only doorbells that the driver writes to memory can be looked at instead of waited for: those
// of Doorbell Buffer Config, and registers that are mapped.
#include "base/check.h"
#include "base/limits.h"
#include "device/nvme/controller.h"

static struct nvme_sq *sq_of(struct sdc_poller *poller)
{
    return sdc_container(poller, struct nvme_sq, poller);
}

bool nvme_may_run(const struct nvme_sq *sq)
{
    const struct nvme_worker *worker = sq->worker;

    return sq->ring.awake && !sq->stopping && !worker->stopping && !worker->remapping && !sq->cq->waiting && !sq->remote.fetching &&
           !sq->remote.starved && sq->spans <= SDC_LIMIT_QUEUE_SPANS && !nvme_failed(worker->nvme);
}

bool nvme_may_take(const struct nvme_sq *sq)
{
    return nvme_may_run(sq) && (!sq->log || sq->slots_free > 0);
}

int nvme_available(struct nvme_sq *sq)
{
    int count = sdc_nvme_sq_look(&sq->ring);

    if (count < 0 && !sq->misled)
        nvme_misled(sq->worker);
    sq->misled = count < 0;
    return count;
}

static bool look(struct sdc_poller *poller)
{
    struct nvme_sq *sq = sq_of(poller);

    // The driver makes room in a completion queue without a word to us, too.
    if (sq->cq->waiting && nvme_has_room(sq->cq))
        nvme_post_waiting(sq->cq);
    if (!nvme_may_take(sq))
        return false;
    uint64_t now = sdc_loop_now(sq->worker->loop);
    if (sdc_gather_rests(&sq->gather, now))
        return true;
    int count = nvme_available(sq);
    if (count <= 0)
        return false;
    // As in a virtqueue.
    if (sq->in_flight > sq->resting || !sdc_gather_waits(&sq->gather, (uint32_t)count, now))
        nvme_look(sq);
    return true;
}

static void suppress(struct sdc_poller *poller)
{
    sdc_nvme_sq_suppress(&sq_of(poller)->ring);
}

static void rearm(struct sdc_poller *poller)
{
    struct nvme_sq *sq = sq_of(poller);

    if (!nvme_may_take(sq))
        return; // what ends that brings work about, or the end of the queue
    sdc_nvme_sq_rearm(&sq->ring);
    if (nvme_available(sq) > 0)
        nvme_kick_sq(sq->worker, sq->id);
}

void nvme_start_poller(struct nvme_sq *sq)
{
    static const struct sdc_poller_ops ops = {.look = look, .suppress = suppress, .rearm = rearm};
    const struct nvme *nvme = sq->nvme;
    bool polled = nvme->mapped_doorbells || (sq->ring.doorbell.shadowed && !sq->ring.area.remote);
    enum sdc_poll_mode mode = polled ? nvme->options.poll : SDC_POLL_NEVER;

    if (sq->poller.loop && sq->poller.mode == mode)
        return;
    sdc_poller_stop(&sq->poller);
    sq->poller.ops = &ops;
    sdc_poller_start(sq->worker->loop, &sq->poller, mode, nvme->options.poll_max_ns);
}
