// SPDX-License-Identifier: BSD-3-Clause
// vfio-user at a listening socket.
#include "transport/vfio_user/vfio_user.h"

#include "transport/vfio_user/session.h"

#include <errno.h>
#include <stdlib.h>

struct door {
    struct sdc_loop *loop;
    struct sdc_pci_device *device;
    struct sdc_vfu_options options;
};

static void session_ended(struct vfu_session *session)
{
    struct sdc_listener *listener = session->context;

    vfu_session_free(session);
    sdc_listener_ended(listener);
}

static void *open_session(void *context, int fd, struct sdc_listener *listener)
{
    struct door *door = context;

    return vfu_session_new(door->loop, fd, door->device, &door->options, session_ended, listener);
}

static void end_session(void *session)
{
    vfu_session_end(session);
}

static int resume_session(void *context, struct sdc_listener *listener, void **session, struct sdc_error *err)
{
    struct door *door = context;
    struct vfu_session *resumed = NULL;

    if (!door->options.record || !sdc_vfu_record_has_session(door->options.record))
        return 0;
    int rc = vfu_session_resume(door->loop, door->device, &door->options, session_ended, listener, &resumed, err);
    *session = resumed;
    return rc;
}

static void hold_session(void *session)
{
    vfu_session_hold(session);
}

static const struct sdc_listener_ops ops = {
    .open = open_session, .resume = resume_session, .hold = hold_session, .end = end_session, .free = free};

int sdc_vfu_listen(struct sdc_loop *loop, int fd, struct sdc_pci_device *device, const struct sdc_vfu_options *options,
                   struct sdc_listener **listener, struct sdc_error *err)
{
    struct door *door = malloc(sizeof *door);
    if (!door)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a listener");

    *door = (struct door){.loop = loop, .device = device, .options = *options};
    return sdc_listener_new(loop, fd, door->options.name, &ops, door, listener, err);
}
