// SPDX-License-Identifier: BSD-3-Clause
// The server: loops on their threads, cards, and the sockets that they are reached by.
#pragma once

#include "control/options.h"

struct sdc_server;

// threads: loops, 1 to 64, all of one kind; the first is run by the caller of sdc_server_run. Blocks
// SIGTERM, SIGINT and SIGHUP. 0 or a negative errno with err filled.
int sdc_server_new(unsigned threads, enum sdc_loop_kind kind, struct sdc_server **server, struct sdc_error *err);
// Copies of all fds that matter are kept by whoever is at the other end of fd (which is taken over), so that another process can go on
// when this one ends or is killed. Before sdc_server_add; the socket must be a passed one, then. Waits for what the keeper has.
int sdc_server_keep(struct sdc_server *server, int fd, struct sdc_error *err);
// Makes a card and listens; with a keeper, goes on where another process was. Before sdc_server_run.
int sdc_server_add(struct sdc_server *server, const struct sdc_serve_options *options, struct sdc_error *err);
// The cards that were added come from this file, whose name the caller keeps: SIGHUP has it read again. Before sdc_server_run.
void sdc_server_follow(struct sdc_server *server, const char *config);
// Serves until SIGTERM or SIGINT, then ends every session in order. SIGHUP looks at the backends again.
int sdc_server_run(struct sdc_server *server, struct sdc_error *err);
// After sdc_server_run: it ended because the keeper wants another process to go on. Nothing may be freed or put back: the process should
// just be gone.
bool sdc_server_left(const struct sdc_server *server);
// After sdc_server_run, or instead of it. NULL is fine.
void sdc_server_free(struct sdc_server *server);
