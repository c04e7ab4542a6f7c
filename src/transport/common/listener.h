// SPDX-License-Identifier: BSD-3-Clause
// Where sessions come from, one at a time: a listening socket, whose next client waits in the backlog until the card is as new again; or
// a client that listens itself, and is connected to again when it has gone. What a session is, the transport says. All on the home loop.
#pragma once

#include <sidecard/error.h>

#include "loop/loop.h"

struct sdc_listener;

struct sdc_listener_ops {
    // A client was let in: makes its session, which takes fd over. Its end is told by sdc_listener_ended. NULL: no memory, and fd is
    // closed.
    void *(*open)(void *context, int fd, struct sdc_listener *listener);
    // Where another process was: makes the session that it had, if there was one. 0, or a negative errno with err filled; *session is one
    // that ends, then, or NULL. NULL: no session outlives its process.
    int (*resume)(void *context, struct sdc_listener *listener, void **session, struct sdc_error *err);
    // Another process is to go on with the session: nothing is received or handled any more. NULL if resume is.
    void (*hold)(void *session);
    // The server ends: so does the session, whatever its state; sdc_listener_ended follows, not before this returns.
    void (*end)(void *session);
    // The listener is closed: frees context.
    void (*free)(void *context);
};

// Listens on fd, a listening non-blocking socket that stays the caller's. context is the listener's from then on, also when this fails.
// name is for the log, and outlives it.
int sdc_listener_new(struct sdc_loop *loop, int fd, const char *name, const struct sdc_listener_ops *ops, void *context,
                     struct sdc_listener **listener, struct sdc_error *err);
// Connects to a client that listens at path, one that can be, which outlives the listener; and tries again for as long as nobody does.
int sdc_listener_dial_new(struct sdc_loop *loop, const char *path, const char *name, const struct sdc_listener_ops *ops, void *context,
                          struct sdc_listener **listener, struct sdc_error *err);
// Before the loop runs: goes on with the session that another process had. 0, or a negative errno with err filled: then it should be
// closed.
int sdc_listener_resume(struct sdc_listener *listener, struct sdc_error *err);
// Another process is to go on. After that nothing but the end of this process may follow.
void sdc_listener_hold(struct sdc_listener *listener);
// The session that open made is gone: the next client is let in.
void sdc_listener_ended(struct sdc_listener *listener);
// Lets nobody in any more, ends the session, then frees itself and calls closed.
void sdc_listener_close(struct sdc_listener *listener, void (*closed)(void *context), void *context);
