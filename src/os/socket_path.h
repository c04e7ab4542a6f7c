// SPDX-License-Identifier: BSD-3-Clause
// What the two halves of the socket code (connected, listening) need of each other. Nobody else includes
// this.
#pragma once

#include <sidecard/error.h>

#include <sys/socket.h>
#include <sys/un.h>

// Fills *address. -ENAMETOOLONG or -EINVAL, with *err filled.
int sdc_socket_address(const char *path, struct sockaddr_un *address, struct sdc_error *err);
// Opens the fd that sdc_socket_accept falls back on, if it isn't open. Any thread.
void sdc_socket_hold_reserve(void);
