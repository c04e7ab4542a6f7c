// SPDX-License-Identifier: BSD-3-Clause
#include "device/nvme/logs.h"

#include "base/bytes.h"
#include "base/check.h"

// Offsets in the SMART / Health page (base 5.16.1.3). Numbers from 32 on have 16 bytes.
enum {
    SMART_WARNING = 0,
    SMART_TEMPERATURE = 1,
    SMART_SPARE = 3,
    SMART_SPARE_THRESHOLD = 4,
    SMART_UNITS_READ = 32,
    SMART_UNITS_WRITTEN = 48,
    SMART_READ_COMMANDS = 64,
    SMART_WRITE_COMMANDS = 80,
    SMART_BUSY_MINUTES = 96,
    SMART_POWER_CYCLES = 112,
    SMART_POWER_ON_HOURS = 128,
    SMART_MEDIA_ERRORS = 160,
    SMART_ERROR_ENTRIES = 176,
    SMART_SIZE = 512,
    WARNING_TEMPERATURE = 1 << 1,
    UNIT = 512 * 1000, // bytes
};

// Offsets in an entry of the error log (base 5.16.1.2).
enum {
    ERROR_COUNT = 0,
    ERROR_SQ = 8,
    ERROR_CID = 10,
    ERROR_STATUS = 12,
    ERROR_PARAMETER = 14, // where in the command the fault is: not said
    ERROR_LBA = 16,
    ERROR_NSID = 24,
    ERROR_OPCODE = 31,
    ERROR_SIZE = 64,
};

enum {
    FIRMWARE_ACTIVE = 0, // slot 1
    FIRMWARE_REVISION = 8,
    FIRMWARE_SIZE = 512,
    ENTRIES_SIZE = 1024, // pages with a dword for each of 256 identifiers
    LOG_SUPPORTED = 1,
};
#define MINUTE_NS UINT64_C(60000000000)

// --- what is kept ---

void nvme_logs_init(struct nvme_logs *logs, uint64_t now_ns)
{
    *logs = (struct nvme_logs){.born_ns = now_ns};
    pthread_mutex_init(&logs->lock, NULL);
}

void nvme_logs_destroy(struct nvme_logs *logs)
{
    pthread_mutex_destroy(&logs->lock);
}

void nvme_logs_reset(struct nvme_logs *logs)
{
    pthread_mutex_lock(&logs->lock);
    memset(logs->errors, 0, sizeof logs->errors);
    logs->errors_count = 0;
    pthread_mutex_unlock(&logs->lock);
    memset(logs->changed, 0, sizeof logs->changed);
}

void nvme_logs_error(struct nvme_logs *logs, const struct nvme_error *error)
{
    pthread_mutex_lock(&logs->lock);
    struct nvme_error *entry = &logs->errors[logs->errors_count % NVME_ERROR_ENTRIES];
    *entry = *error;
    entry->count = ++logs->errors_count;
    pthread_mutex_unlock(&logs->lock);
}

// --- pages ---

static void supported(const struct nvme_logs_of *of, uint8_t *page);

static void errors(const struct nvme_logs_of *of, uint8_t *page)
{
    struct nvme_logs *logs = of->logs;

    pthread_mutex_lock(&logs->lock);
    uint64_t count = sdc_min(logs->errors_count, NVME_ERROR_ENTRIES);
    for (uint64_t i = 0; i < count; i++) { // the newest first
        const struct nvme_error *error = &logs->errors[(logs->errors_count - 1 - i) % NVME_ERROR_ENTRIES];
        uint8_t *entry = page + i * ERROR_SIZE;
        sdc_put64(entry + ERROR_COUNT, error->count);
        sdc_put16(entry + ERROR_SQ, error->sq);
        sdc_put16(entry + ERROR_CID, error->cid);
        sdc_put16(entry + ERROR_STATUS, (uint16_t)(error->status << 1));
        sdc_put16(entry + ERROR_PARAMETER, UINT16_MAX);
        sdc_put64(entry + ERROR_LBA, error->lba);
        sdc_put32(entry + ERROR_NSID, error->nsid);
        entry[ERROR_OPCODE] = error->opcode;
    }
    pthread_mutex_unlock(&logs->lock);
}

static uint64_t load(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static uint64_t units(uint64_t bytes)
{
    return bytes / UNIT + (bytes % UNIT != 0);
}

static void smart(const struct nvme_logs_of *of, uint8_t *page)
{
    uint64_t reads = 0, writes = 0, read_bytes = 0, written_bytes = 0, media_errors = 0, busy_ns = 0;

    for (unsigned i = 0; i < of->counters_count; i++) {
        const struct nvme_counters *counters = of->counters[i];
        reads += load(&counters->read_commands);
        writes += load(&counters->write_commands);
        read_bytes += load(&counters->read_bytes);
        written_bytes += load(&counters->written_bytes);
        media_errors += load(&counters->media_errors);
        busy_ns = sdc_max(busy_ns, load(&counters->busy_ns)); // loops are busy at the same time, mostly
    }
    page[SMART_WARNING] = nvme_features_hot_or_cold(of->features) ? WARNING_TEMPERATURE : 0;
    sdc_put16(page + SMART_TEMPERATURE, NVME_TEMPERATURE);
    page[SMART_SPARE] = 100; // percent: nothing wears out
    page[SMART_SPARE_THRESHOLD] = 10;
    sdc_put64(page + SMART_UNITS_READ, units(read_bytes));
    sdc_put64(page + SMART_UNITS_WRITTEN, units(written_bytes));
    sdc_put64(page + SMART_READ_COMMANDS, reads);
    sdc_put64(page + SMART_WRITE_COMMANDS, writes);
    sdc_put64(page + SMART_BUSY_MINUTES, busy_ns / MINUTE_NS);
    sdc_put64(page + SMART_POWER_CYCLES, 1); // the card's power is this process
    sdc_put64(page + SMART_POWER_ON_HOURS, (of->now_ns - of->logs->born_ns) / (60 * MINUTE_NS));
    sdc_put64(page + SMART_MEDIA_ERRORS, media_errors);
    pthread_mutex_lock(&of->logs->lock);
    sdc_put64(page + SMART_ERROR_ENTRIES, of->logs->errors_count);
    pthread_mutex_unlock(&of->logs->lock);
}

static void firmware(const struct nvme_logs_of *of, uint8_t *page)
{
    const char *revision = of->identity->firmware;

    page[FIRMWARE_ACTIVE] = 1;
    memset(page + FIRMWARE_REVISION, ' ', NVME_FIRMWARE);
    memcpy(page + FIRMWARE_REVISION, revision, sdc_min(strlen(revision), NVME_FIRMWARE));
}

// All fit: there are at most 256 of the 1024 that have room.
static void changed_namespaces(const struct nvme_logs_of *of, uint8_t *page)
{
    for (uint32_t nsid = 1; nsid <= NVME_NAMESPACES_MAX; nsid++) {
        if (!of->logs->changed[nsid])
            continue;
        sdc_put32(page, nsid);
        page += 4;
    }
}

static void effects(const struct nvme_logs_of *of, uint8_t *page)
{
    of->effects(of->identity, page);
}

static void features(const struct nvme_logs_of *of, uint8_t *page)
{
    (void)of;
    for (unsigned id = 0; id < 256; id++)
        sdc_put32(page + 4 * (size_t)id, nvme_feature_effects((uint8_t)id));
}

static void nothing(const struct nvme_logs_of *of, uint8_t *page)
{
    (void)of;
    (void)page;
}

struct log_row {
    uint8_t id;
    uint16_t size; // bytes
    void (*build)(const struct nvme_logs_of *of, uint8_t *page);
};

static const struct log_row rows[] = {
    {SDC_NVME_LOG_SUPPORTED, ENTRIES_SIZE, supported},
    {SDC_NVME_LOG_ERROR, NVME_ERROR_ENTRIES * ERROR_SIZE, errors},
    {SDC_NVME_LOG_SMART, SMART_SIZE, smart},
    {SDC_NVME_LOG_FIRMWARE, FIRMWARE_SIZE, firmware},
    {SDC_NVME_LOG_CHANGED_NS, 4096, changed_namespaces},
    {SDC_NVME_LOG_EFFECTS, 4096, effects},
    {SDC_NVME_LOG_FEATURES, ENTRIES_SIZE, features},
    {SDC_NVME_LOG_MI, 4096, nothing}, // there are none,
};
_Static_assert(NVME_ERROR_ENTRIES * ERROR_SIZE <= NVME_LOG_BYTES, "every page has room in one");

static void supported(const struct nvme_logs_of *of, uint8_t *page)
{
    (void)of;
    for (size_t i = 0; i < SDC_COUNT(rows); i++)
        sdc_put32(page + 4 * (size_t)rows[i].id, LOG_SUPPORTED);
}

// --- the command ---

void nvme_log_parse(const uint8_t sqe[SDC_NVME_SQE], struct nvme_log_request *request)
{
    uint32_t cdw10 = sdc_get32(sqe + SDC_NVME_SQE_CDW10);
    uint32_t cdw11 = sdc_get32(sqe + SDC_NVME_SQE_CDW11);
    uint32_t cdw14 = sdc_get32(sqe + SDC_NVME_SQE_CDW14);

    *request = (struct nvme_log_request){
        .offset = sdc_get64(sqe + SDC_NVME_SQE_CDW12),
        .size = 4 * ((uint64_t)((cdw11 & 0xffff) << 16 | cdw10 >> 16) + 1),
        .nsid = sdc_get32(sqe + SDC_NVME_SQE_NSID),
        .id = (uint8_t)cdw10,
        .csi = (uint8_t)(cdw14 >> 24),
        .retain = cdw10 >> 15 & 1,
        .by_index = cdw14 >> 23 & 1,
    };
}

int nvme_log_build(const struct nvme_logs_of *of, const struct nvme_log_request *request, uint8_t page[NVME_LOG_BYTES], uint32_t *size)
{
    const struct log_row *row = NULL;

    *size = 0;
    for (size_t i = 0; i < SDC_COUNT(rows); i++)
        if (rows[i].id == request->id)
            row = &rows[i];
    if (!row)
        return SDC_NVME_SC_LOG_PAGE_INVALID;
    // All pages are about the controller: none is of one namespace, of another command set, or has entries to be counted by.
    if ((request->nsid != 0 && request->nsid != SDC_NVME_NSID_ALL) || request->by_index ||
        (request->id == SDC_NVME_LOG_EFFECTS && request->csi != 0))
        return SDC_NVME_SC_INVALID_FIELD;
    if (request->offset % 4 != 0 || request->offset > row->size || request->size > UINT32_C(4096) << NVME_MDTS)
        return SDC_NVME_SC_INVALID_FIELD;
    memset(page, 0, NVME_LOG_BYTES);
    row->build(of, page);
    *size = (uint32_t)sdc_min(request->size, row->size - request->offset);
    memmove(page, page + request->offset, *size);
    return SDC_NVME_SC_SUCCESS;
}

void nvme_log_was_read(struct nvme_logs *logs, uint8_t id)
{
    if (id == SDC_NVME_LOG_CHANGED_NS)
        memset(logs->changed, 0, sizeof logs->changed);
}
