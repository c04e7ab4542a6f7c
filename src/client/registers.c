// SPDX-License-Identifier: BSD-3-Clause
// Registers: REGION_READ and REGION_WRITE, and REGION_WRITE_MULTI. What does not fit into one message goes in
// several, a few of which are sent ahead.
#include "client/vfio_client.h"

#include "base/check.h"
#include "base/limits.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { AHEAD = 8 }; // messages that are sent before the first reply is waited for

// A transfer of any size, and how far it is.
struct transfer {
    struct sdc_vfio_client *client;
    uint32_t region;
    uint64_t offset;
    uint8_t *to;         // a read's
    const uint8_t *from; // a write's
    size_t size;
    size_t sent;                        // bytes that were asked for
    size_t taken;                       // bytes whose reply has come
    struct sdc_vfio_call *calls[AHEAD]; // in order, [first, first + waiting) modulo AHEAD
    unsigned first;
    unsigned waiting;
};

static size_t piece(const struct transfer *transfer, size_t at)
{
    return (size_t)sdc_min(transfer->size - at, sdc_vfio_client_session(transfer->client)->max_data_transfer);
}

static int send_piece(struct transfer *transfer, struct sdc_error *err)
{
    size_t size = piece(transfer, transfer->sent);
    struct sdc_vfu_region_access access = {
        .offset = transfer->offset + transfer->sent,
        .region = transfer->region,
        .count = (uint32_t)size,
    };
    struct sdc_vfio_command command = {
        .command = transfer->from ? SDC_VFU_REGION_WRITE : SDC_VFU_REGION_READ,
        .head = &access,
        .head_size = sizeof access,
        .data = transfer->from ? transfer->from + transfer->sent : NULL,
        .data_size = transfer->from ? size : 0,
    };
    unsigned place = (transfer->first + transfer->waiting) % AHEAD;
    int ret = sdc_vfio_client_send(transfer->client, &command, &transfer->calls[place], err);
    if (ret < 0)
        return ret;
    transfer->waiting++;
    transfer->sent += size;
    return 0;
}

static int take_piece(struct transfer *transfer, struct sdc_error *err)
{
    struct sdc_vfu_region_access access;
    struct sdc_vfio_reply reply;
    size_t size = piece(transfer, transfer->taken);
    struct sdc_vfio_call *call = transfer->calls[transfer->first];
    transfer->first = (transfer->first + 1) % AHEAD;
    transfer->waiting--;
    int ret = sdc_vfio_client_wait(transfer->client, call, &reply, err);
    if (ret < 0)
        return ret;
    size_t due = sizeof access + (transfer->to ? size : 0);
    size_t came = reply.size;
    if (came >= sizeof access)
        memcpy(&access, reply.payload, sizeof access);
    if (came == due && access.count == size && transfer->to)
        memcpy(transfer->to + transfer->taken, (uint8_t *)reply.payload + sizeof access, size);
    sdc_vfio_reply_release(&reply);
    if (came != due || access.count != size)
        return sdc_error_set(err, -EPROTO, SDC_FAULT_PEER,
                             "the server's reply to an access of %zu bytes at 0x%" PRIx64
                             " of region %" PRIu32 " has %zu bytes, %zu are due",
                             size, transfer->offset + transfer->taken, transfer->region, came, due);
    transfer->taken += size;
    return 0;
}

static int run(struct transfer *transfer, struct sdc_error *err)
{
    int ret = 0;
    uint64_t end;
    if (!sdc_add(transfer->offset, transfer->size, &end))
        return sdc_error_set(err, -EINVAL, SDC_FAULT_USER,
                             "%zu bytes at 0x%" PRIx64 " of region %" PRIu32 " end beyond 2^64",
                             transfer->size, transfer->offset, transfer->region);
    while (ret == 0 && transfer->taken < transfer->size) {
        while (ret == 0 && transfer->waiting < AHEAD && transfer->sent < transfer->size)
            ret = send_piece(transfer, err);
        if (ret == 0)
            ret = take_piece(transfer, err);
    }
    // After an error: the replies that are still due are nobody's.
    for (; transfer->waiting > 0; transfer->waiting--) {
        sdc_vfio_client_wait(transfer->client, transfer->calls[transfer->first], NULL, NULL);
        transfer->first = (transfer->first + 1) % AHEAD;
    }
    return ret;
}

int sdc_vfio_client_read(struct sdc_vfio_client *client, uint32_t region, uint64_t offset, void *data,
                         size_t size, struct sdc_error *err)
{
    struct transfer transfer = {
        .client = client, .region = region, .offset = offset, .to = data, .size = size};
    return run(&transfer, err);
}

int sdc_vfio_client_write(struct sdc_vfio_client *client, uint32_t region, uint64_t offset, const void *data,
                          size_t size, struct sdc_error *err)
{
    struct transfer transfer = {
        .client = client, .region = region, .offset = offset, .from = data, .size = size};
    return run(&transfer, err);
}

int sdc_vfio_client_post(struct sdc_vfio_client *client, uint32_t region, uint64_t offset, const void *data,
                         size_t size, struct sdc_error *err)
{
    struct sdc_vfu_region_access access = {.offset = offset, .region = region, .count = (uint32_t)size};
    struct sdc_vfio_command command = {
        .command = SDC_VFU_REGION_WRITE,
        .posted = true,
        .head = &access,
        .head_size = sizeof access,
        .data = data,
        .data_size = size,
    };
    return sdc_vfio_client_send(client, &command, NULL, err);
}

// --- many small writes ---

// As many writes as one message has, as it has them.
struct batch {
    struct sdc_vfu_write_multi head;
    struct sdc_vfu_write writes[SDC_LIMIT_WRITE_MULTI];
};

static void fill_batch(struct batch *batch, const struct sdc_vfio_write *writes, size_t count)
{
    batch->head.wr_cnt = count;
    for (size_t i = 0; i < count; i++) {
        struct sdc_vfu_write *to = &batch->writes[i];
        *to = (struct sdc_vfu_write){
            .offset = writes[i].offset, .region = writes[i].region, .count = writes[i].size};
        memcpy(to->data, writes[i].data, writes[i].size);
    }
}

static int send_batch(struct sdc_vfio_client *client, const struct sdc_vfio_write *writes, size_t count,
                      bool posted, struct sdc_error *err)
{
    struct batch batch;
    struct sdc_vfu_write_multi done;
    struct sdc_vfio_reply reply;
    fill_batch(&batch, writes, count);
    struct sdc_vfio_command command = {
        .command = SDC_VFU_REGION_WRITE_MULTI,
        .posted = posted,
        .head = &batch,
        .head_size = sizeof batch.head + count * sizeof batch.writes[0],
    };
    if (posted)
        return sdc_vfio_client_send(client, &command, NULL, err);
    int ret = sdc_vfio_client_do(client, &command, sizeof done, &reply, err);
    if (ret < 0)
        return ret;
    memcpy(&done, reply.payload, sizeof done);
    sdc_vfio_reply_release(&reply);
    if (done.wr_cnt == count)
        return 0;
    return sdc_error_set(err, done.wr_cnt < count ? -EIO : -EPROTO, SDC_FAULT_PEER,
                         "%s: the server says that it did %" PRIu64 " of %zu writes", client->name,
                         done.wr_cnt, count);
}

static int write_one(struct sdc_vfio_client *client, const struct sdc_vfio_write *write, bool posted,
                     struct sdc_error *err)
{
    if (posted)
        return sdc_vfio_client_post(client, write->region, write->offset, write->data, write->size, err);
    return sdc_vfio_client_write(client, write->region, write->offset, write->data, write->size, err);
}

int sdc_vfio_client_write_multi(struct sdc_vfio_client *client, const struct sdc_vfio_write *writes,
                                size_t count, bool posted, struct sdc_error *err)
{
    int ret = 0;
    for (size_t i = 0; i < count; i++)
        if (writes[i].size == 0 || writes[i].size > sizeof writes[i].data)
            return sdc_error_set(err, -EINVAL, SDC_FAULT_USER, "%s: a small write of %" PRIu32 " bytes",
                                 client->name, writes[i].size);
    size_t most = client->session.write_multiple ? SDC_LIMIT_WRITE_MULTI : 1;
    for (size_t at = 0, step; ret == 0 && at < count; at += step) {
        step = (size_t)sdc_min(count - at, most);
        ret = step > 1 ? send_batch(client, writes + at, step, posted, err)
                       : write_one(client, &writes[at], posted, err);
    }
    return ret;
}
