// SPDX-License-Identifier: BSD-3-Clause
#include "base/log.h"
#include "device/nvme/controller.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

// --- on workers ---

static int open_one(struct nvme_worker *worker, struct nvme_namespace *ns)
{
    struct nvme_ns_queue *queue = calloc(1, sizeof *queue);
    if (!queue)
        return -ENOMEM;
    queue->ns = ns;
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
        struct nvme_ns_queue *queue = worker->namespaces[i];
        if (queue) {
            queue->backend->ops->close(queue->backend);
            nvme_jobs_close(queue);
        }
        free(queue);
        worker->namespaces[i] = NULL;
    }
}

int nvme_namespaces_open(struct nvme_worker *worker)
{
    int rc = 0;

    if (worker->io_users++ > 0)
        return 0;
    for (uint32_t nsid = 1; rc == 0 && nsid <= NVME_NAMESPACES_MAX; nsid++) {
        if (worker->nvme->namespaces.by_id[nsid])
            rc = open_one(worker, worker->nvme->namespaces.by_id[nsid]);
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

// --- at home ---

int sdc_nvme_namespace_new(struct sdc_pci_device *device, uint32_t nsid, struct sdc_block *block, const char *backend,
                           struct sdc_error *err)
{
    struct nvme *nvme = nvme_of(device);

    if (nvme->namespaces.by_id[nsid])
        return sdc_error_set(err, -EEXIST, SDC_FAULT_USER, "namespace %" PRIu32 " is there already", nsid);
    struct nvme_namespace *ns = calloc(1, sizeof *ns);
    if (!ns)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a namespace");
    nvme_namespace_describe(ns, nsid, block, backend, nvme->options.serial);
    nvme->namespaces.by_id[nsid] = ns;
    return 0;
}

void nvme_namespaces_free(struct nvme *nvme)
{
    for (uint32_t nsid = 1; nsid <= NVME_NAMESPACES_MAX; nsid++) {
        struct nvme_namespace *ns = nvme->namespaces.by_id[nsid];
        if (ns)
            ns->block->ops->close(ns->block);
        free(ns);
    }
}

void sdc_nvme_refresh(struct sdc_pci_device *device)
{
    struct nvme *nvme = nvme_of(device);

    for (uint32_t nsid = 1; nsid <= NVME_NAMESPACES_MAX; nsid++) {
        struct nvme_namespace *ns = nvme->namespaces.by_id[nsid];
        if (!ns)
            continue;
        int rc = ns->block->ops->refresh ? ns->block->ops->refresh(ns->block) : 0;
        if (rc < 0)
            sdc_log(SDC_LOG_ERROR, "nvme: namespace %" PRIu32 ": the backend's size cannot be read: %s", ns->nsid, strerror(-rc));
    }
}
