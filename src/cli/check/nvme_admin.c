// SPDX-License-Identifier: BSD-3-Clause
// Admin commands that every NVMe controller has: identify, queues, features, logs.
#include "cli/check/nvme.h"

#include "base/bytes.h"
#include "base/check.h"

#include <inttypes.h>
#include <string.h>

#define BASE(section) SDC_CHECK_NVME_BASE(section)

// Statuses that will do.
#define ONE_OF(...) ((const uint16_t[]){__VA_ARGS__, 0xffff})

// Offsets in Identify Controller.
enum { ID_VID = 0, ID_SERIAL = 4, ID_MODEL = 24, ID_FIRMWARE = 64, ID_VER = 80, ID_SQES = 512, ID_CQES = 513, ID_NN = 516 };

static void printable(struct sdc_check *check, const uint8_t *text, size_t size, const char *name)
{
    for (size_t i = 0; i < size; i++)
        sdc_check_that(check, text[i] >= 0x20 && text[i] <= 0x7e, "%s is ASCII, with spaces behind it", name);
}

static void identify_controller(struct sdc_check *check)
{
    struct sdc_check_nvme nvme;
    sdc_check_nvme_open_io(&nvme, check);
    const uint8_t *id = nvme.identify;
    sdc_check_that(check, sdc_get16(id + ID_VID) == nvme.controller.pci.vendor_id, "VID is the PCI vendor ID");
    sdc_check_that(check, sdc_get32(id + ID_VER) == nvme.controller.version, "VER is what the register VS says");
    sdc_check_that(check, (id[ID_SQES] & 15) <= 6 && id[ID_SQES] >> 4 >= 6, "submission queue entries of 64 bytes are supported (SQES)");
    sdc_check_that(check, (id[ID_CQES] & 15) <= 4 && id[ID_CQES] >> 4 >= 4, "completion queue entries of 16 bytes are supported (CQES)");
    sdc_check_that(check, sdc_get32(id + ID_NN) >= nvme.nsid, "NN is at least the largest namespace ID");
    printable(check, id + ID_SERIAL, 20, "the serial number");
    printable(check, id + ID_MODEL, 40, "the model number");
    printable(check, id + ID_FIRMWARE, 8, "the firmware revision");
    sdc_check_nvme_close(&nvme);
}

static void identify_namespaces(struct sdc_check *check)
{
    struct sdc_check_nvme nvme;
    uint8_t list[SDC_NVME_IDENTIFY_BYTES];
    sdc_check_nvme_open_io(&nvme, check);
    uint32_t count = sdc_get32(nvme.identify + ID_NN), last = 0;
    sdc_check_nvme_command(&nvme, SDC_NVME_ADMIN_IDENTIFY, 0, SDC_NVME_CNS_ACTIVE_NS, 0);
    memcpy(list, nvme.data, sizeof list);
    for (size_t i = 0; i < sizeof list / 4; i++) {
        uint32_t nsid = sdc_get32(list + 4 * i);
        if (nsid == 0)
            break;
        sdc_check_that(check, nsid > last && nsid <= count, "the list is in increasing order, of IDs up to NN (%" PRIu32 ")", nsid);
        last = nsid;
        if (i >= 8)
            continue;
        sdc_check_that(check, sdc_check_nvme_command(&nvme, SDC_NVME_ADMIN_IDENTIFY, nsid, SDC_NVME_CNS_NS, 0) == 0,
                       "Identify Namespace of an active one succeeds");
        const uint8_t *ns = nvme.data;
        uint64_t size = sdc_get64(ns), capacity = sdc_get64(ns + 8), used = sdc_get64(ns + 16);
        sdc_check_that(check, used <= capacity && capacity <= size && size > 0, "NUSE <= NCAP <= NSZE, and there are blocks");
        sdc_check_that(check, (ns[26] & 15) <= ns[25] || (ns[26] & 0x60), "FLBAS is one of the formats that there are");
        sdc_check_that(check, ns[128 + 4 * (ns[26] & 15) + 2] >= 9, "a block has 512 bytes at least (LBADS)");
    }
    // Those above an ID.
    sdc_check_that(check, sdc_check_nvme_command(&nvme, SDC_NVME_ADMIN_IDENTIFY, last, SDC_NVME_CNS_ACTIVE_NS, 0) == 0,
                   "Identify Active Namespace ID list succeeds");
    sdc_check_that(check, sdc_get32(nvme.data) == 0, "the list is of IDs greater than NSID");
    sdc_check_nvme_close(&nvme);
}

static void identify_refused(struct sdc_check *check)
{
    struct sdc_check_nvme nvme;
    sdc_check_nvme_open_io(&nvme, check);
    uint32_t count = sdc_get32(nvme.identify + ID_NN);
    const uint16_t *invalid_field = ONE_OF(SDC_NVME_SC_INVALID_FIELD), *invalid_ns = ONE_OF(SDC_NVME_SC_INVALID_NS);
    sdc_check_nvme_status(&nvme, sdc_check_nvme_command(&nvme, SDC_NVME_ADMIN_IDENTIFY, 0, 0xfe, 0), invalid_field,
                          "Identify with a CNS that is reserved");
    if (count < UINT32_MAX - 1)
        sdc_check_nvme_status(&nvme, sdc_check_nvme_command(&nvme, SDC_NVME_ADMIN_IDENTIFY, count + 1, SDC_NVME_CNS_NS, 0), invalid_ns,
                              "Identify Namespace of an ID above NN");
    sdc_check_nvme_status(&nvme, sdc_check_nvme_command(&nvme, SDC_NVME_ADMIN_IDENTIFY, 0, SDC_NVME_CNS_NS, 0), invalid_ns,
                          "Identify Namespace of ID 0");
    sdc_check_nvme_status(&nvme, sdc_check_nvme_command(&nvme, SDC_NVME_ADMIN_IDENTIFY, UINT32_MAX, SDC_NVME_CNS_ACTIVE_NS, 0), invalid_ns,
                          "the Active Namespace ID list from 0xffffffff on");
    sdc_check_nvme_close(&nvme);
}

static void invalid_opcodes(struct sdc_check *check)
{
    static const uint8_t opcodes[] = {0x03, 0x07, 0x0b, 0x3f, 0x77};
    struct sdc_check_nvme nvme;
    sdc_check_nvme_open(&nvme, check);
    for (size_t i = 0; i < SDC_COUNT(opcodes); i++)
        sdc_check_nvme_status(&nvme, sdc_check_nvme_command(&nvme, opcodes[i], 0, 0, 0), ONE_OF(SDC_NVME_SC_INVALID_OPCODE),
                              "an opcode that is reserved");
    sdc_check_nvme_close(&nvme);
}

// --- queues ---

enum { CONTIGUOUS = 1, INTERRUPTS = 2 };

static uint16_t create(struct sdc_check_nvme *nvme, uint8_t opcode, uint32_t id, uint32_t entries_less_one, uint32_t cdw11)
{
    return sdc_check_nvme_command(nvme, opcode, 0, entries_less_one << 16 | id, cdw11);
}

// The entries, less one, of a queue with nothing wrong about its size.
static uint32_t few(const struct sdc_check_nvme *nvme)
{
    return (uint32_t)sdc_min(SDC_CHECK_NVME_ENTRIES, nvme->controller.entries_max) - 1;
}

static void create_cq_refused(struct sdc_check *check)
{
    const uint16_t *bad_id = ONE_OF(SDC_NVME_SC_QID_INVALID);
    const uint8_t opcode = SDC_NVME_ADMIN_CREATE_CQ;
    struct sdc_check_nvme nvme;
    sdc_check_nvme_open_io(&nvme, check); // queues 1 are there
    sdc_check_nvme_status(&nvme, create(&nvme, opcode, 0, few(&nvme), CONTIGUOUS), bad_id, "creating completion queue 0");
    sdc_check_nvme_status(&nvme, create(&nvme, opcode, 0xffff, few(&nvme), CONTIGUOUS), bad_id, "creating completion queue 65535");
    sdc_check_nvme_status(&nvme, create(&nvme, opcode, 1, few(&nvme), CONTIGUOUS), bad_id, "creating a completion queue that exists");
    sdc_check_nvme_status(&nvme, create(&nvme, opcode, 2, 0, CONTIGUOUS),
                          ONE_OF(SDC_NVME_SC_QSIZE_INVALID, SDC_NVME_SC_QID_INVALID), "creating a completion queue of one entry");
    if (nvme.controller.entries_max < 0x10000)
        sdc_check_nvme_status(&nvme, create(&nvme, opcode, 2, nvme.controller.entries_max, CONTIGUOUS),
                              ONE_OF(SDC_NVME_SC_QSIZE_INVALID,
                                     SDC_NVME_SC_QID_INVALID), "creating a completion queue of more than CAP.MQES");
    if (nvme.controller.pci.msix_vectors > 0)
        sdc_check_nvme_status(&nvme, create(&nvme, opcode, 2, few(&nvme), 0xffffu << 16 | INTERRUPTS | CONTIGUOUS),
                              ONE_OF(SDC_NVME_SC_VECTOR_INVALID, SDC_NVME_SC_QID_INVALID), "creating a completion queue with vector 65535");
    sdc_check_nvme_close(&nvme);
}

static void create_sq_refused(struct sdc_check *check)
{
    const uint16_t *bad_id = ONE_OF(SDC_NVME_SC_QID_INVALID);
    const uint8_t opcode = SDC_NVME_ADMIN_CREATE_SQ;
    struct sdc_check_nvme nvme;
    sdc_check_nvme_open_io(&nvme, check);
    sdc_check_nvme_status(&nvme, create(&nvme, opcode, 0, few(&nvme), 1u << 16 | CONTIGUOUS), bad_id, "creating submission queue 0");
    sdc_check_nvme_status(&nvme, create(&nvme, opcode, 0xffff, few(&nvme), 1u << 16 | CONTIGUOUS), bad_id,
                          "creating submission queue 65535");
    sdc_check_nvme_status(&nvme, create(&nvme, opcode, 1, few(&nvme), 1u << 16 | CONTIGUOUS), bad_id,
                          "creating a submission queue that exists");
    sdc_check_nvme_status(&nvme, create(&nvme, opcode, 2, few(&nvme), 9u << 16 | CONTIGUOUS),
                          ONE_OF(SDC_NVME_SC_CQ_INVALID, SDC_NVME_SC_QID_INVALID),
                          "creating a submission queue whose completion queue there is not");
    sdc_check_nvme_status(&nvme, create(&nvme, opcode, 2, few(&nvme), CONTIGUOUS), ONE_OF(SDC_NVME_SC_QID_INVALID, SDC_NVME_SC_CQ_INVALID),
                          "creating a submission queue that completes to the admin queue");
    sdc_check_nvme_status(&nvme, create(&nvme, opcode, 2, 0, 1u << 16 | CONTIGUOUS),
                          ONE_OF(SDC_NVME_SC_QSIZE_INVALID, SDC_NVME_SC_QID_INVALID), "creating a submission queue of one entry");
    sdc_check_nvme_close(&nvme);
}

static void delete_queues(struct sdc_check *check)
{
    const uint16_t *bad_id = ONE_OF(SDC_NVME_SC_QID_INVALID);
    struct sdc_check_nvme nvme;
    struct sdc_error err = {0};
    sdc_check_nvme_open_io(&nvme, check);
    sdc_check_nvme_status(&nvme, sdc_check_nvme_command(&nvme, SDC_NVME_ADMIN_DELETE_SQ, 0, 0, 0), bad_id, "deleting the admin queue");
    sdc_check_nvme_status(&nvme, sdc_check_nvme_command(&nvme, SDC_NVME_ADMIN_DELETE_CQ, 0, 0, 0), bad_id, "deleting the admin queue");
    sdc_check_nvme_status(&nvme, sdc_check_nvme_command(&nvme, SDC_NVME_ADMIN_DELETE_SQ, 0, 9, 0), bad_id,
                          "deleting a queue that there is not");
    sdc_check_nvme_status(&nvme, sdc_check_nvme_command(&nvme, SDC_NVME_ADMIN_DELETE_CQ, 0, 1, 0), ONE_OF(SDC_NVME_SC_QUEUE_IN_USE),
                          "deleting a completion queue before its submission queue");
    sdc_check_must(check, sdc_driver_nvme_delete_ring(&nvme.controller, &nvme.io, &err), &err, "deleting a pair of queues");
    sdc_check_nvme_status(&nvme, sdc_check_nvme_command(&nvme, SDC_NVME_ADMIN_DELETE_SQ, 0, 1, 0), bad_id, "deleting a queue twice");
    sdc_driver_nvme_ring_restart(&nvme.io);
    sdc_check_must(check, sdc_driver_nvme_create_ring(&nvme.controller, &nvme.io, -1, &err), &err, "creating queues that were deleted");
    sdc_check_nvme_close(&nvme);
}

// --- features, logs, abort ---

static void features(struct sdc_check *check)
{
    struct sdc_check_nvme nvme;
    uint32_t dw0;
    sdc_check_nvme_open(&nvme, check);
    uint8_t set[64] = {SDC_NVME_ADMIN_SET_FEATURES};
    sdc_put32(set + SDC_NVME_SQE_CDW10, SDC_NVME_FEAT_QUEUES);
    sdc_check_that(check, sdc_check_nvme_admin(&nvme, set, &dw0) == 0, "Number of Queues can be set before there are any");
    uint8_t get[64] = {SDC_NVME_ADMIN_GET_FEATURES};
    sdc_put32(get + SDC_NVME_SQE_CDW10, SDC_NVME_FEAT_QUEUES);
    uint32_t again;
    sdc_check_that(check, sdc_check_nvme_admin(&nvme, get, &again) == 0 && again == dw0, "Number of Queues is got as it was allocated");
    sdc_put32(set + SDC_NVME_SQE_CDW11, UINT32_C(0xffff));
    sdc_check_nvme_status(&nvme, sdc_check_nvme_admin(&nvme, set, NULL), ONE_OF(SDC_NVME_SC_INVALID_FIELD, SDC_NVME_SC_SEQUENCE),
                          "Number of Queues with 65535 for 65536 queues");
    sdc_check_nvme_status(&nvme, sdc_check_nvme_command(&nvme, SDC_NVME_ADMIN_GET_FEATURES, 0, 0x70, 0), ONE_OF(SDC_NVME_SC_INVALID_FIELD),
                          "Get Features of a feature that is reserved");
    sdc_check_nvme_status(&nvme, sdc_check_nvme_command(&nvme, SDC_NVME_ADMIN_SET_FEATURES, 0, 0x70, 0), ONE_OF(SDC_NVME_SC_INVALID_FIELD),
                          "Set Features of a feature that is reserved");
    sdc_check_nvme_close(&nvme);
}

static void logs(struct sdc_check *check)
{
    struct sdc_check_nvme nvme;
    sdc_check_nvme_open(&nvme, check);
    const uint32_t dwords = (512 / 4 - 1) << 16;
    static const uint32_t pages[] = {SDC_NVME_LOG_SMART, SDC_NVME_LOG_FIRMWARE};
    for (size_t i = 0; i < SDC_COUNT(pages); i++)
        sdc_check_that(check, sdc_check_nvme_command(&nvme, SDC_NVME_ADMIN_GET_LOG_PAGE, SDC_NVME_NSID_ALL, dwords | pages[i], 0) == 0,
                       "log page 0x%02" PRIx32 " is mandatory", pages[i]);
    sdc_check_that(check,
                   sdc_check_nvme_command(&nvme, SDC_NVME_ADMIN_GET_LOG_PAGE, SDC_NVME_NSID_ALL, (64 / 4 - 1) << 16 | SDC_NVME_LOG_ERROR,
                                          0) == 0,
                   "the error log is mandatory");
    sdc_check_nvme_status(&nvme, sdc_check_nvme_command(&nvme, SDC_NVME_ADMIN_GET_LOG_PAGE, SDC_NVME_NSID_ALL, dwords | 0xbf, 0),
                          ONE_OF(SDC_NVME_SC_LOG_PAGE_INVALID, SDC_NVME_SC_INVALID_FIELD), "a log page that is reserved");
    sdc_check_nvme_close(&nvme);
}

static void abort_nothing(struct sdc_check *check)
{
    struct sdc_check_nvme nvme;
    uint32_t dw0;
    sdc_check_nvme_open_io(&nvme, check);
    uint8_t entry[64] = {SDC_NVME_ADMIN_ABORT};
    sdc_put32(entry + SDC_NVME_SQE_CDW10, UINT32_C(0x1234) << 16 | SDC_CHECK_NVME_QUEUE);
    uint16_t status = sdc_check_nvme_admin(&nvme, entry, &dw0);
    sdc_check_that(check, status == 0 && (dw0 & 1),
                   "Abort of a command that there is not succeeds, and bit 0 of DW0 says that nothing was aborted");
    sdc_check_nvme_close(&nvme);
}

static const struct sdc_check_test tests[] = {
    {"nvme-admin/identify-controller", BASE("5.17.2.1"), SDC_CHECK_NVME, identify_controller},
    {"nvme-admin/identify-namespaces", BASE("5.17.2.2"), SDC_CHECK_NVME, identify_namespaces},
    {"nvme-admin/identify-refused", BASE("5.17"), SDC_CHECK_NVME, identify_refused},
    {"nvme-admin/invalid-opcodes", BASE("3.3.3.2.1"), SDC_CHECK_NVME, invalid_opcodes},
    {"nvme-admin/create-cq-refused", BASE("5.4"), SDC_CHECK_NVME, create_cq_refused},
    {"nvme-admin/create-sq-refused", BASE("5.5"), SDC_CHECK_NVME, create_sq_refused},
    {"nvme-admin/delete-queues", BASE("5.6"), SDC_CHECK_NVME, delete_queues},
    {"nvme-admin/features", BASE("5.27"), SDC_CHECK_NVME, features},
    {"nvme-admin/logs", BASE("5.16"), SDC_CHECK_NVME, logs},
    {"nvme-admin/abort-nothing", BASE("5.1"), SDC_CHECK_NVME, abort_nothing},
};

const struct sdc_check_table sdc_check_nvme_admin_commands = {tests, SDC_COUNT(tests)};
