// SPDX-License-Identifier: BSD-3-Clause
#include "base/check.h"
#include "base/log.h"
#include "device/nvme/controller.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

// --- on workers ---

static void close_one(struct nvme_ns_queue *queue)
{
    queue->backend->ops->close(queue->backend);
    nvme_jobs_close(queue);
    free(queue);
}

static void run_leave(struct sdc_deferred *deferred)
{
    struct nvme_ns_queue *queue = sdc_container(deferred, struct nvme_ns_queue, leave);
    struct nvme_order *order = queue->leaving;

    close_one(queue);
    nvme_order_obeyed(order);
}

static int open_one(struct nvme_worker *worker, struct nvme_namespace *ns)
{
    struct nvme_ns_queue *queue = calloc(1, sizeof *queue);
    if (!queue)
        return -ENOMEM;
    queue->ns = ns;
    queue->leave.run = run_leave;
    int rc = ns->block->ops->queue_open(ns->block, worker->loop, nvme_io_done, worker, &queue->backend);
    if (rc < 0)
        free(queue);
    else
        worker->namespaces[ns->nsid - 1] = queue;
    return rc;
}

static void close_all(struct nvme_worker *worker)
{
    for (unsigned i = 0; i < NVME_NAMESPACES_MAX; i++) {
        if (worker->namespaces[i])
            close_one(worker->namespaces[i]);
        worker->namespaces[i] = NULL;
    }
}

int nvme_namespaces_open(struct nvme_worker *worker)
{
    int rc = 0;

    if (worker->io_users++ > 0)
        return 0;
    for (unsigned i = 0; rc == 0 && i < NVME_NAMESPACES_MAX; i++) {
        if (worker->known[i])
            rc = open_one(worker, worker->known[i]);
    }
    if (rc < 0)
        nvme_namespaces_close(worker);
    return rc;
}

void nvme_namespaces_close(struct nvme_worker *worker)
{
    if (--worker->io_users == 0)
        close_all(worker);
}

void nvme_namespaces_cancel(struct nvme_worker *worker)
{
    for (unsigned i = 0; i < NVME_NAMESPACES_MAX; i++) {
        struct nvme_ns_queue *queue = worker->namespaces[i];
        if (queue && queue->backend->ops->cancel)
            queue->backend->ops->cancel(queue->backend);
    }
}

// --- changes: namespaces on their way to the workers, or from them ---

struct change_at {
    struct nvme_order order; // to one worker
    struct nvme_change *change;
};

// A namespace that comes or goes. Home loop, but `at`.
struct nvme_change {
    struct nvme *nvme;
    struct nvme_namespace *ns;
    bool goes;
    bool unwanted;    // it was taken away again before it had come: another change is on its way, behind this one
    unsigned pending; // workers that have not obeyed; zero: it has come, or may be closed
    struct nvme_change *next;
    struct change_at at[];
};

static struct nvme_namespace *namespace_of(const struct nvme_order *order)
{
    return sdc_container(order, struct change_at, order)->change->ns;
}

static void run_come(struct nvme_order *order)
{
    struct nvme_worker *worker = order->worker;
    struct nvme_namespace *ns = namespace_of(order);

    worker->known[ns->nsid - 1] = ns;
    int rc = worker->io_users > 0 ? open_one(worker, ns) : 0;
    if (rc < 0)
        sdc_log(SDC_LOG_ERROR, "nvme: namespace %" PRIu32 " cannot be used by all queues: %s", ns->nsid, strerror(-rc));
    nvme_order_obeyed(order);
}

static void run_go(struct nvme_order *order)
{
    struct nvme_worker *worker = order->worker;
    unsigned index = namespace_of(order)->nsid - 1;
    struct nvme_ns_queue *queue = worker->namespaces[index];

    worker->known[index] = NULL;
    worker->namespaces[index] = NULL;
    if (!queue) {
        nvme_order_obeyed(order);
        return;
    }
    queue->leaving = order;
    if (queue->backend->ops->cancel)
        queue->backend->ops->cancel(queue->backend);
    if (queue->users == 0)
        sdc_loop_defer(worker->loop, &queue->leave);
}

static void close_namespace(struct nvme_namespace *ns)
{
    ns->block->ops->close(ns->block);
    free(ns);
}

// Drivers that were told of namespaces look at them again. One that has not begun looks at all of them anyway.
static void tell_of(struct nvme *nvme, uint32_t nsid)
{
    if (nvme->life == NVME_ON)
        nvme_event_namespace(nvme, nsid);
}

static void has_come(struct nvme_change *change)
{
    struct nvme *nvme = change->nvme;

    if (!change->unwanted) {
        nvme->namespaces.by_id[change->ns->nsid] = change->ns;
        tell_of(nvme, change->ns->nsid);
    }
    free(change);
}

static void obeyed(struct nvme_order *order)
{
    struct nvme_change *change = sdc_container(order, struct change_at, order)->change;
    struct nvme_change **link = &change->nvme->changes;

    if (--change->pending > 0)
        return;
    while (*link != change)
        link = &(*link)->next;
    *link = change->next;
    if (!change->goes) {
        has_come(change);
        return;
    }
    close_namespace(change->ns);
    free(change);
}

static void start_change(struct nvme_change *change)
{
    struct nvme *nvme = change->nvme;

    change->next = nvme->changes;
    nvme->changes = change;
    change->pending = nvme->workers_count;
    for (unsigned i = 0; i < nvme->workers_count; i++) {
        struct change_at *at = &change->at[i];
        *at = (struct change_at){.order = {.run = change->goes ? run_go : run_come, .obeyed = obeyed}, .change = change};
        nvme_order_send(&at->order, &nvme->workers[i]);
    }
}

static struct nvme_change *change_new(struct nvme *nvme, struct nvme_namespace *ns, bool goes)
{
    struct nvme_change *change = calloc(1, sizeof *change + nvme->workers_count * sizeof change->at[0]);

    if (change)
        *change = (struct nvme_change){.nvme = nvme, .ns = ns, .goes = goes};
    return change;
}

static struct nvme_change *find_coming(const struct nvme *nvme, uint32_t nsid)
{
    struct nvme_change *change = nvme->changes;

    while (change && (change->goes || change->unwanted || change->ns->nsid != nsid))
        change = change->next;
    return change;
}

// --- at home ---

static int make_new(struct nvme *nvme, uint32_t nsid, struct sdc_block *block, const char *backend, struct nvme_namespace **ns,
                    struct sdc_error *err)
{
    if (nvme->namespaces.by_id[nsid] || find_coming(nvme, nsid))
        return sdc_error_set(err, -EEXIST, SDC_FAULT_USER, "namespace %" PRIu32 " is there already", nsid);
    *ns = calloc(1, sizeof **ns);
    if (!*ns)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a namespace");
    nvme_namespace_describe(*ns, nsid, block, backend, nvme->options.serial);
    return 0;
}

int sdc_nvme_namespace_new(struct sdc_pci_device *device, uint32_t nsid, struct sdc_block *block, const char *backend,
                           struct sdc_error *err)
{
    struct nvme *nvme = nvme_of(device);
    struct nvme_namespace *ns;
    int rc = make_new(nvme, nsid, block, backend, &ns, err);

    if (rc < 0)
        return rc;
    nvme->namespaces.by_id[nsid] = ns;
    for (unsigned i = 0; i < nvme->workers_count; i++)
        nvme->workers[i].known[nsid - 1] = ns;
    return 0;
}

int sdc_nvme_namespace_add(struct sdc_pci_device *device, uint32_t nsid, struct sdc_block *block, const char *backend,
                           struct sdc_error *err)
{
    struct nvme *nvme = nvme_of(device);
    struct nvme_namespace *ns;
    int rc = make_new(nvme, nsid, block, backend, &ns, err);

    if (rc < 0)
        return rc;
    struct nvme_change *change = change_new(nvme, ns, false);
    if (!change) {
        free(ns);
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a namespace");
    }
    start_change(change);
    return 0;
}

int sdc_nvme_namespace_remove(struct sdc_pci_device *device, uint32_t nsid)
{
    struct nvme *nvme = nvme_of(device);
    struct nvme_change *coming = find_coming(nvme, nsid);
    struct nvme_namespace *ns = coming ? coming->ns : nvme->namespaces.by_id[nsid];

    if (!ns)
        return -ENOENT;
    struct nvme_change *change = change_new(nvme, ns, true);
    if (!change)
        return -ENOMEM;
    if (coming) {
        coming->unwanted = true;
    } else {
        nvme->namespaces.by_id[nsid] = NULL;
        tell_of(nvme, nsid);
    }
    start_change(change);
    return 0;
}

void nvme_namespaces_free(struct nvme *nvme)
{
    for (uint32_t nsid = 1; nsid <= NVME_NAMESPACES_MAX; nsid++) {
        if (nvme->namespaces.by_id[nsid])
            close_namespace(nvme->namespaces.by_id[nsid]);
    }
    while (nvme->changes) {
        struct nvme_change *change = nvme->changes;
        nvme->changes = change->next;
        if (!change->unwanted)
            close_namespace(change->ns);
        free(change);
    }
}

static void refresh(struct nvme *nvme, struct nvme_namespace *ns)
{
    int rc = ns->block->ops->refresh ? ns->block->ops->refresh(ns->block) : 0;

    if (rc < 0) {
        sdc_log(SDC_LOG_ERROR, "nvme: namespace %" PRIu32 ": the backend's size cannot be read: %s", ns->nsid, strerror(-rc));
    } else if (rc > 0) {
        sdc_log(SDC_LOG_INFO, "nvme: namespace %" PRIu32 " has %" PRIu64 " blocks of %" PRIu32 " bytes now", ns->nsid,
                nvme_namespace_blocks(ns), ns->info.block_size);
        tell_of(nvme, ns->nsid);
    }
}

void sdc_nvme_refresh(struct sdc_pci_device *device)
{
    struct nvme *nvme = nvme_of(device);

    for (uint32_t nsid = 1; nsid <= NVME_NAMESPACES_MAX; nsid++) {
        if (nvme->namespaces.by_id[nsid])
            refresh(nvme, nvme->namespaces.by_id[nsid]);
    }
}
