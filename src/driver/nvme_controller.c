// SPDX-License-Identifier: BSD-3-Clause
// Registers and life of a controller (NVMe base specification 2.0, 3.1.3, 3.5 and 3.6).
#include "driver/nvme_controller.h"

#include "base/bytes.h"
#include "base/check.h"
#include "os/clock.h"
#include "os/wait.h"
#include "wire/nvme.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum {
    REGION = 0, // BAR 0
    ADMIN_ENTRIES = 32,
    PAGE_SHIFT_MIN = 12,
    PAGE_SHIFT_MAX = 16, // 64 KiB
    WHOLE_PAGES = 3,     // beside the queue's
};

#define MEMORY_IOVA UINT64_C(0x100000)
#define GONE UINT32_MAX // what a register reads as when there is nobody
#define HALF_SECOND_NS UINT64_C(500000000)
#define TIMEOUT_MIN_NS (2 * HALF_SECOND_NS)
#define TIMEOUT_MAX_NS (60 * HALF_SECOND_NS)
#define SHUTDOWN_NS (10 * HALF_SECOND_NS)

// --- registers; 64-bit ones in two halves, as every controller has to take them ---

static int read32(struct sdc_driver_nvme_controller *controller, uint32_t offset, uint32_t *value, struct sdc_error *err)
{
    uint8_t raw[4] = {0};
    int ret = sdc_vfio_client_read(controller->pci.client, REGION, offset, raw, sizeof raw, err);
    *value = sdc_get32(raw);
    return ret;
}

static int write32(struct sdc_driver_nvme_controller *controller, uint32_t offset, uint32_t value, struct sdc_error *err)
{
    uint8_t raw[4];
    sdc_put32(raw, value);
    return sdc_vfio_client_write(controller->pci.client, REGION, offset, raw, sizeof raw, err);
}

static int read64(struct sdc_driver_nvme_controller *controller, uint32_t offset, uint64_t *value, struct sdc_error *err)
{
    uint32_t low = 0, high = 0;
    int ret = read32(controller, offset, &low, err);
    if (ret == 0)
        ret = read32(controller, offset + 4, &high, err);
    *value = (uint64_t)high << 32 | low;
    return ret;
}

static int write64(struct sdc_driver_nvme_controller *controller, uint32_t offset, uint64_t value, struct sdc_error *err)
{
    int ret = write32(controller, offset, (uint32_t)value, err);
    return ret < 0 ? ret : write32(controller, offset + 4, (uint32_t)(value >> 32), err);
}

// --- status ---

static int read_status(struct sdc_driver_nvme_controller *controller, uint32_t *status, struct sdc_error *err)
{
    int ret = read32(controller, SDC_NVME_CSTS, status, err);
    if (ret == 0 && *status == GONE)
        return sdc_error_set(err, -ENODEV, SDC_FAULT_PEER, "the controller is gone: its status reads as all ones");
    return ret;
}

// Waits until (CSTS & mask) == value. A controller that has failed need not get there.
static int await(struct sdc_driver_nvme_controller *controller, uint32_t mask, uint32_t value, uint64_t timeout_ns,
                 const char *what, struct sdc_error *err)
{
    uint64_t deadline_ns = sdc_clock_ns() + timeout_ns;
    uint32_t status;
    for (;;) {
        int ret = read_status(controller, &status, err);
        if (ret < 0 || (status & mask) == value)
            return ret;
        if (status & SDC_NVME_CSTS_CFS && value != 0)
            return sdc_error_set(err, -EIO, SDC_FAULT_PEER, "the controller has failed (CSTS 0x%" PRIx32 ") and does not %s",
                                 status, what);
        if (sdc_clock_ns() > deadline_ns)
            return sdc_error_set(err, -ETIMEDOUT, SDC_FAULT_PEER,
                                 "the controller does not %s within %" PRIu64 " ms (CSTS 0x%" PRIx32 ")", what,
                                 timeout_ns / 1000000, status);
        sdc_wait_fd(sdc_vfio_client_fd(controller->pci.client), SDC_WAIT_HANGUP, 1);
    }
}

static int disable(struct sdc_driver_nvme_controller *controller, struct sdc_error *err)
{
    int ret = write32(controller, SDC_NVME_CC, 0, err);
    return ret < 0 ? ret : await(controller, SDC_NVME_CSTS_RDY, 0, controller->timeout_ns, "stop", err);
}

int sdc_driver_nvme_controller_check(struct sdc_driver_nvme_controller *controller, struct sdc_error *err)
{
    uint32_t status;
    int ret = sdc_driver_pci_check(&controller->pci, err);
    if (ret == 0)
        ret = read_status(controller, &status, err);
    if (ret == 0 && (status & (SDC_NVME_CSTS_CFS | SDC_NVME_CSTS_RDY)) != SDC_NVME_CSTS_RDY)
        return sdc_error_set(err, -EIO, SDC_FAULT_PEER, "the controller has %s (CSTS 0x%" PRIx32 ")",
                             status & SDC_NVME_CSTS_CFS ? "failed" : "stopped", status);
    return ret;
}

// --- what it can do ---

static int read_capabilities(struct sdc_driver_nvme_controller *controller, struct sdc_error *err)
{
    uint64_t cap;
    int ret = read64(controller, SDC_NVME_CAP, &cap, err);
    if (ret == 0)
        ret = read32(controller, SDC_NVME_VS, &controller->version, err);
    if (ret < 0)
        return ret;
    uint32_t shift_min = PAGE_SHIFT_MIN + (uint32_t)(cap >> SDC_NVME_CAP_MPSMIN & 0xf);
    controller->entries_max = (uint32_t)(cap >> SDC_NVME_CAP_MQES & 0xffff) + 1;
    controller->stride = UINT32_C(4) << (cap >> SDC_NVME_CAP_DSTRD & 0xf);
    controller->timeout_ns = sdc_min(sdc_max((cap >> SDC_NVME_CAP_TO & 0xff) * HALF_SECOND_NS, TIMEOUT_MIN_NS), TIMEOUT_MAX_NS);
    controller->page_shift = shift_min;
    controller->page_size = UINT32_C(1) << shift_min;
    if (cap == UINT64_MAX || controller->version == GONE)
        return sdc_error_set(err, -ENODEV, SDC_FAULT_PEER, "there is no controller: its registers read as all ones");
    if (!(cap >> SDC_NVME_CAP_CSS & 1))
        return sdc_error_set(err, -ENOTSUP, SDC_FAULT_PEER, "the controller has no NVM command set (CAP 0x%016" PRIx64 ")", cap);
    if (controller->entries_max < 2)
        return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER, "the controller's queues have one entry (CAP 0x%016" PRIx64 ")", cap);
    if (shift_min > PAGE_SHIFT_MAX)
        return sdc_error_set(err, -ENOTSUP, SDC_FAULT_PEER, "the controller's smallest page has %" PRIu32 " bytes; at most %d do",
                             controller->page_size, 1 << PAGE_SHIFT_MAX);
    return 0;
}

bool sdc_driver_nvme_find_register(const struct sdc_driver_nvme_controller *controller, uint16_t id, bool completions,
                                   uint64_t *offset)
{
    *offset = SDC_NVME_DOORBELLS + (UINT64_C(2) * id + completions) * controller->stride;
    return sdc_within(*offset, 4, controller->bar_size);
}

// --- the admin queue ---

static int make_admin_queue(struct sdc_driver_nvme_controller *controller, struct sdc_error *err)
{
    struct sdc_driver_nvme_ring *ring = &controller->admin;
    struct sdc_client_memory *memory = &controller->memory;
    uint64_t page = controller->page_size;
    *ring = (struct sdc_driver_nvme_ring){
        .doorbells = &controller->doorbells, .size = (uint32_t)sdc_min(ADMIN_ENTRIES, controller->entries_max)};
    ring->tail_bell.bell = (struct sdc_driver_doorbell){.way = SDC_DRIVER_NOTIFY_MESSAGE, .fd = -1};
    ring->head_bell.bell = ring->tail_bell.bell;
    if (!sdc_driver_nvme_find_register(controller, 0, false, &ring->tail_bell.bell.offset) ||
        !sdc_driver_nvme_find_register(controller, 0, true, &ring->head_bell.bell.offset))
        return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER,
                             "the controller's doorbells, %" PRIu32 " bytes apart, are outside its BAR of 0x%" PRIx64 " bytes",
                             controller->stride, controller->bar_size);
    int ret = sdc_driver_nvme_ring_init(ring, memory, page, err);
    if (ret < 0)
        return ret;
    controller->page = sdc_client_memory_take(memory, page, page, &controller->page_iova);
    controller->shadows = sdc_client_memory_take(memory, 2 * page, page, &controller->shadows_iova);
    if (!controller->page || !controller->shadows)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a controller");
    return 0;
}

static int show_admin_queue(struct sdc_driver_nvme_controller *controller, struct sdc_error *err)
{
    const struct sdc_driver_nvme_ring *ring = &controller->admin;
    int ret = write32(controller, SDC_NVME_AQA, (ring->size - 1) << 16 | (ring->size - 1), err);
    if (ret == 0)
        ret = write64(controller, SDC_NVME_ASQ, ring->sq_iova, err);
    if (ret == 0)
        ret = write64(controller, SDC_NVME_ACQ, ring->cq_iova, err);
    return ret;
}

static int enable(struct sdc_driver_nvme_controller *controller, struct sdc_error *err)
{
    uint32_t config = SDC_NVME_CC_EN | (controller->page_shift - PAGE_SHIFT_MIN) << SDC_NVME_CC_MPS |
                      SDC_NVME_SQES << SDC_NVME_CC_IOSQES | SDC_NVME_CQES << SDC_NVME_CC_IOCQES;
    int ret = write32(controller, SDC_NVME_CC, config, err);
    return ret < 0 ? ret
                   : await(controller, SDC_NVME_CSTS_RDY, SDC_NVME_CSTS_RDY, controller->timeout_ns, "become ready", err);
}

// --- life ---

static int find_registers(struct sdc_driver_nvme_controller *controller, struct sdc_vfio_client *client, struct sdc_error *err)
{
    int ret = sdc_driver_pci_open(client, &controller->pci, err);
    if (ret < 0)
        return ret;
    if (controller->pci.class_code != SDC_DRIVER_NVME_CLASS)
        return sdc_error_set(err, -ENODEV, SDC_FAULT_PEER,
                             "the device is of PCI class %06" PRIx32 "; an NVMe controller is of 010802",
                             controller->pci.class_code);
    controller->bar_size = controller->pci.bars[REGION].region_size;
    if (controller->bar_size < SDC_NVME_DOORBELLS)
        return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER, "the controller's BAR 0 has 0x%" PRIx64 " bytes, too few for its registers",
                             controller->bar_size);
    ret = sdc_driver_pci_enable(&controller->pci, true, err);
    return ret < 0 ? ret : read_capabilities(controller, err);
}

int sdc_driver_nvme_controller_open(struct sdc_driver_nvme_controller *controller, struct sdc_vfio_client *client,
                                    enum sdc_client_memory_kind memory, struct sdc_error *err)
{
    *controller = (struct sdc_driver_nvme_controller){.pci = {.client = client}, .memory = {.fd = -1}};
    controller->doorbells = (struct sdc_driver_doorbells){.client = client, .region = REGION};
    int ret = find_registers(controller, client, err);
    if (ret == 0)
        ret = disable(controller, err);
    if (ret < 0)
        return ret;
    uint64_t bytes = sdc_driver_nvme_ring_memory(ADMIN_ENTRIES, controller->page_size) + WHOLE_PAGES * controller->page_size;
    ret = sdc_client_memory_new_kind(&controller->memory, memory, MEMORY_IOVA, bytes, err);
    if (ret == 0)
        ret = sdc_driver_pci_map(&controller->pci, &controller->memory, err);
    if (ret == 0)
        ret = make_admin_queue(controller, err);
    if (ret == 0)
        ret = show_admin_queue(controller, err);
    return ret < 0 ? ret : enable(controller, err);
}

int sdc_driver_nvme_controller_stop(struct sdc_driver_nvme_controller *controller, struct sdc_error *err)
{
    uint32_t config = 0, normal = UINT32_C(1) << SDC_NVME_CC_SHN;
    if (!controller->admin.sq)
        return 0;
    int ret = read32(controller, SDC_NVME_CC, &config, err);
    if (ret == 0 && config & SDC_NVME_CC_EN && config != GONE) {
        ret = write32(controller, SDC_NVME_CC, (config & ~(UINT32_C(3) << SDC_NVME_CC_SHN)) | normal, err);
        if (ret == 0)
            ret = await(controller, SDC_NVME_CSTS_SHST, SDC_NVME_CSTS_SHST_DONE, SHUTDOWN_NS, "shut down", err);
    }
    int stopped = disable(controller, ret == 0 ? err : NULL);
    return ret < 0 ? ret : stopped;
}

void sdc_driver_nvme_controller_close(struct sdc_driver_nvme_controller *controller)
{
    sdc_vfio_client_close(controller->pci.client);
    sdc_driver_doorbells_close(&controller->doorbells);
    sdc_client_memory_free(&controller->memory);
}
