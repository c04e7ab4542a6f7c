// SPDX-License-Identifier: BSD-3-Clause
// Registers: REGION_READ and REGION_WRITE. What does not fit into one message goes in several, a few of which
// are sent ahead.
#include "client/vfio_client.h"

#include "base/check.h"

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
