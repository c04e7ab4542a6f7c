// SPDX-License-Identifier: BSD-3-Clause
#include "transport/common/virtio_core.h"

#include "base/bytes.h"
#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "os/fd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

// What rings can do here; devices add their own bits.
#define RING_FEATURES                                                                                                  \
    (SDC_VIRTIO_F_VERSION_1 | SDC_VIRTIO_F_ACCESS_PLATFORM | SDC_VIRTIO_F_INDIRECT_DESC | SDC_VIRTIO_F_EVENT_IDX |      \
     SDC_VIRTIO_F_RING_PACKED | SDC_VIRTIO_F_IN_ORDER | SDC_VIRTIO_F_ORDER_PLATFORM | SDC_VIRTIO_F_RING_RESET)

struct queue_state {
    bool enabled;
    bool started;   // a START was sent
    bool resetting; // a STOP of this queue alone was sent
    struct sdc_ring_config config;
    uint64_t starts;
    int kick_fd;
    bool unkicked;       // there is none, and nothing else notifies
    int dropped_kick_fd; // the queue may still watch it: until it has obeyed
    struct sdc_post obeyed_post; // from the queue's loop to home
    struct sdc_post recalled_post;
    struct sdc_post broke_post;
    struct sdc_virtqueue *queue;
    atomic_bool broke; // broke_post is on its way
};

static struct queue_state *state_of(struct sdc_virtqueue *queue)
{
    return &queue->core->states[queue->index];
}

// --- from the queues ---

static void finish(struct sdc_virtio_core *core)
{
    if (core->resetting) {
        core->resetting = false;
        core->status = 0;
        core->features = 0;
        if (core->device->ops->reset)
            core->device->ops->reset(core->device);
    }
    core->ops->ready(core->context);
}

static void run_obeyed(struct sdc_post *post)
{
    struct queue_state *state = sdc_container(post, struct queue_state, obeyed_post);
    struct sdc_virtio_core *core = state->queue->core;

    state->resetting = false; // if it was, that was the order
    sdc_fd_close(&state->dropped_kick_fd);
    if (--core->pending == 0)
        finish(core);
}

static void run_recalled(struct sdc_post *post)
{
    struct sdc_virtio_core *core = sdc_container(post, struct queue_state, recalled_post)->queue->core;

    if (--core->pending == 0)
        finish(core);
}

static void queue_recalled(struct sdc_virtqueue *queue)
{
    sdc_loop_post(queue->core->home, &state_of(queue)->recalled_post);
}

static void queue_obeyed(struct sdc_virtqueue *queue)
{
    sdc_loop_post(queue->core->home, &state_of(queue)->obeyed_post);
}

static void queue_interrupt(struct sdc_virtqueue *queue)
{
    queue->core->ops->interrupt(queue->core->context, queue->index);
}

static void run_broke(struct sdc_post *post)
{
    struct queue_state *state = sdc_container(post, struct queue_state, broke_post);
    struct sdc_virtio_core *core = state->queue->core;

    atomic_store(&state->broke, false);
    if (core->status & SDC_VIRTIO_S_NEEDS_RESET || core->resetting || core->status == 0)
        return;
    core->status |= SDC_VIRTIO_S_NEEDS_RESET;
    core->ops->config_interrupt(core->context);
}

static void queue_broke(struct sdc_virtqueue *queue, const char *reason)
{
    struct queue_state *state = state_of(queue);

    sdc_log_peer("%s queue %u: the driver must reset the device: %s", queue->device->ops->name, queue->index, reason);
    if (!atomic_exchange(&state->broke, true))
        sdc_loop_post(queue->core->home, &state->broke_post);
}

// --- orders ---

static void order(struct sdc_virtio_core *core, uint16_t index, enum sdc_virtqueue_order what)
{
    struct sdc_virtqueue *queue = &core->queues[index];

    queue->order = what;
    if (what == SDC_VIRTQUEUE_START || what == SDC_VIRTQUEUE_REMAP)
        queue->map = sdc_map_ref(core->map);
    core->pending++;
    sdc_virtqueue_send(queue);
}

static void recall(struct sdc_virtio_core *core, uint16_t index)
{
    core->queues[index].recall_map = sdc_map_ref(core->map);
    core->pending++;
    sdc_virtqueue_recall(&core->queues[index]);
}

static void start(struct sdc_virtio_core *core, uint16_t index)
{
    struct queue_state *state = &core->states[index];

    state->started = true;
    core->queues[index].config = state->config;
    core->queues[index].config.features = core->features;
    core->queues[index].kick_fd = state->kick_fd;
    core->queues[index].unkicked = state->unkicked;
    core->queues[index].start_number = state->starts;
    order(core, index, SDC_VIRTQUEUE_START);
}

bool sdc_virtio_core_busy(const struct sdc_virtio_core *core)
{
    return core->pending > 0;
}

uint64_t sdc_virtio_core_offered(const struct sdc_virtio_core *core)
{
    uint64_t below = RING_FEATURES | core->ops->features;

    const struct sdc_virtio_ops *ops = core->device->ops;

    return (below & ~core->device->withheld) | (ops->features ? ops->features(core->device) : 0);
}

void sdc_virtio_core_accept(struct sdc_virtio_core *core, uint64_t features)
{
    if (!(core->status & SDC_VIRTIO_S_FEATURES_OK))
        core->features = features;
}

// virtio 1.2, 2.2.2 and 6.1: no bit that was not offered, and none of the legacy interface.
static bool features_acceptable(struct sdc_virtio_core *core)
{
    uint64_t foreign = core->features & ~sdc_virtio_core_offered(core);
    struct sdc_virtio_device *device = core->device;

    if (foreign) {
        sdc_log_peer("%s: the driver accepts features %#" PRIx64 ", which were not offered", device->ops->name, foreign);
        return false;
    }
    if (!(core->features & SDC_VIRTIO_F_VERSION_1)) {
        sdc_log_peer("%s: the driver does not accept VIRTIO_F_VERSION_1", device->ops->name);
        return false;
    }
    return !device->ops->accept || device->ops->accept(device, core->features);
}

void sdc_virtio_core_set_status(struct sdc_virtio_core *core, uint8_t status)
{
    uint8_t before = core->status;

    if (status == 0) {
        sdc_virtio_core_reset(core);
        return;
    }
    // Bits are only ever added by the driver; NEEDS_RESET is the device's.
    status = (uint8_t)((before | status) & ~SDC_VIRTIO_S_NEEDS_RESET) | (before & SDC_VIRTIO_S_NEEDS_RESET);
    if (status & SDC_VIRTIO_S_FEATURES_OK && !(before & SDC_VIRTIO_S_FEATURES_OK) && !features_acceptable(core))
        status = (uint8_t)(status & ~SDC_VIRTIO_S_FEATURES_OK);
    if (status & SDC_VIRTIO_S_DRIVER_OK && !(status & SDC_VIRTIO_S_FEATURES_OK)) {
        sdc_log_peer("%s: the driver sets DRIVER_OK without FEATURES_OK", core->device->ops->name);
        status = (uint8_t)(status & ~SDC_VIRTIO_S_DRIVER_OK);
    }
    core->status = status;
    if (!(status & SDC_VIRTIO_S_DRIVER_OK) || before & SDC_VIRTIO_S_DRIVER_OK)
        return;
    for (uint16_t i = 0; i < core->device->queues_count; i++) {
        if (core->states[i].enabled) {
            core->states[i].starts++;
            start(core, i);
        }
    }
}

void sdc_virtio_core_enable(struct sdc_virtio_core *core, uint16_t queue, const struct sdc_ring_config *config)
{
    struct queue_state *state = &core->states[queue];

    if (state->enabled)
        return;
    state->enabled = true;
    state->config = *config;
    if (core->status & SDC_VIRTIO_S_DRIVER_OK) {
        state->starts++;
        start(core, queue);
    }
}

static void stop_queue(struct sdc_virtio_core *core, uint16_t queue, bool spares)
{
    struct queue_state *state = &core->states[queue];

    if (!state->enabled)
        return;
    state->enabled = false;
    if (!state->started)
        return;
    state->started = false;
    state->resetting = true;
    core->queues[queue].leaves = false;
    core->queues[queue].spares = spares;
    order(core, queue, SDC_VIRTQUEUE_STOP);
}

void sdc_virtio_core_reset_queue(struct sdc_virtio_core *core, uint16_t queue)
{
    if (core->features & SDC_VIRTIO_F_RING_RESET)
        stop_queue(core, queue, false);
}

void sdc_virtio_core_stop_queue(struct sdc_virtio_core *core, uint16_t queue)
{
    stop_queue(core, queue, true);
}

void sdc_virtio_core_forgive(struct sdc_virtio_core *core)
{
    core->status &= (uint8_t)~SDC_VIRTIO_S_NEEDS_RESET;
}

bool sdc_virtio_core_queue_resetting(const struct sdc_virtio_core *core, uint16_t queue)
{
    return core->states[queue].resetting;
}

bool sdc_virtio_core_enabled(const struct sdc_virtio_core *core, uint16_t queue)
{
    return core->states[queue].enabled;
}

void sdc_virtio_core_kick(struct sdc_virtio_core *core, uint16_t queue)
{
    if (core->states[queue].started)
        sdc_virtqueue_kick(&core->queues[queue]);
}

static void set_kick(struct sdc_virtio_core *core, uint16_t queue, int fd, bool unkicked)
{
    struct queue_state *state = &core->states[queue];

    state->dropped_kick_fd = state->kick_fd;
    state->kick_fd = fd;
    state->unkicked = unkicked;
    if (!state->started) {
        sdc_fd_close(&state->dropped_kick_fd);
        return;
    }
    core->queues[queue].kick_fd = fd;
    core->queues[queue].unkicked = unkicked;
    order(core, queue, SDC_VIRTQUEUE_WATCH);
}

void sdc_virtio_core_set_kick_fd(struct sdc_virtio_core *core, uint16_t queue, int fd)
{
    set_kick(core, queue, fd, false);
}

void sdc_virtio_core_set_unkicked(struct sdc_virtio_core *core, uint16_t queue)
{
    set_kick(core, queue, -1, true);
}

int sdc_virtio_core_kick_fd(const struct sdc_virtio_core *core, uint16_t queue)
{
    return core->states[queue].kick_fd;
}

static void end_queues(struct sdc_virtio_core *core, bool leave)
{
    core->resetting = true;
    for (uint16_t i = 0; i < core->device->queues_count; i++) {
        struct queue_state *state = &core->states[i];
        core->queues[i].leaves = leave;
        core->queues[i].spares = false;
        bool started = state->started;
        state->enabled = state->started = false;
        if (started)
            order(core, i, SDC_VIRTQUEUE_STOP);
    }
    if (core->pending == 0)
        finish(core);
}

void sdc_virtio_core_reset(struct sdc_virtio_core *core)
{
    end_queues(core, false);
}

void sdc_virtio_core_leave(struct sdc_virtio_core *core)
{
    end_queues(core, true);
}

void sdc_virtio_core_set_map(struct sdc_virtio_core *core, struct sdc_map *map)
{
    struct sdc_map *before = core->map;
    bool recalls = core->pending > 0;

    core->map = sdc_map_ref(map);
    sdc_map_unref(before);
    for (uint16_t i = 0; i < core->device->queues_count; i++) {
        if (core->states[i].started && recalls)
            recall(core, i);
        else if (core->states[i].started)
            order(core, i, SDC_VIRTQUEUE_REMAP);
    }
    if (core->pending == 0)
        core->ops->ready(core->context);
}

void sdc_virtio_config_changed(struct sdc_virtio_device *device)
{
    struct sdc_virtio_core *core = device->core;

    core->config_generation++;
    core->ops->config_interrupt(core->context);
}

// --- the state record ---

void sdc_virtio_core_keep(struct sdc_virtio_core *core, void *memory, uint64_t each, bool goes_on)
{
    for (uint16_t i = 0; i < core->device->queues_count; i++) {
        core->queues[i].record = (uint8_t *)memory + i * each;
        core->queues[i].record_bytes = each;
        // Starts are counted from one again: none of these is what an earlier count meant.
        if (!goes_on)
            sdc_put64(core->queues[i].record + SDC_QUEUE_RECORD_START, 0);
    }
}

void sdc_virtio_core_queue_state(const struct sdc_virtio_core *core, uint16_t queue, struct sdc_virtio_queue_state *state)
{
    *state = (struct sdc_virtio_queue_state){.enabled = core->states[queue].enabled, .starts = core->states[queue].starts};
}

int sdc_virtio_core_load(struct sdc_virtio_core *core, uint8_t status, uint8_t config_generation, uint64_t features,
                         struct sdc_error *err)
{
    const uint8_t known = SDC_VIRTIO_S_ACKNOWLEDGE | SDC_VIRTIO_S_DRIVER | SDC_VIRTIO_S_DRIVER_OK | SDC_VIRTIO_S_FEATURES_OK |
                          SDC_VIRTIO_S_NEEDS_RESET | SDC_VIRTIO_S_FAILED;

    if (status & ~known || (status & SDC_VIRTIO_S_DRIVER_OK && !(status & SDC_VIRTIO_S_FEATURES_OK)))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_PEER, "the state record has an impossible device status, %#x", status);
    core->features = features;
    core->config_generation = config_generation;
    if (status & SDC_VIRTIO_S_FEATURES_OK && !features_acceptable(core)) {
        core->features = 0;
        return sdc_error_set(err, -EINVAL, SDC_FAULT_PEER, "the state record has features %#" PRIx64 ", which this card does not offer",
                             features);
    }
    core->status = status;
    return 0;
}

int sdc_virtio_core_load_queue(struct sdc_virtio_core *core, uint16_t queue, const struct sdc_virtio_queue_state *state,
                               const struct sdc_ring_config *config, struct sdc_error *err)
{
    bool any = (core->features & SDC_VIRTIO_F_RING_PACKED) != 0;

    if (state->enabled && (config->size == 0 || config->size > core->device->queue_size_max ||
                           (!any && !sdc_is_power_of_two(config->size))))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_PEER, "the state record has a queue %u of %u entries", queue, config->size);
    core->states[queue].enabled = state->enabled;
    core->states[queue].starts = state->starts;
    core->states[queue].config = *config;
    return 0;
}

void sdc_virtio_core_go_on(struct sdc_virtio_core *core)
{
    if (!(core->status & SDC_VIRTIO_S_DRIVER_OK))
        return;
    for (uint16_t i = 0; i < core->device->queues_count; i++) {
        if (!core->states[i].enabled)
            continue;
        start(core, i);
        core->ops->interrupt(core->context, i);
    }
    core->ops->config_interrupt(core->context);
}

void sdc_virtio_core_stop_for_good(struct sdc_virtio_core *core)
{
    for (uint16_t i = 0; i < core->device->queues_count; i++) {
        if (core->states[i].started)
            order(core, i, SDC_VIRTQUEUE_SAVE);
    }
}

// --- life ---

int sdc_virtio_core_new(struct sdc_virtio_device *device, struct sdc_loop *const *loops, unsigned loops_count,
                        const struct sdc_virtio_core_ops *ops, void *context, struct sdc_virtio_core **out,
                        struct sdc_error *err)
{
    uint16_t count = device->queues_count;
    if (count == 0 || count > SDC_LIMIT_QUEUES || !sdc_is_power_of_two(device->queue_size_max) ||
        device->queue_size_max > SDC_LIMIT_QUEUE_SIZE)
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "%s with %u queues of %u entries: at most %d, of a power of two up to %d",
                             device->ops->name, count, device->queue_size_max, SDC_LIMIT_QUEUES, SDC_LIMIT_QUEUE_SIZE);

    struct sdc_virtio_core *core = calloc(1, sizeof *core);
    struct sdc_virtqueue *queues = calloc(count, sizeof *queues);
    struct queue_state *states = calloc(count, sizeof *states);
    if (!core || !queues || !states) {
        free(core);
        free(queues);
        free(states);
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a device with %u queues", count);
    }
    *core = (struct sdc_virtio_core){.device = device, .ops = ops, .context = context, .home = loops[0],
                                     .queues = queues, .states = states};
    for (uint16_t i = 0; i < count; i++) {
        queues[i].core = core;
        queues[i].device = device;
        queues[i].loop = loops[i % loops_count];
        queues[i].index = i;
        queues[i].obeyed = queue_obeyed;
        queues[i].recalled = queue_recalled;
        queues[i].interrupt = queue_interrupt;
        queues[i].broke = queue_broke;
        sdc_virtqueue_init(&queues[i]);
        states[i].queue = &queues[i];
        states[i].kick_fd = states[i].dropped_kick_fd = -1;
        states[i].obeyed_post.run = run_obeyed;
        states[i].recalled_post.run = run_recalled;
        states[i].broke_post.run = run_broke;
    }
    device->core = core;
    *out = core;
    return 0;
}

void sdc_virtio_core_poll(struct sdc_virtio_core *core, enum sdc_poll_mode mode, uint64_t max_ns)
{
    for (uint16_t i = 0; i < core->device->queues_count; i++) {
        core->queues[i].poll_mode = mode;
        core->queues[i].poll_max_ns = max_ns;
    }
}

void sdc_virtio_destroy(struct sdc_virtio_device *device)
{
    if (device->ops && device->ops->destroy)
        device->ops->destroy(device);
}

void sdc_virtio_core_free(struct sdc_virtio_core *core)
{
    for (uint16_t i = 0; i < core->device->queues_count; i++)
        sdc_fd_close(&core->states[i].kick_fd);
    sdc_virtio_destroy(core->device);
    sdc_map_unref(core->map);
    free(core->queues);
    free(core->states);
    free(core);
}

struct sdc_loop *sdc_virtio_loop(const struct sdc_virtio_device *device)
{
    return device->core ? device->core->home : NULL;
}
