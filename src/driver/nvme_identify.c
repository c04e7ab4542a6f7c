// SPDX-License-Identifier: BSD-3-Clause
#include "driver/nvme_identify.h"

#include "base/bytes.h"
#include "base/check.h"
#include "wire/nvme.h"

#include <errno.h>
#include <inttypes.h>

// Offsets in the controller's structure (base 5.17.2.1).
enum {
    SERIAL = 4,
    MODEL = 24,
    FIRMWARE = 64,
    MDTS = 77,
    OACS = 256,
    OACS_DOORBELL_BUFFER = 1 << 8,
    ONCS = 520,
    ONCS_COMPARE = 1 << 0,
    ONCS_DSM = 1 << 2,
    ONCS_WRITE_ZEROES = 1 << 3,
    VWC = 525,
    SGLS = 536,
};

// In that of the NVM command set (nvm 4.1.5.3).
enum { WZSL = 1, DMRSL = 4 };

// In a namespace's (nvm 4.1.5.1).
enum {
    NSZE = 0,
    FLBAS = 26,
    DLFEAT = 33,
    DLFEAT_ZEROES_DEALLOCATE = 1 << 3,
    NSATTR = 99,
    NSATTR_READ_ONLY = 1 << 0,
    LBAF = 128,
    LBADS_MIN = 9,
    LBADS_MAX = 16, // 64 KiB
};

enum { TRANSFER_SHIFT_MAX = 40 };

int sdc_driver_nvme_identify_page(struct sdc_driver_nvme_controller *controller, uint32_t nsid, enum sdc_nvme_cns cns,
                                  uint8_t data[SDC_NVME_IDENTIFY_BYTES], uint16_t *status, struct sdc_error *err)
{
    struct sdc_driver_nvme_completion completion;
    uint8_t entry[SDC_NVME_SQE] = {SDC_NVME_ADMIN_IDENTIFY};
    sdc_put32(entry + SDC_NVME_SQE_NSID, nsid);
    sdc_put64(entry + SDC_NVME_SQE_PRP1, controller->page_iova);
    sdc_put32(entry + SDC_NVME_SQE_CDW10, cns);
    int ret = sdc_driver_nvme_admin(controller, entry, &completion, err);
    if (ret < 0)
        return ret;
    memcpy(data, controller->page, SDC_NVME_IDENTIFY_BYTES);
    *status = completion.status & 0x7ff;
    return 0;
}

// Text is padded with blanks. What could drive a terminal is left out.
static void take_text(char *to, const uint8_t *from, size_t size)
{
    size_t length = 0;
    for (size_t i = 0; i < size; i++) {
        to[i] = from[i] >= 0x20 && from[i] < 0x7f ? (char)from[i] : '?';
        if (from[i] != 0 && from[i] != ' ')
            length = i + 1;
    }
    to[length] = '\0';
}

// A size of 1 << exponent pages of the controller's; 0: no limit.
static uint64_t power_of_pages(const struct sdc_driver_nvme_controller *controller, uint8_t exponent)
{
    if (exponent == 0 || exponent + controller->page_shift > TRANSFER_SHIFT_MAX)
        return UINT64_MAX;
    return UINT64_C(1) << (exponent + controller->page_shift);
}

// The limits of single commands, which older controllers know nothing of.
static int identify_limits(struct sdc_driver_nvme_controller *controller, struct sdc_driver_nvme_identity *identity,
                           struct sdc_error *err)
{
    uint8_t data[SDC_NVME_IDENTIFY_BYTES];
    uint16_t status = 0;
    identity->dsm_max = UINT32_MAX;
    identity->write_zeroes_max = UINT64_MAX;
    int ret = sdc_driver_nvme_identify_page(controller, 0, SDC_NVME_CNS_CS_CONTROLLER, data, &status, err);
    if (ret < 0 || status != 0)
        return ret;
    identity->write_zeroes_max = power_of_pages(controller, data[WZSL]);
    if (sdc_get32(data + DMRSL) != 0)
        identity->dsm_max = sdc_get32(data + DMRSL);
    return 0;
}

int sdc_driver_nvme_identify(struct sdc_driver_nvme_controller *controller, struct sdc_driver_nvme_identity *identity,
                             struct sdc_error *err)
{
    uint8_t data[SDC_NVME_IDENTIFY_BYTES];
    uint16_t status = 0;
    int ret = sdc_driver_nvme_identify_page(controller, 0, SDC_NVME_CNS_CONTROLLER, data, &status, err);
    if (ret == 0 && status != 0)
        ret = sdc_error_set(err, -EIO, SDC_FAULT_PEER, "the controller does not say what it is: status 0x%03x", status);
    if (ret < 0)
        return ret;
    uint16_t optional = sdc_get16(data + ONCS);
    *identity = (struct sdc_driver_nvme_identity){
        .transfer_max = power_of_pages(controller, data[MDTS]),
        .compare = optional & ONCS_COMPARE,
        .dsm = optional & ONCS_DSM,
        .write_zeroes = optional & ONCS_WRITE_ZEROES,
        .write_cache = data[VWC] & 1,
        .sgl = sdc_get32(data + SGLS) & 3,
        .shadows = sdc_get16(data + OACS) & OACS_DOORBELL_BUFFER,
    };
    take_text(identity->serial, data + SERIAL, sizeof identity->serial - 1);
    take_text(identity->model, data + MODEL, sizeof identity->model - 1);
    take_text(identity->firmware, data + FIRMWARE, sizeof identity->firmware - 1);
    return identify_limits(controller, identity, err);
}

// --- namespaces ---

// Controllers of version 1.0 have no list; then it is the first.
static int find_active(struct sdc_driver_nvme_controller *controller, uint32_t *nsid, struct sdc_error *err)
{
    uint8_t data[SDC_NVME_IDENTIFY_BYTES];
    uint16_t status = 0;
    int ret = sdc_driver_nvme_identify_page(controller, 0, SDC_NVME_CNS_ACTIVE_NS, data, &status, err);
    if (ret < 0)
        return ret;
    *nsid = status == 0 ? sdc_get32(data) : 1;
    return *nsid != 0 ? 0 : sdc_error_set(err, -ENODEV, SDC_FAULT_PEER, "the controller has no active namespace");
}

static int take_format(const uint8_t *data, struct sdc_driver_nvme_namespace *found, struct sdc_error *err)
{
    // Bits 6:5 are the upper ones of the format's number (nvm 4.1.5.1).
    uint32_t number = (data[FLBAS] & 0xfu) | (data[FLBAS] >> 5 & 3u) << 4;
    uint32_t format = sdc_get32(data + LBAF + 4 * number), shift = format >> 16 & 0xff;
    uint64_t size;
    if (shift < LBADS_MIN || shift > LBADS_MAX || (format & 0xffff) != 0)
        return sdc_error_set(err, -ENOTSUP, SDC_FAULT_PEER,
                             "namespace %" PRIu32 " has blocks of 2 to the power of %" PRIu32 " bytes with %" PRIu32
                             " bytes of metadata; 512 to 65536 bytes without are supported",
                             found->nsid, shift, format & 0xffff);
    found->block_shift = shift;
    if (!sdc_mul(found->blocks, UINT64_C(1) << shift, &size))
        return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER, "namespace %" PRIu32 " has %" PRIu64 " blocks, which makes no sense",
                             found->nsid, found->blocks);
    return 0;
}

int sdc_driver_nvme_identify_namespace(struct sdc_driver_nvme_controller *controller, uint32_t nsid,
                                       struct sdc_driver_nvme_namespace *found, struct sdc_error *err)
{
    uint8_t data[SDC_NVME_IDENTIFY_BYTES];
    uint16_t status = 0;
    int ret = nsid == 0 ? find_active(controller, &nsid, err) : 0;
    if (ret == 0)
        ret = sdc_driver_nvme_identify_page(controller, nsid, SDC_NVME_CNS_NS, data, &status, err);
    if (ret < 0)
        return ret;
    *found = (struct sdc_driver_nvme_namespace){
        .nsid = nsid,
        .blocks = sdc_get64(data + NSZE),
        .read_only = data[NSATTR] & NSATTR_READ_ONLY,
        .zeroes_deallocate = data[DLFEAT] & DLFEAT_ZEROES_DEALLOCATE,
    };
    // One that is not active is all zeroes (base 5.17.2.2).
    if (status != 0 || found->blocks == 0)
        return sdc_error_set(err, -ENODEV, SDC_FAULT_PEER, "the controller has no active namespace %" PRIu32, nsid);
    return take_format(data, found, err);
}

int sdc_driver_nvme_ask_queues(struct sdc_driver_nvme_controller *controller, uint16_t wanted, uint16_t *granted,
                               struct sdc_error *err)
{
    struct sdc_driver_nvme_completion completion;
    uint8_t entry[SDC_NVME_SQE] = {SDC_NVME_ADMIN_SET_FEATURES};
    uint32_t less_one = wanted - UINT32_C(1);
    sdc_put32(entry + SDC_NVME_SQE_CDW10, SDC_NVME_FEAT_QUEUES);
    sdc_put32(entry + SDC_NVME_SQE_CDW11, less_one << 16 | less_one);
    int ret = sdc_driver_nvme_admin_must(controller, entry, "give us I/O queues", &completion, err);
    if (ret < 0)
        return ret;
    // Both numbers are less one. It may grant more than was asked for; those are no use.
    uint64_t least = sdc_min(completion.dw0 & 0xffff, completion.dw0 >> 16);
    *granted = (uint16_t)(sdc_min(least, less_one) + 1);
    return 0;
}
