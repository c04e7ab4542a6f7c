// SPDX-License-Identifier: BSD-3-Clause
// The card: a virtio device and its vrings, whoever is connected.
#include "os/fd.h"
#include "transport/vhost_user/session.h"

#include "base/check.h"

#include <errno.h>
#include <stdlib.h>

// On the queue's loop.
static void core_interrupt(void *context, uint16_t queue)
{
    struct sdc_vhu_card *card = context;
    struct vhu_vring *vring = &card->vrings[queue];

    pthread_mutex_lock(&vring->lock);
    bool by_fd = vring->call_fd >= 0;
    if (by_fd)
        sdc_eventfd_signal(vring->call_fd);
    pthread_mutex_unlock(&vring->lock);
    if (!by_fd && atomic_load(&card->in_band) && !atomic_exchange(&vring->calling, true))
        sdc_loop_post(card->core->home, &vring->call_post);
}

// Home loop.
static void run_call(struct sdc_post *post)
{
    struct vhu_vring *vring = sdc_container(post, struct vhu_vring, call_post);

    atomic_store(&vring->calling, false); // what is used from now on posts again
    if (!vring->card->session)
        return;
    vring->call_due = true;
    vhu_channel_tell(vring->card->session);
}

// The configuration has changed, or a queue is broken: that the front end hears on its error fds too, once for each break.
static void core_config_interrupt(void *context)
{
    struct sdc_vhu_card *card = context;
    bool breaks = card->core->status & SDC_VIRTIO_S_NEEDS_RESET && !card->broken;

    card->broken |= breaks;
    for (uint16_t i = 0; breaks && i < card->core->device->queues_count; i++) {
        struct vhu_vring *vring = &card->vrings[i];
        if (vring->running && vring->err_fd >= 0)
            sdc_eventfd_signal(vring->err_fd);
        else if (vring->running)
            vring->err_due |= atomic_load(&card->in_band);
    }
    if (card->session) {
        card->session->channel.config_changed = true;
        vhu_channel_tell(card->session);
    }
}

static void core_ready(void *context)
{
    struct sdc_vhu_card *card = context;

    if (card->session)
        vhu_session_step(card->session);
}

static const struct sdc_virtio_core_ops core_ops = {
    .interrupt = core_interrupt,
    .config_interrupt = core_config_interrupt,
    .ready = core_ready,
};

void vhu_card_forget(struct sdc_vhu_card *card)
{
    atomic_store(&card->in_band, card->session && !card->session->closing &&
                                     card->session->protocol_features & SDC_VHOST_PROTOCOL_F_INBAND_NOTIFICATIONS);
    card->broken = false;
    for (uint16_t i = 0; i < card->core->device->queues_count; i++) {
        struct vhu_vring *vring = &card->vrings[i];
        sdc_virtio_core_set_kick_fd(card->core, i, -1);
        pthread_mutex_lock(&vring->lock);
        sdc_fd_close(&vring->call_fd);
        sdc_fd_close(&vring->err_fd);
        pthread_mutex_unlock(&vring->lock);
        sdc_inflight_close(&vring->log);
        vring->size = 0;
        vring->position = 0;
        vring->call_due = vring->err_due = false;
        vring->has_addresses = vring->wrapped = vring->resume = vring->left = vring->started = vring->enabled = vring->running = false;
    }
}

int sdc_vhu_card_new(struct sdc_virtio_device *device, struct sdc_loop *const *loops, unsigned loops_count,
                     struct sdc_vhu_card **out, struct sdc_error *err)
{
    struct sdc_vhu_card *card = calloc(1, sizeof *card);
    struct vhu_vring *vrings = calloc(device->queues_count, sizeof *vrings);

    device->withheld |= VHU_WITHHELD;
    int rc = card && vrings ? sdc_virtio_core_new(device, loops, loops_count, &core_ops, card, &card->core, err)
                            : sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a device with %u queues",
                                            device->queues_count);
    if (rc < 0) {
        free(card);
        free(vrings);
        sdc_virtio_destroy(device);
        return rc;
    }
    card->vrings = vrings;
    for (uint16_t i = 0; i < device->queues_count; i++) {
        pthread_mutex_init(&vrings[i].lock, NULL);
        vrings[i].call_fd = vrings[i].err_fd = -1;
        vrings[i].call_post.run = run_call;
        vrings[i].card = card;
    }
    *out = card;
    return 0;
}

void sdc_vhu_card_free(struct sdc_vhu_card *card)
{
    for (uint16_t i = 0; i < card->core->device->queues_count; i++)
        pthread_mutex_destroy(&card->vrings[i].lock);
    sdc_virtio_core_free(card->core);
    free(card->vrings);
    free(card);
}
