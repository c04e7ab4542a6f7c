// SPDX-License-Identifier: BSD-3-Clause
// VERSION, the first message (vfio-user, "Version"): what we offer, and what the server makes of it.
#include "client/vfio_client.h"

#include "base/check.h"
#include "base/limits.h"
#include "os/socket.h"
#include "wire/vfio_user_version.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { MAJOR = 0, MINOR = 0 };

static uint32_t or_default(uint32_t value, uint32_t limit)
{
    return value == 0 || value > limit ? limit : value;
}

// The first exchange fails for reasons that the caller can do something about: say which.
static int explain(struct sdc_vfio_client *client, int code, struct sdc_error *err)
{
    if (code == -ETIMEDOUT)
        return sdc_error_set(err, code, SDC_FAULT_PEER,
                             "%s: the server did not answer VERSION within %" PRIu32
                             " ms: another client may be connected "
                             "(end it first), or the server does not speak vfio-user",
                             client->name, client->timeout_ms);
    if (code == -ECONNRESET || code == -EPIPE)
        return sdc_error_set(err, code, SDC_FAULT_PEER,
                             "%s: the server closed the connection instead of answering VERSION",
                             client->name);
    return code;
}

static int check_version(struct sdc_vfio_client *client, const struct sdc_vfu_version *version,
                         struct sdc_error *err)
{
    if (version->major == MAJOR && version->minor <= MINOR)
        return 0;
    return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER, "%s: the server answered VERSION %d.%d with %u.%u",
                         client->name, MAJOR, MINOR, version->major, version->minor);
}

// The socket for what the server asks came with the reply, if it wants one. That it says so and sends none is
// one of the things that the specification has us close the connection for.
static int take_twin(struct sdc_vfio_client *client, const struct sdc_vfu_capabilities *caps,
                     struct sdc_vfio_reply *reply, struct sdc_error *err)
{
    if (!caps->twin_supported)
        return 0;
    if (!caps->has_twin_fd_index || caps->twin_fd_index >= reply->fds_count)
        return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER,
                             "%s: the server promised a twin socket and sent %u file descriptors, none of "
                             "them its number",
                             client->name, reply->fds_count);
    int *fd = &reply->fds[caps->twin_fd_index];
    if (!sdc_socket_is_connected(*fd))
        return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER,
                             "%s: what the server sent as a twin socket is no connected Unix stream socket",
                             client->name);
    snprintf(client->twin_name, sizeof client->twin_name, "%s (twin socket)", client->name);
    int ret = sdc_vfio_channel_open(&client->channels[SDC_VFIO_CLIENT_TWIN], *fd, client->twin_name);
    *fd = -1;
    if (ret < 0)
        return sdc_error_set(err, ret, SDC_FAULT_HOST, "%s: no memory for a connection", client->name);
    client->session.twin_socket = true;
    return 0;
}

// Reads the reply into the session: the smaller of what was offered and what was answered.
static int take_reply(struct sdc_vfio_client *client, const struct sdc_vfu_capabilities *offer,
                      struct sdc_vfio_reply *reply, struct sdc_error *err)
{
    struct sdc_vfu_version version;
    struct sdc_vfu_capabilities caps;
    memcpy(&version, reply->payload, sizeof version);
    int ret = check_version(client, &version, err);
    if (ret < 0)
        return ret;
    struct sdc_error why = {0};
    ret = sdc_vfu_capabilities_parse((const char *)reply->payload + sizeof version,
                                     reply->size - sizeof version, &caps, &why);
    if (ret < 0)
        return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER, "%s: the server's answer to %.300s", client->name,
                             why.text);
    client->session = (struct sdc_vfio_client_session){
        .major = version.major,
        .minor = version.minor,
        .max_message_fds = (uint32_t)sdc_min(caps.max_msg_fds, SDC_VFIO_CLIENT_FDS),
        .max_data_transfer = (uint32_t)sdc_min(caps.max_data_xfer_size, offer->max_data_xfer_size),
        .max_dma_maps = caps.max_dma_maps,
        .page_sizes = caps.pgsizes,
        .write_multiple = caps.write_multiple,
    };
    if (caps.twin_supported && !offer->twin_supported)
        return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER,
                             "%s: the server wants a twin socket, which was not offered", client->name);
    return take_twin(client, &caps, reply, err);
}

int sdc_vfio_client_negotiate(struct sdc_vfio_client *client, const struct sdc_vfio_client_options *options,
                              struct sdc_error *err)
{
    struct sdc_vfu_version version = {.major = MAJOR, .minor = MINOR};
    struct sdc_vfu_capabilities offer = {
        .has_max_msg_fds = true,
        .has_max_data_xfer_size = true,
        .has_max_dma_maps = true,
        .has_pgsizes = true,
        .has_write_multiple = true,
        .has_twin_socket = options->twin_socket,
        .max_msg_fds = or_default(options->max_message_fds, SDC_VFIO_CLIENT_FDS),
        .max_data_xfer_size = or_default(options->max_data_transfer, SDC_LIMIT_DATA_XFER),
        .max_dma_maps = SDC_LIMIT_DMA_REGIONS,
        .pgsizes = 4096,
        .write_multiple = true,
        .twin_supported = options->twin_socket,
    };
    char json[256];
    int size = sdc_vfu_capabilities_print(&offer, json, sizeof json);
    if (size < 0)
        return sdc_error_set(err, size, SDC_FAULT_HOST, "%s: cannot write VERSION", client->name);
    struct sdc_vfio_command command = {
        .command = SDC_VFU_VERSION,
        .head = &version,
        .head_size = sizeof version,
        .data = json,
        .data_size = (size_t)size,
    };
    struct sdc_vfio_reply reply;
    int ret = sdc_vfio_client_do(client, &command, sizeof version, &reply, err);
    if (ret < 0)
        return explain(client, ret, err);
    ret = take_reply(client, &offer, &reply, err);
    sdc_vfio_reply_release(&reply);
    return ret;
}
