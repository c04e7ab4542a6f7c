// SPDX-License-Identifier: BSD-3-Clause
// The memory in which vrings keep a log of what they have taken, so that the next back end can go on when this one has died. The front end
// holds it: we make it when asked, keep nothing of that, and use what it gives us.
#include "os/fd.h"
#include "os/memfd.h"
#include "transport/vhost_user/session.h"

#include "base/check.h"

#include <errno.h>
#include <string.h>

// Regions of vrings begin at multiples of this, as in every back end: the specification does not say.
enum { ALIGN = 64 };

static uint64_t stride(uint32_t size, bool packed)
{
    return (sdc_inflight_bytes(size, packed) + ALIGN - 1) & ~(uint64_t)(ALIGN - 1);
}

static int check(const struct vhu_session *session, const struct sdc_vhost_inflight *inflight)
{
    const struct sdc_virtio_device *device = session->card->core->device;

    if (inflight->num_queues == 0 || inflight->num_queues > device->queues_count ||
        inflight->queue_size == 0 || inflight->queue_size > device->queue_size_max)
        return -EINVAL;
    return 0;
}

int vhu_get_inflight_fd(struct vhu_session *session, struct vhu_message *message)
{
    struct sdc_vhost_inflight inflight;

    memcpy(&inflight, message->payload, sizeof inflight);
    int rc = check(session, &inflight);
    if (rc < 0)
        return rc;
    // Before SET_FEATURES the rings may yet be packed, whose logs need more. What is in the memory is said when a vring starts.
    inflight.mmap_size = inflight.num_queues * stride(inflight.queue_size, !session->features_set || vhu_is_packed(session));
    inflight.mmap_offset = 0;
    int fd = sdc_memfd_new("sidecard-inflight", inflight.mmap_size);
    if (fd < 0)
        return fd;
    rc = vhu_reply(session, &inflight, sizeof inflight);
    if (rc >= 0)
        vhu_stream_attach(&session->stream, fd);
    else
        sdc_fd_close(&fd);
    return rc;
}

void vhu_inflight_forget(struct vhu_session *session)
{
    if (session->inflight)
        sdc_unmap(session->inflight, session->inflight_mapped);
    session->inflight = NULL;
}

int vhu_set_inflight_fd(struct vhu_session *session, struct vhu_message *message)
{
    struct sdc_file_identity id;
    struct sdc_vhost_inflight inflight;
    uint64_t end;
    void *base;

    memcpy(&inflight, message->payload, sizeof inflight);
    if (vhu_runs(session->card))
        return -EBUSY;
    int rc = check(session, &inflight);
    if (rc == 0)
        rc = sdc_fd_identify(message->fds[0], &id);
    if (rc < 0)
        return rc;
    if (id.kind != SDC_MEMORY_FILE_SHARED || !id.writable || inflight.mmap_offset % ALIGN != 0 ||
        !sdc_add(inflight.mmap_offset, inflight.mmap_size, &end) || end > id.size ||
        inflight.mmap_size < inflight.num_queues * stride(inflight.queue_size, session->features_set && vhu_is_packed(session)))
        return -EINVAL;
    rc = sdc_fd_map(message->fds[0], end, true, &base);
    if (rc < 0)
        return rc;
    vhu_inflight_forget(session);
    session->inflight = base;
    session->inflight_mapped = end;
    session->inflight_said = inflight;
    for (uint16_t i = 0; i < session->card->core->device->queues_count; i++)
        session->card->vrings[i].resume = true;
    return 0;
}

// The features may be others than when the memory was given, and packed rings need more of it.
int vhu_inflight_open(struct vhu_session *session, uint16_t index, struct sdc_ring_config *config)
{
    const struct sdc_vhost_inflight *said = &session->inflight_said;
    struct vhu_vring *vring = &session->card->vrings[index];
    uint64_t each = session->inflight ? stride(said->queue_size, vhu_is_packed(session)) : 0;

    if (!session->inflight || index >= said->num_queues)
        return 0;
    if (said->mmap_size < said->num_queues * each)
        return -EINVAL;
    uint8_t *region = session->inflight + said->mmap_offset + index * each;
    int rc = sdc_inflight_open(&vring->log, region, each, vring->size, vhu_is_packed(session));
    if (rc < 0)
        return rc;
    config->log = &vring->log;
    config->resume = (vring->resume || vring->left) && sdc_inflight_written(&vring->log);
    vring->resume = vring->left = false;
    return 0;
}
