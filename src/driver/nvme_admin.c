// SPDX-License-Identifier: BSD-3-Clause
// Admin commands (NVMe base specification 2.0, 5), one at a time: the completion queue is looked at until it is there.
#include "driver/nvme_controller.h"

#include "base/bytes.h"
#include "base/check.h"
#include "os/clock.h"
#include "os/wait.h"
#include "wire/nvme.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>

#define TIMEOUT_NS (UINT64_C(10) * 1000 * 1000 * 1000)

enum {
    QUICK_LOOKS = 200, // before looks are a millisecond apart
    QUEUE_CONTIGUOUS = 1,
    QUEUE_INTERRUPTS = 2,
};

// Takes the one completion that may come.
static int take(struct sdc_driver_nvme_controller *controller, uint16_t cid, struct sdc_driver_nvme_completion *completion,
                struct sdc_error *err)
{
    int ret = sdc_driver_nvme_ring_take(&controller->admin, completion);
    if (ret < 0)
        return sdc_error_set(err, ret, SDC_FAULT_PEER, "admin queue: %s", controller->admin.broken);
    if (ret == 1 && completion->cid != cid)
        return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER,
                             "admin queue: the controller completed command %u, which was not given to it", completion->cid);
    return ret;
}

static int await(struct sdc_driver_nvme_controller *controller, uint16_t cid, struct sdc_driver_nvme_completion *completion,
                 struct sdc_error *err)
{
    uint64_t deadline_ns = sdc_clock_ns() + TIMEOUT_NS;
    for (unsigned looks = 0;; looks++) {
        int ret = take(controller, cid, completion, err);
        if (ret == 0 && looks >= QUICK_LOOKS)
            ret = sdc_driver_nvme_controller_check(controller, err);
        if (ret != 0)
            return ret;
        if (sdc_clock_ns() > deadline_ns)
            return sdc_error_set(err, -ETIMEDOUT, SDC_FAULT_PEER, "the controller did not complete an admin command within 10 s");
        if (looks < QUICK_LOOKS)
            sched_yield();
        else
            sdc_wait_fd(sdc_vfio_client_fd(controller->pci.client), SDC_WAIT_HANGUP, 1);
    }
}

int sdc_driver_nvme_admin(struct sdc_driver_nvme_controller *controller, uint8_t entry[64],
                          struct sdc_driver_nvme_completion *completion, struct sdc_error *err)
{
    struct sdc_driver_nvme_ring *ring = &controller->admin;
    uint16_t cid = controller->admin_cid++;
    if (controller->admin_stuck)
        return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER, "the controller's admin queue is not usable any more");
    sdc_put16(entry + SDC_NVME_SQE_CID, cid);
    memcpy(sdc_driver_nvme_ring_entry(ring), entry, SDC_NVME_SQE);
    sdc_driver_nvme_ring_add(ring);
    int ret = sdc_driver_nvme_ring_publish(ring, false, err);
    if (ret >= 0)
        ret = await(controller, cid, completion, err);
    if (ret == 1)
        ret = sdc_driver_nvme_ring_acknowledge(ring, err);
    controller->admin_stuck = ret < 0;
    return ret;
}

int sdc_driver_nvme_admin_must(struct sdc_driver_nvme_controller *controller, uint8_t entry[64], const char *what,
                               struct sdc_driver_nvme_completion *completion, struct sdc_error *err)
{
    int ret = sdc_driver_nvme_admin(controller, entry, completion, err);
    if (ret == 0 && completion->status != 0)
        return sdc_error_set(err, -EIO, SDC_FAULT_PEER, "the controller refused to %s: status 0x%03x", what,
                             completion->status & 0x7ff);
    return ret;
}

// --- queues ---

static int create(struct sdc_driver_nvme_controller *controller, const struct sdc_driver_nvme_ring *ring, bool completions,
                  uint32_t dword11, struct sdc_error *err)
{
    struct sdc_driver_nvme_completion completion;
    uint8_t entry[SDC_NVME_SQE] = {completions ? SDC_NVME_ADMIN_CREATE_CQ : SDC_NVME_ADMIN_CREATE_SQ};
    sdc_put64(entry + SDC_NVME_SQE_PRP1, completions ? ring->cq_iova : ring->sq_iova);
    sdc_put32(entry + SDC_NVME_SQE_CDW10, (ring->size - 1) << 16 | ring->id);
    sdc_put32(entry + SDC_NVME_SQE_CDW11, dword11);
    return sdc_driver_nvme_admin_must(controller, entry, completions ? "create a completion queue" : "create a submission queue",
                                      &completion, err);
}

static int delete(struct sdc_driver_nvme_controller *controller, const struct sdc_driver_nvme_ring *ring, bool completions,
                  struct sdc_error *err)
{
    struct sdc_driver_nvme_completion completion;
    uint8_t entry[SDC_NVME_SQE] = {completions ? SDC_NVME_ADMIN_DELETE_CQ : SDC_NVME_ADMIN_DELETE_SQ};
    sdc_put32(entry + SDC_NVME_SQE_CDW10, ring->id);
    return sdc_driver_nvme_admin_must(controller, entry, completions ? "delete a completion queue" : "delete a submission queue",
                                      &completion, err);
}

int sdc_driver_nvme_create_ring(struct sdc_driver_nvme_controller *controller, struct sdc_driver_nvme_ring *ring, int vector,
                                struct sdc_error *err)
{
    uint32_t interrupts = vector < 0 ? 0 : (uint32_t)vector << 16 | QUEUE_INTERRUPTS;
    int ret = create(controller, ring, true, interrupts | QUEUE_CONTIGUOUS, err);
    return ret < 0 ? ret : create(controller, ring, false, (uint32_t)ring->id << 16 | QUEUE_CONTIGUOUS, err);
}

int sdc_driver_nvme_delete_ring(struct sdc_driver_nvme_controller *controller, struct sdc_driver_nvme_ring *ring,
                                struct sdc_error *err)
{
    int ret = delete (controller, ring, false, err);
    return ret < 0 ? ret : delete (controller, ring, true, err);
}

// --- shadow doorbells ---

int sdc_driver_nvme_use_shadows(struct sdc_driver_nvme_controller *controller, struct sdc_error *err)
{
    struct sdc_driver_nvme_completion completion;
    uint8_t entry[SDC_NVME_SQE] = {SDC_NVME_ADMIN_DOORBELL_BUFFER};
    sdc_put64(entry + SDC_NVME_SQE_PRP1, controller->shadows_iova);
    sdc_put64(entry + SDC_NVME_SQE_PRP2, controller->shadows_iova + controller->page_size);
    return sdc_driver_nvme_admin_must(controller, entry, "use shadow doorbells", &completion, err);
}

bool sdc_driver_nvme_find_shadow(const struct sdc_driver_nvme_controller *controller, uint16_t id, bool completions,
                                 struct sdc_driver_nvme_bell *bell)
{
    uint64_t offset = (UINT64_C(2) * id + completions) * controller->stride;
    if (!sdc_within(offset, 4, controller->page_size))
        return false;
    bell->shadow = (uint32_t *)(void *)(controller->shadows + offset);
    bell->event = (uint32_t *)(void *)(controller->shadows + controller->page_size + offset);
    return true;
}
