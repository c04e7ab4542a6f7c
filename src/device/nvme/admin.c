// SPDX-License-Identifier: BSD-3-Clause
// Admin commands (base 5), on the home loop: which there are, and those that are about what the controller is, keeps and may be told.
#include "device/nvme/admin.h"

#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "device/nvme/controller.h"

#include <stdio.h>

// --- what the builders are about ---

static struct nvme_features_of features_of(struct nvme *nvme)
{
    struct nvme_features_of of = {
        .features = &nvme->admin.features,
        .namespaces = &nvme->namespaces,
        .queue_pairs = nvme->options.queues,
        .vectors = nvme->options.vectors,
        .now_ns = sdc_loop_now(nvme->home),
        .write_cache = nvme->options.write_cache,
    };

    for (unsigned i = 1; i <= nvme->options.queues; i++)
        of.queues_exist |= nvme->cqs[i].state != NVME_QUEUE_NONE || nvme->sqs[i].state != NVME_QUEUE_NONE;
    return of;
}

static void command_effects(const struct nvme_identity *identity, uint8_t page[NVME_LOG_BYTES]);

// counters has room for one of each loop.
static struct nvme_logs_of logs_of(struct nvme *nvme, const struct nvme_counters **counters)
{
    for (unsigned i = 0; i < nvme->workers_count; i++)
        counters[i] = &nvme->workers[i].counters;
    return (struct nvme_logs_of){
        .logs = &nvme->admin.logs,
        .identity = &nvme->admin.identity,
        .features = &nvme->admin.features,
        .counters = counters,
        .counters_count = nvme->workers_count,
        .now_ns = sdc_loop_now(nvme->home),
        .effects = command_effects,
    };
}

// --- Identify ---

static int identify(struct nvme_command *command)
{
    const struct nvme *nvme = command->sq->nvme;
    uint8_t page[SDC_NVME_IDENTIFY_BYTES];
    struct nvme_identify_request request = {
        .nsid = nvme_nsid(command),
        .cns = (uint8_t)nvme_dword(command, 10),
        .controller = (uint16_t)(nvme_dword(command, 10) >> 16),
        .csi = (uint8_t)(nvme_dword(command, 11) >> 24),
    };
    int rc = nvme_identify_build(&nvme->admin.identity, &nvme->namespaces, &request, page);

    return rc ? rc : nvme_data_copy_out(command, page, sizeof page);
}

// --- features ---

static int get_features(struct nvme_command *command)
{
    struct nvme_features_of of = features_of(command->sq->nvme);
    uint32_t cdw10 = nvme_dword(command, 10);
    uint8_t data[NVME_FEATURE_DATA];
    struct nvme_feature_request request = {
        .id = (uint8_t)cdw10,
        .select = cdw10 >> 8 & 7,
        .nsid = nvme_nsid(command),
        .value = nvme_dword(command, 11),
    };
    uint32_t size;
    int rc = nvme_features_get(&of, &request, &command->dw0, data, &size);

    if (rc == 0 && size > 0)
        rc = nvme_data_copy_out(command, data, size);
    return rc;
}

// What has to be done beside keeping the value.
static int feature_was_set(struct nvme_command *command, uint8_t id, bool cached)
{
    struct nvme *nvme = command->sq->nvme;
    struct nvme_admin *admin = &nvme->admin;

    nvme_live_features(nvme);
    if (id == SDC_NVME_FEAT_TEMPERATURE && nvme_features_hot_or_cold(&admin->features))
        nvme_events_raise(&admin->events, &admin->features, NVME_EVENT_TEMPERATURE);
    if (id == SDC_NVME_FEAT_KEEP_ALIVE && nvme_keep_alive_restart(nvme) < 0)
        return SDC_NVME_SC_INTERNAL;
    if (id == SDC_NVME_FEAT_WRITE_CACHE && cached && !admin->features.write_cache)
        return nvme_cache_flush(command);
    return SDC_NVME_SC_SUCCESS;
}

static int set_features(struct nvme_command *command)
{
    struct nvme_features_of of = features_of(command->sq->nvme);
    uint32_t cdw10 = nvme_dword(command, 10);
    uint8_t data[NVME_FEATURE_DATA];
    struct nvme_feature_request request = {
        .id = (uint8_t)cdw10,
        .save = cdw10 >> 31,
        .nsid = nvme_nsid(command),
        .value = nvme_dword(command, 11),
    };
    uint32_t size = nvme_feature_data(request.id);
    bool cached = of.features->write_cache;
    int rc = size > 0 ? nvme_data_copy_in(command, data, size) : 0;

    if (rc == 0)
        rc = nvme_features_set(&of, &request, data, &command->dw0);
    return rc ? rc : feature_was_set(command, request.id, cached);
}

// --- logs ---

static int get_log_page(struct nvme_command *command)
{
    const struct nvme_counters *counters[SDC_LIMIT_THREADS];
    struct nvme *nvme = command->sq->nvme;
    struct nvme_logs_of of = logs_of(nvme, counters);
    uint8_t page[NVME_LOG_BYTES];
    struct nvme_log_request request;
    uint32_t size;

    nvme_log_parse(command->sqe, &request);
    int rc = nvme_log_build(&of, &request, page, &size);
    if (rc == 0)
        rc = nvme_data_copy_out_padded(command, page, size, request.size);
    if (rc == 0 && !request.retain) {
        nvme_log_was_read(&nvme->admin.logs, request.id);
        nvme_events_log_read(&nvme->admin.events, request.id);
    }
    return rc;
}

// --- events ---

static int async_event(struct nvme_command *command)
{
    return nvme_events_ask(&command->sq->nvme->admin.events, command);
}

void nvme_event_doorbell(struct nvme *nvme, uint8_t information)
{
    // The event points to the error log, so there has to be something in it: of no command.
    nvme_logs_error(&nvme->admin.logs, &(struct nvme_error){.sq = UINT16_MAX, .cid = UINT16_MAX, .status = SDC_NVME_SC_INVALID_FIELD});
    nvme_events_raise(&nvme->admin.events, &nvme->admin.features,
                      information == SDC_NVME_EVENT_BAD_DOORBELL ? NVME_EVENT_BAD_DOORBELL : NVME_EVENT_BAD_DOORBELL_VALUE);
}

void nvme_event_namespace(struct nvme *nvme, uint32_t nsid)
{
    nvme->admin.logs.changed[nsid] = true;
    nvme_events_raise(&nvme->admin.events, &nvme->admin.features, NVME_EVENT_NS_CHANGED);
}

// --- which commands there are ---

// Where data goes, which an opcode has in its bits 1:0 (base 3.3.3.1).
enum direction { NO_DATA = 0, FROM_DRIVER = 1, TO_DRIVER = 2 };

struct admin_row {
    const char *name; // NULL: there is no such command
    enum direction direction;
    bool nsid;        // it is used; which are right differs with what is asked for
    int (*run)(struct nvme_command *command);
};

static const struct admin_row rows[] = {
    [SDC_NVME_ADMIN_DELETE_SQ] = {"Delete I/O Submission Queue", NO_DATA, false, nvme_delete_sq},
    [SDC_NVME_ADMIN_CREATE_SQ] = {"Create I/O Submission Queue", FROM_DRIVER, false, nvme_create_sq},
    [SDC_NVME_ADMIN_GET_LOG_PAGE] = {"Get Log Page", TO_DRIVER, true, get_log_page},
    [SDC_NVME_ADMIN_DELETE_CQ] = {"Delete I/O Completion Queue", NO_DATA, false, nvme_delete_cq},
    [SDC_NVME_ADMIN_CREATE_CQ] = {"Create I/O Completion Queue", FROM_DRIVER, false, nvme_create_cq},
    [SDC_NVME_ADMIN_IDENTIFY] = {"Identify", TO_DRIVER, true, identify},
    [SDC_NVME_ADMIN_ABORT] = {"Abort", NO_DATA, false, nvme_abort},
    [SDC_NVME_ADMIN_SET_FEATURES] = {"Set Features", FROM_DRIVER, true, set_features},
    [SDC_NVME_ADMIN_GET_FEATURES] = {"Get Features", TO_DRIVER, true, get_features},
    [SDC_NVME_ADMIN_ASYNC_EVENT] = {"Asynchronous Event Request", NO_DATA, false, async_event},
    [SDC_NVME_ADMIN_KEEP_ALIVE] = {"Keep Alive", NO_DATA, false, nvme_keep_alive},
    [SDC_NVME_ADMIN_DOORBELL_BUFFER] = {"Doorbell Buffer Config", NO_DATA, false, nvme_doorbell_buffer},
};

// None changes what a namespace or the controller can do. Behind the admin commands' entries are those of I/O commands.
static void command_effects(const struct nvme_identity *identity, uint8_t page[NVME_LOG_BYTES])
{
    for (size_t i = 0; i < SDC_COUNT(rows); i++)
        if (rows[i].run)
            sdc_put32(page + 4 * i, NVME_EFFECT_SUPPORTED | NVME_EFFECT_CONTROLLER_SCOPE);
    if (!identity->shadow_doorbells)
        sdc_put32(page + 4 * SDC_NVME_ADMIN_DOORBELL_BUFFER, 0);
    for (size_t i = 0; i < 256; i++)
        sdc_put32(page + 1024 + 4 * i, nvme_io_effects((uint8_t)i));
}

// Whether a driver that repeats the command would find the same again.
static bool lasts(int status)
{
    return status != SDC_NVME_SC_INTERNAL && status != SDC_NVME_SC_DATA_TRANSFER && status != SDC_NVME_SC_AER_LIMIT &&
           status != SDC_NVME_SC_ABORT_LIMIT && status != SDC_NVME_SC_SEQUENCE;
}

// What the table and the base specification say of every admin command: nothing is fused, and data is where PRPs say (4.1.1, 4.1.2).
static int check(const struct nvme_command *command, const struct admin_row *row)
{
    if (!row || !row->name)
        return SDC_NVME_SC_INVALID_OPCODE;
    if (command->sqe[SDC_NVME_SQE_FLAGS] & (SDC_NVME_FUSED | SDC_NVME_PSDT))
        return SDC_NVME_SC_INVALID_FIELD;
    if (!row->nsid && nvme_nsid(command) != 0)
        return SDC_NVME_SC_INVALID_FIELD;
    return (nvme_opcode(command) & 3) == (uint8_t)row->direction ? SDC_NVME_SC_SUCCESS : SDC_NVME_SC_INTERNAL;
}

int nvme_admin_run(struct nvme_command *command)
{
    uint8_t opcode = nvme_opcode(command);
    const struct admin_row *row = opcode < SDC_COUNT(rows) ? &rows[opcode] : NULL;
    int rc = check(command, row);

    command->sq->nvme->admin.identity.shadow_doorbells = nvme_offers_shadow(command->sq->nvme);
    if (rc == SDC_NVME_SC_SUCCESS)
        rc = row->run(command);
    if (rc > 0)
        sdc_log(SDC_LOG_DEBUG, "nvme: admin command %02xh (%s) ends with status 0x%x", opcode, row && row->name ? row->name : "unknown",
                (unsigned)rc);
    return rc > 0 && lasts(rc) ? rc | SDC_NVME_SC_DNR : rc;
}

// --- life ---

static void fill_identity(struct nvme *nvme)
{
    struct nvme_identity *identity = &nvme->admin.identity;

    identity->vendor = NVME_VENDOR;
    identity->subsystem_vendor = NVME_VENDOR;
    snprintf(identity->serial, sizeof identity->serial, "%s", nvme->options.serial);
    snprintf(identity->model, sizeof identity->model, "%s", *nvme->options.model ? nvme->options.model : "sidecard NVMe disk");
    snprintf(identity->firmware, sizeof identity->firmware, "%s", SDC_VERSION);
    if (*nvme->options.nqn)
        snprintf(identity->nqn, sizeof identity->nqn, "%s", nvme->options.nqn);
    else
        nvme_name_subsystem(identity->nqn, identity->serial);
}

void nvme_admin_open(struct nvme *nvme)
{
    struct nvme_features_of of = features_of(nvme);

    fill_identity(nvme);
    nvme_logs_init(&nvme->admin.logs, of.now_ns);
    nvme_events_reset(&nvme->admin.events);
    nvme_features_reset(&of);
}

void nvme_admin_close(struct nvme *nvme)
{
    sdc_loop_timer_clear(nvme->home, &nvme->admin.keep_alive);
    nvme_logs_destroy(&nvme->admin.logs);
}

void nvme_admin_reset(struct nvme *nvme)
{
    struct nvme_features_of of = features_of(nvme);

    nvme_features_reset(&of);
    nvme_events_reset(&nvme->admin.events);
    sdc_loop_timer_clear(nvme->home, &nvme->admin.keep_alive);
    // The next driver is another machine's, perhaps.
    if (nvme->ending == NVME_END_RESET)
        nvme_logs_reset(&nvme->admin.logs);
}
