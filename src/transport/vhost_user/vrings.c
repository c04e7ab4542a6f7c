// SPDX-License-Identifier: BSD-3-Clause
// Vrings: where they are, what notifies whom, and when they run. A vring runs when it was started (by its kick fd) and is enabled; it
// stops for GET_VRING_BASE, with nothing in flight any more.
#include "os/fd.h"
#include "transport/vhost_user/session.h"

#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static struct vhu_vring *vring_at(struct vhu_session *session, uint64_t index)
{
    return index < session->card->core->device->queues_count ? &session->card->vrings[index] : NULL;
}

static struct vhu_vring *vring_of_state(struct vhu_session *session, const struct vhu_message *message,
                                        struct sdc_vhost_vring_state *state)
{
    memcpy(state, message->payload, sizeof *state);
    return vring_at(session, state->index);
}

bool vhu_runs(const struct sdc_vhu_card *card)
{
    for (uint16_t i = 0; i < card->core->device->queues_count; i++) {
        if (card->vrings[i].running)
            return true;
    }
    return false;
}

// --- running ---

// The three areas in guest memory (virtio 1.2, 2.7 and 2.8), each in one region of the front end's; or behind an IOMMU, which is asked.
static bool find_areas(const struct vhu_session *session, const struct vhu_vring *vring, struct sdc_ring_config *config)
{
    const struct sdc_vhost_vring_addr *addresses = &vring->addresses;
    bool packed = vhu_is_packed(session);

    if (session->iotlb.on) {
        config->desc = addresses->descriptor;
        config->driver = addresses->available;
        config->device = addresses->used;
        return true;
    }
    return vhu_translate(session, addresses->descriptor, (uint64_t)SDC_DESC_SIZE * vring->size, &config->desc) &&
           vhu_translate(session, addresses->available, packed ? 4 : 6 + 2 * (uint64_t)vring->size, &config->driver) &&
           vhu_translate(session, addresses->used, packed ? 4 : 6 + 8 * (uint64_t)vring->size, &config->device);
}

static int start(struct vhu_session *session, uint16_t index)
{
    struct vhu_vring *vring = &session->card->vrings[index];
    struct sdc_ring_config config = {.size = vring->size, .position = vring->position, .wrapped = vring->wrapped};

    if (!session->features_set || vring->size == 0 || !vring->has_addresses)
        return -EINVAL;
    if (!find_areas(session, vring, &config)) {
        sdc_log_peer("%s: vring %u lies at %#" PRIx64 ", %#" PRIx64 ", %#" PRIx64 ", which is no memory that was shown",
                     session->options->name, index, (uint64_t)vring->addresses.descriptor, (uint64_t)vring->addresses.available,
                     (uint64_t)vring->addresses.used);
        return -EFAULT;
    }
    int rc = vhu_inflight_open(session, index, &config);
    if (rc < 0)
        return rc;
    vring->running = true;
    sdc_virtio_core_enable(session->card->core, index, &config);
    return 0;
}

// The queue has ended: where it stood is where it goes on.
static void note_end(struct vhu_session *session, uint16_t index)
{
    const struct sdc_virtqueue *queue = &session->card->core->queues[index];
    struct vhu_vring *vring = &session->card->vrings[index];

    if (!vring->running)
        return;
    vring->running = false;
    sdc_inflight_close(&vring->log);
    vring->position = queue->position;
    vring->wrapped = queue->wrapped;
    vring->left = queue->left > 0;
    if (vhu_runs(session->card))
        return;
    sdc_virtio_core_forgive(session->card->core);
    session->card->broken = false;
    vhu_iotlb_flush(session); // front ends tell of no change while there is nobody to use what has changed
}

static uint16_t index_in_hand(const struct vhu_session *session)
{
    uint32_t index;

    memcpy(&index, session->stream.in.payload, sizeof index);
    return (uint16_t)index;
}

// --- size, addresses, position ---

int vhu_set_vring_num(struct vhu_session *session, struct vhu_message *message)
{
    struct sdc_vhost_vring_state state;
    struct vhu_vring *vring = vring_of_state(session, message, &state);

    if (!vring || state.num == 0 || state.num > session->card->core->device->queue_size_max)
        return -EINVAL;
    if (vring->running && state.num != vring->size)
        return -EBUSY;
    vring->left &= vring->size == state.num;
    vring->size = state.num;
    return 0;
}

// While it runs the same addresses are taken again: a front end sends them to change the flags of its dirty log.
int vhu_set_vring_addr(struct vhu_session *session, struct vhu_message *message)
{
    struct sdc_vhost_vring_addr addr;

    memcpy(&addr, message->payload, sizeof addr);
    struct vhu_vring *vring = vring_at(session, addr.index);
    if (!vring || addr.flags != 0) // no flag is offered
        return -EINVAL;
    bool same = vring->has_addresses && vring->addresses.descriptor == addr.descriptor &&
                vring->addresses.available == addr.available && vring->addresses.used == addr.used;
    if (vring->running && !same)
        return -EBUSY;
    vring->left &= same;
    vring->addresses = addr;
    vring->has_addresses = true;
    return 0;
}

// A packed ring's base has two positions, of available and of used entries. Nothing is in flight in a ring that begins or goes on, so
// that they are one.
int vhu_set_vring_base(struct vhu_session *session, struct vhu_message *message)
{
    struct sdc_vhost_vring_state state;
    struct vhu_vring *vring = vring_of_state(session, message, &state);
    uint16_t available = (uint16_t)state.num;

    if (!vring)
        return -EINVAL;
    if (vring->running)
        return -EBUSY;
    bool packed = vhu_is_packed(session);
    if (packed ? state.num >> SDC_VHOST_PACKED_USED_SHIFT != available : state.num > UINT16_MAX)
        return -EINVAL;
    uint16_t position = packed ? available & (SDC_VHOST_PACKED_WRAP - 1) : available;
    bool wrapped = packed && !(available & SDC_VHOST_PACKED_WRAP);
    vring->left &= position == vring->position && wrapped == vring->wrapped;
    vring->position = position;
    vring->wrapped = wrapped;
    return 0;
}

static bool base_ready(struct vhu_session *session)
{
    uint16_t index = index_in_hand(session);
    struct vhu_vring *vring = &session->card->vrings[index];

    note_end(session, index);
    if (session->closing)
        return true;
    struct sdc_vhost_vring_state state = {.index = index, .num = vring->position};
    if (vhu_is_packed(session)) {
        state.num |= vring->wrapped ? 0 : (uint32_t)SDC_VHOST_PACKED_WRAP;
        state.num |= state.num << SDC_VHOST_PACKED_USED_SHIFT;
    }
    vring->started = false;
    sdc_virtio_core_set_kick_fd(session->card->core, index, -1);
    if (vhu_reply(session, &state, sizeof state) < 0)
        vhu_session_close(session, "no memory for a reply");
    return true;
}

int vhu_get_vring_base(struct vhu_session *session, struct vhu_message *message)
{
    struct sdc_vhost_vring_state state;

    if (!vring_of_state(session, message, &state))
        return -EINVAL;
    sdc_virtio_core_stop_queue(session->card->core, (uint16_t)state.index);
    session->waiting = base_ready;
    return VHU_LATER;
}

// --- starting and stopping ---

static bool paused(struct vhu_session *session)
{
    note_end(session, index_in_hand(session));
    return vhu_finish(session);
}

static int update(struct vhu_session *session, uint16_t index)
{
    struct vhu_vring *vring = &session->card->vrings[index];
    bool shall_run = vring->started && vring->enabled;

    if (shall_run == vring->running)
        return 0;
    if (shall_run)
        return start(session, index);
    sdc_virtio_core_stop_queue(session->card->core, index);
    session->waiting = paused;
    return VHU_LATER;
}

int vhu_set_vring_enable(struct vhu_session *session, struct vhu_message *message)
{
    struct sdc_vhost_vring_state state;
    struct vhu_vring *vring = vring_of_state(session, message, &state);

    if (!vring || state.num > 1)
        return -EINVAL;
    vring->enabled = state.num == 1;
    int rc = update(session, (uint16_t)state.index);
    if (rc < 0)
        vring->enabled = false;
    return rc;
}

// In band: a vring is started by its first notification, if no fd has started it.
int vhu_vring_kick(struct vhu_session *session, struct vhu_message *message)
{
    struct sdc_vhost_vring_state state;
    struct vhu_vring *vring = vring_of_state(session, message, &state);

    if (!vring || state.num != 0)
        return -EINVAL;
    if (!vring->started) {
        vring->started = true;
        vring->enabled |= !session->enables;
        int rc = update(session, (uint16_t)state.index);
        if (rc < 0)
            vring->started = false;
        return rc;
    }
    sdc_virtio_core_kick(session->card->core, (uint16_t)state.index);
    return 0;
}

// --- fds ---

// The vring that a message with an fd, or without, is about; *fd is the fd, which is the caller's, or -1.
static int take_fd(struct vhu_session *session, struct vhu_message *message, uint16_t *index, int *fd)
{
    uint64_t which;

    memcpy(&which, message->payload, sizeof which);
    bool has_fd = !(which & SDC_VHOST_VRING_NO_FD);
    if (which & ~(uint64_t)(SDC_VHOST_VRING_INDEX | SDC_VHOST_VRING_NO_FD) || !vring_at(session, which & SDC_VHOST_VRING_INDEX) ||
        message->fds_count != has_fd)
        return -EINVAL;
    if (has_fd && (!sdc_fd_is_eventfd(message->fds[0]) || sdc_fd_set_nonblocking(message->fds[0]) < 0))
        return -EINVAL;
    *index = (uint16_t)(which & SDC_VHOST_VRING_INDEX);
    *fd = has_fd ? message->fds[0] : -1;
    message->fds[0] = -1;
    return 0;
}

// A vring is enabled from its start for a front end that does not enable it itself.
int vhu_set_vring_kick(struct vhu_session *session, struct vhu_message *message)
{
    uint16_t index;
    int fd;
    int rc = take_fd(session, message, &index, &fd);

    if (rc < 0)
        return rc;
    struct vhu_vring *vring = &session->card->vrings[index];
    if (fd < 0)
        sdc_virtio_core_set_unkicked(session->card->core, index); // the specification: "polling should be used"
    else
        sdc_virtio_core_set_kick_fd(session->card->core, index, fd);
    vring->started = true;
    vring->enabled |= !session->enables;
    rc = update(session, index);
    if (rc < 0) {
        sdc_virtio_core_set_kick_fd(session->card->core, index, -1);
        vring->started = false;
    }
    return rc;
}

static int replace(struct vhu_session *session, struct vhu_message *message, bool call)
{
    uint16_t index;
    int fd;
    int rc = take_fd(session, message, &index, &fd);

    if (rc < 0)
        return rc;
    struct vhu_vring *vring = &session->card->vrings[index];
    int *place = call ? &vring->call_fd : &vring->err_fd;
    pthread_mutex_lock(&vring->lock);
    sdc_fd_close(place);
    *place = fd;
    pthread_mutex_unlock(&vring->lock);
    return 0;
}

int vhu_set_vring_call(struct vhu_session *session, struct vhu_message *message)
{
    return replace(session, message, true);
}

int vhu_set_vring_err(struct vhu_session *session, struct vhu_message *message)
{
    return replace(session, message, false);
}
