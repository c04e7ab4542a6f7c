// SPDX-License-Identifier: BSD-3-Clause
// Which of the two protocols is spoken at a socket.
#pragma once

#include <stdbool.h>

enum sdc_protocol {
    SDC_PROTOCOL_EITHER, // it was not said: to be found out
    SDC_PROTOCOL_VFIO_USER,
    SDC_PROTOCOL_VHOST_USER,
};

// What "vfio-user:" or "vhost-user:" before a path says; *path is what is behind it.
enum sdc_protocol sdc_protocol_parse(const char *socket, const char **path);
// Whether a server to which sdc_vfio_client_open failed with this code may be a vhost-user back end. Neither side of vhost-user speaks
// before the front end does, and a vfio-user server takes no other first message than VERSION: that is sent, and who ends the connection
// over it, or answers with something else, is asked again in the other protocol. To a vhost-user back end VERSION is a request of a number
// that does not exist and without a payload; each ends the connection.
bool sdc_protocol_may_be_other(int code);
