// SPDX-License-Identifier: BSD-3-Clause
// An NVMe controller: its registers, and what it says of itself when it is asked. For that it has to be enabled, with an admin queue:
// only one that is disabled is, which is one that nobody uses, and afterwards it is shut down, disabled and reset.
#include "cli/inspect/inspect.h"

#include "base/bytes.h"
#include "base/check.h"
#include "driver/nvme_identify.h"
#include "wire/nvme.h"

#include <errno.h>
#include <inttypes.h>

enum {
    REGION = 0,           // BAR 0
    REGISTERS = 0x40,     // bytes that are shown
    NAMESPACES_MAX = 64,  // likewise
    CONTROLLER_STATUS_MASK = 0x7ff,
};

// --- Identify ---

// The structure, or a problem.
static int identify(struct sdc_inspect *inspect, struct sdc_driver_nvme_controller *controller, uint32_t nsid, enum sdc_nvme_cns cns,
                    uint8_t data[SDC_NVME_IDENTIFY_BYTES])
{
    struct sdc_error err = {0};
    uint16_t status = 0;

    int ret = sdc_driver_nvme_identify_page(controller, nsid, cns, data, &status, &err);
    if (ret == 0 && status != 0)
        ret = sdc_error_set(&err, -EIO, SDC_FAULT_PEER, "the controller refuses number %d with status 0x%03x", cns,
                            status & CONTROLLER_STATUS_MASK);
    if (ret < 0)
        sdc_inspect_problem(inspect, "identify", &err);
    return ret;
}

static void put_namespace(struct sdc_inspect *inspect, struct sdc_driver_nvme_controller *controller, uint32_t nsid, json_t *list)
{
    uint8_t data[SDC_NVME_IDENTIFY_BYTES];

    if (identify(inspect, controller, nsid, SDC_NVME_CNS_NS, data) < 0)
        return;
    json_t *object = sdc_tree_append(list);
    sdc_tree_put_number(object, "nsid", nsid);
    sdc_inspect_nvme_namespace_put(object, data);
    if (controller->version >= 0x10300 && identify(inspect, controller, nsid, SDC_NVME_CNS_NS_DESCRIPTORS, data) == 0)
        sdc_inspect_nvme_descriptors_put(object, data);
}

// The list of active namespaces is ascending and ends with 0 (base 5.17.2.3); controllers of version 1.0 have none.
static void put_namespaces(struct sdc_inspect *inspect, struct sdc_driver_nvme_controller *controller, json_t *nvme, uint32_t most)
{
    uint8_t data[SDC_NVME_IDENTIFY_BYTES];
    json_t *list = sdc_tree_array(nvme, "namespaces");
    uint32_t last = 0;

    if (controller->version < 0x10100) {
        for (uint32_t i = 1; i <= most && i <= NAMESPACES_MAX && !controller->admin_stuck; i++)
            put_namespace(inspect, controller, i, list);
        return;
    }
    if (identify(inspect, controller, 0, SDC_NVME_CNS_ACTIVE_NS, data) < 0)
        return;
    for (uint32_t i = 0; i < SDC_NVME_IDENTIFY_BYTES / 4 && !controller->admin_stuck; i++) {
        uint32_t nsid = sdc_get32(data + 4 * i);
        if (nsid <= last)
            break;
        if (i == NAMESPACES_MAX) {
            sdc_tree_put_flag(nvme, "namespaces_left_out", true);
            break;
        }
        put_namespace(inspect, controller, nsid, list);
        last = nsid;
    }
}

static void put_identity(struct sdc_inspect *inspect, struct sdc_driver_nvme_controller *controller, json_t *nvme)
{
    uint8_t data[SDC_NVME_IDENTIFY_BYTES];

    if (identify(inspect, controller, 0, SDC_NVME_CNS_CONTROLLER, data) < 0)
        return;
    sdc_inspect_nvme_controller_put(sdc_tree_object(nvme, "controller"), data);
    put_namespaces(inspect, controller, nvme, sdc_get32(data + 516));
}

// Takes the connection over.
static void ask(struct sdc_inspect *inspect, struct sdc_inspect_device *device, json_t *nvme)
{
    struct sdc_driver_nvme_controller controller;
    struct sdc_error err = {0};

    int ret = sdc_driver_nvme_controller_open(&controller, device->client, false, &err);
    if (ret == 0)
        put_identity(inspect, &controller, nvme);
    else
        sdc_inspect_problem(inspect, "identify", &err);
    ret = sdc_driver_nvme_controller_stop(&controller, &err);
    if (ret == 0)
        ret = sdc_driver_pci_enable(&controller.pci, false, &err);
    if (ret == 0 && device->can_reset)
        ret = sdc_vfio_client_reset(device->client, &err);
    if (ret < 0)
        sdc_inspect_problem(inspect, "after identify", &err);
    sdc_driver_nvme_controller_close(&controller);
    device->client = NULL;
}

// --- registers ---

// In words, as every controller has to take them.
static int read_registers(const struct sdc_inspect_device *device, uint8_t bytes[REGISTERS], struct sdc_error *err)
{
    for (uint32_t at = 0; at < REGISTERS; at += 4) {
        uint64_t value = 0;
        int ret = sdc_inspect_read(device, REGION, at, 4, &value, err);
        if (ret < 0)
            return ret;
        sdc_put32(bytes + at, (uint32_t)value);
    }
    return 0;
}

void sdc_inspect_nvme(struct sdc_inspect *inspect, struct sdc_inspect_device *device)
{
    uint8_t bytes[REGISTERS];
    struct sdc_error err = {0};

    if (read_registers(device, bytes, &err) < 0) {
        sdc_inspect_problem(inspect, "NVMe registers", &err);
        return;
    }
    json_t *nvme = sdc_tree_object(inspect->root, "nvme");
    sdc_inspect_nvme_registers_put(nvme, bytes, sizeof bytes);
    bool used = sdc_get32(bytes + SDC_NVME_CC) & SDC_NVME_CC_EN || sdc_get32(bytes + SDC_NVME_CSTS) & SDC_NVME_CSTS_RDY;
    if (used)
        sdc_tree_put_string(nvme, "identify", "left out: the controller is enabled");
    else if (inspect->options->passive)
        sdc_tree_put_string(nvme, "identify", "left out: --passive");
    else
        ask(inspect, device, nvme);
}
