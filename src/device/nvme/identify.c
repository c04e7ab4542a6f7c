// SPDX-License-Identifier: BSD-3-Clause
#include "device/nvme/identify.h"

#include "base/bytes.h"
#include "base/check.h"

// Offsets in the controller's structure (base 5.17.2.1).
enum {
    CTRL_VID = 0,
    CTRL_SSVID = 2,
    CTRL_SN = 4,
    CTRL_MN = 24,
    CTRL_FR = 64,
    CTRL_RAB = 72,
    CTRL_MDTS = 77,
    CTRL_CNTLID = 78,
    CTRL_VER = 80,
    CTRL_OAES = 92,
    CTRL_CNTRLTYPE = 111,
    CTRL_OACS = 256,
    CTRL_ACL = 258,
    CTRL_AERL = 259,
    CTRL_FRMW = 260,
    CTRL_LPA = 261,
    CTRL_ELPE = 262,
    CTRL_WCTEMP = 266,
    CTRL_CCTEMP = 268,
    CTRL_KAS = 320,
    CTRL_SQES = 512,
    CTRL_CQES = 513,
    CTRL_NN = 516,
    CTRL_ONCS = 520,
    CTRL_VWC = 525,
    CTRL_SGLS = 536,
    CTRL_SUBNQN = 768,
};

// Values there.
enum {
    RAB = 6,                  // 64 commands at a time
    CNTRLTYPE_IO = 1,
    OACS_DOORBELLS = 1 << 8,
    FRMW_ONE_READ_ONLY = 1 | 1 << 1, // slot 1 cannot be written to, and there is no other
    LPA_EFFECTS = 1 << 1,     // Commands Supported and Effects
    LPA_EXTENDED = 1 << 2,    // lengths of 32 bits, and offsets
    LPA_MISC = 1 << 5,        // Supported Log Pages, Feature Identifiers and MI Commands, and scopes in the log of effects
    ONCS_COMPARE = 1 << 0,
    ONCS_DSM = 1 << 2,
    ONCS_WRITE_ZEROES = 1 << 3,
    ONCS_SELECT = 1 << 4,     // SEL in Get Features, SV in Set Features
    ONCS_TIMESTAMP = 1 << 6,
    VWC_PRESENT = 1,
    VWC_FLUSH_ALL = 3 << 1,   // Flush of all namespaces at once
    SGLS_ANY = 1,             // of any alignment and length
    SGLS_BIT_BUCKET = 1 << 16,
};

// Offsets in a namespace's structure (nvm 4.1.5.1).
enum {
    NS_NSZE = 0,
    NS_NCAP = 8,
    NS_NUSE = 16,
    NS_NSFEAT = 24,
    NS_DLFEAT = 33,
    NS_NPWG = 64,
    NS_NPWA = 66,
    NS_NPDG = 68,
    NS_NPDA = 70,
    NS_NOWS = 72,
    NS_NSATTR = 99,
    NS_NGUID = 104,
    NS_EUI64 = 120,
    NS_LBAF0 = 128,
};
enum {
    NSFEAT_OPTIMAL = 1 << 4,     // NPWG to NOWS say something
    DLFEAT_ZEROES = 1,           // what was deallocated reads as zeroes
    DLFEAT_WRITE_ZEROES = 1 << 3 // and Write Zeroes can do it too
};

// Namespaces as they are whatever their command set (base 5.17.2.8).
enum { INDEPENDENT_NSATTR = 8, INDEPENDENT_NSTAT = 14, NSTAT_READY = 1 };

// The NVM command set's part of a controller (nvm 4.1.5.4).
enum { NVM_WZSL = 1 };

enum { CSI_NVM = 0 };

// ASCII, padded with spaces and without an end (base 1.4.2).
static void put_text(uint8_t *to, const char *text, size_t size)
{
    size_t length = strlen(text);

    memset(to, ' ', size);
    memcpy(to, text, sdc_min(length, size));
}

// --- the controller ---

// The volatile write cache is said to be there though today's namespaces may all have none: drivers read this once and would never flush a
// namespace that comes later.
static int controller(const struct nvme_identity *identity, uint8_t *page)
{
    sdc_put16(page + CTRL_VID, identity->vendor);
    sdc_put16(page + CTRL_SSVID, identity->subsystem_vendor);
    put_text(page + CTRL_SN, identity->serial, NVME_SERIAL);
    put_text(page + CTRL_MN, identity->model, NVME_MODEL);
    put_text(page + CTRL_FR, identity->firmware, NVME_FIRMWARE);
    page[CTRL_RAB] = RAB;
    page[CTRL_MDTS] = NVME_MDTS;
    sdc_put16(page + CTRL_CNTLID, identity->controller);
    sdc_put32(page + CTRL_VER, SDC_NVME_VERSION_2_0);
    sdc_put32(page + CTRL_OAES, NVME_OAES);
    page[CTRL_CNTRLTYPE] = CNTRLTYPE_IO;
    sdc_put16(page + CTRL_OACS, identity->shadow_doorbells ? OACS_DOORBELLS : 0);
    page[CTRL_ACL] = NVME_ABORT_LIMIT - 1;
    page[CTRL_AERL] = NVME_ASYNC_LIMIT - 1;
    page[CTRL_FRMW] = FRMW_ONE_READ_ONLY;
    page[CTRL_LPA] = LPA_EFFECTS | LPA_EXTENDED | LPA_MISC;
    page[CTRL_ELPE] = NVME_ERROR_ENTRIES - 1;
    sdc_put16(page + CTRL_WCTEMP, NVME_TEMPERATURE_WARNING);
    sdc_put16(page + CTRL_CCTEMP, NVME_TEMPERATURE_CRITICAL);
    sdc_put16(page + CTRL_KAS, NVME_KEEP_ALIVE_MS / 100);
    page[CTRL_SQES] = SDC_NVME_SQES << 4 | SDC_NVME_SQES;
    page[CTRL_CQES] = SDC_NVME_CQES << 4 | SDC_NVME_CQES;
    sdc_put32(page + CTRL_NN, NVME_NAMESPACES_MAX);
    sdc_put16(page + CTRL_ONCS, ONCS_COMPARE | ONCS_DSM | ONCS_WRITE_ZEROES | ONCS_SELECT | ONCS_TIMESTAMP);
    page[CTRL_VWC] = VWC_PRESENT | VWC_FLUSH_ALL;
    sdc_put32(page + CTRL_SGLS, SGLS_ANY | SGLS_BIT_BUCKET);
    memcpy(page + CTRL_SUBNQN, identity->nqn, strlen(identity->nqn));
    return SDC_NVME_SC_SUCCESS;
}

// --- namespaces ---

static uint16_t blocks_less_one(const struct nvme_namespace *namespace, uint32_t bytes)
{
    uint32_t blocks = bytes >> namespace->shift;

    return blocks == 0 ? 0 : (uint16_t)sdc_min(blocks - 1, UINT16_MAX);
}

static void namespace_structure(const struct nvme_namespace *namespace, uint8_t *page)
{
    const struct sdc_block_info *info = &namespace->info;
    uint64_t blocks = nvme_namespace_blocks(namespace);
    uint16_t granule = blocks_less_one(namespace, info->physical_block_size);
    uint16_t hole = blocks_less_one(namespace, info->discard_granularity);

    sdc_put64(page + NS_NSZE, blocks);
    sdc_put64(page + NS_NCAP, blocks);
    sdc_put64(page + NS_NUSE, blocks);
    page[NS_NSFEAT] = NSFEAT_OPTIMAL;
    page[NS_DLFEAT] = (uint8_t)(info->read_only ? 0 : DLFEAT_WRITE_ZEROES | (info->discard_zeroes ? DLFEAT_ZEROES : 0));
    sdc_put16(page + NS_NPWG, granule);
    sdc_put16(page + NS_NPWA, granule);
    sdc_put16(page + NS_NPDG, hole);
    sdc_put16(page + NS_NPDA, hole);
    // What is not known is what is known to be good.
    sdc_put16(page + NS_NOWS, info->optimal_io_size ? blocks_less_one(namespace, info->optimal_io_size) : granule);
    page[NS_NSATTR] = info->read_only ? NVME_NS_WRITE_PROTECTED : 0;
    memcpy(page + NS_NGUID, namespace->nguid, sizeof namespace->nguid);
    memcpy(page + NS_EUI64, namespace->eui64, sizeof namespace->eui64);
    // One format, the one it has: there is no Format command. Two bytes of metadata size, then the exponent of the block size.
    page[NS_LBAF0 + 2] = (uint8_t)namespace->shift;
}

static uint8_t *descriptor(uint8_t *at, uint8_t type, const void *value, uint8_t size)
{
    at[0] = type;
    at[1] = size;
    memcpy(at + 4, value, size);
    return at + 4 + size;
}

// Namespace Identification Descriptors (base 5.17.2.4). Behind the last one there are zeroes.
static void descriptors(const struct nvme_namespace *namespace, uint8_t *page)
{
    static const uint8_t command_set = CSI_NVM;

    page = descriptor(page, 1, namespace->eui64, sizeof namespace->eui64);
    page = descriptor(page, 2, namespace->nguid, sizeof namespace->nguid);
    page = descriptor(page, 3, namespace->uuid, sizeof namespace->uuid);
    descriptor(page, 4, &command_set, sizeof command_set);
}

static void independent(const struct nvme_namespace *namespace, uint8_t *page)
{
    page[INDEPENDENT_NSATTR] = namespace->info.read_only ? NVME_NS_WRITE_PROTECTED : 0;
    page[INDEPENDENT_NSTAT] = NSTAT_READY;
}

// The NVM command set's part of a namespace (nvm 4.1.5.3) is about protection information: there is none.
static void nvm_namespace(const struct nvme_namespace *namespace, uint8_t *page)
{
    (void)namespace;
    (void)page;
}

// NSIDs in use above the one given, in order; zeroes behind them.
static int list(const struct nvme_namespaces *namespaces, uint32_t above, uint8_t *page)
{
    if (above >= SDC_NVME_NSID_ALL - 1)
        return SDC_NVME_SC_INVALID_NS;
    for (uint32_t nsid = 1; nsid <= NVME_NAMESPACES_MAX; nsid++) {
        if (nsid <= above || !namespaces->by_id[nsid])
            continue;
        sdc_put32(page, nsid);
        page += 4;
    }
    return SDC_NVME_SC_SUCCESS;
}

// A list of the only controller, if it is not below the first one wanted: how many, then their ids.
static void controllers(const struct nvme_identity *identity, uint16_t first, uint8_t *page)
{
    if (identity->controller < first)
        return;
    sdc_put16(page, 1);
    sdc_put16(page + 2, identity->controller);
}

// I/O command sets (base 5.17.2.21): one combination, and in it one set. It is about this controller or the asking one (FFFFh).
static int command_sets(const struct nvme_identity *identity, uint16_t asked, uint8_t *page)
{
    if (asked != identity->controller && asked != UINT16_MAX)
        return SDC_NVME_SC_INVALID_FIELD;
    sdc_put64(page, 1 << CSI_NVM);
    return SDC_NVME_SC_SUCCESS;
}

// --- what is there ---

// What the NSID of a command has to be, beside valid.
enum subject {
    NOT_A_NAMESPACE,  // it does not count
    ANY_NAMESPACE,    // if it is not in use the answer is zeroes
    ACTIVE_NAMESPACE, // it has to be in use
};

struct identify_row {
    uint8_t cns;
    bool by_command_set; // CSI says of which command set
    enum subject subject;
    void (*of_namespace)(const struct nvme_namespace *namespace, uint8_t *page);
};

static const struct identify_row rows[] = {
    {SDC_NVME_CNS_NS, false, ANY_NAMESPACE, namespace_structure},
    {SDC_NVME_CNS_CONTROLLER, false, NOT_A_NAMESPACE, NULL},
    {SDC_NVME_CNS_ACTIVE_NS, false, NOT_A_NAMESPACE, NULL},
    {SDC_NVME_CNS_NS_DESCRIPTORS, false, ACTIVE_NAMESPACE, descriptors},
    {SDC_NVME_CNS_CS_NS, true, ANY_NAMESPACE, nvm_namespace},
    {SDC_NVME_CNS_CS_CONTROLLER, true, NOT_A_NAMESPACE, NULL},
    {SDC_NVME_CNS_CS_ACTIVE_NS, true, NOT_A_NAMESPACE, NULL},
    {SDC_NVME_CNS_NS_INDEPENDENT, false, ANY_NAMESPACE, independent},
    {SDC_NVME_CNS_ALLOCATED_NS, false, NOT_A_NAMESPACE, NULL},
    {SDC_NVME_CNS_ALLOCATED, false, ANY_NAMESPACE, namespace_structure},
    {SDC_NVME_CNS_NS_CONTROLLERS, false, ANY_NAMESPACE, NULL},
    {SDC_NVME_CNS_CONTROLLERS, false, NOT_A_NAMESPACE, NULL},
    {SDC_NVME_CNS_COMMAND_SETS, false, NOT_A_NAMESPACE, NULL},
};

static int build(const struct nvme_identity *identity, const struct nvme_namespaces *namespaces,
                 const struct nvme_identify_request *request, uint8_t *page)
{
    switch (request->cns) {
    case SDC_NVME_CNS_CONTROLLER:
        return controller(identity, page);
    case SDC_NVME_CNS_CS_CONTROLLER:
        page[NVM_WZSL] = NVME_ZEROES_LIMIT;
        return SDC_NVME_SC_SUCCESS;
    case SDC_NVME_CNS_ACTIVE_NS:
    case SDC_NVME_CNS_CS_ACTIVE_NS:
    case SDC_NVME_CNS_ALLOCATED_NS:
        return list(namespaces, request->nsid, page);
    case SDC_NVME_CNS_NS_CONTROLLERS:
    case SDC_NVME_CNS_CONTROLLERS:
        controllers(identity, request->controller, page);
        return SDC_NVME_SC_SUCCESS;
    case SDC_NVME_CNS_COMMAND_SETS:
        return command_sets(identity, request->controller, page);
    default:
        return SDC_NVME_SC_INVALID_FIELD;
    }
}

int nvme_identify_build(const struct nvme_identity *identity, const struct nvme_namespaces *namespaces,
                        const struct nvme_identify_request *request, uint8_t page[SDC_NVME_IDENTIFY_BYTES])
{
    const struct nvme_namespace *namespace = nvme_namespace_find(namespaces, request->nsid);
    const struct identify_row *row = NULL;

    memset(page, 0, SDC_NVME_IDENTIFY_BYTES);
    for (size_t i = 0; i < SDC_COUNT(rows); i++)
        if (rows[i].cns == request->cns)
            row = &rows[i];
    if (!row || (row->by_command_set && request->csi != CSI_NVM))
        return SDC_NVME_SC_INVALID_FIELD;
    if (row->subject != NOT_A_NAMESPACE && !nvme_nsid_valid(request->nsid))
        return SDC_NVME_SC_INVALID_NS;
    if (row->subject != NOT_A_NAMESPACE && !namespace)
        return row->subject == ACTIVE_NAMESPACE ? SDC_NVME_SC_INVALID_FIELD : SDC_NVME_SC_SUCCESS;
    if (!row->of_namespace)
        return build(identity, namespaces, request, page);
    row->of_namespace(namespace, page);
    return SDC_NVME_SC_SUCCESS;
}
