// SPDX-License-Identifier: BSD-3-Clause
// What the server asks of us: DMA_READ and DMA_WRITE of private memory (vfio-user, "Read and Write
// Operations"). The thread that reads does a write as it comes, so that a reply behind it finds it done. What
// is to be answered is noted down, and answered as the socket takes it; a read reads then. So a write may
// overtake a read that was sent before it, never the other way round, as on a PCI bus.
#include "client/vfio_client.h"

#include "base/check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// Older clients' idea of these messages: the count has 32 bits and data follows it at once, so that four bytes
// stand at the end of a message, which is as long as ours; a write is answered with a header only.
enum { DATA_32 = 12 };

// Where the data stands behind the header.
static size_t data_offset(const struct sdc_vfio_client *client)
{
    return client->dma_count_32 ? DATA_32 : sizeof(struct sdc_vfu_dma_access);
}

// --- taking ---

// Reads the head of a DMA command. errno, or 0.
static int take_access(const struct sdc_vfio_client *client, const struct sdc_vfio_incoming *in,
                       struct sdc_vfu_dma_access *access)
{
    size_t size = in->header.msg_size - sizeof in->header;
    if (size < sizeof *access)
        return EINVAL;
    memcpy(access, in->payload, data_offset(client)); // little-endian: a 32-bit count is the lower half
    if (access->count > client->session.max_data_transfer)
        return EINVAL;
    return size == sizeof *access + (in->header.cmd == SDC_VFU_DMA_WRITE ? access->count : 0) ? 0 : EINVAL;
}

// Does what the command wants at once. errno, or 0.
static int do_command(struct sdc_vfio_client *client, const struct sdc_vfio_incoming *in,
                      struct sdc_vfu_dma_access *access)
{
    if (in->header.cmd != SDC_VFU_DMA_READ && in->header.cmd != SDC_VFU_DMA_WRITE)
        return ENOSYS;
    int error = take_access(client, in, access);
    if (error != 0 || in->header.cmd == SDC_VFU_DMA_READ)
        return error;
    return -sdc_vfio_private_write(client, access->address, in->payload + data_offset(client), access->count);
}

// Makes room for one more. Under lock.
static int make_room(struct sdc_vfio_channel *channel)
{
    if (channel->owed_count < channel->owed_room)
        return 0;
    if (channel->owed_count == SDC_VFIO_CLIENT_OWED_MAX)
        return -EPROTO;
    unsigned room = channel->owed_room > 0 ? 2 * channel->owed_room : 16;
    struct sdc_vfio_owed *larger = calloc(room, sizeof *larger);
    if (!larger)
        return -ENOMEM;
    for (unsigned i = 0; i < channel->owed_count; i++)
        larger[i] = channel->owed[(channel->owed_first + i) % channel->owed_room];
    free(channel->owed);
    channel->owed = larger;
    channel->owed_room = room;
    channel->owed_first = 0;
    return 0;
}

static int note(struct sdc_vfio_client *client, struct sdc_vfio_channel *channel,
                const struct sdc_vfio_owed *owed)
{
    pthread_mutex_lock(&client->lock);
    int ret = make_room(channel);
    if (ret == 0)
        channel->owed[(channel->owed_first + channel->owed_count++) % channel->owed_room] = *owed;
    pthread_mutex_unlock(&client->lock);
    return ret;
}

int sdc_vfio_answers_take(struct sdc_vfio_client *client, struct sdc_vfio_channel *channel,
                          struct sdc_error *err)
{
    const struct sdc_vfio_incoming *in = &channel->in;
    struct sdc_vfio_owed owed = {.id = in->header.msg_id, .command = in->header.cmd};
    owed.error = do_command(client, in, &owed.access);
    if (in->header.flags & SDC_VFU_NO_REPLY)
        return 0;
    int ret = note(client, channel, &owed);
    if (ret == -ENOMEM)
        return sdc_error_set(err, ret, SDC_FAULT_HOST, "%s: no memory for answers", channel->name);
    if (ret < 0)
        return sdc_error_set(err, ret, SDC_FAULT_PEER, "%s: the server sent %d commands and took no answers",
                             channel->name, SDC_VFIO_CLIENT_OWED_MAX);
    return 0;
}

// --- answering ---

bool sdc_vfio_answers_owed(struct sdc_vfio_client *client, const struct sdc_vfio_channel *channel)
{
    pthread_mutex_lock(&client->lock);
    bool any = channel->owed_count > 0 && client->failure.code == 0;
    pthread_mutex_unlock(&client->lock);
    return any;
}

static int reserve(struct sdc_vfio_channel *channel, size_t size)
{
    if (size <= channel->answer_room)
        return 0;
    uint8_t *larger = realloc(channel->answer, size);
    if (!larger)
        return -ENOMEM;
    channel->answer = larger;
    channel->answer_room = size;
    return 0;
}

// Writes the answer to channel->answer, in which there is room for a header and an access. Under send_lock.
static void make_answer(struct sdc_vfio_client *client, struct sdc_vfio_channel *channel,
                        const struct sdc_vfio_owed *owed)
{
    struct sdc_vfu_header header = {
        .msg_id = owed->id, .cmd = owed->command, .msg_size = sizeof header, .flags = SDC_VFU_TYPE_REPLY};
    size_t size = sizeof header + sizeof owed->access;
    bool read = owed->command == SDC_VFU_DMA_READ;
    int error = owed->error;
    if (error == 0 && read)
        error = -reserve(channel, size + owed->access.count);
    memcpy(channel->answer + sizeof header, &owed->access, sizeof owed->access);
    if (error == 0 && read)
        memset(channel->answer + size + owed->access.count - 4, 0, 4); // where the data of older clients ends
    if (error == 0 && read)
        error = -sdc_vfio_private_read(client, owed->access.address,
                                       channel->answer + sizeof header + data_offset(client), owed->access.count);
    if (error != 0) {
        header.flags |= SDC_VFU_ERROR;
        header.error = (uint32_t)error;
    } else if (read || !client->dma_count_32) {
        header.msg_size = (uint32_t)(size + (read ? owed->access.count : 0));
    }
    memcpy(channel->answer, &header, sizeof header);
    channel->answer_size = header.msg_size;
    channel->answer_sent = 0;
}

// The answer that is next, unless the connection has failed. False: none.
static bool next_owed(struct sdc_vfio_client *client, struct sdc_vfio_channel *channel,
                      struct sdc_vfio_owed *owed)
{
    pthread_mutex_lock(&client->lock);
    bool any = channel->owed_count > 0 && client->failure.code == 0;
    if (any)
        *owed = channel->owed[channel->owed_first];
    pthread_mutex_unlock(&client->lock);
    return any;
}

// Answers until nothing is owed or the socket is full, which is 0. Under send_lock.
static int send_some(struct sdc_vfio_client *client, struct sdc_vfio_channel *channel)
{
    struct sdc_vfio_owed owed;
    int ret = 1;
    while (ret == 1 && next_owed(client, channel, &owed)) {
        if (channel->answer_size == 0)
            make_answer(client, channel, &owed);
        ret = sdc_vfio_channel_send_answer(client, channel);
    }
    return ret;
}

void sdc_vfio_answers_send(struct sdc_vfio_client *client)
{
    for (unsigned i = 0; i < SDC_VFIO_CLIENT_CHANNELS; i++) {
        struct sdc_vfio_channel *channel = &client->channels[i];
        int ret = 1;
        while (ret == 1 && sdc_vfio_answers_owed(client, channel) &&
               pthread_mutex_trylock(&channel->send_lock) == 0) {
            ret = send_some(client, channel);
            pthread_mutex_unlock(&channel->send_lock);
        }
    }
}
