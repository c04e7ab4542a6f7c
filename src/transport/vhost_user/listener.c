// SPDX-License-Identifier: BSD-3-Clause
// vhost-user at a listening socket, ours or the front end's.
#include "transport/vhost_user/session.h"

#include <errno.h>
#include <stdlib.h>

struct door {
    struct sdc_loop *loop;
    struct sdc_vhu_card *card;
    struct sdc_vhu_options options;
};

static void session_ended(struct vhu_session *session)
{
    struct sdc_listener *listener = session->context;

    vhu_session_free(session);
    sdc_listener_ended(listener);
}

static void *open_session(void *context, int fd, struct sdc_listener *listener)
{
    struct door *door = context;

    return vhu_session_new(door->loop, fd, door->card, &door->options, session_ended, listener);
}

static void end_session(void *session)
{
    vhu_session_close(session, "the server ends");
}

static const struct sdc_listener_ops ops = {.open = open_session, .end = end_session, .free = free};

int sdc_vhu_listen(struct sdc_loop *loop, int fd, struct sdc_vhu_card *card, const struct sdc_vhu_options *options,
                   struct sdc_listener **listener, struct sdc_error *err)
{
    struct door *door = malloc(sizeof *door);
    if (!door)
        return sdc_error_set(err, -ENOMEM, SDC_FAULT_HOST, "no memory for a listener");

    *door = (struct door){.loop = loop, .card = card, .options = *options};
    if (fd < 0)
        return sdc_listener_dial_new(loop, door->options.path, door->options.name, &ops, door, listener, err);
    return sdc_listener_new(loop, fd, door->options.name, &ops, door, listener, err);
}
