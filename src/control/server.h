// SPDX-License-Identifier: BSD-3-Clause
// The server as the command uses it, beside what is public of it: cards by name, a keeper, a configuration file, signals.
#pragma once

#include <sidecard/server.h>

#include "control/options.h"

// Ends when one of these signals comes (a list that ends with 0), or when it is SIGHUP, looks at the backends again. They are blocked.
// NULL: no signal is touched. 0 or a negative errno with err filled.
int sdc_server_new_with(const struct sdc_server_options *options, const int *signals, struct sdc_server **server, struct sdc_error *err);
// Copies of all fds that matter are kept by whoever is at the other end of fd (which is taken over), so that another process can go on
// when this one ends or is killed. Before sdc_server_add; the socket must be a passed one, then. Waits for what the keeper has.
int sdc_server_keep(struct sdc_server *server, int fd, struct sdc_error *err);
// Makes a card and listens; with a keeper, goes on where another process was. Before sdc_server_run.
int sdc_server_add(struct sdc_server *server, const struct sdc_serve_options *options, struct sdc_error *err);
// The cards that were added come from this file, whose name the caller keeps: SIGHUP has it read again. Before sdc_server_run.
void sdc_server_follow(struct sdc_server *server, const char *config);
// After sdc_server_run: it ended because the keeper wants another process to go on. Nothing may be freed or put back: the process should
// just be gone.
bool sdc_server_left(const struct sdc_server *server);
