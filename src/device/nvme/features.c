// SPDX-License-Identifier: BSD-3-Clause
#include "device/nvme/features.h"

#include "base/bytes.h"
#include "base/check.h"
#include "device/nvme/identify.h"
#include "wire/nvme.h"

enum {
    ARBITRATION_NO_LIMIT = 7,
    POWER_STATE = 0x1f,        // bits of the state; there is state 0
    THRESHOLD = 0xffff,        // temperature threshold: kelvins,
    THRESHOLD_SENSOR = 16,     // shifts of: which sensor (4 bits; 0: all together; 15: every one),
    THRESHOLD_KIND = 20,       // and 0: over, 1: under (2 bits)
    THRESHOLD_EVERY = 15,
    RECOVERY_TIME = 0xffff,    // error recovery: TLER,
    RECOVERY_DULBE = 1 << 16,  // and errors for deallocated blocks, which there are none of
    CACHE_ENABLED = 1,
    VECTOR = 0xffff,
    VECTOR_EAGER = 1 << 16,
    EVENTS_SMART = 0xff,       // one for each critical warning
    NO_QUEUES = 0xffff,
    TIMESTAMP_SIZE = 8,
    TIMESTAMP_BY_DRIVER = 1 << 1, // origin, in byte 6
    BEHAVIOR_SIZE = 512,
};
#define TIMESTAMP_MASK ((UINT64_C(1) << 48) - 1) // milliseconds
#define NS_PER_MS UINT64_C(1000000)

enum {
    CAPABLE_NS = 2,     // Get Features' answer for capabilities
    CAPABLE_CHANGE = 4,
};

typedef uint32_t get_value(const struct nvme_features_of *of, const struct nvme_feature_request *request);

// How a feature is got, what it is at first, and how it is set.
struct feature_row {
    uint8_t id;
    bool of_namespace;
    uint32_t data; // bytes
    get_value *get, *preset;
    int (*set)(const struct nvme_features_of *of, const struct nvme_feature_request *request, const uint8_t *data);
    void (*get_data)(const struct nvme_features_of *of, bool preset, uint8_t *data);
};

static uint32_t zero(const struct nvme_features_of *of, const struct nvme_feature_request *request)
{
    (void)of;
    (void)request;
    return 0;
}

// --- arbitration, power, atomicity ---

static uint32_t get_arbitration(const struct nvme_features_of *of, const struct nvme_feature_request *request)
{
    (void)request;
    return atomic_load_explicit(&of->features->arbitration, memory_order_relaxed);
}

static uint32_t preset_arbitration(const struct nvme_features_of *of, const struct nvme_feature_request *request)
{
    (void)of;
    (void)request;
    return ARBITRATION_NO_LIMIT;
}

// Weights count for nothing in round robin, and are kept (base 5.27.1.1).
static int set_arbitration(const struct nvme_features_of *of, const struct nvme_feature_request *request, const uint8_t *data)
{
    (void)data;
    atomic_store_explicit(&of->features->arbitration, request->value & ~UINT32_C(0xf8), memory_order_relaxed);
    return SDC_NVME_SC_SUCCESS;
}

static uint32_t get_power(const struct nvme_features_of *of, const struct nvme_feature_request *request)
{
    (void)request;
    return of->features->power;
}

static int set_power(const struct nvme_features_of *of, const struct nvme_feature_request *request, const uint8_t *data)
{
    (void)data;
    if (request->value & POWER_STATE)
        return SDC_NVME_SC_INVALID_FIELD;
    of->features->power = request->value & 0xe0; // the hint at the work to come
    return SDC_NVME_SC_SUCCESS;
}

static uint32_t get_atomicity(const struct nvme_features_of *of, const struct nvme_feature_request *request)
{
    (void)request;
    return of->features->atomicity;
}

static int set_atomicity(const struct nvme_features_of *of, const struct nvme_feature_request *request, const uint8_t *data)
{
    (void)data;
    of->features->atomicity = request->value & 1;
    return SDC_NVME_SC_SUCCESS;
}

// --- temperature thresholds: of the temperature of all, the only one there is ---

static bool threshold_exists(uint32_t value)
{
    uint32_t sensor = value >> THRESHOLD_SENSOR & 15;

    return (sensor == 0 || sensor == THRESHOLD_EVERY) && (value >> THRESHOLD_KIND & 3) < 2;
}

static uint32_t get_threshold(const struct nvme_features_of *of, const struct nvme_feature_request *request)
{
    return request->value >> THRESHOLD_KIND & 3 ? of->features->cold : of->features->hot;
}

static uint32_t preset_threshold(const struct nvme_features_of *of, const struct nvme_feature_request *request)
{
    (void)of;
    return request->value >> THRESHOLD_KIND & 3 ? 0 : NVME_TEMPERATURE_WARNING;
}

static int set_threshold(const struct nvme_features_of *of, const struct nvme_feature_request *request, const uint8_t *data)
{
    (void)data;
    if (!threshold_exists(request->value))
        return SDC_NVME_SC_INVALID_FIELD;
    *(request->value >> THRESHOLD_KIND & 3 ? &of->features->cold : &of->features->hot) = request->value & THRESHOLD;
    return SDC_NVME_SC_SUCCESS;
}

bool nvme_features_hot_or_cold(const struct nvme_features *features)
{
    return NVME_TEMPERATURE >= features->hot || NVME_TEMPERATURE <= features->cold;
}

// --- error recovery: of a namespace, or of all ---

static uint32_t get_recovery(const struct nvme_features_of *of, const struct nvme_feature_request *request)
{
    return nvme_namespace_find(of->namespaces, request->nsid)->error_recovery;
}

static int set_recovery(const struct nvme_features_of *of, const struct nvme_feature_request *request, const uint8_t *data)
{
    (void)data;
    if (request->value & RECOVERY_DULBE)
        return SDC_NVME_SC_INVALID_FIELD;
    for (uint32_t nsid = 1; nsid <= NVME_NAMESPACES_MAX; nsid++) {
        struct nvme_namespace *namespace = of->namespaces->by_id[nsid];
        if (namespace && (request->nsid == nsid || request->nsid == SDC_NVME_NSID_ALL))
            namespace->error_recovery = request->value & RECOVERY_TIME;
    }
    return SDC_NVME_SC_SUCCESS;
}

// --- the volatile write cache ---

static uint32_t get_cache(const struct nvme_features_of *of, const struct nvme_feature_request *request)
{
    (void)request;
    return atomic_load_explicit(&of->features->write_cache, memory_order_relaxed) ? CACHE_ENABLED : 0;
}

static uint32_t preset_cache(const struct nvme_features_of *of, const struct nvme_feature_request *request)
{
    (void)request;
    return of->write_cache ? CACHE_ENABLED : 0;
}

static int set_cache(const struct nvme_features_of *of, const struct nvme_feature_request *request, const uint8_t *data)
{
    (void)data;
    atomic_store_explicit(&of->features->write_cache, request->value & CACHE_ENABLED, memory_order_relaxed);
    return SDC_NVME_SC_SUCCESS;
}

// --- number of queues: all that there can be, whatever is asked for ---

static uint32_t get_queues(const struct nvme_features_of *of, const struct nvme_feature_request *request)
{
    (void)request;
    return (of->queue_pairs - 1) << 16 | (of->queue_pairs - 1);
}

static int set_queues(const struct nvme_features_of *of, const struct nvme_feature_request *request, const uint8_t *data)
{
    (void)data;
    if (of->queues_exist)
        return SDC_NVME_SC_SEQUENCE;
    if ((request->value & 0xffff) == NO_QUEUES || request->value >> 16 == NO_QUEUES)
        return SDC_NVME_SC_INVALID_FIELD;
    return SDC_NVME_SC_SUCCESS;
}

// --- interrupts ---

static uint32_t get_coalescing(const struct nvme_features_of *of, const struct nvme_feature_request *request)
{
    (void)request;
    return atomic_load_explicit(&of->features->coalescing, memory_order_relaxed);
}

static int set_coalescing(const struct nvme_features_of *of, const struct nvme_feature_request *request, const uint8_t *data)
{
    (void)data;
    atomic_store_explicit(&of->features->coalescing, request->value & 0xffff, memory_order_relaxed);
    return SDC_NVME_SC_SUCCESS;
}

static uint32_t get_vector(const struct nvme_features_of *of, const struct nvme_feature_request *request)
{
    uint32_t vector = request->value & VECTOR;

    return vector | (nvme_features_coalesce(of->features, vector) ? 0 : VECTOR_EAGER);
}

static uint32_t preset_vector(const struct nvme_features_of *of, const struct nvme_feature_request *request)
{
    (void)of;
    return request->value & VECTOR;
}

static int set_vector(const struct nvme_features_of *of, const struct nvme_feature_request *request, const uint8_t *data)
{
    uint32_t vector = request->value & VECTOR;
    uint64_t bit = UINT64_C(1) << vector % 64;

    (void)data;
    if (vector >= of->vectors)
        return SDC_NVME_SC_INVALID_FIELD;
    if (request->value & VECTOR_EAGER)
        atomic_fetch_or_explicit(&of->features->eager[vector / 64], bit, memory_order_relaxed);
    else
        atomic_fetch_and_explicit(&of->features->eager[vector / 64], ~bit, memory_order_relaxed);
    return SDC_NVME_SC_SUCCESS;
}

// --- asynchronous events ---

static uint32_t get_events(const struct nvme_features_of *of, const struct nvme_feature_request *request)
{
    (void)request;
    return of->features->events;
}

static int set_events(const struct nvme_features_of *of, const struct nvme_feature_request *request, const uint8_t *data)
{
    (void)data;
    if (request->value & ~(uint32_t)(EVENTS_SMART | NVME_OAES))
        return SDC_NVME_SC_INVALID_FIELD;
    of->features->events = request->value;
    return SDC_NVME_SC_SUCCESS;
}

// --- timestamp: what the driver said, and the time since (base 5.27.1.11) ---

static void get_timestamp(const struct nvme_features_of *of, bool preset, uint8_t *data)
{
    const struct nvme_features *features = of->features;
    uint64_t elapsed_ms = (of->now_ns - features->timestamp_ns) / NS_PER_MS;

    sdc_put64(data, preset ? 0 : (features->timestamp_ms + elapsed_ms) & TIMESTAMP_MASK);
    data[6] = features->timestamp_set && !preset ? TIMESTAMP_BY_DRIVER : 0;
}

static int set_timestamp(const struct nvme_features_of *of, const struct nvme_feature_request *request, const uint8_t *data)
{
    (void)request;
    of->features->timestamp_ms = sdc_get64(data) & TIMESTAMP_MASK;
    of->features->timestamp_ns = of->now_ns;
    of->features->timestamp_set = true;
    return SDC_NVME_SC_SUCCESS;
}

// --- keep alive ---

static uint32_t get_keep_alive(const struct nvme_features_of *of, const struct nvme_feature_request *request)
{
    (void)request;
    return of->features->keep_alive_ms;
}

static int set_keep_alive(const struct nvme_features_of *of, const struct nvme_feature_request *request, const uint8_t *data)
{
    uint64_t rounded = ((uint64_t)request->value + NVME_KEEP_ALIVE_MS - 1) / NVME_KEEP_ALIVE_MS * NVME_KEEP_ALIVE_MS;

    (void)data;
    if (rounded > UINT32_MAX)
        return SDC_NVME_SC_KEEP_ALIVE_INVALID;
    of->features->keep_alive_ms = (uint32_t)rounded;
    return SDC_NVME_SC_SUCCESS;
}

// --- host behavior: bytes, one for each thing that the driver knows of (base 5.27.1.18) ---

static void get_behavior(const struct nvme_features_of *of, bool preset, uint8_t *data)
{
    data[0] = preset ? 0 : of->features->host_behavior;
}

// Extended telemetry and LBA formats are not there: nobody may count on them.
static int set_behavior(const struct nvme_features_of *of, const struct nvme_feature_request *request, const uint8_t *data)
{
    (void)request;
    if (data[0] > 1 || data[1] != 0 || data[2] != 0)
        return SDC_NVME_SC_INVALID_FIELD;
    of->features->host_behavior = data[0];
    return SDC_NVME_SC_SUCCESS;
}

// --- the table ---

static const struct feature_row rows[] = {
    {SDC_NVME_FEAT_ARBITRATION, false, 0, get_arbitration, preset_arbitration, set_arbitration, NULL},
    {SDC_NVME_FEAT_POWER, false, 0, get_power, zero, set_power, NULL},
    {SDC_NVME_FEAT_TEMPERATURE, false, 0, get_threshold, preset_threshold, set_threshold, NULL},
    {SDC_NVME_FEAT_ERROR_RECOVERY, true, 0, get_recovery, zero, set_recovery, NULL},
    {SDC_NVME_FEAT_WRITE_CACHE, false, 0, get_cache, preset_cache, set_cache, NULL},
    {SDC_NVME_FEAT_QUEUES, false, 0, get_queues, get_queues, set_queues, NULL},
    {SDC_NVME_FEAT_COALESCING, false, 0, get_coalescing, zero, set_coalescing, NULL},
    {SDC_NVME_FEAT_VECTOR, false, 0, get_vector, preset_vector, set_vector, NULL},
    {SDC_NVME_FEAT_ATOMICITY, false, 0, get_atomicity, zero, set_atomicity, NULL},
    {SDC_NVME_FEAT_ASYNC_EVENTS, false, 0, get_events, zero, set_events, NULL},
    {SDC_NVME_FEAT_TIMESTAMP, false, TIMESTAMP_SIZE, zero, zero, set_timestamp, get_timestamp},
    {SDC_NVME_FEAT_KEEP_ALIVE, false, 0, get_keep_alive, zero, set_keep_alive, NULL},
    {SDC_NVME_FEAT_HOST_BEHAVIOR, false, BEHAVIOR_SIZE, zero, zero, set_behavior, get_behavior},
};

static const struct feature_row *find(uint8_t id)
{
    for (size_t i = 0; i < SDC_COUNT(rows); i++)
        if (rows[i].id == id)
            return &rows[i];
    return NULL;
}

uint32_t nvme_feature_data(uint8_t id)
{
    const struct feature_row *row = find(id);

    return row ? row->data : 0;
}

uint32_t nvme_feature_effects(uint8_t id)
{
    const struct feature_row *row = find(id);

    return !row ? 0 : NVME_EFFECT_SUPPORTED | (row->of_namespace ? NVME_EFFECT_NS_SCOPE : NVME_EFFECT_CONTROLLER_SCOPE);
}

void nvme_features_reset(const struct nvme_features_of *of)
{
    struct nvme_features *features = of->features;

    atomic_store_explicit(&features->arbitration, ARBITRATION_NO_LIMIT, memory_order_relaxed);
    atomic_store_explicit(&features->coalescing, 0, memory_order_relaxed);
    for (size_t i = 0; i < SDC_COUNT(features->eager); i++)
        atomic_store_explicit(&features->eager[i], 0, memory_order_relaxed);
    atomic_store_explicit(&features->write_cache, of->write_cache, memory_order_relaxed);
    features->power = features->cold = features->atomicity = features->events = features->keep_alive_ms = 0;
    features->hot = NVME_TEMPERATURE_WARNING;
    features->timestamp_ms = 0;
    features->timestamp_ns = of->now_ns;
    features->timestamp_set = false;
    features->host_behavior = 0;
    for (uint32_t nsid = 1; nsid <= NVME_NAMESPACES_MAX; nsid++)
        if (of->namespaces->by_id[nsid])
            of->namespaces->by_id[nsid]->error_recovery = 0;
}

// --- the commands ---

// Which part of a feature is asked for that has several.
static bool part_exists(const struct nvme_features_of *of, const struct nvme_feature_request *request)
{
    if (request->id == SDC_NVME_FEAT_TEMPERATURE)
        return threshold_exists(request->value);
    return request->id != SDC_NVME_FEAT_VECTOR || (request->value & VECTOR) < of->vectors;
}

int nvme_features_get(const struct nvme_features_of *of, const struct nvme_feature_request *request, uint32_t *dw0, uint8_t *data,
                      uint32_t *size)
{
    const struct feature_row *row = find(request->id);
    // What was not saved has its default for a saved value (base 4.4).
    bool preset = request->select == NVME_SELECT_DEFAULT || request->select == NVME_SELECT_SAVED;

    *dw0 = *size = 0;
    if (!row || request->select > NVME_SELECT_CAPABILITIES)
        return SDC_NVME_SC_INVALID_FIELD;
    if (row->of_namespace && !nvme_nsid_valid(request->nsid))
        return SDC_NVME_SC_INVALID_NS;
    if (row->of_namespace && !nvme_namespace_find(of->namespaces, request->nsid))
        return SDC_NVME_SC_INVALID_FIELD;
    if (request->select == NVME_SELECT_CAPABILITIES) {
        *dw0 = CAPABLE_CHANGE | (row->of_namespace ? CAPABLE_NS : 0);
        return SDC_NVME_SC_SUCCESS;
    }
    if (!part_exists(of, request))
        return SDC_NVME_SC_INVALID_FIELD;
    *dw0 = (preset ? row->preset : row->get)(of, request);
    *size = row->data;
    if (row->get_data) {
        memset(data, 0, row->data);
        row->get_data(of, preset, data);
    }
    return SDC_NVME_SC_SUCCESS;
}

static int check_set(const struct nvme_features_of *of, const struct feature_row *row, const struct nvme_feature_request *request)
{
    if (!row)
        return SDC_NVME_SC_INVALID_FIELD;
    if (request->save)
        return SDC_NVME_SC_FEATURE_NOT_SAVEABLE;
    if (request->nsid == SDC_NVME_NSID_ALL || (request->nsid == 0 && !row->of_namespace))
        return SDC_NVME_SC_SUCCESS;
    if (!nvme_nsid_valid(request->nsid))
        return SDC_NVME_SC_INVALID_NS;
    if (!row->of_namespace)
        return SDC_NVME_SC_FEATURE_NOT_NS;
    return nvme_namespace_find(of->namespaces, request->nsid) ? SDC_NVME_SC_SUCCESS : SDC_NVME_SC_INVALID_FIELD;
}

int nvme_features_set(const struct nvme_features_of *of, const struct nvme_feature_request *request, const uint8_t *data, uint32_t *dw0)
{
    const struct feature_row *row = find(request->id);
    int status = check_set(of, row, request);

    *dw0 = 0;
    if (status != SDC_NVME_SC_SUCCESS)
        return status;
    status = row->set(of, request, data);
    // The answer says how many queues there are; other features have none (base 5.27.1).
    if (status == SDC_NVME_SC_SUCCESS && request->id == SDC_NVME_FEAT_QUEUES)
        *dw0 = get_queues(of, request);
    return status;
}
