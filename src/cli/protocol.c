// SPDX-License-Identifier: BSD-3-Clause
#include "cli/protocol.h"

#include "base/check.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

enum sdc_protocol sdc_protocol_parse(const char *socket, const char **path)
{
    static const struct {
        const char *prefix;
        enum sdc_protocol protocol;
    } prefixes[] = {{"vfio-user:", SDC_PROTOCOL_VFIO_USER}, {"vhost-user:", SDC_PROTOCOL_VHOST_USER}};

    for (size_t i = 0; i < SDC_COUNT(prefixes); i++) {
        size_t length = strlen(prefixes[i].prefix);
        if (strncmp(socket, prefixes[i].prefix, length) != 0)
            continue;
        *path = socket + length;
        return prefixes[i].protocol;
    }
    *path = socket;
    return SDC_PROTOCOL_EITHER;
}

bool sdc_protocol_may_be_other(int code)
{
    return code == -ECONNRESET || code == -EPIPE || code == -EPROTO;
}
